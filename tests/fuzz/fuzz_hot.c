/* links: tailnetd/engine/hot.c core/tn_addr.c */
/* max_len: 1024 */
/*
 * An earlier engine's hot state with any bytes in it: changes to a good file
 * (offset, length, bytes...), and then whatever an engine does with one.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/engine/hot.h"
#include "fuzz.h"

#define NOW 1800000000

static const uint8_t keys[4][32] = {{1}, {2}, {1, 2}, {0}};
static uint8_t *good;
static size_t good_size;

static void
make_good(void)
{
    struct tn_endpoint e = {
        tn_addr_from4((const uint8_t[4]){192, 0, 2, 1}), 41641};
    struct stat st;
    struct hot *h;
    unsigned i;
    int fd;

    h = hot_new(&fd);
    FUZZ_MUST(h != NULL && hot_node(h, "web") != NULL);
    hot_node(h, "db")->generation = 7;
    for (i = 0; i < 12; i++)
        hot_saw(h, i & 1 ? "web" : "db", keys[i % 3], &e, NOW - i);
    FUZZ_MUST(fstat(fd, &st) == 0);
    good_size = (size_t)st.st_size;
    good = malloc(good_size);
    FUZZ_MUST(
        good != NULL && pread(fd, good, good_size, 0) == (ssize_t)good_size);
    hot_free(h);
}

/* The changes make the file sparse but for what they touch. */
static int
make_file(struct fuzz_input *in)
{
    uint8_t how = fuzz_u8(in);
    int fd = memfd_create("hot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct fuzz_input part;
    size_t size = good_size, at;

    FUZZ_MUST(fd != -1);
    if ((how & 7) == 1)
        size = fuzz_u32(in) % (2 * good_size);
    if ((how & 7) != 2)
        FUZZ_MUST(write(fd, good, good_size) == (ssize_t)good_size);
    FUZZ_MUST(ftruncate(fd, (off_t)size) == 0);
    while (in->len > 0 && size > 0) {
        /* Names and what is at the start more often than the rest. */
        at = fuzz_u16(in);
        at = at & 1 ? at * 16 % size : at / 2 % 8192 % size;
        part = fuzz_bytes(in, fuzz_u8(in) % 97);
        if (part.len > size - at)
            part.len = size - at;
        FUZZ_MUST(pwrite(fd, part.p, part.len, (off_t)at) == (ssize_t)part.len);
    }
    if (!(how & 8))
        FUZZ_MUST(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    return fd;
}

static void
use(struct hot *h)
{
    static const char *const names[] = {"web", "db", "new", ""};
    struct tn_endpoint e = {
        tn_addr_from4((const uint8_t[4]){198, 51, 100, 1}), 1};
    const struct hot_peer *p;
    struct hot_node *n;
    unsigned i, k;

    for (i = 0; i < 4; i++) {
        n = i < 3 ? hot_node(h, names[i]) : NULL;
        if (n != NULL) {
            FUZZ_MUST(strcmp(n->name, names[i]) == 0);
            fuzz_touch(n, sizeof(*n));
            n->generation++;
        }
        for (k = 0; k < 4; k++) {
            p = hot_peer(h, names[i], keys[k], NOW);
            if (p == NULL)
                continue;
            FUZZ_MUST(p->port != 0 || p->region != 0);
            FUZZ_MUST(p->seen <= NOW);
            FUZZ_MUST(p->seen >= NOW - HOT_ACTIVE_S);
            FUZZ_MUST(memcmp(p->key, keys[k], 32) == 0);
        }
    }
    for (k = 0; k < 4; k++) {
        hot_saw(h, "web", keys[k], &e, NOW);
        p = hot_peer(h, "web", keys[k], NOW);
        FUZZ_MUST(p != NULL && p->port == 1 && p->seen == NOW);
        hot_saw_relay(h, "web", keys[k], 7, NOW);
        p = hot_peer(h, "web", keys[k], NOW);
        FUZZ_MUST(p != NULL && p->port == 0 && p->region == 7);
    }
    (void)hot_evicted(h);
    hot_forget(h, "web");
    FUZZ_MUST(hot_peer(h, "web", keys[0], NOW) == NULL);
    n = hot_node(h, "web");
    FUZZ_MUST(n == NULL || n->generation == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct hot *h;

    if (good == NULL)
        make_good();
    h = hot_open(make_file(&in));
    if (h != NULL)
        use(h);
    hot_free(h);
    return 0;
}

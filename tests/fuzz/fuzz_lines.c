/* links: tailnetd/holder/lines.c tailnetd/holder/store.c tailnetd/log.c */
/* max_len: 8192 */
/*
 * What an engine leaves to its holder, however it ended, by the first byte: its
 * standard error, which becomes lines of the log and nothing else, and names
 * of descriptors.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/holder/child.h"
#include "../../ngx_tailnet_module/tailnetd/holder/lines.h"
#include "../../ngx_tailnet_module/tailnetd/holder/store.h"
#include "../../ngx_tailnet_module/tailnetd/log.h"
#include "fuzz.h"

#define SECOND_MS 1000
#define STEPS_MAX 48

/* ---- lines ---- */

static int log_fd = -1;
static char *text; /* of the log */
static size_t text_len, text_at;

/* The log is a memory file. */
static void
set_up(void)
{
    static char path[64]; /* log_open() keeps it */

    if (log_fd != -1)
        return;
    log_fd = memfd_create("log", MFD_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", log_fd);
    FUZZ_MUST(log_fd != -1 && log_open(path) == 0 && log_limit("debug") == 0);
}

static void
read_log(void)
{
    off_t len = lseek(log_fd, 0, SEEK_END);

    FUZZ_MUST(len >= 0);
    free(text);
    text = malloc((size_t)len + 1);
    text_at = 0;
    text_len = (size_t)len;
    FUZZ_MUST(text != NULL && pread(log_fd, text, text_len, 0) == len);
}

/* The next line of the log is ${level} and ${len} bytes of ${p}, but for what
 * could harm a terminal. */
static void
expect(const char *level, const uint8_t *p, size_t len)
{
    static const char mark[] = ": tailnetd: ";
    char *line = text + text_at, *end, *at, want[16];
    size_t i;

    FUZZ_MUST(text_at < text_len);
    end = memchr(line, '\n', text_len - text_at);
    FUZZ_MUST(end != NULL);
    text_at += (size_t)(end + 1 - line);
    at = memmem(line, (size_t)(end - line), mark, sizeof(mark) - 1);
    FUZZ_MUST(at != NULL);
    snprintf(want, sizeof(want), " [%s] ", level);
    FUZZ_MUST(
        memmem(line, (size_t)(at - line), want, strlen(want)) == line + 19);
    at += sizeof(mark) - 1;
    FUZZ_MUST((size_t)(end - at) == len);
    for (i = 0; i < len; i++)
        FUZZ_MUST(p[i] < 0x20 || p[i] == 0x7f ? at[i] == '?'
                                              : (uint8_t)at[i] == p[i]);
}

/* One line as it was written; returns whether it is one. */
static bool
expect_line(const uint8_t *p, size_t len, bool counted)
{
    static const char *const level[] = {
        "alert", "alert", "alert", "error", "warn", "notice", "info", "debug"};
    unsigned digit = 3;

    if (len > LINES_BYTES)
        len = LINES_BYTES;
    if (len == 0 || counted)
        return len != 0;
    if (len >= 3 && p[0] == '<' && p[1] >= '0' && p[1] <= '7' && p[2] == '>') {
        digit = p[1] - '0';
        p += 3;
        len -= 3;
    }
    expect(level[digit], p, len);
    return true;
}

static void
check_log(const uint8_t *p, size_t len)
{
    unsigned lines = 0;
    const uint8_t *end;
    char want[128];
    size_t n;

    read_log();
    while (len > 0) {
        end = memchr(p, '\n', len);
        n = end == NULL ? len : (size_t)(end - p);
        lines += expect_line(p, n, lines >= CHILD_LINES_MAX);
        n += end != NULL;
        p += n;
        len -= n;
    }
    if (lines > CHILD_LINES_MAX) {
        n = (size_t)snprintf(want, sizeof(want),
            "%u log lines of the engine were suppressed: more than %d in a "
            "second",
            lines - CHILD_LINES_MAX, CHILD_LINES_MAX);
        expect("warn", (const uint8_t *)want, n);
    }
    FUZZ_MUST(text_at == text_len);
}

/* All of it within a second, and then that second is over. */
static void
words(struct fuzz_input *in)
{
    size_t piece = 1 + fuzz_u8(in) * 16u;
    struct fuzz_input all = *in, part;
    struct lines l;
    int p[2];

    set_up();
    FUZZ_MUST(ftruncate(log_fd, 0) == 0 && pipe2(p, O_NONBLOCK) == 0);
    lines_init(&l);
    lines_open(&l, p[0]);
    while (in->len > 0) {
        part = fuzz_bytes(in, piece);
        FUZZ_MUST(write(p[1], part.p, part.len) == (ssize_t)part.len);
        if (in->len > 0 || (piece & 16) != 0)
            lines_read(&l, 1);
    }
    close(p[1]);
    lines_drain(&l);
    FUZZ_MUST(lines_fd(&l) == -1);
    FUZZ_MUST((lines_deadline(&l) == -1) == (l.suppressed == 0));
    lines_tick(&l, SECOND_MS);
    lines_tick(&l, 2 * SECOND_MS);
    FUZZ_MUST(lines_deadline(&l) == -1);
    check_log(all.p, all.len);
}

/* ---- names ---- */

static void
put(struct fuzz_input *in, const char *name)
{
    size_t n = fuzz_u8(in) % (IPC_FDS_MAX + 2), i;
    int fds[IPC_FDS_MAX + 1], rc;
    const struct store_entry *e;

    for (i = 0; i < n; i++)
        FUZZ_MUST((fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC)) != -1);
    rc = store_put(name, fds, n);
    for (i = 0; (e = store_at(i)) != NULL && strcmp(e->name, name) != 0; i++)
        ;
    if (rc != 0)
        FUZZ_MUST(n == 0 || e == NULL || n > IPC_FDS_MAX);
    else if (n > 0)
        FUZZ_MUST(e != NULL && e->nfds == n);
    else
        FUZZ_MUST(e == NULL);
}

static void
check_store(void)
{
    const struct store_entry *e, *f;
    size_t i, k, b;

    for (i = 0; (e = store_at(i)) != NULL; i++) {
        FUZZ_MUST(e->nfds > 0 && e->nfds <= IPC_FDS_MAX);
        FUZZ_MUST(e->name[0] != '\0' && strlen(e->name) <= IPC_NAME_MAX);
        for (b = 0; e->name[b] != '\0'; b++)
            FUZZ_MUST(e->name[b] > ' ' && e->name[b] < 0x7f);
        for (k = 0; k < e->nfds; k++)
            FUZZ_MUST(fcntl(e->fds[k], F_GETFD) != -1);
        for (k = 0; k < i; k++) {
            f = store_at(k);
            FUZZ_MUST(strcmp(f->name, e->name) != 0);
        }
    }
    FUZZ_MUST(i <= STORE_MAX);
}

static unsigned
open_fds(void)
{
    unsigned n = 0;
    int fd;

    for (fd = 0; fd < STEPS_MAX * (IPC_FDS_MAX + 1); fd++)
        n += fcntl(fd, F_GETFD) != -1;
    return n;
}

/* Every name ends in its array, as a message's does; what is opened is closed
 * in the end. */
static void
names(struct fuzz_input *in)
{
    char name[IPC_NAME_MAX + 1] = "", kind[8] = "";
    unsigned before = open_fds();
    int fd, steps;
    struct fuzz_input part;
    uint8_t what;

    for (steps = 0; in->len > 0 && steps < STEPS_MAX; steps++) {
        what = fuzz_u8(in);
        if ((what & 8) != 0) {
            part = fuzz_bytes(in, (what >> 4) * 7u);
            memset(name, 0, sizeof(name));
            memcpy(name, part.p, part.len < sizeof(name) ? part.len : 0);
        }
        memcpy(kind, name, sizeof(kind) - 1);
        switch (what & 7) {
        case 0:
            store_drop_kind(kind);
            break;
        case 1:
            store_drop_node(name);
            break;
        case 2:
            fd = store_fd(kind, name);
            FUZZ_MUST(fd == -1 || fcntl(fd, F_GETFD) != -1);
            break;
        default:
            put(in, name);
        }
        check_store();
    }
    store_drop_all();
    FUZZ_MUST(store_at(0) == NULL);
    FUZZ_MUST(open_fds() == before);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};

    set_up();
    if (fuzz_u8(&in) & 1)
        names(&in);
    else
        words(&in);
    return 0;
}

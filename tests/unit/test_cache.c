/* links: tailnetd/control/cache.c tailnetd/control/map_json_write.c */
/* links: tailnetd/control/map_state.c tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json_delta.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_node.c tailnetd/control/map_json_rule.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_value.c */
/* links: tailnetd/control/map_json_claim.c tailnetd/control/map_json_derp.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/span.c core/tn_addr.c */
/* libs: -ljansson -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=write,--wrap=memfd_create */
/*
 * test_cache.c: a netmap's text is the same in parts of any size, and says what
 * the netmap says; what is saved over many turns of the loop has everybody who
 * was there all the time, and is saved whole or not at all.
 */
#include "fake_loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_json.h"
#include "../../ngx_tailnet_module/tailnetd/control/session.h"
#include "../../ngx_tailnet_module/tailnetd/engine/say.h"
#include "map_text.h"
#include "oom.h"

#define DIR_NAME "tests/vectors/netmap/valid"
#define PEERS    2000
#define TEXT_MAX (1 << 22)
#define ROUNDS   50

static bool no_memfd;
static int fail_write; /* of so many, the last one writes half; 0: none */

ssize_t __real_write(int fd, const void *p, size_t len);
ssize_t __wrap_write(int fd, const void *p, size_t len);
int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);

ssize_t
__wrap_write(int fd, const void *p, size_t len)
{
    bool fails = fail_write > 0 && --fail_write == 0;

    return __real_write(fd, p, fails ? len / 2 : len);
}

int
__wrap_memfd_create(const char *name, unsigned flags)
{
    if (no_memfd) {
        errno = EMFILE;
        return -1;
    }
    return __real_memfd_create(name, flags);
}

static unsigned errors;

void
say(int level, const char *fmt, ...)
{
    (void)fmt;
    errors += level <= 3;
}

/* ---- the text ---- */

static char *
read_file(const char *name, size_t *len)
{
    char path[512], *text = malloc(TEXT_MAX);
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s/input.json", DIR_NAME, name);
    f = fopen(path, "r");
    assert_non_null(f);
    *len = fread(text, 1, TEXT_MAX, f);
    fclose(f);
    return text;
}

static void
parts_of(const char *name)
{
    static const size_t sizes[] = {1, 2, 100, 1000};
    struct map_json_error err;
    struct netmap *nm, *again;
    size_t len, n, i;
    char *text, *part;

    text = read_file(name, &len);
    nm = map_json_parse(text, len, &err);
    free(text);
    assert_non_null(nm);
    text = map_text(nm, &len);
    assert_non_null(text);
    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        part = map_text_parts(nm, sizes[i], &n);
        assert_int_equal(n, len);
        assert_memory_equal(part, text, len);
        free(part);
    }
    again = map_json_parse(text, len, &err);
    if (again == NULL)
        fail_msg("%s: %s", name, err.text);
    assert_int_equal(again->npeers, nm->npeers);
    assert_int_equal(again->nrules, nm->nrules);
    assert_int_equal(again->nusers, nm->nusers);
    free(text);
    netmap_free(nm);
    netmap_free(again);
}

static void
in_parts(void **state)
{
    struct dirent *e;
    unsigned n = 0;
    DIR *dir = opendir(DIR_NAME);

    (void)state;
    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        parts_of(e->d_name);
        n++;
    }
    closedir(dir);
    assert_in_range(n, 30, 1000);
}

/* ---- a control ---- */

static struct control c;
static unsigned saves;
static char saved[TEXT_MAX + 1];

static void
on_save_netmap(void *arg, int fd)
{
    ssize_t len = pread(fd, saved, TEXT_MAX, 0);

    (void)arg;
    assert_true(len > 0);
    saved[len] = '\0';
    saves++;
}

static const struct control_ops ops = {.save_netmap = on_save_netmap};

static void
hear(struct map_state *s, const char *text)
{
    char why[MAP_STATE_ERROR_MAX];
    struct map_json_error err;
    struct map_delta d;

    assert_int_equal(map_json_delta(text, strlen(text), NULL, &d, &err), 0);
    assert_int_equal(map_state_apply(s, &d, why), 0);
    map_delta_clear(&d);
}

static int
put_peer(char *p, unsigned id)
{
    return sprintf(p,
        "{\"ID\":%u,\"Key\":\"nodekey:%064x\",\"Name\":\"p%u.example.\","
        "\"Addresses\":[\"100.64.%u.%u/32\"],\"AllowedIPs\":"
        "[\"100.64.%u.%u/32\",\"0.0.0.0/0\"]}",
        id, id, id, id >> 8, id & 255, id >> 8, id & 255);
}

static int
begin(void **state)
{
    static char text[TEXT_MAX];
    char *p = text;
    unsigned i;

    (void)state;
    memset(&c, 0, sizeof(c));
    c.ops = &ops;
    c.map = map_state_new();
    assert_non_null(c.map);
    assert_int_equal(cache_init(&c), 0);
    p += sprintf(p,
        "{\"Node\":{\"ID\":1,\"Key\":\"nodekey:%064x\",\"Addresses\":"
        "[\"100.127.0.1/32\"]},\"Peers\":[",
        0xabcdef);
    for (i = 0; i < PEERS; i++) {
        p += put_peer(p, 2 + i);
        *p++ = ',';
    }
    strcpy(p - 1, "]}");
    hear(c.map, text);
    saves = errors = 0;
    loop.now = 1000;
    return 0;
}

static int
end(void **state)
{
    (void)state;
    cache_free(&c);
    map_state_free(c.map);
    fake_loop_end();
    return 0;
}

static unsigned
turns(void)
{
    unsigned n = 0;

    while (turn())
        n++;
    return n;
}

/* ---- tests ---- */

static void
saved_in_slices(void **state)
{
    struct map_json_error err;
    struct netmap *nm;

    (void)state;
    cache_soon(&c);
    sleep_ms(999);
    assert_false(turn());
    sleep_ms(1);
    assert_int_equal(saves, 0);
    assert_in_range(turns(), 5, 50);
    assert_int_equal(saves, 1);
    nm = map_json_parse(saved, strlen(saved), &err);
    assert_non_null(nm);
    assert_int_equal(nm->npeers, PEERS);
    assert_int_equal(nm->peers[0].nallowed_ips, 2);
    netmap_free(nm);
    cache_soon(&c); /* after as many milliseconds as it has thousands */
    sleep_ms(1000 + strlen(saved) / 1000 - 1);
    assert_false(turn());
    sleep_ms(1);
    turns();
    assert_int_equal(saves, 2);
    assert_int_equal(errors, 0);
}

/* Peers come, go and change while it is written. */
static bool there[8 * PEERS], always[8 * PEERS], ever[8 * PEERS];

static void
change(unsigned *last)
{
    unsigned id = 2 + (unsigned)rand() % *last;
    char text[1000], *p = text;

    if (rand() % 3 == 0) {
        sprintf(text, "{\"PeersRemoved\":[%u]}", id);
        there[id] = always[id] = false;
    } else {
        id = rand() % 2 == 0 && *last < 8 * PEERS - 4 ? ++*last + 1 : id;
        p += sprintf(p, "{\"PeersChanged\":[");
        p += put_peer(p, id);
        strcpy(p, "]}");
        there[id] = ever[id] = true;
    }
    hear(c.map, text);
}

static void
changed_meanwhile(void **state)
{
    unsigned last = PEERS, round, i, lost;
    const struct netmap_node *peer;
    struct map_state *again;
    uint32_t at;

    (void)state;
    srand(1);
    memset(there + 2, 1, PEERS);
    for (round = 1; round <= ROUNDS; round++) {
        memcpy(always, there, sizeof(there));
        memcpy(ever, there, sizeof(there));
        cache_again(&c);
        sleep_ms(0);
        do
            for (i = (unsigned)rand() % 20; i > 0; i--)
                change(&last);
        while (turn());
        assert_int_equal(saves, round);
        again = map_state_new();
        hear(again, saved); /* the next life */
        for (at = 0; (peer = map_state_peer(again, &at)) != NULL;) {
            assert_true(ever[peer->id]);
            ever[peer->id] = always[peer->id] = false; /* once */
        }
        map_state_free(again);
        for (i = lost = 0; i < sizeof(always); i++)
            lost += always[i];
        assert_int_equal(lost, 0);
    }
}

static void
one_at_a_time(void **state)
{
    (void)state;
    cache_soon(&c);
    sleep_ms(1000);
    cache_soon(&c); /* news while it is written */
    sleep_ms(1000);
    assert_int_equal(saves, 0);
    turns();
    assert_int_equal(saves, 1);
    sleep_ms(1000);
    turns();
    assert_int_equal(saves, 2);
    sleep_ms(1000000);
    assert_false(turn());
    cache_later(&c);
    sleep_ms(59000);
    assert_false(turn());
    sleep_ms(1000 + strlen(saved) / 100);
    turns();
    assert_int_equal(saves, 3);
}

static void
dropped(void **state)
{
    (void)state;
    cache_soon(&c);
    sleep_ms(1000);
    assert_true(turn());
    cache_drop(&c);
    sleep_ms(1000000);
    assert_false(turn());
    assert_int_equal(saves, 0);
    cache_soon(&c);
    sleep_ms(1000);
    assert_true(turn());
    cache_again(&c);
    assert_false(turn());
    sleep_ms(0);
    turns();
    assert_int_equal(saves, 1);
    cache_again(&c);
    sleep_ms(0);
    assert_true(turn()); /* the end frees it */
}

static void
no_memory(void **state)
{
    long i;
    int n;

    (void)state;
    for (i = 0;; i++) {
        saves = errors = 0;
        cache_again(&c);
        oom_arm(i);
        sleep_ms(0);
        turns();
        oom_disarm();
        assert_int_equal(saves + errors, 1);
        if (!oom_fired)
            break;
        assert_int_equal(errors, 1);
    }
    assert_in_range(i, 4, 100);
    for (n = 1;; n++) {
        saves = errors = 0;
        cache_again(&c);
        fail_write = n;
        sleep_ms(0);
        turns();
        assert_int_equal(saves + errors, 1);
        if (fail_write != 0)
            break;
        assert_int_equal(errors, 1);
    }
    fail_write = 0;
    assert_in_range(n, 5, 50);
    saves = errors = 0;
    no_memfd = true;
    cache_again(&c);
    sleep_ms(0);
    no_memfd = false;
    assert_int_equal(errors, 1);
    assert_false(turn());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_parts),
        cmocka_unit_test_setup_teardown(saved_in_slices, begin, end),
        cmocka_unit_test_setup_teardown(changed_meanwhile, begin, end),
        cmocka_unit_test_setup_teardown(one_at_a_time, begin, end),
        cmocka_unit_test_setup_teardown(dropped, begin, end),
        cmocka_unit_test_setup_teardown(no_memory, begin, end),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

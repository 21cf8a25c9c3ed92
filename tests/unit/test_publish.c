/* links: core/tn_addr.c core/tn_snap_read.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/publish.c */
/* links: tailnetd/engine/publish_edit.c tailnetd/engine/record.c */
/* libs: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
/*
 * test_publish.c: snapshots as publish.c writes and tn_snap_read.c reads them.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "oom.h"
#include "tailnet.h"

static void
same_text(struct tn_str s, const char *want)
{
    assert_non_null(s.p);
    assert_int_equal(s.len, strlen(want));
    assert_memory_equal(s.p, want, s.len);
}

static void
who_is_who(void **state)
{
    static const struct {
        const char *addr;
        uint64_t id;
        uint32_t flags;
        const char *host, *login, *tags, *caps;
        uint64_t user;
    } table[] = {
        {"100.64.0.1", 1, TN_PEER_ONLINE, "laptop", "alice@example.com", "", "",
            10},
        {"fd7a:115c:a1e0::1", 1, TN_PEER_ONLINE, "laptop", "alice@example.com",
            "", "", 10},
        {"100.64.0.2", 2, TN_PEER_ONLINE, "desk", "alice@example.com", "",
            "{\"example.com/cap\":[{\"a\":1}]}", 10},
        {"100.64.0.3", 3, TN_PEER_ONLINE | TN_PEER_TAGGED, "gpu", "", "tag:gpu",
            "", 0},
        {"100.64.0.4", 4, TN_PEER_ONLINE | TN_PEER_TAGGED, "ci", "",
            "tag:CI,tag:ci,tag:gpu", "{\"example.com/cap\":[{\"a\":1}]}", 0},
        {"100.64.0.5", 5, TN_PEER_ONLINE | TN_PEER_SHARED,
            "laptop.their.ts.net", "carol@example.com", "", "", 11},
        {"100.64.0.6", 6, TN_PEER_ONLINE | TN_PEER_SHARED | TN_PEER_TAGGED,
            "robot", "", "tag:gpu", "{\"example.com/cap\":[{\"a\":1}]}", 0},
        {"100.64.0.7", 7, TN_PEER_EXPIRED, "old", "carol@example.com", "", "",
            11},
        {"100.64.0.8", 8, TN_PEER_ONLINE | TN_PEER_EXPIRED, "late",
            "carol@example.com", "", "", 11},
        {"100.64.0.9", 9, TN_PEER_ONLINE, "unknown", "", "", "", 0},
        {"100.64.0.10", 10, TN_PEER_ONLINE, "[deadbeef]", "alice@example.com",
            "", "{\"example.com/cap\":[{\"a\":1}]}", 10},
        {"100.64.0.11", 11, TN_PEER_ONLINE, "laptop", "carol@example.com", "",
            "", 11},
        {"100.65.0.15", 12, TN_PEER_ONLINE, "many", "carol@example.com", "",
            "{\"example.com/cap\":[{\"a\":1}]}", 11},
        {"100.64.0.100", 100, TN_PEER_ONLINE | TN_PEER_SELF, "web",
            "alice@example.com", "", "", 10},
    };
    struct tn_snap s = build();

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct tn_peer p = whois(&s, table[i].addr);

        assert_int_equal(p.id, table[i].id);
        assert_int_equal(p.flags, table[i].flags);
        assert_int_equal(p.user_id, table[i].user);
        same_text(p.host, table[i].host);
        same_text(p.login, table[i].login);
        same_text(p.tags, table[i].tags);
        same_text(p.caps, table[i].caps);
    }
    no_one(&s, "100.64.0.12");
    no_one(&s, "192.168.1.0");
    no_one(&s, "fd7a::");
    no_one(&s, "100.65.0.16");
    no_one(&s, "::");
    assert_int_equal(asked, NPEERS - 2); /* the expired ones have no rights */
    free(bytes);
}

static void
details(void **state)
{
    struct tn_snap s = build();
    struct tn_peer p = whois(&s, "100.64.0.1"), self;
    struct tn_addr a = ip("100.64.0.1"), b = ip("fd7a:115c:a1e0::1");

    (void)state;
    same_text(p.name, "laptop.our.ts.net");
    same_text(p.stable_id, "n1");
    same_text(p.user_name, "Alice \xc3\x84");
    same_text(p.user_pic, "https://example.com/a.png");
    assert_int_equal(p.key_expiry, NOW + 1);
    assert_int_equal(p.naddrs, 2);
    assert_true(tn_addr_equal(&p.addrs[0], &a));
    assert_true(tn_addr_equal(&p.addrs[1], &b));
    /* what nodes have in common is there once */
    assert_ptr_equal(
        whois(&s, "100.64.0.2").caps.p, whois(&s, "100.64.0.10").caps.p);
    assert_ptr_equal(
        whois(&s, "100.64.0.3").tags.p, whois(&s, "100.64.0.6").tags.p);
    assert_ptr_equal(whois(&s, "100.64.0.2").login.p, p.login.p);
    p = whois(&s, "100.64.0.10");
    assert_memory_equal(p.key, peers[UNNAMED].key, 32);
    same_text(p.name, "");
    p = whois(&s, "100.65.0.0");
    assert_int_equal(p.naddrs, TN_SNAP_MAX_ADDRS);
    assert_int_equal(tn_snap_self(&s, &self, NULL), 0);
    assert_int_equal(self.id, 100);
    same_text(self.name, "web.our.ts.net");
    same_text(tn_snap_domain(&s), "our.ts.net");
    same_text(tn_snap_tailnet(&s), "our.example");
    assert_int_equal(s.head.generation, 42);
    assert_int_equal(s.head.npeers, NPEERS);
    assert_int_equal(s.head.self_expiry, NOW + 1000);
    free(bytes);
}

static void
by_name(void **state)
{
    static const struct {
        const char *name;
        uint64_t id; /* 0: does not resolve */
    } table[] = {
        {"laptop.our.ts.net", 1},
        {"Laptop.Our.ts.NET.", 1},
        {"laptop", 0}, /* of two */
        {"desk", 2},
        {"DESK", 2},
        {"desk.", 2},
        {"desk..", 0},
        {"desk.our.ts.net", 2},
        {"laptop.their.ts.net", 5},
        {"robot", 6},
        {"silent", 13},
        {"old", 7},
        {"web", 100},
        {"web.our.ts.net", 100},
        {"our.ts.net", 0},
        {"des", 0},
        {"", 0},
        {".", 0},
        {"[deadbeef]", 0},
        {"100.64.0.1", 0},
    };
    struct tn_snap s = build();
    struct tn_peer p;
    char longest[300];
    bool bad = false;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        int rc = tn_snap_by_name(
            &s, table[i].name, strlen(table[i].name), &p, &bad);

        if (rc != (table[i].id == 0 ? -1 : 0)) {
            fail_msg("\"%s\": %d", table[i].name, rc);
        }
        if (rc == 0) {
            assert_int_equal(p.id, table[i].id);
        }
    }
    memset(longest, 'a', sizeof longest);
    assert_int_equal(
        tn_snap_by_name(&s, longest, sizeof longest, &p, &bad), -1);
    assert_false(bad);
    free(bytes);
}

static void
by_tag(void **state)
{
    static const struct {
        const char *tag;
        uint64_t ids[3];
        uint32_t n;
    } table[] = {
        {"tag:gpu", {3, 4}, 2},
        {"TAG:GPU", {3, 4}, 2},
        {"tag:ci", {4}, 1},
        {"tag:c", {0}, 0},
        {"tag:ci2", {0}, 0},
        {"gpu", {0}, 0},
        {"", {0}, 0},
    };
    struct tn_snap s = build();
    struct tn_snap_tag_iter it;
    struct tn_peer p;
    bool bad = false;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        assert_int_equal(
            tn_snap_tag_count(&s, table[i].tag, strlen(table[i].tag), &it),
            table[i].n);
        for (uint32_t j = 0; j < table[i].n; j++) {
            assert_int_equal(tn_snap_tag_peer(&s, &it, j, &p, &bad), 0);
            assert_int_equal(p.id, table[i].ids[j]);
        }
        assert_int_equal(tn_snap_tag_peer(&s, &it, table[i].n, &p, &bad), -1);
    }
    assert_false(bad);
    free(bytes);
}

/* Self and every peer with an address, each once. */
static void
walk_all(void **state)
{
    struct tn_snap s = build();
    uint32_t cursor = 0;
    unsigned seen[101] = {0}, n = 0;
    struct tn_peer p;

    (void)state;
    while (tn_snap_next(&s, &cursor, &p) == 0) {
        assert_in_range(p.id, 1, 100);
        assert_int_equal(seen[p.id]++, 0);
        n++;
    }
    assert_int_equal(n, NPEERS);
    assert_int_equal(seen[13], 0);
    assert_int_equal(tn_snap_next(&s, &cursor, &p), -1);
    free(bytes);
}

/* A suffix on one side only says nothing about another tailnet. */
static void
bare_names(void **state)
{
    char bare[] = "web";
    char *name = map.self.name;
    struct tn_snap s;
    struct tn_peer p;

    (void)state;
    map.self.name = bare;
    s = build();
    same_text(tn_snap_domain(&s), "");
    p = whois(&s, "100.64.0.5");
    assert_int_equal(p.flags, TN_PEER_ONLINE);
    same_text(p.host, "laptop.their.ts.net");
    p = whois(&s, "100.64.0.6");
    assert_true((p.flags & TN_PEER_SHARED) != 0);
    assert_int_equal(tn_snap_by_name(&s, "laptop", 6, &p, NULL), 0);
    assert_int_equal(p.id, 11);
    map.self.name = name;
    free(bytes);
}

/* A netmap of nothing but a self node that nothing is known of. */
static void
empty(void **state)
{
    struct netmap nothing = {
        .self = {.name = T(""), .stable_id = T("")}, .domain = T("")};
    static const struct publish_opts plain = {.generation = 1};
    struct tn_snap s;
    struct tn_peer p;
    struct tn_snap_tag_iter it;
    uint32_t cursor = 0;
    void *b = NULL;

    (void)state;
    assert_int_equal(publish_build(&nothing, &plain, &b, &size, err), 0);
    assert_null(tn_snap_open(&s, b, size));
    assert_int_equal(tn_snap_self(&s, &p, NULL), 0);
    same_text(p.host, "");
    no_one(&s, "100.64.0.1");
    assert_int_equal(tn_snap_by_name(&s, "web", 3, &p, NULL), -1);
    assert_int_equal(tn_snap_tag_count(&s, "tag:a", 5, &it), 0);
    assert_int_equal(tn_snap_next(&s, &cursor, &p), -1);
    free(b);
}

static void
refusals(void **state)
{
    char *comma[] = {T("tag:a,tag:b")}, *nothing[] = {T("")};
    char *many[TN_SNAP_MAX_TAGS + 1], x[] = "tag:x";
    struct netmap_node saved = peers[DESK];
    void *b = NULL;

    (void)state;
    give(&peers[DESK], "100.64.0.1");
    assert_int_equal(publish_build(&map, &opts, &b, &size, err), -1);
    assert_string_equal(err,
        "address 100.64.0.1 of node \"desk.our.ts.net\" is another node's "
        "too");
    peers[DESK] = saved;

    peers[DESK].tags = comma;
    peers[DESK].ntags = 1;
    assert_int_equal(publish_build(&map, &opts, &b, &size, err), -1);
    assert_string_equal(err,
        "node \"desk.our.ts.net\" has a tag that is empty or has a comma: "
        "\"tag:a,tag:b\"");
    peers[DESK].tags = nothing;
    assert_int_equal(publish_build(&map, &opts, &b, &size, err), -1);

    for (size_t i = 0; i < COUNT(many); i++) {
        many[i] = x;
    }
    peers[DESK].tags = many;
    peers[DESK].ntags = TN_SNAP_MAX_TAGS;
    assert_int_equal(publish_build(&map, &opts, &b, &size, err), 0);
    free(b);
    b = NULL;
    peers[DESK].ntags = COUNT(many);
    assert_int_equal(publish_build(&map, &opts, &b, &size, err), -1);
    assert_string_equal(err,
        "node \"desk.our.ts.net\" has 65 tags, more than TN_SNAP_MAX_TAGS "
        "(64)");
    peers[DESK] = saved;
    assert_null(b);
}

static const char *
return_arg(void *arg, const struct netmap_node *peer)
{
    (void)peer;
    return arg;
}

/* A long text that all peers have costs its bytes once. */
static void
stored_once(void **state)
{
    char text[4096];
    struct publish_opts o = {.now = NOW, .caps = return_arg, .arg = text};
    size_t without;

    (void)state;
    memset(text, 'x', sizeof text);
    text[0] = '\0';
    assert_int_equal(publish_build(&map, &o, &bytes, &without, err), 0);
    free(bytes);
    text[0] = 'x';
    text[sizeof text - 1] = '\0';
    assert_int_equal(publish_build(&map, &o, &bytes, &size, err), 0);
    assert_int_equal(size - without, sizeof text);
    free(bytes);
}

/* One capability text of TN_SNAP_MAX_SIZE bytes, by mapping few often. */
static void
too_large(void **state)
{
    struct publish_opts o = {.now = NOW, .caps = return_arg};
    size_t part = 16u << 20, whole = TN_SNAP_MAX_SIZE;
    int fd = memfd_create("large", MFD_CLOEXEC);
    char *base, *x;
    void *b = NULL;

    (void)state;
    assert_true(fd != -1);
    assert_int_equal(ftruncate(fd, (off_t)part), 0);
    x = mmap(NULL, part, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(x != MAP_FAILED);
    memset(x, 'x', part);
    base = mmap(NULL, whole + 4096, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(base != MAP_FAILED);
    for (size_t at = 0; at < whole; at += part) {
        assert_true(mmap(base + at, part, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
                        0) == base + at);
    }
    o.arg = base;
    assert_int_equal(publish_build(&map, &o, &b, &size, err), -1);
    assert_string_equal(err,
        "the snapshot of 14 nodes is larger than TN_SNAP_MAX_SIZE "
        "(1073741824 bytes)");
    assert_null(b);
    munmap(base, whole + 4096);
    munmap(x, part);
    close(fd);
}

/* Every allocation in turn fails; the sanitizer sees what leaks. */
static void
out_of_memory(void **state)
{
    struct publish_opts o = {.now = NOW, .caps = return_arg, .arg = NULL};
    void *b = NULL;
    unsigned fails;
    int rc = -1;

    (void)state;
    for (fails = 0; rc != 0; fails++) {
        oom_arm(fails);
        err[0] = '\0';
        rc = publish_build(&map, &opts, &b, &size, err);
        if (rc != 0) {
            assert_null(b);
            assert_string_equal(
                err, "out of memory for a snapshot of 14 nodes");
        }
    }
    oom_disarm();
    assert_true(fails > 7);
    free(b);

    b = NULL;
    assert_int_equal(publish_build(&map, &o, &b, &size, err), -1);
    assert_string_equal(err, "out of memory for a snapshot of 14 nodes");
    assert_null(b);
}

static void
sealed(void **state)
{
    int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    char link[64], name[64];
    struct tn_snap s = build();
    size_t at = 0;
    void *m;
    ssize_t n;
    int fd;

    fd = publish_memfd();
    assert_true(fd != -1);
    assert_int_equal(publish_write(fd, bytes, &at, size / 2), 0);
    assert_int_equal(at, size / 2);
    assert_int_equal(publish_write(fd, bytes, &at, size), 0);
    assert_int_equal(at, size);
    if (*state != NULL) { /* of one that is sealed already */
        int copy;

        assert_int_equal(publish_seal(fd), 0);
        copy = publish_memfd();
        assert_true(copy != -1);
        at = 0;
        assert_int_equal(publish_copy(copy, fd, &at, size / 3), 0);
        assert_int_equal(publish_copy(copy, fd, &at, size), 0);
        assert_int_equal(at, size);
        assert_int_equal(publish_copy(copy, fd, &at, size + 1), -1);
        assert_int_equal(errno, EIO);
        close(fd);
        fd = copy;
    }
    assert_int_equal(fcntl(fd, F_GET_SEALS), 0);
    assert_int_equal(publish_stamp(fd, 43), 0);
    *(uint64_t *)(void *)((uint8_t *)bytes +
                          offsetof(struct tn_snap_head, generation)) = 43;
    assert_int_equal(publish_seal(fd), 0);
    assert_int_equal(fcntl(fd, F_GET_SEALS), seals);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(lseek(fd, 0, SEEK_END), size);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, name, sizeof name - 1);
    assert_true(n > 0);
    name[n] = '\0';
    assert_non_null(strstr(name, "memfd:tailnet-snapshot"));
    m = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(m != MAP_FAILED);
    assert_memory_equal(m, bytes, size);
    assert_null(tn_snap_open(&s, m, size));
    assert_int_equal(whois(&s, "100.64.0.2").id, 2);
    munmap(m, size);
    close(fd);
    free(bytes);
}

/* Many. */

static double
seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct tn_addr
address_of(unsigned i, bool six)
{
    uint8_t b4[4] = {
        100, (uint8_t)(64 + (i >> 16)), (uint8_t)(i >> 8), (uint8_t)i};
    uint8_t b6[16] = {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0};

    memcpy(b6 + 12, b4, 4);
    return six ? tn_addr_from6(b6) : tn_addr_from4(b4);
}

#define BIG       100000
#define BIG_USERS 1000

/* 100,000 peers, a tenth of them tagged, of 1,000 users. */
static void
big(void **state)
{
    static char one[] = "Name", none[] = "";
    char *tags[] = {T("tag:a"), T("tag:b")};
    static struct netmap_user u[BIG_USERS];
    static char logins[BIG_USERS][32], texts[BIG][2][32];
    struct netmap_node *p = calloc(BIG, sizeof *p);
    struct tn_prefix *a = calloc(2 * BIG, sizeof *a);
    struct netmap nm = map;
    struct tn_snap s;
    struct tn_snap_tag_iter it;
    struct tn_peer peer;
    uint32_t cursor = 0;
    unsigned n = 0;
    double start;

    (void)state;
    assert_non_null(p);
    assert_non_null(a);
    for (unsigned i = 0; i < BIG_USERS; i++) {
        snprintf(logins[i], sizeof logins[i], "user%u@example.com", i);
        u[i] = (struct netmap_user){
            .id = i + 1, .login = logins[i], .name = one, .pic = none};
    }
    for (unsigned i = 0; i < BIG; i++) {
        snprintf(texts[i][0], 32, "host-%u.our.ts.net", i);
        snprintf(texts[i][1], 32, "n%uCNTRL", i);
        for (unsigned j = 0; j < 2; j++) {
            a[2 * i + j].addr = address_of(i, j == 1);
            a[2 * i + j].bits = 128;
        }
        p[i] = (struct netmap_node){.id = i + 1,
            .name = texts[i][0],
            .stable_id = texts[i][1],
            .user = 1 + i % BIG_USERS,
            .addresses = a + 2 * i,
            .naddresses = 2,
            .online = true};
        if (i % 10 == 0) {
            p[i].tags = tags;
            p[i].ntags = 2;
        }
    }
    nm.peers = p;
    nm.npeers = BIG;
    nm.users = u;
    nm.nusers = BIG_USERS;
    nm.self.naddresses = 0;

    start = seconds();
    assert_int_equal(publish_build(&nm, &opts, &bytes, &size, err), 0);
    print_message("# publish_build: %d peers, %zu bytes, %.1f ms\n", BIG, size,
        1e3 * (seconds() - start));
    assert_null(tn_snap_open(&s, bytes, size));

    start = seconds();
    for (unsigned i = 0; i < 2 * BIG; i++) {
        struct tn_addr who = address_of(i / 2, i % 2 == 1);

        assert_int_equal(tn_snap_whois(&s, &who, &peer, NULL), 0);
        assert_int_equal(peer.id, i / 2 + 1);
    }
    print_message(
        "# tn_snap_whois: %.0f ns\n", 1e9 * (seconds() - start) / (2 * BIG));
    start = seconds();
    for (unsigned i = 0; i < BIG; i++) {
        assert_int_equal(tn_snap_by_name(&s, texts[i][0],
                             strcspn(texts[i][0], "."), &peer, NULL),
            0);
        assert_int_equal(peer.id, i + 1);
    }
    print_message(
        "# tn_snap_by_name: %.0f ns\n", 1e9 * (seconds() - start) / BIG);
    assert_int_equal(tn_snap_tag_count(&s, "tag:b", 5, &it), BIG / 10);
    start = seconds();
    while (tn_snap_next(&s, &cursor, &peer) == 0) {
        n++;
    }
    print_message("# tn_snap_next: %.0f ns\n", 1e9 * (seconds() - start) / BIG);
    assert_int_equal(n, BIG);
    free(bytes);
    free(p);
    free(a);
}

static char again[] = "again";

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_who),
        cmocka_unit_test(details),
        cmocka_unit_test(by_name),
        cmocka_unit_test(by_tag),
        cmocka_unit_test(walk_all),
        cmocka_unit_test(bare_names),
        cmocka_unit_test(empty),
        cmocka_unit_test(refusals),
        cmocka_unit_test(stored_once),
        cmocka_unit_test(too_large),
        cmocka_unit_test(out_of_memory),
        cmocka_unit_test(sealed),
        cmocka_unit_test_prestate(sealed, again),
        cmocka_unit_test(big),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, make_map, NULL);
}

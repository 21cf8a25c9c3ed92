/* links: core/tn_addr.c */
/*
 * test_tn_addr.c: text forms, prefixes, socket addresses and the hash.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../../ngx_tailnet_module/core/tn_addr.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Text without a NUL behind it, so that a sanitizer sees a read too far. */
static char *
bytes(const char *s, size_t len)
{
    char *p = malloc(len == 0 ? 1 : len);

    assert_non_null(p);
    memcpy(p, s, len);
    return p;
}

static struct tn_addr
addr(const char *s)
{
    struct tn_addr a;

    assert_int_equal(tn_addr_parse(&a, s, strlen(s)), 0);
    return a;
}

static struct tn_prefix
prefix(const char *s)
{
    struct tn_prefix p;

    assert_int_equal(tn_prefix_parse(&p, s, strlen(s)), 0);
    return p;
}

static void
addr_good(void **state)
{
    static const struct {
        const char *in, *out;
        bool is4;
    } table[] = {
        {"0.0.0.0", "0.0.0.0", true},
        {"100.64.0.1", "100.64.0.1", true},
        {"255.255.255.255", "255.255.255.255", true},
        {"::", "::", false},
        {"::1", "::1", false},
        {"fd7a:115c:a1e0::1", "fd7a:115c:a1e0::1", false},
        {"FD7A:115C:A1E0:0:0:0:0:1", "fd7a:115c:a1e0::1", false},
        {"::ffff:192.0.2.1", "192.0.2.1", true},
        {"::ffff:c000:201", "192.0.2.1", true},
        {"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", false},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false},
        {"64:ff9b::1.2.3.4", "64:ff9b::102:304", false},
    };
    char buf[TN_ADDR_STRLEN];

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i].in);
        char *s = bytes(table[i].in, len);
        struct tn_addr a, again;

        assert_int_equal(tn_addr_parse(&a, s, len), 0);
        assert_int_equal(tn_addr_is4(&a), table[i].is4);
        assert_int_equal(tn_addr_format(&a, buf), strlen(table[i].out));
        assert_string_equal(buf, table[i].out);
        again = addr(buf);
        assert_true(tn_addr_equal(&a, &again));
        free(s);
    }
}

static void
addr_bad(void **state)
{
    static const struct {
        const char *s;
        size_t len;
    } table[] = {
        {"", 0},
        {" 1.2.3.4", 8},
        {"1.2.3.4 ", 8},
        {"1.2.3", 5},
        {"1.2.3.4.5", 9},
        {"1.2.3.256", 9},
        {"01.2.3.4", 8},
        {"0x1.2.3.4", 9},
        {"+1.2.3.4", 8},
        {"1.2.3.4\0", 8},
        {"1.2.3.4\0x", 9},
        {"\0", 1},
        {"fe80::1%eth0", 12},
        {"[::1]", 5},
        {":::", 3},
        {"1::2::3", 7},
        {"1:2:3:4:5:6:7", 13},
        {"1:2:3:4:5:6:7:8:9", 17},
        {"12345::", 7},
        {"::1/128", 7},
        {"localhost", 9},
        {"0000:0000:0000:0000:0000:ffff:255.255.255.2550", 46},
    };
    struct tn_addr a, before;

    (void)state;
    memset(&before, 0xa5, sizeof before);
    for (size_t i = 0; i < COUNT(table); i++) {
        char *s = bytes(table[i].s, table[i].len);

        a = before;
        assert_int_equal(tn_addr_parse(&a, s, table[i].len), -1);
        assert_memory_equal(&a, &before, sizeof a);
        free(s);
    }
}

static void
prefix_good(void **state)
{
    static const struct {
        const char *in, *out;
        unsigned bits;
    } table[] = {
        {"100.64.0.0/10", "100.64.0.0/10", 106},
        {"100.64.0.1", "100.64.0.1/32", 128},
        {"100.64.0.1/32", "100.64.0.1/32", 128},
        {"0.0.0.0/0", "0.0.0.0/0", 96},
        {"10.0.0.0/8", "10.0.0.0/8", 104},
        {"10.1.2.128/25", "10.1.2.128/25", 121},
        {"::/0", "::/0", 0},
        {"fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::/48", 48},
        {"fd7a:115c:a1e0::1", "fd7a:115c:a1e0::1/128", 128},
        {"8000::/1", "8000::/1", 1},
        {"::ffff:0:0/96", "0.0.0.0/0", 96},
        {"::ffff:10.0.0.0/104", "10.0.0.0/8", 104},
    };
    char buf[TN_PREFIX_STRLEN];

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i].in);
        char *s = bytes(table[i].in, len);
        struct tn_prefix p;

        assert_int_equal(tn_prefix_parse(&p, s, len), 0);
        assert_int_equal(p.bits, table[i].bits);
        assert_int_equal(tn_prefix_format(&p, buf), strlen(table[i].out));
        assert_string_equal(buf, table[i].out);
        free(s);
    }
}

static void
prefix_bad(void **state)
{
    static const char *const table[] = {
        "",
        "/",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0.128/24",
        "10.64.0.0/9",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/-8",
        "10.0.0.0/8 ",
        "10.0.0.0/8/8",
        "10.0.0.0/99999",
        "10.0.0.0/4294967304",
        "10.0.0.0/255.0.0.0",
        "::/129",
        "::1/127",
        "fd7a::%1/48",
        "::ffff:10.0.0.1/104",
    };
    struct tn_prefix p, before;

    (void)state;
    memset(&before, 0xa5, sizeof before);
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i]);
        char *s = bytes(table[i], len);

        p = before;
        assert_int_equal(tn_prefix_parse(&p, s, len), -1);
        assert_memory_equal(&p, &before, sizeof p);
        free(s);
    }
}

static void
endpoint_good(void **state)
{
    static const struct {
        const char *in, *out;
        unsigned port;
    } table[] = {
        {"1.2.3.4:5", "1.2.3.4:5", 5},
        {"1.2.3.4:65535", "1.2.3.4:65535", 65535},
        {"[::1]:5", "[::1]:5", 5},
        {"[::]:1", "[::]:1", 1},
        {"[::ffff:1.2.3.4]:41641", "1.2.3.4:41641", 41641},
        {"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", 65535},
    };
    char buf[TN_ENDPOINT_STRLEN];

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i].in);
        char *s = bytes(table[i].in, len);
        struct tn_endpoint e;

        assert_int_equal(tn_endpoint_parse(&e, s, len), 0);
        assert_int_equal(e.port, table[i].port);
        assert_int_equal(tn_endpoint_format(&e, buf), strlen(table[i].out));
        assert_string_equal(buf, table[i].out);
        free(s);
    }
}

static void
endpoint_bad(void **state)
{
    static const char *const table[] = {
        "",
        ":",
        ":5",
        "5",
        "[",
        "[]",
        "[]:5",
        "]:5",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:0",
        "1.2.3.4:05",
        "1.2.3.4:65536",
        "1.2.3.4:655360",
        "1.2.3.4:+5",
        "1.2.3.4:5 ",
        "1.2.3.4 :5",
        "1.2.3.4]:5",
        "[1.2.3.4]:5",
        "[1.2.3.4:5",
        "::1:5",
        "[::1]5",
        "[::1:5",
        "[::1]",
        "[::1]:",
        "[[::1]]:5",
        "[fe80::1%lo]:5",
        "host:5",
    };
    struct tn_endpoint e, before;

    (void)state;
    memset(&before, 0xa5, sizeof before);
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i]);
        char *s = bytes(table[i], len);

        e = before;
        assert_int_equal(tn_endpoint_parse(&e, s, len), -1);
        assert_memory_equal(&e, &before, sizeof e);
        free(s);
    }
}

static void
contains(void **state)
{
    static const struct {
        const char *p, *a;
        bool in;
    } table[] = {
        {"100.64.0.0/10", "100.64.0.0", true},
        {"100.64.0.0/10", "100.127.255.255", true},
        {"100.64.0.0/10", "100.128.0.0", false},
        {"100.64.0.0/10", "100.63.255.255", false},
        {"10.0.0.1", "10.0.0.1", true},
        {"10.0.0.1", "10.0.0.2", false},
        {"10.0.0.0/31", "10.0.0.1", true},
        {"10.0.0.0/31", "10.0.0.2", false},
        {"0.0.0.0/0", "255.255.255.255", true},
        {"0.0.0.0/0", "::1", false},
        {"0.0.0.0/0", "::fffe:1.2.3.4", false},
        {"::/0", "::1", true},
        {"::/0", "ffff::", true},
        {"::/0", "1.2.3.4", false},
        {"::/64", "1.2.3.4", false},
        {"8000::/1", "ffff::", true},
        {"8000::/1", "7fff::", false},
        {"fd7a:115c:a1e0::/48", "fd7a:115c:a1e0:ffff::1", true},
        {"fd7a:115c:a1e0::/48", "fd7a:115c:a1e1::1", false},
        {"fd7a:115c:a1e0::/48", "253.122.17.92", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct tn_prefix p = prefix(table[i].p);
        struct tn_addr a = addr(table[i].a);

        assert_int_equal(tn_prefix_contains(&p, &a), table[i].in);
    }
}

/* A length no parser makes must not read behind the 16 bytes. */
static void
contains_wild(void **state)
{
    struct tn_prefix p = prefix("::/0");
    struct tn_addr a = addr("::");

    (void)state;
    for (unsigned bits = 129; bits <= 255; bits++) {
        p.bits = (uint8_t)bits;
        assert_false(tn_prefix_contains(&p, &a));
    }
}

static void
sockaddrs(void **state)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(80)};
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(443)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct tn_addr a, want;
    uint16_t port = 7;

    (void)state;
    in.sin_addr.s_addr = htonl(0x64400001);
    want = addr("100.64.0.1");
    assert_int_equal(
        tn_addr_from_sockaddr((struct sockaddr *)&in, &a, &port), 0);
    assert_true(tn_addr_equal(&a, &want));
    assert_int_equal(port, 80);

    assert_int_equal(
        inet_pton(AF_INET6, "::ffff:100.64.0.1", &in6.sin6_addr), 1);
    assert_int_equal(
        tn_addr_from_sockaddr((struct sockaddr *)&in6, &a, &port), 0);
    assert_true(tn_addr_equal(&a, &want));
    assert_true(tn_addr_is4(&a));
    assert_int_equal(port, 443);

    assert_int_equal(
        inet_pton(AF_INET6, "fd7a:115c:a1e0::1", &in6.sin6_addr), 1);
    want = addr("fd7a:115c:a1e0::1");
    assert_int_equal(
        tn_addr_from_sockaddr((struct sockaddr *)&in6, &a, NULL), 0);
    assert_true(tn_addr_equal(&a, &want));

    assert_int_equal(
        tn_addr_from_sockaddr((struct sockaddr *)&un, &a, &port), -1);
    assert_true(tn_addr_equal(&a, &want));
    assert_int_equal(port, 443);
}

/* 65,536 neighbours in as many buckets: a good hash leaves e^-1 empty. */
static void
hash(void **state)
{
    static uint8_t bucket[1 << 16];
    unsigned used = 0, deepest = 0;

    (void)state;
    for (unsigned i = 0; i < COUNT(bucket); i++) {
        uint8_t b[4] = {100, 64, (uint8_t)(i >> 8), (uint8_t)i};
        struct tn_addr a = tn_addr_from4(b);
        size_t at = (size_t)(tn_addr_hash(&a) & (COUNT(bucket) - 1));

        used += bucket[at] == 0;
        bucket[at]++;
        deepest = bucket[at] > deepest ? bucket[at] : deepest;
    }
    assert_in_range(used, 40000, 43000);
    assert_true(deepest < 16);
}

static void
via(void **state)
{
    static const struct {
        const char *in, *out; /* out NULL: none */
    } table[] = {
        {"10-1-1-16-via-7", "fd7a:115c:a1e0:b1a:0:7:a01:110"},
        {"0-0-0-0-via-0", "fd7a:115c:a1e0:b1a::"},
        {"255-255-255-255-VIA-4294967295",
            "fd7a:115c:a1e0:b1a:ffff:ffff:ffff:ffff"},
        {"192-168-1-2-via-0xBEEF", "fd7a:115c:a1e0:b1a:0:beef:c0a8:102"},
        {"192-168-1-2-via-0Xffffffff", "fd7a:115c:a1e0:b1a:ffff:ffff:c0a8:102"},
        {"", NULL},
        {"via-7", NULL},
        {"-via-7", NULL},
        {"10-1-1-16-via-", NULL},
        {"10-1-1-16-via", NULL},
        {"10-1-1-16-vib-7", NULL},
        {"10-1-1-16-via-0x", NULL},
        {"10-1-1-16-via-4294967296", NULL},
        {"10-1-1-16-via-0x100000000", NULL},
        {"10-1-1-16-via-99999999999999999999999", NULL},
        {"10-1-1-16-via-7a", NULL},
        {"10-1-1-16-via-7.", NULL},
        {"10-1-1-via-7", NULL},
        {"10-1-1-256-via-7", NULL},
        {"10-1-1--via-7", NULL},
        {"10-1-1-16--via-7", NULL},
        {"1010-1-1-16-16-16-16-via-7", NULL},
        {"10.1.1.16-via-7", NULL},
        {"a10-1-1-16-via-7", NULL},
    };
    char buf[TN_ADDR_STRLEN];

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i].in);
        char *s = bytes(table[i].in, len);
        struct tn_addr a = addr("192.0.2.1");
        int rc = tn_addr_via_parse(&a, s, len);

        free(s);
        if (rc != (table[i].out == NULL ? -1 : 0))
            fail_msg("%s: %d", table[i].in, rc);
        assert_int_equal(tn_addr_is_via(&a), rc == 0);
        tn_addr_format(&a, buf);
        assert_string_equal(
            buf, table[i].out != NULL ? table[i].out : "192.0.2.1");
    }
    assert_false(tn_addr_is_via(&(struct tn_addr){{0}}));
    assert_true(tn_addr_is_via(
        &(struct tn_addr){{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0x0b, 0x1a}}));
    assert_false(tn_addr_is_via(
        &(struct tn_addr){{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0x0b, 0x1b}}));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addr_good),
        cmocka_unit_test(addr_bad),
        cmocka_unit_test(prefix_good),
        cmocka_unit_test(prefix_bad),
        cmocka_unit_test(endpoint_good),
        cmocka_unit_test(endpoint_bad),
        cmocka_unit_test(contains),
        cmocka_unit_test(contains_wild),
        cmocka_unit_test(sockaddrs),
        cmocka_unit_test(hash),
        cmocka_unit_test(via),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

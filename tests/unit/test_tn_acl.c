/* links: core/tn_acl.c core/tn_node.c core/tn_addr.c */
/*
 * test_tn_acl.c: the selector grammar, and who matches what.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/core/tn_acl.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define STR(s)           \
    {                    \
        s, sizeof(s) - 1 \
    }

static void
good(void **state)
{
    static const struct {
        const char *text;
        enum tn_sel_kind kind;
        const char *node, *name, *prefix;
    } table[] = {
        {"*", TN_SEL_ANY, "", "", NULL},
        {"web/*", TN_SEL_ANY, "web", "", NULL},
        {"tag:admin", TN_SEL_TAG, "", "tag:admin", NULL},
        {"web/tag:admin", TN_SEL_TAG, "web", "tag:admin", NULL},
        {"tag:a/b", TN_SEL_TAG, "", "tag:a/b", NULL},
        {"alice@example.com", TN_SEL_USER, "", "alice@example.com", NULL},
        {"alice@github", TN_SEL_USER, "", "alice@github", NULL},
        {"w-1/alice@github", TN_SEL_USER, "w-1", "alice@github", NULL},
        {"user:alice", TN_SEL_USER, "", "alice", NULL},
        {"user:a/b", TN_SEL_USER, "", "a/b", NULL},
        {"user:alice@x", TN_SEL_USER, "", "alice@x", NULL},
        {"autogroup:member", TN_SEL_MEMBER, "", "", NULL},
        {"autogroup:tagged", TN_SEL_TAGGED, "", "", NULL},
        {"autogroup:self", TN_SEL_SELF, "", "", NULL},
        {"web/autogroup:shared", TN_SEL_SHARED, "web", "", NULL},
        {"100.64.0.1", TN_SEL_PREFIX, "", "", "100.64.0.1/32"},
        {"100.64.0.0/10", TN_SEL_PREFIX, "", "", "100.64.0.0/10"},
        {"web/100.64.0.0/10", TN_SEL_PREFIX, "web", "", "100.64.0.0/10"},
        {"web/100.64.0.1", TN_SEL_PREFIX, "web", "", "100.64.0.1/32"},
        {"fd7a:115c:a1e0::/48", TN_SEL_PREFIX, "", "", "fd7a:115c:a1e0::/48"},
        {"web/fd7a::1", TN_SEL_PREFIX, "web", "", "fd7a::1/128"},
        {"laptop", TN_SEL_HOST, "", "laptop", NULL},
        {"Laptop-1", TN_SEL_HOST, "", "Laptop-1", NULL},
        {"web/laptop", TN_SEL_HOST, "web", "laptop", NULL},
        {"10/8", TN_SEL_HOST, "10", "8", NULL},
        {"locals", TN_SEL_HOST, "", "locals", NULL},
        {"tag", TN_SEL_HOST, "", "tag", NULL},
        {"laptop.example.ts.net", TN_SEL_FQDN, "", "laptop.example.ts.net",
            NULL},
        {"laptop.example.ts.net.", TN_SEL_FQDN, "", "laptop.example.ts.net",
            NULL},
        {"web/l.x", TN_SEL_FQDN, "web", "l.x", NULL},
        {"bare.", TN_SEL_FQDN, "", "bare", NULL},
        {"1.2.3.4a", TN_SEL_FQDN, "", "1.2.3.4a", NULL},
        {"local", TN_SEL_LOCAL, "", "", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i].text);
        char *text = malloc(len);
        struct tn_selector sel;
        char buf[TN_PREFIX_STRLEN];

        assert_non_null(text);
        memcpy(text, table[i].text, len);
        assert_null(tn_selector_parse(&sel, text, len));
        assert_int_equal(sel.kind, table[i].kind);
        assert_int_equal(sel.node.len, strlen(table[i].node));
        assert_memory_equal(sel.node.p, table[i].node, sel.node.len);
        assert_int_equal(sel.name.len, strlen(table[i].name));
        assert_memory_equal(sel.name.p, table[i].name, sel.name.len);
        if (table[i].prefix != NULL) {
            tn_prefix_format(&sel.prefix, buf);
            assert_string_equal(buf, table[i].prefix);
        }
        free(text);
    }
}

static void
bad(void **state)
{
    static const struct {
        const char *text;
        const char *says;
    } table[] = {
        {"", "empty"},
        {"web/", "empty"},
        {"/x", "before \"/\""},
        {"Web/tag:x", "before \"/\""},
        {"-web/laptop", "before \"/\""},
        {"a.b/laptop", "before \"/\""},
        {"web/x/y", "before \"/\""},
        {"web/local", "local"},
        {"group:ops", "who is in a group"},
        {"web/group:ops", "who is in a group"},
        {"cap:example.com/x", "capabilities"},
        {"all", "\"*\""},
        {"web/all", "\"*\""},
        {"autogroup:", "autogroup"},
        {"autogroup:admin", "autogroup"},
        {"autogroup:members", "autogroup"},
        {"tag:", "tag"},
        {"tag:a,tag:b", "tag"},
        {"tag:a b", "tag"},
        {"user:", "login"},
        {"user:a b", "login"},
        {"user:a\n", "login"},
        {"@", "\"@\""},
        {"@x", "\"@\""},
        {"alice@", "\"@\""},
        {"a@b@c", "\"@\""},
        {"al ice@x", "login"},
        {"100.64.0.1/10", "prefix"},
        {"100.64.0.0/33", "prefix"},
        {"100.64.0.0/", "prefix"},
        {"fd7a::1/48", "prefix"},
        {"100.64.0.256", "neither"},
        {"100.64.0", "neither"},
        {"1.2.3.4.5", "neither"},
        {"fd7a:::1", "neither"},
        {"fe80::1%eth0", "neither"},
        {"nobody:x", "neither"},
        {"**", "neither"},
        {"*.example.com", "neither"},
        {"a b", "neither"},
        {" laptop", "neither"},
        {".", "neither"},
        {"a..b", "neither"},
        {".a", "neither"},
        {"a.b..", "neither"},
        {"-a", "neither"},
        {"a-", "neither"},
        {"a-.b", "neither"},
        {"a_b", "neither"},
        {"a234567890123456789012345678901234567890123456789012345678901234",
            "neither"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i].text);
        char *text = malloc(len == 0 ? 1 : len);
        struct tn_selector sel, before;
        const char *said;

        assert_non_null(text);
        memcpy(text, table[i].text, len);
        memset(&before, 0xa5, sizeof before);
        memcpy(&sel, &before, sizeof sel);
        said = tn_selector_parse(&sel, text, len);
        assert_non_null(said);
        if (strstr(said, table[i].says) == NULL) {
            fail_msg("\"%s\" says \"%s\"", table[i].text, said);
        }
        assert_memory_equal(&sel, &before, sizeof sel);
        free(text);
    }
}

/* Those who ask, one column each of the matrix below. */
enum asker {
    ALICE,    /* untagged, the self node's own user */
    BOB,      /* untagged, another user */
    GPU,      /* tag:gpu, tag:ci */
    GUEST,    /* carol's, shared in */
    ROBOT,    /* tagged and shared in */
    GONE,     /* alice's, expired */
    NOBODY,   /* untagged, its user not known */
    STRANGER, /* unknown source on a mesh listener */
    LOCAL,    /* not on the mesh */
    ASKERS,
};

static const struct tn_peer peers[] = {
    [ALICE] = {.id = 1,
        .name = STR("laptop.our.ts.net"),
        .host = STR("laptop"),
        .login = STR("alice@example.com"),
        .user_id = 10},
    [BOB] = {.id = 2,
        .name = STR("desk.our.ts.net"),
        .host = STR("desk"),
        .login = STR("bob"),
        .user_id = 11},
    [GPU] = {.id = 3,
        .flags = TN_PEER_TAGGED,
        .name = STR("gpu.our.ts.net"),
        .host = STR("gpu"),
        .tags = STR("tag:ci,tag:gpu")},
    [GUEST] = {.id = 4,
        .flags = TN_PEER_SHARED,
        .name = STR("laptop.their.ts.net"),
        .host = STR("laptop"),
        .login = STR("carol@example.com"),
        .user_id = 10},
    [ROBOT] = {.id = 5,
        .flags = TN_PEER_SHARED | TN_PEER_TAGGED,
        .name = STR("robot.their.ts.net"),
        .host = STR("robot.their.ts.net"),
        .tags = STR("tag:gpu"),
        .login = STR("bob"),
        .user_id = 10},
    [GONE] = {.id = 6,
        .flags = TN_PEER_EXPIRED,
        .name = STR("old.our.ts.net"),
        .host = STR("old"),
        .login = STR("alice@example.com"),
        .user_id = 10},
    [NOBODY] = {.id = 7,
        .name = STR("new"),
        .host = STR("new"),
        .login = STR("")},
};

static const char *const addrs[ASKERS] = {"100.64.0.1", "100.64.0.2",
    "fd7a:115c:a1e0::3", "100.64.1.4", "100.64.1.5", "100.64.0.6", "100.64.0.7",
    "100.64.0.8", "127.0.0.1"};

static struct tn_who
who(enum asker a, const char *node)
{
    struct tn_who w = {.self_user = 10, .local = a == LOCAL};

    w.peer = a < COUNT(peers) ? &peers[a] : NULL;
    w.node.p = node;
    w.node.len = strlen(node);
    assert_int_equal(tn_addr_parse(&w.addr, addrs[a], strlen(addrs[a])), 0);
    return w;
}

#define A (1u << ALICE)
#define B (1u << BOB)
#define G (1u << GPU)
#define S (1u << GUEST)
#define R (1u << ROBOT)
#define N (1u << NOBODY)

static const struct {
    const char *sel;
    unsigned who;
} matrix[] = {
    {"*", A | B | G | S | R | N},
    {"web/*", A | B | G | S | R | N},
    {"other/*", 0},
    {"tag:gpu", G},
    {"tag:ci", G},
    {"tag:GPU", G},
    {"tag:gp", 0},
    {"tag:gpu2", 0},
    {"web/tag:gpu", G},
    {"other/tag:gpu", 0},
    {"alice@example.com", A},
    {"ALICE@Example.com", A},
    {"alice@example.co", 0},
    {"carol@example.com", S},
    {"web/carol@example.com", S},
    {"other/carol@example.com", 0},
    {"user:bob", B},
    {"user:alice@example.com", A},
    {"autogroup:member", A | B | N},
    {"autogroup:tagged", G},
    {"autogroup:self", A},
    {"autogroup:shared", S | R},
    {"100.64.0.1", A},
    {"100.64.0.6", 0},
    {"100.64.0.8", 0},
    {"127.0.0.1", 0},
    {"127.0.0.0/8", 0},
    {"100.64.0.0/24", A | B | N},
    {"100.64.0.0/10", A | B | S | R | N},
    {"web/100.64.0.0/10", A | B | S | R | N},
    {"0.0.0.0/0", A | B | S | R | N},
    {"::/0", G},
    {"fd7a:115c:a1e0::/48", G},
    {"laptop", A},
    {"LAPTOP", A},
    {"web/laptop", A},
    {"other/laptop", 0},
    {"old", 0},
    {"robot", 0},
    {"new", N},
    {"new.", N},
    {"laptop.", 0},
    {"laptop.our.ts.net", A},
    {"Laptop.Our.ts.net.", A},
    {"laptop.their.ts.net", S},
    {"robot.their.ts.net", R},
    {"their.ts.net", 0},
    {"local", 1u << LOCAL},
};

static void
matching(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(matrix); i++) {
        struct tn_selector sel;

        assert_null(
            tn_selector_parse(&sel, matrix[i].sel, strlen(matrix[i].sel)));
        for (enum asker a = 0; a < ASKERS; a++) {
            struct tn_who w = who(a, a == LOCAL ? "" : "web");

            if (tn_selector_match(&sel, &w) != ((matrix[i].who >> a) & 1)) {
                fail_msg("\"%s\" and asker %d", matrix[i].sel, (int)a);
            }
        }
    }
}

/* A self node without a user (tagged) has no autogroup:self. */
static void
self_of_nobody(void **state)
{
    struct tn_selector sel;
    struct tn_who w;

    (void)state;
    assert_null(tn_selector_parse(&sel, "autogroup:self", 14));
    for (enum asker a = 0; a < ASKERS; a++) {
        w = who(a, "web");
        w.self_user = 0;
        assert_false(tn_selector_match(&sel, &w));
    }
}

/* An identity wins over a contradicting "local". */
static void
local_with_identity(void **state)
{
    struct tn_selector sel;
    struct tn_who w = who(ALICE, "web");

    (void)state;
    w.local = true;
    assert_null(tn_selector_parse(&sel, "local", 5));
    assert_false(tn_selector_match(&sel, &w));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(bad),
        cmocka_unit_test(matching),
        cmocka_unit_test(self_of_nobody),
        cmocka_unit_test(local_with_identity),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

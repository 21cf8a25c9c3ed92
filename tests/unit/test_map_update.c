/* links: tailnetd/control/map_state.c tailnetd/control/map_json_delta.c */
/* links: tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_grant.c */
/* links: tailnetd/control/map_json_value.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_derp.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/span.c core/tn_addr.c */
/* libs: -ljansson -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
/*
 * test_map_update.c: what a netmap that follows can take, message by message,
 * what is said of it, and what it costs.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_state.h"
#include "oom.h"

#define TEXT (1 << 18)

static const struct map_settings *settings;

#define OWN_KEY          \
    "\"Key\":\"nodekey:" \
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\""

static const char self_text[] =
    "\"Node\":{\"ID\":1000,\"Name\":\"me.t.\",\"User\":3," OWN_KEY ","
    "\"Addresses\":[\"100.64.0.5/32\"],\"MachineAuthorized\":true}";

static void
apply(struct map_state *s, const char *text)
{
    char err[MAP_STATE_ERROR_MAX];
    struct map_json_error e;
    struct map_delta d;

    if (map_json_delta(text, strlen(text), NULL, &d, &e) != 0)
        fail_msg("%s in %s", e.text, text);
    if (map_state_apply(s, &d, err) != 0)
        fail_msg("%s", err);
    map_delta_clear(&d);
}

static struct map_state *
begin(
    const char *peers_text, const struct map_settings *with, struct netmap **nm)
{
    struct map_state *s = map_state_new();
    char *text = malloc(TEXT);

    settings = with;
    sprintf(
        text, "{%s,\"PacketFilter\":[],\"Peers\":[%s]}", self_text, peers_text);
    apply(s, text);
    *nm = map_state_netmap(s, settings);
    map_state_follow(s, *nm);
    free(text);
    return s;
}

static const char two_peers[] =
    "{\"ID\":1,\"Name\":\"a.t.\",\"User\":7,\"Key\":\"nodekey:"
    "0000000000000000000000000000000000000000000000000000000000000001\","
    "\"Addresses\":[\"100.64.0.1/32\"],\"AllowedIPs\":[\"100.64.0.1/32\","
    "\"100.64.0.9/32\"]},"
    "{\"ID\":2,\"Name\":\"b.t.\",\"Key\":\"nodekey:"
    "0000000000000000000000000000000000000000000000000000000000000002\","
    "\"Addresses\":[\"100.64.0.2/32\"]}";

static const char third[] =
    "{\"PeersChanged\":[{\"ID\":3,\"Name\":\"c.t.\",\"Key\":\"nodekey:"
    "0000000000000000000000000000000000000000000000000000000000000003\","
    "\"Addresses\":[\"100.64.0.9/32\"]}]}";

static const struct map_settings accept = {
    .accept_routes = true, .exit_node = ""};

static const struct map_settings none = {.exit_node = ""};

static size_t
shown(struct map_state *s)
{
    struct netmap *nm = map_state_netmap(s, settings);
    size_t n = nm->npeers;

    netmap_free(nm);
    return n;
}

/* An address that is told twice is lost once, and won back. */
static void
told_twice(void **state)
{
    static const char twice[] =
        "{\"PeersChanged\":[{\"ID\":3,\"Name\":\"c.t.\",\"Key\":\"nodekey:"
        "0000000000000000000000000000000000000000000000000000000000000003\","
        "\"Addresses\":[\"100.64.0.2/32\",\"100.64.0.2/32\"]}]}";
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &none, &nm);

    (void)state;
    apply(s, twice);
    assert_int_equal(shown(s), 2);
    assert_int_equal(map_state_counts(s).contested, 1);
    apply(s, "{\"PeersRemoved\":[2]}");
    assert_int_equal(shown(s), 2);
    assert_int_equal(map_state_counts(s).contested, 0);
    apply(s, "{\"PeersRemoved\":[3]}");
    assert_int_equal(shown(s), 1);
    assert_int_equal(map_state_counts(s).contested, 0);
    netmap_free(nm);
    map_state_free(s);
}

/* Of two with one route, whoever may talk has it. */
static void
expiry_of_one(void **state)
{
    static const char second[] =
        "{\"PeersChanged\":[{\"ID\":4,\"Name\":\"d.t.\",\"Key\":\"nodekey:"
        "0000000000000000000000000000000000000000000000000000000000000004\","
        "\"Addresses\":[\"100.64.0.4/32\"],\"AllowedIPs\":[\"100.64.0.4/32\","
        "\"100.64.0.9/32\"]}]}";
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &accept, &nm);

    (void)state;
    apply(s, second);
    assert_false(map_state_update(s, &accept, &c));
    netmap_free(nm);
    nm = map_state_netmap(s, &accept);
    map_state_follow(s, nm);
    apply(s, "{\"PeersChangedPatch\":[{\"NodeID\":2,\"KeyExpiry\":"
             "\"2001-01-01T00:00:00Z\"}]}");
    assert_true(map_state_update(s, &accept, &c));
    apply(s, "{\"PeersChangedPatch\":[{\"NodeID\":1,\"KeyExpiry\":"
             "\"2001-01-01T00:00:00Z\"}]}");
    assert_false(map_state_update(s, &accept, &c));
    netmap_free(nm);
    map_state_free(s);
}

/* A peer has an address, which is a route of another no more. */
static void
route_of_another(void **state)
{
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &accept, &nm);

    (void)state;
    assert_int_equal(nm->peers[0].nallowed_ips, 2);
    apply(s, third);
    assert_true(map_state_update(s, &accept, &c));
    assert_int_equal(c.ngone, 1);
    assert_int_equal(c.nadded, 2);
    assert_int_equal(c.nrows, 0);
    assert_int_equal(nm->npeers, 3);
    for (unsigned i = 0; i < 3; i++)
        if (nm->peers[i].id == 1)
            assert_int_equal(nm->peers[i].nallowed_ips, 1);
    apply(s, "{\"PeersRemoved\":[3]}");
    assert_true(map_state_update(s, &accept, &c));
    assert_int_equal(nm->npeers, 2);
    for (unsigned i = 0; i < 2; i++)
        if (nm->peers[i].id == 1)
            assert_int_equal(nm->peers[i].nallowed_ips, 2);
    netmap_free(nm);
    map_state_free(s);
}

/* Nobody has to hear of a peer that came and went between two updates. */
static void
came_and_went(void **state)
{
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &accept, &nm);

    (void)state;
    apply(s, "{\"PeersRemoved\":[2]}");
    apply(s, third);
    apply(s, "{\"PeersRemoved\":[3]}");
    assert_true(map_state_update(s, &accept, &c));
    assert_int_equal(nm->npeers, 1);
    apply(s, "{\"UserProfiles\":[{\"ID\":9,\"LoginName\":\"nine\"}]}");
    assert_true(map_state_update(s, &accept, &c));
    assert_int_equal(c.ngone + c.nadded + c.nrows, 0);
    assert_string_equal(netmap_user(nm, 9)->login, "nine");
    /* ... but of one whose user is known now. */
    apply(s, "{\"UserProfiles\":[{\"ID\":7,\"LoginName\":\"seven\"}]}");
    assert_true(map_state_update(s, &accept, &c));
    assert_int_equal(c.ngone, 1);
    assert_int_equal(c.nadded, 1);
    netmap_free(nm);
    map_state_free(s);
}

static const struct {
    const char *message;
    bool fits;
} forms[] = {
    {"{\"PeersRemoved\":[1,2]}", true},
    {"{\"PeersRemoved\":[77]}", true},
    {"{\"PeersChangedPatch\":[{\"NodeID\":1,\"CapMap\":{\"a\":null}}]}", true},
    {"{\"UserProfiles\":[{\"ID\":8,\"LoginName\":\"u\"}]}", true},
    {"{\"UserProfiles\":[{\"ID\":3,\"LoginName\":\"own\"}]}", true},
    {"{\"Domain\":\"other\"}", true},
    {"{\"PacketFilters\":{\"x\":[]}}", true},
    {"{\"PacketFilter\":[]}", true},
    {"{\"PacketFilters\":{\"base\":[]}}", true},
    {"{\"PacketFilters\":{\"base\":null}}", true},
    {"{\"PacketFilters\":{\"x\":null}}", true},
    {"{\"PacketFilters\":{\"*\":null}}", true},
    {"{\"PacketFilters\":{\"*\":null,\"x\":null}}", true},
    {"{\"PacketFilters\":{\"*\":null,\"x\":[]}}", true},
    {"{\"PacketFilters\":{\"*\":null,\"base\":[]}}", true},
    {"{\"Peers\":[]}", true},
    {"{\"DERPMap\":{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":[]}}}}", true},
    {"{\"Node\":{\"ID\":1000,\"Name\":\"new.t.\",\"Addresses\":"
     "[\"100.64.0.5/32\"]}}",
        false},
    {"{\"Node\":{\"ID\":1000,\"Name\":\"new.t.\"," OWN_KEY
     ",\"Addresses\":[\"100.64.0.5/32\"],\"MachineAuthorized\":true}}",
        true},
    {"{\"Node\":{\"ID\":1000,\"Name\":\"new.t.\"," OWN_KEY
     ",\"Addresses\":[\"100.64.0.6/32\"],\"MachineAuthorized\":true}}",
        false},
    {"{\"Node\":{\"ID\":1000,\"Name\":\"me.u.\"," OWN_KEY
     ",\"Addresses\":[\"100.64.0.5/32\"],\"MachineAuthorized\":true}}",
        false},
    {"{\"Node\":{\"ID\":1000,\"Name\":\"me.t.\"," OWN_KEY
     ",\"Addresses\":[\"100.64.0.5/32\"],\"MachineAuthorized\":false}}",
        false},
    {"{\"PeersChanged\":[{\"ID\":9,\"Name\":\"x.t.\",\"Key\":\"nodekey:"
     "0000000000000000000000000000000000000000000000000000000000000009\","
     "\"Addresses\":[\"100.64.7.0/24\"]}]}",
        false},
    {"{\"PeersChanged\":[{\"ID\":9,\"Name\":\"x.t.\",\"Key\":\"nodekey:"
     "0000000000000000000000000000000000000000000000000000000000000009\","
     "\"UnsignedPeerAPIOnly\":true,\"Addresses\":[\"100.64.7.1/32\"]}]}",
        false},
    {"{\"PeersChanged\":[{\"ID\":9,\"Name\":\"x.t.\",\"Key\":\"nodekey:"
     "0000000000000000000000000000000000000000000000000000000000000009\","
     "\"Addresses\":[\"100.64.7.1/32\"],\"AllowedIPs\":[\"100.64.7.1/32\","
     "\"100.64.0.9/32\"]}]}",
        false},
    {"{\"PeersChanged\":[{\"ID\":9,\"Name\":\"x.t.\",\"Key\":\"nodekey:"
     "0000000000000000000000000000000000000000000000000000000000000009\","
     "\"Addresses\":[\"100.64.7.1/32\"],\"AllowedIPs\":[\"100.64.7.1/32\","
     "\"0.0.0.0/0\"]}]}",
        true},
};

static void
what_fits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct netmap_changes c;
        struct netmap *nm;
        struct map_state *s = begin(two_peers, &accept, &nm);

        apply(s, forms[i].message);
        if (map_state_update(s, &accept, &c) != forms[i].fits)
            fail_msg("%s", forms[i].message);
        /* It says so until there is a new one. */
        if (!forms[i].fits)
            assert_false(map_state_update(s, &accept, &c));
        netmap_free(nm);
        map_state_free(s);
    }
}

/* A rule, and what is another one. */
#define RULE(srcs, ip, first, last, protos, dsts, cap, value)       \
    "[{\"SrcIPs\":[" srcs "],\"DstPorts\":[{\"IP\":\"" ip           \
    "\",\"Ports\":{\"First\":" first ",\"Last\":" last "}}]" protos \
    "},{\"SrcIPs\":[\"*\"],\"CapGrant\":[{\"Dsts\":[\"" dsts        \
    "\"],\"CapMap\":{\"" cap "\":[" value "]}}]}]"

static const char *const rules[] = {
    RULE("\"100.64.0.1\"", "*", "1", "9", "", "100.64.0.5/32", "c", "1"),
    RULE("\"100.64.0.2\"", "*", "1", "9", "", "100.64.0.5/32", "c", "1"),
    RULE("\"cap:c0\"", "*", "1", "9", "", "100.64.0.5/32", "c", "1"),
    RULE("\"cap:c1\"", "*", "1", "9", "", "100.64.0.5/32", "c", "1"),
    RULE("\"100.64.0.1\",\"cap:c0\"", "*", "1", "9", "", "100.64.0.5/32", "c",
        "1"),
    RULE("\"100.64.0.1\"", "100.64.0.5", "1", "9", "", "100.64.0.5/32", "c",
        "1"),
    RULE("\"100.64.0.1\"", "*", "2", "9", "", "100.64.0.5/32", "c", "1"),
    RULE("\"100.64.0.1\"", "*", "1", "8", "", "100.64.0.5/32", "c", "1"),
    RULE("\"100.64.0.1\"", "*", "1", "9", ",\"IPProto\":[6]", "100.64.0.5/32",
        "c", "1"),
    RULE("\"100.64.0.1\"", "*", "1", "9", ",\"IPProto\":[17]", "100.64.0.5/32",
        "c", "1"),
    RULE("\"100.64.0.1\"", "*", "1", "9", "", "100.64.0.6/32", "c", "1"),
    RULE("\"100.64.0.1\"", "*", "1", "9", "", "100.64.0.5/32", "d", "1"),
    RULE("\"100.64.0.1\"", "*", "1", "9", "", "100.64.0.5/32", "c", "2"),
    "[]",
};

static void
rules_again(void **state)
{
    enum { N = sizeof(rules) / sizeof(rules[0]), GRANTS = 10 };
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &accept, &nm);
    char text[1024];

    (void)state;
    for (unsigned i = 0; i < N; i++)
        for (unsigned k = 0; k < N; k++) {
            sprintf(text, "{\"PacketFilter\":%s}", rules[i]);
            apply(s, text);
            assert_true(map_state_update(s, &accept, &c));
            sprintf(text, "{\"PacketFilters\":{\"base\":%s}}", rules[k]);
            apply(s, text);
            assert_true(map_state_update(s, &accept, &c));
            if (c.rules != (i != k))
                fail_msg("%s after %s", rules[k], rules[i]);
            /* Those before GRANTS differ in what they let through. */
            if (c.grants != (i != k && (i >= GRANTS || k >= GRANTS)))
                fail_msg("grants: %s after %s", rules[k], rules[i]);
        }
    netmap_free(nm);
    map_state_free(s);
}

/* While a peer is not signed, each rule is judged by who that is. */
static void
rules_for_the_unsigned(void **state)
{
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(
        "{\"ID\":9,\"Name\":\"x.t.\",\"Key\":\"nodekey:"
        "0000000000000000000000000000000000000000000000000000000000000009"
        "\",\"UnsignedPeerAPIOnly\":true,\"Addresses\":[\"100.64.0.1/32\"]}",
        &none, &nm);

    (void)state;
    apply(s, "{\"PacketFilters\":{\"x\":[]}}");
    assert_false(map_state_update(s, &none, &c));
    netmap_free(nm);
    map_state_free(s);
}

/* Where the node itself is, is no news; that it is another, is. */
static void
own_whereabouts(void **state)
{
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &none, &nm);
    int64_t expiry = 0;
    char text[1024];

    (void)state;
    for (int i = 0; i < 3; i++) {
        sprintf(text,
            "{\"Node\":{\"ID\":1000,\"Name\":\"me.t.\"," OWN_KEY
            ",\"Addresses\":[\"100.64.0.5/32\"],\"MachineAuthorized\":true,"
            "\"Endpoints\":[\"10.9.9.9:%d\"],"
            "\"KeyExpiry\":\"20%d-01-01T00:00:00Z\"}}",
            1 + i, 50 + i / 2);
        apply(s, text);
        assert_true(map_state_update(s, &none, &c));
        assert_ptr_equal(c.self, i == 1 ? NULL : &nm->self);
        assert_int_equal(nm->self.endpoints[0].port, 1 + i);
        /* By another clock: it stays until there is news of it. */
        if (i == 0)
            expiry = nm->self.key_expiry -= 77;
        else
            assert_true((nm->self.key_expiry == expiry) == (i == 1));
    }
    netmap_free(nm);
    map_state_free(s);
}

/* More peers than it has room for; the exit node. */
static void
no_room(void **state)
{
    const struct map_settings exit = {.exit_node = "x"};
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin("", &exit, &nm);
    char *text = malloc(TEXT);
    int i = 0;

    (void)state;
    do {
        sprintf(text,
            "{\"PeersChanged\":[{\"ID\":%d,\"Name\":\"p.t.\",\"Key\":"
            "\"nodekey:%064x\",\"Addresses\":[\"100.65.0.%d/32\"]}]}",
            i + 1, i + 1, i + 1);
        apply(s, text);
        i++;
    } while (map_state_update(s, &exit, &c));
    assert_int_equal(i, 65);
    assert_int_equal(nm->npeers, 64);
    netmap_free(nm);
    nm = map_state_netmap(s, &exit);
    map_state_follow(s, nm);
    apply(s, "{\"PeersChanged\":[{\"ID\":99,\"Name\":\"x.t.\",\"Key\":"
             "\"nodekey:000000000000000000000000000000000000000000000000000000"
             "0000000099\",\"Addresses\":[\"100.64.7.1/32\"],\"AllowedIPs\":["
             "\"100.64.7.1/32\",\"0.0.0.0/0\"]}]}");
    assert_false(map_state_update(s, &exit, &c));
    netmap_free(nm);
    nm = map_state_netmap(s, &exit);
    map_state_follow(s, nm);
    apply(s, "{\"PeersRemoved\":[99]}");
    assert_false(map_state_update(s, &exit, &c));
    netmap_free(nm);
    map_state_free(s);
    free(text);
}

/* Without memory nothing is changed, and a new one is right. */
static void
no_memory(void **state)
{
    struct netmap_changes c;
    struct netmap *nm, *next;
    struct map_state *s;
    bool again = true;

    (void)state;
    for (long n = 0; again; n++) {
        s = begin(two_peers, &accept, &nm);
        apply(s, third);
        apply(s, "{\"PacketFilters\":{\"x\":[]}}");
        oom_arm(n);
        again = !map_state_update(s, &accept, &c);
        oom_disarm();
        assert_true(again == oom_fired);
        if (again) {
            assert_int_equal(nm->npeers, 2);
            assert_false(nm->peers[0].own_routes);
            next = map_state_netmap(s, &accept);
            map_state_follow(s, next);
            netmap_free(nm);
            nm = next;
        }
        assert_int_equal(nm->npeers, 3);
        netmap_free(nm);
        map_state_free(s);
    }
}

/* ---- what it costs ---- */

/* What is gone is freed while the same netmap goes on following. */
static void
memory(void **state)
{
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &none, &nm);
    size_t before = 0;
    char text[1024];

    (void)state;
    for (int i = 0; i < 20000; i++) {
        sprintf(text,
            "{\"PeersChanged\":[{\"ID\":3,\"Name\":\"n%d.t.\",\"Key\":"
            "\"nodekey:%064x\",\"Addresses\":[\"100.64.0.9/32\"],"
            "\"AllowedIPs\":[\"100.64.0.9/32\",\"10.0.0.0/8\"],"
            "\"Endpoints\":[\"192.0.2.1:%d\"]}]}",
            i, 3 + i % 2, i + 1);
        apply(s, text);
        assert_true(map_state_update(s, &none, &c));
        sprintf(text,
            "{\"PeersChangedPatch\":[{\"NodeID\":1,\"Endpoints\":"
            "[\"192.0.2.7:%d\"]}]}",
            i + 1);
        apply(s, text);
        assert_true(map_state_update(s, &none, &c));
        assert_int_equal(c.nrows, 1);
        if (i == 1000)
            before = mallinfo2().uordblks;
    }
    /* With a sanitizer's malloc() both are 0. */
    assert_true(mallinfo2().uordblks < before + 16384);
    netmap_free(nm);
    map_state_free(s);
}

static double
us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Microseconds for a peer that goes and one that comes, the least of some. */
static double
replace_cost(int n)
{
    char *list = malloc((size_t)n * 256 + 1), *p = list;
    struct netmap_changes c;
    struct map_state *s;
    double best = 1e9, at;
    struct netmap *nm;
    char text[512];

    for (int i = 1; i <= n; i++)
        p += sprintf(p,
            "%s{\"ID\":%d,\"Name\":\"p%d.t.\",\"Key\":\"nodekey:%064x\","
            "\"Addresses\":[\"100.%d.%d.%d/32\"]}",
            i == 1 ? "" : ",", i, i, i, 65 + (i >> 16), i >> 8 & 255, i & 255);
    s = map_state_new();
    {
        char *all = malloc((size_t)(p - list) + 1024);

        sprintf(
            all, "{%s,\"PacketFilter\":[],\"Peers\":[%s]}", self_text, list);
        apply(s, all);
        free(all);
    }
    nm = map_state_netmap(s, &none);
    map_state_follow(s, nm);
    for (int i = 1; i <= 60; i++) {
        sprintf(text,
            "{\"PeersRemoved\":[%d],\"PeersChanged\":[{\"ID\":%d,\"Name\":"
            "\"q%d.t.\",\"Key\":\"nodekey:%064x\",\"Addresses\":[\"100.99.%d.%d"
            "/32\"]}]}",
            i * 7, n + i, i, n + i, i >> 8, i & 255);
        at = us();
        apply(s, text);
        assert_true(map_state_update(s, &none, &c));
        at = us() - at;
        best = at < best ? at : best;
        assert_int_equal(c.ngone, 1);
        assert_int_equal(c.nadded, 1);
    }
    netmap_free(nm);
    map_state_free(s);
    free(list);
    return best;
}

static void
cost(void **state)
{
    double few = replace_cost(1000), many = replace_cost(50000);

    (void)state;
    print_message("# 1000 peers: %.0f us, 50000: %.0f us\n", few, many);
    assert_true(many < 10 * few + 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(told_twice),
        cmocka_unit_test(expiry_of_one),
        cmocka_unit_test(route_of_another),
        cmocka_unit_test(came_and_went),
        cmocka_unit_test(what_fits),
        cmocka_unit_test(rules_again),
        cmocka_unit_test(rules_for_the_unsigned),
        cmocka_unit_test(own_whereabouts),
        cmocka_unit_test(no_room),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(memory),
        cmocka_unit_test(cost),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

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
 * test_map_follow.c: a netmap that follows is, whatever messages say, the one
 * that is made anew, and what is said of its changes leads from what it was to
 * what it is.
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

#define PEERS 24
#define STEPS 6000
#define TEXT  (1 << 18)
#define SHOWN 512 /* room of a follower of PEERS, and more */

/* What the server knows of a peer; number ${i} has the ID ${i} + 1. */
struct model {
    bool there, online, is_unsigned;
    int key, addr, name, tag, cap, user, port, subnet, host, exit;
};

static const struct map_settings *settings;
static struct model peers[PEERS];
static int names[PEERS]; /* of users; 0: no profile was told */
static unsigned seed;

static int
roll(int n)
{
    seed = seed * 1103515245u + 12345u;
    return (int)((seed >> 8) % (unsigned)n);
}

/* ---- messages ---- */

static const char self_text[] =
    "\"Node\":{\"ID\":1000,\"Name\":\"me.t.\",\"User\":3,\"Key\":\"nodekey:"
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\","
    "\"Addresses\":[\"100.64.0.5/32\"],\"MachineAuthorized\":true}";

static size_t
put_peer(char *p, int i)
{
    const struct model *m = &peers[i];
    char *begin = p;

    p += sprintf(p,
        "{\"ID\":%d,\"StableID\":\"s%d\",\"Name\":\"p%d-%d.t.\",\"User\":%d,"
        "\"Key\":\"nodekey:%064x\",\"UnsignedPeerAPIOnly\":%s,"
        "\"Addresses\":[\"100.64.0.%d/32\",\"fd7a::%x/128\"],"
        "\"AllowedIPs\":[\"100.64.0.%d/32\",\"fd7a::%x/128\"",
        i + 1, i + 1, i, m->name, m->user, m->key,
        m->is_unsigned ? "true" : "false", m->addr, i + 100, m->addr, i + 100);
    if (m->subnet > 0)
        p += sprintf(p, ",\"10.%d.0.0/16\"", m->subnet);
    if (m->host > 0)
        p += sprintf(p, ",\"100.64.0.%d/32\"", m->host);
    if (m->exit > 0)
        p += sprintf(p, ",\"0.0.0.0/0\",\"::/0\"");
    p += sprintf(p, "],");
    if (m->tag > 0)
        p += sprintf(p, "\"Tags\":[\"tag:t%d\"],", m->tag);
    p += sprintf(p,
        "\"Endpoints\":[\"10.0.0.1:%d\"],\"CapMap\":{\"c%d\":null},"
        "\"Online\":%s}",
        m->port, m->cap, m->online ? "true" : "false");
    return (size_t)(p - begin);
}

static void
renew(int i)
{
    peers[i] = (struct model){.there = true,
        .online = roll(2),
        .is_unsigned = roll(60) == 0,
        .key = 1 + (roll(4) == 0 ? roll(PEERS) : i),
        .addr = 1 + (roll(4) == 0 ? roll(PEERS) : i),
        .user = roll(8),
        .port = 1 + roll(60000),
        .subnet = roll(5) == 0 ? 1 + roll(8) : 0,
        .host = roll(5) == 0 ? 1 + roll(PEERS + 4) : 0,
        .exit = roll(12) == 0};
}

static void
say_all(char *text, bool self)
{
    const char *comma = "";
    char *p = text;

    p += sprintf(p, "{%s%s\"Peers\":[", self ? self_text : "",
        self ? ",\"PacketFilter\":[]," : "");
    for (int i = 0; i < PEERS; i++) {
        if (!peers[i].there)
            continue;
        p += sprintf(p, "%s", comma);
        p += put_peer(p, i);
        comma = ",";
    }
    p += sprintf(p, "],\"UserProfiles\":[");
    comma = "";
    for (int u = 0; u < PEERS; u++) {
        if (names[u] == 0)
            continue;
        p += sprintf(
            p, "%s{\"ID\":%d,\"LoginName\":\"u%d\"}", comma, u, names[u]);
        comma = ",";
    }
    strcpy(p, "]}");
}

/* Peer ${i} whole, with something new. */
static void
say_peer(char *text, int i)
{
    struct model *m = &peers[i];
    char *p = text;

    if (!m->there)
        renew(i);
    switch (roll(7)) {
    case 0:
        m->name = roll(3);
        break;
    case 1:
        m->tag = roll(3);
        break;
    case 2:
        m->addr = 1 + roll(PEERS);
        break;
    case 3:
        m->subnet = roll(9);
        break;
    case 4:
        m->host = 1 + roll(PEERS + 4);
        break;
    case 5:
        m->user = roll(8);
        break;
    default:
        m->port = 1 + roll(60000);
    }
    p += sprintf(p, "{\"PeersChanged\":[");
    p += put_peer(p, i);
    strcpy(p, "]}");
}

static void
say_patch(char *text, int i)
{
    struct model *m = &peers[i];
    char *p = text +
              sprintf(text, "{\"PeersChangedPatch\":[{\"NodeID\":%d", i + 1);

    switch (roll(4)) {
    case 0:
        m->key = 1 + roll(PEERS);
        p += sprintf(p, ",\"Key\":\"nodekey:%064x\"", m->key);
        break;
    case 1:
        m->cap = roll(3);
        p += sprintf(p, ",\"CapMap\":{\"c%d\":null}", m->cap);
        break;
    case 2:
        m->port = 1 + roll(60000);
        p += sprintf(p, ",\"Endpoints\":[\"10.0.0.1:%d\"]", m->port);
        break;
    default:
        m->online = !m->online;
        p += sprintf(p, ",\"Online\":%s", m->online ? "true" : "false");
    }
    strcpy(p, "}]}");
}

/* A new user, mostly: of such as peers have already, or of none. */
static void
say_user(char *text)
{
    int u = 1 + roll(PEERS - 1);

    if (names[u] != 0 && roll(8) != 0) {
        sprintf(text, "{\"Domain\":\"\"}");
        return;
    }
    names[u]++;
    sprintf(text, "{\"UserProfiles\":[{\"ID\":%d,\"LoginName\":\"u%d\"}]}", u,
        names[u]);
}

static void
say_something(char *text)
{
    int i = roll(PEERS), what = roll(400);

    if (what < 120) {
        say_peer(text, i);
    } else if (what < 240 && peers[i].there) {
        say_patch(text, i);
    } else if (what < 340 && peers[i].there) {
        peers[i].there = false;
        sprintf(text, "{\"PeersRemoved\":[%d]}", i + 1);
    } else if (what < 396) {
        say_user(text);
    } else {
        say_all(text, false);
    }
}

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

/* ---- comparing ---- */

static int
by_id(const void *a, const void *b)
{
    const struct netmap_node *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static struct netmap_node *
sorted(const struct netmap *nm)
{
    struct netmap_node *rows = malloc((nm->npeers + 1) * sizeof(*rows));

    memcpy(rows, nm->peers, nm->npeers * sizeof(*rows));
    qsort(rows, nm->npeers, sizeof(*rows), by_id);
    return rows;
}

static void
same(const struct netmap *a, const struct netmap *b)
{
    struct netmap_node *x = sorted(a), *y = sorted(b);

    assert_int_equal(a->npeers, b->npeers);
    for (unsigned i = 0; i < a->npeers; i++) {
        if (!netmap_same_standing(&x[i], &y[i]) ||
            !netmap_same_whereabouts(&x[i], &y[i]))
            fail_msg("%s is not %s: %u, %u routes", x[i].name, y[i].name,
                x[i].nallowed_ips, y[i].nallowed_ips);
    }
    assert_int_equal(a->nusers, b->nusers);
    for (unsigned i = 0; i < a->nusers; i++)
        assert_true(netmap_same_user(&a->users[i], &b->users[i]));
    free(x);
    free(y);
}

/* ---- a follower, and who hears of its changes alone ---- */

struct hearer {
    struct netmap *nm;
    struct netmap_node rows[SHOWN]; /* keys, and what changes in rows */
    unsigned n, updated, whole, came, went;
};

static void
look(struct hearer *h)
{
    memcpy(h->rows, h->nm->peers, h->nm->npeers * sizeof(h->rows[0]));
    h->n = h->nm->npeers;
}

static void
hear(struct hearer *h, const struct netmap_changes *c)
{
    for (size_t i = 0; i < c->ngone; i++) {
        assert_true(c->gone[i].row < h->n);
        assert_memory_equal(h->rows[c->gone[i].row].key, c->gone[i].key, 32);
        h->rows[c->gone[i].row] = h->rows[--h->n];
    }
    assert_int_equal(h->n + c->nadded, h->nm->npeers);
    for (size_t i = 0; i < c->nrows; i++) {
        assert_true(c->rows[i] < h->n);
        h->rows[c->rows[i]] = h->nm->peers[c->rows[i]];
    }
    for (size_t i = 0; i < h->n; i++)
        assert_memory_equal(&h->rows[i], &h->nm->peers[i], sizeof(h->rows[i]));
    h->came += (unsigned)c->nadded;
    h->went += (unsigned)c->ngone;
}

/* As the engine does it. */
static void
bring_up(struct map_state *s, struct hearer *h)
{
    struct netmap_changes c;
    struct netmap *old = h->nm;

    if (map_state_update(s, settings, &c)) {
        hear(h, &c);
        h->updated++;
    } else {
        h->nm = map_state_netmap(s, settings);
        assert_non_null(h->nm);
        map_state_follow(s, h->nm);
        netmap_free(old);
        h->whole++;
    }
    look(h);
}

static void
compare(struct map_state *s, const struct netmap *nm, char *text)
{
    struct netmap *other = map_state_netmap(s, settings);
    struct map_state *fresh;

    same(nm, other);
    netmap_free(other);
    if (text == NULL)
        return;
    fresh = map_state_new();
    say_all(text, true);
    apply(fresh, text);
    other = map_state_netmap(fresh, settings);
    same(nm, other);
    netmap_free(other);
    map_state_free(fresh);
}

static void
run(const struct map_settings *with, unsigned from)
{
    struct map_state *s = map_state_new();
    struct netmap *kept = NULL;
    char *text = malloc(TEXT);
    struct hearer h = {0};

    seed = from;
    settings = with;
    memset(names, 0, sizeof(names));
    for (int i = 0; i < PEERS; i++) {
        renew(i);
        peers[i].there = i % 3 != 0;
    }
    say_all(text, true);
    apply(s, text);
    bring_up(s, &h);
    for (int step = 0; step < STEPS; step++) {
        for (int n = roll(3); n >= 0; n--) {
            say_something(text);
            apply(s, text);
        }
        bring_up(s, &h);
        compare(s, h.nm, step % 4 == 0 ? text : NULL);
        if (roll(6) == 0) { /* one that is being saved */
            netmap_free(kept);
            kept = map_state_netmap(s, settings);
        }
        if (step % 500 == 0) { /* so that there are new ones again */
            memset(names, 0, sizeof(names));
            say_all(text, true);
            map_state_free(s);
            s = map_state_new();
            apply(s, text);
        }
    }
    print_message("# %u updated: %u came, %u went; %u whole\n", h.updated,
        h.came, h.went, h.whole);
    assert_true(h.updated > STEPS / 3 && h.came > 1000 && h.went > 1000);
    assert_true(h.whole > STEPS / 100);
    netmap_free(kept);
    netmap_free(h.nm);
    map_state_free(s);
    free(text);
}

static void
random_messages(void **state)
{
    const struct map_settings one = {.exit_node = ""},
                              two = {.accept_routes = true, .exit_node = ""},
                              three = {
                                  .accept_routes = true, .exit_node = "p3-0"};

    (void)state;
    run(&one, 1);
    run(&two, 2);
    run(&three, 3);
}

/* ---- one by one ---- */

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
    {"{\"UserProfiles\":[{\"ID\":3,\"LoginName\":\"own\"}]}", false},
    {"{\"Domain\":\"other\"}", false},
    {"{\"PacketFilters\":{\"x\":[]}}", false},
    {"{\"PacketFilter\":[]}", true},
    {"{\"PacketFilters\":{\"base\":[]}}", true},
    {"{\"PacketFilters\":{\"base\":null}}", false},
    {"{\"PacketFilters\":{\"x\":null}}", true},
    {"{\"PacketFilters\":{\"*\":null}}", false},
    {"{\"PacketFilters\":{\"*\":null,\"x\":null}}", false},
    {"{\"PacketFilters\":{\"*\":null,\"x\":[]}}", false},
    {"{\"PacketFilters\":{\"*\":null,\"base\":[]}}", true},
    {"{\"Peers\":[]}", true},
    {"{\"DERPMap\":{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":[]}}}}",
        false},
    {"{\"Node\":{\"ID\":1000,\"Name\":\"new.t.\",\"Addresses\":"
     "[\"100.64.0.5/32\"]}}",
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
    enum { N = sizeof(rules) / sizeof(rules[0]) };
    struct netmap_changes c;
    struct netmap *nm;
    struct map_state *s = begin(two_peers, &accept, &nm);
    char text[1024];

    (void)state;
    for (unsigned i = 0; i < N; i++)
        for (unsigned k = 0; k < N; k++) {
            sprintf(text, "{\"PacketFilter\":%s}", rules[i]);
            apply(s, text);
            netmap_free(nm);
            nm = map_state_netmap(s, &accept);
            map_state_follow(s, nm);
            sprintf(text, "{\"PacketFilters\":{\"base\":%s}}", rules[k]);
            apply(s, text);
            if (map_state_update(s, &accept, &c) != (i == k))
                fail_msg("%s after %s", rules[k], rules[i]);
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
        peers[0] = (struct model){.key = i + 1, .addr = 10};
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
        cmocka_unit_test(random_messages),
        cmocka_unit_test(told_twice),
        cmocka_unit_test(expiry_of_one),
        cmocka_unit_test(route_of_another),
        cmocka_unit_test(came_and_went),
        cmocka_unit_test(what_fits),
        cmocka_unit_test(rules_again),
        cmocka_unit_test(no_room),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(memory),
        cmocka_unit_test(cost),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/control/map_state.c tailnetd/control/map_json_delta.c */
/* links: tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_grant.c */
/* links: tailnetd/control/map_json_value.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_derp.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/span.c core/tn_addr.c */
/* libs: -ljansson */
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

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_state.h"

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
static struct own {
    int name, tag, expiry, port, domain, rule, derp;
} own; /* the node itself, and what is not about nodes */
static unsigned seed;

static int
roll(int n)
{
    seed = seed * 1103515245u + 12345u;
    return (int)((seed >> 8) % (unsigned)n);
}

/* ---- messages ---- */

#define OWN_KEY          \
    "\"Key\":\"nodekey:" \
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\""

static size_t
put_own_node(char *p)
{
    return (size_t)sprintf(p,
        "\"Node\":{\"ID\":1000,\"Name\":\"me%d.t.\",\"User\":3," OWN_KEY ","
        "\"Addresses\":[\"100.64.0.5/32\"],\"MachineAuthorized\":true,"
        "\"Tags\":[\"tag:own%d\"],\"Endpoints\":[\"10.9.9.9:%d\"],"
        "\"KeyExpiry\":\"20%d-01-01T00:00:00Z\"}",
        own.name, own.tag, 1 + own.port, 50 + own.expiry);
}

/* Every third is another one that grants. */
static size_t
put_rules(char *p)
{
    return (size_t)sprintf(p,
        "\"PacketFilter\":[{\"SrcIPs\":[\"100.64.0.%d\"],\"DstPorts\":[{\"IP\":"
        "\"*\",\"Ports\":{\"First\":1,\"Last\":9}}]},{\"SrcIPs\":[\"*\"],"
        "\"CapGrant\":[{\"Dsts\":[\"100.64.0.5/32\"],\"CapMap\":{\"c\":[%d]"
        "}}]}]",
        own.rule, own.rule / 3);
}

static size_t
put_derp(char *p)
{
    return (size_t)sprintf(p,
        "\"DERPMap\":{\"Regions\":{\"1\":{\"RegionID\":1,\"RegionCode\":"
        "\"r%d\",\"Nodes\":[]}}}",
        own.derp);
}

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

    p += sprintf(p, "{\"Domain\":\"d%d\",", own.domain);
    p += put_rules(p);
    *p++ = ',';
    p += put_derp(p);
    *p++ = ',';
    if (self) {
        p += put_own_node(p);
        *p++ = ',';
    }
    p += sprintf(p, "\"Peers\":[");
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

static void
say_own(char *text)
{
    char *p = text;

    *p++ = '{';
    switch (roll(7)) {
    case 0:
        own.rule = roll(9);
        p += put_rules(p);
        break;
    case 1:
        own.derp = roll(3);
        p += put_derp(p);
        break;
    case 2:
        own.domain = roll(3);
        p += sprintf(p, "\"Domain\":\"d%d\"", own.domain);
        break;
    case 3:
        own.name = roll(3);
        p += put_own_node(p);
        break;
    case 4:
        own.tag = roll(3);
        p += put_own_node(p);
        break;
    case 5:
        own.expiry = roll(3);
        p += put_own_node(p);
        break;
    default:
        own.port = roll(3);
        p += put_own_node(p);
    }
    strcpy(p, "}");
}

/* A new user, mostly: of such as peers have already, or of none. */
static void
say_user(char *text)
{
    int u = 1 + roll(PEERS - 1);

    if (names[u] != 0 && roll(4) != 0) {
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

    if (roll(8) == 0) {
        say_own(text);
        return;
    }
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
    assert_true(netmap_same_standing(&a->self, &b->self));
    assert_true(netmap_same_whereabouts(&a->self, &b->self));
    assert_string_equal(a->domain, b->domain);
    assert_string_equal(a->derp->regions[0].code, b->derp->regions[0].code);
    assert_true(a->has_rules && b->has_rules);
    assert_true(netmap_same_rules(a->rules, a->nrules, b->rules, b->nrules));
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
    struct own own;
    int names[PEERS];
    unsigned n, updated, whole, came, went, renamed, regranted;
};

static void
look(struct hearer *h)
{
    memcpy(h->rows, h->nm->peers, h->nm->npeers * sizeof(h->rows[0]));
    h->n = h->nm->npeers;
    h->own = own;
    memcpy(h->names, names, sizeof(names));
}

/* What is not about peers. */
static void
hear_rest(struct hearer *h, const struct netmap_changes *c)
{
    const struct own *had = &h->own;
    size_t k;

    if (had->name != own.name || had->tag != own.tag ||
        had->expiry != own.expiry || had->domain != own.domain)
        assert_ptr_equal(c->self, &h->nm->self);
    if (had->derp != own.derp)
        assert_true(c->derp);
    if (had->rule != own.rule)
        assert_true(c->rules);
    assert_true(c->grants == (had->rule / 3 != own.rule / 3));
    h->regranted += c->grants;
    for (int u = 0; u < PEERS; u++) {
        for (k = 0; k < c->nusers && c->users[k] != u; k++)
            ;
        if (h->names[u] != 0 && h->names[u] != names[u])
            assert_true(k < c->nusers);
        h->renamed += k < c->nusers;
    }
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
        hear_rest(h, &c);
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
    print_message("# %u updated: %u came, %u went, %u renamed, %u other "
                  "grants; %u whole\n",
        h.updated, h.came, h.went, h.renamed, h.regranted, h.whole);
    assert_true(h.updated > STEPS / 3 && h.came > 1000 && h.went > 1000);
    assert_true(h.renamed > STEPS / 100 && h.regranted > STEPS / 100);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_messages),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

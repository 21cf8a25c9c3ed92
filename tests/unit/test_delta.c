/* links: tailnetd/control/map_state.c tailnetd/control/map_json_delta.c */
/* links: tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_grant.c */
/* links: tailnetd/control/map_json_value.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_derp.c tailnetd/control/map_json_write.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/publish.c tailnetd/engine/span.c */
/* links: tailnetd/engine/publish_edit.c tailnetd/engine/record.c */
/* links: core/tn_addr.c core/tn_snap_read.c */
/* libs: -ljansson */
/*
 * test_delta.c: a netmap and a snapshot that thousands of messages were
 * carried over to are those that are made anew of what the messages say.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/core/tn_snap_read.h"
#include "../../ngx_tailnet_module/tailnetd/control/map_state.h"
#include "../../ngx_tailnet_module/tailnetd/engine/publish_edit.h"
#include "map_text.h"

#define PEERS 40
#define STEPS 4000
#define NOW   1700000000
#define TEXT  (1 << 18)

/* What the server knows of a peer; number ${i} has the ID ${i} + 1. */
struct model {
    bool there, online;
    int port, derp, disco, expiry, key, name, tag, cap, addr, user;
};

static const struct map_settings settings = {.exit_node = ""};
static struct model peers[PEERS];
static int user_names[4];
static int own_expiry, own_tag, own_name, own_port, domain;
static unsigned seed;

static int
roll(int n)
{
    seed = seed * 1103515245u + 12345u;
    return (int)((seed >> 8) % (unsigned)n);
}

/* ---- messages ---- */

static const char *const expiries[] = {
    "0001-01-01T00:00:00Z", "2090-01-01T00:00:00Z", "2001-01-01T00:00:00Z"};

static size_t
put_peer(char *p, int i)
{
    const struct model *m = &peers[i];
    char tags[64] = "";

    if (m->tag > 0)
        sprintf(tags, "\"Tags\":[\"tag:t%d\"],", m->tag);
    return (size_t)sprintf(p,
        "{\"ID\":%d,\"StableID\":\"s%d\",\"Name\":\"p%d-%d.t.\",\"User\":%d,"
        "\"Key\":\"nodekey:%064x\",\"DiscoKey\":\"discokey:%064x\","
        "\"Addresses\":[\"100.64.0.%d/32\",\"fd7a::%x/128\"],"
        "\"AllowedIPs\":[\"100.64.0.%d/32\",\"10.%d.0.0/16\"],%s"
        "\"Endpoints\":[\"10.0.0.1:%d\",\"10.0.0.2:%d\"],\"HomeDERP\":%d,"
        "\"CapMap\":{\"c%d\":null},\"KeyExpiry\":\"%s\",\"Online\":%s}",
        i + 1, i + 1, i, m->name, 100 + m->user, m->key * 1000 + i + 1,
        m->disco * 1000 + i + 1, m->addr, m->addr, m->addr, i, tags, m->port,
        m->port + 1, m->derp, m->cap, expiries[m->expiry],
        m->online ? "true" : "false");
}

static size_t
put_user(char *p, int u)
{
    return (size_t)sprintf(
        p, "{\"ID\":%d,\"LoginName\":\"u%d-%d@t\"}", 100 + u, u, user_names[u]);
}

static size_t
put_self(char *p)
{
    return (size_t)sprintf(p,
        "\"Domain\":\"d%d\",\"Node\":{\"ID\":1000,\"Name\":\"me%d.t.\",\"Key\":"
        "\"nodekey:"
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\","
        "\"Tags\":[\"tag:t%d\"],\"KeyExpiry\":\"%s\",\"Endpoints\":"
        "[\"10.9.9.9:%d\"],\"Addresses\":[\"100.127.0.1/32\"],"
        "\"MachineAuthorized\":true}",
        domain, own_name, own_tag, expiries[own_expiry], 1 + own_port);
}

/* All there is, as a stream's first message. */
static void
say_all(char *text)
{
    char *p = text;
    bool any = false;

    p += sprintf(p, "{\"PacketFilter\":[],");
    p += put_self(p);
    p += sprintf(p, ",\"Peers\":[");
    for (int i = 0; i < PEERS; i++) {
        if (!peers[i].there)
            continue;
        if (any)
            *p++ = ',';
        p += put_peer(p, i);
        any = true;
    }
    p += sprintf(p, "],\"UserProfiles\":[");
    for (int u = 0; u < 4; u++) {
        if (u > 0)
            *p++ = ',';
        p += put_user(p, u);
    }
    strcpy(p, "]}");
}

static void
renew(int i)
{
    static int next;

    next++;
    peers[i] = (struct model){.there = true,
        .online = roll(2),
        .port = 1 + roll(60000),
        .derp = 1 + roll(9),
        .key = next,
        .disco = next,
        .addr = 1 + i,
        .user = roll(4)};
}

/* Changes peer ${i} and says so in a patch. */
static void
say_patch(char *text, int i)
{
    struct model *m = &peers[i];
    char *p = text +
              sprintf(text, "{\"PeersChangedPatch\":[{\"NodeID\":%d", i + 1);

    switch (roll(8)) {
    case 0:
    case 1:
        m->online = !m->online;
        p += sprintf(p, ",\"Online\":%s", m->online ? "true" : "false");
        break;
    case 2:
        m->port = 1 + roll(60000);
        p += sprintf(p, ",\"Endpoints\":[\"10.0.0.1:%d\",\"10.0.0.2:%d\"]",
            m->port, m->port + 1);
        break;
    case 3:
        m->derp = 1 + roll(9);
        p += sprintf(p, ",\"DERPRegion\":%d", m->derp);
        break;
    case 4:
        m->disco++;
        p += sprintf(
            p, ",\"DiscoKey\":\"discokey:%064x\"", m->disco * 1000 + i + 1);
        break;
    case 5:
        m->expiry = roll(8) == 0 ? 2 : 1;
        p += sprintf(p, ",\"KeyExpiry\":\"%s\"", expiries[m->expiry]);
        break;
    case 6:
        m->key += roll(4) == 0 ? 1000 : 0;
        p += sprintf(p, ",\"Key\":\"nodekey:%064x\"", m->key * 1000 + i + 1);
        break;
    default:
        m->cap = roll(3);
        p += sprintf(p, ",\"CapMap\":{\"c%d\":null}", m->cap);
        break;
    }
    strcpy(p, "}]}");
}

/* Peer ${i} whole, mostly with nothing new but where it is. */
static void
say_peer(char *text, int i)
{
    struct model *m = &peers[i];
    char *p = text;

    if (!m->there)
        renew(i);
    m->online = roll(2);
    m->port = roll(3) == 0 ? 1 + roll(60000) : m->port;
    if (roll(6) == 0)
        m->name = roll(3);
    if (roll(6) == 0)
        m->tag = roll(3);
    if (roll(10) == 0) /* another's address, perhaps */
        m->addr = 1 + (roll(2) == 0 ? i : roll(PEERS));
    p += sprintf(p, "{\"PeersChanged\":[");
    p += put_peer(p, i);
    p += sprintf(p, "],\"UserProfiles\":[");
    p += put_user(p, m->user);
    strcpy(p, "]}");
}

static void
say_something(char *text)
{
    int i = roll(PEERS), what = roll(20);

    if (what < 12 && peers[i].there) {
        say_patch(text, i);
    } else if (what < 17) {
        say_peer(text, i);
    } else if (what == 17 && peers[i].there) {
        peers[i].online = !peers[i].online;
        sprintf(text, "{\"OnlineChange\":{\"%d\":%s}}", i + 1,
            peers[i].online ? "true" : "false");
    } else if (what == 18 && peers[i].there && roll(2) == 0) {
        peers[i].there = false;
        sprintf(text, "{\"PeersRemoved\":[%d]}", i + 1);
    } else if (roll(4) == 0) {
        char *p = text + sprintf(text, "{\"UserProfiles\":[");

        user_names[i % 4]++;
        p += put_user(p, i % 4);
        strcpy(p, "]}");
    } else {
        what = roll(20); /* most often nothing new */
        own_expiry = what < 3 ? what : own_expiry;
        own_tag = what < 5 ? what : own_tag;
        own_name += what == 5;
        own_port += what == 6;
        domain += what == 7;
        text += sprintf(text, "{");
        text += put_self(text);
        strcpy(text, "}");
    }
}

/* ---- comparing ---- */

static void
apply(struct map_state *s, const char *text)
{
    char err[MAP_STATE_ERROR_MAX];
    struct map_json_error e;
    struct map_delta d;

    if (map_json_delta(text, strlen(text), NULL, &d, &e) != 0)
        fail_msg("%s in %s", e.text, text);
    assert_int_equal(e.nwarnings, 0);
    if (map_state_apply(s, &d, err) != 0)
        fail_msg("%s", err);
    map_delta_clear(&d);
}

static void *
build(const struct netmap *nm, size_t *size, struct publish_index *ix)
{
    struct publish_opts o = {.generation = 7, .now = NOW, .index = ix};
    char err[TN_ERR_MAX];
    void *bytes;

    if (publish_build(nm, &o, &bytes, size, err) != 0)
        fail_msg("%s", err);
    return bytes;
}

static int
by_id(const void *a, const void *b)
{
    const struct netmap_node *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

/* ${nm} as text, whatever the order of its peers; it stays as it is. */
static char *
text_of(const struct netmap *nm)
{
    struct netmap copy = *nm;
    size_t len;
    char *text;

    copy.peers = malloc((nm->npeers + 1) * sizeof(*copy.peers));
    memcpy(copy.peers, nm->peers, nm->npeers * sizeof(*copy.peers));
    qsort(copy.peers, copy.npeers, sizeof(*copy.peers), by_id);
    text = map_text(&copy, &len);
    assert_non_null(text);
    free(copy.peers);
    text = realloc(text, len + 1);
    text[len] = '\0';
    return text;
}

/* Texts are long: where they differ, and what is there. */
static void
same_text(const char *a, const char *b)
{
    size_t i = 0, from;

    while (a[i] != '\0' && a[i] == b[i])
        i++;
    from = i > 400 ? i - 400 : 0;
    if (a[i] != b[i])
        fail_msg("\n%.500s\n%.500s", a + from, b + from);
}

static void
same_str(struct tn_str a, struct tn_str b)
{
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.p, b.p, a.len);
}

static void
same_peer(const struct tn_peer *a, const struct tn_peer *b)
{
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->key_expiry, b->key_expiry);
    assert_memory_equal(a->key, b->key, 32);
    assert_int_equal(a->naddrs, b->naddrs);
    assert_memory_equal(a->addrs, b->addrs, a->naddrs * sizeof(a->addrs[0]));
    same_str(a->name, b->name);
    same_str(a->tags, b->tags);
    same_str(a->login, b->login);
}

/* What readers see in both, by address and by name. */
static void
same_meaning(const void *a, size_t alen, const void *b, size_t blen)
{
    struct tn_peer x, y, z;
    struct tn_snap s, t;
    uint32_t cursor = 0, n = 0;

    assert_null(tn_snap_open(&s, a, alen));
    assert_null(tn_snap_open(&t, b, blen));
    assert_int_equal(s.head.npeers, t.head.npeers);
    assert_int_equal(s.head.self_expiry, t.head.self_expiry);
    same_str(tn_snap_tailnet(&s), tn_snap_tailnet(&t));
    while (tn_snap_next(&s, &cursor, &x) == 0) {
        n++;
        assert_int_equal(tn_snap_whois(&t, &x.addrs[0], &y, NULL), 0);
        same_peer(&x, &y);
        assert_int_equal(
            tn_snap_by_name(&t, x.name.p, x.name.len, &z, NULL), 0);
        same_peer(&x, &z);
    }
    assert_int_equal(n, t.head.npeers + 1);
}

/* ---- the test ---- */

struct image {
    int fd;
    struct publish_index index;
    struct netmap *nm;
    unsigned carried, built;
};

static void
renew_image(struct image *im)
{
    size_t size, at = 0;
    void *bytes;

    publish_edit_free(&im->index);
    if (im->fd > 0)
        close(im->fd);
    bytes = build(im->nm, &size, &im->index);
    im->fd = publish_memfd();
    assert_int_not_equal(im->fd, -1);
    assert_int_equal(publish_write(im->fd, bytes, &at, size), 0);
    free(bytes);
    im->built++;
}

/* What is in the record of ${row} is not what it was. */
static void
carry_row(struct image *im, uint32_t row)
{
    uint32_t off = publish_edit_record(&im->index, row);
    struct tn_snap_peer rec;

    if (off == 0)
        return;
    assert_int_equal(pread(im->fd, &rec, sizeof(rec), (off_t)off), sizeof(rec));
    if (record_state(&rec, &im->nm->peers[row], NOW))
        publish_edit_stale(&im->index, row);
}

static int
carry(struct image *im, const struct netmap_changes *c)
{
    const struct publish_opts o = {.generation = 7, .now = NOW};

    for (size_t i = 0; i < c->ngone; i++)
        assert_int_equal(publish_edit_gone(&im->index, c->gone[i].row), 0);
    assert_int_equal(publish_edit_added(&im->index, c->nadded), 0);
    for (size_t i = 0; i < c->nrows; i++)
        carry_row(im, c->rows[i]);
    if (c->self != NULL)
        assert_int_equal(publish_edit_self(&im->index), 0);
    assert_int_equal(publish_edit_users(&im->index, c->users, c->nusers), 0);
    return publish_edit(&im->index, im->fd, im->nm, &o);
}

/* As the engine does it. */
static void
bring_up(struct map_state *s, struct image *im)
{
    struct netmap *old = im->nm;
    struct netmap_changes c;

    if (!map_state_update(s, &settings, &c)) {
        im->nm = map_state_netmap(s, &settings);
        assert_non_null(im->nm);
        map_state_follow(s, im->nm);
        netmap_free(old);
        renew_image(im);
    } else if (carry(im, &c) != 0) {
        renew_image(im);
    } else {
        im->carried++;
    }
}

/* The image is that of ${nm}. */
static void
compare_image(const struct image *im, const struct netmap *nm)
{
    size_t size = im->index.size, other;
    void *bytes = malloc(size), *anew = build(nm, &other, NULL);
    char *a = text_of(im->nm), *b = text_of(nm);

    same_text(a, b);
    assert_int_equal(pread(im->fd, bytes, size, 0), size);
    same_meaning(bytes, size, anew, other);
    same_meaning(anew, other, bytes, size);
    free(bytes);
    free(anew);
    free(a);
    free(b);
}

/* ... as it is when it is made anew of the state ... */
static void
compare(struct map_state *s, const struct image *im)
{
    struct netmap *nm = map_state_netmap(s, &settings);

    compare_image(im, nm);
    netmap_free(nm);
}

/* ... and of a state that never heard of the messages. */
static void
compare_fresh(struct map_state *s, const struct image *im, char *text)
{
    struct map_state *fresh = map_state_new();
    struct netmap *nm;

    say_all(text);
    apply(fresh, text);
    nm = map_state_netmap(fresh, &settings);
    compare_image(im, nm);
    assert_int_equal(
        map_state_counts(s).contested, map_state_counts(fresh).contested);
    netmap_free(nm);
    map_state_free(fresh);
}

static void
carried_over(void **state)
{
    struct map_state *s = map_state_new();
    struct netmap *kept = NULL; /* as one that is being saved */
    char *text = malloc(TEXT), *before = NULL, *after;
    struct image im = {0};

    (void)state;
    seed = 1;
    for (int i = 0; i < PEERS; i++) {
        renew(i);
        peers[i].there = i % 3 != 0;
    }
    say_all(text);
    apply(s, text);
    bring_up(s, &im);
    for (int step = 0; step < STEPS; step++) {
        for (int n = roll(3); n >= 0; n--) {
            say_something(text);
            apply(s, text);
        }
        bring_up(s, &im);
        compare(s, &im);
        if (step % 4 == 0)
            compare_fresh(s, &im, text);
        if (kept == NULL && roll(4) == 0) {
            kept = map_state_netmap(s, &settings);
            before = text_of(kept);
        } else if (kept != NULL && roll(8) == 0) {
            after = text_of(kept);
            same_text(before, after);
            free(before);
            free(after);
            netmap_free(kept);
            kept = NULL;
        }
    }
    print_message("# %u carried over, %u built\n", im.carried, im.built);
    assert_true(im.carried > STEPS / 2);
    assert_true(im.built < STEPS / 100);
    if (kept != NULL) {
        free(before);
        netmap_free(kept);
    }
    netmap_free(im.nm);
    map_state_free(s);
    publish_edit_free(&im.index);
    close(im.fd);
    free(text);
}

/* Without a follower, or with one that is gone, there is nothing to update. */
static void
no_follower(void **state)
{
    struct map_state *s = map_state_new();
    char *text = malloc(TEXT);
    struct netmap_changes c;
    struct netmap *nm;

    (void)state;
    for (int i = 0; i < PEERS; i++)
        renew(i);
    say_all(text);
    assert_false(map_state_update(s, &settings, &c));
    apply(s, text);
    assert_false(map_state_update(s, &settings, &c));
    nm = map_state_netmap(s, &settings);
    assert_false(map_state_update(s, &settings, &c));
    map_state_follow(s, nm);
    assert_true(map_state_update(s, &settings, &c));
    assert_int_equal(c.ngone + c.nadded + c.nrows, 0);
    apply(s, "{\"OnlineChange\":{\"3\":false,\"4\":true,\"99\":true}}");
    apply(s, "{\"OnlineChange\":{\"3\":true}}");
    assert_true(map_state_update(s, &settings, &c));
    assert_int_equal(c.nrows, 2);
    assert_int_equal(nm->peers[c.rows[0]].id + nm->peers[c.rows[1]].id, 7);
    map_state_begin(s); /* a new stream says all again */
    apply(s, text);
    assert_false(map_state_update(s, &settings, &c));
    netmap_free(nm);
    apply(s, "{\"OnlineChange\":{\"3\":true}}");
    assert_false(map_state_update(s, &settings, &c));
    map_state_free(s);
    free(text);
}

/* ControlDialPlan: by priority, what came first first; no more than fit; also
 * beside KeepAlive. */
static void
dial_plan(void **state)
{
    static const char text[] =
        "{\"KeepAlive\":true,\"ControlDialPlan\":{\"Candidates\":["
        "{\"IP\":\"192.0.2.1\",\"Priority\":1},{\"IP\":\"nowhere\"},"
        "{\"ACEHost\":\"ace.test\"},7,{\"IP\":\"2001:db8::1\",\"Priority\":9},"
        "{\"IP\":\"192.0.2.2\",\"Priority\":1},{\"IP\":\"192.0.2.3\"},"
        "{\"IP\":\"192.0.2.4\"},{\"IP\":\"192.0.2.5\"},"
        "{\"IP\":\"192.0.2.6\"},{\"IP\":\"192.0.2.7\"},"
        "{\"IP\":\"192.0.2.8\"},{\"IP\":\"192.0.2.9\",\"Priority\":2}]}}";
    static const char *const want[] = {"2001:db8::1", "192.0.2.9", "192.0.2.1",
        "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"};
    struct map_json_error err;
    struct map_delta d;
    char got[TN_ADDR_STRLEN];

    (void)state;
    assert_int_equal(map_json_delta(text, sizeof(text) - 1, NULL, &d, &err), 0);
    assert_true(d.has_plan);
    assert_int_equal(d.plan.n, MAP_PLAN_MAX);
    for (size_t i = 0; i < MAP_PLAN_MAX; i++) {
        tn_addr_format(&d.plan.addrs[i], got);
        assert_string_equal(got, want[i]);
    }
    map_delta_clear(&d);
    assert_int_equal(
        map_json_delta("{\"KeepAlive\":true}", 18, NULL, &d, &err), 0);
    assert_false(d.has_plan);
    map_delta_clear(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carried_over),
        cmocka_unit_test(no_follower),
        cmocka_unit_test(dial_plan),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

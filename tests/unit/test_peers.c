/* links: tailnetd/engine/peers.c tailnetd/engine/netmap.c core/tn_addr.c */
/* links: tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* links: tailnetd/wg/allowedips.c tailnetd/wg/cookie.c tailnetd/wg/device.c */
/* links: tailnetd/wg/handshake.c tailnetd/wg/index.c tailnetd/wg/peer.c */
/* links: tailnetd/wg/receive.c tailnetd/wg/replay.c tailnetd/wg/send.c */
/* links: tailnetd/wg/timers.c */
/* libs: -lsodium -lcrypto */
/*
 * test_peers.c: after any changes of a netmap the device has the peers that it
 * would have if all of them had been applied anew, and each of them leads to
 * its row; who only becomes another keeps what it was talking with.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../ngx_tailnet_module/tailnetd/engine/node.h"
#include "../../ngx_tailnet_module/tailnetd/engine/peers.h"
#include "../../ngx_tailnet_module/tailnetd/engine/reach.h"
#include "../../ngx_tailnet_module/tailnetd/loop.h"
#include "../../ngx_tailnet_module/tailnetd/source/file.h"

#define HOSTS   60
#define CHANGES 8
#define STEPS   20000

/* What a row points to, twice: one that becomes another has other lists. */
struct host {
    bool there;
    unsigned row, turn;
    struct tn_prefix addresses[2][2], routes[2][3];
};

static struct host hosts[HOSTS];
static struct netmap_node rows[HOSTS];
static struct netmap nm = {.peers = rows};
static struct netmap_gone gone[CHANGES];
static uint32_t changed[CHANGES];
static struct netmap_changes news;
static struct node node;
static unsigned seed = 1, cleared;
static char magic, filter;
static struct {
    struct tn_addr a[16];
    unsigned n;
} forgotten;

/* ---- fakes ---- */

uint64_t
loop_now(void)
{
    return 1000;
}

const struct hot_peer *
hot_peer(
    const struct hot *h, const char *name, const uint8_t key[32], int64_t now)
{
    (void)h;
    (void)name;
    (void)key;
    (void)now;
    return NULL;
}

const uint8_t *
source_file_psk(const struct source_file_psks *psks, const uint8_t key[32])
{
    (void)psks;
    (void)key;
    return NULL;
}

void
reach_set(struct node *n, struct node_peer *np, const struct netmap_node *row,
    const struct hot_peer *hot)
{
    assert_ptr_equal(n, &node);
    assert_null(hot);
    np->way.row = row;
}

void
magic_peer_clear(struct magic *m, struct magic_peer *p)
{
    (void)m;
    p->row = NULL;
    cleared++;
}

void
filter_forget(struct filter *f, const struct tn_addr *a)
{
    (void)f;
    for (unsigned i = 0; i < forgotten.n; i++)
        if (tn_addr_equal(&forgotten.a[i], a))
            return;
    assert_true(forgotten.n < 16);
    forgotten.a[forgotten.n++] = *a;
}

static void
output(void *ctx, struct wg_peer *peer, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len)
{
    (void)ctx;
    (void)peer;
    (void)dst;
    (void)msg;
    (void)len;
}

static void
any_bytes(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(i + 7);
}

static int
roll(int n)
{
    seed = seed * 1103515245u + 12345u;
    return (int)((seed >> 8) % (unsigned)n);
}

/* ---- a netmap that changes as netmap.h says ---- */

static struct tn_prefix
address(unsigned number)
{
    const uint8_t b[4] = {100, 64, (uint8_t)(number >> 8), (uint8_t)number};

    return (struct tn_prefix){tn_addr_from4(b), 128};
}

/* Host ${i} as it is, or as another with the key it had. */
static struct netmap_node
make_row(unsigned i)
{
    struct host *h = &hosts[i];
    struct netmap_node row = {.id = i + 1, .has_key = true};
    unsigned t = h->turn++ & 1;
    const uint8_t range[4] = {10, (uint8_t)i, 0, 0};

    row.key[0] = (uint8_t)(i + 1);
    row.key[31] = 1;
    row.key_expiry = roll(6) == 0 ? 1 : 0;
    row.addresses = h->addresses[t];
    row.naddresses = 1;
    /* Its own, or one of those that are nobody's own. */
    row.addresses[0] = address(i);
    if (roll(2)) {
        row.addresses[1] = address(1000 + i);
        row.naddresses = 2;
    }
    row.allowed_ips = h->routes[t];
    row.allowed_ips[0] = (struct tn_prefix){tn_addr_from4(range), 112};
    row.nallowed_ips = (unsigned)roll(2);
    return row;
}

static void
goes(unsigned i)
{
    struct netmap_gone *g = &gone[news.ngone++];
    unsigned row = hosts[i].row;

    g->row = row;
    memcpy(g->key, rows[row].key, 32);
    g->addresses = rows[row].addresses;
    g->naddresses = rows[row].naddresses;
    rows[row] = rows[--nm.npeers];
    hosts[rows[row].id - 1].row = row;
    hosts[i].there = false;
}

static void
comes(unsigned i)
{
    hosts[i].there = true;
    hosts[i].row = nm.npeers;
    rows[nm.npeers++] = make_row(i);
    news.nadded++;
}

/* Some go, some of them come again, others come or change. */
static void
change(void)
{
    unsigned i, n = (unsigned)roll(4), back[4], nback = 0;

    memset(&news, 0, sizeof(news));
    news.gone = gone;
    news.rows = changed;
    for (unsigned k = 0; k < n; k++) {
        i = (unsigned)roll(HOSTS);
        if (!hosts[i].there)
            continue;
        goes(i);
        if (roll(2))
            back[nback++] = i;
    }
    n = (unsigned)roll(3);
    for (unsigned k = 0; k < n && nm.npeers > 0; k++) {
        i = (unsigned)roll((int)nm.npeers);
        rows[i].key_expiry = roll(3) == 0 ? 1 : 0;
        changed[news.nrows++] = i;
    }
    while (nback > 0)
        comes(back[--nback]);
    i = (unsigned)roll(HOSTS);
    if (!hosts[i].there)
        comes(i);
}

/* ---- what the device has ---- */

static struct node_peer *
to(struct tn_addr a)
{
    struct wg_peer *p = wg_route(node.wg, &a);

    return p == NULL ? NULL : wg_peer_data(p);
}

static void
check(void)
{
    static const uint8_t zero[32];
    unsigned n = 0, talkers = 0;
    struct node_peer *np, **at = &node.peers;

    for (np = node.peers; np != NULL; at = &np->next, np = np->next) {
        assert_ptr_equal(np->at, at);
        assert_true(np->kept);
        assert_ptr_equal(np->self, np->way.row);
        assert_memory_equal(wg_peer_key(np->peer), np->self->key, 32);
        n++;
    }
    for (unsigned i = 0; i < nm.npeers; i++) {
        const struct netmap_node *row = &rows[i];
        struct wg_peer *p = wg_peer_by_key(node.wg, row->key);

        assert_int_equal(p != NULL, row->key_expiry == 0);
        talkers += p != NULL;
        if (p != NULL)
            assert_ptr_equal(((struct node_peer *)wg_peer_data(p))->self, row);
        for (unsigned k = 0; k < row->naddresses; k++) {
            np = to(row->addresses[k].addr);
            assert_non_null(np);
            assert_memory_equal(
                wg_peer_key(np->peer), p == NULL ? zero : row->key, 32);
        }
        if (row->nallowed_ips > 0)
            assert_true((to(row->allowed_ips[0].addr) != NULL) == (p != NULL));
    }
    assert_int_equal(n, talkers + 1); /* and nobody */
    for (unsigned i = 0; i < HOSTS; i++) {
        if (!hosts[i].there)
            assert_null(to(address(i).addr));
        if (!hosts[i].there || rows[hosts[i].row].naddresses < 2)
            assert_null(to(address(1000 + i).addr));
    }
}

static void
begin(void)
{
    struct wg_config c = {.private_key = {9},
        .timing = wg_timing_default,
        .mtu = 1280,
        .ops = {.output = output, .random = any_bytes}};

    memset(&node, 0, sizeof(node));
    memset(hosts, 0, sizeof(hosts));
    memset(&news, 0, sizeof(news));
    nm.npeers = 0;
    node.wg = wg_device_new(&c, 0);
    assert_non_null(node.wg);
    node.netmap = &nm;
    node.resumed = true;
    node.magic = (struct magic *)(void *)&magic;
    node.filter = (struct filter *)(void *)&filter;
    for (unsigned i = 0; i < HOSTS; i += 2)
        comes(i);
    assert_int_equal(peers_apply(&node, &nm), 0);
    check();
}

static void
end(void)
{
    peers_drop(&node, true);
    assert_null(node.peers);
    wg_device_free(node.wg);
}

static void
random_changes(void **state)
{
    (void)state;
    begin();
    for (int step = 0; step < STEPS; step++) {
        change();
        forgotten.n = 0;
        assert_int_equal(peers_update(&node, &news), 0);
        check();
        if (step % 1000 == 0) { /* the same as all of them at once */
            assert_int_equal(peers_apply(&node, &nm), 0);
            check();
        }
    }
    assert_true(cleared > STEPS / 4);
    end();
}

/* Time goes on for those whose keys then have expired. */
static void
keys_end(void **state)
{
    static uint32_t ended[PEERS_ENDED_MAX];
    int64_t now = time(NULL);
    struct netmap_changes c;
    unsigned total = 0;

    (void)state;
    begin();
    for (int step = 0; step < 2000; step++) {
        unsigned n = 0;

        change();
        forgotten.n = 0;
        assert_int_equal(peers_update(&node, &news), 0);
        for (unsigned i = 0; i < nm.npeers; i++)
            if (rows[i].key_expiry == 0 && rows[i].nallowed_ips == 0 &&
                roll(8) == 0) {
                rows[i].key_expiry = now - 5 + roll(6);
                n++;
            }
        assert_true(peers_ended(&node, now - 6, now, ended, &c));
        assert_int_equal(c.nrows, n);
        assert_int_equal(c.ngone + c.nadded, 0);
        forgotten.n = 0;
        assert_int_equal(peers_update(&node, &c), 0);
        check();
        total += n;
        for (unsigned i = 0; i < n; i++)
            rows[ended[i]].key_expiry = 1; /* long ago, then */
    }
    assert_true(total > 500);
    end();
}

/* One by one is not for all that happens. */
static void
keys_end_too(void **state)
{
    static struct netmap_node many[PEERS_ENDED_MAX + 1];
    static uint32_t ended[PEERS_ENDED_MAX];
    struct tn_prefix own = address(1), range = {own.addr, 112};
    struct netmap all = {.peers = many, .npeers = PEERS_ENDED_MAX};
    struct node n = {.netmap = &all};
    struct netmap_changes c;

    (void)state;
    for (unsigned i = 0; i <= PEERS_ENDED_MAX; i++)
        many[i].key_expiry = 100;
    assert_true(peers_ended(&n, 99, 100, ended, &c));
    assert_int_equal(c.nrows, PEERS_ENDED_MAX);
    all.npeers++;
    assert_false(peers_ended(&n, 99, 100, ended, &c));
    assert_true(peers_ended(&n, 100, 101, ended, &c));
    assert_true(peers_ended(&n, 98, 99, ended, &c));

    all.npeers = 1;
    many[0].addresses = many[0].allowed_ips = &own;
    many[0].naddresses = many[0].nallowed_ips = 1;
    assert_true(peers_ended(&n, 99, 100, ended, &c));
    many[0].allowed_ips = &range;
    assert_false(peers_ended(&n, 99, 100, ended, &c));
}

/* Another name, or other tags: who has a session goes on with it. */
static void
becomes_another(void **state)
{
    const struct tn_endpoint e = {address(5).addr, 4242};
    struct node_peer *np;
    unsigned had;

    (void)state;
    begin();
    rows[hosts[4].row].key_expiry = 0;
    assert_int_equal(peers_apply(&node, &nm), 0);
    np = to(address(4).addr);
    wg_peer_set_endpoint(np->peer, &e);
    had = cleared;
    memset(&news, 0, sizeof(news));
    news.gone = gone;
    goes(4);
    comes(4);
    rows[hosts[4].row].key_expiry = 0;
    assert_int_equal(peers_update(&node, &news), 0);
    assert_ptr_equal(to(address(4).addr), np);
    assert_ptr_equal(np->self, &rows[hosts[4].row]);
    assert_int_equal(wg_peer_endpoint(np->peer).port, 4242);
    assert_int_equal(cleared, had);
    end();
}

/* Whoever has the addresses next gets no answers to this one. */
static void
flows_end(void **state)
{
    const struct tn_prefix own = address(4);
    unsigned naddresses;

    (void)state;
    begin();
    rows[hosts[4].row].key_expiry = rows[hosts[6].row].key_expiry = 0;
    assert_int_equal(peers_apply(&node, &nm), 0);
    naddresses = rows[hosts[4].row].naddresses;
    memset(&news, 0, sizeof(news));
    news.gone = gone;
    goes(6);
    goes(4);
    comes(6);
    rows[hosts[6].row].key_expiry = 0;
    forgotten.n = 0;
    assert_int_equal(peers_update(&node, &news), 0);
    assert_int_equal(forgotten.n, naddresses);
    assert_true(tn_addr_equal(&forgotten.a[0], &own.addr));
    end();
}

/* Peer 4, whose key had expired, goes; then peer 6 has other addresses under
 * its key: piecemeal, or in a whole netmap. */
static void
flows_end_too(void **state)
{
    const struct tn_prefix four = address(4), six = address(6);
    struct netmap_node other;
    bool whole = *state != NULL;

    begin();
    rows[hosts[4].row].key_expiry = rows[hosts[6].row].key_expiry = 0;
    assert_int_equal(peers_apply(&node, &nm), 0);
    memset(&news, 0, sizeof(news));
    news.gone = gone;
    news.rows = changed;
    changed[news.nrows++] = hosts[4].row;
    rows[hosts[4].row].key_expiry = 1;
    rows[hosts[4].row].naddresses = 1;
    forgotten.n = 0;
    assert_int_equal(peers_update(&node, &news), 0);
    assert_int_equal(forgotten.n, 1);
    assert_true(tn_addr_equal(&forgotten.a[0], &four.addr));

    forgotten.n = 0;
    if (whole) {
        static struct netmap_node copy[HOSTS];
        struct netmap next = {.peers = copy, .npeers = nm.npeers};

        memcpy(copy, rows, sizeof(copy));
        other = make_row(6);
        other.key_expiry = 0;
        other.addresses[0] = address(2000);
        other.naddresses = 1;
        rows[hosts[6].row].naddresses = 1;
        copy[hosts[6].row] = other;
        assert_int_equal(peers_apply(&node, &next), 0);
    } else {
        memset(&news, 0, sizeof(news));
        news.gone = gone;
        rows[hosts[6].row].naddresses = 1;
        goes(6);
        comes(6);
        rows[hosts[6].row].key_expiry = 0;
        rows[hosts[6].row].addresses[0] = address(2000);
        rows[hosts[6].row].naddresses = 1;
        assert_int_equal(peers_update(&node, &news), 0);
    }
    assert_int_equal(forgotten.n, 1);
    assert_true(tn_addr_equal(&forgotten.a[0], &six.addr));
    end();
}

static char at_once[] = "all at once";

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes),
        cmocka_unit_test(keys_end),
        cmocka_unit_test(keys_end_too),
        cmocka_unit_test(becomes_another),
        cmocka_unit_test(flows_end),
        cmocka_unit_test(flows_end_too),
        cmocka_unit_test_prestate(flows_end_too, at_once),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "reach.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "../loop.h"
#include "../magic/magic.h"
#include "../magic/masq.h"
#include "../magic/tsmp.h"
#include "echo.h"
#include "failure.h"
#include "node.h"

#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 1000 /* twice the delay before, up to this */

static struct node_peer *
peer_of(struct magic_peer *p)
{
    return (struct node_peer *)((char *)p - offsetof(struct node_peer, way));
}

/* ---- what magic asks for ---- */

static void
op_send(void *ctx, const struct tn_endpoint *to, const uint8_t *msg, size_t len)
{
    struct node *n = ctx;

    pump_send(n->pump, to, msg, len);
}

static void
op_flush(void *ctx)
{
    node_flush(ctx);
}

static void
op_wireguard(void *ctx, uint8_t *msg, size_t len, const struct tn_endpoint *src)
{
    struct node *n = ctx;

    node_receive(n, msg, len, src, loop_now());
    /* Inner packets lie in the relay's buffer, where the next one comes to. */
    pump_flush(n->pump);
}

static void
op_moved(void *ctx, struct magic_peer *p, const struct tn_endpoint *e)
{
    struct node_peer *np = peer_of(p);

    (void)ctx;
    wg_peer_set_endpoint(np->peer, e);
    np->seen = 0; /* for hot.h it is news */
}

static void
op_announce(void *ctx)
{
    struct node *n = ctx;
    const struct message_endpoint *list;
    size_t count;

    if (n->join == NULL)
        return;
    list = magic_endpoints(n->magic, &count);
    control_set_endpoints(join_control(n->join), list, count);
    control_set_netinfo(join_control(n->join), magic_netinfo(n->magic));
}

static void
op_network(void *ctx)
{
    struct node *n = ctx;

    if (n->join != NULL)
        control_network_changed(join_control(n->join));
}

static bool
op_pong(void *ctx, struct magic_peer *p, const uint8_t txid[12],
    const struct tn_endpoint *src)
{
    return echo_disco(ctx, peer_of(p), txid, src);
}

/*
 * Under a new key the first handshakes go out before the relay knows it, and
 * before every peer does.  A peer that has no path to it yet answers by that
 * relay, in vain.  What is still not answered is asked again, not at once: what
 * waited for the relay goes out now.
 */
static void
op_rekeyed(void *ctx)
{
    struct node *n = ctx;

    n->retry_ms = RETRY_MIN_MS;
    loop_timer_set(n->retry_timer, loop_now() + n->retry_ms);
}

void
reach_resumed(struct node *n)
{
    if (n->magic != NULL)
        op_rekeyed(n);
}

static void
retry(void *arg)
{
    struct node *n = arg;
    struct node_peer *np;
    uint64_t now = loop_now();

    for (np = n->peers; n->wg != NULL && np != NULL; np = np->next)
        wg_retry(n->wg, np->peer, now);
    node_flush(n);
    n->retry_ms *= 2;
    loop_timer_set(n->retry_timer,
        n->retry_ms > RETRY_MAX_MS ? UINT64_MAX : now + n->retry_ms);
}

static const struct magic_ops ops = {op_send, op_flush, op_wireguard, op_moved,
    op_announce, op_network, op_rekeyed, op_pong};

void
reach_announce(struct node *n)
{
    const struct tn_endpoint *e;
    size_t count;

    e = join_endpoints(n->join, &count);
    magic_explicit(n->magic, e, count);
    control_set_disco(join_control(n->join), magic_disco(n->magic));
    op_announce(n);
}

int
reach_begin(struct node *n)
{
    struct magic_config c = {.node = n->name,
        .private_key = n->private_key,
        .disco = n->hot_row->disco,
        .home = &n->hot_row->home,
        .port = {node_udp_port(n->fds.udp4), node_udp_port(n->fds.udp6)},
        .trust = tls_trust_ref(join_trust(n->join))};

    n->trust = c.trust;
    n->retry_timer = loop_timer_new(retry, n);
    if (n->retry_timer == NULL || c.trust == NULL ||
        (n->magic = magic_new(&c, &ops, n)) == NULL) {
        reach_end(n); /* it may be begun again */
        return -1;
    }
    reach_announce(n);
    return 0;
}

void
reach_end(struct node *n)
{
    magic_free(n->magic);
    n->magic = NULL;
    loop_timer_free(n->retry_timer);
    n->retry_timer = NULL;
    tls_trust_free(n->trust);
    n->trust = NULL;
}

void
reach_set(struct node *n, struct node_peer *np, const struct netmap_node *row,
    const struct hot_peer *hot)
{
    struct tn_endpoint e;

    magic_peer_set(n->magic, &np->way, row);
    if (hot == NULL)
        return;
    e = (struct tn_endpoint){hot->addr, hot->port};
    magic_peer_resume(n->magic, &np->way, &e, hot->region);
}

void
reach_heard(struct node *n, struct node_peer *np, int64_t now)
{
    struct tn_endpoint e = wg_peer_endpoint(np->peer);
    uint16_t region = derp_region(&e);

    if (region != 0)
        hot_saw_relay(n->hot, n->name, wg_peer_key(np->peer), region, now);
    else if (e.port != 0)
        hot_saw(n->hot, n->name, wg_peer_key(np->peer), &e, now);
}

struct node_peer *
reach_stranger(struct node *n, const struct tn_endpoint *src)
{
    const uint8_t *key = magic_relay_sender(n->magic);
    struct wg_peer *peer = key == NULL ? NULL : wg_peer_by_key(n->wg, key);
    struct node_peer *np = peer == NULL ? NULL : wg_peer_data(peer);
    static const struct tn_endpoint none;

    if (key == NULL)
        for (np = n->peers; np != NULL && !netmap_has_endpoint(np->self, src);)
            np = np->next;
    if (np != NULL && magic_way(n->magic, &np->way).at.port == 0)
        magic_peer_resume(
            n->magic, &np->way, key == NULL ? src : &none, derp_region(src));
    return np;
}

/* ---- messages between nodes ---- */

static bool
is_address_of(const struct netmap_node *row, const struct tn_addr *a)
{
    unsigned i;

    for (i = 0; i < row->naddresses; i++)
        if (row->addresses[i].bits == 128 &&
            tn_addr_equal(&row->addresses[i].addr, a))
            return true;
    return false;
}

/* What a message needs around it. */
struct room {
    uint8_t b[WG_HEADROOM + TSMP_MAX_LEN + WG_TAILROOM];
};

static void
send_message(struct node *n, struct room *r, size_t len)
{
    if (n->masked)
        reach_mask(n, r->b + WG_HEADROOM, len);
    wg_send(n->wg, r->b + WG_HEADROOM, len, loop_now());
}

static void
answer(struct node *n, const struct tsmp *t)
{
    struct room r;

    send_message(
        n, &r, tsmp_ping(r.b + WG_HEADROOM, &t->dst, &t->src, t->data, true));
}

void
reach_refuse(struct node *n, const uint8_t *packet, size_t len)
{
    struct room r;
    size_t said = tsmp_refuse(r.b + WG_HEADROOM, packet, len);

    if (said > 0)
        send_message(n, &r, said);
}

bool
reach_message(
    struct node *n, struct node_peer *np, const uint8_t *packet, size_t len)
{
    struct tsmp t;

    if (!tsmp_read(&t, packet, len))
        return false;
    switch (t.type) {
    case TSMP_PING:
        if (is_address_of(&n->netmap->self, &t.dst))
            answer(n, &t);
        break;
    case TSMP_PONG:
        echo_tsmp(n, &t);
        break;
    case TSMP_REJECT:
        failure_refusal(n, np, &t, loop_now());
        break;
    case TSMP_DISCO:
        if (is_address_of(np->self, &t.src))
            magic_peer_disco(n->magic, &np->way, t.disco);
        break;
    default:
        break;
    }
    return true;
}

/* ---- other addresses ---- */

/* Ours of that family; NULL: none. */
static const struct tn_addr *
own_address(const struct node *n, bool six)
{
    const struct netmap_node *self = &n->netmap->self;
    unsigned i;

    for (i = 0; i < self->naddresses; i++)
        if (self->addresses[i].bits == 128 &&
            tn_addr_is4(&self->addresses[i].addr) != six)
            return &self->addresses[i].addr;
    return NULL;
}

void
reach_unmask(struct node *n, struct node_peer *np, uint8_t *packet, size_t len)
{
    bool six = len > 0 && packet[0] >> 4 == 6;
    const struct tn_addr *own;

    if (!np->self->has_masq[six])
        return;
    own = own_address(n, six);
    if (own != NULL)
        (void)masq_destination(packet, len, &np->self->masq[six], own);
}

void
reach_mask(struct node *n, uint8_t *packet, size_t len)
{
    bool six = len > 0 && packet[0] >> 4 == 6;
    const struct tn_addr *own = own_address(n, six);
    const struct node_peer *np;
    struct wg_peer *peer;
    struct tn_addr dst;

    if (own == NULL || len < (six ? 40u : 20u))
        return;
    dst = six ? tn_addr_from6(packet + 24) : tn_addr_from4(packet + 16);
    peer = wg_route(n->wg, &dst);
    np = peer == NULL ? NULL : wg_peer_data(peer);
    if (np != NULL && np->self->has_masq[six])
        (void)masq_source(packet, len, own, &np->self->masq[six]);
}

bool
reach_forged(const uint8_t *packet, size_t len)
{
    struct tsmp t;

    return tsmp_read(&t, packet, len);
}

/*
 * wg_net.h: a network in one struct, for tests of WireGuard devices.
 *
 *   node 0                                              node 1
 *   100.64.0.1                                          100.64.0.2
 *   192.0.2.1:51820  ---- filter, delay, queue ----  192.0.2.2:51820
 *
 * Time is virtual: net_run() jumps from event to event.  Datagrams are kept
 * and counted per sender; what a node delivers is kept as well.
 */
#ifndef WG_NET_H
#define WG_NET_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/wg/device.h"
#include "../../ngx_tailnet_module/tailnetd/wg/msg.h"

#define NET_NODES    2
#define NET_QUEUE    4096
#define NET_LOG      65536
#define NET_DATAGRAM 2048
#define NET_DELAY    1
#define NET_START    1000000
#define NET_WALL     UINT64_C(1700000000) /* at NET_START, seconds */
#define NET_FOREVER  UINT64_MAX

struct net;

struct net_datagram {
    uint64_t at;
    int from, to;
    struct tn_endpoint src;
    size_t len;
    uint8_t msg[NET_DATAGRAM + 16];
};

struct net_sent {
    uint64_t at;
    uint32_t type;
    size_t len;
};

struct net_node {
    struct net *net;
    int id;
    struct wg_device *device;
    struct wg_peer *peer; /* the other node */
    uint8_t key[32];
    struct tn_endpoint self;
    int64_t wall_offset; /* of its clock, seconds */

    const uint8_t *script; /* random bytes to come, before real ones */
    size_t script_len;

    struct net_sent *sent;
    size_t sent_count;
    uint64_t received; /* datagrams that came in */
    uint64_t delivered;
    uint8_t last[NET_DATAGRAM]; /* last packet delivered */
    size_t last_len;
    bool refuse_roaming;
    unsigned failures[WG_FAILURE_SILENCE + 1];
    uint8_t failed_key[32]; /* of the last one, zero: none was told */
    struct tn_endpoint failed_at;
    unsigned roam_calls;
    void (*on_deliver)(struct net_node *n, uint8_t *packet, size_t len);
    void (*on_output)(struct net_node *n, struct wg_peer *p,
        const struct tn_endpoint *dst, const uint8_t *msg, size_t len);
};

struct net {
    uint64_t now;
    uint64_t rng;
    struct net_node node[NET_NODES];
    struct net_datagram *queue;
    size_t queued;
    /* Whether a datagram gets through; NULL: all do. */
    bool (*filter)(struct net *net, int from, const uint8_t *msg, size_t len);
    unsigned loss, duplicate, reorder; /* percent */
    bool deaf[NET_NODES];              /* nothing reaches this node */
};

static inline uint64_t
net_random(struct net *net)
{
    net->rng += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = net->rng;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline void
net_op_random(void *ctx, uint8_t *buf, size_t len)
{
    struct net_node *n = ctx;

    for (size_t i = 0; i < len; i++) {
        if (n->script_len > 0) {
            buf[i] = *n->script++;
            n->script_len--;
        } else {
            buf[i] = (uint8_t)net_random(n->net);
        }
    }
}

static inline void
net_op_realtime(void *ctx, uint64_t *sec, uint32_t *nsec)
{
    struct net_node *n = ctx;
    uint64_t ms = n->net->now - NET_START;

    *sec = NET_WALL + (uint64_t)n->wall_offset + ms / 1000;
    *nsec = 305419896 + (uint32_t)(ms % 1000) * 500000;
}

static inline bool
net_op_roam(void *ctx, struct wg_peer *p, const struct tn_endpoint *src)
{
    struct net_node *n = ctx;

    (void)p;
    (void)src;
    n->roam_calls++;
    return !n->refuse_roaming;
}

static inline void
net_op_failed(void *ctx, enum wg_failure why, const uint8_t *key,
    const struct tn_endpoint *at, uint64_t now)
{
    struct net_node *n = ctx;

    assert_int_equal(now, n->net->now);
    assert_int_equal(key == NULL, why == WG_FAILURE_MAC1);
    n->failures[why]++;
    memset(n->failed_key, 0, 32);
    if (key != NULL)
        memcpy(n->failed_key, key, 32);
    n->failed_at = *at;
}

static inline void
net_op_deliver(void *ctx, struct wg_peer *p, uint8_t *packet, size_t len)
{
    struct net_node *n = ctx;

    assert_ptr_equal(wg_peer_data(p), n);
    n->delivered++;
    assert_true(len <= sizeof(n->last));
    memcpy(n->last, packet, len);
    n->last_len = len;
    if (n->on_deliver != NULL)
        n->on_deliver(n, packet, len);
}

static inline void
net_enqueue(struct net *net, int from, int to, const uint8_t *msg, size_t len,
    uint64_t delay)
{
    struct net_datagram *g = &net->queue[net->queued++];

    assert_true(net->queued < NET_QUEUE);
    g->at = net->now + delay;
    g->from = from;
    g->to = to;
    g->src = net->node[from].self;
    g->len = len;
    memcpy(g->msg, msg, len);
}

static inline void
net_op_output(void *ctx, struct wg_peer *p, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len)
{
    struct net_node *n = ctx;
    struct net *net = n->net;
    struct net_sent *s = &n->sent[n->sent_count++ % NET_LOG];
    uint64_t delay = NET_DELAY;

    s->at = net->now;
    s->type = msg_get32(msg);
    s->len = len;
    assert_true(len <= NET_DATAGRAM);
    assert_true((p == NULL) == (s->type == MSG_COOKIE));
    if (n->on_output != NULL)
        n->on_output(n, p, dst, msg, len);
    if (net->filter != NULL && !net->filter(net, n->id, msg, len))
        return;
    if (net_random(net) % 100 < net->loss)
        return;
    if (net_random(net) % 100 < net->reorder)
        delay += net_random(net) % 300;
    for (int to = 0; to < NET_NODES; to++) {
        const struct tn_endpoint *self = &net->node[to].self;

        if (self->port != dst->port ||
            !tn_addr_equal(&self->addr, &dst->addr) || net->deaf[to])
            continue;
        net_enqueue(net, n->id, to, msg, len, delay);
        if (net_random(net) % 100 < net->duplicate)
            net_enqueue(net, n->id, to, msg, len, delay + 7);
    }
}

static inline struct tn_addr
net_inner(int id)
{
    return tn_addr_from4((const uint8_t[]){100, 64, 0, (uint8_t)(id + 1)});
}

static inline struct wg_config
net_config(struct net_node *n, uint8_t seed)
{
    struct wg_config c = {.timing = wg_timing_default, .mtu = 1280};

    for (int i = 0; i < 32; i++)
        c.private_key[i] = (uint8_t)(seed + i);
    c.ops.output = net_op_output;
    c.ops.deliver = net_op_deliver;
    c.ops.roam = net_op_roam;
    c.ops.failed = net_op_failed;
    c.ops.random = net_op_random;
    c.ops.realtime = net_op_realtime;
    c.ctx = n;
    return c;
}

/* Node ${id} knows the other one's key and inner address. */
static inline void
net_introduce(struct net *net, int id)
{
    struct net_node *n = &net->node[id], *other = &net->node[!id];
    struct tn_prefix p = {net_inner(!id), 128};

    n->peer = wg_peer_add(n->device, other->key, n, net->now);
    assert_non_null(n->peer);
    assert_int_equal(wg_peer_set_allowed_ips(n->device, n->peer, &p, 1), 0);
    wg_peer_set_endpoint(n->peer, &other->self);
}

/* Two devices that know each other, with ${timing} (NULL: the real one). */
static inline struct net *
net_new(const struct wg_timing *timing)
{
    static const uint8_t seeds[NET_NODES] = {0x10, 0x50};
    struct net *net = test_calloc(1, sizeof(*net));

    net->now = NET_START;
    net->queue = test_calloc(NET_QUEUE, sizeof(*net->queue));
    for (int i = 0; i < NET_NODES; i++) {
        struct net_node *n = &net->node[i];
        struct wg_config c = net_config(n, seeds[i]);

        n->net = net;
        n->id = i;
        n->sent = test_calloc(NET_LOG, sizeof(*n->sent));
        n->self.addr = tn_addr_from4(
            (const uint8_t[]){192, 0, 2, (uint8_t)(i + 1)});
        n->self.port = 51820;
        if (timing != NULL)
            c.timing = *timing;
        n->device = wg_device_new(&c, net->now);
        assert_non_null(n->device);
        wg_device_public_key(n->device, n->key);
    }
    net_introduce(net, 0);
    net_introduce(net, 1);
    return net;
}

static inline void
net_free(struct net *net)
{
    for (int i = 0; i < NET_NODES; i++) {
        wg_device_free(net->node[i].device);
        test_free(net->node[i].sent);
    }
    test_free(net->queue);
    test_free(net);
}

/* Hand datagram ${msg} to node ${to} as if it came from ${src}. */
static inline void
net_inject(struct net *net, int to, const struct tn_endpoint *src,
    const uint8_t *msg, size_t len)
{
    uint8_t *copy = test_malloc(len + 16);

    memcpy(copy, msg, len);
    net->node[to].received++;
    wg_receive(net->node[to].device, copy, len, src, net->now);
    test_free(copy);
}

/* Hand over the first datagram that is due. */
static inline bool
net_deliver_one(struct net *net)
{
    size_t first = 0;
    struct net_datagram g;

    for (size_t i = 1; i < net->queued; i++)
        if (net->queue[i].at < net->queue[first].at)
            first = i;
    if (net->queued == 0 || net->queue[first].at > net->now)
        return false;
    g = net->queue[first];
    memmove(&net->queue[first], &net->queue[first + 1],
        (--net->queued - first) * sizeof(g));
    net_inject(net, g.to, &g.src, g.msg, g.len);
    return true;
}

/* Let time pass until ${until}, every event in its place. */
static inline void
net_run(struct net *net, uint64_t until)
{
    for (;;) {
        uint64_t next = until;

        while (net_deliver_one(net))
            continue;
        for (int i = 0; i < NET_NODES; i++)
            if (wg_next_deadline(net->node[i].device) <= net->now)
                wg_tick(net->node[i].device, net->now);
        for (int i = 0; i < NET_NODES; i++)
            if (wg_next_deadline(net->node[i].device) < next)
                next = wg_next_deadline(net->node[i].device);
        for (size_t i = 0; i < net->queued; i++)
            if (net->queue[i].at < next)
                next = net->queue[i].at;
        if (next >= until && net->now >= until)
            return;
        net->now = next > net->now ? next : net->now;
    }
}

static inline void
net_pass(struct net *net, uint64_t ms)
{
    net_run(net, net->now + ms);
}

/* An IPv4 packet of ${len} >= 24 bytes with ${serial} in its payload. */
static inline void
net_packet(uint8_t *p, size_t len, const struct tn_addr *src,
    const struct tn_addr *dst, uint32_t serial)
{
    memset(p, 0, len);
    p[0] = 0x45;
    p[2] = (uint8_t)(len >> 8);
    p[3] = (uint8_t)len;
    p[8] = 64;
    p[9] = 17;
    memcpy(p + 12, src->b + 12, 4);
    memcpy(p + 16, dst->b + 12, 4);
    msg_put32(p + 20, serial);
    for (size_t i = 24; i < len; i++)
        p[i] = (uint8_t)(i + serial);
}

/* Node ${from} sends an inner packet of ${len} bytes to the other one. */
static inline void
net_send(struct net *net, int from, size_t len, uint32_t serial)
{
    uint8_t room[WG_HEADROOM + NET_DATAGRAM + WG_TAILROOM];
    struct tn_addr src = net_inner(from), dst = net_inner(!from);

    memset(room, 0xee, sizeof(room));
    net_packet(room + WG_HEADROOM, len, &src, &dst, serial);
    wg_send(net->node[from].device, room + WG_HEADROOM, len, net->now);
}

/* How many messages of ${type} node ${id} sent in [from, to). */
static inline unsigned
net_sent(
    const struct net *net, int id, uint32_t type, uint64_t from, uint64_t to)
{
    const struct net_node *n = &net->node[id];
    unsigned count = 0;

    assert_true(n->sent_count < NET_LOG);
    for (size_t i = 0; i < n->sent_count; i++)
        if (n->sent[i].type == type && n->sent[i].at >= from &&
            n->sent[i].at < to)
            count++;
    return count;
}

static inline const struct wg_counters *
net_counters(const struct net *net, int id)
{
    return wg_device_counters(net->node[id].device);
}

/* A confirmed session that node 0 began, nothing under way. */
static inline void
net_connect(struct net *net)
{
    wg_initiate(net->node[0].device, net->node[0].peer, net->now);
    net_pass(net, 10);
    assert_int_equal(net_counters(net, 0)->handshakes_completed, 1);
    assert_int_equal(net_counters(net, 1)->handshakes_completed, 1);
}

#endif

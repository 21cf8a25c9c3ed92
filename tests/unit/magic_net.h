/*
 * magic_net.h: two nodes with all of magic but sockets, for one test program: a
 * network with STUN servers and relays, and a clock that the test turns.
 */
#ifndef MAGIC_NET_H
#define MAGIC_NET_H

#include "fake_loop.h"
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/disco.h"
#include "../../ngx_tailnet_module/tailnetd/magic/link.h"
#include "../../ngx_tailnet_module/tailnetd/magic/magic.h"
#include "../../ngx_tailnet_module/tailnetd/magic/probe.h"
#include "../../ngx_tailnet_module/tailnetd/magic/stun.h"

#define UDP_MS   2
#define RELAY_MS 10

struct derp {
    struct derp_config is;
    uint16_t home;
    unsigned sent, checks;
    uint8_t key[32]; /* private */
};

struct side {
    struct magic *magic;
    struct tn_endpoint at;
    uint8_t priv[32], pub[32], disco[32];
    uint16_t home;
    struct magic_peer peer; /* the other one */
    struct netmap_node row;
    struct tn_endpoint told[2]; /* endpoints of row */
    unsigned wireguard;
    struct tn_endpoint from; /* of the last WireGuard message */
    struct tn_endpoint moved;
    unsigned announced, networks, rekeyed;
    bool held;   /* something was sent since the last flush */
    bool pinged; /* by ${txid}, and not answered */
    uint8_t txid[12];
    struct tn_endpoint pong; /* where the answer came from */
    struct tn_endpoint last_to;
    uint8_t last[2048]; /* datagram sent */
    size_t last_len;
};

static struct {
    struct side a, b;
    bool no_udp, no_stun, no_dns, relay_down;
    struct tn_addr addrs[4];
    size_t naddrs;
    void (*link_cb)(void *arg);
    void *link_arg;
    unsigned lookups;
    bool https; /* relays answer a probe */
    unsigned probes;
    uint8_t stun_dead; /* last byte of a server that does not answer */
} net;

/* ---- what magic stands on ---- */

struct link {
    int x;
};
static struct link the_link;

struct link *
link_new(void (*cb)(void *arg), void *arg)
{
    net.link_cb = cb;
    net.link_arg = arg;
    return &the_link;
}

void
link_free(struct link *l)
{
    (void)l;
}

size_t
link_addrs(struct tn_addr addrs[LINK_ADDRS_MAX], size_t *more)
{
    memcpy(addrs, net.addrs, sizeof(net.addrs));
    *more = 0;
    return net.naddrs;
}

struct loop_lookup {
    struct loop_timer *timer;
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why);
    void *arg;
};

static void
looked_up(void *arg)
{
    struct loop_lookup *l = arg;
    struct tn_addr a = kit_addr("198.51.100.1");

    l->cb(l->arg, &a, net.no_dns ? 0 : 1, net.no_dns ? "no answer" : NULL);
}

struct loop_lookup *
loop_lookup_new(const char *host,
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why),
    void *arg)
{
    struct loop_lookup *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    assert_string_equal(host, "stun.example");
    net.lookups++;
    l->cb = cb;
    l->arg = arg;
    l->timer = loop_timer_new(looked_up, l);
    loop_timer_set(l->timer, loop.now + 5);
    return l;
}

void
loop_lookup_free(struct loop_lookup *l)
{
    if (l == NULL)
        return;
    loop_timer_free(l->timer);
    free(l);
}

/* ---- packets under way ---- */

struct flight {
    struct loop_timer *timer;
    struct side *to, *from;
    bool relay;
    uint16_t region;
    struct tn_endpoint src;
    size_t len;
    uint8_t msg[];
};

static struct side *
other(struct side *s)
{
    return s == &net.a ? &net.b : &net.a;
}

static void
wireguard(struct side *s, const struct tn_endpoint *src)
{
    s->wireguard++;
    s->from = *src;
    magic_heard(s->magic, &s->peer, src);
}

static void
landed(void *arg)
{
    struct flight *f = arg;
    const struct derp_ops *ops = magic_derp(f->to->magic)->is.ops;
    void *ctx = magic_derp(f->to->magic)->is.ctx;

    if (f->relay) {
        ops->packet(ctx, f->region, f->from->pub, f->msg, f->len);
        ops->after(ctx);
    } else if (!magic_receive(f->to->magic, f->msg, f->len, &f->src)) {
        wireguard(f->to, &f->src);
    }
    loop_timer_free(f->timer);
    free(f);
}

static struct flight *
fly(struct side *from, struct side *to, const uint8_t *msg, size_t len,
    unsigned ms)
{
    struct flight *f = calloc(1, sizeof(*f) + len + DERP_SLACK);

    assert_non_null(f);
    f->from = from;
    f->to = to;
    f->len = len;
    f->src = from->at;
    memcpy(f->msg, msg, len);
    f->timer = loop_timer_new(landed, f);
    loop_timer_set(f->timer, loop.now + ms);
    return f;
}

static void
stun_reply(struct side *s, const uint8_t *ask)
{
    uint8_t m[32] = {1, 1, 0, 12};

    memcpy(m + 4, ask + 4, 16);
    m[21] = 1;
    m[23] = 8;
    m[25] = 1;
    m[26] = (uint8_t)(50000 >> 8); /* as a NAT would make it */
    m[27] = (uint8_t)(50000 & 255);
    memcpy(m + 28, s->at.addr.b + 12, 4);
    fly(s, s, m, sizeof(m), UDP_MS)->src = kit_endpoint("198.51.100.1:3478");
}

static void
op_send(void *ctx, const struct tn_endpoint *to, const uint8_t *msg, size_t len)
{
    struct side *s = ctx, *o = other(s);

    assert_true(len <= sizeof(s->last));
    s->held = true;
    memcpy(s->last, msg, len);
    s->last_len = len;
    s->last_to = *to;
    if (stun_looks(msg, len)) {
        kit_is(to,
            to->addr.b[15] == 2 ? "198.51.100.2:3478" : "198.51.100.1:3478");
        if (!net.no_udp && !net.no_stun && to->addr.b[15] != net.stun_dead)
            stun_reply(s, msg);
        return;
    }
    if (!net.no_udp && to->port == o->at.port &&
        tn_addr_equal(&to->addr, &o->at.addr))
        fly(s, o, msg, len, UDP_MS);
}

static void
op_flush(void *ctx)
{
    ((struct side *)ctx)->held = false;
}

static void
op_wireguard(void *ctx, uint8_t *msg, size_t len, const struct tn_endpoint *src)
{
    assert_true(len > 0 && msg[0] < 5);
    wireguard(ctx, src);
}

static void
op_moved(void *ctx, struct magic_peer *p, const struct tn_endpoint *e)
{
    struct side *s = ctx;

    assert_true(p == &s->peer);
    s->moved = *e;
}

static void
op_announce(void *ctx)
{
    ((struct side *)ctx)->announced++;
}

static void
op_network(void *ctx)
{
    ((struct side *)ctx)->networks++;
}

static void
op_rekeyed(void *ctx)
{
    ((struct side *)ctx)->rekeyed++;
}

static bool
op_pong(void *ctx, struct magic_peer *p, const uint8_t txid[12],
    const struct tn_endpoint *src)
{
    struct side *s = ctx;

    assert_true(p == &s->peer);
    if (!s->pinged || memcmp(txid, s->txid, sizeof(s->txid)) != 0)
        return false;
    s->pinged = false;
    s->pong = *src;
    return true;
}

static const struct magic_ops ops = {op_send, op_flush, op_wireguard, op_moved,
    op_announce, op_network, op_rekeyed, op_pong};

/* ---- relays ---- */

struct tn_endpoint
derp_endpoint(uint16_t region)
{
    struct tn_endpoint e = {kit_addr("127.3.3.40"), region};

    return e;
}

uint16_t
derp_region(const struct tn_endpoint *e)
{
    struct tn_addr a = kit_addr("127.3.3.40");

    return tn_addr_equal(&a, &e->addr) ? e->port : 0;
}

struct derp *
derp_new(const struct derp_config *c)
{
    struct derp *d = calloc(1, sizeof(*d));

    assert_non_null(d);
    d->is = *c;
    return d;
}

void
derp_free(struct derp *d)
{
    free(d);
}

void
derp_map(struct derp *d, const struct netmap_derp *map)
{
    (void)d;
    (void)map;
}

void
derp_key(struct derp *d, const uint8_t private_key[32])
{
    memcpy(d->key, private_key, 32);
}

void
derp_home(struct derp *d, uint16_t region)
{
    d->home = region;
}

void
derp_send(struct derp *d, uint16_t region, const uint8_t to[32],
    const uint8_t *msg, size_t len)
{
    struct side *s = net.a.magic != NULL && magic_derp(net.a.magic) == d
                         ? &net.a
                         : &net.b;
    struct flight *f;

    d->sent++;
    if (net.relay_down || memcmp(other(s)->pub, to, 32) != 0)
        return;
    f = fly(s, other(s), msg, len, RELAY_MS);
    f->relay = true;
    f->region = region;
}

void
derp_flush(struct derp *d)
{
    (void)d;
}

bool
derp_up(const struct derp *d, uint16_t region)
{
    return !net.relay_down && d->home == region;
}

uint64_t
derp_heard(const struct derp *d, uint16_t region)
{
    return derp_up(d, region) ? loop.now : 0;
}

void
derp_check(struct derp *d, const struct tn_addr *addrs, size_t n)
{
    (void)addrs;
    (void)n;
    d->checks++;
}

/* The relay of region 2 is near. */
struct probe {
    const struct probe_ops *ops;
    void *ctx;
    struct loop_timer *timer;
};

static void
probed(void *arg)
{
    struct probe *p = arg;

    if (net.https) {
        p->ops->answered(p->ctx, 1, 80000);
        if (!net.relay_down)
            p->ops->answered(p->ctx, 2, 9000);
        p->ops->answered(p->ctx, 77, 1000); /* gone meanwhile */
    }
    p->ops->over(p->ctx);
}

struct probe *
probe_new(const struct netmap_derp *map, struct tls_trust *trust, bool insecure,
    const struct probe_ops *to, void *ctx)
{
    struct probe *p = calloc(1, sizeof(*p));

    (void)trust;
    (void)insecure;
    assert_non_null(p);
    assert_non_null(map);
    net.probes++;
    p->ops = to;
    p->ctx = ctx;
    p->timer = loop_timer_new(probed, p);
    loop_timer_set(p->timer, loop.now + 300);
    return p;
}

void
probe_free(struct probe *p)
{
    if (p == NULL)
        return;
    loop_timer_free(p->timer);
    free(p);
}

/* ---- the tailnet ---- */

static char s_empty[] = "", s_none[] = "none", s_stun[] = "198.51.100.1",
            s_stun2[] = "198.51.100.2", s_host[] = "stun.example",
            s_name[] = "peer.example", s_code[] = "tst";

static struct netmap_relay relays[2] = {
    {.name = s_code,
        .host = s_host,
        .cert_name = s_empty,
        .ipv4 = s_stun,
        .ipv6 = s_none,
        .stun_test_ip = s_empty,
        .derp_port = 443,
        .stun_port = 3478},
    {.name = s_code,
        .host = s_host,
        .cert_name = s_empty,
        .ipv4 = s_empty,
        .ipv6 = s_none,
        .stun_test_ip = s_empty,
        .derp_port = 443,
        .stun_port = 3478},
};
static struct netmap_region regions[2] = {
    {.id = 1,
        .code = s_code,
        .name = s_code,
        .score = 1,
        .relays = relays,
        .nrelays = 1},
    {.id = 2,
        .code = s_code,
        .name = s_code,
        .score = 1,
        .relays = relays + 1,
        .nrelays = 1},
};
static struct netmap_derp one_region = {.regions = regions, .nregions = 1};
static struct netmap_derp two_regions = {.regions = regions, .nregions = 2};
static struct netmap_derp named_region = {
    .regions = regions + 1, .nregions = 1};

static void
make_side(struct side *s, uint8_t seed, const char *at)
{
    struct magic_config c = {.node = "web",
        .private_key = s->priv,
        .disco = s->disco,
        .home = &s->home,
        .port = {41641, 41641}};

    s->priv[0] = seed;
    s->priv[31] = 64;
    assert_int_equal(box_public(s->pub, s->priv), 0);
    s->at = kit_endpoint(at);
    s->magic = magic_new(&c, &ops, s);
    assert_non_null(s->magic);
}

/* The row of ${of} in the netmap of ${s}. */
static void
know(struct side *s, struct side *of)
{
    s->row = (struct netmap_node){.name = s_name,
        .has_disco = true,
        .home_derp = 1,
        .endpoints = s->told,
        .nendpoints = 1};
    memcpy(s->row.key, of->pub, 32);
    memcpy(s->row.disco, magic_disco(of->magic), 32);
    s->told[0] = of->at;
    magic_peer_set(s->magic, &s->peer, &s->row);
}

static int
setup(void **state)
{
    (void)state;
    memset(&net, 0, sizeof(net));
    loop.now = 1000000;
    net.addrs[0] = kit_addr("192.168.1.2");
    net.naddrs = 1;
    make_side(&net.a, 8, "192.0.2.1:41641");
    make_side(&net.b, 16, "192.0.2.2:41641");
    know(&net.a, &net.b);
    know(&net.b, &net.a);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    net.no_udp = net.relay_down = true;
    sleep_ms(1000); /* what flies lands */
    magic_free(net.a.magic);
    magic_free(net.b.magic);
    fake_loop_end();
    return 0;
}

static bool
send_wg(struct side *s)
{
    static const uint8_t msg[148] = {1};
    struct tn_endpoint none = {0};
    bool sent = magic_output(s->magic, &s->peer, &none, msg, sizeof(msg));

    magic_flush(s->magic);
    return sent;
}

/* Both send each 100 ms. */
static void
talk(unsigned ms)
{
    unsigned i;

    for (i = 0; i < ms; i += 100) {
        (void)send_wg(&net.a);
        (void)send_wg(&net.b);
        sleep_ms(100);
    }
}

static void
maps(const struct netmap_derp *map)
{
    magic_map(net.a.magic, map);
    magic_map(net.b.magic, map);
}

static enum path_state
state_of(struct side *s)
{
    return magic_way(s->magic, &s->peer).state;
}

#endif

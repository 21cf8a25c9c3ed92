/* links: tailnetd/magic/magic.c tailnetd/magic/talk.c tailnetd/magic/path.c */
/* links: tailnetd/magic/disco.c tailnetd/magic/stun.c core/tn_addr.c */
/* links: tailnetd/magic/netcheck.c tailnetd/magic/endpoints.c */
/* links: tailnetd/magic/resolve.c tailnetd/crypto/box.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/say.c */
/* libs: -lsodium */
/*
 * Two nodes with all of magic but sockets: a network of the test's own, with a
 * STUN server and relays, and a clock that it turns.
 */
#include "fake_loop.h"
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/disco.h"
#include "../../ngx_tailnet_module/tailnetd/magic/link.h"
#include "../../ngx_tailnet_module/tailnetd/magic/magic.h"
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
    unsigned announced, networks;
    struct tn_endpoint last_to;
    uint8_t last[2048]; /* datagram sent */
    size_t last_len;
};

static struct {
    struct side a, b;
    bool no_udp, no_stun, relay_down;
    struct tn_addr addrs[4];
    size_t naddrs;
    void (*link_cb)(void *arg);
    void *link_arg;
    unsigned lookups;
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

    l->cb(l->arg, &a, 1, NULL);
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
    memcpy(s->last, msg, len);
    s->last_len = len;
    s->last_to = *to;
    if (stun_looks(msg, len)) {
        kit_is(to, "198.51.100.1:3478");
        if (!net.no_udp && !net.no_stun)
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
    (void)ctx;
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

static const struct magic_ops ops = {
    op_send, op_flush, op_wireguard, op_moved, op_announce, op_network};

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

/* ---- the tailnet ---- */

static char s_empty[] = "", s_none[] = "none", s_stun[] = "198.51.100.1",
            s_host[] = "stun.example", s_name[] = "peer.example",
            s_code[] = "tst";

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

static void
learns_its_network(void **state)
{
    const struct message_netinfo *n;
    const struct message_endpoint *list;
    size_t count;

    (void)state;
    magic_map(net.a.magic, &one_region);
    /* Home without measuring, told at once. */
    assert_int_equal(net.a.home, 1);
    assert_int_equal(magic_derp(net.a.magic)->home, 1);
    assert_int_equal(net.a.announced, 1);
    sleep_ms(100);
    assert_int_equal(net.a.announced, 2);
    n = magic_netinfo(net.a.magic);
    assert_int_equal(n->preferred_derp, 1);
    assert_int_equal(n->working_udp, 1);
    assert_int_equal(n->working_ipv6, 0);
    assert_int_equal(n->os_ipv6, 1);
    assert_int_equal(n->nlatency, 1);
    list = magic_endpoints(net.a.magic, &count);
    assert_int_equal(count, 2);
    kit_is(&list[0].at, "192.0.2.1:50000");
    assert_int_equal(list[0].type, MESSAGE_STUN);
    kit_is(&list[1].at, "192.168.1.2:41641");
    assert_int_equal(list[1].type, MESSAGE_LOCAL);
    /* Nothing changes: nothing is told.  Nobody talks: hardly anybody asked. */
    sleep_ms(1000000);
    assert_int_equal(net.a.announced, 2);
    assert_in_range(magic_counters(net.a.magic)->stun, 2, 12);
    assert_int_equal(magic_talks(net.a.magic), 0);
}

static void
names_are_resolved(void **state)
{
    (void)state;
    magic_map(net.a.magic, &named_region);
    sleep_ms(1000);
    assert_true(net.lookups >= 1);
    assert_int_equal(magic_netinfo(net.a.magic)->working_udp, 1);
}

static void
blocked_from_the_start(void **state)
{
    (void)state;
    net.no_udp = true;
    magic_map(net.a.magic, &two_regions);
    sleep_ms(5000);
    assert_int_equal(magic_netinfo(net.a.magic)->working_udp, 0);
    assert_true(net.a.home == 1 || net.a.home == 2); /* some home it has */
    assert_int_equal(magic_netinfo(net.a.magic)->preferred_derp, net.a.home);
}

static void
finds_the_peer(void **state)
{
    struct magic_way way;

    (void)state;
    maps(&one_region);
    sleep_ms(100);
    assert_true(send_wg(&net.a));
    sleep_ms(15);
    assert_int_equal(net.b.wireguard, 1);
    kit_is(&net.b.from, "127.3.3.40:1");
    sleep_ms(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    kit_is(&net.a.moved, "192.0.2.2:41641");
    way = magic_way(net.a.magic, &net.a.peer);
    kit_is(&way.at, "192.0.2.2:41641");
    assert_int_equal(way.region, 1);
    assert_int_equal(way.latency_us, 2 * UDP_MS * 1000);
    assert_true(send_wg(&net.a));
    sleep_ms(5);
    assert_int_equal(net.b.wireguard, 2);
    kit_is(&net.b.from, "192.0.2.1:41641");
    /* It was called, so it looked as well. */
    kit_is(&net.b.moved, "192.0.2.1:41641");
    talk(1000);
    assert_int_equal(state_of(&net.b), PATH_DIRECT);
}

static void
blocked_and_back(void **state)
{
    unsigned before;

    (void)state;
    maps(&one_region);
    net.no_udp = true;
    talk(20000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    kit_is(&net.a.moved, "127.3.3.40:1");
    assert_in_range(net.b.wireguard, 195, 200);
    net.no_udp = false;
    talk(10000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    assert_int_equal(state_of(&net.b), PATH_DIRECT);
    kit_is(&net.a.moved, "192.0.2.2:41641");
    net.no_udp = true;
    talk(20000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    /* The relay goes as well; and comes back. */
    net.relay_down = true;
    before = net.b.wireguard;
    talk(5000);
    assert_int_equal(net.b.wireguard, before);
    net.relay_down = false;
    talk(1000);
    assert_in_range(net.b.wireguard - before, 9, 11);
}

static void
silence_frees(void **state)
{
    (void)state;
    maps(&one_region);
    sleep_ms(100);
    (void)send_wg(&net.a);
    sleep_ms(1000);
    assert_int_equal(magic_talks(net.a.magic), 1);
    assert_int_equal(magic_talks(net.b.magic), 1);
    sleep_ms(1200000);
    assert_int_equal(magic_talks(net.a.magic), 0);
    assert_int_equal(magic_talks(net.b.magic), 0);
    assert_null(net.a.peer.talk);
    talk(2000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
}

static void
resumes(void **state)
{
    struct tn_endpoint at = net.b.at, none = {0};

    (void)state;
    net.a.home = 2; /* of the engine before */
    magic_map(net.a.magic, &two_regions);
    assert_int_equal(magic_derp(net.a.magic)->home, 2);
    magic_map(net.b.magic, &two_regions);
    magic_peer_resume(net.a.magic, &net.a.peer, &at, 0);
    assert_true(send_wg(&net.a));
    sleep_ms(5);
    assert_int_equal(net.b.wireguard, 1);
    kit_is(&net.b.from, "192.0.2.1:41641");
    sleep_ms(100);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* By relay, at a region that the netmap does not say. */
    net.b.row.home_derp = 0;
    magic_peer_set(net.b.magic, &net.b.peer, &net.b.row);
    magic_peer_resume(net.b.magic, &net.b.peer, &none, 2);
    assert_int_equal(magic_way(net.b.magic, &net.b.peer).region, 2);
}

static void
peer_changes(void **state)
{
    uint8_t fresh[32];

    (void)state;
    maps(&one_region);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* Another disco key: b began anew.  Until a is told it knows nobody. */
    magic_free(net.b.magic);
    memset(net.b.disco, 0, 32);
    memset(&net.b.peer, 0, sizeof(net.b.peer));
    make_side(&net.b, 16, "192.0.2.2:41641");
    know(&net.b, &net.a);
    magic_map(net.b.magic, &one_region);
    talk(20000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    assert_true(magic_counters(net.a.magic)->drop_disco_unknown > 0);
    memcpy(fresh, magic_disco(net.b.magic), 32);
    /* Its own word, through the tunnel; a netmap without news changes that
     * not. */
    magic_peer_disco(net.a.magic, &net.a.peer, fresh);
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    talk(10000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* The control server has news. */
    memcpy(net.a.row.disco, fresh, 32);
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* It is gone. */
    magic_peer_clear(net.a.magic, &net.a.peer);
    assert_int_equal(magic_talks(net.a.magic), 0);
    know(&net.a, &net.b);
}

static void
peers_without_disco(void **state)
{
    static const uint8_t msg[32] = {4};

    (void)state;
    maps(&one_region);
    net.a.row.has_disco = false;
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    talk(3000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    kit_is(&net.a.moved, "127.3.3.40:1");
    assert_int_equal(magic_counters(net.a.magic)->pings_sent, 0);
    /* Neither disco nor home: nowhere to send. */
    net.a.row.home_derp = 0;
    sleep_ms(100000);
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    assert_false(send_wg(&net.a));
    /* Plain WireGuard: to its address. */
    net.a.row.wireguard_only = true;
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    assert_true(
        magic_output(net.a.magic, &net.a.peer, &net.b.at, msg, sizeof(msg)));
    kit_is(&net.a.last_to, "192.0.2.2:41641");
}

/* A cookie goes back the way its cause came. */
static void
answers_to_strangers(void **state)
{
    static const uint8_t msg[64] = {3};
    struct tn_endpoint relay = derp_endpoint(1);

    (void)state;
    maps(&one_region);
    assert_true(magic_output(net.a.magic, NULL, &net.b.at, msg, sizeof(msg)));
    kit_is(&net.a.last_to, "192.0.2.2:41641");
    /* By relay only while the message is handled. */
    assert_false(magic_output(net.a.magic, NULL, &relay, msg, sizeof(msg)));
}

static void
network_changes(void **state)
{
    (void)state;
    maps(&one_region);
    talk(2000);
    assert_int_equal(state_of(&net.b), PATH_DIRECT);
    net.link_cb(net.link_arg); /* nothing changed, really */
    assert_int_equal(net.b.networks, 0);
    net.addrs[0] = kit_addr("192.168.7.7");
    net.b.at = kit_endpoint("192.0.2.77:41641");
    net.link_cb(net.link_arg);
    assert_int_equal(net.b.networks, 1);
    assert_int_equal(magic_derp(net.b.magic)->checks, 1);
    talk(8000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    kit_is(&net.a.moved, "192.0.2.77:41641");
}

/* ---- what others may try ---- */

static struct disco_msg
ping_of(const struct side *s)
{
    struct disco_msg m = {.type = DISCO_PING};

    memcpy(m.node_key, s->pub, 32);
    return m;
}

static bool
push(struct side *to, const struct disco_msg *m, const uint8_t disco_priv[32],
    const char *src)
{
    uint8_t shared[32], pub[32], nonce[24] = {1}, out[DISCO_MAX_LEN];
    struct tn_endpoint e = kit_endpoint(src);
    size_t len;

    assert_int_equal(box_shared(shared, magic_disco(to->magic), disco_priv), 0);
    assert_int_equal(box_public(pub, disco_priv), 0);
    len = disco_seal(out, m, shared, pub, nonce);
    return magic_receive(to->magic, out, len, &e);
}

static void
intruders(void **state)
{
    const struct magic_counters *c = magic_counters(net.a.magic);
    uint8_t stranger[32] = {24, [31] = 65}, msg[64] = {0};
    struct tn_endpoint e = kit_endpoint("203.0.113.1:9");
    struct disco_msg m = ping_of(&net.b);
    struct disco_msg call = {.type = DISCO_CALL_ME_MAYBE, .nendpoints = 1};
    uint8_t buf[DISCO_MAX_LEN];
    unsigned i;

    (void)state;
    maps(&one_region);
    sleep_ms(100);
    /* A disco key that is nobody's. */
    assert_true(push(&net.a, &m, stranger, "203.0.113.1:9"));
    assert_int_equal(c->drop_disco_unknown, 1);
    /* b's disco key with another node's. */
    memset(m.node_key, 9, 32);
    assert_true(push(&net.a, &m, net.b.disco, "203.0.113.1:9"));
    assert_int_equal(c->drop_disco_node, 1);
    assert_int_equal(magic_talks(net.a.magic), 0);
    /* A call that did not come by relay. */
    call.endpoints[0] = e;
    assert_true(push(&net.a, &call, net.b.disco, "203.0.113.1:9"));
    assert_int_equal(c->drop_disco_flow, 1);
    /* A pong to no ping. */
    m.type = DISCO_PONG;
    assert_true(push(&net.a, &m, net.b.disco, "203.0.113.1:9"));
    assert_int_equal(c->drop_pong_late, 1);
    /* Whoever sends from a relay's address is not one. */
    m = ping_of(&net.b);
    assert_true(push(&net.a, &m, net.b.disco, "127.3.3.40:1"));
    assert_int_equal(c->drop_spoofed, 1);
    /* STUN that nobody asked for, and Geneve. */
    stun_request(msg, stranger);
    msg[0] = 1;
    assert_true(magic_receive(net.a.magic, msg, 40, &e));
    assert_int_equal(c->drop_stun, 1);
    memcpy(msg, "\x00\x80\x7a\x11\x01\x02\x03\x00", 8);
    assert_true(magic_receive(net.a.magic, msg, 40, &e));
    assert_int_equal(c->drop_geneve, 1);
    /* Not authentic. */
    memcpy(buf, net.a.last, net.a.last_len);
    assert_int_equal(c->drop_disco_auth, 0);
    memcpy(buf, "TS\xf0\x9f\x92\xac", 6);
    memcpy(buf + 6, magic_disco(net.b.magic), 32);
    for (i = 0; i < 100; i++)
        assert_true(magic_receive(net.a.magic, buf, 122, &e));
    assert_true(c->drop_disco_auth > 0 && c->drop_disco_flood > 0);
    assert_int_equal(c->drop_disco_auth + c->drop_disco_flood, 100);
    assert_int_equal(magic_talks(net.a.magic), 0);
    /* WireGuard is not kept. */
    memset(msg, 0, sizeof(msg));
    for (i = 1; i < 5; i++) {
        msg[0] = (uint8_t)i;
        assert_false(magic_receive(net.a.magic, msg, 64, &e));
    }
    assert_false(magic_receive(net.a.magic, msg, 0, &e));
}

static void
pongs_are_bounded(void **state)
{
    const struct magic_counters *c = magic_counters(net.a.magic);
    struct disco_msg m = ping_of(&net.b);
    unsigned i;

    (void)state;
    maps(&one_region);
    sleep_ms(1000);
    for (i = 0; i < 100; i++) {
        m.txid[0] = (uint8_t)i;
        assert_true(push(&net.a, &m, net.b.disco, "192.0.2.2:41641"));
    }
    assert_int_equal(c->disco_pings, 100);
    assert_int_equal(c->drop_pong_flood, 100 - MAGIC_PONGS_S);
}

static void
many_peers(void **state)
{
    enum { N = 20000 };
    struct magic_peer *peers = calloc(N, sizeof(*peers));
    struct netmap_node *rows = calloc(N, sizeof(*rows));
    uint32_t seed = 5, i, k;

    (void)state;
    assert_non_null(peers);
    assert_non_null(rows);
    for (i = 0; i < N; i++) {
        rows[i].has_disco = true;
        kit_fill(&seed, rows[i].key, 32);
        /* Some share one disco key. */
        if (i % 10 == 1)
            memcpy(rows[i].disco, rows[i - 1].disco, 32);
        else
            kit_fill(&seed, rows[i].disco, 32);
        magic_peer_set(net.a.magic, &peers[i], &rows[i]);
    }
    maps(&one_region);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    assert_int_equal(magic_talks(net.a.magic), 1);
    for (k = 0; k < 3; k++)
        for (i = k; i < N; i += 2)
            magic_peer_set(net.a.magic, &peers[i], &rows[i]);
    for (i = 0; i < N; i++)
        magic_peer_clear(net.a.magic, &peers[i]);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    free(peers);
    free(rows);
}

int
main(void)
{
#define ROW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(learns_its_network),
        ROW(names_are_resolved),
        ROW(blocked_from_the_start),
        ROW(finds_the_peer),
        ROW(blocked_and_back),
        ROW(silence_frees),
        ROW(resumes),
        ROW(peer_changes),
        ROW(peers_without_disco),
        ROW(answers_to_strangers),
        ROW(network_changes),
        ROW(intruders),
        ROW(pongs_are_bounded),
        ROW(many_peers),
    };

    /* Log lines are not part of TAP. */
    if (freopen("/dev/null", "w", stderr) == NULL)
        return 1;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

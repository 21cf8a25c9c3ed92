/* links: tailnetd/magic/magic.c tailnetd/magic/talk.c tailnetd/magic/path.c */
/* links: tailnetd/magic/disco.c tailnetd/magic/stun.c core/tn_addr.c */
/* links: tailnetd/magic/netcheck.c tailnetd/magic/endpoints.c */
/* links: tailnetd/magic/resolve.c tailnetd/crypto/box.c */
/* links: tailnetd/engine/netmap.c */
/* libs: -lsodium -Wl,--wrap=getrandom */
/* max_len: 2048 */
/*
 * How packets find peers, as a story: disco messages that peers seal over right
 * and any bytes, by UDP and by relay, STUN, answers to our own pings, packets
 * of ours, netmaps that change, relays and networks that come and go, time.
 */
#include <sys/random.h>

#include "../../ngx_tailnet_module/tailnetd/magic/disco.h"
#include "../../ngx_tailnet_module/tailnetd/magic/link.h"
#include "../../ngx_tailnet_module/tailnetd/magic/magic.h"
#include "../../ngx_tailnet_module/tailnetd/magic/probe.h"
#include "../../ngx_tailnet_module/tailnetd/magic/stun.h"
#include "fuzz.h"
#include "fuzz_loop.h"

#define PEERS     4 /* the first two have one disco key, the last has none */
#define ASKED_MAX 32
#define STEPS_MAX 150

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);

static uint32_t dice;

ssize_t
__wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    uint8_t *b = buf;
    size_t i;

    (void)flags;
    for (i = 0; i < len; i++) {
        dice = dice * 1103515245u + 12345u;
        b[i] = (uint8_t)(dice >> 16);
    }
    return (ssize_t)len;
}

/* ---- datagrams of ours that somebody may answer ---- */

static struct {
    uint8_t msg[DISCO_MAX_LEN];
    size_t len;
} asked[ASKED_MAX];
static unsigned nasked;

static void
remember(const uint8_t *msg, size_t len)
{
    fuzz_touch(msg, len);
    if (len > DISCO_MAX_LEN ||
        (!stun_looks(msg, len) && !disco_looks(msg, len)))
        return;
    asked[nasked % ASKED_MAX].len = len;
    memcpy(asked[nasked % ASKED_MAX].msg, msg, len);
    nasked++;
}

/* ---- what magic stands on ---- */

struct derp {
    const struct derp_ops *ops;
    void *ctx;
    uint16_t home;
    bool up[4];
};

struct link {
    void (*cb)(void *arg);
    void *arg;
};

struct probe {
    const struct probe_ops *ops;
    void *ctx;
};

struct loop_lookup {
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why);
    void *arg;
};

static struct derp derp;
static struct link link_;
static struct probe *probe;
static struct loop_lookup *lookup; /* the last one */
static struct tn_addr own[2];
static size_t nown;

struct link *
link_new(void (*cb)(void *arg), void *arg)
{
    link_ = (struct link){cb, arg};
    return &link_;
}

void
link_free(struct link *l)
{
    FUZZ_MUST(l == &link_);
}

size_t
link_addrs(struct tn_addr addrs[LINK_ADDRS_MAX], size_t *more)
{
    memcpy(addrs, own, nown * sizeof(*own));
    *more = 0;
    return nown;
}

struct probe *
probe_new(const struct netmap_derp *map, struct tls_trust *trust, bool insecure,
    const struct probe_ops *ops, void *ctx)
{
    (void)trust;
    (void)insecure;
    FUZZ_MUST(map != NULL && probe == NULL);
    probe = calloc(1, sizeof(*probe));
    FUZZ_MUST(probe != NULL);
    probe->ops = ops;
    probe->ctx = ctx;
    return probe;
}

void
probe_free(struct probe *p)
{
    if (p != NULL)
        probe = NULL;
    free(p);
}

struct loop_lookup *
loop_lookup_new(const char *host,
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why),
    void *arg)
{
    struct loop_lookup *l = calloc(1, sizeof(*l));

    FUZZ_MUST(l != NULL && host[0] != '\0');
    l->cb = cb;
    l->arg = arg;
    lookup = l;
    return l;
}

void
loop_lookup_free(struct loop_lookup *l)
{
    if (l == lookup)
        lookup = NULL;
    free(l);
}

struct tn_endpoint
derp_endpoint(uint16_t region)
{
    static const uint8_t ip[4] = {127, 3, 3, 40};

    return (struct tn_endpoint){tn_addr_from4(ip), region};
}

uint16_t
derp_region(const struct tn_endpoint *e)
{
    struct tn_endpoint want = derp_endpoint(e->port);

    return tn_addr_equal(&e->addr, &want.addr) ? e->port : 0;
}

struct derp *
derp_new(const struct derp_config *c)
{
    memset(&derp, 0, sizeof(derp));
    derp.ops = c->ops;
    derp.ctx = c->ctx;
    return &derp;
}

void
derp_free(struct derp *d)
{
    FUZZ_MUST(d == &derp);
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
    (void)d;
    fuzz_touch(private_key, 32);
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
    FUZZ_MUST(d == &derp && region != 0 && len > 0);
    fuzz_touch(to, 32);
    remember(msg, len);
}

void
derp_flush(struct derp *d)
{
    FUZZ_MUST(d == &derp);
}

bool
derp_up(const struct derp *d, uint16_t region)
{
    return region < 4 && d->up[region];
}

uint64_t
derp_heard(const struct derp *d, uint16_t region)
{
    return derp_up(d, region) ? loop.now : 0;
}

void
derp_check(struct derp *d, const struct tn_addr *addrs, size_t n)
{
    FUZZ_MUST(d == &derp);
    fuzz_touch(addrs, n * sizeof(*addrs));
}

/* ---- the node ---- */

static struct magic *magic;
static struct {
    struct magic_peer magic;
    struct netmap_node row[2];
    struct tn_endpoint told[2][2];
    uint8_t disco[32], key[32]; /* private, public */
    bool set;
} peers[PEERS];

static void
on_send(void *ctx, const struct tn_endpoint *to, const uint8_t *msg, size_t len)
{
    (void)ctx;
    FUZZ_MUST(to->port != 0 && derp_region(to) == 0 && len > 0);
    remember(msg, len);
}

static void
on_flush(void *ctx)
{
    (void)ctx;
}

static void
on_wireguard(void *ctx, uint8_t *msg, size_t len, const struct tn_endpoint *src)
{
    static const uint8_t cookie[64] = {3};

    (void)ctx;
    FUZZ_MUST(derp_region(src) != 0 && !disco_looks(msg, len));
    FUZZ_MUST(magic_relay_sender(magic) != NULL);
    fuzz_touch(msg, len + DERP_SLACK);
    if (len > 0 && (msg[0] & 1) != 0)
        FUZZ_MUST(magic_output(magic, NULL, src, cookie, sizeof(cookie)));
}

static void
on_moved(void *ctx, struct magic_peer *p, const struct tn_endpoint *e)
{
    (void)ctx;
    FUZZ_MUST(p->row != NULL && e->port != 0);
}

/* What was asked by magic_ping(). */
static bool
on_pong(void *ctx, struct magic_peer *p, const uint8_t txid[12],
    const struct tn_endpoint *src)
{
    static const uint8_t ours[12] = {0xee};

    (void)ctx;
    FUZZ_MUST(p->row != NULL && src->port != 0);
    return memcmp(txid, ours, sizeof(ours)) == 0;
}

static void
on_nothing(void *ctx)
{
    (void)ctx;
}

static const struct magic_ops ops = {.send = on_send,
    .flush = on_flush,
    .wireguard = on_wireguard,
    .moved = on_moved,
    .pong = on_pong,
    .announce = on_nothing,
    .network = on_nothing,
    .rekeyed = on_nothing};

/* ---- the netmap ---- */

static struct netmap_derp map;

static struct tn_endpoint
place(uint8_t which)
{
    uint8_t four[4] = {203, 0, 113, (uint8_t)(which & 31)},
            six[16] = {0x20, 1, 0xd, 0xb8, [15] = (uint8_t)(which & 31)};
    struct tn_endpoint e = {
        which & 64 ? tn_addr_from6(six) : tn_addr_from4(four), 41641};

    if ((which & 31) == 31)
        e.port = 0;
    return which & 128 ? derp_endpoint(which & 3) : e;
}

static void
make_map(void)
{
    static char text[][16] = {"r", "192.0.2.1", "", "stun.example"};
    static struct netmap_relay relays[2];
    static struct netmap_region regions[3];
    unsigned i;

    for (i = 0; i < 2; i++)
        relays[i] = (struct netmap_relay){.name = text[0],
            .host = text[3],
            .cert_name = text[2],
            .ipv4 = text[1 + i],
            .ipv6 = text[2],
            .stun_test_ip = text[2],
            .derp_port = 443,
            .stun_port = STUN_PORT};
    for (i = 0; i < 3; i++)
        regions[i] = (struct netmap_region){.id = (uint16_t)(i + 1),
            .code = text[0],
            .name = text[0],
            .score = 1,
            .relays = relays,
            .nrelays = i % 2 + 1u};
    map.regions = regions;
    map.nregions = 3;
}

static void
make_peers(void)
{
    struct netmap_node *row;
    unsigned i, k;

    memset(peers, 0, sizeof(peers));
    for (i = 0; i < PEERS; i++) {
        peers[i].disco[0] = (uint8_t)(i < 2 ? 9 : 10 + i);
        peers[i].key[0] = (uint8_t)(i + 1);
        for (k = 0; k < 2; k++) {
            row = &peers[i].row[k];
            row->id = i + 1;
            row->name = (char *)(uintptr_t) "peer";
            row->stable_id = (char *)(uintptr_t) "";
            row->has_key = true;
            memcpy(row->key, peers[i].key, 32);
            row->has_disco = i != 3;
            FUZZ_MUST(box_public(row->disco, peers[i].disco) == 0);
            if (k == 1 && i == 2) /* another one, of low order */
                memset(row->disco, 0, sizeof(row->disco));
            row->wireguard_only = k == 1 && i == 1;
            row->home_derp = (uint16_t)(k == 0 ? 1 + i : 0);
            peers[i].told[k][0] = place((uint8_t)(i * 2));
            peers[i].told[k][1] = place((uint8_t)(i * 2 + 64 + k));
            row->endpoints = peers[i].told[k];
            row->nendpoints = 2 - k;
        }
    }
}

/* ---- what comes ---- */

static void
bring(const uint8_t *p, size_t len, uint8_t from, uint8_t peer)
{
    struct tn_endpoint src = place(from);
    uint8_t *copy = calloc(1, len + DERP_SLACK);

    FUZZ_MUST(copy != NULL);
    if (len > 0)
        memcpy(copy, p, len);
    if (derp_region(&src) != 0 && (from & 32) != 0) {
        derp.ops->packet(
            derp.ctx, src.port, peers[peer % PEERS].key, copy, len);
        derp.ops->after(derp.ctx);
    } else {
        (void)magic_receive(magic, copy, len, &src);
    }
    free(copy);
}

static void
shared_with(uint8_t peer, uint8_t shared[BOX_KEY_LEN])
{
    FUZZ_MUST(
        box_shared(shared, magic_disco(magic), peers[peer % PEERS].disco) == 0);
}

/* ${inside} in a box of the peer's. */
static void
bring_disco(const uint8_t *inside, size_t len, uint8_t from, uint8_t peer)
{
    static const uint8_t nonce[BOX_NONCE_LEN] = {4};
    struct disco_msg any = {.type = DISCO_CALL_ME_MAYBE};
    uint8_t shared[BOX_KEY_LEN], out[DISCO_MAX_LEN], public[32];

    shared_with(peer, shared);
    FUZZ_MUST(box_public(public, peers[peer % PEERS].disco) == 0);
    (void)disco_seal(out, &any, shared, public, nonce);
    len = len < 600 ? len : 600;
    box_seal(out + DISCO_HEADER_LEN, shared, nonce, inside, len);
    bring(out, DISCO_HEADER_LEN + BOX_TAG_LEN + len, from, peer);
}

static void
ping(struct fuzz_input *in, uint8_t from, uint8_t peer)
{
    uint8_t b[46] = {DISCO_PING}, how = fuzz_u8(in);

    b[2] = how & 15;
    memcpy(b + 14, peers[(peer + (how >> 6 == 3)) % PEERS].key, 32);
    bring_disco(b, (how & 32) != 0 ? 14 : sizeof(b), from, peer);
}

static void
call(struct fuzz_input *in, uint8_t from, uint8_t peer)
{
    uint8_t b[2 + 18 * 20] = {DISCO_CALL_ME_MAYBE};
    size_t n = fuzz_u8(in) % 21, i;
    struct tn_endpoint e;

    for (i = 0; i < n; i++) {
        e = place(fuzz_u8(in));
        memcpy(b + 2 + 18 * i, e.addr.b, 16);
        b[2 + 18 * i + 16] = (uint8_t)(e.port >> 8);
        b[2 + 18 * i + 17] = (uint8_t)e.port;
    }
    bring_disco(b, 2 + 18 * n, from, peer);
}

static void
answer_stun(const uint8_t *ask, uint8_t how)
{
    uint8_t m[32] = {1, 1, 0, 12};

    memcpy(m + 4, ask + 4, 16);
    m[21] = 1;
    m[23] = 8;
    m[25] = 1;
    m[26] = how;
    m[27] = 1;
    m[28] = 198;
    bring(m, sizeof(m), 1, 0);
}

/* What was asked is answered: a ping of ours, or STUN. */
static void
answer(struct fuzz_input *in, uint8_t from)
{
    uint8_t which = fuzz_u8(in), shared[BOX_KEY_LEN], b[32] = {DISCO_PONG};
    struct disco_msg msg;
    unsigned i, k;

    if (nasked == 0)
        return;
    i = (nasked - 1 - which % (nasked < ASKED_MAX ? nasked : ASKED_MAX)) %
        ASKED_MAX;
    if (stun_looks(asked[i].msg, asked[i].len)) {
        answer_stun(asked[i].msg, from & 3);
        return;
    }
    for (k = 0; k < PEERS; k++) {
        shared_with((uint8_t)k, shared);
        if (disco_open(&msg, shared, asked[i].msg, asked[i].len) == 0)
            break;
    }
    if (k == PEERS || msg.type != DISCO_PING)
        return;
    memcpy(b + 2, msg.txid, sizeof(msg.txid));
    b[30] = 1;
    bring_disco(b, sizeof(b), from, (uint8_t)k);
}

/* ---- what else happens ---- */

static void
change_peer(struct fuzz_input *in, uint8_t which)
{
    uint8_t how = fuzz_u8(in), key[32] = {how};
    struct tn_endpoint e = place(how);

    if (!peers[which].set || how % 8 < 3) {
        magic_peer_set(magic, &peers[which].magic, &peers[which].row[how >> 7]);
        peers[which].set = true;
    } else if (how % 8 == 3) {
        magic_peer_clear(magic, &peers[which].magic);
        peers[which].set = false;
    } else if (how % 8 == 4) {
        magic_peer_resume(magic, &peers[which].magic, &e, how & 3);
    } else if (how % 8 == 6) {
        key[0] = 0xee;
        (void)magic_ping(magic, &peers[which].magic, key);
    } else if (how % 8 == 5) {
        magic_peer_disco(magic, &peers[which].magic, key);
    } else {
        magic_heard(magic, &peers[which].magic, &e);
    }
}

static void
change_world(struct fuzz_input *in)
{
    uint8_t how = fuzz_u8(in), what = how >> 4;
    struct tn_endpoint e = place(what);
    struct loop_lookup *l = lookup;

    switch (how & 7) {
    case 0:
        magic_map(magic, what & 1 ? NULL : &map);
        break;
    case 1:
        magic_joined(magic, (what & 1) != 0);
        break;
    case 2:
        nown = what % 3;
        own[0] = place(what).addr;
        own[1] = place(65).addr;
        link_.cb(link_.arg);
        break;
    case 3:
        what = 1 + what % 3;
        derp.up[what] = !derp.up[what];
        derp.ops->changed(derp.ctx, what, derp.up[what]);
        break;
    case 4:
        derp.ops->gone(derp.ctx, 1 + what % 3, peers[what % PEERS].key);
        break;
    case 5:
        if (probe == NULL)
            break;
        probe->ops->answered(probe->ctx, what, 1000u * what + 1);
        if (what & 4)
            probe->ops->over(probe->ctx);
        break;
    case 6:
        if (l == NULL)
            break;
        lookup = NULL;
        l->cb(l->arg, &own[0], what & 1, what & 1 ? NULL : "no such host");
        break;
    default:
        if (what & 8)
            magic_key(magic, peers[what % PEERS].key);
        else
            magic_explicit(magic, &e, what & 1);
    }
}

static void
step(struct fuzz_input *in)
{
    uint8_t what = fuzz_u8(in), which = (what >> 4) % PEERS, from, b[100] = {4};
    struct tn_endpoint dst = place(what);
    struct fuzz_input raw;

    switch (what & 15) {
    case 0:
    case 1:
        if (peers[which].set)
            (void)magic_output(magic, &peers[which].magic, &dst, b, sizeof(b));
        break;
    case 2:
        from = fuzz_u8(in);
        ping(in, from, which);
        break;
    case 3:
    case 4:
    case 5:
        answer(in, fuzz_u8(in));
        break;
    case 6:
        from = fuzz_u8(in);
        call(in, from, which);
        break;
    case 7:
        from = fuzz_u8(in);
        raw = fuzz_bytes(in, fuzz_u8(in));
        bring_disco(raw.p, raw.len, from, which);
        break;
    case 8:
        from = fuzz_u8(in);
        raw = fuzz_bytes(in, fuzz_u8(in));
        bring(raw.p, raw.len, from, which);
        break;
    case 9:
    case 10:
        fuzz_sleep((what >> 4) * 50u);
        break;
    case 11:
        fuzz_sleep((what >> 4) * 5000u);
        break;
    case 12:
    case 13:
        change_peer(in, which);
        break;
    default:
        change_world(in);
    }
}

static void
check(void)
{
    const struct message_netinfo *net = magic_netinfo(magic);
    const struct message_endpoint *e;
    struct magic_way way;
    size_t n, i;

    e = magic_endpoints(magic, &n);
    FUZZ_MUST(n <= MESSAGE_ENDPOINTS && net->nlatency <= MESSAGE_LATENCIES);
    for (i = 0; i < n; i++)
        FUZZ_MUST(e[i].at.port != 0 && e[i].type >= MESSAGE_LOCAL);
    FUZZ_MUST(net->preferred_derp <= 3);
    for (i = 0; i < PEERS; i++) {
        if (!peers[i].set)
            continue;
        way = magic_way(magic, &peers[i].magic);
        FUZZ_MUST(derp_region(&way.at) == 0 || way.at.port == 0);
        FUZZ_MUST(way.state != PATH_DIRECT || way.at.port != 0);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t key[32] = {42}, disco[32] = {43};
    uint16_t home = 0;
    struct magic_config config = {.node = "n",
        .private_key = key,
        .disco = disco,
        .home = &home,
        .port = {41641, 41641}};
    struct fuzz_input in = {data, size};
    unsigned steps, i;

    dice = 1;
    loop.now = 1000000;
    nasked = 0;
    nown = 1;
    own[0] = place(30).addr;
    make_map();
    make_peers();
    magic = magic_new(&config, &ops, NULL);
    FUZZ_MUST(magic != NULL);
    magic_map(magic, &map);
    magic_joined(magic, true);
    for (i = 0; i < PEERS; i++) {
        magic_peer_set(magic, &peers[i].magic, &peers[i].row[0]);
        peers[i].set = true;
    }
    for (steps = 0; in.len > 0 && steps < STEPS_MAX; steps++) {
        step(&in);
        check();
    }
    magic_free(magic);
    FUZZ_MUST(loop.timers == NULL && probe == NULL);
    return 0;
}

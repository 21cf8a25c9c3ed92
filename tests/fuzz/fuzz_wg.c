/* links: core/tn_addr.c tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* links: tailnetd/wg/allowedips.c tailnetd/wg/cookie.c tailnetd/wg/device.c */
/* links: tailnetd/wg/handshake.c tailnetd/wg/index.c tailnetd/wg/peer.c */
/* links: tailnetd/wg/receive.c tailnetd/wg/replay.c tailnetd/wg/send.c */
/* links: tailnetd/wg/timers.c */
/* libs: -lsodium -lcrypto */
/* max_len: 1024 */
/*
 * A WireGuard device with a live session, and a story of datagrams: garbage,
 * genuine messages with changed bytes, messages that a peer seals over any
 * bytes, answers to what the device sends; time passes in between.
 *
 * The peer is made by hand of the handshake functions, so that it can lie.
 * "Random" bytes count up: with zeros only, no second index could be found.
 */
#include "../../ngx_tailnet_module/tailnetd/crypto/aead.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "../../ngx_tailnet_module/tailnetd/wg/cookie.h"
#include "../../ngx_tailnet_module/tailnetd/wg/device.h"
#include "../../ngx_tailnet_module/tailnetd/wg/handshake.h"
#include "fuzz.h"

#define START    1000000
#define LOG      16
#define MSG_ROOM 2048
#define STEPS    64

static struct {
    struct wg_device *d;
    struct wg_peer *p;
    uint64_t now;
    uint32_t random;
    struct tn_endpoint good, src;
    /* What it sent, newest last. */
    struct {
        uint8_t b[MSG_ROOM];
        size_t len;
    } log[LOG];
    size_t nlog;
    uint64_t delivered;
    /* The peer's side. */
    struct handshake_identity me;
    struct handshake hs;
    struct cookie_maker macs;
    struct aead *send;
    uint32_t index; /* of the device */
    uint64_t counter, tai;
} w;

/* ---- the device's surroundings ---- */

static void
op_output(void *ctx, struct wg_peer *p, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len)
{
    (void)ctx;
    FUZZ_MUST(p == NULL || p == w.p);
    FUZZ_MUST(len >= 16 && len <= MSG_ROOM && dst->port != 0);
    FUZZ_MUST((p == NULL) == (msg_get32(msg) == MSG_COOKIE));
    fuzz_touch(msg, len);
    memcpy(w.log[w.nlog % LOG].b, msg, len);
    w.log[w.nlog++ % LOG].len = len;
}

static void
op_deliver(void *ctx, struct wg_peer *p, uint8_t *packet, size_t len)
{
    static const uint8_t inner[4] = {100, 64, 0, 2};

    (void)ctx;
    FUZZ_MUST(p == w.p);
    /* Whole, and of a source that is the peer's. */
    if (packet[0] >> 4 == 4) {
        FUZZ_MUST(len >= 20 && (size_t)(packet[2] << 8 | packet[3]) == len);
        FUZZ_MUST(memcmp(packet + 12, inner, 4) == 0);
    } else {
        FUZZ_MUST(packet[0] >> 4 == 6 && len >= 40);
        FUZZ_MUST((size_t)(packet[4] << 8 | packet[5]) + 40 == len);
        FUZZ_MUST(packet[8] == 0xfd && packet[9] == 0x7a);
    }
    fuzz_touch(packet, len);
    w.delivered++;
}

static void
op_random(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    memset(buf, 0, len);
    w.random++;
    memcpy(buf, &w.random, len < 4 ? len : 4);
}

static void
op_realtime(void *ctx, uint64_t *sec, uint32_t *nsec)
{
    (void)ctx;
    *sec = 1700000000 + (w.now - START) / 1000;
    *nsec = (uint32_t)(w.now % 1000) * 1000000;
}

/* Every message is counted as one thing, once. */
static uint64_t
accounted(const struct wg_counters *c)
{
    return c->rx_packets + c->handshakes_received + c->cookies_sent +
           c->cookies_received + c->drop_malformed + c->drop_mac1 +
           c->drop_ratelimited + c->drop_unknown_peer + c->drop_handshake +
           c->drop_handshake_replay + c->drop_handshake_flood + c->drop_index +
           c->drop_auth + c->drop_replay + c->drop_expired;
}

static void
receive(const uint8_t *msg, size_t len)
{
    const struct wg_counters *c = wg_device_counters(w.d);
    uint64_t before = accounted(c), rx = c->rx_packets,
             inner = c->drop_inner + c->drop_source + w.delivered,
             authentic = rx + c->handshakes_received;
    struct tn_endpoint was = wg_peer_endpoint(w.p), is;
    uint8_t *copy = malloc(len + 16);

    FUZZ_MUST(copy != NULL);
    if (len > 0)
        memcpy(copy, msg, len);
    memset(copy + len, 0, 16);
    wg_receive(w.d, copy, len, &w.src, w.now);
    free(copy);
    FUZZ_MUST(accounted(c) == before + 1);
    FUZZ_MUST(c->drop_inner + c->drop_source + w.delivered <=
              inner + (c->rx_packets - rx));
    /* Only who proved to be the peer moves its endpoint. */
    is = wg_peer_endpoint(w.p);
    if (c->rx_packets + c->handshakes_received == authentic)
        FUZZ_MUST(is.port == was.port && tn_addr_equal(&is.addr, &was.addr));
}

/* ---- the peer ---- */

static void
take_keys(const struct handshake_keys *k, uint32_t index)
{
    aead_free(w.send);
    w.send = aead_new(k->send, AEAD_SEAL);
    FUZZ_MUST(w.send != NULL);
    w.index = index;
    w.counter = 0;
}

static void
make_initiation(struct msg_initiation *m)
{
    uint8_t key[32], ephemeral[32] = {0x42}, tai[MSG_TAI64N_LEN] = {0x40};

    wg_device_public_key(w.d, key);
    noise_clamp(ephemeral);
    msg_put64(tai + 4, 0);
    tai[10] = (uint8_t)(++w.tai >> 8);
    tai[11] = (uint8_t)w.tai;
    msg_put32(m->type, MSG_INITIATION);
    msg_put32(m->sender, 0x1000);
    FUZZ_MUST(
        handshake_create_initiation(&w.hs, &w.me, key, ephemeral, tai, m) == 0);
}

static void
put_macs(uint8_t *msg, size_t len)
{
    uint8_t key[32];

    wg_device_public_key(w.d, key);
    cookie_add_macs(&w.macs, msg, len, key, 120000, w.now);
}

/* Answers the last message, if it was a handshake's. */
static void
answer(struct fuzz_input *in)
{
    static const uint8_t psk[32];
    uint8_t ephemeral[32] = {0x43}, tai[MSG_TAI64N_LEN], key[32];
    uint8_t change = fuzz_u8(in), at = fuzz_u8(in);
    size_t last = (w.nlog + LOG - 1) % LOG;
    struct handshake_keys k;
    struct msg_initiation i;
    struct msg_response r;
    struct msg_cookie c;
    struct handshake hs;

    if (w.nlog == 0)
        return;
    switch (msg_get32(w.log[last].b)) {
    case MSG_INITIATION:
        memcpy(&i, w.log[last].b, sizeof(i));
        noise_clamp(ephemeral);
        msg_put32(r.type, MSG_RESPONSE);
        msg_put32(r.sender, 0x2000);
        memcpy(r.receiver, i.sender, 4);
        if (handshake_read_static(&hs, &w.me, &i) != 0 ||
            handshake_read_timestamp(&hs, &w.me, &i, tai) != 0 ||
            handshake_create_response(&hs, psk, ephemeral, &r, &k) != 0)
            return;
        ((uint8_t *)&r)[at % 60] ^= change;
        put_macs((uint8_t *)&r, sizeof(r));
        receive((uint8_t *)&r, sizeof(r));
        if (change == 0)
            take_keys(&k, msg_get32(i.sender));
        break;
    case MSG_RESPONSE:
        memcpy(&r, w.log[last].b, sizeof(r));
        if (handshake_read_response(&w.hs, &w.me, psk, &r, &k) == 0)
            take_keys(&k, msg_get32(r.sender));
        break;
    case MSG_COOKIE:
        memcpy(&c, w.log[last].b, sizeof(c));
        wg_device_public_key(w.d, key);
        cookie_take_reply(&w.macs, &c, key, w.now);
        break;
    }
}

static void
initiate(struct fuzz_input *in)
{
    uint8_t change = fuzz_u8(in), at = fuzz_u8(in);
    struct msg_initiation m;

    make_initiation(&m);
    ((uint8_t *)&m)[at % 116] ^= change;
    put_macs((uint8_t *)&m, sizeof(m));
    receive((uint8_t *)&m, sizeof(m));
}

/* Any bytes, sealed as they are; ${mend}: with headers that fit. */
static void
send_sealed(struct fuzz_input *in, unsigned how)
{
    struct fuzz_input part = fuzz_bytes(in, fuzz_u8(in));
    uint8_t b[16 + 512] = {0}, *p = b + 16;
    size_t len = (part.len + 15) & ~(size_t)15;
    uint64_t counter = w.counter;

    if (part.len > 0)
        memcpy(p, part.p, part.len);
    if ((how & 1) && len >= 48) {
        p[0] = how & 2 ? 0x60 : 0x45;
        /* The peer's source, but for its last byte (IPv6: its second). */
        if (how & 2)
            p[8] = 0xfd;
        else
            memcpy(p + 12, (const uint8_t[]){100, 64, 0}, 3);
        if (how & 4)
            p[how & 2 ? 4 : 2] = 0;
    }
    if (how & 8)
        counter += fuzz_u16(in);
    if (how & 16)
        counter = UINT64_MAX - fuzz_u16(in);
    else if (counter >= w.counter)
        w.counter = counter + 1;
    msg_put32(b, MSG_TRANSPORT);
    msg_put32(b + 4, w.index);
    msg_put64(b + 8, counter);
    aead_seal(w.send, counter, p, len);
    receive(b, 16 + len + 16);
}

/* One of the messages that were seen, with changed bytes. */
static void
send_changed(struct fuzz_input *in)
{
    uint8_t b[MSG_ROOM + 64], n = fuzz_u8(in);
    size_t which = n % LOG, len = w.log[which].len, count = 1 + n / 64;

    if (len == 0)
        return;
    memset(b, 0, sizeof(b));
    memcpy(b, w.log[which].b, len);
    while (count-- > 0)
        b[fuzz_u8(in) % len] ^= fuzz_u8(in);
    if (n & 16)
        len = fuzz_u8(in) % (len + 64);
    if ((n & 32) && len > 32)
        put_macs(b, len);
    receive(b, len);
}

/* ---- the story ---- */

static void
send_inner(struct fuzz_input *in, unsigned how)
{
    struct fuzz_input part = fuzz_bytes(in, fuzz_u8(in));
    uint8_t *room = malloc(WG_HEADROOM + part.len + WG_TAILROOM);
    uint8_t *p = room + WG_HEADROOM;

    FUZZ_MUST(room != NULL);
    memset(room, 0xee, WG_HEADROOM + part.len + WG_TAILROOM);
    if (part.len > 0)
        memcpy(p, part.p, part.len);
    if ((how & 1) && part.len >= 20) {
        p[0] = 0x45;
        memcpy(p + 16, (const uint8_t[]){100, 64, 0, 2}, 4);
    }
    wg_send(w.d, p, part.len, w.now);
    free(room);
}

static void
pass(uint64_t ms)
{
    uint64_t until = w.now + ms, at;
    unsigned i;

    /* Timers are due in order; an end to it shows that none is due forever. */
    for (i = 0; (at = wg_next_deadline(w.d)) <= until; i++) {
        FUZZ_MUST(i < 10000);
        if (at > w.now)
            w.now = at;
        wg_tick(w.d, w.now);
        FUZZ_MUST(wg_next_deadline(w.d) > w.now);
    }
    w.now = until;
}

static void
step(struct fuzz_input *in)
{
    static const uint8_t psk[32] = {9};
    uint8_t what = fuzz_u8(in), how = what >> 4;
    struct fuzz_input part;

    switch (what & 15) {
    case 0:
        part = fuzz_bytes(in, fuzz_u8(in));
        receive(part.p, part.len);
        break;
    case 1:
    case 2:
        send_changed(in);
        break;
    case 3:
    case 4:
        send_sealed(in, how);
        break;
    case 5:
        send_sealed(in, how | 16);
        break;
    case 6:
        initiate(in);
        break;
    case 7:
        answer(in);
        break;
    case 8:
        send_inner(in, how);
        break;
    case 9:
        pass(fuzz_u8(in));
        break;
    case 10:
        pass((uint64_t)fuzz_u8(in) * 1000);
        break;
    case 11:
        w.src.addr.b[15] = how;
        w.src.port = (uint16_t)(1 + fuzz_u8(in));
        break;
    case 12:
        wg_force_load(w.d, how & 1);
        break;
    case 13:
        wg_initiate(w.d, w.p, w.now);
        break;
    case 14:
        if (how & 1)
            wg_peer_set_psk(w.p, how & 2 ? psk : NULL);
        break;
    case 15:
        w.tai += how; /* an older one comes by sending what is in the log */
        break;
    }
}

static void
begin(void)
{
    static const struct tn_prefix inner[2] = {
        {{{[10] = 0xff, 0xff, 100, 64, 0, 2}}, 128},
        {{{0xfd, 0x7a}}, 16},
    };
    struct wg_config c = {.private_key = {8, [31] = 0x40},
        .timing = wg_timing_default,
        .mtu = 1280,
        .ops = {.output = op_output,
            .deliver = op_deliver,
            .random = op_random,
            .realtime = op_realtime}};
    struct fuzz_input none = {NULL, 0};

    memset(&w, 0, sizeof(w));
    w.now = START;
    w.good.addr = tn_addr_from4((const uint8_t[4]){192, 0, 2, 1});
    w.good.port = 51820;
    w.src = w.good;
    w.me.private_key[0] = 16;
    w.me.private_key[31] = 0x40;
    noise_public_key(w.me.public_key, w.me.private_key);
    w.d = wg_device_new(&c, w.now);
    FUZZ_MUST(w.d != NULL);
    w.p = wg_peer_add(w.d, w.me.public_key, NULL, w.now);
    FUZZ_MUST(w.p != NULL);
    FUZZ_MUST(wg_peer_set_allowed_ips(w.d, w.p, inner, 2) == 0);
    wg_peer_set_endpoint(w.p, &w.good);
    initiate(&none);
    answer(&none);
    FUZZ_MUST(w.send != NULL);
    send_sealed(&none, 0); /* the first message confirms the session */
    FUZZ_MUST(wg_device_counters(w.d)->handshakes_completed == 1);
    w.now += 100;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned i;

    FUZZ_MUST(noise_init() == 0);
    begin();
    for (i = 0; i < STEPS && in.len > 0; i++)
        step(&in);
    aead_free(w.send);
    wg_device_free(w.d);
    return 0;
}

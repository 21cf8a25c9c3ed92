/*
 * send.c: the sending half of a device.
 *
 * A packet is sealed under ->current, or, without a session that may still
 * send, a copy waits and a handshake begins.  Only the side that began a
 * session renews it because of age; the other one would begin at the same
 * moment.
 */
#include "send.h"

#include <stdlib.h>
#include <string.h>

#include "../crypto/noise.h"

/* The longest packet that fits one UDP datagram over IPv4 with its header,
 * padding and tag. */
#define PACKET_MAX \
    (65507 - sizeof(struct msg_transport) - MSG_TAG_LEN - MSG_PADDING_UNIT)

#define TAI64N_EPOCH       UINT64_C(0x400000000000000a) /* 1970 */
#define TAI64N_GRANULARITY UINT32_C(0x1000000) /* ns: hides the exact clock */
#define NSEC_PER_SEC       UINT32_C(1000000000)

static void
put_tai64n(uint8_t t[MSG_TAI64N_LEN], uint64_t sec, uint32_t nsec)
{
    for (int i = 0; i < 8; i++)
        t[i] = (uint8_t)(sec >> (56 - 8 * i));
    for (int i = 0; i < 4; i++)
        t[8 + i] = (uint8_t)(nsec >> (24 - 8 * i));
}

/* The first timestamp of our granularity behind ${t}. */
static void
advance_tai64n(uint8_t t[MSG_TAI64N_LEN])
{
    uint64_t sec = 0;
    uint32_t nsec = 0;

    for (int i = 0; i < 8; i++)
        sec = sec << 8 | t[i];
    for (int i = 8; i < 12; i++)
        nsec = nsec << 8 | t[i];
    nsec = (nsec / TAI64N_GRANULARITY + 1) * TAI64N_GRANULARITY;
    if (nsec == 0 || nsec >= NSEC_PER_SEC) {
        nsec = 0;
        sec++;
    }
    put_tai64n(t, sec, nsec);
}

/* The time, but later than whatever ${p} may have seen from this key, though
 * the clock may have gone back.  A remote drops what is not later. */
static void
stamp(struct wg_device *d, struct wg_peer *p, uint8_t t[MSG_TAI64N_LEN])
{
    uint8_t last[MSG_TAI64N_LEN];
    uint64_t sec;
    uint32_t nsec;

    memcpy(last, p->tai64n_sent, sizeof(last));
    if (memcmp(d->tai64n_floor, last, sizeof(last)) > 0)
        memcpy(last, d->tai64n_floor, sizeof(last));

    d->ops.realtime(d->ctx, &sec, &nsec);
    put_tai64n(t, TAI64N_EPOCH + sec, nsec & ~(TAI64N_GRANULARITY - 1));
    if (memcmp(t, last, sizeof(last)) <= 0) {
        memcpy(t, last, sizeof(last));
        advance_tai64n(t);
    }
    memcpy(p->tai64n_sent, t, MSG_TAI64N_LEN);
    if (memcmp(t, d->tai64n_last, MSG_TAI64N_LEN) > 0)
        memcpy(d->tai64n_last, t, MSG_TAI64N_LEN);
}

static uint32_t
pick_index(struct wg_device *d)
{
    uint8_t raw[4];

    do
        d->ops.random(d->ctx, raw, sizeof(raw));
    while (index_find(&d->indices, msg_get32(raw)) != NULL);
    return msg_get32(raw);
}

static void
output_handshake(struct wg_device *d, struct wg_peer *p, uint8_t *msg,
    size_t len, uint64_t now)
{
    cookie_add_macs(
        &p->session->cookie, msg, len, p->key, d->timing.cookie_life, now);
    d->counters.handshakes_sent++;
    d->ops.output(d->ctx, p, &p->endpoint, msg, len);
    timers_any_sent(&p->timers);
}

void
send_initiation(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    struct peer_session *s = peer_session(p);
    uint8_t ephemeral[MSG_KEY_LEN], tai64n[MSG_TAI64N_LEN];
    struct msg_initiation m;
    int rv;

    /* Whatever goes wrong below, the retry is the remedy. */
    p->initiation_sent = now;
    p->has_sent = true;
    p->stats.handshake_attempts++;
    timers_initiation_sent(&d->timers, &p->timers, now);
    if (s == NULL)
        return;

    peer_forget_handshake(p);
    stamp(d, p, tai64n);
    d->ops.random(d->ctx, ephemeral, sizeof(ephemeral));
    rv = handshake_create_initiation(
        &s->handshake, &d->identity, p->key, ephemeral, tai64n, &m);
    noise_wipe(ephemeral, sizeof(ephemeral));
    if (rv == -1)
        return;
    index_add(&d->indices, &s->local, pick_index(d));
    msg_put32(m.type, MSG_INITIATION);
    msg_put32(m.sender, s->local.index);
    output_handshake(d, p, (uint8_t *)&m, sizeof(m), now);
}

int
send_response(struct wg_device *d, struct wg_peer *p, struct handshake *hs,
    uint32_t sender, uint64_t now)
{
    uint8_t ephemeral[MSG_KEY_LEN];
    struct handshake_keys keys = {{0}, {0}};
    struct peer_keypair *k = NULL;
    struct msg_response m;
    int rv;

    d->ops.random(d->ctx, ephemeral, sizeof(ephemeral));
    rv = handshake_create_response(hs, p->psk, ephemeral, &m, &keys);
    noise_wipe(ephemeral, sizeof(ephemeral));
    if (rv == 0 && peer_session(p) != NULL)
        k = peer_keypair_new(p, &keys, false, sender, now);
    noise_wipe(&keys, sizeof(keys));
    if (k == NULL)
        return -1;

    peer_keypair_install(p, k, pick_index(d));
    timers_session_derived(&d->timers, &p->timers, now);
    msg_put32(m.type, MSG_RESPONSE);
    msg_put32(m.sender, k->local.index);
    msg_put32(m.receiver, sender);
    output_handshake(d, p, (uint8_t *)&m, sizeof(m), now);
    return 0;
}

void
send_cookie(struct wg_device *d, const uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now)
{
    uint8_t nonce[MSG_XNONCE_LEN], secret[COOKIE_SECRET_LEN];
    struct msg_cookie reply;

    if (cookie_secret_stale(&d->checker, d->timing.cookie_life, now)) {
        d->ops.random(d->ctx, secret, sizeof(secret));
        cookie_set_secret(&d->checker, secret, now);
        noise_wipe(secret, sizeof(secret));
    }
    d->ops.random(d->ctx, nonce, sizeof(nonce));
    cookie_make_reply(&d->checker, &reply, msg, len, src, nonce);
    d->counters.cookies_sent++;
    d->ops.output(d->ctx, NULL, src, (uint8_t *)&reply, sizeof(reply));
}

/* How many zero bytes go behind ${len} bytes of packet. */
static size_t
padding(const struct wg_device *d, size_t len)
{
    size_t pad = -len % MSG_PADDING_UNIT;

    if (len >= d->mtu)
        return 0;
    return len + pad <= d->mtu ? pad : d->mtu - len;
}

/* Begin a handshake that somebody has a use for, so that its time to give up
 * starts anew; not within rekey_timeout of the last one. */
static bool
begin_handshake(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    p->attempt_since = now;
    if (p->has_sent && now - p->initiation_sent < d->timing.rekey_timeout)
        return false;
    send_initiation(d, p, now);
    return true;
}

/* Seal in place under ->current, which peer_can_send(). */
static void
transmit(struct wg_device *d, struct wg_peer *p, uint8_t *packet, size_t len,
    uint64_t now)
{
    struct peer_keypair *k = p->session->current;
    struct msg_transport *m =
        (struct msg_transport *)(packet - sizeof(struct msg_transport));
    size_t pad = padding(d, len);
    size_t total = sizeof(*m) + len + pad + MSG_TAG_LEN;

    memset(packet + len, 0, pad);
    msg_put32(m->type, MSG_TRANSPORT);
    msg_put32(m->receiver, k->remote);
    msg_put64(m->counter, k->counter);
    aead_seal(k->send, k->counter, packet, len + pad);
    k->counter++;

    d->counters.tx_packets++;
    d->counters.tx_bytes += total;
    p->stats.tx_bytes += total;
    d->ops.output(d->ctx, p, &p->endpoint, (uint8_t *)m, total);
    timers_any_sent(&p->timers);
    if (len > 0)
        timers_data_sent(&d->timers, &p->timers, now);
    if (k->initiator && (k->counter > MSG_REKEY_AFTER_MESSAGES ||
                            now - k->since >= d->timing.rekey_after))
        begin_handshake(d, p, now);
}

void
send_staged(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    struct peer_staged *one;

    while (peer_can_send(p, now) && (one = peer_unstage(p)) != NULL) {
        transmit(d, p, one->room + WG_HEADROOM, one->len, now);
        free(one);
    }
}

void
send_keepalive(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    uint8_t room[WG_HEADROOM + WG_TAILROOM];

    if (peer_can_send(p, now))
        transmit(d, p, room + WG_HEADROOM, 0, now);
}

/* Where an IP packet goes.  Returns 0, or -1: not an IP packet, or an IPv6 one
 * to an IPv4-mapped address, which would be taken for IPv4. */
static int
destination(const uint8_t *packet, size_t len, struct tn_addr *a)
{
    if (len >= 20 && packet[0] >> 4 == 4)
        *a = tn_addr_from4(packet + 16);
    else if (len >= 40 && packet[0] >> 4 == 6)
        *a = tn_addr_from6(packet + 24);
    else
        return -1;
    return packet[0] >> 4 == 6 && tn_addr_is4(a) ? -1 : 0;
}

void
wg_send(struct wg_device *d, uint8_t *packet, size_t len, uint64_t now)
{
    struct tn_addr dst;
    struct wg_peer *p;

    now = state_now(d, now);
    if (len > PACKET_MAX || destination(packet, len, &dst) == -1) {
        d->counters.drop_inner++;
        return;
    }
    p = wg_route(d, &dst);
    if (p == NULL || p->nobody) {
        d->counters.drop_no_route++;
        return;
    }
    if (peer_can_send(p, now)) {
        transmit(d, p, packet, len, now);
        return;
    }
    peer_stage(p, packet, len);
    if (!begin_handshake(d, p, now))
        timers_initiation_deferred(&d->timers, &p->timers,
            p->initiation_sent + d->timing.rekey_timeout);
}

void
wg_initiate(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    if (!p->nobody)
        begin_handshake(d, p, state_now(d, now));
}

void
wg_retry(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    if (timers_runs(&p->timers, TIMERS_RETRANSMIT))
        send_initiation(d, p, state_now(d, now));
}

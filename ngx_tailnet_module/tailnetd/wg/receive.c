/*
 * receive.c: the receiving half of a device.
 *
 * The length is checked against the type before anything else.  Handshake
 * messages pass mac1, then, under load, mac2 and the rate limit, and only then
 * cost public-key operations.  Transport messages are opened before their
 * counter is looked at, so that a forger cannot move the replay window.  A
 * message that is dropped is in one counter, named at the place; one that is
 * answered by a cookie is in cookies_sent.
 */
#include <string.h>

#include "../crypto/noise.h"
#include "send.h"
#include "state.h"

/* IPv4 (RFC 791) and IPv6 (RFC 8200) headers, as far as they matter here. */
#define IP4_HEADER 20
#define IP4_LENGTH 2
#define IP4_SOURCE 12
#define IP6_HEADER 40
#define IP6_LENGTH 4
#define IP6_SOURCE 8

static bool
under_load(struct wg_device *d, uint64_t now)
{
    struct state_load *l = &d->load;

    if (now - l->since >= STATE_LOAD_PERIOD) {
        l->since = now;
        l->messages = 0;
    }
    if (++l->messages > STATE_LOAD_HANDSHAKES)
        l->until = now + STATE_LOAD_PERIOD;
    return l->forced || now < l->until;
}

/* Whether a handshake message is worth public-key operations. */
static bool
admit(struct wg_device *d, const uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now)
{
    if (!cookie_check_mac1(&d->checker, msg, len)) {
        d->counters.drop_mac1++;
        if (msg_get32(msg) == MSG_INITIATION)
            state_failed(d, WG_FAILURE_MAC1, NULL, src, now);
        return false;
    }
    if (!under_load(d, now))
        return true;
    if (cookie_secret_stale(&d->checker, d->timing.cookie_life, now) ||
        !cookie_check_mac2(&d->checker, msg, len, src)) {
        send_cookie(d, msg, len, src, now);
        return false;
    }
    if (!cookie_limiter_allow(d->limiter, &src->addr, now)) {
        d->counters.drop_ratelimited++;
        return false;
    }
    return true;
}

/* Something authentic came from ${p}. */
static void
heard(struct wg_device *d, struct wg_peer *p, const struct tn_endpoint *src,
    uint64_t now)
{
    p->stats.last_receive = now;
    timers_any_received(&p->timers);
    if (d->ops.roam == NULL || d->ops.roam(d->ctx, p, src))
        p->endpoint = *src;
}

/* ${p}'s present session may be sent with. */
static void
complete(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    d->counters.handshakes_completed++;
    p->stats.last_handshake = now;
    p->stats.handshake_attempts = 0;
    p->rekeyed_on_receive = false;
    p->bad_answer = false;
    p->unused_responses = 0;
    peer_forget_handshake(p);
    timers_handshake_complete(&p->timers);
}

/* Who sent the initiation ${m} and that it is a new one; counts the drop. */
static struct wg_peer *
read_initiation(struct wg_device *d, struct handshake *hs,
    const struct msg_initiation *m, const struct tn_endpoint *src, uint64_t now)
{
    uint8_t tai64n[MSG_TAI64N_LEN];
    struct wg_peer *p;

    if (handshake_read_static(hs, &d->identity, m) == -1) {
        d->counters.drop_handshake++;
        return NULL;
    }
    p = peer_table_find(&d->peers, hs->remote_static);
    if (p == NULL) {
        d->counters.drop_unknown_peer++;
        state_failed(d, WG_FAILURE_UNKNOWN, hs->remote_static, src, now);
        return NULL;
    }
    if (handshake_read_timestamp(hs, &d->identity, m, tai64n) == -1) {
        d->counters.drop_handshake++;
        return NULL;
    }
    if (memcmp(tai64n, p->tai64n_seen, sizeof(tai64n)) <= 0) {
        d->counters.drop_handshake_replay++;
        return NULL;
    }
    if (p->has_seen &&
        now - p->initiation_seen < d->timing.initiation_spacing) {
        d->counters.drop_handshake_flood++;
        return NULL;
    }
    memcpy(p->tai64n_seen, tai64n, sizeof(tai64n));
    p->initiation_seen = now;
    p->has_seen = true;
    return p;
}

/* ${p} was sent a response.  It begins anew as long as it cannot use one. */
static void
responded(struct wg_device *d, struct wg_peer *p, const struct tn_endpoint *src,
    uint64_t now)
{
    d->counters.handshakes_received++;
    if (++p->unused_responses <= WG_UNUSED_RESPONSES)
        return;
    p->unused_responses = 1;
    state_failed(d, WG_FAILURE_UNUSED, p->key, src, now);
}

static void
receive_initiation(struct wg_device *d, const struct msg_initiation *m,
    const struct tn_endpoint *src, uint64_t now)
{
    struct handshake hs;
    struct wg_peer *p;

    if (!admit(d, (const uint8_t *)m, sizeof(*m), src, now))
        return;
    p = read_initiation(d, &hs, m, src, now);
    if (p != NULL) {
        heard(d, p, src, now);
        if (send_response(d, p, &hs, msg_get32(m->sender), now) == 0)
            responded(d, p, src, now);
        else
            d->counters.drop_handshake++;
    }
    noise_wipe(&hs, sizeof(hs));
}

static void
receive_response(struct wg_device *d, const struct msg_response *m,
    const struct tn_endpoint *src, uint64_t now)
{
    struct handshake_keys keys = {{0}, {0}};
    struct peer_keypair *k = NULL;
    struct index_entry *e;
    struct wg_peer *p;
    uint32_t index = msg_get32(m->receiver);

    if (!admit(d, (const uint8_t *)m, sizeof(*m), src, now))
        return;
    e = index_find(&d->indices, index);
    if (e == NULL || e->kind != INDEX_HANDSHAKE) {
        d->counters.drop_index++;
        return;
    }
    p = e->peer;
    if (handshake_read_response(
            &p->session->handshake, &d->identity, p->psk, m, &keys) == 0)
        k = peer_keypair_new(p, &keys, true, msg_get32(m->sender), now);
    noise_wipe(&keys, sizeof(keys));
    if (k == NULL) {
        d->counters.drop_handshake++;
        p->bad_answer = true;
        state_failed(d, WG_FAILURE_ANSWER, p->key, src, now);
        return;
    }

    d->counters.handshakes_received++;
    peer_forget_handshake(p); /* frees the index for the session */
    peer_keypair_install(p, k, index);
    timers_session_derived(&d->timers, &p->timers, now);
    heard(d, p, src, now);
    complete(d, p, now);
    /* The responder may not send before it has heard from us. */
    if (p->session->staged != NULL)
        send_staged(d, p, now);
    else
        send_keepalive(d, p, now);
}

static void
receive_cookie(struct wg_device *d, const struct msg_cookie *m, uint64_t now)
{
    struct index_entry *e = index_find(&d->indices, msg_get32(m->receiver));

    if (e == NULL) {
        d->counters.drop_index++;
        return;
    }
    if (!cookie_take_reply(&e->peer->session->cookie, m, e->peer->key, now)) {
        d->counters.drop_auth++;
        return;
    }
    d->counters.cookies_received++;
}

/*
 * The source and the length of the IP packet at the start of ${len} bytes.
 * Returns 0, or -1: not a whole IP packet, or an IPv6 one with an IPv4-mapped
 * source, which would be taken for IPv4.
 */
static int
inspect(const uint8_t *packet, size_t *len, struct tn_addr *source)
{
    size_t total;

    if (*len >= IP4_HEADER && packet[0] >> 4 == 4) {
        total = (size_t)packet[IP4_LENGTH] << 8 | packet[IP4_LENGTH + 1];
        if (total < IP4_HEADER)
            return -1;
        *source = tn_addr_from4(packet + IP4_SOURCE);
    } else if (*len >= IP6_HEADER && packet[0] >> 4 == 6) {
        total = (size_t)packet[IP6_LENGTH] << 8 | packet[IP6_LENGTH + 1];
        total += IP6_HEADER;
        *source = tn_addr_from6(packet + IP6_SOURCE);
        if (tn_addr_is4(source))
            return -1;
    } else {
        return -1;
    }
    if (total > *len)
        return -1;
    *len = total;
    return 0;
}

/* A session of ours that is about to end is renewed early when there is still
 * traffic towards us, even though we send nothing. */
static void
renew_on_receive(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    const struct wg_timing *t = &d->timing;
    const struct peer_keypair *k = p->session->current;

    if (p->rekeyed_on_receive || k == NULL || !k->initiator ||
        !peer_can_send(p, now))
        return;
    if (now - k->since + t->keepalive + t->rekey_timeout < t->reject_after)
        return;
    p->rekeyed_on_receive = true;
    wg_initiate(d, p, now);
}

/* The session that may open ${m}; NULL: counted. */
static struct peer_keypair *
session_of(struct wg_device *d, const struct msg_transport *m, uint64_t now)
{
    struct index_entry *e = index_find(&d->indices, msg_get32(m->receiver));
    struct peer_keypair *k;

    if (e == NULL || e->kind != INDEX_KEYPAIR) {
        d->counters.drop_index++;
        return NULL;
    }
    k = (struct peer_keypair *)((char *)e -
                                offsetof(struct peer_keypair, local));
    if (now - k->since >= d->timing.reject_after ||
        msg_get64(m->counter) >= MSG_REJECT_AFTER_MESSAGES) {
        d->counters.drop_expired++;
        return NULL;
    }
    return k;
}

/* An authentic packet of ${p}, still padded. */
static void
receive_packet(
    struct wg_device *d, struct wg_peer *p, uint8_t *packet, size_t len)
{
    struct tn_addr source;

    if (inspect(packet, &len, &source) == -1) {
        d->counters.drop_inner++;
        return;
    }
    if (wg_route(d, &source) != p) {
        d->counters.drop_source++;
        return;
    }
    d->ops.deliver(d->ctx, p, packet, len);
}

static void
receive_transport(struct wg_device *d, uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now)
{
    const struct msg_transport *m = (const struct msg_transport *)msg;
    uint64_t counter = msg_get64(m->counter);
    struct peer_keypair *k = session_of(d, m, now);
    size_t sealed = len - sizeof(*m);
    struct wg_peer *p;

    if (k == NULL) {
        if (d->ops.stranger != NULL)
            d->ops.stranger(d->ctx, src, now);
        return;
    }
    if (!aead_open(k->receive, counter, msg + sizeof(*m), sealed)) {
        d->counters.drop_auth++;
        return;
    }
    if (!replay_accept(&k->replay, counter)) {
        d->counters.drop_replay++;
        return;
    }

    p = k->local.peer;
    d->counters.rx_packets++;
    d->counters.rx_bytes += len;
    p->stats.rx_bytes += len;
    heard(d, p, src, now);
    if (peer_keypair_used(p, k)) {
        complete(d, p, now);
        send_staged(d, p, now);
    }
    renew_on_receive(d, p, now);
    if (sealed == MSG_TAG_LEN)
        return; /* keepalive */
    timers_data_received(&d->timers, &p->timers, now);
    receive_packet(d, p, msg + sizeof(*m), sealed - MSG_TAG_LEN);
}

void
wg_receive(struct wg_device *d, uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now)
{
    uint32_t type = len >= sizeof(struct msg_transport) ? msg_get32(msg) : 0;

    now = state_now(d, now);
    if (type == MSG_TRANSPORT && len >= MSG_TRANSPORT_MIN)
        receive_transport(d, msg, len, src, now);
    else if (type == MSG_INITIATION && len == sizeof(struct msg_initiation))
        receive_initiation(d, (struct msg_initiation *)msg, src, now);
    else if (type == MSG_RESPONSE && len == sizeof(struct msg_response))
        receive_response(d, (struct msg_response *)msg, src, now);
    else if (type == MSG_COOKIE && len == sizeof(struct msg_cookie))
        receive_cookie(d, (struct msg_cookie *)msg, now);
    else
        d->counters.drop_malformed++;
}

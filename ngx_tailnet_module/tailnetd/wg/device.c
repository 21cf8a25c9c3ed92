/*
 * device.c: see device.h.  Peers are in peer.c, the two directions of traffic
 * in send.c and receive.c; here is the life of a device and its time.
 */
#include "device.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "../crypto/noise.h"
#include "send.h"
#include "state.h"

const struct wg_timing wg_timing_default = {
    .rekey_after = 120000,
    .reject_after = 180000,
    .rekey_attempt = 90000,
    .rekey_timeout = 5000,
    .rekey_jitter = 334,
    .keepalive = 10000,
    .cookie_life = 120000,
    .initiation_spacing = 20,
};

struct wg_device *
wg_device_new(const struct wg_config *c, uint64_t now)
{
    struct wg_device *d;
    uint8_t seed[sizeof(uint64_t)], limiter_key[16];

    if (noise_init() == -1)
        return NULL;
    d = calloc(1, sizeof(*d));
    if (d == NULL)
        return NULL;
    d->ops = c->ops;
    d->ctx = c->ctx;
    d->timing = c->timing;
    d->mtu = c->mtu;
    d->now = now;
    d->load.since = now;

    memcpy(d->identity.private_key, c->private_key, MSG_KEY_LEN);
    noise_clamp(d->identity.private_key);
    noise_public_key(d->identity.public_key, d->identity.private_key);
    cookie_checker_init(&d->checker, d->identity.public_key);

    d->ops.random(d->ctx, seed, sizeof(seed));
    timers_queue_init(&d->timers, &d->timing, msg_get64(seed));
    d->ops.random(d->ctx, d->peers.key, sizeof(d->peers.key));
    d->ops.random(d->ctx, limiter_key, sizeof(limiter_key));
    d->limiter = cookie_limiter_new(limiter_key);
    if (d->limiter == NULL || peer_table_init(&d->peers) == -1 ||
        index_table_init(&d->indices) == -1) {
        wg_device_free(d);
        return NULL;
    }
    return d;
}

void
wg_device_free(struct wg_device *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; d->peers.buckets != NULL && i < d->peers.size; i++)
        while (d->peers.buckets[i] != NULL)
            wg_peer_remove(d, d->peers.buckets[i]);
    peer_table_free(&d->peers);
    index_table_free(&d->indices);
    timers_queue_free(&d->timers);
    cookie_limiter_free(d->limiter);
    noise_wipe(d, sizeof(*d));
    free(d);
}

void
wg_device_public_key(const struct wg_device *d, uint8_t key[32])
{
    memcpy(key, d->identity.public_key, MSG_KEY_LEN);
}

const struct wg_counters *
wg_device_counters(const struct wg_device *d)
{
    return &d->counters;
}

void
wg_drop_no_endpoint(struct wg_device *d)
{
    d->counters.drop_no_endpoint++;
}

void
wg_tai64n(const struct wg_device *d, uint8_t t[12])
{
    bool own = memcmp(d->tai64n_last, d->tai64n_floor, MSG_TAI64N_LEN) > 0;

    memcpy(t, own ? d->tai64n_last : d->tai64n_floor, MSG_TAI64N_LEN);
}

void
wg_set_tai64n(struct wg_device *d, const uint8_t t[12])
{
    if (memcmp(t, d->tai64n_floor, MSG_TAI64N_LEN) > 0)
        memcpy(d->tai64n_floor, t, MSG_TAI64N_LEN);
}

void
wg_force_load(struct wg_device *d, bool on)
{
    d->load.forced = on;
}

uint64_t
wg_next_deadline(const struct wg_device *d)
{
    return timers_queue_next(&d->timers);
}

/* No response came in time. */
static void
retransmit(struct wg_device *d, struct wg_peer *p, uint64_t now)
{
    if (p->stats.handshake_attempts >= WG_SILENT_INITIATIONS && !p->bad_answer)
        state_failed(d, WG_FAILURE_SILENCE, p->key, &p->endpoint, now);
    if (now - p->attempt_since < d->timing.rekey_attempt) {
        send_initiation(d, p, now);
        return;
    }
    p->stats.handshake_attempts = 0;
    p->bad_answer = false;
    timers_handshake_failed(&p->timers);
    peer_forget_handshake(p);
    peer_drop_staged(p);
    peer_relax(p);
}

static void
zero_keys(struct wg_peer *p)
{
    peer_forget_keys(p);
    /* A handshake under way belongs to the session to come. */
    if (!timers_runs(&p->timers, TIMERS_RETRANSMIT))
        peer_forget_handshake(p);
    peer_relax(p);
}

void
wg_tick(struct wg_device *d, uint64_t now)
{
    enum timers_kind kind;
    struct timers *t;

    now = state_now(d, now);
    while ((t = timers_queue_expire(&d->timers, now, &kind)) != NULL) {
        struct wg_peer *p =
            (struct wg_peer *)((char *)t - offsetof(struct wg_peer, timers));

        switch (kind) {
        case TIMERS_RETRANSMIT:
            retransmit(d, p, now);
            break;
        case TIMERS_KEEPALIVE:
            send_keepalive(d, p, now);
            break;
        case TIMERS_NEW_HANDSHAKE:
            wg_initiate(d, p, now);
            break;
        case TIMERS_ZERO_KEYS:
            zero_keys(p);
            break;
        case TIMERS_KINDS:
            break;
        }
    }
}

/*
 * state.h: the inside of a device, for the files of this folder.
 */
#ifndef STATE_H
#define STATE_H

#include "allowedips.h"
#include "cookie.h"
#include "device.h"
#include "handshake.h"
#include "index.h"
#include "peer.h"
#include "timers.h"

#define STATE_STAGED_MAX 16384 /* packets of all peers that wait */

/* Under load: more handshake messages than this within a second. */
#define STATE_LOAD_HANDSHAKES 512
#define STATE_LOAD_PERIOD     1000 /* ms; also how long it lasts at least */

struct state_load {
    uint64_t since;    /* of the present period */
    uint32_t messages; /* in it */
    uint64_t until;
    bool forced;
};

struct wg_device {
    struct wg_ops ops;
    void *ctx;
    struct wg_timing timing;
    uint16_t mtu;
    struct handshake_identity identity;
    struct cookie_checker checker;
    struct cookie_limiter *limiter;
    struct state_load load;
    struct peer_table peers;
    struct index_table indices;
    struct allowedips routes;
    struct timers_queue timers;
    struct wg_counters counters;
    uint64_t now;                        /* latest time that was passed in */
    size_t staged;                       /* packets of all peers */
    uint8_t tai64n_last[MSG_TAI64N_LEN]; /* greatest that was sent */
    /* Greatest that may have been sent to a peer that we know nothing of. */
    uint8_t tai64n_floor[MSG_TAI64N_LEN];
};

/* state_now(d, now): ${now}, or the latest time known should a caller be late:
 * no duration is ever negative. */
static inline uint64_t
state_now(struct wg_device *d, uint64_t now)
{
    if (now > d->now)
        d->now = now;
    return d->now;
}

/* state_failed(d, why, key, at, now): tells the device's owner. */
static inline void
state_failed(const struct wg_device *d, enum wg_failure why, const uint8_t *key,
    const struct tn_endpoint *at, uint64_t now)
{
    if (d->ops.failed != NULL)
        d->ops.failed(d->ctx, why, key, at, now);
}

#endif

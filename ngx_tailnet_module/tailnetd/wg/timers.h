/*
 * timers.h: the timers of a peer (whitepaper section 6).
 *
 *   retransmit     an initiation was sent and nothing came back: send another,
 *                  or give up after rekey_attempt
 *   keepalive      data was received and nothing sent since: send an empty
 *                  message, so that the remote knows we live
 *   new handshake  data was sent and nothing received since: the session may
 *                  be dead at the remote, begin another
 *   zero keys      no new session for three times reject_after: erase all
 *
 * Callers report events; what they do to timers is known here only.
 */
#ifndef TIMERS_H
#define TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"

#define TIMERS_OFF UINT64_MAX

enum timers_kind {
    TIMERS_RETRANSMIT,
    TIMERS_KEEPALIVE,
    TIMERS_NEW_HANDSHAKE,
    TIMERS_ZERO_KEYS,
    TIMERS_KINDS
};

/* Of one peer. */
struct timers {
    uint64_t at[TIMERS_KINDS]; /* when due; TIMERS_OFF */
    uint64_t wake;             /* the queue's key: never later than any ->at */
    size_t slot;               /* in the queue */
};

/* Of all peers: a heap of those that have a timer running. */
struct timers_queue {
    const struct wg_timing *timing; /* borrowed */
    struct timers **heap;
    size_t count, capacity;
    uint64_t jitter; /* state of a generator; not secret */
};

/* timers_queue_init(q, timing, seed): an empty queue. */
void timers_queue_init(
    struct timers_queue *q, const struct wg_timing *timing, uint64_t seed);
void timers_queue_free(struct timers_queue *q);

/* timers_queue_reserve(q, n): makes room for ${n} peers in all, so that no
 * event can fail.  Returns 0, or -1: no memory. */
int timers_queue_reserve(struct timers_queue *q, size_t n);

/* timers_queue_next(q): no timer is due before; TIMERS_OFF: none runs. */
uint64_t timers_queue_next(const struct timers_queue *q);

/* timers_queue_expire(q, now, kind): takes one timer that is due out; returns
 * whose it was, borrowed, and its ${kind}, or NULL. */
struct timers *timers_queue_expire(
    struct timers_queue *q, uint64_t now, enum timers_kind *kind);

void timers_init(struct timers *t);

/* timers_stop(q, t): stops all, before the peer goes away. */
void timers_stop(struct timers_queue *q, struct timers *t);

bool timers_runs(const struct timers *t, enum timers_kind kind);

/* Events.  Each is reported after what it names has happened. */

/* A transport message with a packet was sent. */
void timers_data_sent(struct timers_queue *q, struct timers *t, uint64_t now);

/* An authentic transport message with a packet was received. */
void timers_data_received(
    struct timers_queue *q, struct timers *t, uint64_t now);

/* Anything was sent that the remote can authenticate. */
void timers_any_sent(struct timers *t);

/* Anything authentic was received. */
void timers_any_received(struct timers *t);

/* An initiation was sent. */
void timers_initiation_sent(
    struct timers_queue *q, struct timers *t, uint64_t now);

/* An initiation is wanted but may not be sent before ${at}. */
void timers_initiation_deferred(
    struct timers_queue *q, struct timers *t, uint64_t at);

/* A session is confirmed for sending. */
void timers_handshake_complete(struct timers *t);

/* Attempts to get a session ended without one. */
void timers_handshake_failed(struct timers *t);

/* Keys of a new session exist. */
void timers_session_derived(
    struct timers_queue *q, struct timers *t, uint64_t now);

#endif

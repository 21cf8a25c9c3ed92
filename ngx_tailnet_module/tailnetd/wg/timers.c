/*
 * timers.c: see timers.h.
 *
 * A busy peer starts and stops its keepalive and new-handshake timers with
 * every packet, so that must cost nothing: stopping a timer, or setting it
 * later than the peer's place in the heap, leaves the heap alone.  When that
 * place comes up and nothing is due, the peer moves to where it belongs.
 */
#include "timers.h"

#include <stdint.h>
#include <stdlib.h>

#define ZERO_KEYS_FACTOR 3 /* times reject_after */
#define NOWHERE          SIZE_MAX

void
timers_queue_init(
    struct timers_queue *q, const struct wg_timing *timing, uint64_t seed)
{
    *q = (struct timers_queue){.timing = timing, .jitter = seed | 1};
}

void
timers_queue_free(struct timers_queue *q)
{
    free(q->heap);
    q->heap = NULL;
}

int
timers_queue_reserve(struct timers_queue *q, size_t n)
{
    size_t capacity = q->capacity > 0 ? q->capacity : 16;
    struct timers **heap;

    if (n <= q->capacity)
        return 0;
    while (capacity < n)
        capacity *= 2;
    heap = reallocarray(q->heap, capacity, sizeof(struct timers *));
    if (heap == NULL)
        return -1;
    q->heap = heap;
    q->capacity = capacity;
    return 0;
}

static void
put(struct timers_queue *q, struct timers *t, size_t slot)
{
    q->heap[slot] = t;
    t->slot = slot;
}

static void
sift_up(struct timers_queue *q, struct timers *t)
{
    size_t i = t->slot;

    while (i > 0 && q->heap[(i - 1) / 2]->wake > t->wake) {
        put(q, q->heap[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    put(q, t, i);
}

static void
sift_down(struct timers_queue *q, struct timers *t)
{
    size_t i = t->slot;

    for (;;) {
        size_t least = 2 * i + 1;

        if (least >= q->count)
            break;
        if (least + 1 < q->count &&
            q->heap[least + 1]->wake < q->heap[least]->wake)
            least++;
        if (q->heap[least]->wake >= t->wake)
            break;
        put(q, q->heap[least], i);
        i = least;
    }
    put(q, t, i);
}

static void
leave(struct timers_queue *q, struct timers *t)
{
    struct timers *last = q->heap[--q->count];

    if (last != t) {
        put(q, last, t->slot);
        sift_up(q, last);
        sift_down(q, last);
    }
    t->slot = NOWHERE;
    t->wake = TIMERS_OFF;
}

static enum timers_kind
earliest(const struct timers *t)
{
    enum timers_kind best = 0;

    for (enum timers_kind k = 1; k < TIMERS_KINDS; k++)
        if (t->at[k] < t->at[best])
            best = k;
    return best;
}

/* Move ${t}, which is in the heap, to where its timers say. */
static void
settle(struct timers_queue *q, struct timers *t)
{
    uint64_t wake = t->at[earliest(t)];

    if (wake == TIMERS_OFF) {
        leave(q, t);
        return;
    }
    t->wake = wake;
    sift_up(q, t);
    sift_down(q, t);
}

static void
set(struct timers_queue *q, struct timers *t, enum timers_kind kind,
    uint64_t at)
{
    t->at[kind] = at;
    if (at >= t->wake)
        return;
    if (t->slot == NOWHERE)
        t->slot = q->count++;
    t->wake = at;
    sift_up(q, t);
}

/* At least one tick from now, so that expiry always comes to an end. */
static uint64_t
after(uint64_t now, uint64_t delay)
{
    return now + (delay > 0 ? delay : 1);
}

/* 0 to rekey_jitter - 1: keeps two peers from meeting again and again. */
static uint64_t
jitter(struct timers_queue *q)
{
    q->jitter ^= q->jitter << 13;
    q->jitter ^= q->jitter >> 7;
    q->jitter ^= q->jitter << 17;
    return q->timing->rekey_jitter > 0 ? q->jitter % q->timing->rekey_jitter
                                       : 0;
}

uint64_t
timers_queue_next(const struct timers_queue *q)
{
    return q->count > 0 ? q->heap[0]->wake : TIMERS_OFF;
}

struct timers *
timers_queue_expire(
    struct timers_queue *q, uint64_t now, enum timers_kind *kind)
{
    while (q->count > 0 && q->heap[0]->wake <= now) {
        struct timers *t = q->heap[0];
        bool due;

        *kind = earliest(t);
        due = t->at[*kind] <= now;
        if (due)
            t->at[*kind] = TIMERS_OFF;
        settle(q, t);
        if (due)
            return t;
    }
    return NULL;
}

void
timers_init(struct timers *t)
{
    for (int k = 0; k < TIMERS_KINDS; k++)
        t->at[k] = TIMERS_OFF;
    t->wake = TIMERS_OFF;
    t->slot = NOWHERE;
}

void
timers_stop(struct timers_queue *q, struct timers *t)
{
    if (t->slot != NOWHERE)
        leave(q, t);
    timers_init(t);
}

bool
timers_runs(const struct timers *t, enum timers_kind kind)
{
    return t->at[kind] != TIMERS_OFF;
}

void
timers_data_sent(struct timers_queue *q, struct timers *t, uint64_t now)
{
    if (!timers_runs(t, TIMERS_NEW_HANDSHAKE))
        set(q, t, TIMERS_NEW_HANDSHAKE,
            after(now, (uint64_t)q->timing->keepalive +
                           q->timing->rekey_timeout + jitter(q)));
}

void
timers_data_received(struct timers_queue *q, struct timers *t, uint64_t now)
{
    if (!timers_runs(t, TIMERS_KEEPALIVE))
        set(q, t, TIMERS_KEEPALIVE, after(now, q->timing->keepalive));
}

void
timers_any_sent(struct timers *t)
{
    t->at[TIMERS_KEEPALIVE] = TIMERS_OFF;
}

void
timers_any_received(struct timers *t)
{
    t->at[TIMERS_NEW_HANDSHAKE] = TIMERS_OFF;
}

void
timers_initiation_sent(struct timers_queue *q, struct timers *t, uint64_t now)
{
    set(q, t, TIMERS_RETRANSMIT,
        after(now, (uint64_t)q->timing->rekey_timeout + jitter(q)));
}

void
timers_initiation_deferred(
    struct timers_queue *q, struct timers *t, uint64_t at)
{
    if (!timers_runs(t, TIMERS_RETRANSMIT))
        set(q, t, TIMERS_RETRANSMIT, at);
}

void
timers_handshake_complete(struct timers *t)
{
    t->at[TIMERS_RETRANSMIT] = TIMERS_OFF;
}

void
timers_handshake_failed(struct timers *t)
{
    t->at[TIMERS_RETRANSMIT] = TIMERS_OFF;
    t->at[TIMERS_KEEPALIVE] = TIMERS_OFF;
}

void
timers_session_derived(struct timers_queue *q, struct timers *t, uint64_t now)
{
    set(q, t, TIMERS_ZERO_KEYS,
        after(now, (uint64_t)q->timing->reject_after * ZERO_KEYS_FACTOR));
}

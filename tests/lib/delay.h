/*
 * delay.h: datagrams that wait for their time, earliest first (a binary heap),
 * bounded in number and bytes.
 */
#ifndef DELAY_H
#define DELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DELAY_MAX       8192
#define DELAY_BYTES_MAX (32u << 20)

struct datagram {
    uint64_t due_us;
    uint64_t order; /* of arrival: ties keep it */
    uint64_t client;
    int dir;
    size_t len;
    uint8_t data[];
};

struct delay {
    struct datagram *heap[DELAY_MAX];
    size_t n;
    size_t bytes;
};

static inline bool
delay_has_room(const struct delay *q, size_t len)
{
    return q->n < DELAY_MAX && q->bytes + len <= DELAY_BYTES_MAX;
}

static inline bool
delay_earlier(const struct datagram *a, const struct datagram *b)
{
    if (a->due_us != b->due_us) {
        return a->due_us < b->due_us;
    }
    return a->order < b->order;
}

/* delay_push(q, d): steals ${d}; there must be room. */
static inline void
delay_push(struct delay *q, struct datagram *d)
{
    size_t i = q->n++;

    q->bytes += d->len;
    while (i > 0 && delay_earlier(d, q->heap[(i - 1) / 2])) {
        q->heap[i] = q->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    q->heap[i] = d;
}

/* delay_pop(q): the earliest, now the caller's; there must be one. */
static inline struct datagram *
delay_pop(struct delay *q)
{
    struct datagram *top = q->heap[0];
    struct datagram *last = q->heap[--q->n];
    size_t i = 0;

    q->bytes -= top->len;
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= q->n) {
            break;
        }
        if (child + 1 < q->n &&
            delay_earlier(q->heap[child + 1], q->heap[child])) {
            child++;
        }
        if (!delay_earlier(q->heap[child], last)) {
            break;
        }
        q->heap[i] = q->heap[child];
        i = child;
    }
    q->heap[i] = last;
    return top;
}

#endif

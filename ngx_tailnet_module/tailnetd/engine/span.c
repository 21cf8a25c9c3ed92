/*
 * span.c: an interval tree in a sorted array (theory in span.h).
 */
#include <stdlib.h>

#include "span.h"

#define SCAN 8 /* slices up to this are not worth a descent */

static uint64_t
load64(const uint8_t *b)
{
    uint64_t v = 0;
    int i;

    for (i = 0; i < 8; i++) {
        v = v << 8 | b[i];
    }
    return v;
}

struct span_key
span_key(const struct tn_addr *a)
{
    return (struct span_key){load64(a->b), load64(a->b + 8)};
}

int
span_cmp(struct span_key a, struct span_key b)
{
    if (a.hi != b.hi) {
        return a.hi < b.hi ? -1 : 1;
    }
    return (a.lo > b.lo) - (a.lo < b.lo);
}

void
span_of_prefix(
    const struct tn_prefix *p, struct span_key *first, struct span_key *last)
{
    uint64_t hi = 0, lo = 0;

    /* The host bits; a shift by 64 has no meaning in C. */
    if (p->bits <= 64) {
        hi = p->bits == 64 ? 0 : UINT64_MAX >> p->bits;
        lo = UINT64_MAX;
    } else if (p->bits < 128) {
        lo = UINT64_MAX >> (p->bits - 64);
    }
    *first = span_key(&p->addr);
    last->hi = first->hi | hi;
    last->lo = first->lo | lo;
}

int
span_add(struct span_set *s, struct span_key first, struct span_key last,
    uint32_t value)
{
    struct span *list;
    size_t room;

    if (s->n == s->room) {
        room = s->room == 0 ? 4 : s->room * 2;
        list = realloc(s->list, room * sizeof(list[0]));
        if (list == NULL) {
            return -1;
        }
        s->list = list;
        s->room = room;
    }
    s->list[s->n++] = (struct span){first, last, last, value};
    return 0;
}

static int
by_first(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    int order = span_cmp(x->first, y->first);

    if (order == 0) {
        order = span_cmp(x->last, y->last);
    }
    return order != 0 ? order : (x->value > y->value) - (x->value < y->value);
}

/* Whether ${b} is ${a} or the address after it, or before. */
static bool
reaches(struct span_key a, struct span_key b)
{
    if (span_cmp(b, a) <= 0) {
        return true;
    }
    a.lo++;
    if (a.lo == 0) {
        a.hi++;
    }
    return span_cmp(a, b) == 0;
}

void
span_merge(struct span_set *s, size_t from)
{
    struct span *out, *in, *end;

    if (s->n - from < 2) {
        return;
    }
    end = s->list + s->n;
    qsort(s->list + from, s->n - from, sizeof(s->list[0]), by_first);
    out = s->list + from;
    for (in = out + 1; in < end; in++) {
        if (!reaches(out->last, in->first)) {
            *++out = *in;
        } else if (span_cmp(in->last, out->last) > 0) {
            out->last = in->last;
        }
    }
    s->n = (size_t)(out - s->list) + 1;
}

/* Set the max of the subtree [lo, hi), which is not empty; returns it. */
static struct span_key
index_slice(struct span *list, size_t lo, size_t hi)
{
    size_t mid = lo + (hi - lo) / 2;
    struct span_key max = list[mid].last, below;

    if (lo < mid) {
        below = index_slice(list, lo, mid);
        max = span_cmp(below, max) > 0 ? below : max;
    }
    if (mid + 1 < hi) {
        below = index_slice(list, mid + 1, hi);
        max = span_cmp(below, max) > 0 ? below : max;
    }
    list[mid].max = max;
    return max;
}

void
span_build(struct span_set *s)
{
    if (s->n == 0) {
        return;
    }
    qsort(s->list, s->n, sizeof(s->list[0]), by_first);
    index_slice(s->list, 0, s->n);
}

/* What is looked for, and what to do about it. */
struct search {
    const struct span *list;
    struct span_key first;
    struct span_key last;
    bool (*fn)(void *ctx, uint32_t value);
    void *ctx;
};

/* The few ranges at the bottom of the tree, one after the other. */
static bool
scan(const struct search *s, size_t lo, size_t hi)
{
    const struct span *span;

    for (; lo < hi; lo++) {
        span = &s->list[lo]; /* an empty set has no list */
        if (span_cmp(span->first, s->last) > 0) {
            return false;
        }
        if (span_cmp(span->last, s->first) >= 0 && s->fn(s->ctx, span->value)) {
            return true;
        }
    }
    return false;
}

static bool
find_slice(const struct search *s, size_t lo, size_t hi)
{
    const struct span *span;
    size_t mid;

    while (hi - lo > SCAN) {
        mid = lo + (hi - lo) / 2;
        span = &s->list[mid];
        if (span_cmp(span->max, s->first) < 0) {
            return false;
        }
        if (find_slice(s, lo, mid)) {
            return true;
        }
        if (span_cmp(span->first, s->last) > 0) {
            return false;
        }
        if (span_cmp(span->last, s->first) >= 0 && s->fn(s->ctx, span->value)) {
            return true;
        }
        lo = mid + 1;
    }
    return scan(s, lo, hi);
}

bool
span_find(const struct span_set *s, struct span_key k,
    bool (*fn)(void *ctx, uint32_t value), void *ctx)
{
    struct search search = {s->list, k, k, fn, ctx};

    return find_slice(&search, 0, s->n);
}

static bool
found(void *ctx, uint32_t value)
{
    (void)ctx;
    (void)value;
    return true;
}

bool
span_overlaps(
    const struct span_set *s, struct span_key first, struct span_key last)
{
    struct search search = {s->list, first, last, found, NULL};

    return find_slice(&search, 0, s->n);
}

void
span_clear(struct span_set *s)
{
    free(s->list);
    *s = (struct span_set){0};
}

/*
 * span.h: which of many address ranges hold an address.
 *
 * A set of ranges, each with a number, of one address family.  It is filled
 * once, built, and then asked: an answer costs O(log n) and the ranges that
 * match, however they overlap.
 *
 * Theory of operation: the ranges are sorted by their first address; the middle
 * one of every slice is the root of a binary tree over that slice, and knows
 * the greatest last address below it.  A search leaves out every subtree whose
 * greatest last address lies before the one looked for, and all that start
 * after it.
 */
#ifndef SPAN_H
#define SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

/* An address as a number; IPv4 in its mapped form, families never mixed. */
struct span_key {
    uint64_t hi;
    uint64_t lo;
};

struct span {
    struct span_key first;
    struct span_key last; /* inclusive */
    struct span_key max;  /* greatest last of this subtree */
    uint32_t value;
};

/* Zero-initialised: an empty set, built. */
struct span_set {
    struct span *list;
    size_t n;
    size_t room;
};

struct span_key span_key(const struct tn_addr *a);
int span_cmp(struct span_key a, struct span_key b);

/* The addresses of ${p}, which has one family. */
void span_of_prefix(
    const struct tn_prefix *p, struct span_key *first, struct span_key *last);

/*
 * span_add(s, first, last, value): one more range.  Returns 0, or -1: no
 * memory, ${s} unchanged.
 */
int span_add(struct span_set *s, struct span_key first, struct span_key last,
    uint32_t value);

/* Join the ranges from index ${from} on, which share one value, where they
 * overlap or touch. */
void span_merge(struct span_set *s, size_t from);

/* Make ${s} ready for span_find(), after the last span_add(). */
void span_build(struct span_set *s);

/*
 * span_find(s, k, fn, ctx): call ${fn} with the value of each range that holds
 * ${k} until it returns true; returns whether it did.
 */
bool span_find(const struct span_set *s, struct span_key k,
    bool (*fn)(void *ctx, uint32_t value), void *ctx);

/* Whether some range shares an address with ${first} to ${last}. */
bool span_overlaps(
    const struct span_set *s, struct span_key first, struct span_key last);

/* Free what ${s} holds and leave it empty. */
void span_clear(struct span_set *s);

#endif

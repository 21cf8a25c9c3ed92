/*
 * filter_flow.h: the UDP and SCTP flows this node started, or answered.
 *
 * A table of the last FILTER_FLOW_MAX that were seen; one more drops the one
 * unused longest.  Fixed memory without pointers, so that a table may be copied
 * as a value.
 */
#ifndef FILTER_FLOW_H
#define FILTER_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

#define FILTER_FLOW_MAX     512
#define FILTER_FLOW_BUCKETS 1024 /* power of two */

/* A flow as its inbound packets show it. */
struct filter_flow {
    struct tn_addr src;
    struct tn_addr dst;
    uint16_t sport;
    uint16_t dport;
    uint8_t proto;
};

/* Index of an entry plus one; 0 is none. */
struct filter_flow_entry {
    struct filter_flow flow;
    uint16_t chain; /* next of the same bucket */
    uint16_t newer;
    uint16_t older;
};

/* Zero-initialised: empty. */
struct filter_flow_table {
    struct filter_flow_entry entries[FILTER_FLOW_MAX];
    uint16_t buckets[FILTER_FLOW_BUCKETS];
    uint16_t used; /* entries that are, or were */
    uint16_t free; /* chained */
    uint16_t newest;
    uint16_t oldest;
};

/* Whether ${t} has ${f}, which becomes the newest. */
bool filter_flow_touch(
    struct filter_flow_table *t, const struct filter_flow *f);

/*
 * filter_flow_add(t, f): make ${f}, which is not in ${t}, the newest.  Returns
 * whether the oldest had to go.
 */
bool filter_flow_add(struct filter_flow_table *t, const struct filter_flow *f);

/* All flows with ${src} go. */
void filter_flow_forget(struct filter_flow_table *t, const struct tn_addr *src);

#endif

/*
 * ping.h: ICMP echo requests of our own through the tunnel (RFC 792, 4443).
 *
 * Sans-I/O: a list of pending echoes that makes the packet and knows its
 * answer when it passes by.
 */
#ifndef PING_H
#define PING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

#define PING_PENDING_MAX 64
#define PING_PACKET_MAX  64

struct ping {
    uint32_t query; /* the asker's id; 0: free */
    struct tn_addr to;
    uint64_t sent;     /* monotonic nanoseconds */
    uint64_t deadline; /* monotonic ms */
};

struct ping_list {
    struct ping pending[PING_PENDING_MAX];
    uint16_t id; /* of this list's echoes */
};

/*
 * ping_make(l, from, to, query, ns, deadline, packet): an echo request, and a
 * row that waits for its answer.  Returns the packet's length, or 0: too many
 * are pending, or the families differ.
 */
size_t ping_make(struct ping_list *l, const struct tn_addr *from,
    const struct tn_addr *to, uint32_t query, uint64_t ns, uint64_t deadline,
    uint8_t packet[PING_PACKET_MAX]);

/* The row that ${packet} answers, taken off the list into ${p}; false: none. */
bool ping_match(
    struct ping_list *l, const uint8_t *packet, size_t len, struct ping *p);

/* A row whose deadline has passed, taken off the list; false: none. */
bool ping_expire(struct ping_list *l, uint64_t now, struct ping *p);

/* The earliest deadline, UINT64_MAX: nothing is pending. */
uint64_t ping_deadline(const struct ping_list *l);

#endif

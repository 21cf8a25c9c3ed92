/*
 * ping.h: pings of our own that wait for their answers: ICMP echo requests
 * (RFC 792, 4443) and TSMP pings through the tunnel, disco pings beside it.
 *
 * Sans-I/O: a list that makes the packet, or the token of a disco ping, and
 * knows the answer when it passes by.
 */
#ifndef PING_H
#define PING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "../magic/tsmp.h"

#define PING_PENDING_MAX 64
#define PING_PACKET_MAX  64
#define PING_TOKEN_LEN   12 /* a disco ping's number */

enum ping_kind { PING_ICMP, PING_TSMP, PING_DISCO };

struct ping {
    uint32_t query; /* the asker's id; 0: free */
    enum ping_kind kind;
    bool server; /* the control server asks, or tailnetctl */
    uint32_t serial;
    struct tn_addr to;
    uint64_t sent;     /* monotonic nanoseconds */
    uint64_t deadline; /* monotonic ms */
};

struct ping_list {
    struct ping pending[PING_PENDING_MAX];
    uint16_t id; /* of this list's pings */
    uint32_t serial;
};

/*
 * ping_make(l, from, p, packet): the packet of ${p}, an ICMP or TSMP ping, and
 * a row that waits for its answer.  Returns the packet's length, or 0: too many
 * are pending, or the families differ.
 */
size_t ping_make(struct ping_list *l, const struct tn_addr *from,
    const struct ping *p, uint8_t packet[PING_PACKET_MAX]);

/* ping_token(l, p, token): the same of a disco ping; false: too many. */
bool ping_token(
    struct ping_list *l, const struct ping *p, uint8_t token[PING_TOKEN_LEN]);

/* The row that the ICMP ${packet} answers, taken off the list into ${p}; false:
 * none. */
bool ping_match(
    struct ping_list *l, const uint8_t *packet, size_t len, struct ping *p);

/* The row of a TSMP pong's data or a disco pong's token; NULL: none.  It stays
 * until ping_end(). */
struct ping *ping_find(
    struct ping_list *l, enum ping_kind kind, const uint8_t *token);
void ping_end(struct ping *p);

/* A row whose deadline has passed, taken off the list; false: none. */
bool ping_expire(struct ping_list *l, uint64_t now, struct ping *p);

/* The earliest deadline, UINT64_MAX: nothing is pending. */
uint64_t ping_deadline(const struct ping_list *l);

#endif

/*
 * tsmp.h: short messages between nodes inside the tunnel (IP protocol 99).
 *
 *   'p' ping        8 bytes that come back
 *   'o' pong        the same 8 │ port of the PeerAPI 2, 0: none
 *   '!' reject      protocol 1 │ reason 1 │ source port 2 │ destination port 2
 *                   │ flags; ports as in the packet that was refused
 *   'a' disco key   the sender's new disco key 32
 *
 * Sans-I/O.  They never reach the namespace, and nothing there may send them.
 */
#ifndef TSMP_H
#define TSMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

#define TSMP_PROTO    99
#define TSMP_PING_LEN 8
#define TSMP_MAX_LEN  (40 + 1 + TSMP_PING_LEN + 2) /* of what we make */

enum tsmp_type {
    TSMP_OTHER, /* malformed, or of a later time */
    TSMP_PING,
    TSMP_PONG,
    TSMP_REJECT,
    TSMP_DISCO,
};

struct tsmp {
    enum tsmp_type type;
    struct tn_addr src, dst;
    uint8_t data[TSMP_PING_LEN]; /* ping, pong */
    uint16_t port;               /* pong: of its PeerAPI, 0: none */
    uint8_t proto, reason;       /* reject */
    uint16_t sport, dport;
    bool maybe_broken;
    const uint8_t *disco; /* 32 bytes of the packet */
};

/* tsmp_read(t, packet, len): false: the IP packet is not TSMP. */
bool tsmp_read(struct tsmp *t, const uint8_t *packet, size_t len);

/* tsmp_ping(out, src, dst, data, pong): a ping, or the ${pong} to one; both
 * addresses are of one family.  Returns the packet's length. */
size_t tsmp_ping(uint8_t out[TSMP_MAX_LEN], const struct tn_addr *src,
    const struct tn_addr *dst, const uint8_t data[TSMP_PING_LEN], bool pong);

/* tsmp_refuse(out, packet, len): tells the sender of an IPv4 TCP packet that
 * the tailnet's policy does not allow it.  Returns the answer's length, 0: it
 * is none of that kind. */
size_t tsmp_refuse(
    uint8_t out[TSMP_MAX_LEN], const uint8_t *packet, size_t len);

/* Why a packet was refused, in words. */
const char *tsmp_reason(uint8_t reason);

#endif

/*
 * lanes.h: datagrams of several sizes or destinations that leave together.
 *
 * Small answers come as a full segment and a short one, of one connection after
 * the other; a run (outbox.h) ends at each short one.  So runs wait side by
 * side: the full segments of all connections in one lane, the short ones in the
 * next.  Lanes are sent in the order in which they were opened, and a datagram
 * goes into no lane before one that has another of its flow: the order within
 * a flow is kept, that between flows is not.
 */
#ifndef LANES_H
#define LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "outbox.h"

#define LANES_MAX   4
#define LANES_FLOWS 512 /* flows are told apart by so many numbers */

#define LANES_NO_FLOW UINT16_MAX /* behind all that is held */

struct lanes {
    struct outbox lane[LANES_MAX];
    uint64_t flows[LANES_MAX][LANES_FLOWS / 64]; /* who is in it */
    unsigned open, sent;
};

/*
 * lanes_flow(packet, len): the number of an inner IP packet's flow, the same
 * for all of a connection's packets, and perhaps for those of another one.
 */
uint16_t lanes_flow(const uint8_t *packet, size_t len);

/*
 * lanes_add(l, flow, dst, msg, len): false: it does not go with what is held
 * (or is longer than OUTBOX_SIZE): send that first.
 */
bool lanes_add(struct lanes *l, uint16_t flow, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len);

/*
 * lanes_next(l): the run to be sent next, for outbox_send(); NULL: that were
 * all, and ${l} is empty.  Nothing is added before that.
 */
struct outbox *lanes_next(struct lanes *l);

#endif

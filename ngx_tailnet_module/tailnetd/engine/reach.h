/*
 * reach.h: how packets of a node that joined a tailnet find its peers: what
 * magic/magic.h needs of a node, and messages between nodes inside the tunnel.
 */
#ifndef REACH_H
#define REACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct node;
struct node_peer;
struct hot_peer;
struct netmap_node;
struct tn_endpoint;

/* reach_begin(n): the node joins; its sockets are there and its key is known.
 * Returns 0, or -1: no memory. */
int reach_begin(struct node *n);
void reach_end(struct node *n);

/* reach_announce(n): how it is reached, for a control that may not know it yet:
 * of another server than the one before, where it logged in. */
void reach_announce(struct node *n);

/* reach_set(n, np, row, hot): ${np} is the peer of ${row} from now on.  Whether
 * it talked to the engine before this one (${hot}: what that left, or NULL). */
void reach_set(struct node *n, struct node_peer *np,
    const struct netmap_node *row, const struct hot_peer *hot);

/*
 * reach_resumed(n): handshakes went out to those who talked to the engine
 * before this one.  Some are in vain, as under a new key: what answers comes by
 * a relay that has not let us in yet.
 */
void reach_resumed(struct node *n);

/* reach_heard(n, np, now): something authentic came; for hot.h. */
void reach_heard(struct node *n, struct node_peer *np, int64_t now);

/*
 * reach_stranger(n, src): the peer that a packet of a forgotten session came
 * from, by the relay's word or, where the netmap says who lives at ${src}, by
 * that; it is answered there until a better way is known.  NULL: nobody's.
 */
struct node_peer *reach_stranger(struct node *n, const struct tn_endpoint *src);

/* reach_message(n, np, packet, len): whether the inner packet from ${np} was a
 * message between nodes (magic/tsmp.h), which is answered here. */
bool reach_message(
    struct node *n, struct node_peer *np, const uint8_t *packet, size_t len);

/* reach_refuse(n, packet, len): tells the peer that sent an inner packet which
 * the packet filter rejects; what is no IPv4 TCP is not told about. */
void reach_refuse(struct node *n, const uint8_t *packet, size_t len);

/*
 * A peer may know this node by another address (magic/masq.h): reach_mask()
 * puts that into a packet which leaves, reach_unmask() takes it out of one from
 * ${np}.
 */
void reach_mask(struct node *n, uint8_t *packet, size_t len);
void reach_unmask(
    struct node *n, struct node_peer *np, uint8_t *packet, size_t len);

/* reach_forged(packet, len): whether the namespace sends such a message, which
 * only the engine may. */
bool reach_forged(const uint8_t *packet, size_t len);

#endif

/*
 * peers.h: the peers of a netmap in a node's WireGuard device.
 */
#ifndef PEERS_H
#define PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct netmap;
struct node;

/*
 * peers_apply(n, nm): adds and changes the peers of ${nm} and ends the sessions
 * of those that are not in it or have expired.  Returns 0, or -1: no memory;
 * then some may be of ${nm} already.
 */
int peers_apply(struct node *n, const struct netmap *nm);

/*
 * peers_update(n, rows, count): those of the netmap that rules changed, as
 * map_state_update() says.  Returns 0, or -1: one of them begins or ends to be
 * a peer, which is for peers_apply().
 */
int peers_update(struct node *n, const uint32_t *rows, size_t count);

/* peers_drop(n, all): removes peers with their sessions; without ${all}, those
 * that the last peers_apply() did not keep. */
void peers_drop(struct node *n, bool all);

#endif

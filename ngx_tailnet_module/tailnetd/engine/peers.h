/*
 * peers.h: the peers of a netmap in a node's WireGuard device.
 */
#ifndef PEERS_H
#define PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct netmap;
struct netmap_changes;
struct node;

/*
 * peers_apply(n, nm): adds and changes the peers of ${nm} and ends the sessions
 * of those that are not in it or have expired.  Returns 0, or -1: no memory;
 * then some may be of ${nm} already.
 */
int peers_apply(struct node *n, const struct netmap *nm);

/*
 * peers_update(n, c): the netmap that rules is another now, as
 * map_state_update() says.  One that goes and comes under the same key keeps
 * its session.  Returns 0, or -1: no memory; some may be done already.
 */
int peers_update(struct node *n, const struct netmap_changes *c);

/*
 * peers_ended(n, since, now, c): whose key expired after ${since}, until
 * ${now}, as the only changes in ${c}, whose rows are ${rows}.  Returns false:
 * they are more than PEERS_ENDED_MAX, or one had routes that others may have
 * now: peers_apply() knows.
 */
#define PEERS_ENDED_MAX 256

bool peers_ended(const struct node *n, int64_t since, int64_t now,
    uint32_t rows[PEERS_ENDED_MAX], struct netmap_changes *c);

/* peers_drop(n, all): removes peers with their sessions; without ${all}, those
 * that the last peers_apply() did not keep. */
void peers_drop(struct node *n, bool all);

#endif

/*
 * map_claim.h: which peer has an ID, a key, an address or a route.
 *
 * What only one node may have (key, single addresses) is a claim: of all claims
 * to one value, one wins; each slot counts those it has lost, and is shown
 * while that is 0.  The self node wins always, then the smallest ID.
 */
#ifndef MAP_CLAIM_H
#define MAP_CLAIM_H

#include "map_inside.h"

/* The slot of ${id}, or MAP_NONE. */
uint32_t map_claim_find(struct map_state *s, int64_t id);

/* map_claim_enter(s, slot): all that the row has, and, but for the self node,
 * its ID; there is room.  map_claim_leave(): no more. */
void map_claim_enter(struct map_state *s, uint32_t slot);
void map_claim_leave(struct map_state *s, uint32_t slot);

/* The row of ${slot} has ${key} instead of its own. */
void map_claim_rekey(struct map_state *s, uint32_t slot, const uint8_t key[32]);

/* Whether some node, shown or not, has the address. */
bool map_claim_taken(const struct map_state *s, const struct tn_addr *a);

/* Whether another peer has a route of this one too. */
bool map_claim_shares(const struct map_state *s, uint32_t slot);

/* Whether ${p} lets all packets of a family through. */
bool map_claim_is_default(const struct tn_prefix *p);

/* Whether ${p} is among the node's own addresses. */
bool map_claim_is_own(const struct netmap_node *n, const struct tn_prefix *p);

/* map_claim_count(n): what the row needs at most.  map_claim_reserve(s, more):
 * room for ${more}; returns 0, or -1: no memory. */
size_t map_claim_count(const struct netmap_node *n);
int map_claim_reserve(struct map_state *s, size_t more);

#endif

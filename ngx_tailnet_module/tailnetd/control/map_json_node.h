/*
 * map_json_node.h: one Node and one UserProfile of a MapResponse.
 */
#ifndef MAP_JSON_NODE_H
#define MAP_JSON_NODE_H

#include "map_json_value.h"

/*
 * map_json_node(c, peer, node): fill ${node}, which is zero, from the cursor's
 * object; ${peer}: ID, Key and Addresses have to be there.  What is missing is
 * made as the protocol says: AllowedIPs from Addresses, capability names from
 * Capabilities and CapMap alike.  Returns 0, or -1 and has reported why;
 * ${node} is the netmap's to free in both cases.
 */
int map_json_node(
    const struct map_json_cursor *c, bool peer, struct netmap_node *node);

/* The names of "CapMap" (and "Capabilities") of an object alone, and its
 * "Endpoints": into ${node}, as above. */
int map_json_caps(const struct map_json_cursor *c, struct netmap_node *node);
int map_json_endpoints(
    const struct map_json_cursor *c, struct netmap_node *node);

/*
 * map_json_users(m, forgive, users, n): the list ${m} of UserProfiles, sorted
 * by ID; of two with one ID the later counts.  A bad one is left out when
 * ${forgive} takes its mistake (returns 0), else it fails.  Returns 0, or -1
 * and has reported why; ${*users} is the caller's to free in both cases.
 */
int map_json_users(const struct map_json_cursor *m,
    int (*forgive)(struct map_json_error *err), struct netmap_user **users,
    unsigned *n);

#endif

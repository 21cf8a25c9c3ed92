/*
 * map_json_claim.h: what only one node may have.
 */
#ifndef MAP_JSON_CLAIM_H
#define MAP_JSON_CLAIM_H

#include "map_json_value.h"

/*
 * map_json_claims(doc, nm): refuse two nodes of one ID, one key or one address,
 * naming both places.  An allowed IP that is another node's own address is
 * taken out with a warning: a peer could speak in that node's name.  Returns 0,
 * or -1 and has reported why.
 */
int map_json_claims(const struct map_json_cursor *doc, struct netmap *nm);

#endif

/*
 * map_json_derp.h: the DERP map of a MapResponse.
 */
#ifndef MAP_JSON_DERP_H
#define MAP_JSON_DERP_H

#include "map_json_value.h"

/*
 * map_json_derp(c, before, out): the DERP map after the cursor's DERPMap, for
 * netmap_derp_free(): without Regions those of ${before} (NULL: none) stay,
 * and a RegionScore of null keeps the scores.  Returns 0, or -1 and has
 * reported why.
 */
int map_json_derp(const struct map_json_cursor *c,
    const struct netmap_derp *before, struct netmap_derp **out);

#endif

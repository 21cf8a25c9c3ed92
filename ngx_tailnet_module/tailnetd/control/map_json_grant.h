/*
 * map_json_grant.h: the capabilities that a filter rule grants.
 */
#ifndef MAP_JSON_GRANT_H
#define MAP_JSON_GRANT_H

#include "map_json_value.h"

/* CapGrant of the rule at ${c}; 0, or -1 and has reported why. */
int map_json_grants(const struct map_json_cursor *c, struct netmap_rule *rule);

#endif

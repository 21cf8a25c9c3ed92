/*
 * map_json_rule.h: the packet filter of a MapResponse.
 */
#ifndef MAP_JSON_RULE_H
#define MAP_JSON_RULE_H

#include "map_json_value.h"

/*
 * map_json_rules(doc, nm): the rules of ${nm}, effective: PacketFilter is the
 * chunk "base"; PacketFilters sets and deletes chunks by name; all chunks in
 * the order of their names.  Peers are there already: unsigned ones whose
 * address some rule lets in void the filter.  Returns 0, or -1 and has reported
 * why.
 */
int map_json_rules(const struct map_json_cursor *doc, struct netmap *nm);

/*
 * map_json_chunk(c, rules, n, old): the rules of one chunk, ${*rules} for
 * netmap_rules_free() also on failure; ${*old}: it has a form that voids the
 * whole filter.  Returns 0, or -1 and has reported why.
 */
int map_json_chunk(const struct map_json_cursor *c, struct netmap_rule **rules,
    unsigned *n, bool *old);

/* map_json_unsigned(nm, hit): the first rule that lets an unsigned peer in, or
 * nm->nrules.  Returns 0, or -1: no memory. */
int map_json_unsigned(const struct netmap *nm, unsigned *hit);

#endif

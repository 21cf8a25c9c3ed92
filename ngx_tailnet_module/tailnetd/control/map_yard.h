/*
 * map_yard.h: what a tailnet's netmaps shared and the newest do not show any
 * more, and who may still look into it.
 *
 * It outlives the state that it belongs to (map_state.h), until the last netmap
 * is freed.
 */
#ifndef MAP_YARD_H
#define MAP_YARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../engine/netmap.h"

struct map_state;

/* What no netmap from ${generation} on shows. */
struct map_grave {
    uint64_t generation; /* nor the follower, if that is not behind */
    struct netmap_node node;
    struct netmap_user user;
    struct netmap_rule *rules;
    unsigned nrules;
    struct netmap_derp *derp;
    void *bytes;
};

struct map_yard {
    struct netmap_owner owner;           /* first: netmaps have its address */
    struct map_state *left;              /* the state, when its owner left it */
    void (*end)(struct map_state *left); /* frees it and the yard */
    struct map_grave *graves;
    size_t ngraves, size;
    uint64_t *live; /* generations of netmaps that exist */
    size_t nlive, live_size;
    struct netmap *follower; /* one of them, or NULL */
    bool behind;             /* some change is not in it */
};

/* NULL: no memory.  map_yard_free(): with all that is in it. */
struct map_yard *map_yard_new(void (*end)(struct map_state *left));
void map_yard_free(struct map_yard *y);

/* map_yard_reserve(y, n): room for ${n} graves more.  0, or -1: no memory. */
int map_yard_reserve(struct map_yard *y, size_t n);

/* map_yard_bury(y, generation): an empty grave; there is room. */
struct map_grave *map_yard_bury(struct map_yard *y, uint64_t generation);

/* map_yard_show(y, nm): ${nm} exists until netmap_free().  0, or -1: no
 * memory. */
int map_yard_show(struct map_yard *y, struct netmap *nm);

/* map_yard_sweep(y): frees what nobody can see; may be the end of ${y}. */
void map_yard_sweep(struct map_yard *y);

#endif

/*
 * map_inside.h: the inside of a tailnet's state, for the files it is made of:
 * map_state.c (messages and netmaps), map_claim.c (who has what), map_follow.c
 * (the netmap that follows).
 */
#ifndef MAP_INSIDE_H
#define MAP_INSIDE_H

#include "map_state.h"
#include "map_yard.h"

#define MAP_NONE UINT32_MAX
#define MAP_SELF 0

struct map_slot {
    bool used;
    bool noted;     /* in ->changed */
    bool stranger;  /* its user has no profile */
    uint32_t next;  /* in the chain by ID, or of free slots */
    uint32_t lost;  /* claims of others that win */
    uint32_t place; /* row of the follower that shows it, or MAP_NONE */
};

struct map_claim {
    uint32_t slot;
    uint32_t item; /* what of it; see map_claim.c */
    uint32_t next;
};

struct map_state {
    struct map_yard *yard;
    uint64_t generation; /* of the next netmap */
    bool ready, fresh;   /* a Node was there; the stream is new */
    struct map_slot *slots;
    struct netmap_node *rows; /* parallel */
    uint32_t nslots, size, free, npeers, nunsigned, nstrangers;
    uint32_t *by_id; /* heads; mask + 1 of each */
    uint32_t *by_value;
    uint32_t mask;
    size_t ncontested; /* peers with claims that are lost */
    struct map_claim *claims;
    uint32_t claims_size, free_claim;
    struct netmap_user *users;
    size_t nusers, users_size;
    struct map_chunk *chunks; /* sorted by name */
    size_t nchunks, chunks_size;
    bool has_rules;
    struct netmap_derp *derp;
    char *domain;

    /* What the follower does not have yet. */
    bool whole;        /* more than what follows */
    bool self;         /* it, or the domain, in a way that others notice */
    bool rules;        /* they are others */
    bool reroute;      /* two have one route: whose it is may be another */
    uint32_t *changed; /* noted slots: room for all there are */
    uint32_t nchanged, changed_size;
    struct netmap_gone *gone; /* rows that it shows; their keys come later */
    uint32_t ngone;
    size_t users_from; /* the first user that is not where it was */
    int64_t *renamed;  /* users whose profiles changed */
    size_t nrenamed, renamed_size;
    uint32_t *owners; /* the slot of each row */
    uint32_t room;    /* rows of it, owners, gone */
    size_t users_room;
};

/* map_inside_grow(list, size, need, item): room for ${need} items of ${item}
 * bytes.  0, or -1: no memory. */
int map_inside_grow(uint32_t *size, void **list, size_t need, size_t item);

/* map_inside_rules(s, nm): the rules of ${nm}, which has none: all there are.
 * 0, or -1: no memory. */
int map_inside_rules(const struct map_state *s, struct netmap *nm);

#endif

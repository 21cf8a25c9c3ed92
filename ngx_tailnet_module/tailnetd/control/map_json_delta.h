/*
 * map_json_delta.h: one MapResponse, understood but not applied.
 *
 * Everything that can be wrong with a message is found here, so that applying
 * it (map_state.h) is all or nothing.  One bad peer or user does not make the
 * rest of a tailnet useless: it is left out with a warning, and one that was
 * known before is dropped.
 */
#ifndef MAP_JSON_DELTA_H
#define MAP_JSON_DELTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "map_json.h"

#define MAP_DELTA_MAX_CHUNKS  1024
#define MAP_DELTA_MAX_NOTICES 1024 /* more are left out */

/* A named part of the packet filter. */
struct map_chunk {
    char *name;
    bool drop; /* delete it */
    bool old;  /* has a form that voids the filter */
    struct netmap_rule *rules;
    unsigned nrules;
};

/* PeersChangedPatch and OnlineChange. */
struct map_patch {
    int64_t id;
    bool has_online, has_expiry, has_endpoints, has_caps;
    struct netmap_node to; /* the fields that are there (home_derp, cap_version
                              0, has_key, has_disco false: not) */
};

struct map_ping {
    char *url; /* NULL: no ping request */
    char *types;
    char *ip;
    char *payload; /* as it came, base64 */
    bool noise;
};

#define MAP_PLAN_MAX 8 /* addresses; more are left out */

/* What the server has to say to people: of Health or DisplayMessages. */
struct map_notice {
    char *id;                 /* NULL: of Health */
    bool drop;                /* it does not hold any more */
    char *title, *text, *url; /* "": not said */
    const char *severity;     /* "high", "medium", "low", "": none of these */
    bool connectivity;        /* ImpactsConnectivity */
};

/* ControlDialPlan: where the control server wants to be found next time. */
struct map_plan {
    struct tn_addr addrs[MAP_PLAN_MAX]; /* best first */
    size_t n;
};

struct map_delta {
    bool keepalive;
    bool has_self;
    struct netmap_node self;
    bool full; /* nodes are all the peers there are */
    struct netmap_node *nodes;
    size_t nnodes;
    int64_t *removed;
    size_t nremoved;
    struct map_patch *patches; /* in the order they apply */
    size_t npatches;
    struct netmap_user *users; /* sorted by ID, unique */
    unsigned nusers;
    char *domain; /* "": not said */
    bool has_rules, clear_chunks;
    struct map_chunk *chunks; /* in the order they apply */
    size_t nchunks;
    struct netmap_derp *derp;       /* NULL: unchanged */
    bool has_health, clear_notices; /* those of Health, and the others, go */
    struct map_notice *notices;
    size_t nnotices;
    int64_t control_time; /* Unix seconds, 0: not said */
    char *pop_url;        /* "": none */
    bool locked;          /* the tailnet has a lock */
    unsigned sleep;       /* seconds the server wants to be left alone */
    struct map_ping ping;
    bool has_plan;
    struct map_plan plan;
};

/*
 * map_json_delta(text, len, derp, d, err): ${derp}: the DERP map so far, or
 * NULL.  Returns 0 and ${d} for map_delta_clear(), or -1 and why in ${err}.
 */
int map_json_delta(const char *text, size_t len, const struct netmap_derp *derp,
    struct map_delta *d, struct map_json_error *err);

void map_delta_clear(struct map_delta *d);
void map_delta_clear_notice(struct map_notice *n);

#endif

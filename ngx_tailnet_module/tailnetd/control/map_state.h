/*
 * map_state.h: a tailnet as its control server tells it, message by message.
 *
 * A message is applied whole or not at all.  map_state_netmap() then gives a
 * complete, immutable netmap; what a row points to is shared between all
 * netmaps of a state and freed when the last one that shows it is gone, so a
 * message about one peer costs one copy of the rows, not of what they hold.
 * One netmap may follow the state: what most messages change (Online, where a
 * peer is, when its key expires) is written into it, and costs no copy at all.
 *
 * A node whose key or address another one has too, is not shown: of those that
 * claim it, this node wins, then the smallest ID.  Routes are shown as the
 * settings say; an address of another node is never a route.
 */
#ifndef MAP_STATE_H
#define MAP_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "map_json_delta.h"

#define MAP_STATE_ERROR_MAX 160

struct map_state;

struct map_settings {
    bool accept_routes;
    const char *exit_node; /* name, FQDN or address of a peer; "": none */
};

/* What is hidden, for logs and status. */
struct map_counts {
    size_t peers;     /* all that are known */
    size_t contested; /* not shown */
};

/* NULL: no memory. */
struct map_state *map_state_new(void);

/* Netmaps may outlive it. */
void map_state_free(struct map_state *s);

/*
 * map_state_apply(s, d, err): ${d} is emptied of what is taken.  Returns 0, or
 * -1, why in ${err}, and nothing changed: the first message has no Node, too
 * many peers, no memory.
 */
int map_state_apply(
    struct map_state *s, struct map_delta *d, char err[MAP_STATE_ERROR_MAX]);

/* map_state_begin(s): a new stream begins: its first message has to have a
 * Node, and brings all peers there are. */
void map_state_begin(struct map_state *s);

/* A Node was there. */
bool map_state_ready(const struct map_state *s);

/* The DERP map so far, or NULL. */
const struct netmap_derp *map_state_derp(const struct map_state *s);
struct map_counts map_state_counts(const struct map_state *s);

/* The netmap of now, for netmap_free(); NULL: not ready, or no memory. */
struct netmap *map_state_netmap(
    struct map_state *s, const struct map_settings *settings);

/*
 * map_state_follow(s, nm): ${nm}, which map_state_netmap() just gave, follows
 * until it is freed or another does; NULL: none.  Only map_state_update()
 * writes into it.
 */
void map_state_follow(struct map_state *s, struct netmap *nm);

/*
 * map_state_update(s, rows, n): the follower becomes the netmap of now; the
 * indices of its changed peers in ${*rows}, until the next message is applied.
 * Each of them may have others of: online, key_expiry, home_derp, cap_version,
 * disco key, endpoints.  What those were before is freed by the next message.
 * Returns false, and nothing is changed: there is none, or more than that
 * changed, and it takes a new one.
 */
bool map_state_update(struct map_state *s, const uint32_t **rows, size_t *n);

#endif

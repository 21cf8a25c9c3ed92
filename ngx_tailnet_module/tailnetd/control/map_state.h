/*
 * map_state.h: a tailnet as its control server tells it, message by message.
 *
 * A message is applied whole or not at all.  map_state_netmap() then gives a
 * complete, immutable netmap; what a row points to is shared between all
 * netmaps of a state and freed when the last one that shows it is gone, so a
 * message about one peer costs one copy of the rows, not of what they hold.
 * One netmap may follow the state: what messages change, and who comes or goes,
 * is written into it, and costs no copy at all.
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

/* What is known, and hidden, for logs and status. */
struct map_counts {
    size_t peers;     /* all that are known */
    size_t contested; /* not shown */
    size_t users;     /* profiles that are known */
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
 * Node, and brings all peers there are; users that it does not need are
 * forgotten. */
void map_state_begin(struct map_state *s);

/* A Node was there. */
bool map_state_ready(const struct map_state *s);

/* The DERP map so far, or NULL. */
const struct netmap_derp *map_state_derp(const struct map_state *s);
struct map_counts map_state_counts(const struct map_state *s);

/* The netmap of now, for netmap_free(); NULL: not ready, or no memory. */
struct netmap *map_state_netmap(
    struct map_state *s, const struct map_settings *settings);

/* map_state_outline(s): the same without peers, and with all rules, also those
 * that peers who are not signed make void. */
struct netmap *map_state_outline(struct map_state *s);

/*
 * map_state_peer(s, at): the first peer that is shown from number ${*at} on,
 * which becomes the number after it; NULL: none.  Borrowed until the next
 * message; its routes are all that the server told.  Numbers last: who is
 * shown all the time comes once, if the stream does not begin anew.
 */
const struct netmap_node *map_state_peer(
    const struct map_state *s, uint32_t *at);

/*
 * map_state_follow(s, nm): ${nm}, which map_state_netmap() just gave, follows
 * until it is freed or another does; NULL: none.  Only map_state_update()
 * writes into it.
 */
void map_state_follow(struct map_state *s, struct netmap *nm);

/*
 * map_state_update(s, settings, c): the follower becomes the netmap of now, for
 * the settings it was made with; what was done to it in ${c}, until the next
 * message is applied.  A peer that has another key, name, user, address, route,
 * tag or capability is one that goes and one that comes.  A row whose
 * whereabouts changed may have others of: online, key_expiry, home_derp,
 * cap_version, disco key, endpoints.  What anything was before is freed by the
 * next message.
 *
 * c->self may get another key_expiry, which it keeps while that is no news.
 *
 * Returns false, and nothing is changed: there is none, and it takes a new one.
 * So it is too when the self node gets another key, address or suffix or is
 * authorized or not any more, when rules change while a peer is not signed,
 * after a list of all peers, and when peers come or go
 *   - of which two have one route, and routes are accepted (so too when the key
 *     of one of the two gets another expiry),
 *   - that are the exit node,
 *   - that are not signed, or have a range for an address,
 *   - beyond the follower's room: an eighth more than it began with, and 64.
 */
bool map_state_update(struct map_state *s, const struct map_settings *settings,
    struct netmap_changes *c);

#endif

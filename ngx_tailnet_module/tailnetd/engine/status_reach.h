/*
 * status_reach.h: how a joined node and its peers are reached, for status.h.
 */
#ifndef STATUS_REACH_H
#define STATUS_REACH_H

#include <jansson.h>

#include "node.h"

/* Puts counter ${field} of ${c} into ${o}, under its own name. */
#define STATUS_COUNT(o, c, field) \
    json_object_set_new(o, #field, json_integer((json_int_t)(c)->field))

/* "1.2.3.4:5", "derp:REGION", or "". */
json_t *status_endpoint(const struct tn_endpoint *e);

/* The node's own side: home, outside addresses, relays, counters. */
json_t *status_reach(const struct node *n);

/* Puts what is known of the way to ${row}'s peer into its object. */
void status_way(json_t *o, const struct node *n, const struct node_peer *np);

#endif

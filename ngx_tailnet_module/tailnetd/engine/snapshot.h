/*
 * snapshot.h: telling the workers what a node knows.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

struct node;

/*
 * snapshot_publish(n): the netmap that rules, as a new generation, to the
 * holder; what fails is logged.  snapshot_publish_soon(): another netmap rules:
 * at once, or, after many in a short time, when its turn comes (the node's
 * publish_timer).  snapshot_publish_rows(n, rows, count): the same when only
 * those peers changed, as map_state_update() says; the next generation is then
 * a copy of the one before, with their records written anew, or there is none,
 * if nothing of it is for the workers.
 */
void snapshot_publish(struct node *n);
void snapshot_publish_soon(struct node *n);
void snapshot_publish_rows(struct node *n, const uint32_t *rows, size_t count);

/* The node ends. */
void snapshot_free(struct node *n);

#endif

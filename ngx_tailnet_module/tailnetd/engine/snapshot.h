/*
 * snapshot.h: telling the workers what a node knows.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

struct node;

/*
 * snapshot_publish(n): the netmap that rules, as a new generation, to the
 * holder; what fails is logged.  snapshot_publish_soon(): at once, or, after
 * many in a short time, when its turn comes (the node's publish_timer).
 */
void snapshot_publish(struct node *n);
void snapshot_publish_soon(struct node *n);

#endif

/*
 * snapshot.h: telling the workers what a node knows.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

struct node;
struct netmap_changes;

/*
 * snapshot_publish(n): the netmap that rules, as a new generation, to the
 * holder; what fails is logged, and tried again when memory may be there.
 * snapshot_publish_soon(): another netmap rules: at once, or, after many in a
 * short time, when its turn comes (the node's publish_timer).
 *
 * snapshot_publish_changes(n, changes): the same when that is what was done to
 * the netmap that ruled before.  There is no new generation if nothing of it is
 * for the workers.
 *
 * A large snapshot goes to the holder some turns of the loop later, and has by
 * then what changed meanwhile.
 */
void snapshot_publish(struct node *n);
void snapshot_publish_soon(struct node *n);
void snapshot_publish_changes(
    struct node *n, const struct netmap_changes *changes);

/* The node ends. */
void snapshot_free(struct node *n);

#endif

/*
 * join.h: a node that a control server admits to its tailnet.
 *
 * Between control/control.h, which knows protocols and no node, and node.h,
 * which knows no server: the node's options, its state directory's bytes, its
 * auth key, all of which the holder opens.
 */
#ifndef JOIN_H
#define JOIN_H

#include <stdbool.h>
#include <stddef.h>

#include "../control/control.h"
#include "../ipc.h"

#define JOIN_AUTH_KEY_MS 30000   /* for a command that prints the auth key */
#define JOIN_CA_MAX      1048576 /* bytes of the file of "control_ca" */
#define JOIN_LEAVE_MS    1800    /* for the server to hear of a logout */

struct node;
struct join;

/*
 * join_new(n, options, keys, netmap): ${options}: a node table with this node
 * alone; ${keys}, ${netmap}: what join_ops.save() was given earlier, or -1.
 * ${has_ca}, ${ca}: "control_ca" is set, and its file or -1.  The descriptors
 * stay the caller's.  NULL: logged, and kept as the node's
 * error.
 */
struct join *join_new(
    struct node *n, int options, int keys, int netmap, bool has_ca, int ca);

/* join_other_ca(j, has_ca, ca): the option "control_ca" or its file is another
 * one than ${j} has; ${ca} -1 with ${has_ca}: it cannot be read, the one before
 * is kept. */
bool join_other_ca(const struct join *j, bool has_ca, int ca);

/* join_set(j, options): the options changed.  Returns false: make a new one. */
bool join_set(struct join *j, int options);

/* Without a logout; its node may be gone already.  NULL is harmless. */
void join_free(struct join *j);

/*
 * join_leave(j): its node ends: an ephemeral one is logged out first, for at
 * most JOIN_LEAVE_MS; then ${j} is freed.  join_leaving(): how many are not
 * gone yet.
 */
void join_leave(struct join *j);
unsigned join_leaving(void);

/* join_auth_key(j, fd, why): the answer to node_ops.want_key(): a file or a
 * pipe (taken over), or -1 and why there is none. */
void join_auth_key(struct join *j, int fd, const char *why);

/* What tailnetctl asks for. */
void join_do(struct join *j, enum ipc_query what);

/* Whose certificates are accepted for this node; borrowed. */
struct tls_trust *join_trust(const struct join *j);

/* What peers are told besides what is found out; borrowed. */
const struct tn_endpoint *join_endpoints(const struct join *j, size_t *n);

/* For reach.c: its endpoints, NetInfo and disco key. */
struct control *join_control(struct join *j);

#endif

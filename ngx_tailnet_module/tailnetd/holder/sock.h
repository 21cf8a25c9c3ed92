/*
 * sock.h: sockets of the nodes' namespaces.
 *
 * Listening sockets are kept with the set of admin connections that asked for
 * them: the same question gets the same socket, so that a reload and a new
 * nginx binary share its accept queue, and the last connection takes it along.
 */
#ifndef SOCK_H
#define SOCK_H

#include "../ipc.h"
#include "netns.h"

#define SOCK_MAX 4096 /* listening sockets of all nodes */

/*
 * sock_listen(ns, want, slot, err): the listening socket (borrowed) that
 * ${want} describes, made in ${ns} if there is none, and held by connection
 * ${slot} from now on.  Returns it, or -1, an errno in ${*err} and a sentence
 * in ${text}.
 */
int sock_listen(const struct netns *ns, const struct tn_admin_listen *want,
    unsigned slot, int *err, char text[TN_ERR_MAX]);

/* sock_adopt(node, fd, slot): take over a listening socket that outlived
 * another holder.  ${fd} is taken over on success (0), not on failure (-1: it
 * is not a listening socket, or there are too many). */
int sock_adopt(const char *node, int fd, unsigned slot);

/* sock_release(slot): connection ${slot} is gone.  Returns how many sockets
 * were closed. */
unsigned sock_release(unsigned slot);

/* sock_pass(from, to): connection ${to} holds what ${from} held. */
void sock_pass(unsigned from, unsigned to);

void sock_drop_node(const char *node);

/* sock_listeners(node, m): distinct ports into a LISTENERS message. */
void sock_listeners(const char *node, struct ipc_msg *m);

/* sock_make(ns, family, type, count, a): unconnected sockets for workers, new
 * in ${a}.  Returns 0, or -1: see ${a}. */
int sock_make(const struct netns *ns, unsigned family, unsigned type,
    unsigned count, struct netns_answer *a);

#endif

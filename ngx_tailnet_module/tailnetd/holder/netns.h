/*
 * netns.h: doing one thing inside a node's network namespace.
 *
 * The holder never changes its own namespace.  Every operation is a job run by
 * a short-lived child that enters (or makes) the namespace and passes the
 * result and descriptors back over a socketpair; a child that does not answer
 * in NETNS_TIMEOUT_MS is killed.  The same code serves root and, through one
 * user namespace per node, a user without any privilege.
 */
#ifndef NETNS_H
#define NETNS_H

#include <stdbool.h>
#include <stddef.h>

#include "../../core/tn_admin.h"

#define NETNS_TIMEOUT_MS 5000
#define NETNS_FDS_MAX    TN_ADMIN_FDS_MAX

/* user: -1 where the namespace belongs to the holder's own user namespace. */
struct netns {
    int net;
    int user;
};

#define NETNS_NONE ((struct netns){-1, -1})

struct netns_answer {
    int err;               /* errno, 0: all went well */
    char text[TN_ERR_MAX]; /* then a sentence for people */
    size_t nfds;
    int fds[NETNS_FDS_MAX];
};

/* Runs in the child.  ${arg} is a copy; only ${a} comes back. */
typedef void netns_job(void *arg, struct netns_answer *a);

/* netns_init(): learn whether namespaces need a user namespace.  To be called
 * before capabilities are given up. */
void netns_init(void);
bool netns_rootless(void);

/* netns_run(ns, job, arg, a): run ${job} in ${ns}.  Returns 0 (descriptors in
 * ${a} are the caller's), or -1: see ${a}. */
int netns_run(
    const struct netns *ns, netns_job *job, void *arg, struct netns_answer *a);

/* netns_make(ns, job, arg, a): the same in a new namespace, whose descriptors
 * become ${*ns}. */
int netns_make(
    struct netns *ns, netns_job *job, void *arg, struct netns_answer *a);

/* netns_of_socket(sock, ns, err): the namespace of a socket.  Refuses the
 * holder's own one.  Returns 0, or -1 and a sentence. */
int netns_of_socket(int sock, struct netns *ns, char err[TN_ERR_MAX]);

bool netns_same(const struct netns *a, const struct netns *b);
void netns_close(struct netns *ns);

/* netns_fail(a, err, fmt): the answer of a job that failed. */
void netns_fail(struct netns_answer *a, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif

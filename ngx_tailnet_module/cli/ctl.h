/*
 * ctl.h: what the subcommands of tailnetctl share.
 *
 * Each subcommand is one file and one function: argv[0] is its own name, its
 * result the exit code (0 well, 1 failed, 2 wrong use).
 */
#ifndef CTL_H
#define CTL_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "../core/tn_admin.h"
#include "../core/tn_snap_read.h"

extern const char *ctl_socket; /* --socket, or NULL: the first that is there */
extern bool ctl_json;          /* --json */

int exec_main(int argc, char **argv);
int genkey_main(int argc, char **argv);
int login_main(int argc, char **argv);
int logout_main(int argc, char **argv);
int netcheck_main(int argc, char **argv);
int ping_main(int argc, char **argv);
int pubkey_main(int argc, char **argv);
int rotate_main(int argc, char **argv);
int status_main(int argc, char **argv);
int whois_main(int argc, char **argv);

/* ctl_connect(): a connection to tailnetd that has said HELLO; exits with a
 * sentence on failure. */
int ctl_connect(void);

/*
 * ctl_ask(fd, msg, len, want, buf, size, fds, nfds): sends one request and
 * waits for its answer of type ${want}, into ${buf} of ${size} bytes with up
 * to TN_ADMIN_FDS_MAX descriptors.  Exits with tailnetd's sentence where the
 * answer is ERROR.  Returns the answer's length.
 */
size_t ctl_ask(int fd, void *msg, size_t len, unsigned want, void *buf,
    size_t size, int *fds, size_t *nfds);

/*
 * ctl_document(fd, msg, len, text): the document of a TEXT answer, for
 * json_decref(), and its ${text}, for free().  Both may go to a terminal.  NULL
 * when it is malformed.
 */
json_t *ctl_document(int fd, void *msg, size_t len, char **text);

/* ctl_put(s): prints what somebody chose, control characters as "?". */
void ctl_put(struct tn_str s);

/*
 * ctl_status(argc, argv, text): the status of the node that argv[1] names, or
 * of all; at least "nodes" is there, an array.  The document is for
 * json_decref(), its ${text} for free().  NULL after a line about too many
 * arguments; exits with a sentence on other failures.
 */
json_t *ctl_status(int argc, char **argv, char **text);

/*
 * ctl_snapshot(fd, node, s): subscribes to ${node} and maps its snapshot.
 * Exits with a sentence on failure.
 */
void ctl_snapshot(int fd, const char *node, struct tn_snap *s);

/* ctl_node(fd, name, node): ${name}, or with NULL the only node there is, into
 * ${node}; exits otherwise. */
void ctl_node(int fd, const char *name, char node[static TN_NODE_NAME_MAX + 1]);

/* ctl_of_node(fd, arg, node): of ${arg}, [NODE/]REST, the node as above;
 * returns REST. */
const char *ctl_of_node(
    int fd, const char *arg, char node[static TN_NODE_NAME_MAX + 1]);

/* Prints "tailnetctl: " and a line to standard error; ctl_die() exits 1. */
void ctl_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void ctl_die(const char *fmt, ...)
    __attribute__((format(printf, 1, 2), noreturn));

#endif

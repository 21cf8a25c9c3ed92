/*
 * tn_admin.h: the admin channel of tailnetd, drawn as bytes.
 *
 * A unix SEQPACKET socket: one datagram is one message, header first, host
 * byte order (both ends are one machine), descriptors by SCM_RIGHTS.  The
 * first message on every connection is HELLO and carries the version; the
 * numbers of HELLO, HELLO_OK and ERROR and the layout of their first 12 bytes
 * never change, so that an old tailnetd and a new module can tell each other.
 *
 *   0        2        4                 8
 *   ┌────────┬────────┬─────────────────┐
 *   │ type   │ flags  │ seq             │  tn_admin_head
 *   ├────────┴────────┴─────────────────┤
 *   │ body of the type                  │
 *   └───────────────────────────────────┘
 *
 * A request gets exactly one answer with its seq: the type named below, or
 * ERROR.  SNAPSHOT is also sent unasked to subscribers (seq 0).
 *
 *   who may            request     body        fds      answer
 *   all                HELLO       hello       -        HELLO_OK
 *   master             TABLE       text        -        OK
 *   master             ADOPT       -           1 or 2   OK
 *   master             SECRET      node        1        OK
 *   master             LISTEN      listen      -        FD, 1 fd
 *   master             COMMIT      -           -        OK
 *   master             BEQUEST     -           -        FD, 1 fd
 *   master (2nd conn)  INHERIT     cycle       -        OK; then hello-only
 *   hello-only         ATTACH      -           1        none
 *   worker, ctl        SUBSCRIBE   node        -        OK, then SNAPSHOT
 *   master, worker     SOCKETS     sockets     -        FDS, n fds
 *   worker, ctl        STATUS      text        -        TEXT, 1 fd
 *   ctl                PING        ping        -        TEXT, 1 fd
 *   ctl                NETNS       node        -        FDS, 1 or 2 fds
 *   ctl                CONTROL     control     -        TEXT, 1 fd
 *   ctl                ONLY        -           -        NODE: there is one
 *   master             STOP        -           -        OK
 */
#ifndef TN_ADMIN_H
#define TN_ADMIN_H

#include <stdint.h>

#include "tn_addr.h"
#include "tn_node.h"

#define TN_ADMIN_VERSION    1u
#define TN_ADMIN_MSG_MAX    (TN_TABLE_MAX + 256u) /* longest message */
#define TN_ADMIN_FDS_MAX    64   /* descriptors of one message */
#define TN_ADMIN_CONN_MAX   512  /* connections of one tailnetd */
#define TN_ADMIN_SECRET_MAX 4096 /* bytes of a SECRET */

enum tn_admin_type {
    TN_ADMIN_HELLO = 1,
    TN_ADMIN_HELLO_OK = 2,
    TN_ADMIN_ERROR = 3,
    TN_ADMIN_OK = 4,
    TN_ADMIN_FD = 5,
    TN_ADMIN_FDS = 6,
    TN_ADMIN_TEXT = 7,
    TN_ADMIN_SNAPSHOT = 8,
    TN_ADMIN_NODE = 9,
    TN_ADMIN_TABLE = 16,
    TN_ADMIN_ADOPT = 17,
    TN_ADMIN_LISTEN = 18,
    TN_ADMIN_COMMIT = 19,
    TN_ADMIN_BEQUEST = 20,
    TN_ADMIN_INHERIT = 21,
    TN_ADMIN_STOP = 22,
    TN_ADMIN_SECRET = 23,
    TN_ADMIN_ATTACH = 32,
    TN_ADMIN_SUBSCRIBE = 33,
    TN_ADMIN_SOCKETS = 34,
    TN_ADMIN_STATUS = 35,
    TN_ADMIN_PING = 48,
    TN_ADMIN_NETNS = 49,
    TN_ADMIN_CONTROL = 50,
    TN_ADMIN_ONLY = 51,
};

enum tn_admin_role {
    TN_ROLE_MASTER = 1, /* configures */
    TN_ROLE_WORKER = 2, /* over ATTACH only */
    TN_ROLE_CTL = 3,    /* tailnetctl */
};

struct tn_admin_head {
    uint16_t type;
    uint16_t flags; /* zero */
    uint32_t seq;   /* the asker's, not 0 */
};

struct tn_admin_hello {
    struct tn_admin_head h;
    uint32_t version;
    uint32_t role;
};

struct tn_admin_hello_ok {
    struct tn_admin_head h;
    uint32_t version;
    uint32_t pid;   /* of the holder */
    uint64_t cycle; /* of this connection: for INHERIT */
};

/* errno and a sentence for people, to the message's end, no NUL. */
struct tn_admin_error {
    struct tn_admin_head h;
    uint32_t err;
    char text[];
};

/* TABLE: tn_node.h text.  STATUS: node name or "" for all. */
struct tn_admin_text {
    struct tn_admin_head h;
    char text[];
};

/*
 * A listening socket of the node's namespace.  The same (node, family, type,
 * port, worker) is the same socket for every asker, and lives while any
 * connection that asked for it is open.
 */
struct tn_admin_listen {
    struct tn_admin_head h;
    char node[TN_NODE_NAME_MAX + 1];
    uint8_t family; /* 4 or 6 */
    uint8_t type;   /* 1 stream, 2 datagram */
    uint16_t port;  /* host order */
    uint8_t reuseport;
    uint8_t pad;
    uint16_t worker;
};

/*
 * After the death of a holder: ${node}'s listening socket (its namespace is
 * found through it), and with it the bequest of the dead one, if it was asked
 * for.
 */
struct tn_admin_adopt {
    struct tn_admin_head h;
    char node[TN_NODE_NAME_MAX + 1];
};

struct tn_admin_inherit {
    struct tn_admin_head h;
    uint64_t cycle;
};

/*
 * SUBSCRIBE, NETNS, NODE, and SECRET: between TABLE and COMMIT, what the
 * variable of the node's "auth_key env:" holds in the master's environment, in
 * a sealed memory file: nobody has it in memory of his own, or in a core.
 */
struct tn_admin_node {
    struct tn_admin_head h;
    char node[TN_NODE_NAME_MAX + 1];
};

/* fd: sealed memory file of tn_snap.h.  Generations of a node only grow. */
struct tn_admin_snapshot {
    struct tn_admin_head h;
    char node[TN_NODE_NAME_MAX + 1];
    uint64_t generation;
};

/* Unconnected, non-blocking, close-on-exec sockets of the node's namespace. */
struct tn_admin_sockets {
    struct tn_admin_head h;
    char node[TN_NODE_NAME_MAX + 1];
    uint8_t family; /* 4 or 6 */
    uint8_t type;   /* 1 stream, 2 datagram */
    uint16_t count; /* 1..TN_ADMIN_FDS_MAX; the answer may hold fewer */
};

struct tn_admin_ping {
    struct tn_admin_head h;
    char node[TN_NODE_NAME_MAX + 1];
    struct tn_addr addr; /* of a peer */
    uint32_t timeout_ms;
};

/* What a node that joins by a control server is to do. */
enum tn_admin_what {
    TN_CONTROL_LOGIN = 1,
    TN_CONTROL_LOGOUT = 2,
    TN_CONTROL_ROTATE = 3,
    TN_CONTROL_SHOW = 4, /* nothing but the answer */
};

struct tn_admin_control {
    struct tn_admin_head h;
    char node[TN_NODE_NAME_MAX + 1];
    uint32_t what;
};

/* TEXT: the fd is a memory file that holds a JSON document. */

_Static_assert(sizeof(struct tn_admin_head) == 8, "drawn as bytes");
_Static_assert(sizeof(struct tn_admin_hello) == 16, "never changes");
_Static_assert(sizeof(struct tn_admin_hello_ok) == 24, "drawn as bytes");
_Static_assert(sizeof(struct tn_admin_listen) == 80, "drawn as bytes");
_Static_assert(sizeof(struct tn_admin_node) == 72, "drawn as bytes");
_Static_assert(sizeof(struct tn_admin_snapshot) == 80, "drawn as bytes");
_Static_assert(sizeof(struct tn_admin_sockets) == 76, "drawn as bytes");
_Static_assert(sizeof(struct tn_admin_ping) == 92, "drawn as bytes");
_Static_assert(sizeof(struct tn_admin_control) == 76, "drawn as bytes");

#endif

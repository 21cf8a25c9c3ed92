/*
 * ipc.h: between holder and engine, over a SEQPACKET socketpair that the
 * engine inherits as descriptor 3.  Host byte order, one datagram a message.
 *
 * The holder starts a new engine with: ENTRY for everything in its store, one
 * NODE for each node that rules, then READY.  From then on:
 *
 *   holder → engine
 *     ENTRY  name, fds      what an earlier engine PUT under that name
 *     NODE   node, fds      a node to run (or its options changed): TUN first,
 *                           then what IPC_NODE_* flags name: private key file,
 *                           preshared keys file, netmap file, each opened by
 *                           the holder at offset 0; of a node that joins by a
 *                           control server its options (a table's text) and
 *                           what it SAVEd earlier
 *     NETMAP node, fd       the node's netmap file changed: the new one
 *     NOFILE node, text     ... or it cannot be used, with the reason (shown
 *                           in status; the old netmap goes on ruling)
 *     AUTHKEY node, fd      the answer to WANTKEY: a file or pipe with it
 *     AUTHKEY node, text    ... or why there is none
 *     LISTENERS node, list  ports that have a listening socket on the mesh
 *                           (those a netmap without rules opens)
 *     GONE   node           stop the node, forget its keys
 *     READY  -              all of the above has been said once
 *     QUERY  id, kind       status or ping, for somebody at the admin channel
 *     MAIN   fd             (over the bequest) go on with this channel
 *     LOG    fd             (after MAIN) the standard error from now on
 *
 *   engine → holder
 *     PUT    name, fds      keep these descriptors beyond my death; no fds:
 *                           forget the name
 *     NETCONF node, addrs   addresses of mesh0 in the node's namespace
 *     SNAPSHOT node, fd     publish (sealed memory file, generation)
 *     ANSWER id, fd, text   to QUERY: memory file with a JSON document, or why
 *                           there is none ("": no memory)
 *     SAVE   node, kind, fd a memory file for the node's state directory
 *     WANTKEY node          its auth key is needed now
 *     UNMADE  node          NODE could not be done: again, later
 *
 * The engine logs lines to its standard error, which the holder reads,
 * bounds and writes to the log.
 */
#ifndef IPC_H
#define IPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/tn_addr.h"
#include "../core/tn_node.h"

#define IPC_FD            3 /* the engine's end, after exec */
#define IPC_BEQUEST_FD    4 /* the engine's end of the bequest */
#define IPC_MSG_MAX       8192
#define IPC_FDS_MAX       8
#define IPC_NAME_MAX      95 /* of a store entry: "udp4/NODE", "hot" */
#define IPC_ADDRS_MAX     16
#define IPC_LISTENERS_MAX 256 /* distinct (type, port) of one node */

enum ipc_type {
    IPC_ENTRY = 1,
    IPC_NODE,
    IPC_NETMAP,
    IPC_NOFILE,
    IPC_LISTENERS,
    IPC_GONE,
    IPC_READY,
    IPC_QUERY,
    IPC_MAIN,
    IPC_LOG,
    IPC_AUTHKEY,
    IPC_PUT = 64,
    IPC_NETCONF,
    IPC_SNAPSHOT,
    IPC_ANSWER,
    IPC_SAVE,
    IPC_WANTKEY,
    IPC_UNMADE,
};

enum ipc_node_fds {
    IPC_NODE_KEY = 1u << 0,
    IPC_NODE_PSK = 1u << 1,
    IPC_NODE_NETMAP = 1u << 2,
    IPC_NODE_OPTIONS = 1u << 3,
    IPC_NODE_SAVED_KEYS = 1u << 4,
    IPC_NODE_SAVED_NETMAP = 1u << 5,
    IPC_NODE_CA = 1u << 6,
};

#define IPC_NODE_FILES 7 /* kinds of them */

/* Of SAVE, and of what is kept in a state directory. */
enum ipc_save {
    IPC_SAVE_KEYS,
    IPC_SAVE_NETMAP,
    IPC_SAVES, /* how many */
};

enum ipc_query {
    IPC_QUERY_STATUS = 1, /* node "" for all */
    IPC_QUERY_PING = 2,
    IPC_QUERY_LOGIN = 3,
    IPC_QUERY_LOGOUT = 4,
    IPC_QUERY_ROTATE = 5,
    IPC_QUERY_SHOW = 6, /* how it is joined, with the login URL */
};

struct ipc_listener {
    uint16_t port; /* host order */
    uint8_t proto; /* 6 TCP, 17 UDP */
    uint8_t pad;
};

struct ipc_msg {
    uint16_t type;
    uint16_t kind; /* enum ipc_node_fds bits, ipc_query or ipc_save */
    uint32_t id;   /* QUERY, ANSWER */
    union {
        char node[TN_NODE_NAME_MAX + 1];
        char name[IPC_NAME_MAX + 1];
    };
    union {
        struct {
            uint16_t port; /* NODE */
            uint16_t mtu;
            bool has_psks; /* preshared_keys is set, usable or not */
            bool has_ca;   /* control_ca, likewise */
        };
        uint64_t generation; /* SNAPSHOT */
        struct {
            struct tn_addr addr; /* QUERY PING */
            uint32_t timeout_ms;
        };
        struct {
            uint32_t naddrs; /* NETCONF */
            struct tn_prefix addrs[IPC_ADDRS_MAX];
        };
        struct {
            uint32_t nlisteners; /* LISTENERS */
            struct ipc_listener listeners[IPC_LISTENERS_MAX];
        };
        char text[TN_ERR_MAX]; /* NOFILE, AUTHKEY, ANSWER */
    };
};

/*
 * ipc_send(fd, m, fds, nfds): one message with descriptors (they stay the
 * caller's).  While the socket's buffer is full, the holder's end blocks,
 * bounded by its SO_SNDTIMEO; the engine's does not.  Returns 0, or -1 and
 * errno.
 */
int ipc_send(int fd, const struct ipc_msg *m, const int *fds, size_t nfds);

/*
 * ipc_recv(fd, m, fds, nfds): does not block.  Descriptors become the
 * caller's, close-on-exec.  Returns 1: a message; 0: end of the channel;
 * -1 and errno (EAGAIN: none now; EBADMSG: malformed, its descriptors closed).
 */
int ipc_recv(int fd, struct ipc_msg *m, int fds[IPC_FDS_MAX], size_t *nfds);

#endif

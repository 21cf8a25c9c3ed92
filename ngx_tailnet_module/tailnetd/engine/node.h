/*
 * node.h: one node: its netmap, its WireGuard device, its packet filter and
 * the pump between them.
 *
 * States (node_state(), for people):
 *   waiting  a key or a first netmap is missing; ${error} says why
 *   running  a netmap rules
 *   expired  the self key has expired: nothing is forwarded
 */
#ifndef NODE_H
#define NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "../data/pump.h"
#include "../ipc.h"
#include "../magic/magic.h"
#include "../wg/device.h"
#include "failure.h"
#include "filter.h"
#include "hot.h"
#include "join.h"
#include "netmap.h"
#include "ping.h"

/* How a node reaches the holder. */
struct node_ops {
    void (*put)(const char *name, const int *fds, size_t nfds);
    void (*netconf)(
        const char *node, const struct tn_prefix *addrs, size_t naddrs);
    void (*publish)(const char *node, uint64_t generation, int fd);
    /* The end of echo_begin() number ${query}; ${error} NULL: an answer came
     * after ${ns} nanoseconds, the peer being at ${e}. */
    void (*pong)(uint32_t query, const struct tn_addr *to,
        const struct tn_endpoint *e, uint64_t ns, const char *error);
    /* For the node's state directory, as control.h has them. */
    void (*save_keys)(const char *node, const void *bytes, size_t len);
    void (*save_netmap)(const char *node, int fd);
    /* Its auth key is needed: join_auth_key() brings it. */
    void (*want_key)(const char *node);
};

/* What wg_peer_data() is. */
struct node_peer {
    struct node_peer *next, **at; /* ${at}: what leads to it */
    struct wg_peer *peer;
    const struct netmap_node *self; /* row in the netmap that rules */
    struct magic_peer way;          /* of a node that joined a tailnet */
    unsigned endpoint;              /* of self->endpoints, tried next */
    int64_t seen;                   /* Unix seconds of the last hot_saw() */
    bool kept;                      /* scratch of peers.c */
};

struct snapshot_image;

struct node {
    struct node *next;
    char name[TN_NODE_NAME_MAX + 1];
    uint16_t port, mtu;
    const struct node_ops *ops;
    struct hot *hot;
    struct hot_node *hot_row;
    struct pump_fds fds; /* owned */
    struct pump *pump;
    struct wg_device *wg; /* NULL: no key yet */
    struct node_peer *peers;
    struct filter *filter;        /* NULL: nothing is forwarded */
    struct netmap *netmap;        /* NULL: none rules */
    struct snapshot_image *image; /* what was published of it, or NULL */
    int64_t expires; /* the next key does, Unix seconds, or INT64_MAX */
    int64_t looked;  /* at all keys, whether they have; Unix seconds */
    struct source_file_psks *psks;
    struct join *join;       /* NULL: its netmap is a file's */
    struct magic *magic;     /* NULL: peers are where their packets come from */
    struct tls_trust *trust; /* of its relays; a reference, or NULL */
    uint8_t private_key[32];
    bool lacks_psks;        /* configured, but not to be had */
    bool resumed;           /* hot peers were initiated to */
    bool masked;            /* a peer knows, or knew, us by another address */
    char error[TN_ERR_MAX]; /* "": none */
    struct loop_timer *wg_timer;
    struct loop_timer *publish_timer;
    struct loop_timer *expiry_timer;
    struct loop_timer *retry_timer; /* of handshakes likely in vain; reach.c */
    uint64_t retry_ms;
    uint64_t stranger;     /* time of the last handshake with one */
    uint64_t publish_at;   /* loop_now() at which the next one is due */
    uint64_t drop_expired; /* packets while the self key is expired */
    uint64_t drop_forged;  /* messages that only the engine may send */
    struct ipc_listener listeners[IPC_LISTENERS_MAX];
    uint32_t nlisteners;
    struct ping_list pings;
    struct failure failure;
};

/*
 * node_new(m, mesh, udp, hot, ops): a node as ${m} (IPC_NODE) describes it.
 * ${mesh}: its TUN; ${udp}: sockets of an earlier engine, {-1, -1}: new ones
 * are made.  All descriptors are taken over, also on failure (NULL).
 */
struct node *node_new(const struct ipc_msg *m, int mesh, const int udp[2],
    struct hot *hot, const struct node_ops *ops);

/* Ends its sessions and wipes its keys.  The holder keeps TUN and sockets. */
void node_free(struct node *n);

/* Each takes the descriptor over.  A file that cannot be used is logged, kept
 * in n->error, and what ruled before goes on ruling. */
void node_set_key(struct node *n, int fd);
/*
 * Whether node_set_psks() has to follow.  A node that lacks its preshared keys
 * goes on with those it had; without any it takes no netmap: its peers would
 * be talked to with less secrecy than was asked for.
 */
void node_expect_psks(struct node *n, bool expected);
void node_set_psks(struct node *n, int fd);
void node_set_netmap(struct node *n, int fd);
void node_set_error(struct node *n, const char *text);

/*
 * Of a node that joins by a control server: the node key (copied) that the
 * netmaps to come belong to; a netmap (taken over), ${cached}: of an earlier
 * life; what is to be said of its state, "": nothing.
 */
void node_take_key(struct node *n, const uint8_t key[32]);
void node_take_netmap(struct node *n, struct netmap *nm, bool cached);
void node_set_words(struct node *n, const char *words);

/* node_take_changes(n, c): the netmap that rules is another now, as
 * map_state_update() says. */
void node_take_changes(struct node *n, const struct netmap_changes *c);

void node_set_listeners(struct node *n, const struct ipc_msg *m);

/* For reach.c: a WireGuard message that came; what was sent since may go out,
 * and timers may have moved; the port of a bound socket, 0: it is not there. */
void node_receive(struct node *n, uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now);
void node_flush(struct node *n);
uint16_t node_udp_port(int fd);

/* Descriptors, addresses and snapshot to the holder again: it is a new one. */
void node_reintroduce(struct node *n);

const char *node_state(const struct node *n);

/* Whether the key of the node itself, which has a netmap, has expired. */
bool node_expired(const struct node *n);

#endif

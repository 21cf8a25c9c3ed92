/*
 * hot.h: what a new engine must know of a dead one to resume in seconds.
 *
 * A locked memory file that lives in the holder's store, never on disk: per
 * node the last TAI64N and generation, its disco key (the one private key here,
 * which protects no data) and its home region; per active peer its last
 * endpoint and relay.  The successor reads it as untrusted input: a bad file is
 * dropped whole, a bad row alone.
 */
#ifndef HOT_H
#define HOT_H

#include <stdbool.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "../../core/tn_node.h"

#define HOT_PEERS_MAX 4096 /* rows; the longest silent one makes room */
#define HOT_ACTIVE_S  180  /* a peer heard of within this is initiated to */

struct hot_node {
    char name[TN_NODE_NAME_MAX + 1]; /* "": free */
    uint64_t generation;
    uint8_t tai64n[12];
    uint16_t home; /* relay region; 0: none */
    uint16_t pad;
    uint8_t disco[32]; /* private; all zeros: none */
};

struct hot_peer {
    char node[TN_NODE_NAME_MAX + 1]; /* "": free */
    uint8_t key[32];
    struct tn_addr addr;
    uint16_t port;   /* 0: no endpoint is known */
    uint16_t region; /* of its relay; 0: none is known */
    uint16_t pad[2];
    int64_t seen; /* Unix seconds */
};

struct hot;

/* hot_new(fd): an empty state in a new memory file, whose descriptor goes to
 * ${*fd} (owned by the state).  NULL and errno. */
struct hot *hot_new(int *fd);

/* hot_open(fd): the state in an earlier engine's file; takes ${fd} over.
 * NULL: not one of this layout (logged by the caller; ${fd} is closed). */
struct hot *hot_open(int fd);
void hot_free(struct hot *h);

/* Row of a node, made where there is none; NULL: TN_NODES_MAX reached. */
struct hot_node *hot_node(struct hot *h, const char *name);
void hot_forget(struct hot *h, const char *name);

/* hot_saw(h, node, key, e, now): ${key} was heard from ${e}. */
void hot_saw(struct hot *h, const char *node, const uint8_t key[32],
    const struct tn_endpoint *e, int64_t now);

/* hot_saw_relay(h, node, key, region, now): the same by relay, which takes the
 * place of its endpoint. */
void hot_saw_relay(struct hot *h, const char *node, const uint8_t key[32],
    uint16_t region, int64_t now);

/* The row of (node, key) when it is valid and no older than HOT_ACTIVE_S;
 * else NULL. */
const struct hot_peer *hot_peer(
    const struct hot *h, const char *node, const uint8_t key[32], int64_t now);

/* Rows that lost their place to others since the file was made. */
uint64_t hot_evicted(const struct hot *h);

#endif

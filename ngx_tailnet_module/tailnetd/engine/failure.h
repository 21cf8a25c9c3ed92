/*
 * failure.h: lines about peers that do not come in, or that we do not get to.
 *
 * They come for strangers, whom a handshake costs nothing, for peers, and for
 * connections that peers refuse.  Of each of the three there is at most one
 * line in FAILURE_EVERY_MS, and one about the same thing comes again after
 * FAILURE_AGAIN_MS; the last FAILURE_KEPT things are known.  What is left out
 * is counted.
 */
#ifndef FAILURE_H
#define FAILURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../wg/device.h"
#include "keytext.h"

#define FAILURE_EVERY_MS 10000
#define FAILURE_AGAIN_MS 300000
#define FAILURE_KEPT     8

/* A node that joined may hear of a peer later than the peer of it, and of a way
 * to it only then: what fails is spoken of when it fails again after this. */
#define FAILURE_PATIENCE_MS 4000

/* So long it is not forgotten before; WireGuard tries every five seconds. */
#define FAILURE_WAIT_MS 20000

struct node;
struct node_peer;
struct tsmp;

/* What happened, as bytes. */
struct failure_what {
    uint8_t kind, b[KEYTEXT_BYTES];
};

struct failure_known {
    struct failure_what what;
    uint64_t since; /* 0: none */
    bool told;
};

/* Zeroed: nothing was said yet. */
struct failure_log {
    struct failure_known known[FAILURE_KEPT];
    unsigned next;     /* of known, to be taken */
    uint64_t said;     /* when, 0: never */
    uint64_t left_out; /* since then */
    uint64_t unsaid;   /* in all */
};

struct failure {
    struct failure_log strangers, peers, refusals;
    bool expired; /* the node's own key, and that was said */
};

/* failure_handshake(): wg_ops.failed of a node. */
void failure_handshake(void *ctx, enum wg_failure why, const uint8_t *key,
    const struct tn_endpoint *at, uint64_t now);

/* failure_refusal(n, np, t, now): peer ${np} refused a connection, as its
 * message ${t} (TSMP_REJECT) says. */
void failure_refusal(struct node *n, const struct node_peer *np,
    const struct tsmp *t, uint64_t now);

/* failure_self(n): a netmap rules, or rules anew since a key has expired.  Says
 * once if it is the node's own; of one that joined the control says so. */
void failure_self(struct node *n);

/* failure_unsaid(f): how many lines were left out so far. */
uint64_t failure_unsaid(const struct failure *f);

#endif

/*
 * derp.h: a node's connections to relays: one that always stands, to its home
 * region, and others for as long as somebody is talked to by them.
 *
 * States of a region's connection:
 *   waiting    the next try is later
 *   opening    TCP, TLS
 *   upgrading  the HTTP request is out
 *   keying     the server's key is awaited
 *   entering   we said who we are
 *   up         packets go
 * Packets for a region that is not up wait in its queue, bounded; the oldest
 * gives way.  A relay may lose packets: nobody retries here.
 */
#ifndef DERP_H
#define DERP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../crypto/tls.h"
#include "../engine/netmap.h"
#include "derp_frame.h"

#define DERP_CONNS_MAX   64     /* regions at once */
#define DERP_QUEUE_MAX   256    /* packets of one */
#define DERP_BURST_MAX   10     /* packets to one at once: a timer's tick */
#define DERP_GAP_US      100    /* between packets to one, on average */
#define DERP_WRITE_MAX   131072 /* bytes that TCP has not taken yet */
#define DERP_CONNECT_MS  4000   /* to one relay */
#define DERP_ENTER_MS    6000   /* from there until it is up */
#define DERP_SILENCE_MS  120000 /* of a relay that has to speak each 65 s */
#define DERP_IDLE_MS     60000  /* without a packet from us */
#define DERP_BACKOFF_MS  5000   /* at most, between two tries */
#define DERP_BACKOFF_MIN 100
#define DERP_RESTART_MS  60000 /* believed of a server that restarts */
#define DERP_LINES_MAX   10    /* logged of what it says, in DERP_IDLE_MS */
#define DERP_ANSWER_MAX  8192  /* bytes of HTTP headers */

/* The address of ${region}'s relay, for WireGuard: 127.3.3.40:REGION. */
struct tn_endpoint derp_endpoint(uint16_t region);
/* The region of such an address, 0: it is another one. */
uint16_t derp_region(const struct tn_endpoint *e);

struct derp_ops {
    /* A packet from ${src}, changeable, DERP_SLACK readable bytes behind. */
    void (*packet)(void *ctx, uint16_t region, const uint8_t src[32],
        uint8_t *p, size_t len);
    /* All that came at once was given. */
    void (*after)(void *ctx);
    /* ${key} is not at ${region} (any more). */
    void (*gone)(void *ctx, uint16_t region, const uint8_t key[32]);
    /* A region went up or down. */
    void (*changed)(void *ctx, uint16_t region, bool up);
    void (*random)(void *ctx, uint8_t *buf, size_t len);
};

struct derp_config {
    const char *node;           /* for log lines; outlives it */
    const uint8_t *private_key; /* copied */
    struct tls_trust *trust;    /* outlives it */
    bool insecure;              /* tests: InsecureForTests is obeyed */
    const struct derp_ops *ops;
    void *ctx;
};

struct derp_counters {
    uint64_t sent, received, connects, failures;
    uint64_t drop_queue;  /* the oldest gave way */
    uint64_t drop_region; /* no such region, or DERP_CONNS_MAX */
    uint64_t drop_size, drop_memory;
    uint64_t gone;    /* PeerGone */
    uint64_t skipped; /* frames of a type that is not known */
};

/* For status. */
struct derp_status {
    uint16_t region;
    const char *state;
    const char *health; /* "": well */
    const char *error;  /* of the last failure; "": none since it was up */
};

struct derp;

struct derp *derp_new(const struct derp_config *c);
void derp_free(struct derp *d);

/* derp_map(d, map): borrowed until the next call has returned; NULL: none.  A
 * connection to a relay that is not of its region any more ends. */
void derp_map(struct derp *d, const struct netmap_derp *map);

/* The node has another key: everything connects anew. */
void derp_key(struct derp *d, const uint8_t private_key[32]);

/* 0: none. */
void derp_home(struct derp *d, uint16_t region);

/* derp_send(d, region, to, msg, len): one packet, copied; held until
 * derp_flush(). */
void derp_send(struct derp *d, uint16_t region, const uint8_t to[32],
    const uint8_t *msg, size_t len);
void derp_flush(struct derp *d);

bool derp_up(const struct derp *d, uint16_t region);
/* loop_now() of the last frame from ${region}; 0: it is not up. */
uint64_t derp_heard(const struct derp *d, uint16_t region);

/* derp_check(d, addrs, n): connections from an address that this machine does
 * not have any more are made anew. */
void derp_check(struct derp *d, const struct tn_addr *addrs, size_t n);

const struct derp_counters *derp_counters(const struct derp *d);
/* derp_status(d, out): at most DERP_CONNS_MAX; strings until the next event. */
size_t derp_status(
    const struct derp *d, struct derp_status out[DERP_CONNS_MAX]);

struct stream;
struct stream_ops;

/* derp_dial(relay, trust, insecure, ms, ops, arg): a TLS connection to a relay,
 * as its row says; see stream.h.  NULL: no memory. */
struct stream *derp_dial(const struct netmap_relay *relay,
    struct tls_trust *trust, bool insecure, uint32_t ms,
    const struct stream_ops *ops, void *arg);

#endif

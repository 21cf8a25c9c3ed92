/*
 * talk.h: what magic.c and talk.c share: a magic, and the part of a peer that
 * is there only while it talks.
 *
 * talk.c is about one peer: its messages, its path, its relay.  magic.c has the
 * node's own side: outside addresses, home region, timers.
 */
#ifndef TALK_H
#define TALK_H

#include "../loop.h"
#include "disco.h"
#include "endpoints.h"
#include "link.h"
#include "magic.h"
#include "netcheck.h"
#include "probe.h"
#include "resolve.h"

#define TALK_BUCKETS_MIN 64

/* So many a second, and as many at once. */
struct talk_bucket {
    unsigned left;
    uint64_t second;
};

struct talk {
    struct talk *next, **at; /* of magic->talks */
    struct magic *magic;
    struct magic_peer *peer;
    struct path *path; /* NULL: a peer without disco key */
    uint8_t shared[BOX_KEY_LEN];
    uint8_t disco[32]; /* that ${shared} is for */
    /* A disco key by its own word, instead of the netmap's. */
    bool has_advert;
    uint8_t advert[32], instead[32];
    uint16_t region;             /* it was heard by; 0: none */
    uint64_t region_at;          /* microseconds */
    struct talk_bucket pongs[2]; /* to places that answered us, and others */
    bool wants_call;             /* when our outside address is known again */
    struct tn_endpoint moved;    /* as the owner was told */
};

struct magic {
    struct magic_config is;
    const struct magic_ops *ops;
    void *ctx;
    uint8_t disco_public[32], node_public[32];
    struct derp *derp;
    struct netcheck *netcheck;
    struct probe *probe; /* NULL: none is under way */
    uint64_t probe_at;   /* not before */
    struct resolve *resolve;
    struct link *link;
    struct loop_timer *timer;
    uint64_t timer_at; /* microseconds */
    const struct netmap_derp *map;
    bool mapped;  /* ${map} was given */
    bool rekeyed; /* the home's relay does not know it yet */
    bool joined;
    uint16_t home;

    struct magic_peer **buckets; /* by disco key */
    size_t nbuckets, npeers;
    struct talk *talks;
    size_t ntalks;
    struct talk_bucket strangers;
    const uint8_t *relay_src; /* key that the message under way came from */
    uint16_t relay_region;

    struct tn_addr addrs[LINK_ADDRS_MAX];
    size_t naddrs;
    struct endpoints endpoints;
    struct message_netinfo netinfo;
    bool checked;       /* a netcheck was completed */
    uint64_t stun_at;   /* our outside addresses were seen; 0: never */
    uint64_t check_at;  /* next netcheck while peers are active */
    uint64_t full_from; /* last full one ... */
    uint64_t full_at;   /* ... and the next */
    struct magic_counters count;
};

void talk_random(void *ctx, uint8_t *buf, size_t len);

/* false: too many this second. */
bool talk_take(struct talk_bucket *b, unsigned rate, uint64_t now);

/* The talk of ${p}, made where there is none; NULL: no memory. */
struct talk *talk_get(struct magic *m, struct magic_peer *p);
void talk_free(struct talk *t);

/* Its peer has another row, perhaps another disco key. */
void talk_rekey(struct talk *t);

/* The region to send by, 0: none. */
uint16_t talk_region(const struct talk *t, uint64_t now);

/* A disco datagram; ${src_key}: the relay's word for who sent it, NULL: it
 * came by UDP from ${src}. */
void talk_disco(struct magic *m, const uint8_t *msg, size_t len,
    const struct tn_endpoint *src, const uint8_t *src_key);

/* Our addresses are known anew: calls that waited for that. */
void talk_call(struct talk *t);

/* A ping to where a packet would go now; false: nowhere. */
bool talk_ping(struct talk *t, const uint8_t txid[12], uint64_t now);

/* Tells the owner where packets go, if that is news. */
void talk_moved(struct talk *t);

/* ---- magic.c ---- */

/* Outside addresses are wanted soon. */
void magic_check_soon(struct magic *m);
/* ${at}: microseconds; the timer runs no later. */
void magic_wake(struct magic *m, uint64_t at);

#endif

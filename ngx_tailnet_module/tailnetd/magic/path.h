/*
 * path.h: the way to one peer: by which of its addresses, or by relay.
 *
 * Sans-I/O.  Addresses, pings, pongs and the time go in; pings to send, calls
 * to make and a route for each packet come out.  All times are microseconds of
 * a monotonic clock.
 *
 * States, all set in one place:
 *   idle    nothing was sent for PATH_ACTIVE; no ping goes out
 *   relay   active, and no address is known to work: packets go by relay,
 *           every candidate is pinged each PATH_PING_EVERY, and the peer is
 *           called (call-me-maybe) to ping ours
 *   direct  an address answered less than PATH_TRUST ago, and does not owe an
 *           answer for longer than PATH_LATE: packets go there
 *   doubt   it answered before that: packets go there and by relay, and
 *           candidates are pinged as in relay
 *
 *   idle ─ send ─► relay ◄─ ping timed out ─ doubt ◄─ trust lapsed ─ direct
 *                    └──────────── pong ───────┴──────── pong ────────►┘
 *
 * An address that only a ping came from is pinged once for each, until it has
 * answered: the ping may be an old one, its source forged.
 *
 * Only a pong makes or extends trust: neither data nor the source of a ping
 * does.  An answer is asked for by the heartbeat, by a peer that calls, and
 * when what is sent has no echo for PATH_QUIET; what comes from that address
 * counts as an answer, but for the trust.
 */
#ifndef PATH_H
#define PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

#define PATH_S          1000000ull
#define PATH_HEARTBEAT  (3 * PATH_S) /* pings on the best address */
#define PATH_TRUST      (6500 * PATH_S / 1000)
#define PATH_QUIET      PATH_S
#define PATH_AGAIN      (PATH_S / 2) /* an answer is asked for, until ... */
#define PATH_LATE       (3 * PATH_S / 2)
#define PATH_ACTIVE     (45 * PATH_S) /* since our last packet */
#define PATH_TIMEOUT    (5 * PATH_S)  /* of a ping */
#define PATH_PING_EVERY (5 * PATH_S)  /* at least, to one candidate */
#define PATH_PROBE      (60 * PATH_S) /* for something better ... */
#define PATH_GOOD_US    5000          /* ... unless it is as near as this */
#define PATH_CALL_MIN   (PATH_S / 4)  /* between two calls that we follow */
#define PATH_FORGET     (540 * PATH_S)

#define PATH_CANDIDATES_MAX 100 /* the longest silent one makes room */
#define PATH_PINGS_MAX      256 /* without answer; the oldest one makes room */

enum path_state { PATH_IDLE, PATH_RELAY, PATH_DIRECT, PATH_DOUBT };

enum path_from {
    PATH_FROM_NETMAP = 1, /* what the control server says */
    PATH_FROM_CALL = 2,   /* the peer's last call-me-maybe */
    PATH_FROM_PING = 4,   /* the source of a ping */
    PATH_FROM_HOT = 8,    /* used before this process began */
};

struct path;

struct path_ops {
    /* Sends a ping.  false: there is no way to that address from here. */
    bool (*ping)(
        void *ctx, const struct tn_endpoint *to, const uint8_t txid[12]);
    /* Sends our addresses to the peer, by relay. */
    void (*call)(void *ctx);
    void (*random)(void *ctx, uint8_t *buf, size_t len);
    /* path_state() or path_best() is another one now. */
    void (*changed)(void *ctx);
};

struct path_route {
    struct tn_endpoint udp; /* port 0: not there */
    bool relay;
};

/* path_new(ops, ctx): NULL: no memory.  ${ops} must outlive it. */
struct path *path_new(const struct path_ops *ops, void *ctx);
void path_free(struct path *p);

/* path_send(p, now): where the packet that is to be sent now goes. */
struct path_route path_send(struct path *p, uint64_t now);

/* Candidates: those of the control server, and those of a call-me-maybe that
 * came by relay; each list replaces the last of its kind. */
void path_netmap(
    struct path *p, const struct tn_endpoint *list, size_t n, uint64_t now);
void path_call(
    struct path *p, const struct tn_endpoint *list, size_t n, uint64_t now);

/* path_resume(p, e): ${e} was the best address some seconds ago. */
void path_resume(struct path *p, const struct tn_endpoint *e);

/* path_pinged(p, src, txid, now): an authentic ping came by UDP.  Whether it is
 * to be answered (false: it was). */
bool path_pinged(struct path *p, const struct tn_endpoint *src,
    const uint8_t txid[12], uint64_t now);

/* Whether a ping of ours to ${e} was answered, since the peer said or showed
 * that it is there. */
bool path_proven(const struct path *p, const struct tn_endpoint *e);

/* path_pong(p, txid, now): an authentic pong came.  false: to no ping of this
 * path that is still waited for. */
bool path_pong(struct path *p, const uint8_t txid[12], uint64_t now);

/* path_heard(p, src): the peer's data came from ${src}. */
void path_heard(struct path *p, const struct tn_endpoint *src);

/* path_distrust(p, now): our own addresses changed: nothing is trusted. */
void path_distrust(struct path *p, uint64_t now);

/* path_forget(p): the peer is another one (its disco key changed): what was
 * learned from it is dropped. */
void path_forget(struct path *p);

/* When path_tick() has to be called next, UINT64_MAX: never. */
uint64_t path_deadline(const struct path *p);
void path_tick(struct path *p, uint64_t now);

enum path_state path_state(const struct path *p);
/* The address in use, port 0: none, and its latency in microseconds. */
struct tn_endpoint path_best(const struct path *p);
uint32_t path_latency(const struct path *p);
bool path_active(const struct path *p, uint64_t now);
/* Whether it was silent for so long that it can be freed. */
bool path_stale(const struct path *p, uint64_t now);
size_t path_candidates(const struct path *p);

/* path_better(a, a_us, b, b_us): whether ${a} is worth leaving ${b} for. */
bool path_better(const struct tn_endpoint *a, uint32_t a_us,
    const struct tn_endpoint *b, uint32_t b_us);

#endif

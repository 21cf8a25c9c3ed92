/*
 * netcheck.h: what the network around this node is like, by asking the STUN
 * servers of the relays: which addresses we have outside, whether UDP passes
 * at all, and which relay region is near enough to be home.
 *
 * Sans-I/O.  One run at a time: netcheck_start(), datagrams that
 * netcheck_receive() knows as its own, netcheck_tick() until it says that the
 * run is over.  All times are microseconds of a monotonic clock.
 */
#ifndef NETCHECK_H
#define NETCHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

#define NETCHECK_MS      1000ull
#define NETCHECK_RUN     (3000 * NETCHECK_MS)   /* the longest run */
#define NETCHECK_SPACING (100 * NETCHECK_MS)    /* from one try to the next */
#define NETCHECK_RECENT  (305000 * NETCHECK_MS) /* latencies that count */
#define NETCHECK_NEARER  (10 * NETCHECK_MS)     /* that is worth a move */
#define NETCHECK_HISTORY 16                     /* latencies of a region */
#define NETCHECK_SERVERS 3                      /* asked of a region */
#define NETCHECK_SEEN    8 /* our outside addresses that are told apart */

struct netcheck_region {
    uint16_t id;
    bool no_home; /* measured, but not for home */
    double score; /* a latency is multiplied by it */
    /* STUN servers, IPv4 and IPv6; port 0: none. */
    struct tn_endpoint servers[NETCHECK_SERVERS][2];
    unsigned nservers;
};

struct netcheck_ops {
    void (*send)(void *ctx, const struct tn_endpoint *to, const uint8_t *msg,
        size_t len);
    void (*random)(void *ctx, uint8_t *buf, size_t len);
};

/* An address of ours, as a server sees it. */
struct netcheck_seen {
    struct tn_endpoint at;
    unsigned servers; /* that saw this one */
};

/* What the last run found out. */
struct netcheck_report {
    bool udp; /* some answer came */
    bool four, six;
    bool varies; /* IPv4: the outside port depends on whom we talk to */
    bool varies_known;
    struct netcheck_seen seen[NETCHECK_SEEN]; /* IPv4 before IPv6 */
    unsigned nseen;
};

struct netcheck;

struct netcheck *netcheck_new(const struct netcheck_ops *ops, void *ctx);
void netcheck_free(struct netcheck *n);

/* netcheck_regions(n, list, count): copied; what is known of a region that
 * stays is kept.  A run that is under way ends.  Returns 0, or -1: no memory,
 * nothing changed. */
int netcheck_regions(
    struct netcheck *n, const struct netcheck_region *list, size_t count);

/*
 * netcheck_start(n, home, full, six, now): begins a run.  ${full}: every
 * region; else the nearest three and ${home}.  ${six}: IPv6 is worth trying.
 * false: there is nobody to ask, or no memory, or a run is under way.
 */
bool netcheck_start(
    struct netcheck *n, uint16_t home, bool full, bool six, uint64_t now);
bool netcheck_running(const struct netcheck *n);

/* netcheck_receive(n, msg, len, now): whether the datagram was an answer that
 * is waited for. */
bool netcheck_receive(
    struct netcheck *n, const uint8_t *msg, size_t len, uint64_t now);

/* netcheck_hush(n): no region has answered since, until it does. */
void netcheck_hush(struct netcheck *n);

/* netcheck_sample(n, region, us, now): a latency that was measured otherwise,
 * by relay. */
void netcheck_sample(
    struct netcheck *n, uint16_t region, uint32_t us, uint64_t now);

/* netcheck_tick(n, now): sends what is due.  true: the run is over just now. */
bool netcheck_tick(struct netcheck *n, uint64_t now);
uint64_t netcheck_deadline(const struct netcheck *n);

const struct netcheck_report *netcheck_report(const struct netcheck *n);

/* netcheck_latency(n, region, six, now): the best recent one, 0: none. */
uint32_t netcheck_latency(
    const struct netcheck *n, uint16_t region, bool six, uint64_t now);

/*
 * netcheck_home(n, home, alive, pick, now): the region that should be home;
 * ${home} is it now (0: none).  ${alive}: its relay was heard of within
 * seconds.  ${pick} chooses where nothing could be measured, always the same.
 * 0: there is no region.
 */
uint16_t netcheck_home(const struct netcheck *n, uint16_t home, bool alive,
    uint32_t pick, uint64_t now);

#endif

/*
 * filter.h: which packets from the mesh may come in.
 *
 * The packet filter of a netmap: allow rules only, inbound only, everything
 * else is dropped.  Answers pass: TCP segments other than a SYN (the kernel
 * resets those it has no connection for), UDP and SCTP of a flow that an
 * outgoing packet made known, ICMP echo replies and errors.  No packet
 * allocates; a filter belongs to one thread and borrows nothing.
 */
#ifndef FILTER_H
#define FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "netmap.h"

struct filter;
struct ipc_listener;

/* What this node is, besides the self node's Addresses. */
struct filter_local {
    /* Service addresses and advertised routes: local destinations too. */
    const struct tn_prefix *prefixes;
    size_t nprefixes;
    /* A netmap without rules lets everybody in it reach the listeners below
     * and answers echo requests.  False: it drops all. */
    bool open_listeners;
    /* Answers only, whatever the rules say. */
    bool shields_up;
};

enum filter_verdict {
    FILTER_ACCEPT,
    FILTER_DROP,
    /* A TCP SYN over IPv4 that no rule allows: dropped, and its sender ought
     * to be told by a TSMP reject. */
    FILTER_REJECT,
};

/* Why; every inbound packet counts under exactly one of the first group. */
enum filter_reason {
    FILTER_ACCEPT_EMPTY,  /* keepalive */
    FILTER_ACCEPT_ANSWER, /* no rule was needed */
    FILTER_ACCEPT_RULE,
    FILTER_DROP_LENGTH,   /* shorter than its headers say */
    FILTER_DROP_HEADER,   /* not IP, or addresses that cannot be */
    FILTER_DROP_PROTO,    /* protocol 0 or 255 */
    FILTER_DROP_FRAGMENT, /* tiny or overlapping */
    FILTER_DROP_MULTICAST,
    FILTER_DROP_LINK_LOCAL,
    FILTER_DROP_NOT_LOCAL, /* destination is not this node's */
    FILTER_DROP_NO_RULE,
    FILTER_DROP_JAILED, /* jailed peer or shields up: not an answer */

    FILTER_FLOW_RECORDED, /* outbound UDP or SCTP flow, new */
    FILTER_FLOW_EVICTED,  /* ... over FILTER_FLOW_MAX: the oldest went */
    FILTER_REASONS
};

/*
 * filter_new(nm, local): the filter of ${nm}, compiled; ${local} may be NULL:
 * nothing but the self node's Addresses.  Neither is needed afterwards. Returns
 * NULL: no memory.  filter_free(NULL) is harmless.
 */
struct filter *filter_new(
    const struct netmap *nm, const struct filter_local *local);
void filter_free(struct filter *f);

/* Whether peers that come or go make another filter of it: rules name a
 * capability for a source. */
bool filter_by_peer(const struct filter *f);

/* Replaces the listeners (ipc.h) that a netmap without rules opens; those of
 * protocols other than TCP and UDP are not looked at. */
void filter_set_listeners(
    struct filter *f, const struct ipc_listener *list, size_t n);

/* filter_forget(f, a): ${a} is another's from now on: nothing that it is sent
 * by anybody is an answer to what was sent before. */
void filter_forget(struct filter *f, const struct tn_addr *a);

/* Move flows and counters from ${old} to ${f}, which takes its place. */
void filter_inherit(struct filter *f, struct filter *old);

/*
 * filter_in(f, pkt, len, jailed): whether the decrypted packet may come in;
 * ${jailed} is that of the peer that sent it.
 */
enum filter_verdict filter_in(
    struct filter *f, const uint8_t *pkt, size_t len, bool jailed);

/* filter_out(f, pkt, len): take note of a packet on its way out. */
void filter_out(struct filter *f, const uint8_t *pkt, size_t len);

/* Counters; names are lower case with "_", such as "drop_no_rule". */
uint64_t filter_count(const struct filter *f, enum filter_reason r);
const char *filter_reason_name(enum filter_reason r);

/*
 * filter_caps(nm, src, dst, json): the capabilities that ${src} has at ${dst}:
 * new JSON object text in ${*json} for free(3), "{}" when none.  One answer;
 * for many, make a struct grants (grants.h).  Returns 0, or -1: no memory.
 */
int filter_caps(const struct netmap *nm, const struct tn_addr *src,
    const struct tn_addr *dst, char **json);

#endif

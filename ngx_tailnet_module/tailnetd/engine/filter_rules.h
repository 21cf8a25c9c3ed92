/*
 * filter_rules.h: a netmap's rules, compiled for questions.
 *
 * Theory of operation: per address family, one span set maps a source address
 * to the rules that name it, so the number of rules that do not is of no
 * matter.  Destinations are cut down to what is local to this node, so that few
 * remain; each rule keeps a span set of its destinations, and for each of them
 * sorted, disjoint port ranges.  "cap:" sources go the other way round: a
 * sorted list of (peer's address, capability), and for each capability its
 * rules.
 */
#ifndef FILTER_RULES_H
#define FILTER_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "netmap.h"
#include "span.h"

struct filter_rules;

enum filter_rules_ask {
    FILTER_RULES_PORT,    /* source, protocol, destination, port */
    FILTER_RULES_ADDRESS, /* source and destination only */
    FILTER_RULES_PROTO,   /* protocol named, and all ports */
};

struct filter_rules_query {
    enum filter_rules_ask ask;
    struct tn_addr src;
    struct tn_addr dst;
    uint16_t port;
    uint8_t proto;
};

/*
 * filter_rules_new(nm, is4, local): the rules of one family; ${local} is built
 * and holds the local destinations of that family.  NULL: no memory.
 */
struct filter_rules *filter_rules_new(
    const struct netmap *nm, bool is4, const struct span_set *local);
void filter_rules_free(struct filter_rules *r);

/* Whether peers are in them: those with a capability that a rule names. */
bool filter_rules_by_peer(const struct filter_rules *r);

/* Whether a rule allows ${q}, whose addresses are of the family. */
bool filter_rules_allow(
    const struct filter_rules *r, const struct filter_rules_query *q);

#endif

/*
 * grants.h: what a peer may do at this node, beyond reaching it.
 *
 * The capability grants of a netmap's rules, made ready for one question per
 * peer.  Distinct from a node's own CapMap, its attributes.
 */
#ifndef GRANTS_H
#define GRANTS_H

#include "../../core/tn_addr.h"
#include "netmap.h"

/* The one capability that a peer without a signature keeps. */
#define GRANTS_INGRESS "https://tailscale.com/cap/ingress"

struct grants;

/* The grants of ${nm}, which has to outlive them.  NULL: no memory. */
struct grants *grants_new(const struct netmap *nm);
void grants_free(struct grants *g);

/* Whether they stay what they are when peers that have a signature come, or any
 * go: no peer has none. */
bool grants_outlive_peers(const struct grants *g);

/*
 * grants_query(g, src, dst, json): the union of what the rules grant ${src} at
 * ${dst}, as new JSON object text for free(3): name to list, the lists joined
 * in rule order, or to null where only bare names were granted; sorted by name,
 * "{}" when nothing is granted.  "cap:" sources grant nothing.  Returns 0, or
 * -1: no memory, ${*json} untouched.
 */
int grants_query(const struct grants *g, const struct tn_addr *src,
    const struct tn_addr *dst, char **json);

#endif

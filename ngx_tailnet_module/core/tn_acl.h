/*
 * tn_acl.h: selectors, the one grammar that says who.
 *
 *   selector = [ NODE "/" ] what
 *   what     = "*"                      any identified peer
 *            | "tag:NAME"               a tagged node
 *            | user "@" domain          a person, by login
 *            | "user:LOGIN"             the same for logins without "@"
 *            | "autogroup:member"       an untagged node of this tailnet
 *            | "autogroup:tagged"       a tagged node of this tailnet
 *            | "autogroup:self"         a node of the self node's own user
 *            | "autogroup:shared"       a node shared in from another tailnet
 *            | IP | CIDR                a node address
 *            | NAME | FQDN              a node
 *            | "local"                  a client that is not from a tailnet
 *
 * NODE qualifies: the listener's tailnet_node.  An identity of one tailnet
 * never matches a selector qualified with another node.
 *
 * Shared-in peers match "*", autogroup:shared, user, IP/CIDR and FQDN only.
 * Tagged peers never match a user.  Comparison of names and logins is without
 * case (ASCII).
 */
#ifndef TN_ACL_H
#define TN_ACL_H

#include "tn_addr.h"
#include "tn_snap_read.h"

enum tn_sel_kind {
    TN_SEL_ANY,
    TN_SEL_TAG,
    TN_SEL_USER,
    TN_SEL_MEMBER,
    TN_SEL_TAGGED,
    TN_SEL_SELF,
    TN_SEL_SHARED,
    TN_SEL_PREFIX,
    TN_SEL_HOST, /* one label */
    TN_SEL_FQDN, /* labels with dots, final dot cut */
    TN_SEL_LOCAL,
};

/* Views into the text that was parsed, which must outlive it. */
struct tn_selector {
    enum tn_sel_kind kind;
    struct tn_str node; /* qualifier, empty: none */
    struct tn_str name; /* tag ("tag:x"), login, host, fqdn */
    struct tn_prefix prefix;
};

/*
 * Who asks: ${peer} NULL: nobody that a tailnet knows.  ${local} is true for
 * a client of a listener that is not on a mesh; an unknown source on a mesh
 * listener is neither.  ${self_user}: user id of the self node, 0: none.
 */
struct tn_who {
    const struct tn_peer *peer;
    struct tn_addr addr; /* the address the peer connected from */
    struct tn_str node;  /* name of the listener's tailnet_node */
    uint64_t self_user;
    bool local;
};

/*
 * tn_selector_parse(sel, text, len): returns NULL, or a constant sentence that
 * says why ${text} is no selector (then ${sel} is untouched).
 */
const char *tn_selector_parse(
    struct tn_selector *sel, const char *text, size_t len);

bool tn_selector_match(const struct tn_selector *sel, const struct tn_who *who);

#endif

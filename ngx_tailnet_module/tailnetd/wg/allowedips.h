/*
 * allowedips.h: which peer an inner address belongs to (cryptokey routing,
 * whitepaper section 2).
 *
 * A binary trie with compressed paths over tn_addr's mapped 128-bit space.
 * A prefix has one owner; giving it to another moves it.
 */
#ifndef ALLOWEDIPS_H
#define ALLOWEDIPS_H

#include <stddef.h>

#include "../../core/tn_addr.h"

struct allowedips_node;

/* Part of whatever owns prefixes.  All zero: owns none. */
struct allowedips_owner {
    struct allowedips_node *nodes;
};

/* All zero: empty. */
struct allowedips {
    struct allowedips_node *root;
};

/* allowedips_lookup(t, a): the owner of the longest prefix that contains
 * ${a}, borrowed, or NULL.  ::/0 and its like contain no IPv4 address. */
struct allowedips_owner *allowedips_lookup(
    const struct allowedips *t, const struct tn_addr *a);

/*
 * allowedips_replace(t, owner, prefixes, n): ${owner} has exactly ${prefixes}
 * afterwards; bits behind a prefix' length are ignored.  Returns 0, or -1: no
 * memory or a length above 128, nothing changed.
 */
int allowedips_replace(struct allowedips *t, struct allowedips_owner *owner,
    const struct tn_prefix *prefixes, size_t n);

/* allowedips_add(t, owner, prefixes, n): ${owner} has these too; returns as
 * allowedips_replace().  allowedips_drop(): it has those of them no more that
 * it had; other owners keep theirs. */
int allowedips_add(struct allowedips *t, struct allowedips_owner *owner,
    const struct tn_prefix *prefixes, size_t n);
void allowedips_drop(struct allowedips *t, const struct allowedips_owner *owner,
    const struct tn_prefix *prefixes, size_t n);

/* allowedips_remove(t, owner): ${owner} has no prefix any more. */
void allowedips_remove(struct allowedips *t, struct allowedips_owner *owner);

#endif

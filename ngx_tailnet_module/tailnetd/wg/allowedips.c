/*
 * allowedips.c: the trie.
 *
 * A node stands for a prefix.  It has an owner, or it only joins two children
 * ("joint").  A child's prefix is longer than its parent's and begins with it;
 * the first bit behind the parent's prefix chooses the side.  Invariant: every
 * joint has two children, so n prefixes need fewer than 2n nodes.
 *
 * Replacing takes all nodes it may need before it touches the trie, which is
 * why it either succeeds or changes nothing.
 */
#include "allowedips.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define BITS_MAX 128
#define BITS_IP4 96 /* all of IPv4; a shorter prefix is of IPv6 only */

struct bits {
    uint64_t hi, lo;
};

struct allowedips_node {
    struct bits key, mask;
    struct allowedips_node *child[2], *parent;
    struct allowedips_owner *owner;       /* NULL: joint */
    struct allowedips_node *next, **link; /* the owner's list */
    uint8_t len;
};

static struct bits
load(const struct tn_addr *a)
{
    struct bits b = {0, 0};

    for (int i = 0; i < 8; i++) {
        b.hi = b.hi << 8 | a->b[i];
        b.lo = b.lo << 8 | a->b[i + 8];
    }
    return b;
}

static struct bits
mask_of(unsigned len)
{
    struct bits m = {0, 0};

    if (len > 0)
        m.hi = len < 64 ? ~(UINT64_MAX >> len) : UINT64_MAX;
    if (len > 64)
        m.lo = len < 128 ? ~(UINT64_MAX >> (len - 64)) : UINT64_MAX;
    return m;
}

static bool
covers(const struct allowedips_node *n, const struct bits *b)
{
    return (((n->key.hi ^ b->hi) & n->mask.hi) |
               ((n->key.lo ^ b->lo) & n->mask.lo)) == 0;
}

/* Bit ${i} of ${b}, counted from the top; ${i} < BITS_MAX. */
static unsigned
side(const struct bits *b, unsigned i)
{
    return (unsigned)(i < 64 ? b->hi >> (63 - i) : b->lo >> (127 - i)) & 1;
}

/* How many leading bits ${a} and ${b} have in common. */
static unsigned
common(const struct bits *a, const struct bits *b)
{
    if (a->hi != b->hi)
        return (unsigned)__builtin_clzll(a->hi ^ b->hi);
    if (a->lo != b->lo)
        return 64 + (unsigned)__builtin_clzll(a->lo ^ b->lo);
    return BITS_MAX;
}

static struct allowedips_node **
place_of(struct allowedips *t, struct allowedips_node *n)
{
    if (n->parent == NULL)
        return &t->root;
    return &n->parent->child[n->parent->child[1] == n];
}

static void
own(struct allowedips_node *n, struct allowedips_owner *owner)
{
    n->owner = owner;
    n->next = owner->nodes;
    n->link = &owner->nodes;
    if (n->next != NULL)
        n->next->link = &n->next;
    owner->nodes = n;
}

static void
disown(struct allowedips_node *n)
{
    *n->link = n->next;
    if (n->next != NULL)
        n->next->link = n->link;
    n->owner = NULL;
}

static void
adopt(struct allowedips_node *parent, struct allowedips_node *child)
{
    parent->child[side(&child->key, parent->len)] = child;
    child->parent = parent;
}

/* Nodes not yet in the trie, chained by ->next. */
static void
free_spares(struct allowedips_node *spares)
{
    while (spares != NULL) {
        struct allowedips_node *n = spares;

        spares = n->next;
        free(n);
    }
}

static struct allowedips_node *
make_spares(size_t n)
{
    struct allowedips_node *spares = NULL;

    while (n-- > 0) {
        struct allowedips_node *one = calloc(1, sizeof(*one));

        if (one == NULL) {
            free_spares(spares);
            return NULL;
        }
        one->next = spares;
        spares = one;
    }
    return spares;
}

static struct allowedips_node *
take_spare(
    struct allowedips_node **spares, const struct bits *key, unsigned len)
{
    struct allowedips_node *n = *spares;

    *spares = n->next;
    n->next = NULL;
    n->len = (uint8_t)len;
    n->mask = mask_of(len);
    n->key.hi = key->hi & n->mask.hi;
    n->key.lo = key->lo & n->mask.lo;
    return n;
}

/* Put the new node ${n} into the trie at ${place}, below ${parent} and above
 * or beside whatever is there. */
static void
graft(struct allowedips_node **place, struct allowedips_node *parent,
    struct allowedips_node *n, struct allowedips_node **spares)
{
    struct allowedips_node *there = *place, *top = n;

    if (there != NULL) {
        unsigned shared = common(&there->key, &n->key);

        if (shared < n->len) {
            top = take_spare(spares, &n->key, shared);
            adopt(top, n);
        }
        adopt(top, there);
    }
    top->parent = parent;
    *place = top;
}

static void
insert(struct allowedips *t, struct allowedips_owner *owner,
    const struct tn_prefix *prefix, struct allowedips_node **spares)
{
    struct bits key = load(&prefix->addr);
    struct allowedips_node **place = &t->root, *parent = NULL, *n;

    while (*place != NULL && (*place)->len <= prefix->bits &&
           covers(*place, &key)) {
        parent = *place;
        if (parent->len == prefix->bits) {
            if (parent->owner != NULL)
                disown(parent);
            own(parent, owner);
            return;
        }
        place = &parent->child[side(&key, parent->len)];
    }
    n = take_spare(spares, &key, prefix->bits);
    own(n, owner);
    graft(place, parent, n, spares);
}

/* Free ${n} and the joints above it that nobody needs any more. */
static void
prune(struct allowedips *t, struct allowedips_node *n)
{
    while (n != NULL && n->owner == NULL &&
           (n->child[0] == NULL || n->child[1] == NULL)) {
        struct allowedips_node *parent = n->parent;
        struct allowedips_node *child = n->child[0] != NULL ? n->child[0]
                                                            : n->child[1];

        *place_of(t, n) = child;
        if (child != NULL)
            child->parent = parent;
        free(n);
        n = parent;
    }
}

struct allowedips_owner *
allowedips_lookup(const struct allowedips *t, const struct tn_addr *a)
{
    struct bits key = load(a);
    unsigned least = tn_addr_is4(a) ? BITS_IP4 : 0;
    struct allowedips_owner *best = NULL;
    const struct allowedips_node *n = t->root;

    while (n != NULL && covers(n, &key)) {
        if (n->owner != NULL && n->len >= least)
            best = n->owner;
        if (n->len == BITS_MAX)
            break;
        n = n->child[side(&key, n->len)];
    }
    return best;
}

static int
add(struct allowedips *t, struct allowedips_owner *owner,
    const struct tn_prefix *prefixes, size_t n, bool replace)
{
    struct allowedips_node *spares;

    for (size_t i = 0; i < n; i++)
        if (prefixes[i].bits > BITS_MAX)
            return -1;
    if (n > SIZE_MAX / 2)
        return -1;
    spares = make_spares(2 * n);
    if (spares == NULL && n > 0)
        return -1;
    if (replace)
        allowedips_remove(t, owner);
    for (size_t i = 0; i < n; i++)
        insert(t, owner, &prefixes[i], &spares);
    free_spares(spares);
    return 0;
}

int
allowedips_replace(struct allowedips *t, struct allowedips_owner *owner,
    const struct tn_prefix *prefixes, size_t n)
{
    return add(t, owner, prefixes, n, true);
}

int
allowedips_add(struct allowedips *t, struct allowedips_owner *owner,
    const struct tn_prefix *prefixes, size_t n)
{
    return add(t, owner, prefixes, n, false);
}

/* The node of exactly that prefix, or NULL. */
static struct allowedips_node *
find(const struct allowedips *t, const struct tn_prefix *prefix)
{
    struct bits key = load(&prefix->addr);
    struct allowedips_node *n = t->root;

    while (n != NULL && n->len < prefix->bits && covers(n, &key))
        n = n->child[side(&key, n->len)];
    return n != NULL && n->len == prefix->bits && covers(n, &key) ? n : NULL;
}

void
allowedips_drop(struct allowedips *t, const struct allowedips_owner *owner,
    const struct tn_prefix *prefixes, size_t n)
{
    struct allowedips_node *node;

    for (size_t i = 0; i < n; i++) {
        node = find(t, &prefixes[i]);
        if (node == NULL || node->owner != owner)
            continue;
        disown(node);
        prune(t, node);
    }
}

void
allowedips_remove(struct allowedips *t, struct allowedips_owner *owner)
{
    while (owner->nodes != NULL) {
        struct allowedips_node *n = owner->nodes;

        disown(n);
        prune(t, n);
    }
}

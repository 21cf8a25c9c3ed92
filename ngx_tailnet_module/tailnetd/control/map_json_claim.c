/*
 * map_json_claim.c: finding double claims by sorting them, in O(n log n).
 */
#include <stdlib.h>
#include <string.h>

#include "map_json_claim.h"

#define SELF (-1)

/* ${node} says that ${value} is its own. */
struct claim {
    uint8_t value[32];
    int32_t node;  /* index of a peer, or SELF */
    uint32_t item; /* index in Addresses */
};

struct claims {
    struct claim *list;
    size_t n;
};

/* The name of a place, "Peers[3].Addresses[1]". */
struct place {
    char text[64];
};

static int
by_value(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    int order = memcmp(x->value, y->value, sizeof(x->value));

    if (order == 0) {
        order = (x->node > y->node) - (x->node < y->node);
    }
    return order != 0 ? order : (x->item > y->item) - (x->item < y->item);
}

/* Room for ${n} claims, zeroed. */
static int
make(struct claims *c, size_t n, struct map_json_error *err)
{
    c->n = 0;
    c->list = calloc(n + 1, sizeof(c->list[0]));
    return c->list == NULL ? map_json_no_memory(err) : 0;
}

static void
add(struct claims *c, int32_t node, uint32_t item, const void *value,
    size_t len)
{
    struct claim *claim = &c->list[c->n++];

    memcpy(claim->value, value, len);
    claim->node = node;
    claim->item = item;
}

static const char *
name_place(struct place *p, const struct claim *c, const char *field)
{
    struct map_json_at doc = {0}, peers = {&doc, "Peers", 0},
                       peer = {&peers, NULL, (size_t)c->node},
                       self = {&doc, "Node", 0},
                       member = {c->node == SELF ? &self : &peer, field, 0},
                       item = {&member, NULL, c->item};

    map_json_path(strcmp(field, "Addresses") == 0 ? &item : &member, p->text,
        sizeof(p->text));
    return p->text;
}

/*
 * Sort ${c} and refuse it when two nodes claim one value: of all that do, the
 * second claim that comes first in the document is reported.
 */
static int
settle(const struct map_json_cursor *doc, struct claims *c, const char *field)
{
    const struct claim *first = NULL, *second = NULL;
    struct map_json_cursor at = *doc, up = *doc;
    struct place one, two;
    size_t i;

    if (c->n > 1) {
        qsort(c->list, c->n, sizeof(c->list[0]), by_value);
    }
    for (i = 1; i < c->n; i++) {
        if (memcmp(c->list[i - 1].value, c->list[i].value,
                sizeof(c->list[i].value)) == 0 &&
            c->list[i - 1].node != c->list[i].node &&
            (second == NULL || c->list[i].node < second->node)) {
            first = &c->list[i - 1];
            second = &c->list[i];
        }
    }
    if (second == NULL) {
        return 0;
    }
    up.at = (struct map_json_at){NULL, NULL, 0};
    at.at = (struct map_json_at){&up.at, name_place(&two, second, field), 0};
    return map_json_fail(&at, "the same as %s", name_place(&one, first, field));
}

static int
settle_ids(const struct map_json_cursor *doc, const struct netmap *nm)
{
    struct claims c;
    unsigned i;
    int rc;

    if (make(&c, (size_t)nm->npeers + 1, doc->err) != 0) {
        return -1;
    }
    if (nm->self.id != 0) {
        add(&c, SELF, 0, &nm->self.id, sizeof(nm->self.id));
    }
    for (i = 0; i < nm->npeers; i++) {
        add(&c, (int32_t)i, 0, &nm->peers[i].id, sizeof(nm->peers[i].id));
    }
    rc = settle(doc, &c, "ID");
    free(c.list);
    return rc;
}

static int
settle_keys(const struct map_json_cursor *doc, const struct netmap *nm)
{
    struct claims c;
    unsigned i;
    int rc;

    if (make(&c, (size_t)nm->npeers + 1, doc->err) != 0) {
        return -1;
    }
    if (nm->self.has_key) {
        add(&c, SELF, 0, nm->self.key, sizeof(nm->self.key));
    }
    for (i = 0; i < nm->npeers; i++) {
        add(&c, (int32_t)i, 0, nm->peers[i].key, sizeof(nm->peers[i].key));
    }
    rc = settle(doc, &c, "Key");
    free(c.list);
    return rc;
}

/* Single-address prefixes are a node's own; others are only routed to it. */
static void
add_addresses(struct claims *c, int32_t number, const struct netmap_node *node)
{
    unsigned i;

    for (i = 0; i < node->naddresses; i++) {
        if (node->addresses[i].bits == 128) {
            add(c, number, i, &node->addresses[i].addr,
                sizeof(node->addresses[i].addr));
        }
    }
}

static int
by_value_only(const void *key, const void *item)
{
    return memcmp(((const struct claim *)key)->value,
        ((const struct claim *)item)->value,
        sizeof(((struct claim *)0)->value));
}

/* Take out of ${peer}'s allowed IPs what ${c} says is another node's. */
static void
disown(const struct map_json_cursor *doc, const struct claims *c,
    struct netmap_node *peer, int32_t number)
{
    struct map_json_cursor peers = map_json_member(doc, "Peers"),
                           e = map_json_element(&peers, (size_t)number),
                           allowed = map_json_member(&e, "AllowedIPs"), item;
    char text[TN_ADDR_STRLEN];
    struct place place;
    struct claim key, *owner;
    unsigned i, kept = 0;

    for (i = 0; i < peer->nallowed_ips; i++) {
        memset(&key, 0, sizeof(key));
        memcpy(key.value, &peer->allowed_ips[i].addr, 16);
        owner = NULL;
        if (peer->allowed_ips[i].bits == 128) {
            owner = bsearch(&key, c->list, c->n, sizeof(key), by_value_only);
        }
        if (owner == NULL || owner->node == number) {
            peer->allowed_ips[kept++] = peer->allowed_ips[i];
            continue;
        }
        item = map_json_element(&allowed, i);
        tn_addr_format(&peer->allowed_ips[i].addr, text);
        map_json_warn(&item, "%s is an address of %s: left out", text,
            name_place(&place, owner, "Addresses"));
    }
    peer->nallowed_ips = kept;
}

static int
settle_addresses(const struct map_json_cursor *doc, struct netmap *nm)
{
    size_t total = nm->self.naddresses;
    struct claims c;
    unsigned i;
    int rc;

    for (i = 0; i < nm->npeers; i++) {
        total += nm->peers[i].naddresses;
    }
    if (make(&c, total, doc->err) != 0) {
        return -1;
    }
    add_addresses(&c, SELF, &nm->self);
    for (i = 0; i < nm->npeers; i++) {
        add_addresses(&c, (int32_t)i, &nm->peers[i]);
    }
    rc = settle(doc, &c, "Addresses");
    for (i = 0; i < nm->npeers && rc == 0; i++) {
        disown(doc, &c, &nm->peers[i], (int32_t)i);
    }
    free(c.list);
    return rc;
}

int
map_json_claims(const struct map_json_cursor *doc, struct netmap *nm)
{
    return settle_ids(doc, nm) != 0 || settle_keys(doc, nm) != 0 ||
                   settle_addresses(doc, nm) != 0
               ? -1
               : 0;
}

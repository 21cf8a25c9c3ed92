/*
 * Theory of operation.
 *
 * Two chained hash tables of one size: slots by ID, claims by value.  In the
 * second there are wishes too: the routes of a peer besides its own addresses,
 * by their address.  A wish wins and loses nothing, but a single address that
 * another node has is no route, so whoever wishes for it is told when somebody
 * comes to have it or nobody has it any more.  Routes of everything (exit
 * nodes) are no wishes: the settings name the one whose they are.
 */
#include "map_claim.h"

#include <stdlib.h>
#include <string.h>

#include "map_follow.h"

/* What of a slot a claim is about; else an index in its addresses. */
#define ITEM_KEY   UINT32_MAX
#define ITEM_ROUTE 0x80000000 /* a wish; the rest: index in allowed_ips */

static bool
is_wish(const struct map_claim *c)
{
    return c->item != ITEM_KEY && (c->item & ITEM_ROUTE) != 0;
}

static uint32_t
mix(const void *p, size_t len)
{
    const uint8_t *b = p;
    uint64_t h = 0x9e3779b97f4a7c15u, w;

    for (; len >= 8; len -= 8, b += 8) {
        memcpy(&w, b, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    /* What differs may be in the last word's highest bits alone. */
    h *= 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h >> 32);
}

static uint32_t *
id_head(struct map_state *s, int64_t id)
{
    return &s->by_id[mix(&id, sizeof(id)) & s->mask];
}

uint32_t
map_claim_find(struct map_state *s, int64_t id)
{
    uint32_t i = s->by_id == NULL ? MAP_NONE : *id_head(s, id);

    while (i != MAP_NONE && s->rows[i].id != id)
        i = s->slots[i].next;
    return i;
}

static const struct tn_prefix *
route_of(const struct map_state *s, const struct map_claim *c)
{
    return &s->rows[c->slot].allowed_ips[c->item & ~ITEM_ROUTE];
}

static const void *
value_of(const struct map_state *s, const struct map_claim *c, size_t *len)
{
    const struct netmap_node *row = &s->rows[c->slot];

    *len = c->item == ITEM_KEY ? sizeof(row->key) : sizeof(struct tn_addr);
    if (c->item == ITEM_KEY)
        return row->key;
    return is_wish(c) ? &route_of(s, c)->addr : &row->addresses[c->item].addr;
}

static bool
same_value(const struct map_state *s, const struct map_claim *a,
    const void *value, size_t len)
{
    size_t alen;
    const void *v = value_of(s, a, &alen);

    return alen == len && memcmp(v, value, len) == 0;
}

/* Does ${a} win over ${b}? */
static bool
beats(const struct map_state *s, uint32_t a, uint32_t b)
{
    return a == MAP_SELF || (b != MAP_SELF && s->rows[a].id < s->rows[b].id);
}

/* Who wins ${value}, not counting claim ${but}; MAP_NONE: nobody claims it. */
static uint32_t
winner(const struct map_state *s, const void *value, size_t len, uint32_t but)
{
    uint32_t i = s->by_value[mix(value, len) & s->mask], best = MAP_NONE;

    for (; i != MAP_NONE; i = s->claims[i].next) {
        const struct map_claim *c = &s->claims[i];

        if (i != but && !is_wish(c) && same_value(s, c, value, len) &&
            (best == MAP_NONE || beats(s, c->slot, best)))
            best = c->slot;
    }
    return best;
}

bool
map_claim_taken(const struct map_state *s, const struct tn_addr *a)
{
    return winner(s, a, sizeof(*a), MAP_NONE) != MAP_NONE;
}

/* ${slot} has lost one claim more, or one less. */
static void
lose(struct map_state *s, uint32_t slot, bool more)
{
    bool before = s->slots[slot].lost > 0;

    s->slots[slot].lost += more ? 1 : UINT32_MAX;
    if (slot == MAP_SELF || before == (s->slots[slot].lost > 0))
        return;
    s->ncontested += before ? SIZE_MAX : 1;
    map_follow_anew(s, slot);
}

/* Somebody has the address now, or nobody has. */
static void
tell_wishes(struct map_state *s, const void *value, size_t len)
{
    uint32_t i = s->by_value[mix(value, len) & s->mask];

    for (; i != MAP_NONE; i = s->claims[i].next)
        if (is_wish(&s->claims[i]) && same_value(s, &s->claims[i], value, len))
            map_follow_anew(s, s->claims[i].slot);
}

/* Another peer has the route too. */
static bool
is_shared(const struct map_state *s, const struct map_claim *c)
{
    const struct tn_prefix *p = route_of(s, c), *q;
    uint32_t i = s->by_value[mix(&p->addr, sizeof(p->addr)) & s->mask];

    for (; i != MAP_NONE; i = s->claims[i].next) {
        if (!is_wish(&s->claims[i]) || s->claims[i].slot == c->slot)
            continue;
        q = route_of(s, &s->claims[i]);
        if (q->bits == p->bits && tn_addr_equal(&q->addr, &p->addr))
            return true;
    }
    return false;
}

static void
claim(struct map_state *s, uint32_t slot, uint32_t item)
{
    uint32_t i = s->free_claim, rival, *head;
    struct map_claim *c = &s->claims[i];
    const void *value;
    size_t len;

    s->free_claim = c->next;
    c->slot = slot;
    c->item = item;
    value = value_of(s, c, &len);
    if (is_wish(c)) {
        s->reroute = s->reroute || is_shared(s, c);
    } else {
        rival = winner(s, value, len, MAP_NONE);
        if (rival == MAP_NONE)
            tell_wishes(s, value, len);
        else if (rival != slot)
            lose(s, beats(s, slot, rival) ? rival : slot, true);
    }
    head = &s->by_value[mix(value, len) & s->mask];
    c->next = *head;
    *head = i;
}

static void
unclaim(struct map_state *s, uint32_t slot, uint32_t item)
{
    struct map_claim probe = {slot, item, MAP_NONE};
    size_t len;
    const void *value = value_of(s, &probe, &len);
    uint32_t *at = &s->by_value[mix(value, len) & s->mask], i, rival;

    for (i = *at; s->claims[i].slot != slot || s->claims[i].item != item;
         i = *at)
        at = &s->claims[i].next;
    if (is_wish(&probe)) {
        s->reroute = s->reroute || is_shared(s, &probe);
    } else {
        rival = winner(s, value, len, i);
        if (rival == MAP_NONE)
            tell_wishes(s, value, len);
        else if (rival != slot)
            lose(s, beats(s, slot, rival) ? rival : slot, false);
    }
    *at = s->claims[i].next;
    s->claims[i].next = s->free_claim;
    s->free_claim = i;
}

bool
map_claim_is_default(const struct tn_prefix *p)
{
    static const uint8_t zero[16];

    return p->bits == 0 || (p->bits == 96 && tn_addr_is4(&p->addr) &&
                               memcmp(p->addr.b + 12, zero, 4) == 0);
}

bool
map_claim_is_own(const struct netmap_node *n, const struct tn_prefix *p)
{
    for (unsigned i = 0; i < n->naddresses; i++)
        if (n->addresses[i].bits == p->bits &&
            tn_addr_equal(&n->addresses[i].addr, &p->addr))
            return true;
    return false;
}

static bool
wishes_for(const struct netmap_node *n, const struct tn_prefix *p)
{
    return !map_claim_is_default(p) && !map_claim_is_own(n, p);
}

/* Whether address ${i} is a claim: one that is told twice is one. */
static bool
is_claimed(const struct netmap_node *row, unsigned i)
{
    if (row->addresses[i].bits != 128)
        return false;
    for (unsigned k = 0; k < i; k++)
        if (row->addresses[k].bits == 128 &&
            tn_addr_equal(&row->addresses[k].addr, &row->addresses[i].addr))
            return false;
    return true;
}

static void
claim_all(struct map_state *s, uint32_t slot, bool add)
{
    void (*act)(struct map_state *, uint32_t, uint32_t) = add ? claim : unclaim;
    const struct netmap_node *row = &s->rows[slot];

    if (row->has_key)
        act(s, slot, ITEM_KEY);
    for (unsigned i = 0; i < row->naddresses; i++)
        if (is_claimed(row, i))
            act(s, slot, i);
    for (unsigned i = 0; slot != MAP_SELF && i < row->nallowed_ips; i++)
        if (wishes_for(row, &row->allowed_ips[i]))
            act(s, slot, ITEM_ROUTE | i);
}

bool
map_claim_shares(const struct map_state *s, uint32_t slot)
{
    const struct netmap_node *row = &s->rows[slot];

    for (unsigned i = 0; i < row->nallowed_ips; i++) {
        struct map_claim wish = {slot, ITEM_ROUTE | i, MAP_NONE};

        if (wishes_for(row, &row->allowed_ips[i]) && is_shared(s, &wish))
            return true;
    }
    return false;
}

size_t
map_claim_count(const struct netmap_node *n)
{
    size_t count = (n->has_key ? 1 : 0) + n->naddresses;

    for (unsigned i = 0; i < n->nallowed_ips; i++)
        count += wishes_for(n, &n->allowed_ips[i]);
    return count;
}

static void
enter_id(struct map_state *s, uint32_t slot)
{
    uint32_t *head = id_head(s, s->rows[slot].id);

    s->slots[slot].next = *head;
    *head = slot;
}

void
map_claim_enter(struct map_state *s, uint32_t slot)
{
    if (slot != MAP_SELF)
        enter_id(s, slot);
    claim_all(s, slot, true);
}

void
map_claim_leave(struct map_state *s, uint32_t slot)
{
    uint32_t *at;

    claim_all(s, slot, false);
    if (slot == MAP_SELF)
        return;
    for (at = id_head(s, s->rows[slot].id); *at != slot;)
        at = &s->slots[*at].next;
    *at = s->slots[slot].next;
}

void
map_claim_rekey(struct map_state *s, uint32_t slot, const uint8_t key[32])
{
    unclaim(s, slot, ITEM_KEY);
    memcpy(s->rows[slot].key, key, sizeof(s->rows[slot].key));
    claim(s, slot, ITEM_KEY);
}

/* ---- room ---- */

/* All claims from ${from} on are free. */
static void
free_claims(struct map_state *s, uint32_t from)
{
    for (uint32_t i = from; i < s->claims_size; i++) {
        s->claims[i].next = s->free_claim;
        s->free_claim = i;
    }
}

/* Both tables anew, as wide as there are claims. */
static int
widen(struct map_state *s, size_t nclaims)
{
    size_t n = 64;
    uint32_t *ids, *values, i;

    while (n < nclaims)
        n *= 2;
    if (s->by_id != NULL && n <= (size_t)s->mask + 1)
        return 0;
    ids = malloc(n * sizeof(*ids));
    values = malloc(n * sizeof(*values));
    if (ids == NULL || values == NULL) {
        free(ids);
        free(values);
        return -1;
    }
    memset(ids, 0xff, n * sizeof(*ids));
    memset(values, 0xff, n * sizeof(*values));
    free(s->by_id);
    free(s->by_value);
    s->by_id = ids;
    s->by_value = values;
    s->mask = (uint32_t)n - 1;
    s->free_claim = MAP_NONE;
    /* Free claims are found by not being taken: all go through the list. */
    free_claims(s, 0);
    for (i = 0; i < s->nslots; i++)
        s->slots[i].lost = 0;
    s->ncontested = 0;
    for (i = 0; i < s->nslots; i++)
        if (s->slots[i].used)
            map_claim_enter(s, i);
    return 0;
}

int
map_claim_reserve(struct map_state *s, size_t more)
{
    size_t have = 0;
    uint32_t i, old = s->claims_size;

    for (i = s->free_claim; i != MAP_NONE && have < more; i = s->claims[i].next)
        have++;
    if (have < more) {
        if (map_inside_grow(&s->claims_size, (void **)&s->claims, old + more,
                sizeof(*s->claims)) != 0)
            return -1;
        free_claims(s, old);
    }
    return widen(s, s->claims_size);
}

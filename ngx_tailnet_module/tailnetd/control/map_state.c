/*
 * Theory of operation.
 *
 * Peers stand in slots that never move.  Two chained hash tables lead to them:
 * by ID, and by what only one node may have (key, single addresses): a claim.
 * Of all claims to one value, one wins; each slot counts those it has lost, and
 * is shown while that is 0.  The self node is slot 0 and wins always.
 *
 * map_state_apply() first makes room for everything (reserve()), then changes
 * things without a step that can fail.  What is replaced goes to the grave with
 * the number of the netmap to come: no netmap of that number or later shows it,
 * so it is freed when all earlier ones are gone.
 *
 * Most messages change what nothing is found by: whether a peer is online, or
 * where.  They leave the state's lists as they are, note the slot, and are
 * carried over to the netmap that follows; everything else sets ->whole.  A
 * peer that comes whole is compared with what is there first, since servers
 * say it all for a new endpoint.  What a noted change replaces is shown by no
 * netmap but the follower, and not by that once it is brought up to date.
 */
#include "map_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../../core/tn_addr.h"
#include "map_json_rule.h"
#include "map_yard.h"

#define NONE     UINT32_MAX
#define SELF     0
#define ITEM_KEY UINT32_MAX /* of a claim; else: index in addresses */

struct slot {
    bool used;
    bool noted;    /* in ->changed */
    uint32_t next; /* in the chain by ID, or of free slots */
    uint32_t lost; /* claims of others that win */
};

struct claim {
    uint32_t slot;
    uint32_t item;
    uint32_t next;
};

struct map_state {
    struct map_yard *yard;
    uint64_t generation; /* of the next netmap */
    bool ready, fresh;   /* a Node was there; the stream is new */
    struct slot *slots;
    struct netmap_node *rows; /* parallel */
    uint32_t nslots, size, free, npeers, nunsigned;
    uint32_t *by_id; /* heads; mask + 1 of each */
    uint32_t *by_value;
    uint32_t mask;
    size_t ncontested; /* peers with claims that are lost */
    uint32_t *changed; /* noted slots ... */
    uint32_t nchanged, changed_size;
    uint32_t *places; /* ... and where the follower has each slot, or NONE */
    bool whole;       /* more than noted slots changed since it was made */
    struct claim *claims;
    uint32_t claims_size, free_claim;
    struct netmap_user *users;
    size_t nusers, users_size;
    struct map_chunk *chunks; /* sorted by name */
    size_t nchunks, chunks_size;
    bool has_rules;
    struct netmap_derp *derp;
    char *domain;
};

/* Room was made before. */
static struct map_grave *
bury(struct map_state *s)
{
    return map_yard_bury(s->yard, s->generation);
}

/* ---- tables ---- */

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

static uint32_t
find_id(struct map_state *s, int64_t id)
{
    uint32_t i = s->by_id == NULL ? NONE : *id_head(s, id);

    while (i != NONE && s->rows[i].id != id)
        i = s->slots[i].next;
    return i;
}

static const void *
value_of(const struct map_state *s, const struct claim *c, size_t *len)
{
    const struct netmap_node *row = &s->rows[c->slot];

    *len = c->item == ITEM_KEY ? sizeof(row->key) : sizeof(struct tn_addr);
    return c->item == ITEM_KEY ? (const void *)row->key
                               : (const void *)&row->addresses[c->item].addr;
}

static bool
same_value(const struct map_state *s, const struct claim *a, const void *value,
    size_t len)
{
    size_t alen;
    const void *v = value_of(s, a, &alen);

    return alen == len && memcmp(v, value, len) == 0;
}

/* Does ${a} win over ${b}? */
static bool
beats(const struct map_state *s, uint32_t a, uint32_t b)
{
    return a == SELF || (b != SELF && s->rows[a].id < s->rows[b].id);
}

/* Who wins ${value}, not counting claim ${but}; NONE: nobody claims it. */
static uint32_t
winner(const struct map_state *s, const void *value, size_t len, uint32_t but)
{
    uint32_t i = s->by_value[mix(value, len) & s->mask], best = NONE;

    for (; i != NONE; i = s->claims[i].next) {
        const struct claim *c = &s->claims[i];

        if (i != but && same_value(s, c, value, len) &&
            (best == NONE || beats(s, c->slot, best)))
            best = c->slot;
    }
    return best;
}

/* ${slot} has lost one claim more, or one less. */
static void
lose(struct map_state *s, uint32_t slot, bool more)
{
    bool before = s->slots[slot].lost > 0;

    s->slots[slot].lost += more ? 1 : UINT32_MAX;
    if (slot == SELF)
        return;
    s->ncontested -= before;
    s->ncontested += s->slots[slot].lost > 0;
}

static void
claim(struct map_state *s, uint32_t slot, uint32_t item)
{
    uint32_t i = s->free_claim, rival, *head;
    struct claim *c = &s->claims[i];
    const void *value;
    size_t len;

    s->free_claim = c->next;
    c->slot = slot;
    c->item = item;
    value = value_of(s, c, &len);
    rival = winner(s, value, len, NONE);
    if (rival != NONE && rival != slot)
        lose(s, beats(s, slot, rival) ? rival : slot, true);
    head = &s->by_value[mix(value, len) & s->mask];
    c->next = *head;
    *head = i;
}

static void
unclaim(struct map_state *s, uint32_t slot, uint32_t item)
{
    struct claim probe = {slot, item, NONE};
    size_t len;
    const void *value = value_of(s, &probe, &len);
    uint32_t *at = &s->by_value[mix(value, len) & s->mask], i, rival;

    for (i = *at; s->claims[i].slot != slot || s->claims[i].item != item;
         i = *at)
        at = &s->claims[i].next;
    rival = winner(s, value, len, i);
    if (rival != NONE && rival != slot)
        lose(s, beats(s, slot, rival) ? rival : slot, false);
    *at = s->claims[i].next;
    s->claims[i].next = s->free_claim;
    s->free_claim = i;
}

static void
claim_addresses(struct map_state *s, uint32_t slot, bool add)
{
    const struct netmap_node *row = &s->rows[slot];

    for (unsigned i = 0; i < row->naddresses; i++)
        if (row->addresses[i].bits == 128)
            (add ? claim : unclaim)(s, slot, i);
}

static void
claim_all(struct map_state *s, uint32_t slot, bool add)
{
    if (s->rows[slot].has_key)
        (add ? claim : unclaim)(s, slot, ITEM_KEY);
    claim_addresses(s, slot, add);
}

/* ---- room ---- */

static int
grow(void **list, size_t *size, size_t need, size_t item)
{
    size_t n = *size < 16 ? 16 : *size;
    void *p;

    if (need <= *size)
        return 0;
    while (n < need)
        n += n / 2;
    p = realloc(*list, n * item);
    if (p == NULL)
        return -1;
    *list = p;
    *size = n;
    return 0;
}

static int
grow32(void **list, uint32_t *size, size_t need, size_t item)
{
    size_t n = *size;

    if (grow(list, &n, need, item) != 0)
        return -1;
    *size = (uint32_t)n;
    return 0;
}

/* Both tables anew, twice as wide as there are claims. */
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
    s->free_claim = NONE;
    /* Free claims are found by not being taken: all go through the list. */
    for (i = 0; i < s->claims_size; i++) {
        s->claims[i].next = s->free_claim;
        s->free_claim = i;
    }
    for (i = 0; i < s->nslots; i++)
        s->slots[i].lost = 0;
    s->ncontested = 0;
    for (i = 0; i < s->nslots; i++) {
        if (!s->slots[i].used)
            continue;
        claim_all(s, i, true);
        if (i != SELF) {
            uint32_t *head = id_head(s, s->rows[i].id);

            s->slots[i].next = *head;
            *head = i;
        }
    }
    return 0;
}

static size_t
claims_of(const struct netmap_node *n)
{
    return (n->has_key ? 1 : 0) + n->naddresses;
}

static int
reserve_claims(struct map_state *s, size_t more)
{
    size_t used = 0;
    uint32_t i, old = s->claims_size;

    for (i = s->free_claim; i != NONE && used < more; i = s->claims[i].next)
        used++;
    if (used < more) {
        if (grow32((void **)&s->claims, &s->claims_size, old + more,
                sizeof(*s->claims)) != 0)
            return -1;
        for (i = old; i < s->claims_size; i++) {
            s->claims[i].next = s->free_claim;
            s->free_claim = i;
        }
    }
    return widen(s, s->claims_size);
}

static int
grow_slots(struct map_state *s, size_t n)
{
    uint32_t size = s->size;

    return grow32((void **)&s->rows, &size, n, sizeof(*s->rows)) != 0 ||
                   grow32((void **)&s->slots, &s->size, n, sizeof(*s->slots)) !=
                       0
               ? -1
               : 0;
}

/* For ${n} peers more; ${full}: in place of those there are. */
static int
reserve_slots(struct map_state *s, size_t n, bool full)
{
    size_t have = full ? s->nslots - 1 : s->nslots - 1 - s->npeers;

    return grow_slots(s, s->nslots + (n > have ? n - have : 0));
}
/* Every list can take what ${d} may bring. */
static int
reserve(struct map_state *s, const struct map_delta *d)
{
    size_t nclaims = claims_of(&d->self) + 2 * d->npatches, i;
    /* A node, a user, and so on, are one grave each; what a patch replaces is
     * two: endpoints and capabilities. */
    size_t ngraves = d->nnodes + d->nremoved + 2 * d->npatches + d->nusers +
                     s->nchunks + d->nchunks + 8 +
                     (d->full || s->fresh ? s->npeers : 0);

    for (i = 0; i < d->nnodes; i++)
        nclaims += claims_of(&d->nodes[i]);
    return map_yard_reserve(s->yard, ngraves) != 0 ||
                   grow32((void **)&s->changed, &s->changed_size,
                       s->nchanged + d->nnodes + d->npatches,
                       sizeof(*s->changed)) != 0 ||
                   reserve_slots(s, d->nnodes, d->full || s->fresh) != 0 ||
                   reserve_claims(s, nclaims) != 0 ||
                   grow((void **)&s->users, &s->users_size,
                       s->nusers + d->nusers, sizeof(*s->users)) != 0 ||
                   grow((void **)&s->chunks, &s->chunks_size,
                       s->nchunks + d->nchunks, sizeof(*s->chunks)) != 0
               ? -1
               : 0;
}

/* ---- changes; nothing here fails ---- */

/* The slot's whereabouts are others now. */
static void
note(struct map_state *s, uint32_t slot)
{
    s->yard->behind = true;
    if (s->slots[slot].noted)
        return;
    s->slots[slot].noted = true;
    s->changed[s->nchanged++] = slot;
}

static void
forget_notes(struct map_state *s)
{
    for (uint32_t i = 0; i < s->nchanged; i++)
        s->slots[s->changed[i]].noted = false;
    s->nchanged = 0;
}

/* ${from}'s endpoints instead of the row's. */
static void
take_endpoints(struct map_state *s, uint32_t slot, struct netmap_node *from)
{
    struct netmap_node *row = &s->rows[slot];
    struct map_grave *g;

    if (row->endpoints != NULL) {
        g = bury(s);
        g->noted = true;
        g->node.endpoints = row->endpoints;
    }
    row->endpoints = from->endpoints;
    row->nendpoints = from->nendpoints;
    from->endpoints = NULL;
    from->nendpoints = 0;
}

static void
take_whereabouts(struct map_state *s, uint32_t slot, struct netmap_node *from)
{
    struct netmap_node *row = &s->rows[slot];

    if (netmap_same_whereabouts(row, from))
        return;
    row->online = from->online;
    row->key_expiry = from->key_expiry;
    row->home_derp = from->home_derp;
    row->cap_version = from->cap_version;
    row->has_disco = from->has_disco;
    memcpy(row->disco, from->disco, sizeof(row->disco));
    take_endpoints(s, slot, from);
    note(s, slot);
}

static void
drop_peer(struct map_state *s, uint32_t slot)
{
    uint32_t *at = id_head(s, s->rows[slot].id);

    s->whole = true;
    while (*at != slot)
        at = &s->slots[*at].next;
    *at = s->slots[slot].next;
    claim_all(s, slot, false);
    s->nunsigned -= s->rows[slot].unsigned_peerapi_only;
    s->ncontested -= s->slots[slot].lost > 0;
    bury(s)->node = s->rows[slot];
    memset(&s->rows[slot], 0, sizeof(s->rows[slot]));
    s->slots[slot] = (struct slot){.next = s->free};
    s->free = slot;
    s->npeers--;
}

static void
add_peer(struct map_state *s, struct netmap_node *node)
{
    uint32_t slot = find_id(s, node->id), *head;

    if (slot != NONE && netmap_same_standing(&s->rows[slot], node)) {
        take_whereabouts(s, slot, node);
        return;
    }
    if (slot != NONE)
        drop_peer(s, slot);
    s->whole = true;
    slot = s->free;
    if (slot != NONE)
        s->free = s->slots[slot].next;
    else
        slot = s->nslots++;
    s->rows[slot] = *node;
    memset(node, 0, sizeof(*node));
    head = id_head(s, s->rows[slot].id);
    s->slots[slot] = (struct slot){.used = true, .next = *head};
    *head = slot;
    s->npeers++;
    s->nunsigned += s->rows[slot].unsigned_peerapi_only;
    claim_all(s, slot, true);
}

static void
set_self(struct map_state *s, struct netmap_node *node)
{
    if (s->slots[SELF].used && netmap_same_standing(&s->rows[SELF], node) &&
        netmap_same_whereabouts(&s->rows[SELF], node))
        return;
    s->whole = true;
    if (s->slots[SELF].used) {
        claim_all(s, SELF, false);
        bury(s)->node = s->rows[SELF];
    }
    s->rows[SELF] = *node;
    memset(node, 0, sizeof(*node));
    s->slots[SELF].used = true;
    claim_all(s, SELF, true);
}

static void
drop_peers(struct map_state *s)
{
    for (uint32_t i = 1; i < s->nslots; i++)
        if (s->slots[i].used)
            drop_peer(s, i);
}

static void
patch(struct map_state *s, struct map_patch *p)
{
    uint32_t slot = find_id(s, p->id);
    struct netmap_node *row, *to = &p->to;
    struct map_grave *g;

    if (slot == NONE)
        return;
    row = &s->rows[slot];
    note(s, slot);
    if (p->has_online)
        row->online = to->online;
    if (p->has_expiry)
        row->key_expiry = to->key_expiry;
    if (to->home_derp != 0)
        row->home_derp = to->home_derp;
    if (to->cap_version != 0)
        row->cap_version = to->cap_version;
    if (p->has_endpoints)
        take_endpoints(s, slot, to);
    if (p->has_caps &&
        !netmap_same_texts(row->caps, row->ncaps, to->caps, to->ncaps)) {
        s->whole = true;
        g = bury(s);
        g->node.caps = row->caps;
        g->node.ncaps = row->ncaps;
        row->caps = to->caps;
        row->ncaps = to->ncaps;
        to->caps = NULL;
        to->ncaps = 0;
    }
    if (to->has_disco) {
        memcpy(row->disco, to->disco, sizeof(row->disco));
        row->has_disco = true;
    }
    if (to->has_key && memcmp(row->key, to->key, sizeof(row->key)) != 0) {
        s->whole = true;
        unclaim(s, slot, ITEM_KEY);
        memcpy(row->key, to->key, sizeof(row->key));
        claim(s, slot, ITEM_KEY);
    }
}

static void
merge_user(struct map_state *s, struct netmap_user *u)
{
    size_t lo = 0, hi = s->nusers, mid;

    /* They come sorted: mostly it goes to the end. */
    if (hi > 0 && s->users[hi - 1].id < u->id)
        lo = hi;
    while (lo < hi) {
        mid = (lo + hi) / 2;
        if (s->users[mid].id < u->id)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < s->nusers && netmap_same_user(&s->users[lo], u))
        return;
    s->whole = true;
    if (lo < s->nusers && s->users[lo].id == u->id) {
        bury(s)->user = s->users[lo];
    } else {
        memmove(&s->users[lo + 1], &s->users[lo],
            (s->nusers - lo) * sizeof(*s->users));
        s->nusers++;
    }
    s->users[lo] = *u;
    memset(u, 0, sizeof(*u));
}

static void
bury_chunk(struct map_state *s, struct map_chunk *k)
{
    struct map_grave *g = bury(s);

    g->rules = k->rules;
    g->nrules = k->nrules;
    g->bytes = k->name;
    memset(k, 0, sizeof(*k));
}

static void
set_chunk(struct map_state *s, struct map_chunk *k)
{
    size_t i = 0;

    while (i < s->nchunks && strcmp(s->chunks[i].name, k->name) < 0)
        i++;
    if (i < s->nchunks && strcmp(s->chunks[i].name, k->name) == 0) {
        bury_chunk(s, &s->chunks[i]);
        memmove(
            &s->chunks[i], &s->chunks[i + 1], (--s->nchunks - i) * sizeof(*k));
    }
    if (k->drop)
        return;
    memmove(&s->chunks[i + 1], &s->chunks[i], (s->nchunks - i) * sizeof(*k));
    s->chunks[i] = *k;
    s->nchunks++;
    memset(k, 0, sizeof(*k));
}

static void
set_filter(struct map_state *s, struct map_delta *d)
{
    s->has_rules = s->has_rules || d->has_rules;
    s->whole = s->whole || d->has_rules || d->clear_chunks || d->nchunks > 0;
    if (d->clear_chunks)
        while (s->nchunks > 0)
            bury_chunk(s, &s->chunks[--s->nchunks]);
    for (size_t i = 0; i < d->nchunks; i++)
        set_chunk(s, &d->chunks[i]);
}

static void
set_rest(struct map_state *s, struct map_delta *d)
{
    if (d->derp != NULL) {
        s->whole = true;
        bury(s)->derp = s->derp;
        s->derp = d->derp;
        d->derp = NULL;
    }
    if (d->domain != NULL && d->domain[0] != '\0' &&
        strcmp(d->domain, s->domain) != 0) {
        s->whole = true;
        bury(s)->bytes = s->domain;
        s->domain = d->domain;
        d->domain = NULL;
    }
}

int
map_state_apply(
    struct map_state *s, struct map_delta *d, char err[MAP_STATE_ERROR_MAX])
{
    uint32_t i;

    if (d->keepalive)
        return 0;
    if ((!s->ready || s->fresh) && !d->has_self) {
        snprintf(
            err, MAP_STATE_ERROR_MAX, "the stream's first message has no Node");
        return -1;
    }
    if (!d->full && s->npeers + d->nnodes > NETMAP_MAX_PEERS) {
        snprintf(err, MAP_STATE_ERROR_MAX,
            "more than NETMAP_MAX_PEERS (%d) peers", NETMAP_MAX_PEERS);
        return -1;
    }
    if (reserve(s, d) != 0) {
        snprintf(err, MAP_STATE_ERROR_MAX, "out of memory");
        return -1;
    }
    if (d->has_self)
        set_self(s, &d->self);
    if (d->full || s->fresh)
        drop_peers(s);
    for (size_t k = 0; k < d->nremoved; k++) {
        i = find_id(s, d->removed[k]);
        if (i != NONE)
            drop_peer(s, i);
    }
    for (size_t k = 0; k < d->nnodes; k++)
        add_peer(s, &d->nodes[k]);
    for (size_t k = 0; k < d->npatches; k++)
        patch(s, &d->patches[k]);
    for (size_t k = 0; k < d->nusers; k++)
        merge_user(s, &d->users[k]);
    d->clear_chunks = d->clear_chunks || s->fresh;
    set_filter(s, d);
    set_rest(s, d);
    s->ready = true;
    s->fresh = false;
    map_yard_sweep(s->yard);
    return 0;
}

/* ---- netmaps ---- */

static bool
is_default(const struct tn_prefix *p)
{
    static const uint8_t zero[16];

    return p->bits == 0 || (p->bits == 96 && tn_addr_is4(&p->addr) &&
                               memcmp(p->addr.b + 12, zero, 4) == 0);
}

static bool
is_own(const struct netmap_node *n, const struct tn_prefix *p)
{
    for (unsigned i = 0; i < n->naddresses; i++)
        if (n->addresses[i].bits == p->bits &&
            tn_addr_equal(&n->addresses[i].addr, &p->addr))
            return true;
    return false;
}

static bool
names(const struct netmap_node *n, const char *who)
{
    const char *dot = strchr(n->name, '.');
    size_t len = dot == NULL ? strlen(n->name) : (size_t)(dot - n->name);
    struct tn_prefix p;

    if (who[0] == '\0')
        return false;
    if (tn_prefix_parse(&p, who, strlen(who)) == 0)
        return p.bits == 128 && is_own(n, &p);
    return strcasecmp(n->name, who) == 0 ||
           (strlen(who) == len && strncasecmp(n->name, who, len) == 0);
}

/* May ${p} be routed to ${n}, whose address it is not? */
static bool
may_route(const struct map_state *s, const struct netmap_node *n,
    const struct tn_prefix *p, const struct map_settings *settings)
{
    if (is_default(p))
        return names(n, settings->exit_node);
    if (!settings->accept_routes)
        return false;
    return p->bits != 128 || winner(s, &p->addr, sizeof(p->addr), NONE) == NONE;
}

/* Leaves of n->allowed_ips, a copy of a row, what the settings let through.
 * The list belongs to the netmap and those after it, so a shorter one is new,
 * and buried at once. */
static int
settle_routes(struct map_state *s, struct netmap_node *n,
    const struct map_settings *settings)
{
    struct tn_prefix *list = NULL;
    unsigned i, kept = 0;

    for (i = 0; i < n->nallowed_ips; i++)
        if (is_own(n, &n->allowed_ips[i]) ||
            may_route(s, n, &n->allowed_ips[i], settings))
            kept++;
    if (kept == n->nallowed_ips)
        return 0;
    if (map_yard_reserve(s->yard, 1) != 0 ||
        (list = calloc(kept + 1, sizeof(*list))) == NULL)
        return -1;
    kept = 0;
    for (i = 0; i < n->nallowed_ips; i++)
        if (is_own(n, &n->allowed_ips[i]) ||
            may_route(s, n, &n->allowed_ips[i], settings))
            list[kept++] = n->allowed_ips[i];
    n->allowed_ips = list;
    n->nallowed_ips = kept;
    bury(s)->bytes = list;
    return 0;
}

/* s->generation is one ahead meanwhile, so that what is buried outlives it. */
static int
fill_peers(
    struct map_state *s, struct netmap *nm, const struct map_settings *settings)
{
    nm->peers = malloc((s->npeers + 1) * sizeof(*nm->peers));
    if (nm->peers == NULL)
        return -1;
    for (uint32_t i = 1; i < s->nslots; i++) {
        if (!s->slots[i].used || s->slots[i].lost > 0)
            continue;
        nm->peers[nm->npeers] = s->rows[i];
        if (settle_routes(s, &nm->peers[nm->npeers], settings) != 0)
            return -1;
        nm->npeers++;
    }
    return 0;
}

static int
fill_rules(struct map_state *s, struct netmap *nm)
{
    unsigned total = 0, hit;

    nm->has_rules = true; /* before there are any, all is dropped */
    for (size_t i = 0; i < s->nchunks; i++) {
        if (s->chunks[i].old)
            return 0;
        total += s->chunks[i].nrules;
    }
    nm->rules = malloc((total + 1) * sizeof(*nm->rules));
    if (nm->rules == NULL)
        return -1;
    for (size_t i = 0; i < s->nchunks; i++) {
        if (s->chunks[i].nrules > 0)
            memcpy(nm->rules + nm->nrules, s->chunks[i].rules,
                s->chunks[i].nrules * sizeof(*nm->rules));
        nm->nrules += s->chunks[i].nrules;
    }
    if (s->nunsigned == 0)
        return 0;
    if (map_json_unsigned(nm, &hit) != 0)
        return -1;
    if (hit < nm->nrules)
        netmap_drop_rules(nm);
    return 0;
}

struct netmap *
map_state_netmap(struct map_state *s, const struct map_settings *settings)
{
    struct netmap *nm = s->ready ? calloc(1, sizeof(*nm)) : NULL;

    if (nm == NULL)
        return NULL;
    nm->generation = s->generation;
    if (map_yard_show(s->yard, nm) != 0) {
        free(nm);
        return NULL;
    }
    s->generation++;
    nm->self = s->rows[SELF];
    nm->domain = s->domain;
    nm->derp = s->derp;
    nm->users = malloc((s->nusers + 1) * sizeof(*nm->users));
    if (nm->users == NULL || fill_peers(s, nm, settings) != 0 ||
        fill_rules(s, nm) != 0) {
        netmap_free(nm);
        return NULL;
    }
    nm->nusers = (unsigned)s->nusers;
    if (s->nusers > 0)
        memcpy(nm->users, s->users, s->nusers * sizeof(*nm->users));
    return nm;
}

/* ---- the follower ---- */

void
map_state_follow(struct map_state *s, struct netmap *nm)
{
    uint32_t *places, at = 0;

    s->yard->follower = NULL;
    forget_notes(s);
    s->yard->behind = s->whole = false;
    if (nm == NULL)
        return;
    places = realloc(s->places, s->nslots * sizeof(*places));
    if (places == NULL)
        return; /* every change makes a new one */
    s->places = places;
    places[SELF] = NONE;
    for (uint32_t i = 1; i < s->nslots; i++)
        places[i] = s->slots[i].used && s->slots[i].lost == 0 ? at++ : NONE;
    if (at == nm->npeers)
        s->yard->follower = nm;
}

bool
map_state_update(struct map_state *s, const uint32_t **rows, size_t *n)
{
    struct netmap *nm = s->yard->follower;
    struct netmap_node *to;
    uint32_t slot, at;

    if (nm == NULL || s->whole)
        return false;
    *n = 0;
    for (uint32_t i = 0; i < s->nchanged; i++) {
        slot = s->changed[i];
        s->slots[slot].noted = false;
        at = s->places[slot];
        if (at == NONE)
            continue;
        to = &nm->peers[at];
        to->online = s->rows[slot].online;
        to->key_expiry = s->rows[slot].key_expiry;
        to->home_derp = s->rows[slot].home_derp;
        to->cap_version = s->rows[slot].cap_version;
        to->has_disco = s->rows[slot].has_disco;
        memcpy(to->disco, s->rows[slot].disco, sizeof(to->disco));
        to->endpoints = s->rows[slot].endpoints;
        to->nendpoints = s->rows[slot].nendpoints;
        s->changed[(*n)++] = at;
    }
    *rows = s->changed;
    s->nchanged = 0;
    s->yard->behind = false;
    return true;
}

/* ---- life ---- */

/* No netmap shows anything of it any more. */
static void
free_state(struct map_state *s)
{
    for (uint32_t i = 0; i < s->nslots; i++)
        if (s->slots[i].used)
            netmap_node_clear(&s->rows[i]);
    for (size_t i = 0; i < s->nusers; i++)
        netmap_user_clear(&s->users[i]);
    for (size_t i = 0; i < s->nchunks; i++) {
        free(s->chunks[i].name);
        netmap_rules_free(s->chunks[i].rules, s->chunks[i].nrules);
    }
    netmap_derp_free(s->derp);
    free(s->domain);
    free(s->slots);
    free(s->rows);
    free(s->by_id);
    free(s->by_value);
    free(s->claims);
    free(s->changed);
    free(s->places);
    free(s->users);
    free(s->chunks);
    map_yard_free(s->yard);
    free(s);
}

struct map_state *
map_state_new(void)
{
    struct map_state *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->yard = map_yard_new(free_state);
    s->domain = calloc(1, 1);
    s->free = s->free_claim = NONE;
    s->generation = 1;
    if (s->yard == NULL || s->domain == NULL || grow_slots(s, 1) != 0) {
        map_yard_free(s->yard);
        free(s->domain);
        free(s->slots);
        free(s->rows);
        free(s);
        return NULL;
    }
    s->nslots = 1; /* SELF */
    memset(&s->slots[SELF], 0, sizeof(s->slots[SELF]));
    memset(&s->rows[SELF], 0, sizeof(s->rows[SELF]));
    return s;
}

void
map_state_free(struct map_state *s)
{
    if (s == NULL)
        return;
    s->yard->left = s;
    map_yard_sweep(s->yard);
}

void
map_state_begin(struct map_state *s)
{
    s->fresh = true;
}

bool
map_state_ready(const struct map_state *s)
{
    return s->ready;
}

const struct netmap_derp *
map_state_derp(const struct map_state *s)
{
    return s->derp;
}

struct map_counts
map_state_counts(const struct map_state *s)
{
    return (struct map_counts){.peers = s->npeers, .contested = s->ncontested};
}

/*
 * Theory of operation.
 *
 * Peers stand in slots that never move.  Who has which ID, key, address and
 * route is in map_claim.c; the self node is slot 0.
 *
 * map_state_apply() first makes room for everything (reserve()), then changes
 * things without a step that can fail.  What is replaced goes to the grave with
 * the number of the netmap to come: no netmap of that number or later shows it,
 * so it is freed when all earlier ones are gone.
 *
 * One netmap follows (map_follow.c): each slot that changes is noted for it,
 * and it does not show what was replaced once it is brought up to date.  A peer
 * that comes whole is compared with what is there first, since servers say it
 * all for a new endpoint.  What may concern all peers sets ->whole.
 */
#include "map_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "map_claim.h"
#include "map_follow.h"
#include "map_json_rule.h"

/* Room was made before. */
static struct map_grave *
bury(struct map_state *s)
{
    s->yard->behind = true;
    return map_yard_bury(s->yard, s->generation);
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

int
map_inside_grow(uint32_t *size, void **list, size_t need, size_t item)
{
    size_t n = *size;

    if (grow(list, &n, need, item) != 0)
        return -1;
    *size = (uint32_t)n;
    return 0;
}

/* Each slot may be noted. */
static int
grow_slots(struct map_state *s, size_t n)
{
    uint32_t size = s->size;

    return map_inside_grow(&size, (void **)&s->rows, n, sizeof(*s->rows)) !=
                       0 ||
                   map_inside_grow(&s->changed_size, (void **)&s->changed, n,
                       sizeof(*s->changed)) != 0 ||
                   map_inside_grow(
                       &s->size, (void **)&s->slots, n, sizeof(*s->slots)) != 0
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
    size_t nclaims = map_claim_count(&d->self) + 2 * d->npatches, i;
    /* A node, a user, and so on, are one grave each; what a patch replaces is
     * two: endpoints and capabilities. */
    size_t ngraves = d->nnodes + d->nremoved + 2 * d->npatches + d->nusers +
                     s->nchunks + d->nchunks + 8 +
                     (d->full || s->fresh ? s->npeers : 0) +
                     (s->fresh ? s->nusers : 0);

    for (i = 0; i < d->nnodes; i++)
        nclaims += map_claim_count(&d->nodes[i]);
    return map_yard_reserve(s->yard, ngraves) != 0 ||
                   reserve_slots(s, d->nnodes, d->full || s->fresh) != 0 ||
                   map_claim_reserve(s, nclaims) != 0 ||
                   grow((void **)&s->users, &s->users_size,
                       s->nusers + d->nusers, sizeof(*s->users)) != 0 ||
                   grow((void **)&s->renamed, &s->renamed_size,
                       s->nrenamed + d->nusers, sizeof(*s->renamed)) != 0 ||
                   grow((void **)&s->chunks, &s->chunks_size,
                       s->nchunks + d->nchunks, sizeof(*s->chunks)) != 0
               ? -1
               : 0;
}

/* ---- changes; nothing here fails ---- */

/* ${from}'s endpoints instead of the row's. */
static void
take_endpoints(struct map_state *s, uint32_t slot, struct netmap_node *from)
{
    struct netmap_node *row = &s->rows[slot];
    struct map_grave *g;

    if (row->endpoints != NULL) {
        g = bury(s);
        g->node.endpoints = row->endpoints;
    }
    row->endpoints = from->endpoints;
    row->nendpoints = from->nendpoints;
    from->endpoints = NULL;
    from->nendpoints = 0;
}

/* Whoever may not talk any more, or again, leaves or takes a route of two. */
static void
take_expiry(struct map_state *s, uint32_t slot, int64_t expiry)
{
    if (s->rows[slot].key_expiry == expiry)
        return;
    s->rows[slot].key_expiry = expiry;
    s->reroute = s->reroute || map_claim_shares(s, slot);
}

static void
take_whereabouts(struct map_state *s, uint32_t slot, struct netmap_node *from)
{
    struct netmap_node *row = &s->rows[slot];

    if (netmap_same_whereabouts(row, from))
        return;
    row->online = from->online;
    take_expiry(s, slot, from->key_expiry);
    row->home_derp = from->home_derp;
    row->cap_version = from->cap_version;
    row->has_disco = from->has_disco;
    memcpy(row->disco, from->disco, sizeof(row->disco));
    take_endpoints(s, slot, from);
    map_follow_note(s, slot);
}

static void
drop_peer(struct map_state *s, uint32_t slot)
{
    struct map_slot *of = &s->slots[slot];

    map_follow_anew(s, slot);
    map_claim_leave(s, slot);
    s->nunsigned -= s->rows[slot].unsigned_peerapi_only;
    s->ncontested -= of->lost > 0;
    s->nstrangers -= of->stranger;
    bury(s)->node = s->rows[slot];
    memset(&s->rows[slot], 0, sizeof(s->rows[slot]));
    *of = (struct map_slot){
        .noted = of->noted, .next = s->free, .place = MAP_NONE};
    s->free = slot;
    s->npeers--;
}

/* Where the user of ${id} is or would be. */
static size_t
find_user(const struct map_state *s, int64_t id)
{
    size_t lo = 0, hi = s->nusers, mid;

    /* They come sorted: mostly it goes to the end. */
    if (hi > 0 && s->users[hi - 1].id < id)
        return hi;
    while (lo < hi) {
        mid = (lo + hi) / 2;
        if (s->users[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool
is_stranger(const struct map_state *s, int64_t user)
{
    size_t i = find_user(s, user);

    return user != 0 && (i == s->nusers || s->users[i].id != user);
}

static uint32_t
new_slot(struct map_state *s)
{
    uint32_t slot = s->free;

    if (slot != MAP_NONE) {
        s->free = s->slots[slot].next;
        return slot;
    }
    slot = s->nslots++;
    s->slots[slot] = (struct map_slot){.place = MAP_NONE};
    return slot;
}

static void
add_peer(struct map_state *s, struct netmap_node *node)
{
    uint32_t slot = map_claim_find(s, node->id);

    if (slot != MAP_NONE && netmap_same_standing(&s->rows[slot], node)) {
        take_whereabouts(s, slot, node);
        return;
    }
    if (slot != MAP_NONE)
        drop_peer(s, slot);
    slot = new_slot(s);
    s->rows[slot] = *node;
    memset(node, 0, sizeof(*node));
    s->slots[slot].used = true;
    s->slots[slot].stranger = is_stranger(s, s->rows[slot].user);
    s->nstrangers += s->slots[slot].stranger;
    s->npeers++;
    s->nunsigned += s->rows[slot].unsigned_peerapi_only;
    map_claim_enter(s, slot);
    map_follow_anew(s, slot);
}

static void
set_self(struct map_state *s, struct netmap_node *node)
{
    struct netmap_node *row = &s->rows[MAP_SELF];
    bool had = s->slots[MAP_SELF].used;
    bool same = had && netmap_same_place(row, node);

    /* Where it is, it knows itself. */
    s->self = s->self || !had || !netmap_same_standing(row, node) ||
              row->online != node->online ||
              row->key_expiry != node->key_expiry;
    s->whole = s->whole || !same;
    if (had && !same)
        map_claim_leave(s, MAP_SELF);
    if (had)
        bury(s)->node = *row;
    *row = *node;
    memset(node, 0, sizeof(*node));
    s->slots[MAP_SELF].used = true;
    if (!same)
        map_claim_enter(s, MAP_SELF);
}

static void
drop_peers(struct map_state *s)
{
    s->whole = true;
    for (uint32_t i = 1; i < s->nslots; i++)
        if (s->slots[i].used)
            drop_peer(s, i);
}

static void
patch(struct map_state *s, struct map_patch *p)
{
    static const uint8_t none[32];
    uint32_t slot = map_claim_find(s, p->id);
    struct netmap_node *row, *to = &p->to;
    struct map_grave *g;

    if (slot == MAP_NONE)
        return;
    row = &s->rows[slot];
    map_follow_note(s, slot);
    if (p->has_online)
        row->online = to->online;
    if (p->has_expiry)
        take_expiry(s, slot, to->key_expiry);
    if (to->home_derp != 0)
        row->home_derp = to->home_derp;
    if (to->cap_version != 0)
        row->cap_version = to->cap_version;
    if (p->has_endpoints)
        take_endpoints(s, slot, to);
    if (p->has_caps &&
        !netmap_same_texts(row->caps, row->ncaps, to->caps, to->ncaps)) {
        map_follow_anew(s, slot);
        g = bury(s);
        g->node.caps = row->caps;
        g->node.ncaps = row->ncaps;
        row->caps = to->caps;
        row->ncaps = to->ncaps;
        to->caps = NULL;
        to->ncaps = 0;
    }
    if (to->has_disco) { /* a zero key: it has none any more */
        memcpy(row->disco, to->disco, sizeof(row->disco));
        row->has_disco = memcmp(row->disco, none, sizeof(none)) != 0;
    }
    if (to->has_key && memcmp(row->key, to->key, sizeof(row->key)) != 0) {
        map_follow_anew(s, slot);
        map_claim_rekey(s, slot, to->key);
    }
}

static void
merge_user(struct map_state *s, struct netmap_user *u)
{
    size_t at = find_user(s, u->id);
    bool had = at < s->nusers && s->users[at].id == u->id;

    if (had && netmap_same_user(&s->users[at], u))
        return;
    if (had) {
        bury(s)->user = s->users[at];
    } else {
        memmove(&s->users[at + 1], &s->users[at],
            (s->nusers - at) * sizeof(*s->users));
        s->nusers++;
    }
    s->users[at] = *u;
    memset(u, 0, sizeof(*u));
    map_follow_user(s, at, had);
}

static void
keep_user(const struct map_state *s, bool *kept, int64_t id)
{
    size_t i = find_user(s, id);

    if (i < s->nusers && s->users[i].id == id)
        kept[i] = true;
}

/* Of the profiles stay those that a new stream's first message has or its nodes
 * refer to: the server tells the others again when there is need of them.
 * Without memory they all stay, until the next stream. */
static void
forget_users(struct map_state *s, const struct map_delta *d)
{
    bool *kept = calloc(s->nusers + 1, sizeof(*kept));
    size_t n = 0;

    if (kept == NULL)
        return;
    keep_user(s, kept, s->rows[MAP_SELF].user);
    for (size_t i = 0; i < d->nnodes; i++) {
        keep_user(s, kept, d->nodes[i].user);
        keep_user(s, kept, d->nodes[i].sharer);
    }
    for (size_t i = 0; i < d->nusers; i++)
        keep_user(s, kept, d->users[i].id);
    for (size_t i = 0; i < s->nusers; i++) {
        if (kept[i])
            s->users[n++] = s->users[i];
        else
            bury(s)->user = s->users[i];
    }
    s->nusers = n;
    free(kept);
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

static bool
has_chunk(const struct map_state *s, const struct map_chunk *k)
{
    const struct map_chunk *c;

    for (c = s->chunks; c < s->chunks + s->nchunks; c++)
        if (strcmp(c->name, k->name) == 0)
            return !k->drop && c->old == k->old &&
                   netmap_same_rules(c->rules, c->nrules, k->rules, k->nrules);
    return k->drop;
}

/* Servers say their rules again with a peer.  When all that were there are to
 * go, as many have to come; beside that, no two are of one name. */
static bool
same_filter(const struct map_state *s, const struct map_delta *d)
{
    if (s->fresh || (d->has_rules && !s->has_rules) ||
        (d->clear_chunks && d->nchunks != s->nchunks))
        return false;
    for (size_t i = 0; i < d->nchunks; i++)
        if ((d->clear_chunks && d->chunks[i].drop) ||
            !has_chunk(s, &d->chunks[i]))
            return false;
    return true;
}

static void
set_filter(struct map_state *s, struct map_delta *d)
{
    if (same_filter(s, d))
        return;
    s->rules = true;
    s->has_rules = s->has_rules || d->has_rules;
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
        bury(s)->derp = s->derp;
        s->derp = d->derp;
        d->derp = NULL;
    }
    if (d->domain != NULL && d->domain[0] != '\0' &&
        strcmp(d->domain, s->domain) != 0) {
        s->self = true;
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
    map_yard_sweep(s->yard); /* while the follower may be up to date */
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
    if (s->fresh)
        forget_users(s, d);
    for (size_t k = 0; k < d->nusers; k++)
        merge_user(s, &d->users[k]);
    if (d->full || s->fresh)
        drop_peers(s);
    for (size_t k = 0; k < d->nremoved; k++) {
        i = map_claim_find(s, d->removed[k]);
        if (i != MAP_NONE)
            drop_peer(s, i);
    }
    for (size_t k = 0; k < d->nnodes; k++)
        add_peer(s, &d->nodes[k]);
    for (size_t k = 0; k < d->npatches; k++)
        patch(s, &d->patches[k]);
    d->clear_chunks = d->clear_chunks || s->fresh;
    set_filter(s, d);
    set_rest(s, d);
    s->ready = true;
    s->fresh = false;
    map_yard_sweep(s->yard);
    return 0;
}

/* ---- netmaps ---- */

static int
fill_peers(
    struct map_state *s, struct netmap *nm, const struct map_settings *settings)
{
    nm->peers = malloc(map_follow_room(s->npeers) * sizeof(*nm->peers));
    if (nm->peers == NULL)
        return -1;
    for (uint32_t i = 1; i < s->nslots; i++) {
        if (!s->slots[i].used || s->slots[i].lost > 0)
            continue;
        nm->peers[nm->npeers] = s->rows[i];
        if (map_follow_routes(s, &nm->peers[nm->npeers], settings) != 0)
            return -1;
        nm->npeers++;
    }
    return 0;
}

int
map_inside_rules(const struct map_state *s, struct netmap *nm)
{
    unsigned total = 0;

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
    return 0;
}

/* No rule is for peers that are not signed; the peers are there. */
static int
judge_rules(struct map_state *s, struct netmap *nm)
{
    unsigned hit;

    if (s->nunsigned == 0)
        return 0;
    if (map_json_unsigned(nm, &hit) != 0)
        return -1;
    if (hit < nm->nrules)
        netmap_drop_rules(nm);
    return 0;
}

struct netmap *
map_state_outline(struct map_state *s)
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
    nm->self = s->rows[MAP_SELF];
    nm->domain = s->domain;
    nm->derp = s->derp;
    nm->users = malloc(map_follow_room(s->nusers) * sizeof(*nm->users));
    if (nm->users == NULL || map_inside_rules(s, nm) != 0) {
        netmap_free(nm);
        return NULL;
    }
    nm->nusers = (unsigned)s->nusers;
    if (s->nusers > 0)
        memcpy(nm->users, s->users, s->nusers * sizeof(*nm->users));
    return nm;
}

struct netmap *
map_state_netmap(struct map_state *s, const struct map_settings *settings)
{
    struct netmap *nm = map_state_outline(s);

    if (nm != NULL &&
        (fill_peers(s, nm, settings) != 0 || judge_rules(s, nm) != 0)) {
        netmap_free(nm);
        return NULL;
    }
    return nm;
}

const struct netmap_node *
map_state_peer(const struct map_state *s, uint32_t *at)
{
    uint32_t i;

    for (i = *at > MAP_SELF ? *at : MAP_SELF + 1; i < s->nslots; i++) {
        if (!s->slots[i].used || s->slots[i].lost > 0)
            continue;
        *at = i + 1;
        return &s->rows[i];
    }
    *at = i;
    return NULL;
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
    free(s->gone);
    free(s->owners);
    free(s->users);
    free(s->renamed);
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
    s->free = s->free_claim = MAP_NONE;
    s->generation = 1;
    if (s->yard == NULL || s->domain == NULL || grow_slots(s, 1) != 0) {
        map_yard_free(s->yard);
        free(s->domain);
        free(s->slots);
        free(s->rows);
        free(s->changed);
        free(s);
        return NULL;
    }
    s->users_from = SIZE_MAX;
    s->nslots = 1; /* MAP_SELF */
    s->slots[MAP_SELF] = (struct map_slot){.place = MAP_NONE};
    memset(&s->rows[MAP_SELF], 0, sizeof(s->rows[MAP_SELF]));
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
    return (struct map_counts){
        .peers = s->npeers, .contested = s->ncontested, .users = s->nusers};
}

/*
 * Theory of operation.
 *
 * Each slot knows its row in the follower, each row its slot.  While messages
 * are applied nothing is written into the follower: slots are noted, and a row
 * that is to go is kept in ->gone while its slot forgets it.  So a peer with
 * another name, key or tags is one that goes and one that comes, whatever
 * happens to its slot meanwhile.
 *
 * map_state_update() then makes the rows that come behind those that are there
 * (the only step that may fail), closes the gaps of those that go with the last
 * ones, beginning with the last gap, so that none of them is moved itself, and
 * lets the new ones follow up.
 *
 * What is not about peers (self, rules, users, DERP map) is taken as it is
 * then. What may change peers that no message names makes a whole netmap:
 * ->whole.
 */
#include "map_follow.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "map_claim.h"

/* ---- what is to be done ---- */

void
map_follow_note(struct map_state *s, uint32_t slot)
{
    s->yard->behind = true;
    if (s->slots[slot].noted)
        return;
    s->slots[slot].noted = true;
    s->changed[s->nchanged++] = slot;
}

/* Nothing that it has is of importance for other peers, whoever they are. */
static bool
is_usual(const struct netmap_node *row)
{
    for (unsigned i = 0; i < row->naddresses; i++)
        if (row->addresses[i].bits != 128)
            return false;
    return !row->unsigned_peerapi_only;
}

void
map_follow_anew(struct map_state *s, uint32_t slot)
{
    struct map_slot *of = &s->slots[slot];

    s->whole = s->whole || !is_usual(&s->rows[slot]) ||
               !is_usual(&s->rows[MAP_SELF]);
    if (of->place != MAP_NONE)
        s->gone[s->ngone++].row = of->place;
    of->place = MAP_NONE;
    map_follow_note(s, slot);
}

void
map_follow_user(struct map_state *s, size_t index, bool had)
{
    int64_t id = s->users[index].id;

    s->yard->behind = true;
    s->users_from = index < s->users_from ? index : s->users_from;
    if (had) {
        s->renamed[s->nrenamed++] = id;
        return;
    }
    s->self = s->self || s->rows[MAP_SELF].user == id;
    for (uint32_t i = 1; s->nstrangers > 0 && i < s->nslots; i++) {
        if (!s->slots[i].stranger || s->rows[i].user != id)
            continue;
        s->slots[i].stranger = false;
        s->nstrangers--;
        map_follow_anew(s, i);
    }
}

static void
forget(struct map_state *s)
{
    for (uint32_t i = 0; i < s->nchanged; i++)
        s->slots[s->changed[i]].noted = false;
    s->nchanged = s->ngone = 0;
    s->nrenamed = 0;
    s->users_from = SIZE_MAX;
    s->yard->behind = s->whole = s->reroute = s->self = s->rules = false;
}

/* ---- routes ---- */

static bool
names(const struct netmap_node *n, const char *who)
{
    const char *dot = strchr(n->name, '.');
    size_t len = dot == NULL ? strlen(n->name) : (size_t)(dot - n->name);
    struct tn_prefix p;

    if (who[0] == '\0')
        return false;
    if (tn_prefix_parse(&p, who, strlen(who)) == 0)
        return p.bits == 128 && map_claim_is_own(n, &p);
    return strcasecmp(n->name, who) == 0 ||
           (strlen(who) == len && strncasecmp(n->name, who, len) == 0);
}

static bool
may_route(const struct map_state *s, const struct netmap_node *n,
    const struct tn_prefix *p, const struct map_settings *settings)
{
    if (map_claim_is_own(n, p))
        return true;
    if (map_claim_is_default(p))
        return names(n, settings->exit_node);
    return settings->accept_routes &&
           (p->bits != 128 || !map_claim_taken(s, &p->addr));
}

int
map_follow_routes(const struct map_state *s, struct netmap_node *row,
    const struct map_settings *settings)
{
    struct tn_prefix *list;
    unsigned i, kept = 0;

    for (i = 0; i < row->nallowed_ips; i++)
        kept += may_route(s, row, &row->allowed_ips[i], settings);
    if (kept == row->nallowed_ips)
        return 0;
    list = calloc(kept + 1, sizeof(*list));
    if (list == NULL)
        return -1;
    kept = 0;
    for (i = 0; i < row->nallowed_ips; i++)
        if (may_route(s, row, &row->allowed_ips[i], settings))
            list[kept++] = row->allowed_ips[i];
    row->allowed_ips = list;
    row->nallowed_ips = kept;
    row->own_routes = true;
    return 0;
}

/* ---- the follower ---- */

uint32_t
map_follow_room(size_t n)
{
    return (uint32_t)(n + n / 8 + 64);
}

static bool
is_shown(const struct map_slot *slot)
{
    return slot->used && slot->lost == 0;
}

static int
resize(void **list, uint32_t n, size_t item)
{
    void *p = realloc(*list, n * item);

    if (p == NULL)
        return -1;
    *list = p;
    return 0;
}

void
map_state_follow(struct map_state *s, struct netmap *nm)
{
    uint32_t at = 0;

    s->yard->follower = NULL;
    forget(s);
    for (uint32_t i = 0; i < s->nslots; i++)
        s->slots[i].place = MAP_NONE;
    if (nm == NULL || nm->npeers != s->npeers - s->ncontested)
        return;
    s->room = map_follow_room(nm->npeers);
    s->users_room = map_follow_room(nm->nusers);
    if (resize((void **)&s->owners, s->room, sizeof(*s->owners)) != 0 ||
        resize((void **)&s->gone, s->room, sizeof(*s->gone)) != 0)
        return; /* every change makes a new one */
    for (uint32_t i = 1; i < s->nslots; i++) {
        if (!is_shown(&s->slots[i]))
            continue;
        s->slots[i].place = at;
        s->owners[at++] = i;
    }
    s->yard->follower = nm;
}

/* Whether it lets everything through it: of two that may, the last would. */
static bool
is_exit(const struct netmap_node *row)
{
    for (unsigned i = 0; i < row->nallowed_ips; i++)
        if (map_claim_is_default(&row->allowed_ips[i]))
            return true;
    return false;
}

/* The rows that come, behind those that are there; false: that cannot be. */
static bool
prepare(struct map_state *s, struct netmap *nm,
    const struct map_settings *settings, uint32_t *count)
{
    struct netmap_node *row;
    uint32_t slot;

    for (uint32_t i = 0; i < s->nchanged; i++) {
        slot = s->changed[i];
        if (!is_shown(&s->slots[slot]) || s->slots[slot].place != MAP_NONE)
            continue;
        if (nm->npeers + *count == s->room)
            return false;
        row = &nm->peers[nm->npeers + *count];
        *row = s->rows[slot];
        if (map_follow_routes(s, row, settings) != 0)
            return false;
        s->owners[nm->npeers + *count] = slot;
        ++*count;
        if (is_exit(row))
            return false;
    }
    return true;
}

static void
drop_routes(struct netmap_node *row)
{
    if (row->own_routes)
        free(row->allowed_ips);
}

static int
by_row(const void *a, const void *b)
{
    const struct netmap_gone *x = a, *y = b;

    return (x->row < y->row) - (x->row > y->row);
}

static void
remove_rows(struct map_state *s, struct netmap *nm)
{
    struct netmap_node *row;
    struct netmap_gone *g;
    uint32_t last;

    qsort(s->gone, s->ngone, sizeof(*s->gone), by_row);
    for (g = s->gone; g < s->gone + s->ngone; g++) {
        row = &nm->peers[g->row];
        memcpy(g->key, row->key, sizeof(g->key));
        g->addresses = row->addresses;
        g->naddresses = row->naddresses;
        drop_routes(row);
        last = --nm->npeers;
        if (g->row == last)
            continue;
        *row = nm->peers[last];
        s->owners[g->row] = s->owners[last];
        s->slots[s->owners[g->row]].place = g->row;
    }
}

static void
carry_over(struct netmap_node *to, const struct netmap_node *from)
{
    to->online = from->online;
    to->key_expiry = from->key_expiry;
    to->home_derp = from->home_derp;
    to->cap_version = from->cap_version;
    to->has_disco = from->has_disco;
    memcpy(to->disco, from->disco, sizeof(to->disco));
    to->endpoints = from->endpoints;
    to->nendpoints = from->nendpoints;
}

/* Returns how many, which ->changed begins with. */
static uint32_t
change_rows(struct map_state *s, struct netmap *nm)
{
    uint32_t n = 0, slot, at;

    for (uint32_t i = 0; i < s->nchanged; i++) {
        slot = s->changed[i];
        s->slots[slot].noted = false;
        at = s->slots[slot].place;
        if (at == MAP_NONE)
            continue;
        carry_over(&nm->peers[at], &s->rows[slot]);
        s->changed[n++] = at;
    }
    s->nchanged = 0;
    return n;
}

/* ${count} prepared rows, from ${from} on, follow up. */
static void
add_rows(struct map_state *s, struct netmap *nm, uint32_t from, uint32_t count)
{
    memmove(
        &nm->peers[nm->npeers], &nm->peers[from], count * sizeof(*nm->peers));
    memmove(
        &s->owners[nm->npeers], &s->owners[from], count * sizeof(*s->owners));
    for (; count > 0; count--, nm->npeers++)
        s->slots[s->owners[nm->npeers]].place = nm->npeers;
}

static void
add_users(struct map_state *s, struct netmap *nm)
{
    if (s->users_from < s->nusers)
        memcpy(&nm->users[s->users_from], &s->users[s->users_from],
            (s->nusers - s->users_from) * sizeof(*s->users));
    nm->nusers = (unsigned)s->nusers;
    s->users_from = SIZE_MAX;
}

static void
take_self(
    const struct map_state *s, struct netmap *nm, struct netmap_changes *c)
{
    int64_t expiry = nm->self.key_expiry;

    c->derp = nm->derp != s->derp;
    nm->derp = s->derp;
    nm->domain = s->domain;
    nm->self = s->rows[MAP_SELF];
    if (s->self)
        c->self = &nm->self;
    else
        nm->self.key_expiry = expiry; /* by another clock, perhaps */
}

static void
take_rules(
    struct netmap *nm, const struct netmap *made, struct netmap_changes *c)
{
    c->rules = true;
    c->grants = !netmap_same_grants(
        nm->rules, nm->nrules, made->rules, made->nrules);
    netmap_drop_rules(nm);
    nm->rules = made->rules;
    nm->nrules = made->nrules;
}

static bool
has_exit(const struct map_state *s, const struct netmap *nm)
{
    for (uint32_t i = 0; i < s->ngone; i++)
        if (is_exit(&nm->peers[s->gone[i].row]))
            return true;
    return false;
}

bool
map_state_update(struct map_state *s, const struct map_settings *settings,
    struct netmap_changes *c)
{
    struct netmap *nm = s->yard->follower, made = {0};
    uint32_t count = 0, had;

    if (nm == NULL || s->whole || (s->reroute && settings->accept_routes) ||
        (s->rules && s->nunsigned > 0) || s->nusers > s->users_room ||
        has_exit(s, nm))
        return false;
    had = nm->npeers;
    if (!prepare(s, nm, settings, &count) ||
        (s->rules && map_inside_rules(s, &made) != 0)) {
        while (count > 0)
            drop_routes(&nm->peers[had + --count]);
        return false;
    }
    memset(c, 0, sizeof(*c));
    if (s->rules)
        take_rules(nm, &made, c);
    take_self(s, nm, c);
    remove_rows(s, nm);
    c->gone = s->gone;
    c->ngone = s->ngone;
    c->nadded = count;
    c->rows = s->changed;
    c->nrows = change_rows(s, nm);
    add_rows(s, nm, had, count);
    add_users(s, nm);
    c->users = s->renamed;
    c->nusers = s->nrenamed;
    forget(s);
    return true;
}

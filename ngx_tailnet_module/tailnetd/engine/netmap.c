/*
 * netmap.c: the life of a netmap and the look-ups that every user shares.
 */
#include <stdlib.h>
#include <string.h>

#include "netmap.h"

static void
free_strings(char **list, unsigned n)
{
    unsigned i;

    if (list == NULL) {
        return;
    }
    for (i = 0; i < n; i++) {
        free(list[i]);
    }
    free(list);
}

void
netmap_node_clear(struct netmap_node *node)
{
    free(node->stable_id);
    free(node->name);
    free(node->addresses);
    free(node->allowed_ips);
    free(node->endpoints);
    free_strings(node->tags, node->ntags);
    free_strings(node->caps, node->ncaps);
}

void
netmap_user_clear(struct netmap_user *user)
{
    free(user->login);
    free(user->name);
    free(user->pic);
}

static void
clear_rule(struct netmap_rule *rule)
{
    struct netmap_cap_grant *grant;
    unsigned i;

    free(rule->srcs);
    free_strings(rule->src_caps, rule->nsrc_caps);
    free(rule->dsts);
    for (i = 0; i < rule->ngrants; i++) {
        grant = &rule->grants[i];
        free(grant->dsts);
        free_strings(grant->names, grant->ncaps);
        free_strings(grant->values, grant->ncaps);
    }
    free(rule->grants);
}

void
netmap_rules_free(struct netmap_rule *rules, unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        clear_rule(&rules[i]);
    }
    free(rules);
}

void
netmap_derp_free(struct netmap_derp *derp)
{
    struct netmap_region *region;
    struct netmap_relay *relay;
    unsigned i, j;

    if (derp == NULL) {
        return;
    }
    for (i = 0; i < derp->nregions; i++) {
        region = &derp->regions[i];
        for (j = 0; j < region->nrelays; j++) {
            relay = &region->relays[j];
            free(relay->name);
            free(relay->host);
            free(relay->cert_name);
            free(relay->ipv4);
            free(relay->ipv6);
            free(relay->stun_test_ip);
        }
        free(region->code);
        free(region->name);
        free(region->relays);
    }
    free(derp->regions);
    free(derp);
}

static bool
same_list(const void *a, unsigned na, const void *b, unsigned nb, size_t item)
{
    return na == nb && (na == 0 || memcmp(a, b, na * item) == 0);
}

bool
netmap_same_texts(char *const *a, unsigned na, char *const *b, unsigned nb)
{
    unsigned i;

    for (i = 0; na == nb && i < na; i++)
        if (strcmp(a[i], b[i]) != 0)
            return false;
    return na == nb;
}

bool
netmap_same_standing(const struct netmap_node *a, const struct netmap_node *b)
{
    return a->id == b->id && strcmp(a->stable_id, b->stable_id) == 0 &&
           strcmp(a->name, b->name) == 0 && a->user == b->user &&
           a->sharer == b->sharer && a->has_key == b->has_key &&
           memcmp(a->key, b->key, sizeof(a->key)) == 0 &&
           a->expired == b->expired && a->jailed == b->jailed &&
           a->unsigned_peerapi_only == b->unsigned_peerapi_only &&
           a->authorized == b->authorized &&
           a->wireguard_only == b->wireguard_only &&
           memcmp(a->masq, b->masq, sizeof(a->masq)) == 0 &&
           memcmp(a->has_masq, b->has_masq, sizeof(a->has_masq)) == 0 &&
           same_list(a->addresses, a->naddresses, b->addresses, b->naddresses,
               sizeof(*a->addresses)) &&
           same_list(a->allowed_ips, a->nallowed_ips, b->allowed_ips,
               b->nallowed_ips, sizeof(*a->allowed_ips)) &&
           netmap_same_texts(a->tags, a->ntags, b->tags, b->ntags) &&
           netmap_same_texts(a->caps, a->ncaps, b->caps, b->ncaps);
}

static const char *
suffix_of(const struct netmap_node *row)
{
    const char *dot = strchr(row->name, '.');

    return dot == NULL ? "" : dot + 1;
}

bool
netmap_same_place(const struct netmap_node *a, const struct netmap_node *b)
{
    return a->has_key == b->has_key &&
           memcmp(a->key, b->key, sizeof(a->key)) == 0 &&
           a->authorized == b->authorized &&
           a->unsigned_peerapi_only == b->unsigned_peerapi_only &&
           strcmp(suffix_of(a), suffix_of(b)) == 0 &&
           same_list(a->addresses, a->naddresses, b->addresses, b->naddresses,
               sizeof(*a->addresses));
}

bool
netmap_same_whereabouts(
    const struct netmap_node *a, const struct netmap_node *b)
{
    return a->online == b->online && a->key_expiry == b->key_expiry &&
           a->home_derp == b->home_derp && a->cap_version == b->cap_version &&
           a->has_disco == b->has_disco &&
           memcmp(a->disco, b->disco, sizeof(a->disco)) == 0 &&
           same_list(a->endpoints, a->nendpoints, b->endpoints, b->nendpoints,
               sizeof(*a->endpoints));
}

bool
netmap_same_user(const struct netmap_user *a, const struct netmap_user *b)
{
    return a->id == b->id && strcmp(a->login, b->login) == 0 &&
           strcmp(a->name, b->name) == 0 && strcmp(a->pic, b->pic) == 0;
}

static bool
same_grants(const struct netmap_rule *a, const struct netmap_rule *b)
{
    const struct netmap_cap_grant *x, *y;
    unsigned i;

    for (i = 0; a->ngrants == b->ngrants && i < a->ngrants; i++) {
        x = &a->grants[i];
        y = &b->grants[i];
        if (!same_list(
                x->dsts, x->ndsts, y->dsts, y->ndsts, sizeof(*x->dsts)) ||
            !netmap_same_texts(x->names, x->ncaps, y->names, y->ncaps) ||
            !netmap_same_texts(x->values, x->ncaps, y->values, y->ncaps)) {
            return false;
        }
    }
    return a->ngrants == b->ngrants;
}

/* From ${i} on, the first that grants something; ${n}: none. */
static unsigned
next_grant(const struct netmap_rule *rules, unsigned n, unsigned i)
{
    while (i < n && rules[i].ngrants == 0) {
        i++;
    }
    return i;
}

static bool
same_srcs(const struct netmap_rule *a, const struct netmap_rule *b)
{
    return same_list(a->srcs, a->nsrcs, b->srcs, b->nsrcs, sizeof(*a->srcs)) &&
           netmap_same_texts(
               a->src_caps, a->nsrc_caps, b->src_caps, b->nsrc_caps);
}

bool
netmap_same_grants(const struct netmap_rule *a, unsigned na,
    const struct netmap_rule *b, unsigned nb)
{
    unsigned i = next_grant(a, na, 0), j = next_grant(b, nb, 0);

    while (i < na && j < nb && same_srcs(&a[i], &b[j]) &&
           same_grants(&a[i], &b[j])) {
        i = next_grant(a, na, i + 1);
        j = next_grant(b, nb, j + 1);
    }
    return i == na && j == nb;
}

static bool
same_dsts(const struct netmap_rule *a, const struct netmap_rule *b)
{
    unsigned i;

    for (i = 0; a->ndsts == b->ndsts && i < a->ndsts; i++) {
        if (memcmp(&a->dsts[i].ip, &b->dsts[i].ip, sizeof(a->dsts[i].ip)) !=
                0 ||
            a->dsts[i].first != b->dsts[i].first ||
            a->dsts[i].last != b->dsts[i].last) {
            return false;
        }
    }
    return a->ndsts == b->ndsts;
}

bool
netmap_same_rules(const struct netmap_rule *a, unsigned na,
    const struct netmap_rule *b, unsigned nb)
{
    unsigned i;

    for (i = 0; na == nb && i < na; i++) {
        if (!same_srcs(&a[i], &b[i]) || !same_dsts(&a[i], &b[i]) ||
            a[i].proto_default != b[i].proto_default ||
            memcmp(a[i].protos, b[i].protos, sizeof(a[i].protos)) != 0 ||
            !same_grants(&a[i], &b[i])) {
            return false;
        }
    }
    return na == nb;
}

static int
by_region(const void *key, const void *item)
{
    const unsigned *id = key;
    const struct netmap_region *region = item;

    return (*id > region->id) - (*id < region->id);
}

const struct netmap_region *
netmap_region(const struct netmap_derp *derp, unsigned id)
{
    if (derp == NULL || derp->nregions == 0) {
        return NULL;
    }
    return bsearch(&id, derp->regions, derp->nregions, sizeof(derp->regions[0]),
        by_region);
}

void
netmap_drop_rules(struct netmap *nm)
{
    if (nm->owner == NULL) {
        netmap_rules_free(nm->rules, nm->nrules);
    } else {
        free(nm->rules);
    }
    nm->rules = NULL;
    nm->nrules = 0;
}

void
netmap_drop_peers(struct netmap *nm)
{
    unsigned i;

    for (i = 0; i < nm->npeers; i++) {
        if (nm->owner == NULL) {
            netmap_node_clear(&nm->peers[i]);
        } else if (nm->peers[i].own_routes) {
            free(nm->peers[i].allowed_ips);
        }
    }
    nm->npeers = 0;
}

/* A netmap that owns its rows. */
static void
clear_rows(struct netmap *nm)
{
    unsigned i;

    netmap_node_clear(&nm->self);
    for (i = 0; i < nm->nusers; i++) {
        netmap_user_clear(&nm->users[i]);
    }
    netmap_derp_free((struct netmap_derp *)(uintptr_t)nm->derp);
    free(nm->domain);
}

void
netmap_free(struct netmap *nm)
{
    if (nm == NULL) {
        return;
    }
    netmap_drop_rules(nm);
    netmap_drop_peers(nm);
    if (nm->owner == NULL) {
        clear_rows(nm);
    } else {
        nm->owner->release(nm->owner, nm->generation);
    }
    free(nm->peers);
    free(nm->users);
    free(nm);
}

static int
by_id(const void *key, const void *item)
{
    const int64_t *id = key;
    const struct netmap_user *user = item;

    return (*id > user->id) - (*id < user->id);
}

const struct netmap_user *
netmap_user(const struct netmap *nm, int64_t id)
{
    if (nm->nusers == 0) {
        return NULL;
    }
    return bsearch(&id, nm->users, nm->nusers, sizeof(nm->users[0]), by_id);
}

const char *
netmap_suffix(const struct netmap *nm)
{
    return suffix_of(&nm->self);
}

const struct tn_addr *
netmap_first_address(const struct netmap_node *row, bool is4)
{
    unsigned i;

    for (i = 0; i < row->naddresses; i++)
        if (row->addresses[i].bits == 128 &&
            tn_addr_is4(&row->addresses[i].addr) == is4)
            return &row->addresses[i].addr;
    return NULL;
}

bool
netmap_has_endpoint(const struct netmap_node *row, const struct tn_endpoint *e)
{
    unsigned i;

    for (i = 0; i < row->nendpoints; i++)
        if (row->endpoints[i].port == e->port &&
            tn_addr_equal(&row->endpoints[i].addr, &e->addr))
            return true;
    return false;
}

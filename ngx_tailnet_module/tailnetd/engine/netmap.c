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

static void
clear_node(struct netmap_node *node)
{
    free(node->stable_id);
    free(node->name);
    free(node->addresses);
    free(node->allowed_ips);
    free(node->endpoints);
    free_strings(node->tags, node->ntags);
    free_strings(node->caps, node->ncaps);
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
netmap_drop_rules(struct netmap *nm)
{
    unsigned i;

    for (i = 0; i < nm->nrules; i++) {
        clear_rule(&nm->rules[i]);
    }
    free(nm->rules);
    nm->rules = NULL;
    nm->nrules = 0;
}

void
netmap_free(struct netmap *nm)
{
    unsigned i;

    if (nm == NULL) {
        return;
    }
    clear_node(&nm->self);
    for (i = 0; i < nm->npeers; i++) {
        clear_node(&nm->peers[i]);
    }
    free(nm->peers);
    for (i = 0; i < nm->nusers; i++) {
        free(nm->users[i].login);
        free(nm->users[i].name);
        free(nm->users[i].pic);
    }
    free(nm->users);
    netmap_drop_rules(nm);
    free(nm->domain);
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
    const char *dot;

    dot = strchr(nm->self.name, '.');
    return dot == NULL ? "" : dot + 1;
}

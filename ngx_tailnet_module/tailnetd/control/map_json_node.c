/*
 * map_json_node.c: nodes and users, normalised.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/keytext.h"
#include "map_json_node.h"

/* ---- scalar fields ---- */

static int
parse_id(const struct map_json_cursor *c, const char *name, int64_t *id)
{
    struct map_json_cursor m = map_json_member(c, name);

    return map_json_int(&m, id);
}

static int
parse_flag(const struct map_json_cursor *c, const char *name, bool *flag)
{
    struct map_json_cursor m = map_json_member(c, name);

    return map_json_bool(&m, flag);
}

static int
parse_string(const struct map_json_cursor *c, const char *name, char **s)
{
    struct map_json_cursor m = map_json_member(c, name);

    return map_json_string(&m, s);
}

/* A zero key is how Go writes one that is not there. */
static int
parse_key(const struct map_json_cursor *c, bool peer, struct netmap_node *node)
{
    static const uint8_t none[32];
    struct map_json_cursor m = map_json_member(c, "Key");
    const char *s = NULL;
    size_t len = 0;

    if (map_json_text(&m, &s, &len) != 0) {
        return -1;
    }
    if (s == NULL ? peer
                  : keytext_prefixed(node->key, "nodekey:", s, len) != 0 &&
                        keytext_base64(node->key, s, len) != 0) {
        return map_json_fail(&m,
            "\"nodekey:\" and 64 hexadecimal digits, or a WireGuard key of 44 "
            "base64 characters expected");
    }
    node->has_key = s != NULL && memcmp(node->key, none, sizeof(none)) != 0;
    if (peer && !node->has_key) {
        return map_json_fail(&m, "the key is zero");
    }
    return 0;
}

static int
parse_disco(const struct map_json_cursor *c, struct netmap_node *node)
{
    static const uint8_t none[32];
    struct map_json_cursor m = map_json_member(c, "DiscoKey");
    const char *s = NULL;
    size_t len = 0;

    if (map_json_text(&m, &s, &len) != 0) {
        return -1;
    }
    if (s != NULL && keytext_prefixed(node->disco, "discokey:", s, len) != 0) {
        return map_json_fail(
            &m, "\"discokey:\" and 64 hexadecimal digits expected");
    }
    node->has_disco = memcmp(node->disco, none, sizeof(none)) != 0;
    return 0;
}

/* HomeDERP, or DERP, how it was written before: "127.3.3.40:REGION". */
static int
parse_home(const struct map_json_cursor *c, struct netmap_node *node)
{
    static const uint8_t magic[4] = {127, 3, 3, 40};
    struct map_json_cursor home = map_json_member(c, "HomeDERP"),
                           old = map_json_member(c, "DERP");
    struct tn_addr derp = tn_addr_from4(magic);
    struct tn_endpoint e;
    const char *s = NULL;
    int64_t region = 0;
    size_t len = 0;

    if (map_json_int(&home, &region) != 0 ||
        map_json_text(&old, &s, &len) != 0) {
        return -1;
    }
    if (region < 0 || region > NETMAP_MAX_REGION) {
        return map_json_fail(
            &home, "a number from 0 to %d expected", NETMAP_MAX_REGION);
    }
    if (region == 0 && s != NULL && tn_endpoint_parse(&e, s, len) == 0 &&
        tn_addr_equal(&e.addr, &derp)) {
        region = e.port;
    }
    node->home_derp = (uint16_t)region;
    return 0;
}

/* By which addresses this peer knows us. */
static int
parse_masquerade(const struct map_json_cursor *c, struct netmap_node *node)
{
    static const char *const names[2] = {
        "SelfNodeV4MasqAddrForThisPeer", "SelfNodeV6MasqAddrForThisPeer"};
    struct map_json_cursor m;
    const char *s;
    size_t len;
    int i;

    for (i = 0; i < 2; i++) {
        m = map_json_member(c, names[i]);
        s = NULL;
        if (map_json_text(&m, &s, &len) != 0) {
            return -1;
        }
        if (s == NULL || len == 0) {
            continue;
        }
        if (tn_addr_parse(&node->masq[i], s, len) != 0 ||
            tn_addr_is4(&node->masq[i]) != (i == 0)) {
            return map_json_fail(
                &m, "an IPv%d address expected", i == 0 ? 4 : 6);
        }
        node->has_masq[i] = true;
    }
    return 0;
}

/* What the path to a node needs. */
static int
parse_path(const struct map_json_cursor *c, struct netmap_node *node)
{
    struct map_json_cursor cap = map_json_member(c, "Cap");
    int64_t version = 0;

    if (map_json_int(&cap, &version) != 0) {
        return -1;
    }
    if (version < 0 || version > INT32_MAX) {
        return map_json_fail(&cap, "a capability version expected");
    }
    node->cap_version = (uint32_t)version;
    return parse_disco(c, node) != 0 || parse_home(c, node) != 0 ||
                   parse_masquerade(c, node) != 0 ||
                   parse_flag(c, "IsWireGuardOnly", &node->wireguard_only) != 0
               ? -1
               : 0;
}

/* FQDN: final dots cut, lower case. */
static int
parse_name(const struct map_json_cursor *c, struct netmap_node *node)
{
    size_t len;
    char *s;

    if (parse_string(c, "Name", &node->name) != 0) {
        return -1;
    }
    for (s = node->name; *s != '\0'; s++) {
        *s = (char)tolower((unsigned char)*s);
    }
    len = (size_t)(s - node->name);
    while (len > 0 && node->name[len - 1] == '.') {
        node->name[--len] = '\0';
    }
    return 0;
}

/* ---- addresses ---- */

static int
parse_prefixes(
    const struct map_json_cursor *m, struct tn_prefix **out, unsigned *nout)
{
    char shown[MAP_JSON_SHOWN];
    struct map_json_cursor e;
    const char *s;
    size_t i, n, len;

    if (map_json_list(m, NETMAP_MAX_ADDRS, "NETMAP_MAX_ADDRS", &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    *out = calloc(n, sizeof((*out)[0]));
    if (*out == NULL) {
        return map_json_no_memory(m->err);
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(m, i);
        s = "";
        len = 0;
        if (map_json_text(&e, &s, &len) != 0) {
            return -1;
        }
        if (tn_prefix_parse(&(*out)[i], s, len) != 0) {
            return map_json_fail(&e,
                "%s is neither an address nor a prefix without host bits",
                map_json_show(shown, s, len));
        }
        *nout = (unsigned)i + 1;
    }
    return 0;
}

static int
parse_addresses(
    const struct map_json_cursor *c, bool peer, struct netmap_node *node)
{
    struct map_json_cursor addresses = map_json_member(c, "Addresses"),
                           allowed = map_json_member(c, "AllowedIPs");

    if (parse_prefixes(&addresses, &node->addresses, &node->naddresses) != 0) {
        return -1;
    }
    if (peer && node->naddresses == 0) {
        return map_json_fail(&addresses, "at least one address expected");
    }
    if (parse_prefixes(&allowed, &node->allowed_ips, &node->nallowed_ips) !=
        0) {
        return -1;
    }
    if (allowed.json != NULL && !node->unsigned_peerapi_only) {
        return 0;
    }
    free(node->allowed_ips);
    node->allowed_ips = NULL;
    node->nallowed_ips = 0;
    if (node->naddresses == 0) {
        return 0;
    }
    node->allowed_ips = calloc(node->naddresses, sizeof(node->addresses[0]));
    if (node->allowed_ips == NULL) {
        return map_json_no_memory(c->err);
    }
    memcpy(node->allowed_ips, node->addresses,
        node->naddresses * sizeof(node->addresses[0]));
    node->nallowed_ips = node->naddresses;
    return 0;
}

/* Well-formed, but nothing that this node could send to: a peer announces
 * what its own interfaces have. */
static bool
is_unusable(const char *s, size_t len)
{
    return memchr(s, '%', len) != NULL ||
           (len >= 2 && memcmp(s + len - 2, ":0", 2) == 0);
}

int
map_json_endpoints(const struct map_json_cursor *c, struct netmap_node *node)
{
    struct map_json_cursor m = map_json_member(c, "Endpoints"), e;
    char shown[MAP_JSON_SHOWN];
    const char *s;
    size_t i, n, len;

    if (map_json_list(&m, NETMAP_MAX_ADDRS, "NETMAP_MAX_ADDRS", &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    node->endpoints = calloc(n, sizeof(node->endpoints[0]));
    if (node->endpoints == NULL) {
        return map_json_no_memory(c->err);
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        s = "";
        len = 0;
        if (map_json_text(&e, &s, &len) != 0) {
            return -1;
        }
        if (tn_endpoint_parse(&node->endpoints[node->nendpoints], s, len) ==
            0) {
            node->nendpoints++;
        } else if (is_unusable(s, len)) {
            map_json_warn(&e, "%s has a zone or port 0: left out",
                map_json_show(shown, s, len));
        } else {
            return map_json_fail(
                &e, "%s is not ADDRESS:PORT", map_json_show(shown, s, len));
        }
    }
    return 0;
}

/* ---- names ---- */

static int
parse_tags(const struct map_json_cursor *c, struct netmap_node *node)
{
    struct map_json_cursor m = map_json_member(c, "Tags"), e;
    char shown[MAP_JSON_SHOWN];
    size_t i, n;

    if (map_json_list(&m, NETMAP_MAX_TAGS, "NETMAP_MAX_TAGS", &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    node->tags = calloc(n, sizeof(node->tags[0]));
    if (node->tags == NULL) {
        return map_json_no_memory(c->err);
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        if (map_json_string(&e, &node->tags[i]) != 0) {
            return -1;
        }
        node->ntags++;
        /* They are joined with commas for whoever looks for one. */
        if (strncmp(node->tags[i], "tag:", 4) != 0 ||
            node->tags[i][4] == '\0' || strchr(node->tags[i], ',') != NULL) {
            return map_json_fail(&e, "%s is not \"tag:\" and a name",
                map_json_show(shown, node->tags[i], strlen(node->tags[i])));
        }
    }
    node->ntags = (unsigned)map_json_unique(node->tags, node->ntags);
    return 0;
}

static int
add_cap(void *arg, const struct map_json_cursor *value, const char *name)
{
    struct netmap_node *node = arg;
    char *copy = map_json_copy(name, strlen(name));

    if (copy == NULL) {
        return map_json_no_memory(value->err);
    }
    node->caps[node->ncaps++] = copy;
    return 0;
}

int
map_json_caps(const struct map_json_cursor *c, struct netmap_node *node)
{
    size_t n;

    if (map_json_cap_count(c, "Capabilities", &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    node->caps = calloc(n, sizeof(node->caps[0]));
    if (node->caps == NULL) {
        return map_json_no_memory(c->err);
    }
    if (map_json_cap_each(c, "Capabilities", add_cap, node) != 0) {
        return -1;
    }
    node->ncaps = (unsigned)map_json_unique(node->caps, node->ncaps);
    return 0;
}

/* ---- whole objects ---- */

static int
parse_scalars(const struct map_json_cursor *c, struct netmap_node *node)
{
    struct map_json_cursor expiry = map_json_member(c, "KeyExpiry");

    node->online = true;
    node->authorized = true;
    return parse_id(c, "ID", &node->id) != 0 ||
                   parse_string(c, "StableID", &node->stable_id) != 0 ||
                   parse_name(c, node) != 0 ||
                   parse_id(c, "User", &node->user) != 0 ||
                   parse_id(c, "Sharer", &node->sharer) != 0 ||
                   map_json_time(&expiry, &node->key_expiry) != 0 ||
                   parse_flag(c, "Expired", &node->expired) != 0 ||
                   parse_flag(c, "Online", &node->online) != 0 ||
                   parse_flag(c, "IsJailed", &node->jailed) != 0 ||
                   parse_flag(c, "MachineAuthorized", &node->authorized) != 0 ||
                   parse_flag(c, "UnsignedPeerAPIOnly",
                       &node->unsigned_peerapi_only) != 0
               ? -1
               : 0;
}

int
map_json_node(
    const struct map_json_cursor *c, bool peer, struct netmap_node *node)
{
    struct map_json_cursor id;

    if (c->json == NULL) {
        return map_json_fail(c, "a node expected");
    }
    if (map_json_object(c) != 0 || parse_scalars(c, node) != 0) {
        return -1;
    }
    if (peer && node->id == 0) {
        id = map_json_member(c, "ID");
        return map_json_fail(&id, "an integer other than 0 expected");
    }
    return parse_key(c, peer, node) != 0 ||
                   parse_addresses(c, peer, node) != 0 ||
                   parse_path(c, node) != 0 ||
                   map_json_endpoints(c, node) != 0 ||
                   parse_tags(c, node) != 0 || map_json_caps(c, node) != 0
               ? -1
               : 0;
}

static int
parse_user(const struct map_json_cursor *c, struct netmap_user *user)
{
    struct map_json_cursor id;

    if (c->json == NULL) {
        return map_json_fail(c, "a user expected");
    }
    if (map_json_object(c) != 0 || parse_id(c, "ID", &user->id) != 0 ||
        parse_string(c, "LoginName", &user->login) != 0 ||
        parse_string(c, "DisplayName", &user->name) != 0 ||
        parse_string(c, "ProfilePicURL", &user->pic) != 0) {
        return -1;
    }
    if (user->id == 0) {
        id = map_json_member(c, "ID");
        return map_json_fail(&id, "an integer other than 0 expected");
    }
    return 0;
}

/* A user and where it came from, to sort by ID and place. */
struct profile {
    struct netmap_user user;
    size_t index;
};

static int
by_id(const void *a, const void *b)
{
    const struct profile *x = a, *y = b;

    if (x->user.id != y->user.id) {
        return x->user.id < y->user.id ? -1 : 1;
    }
    return (x->index > y->index) - (x->index < y->index);
}

/* The ${n} of ${list} into ${users}; of two of one ID, the later one. */
static void
merge_users(const struct map_json_cursor *m, struct profile *list, size_t n,
    struct netmap_user *users, unsigned *nusers)
{
    struct map_json_cursor e;
    size_t i;

    qsort(list, n, sizeof(list[0]), by_id);
    for (i = 0; i < n; i++) {
        if (i + 1 < n && list[i].user.id == list[i + 1].user.id) {
            e = map_json_element(m, list[i].index);
            map_json_warn(&e,
                "the same user as UserProfiles[%zu], which counts",
                list[i + 1].index);
            netmap_user_clear(&list[i].user);
            continue;
        }
        users[(*nusers)++] = list[i].user;
    }
}

int
map_json_users(const struct map_json_cursor *m,
    int (*forgive)(struct map_json_error *err), struct netmap_user **users,
    unsigned *n)
{
    struct map_json_cursor e;
    struct profile *list;
    size_t i, all, kept = 0;
    int rc = 0;

    if (map_json_list(m, NETMAP_MAX_USERS, "NETMAP_MAX_USERS", &all) != 0) {
        return -1;
    }
    list = calloc(all + 1, sizeof(list[0]));
    *users = calloc(all + 1, sizeof((*users)[0]));
    if (list == NULL || *users == NULL) {
        free(list);
        return map_json_no_memory(m->err);
    }
    for (i = 0; i < all && rc == 0; i++) {
        e = map_json_element(m, i);
        list[kept].index = i;
        if (parse_user(&e, &list[kept].user) == 0) {
            kept++;
            continue;
        }
        netmap_user_clear(&list[kept].user);
        memset(&list[kept], 0, sizeof(list[kept]));
        rc = forgive == NULL ? -1 : forgive(m->err);
    }
    merge_users(m, list, kept, *users, n);
    free(list);
    return rc;
}

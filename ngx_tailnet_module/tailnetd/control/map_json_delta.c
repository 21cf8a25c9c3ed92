#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/keytext.h"
#include "map_json_delta.h"
#include "map_json_derp.h"
#include "map_json_node.h"
#include "map_json_rule.h"

#define SLEEP_MAX 300 /* seconds */

/* ---- what can be left out ---- */

/* The mistake just reported in ${err} becomes a warning; but want of memory
 * stays one. */
static int
forgive(struct map_json_error *err)
{
    unsigned n = err->nwarnings;

    if (err->path[0] == '\0') {
        return -1;
    }
    err->nwarnings++;
    if (n < MAP_JSON_MAX_WARNINGS) {
        memcpy(err->warnings[n], err->text, sizeof(err->text));
    }
    err->path[0] = err->text[0] = '\0';
    return 0;
}

/* A bad node's ID, so that what was known of it can be dropped. */
static int64_t
id_of(const struct map_json_cursor *e)
{
    return json_integer_value(json_object_get(e->json, "ID"));
}

/* ---- nodes ---- */

static int
parse_nodes(const struct map_json_cursor *m, struct map_delta *d)
{
    struct map_json_cursor e;
    size_t i, n;

    if (map_json_list(m, NETMAP_MAX_PEERS, "NETMAP_MAX_PEERS", &n) != 0) {
        return -1;
    }
    d->nodes = calloc(n + 1, sizeof(d->nodes[0]));
    d->removed = calloc(n + 1, sizeof(d->removed[0]));
    if (d->nodes == NULL || d->removed == NULL) {
        return map_json_no_memory(m->err);
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(m, i);
        if (map_json_node(&e, true, &d->nodes[d->nnodes]) == 0) {
            d->nnodes++;
            continue;
        }
        netmap_node_clear(&d->nodes[d->nnodes]);
        memset(&d->nodes[d->nnodes], 0, sizeof(d->nodes[0]));
        if (forgive(m->err) != 0) {
            return -1;
        }
        d->removed[d->nremoved++] = id_of(&e);
    }
    return 0;
}

static int
parse_removed(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor m = map_json_member(doc, "PeersRemoved"), e;
    int64_t *list;
    size_t i, n;

    if (map_json_list(&m, NETMAP_MAX_PEERS, "NETMAP_MAX_PEERS", &n) != 0) {
        return -1;
    }
    list = realloc(d->removed, (d->nremoved + n + 1) * sizeof(*list));
    if (list == NULL) {
        return map_json_no_memory(doc->err);
    }
    d->removed = list;
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        list[d->nremoved] = 0;
        if (map_json_int(&e, &list[d->nremoved]) != 0) {
            return -1;
        }
        d->nremoved++;
    }
    return 0;
}

/* ---- patches ---- */

static int
patch_key(const struct map_json_cursor *c, const char *name, const char *prefix,
    uint8_t key[32], bool *has)
{
    struct map_json_cursor m = map_json_member(c, name);
    const char *s = NULL;
    size_t len;

    if (map_json_text(&m, &s, &len) != 0) {
        return -1;
    }
    if (s == NULL) {
        return 0;
    }
    if (keytext_prefixed(key, prefix, s, len) != 0) {
        return map_json_fail(
            &m, "\"%s\" and 64 hexadecimal digits expected", prefix);
    }
    *has = true;
    return 0;
}

static int
patch_number(
    const struct map_json_cursor *c, const char *name, int64_t max, int64_t *v)
{
    struct map_json_cursor m = map_json_member(c, name);

    if (map_json_int(&m, v) != 0) {
        return -1;
    }
    return *v < 0 || *v > max
               ? map_json_fail(
                     &m, "a number from 0 to %" PRId64 " expected", max)
               : 0;
}

static int
parse_patch(const struct map_json_cursor *c, struct map_patch *p)
{
    struct map_json_cursor online = map_json_member(c, "Online"),
                           expiry = map_json_member(c, "KeyExpiry"),
                           caps = map_json_member(c, "CapMap"),
                           endpoints = map_json_member(c, "Endpoints"),
                           id = map_json_member(c, "NodeID");
    int64_t derp = 0, cap = 0;

    if (c->json == NULL || map_json_object(c) != 0) {
        return map_json_fail(c, "an object expected");
    }
    p->has_online = online.json != NULL;
    p->has_expiry = expiry.json != NULL;
    p->has_caps = caps.json != NULL;
    p->has_endpoints = endpoints.json != NULL;
    if (map_json_int(&id, &p->id) != 0 ||
        map_json_bool(&online, &p->to.online) != 0 ||
        map_json_time(&expiry, &p->to.key_expiry) != 0 ||
        map_json_caps(c, &p->to) != 0 || map_json_endpoints(c, &p->to) != 0 ||
        patch_number(c, "DERPRegion", NETMAP_MAX_REGION, &derp) != 0 ||
        patch_number(c, "Cap", INT32_MAX, &cap) != 0 ||
        patch_key(c, "Key", "nodekey:", p->to.key, &p->to.has_key) != 0 ||
        patch_key(c, "DiscoKey", "discokey:", p->to.disco, &p->to.has_disco) !=
            0) {
        return -1;
    }
    p->to.home_derp = (uint16_t)derp;
    p->to.cap_version = (uint32_t)cap;
    return 0;
}

static int
parse_online(const struct map_json_cursor *m, struct map_delta *d)
{
    struct map_json_cursor e;
    struct map_patch *p;
    const char *name;
    json_t *value;
    char *end;

    json_object_foreach((json_t *)m->json, name, value)
    {
        e = map_json_member(m, name);
        p = &d->patches[d->npatches];
        p->id = strtoll(name, &end, 10);
        if (*end != '\0' || end == name || e.json == NULL) {
            return map_json_fail(&e, "a node's ID and true or false expected");
        }
        if (map_json_bool(&e, &p->to.online) != 0) {
            return -1;
        }
        p->has_online = true;
        d->npatches++;
    }
    return 0;
}

/* OnlineChange comes before PeersChangedPatch. */
static int
parse_patches(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor m = map_json_member(doc, "PeersChangedPatch"),
                           online = map_json_member(doc, "OnlineChange"), e;
    size_t i, n;

    if (map_json_list(&m, NETMAP_MAX_PEERS, "NETMAP_MAX_PEERS", &n) != 0 ||
        map_json_object(&online) != 0) {
        return -1;
    }
    d->patches = calloc(
        n + json_object_size(online.json) + 1, sizeof(d->patches[0]));
    if (d->patches == NULL) {
        return map_json_no_memory(doc->err);
    }
    if (parse_online(&online, d) != 0) {
        return -1;
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        d->npatches++;
        if (parse_patch(&e, &d->patches[d->npatches - 1]) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
parse_peers(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor all = map_json_member(doc, "Peers"),
                           changed = map_json_member(doc, "PeersChanged");
    size_t n;

    if (map_json_list(&all, NETMAP_MAX_PEERS, "NETMAP_MAX_PEERS", &n) != 0) {
        return -1;
    }
    if (n > 0) { /* a full list; other forms in the message do not count */
        d->full = true;
        return parse_nodes(&all, d);
    }
    return parse_nodes(&changed, d) != 0 || parse_removed(doc, d) != 0 ||
                   parse_patches(doc, d) != 0
               ? -1
               : 0;
}

/* ---- users ---- */

static int
parse_users(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor m = map_json_member(doc, "UserProfiles");

    return map_json_users(&m, forgive, &d->users, &d->nusers);
}

/* ---- filter ---- */

static int
parse_chunk(
    const struct map_json_cursor *c, const char *name, struct map_delta *d)
{
    struct map_chunk *k = &d->chunks[d->nchunks++];

    k->name = map_json_copy(name, strlen(name));
    if (k->name == NULL) {
        return map_json_no_memory(c->err);
    }
    k->drop = c->json == NULL;
    return k->drop ? 0 : map_json_chunk(c, &k->rules, &k->nrules, &k->old);
}

static int
parse_filter(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor one = map_json_member(doc, "PacketFilter"),
                           many = map_json_member(doc, "PacketFilters"), e;
    const char *name;
    json_t *value;
    size_t n;

    if (map_json_object(&many) != 0) {
        return -1;
    }
    n = json_object_size(many.json);
    if (n > MAP_DELTA_MAX_CHUNKS) {
        return map_json_fail(&many,
            "%zu parts, more than MAP_DELTA_MAX_CHUNKS (%d)", n,
            MAP_DELTA_MAX_CHUNKS);
    }
    d->has_rules = one.json != NULL || many.json != NULL;
    d->clear_chunks = json_is_null(json_object_get(many.json, "*"));
    d->chunks = calloc(n + 2, sizeof(d->chunks[0]));
    if (d->chunks == NULL) {
        return map_json_no_memory(doc->err);
    }
    /* PacketFilter is before PacketFilters, so "*" undoes it. */
    if (one.json != NULL && !d->clear_chunks &&
        parse_chunk(&one, "base", d) != 0) {
        return -1;
    }
    json_object_foreach((json_t *)many.json, name, value)
    {
        e = map_json_member(&many, name);
        if (strlen(name) > NETMAP_MAX_STRING) {
            return map_json_fail(&many,
                "a name longer than NETMAP_MAX_STRING (%d bytes)",
                NETMAP_MAX_STRING);
        }
        if (strcmp(name, "*") != 0 && parse_chunk(&e, name, d) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- the rest ---- */

/* A copy of what there is of it. */
static char *
words_of(const json_t *v)
{
    size_t len = json_string_length(v);

    return map_json_copy(len == 0 ? "" : json_string_value(v),
        len < NETMAP_MAX_STRING ? len : NETMAP_MAX_STRING);
}

static const char *
severity_of(const json_t *v)
{
    static const char *const known[] = {"high", "medium", "low"};
    const char *s = json_string_value(v);

    for (size_t i = 0; s != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(s, known[i]) == 0) {
            return known[i];
        }
    }
    return "";
}

static int
add_notice(struct map_delta *d, const char *id, const json_t *v)
{
    const json_t *action = json_object_get(v, "PrimaryAction");
    struct map_notice *n = &d->notices[d->nnotices++];

    n->drop = json_is_null(v);
    n->title = words_of(json_object_get(v, "Title"));
    n->text = words_of(id == NULL ? v : json_object_get(v, "Text"));
    n->url = words_of(json_object_get(action, "URL"));
    n->severity = severity_of(json_object_get(v, "Severity"));
    n->connectivity = json_is_true(json_object_get(v, "ImpactsConnectivity"));
    if (id != NULL) {
        n->id = map_json_copy(id, strnlen(id, NETMAP_MAX_STRING));
    }
    return n->title == NULL || n->text == NULL || n->url == NULL ||
                   (id != NULL && n->id == NULL)
               ? -1
               : 0;
}

/* They are words: whatever they are, the netmap beside them counts. */
static int
parse_notices(const struct map_json_cursor *doc, struct map_delta *d)
{
    json_t *list = json_object_get(doc->json, "Health"),
           *map = json_object_get(doc->json, "DisplayMessages"), *v;
    const char *id;
    int rc = 0;
    size_t i;

    d->has_health = json_is_array(list);
    d->clear_notices = json_is_null(json_object_get(map, "*"));
    i = json_array_size(list) + json_object_size(map);
    d->notices = calloc(
        MAP_DELTA_MAX_NOTICES < i ? MAP_DELTA_MAX_NOTICES : i + 1,
        sizeof(*d->notices));
    if (d->notices == NULL) {
        return map_json_no_memory(doc->err);
    }
    json_array_foreach(list, i, v)
    {
        if (json_string_length(v) > 0 && json_string_value(v)[0] != '\0' &&
            d->nnotices < MAP_DELTA_MAX_NOTICES) {
            rc |= add_notice(d, NULL, v);
        }
    }
    json_object_foreach(map, id, v)
    {
        if (strcmp(id, "*") != 0 && d->nnotices < MAP_DELTA_MAX_NOTICES) {
            rc |= add_notice(d, id, v);
        }
    }
    return rc == 0 ? 0 : map_json_no_memory(doc->err);
}

static int
parse_ping(const struct map_json_cursor *doc, struct map_ping *p)
{
    struct map_json_cursor m = map_json_member(doc, "PingRequest"), url, types,
                           ip, payload, noise;

    if (m.json == NULL) {
        return 0;
    }
    if (map_json_object(&m) != 0) {
        return -1;
    }
    url = map_json_member(&m, "URL");
    types = map_json_member(&m, "Types");
    ip = map_json_member(&m, "IP");
    payload = map_json_member(&m, "Payload");
    noise = map_json_member(&m, "URLIsNoise");
    return map_json_bool(&noise, &p->noise) != 0 ||
                   map_json_string(&types, &p->types) != 0 ||
                   map_json_string(&ip, &p->ip) != 0 ||
                   map_json_string(&payload, &p->payload) != 0 ||
                   map_json_string(&url, &p->url) != 0
               ? -1
               : 0;
}

/* It is no more than advice: what of it is of no use is left out. */
static void
parse_plan(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor m = map_json_member(doc, "ControlDialPlan");
    json_t *list = json_object_get(m.json, "Candidates"), *row;
    json_int_t priority[MAP_PLAN_MAX];
    struct map_plan *p = &d->plan;
    struct tn_addr a;
    const char *text;
    json_int_t is;
    size_t i, at;

    d->has_plan = json_is_object(m.json);
    json_array_foreach(list, i, row)
    {
        text = json_string_value(json_object_get(row, "IP"));
        if (text == NULL || tn_addr_parse(&a, text, strlen(text)) != 0)
            continue;
        is = json_integer_value(json_object_get(row, "Priority"));
        for (at = p->n; at > 0 && priority[at - 1] < is; at--)
            ;
        if (at == MAP_PLAN_MAX)
            continue;
        if (p->n < MAP_PLAN_MAX)
            p->n++;
        memmove(&priority[at + 1], &priority[at],
            (p->n - at - 1) * sizeof(*priority));
        memmove(&p->addrs[at + 1], &p->addrs[at],
            (p->n - at - 1) * sizeof(*p->addrs));
        priority[at] = is;
        p->addrs[at] = a;
    }
}

static int
parse_debug(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor m = map_json_member(doc, "Debug");
    double v = json_number_value(json_object_get(m.json, "SleepSeconds"));

    d->sleep = v <= 0 ? 0 : v > SLEEP_MAX ? SLEEP_MAX : (unsigned)v;
    return 0;
}

static int
parse_lock(const struct map_json_cursor *doc, struct map_delta *d)
{
    struct map_json_cursor m = map_json_member(doc, "TKAInfo");
    const char *head = json_string_value(json_object_get(m.json, "Head"));

    d->locked = head != NULL && head[0] != '\0';
    return 0;
}

static int
parse(const struct map_json_cursor *doc, const struct netmap_derp *derp,
    struct map_delta *d)
{
    struct map_json_cursor keepalive = map_json_member(doc, "KeepAlive"),
                           domain = map_json_member(doc, "Domain"),
                           time = map_json_member(doc, "ControlTime"),
                           pop = map_json_member(doc, "PopBrowserURL"),
                           self = map_json_member(doc, "Node"),
                           relays = map_json_member(doc, "DERPMap");

    if (map_json_object(doc) != 0 ||
        map_json_bool(&keepalive, &d->keepalive) != 0 ||
        map_json_time(&time, &d->control_time) != 0 ||
        map_json_string(&pop, &d->pop_url) != 0 ||
        map_json_string(&domain, &d->domain) != 0 ||
        parse_ping(doc, &d->ping) != 0) {
        return -1;
    }
    parse_plan(doc, d);
    if (d->keepalive) {
        return 0;
    }
    d->has_self = self.json != NULL;
    if ((d->has_self && map_json_node(&self, false, &d->self) != 0) ||
        (relays.json != NULL && map_json_derp(&relays, derp, &d->derp) != 0)) {
        return -1;
    }
    /* A server leaves out what is false; a netmap file what is usual. */
    d->self.authorized = json_is_true(
        json_object_get(self.json, "MachineAuthorized"));
    return parse_peers(doc, d) != 0 || parse_users(doc, d) != 0 ||
                   parse_filter(doc, d) != 0 || parse_notices(doc, d) != 0 ||
                   parse_debug(doc, d) != 0 || parse_lock(doc, d) != 0
               ? -1
               : 0;
}

int
map_json_delta(const char *text, size_t len, const struct netmap_derp *derp,
    struct map_delta *d, struct map_json_error *err)
{
    struct map_json_cursor doc = {.err = err};
    json_t *root = map_json_load(text, len, err);
    int rc;

    memset(d, 0, sizeof(*d));
    if (root == NULL) {
        return -1;
    }
    doc.json = root;
    rc = parse(&doc, derp, d);
    json_decref(root);
    if (rc != 0) {
        map_delta_clear(d);
    }
    return rc;
}

void
map_delta_clear_notice(struct map_notice *n)
{
    free(n->id);
    free(n->title);
    free(n->text);
    free(n->url);
    memset(n, 0, sizeof(*n));
}

void
map_delta_clear(struct map_delta *d)
{
    size_t i;

    netmap_node_clear(&d->self);
    for (i = 0; i < d->nnodes; i++) {
        netmap_node_clear(&d->nodes[i]);
    }
    for (i = 0; i < d->npatches; i++) {
        netmap_node_clear(&d->patches[i].to);
    }
    for (i = 0; i < d->nusers; i++) {
        netmap_user_clear(&d->users[i]);
    }
    for (i = 0; i < d->nchunks; i++) {
        free(d->chunks[i].name);
        netmap_rules_free(d->chunks[i].rules, d->chunks[i].nrules);
    }
    for (i = 0; i < d->nnotices; i++) {
        map_delta_clear_notice(&d->notices[i]);
    }
    netmap_derp_free(d->derp);
    free(d->nodes);
    free(d->removed);
    free(d->patches);
    free(d->users);
    free(d->domain);
    free(d->chunks);
    free(d->notices);
    free(d->pop_url);
    free(d->ping.url);
    free(d->ping.types);
    free(d->ping.ip);
    free(d->ping.payload);
    memset(d, 0, sizeof(*d));
}

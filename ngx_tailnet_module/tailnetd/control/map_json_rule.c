/*
 * map_json_rule.c: filter rules, their chunks, and when a filter is void.
 *
 * A void filter has rules (has_rules) but none of them: everything is dropped.
 * That is the answer to forms of before 2021 (SrcBits, Bits), which would mean
 * something else to those who do not know them, and to a filter that lets
 * unsigned peers in.
 */
#include <stdlib.h>
#include <string.h>

#include "../engine/span.h"
#include "map_json_grant.h"
#include "map_json_rule.h"

#define MAX_LIST NETMAP_MAX_RULE_LIST, "NETMAP_MAX_RULE_LIST"

/* A named part of the filter. */
struct chunk {
    struct map_json_cursor c;
    const char *name;
    size_t n;
};

/* ---- addresses ---- */

/* ADDRESS, PREFIX, FIRST-LAST or "*"; 0, or -1. */
static int
parse_range(struct netmap_ip_range *r, const char *s, size_t len)
{
    const char *dash = memchr(s, '-', len);
    struct tn_prefix p;
    size_t i;

    if (len == 1 && s[0] == '*') {
        r->any = true;
        return 0;
    }
    if (dash != NULL) {
        return tn_addr_parse(&r->first, s, (size_t)(dash - s)) != 0 ||
                       tn_addr_parse(&r->last, dash + 1,
                           len - (size_t)(dash - s) - 1) != 0 ||
                       tn_addr_is4(&r->first) != tn_addr_is4(&r->last) ||
                       memcmp(&r->first, &r->last, sizeof(r->first)) > 0
                   ? -1
                   : 0;
    }
    if (tn_prefix_parse(&p, s, len) != 0) {
        return -1;
    }
    r->first = r->last = p.addr;
    for (i = p.bits; i < 128; i++) {
        r->last.b[i / 8] |= (uint8_t)(0x80u >> i % 8);
    }
    return 0;
}

static int
add_source(const struct map_json_cursor *e, struct netmap_rule *rule)
{
    char shown[MAP_JSON_SHOWN], *cap;
    const char *s = "";
    size_t len = 0;

    if (map_json_text(e, &s, &len) != 0) {
        return -1;
    }
    if (len > 4 && memcmp(s, "cap:", 4) == 0) {
        cap = map_json_copy(s + 4, len - 4);
        if (cap == NULL) {
            return map_json_no_memory(e->err);
        }
        rule->src_caps[rule->nsrc_caps++] = cap;
        return 0;
    }
    if (parse_range(&rule->srcs[rule->nsrcs], s, len) != 0) {
        map_json_warn(
            e, "%s is no source: left out", map_json_show(shown, s, len));
        return 0;
    }
    rule->nsrcs++;
    return 0;
}

static int
parse_sources(const struct map_json_cursor *c, struct netmap_rule *rule)
{
    struct map_json_cursor m = map_json_member(c, "SrcIPs"), e;
    const char *s;
    size_t i, n, ncaps = 0;

    if (map_json_list(&m, MAX_LIST, &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    for (i = 0; i < n; i++) {
        s = json_string_value(json_array_get(m.json, i));
        ncaps += s != NULL && strncmp(s, "cap:", 4) == 0;
    }
    rule->srcs = calloc(n, sizeof(rule->srcs[0]));
    if (rule->srcs == NULL) {
        return map_json_no_memory(c->err);
    }
    if (ncaps > 0) {
        rule->src_caps = calloc(ncaps, sizeof(rule->src_caps[0]));
        if (rule->src_caps == NULL) {
            return map_json_no_memory(c->err);
        }
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        if (add_source(&e, rule) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
parse_port(const struct map_json_cursor *ports, const char *name, uint16_t *out)
{
    struct map_json_cursor m = map_json_member(ports, name);
    int64_t port = 0;

    if (map_json_int(&m, &port) != 0) {
        return -1;
    }
    if (port < 0 || port > UINT16_MAX) {
        return map_json_fail(&m, "a port from 0 to 65535 expected");
    }
    *out = (uint16_t)port;
    return 0;
}

/* One of DstPorts; ${*old} is set for a form that voids the filter. */
static int
add_destination(
    const struct map_json_cursor *e, struct netmap_rule *rule, bool *old)
{
    struct map_json_cursor ip = map_json_member(e, "IP"),
                           ports = map_json_member(e, "Ports"),
                           bits = map_json_member(e, "Bits");
    struct netmap_dst *dst = &rule->dsts[rule->ndsts];
    char shown[MAP_JSON_SHOWN];
    const char *s = "";
    size_t len = 0;

    if (e->json == NULL || map_json_object(e) != 0) {
        return map_json_fail(e, "an object expected");
    }
    if (bits.json != NULL) {
        map_json_warn(&bits, "a form of before 2021: the filter drops all");
        *old = true;
    }
    if (map_json_text(&ip, &s, &len) != 0 || map_json_object(&ports) != 0 ||
        parse_port(&ports, "First", &dst->first) != 0 ||
        parse_port(&ports, "Last", &dst->last) != 0) {
        return -1;
    }
    if (parse_range(&dst->ip, s, len) != 0) {
        map_json_warn(&ip, "%s is no destination: left out",
            map_json_show(shown, s, len));
        return 0;
    }
    if (dst->first > dst->last) {
        map_json_warn(&ports, "First is above Last: left out");
        return 0;
    }
    rule->ndsts++;
    return 0;
}

static int
parse_destinations(
    const struct map_json_cursor *c, struct netmap_rule *rule, bool *old)
{
    struct map_json_cursor m = map_json_member(c, "DstPorts"), e;
    size_t i, n;

    if (map_json_list(&m, MAX_LIST, &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    rule->dsts = calloc(n, sizeof(rule->dsts[0]));
    if (rule->dsts == NULL) {
        return map_json_no_memory(c->err);
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        if (add_destination(&e, rule, old) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
parse_protos(const struct map_json_cursor *c, struct netmap_rule *rule)
{
    struct map_json_cursor m = map_json_member(c, "IPProto"), e;
    int64_t proto;
    size_t i, n;

    if (map_json_list(&m, MAX_LIST, &n) != 0) {
        return -1;
    }
    rule->proto_default = n == 0;
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        proto = 0;
        if (map_json_int(&e, &proto) != 0) {
            return -1;
        }
        if (proto < 0 || proto > 255) {
            map_json_warn(
                &e, "%lld is no IP protocol: left out", (long long)proto);
            continue;
        }
        rule->protos[proto / 8] |= (uint8_t)(1u << proto % 8);
    }
    return 0;
}

/* ---- rules and chunks ---- */

static int
parse_rule(const struct map_json_cursor *c, struct netmap_rule *rule, bool *old)
{
    struct map_json_cursor bits = map_json_member(c, "SrcBits");
    size_t n;

    if (c->json == NULL || map_json_object(c) != 0) {
        return map_json_fail(c, "an object expected");
    }
    if (map_json_list(&bits, MAX_LIST, &n) != 0) {
        return -1;
    }
    if (n > 0) {
        map_json_warn(&bits, "a form of before 2021: the filter drops all");
        *old = true;
    }
    return parse_sources(c, rule) != 0 ||
                   parse_destinations(c, rule, old) != 0 ||
                   parse_protos(c, rule) != 0 || map_json_grants(c, rule) != 0
               ? -1
               : 0;
}

static int
by_name(const void *a, const void *b)
{
    const struct chunk *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/*
 * The chunks that are left in the end, in order, in ${*list} for free(3).
 * PacketFilter comes first: a "base" or "*" of PacketFilters undoes it.
 */
static int
collect_chunks(const struct map_json_cursor *one,
    const struct map_json_cursor *many, struct chunk **list, size_t *n)
{
    const json_t *all = json_object_get(many->json, "*");
    struct chunk *chunks;
    const char *name;
    json_t *value;

    *n = 0;
    chunks = calloc(json_object_size(many->json) + 1, sizeof(chunks[0]));
    if (chunks == NULL) {
        return map_json_no_memory(one->err);
    }
    if (one->json != NULL && !json_is_null(all) &&
        json_object_get(many->json, "base") == NULL) {
        chunks[(*n)++] = (struct chunk){*one, "base", 0};
    }
    json_object_foreach((json_t *)many->json, name, value)
    {
        if (!json_is_null(value) && strcmp(name, "*") != 0) {
            chunks[(*n)++] = (struct chunk){
                map_json_member(many, name), name, 0};
        }
    }
    if (*n > 1) {
        qsort(chunks, *n, sizeof(chunks[0]), by_name);
    }
    *list = chunks;
    return 0;
}

static int
parse_chunk(const struct chunk *chunk, struct netmap *nm, bool *old)
{
    struct map_json_cursor e;
    size_t i;

    for (i = 0; i < chunk->n; i++) {
        e = map_json_element(&chunk->c, i);
        nm->nrules++;
        if (parse_rule(&e, &nm->rules[nm->nrules - 1], old) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
parse_chunks(struct chunk *chunks, size_t n, struct netmap *nm, bool *old)
{
    size_t i, total = 0;

    for (i = 0; i < n; i++) {
        if (map_json_list(&chunks[i].c, NETMAP_MAX_RULES, "NETMAP_MAX_RULES",
                &chunks[i].n) != 0) {
            return -1;
        }
        total += chunks[i].n;
        if (total > NETMAP_MAX_RULES) {
            return map_json_fail(&chunks[i].c,
                "%zu rules with the chunks before, more than "
                "NETMAP_MAX_RULES (%d)",
                total, NETMAP_MAX_RULES);
        }
    }
    if (total == 0) {
        return 0;
    }
    nm->rules = calloc(total, sizeof(nm->rules[0]));
    if (nm->rules == NULL) {
        return map_json_no_memory(chunks[0].c.err);
    }
    for (i = 0; i < n; i++) {
        if (parse_chunk(&chunks[i], nm, old) != 0) {
            return -1;
        }
    }
    return 0;
}

int
map_json_chunk(const struct map_json_cursor *c, struct netmap_rule **rules,
    unsigned *n, bool *old)
{
    struct chunk chunk = {*c, c->at.name, 0};
    struct netmap nm = {.nrules = 0};
    int rc = parse_chunks(&chunk, 1, &nm, old);

    *rules = nm.rules;
    *n = nm.nrules;
    return rc;
}

/* ---- unsigned peers ---- */

/* Whether a rule that opens something lets ${unsigned_peers} in. */
static bool
lets_in(const struct netmap_rule *rule, const struct span_set *unsigned_peers)
{
    const struct netmap_ip_range *r;
    unsigned i;

    if (rule->ndsts == 0) {
        return false;
    }
    for (i = 0; i < rule->nsrcs; i++) {
        r = &rule->srcs[i];
        if (r->any || span_overlaps(&unsigned_peers[tn_addr_is4(&r->first)],
                          span_key(&r->first), span_key(&r->last))) {
            return true;
        }
    }
    return false;
}

/* The addresses of unsigned peers: [0] IPv6, [1] IPv4; built. */
static int
collect_unsigned(const struct netmap *nm, struct span_set *sets)
{
    const struct netmap_node *peer;
    struct span_key first, last;
    unsigned i, j;

    for (i = 0; i < nm->npeers; i++) {
        peer = &nm->peers[i];
        for (j = 0; peer->unsigned_peerapi_only && j < peer->naddresses; j++) {
            span_of_prefix(&peer->addresses[j], &first, &last);
            if (span_add(&sets[tn_addr_is4(&peer->addresses[j].addr)], first,
                    last, 0) != 0) {
                return -1;
            }
        }
    }
    span_build(&sets[0]);
    span_build(&sets[1]);
    return 0;
}

int
map_json_unsigned(const struct netmap *nm, unsigned *hit)
{
    struct span_set sets[2] = {{0}, {0}};
    int rc = collect_unsigned(nm, sets);

    *hit = nm->nrules;
    if (rc == 0 && (sets[0].n > 0 || sets[1].n > 0)) {
        for (*hit = 0; *hit < nm->nrules; ++*hit) {
            if (lets_in(&nm->rules[*hit], sets)) {
                break;
            }
        }
    }
    span_clear(&sets[0]);
    span_clear(&sets[1]);
    return rc;
}

int
map_json_rules(const struct map_json_cursor *doc, struct netmap *nm)
{
    struct map_json_cursor one = map_json_member(doc, "PacketFilter"),
                           many = map_json_member(doc, "PacketFilters");
    struct chunk *chunks = NULL;
    unsigned hit;
    bool old = false;
    size_t n;
    int rc;

    nm->has_rules = one.json != NULL || many.json != NULL;
    if (map_json_object(&many) != 0 ||
        collect_chunks(&one, &many, &chunks, &n) != 0) {
        return -1;
    }
    rc = parse_chunks(chunks, n, nm, &old);
    free(chunks);
    if (rc != 0) {
        return -1;
    }
    if (map_json_unsigned(nm, &hit) != 0) {
        return map_json_no_memory(doc->err);
    }
    if (hit < nm->nrules) {
        map_json_warn(one.json != NULL ? &one : &many,
            "rule %u lets peers without a signature in: the filter drops all",
            hit);
    }
    if (old || hit < nm->nrules) {
        netmap_drop_rules(nm);
    }
    return 0;
}

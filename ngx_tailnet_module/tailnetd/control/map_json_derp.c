#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "map_json_derp.h"

#define DERP_PORT 443
#define STUN_PORT 3478

/* ---- one relay ---- */

/* 0 or absent: ${normal}; -1, where allowed: none, 0. */
static int
parse_port(const struct map_json_cursor *c, const char *name, uint16_t normal,
    bool may_lack, uint16_t *port)
{
    struct map_json_cursor m = map_json_member(c, name);
    int64_t v = 0;

    if (map_json_int(&m, &v) != 0) {
        return -1;
    }
    if (v > 65535 || v < (may_lack ? -1 : 0)) {
        return map_json_fail(&m, "a port expected");
    }
    *port = v == 0 ? normal : v < 0 ? 0 : (uint16_t)v;
    return 0;
}

/* What goes into a request's head: printable, without blanks. */
static int
parse_word(const struct map_json_cursor *m, char **out)
{
    const char *s;

    if (map_json_string(m, out) != 0) {
        return -1;
    }
    for (s = *out; *s > ' ' && *s < 0x7f; s++)
        ;
    return *s == '\0' ? 0
                      : map_json_fail(
                            m, "printable characters without blanks expected");
}

static int
parse_relay(const struct map_json_cursor *c, struct netmap_relay *r)
{
    struct map_json_cursor name = map_json_member(c, "Name"),
                           host = map_json_member(c, "HostName"),
                           cert = map_json_member(c, "CertName"),
                           ipv4 = map_json_member(c, "IPv4"),
                           ipv6 = map_json_member(c, "IPv6"),
                           test = map_json_member(c, "STUNTestIP"),
                           only = map_json_member(c, "STUNOnly"),
                           insecure = map_json_member(c, "InsecureForTests"),
                           port80 = map_json_member(c, "CanPort80");

    if (c->json == NULL || map_json_object(c) != 0) {
        return map_json_fail(c, "an object expected");
    }
    return parse_word(&name, &r->name) != 0 ||
                   parse_word(&host, &r->host) != 0 ||
                   map_json_string(&cert, &r->cert_name) != 0 ||
                   map_json_string(&ipv4, &r->ipv4) != 0 ||
                   map_json_string(&ipv6, &r->ipv6) != 0 ||
                   map_json_string(&test, &r->stun_test_ip) != 0 ||
                   map_json_bool(&only, &r->stun_only) != 0 ||
                   map_json_bool(&insecure, &r->insecure_for_tests) != 0 ||
                   map_json_bool(&port80, &r->can_port80) != 0 ||
                   parse_port(c, "DERPPort", DERP_PORT, false, &r->derp_port) !=
                       0 ||
                   parse_port(c, "STUNPort", STUN_PORT, true, &r->stun_port) !=
                       0
               ? -1
               : 0;
}

/* ---- one region ---- */

static int
parse_region(const struct map_json_cursor *c, struct netmap_region *r)
{
    struct map_json_cursor id = map_json_member(c, "RegionID"),
                           code = map_json_member(c, "RegionCode"),
                           name = map_json_member(c, "RegionName"),
                           avoid = map_json_member(c, "Avoid"),
                           quiet = map_json_member(c, "NoMeasureNoHome"),
                           nodes = map_json_member(c, "Nodes"), e;
    int64_t v = 0;
    size_t i, n;

    r->score = 1;
    if (map_json_object(c) != 0 || map_json_int(&id, &v) != 0) {
        return -1;
    }
    if (v < 1 || v > NETMAP_MAX_REGION) {
        return map_json_fail(
            &id, "a number from 1 to %d expected", NETMAP_MAX_REGION);
    }
    r->id = (uint16_t)v;
    if (map_json_string(&code, &r->code) != 0 ||
        map_json_string(&name, &r->name) != 0 ||
        map_json_bool(&avoid, &r->avoid) != 0 ||
        map_json_bool(&quiet, &r->no_measure_home) != 0 ||
        map_json_list(&nodes, NETMAP_MAX_RELAYS, "NETMAP_MAX_RELAYS", &n) !=
            0) {
        return -1;
    }
    r->relays = calloc(n + 1, sizeof(r->relays[0]));
    if (r->relays == NULL) {
        return map_json_no_memory(c->err);
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(&nodes, i);
        r->nrelays++;
        if (parse_relay(&e, &r->relays[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
by_id(const void *a, const void *b)
{
    const struct netmap_region *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static int
parse_regions(const struct map_json_cursor *map, struct netmap_derp *d)
{
    struct map_json_cursor e;
    const char *name;
    json_t *value;
    unsigned i;

    if (map_json_object(map) != 0) {
        return -1;
    }
    if (json_object_size(map->json) > NETMAP_MAX_REGIONS) {
        return map_json_fail(map,
            "%zu regions, more than NETMAP_MAX_REGIONS (%d)",
            json_object_size(map->json), NETMAP_MAX_REGIONS);
    }
    d->regions = calloc(json_object_size(map->json) + 1, sizeof(d->regions[0]));
    if (d->regions == NULL) {
        return map_json_no_memory(map->err);
    }
    json_object_foreach((json_t *)map->json, name, value)
    {
        e = map_json_member(map, name);
        if (e.json == NULL) {
            continue;
        }
        d->nregions++;
        if (parse_region(&e, &d->regions[d->nregions - 1]) != 0) {
            return -1;
        }
    }
    qsort(d->regions, d->nregions, sizeof(d->regions[0]), by_id);
    for (i = 1; i < d->nregions; i++) {
        if (d->regions[i - 1].id == d->regions[i].id) {
            return map_json_fail(
                map, "region %u is there twice", d->regions[i].id);
        }
    }
    return 0;
}

/* ---- copies ---- */

static char *
copy_text(const char *s)
{
    return map_json_copy(s, strlen(s));
}

static int
copy_relay(struct netmap_relay *to, const struct netmap_relay *from)
{
    *to = *from;
    to->name = copy_text(from->name);
    to->host = copy_text(from->host);
    to->cert_name = copy_text(from->cert_name);
    to->ipv4 = copy_text(from->ipv4);
    to->ipv6 = copy_text(from->ipv6);
    to->stun_test_ip = copy_text(from->stun_test_ip);
    return to->name == NULL || to->host == NULL || to->cert_name == NULL ||
                   to->ipv4 == NULL || to->ipv6 == NULL ||
                   to->stun_test_ip == NULL
               ? -1
               : 0;
}

static int
copy_region(struct netmap_region *to, const struct netmap_region *from)
{
    *to = *from;
    to->nrelays = 0;
    to->code = copy_text(from->code);
    to->name = copy_text(from->name);
    to->relays = calloc(from->nrelays + 1, sizeof(to->relays[0]));
    if (to->code == NULL || to->name == NULL || to->relays == NULL) {
        return -1;
    }
    while (to->nrelays < from->nrelays) {
        to->nrelays++;
        if (copy_relay(&to->relays[to->nrelays - 1],
                &from->relays[to->nrelays - 1]) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
copy_regions(struct netmap_derp *to, const struct netmap_derp *from)
{
    to->regions = calloc(from->nregions + 1, sizeof(to->regions[0]));
    if (to->regions == NULL) {
        return -1;
    }
    while (to->nregions < from->nregions) {
        to->nregions++;
        if (copy_region(&to->regions[to->nregions - 1],
                &from->regions[to->nregions - 1]) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- scores ---- */

static int
parse_scores(const struct map_json_cursor *c, const struct netmap_derp *before,
    struct netmap_derp *d)
{
    struct map_json_cursor params = map_json_member(c, "HomeParams"), scores;
    const struct netmap_region *old;
    struct netmap_region *r;
    const json_t *v;
    char id[16];
    unsigned i;

    if (map_json_object(&params) != 0) {
        return -1;
    }
    scores = map_json_member(&params, "RegionScore");
    if (map_json_object(&scores) != 0) {
        return -1;
    }
    for (i = 0; i < d->nregions; i++) {
        r = &d->regions[i];
        old = netmap_region(before, r->id);
        if (scores.json == NULL) {
            r->score = old != NULL ? old->score : 1;
            continue;
        }
        snprintf(id, sizeof(id), "%u", r->id);
        v = json_object_get(scores.json, id);
        r->score = json_is_number(v) && json_number_value(v) > 0
                       ? json_number_value(v)
                       : 1;
    }
    return 0;
}

int
map_json_derp(const struct map_json_cursor *c, const struct netmap_derp *before,
    struct netmap_derp **out)
{
    struct map_json_cursor regions;
    struct netmap_derp *d;
    int rc;

    if (map_json_object(c) != 0) {
        return -1;
    }
    regions = map_json_member(c, "Regions");
    d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return map_json_no_memory(c->err);
    }
    if (regions.json != NULL) {
        rc = parse_regions(&regions, d);
    } else if (before != NULL && copy_regions(d, before) != 0) {
        rc = map_json_no_memory(c->err);
    } else {
        rc = 0;
    }
    if (rc != 0 || parse_scores(c, before, d) != 0) {
        netmap_derp_free(d);
        return -1;
    }
    *out = d;
    return 0;
}

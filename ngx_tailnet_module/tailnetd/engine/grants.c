/*
 * grants.c: capability grants by source address.
 *
 * One span set per family maps a source to the rules that grant something to
 * it.  Values are JSON lists as text and are joined as text: "[1]" and "[2,3]"
 * make "[1,2,3]".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grants.h"
#include "span.h"

struct grants {
    const struct netmap *nm;
    struct span_set srcs4; /* values index nm->rules */
    struct span_set srcs6;
    struct span_set unsigned4; /* addresses of unsigned peers */
    struct span_set unsigned6;
};

/* A granted capability, before they are joined by name. */
struct item {
    const char *name;
    const char *value; /* JSON list text, or "" */
    uint32_t order;
};

struct items {
    struct item *list;
    size_t n;
    size_t room;
};

struct rule_list {
    uint32_t *list;
    size_t n;
    size_t room;
    bool failed;
};

struct text {
    char *s;
    size_t n;
    size_t room;
    bool failed;
};

static int
add_any(struct grants *g, uint32_t rule)
{
    static const struct tn_prefix all4 = {
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96};
    static const struct tn_prefix all6 = {{{0}}, 0};
    struct span_key first, last;

    span_of_prefix(&all4, &first, &last);
    if (span_add(&g->srcs4, first, last, rule) != 0) {
        return -1;
    }
    span_of_prefix(&all6, &first, &last);
    return span_add(&g->srcs6, first, last, rule);
}

static int
add_rule(struct grants *g, uint32_t n)
{
    const struct netmap_rule *rule = &g->nm->rules[n];
    size_t start4 = g->srcs4.n, start6 = g->srcs6.n;
    const struct netmap_ip_range *r;
    unsigned i;
    int rc;

    if (rule->ngrants == 0) {
        return 0;
    }
    for (i = 0; i < rule->nsrcs; i++) {
        r = &rule->srcs[i];
        if (r->any) {
            rc = add_any(g, n);
        } else {
            rc = span_add(tn_addr_is4(&r->first) ? &g->srcs4 : &g->srcs6,
                span_key(&r->first), span_key(&r->last), n);
        }
        if (rc != 0) {
            return -1;
        }
    }
    span_merge(&g->srcs4, start4);
    span_merge(&g->srcs6, start6);
    return 0;
}

static int
add_unsigned(struct grants *g, const struct netmap_node *peer)
{
    struct span_key first, last;
    const struct tn_prefix *p;
    unsigned i;

    for (i = 0; i < peer->naddresses; i++) {
        p = &peer->addresses[i];
        span_of_prefix(p, &first, &last);
        if (span_add(tn_addr_is4(&p->addr) ? &g->unsigned4 : &g->unsigned6,
                first, last, 0) != 0) {
            return -1;
        }
    }
    return 0;
}

struct grants *
grants_new(const struct netmap *nm)
{
    struct grants *g;
    unsigned i;
    int rc = 0;

    g = calloc(1, sizeof(*g));
    if (g == NULL) {
        return NULL;
    }
    g->nm = nm;
    for (i = 0; i < nm->nrules && rc == 0; i++) {
        rc = add_rule(g, i);
    }
    for (i = 0; i < nm->npeers && rc == 0; i++) {
        if (nm->peers[i].unsigned_peerapi_only) {
            rc = add_unsigned(g, &nm->peers[i]);
        }
    }
    if (rc != 0) {
        grants_free(g);
        return NULL;
    }
    span_build(&g->srcs4);
    span_build(&g->srcs6);
    span_build(&g->unsigned4);
    span_build(&g->unsigned6);
    return g;
}

void
grants_free(struct grants *g)
{
    if (g == NULL) {
        return;
    }
    span_clear(&g->srcs4);
    span_clear(&g->srcs6);
    span_clear(&g->unsigned4);
    span_clear(&g->unsigned6);
    free(g);
}

bool
grants_outlive_peers(const struct grants *g)
{
    return g->unsigned4.n == 0 && g->unsigned6.n == 0;
}

/* ---- the rules of one source ---- */

static bool
collect_rule(void *ctx, uint32_t rule)
{
    struct rule_list *r = ctx;
    uint32_t *list;
    size_t room;

    if (r->n == r->room) {
        room = r->room == 0 ? 16 : r->room * 2;
        list = realloc(r->list, room * sizeof(list[0]));
        if (list == NULL) {
            r->failed = true;
            return true;
        }
        r->list = list;
        r->room = room;
    }
    r->list[r->n++] = rule;
    return false;
}

static int
by_number(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* ---- what they grant ---- */

static int
add_item(struct items *items, const char *name, const char *value)
{
    struct item *list;
    size_t room;

    if (items->n == items->room) {
        room = items->room == 0 ? 16 : items->room * 2;
        list = realloc(items->list, room * sizeof(list[0]));
        if (list == NULL) {
            return -1;
        }
        items->list = list;
        items->room = room;
    }
    items->list[items->n] = (struct item){name, value, (uint32_t)items->n};
    items->n++;
    return 0;
}

static int
add_grant(struct items *items, const struct netmap_cap_grant *grant,
    const struct tn_addr *dst, bool ingress_only)
{
    unsigned i;

    for (i = 0; i < grant->ndsts; i++) {
        if (tn_prefix_contains(&grant->dsts[i], dst)) {
            break;
        }
    }
    if (i == grant->ndsts) {
        return 0;
    }
    for (i = 0; i < grant->ncaps; i++) {
        if (ingress_only && strcmp(grant->names[i], GRANTS_INGRESS) != 0) {
            continue;
        }
        if (add_item(items, grant->names[i], grant->values[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
by_name(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order != 0 ? order : (x->order > y->order) - (x->order < y->order);
}

/* ---- as text ---- */

static void
put(struct text *t, const char *s, size_t len)
{
    char *more;
    size_t room;

    if (t->failed) {
        return;
    }
    if (t->room - t->n <= len) {
        room = (t->n + len + 1) * 2;
        more = realloc(t->s, room);
        if (more == NULL) {
            t->failed = true;
            return;
        }
        t->s = more;
        t->room = room;
    }
    memcpy(t->s + t->n, s, len);
    t->n += len;
    t->s[t->n] = '\0';
}

/* A JSON string (RFC 8259 section 7); ${s} is UTF-8. */
static void
put_string(struct text *t, const char *s)
{
    char code[8];
    int n;

    put(t, "\"", 1);
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\') {
            put(t, "\\", 1);
            put(t, s, 1);
        } else if ((unsigned char)*s < 0x20) {
            n = snprintf(code, sizeof(code), "\\u%04x", (unsigned char)*s);
            put(t, code, (size_t)n);
        } else {
            put(t, s, 1);
        }
    }
    put(t, "\"", 1);
}

/* The lists of items [from, to), which have one name, as one list. */
static void
put_values(struct text *t, const struct item *from, const struct item *to)
{
    bool list = false, filled = false; /* "[]" at least; "[..." is begun */
    const char *value;
    size_t len;

    for (; from < to; from++) {
        value = from->value;
        len = strlen(value);
        if (len < 2) {
            continue; /* a bare name */
        }
        list = true;
        if (len == 2) {
            continue;
        }
        put(t, filled ? "," : "[", 1);
        put(t, value + 1, len - 2);
        filled = true;
    }
    if (filled) {
        put(t, "]", 1);
    } else if (list) {
        put(t, "[]", 2);
    } else {
        put(t, "null", 4);
    }
}

static void
put_object(struct text *t, const struct items *items)
{
    const struct item *list = items->list;
    size_t from, to;

    put(t, "{", 1);
    for (from = 0; from < items->n; from = to) {
        to = from + 1;
        while (to < items->n && strcmp(list[to].name, list[from].name) == 0) {
            to++;
        }
        if (from != 0) {
            put(t, ",", 1);
        }
        put_string(t, list[from].name);
        put(t, ":", 1);
        put_values(t, list + from, list + to);
    }
    put(t, "}", 1);
}

int
grants_query(const struct grants *g, const struct tn_addr *src,
    const struct tn_addr *dst, char **json)
{
    bool is4 = tn_addr_is4(src), ingress_only;
    struct span_key key = span_key(src);
    const struct netmap_rule *rule;
    struct rule_list rules = {0};
    struct items items = {0};
    struct text t = {0};
    size_t i;
    unsigned j;
    int rc = 0;

    span_find(is4 ? &g->srcs4 : &g->srcs6, key, collect_rule, &rules);
    if (rules.n > 1) {
        qsort(rules.list, rules.n, sizeof(rules.list[0]), by_number);
    }
    ingress_only = span_overlaps(is4 ? &g->unsigned4 : &g->unsigned6, key, key);
    for (i = 0; i < rules.n; i++) {
        rule = &g->nm->rules[rules.list[i]];
        for (j = 0; j < rule->ngrants && rc == 0; j++) {
            rc = add_grant(&items, &rule->grants[j], dst, ingress_only);
        }
    }
    if (items.n > 1) {
        qsort(items.list, items.n, sizeof(items.list[0]), by_name);
    }
    if (rc == 0 && !rules.failed) {
        put_object(&t, &items);
    }
    free(rules.list);
    free(items.list);
    if (rc != 0 || rules.failed || t.failed) {
        free(t.s);
        return -1;
    }
    *json = t.s;
    return 0;
}

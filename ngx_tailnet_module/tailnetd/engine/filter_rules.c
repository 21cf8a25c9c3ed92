/*
 * filter_rules.c: compiling rules and asking them (theory in the header).
 */
#include <stdlib.h>
#include <string.h>

#include "filter_packet.h"
#include "filter_rules.h"

struct ports {
    uint16_t first;
    uint16_t last;
};

/* A range of local destinations of one rule, and its ports. */
struct target {
    uint32_t at; /* index of its first range in rule.ports */
    uint32_t n;
    bool all; /* one entry said 0-65535 */
};

struct rule {
    uint8_t protos[32];
    struct span_set dsts; /* values index targets */
    struct target *targets;
    struct ports *ports;
};

/* An address of a peer that has a capability which some rule wants. */
struct holder {
    struct span_key addr;
    uint32_t cap;
};

/* Rules that a capability opens: indices at[..at + n) of cap_rules. */
struct cap {
    const char *name; /* the netmap's, while compiling */
    uint32_t at;
    uint32_t n;
};

struct filter_rules {
    struct rule *rules;
    uint32_t nrules;
    struct span_set srcs; /* values index rules */
    struct cap *caps;     /* sorted by name */
    uint32_t ncaps;
    uint32_t *cap_rules;
    struct holder *holders; /* sorted by address */
    size_t nholders;
};

/* One destination while compiling: a local range and one port range. */
struct piece {
    struct span_key first;
    struct span_key last;
    struct ports ports;
};

struct pieces {
    struct piece *list;
    size_t n;
    size_t room;
};

/* Compile time: a rule's "cap:" source. */
struct want {
    const char *name;
    uint32_t rule;
};

struct wants {
    struct want *list;
    size_t n;
    size_t room;
};

/* ---- compiling ---- */

/* The keys of ${r} in the family; false: it has none there. */
static bool
range_keys(const struct netmap_ip_range *r, bool is4, struct span_key *first,
    struct span_key *last)
{
    static const struct tn_prefix all4 = {
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96};
    static const struct tn_prefix all6 = {{{0}}, 0};

    if (r->any) {
        span_of_prefix(is4 ? &all4 : &all6, first, last);
        return true;
    }
    if (tn_addr_is4(&r->first) != is4) {
        return false;
    }
    *first = span_key(&r->first);
    *last = span_key(&r->last);
    return true;
}

static int
add_piece(struct pieces *p, struct span_key first, struct span_key last,
    struct ports ports)
{
    struct piece *list;
    size_t room;

    if (p->n == p->room) {
        room = p->room == 0 ? 16 : p->room * 2;
        list = realloc(p->list, room * sizeof(list[0]));
        if (list == NULL) {
            return -1;
        }
        p->list = list;
        p->room = room;
    }
    p->list[p->n++] = (struct piece){first, last, ports};
    return 0;
}

/* The parts of ${dst} that are local, as pieces. */
static int
cut(struct pieces *p, const struct netmap_dst *dst, bool is4,
    const struct span_set *local)
{
    struct span_key first, last, from, to;
    const struct span *s;
    size_t i;

    if (!range_keys(&dst->ip, is4, &first, &last)) {
        return 0;
    }
    for (i = 0; i < local->n; i++) {
        s = &local->list[i];
        from = span_cmp(first, s->first) > 0 ? first : s->first;
        to = span_cmp(last, s->last) < 0 ? last : s->last;
        if (span_cmp(from, to) <= 0 &&
            add_piece(p, from, to, (struct ports){dst->first, dst->last}) !=
                0) {
            return -1;
        }
    }
    return 0;
}

static int
by_place(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    int order = span_cmp(x->first, y->first);

    if (order == 0) {
        order = span_cmp(x->last, y->last);
    }
    if (order == 0) {
        order = (int)x->ports.first - (int)y->ports.first;
    }
    return order;
}

/* One more piece of a target: its ports join the last range or follow it. */
static void
join_ports(struct rule *rule, struct target *t, struct ports p)
{
    struct ports *last = t->n == 0 ? NULL : &rule->ports[t->at + t->n - 1];

    t->all = t->all || (p.first == 0 && p.last == UINT16_MAX);
    if (last == NULL || p.first > (uint32_t)last->last + 1) {
        rule->ports[t->at + t->n++] = p;
    } else if (p.last > last->last) {
        last->last = p.last;
    }
}

/* Pieces of equal addresses become one target. */
static int
make_targets(struct rule *rule, struct pieces *p)
{
    const struct piece *piece, *before = NULL;
    struct target *t = NULL;
    uint32_t ntargets = 0, nports = 0;
    size_t i;

    if (p->n == 0) {
        return 0;
    }
    qsort(p->list, p->n, sizeof(p->list[0]), by_place);
    rule->targets = calloc(p->n, sizeof(rule->targets[0]));
    rule->ports = calloc(p->n, sizeof(rule->ports[0]));
    if (rule->targets == NULL || rule->ports == NULL) {
        return -1;
    }
    for (i = 0; i < p->n; i++, before = piece) {
        piece = &p->list[i];
        if (before == NULL || span_cmp(before->first, piece->first) != 0 ||
            span_cmp(before->last, piece->last) != 0) {
            nports = t == NULL ? 0 : t->at + t->n;
            t = &rule->targets[ntargets];
            t->at = nports;
            if (span_add(&rule->dsts, piece->first, piece->last, ntargets) !=
                0) {
                return -1;
            }
            ntargets++;
        }
        join_ports(rule, t, piece->ports);
    }
    span_build(&rule->dsts);
    return 0;
}

static void
set_protos(struct rule *rule, const struct netmap_rule *from)
{
    static const uint8_t defaults[] = {FILTER_PACKET_TCP, FILTER_PACKET_UDP,
        FILTER_PACKET_ICMP, FILTER_PACKET_ICMPV6};
    size_t i;

    if (!from->proto_default) {
        memcpy(rule->protos, from->protos, sizeof(rule->protos));
        return;
    }
    for (i = 0; i < sizeof(defaults); i++) {
        rule->protos[defaults[i] / 8] |= (uint8_t)(1u << defaults[i] % 8);
    }
}

static int
add_sources(struct filter_rules *r, const struct netmap_rule *from, bool is4,
    uint32_t n)
{
    struct span_key first, last;
    size_t start = r->srcs.n;
    unsigned i;

    for (i = 0; i < from->nsrcs; i++) {
        if (range_keys(&from->srcs[i], is4, &first, &last) &&
            span_add(&r->srcs, first, last, n) != 0) {
            return -1;
        }
    }
    span_merge(&r->srcs, start);
    return 0;
}

static int
add_wants(struct wants *w, const struct netmap_rule *from, uint32_t n)
{
    struct want *list;
    size_t room;
    unsigned i;

    for (i = 0; i < from->nsrc_caps; i++) {
        if (w->n == w->room) {
            room = w->room == 0 ? 16 : w->room * 2;
            list = realloc(w->list, room * sizeof(list[0]));
            if (list == NULL) {
                return -1;
            }
            w->list = list;
            w->room = room;
        }
        w->list[w->n++] = (struct want){from->src_caps[i], n};
    }
    return 0;
}

/* Whether the rule names a destination of the family, local or not. */
static bool
has_family(const struct netmap_rule *from, bool is4)
{
    unsigned i;

    for (i = 0; i < from->ndsts; i++) {
        if (from->dsts[i].ip.any ||
            tn_addr_is4(&from->dsts[i].ip.first) == is4) {
            return true;
        }
    }
    return false;
}

/* Rules without a local destination are left out, unless they have "cap:"
 * sources: those open ICMP whatever their destination. */
static int
add_rule(struct filter_rules *r, struct wants *w,
    const struct netmap_rule *from, bool is4, const struct span_set *local)
{
    struct rule *rule = &r->rules[r->nrules];
    struct pieces p = {0};
    unsigned i;
    int rc = 0;

    if (!has_family(from, is4)) {
        return 0;
    }
    for (i = 0; i < from->ndsts && rc == 0; i++) {
        rc = cut(&p, &from->dsts[i], is4, local);
    }
    if (rc == 0 && (p.n > 0 || from->nsrc_caps > 0)) {
        r->nrules++;
        set_protos(rule, from);
        rc = make_targets(rule, &p) != 0 ||
                     add_sources(r, from, is4, r->nrules - 1) != 0 ||
                     add_wants(w, from, r->nrules - 1) != 0
                 ? -1
                 : 0;
    }
    free(p.list);
    return rc;
}

static int
by_want(const void *a, const void *b)
{
    const struct want *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order != 0 ? order : (x->rule > y->rule) - (x->rule < y->rule);
}

static int
by_cap_name(const void *key, const void *item)
{
    return strcmp(key, ((const struct cap *)item)->name);
}

/* The capabilities that rules want, each with its rules. */
static int
make_caps(struct filter_rules *r, struct wants *w)
{
    struct cap *cap = NULL;
    uint32_t i;

    if (w->n == 0) {
        return 0;
    }
    qsort(w->list, w->n, sizeof(w->list[0]), by_want);
    r->caps = calloc(w->n, sizeof(r->caps[0]));
    r->cap_rules = calloc(w->n, sizeof(r->cap_rules[0]));
    if (r->caps == NULL || r->cap_rules == NULL) {
        return -1;
    }
    for (i = 0; i < w->n; i++) {
        if (cap == NULL || strcmp(cap->name, w->list[i].name) != 0) {
            cap = &r->caps[r->ncaps++];
            cap->name = w->list[i].name;
            cap->at = i;
        }
        r->cap_rules[i] = w->list[i].rule;
        cap->n++;
    }
    return 0;
}

static int
add_holder(struct filter_rules *r, size_t *room, struct holder h)
{
    struct holder *list;
    size_t more;

    if (r->nholders == *room) {
        more = *room == 0 ? 16 : *room * 2;
        list = realloc(r->holders, more * sizeof(list[0]));
        if (list == NULL) {
            return -1;
        }
        r->holders = list;
        *room = more;
    }
    r->holders[r->nholders++] = h;
    return 0;
}

static int
add_peer(struct filter_rules *r, size_t *room, const struct netmap_node *peer,
    bool is4)
{
    const struct tn_prefix *p;
    const struct cap *cap;
    unsigned i, j;

    for (i = 0; i < peer->ncaps; i++) {
        cap = bsearch(
            peer->caps[i], r->caps, r->ncaps, sizeof(r->caps[0]), by_cap_name);
        if (cap == NULL) {
            continue;
        }
        for (j = 0; j < peer->naddresses; j++) {
            p = &peer->addresses[j];
            if (p->bits == 128 && tn_addr_is4(&p->addr) == is4 &&
                add_holder(r, room,
                    (struct holder){
                        span_key(&p->addr), (uint32_t)(cap - r->caps)}) != 0) {
                return -1;
            }
        }
    }
    return 0;
}

static int
by_addr(const void *a, const void *b)
{
    const struct holder *x = a, *y = b;
    int order = span_cmp(x->addr, y->addr);

    return order != 0 ? order : (x->cap > y->cap) - (x->cap < y->cap);
}

/* Who has them.  Unsigned peers never match by capability. */
static int
make_holders(struct filter_rules *r, const struct netmap *nm, bool is4)
{
    size_t room = 0;
    unsigned i;

    if (r->ncaps == 0) {
        return 0;
    }
    for (i = 0; i < nm->npeers; i++) {
        if (!nm->peers[i].unsigned_peerapi_only &&
            add_peer(r, &room, &nm->peers[i], is4) != 0) {
            return -1;
        }
    }
    if (r->nholders > 0) {
        qsort(r->holders, r->nholders, sizeof(r->holders[0]), by_addr);
    }
    return 0;
}

struct filter_rules *
filter_rules_new(
    const struct netmap *nm, bool is4, const struct span_set *local)
{
    struct filter_rules *r;
    struct wants w = {0};
    unsigned i;
    int rc = 0;

    r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return NULL;
    }
    if (nm->nrules > 0) {
        r->rules = calloc(nm->nrules, sizeof(r->rules[0]));
        rc = r->rules == NULL ? -1 : 0;
    }
    for (i = 0; i < nm->nrules && rc == 0; i++) {
        rc = add_rule(r, &w, &nm->rules[i], is4, local);
    }
    if (rc == 0) {
        rc = make_caps(r, &w);
    }
    if (rc == 0) {
        rc = make_holders(r, nm, is4);
    }
    free(w.list);
    for (i = 0; i < r->ncaps; i++) {
        r->caps[i].name = NULL; /* the netmap need not live on */
    }
    if (rc != 0) {
        filter_rules_free(r);
        return NULL;
    }
    span_build(&r->srcs);
    return r;
}

bool
filter_rules_by_peer(const struct filter_rules *r)
{
    return r->ncaps > 0;
}

void
filter_rules_free(struct filter_rules *r)
{
    uint32_t i;

    if (r == NULL) {
        return;
    }
    for (i = 0; i < r->nrules; i++) {
        span_clear(&r->rules[i].dsts);
        free(r->rules[i].targets);
        free(r->rules[i].ports);
    }
    free(r->rules);
    span_clear(&r->srcs);
    free(r->caps);
    free(r->cap_rules);
    free(r->holders);
    free(r);
}

/* ---- asking ---- */

struct asking {
    const struct filter_rules *rules;
    const struct filter_rules_query *q;
    const struct rule *rule;
    struct span_key dst;
};

static bool
has_port(const struct rule *rule, const struct target *t, uint16_t port)
{
    const struct ports *list = rule->ports + t->at;
    uint32_t lo = 0, hi = t->n, mid;

    while (lo < hi) {
        mid = lo + (hi - lo) / 2;
        if (list[mid].last < port) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < t->n && list[lo].first <= port;
}

static bool
target_allows(void *ctx, uint32_t index)
{
    const struct asking *a = ctx;
    const struct target *t = &a->rule->targets[index];

    switch (a->q->ask) {
    case FILTER_RULES_ADDRESS:
        return true;
    case FILTER_RULES_PROTO:
        return t->all;
    case FILTER_RULES_PORT:
        break;
    }
    return has_port(a->rule, t, a->q->port);
}

static bool
rule_allows(void *ctx, uint32_t index)
{
    struct asking *a = ctx;
    const struct filter_rules_query *q = a->q;

    a->rule = &a->rules->rules[index];
    if (q->ask != FILTER_RULES_ADDRESS &&
        (a->rule->protos[q->proto / 8] >> q->proto % 8 & 1) == 0) {
        return false;
    }
    return span_find(&a->rule->dsts, a->dst, target_allows, a);
}

/* The first holder whose address is not before ${k}. */
static size_t
find_holder(const struct filter_rules *r, struct span_key k)
{
    size_t lo = 0, hi = r->nholders, mid;

    while (lo < hi) {
        mid = lo + (hi - lo) / 2;
        if (span_cmp(r->holders[mid].addr, k) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static bool
cap_allows(struct asking *a, struct span_key src)
{
    const struct filter_rules *r = a->rules;
    const struct cap *cap;
    uint32_t j;
    size_t i;

    for (i = find_holder(r, src);
         i < r->nholders && span_cmp(r->holders[i].addr, src) == 0; i++) {
        if (a->q->ask == FILTER_RULES_ADDRESS) {
            return true;
        }
        cap = &r->caps[r->holders[i].cap];
        for (j = 0; j < cap->n; j++) {
            if (rule_allows(a, r->cap_rules[cap->at + j])) {
                return true;
            }
        }
    }
    return false;
}

bool
filter_rules_allow(
    const struct filter_rules *r, const struct filter_rules_query *q)
{
    struct asking a = {.rules = r, .q = q, .dst = span_key(&q->dst)};
    struct span_key src = span_key(&q->src);

    return span_find(&r->srcs, src, rule_allows, &a) ||
           (q->ask != FILTER_RULES_PROTO && cap_allows(&a, src));
}

/*
 * The text is made by hand: jansson would build a second tailnet in memory.
 * Lists that may be long are written an entry each step, so that a part of the
 * text takes a bounded time.
 */
#include "map_json_write.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The end of year 9999: the text has four digits for one. */
#define MOMENT_MAX INT64_C(253402300799)

struct out {
    char *b;
    size_t len, size;
    bool failed;
    bool first; /* no comma before what comes next */
};

static void
put(struct out *o, const char *s, size_t len)
{
    size_t size = o->size < 4096 ? 4096 : o->size;
    char *b;

    while (size < o->len + len + 1)
        size += size / 2;
    if (!o->failed && size > o->size) {
        b = realloc(o->b, size);
        o->failed = b == NULL;
        if (b != NULL) {
            o->b = b;
            o->size = size;
        }
    }
    if (o->failed)
        return;
    memcpy(o->b + o->len, s, len);
    o->len += len;
}

static void
text(struct out *o, const char *s)
{
    put(o, s, strlen(s));
}

__attribute__((format(printf, 2, 3))) static void
putf(struct out *o, const char *fmt, ...)
{
    char buf[256];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    put(o, buf, (size_t)n);
}

static void
comma(struct out *o)
{
    if (!o->first)
        text(o, ",");
    o->first = false;
}

static void
open_with(struct out *o, const char *bracket)
{
    text(o, bracket);
    o->first = true;
}

static void
close_with(struct out *o, const char *bracket)
{
    text(o, bracket);
    o->first = false;
}

static void
string(struct out *o, const char *s)
{
    const char *p;

    text(o, "\"");
    for (p = s; *p != '\0'; p++) {
        if ((unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')
            continue;
        put(o, s, (size_t)(p - s));
        putf(o, "\\u%04x", (unsigned)(unsigned char)*p);
        s = p + 1;
    }
    put(o, s, (size_t)(p - s));
    text(o, "\"");
}

static void
name(struct out *o, const char *s)
{
    comma(o);
    string(o, s);
    text(o, ":");
}

static void
number(struct out *o, const char *key, int64_t v)
{
    if (v == 0)
        return;
    name(o, key);
    putf(o, "%" PRId64, v);
}

static void
flag(struct out *o, const char *key, bool v)
{
    name(o, key);
    text(o, v ? "true" : "false");
}

static void
member(struct out *o, const char *key, const char *v)
{
    if (v == NULL || v[0] == '\0')
        return;
    name(o, key);
    string(o, v);
}

static void
key32(struct out *o, const char *key, const char *prefix, const uint8_t *b)
{
    name(o, key);
    putf(o, "\"%s", prefix);
    for (int i = 0; i < 32; i++)
        putf(o, "%02x", b[i]);
    text(o, "\"");
}

static void
moment(struct out *o, const char *key, int64_t t)
{
    char buf[32];
    time_t v = (time_t)(t < MOMENT_MAX ? t : MOMENT_MAX);
    struct tm tm;

    if (t == 0 || gmtime_r(&v, &tm) == NULL ||
        strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return;
    member(o, key, buf);
}

/* ---- nodes ---- */

static void
prefixes(
    struct out *o, const char *key, const struct tn_prefix *list, unsigned n)
{
    char buf[TN_PREFIX_STRLEN];

    name(o, key);
    open_with(o, "[");
    for (unsigned i = 0; i < n; i++) {
        comma(o);
        tn_prefix_format(&list[i], buf);
        string(o, buf);
    }
    close_with(o, "]");
}

static void
strings(struct out *o, const char *key, char *const *list, unsigned n)
{
    if (n == 0)
        return;
    name(o, key);
    open_with(o, "[");
    for (unsigned i = 0; i < n; i++) {
        comma(o);
        string(o, list[i]);
    }
    close_with(o, "]");
}

static void
endpoints(struct out *o, const struct netmap_node *n)
{
    char buf[TN_ENDPOINT_STRLEN];

    if (n->nendpoints == 0)
        return;
    name(o, "Endpoints");
    open_with(o, "[");
    for (unsigned i = 0; i < n->nendpoints; i++) {
        comma(o);
        tn_endpoint_format(&n->endpoints[i], buf);
        string(o, buf);
    }
    close_with(o, "]");
}

static void
path(struct out *o, const struct netmap_node *n)
{
    static const char *const masq[2] = {
        "SelfNodeV4MasqAddrForThisPeer", "SelfNodeV6MasqAddrForThisPeer"};
    char buf[TN_ADDR_STRLEN];

    if (n->has_disco)
        key32(o, "DiscoKey", "discokey:", n->disco);
    number(o, "HomeDERP", n->home_derp);
    number(o, "Cap", n->cap_version);
    for (int i = 0; i < 2; i++) {
        if (!n->has_masq[i])
            continue;
        tn_addr_format(&n->masq[i], buf);
        member(o, masq[i], buf);
    }
    if (n->wireguard_only)
        flag(o, "IsWireGuardOnly", true);
}

static void
node(struct out *o, const struct netmap_node *n)
{
    open_with(o, "{");
    number(o, "ID", n->id);
    member(o, "StableID", n->stable_id);
    member(o, "Name", n->name);
    number(o, "User", n->user);
    number(o, "Sharer", n->sharer);
    if (n->has_key)
        key32(o, "Key", "nodekey:", n->key);
    moment(o, "KeyExpiry", n->key_expiry);
    prefixes(o, "Addresses", n->addresses, n->naddresses);
    prefixes(o, "AllowedIPs", n->allowed_ips, n->nallowed_ips);
    endpoints(o, n);
    path(o, n);
    strings(o, "Tags", n->tags, n->ntags);
    strings(o, "Capabilities", n->caps, n->ncaps);
    flag(o, "Online", n->online);
    flag(o, "MachineAuthorized", n->authorized);
    if (n->expired)
        flag(o, "Expired", true);
    if (n->jailed)
        flag(o, "IsJailed", true);
    if (n->unsigned_peerapi_only)
        flag(o, "UnsignedPeerAPIOnly", true);
    close_with(o, "}");
}

/* ---- rules ---- */

static void
range(struct out *o, const struct netmap_ip_range *r)
{
    char first[TN_ADDR_STRLEN], last[TN_ADDR_STRLEN];

    if (r->any) {
        text(o, "\"*\"");
        return;
    }
    tn_addr_format(&r->first, first);
    tn_addr_format(&r->last, last);
    if (tn_addr_equal(&r->first, &r->last))
        putf(o, "\"%s\"", first);
    else
        putf(o, "\"%s-%s\"", first, last);
}

static void
grant(struct out *o, const struct netmap_cap_grant *g)
{
    comma(o);
    open_with(o, "{");
    prefixes(o, "Dsts", g->dsts, g->ndsts);
    name(o, "CapMap");
    open_with(o, "{");
    for (unsigned i = 0; i < g->ncaps; i++) {
        name(o, g->names[i]);
        text(o, g->values[i][0] != '\0' ? g->values[i] : "null");
    }
    close_with(o, "}");
    close_with(o, "}");
}

/* Entry ${i} of the sources: ranges, then capabilities. */
static void
source(struct out *o, const struct netmap_rule *r, unsigned i)
{
    const char *cap;
    char *s;

    comma(o);
    if (i < r->nsrcs) {
        range(o, &r->srcs[i]);
        return;
    }
    cap = r->src_caps[i - r->nsrcs];
    s = malloc(strlen(cap) + 5);
    o->failed = o->failed || s == NULL;
    if (s == NULL)
        return;
    sprintf(s, "cap:%s", cap);
    string(o, s);
    free(s);
}

static void
destination(struct out *o, const struct netmap_dst *d)
{
    comma(o);
    text(o, "{\"IP\":");
    range(o, &d->ip);
    putf(o, ",\"Ports\":{\"First\":%u,\"Last\":%u}}", d->first, d->last);
}

static void
protocols(struct out *o, const struct netmap_rule *r)
{
    if (r->proto_default)
        return;
    name(o, "IPProto");
    open_with(o, "[");
    for (unsigned i = 0; i < 256; i++) {
        if ((r->protos[i / 8] & 1u << i % 8) == 0)
            continue;
        comma(o);
        putf(o, "%u", i);
    }
    close_with(o, "]");
}

/* ---- DERP ---- */

static void
relay(struct out *o, const struct netmap_relay *r)
{
    comma(o);
    open_with(o, "{");
    member(o, "Name", r->name);
    member(o, "HostName", r->host);
    member(o, "CertName", r->cert_name);
    member(o, "IPv4", r->ipv4);
    member(o, "IPv6", r->ipv6);
    member(o, "STUNTestIP", r->stun_test_ip);
    number(o, "DERPPort", r->derp_port);
    number(o, "STUNPort", r->stun_port == 0 ? -1 : r->stun_port);
    flag(o, "STUNOnly", r->stun_only);
    flag(o, "InsecureForTests", r->insecure_for_tests);
    flag(o, "CanPort80", r->can_port80);
    close_with(o, "}");
}

static void
region(struct out *o, const struct netmap_region *r)
{
    char id[16];

    snprintf(id, sizeof(id), "%u", r->id);
    name(o, id);
    open_with(o, "{");
    number(o, "RegionID", r->id);
    member(o, "RegionCode", r->code);
    member(o, "RegionName", r->name);
    flag(o, "Avoid", r->avoid);
    flag(o, "NoMeasureNoHome", r->no_measure_home);
    name(o, "Nodes");
    open_with(o, "[");
    for (unsigned j = 0; j < r->nrelays; j++)
        relay(o, &r->relays[j]);
    close_with(o, "]");
    close_with(o, "}");
}

static void
scores(struct out *o, const struct netmap_derp *d)
{
    char id[16];

    name(o, "HomeParams");
    text(o, "{\"RegionScore\":");
    open_with(o, "{");
    for (unsigned i = 0; i < d->nregions; i++) {
        snprintf(id, sizeof(id), "%u", d->regions[i].id);
        name(o, id);
        putf(o, "%.9g", d->regions[i].score);
    }
    text(o, "}");
    close_with(o, "}");
}

/* ---- all ---- */

static void
user(struct out *o, const struct netmap_user *u)
{
    comma(o);
    open_with(o, "{");
    number(o, "ID", u->id);
    member(o, "LoginName", u->login);
    member(o, "DisplayName", u->name);
    member(o, "ProfilePicURL", u->pic);
    close_with(o, "}");
}

/* Where the text stands. */
enum stage { BEGIN, REGIONS, USERS, RULES, SRCS, DSTS, GRANTS, PEERS, DONE };

struct map_json_writer {
    struct out out;
    const struct netmap *nm;
    map_json_peer *peer;
    void *arg;
    enum stage stage;
    unsigned i; /* next entry of the stage's list, ... */
    unsigned j; /* ... and of the rule's */
};

/* A list, the stage of its entries, and their count from 0. */
static void
begin_list(
    struct map_json_writer *w, const char *key, enum stage stage, unsigned *at)
{
    name(&w->out, key);
    open_with(&w->out, "[");
    w->stage = stage;
    *at = 0;
}

static void
begin(struct map_json_writer *w)
{
    struct out *o = &w->out;

    open_with(o, "{");
    name(o, "Node");
    node(o, &w->nm->self);
    member(o, "Domain", w->nm->domain);
    if (w->nm->derp == NULL) {
        begin_list(w, "UserProfiles", USERS, &w->i);
        return;
    }
    name(o, "DERPMap");
    open_with(o, "{");
    name(o, "Regions");
    open_with(o, "{");
    w->stage = REGIONS;
}

static void
step_regions(struct map_json_writer *w)
{
    const struct netmap_derp *d = w->nm->derp;

    if (w->i < d->nregions) {
        region(&w->out, &d->regions[w->i++]);
        return;
    }
    close_with(&w->out, "}");
    scores(&w->out, d);
    close_with(&w->out, "}");
    begin_list(w, "UserProfiles", USERS, &w->i);
}

static void
step_users(struct map_json_writer *w)
{
    if (w->i < w->nm->nusers) {
        user(&w->out, &w->nm->users[w->i++]);
        return;
    }
    close_with(&w->out, "]");
    begin_list(w, "PacketFilter", RULES, &w->i);
}

static void
step_rules(struct map_json_writer *w)
{
    if (w->i == w->nm->nrules) {
        close_with(&w->out, "]");
        begin_list(w, "Peers", PEERS, &w->i);
        return;
    }
    comma(&w->out);
    open_with(&w->out, "{");
    begin_list(w, "SrcIPs", SRCS, &w->j);
}

static void
end_rule(struct map_json_writer *w)
{
    close_with(&w->out, "}");
    w->stage = RULES;
    w->i++;
}

/* An entry of the rule's list whose turn it is, or what comes after it. */
static void
step_rule(struct map_json_writer *w)
{
    const struct netmap_rule *r = &w->nm->rules[w->i];
    struct out *o = &w->out;

    if (w->stage == SRCS && w->j < r->nsrcs + r->nsrc_caps) {
        source(o, r, w->j++);
    } else if (w->stage == DSTS && w->j < r->ndsts) {
        destination(o, &r->dsts[w->j++]);
    } else if (w->stage == GRANTS && w->j < r->ngrants) {
        grant(o, &r->grants[w->j++]);
    } else {
        close_with(o, "]");
        if (w->stage == SRCS) {
            begin_list(w, "DstPorts", DSTS, &w->j);
            return;
        }
        if (w->stage == DSTS)
            protocols(o, r);
        if (w->stage == DSTS && r->ngrants > 0)
            begin_list(w, "CapGrant", GRANTS, &w->j);
        else
            end_rule(w);
    }
}

static void
step_peers(struct map_json_writer *w)
{
    const struct netmap_node *row = NULL;

    if (w->peer != NULL)
        row = w->peer(w->arg);
    else if (w->i < w->nm->npeers)
        row = &w->nm->peers[w->i++];
    if (row != NULL) {
        comma(&w->out);
        node(&w->out, row);
        return;
    }
    close_with(&w->out, "]");
    text(&w->out, "}\n");
    w->stage = DONE;
}

static void
step(struct map_json_writer *w)
{
    switch (w->stage) {
    case BEGIN:
        begin(w);
        break;
    case REGIONS:
        step_regions(w);
        break;
    case USERS:
        step_users(w);
        break;
    case RULES:
        step_rules(w);
        break;
    case SRCS:
    case DSTS:
    case GRANTS:
        step_rule(w);
        break;
    case PEERS:
        step_peers(w);
        break;
    case DONE:
        break;
    }
}

struct map_json_writer *
map_json_writer_new(const struct netmap *nm, map_json_peer *peer, void *arg)
{
    struct map_json_writer *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->out.first = true;
    w->nm = nm;
    w->peer = peer;
    w->arg = arg;
    return w;
}

void
map_json_writer_free(struct map_json_writer *w)
{
    if (w == NULL)
        return;
    free(w->out.b);
    free(w);
}

bool
map_json_writer_done(const struct map_json_writer *w)
{
    return w->stage == DONE;
}

const char *
map_json_writer_next(struct map_json_writer *w, size_t least, size_t *len)
{
    w->out.len = 0;
    while (w->stage != DONE && w->out.len < least && !w->out.failed)
        step(w);
    *len = w->out.len;
    if (w->out.failed)
        return NULL;
    return w->out.b == NULL ? "" : w->out.b;
}

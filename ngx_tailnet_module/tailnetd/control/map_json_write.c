/*
 * The text is made by hand: jansson would build a second tailnet in memory.
 */
#include "map_json_write.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
    time_t v = (time_t)t;
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

static void
rule(struct out *o, const struct netmap_rule *r)
{
    comma(o);
    open_with(o, "{");
    name(o, "SrcIPs");
    open_with(o, "[");
    for (unsigned i = 0; i < r->nsrcs; i++) {
        comma(o);
        range(o, &r->srcs[i]);
    }
    for (unsigned i = 0; i < r->nsrc_caps; i++) {
        char *s = malloc(strlen(r->src_caps[i]) + 5);

        o->failed = o->failed || s == NULL;
        if (s == NULL)
            break;
        sprintf(s, "cap:%s", r->src_caps[i]);
        comma(o);
        string(o, s);
        free(s);
    }
    close_with(o, "]");
    name(o, "DstPorts");
    open_with(o, "[");
    for (unsigned i = 0; i < r->ndsts; i++) {
        comma(o);
        text(o, "{\"IP\":");
        range(o, &r->dsts[i].ip);
        putf(o, ",\"Ports\":{\"First\":%u,\"Last\":%u}}", r->dsts[i].first,
            r->dsts[i].last);
    }
    close_with(o, "]");
    if (!r->proto_default) {
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
    if (r->ngrants > 0) {
        name(o, "CapGrant");
        open_with(o, "[");
        for (unsigned i = 0; i < r->ngrants; i++)
            grant(o, &r->grants[i]);
        close_with(o, "]");
    }
    close_with(o, "}");
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
derp(struct out *o, const struct netmap_derp *d)
{
    char id[16];

    name(o, "DERPMap");
    open_with(o, "{");
    flag(o, "OmitDefaultRegions", d->omit_default);
    name(o, "Regions");
    open_with(o, "{");
    for (unsigned i = 0; i < d->nregions; i++) {
        const struct netmap_region *r = &d->regions[i];

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
    close_with(o, "}");
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

char *
map_json_write(const struct netmap *nm, size_t *len)
{
    struct out o = {.first = true};
    unsigned i;

    open_with(&o, "{");
    name(&o, "Node");
    node(&o, &nm->self);
    member(&o, "Domain", nm->domain);
    if (nm->derp != NULL)
        derp(&o, nm->derp);
    name(&o, "UserProfiles");
    open_with(&o, "[");
    for (i = 0; i < nm->nusers; i++)
        user(&o, &nm->users[i]);
    close_with(&o, "]");
    name(&o, "PacketFilter");
    open_with(&o, "[");
    for (i = 0; i < nm->nrules; i++)
        rule(&o, &nm->rules[i]);
    close_with(&o, "]");
    name(&o, "Peers");
    open_with(&o, "[");
    for (i = 0; i < nm->npeers; i++) {
        comma(&o);
        node(&o, &nm->peers[i]);
    }
    close_with(&o, "]");
    text(&o, "}\n");
    if (o.failed) {
        free(o.b);
        return NULL;
    }
    *len = o.len;
    return o.b;
}

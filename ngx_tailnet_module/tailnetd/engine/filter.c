/*
 * filter.c: the order of tests that an inbound packet goes through.
 *
 * The rules themselves are in filter_rules.c, flows in filter_flow.c, header
 * parsing in filter_packet.c; the numbers below are the steps of filter_in().
 */
#include <stdlib.h>
#include <string.h>

#include "../ipc.h"
#include "filter.h"
#include "filter_flow.h"
#include "filter_packet.h"
#include "filter_rules.h"
#include "grants.h"
#include "span.h"

#define TCP_SYN 0x02
#define TCP_ACK 0x10

#define ICMP_ECHO_REPLY     0
#define ICMP_UNREACHABLE    3
#define ICMP_ECHO_REQUEST   8
#define ICMP_TIME_EXCEEDED  11
#define ICMP_PARAMETER      12
#define ICMPV6_UNREACHABLE  1
#define ICMPV6_PARAMETER    4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY   129

enum { FAMILY4, FAMILY6, FAMILIES };

/* Values of the local span sets. */
enum { LOCAL_OWN, LOCAL_ROUTE };

struct filter {
    struct span_set local[FAMILIES];
    struct filter_rules *rules[FAMILIES];
    bool open_listeners; /* no rules, and the netmap's source allows that */
    bool shields_up;
    uint8_t tcp_ports[65536 / 8];
    uint8_t udp_ports[65536 / 8];
    struct filter_flow_table flows;
    uint64_t counters[FILTER_REASONS];
};

static int
family(bool is4)
{
    return is4 ? FAMILY4 : FAMILY6;
}

static int
add_local(struct filter *f, const struct tn_prefix *p, uint32_t value)
{
    struct span_key first, last;

    span_of_prefix(p, &first, &last);
    return span_add(
        &f->local[family(tn_addr_is4(&p->addr))], first, last, value);
}

static int
compile(
    struct filter *f, const struct netmap *nm, const struct filter_local *local)
{
    size_t i;
    int fam;

    for (i = 0; i < nm->self.naddresses; i++) {
        if (add_local(f, &nm->self.addresses[i], LOCAL_OWN) != 0) {
            return -1;
        }
    }
    for (i = 0; local != NULL && i < local->nprefixes; i++) {
        if (add_local(f, &local->prefixes[i], LOCAL_ROUTE) != 0) {
            return -1;
        }
    }
    for (fam = 0; fam < FAMILIES; fam++) {
        span_build(&f->local[fam]);
        f->rules[fam] = filter_rules_new(nm, fam == FAMILY4, &f->local[fam]);
        if (f->rules[fam] == NULL) {
            return -1;
        }
    }
    return 0;
}

struct filter *
filter_new(const struct netmap *nm, const struct filter_local *local)
{
    struct filter *f;

    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return NULL;
    }
    f->open_listeners = local != NULL && local->open_listeners &&
                        !nm->has_rules;
    f->shields_up = local != NULL && local->shields_up;
    if (compile(f, nm, local) != 0) {
        filter_free(f);
        return NULL;
    }
    return f;
}

void
filter_free(struct filter *f)
{
    int fam;

    if (f == NULL) {
        return;
    }
    for (fam = 0; fam < FAMILIES; fam++) {
        span_clear(&f->local[fam]);
        filter_rules_free(f->rules[fam]);
    }
    free(f);
}

bool
filter_by_peer(const struct filter *f)
{
    return filter_rules_by_peer(f->rules[FAMILY4]) ||
           filter_rules_by_peer(f->rules[FAMILY6]);
}

void
filter_set_listeners(
    struct filter *f, const struct ipc_listener *list, size_t n)
{
    uint8_t *ports;
    size_t i;

    memset(f->tcp_ports, 0, sizeof(f->tcp_ports));
    memset(f->udp_ports, 0, sizeof(f->udp_ports));
    for (i = 0; i < n; i++) {
        if (list[i].proto == FILTER_PACKET_TCP) {
            ports = f->tcp_ports;
        } else if (list[i].proto == FILTER_PACKET_UDP) {
            ports = f->udp_ports;
        } else {
            continue;
        }
        ports[list[i].port / 8] |= (uint8_t)(1u << list[i].port % 8);
    }
}

void
filter_inherit(struct filter *f, struct filter *old)
{
    f->flows = old->flows;
    memcpy(f->counters, old->counters, sizeof(f->counters));
    memset(&old->flows, 0, sizeof(old->flows));
    memset(old->counters, 0, sizeof(old->counters));
}

void
filter_forget(struct filter *f, const struct tn_addr *a)
{
    filter_flow_forget(&f->flows, a);
}

static enum filter_reason
refuse_kind(enum filter_packet_kind kind)
{
    switch (kind) {
    case FILTER_PACKET_BAD_LENGTH:
        return FILTER_DROP_LENGTH;
    case FILTER_PACKET_BAD_PROTO:
        return FILTER_DROP_PROTO;
    case FILTER_PACKET_BAD_FRAGMENT:
        return FILTER_DROP_FRAGMENT;
    case FILTER_PACKET_WHOLE:
    case FILTER_PACKET_LATER_FRAGMENT:
    case FILTER_PACKET_BAD_HEADER:
        break;
    }
    return FILTER_DROP_HEADER;
}

static bool
is_multicast(const struct filter_packet *p)
{
    return p->is4 ? (p->dst.b[12] & 0xf0) == 0xe0 : p->dst.b[0] == 0xff;
}

/* 169.254.169.254 is a service of cloud hosts that may be advertised. */
static bool
is_link_local(const struct filter_packet *p)
{
    const uint8_t *b = p->dst.b;

    if (!p->is4) {
        return b[0] == 0xfe && (b[1] & 0xc0) == 0x80;
    }
    return b[12] == 169 && b[13] == 254 && !(b[14] == 169 && b[15] == 254);
}

static bool
own_local(void *ctx, uint32_t value)
{
    (void)ctx;
    return value == LOCAL_OWN;
}

/* Echo replies and errors answer something of ours. */
static bool
icmp_answers(const struct filter_packet *p)
{
    if (p->is4) {
        return (p->icmp_type == ICMP_ECHO_REPLY && p->icmp_code == 0) ||
               p->icmp_type == ICMP_UNREACHABLE ||
               p->icmp_type == ICMP_TIME_EXCEEDED ||
               p->icmp_type == ICMP_PARAMETER;
    }
    return (p->icmp_type == ICMPV6_ECHO_REPLY && p->icmp_code == 0) ||
           (p->icmp_type >= ICMPV6_UNREACHABLE &&
               p->icmp_type <= ICMPV6_PARAMETER);
}

static bool
is_icmp(const struct filter_packet *p)
{
    return p->proto == (p->is4 ? FILTER_PACKET_ICMP : FILTER_PACKET_ICMPV6);
}

/* Steps 6, 8, 9 and 11: what needs no rule. */
static bool
answers(struct filter *f, const struct filter_packet *p)
{
    struct filter_flow flow;

    switch (p->proto) {
    case FILTER_PACKET_TCP:
        return (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
    case FILTER_PACKET_UDP:
    case FILTER_PACKET_SCTP:
        flow = (struct filter_flow){
            p->src, p->dst, p->sport, p->dport, p->proto};
        return filter_flow_touch(&f->flows, &flow);
    case FILTER_PACKET_TSMP:
        return true;
    }
    return is_icmp(p) && icmp_answers(p);
}

/* A netmap without rules: echo requests and listeners, at our own addresses. */
static bool
listens(const struct filter *f, const struct filter_packet *p)
{
    const uint8_t *ports;

    if (!span_find(
            &f->local[family(p->is4)], span_key(&p->dst), own_local, NULL)) {
        return false;
    }
    if (is_icmp(p)) {
        return p->icmp_code == 0 &&
               p->icmp_type ==
                   (p->is4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST);
    }
    if (p->proto == FILTER_PACKET_TCP) {
        ports = f->tcp_ports;
    } else if (p->proto == FILTER_PACKET_UDP) {
        ports = f->udp_ports;
    } else {
        return false;
    }
    return (ports[p->dport / 8] >> p->dport % 8 & 1) != 0;
}

/* Steps 7, 8, 10 and 12: what a rule has to allow. */
static bool
allowed(const struct filter *f, const struct filter_packet *p)
{
    struct filter_rules_query q = {
        .ask = FILTER_RULES_PROTO,
        .src = p->src,
        .dst = p->dst,
        .port = p->dport,
        .proto = p->proto,
    };

    if (f->open_listeners) {
        return listens(f, p);
    }
    if (is_icmp(p)) {
        q.ask = FILTER_RULES_ADDRESS;
    } else if (p->proto == FILTER_PACKET_TCP || p->proto == FILTER_PACKET_UDP ||
               p->proto == FILTER_PACKET_SCTP) {
        q.ask = FILTER_RULES_PORT;
    }
    return filter_rules_allow(f->rules[family(p->is4)], &q);
}

static enum filter_reason
judge(struct filter *f, struct filter_packet *p, const uint8_t *pkt, size_t len,
    bool jailed)
{
    enum filter_packet_kind kind;
    struct span_key dst;

    if (len == 0) { /* 1 */
        return FILTER_ACCEPT_EMPTY;
    }
    kind = filter_packet_read(p, pkt, len); /* 2 */
    if (kind != FILTER_PACKET_WHOLE && kind != FILTER_PACKET_LATER_FRAGMENT) {
        return refuse_kind(kind);
    }
    if (is_multicast(p)) { /* 3 */
        return FILTER_DROP_MULTICAST;
    }
    if (is_link_local(p)) {
        return FILTER_DROP_LINK_LOCAL;
    }
    if (kind == FILTER_PACKET_LATER_FRAGMENT) { /* 4 */
        return FILTER_ACCEPT_ANSWER;
    }
    dst = span_key(&p->dst);
    if (!span_overlaps(&f->local[family(p->is4)], dst, dst)) { /* 5 */
        return FILTER_DROP_NOT_LOCAL;
    }
    if (answers(f, p)) {
        return FILTER_ACCEPT_ANSWER;
    }
    if (jailed || f->shields_up) {
        return FILTER_DROP_JAILED;
    }
    return allowed(f, p) ? FILTER_ACCEPT_RULE : FILTER_DROP_NO_RULE;
}

enum filter_verdict
filter_in(struct filter *f, const uint8_t *pkt, size_t len, bool jailed)
{
    struct filter_packet p;
    enum filter_reason reason;

    reason = judge(f, &p, pkt, len, jailed);
    f->counters[reason]++;
    switch (reason) {
    case FILTER_ACCEPT_EMPTY:
    case FILTER_ACCEPT_ANSWER:
    case FILTER_ACCEPT_RULE:
        return FILTER_ACCEPT;
    case FILTER_DROP_NO_RULE:
    case FILTER_DROP_JAILED:
        return p.is4 && p.proto == FILTER_PACKET_TCP ? FILTER_REJECT
                                                     : FILTER_DROP;
    default:
        return FILTER_DROP;
    }
}

void
filter_out(struct filter *f, const uint8_t *pkt, size_t len)
{
    struct filter_packet p;
    struct filter_flow flow;

    if (filter_packet_read(&p, pkt, len) != FILTER_PACKET_WHOLE ||
        (p.proto != FILTER_PACKET_UDP && p.proto != FILTER_PACKET_SCTP)) {
        return;
    }
    flow = (struct filter_flow){p.dst, p.src, p.dport, p.sport, p.proto};
    if (filter_flow_touch(&f->flows, &flow)) {
        return;
    }
    f->counters[FILTER_FLOW_RECORDED]++;
    if (filter_flow_add(&f->flows, &flow)) {
        f->counters[FILTER_FLOW_EVICTED]++;
    }
}

uint64_t
filter_count(const struct filter *f, enum filter_reason r)
{
    return f->counters[r];
}

const char *
filter_reason_name(enum filter_reason r)
{
    static const char *const names[FILTER_REASONS] = {
        [FILTER_ACCEPT_EMPTY] = "accept_empty",
        [FILTER_ACCEPT_ANSWER] = "accept_answer",
        [FILTER_ACCEPT_RULE] = "accept_rule",
        [FILTER_DROP_LENGTH] = "drop_length",
        [FILTER_DROP_HEADER] = "drop_header",
        [FILTER_DROP_PROTO] = "drop_proto",
        [FILTER_DROP_FRAGMENT] = "drop_fragment",
        [FILTER_DROP_MULTICAST] = "drop_multicast",
        [FILTER_DROP_LINK_LOCAL] = "drop_link_local",
        [FILTER_DROP_NOT_LOCAL] = "drop_not_local",
        [FILTER_DROP_NO_RULE] = "drop_no_rule",
        [FILTER_DROP_JAILED] = "drop_jailed",
        [FILTER_FLOW_RECORDED] = "flow_recorded",
        [FILTER_FLOW_EVICTED] = "flow_evicted",
    };

    return names[r];
}

int
filter_caps(const struct netmap *nm, const struct tn_addr *src,
    const struct tn_addr *dst, char **json)
{
    struct grants *g;
    int rc;

    g = grants_new(nm);
    if (g == NULL) {
        return -1;
    }
    rc = grants_query(g, src, dst, json);
    grants_free(g);
    return rc;
}

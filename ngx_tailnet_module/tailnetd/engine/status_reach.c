#include "status_reach.h"

#include <stdio.h>

#include "../magic/magic.h"

json_t *
status_endpoint(const struct tn_endpoint *e)
{
    char buf[TN_ENDPOINT_STRLEN];

    if (e->port == 0)
        return json_string("");
    if (derp_region(e) != 0)
        snprintf(buf, sizeof(buf), "derp:%u", derp_region(e));
    else
        tn_endpoint_format(e, buf);
    return json_string(buf);
}

/* Three values: NetInfo's flags may be unknown. */
static json_t *
flag(int8_t value)
{
    return value < 0 ? json_null() : json_boolean(value);
}

static json_t *
endpoints_of(const struct magic *m)
{
    static const char *const types[] = {
        "", "local", "stun", "portmapped", "stun4_local", "explicit"};
    const struct message_endpoint *list;
    json_t *out = json_array(), *o;
    size_t n, i;

    list = magic_endpoints(m, &n);
    for (i = 0; i < n; i++) {
        o = json_object();
        json_object_set_new(o, "at", status_endpoint(&list[i].at));
        json_object_set_new(o, "type", json_string(types[list[i].type]));
        json_array_append_new(out, o);
    }
    return out;
}

static const struct netmap_region *
region_of(const struct node *n, unsigned id)
{
    return n->netmap == NULL ? NULL : netmap_region(n->netmap->derp, id);
}

static void
set_region(json_t *o, const struct node *n, unsigned id)
{
    const struct netmap_region *r = region_of(n, id);

    json_object_set_new(o, "region", json_integer(id));
    json_object_set_new(o, "code", json_string(r == NULL ? "" : r->code));
    json_object_set_new(o, "name", json_string(r == NULL ? "" : r->name));
}

static json_t *
latencies_of(const struct node *n, const struct message_netinfo *net)
{
    json_t *out = json_array(), *o;
    unsigned i;

    for (i = 0; i < net->nlatency; i++) {
        o = json_object();
        set_region(o, n, net->latency[i].region);
        json_object_set_new(o, "ipv6", json_boolean(net->latency[i].six));
        json_object_set_new(o, "ms", json_real(net->latency[i].seconds * 1000));
        json_array_append_new(out, o);
    }
    return out;
}

static json_t *
relays_of(const struct magic *m)
{
    struct derp_status list[DERP_CONNS_MAX];
    size_t n = derp_status(magic_derp(m), list), i;
    json_t *out = json_array(), *o;

    for (i = 0; i < n; i++) {
        o = json_object();
        json_object_set_new(o, "region", json_integer(list[i].region));
        json_object_set_new(o, "state", json_string(list[i].state));
        json_object_set_new(o, "health", json_string(list[i].health));
        json_object_set_new(o, "error", json_string(list[i].error));
        json_array_append_new(out, o);
    }
    return out;
}

static json_t *
counters_of(const struct magic *m)
{
    const struct magic_counters *c = magic_counters(m);
    json_t *o = json_object();

    STATUS_COUNT(o, c, stun);
    STATUS_COUNT(o, c, disco_pings);
    STATUS_COUNT(o, c, disco_pongs);
    STATUS_COUNT(o, c, disco_calls);
    STATUS_COUNT(o, c, pings_sent);
    STATUS_COUNT(o, c, calls_sent);
    STATUS_COUNT(o, c, sent_direct);
    STATUS_COUNT(o, c, sent_relay);
    STATUS_COUNT(o, c, drop_stun);
    STATUS_COUNT(o, c, drop_geneve);
    STATUS_COUNT(o, c, drop_disco_unknown);
    STATUS_COUNT(o, c, drop_disco_flood);
    STATUS_COUNT(o, c, drop_disco_auth);
    STATUS_COUNT(o, c, drop_disco_malformed);
    STATUS_COUNT(o, c, drop_disco_node);
    STATUS_COUNT(o, c, drop_disco_flow);
    STATUS_COUNT(o, c, drop_pong_late);
    STATUS_COUNT(o, c, drop_pong_flood);
    STATUS_COUNT(o, c, drop_spoofed);
    STATUS_COUNT(o, c, drop_no_path);
    STATUS_COUNT(o, c, drop_memory);
    return o;
}

static json_t *
relay_counters_of(const struct magic *m)
{
    const struct derp_counters *c = derp_counters(magic_derp(m));
    json_t *o = json_object();

    STATUS_COUNT(o, c, sent);
    STATUS_COUNT(o, c, received);
    STATUS_COUNT(o, c, connects);
    STATUS_COUNT(o, c, failures);
    STATUS_COUNT(o, c, drop_queue);
    STATUS_COUNT(o, c, drop_region);
    STATUS_COUNT(o, c, drop_size);
    STATUS_COUNT(o, c, drop_memory);
    STATUS_COUNT(o, c, gone);
    STATUS_COUNT(o, c, skipped);
    return o;
}

json_t *
status_reach(const struct node *n)
{
    const struct message_netinfo *net = magic_netinfo(n->magic);
    json_t *o = json_object();

    json_object_set_new(o, "home", json_integer(net->preferred_derp));
    json_object_set_new(o, "udp", flag(net->working_udp));
    json_object_set_new(o, "ipv6", flag(net->working_ipv6));
    json_object_set_new(o, "mapping_varies", flag(net->varies));
    json_object_set_new(o, "latencies", latencies_of(n, net));
    json_object_set_new(o, "endpoints", endpoints_of(n->magic));
    json_object_set_new(o, "relays", relays_of(n->magic));
    json_object_set_new(
        o, "talking_peers", json_integer((json_int_t)magic_talks(n->magic)));
    json_object_set_new(
        o, "drop_forged", json_integer((json_int_t)n->drop_forged));
    json_object_set_new(o, "counters", counters_of(n->magic));
    json_object_set_new(o, "relay_counters", relay_counters_of(n->magic));
    return o;
}

void
status_way(json_t *o, const struct node *n, const struct node_peer *np)
{
    static const char *const states[] = {"idle", "relay", "direct", "doubt"};
    struct magic_way way = magic_way(n->magic, &np->way);

    json_object_set_new(o, "path", json_string(states[way.state]));
    json_object_set_new(o, "relay", json_integer(way.region));
    json_object_set_new(o, "latency_ms",
        way.latency_us == 0 ? json_null()
                            : json_real((double)way.latency_us / 1000));
}

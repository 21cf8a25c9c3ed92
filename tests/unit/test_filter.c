/* links: core/tn_addr.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* links: tailnetd/engine/filter.c tailnetd/engine/filter_flow.c */
/* links: tailnetd/engine/filter_packet.c tailnetd/engine/filter_rules.c */
/* links: tailnetd/engine/grants.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/span.c */
/* libs: -ljansson */
/*
 * The packet filter: recorded verdicts first, then what they leave out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../ngx_tailnet_module/tailnetd/ipc.h"
#include "filter_kit.h"

#define VECTORS "tests/vectors/filter/filter.jsonl"

/* One inbound packet, as it would be written in a rule. */
struct probe {
    const char *src;
    const char *dst;
    unsigned proto;
    unsigned dport;
    unsigned extra; /* TCP flags, ICMP type */
    enum filter_verdict want;
    enum filter_reason why;
};

static void
run(struct filter *f, const struct probe *list, size_t n, bool jailed)
{
    enum filter_verdict got;
    uint8_t b[128];
    uint64_t before;
    size_t i, len;

    for (i = 0; i < n; i++) {
        len = packet(b, list[i].proto, list[i].src, list[i].dst, 4000,
            list[i].dport, list[i].extra);
        before = filter_count(f, list[i].why);
        got = filter_in(f, b, len, jailed);
        if (got != list[i].want || filter_count(f, list[i].why) != before + 1) {
            fail_msg("probe %zu, %s to %s proto %u port %u: verdict %d, "
                     "want %d %s",
                i, list[i].src, list[i].dst, list[i].proto, list[i].dport,
                (int)got, (int)list[i].want, filter_reason_name(list[i].why));
        }
    }
}

#define RUN(f, list)        run(f, list, sizeof(list) / sizeof(list[0]), false)
#define RUN_JAILED(f, list) run(f, list, sizeof(list) / sizeof(list[0]), true)

#define OK_RULE   FILTER_ACCEPT, FILTER_ACCEPT_RULE
#define OK_ANSWER FILTER_ACCEPT, FILTER_ACCEPT_ANSWER
#define NO_RULE   FILTER_DROP, FILTER_DROP_NO_RULE
#define REJECTED  FILTER_REJECT, FILTER_DROP_NO_RULE

/* ---- recorded vectors ---- */

static size_t
unhex(uint8_t *out, size_t room, const char *hex)
{
    size_t n = strlen(hex) / 2, i;
    unsigned byte;

    assert_true(n <= room);
    for (i = 0; i < n; i++) {
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return n;
}

/* The netmap that the first line of the vectors stands for. */
static struct netmap *
vector_map(const json_t *head)
{
    json_t *doc, *peers = json_array(), *caps, *holders, *names, *rules, *local;
    const char *ip;
    struct netmap *nm;
    json_t *name;
    size_t i;
    char *text;

    holders = json_object_get(head, "cap_holders");
    json_object_foreach(holders, ip, names)
    {
        caps = json_object();
        json_array_foreach(names, i, name)
        {
            json_object_set_new(caps, json_string_value(name), json_null());
        }
        json_array_append_new(
            peers, json_pack("{s:i, s:s, s:[s], s:o}", "ID",
                       (int)json_array_size(peers) + 2, "Key", K("a"),
                       "Addresses", ip, "CapMap", caps));
    }
    rules = json_object_get(head, "rules");
    local = json_object_get(head, "local");
    doc = json_pack("{s:{s:O}, s:o, s:O}", "Node", "Addresses", local, "Peers",
        peers, "PacketFilter", rules);
    assert_non_null(doc);
    text = json_dumps(doc, 0);
    nm = map_of(text);
    free(text);
    json_decref(doc);
    return nm;
}

static void
check_packet(struct filter *f, const json_t *line)
{
    const char *want = json_string_value(json_object_get(line, "verdict"));
    uint8_t b[256];
    size_t len = unhex(
        b, sizeof(b), json_string_value(json_object_get(line, "pkt")));
    enum filter_verdict got;

    if (json_is_true(json_object_get(line, "out"))) {
        filter_out(f, b, len);
        return;
    }
    got = filter_in(f, b, len, false);
    if ((got == FILTER_ACCEPT) != (strcmp(want, "Accept") == 0)) {
        fail_msg("%s: %d, want %s",
            json_string_value(json_object_get(line, "name")), (int)got, want);
    }
}

static void
check_caps(const struct netmap *nm, const json_t *line)
{
    json_t *got, *want = json_object_get(line, "capmap"), *none = json_object();
    struct tn_addr src, dst;
    char *text;

    src = addr(json_string_value(json_object_get(line, "caps_src")));
    dst = addr(json_string_value(json_object_get(line, "caps_dst")));
    assert_int_equal(filter_caps(nm, &src, &dst, &text), 0);
    got = json_loads(text, 0, NULL);
    /* their list items are raw JSON in strings of Go; ours too, verbatim */
    if (!json_equal(got, json_is_null(want) ? none : want)) {
        fail_msg("capabilities are %s", text);
    }
    free(text);
    json_decref(got);
    json_decref(none);
}

static void
test_vectors(void **state)
{
    FILE *fp = fopen(VECTORS, "r");
    struct netmap *nm = NULL;
    struct filter *f = NULL;
    unsigned packets = 0, queries = 0;
    json_t *line;

    (void)state;
    if (fp == NULL) {
        fail_msg("cannot open " VECTORS ": run from the project's root");
    }
    while ((line = json_loadf(fp, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
        if (nm == NULL) {
            nm = vector_map(line);
            f = filter_new(nm, NULL);
            assert_non_null(f);
        } else if (json_object_get(line, "pkt") != NULL) {
            check_packet(f, line);
            packets++;
        } else {
            check_caps(nm, line);
            queries++;
        }
        json_decref(line);
    }
    assert_int_equal(packets, 45);
    assert_int_equal(queries, 5);
    filter_free(f);
    netmap_free(nm);
    fclose(fp);
}

/* ---- headers ---- */

#define OPEN                                                             \
    "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]},"            \
    "\"PacketFilter\":[{\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"*\"," \
    "\"Ports\":{\"First\":0,\"Last\":65535}}]}]}"

static void
test_truncated(void **state)
{
    static const unsigned protos[] = {1, 6, 17, 58, 132};
    struct filter *f = filter_of(OPEN, NULL);
    uint8_t b[128], *tight;
    size_t i, len, cut;
    int six;

    (void)state;
    assert_int_equal(filter_in(f, NULL, 0, false), FILTER_ACCEPT);
    for (i = 0; i < sizeof(protos) / sizeof(protos[0]); i++) {
        for (six = 0; six < 2; six++) {
            len = packet(b, protos[i], six ? "fd7a::2" : "100.64.0.2",
                six ? "fd7a::1" : "100.64.0.1", 1, 2, 2);
            for (cut = 1; cut < len; cut++) {
                /* exact size, so that a sanitizer sees an overrun */
                tight = malloc(cut);
                memcpy(tight, b, cut);
                assert_int_equal(filter_in(f, tight, cut, false), FILTER_DROP);
                filter_out(f, tight, cut);
                free(tight);
            }
        }
    }
    assert_true(filter_count(f, FILTER_DROP_LENGTH) > 0);
    assert_int_equal(filter_count(f, FILTER_FLOW_RECORDED), 0);
    filter_free(f);
}

/* The IP length ends the packet, whatever follows it. */
static void
test_padding(void **state)
{
    struct filter *f = filter_of(OPEN, NULL);
    uint8_t b[128];

    (void)state;
    packet(b, 6, "100.64.0.2", "100.64.0.1", 1, 2, SYN);
    assert_int_equal(filter_in(f, b, 100, false), FILTER_ACCEPT);
    put16(b + 2, 39); /* a TCP header one byte short */
    assert_int_equal(filter_in(f, b, 100, false), FILTER_DROP);
    put16(b + 2, 19);
    assert_int_equal(filter_in(f, b, 100, false), FILTER_DROP);
    filter_free(f);
}

static void
test_bad_headers(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
        enum filter_reason why;
    } patches[] = {
        {0, 0x05, FILTER_DROP_HEADER}, /* version 0 */
        {0, 0x55, FILTER_DROP_HEADER}, {0, 0xf5, FILTER_DROP_HEADER},
        {0, 0x44, FILTER_DROP_HEADER}, /* 16-byte header */
        {0, 0x4f, FILTER_DROP_LENGTH}, /* 60-byte header, no more than 40 */
        {9, 0, FILTER_DROP_PROTO}, {9, 255, FILTER_DROP_PROTO},
        {16, 224, FILTER_DROP_MULTICAST}, {16, 239, FILTER_DROP_MULTICAST},
        {16, 240, FILTER_DROP_NOT_LOCAL},
        {6, 0x20, FILTER_DROP_FRAGMENT}, /* first fragment of 20 bytes */
        {7, 9, FILTER_DROP_FRAGMENT},    /* offset 72 */
    };
    struct filter *f = filter_of(OPEN, NULL);
    uint64_t before;
    uint8_t b[128];
    size_t i, len;

    (void)state;
    for (i = 0; i < sizeof(patches) / sizeof(patches[0]); i++) {
        len = packet(b, 6, "100.64.0.2", "100.64.0.1", 1, 2, SYN);
        b[patches[i].at] = patches[i].value;
        before = filter_count(f, patches[i].why);
        assert_int_equal(filter_in(f, b, len, false), FILTER_DROP);
        if (filter_count(f, patches[i].why) != before + 1) {
            fail_msg("patch %zu does not count as %s", i,
                filter_reason_name(patches[i].why));
        }
    }
    filter_free(f);
}

static void
test_fragments(void **state)
{
    struct filter *f = filter_of(OPEN, NULL);
    uint8_t b[128];

    (void)state;
    /* a first fragment that holds all headers is judged by its ports */
    packet(b, 17, "100.64.0.2", "100.64.0.1", 1, 2, 0);
    put16(b + 2, 100);
    b[6] = 0x20;
    assert_int_equal(filter_in(f, b, 100, false), FILTER_ACCEPT);
    assert_int_equal(filter_count(f, FILTER_ACCEPT_RULE), 1);
    put16(b + 2, 99);
    assert_int_equal(filter_in(f, b, 99, false), FILTER_DROP);
    /* a later one slides through, even with nothing in it */
    put16(b + 2, 20);
    put16(b + 6, 10);
    assert_int_equal(filter_in(f, b, 20, false), FILTER_ACCEPT);
    assert_int_equal(filter_count(f, FILTER_ACCEPT_ANSWER), 1);
    filter_free(f);
}

/* Extension headers are protocols of their own: only a rule that names their
 * number lets them in, and no ports are looked for behind them. */
static void
test_ipv6_extensions(void **state)
{
    static const char named[] =
        "{\"Node\":{\"Addresses\":[\"fd7a::1\"]},\"PacketFilter\":[{"
        "\"SrcIPs\":[\"fd7a::2\"],\"IPProto\":[44],\"DstPorts\":[{\"IP\":"
        "\"fd7a::1\",\"Ports\":{\"First\":0,\"Last\":65535}}]}]}";
    static const struct probe open[] = {
        {"fd7a::2", "fd7a::1", 0, 0, 0, FILTER_DROP, FILTER_DROP_PROTO},
        {"fd7a::2", "fd7a::1", 43, 0, 0, NO_RULE},
        {"fd7a::2", "fd7a::1", 44, 0, 0, NO_RULE},
        {"fd7a::2", "fd7a::1", 60, 0, 0, NO_RULE},
        {"fd7a::2", "fd7a::1", 59, 0, 0, NO_RULE},
        {"fd7a::2", "fd7a::1", 51, 0, 0, NO_RULE},
        /* the other family's ICMP: like any protocol, and the rule is of the
         * default protocols with all ports */
        {"fd7a::2", "fd7a::1", 1, 0, 8, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 58, 0, 128, OK_RULE},
    };
    static const struct probe fragments[] = {
        {"fd7a::2", "fd7a::1", 44, 0, 0, OK_RULE},
        {"fd7a::3", "fd7a::1", 44, 0, 0, NO_RULE},
        {"fd7a::2", "fd7a::1", 60, 0, 0, NO_RULE},
    };
    struct filter *f = filter_of(OPEN, NULL);

    (void)state;
    RUN(f, open);
    filter_free(f);
    f = filter_of(named, NULL);
    RUN(f, fragments);
    filter_free(f);
}

static void
test_special_addresses(void **state)
{
    static const struct tn_prefix all[] = {
        {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}}, 96},
        {{{0}}, 0},
    };
    static const struct filter_local local = {all, 2, false, false};
    static const struct probe list[] = {
        {"100.64.0.2", "169.254.1.1", 6, 80, SYN, FILTER_DROP,
            FILTER_DROP_LINK_LOCAL},
        {"100.64.0.2", "169.254.169.254", 6, 80, SYN, OK_RULE},
        {"100.64.0.2", "169.254.169.253", 6, 80, ACK, FILTER_DROP,
            FILTER_DROP_LINK_LOCAL},
        {"100.64.0.2", "224.0.0.1", 17, 80, 0, FILTER_DROP,
            FILTER_DROP_MULTICAST},
        {"fd7a::2", "fe80::1", 6, 80, SYN, FILTER_DROP, FILTER_DROP_LINK_LOCAL},
        {"fd7a::2", "febf::1", 6, 80, SYN, FILTER_DROP, FILTER_DROP_LINK_LOCAL},
        {"fd7a::2", "fec0::1", 6, 80, SYN, OK_RULE},
        {"fd7a::2", "ff02::1", 58, 0, 135, FILTER_DROP, FILTER_DROP_MULTICAST},
        {"100.64.0.2", "10.1.2.3", 6, 80, SYN, OK_RULE},
    };
    struct filter *f = filter_of(OPEN, &local);
    uint8_t b[128];
    size_t len;

    (void)state;
    RUN(f, list);
    /* an IPv4-mapped source in an IPv6 header is not that IPv4 address */
    len = packet(b, 6, "fd7a::2", "fd7a::1", 1, 2, SYN);
    memset(b + 8, 0, 10);
    b[18] = b[19] = 0xff;
    assert_int_equal(filter_in(f, b, len, false), FILTER_DROP);
    assert_int_equal(filter_count(f, FILTER_DROP_HEADER), 1);
    filter_free(f);
}

static void
test_garbage(void **state)
{
    struct filter *f = filter_of(OPEN, NULL);
    uint64_t seed = 1, total = 0;
    uint8_t b[64], *tight;
    size_t i, len;
    int round, r;

    (void)state;
    for (round = 0; round < 200000; round++) {
        for (i = 0; i < sizeof(b); i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            b[i] = (uint8_t)(seed >> 56);
        }
        if (round % 3 != 0) { /* get further than the first byte */
            b[0] = round % 3 == 1 ? 0x45 : 0x60;
            b[2] = b[4] = 0;
            memcpy(b + (round % 3 == 1 ? 16 : 24),
                round % 3 == 1 ? "\x64\x40\x00\x01" : "\xfd\x7a\0\0", 4);
        }
        len = b[63] % 64;
        tight = malloc(len + 1);
        memcpy(tight, b, len);
        filter_in(f, tight, len, false);
        filter_out(f, tight, len);
        free(tight);
    }
    for (r = 0; r <= FILTER_DROP_JAILED; r++) {
        total += filter_count(f, (enum filter_reason)r);
    }
    assert_int_equal(total, 200000); /* each packet has one reason */
    filter_free(f);
}

/* ---- rules ---- */

static void
test_families(void **state)
{
    static const char json[] =
        "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]},"
        "\"PacketFilter\":["
        "{\"SrcIPs\":[\"::/0\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":"
        "{\"First\":1,\"Last\":1}}]},"
        "{\"SrcIPs\":[\"0.0.0.0/0\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":"
        "{\"First\":2,\"Last\":2}}]},"
        "{\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"::/0\",\"Ports\":"
        "{\"First\":3,\"Last\":3}}]},"
        "{\"SrcIPs\":[\"100.64.0.0-100.64.0.9\"],\"DstPorts\":[{\"IP\":"
        "\"fd7a::1\",\"Ports\":{\"First\":4,\"Last\":4}}]}]}";
    static const struct probe list[] = {
        {"fd7a::2", "fd7a::1", 6, 1, SYN, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 6, 1, SYN, REJECTED},
        {"fd7a::2", "fd7a::1", 6, 2, SYN, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 6, 2, SYN, OK_RULE},
        {"fd7a::2", "fd7a::1", 6, 3, SYN, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 6, 3, SYN, REJECTED},
        {"100.64.0.2", "100.64.0.1", 6, 4, SYN, REJECTED},
        {"fd7a::2", "fd7a::1", 6, 4, SYN, NO_RULE},
    };
    struct filter *f = filter_of(json, NULL);

    (void)state;
    RUN(f, list);
    filter_free(f);
}

/* Step 12 wants one entry of 0-65535, not entries that add up to it; no IPProto
 * in range matches nothing; SCTP has ports. */
static void
test_protocols(void **state)
{
    static const char json[] =
        "{\"Node\":{\"Addresses\":[\"100.64.0.1\"]},\"PacketFilter\":["
        "{\"SrcIPs\":[\"100.64.0.2\"],\"IPProto\":[47],\"DstPorts\":["
        "{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":100}},"
        "{\"IP\":\"*\",\"Ports\":{\"First\":101,\"Last\":65535}}]},"
        "{\"SrcIPs\":[\"100.64.0.3\"],\"IPProto\":[47,300,-1],\"DstPorts\":["
        "{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":100}},"
        "{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":65535}}]},"
        "{\"SrcIPs\":[\"100.64.0.4\"],\"IPProto\":[256],\"DstPorts\":["
        "{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":65535}}]},"
        "{\"SrcIPs\":[\"100.64.0.5\"],\"IPProto\":[132],\"DstPorts\":["
        "{\"IP\":\"*\",\"Ports\":{\"First\":7,\"Last\":8}},"
        "{\"IP\":\"*\",\"Ports\":{\"First\":10,\"Last\":10}},"
        "{\"IP\":\"*\",\"Ports\":{\"First\":65535,\"Last\":65535}}]}]}";
    static const struct probe list[] = {
        {"100.64.0.2", "100.64.0.1", 47, 0, 0, NO_RULE},
        {"100.64.0.3", "100.64.0.1", 47, 0, 0, OK_RULE},
        {"100.64.0.3", "100.64.0.1", 6, 1, SYN, REJECTED},
        {"100.64.0.4", "100.64.0.1", 6, 1, SYN, REJECTED},
        {"100.64.0.4", "100.64.0.1", 47, 1, 0, NO_RULE},
        {"100.64.0.5", "100.64.0.1", 132, 6, 0, NO_RULE},
        {"100.64.0.5", "100.64.0.1", 132, 7, 0, OK_RULE},
        {"100.64.0.5", "100.64.0.1", 132, 8, 0, OK_RULE},
        {"100.64.0.5", "100.64.0.1", 132, 9, 0, NO_RULE},
        {"100.64.0.5", "100.64.0.1", 132, 10, 0, OK_RULE},
        {"100.64.0.5", "100.64.0.1", 132, 65535, 0, OK_RULE},
        {"100.64.0.5", "100.64.0.1", 17, 7, 0, NO_RULE},
    };
    struct filter *f = filter_of(json, NULL);

    (void)state;
    RUN(f, list);
    filter_free(f);
}

static void
test_capability_sources(void **state)
{
    static const char json[] =
        "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"],"
        "\"CapMap\":{\"x\":null}},\"Peers\":["
        "{\"ID\":2,\"Key\":\"" K(
            "2") "\",\"Addresses\":[\"100.64.0.2\","
                 "\"fd7a::2\"],\"AllowedIPs\":[\"100.64.0.2\",\"fd7a::2\","
                 "\"10.0.0.0/8\"],\"CapMap\":{\"x\":null,\"other\":[]}},"
                 "{\"ID\":3,\"Key\":\"" K(
                     "3") "\",\"Addresses\":[\"100.64.0.3\"],"
                          "\"Capabilities\":[\"x\",\"y\"]},"
                          "{\"ID\":4,\"Key\":\"" K(
                              "4") "\",\"Addresses\":[\"100.64.0.4\"],"
                                   "\"UnsignedPeerAPIOnly\":true,\"CapMap\":{"
                                   "\"x\":null}}],"
                                   "\"PacketFilter\":["
                                   "{\"SrcIPs\":[\"cap:x\"],\"DstPorts\":[{"
                                   "\"IP\":\"100.64.0.1\","
                                   "\"Ports\":{\"First\":22,\"Last\":22}}]},"
                                   "{\"SrcIPs\":[\"cap:y\"],\"IPProto\":[47],"
                                   "\"DstPorts\":[{\"IP\":"
                                   "\"100.64.0.1\",\"Ports\":{\"First\":0,"
                                   "\"Last\":65535}}]},"
                                   "{\"SrcIPs\":[\"cap:other\"],\"DstPorts\":[{"
                                   "\"IP\":\"fd7a::99\","
                                   "\"Ports\":{\"First\":22,\"Last\":22}}]}]}";
    static const struct probe list[] = {
        {"100.64.0.2", "100.64.0.1", 6, 22, SYN, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 6, 23, SYN, REJECTED},
        {"100.64.0.3", "100.64.0.1", 6, 22, SYN, OK_RULE},
        {"100.64.0.3", "100.64.0.1", 47, 0, 0, NO_RULE}, /* step 12: no caps */
        {"100.64.0.4", "100.64.0.1", 6, 22, SYN, REJECTED}, /* unsigned */
        {"100.64.0.1", "100.64.0.1", 6, 22, SYN, REJECTED}, /* self */
        {"10.0.0.1", "100.64.0.1", 6, 22, SYN, REJECTED},   /* only routed */
        {"100.64.0.2", "100.64.0.1", 1, 0, 8, OK_RULE},
        {"100.64.0.4", "100.64.0.1", 1, 0, 8, NO_RULE},
        /* cap:x has no IPv6 destination; cap:other opens ICMP by source alone
         */
        {"fd7a::2", "fd7a::1", 6, 22, SYN, NO_RULE},
        {"fd7a::2", "fd7a::1", 58, 0, 128, OK_RULE},
    };
    struct filter *f = filter_of(json, NULL);

    (void)state;
    RUN(f, list);
    filter_free(f);
}

/* Destinations in an advertised route, which overlaps the own address. */
static void
test_routes(void **state)
{
    static const char json[] =
        "{\"Node\":{\"Addresses\":[\"10.0.0.1\"]},\"PacketFilter\":["
        "{\"SrcIPs\":[\"100.64.0.2\"],\"DstPorts\":["
        "{\"IP\":\"10.0.0.0/24\",\"Ports\":{\"First\":80,\"Last\":80}},"
        "{\"IP\":\"10.0.0.1\",\"Ports\":{\"First\":443,\"Last\":443}},"
        "{\"IP\":\"10.0.0.7-10.0.3.9\",\"Ports\":{\"First\":22,\"Last\":22}}"
        "]}]}";
    static const struct tn_prefix routes[] = {
        {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0}}, 118},
    };
    static const struct filter_local local = {routes, 1, false, false};
    static const struct probe list[] = {
        {"100.64.0.2", "10.0.0.1", 6, 80, SYN, OK_RULE},
        {"100.64.0.2", "10.0.0.1", 6, 443, SYN, OK_RULE},
        {"100.64.0.2", "10.0.0.2", 6, 443, SYN, REJECTED},
        {"100.64.0.2", "10.0.0.255", 6, 80, SYN, OK_RULE},
        {"100.64.0.2", "10.0.1.0", 6, 80, SYN, REJECTED},
        {"100.64.0.2", "10.0.0.6", 6, 22, SYN, REJECTED},
        {"100.64.0.2", "10.0.0.7", 6, 22, SYN, OK_RULE},
        {"100.64.0.2", "10.0.3.9", 6, 22, SYN, OK_RULE},
        {"100.64.0.2", "10.0.3.10", 6, 22, SYN, REJECTED},
        {"100.64.0.2", "10.0.4.0", 6, 22, SYN, FILTER_DROP,
            FILTER_DROP_NOT_LOCAL},
        {"100.64.0.2", "10.0.3.9", 1, 0, 8, OK_RULE},
        {"100.64.0.2", "10.0.3.10", 1, 0, 8, NO_RULE},
    };
    struct filter *f = filter_of(json, &local);

    (void)state;
    RUN(f, list);
    filter_free(f);
}

/* Compiled rules against the plainest reading of them, on random ones. */
static bool
plain_range(const struct netmap_ip_range *r, const struct tn_addr *a)
{
    return r->any ||
           (tn_addr_is4(&r->first) == tn_addr_is4(a) &&
               memcmp(&r->first, a, 16) <= 0 && memcmp(a, &r->last, 16) <= 0);
}

static bool
plain(const struct netmap *nm, const struct tn_addr *src,
    const struct tn_addr *dst, unsigned proto, unsigned port)
{
    const struct netmap_rule *r;
    unsigned i, j;
    bool hit;

    for (i = 0; i < nm->nrules; i++) {
        r = &nm->rules[i];
        hit = false;
        for (j = 0; j < r->nsrcs; j++) {
            hit = hit || plain_range(&r->srcs[j], src);
        }
        if (!hit || !(r->protos[proto / 8] >> proto % 8 & 1)) {
            continue;
        }
        for (j = 0; j < r->ndsts; j++) {
            if (plain_range(&r->dsts[j].ip, dst) && r->dsts[j].first <= port &&
                port <= r->dsts[j].last) {
                return true;
            }
        }
    }
    return false;
}

static size_t
random_ip(char *out, uint64_t *seed)
{
    uint32_t a = draw(seed, 64), b = draw(seed, 64), t;

    switch (draw(seed, 12)) {
    case 0:
        return (size_t)sprintf(out, "\"*\"");
    case 1:
        return (size_t)sprintf(out, "\"10.0.0.%u/28\"", a & 0x30);
    case 2:
    case 3:
        t = a < b ? a : b;
        b = a < b ? b : a;
        return (size_t)sprintf(out, "\"10.0.0.%u-10.0.0.%u\"", t, b);
    case 4:
        return (size_t)sprintf(out, "\"fd7a::%x\"", a);
    default:
        return (size_t)sprintf(out, "\"10.0.0.%u\"", a);
    }
}

/* Addresses 10.0.0.0 to .63, ports 0 to 31, both protocols. */
static char *
random_rules(uint64_t *seed)
{
    char *json = malloc(1 << 18), *p = json;
    uint32_t rules = 1 + draw(seed, 12), i, j, n, first;

    p += sprintf(p, "{\"Node\":{\"Addresses\":[\"10.0.0.8/30\",\"10.0.0.9\","
                    "\"10.0.0.33\"]},\"PacketFilter\":[");
    for (i = 0; i < rules; i++) {
        p += sprintf(p, "%s{\"IPProto\":[%s],\"SrcIPs\":[", i ? "," : "",
            draw(seed, 2) ? "6" : "6,17");
        n = 1 + draw(seed, 8);
        for (j = 0; j < n; j++) {
            p += sprintf(p, "%s", j ? "," : "");
            p += random_ip(p, seed);
        }
        p += sprintf(p, "],\"DstPorts\":[");
        n = 1 + draw(seed, 8);
        for (j = 0; j < n; j++) {
            p += sprintf(p, "%s{\"IP\":", j ? "," : "");
            p += random_ip(p, seed);
            first = draw(seed, 32);
            p += sprintf(p, ",\"Ports\":{\"First\":%u,\"Last\":%u}}", first,
                first + draw(seed, 6));
        }
        p += sprintf(p, "]}");
    }
    sprintf(p, "]}");
    return json;
}

static void
test_against_plain(void **state)
{
    static const char *const dsts[] = {
        "10.0.0.8", "10.0.0.9", "10.0.0.11", "10.0.0.33"};
    uint64_t seed = 42;
    struct tn_addr src, dst;
    struct netmap *nm;
    struct filter *f;
    char *json, text[16];
    uint8_t b[128];
    unsigned round, i, d, port, proto, want, accepted = 0;
    size_t len;

    (void)state;
    for (round = 0; round < 60; round++) {
        json = random_rules(&seed);
        nm = map_of(json);
        f = filter_new(nm, NULL);
        assert_non_null(f);
        for (i = 0; i < 4000; i++) {
            d = draw(&seed, 4);
            port = draw(&seed, 40);
            proto = draw(&seed, 2) ? 6 : 17;
            sprintf(text, "10.0.0.%u", draw(&seed, 64));
            src = addr(text);
            dst = addr(dsts[d]);
            len = packet(b, proto, text, dsts[d], 1, port, SYN);
            want = plain(nm, &src, &dst, proto, port);
            accepted += want;
            if ((filter_in(f, b, len, false) == FILTER_ACCEPT) != want) {
                fail_msg("%s to %s proto %u port %u, want %u: %s", text,
                    dsts[d], proto, port, want, json);
            }
        }
        filter_free(f);
        netmap_free(nm);
        free(json);
    }
    assert_in_range(accepted, 10000, 230000);
}

/* ---- answers ---- */

static const struct probe answers[] = {
    {"100.64.0.2", "100.64.0.1", 6, 80, ACK, OK_ANSWER},
    {"100.64.0.2", "100.64.0.1", 6, 80, SYN | ACK, OK_ANSWER},
    {"100.64.0.2", "100.64.0.1", 6, 80, 0, OK_ANSWER},
    {"100.64.0.2", "100.64.0.1", 1, 0, 0, OK_ANSWER},
    {"100.64.0.2", "100.64.0.1", 1, 0, 3, OK_ANSWER},
    {"100.64.0.2", "100.64.0.1", 1, 0, 11, OK_ANSWER},
    {"100.64.0.2", "100.64.0.1", 1, 0, 12, OK_ANSWER},
    {"fd7a::2", "fd7a::1", 58, 0, 129, OK_ANSWER},
    {"fd7a::2", "fd7a::1", 58, 0, 1, OK_ANSWER},
    {"fd7a::2", "fd7a::1", 58, 0, 2, OK_ANSWER},
    {"fd7a::2", "fd7a::1", 58, 0, 3, OK_ANSWER},
    {"fd7a::2", "fd7a::1", 58, 0, 4, OK_ANSWER},
    {"100.64.0.2", "100.64.0.1", 99, 0, 0, OK_ANSWER},
};

static void
test_NOTHING_OPEN(void **state)
{
    static const struct probe list[] = {
        {"100.64.0.2", "100.64.0.1", 6, 80, SYN, REJECTED},
        {"fd7a::2", "fd7a::1", 6, 80, SYN, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 17, 80, 0, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 1, 0, 8, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 1, 0, 5, NO_RULE}, /* redirect */
        {"fd7a::2", "fd7a::1", 58, 0, 128, NO_RULE},
        {"fd7a::2", "fd7a::1", 58, 0, 134, NO_RULE}, /* router advert */
        {"fd7a::2", "fd7a::1", 58, 0, 5, NO_RULE},
    };
    struct filter *f = filter_of(NOTHING_OPEN, NULL);

    (void)state;
    RUN(f, answers);
    RUN(f, list);
    filter_free(f);
}

#define JAILED      FILTER_DROP, FILTER_DROP_JAILED
#define JAILED_SYN4 FILTER_REJECT, FILTER_DROP_JAILED

static void
test_jailed(void **state)
{
    static const struct probe list[] = {
        {"100.64.0.2", "100.64.0.1", 6, 80, SYN, JAILED_SYN4},
        {"fd7a::2", "fd7a::1", 6, 80, SYN, JAILED},
        {"100.64.0.2", "100.64.0.1", 17, 80, 0, JAILED},
        {"100.64.0.2", "100.64.0.1", 1, 0, 8, JAILED},
        {"100.64.0.2", "100.64.0.1", 47, 0, 0, JAILED},
    };
    static const struct filter_local shields = {NULL, 0, true, true};
    static const struct ipc_listener listener = {80, 6, 0};
    struct filter *f = filter_of(OPEN, NULL);
    uint8_t b[128];
    size_t len;

    (void)state;
    RUN_JAILED(f, answers);
    RUN_JAILED(f, list);
    len = packet(b, 17, "100.64.0.1", "100.64.0.2", 53, 4000, 0);
    filter_out(f, b, len);
    len = packet(b, 17, "100.64.0.2", "100.64.0.1", 4000, 53, 0);
    assert_int_equal(filter_in(f, b, len, true), FILTER_ACCEPT);
    filter_free(f);

    f = filter_of(OPEN, &shields); /* the same for everyone */
    RUN(f, answers);
    RUN(f, list);
    filter_free(f);

    f = filter_of(
        "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]}}", &shields);
    filter_set_listeners(f, &listener, 1);
    RUN(f, list);
    filter_free(f);
}

/* ---- a netmap without rules ---- */

static void
test_listeners(void **state)
{
    static const char json[] =
        "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]}}";
    static const struct tn_prefix routes[] = {
        {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0}}, 104},
    };
    static const struct filter_local file = {routes, 1, true, false},
                                     server = {NULL, 0, false, false};
    static const struct ipc_listener listeners[] = {
        {80, 6, 0}, {65535, 6, 0}, {443, 17, 0}, {0, 6, 0}, {99, 132, 0}};
    static const struct probe open[] = {
        {"100.64.0.2", "100.64.0.1", 6, 80, SYN, OK_RULE},
        {"fd7a::2", "fd7a::1", 6, 80, SYN, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 6, 65535, SYN, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 6, 0, SYN, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 6, 81, SYN, REJECTED},
        {"100.64.0.2", "100.64.0.1", 6, 443, SYN, REJECTED},
        {"100.64.0.2", "100.64.0.1", 17, 443, 0, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 17, 80, 0, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 132, 99, 0, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 1, 0, 8, OK_RULE},
        {"fd7a::2", "fd7a::1", 58, 0, 128, OK_RULE},
        {"100.64.0.2", "100.64.0.1", 1, 0, 13, NO_RULE},
        {"fd7a::2", "fd7a::1", 58, 0, 133, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 47, 0, 0, NO_RULE},
        {"100.64.0.2", "10.0.0.1", 6, 80, SYN, REJECTED}, /* routed, not own */
        {"100.64.0.2", "10.0.0.1", 1, 0, 8, NO_RULE},
        {"100.64.0.2", "100.64.0.9", 6, 80, SYN, FILTER_DROP,
            FILTER_DROP_NOT_LOCAL},
    };
    static const struct probe none[] = {
        {"100.64.0.2", "100.64.0.1", 6, 80, SYN, REJECTED},
        {"100.64.0.2", "100.64.0.1", 1, 0, 8, OK_RULE},
    };
    static const struct probe closed[] = {
        {"100.64.0.2", "100.64.0.1", 6, 80, SYN, REJECTED},
        {"100.64.0.2", "100.64.0.1", 17, 443, 0, NO_RULE},
        {"100.64.0.2", "100.64.0.1", 1, 0, 8, NO_RULE},
    };
    struct filter *f = filter_of(json, &file);

    (void)state;
    filter_set_listeners(f, listeners, 5);
    RUN(f, open);
    RUN(f, answers);
    filter_set_listeners(f, NULL, 0);
    RUN(f, none);
    filter_free(f);

    /* before a control server's first filter: nothing */
    f = filter_of(json, &server);
    filter_set_listeners(f, listeners, 5);
    RUN(f, closed);
    filter_free(f);
    f = filter_of(json, NULL);
    filter_set_listeners(f, listeners, 5);
    RUN(f, closed);
    filter_free(f);

    /* rules that are there, though none of them, rule */
    f = filter_of(NOTHING_OPEN, &file);
    filter_set_listeners(f, listeners, 5);
    RUN(f, closed);
    filter_free(f);
}

/* ---- many rules ---- */

/* 8,192 rules of 16 sources each: the number that do not match is of no
 * matter.  Generous, for slow machines and sanitizers: a scan of all entries
 * would take a hundred times as long. */
static void
test_many_rules(void **state)
{
    char *json = malloc(8u << 20), *p = json, src[16];
    struct timespec t0, t1;
    struct filter *f;
    uint8_t b[128];
    double each;
    unsigned i, j, n = 0;
    size_t len;

    (void)state;
    p += sprintf(
        p, "{\"Node\":{\"Addresses\":[\"100.64.0.1\"]},\"PacketFilter\":[");
    for (i = 0; i < 8192; i++) {
        p += sprintf(p, "%s{\"SrcIPs\":[", i ? "," : "");
        for (j = 0; j < 16; j++) {
            p += sprintf(
                p, "%s\"10.%u.%u.%u\"", j ? "," : "", i >> 8, i & 255, j * 2);
        }
        p += sprintf(p,
            "],\"DstPorts\":[{\"IP\":\"100.64.0.1\",\"Ports\":{\"First\":%u,"
            "\"Last\":%u}}]}",
            i, i + 1);
    }
    sprintf(p, "]}");
    f = filter_of(json, NULL);
    free(json);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
    for (i = 0; i < 8192; i++) {
        sprintf(src, "10.%u.%u.%u", i >> 8, i & 255, 2 * (i % 16) + i % 2);
        len = packet(b, 6, src, "100.64.0.1", 1, i + 1, SYN);
        n += filter_in(f, b, len, false) == FILTER_ACCEPT;
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
    assert_int_equal(n, 4096);
    each = ((double)(t1.tv_sec - t0.tv_sec) * 1e9 +
               (double)(t1.tv_nsec - t0.tv_nsec)) /
           8192;
    print_message("# %.0f ns for each of 8192 rules' packets\n", each);
    assert_true(each < 20000);
    filter_free(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_ipv6_extensions),
        cmocka_unit_test(test_special_addresses),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_capability_sources),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_against_plain),
        cmocka_unit_test(test_NOTHING_OPEN),
        cmocka_unit_test(test_jailed),
        cmocka_unit_test(test_listeners),
        cmocka_unit_test(test_many_rules),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: core/tn_addr.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* links: tailnetd/engine/filter.c tailnetd/engine/filter_flow.c */
/* links: tailnetd/engine/filter_packet.c tailnetd/engine/filter_rules.c */
/* links: tailnetd/engine/grants.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/ping.c */
/* links: tailnetd/engine/span.c tailnetd/magic/tsmp.c */
/* libs: -ljansson */
/* max_len: 2048 */
/*
 * Packets of any bytes in and out of a packet filter.  Each counts under one
 * reason, which fits the verdict; an answer to a UDP packet that went out comes
 * in.
 */
#include "../../ngx_tailnet_module/tailnetd/control/map_json.h"
#include "../../ngx_tailnet_module/tailnetd/engine/filter.h"
#include "../../ngx_tailnet_module/tailnetd/engine/filter_packet.h"
#include "../../ngx_tailnet_module/tailnetd/engine/ping.h"
#include "../../ngx_tailnet_module/tailnetd/ipc.h"
#include "fuzz.h"

#define ZEROS "00000000000000000000000000000000000000000000000000000000000000"
#define SELF  "\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]}"

static const char *const maps[] = {
    "{" SELF "}",
    "{" SELF ",\"PacketFilter\":[]}",
    "{" SELF ",\"PacketFilter\":["
    "{\"SrcIPs\":[\"100.64.0.2\",\"fd7a::2\"],\"DstPorts\":[{\"IP\":\"*\","
    "\"Ports\":{\"First\":80,\"Last\":443}}]},"
    "{\"SrcIPs\":[\"100.64.0.0/16\"],\"IPProto\":[17,1,99],\"DstPorts\":[{"
    "\"IP\":\"100.64.0.1\",\"Ports\":{\"First\":0,\"Last\":65535}}]},"
    "{\"SrcIPs\":[\"100.64.1.1-100.64.2.9\"],\"DstPorts\":[{\"IP\":"
    "\"100.64.0.0/24\",\"Ports\":{\"First\":22,\"Last\":22}}]}]}",
    "{" SELF ",\"Peers\":[{\"ID\":2,\"Key\":\"nodekey:01" ZEROS "\","
    "\"Addresses\":[\"100.64.0.2\",\"fd7a::2\"],\"CapMap\":{\"x\":null}}],"
    "\"PacketFilter\":["
    "{\"SrcIPs\":[\"cap:x\",\"100.64.3.3\"],\"DstPorts\":[{\"IP\":\"*\","
    "\"Ports\":{\"First\":22,\"Last\":22}}]},"
    "{\"SrcIPs\":[\"*\"],\"IPProto\":[47,132],\"DstPorts\":["
    "{\"IP\":\"*\",\"Ports\":{\"First\":0,\"Last\":65535}}]}]}",
};
#define MAPS (sizeof(maps) / sizeof(maps[0]))

static struct netmap *netmaps[MAPS];

static void
load(void)
{
    static struct map_json_error err;
    size_t i;

    for (i = 0; i < MAPS; i++) {
        netmaps[i] = map_json_parse(maps[i], strlen(maps[i]), &err);
        FUZZ_MUST(netmaps[i] != NULL);
    }
}

static uint64_t
inbound(const struct filter *f)
{
    uint64_t n = 0;
    int r;

    for (r = 0; r < FILTER_FLOW_RECORDED; r++)
        n += filter_count(f, (enum filter_reason)r);
    return n;
}

static uint64_t
accepted(const struct filter *f)
{
    return filter_count(f, FILTER_ACCEPT_EMPTY) +
           filter_count(f, FILTER_ACCEPT_ANSWER) +
           filter_count(f, FILTER_ACCEPT_RULE);
}

static void
enter(struct filter *f, const uint8_t *p, size_t len, bool jailed)
{
    uint64_t all = inbound(f), good = accepted(f),
             rule = filter_count(f, FILTER_ACCEPT_RULE);
    enum filter_verdict v = filter_in(f, p, len, jailed);

    FUZZ_MUST(inbound(f) == all + 1);
    FUZZ_MUST(accepted(f) == good + (v == FILTER_ACCEPT));
    FUZZ_MUST(!jailed || filter_count(f, FILTER_ACCEPT_RULE) == rule);
    if (v == FILTER_REJECT)
        FUZZ_MUST(len >= 40 && p[0] >> 4 == 4 && p[9] == 6);
}

/* The answer to ${p}, a UDP packet that went out, is let in. */
static void
answer(struct filter *f, const uint8_t *p, size_t len)
{
    struct filter_packet k;
    uint8_t *back;
    size_t ports;

    if (filter_packet_read(&k, p, len) != FILTER_PACKET_WHOLE ||
        k.proto != FILTER_PACKET_UDP || !k.is4 || k.dst.b[12] != 100 ||
        k.src.b[12] != 100 || k.src.b[13] != 64 || k.src.b[14] != 0 ||
        k.src.b[15] != 1)
        return;
    back = fuzz_copy(p, len);
    ports = (size_t)(p[0] & 15) * 4;
    memcpy(back + 12, p + 16, 4);
    memcpy(back + 16, p + 12, 4);
    memcpy(back + ports, p + ports + 2, 2);
    memcpy(back + ports + 2, p + ports, 2);
    FUZZ_MUST(filter_in(f, back, len, true) == FILTER_ACCEPT);
    free(back);
}

/* A packet with headers that fit, for what the input does not say. */
static void
mend(uint8_t *p, size_t len, bool is6)
{
    static const uint8_t net[2] = {100, 64};

    if (len < (is6 ? 40 : 20))
        return;
    if (is6) {
        p[0] = 0x60;
        p[4] = (uint8_t)((len - 40) >> 8);
        p[5] = (uint8_t)(len - 40);
        p[8] = p[24] = 0xfd;
        p[9] = p[25] = 0x7a;
        memset(p + 10, 0, 13);
        memset(p + 26, 0, 13);
        return;
    }
    p[0] = 0x45;
    p[2] = (uint8_t)(len >> 8);
    p[3] = (uint8_t)len;
    memcpy(p + 12, net, 2);
    memcpy(p + 16, net, 2);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size}, part;
    struct ping_list pings = {.pending = {{.query = 1}}, .id = 7};
    struct ipc_listener listeners[4];
    struct filter_local local = {0};
    struct filter *f, *next;
    struct ping answered;
    uint8_t what, *p;

    if (netmaps[0] == NULL)
        load();
    pings.pending[0].to = tn_addr_from4((const uint8_t[4]){100, 64, 0, 2});
    what = fuzz_u8(&in);
    local.open_listeners = what & 4;
    local.shields_up = what & 8;
    f = filter_new(netmaps[what % MAPS], what & 16 ? &local : NULL);
    FUZZ_MUST(f != NULL);
    while (in.len > 0) {
        what = fuzz_u8(&in);
        part = fuzz_bytes(&in, fuzz_u8(&in));
        p = fuzz_copy(part.p, part.len);
        if (what & 1)
            mend(p, part.len, what & 2);
        if (what & 4) {
            filter_out(f, p, part.len);
            answer(f, p, part.len);
        } else {
            enter(f, p, part.len, what & 8);
        }
        ping_match(&pings, p, part.len, &answered);
        free(p);
        if (what == 254) {
            memset(listeners, 0, sizeof(listeners));
            part = fuzz_bytes(&in, sizeof(listeners));
            memcpy(listeners, part.p, part.len);
            filter_set_listeners(f, listeners, fuzz_u8(&in) % 5);
        }
        if (what == 255) {
            next = filter_new(netmaps[0], NULL);
            FUZZ_MUST(next != NULL);
            filter_inherit(next, f);
            filter_free(f);
            f = next;
        }
    }
    filter_free(f);
    return 0;
}

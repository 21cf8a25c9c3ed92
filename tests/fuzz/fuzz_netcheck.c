/* links: tailnetd/magic/netcheck.c tailnetd/magic/stun.c */
/* links: tailnetd/engine/ping.c tailnetd/magic/tsmp.c core/tn_addr.c */
/* max_len: 2048 */
/*
 * Answers to questions that this node asked, by the first byte: a story of
 * STUN servers, right answers and any bytes, of regions that come and go, with
 * time passing in between; ICMP echoes through the tunnel, and other pings.
 */
#include "../../ngx_tailnet_module/tailnetd/engine/ping.h"
#include "../../ngx_tailnet_module/tailnetd/magic/netcheck.h"
#include "../../ngx_tailnet_module/tailnetd/magic/stun.h"
#include "fuzz.h"

#define REGIONS    6
#define ASKED_MAX  256
#define STEPS_MAX  400
#define REPORT_MAX ((REGIONS)*2u * 4u)

/* ---- netcheck ---- */

static struct {
    uint8_t msg[ASKED_MAX][STUN_REQUEST_LEN];
    struct tn_endpoint to[ASKED_MAX];
    unsigned n;
    uint32_t seed;
} asked;

static void
on_send(void *ctx, const struct tn_endpoint *to, const uint8_t *msg, size_t len)
{
    (void)ctx;
    FUZZ_MUST(len == STUN_REQUEST_LEN && stun_looks(msg, len));
    FUZZ_MUST(to->port != 0);
    memcpy(asked.msg[asked.n % ASKED_MAX], msg, len);
    asked.to[asked.n++ % ASKED_MAX] = *to;
}

static void
on_random(void *ctx, uint8_t *buf, size_t len)
{
    size_t i;

    (void)ctx;
    for (i = 0; i < len; i++) {
        asked.seed = asked.seed * 1103515245u + 12345u;
        buf[i] = (uint8_t)(asked.seed >> 16);
    }
}

static const struct netcheck_ops ops = {.send = on_send, .random = on_random};

static bool
is_region(unsigned id)
{
    return id >= 1 && id <= REGIONS;
}

static void
set_regions(struct netcheck *n, struct fuzz_input *in)
{
    struct netcheck_region list[REGIONS];
    unsigned count = fuzz_u8(in) % (REGIONS + 1), i, k;
    uint8_t how;

    memset(list, 0, sizeof(list));
    for (i = 0; i < count; i++) {
        how = fuzz_u8(in);
        list[i].id = (uint16_t)(i + 1);
        list[i].no_home = (how & 1) != 0;
        list[i].score = (how & 2) != 0 ? how / 32.0 : 1.0;
        list[i].nservers = (how >> 2) % (NETCHECK_SERVERS + 1);
        for (k = 0; k < list[i].nservers; k++) {
            uint8_t four[4] = {192, 0, 2, (uint8_t)(i * 4 + k)},
                    six[16] = {0x20, 1, 0xd, 0xb8, (uint8_t)i, (uint8_t)k};

            list[i].servers[k][0].addr = tn_addr_from4(four);
            list[i].servers[k][0].port = (how & 16) != 0 ? 0 : STUN_PORT;
            list[i].servers[k][1].addr = tn_addr_from6(six);
            list[i].servers[k][1].port = (how & 32) != 0 ? 0 : STUN_PORT;
        }
    }
    FUZZ_MUST(netcheck_regions(n, list, count) == 0);
    FUZZ_MUST(!netcheck_running(n));
}

static void
check_report(const struct netcheck_report *r)
{
    unsigned i, k;

    FUZZ_MUST(r->nseen <= NETCHECK_SEEN);
    FUZZ_MUST(r->udp == (r->four || r->six));
    FUZZ_MUST(r->udp == (r->nseen > 0));
    FUZZ_MUST(!r->varies || (r->varies_known && r->four));
    for (i = 0; i < r->nseen; i++) {
        FUZZ_MUST(r->seen[i].at.port != 0 && r->seen[i].servers > 0);
        FUZZ_MUST(r->seen[i].servers <= REPORT_MAX);
        FUZZ_MUST(i == 0 || !tn_addr_is4(&r->seen[i].at.addr) ||
                  tn_addr_is4(&r->seen[i - 1].at.addr));
        for (k = 0; k < i; k++)
            FUZZ_MUST(r->seen[i].at.port != r->seen[k].at.port ||
                      !tn_addr_equal(&r->seen[i].at.addr, &r->seen[k].at.addr));
    }
}

/* A server's answer to one of the last questions, with our address as it says;
 * ${change}: with a bit of it changed. */
static bool
reply(struct netcheck *n, struct fuzz_input *in, uint64_t now, bool change)
{
    unsigned which = fuzz_u8(in), len = 32;
    uint8_t m[44] = {1, 1, 0, 12}, how = fuzz_u8(in), *copy;
    bool six, took;

    if (asked.n == 0)
        return false;
    which = (asked.n - 1 - which % (asked.n < 64 ? asked.n : 64)) % ASKED_MAX;
    six = !tn_addr_is4(&asked.to[which].addr) != ((how & 128) != 0);
    memcpy(m + 4, asked.msg[which] + 4, 16);
    m[21] = (how & 64) != 0 ? 0x20 : 1;
    m[23] = 8;
    m[25] = 1;
    m[26] = (uint8_t)(how & 7);
    m[27] = 1;
    m[28] = 203;
    if (six) {
        m[3] = 24;
        m[23] = 20;
        m[25] = 2;
        len = 44;
    }
    if (change)
        m[fuzz_u8(in) % len] ^= fuzz_u8(in);
    copy = fuzz_copy(m, len);
    took = netcheck_receive(n, copy, len, now);
    free(copy);
    return took;
}

static void
servers(struct fuzz_input *in)
{
    struct netcheck *n = netcheck_new(&ops, NULL);
    uint64_t now = 1000000;
    uint16_t home = 0;
    unsigned steps;
    uint8_t what, *copy;
    struct fuzz_input raw;

    FUZZ_MUST(n != NULL);
    memset(&asked, 0, sizeof(asked));
    set_regions(n, in);
    for (steps = 0; in->len > 0 && steps < STEPS_MAX; steps++) {
        what = fuzz_u8(in);
        switch (what & 7) {
        case 0:
            if ((what & 0xf0) == 0xf0)
                set_regions(n, in);
            break;
        case 1:
            if (netcheck_start(n, home, (what & 8) != 0, (what & 16) != 0, now))
                FUZZ_MUST(netcheck_running(n));
            break;
        case 2:
        case 3:
            (void)reply(n, in, now, (what & 0xf0) == 0xf0);
            break;
        case 4:
            raw = fuzz_bytes(in, what);
            copy = fuzz_copy(raw.p, raw.len);
            (void)netcheck_receive(n, copy, raw.len, now);
            free(copy);
            break;
        case 5:
            now += (uint64_t)(what >> 3) * 20 * NETCHECK_MS;
            break;
        case 6:
            now += (uint64_t)(what >> 3) * 20000 * NETCHECK_MS;
            break;
        default:
            home = netcheck_home(n, home, (what & 8) != 0, what, now);
            FUZZ_MUST(home == 0 || is_region(home));
            FUZZ_MUST(netcheck_latency(n, home, (what & 16) != 0, now) <=
                      UINT32_MAX / 2);
        }
        if (netcheck_tick(n, now)) {
            FUZZ_MUST(!netcheck_running(n));
            check_report(netcheck_report(n));
        }
        FUZZ_MUST((netcheck_deadline(n) == UINT64_MAX) == !netcheck_running(n));
        FUZZ_MUST(netcheck_deadline(n) > now || !netcheck_running(n));
    }
    netcheck_free(n);
}

/* ---- echoes ---- */

static struct tn_addr
address(unsigned i, bool six)
{
    uint8_t four[4] = {100, 64, 0, (uint8_t)i},
            b[16] = {0xfd, 0x7a, [15] = (uint8_t)i};

    return six ? tn_addr_from6(b) : tn_addr_from4(four);
}

/* What the other node would send back. */
static void
turn(uint8_t *p)
{
    uint8_t src[16];

    if (p[0] >> 4 == 4) {
        memcpy(src, p + 12, 4);
        memcpy(p + 12, p + 16, 4);
        memcpy(p + 16, src, 4);
        p[20] = 0;
    } else {
        memcpy(src, p + 8, 16);
        memcpy(p + 8, p + 24, 16);
        memcpy(p + 24, src, 16);
        p[40] = 129;
    }
}

/* Pings by TSMP and disco, and tokens of any bytes. */
static void
tokens(struct fuzz_input *in)
{
    uint8_t token[PING_TOKEN_LEN], packet[PING_PACKET_MAX];
    uint8_t sent[2][PING_TOKEN_LEN] = {{0}};
    struct ping_list l = {.id = 0x1234};
    struct tn_addr from = address(1, false);
    unsigned pending = 0, queries = 0, what, steps;
    struct fuzz_input raw;
    struct ping p, *row;

    for (steps = 0; in->len > 0 && steps < STEPS_MAX; steps++) {
        what = fuzz_u8(in);
        p = (struct ping){.query = queries + 1,
            .kind = (what & 1) != 0 ? PING_TSMP : PING_DISCO,
            .to = address(2, false),
            .deadline = 1};
        memcpy(token, sent[what & 1], sizeof(token));
        if ((what & 2) != 0) {
            if (p.kind == PING_DISCO && ping_token(&l, &p, token)) {
                pending++;
                queries++;
            } else if (p.kind == PING_TSMP &&
                       ping_make(&l, &from, &p, packet) > 0) {
                pending++;
                queries++;
                memcpy(token, packet + 21, TSMP_PING_LEN);
            }
            memcpy(sent[what & 1], token, sizeof(token));
            continue;
        }
        if ((what & 4) != 0)
            token[fuzz_u8(in) % sizeof(token)] ^= fuzz_u8(in);
        raw = fuzz_bytes(in, (what & 8) != 0 ? sizeof(token) : 0);
        if (raw.len > 0)
            memcpy(token, raw.p, raw.len);
        row = ping_find(&l, p.kind, token);
        FUZZ_MUST(row == NULL || (row->query != 0 && row->kind == p.kind));
        if (row != NULL && (what & 16) != 0) {
            ping_end(row);
            pending--;
            FUZZ_MUST(ping_find(&l, p.kind, token) == NULL);
        }
        FUZZ_MUST((ping_deadline(&l) == UINT64_MAX) == (pending == 0));
    }
}

static void
echoes(struct fuzz_input *in)
{
    uint8_t sent[PING_PENDING_MAX][PING_PACKET_MAX], packet[PING_PACKET_MAX];
    struct ping_list l = {.id = 0x1234};
    unsigned pending = 0, queries = 0, n = 0, what, steps;
    struct tn_addr from;
    struct fuzz_input raw;
    uint64_t now = 1000;
    struct ping p;
    uint8_t *copy;
    size_t len;

    for (steps = 0; in->len > 0 && steps < STEPS_MAX; steps++) {
        what = fuzz_u8(in);
        switch (what & 3) {
        case 0:
            from = address(1, (what & 4) != 0);
            p = (struct ping){.query = ++queries,
                .to = address(what >> 4, (what & 8) != 0),
                .sent = now,
                .deadline = now + (what >> 4)};
            len = ping_make(&l, &from, &p, packet);
            FUZZ_MUST(
                (len == 0) == (pending == PING_PENDING_MAX ||
                                  ((what & 4) != 0) != ((what & 8) != 0)));
            if (len == 0)
                break;
            pending++;
            memcpy(sent[n++ % PING_PENDING_MAX], packet, sizeof(packet));
            break;
        case 1:
            now += what >> 2;
            break;
        case 2:
            if (n == 0)
                break;
            memcpy(packet, sent[(what >> 3) % (n < 32 ? n : 32)], 64);
            turn(packet);
            if (what & 4)
                packet[fuzz_u8(in) % 64] ^= fuzz_u8(in);
            copy = fuzz_copy(packet, packet[0] >> 4 == 4 ? 28 : 48);
            if (ping_match(&l, copy, packet[0] >> 4 == 4 ? 28 : 48, &p)) {
                FUZZ_MUST(p.query != 0 && p.query <= queries && pending > 0);
                pending--;
            }
            free(copy);
            break;
        default:
            raw = fuzz_bytes(in, what);
            copy = fuzz_copy(raw.p, raw.len);
            if (ping_match(&l, copy, raw.len, &p)) {
                FUZZ_MUST(p.query != 0 && pending > 0);
                pending--;
            }
            free(copy);
        }
        while (ping_expire(&l, now, &p)) {
            FUZZ_MUST(p.query != 0 && p.deadline <= now && pending > 0);
            pending--;
        }
        FUZZ_MUST((ping_deadline(&l) == UINT64_MAX) == (pending == 0));
        FUZZ_MUST(ping_deadline(&l) > now);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint8_t kind = fuzz_u8(&in);

    if ((kind & 3) == 3)
        tokens(&in);
    else if (kind & 1)
        echoes(&in);
    else
        servers(&in);
    return 0;
}

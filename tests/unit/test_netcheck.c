/* links: tailnetd/magic/netcheck.c tailnetd/magic/stun.c core/tn_addr.c */
/* links: tailnetd/magic/endpoints.c */
/*
 * STUN servers at some distance, a NAT between them and us, a virtual clock.
 */
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/endpoints.h"
#include "../../ngx_tailnet_module/tailnetd/magic/netcheck.h"
#include "../../ngx_tailnet_module/tailnetd/magic/stun.h"

#define MS NETCHECK_MS

static struct {
    uint64_t now;
    uint32_t seed;
    struct netcheck *n;
    struct {
        uint64_t at;
        uint8_t msg[64];
        size_t len;
    } flight[512];
    unsigned nflight;
    unsigned asked[256]; /* by region */
    unsigned lose;       /* the first so many questions are lost */
    bool blocked, varies, silent6;
    uint64_t latency[256]; /* by region; 0: it is silent */
} net;

/* Server of region R at 192.0.2.R and 2001:db8::R. */
static struct netcheck_region
region(uint16_t id)
{
    struct netcheck_region r = {.id = id, .score = 1, .nservers = 1};

    r.servers[0][0] = kit_endpoint("192.0.2.0:3478");
    r.servers[0][0].addr.b[15] = (uint8_t)id;
    r.servers[0][1] = kit_endpoint("[2001:db8::]:3478");
    r.servers[0][1].addr.b[15] = (uint8_t)id;
    return r;
}

static void
reply(const uint8_t *ask, bool six, uint8_t id, uint64_t delay)
{
    uint8_t *m = net.flight[net.nflight].msg;
    uint16_t port = (uint16_t)(net.varies ? 50000 + id : 41641);
    static const uint8_t ip4[4] = {203, 0, 113, 7};
    size_t n = six ? 16 : 4, i;

    memcpy(m, ask, 20);
    m[0] = m[1] = 1;
    m[3] = (uint8_t)(8 + n);
    m[20] = 0;
    m[21] = 1;
    m[22] = 0;
    m[23] = (uint8_t)(4 + n);
    m[24] = 0;
    m[25] = six ? 2 : 1;
    m[26] = (uint8_t)(port >> 8);
    m[27] = (uint8_t)port;
    for (i = 0; i < n; i++)
        m[28 + i] = six ? (uint8_t)(0x20 + i) : ip4[i];
    net.flight[net.nflight].len = 28 + n;
    net.flight[net.nflight++].at = net.now + delay;
}

static void
op_send(void *ctx, const struct tn_endpoint *to, const uint8_t *msg, size_t len)
{
    uint8_t id = to->addr.b[15];
    bool six = !tn_addr_is4(&to->addr);

    (void)ctx;
    assert_int_equal(len, STUN_REQUEST_LEN);
    assert_true(stun_looks(msg, len));
    net.asked[id]++;
    if (net.lose > 0) {
        net.lose--;
        return;
    }
    if (net.blocked || net.latency[id] == 0 || (six && net.silent6))
        return;
    reply(msg, six, id, net.latency[id]);
}

static void
op_random(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    kit_fill(&net.seed, buf, len);
}

static const struct netcheck_ops ops = {op_send, op_random};

/* Until the run is over; how long it took. */
static uint64_t
run(uint16_t home, bool full, bool six)
{
    uint64_t began = net.now, at;
    unsigned i, guard = 0;

    memset(net.asked, 0, sizeof(net.asked));
    assert_true(netcheck_start(net.n, home, full, six, net.now));
    assert_false(netcheck_start(net.n, home, full, six, net.now));
    for (;;) {
        assert_true(guard++ < 10000);
        at = netcheck_deadline(net.n);
        for (i = 0; i < net.nflight; i++)
            at = net.flight[i].at < at ? net.flight[i].at : at;
        net.now = at > net.now ? at : net.now;
        for (i = 0; i < net.nflight;) {
            if (net.flight[i].at > net.now) {
                i++;
                continue;
            }
            (void)netcheck_receive(
                net.n, net.flight[i].msg, net.flight[i].len, net.now);
            net.flight[i] = net.flight[--net.nflight];
        }
        if (netcheck_tick(net.n, net.now))
            break;
    }
    assert_false(netcheck_running(net.n));
    net.nflight = 0;
    return net.now - began;
}

static int
setup(void **state)
{
    (void)state;
    memset(&net, 0, sizeof(net));
    net.now = 1000000 * MS;
    net.seed = 7;
    net.n = netcheck_new(&ops, NULL);
    assert_non_null(net.n);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    netcheck_free(net.n);
    return 0;
}

static void
regions(unsigned count)
{
    struct netcheck_region list[64];
    unsigned i;

    for (i = 0; i < count; i++) {
        list[i] = region((uint16_t)(i + 1));
        net.latency[i + 1] = (10 + 10 * i) * MS;
    }
    assert_int_equal(netcheck_regions(net.n, list, count), 0);
}

static uint16_t
home(uint16_t had, bool alive)
{
    return netcheck_home(net.n, had, alive, 5, net.now);
}

static void
one_region(void **state)
{
    const struct netcheck_report *r;

    (void)state;
    regions(1);
    /* IPv6 does not answer: the node is not kept waiting. */
    net.silent6 = true;
    assert_in_range(run(0, true, true), 20 * MS, 60 * MS);
    r = netcheck_report(net.n);
    assert_true(r->udp && r->four);
    assert_false(r->six || r->varies || r->varies_known);
    assert_int_equal(r->nseen, 1);
    kit_is(&r->seen[0].at, "203.0.113.7:41641");
    assert_int_equal(netcheck_latency(net.n, 1, false, net.now), 10 * MS);
    assert_int_equal(netcheck_latency(net.n, 1, true, net.now), 0);
    assert_int_equal(home(0, false), 1);
    net.silent6 = false;
    assert_in_range(run(1, true, true), 10 * MS, 12 * MS);
    r = netcheck_report(net.n);
    assert_true(r->six);
    assert_int_equal(r->nseen, 2);
    assert_true(tn_addr_is4(&r->seen[0].at.addr));
}

static void
many_regions(void **state)
{
    unsigned i, k = 0;

    (void)state;
    regions(20);
    run(0, true, false);
    assert_int_equal(home(0, false), 1);
    for (i = 1; i <= 3; i++)
        assert_int_equal(
            netcheck_latency(net.n, (uint16_t)i, false, net.now), i * 10 * MS);
    /* Later: the nearest three and home. */
    run(9, false, false);
    for (i = 1; i <= 20; i++)
        k += net.asked[i] > 0;
    assert_int_equal(k, 4);
    assert_true(net.asked[1] > 0 && net.asked[2] > 0 && net.asked[3] > 0 &&
                net.asked[9] > 0);
}

static void
losses_are_asked_again(void **state)
{
    (void)state;
    regions(1);
    net.lose = 2;
    assert_in_range(run(0, true, false), 200 * MS, 320 * MS);
    assert_true(netcheck_report(net.n)->udp);
    assert_int_equal(net.asked[1], 3);
}

static void
blocked(void **state)
{
    const struct netcheck_report *r;
    uint16_t any;

    (void)state;
    regions(5);
    net.blocked = true;
    assert_int_equal(run(0, true, true), NETCHECK_RUN);
    r = netcheck_report(net.n);
    assert_false(r->udp || r->four || r->six || r->nseen);
    any = home(0, false);
    assert_in_range(any, 1, 5);
    assert_int_equal(home(0, false), any); /* always the same */
    assert_int_equal(home(3, false), 3);   /* or what it was */
    net.blocked = false;
    run(any, true, true);
    assert_true(netcheck_report(net.n)->udp);
}

static void
mapping_varies(void **state)
{
    const struct netcheck_report *r;

    (void)state;
    regions(3);
    run(0, true, false);
    r = netcheck_report(net.n);
    assert_true(r->varies_known && !r->varies);
    net.varies = true;
    run(0, true, false);
    r = netcheck_report(net.n);
    assert_true(r->varies_known && r->varies);
    assert_true(r->nseen >= 2);
}

static void
homes(void **state)
{
    /* Latencies of regions 1 and 2 in ms, now home, and who it is then. */
    static const struct {
        unsigned one, two;
        uint16_t had, want;
    } table[] = {
        {20, 50, 0, 1}, {50, 20, 0, 2}, {50, 45, 1, 1}, /* less than 10 ms */
        {50, 38, 1, 1}, /* more than two thirds */
        {50, 30, 1, 2}, {15, 6, 1, 1}, {200, 140, 1, 1}, {200, 100, 1, 2},
        {50, 30, 9, 2}, /* a region that is gone */
    };
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        netcheck_free(net.n);
        net.n = netcheck_new(&ops, NULL);
        regions(2);
        net.latency[1] = table[i].one * MS;
        net.latency[2] = table[i].two * MS;
        run(0, true, false);
        if (home(table[i].had, false) != table[i].want)
            fail_msg("row %zu", i);
    }
}

static void
home_that_falls_silent(void **state)
{
    (void)state;
    regions(2);
    run(0, true, false);
    assert_int_equal(home(0, false), 1);
    net.latency[1] = 0;
    run(1, true, false);
    assert_int_equal(home(1, true), 1); /* its relay still speaks */
    assert_int_equal(home(1, false), 2);
    /* Where nobody answers it is not the region's fault. */
    net.blocked = true;
    run(2, true, false);
    assert_int_equal(home(2, false), 2);
    /* Asked otherwise, it is again. */
    netcheck_hush(net.n);
    netcheck_sample(net.n, 1, 9000, net.now);
    assert_int_equal(home(2, false), 1);
    netcheck_hush(net.n);
    assert_int_equal(home(1, false), 1);
}

static void
scores_and_avoidance(void **state)
{
    struct netcheck_region list[3];
    unsigned i;

    (void)state;
    for (i = 0; i < 3; i++) {
        list[i] = region((uint16_t)(i + 1));
        net.latency[i + 1] = (10 + 10 * i) * MS;
    }
    list[0].no_home = true;
    list[1].score = 3;
    assert_int_equal(netcheck_regions(net.n, list, 3), 0);
    run(0, true, false);
    assert_int_equal(home(0, false), 3);
    assert_int_equal(home(1, false), 3);
    list[2].no_home = list[1].no_home = true;
    assert_int_equal(netcheck_regions(net.n, list, 3), 0);
    assert_int_equal(home(0, false), 0);
    assert_int_equal(netcheck_regions(net.n, list, 0), 0);
    assert_int_equal(home(2, false), 0);
    assert_false(netcheck_start(net.n, 0, true, false, net.now));
}

static void
strangers_are_refused(void **state)
{
    uint8_t msg[64];
    uint32_t seed = 9;
    size_t i;

    (void)state;
    regions(2);
    assert_true(netcheck_start(net.n, 0, true, false, net.now));
    assert_true(net.nflight > 0);
    memcpy(msg, net.flight[0].msg, sizeof(msg));
    for (i = 8; i < 20; i++) {
        msg[i] ^= 0x55;
        assert_false(netcheck_receive(net.n, msg, net.flight[0].len, net.now));
        msg[i] ^= 0x55;
    }
    for (i = 0; i < 10000; i++) {
        kit_fill(&seed, msg + 8, 12);
        msg[8] = 0;
        msg[9] %= 8;
        assert_false(netcheck_receive(net.n, msg, net.flight[0].len, net.now));
    }
    assert_true(netcheck_receive(
        net.n, net.flight[0].msg, net.flight[0].len, net.now + 1));
    /* Not twice. */
    assert_false(netcheck_receive(
        net.n, net.flight[0].msg, net.flight[0].len, net.now + 1));
}

/* ---- what we tell of it ---- */

static void
are(const struct endpoints *e, const char *const *want, size_t n)
{
    size_t i;

    assert_int_equal(e->n, n);
    for (i = 0; i < n; i++) {
        kit_is(&e->list[i].at, want[i] + 1);
        assert_int_equal(e->list[i].type, want[i][0] - '0');
    }
}

static void
endpoints(void **state)
{
    static const char *const all[] = {"2203.0.113.7:50001", "2[2001:db8::7]:9",
        "4203.0.113.7:41641", "1192.168.1.2:41641", "1[2001:db8::2]:41642"};
    static const char *const local[] = {
        "1192.168.1.2:41641", "1[2001:db8::2]:41642"};
    struct netcheck_report r = {.udp = true, .varies = true, .nseen = 3};
    struct tn_addr addrs[2] = {
        kit_addr("192.168.1.2"), kit_addr("2001:db8::2")};
    uint16_t port[2] = {41641, 41642};
    struct endpoints e = {0};
    uint64_t now = 1000000 * MS;

    (void)state;
    assert_true(endpoints_update(&e, NULL, addrs, 2, port, now));
    are(&e, local, 2);
    assert_false(endpoints_update(&e, NULL, addrs, 2, port, now));
    r.seen[0].at = kit_endpoint("203.0.113.7:50001");
    r.seen[0].servers = 1;
    r.seen[1].at = kit_endpoint("203.0.113.7:50002"); /* one server only */
    r.seen[1].servers = 1;
    r.seen[2].at = kit_endpoint("[2001:db8::7]:9");
    r.seen[2].servers = 1;
    assert_true(endpoints_update(&e, &r, addrs, 2, port, now));
    are(&e, all, 5);
    /* They linger, and then they go. */
    r.nseen = 0;
    assert_false(endpoints_update(&e, &r, addrs, 2, port, now + 300000 * MS));
    assert_true(endpoints_update(&e, &r, addrs, 2, port, now + 311000 * MS));
    are(&e, local, 2);
    /* A socket that is not there has no endpoint. */
    port[1] = 0;
    assert_true(endpoints_update(&e, &r, addrs, 2, port, now));
    are(&e, local, 1);
}

static void
endpoints_are_bounded(void **state)
{
    struct netcheck_report r = {.udp = true, .nseen = 1};
    struct tn_addr addrs[100];
    uint16_t port[2] = {1, 1};
    struct endpoints e = {0};
    unsigned i;

    (void)state;
    for (i = 0; i < 100; i++) {
        addrs[i] = kit_addr("10.0.0.0");
        addrs[i].b[15] = (uint8_t)i;
    }
    for (i = 0; i < 100; i++) {
        r.seen[0].at = kit_endpoint("203.0.113.7:1");
        r.seen[0].at.port = (uint16_t)(1000 + i);
        r.seen[0].servers = 1;
        (void)endpoints_update(&e, &r, addrs, 100, port, i + 1);
    }
    assert_int_equal(e.nlearned, ENDPOINTS_LEARNED);
    assert_int_equal(e.n, ENDPOINTS_MAX);
    endpoints_forget(&e);
    assert_true(endpoints_update(&e, NULL, addrs, 1, port, 1000));
    assert_int_equal(e.n, 1);
}

int
main(void)
{
#define ROW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(one_region),
        ROW(many_regions),
        ROW(losses_are_asked_again),
        ROW(blocked),
        ROW(mapping_varies),
        ROW(homes),
        ROW(home_that_falls_silent),
        ROW(scores_and_avoidance),
        ROW(strangers_are_refused),
        cmocka_unit_test(endpoints),
        cmocka_unit_test(endpoints_are_bounded),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

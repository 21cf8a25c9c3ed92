/* links: tailnetd/data/lanes.c tailnetd/data/outbox.c core/tn_addr.c */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/data/lanes.h"

#define FULL  1312
#define SHORT 144
#define HEAD  8 /* bytes of a datagram of these tests: its flow, its number */

static struct lanes *l;
static struct tn_endpoint places[3];
/* What was sent: runs, datagrams, and the last number of each flow. */
static unsigned runs, sent;
static uint32_t last[LANES_FLOWS + 1];

static int
setup(void **state)
{
    static const uint8_t b[4] = {192, 0, 2, 1};
    unsigned i;

    (void)state;
    l = calloc(1, sizeof(*l));
    runs = sent = 0;
    memset(last, 0, sizeof(last));
    for (i = 0; i < 3; i++)
        places[i] = (struct tn_endpoint){tn_addr_from4(b), (uint16_t)(i + 1)};
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    free(l);
    return 0;
}

/* Datagram ${n}, from 1, of ${flow}. */
static bool
add(uint16_t flow, uint32_t n, unsigned to, size_t len)
{
    static uint8_t msg[OUTBOX_SIZE + 1];
    uint32_t f = flow == LANES_NO_FLOW ? LANES_FLOWS : flow;

    memcpy(msg, &f, 4);
    memcpy(msg + 4, &n, 4);
    return lanes_add(l, flow, &places[to], msg, len);
}

/* As outbox_send() would; checks the order within each flow. */
static void
send_all(void)
{
    struct outbox *o;
    uint32_t flow, n;
    size_t at, len;

    while ((o = lanes_next(l)) != NULL) {
        assert_int_not_equal(o->count, 0);
        runs++;
        for (at = 0; at < o->used; at += len) {
            len = o->used - at < o->segment ? o->used - at : o->segment;
            memcpy(&flow, o->buf + at, 4);
            memcpy(&n, o->buf + at + 4, 4);
            assert_true(n > last[flow]);
            last[flow] = n;
            sent++;
        }
        o->count = 0;
    }
    assert_int_equal(l->open, 0);
}

static void
test_empty(void **state)
{
    (void)state;
    assert_null(lanes_next(l));
    assert_null(lanes_next(l));
}

/* Answers of two datagrams each, of many connections: two runs. */
static void
test_answers(void **state)
{
    uint16_t flow;

    (void)state;
    for (flow = 0; flow < 40; flow++) {
        assert_true(add(flow, 1, 0, FULL));
        assert_true(add(flow, 2, 0, SHORT));
    }
    send_all();
    assert_int_equal(runs, 2);
    assert_int_equal(sent, 80);
}

/* A short one that is alone leaves with the full ones. */
static void
test_tail(void **state)
{
    uint32_t i;

    (void)state;
    for (i = 1; i < 20; i++)
        assert_true(add(7, i, 0, FULL));
    assert_true(add(7, i, 0, SHORT));
    send_all();
    assert_int_equal(runs, 1);
    assert_int_equal(sent, 20);
    /* But not one for somebody else. */
    assert_true(add(7, ++i, 0, FULL));
    assert_true(add(8, 1, 1, SHORT));
    send_all();
    assert_int_equal(runs, 3);
}

/* One flow's sizes go up and down: no lane is taken twice. */
static void
test_one_flow(void **state)
{
    uint32_t i;

    (void)state;
    for (i = 1; i <= LANES_MAX; i++)
        assert_true(add(3, i, 0, i % 2 == 0 ? FULL : SHORT));
    assert_false(add(3, i, 0, SHORT));
    send_all();
    assert_int_equal(sent, LANES_MAX);
    assert_true(add(3, i, 0, SHORT));
}

/* What has no flow goes behind all, and all go behind it. */
static void
test_no_flow(void **state)
{
    (void)state;
    assert_true(add(1, 1, 0, FULL));
    assert_true(add(2, 1, 0, SHORT));
    assert_true(add(LANES_NO_FLOW, 1, 0, FULL));
    assert_int_equal(l->open, 3);
    assert_true(add(1, 2, 0, SHORT));
    assert_int_equal(l->open, 4);
    assert_true(add(2, 2, 0, FULL));
    assert_int_equal(l->lane[2].count, 2);
    assert_int_equal(l->lane[0].count, 1);
    send_all();
    assert_int_equal(sent, 5);
}

static void
test_places(void **state)
{
    uint16_t flow;

    (void)state;
    for (flow = 0; flow < 30; flow++)
        assert_true(add(flow, 1, flow % 3, FULL));
    send_all();
    assert_int_equal(runs, 3);
}

static void
test_limits(void **state)
{
    uint32_t i;

    (void)state;
    assert_false(add(0, 1, 0, 0));
    assert_false(add(0, 1, 0, OUTBOX_SIZE + 1));
    assert_null(lanes_next(l));
    for (i = 1; i <= OUTBOX_SEGMENTS; i++)
        assert_true(add(0, i, 0, SHORT));
    assert_false(add(1, 1, 0, SHORT));
    for (i = 1; i < LANES_MAX; i++)
        assert_true(add(0, i + OUTBOX_SEGMENTS, 0, SHORT + i));
    assert_false(add(1, 1, 0, FULL));
    send_all();
    assert_int_equal(sent, OUTBOX_SEGMENTS + LANES_MAX - 1);
}

/* Whatever comes, all of it leaves, and each flow in its order. */
static void
test_random(void **state)
{
    static const size_t sizes[] = {FULL, FULL, FULL, SHORT, 700, 32, HEAD};
    uint32_t next[LANES_FLOWS + 1] = {0};
    unsigned i, total = 200000;
    uint16_t flow;

    (void)state;
    srand(1);
    for (i = 0; i < total; i++) {
        size_t len = sizes[(size_t)rand() % 7];
        unsigned to;

        flow = (uint16_t)(rand() % (rand() % 2 == 0 ? 3 : LANES_FLOWS));
        to = flow % 3;
        if (rand() % 50 == 0)
            flow = LANES_NO_FLOW;
        next[flow == LANES_NO_FLOW ? LANES_FLOWS : flow]++;
        if (!add(flow, next[flow == LANES_NO_FLOW ? LANES_FLOWS : flow], to,
                len)) {
            send_all();
            assert_true(add(flow,
                next[flow == LANES_NO_FLOW ? LANES_FLOWS : flow], to, len));
        }
        if (rand() % 40 == 0)
            send_all();
    }
    send_all();
    assert_int_equal(sent, total);
    assert_memory_equal(last, next, sizeof(last));
    assert_true(runs < total);
}

/* ---- what a flow is ---- */

static void
test_flow(void **state)
{
    uint8_t b[48] = {0x45, [6] = 0x40, [9] = 6, [12] = 100, 64, 0, 1, 100, 64,
        0, 2, 0, 80, 0x80, 1};
    uint16_t tcp = lanes_flow(b, sizeof(b)), addresses;

    (void)state;
    assert_true(tcp < LANES_FLOWS);
    b[30] ^= 1; /* a sequence number */
    assert_int_equal(lanes_flow(b, sizeof(b)), tcp);
    b[22] ^= 1; /* a port */
    assert_int_not_equal(lanes_flow(b, sizeof(b)), tcp);
    /* No ports are there to be read: all between two addresses is one. */
    addresses = lanes_flow(b, 23);
    b[9] = 1;
    assert_int_equal(lanes_flow(b, sizeof(b)), addresses);
    b[9] = 17;
    b[6] = 0x20; /* the first fragment, and a later one */
    assert_int_equal(lanes_flow(b, sizeof(b)), addresses);
    b[6] = 0;
    b[7] = 185;
    assert_int_equal(lanes_flow(b, sizeof(b)), addresses);
    b[7] = 0;
    b[0] = 0x4f; /* a header longer than the packet */
    assert_int_equal(lanes_flow(b, sizeof(b)), addresses);
    b[15] ^= 1;
    assert_int_not_equal(lanes_flow(b, sizeof(b)), addresses);
}

static void
test_flow6(void **state)
{
    uint8_t b[64] = {0x60, [6] = 6, [8] = 0xfd, [23] = 1, [24] = 0xfd, [39] = 2,
        0, 80, 0x80, 1};
    uint16_t tcp = lanes_flow(b, sizeof(b)), addresses;

    (void)state;
    assert_true(tcp < LANES_FLOWS);
    b[43] ^= 1;
    assert_int_not_equal(lanes_flow(b, sizeof(b)), tcp);
    addresses = lanes_flow(b, 43);
    b[6] = 44; /* fragments */
    assert_int_equal(lanes_flow(b, sizeof(b)), addresses);
    b[39] ^= 1;
    assert_int_not_equal(lanes_flow(b, sizeof(b)), addresses);
}

static void
test_no_packet(void **state)
{
    uint8_t b[40] = {0x45};

    (void)state;
    assert_int_equal(lanes_flow(b, 0), LANES_NO_FLOW);
    assert_int_equal(lanes_flow(b, 19), LANES_NO_FLOW);
    b[0] = 0x60;
    assert_int_equal(lanes_flow(b, 39), LANES_NO_FLOW);
    b[0] = 0x50;
    assert_int_equal(lanes_flow(b, 40), LANES_NO_FLOW);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_empty),
        TEST(test_answers),
        TEST(test_tail),
        TEST(test_one_flow),
        TEST(test_no_flow),
        TEST(test_places),
        TEST(test_limits),
        TEST(test_random),
        cmocka_unit_test(test_flow),
        cmocka_unit_test(test_flow6),
        cmocka_unit_test(test_no_packet),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

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
 * Which answers a filter lets in: the table of flows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/engine/filter_flow.h"
#include "filter_kit.h"

static void
send_flow(struct filter *f, unsigned n, unsigned proto)
{
    uint8_t b[128];
    size_t len = packet(b, proto, "100.64.0.1", "100.64.0.2", 1000 + n, 53, 0);

    filter_out(f, b, len);
}

static bool
answer_passes(struct filter *f, unsigned n, unsigned proto)
{
    uint8_t b[128];
    size_t len = packet(b, proto, "100.64.0.2", "100.64.0.1", 53, 1000 + n, 0);

    return filter_in(f, b, len, false) == FILTER_ACCEPT;
}

static void
test_flows(void **state)
{
    struct filter *f = filter_of(NOTHING_OPEN, NULL), *next;
    unsigned n;

    (void)state;
    assert_false(answer_passes(f, 0, 17));
    for (n = 0; n < FILTER_FLOW_MAX; n++) {
        send_flow(f, n, 17);
        send_flow(f, n, 17);
    }
    assert_int_equal(filter_count(f, FILTER_FLOW_RECORDED), FILTER_FLOW_MAX);
    assert_int_equal(filter_count(f, FILTER_FLOW_EVICTED), 0);
    assert_false(answer_passes(f, 5, 132)); /* the protocol counts */
    for (n = 0; n < FILTER_FLOW_MAX; n++) {
        assert_true(answer_passes(f, n, 17));
    }

    /* now 0 is the oldest; an answer and a packet make 0 and 1 young */
    assert_true(answer_passes(f, 0, 17));
    send_flow(f, 1, 17);
    send_flow(f, 600, 132); /* 2 goes */
    assert_int_equal(filter_count(f, FILTER_FLOW_EVICTED), 1);
    assert_true(answer_passes(f, 0, 17));
    assert_true(answer_passes(f, 1, 17));
    assert_false(answer_passes(f, 2, 17));
    assert_true(answer_passes(f, 3, 17));
    assert_true(answer_passes(f, 600, 132));

    next = filter_of(NOTHING_OPEN, NULL);
    filter_inherit(next, f);
    assert_false(answer_passes(f, 3, 17)); /* moved, not copied */
    assert_true(answer_passes(next, 3, 17));
    assert_true(answer_passes(next, 600, 132));
    assert_false(answer_passes(next, 2, 17));
    assert_int_equal(filter_count(next, FILTER_FLOW_EVICTED), 1);
    filter_free(f);
    filter_free(next);
}

/* An address is another's: its flows are over, and only its. */
static void
test_flow_forget(void **state)
{
    static struct filter_flow_table table;
    struct filter_flow flow = {.proto = 17};
    struct tn_addr from[2] = {addr("100.64.0.1"), addr("100.64.0.2")};
    unsigned n, round;

    (void)state;
    for (round = 0; round < 5; round++) {
        for (n = 0; n < FILTER_FLOW_MAX; n++) {
            flow.src = from[n % 3 == 0];
            flow.sport = (uint16_t)n;
            if (round == 0) {
                assert_false(filter_flow_add(&table, &flow));
            } else if (n % 3 == 0) { /* there is room again */
                assert_false(filter_flow_touch(&table, &flow));
                assert_false(filter_flow_add(&table, &flow));
            } else {
                assert_true(filter_flow_touch(&table, &flow));
            }
        }
        filter_flow_forget(&table, &from[1]);
        filter_flow_forget(&table, &from[1]);
    }
    filter_flow_forget(&table, &from[0]);
    assert_int_equal(table.newest, 0);
    assert_int_equal(table.oldest, 0);
    for (n = 0; n < 2 * FILTER_FLOW_MAX; n++) {
        flow.sport = (uint16_t)n;
        assert_int_equal(filter_flow_add(&table, &flow), n >= FILTER_FLOW_MAX);
    }
}

/* Whatever happens, the table holds exactly the last 512 that were used. */
static void
test_flow_model(void **state)
{
    static struct filter_flow_table table;
    static uint32_t last_use[2000];
    struct filter_flow flow = {.src = addr("100.64.0.1"), .proto = 17};
    uint64_t seed = 7;
    uint32_t step, n, i, newer;
    bool have, want;

    (void)state;
    for (step = 1; step < 60000; step++) {
        n = draw(&seed, draw(&seed, 2) ? 2000 : 400);
        flow.sport = (uint16_t)n;
        newer = 0;
        for (i = 0; i < 2000 && step % 64 == 0; i++) {
            newer += last_use[i] > last_use[n];
        }
        want = last_use[n] != 0 && newer < FILTER_FLOW_MAX;
        have = filter_flow_touch(&table, &flow);
        if (step % 64 == 0) {
            assert_int_equal(have, want);
        }
        if (!have) {
            filter_flow_add(&table, &flow);
        }
        last_use[n] = step;
    }
}

/* TCP, fragments and broken packets leave no flow behind. */
static void
test_flow_others(void **state)
{
    struct filter *f = filter_of(NOTHING_OPEN, NULL);
    uint8_t b[128];
    size_t len;

    (void)state;
    len = packet(b, 6, "100.64.0.1", "100.64.0.2", 1, 2, SYN);
    filter_out(f, b, len);
    len = packet(b, 17, "100.64.0.1", "100.64.0.2", 1, 2, 0);
    filter_out(f, b, len - 1);
    b[7] = 100;
    filter_out(f, b, len);
    filter_out(f, b, 0);
    assert_int_equal(filter_count(f, FILTER_FLOW_RECORDED), 0);
    filter_free(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flows),
        cmocka_unit_test(test_flow_forget),
        cmocka_unit_test(test_flow_model),
        cmocka_unit_test(test_flow_others),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

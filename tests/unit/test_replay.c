/* links: tailnetd/wg/replay.c */
/*
 * test_replay.c: the replay window, as a numbered table and against a model.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/wg/msg.h"
#include "../../ngx_tailnet_module/tailnetd/wg/replay.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define W        UINT64_C(8128)
#define LIMIT    MSG_REJECT_AFTER_MESSAGES
#define BIG      (UINT64_C(1) << 60)

/* A row with .fresh starts from an empty window. */
static const struct {
    uint64_t counter;
    bool accepted;
    bool fresh;
} table[] = {
    /*  0 */ {0, true, true},
    /*  1 */ {0, false, false},
    /*  2 */ {1, true, false},
    /*  3 */ {1, false, false},
    /*  4 */ {5, true, false},
    /*  5 */ {3, true, false},
    /*  6 */ {4, true, false},
    /*  7 */ {3, false, false},
    /*  8 */ {2, true, false},
    /*  9 */ {63, true, false}, /* word border */
    /* 10 */ {64, true, false},
    /* 11 */ {63, false, false},
    /* 12 */ {65, true, false},
    /* 13 */ {64, false, false},
    /* 14 */ {6, true, false},
    /* 15 */ {W + 7, true, false}, /* 7 is the oldest now */
    /* 16 */ {7, true, false},
    /* 17 */ {7, false, false},
    /* 18 */ {6, false, false},
    /* 19 */ {8, true, false},
    /* 20 */ {W + 6, true, false},
    /* 21 */ {W + 7, false, false},

    /* Starting high: everything within the window is new, once. */
    /* 22 */ {W + 1, true, true},
    /* 23 */ {0, false, false},
    /* 24 */ {1, true, false},
    /* 25 */ {1, false, false},
    /* 26 */ {W, true, false},
    /* 27 */ {W, false, false},

    /* A jump of exactly the ring, and of one word more or less. */
    /* 28 */ {10, true, true},
    /* 29 */ {10 + 8192, true, false},
    /* 30 */ {10 + 8192 - 64, true, false},
    /* 31 */ {10 + 8192 - W, true, false},
    /* 32 */ {10 + 8192 - W - 1, false, false},
    /* 33 */ {10, false, false},
    /* 34 */ {10 + 2 * 8192 - 64, true, false},
    /* 35 */ {10 + 8192, true, true},
    /* 36 */ {10 + 3 * 8192, true, false},
    /* 37 */ {10 + 2 * 8192, false, false},
    /* 38 */ {10 + 2 * 8192 + 64, true, false},

    /* Jumps far past the ring. */
    /* 39 */ {0, true, true},
    /* 40 */ {BIG, true, false},
    /* 41 */ {0, false, false},
    /* 42 */ {BIG - W, true, false},
    /* 43 */ {BIG - W - 1, false, false},
    /* 44 */ {BIG - 1, true, false},
    /* 45 */ {BIG + 1, true, false},
    /* 46 */ {BIG, false, false},

    /* The limit of messages, and no sum that wraps near it. */
    /* 47 */ {LIMIT - 1, true, true},
    /* 48 */ {LIMIT - 1, false, false},
    /* 49 */ {LIMIT, false, false},
    /* 50 */ {LIMIT + 1, false, false},
    /* 51 */ {UINT64_MAX, false, false},
    /* 52 */ {LIMIT - 1 - W, true, false},
    /* 53 */ {LIMIT - 2 - W, false, false},
    /* 54 */ {0, false, false},
    /* 55 */ {UINT64_MAX, false, true},
    /* 56 */ {0, true, false},
    /* 57 */ {LIMIT, false, true},
    /* 58 */ {1, true, false},

    /* Each bit of a word is its own. */
    /* 59 */ {127, true, true},
    /* 60 */ {126, true, false},
    /* 61 */ {64, true, false},
    /* 62 */ {127, false, false},
    /* 63 */ {0, true, false},
    /* 64 */ {128, true, false},
    /* 65 */ {191, true, false},
    /* 66 */ {128, false, false},
    /* 67 */ {8192 + 128, true, false}, /* same slot of the ring */
    /* 68 */ {128, false, false},
};

static void
test_table(void **state)
{
    struct replay r;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        if (table[i].fresh)
            memset(&r, 0, sizeof(r));
        if (replay_accept(&r, table[i].counter) != table[i].accepted)
            fail_msg("row %zu", i);
    }
}

/* Ten windows upwards, then each of them downwards. */
static void
test_runs(void **state)
{
    struct replay r = {0};

    (void)state;
    for (uint64_t i = 0; i < 10 * W; i++)
        assert_true(replay_accept(&r, i));
    for (uint64_t i = 0; i < 10 * W; i++)
        assert_false(replay_accept(&r, i));
    memset(&r, 0, sizeof(r));
    assert_true(replay_accept(&r, 10 * W));
    for (uint64_t i = 10 * W; i-- > 0;)
        assert_int_equal(replay_accept(&r, i), i >= 9 * W);
}

/* Random counters around a moving front, against a table of all of them. */
static void
test_model(void **state)
{
    enum { ALL = 300000 };
    static uint8_t seen[ALL];
    struct replay r = {0};
    uint64_t greatest = 0, rng = 88172645463325252u;
    bool any = false;

    (void)state;
    while (greatest < ALL - 20000) {
        uint64_t c, back;

        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        back = rng % (rng & 0x1000000 ? 100 : 10000);
        c = greatest + (rng >> 40) % (rng & 0x2000000 ? 5 : 300);
        c = c > back ? c - back : 0;
        if (rng % 4000 == 0)
            c = greatest + 7000 + rng % 3000;
        bool want = !seen[c] && (!any || c + W >= greatest);

        assert_int_equal(replay_accept(&r, c), want);
        seen[c] |= want;
        if (want && c > greatest)
            greatest = c;
        any = true;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_model),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

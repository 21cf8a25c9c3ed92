/* links: tailnetd/control/renewal.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/control/renewal.h"

#define WALL INT64_C(1800000000)
#define NOW  UINT64_C(5000)
#define DAY  INT64_C(86400)

/* When a key with an end is looked at, and whether it is due then. */
static void
ends(void **state)
{
    static const struct {
        int64_t end;
        bool alone, due;
        uint64_t wake;
    } cases[] = {
        {0, true, false, UINT64_MAX},
        {0, false, false, UINT64_MAX},
        {1, true, true, NOW},
        {1, false, true, NOW},
        {WALL - 5, true, true, NOW},
        {WALL, false, true, NOW},
        {WALL + 1, false, false, NOW + 1000},
        {WALL + RENEWAL_AHEAD_S, true, true, NOW},
        {WALL + RENEWAL_AHEAD_S + 3, true, false, NOW + 3000},
        {WALL + RENEWAL_AHEAD_S + 3, false, false,
            NOW + 1000 * (RENEWAL_AHEAD_S + 3)},
        /* Far away: looked at, but not renewed. */
        {WALL + 180 * DAY, true, false, NOW + RENEWAL_LOOK_MS},
        {WALL + 180 * DAY, false, false, NOW + RENEWAL_LOOK_MS},
        {INT64_MAX, true, false, NOW + RENEWAL_LOOK_MS},
    };
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct renewal r = {0};

        renewal_set(&r, cases[i].end, cases[i].alone, WALL);
        assert_int_equal(renewal_due(&r, WALL, NOW), cases[i].due);
        assert_int_equal(renewal_wake(&r, WALL, NOW), cases[i].wake);
    }
}

/* Of a key that lasts half a year there is one try, at its end. */
static void
half_a_year(void **state)
{
    struct renewal r = {0};
    int64_t wall = WALL, end = WALL + 180 * DAY;
    uint64_t now = NOW, wake;
    unsigned looks = 0;

    (void)state;
    renewal_set(&r, end, true, wall);
    while (!renewal_due(&r, wall, now)) {
        wake = renewal_wake(&r, wall, now);
        assert_true(wake > now);
        wall += (int64_t)(wake - now) / 1000;
        now = wake;
        assert_true(++looks < 180 * 24 + 2);
    }
    assert_int_equal(wall, end - RENEWAL_AHEAD_S);
}

/* Tries that fail, with and without netmaps in between. */
static void
tries(void **state)
{
    static const uint64_t delays[] = {
        10000, 20000, 40000, 80000, 160000, 320000, 600000, 600000};
    struct renewal r = {0};
    uint64_t now = NOW;
    size_t i;

    (void)state;
    renewal_set(&r, WALL, true, WALL);
    for (i = 0; i < sizeof(delays) / sizeof(delays[0]); i++) {
        assert_true(renewal_due(&r, WALL, now));
        renewal_tried(&r, now);
        assert_false(renewal_due(&r, WALL, now));
        renewal_set(&r, WALL, true, WALL);
        assert_false(renewal_due(&r, WALL, now + delays[i] - 1));
        now = renewal_wake(&r, WALL, now);
        assert_int_equal(now - r.after, 0);
        assert_true(renewal_due(&r, WALL, now));
        assert_int_equal(r.tries, i + 1);
    }
    r.tries = UINT32_MAX;
    renewal_tried(&r, now);
    assert_int_equal(r.after, now + RENEWAL_RETRY_MAX);
    /* An administrator extends it; the next end is a new one. */
    renewal_set(&r, WALL + DAY, true, WALL);
    assert_int_equal(r.tries, 0);
    renewal_set(&r, WALL - 1, true, WALL);
    assert_true(renewal_due(&r, WALL, now));
    renewal_tried(&r, now);
    renewal_set(&r, 0, true, WALL);
    assert_int_equal(r.tries, 0);
    assert_int_equal(renewal_wake(&r, WALL, now), UINT64_MAX);
}

/* A clock that is set back or forth moves it. */
static void
clocks(void **state)
{
    struct renewal r = {0};

    (void)state;
    renewal_set(&r, WALL + DAY, false, WALL);
    assert_true(renewal_due(&r, WALL + DAY, NOW));
    assert_false(renewal_due(&r, WALL - DAY, NOW));
    assert_int_equal(renewal_wake(&r, WALL + DAY, NOW), NOW);
    assert_int_equal(renewal_wake(&r, WALL - DAY, NOW), NOW + RENEWAL_LOOK_MS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends),
        cmocka_unit_test(half_a_year),
        cmocka_unit_test(tries),
        cmocka_unit_test(clocks),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

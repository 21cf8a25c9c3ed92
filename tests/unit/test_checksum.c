/* links: tailnetd/data/checksum.c */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "../../ngx_tailnet_module/tailnetd/data/checksum.h"
#include "data_kit.h"

/* A sum as the bytes that would stand in a packet. */
static unsigned
folded(uint64_t sum)
{
    uint16_t s = checksum_fold(sum);
    uint8_t b[2];

    memcpy(b, &s, 2);
    return (unsigned)kit_get16(b);
}

/* RFC 1071 section 3's own example. */
static void
test_rfc1071(void **state)
{
    static const uint8_t b[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

    (void)state;
    assert_int_equal(folded(checksum_add(0, b, sizeof(b))), 0xddf2);
}

/* Every length at every alignment, in a buffer that ends where the data does.
 */
static void
test_lengths_alignments(void **state)
{
    uint64_t seed = 1;
    uint8_t *b;
    size_t n, at, i;

    (void)state;
    for (n = 0; n < 200; n++) {
        for (at = 0; at < 16; at++) {
            b = malloc(at + n + (n + at == 0));
            for (i = 0; i < at + n; i++)
                b[i] = (uint8_t)kit_draw(&seed, 256);
            assert_int_equal(
                folded(checksum_add(0, b + at, n)), kit_sum(0, b + at, n));
            free(b);
        }
    }
}

/* The largest packet of the largest bytes: nothing overflows. */
static void
test_largest(void **state)
{
    static uint8_t b[65535];
    size_t n;

    (void)state;
    memset(b, 0xff, sizeof(b));
    for (n = sizeof(b) - 40; n <= sizeof(b); n++)
        assert_int_equal(
            folded(checksum_add(UINT32_MAX, b, n)), kit_sum(0xffff, b, n));
}

static void
test_parts(void **state)
{
    uint8_t b[301];
    uint64_t seed = 2, forth, back;
    size_t cut, i;

    (void)state;
    for (i = 0; i < sizeof(b); i++)
        b[i] = (uint8_t)kit_draw(&seed, 256);
    for (cut = 0; cut < sizeof(b); cut += 2) {
        forth = checksum_add(checksum_add(0, b, cut), b + cut, sizeof(b) - cut);
        back = checksum_add(0, b + cut, sizeof(b) - cut);
        back = checksum_add(back, b, cut);
        assert_int_equal(folded(forth), kit_sum(0, b, sizeof(b)));
        assert_int_equal(folded(back), kit_sum(0, b, sizeof(b)));
    }
}

static void
test_fold(void **state)
{
    static const struct {
        uint64_t sum;
        uint16_t want;
    } table[] = {
        {0, 0},
        {1, 1},
        {0xffff, 0xffff},
        {0x10000, 1},
        {0x1ffff, 1},
        {0x1fffe, 0xffff},
        {0xffff0000, 0xffff},
        {UINT32_MAX, 0xffff},
        {UINT64_C(1) << 32, 1},
        {UINT64_C(1) << 63, 0x8000},
        {UINT64_C(0xffffffff00000000), 0xffff},
        {UINT64_C(0xfffffffffffffffe), 0xfffe},
        {UINT64_MAX, 0xffff},
    };
    uint64_t seed = 3, sum, want;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_int_equal(checksum_fold(table[i].sum), table[i].want);
    for (i = 0; i < 100000; i++) {
        sum = (uint64_t)kit_draw(&seed, UINT32_MAX) << 32 |
              kit_draw(&seed, UINT32_MAX);
        for (want = sum; want > 0xffff; want = (want & 0xffff) + (want >> 16))
            continue;
        assert_int_equal(checksum_fold(sum), want);
    }
}

static void
test_pseudo(void **state)
{
    static const size_t lens[] = {0, 8, 255, 256, 1240, 0xffff};
    static const uint8_t protos[] = {0, 6, 17, 255};
    uint64_t seed = 4;
    uint8_t p[40];
    size_t i, l, k;

    (void)state;
    for (i = 0; i < 100; i++) {
        for (k = 0; k < sizeof(p); k++)
            p[k] = (uint8_t)kit_draw(&seed, 256);
        for (l = 0; l < sizeof(lens) / sizeof(lens[0]); l++) {
            for (k = 0; k < sizeof(protos); k++) {
                assert_int_equal(
                    folded(checksum_pseudo(p, false, protos[k], lens[l])),
                    kit_pseudo(p, false, protos[k], lens[l]));
                assert_int_equal(
                    folded(checksum_pseudo(p, true, protos[k], lens[l])),
                    kit_pseudo(p, true, protos[k], lens[l]));
            }
        }
    }
    /* An IPv6 length has 32 bits. */
    assert_int_equal(folded(checksum_pseudo(p, true, 17, 0x12345)),
        kit_pseudo(p, true, 17, 0x12345));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc1071),
        cmocka_unit_test(test_lengths_alignments),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_fold),
        cmocka_unit_test(test_pseudo),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

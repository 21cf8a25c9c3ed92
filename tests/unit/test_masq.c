/* links: tailnetd/magic/masq.c core/tn_addr.c */
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/masq.h"

static uint16_t
sum(const uint8_t *p, size_t n, uint32_t s)
{
    size_t i;

    for (i = 0; i + 1 < n; i += 2)
        s += (uint32_t)p[i] << 8 | p[i + 1];
    if (n & 1)
        s += (uint32_t)p[n - 1] << 8;
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)s;
}

/* Both checksums of a packet are right: each sums up to all ones. */
static bool
right(const uint8_t *p, size_t len)
{
    bool four = p[0] >> 4 == 4;
    size_t hdr = four ? 20 : 40, n = four ? 4 : 16;
    uint8_t proto = p[four ? 9 : 6];
    uint32_t pseudo = sum(p + (four ? 12 : 8), 2 * n, 0) + proto +
                      (uint32_t)(len - hdr);

    if (four && sum(p, 20, 0) != 0xffff)
        return false;
    return sum(p + hdr, len - hdr, pseudo) == 0xffff;
}

static size_t
make(uint8_t *p, const char *src, const char *dst, uint8_t proto, size_t body,
    uint32_t *seed)
{
    struct tn_addr a = kit_addr(src), b = kit_addr(dst);
    bool four = tn_addr_is4(&a);
    size_t hdr = four ? 20 : 40, n = four ? 4 : 16;
    size_t at = proto == 6 ? 16 : proto == 17 ? 6 : 2;
    uint16_t s;

    memset(p, 0, hdr);
    kit_fill(seed, p + hdr, body);
    p[0] = four ? 0x45 : 0x60;
    p[four ? 3 : 5] = (uint8_t)(four ? hdr + body : body);
    p[four ? 9 : 6] = proto;
    memcpy(p + (four ? 12 : 8), a.b + 16 - n, n);
    memcpy(p + (four ? 12 : 8) + n, b.b + 16 - n, n);
    if (four) {
        s = (uint16_t)~sum(p, 20, 0);
        p[10] = (uint8_t)(s >> 8);
        p[11] = (uint8_t)s;
    }
    p[hdr + at] = p[hdr + at + 1] = 0;
    s = (uint16_t)~sum(p + hdr, body,
        sum(p + (four ? 12 : 8), 2 * n, 0) + proto + (uint32_t)body);
    if (s == 0 && proto == 17)
        s = 0xffff;
    p[hdr + at] = (uint8_t)(s >> 8);
    p[hdr + at + 1] = (uint8_t)s;
    return hdr + body;
}

static void
checksums_stay_right(void **state)
{
    static const struct {
        const char *src, *dst, *other;
        uint8_t proto;
    } table[] = {
        {"100.64.0.1", "100.64.0.2", "100.99.7.200", 6},
        {"100.64.0.1", "100.64.0.2", "100.99.7.200", 17},
        {"fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::ffee", 6},
        {"fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::ffee", 17},
        {"fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2", "fd7a:115c:a1e0::ffee", 58},
    };
    struct tn_addr src, dst, other;
    uint8_t p[256], was[256];
    uint32_t seed = 3;
    size_t i, k, len;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        src = kit_addr(table[i].src);
        dst = kit_addr(table[i].dst);
        other = kit_addr(table[i].other);
        for (k = 0; k < 500; k++) {
            len = make(p, table[i].src, table[i].dst, table[i].proto,
                20 + k % 100, &seed);
            memcpy(was, p, len);
            assert_true(right(p, len));
            assert_false(masq_source(p, len, &dst, &other));
            assert_false(masq_destination(p, len, &src, &other));
            assert_memory_equal(p, was, len);
            assert_true(masq_source(p, len, &src, &other));
            assert_true(right(p, len));
            assert_memory_not_equal(p, was, len);
            assert_true(masq_source(p, len, &other, &src));
            assert_true(masq_destination(p, len, &dst, &other));
            assert_true(right(p, len));
            assert_true(masq_destination(p, len, &other, &dst));
            assert_memory_equal(p, was, len);
        }
    }
}

static void
what_has_no_checksum(void **state)
{
    struct tn_addr a = kit_addr("100.64.0.1"), b = kit_addr("100.64.0.9"),
                   six = kit_addr("fd7a::1");
    uint8_t p[64], was[64];
    uint32_t seed = 4;
    size_t len;

    (void)state;
    /* UDP without: it stays so. */
    len = make(p, "100.64.0.1", "100.64.0.2", 17, 20, &seed);
    p[26] = p[27] = 0;
    assert_true(masq_source(p, len, &a, &b));
    assert_int_equal(p[26] | p[27], 0);
    assert_int_equal(sum(p, 20, 0), 0xffff);
    /* A later fragment has only data. */
    len = make(p, "100.64.0.1", "100.64.0.2", 6, 40, &seed);
    p[7] = 5;
    memcpy(was, p, len);
    assert_true(masq_source(p, len, &a, &b));
    assert_memory_equal(p + 20, was + 20, 40);
    /* Families are not mixed. */
    assert_false(masq_source(p, len, &b, &six));
    assert_false(masq_source(p, len, &six, &b));
}

static void
garbage(void **state)
{
    struct tn_addr a = kit_addr("100.64.0.1"), b = kit_addr("100.64.0.9");
    uint8_t p[64], *copy;
    uint32_t seed = 5;
    size_t i, len;

    (void)state;
    for (i = 0; i < 20000; i++) {
        len = kit_random(&seed) % 45;
        (void)make(p, "100.64.0.1", "100.64.0.1", i & 1 ? 6 : 17, 24, &seed);
        p[kit_random(&seed) % 12] = (uint8_t)kit_random(&seed);
        copy = kit_copy(p, len);
        (void)masq_source(copy, len, &a, &b);
        (void)masq_destination(copy, len, &a, &b);
        free(copy);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums_stay_right),
        cmocka_unit_test(what_has_no_checksum),
        cmocka_unit_test(garbage),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

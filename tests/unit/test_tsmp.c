/* links: tailnetd/magic/tsmp.c core/tn_addr.c */
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/tsmp.h"

#define VECTORS "disco_stun_tsmp.txt"

static void
vectors(void **state)
{
    uint8_t p[128], out[TSMP_MAX_LEN], key[32];
    struct tsmp t;
    size_t len;

    (void)state;
    len = kit_vector(VECTORS, "tsmp disco advert pkt", p, sizeof(p));
    assert_true(tsmp_read(&t, p, len));
    assert_int_equal(t.type, TSMP_DISCO);
    kit_vector(VECTORS, "A disco pub", key, 32);
    assert_memory_equal(t.disco, key, 32);

    len = kit_vector(VECTORS, "tsmp reject pkt", p, sizeof(p));
    assert_true(tsmp_read(&t, p, len));
    assert_int_equal(t.type, TSMP_REJECT);
    assert_int_equal(t.proto, 6);
    assert_int_equal(t.reason, 'A');
    assert_int_equal(t.sport, 0xc350);
    assert_int_equal(t.dport, 443);
    assert_false(t.maybe_broken);
    assert_non_null(strstr(tsmp_reason(t.reason), "policy"));

    len = kit_vector(VECTORS, "tsmp pong pkt", p, sizeof(p));
    assert_true(tsmp_read(&t, p, len));
    assert_int_equal(t.type, TSMP_PONG);
    assert_int_equal(t.data[7], 8);
    /* The same but for the port of a PeerAPI, which we do not have. */
    assert_int_equal(tsmp_ping(out, &t.src, &t.dst, t.data, true), len);
    assert_memory_equal(out, p, len - 2);
}

static void
asks_and_answers(void **state)
{
    static const char *const addrs[][2] = {
        {"100.64.0.1", "100.64.0.2"}, {"fd7a::1", "fd7a::2"}};
    static const uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct tn_addr a, b;
    uint8_t out[TSMP_MAX_LEN], *copy;
    struct tsmp t;
    size_t i, len;

    (void)state;
    for (i = 0; i < 4; i++) {
        a = kit_addr(addrs[i / 2][0]);
        b = kit_addr(addrs[i / 2][1]);
        len = tsmp_ping(out, &a, &b, data, i & 1);
        copy = kit_copy(out, len);
        assert_true(tsmp_read(&t, copy, len));
        assert_int_equal(t.type, i & 1 ? TSMP_PONG : TSMP_PING);
        assert_true(tn_addr_equal(&t.src, &a));
        assert_true(tn_addr_equal(&t.dst, &b));
        assert_memory_equal(t.data, data, 8);
        free(copy);
    }
}

/* The vector, from the packet that it refuses. */
static void
refuses(void **state)
{
    uint8_t want[64], out[TSMP_MAX_LEN], syn[60] = {0x46}, *copy;
    size_t len = kit_vector(VECTORS, "tsmp reject pkt", want, sizeof(want));

    (void)state;
    syn[9] = 6;
    memcpy(syn + 12, want + 16, 4);
    memcpy(syn + 16, want + 12, 4);
    memcpy(syn + 24, want + 23, 4); /* behind an option */
    copy = kit_copy(syn, 28);
    assert_int_equal(tsmp_refuse(out, copy, 28), len);
    assert_memory_equal(out, want, len);
    free(copy);
    for (size_t n = 0; n < 28; n++) {
        copy = kit_copy(syn, n);
        assert_int_equal(tsmp_refuse(out, copy, n), 0);
        free(copy);
    }
    syn[0] = 0x44; /* a header that is too short */
    assert_int_equal(tsmp_refuse(out, syn, sizeof(syn)), 0);
    syn[0] = 0x66;
    assert_int_equal(tsmp_refuse(out, syn, sizeof(syn)), 0);
    syn[0] = 0x46;
    syn[9] = 17;
    assert_int_equal(tsmp_refuse(out, syn, sizeof(syn)), 0);
}

static void
garbage(void **state)
{
    static const char *const names[] = {
        "tsmp disco advert pkt", "tsmp reject pkt", "tsmp pong pkt"};
    uint8_t p[128], *copy;
    uint32_t seed = 4;
    struct tsmp t;
    size_t i, k, len;

    (void)state;
    for (k = 0; k < 3; k++) {
        len = kit_vector(VECTORS, names[k], p, sizeof(p));
        for (i = 0; i < len; i++) {
            copy = kit_copy(p, i);
            if (tsmp_read(&t, copy, i))
                assert_int_equal(
                    t.type, k == 2 && i >= 20 + 9 ? TSMP_PONG : TSMP_OTHER);
            else
                assert_true(i < 20);
            free(copy);
        }
        for (i = 0; i < 20000; i++) {
            copy = kit_copy(p, len);
            copy[kit_random(&seed) % len] = (uint8_t)kit_random(&seed);
            copy[kit_random(&seed) % 2] = (uint8_t)kit_random(&seed);
            if (tsmp_read(&t, copy, len) && t.type == TSMP_DISCO)
                assert_true(t.disco + 32 <= copy + len);
            free(copy);
        }
    }
    kit_vector(VECTORS, "tsmp pong pkt", p, sizeof(p));
    p[9] = 6;
    assert_false(tsmp_read(&t, p, 31));
    p[9] = 99;
    p[7] = 1; /* a fragment behind the first */
    assert_true(tsmp_read(&t, p, 31));
    assert_int_equal(t.type, TSMP_OTHER);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(asks_and_answers),
        cmocka_unit_test(refuses),
        cmocka_unit_test(garbage),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

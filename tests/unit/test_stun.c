/* links: tailnetd/magic/stun.c core/tn_addr.c */
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/stun.h"

#define VECTORS "disco_stun_tsmp.txt"

static const uint8_t txid[12] = {
    0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb};

static void
vectors(void **state)
{
    uint8_t want[64], out[STUN_REQUEST_LEN], id[12];
    struct tn_endpoint e;
    size_t len;

    (void)state;
    len = kit_vector(VECTORS, "stun request", want, sizeof(want));
    assert_int_equal(len, STUN_REQUEST_LEN);
    stun_request(out, txid);
    assert_memory_equal(out, want, len);
    assert_true(stun_looks(out, len));
    assert_int_equal(stun_response(out, len, id, &e), -1);

    len = kit_vector(VECTORS, "stun response v4", want, sizeof(want));
    assert_int_equal(stun_response(want, len, id, &e), 0);
    assert_memory_equal(id, txid, 12);
    kit_is(&e, "203.0.113.7:41641");

    len = kit_vector(VECTORS, "stun response v6", want, sizeof(want));
    memset(id, 0, 12);
    assert_int_equal(stun_response(want, len, id, &e), 0);
    assert_memory_equal(id, txid, 12);
    assert_int_equal(e.port, 41641);
    assert_false(tn_addr_is4(&e.addr));
}

struct attrs {
    size_t len;
    uint8_t b[96];
};

static size_t
response(uint8_t *out, const struct attrs *a)
{
    static const uint8_t head[8] = {1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42};

    memcpy(out, head, 8);
    out[3] = (uint8_t)a->len;
    memcpy(out + 8, txid, 12);
    memcpy(out + 20, a->b, a->len);
    return 20 + a->len;
}

#define MAPPED 0, 1, 0, 8, 0, 1, 0x10, 0x01, 192, 0, 2, 1
#define XORED  0, 0x20, 0, 8, 0, 1, 0x83, 0xbb, 0xea, 0x12, 0xd5, 0x45
#define ALT    0x80, 0x20, 0, 8, 0, 1, 0x83, 0xbb, 0xea, 0x12, 0xd5, 0x45

static void
attributes(void **state)
{
    static const struct {
        const char *want; /* NULL: refused */
        struct attrs a;
    } table[] = {
        {"192.0.2.1:4097", {12, {MAPPED}}}, {"203.0.113.7:41641", {12, {ALT}}},
        {"203.0.113.7:41641", {24, {MAPPED, XORED}}},
        {"203.0.113.7:41641", {24, {XORED, MAPPED}}},
        /* one of three bytes, padded, before it */
        {"203.0.113.7:41641",
            {20, {0x80, 0x22, 0, 3, 'a', 'b', 'c', 0, XORED}}},
        /* padding that is not there any more */
        {"203.0.113.7:41641", {17, {XORED, 0x80, 0x22, 0, 1, 'a'}}},
        {NULL, {0, {0}}}, {NULL, {4, {0x80, 0x22, 0, 0}}},
        {NULL, {11, {MAPPED}}},                    /* cut */
        {NULL, {8, {0, 1, 0, 4, 0, 1, 0x10, 1}}},  /* no address */
        {NULL, {12, {0, 1, 0, 8, 0, 3, 1, 1, 1}}}, /* family */
        {NULL, {12, {0, 1, 0, 8, 0, 2, 1, 1, 1}}}, /* IPv6 in 4 bytes */
        {NULL, {12, {0, 1, 0, 8, 0, 1, 0, 0, 1}}}, /* port 0 */
        {NULL, {16, {MAPPED, 0x80, 0x22, 0, 1}}},  /* cut behind it */
    };
    uint8_t out[128], *copy, id[12];
    struct tn_endpoint e;
    size_t i, len;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        len = response(out, &table[i].a);
        copy = kit_copy(out, len);
        if (table[i].want == NULL) {
            assert_int_equal(stun_response(copy, len, id, &e), -1);
        } else {
            assert_int_equal(stun_response(copy, len, id, &e), 0);
            kit_is(&e, table[i].want);
        }
        free(copy);
    }
}

static void
garbage(void **state)
{
    uint8_t good[64], *copy, id[12];
    struct tn_endpoint e;
    uint32_t seed = 2;
    size_t len, i, k;

    (void)state;
    len = kit_vector(VECTORS, "stun response v6", good, sizeof(good));
    for (i = 0; i < len; i++) {
        copy = kit_copy(good, i);
        assert_int_equal(stun_response(copy, i, id, &e), -1);
        free(copy);
    }
    for (i = 0; i < 50000; i++) {
        copy = kit_copy(good, len);
        for (k = 0; k < 1 + i % 4; k++)
            copy[kit_random(&seed) % len] = (uint8_t)kit_random(&seed);
        if (stun_response(copy, len, id, &e) == 0)
            assert_int_not_equal(e.port, 0);
        free(copy);
    }
}

static void
not_stun(void **state)
{
    uint8_t p[64];

    (void)state;
    kit_vector(VECTORS, "stun request", p, sizeof(p));
    assert_false(stun_looks(p, 19));
    p[0] = 0x40;
    assert_false(stun_looks(p, 40));
    p[0] = 0;
    p[4] = 0;
    assert_false(stun_looks(p, 40));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(attributes),
        cmocka_unit_test(garbage),
        cmocka_unit_test(not_stun),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

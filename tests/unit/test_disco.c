/* links: tailnetd/magic/disco.c tailnetd/crypto/box.c core/tn_addr.c */
/* libs: -lsodium */
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/disco.h"

#define VECTORS "disco_stun_tsmp.txt"

struct keys {
    uint8_t a_priv[32], b_priv[32], a_pub[32], b_pub[32], shared[32];
};

static void
load(struct keys *k)
{
    uint8_t pub[32], shared[32];

    kit_vector(VECTORS, "A disco priv", k->a_priv, 32);
    kit_vector(VECTORS, "B disco priv", k->b_priv, 32);
    kit_vector(VECTORS, "A disco pub", k->a_pub, 32);
    kit_vector(VECTORS, "B disco pub", k->b_pub, 32);
    kit_vector(VECTORS, "box shared (beforenm)", k->shared, 32);
    assert_int_equal(box_public(pub, k->a_priv), 0);
    assert_memory_equal(pub, k->a_pub, 32);
    assert_int_equal(box_shared(shared, k->b_pub, k->a_priv), 0);
    assert_memory_equal(shared, k->shared, 32);
    assert_int_equal(box_shared(shared, k->a_pub, k->b_priv), 0);
    assert_memory_equal(shared, k->shared, 32);
}

static void
fill(uint8_t *p, size_t len, uint8_t from)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(from + i);
}

/* Sealed with the vector's nonce it is the vector, and opens again. */
static void
check(const struct keys *k, const char *name, const struct disco_msg *m,
    struct disco_msg *got)
{
    uint8_t want[512], nonce[24], out[DISCO_MAX_LEN];
    size_t len = kit_vector(VECTORS, name, want, sizeof(want));

    fill(nonce, sizeof(nonce), 0xa0);
    assert_int_equal(disco_seal(out, m, k->shared, k->a_pub, nonce), len);
    assert_memory_equal(out, want, len);
    assert_true(disco_looks(want, len));
    assert_memory_equal(disco_sender(want), k->a_pub, 32);
    assert_int_equal(disco_open(got, k->shared, want, len), 0);
    assert_int_equal(got->type, m->type);
}

static void
vectors(void **state)
{
    struct disco_msg ping = {.type = DISCO_PING}, pong = {.type = DISCO_PONG},
                     call = {.type = DISCO_CALL_ME_MAYBE}, got;
    struct keys k;

    (void)state;
    load(&k);
    fill(ping.txid, 12, 0xf0);
    fill(ping.node_key, 32, 0x80);
    check(&k, "ping packet", &ping, &got);
    assert_memory_equal(got.txid, ping.txid, 12);
    assert_true(got.has_node_key);
    assert_memory_equal(got.node_key, ping.node_key, 32);

    fill(pong.txid, 12, 0xf0);
    pong.src = kit_endpoint("203.0.113.7:41641");
    check(&k, "pong packet", &pong, &got);
    assert_memory_equal(got.txid, pong.txid, 12);
    kit_is(&got.src, "203.0.113.7:41641");

    call.nendpoints = 2;
    call.endpoints[0] = kit_endpoint("192.0.2.1:41641");
    call.endpoints[1] = kit_endpoint("[2001:db8::1]:41641");
    check(&k, "call-me-maybe packet", &call, &got);
    assert_int_equal(got.nendpoints, 2);
    kit_is(&got.endpoints[0], "192.0.2.1:41641");
    kit_is(&got.endpoints[1], "[2001:db8::1]:41641");
}

/* A datagram of any plaintext. */
static size_t
seal(const struct keys *k, const uint8_t *plain, size_t len, uint8_t *out)
{
    struct disco_msg m = {.type = DISCO_PONG};
    uint8_t nonce[24] = {7};

    (void)disco_seal(out, &m, k->shared, k->a_pub, nonce);
    box_seal(out + DISCO_HEADER_LEN, k->shared, nonce, plain, len);
    return DISCO_HEADER_LEN + BOX_TAG_LEN + len;
}

static void
bodies(void **state)
{
    static const struct {
        uint8_t type, version;
        size_t len;
        int rc;
        enum disco_type want;
        bool node_key;
    } table[] = {
        {1, 0, 11, -2, DISCO_PING, false},
        {1, 0, 12, 0, DISCO_PING, false}, /* old: without its node key */
        {1, 0, 43, 0, DISCO_PING, false},
        {1, 0, 44, 0, DISCO_PING, true},
        {1, 0, 1300, 0, DISCO_PING, true}, /* measures the MTU */
        {1, 1, 0, 0, DISCO_OTHER, false},
        {2, 0, 29, -2, DISCO_PONG, false},
        {2, 0, 30, 0, DISCO_PONG, false},
        {2, 0, 31, 0, DISCO_PONG, false},
        {3, 0, 0, 0, DISCO_CALL_ME_MAYBE, false},
        {3, 0, 17, -2, DISCO_CALL_ME_MAYBE, false},
        {3, 0, 18, 0, DISCO_CALL_ME_MAYBE, false},
        {3, 0, 18 * 60, 0, DISCO_CALL_ME_MAYBE, false},
        {4, 0, 3, 0, DISCO_OTHER, false},
        {0, 0, 0, 0, DISCO_OTHER, false},
        {255, 255, 40, 0, DISCO_OTHER, false},
    };
    uint8_t plain[2048], out[4096], *copy;
    struct disco_msg m;
    struct keys k;
    size_t i, len;

    (void)state;
    load(&k);
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        memset(plain, 0x21, sizeof(plain));
        plain[0] = table[i].type;
        plain[1] = table[i].version;
        len = seal(&k, plain, 2 + table[i].len, out);
        copy = kit_copy(out, len);
        assert_int_equal(disco_open(&m, k.shared, copy, len), table[i].rc);
        assert_int_equal(m.type, table[i].want);
        assert_int_equal(m.has_node_key, table[i].node_key);
        assert_true(m.nendpoints <= DISCO_CALL_MAX);
        free(copy);
    }
    /* A node key of zeros is none. */
    memset(plain, 0, sizeof(plain));
    plain[0] = 1;
    len = seal(&k, plain, 2 + 44, out);
    assert_int_equal(disco_open(&m, k.shared, out, len), 0);
    assert_false(m.has_node_key);
    /* Not even type and version. */
    for (i = 0; i < 2; i++) {
        len = seal(&k, plain, i, out);
        assert_int_equal(disco_open(&m, k.shared, out, len), -2);
    }
}

static void
places_that_are_none_are_left_out(void **state)
{
    static const char *const bad[] = {"[fe80::1]:1", "[ff02::1]:1",
        "224.0.0.1:1", "255.255.255.255:1", "0.0.0.0:1", "[::]:1"};
    struct disco_msg m = {.type = DISCO_CALL_ME_MAYBE}, got;
    uint8_t out[DISCO_MAX_LEN], nonce[24] = {0};
    struct keys k;
    size_t i, len;

    (void)state;
    load(&k);
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        m.endpoints[m.nendpoints++] = kit_endpoint(bad[i]);
    m.endpoints[m.nendpoints++] = kit_endpoint("192.0.2.1:1");
    m.endpoints[m.nendpoints] = kit_endpoint("192.0.2.1:1");
    m.endpoints[m.nendpoints++].port = 0;
    len = disco_seal(out, &m, k.shared, k.a_pub, nonce);
    assert_int_equal(disco_open(&got, k.shared, out, len), 0);
    assert_int_equal(got.nendpoints, 1);
    kit_is(&got.endpoints[0], "192.0.2.1:1");
}

/* Every bit of the box counts, every length is survived. */
static void
garbage(void **state)
{
    uint8_t want[512], *copy;
    struct disco_msg m;
    struct keys k;
    size_t len, i;
    uint32_t seed = 1;

    (void)state;
    load(&k);
    len = kit_vector(VECTORS, "ping packet", want, sizeof(want));
    for (i = 0; i < len; i++) {
        copy = kit_copy(want, i);
        assert_int_equal(disco_looks(copy, i), i >= DISCO_HEADER_LEN);
        assert_int_equal(disco_open(&m, k.shared, copy, i), -1);
        free(copy);
    }
    for (i = 8 * 38; i < 8 * len; i++) {
        want[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(disco_open(&m, k.shared, want, len), -1);
        want[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (i = 0; i < 2000; i++) {
        len = kit_random(&seed) % 200;
        copy = kit_copy(want, len < sizeof(want) ? len : sizeof(want));
        kit_fill(&seed, copy, len);
        assert_false(disco_looks(copy, len));
        free(copy);
    }
    want[0] ^= 1;
    assert_false(disco_looks(want, DISCO_HEADER_LEN));
}

static void
bad_keys(void **state)
{
    static const uint8_t zero[32];
    uint8_t shared[32];
    struct keys k;

    (void)state;
    load(&k);
    assert_int_equal(box_shared(shared, zero, k.a_priv), -1);
    assert_int_equal(box_open(shared, k.shared, zero, zero, 15), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(bodies),
        cmocka_unit_test(places_that_are_none_are_left_out),
        cmocka_unit_test(garbage),
        cmocka_unit_test(bad_keys),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

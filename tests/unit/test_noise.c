/* links: tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* libs: -lsodium -lcrypto */
/*
 * test_noise.c: hashes, key derivation, X25519 and both AEADs, with published
 * vectors and with every intermediate of a WireGuard handshake.
 */
#include "wg_vector.h"

#include <openssl/crypto.h>

#include "../../ngx_tailnet_module/tailnetd/crypto/aead.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static size_t allocations;   /* of OpenSSL */
static long fail_after = -1; /* how many of them succeed; -1: all */

static void *
count_malloc(size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    allocations++;
    if (fail_after == 0)
        return NULL;
    if (fail_after > 0)
        fail_after--;
    return malloc(n);
}

static void *
count_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    allocations++;
    return realloc(p, n);
}

static void
count_free(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    free(p);
}

static void
unhex(uint8_t *out, size_t len, const char *hex)
{
    assert_int_equal(strlen(hex), 2 * len);
    for (size_t i = 0; i < len; i++) {
        char byte[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

        out[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
}

static void
expect(const uint8_t *value, size_t len, const char *hex)
{
    uint8_t want[256];

    assert_true(len <= sizeof(want));
    unhex(want, len, hex);
    assert_memory_equal(value, want, len);
}

/* RFC 7693 appendix B, and that parts only join. */
static void
test_hash(void **state)
{
    uint8_t out[32], same[32];

    (void)state;
    noise_hash(out, "abc", 3, NULL, 0);
    expect(out, 32,
        "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
    noise_hash(same, NULL, 0, "abc", 3);
    assert_memory_equal(same, out, 32);
    noise_hash(same, "ab", 2, "c", 1);
    assert_memory_equal(same, out, 32);
    noise_hash(out, NULL, 0, NULL, 0);
    expect(out, 32,
        "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9");

    memset(out, 1, sizeof(out));
    memset(same, 1, sizeof(same));
    noise_mix_hash(out, "abc", 3);
    noise_hash(same, same, 32, "abc", 3);
    assert_memory_equal(out, same, 32);
}

/* A key's length and the output's are part of BLAKE2s' parameters, so a keyed
 * 128-bit MAC is neither a shortened hash nor one with a prefixed key. */
static void
test_mac(void **state)
{
    uint8_t key[32], a[16], b[16], full[32];

    (void)state;
    for (int i = 0; i < 32; i++)
        key[i] = (uint8_t)i;
    noise_mac(a, key, 32, "abc", 3, NULL, 0);
    noise_mac(b, key, 32, "a", 1, "bc", 2);
    assert_memory_equal(a, b, 16);
    noise_mac(b, key, 16, "abc", 3, NULL, 0);
    assert_memory_not_equal(a, b, 16);
    noise_hash(full, key, 32, "abc", 3);
    assert_memory_not_equal(a, full, 16);
    noise_mac(b, key, 32, "abc", 3, NULL, 0);
    assert_memory_equal(a, b, 16);
}

/* The MACs of the recorded messages: 32-byte and 16-byte keys. */
static void
test_mac_vector(void **state)
{
    uint8_t msg[148], pub[32], key[32], mac[16], cookie[16];

    (void)state;
    vector_get("MSG1 (148)", msg, sizeof(msg));
    vector_get("responder static pub", pub, 32);
    noise_hash(key, "mac1----", 8, pub, 32);
    noise_mac(mac, key, 32, msg, 116, NULL, 0);
    assert_memory_equal(mac, msg + 116, 16);
    vector_get("cookie (16)", cookie, 16);
    noise_mac(mac, cookie, 16, msg, 132, NULL, 0);
    vector_check("mac2 of MSG1 w/ cookie", mac, 16);
}

/* HKDF by its definition, out of HMACs; results over arguments. */
static void
test_kdf(void **state)
{
    uint8_t ck[32], in[5] = {1, 2, 3, 4, 5}, prk[32], t[33], want[3][32];
    uint8_t a[32], b[32], c[32];

    (void)state;
    memset(ck, 7, sizeof(ck));
    noise_hmac(prk, ck, 32, in, sizeof(in));
    t[0] = 1;
    noise_hmac(want[0], prk, 32, t, 1);
    for (int i = 1; i < 3; i++) {
        memcpy(t, want[i - 1], 32);
        t[32] = (uint8_t)(i + 1);
        noise_hmac(want[i], prk, 32, t, 33);
    }
    noise_kdf1(a, ck, in, sizeof(in));
    assert_memory_equal(a, want[0], 32);
    noise_kdf2(a, b, ck, in, sizeof(in));
    assert_memory_equal(b, want[1], 32);
    noise_kdf3(ck, b, c, ck, in, sizeof(in));
    assert_memory_equal(ck, want[0], 32);
    assert_memory_equal(b, want[1], 32);
    assert_memory_equal(c, want[2], 32);
}

/* RFC 7748 section 5.2, and all points of low order. */
static void
test_dh(void **state)
{
    static const char *const low[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    };
    static const uint8_t zero[32];
    uint8_t priv[32], pub[32], out[32];

    (void)state;
    unhex(priv, 32,
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    unhex(pub, 32,
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    assert_int_equal(noise_dh(out, priv, pub), 0);
    expect(out, 32,
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
    for (size_t i = 0; i < COUNT(low); i++) {
        unhex(pub, 32, low[i]);
        memset(out, 1, sizeof(out));
        assert_int_equal(noise_dh(out, priv, pub), -1);
        assert_memory_equal(out, zero, 32);
    }

    vector_get("initiator static priv", priv, 32);
    noise_public_key(out, priv);
    vector_check("initiator static pub", out, 32);
    memset(priv, 0xff, sizeof(priv));
    noise_clamp(priv);
    assert_int_equal(priv[0], 0xf8);
    assert_int_equal(priv[31], 0x7f);
    memset(priv, 0, sizeof(priv));
    noise_clamp(priv);
    assert_int_equal(priv[31], 0x40);
}

/* The handshake of the vector, token by token, with nothing but this file. */
static void
test_handshake_steps(void **state)
{
    static const uint8_t zero[32], nonce[AEAD_NONCE_LEN];
    uint8_t si[32], sr[32], sr_pub[32], ei[32], er[32], pub[32], dh[32];
    uint8_t ck[32], h[32], k[32], tau[32], field[48], tai[12], a[32], b[32];

    (void)state;
    vector_get("initiator static priv", si, 32);
    vector_get("responder static priv", sr, 32);
    vector_get("responder static pub", sr_pub, 32);
    vector_get("initiator eph priv", ei, 32);
    vector_get("responder eph priv", er, 32);
    vector_get("tai64n 1700000000.305419896", tai, 12);

    noise_hash(ck, "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", 37, NULL, 0);
    vector_check("initial chaining key", ck, 32);
    noise_hash(h, ck, 32, "WireGuard v1 zx2c4 Jason@zx2c4.com", 34);
    vector_check("initial hash", h, 32);
    noise_mix_hash(h, sr_pub, 32);

    noise_public_key(pub, ei); /* e */
    noise_mix_hash(h, pub, 32);
    noise_kdf1(ck, ck, pub, 32);
    vector_check("ck after e", ck, 32);
    assert_int_equal(noise_dh(dh, ei, sr_pub), 0); /* es */
    noise_kdf2(ck, k, ck, dh, 32);
    vector_check("k after es", k, 32);
    noise_public_key(pub, si); /* s */
    aead_field_seal(field, k, nonce, h, 32, pub, 32);
    noise_mix_hash(h, field, 48);
    assert_int_equal(noise_dh(dh, si, sr_pub), 0); /* ss */
    noise_kdf2(ck, k, ck, dh, 32);
    vector_check("k after ss", k, 32);
    vector_check("ck after init", ck, 32);
    aead_field_seal(field, k, nonce, h, 32, tai, 12);
    noise_mix_hash(h, field, 28);
    vector_check("hash after init", h, 32);

    noise_public_key(pub, er); /* e */
    noise_mix_hash(h, pub, 32);
    noise_kdf1(ck, ck, pub, 32);
    assert_int_equal(noise_dh(dh, ei, pub), 0); /* ee */
    noise_kdf1(ck, ck, dh, 32);
    assert_int_equal(noise_dh(dh, si, pub), 0); /* se */
    noise_kdf1(ck, ck, dh, 32);
    noise_kdf3(ck, tau, k, ck, zero, 32); /* psk */
    vector_check("psk tau", tau, 32);
    vector_check("k for empty", k, 32);
    vector_check("final ck", ck, 32);
    noise_mix_hash(h, tau, 32);
    aead_field_seal(field, k, nonce, h, 32, NULL, 0);
    noise_mix_hash(h, field, 16);
    vector_check("final hash", h, 32);
    noise_kdf2(a, b, ck, NULL, 0);
    vector_check("initiator send key", a, 32);
    vector_check("initiator recv key", b, 32);
}

static const char rfc8439_text[] =
    "Ladies and Gentlemen of the class of '99: If I could offer you only one "
    "tip for the future, sunscreen would be it.";
static const char rfc8439_sealed[] =
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
    "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
    "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
    "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";

/* RFC 8439 section 2.8.2; each flipped bit is noticed. */
static void
test_field(void **state)
{
    enum { LEN = sizeof(rfc8439_text) - 1 };
    uint8_t key[32], nonce[12], ad[12], sealed[LEN + 16], plain[LEN];

    (void)state;
    for (int i = 0; i < 32; i++)
        key[i] = (uint8_t)(0x80 + i);
    unhex(nonce, 12, "070000004041424344454647");
    unhex(ad, 12, "50515253c0c1c2c3c4c5c6c7");
    aead_field_seal(sealed, key, nonce, ad, 12, rfc8439_text, LEN);
    expect(sealed, sizeof(sealed), rfc8439_sealed);
    assert_true(
        aead_field_open(plain, key, nonce, ad, 12, sealed, sizeof(sealed)));
    assert_memory_equal(plain, rfc8439_text, LEN);
    for (size_t i = 0; i < sizeof(sealed); i++) {
        sealed[i] ^= 1;
        assert_false(
            aead_field_open(plain, key, nonce, ad, 12, sealed, sizeof(sealed)));
        sealed[i] ^= 1;
    }
    assert_false(aead_field_open(plain, key, nonce, ad, 12, sealed, 15));
    ad[0] ^= 1;
    assert_false(
        aead_field_open(plain, key, nonce, ad, 12, sealed, sizeof(sealed)));
}

/* The recorded cookie reply. */
static void
test_xfield(void **state)
{
    uint8_t msg1[148], reply[64], pub[32], key[32], out[32];

    (void)state;
    vector_get("MSG1 (148)", msg1, sizeof(msg1));
    vector_get("cookie reply (64)", reply, sizeof(reply));
    vector_get("responder static pub", pub, 32);
    noise_hash(key, "cookie--", 8, pub, 32);
    assert_true(
        aead_xfield_open(out, key, reply + 8, msg1 + 116, 16, reply + 32, 32));
    vector_check("cookie (16)", out, 16);
    aead_xfield_seal(out, key, reply + 8, msg1 + 116, 16, out, 16);
    assert_memory_equal(out, reply + 32, 32);
    out[31] ^= 1;
    assert_false(
        aead_xfield_open(out, key, reply + 8, msg1 + 116, 16, out, 32));
}

/* Packets: every length to past a few blocks, against the field functions. */
static void
test_packet(void **state)
{
    enum { MAX = 1500 };
    uint8_t key[32], nonce[12] = {0}, buf[MAX + 16 + AEAD_SLACK];
    uint8_t want[MAX + 16], plain[MAX];
    struct aead *seal, *open;

    (void)state;
    memset(key, 9, sizeof(key));
    seal = aead_new(key, AEAD_SEAL);
    open = aead_new(key, AEAD_OPEN);
    assert_non_null(seal);
    assert_non_null(open);
    for (size_t len = 0; len <= MAX; len += len < 300 ? 1 : 97) {
        uint64_t counter = len * UINT64_C(0x0102030405060708);

        for (size_t i = 0; i < len; i++)
            plain[i] = (uint8_t)(i * 7 + len);
        for (int i = 0; i < 8; i++)
            nonce[4 + i] = (uint8_t)(counter >> (8 * i));
        aead_field_seal(want, key, nonce, NULL, 0, plain, len);
        memcpy(buf, plain, len);
        aead_seal(seal, counter, buf, len);
        assert_memory_equal(buf, want, len + 16);
        assert_true(aead_open(open, counter, buf, len + 16));
        assert_memory_equal(buf, plain, len);

        /* A forgery in between leaves the context usable. */
        memcpy(buf, want, len + 16);
        buf[len / 2] ^= 0x80;
        assert_false(aead_open(open, counter, buf, len + 16));
        memcpy(buf, want, len + 16);
        assert_false(aead_open(open, counter + 1, buf, len + 16));
    }
    assert_false(aead_open(open, 0, buf, 15));
    assert_false(aead_open(open, 0, buf, 0));
    assert_false(aead_open(open, 0, buf, AEAD_MAX_LEN + 1));
    aead_free(seal);
    aead_free(open);
    aead_free(NULL);
}

/* The recorded transport messages. */
static void
test_packet_vector(void **state)
{
    static const char data_name[] = "data i->r ctr 1";
    uint8_t key[32], msg[64 + AEAD_SLACK], keepalive[32 + AEAD_SLACK];
    struct aead *open;

    (void)state;
    vector_get("initiator send key", key, 32);
    vector_get("keepalive i->r ctr 0", keepalive, 32);
    vector_get(data_name, msg, 64);
    open = aead_new(key, AEAD_OPEN);
    assert_true(aead_open(open, 0, keepalive + 16, 16));
    assert_true(aead_open(open, 1, msg + 16, 48));
    vector_check("ip packet", msg + 16, 32);
    aead_free(open);
}

/* After set-up neither packets allocate nor what a forger can provoke. */
static void
test_no_allocation(void **state)
{
    uint8_t key[32] = {1}, buf[256 + 16 + AEAD_SLACK] = {0}, out[16];
    struct aead *seal = aead_new(key, AEAD_SEAL);
    struct aead *open = aead_new(key, AEAD_OPEN);

    (void)state;
    assert_true(allocations > 0);
    allocations = 0;
    for (uint64_t i = 0; i < 100; i++) {
        aead_seal(seal, i, buf, 256);
        assert_true(aead_open(open, i, buf, 272));
        assert_false(aead_open(open, i, buf, 272));
        noise_mac(out, key, 32, buf, 100, NULL, 0);
    }
    assert_int_equal(allocations, 0);
    aead_free(seal);
    aead_free(open);
}

/* A key without memory: no context, whichever of its parts fails. */
static void
test_no_memory(void **state)
{
    uint8_t key[32] = {1};
    struct aead *a = NULL;
    long n;

    (void)state;
    assert_true(aead_use(AEAD_BACKEND_OPENSSL)); /* which allocates more */
    aead_free(aead_new(key, AEAD_SEAL));         /* and once for all */
    for (n = 0; a == NULL; n++) {
        assert_true(n < 50);
        fail_after = n;
        a = aead_new(key, AEAD_SEAL);
        fail_after = -1;
    }
    assert_true(n > 1);
    aead_free(a);
}

static void
test_small(void **state)
{
    uint8_t key[16] = {0}, a[32] = {0}, b[32] = {0};
    uint64_t h = noise_siphash(key, a, 32);

    (void)state;
    assert_true(noise_equal(a, b, 32));
    b[31] = 1;
    assert_false(noise_equal(a, b, 32));
    assert_true(noise_siphash(key, b, 32) != h);
    key[0] = 1;
    assert_true(noise_siphash(key, a, 32) != h);
    noise_wipe(b, 32);
    assert_true(noise_equal(a, b, 32));
}

/* A thread may stop and start again. */
static void
test_init(void **state)
{
    uint8_t out[32];

    (void)state;
    assert_int_equal(noise_init(), 0);
    noise_exit();
    noise_exit();
    assert_int_equal(noise_init(), 0);
    noise_hash(out, "abc", 3, NULL, 0);
    assert_int_equal(out[0], 0x50);
}

static int
set_up(void **state)
{
    (void)state;
    return noise_init();
}

static int
tear_down(void **state)
{
    (void)state;
    noise_exit();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_mac),
        cmocka_unit_test(test_mac_vector),
        cmocka_unit_test(test_kdf),
        cmocka_unit_test(test_dh),
        cmocka_unit_test(test_handshake_steps),
        cmocka_unit_test(test_field),
        cmocka_unit_test(test_xfield),
        cmocka_unit_test(test_packet),
        cmocka_unit_test(test_packet_vector),
        cmocka_unit_test(test_no_allocation),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_init),
    };

    /* Before the library's first allocation, or it refuses. */
    if (CRYPTO_set_mem_functions(count_malloc, count_realloc, count_free) != 1)
        return 1;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

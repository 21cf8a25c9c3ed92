/*
 * noise.c: see noise.h.
 *
 * BLAKE2s comes from OpenSSL through contexts that live as long as the thread,
 * so that nothing is fetched or set up per call.  X25519, SipHash, comparison
 * and wiping come from libsodium.
 */
#include "noise.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <sodium.h>

#define BLAKE2S_BLOCK_LEN 64

_Static_assert(crypto_scalarmult_BYTES == NOISE_KEY_LEN, "X25519");
_Static_assert(crypto_shorthash_KEYBYTES == NOISE_SIP_KEY_LEN, "SipHash");

static _Thread_local EVP_MD_CTX *hasher;
static _Thread_local EVP_MAC_CTX *macer;

/* A hash fails only when OpenSSL gets no memory for its 128 bytes of state.
 * There is no going on then: it would be with keys that nobody agreed on. */
static void
must(int ok)
{
    if (ok != 1)
        abort();
}

static EVP_MD_CTX *
new_hasher(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (ctx != NULL && EVP_DigestInit_ex(ctx, EVP_blake2s256(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        ctx = NULL;
    }
    return ctx;
}

static EVP_MAC_CTX *
new_macer(void)
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, OSSL_MAC_NAME_BLAKE2SMAC, NULL);
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac); /* NULL for NULL */
    size_t size = NOISE_MAC_LEN;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
        OSSL_PARAM_construct_end(),
    };

    EVP_MAC_free(mac); /* the context keeps its own reference */
    if (ctx != NULL && EVP_MAC_CTX_set_params(ctx, params) != 1) {
        EVP_MAC_CTX_free(ctx);
        ctx = NULL;
    }
    return ctx;
}

int
noise_init(void)
{
    if (sodium_init() < 0)
        return -1;
    if (hasher == NULL)
        hasher = new_hasher();
    if (macer == NULL)
        macer = new_macer();
    return hasher != NULL && macer != NULL ? 0 : -1;
}

void
noise_exit(void)
{
    EVP_MD_CTX_free(hasher);
    EVP_MAC_CTX_free(macer);
    hasher = NULL;
    macer = NULL;
}

void
noise_hash(uint8_t out[NOISE_HASH_LEN], const void *a, size_t alen,
    const void *b, size_t blen)
{
    must(EVP_DigestInit_ex(hasher, NULL, NULL));
    if (alen > 0)
        must(EVP_DigestUpdate(hasher, a, alen));
    if (blen > 0)
        must(EVP_DigestUpdate(hasher, b, blen));
    must(EVP_DigestFinal_ex(hasher, out, NULL));
}

void
noise_mac(uint8_t out[NOISE_MAC_LEN], const uint8_t *key, size_t keylen,
    const void *a, size_t alen, const void *b, size_t blen)
{
    size_t n = 0;

    must(EVP_MAC_init(macer, key, keylen, NULL));
    if (alen > 0)
        must(EVP_MAC_update(macer, a, alen));
    if (blen > 0)
        must(EVP_MAC_update(macer, b, blen));
    must(EVP_MAC_final(macer, out, &n, NOISE_MAC_LEN));
    must(n == NOISE_MAC_LEN);
}

void
noise_hmac(uint8_t out[NOISE_HASH_LEN], const uint8_t *key, size_t keylen,
    const void *data, size_t len)
{
    uint8_t pad[BLAKE2S_BLOCK_LEN], inner[NOISE_HASH_LEN];

    must(keylen <= sizeof(pad));
    memset(pad, 0x36, sizeof(pad));
    for (size_t i = 0; i < keylen; i++)
        pad[i] ^= key[i];
    noise_hash(inner, pad, sizeof(pad), data, len);
    for (size_t i = 0; i < sizeof(pad); i++)
        pad[i] ^= 0x36 ^ 0x5c;
    noise_hash(out, pad, sizeof(pad), inner, sizeof(inner));
    noise_wipe(pad, sizeof(pad));
    noise_wipe(inner, sizeof(inner));
}

/* Extract, then expand into ${n} keys. */
static void
expand(uint8_t *const out[], unsigned n, const uint8_t ck[NOISE_HASH_LEN],
    const void *data, size_t len)
{
    uint8_t secret[NOISE_HASH_LEN], block[NOISE_HASH_LEN + 1];
    size_t used = 0;

    noise_hmac(secret, ck, NOISE_HASH_LEN, data, len);
    for (unsigned i = 0; i < n; i++) {
        block[used] = (uint8_t)(i + 1);
        noise_hmac(block, secret, sizeof(secret), block, used + 1);
        memcpy(out[i], block, NOISE_HASH_LEN);
        used = NOISE_HASH_LEN;
    }
    noise_wipe(secret, sizeof(secret));
    noise_wipe(block, sizeof(block));
}

void
noise_kdf1(uint8_t a[NOISE_HASH_LEN], const uint8_t ck[NOISE_HASH_LEN],
    const void *data, size_t len)
{
    expand((uint8_t *const[]){a}, 1, ck, data, len);
}

void
noise_kdf2(uint8_t a[NOISE_HASH_LEN], uint8_t b[NOISE_HASH_LEN],
    const uint8_t ck[NOISE_HASH_LEN], const void *data, size_t len)
{
    expand((uint8_t *const[]){a, b}, 2, ck, data, len);
}

void
noise_kdf3(uint8_t a[NOISE_HASH_LEN], uint8_t b[NOISE_HASH_LEN],
    uint8_t c[NOISE_HASH_LEN], const uint8_t ck[NOISE_HASH_LEN],
    const void *data, size_t len)
{
    expand((uint8_t *const[]){a, b, c}, 3, ck, data, len);
}

void
noise_mix_hash(uint8_t h[NOISE_HASH_LEN], const void *data, size_t len)
{
    noise_hash(h, h, NOISE_HASH_LEN, data, len);
}

int
noise_dh(uint8_t out[NOISE_KEY_LEN], const uint8_t priv[NOISE_KEY_LEN],
    const uint8_t pub[NOISE_KEY_LEN])
{
    if (crypto_scalarmult(out, priv, pub) == 0)
        return 0;
    noise_wipe(out, NOISE_KEY_LEN);
    return -1;
}

void
noise_public_key(uint8_t pub[NOISE_KEY_LEN], const uint8_t priv[NOISE_KEY_LEN])
{
    must(crypto_scalarmult_base(pub, priv) == 0);
}

void
noise_clamp(uint8_t priv[NOISE_KEY_LEN])
{
    priv[0] &= 248;
    priv[31] = (priv[31] & 127) | 64;
}

bool
noise_equal(const void *a, const void *b, size_t len)
{
    return sodium_memcmp(a, b, len) == 0;
}

void
noise_wipe(void *p, size_t len)
{
    sodium_memzero(p, len);
}

uint64_t
noise_siphash(
    const uint8_t key[NOISE_SIP_KEY_LEN], const void *data, size_t len)
{
    uint64_t h;

    crypto_shorthash((unsigned char *)&h, data, len, key);
    return h;
}

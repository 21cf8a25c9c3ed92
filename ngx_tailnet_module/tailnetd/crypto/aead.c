/*
 * aead.c: see aead.h.
 *
 * Packets: libipsec-mb where it is faster, else OpenSSL EVP, whose
 * ChaCha20-Poly1305 is 1.3 times as fast as libsodium's.  With EVP the key
 * schedule stays in the cipher context; a packet only sets the nonce.  Single
 * fields: libsodium, which needs no context.
 */
#include "aead.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <sodium.h>

#include "ipsecmb.h"

_Static_assert(crypto_aead_chacha20poly1305_ietf_ABYTES == AEAD_TAG_LEN, "tag");
_Static_assert(
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES == AEAD_XNONCE_LEN, "nonce");

struct aead {
    EVP_CIPHER_CTX *ctx; /* NULL: libipsec-mb, with ${key} */
    enum aead_direction direction;
    uint8_t key[AEAD_KEY_LEN];
};

static enum aead_backend backend = AEAD_BACKEND_AUTO;

bool
aead_use(enum aead_backend b)
{
    if (b == AEAD_BACKEND_IPSECMB && !ipsecmb_ready())
        return false;
    backend = b;
    return true;
}

enum aead_backend
aead_backend(void)
{
    if (backend == AEAD_BACKEND_AUTO)
        backend = ipsecmb_ready() ? AEAD_BACKEND_IPSECMB : AEAD_BACKEND_OPENSSL;
    return backend;
}

const char *
aead_backend_name(void)
{
    return aead_backend() == AEAD_BACKEND_IPSECMB ? "libipsec-mb" : "openssl";
}

/* Sealing cannot fail with a live context; if it does, nothing may be sent. */
static void
must(int ok)
{
    if (ok != 1)
        abort();
}

static void
nonce_of(uint8_t nonce[AEAD_NONCE_LEN], uint64_t counter)
{
    for (int i = 0; i < 4; i++)
        nonce[i] = 0;
    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(counter >> (8 * i));
}

struct aead *
aead_new(const uint8_t key[AEAD_KEY_LEN], enum aead_direction direction)
{
    struct aead *a = malloc(sizeof(*a));

    if (a == NULL)
        return NULL;
    a->direction = direction;
    a->ctx = NULL;
    if (aead_backend() == AEAD_BACKEND_IPSECMB) {
        memcpy(a->key, key, sizeof(a->key));
        return a;
    }
    a->ctx = EVP_CIPHER_CTX_new();
    if (a->ctx == NULL || EVP_CipherInit_ex(a->ctx, EVP_chacha20_poly1305(),
                              NULL, key, NULL, direction == AEAD_SEAL) != 1) {
        aead_free(a);
        return NULL;
    }
    return a;
}

void
aead_free(struct aead *a)
{
    if (a == NULL)
        return;
    EVP_CIPHER_CTX_free(a->ctx); /* wipes the key */
    sodium_memzero(a, sizeof(*a));
    free(a);
}

void
aead_seal(struct aead *a, uint64_t counter, uint8_t *buf, size_t len)
{
    uint8_t nonce[AEAD_NONCE_LEN];
    int n = 0, rest = 0;

    must(len <= AEAD_MAX_LEN && a->direction == AEAD_SEAL);
    nonce_of(nonce, counter);
    if (a->ctx == NULL) {
        ipsecmb_crypt(true, a->key, nonce, buf, len, buf + len);
        return;
    }
    must(EVP_CipherInit_ex(a->ctx, NULL, NULL, NULL, nonce, 1));
    must(EVP_CipherUpdate(a->ctx, buf, &n, buf, (int)len));
    must(EVP_CipherFinal_ex(a->ctx, buf + n, &rest));
    must(EVP_CIPHER_CTX_ctrl(
        a->ctx, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_LEN, buf + len));
}

bool
aead_open(struct aead *a, uint64_t counter, uint8_t *buf, size_t len)
{
    uint8_t nonce[AEAD_NONCE_LEN], tag[AEAD_TAG_LEN];
    int n = 0, rest = 0;

    if (len < AEAD_TAG_LEN || len > AEAD_MAX_LEN)
        return false;
    must(a->direction == AEAD_OPEN);
    len -= AEAD_TAG_LEN;
    nonce_of(nonce, counter);
    if (a->ctx == NULL) {
        ipsecmb_crypt(false, a->key, nonce, buf, len, tag);
        return sodium_memcmp(tag, buf + len, sizeof(tag)) == 0;
    }
    return EVP_CipherInit_ex(a->ctx, NULL, NULL, NULL, nonce, 0) == 1 &&
           EVP_CIPHER_CTX_ctrl(
               a->ctx, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_LEN, buf + len) == 1 &&
           EVP_CipherUpdate(a->ctx, buf, &n, buf, (int)len) == 1 &&
           EVP_CipherFinal_ex(a->ctx, buf + n, &rest) == 1;
}

void
aead_field_seal(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_NONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len)
{
    crypto_aead_chacha20poly1305_ietf_encrypt(
        out, NULL, in, len, ad, adlen, NULL, nonce, key);
}

bool
aead_field_open(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_NONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len)
{
    return crypto_aead_chacha20poly1305_ietf_decrypt(
               out, NULL, NULL, in, len, ad, adlen, nonce, key) == 0;
}

void
aead_xfield_seal(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_XNONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len)
{
    crypto_aead_xchacha20poly1305_ietf_encrypt(
        out, NULL, in, len, ad, adlen, NULL, nonce, key);
}

bool
aead_xfield_open(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_XNONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len)
{
    return crypto_aead_xchacha20poly1305_ietf_decrypt(
               out, NULL, NULL, in, len, ad, adlen, nonce, key) == 0;
}

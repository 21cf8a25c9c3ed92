/*
 * noise.h: hashes, key derivation and Diffie-Hellman of the Noise handshakes.
 *
 * The only door to the crypto libraries besides aead.h.  A thread calls
 * noise_init() before anything else here; after that nothing fails but a
 * Diffie-Hellman with a bad key.  Results may overlap arguments.  Names follow
 * the Noise specification (revision 34) and the WireGuard whitepaper, section
 * 5.4.
 */
#ifndef NOISE_H
#define NOISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOISE_HASH_LEN    32 /* BLAKE2s-256 */
#define NOISE_MAC_LEN     16 /* keyed BLAKE2s-128 */
#define NOISE_KEY_LEN     32 /* X25519 and symmetric keys */
#define NOISE_SIP_KEY_LEN 16

/*
 * noise_init(): prepares the calling thread's hash contexts; calling it again
 * is harmless.  Returns 0, or -1: the libraries are unusable or no memory.
 */
int noise_init(void);

/* noise_exit(): frees what noise_init() made, for a thread that ends. */
void noise_exit(void);

/* noise_hash(out, a, alen, b, blen): ${out} = BLAKE2s-256(a || b); a part of
 * length 0 may be NULL (RFC 7693). */
void noise_hash(uint8_t out[NOISE_HASH_LEN], const void *a, size_t alen,
    const void *b, size_t blen);

/* noise_mac(out, key, keylen, a, alen, b, blen): ${out} = BLAKE2s-128 of
 * a || b, keyed by 1..32 bytes of ${key}. */
void noise_mac(uint8_t out[NOISE_MAC_LEN], const uint8_t *key, size_t keylen,
    const void *a, size_t alen, const void *b, size_t blen);

/* noise_hmac(out, key, keylen, data, len): HMAC-BLAKE2s (RFC 2104), for keys
 * of up to 64 bytes. */
void noise_hmac(uint8_t out[NOISE_HASH_LEN], const uint8_t *key, size_t keylen,
    const void *data, size_t len);

/* noise_kdfN(..., ck, data, len): HKDF with chaining key ${ck} and ${len}
 * bytes of input into N keys (Noise section 4.3). */
void noise_kdf1(uint8_t a[NOISE_HASH_LEN], const uint8_t ck[NOISE_HASH_LEN],
    const void *data, size_t len);
void noise_kdf2(uint8_t a[NOISE_HASH_LEN], uint8_t b[NOISE_HASH_LEN],
    const uint8_t ck[NOISE_HASH_LEN], const void *data, size_t len);
void noise_kdf3(uint8_t a[NOISE_HASH_LEN], uint8_t b[NOISE_HASH_LEN],
    uint8_t c[NOISE_HASH_LEN], const uint8_t ck[NOISE_HASH_LEN],
    const void *data, size_t len);

/* noise_mix_hash(h, data, len): ${h} = HASH(h || data). */
void noise_mix_hash(uint8_t h[NOISE_HASH_LEN], const void *data, size_t len);

/*
 * noise_dh(out, priv, pub): X25519.  Returns 0, or -1 for a public key of low
 * order (the result would be zero); ${out} is wiped then.
 */
int noise_dh(uint8_t out[NOISE_KEY_LEN], const uint8_t priv[NOISE_KEY_LEN],
    const uint8_t pub[NOISE_KEY_LEN]);

/* noise_public_key(pub, priv): the X25519 public key of ${priv}. */
void noise_public_key(
    uint8_t pub[NOISE_KEY_LEN], const uint8_t priv[NOISE_KEY_LEN]);

/* noise_clamp(priv): makes 32 random bytes an X25519 private key (RFC 7748
 * section 5). */
void noise_clamp(uint8_t priv[NOISE_KEY_LEN]);

/* noise_equal(a, b, len): compares secrets in constant time. */
bool noise_equal(const void *a, const void *b, size_t len);

/* noise_wipe(p, len): overwrites a secret; never optimised away. */
void noise_wipe(void *p, size_t len);

/* noise_siphash(key, data, len): SipHash-2-4, for tables whose keys a stranger
 * may choose. */
uint64_t noise_siphash(
    const uint8_t key[NOISE_SIP_KEY_LEN], const void *data, size_t len);

#endif

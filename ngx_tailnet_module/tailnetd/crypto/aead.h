/*
 * aead.h: ChaCha20-Poly1305 (RFC 8439) and XChaCha20-Poly1305.
 *
 * Packets go through a struct aead: one key, one direction, set up once and
 * used without allocating.  It works in place and expects what every backend
 * needs: AEAD_SLACK readable bytes behind the data, and a buffer whose content
 * is lost when opening fails.  Handshakes seal single fields with the
 * stateless functions.
 */
#ifndef AEAD_H
#define AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AEAD_KEY_LEN    32
#define AEAD_NONCE_LEN  12
#define AEAD_XNONCE_LEN 24
#define AEAD_TAG_LEN    16
#define AEAD_SLACK      16
#define AEAD_MAX_LEN    65535 /* longest message that is sealed or opened */

struct aead;

enum aead_direction { AEAD_SEAL, AEAD_OPEN };

/*
 * Who does the packets' work: chosen once by the CPU's features, or, for tests
 * and measurements, by aead_use() before any context is made.  aead_use():
 * false: that one cannot be used here.
 */
enum aead_backend {
    AEAD_BACKEND_AUTO,
    AEAD_BACKEND_OPENSSL,
    AEAD_BACKEND_IPSECMB,
};
bool aead_use(enum aead_backend b);
enum aead_backend aead_backend(void);
const char *aead_backend_name(void);

/*
 * aead_new(key, direction): a new context, or NULL: no memory.  ${key} is
 * copied.  aead_free() wipes it; NULL is harmless.
 */
struct aead *aead_new(
    const uint8_t key[AEAD_KEY_LEN], enum aead_direction direction);
void aead_free(struct aead *a);

/*
 * aead_seal(a, counter, buf, len): seals ${len} bytes in place, without
 * associated data, under the nonce 0^4 || ${counter} (little endian), and
 * writes the tag behind them.
 */
void aead_seal(struct aead *a, uint64_t counter, uint8_t *buf, size_t len);

/*
 * aead_open(a, counter, buf, len): opens ${len} bytes, of which the last
 * AEAD_TAG_LEN are the tag, in place.  False: not authentic, ${buf} is garbage.
 */
bool aead_open(struct aead *a, uint64_t counter, uint8_t *buf, size_t len);

/*
 * aead_field_seal(out, key, nonce, ad, adlen, in, len): ${out} gets ${len} +
 * AEAD_TAG_LEN bytes.  aead_field_open() takes ${len} bytes with the tag and
 * puts ${len} - AEAD_TAG_LEN into ${out}; false: not authentic, or shorter
 * than a tag.  ${out} and ${in} may be the same.
 */
void aead_field_seal(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_NONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len);
bool aead_field_open(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_NONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len);

/* The same with XChaCha20-Poly1305 (WireGuard's cookie replies). */
void aead_xfield_seal(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_XNONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len);
bool aead_xfield_open(uint8_t *out, const uint8_t key[AEAD_KEY_LEN],
    const uint8_t nonce[AEAD_XNONCE_LEN], const void *ad, size_t adlen,
    const void *in, size_t len);

#endif

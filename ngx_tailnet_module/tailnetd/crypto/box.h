/*
 * box.h: public-key boxes between two X25519 keys (NaCl's crypto_box: X25519,
 * HSalsa20, XSalsa20-Poly1305), as disco and DERP use them.
 *
 * The expensive half of a box depends on the two keys only: whoever speaks with
 * a peer more than once keeps the shared key.
 */
#ifndef BOX_H
#define BOX_H

#include <stddef.h>
#include <stdint.h>

#define BOX_KEY_LEN   32
#define BOX_NONCE_LEN 24
#define BOX_TAG_LEN   16

/* box_public(pub, priv): the public half.  Returns 0, or -1: not a key. */
int box_public(uint8_t pub[BOX_KEY_LEN], const uint8_t priv[BOX_KEY_LEN]);

/* box_shared(shared, pub, priv): the key of every box between the two; secret.
 * Returns 0, or -1 for a public key of low order. */
int box_shared(uint8_t shared[BOX_KEY_LEN], const uint8_t pub[BOX_KEY_LEN],
    const uint8_t priv[BOX_KEY_LEN]);

/*
 * box_seal(out, shared, nonce, msg, len): tag and ciphertext, ${len} +
 * BOX_TAG_LEN bytes; they may overlap.  box_open(out, shared, nonce, box, len):
 * the ${len} - BOX_TAG_LEN bytes within.  Returns 0, or -1: too short or not
 * authentic, ${out} is then untouched.
 */
void box_seal(uint8_t *out, const uint8_t shared[BOX_KEY_LEN],
    const uint8_t nonce[BOX_NONCE_LEN], const uint8_t *msg, size_t len);
int box_open(uint8_t *out, const uint8_t shared[BOX_KEY_LEN],
    const uint8_t nonce[BOX_NONCE_LEN], const uint8_t *box, size_t len);

#endif

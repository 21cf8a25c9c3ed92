#include "box.h"

#include <sodium.h>

_Static_assert(BOX_KEY_LEN == crypto_box_BEFORENMBYTES &&
                   BOX_KEY_LEN == crypto_box_PUBLICKEYBYTES &&
                   BOX_KEY_LEN == crypto_box_SECRETKEYBYTES &&
                   BOX_NONCE_LEN == crypto_box_NONCEBYTES &&
                   BOX_TAG_LEN == crypto_box_MACBYTES,
    "the box is libsodium's");

int
box_public(uint8_t pub[BOX_KEY_LEN], const uint8_t priv[BOX_KEY_LEN])
{
    return crypto_scalarmult_base(pub, priv);
}

int
box_shared(uint8_t shared[BOX_KEY_LEN], const uint8_t pub[BOX_KEY_LEN],
    const uint8_t priv[BOX_KEY_LEN])
{
    return crypto_box_beforenm(shared, pub, priv);
}

void
box_seal(uint8_t *out, const uint8_t shared[BOX_KEY_LEN],
    const uint8_t nonce[BOX_NONCE_LEN], const uint8_t *msg, size_t len)
{
    /* It cannot fail for messages that fit into memory. */
    (void)crypto_box_easy_afternm(out, msg, len, nonce, shared);
}

int
box_open(uint8_t *out, const uint8_t shared[BOX_KEY_LEN],
    const uint8_t nonce[BOX_NONCE_LEN], const uint8_t *box, size_t len)
{
    if (len < BOX_TAG_LEN)
        return -1;
    return crypto_box_open_easy_afternm(out, box, len, nonce, shared);
}

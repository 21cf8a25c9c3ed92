/*
 * handshake.h: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, both roles (whitepaper
 * section 5.4).
 *
 * Fills and reads the Noise fields of a message; type, indices and MACs are
 * the caller's.  A call that fails wipes what it had derived.
 */
#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <stdint.h>

#include "msg.h"

/* A device's static keys. */
struct handshake_identity {
    uint8_t private_key[MSG_KEY_LEN];
    uint8_t public_key[MSG_KEY_LEN];
};

/* Between two messages. */
struct handshake {
    uint8_t ck[MSG_KEY_LEN];               /* chaining key */
    uint8_t h[MSG_KEY_LEN];                /* transcript hash */
    uint8_t ephemeral[MSG_KEY_LEN];        /* private; initiator only */
    uint8_t remote_ephemeral[MSG_KEY_LEN]; /* responder only */
    uint8_t remote_static[MSG_KEY_LEN];
};

/* Transport keys, seen from the side that derived them. */
struct handshake_keys {
    uint8_t send[MSG_KEY_LEN];
    uint8_t receive[MSG_KEY_LEN];
};

/*
 * handshake_create_initiation(hs, me, remote, ephemeral, tai64n, m): begins a
 * handshake with the owner of public key ${remote}.  ${ephemeral}: a fresh
 * private key.  Returns 0, or -1: ${remote} is of low order.
 */
int handshake_create_initiation(struct handshake *hs,
    const struct handshake_identity *me, const uint8_t remote[MSG_KEY_LEN],
    const uint8_t ephemeral[MSG_KEY_LEN], const uint8_t tai64n[MSG_TAI64N_LEN],
    struct msg_initiation *m);

/*
 * An initiation is read in two steps, so that a stranger costs one
 * Diffie-Hellman less.  handshake_read_static() gets the initiator's public
 * key into ${hs}->remote_static, not yet proven; handshake_read_timestamp()
 * proves it.  Each returns 0, or -1: not authentic.
 */
int handshake_read_static(struct handshake *hs,
    const struct handshake_identity *me, const struct msg_initiation *m);
int handshake_read_timestamp(struct handshake *hs,
    const struct handshake_identity *me, const struct msg_initiation *m,
    uint8_t tai64n[MSG_TAI64N_LEN]);

/*
 * handshake_create_response(hs, psk, ephemeral, m, keys): answers the
 * initiation read into ${hs} and derives ${keys}; ${hs} is wiped in any case.
 * Returns 0, or -1: a key of low order.
 */
int handshake_create_response(struct handshake *hs,
    const uint8_t psk[MSG_KEY_LEN], const uint8_t ephemeral[MSG_KEY_LEN],
    struct msg_response *m, struct handshake_keys *keys);

/*
 * handshake_read_response(hs, me, psk, m, keys): the initiator's last step.
 * ${hs} stays as it is, for another try.  Returns 0, or -1: not authentic.
 */
int handshake_read_response(const struct handshake *hs,
    const struct handshake_identity *me, const uint8_t psk[MSG_KEY_LEN],
    const struct msg_response *m, struct handshake_keys *keys);

#endif

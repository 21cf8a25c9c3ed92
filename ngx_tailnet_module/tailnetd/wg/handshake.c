/*
 * handshake.c: see handshake.h.
 *
 *   IKpsk2:   <- s
 *             ...
 *             -> e, es, s, ss, {t}
 *             <- e, ee, se, psk, {}
 *
 * Steps carry the tokens of this pattern.  ck is the chaining key, h the hash
 * of everything sent so far, k the key of the field that follows.
 */
#include "handshake.h"

#include <string.h>

#include "../crypto/aead.h"
#include "../crypto/noise.h"

static const char construction[] = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
static const char identifier[] = "WireGuard v1 zx2c4 Jason@zx2c4.com";
static const uint8_t zero_nonce[AEAD_NONCE_LEN];

/* Both sides start from the responder's static key. */
static void
start(struct handshake *hs, const uint8_t responder[MSG_KEY_LEN])
{
    memset(hs, 0, sizeof(*hs));
    noise_hash(hs->ck, construction, sizeof(construction) - 1, NULL, 0);
    noise_hash(
        hs->h, hs->ck, sizeof(hs->ck), identifier, sizeof(identifier) - 1);
    noise_mix_hash(hs->h, responder, MSG_KEY_LEN);
}

static void
mix_ephemeral(struct handshake *hs, const uint8_t e[MSG_KEY_LEN])
{
    noise_mix_hash(hs->h, e, MSG_KEY_LEN);
    noise_kdf1(hs->ck, hs->ck, e, MSG_KEY_LEN);
}

/* ${k} NULL: the token only mixes ck. */
static int
mix_dh(struct handshake *hs, uint8_t *k, const uint8_t priv[MSG_KEY_LEN],
    const uint8_t pub[MSG_KEY_LEN])
{
    uint8_t dh[NOISE_KEY_LEN];

    if (noise_dh(dh, priv, pub) == -1)
        return -1;
    if (k != NULL)
        noise_kdf2(hs->ck, k, hs->ck, dh, sizeof(dh));
    else
        noise_kdf1(hs->ck, hs->ck, dh, sizeof(dh));
    noise_wipe(dh, sizeof(dh));
    return 0;
}

static void
mix_psk(struct handshake *hs, uint8_t k[MSG_KEY_LEN],
    const uint8_t psk[MSG_KEY_LEN])
{
    uint8_t tau[NOISE_HASH_LEN];

    noise_kdf3(hs->ck, tau, k, hs->ck, psk, MSG_KEY_LEN);
    noise_mix_hash(hs->h, tau, sizeof(tau));
    noise_wipe(tau, sizeof(tau));
}

static void
seal(struct handshake *hs, uint8_t *out, const uint8_t k[MSG_KEY_LEN],
    const uint8_t *in, size_t len)
{
    aead_field_seal(out, k, zero_nonce, hs->h, sizeof(hs->h), in, len);
    noise_mix_hash(hs->h, out, len + MSG_TAG_LEN);
}

static int
unseal(struct handshake *hs, uint8_t *out, const uint8_t k[MSG_KEY_LEN],
    const uint8_t *in, size_t len)
{
    if (!aead_field_open(out, k, zero_nonce, hs->h, sizeof(hs->h), in, len))
        return -1;
    noise_mix_hash(hs->h, in, len);
    return 0;
}

/* The initiator sends with the first key, the responder with the second. */
static void
split(const struct handshake *hs, uint8_t initiator[MSG_KEY_LEN],
    uint8_t responder[MSG_KEY_LEN])
{
    noise_kdf2(initiator, responder, hs->ck, NULL, 0);
}

int
handshake_create_initiation(struct handshake *hs,
    const struct handshake_identity *me, const uint8_t remote[MSG_KEY_LEN],
    const uint8_t ephemeral[MSG_KEY_LEN], const uint8_t tai64n[MSG_TAI64N_LEN],
    struct msg_initiation *m)
{
    uint8_t k[MSG_KEY_LEN];
    int rv = -1;

    start(hs, remote);
    memcpy(hs->remote_static, remote, MSG_KEY_LEN);
    memcpy(hs->ephemeral, ephemeral, MSG_KEY_LEN);
    noise_clamp(hs->ephemeral);

    /* e */
    noise_public_key(m->ephemeral, hs->ephemeral);
    mix_ephemeral(hs, m->ephemeral);
    /* es */
    if (mix_dh(hs, k, hs->ephemeral, remote) == -1)
        goto done;
    /* s */
    seal(hs, m->sealed_static, k, me->public_key, MSG_KEY_LEN);
    /* ss */
    if (mix_dh(hs, k, me->private_key, remote) == -1)
        goto done;
    /* {t} */
    seal(hs, m->sealed_timestamp, k, tai64n, MSG_TAI64N_LEN);
    rv = 0;

done:
    noise_wipe(k, sizeof(k));
    if (rv == -1)
        noise_wipe(hs, sizeof(*hs));
    return rv;
}

int
handshake_read_static(struct handshake *hs, const struct handshake_identity *me,
    const struct msg_initiation *m)
{
    uint8_t k[MSG_KEY_LEN];
    int rv = -1;

    start(hs, me->public_key);

    /* e */
    memcpy(hs->remote_ephemeral, m->ephemeral, MSG_KEY_LEN);
    mix_ephemeral(hs, m->ephemeral);
    /* es */
    if (mix_dh(hs, k, me->private_key, m->ephemeral) == -1)
        goto done;
    /* s */
    rv = unseal(
        hs, hs->remote_static, k, m->sealed_static, sizeof(m->sealed_static));

done:
    noise_wipe(k, sizeof(k));
    if (rv == -1)
        noise_wipe(hs, sizeof(*hs));
    return rv;
}

int
handshake_read_timestamp(struct handshake *hs,
    const struct handshake_identity *me, const struct msg_initiation *m,
    uint8_t tai64n[MSG_TAI64N_LEN])
{
    uint8_t k[MSG_KEY_LEN];
    int rv = -1;

    /* ss */
    if (mix_dh(hs, k, me->private_key, hs->remote_static) == -1)
        goto done;
    /* {t} */
    rv = unseal(
        hs, tai64n, k, m->sealed_timestamp, sizeof(m->sealed_timestamp));

done:
    noise_wipe(k, sizeof(k));
    if (rv == -1)
        noise_wipe(hs, sizeof(*hs));
    return rv;
}

int
handshake_create_response(struct handshake *hs, const uint8_t psk[MSG_KEY_LEN],
    const uint8_t ephemeral[MSG_KEY_LEN], struct msg_response *m,
    struct handshake_keys *keys)
{
    uint8_t k[MSG_KEY_LEN], e[MSG_KEY_LEN];
    int rv = -1;

    memcpy(e, ephemeral, sizeof(e));
    noise_clamp(e);

    /* e */
    noise_public_key(m->ephemeral, e);
    mix_ephemeral(hs, m->ephemeral);
    /* ee */
    if (mix_dh(hs, NULL, e, hs->remote_ephemeral) == -1)
        goto done;
    /* se */
    if (mix_dh(hs, NULL, e, hs->remote_static) == -1)
        goto done;
    /* psk */
    mix_psk(hs, k, psk);
    /* {} */
    seal(hs, m->sealed_empty, k, NULL, 0);
    split(hs, keys->receive, keys->send);
    rv = 0;

done:
    noise_wipe(k, sizeof(k));
    noise_wipe(e, sizeof(e));
    noise_wipe(hs, sizeof(*hs));
    return rv;
}

int
handshake_read_response(const struct handshake *pending,
    const struct handshake_identity *me, const uint8_t psk[MSG_KEY_LEN],
    const struct msg_response *m, struct handshake_keys *keys)
{
    struct handshake hs = *pending;
    uint8_t k[MSG_KEY_LEN];
    int rv = -1;

    /* e */
    mix_ephemeral(&hs, m->ephemeral);
    /* ee */
    if (mix_dh(&hs, NULL, hs.ephemeral, m->ephemeral) == -1)
        goto done;
    /* se */
    if (mix_dh(&hs, NULL, me->private_key, m->ephemeral) == -1)
        goto done;
    /* psk */
    mix_psk(&hs, k, psk);
    /* {} */
    if (unseal(&hs, NULL, k, m->sealed_empty, sizeof(m->sealed_empty)) == -1)
        goto done;
    split(&hs, keys->send, keys->receive);
    rv = 0;

done:
    noise_wipe(k, sizeof(k));
    noise_wipe(&hs, sizeof(hs));
    return rv;
}

/*
 * Theory of operation.
 *
 *   initiation  version u16 | 1 | length u16 | e 32 | enc(s) 48 | tag 16
 *   response    2 | length u16 | e 32 | tag 16
 *   error       3 | length u16 | text, which nobody has signed
 *   record      4 | length u16 | ciphertext and tag
 *
 * All numbers are big endian, the record's nonce too (4 zero bytes, u64), which
 * is neither Noise's nor WireGuard's way.  Each handshake key seals once, with
 * nonce 0.  What the records carry is a stream whose first 9 bytes are the
 * header of an early payload (a challenge we have no use for) or already
 * HTTP/2.
 */
#include "ts2021.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../crypto/aead.h"
#include "../crypto/noise.h"

#define MSG_INITIATION 1
#define MSG_RESPONSE   2
#define MSG_ERROR      3
#define MSG_RECORD     4

static const char construction[] = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
static const uint8_t early_magic[5] = {0xff, 0xff, 0xff, 'T', 'S'};

__attribute__((format(printf, 2, 3))) static int
fail(struct ts2021 *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(t->error, sizeof(t->error), fmt, ap);
    va_end(ap);
    ts2021_wipe(t);
    return -1;
}

void
ts2021_wipe(struct ts2021 *t)
{
    char error[TS2021_ERROR_MAX];

    memcpy(error, t->error, sizeof(error));
    noise_wipe(t, sizeof(*t));
    memcpy(t->error, error, sizeof(error));
    t->state = TS2021_FAILED;
}

/* ---- handshake ---- */

/* MixKey of DH(priv, pub); ${key}: what seals next. */
static int
mix_dh(
    struct ts2021 *t, uint8_t key[32], const uint8_t *priv, const uint8_t *pub)
{
    uint8_t dh[NOISE_KEY_LEN];

    if (noise_dh(dh, priv, pub) != 0)
        return -1;
    noise_kdf2(t->ck, key, t->ck, dh, sizeof(dh));
    noise_wipe(dh, sizeof(dh));
    return 0;
}

static void
put16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static size_t
get16(const uint8_t *p)
{
    return (size_t)p[0] << 8 | p[1];
}

int
ts2021_start(struct ts2021 *t, uint16_t version,
    const uint8_t machine[TS2021_KEY_LEN], const uint8_t server[TS2021_KEY_LEN],
    const uint8_t ephemeral[TS2021_KEY_LEN], uint8_t out[TS2021_INIT_LEN])
{
    static const uint8_t nonce[AEAD_NONCE_LEN];
    uint8_t key[32], public[32];
    char prologue[64];
    int n = snprintf(
        prologue, sizeof(prologue), "Tailscale Control Protocol v%u", version);

    memset(t, 0, sizeof(*t));
    t->version = version;
    memcpy(t->machine, machine, TS2021_KEY_LEN);
    memcpy(t->ephemeral, ephemeral, TS2021_KEY_LEN);
    noise_hash(t->h, construction, sizeof(construction) - 1, NULL, 0);
    memcpy(t->ck, t->h, sizeof(t->ck));
    noise_mix_hash(t->h, prologue, (size_t)n);
    noise_mix_hash(t->h, server, TS2021_KEY_LEN);

    put16(out, version);
    out[2] = MSG_INITIATION;
    put16(out + 3, TS2021_INIT_LEN - 5);
    noise_public_key(out + 5, t->ephemeral);
    noise_mix_hash(t->h, out + 5, 32);
    if (mix_dh(t, key, t->ephemeral, server) != 0)
        return fail(t, "the server's key is not one");
    noise_public_key(public, t->machine);
    aead_field_seal(out + 37, key, nonce, t->h, 32, public, 32);
    noise_mix_hash(t->h, out + 37, 48);
    if (mix_dh(t, key, t->machine, server) != 0)
        return fail(t, "the server's key is not one");
    aead_field_seal(out + 85, key, nonce, t->h, 32, NULL, 0);
    noise_mix_hash(t->h, out + 85, 16);
    noise_wipe(key, sizeof(key));
    return 0;
}

static int
respond(struct ts2021 *t, const uint8_t *msg)
{
    static const uint8_t nonce[AEAD_NONCE_LEN];
    const uint8_t *re = msg + 3, *tag = msg + 35;
    uint8_t key[32], nothing[1];
    bool authentic;

    noise_mix_hash(t->h, re, 32);
    if (mix_dh(t, key, t->ephemeral, re) != 0 ||
        mix_dh(t, key, t->machine, re) != 0)
        return fail(t, "the server's handshake has a bad key");
    authentic = aead_field_open(nothing, key, nonce, t->h, 32, tag, 16);
    noise_wipe(key, sizeof(key));
    if (!authentic)
        return fail(t, "the server's handshake is not authentic: its key may "
                       "have changed");
    noise_kdf2(t->tx, t->rx, t->ck, NULL, 0);
    noise_wipe(t->ck, sizeof(t->ck));
    noise_wipe(t->ephemeral, sizeof(t->ephemeral));
    noise_wipe(t->machine, sizeof(t->machine));
    t->state = TS2021_OPEN;
    return 0;
}

/* The server's words, with nothing in them that could harm a log. */
static int
refused(struct ts2021 *t, const uint8_t *text, size_t len)
{
    char shown[129];
    size_t i;

    for (i = 0; i < len && i < sizeof(shown) - 1; i++)
        shown[i] = text[i] >= 0x20 && text[i] < 0x7f ? (char)text[i] : '?';
    shown[i] = '\0';
    return fail(t, "the server refuses the handshake: \"%s\"", shown);
}

/* ---- records ---- */

static int
nonce_of(uint8_t nonce[AEAD_NONCE_LEN], uint64_t *counter)
{
    if (*counter == UINT64_MAX)
        return -1;
    memset(nonce, 0, 4);
    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(*counter >> (56 - 8 * i));
    ++*counter;
    return 0;
}

size_t
ts2021_seal(struct ts2021 *t, uint8_t *out, const void *data, size_t len)
{
    uint8_t nonce[AEAD_NONCE_LEN];

    if (t->state != TS2021_OPEN || len > TS2021_PLAIN_MAX ||
        nonce_of(nonce, &t->ntx) != 0)
        return 0;
    out[0] = MSG_RECORD;
    put16(out + 1, len + TS2021_TAG_LEN);
    aead_field_seal(out + TS2021_HEADER_LEN, t->tx, nonce, NULL, 0, data, len);
    return TS2021_HEADER_LEN + len + TS2021_TAG_LEN;
}

static int
sniff_early(struct ts2021 *t)
{
    const uint8_t *e = t->early;
    uint32_t len;

    if (memcmp(e, early_magic, sizeof(early_magic)) != 0)
        return 0;
    len = (uint32_t)e[5] << 24 | (uint32_t)e[6] << 16 | (uint32_t)e[7] << 8 |
          e[8];
    if (len > TS2021_EARLY_MAX)
        return fail(t,
            "the server's early payload has %u bytes, more than "
            "TS2021_EARLY_MAX (%u)",
            len, TS2021_EARLY_MAX);
    t->skip = len;
    return 1;
}

static int
give(struct ts2021 *t, const uint8_t *p, size_t len,
    void (*plain)(void *arg, const uint8_t *p, size_t len), void *arg)
{
    size_t n;
    int rc;

    if (t->earlylen < sizeof(t->early)) {
        n = sizeof(t->early) - t->earlylen;
        n = n < len ? n : len;
        if (n > 0)
            memcpy(t->early + t->earlylen, p, n);
        t->earlylen += n;
        if (t->earlylen < sizeof(t->early))
            return 0;
        p += n;
        len -= n;
        rc = sniff_early(t);
        if (rc < 0)
            return -1;
        if (rc == 0)
            plain(arg, t->early, sizeof(t->early));
    }
    n = t->skip < len ? t->skip : len;
    t->skip -= n;
    if (len > n && t->state == TS2021_OPEN)
        plain(arg, p + n, len - n);
    return 0;
}

static int
open_record(struct ts2021 *t, size_t len,
    void (*plain)(void *arg, const uint8_t *p, size_t len), void *arg)
{
    uint8_t nonce[AEAD_NONCE_LEN], buf[TS2021_FRAME_MAX];
    int rc;

    if (nonce_of(nonce, &t->nrx) != 0)
        return fail(t, "the channel has received all it may");
    if (!aead_field_open(
            buf, t->rx, nonce, NULL, 0, t->in + TS2021_HEADER_LEN, len))
        return fail(t, "a record of the server is not authentic");
    t->inlen = 0; /* the callback may end the channel */
    rc = give(t, buf, len - TS2021_TAG_LEN, plain, arg);
    noise_wipe(buf, len);
    return rc;
}

/* The whole length of the message in t->in, 0: its head is not there yet, or
 * -1. */
static int
message_len(struct ts2021 *t)
{
    size_t len;

    if (t->inlen < TS2021_HEADER_LEN)
        return 0;
    len = get16(t->in + 1);
    if (t->state == TS2021_OPEN) {
        if (t->in[0] != MSG_RECORD)
            return fail(t, "the server sent a record of type %u", t->in[0]);
        if (len < TS2021_TAG_LEN || len > TS2021_FRAME_MAX - TS2021_HEADER_LEN)
            return fail(t, "the server sent a record of %zu bytes", len);
    } else if (t->in[0] == MSG_RESPONSE) {
        if (len != TS2021_RESP_LEN - TS2021_HEADER_LEN)
            return fail(t, "the server's handshake has %zu bytes", len);
    } else if (t->in[0] != MSG_ERROR) {
        return fail(t, "the server's handshake is of type %u", t->in[0]);
    } else if (len > TS2021_FRAME_MAX - TS2021_HEADER_LEN) {
        return refused(t, (const uint8_t *)"", 0);
    }
    return (int)(TS2021_HEADER_LEN + len);
}

static int
message(struct ts2021 *t, size_t len,
    void (*plain)(void *arg, const uint8_t *p, size_t len), void *arg)
{
    if (t->state == TS2021_OPEN)
        return open_record(t, len - TS2021_HEADER_LEN, plain, arg);
    t->inlen = 0;
    if (t->in[0] == MSG_ERROR)
        return refused(t, t->in + TS2021_HEADER_LEN, len - TS2021_HEADER_LEN);
    return respond(t, t->in);
}

int
ts2021_feed(struct ts2021 *t, const uint8_t *data, size_t len,
    void (*plain)(void *arg, const uint8_t *p, size_t len), void *arg)
{
    size_t n;
    int whole;

    while (len > 0 && t->state != TS2021_FAILED) {
        whole = message_len(t);
        if (whole < 0)
            return -1;
        n = (whole == 0 ? TS2021_HEADER_LEN : (size_t)whole) - t->inlen;
        n = n < len ? n : len;
        memcpy(t->in + t->inlen, data, n);
        t->inlen += n;
        data += n;
        len -= n;
        whole = message_len(t);
        if (whole < 0)
            return -1;
        if (whole > 0 && t->inlen == (size_t)whole &&
            message(t, (size_t)whole, plain, arg) != 0)
            return -1;
    }
    return t->state == TS2021_FAILED ? -1 : 0;
}

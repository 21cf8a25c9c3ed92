/* links: tailnetd/control/ts2021.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/aead.c tailnetd/crypto/ipsecmb.c */
/* libs: -lsodium -lcrypto */
/* max_len: 6000 */
/*
 * The channel to a control server, in pieces, by the first byte: any bytes
 * instead of the server's handshake; a handshake of the right keys with changed
 * bytes; any bytes behind a good one; any plaintext in records that are
 * authentic, one of them perhaps damaged.
 */
#include "../../ngx_tailnet_module/tailnetd/control/ts2021.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/aead.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "fuzz.h"

#define VERSION  131
#define WIRE_MAX 65536

static uint8_t machine[32] = {1}, server[32] = {2}, e[32] = {3}, re[32] = {4};
static uint8_t server_public[32];

/* What came out, and when the reader of it ends the channel. */
struct reader {
    struct ts2021 *t;
    uint8_t *p;
    size_t len, most;
};

static void
plain(void *arg, const uint8_t *p, size_t len)
{
    struct reader *r = arg;

    FUZZ_MUST(len > 0 && r->t->state == TS2021_OPEN);
    FUZZ_MUST(r->len + len <= WIRE_MAX);
    memcpy(r->p + r->len, p, len);
    r->len += len;
    if (r->len > r->most)
        ts2021_wipe(r->t);
}

static void
start(struct ts2021 *t)
{
    uint8_t out[TS2021_INIT_LEN];

    if (server_public[0] == 0) {
        FUZZ_MUST(noise_init() == 0);
        noise_clamp(machine);
        noise_clamp(server);
        noise_clamp(e);
        noise_clamp(re);
        noise_public_key(server_public, server);
    }
    FUZZ_MUST(ts2021_start(t, VERSION, machine, server_public, e, out) == 0);
}

/* The server's answer to start(). */
static void
answer(const struct ts2021 *t, uint8_t msg[TS2021_RESP_LEN])
{
    static const uint8_t nonce[AEAD_NONCE_LEN];
    uint8_t h[32], ck[32], key[32], dh[32], public[32];

    memcpy(h, t->h, sizeof(h));
    memcpy(ck, t->ck, sizeof(ck));
    msg[0] = 2;
    msg[1] = 0;
    msg[2] = TS2021_RESP_LEN - TS2021_HEADER_LEN;
    noise_public_key(msg + 3, re);
    noise_mix_hash(h, msg + 3, 32);
    noise_public_key(public, e);
    FUZZ_MUST(noise_dh(dh, re, public) == 0);
    noise_kdf2(ck, key, ck, dh, sizeof(dh));
    noise_public_key(public, machine);
    FUZZ_MUST(noise_dh(dh, re, public) == 0);
    noise_kdf2(ck, key, ck, dh, sizeof(dh));
    aead_field_seal(msg + 35, key, nonce, h, 32, NULL, 0);
}

static void
check(const struct ts2021 *t, int rc)
{
    static const uint8_t none[32];
    uint8_t out[TS2021_FRAME_MAX];
    struct ts2021 copy = *t;
    size_t n = strnlen(t->error, sizeof(t->error)), i;

    FUZZ_MUST((rc == 0) == (t->state != TS2021_FAILED));
    FUZZ_MUST(n < sizeof(t->error));
    for (i = 0; i < n; i++)
        FUZZ_MUST(t->error[i] >= ' ' && t->error[i] < 0x7f);
    FUZZ_MUST(
        (ts2021_seal(&copy, out, "x", 1) != 0) == (t->state == TS2021_OPEN));
    if (t->state == TS2021_OPEN)
        return;
    FUZZ_MUST(memcmp(t->rx, none, 32) == 0 && memcmp(t->tx, none, 32) == 0);
    if (t->state == TS2021_FAILED)
        FUZZ_MUST(memcmp(t->machine, none, 32) == 0 &&
                  memcmp(t->ephemeral, none, 32) == 0 &&
                  memcmp(t->ck, none, 32) == 0 && t->inlen == 0);
}

/* Feeds ${len} bytes in pieces. */
static int
feed(struct ts2021 *t, struct reader *r, const uint8_t *p, size_t len,
    size_t piece)
{
    struct fuzz_input in = {p, len}, part;
    uint8_t *copy;
    int rc = 0;

    while (in.len > 0 && rc == 0) {
        part = fuzz_bytes(&in, piece);
        copy = fuzz_copy(part.p, part.len);
        rc = ts2021_feed(t, copy, part.len, plain, r);
        free(copy);
        check(t, rc);
    }
    return rc;
}

/* A handshake; ${change}: with some bytes of ${in}, at the place it says. */
static int
shake(struct ts2021 *t, struct reader *r, struct fuzz_input *in, bool change)
{
    uint8_t msg[TS2021_RESP_LEN];
    size_t at, n, piece;
    struct fuzz_input part;

    start(t);
    answer(t, msg);
    if (!change) {
        FUZZ_MUST(ts2021_feed(t, msg, sizeof(msg), plain, r) == 0);
        FUZZ_MUST(t->state == TS2021_OPEN && r->len == 0);
        return 0;
    }
    piece = 1 + fuzz_u8(in);
    at = fuzz_u8(in) % sizeof(msg);
    n = fuzz_u8(in) % (sizeof(msg) - at + 1);
    part = fuzz_bytes(in, n);
    if (part.len > 0)
        memcpy(msg + at, part.p, part.len);
    return feed(t, r, msg, sizeof(msg), piece);
}

/* Seals ${in} as records, whose lengths it says; returns what they carry. */
static size_t
seal(const struct ts2021 *t, struct fuzz_input *in, uint8_t *wire, size_t *len,
    uint8_t *text)
{
    uint8_t nonce[AEAD_NONCE_LEN] = {0};
    struct fuzz_input part;
    size_t all = 0;

    for (*len = 0; in->len > 0 && *len + TS2021_FRAME_MAX <= WIRE_MAX;) {
        part = fuzz_bytes(in, fuzz_u16(in) % (TS2021_PLAIN_MAX + 1));
        wire[*len] = 4;
        wire[*len + 1] = (uint8_t)((part.len + TS2021_TAG_LEN) >> 8);
        wire[*len + 2] = (uint8_t)(part.len + TS2021_TAG_LEN);
        aead_field_seal(wire + *len + TS2021_HEADER_LEN, t->rx, nonce, NULL, 0,
            part.p, part.len);
        nonce[11]++;
        nonce[10] = (uint8_t)(nonce[10] + (nonce[11] == 0));
        if (part.len > 0)
            memcpy(text + all, part.p, part.len);
        all += part.len;
        *len += TS2021_HEADER_LEN + part.len + TS2021_TAG_LEN;
    }
    return all;
}

/* What of the plaintext is HTTP/2; NULL: its early payload is too long. */
static const uint8_t *
after_early(const uint8_t *text, size_t *len)
{
    size_t n;

    if (*len < 9) {
        *len = 0;
        return text;
    }
    if (memcmp(text, "\xff\xff\xffTS", 5) != 0)
        return text;
    n = (size_t)text[5] << 24 | (size_t)text[6] << 16 | (size_t)text[7] << 8 |
        text[8];
    if (n > TS2021_EARLY_MAX)
        return NULL;
    n = n + 9 < *len ? n + 9 : *len;
    *len -= n;
    return text + n;
}

static void
records(struct ts2021 *t, struct reader *r, struct fuzz_input *in)
{
    size_t piece = 1 + fuzz_u16(in) % 5000, at = fuzz_u16(in), len, n;
    uint8_t flip = fuzz_u8(in), *wire = malloc(WIRE_MAX),
            *text = malloc(WIRE_MAX);
    const uint8_t *want;
    int rc;

    FUZZ_MUST(wire != NULL && text != NULL);
    shake(t, r, NULL, false);
    if ((at & 1) != 0) /* the reader has enough of it */
        r->most = flip;
    n = seal(t, in, wire, &len, text);
    want = after_early(text, &n);
    if ((at & 1) == 0 && len > 0)
        wire[at % len] ^= flip;
    rc = feed(t, r, wire, len, piece);
    if (want == NULL) {
        FUZZ_MUST(r->len == 0 && (rc != 0 || t->earlylen < 9));
    } else {
        FUZZ_MUST(r->len <= n && memcmp(r->p, want, r->len) == 0);
        if ((at & 1) != 0)
            FUZZ_MUST((rc != 0) == (n > r->most));
        else if (flip == 0)
            FUZZ_MUST(rc == 0 && r->len == n);
        else if (len > 0)
            FUZZ_MUST(rc != 0 || t->inlen > 0);
    }
    free(wire);
    free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct ts2021 t;
    struct reader r = {.t = &t, .p = malloc(WIRE_MAX), .most = SIZE_MAX};
    uint8_t kind = fuzz_u8(&in);
    size_t piece;
    int rc = 0;

    FUZZ_MUST(r.p != NULL);
    switch (kind & 3) {
    case 0:
        start(&t);
        piece = 1 + fuzz_u8(&in);
        rc = feed(&t, &r, in.p, in.len, piece);
        break;
    case 1:
        rc = shake(&t, &r, &in, true);
        break;
    case 2:
        rc = shake(&t, &r, &in, false);
        piece = 1 + fuzz_u8(&in);
        rc = feed(&t, &r, in.p, in.len, piece);
        FUZZ_MUST(r.len == 0); /* nobody else can seal */
        break;
    default:
        records(&t, &r, &in);
    }
    FUZZ_MUST((kind & 3) == 3 || r.len == 0);
    if (rc != 0)
        FUZZ_MUST(ts2021_feed(&t, data, size, plain, &r) != 0);
    ts2021_wipe(&t);
    free(r.p);
    return 0;
}

/*
 * ts2021.h: the secure channel to a control server.
 *
 * Noise IK (revision 34, Noise_IK_25519_ChaChaPoly_BLAKE2s) as initiator, and
 * the records behind it.  Bytes and verdicts only: who has the socket moves
 * them.  Needs noise_init().
 */
#ifndef TS2021_H
#define TS2021_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TS2021_KEY_LEN    32
#define TS2021_INIT_LEN   101
#define TS2021_RESP_LEN   51
#define TS2021_FRAME_MAX  4096
#define TS2021_HEADER_LEN 3
#define TS2021_TAG_LEN    16
#define TS2021_PLAIN_MAX  (TS2021_FRAME_MAX - TS2021_HEADER_LEN - TS2021_TAG_LEN)
#define TS2021_EARLY_MAX  (10u << 20) /* bytes of an early payload */
#define TS2021_ERROR_MAX  256

/*
 * States: after ts2021_start() HANDSHAKE: ts2021_feed() only.  OPEN: feed and
 * seal.  FAILED: nothing but ts2021_wipe().
 */
enum ts2021_state { TS2021_HANDSHAKE, TS2021_OPEN, TS2021_FAILED };

struct ts2021 {
    enum ts2021_state state;
    uint16_t version;
    uint8_t machine[TS2021_KEY_LEN], ephemeral[TS2021_KEY_LEN]; /* private */
    uint8_t h[32], ck[32];
    uint8_t tx[32], rx[32]; /* keys */
    uint64_t ntx, nrx;
    uint8_t in[TS2021_FRAME_MAX]; /* a record that is not whole yet */
    size_t inlen;
    uint8_t early[9]; /* the first plaintext */
    size_t earlylen;
    size_t skip; /* bytes of the early payload that are to come */
    char error[TS2021_ERROR_MAX];
};

/*
 * ts2021_start(t, version, machine, server, ephemeral, out): a new channel
 * with capability version ${version} to the server of public key ${server};
 * ${machine} and ${ephemeral}: private keys, copied, the latter for this
 * channel only.  ${out}: the initiation.  Returns 0, or -1: ${server} is no
 * key.
 */
int ts2021_start(struct ts2021 *t, uint16_t version,
    const uint8_t machine[TS2021_KEY_LEN], const uint8_t server[TS2021_KEY_LEN],
    const uint8_t ephemeral[TS2021_KEY_LEN], uint8_t out[TS2021_INIT_LEN]);

/*
 * ts2021_feed(t, data, len, plain, arg): bytes of the server: its answer, then
 * records.  ${plain} gets what is in them, without the early payload.  Returns
 * 0, or -1 and t->error says why: the channel is over.
 */
int ts2021_feed(struct ts2021 *t, const uint8_t *data, size_t len,
    void (*plain)(void *arg, const uint8_t *p, size_t len), void *arg);

/*
 * ts2021_seal(t, out, data, len): one record of at most TS2021_PLAIN_MAX bytes
 * into ${out} of TS2021_FRAME_MAX.  Returns its length, or 0: not open, too
 * long, or the channel has sent all it may.
 */
size_t ts2021_seal(
    struct ts2021 *t, uint8_t *out, const void *data, size_t len);

/* Every key is gone. */
void ts2021_wipe(struct ts2021 *t);

#endif

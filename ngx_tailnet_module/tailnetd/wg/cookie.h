/*
 * cookie.h: mac1, mac2, cookie replies and the rate limit behind them
 * (whitepaper sections 5.3 and 5.4.4).
 *
 * Messages are whole handshake messages: both MACs are their last 32 bytes.
 */
#ifndef COOKIE_H
#define COOKIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "msg.h"

#define COOKIE_SECRET_LEN 32

/* The receiving side of a device. */
struct cookie_checker {
    uint8_t mac1_key[MSG_KEY_LEN];
    uint8_t cookie_key[MSG_KEY_LEN];
    uint8_t secret[COOKIE_SECRET_LEN];
    uint64_t secret_since;
    bool has_secret;
};

/* The sending side of a peer.  All zero: nothing sent, no cookie. */
struct cookie_maker {
    uint8_t mac1[MSG_MAC_LEN]; /* of the last handshake message */
    uint8_t cookie[MSG_COOKIE_LEN];
    uint64_t cookie_since;
    bool awaits; /* a message was sent that no reply was taken for */
    bool has_cookie;
};

/* cookie_checker_init(c, key): for a device of public key ${key}. */
void cookie_checker_init(
    struct cookie_checker *c, const uint8_t key[MSG_KEY_LEN]);

/* cookie_secret_stale(c, life, now): whether cookie_set_secret() with fresh
 * random bytes is due before the calls below that need a secret. */
bool cookie_secret_stale(
    const struct cookie_checker *c, uint32_t life, uint64_t now);
void cookie_set_secret(struct cookie_checker *c,
    const uint8_t secret[COOKIE_SECRET_LEN], uint64_t now);

/* cookie_check_mac1(c, msg, len): whether ${msg} was made for this device. */
bool cookie_check_mac1(
    const struct cookie_checker *c, const uint8_t *msg, size_t len);

/* cookie_check_mac2(c, msg, len, src): whether its sender received the cookie
 * that belongs to ${src}. */
bool cookie_check_mac2(const struct cookie_checker *c, const uint8_t *msg,
    size_t len, const struct tn_endpoint *src);

/* cookie_make_reply(c, reply, msg, len, src, nonce): the answer to ${msg} of
 * ${src}, under 24 random bytes ${nonce}. */
void cookie_make_reply(const struct cookie_checker *c, struct msg_cookie *reply,
    const uint8_t *msg, size_t len, const struct tn_endpoint *src,
    const uint8_t nonce[MSG_XNONCE_LEN]);

/* cookie_add_macs(m, msg, len, key, life, now): fills both MACs of ${msg},
 * for a peer of public key ${key}; mac2 is zero without a live cookie. */
void cookie_add_macs(struct cookie_maker *m, uint8_t *msg, size_t len,
    const uint8_t key[MSG_KEY_LEN], uint32_t life, uint64_t now);

/*
 * cookie_take_reply(m, reply, key, now): takes the cookie out of ${reply}.
 * False: not an answer to the last message, or that one was answered already.
 */
bool cookie_take_reply(struct cookie_maker *m, const struct msg_cookie *reply,
    const uint8_t key[MSG_KEY_LEN], uint64_t now);

/* A bucket per source address (IPv6: per /64) in a table of fixed size. */
#define COOKIE_RATE       20 /* handshake messages a second */
#define COOKIE_BURST      5
#define COOKIE_LIMIT_SETS 1024 /* hash buckets */
#define COOKIE_LIMIT_WAYS 8    /* sources in each */

struct cookie_limiter;

/* cookie_limiter_new(key): NULL: no memory.  ${key}: 16 random bytes that hide
 * which sources share a set. */
struct cookie_limiter *cookie_limiter_new(const uint8_t key[16]);
void cookie_limiter_free(struct cookie_limiter *l);

/* cookie_limiter_allow(l, src, now): whether one more message of ${src} may be
 * handled.  Also false when all ways of its set are held by busy sources. */
bool cookie_limiter_allow(
    struct cookie_limiter *l, const struct tn_addr *src, uint64_t now);

#endif

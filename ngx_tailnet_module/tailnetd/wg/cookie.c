/*
 * cookie.c: see cookie.h.
 *
 * A handshake message proves with mac1 that its sender knows the receiver's
 * public key.  A receiver under load answers with a cookie, a MAC over the
 * sender's address that only the sender can read; the next message carries
 * mac2 made with it, which proves the address.  Only proven addresses reach
 * the rate limiter, so nobody can fill its table with addresses of others.
 */
#include "cookie.h"

#include <stdlib.h>
#include <string.h>

#include "../crypto/aead.h"
#include "../crypto/noise.h"

#define LABEL_LEN 8

static const uint8_t label_mac1[LABEL_LEN] = "mac1----";
static const uint8_t label_cookie[LABEL_LEN] = "cookie--";

static size_t
mac1_offset(size_t len)
{
    return len - 2 * MSG_MAC_LEN;
}

static size_t
mac2_offset(size_t len)
{
    return len - MSG_MAC_LEN;
}

static void
derive(uint8_t out[MSG_KEY_LEN], const uint8_t label[LABEL_LEN],
    const uint8_t key[MSG_KEY_LEN])
{
    noise_hash(out, label, LABEL_LEN, key, MSG_KEY_LEN);
}

/* The cookie of ${src} under the present secret. */
static void
cookie_of(const struct cookie_checker *c, uint8_t cookie[MSG_COOKIE_LEN],
    const struct tn_endpoint *src)
{
    uint8_t port[2] = {(uint8_t)(src->port >> 8), (uint8_t)src->port};

    noise_mac(cookie, c->secret, sizeof(c->secret), src->addr.b,
        sizeof(src->addr.b), port, sizeof(port));
}

void
cookie_checker_init(struct cookie_checker *c, const uint8_t key[MSG_KEY_LEN])
{
    memset(c, 0, sizeof(*c));
    derive(c->mac1_key, label_mac1, key);
    derive(c->cookie_key, label_cookie, key);
}

bool
cookie_secret_stale(const struct cookie_checker *c, uint32_t life, uint64_t now)
{
    return !c->has_secret || now - c->secret_since >= life;
}

void
cookie_set_secret(struct cookie_checker *c,
    const uint8_t secret[COOKIE_SECRET_LEN], uint64_t now)
{
    memcpy(c->secret, secret, COOKIE_SECRET_LEN);
    c->secret_since = now;
    c->has_secret = true;
}

bool
cookie_check_mac1(
    const struct cookie_checker *c, const uint8_t *msg, size_t len)
{
    uint8_t mac[MSG_MAC_LEN];

    noise_mac(
        mac, c->mac1_key, sizeof(c->mac1_key), msg, mac1_offset(len), NULL, 0);
    return noise_equal(mac, msg + mac1_offset(len), sizeof(mac));
}

bool
cookie_check_mac2(const struct cookie_checker *c, const uint8_t *msg,
    size_t len, const struct tn_endpoint *src)
{
    uint8_t cookie[MSG_COOKIE_LEN], mac[MSG_MAC_LEN];
    bool ok;

    if (!c->has_secret)
        return false;
    cookie_of(c, cookie, src);
    noise_mac(mac, cookie, sizeof(cookie), msg, mac2_offset(len), NULL, 0);
    ok = noise_equal(mac, msg + mac2_offset(len), sizeof(mac));
    noise_wipe(cookie, sizeof(cookie));
    noise_wipe(mac, sizeof(mac));
    return ok;
}

void
cookie_make_reply(const struct cookie_checker *c, struct msg_cookie *reply,
    const uint8_t *msg, size_t len, const struct tn_endpoint *src,
    const uint8_t nonce[MSG_XNONCE_LEN])
{
    const struct msg_initiation *m = (const struct msg_initiation *)msg;
    uint8_t cookie[MSG_COOKIE_LEN];

    cookie_of(c, cookie, src);
    msg_put32(reply->type, MSG_COOKIE);
    /* The sender index lies at the same place in both messages. */
    memcpy(reply->receiver, m->sender, sizeof(reply->receiver));
    memcpy(reply->nonce, nonce, sizeof(reply->nonce));
    aead_xfield_seal(reply->sealed_cookie, c->cookie_key, reply->nonce,
        msg + mac1_offset(len), MSG_MAC_LEN, cookie, sizeof(cookie));
    noise_wipe(cookie, sizeof(cookie));
}

void
cookie_add_macs(struct cookie_maker *m, uint8_t *msg, size_t len,
    const uint8_t key[MSG_KEY_LEN], uint32_t life, uint64_t now)
{
    uint8_t mac1_key[MSG_KEY_LEN];

    derive(mac1_key, label_mac1, key);
    noise_mac(
        m->mac1, mac1_key, sizeof(mac1_key), msg, mac1_offset(len), NULL, 0);
    memcpy(msg + mac1_offset(len), m->mac1, MSG_MAC_LEN);
    m->awaits = true;

    if (m->has_cookie && now - m->cookie_since <= life)
        noise_mac(msg + mac2_offset(len), m->cookie, sizeof(m->cookie), msg,
            mac2_offset(len), NULL, 0);
    else
        memset(msg + mac2_offset(len), 0, MSG_MAC_LEN);
}

bool
cookie_take_reply(struct cookie_maker *m, const struct msg_cookie *reply,
    const uint8_t key[MSG_KEY_LEN], uint64_t now)
{
    uint8_t cookie_key[MSG_KEY_LEN], cookie[MSG_COOKIE_LEN];
    bool ok = false;

    if (!m->awaits)
        return false;
    derive(cookie_key, label_cookie, key);
    if (aead_xfield_open(cookie, cookie_key, reply->nonce, m->mac1,
            sizeof(m->mac1), reply->sealed_cookie,
            sizeof(reply->sealed_cookie))) {
        memcpy(m->cookie, cookie, sizeof(m->cookie));
        m->cookie_since = now;
        m->has_cookie = true;
        m->awaits = false;
        ok = true;
    }
    noise_wipe(cookie, sizeof(cookie));
    return ok;
}

/*
 * A bucket is one number: when it will be full again.  Each message moves that
 * COOKIE_COST further; one that would move it more than a whole bucket away is
 * refused.  A bucket that is full tells nothing and may be given away.
 */
#define COOKIE_COST  (1000 / COOKIE_RATE) /* ms */
#define COOKIE_DEPTH (COOKIE_BURST * COOKIE_COST)

struct bucket {
    struct tn_addr source;
    uint64_t full_at;
};

struct cookie_limiter {
    uint8_t key[NOISE_SIP_KEY_LEN];
    struct bucket sets[COOKIE_LIMIT_SETS][COOKIE_LIMIT_WAYS];
};

struct cookie_limiter *
cookie_limiter_new(const uint8_t key[16])
{
    struct cookie_limiter *l = calloc(1, sizeof(*l));

    if (l != NULL)
        memcpy(l->key, key, sizeof(l->key));
    return l;
}

void
cookie_limiter_free(struct cookie_limiter *l)
{
    free(l);
}

/* The bucket of ${source}, its own or a full one; NULL: all are busy. */
static struct bucket *
find_bucket(
    struct cookie_limiter *l, const struct tn_addr *source, uint64_t now)
{
    uint64_t h = noise_siphash(l->key, source->b, sizeof(source->b));
    struct bucket *set = l->sets[h % COOKIE_LIMIT_SETS], *full = NULL;

    for (int i = 0; i < COOKIE_LIMIT_WAYS; i++) {
        if (tn_addr_equal(&set[i].source, source))
            return &set[i];
        if (full == NULL && set[i].full_at <= now)
            full = &set[i];
    }
    if (full != NULL) {
        full->source = *source;
        full->full_at = now;
    }
    return full;
}

bool
cookie_limiter_allow(
    struct cookie_limiter *l, const struct tn_addr *src, uint64_t now)
{
    struct tn_addr source = *src;
    struct bucket *b;

    if (!tn_addr_is4(src))
        memset(source.b + 8, 0, 8); /* one host may use a whole /64 */
    b = find_bucket(l, &source, now);
    if (b == NULL)
        return false;
    if (b->full_at < now)
        b->full_at = now;
    if (b->full_at + COOKIE_COST > now + COOKIE_DEPTH)
        return false;
    b->full_at += COOKIE_COST;
    return true;
}

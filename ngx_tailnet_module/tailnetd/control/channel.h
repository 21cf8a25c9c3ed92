/*
 * channel.h: from a control server's URL to HTTP/2 inside its Noise channel.
 *
 * Fetches the server's key, dials (plain HTTP first and TLS behind it, as the
 * URL allows), shakes hands and moves bytes.  A channel that is down stays
 * down: make another one.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "../crypto/tls.h"
#include "h2.h"
#include "url.h"

#define CHANNEL_DIAL_MS    10000 /* from the key to the end of the handshake */
#define CHANNEL_KEY_MS     10000 /* for /key */
#define CHANNEL_STAGGER_MS 500   /* from plain HTTP to TLS */
#define CHANNEL_RECENT_MS  120000
#define CHANNEL_KEY_MAX    65536 /* bytes of /key's answer */
#define CHANNEL_WHY_MAX    512

struct channel;

struct channel_config {
    const struct url *url;
    struct tls_trust *trust;     /* outlives the channel */
    uint16_t version;            /* capability version */
    const uint8_t *machine;      /* private machine key; copied */
    const uint8_t *server;       /* the server's public key; NULL: fetch it */
    const struct tn_addr *addrs; /* to dial instead of looking its name up; */
    size_t naddrs;               /* copied, at most STREAM_ADDRS_MAX */
    bool recent; /* a dial less than CHANNEL_RECENT_MS ago: TLS at once */
};

struct channel_ops {
    /* The server's key was fetched (borrowed): worth keeping. */
    void (*key)(void *arg, const uint8_t server[32]);
    void (*up)(void *arg);
    /* It is over, whoever ended it: once, the last callback.  Requests are
     * not told.  ${dialling}: it never was up: the server's key may have
     * changed. */
    void (*down)(void *arg, const char *why, bool dialling);
};

/* No callback comes from inside channel_new().  NULL: no memory. */
struct channel *channel_new(
    const struct channel_config *c, const struct channel_ops *ops, void *arg);

/* Without a callback; also from inside one. */
void channel_free(struct channel *c);

/* For requests, once it is up; channel_flush() after each. */
struct h2 *channel_h2(struct channel *c);
void channel_flush(struct channel *c);

#endif

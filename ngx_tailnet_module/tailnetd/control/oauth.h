/*
 * oauth.h: an auth key made with an OAuth client secret.
 *
 * Two requests, each over a connection of its own: a token for the secret, and
 * with it a key that is good once, has the node's tags, and that an API server
 * of Tailscale's kind keeps for an hour.
 */
#ifndef OAUTH_H
#define OAUTH_H

#include "../crypto/tls.h"
#include "message_oauth.h"

#define OAUTH_REQUEST_MS 20000
#define OAUTH_BODY_MAX   65536 /* bytes of an answer */
#define OAUTH_WORDS_MAX  448

struct oauth;

struct oauth_result {
    const char *key; /* borrowed, wiped afterwards; NULL: ${why} */
    const char *why;
    bool soon; /* it may be better soon: no answer, or the server's fault */
    unsigned retry; /* seconds that the server asks for, 0: none */
};

/*
 * oauth_new(secret, tags, ntags, trust, done, arg, err): begins; the strings
 * are copied.  ${done} comes once, from the loop; oauth_free() is allowed
 * there. NULL and a sentence that has nothing of the secret: malformed, or no
 * memory.
 */
struct oauth *oauth_new(const char *secret, const char *const *tags,
    size_t ntags, struct tls_trust *trust,
    void (*done)(void *arg, const struct oauth_result *r), void *arg,
    char err[OAUTH_WORDS_MAX]);

/* Ends it without a callback, wiped.  NULL is harmless. */
void oauth_free(struct oauth *o);

/* "ephemeral, not preauthorized": what the key is to be; for a log. */
const char *oauth_kind(const struct oauth *o);

#endif

/*
 * fetch.h: one HTTP/1.1 request over a connection of its own.
 */
#ifndef FETCH_H
#define FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../crypto/tls.h"
#include "http1.h"
#include "url.h"

#define FETCH_WHY_MAX 512

struct fetch;

struct fetch_request {
    const struct url *url;
    const char *method;
    const char *authorization; /* a header's value, or NULL */
    const void *body;
    size_t len;
    const char *type; /* of the body; NULL: bytes */
    size_t max;       /* bytes of the answer's body */
    uint32_t timeout_ms;
    const struct tn_addr *addrs; /* to dial instead of looking the host up, */
    size_t naddrs;               /* if not 0; copied */
    struct tls_trust *trust;
    bool direct; /* through no proxy */
};

/*
 * fetch_new(r, done, arg): ${done} comes once, from the loop: with the answer
 * (borrowed for the call), or NULL and a sentence; the fetch is over then and
 * is to be freed, there or later.  NULL: no memory.
 */
struct fetch *fetch_new(const struct fetch_request *r,
    void (*done)(void *arg, const struct http1 *answer, const char *why),
    void *arg);

/* Ends it without a callback.  NULL is harmless. */
void fetch_free(struct fetch *f);

#endif

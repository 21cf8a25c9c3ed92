/*
 * stream.h: a TCP client connection on the loop, plain or with TLS, through
 * the environment's HTTP proxy where there is one.
 *
 * States, and what is allowed in each:
 *   opening  until connected(): stream_free() only
 *   open     stream_send(), data() comes
 *   closed   after closed(): stream_free() only
 * Nothing blocks, and no callback comes from inside stream_new(), stream_send()
 * or stream_free(); each of these may be called from inside a callback.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/tn_addr.h"
#include "crypto/tls.h"

#define STREAM_HOST_MAX     255
#define STREAM_ADDRS_MAX    8       /* tried of one host */
#define STREAM_STAGGER_MS   250     /* from one address to the next */
#define STREAM_QUEUE_MAX    4194304 /* bytes that may wait to be sent */
#define STREAM_PROXY_ANSWER 8192    /* bytes of the proxy's answer's head */
#define STREAM_WHY_MAX      512

struct stream;

struct stream_to {
    const char *host; /* name or address; copied */
    uint16_t port;
    const struct tn_addr *addrs; /* tried instead of looking ${host} up ... */
    size_t naddrs;               /* ... where not 0 */
    struct tls_trust *trust;     /* NULL: no TLS; must outlive the stream */
    const struct tls_opts *tls;  /* with ${trust}; borrowed for the call */
    bool proxy;                  /* honour the environment's proxy */
    uint32_t connect_ms;         /* for all of it until connected() */
    size_t queue_max;            /* 0: STREAM_QUEUE_MAX */
};

struct stream_ops {
    /* It is open. */
    void (*connected)(void *arg);
    /* Bytes in order, borrowed for the call. */
    void (*data)(void *arg, const uint8_t *p, size_t len);
    /* What waited to be sent after a stream_send() is sent (NULL: not
     * wanted). */
    void (*drained)(void *arg);
    /* It is over, whoever ended it: once, the last callback.  ${why} is a
     * sentence without the target's name; the memory is still the caller's. */
    void (*closed)(void *arg, const char *why);
};

/* stream_new(to, ops, arg): begins to connect; all that goes wrong but memory
 * (NULL) comes by closed().  ${ops} must outlive it. */
struct stream *stream_new(
    const struct stream_to *to, const struct stream_ops *ops, void *arg);

/* Closes at once, without a callback; what waits is not sent.  NULL is
 * harmless. */
void stream_free(struct stream *s);

/* stream_send(s, data, len): queues all of it and sends what goes.  Returns 0,
 * or -1: it is not open, or more than its queue may hold would wait; nothing
 * of it is queued then. */
int stream_send(struct stream *s, const void *data, size_t len);

/* Bytes that wait to be sent. */
size_t stream_queued(const struct stream *s);

/* Our end of an open connection; false: not open. */
bool stream_local(const struct stream *s, struct tn_endpoint *e);

#endif

/*
 * h2.h: an HTTP/2 client with prior knowledge, on buffers.
 *
 * A few POST and HEAD requests at a time over a channel somebody else has.
 * Callbacks come from h2_feed(), and from h2_pull() where it ends a request
 * that the server answered wrongly; requests may be made and cancelled inside
 * them, the connection may not be freed there.
 */
#ifndef H2_H
#define H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define H2_CALLS_MAX 24         /* requests at a time */
#define H2_BODY_MAX  (1u << 20) /* bytes of a request's body */
#define H2_WINDOW    (1 << 20)  /* bytes a server may send ahead */
#define H2_RETRY_MAX 64         /* of a Retry-After header */
#define H2_ERROR_MAX 256

struct h2;

struct h2_answer {
    unsigned status;
    char retry_after[H2_RETRY_MAX]; /* "": none */
};

struct h2_ops {
    /* The head came. */
    void (*head)(void *arg, const struct h2_answer *a);
    void (*data)(void *arg, const uint8_t *p, size_t len);
    /* It is over, the last callback of this request.  ${why} NULL: completed,
     * head and body are whole. */
    void (*done)(void *arg, const char *why);
};

/* h2_new(authority): a connection, its preface ready for h2_pull().  NULL: no
 * memory. */
struct h2 *h2_new(const char *authority);

/* Without a callback.  NULL is harmless. */
void h2_free(struct h2 *h);

/*
 * h2_request(h, method, path, lb, body, len, ops, arg): ${lb}: value of the
 * Ts-Lb header, or NULL.  Bytes are copied; a body is wiped when it was sent.
 * Returns its number (> 0), or -1: too many at a time, too long, no memory, or
 * the connection is over.
 */
int32_t h2_request(struct h2 *h, const char *method, const char *path,
    const char *lb, const void *body, size_t len, const struct h2_ops *ops,
    void *arg);

/* h2_cancel(h, id): it is over, without a callback. */
void h2_cancel(struct h2 *h, int32_t id);

/* h2_feed(h, data, len): bytes of the server.  Returns 0, or -1: the
 * connection is over, h2_error() says why; requests are not told. */
int h2_feed(struct h2 *h, const uint8_t *data, size_t len);

/* h2_pull(h, p): bytes for the server, borrowed until the next call for ${h};
 * 0: none now, or h2_over(): the connection is over, h2_error() says why. */
size_t h2_pull(struct h2 *h, const uint8_t **p);
bool h2_over(const struct h2 *h);

/* The server will take no more requests. */
bool h2_going_away(const struct h2 *h);
const char *h2_error(const struct h2 *h);

#endif

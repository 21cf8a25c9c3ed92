/*
 * http1.h: one answer of an HTTP/1.1 server, from its bytes.
 *
 * For the small exchanges around the control protocol: the server's key, the
 * upgrade, pings.  An answer is complete at the end of its body, and one of
 * 101 at the end of its head.
 */
#ifndef HTTP1_H
#define HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP1_HEAD_MAX  16384 /* bytes of status line and headers */
#define HTTP1_VALUE_MAX 127   /* of a header that is kept */

enum http1_verdict { HTTP1_MORE, HTTP1_COMPLETE, HTTP1_BAD };

struct http1 {
    unsigned status;
    char upgrade[HTTP1_VALUE_MAX + 1];
    char retry_after[HTTP1_VALUE_MAX + 1];
    uint8_t *body; /* owned; bodylen bytes */
    size_t bodylen;

    size_t max; /* of the body */
    bool no_body;
    int part; /* what comes next */
    char *line;
    size_t linelen, headlen;
    uint64_t left; /* of the body or chunk */
    bool has_length, chunked;
    const char *error; /* of HTTP1_BAD */
};

/* http1_init(h, max, head): an answer whose body has at most ${max} bytes;
 * ${head}: to a HEAD request. */
void http1_init(struct http1 *h, size_t max, bool head);
void http1_free(struct http1 *h);

/* http1_feed(h, data, len, used): ${*used} bytes of it belonged to the answer.
 */
enum http1_verdict http1_feed(
    struct http1 *h, const uint8_t *data, size_t len, size_t *used);

/* http1_eof(h): the server closed, which may be the body's end. */
enum http1_verdict http1_eof(struct http1 *h);

#endif

/*
 * Theory of operation: lines (status, headers, chunk sizes, trailers) are
 * collected up to their LF, bodies are copied.  RFC 9112; what a server may
 * leave to the reader's choice is refused.
 */
#include "http1.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { STATUS, HEADER, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, DONE };

void
http1_init(struct http1 *h, size_t max, bool head)
{
    memset(h, 0, sizeof(*h));
    h->max = max;
    h->no_body = head;
    h->part = STATUS;
}

void
http1_free(struct http1 *h)
{
    free(h->line);
    if (h->body != NULL)
        explicit_bzero(h->body, h->bodylen);
    free(h->body);
    h->line = NULL;
    h->body = NULL;
    h->bodylen = 0;
}

static enum http1_verdict
bad(struct http1 *h, const char *why)
{
    h->error = why;
    h->part = DONE;
    return HTTP1_BAD;
}

static enum http1_verdict
status_line(struct http1 *h, const char *s)
{
    if (strncmp(s, "HTTP/1.", 7) != 0 || strlen(s) < 12 || s[8] != ' ' ||
        s[9] < '1' || s[9] > '5' || s[10] < '0' || s[10] > '9' || s[11] < '0' ||
        s[11] > '9' || (s[12] != ' ' && s[12] != '\0'))
        return bad(h, "this is not HTTP");
    h->status = (unsigned)((s[9] - '0') * 100 + (s[10] - '0') * 10 + s[11] -
                           '0');
    h->part = HEADER;
    return HTTP1_MORE;
}

static bool
is(const char *s, size_t len, const char *name)
{
    return strlen(name) == len && strncasecmp(s, name, len) == 0;
}

static void
keep(char out[HTTP1_VALUE_MAX + 1], const char *value)
{
    size_t n = strlen(value);

    if (n > HTTP1_VALUE_MAX)
        n = 0; /* nothing we know is that long */
    memcpy(out, value, n);
    out[n] = '\0';
}

static enum http1_verdict
length(struct http1 *h, const char *s)
{
    uint64_t v = 0;
    size_t i;

    for (i = 0; s[i] >= '0' && s[i] <= '9' && i < 18; i++)
        v = v * 10 + (uint64_t)(s[i] - '0');
    if (i == 0 || s[i] != '\0' || (h->has_length && h->left != v))
        return bad(h, "a bad Content-Length");
    h->has_length = true;
    h->left = v;
    return HTTP1_MORE;
}

static enum http1_verdict
header(struct http1 *h, char *s)
{
    char *colon = strchr(s, ':'), *value, *end;
    size_t len;

    if (colon == NULL || colon == s || *s == ' ' || *s == '\t')
        return bad(h, "a bad header");
    len = (size_t)(colon - s);
    value = colon + 1 + strspn(colon + 1, " \t");
    for (end = value + strlen(value);
         end > value && (end[-1] == ' ' || end[-1] == '\t');)
        *--end = '\0';
    if (is(s, len, "upgrade"))
        keep(h->upgrade, value);
    else if (is(s, len, "retry-after"))
        keep(h->retry_after, value);
    else if (is(s, len, "content-length"))
        return length(h, value);
    else if (is(s, len, "transfer-encoding")) {
        if (strcasecmp(value, "chunked") != 0)
            return bad(h, "an unknown Transfer-Encoding");
        h->chunked = true;
    }
    return HTTP1_MORE;
}

static enum http1_verdict
done(struct http1 *h)
{
    h->part = DONE;
    return HTTP1_COMPLETE;
}

static enum http1_verdict
head_ends(struct http1 *h)
{
    if (h->status != 101 && h->status / 100 == 1) {
        h->part = STATUS; /* the final answer follows */
        h->has_length = h->chunked = false;
        return HTTP1_MORE;
    }
    if (h->status == 101 || h->status == 204 || h->status == 304 || h->no_body)
        return done(h);
    if (h->chunked) {
        h->part = CHUNK_SIZE;
        return HTTP1_MORE;
    }
    if (h->has_length && h->left > h->max)
        return bad(h, "the body is too long");
    if (h->has_length && h->left == 0)
        return done(h);
    h->part = BODY;
    return HTTP1_MORE;
}

static enum http1_verdict
chunk_size(struct http1 *h, const char *s)
{
    size_t digits = strspn(s, "0123456789abcdefABCDEF");

    if (digits == 0 || digits > 15 ||
        (s[digits] != '\0' && s[digits] != ';' && s[digits] != ' '))
        return bad(h, "a bad chunk");
    h->left = strtoull(s, NULL, 16);
    if (h->left > h->max - h->bodylen)
        return bad(h, "the body is too long");
    h->part = h->left == 0 ? TRAILER : CHUNK;
    return HTTP1_MORE;
}

static enum http1_verdict
one_line(struct http1 *h, char *s)
{
    switch (h->part) {
    case STATUS:
        return status_line(h, s);
    case HEADER:
        return *s == '\0' ? head_ends(h) : header(h, s);
    case CHUNK_SIZE:
        return chunk_size(h, s);
    case CHUNK_END:
        if (*s != '\0')
            return bad(h, "a bad chunk");
        h->part = CHUNK_SIZE;
        return HTTP1_MORE;
    default: /* TRAILER */
        return *s == '\0' ? done(h) : HTTP1_MORE;
    }
}

/* A byte of a line; all lines together have HTTP1_HEAD_MAX. */
static enum http1_verdict
line_byte(struct http1 *h, uint8_t c)
{
    enum http1_verdict v;

    if (++h->headlen > HTTP1_HEAD_MAX)
        return bad(h, "the head is too long");
    if (h->line == NULL) {
        h->line = malloc(HTTP1_HEAD_MAX + 1);
        if (h->line == NULL)
            return bad(h, "out of memory");
    }
    if (c == '\0')
        return bad(h, "a NUL in the head");
    if (c != '\n') {
        h->line[h->linelen++] = (char)c;
        return HTTP1_MORE;
    }
    if (h->linelen > 0 && h->line[h->linelen - 1] == '\r')
        h->linelen--;
    h->line[h->linelen] = '\0';
    h->linelen = 0;
    v = one_line(h, h->line);
    return v;
}

static enum http1_verdict
body(struct http1 *h, const uint8_t *data, size_t len)
{
    uint8_t *b;

    if (len > h->max - h->bodylen)
        return bad(h, "the body is too long");
    b = malloc(h->bodylen + len); /* not realloc(): the old bytes are wiped */
    if (b == NULL)
        return bad(h, "out of memory");
    if (h->body != NULL) {
        memcpy(b, h->body, h->bodylen);
        explicit_bzero(h->body, h->bodylen);
        free(h->body);
    }
    memcpy(b + h->bodylen, data, len);
    h->body = b;
    h->bodylen += len;
    if (h->part == CHUNK || h->has_length)
        h->left -= len;
    if (h->left == 0 && h->part == CHUNK)
        h->part = CHUNK_END;
    else if (h->left == 0 && h->has_length)
        return done(h);
    return HTTP1_MORE;
}

enum http1_verdict
http1_feed(struct http1 *h, const uint8_t *data, size_t len, size_t *used)
{
    enum http1_verdict v = h->error != NULL  ? HTTP1_BAD
                           : h->part == DONE ? HTTP1_COMPLETE
                                             : HTTP1_MORE;
    size_t n;

    for (*used = 0; *used < len && v == HTTP1_MORE; *used += n) {
        n = 1;
        if (h->part != BODY && h->part != CHUNK) {
            v = line_byte(h, data[*used]);
            continue;
        }
        n = len - *used;
        if ((h->part == CHUNK || h->has_length) && n > h->left)
            n = (size_t)h->left;
        v = body(h, data + *used, n);
    }
    return v;
}

enum http1_verdict
http1_eof(struct http1 *h)
{
    if (h->error != NULL)
        return HTTP1_BAD;
    if (h->part == DONE)
        return HTTP1_COMPLETE;
    if (h->part == BODY && !h->has_length)
        return done(h);
    return bad(h, "the answer ends in the middle");
}

#include "fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../loop.h"
#include "../stream.h"

#define HEAD_MAX (URL_PATH_MAX + URL_AUTHORITY_MAX + 4096)

struct fetch {
    struct stream *stream;
    struct loop_timer *timer;
    uint32_t timeout_ms;
    struct http1 answer;
    char *text; /* the request; wiped */
    size_t len;
    void (*done)(void *arg, const struct http1 *answer, const char *why);
    void *arg;
    bool over;
};

static void
forget_request(struct fetch *f)
{
    if (f->text != NULL)
        explicit_bzero(f->text, f->len);
    free(f->text);
    f->text = NULL;
}

/* The connection goes at once, and with it what was to be sent. */
static void
finish(struct fetch *f, const char *why)
{
    if (f->over)
        return;
    f->over = true;
    loop_timer_set(f->timer, UINT64_MAX);
    stream_free(f->stream);
    f->stream = NULL;
    forget_request(f);
    f->done(f->arg, why == NULL ? &f->answer : NULL, why);
}

static void
connected(void *arg)
{
    struct fetch *f = arg;

    if (stream_send(f->stream, f->text, f->len) != 0)
        finish(f, "the request cannot be sent");
    else
        forget_request(f);
}

static void
judge(struct fetch *f, enum http1_verdict v)
{
    if (v == HTTP1_COMPLETE)
        finish(f, NULL);
    else if (v == HTTP1_BAD)
        finish(f, f->answer.error);
}

static void
data(void *arg, const uint8_t *p, size_t len)
{
    struct fetch *f = arg;
    size_t used;

    if (!f->over)
        judge(f, http1_feed(&f->answer, p, len, &used));
}

static void
closed(void *arg, const char *why)
{
    struct fetch *f = arg;

    if (f->answer.status == 0)
        finish(f, why);
    else
        judge(f, http1_eof(&f->answer));
}

static const struct stream_ops ops = {
    .connected = connected, .data = data, .closed = closed};

static void
timed_out(void *arg)
{
    finish(arg, "no answer within the time limit");
}

static int
make_request(struct fetch *f, const struct fetch_request *r)
{
    char host[URL_AUTHORITY_MAX];
    int n;

    f->text = malloc(HEAD_MAX + r->len);
    if (f->text == NULL)
        return -1;
    url_authority(r->url, host);
    n = snprintf(f->text, HEAD_MAX,
        "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: nginx-tailnet\r\n"
        "Connection: close\r\n",
        r->method, r->url->path, host);
    if (r->authorization != NULL)
        n += snprintf(f->text + n, HEAD_MAX - (size_t)n,
            "Authorization: %s\r\n", r->authorization);
    if (r->body != NULL)
        n += snprintf(f->text + n, HEAD_MAX - (size_t)n,
            "Content-Type: %s\r\n"
            "Content-Length: %zu\r\n",
            r->type != NULL ? r->type : "application/octet-stream", r->len);
    n += snprintf(f->text + n, HEAD_MAX - (size_t)n, "\r\n");
    if (r->body != NULL)
        memcpy(f->text + n, r->body, r->len);
    f->len = (size_t)n + r->len;
    return 0;
}

struct fetch *
fetch_new(const struct fetch_request *r,
    void (*done)(void *arg, const struct http1 *answer, const char *why),
    void *arg)
{
    struct tls_opts tls = {
        .verify = TLS_VERIFY_CA, .sni = r->url->host, .alpn = "http/1.1"};
    struct stream_to to = {.host = r->url->host,
        .port = r->url->port,
        .trust = r->url->tls ? r->trust : NULL,
        .tls = &tls,
        .proxy = !r->direct,
        .addrs = r->addrs,
        .naddrs = r->naddrs,
        .connect_ms = r->timeout_ms};
    struct fetch *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return NULL;
    f->done = done;
    f->arg = arg;
    http1_init(&f->answer, r->max, strcmp(r->method, "HEAD") == 0);
    f->timer = loop_timer_new(timed_out, f);
    if (f->timer == NULL || make_request(f, r) != 0 ||
        (f->stream = stream_new(&to, &ops, f)) == NULL) {
        fetch_free(f);
        return NULL;
    }
    loop_timer_set(f->timer, loop_now() + r->timeout_ms);
    return f;
}

void
fetch_free(struct fetch *f)
{
    if (f == NULL)
        return;
    stream_free(f->stream);
    loop_timer_free(f->timer);
    http1_free(&f->answer);
    forget_request(f);
    free(f);
}

#include "h2.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

struct call {
    struct h2 *h2;
    int32_t id; /* 0: free */
    const struct h2_ops *ops;
    void *arg;
    struct h2_answer answer;
    bool told;  /* head() was called */
    bool ended; /* the answer is whole */
    uint8_t *body;
    size_t len, sent;
};

struct h2 {
    nghttp2_session *session;
    char *authority;
    struct call calls[H2_CALLS_MAX];
    bool failed, away;
    char error[H2_ERROR_MAX];
};

static void
forget(struct call *c)
{
    if (c->body != NULL)
        explicit_bzero(c->body, c->len);
    free(c->body);
    memset(c, 0, sizeof(*c));
}

static struct call *
find(struct h2 *h, int32_t id)
{
    for (size_t i = 0; i < H2_CALLS_MAX && id > 0; i++)
        if (h->calls[i].id == id)
            return &h->calls[i];
    return NULL;
}

static void
finish(struct call *c, const char *why)
{
    const struct h2_ops *ops = c->ops;
    void *arg = c->arg;

    forget(c);
    ops->done(arg, why);
}

/* ---- nghttp2's callbacks ---- */

static bool
is(const uint8_t *s, size_t len, const char *name)
{
    return strlen(name) == len && memcmp(s, name, len) == 0;
}

static int
on_header(nghttp2_session *s, const nghttp2_frame *frame, const uint8_t *name,
    size_t nlen, const uint8_t *value, size_t vlen, uint8_t flags, void *user)
{
    struct call *c = find(user, frame->hd.stream_id);

    (void)s;
    (void)flags;
    if (c == NULL)
        return 0;
    if (is(name, nlen, ":status"))
        c->answer.status = (unsigned)strtoul((const char *)value, NULL, 10);
    else if (is(name, nlen, "retry-after") && vlen < H2_RETRY_MAX) {
        memcpy(c->answer.retry_after, value, vlen);
        c->answer.retry_after[vlen] = '\0';
    }
    return 0;
}

static int
on_frame(nghttp2_session *s, const nghttp2_frame *frame, void *user)
{
    struct h2 *h = user;
    struct call *c = find(h, frame->hd.stream_id);

    (void)s;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        h->away = true;
    if (c == NULL ||
        (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    c->ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (frame->hd.type == NGHTTP2_DATA || c->told ||
        c->answer.status / 100 == 1)
        return 0;
    c->told = true;
    c->ops->head(c->arg, &c->answer);
    return 0;
}

static int
on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *data,
    size_t len, void *user)
{
    struct call *c = find(user, id);

    (void)s;
    (void)flags;
    if (c != NULL)
        c->ops->data(c->arg, data, len);
    return 0;
}

static int
on_stream_close(nghttp2_session *s, int32_t id, uint32_t code, void *user)
{
    struct call *c = find(user, id);
    char why[96];

    (void)s;
    if (c == NULL)
        return 0;
    snprintf(why, sizeof(why), "the server ended the request: %s",
        code == NGHTTP2_NO_ERROR ? "its answer is not whole"
                                 : nghttp2_http2_strerror(code));
    finish(c, code == NGHTTP2_NO_ERROR && c->told && c->ended ? NULL : why);
    return 0;
}

static ssize_t
read_body(nghttp2_session *s, int32_t id, uint8_t *buf, size_t len,
    uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct call *c = find(user, id);
    size_t n;

    (void)s;
    (void)source;
    if (c == NULL)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    n = c->len - c->sent < len ? c->len - c->sent : len;
    if (n > 0)
        memcpy(buf, c->body + c->sent, n);
    c->sent += n;
    if (c->sent == c->len)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* ---- nghttp2's memory: requests hold auth keys ---- */

static void *
take(size_t size, void *arg)
{
    (void)arg;
    return malloc(size);
}

static void *
take_zeroed(size_t n, size_t size, void *arg)
{
    (void)arg;
    return calloc(n, size);
}

static void
wipe(void *p, void *arg)
{
    (void)arg;
    if (p != NULL)
        explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

static void *
resize(void *p, size_t size, void *arg)
{
    size_t had = p == NULL ? 0 : malloc_usable_size(p);
    void *b = malloc(size);

    if (b == NULL)
        return NULL;
    if (had > 0)
        memcpy(b, p, had < size ? had : size);
    wipe(p, arg);
    return b;
}

static nghttp2_mem mem = {NULL, take, wipe, take_zeroed, resize};

/* ---- life ---- */

static int
set_up(struct h2 *h)
{
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_WINDOW},
    };
    nghttp2_session_callbacks *cb;
    nghttp2_option *option = NULL;
    int rc = -1;

    if (nghttp2_session_callbacks_new(&cb) != 0)
        return -1;
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    if (nghttp2_option_new(&option) == 0 &&
        nghttp2_session_client_new3(&h->session, cb, h, option, &mem) == 0 &&
        nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings,
            sizeof(settings) / sizeof(*settings)) == 0 &&
        nghttp2_session_set_local_window_size(
            h->session, NGHTTP2_FLAG_NONE, 0, H2_WINDOW) == 0)
        rc = 0;
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    return rc;
}

struct h2 *
h2_new(const char *authority)
{
    struct h2 *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->authority = strdup(authority);
    if (h->authority == NULL || set_up(h) != 0) {
        h2_free(h);
        return NULL;
    }
    return h;
}

void
h2_free(struct h2 *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; i < H2_CALLS_MAX; i++)
        forget(&h->calls[i]);
    nghttp2_session_del(h->session);
    free(h->authority);
    free(h);
}

/* ---- requests ---- */

static nghttp2_nv
nv(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value,
        strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

int32_t
h2_request(struct h2 *h, const char *method, const char *path, const char *lb,
    const void *body, size_t len, const struct h2_ops *ops, void *arg)
{
    nghttp2_data_provider provider = {.read_callback = read_body};
    struct call *c = NULL;
    nghttp2_nv list[7];
    size_t n = 0;

    for (size_t i = 0; i < H2_CALLS_MAX && c == NULL; i++)
        if (h->calls[i].id == 0)
            c = &h->calls[i];
    if (c == NULL || len > H2_BODY_MAX || h->failed || h->away)
        return -1;
    c->body = malloc(len + 1);
    if (c->body == NULL)
        return -1;
    if (len > 0)
        memcpy(c->body, body, len);
    c->len = len;
    c->ops = ops;
    c->arg = arg;
    list[n++] = nv(":method", method);
    list[n++] = nv(":scheme", "https");
    list[n++] = nv(":authority", h->authority);
    list[n++] = nv(":path", path);
    if (len > 0)
        list[n++] = nv("content-type", "application/json");
    if (lb != NULL)
        list[n++] = nv("ts-lb", lb);
    c->id = nghttp2_submit_request(
        h->session, NULL, list, n, len > 0 ? &provider : NULL, NULL);
    if (c->id > 0)
        return c->id;
    forget(c);
    return -1;
}

void
h2_cancel(struct h2 *h, int32_t id)
{
    struct call *c = find(h, id);

    if (c == NULL)
        return;
    forget(c);
    (void)nghttp2_submit_rst_stream(
        h->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
}

/* ---- bytes ---- */

static int
fail(struct h2 *h, ssize_t rc)
{
    if (!h->failed)
        snprintf(h->error, sizeof(h->error), "HTTP/2: %s",
            nghttp2_strerror((int)rc));
    h->failed = true;
    return -1;
}

int
h2_feed(struct h2 *h, const uint8_t *data, size_t len)
{
    ssize_t rc;

    if (h->failed)
        return -1;
    rc = nghttp2_session_mem_recv(h->session, data, len);
    if (rc < 0)
        return fail(h, rc);
    if ((size_t)rc != len)
        return fail(h, NGHTTP2_ERR_PROTO);
    return 0;
}

size_t
h2_pull(struct h2 *h, const uint8_t **p)
{
    ssize_t n;

    if (h->failed)
        return 0;
    n = nghttp2_session_mem_send(h->session, p);
    if (n < 0)
        fail(h, n);
    /* After a mistake of the server nghttp2 says GOAWAY, and that was it. */
    else if (n == 0 && nghttp2_session_want_read(h->session) == 0 &&
             nghttp2_session_want_write(h->session) == 0)
        fail(h, h->away ? NGHTTP2_ERR_SESSION_CLOSING : NGHTTP2_ERR_PROTO);
    return n > 0 ? (size_t)n : 0;
}

bool
h2_over(const struct h2 *h)
{
    return h->failed;
}

bool
h2_going_away(const struct h2 *h)
{
    return h->away || h->failed;
}

const char *
h2_error(const struct h2 *h)
{
    return h->error;
}

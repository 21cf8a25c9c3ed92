/*
 * pong.c: what a control server wants to be answered.
 *
 * Two forms: an empty Types is answered by HEAD to the URL; "c2n" carries an
 * HTTP/1 request in Payload, whose answer is POSTed.  Of those only /echo is
 * known.  Pings through the mesh are not answered; the server does without.
 * A URL outside the Noise channel has to be on the control server itself: a
 * node is nobody's proxy.
 */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base64.h"
#include "../crypto/noise.h"
#include "../engine/say.h"

#define ANSWER_MS   15000
#define PAYLOAD_MAX 65536

static bool
seen(struct control *c, const char *url)
{
    static const uint8_t key[NOISE_SIP_KEY_LEN] = "ping request's ";
    uint64_t h = noise_siphash(key, url, strlen(url));

    for (int i = 0; i < SESSION_PINGS; i++)
        if (c->pings[i] == h)
            return true;
    c->pings[c->nping++ % SESSION_PINGS] = h;
    return false;
}

/* The answer to an HTTP/1 request, for free(3). */
static char *
respond(const char *request, size_t len, size_t *out)
{
    const char *end = memmem(request, len, "\r\n\r\n", 4), *body = "";
    bool echo = len > 10 && (strncmp(request, "GET /echo ", 10) == 0 ||
                                strncmp(request, "POST /echo ", 11) == 0);
    size_t n = 0;
    char *text;
    int head;

    if (echo && end != NULL) {
        body = end + 4;
        n = len - (size_t)(body - request);
    } else if (!echo) {
        body = "unknown path\n";
        n = strlen(body);
    }
    text = malloc(n + 128);
    if (text == NULL)
        return NULL;
    head = snprintf(text, 128, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n",
        echo ? "200 OK" : "404 Not Found", n);
    memcpy(text + head, body, n);
    *out = (size_t)head + n;
    return text;
}

/* ---- over the Noise channel ---- */

static void
head(void *arg, const struct h2_answer *a)
{
    (void)arg;
    (void)a;
}

static void
data(void *arg, const uint8_t *p, size_t len)
{
    (void)arg;
    (void)p;
    (void)len;
}

static void
done(void *arg, const char *why)
{
    (void)why; /* who asked sees it */
    ((struct control *)arg)->ping_request = 0;
}

static const struct h2_ops ops = {.head = head, .data = data, .done = done};

/* ---- outside ---- */

static void
fetched(void *arg, const struct http1 *a, const char *why)
{
    struct control *c = arg;

    (void)a;
    (void)why;
    fetch_free(c->ping);
    c->ping = NULL;
}

static void
fetch(struct control *c, const struct url *u, const char *method,
    const char *body, size_t len)
{
    struct fetch_request r = {.url = u,
        .method = method,
        .body = body,
        .len = len,
        .max = PAYLOAD_MAX,
        .timeout_ms = ANSWER_MS,
        .trust = c->trust};

    if (strcmp(u->host, c->url.host) != 0) {
        say_warn("node \"%s\": a ping request to another host than the control "
                 "server is not answered",
            c->node.name);
        return;
    }
    fetch_free(c->ping); /* the last one counts */
    c->ping = fetch_new(&r, fetched, c);
}

/* ---- which of them ---- */

static void
answer(struct control *c, const struct map_ping *p, const struct url *u)
{
    bool c2n = strcmp(p->types, "c2n") == 0;
    char *body = NULL;
    uint8_t *request;
    size_t len = 0, n = 0;

    if (!c2n && p->types[0] != '\0')
        return;
    if (c2n) {
        request = malloc(PAYLOAD_MAX);
        if (request != NULL && base64_decode(request, PAYLOAD_MAX, p->payload,
                                   strlen(p->payload), &n) == 0)
            body = respond((const char *)request, n, &len);
        free(request);
        if (body == NULL)
            return;
    }
    if (!p->noise) {
        fetch(c, u, c2n ? "POST" : "HEAD", body, len);
    } else {
        session_cancel(c, &c->ping_request);
        c->ping_request = session_request(
            c, c2n ? "POST" : "HEAD", u->path, body, len, &ops);
    }
    free(body);
}

void
pong_answer(struct control *c, const struct map_ping *p)
{
    struct url u;

    if (url_parse(&u, p->url) != 0) {
        say_warn("node \"%s\": a ping request without a URL is not answered",
            c->node.name);
        return;
    }
    if (!seen(c, p->url))
        answer(c, p, &u);
}

void
pong_cancel(struct control *c)
{
    session_cancel(c, &c->ping_request);
    fetch_free(c->ping);
    c->ping = NULL;
}

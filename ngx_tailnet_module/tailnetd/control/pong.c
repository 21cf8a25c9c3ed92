/*
 * pong.c: what a control server wants to be answered.
 *
 * Three forms: an empty Types is answered by HEAD to the URL; "c2n" carries an
 * HTTP/1 request in Payload, whose answer is POSTed, and of those only /echo is
 * known; a list of "disco", "TSMP", "ICMP" and "peerapi" asks for a ping of
 * each kind to a peer, and what came of each is POSTed by itself.
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

/* ---- answers under way ---- */

static void
end(struct session_pong *p)
{
    session_cancel(p->control, &p->request);
    fetch_free(p->fetch);
    free(p->url);
    *p = (struct session_pong){.control = p->control};
}

/* The oldest one gives way.  NULL: no memory. */
static struct session_pong *
begin(struct control *c, const char *url, bool noise)
{
    struct session_pong *p = NULL;

    for (unsigned i = 0; i < SESSION_PONGS && p == NULL; i++)
        if (c->pongs[i].url == NULL)
            p = &c->pongs[i];
    if (p == NULL)
        p = &c->pongs[c->oldest_pong++ % SESSION_PONGS];
    p->control = c;
    end(p);
    p->noise = noise;
    p->url = strdup(url);
    return p->url == NULL ? NULL : p;
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
    struct session_pong *p = arg;

    (void)why; /* who asked sees it */
    p->request = 0;
    end(p);
}

static const struct h2_ops ops = {.head = head, .data = data, .done = done};

/* ---- outside ---- */

static void
fetched(void *arg, const struct http1 *a, const char *why)
{
    (void)a;
    (void)why;
    end(arg);
}

static void
fetch(struct session_pong *p, const struct url *u, const char *method,
    const char *body, size_t len)
{
    struct control *c = p->control;
    struct fetch_request r = {.url = u,
        .method = method,
        .body = body,
        .len = len,
        .max = PAYLOAD_MAX,
        .timeout_ms = ANSWER_MS,
        .trust = c->trust};

    if (strcmp(u->host, c->url.host) != 0)
        say_warn("node \"%s\": a ping request to another host than the control "
                 "server is not answered",
            c->node.name);
    else
        p->fetch = fetch_new(&r, fetched, p);
    if (p->fetch == NULL)
        end(p);
}

static void
send_answer(
    struct session_pong *p, const char *method, const char *body, size_t len)
{
    struct control *c = p->control;
    struct url u;
    int32_t id;

    if (url_parse(&u, p->url) != 0) {
        say_warn("node \"%s\": a ping request without a URL is not answered",
            c->node.name);
        end(p);
        return;
    }
    if (!p->noise) {
        fetch(p, &u, method, body, len);
        return;
    }
    id = session_request_as(c, method, u.path, body, len, &ops, p);
    if (id > 0)
        p->request = id;
    else
        end(p);
}

/* ---- requests in a request ---- */

/* The answer to an HTTP/1 request, for free(3). */
static char *
respond(const char *request, size_t len, size_t *out)
{
    const char *stop = memmem(request, len, "\r\n\r\n", 4), *body = "";
    bool echo = len > 10 && (strncmp(request, "GET /echo ", 10) == 0 ||
                                strncmp(request, "POST /echo ", 11) == 0);
    size_t n = 0;
    char *text;
    int first;

    if (echo && stop != NULL) {
        body = stop + 4;
        n = len - (size_t)(body - request);
    } else if (!echo) {
        body = "unknown path\n";
        n = strlen(body);
    }
    text = malloc(n + 128);
    if (text == NULL)
        return NULL;
    first = snprintf(text, 128, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n",
        echo ? "200 OK" : "404 Not Found", n);
    memcpy(text + first, body, n);
    *out = (size_t)first + n;
    return text;
}

static void
answer_request(struct control *c, const struct map_ping *m)
{
    uint8_t *request = malloc(PAYLOAD_MAX);
    struct session_pong *p;
    char *body = NULL;
    size_t len = 0, n = 0;

    if (request != NULL && base64_decode(request, PAYLOAD_MAX, m->payload,
                               strlen(m->payload), &n) == 0)
        body = respond((const char *)request, n, &len);
    free(request);
    if (body == NULL)
        return;
    p = begin(c, m->url, m->noise);
    if (p != NULL)
        send_answer(p, "POST", body, len);
    free(body);
}

/* ---- pings of peers ---- */

static const char *const kinds[] = {
    [PING_ICMP] = "ICMP", [PING_TSMP] = "TSMP", [PING_DISCO] = "disco"};

#define KINDS   (sizeof(kinds) / sizeof(kinds[0]))
#define PEERAPI "peerapi"

/* ${done}: those that were made, a bit each. */
static void
ping(struct control *c, const struct map_ping *m, const char *type, size_t len,
    const struct tn_addr *to, unsigned *done)
{
    struct message_pong no = {.error = "this node makes no PeerAPI requests"};
    struct session_pong *p;
    unsigned kind = 0;

    while (kind < KINDS &&
           (strlen(kinds[kind]) != len || memcmp(kinds[kind], type, len) != 0))
        kind++;
    if (kind == KINDS &&
        (len != strlen(PEERAPI) || memcmp(PEERAPI, type, len) != 0))
        return; /* of a later time */
    if (*done & 1u << kind)
        return;
    *done |= 1u << kind;
    p = begin(c, m->url, m->noise);
    if (p == NULL)
        return;
    if (++c->last_pong == 0)
        c->last_pong = 1;
    p->id = c->last_pong;
    p->type = kind == KINDS ? PEERAPI : kinds[kind];
    p->to = *to;
    if (kind == KINDS)
        control_pong(c, p->id, &no);
    else
        c->ops->ping(c->arg, p->id, (enum ping_kind)kind, to);
}

void
control_pong(struct control *c, uint32_t id, const struct message_pong *pong)
{
    struct message_pong m = *pong;
    struct session_pong *p = NULL;
    char *body;
    size_t len;

    for (unsigned i = 0; i < SESSION_PONGS && p == NULL; i++)
        if (c->pongs[i].url != NULL && c->pongs[i].id == id)
            p = &c->pongs[i];
    if (p == NULL || id == 0)
        return;
    p->id = 0;
    m.type = p->type;
    m.to = p->to;
    body = message_pong(&m, &len);
    if (body != NULL)
        send_answer(p, "POST", body, len);
    else
        end(p);
    message_free(body, len);
}

static void
ping_peer(struct control *c, const struct map_ping *m)
{
    struct tn_addr to;
    unsigned done = 0;
    const char *s;
    size_t len;

    if (m->ip == NULL || tn_addr_parse(&to, m->ip, strlen(m->ip)) != 0) {
        say_warn("node \"%s\": a ping request without a peer's address is not "
                 "answered",
            c->node.name);
        return;
    }
    for (s = m->types; *s != '\0'; s += len + (s[len] == ',')) {
        len = strcspn(s, ",");
        ping(c, m, s, len, &to, &done);
    }
}

/* ---- which of them ---- */

void
pong_answer(struct control *c, const struct map_ping *m)
{
    struct session_pong *p;

    if (seen(c, m->url))
        return;
    if (strcmp(m->types, "c2n") == 0) {
        answer_request(c, m);
    } else if (m->types[0] != '\0') {
        ping_peer(c, m);
    } else {
        p = begin(c, m->url, m->noise);
        if (p != NULL)
            send_answer(p, "HEAD", NULL, 0);
    }
}

void
pong_cancel(struct control *c)
{
    for (unsigned i = 0; i < SESSION_PONGS; i++) {
        c->pongs[i].control = c;
        end(&c->pongs[i]);
    }
}

/*
 * Theory of operation.  A channel is KEY (fetch) → DIAL (up to two legs race) →
 * UP → DOWN.  A leg is a stream, the upgrade's HTTP answer, and a Noise
 * handshake with an ephemeral key of its own; the first leg that completes it
 * becomes the channel.
 *
 * Callbacks may do anything, channel_free() included, while bytes go through
 * ts2021 and h2: every entry from the loop counts in ${depth}, and the memory
 * stays until the last one is out.
 */
#include "channel.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "../base64.h"
#include "../crypto/noise.h"
#include "../loop.h"
#include "../stream.h"
#include "fetch.h"
#include "message.h"
#include "ts2021.h"

#define UPGRADE "tailscale-control-protocol"
#define LEGS    2

enum phase { KEY, DIAL, UP, DOWN };

struct leg {
    struct channel *channel;
    struct stream *stream;
    bool tls, over;
    uint16_t port;
    struct http1 answer;
    bool upgraded;
    struct ts2021 noise;
};

struct channel {
    const struct channel_ops *ops;
    void *arg;
    enum phase phase;
    unsigned depth;
    bool freed;
    struct url url;
    struct tls_trust *trust;
    uint16_t version;
    bool recent;
    struct tn_addr addrs[STREAM_ADDRS_MAX];
    size_t naddrs;
    uint8_t machine[32], server[32];
    struct fetch *fetch;
    struct loop_timer *timer;
    uint64_t deadline, second_at;
    struct leg *legs[LEGS];
    unsigned nlegs;  /* begun */
    struct leg *leg; /* the one that won */
    struct h2 *h2;
    char why[CHANNEL_WHY_MAX];
};

/* ---- the end ---- */

static void
free_leg(struct leg *l)
{
    if (l == NULL)
        return;
    stream_free(l->stream);
    http1_free(&l->answer);
    ts2021_wipe(&l->noise);
    free(l);
}

static void
shut(struct channel *c)
{
    c->phase = DOWN;
    fetch_free(c->fetch);
    c->fetch = NULL;
    loop_timer_set(c->timer, UINT64_MAX);
    for (int i = 0; i < LEGS; i++)
        if (c->legs[i] != NULL && c->legs[i]->stream != NULL) {
            stream_free(c->legs[i]->stream);
            c->legs[i]->stream = NULL;
        }
}

static void
release(struct channel *c)
{
    shut(c);
    for (int i = 0; i < LEGS; i++)
        free_leg(c->legs[i]);
    h2_free(c->h2);
    loop_timer_free(c->timer);
    noise_wipe(c->machine, sizeof(c->machine));
    free(c);
}

static void
leave(struct channel *c)
{
    if (--c->depth == 0 && c->freed)
        release(c);
}

void
channel_free(struct channel *c)
{
    if (c == NULL)
        return;
    c->freed = true;
    shut(c);
    if (c->depth == 0)
        release(c);
}

__attribute__((format(printf, 2, 3))) static void
fail(struct channel *c, const char *fmt, ...)
{
    char why[CHANNEL_WHY_MAX];
    bool dialling = c->phase != UP;
    va_list ap;

    if (c->phase == DOWN)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    shut(c);
    c->ops->down(c->arg, why, dialling);
}

/* ---- up ---- */

/* HTTP/2's bytes as records. */
void
channel_flush(struct channel *c)
{
    uint8_t frame[TS2021_FRAME_MAX];
    const uint8_t *p;
    size_t n, some, len;

    c->depth++;
    while (c->phase == UP && (n = h2_pull(c->h2, &p)) > 0) {
        /* A request that ends there may be the reason to end it all. */
        for (; n > 0 && c->phase == UP; n -= some, p += some) {
            some = n < TS2021_PLAIN_MAX ? n : TS2021_PLAIN_MAX;
            len = ts2021_seal(&c->leg->noise, frame, p, some);
            if (len == 0 || stream_send(c->leg->stream, frame, len) != 0) {
                fail(c, "too much waits to be sent");
                break;
            }
        }
    }
    if (c->phase == UP && h2_over(c->h2))
        fail(c, "%s", h2_error(c->h2));
    leave(c);
}

static void
plain(void *arg, const uint8_t *p, size_t len)
{
    struct channel *c = arg;

    if (c->phase == UP && h2_feed(c->h2, p, len) != 0)
        fail(c, "%s", h2_error(c->h2));
}

static void
win(struct channel *c, struct leg *l)
{
    c->leg = l;
    for (int i = 0; i < LEGS; i++) {
        if (c->legs[i] != NULL && c->legs[i] != l) {
            free_leg(c->legs[i]);
            c->legs[i] = NULL;
        }
    }
    loop_timer_set(c->timer, UINT64_MAX);
    c->h2 = h2_new(c->url.host);
    if (c->h2 == NULL) {
        fail(c, "out of memory");
        return;
    }
    c->phase = UP;
    c->ops->up(c->arg);
}

static void begin_leg(struct channel *c);

/* ${l} cannot be it; the other one may. */
__attribute__((format(printf, 2, 3))) static void
give_up(struct leg *l, const char *fmt, ...)
{
    struct channel *c = l->channel;
    char why[STREAM_WHY_MAX];
    bool all = true;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    if (l == c->leg) {
        fail(c, "%s", why);
        return;
    }
    l->over = true;
    stream_free(l->stream);
    l->stream = NULL;
    snprintf(c->why, sizeof(c->why), "%s port %u: %.400s",
        l->tls ? "HTTPS" : "HTTP", l->port, why);
    if (c->nlegs < LEGS && c->second_at != UINT64_MAX) {
        begin_leg(c);
        return;
    }
    for (unsigned i = 0; i < c->nlegs; i++)
        all = all && (c->legs[i] == NULL || c->legs[i]->over);
    if (all)
        fail(c, "%s", c->why);
}

static void
noise_bytes(struct leg *l, const uint8_t *p, size_t len)
{
    struct channel *c = l->channel;
    bool shaking = l->noise.state == TS2021_HANDSHAKE;
    size_t n = len;

    /* The answer alone first, so that what follows finds HTTP/2 ready. */
    if (shaking && len > TS2021_RESP_LEN - l->noise.inlen)
        n = TS2021_RESP_LEN - l->noise.inlen;
    if (ts2021_feed(&l->noise, p, n, plain, c) != 0) {
        if (c->phase != DOWN)
            give_up(l, "%s", l->noise.error);
        return;
    }
    if (shaking && l->noise.state == TS2021_OPEN)
        win(c, l);
    /* Up, or it was no answer but an error, which is longer. */
    if ((c->phase == UP || l->noise.state == TS2021_HANDSHAKE) && n < len &&
        ts2021_feed(&l->noise, p + n, len - n, plain, c) != 0)
        give_up(l, "%s", l->noise.error);
    channel_flush(c);
}

/* ---- legs ---- */

static void
upgrade(struct leg *l)
{
    struct channel *c = l->channel;
    uint8_t ephemeral[32], init[TS2021_INIT_LEN];
    char text[BASE64_LEN(TS2021_INIT_LEN)], request[1024];
    char host[URL_AUTHORITY_MAX];
    struct url url = c->url;
    int n, rc;

    while (getrandom(ephemeral, sizeof(ephemeral), 0) != sizeof(ephemeral))
        ;
    noise_clamp(ephemeral);
    rc = ts2021_start(
        &l->noise, c->version, c->machine, c->server, ephemeral, init);
    noise_wipe(ephemeral, sizeof(ephemeral));
    if (rc != 0) {
        give_up(l, "%s", l->noise.error);
        return;
    }
    base64_encode(text, init, sizeof(init));
    url.tls = l->tls;
    url.port = l->port;
    url_authority(&url, host);
    n = snprintf(request, sizeof(request),
        "POST /ts2021 HTTP/1.1\r\nHost: %s\r\nUpgrade: " UPGRADE
        "\r\nConnection: upgrade\r\nX-Tailscale-Handshake: %s\r\n"
        "Content-Length: 0\r\n\r\n",
        host, text);
    if (stream_send(l->stream, request, (size_t)n) != 0)
        give_up(l, "the upgrade cannot be sent");
}

static void
leg_connected(void *arg)
{
    struct leg *l = arg;
    struct channel *c = l->channel;

    c->depth++;
    upgrade(l);
    leave(c);
}

static void
leg_data(void *arg, const uint8_t *p, size_t len)
{
    struct leg *l = arg;
    struct channel *c = l->channel;
    enum http1_verdict v;
    size_t used = 0;

    c->depth++;
    if (!l->upgraded) {
        v = http1_feed(&l->answer, p, len, &used);
        if (v == HTTP1_BAD)
            give_up(
                l, "the server's answer to the upgrade: %s", l->answer.error);
        else if (v == HTTP1_COMPLETE &&
                 (l->answer.status != 101 ||
                     strcasecmp(l->answer.upgrade, UPGRADE) != 0))
            give_up(l,
                "the server refuses the upgrade (HTTP status %u): does a proxy "
                "before it pass on \"Upgrade: " UPGRADE "\"?",
                l->answer.status);
        else
            l->upgraded = v == HTTP1_COMPLETE;
    }
    if (l->upgraded && !l->over && c->phase != DOWN && used < len)
        noise_bytes(l, p + used, len - used);
    leave(c);
}

static void
leg_closed(void *arg, const char *why)
{
    struct leg *l = arg;
    struct channel *c = l->channel;

    c->depth++;
    if (l->upgraded && l->noise.state == TS2021_HANDSHAKE)
        give_up(l,
            "%s after the upgrade: the server may not accept capability "
            "version %u",
            why, c->version);
    else
        give_up(l, "%s", why);
    leave(c);
}

static const struct stream_ops leg_ops = {
    .connected = leg_connected, .data = leg_data, .closed = leg_closed};

/* What the URL allows: the first leg, then the second (${second_at}
 * UINT64_MAX: there is none). */
static void
plan(struct channel *c, bool *tls, uint16_t *port)
{
    const struct url *u = &c->url;
    unsigned n = c->nlegs;

    if (u->tls && u->has_port) { /* TLS alone */
        *tls = true;
        *port = u->port;
        c->second_at = UINT64_MAX;
    } else if (u->tls) {
        *tls = n > 0 || c->recent;
        *port = *tls ? 443 : 80;
        if (*tls)
            c->second_at = UINT64_MAX;
    } else {
        *tls = n > 0;
        *port = n > 0 ? 443 : u->port;
        if (n > 0 || url_is_private(u))
            c->second_at = UINT64_MAX;
    }
}

static void
set_timer(struct channel *c)
{
    loop_timer_set(
        c->timer, c->second_at < c->deadline ? c->second_at : c->deadline);
}

static void
begin_leg(struct channel *c)
{
    struct tls_opts tls = {
        .verify = TLS_VERIFY_CA, .sni = c->url.host, .alpn = "http/1.1"};
    struct stream_to to = {.host = c->url.host,
        .addrs = c->addrs,
        .naddrs = c->naddrs,
        .tls = &tls,
        .proxy = true,
        .connect_ms = CHANNEL_DIAL_MS};
    struct leg *l = calloc(1, sizeof(*l));

    if (l == NULL) {
        fail(c, "out of memory");
        return;
    }
    l->channel = c;
    plan(c, &l->tls, &l->port);
    to.port = l->port;
    to.trust = l->tls ? c->trust : NULL;
    http1_init(&l->answer, 0, true); /* a refusal's page is for browsers */
    c->legs[c->nlegs++] = l;
    set_timer(c);
    l->stream = stream_new(&to, &leg_ops, l);
    if (l->stream == NULL)
        give_up(l, "out of memory");
}

static void
begin_dial(struct channel *c)
{
    uint64_t now = loop_now();

    c->phase = DIAL;
    c->deadline = now + CHANNEL_DIAL_MS;
    c->second_at = now + CHANNEL_STAGGER_MS;
    begin_leg(c);
}

/* ---- key ---- */

static void
fetched(void *arg, const struct http1 *a, const char *why)
{
    struct channel *c = arg;
    char err[MESSAGE_ERROR_MAX];

    c->depth++;
    if (a == NULL)
        fail(c, "its key cannot be fetched: %s", why);
    else if (a->status != 200)
        fail(c, "its key cannot be fetched: HTTP status %u%s", a->status,
            a->status >= 300 && a->status < 500
                ? " (is \"control_url\" that of a control server?)"
                : "");
    else if (message_server_key(
                 (const char *)a->body, a->bodylen, c->server, err) != 0)
        fail(c, "its key cannot be fetched: %s", err);
    if (c->phase == KEY) {
        fetch_free(c->fetch);
        c->fetch = NULL;
        c->ops->key(c->arg, c->server);
        if (c->phase == KEY)
            begin_dial(c);
    }
    leave(c);
}

static void
begin_key(struct channel *c)
{
    struct url url = c->url;
    struct fetch_request r = {.url = &url,
        .method = "GET",
        .max = CHANNEL_KEY_MAX,
        .timeout_ms = CHANNEL_KEY_MS,
        .addrs = c->addrs,
        .naddrs = c->naddrs,
        .trust = c->trust};

    snprintf(url.path, sizeof(url.path), "/key?v=%u", c->version);
    c->fetch = fetch_new(&r, fetched, c);
    if (c->fetch == NULL)
        fail(c, "out of memory");
}

static void
tick(void *arg)
{
    struct channel *c = arg;
    uint64_t now = loop_now();

    c->depth++;
    if (c->phase == KEY)
        begin_key(c);
    else if (c->phase == DIAL && now >= c->deadline)
        fail(c, "no success within %d s%s%s", CHANNEL_DIAL_MS / 1000,
            c->why[0] == '\0' ? "" : "; ", c->why);
    else if (c->phase == DIAL && c->nlegs == 0)
        begin_dial(c);
    else if (c->phase == DIAL && c->nlegs < LEGS)
        begin_leg(c);
    leave(c);
}

/* ---- life ---- */

struct channel *
channel_new(const struct channel_config *config, const struct channel_ops *ops,
    void *arg)
{
    struct channel *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->ops = ops;
    c->arg = arg;
    c->url = *config->url;
    c->trust = config->trust;
    c->version = config->version;
    c->recent = config->recent;
    c->naddrs = config->naddrs < STREAM_ADDRS_MAX ? config->naddrs
                                                  : STREAM_ADDRS_MAX;
    for (size_t i = 0; i < c->naddrs; i++)
        c->addrs[i] = config->addrs[i];
    memcpy(c->machine, config->machine, sizeof(c->machine));
    c->timer = loop_timer_new(tick, c);
    if (c->timer == NULL) {
        free(c);
        return NULL;
    }
    if (config->server != NULL) {
        memcpy(c->server, config->server, sizeof(c->server));
        c->phase = DIAL;
        c->deadline = UINT64_MAX;
    }
    loop_timer_set(c->timer, 0);
    return c;
}

struct h2 *
channel_h2(struct channel *c)
{
    return c->phase == UP ? c->h2 : NULL;
}

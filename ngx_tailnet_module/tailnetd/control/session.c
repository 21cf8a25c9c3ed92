/*
 * session.c: the connection to the control server, and what is next.
 *
 * Theory of operation.  session_next() is the only place that decides: without
 * a connection it dials; with one it logs out, logs in or polls, by what
 * c->stopped, c->leaving and c->login.active say.  Whatever fails ends in
 * session_failed() or session_refused(), which drop everything under way and
 * set the one timer that leads back to session_next().
 */
#include "session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "../crypto/noise.h"

const struct control_timing control_timing_default = {
    .watchdog = 120000, .backoff = 30000};

void
session_random(void *buf, size_t len)
{
    /* Below 256 bytes getrandom() is never cut short once it is seeded. */
    while (getrandom(buf, len, 0) != (ssize_t)len)
        ;
}

int64_t
session_wall(const struct control *c)
{
    return (int64_t)time(NULL) + c->skew;
}

static void
set_words(struct control *c, enum control_state s,
    const char words[static CONTROL_WORDS_MAX])
{
    if (c->state == s && strcmp(c->words, words) == 0)
        return;
    c->state = s;
    memcpy(c->words, words, CONTROL_WORDS_MAX);
    c->ops->state(c->arg);
}

void
session_set_state(struct control *c, enum control_state s, const char *fmt, ...)
{
    char words[CONTROL_WORDS_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof(words), fmt, ap);
    va_end(ap);
    set_words(c, s, words);
}

/* ---- delays ---- */

/* From 0.5 to 1.5 times ${ms}. */
static uint64_t
jitter(uint64_t ms)
{
    uint32_t r;

    session_random(&r, sizeof(r));
    return ms / 2 + ms * (r % 1024) / 1024;
}

static void
drop_connection(struct control *c)
{
    login_cancel(c);
    poll_cancel(c);
    pong_cancel(c);
    c->leave_request = 0;
    channel_free(c->channel);
    c->channel = NULL;
    c->up = false;
}

static void
wait_ms(struct control *c, uint64_t ms)
{
    loop_timer_set(c->retry, loop_now() + ms);
}

void
session_failed(struct control *c, unsigned retry, const char *fmt, ...)
{
    char words[CONTROL_WORDS_MAX];
    uint64_t ms;
    va_list ap;

    /* First of all: what is said may be of something that is dropped. */
    va_start(ap, fmt);
    vsnprintf(words, sizeof(words), fmt, ap);
    va_end(ap);
    drop_connection(c);
    if (c->since != 0 && loop_now() - c->since >= SESSION_STEADY_MS)
        c->failures = 0;
    c->since = 0;
    c->failures++;
    ms = (uint64_t)c->failures * c->failures * SESSION_BACKOFF_MS;
    ms = jitter(ms < c->timing.backoff ? ms : c->timing.backoff);
    wait_ms(c, retry > 0 ? (uint64_t)retry * 1000 : ms);
    set_words(c, CONTROL_WAITING, words);
}

void
session_refused(struct control *c, const char *fmt, ...)
{
    char words[CONTROL_WORDS_MAX];
    uint64_t ms = SESSION_REFUSED_MS;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(words, sizeof(words), fmt, ap);
    va_end(ap);
    drop_connection(c);
    for (unsigned i = 0; i < c->refusals && ms < SESSION_REFUSED_MAX; i++)
        ms *= 2;
    c->refusals++;
    wait_ms(c, jitter(ms < SESSION_REFUSED_MAX ? ms : SESSION_REFUSED_MAX));
    set_words(c, CONTROL_REFUSED, words);
}

/* ---- the channel ---- */

static void
channel_key(void *arg, const uint8_t server[32])
{
    struct control *c = arg;

    memcpy(c->server, server, sizeof(c->server));
    c->has_server = true;
}

static void
channel_up(void *arg)
{
    struct control *c = arg;

    c->up = true;
    c->by_name = false;
    c->dialled = loop_now();
    session_next(c);
}

static void
channel_down(void *arg, const char *why, bool dialling)
{
    struct control *c = arg;
    char at[URL_AUTHORITY_MAX];

    if (dialling)
        c->has_server = false; /* it may have a new key */
    url_authority(&c->url, at);
    session_failed(c, 0, "control server %s: %s", at, why);
}

static const struct channel_ops channel_ops = {
    .key = channel_key, .up = channel_up, .down = channel_down};

static void
dial(struct control *c)
{
    struct channel_config config = {.url = &c->url,
        .trust = c->trust,
        .version = c->node.capability != 0 ? c->node.capability : TN_CAPABILITY,
        .machine = c->machine,
        .server = c->has_server ? c->server : NULL,
        .addrs = c->plan.addrs,
        .naddrs = c->by_name ? 0 : c->plan.n,
        .recent = c->dialled != 0 &&
                  loop_now() - c->dialled < CHANNEL_RECENT_MS};

    /* Every other time: the server's advice may be old. */
    c->by_name = !c->by_name && c->plan.n > 0;
    if (c->state == CONTROL_STOPPED)
        session_set_state(c, CONTROL_CONNECTING, "dialling");
    c->channel = channel_new(&config, &channel_ops, c);
    if (c->channel == NULL)
        session_failed(c, 0, "out of memory");
}

void
session_next(struct control *c)
{
    loop_timer_set(c->retry, UINT64_MAX);
    if (c->stopped && !c->leaving) {
        drop_connection(c);
        session_set_state(c, CONTROL_STOPPED, "logged out");
        return;
    }
    if (c->channel == NULL) {
        dial(c);
        return;
    }
    if (!c->up)
        return;
    if (c->leaving) {
        login_leave(c);
        return;
    }
    if (c->login.active && !c->login.renewal) {
        login_next(c);
        return;
    }
    poll_begin(c);
    if (c->login.active && c->up)
        login_next(c);
}

/* ---- requests ---- */

int32_t
session_request(struct control *c, const char *method, const char *path,
    const char *body, size_t len, const struct h2_ops *ops)
{
    return session_request_as(c, method, path, body, len, ops, c);
}

int32_t
session_request_as(struct control *c, const char *method, const char *path,
    const char *body, size_t len, const struct h2_ops *ops, void *arg)
{
    char lb[80] = "nodekey:";
    uint8_t public[32];
    struct h2 *h2 = c->channel == NULL ? NULL : channel_h2(c->channel);
    int32_t id;

    if (h2 == NULL)
        return -1;
    noise_public_key(public, c->has_key ? c->key : c->login.key);
    for (int i = 0; i < 32; i++)
        snprintf(lb + 8 + 2 * i, 3, "%02x", public[i]);
    id = h2_request(h2, method, path, lb, body, len, ops, arg);
    if (id < 0) {
        session_failed(c, 0, "control server %s: %s", c->url.host,
            h2_going_away(h2) ? "it ends the connection"
                              : "no request can be made");
        return -1;
    }
    /* The bytes go out when the loop is back: a failure now would call back
     * into the caller. */
    loop_timer_set(c->begin, 0);
    return id;
}

void
session_cancel(struct control *c, int32_t *id)
{
    struct h2 *h2 = c->channel == NULL ? NULL : channel_h2(c->channel);

    if (*id > 0 && h2 != NULL)
        h2_cancel(h2, *id);
    *id = 0;
}

/* ---- what this node says of itself ---- */

static size_t
split(char *text, const char *list[], size_t max)
{
    size_t n = 0;
    char *save, *s;

    for (s = strtok_r(text, " ", &save); s != NULL && n < max;
         s = strtok_r(NULL, " ", &save))
        list[n++] = s;
    return n;
}

#define LIST_MAX 256

struct message_self
session_self(struct control *c, const uint8_t key[32], uint8_t public[32])
{
    static char tags[TN_NODE_TAGS_MAX + 1], routes[TN_NODE_TAGS_MAX + 1];
    static const char *tag_list[LIST_MAX], *route_list[LIST_MAX];
    static struct tn_prefix prefixes[LIST_MAX];
    struct message_self m = {
        .version = c->node.capability != 0 ? c->node.capability : TN_CAPABILITY,
        .hostname = tn_node_hostname(&c->node),
        .tags = tag_list,
        .routes = prefixes,
        .node_key = public,
        .disco = c->disco,
        .ephemeral = c->node.ephemeral,
        .endpoints = c->endpoints,
        .nendpoints = c->nendpoints,
        .net = c->has_net ? &c->net : NULL,
    };
    size_t n;

    noise_public_key(public, key);
    memcpy(tags, c->node.tags, sizeof(tags));
    memcpy(routes, c->node.routes, sizeof(routes));
    m.ntags = split(tags, tag_list, LIST_MAX);
    n = split(routes, route_list, LIST_MAX);
    for (size_t i = 0; i < n; i++)
        if (tn_prefix_parse(&prefixes[m.nroutes], route_list[i],
                strlen(route_list[i])) == 0)
            m.nroutes++;
    return m;
}

/*
 * poll.c: the map stream, and the lite updates beside it.
 *
 * Theory of operation.  A stream's messages go through map_frame (bytes),
 * map_json_delta (meaning) and map_state (the tailnet); netmaps are given from
 * the loop, so that messages that come together make one.  The stream does not
 * tell the server where we are: that is a lite update's job, at the stream's
 * begin and at every change, one at a time, the latest values counting.  It
 * waits until the server has taken the stream, which makes us online: peers
 * may ignore the new disco key of a node that is said to be offline.  Now
 * and then the same values are told again: of a node's removal some servers
 * (Headscale) say nothing in its stream, but they refuse its lite updates.
 */
#include "session.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../crypto/noise.h"
#include "../engine/say.h"

#define LITE_RETRY_MS 5000
#define USERS_SPARE   4096 /* profiles without a node, before a new stream */
#define LARGE         (128u << 10) /* bytes; what more takes is given back */
#define LITE_AGAIN_MS 300000       /* when nothing is new */
#define SKEW_MIN      60         /* seconds; below, clocks are taken as equal */
#define SKEW_NEWS     5          /* seconds */
#define TIME_MIN      1673373066 /* no clock is that old (test servers' are) */

static void removed(struct control *c, const char *words);

/* ---- what a message means ---- */

static void
take_time(struct control *c, int64_t server)
{
    int64_t skew = server - (int64_t)time(NULL);

    if (server == 0)
        return;
    if (server < TIME_MIN || (skew <= SKEW_MIN && skew >= -SKEW_MIN))
        skew = 0;
    /* Messages take their time, and a skew that is news makes a whole netmap
     * of each. */
    if (skew == 0 || skew > c->skew + SKEW_NEWS || skew < c->skew - SKEW_NEWS)
        c->skew = skew;
}

/* Was it, since the last message, so that the skew is another one now?  (That
 * the machine slept looks the same.) */
static bool
clock_was_set(struct control *c)
{
    int64_t ahead = (int64_t)time(NULL) - (int64_t)(loop_now() / 1000),
            by = ahead - c->ahead;

    c->ahead = ahead;
    return c->skew != 0 && (by > SKEW_MIN || by < -SKEW_MIN);
}

static void
show_url(struct control *c, const char *url)
{
    struct url u;

    if (url[0] == '\0' || (c->pop_url != NULL && strcmp(c->pop_url, url) == 0))
        return;
    free(c->pop_url);
    c->pop_url = strdup(url);
    if (url_parse(&u, url) == 0)
        say_notice("node \"%s\": the control server asks to open %s",
            c->node.name, url);
}

static void
take_lock(struct control *c, const struct map_delta *d)
{
    if (d->locked && !c->locked)
        say_warn("node \"%s\": its tailnet is locked; this node does not check "
                 "the lock's signatures, and locked peers refuse it until it "
                 "is signed",
            c->node.name);
    c->locked = c->locked || d->locked;
}

static void
say_warnings(struct control *c, const struct map_json_error *err)
{
    unsigned i;

    for (i = 0; i < err->nwarnings && i < MAP_JSON_MAX_WARNINGS; i++)
        say_warn("node \"%s\": netmap: %s", c->node.name, err->warnings[i]);
    if (err->nwarnings > MAP_JSON_MAX_WARNINGS)
        say_warn("node \"%s\": netmap: more warnings: %u", c->node.name,
            err->nwarnings - MAP_JSON_MAX_WARNINGS);
}

static void
count_contested(struct control *c, size_t before)
{
    size_t now = map_state_counts(c->map).contested;

    if (now > before)
        say_warn("node \"%s\": peers that are not shown, as others have their "
                 "key or address: %zu",
            c->node.name, now);
}

/* A server tells a profile once in a stream, so it is kept when its last node
 * goes.  Were that too many? */
static bool
hoards(struct control *c)
{
    struct map_counts n = map_state_counts(c->map);
    size_t used = 2 * (n.peers + 1); /* at most: a user and a sharer each */

    if (c->users == SIZE_MAX)
        c->users = n.users;
    return n.users > (c->users > used ? c->users : used) + USERS_SPARE;
}

/* Over the same connection. */
static void
begin_anew(struct control *c, const char *why)
{
    say_info("node \"%s\": a new map stream begins: %s", c->node.name, why);
    poll_cancel(c);
    loop_timer_set(c->retry, 0);
}

/* Returns -1 when the stream is over with it. */
static int
message(struct control *c, const char *text, size_t len)
{
    size_t contested = map_state_counts(c->map).contested;
    char why[MAP_STATE_ERROR_MAX];
    struct map_json_error err;
    struct map_delta d;
    bool full = false, set;
    unsigned sleep;

    c->messages++;
    c->heard = loop_now();
    if (map_json_delta(text, len, map_state_derp(c->map), &d, &err) != 0) {
        session_failed(c, 0, "a message of the control server: %s", err.text);
        return -1;
    }
    say_warnings(c, &err);
    if (map_state_apply(c->map, &d, why) != 0) {
        map_delta_clear(&d);
        session_failed(c, 0, "a message of the control server: %s", why);
        return -1;
    }
    set = clock_was_set(c) && d.control_time == 0;
    if (set)
        c->skew = 0;
    take_time(c, d.control_time);
    show_url(c, d.pop_url);
    notice_take(
        &c->notices, &d, c->users == SIZE_MAX && !d.keepalive, c->node.name);
    take_lock(c, &d);
    if (d.has_plan)
        c->plan = d.plan;
    if (!d.keepalive || c->users != SIZE_MAX) /* not before a netmap */
        loop_timer_set(c->watchdog, c->heard + c->timing.watchdog);
    if (!d.keepalive) {
        count_contested(c, contested);
        loop_timer_set(c->yield, 0);
        full = hoards(c);
    }
    sleep = d.sleep;
    if (d.ping.url != NULL && d.ping.url[0] != '\0')
        pong_answer(c, &d.ping);
    map_delta_clear(&d);
    if (len >= LARGE)
        (void)malloc_trim(0);
    if (sleep > 0) {
        session_failed(
            c, sleep, "the control server asks for %u s of silence", sleep);
        return -1;
    }
    if ((full || set) && c->poll > 0)
        begin_anew(c, set ? "the clock was set, and the server knows the time"
                          : "of many users, who have no node any more, the "
                            "server told in the last one");
    return c->poll > 0 ? 0 : -1;
}

/* ---- netmaps ---- */

static int64_t
own_expiry(const struct netmap_node *self)
{
    return self->expired ? 1 : self->key_expiry;
}

/* The state that the node is put into. */
static void
tell_state(struct control *c, const struct netmap_node *self, int64_t now)
{
    int64_t end = own_expiry(self);

    if (c->poll <= 0)
        return; /* what came before its stream ended; that is the state */
    /* Headscale's nodes lose their approval with their key's end: no
     * administrator can give that back. */
    if (end != 0 && end <= now) {
        if (!c->login.active)
            session_set_state(c, CONTROL_EXPIRED,
                "the node's key has expired%s",
                c->renewal.tries > 0 ? " and is not renewed: see the error log"
                                     : "");
    } else if (!self->authorized) {
        session_set_state(c, CONTROL_WANTS_APPROVAL,
            "an administrator of the tailnet has to approve this node");
    } else if (!c->login.active || c->login.renewal) {
        if (c->login.url == NULL)
            session_set_state(c, CONTROL_RUNNING, "%s", "");
    }
}

void
poll_renew_later(struct control *c)
{
    loop_timer_set(
        c->expiry, renewal_wake(&c->renewal, session_wall(c), loop_now()));
}

static void
plan_renewal(struct control *c, const struct netmap_node *self, int64_t now)
{
    bool has_source = c->node.auth_key[0] != '\0';
    int64_t end = own_expiry(self);

    /* An administrator may be faster than a person at the login's URL. */
    if (c->login.active && c->login.renewal && !c->login.wanted &&
        (end == 0 || (end > now && !has_source)))
        login_end(c);
    renewal_set(&c->renewal, end, has_source, now);
    poll_renew_later(c);
}

static void
renew(void *arg)
{
    struct control *c = arg;

    if (c->login.active || c->stopped || c->leaving)
        return;
    if (!renewal_due(&c->renewal, session_wall(c), loop_now())) {
        poll_renew_later(c);
        return;
    }
    renewal_tried(&c->renewal, loop_now());
    login_renew(c);
    session_next(c);
}

/* Not when a netmap is told anew without a stream. */
static void
count_time(struct control *c)
{
    if (c->since == 0 && c->poll > 0)
        c->since = loop_now();
}

static void
take_self(struct control *c, struct netmap_node *self)
{
    int64_t now = session_wall(c), end = own_expiry(self);

    plan_renewal(c, self, now);
    tell_state(c, self, now);
    if (end != 0 && c->skew != 0) /* the engine compares with our clock */
        self->key_expiry = end - c->skew;
}

/* More than where peers are. */
static bool
is_more(const struct netmap_changes *c)
{
    return c->ngone + c->nadded + c->nusers > 0 || c->self != NULL || c->derp ||
           c->rules;
}

/* What the last messages changed, if it is in the netmap that was given. */
static bool
yield_changes(struct control *c, const struct map_settings *settings)
{
    struct netmap_changes changes;

    if (c->whole || c->state != CONTROL_RUNNING || c->skew != c->told_skew ||
        !map_state_update(c->map, settings, &changes))
        return false;
    count_time(c);
    if (!is_more(&changes) && changes.nrows == 0)
        return true;
    c->deltas++;
    if (is_more(&changes))
        cache_soon(c);
    else
        cache_later(c);
    if (changes.self != NULL)
        take_self(c, changes.self);
    c->ops->changes(c->arg, &changes);
    return true;
}

/* All there is; NULL: no memory. */
static struct netmap *
make_netmap(struct control *c, const struct map_settings *settings)
{
    struct netmap *nm = map_state_netmap(c->map, settings);

    if (nm != NULL && !nm->self.authorized) {
        /* Nobody may talk to it yet, whatever the server says. */
        netmap_drop_peers(nm);
        netmap_drop_rules(nm);
    }
    return nm;
}

static void
yield(void *arg)
{
    struct control *c = arg;
    struct map_settings settings = {
        .accept_routes = c->node.accept_routes, .exit_node = c->node.exit_node};
    struct netmap *nm;
    size_t size;

    if (yield_changes(c, &settings))
        return;
    nm = make_netmap(c, &settings);
    if (nm == NULL) {
        session_failed(c, 0, "out of memory for a netmap");
        return;
    }
    count_time(c);
    c->deltas++;
    cache_soon(c);
    take_self(c, &nm->self);
    c->whole = false;
    c->told_skew = c->skew;
    map_state_follow(c->map, nm->self.authorized ? nm : NULL);
    size = nm->npeers * sizeof(*nm->peers);
    c->ops->netmap(c->arg, nm, false);
    if (size >= LARGE)
        (void)malloc_trim(0);
}

void
poll_yield(struct control *c)
{
    c->whole = true;
    loop_timer_set(c->yield, 0);
}

int
poll_restore(struct control *c, const char *text, size_t len)
{
    struct map_settings settings = {
        .accept_routes = c->node.accept_routes, .exit_node = c->node.exit_node};
    char why[MAP_STATE_ERROR_MAX];
    struct map_json_error err;
    struct map_delta d;
    uint8_t public[32];
    int rc;

    if (map_json_delta(text, len, NULL, &d, &err) != 0)
        return -1;
    rc = map_state_apply(c->map, &d, why);
    map_delta_clear(&d);
    if (rc != 0)
        return -1;
    c->cached = make_netmap(c, &settings);
    noise_public_key(public, c->key);
    if (c->cached == NULL || !c->cached->self.has_key ||
        memcmp(c->cached->self.key, public, 32) != 0) {
        netmap_free(c->cached);
        c->cached = NULL;
        return -1;
    }
    return 0;
}

/* ---- lite updates ---- */

static void
lite_head(void *arg, const struct h2_answer *a)
{
    struct control *c = arg;

    c->lite_status = a->status;
    c->lite_retry = message_retry_after(a->retry_after, (int64_t)time(NULL));
}

static void
ignore(void *arg, const uint8_t *p, size_t len)
{
    (void)arg;
    (void)p;
    (void)len;
}

/* A status that only a register request gets over. */
static bool
unknown(unsigned status)
{
    return status == 400 || status == 401 || status == 403 || status == 404 ||
           status == 410;
}

static void
lite_done(void *arg, const char *why)
{
    struct control *c = arg;
    char status[32];
    bool failed;

    c->lite = 0;
    loop_timer_set(c->lite_timer, UINT64_MAX);
    if (why == NULL && unknown(c->lite_status)) {
        removed(c, "the control server does not know this node any more");
        return;
    }
    failed = why != NULL || c->lite_status != 200;
    snprintf(status, sizeof(status), "HTTP status %u", c->lite_status);
    if (failed && !c->lite_failed)
        say_warn("node \"%s\": the control server does not take where this "
                 "node is (%s): peers may not find it until it does",
            c->node.name, why != NULL ? why : status);
    c->lite_failed = failed;
    if (failed) {
        c->lite_wanted = true;
        loop_timer_set(c->lite_timer,
            loop_now() + (c->lite_retry > 0 ? (uint64_t)c->lite_retry * 1000
                                            : LITE_RETRY_MS));
    } else if (c->lite_wanted) {
        poll_lite(c);
    } else {
        loop_timer_set(c->lite_timer, loop_now() + LITE_AGAIN_MS);
    }
}

static const struct h2_ops lite_ops = {
    .head = lite_head, .data = ignore, .done = lite_done};

void
poll_lite(struct control *c)
{
    uint8_t public[32];
    struct message_self self;
    char *body;
    size_t len;

    c->lite_wanted = true;
    if (c->poll <= 0 || c->poll_status != 200 || c->lite > 0)
        return;
    self = session_self(c, c->key, public);
    body = message_map(&self, false, &len);
    if (body == NULL)
        return; /* the next change says it all */
    c->lite_wanted = false;
    c->lite_status = c->lite_retry = 0;
    c->lite = session_request(c, "POST", "/machine/map", body, len, &lite_ops);
    message_free(body, len);
    if (c->lite > 0)
        loop_timer_set(c->lite_timer, loop_now() + SESSION_REQUEST_MS);
}

static void
lite_due(void *arg)
{
    struct control *c = arg;

    session_cancel(c, &c->lite); /* it took too long, or is to be repeated */
    poll_lite(c);
}

/* ---- the stream ---- */

/* A new login, with the key that was known: the server may only have lost
 * its database. */
static void
removed(struct control *c, const char *words)
{
    poll_cancel(c);
    login_begin(c);
    session_failed(c, 0, "%s", words);
}

static void
head(void *arg, const struct h2_answer *a)
{
    struct control *c = arg;

    c->poll_status = a->status;
    c->poll_retry = message_retry_after(a->retry_after, (int64_t)time(NULL));
    poll_lite(c);
}

static void
data(void *arg, const uint8_t *p, size_t len)
{
    struct control *c = arg;
    const char *text;
    size_t used, n;
    int rc;

    if (c->poll_status != 200 && c->poll_words[0] == '\0')
        message_show(c->poll_words, (const char *)p, len);
    while (len > 0 && c->poll > 0 && c->poll_status == 200) {
        rc = map_frame_feed(c->frames, p, len, &used);
        if (rc < 0) {
            session_failed(c, 0, "a message of the control server: %s",
                map_frame_error(c->frames));
            return;
        }
        p += used;
        len -= used;
        if (rc == 0)
            continue;
        text = map_frame_text(c->frames, &n);
        c->wire += map_frame_wire(c->frames);
        c->text += n;
        if (message(c, text, n) != 0)
            return;
    }
}

static void
done(void *arg, const char *why)
{
    struct control *c = arg;
    unsigned status = c->poll_status, retry = c->poll_retry;
    char words[CONTROL_WORDS_MAX];

    c->poll = 0;
    poll_cancel(c);
    snprintf(words, sizeof(words),
        "the control server gives no netmap: HTTP status %u%s%.400s", status,
        c->poll_words[0] == '\0' ? "" : ": ", c->poll_words);
    if (status == 404 || status == 400)
        removed(c, "the control server does not know this node any more");
    else if (status == 429 || status == 503)
        session_failed(c, retry > 0 ? retry : SESSION_WAIT_S, "%s", words);
    else if (unknown(status))
        removed(c, words);
    else if (status != 200 && status != 0)
        session_failed(c, 0, "%s", words);
    else
        session_failed(c, 0, "control server %s: %s", c->url.host,
            why != NULL ? why : "it ended the map stream");
}

static const struct h2_ops ops = {.head = head, .data = data, .done = done};

static void
silent(void *arg)
{
    struct control *c = arg;

    session_failed(c, 0, "control server %s: %s came for %u s", c->url.host,
        c->users == SIZE_MAX ? "no netmap" : "nothing",
        c->timing.watchdog / 1000);
}

void
poll_begin(struct control *c)
{
    uint8_t public[32];
    struct message_self self;
    char *body;
    size_t len;

    if (c->poll > 0)
        return;
    poll_cancel(c);
    self = session_self(c, c->key, public);
    body = message_map(&self, true, &len);
    c->frames = map_frame_new(true);
    if (body == NULL || c->frames == NULL) {
        message_free(body, len);
        session_failed(c, 0, "out of memory");
        return;
    }
    map_state_begin(c->map);
    c->users = SIZE_MAX;
    c->poll_status = 0;
    c->poll_words[0] = '\0';
    c->since = 0;
    c->reconnects++;
    c->poll = session_request(c, "POST", "/machine/map", body, len, &ops);
    message_free(body, len);
    if (c->poll <= 0)
        return;
    loop_timer_set(c->watchdog, loop_now() + c->timing.watchdog);
}

void
poll_cancel(struct control *c)
{
    session_cancel(c, &c->poll);
    session_cancel(c, &c->lite);
    loop_timer_set(c->watchdog, UINT64_MAX);
    loop_timer_set(c->lite_timer, UINT64_MAX);
    map_frame_free(c->frames);
    c->frames = NULL;
}

int
poll_init(struct control *c)
{
    c->map = map_state_new();
    c->watchdog = loop_timer_new(silent, c);
    c->yield = loop_timer_new(yield, c);
    c->expiry = loop_timer_new(renew, c);
    c->lite_timer = loop_timer_new(lite_due, c);
    return c->map == NULL || c->watchdog == NULL || c->yield == NULL ||
                   c->expiry == NULL || c->lite_timer == NULL ||
                   cache_init(c) != 0
               ? -1
               : 0;
}

void
poll_free(struct control *c)
{
    map_frame_free(c->frames);
    netmap_free(c->cached);
    cache_free(c);
    map_state_free(c->map);
    notice_clear(&c->notices);
    free(c->pop_url);
    loop_timer_free(c->watchdog);
    loop_timer_free(c->yield);
    loop_timer_free(c->expiry);
    loop_timer_free(c->lite_timer);
}

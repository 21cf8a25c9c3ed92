/*
 * login.c: register requests.
 *
 * Theory of operation.  A login has a candidate node key and goes through ways,
 * each at most once: PLAIN (the key alone: it may be known), KEY (with the auth
 * key, asked for when it comes to that), FOLLOWUP (a person opens the server's
 * URL; the request waits).  A first join begins with KEY where there is one.
 * The candidate is saved before it is sent: a server that accepted it must not
 * meet another one after a power loss.
 */
#include "session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../crypto/noise.h"
#include "../engine/say.h"
#include "oauth.h"

#define BODY_MAX (1u << 20)
#define PAUSE_MS 5000   /* from a followup's end to the next */
#define OPEN_MS  600000 /* for the URL of a key that need not be renewed */

static void make_request(struct control *c);
static void ask_key(struct control *c);

static bool
has_source(const struct control *c)
{
    return c->node.auth_key[0] != '\0';
}

static void
forget_auth_key(struct login *l)
{
    if (l->auth_key != NULL)
        explicit_bzero(l->auth_key, strlen(l->auth_key));
    free(l->auth_key);
    l->auth_key = NULL;
}

static void
forget_answer(struct login *l)
{
    if (l->body != NULL)
        explicit_bzero(l->body, l->bodylen);
    free(l->body);
    l->body = NULL;
    l->bodylen = 0;
    l->status = 0;
    l->retry = 0;
}

void
login_cancel(struct control *c)
{
    session_cancel(c, &c->login.request);
    forget_answer(&c->login);
    loop_timer_set(c->login_timer, UINT64_MAX);
}

void
login_end(struct control *c)
{
    login_cancel(c);
    forget_auth_key(&c->login);
    oauth_free(c->login.oauth);
    free(c->login.url);
    noise_wipe(&c->login, sizeof(c->login));
}

/* ---- begin ---- */

static void
new_candidate(struct login *l)
{
    session_random(l->key, sizeof(l->key));
    noise_clamp(l->key);
}

void
login_begin(struct control *c)
{
    struct login *l = &c->login;

    login_end(c);
    l->active = true;
    if (c->has_key) {
        memcpy(l->key, c->key, sizeof(l->key));
        l->way = LOGIN_PLAIN;
        return;
    }
    new_candidate(l);
    memcpy(c->key, l->key, sizeof(c->key));
    c->has_key = true;
    session_save_keys(c);
    l->way = has_source(c) ? LOGIN_KEY : LOGIN_PLAIN;
}

void
login_renew(struct control *c)
{
    struct login *l = &c->login;

    login_end(c);
    l->active = true;
    l->renewal = true;
    new_candidate(l);
    noise_public_key(l->old, c->key);
    l->has_old = true;
    l->way = has_source(c) ? LOGIN_KEY : LOGIN_PLAIN;
}

void
login_next(struct control *c)
{
    struct login *l = &c->login;

    if (l->request > 0)
        return;
    if (l->way == LOGIN_KEY && l->auth_key == NULL)
        ask_key(c);
    else
        make_request(c);
}

/* ---- failures ---- */

/* Of a renewal: the stream goes on, and it is tried again after a delay that
 * grows, or ${retry} seconds.  Returns false: it is none. */
static bool
renewal_failed(struct control *c, unsigned retry, const char *why)
{
    uint64_t at = loop_now() + (uint64_t)retry * 1000;

    if (!c->login.renewal)
        return false;
    say_err("node \"%s\": its key is not renewed: %s", c->node.name, why);
    login_end(c);
    if (c->renewal.after < at)
        c->renewal.after = at;
    poll_renew_later(c);
    if (c->state == CONTROL_WANTS_LOGIN && map_state_ready(c->map))
        poll_yield(c); /* no person any more: what its state is then */
    return true;
}

/* The server cannot answer now. */
__attribute__((format(printf, 3, 4))) static void
put_off(struct control *c, unsigned retry, const char *fmt, ...)
{
    char why[CONTROL_WORDS_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    if (!renewal_failed(c, retry, why))
        session_failed(c, retry, "%s", why);
}

/* ---- the auth key ---- */

static void
ask_key(struct control *c)
{
    loop_timer_set(c->login_timer, loop_now() + SESSION_REQUEST_MS);
    if (c->login.asked)
        return;
    c->login.asked = true;
    if (!c->login.renewal)
        session_set_state(c, CONTROL_WANTS_KEY, "waiting for the auth key");
    c->ops->auth_key_wanted(c->arg);
}

void
login_key_failed(struct control *c, const char *why)
{
    struct login *l = &c->login;
    char words[CONTROL_WORDS_MAX];

    if (!l->active || !l->asked)
        return;
    l->asked = false;
    snprintf(
        words, sizeof(words), "no auth key: %.*s", CONTROL_WORDS_MAX - 20, why);
    if (!renewal_failed(c, 0, words))
        session_refused(c, "%s", words);
}

static void
use_key(struct control *c, const char *bytes, size_t len)
{
    struct login *l = &c->login;

    forget_auth_key(l);
    l->auth_key = strndup(bytes, len);
    if (l->auth_key == NULL) {
        login_key_failed(c, "out of memory");
        return;
    }
    l->asked = false;
    session_next(c);
}

static void
key_made(void *arg, const struct oauth_result *r)
{
    struct control *c = arg;
    struct login *l = &c->login;
    bool later = r->key == NULL && r->soon && !l->renewal;
    const char *kind = oauth_kind(l->oauth);

    oauth_free(l->oauth);
    l->oauth = NULL;
    if (r->key != NULL) {
        say_notice("node \"%s\": an auth key was made with its OAuth client "
                   "secret (%s)",
            c->node.name, kind);
        use_key(c, r->key, strlen(r->key));
    } else if (!later) {
        login_key_failed(c, r->why);
    }
    if (later) {
        l->asked = false; /* its source is read again then */
        session_failed(c, r->retry > 0 ? r->retry : OAUTH_RETRY_S,
            "no auth key: %s", r->why);
    }
}

/* The secret stays in the key's source: each login makes a key of its own. */
static void
make_key(struct control *c, const char *bytes, size_t len)
{
    char err[OAUTH_WORDS_MAX], *secret = strndup(bytes, len);
    struct login *l = &c->login;
    uint8_t public[32];
    struct message_self self = session_self(c, l->key, public);

    oauth_free(l->oauth);
    l->oauth = NULL;
    if (secret == NULL) {
        login_key_failed(c, "out of memory");
        return;
    }
    l->oauth = oauth_new(
        secret, self.tags, self.ntags, c->trust, key_made, c, err);
    explicit_bzero(secret, len);
    free(secret);
    if (l->oauth == NULL)
        login_key_failed(c, err);
    else if (!l->renewal)
        session_set_state(c, CONTROL_WANTS_KEY,
            "waiting for an auth key that is made with the OAuth client "
            "secret");
}

void
login_key(struct control *c, const char *bytes, size_t len)
{
    struct login *l = &c->login;
    size_t i;

    if (!l->active || !l->asked)
        return;
    while (len > 0 && strchr(" \t\r\n", bytes[len - 1]) != NULL)
        len--;
    while (len > 0 && strchr(" \t\r\n", *bytes) != NULL) {
        bytes++;
        len--;
    }
    for (i = 0; i < len && bytes[i] > ' ' && bytes[i] < 0x7f; i++)
        ;
    if (len == 0 || i < len || len > CONTROL_AUTH_KEY_MAX) {
        login_key_failed(c, len == 0 ? "its source is empty"
                                     : "its source holds no key: one line of "
                                       "printable characters expected");
        return;
    }
    if (message_oauth_is(bytes, len))
        make_key(c, bytes, len);
    else
        use_key(c, bytes, len);
}

/* ---- answers ---- */

/* The same way leads nowhere: is there another one? */
static bool
fall_to_key(struct control *c)
{
    struct login *l = &c->login;

    if (l->way != LOGIN_PLAIN || !has_source(c))
        return false;
    l->way = LOGIN_KEY;
    ask_key(c);
    return true;
}

static void
refused(struct control *c, const char *why)
{
    struct login *l = &c->login;
    char words[CONTROL_WORDS_MAX];

    if (fall_to_key(c))
        return;
    snprintf(words, sizeof(words), "the control server refuses this node: %.*s",
        CONTROL_WORDS_MAX - 50, why);
    if (renewal_failed(c, 0, words))
        return;
    if (l->way == LOGIN_FOLLOWUP) {
        free(l->url);
        l->url = NULL;
    }
    /* The next try begins anew, and reads the auth key again. */
    l->way = has_source(c) ? LOGIN_KEY : LOGIN_PLAIN;
    l->renewed = false;
    forget_auth_key(l);
    session_refused(c, "%s", words);
}

static void
wants_new_key(struct control *c)
{
    struct login *l = &c->login;

    if (l->renewed) {
        refused(c, "its new key has expired too");
        return;
    }
    l->renewed = true;
    noise_public_key(l->old, c->key);
    l->has_old = true;
    new_candidate(l);
    l->way = has_source(c) ? LOGIN_KEY : LOGIN_PLAIN;
    login_next(c);
}

static void
wants_person(struct control *c, const char *url)
{
    struct login *l = &c->login;
    bool waited = l->way == LOGIN_FOLLOWUP;

    if (fall_to_key(c))
        return;
    if (l->url == NULL || strcmp(l->url, url) != 0) {
        free(l->url);
        l->url = strdup(url);
        if (l->url == NULL) {
            session_failed(c, 0, "out of memory");
            return;
        }
        say_notice("node \"%s\": to log it in, open %s", c->node.name, url);
    }
    l->way = LOGIN_FOLLOWUP;
    if (waited) {
        loop_timer_set(c->login_timer, loop_now() + PAUSE_MS);
    } else {
        l->until = l->wanted ? loop_now() + OPEN_MS : UINT64_MAX;
        make_request(c);
    }
}

static void
logged_in(struct control *c, const struct message_registered *r)
{
    struct login *l = &c->login;
    bool changed = memcmp(c->key, l->key, sizeof(c->key)) != 0;
    bool renewal = l->renewal;

    memcpy(c->login_name, r->login, sizeof(c->login_name));
    memcpy(c->key, l->key, sizeof(c->key));
    c->has_key = true;
    c->refusals = 0;
    login_end(c);
    if (changed)
        session_save_keys(c);
    if (changed || !c->announced) {
        c->announced = true;
        c->ops->key(c->arg, c->key);
    }
    if (changed && renewal) {
        say_notice("node \"%s\": its key was renewed", c->node.name);
        poll_cancel(c); /* the stream is the old key's */
    }
    if (!r->authorized)
        session_set_state(c, CONTROL_WANTS_APPROVAL,
            "an administrator of the tailnet has to approve this node");
    session_next(c);
}

static void
judge(struct control *c)
{
    struct login *l = &c->login;
    struct message_registered r;
    char words[MESSAGE_SHOWN_MAX], err[MESSAGE_ERROR_MAX];

    if (l->status == 429 || l->status == 503) {
        put_off(c, l->retry > 0 ? l->retry : SESSION_WAIT_S,
            "the control server asks to wait (HTTP status %u)", l->status);
    } else if (l->status != 200) {
        message_show(words, l->body == NULL ? "" : l->body, l->bodylen);
        if (l->status >= 500)
            put_off(c, 0,
                "the control server cannot register this node: HTTP status %u"
                ": %s",
                l->status, words);
        else
            refused(c, words[0] != '\0' ? words : "HTTP status is not 200");
    } else if (message_registered(l->body, l->bodylen, &r, err) != 0) {
        put_off(c, 0, "the answer to register: %s", err);
    } else if (r.error[0] != '\0') {
        refused(c, r.error);
    } else if (r.locked) {
        refused(c, "the tailnet's lock wants a signature of this node's key, "
                   "which only an administrator can give");
    } else if (r.expired) {
        wants_new_key(c);
    } else if (r.url[0] != '\0') {
        wants_person(c, r.url);
    } else {
        logged_in(c, &r);
    }
}

/* ---- the request ---- */

static void
head(void *arg, const struct h2_answer *a)
{
    struct control *c = arg;

    c->login.status = a->status;
    c->login.retry = message_retry_after(a->retry_after, (int64_t)time(NULL));
}

static void
data(void *arg, const uint8_t *p, size_t len)
{
    struct login *l = &((struct control *)arg)->login;
    char *b;

    if (len > BODY_MAX - l->bodylen)
        return; /* what is cut cannot be read: that is the error then */
    b = realloc(l->body, l->bodylen + len + 1);
    if (b == NULL)
        return;
    memcpy(b + l->bodylen, p, len);
    l->body = b;
    l->bodylen += len;
}

static void
done(void *arg, const char *why)
{
    struct control *c = arg;

    c->login.request = 0;
    loop_timer_set(c->login_timer, UINT64_MAX);
    if (why != NULL)
        put_off(c, 0, "control server %s: %s", c->url.host, why);
    else
        judge(c);
}

static const struct h2_ops ops = {.head = head, .data = data, .done = done};

static void
make_request(struct control *c)
{
    struct login *l = &c->login;
    uint8_t public[32];
    struct message_self self = session_self(c, l->key, public);
    char *body;
    size_t len;

    forget_answer(l);
    self.old_key = l->has_old ? l->old : NULL;
    body = message_register(&self, l->way == LOGIN_KEY ? l->auth_key : NULL,
        l->way == LOGIN_FOLLOWUP ? l->url : NULL, false, &len);
    if (l->way == LOGIN_KEY)
        forget_auth_key(l);
    if (body == NULL) {
        session_failed(c, 0, "out of memory");
        return;
    }
    if (l->way == LOGIN_FOLLOWUP)
        session_set_state(c, CONTROL_WANTS_LOGIN,
            "a person has to log this node in: "
            "\"tailnetctl login %s\" shows where",
            c->node.name);
    else if (!l->renewal)
        session_set_state(c, CONTROL_CONNECTING, "registering");
    l->request = session_request(
        c, "POST", "/machine/register", body, len, &ops);
    message_free(body, len);
    if (l->request > 0)
        loop_timer_set(c->login_timer, l->way == LOGIN_FOLLOWUP
                                           ? l->until
                                           : loop_now() + SESSION_REQUEST_MS);
}

void
login_late(void *arg)
{
    struct control *c = arg;

    if (c->login.request > 0 && c->login.way == LOGIN_FOLLOWUP)
        put_off(c, 0, "nobody logged it in within %d min", OPEN_MS / 60000);
    else if (c->leaving || c->login.request > 0)
        put_off(c, 0, "control server %s: no answer to %s within %d s",
            c->url.host, c->leaving ? "a logout" : "register",
            SESSION_REQUEST_MS / 1000);
    else if (c->login.asked && c->login.oauth == NULL)
        login_key_failed(c, "nothing read its source: after a crash of "
                            "tailnetd that is so until nginx is reloaded");
    else
        session_next(c);
}

/* ---- logout ---- */

static void
left(struct control *c, const char *why)
{
    c->leave_request = 0;
    c->leaving = false;
    loop_timer_set(c->login_timer, UINT64_MAX);
    if (why != NULL)
        say_warn("node \"%s\": the control server may not know of the logout: "
                 "%s",
            c->node.name, why);
    noise_wipe(c->key, sizeof(c->key));
    c->has_key = c->announced = false;
    session_save_keys(c);
    if (c->rejoin) {
        session_set_state(c, CONTROL_STOPPED, "logged out");
        c->stopped = c->rejoin = false;
        login_begin(c);
    }
    session_next(c);
}

static void
leave_data(void *arg, const uint8_t *p, size_t len)
{
    (void)arg;
    (void)p;
    (void)len;
}

static void
leave_done(void *arg, const char *why)
{
    struct control *c = arg;
    unsigned status = c->login.status, retry = c->login.retry;
    char words[32];

    login_cancel(c);
    if (why == NULL && (status == 429 || status == 503)) {
        session_failed(c, retry > 0 ? retry : SESSION_WAIT_S,
            "the control server asks to wait (HTTP status %u)", status);
        return;
    }
    snprintf(words, sizeof(words), "HTTP status %u", status);
    left(c, why == NULL && status != 200 ? words : why);
}

static const struct h2_ops leave_ops = {
    .head = head, .data = leave_data, .done = leave_done};

void
login_leave(struct control *c)
{
    uint8_t public[32];
    struct message_self self;
    char *body;
    size_t len;

    if (c->leave_request > 0)
        return;
    if (!c->has_key) {
        left(c, NULL);
        return;
    }
    self = session_self(c, c->key, public);
    body = message_register(&self, NULL, NULL, true, &len);
    if (body == NULL) {
        left(c, "out of memory");
        return;
    }
    session_set_state(c, CONTROL_CONNECTING, "logging out");
    c->leave_request = session_request(
        c, "POST", "/machine/register", body, len, &leave_ops);
    message_free(body, len);
    if (c->leave_request > 0)
        loop_timer_set(c->login_timer, loop_now() + SESSION_REQUEST_MS);
}

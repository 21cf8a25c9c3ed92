/*
 * control.c: the life of a control, its settings and what it saves.
 *
 * The saved keys are text, a word and a value a line:
 *
 *   version 1
 *   url     the control server's, whose node this is
 *   machine privkey:HEX
 *   node    privkey:HEX     (not there after a logout)
 */
#include "control.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../crypto/noise.h"
#include "../engine/keytext.h"
#include "../engine/say.h"
#include "session.h"

static const char *const state_names[] = {
    [CONTROL_STOPPED] = "stopped",
    [CONTROL_CONNECTING] = "connecting",
    [CONTROL_WANTS_KEY] = "wants-auth-key",
    [CONTROL_WANTS_LOGIN] = "wants-login",
    [CONTROL_WANTS_APPROVAL] = "wants-approval",
    [CONTROL_REFUSED] = "refused",
    [CONTROL_RUNNING] = "running",
    [CONTROL_EXPIRED] = "expired",
    [CONTROL_WAITING] = "waiting",
};

/* ---- keys ---- */

static size_t
put_key(char *p, const char *name, const uint8_t key[32])
{
    size_t n = (size_t)sprintf(p, "%s privkey:", name);

    for (int i = 0; i < 32; i++)
        n += (size_t)sprintf(p + n, "%02x", key[i]);
    p[n++] = '\n';
    return n;
}

void
session_save_keys(struct control *c)
{
    char text[TN_NODE_URL_MAX + 512];
    size_t n = (size_t)sprintf(
        text, "version 1\nurl %s\n", tn_node_control_url(&c->node));

    n += put_key(text + n, "machine", c->machine);
    if (c->has_key)
        n += put_key(text + n, "node", c->key);
    c->ops->save_keys(c->arg, text, n);
    explicit_bzero(text, sizeof(text));
}

struct saved {
    bool version, machine, node, here;
};

static int
take_line(struct control *c, struct saved *s, const char *line, size_t len)
{
    const char *url = tn_node_control_url(&c->node);

    if (len == 9 && memcmp(line, "version 1", 9) == 0)
        s->version = true;
    else if (len > 4 && memcmp(line, "url ", 4) == 0)
        s->here = strlen(url) == len - 4 && memcmp(line + 4, url, len - 4) == 0;
    else if (len > 8 && memcmp(line, "machine ", 8) == 0)
        s->machine = keytext_prefixed(
                         c->machine, "privkey:", line + 8, len - 8) == 0;
    else if (len > 5 && memcmp(line, "node ", 5) == 0)
        s->node = keytext_prefixed(c->key, "privkey:", line + 5, len - 5) == 0;
    else
        return -1;
    return 0;
}

static int
read_keys(struct control *c, const char *text, size_t len)
{
    struct saved s = {0};
    const char *end;

    while (len > 0) {
        end = memchr(text, '\n', len);
        if (end == NULL || take_line(c, &s, text, (size_t)(end - text)) != 0)
            return -1;
        len -= (size_t)(end + 1 - text);
        text = end + 1;
    }
    if (!s.version || !s.machine)
        return -1;
    if (s.node && !s.here) {
        say_notice("node \"%s\": its saved key is of another control server: "
                   "it joins anew",
            c->node.name);
        noise_wipe(c->key, sizeof(c->key));
    }
    c->has_key = s.node && s.here;
    return 0;
}

/* ---- what was left to the loop ---- */

static void
begin(void *arg)
{
    struct control *c = arg;
    struct netmap *nm = c->cached;

    if (nm != NULL) {
        c->cached = NULL;
        c->announced = true;
        c->ops->key(c->arg, c->key);
        c->ops->netmap(c->arg, nm, true);
    }
    if (c->channel != NULL)
        channel_flush(c->channel);
}

static void
go_on(void *arg)
{
    session_next(arg);
}

/* ---- life ---- */

static int
set_up(struct control *c, const struct control_config *config,
    char err[CONTROL_WORDS_MAX])
{
    snprintf(err, CONTROL_WORDS_MAX, "out of memory");
    c->retry = loop_timer_new(go_on, c);
    c->begin = loop_timer_new(begin, c);
    c->login_timer = loop_timer_new(login_late, c);
    if (c->retry == NULL || c->begin == NULL || c->login_timer == NULL ||
        poll_init(c) != 0)
        return -1;
    if (url_parse(&c->url, tn_node_control_url(&c->node)) != 0) {
        snprintf(err, CONTROL_WORDS_MAX, "control_url %s is not a URL",
            tn_node_control_url(&c->node));
        return -1;
    }
    if (config->keys == NULL) {
        session_random(c->machine, sizeof(c->machine));
        noise_clamp(c->machine);
    } else if (read_keys(c, config->keys, config->keys_len) != 0) {
        snprintf(err, CONTROL_WORDS_MAX,
            "the saved keys of this node are damaged: remove the file to join "
            "the tailnet anew");
        return -1;
    }
    if (c->has_key && config->netmap != NULL &&
        poll_restore(c, config->netmap, config->netmap_len) != 0)
        say_notice("node \"%s\": its saved netmap is of no use", c->node.name);
    return 0;
}

struct control *
control_new(const struct control_config *config, const struct control_ops *ops,
    void *arg, char err[CONTROL_WORDS_MAX])
{
    struct control *c = calloc(1, sizeof(*c));

    if (c == NULL) {
        snprintf(err, CONTROL_WORDS_MAX, "out of memory");
        return NULL;
    }
    c->ops = ops;
    c->arg = arg;
    c->node = *config->node;
    c->trust = config->trust;
    c->timing = config->timing;
    c->state = CONTROL_CONNECTING;
    snprintf(c->words, sizeof(c->words), "dialling");
    session_random(c->disco, sizeof(c->disco));
    if (set_up(c, config, err) != 0) {
        control_free(c);
        return NULL;
    }
    login_begin(c);
    loop_timer_set(c->begin, 0);
    loop_timer_set(c->retry, 0);
    return c;
}

void
control_free(struct control *c)
{
    if (c == NULL)
        return;
    if (c->login_timer != NULL)
        login_end(c);
    pong_cancel(c);
    channel_free(c->channel);
    poll_free(c);
    loop_timer_free(c->retry);
    loop_timer_free(c->begin);
    loop_timer_free(c->login_timer);
    noise_wipe(c, sizeof(*c));
    free(c);
}

bool
control_set_node(struct control *c, const struct tn_node *node)
{
    bool same_server = strcmp(tn_node_control_url(&c->node),
                           tn_node_control_url(node)) == 0 &&
                       strcmp(c->node.state, node->state) == 0 &&
                       c->node.capability == node->capability;
    bool routes = c->node.accept_routes != node->accept_routes ||
                  strcmp(c->node.exit_node, node->exit_node) != 0;
    bool self = strcmp(tn_node_hostname(&c->node), tn_node_hostname(node)) !=
                    0 ||
                strcmp(c->node.tags, node->tags) != 0 ||
                strcmp(c->node.routes, node->routes) != 0;
    bool source = strcmp(c->node.auth_key, node->auth_key) != 0;
    bool wanted = c->login.wanted;

    if (!same_server)
        return false;
    c->node = *node;
    if (routes && map_state_ready(c->map))
        poll_yield(c);
    if (self)
        poll_lite(c);
    if (source && c->login.url != NULL) { /* no person is needed, maybe */
        (c->login.renewal ? login_renew : login_begin)(c);
        c->login.wanted = wanted;
        loop_timer_set(c->retry, 0);
    }
    if (c->state == CONTROL_REFUSED && !c->stopped)
        control_login(c); /* another auth key, maybe */
    return true;
}

/* ---- settings ---- */

void
control_set_endpoints(
    struct control *c, const struct message_endpoint *e, size_t n)
{
    n = n < MESSAGE_ENDPOINTS ? n : MESSAGE_ENDPOINTS;
    if (n == c->nendpoints &&
        (n == 0 || memcmp(e, c->endpoints, n * sizeof(*e)) == 0))
        return;
    if (n > 0)
        memcpy(c->endpoints, e, n * sizeof(*e));
    c->nendpoints = n;
    poll_lite(c);
}

void
control_set_netinfo(struct control *c, const struct message_netinfo *n)
{
    struct message_netinfo before = c->net, now = *n;

    before.nlatency = now.nlatency = 0; /* latency alone is no news */
    memset(before.latency, 0, sizeof(before.latency));
    memset(now.latency, 0, sizeof(now.latency));
    c->net = *n;
    if (c->has_net && memcmp(&before, &now, sizeof(now)) == 0)
        return;
    c->has_net = true;
    poll_lite(c);
}

void
control_set_disco(struct control *c, const uint8_t disco[32])
{
    if (memcmp(c->disco, disco, sizeof(c->disco)) == 0)
        return;
    memcpy(c->disco, disco, sizeof(c->disco));
    poll_lite(c);
}

void
control_save(struct control *c)
{
    session_save_keys(c);
    if (map_state_ready(c->map))
        cache_again(c);
}

/* ---- the auth key ---- */

void
control_auth_key(struct control *c, const char *bytes, size_t len)
{
    login_key(c, bytes, len);
}

void
control_auth_key_failed(struct control *c, const char *why)
{
    login_key_failed(c, why);
}

/* ---- what people ask for ---- */

void
control_logout(struct control *c)
{
    c->rejoin = false;
    if (c->stopped)
        return;
    c->stopped = true;
    c->leaving = true;
    login_end(c);
    poll_cancel(c);
    loop_timer_set(c->expiry, UINT64_MAX);
    loop_timer_set(c->yield, UINT64_MAX);
    cache_drop(c);
    notice_clear(&c->notices);
    loop_timer_set(c->retry, 0);
}

void
control_login(struct control *c)
{
    if (c->leaving) {
        /* Whether the server knows already: it is the same in the end. */
        c->rejoin = true;
    } else if (c->stopped) {
        c->stopped = false;
        login_begin(c);
    } else if ((c->state == CONTROL_EXPIRED || c->renewal.tries > 0) &&
               !c->login.active) {
        login_renew(c);
    }
    c->failures = c->refusals = 0;
    loop_timer_set(c->retry, 0);
}

void
control_rotate(struct control *c)
{
    if (c->stopped || c->login.active || !c->has_key)
        return;
    login_renew(c);
    c->login.wanted = true;
    loop_timer_set(c->retry, 0);
}

void
control_network_changed(struct control *c)
{
    if (c->stopped && !c->leaving)
        return;
    login_cancel(c);
    poll_cancel(c);
    pong_cancel(c);
    c->leave_request = 0;
    channel_free(c->channel);
    c->channel = NULL;
    c->up = false;
    c->failures = 0;
    loop_timer_set(c->retry, 0);
}

struct control_status
control_status(struct control *c)
{
    return (struct control_status){
        .state = c->state,
        .state_name = state_names[c->state],
        .words = c->words,
        .auth_url = c->login.active && c->login.url != NULL ? c->login.url : "",
        .login = c->login_name,
        .url = tn_node_control_url(&c->node),
        .heard = c->heard,
        .reconnects = c->reconnects,
        .messages = c->messages,
        .wire = c->wire,
        .text = c->text,
        .deltas = c->deltas,
        .contested = map_state_counts(c->map).contested,
        .notices = &c->notices,
    };
}

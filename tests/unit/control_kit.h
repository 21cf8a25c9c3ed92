/*
 * control_kit.h: a control whose channel, HTTP, clocks and server are the
 * test's.  Included once per program.
 */
#ifndef CONTROL_KIT_H
#define CONTROL_KIT_H

#include "fake_loop.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include <jansson.h>
#include <zstd.h>

#include "../../ngx_tailnet_module/tailnetd/control/channel.h"
#include "../../ngx_tailnet_module/tailnetd/control/control.h"
#include "../../ngx_tailnet_module/tailnetd/control/fetch.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "../../ngx_tailnet_module/tailnetd/engine/say.h"

#define WALL   1800000000
#define MINUTE 60000u
#define HOUR   (60 * MINUTE)

enum what { LOGIN, LOGOUT, STREAM, LITE, KINDS };

/* ---- the world ---- */

struct call {
    int32_t id; /* 0: free */
    const struct h2_ops *ops;
    void *arg;
    enum what what;
    char key[80]; /* whose request it is */
};

struct h2 {
    struct call calls[H2_CALLS_MAX];
};

struct channel {
    const struct channel_ops *ops;
    void *arg;
    bool up;
    struct h2 h2;
};

static struct {
    struct control *control;
    struct channel *channel;
    int32_t last_id;
    unsigned made[KINDS]; /* requests */
    char last_key[KINDS][80];
    int64_t ahead; /* seconds that the wall clock was set forth */
    uint8_t key[32];
    struct netmap *nm;
    char saved[CONTROL_STATE_MAX];
    bool stopped;    /* it was, once */
    bool with_key;   /* the last register request had an auth key */
    unsigned wanted; /* auth keys */
    unsigned netmaps, changes, warned, pings;
} world;

static bool silent;       /* nobody opens the auth key's source */
static uint32_t watchdog; /* 0: none */

time_t __wrap_time(time_t *t);

time_t
__wrap_time(time_t *t)
{
    assert_null(t);
    return (time_t)(WALL + world.ahead + (int64_t)loop.now / 1000);
}

void
say(int level, const char *fmt, ...)
{
    (void)fmt;
    world.warned += level == 4;
}

struct channel *
channel_new(
    const struct channel_config *c, const struct channel_ops *ops, void *arg)
{
    (void)c;
    assert_null(world.channel);
    world.channel = calloc(1, sizeof(*world.channel));
    assert_non_null(world.channel);
    world.channel->ops = ops;
    world.channel->arg = arg;
    return world.channel;
}

void
channel_free(struct channel *c)
{
    if (c != NULL)
        world.channel = NULL;
    free(c);
}

struct h2 *
channel_h2(struct channel *c)
{
    return c->up ? &c->h2 : NULL;
}

void
channel_flush(struct channel *c)
{
    (void)c;
}

static enum what
kind_of(const char *path, const json_t *body)
{
    if (strcmp(path, "/machine/register") == 0)
        return json_object_get(body, "Expiry") == NULL ? LOGIN : LOGOUT;
    assert_string_equal(path, "/machine/map");
    return json_is_true(json_object_get(body, "Stream")) ? STREAM : LITE;
}

int32_t
h2_request(struct h2 *h, const char *method, const char *path, const char *lb,
    const void *body, size_t len, const struct h2_ops *ops, void *arg)
{
    json_t *root = json_loadb(body, len, 0, NULL);
    struct call *c = h->calls;

    (void)lb;
    assert_string_equal(method, "POST");
    assert_non_null(root);
    while (c->id != 0)
        assert_true(++c < h->calls + H2_CALLS_MAX);
    *c = (struct call){.id = ++world.last_id,
        .ops = ops,
        .arg = arg,
        .what = kind_of(path, root)};
    snprintf(c->key, sizeof(c->key), "%s",
        json_string_value(json_object_get(root, "NodeKey")));
    world.made[c->what]++;
    strcpy(world.last_key[c->what], c->key);
    if (c->what == LOGIN)
        world.with_key = json_object_get(root, "Auth") != NULL;
    json_decref(root);
    return c->id;
}

void
h2_cancel(struct h2 *h, int32_t id)
{
    for (size_t i = 0; i < H2_CALLS_MAX; i++)
        if (h->calls[i].id == id)
            h->calls[i].id = 0;
}

bool
h2_going_away(const struct h2 *h)
{
    (void)h;
    return false;
}

struct fetch *
fetch_new(const struct fetch_request *r,
    void (*done)(void *arg, const struct http1 *answer, const char *why),
    void *arg)
{
    (void)r;
    (void)done;
    (void)arg;
    fail(); /* none is needed */
    return NULL;
}

void
fetch_free(struct fetch *f)
{
    assert_null(f);
}

/* ---- the node ---- */

static void
on_key(void *arg, const uint8_t key[32])
{
    (void)arg;
    memcpy(world.key, key, 32);
}

static void
on_netmap(void *arg, struct netmap *nm, bool cached)
{
    (void)arg;
    (void)cached;
    netmap_free(world.nm);
    world.nm = nm;
    world.netmaps++;
}

static void
on_changes(void *arg, const struct netmap_changes *c)
{
    (void)arg;
    (void)c;
    world.changes++;
}

static void
on_state(void *arg)
{
    (void)arg;
    if (control_status(world.control).state == CONTROL_STOPPED)
        world.stopped = true;
}

static void
on_save_keys(void *arg, const void *bytes, size_t len)
{
    (void)arg;
    assert_true(len < sizeof(world.saved));
    memcpy(world.saved, bytes, len);
    world.saved[len] = '\0';
}

static void
on_save_netmap(void *arg, int fd)
{
    (void)arg;
    assert_true(fd >= 0);
}

static void
on_auth_key_wanted(void *arg)
{
    (void)arg;
    world.wanted++;
    if (!silent)
        control_auth_key(world.control, "tskey-auth-1", 12);
}

static void
on_ping(void *arg, uint32_t id, enum ping_kind kind, const struct tn_addr *to)
{
    (void)arg;
    (void)id;
    (void)kind;
    (void)to;
    world.pings++;
}

static const struct control_ops ops = {.key = on_key,
    .netmap = on_netmap,
    .changes = on_changes,
    .state = on_state,
    .save_keys = on_save_keys,
    .save_netmap = on_save_netmap,
    .auth_key_wanted = on_auth_key_wanted,
    .ping = on_ping};

/* ---- the server ---- */

static struct call *
find(enum what what)
{
    struct channel *c = world.channel;

    for (size_t i = 0; c != NULL && i < H2_CALLS_MAX; i++)
        if (c->h2.calls[i].id != 0 && c->h2.calls[i].what == what)
            return &c->h2.calls[i];
    return NULL;
}

/* The whole answer to a request that has to be there. */
static void
answer_later(
    enum what what, unsigned status, const char *retry, const char *text)
{
    struct h2_answer a = {.status = status};
    struct call *c = find(what), was;

    assert_non_null(c);
    strcpy(a.retry_after, retry);
    was = *c;
    c->id = 0;
    was.ops->head(was.arg, &a);
    was.ops->data(was.arg, (const uint8_t *)text, strlen(text));
    was.ops->done(was.arg, NULL);
    sleep_ms(0);
}

static void
answer(enum what what, unsigned status, const char *text)
{
    answer_later(what, status, "", text);
}

static void
connect(void)
{
    static const uint8_t server[32] = {7};

    assert_non_null(world.channel);
    assert_false(world.channel->up);
    world.channel->ops->key(world.channel->arg, server);
    world.channel->up = true;
    world.channel->ops->up(world.channel->arg);
    sleep_ms(0);
}

/* A message of the map stream. */
static void
bring(const char *text)
{
    struct call *c = find(STREAM);
    size_t size = ZSTD_compressBound(strlen(text)), n;
    uint8_t *wire = malloc(4 + size);

    assert_non_null(c);
    assert_non_null(wire);
    n = ZSTD_compress(wire + 4, size, text, strlen(text), 1);
    assert_false(ZSTD_isError(n));
    for (int i = 0; i < 4; i++)
        wire[i] = (uint8_t)(n >> 8 * i);
    c->ops->data(c->arg, wire, 4 + n);
    free(wire);
    sleep_ms(0);
}

/* A stream's first one: this node, of user 5, and its key's end. */
static void
bring_map(const char *expiry)
{
    struct call *c = find(STREAM);
    char text[1024];

    assert_non_null(c);
    snprintf(text, sizeof(text),
        "{\"Node\":{\"ID\":1,\"Key\":\"%s\",\"Addresses\":[\"100.64.0.1/32\"],"
        "\"User\":5,\"MachineAuthorized\":true,\"KeyExpiry\":\"%s\"},"
        "\"Peers\":[],\"UserProfiles\":[{\"ID\":5,\"LoginName\":\"a@b\"}]}",
        c->key, expiry);
    bring(text);
}

#define YES "{\"MachineAuthorized\":true,\"Login\":{\"LoginName\":\"a@b\"}}"

/* The server takes the stream, and says nothing in it yet. */
static void
take_stream(void)
{
    struct h2_answer ok = {.status = 200};
    struct call *c = find(STREAM);

    assert_non_null(c);
    c->ops->head(c->arg, &ok);
}

/* From a register request that is there to a node that runs. */
static inline void
let_in(const char *expiry)
{
    answer(LOGIN, 200, YES);
    take_stream();
    bring_map(expiry);
    assert_int_equal(control_status(world.control).state, CONTROL_RUNNING);
}

static int
begin(const char *auth_key)
{
    struct tn_node options = {.name = "n", .mtu = TN_MTU_DEFAULT};
    struct control_config config = {.node = &options,
        .timing = {.watchdog = watchdog != 0 ? watchdog : 1000 * HOUR,
            .backoff = 30000}};
    char err[CONTROL_WORDS_MAX];

    memset(&world, 0, sizeof(world));
    loop.now = 1000;
    strcpy(options.control_url, "http://127.0.0.1:8080");
    strcpy(options.auth_key, auth_key);
    world.control = control_new(&config, &ops, NULL, err);
    assert_non_null(world.control);
    sleep_ms(0);
    connect();
    return 0;
}

static inline int
begin_with_key(void **state)
{
    (void)state;
    return begin("file:/key");
}

static inline int
begin_without(void **state)
{
    (void)state;
    return begin("");
}

static int
end(void **state)
{
    (void)state;
    silent = false;
    watchdog = 0;
    control_free(world.control);
    netmap_free(world.nm);
    assert_null(world.channel);
    fake_loop_end();
    return 0;
}

#define NEVER "0001-01-01T00:00:00Z"

#endif

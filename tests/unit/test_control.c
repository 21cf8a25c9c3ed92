/* links: tailnetd/control/control.c tailnetd/control/session.c */
/* links: tailnetd/control/login.c tailnetd/control/poll.c */
/* links: tailnetd/control/cache.c */
/* links: tailnetd/control/renewal.c tailnetd/control/pong.c */
/* links: tailnetd/control/message_pong.c tailnetd/control/oauth.c */
/* links: tailnetd/control/message.c tailnetd/control/message_oauth.c */
/* links: tailnetd/control/url.c tailnetd/control/map_frame.c */
/* links: tailnetd/control/map_state.c tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json_delta.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_node.c tailnetd/control/map_json_rule.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_value.c */
/* links: tailnetd/control/map_json_claim.c tailnetd/control/map_json_derp.c */
/* links: tailnetd/control/map_json_write.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/keytext.c tailnetd/engine/span.c */
/* links: tailnetd/crypto/noise.c tailnetd/base64.c */
/* links: core/tn_addr.c core/tn_node.c */
/* libs: -ljansson -lzstd -lsodium -lcrypto -Wl,--wrap=time */
/*
 * test_control.c: what a control asks its server for, and when: the server is
 * told where we are again and again, users without nodes and an expiry far away
 * are not forgotten too soon or late, and of a logout and a login the later one
 * counts.  Channel, HTTP and the clocks are the test's.
 */
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
    bool stopped; /* it was, once */
} world;

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
    (void)level;
    (void)fmt;
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
}

static void
on_changes(void *arg, const struct netmap_changes *c)
{
    (void)arg;
    (void)c;
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
    control_auth_key(world.control, "tskey-auth-1", 12);
}

static void
on_ping(void *arg, uint32_t id, enum ping_kind kind, const struct tn_addr *to)
{
    (void)arg;
    (void)id;
    (void)kind;
    (void)to;
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
answer(enum what what, unsigned status, const char *text)
{
    struct h2_answer a = {.status = status};
    struct call *c = find(what), was;

    assert_non_null(c);
    was = *c;
    c->id = 0;
    was.ops->head(was.arg, &a);
    was.ops->data(was.arg, (const uint8_t *)text, strlen(text));
    was.ops->done(was.arg, NULL);
    sleep_ms(0);
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

/* From a register request that is there to a node that runs. */
static void
let_in(const char *expiry)
{
    struct h2_answer ok = {.status = 200};
    struct call *c;

    answer(LOGIN, 200, YES);
    c = find(STREAM);
    assert_non_null(c);
    c->ops->head(c->arg, &ok);
    bring_map(expiry);
    assert_int_equal(control_status(world.control).state, CONTROL_RUNNING);
}

static int
begin(const char *auth_key)
{
    struct tn_node options = {.name = "n", .mtu = TN_MTU_DEFAULT};
    struct control_config config = {.node = &options,
        .timing = {.watchdog = 1000 * HOUR, .backoff = 30000}};
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

static int
begin_with_key(void **state)
{
    (void)state;
    return begin("file:/key");
}

static int
begin_without(void **state)
{
    (void)state;
    return begin("");
}

static int
end(void **state)
{
    (void)state;
    control_free(world.control);
    netmap_free(world.nm);
    assert_null(world.channel);
    fake_loop_end();
    return 0;
}

#define NEVER "0001-01-01T00:00:00Z"

/* ---- lite updates ---- */

/* The values of before are told each five minutes, which is how a node hears
 * from some servers that it was removed. */
static void
lite_again(void **state)
{
    unsigned i;

    (void)state;
    let_in(NEVER);
    assert_int_equal(world.made[LITE], 1);
    answer(LITE, 200, "");
    for (i = 2; i < 5; i++) {
        sleep_ms(5 * MINUTE - 1);
        assert_int_equal(world.made[LITE], i - 1);
        sleep_ms(1);
        assert_int_equal(world.made[LITE], i);
        answer(LITE, 200, "");
    }
    sleep_ms(5 * MINUTE);
    answer(LITE, 404, "");
    assert_int_equal(control_status(world.control).state, CONTROL_WAITING);
    sleep_ms(MINUTE);
    connect();
    assert_int_equal(world.made[LOGIN], 2);
    assert_string_equal(world.last_key[LOGIN], world.last_key[STREAM]);
}

/* One that fails is tried again soon, one without an answer after a minute. */
static void
lite_fails(void **state)
{
    (void)state;
    let_in(NEVER);
    answer(LITE, 500, "");
    sleep_ms(4999);
    assert_int_equal(world.made[LITE], 1);
    sleep_ms(1);
    assert_int_equal(world.made[LITE], 2);
    sleep_ms(MINUTE);
    assert_int_equal(world.made[LITE], 3);
    answer(LITE, 200, "");
    sleep_ms(5 * MINUTE - 1);
    assert_int_equal(world.made[LITE], 3);
    sleep_ms(1);
    assert_int_equal(world.made[LITE], 4);
}

/* ---- users ---- */

/* Profiles of ${n} users from ${from} on, who have no nodes. */
static void
bring_users(unsigned from, unsigned n)
{
    char *text = malloc(64 * (n + 1)), *at = text;

    assert_non_null(text);
    at += sprintf(at, "{\"UserProfiles\":[");
    for (unsigned i = from; i < from + n; i++)
        at += sprintf(at, "%s{\"ID\":%u,\"LoginName\":\"u%u\"}",
            i == from ? "" : ",", i, i);
    strcpy(at, "]}");
    bring(text);
    free(text);
}

/* Those whose nodes went stay while there are not too many of them: the server
 * tells a profile once.  Then a new stream begins and forgets them. */
static void
users_without_nodes(void **state)
{
    struct h2_answer ok = {.status = 200};
    struct call *c;

    (void)state;
    let_in(NEVER);
    answer(LITE, 200, "");
    bring_users(1000, 4000);
    assert_int_equal(world.nm->nusers, 4001);
    assert_non_null(netmap_user(world.nm, 1234));
    assert_int_equal(world.made[STREAM], 1);
    bring_users(5000, 97);
    assert_int_equal(world.made[STREAM], 1);
    bring_users(6000, 1);
    assert_int_equal(world.made[STREAM], 2);
    assert_int_equal(control_status(world.control).state, CONTROL_RUNNING);
    assert_int_equal(world.nm->nusers, 4099); /* nothing is lost meanwhile */
    c = find(STREAM);
    c->ops->head(c->arg, &ok);
    assert_int_equal(world.made[LITE], 2);
    bring_map(NEVER);
    assert_int_equal(world.nm->nusers, 1);
    assert_non_null(netmap_user(world.nm, 5));
    bring_users(1000, 10);
    assert_int_equal(world.nm->nusers, 11);
    assert_int_equal(world.made[STREAM], 2);
    assert_int_equal(world.made[LOGIN], 1);
}

/* ---- expiry ---- */

/* An end that is further away than the timer goes. */
static void
expiry_far_away(void **state)
{
    (void)state;
    /* 3 h 10 min from WALL */
    let_in("2027-01-15T11:10:00Z");
    answer(LITE, 200, "");
    sleep_ms(3 * HOUR + 9 * MINUTE);
    assert_int_equal(world.made[LOGIN], 1);
    sleep_ms(2 * MINUTE);
    assert_int_equal(world.made[LOGIN], 2);
    assert_string_not_equal(world.last_key[LOGIN], world.last_key[STREAM]);
}

/* A clock that is set forth beyond the end is noticed within the hour. */
static void
expiry_clock_is_set(void **state)
{
    (void)state;
    let_in("2027-01-15T11:10:00Z");
    answer(LITE, 200, "");
    sleep_ms(10 * MINUTE);
    world.ahead = 5 * HOUR / 1000;
    sleep_ms(49 * MINUTE);
    assert_int_equal(world.made[LOGIN], 1);
    sleep_ms(MINUTE);
    assert_int_equal(world.made[LOGIN], 2);
}

/* ---- logout and login ---- */

static char before[80]; /* the key that was logged out */

/* The login that was asked for: with a key of its own. */
static void
is_in_anew(void)
{
    assert_string_equal(world.last_key[LOGOUT], before);
    assert_int_equal(world.made[LOGIN], 2);
    assert_string_not_equal(world.last_key[LOGIN], before);
    let_in(NEVER);
    assert_string_not_equal(world.last_key[STREAM], before);
    assert_non_null(strstr(world.saved, "\nnode privkey:"));
    sleep_ms(HOUR);
    assert_int_equal(control_status(world.control).state, CONTROL_RUNNING);
    assert_int_equal(world.made[LOGIN], 2);
}

static void
leave(void)
{
    let_in(NEVER);
    answer(LITE, 200, "");
    strcpy(before, world.last_key[STREAM]);
    control_logout(world.control);
}

static void
logout(void **state)
{
    (void)state;
    leave();
    sleep_ms(0);
    assert_string_equal(world.last_key[LOGOUT], before);
    answer(LOGOUT, 200, YES);
    assert_int_equal(control_status(world.control).state, CONTROL_STOPPED);
    assert_null(strstr(world.saved, "\nnode privkey:"));
    assert_null(world.channel);
    sleep_ms(HOUR);
    assert_int_equal(world.made[LOGIN], 1);
    control_login(world.control);
    sleep_ms(0);
    connect();
    is_in_anew();
}

/* Before the loop has made the request, and while it is under way. */
static void
login_at_once(void **state)
{
    (void)state;
    leave();
    control_login(world.control);
    sleep_ms(0);
    control_login(world.control);
    sleep_ms(0);
    assert_int_equal(world.made[LOGOUT], 1);
    assert_int_equal(world.made[LOGIN], 1);
    answer(LOGOUT, 200, YES);
    assert_true(world.stopped);
    is_in_anew();
    assert_int_equal(world.made[LOGOUT], 1);
}

static void
login_while_leaving(void **state)
{
    (void)state;
    leave();
    sleep_ms(0);
    control_login(world.control);
    sleep_ms(0);
    answer(LOGOUT, 500, "no");
    is_in_anew();
}

/* The server is away, or wants to be left alone for a while. */
static void
login_without_server(void **state)
{
    (void)state;
    leave();
    sleep_ms(0);
    answer(LOGOUT, 503, "");
    assert_int_equal(control_status(world.control).state, CONTROL_WAITING);
    control_login(world.control);
    sleep_ms(0);
    world.channel->ops->down(world.channel->arg, "it broke", true);
    sleep_ms(MINUTE);
    connect();
    assert_int_equal(world.made[LOGOUT], 2);
    control_network_changed(world.control);
    sleep_ms(0);
    connect();
    assert_int_equal(world.made[LOGOUT], 3);
    /* And the connection is silent. */
    sleep_ms(MINUTE);
    assert_int_equal(control_status(world.control).state, CONTROL_WAITING);
    sleep_ms(MINUTE);
    connect();
    assert_int_equal(world.made[LOGOUT], 4);
    answer(LOGOUT, 200, YES);
    is_in_anew();
}

/* Of many, the last one counts. */
static void
logout_counts(void **state)
{
    (void)state;
    leave();
    control_login(world.control);
    sleep_ms(0);
    control_logout(world.control);
    sleep_ms(0);
    answer(LOGOUT, 200, YES);
    assert_int_equal(control_status(world.control).state, CONTROL_STOPPED);
    sleep_ms(HOUR);
    assert_int_equal(world.made[LOGIN], 1);
    assert_null(strstr(world.saved, "\nnode privkey:"));
}

int
main(void)
{
#define ROW(f, how) cmocka_unit_test_setup_teardown(f, how, end)
    const struct CMUnitTest tests[] = {
        ROW(lite_again, begin_with_key),
        ROW(lite_fails, begin_with_key),
        ROW(users_without_nodes, begin_with_key),
        ROW(expiry_far_away, begin_without),
        ROW(expiry_clock_is_set, begin_without),
        ROW(logout, begin_with_key),
        ROW(login_at_once, begin_with_key),
        ROW(login_while_leaving, begin_with_key),
        ROW(login_without_server, begin_with_key),
        ROW(logout_counts, begin_with_key),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (noise_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

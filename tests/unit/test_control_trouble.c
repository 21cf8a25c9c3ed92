/* links: tailnetd/control/control.c tailnetd/control/session.c */
/* links: tailnetd/control/login.c tailnetd/control/poll.c */
/* links: tailnetd/control/cache.c tailnetd/control/notice.c */
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
 * test_control_trouble.c: what a control makes of servers that are not well:
 * no answer of one, or none, makes it hurry, or wait for good.
 */
#include "../../ngx_tailnet_module/tailnetd/control/notice.h"
#include "control_kit.h"

static int
begin_silent(void **state)
{
    silent = true;
    return begin_with_key(state);
}

static int
begin_watched(void **state)
{
    watchdog = 120000;
    return begin_with_key(state);
}

/* ---- servers that are not well ---- */

static void
state_is(enum control_state s)
{
    assert_int_equal(control_status(world.control).state, s);
}

/* The stream ends, and the next one has its first message. */
static void
end_stream(void)
{
    struct call *c = find(STREAM), was;

    assert_non_null(c);
    was = *c;
    c->id = 0;
    was.ops->done(was.arg, NULL);
    sleep_ms(0);
    state_is(CONTROL_WAITING);
}

/* One that ends each stream after its netmap is not dialled for ever as fast
 * as that goes; one whose stream lasted a while is, once. */
static void
stream_ends(void **state)
{
    uint64_t from;

    (void)state;
    let_in(NEVER);
    for (from = loop.now; loop.now - from < 10000;) {
        end_stream();
        while (world.channel == NULL)
            sleep_ms(1);
        connect();
        take_stream();
        bring_map(NEVER);
        state_is(CONTROL_RUNNING);
    }
    assert_in_range(world.made[STREAM], 8, 40);
    sleep_ms(MINUTE);
    end_stream();
    sleep_ms(20);
    connect();
    assert_int_equal(world.made[LOGIN], 1);
}

/* A stream that has keepalives and no netmap. */
static void
no_netmap(void **state)
{
    (void)state;
    answer(LOGIN, 200, YES);
    take_stream();
    sleep_ms(MINUTE);
    bring("{\"KeepAlive\":true}");
    sleep_ms(MINUTE - 1);
    assert_non_null(world.channel);
    sleep_ms(1);
    state_is(CONTROL_WAITING);
    assert_non_null(
        strstr(control_status(world.control).words, "no netmap came"));
    sleep_ms(1000);
    connect();
    take_stream();
    bring_map(NEVER);
    for (unsigned i = 0; i < 5; i++) {
        sleep_ms(MINUTE);
        bring("{\"KeepAlive\":true}");
    }
    state_is(CONTROL_RUNNING);
}

/* A stream that is refused: only a register request can tell what it is about;
 * but who asks us to wait is waited for. */
static void
stream_refused(void **state)
{
    (void)state;
    answer(LOGIN, 200, YES);
    answer(STREAM, 403, "not you\n");
    state_is(CONTROL_WAITING);
    assert_non_null(strstr(control_status(world.control).words, "not you"));
    sleep_ms(100);
    connect();
    assert_int_equal(world.made[LOGIN], 2);
    answer(LOGIN, 200, YES);
    answer_later(STREAM, 429, "7200", "");
    sleep_ms(4999);
    assert_null(world.channel);
    sleep_ms(1);
    connect();
    assert_int_equal(world.made[LOGIN], 2);
    assert_int_equal(world.made[STREAM], 3);
}

/* One that wants to be left alone, and says so together with a netmap. */
static void
silence(void **state)
{
    (void)state;
    let_in(NEVER);
    bring("{\"Domain\":\"other.test\",\"Debug\":{\"SleepSeconds\":60}}");
    assert_int_equal(world.netmaps, 2);
    state_is(CONTROL_WAITING);
    sleep_ms(MINUTE - 1);
    assert_null(world.channel);
    sleep_ms(1);
    connect();
    take_stream();
    bring_map(NEVER);
    state_is(CONTROL_RUNNING);
}

/* A clock that was wrong by a month is set right, with which the key has not
 * expired: the server is asked for the time. */
static void
clock_is_set(void **state)
{
    static const char now[] = "{\"ControlTime\":\"2027-01-15T08:00:01Z\"}";
    int64_t end = WALL + 10 * 86400;

    (void)state;
    world.ahead = -30 * 86400;
    let_in("2027-01-25T08:00:00Z");
    bring(now);
    assert_int_equal(world.nm->self.key_expiry, end - 30 * 86400);
    sleep_ms(MINUTE);
    bring("{\"KeepAlive\":true}");
    assert_int_equal(world.made[STREAM], 1);
    world.ahead = 0;
    sleep_ms(MINUTE);
    bring("{\"KeepAlive\":true}");
    assert_int_equal(world.made[STREAM], 2);
    take_stream();
    bring_map("2027-01-25T08:00:00Z");
    state_is(CONTROL_RUNNING);
    assert_int_equal(world.nm->self.key_expiry, end);
    sleep_ms(2 * HOUR);
    assert_int_equal(world.made[LOGIN], 1);
    assert_int_equal(world.made[STREAM], 2);
}

/* What a server says again and again is in the log once, and it has its pings
 * once, however often its request names them. */
static void
words(void **state)
{
    static const char same[] =
        "{\"Health\":[\"bad\",\"worse\"],\"Domain\":\"a.test\"}";

    (void)state;
    let_in(NEVER);
    world.warned = 0;
    bring(same);
    bring(same);
    assert_int_equal(world.warned, 2);
    bring("{\"Health\":[]}");
    bring(same);
    assert_int_equal(world.warned, 4);
    bring(
        "{\"PingRequest\":{\"URL\":\"https://c.test/1\",\"Types\":\"disco,TSMP,"
        "disco,disco,TSMP\",\"IP\":\"100.64.0.7\"}}");
    assert_int_equal(world.pings, 2);
}

/* Of what it has to say there is too much, in every stream; it is kept from one
 * to the next, and goes with the tailnet. */
static void
many_words(void **state)
{
    const struct notices *s;
    char text[2048] = "{\"Health\":[";

    (void)state;
    for (unsigned i = 0; i < 2 * NOTICE_MAX; i++)
        sprintf(text + strlen(text), "%s\"%u\"", i == 0 ? "" : ",", i);
    strcat(text, "]}");
    let_in(NEVER);
    world.warned = 0;
    bring(text);
    state_is(CONTROL_RUNNING);
    s = control_status(world.control).notices;
    assert_int_equal(s->n, NOTICE_MAX);
    assert_int_equal(world.warned, NOTICE_MAX + 1);
    end_stream();
    sleep_ms(100);
    connect();
    take_stream();
    bring("{\"KeepAlive\":true}");
    assert_int_equal(s->n, NOTICE_MAX);
    bring_map(NEVER);
    assert_int_equal(s->n, 0);
    bring(text);
    control_logout(world.control);
    assert_int_equal(s->n, 0);
}

/* An approval that is withdrawn, and given again. */
static void
approval(void **state)
{
    static const char *const words[] = {"false", "true"};
    char text[256];

    (void)state;
    let_in(NEVER);
    bring(
        "{\"PeersChanged\":[{\"ID\":7,\"Addresses\":[\"100.64.0.7/32\"],"
        "\"Key\":\"nodekey:0000000000000000000000000000000000000000000000000000"
        "000000000005\"}]}");
    for (unsigned i = 0; i < 2; i++) {
        snprintf(text, sizeof(text),
            "{\"Node\":{\"ID\":1,\"Key\":\"%s\",\"Addresses\":[\"100.64.0.1/"
            "32\"],\"User\":5,\"MachineAuthorized\":%s}}",
            find(STREAM)->key, words[i]);
        bring(text);
        state_is(i == 0 ? CONTROL_WANTS_APPROVAL : CONTROL_RUNNING);
        assert_int_equal(world.nm->npeers, i);
    }
}

/* Of a clock that is wrong by much, a second more or less is no news. */
static void
clocks_differ(void **state)
{
    (void)state;
    world.ahead = -3600;
    let_in("2027-02-15T08:00:00Z");
    for (unsigned i = 0; i < 9; i++) {
        char text[512];

        snprintf(text, sizeof(text),
            "{\"ControlTime\":\"2027-01-15T08:0%u:0%uZ\",\"PeersChanged\":[{"
            "\"ID\":7,\"Key\":\"nodekey:%064d\",\"Addresses\":[\"100.64.0.%u/"
            "32\"]}]}",
            i + 1, i % 2, 5, i + 7);
        sleep_ms(MINUTE);
        bring(text);
    }
    assert_int_equal(world.netmaps, 2);
    assert_int_equal(world.changes, 8);
}

/* Each is news for the log once; and some say that the node is not known. */
static void
lite_refused(void **state)
{
    (void)state;
    let_in(NEVER);
    world.warned = 0;
    for (unsigned i = 1; i < 4; i++) {
        answer(LITE, 500, "");
        sleep_ms(5000);
        assert_int_equal(world.made[LITE], i + 1);
        assert_int_equal(world.warned, 1);
    }
    answer(LITE, 403, "");
    state_is(CONTROL_WAITING);
    sleep_ms(1000);
    connect();
    assert_int_equal(world.made[LOGIN], 2);
}

static void
lite_waits(void **state)
{
    (void)state;
    let_in(NEVER);
    answer_later(LITE, 429, "60", "");
    sleep_ms(MINUTE - 1);
    assert_int_equal(world.made[LITE], 1);
    sleep_ms(1);
    assert_int_equal(world.made[LITE], 2);
}

/* The stream outlives whatever becomes of a renewal. */
static void
renewal_fails(void **state)
{
    (void)state;
    /* 5 min from WALL; it begins a minute before. */
    let_in("2027-01-15T08:05:00Z");
    answer(LITE, 200, "");
    sleep_ms(4 * MINUTE - 1000);
    assert_int_equal(world.made[LOGIN], 2);
    answer(LOGIN, 500, "no");
    sleep_ms(9000);
    assert_int_equal(world.made[LOGIN], 2);
    sleep_ms(1000);
    assert_int_equal(world.made[LOGIN], 3);
    answer_later(LOGIN, 429, "300", "");
    sleep_ms(5 * MINUTE - 1000);
    assert_int_equal(world.made[LOGIN], 3);
    sleep_ms(1000);
    assert_int_equal(world.made[LOGIN], 4);
    answer(LOGIN, 200, "?");
    sleep_ms(40000);
    assert_int_equal(world.made[LOGIN], 5);
    sleep_ms(MINUTE); /* and no answer */
    assert_null(find(LOGIN));
    sleep_ms(20000);
    assert_int_equal(world.made[LOGIN], 6);
    assert_int_equal(world.made[STREAM], 1);
    answer(LOGIN, 200, YES);
    assert_int_equal(world.made[STREAM], 2);
    assert_string_equal(world.last_key[STREAM], world.last_key[LOGIN]);
}

#define URL(n) "{\"AuthURL\":\"https://control.test/a/" n "\"}"

/* A server that answers who waits for a person at once, with the same URL or
 * another one each time. */
static void
url_changes(void **state)
{
    static const char *const urls[] = {URL("2"), URL("2"), URL("3")};

    (void)state;
    answer(LOGIN, 200, URL("1"));
    assert_int_equal(world.made[LOGIN], 2);
    for (unsigned i = 0; i < 3; i++) {
        answer(LOGIN, 200, urls[i]);
        state_is(CONTROL_WANTS_LOGIN);
        assert_non_null(world.channel);
        sleep_ms(4999);
        assert_int_equal(world.made[LOGIN], 2 + i);
        sleep_ms(1);
        assert_int_equal(world.made[LOGIN], 3 + i);
    }
    assert_string_equal(
        control_status(world.control).auth_url, "https://control.test/a/3");
    /* A broken connection is what it waits for only until it is there again. */
    world.channel->ops->down(world.channel->arg, "it broke", false);
    state_is(CONTROL_WAITING);
    sleep_ms(1000);
    connect();
    state_is(CONTROL_WANTS_LOGIN);
    sleep_ms(HOUR);
    assert_int_equal(world.made[LOGIN], 6);
    let_in(NEVER);
}

/* Who asks where to log in ends the pause before the next request, but not the
 * wait. */
static void
url_asked_for(void **state)
{
    (void)state;
    answer(LOGIN, 200, URL("1"));
    answer(LOGIN, 200, URL("1"));
    sleep_ms(1000);
    control_login(world.control);
    sleep_ms(0);
    assert_int_equal(world.made[LOGIN], 3);
    sleep_ms(HOUR);
    state_is(CONTROL_WANTS_LOGIN);
    assert_int_equal(world.made[LOGIN], 3);
    let_in(NEVER);
}

/* A node whose key has expired, and the login that it waited for is refused. */
static void
renewal_refused(void **state)
{
    (void)state;
    let_in("2027-01-15T08:05:00Z");
    answer(LITE, 200, "");
    sleep_ms(5 * MINUTE - 1000);
    answer(LOGIN, 200, URL("1"));
    state_is(CONTROL_WANTS_LOGIN);
    answer(LOGIN, 401, "too late");
    state_is(CONTROL_EXPIRED);
    assert_int_equal(world.made[STREAM], 1);
    sleep_ms(10000);
    answer(LOGIN, 200, URL("2"));
    state_is(CONTROL_WANTS_LOGIN);
}

/* An auth key that is configured while a person is waited for. */
static void
key_instead_of_person(void **state)
{
    struct tn_node options = {.name = "n", .mtu = TN_MTU_DEFAULT};

    (void)state;
    answer(LOGIN, 200, URL("1"));
    state_is(CONTROL_WANTS_LOGIN);
    strcpy(options.control_url, "http://127.0.0.1:8080");
    strcpy(options.auth_key, "file:/key");
    assert_true(control_set_node(world.control, &options));
    sleep_ms(0);
    assert_int_equal(world.made[LOGIN], 3);
    answer(LOGIN, 200, URL("2")); /* the node key alone is not enough */
    assert_true(world.with_key);
    let_in(NEVER);
}

/* Who is to open the auth key's source does not answer. */
static void
nobody_has_key(void **state)
{
    (void)state;
    state_is(CONTROL_WANTS_KEY);
    assert_int_equal(world.wanted, 1);
    sleep_ms(MINUTE);
    state_is(CONTROL_REFUSED);
    sleep_ms(90000);
    connect();
    assert_int_equal(world.wanted, 2);
    silent = false;
    control_auth_key(world.control, "tskey-auth-1", 12);
    sleep_ms(0);
    let_in("2027-01-15T08:05:00Z");
    silent = true;
    sleep_ms(2 * MINUTE);
    assert_int_equal(world.wanted, 3);
    assert_int_equal(world.made[LOGIN], 1);
    sleep_ms(3 * MINUTE);
    assert_in_range(world.wanted, 4, 6);
    assert_int_equal(world.made[STREAM], 1);
}

/* What a person asked for is not dropped because the key is good. */
static void
rotation_goes_on(void **state)
{
    (void)state;
    let_in(NEVER);
    silent = true;
    control_rotate(world.control);
    sleep_ms(0);
    assert_int_equal(world.wanted, 2);
    bring("{\"Domain\":\"other.test\"}"); /* a netmap */
    control_auth_key(world.control, "tskey-auth-1", 12);
    sleep_ms(0);
    assert_int_equal(world.made[LOGIN], 2);
    answer(LOGIN, 200, YES);
    assert_int_equal(world.made[STREAM], 2);
}

/* ... nor because an auth key is configured meanwhile. */
static void
rotation_by_key(void **state)
{
    struct tn_node options = {.name = "n", .mtu = TN_MTU_DEFAULT};

    (void)state;
    let_in(NEVER);
    control_rotate(world.control);
    sleep_ms(0);
    answer(LOGIN, 200, URL("1"));
    strcpy(options.control_url, "http://127.0.0.1:8080");
    strcpy(options.auth_key, "file:/key");
    silent = true;
    assert_true(control_set_node(world.control, &options));
    sleep_ms(0);
    assert_int_equal(world.wanted, 1);
    bring("{\"Domain\":\"other.test\"}");
    control_auth_key(world.control, "tskey-auth-1", 12);
    sleep_ms(0);
    assert_true(world.with_key);
    answer(LOGIN, 200, YES);
    assert_int_equal(world.made[STREAM], 2);
}

/* ... nor while its URL is open, but nobody has to come for it. */
static void
rotation_by_person(void **state)
{
    (void)state;
    let_in(NEVER);
    answer(LITE, 200, "");
    control_rotate(world.control);
    sleep_ms(0);
    answer(LOGIN, 200, URL("1"));
    bring("{\"Domain\":\"other.test\"}");
    sleep_ms(10 * MINUTE - 1);
    state_is(CONTROL_WANTS_LOGIN);
    assert_non_null(find(LOGIN));
    sleep_ms(1);
    state_is(CONTROL_RUNNING);
    assert_null(find(LOGIN));
    assert_int_equal(world.made[STREAM], 1);
}

/* The same with a server that lets nobody wait for long. */
static void
rotation_by_nobody(void **state)
{
    (void)state;
    let_in(NEVER);
    answer(LITE, 200, "");
    control_rotate(world.control);
    sleep_ms(0);
    answer(LOGIN, 200, URL("1"));
    for (unsigned i = 0; i < 10; i++) {
        state_is(CONTROL_WANTS_LOGIN);
        sleep_ms(MINUTE - 5000);
        answer(LOGIN, 200, URL("1"));
        sleep_ms(5000);
    }
    state_is(CONTROL_RUNNING);
    assert_null(find(LOGIN));
    assert_int_equal(world.made[STREAM], 1);
}

/* A server for which a new key is expired too gets yet another one, later. */
static void
keys_expire(void **state)
{
    char key[80];

    (void)state;
    answer(LOGIN, 200, "{\"NodeKeyExpired\":true}");
    assert_int_equal(world.made[LOGIN], 2);
    answer(LOGIN, 200, "{\"NodeKeyExpired\":true}");
    state_is(CONTROL_REFUSED);
    strcpy(key, world.last_key[LOGIN]);
    sleep_ms(90000);
    connect();
    assert_string_equal(world.last_key[LOGIN], key);
    answer(LOGIN, 200, "{\"NodeKeyExpired\":true}");
    assert_string_not_equal(world.last_key[LOGIN], key);
    let_in(NEVER);
}

int
main(void)
{
#define ROW(f, how) cmocka_unit_test_setup_teardown(f, how, end)
    const struct CMUnitTest tests[] = {
        ROW(stream_ends, begin_with_key),
        ROW(no_netmap, begin_watched),
        ROW(stream_refused, begin_with_key),
        ROW(silence, begin_with_key),
        ROW(clocks_differ, begin_without),
        ROW(clock_is_set, begin_without),
        ROW(words, begin_with_key),
        ROW(many_words, begin_with_key),
        ROW(approval, begin_with_key),
        ROW(lite_refused, begin_with_key),
        ROW(lite_waits, begin_with_key),
        ROW(renewal_fails, begin_with_key),
        ROW(url_changes, begin_without),
        ROW(url_asked_for, begin_without),
        ROW(renewal_refused, begin_without),
        ROW(key_instead_of_person, begin_without),
        ROW(nobody_has_key, begin_silent),
        ROW(rotation_goes_on, begin_with_key),
        ROW(rotation_by_key, begin_without),
        ROW(rotation_by_person, begin_without),
        ROW(rotation_by_nobody, begin_without),
        ROW(keys_expire, begin_with_key),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (noise_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

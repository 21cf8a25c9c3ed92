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
 * test_control.c: what a control asks its server for, and when: the server is
 * told where we are again and again, users without nodes and an expiry far away
 * are not forgotten too soon or late, and of a logout and a login the later one
 * counts.
 */
#include "control_kit.h"

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
    take_stream();
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
    sleep_ms(MINUTE);
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

/* ---- the saved netmap ---- */

/* As the engine begins after its death, before the server has said anything. */
static void
begin_again(const char *approved)
{
    struct tn_node options = {.name = "n", .mtu = TN_MTU_DEFAULT};
    struct control_config config = {.node = &options};
    char keys[CONTROL_STATE_MAX], text[1024], err[CONTROL_WORDS_MAX];

    snprintf(text, sizeof(text),
        "{\"Node\":{\"ID\":1,\"Key\":\"%s\",\"Addresses\":"
        "[\"100.64.0.1/32\"],\"MachineAuthorized\":%s},\"Peers\":[{\"ID\":2,"
        "\"Key\":\"nodekey:%064x\",\"Addresses\":[\"100.64.0.2/32\"]}],"
        "\"PacketFilter\":[{\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"*\","
        "\"Ports\":{\"First\":1,\"Last\":9}}]}]}",
        world.last_key[STREAM], approved, 7);
    strcpy(keys, world.saved);
    control_free(world.control);
    strcpy(options.control_url, "http://127.0.0.1:8080");
    config.keys = keys;
    config.keys_len = strlen(keys);
    config.netmap = text;
    config.netmap_len = strlen(text);
    world.control = control_new(&config, &ops, NULL, err);
    assert_non_null(world.control);
    sleep_ms(0);
}

static void
saved_netmap(void **state)
{
    (void)state;
    let_in(NEVER);
    begin_again("true");
    assert_int_equal(world.nm->npeers, 1);
    assert_int_equal(world.nm->nrules, 1);
    begin_again("false"); /* the approval was withdrawn before */
    assert_false(world.nm->self.authorized);
    assert_int_equal(world.nm->npeers, 0);
    assert_int_equal(world.nm->nrules, 0);
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
        ROW(saved_netmap, begin_with_key),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (noise_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

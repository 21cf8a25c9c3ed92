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
 * test_control_random.c: whatever a server and people did to a control, it
 * comes to rest with a server that is well: it runs, or is logged out, makes no
 * more requests than it has to, and nothing of what was is still waited for.
 */
#include "control_kit.h"

#define STORMS 200
#define STEPS  60

static unsigned seed;
static bool out, taken; /* logged out; the server took the stream */
static int32_t stream;  /* that ${taken} is about */

static unsigned
roll(unsigned n)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % n;
}

/* ---- servers ---- */

#define URL(n) "{\"AuthURL\":\"https://control.test/a/" n "\"}"

static void
any_answer(enum what what)
{
    static const unsigned status[] = {
        200, 200, 200, 200, 401, 403, 404, 429, 500, 503};
    static const char *const texts[] = {YES, YES, URL("1"), URL("1"), URL("2"),
        "{\"NodeKeyExpired\":true}", "{\"Error\":\"no\"}", "?"};
    static const char *const retry[] = {"", "0", "7", "400"};

    if (find(what) != NULL)
        answer_later(what, status[roll(10)], retry[roll(4)], texts[roll(8)]);
}

static bool
has_taken(void)
{
    return taken && find(STREAM) != NULL && find(STREAM)->id == stream;
}

static void
take(void)
{
    taken = true;
    stream = find(STREAM)->id;
    take_stream();
    sleep_ms(0);
}

/* Of the node: approved or not, its key's end is near, far or over. */
static void
say_self(void)
{
    static const char *const ends[] = {NEVER, "2027-01-15T08:00:30Z",
        "2027-01-15T08:20:00Z", "2027-01-15T07:00:00Z"};
    char text[1024];

    snprintf(text, sizeof(text),
        "{\"Node\":{\"ID\":1,\"Key\":\"%s\",\"Addresses\":[\"100.64.0.1/32\"],"
        "\"User\":5,\"MachineAuthorized\":%s,\"KeyExpiry\":\"%s\"},\"Peers\":[{"
        "\"ID\":2,\"Key\":\"nodekey:%064x\",\"Addresses\":[\"100.64.0.2/32\"]"
        "}]}",
        find(STREAM)->key, roll(4) == 0 ? "false" : "true", ends[roll(4)], 7);
    bring(text);
}

static void
say_something(void)
{
    static const char *const texts[] = {"{\"KeepAlive\":true}",
        "{\"Domain\":\"a.test\"}", "{\"Domain\":\"b.test\"}",
        "{\"ControlTime\":\"2027-01-15T10:00:00Z\"}",
        "{\"Debug\":{\"SleepSeconds\":5}}", "{"};

    if (find(STREAM) == NULL)
        return;
    if (!has_taken() && roll(3) == 0)
        any_answer(STREAM);
    else if (!has_taken())
        take();
    else if (roll(2) == 0)
        say_self();
    else
        bring(texts[roll(6)]);
}

/* ---- people ---- */

static void
configure(void)
{
    struct tn_node options = {.name = "n", .mtu = TN_MTU_DEFAULT};

    strcpy(options.control_url, "http://127.0.0.1:8080");
    strcpy(options.auth_key, roll(2) == 0 ? "" : "file:/key");
    options.accept_routes = roll(2);
    assert_true(control_set_node(world.control, &options));
}

static void
people(void)
{
    switch (roll(12)) {
    case 0:
        control_logout(world.control);
        out = true;
        break;
    case 1:
    case 2:
        control_rotate(world.control);
        break;
    case 3:
        control_network_changed(world.control);
        break;
    case 4:
        control_auth_key_failed(world.control, "no");
        break;
    case 5:
        silent = !silent;
        break;
    case 6:
    case 7:
        configure();
        break;
    case 8:
        world.ahead = (int64_t)roll(600) - 300;
        break;
    default:
        control_login(world.control);
        out = false;
    }
}

static void
something(void)
{
    struct channel *c = world.channel;

    if (c != NULL && !c->up && roll(4) > 0) {
        connect();
        return;
    }
    switch (roll(8)) {
    case 0:
        if (c != NULL && roll(2) == 0)
            c->ops->down(c->arg, "it broke", !c->up);
        break;
    case 1:
        people();
        break;
    case 2:
        any_answer(LITE);
        any_answer(LOGOUT);
        break;
    case 3:
    case 4:
        any_answer(LOGIN);
        break;
    case 5:
        sleep_ms(roll(5) == 0 ? roll(10 * MINUTE) : roll(8000));
        break;
    default:
        say_something();
    }
    sleep_ms(0);
}

/* Nobody may talk to a node that is not approved. */
static void
check(void)
{
    if (world.nm != NULL && !world.nm->self.authorized)
        assert_int_equal(world.nm->npeers, 0);
}

/* ---- rest ---- */

/* Half a minute, and a server that takes all there is. */
static void
serve(void)
{
    sleep_ms(MINUTE / 2);
    if (world.channel != NULL && !world.channel->up)
        connect();
    if (find(LOGOUT) != NULL)
        answer(LOGOUT, 200, YES);
    if (find(LOGIN) != NULL)
        answer(LOGIN, 200, YES);
    if (find(LITE) != NULL)
        answer(LITE, 200, "");
    if (find(STREAM) == NULL)
        return;
    if (has_taken()) {
        bring("{\"KeepAlive\":true}");
        return;
    }
    take();
    bring_map(NEVER);
}

static unsigned
requests(void)
{
    return world.made[LOGIN] + world.made[STREAM] + world.made[LITE];
}

static void
rest(unsigned storm)
{
    enum control_state want = out ? CONTROL_STOPPED : CONTROL_RUNNING;
    unsigned made;

    silent = false;
    if (has_taken())
        bring_map(NEVER);
    for (unsigned i = 0; i < 120; i++)
        serve();
    made = requests();
    for (unsigned i = 0; i < 120; i++)
        serve();
    if (control_status(world.control).state != want)
        fail_msg("storm %u: %s, %s", storm,
            control_status(world.control).state_name,
            control_status(world.control).words);
    assert_in_range(requests() - made, 0, 14);
    if (out)
        return;
    assert_string_equal(find(STREAM)->key, world.last_key[STREAM]);
    made = world.made[LOGIN]; /* no login is under way */
    control_rotate(world.control);
    sleep_ms(0);
    assert_int_equal(world.made[LOGIN], made + 1);
}

static void
storms(void **state)
{
    for (unsigned i = 0; i < STORMS; i++) {
        seed = i;
        out = taken = false;
        watchdog = 2 * MINUTE;
        begin(i % 2 == 0 ? "" : "file:/key");
        for (unsigned k = 0; k < STEPS; k++) {
            something();
            check();
        }
        rest(i);
        end(state);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storms),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (noise_init() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

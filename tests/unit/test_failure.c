/* links: tailnetd/engine/failure.c tailnetd/engine/keytext.c core/tn_addr.c */
/* links: tailnetd/magic/tsmp.c */
/*
 * test_failure.c: lines about peers that do not get in, and how few they are.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/engine/node.h"
#include "../../ngx_tailnet_module/tailnetd/engine/say.h"
#include "../../ngx_tailnet_module/tailnetd/magic/tsmp.h"

#define START 5000

static char line[SAY_MAX];
static int level_said;
static bool own_key_expired;
static unsigned lines;

/* ---- fakes ---- */

void
say(int level, const char *fmt, ...)
{
    va_list ap;

    level_said = level;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    lines++;
}

static struct node n;
static struct node_peer alice;
static const uint8_t alice_key[32] = {1}, bob_key[32] = {2}, own_key[32] = {9};

struct wg_peer *
wg_peer_by_key(struct wg_device *d, const uint8_t key[32])
{
    (void)d;
    return memcmp(key, alice_key, 32) == 0 ? (struct wg_peer *)&alice : NULL;
}

void *
wg_peer_data(const struct wg_peer *p)
{
    return (void *)(uintptr_t)p;
}

void
wg_device_public_key(const struct wg_device *d, uint8_t key[32])
{
    (void)d;
    memcpy(key, own_key, 32);
}

bool
node_expired(const struct node *node)
{
    return node == &n && own_key_expired;
}

uint16_t
derp_region(const struct tn_endpoint *e)
{
    return e->addr.b[0] == 0xfe ? e->port : 0;
}

/* ---- a node with peer alice; bob's key has expired ---- */

static struct netmap_node rows[2];
static struct netmap map = {.peers = rows, .npeers = 2};
static int
setup(void **state)
{
    (void)state;
    memset(&n, 0, sizeof(n));
    snprintf(n.name, sizeof(n.name), "web");
    n.netmap = &map;
    rows[0].name = (char *)(uintptr_t) "alice.mesh";
    memcpy(rows[0].key, alice_key, 32);
    rows[0].naddresses = 1;
    rows[1].name = (char *)(uintptr_t) "bob.mesh";
    memcpy(rows[1].key, bob_key, 32);
    alice.self = &rows[0];
    lines = 0;
    return 0;
}

static struct tn_endpoint
at(const char *text)
{
    struct tn_endpoint e = {0};

    if (text[0] != '\0')
        assert_int_equal(tn_endpoint_parse(&e, text, strlen(text)), 0);
    return e;
}

static unsigned
tell(enum wg_failure why, const uint8_t *key, const char *where, uint64_t now)
{
    struct tn_endpoint e = at(where);

    lines = 0;
    failure_handshake(&n, why, key, &e, now);
    return lines;
}

static void
words(void **state)
{
    static const uint8_t stranger[32] = {0xab, [31] = 0xcd};
    static const struct {
        enum wg_failure why;
        const uint8_t *key;
        const char *where, *line;
    } table[] = {
        {WG_FAILURE_UNKNOWN, stranger, "192.0.2.7:41641",
            "node \"web\": a handshake from 192.0.2.7:41641 is refused: no "
            "peer in its netmap has the key nodekey:"
            "ab000000000000000000000000000000000000000000000000000000"
            "000000cd: if it is yours, put it there"},
        {WG_FAILURE_UNKNOWN, bob_key, "[2001:db8::1]:5",
            "node \"web\": a handshake of peer bob.mesh, at [2001:db8::1]:5, "
            "is refused: its key has expired: see its \"KeyExpiry\" and "
            "\"Expired\" in the netmap"},
        {WG_FAILURE_MAC1, NULL, "192.0.2.7:41641",
            "node \"web\": a handshake from 192.0.2.7:41641 is refused: it is "
            "for another public key than this node's, which is nodekey:"
            "09000000000000000000000000000000000000000000000000000000"
            "00000000: give the peer this one, if it is yours"},
        {WG_FAILURE_ANSWER, alice_key, "192.0.2.7:41641",
            "node \"web\": an answer of peer alice.mesh, at 192.0.2.7:41641, "
            "cannot be opened: its preshared key and that in "
            "\"preshared_keys\" are not the same"},
        {WG_FAILURE_UNUSED, alice_key, "192.0.2.7:41641",
            "node \"web\": peer alice.mesh, at 192.0.2.7:41641, does not use "
            "this node's answers: the preshared keys differ, or packets do "
            "not get back to it"},
        {WG_FAILURE_SILENCE, alice_key, "192.0.2.7:41641",
            "node \"web\": peer alice.mesh does not answer at "
            "192.0.2.7:41641: is it there, and do packets get through?"},
        {WG_FAILURE_SILENCE, alice_key, "[fe80::1]:3",
            "node \"web\": peer alice.mesh does not answer at relay region "
            "3: is it there, and do packets get through?"},
        {WG_FAILURE_SILENCE, alice_key, "",
            "node \"web\": peer alice.mesh cannot be reached: it did not "
            "call yet, and has no \"Endpoints\" in the netmap"},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        setup(state);
        assert_int_equal(
            tell(table[i].why, table[i].key, table[i].where, START), 1);
        assert_string_equal(line, table[i].line);
        assert_int_equal(level_said, 5);
    }
}

/* One about the same in FAILURE_AGAIN_MS, one in FAILURE_EVERY_MS at all. */
static void
few(void **state)
{
    uint8_t key[32] = {7};
    uint64_t now = START;
    unsigned told = 0, i;

    (void)state;
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now), 1);
    for (; now < START + FAILURE_AGAIN_MS; now += 5000)
        told += tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now);
    assert_int_equal(told, 0);
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.8:1", now), 1);
    assert_non_null(
        strstr(line, "put it there (not logged since the last such line: 60)"));
    assert_int_equal(failure_unsaid(&n.failure), 60);

    /* Another one has its own line, but not at once. */
    key[0] = 8;
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now + 1), 0);
    now += FAILURE_EVERY_MS;
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now), 1);
    assert_non_null(strstr(line, "such line: 1)"));

    /* As many keys as one likes: no more lines than that. */
    for (i = 100, told = 0; i < 60100; i++) {
        memcpy(key, &i, sizeof(i));
        told += tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", ++now);
    }
    assert_int_equal(told, 6);
}

/* A flood for another public key is known by its sender's address. */
static void
mac1(void **state)
{
    (void)state;
    assert_int_equal(tell(WG_FAILURE_MAC1, NULL, "192.0.2.7:1", START), 1);
    assert_int_equal(
        tell(WG_FAILURE_MAC1, NULL, "192.0.2.7:2", START + 50000), 0);
    assert_int_equal(
        tell(WG_FAILURE_MAC1, NULL, "192.0.2.8:1", START + 50001), 1);
}

/* A node that joined gets its netmap from a server, perhaps a moment late. */
static void
joined(void **state)
{
    uint8_t key[32] = {7};

    (void)state;
    n.magic = (struct magic *)&n;
    n.join = (struct join *)&n;
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", START), 0);
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1",
                         START + FAILURE_PATIENCE_MS),
        1);
    assert_non_null(strstr(line, "it is not in this tailnet, or the policy"));
    assert_int_equal(
        tell(WG_FAILURE_MAC1, NULL, "192.0.2.7:1", START + 50000), 0);
    assert_int_equal(
        tell(WG_FAILURE_UNUSED, alice_key, "192.0.2.7:1", START + 60000), 0);
    assert_int_equal(
        tell(WG_FAILURE_SILENCE, alice_key, "192.0.2.7:1", START + 70000), 0);
    assert_int_equal(
        tell(WG_FAILURE_SILENCE, alice_key, "192.0.2.7:1", START + 75000), 1);
}

/* More things go wrong than are known: some of them are spoken of all the same,
 * and the others are counted. */
static void
joined_many(void **state)
{
    uint64_t now, end = START + 120000;
    uint8_t key[32] = {[31] = 7};
    unsigned told = 0, all = 0;

    (void)state;
    n.magic = (struct magic *)&n;
    n.join = (struct join *)&n;
    for (now = START; now < end; now += 5000)
        for (key[0] = 0; key[0] < 2 * FAILURE_KEPT; key[0]++, all++)
            told += tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now);
    assert_in_range(told, 5, 120000 / FAILURE_EVERY_MS);
    assert_int_equal(failure_unsaid(&n.failure), all - told);

    /* Keys that never come again do not take the room for long. */
    for (key[1] = 1; key[1] < 100; key[1]++)
        (void)tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now);
    now += FAILURE_WAIT_MS;
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now), 0);
    now += FAILURE_PATIENCE_MS;
    assert_int_equal(tell(WG_FAILURE_UNKNOWN, key, "192.0.2.7:1", now), 1);
}

static void
refusals(void **state)
{
    struct tsmp t = {.type = TSMP_REJECT,
        .proto = 6,
        .reason = 'A',
        .dport = 80,
        .src = tn_addr_from4((const uint8_t[]){100, 64, 0, 2})};

    (void)state;
    failure_refusal(&n, &alice, &t, START);
    assert_int_equal(lines, 1);
    assert_string_equal(line,
        "node \"web\": peer alice.mesh (100.64.0.2) refuses a connection to "
        "its TCP port 80: its tailnet's policy does not allow it");
    failure_refusal(&n, &alice, &t, START + FAILURE_EVERY_MS);
    assert_int_equal(lines, 1);
    t.dport = 81;
    failure_refusal(&n, &alice, &t, START + FAILURE_EVERY_MS);
    assert_int_equal(lines, 2);
    /* Handshakes and refusals do not wait for each other. */
    assert_int_equal(
        tell(WG_FAILURE_MAC1, NULL, "192.0.2.7:1", START + FAILURE_EVERY_MS),
        1);
}

/* The node's own key: once each time that it expires. */
static void
self(void **state)
{
    (void)state;
    own_key_expired = false;
    failure_self(&n);
    assert_int_equal(lines, 0);
    for (unsigned i = 1; i <= 2; i++) {
        own_key_expired = true;
        n.error[0] = '\0'; /* another netmap, and no better */
        failure_self(&n);
        n.error[0] = '\0';
        failure_self(&n);
        assert_int_equal(lines, i);
        assert_int_equal(level_said, 3);
        assert_non_null(strstr(line, "\"web\": its own key has expired: "));
        assert_non_null(strstr(n.error, "its own key has expired: "));
        own_key_expired = false;
        failure_self(&n);
        assert_int_equal(lines, i);
    }
    n.join = (struct join *)&n; /* says so itself */
    n.error[0] = '\0';
    own_key_expired = true;
    failure_self(&n);
    assert_int_equal(lines, 2);
    assert_string_equal(n.error, "");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(words, setup),
        cmocka_unit_test_setup(few, setup),
        cmocka_unit_test_setup(mac1, setup),
        cmocka_unit_test_setup(joined, setup),
        cmocka_unit_test_setup(joined_many, setup),
        cmocka_unit_test_setup(refusals, setup),
        cmocka_unit_test_setup(self, setup),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

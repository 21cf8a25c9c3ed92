/* links: core/tn_addr.c tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* links: tailnetd/wg/allowedips.c tailnetd/wg/cookie.c tailnetd/wg/device.c */
/* links: tailnetd/wg/handshake.c tailnetd/wg/index.c tailnetd/wg/peer.c */
/* links: tailnetd/wg/receive.c tailnetd/wg/replay.c tailnetd/wg/send.c */
/* links: tailnetd/wg/timers.c */
/* libs: -lsodium -lcrypto */
/*
 * test_device_edge.c: what goes on around sessions: endpoints and roaming,
 * load and cookies, refused handshakes, timestamps, preshared keys, peers that
 * come and go, and very many of them.
 */
#include "wg_net.h"

#include <stdio.h>

#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "../../ngx_tailnet_module/tailnetd/wg/peer.h"
#include "../../ngx_tailnet_module/tailnetd/wg/state.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The last message of each type that node 0 sent. */
static struct net_datagram last[5];

static bool
capture(struct net *net, int from, const uint8_t *msg, size_t len)
{
    uint32_t type = msg_get32(msg);

    (void)net;
    if (from == 0) {
        memcpy(last[type].msg, msg, len);
        last[type].len = len;
    }
    return true;
}

static void
inject_last(struct net *net, uint32_t type)
{
    net_inject(net, 1, &net->node[0].self, last[type].msg, last[type].len);
}

static struct tn_endpoint
endpoint(uint8_t a, uint16_t port)
{
    struct tn_endpoint e = {
        tn_addr_from4((const uint8_t[]){192, 0, 2, a}), port};

    return e;
}

static bool
knows(struct net *net, int id, const struct tn_endpoint *e)
{
    struct tn_endpoint at = wg_peer_endpoint(net->node[id].peer);

    return at.port == e->port && tn_addr_equal(&at.addr, &e->addr);
}

/* Authentic messages move the endpoint, as far as roam() agrees. */
static void
test_roaming(void **state)
{
    struct net *net = net_new(NULL);
    struct tn_endpoint home = net->node[0].self, away = endpoint(9, 4000);
    struct tn_endpoint far = endpoint(10, 4000);
    unsigned calls;

    (void)state;
    net->filter = capture;
    net_connect(net);
    net_send(net, 0, 100, 1);
    net_pass(net, 5);

    /* Not authentic: a replay and a forgery from elsewhere. */
    calls = net->node[1].roam_calls;
    net_inject(net, 1, &far, last[4].msg, last[4].len);
    last[4].msg[20] ^= 1;
    net_inject(net, 1, &far, last[4].msg, last[4].len);
    net_inject(net, 1, &far, last[1].msg, last[1].len);
    assert_true(knows(net, 1, &home));
    assert_int_equal(net->node[1].roam_calls, calls);

    net->node[0].self = away;
    net_send(net, 0, 100, 2);
    net_pass(net, 5);
    assert_int_equal(net->node[1].roam_calls, calls + 1);
    assert_true(knows(net, 1, &away));
    net_send(net, 1, 100, 3);
    net_pass(net, 5);
    assert_int_equal(net->node[0].delivered, 1);

    net->node[1].refuse_roaming = true;
    net->node[0].self = far;
    net_send(net, 0, 100, 4);
    net_pass(net, 5);
    assert_int_equal(net->node[1].delivered, 3);
    assert_true(knows(net, 1, &away));

    /* A handshake moves it as well. */
    net->node[1].refuse_roaming = false;
    net_pass(net, 6000);
    wg_initiate(net->node[0].device, net->node[0].peer, net->now);
    net_pass(net, 5);
    assert_true(knows(net, 1, &far));
    net_free(net);
}

/* Without roam() every authentic message moves the endpoint. */
static void
test_roaming_default(void **state)
{
    struct net *net = net_new(NULL);
    struct wg_config c = net_config(&net->node[1], 0x50);
    struct tn_endpoint away = endpoint(9, 4000);

    (void)state;
    wg_device_free(net->node[1].device);
    c.ops.roam = NULL;
    net->node[1].device = wg_device_new(&c, net->now);
    net_introduce(net, 1);
    net_connect(net);
    net->node[0].self = away;
    net_send(net, 0, 100, 1);
    net_pass(net, 5);
    assert_true(knows(net, 1, &away));
    net_free(net);
}

/* A peer without an endpoint: output() is told so, with port 0. */
static unsigned homeless;

static void
lose(struct net_node *n, struct wg_peer *p, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len)
{
    (void)msg;
    (void)len;
    assert_ptr_equal(p, n->peer);
    if (dst->port == 0) {
        homeless++;
        wg_drop_no_endpoint(n->device);
    }
}

static void
test_no_endpoint(void **state)
{
    struct net *net = net_new(NULL);
    struct tn_endpoint nowhere = {{{0}}, 0};

    (void)state;
    wg_peer_set_endpoint(net->node[0].peer, &nowhere);
    net->node[0].on_output = lose;
    homeless = 0;
    net_send(net, 0, 100, 1);
    net_pass(net, 6000);
    assert_int_equal(homeless, 2);
    assert_int_equal(net_counters(net, 0)->drop_no_endpoint, 2);

    /* The other side calls, and the endpoint is known. */
    net_send(net, 1, 100, 2);
    net_pass(net, 10);
    assert_int_equal(net->node[0].delivered, 1);
    assert_int_equal(net->node[1].delivered, 1);
    assert_int_equal(homeless, 2);
    net_free(net);
}

/* A responder under load: cookie, no retry before its time, then a session. */
static void
test_cookie_initiator(void **state)
{
    struct net *net = net_new(NULL);
    const struct wg_counters *a = net_counters(net, 0);
    const struct wg_counters *b = net_counters(net, 1);

    (void)state;
    net->filter = capture;
    wg_force_load(net->node[1].device, true);
    net_send(net, 0, 100, 1);
    net_pass(net, 4999);
    assert_int_equal(b->cookies_sent, 1);
    assert_int_equal(a->cookies_received, 1);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 1);
    assert_int_equal(net->node[1].sent[0].len, 64);
    net_pass(net, 400);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 2);
    assert_int_equal(net->node[1].delivered, 1);
    assert_int_equal(b->cookies_sent, 1);

    /* The proven address is limited: five in a burst, one is used up. */
    for (int i = 0; i < 10; i++)
        inject_last(net, MSG_INITIATION);
    assert_in_range(b->drop_handshake_replay, 4, 5);
    assert_int_equal(b->drop_handshake_replay + b->drop_ratelimited, 10);

    /* The cookie is bound to the address. */
    struct tn_endpoint other = endpoint(77, 51820);

    net_inject(
        net, 1, &other, last[MSG_INITIATION].msg, last[MSG_INITIATION].len);
    assert_int_equal(b->cookies_sent, 2);

    /* And to the secret: 120 s later it proves nothing. */
    net_pass(net, 121000);
    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->drop_ratelimited + b->drop_handshake_replay, 10);
    assert_in_range(b->cookies_sent, 3, 4);
    net_free(net);
}

/* An initiator under load asks the responder for the same. */
static void
test_cookie_responder(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    wg_force_load(net->node[0].device, true);
    net_send(net, 0, 100, 1);
    net_pass(net, 4000);
    assert_int_equal(net_counters(net, 0)->cookies_sent, 1);
    assert_int_equal(net_counters(net, 1)->cookies_received, 1);
    assert_int_equal(net->node[1].delivered, 0);
    net_pass(net, 1500);
    assert_int_equal(net->node[1].delivered, 1);
    assert_int_equal(net_counters(net, 0)->cookies_sent, 1);
    net_free(net);
}

/* Cookie replies that answer nothing. */
static void
test_cookie_drops(void **state)
{
    struct net *net = net_new(NULL);
    struct msg_cookie m;

    (void)state;
    net_connect(net);
    memset(&m, 0, sizeof(m));
    msg_put32(m.type, MSG_COOKIE);
    net_inject(net, 0, &net->node[1].self, (uint8_t *)&m, sizeof(m));
    assert_int_equal(net_counters(net, 0)->drop_index, 1);
    msg_put32(m.receiver, net->node[0].peer->session->current->local.index);
    net_inject(net, 0, &net->node[1].self, (uint8_t *)&m, sizeof(m));
    assert_int_equal(net_counters(net, 0)->drop_auth, 1);
    net_free(net);
}

/* Load is a rate: above STATE_LOAD_HANDSHAKES a second cookies are asked for,
 * for a second. */
static void
test_load(void **state)
{
    struct net *net = net_new(NULL);
    const struct wg_counters *b = net_counters(net, 1);

    (void)state;
    net->filter = capture;
    net_connect(net);
    net_pass(net, 2000);
    for (int i = 0; i < STATE_LOAD_HANDSHAKES; i++)
        inject_last(net, MSG_INITIATION);
    assert_int_equal(b->cookies_sent, 0);
    assert_int_equal(b->drop_handshake_replay, STATE_LOAD_HANDSHAKES);
    inject_last(net, MSG_INITIATION);
    net_pass(net, 900);
    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->cookies_sent, 2);
    net_pass(net, 1001);
    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->cookies_sent, 2);
    assert_int_equal(b->drop_handshake_replay, STATE_LOAD_HANDSHAKES + 1);

    /* What fails mac1 is no load. */
    last[MSG_INITIATION].msg[50] ^= 1;
    for (int i = 0; i < 2 * STATE_LOAD_HANDSHAKES; i++)
        inject_last(net, MSG_INITIATION);
    assert_int_equal(b->drop_mac1, 2 * STATE_LOAD_HANDSHAKES);
    assert_int_equal(b->cookies_sent, 2);
    net_free(net);
}

/* ${m} as whoever knows node 1's public key can make it. */
static void
sign(struct net *net, uint8_t *m, size_t len)
{
    struct cookie_maker maker = {.awaits = false};

    cookie_add_macs(&maker, m, len, net->node[1].key, 0, 0);
}

/* Each reason to refuse an initiation, and nothing but its counter moves. */
static void
test_initiation_drops(void **state)
{
    struct net *net = net_new(NULL);
    const struct wg_counters *b = net_counters(net, 1);
    uint8_t *m = last[MSG_INITIATION].msg;
    struct handshake_identity stranger;
    struct handshake hs;
    uint8_t eph[32] = {7}, tai[12] = {0xff};

    (void)state;
    net->filter = capture;
    net_connect(net);
    net_pass(net, 100);

    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->drop_handshake_replay, 1);
    m[130] ^= 1; /* mac1 */
    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->drop_mac1, 1);
    assert_int_equal(net->node[1].failures[WG_FAILURE_MAC1], 1);
    m[130] ^= 1;
    m[50] ^= 1; /* static */
    sign(net, m, 148);
    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->drop_handshake, 1);
    m[50] ^= 1;
    m[90] ^= 1; /* timestamp */
    sign(net, m, 148);
    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->drop_handshake, 2);

    memset(stranger.private_key, 0x44, 32);
    noise_clamp(stranger.private_key);
    noise_public_key(stranger.public_key, stranger.private_key);
    assert_int_equal(
        handshake_create_initiation(&hs, &stranger, net->node[1].key, eph, tai,
            (struct msg_initiation *)m),
        0);
    sign(net, m, 148);
    inject_last(net, MSG_INITIATION);
    assert_int_equal(b->drop_unknown_peer, 1);
    assert_int_equal(net->node[1].failures[WG_FAILURE_UNKNOWN], 1);
    assert_memory_equal(net->node[1].failed_key, stranger.public_key, 32);
    assert_true(
        tn_addr_equal(&net->node[1].failed_at.addr, &net->node[0].self.addr));
    assert_int_equal(b->handshakes_received, 1);
    assert_int_equal(b->handshakes_sent, 1);
    net_free(net);
}

/* Responses to nothing, and forged ones; the handshake survives them. */
static void
test_response_drops(void **state)
{
    struct net *net = net_new(NULL);
    const struct wg_counters *b = net_counters(net, 1);
    uint8_t m[92] = {MSG_RESPONSE};

    (void)state;
    sign(net, m, sizeof(m));
    net_inject(net, 1, &net->node[0].self, m, sizeof(m));
    assert_int_equal(b->drop_index, 1);
    m[90] = 1;
    m[70] ^= 1;
    net_inject(net, 1, &net->node[0].self, m, sizeof(m));
    assert_int_equal(b->drop_mac1, 1);
    assert_int_equal(net->node[1].failures[WG_FAILURE_MAC1], 0);

    net_send(net, 1, 100, 1);
    msg_put32(m + 8, net->node[1].peer->session->local.index);
    m[12] = 9;
    sign(net, m, sizeof(m));
    net_inject(net, 1, &net->node[0].self, m, sizeof(m));
    assert_int_equal(b->drop_handshake, 1);
    net_pass(net, 10);
    assert_int_equal(net->node[0].delivered, 1);
    net_free(net);
}

/* A response comes once: its index is a session's from then on. */
static void
test_response_replay(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net->filter = capture;
    wg_initiate(net->node[1].device, net->node[1].peer, net->now);
    net_pass(net, 10);
    inject_last(net, MSG_RESPONSE);
    assert_int_equal(net_counters(net, 1)->drop_index, 1);
    assert_int_equal(net_counters(net, 1)->handshakes_completed, 1);
    net_free(net);
}

/* Initiations closer than 20 ms are dropped, later ones are answered. */
static void
test_flood(void **state)
{
    struct wg_timing t = wg_timing_default;
    struct net *net;

    (void)state;
    t.rekey_timeout = 1;
    t.rekey_jitter = 0;
    net = net_new(&t);
    net->deaf[0] = true;
    net_pass(net, 1000);
    wg_initiate(net->node[0].device, net->node[0].peer, net->now);
    net_pass(net, 19);
    /* Sent each millisecond; the first was answered. */
    assert_int_equal(net_counters(net, 1)->handshakes_received, 1);
    assert_in_range(net_counters(net, 1)->drop_handshake_flood, 16, 18);
    net_pass(net, 20);
    assert_int_equal(net_counters(net, 1)->handshakes_received, 2);
    assert_int_equal(net_counters(net, 1)->drop_handshake_replay, 0);
    net_free(net);
}

/* Replace node 0's device, as a restart does. */
static void
restart(struct net *net, const uint8_t *tai64n)
{
    struct wg_config c = net_config(&net->node[0], 0x10);

    wg_device_free(net->node[0].device);
    net->node[0].device = wg_device_new(&c, net->now);
    if (tai64n != NULL)
        wg_set_tai64n(net->node[0].device, tai64n);
    net_introduce(net, 0);
}

/* The clock goes back by a day at a restart: without the predecessor's last
 * timestamp all is refused, with it a handshake works. */
static void
test_tai64n(void **state)
{
    struct net *net = net_new(NULL);
    const struct wg_counters *b = net_counters(net, 1);
    uint8_t first[12], second[12], third[12], zero[12] = {0};

    (void)state;
    wg_tai64n(net->node[0].device, first);
    assert_memory_equal(first, zero, 12);
    net_connect(net);
    wg_tai64n(net->node[0].device, first);
    assert_int_equal(first[0], 0x40);
    net_pass(net, 1000);

    net->node[0].wall_offset = -86400;
    restart(net, NULL);
    net_send(net, 0, 100, 1);
    net_pass(net, 10);
    assert_int_equal(b->drop_handshake_replay, 1);

    restart(net, first);
    wg_tai64n(net->node[0].device, second);
    assert_memory_equal(first, second, 12);
    net_send(net, 0, 100, 2);
    net_pass(net, 10);
    assert_int_equal(net->node[1].delivered, 1);
    wg_tai64n(net->node[0].device, second);
    assert_true(memcmp(second, first, 12) > 0);

    /* An older one does not take it back. */
    wg_set_tai64n(net->node[0].device, first);
    wg_tai64n(net->node[0].device, third);
    assert_memory_equal(second, third, 12);

    /* With the clock right again, the clock counts. */
    net_pass(net, 1000);
    net->node[0].wall_offset = 86400;
    restart(net, second);
    net_send(net, 0, 100, 3);
    net_pass(net, 10);
    assert_int_equal(net->node[1].delivered, 2);
    wg_tai64n(net->node[0].device, third);
    assert_true(third[6] != second[6] || third[5] != second[5]);
    net_free(net);
}

/* What follows the last timestamp, whatever that was. */
static void
test_tai64n_carry(void **state)
{
    static const struct {
        uint8_t before[12], after[12];
    } table[] = {
        {{0x50, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
            {0x50, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0}},
        {{0x50, 0, 0, 0, 0, 0, 0, 1, 0x12, 0x34, 0x56, 0x78},
            {0x50, 0, 0, 0, 0, 0, 0, 1, 0x13, 0, 0, 0}},
        {{0x50, 0, 0, 0, 0, 0, 0, 0xff, 0x3b, 0, 0, 0},
            {0x50, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}},
        {{0x50, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
            {0x50, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct net *net = net_new(NULL);
        uint8_t t[12];

        wg_set_tai64n(net->node[0].device, table[i].before);
        wg_initiate(net->node[0].device, net->node[0].peer, net->now);
        wg_tai64n(net->node[0].device, t);
        assert_memory_equal(t, table[i].after, 12);
        net_free(net);
    }
}

/* A peer that was removed and comes back still gets later timestamps. */
static void
test_tai64n_peer_returns(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    wg_peer_remove(net->node[0].device, net->node[0].peer);
    net->node[0].wall_offset = -3600;
    net_introduce(net, 0);
    net_pass(net, 100);
    net_send(net, 0, 100, 1);
    net_pass(net, 10);
    assert_int_equal(net->node[1].delivered, 1);
    net_free(net);
}

static void
test_psk(void **state)
{
    struct net *net = net_new(NULL);
    struct net_node *a = &net->node[0], *b = &net->node[1];
    uint8_t psk[32] = {1, 2, 3};

    (void)state;
    net_connect(net);
    wg_peer_set_psk(a->peer, NULL); /* as it was: nothing ends */
    assert_non_null(a->peer->session);
    wg_peer_set_psk(a->peer, psk);
    assert_null(a->peer->session);
    net_pass(net, 6000);
    net_send(net, 0, 100, 1);
    net_pass(net, 10);
    assert_int_equal(net_counters(net, 0)->drop_handshake, 1);
    assert_int_equal(b->delivered, 0);

    wg_peer_set_psk(b->peer, psk);
    net_pass(net, 6000);
    assert_int_equal(b->delivered, 1);
    net_free(net);
}

/* The change of a key while a packet waits: the retry carries it over. */
/* ${n}'s failures, in the order of enum wg_failure. */
static void
expect_failures(const struct net_node *n, const char *want)
{
    char got[64] = "";
    size_t at = 0;

    for (int i = 0; i <= WG_FAILURE_SILENCE; i++)
        at += (size_t)sprintf(
            got + at, "%s%u", i == 0 ? "" : " ", n->failures[i]);
    assert_string_equal(got, want);
}

/* What a device finds out about why no session comes about. */
static void
test_failures(void **state)
{
    struct net *net = net_new(NULL);
    struct net_node *a = &net->node[0], *b = &net->node[1];
    uint8_t psk[32] = {1, 2, 3};

    (void)state;
    /* Two preshared keys: who begins cannot open the answers, who answers sees
     * that they are of no use. */
    wg_peer_set_psk(a->peer, psk);
    net_send(net, 0, 100, 1);
    net_pass(net, 10);
    expect_failures(a, "0 0 1 0 0");
    assert_memory_equal(a->failed_key, b->key, 32);
    net_pass(net, 11000);
    expect_failures(b, "0 0 0 0 0"); /* three answers */
    net_pass(net, 5000);
    expect_failures(b, "0 0 0 1 0");
    assert_memory_equal(b->failed_key, a->key, 32);
    expect_failures(a, "0 0 4 0 0"); /* that is no silence */

    /* With one, all is well, and the count begins anew. */
    wg_peer_set_psk(b->peer, psk);
    net_pass(net, 11000);
    assert_int_equal(net_counters(net, 0)->handshakes_completed, 1);
    assert_int_equal(b->peer->unused_responses, 0);
    assert_int_equal(b->failures[WG_FAILURE_UNUSED], 1);

    /* Nobody there: said from the third initiation on. */
    memset(a->failures, 0, sizeof(a->failures));
    net->deaf[1] = true;
    wg_peer_set_psk(a->peer, NULL); /* ends the session */
    net_send(net, 0, 100, 2);
    net_pass(net, 14900);
    expect_failures(a, "0 0 0 0 0");
    net_pass(net, 1200);
    expect_failures(a, "0 0 0 0 1");
    assert_int_equal(a->failed_at.port, b->self.port);
    net_pass(net, 6000);
    expect_failures(a, "0 0 0 0 2");
    net_free(net);
}

static void
test_psk_while_staged(void **state)
{
    struct net *net = net_new(NULL);
    uint8_t psk[32] = {1, 2, 3};

    (void)state;
    net_send(net, 0, 100, 1);
    wg_peer_set_psk(net->node[0].peer, psk);
    wg_peer_set_psk(net->node[1].peer, psk);
    net_pass(net, 6000);
    assert_int_equal(net->node[1].delivered, 1);
    net_free(net);
}

/* Right after a handshake the session ends: the packet waits out the 5 s. */
static void
test_deferred(void **state)
{
    struct net *net = net_new(NULL);
    uint8_t psk[32] = {1};

    (void)state;
    net_connect(net);
    for (int i = 0; i < NET_NODES; i++)
        wg_peer_set_psk(net->node[i].peer, psk);
    net_send(net, 0, 100, 1);
    net_pass(net, 4900);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 1);
    net_pass(net, 200);
    assert_int_equal(net->node[1].delivered, 1);
    net_free(net);
}

static void
test_peer_table(void **state)
{
    struct net *net = net_new(NULL);
    struct wg_device *d = net->node[0].device;
    uint8_t key[32] = {5};
    int x, y;
    struct wg_peer *p = wg_peer_add(d, key, &x, net->now);

    (void)state;
    assert_non_null(p);
    assert_ptr_equal(wg_peer_add(d, key, &y, net->now), p);
    assert_ptr_equal(wg_peer_data(p), &x);
    wg_peer_set_data(p, &y);
    assert_ptr_equal(wg_peer_data(p), &y);
    assert_ptr_equal(wg_peer_by_key(d, key), p);
    assert_memory_equal(wg_peer_key(p), key, 32);
    assert_null(wg_peer_add(d, net->node[0].key, NULL, net->now));
    wg_peer_remove(d, p);
    assert_null(wg_peer_by_key(d, key));
    wg_device_free(NULL);
    net_free(net);
}

/* A peer whose key is of low order: no handshake, no crash, it gives up. */
static void
test_low_order_peer(void **state)
{
    struct net *net = net_new(NULL);
    struct wg_device *d = net->node[0].device;
    uint8_t key[32] = {1};
    struct tn_prefix prefix = {net_inner(1), 128};
    struct wg_peer *p = wg_peer_add(d, key, &net->node[0], net->now);

    (void)state;
    assert_int_equal(wg_peer_set_allowed_ips(d, p, &prefix, 1), 0);
    net_send(net, 0, 100, 1);
    net_pass(net, 100000);
    assert_int_equal(net->node[0].sent_count, 0);
    assert_int_equal(net_counters(net, 0)->drop_staged, 1);
    assert_null(p->session);
    net_free(net);
}

/* Removed in the middle of things, from either state; nothing dangles. */
static void
test_removal(void **state)
{
    static const char *const stages[] = {
        "idle", "pending", "responding", "session", "two sessions"};

    (void)state;
    for (size_t i = 0; i < COUNT(stages); i++) {
        for (int id = 0; id < NET_NODES; id++) {
            struct net *net = net_new(NULL);
            struct net_node *n = &net->node[id];
            struct tn_addr other = net_inner(!id);

            if (i > 0)
                net_send(net, 0, 100, 1);
            if (i > 1)
                net_pass(net, i == 2 ? 1 : 10);
            if (i > 3) {
                net_pass(net, 6000);
                wg_initiate(net->node[0].device, net->node[0].peer, net->now);
                net_pass(net, 10);
                net_send(net, 1, 100, 2);
                net_send(net, 0, 100, 2);
            }
            wg_peer_remove(n->device, n->peer);
            assert_null(wg_peer_by_key(n->device, net->node[!id].key));
            assert_null(wg_route(n->device, &other));
            assert_int_equal(wg_next_deadline(n->device), UINT64_MAX);
            assert_int_equal(n->device->indices.count, 0);
            assert_int_equal(n->device->staged, 0);

            net_pass(net, 200000);
            net_introduce(net, id);
            net_send(net, 0, 100, 3);
            net_send(net, 1, 100, 3);
            net_pass(net, 6000);
            if (msg_get32(net->node[1].last + 20) != 3 ||
                msg_get32(net->node[0].last + 20) != 3)
                fail_msg("%s, node %d", stages[i], id);
            net_free(net);
        }
    }
}

/* Staged packets of a removed peer are counted. */
static void
test_removal_staged(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net->deaf[1] = true;
    net_send(net, 0, 100, 1);
    net_send(net, 0, 100, 2);
    wg_peer_remove(net->node[0].device, net->node[0].peer);
    assert_int_equal(net_counters(net, 0)->drop_staged, 2);
    net_send(net, 0, 100, 2);
    assert_int_equal(net_counters(net, 0)->drop_no_route, 1);
    net_free(net);
}

/* What is for nobody does not wait for a session that cannot be. */
static void
test_nobody(void **state)
{
    static const uint8_t none[32];
    struct net *net = net_new(NULL);
    struct wg_device *d = net->node[0].device;
    struct tn_prefix addr = {net_inner(1), 128};
    struct wg_peer *p = wg_peer_add(d, none, NULL, net->now);

    (void)state;
    net_connect(net);
    assert_int_equal(wg_peer_set_allowed_ips(d, p, &addr, 1), 0);
    net_send(net, 0, 100, 1);
    wg_initiate(d, p, net->now);
    assert_int_equal(net_counters(net, 0)->drop_no_route, 1);
    assert_null(p->session);
    assert_false(timers_runs(&p->timers, TIMERS_RETRANSMIT));
    /* Nor is who has the address by right let in with it. */
    net_send(net, 1, 100, 2);
    net_pass(net, 10);
    assert_int_equal(net_counters(net, 0)->drop_source, 1);
    net_free(net);
}

static void
numbered(uint8_t key[32], uint32_t i)
{
    memset(key, 0, 32);
    key[0] = 3;
    msg_put32(key + 8, i);
}

static struct tn_prefix
numbered_prefix(uint32_t i)
{
    struct tn_prefix p = {
        tn_addr_from4((const uint8_t[]){
            101, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}),
        128};

    return p;
}

/* 100,000 peers of which few talk. */
static void
test_scale(void **state)
{
    enum { PEERS = 100000 };
    struct net *net = net_new(NULL);
    struct wg_device *d = net->node[0].device;
    uint8_t key[32], room[16 + 64 + 48];

    (void)state;
    for (uint32_t i = 0; i < PEERS; i++) {
        struct tn_prefix p = numbered_prefix(i);
        struct wg_peer *peer;

        numbered(key, i);
        peer = wg_peer_add(d, key, &net->node[0], net->now);
        assert_non_null(peer);
        assert_int_equal(wg_peer_set_allowed_ips(d, peer, &p, 1), 0);
    }
    assert_int_equal(wg_next_deadline(d), UINT64_MAX);
    assert_int_equal(d->timers.count, 0);
    assert_true(d->peers.size >= PEERS);
    net_connect(net);
    net_send(net, 0, 100, 1);
    net_pass(net, 10);
    assert_int_equal(net->node[1].delivered, 1);
    assert_int_equal(d->timers.count, 1);

    /* A packet to each of some thousands: all wait, the whole is bounded. */
    net->now += 1000;
    for (uint32_t i = 0; i < 200; i++) {
        for (uint32_t k = 0; k < 100; k++) {
            struct tn_addr src = net_inner(0), dst = numbered_prefix(i).addr;

            net_packet(room + 16, 64, &src, &dst, k);
            wg_send(d, room + 16, 64, net->now);
        }
    }
    assert_int_equal(d->staged, STATE_STAGED_MAX);
    assert_int_equal(d->counters.drop_staged, 200 * 100 - STATE_STAGED_MAX);
    assert_int_equal(d->timers.count, 201);
    assert_int_equal(d->indices.count, 201);

    /* Every second peer goes. */
    for (uint32_t i = 0; i < PEERS; i += 2) {
        numbered(key, i);
        wg_peer_remove(d, wg_peer_by_key(d, key));
    }
    for (uint32_t i = 0; i < PEERS; i++) {
        struct tn_prefix p = numbered_prefix(i);

        numbered(key, i);
        assert_ptr_equal(wg_route(d, &p.addr), wg_peer_by_key(d, key));
        assert_int_equal(wg_route(d, &p.addr) != NULL, i % 2);
    }
    assert_int_equal(d->timers.count, 101);
    for (int i = 0; i < 1200; i++) {
        net->now += 100;
        wg_tick(d, net->now);
    }
    assert_int_equal(d->staged, 0);
    net->now += 600000;
    wg_tick(d, net->now);
    assert_int_equal(d->timers.count, 0);
    assert_int_equal(d->indices.count, 0);
    net_free(net);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roaming),
        cmocka_unit_test(test_roaming_default),
        cmocka_unit_test(test_no_endpoint),
        cmocka_unit_test(test_cookie_initiator),
        cmocka_unit_test(test_cookie_responder),
        cmocka_unit_test(test_cookie_drops),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_initiation_drops),
        cmocka_unit_test(test_response_drops),
        cmocka_unit_test(test_response_replay),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_tai64n),
        cmocka_unit_test(test_tai64n_carry),
        cmocka_unit_test(test_tai64n_peer_returns),
        cmocka_unit_test(test_psk),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_psk_while_staged),
        cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_peer_table),
        cmocka_unit_test(test_low_order_peer),
        cmocka_unit_test(test_removal),
        cmocka_unit_test(test_removal_staged),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_scale),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

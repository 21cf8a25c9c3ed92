/* links: core/tn_addr.c tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* links: tailnetd/wg/allowedips.c tailnetd/wg/cookie.c tailnetd/wg/device.c */
/* links: tailnetd/wg/handshake.c tailnetd/wg/index.c tailnetd/wg/peer.c */
/* links: tailnetd/wg/receive.c tailnetd/wg/replay.c tailnetd/wg/send.c */
/* links: tailnetd/wg/timers.c */
/* libs: -lsodium -lcrypto */
/*
 * test_device.c: two devices back to back under virtual time: sessions, data,
 * every timer, and each reason to drop.  Roaming, cookies and removal are in
 * test_device_edge.c.
 */
#include "wg_net.h"

#include "../../ngx_tailnet_module/tailnetd/wg/peer.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct net_datagram captured;

/* Let everything pass and keep the last transport message of node 0. */
static bool
capture(struct net *net, int from, const uint8_t *msg, size_t len)
{
    (void)net;
    if (from == 0 && msg_get32(msg) == MSG_TRANSPORT) {
        memcpy(captured.msg, msg, len);
        captured.len = len;
    }
    return true;
}

static bool
block_node1(struct net *net, int from, const uint8_t *msg, size_t len)
{
    (void)net;
    (void)msg;
    (void)len;
    return from != 1;
}

static void
unhex(uint8_t *out, size_t len, const char *hex)
{
    assert_int_equal(strlen(hex), 2 * len);
    for (size_t i = 0; i < len; i++) {
        char byte[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

        out[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
}

/* First packet: handshake, then the packet; then the way back. */
static void
test_session(void **state)
{
    struct net *net = net_new(NULL);
    struct wg_peer_stats s;

    (void)state;
    assert_int_equal(wg_next_deadline(net->node[0].device), UINT64_MAX);
    net_send(net, 0, 100, 7);
    net_pass(net, 10);
    assert_int_equal(net->node[1].delivered, 1);
    assert_int_equal(net->node[1].last_len, 100);
    assert_int_equal(msg_get32(net->node[1].last + 20), 7);
    net_send(net, 1, 60, 8);
    net_pass(net, 10);
    assert_int_equal(net->node[0].delivered, 1);
    assert_int_equal(net->node[0].last_len, 60);

    for (int i = 0; i < NET_NODES; i++) {
        const struct wg_counters *c = net_counters(net, i);

        assert_int_equal(c->handshakes_sent, 1);
        assert_int_equal(c->handshakes_received, 1);
        assert_int_equal(c->handshakes_completed, 1);
        assert_int_equal(c->tx_packets, 1);
        assert_int_equal(c->rx_packets, 1);
        assert_int_equal(c->tx_bytes, i == 0 ? 112 + 32 : 64 + 32);
    }
    wg_peer_stats(net->node[0].peer, &s);
    assert_int_equal(s.tx_bytes, 144);
    assert_int_equal(s.rx_bytes, 96);
    assert_int_equal(s.last_handshake, NET_START + 2);
    assert_int_equal(s.last_receive, NET_START + 11);
    assert_int_equal(s.handshake_attempts, 0);
    net_free(net);
}

struct expected {
    const char *hex;
    unsigned seen;
};

static struct expected flow[] = {
    {"01000000040302019fd7ad6dcff4298dd3f96d5b1b2af910a0535b1488d7f8fabb349a98"
     "2880b6157828e8c6445ff1323b3430545d78e25210ba668b83edf5ad470f2d1272ebea5e"
     "6eb99e9cea534b176858184ad2ce87fdb9f4f13612400261e58a89561d7e2b40d2e6cfaa"
     "7f93abd71c0dabeaf82e6ecc18ae8fae02fa391af6232569000000000000000000000000"
     "00000000",
        0},
    {"020000000d0c0b0a04030201dc2cca31e8e43bbd91dff7e475cca3347eb478107d5bd765"
     "aba4ae4a30c35d443b7af3c6e47ffb35de530555f907a2e4c1fbe3c1d4361311679ef963"
     "1720119300000000000000000000000000000000",
        0},
    {"040000000d0c0b0a0000000000000000b8efbb22bb189e9f39a35a57d8c295c9", 0},
    {"040000000d0c0b0a0100000000000000f7382b06b50de7a7e970bc4d276105add1299776"
     "3778390e2f8107d2de1afb9018498a17aa42df5c8dc83a53cc07c383",
        0},
};

static size_t flow_at;

static bool
compare_flow(struct net *net, int from, const uint8_t *msg, size_t len)
{
    uint8_t want[256];

    (void)net;
    (void)from;
    assert_true(flow_at < COUNT(flow));
    assert_int_equal(strlen(flow[flow_at].hex), 2 * len);
    unhex(want, len, flow[flow_at].hex);
    assert_memory_equal(msg, want, len);
    flow_at++;
    return true;
}

/* The four messages of the vector, byte for byte, out of whole devices. */
static void
test_vector(void **state)
{
    static const char packet_hex[] = "450000200000000041014ea564400001644000"
                                     "02080002c70000000005390000";
    uint8_t script[NET_NODES][36], room[16 + 32 + 48];
    struct tn_prefix all = {{{0}}, 0};
    struct net *net = net_new(NULL);

    (void)state;
    for (int i = 0; i < 32; i++) {
        script[0][i] = (uint8_t)(0x90 + i);
        script[1][i] = (uint8_t)(0xc0 + i);
    }
    msg_put32(script[0] + 32, 0x01020304);
    msg_put32(script[1] + 32, 0x0a0b0c0d);
    for (int i = 0; i < NET_NODES; i++) {
        net->node[i].script = script[i];
        net->node[i].script_len = sizeof(script[i]);
    }
    net->filter = compare_flow;
    flow_at = 0;
    net_connect(net);
    assert_int_equal(flow_at, 3);

    all.addr = tn_addr_from4((const uint8_t[]){0, 0, 0, 0});
    all.bits = 96;
    for (int i = 0; i < NET_NODES; i++)
        wg_peer_set_allowed_ips(
            net->node[i].device, net->node[i].peer, &all, 1);
    unhex(room + 16, 32, packet_hex);
    wg_send(net->node[0].device, room + 16, 32, net->now);
    assert_int_equal(flow_at, 4);
    net_pass(net, 5);
    assert_int_equal(net->node[1].delivered, 1);
    unhex(room + 16, 32, packet_hex);
    assert_memory_equal(net->node[1].last, room + 16, 32);
    net_free(net);
}

/* A late caller: its clock is behind the one of a call before. */
static void
test_late_clock(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    net->now -= 5;
    net_send(net, 0, 100, 1);
    net->now += 5;
    net_pass(net, 5);
    assert_int_equal(net->node[1].delivered, 1);
    net_free(net);
}

/* Both sides begin at once: both handshakes complete, data flows both ways. */
static void
test_simultaneous(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        net_send(net, 0, 100, i);
        net_send(net, 1, 100, i);
        net_pass(net, 10);
        assert_int_equal(net->node[0].delivered, i + 1);
        assert_int_equal(net->node[1].delivered, i + 1);
    }
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 1);
    assert_int_equal(net_sent(net, 1, MSG_INITIATION, 0, NET_FOREVER), 1);
    net_free(net);
}

/* Retransmission: 5 s + jitter apart, for 90 s, then silence. */
static void
test_retransmit_and_give_up(void **state)
{
    struct net *net = net_new(NULL);
    const struct net_node *n = &net->node[0];
    struct wg_peer_stats s;
    bool jitter = false;

    (void)state;
    net->deaf[1] = true;
    net_send(net, 0, 100, 1);
    net_send(net, 0, 100, 2);
    net_pass(net, 60000);
    wg_peer_stats(n->peer, &s);
    assert_int_equal(s.handshake_attempts, n->sent_count);
    net_pass(net, 60000);
    assert_in_range(n->sent_count, 17, 18);
    for (size_t i = 1; i < n->sent_count; i++) {
        assert_in_range(n->sent[i].at - n->sent[i - 1].at, 5000, 5333);
        jitter |= n->sent[i].at - n->sent[i - 1].at != 5000;
    }
    assert_true(jitter);
    assert_in_range(
        n->sent[n->sent_count - 1].at, NET_START + 84000, NET_START + 90000);
    assert_int_equal(net_counters(net, 0)->drop_staged, 2);
    assert_int_equal(wg_next_deadline(n->device), UINT64_MAX);
    assert_null(n->peer->session);
    wg_peer_stats(n->peer, &s);
    assert_int_equal(s.handshake_attempts, 0);

    /* A packet later it begins again. */
    net->deaf[1] = false;
    net_send(net, 0, 100, 3);
    net_pass(net, 10);
    assert_int_equal(net->node[1].delivered, 1);
    net_free(net);
}

/* New data starts the 90 s anew. */
static void
test_attempt_restarts(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net->deaf[1] = true;
    net_send(net, 0, 100, 1);
    net_pass(net, 80000);
    net_send(net, 0, 100, 2);
    net_pass(net, 80000);
    assert_int_equal(net_counters(net, 0)->drop_staged, 0);
    net_pass(net, 20000);
    assert_int_equal(net_counters(net, 0)->drop_staged, 2);
    net_free(net);
}

/* wg_initiate() keeps 5 s between initiations. */
static void
test_initiate_spacing(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    net_pass(net, 4900);
    wg_initiate(net->node[0].device, net->node[0].peer, net->now);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 1);
    net_pass(net, 200);
    wg_initiate(net->node[0].device, net->node[0].peer, net->now);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 2);
    net_pass(net, 10);
    assert_int_equal(net_counters(net, 0)->handshakes_completed, 2);
    net_free(net);
}

static bool
drop_all(struct net *net, int from, const uint8_t *msg, size_t len)
{
    (void)net;
    (void)from;
    (void)msg;
    (void)len;
    return false;
}

/* wg_retry() does not wait for that, and asks only where it was asked. */
static void
test_retry(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    wg_retry(net->node[0].device, net->node[0].peer, net->now);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 0);
    net->filter = drop_all;
    wg_initiate(net->node[0].device, net->node[0].peer, net->now);
    net_pass(net, 250);
    net->filter = NULL;
    wg_retry(net->node[0].device, net->node[0].peer, net->now);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 2);
    net_pass(net, 10);
    assert_int_equal(net_counters(net, 0)->handshakes_completed, 1);
    wg_retry(net->node[0].device, net->node[0].peer, net->now);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 2);
    net_free(net);
}

/* Received data without an answer: an empty message after 10 s, once. */
static void
test_passive_keepalive(void **state)
{
    struct net *net = net_new(NULL);
    uint64_t start;

    (void)state;
    net_connect(net);
    start = net->now;
    net_send(net, 0, 100, 1);
    net_pass(net, 3000);
    net_send(net, 0, 100, 2);
    net_pass(net, 30000);
    assert_int_equal(net_sent(net, 1, MSG_TRANSPORT, 0, start + 10001), 0);
    assert_int_equal(
        net_sent(net, 1, MSG_TRANSPORT, start + 10001, start + 10002), 1);
    assert_int_equal(net_sent(net, 1, MSG_TRANSPORT, 0, NET_FOREVER), 1);
    assert_int_equal(net->node[1].sent[1].len, 32);
    /* The keepalive is no data: it is not answered by one. */
    assert_int_equal(net_sent(net, 0, MSG_TRANSPORT, 0, NET_FOREVER), 3);

    /* An answer makes it unnecessary. */
    start = net->now;
    net_send(net, 0, 100, 3);
    net_pass(net, 5000);
    net_send(net, 1, 100, 4);
    net_pass(net, 8000);
    assert_int_equal(net_sent(net, 1, MSG_TRANSPORT, start, start + 13000), 1);
    net_free(net);
}

/* Sent data without a sign of life: a new handshake after 15 s + jitter. */
static void
test_new_handshake(void **state)
{
    struct net *net = net_new(NULL);
    uint64_t start;

    (void)state;
    net_connect(net);
    net->filter = block_node1;
    start = net->now;
    net_send(net, 0, 100, 1);
    net_pass(net, 14999);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, start, NET_FOREVER), 0);
    net_pass(net, 335);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, start, NET_FOREVER), 1);
    net_free(net);
}

/* An answer in between stops it; so does a keepalive. */
static void
test_new_handshake_stopped(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    for (int i = 0; i < 4; i++) {
        net_send(net, 0, 100, 1);
        net_pass(net, 14000);
    }
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 1);
    net_free(net);
}

/* 540 s after the last session nothing of it is left. */
static void
test_zero_keys(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    net_run(net, NET_START + 539000);
    for (int i = 0; i < NET_NODES; i++) {
        assert_non_null(net->node[i].peer->session);
        assert_non_null(net->node[i].peer->session->current);
    }
    net_run(net, NET_START + 541000);
    for (int i = 0; i < NET_NODES; i++) {
        assert_null(net->node[i].peer->session);
        assert_int_equal(wg_next_deadline(net->node[i].device), UINT64_MAX);
    }
    net_free(net);
}

/* A handshake under way when the old keys are erased is not lost. */
static void
test_zero_keys_spares_handshake(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    net_run(net, NET_START + 2 + 540000 - 1);
    assert_non_null(net->node[0].peer->session->current);
    net_send(net, 0, 100, 1);
    net_pass(net, 1);
    assert_null(net->node[0].peer->session->current);
    net_pass(net, 5);
    assert_int_equal(net->node[1].delivered, 1);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 2);
    net_free(net);
}

/* Ten minutes of traffic: the initiator alone renews, nothing is lost. */
static void
test_rekey_by_age(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    for (uint32_t i = 0; i < 6000; i++) {
        net_send(net, 0, 100, i);
        net_send(net, 1, 100, i);
        net_pass(net, 100);
    }
    assert_int_equal(net->node[0].delivered, 6000);
    assert_int_equal(net->node[1].delivered, 6000);
    assert_int_equal(net_sent(net, 1, MSG_INITIATION, 0, NET_FOREVER), 0);
    for (uint64_t i = 0; i <= 4; i++)
        assert_int_equal(
            net_sent(net, 0, MSG_INITIATION, NET_START + i * 120000,
                NET_START + i * 120000 + 1000),
            1);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 5);
    net_free(net);
}

/* A receiving initiator renews when its session is 165 s old, once. */
static void
test_rekey_on_receive(void **state)
{
    struct net *net = net_new(NULL);
    uint64_t start = NET_START + 2; /* the initiator's session */

    (void)state;
    net_connect(net);
    net_run(net, start + 164990);
    net_send(net, 1, 100, 1);
    net_run(net, start + 164995);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 1);
    net->deaf[1] = true;
    net_run(net, start + 165000);
    net_send(net, 1, 100, 2);
    net_send(net, 1, 100, 3);
    net_pass(net, 5);
    assert_int_equal(net->node[0].delivered, 3);
    assert_int_equal(net_sent(net, 0, MSG_INITIATION, 0, NET_FOREVER), 2);
    /* The responder had a reason too, but leaves it to the initiator. */
    assert_int_equal(net_sent(net, 1, MSG_INITIATION, 0, NET_FOREVER), 0);
    net_free(net);
}

/* A responder that receives under an old session leaves it alone. */
static void
test_responder_keeps_still(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    net_run(net, NET_START + 170000);
    net->deaf[0] = true;
    net_send(net, 0, 100, 1);
    net_pass(net, 5);
    assert_int_equal(net->node[1].delivered, 1);
    assert_int_equal(net_sent(net, 1, MSG_INITIATION, 0, NET_FOREVER), 0);
    net_free(net);
}

/* 180 s: neither side sends nor accepts under the session any more. */
static void
test_reject_after_time(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    net_connect(net);
    net->filter = capture;
    net->deaf[1] = true;
    net_send(net, 0, 100, 1);
    net->deaf[1] = false;
    net->filter = NULL;
    /* Past the initiator's own attempts, which captured data started. */
    net->deaf[0] = net->deaf[1] = true;
    net_run(net, NET_START + 180100);
    net->deaf[0] = net->deaf[1] = false;
    net_inject(net, 1, &net->node[0].self, captured.msg, captured.len);
    assert_int_equal(net_counters(net, 1)->drop_expired, 1);
    assert_int_equal(net->node[1].delivered, 0);

    /* The responder begins a handshake of its own now: it has no session. */
    net_send(net, 1, 100, 2);
    net_pass(net, 10);
    assert_int_equal(net->node[0].delivered, 1);
    assert_int_equal(net_sent(net, 1, MSG_INITIATION, 0, NET_FOREVER), 1);
    net_free(net);
}

/* The two limits on messages. */
static void
test_message_limits(void **state)
{
    static const struct {
        int node;
        uint64_t counter;
        unsigned initiations; /* after one packet */
        unsigned sent;
    } table[] = {
        {0, MSG_REKEY_AFTER_MESSAGES - 1, 0, 1},
        {0, MSG_REKEY_AFTER_MESSAGES, 1, 1},
        {1, MSG_REKEY_AFTER_MESSAGES, 0, 1},
        {0, MSG_REJECT_AFTER_MESSAGES - 1, 1, 1},
        {0, MSG_REJECT_AFTER_MESSAGES, 1, 0},
        {1, MSG_REJECT_AFTER_MESSAGES, 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct net *net = net_new(NULL);
        struct net_node *n = &net->node[table[i].node];
        uint64_t start;

        net_connect(net);
        net_send(net, 0, 100, 0);
        net_send(net, 1, 100, 0);
        net_pass(net, 6000);
        net->deaf[0] = net->deaf[1] = true;
        start = net->now;
        n->peer->session->current->counter = table[i].counter;
        net_send(net, n->id, 100, 1);
        assert_int_equal(
            net_sent(net, n->id, MSG_INITIATION, start, NET_FOREVER),
            table[i].initiations);
        assert_int_equal(
            net_sent(net, n->id, MSG_TRANSPORT, start, NET_FOREVER),
            table[i].sent);
        net_free(net);
    }
}

/* A responder does not send under a session that is not confirmed. */
static void
test_unconfirmed(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    wg_initiate(net->node[0].device, net->node[0].peer, net->now);
    net->deaf[0] = true;
    net_pass(net, 2);
    assert_non_null(net->node[1].peer->session->next);
    net->deaf[0] = false;
    net_send(net, 1, 100, 1);
    assert_int_equal(net_sent(net, 1, MSG_TRANSPORT, 0, NET_FOREVER), 0);
    assert_int_equal(net_sent(net, 1, MSG_INITIATION, 0, NET_FOREVER), 1);
    net_pass(net, 10);
    assert_int_equal(net->node[0].delivered, 1);
    net_free(net);
}

/* 200 packets wait: the newest 128 go out, in order. */
static uint32_t next_serial;

static void
in_order(struct net_node *n, uint8_t *packet, size_t len)
{
    (void)n;
    (void)len;
    assert_int_equal(msg_get32(packet + 20), next_serial);
    next_serial++;
}

static void
test_staging(void **state)
{
    struct net *net = net_new(NULL);

    (void)state;
    for (uint32_t i = 0; i < 200; i++)
        net_send(net, 0, 100, i);
    assert_int_equal(net_counters(net, 0)->drop_staged, 72);
    next_serial = 72;
    net->node[1].on_deliver = in_order;
    net_pass(net, 10);
    assert_int_equal(net->node[1].delivered, PEER_STAGED_MAX);
    assert_int_equal(next_serial, 200);
    net_free(net);
}

/* What comes behind a packet is zero. */
static void
zero_padded(struct net_node *n, uint8_t *packet, size_t len)
{
    size_t padded = n->net->node[0].sent[n->net->node[0].sent_count - 1].len;

    for (size_t i = len; i < padded - 32; i++)
        assert_int_equal(packet[i], 0);
}

/* Padding: up to 16, not past the MTU of 1280. */
static void
test_padding(void **state)
{
    static const struct {
        size_t len, sent;
    } table[] = {
        {24, 32 + 32},
        {32, 32 + 32},
        {33, 48 + 32},
        {1265, 1280 + 32},
        {1280, 1280 + 32},
        {1281, 1281 + 32},
        {1400, 1400 + 32},
    };
    struct net *net = net_new(NULL);
    struct wg_config c;

    (void)state;
    net_connect(net);
    net->node[1].on_deliver = zero_padded;
    for (size_t i = 0; i < COUNT(table); i++) {
        net_send(net, 0, table[i].len, 1);
        assert_int_equal(
            net->node[0].sent[net->node[0].sent_count - 1].len, table[i].sent);
        net_pass(net, 5);
        assert_int_equal(net->node[1].last_len, table[i].len);
    }
    net_free(net);

    /* An MTU that is no multiple of 16 is the end of padding. */
    net = net_new(NULL);
    c = net_config(&net->node[0], 0x10);
    c.mtu = 1270;
    wg_device_free(net->node[0].device);
    net->node[0].device = wg_device_new(&c, net->now);
    net_introduce(net, 0);
    net_connect(net);
    net_send(net, 0, 1265, 1);
    assert_int_equal(
        net->node[0].sent[net->node[0].sent_count - 1].len, 1270 + 32);
    net_free(net);
}

/* Datagrams that are no message: by length and type, nothing else. */
static void
test_malformed(void **state)
{
    static const struct {
        uint32_t type;
        size_t len;
    } table[] = {
        {0, 0},
        {1, 3},
        {1, 4},
        {4, 15},
        {4, 16},
        {4, 31},
        {1, 147},
        {1, 149},
        {2, 91},
        {2, 93},
        {3, 63},
        {3, 65},
        {0, 148},
        {5, 148},
        {0x101, 148},
        {0x01000004, 64},
        {UINT32_MAX, 92},
    };
    struct net *net = net_new(NULL);

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        uint8_t msg[160] = {0};

        msg_put32(msg, table[i].type);
        net_inject(net, 1, &net->node[0].self, msg, table[i].len);
        assert_int_equal(net_counters(net, 1)->drop_malformed, i + 1);
    }
    net_free(net);
}

/* Transport: wrong index, tag, counter; the window does not move for a forged
 * counter. */
static void
test_transport_drops(void **state)
{
    struct net *net = net_new(NULL);
    const struct wg_counters *c = net_counters(net, 1);
    uint8_t forged[NET_DATAGRAM];

    (void)state;
    net->filter = capture;
    net_connect(net);
    net_send(net, 0, 100, 1);
    net_pass(net, 5);
    assert_int_equal(net->node[1].delivered, 1);

    net_inject(net, 1, &net->node[0].self, captured.msg, captured.len);
    assert_int_equal(c->drop_replay, 1);

    memcpy(forged, captured.msg, captured.len);
    forged[4] ^= 1;
    net_inject(net, 1, &net->node[0].self, forged, captured.len);
    assert_int_equal(c->drop_index, 1);

    memcpy(forged, captured.msg, captured.len);
    msg_put64(forged + 8, 1000000);
    net_inject(net, 1, &net->node[0].self, forged, captured.len);
    assert_int_equal(c->drop_auth, 1);

    memcpy(forged, captured.msg, captured.len);
    msg_put64(forged + 8, MSG_REJECT_AFTER_MESSAGES);
    net_inject(net, 1, &net->node[0].self, forged, captured.len);
    assert_int_equal(c->drop_expired, 1);

    net_send(net, 0, 100, 2);
    net_pass(net, 5);
    assert_int_equal(net->node[1].delivered, 2);
    assert_int_equal(c->drop_replay + c->drop_index + c->drop_auth, 3);
    net_free(net);
}

/* What an authentic sender may put inside. */
static void
test_inner(void **state)
{
    enum { OK, INNER, SOURCE };
    static const struct {
        uint8_t first;   /* version and header length */
        uint16_t length; /* the field, as it is */
        uint8_t source;  /* last byte */
        size_t len;
        int verdict;
        size_t delivered;
    } table[] = {
        {0x45, 100, 1, 100, OK, 100},
        {0x45, 40, 1, 100, OK, 40}, /* trimmed */
        {0x45, 20, 1, 100, OK, 20},
        {0x45, 19, 1, 100, INNER, 0},
        {0x45, 0, 1, 100, INNER, 0},
        {0x45, 113, 1, 100, INNER, 0}, /* longer than what came */
        {0x45, 100, 2, 100, SOURCE, 0},
        {0x45, 100, 9, 100, SOURCE, 0}, /* another peer's */
        {0x55, 100, 1, 100, INNER, 0},
        {0x05, 100, 1, 100, INNER, 0},
        {0x60, 60, 1, 100, OK, 100},
        {0x60, 0, 1, 100, OK, 40},
        {0x60, 73, 1, 100, INNER, 0},
        {0x60, 60, 2, 100, SOURCE, 0},
        {0x60, 60, 255, 100, INNER, 0}, /* IPv4-mapped */
        {0x45, 8, 1, 8, INNER, 0},      /* short header */
        {0x60, 0, 1, 24, INNER, 0},
    };
    struct net *net = net_new(NULL);
    struct net_node *a = &net->node[0], *b = &net->node[1];
    struct tn_prefix prefixes[2] = {{net_inner(0), 128}, {{{0xfd}}, 128}};
    uint8_t third[32] = {3};

    (void)state;
    prefixes[1].addr.b[15] = 1;
    assert_int_equal(wg_peer_set_allowed_ips(b->device,
                         wg_peer_add(b->device, third, NULL, net->now),
                         &(struct tn_prefix){net_inner(8), 128}, 1),
        0);
    assert_int_equal(
        wg_peer_set_allowed_ips(b->device, b->peer, prefixes, 2), 0);
    net_connect(net);
    for (size_t i = 0; i < COUNT(table); i++) {
        const struct wg_counters *c = net_counters(net, 1);
        struct wg_counters before = *c;
        uint64_t delivered = b->delivered;
        uint8_t m[16 + 128 + 16] = {0}, *p = m + 16;
        struct peer_keypair *k = a->peer->session->current;

        p[0] = table[i].first;
        if (p[0] >> 4 == 6) {
            msg_put32(p + 4, (uint32_t)(table[i].length >> 8 |
                                        (table[i].length & 0xff) << 8));
            memcpy(p + 8, prefixes[1].addr.b, 16);
            if (table[i].source == 255) {
                struct tn_addr mapped = net_inner(0);

                memcpy(p + 8, mapped.b, 16);
            } else {
                p[23] = table[i].source;
            }
        } else {
            p[2] = (uint8_t)(table[i].length >> 8);
            p[3] = (uint8_t)table[i].length;
            memcpy(p + 12, (const uint8_t[]){100, 64, 0, table[i].source}, 4);
        }
        msg_put32(m, MSG_TRANSPORT);
        msg_put32(m + 4, k->remote);
        msg_put64(m + 8, k->counter);
        aead_seal(k->send, k->counter++, p, table[i].len);
        net_inject(net, 1, &a->self, m, 16 + table[i].len + 16);

        assert_int_equal(c->rx_packets, before.rx_packets + 1);
        assert_int_equal(
            c->drop_inner - before.drop_inner, table[i].verdict == INNER);
        assert_int_equal(
            c->drop_source - before.drop_source, table[i].verdict == SOURCE);
        assert_int_equal(b->delivered - delivered, table[i].verdict == OK);
        if (table[i].verdict == OK)
            assert_int_equal(b->last_len, table[i].delivered);
    }
    net_free(net);
}

/* Outbound packets that go nowhere. */
static void
test_outbound_drops(void **state)
{
    struct net *net = net_new(NULL);
    struct wg_device *d = net->node[0].device;
    const struct wg_counters *c = net_counters(net, 0);
    static uint8_t room[16 + 65536 + 48];
    uint8_t *p = room + 16;
    struct tn_addr me = net_inner(0);

    (void)state;
    net_packet(p, 100, &me, &me, 1);
    wg_send(d, p, 100, net->now);
    assert_int_equal(c->drop_no_route, 1);
    wg_send(d, p, 19, net->now);
    wg_send(d, p, 0, net->now);
    p[0] = 0x60;
    wg_send(d, p, 39, net->now);
    wg_send(d, p, 40, net->now); /* ::... : no route, but IPv6 */
    assert_int_equal(c->drop_inner, 3);
    assert_int_equal(c->drop_no_route, 2);
    me = net_inner(1);
    memcpy(p + 24, me.b, 16); /* IPv4-mapped */
    wg_send(d, p, 100, net->now);
    p[0] = 0x45;
    wg_send(d, p, 65536, net->now);
    assert_int_equal(c->drop_inner, 5);
    assert_int_equal(net->node[0].sent_count, 0);
    wg_drop_no_endpoint(d);
    assert_int_equal(c->drop_no_endpoint, 1);
    net_free(net);
}

/* 600 s of a bad network.  Every datagram is accounted for, no packet comes
 * twice, and afterwards all is well. */
static uint8_t seen[NET_NODES][65536];

static void
once(struct net_node *n, uint8_t *packet, size_t len)
{
    uint32_t serial = msg_get32(packet + 20);

    assert_int_equal(seen[n->id][serial], 0);
    seen[n->id][serial] = 1;
    for (size_t i = 24; i < len; i++)
        assert_int_equal(packet[i], (uint8_t)(i + serial));
}

static void
test_bad_network(void **state)
{
    struct net *net = net_new(NULL);
    uint32_t serial = 0;

    (void)state;
    memset(seen, 0, sizeof(seen));
    net->node[0].on_deliver = net->node[1].on_deliver = once;
    net->loss = 20;
    net->duplicate = 10;
    net->reorder = 30;
    for (int i = 0; i < 6000; i++) {
        net_send(net, 0, 24 + net_random(net) % 1000, serial);
        net_send(net, 1, 24 + net_random(net) % 1000, serial);
        serial++;
        net_pass(net, net_random(net) % 200);
    }
    net->loss = net->duplicate = net->reorder = 0;
    net_pass(net, 30000);
    for (int i = 0; i < NET_NODES; i++) {
        const struct wg_counters *c = net_counters(net, i);
        uint64_t delivered = net->node[i].delivered;

        assert_int_equal(net->node[i].received,
            c->rx_packets + c->handshakes_received + c->drop_malformed +
                c->drop_mac1 + c->drop_unknown_peer + c->drop_handshake +
                c->drop_handshake_replay + c->drop_handshake_flood +
                c->drop_index + c->drop_auth + c->drop_replay +
                c->drop_expired);
        assert_int_equal(c->drop_auth + c->drop_inner + c->drop_source, 0);
        assert_true(c->drop_replay > 300);
        assert_in_range(delivered, 4500, 5100);
        net_send(net, !i, 100, serial++);
        net_pass(net, 100);
        assert_int_equal(net->node[i].delivered, delivered + 1);
    }
    net_free(net);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_vector),
        cmocka_unit_test(test_late_clock),
        cmocka_unit_test(test_simultaneous),
        cmocka_unit_test(test_retransmit_and_give_up),
        cmocka_unit_test(test_attempt_restarts),
        cmocka_unit_test(test_initiate_spacing),
        cmocka_unit_test(test_retry),
        cmocka_unit_test(test_passive_keepalive),
        cmocka_unit_test(test_new_handshake),
        cmocka_unit_test(test_new_handshake_stopped),
        cmocka_unit_test(test_zero_keys),
        cmocka_unit_test(test_zero_keys_spares_handshake),
        cmocka_unit_test(test_rekey_by_age),
        cmocka_unit_test(test_rekey_on_receive),
        cmocka_unit_test(test_responder_keeps_still),
        cmocka_unit_test(test_reject_after_time),
        cmocka_unit_test(test_message_limits),
        cmocka_unit_test(test_unconfirmed),
        cmocka_unit_test(test_staging),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_transport_drops),
        cmocka_unit_test(test_inner),
        cmocka_unit_test(test_outbound_drops),
        cmocka_unit_test(test_bad_network),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

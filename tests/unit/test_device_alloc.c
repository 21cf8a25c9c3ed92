/* links: core/tn_addr.c tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* links: tailnetd/wg/allowedips.c tailnetd/wg/cookie.c tailnetd/wg/device.c */
/* links: tailnetd/wg/handshake.c tailnetd/wg/index.c tailnetd/wg/peer.c */
/* links: tailnetd/wg/receive.c tailnetd/wg/replay.c tailnetd/wg/send.c */
/* links: tailnetd/wg/timers.c */
/* libs: -lsodium -lcrypto */
/* libs: -Wl,--wrap=malloc,--wrap=calloc,--wrap=reallocarray */
/*
 * test_device_alloc.c: every allocation of a device fails once, and a session
 * in use makes none.  malloc, calloc and reallocarray of the linked sources
 * are wrapped; the test's own memory is cmocka's.
 */
#include "wg_net.h"

#include "../../ngx_tailnet_module/tailnetd/wg/peer.h"
#include "../../ngx_tailnet_module/tailnetd/wg/state.h"

static long fail_after = -1; /* calls that still succeed; -1: all */
static unsigned long calls;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);

static bool
fails(void)
{
    calls++;
    if (fail_after == 0)
        return true;
    if (fail_after > 0)
        fail_after--;
    return false;
}

void *
__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_reallocarray(void *p, size_t n, size_t size)
{
    return fails() ? NULL : __real_reallocarray(p, n, size);
}

static void
test_device_new(void **state)
{
    struct net net = {.now = NET_START};
    struct net_node node = {.net = &net};
    struct wg_config c = net_config(&node, 0x10);
    struct wg_device *d = NULL;
    long n;

    (void)state;
    for (n = 0; d == NULL; n++) {
        assert_true(n < 20);
        fail_after = n;
        d = wg_device_new(&c, net.now);
        fail_after = -1;
    }
    assert_int_equal(n, 5); /* device, limiter, two tables; then success */
    wg_device_free(d);
}

static void
test_peer_add(void **state)
{
    struct net *net = net_new(NULL);
    struct wg_device *d = net->node[0].device;

    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        uint8_t key[32] = {(uint8_t)i, (uint8_t)(i >> 8), 1};
        size_t count = d->peers.count;
        struct wg_peer *p = NULL;

        for (long n = 0; p == NULL; n++) {
            assert_true(n < 10);
            fail_after = n;
            p = wg_peer_add(d, key, NULL, net->now);
            fail_after = -1;
            assert_int_equal(d->peers.count, count + (p != NULL));
            assert_ptr_equal(wg_peer_by_key(d, key), p);
        }
    }
    net_connect(net);
    net_free(net);
}

static void
test_allowed_ips(void **state)
{
    struct net *net = net_new(NULL);
    struct net_node *a = &net->node[0];
    struct tn_prefix two[2] = {{net_inner(5), 128}, {net_inner(6), 120}};
    struct tn_addr old = net_inner(1), new = net_inner(5);
    int rv = -1;

    (void)state;
    two[1].addr.b[15] = 0;
    for (long n = 0; rv == -1; n++) {
        assert_true(n < 10);
        assert_ptr_equal(wg_route(a->device, &old), a->peer);
        assert_null(wg_route(a->device, &new));
        fail_after = n;
        rv = wg_peer_set_allowed_ips(a->device, a->peer, two, 2);
        fail_after = -1;
    }
    assert_ptr_equal(wg_route(a->device, &new), a->peer);
    net_free(net);
}

/* Staging: the packet is lost and counted, the handshake tried all the same;
 * what follows works. */
static void
test_staging(void **state)
{
    (void)state;
    for (long n = 0; n < 4; n++) {
        struct net *net = net_new(NULL);
        const struct wg_counters *c = net_counters(net, 0);

        fail_after = n;
        net_send(net, 0, 100, 1);
        fail_after = -1;
        assert_int_equal(c->drop_staged, n < 2);
        assert_int_equal(c->handshakes_sent, n > 0);
        net_send(net, 0, 100, 2);
        net_pass(net, 6000);
        assert_int_equal(net->node[1].delivered, n < 2 ? 1 : 2);
        net_free(net);
    }
}

/* A handshake during which any one allocation of either side fails: it is
 * dropped and counted, and the retry succeeds. */
static void
test_handshake(void **state)
{
    bool reached = true;

    (void)state;
    for (long n = 0; reached; n++) {
        struct net *net = net_new(NULL);
        uint64_t drops = 0;

        assert_true(n < 60);
        wg_initiate(net->node[0].device, net->node[0].peer, net->now);
        fail_after = n;
        /* The first failure only: the rest of the exchange may go on. */
        for (int i = 0; i < 10; i++) {
            net_pass(net, 1);
            if (fail_after == 0) {
                for (int k = 0; k < NET_NODES; k++)
                    drops += net_counters(net, k)->drop_handshake;
                if (drops > 0)
                    break;
            }
        }
        reached = drops > 0;
        fail_after = -1;
        net_pass(net, 12000);
        net_send(net, 0, 100, 1);
        net_pass(net, 12000);
        assert_int_equal(net->node[1].delivered, 1);
        net_free(net);
    }
}

static unsigned answered;

static void
answer(struct net_node *n, uint8_t *packet, size_t len)
{
    (void)packet;
    answered++;
    if (n->id == 1)
        net_send(n->net, 1, len, 1);
}

/* A session in use: nothing is allocated, sending or receiving. */
static void
test_steady_state(void **state)
{
    struct net *net = net_new(NULL);
    unsigned long before;

    (void)state;
    net->node[0].on_deliver = net->node[1].on_deliver = answer;
    net_connect(net);
    net_send(net, 0, 100, 0);
    net_pass(net, 10);
    answered = 0;
    before = calls;
    fail_after = 0;
    for (int i = 0; i < 1000; i++) {
        uint8_t room[16 + 100 + 48 + 16];
        struct tn_addr src = net_inner(0), dst = net_inner(1);

        net_packet(room + 16, 100, &src, &dst, 1);
        wg_send(net->node[0].device, room + 16, 100, net->now);
        while (net->queued > 0) {
            struct net_datagram g = net->queue[--net->queued];

            wg_receive(net->node[g.to].device, g.msg, g.len, &g.src, net->now);
        }
        net->now += 20;
        wg_tick(net->node[0].device, net->now);
        wg_tick(net->node[1].device, net->now);
    }
    fail_after = -1;
    assert_int_equal(calls, before);
    assert_int_equal(answered, 2000);
    net_free(net);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_new),
        cmocka_unit_test(test_peer_add),
        cmocka_unit_test(test_allowed_ips),
        cmocka_unit_test(test_staging),
        cmocka_unit_test(test_handshake),
        cmocka_unit_test(test_steady_state),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/engine/reach.c */
/*
 * test_reach.c: what a control server is told of how a node is reached, at the
 * node's begin and when another server takes its place.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/engine/node.h"
#include "../../ngx_tailnet_module/tailnetd/engine/reach.h"
#include "../../ngx_tailnet_module/tailnetd/loop.h"

/* What a control server knows. */
struct control {
    uint8_t disco[32];
    size_t nendpoints;
    bool net;
};

struct join {
    struct control control;
};

static const uint8_t disco[32] = {4, 2};
static struct tls_trust *const trust = (struct tls_trust *)(uintptr_t)&disco;
static struct magic *const magic = (struct magic *)(uintptr_t)&disco;
static int refs, timers;
static bool no_memory;

/* ---- fakes ---- */

__attribute__((used, noreturn)) static void
never(void)
{
    abort();
}

/* What packets need; nothing of it is called here. */
#define NEVER(name) __asm__(".globl " #name "\n.set " #name ", never")

NEVER(control_network_changed);
NEVER(derp_region);
NEVER(echo_disco);
NEVER(echo_tsmp);
NEVER(failure_refusal);
NEVER(hot_saw);
NEVER(hot_saw_relay);
NEVER(loop_now);
NEVER(loop_timer_set);
NEVER(magic_peer_disco);
NEVER(magic_peer_resume);
NEVER(magic_peer_set);
NEVER(magic_relay_sender);
NEVER(magic_way);
NEVER(masq_destination);
NEVER(masq_source);
NEVER(netmap_has_endpoint);
NEVER(node_flush);
NEVER(node_receive);
NEVER(pump_flush);
NEVER(pump_send);
NEVER(tn_addr_equal);
NEVER(tn_addr_from4);
NEVER(tn_addr_from6);
NEVER(tn_addr_is4);
NEVER(tsmp_ping);
NEVER(tsmp_refuse);
NEVER(tsmp_read);
NEVER(wg_peer_by_key);
NEVER(wg_peer_data);
NEVER(wg_peer_endpoint);
NEVER(wg_peer_key);
NEVER(wg_peer_set_endpoint);
NEVER(wg_retry);
NEVER(wg_route);
NEVER(wg_send);

struct tls_trust *
join_trust(const struct join *j)
{
    (void)j;
    return trust;
}

struct tls_trust *
tls_trust_ref(struct tls_trust *t)
{
    refs++;
    return t;
}

void
tls_trust_free(struct tls_trust *t)
{
    refs -= t != NULL;
}

struct loop_timer *
loop_timer_new(void (*cb)(void *arg), void *arg)
{
    (void)cb;
    (void)arg;
    timers++;
    return malloc(1);
}

void
loop_timer_free(struct loop_timer *t)
{
    timers -= t != NULL;
    free(t);
}

const struct tn_endpoint *
join_endpoints(const struct join *j, size_t *n)
{
    (void)j;
    *n = 0;
    return NULL;
}

struct control *
join_control(struct join *j)
{
    return &j->control;
}

uint16_t
node_udp_port(int fd)
{
    (void)fd;
    return 41641;
}

struct magic *
magic_new(const struct magic_config *c, const struct magic_ops *ops, void *ctx)
{
    (void)c;
    (void)ops;
    (void)ctx;
    return no_memory ? NULL : magic;
}

void
magic_free(struct magic *m)
{
    (void)m;
}

void
magic_explicit(struct magic *m, const struct tn_endpoint *list, size_t n)
{
    (void)m;
    (void)list;
    (void)n;
}

const uint8_t *
magic_disco(const struct magic *m)
{
    (void)m;
    return disco;
}

const struct message_endpoint *
magic_endpoints(const struct magic *m, size_t *n)
{
    static struct message_endpoint list[2];

    (void)m;
    *n = 2;
    return list;
}

const struct message_netinfo *
magic_netinfo(const struct magic *m)
{
    static struct message_netinfo net;

    (void)m;
    return &net;
}

void
control_set_disco(struct control *c, const uint8_t key[32])
{
    memcpy(c->disco, key, sizeof(c->disco));
}

void
control_set_endpoints(
    struct control *c, const struct message_endpoint *e, size_t n)
{
    (void)e;
    c->nendpoints = n;
}

void
control_set_netinfo(struct control *c, const struct message_netinfo *n)
{
    (void)n;
    c->net = true;
}

/* ---- tests ---- */

static void
assert_told(const struct join *j)
{
    assert_memory_equal(j->control.disco, disco, sizeof(disco));
    assert_int_equal(j->control.nendpoints, 2);
    assert_true(j->control.net);
}

/* The next control server has no other disco key than the first one. */
static void
another_server(void **state)
{
    struct hot_node row = {0};
    struct join first = {0}, second = {0};
    struct node n = {.hot_row = &row, .join = &first};

    (void)state;
    assert_int_equal(reach_begin(&n), 0);
    assert_told(&first);
    n.join = &second;
    reach_announce(&n);
    assert_told(&second);
    reach_end(&n);
    assert_int_equal(refs, 0);
    assert_int_equal(timers, 0);
}

/* What failed is tried again with the next key, and leaves nothing behind. */
static void
tried_again(void **state)
{
    struct hot_node row = {0};
    struct join join = {0};
    struct node n = {.hot_row = &row, .join = &join};

    (void)state;
    no_memory = true;
    assert_int_equal(reach_begin(&n), -1);
    assert_int_equal(refs, 0);
    assert_int_equal(timers, 0);
    no_memory = false;
    assert_int_equal(reach_begin(&n), 0);
    assert_told(&join);
    reach_end(&n);
    assert_int_equal(refs, 0);
    assert_int_equal(timers, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_server),
        cmocka_unit_test(tried_again),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/engine/node.c tailnetd/engine/peers.c */
/* links: tailnetd/engine/netmap.c core/tn_addr.c */
/* links: tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* links: tailnetd/wg/allowedips.c tailnetd/wg/cookie.c tailnetd/wg/device.c */
/* links: tailnetd/wg/handshake.c tailnetd/wg/index.c tailnetd/wg/peer.c */
/* links: tailnetd/wg/receive.c tailnetd/wg/replay.c tailnetd/wg/send.c */
/* links: tailnetd/wg/timers.c */
/* libs: -lsodium -lcrypto -Wl,--wrap=time,--wrap=clock_gettime */
/* libs: -no-pie -Wl,--unresolved-symbols=ignore-all */
/*
 * test_node.c: whose key has expired is cut off when it has, and nobody else
 * for longer than an hour, whatever becomes of the clock.
 */
#include "fake_loop.h"

#include <string.h>
#include <time.h>

#include "../../ngx_tailnet_module/tailnetd/engine/echo.h"
#include "../../ngx_tailnet_module/tailnetd/engine/node.h"
#include "../../ngx_tailnet_module/tailnetd/engine/reach.h"
#include "../../ngx_tailnet_module/tailnetd/engine/say.h"
#include "../../ngx_tailnet_module/tailnetd/engine/snapshot.h"
#include "../../ngx_tailnet_module/tailnetd/source/file.h"

#define WALL 1800000000
#define HOUR 3600

static int64_t ahead; /* seconds that the wall clock was set forth */
static struct hot_node row;
static struct node *node;
static unsigned whole, told; /* snapshots */
static char filter, pump;

/* ---- fakes; what is not called is not linked ---- */

time_t __wrap_time(time_t *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

time_t
__wrap_time(time_t *t)
{
    assert_null(t);
    return (time_t)(WALL + ahead + (int64_t)loop.now / 1000);
}

int
__wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    (void)id;
    *ts = (struct timespec){.tv_sec = __wrap_time(NULL),
        .tv_nsec = (long)(loop.now % 1000) * 1000000};
    return 0;
}

void
say(int level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

struct hot_node *
hot_node(struct hot *h, const char *name)
{
    (void)h;
    (void)name;
    return &row;
}

const struct hot_peer *
hot_peer(
    const struct hot *h, const char *name, const uint8_t key[32], int64_t now)
{
    (void)h;
    (void)name;
    (void)key;
    (void)now;
    return NULL;
}

struct pump *
pump_new(const struct pump_fds *fds, uint16_t mtu, const struct pump_ops *ops,
    void *ctx)
{
    (void)fds;
    (void)mtu;
    (void)ops;
    (void)ctx;
    return (struct pump *)(void *)&pump;
}

void
pump_free(struct pump *p)
{
    (void)p;
}

void
pump_flush(struct pump *p)
{
    (void)p;
}

struct filter *
filter_new(const struct netmap *nm, const struct filter_local *local)
{
    (void)nm;
    (void)local;
    return (struct filter *)(void *)&filter;
}

void
filter_free(struct filter *f)
{
    (void)f;
}

void
filter_set_listeners(
    struct filter *f, const struct ipc_listener *list, size_t n)
{
    (void)f;
    (void)list;
    (void)n;
}

void
filter_inherit(struct filter *f, struct filter *old)
{
    (void)f;
    (void)old;
}

void
filter_forget(struct filter *f, const struct tn_addr *a)
{
    (void)f;
    (void)a;
}

bool
filter_by_peer(const struct filter *f)
{
    (void)f;
    return false;
}

void
snapshot_publish_soon(struct node *n)
{
    (void)n;
    whole++;
}

void
snapshot_publish_changes(struct node *n, const struct netmap_changes *c)
{
    (void)n;
    told += c->nrows > 0 || c->self != NULL;
}

void
snapshot_free(struct node *n)
{
    (void)n;
}

void
failure_self(struct node *n)
{
    (void)n;
}

uint64_t
ping_deadline(const struct ping_list *l)
{
    (void)l;
    return UINT64_MAX;
}

void
reach_resumed(struct node *n)
{
    (void)n;
}

void
reach_end(struct node *n)
{
    (void)n;
}

void
join_free(struct join *j)
{
    (void)j;
}

void
source_file_psks_free(struct source_file_psks *p)
{
    (void)p;
}

void
echo_tick(struct node *n, uint64_t now)
{
    (void)n;
    (void)now;
}

static void
put(const char *name, const int *fds, size_t nfds)
{
    (void)name;
    (void)fds;
    (void)nfds;
}

static void
netconf(const char *name, const struct tn_prefix *addrs, size_t naddrs)
{
    (void)name;
    (void)addrs;
    (void)naddrs;
}

static const struct node_ops ops = {.put = put, .netconf = netconf};

static void
any_bytes(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    memset(buf, 7, len);
}

static void
dismiss(struct netmap_owner *o, uint64_t generation)
{
    (void)o;
    (void)generation;
}

/* ---- a node with two peers ---- */

static struct netmap_owner owner = {dismiss};
static struct tn_prefix addresses[2];

static void
begin(void)
{
    struct wg_config c = {.private_key = {9},
        .timing = wg_timing_default,
        .mtu = 1280,
        .ops = {.random = any_bytes}};
    struct ipc_msg m = {.type = IPC_NODE, .node = "web", .mtu = 1280};
    const int none[2] = {-1, -1};
    struct netmap *nm = calloc(1, sizeof(*nm));

    loop.now = 1000;
    ahead = 0;
    whole = told = 0;
    node = node_new(&m, -1, none, NULL, &ops);
    assert_non_null(node);
    node->wg = wg_device_new(&c, 0);
    nm->owner = &owner;
    nm->npeers = 2;
    nm->peers = calloc(2, sizeof(*nm->peers));
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t b[4] = {100, 64, 0, (uint8_t)i};

        addresses[i] = (struct tn_prefix){tn_addr_from4(b), 128};
        nm->peers[i] = (struct netmap_node){.id = i + 1,
            .has_key = true,
            .key = {(uint8_t)(i + 1), 1},
            .key_expiry = WALL + (i + 1) * 24 * HOUR,
            .addresses = &addresses[i],
            .naddresses = 1};
    }
    node_take_netmap(node, nm, false);
    assert_int_equal(whole, 1);
}

static bool
is_there(unsigned i)
{
    return wg_peer_by_key(node->wg, node->netmap->peers[i].key) != NULL;
}

static void
end(void)
{
    node_free(node);
    fake_loop_end();
}

static void
keys_end(void **state)
{
    (void)state;
    begin();
    sleep_ms(24ull * HOUR * 1000 - 1001);
    assert_true(is_there(0));
    sleep_ms(100);
    assert_false(is_there(0));
    assert_true(is_there(1));
    assert_int_equal(whole, 1);
    assert_int_equal(told, 1);
    end();
}

/* It was wrong for a while, in which a message came. */
static void
clock_is_wrong(void **state)
{
    uint32_t rows[1] = {0};
    struct netmap_changes c = {.rows = rows, .nrows = 1};

    (void)state;
    begin();
    sleep_ms(1000);
    ahead = 30 * HOUR;
    node_take_changes(node, &c);
    assert_false(is_there(0));
    sleep_ms(1000);
    ahead = 0;
    sleep_ms(2ull * HOUR * 1000);
    assert_true(is_there(0));
    end();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_end),
        cmocka_unit_test(clock_is_wrong),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

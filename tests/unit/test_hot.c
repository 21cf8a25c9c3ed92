/* links: tailnetd/engine/hot.c core/tn_addr.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/engine/hot.h"

#define NOW 1700000000

static struct tn_endpoint
endpoint(const char *text)
{
    struct tn_endpoint e;

    assert_int_equal(tn_endpoint_parse(&e, text, strlen(text)), 0);
    return e;
}

static void
key_of(uint8_t key[32], uint32_t bucket, uint8_t id)
{
    memset(key, id, 32);
    memcpy(key, &bucket, sizeof(bucket));
}

static void
successor_knows(void **state)
{
    struct tn_endpoint e = endpoint("192.0.2.7:41641");
    const struct hot_peer *p;
    uint8_t key[32], relayed[32];
    struct hot *h, *next;
    int fd, copy;

    (void)state;
    h = hot_new(&fd);
    assert_non_null(h);
    key_of(key, 5, 1);
    hot_saw(h, "web", key, &e, NOW);
    hot_node(h, "web")->generation = 77;
    hot_node(h, "web")->tai64n[0] = 0x40;
    hot_node(h, "web")->disco[31] = 0x41;
    hot_node(h, "web")->home = 12;
    key_of(relayed, 6, 1);
    hot_saw(h, "web", relayed, &e, NOW);
    hot_saw_relay(h, "web", relayed, 999, NOW);
    copy = dup(fd);
    hot_free(h);

    next = hot_open(copy);
    assert_non_null(next);
    assert_int_equal(hot_node(next, "web")->generation, 77);
    assert_int_equal(hot_node(next, "web")->tai64n[0], 0x40);
    assert_int_equal(hot_node(next, "web")->disco[31], 0x41);
    assert_int_equal(hot_node(next, "web")->home, 12);
    p = hot_peer(next, "web", relayed, NOW + 10);
    assert_non_null(p);
    assert_int_equal(p->port, 0);
    assert_int_equal(p->region, 999);
    hot_saw(next, "web", relayed, &e, NOW);
    assert_int_equal(hot_peer(next, "web", relayed, NOW)->region, 0);
    p = hot_peer(next, "web", key, NOW + 10);
    assert_non_null(p);
    assert_int_equal(p->port, 41641);
    assert_true(tn_addr_equal(&p->addr, &e.addr));
    assert_null(hot_peer(next, "other", key, NOW + 10));
    assert_null(hot_peer(next, "web", key, NOW + HOT_ACTIVE_S + 1));
    assert_null(hot_peer(next, "web", key, NOW - 1)); /* from the future */
    hot_forget(next, "web");
    assert_null(hot_peer(next, "web", key, NOW + 10));
    assert_int_equal(hot_node(next, "web")->generation, 0);
    assert_int_equal(hot_node(next, "web")->disco[31], 0);
    hot_free(next);
}

static void
longest_silent_makes_room(void **state)
{
    struct tn_endpoint e = endpoint("192.0.2.7:1");
    uint8_t key[32];
    struct hot *h;
    int fd, i;

    (void)state;
    h = hot_new(&fd);
    assert_non_null(h);
    for (i = 0; i < 9; i++) {
        key_of(key, 9, (uint8_t)(i + 1));
        hot_saw(h, "web", key, &e, NOW + (i == 3 ? 0 : 10 + i));
    }
    assert_int_equal(hot_evicted(h), 1);
    for (i = 0; i < 9; i++) {
        key_of(key, 9, (uint8_t)(i + 1));
        if (i == 3)
            assert_null(hot_peer(h, "web", key, NOW + 20));
        else
            assert_non_null(hot_peer(h, "web", key, NOW + 20));
    }
    /* One peer keeps one row. */
    hot_saw(h, "web", key, &e, NOW + 20);
    assert_int_equal(hot_evicted(h), 1);
    hot_free(h);
}

static void
nodes_are_bounded(void **state)
{
    char name[TN_NODE_NAME_MAX + 1] = "n00";
    struct hot *h;
    int fd, i;

    (void)state;
    h = hot_new(&fd);
    assert_non_null(h);
    for (i = 0; i < TN_NODES_MAX; i++) {
        name[1] = (char)('0' + i / 10);
        name[2] = (char)('0' + i % 10);
        assert_non_null(hot_node(h, name));
    }
    assert_null(hot_node(h, "one-more"));
    hot_forget(h, "n07");
    assert_non_null(hot_node(h, "one-more"));
    hot_free(h);
}

/* A memory file of ${size} bytes of ${fill}. */
static int
file_of(size_t size, int fill, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char byte = (char)fill;
    size_t i;

    assert_int_not_equal(fd, -1);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    for (i = 0; fill != 0 && i < size; i++)
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void
anything_else_is_refused(void **state)
{
    struct hot *h;
    off_t size;
    int fd, copy;
    uint64_t wrong = 1;

    (void)state;
    assert_null(hot_open(file_of(0, 0, F_SEAL_SHRINK)));
    assert_null(hot_open(file_of(4096, 0xff, F_SEAL_SHRINK)));

    h = hot_new(&fd);
    assert_non_null(h);
    size = lseek(fd, 0, SEEK_END);
    /* The right size, but it could shrink under the reader. */
    assert_null(hot_open(file_of((size_t)size, 0, 0)));
    assert_null(hot_open(file_of((size_t)size, 0, F_SEAL_SHRINK)));
    copy = dup(fd);
    assert_int_equal(pwrite(fd, &wrong, sizeof(wrong), 8), sizeof(wrong));
    assert_null(hot_open(copy));
    hot_free(h);
}

/* The right header over rows of garbage: nothing is found, nothing crashes. */
static void
garbage_rows(void **state)
{
    struct tn_endpoint e = endpoint("192.0.2.7:1");
    uint8_t key[32], garbage[4096];
    struct hot *h;
    off_t size, at;
    int fd;

    (void)state;
    h = hot_new(&fd);
    assert_non_null(h);
    memset(garbage, 0xa5, sizeof(garbage));
    size = lseek(fd, 0, SEEK_END);
    for (at = 24; at < size; at += (off_t)sizeof(garbage))
        assert_true(
            pwrite(fd, garbage,
                (size_t)(size - at) < sizeof(garbage) ? (size_t)(size - at)
                                                      : sizeof(garbage),
                at) > 0);
    memset(key, 0xa5, sizeof(key));
    assert_null(hot_peer(h, "web", key, NOW));
    assert_null(hot_node(h, "web"));
    hot_forget(h, "web");
    hot_saw(h, "web", key, &e, NOW);
    assert_non_null(hot_peer(h, "web", key, NOW));
    hot_free(h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(successor_knows),
        cmocka_unit_test(longest_silent_makes_room),
        cmocka_unit_test(nodes_are_bounded),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(garbage_rows),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

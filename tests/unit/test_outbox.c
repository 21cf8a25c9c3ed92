/* links: tailnetd/data/outbox.c core/tn_addr.c */
/* libs: -Wl,--wrap=sendmsg,--wrap=sendto */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/data/outbox.h"

#define WAIT_MS 5000

/* System calls that fail on order, in place of the kernel. */
static int fail_sendmsg, fail_sendto; /* errno; 0: the real call */
static unsigned sendmsgs, sendtos;

ssize_t __real_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __real_sendto(int fd, const void *p, size_t n, int flags,
    const struct sockaddr *sa, socklen_t len);
ssize_t __wrap_sendto(int fd, const void *p, size_t n, int flags,
    const struct sockaddr *sa, socklen_t len);

ssize_t
__wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
    sendmsgs++;
    assert_true(flags & MSG_DONTWAIT);
    if (fail_sendmsg == 0)
        return __real_sendmsg(fd, m, flags);
    errno = fail_sendmsg;
    return -1;
}

ssize_t
__wrap_sendto(int fd, const void *p, size_t n, int flags,
    const struct sockaddr *sa, socklen_t len)
{
    sendtos++;
    assert_true(flags & MSG_DONTWAIT);
    if (fail_sendto == 0)
        return __real_sendto(fd, p, n, flags, sa, len);
    errno = fail_sendto;
    return -1;
}

/* A sender and two receivers of a family. */
struct family {
    int tx;
    int rx[2];
    struct tn_endpoint dst[2];
};

static struct family families[2]; /* IPv4, IPv6 */
static struct outbox *o;
static bool no_gso;

static int
make_socket(const struct tn_addr *a, uint16_t *port)
{
    struct tn_endpoint e = {*a, 0}, got;
    struct sockaddr_storage ss;
    socklen_t len = outbox_sockaddr(&e, &ss);
    int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int size = 4 << 20;

    if (fd == -1 || bind(fd, (struct sockaddr *)&ss, len) != 0)
        fail_msg("UDP socket on loopback: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    len = sizeof(ss);
    getsockname(fd, (struct sockaddr *)&ss, &len);
    assert_int_equal(
        tn_addr_from_sockaddr((struct sockaddr *)&ss, &got.addr, port), 0);
    return fd;
}

static void
open_all(void)
{
    static const uint8_t one4[4] = {127, 0, 0, 1}, one6[16] = {[15] = 1};
    struct tn_addr addrs[2] = {tn_addr_from4(one4), tn_addr_from6(one6)};
    struct family *f;
    uint16_t port;
    int i, j;

    for (i = 0; i < 2; i++) {
        f = &families[i];
        f->tx = make_socket(&addrs[i], &port);
        for (j = 0; j < 2; j++) {
            f->dst[j].addr = addrs[i];
            f->rx[j] = make_socket(&addrs[i], &f->dst[j].port);
        }
    }
}

static void
close_all(void)
{
    int i;

    for (i = 0; i < 2; i++) {
        close(families[i].tx);
        close(families[i].rx[0]);
        close(families[i].rx[1]);
    }
}

static int
setup(void **state)
{
    (void)state;
    o = calloc(1, sizeof(*o));
    no_gso = false;
    fail_sendmsg = fail_sendto = 0;
    sendmsgs = sendtos = 0;
    open_all();
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    close_all();
    free(o);
    return 0;
}

/* Datagram number ${i} of a test, ${len} bytes. */
static const uint8_t *
datagram(unsigned i, size_t len)
{
    static uint8_t b[OUTBOX_SIZE + 1];
    size_t k;

    for (k = 0; k < len; k++)
        b[k] = (uint8_t)(i * 31 + k * 7);
    return b;
}

static bool
add(const struct tn_endpoint *dst, unsigned i, size_t len)
{
    return outbox_add(o, dst, datagram(i, len), len);
}

/* The next datagram at ${fd} is number ${i}. */
static void
expect(int fd, unsigned i, size_t len)
{
    static uint8_t b[65536];
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (poll(&p, 1, WAIT_MS) != 1)
        fail_msg("datagram %u did not come", i);
    assert_int_equal(recv(fd, b, sizeof(b), 0), len);
    assert_memory_equal(b, datagram(i, len), len);
}

static void
expect_none(int fd)
{
    char b;

    assert_int_equal(recv(fd, &b, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

static void
check_result(struct outbox_result r, unsigned calls, unsigned sent,
    unsigned full, unsigned failed)
{
    assert_int_equal(r.calls, calls);
    assert_int_equal(r.sent, sent);
    assert_int_equal(r.full, full);
    assert_int_equal(r.failed, failed);
    assert_int_equal(o->count, 0);
    assert_int_equal(sendmsgs + sendtos, calls);
    sendmsgs = sendtos = 0;
}

/* ---- what goes together ---- */

static void
test_sockaddr(void **state)
{
    static const uint8_t b4[4] = {192, 0, 2, 9},
                         b6[16] = {0xfe, 0x80, [15] = 3};
    struct tn_endpoint e4 = {tn_addr_from4(b4), 41641};
    struct tn_endpoint e6 = {tn_addr_from6(b6), 1};
    struct sockaddr_storage ss;
    struct sockaddr_in *sin = (void *)&ss;
    struct sockaddr_in6 *sin6 = (void *)&ss;

    (void)state;
    memset(&ss, 0xff, sizeof(ss));
    assert_int_equal(outbox_sockaddr(&e4, &ss), sizeof(*sin));
    assert_int_equal(sin->sin_family, AF_INET);
    assert_int_equal(sin->sin_port, htons(41641));
    assert_memory_equal(&sin->sin_addr, b4, 4);
    memset(&ss, 0xff, sizeof(ss));
    assert_int_equal(outbox_sockaddr(&e6, &ss), sizeof(*sin6));
    assert_int_equal(sin6->sin6_family, AF_INET6);
    assert_int_equal(sin6->sin6_port, htons(1));
    assert_memory_equal(&sin6->sin6_addr, b6, 16);
    assert_int_equal(sin6->sin6_scope_id, 0);
    assert_int_equal(sin6->sin6_flowinfo, 0);
}

static void
test_add(void **state)
{
    struct tn_endpoint a = families[0].dst[0], port = a, addr = a;

    (void)state;
    port.port++;
    addr.addr.b[15]++;
    assert_false(add(&a, 0, 0));
    assert_false(add(&a, 0, OUTBOX_SIZE + 1));
    assert_int_equal(o->count, 0);
    assert_true(add(&a, 0, 100));
    assert_false(add(&a, 1, 101));
    assert_false(add(&port, 1, 100));
    assert_false(add(&addr, 1, 100));
    assert_false(add(&families[1].dst[0], 1, 100));
    assert_true(add(&a, 1, 100));
    assert_true(add(&a, 2, 99));
    assert_false(add(&a, 3, 99)); /* behind a shorter one */
    assert_false(add(&a, 3, 1));
    assert_int_equal(o->count, 3);
    assert_int_equal(o->used, 299);
    assert_memory_equal(o->buf + 200, datagram(2, 99), 99);
}

static void
test_limits(void **state)
{
    struct tn_endpoint *dst = &families[0].dst[0];
    unsigned i;

    (void)state;
    for (i = 0; i < OUTBOX_SEGMENTS; i++)
        assert_true(add(dst, i, 10));
    assert_false(add(dst, i, 10));
    assert_int_equal(outbox_send(o, families[0].tx, &no_gso).sent, 64);
    for (i = 0; i < OUTBOX_SIZE / 1312; i++)
        assert_true(add(dst, i, 1312));
    assert_false(add(dst, i, 1312));
    assert_true(add(dst, i, OUTBOX_SIZE % 1312));
    assert_int_equal(o->used, OUTBOX_SIZE);
    assert_false(add(dst, i, 1));
}

/* ---- to a real socket ---- */

static void
test_nothing(void **state)
{
    (void)state;
    check_result(outbox_send(o, families[0].tx, &no_gso), 0, 0, 0, 0);
}

/* Runs of any length and size, the last one shorter: one call each, and what
 * arrives are the datagrams that were added. */
static void
test_runs(void **state)
{
    static const struct {
        size_t len, last;
        unsigned n;
    } runs[] = {
        {1, 1, 1},
        {1, 1, 64},
        {148, 148, 2},
        {1312, 1312, 49},
        {1312, 1, 50},
        {1312, 712, 50},
        {1452, 96, 44},
        {9000, 9000, 7},
        {32000, 1000, 3},
        {65000, 65000, 1},
    };
    struct family *f;
    size_t r;
    unsigned i;
    int k;

    (void)state;
    for (k = 0; k < 4; k++) {
        f = &families[k & 1];
        for (r = 0; r < sizeof(runs) / sizeof(runs[0]); r++) {
            for (i = 0; i + 1 < runs[r].n; i++)
                assert_true(add(&f->dst[k >> 1], i, runs[r].len));
            assert_true(add(&f->dst[k >> 1], i, runs[r].last));
            check_result(outbox_send(o, f->tx, &no_gso), 1, runs[r].n, 0, 0);
            for (i = 0; i + 1 < runs[r].n; i++)
                expect(f->rx[k >> 1], i, runs[r].len);
            expect(f->rx[k >> 1], i, runs[r].last);
        }
        assert_false(no_gso);
        expect_none(f->rx[!(k >> 1)]);
    }
}

/* As the data path uses it: what does not go together is sent first. */
static void
test_mixed(void **state)
{
    static const struct {
        int dst;
        size_t len;
    } seq[] = {{0, 100}, {0, 100}, {1, 100}, {1, 200}, {1, 200}, {1, 50},
        {1, 50}, {0, 300}, {0, 300}, {0, 299}, {1, 1}};
    struct outbox_result r;
    unsigned i, calls = 0, sent = 0;
    struct family *f;
    int k;

    (void)state;
    for (k = 0; k < 2; k++) {
        f = &families[k];
        calls = sent = 0;
        for (i = 0; i <= sizeof(seq) / sizeof(seq[0]); i++) {
            if (i < sizeof(seq) / sizeof(seq[0]) &&
                add(&f->dst[seq[i].dst], i, seq[i].len))
                continue;
            r = outbox_send(o, f->tx, &no_gso);
            calls += r.calls;
            sent += r.sent;
            if (i < sizeof(seq) / sizeof(seq[0]))
                assert_true(add(&f->dst[seq[i].dst], i, seq[i].len));
        }
        assert_int_equal(calls, 6);
        assert_int_equal(sent, 11);
        for (i = 0; i < sizeof(seq) / sizeof(seq[0]); i++)
            expect(f->rx[seq[i].dst], i, seq[i].len);
    }
}

/* ---- where segments are not taken ---- */

static void
fill(const struct family *f)
{
    unsigned i;

    for (i = 0; i < 4; i++)
        assert_true(add(&f->dst[0], i, 500));
    assert_true(add(&f->dst[0], i, 77));
}

static void
expect_filled(const struct family *f)
{
    unsigned i;

    for (i = 0; i < 4; i++)
        expect(f->rx[0], i, 500);
    expect(f->rx[0], i, 77);
    expect_none(f->rx[0]);
}

static void
test_no_gso(void **state)
{
    int k;

    (void)state;
    no_gso = true;
    for (k = 0; k < 2; k++) {
        fill(&families[k]);
        check_result(outbox_send(o, families[k].tx, &no_gso), 5, 5, 0, 0);
        expect_filled(&families[k]);
    }
    assert_true(add(&families[0].dst[0], 0, 9));
    check_result(outbox_send(o, families[0].tx, &no_gso), 1, 1, 0, 0);
    expect(families[0].rx[0], 0, 9);
}

/* Refused segments go out one by one; whether it is tried again depends on what
 * is to blame. */
static void
test_refused(void **state)
{
    static const struct {
        int err;
        bool for_good;
    } table[] = {
        {EIO, true},
        {EOPNOTSUPP, true},
        {EMSGSIZE, false},
        {EINVAL, false},
    };
    struct family *f;
    size_t i;
    int k;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (k = 0; k < 2; k++) {
            f = &families[k];
            no_gso = false;
            fail_sendmsg = table[i].err;
            fill(f);
            check_result(outbox_send(o, f->tx, &no_gso), 6, 5, 0, 0);
            expect_filled(f);
            assert_int_equal(no_gso, table[i].for_good);
            fail_sendmsg = 0;
            fill(f);
            check_result(outbox_send(o, f->tx, &no_gso),
                table[i].for_good ? 5 : 1, 5, 0, 0);
            expect_filled(f);
        }
    }
}

/* A single datagram that is refused is lost, and no reason to give up
 * segments. */
static void
test_refused_single(void **state)
{
    static const int errors[] = {EIO, EINVAL, EMSGSIZE, EOPNOTSUPP, EPERM};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        fail_sendmsg = errors[i];
        assert_true(add(&families[0].dst[0], 0, 100));
        check_result(outbox_send(o, families[0].tx, &no_gso), 1, 0, 0, 1);
        assert_false(no_gso);
    }
}

static void
test_errors(void **state)
{
    static const struct {
        int err;
        bool full;
    } table[] = {
        {EAGAIN, true},
        {ENOBUFS, true},
        {ENETUNREACH, false},
        {EHOSTUNREACH, false},
        {EPERM, false},
        {ECONNREFUSED, false},
        {EACCES, false},
    };
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        fail_sendmsg = fail_sendto = table[i].err;
        no_gso = false;
        fill(&families[0]);
        check_result(outbox_send(o, families[0].tx, &no_gso), 1, 0,
            table[i].full ? 5 : 0, table[i].full ? 0 : 5);
        assert_false(no_gso);
        no_gso = true;
        fill(&families[0]);
        check_result(outbox_send(o, families[0].tx, &no_gso), 5, 0,
            table[i].full ? 5 : 0, table[i].full ? 0 : 5);
    }
    fail_sendmsg = fail_sendto = 0;
    no_gso = false;
    fill(&families[0]);
    check_result(outbox_send(o, families[0].tx, &no_gso), 1, 5, 0, 0);
    expect_filled(&families[0]);
}

/* The kernel's own refusal of a destination does not end segments for others.
 */
static void
test_bad_destination(void **state)
{
    struct tn_endpoint nowhere;
    int k;

    (void)state;
    for (k = 0; k < 2; k++) {
        nowhere = families[k].dst[0];
        nowhere.port = 0;
        assert_true(add(&nowhere, 0, 100));
        assert_true(add(&nowhere, 1, 100));
        check_result(outbox_send(o, families[k].tx, &no_gso), 3, 0, 0, 2);
        assert_false(no_gso);
    }
}

/* ---- a path whose MTU segments pass ---- */

static bool
small_loopback(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_mtu = 1280};
    int fd;
    bool done;

    if (unshare(CLONE_NEWNET) != 0 &&
        unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return false;
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    done = ioctl(fd, SIOCSIFMTU, &r) == 0;
    r.ifr_flags = IFF_UP;
    done = done && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    close(fd);
    return done;
}

/* Runs last: the process stays in its new namespace. */
static void
test_path_mtu(void **state)
{
    struct family *f;
    unsigned i;
    int k;

    (void)state;
    if (!small_loopback()) {
        print_message("no network namespace: %s\n", strerror(errno));
        skip();
    }
    close_all();
    open_all();
    for (k = 0; k < 2; k++) {
        f = &families[k];
        for (i = 0; i < 3; i++)
            assert_true(add(&f->dst[0], i, 1400));
        check_result(outbox_send(o, f->tx, &no_gso), 4, 3, 0, 0);
        for (i = 0; i < 3; i++)
            expect(f->rx[0], i, 1400);
        assert_false(no_gso);
        for (i = 0; i < 3; i++)
            assert_true(add(&f->dst[1], i, 1232));
        check_result(outbox_send(o, f->tx, &no_gso), 1, 3, 0, 0);
        for (i = 0; i < 3; i++)
            expect(f->rx[1], i, 1232);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sockaddr),
        cmocka_unit_test_setup_teardown(test_add, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mixed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_gso, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_single, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_destination, setup, teardown),
        cmocka_unit_test_setup_teardown(test_path_mtu, setup, teardown),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

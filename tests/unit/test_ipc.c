/* links: tailnetd/ipc.c tailnetd/rights.c */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/ipc.h"

static int sv[2];

static int
setup(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv);
}

static int
teardown(void **state)
{
    (void)state;
    close(sv[0]);
    close(sv[1]);
    return 0;
}

static int
count_fds(void)
{
    int fd, n = 0;

    for (fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) != -1;
    return n;
}

static void
test_round_trip(void **state)
{
    struct ipc_msg m, got;
    int fds[IPC_FDS_MAX], in[IPC_FDS_MAX], i;
    struct stat a, b;
    size_t n;

    (void)state;
    memset(&m, 0, sizeof(m));
    m.type = IPC_PUT;
    strcpy(m.name, "udp4/web");
    for (i = 0; i < IPC_FDS_MAX; i++)
        in[i] = i % 2 ? sv[0] : sv[1];
    assert_int_equal(ipc_recv(sv[1], &got, fds, &n), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(ipc_send(sv[0], &m, in, IPC_FDS_MAX), 0);
    assert_int_equal(ipc_recv(sv[1], &got, fds, &n), 1);
    assert_int_equal(n, IPC_FDS_MAX);
    assert_memory_equal(&m, &got, sizeof(m));
    for (i = 0; i < IPC_FDS_MAX; i++) {
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        fstat(fds[i], &a);
        fstat(in[i], &b);
        assert_int_equal(a.st_ino, b.st_ino);
        close(fds[i]);
    }
    errno = 0;
    assert_int_equal(ipc_send(sv[0], &m, in, IPC_FDS_MAX + 1), -1);
    assert_int_equal(errno, EINVAL);
}

/* What each type may carry; everything else is refused and closed. */
static void
test_well_formed(void **state)
{
    static const struct {
        uint16_t type, kind;
        size_t nfds;
        int rc;
    } table[] = {
        {IPC_ENTRY, 0, 1, 1},
        {IPC_ENTRY, 0, 0, -1},
        {IPC_PUT, 0, 0, 1},
        {IPC_NODE, 0, 1, 1},
        {IPC_NODE, 0, 0, -1},
        {IPC_NODE, IPC_NODE_KEY | IPC_NODE_NETMAP, 3, 1},
        {IPC_NODE, IPC_NODE_KEY | IPC_NODE_NETMAP, 2, -1},
        {IPC_NETMAP, 0, 1, 1},
        {IPC_NETMAP, 0, 0, -1},
        {IPC_NOFILE, 0, 0, 1},
        {IPC_NOFILE, 0, 1, -1},
        {IPC_LISTENERS, 0, 0, 1},
        {IPC_GONE, 0, 0, 1},
        {IPC_READY, 0, 0, 1},
        {IPC_READY, 0, 1, -1},
        {IPC_QUERY, 0, 0, 1},
        {IPC_MAIN, 0, 1, 1},
        {IPC_MAIN, 0, 2, -1},
        {IPC_LOG, 0, 1, 1},
        {IPC_LOG, 0, 0, -1},
        {IPC_NETCONF, 0, 0, 1},
        {IPC_SNAPSHOT, 0, 1, 1},
        {IPC_SNAPSHOT, 0, 0, -1},
        {IPC_ANSWER, 0, 1, 1},
        {IPC_ANSWER, 0, 0, 1},
        {IPC_ANSWER, 0, 2, -1},
        {0, 0, 0, -1},
        {99, 0, 0, -1},
    };
    int in[3], fds[IPC_FDS_MAX], before, rc;
    struct ipc_msg m, got;
    size_t i, n;

    (void)state;
    in[0] = in[1] = in[2] = sv[0];
    before = count_fds();
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        memset(&m, 0, sizeof(m));
        m.type = table[i].type;
        m.kind = table[i].kind;
        strcpy(m.name, "web");
        assert_int_equal(ipc_send(sv[0], &m, in, table[i].nfds), 0);
        errno = 0;
        rc = ipc_recv(sv[1], &got, fds, &n);
        if (rc != table[i].rc)
            print_error("# row %zu\n", i);
        assert_int_equal(rc, table[i].rc);
        if (rc == -1)
            assert_int_equal(errno, EBADMSG);
        while (rc == 1 && n > 0)
            close(fds[--n]);
        assert_int_equal(count_fds(), before);
    }
}

static void
refused(const struct ipc_msg *m)
{
    int fds[IPC_FDS_MAX];
    struct ipc_msg got;
    size_t n;

    assert_int_equal(ipc_send(sv[0], m, NULL, 0), 0);
    errno = 0;
    assert_int_equal(ipc_recv(sv[1], &got, fds, &n), -1);
    assert_int_equal(errno, EBADMSG);
}

static void
test_contents(void **state)
{
    struct ipc_msg m;

    (void)state;
    memset(&m, 0, sizeof(m));
    m.type = IPC_PUT; /* without a name */
    refused(&m);
    memset(m.name, 'x', sizeof(m.name));
    refused(&m);
    m.type = IPC_GONE;
    refused(&m);
    memset(&m, 0, sizeof(m));
    m.type = IPC_NOFILE;
    memset(m.text, 'x', sizeof(m.text));
    refused(&m);
    memset(&m, 0, sizeof(m));
    m.type = IPC_NETCONF;
    m.naddrs = IPC_ADDRS_MAX + 1;
    refused(&m);
    memset(&m, 0, sizeof(m));
    m.type = IPC_LISTENERS;
    m.nlisteners = IPC_LISTENERS_MAX + 1;
    refused(&m);
}

static void
test_lengths(void **state)
{
    static char big[sizeof(struct ipc_msg) + 1];
    static const size_t lens[] = {
        1, sizeof(struct ipc_msg) - 1, sizeof(struct ipc_msg) + 1};
    int fds[IPC_FDS_MAX];
    struct ipc_msg got;
    size_t i, n;

    (void)state;
    memset(big, 0, sizeof(big));
    big[0] = IPC_READY;
    for (i = 0; i < 3; i++) {
        assert_int_equal(send(sv[0], big, lens[i], 0), lens[i]);
        assert_int_equal(ipc_recv(sv[1], &got, fds, &n), -1);
        assert_int_equal(errno, EBADMSG);
    }
    close(sv[0]);
    assert_int_equal(ipc_recv(sv[1], &got, fds, &n), 0);
    assert_int_equal(setup(state), 0);
}

static void
test_bounded(void **state)
{
    struct timeval tv = {0, 50000};
    struct ipc_msg m;
    int i, rc = 0;

    (void)state;
    memset(&m, 0, sizeof(m));
    m.type = IPC_READY;
    setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    for (i = 0; i < 100000 && rc == 0; i++)
        rc = ipc_send(sv[0], &m, NULL, 0);
    assert_int_equal(rc, -1);
    assert_int_equal(errno, EAGAIN);
    close(sv[1]);
    assert_int_equal(ipc_send(sv[0], &m, NULL, 0), -1); /* no SIGPIPE */
    assert_true(errno == EPIPE || errno == ECONNRESET);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),
        TEST(test_well_formed),
        TEST(test_contents),
        TEST(test_lengths),
        TEST(test_bounded),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

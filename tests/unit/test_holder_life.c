/* links: tailnetd/holder/holder.c tailnetd/holder/admin.c */
/* links: tailnetd/holder/conn.c tailnetd/holder/cycle.c */
/* links: tailnetd/holder/lease.c tailnetd/holder/child.c */
/* links: tailnetd/holder/lines.c tailnetd/holder/query.c */
/* links: tailnetd/holder/store.c tailnetd/holder/sock.c */
/* links: tailnetd/holder/netns.c tailnetd/holder/tun.c */
/* links: tailnetd/holder/netconf.c tailnetd/holder/keysrc.c */
/* links: tailnetd/holder/door.c tailnetd/holder/drain.c */
/* links: tailnetd/holder/notify.c */
/* links: tailnetd/holder/state.c tailnetd/holder/authkey.c */
/* links: tailnetd/ipc.c tailnetd/log.c tailnetd/rights.c */
/* links: tailnetd/isolate.c core/tn_node.c core/tn_addr.c */
/* libs: -lseccomp */
/*
 * The real holder with a stand-in for the engine: start, end, the death of the
 * holder itself, service mode, no privileges, no descriptor left behind.
 */
#include <sched.h>
#include <sys/mount.h>

#include "holder_kit.h"

#define NOBODY 65534

/* ---- end ---- */

static void
gone(const struct kit *k)
{
    char lock[128];

    snprintf(lock, sizeof(lock), "%s.lock", k->socket);
    assert_int_equal(access(k->socket, F_OK), -1);
    assert_int_equal(access(lock, F_OK), -1);
}

static void
test_linger(void **state)
{
    struct kit *k = *state;
    int ctl, pid, hello = -1, worker, again;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    worker = kit_worker(k, k->cycle, &hello);
    close(k->fd);
    close(hello);
    k->fd = -1;
    kit_sleep(600); /* a worker is somebody */
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    pid = kit_wait(ctl, "ready");
    close(worker);
    kit_sleep(100);
    again = kit_open(k, TN_ROLE_MASTER, NULL); /* nginx was restarted */
    kit_sleep(400);
    kit_commit(k, again, "a");
    assert_int_equal(kit_count(ctl, "gone"), 0);
    close(again);
    assert_int_equal(kit_join(k), 0);
    assert_int_equal(kill(pid, 0), -1);
    gone(k);
    close(ctl);
}

static void
test_stop(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int64_t start;
    int next, pid;

    k->linger_ms = 60000;
    kit_start(k);
    kit_commit(k, k->fd, "a");
    next = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_commit(k, next, "a");
    /* The old binary ends; the new one goes on. */
    kit_is(kit_simple(k->fd, TN_ADMIN_STOP, &a), TN_ADMIN_OK, &a);
    close(k->fd);
    k->fd = kit_open(k, TN_ROLE_CTL, NULL);
    pid = kit_wait(k->fd, "ready");
    start = kit_now();
    kit_is(kit_simple(next, TN_ADMIN_STOP, &a), TN_ADMIN_OK, &a);
    gone(k); /* by the time of the answer */
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(kit_join(k), 0);
    assert_true(kit_now() - start < 3000);
    close(next);
}

static void
test_second_holder(void **state)
{
    struct kit *k = *state, other;
    struct kit_answer a;
    struct holder_config conf = {
        .socket = k->socket, .log = k->log, .linger_ms = 1, .delay_ms = 1};
    int sv[2];

    kit_start(k);
    other = *k;
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    other.pid = fork();
    if (other.pid == 0) {
        conf.admin_fd = sv[1];
        exit(holder_main(&conf));
    }
    close(sv[1]);
    kit_is_error(kit_say_hello(sv[0], TN_ADMIN_VERSION, TN_ROLE_MASTER, &a), &a,
        "another tailnetd owns this socket");
    assert_int_equal(kit_join(&other), 1);
    close(sv[0]);
    close(kit_open(k, TN_ROLE_CTL, NULL)); /* the first is unharmed */
    /* After a death the socket file is stale, and that is all. */
    kill(k->pid, SIGKILL);
    kit_join(k);
    close(k->fd);
    kit_start(k);
    close(kit_open(k, TN_ROLE_CTL, NULL));
}

static void
test_log_moves(void **state)
{
    struct kit *k = *state;
    char moved[128];

    kit_start(k);
    kit_commit(k, k->fd, "a");
    assert_true(kit_logged(k, "[notice] "));
    snprintf(moved, sizeof(moved), "%s.1", k->log);
    assert_int_equal(rename(k->log, moved), 0);
    kit_sleep(1100);
    close(k->fd);
    k->fd = -1;
    assert_int_equal(kit_join(k), 0);
    assert_true(kit_logged(k, "tailnetd: ended"));
}

/* Missing things are named, and how to grant them. */
static void
test_no_tun(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;

    if (unshare(CLONE_NEWNS) == -1 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1 ||
        mount("none", "/dev/net", "tmpfs", 0, NULL) == -1)
        skip();
    kit_start(k);
    kit_is_error(kit_say_table(k->fd, kit_table(k, "a"), &a), &a,
        "node a: /dev/net/tun is missing: grant the container the device "
        "(--device /dev/net/tun)");
    umount("/dev/net");
    kit_is(kit_say_table(k->fd, kit_table(k, "a"), &a), TN_ADMIN_OK, &a);
}

/* ---- descriptors ---- */

static int
count_fds(pid_t pid)
{
    char path[64];
    struct dirent *e;
    int n = 0;
    DIR *d;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    d = opendir(path);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static int
settle_fds(pid_t pid, int wanted)
{
    int i, n = -1;

    for (i = 0; i < 100; i++) {
        n = count_fds(pid);
        if (n == wanted)
            break;
        kit_sleep(20);
    }
    return n;
}

static void
test_no_leak(void **state)
{
    static const char *const tables[] = {"ab", "a", "b", "abc", "ac"};
    struct kit *k = *state;
    struct kit_answer a;
    struct tn_admin_sockets s;
    int i, ctl, next, hello, worker, before;
    uint64_t cycle;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "ready");
    kit_sleep(200);
    before = count_fds(k->pid);
    for (i = 0; i < 100; i++) {
        next = kit_open(k, TN_ROLE_MASTER, &cycle);
        kit_is(kit_say_table(next, kit_table(k, tables[i % 5]), &a),
            TN_ADMIN_OK, &a);
        if (kit_listen(next, "a", 4, 1, 80 + i % 3, -1, &a) != -1)
            kit_close(&a);
        kit_listen(next, "nobody", 4, 1, 80, -1, &a);
        if (i % 4 != 0)
            kit_is(kit_simple(next, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
        hello = -1;
        worker = kit_worker(k, cycle, &hello);
        if (kit_subscribe(worker, "a", &a) == TN_ADMIN_OK &&
            kit_recv(worker, &a, 1000) == TN_ADMIN_SNAPSHOT)
            kit_close(&a);
        memset(&s, 0, sizeof(s));
        s.node[0] = 'a';
        s.family = i % 2 ? 4 : 6;
        s.type = 1;
        s.count = 8;
        kit_ask(worker, TN_ADMIN_SOCKETS, &s, sizeof(s), NULL, 0, &a);
        kit_close(&a);
        kit_say_table(hello, "nonsense", &a);
        kit_send(hello, &s, 5, NULL, 0);
        close(next);
        close(hello);
        close(worker);
        if (i % 10 == 0) { /* gone while the engine still starts it */
            next = kit_open(k, TN_ROLE_MASTER, NULL);
            kit_commit(k, next, "bc");
            close(next);
        }
    }
    kit_sleep(200);
    assert_int_equal(settle_fds(k->pid, before), before);
    close(ctl);
}

/* ---- the death of the holder ---- */

/* Gives a new holder what the old one's nginx still has. */
static int
adopt(int fd, const char *node, int listener, int bequest, struct kit_answer *a)
{
    struct tn_admin_adopt m;
    int fds[2] = {listener, bequest};

    memset(&m, 0, sizeof(m));
    snprintf(m.node, sizeof(m.node), "%s", node);
    return kit_ask(
        fd, TN_ADMIN_ADOPT, &m, sizeof(m), fds, bequest == -1 ? 1 : 2, a);
}

static void
run_adopt(struct kit *k, bool engine_lives)
{
    struct kit_answer a, b, c;
    int ctl, pid, now, bequest, listener, other, host;
    uint64_t cookie;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    pid = kit_wait(ctl, "ready");
    kit_is(kit_simple(k->fd, TN_ADMIN_BEQUEST, &a), TN_ADMIN_FD, &a);
    bequest = a.fds[0];
    listener = kit_listen(k->fd, "a", 4, 1, 80, -1, &b);
    assert_true(listener != -1);
    other = kit_listen(k->fd, "a", 4, 1, 81, -1, &c);
    assert_true(other != -1);
    cookie = kit_cookie(listener);
    if (!engine_lives)
        kill(pid, SIGSTOP); /* it does not answer */
    kill(k->pid, SIGKILL);
    kit_join(k);
    close(k->fd);
    close(ctl);
    kit_start(k);
    host = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    kit_is_error(adopt(k->fd, "a", host, -1, &a), &a, "host's namespace");
    close(host);
    kit_is(adopt(k->fd, "a", listener, bequest, &a), TN_ADMIN_OK, &a);
    kit_is(adopt(k->fd, "a", other, -1, &a), TN_ADMIN_OK, &a);
    if (!engine_lives)
        kill(pid, SIGKILL); /* let go of mesh0 */
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    if (engine_lives) {
        now = kit_wait(ctl, "resumed\n");
        assert_int_equal(now, pid);
        kit_wait(ctl, "resumed\nnode a 0 1280 5: KEY-A MAP-A\n");
    } else {
        now = kit_wait(ctl, "ready\n");
        assert_int_not_equal(now, pid);
        kit_wait(ctl, "node a 0 1280 5: KEY-A MAP-A\n");
    }
    /* The same namespace, and the same sockets without asking for a port that
     * is taken. */
    now = kit_listen(k->fd, "a", 4, 1, 81, -1, &a);
    assert_int_equal(kit_ino(now), kit_ino(other));
    kit_close(&a);
    assert_true(kit_listen(k->fd, "a", 6, 1, 82, -1, &a) != -1);
    assert_int_equal(kit_cookie(a.fds[0]), cookie);
    kit_close(&a);
    if (engine_lives) {
        /* Its end is seen, and its successor has what it left. */
        kill(pid, SIGKILL);
        kit_wait(ctl, "entry udp4/a 1\n");
        kit_is(kit_simple(k->fd, TN_ADMIN_BEQUEST, &a), TN_ADMIN_FD, &a);
        kit_close(&a);
    }
    kit_close(&b);
    kit_close(&c);
    close(bequest);
    close(ctl);
}

static void
test_adopt_living(void **state)
{
    run_adopt(*state, true);
}

static void
test_adopt_dead(void **state)
{
    run_adopt(*state, false);
}

/* An adopted engine whose reload failed goes on without us. */
static void
test_adopt_fails(void **state)
{
    struct kit *k = *state;
    struct kit_answer a, b;
    int ctl, pid, bequest, listener;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    pid = kit_wait(ctl, "ready");
    kit_is(kit_simple(k->fd, TN_ADMIN_BEQUEST, &a), TN_ADMIN_FD, &a);
    bequest = a.fds[0];
    listener = kit_listen(k->fd, "a", 4, 1, 80, -1, &b);
    kill(k->pid, SIGKILL);
    kit_join(k);
    close(k->fd);
    close(ctl);
    kit_start(k);
    kit_is(adopt(k->fd, "a", listener, bequest, &a), TN_ADMIN_OK, &a);
    kit_is(kit_say_table(k->fd, kit_table(k, "a"), &a), TN_ADMIN_OK, &a);
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "resumed");
    close(ctl);
    close(k->fd);
    k->fd = -1;
    assert_int_equal(kit_join(k), 0);
    assert_int_equal(kill(pid, 0), 0);
    kit_start(k);
    kit_is(adopt(k->fd, "a", listener, bequest, &a), TN_ADMIN_OK, &a);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    assert_int_equal(kit_wait(ctl, "resumed\nresumed\n"), pid);
    close(ctl);
    kit_close(&b);
    close(bequest);
}

/* ---- service ---- */

static int
wait_open(struct kit *k, uint32_t role)
{
    int64_t end = kit_now() + KIT_WAIT_MS;
    int fd;

    while ((fd = kit_connect(k)) == -1 && kit_now() < end)
        kit_sleep(10);
    assert_true(fd != -1);
    kit_hello(fd, role);
    return fd;
}

static void
test_service(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int ctl, pid;

    k->service = true;
    kit_write(k, "nodes", kit_table(k, "a"), 0644);
    kit_start(k);
    ctl = wait_open(k, TN_ROLE_CTL);
    pid = kit_wait(ctl, "ready");
    kit_wait(ctl, "node a ");
    /* nginx may use its nodes, not define any. */
    k->fd = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_is_error(
        kit_say_table(k->fd, kit_table(k, "b"), &a), &a, "define them there");
    kit_is(kit_say_table(k->fd, "", &a), TN_ADMIN_OK, &a);
    kit_is(kit_simple(k->fd, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
    assert_true(kit_listen(k->fd, "a", 4, 1, 80, -1, &a) != -1);
    kit_close(&a);
    /* A bad file changes nothing; a good one does. */
    kit_write(k, "nodes", "tailnet_node a {\n", 0644);
    kill(k->pid, SIGHUP);
    assert_true(kit_logged(k, "the nodes stay as they are"));
    kit_write(k, "nodes", kit_table(k, "b"), 0644);
    kill(k->pid, SIGHUP);
    kit_wait(ctl, "node b ");
    assert_int_equal(kit_count(ctl, "gone a"), 0); /* nginx uses it */
    kit_is(kit_simple(k->fd, TN_ADMIN_STOP, &a), TN_ADMIN_OK, &a);
    close(k->fd);
    k->fd = -1;
    kit_wait(ctl, "gone a");
    kit_sleep(500);
    assert_int_equal(kit_wait(ctl, "node b "), pid);
    kill(k->pid, SIGTERM);
    assert_int_equal(kit_join(k), 0);
    assert_int_equal(kill(pid, 0), -1);
    gone(k);
    close(ctl);
}

/* ---- without privileges ---- */

static void
test_rootless(void **state)
{
    struct kit *k = *state;
    struct kit_answer a, b;
    struct tn_admin_node m;
    int ctl, pid, bequest, listener;

    k->uid = NOBODY;
    assert_int_equal(chown(k->dir, NOBODY, NOBODY), 0);
    kit_write(k, "a.key", "KEY-A\n", 0600);
    kit_start(k);
    if (kit_say_table(k->fd, kit_table(k, "a"), &a) == TN_ADMIN_ERROR) {
        print_message("# no user namespaces here: %s\n", kit_text(&a));
        assert_non_null(strstr(kit_text(&a), "user namespaces are off"));
        skip();
    }
    kit_is(kit_simple(k->fd, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    pid = kit_wait(ctl, "uid 65534\n");
    kit_wait(ctl, "node a 0 1280 5: KEY-A MAP-A\n");
    listener = kit_listen(k->fd, "a", 4, 1, 80, -1, &b);
    assert_true(listener != -1);
    memset(&m, 0, sizeof(m));
    m.node[0] = 'a';
    kit_is(kit_ask(ctl, TN_ADMIN_NETNS, &m, sizeof(m), NULL, 0, &a),
        TN_ADMIN_FDS, &a);
    assert_int_equal(a.nfds, 2);
    kit_close(&a);
    kit_is(kit_simple(k->fd, TN_ADMIN_BEQUEST, &a), TN_ADMIN_FD, &a);
    bequest = a.fds[0];
    close(ctl);
    /* It finds its namespaces again, too. */
    kill(k->pid, SIGKILL);
    kit_join(k);
    close(k->fd);
    kit_start(k);
    kit_is(adopt(k->fd, "a", listener, bequest, &a), TN_ADMIN_OK, &a);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    assert_int_equal(kit_wait(ctl, "resumed\n"), pid);
    assert_true(kit_listen(k->fd, "a", 4, 1, 443, -1, &a) != -1);
    assert_int_equal(kit_cookie(a.fds[0]), kit_cookie(listener));
    kit_close(&a);
    kit_close(&b);
    close(bequest);
    close(ctl);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_linger),
        KIT_TEST(test_stop),
        KIT_TEST(test_second_holder),
        KIT_TEST(test_log_moves),
        KIT_TEST(test_no_leak),
        KIT_TEST(test_adopt_living),
        KIT_TEST(test_adopt_dead),
        KIT_TEST(test_adopt_fails),
        KIT_TEST(test_service),
        KIT_TEST(test_rootless),
        KIT_TEST(test_no_tun),
    };
    const char *missing;

    if (argc > 1 && strcmp(argv[1], "--engine") == 0)
        return fake_engine();
    missing = kit_missing();
    if (missing != NULL) {
        printf("1..0 # SKIP %s\n", missing);
        return 0;
    }
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

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
 * The real holder with a stand-in for the engine: the admin channel, cycles,
 * namespaces, the engine's life, the nodes' files.
 */
#include <sys/file.h>
#include <sys/mman.h>

#include "../../ngx_tailnet_module/tailnetd/holder/door.h"
#include "holder_kit.h"

/* ---- admin channel ---- */

static void
test_hello(void **state)
{
    static const struct {
        uint32_t version, role;
        const char *error;
    } table[] = {
        {TN_ADMIN_VERSION + 1, TN_ROLE_MASTER, "restart tailnetd"},
        {0, TN_ROLE_MASTER, "restart nginx"},
        {TN_ADMIN_VERSION, TN_ROLE_WORKER, "role 2"},
        {TN_ADMIN_VERSION, 77, "role 77"},
    };
    struct kit *k = *state;
    struct kit_answer a;
    struct tn_admin_head h = {.type = TN_ADMIN_COMMIT, .seq = 9};
    size_t i;
    int fd;

    kit_start(k);
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        fd = kit_connect(k);
        kit_is_error(kit_say_hello(fd, table[i].version, table[i].role, &a), &a,
            table[i].error);
        assert_int_equal(kit_recv(fd, &a, KIT_WAIT_MS), 0); /* closed */
        close(fd);
    }
    fd = kit_connect(k);
    kit_send(fd, &h, sizeof(h), NULL, 0);
    kit_is_error(kit_recv(fd, &a, KIT_WAIT_MS), &a, "has to be HELLO");
    close(fd);
    fd = kit_open(k, TN_ROLE_CTL, NULL);
    close(fd);
}

static void
test_roles(void **state)
{
    static const uint16_t all[] = {TN_ADMIN_TABLE, TN_ADMIN_LISTEN,
        TN_ADMIN_COMMIT, TN_ADMIN_BEQUEST, TN_ADMIN_INHERIT, TN_ADMIN_STOP,
        TN_ADMIN_ATTACH, TN_ADMIN_SUBSCRIBE, TN_ADMIN_SOCKETS, TN_ADMIN_STATUS,
        TN_ADMIN_PING, TN_ADMIN_NETNS, TN_ADMIN_ADOPT, TN_ADMIN_SECRET,
        TN_ADMIN_CONTROL, TN_ADMIN_ONLY};
    static const struct {
        uint32_t role; /* 0: hello-only */
        const uint16_t may[9];
    } table[] = {
        {TN_ROLE_CTL, {TN_ADMIN_SUBSCRIBE, TN_ADMIN_STATUS, TN_ADMIN_PING,
                          TN_ADMIN_NETNS, TN_ADMIN_CONTROL, TN_ADMIN_ONLY}},
        {TN_ROLE_WORKER,
            {TN_ADMIN_SUBSCRIBE, TN_ADMIN_SOCKETS, TN_ADMIN_STATUS}},
        {TN_ROLE_MASTER,
            {TN_ADMIN_TABLE, TN_ADMIN_ADOPT, TN_ADMIN_LISTEN, TN_ADMIN_COMMIT,
                TN_ADMIN_BEQUEST, TN_ADMIN_INHERIT, TN_ADMIN_STOP,
                TN_ADMIN_SOCKETS, TN_ADMIN_SECRET}},
        {0, {TN_ADMIN_ATTACH}},
    };
    struct kit *k = *state;
    struct kit_answer a;
    struct tn_admin_head h;
    size_t i, j, l;
    int hello = -1, worker, fd;
    bool may;

    kit_start(k);
    worker = kit_worker(k, k->cycle, &hello);
    for (i = 0; i < 4; i++) {
        fd = table[i].role == 0 ? hello
             : table[i].role == TN_ROLE_WORKER
                 ? worker
                 : kit_open(k, table[i].role, NULL);
        for (j = 0; j < sizeof(all) / sizeof(all[0]); j++) {
            for (l = 0, may = false; l < 9; l++)
                may |= table[i].may[l] == all[j];
            if (!may)
                kit_is_error(kit_ask(fd, all[j], &h, sizeof(h), NULL, 0, &a),
                    &a, "is not allowed on this connection");
        }
        if (fd != hello)
            close(fd);
    }
    close(hello);
}

static void
test_garbage(void **state)
{
    static _Alignas(8) unsigned char big[TN_ADMIN_MSG_MAX + 1];
    struct kit *k = *state;
    struct tn_admin_head *h = (void *)big;
    struct tn_admin_listen l;
    struct kit_answer a;
    int fds[5], i, fd;

    kit_start(k);
    fd = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_is_error(kit_simple(fd, 999, &a), &a, "unknown request 999");
    kit_is_error(kit_simple(fd, TN_ADMIN_LISTEN, &a), &a, "malformed");
    memset(&l, 'x', sizeof(l)); /* a name without an end */
    kit_is_error(kit_ask(fd, TN_ADMIN_LISTEN, &l, sizeof(l), NULL, 0, &a), &a,
        "has no end");
    kit_is_error(kit_ask(fd, TN_ADMIN_TABLE, big, sizeof(big), NULL, 0, &a), &a,
        "too long");
    for (i = 0; i < 5; i++)
        fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    kit_is_error(kit_ask(fd, TN_ADMIN_COMMIT, big, sizeof(*h), fds, 5, &a), &a,
        "too many descriptors");
    kit_is_error(kit_ask(fd, TN_ADMIN_COMMIT, big, sizeof(*h), fds, 1, &a), &a,
        "malformed");
    for (i = 0; i < 5; i++)
        close(fds[i]);
    h->type = TN_ADMIN_COMMIT;
    h->flags = 1;
    h->seq = 7;
    kit_send(fd, h, sizeof(*h), NULL, 0);
    kit_is_error(kit_recv(fd, &a, KIT_WAIT_MS), &a, "no flags");
    kit_is_error(kit_simple(fd, TN_ADMIN_COMMIT, &a), &a, "without a node");
    kit_send(fd, "short", 5, NULL, 0);
    kit_is_error(kit_recv(fd, &a, KIT_WAIT_MS), &a, "has no head");
    assert_int_equal(kit_recv(fd, &a, KIT_WAIT_MS), 0);
    close(fd);
    kit_hello(kit_connect(k), TN_ROLE_CTL); /* it goes on */
}

static void
test_table_errors(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    char *p;
    int fd, lock;

    kit_start(k);
    kit_is_error(
        kit_say_table(k->fd, "tailnet_node a {\n nonsense on;\n}\n", &a), &a,
        "node table, line 2: ");
    /* Nothing stays of the first node when the second one cannot be had. */
    lock = open(strcat(strcpy(k->table, k->dir), "/b.key"), O_RDONLY);
    assert_int_equal(flock(lock, LOCK_EX | LOCK_NB), 0);
    kit_is_error(kit_say_table(k->fd, kit_table(k, "ab"), &a), &a,
        "b.key: this node key is in use by another tailnetd");
    kit_is_error(kit_simple(k->fd, TN_ADMIN_COMMIT, &a), &a, "without a node");
    close(lock);
    kit_is(kit_say_table(k->fd, kit_table(k, "ab"), &a), TN_ADMIN_OK, &a);
    kit_is_error(kit_say_table(k->fd, kit_table(k, "ab"), &a), &a, "second");
    /* Now this one has the keys. */
    p = strcat(strcpy(k->table, k->dir), "/a.key");
    fd = open(p, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
    close(fd);
}

/* Says a table and does not wait for the answer; a.key of it is locked by
 * ${*lock} meanwhile. */
static void
say_locked(struct kit *k, int fd, uint32_t seq, int *lock)
{
    static _Alignas(8) unsigned char m[TN_ADMIN_MSG_MAX];
    struct tn_admin_text *t = (void *)m;
    size_t len = strlen(kit_table(k, "a"));

    t->h = (struct tn_admin_head){.type = TN_ADMIN_TABLE, .seq = seq};
    memcpy(m + sizeof(*t), k->table, len);
    strcat(strcpy(k->table, k->dir), "/a.key");
    *lock = open(k->table, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(*lock, LOCK_EX | LOCK_NB), 0);
    kit_send(fd, m, sizeof(*t) + len, NULL, 0);
}

/* A key that another tailnetd is about to give back is waited for, and nobody
 * else waits meanwhile. */
static void
test_table_waits(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int lock;

    kit_start(k);
    say_locked(k, k->fd, 77, &lock);
    close(kit_open(k, TN_ROLE_CTL, NULL)); /* HELLO is answered */
    assert_int_equal(kit_recv(k->fd, &a, 0), -1);
    close(lock);
    kit_is(kit_recv(k->fd, &a, KIT_WAIT_MS), TN_ADMIN_OK, &a);
    assert_int_equal(
        ((const struct tn_admin_head *)(const void *)a.bytes)->seq, 77);
    kit_is(kit_simple(k->fd, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
}

/* Who asked may be gone before the key comes. */
static void
test_table_given_up(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int lock, fd;

    kit_start(k);
    fd = kit_open(k, TN_ROLE_MASTER, NULL);
    say_locked(k, fd, 5, &lock);
    close(kit_open(k, TN_ROLE_CTL, NULL)); /* the table was read before */
    close(fd);
    close(lock);
    kit_is(kit_say_table(k->fd, kit_table(k, "a"), &a), TN_ADMIN_OK, &a);
}

static void
test_slow_client(void **state)
{
    struct kit *k = *state;
    struct tn_admin_head h = {.type = 999, .seq = 1};
    struct kit_answer a;
    int fd, i, rc;

    kit_start(k);
    fd = kit_open(k, TN_ROLE_CTL, NULL);
    for (i = 0; i < 100000; i++) {
        if (send(fd, &h, sizeof(h), MSG_NOSIGNAL) == -1)
            break;
    }
    assert_true(i < 100000); /* nobody waits for us */
    do
        rc = kit_recv(fd, &a, KIT_WAIT_MS);
    while (rc == TN_ADMIN_ERROR);
    assert_int_equal(rc, 0);
    close(fd);
    assert_true(kit_logged(k, "does not read and is closed (1 so far)"));
}

static int
say_secret(
    int fd, const char *node, size_t len, int seals, struct kit_answer *a)
{
    int mem = memfd_create("secret", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;
    struct tn_admin_node m;

    memset(&m, 0, sizeof(m));
    snprintf(m.node, sizeof(m.node), "%s", node);
    assert_int_equal(ftruncate(mem, (off_t)len), 0);
    assert_int_equal(fcntl(mem, F_ADD_SEALS, seals), 0);
    rc = kit_ask(fd, TN_ADMIN_SECRET, &m, sizeof(m), &mem, 1, a);
    close(mem);
    return rc;
}

/* An auth key: of a node of the table, which cannot change any more. */
static void
test_secret(void **state)
{
    const int all = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    struct kit *k = *state;
    struct kit_answer a;

    kit_start(k);
    kit_is_error(say_secret(k->fd, "a", 9, all, &a), &a, "there is no node");
    kit_is(kit_say_table(k->fd, kit_table(k, "a"), &a), TN_ADMIN_OK, &a);
    kit_is_error(say_secret(k->fd, "b", 9, all, &a), &a, "there is no node");
    kit_is_error(say_secret(k->fd, "a", 9, F_SEAL_WRITE, &a), &a, "sealed");
    kit_is_error(say_secret(k->fd, "a", 0, all, &a), &a, "at most 4096 bytes");
    kit_is_error(
        say_secret(k->fd, "a", 4097, all, &a), &a, "at most 4096 bytes");
    kit_is(say_secret(k->fd, "a", 4096, all, &a), TN_ADMIN_OK, &a);
    kit_is(say_secret(k->fd, "a", 9, all, &a), TN_ADMIN_OK, &a);
    kit_is(kit_simple(k->fd, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
    kit_is_error(say_secret(k->fd, "a", 9, all, &a), &a, "after COMMIT");
}

/* The socket file's mode keeps others out, and so does the holder. */
static void
test_other_user(void **state)
{
    struct kit *k = *state;
    char dir[128];
    struct kit_answer a;
    int status, fd;
    pid_t pid;

    kit_start(k);
    snprintf(dir, sizeof(dir), "%s/run", k->dir);
    assert_int_equal(chmod(k->dir, 0755), 0);
    assert_int_equal(chmod(dir, 0755), 0);
    pid = fork();
    if (pid == 0) {
        if (setresuid(65534, 65534, 65534) == -1)
            _exit(9);
        _exit(kit_connect(k) == -1 ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(chmod(k->socket, 0666), 0);
    pid = fork();
    if (pid == 0) {
        if (setresuid(65534, 65534, 65534) == -1)
            _exit(9);
        fd = kit_connect(k);
        _exit(fd != -1 && kit_recv(fd, &a, KIT_WAIT_MS) == 0 ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_true(kit_logged(k, "of another user, or of the engine, is refused"));
    close(kit_open(k, TN_ROLE_CTL, NULL));
}

/* One of our own user would have commands run by a table. */
static void
test_engine_at_the_door(void **state)
{
    struct kit *k = *state;
    char err[TN_ERR_MAX];
    int fd, i;

    snprintf(k->socket, sizeof(k->socket), "%s/door", k->dir);
    assert_int_equal(door_open(k->socket, NULL, err), 0);
    for (i = 0; i < 2; i++)
        close(kit_connect(k));
    errno = 0;
    assert_int_equal(door_accept(getpid()), -1);
    assert_int_equal(errno, EPERM);
    fd = door_accept(getppid());
    assert_int_not_equal(fd, -1);
    close(fd);
    door_close();
    door_leave();
}

/* ---- namespaces and sockets ---- */

static void
test_sockets(void **state)
{
    static const uint8_t addr[4] = {100, 64, 0, 1};
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(8080)};
    struct kit *k = *state;
    struct tn_admin_sockets s;
    struct kit_answer a, b, c;
    int own, hello = -1, worker, one, two, i;
    uint64_t cookie;

    kit_start(k);
    kit_commit(k, k->fd, "ab");
    /* Addresses come with the engine. */
    one = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(one, "ready");
    close(one);
    one = kit_listen(k->fd, "a", 4, 1, 8080, -1, &a);
    kit_is(one == -1 ? TN_ADMIN_ERROR : TN_ADMIN_FD, TN_ADMIN_FD, &a);
    own = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cookie = kit_cookie(one);
    assert_int_not_equal(cookie, kit_cookie(own));
    close(own);
    /* The same question, the same socket; another one, another. */
    two = kit_listen(k->fd, "a", 4, 1, 8080, -1, &b);
    assert_int_equal(kit_ino(one), kit_ino(two));
    kit_close(&b);
    assert_true(kit_listen(k->fd, "a", 6, 1, 8080, -1, &b) != -1);
    assert_int_equal(kit_cookie(b.fds[0]), cookie);
    kit_close(&b);
    assert_true(kit_listen(k->fd, "a", 4, 2, 8080, -1, &b) != -1);
    kit_close(&b);
    assert_true(kit_listen(k->fd, "b", 4, 1, 8080, -1, &b) != -1);
    assert_int_not_equal(kit_cookie(b.fds[0]), cookie);
    kit_close(&b);
    assert_int_equal(kit_listen(k->fd, "x", 4, 1, 1, -1, &b), -1);
    kit_is_error(TN_ADMIN_ERROR, &b, "no node \"x\"");
    assert_int_equal(kit_listen(k->fd, "a", 5, 1, 1, -1, &b), -1);
    assert_int_equal(kit_listen(k->fd, "a", 4, 3, 1, -1, &b), -1);
    assert_int_equal(kit_listen(k->fd, "a", 4, 1, 0, -1, &b), -1);
    /* Ports below 1024, and one socket per worker. */
    assert_true(kit_listen(k->fd, "a", 4, 1, 80, 0, &b) != -1);
    assert_true(kit_listen(k->fd, "a", 4, 1, 80, 1, &c) != -1);
    assert_int_not_equal(kit_ino(b.fds[0]), kit_ino(c.fds[0]));
    kit_close(&c);
    /* Of which the first serves alone, and one that did may get others. */
    assert_true(kit_listen(k->fd, "a", 4, 1, 80, -1, &c) != -1);
    assert_int_equal(kit_ino(b.fds[0]), kit_ino(c.fds[0]));
    kit_close(&b);
    kit_close(&c);
    assert_true(kit_listen(k->fd, "a", 4, 1, 81, -1, &b) != -1);
    assert_true(kit_listen(k->fd, "a", 4, 1, 81, 0, &c) != -1);
    assert_int_equal(kit_ino(b.fds[0]), kit_ino(c.fds[0]));
    kit_close(&b);
    assert_true(kit_listen(k->fd, "a", 4, 1, 81, 1, &b) != -1);
    assert_int_not_equal(kit_ino(b.fds[0]), kit_ino(c.fds[0]));
    kit_close(&b);
    kit_close(&c);
    /* A worker's socket reaches the listener at the node's address. */
    worker = kit_worker(k, k->cycle, &hello);
    memset(&s, 0, sizeof(s));
    s.node[0] = 'a';
    s.family = 4;
    s.type = 1;
    s.count = TN_ADMIN_FDS_MAX;
    kit_is(kit_ask(worker, TN_ADMIN_SOCKETS, &s, sizeof(s), NULL, 0, &b),
        TN_ADMIN_FDS, &b);
    assert_int_equal(b.nfds, TN_ADMIN_FDS_MAX);
    assert_int_equal(kit_cookie(b.fds[0]), cookie);
    assert_true(fcntl(b.fds[0], F_GETFL) & O_NONBLOCK);
    memcpy(&sa.sin_addr, addr, 4);
    if (connect(b.fds[0], (struct sockaddr *)&sa, sizeof(sa)) == -1)
        assert_int_equal(errno, EINPROGRESS);
    for (i = 0; i < 100 && (two = accept(one, NULL, NULL)) == -1; i++)
        kit_sleep(10);
    assert_true(two != -1);
    close(two);
    kit_close(&b);
    s.count = TN_ADMIN_FDS_MAX + 1;
    kit_is_error(kit_ask(worker, TN_ADMIN_SOCKETS, &s, sizeof(s), NULL, 0, &b),
        &b, "not 1 to 64");
    kit_close(&a);
    close(worker);
    close(hello);
}

static void
test_netns(void **state)
{
    struct kit *k = *state;
    struct tn_admin_node m;
    struct kit_answer a;
    struct stat st, own;
    int ctl;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    memset(&m, 0, sizeof(m));
    m.node[0] = 'a';
    kit_is(kit_ask(ctl, TN_ADMIN_NETNS, &m, sizeof(m), NULL, 0, &a),
        TN_ADMIN_FDS, &a);
    assert_int_equal(a.nfds, 1);
    assert_int_equal(fstat(a.fds[0], &st), 0);
    assert_int_equal(stat("/proc/self/ns/net", &own), 0);
    assert_int_not_equal(st.st_ino, own.st_ino);
    kit_close(&a);
    close(ctl);
}

/* ---- cycles ---- */

static void
test_fall_back(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int ctl, next, port, same;
    ino_t ino;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    port = kit_listen(k->fd, "a", 4, 1, 81, -1, &a);
    ino = kit_ino(port);
    kit_close(&a);
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "ready");
    kit_wait(ctl, "listeners a: 6/81\n");
    /* A table alone changes nothing for the engine. */
    next = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_is(kit_say_table(next, kit_table(k, "bc"), &a), TN_ADMIN_OK, &a);
    assert_int_equal(kit_count(ctl, "node "), 1);
    kit_is(kit_simple(next, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
    kit_wait(ctl, "node b ");
    kit_wait(ctl, "node c ");
    assert_int_equal(kit_count(ctl, "gone a"), 0); /* still connected */
    close(next);
    kit_wait(ctl, "gone b");
    kit_wait(ctl, "gone c");
    assert_int_equal(kit_count(ctl, "gone a"), 0);
    /* The next cycle gets the same socket, and then the first one may go. */
    next = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_commit(k, next, "a");
    same = kit_listen(next, "a", 4, 1, 81, -1, &a);
    assert_int_equal(kit_ino(same), ino);
    kit_close(&a);
    close(k->fd);
    k->fd = next;
    same = kit_listen(next, "a", 4, 1, 81, -1, &a);
    assert_int_equal(kit_ino(same), ino);
    kit_close(&a);
    assert_int_equal(kit_count(ctl, "node a"), 1); /* never told twice */
    close(ctl);
}

static void
test_attach(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int hello = -1, worker, second, next, ctl;
    char text[8] = "";

    kit_start(k);
    kit_commit(k, k->fd, "a");
    worker = kit_worker(k, k->cycle, &hello);
    second = kit_worker(k, k->cycle, &hello);
    kit_is(kit_subscribe(worker, "a", &a), TN_ADMIN_OK, &a);
    assert_int_equal(kit_recv(worker, &a, KIT_WAIT_MS), TN_ADMIN_SNAPSHOT);
    assert_int_equal(pread(a.fds[0], text, sizeof(text), 0), 1);
    assert_string_equal(text, "a");
    kit_close(&a);
    kit_is_error(kit_subscribe(worker, "b", &a), &a, "no node \"b\"");
    /* The next cycle is without it; old workers go on. */
    next = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_commit(k, next, "b");
    close(k->fd);
    k->fd = next;
    close(hello);
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "node b");
    close(second);
    kit_sleep(50);
    assert_int_equal(kit_count(ctl, "gone a"), 0);
    kit_is(kit_subscribe(worker, "a", &a), TN_ADMIN_OK, &a);
    close(worker);
    kit_wait(ctl, "gone a");
    close(ctl);
}

/* ---- the engine ---- */

static void
test_engine_dies(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int ctl, pid, next, i, port;
    ino_t ino;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    port = kit_listen(k->fd, "a", 4, 1, 82, -1, &a);
    ino = kit_ino(port);
    kit_close(&a);
    pid = kit_wait(ctl, "ready");
    assert_int_equal(kit_count(ctl, "uid 0\n"), 0); /* a user of its own */
    assert_int_equal(kit_count(ctl, "entry "), 0);
    kit_order(ctl, "a", FAKE_SILENT);
    kit_wait(ctl, "ready"); /* the engine has the order */
    kill(pid, SIGKILL);
    kit_is_error(kit_recv(ctl, &a, KIT_WAIT_MS), &a, "engine died");
    next = kit_wait(ctl, "ready");
    assert_int_not_equal(pid, next);
    assert_int_equal(kit_count(ctl, "entry hot 1\n"), 1);
    assert_int_equal(kit_count(ctl, "entry udp4/a 1\n"), 1);
    assert_int_equal(kit_count(ctl, "node a 0 1280 5: KEY-A MAP-A\n"), 1);
    kit_wait(ctl, "listeners a: 6/82\n");
    port = kit_listen(k->fd, "a", 4, 1, 82, -1, &a);
    assert_int_equal(kit_ino(port), ino);
    kit_close(&a);
    assert_true(kit_logged(k, "was killed by signal 9"));
    /* The third death within a minute: later, and without hot state. */
    for (i = 0; i < 2; i++) {
        pid = kit_wait(ctl, "ready");
        kit_order(ctl, "a", i == 0 ? FAKE_DIE : FAKE_GARBAGE);
        kit_is_error(kit_recv(ctl, &a, KIT_WAIT_MS), &a, "engine died");
    }
    kit_wait(ctl, "ready");
    assert_int_equal(kit_count(ctl, "entry hot"), 0);
    assert_int_equal(kit_count(ctl, "entry udp4/a"), 1);
    assert_true(kit_logged(k, "its hot state is thrown away"));
    assert_true(kit_logged(k, "the next engine starts in 300 ms"));
    assert_true(kit_logged(k, "sent a malformed message"));
    close(ctl);
}

static void
test_no_answer(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int64_t start;
    int ctl;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "ready");
    kit_order(ctl, "a", FAKE_REFUSE);
    kit_is_error(kit_recv(ctl, &a, KIT_WAIT_MS), &a, "more than 8 of them");
    kit_order(ctl, "a", FAKE_NOTHING);
    kit_is_error(kit_recv(ctl, &a, KIT_WAIT_MS), &a, "no memory to answer");
    start = kit_now();
    kit_order(ctl, "a", FAKE_SILENT);
    kit_is_error(kit_recv(ctl, &a, KIT_WAIT_MS), &a, "did not answer in time");
    assert_true(kit_now() - start >= 4900);
    close(ctl);
}

static void
test_limits(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int ctl, i;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "ready");
    kit_order(ctl, "a", FAKE_LINES);
    assert_true(kit_logged(k, "line 1")); /* the level is cut */
    assert_true(kit_logged(k, "log lines of the engine were suppressed"));
    kit_order(ctl, "a", FAKE_FILL);
    assert_true(kit_logged(k, "more than 512 names"));
    kit_wait(ctl, "ready");
    for (i = 0; i < 64; i++)
        kit_order(ctl, "a", FAKE_SILENT);
    kit_order(ctl, "a", FAKE_SILENT);
    do
        i = kit_recv(ctl, &a, KIT_WAIT_MS);
    while (i == TN_ADMIN_SNAPSHOT);
    kit_is_error(i, &a, "more than 64 questions");
    close(ctl);
}

/* ---- files ---- */

static void
test_files(void **state)
{
    struct kit *k = *state;
    char path[128], other[128];
    int ctl;

    kit_start(k);
    snprintf(path, sizeof(path), "%s/a.json", k->dir);
    snprintf(other, sizeof(other), "%s/new", k->dir);
    unlink(path);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "node a 0 1280 1: KEY-A\n");
    kit_wait(ctl, "a.json: No such file");
    kit_write(k, "a.json", "MAP-1\n", 0644);
    kit_wait(ctl, "netmap a: MAP-1\n");
    kit_write(k, "new", "MAP-2\n", 0644);
    rename(other, path);
    kit_wait(ctl, "netmap a: MAP-2\n");
    kit_write(k, "a.json", "MAP-3\n", 0666);
    kit_wait(ctl, "others than its owner can write it");
    assert_int_equal(kit_count(ctl, "MAP-3"), 0);
    unlink(path);
    kit_wait(ctl, "nofile a");
    kit_write(k, "a.json", "MAP-4\n", 0644);
    kit_wait(ctl, "netmap a: MAP-4\n");
    /* A key that comes later; one that others can read is warned about. */
    snprintf(path, sizeof(path), "%s/b.key", k->dir);
    unlink(path);
    close(k->fd);
    k->fd = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_commit(k, k->fd, "b");
    kit_wait(ctl, "nofile b");
    kit_write(k, "b.key", "KEY-2\n", 0444);
    kit_wait(ctl, "node b 0 1280 5: KEY-2 MAP-B\n");
    assert_true(kit_logged(k, "can read this key (mode 0444)"));
    /* A key that was exchanged counts from the next commit on. */
    kit_write(k, "new", "KEY-3\n", 0600);
    rename(other, path);
    close(k->fd);
    k->fd = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_commit(k, k->fd, "b");
    kit_wait(ctl, "node b 0 1280 5: KEY-3 MAP-B\n");
    close(ctl);
}

/* What cannot be used is said once, and again when the cause is another. */
static void
test_unusable_files(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int ctl;

    kit_start(k);
    kit_write(k, "b.key", "KEY-B\n", 0666);
    kit_write(k, "ca.pem", "CA\n", 0666);
    kit_table(k, "b");
    snprintf(k->table + strlen(k->table), 256,
        "tailnet_node j {\n control_url http://127.0.0.1:9;\n"
        " control_ca %s/ca.pem;\n ephemeral on;\n}\n",
        k->dir);
    kit_is(kit_say_table(k->fd, k->table, &a), TN_ADMIN_OK, &a);
    kit_is(kit_simple(k->fd, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "b.key: others than its owner can write it");
    kit_wait(ctl, "ca.pem: others than its owner can write it");
    /* Each new netmap makes the holder look at all files. */
    kit_write(k, "b.json", "MAP-2\n", 0644);
    kit_wait(ctl, "netmap b: MAP-2\n");
    kit_write(k, "b.json", "MAP-3\n", 0644);
    kit_wait(ctl, "netmap b: MAP-3\n");
    assert_int_equal(kit_count(ctl, "node b"), 1);
    assert_int_equal(kit_count(ctl, "node j"), 1);
    assert_int_equal(kit_count(ctl, "nofile j"), 1);
    assert_int_equal(kit_count(ctl, "nofile b"), 1);
    kit_write(k, "b.key", "KEY-B\n", 0620);
    kit_wait(ctl, "b.key: others than its owner can write it (mode 0620)");
    kit_write(k, "ca.pem", "CA\n", 0620);
    kit_wait(ctl, "ca.pem: others than its owner can write it (mode 0620)");
    assert_int_equal(kit_count(ctl, "nofile j"), 2);
    kit_write(k, "b.key", "KEY-B\n", 0600);
    kit_wait(ctl, "node b 0 1280 5: KEY-B MAP-3\n");
    kit_write(k, "ca.pem", "CA\n", 0644);
    kit_wait(ctl, " CA\n");
    /* Of a node that runs with its older key it is still true after a netmap
     * that can be used. */
    kit_write(k, "b.key", "KEY-B\n", 0666);
    close(k->fd);
    k->fd = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_commit(k, k->fd, "b");
    kit_wait(ctl, "node b 0 1280 4: MAP-3\nnofile b:");
    kit_write(k, "b.json", "MAP-4\n", 0644);
    kit_wait(ctl, "netmap b: MAP-4\nnofile b:");
    close(ctl);
}

static void
test_options_change(void **state)
{
    struct kit *k = *state;
    struct kit_answer a;
    int ctl, next;

    kit_start(k);
    kit_commit(k, k->fd, "a");
    ctl = kit_open(k, TN_ROLE_CTL, NULL);
    kit_wait(ctl, "ready");
    kit_write(k, "psk", "PSK\n", 0600);
    kit_table(k, "a");
    snprintf(k->table + strlen(k->table) - 2, 256,
        " mtu 1400;\n port 41641;\n preshared_keys %s/psk;\n}\n", k->dir);
    next = kit_open(k, TN_ROLE_MASTER, NULL);
    kit_is(kit_say_table(next, k->table, &a), TN_ADMIN_OK, &a);
    kit_is(kit_simple(next, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
    kit_wait(ctl, "node a 41641 1400 7: KEY-A PSK MAP-A\n");
    close(next); /* what ruled before rules again */
    kit_wait(ctl, "listeners a:\nnode a 0 1280 5: KEY-A MAP-A\n");
    close(ctl);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        KIT_TEST(test_hello),
        KIT_TEST(test_roles),
        KIT_TEST(test_garbage),
        KIT_TEST(test_table_errors),
        KIT_TEST(test_table_waits),
        KIT_TEST(test_table_given_up),
        KIT_TEST(test_slow_client),
        KIT_TEST(test_secret),
        KIT_TEST(test_other_user),
        KIT_TEST(test_engine_at_the_door),
        KIT_TEST(test_sockets),
        KIT_TEST(test_netns),
        KIT_TEST(test_fall_back),
        KIT_TEST(test_attach),
        KIT_TEST(test_engine_dies),
        KIT_TEST(test_no_answer),
        KIT_TEST(test_limits),
        KIT_TEST(test_files),
        KIT_TEST(test_unusable_files),
        KIT_TEST(test_options_change),
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

/*
 * holder_kit.h: a real holder with the fake engine, and a client for it.
 *
 * The test program is the holder (in a forked child) and, when the holder
 * executes its own file with "--engine", the engine too.
 */
#ifndef HOLDER_KIT_H
#define HOLDER_KIT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "../../ngx_tailnet_module/core/tn_admin.h"
#include "../../ngx_tailnet_module/tailnetd/holder/holder.h"
#include "../../ngx_tailnet_module/tailnetd/log.h"
#include "fake_engine.h"

#define KIT_WAIT_MS 10000

struct kit {
    char dir[64];
    char socket[96], log[96], table[4096], file[96];
    pid_t pid; /* of the holder, 0: none */
    int fd;    /* the spawner's connection */
    uint64_t cycle;
    unsigned linger_ms, delay_ms;
    uid_t uid; /* of the holder */
    bool service;
};

struct kit_answer {
    _Alignas(8) unsigned char bytes[4096];
    size_t len;
    int fds[TN_ADMIN_FDS_MAX];
    size_t nfds;
};

static uint32_t kit_seq;

static inline int64_t
kit_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void
kit_sleep(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

    nanosleep(&t, NULL);
}

static inline void
kit_write(struct kit *k, const char *name, const char *text, mode_t mode)
{
    char path[160];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", k->dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd != -1);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    fchmod(fd, mode);
    assert_int_equal(fchown(fd, k->uid, k->uid), 0);
    close(fd);
}

/* Text of a table with nodes named by letters: "ab". */
static inline const char *
kit_table(struct kit *k, const char *letters)
{
    size_t n = 0;

    k->table[0] = '\0';
    for (; *letters != '\0'; letters++)
        n += (size_t)snprintf(k->table + n, sizeof(k->table) - n,
            "tailnet_node %c {\n netmap %s/%c.json;\n private_key %s/%c.key;\n"
            "}\n",
            *letters, k->dir, *letters, k->dir, *letters);
    return k->table;
}

/* ---- the client ---- */

static inline void
kit_send(int fd, const void *msg, size_t len, const int *fds, size_t nfds)
{
    union {
        struct cmsghdr align;
        char b[CMSG_SPACE(sizeof(int) * 64)];
    } c;
    struct iovec iov = {(void *)(uintptr_t)msg, len};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *cm;

    if (nfds > 0) {
        memset(&c, 0, sizeof(c));
        h.msg_control = c.b;
        h.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        cm = CMSG_FIRSTHDR(&h);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(cm), fds, sizeof(int) * nfds);
    }
    assert_int_equal(sendmsg(fd, &h, MSG_NOSIGNAL), len);
}

/* Returns the type of what came, 0: the end, -1: nothing in time. */
static inline int
kit_recv(int fd, struct kit_answer *a, int ms)
{
    union {
        struct cmsghdr align;
        char b[CMSG_SPACE(sizeof(int) * TN_ADMIN_FDS_MAX)];
    } c;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct iovec iov = {a->bytes, sizeof(a->bytes) - 1};
    struct msghdr h = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = c.b,
        .msg_controllen = sizeof(c.b)};
    struct cmsghdr *cm;
    ssize_t n;

    a->nfds = 0;
    if (poll(&p, 1, ms) != 1)
        return -1;
    n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return 0;
    cm = CMSG_FIRSTHDR(&h);
    if (cm != NULL) {
        a->nfds = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(a->fds, CMSG_DATA(cm), a->nfds * sizeof(int));
    }
    a->len = (size_t)n;
    a->bytes[n] = '\0';
    return ((const struct tn_admin_head *)(const void *)a->bytes)->type;
}

static inline void
kit_close(struct kit_answer *a)
{
    while (a->nfds > 0)
        close(a->fds[--a->nfds]);
}

/* One request (its head is filled in) and its answer. */
static inline int
kit_ask(int fd, uint16_t type, void *msg, size_t len, const int *fds,
    size_t nfds, struct kit_answer *a)
{
    struct tn_admin_head *h = msg;
    int rc;

    h->type = type;
    h->flags = 0;
    h->seq = ++kit_seq;
    kit_send(fd, msg, len, fds, nfds);
    do
        rc = kit_recv(fd, a, KIT_WAIT_MS);
    while (rc == TN_ADMIN_SNAPSHOT && (kit_close(a), true));
    if (rc > 0)
        assert_int_equal(
            ((const struct tn_admin_head *)(const void *)a->bytes)->seq,
            kit_seq);
    return rc;
}

static inline const char *
kit_text(const struct kit_answer *a)
{
    return (const char *)a->bytes + sizeof(struct tn_admin_error);
}

/* ${rc} has to be ERROR with a sentence that has ${part}. */
static inline void
kit_is_error(int rc, struct kit_answer *a, const char *part)
{
    if (rc != TN_ADMIN_ERROR || strstr(kit_text(a), part) == NULL)
        print_error("# answer %d \"%s\", not ERROR \"%s\"\n", rc,
            rc == TN_ADMIN_ERROR ? kit_text(a) : "", part);
    assert_int_equal(rc, TN_ADMIN_ERROR);
    assert_non_null(strstr(kit_text(a), part));
    assert_int_equal(a->nfds, 0);
}

static inline void
kit_is(int rc, int type, struct kit_answer *a)
{
    if (rc == TN_ADMIN_ERROR && type != TN_ADMIN_ERROR)
        print_error("# ERROR: %s\n", kit_text(a));
    assert_int_equal(rc, type);
}

static inline int
kit_simple(int fd, uint16_t type, struct kit_answer *a)
{
    struct tn_admin_head h;

    return kit_ask(fd, type, &h, sizeof(h), NULL, 0, a);
}

static inline int
kit_say_table(int fd, const char *text, struct kit_answer *a)
{
    static _Alignas(8) unsigned char m[TN_ADMIN_MSG_MAX];
    size_t len = strlen(text);

    memcpy(m + sizeof(struct tn_admin_text), text, len);
    return kit_ask(
        fd, TN_ADMIN_TABLE, m, sizeof(struct tn_admin_text) + len, NULL, 0, a);
}

static inline int
kit_connect(const struct kit *k)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    memcpy(sa.sun_path, k->socket, strlen(k->socket) + 1);
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
        return fd;
    close(fd);
    return -1;
}

static inline int
kit_say_hello(int fd, uint32_t version, uint32_t role, struct kit_answer *a)
{
    struct tn_admin_hello h = {.version = version, .role = role};

    return kit_ask(fd, TN_ADMIN_HELLO, &h, sizeof(h), NULL, 0, a);
}

/* HELLO that has to work.  Returns the cycle. */
static inline uint64_t
kit_hello(int fd, uint32_t role)
{
    struct kit_answer a;

    kit_is(
        kit_say_hello(fd, TN_ADMIN_VERSION, role, &a), TN_ADMIN_HELLO_OK, &a);
    return ((const struct tn_admin_hello_ok *)(const void *)a.bytes)->cycle;
}

/* Another connection over the socket's path. */
static inline int
kit_open(const struct kit *k, uint32_t role, uint64_t *cycle)
{
    int fd = kit_connect(k);
    uint64_t c;

    assert_true(fd != -1);
    c = kit_hello(fd, role);
    if (cycle != NULL)
        *cycle = c;
    return fd;
}

/* TABLE with the nodes of ${letters}, and COMMIT. */
static inline void
kit_commit(struct kit *k, int fd, const char *letters)
{
    struct kit_answer a;

    kit_is(kit_say_table(fd, kit_table(k, letters), &a), TN_ADMIN_OK, &a);
    kit_is(kit_simple(fd, TN_ADMIN_COMMIT, &a), TN_ADMIN_OK, &a);
}

/* Returns the socket, or -1 and an ERROR is in ${a}. */
static inline int
kit_listen(int fd, const char *node, int family, int type, int port, int worker,
    struct kit_answer *a)
{
    struct tn_admin_listen m;
    int rc;

    memset(&m, 0, sizeof(m));
    snprintf(m.node, sizeof(m.node), "%s", node);
    m.family = (uint8_t)family;
    m.type = (uint8_t)type;
    m.port = (uint16_t)port;
    m.reuseport = worker >= 0;
    m.worker = (uint16_t)(worker >= 0 ? worker : 0);
    rc = kit_ask(fd, TN_ADMIN_LISTEN, &m, sizeof(m), NULL, 0, a);
    if (rc != TN_ADMIN_FD)
        return -1;
    assert_int_equal(a->nfds, 1);
    return a->fds[0];
}

/* Over a hello-only connection of ${cycle}: ${*hello}, and a worker's. */
static inline int
kit_worker(const struct kit *k, uint64_t cycle, int *hello)
{
    struct tn_admin_inherit m;
    struct tn_admin_head h = {.type = TN_ADMIN_ATTACH, .seq = 1};
    struct kit_answer a;
    int sv[2];

    if (*hello == -1) {
        *hello = kit_open(k, TN_ROLE_MASTER, NULL);
        m.cycle = cycle;
        kit_is(kit_ask(*hello, TN_ADMIN_INHERIT, &m, sizeof(m), NULL, 0, &a),
            TN_ADMIN_OK, &a);
    }
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    kit_send(*hello, &h, sizeof(h), &sv[1], 1);
    close(sv[1]);
    kit_hello(sv[0], TN_ROLE_WORKER);
    return sv[0];
}

static inline int
kit_subscribe(int fd, const char *node, struct kit_answer *a)
{
    struct tn_admin_node m;

    memset(&m, 0, sizeof(m));
    snprintf(m.node, sizeof(m.node), "%s", node);
    return kit_ask(fd, TN_ADMIN_SUBSCRIBE, &m, sizeof(m), NULL, 0, a);
}

/* STATUS into ${buf}: what the fake engine was told.  False: an ERROR. */
static inline bool
kit_status(int fd, char *buf, size_t size)
{
    struct tn_admin_text m;
    struct kit_answer a;
    ssize_t n;

    buf[0] = '\0';
    if (kit_ask(fd, TN_ADMIN_STATUS, &m, sizeof(m), NULL, 0, &a) !=
        TN_ADMIN_TEXT)
        return false;
    n = pread(a.fds[0], buf, size - 1, 0);
    kit_close(&a);
    buf[n < 0 ? 0 : n] = '\0';
    return true;
}

/* Waits until the engine was told ${part}; its process' number. */
static inline int
kit_wait(int fd, const char *part)
{
    static char buf[65536];
    int64_t end = kit_now() + KIT_WAIT_MS;

    do {
        if (kit_status(fd, buf, sizeof(buf)) && strstr(buf, part) != NULL)
            return atoi(buf + 4);
        kit_sleep(20);
    } while (kit_now() < end);
    print_error("# \"%s\" never came; the engine knows:\n%s", part, buf);
    fail();
    return 0;
}

/* How often ${part} was told so far. */
static inline int
kit_count(int fd, const char *part)
{
    static char buf[65536];
    const char *p = buf;
    int n = 0;

    assert_true(kit_status(fd, buf, sizeof(buf)));
    while ((p = strstr(p, part)) != NULL) {
        p++;
        n++;
    }
    return n;
}

/* An order to the fake engine; no answer is waited for. */
static inline void
kit_order(int ctl, const char *node, uint32_t order)
{
    struct tn_admin_ping m;

    memset(&m, 0, sizeof(m));
    m.h.type = TN_ADMIN_PING;
    m.h.seq = ++kit_seq;
    snprintf(m.node, sizeof(m.node), "%s", node);
    m.timeout_ms = order;
    kit_send(ctl, &m, sizeof(m), NULL, 0);
}

/* Does the log have ${part} (by now, or soon)? */
static inline bool
kit_logged(const struct kit *k, const char *part)
{
    static char buf[262144];
    int64_t end = kit_now() + 3000;
    ssize_t n;
    int fd;

    do {
        fd = open(k->log, O_RDONLY | O_CLOEXEC);
        n = fd == -1 ? 0 : read(fd, buf, sizeof(buf) - 1);
        if (fd != -1)
            close(fd);
        buf[n < 0 ? 0 : n] = '\0';
        if (strstr(buf, part) != NULL)
            return true;
        kit_sleep(20);
    } while (kit_now() < end);
    print_error("# \"%s\" is not in the log:\n%s", part, buf);
    return false;
}

static inline uint64_t
kit_cookie(int fd)
{
    uint64_t c = 0;
    socklen_t len = sizeof(c);

    if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &c, &len) == -1)
        return 0;
    return c;
}

static inline ino_t
kit_ino(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

/* ---- the holder ---- */

/* Starts a holder; the spawner's connection has said HELLO then. */
static inline void
kit_start(struct kit *k)
{
    struct holder_config conf = {.admin_fd = -1,
        .socket = k->socket,
        .log = k->log,
        .linger_ms = k->linger_ms,
        .delay_ms = k->delay_ms};
    int sv[2];

    assert_int_equal(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    k->pid = fork();
    assert_true(k->pid != -1);
    if (k->pid == 0) {
        if (k->uid != 0 && (setresgid(k->uid, k->uid, k->uid) == -1 ||
                               setresuid(k->uid, k->uid, k->uid) == -1))
            _exit(99);
        if (k->service)
            conf.file = k->file;
        else
            conf.admin_fd = sv[1];
        log_limit("debug");
        exit(holder_main(&conf));
    }
    close(sv[1]);
    if (k->service) {
        close(sv[0]);
        return;
    }
    k->fd = sv[0];
    k->cycle = kit_hello(k->fd, TN_ROLE_MASTER);
}

/* Waits for the holder's end; its exit code. */
static inline int
kit_join(struct kit *k)
{
    int64_t end = kit_now() + KIT_WAIT_MS;
    int status = 0;

    while (waitpid(k->pid, &status, WNOHANG) == 0) {
        if (kit_now() > end) {
            kill(k->pid, SIGKILL);
            fail_msg("the holder does not end");
        }
        kit_sleep(5);
    }
    k->pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline void
kit_prepare(struct kit *k)
{
    char name[8];
    const char *c;

    memset(k, 0, sizeof(*k));
    k->fd = -1;
    k->linger_ms = 300;
    k->delay_ms = 300;
    snprintf(k->dir, sizeof(k->dir), "/tmp/tailnetd-test.XXXXXX");
    assert_non_null(mkdtemp(k->dir));
    snprintf(k->socket, sizeof(k->socket), "%s/run/admin.sock", k->dir);
    snprintf(k->log, sizeof(k->log), "%s/log", k->dir);
    snprintf(k->file, sizeof(k->file), "%s/nodes", k->dir);
    for (c = "abc"; *c != '\0'; c++) {
        snprintf(name, sizeof(name), "%c.key", *c);
        kit_write(k, name, *c == 'a' ? "KEY-A\n" : "KEY-B\n", 0600);
        snprintf(name, sizeof(name), "%c.json", *c);
        kit_write(k, name, *c == 'a' ? "MAP-A\n" : "MAP-B\n", 0644);
    }
}

static inline void
kit_remove(const char *dir)
{
    char path[512];
    struct dirent *e;
    DIR *d = opendir(dir);

    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof(path), "%.200s/%s", dir, e->d_name);
        if (e->d_type == DT_DIR)
            kit_remove(path);
        else
            unlink(path);
    }
    if (d != NULL)
        closedir(d);
    rmdir(dir);
}

static inline int
kit_setup(void **state)
{
    static struct kit k;

    kit_prepare(&k);
    *state = &k;
    return 0;
}

/* Whatever is left of a failed test. */
static inline int
kit_teardown(void **state)
{
    struct kit *k = *state;

    if (k->fd != -1)
        close(k->fd);
    if (k->pid > 0) {
        kill(k->pid, SIGTERM);
        kit_join(k);
    }
    kit_remove(k->dir);
    return 0;
}

#define KIT_TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)

/* What these tests need; the reason they cannot run, or NULL. */
static inline const char *
kit_missing(void)
{
    int status = 0;
    pid_t pid;

    if (geteuid() != 0)
        return "needs root";
    if (access("/dev/net/tun", R_OK | W_OK) == -1)
        return "needs /dev/net/tun";
    pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWNET) == 0 ? 0 : 1);
    waitpid(pid, &status, 0);
    return status == 0 ? NULL : "needs CAP_SYS_ADMIN for namespaces";
}

#endif

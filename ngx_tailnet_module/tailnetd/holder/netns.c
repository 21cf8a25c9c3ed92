#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../isolate.h"
#include "../rights.h"

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C /* linux/sockios.h of newer headers */
#endif

static bool rootless;

/* What travels back; descriptors beside it. */
struct reply {
    int err;
    char text[TN_ERR_MAX];
};

void
netns_init(void)
{
    rootless = !isolate_may_make_namespaces();
}

bool
netns_rootless(void)
{
    return rootless;
}

void
netns_fail(struct netns_answer *a, int err, const char *fmt, ...)
{
    va_list ap;

    a->err = err != 0 ? err : EIO;
    va_start(ap, fmt);
    vsnprintf(a->text, sizeof(a->text), fmt, ap);
    va_end(ap);
}

void
netns_close(struct netns *ns)
{
    if (ns->net != -1)
        close(ns->net);
    if (ns->user != -1)
        close(ns->user);
    *ns = NETNS_NONE;
}

bool
netns_same(const struct netns *a, const struct netns *b)
{
    struct stat x, y;

    return fstat(a->net, &x) == 0 && fstat(b->net, &y) == 0 &&
           x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int
netns_of_socket(int sock, struct netns *ns, char err[TN_ERR_MAX])
{
    struct netns own = {-1, -1};
    bool same;

    *ns = NETNS_NONE;
    ns->net = ioctl(sock, SIOCGSKNS);
    if (ns->net == -1) {
        snprintf(err, TN_ERR_MAX,
            "the namespace of the listening socket cannot be found: %s",
            strerror(errno));
        return -1;
    }
    fcntl(ns->net, F_SETFD, FD_CLOEXEC);
    own.net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    same = own.net != -1 && netns_same(ns, &own);
    netns_close(&own);
    if (same) {
        netns_close(ns);
        snprintf(err, TN_ERR_MAX,
            "the listening socket belongs to the host's namespace");
        return -1;
    }
    if (!rootless)
        return 0;
    ns->user = ioctl(ns->net, NS_GET_USERNS);
    if (ns->user == -1) {
        snprintf(err, TN_ERR_MAX,
            "the user namespace of the listening socket cannot be found: %s",
            strerror(errno));
        netns_close(ns);
        return -1;
    }
    fcntl(ns->user, F_SETFD, FD_CLOEXEC);
    return 0;
}

/* The number in a /proc/sys file, or -1: no such file. */
static long
sysctl_number(const char *path)
{
    char buf[32];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd == -1)
        return -1;
    n = read(fd, buf, sizeof(buf) - 1);
    close(fd);
    if (n <= 0)
        return -1;
    buf[n] = '\0';
    return strtol(buf, NULL, 10);
}

/* Says which switch keeps an unprivileged user from making namespaces. */
static void
explain_rootless(struct netns_answer *a, int err, const char *what)
{
    const char *fix;

    if (sysctl_number("/proc/sys/kernel/unprivileged_userns_clone") == 0)
        fix = "set kernel.unprivileged_userns_clone=1";
    else if (sysctl_number("/proc/sys/user/max_user_namespaces") == 0)
        fix = "raise user.max_user_namespaces";
    else if (sysctl_number("/proc/sys/user/max_net_namespaces") == 0)
        fix = "raise user.max_net_namespaces";
    else if (sysctl_number("/proc/sys/kernel/"
                           "apparmor_restrict_unprivileged_userns") == 1)
        fix = "set kernel.apparmor_restrict_unprivileged_userns=0 or give "
              "tailnetd an AppArmor profile with \"userns,\"";
    else
        fix = "check kernel.unprivileged_userns_clone, "
              "user.max_user_namespaces and AppArmor's "
              "kernel.apparmor_restrict_unprivileged_userns, or the "
              "container's seccomp profile";
    netns_fail(a, err,
        "%s: %s: user namespaces are off for this user: %s; or start nginx "
        "as root with CAP_SYS_ADMIN and CAP_NET_ADMIN",
        what, strerror(err), fix);
}

static void
explain_root(struct netns_answer *a, int err, const char *what)
{
    const char *fix = "";

    if (err == EPERM || err == EACCES)
        fix = ": grant CAP_SYS_ADMIN (--cap-add SYS_ADMIN) and allow "
              "unshare and setns in the container's seccomp profile";
    else if (err == ENOSPC)
        fix = ": raise user.max_net_namespaces";
    else if (err == EINVAL)
        fix = ": this kernel has no network namespaces (CONFIG_NET_NS)";
    netns_fail(a, err, "%s: %s%s", what, strerror(err), fix);
}

static int
write_file(const char *path, const char *text)
{
    size_t len = strlen(text);
    ssize_t n;
    int err, fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd == -1)
        return -1;
    n = write(fd, text, len);
    err = errno;
    close(fd);
    errno = err;
    return n == (ssize_t)len ? 0 : -1;
}

/* The holder's user as root of the new user namespace (user_namespaces(7)). */
static int
map_user(uid_t uid, gid_t gid)
{
    char map[32];

    if (write_file("/proc/self/setgroups", "deny") == -1 && errno != ENOENT)
        return -1;
    snprintf(map, sizeof(map), "0 %u 1", (unsigned)uid);
    if (write_file("/proc/self/uid_map", map) == -1)
        return -1;
    snprintf(map, sizeof(map), "0 %u 1", (unsigned)gid);
    return write_file("/proc/self/gid_map", map);
}

static void
make(struct netns *ns, struct netns_answer *a)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if (unshare((rootless ? CLONE_NEWUSER : 0) | CLONE_NEWNET) == -1) {
        if (rootless)
            explain_rootless(a, errno, "no namespace can be made");
        else
            explain_root(a, errno, "no namespace can be made");
        return;
    }
    /* A process that is not dumpable may not write its own maps. */
    prctl(PR_SET_DUMPABLE, 1);
    if (rootless && map_user(uid, gid) == -1) {
        explain_rootless(a, errno, "no user can be mapped");
        return;
    }
    ns->net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    ns->user = rootless ? open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC) : -1;
    if (ns->net == -1 || (rootless && ns->user == -1))
        netns_fail(a, errno, "/proc/self/ns cannot be opened: %s: mount /proc",
            strerror(errno));
}

static void
enter(const struct netns *ns, struct netns_answer *a)
{
    if (ns->user != -1 && setns(ns->user, CLONE_NEWUSER) == -1)
        explain_rootless(a, errno, "the user namespace cannot be entered");
    else if (setns(ns->net, CLONE_NEWNET) == -1)
        explain_root(a, errno, "the namespace cannot be entered");
}

_Static_assert(NETNS_FDS_MAX + 2 <= RIGHTS_MAX, "a message takes so many");

static void
send_reply(int fd, const struct netns_answer *a, const struct netns *made)
{
    struct reply r = {.err = a->err};
    int fds[NETNS_FDS_MAX + 2];
    union rights c;
    struct iovec iov = {&r, sizeof(r)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t n = 0;

    memcpy(r.text, a->text, sizeof(r.text));
    if (a->err == 0) {
        if (made->net != -1)
            fds[n++] = made->net;
        if (made->user != -1)
            fds[n++] = made->user;
        memcpy(fds + n, a->fds, a->nfds * sizeof(int));
        n += a->nfds;
    }
    rights_put(&h, &c, fds, n);
    if (sendmsg(fd, &h, MSG_NOSIGNAL) == -1)
        _exit(2); /* the holder sees an end without an answer */
}

static _Noreturn void
child(int fd, const struct netns *ns, netns_job *job, void *arg)
{
    struct netns_answer a = {.err = 0};
    struct netns made = NETNS_NONE;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (ns == NULL)
        make(&made, &a);
    else
        enter(ns, &a);
    if (a.err == 0)
        job(arg, &a);
    send_reply(fd, &a, &made);
    _exit(0);
}

/* One message of the child, with its descriptors, in bounded time. */
static int
recv_reply(int fd, struct netns_answer *a)
{
    struct reply r = {.err = EIO};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    union rights c;
    struct iovec iov = {&r, sizeof(r)};
    struct msghdr h = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = c.b,
        .msg_controllen = sizeof(c.b)};
    bool fits;
    int n;

    do
        n = poll(&p, 1, NETNS_TIMEOUT_MS);
    while (n == -1 && errno == EINTR);
    if (n <= 0) {
        netns_fail(a, ETIMEDOUT, "the namespace did not answer in %d ms",
            NETNS_TIMEOUT_MS);
        return -1;
    }
    if (recvmsg(fd, &h, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(r)) {
        netns_fail(a, EIO, "the process in the namespace died");
        return -1;
    }
    fits = rights_take(&h, a->fds, NETNS_FDS_MAX, &a->nfds);
    a->err = r.err;
    memcpy(a->text, r.text, sizeof(a->text));
    if (!fits)
        netns_fail(a, EMFILE, "no descriptor is left: raise LimitNOFILE");
    return a->err == 0 ? 0 : -1;
}

static int
run(const struct netns *ns, netns_job *job, void *arg, struct netns_answer *a)
{
    int sv[2], rc;
    pid_t pid;

    memset(a, 0, sizeof(*a));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == -1) {
        netns_fail(a, errno, "socketpair: %s", strerror(errno));
        return -1;
    }
    pid = fork();
    if (pid == -1) {
        netns_fail(a, errno, "fork: %s", strerror(errno));
        close(sv[0]);
        close(sv[1]);
        return -1;
    }
    if (pid == 0) {
        close(sv[0]);
        child(sv[1], ns, job, arg);
    }
    close(sv[1]);
    rc = recv_reply(sv[0], a);
    close(sv[0]);
    if (rc == -1) {
        kill(pid, SIGKILL);
        while (a->nfds > 0)
            close(a->fds[--a->nfds]);
    }
    while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
        ;
    return rc;
}

int
netns_run(
    const struct netns *ns, netns_job *job, void *arg, struct netns_answer *a)
{
    return run(ns, job, arg, a);
}

int
netns_make(struct netns *ns, netns_job *job, void *arg, struct netns_answer *a)
{
    size_t n = rootless ? 2 : 1;

    *ns = NETNS_NONE;
    if (run(NULL, job, arg, a) == -1)
        return -1;
    if (a->nfds < n) {
        netns_fail(a, EIO, "the namespace was not passed back");
        while (a->nfds > 0)
            close(a->fds[--a->nfds]);
        return -1;
    }
    ns->net = a->fds[0];
    if (rootless)
        ns->user = a->fds[1];
    a->nfds -= n;
    memmove(a->fds, a->fds + n, a->nfds * sizeof(int));
    return 0;
}

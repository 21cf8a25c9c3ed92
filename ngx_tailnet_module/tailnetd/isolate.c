#include "isolate.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Stage "holder": what stays, and for what. */
static const unsigned holder_caps[] = {
    CAP_SYS_ADMIN, /* unshare() and setns() of network namespaces */
    CAP_NET_ADMIN, /* TUN, addresses, routes, sysctls, SIOCGSKNS in them */
    CAP_NET_BIND_SERVICE, /* listening on ports below 1024 in them */
    CAP_DAC_OVERRIDE,     /* key files of any owner; nginx's rotated log, which
                             belongs to nginx's user */
    CAP_SETUID,           /* the engine's user */
    CAP_SETGID,           /* the engine's group */
    CAP_KILL,             /* ending the engine, which has another user */
};

struct caps {
    struct __user_cap_header_struct h;
    struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
};

static int
get_caps(struct caps *c)
{
    memset(c, 0, sizeof(*c));
    c->h.version = _LINUX_CAPABILITY_VERSION_3;
    return (int)syscall(SYS_capget, &c->h, c->d);
}

static int
set_caps(struct caps *c)
{
    return (int)syscall(SYS_capset, &c->h, c->d);
}

bool
isolate_may_make_namespaces(void)
{
    struct caps c;

    return get_caps(&c) == 0 && (c.d[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective &
                                    CAP_TO_MASK(CAP_SYS_ADMIN)) != 0;
}

void
isolate_undump(void)
{
    struct rlimit none = {0, 0};

    setrlimit(RLIMIT_CORE, &none);
    /* LeakSanitizer traces its own process. */
    if (!SANITIZED)
        prctl(PR_SET_DUMPABLE, 0);
}

/* As many descriptors as may be had, up to what can be of use. */
static void
raise_nofile(void)
{
    struct rlimit l, all = {ISOLATE_NOFILE, ISOLATE_NOFILE};

    if (getrlimit(RLIMIT_NOFILE, &l) == -1 || l.rlim_cur >= ISOLATE_NOFILE)
        return;
    if (l.rlim_max < ISOLATE_NOFILE && setrlimit(RLIMIT_NOFILE, &all) == 0)
        return;
    l.rlim_cur = l.rlim_max < ISOLATE_NOFILE ? l.rlim_max : ISOLATE_NOFILE;
    setrlimit(RLIMIT_NOFILE, &l);
}

int
isolate_holder(char err[TN_ERR_MAX])
{
    uint32_t keep[_LINUX_CAPABILITY_U32S_3] = {0};
    struct caps c;
    size_t i;

    raise_nofile();
    isolate_undump();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1) {
        snprintf(err, TN_ERR_MAX, "no_new_privs: %s", strerror(errno));
        return -1;
    }
    for (i = 0; i < sizeof(holder_caps) / sizeof(holder_caps[0]); i++)
        keep[CAP_TO_INDEX(holder_caps[i])] |= CAP_TO_MASK(holder_caps[i]);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (get_caps(&c) == -1)
        goto failed;
    for (i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        c.d[i].permitted &= keep[i];
        c.d[i].effective = c.d[i].permitted;
        c.d[i].inheritable = 0;
    }
    if (set_caps(&c) == 0)
        return 0;
failed:
    snprintf(err, TN_ERR_MAX, "capabilities cannot be given up: %s",
        strerror(errno));
    return -1;
}

/* FNV-1a: a number for a path; nobody is to be kept from choosing it. */
static uint32_t
hash(const char *s)
{
    uint32_t h = 2166136261u;

    while (*s != '\0')
        h = (h ^ (unsigned char)*s++) * 16777619u;
    return h;
}

static int
pick_number(struct isolate_user *u, const char *seed, char err[TN_ERR_MAX])
{
    const uint32_t range = ISOLATE_UID_LAST - ISOLATE_UID_FIRST + 1;
    uint32_t h = hash(seed), i;
    uid_t uid;

    for (i = 0; i < range; i++) {
        uid = ISOLATE_UID_FIRST + (h + i) % range;
        if (getpwuid(uid) == NULL && getgrgid((gid_t)uid) == NULL) {
            u->change = true;
            u->uid = uid;
            u->gid = (gid_t)uid;
            return 0;
        }
    }
    snprintf(err, TN_ERR_MAX,
        "no number between %d and %d is free for the engine's user: give "
        "--engine-user",
        ISOLATE_UID_FIRST, ISOLATE_UID_LAST);
    return -1;
}

int
isolate_pick_user(struct isolate_user *u, const char *name, const char *seed,
    char err[TN_ERR_MAX])
{
    struct passwd *pw;

    memset(u, 0, sizeof(*u));
    if (geteuid() != 0)
        return 0;
    pw = getpwnam(name != NULL ? name : "tailnetd");
    if (pw == NULL && name == NULL)
        return pick_number(u, seed, err);
    if (pw == NULL) {
        snprintf(
            err, TN_ERR_MAX, "--engine-user %s: there is no such user", name);
        return -1;
    }
    if (pw->pw_uid == 0) {
        snprintf(err, TN_ERR_MAX,
            "--engine-user %s: the engine may not run as root", pw->pw_name);
        return -1;
    }
    u->change = true;
    u->uid = pw->pw_uid;
    u->gid = pw->pw_gid;
    return 0;
}

const char *
isolate_child(const struct isolate_user *u)
{
    struct caps c;
    size_t i;

    if (u->change) {
        if (setgroups(0, NULL) == -1) /* no group of root's */
            return "setgroups";
        if (setresgid(u->gid, u->gid, u->gid) == -1)
            return "setresgid";
        if (setresuid(u->uid, u->uid, u->uid) == -1)
            return "setresuid";
    }
    /* A user without privileges may have been given some by its manager. */
    if (get_caps(&c) == -1)
        return "capget";
    for (i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
        c.d[i].permitted = c.d[i].effective = c.d[i].inheritable = 0;
    if (set_caps(&c) == -1)
        return "capset";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
        return "no_new_privs";
    isolate_undump();
    return NULL;
}

#if SANITIZED

/* The sanitizers' own system calls are not ours to list. */
int
isolate_engine(void)
{
    return 0;
}

#else

/* Stage "engine": what a running engine asks of the kernel. */
static const int engine_calls[] = {
    /* bytes in and out: TUN, UDP, holder, log, memory files */
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(lseek),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(recvmmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(sendmmsg),
    /* UDP sockets of the host's namespace */
    SCMP_SYS(socket),
    SCMP_SYS(socketpair),
    SCMP_SYS(bind),
    SCMP_SYS(connect),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(shutdown),
    /* descriptors */
    SCMP_SYS(close),
    SCMP_SYS(close_range),
    SCMP_SYS(dup),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    SCMP_SYS(fcntl),
    SCMP_SYS(ioctl),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(statx),
    SCMP_SYS(pipe2),
    /* snapshots and hot state */
    SCMP_SYS(memfd_create),
    SCMP_SYS(sendfile),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fallocate),
    /* libuv's loop and timers */
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(eventfd2),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(select),
    SCMP_SYS(pselect6),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime),
    /* time */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    /* memory */
    SCMP_SYS(brk),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(mlock),
    SCMP_SYS(mlock2),
    SCMP_SYS(munlock),
    /* libuv's threads for name resolution, and what the resolver reads */
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(futex),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(openat),
    SCMP_SYS(open),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(getdents64),
    SCMP_SYS(stat),
    SCMP_SYS(uname),
    /* randomness */
    SCMP_SYS(getrandom),
    /* signals and the end */
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(getppid),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    /* limits and names, read by libraries */
    SCMP_SYS(getrlimit),
    SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo),
    SCMP_SYS(prctl),
};

/* Async-signal-safe: a line for the log that names the call, then the end. */
static void
refused(int sig, siginfo_t *info, void *context)
{
    char line[] = "<3>system call      is not allowed to the engine: ended\n";
    char *digit = line + 18;
    unsigned n = (unsigned)info->si_syscall;

    (void)sig;
    (void)context;
    do {
        *digit-- = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0 && digit > line + 14);
    if (write(STDERR_FILENO, line, sizeof(line) - 1) == -1)
        _exit(1);
    _exit(1);
}

#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14) /* Linux 6.2 */
#endif

/*
 * An engine that stays the holder's user could write that user's files: none
 * from now on, whoever it is.  Before Linux 5.13 there is no such right to be
 * given up.
 */
static int
forbid_writing(void)
{
    struct landlock_ruleset_attr all = {
        .handled_access_fs = LANDLOCK_ACCESS_FS_WRITE_FILE |
                             LANDLOCK_ACCESS_FS_MAKE_REG |
                             LANDLOCK_ACCESS_FS_TRUNCATE};
    long version = syscall(
        SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    long fd, rc;

    if (version < 1)
        return 0;
    if (version < 3)
        all.handled_access_fs &= ~LANDLOCK_ACCESS_FS_TRUNCATE;
    fd = syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
    if (fd == -1)
        return -1;
    rc = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (rc == 0)
        rc = syscall(SYS_landlock_restrict_self, fd, 0);
    close((int)fd);
    return (int)rc;
}

/* What is allowed in one form only, or is said not to be there. */
static int
add_narrow(scmp_filter_ctx ctx)
{
    int rc;

    /* Its operations would go past this list; libuv does without. */
    rc = seccomp_rule_add(
        ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(io_uring_setup), 0);
    /* Threads: no process, and so no user namespace with all its rights. The
     * flags of clone3() are in memory; libc does without. */
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
            SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    /* Nothing that is done to other processes of this user. */
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
            SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
            SCMP_A0(SCMP_CMP_EQ, 0, 0));
    return rc;
}

int
isolate_engine(void)
{
    struct sigaction sa;
    scmp_filter_ctx ctx;
    size_t i;
    int rc;

    if (forbid_writing() == -1)
        return -1;
    memset(&sa, 0, sizeof(sa));
    sa.sa_sigaction = refused;
    sa.sa_flags = SA_SIGINFO;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGSYS, &sa, NULL);
    ctx = seccomp_init(SCMP_ACT_TRAP);
    if (ctx == NULL) {
        errno = ENOMEM;
        return -1;
    }
    rc = add_narrow(ctx);
    for (i = 0; rc == 0 && i < sizeof(engine_calls) / sizeof(*engine_calls);
         i++)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, engine_calls[i], 0);
    if (rc == 0)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    if (rc == 0)
        return 0;
    errno = -rc;
    return -1;
}

#endif

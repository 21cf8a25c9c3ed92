/* links: tailnetd/isolate.c */
/* libs: -lseccomp */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/isolate.h"

/* Runs ${job} in a child; its exit code, and its standard error in ${err}. */
static int
run(int (*job)(void), char *err, size_t size)
{
    int status = 0, p[2];
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe(p), 0);
    pid = fork();
    assert_true(pid != -1);
    if (pid == 0) {
        dup2(p[1], STDERR_FILENO);
        _exit(job());
    }
    close(p[1]);
    n = read(p[0], err, size - 1);
    err[n < 0 ? 0 : n] = '\0';
    close(p[0]);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* The hexadecimal number behind ${name} in /proc/self/status. */
static unsigned long long
proc(const char *name)
{
    char line[256];
    unsigned long long v = ~0ull;
    FILE *f = fopen("/proc/self/status", "re");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0)
            v = strtoull(line + strlen(name), NULL, 16);
    }
    if (f != NULL)
        fclose(f);
    return v;
}

static int
be_holder(void)
{
    /* SETGID SETUID KILL DAC_OVERRIDE NET_BIND NET_ADMIN SYS_ADMIN */
    const unsigned long long may = 1u << 6 | 1u << 7 | 1u << 5 | 1u << 1 |
                                   1u << 10 | 1u << 12 | 1u << 21;
    char err[TN_ERR_MAX];
    struct rlimit l;

    if (isolate_holder(err) != 0)
        return 2;
    if (proc("CapEff:") & ~may || proc("CapPrm:") & ~may ||
        proc("CapInh:") != 0 || proc("CapAmb:") != 0)
        return 3;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 4;
    if (getrlimit(RLIMIT_CORE, &l) != 0 || l.rlim_max != 0)
        return 5;
    return 0;
}

static int
be_child(void)
{
    struct isolate_user u;
    char err[TN_ERR_MAX];

    if (isolate_pick_user(&u, NULL, "/run/a.sock", err) != 0)
        return 2;
    if (u.change != (geteuid() == 0))
        return 3;
    if (isolate_child(&u) != NULL)
        return 4;
    if (proc("CapEff:") != 0 || proc("CapPrm:") != 0 || proc("CapInh:") != 0)
        return 5;
    if (u.change && (getuid() != u.uid || getgroups(0, NULL) != 0))
        return 6;
    return u.change && setuid(0) == 0 ? 7 : 0;
}

static void *
lookup(void *arg)
{
    return arg;
}

/* What a running engine does. */
static int
be_engine(void)
{
    char byte = 'x';
    pthread_t thread;
    struct pollfd p;
    void *m;
    int fd, s;

    if (isolate_engine() != 0)
        return 2;
    fd = memfd_create("t", MFD_ALLOW_SEALING);
    if (fd == -1 || write(fd, &byte, 1) != 1)
        return 3;
    m = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    s = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    p = (struct pollfd){.fd = eventfd(1, EFD_CLOEXEC), .events = POLLIN};
    if (m == MAP_FAILED || poll(&p, 1, 100) != 1)
        return 4;
    close(s);
    free(malloc(1 << 20));
    return pthread_create(&thread, NULL, lookup, &s) == 0 &&
                   pthread_join(thread, &m) == 0 && m == &s
               ? 0
               : 5;
}

#ifndef TN_SANITIZE /* whose runtime needs more system calls than the engine \
                     */

static char file[] = "/tmp/test-isolate.XXXXXX", made[sizeof(file) + 4];

/* One that is still the user who started everything. */
static int
be_writing_engine(void)
{
    int fd = open(file, O_RDWR);

    if (isolate_engine() != 0)
        return 2;
    if (write(fd, "x", 1) != 1 || open(file, O_RDONLY) == -1)
        return 3;
    if (open(file, O_WRONLY) != -1 || open(made, O_RDWR | O_CREAT, 0600) != -1)
        return 4;
    return 0;
}

static int
be_bad_engine(void)
{
    if (isolate_engine() != 0)
        return 2;
    return chroot("/") == 0 ? 0 : 3;
}

static int
be_worse_engine(void)
{
    char *argv[] = {NULL};

    if (isolate_engine() != 0)
        return 2;
    execve("/bin/true", argv, argv);
    return 3;
}

/* With all rights in a user namespace of its own. */
static int
be_forking_engine(void)
{
    if (isolate_engine() != 0)
        return 2;
    return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0) == 0
               ? 0
               : 3;
}

static int
be_killing_engine(void)
{
    if (isolate_engine() != 0)
        return 2;
    return syscall(SYS_tgkill, getppid(), getppid(), 0) == 0 ? 0 : 3;
}

static int
be_limiting_engine(void)
{
    struct rlimit l;

    if (isolate_engine() != 0)
        return 2;
    return prlimit(getppid(), RLIMIT_CPU, NULL, &l) == 0 ? 0 : 3;
}

#endif

static void
test_stages(void **state)
{
    char err[256];

    (void)state;
    assert_int_equal(run(be_holder, err, sizeof(err)), 0);
    assert_int_equal(run(be_child, err, sizeof(err)), 0);
    assert_int_equal(run(be_engine, err, sizeof(err)), 0);
    assert_string_equal(err, "");
}

#ifndef TN_SANITIZE

static void
test_refused(void **state)
{
    static int (*const worse[])(void) = {be_worse_engine, be_forking_engine,
        be_killing_engine, be_limiting_engine};
    char err[256];
    size_t i;

    (void)state;
    assert_int_equal(run(be_bad_engine, err, sizeof(err)), 1);
#ifdef __x86_64__
    assert_string_equal(
        err, "<3>system call  161 is not allowed to the engine: ended\n");
#endif
    for (i = 0; i < sizeof(worse) / sizeof(worse[0]); i++) {
        assert_int_equal(run(worse[i], err, sizeof(err)), 1);
        assert_non_null(strstr(err, "is not allowed"));
    }
}

static void
test_writes(void **state)
{
    char err[256];

    (void)state;
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 1)
        skip(); /* before Linux 5.13 */
    close(mkstemp(file));
    snprintf(made, sizeof(made), "%s-new", file);
    assert_int_equal(run(be_writing_engine, err, sizeof(err)), 0);
    assert_string_equal(err, "");
    assert_int_equal(unlink(file), 0);
    assert_int_equal(access(made, F_OK), -1);
}

#endif

static void
test_pick_user(void **state)
{
    struct isolate_user u, v;
    char err[TN_ERR_MAX];
    struct passwd *pw;

    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(isolate_pick_user(&u, "no-such-user", "x", err), -1);
    assert_non_null(strstr(err, "no-such-user: there is no such user"));
    assert_int_equal(isolate_pick_user(&u, "root", "x", err), -1);
    assert_non_null(strstr(err, "may not run as root"));
    assert_int_equal(isolate_pick_user(&u, "nobody", "x", err), 0);
    pw = getpwnam("nobody");
    assert_non_null(pw);
    assert_true(u.change && u.uid == pw->pw_uid && u.gid == pw->pw_gid);
    if (getpwnam("tailnetd") != NULL)
        return;
    assert_int_equal(isolate_pick_user(&u, NULL, "/run/a.sock", err), 0);
    assert_int_equal(isolate_pick_user(&v, NULL, "/run/a.sock", err), 0);
    assert_int_equal(u.uid, v.uid);
    assert_in_range(u.uid, ISOLATE_UID_FIRST, ISOLATE_UID_LAST);
    assert_int_equal(isolate_pick_user(&v, NULL, "/run/b.sock", err), 0);
    assert_int_not_equal(u.uid, v.uid);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages),
#ifndef TN_SANITIZE
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_writes),
#endif
        cmocka_unit_test(test_pick_user),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

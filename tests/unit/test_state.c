/* links: tailnetd/holder/state.c tailnetd/holder/authkey.c */
/* links: tailnetd/holder/keysrc.c tailnetd/log.c */
/* libs: -Wl,--wrap=write,--wrap=fsync,--wrap=renameat */
/*
 * test_state.c: the state directory, its modes, and a power loss at any step;
 * the sources of auth keys.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/holder/authkey.h"
#include "../../ngx_tailnet_module/tailnetd/holder/state.h"

static char base[64], dir[128], err[TN_ERR_MAX];

/* ---- a disk that fails ---- */

ssize_t __real_write(int fd, const void *p, size_t len);
int __real_fsync(int fd);
int __real_renameat(int a, const char *from, int b, const char *to);
ssize_t __wrap_write(int fd, const void *p, size_t len);
int __wrap_fsync(int fd);
int __wrap_renameat(int a, const char *from, int b, const char *to);

static long bytes_left = -1; /* until the disk is full; -1: it is not */
static int fail_step;        /* 1: fsync of the file, 2: rename */

ssize_t
__wrap_write(int fd, const void *p, size_t len)
{
    if (bytes_left < 0)
        return __real_write(fd, p, len);
    if (bytes_left == 0) {
        errno = ENOSPC;
        return -1;
    }
    if ((size_t)bytes_left < len)
        len = (size_t)bytes_left;
    bytes_left -= (long)len;
    return __real_write(fd, p, len);
}

int
__wrap_fsync(int fd)
{
    if (fail_step == 1) {
        errno = EIO;
        return -1;
    }
    return __real_fsync(fd);
}

int
__wrap_renameat(int a, const char *from, int b, const char *to)
{
    if (fail_step == 2) {
        errno = EIO;
        return -1;
    }
    return __real_renameat(a, from, b, to);
}

/* ---- helpers ---- */

static int
memory(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_int_equal(
        __real_write(fd, text, strlen(text)), (ssize_t)strlen(text));
    return fd;
}

static int
save(enum ipc_save kind, const char *text)
{
    int fd = memory(text), rc;

    rc = state_save(dir, kind, fd, err);
    close(fd);
    return rc;
}

/* The file's content, "" when it is not there. */
static const char *
content(enum ipc_save kind)
{
    static char buf[4096];
    int fd = state_open(dir, kind, err);
    ssize_t n;

    buf[0] = '\0';
    if (fd == -1) {
        assert_string_equal(err, "");
        return buf;
    }
    n = read(fd, buf, sizeof(buf) - 1);
    close(fd);
    assert_true(n >= 0);
    buf[n] = '\0';
    return buf;
}

static mode_t
mode_of(const char *name)
{
    char path[256];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

/* ---- tests ---- */

static void
life(void **state)
{
    (void)state;
    assert_int_equal(state_make(dir, err), 0);
    assert_int_equal(mode_of("."), 0700);
    assert_string_equal(content(IPC_SAVE_KEYS), "");
    assert_int_equal(save(IPC_SAVE_KEYS, "one\n"), 0);
    assert_int_equal(save(IPC_SAVE_NETMAP, "{}"), 0);
    assert_int_equal(mode_of("keys"), 0600);
    assert_string_equal(content(IPC_SAVE_KEYS), "one\n");
    assert_int_equal(save(IPC_SAVE_KEYS, "two, longer\n"), 0);
    assert_string_equal(content(IPC_SAVE_KEYS), "two, longer\n");
    assert_string_equal(content(IPC_SAVE_NETMAP), "{}");
    assert_int_equal(state_make(dir, err), 0);
}

static void
made_with_parents(void **state)
{
    static const char *const parts[] = {"/lib/nginx/web", "/lib/nginx", "/lib"};
    char path[256];

    (void)state;
    snprintf(path, sizeof(path), "%s/lib//nginx/web/", base);
    assert_int_equal(state_make(path, err), 0);
    assert_int_equal(state_make(path, err), 0);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        snprintf(path, sizeof(path), "%s%s", base, parts[i]);
        assert_int_equal(rmdir(path), 0);
    }
}

static void
refused(void **state)
{
    char path[256];

    (void)state;
    chmod(dir, 0750);
    assert_int_equal(state_make(dir, err), -1);
    assert_non_null(strstr(err, "chmod 0700"));
    assert_int_equal(state_open(dir, IPC_SAVE_KEYS, err), -1);
    assert_non_null(strstr(err, "chmod 0700"));
    assert_int_equal(save(IPC_SAVE_KEYS, "mine"), -1);
    assert_non_null(strstr(err, "chmod 0700"));
    chmod(dir, 0700);
    /* another one that has its name now */
    if (chown(dir, 65534, (gid_t)-1) == 0) {
        assert_int_equal(state_open(dir, IPC_SAVE_KEYS, err), -1);
        assert_non_null(strstr(err, "belongs to user 65534"));
        assert_int_equal(save(IPC_SAVE_KEYS, "mine"), -1);
        assert_int_equal(chown(dir, geteuid(), (gid_t)-1), 0);
    }
    snprintf(path, sizeof(path), "%s/keys", dir);
    chmod(path, 0640);
    assert_int_equal(state_open(dir, IPC_SAVE_KEYS, err), -1);
    assert_non_null(strstr(err, "chmod 0600"));
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(state_open(dir, IPC_SAVE_KEYS, err), -1);
    assert_string_not_equal(err, "");
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(state_open(dir, IPC_SAVE_KEYS, err), -1);
    assert_non_null(strstr(err, "no regular file"));
    rmdir(path);
    assert_int_equal(state_make("/proc/nowhere/x", err), -1);
    snprintf(path, sizeof(path), "%s/file", base);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(state_make(path, err), -1);
    unlink(path);
}

/* Whatever fails, and wherever a write is cut short: the old file is there. */
static void
power_loss(void **state)
{
    static const char old[] = "old content\n", new[] = "new content, longer\n";

    (void)state;
    assert_int_equal(save(IPC_SAVE_KEYS, old), 0);
    for (size_t cut = 0; cut < sizeof(new) - 1; cut++) {
        bytes_left = (long)cut;
        assert_int_equal(save(IPC_SAVE_KEYS, new), -1);
        bytes_left = -1;
        assert_non_null(strstr(err, "No space left"));
        assert_string_equal(content(IPC_SAVE_KEYS), old);
    }
    for (fail_step = 1; fail_step <= 2; fail_step++) {
        assert_int_equal(save(IPC_SAVE_KEYS, new), -1);
        assert_string_equal(content(IPC_SAVE_KEYS), old);
    }
    fail_step = 0;
    /* what a holder left that was killed in the middle is no hindrance */
    {
        char path[256];
        int fd;

        snprintf(path, sizeof(path), "%s/.keys.new", dir);
        fd = open(path, O_CREAT | O_WRONLY, 0644);
        close(fd);
    }
    assert_int_equal(save(IPC_SAVE_KEYS, new), 0);
    assert_string_equal(content(IPC_SAVE_KEYS), new);
    assert_int_equal(mode_of("keys"), 0600);
}

/* ---- auth keys ---- */

static void
read_source_or(const char *source, int secret, const char *want)
{
    char buf[256];
    size_t n = 0;
    ssize_t got;
    int fd = authkey_open(source, secret, err);

    if (fd == -1)
        fail_msg("%s: %s", source, err);
    while (n < sizeof(buf) - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        assert_int_equal(poll(&p, 1, 5000), 1);
        got = read(fd, buf + n, sizeof(buf) - 1 - n);
        assert_true(got >= 0);
        if (got == 0)
            break;
        n += (size_t)got;
    }
    buf[n] = '\0';
    close(fd);
    assert_string_equal(buf, want);
}

static void
read_source(const char *source, const char *want)
{
    read_source_or(source, -1, want);
}

/* A command is killed, with what it started, when nobody reads any more. */
static void
commands_end(void **state)
{
    static const char source[] = "exec:sleep 1000 & echo $$ $!; wait";
    struct pollfd p = {.events = POLLIN};
    int pids[2], i, tries;
    char buf[64] = "";

    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* no zombies */
    p.fd = authkey_open(source, -1, err);
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_true(read(p.fd, buf, sizeof(buf) - 1) > 0);
    assert_int_equal(sscanf(buf, "%d %d", &pids[0], &pids[1]), 2);
    for (i = 0; i < 2; i++)
        assert_int_equal(kill(pids[i], 0), 0);
    close(p.fd);
    for (i = 0; i < 2; i++) {
        for (tries = 0; kill(pids[i], 0) == 0 && tries < 1000; tries++) {
            poll(NULL, 0, 10);
            while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
        }
        assert_int_equal(kill(pids[i], 0), -1);
    }
}

static void
sources(void **state)
{
    char path[256], source[300];
    int fd;

    (void)state;
    snprintf(path, sizeof(path), "%s/key", base);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(__real_write(fd, "k1\n", 3), 3);
    close(fd);
    snprintf(source, sizeof(source), "file:%s", path);
    read_source(source, "k1\n");
    chmod(path, 0620);
    assert_int_equal(authkey_open(source, -1, err), -1);
    assert_non_null(strstr(err, "can write it"));
    chmod(path, 0600);

    setenv("TEST_AUTH_KEY", "k2", 1);
    read_source("env:TEST_AUTH_KEY", "k2");
    assert_int_equal(authkey_open("env:TEST_AUTH_KEY_2", -1, err), -1);
    assert_non_null(strstr(err, "env:TEST_AUTH_KEY_2: this variable is set"));
    fd = memfd_create("secret", MFD_CLOEXEC);
    assert_int_equal(__real_write(fd, "k4", 2), 2);
    for (int i = 0; i < 2; i++) { /* each time from its start */
        read_source_or("env:TEST_AUTH_KEY", fd, "k4");
        read_source_or("env:TEST_AUTH_KEY_2", fd, "k4");
    }
    close(fd);

    assert_int_equal(authkey_open("credential:key", -1, err), -1);
    assert_non_null(strstr(err, "LoadCredential="));
    setenv("CREDENTIALS_DIRECTORY", base, 1);
    read_source("credential:key", "k1\n");
    assert_int_equal(authkey_open("credential:none", -1, err), -1);

    read_source("exec:printf %s k3; exec 1>&-", "k3");
    read_source("exec:exit 3", "");
    assert_int_equal(authkey_open("", -1, err), -1);
    assert_string_equal(err, "the node has no auth_key");
    unlink(path);
}

static int
setup(void **state)
{
    (void)state;
    strcpy(base, "/tmp/test-state-XXXXXX");
    if (mkdtemp(base) == NULL)
        return -1;
    snprintf(dir, sizeof(dir), "%s/state", base);
    return 0;
}

static int
teardown(void **state)
{
    char path[256];

    (void)state;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, i ? "keys" : "netmap");
        unlink(path);
    }
    rmdir(dir);
    return rmdir(base);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(life),
        cmocka_unit_test(made_with_parents),
        cmocka_unit_test(refused),
        cmocka_unit_test(power_loss),
        cmocka_unit_test(sources),
        cmocka_unit_test(commands_end),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, setup, teardown);
}

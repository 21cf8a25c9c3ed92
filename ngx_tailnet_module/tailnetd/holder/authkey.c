#include "authkey.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keysrc.h"

static int
open_path(const char *path, char err[TN_ERR_MAX])
{
    struct keysrc_id id;

    return keysrc_open(path, KEYSRC_SECRET, &id, err);
}

/* Without a look at it, where another memory file has it. */
static bool
copy_value(int fd, int secret, const char *value)
{
    off_t at = 0;
    struct stat st;
    size_t len;

    if (secret == -1) {
        len = strlen(value);
        return write(fd, value, len) == (ssize_t)len;
    }
    return fstat(secret, &st) == 0 &&
           sendfile(fd, secret, &at, (size_t)st.st_size) == st.st_size;
}

static int
open_variable(const char *name, int secret, char err[TN_ERR_MAX])
{
    const char *value = getenv(name);
    int fd;

    if (secret == -1 && (value == NULL || *value == '\0')) {
        snprintf(err, TN_ERR_MAX,
            "env:%.200s: this variable is set neither for nginx nor for "
            "tailnetd: start them with it",
            name);
        return -1;
    }
    fd = memfd_create("tailnet-auth-key", MFD_CLOEXEC);
    if (fd == -1 || !copy_value(fd, secret, value) ||
        lseek(fd, 0, SEEK_SET) != 0) {
        snprintf(err, TN_ERR_MAX, "env:%.200s: %s", name, strerror(errno));
        if (fd != -1)
            close(fd);
        return -1;
    }
    return fd;
}

static int
open_credential(const char *name, char err[TN_ERR_MAX])
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    char path[TN_NODE_PATH_MAX + 1];

    if (dir == NULL || *dir != '/') {
        snprintf(err, TN_ERR_MAX,
            "credential:%.200s: tailnetd was started without systemd "
            "credentials (LoadCredential=)",
            name);
        return -1;
    }
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path)) {
        snprintf(
            err, TN_ERR_MAX, "credential:%.200s: its path is too long", name);
        return -1;
    }
    return open_path(path, err);
}

static _Noreturn void
run(const char *command, int out)
{
    int in = open("/dev/null", O_RDONLY);
    sigset_t none;

    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (in == -1 || dup2(in, STDIN_FILENO) == -1 ||
        dup2(out, STDOUT_FILENO) == -1)
        _exit(127);
    close_range(3, ~0u, 0);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

/*
 * In the grandchild, whom nobody waits for: it is init's.  A command may last
 * as long as somebody reads what it prints: the engine, that is, while it has
 * patience.  Then it is killed, with all that it started.
 */
static _Noreturn void
guard(const char *command, int out)
{
    struct pollfd p[2] = {{.events = POLLIN}, {.fd = STDOUT_FILENO}};
    pid_t pid;

    setsid();
    prctl(PR_SET_NAME, "auth_key exec:"); /* no second tailnetd */
    pid = fork();
    if (pid == 0)
        run(command, out);
    if (pid == -1 || dup2(out, STDOUT_FILENO) == -1)
        kill(0, SIGKILL);
    close_range(3, ~0u, 0);
    p[0].fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (p[0].fd == -1)
        kill(0, SIGKILL);
    while (poll(p, 2, -1) == -1 && errno == EINTR)
        ;
    if (p[0].revents == 0)
        kill(0, SIGKILL);
    waitpid(pid, NULL, 0);
    _exit(0);
}

static int
open_command(const char *command, char err[TN_ERR_MAX])
{
    int pipes[2];
    pid_t pid;

    if (pipe2(pipes, O_CLOEXEC) == -1) {
        snprintf(err, TN_ERR_MAX, "exec: %s", strerror(errno));
        return -1;
    }
    pid = fork();
    if (pid == 0) {
        pid = fork();
        if (pid == 0)
            guard(command, pipes[1]);
        _exit(pid == -1);
    }
    close(pipes[1]);
    if (pid == -1) {
        snprintf(err, TN_ERR_MAX, "exec: %s", strerror(errno));
        close(pipes[0]);
        return -1;
    }
    while (waitpid(pid, NULL, 0) == -1 && errno == EINTR)
        ;
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    return pipes[0];
}

int
authkey_open(const char *source, int secret, char err[TN_ERR_MAX])
{
    if (strncmp(source, "file:", 5) == 0)
        return open_path(source + 5, err);
    if (strncmp(source, "env:", 4) == 0)
        return open_variable(source + 4, secret, err);
    if (strncmp(source, "credential:", 11) == 0)
        return open_credential(source + 11, err);
    if (strncmp(source, "exec:", 5) == 0)
        return open_command(source + 5, err);
    snprintf(err, TN_ERR_MAX, "the node has no auth_key");
    return -1;
}

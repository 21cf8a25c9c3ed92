#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[IPC_SAVES] = {
    [IPC_SAVE_KEYS] = "keys", [IPC_SAVE_NETMAP] = "netmap"};
static const char *const new_names[IPC_SAVES] = {
    [IPC_SAVE_KEYS] = ".keys.new", [IPC_SAVE_NETMAP] = ".netmap.new"};

static int
fail(char err[TN_ERR_MAX], const char *path, const char *what)
{
    snprintf(
        err, TN_ERR_MAX, "state %.300s: %s: %s", path, what, strerror(errno));
    return -1;
}

/* Looked at each time: where somebody else may write before the directory,
 * another one can have taken its name. */
static int
open_dir(const char *path, char err[TN_ERR_MAX])
{
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;

    if (dir == -1 || fstat(dir, &st) == -1) {
        fail(err, path, "open");
    } else if (st.st_uid != geteuid() && st.st_uid != 0) {
        snprintf(err, TN_ERR_MAX,
            "state %.300s: it belongs to user %u, who could take the node's "
            "identity: chown it to the user that starts tailnetd",
            path, (unsigned)st.st_uid);
    } else if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        snprintf(err, TN_ERR_MAX,
            "state %.300s: others than its owner have rights there (mode "
            "%04o): chmod 0700",
            path, (unsigned)(st.st_mode & 07777));
    } else {
        return dir;
    }
    if (dir != -1)
        close(dir);
    return -1;
}

static int
make_one(const char *path)
{
    return mkdir(path, 0700) == -1 && errno != EEXIST ? -1 : 0;
}

/* ${path}, and the directories before it that are not there. */
static int
make_all(const char *path)
{
    char part[TN_NODE_PATH_MAX + 1], *slash;

    if (make_one(path) == 0)
        return 0;
    snprintf(part, sizeof(part), "%s", path);
    for (slash = strchr(part + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (make_one(part) == -1)
            return -1;
        *slash = '/';
    }
    return make_one(path);
}

int
state_make(const char *path, char err[TN_ERR_MAX])
{
    int dir;

    if (make_all(path) == -1)
        return fail(err, path, "it cannot be made");
    dir = open_dir(path, err);
    if (dir == -1)
        return -1;
    close(dir);
    return 0;
}

int
state_open(const char *path, enum ipc_save kind, char err[TN_ERR_MAX])
{
    int dir = open_dir(path, err), fd;
    struct stat st;

    if (dir == -1)
        return -1;
    err[0] = '\0';
    fd = openat(dir, names[kind],
        O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd == -1) {
        if (errno != ENOENT)
            fail(err, path, names[kind]);
        close(dir);
        return -1;
    }
    close(dir);
    if (fstat(fd, &st) == -1) {
        fail(err, path, names[kind]);
    } else if (!S_ISREG(st.st_mode)) {
        snprintf(err, TN_ERR_MAX, "state %.300s: %s is no regular file", path,
            names[kind]);
    } else if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        snprintf(err, TN_ERR_MAX,
            "state %.300s: others than its owner have rights on %s (mode "
            "%04o): chmod 0600",
            path, names[kind], (unsigned)(st.st_mode & 07777));
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

/* Returns 0, or -1 and errno. */
static int
copy(int from, int to)
{
    char buf[65536];
    off_t at = 0;
    ssize_t n, done, some;
    int rc = -1;

    while ((n = pread(from, buf, sizeof(buf), at)) != 0) {
        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1)
            goto wipe;
        at += n;
        if (at > (off_t)STATE_SAVE_MAX) {
            errno = EFBIG;
            goto wipe;
        }
        for (done = 0; done < n; done += some) {
            some = write(to, buf + done, (size_t)(n - done));
            if (some == -1 && errno == EINTR)
                some = 0;
            else if (some == -1)
                goto wipe;
        }
    }
    rc = fsync(to);
wipe:
    explicit_bzero(buf, sizeof(buf));
    return rc;
}

int
state_save(const char *path, enum ipc_save kind, int fd, char err[TN_ERR_MAX])
{
    int dir = open_dir(path, err), to, rc;

    if (dir == -1)
        return -1;
    unlinkat(dir, new_names[kind], 0); /* of a holder that was cut short */
    to = openat(dir, new_names[kind],
        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to == -1) {
        fail(err, path, new_names[kind]);
        close(dir);
        return -1;
    }
    rc = copy(fd, to);
    if (close(to) == -1)
        rc = -1;
    if (rc == 0)
        rc = renameat(dir, new_names[kind], dir, names[kind]);
    if (rc == 0)
        rc = fsync(dir);
    if (rc != 0) {
        fail(err, path, names[kind]);
        unlinkat(dir, new_names[kind], 0);
    }
    close(dir);
    return rc;
}

#include "keysrc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../log.h"

#define LOCKS_MAX   (4 * TN_NODES_MAX) /* of all node tables that live */
#define WATCHES_MAX LOCKS_MAX

#define EVENTS                                                        \
    (IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE | \
        IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | \
        IN_ONLYDIR)

struct lock {
    char path[TN_NODE_PATH_MAX + 1];
    int fd;        /* -1: no file yet */
    unsigned refs; /* 0: free */
};

struct watch {
    int wd;
    unsigned refs; /* 0: free */
};

static struct lock locks[LOCKS_MAX];
static struct watch watches[WATCHES_MAX];
static int inotify = -1;

static int64_t
ns(const struct timespec *t)
{
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

static void
identify(const struct stat *st, struct keysrc_id *id)
{
    memset(id, 0, sizeof(*id));
    id->dev = st->st_dev;
    id->ino = st->st_ino;
    id->size = st->st_size;
    id->mtime = ns(&st->st_mtim);
    id->ctime = ns(&st->st_ctim);
}

void
keysrc_id(const char *path, struct keysrc_id *id)
{
    struct stat st;

    memset(id, 0, sizeof(*id));
    if (stat(path, &st) == 0)
        identify(&st, id);
}

bool
keysrc_same(const struct keysrc_id *a, const struct keysrc_id *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->mtime == b->mtime && a->ctime == b->ctime;
}

/* Not blocking: the path may name a FIFO. */
static int
open_file(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

int
keysrc_open(const char *path, enum keysrc_kind kind, struct keysrc_id *id,
    char err[TN_ERR_MAX])
{
    struct stat st;
    int fd = open_file(path);

    memset(id, 0, sizeof(*id));
    if (fd == -1 || fstat(fd, &st) == -1) {
        snprintf(err, TN_ERR_MAX, "%.400s: %s", path, strerror(errno));
        goto failed;
    }
    if (!S_ISREG(st.st_mode)) {
        snprintf(err, TN_ERR_MAX, "%.400s: not a regular file", path);
        goto failed;
    }
    if (st.st_mode & (S_IWGRP | S_IWOTH)) {
        snprintf(err, TN_ERR_MAX,
            "%.400s: others than its owner can write it (mode %04o): "
            "chmod go-w",
            path, (unsigned)(st.st_mode & 07777));
        goto failed;
    }
    if (kind == KEYSRC_SECRET && (st.st_mode & (S_IRGRP | S_IROTH)))
        log_warn("%s: others than its owner can read this key (mode %04o)",
            path, (unsigned)(st.st_mode & 07777));
    identify(&st, id);
    return fd;
failed:
    if (fd != -1)
        close(fd);
    return -1;
}

static struct lock *
find_lock(const char *path)
{
    size_t i;

    for (i = 0; i < LOCKS_MAX; i++) {
        if (locks[i].refs > 0 && strcmp(locks[i].path, path) == 0)
            return &locks[i];
    }
    return NULL;
}

/* Locks what ${path} names now into ${*fd}; -1 there: no such file. */
static int
take(const char *path, int *fd, char err[TN_ERR_MAX])
{
    int why;

    *fd = open_file(path);
    if (*fd == -1 || flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    why = errno;
    if (why == EWOULDBLOCK)
        snprintf(err, TN_ERR_MAX,
            "%.400s: this node key is in use by another tailnetd", path);
    else
        snprintf(err, TN_ERR_MAX, "%.400s: cannot be locked: %s", path,
            strerror(why));
    close(*fd);
    *fd = -1;
    errno = why;
    return -1;
}

int
keysrc_lock(const char *path, char err[TN_ERR_MAX])
{
    struct lock *l = find_lock(path);
    size_t i;

    if (l != NULL) {
        l->refs++;
        return 0;
    }
    for (i = 0; i < LOCKS_MAX && locks[i].refs > 0; i++)
        ;
    if (i == LOCKS_MAX) {
        snprintf(
            err, TN_ERR_MAX, "more than %d private keys in use", LOCKS_MAX);
        errno = ENOSPC;
        return -1;
    }
    l = &locks[i];
    if (take(path, &l->fd, err) == -1)
        return -1;
    snprintf(l->path, sizeof(l->path), "%s", path);
    l->refs = 1;
    return 0;
}

void
keysrc_unlock(const char *path)
{
    struct lock *l = find_lock(path);

    if (l == NULL || --l->refs > 0)
        return;
    if (l->fd != -1)
        close(l->fd);
    l->fd = -1;
}

int
keysrc_relock(const char *path, char err[TN_ERR_MAX])
{
    struct lock *l = find_lock(path);
    struct stat now, held;
    int fd;

    if (l == NULL || stat(path, &now) == -1)
        return 0;
    if (l->fd != -1 && fstat(l->fd, &held) == 0 && held.st_dev == now.st_dev &&
        held.st_ino == now.st_ino)
        return 0;
    if (take(path, &fd, err) == -1)
        return -1;
    if (fd == -1)
        return 0;
    if (l->fd != -1)
        close(l->fd);
    l->fd = fd;
    return 0;
}

static struct watch *
find_watch(int wd)
{
    size_t i;

    for (i = 0; i < WATCHES_MAX; i++) {
        if (watches[i].refs > 0 && watches[i].wd == wd)
            return &watches[i];
    }
    return NULL;
}

int
keysrc_watch(const char *path, int wd)
{
    char dir[TN_NODE_PATH_MAX + 1];
    struct watch *w;
    char *slash;
    size_t i;
    int now;

    if (inotify == -1)
        inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    if (inotify == -1 || slash == NULL)
        return -1;
    slash[slash == dir] = '\0';
    now = inotify_add_watch(inotify, dir, EVENTS);
    if (now == wd)
        return wd;
    keysrc_unwatch(wd);
    if (now == -1)
        return -1;
    w = find_watch(now);
    for (i = 0; w == NULL && i < WATCHES_MAX; i++) {
        if (watches[i].refs == 0)
            w = &watches[i];
    }
    if (w == NULL) {
        inotify_rm_watch(inotify, now);
        return -1;
    }
    w->wd = now;
    w->refs++;
    return now;
}

void
keysrc_unwatch(int wd)
{
    struct watch *w = wd == -1 ? NULL : find_watch(wd);

    if (w != NULL && --w->refs == 0)
        inotify_rm_watch(inotify, wd);
}

int
keysrc_fd(void)
{
    return inotify;
}

void
keysrc_drain(void)
{
    _Alignas(struct inotify_event) char buf[4096];

    /* Which directory it was does not matter: stat() tells. */
    while (read(inotify, buf, sizeof(buf)) > 0)
        ;
}

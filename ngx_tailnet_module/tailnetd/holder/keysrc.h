/*
 * keysrc.h: the files of a node: private key, preshared keys, netmap.
 *
 * The holder opens them, with its own rights, and never reads a byte of them.
 * The private key's file is locked (flock) while a node table names it, so that
 * no two tailnetds are the same node; netmap files are watched.
 */
#ifndef KEYSRC_H
#define KEYSRC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../core/tn_node.h"

#define KEYSRC_POLL_MS   5000 /* where inotify does not see a change */
#define KEYSRC_SETTLE_MS 50   /* after an event: writers write in pieces */

/* For a lock: longer than a STOP drains, shorter than nginx asks. */
#define KEYSRC_WAIT_MS  1600
#define KEYSRC_PAUSE_MS 50

enum keysrc_kind {
    KEYSRC_SECRET, /* refused when others can write it; a warning when they
                      can read it */
    KEYSRC_NETMAP, /* refused when others can write it */
};

/* What tells one content of a file from the next; all zero: no file. */
struct keysrc_id {
    dev_t dev;
    ino_t ino;
    off_t size;
    int64_t mtime; /* nanoseconds */
    int64_t ctime;
};

/*
 * keysrc_open(path, kind, id, err): the file at offset 0 and who it is.
 * Returns it, or -1 and a sentence in ${err}, ${*id} then all zero.
 */
int keysrc_open(const char *path, enum keysrc_kind kind, struct keysrc_id *id,
    char err[TN_ERR_MAX]);

/* keysrc_id(path, id): who the file is now; all zero when there is none. */
void keysrc_id(const char *path, struct keysrc_id *id);
bool keysrc_same(const struct keysrc_id *a, const struct keysrc_id *b);

/*
 * keysrc_lock(path, err): hold the lock on a private key's file; counted.  A
 * file that is not there (yet) is no error: keysrc_relock() locks it when it
 * is.  Returns 0, or -1 and a sentence, with errno EWOULDBLOCK: somebody else
 * has it.  The tailnetd of an nginx that has just ended may still be delivering
 * its last bytes: who asks tries again for KEYSRC_WAIT_MS.
 */
int keysrc_lock(const char *path, char err[TN_ERR_MAX]);
void keysrc_unlock(const char *path);

/* keysrc_relock(path, err): the file may be another one than that which was
 * locked.  Returns 0, or -1 as above. */
int keysrc_relock(const char *path, char err[TN_ERR_MAX]);

/*
 * keysrc_watch(path, wd): watch the directory of ${path}; ${wd} is what an
 * earlier call for the same path returned, or -1.  Returns a number for the
 * next call and for keysrc_unwatch(), -1: it is only looked at from time to
 * time.
 */
int keysrc_watch(const char *path, int wd);
void keysrc_unwatch(int wd);

/* keysrc_fd(): readable when a watched directory changed; or -1. */
int keysrc_fd(void);
void keysrc_drain(void);

#endif

/*
 * isolate.h: giving up rights, in named stages.
 *
 *   holder    isolate_holder()   at its start: a handful of capabilities, no
 *                                new privileges, no core, not dumpable
 *   child     isolate_child()    between fork and exec of the engine: another
 *                                user, no capability at all
 *   engine    isolate_engine()   after the engine's start-up, before its first
 *                                byte from the network: a list of system calls
 *
 * Nothing is ever taken back.
 */
#ifndef ISOLATE_H
#define ISOLATE_H

#include <stdbool.h>
#include <sys/types.h>

#include "../core/tn_node.h"

#define ISOLATE_NOFILE 65536 /* descriptors the holder and engine may have */

/* Numeric users for an engine without a user of its own: between those of
 * dynamic systemd users' range end and the first overflow one. */
#define ISOLATE_UID_FIRST 61184
#define ISOLATE_UID_LAST  65519

/* Whom the engine runs as. */
struct isolate_user {
    bool change; /* false: stay the holder's user */
    uid_t uid;
    gid_t gid;
};

/* isolate_may_make_namespaces(): CAP_SYS_ADMIN is there; without it, a user
 * namespace is needed. */
bool isolate_may_make_namespaces(void);

/* isolate_holder(err): the holder's stage.  Returns 0, or -1 and a sentence. */
int isolate_holder(char err[TN_ERR_MAX]);

/*
 * isolate_pick_user(u, name, seed, err): the engine's user: ${name}, else
 * "tailnetd" if there is one, else a number nobody has, always the same one
 * for ${seed}.  A holder that is not root stays who it is.  Returns 0, or -1
 * and a sentence.
 */
int isolate_pick_user(struct isolate_user *u, const char *name,
    const char *seed, char err[TN_ERR_MAX]);

/* isolate_child(u): the child's stage.  Returns NULL, or the name of the step
 * that failed, with errno. */
const char *isolate_child(const struct isolate_user *u);

/* isolate_undump(): no core file and no debugger for secrets.  Needed again
 * after exec. */
void isolate_undump(void);

/*
 * isolate_engine(): the engine's stage.  Any other system call than those
 * listed ends the process with a line that names it; no file can be opened for
 * writing (from Linux 5.13 on).  Returns 0, or -1 and
 * errno (a kernel without seccomp): the caller decides.
 */
int isolate_engine(void);

#endif

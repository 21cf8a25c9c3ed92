/*
 * state.h: the state directory of a node that joins by a control server.
 *
 * A directory of 0700 with two files of 0600, which only the holder touches:
 * "keys" (secrets) and "netmap" (the last one, for a start without the server).
 * A file is written whole beside the old one and renamed over it, so that a
 * power loss leaves the one or the other.
 */
#ifndef STATE_H
#define STATE_H

#include "../../core/tn_node.h"
#include "../ipc.h"

#define STATE_SAVE_MAX (64u << 20) /* bytes of a file */

/* state_make(path, err): the directory is there and nobody else may write it;
 * made when it is not, as are those above it.  Returns 0, or -1 and a
 * sentence. */
int state_make(const char *path, char err[TN_ERR_MAX]);

/* state_open(path, kind, err): the file's descriptor; -1 with err[0] == '\0':
 * there is none yet, else a sentence. */
int state_open(const char *path, enum ipc_save kind, char err[TN_ERR_MAX]);

/* state_save(path, kind, fd, err): the bytes of ${fd}, from its beginning.
 * Returns 0, or -1, a sentence and the old file as it was. */
int state_save(
    const char *path, enum ipc_save kind, int fd, char err[TN_ERR_MAX]);

#endif

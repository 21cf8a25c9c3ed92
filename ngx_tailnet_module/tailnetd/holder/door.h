/*
 * door.h: the socket file of the admin channel.
 *
 * PATH.lock is locked while PATH is ours, so that there is one tailnetd per
 * path and a stale socket file can be told from one that is in use.  Who may
 * come in: root and the holder's own user.
 */
#ifndef DOOR_H
#define DOOR_H

#include "../../core/tn_node.h"

#define DOOR_WAIT_MS 3000 /* for a tailnetd that is ending */

/* door_open(path, err): listen on ${path}; its directory is made (0700) when
 * it is missing.  Returns 0, or an errno and a sentence. */
int door_open(const char *path, char err[TN_ERR_MAX]);

/* The listening socket, or -1. */
int door_fd(void);

/* door_accept(): a connection, or -1 and errno (EPERM: of somebody else, was
 * closed). */
int door_accept(void);

/* door_close(): nobody comes in any more, the file is gone; the path is still
 * ours until door_leave(). */
void door_close(void);
void door_leave(void);

#endif

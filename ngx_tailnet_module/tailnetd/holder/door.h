/*
 * door.h: the socket file of the admin channel.
 *
 * PATH.lock is locked while PATH is ours, so that there is one tailnetd per
 * path and a stale socket file can be told from one that is in use.  Who may
 * come in: root, the holder's own user, and the one named as its client.
 */
#ifndef DOOR_H
#define DOOR_H

#include <sys/types.h>

#include "../../core/tn_node.h"

#define DOOR_WAIT_MS 3000 /* for a tailnetd that is ending */

/* door_open(path, client, err): listen on ${path}; its directory is made when
 * it is missing (0700; 0711 with a client).  ${client} is the name of a user,
 * who gets the socket file, or NULL.  Returns 0, or an errno and a sentence. */
int door_open(const char *path, const char *client, char err[TN_ERR_MAX]);

/* The listening socket, or -1. */
int door_fd(void);

/* door_accept(engine): a connection, or -1 and errno (EPERM: of somebody else
 * or of process ${engine}, if that is not 0; was closed). */
int door_accept(pid_t engine);

/* door_close(): nobody comes in any more, the file is gone; the path is still
 * ours until door_leave(). */
void door_close(void);
void door_leave(void);

#endif

/*
 * rights.h: descriptors in a message of a Unix socket (SCM_RIGHTS, unix(7)).
 */
#ifndef RIGHTS_H
#define RIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define RIGHTS_MAX 72 /* descriptors of one message, of any channel */

/* Room for the control part of a message; credentials come along where the
 * receiver asked for them. */
union rights {
    struct cmsghdr align;
    char b[CMSG_SPACE(sizeof(int) * RIGHTS_MAX) + CMSG_SPACE(64)];
};

/* rights_put(h, room, fds, n): sends ${fds} along with ${h}, which uses ${room}
 * until it is sent.  ${n} is RIGHTS_MAX at most; 0: nothing to do. */
void rights_put(struct msghdr *h, union rights *room, const int *fds, size_t n);

/*
 * rights_take(h, fds, max, n): the descriptors that came with ${h}, in the
 * order they were sent; they are the caller's.  Returns false where there were
 * more than ${max}, which are closed, or the kernel could not pass all on.
 */
bool rights_take(struct msghdr *h, int *fds, size_t max, size_t *n);

#endif

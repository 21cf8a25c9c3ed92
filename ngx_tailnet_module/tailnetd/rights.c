/*
 * rights.c: see rights.h.
 */
#include "rights.h"

#include <string.h>
#include <unistd.h>

void
rights_put(struct msghdr *h, union rights *room, const int *fds, size_t n)
{
    struct cmsghdr *cm;

    if (n == 0)
        return;
    memset(room, 0, sizeof(*room));
    h->msg_control = room->b;
    h->msg_controllen = CMSG_SPACE(sizeof(int) * n);
    cm = CMSG_FIRSTHDR(h);
    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(sizeof(int) * n);
    memcpy(CMSG_DATA(cm), fds, sizeof(int) * n);
}

bool
rights_take(struct msghdr *h, int *fds, size_t max, size_t *n)
{
    struct cmsghdr *cm;
    bool fits = !(h->msg_flags & MSG_CTRUNC);
    size_t i, got;
    int fd;

    *n = 0;
    for (cm = CMSG_FIRSTHDR(h); cm != NULL; cm = CMSG_NXTHDR(h, cm)) {
        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        got = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (i = 0; i < got; i++) {
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
            if (*n < max) {
                fds[(*n)++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

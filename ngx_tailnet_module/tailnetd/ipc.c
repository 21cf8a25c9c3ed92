/*
 * ipc.c: messages between holder and engine; see ipc.h.
 *
 * Both ends are one program, so a message has always its full size; what comes
 * in is checked all the same, because the engine reads the network and the
 * holder must not believe it.
 */
#include "ipc.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(struct ipc_msg) <= IPC_MSG_MAX, "a message fits");

union control {
    struct cmsghdr align;
    /* Credentials come along where the receiver asked for them. */
    char b[CMSG_SPACE(sizeof(int) * IPC_FDS_MAX) + CMSG_SPACE(64)];
};

int
ipc_send(int fd, const struct ipc_msg *m, const int *fds, size_t nfds)
{
    union control c;
    struct iovec iov = {(void *)(uintptr_t)m, sizeof(*m)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *cm;
    ssize_t n;

    if (nfds > IPC_FDS_MAX) {
        errno = EINVAL;
        return -1;
    }
    if (nfds > 0) {
        memset(&c, 0, sizeof(c));
        h.msg_control = c.b;
        h.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        cm = CMSG_FIRSTHDR(&h);
        cm->cmsg_level = SOL_SOCKET;
        cm->cmsg_type = SCM_RIGHTS;
        cm->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(cm), fds, sizeof(int) * nfds);
    }
    do
        n = sendmsg(fd, &h, MSG_NOSIGNAL);
    while (n == -1 && errno == EINTR);
    return n == -1 ? -1 : 0;
}

/* Takes every descriptor out of ${h}; those beyond ${*n} slots are closed. */
static bool
take_fds(struct msghdr *h, int fds[IPC_FDS_MAX], size_t *n)
{
    struct cmsghdr *cm;
    bool fits = true;
    size_t i, got;
    int fd;

    *n = 0;
    for (cm = CMSG_FIRSTHDR(h); cm != NULL; cm = CMSG_NXTHDR(h, cm)) {
        if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
            continue;
        got = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (i = 0; i < got; i++) {
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
            if (*n < IPC_FDS_MAX) {
                fds[(*n)++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

static unsigned
node_fds(uint16_t kind)
{
    return 1u + !!(kind & IPC_NODE_KEY) + !!(kind & IPC_NODE_PSK) +
           !!(kind & IPC_NODE_NETMAP);
}

static bool
ended(const char *s, size_t size)
{
    return memchr(s, '\0', size) != NULL;
}

/* How many descriptors a type carries, and that its strings and counts end. */
static bool
well_formed(const struct ipc_msg *m, size_t nfds)
{
    bool node = ended(m->node, sizeof(m->node));

    switch (m->type) {
    case IPC_ENTRY:
        return ended(m->name, sizeof(m->name)) && nfds > 0;
    case IPC_PUT:
        return ended(m->name, sizeof(m->name)) && m->name[0] != '\0';
    case IPC_NODE:
        return node && nfds == node_fds(m->kind);
    case IPC_NETMAP:
    case IPC_SNAPSHOT:
        return node && nfds == 1;
    case IPC_NOFILE:
        return node && ended(m->text, sizeof(m->text)) && nfds == 0;
    case IPC_LISTENERS:
        return node && m->nlisteners <= IPC_LISTENERS_MAX && nfds == 0;
    case IPC_NETCONF:
        return node && m->naddrs <= IPC_ADDRS_MAX && nfds == 0;
    case IPC_GONE:
    case IPC_QUERY:
        return node && nfds == 0;
    case IPC_READY:
        return nfds == 0;
    case IPC_MAIN:
    case IPC_LOG:
        return nfds == 1;
    case IPC_ANSWER:
        return nfds <= 1; /* none: there was no memory for one */
    default:
        return false;
    }
}

int
ipc_recv(int fd, struct ipc_msg *m, int fds[IPC_FDS_MAX], size_t *nfds)
{
    union control c;
    struct iovec iov = {m, sizeof(*m)};
    struct msghdr h = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = c.b,
        .msg_controllen = sizeof(c.b)};
    bool fits;
    ssize_t n;

    *nfds = 0;
    do
        n = recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n == -1 && errno == EINTR);
    if (n == -1)
        return -1;
    fits = take_fds(&h, fds, nfds);
    if (n == 0 && *nfds == 0 && !(h.msg_flags & MSG_CTRUNC))
        return 0;
    if (fits && (size_t)n == sizeof(*m) &&
        !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && well_formed(m, *nfds))
        return 1;
    while (*nfds > 0)
        close(fds[--*nfds]);
    errno = EBADMSG;
    return -1;
}

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

#include "rights.h"

_Static_assert(sizeof(struct ipc_msg) <= IPC_MSG_MAX, "a message fits");
_Static_assert(IPC_FDS_MAX <= RIGHTS_MAX, "a message takes so many");

int
ipc_send(int fd, const struct ipc_msg *m, const int *fds, size_t nfds)
{
    union rights c;
    struct iovec iov = {(void *)(uintptr_t)m, sizeof(*m)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (nfds > IPC_FDS_MAX) {
        errno = EINVAL;
        return -1;
    }
    rights_put(&h, &c, fds, nfds);
    do
        n = sendmsg(fd, &h, MSG_NOSIGNAL);
    while (n == -1 && errno == EINTR);
    return n == -1 ? -1 : 0;
}

/* TUN, and a descriptor for each bit. */
static size_t
node_fds(uint16_t kind)
{
    unsigned bit;
    size_t n = 1;

    for (bit = 0; bit < IPC_NODE_FILES; bit++)
        n += (kind & 1u << bit) != 0;
    return n;
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
    case IPC_AUTHKEY:
        return node && ended(m->text, sizeof(m->text)) && nfds <= 1;
    case IPC_SAVE:
        return node && m->kind < IPC_SAVES && nfds == 1;
    case IPC_LISTENERS:
        return node && m->nlisteners <= IPC_LISTENERS_MAX && nfds == 0;
    case IPC_NETCONF:
        return node && m->naddrs <= IPC_ADDRS_MAX && nfds == 0;
    case IPC_GONE:
    case IPC_WANTKEY:
    case IPC_UNMADE:
    case IPC_QUERY:
        return node && nfds == 0;
    case IPC_READY:
        return nfds == 0;
    case IPC_MAIN:
    case IPC_LOG:
        return nfds == 1;
    case IPC_ANSWER:
        return ended(m->text, sizeof(m->text)) && nfds <= 1;
    default:
        return false;
    }
}

int
ipc_recv(int fd, struct ipc_msg *m, int fds[IPC_FDS_MAX], size_t *nfds)
{
    union rights c;
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
    fits = rights_take(&h, fds, IPC_FDS_MAX, nfds);
    if (n == 0 && *nfds == 0 && !(h.msg_flags & MSG_CTRUNC))
        return 0;
    if (fits && (size_t)n == sizeof(*m) && !(h.msg_flags & MSG_TRUNC) &&
        well_formed(m, *nfds))
        return 1;
    while (*nfds > 0)
        close(fds[--*nfds]);
    errno = EBADMSG;
    return -1;
}

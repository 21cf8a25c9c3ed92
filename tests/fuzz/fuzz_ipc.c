/* links: tailnetd/ipc.c tailnetd/rights.c */
/* max_len: 2048 */
/*
 * Messages of any bytes, with any number of descriptors, on the channel
 * between holder and engine.  What is taken is whole and has ends; no
 * descriptor is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/ipc.h"
#include "fuzz.h"

#define FDS 12

static void
send_raw(int fd, const void *p, size_t len, size_t nfds)
{
    union {
        struct cmsghdr h;
        char b[CMSG_SPACE(sizeof(int) * FDS)];
    } c;
    struct iovec iov = {(void *)(uintptr_t)p, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t i;

    if (nfds > 0) {
        memset(&c, 0, sizeof(c));
        m.msg_control = c.b;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        c.h.cmsg_level = SOL_SOCKET;
        c.h.cmsg_type = SCM_RIGHTS;
        c.h.cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        for (i = 0; i < nfds; i++)
            memcpy(CMSG_DATA(&c.h) + i * sizeof(int), &fd, sizeof(int));
    }
    FUZZ_MUST(sendmsg(fd, &m, MSG_DONTWAIT) == (ssize_t)len);
}

static bool
ended(const char *s, size_t size)
{
    return memchr(s, '\0', size) != NULL;
}

static void
check(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    size_t i;

    FUZZ_MUST(nfds <= IPC_FDS_MAX);
    for (i = 0; i < nfds; i++)
        FUZZ_MUST(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    switch (m->type) {
    case IPC_ENTRY:
    case IPC_PUT:
        FUZZ_MUST(ended(m->name, sizeof(m->name)));
        break;
    case IPC_NODE:
        FUZZ_MUST(nfds >= 1 && nfds <= 1 + IPC_NODE_FILES);
        FUZZ_MUST(ended(m->node, sizeof(m->node)));
        break;
    case IPC_NETMAP:
    case IPC_SNAPSHOT:
        FUZZ_MUST(nfds == 1 && ended(m->node, sizeof(m->node)));
        break;
    case IPC_SAVE:
        FUZZ_MUST(nfds == 1 && m->kind < IPC_SAVES);
        FUZZ_MUST(ended(m->node, sizeof(m->node)));
        break;
    case IPC_NOFILE:
    case IPC_AUTHKEY:
        FUZZ_MUST(ended(m->text, sizeof(m->text)));
        break;
    case IPC_LISTENERS:
        FUZZ_MUST(m->nlisteners <= IPC_LISTENERS_MAX);
        break;
    case IPC_NETCONF:
        FUZZ_MUST(m->naddrs <= IPC_ADDRS_MAX);
        break;
    case IPC_GONE:
    case IPC_WANTKEY:
    case IPC_UNMADE:
    case IPC_QUERY:
        FUZZ_MUST(ended(m->node, sizeof(m->node)));
        break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size}, part;
    static uint8_t whole[IPC_MSG_MAX];
    int sv[2], fds[IPC_FDS_MAX], lowest = dup(0), rc, on = 1;
    struct ipc_msg m;
    uint8_t how;
    size_t n, len;

    close(lowest);
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    while (in.len > 0) {
        how = fuzz_u8(&in);
        if (how & 64)
            FUZZ_MUST(setsockopt(sv[1], SOL_SOCKET, SO_PASSCRED, &on,
                          sizeof(on)) == 0);
        /* Of the right size, or as long as the input says. */
        part = fuzz_bytes(&in, fuzz_u8(&in) * (how & 32 ? 32u : 1u));
        len = how & 16 ? part.len : sizeof(m);
        memset(whole, 0, sizeof(whole));
        memcpy(whole, part.p, part.len < len ? part.len : len);
        if (len == 0 && how % 16 == 0)
            continue; /* nothing at all is the end of the channel */
        send_raw(sv[0], whole, len, how % 16 < FDS ? how % 16u : FDS);
        rc = ipc_recv(sv[1], &m, fds, &n);
        FUZZ_MUST(rc == 1 || (rc == -1 && errno == EBADMSG && n == 0));
        if (rc == 1) {
            FUZZ_MUST(len == sizeof(m) && memcmp(&m, whole, len) == 0);
            check(&m, fds, n);
        }
        while (n > 0)
            close(fds[--n]);
        FUZZ_MUST(ipc_recv(sv[1], &m, fds, &n) == -1 && errno == EAGAIN);
    }
    /* close() alone is late while somebody looks into our /proc/PID/fd. */
    shutdown(sv[0], SHUT_RDWR);
    close(sv[0]);
    FUZZ_MUST(ipc_recv(sv[1], &m, fds, &n) == 0);
    close(sv[1]);
    rc = dup(0);
    FUZZ_MUST(rc == lowest); /* none is left open */
    close(rc);
    return 0;
}

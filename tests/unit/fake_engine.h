/*
 * fake_engine.h: a stand-in for the engine, for tests of the holder.
 *
 * It speaks ipc.h and nothing else.  For every NODE it PUTs a socket, sets
 * addresses and publishes a snapshot; STATUS tells all it was ever told, as
 * one line per event.  A PING's timeout is an order: see FAKE_*.
 */
#ifndef FAKE_ENGINE_H
#define FAKE_ENGINE_H

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/ipc.h"

#define FAKE_SILENT  1 /* no answer */
#define FAKE_DIE     2 /* abort() */
#define FAKE_GARBAGE 3 /* a malformed message */
#define FAKE_LINES   4 /* 500 log lines, one of them too long */
#define FAKE_FILL    5 /* PUT more than the store holds */
#define FAKE_REFUSE  6 /* an answer that says why there is none */
#define FAKE_NOTHING 7 /* ... or does not */

static struct {
    int main_fd;
    char story[65536];
    size_t len;
    uint64_t generation;
    int kept[64]; /* what was PUT, to be PUT again for a new holder */
    char names[64][IPC_NAME_MAX + 1];
    size_t nkept;
} fake;

static inline void __attribute__((format(printf, 1, 2)))
fake_tell(const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(
        fake.story + fake.len, sizeof(fake.story) - fake.len, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < sizeof(fake.story) - fake.len)
        fake.len += (size_t)n;
}

static inline int
fake_memory(const char *text, size_t len)
{
    int fd = memfd_create("fake", MFD_CLOEXEC);

    if (fd == -1 || write(fd, text, len) != (ssize_t)len)
        abort();
    return fd;
}

static inline void
fake_send(struct ipc_msg *m, const int *fds, size_t nfds)
{
    if (fake.main_fd != -1)
        ipc_send(fake.main_fd, m, fds, nfds);
}

static inline void
fake_put(const char *name, int fd)
{
    struct ipc_msg m = {.type = IPC_PUT};

    snprintf(m.name, sizeof(m.name), "%s", name);
    fake_send(&m, &fd, 1);
}

static inline void
fake_keep(const char *name, int fd)
{
    if (fake.nkept < 64) {
        snprintf(fake.names[fake.nkept], sizeof(fake.names[0]), "%s", name);
        fake.kept[fake.nkept++] = fd;
    }
    fake_put(name, fd);
}

static inline void
fake_node(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    struct ipc_msg out = {.type = IPC_NETCONF, .naddrs = 2};
    static const uint8_t a4[4] = {100, 64, 0, 1};
    static const uint8_t a6[16] = {
        0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, [15] = 1};
    char name[IPC_NAME_MAX + 1], byte[9] = "";
    size_t i;
    int fd;

    fake_tell("node %s %u %u %u:", m->node, m->port, m->mtu, m->kind);
    for (i = 1; i < nfds; i++) {
        memset(byte, 0, sizeof(byte));
        if (read(fds[i], byte, sizeof(byte) - 1) < 0)
            byte[0] = '?';
        byte[strcspn(byte, "\n")] = '\0';
        fake_tell(" %s", byte);
    }
    fake_tell("\n");
    memcpy(out.node, m->node, sizeof(out.node));
    out.addrs[0] = (struct tn_prefix){tn_addr_from4(a4), 128};
    out.addrs[1] = (struct tn_prefix){tn_addr_from6(a6), 128};
    fake_send(&out, NULL, 0);
    snprintf(name, sizeof(name), "udp4/%s", m->node);
    fake_keep(name, socket(AF_INET, SOCK_DGRAM, 0));
    snprintf(name, sizeof(name), "tun/%s", m->node);
    fake_keep(name, dup(fds[0]));
    out = (struct ipc_msg){
        .type = IPC_SNAPSHOT, .generation = ++fake.generation};
    memcpy(out.node, m->node, sizeof(out.node));
    fd = fake_memory(m->node, strlen(m->node));
    fake_send(&out, &fd, 1);
    close(fd);
}

static inline void
fake_order(const struct ipc_msg *m)
{
    struct ipc_msg out = {.type = IPC_ANSWER, .id = m->id};
    char line[2000], name[32];
    int i, fd;

    switch (m->timeout_ms) {
    case FAKE_DIE:
        abort();
    case FAKE_GARBAGE:
        send(fake.main_fd, "garbage", 7, 0);
        return;
    case FAKE_LINES:
        memset(line, 'x', sizeof(line));
        line[sizeof(line) - 1] = '\n';
        if (write(2, line, sizeof(line)) < 0)
            abort();
        for (i = 0; i < 500; i++)
            dprintf(2, "<6>line %d\n", i);
        return;
    case FAKE_FILL:
        for (i = 0; i < 600; i++) {
            fd = fake_memory("x", 1);
            snprintf(name, sizeof(name), "fill%d", i);
            fake_put(name, fd);
            close(fd);
        }
        return;
    case FAKE_REFUSE:
        strcpy(out.text, "more than 8 of them");
        fake_send(&out, NULL, 0);
        return;
    case FAKE_NOTHING:
        fake_send(&out, NULL, 0);
        return;
    default:
        return;
    }
}

static inline void
fake_query(const struct ipc_msg *m)
{
    struct ipc_msg out = {.type = IPC_ANSWER, .id = m->id};
    char head[64];
    int fd;

    if (m->kind == IPC_QUERY_PING) {
        fake_order(m);
        return;
    }
    snprintf(head, sizeof(head), "pid %d uid %u\n", (int)getpid(),
        (unsigned)getuid());
    fd = fake_memory(head, strlen(head));
    if (write(fd, fake.story, fake.len) != (ssize_t)fake.len)
        abort();
    fake_send(&out, &fd, 1);
    close(fd);
}

static inline void
fake_dispatch(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    char byte[9] = "";
    uint32_t i;
    int fd;

    switch (m->type) {
    case IPC_ENTRY:
        fake_tell("entry %s %zu\n", m->name, nfds);
        break;
    case IPC_NODE:
        fake_node(m, fds, nfds);
        break;
    case IPC_NETMAP:
        if (read(fds[0], byte, sizeof(byte) - 1) < 0)
            byte[0] = '?';
        byte[strcspn(byte, "\n")] = '\0';
        fake_tell("netmap %s: %s\n", m->node, byte);
        break;
    case IPC_NOFILE:
        fake_tell("nofile %s: %s\n", m->node, m->text);
        break;
    case IPC_LISTENERS:
        fake_tell("listeners %s:", m->node);
        for (i = 0; i < m->nlisteners; i++)
            fake_tell(" %u/%u", m->listeners[i].proto, m->listeners[i].port);
        fake_tell("\n");
        break;
    case IPC_GONE:
        fake_tell("gone %s\n", m->node);
        break;
    case IPC_READY:
        fake_tell("ready\n");
        fd = fake_memory("hot", 3);
        fake_keep("hot", fd);
        break;
    case IPC_QUERY:
        fake_query(m);
        break;
    case IPC_LOG:
        if (dup2(fds[0], 2) == -1)
            abort();
        break;
    default:
        fake_tell("unexpected %u\n", m->type);
    }
}

/* The bequest brought another holder. */
static inline void
fake_resume(int fd)
{
    size_t i;

    fake.main_fd = fd;
    fake_tell("resumed\n");
    for (i = 0; i < fake.nkept; i++)
        fake_put(fake.names[i], fake.kept[i]);
}

static inline int
fake_engine(void)
{
    int fds[IPC_FDS_MAX], rc;
    struct ipc_msg m;
    size_t nfds;

    fake.main_fd = IPC_FD;
    dprintf(2, "<5>fake engine %d\n", (int)getpid());
    for (;;) {
        struct pollfd p[2] = {{.fd = fake.main_fd, .events = POLLIN},
            {.fd = fake.main_fd == -1 ? IPC_BEQUEST_FD : -1, .events = POLLIN}};

        if (poll(p, 2, fake.main_fd == -1 ? 5000 : -1) <= 0)
            return 0;
        if (fake.main_fd == -1) {
            if (ipc_recv(IPC_BEQUEST_FD, &m, fds, &nfds) != 1 ||
                m.type != IPC_MAIN)
                return 0;
            fake_resume(fds[0]);
            continue;
        }
        rc = ipc_recv(fake.main_fd, &m, fds, &nfds);
        if (rc == 0) {
            close(fake.main_fd);
            fake.main_fd = -1;
        }
        if (rc != 1)
            continue;
        fake_dispatch(&m, fds, nfds);
        while (nfds > 0)
            close(fds[--nfds]);
    }
}

#endif

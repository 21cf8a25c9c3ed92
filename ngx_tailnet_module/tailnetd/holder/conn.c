#include "conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../log.h"
#include "../rights.h"
#include "sock.h"

static struct conn conns[TN_ADMIN_CONN_MAX];
static uint64_t serials;
static unsigned refused; /* connections past TN_ADMIN_CONN_MAX */
static unsigned unread;  /* connections closed because nobody read */

_Static_assert(TN_ADMIN_FDS_MAX <= RIGHTS_MAX, "a message takes so many");

struct conn *
conn_add(int fd, bool attached)
{
    struct conn *c;
    unsigned i;

    for (i = 0; i < TN_ADMIN_CONN_MAX; i++) {
        c = &conns[i];
        if (c->state != CONN_FREE)
            continue;
        memset(c, 0, sizeof(*c));
        c->state = CONN_HELLO;
        c->attached = attached;
        c->fd = fd;
        c->serial = ++serials;
        return c;
    }
    close(fd);
    refused++;
    log_err("more than %d admin connections: one is refused (%u so far)",
        TN_ADMIN_CONN_MAX, refused);
    return NULL;
}

struct conn *
conn_at(unsigned i)
{
    return conns[i].state != CONN_FREE ? &conns[i] : NULL;
}

unsigned
conn_slot(const struct conn *c)
{
    return (unsigned)(c - conns);
}

struct conn *
conn_find(unsigned slot, uint64_t serial)
{
    struct conn *c = &conns[slot];

    return c->state != CONN_FREE && c->state != CONN_CLOSING &&
                   c->serial == serial
               ? c
               : NULL;
}

int
conn_recv(struct conn *c, struct conn_msg *m)
{
    union rights control;
    struct iovec iov = {m->bytes, sizeof(m->bytes)};
    struct msghdr h = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.b,
        .msg_controllen = sizeof(control.b)};
    ssize_t n;

    m->nfds = 0;
    n = recvmsg(c->fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n == -1)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    m->malformed = !rights_take(&h, m->fds, CONN_FDS_MAX, &m->nfds) ||
                   (h.msg_flags & MSG_TRUNC);
    m->len = (size_t)n;
    if (n > 0)
        return 1;
    while (m->nfds > 0)
        close(m->fds[--m->nfds]);
    return -1;
}

void
conn_close(struct conn *c)
{
    c->state = CONN_CLOSING;
}

static void
release(unsigned slot)
{
    unsigned i;

    if (sock_release(slot) == 0)
        return;
    for (i = 0; i < LEASE_MAX; i++) {
        if (lease_at(i) != NULL)
            lease_at(i)->relisten = true;
    }
}

/* A master that was killed leaves workers that go on serving: the connection
 * they share holds its sockets then. */
static void
bequeath(const struct conn *master)
{
    unsigned i;

    if (!cycle_committed(master->cycle) || cycle_others(master->cycle))
        return;
    for (i = 0; i < TN_ADMIN_CONN_MAX; i++) {
        if (conns[i].state == CONN_HELLO_ONLY &&
            conns[i].cycle == master->cycle)
            sock_pass(conn_slot(master), i);
    }
}

void
conn_heirs_end(void)
{
    unsigned i;

    for (i = 0; i < TN_ADMIN_CONN_MAX; i++) {
        if (conns[i].state == CONN_HELLO_ONLY)
            release(i);
    }
}

unsigned
conn_sweep(void)
{
    unsigned i, touched = 0;
    struct conn *c;

    for (i = 0; i < TN_ADMIN_CONN_MAX; i++) {
        c = &conns[i];
        if (c->state != CONN_CLOSING)
            continue;
        if (c->owns)
            bequeath(c);
        release(i);
        touched += c->cycle != NULL;
        if (c->owns)
            cycle_close(c->cycle);
        else
            cycle_unref(c->cycle);
        close(c->fd);
        c->cycle = NULL;
        c->state = CONN_FREE;
    }
    return touched;
}

unsigned
conn_users(void)
{
    unsigned i, n = 0;

    for (i = 0; i < TN_ADMIN_CONN_MAX; i++)
        n += conns[i].state == CONN_MASTER ||
             conns[i].state == CONN_HELLO_ONLY || conns[i].state == CONN_WORKER;
    return n;
}

void
conn_send(
    struct conn *c, const void *msg, size_t len, const int *fds, size_t nfds)
{
    union rights control;
    struct iovec iov = {(void *)(uintptr_t)msg, len};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

    if (c->state == CONN_CLOSING)
        return;
    rights_put(&h, &control, fds, nfds);
    if (sendmsg(c->fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL) != -1)
        return;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ETOOMANYREFS) {
        unread++;
        log_warn("an admin connection does not read and is closed (%u so "
                 "far)",
            unread);
    }
    conn_close(c);
}

void
conn_reply(
    struct conn *c, uint16_t type, uint32_t seq, const int *fds, size_t nfds)
{
    struct tn_admin_head h = {.type = type, .seq = seq};

    conn_send(c, &h, sizeof(h), fds, nfds);
}

void
conn_error(struct conn *c, uint32_t seq, int err, const char *fmt, ...)
{
    struct tn_admin_error e = {.h = {.type = TN_ADMIN_ERROR, .seq = seq}};
    char m[sizeof(e) + TN_ERR_MAX];
    va_list ap;
    int n;

    e.err = (uint32_t)err;
    memcpy(m, &e, sizeof(e));
    va_start(ap, fmt);
    n = vsnprintf(m + sizeof(e), TN_ERR_MAX, fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if (n >= TN_ERR_MAX)
        n = TN_ERR_MAX - 1;
    conn_send(c, m, sizeof(e) + (size_t)n, NULL, 0);
}

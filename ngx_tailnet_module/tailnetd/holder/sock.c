#include "sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAM  1   /* tn_admin.h */
#define BACKLOG 511 /* until nginx says its own */
#define WORDS   (TN_ADMIN_CONN_MAX / 64)

struct sock {
    int fd;
    struct tn_admin_listen key; /* head zero */
    uint64_t users[WORDS];      /* slots of connections */
};

struct order {
    unsigned family, type, count;
    const struct tn_admin_listen *listen;
};

_Static_assert(TN_ADMIN_CONN_MAX % 64 == 0, "whole words");

static struct sock socks[SOCK_MAX];
static size_t nsocks;

static int
plain_socket(unsigned family, unsigned type)
{
    return socket(family == 6 ? AF_INET6 : AF_INET,
        (type == STREAM ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC |
            SOCK_NONBLOCK,
        0);
}

static int
bind_any(int fd, const struct tn_admin_listen *l)
{
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(l->port)};
    struct sockaddr_in6 a6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(l->port)};
    int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1)
        return -1;
    if (l->reuseport &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == -1)
        return -1;
    if (l->family == 4)
        return bind(fd, (struct sockaddr *)&a4, sizeof(a4));
    if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == -1)
        return -1;
    return bind(fd, (struct sockaddr *)&a6, sizeof(a6));
}

/* Job: one listening socket. */
static void
make_listener(void *arg, struct netns_answer *a)
{
    const struct tn_admin_listen *l = ((const struct order *)arg)->listen;
    int fd = plain_socket(l->family, l->type);

    if (fd == -1 && errno == EAFNOSUPPORT) {
        netns_fail(a, errno, "IPv%u is off in this kernel", l->family);
        return;
    }
    if (fd == -1 || bind_any(fd, l) == -1 ||
        (l->type == STREAM && listen(fd, BACKLOG) == -1)) {
        netns_fail(a, errno, "%s port %u over IPv%u: %s",
            l->type == STREAM ? "TCP" : "UDP", l->port, l->family,
            strerror(errno));
        if (fd != -1)
            close(fd);
        return;
    }
    a->fds[a->nfds++] = fd;
}

/* Job: sockets for workers; fewer than asked for are an answer too. */
static void
make_plain(void *arg, struct netns_answer *a)
{
    const struct order *o = arg;
    int fd;

    while (a->nfds < o->count) {
        fd = plain_socket(o->family, o->type);
        if (fd == -1)
            break;
        a->fds[a->nfds++] = fd;
    }
    if (a->nfds == 0)
        netns_fail(a, errno, "no IPv%u socket can be made: %s", o->family,
            strerror(errno));
}

int
sock_make(const struct netns *ns, unsigned family, unsigned type,
    unsigned count, struct netns_answer *a)
{
    struct order o = {.family = family, .type = type, .count = count};

    return netns_run(ns, make_plain, &o, a);
}

/* With or without "reuseport": the first of a group is the one that is there
 * without. */
static bool
same(const struct tn_admin_listen *a, const struct tn_admin_listen *b)
{
    return strcmp(a->node, b->node) == 0 && a->family == b->family &&
           a->type == b->type && a->port == b->port && a->worker == b->worker;
}

static struct sock *
find(const struct tn_admin_listen *key)
{
    size_t i;

    for (i = 0; i < nsocks; i++) {
        if (same(&socks[i].key, key))
            return &socks[i];
    }
    return NULL;
}

static void
hold(struct sock *s, unsigned slot)
{
    s->users[slot / 64] |= UINT64_C(1) << slot % 64;
}

static struct sock *
add(const struct tn_admin_listen *key, int fd)
{
    struct sock *s = &socks[nsocks++];

    memset(s, 0, sizeof(*s));
    s->fd = fd;
    s->key = *key;
    return s;
}

int
sock_listen(const struct netns *ns, const struct tn_admin_listen *want,
    unsigned slot, int *err, char text[TN_ERR_MAX])
{
    struct order o = {.listen = want};
    struct sock *s = find(want);
    struct netns_answer a;
    int on = 1;

    if (s == NULL && nsocks == SOCK_MAX) {
        *err = ENFILE;
        snprintf(text, TN_ERR_MAX, "more than %d listening sockets on the mesh",
            SOCK_MAX);
        return -1;
    }
    if (s == NULL) {
        if (netns_run(ns, make_listener, &o, &a) == -1) {
            *err = a.err;
            snprintf(text, TN_ERR_MAX, "node %s: %.400s", want->node, a.text);
            return -1;
        }
        s = add(want, a.fds[0]);
    }
    /* One that becomes the first of a group lets the others in. */
    if (want->reuseport && !s->key.reuseport)
        s->key.reuseport = setsockopt(s->fd, SOL_SOCKET, SO_REUSEPORT, &on,
                               sizeof(on)) == 0;
    hold(s, slot);
    return s->fd;
}

static int
option(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    if (getsockopt(fd, SOL_SOCKET, name, &value, &len) == -1)
        return -1;
    return value;
}

int
sock_adopt(const char *node, int fd, unsigned slot)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in a4;
        struct sockaddr_in6 a6;
    } u;
    socklen_t len = sizeof(u);
    struct tn_admin_listen key;
    int type = option(fd, SO_TYPE);

    memset(&key, 0, sizeof(key));
    memset(&u, 0, sizeof(u));
    if (getsockname(fd, &u.sa, &len) == -1 ||
        (u.sa.sa_family != AF_INET && u.sa.sa_family != AF_INET6) ||
        (type != SOCK_STREAM && type != SOCK_DGRAM) ||
        (type == SOCK_STREAM && option(fd, SO_ACCEPTCONN) != 1))
        return -1;
    snprintf(key.node, sizeof(key.node), "%s", node);
    key.family = u.sa.sa_family == AF_INET ? 4 : 6;
    key.type = type == SOCK_STREAM ? 1 : 2;
    key.port = ntohs(key.family == 4 ? u.a4.sin_port : u.a6.sin6_port);
    key.reuseport = option(fd, SO_REUSEPORT) == 1;
    /* The sockets of a reuseport group come in the order of their workers. */
    while (find(&key) != NULL) {
        if (!key.reuseport || key.worker == UINT16_MAX)
            return -1;
        key.worker++;
    }
    if (nsocks == SOCK_MAX)
        return -1;
    hold(add(&key, fd), slot);
    return 0;
}

static void
drop(size_t i)
{
    close(socks[i].fd);
    socks[i] = socks[--nsocks];
}

unsigned
sock_release(unsigned slot)
{
    static const uint64_t none[WORDS];
    unsigned closed = 0;
    size_t i = 0;

    while (i < nsocks) {
        socks[i].users[slot / 64] &= ~(UINT64_C(1) << slot % 64);
        if (memcmp(socks[i].users, none, sizeof(none)) == 0) {
            drop(i);
            closed++;
        } else {
            i++;
        }
    }
    return closed;
}

void
sock_pass(unsigned from, unsigned to)
{
    size_t i;

    for (i = 0; i < nsocks; i++) {
        if (socks[i].users[from / 64] & UINT64_C(1) << from % 64)
            hold(&socks[i], to);
    }
}

void
sock_drop_node(const char *node)
{
    size_t i = 0;

    while (i < nsocks) {
        if (strcmp(socks[i].key.node, node) == 0)
            drop(i);
        else
            i++;
    }
}

void
sock_listeners(const char *node, struct ipc_msg *m)
{
    const struct tn_admin_listen *k;
    uint8_t proto;
    size_t i;
    uint32_t j;

    m->nlisteners = 0;
    for (i = 0; i < nsocks; i++) {
        k = &socks[i].key;
        if (strcmp(k->node, node) != 0)
            continue;
        proto = k->type == STREAM ? IPPROTO_TCP : IPPROTO_UDP;
        for (j = 0; j < m->nlisteners; j++) {
            if (m->listeners[j].port == k->port &&
                m->listeners[j].proto == proto)
                break;
        }
        if (j < m->nlisteners || j == IPC_LISTENERS_MAX)
            continue;
        m->listeners[j].port = k->port;
        m->listeners[j].proto = proto;
        m->nlisteners++;
    }
}

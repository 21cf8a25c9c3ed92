#include "link.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "../loop.h"

struct link {
    int fd;
    struct loop_watch *watch;
    struct loop_timer *timer;
    bool changed; /* the timer runs */
    void (*cb)(void *arg);
    void *arg;
};

bool
link_is_tailnet(const struct tn_addr *a)
{
    static const uint8_t ula[6] = {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0};

    if (tn_addr_is4(a))
        return a->b[12] == 100 && (a->b[13] & 0xc0) == 64;
    return memcmp(a->b, ula, sizeof(ula)) == 0;
}

static bool
is_loopback(const struct tn_addr *a)
{
    static const struct tn_addr one = {{[15] = 1}};

    return tn_addr_is4(a) ? a->b[12] == 127 : tn_addr_equal(a, &one);
}

static bool
is_link_local6(const struct tn_addr *a)
{
    return !tn_addr_is4(a) && a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

static int
compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct tn_addr));
}

/* One pass over the interfaces' addresses: loopback ones, or the others. */
static size_t
collect(const struct ifaddrs *list, bool loopback,
    struct tn_addr addrs[LINK_ADDRS_MAX], size_t *more)
{
    const struct ifaddrs *i;
    struct tn_addr a;
    size_t n = 0;

    *more = 0;
    for (i = list; i != NULL; i = i->ifa_next) {
        if (i->ifa_addr == NULL || !(i->ifa_flags & IFF_UP) ||
            strncmp(i->ifa_name, "tailscale", 9) == 0 ||
            tn_addr_from_sockaddr(i->ifa_addr, &a, NULL) != 0 ||
            is_loopback(&a) != loopback || is_link_local6(&a) ||
            link_is_tailnet(&a))
            continue;
        if (n == LINK_ADDRS_MAX)
            ++*more;
        else
            addrs[n++] = a;
    }
    return n;
}

size_t
link_addrs(struct tn_addr addrs[LINK_ADDRS_MAX], size_t *more)
{
    struct ifaddrs *list;
    size_t n;

    *more = 0;
    if (getifaddrs(&list) != 0)
        return 0;
    n = collect(list, false, addrs, more);
    if (n == 0)
        n = collect(list, true, addrs, more);
    freeifaddrs(list);
    qsort(addrs, n, sizeof(*addrs), compare);
    return n;
}

static void
readable(void *arg)
{
    struct link *l = arg;
    char buf[8192];

    /* What changed does not matter: all is read anew.  An overrun is a change
     * as well. */
    while (recv(l->fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
        ;
    if (l->changed)
        return; /* changes without end do not put it off */
    l->changed = true;
    loop_timer_set(l->timer, loop_now() + LINK_SETTLE_MS);
}

static void
settled(void *arg)
{
    struct link *l = arg;

    l->changed = false;
    l->cb(l->arg);
}

struct link *
link_new(void (*cb)(void *arg), void *arg)
{
    /* An interface that goes down keeps its IPv4 addresses. */
    struct sockaddr_nl sa = {.nl_family = AF_NETLINK,
        .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    struct link *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    l->cb = cb;
    l->arg = arg;
    l->fd = socket(
        AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (l->fd == -1 || bind(l->fd, (struct sockaddr *)&sa, sizeof(sa)) != 0 ||
        (l->timer = loop_timer_new(settled, l)) == NULL ||
        (l->watch = loop_watch_new(l->fd, readable, l)) == NULL) {
        link_free(l);
        return NULL;
    }
    return l;
}

void
link_free(struct link *l)
{
    if (l == NULL)
        return;
    loop_watch_free(l->watch);
    loop_timer_free(l->timer);
    if (l->fd != -1)
        close(l->fd);
    free(l);
}

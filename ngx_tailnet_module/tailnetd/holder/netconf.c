#include "netconf.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../log.h"
#include "tun.h"

#define DUMP_MAX 16384 /* bytes of one datagram of a dump */

struct request {
    struct nlmsghdr h;
    union {
        struct ifaddrmsg addr;
        struct rtmsg route;
        struct rtgenmsg gen;
        struct ifinfomsg link;
    };
    char attrs[128];
};

/* The bytes of an address as its own family has them. */
static const void *
raw(const struct tn_addr *a, size_t *len)
{
    *len = tn_addr_is4(a) ? 4 : 16;
    return a->b + 16 - *len;
}

static void
put(struct request *r, unsigned short type, const void *data, size_t len)
{
    struct rtattr *at = (void *)((char *)r +
                                 NLMSG_ALIGN((size_t)r->h.nlmsg_len));

    at->rta_type = type;
    at->rta_len = (unsigned short)RTA_LENGTH(len);
    memcpy(RTA_DATA(at), data, len);
    r->h.nlmsg_len = (unsigned)(NLMSG_ALIGN(r->h.nlmsg_len) +
                                RTA_ALIGN(at->rta_len));
}

/* Sends ${r} and waits for its acknowledgement.  Returns 0 or an errno. */
static int
ask(int fd, struct request *r)
{
    struct {
        struct nlmsghdr h;
        struct nlmsgerr e;
        char echo[sizeof(struct request)];
    } ack;
    ssize_t n;

    r->h.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    if (send(fd, r, r->h.nlmsg_len, 0) == -1)
        return errno;
    n = recv(fd, &ack, sizeof(ack), 0);
    if (n == -1)
        return errno;
    if ((size_t)n < NLMSG_LENGTH(sizeof(ack.e)) ||
        ack.h.nlmsg_type != NLMSG_ERROR)
        return EBADMSG;
    return -ack.e.error;
}

int
netconf_set_queue(unsigned packets)
{
    struct request r = {.h = {.nlmsg_len = NLMSG_LENGTH(sizeof(r.link)),
                            .nlmsg_type = RTM_NEWLINK}};
    uint32_t len = packets;
    int fd, err;

    r.link.ifi_index = (int)if_nametoindex(TUN_NAME);
    if (r.link.ifi_index == 0)
        return -1;
    put(&r, IFLA_TXQLEN, &len, sizeof(len));
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd == -1)
        return -1;
    err = ask(fd, &r);
    close(fd);
    errno = err;
    return err == 0 ? 0 : -1;
}

static int
change_addr(int fd, unsigned index, const struct tn_addr *a, uint16_t type)
{
    struct request r = {
        .h = {.nlmsg_len = NLMSG_LENGTH(sizeof(r.addr)), .nlmsg_type = type}};
    uint32_t flags = IFA_F_NODAD;
    const void *bytes;
    size_t len;

    bytes = raw(a, &len);
    r.addr.ifa_family = len == 4 ? AF_INET : AF_INET6;
    r.addr.ifa_prefixlen = (unsigned char)(len * 8);
    r.addr.ifa_index = index;
    put(&r, IFA_LOCAL, bytes, len);
    put(&r, IFA_ADDRESS, bytes, len);
    if (type == RTM_NEWADDR) {
        r.h.nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
        if (len == 16)
            put(&r, IFA_FLAGS, &flags, sizeof(flags));
    }
    return ask(fd, &r);
}

/* The default route of ${family} through mesh0; ${src} NULL: without it. */
static int
change_route(int fd, unsigned index, int family, const struct tn_addr *src)
{
    struct request r = {.h = {.nlmsg_len = NLMSG_LENGTH(sizeof(r.route)),
                            .nlmsg_type = RTM_DELROUTE}};
    const void *bytes;
    size_t len;
    int err;

    r.route.rtm_family = (unsigned char)family;
    r.route.rtm_table = RT_TABLE_MAIN;
    r.route.rtm_protocol = RTPROT_STATIC;
    r.route.rtm_scope = family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    r.route.rtm_type = RTN_UNICAST;
    put(&r, RTA_OIF, &index, sizeof(index));
    if (src != NULL) {
        r.h.nlmsg_type = RTM_NEWROUTE;
        r.h.nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
        bytes = raw(src, &len);
        put(&r, RTA_PREFSRC, bytes, len);
    }
    err = ask(fd, &r);
    return src == NULL ? 0 : err; /* none there to be deleted: as wished */
}

static bool
wanted(const struct netconf *c, const struct tn_addr *a)
{
    size_t i;

    for (i = 0; i < c->naddrs; i++) {
        if (tn_addr_equal(&c->addrs[i], a))
            return true;
    }
    return false;
}

/* An address of a RTM_NEWADDR message, if it is one of mesh0 that was put
 * there by netconf (the kernel's own link-local ones stay). */
static bool
read_addr(const struct nlmsghdr *h, unsigned index, struct tn_addr *a)
{
    const struct ifaddrmsg *m = NLMSG_DATA(h);
    const struct rtattr *at;
    int len = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*m));
    bool found = false;

    if (h->nlmsg_type != RTM_NEWADDR || len < 0 || m->ifa_index != index ||
        m->ifa_scope == RT_SCOPE_LINK)
        return false;
    for (at = IFA_RTA(m); RTA_OK(at, len); at = RTA_NEXT(at, len)) {
        if (at->rta_type != IFA_ADDRESS)
            continue;
        if (m->ifa_family == AF_INET && RTA_PAYLOAD(at) == 4)
            *a = tn_addr_from4(RTA_DATA(at));
        else if (m->ifa_family == AF_INET6 && RTA_PAYLOAD(at) == 16)
            *a = tn_addr_from6(RTA_DATA(at));
        else
            continue;
        found = true;
    }
    return found;
}

#define OLD_MAX (4 * IPC_ADDRS_MAX)

/* The addresses mesh0 has now.  Returns their number, or -1 and errno. */
static int
dump(int fd, unsigned index, struct tn_addr old[OLD_MAX])
{
    struct request r = {.h = {.nlmsg_len = NLMSG_LENGTH(sizeof(r.gen)),
                            .nlmsg_type = RTM_GETADDR,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
    _Alignas(struct nlmsghdr) char buf[DUMP_MAX];
    const struct nlmsghdr *h;
    int n = 0, len;

    r.gen.rtgen_family = AF_UNSPEC;
    if (send(fd, &r, r.h.nlmsg_len, 0) == -1)
        return -1;
    for (;;) {
        len = (int)recv(fd, buf, sizeof(buf), 0);
        if (len == -1)
            return -1;
        for (h = (void *)buf; NLMSG_OK(h, (unsigned)len);
             h = NLMSG_NEXT(h, len)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return n;
            if (h->nlmsg_type == NLMSG_ERROR) {
                errno = EBADMSG;
                return -1;
            }
            if (n < OLD_MAX && read_addr(h, index, &old[n]))
                n++;
        }
    }
}

/* Addresses and default route of one family. */
static int
apply_family(int fd, unsigned index, const struct netconf *c, bool v4)
{
    const struct tn_addr *first = NULL;
    size_t i;
    int err;

    for (i = 0; i < c->naddrs; i++) {
        if (tn_addr_is4(&c->addrs[i]) != v4)
            continue;
        err = change_addr(fd, index, &c->addrs[i], RTM_NEWADDR);
        if (err != 0 && err != EEXIST)
            return err;
        if (first == NULL)
            first = &c->addrs[i];
    }
    return change_route(fd, index, v4 ? AF_INET : AF_INET6, first);
}

static void
apply(int fd, unsigned index, const struct netconf *c, struct netns_answer *a)
{
    struct tn_addr old[OLD_MAX];
    int i, n, err;

    n = dump(fd, index, old);
    if (n == -1) {
        netns_fail(a, errno, "the addresses of " TUN_NAME " cannot be read: %s",
            strerror(errno));
        return;
    }
    err = apply_family(fd, index, c, true);
    if (err != 0) {
        netns_fail(
            a, err, "IPv4 cannot be set up on " TUN_NAME ": %s", strerror(err));
        return;
    }
    err = apply_family(fd, index, c, false);
    if (err != 0)
        log_notice("node %s: IPv6 cannot be set up on " TUN_NAME
                   ": %s: the node has IPv4 only",
            c->node, strerror(err));
    /* Last, so that nothing was without a source in between. */
    for (i = 0; i < n; i++) {
        if (wanted(c, &old[i]))
            continue;
        err = change_addr(fd, index, &old[i], RTM_DELADDR);
        if (err != 0 && err != EADDRNOTAVAIL) {
            netns_fail(a, err, "an old address stays on " TUN_NAME ": %s",
                strerror(err));
            return;
        }
    }
}

void
netconf_apply(void *arg, struct netns_answer *a)
{
    const struct netconf *c = arg;
    unsigned index = if_nametoindex(TUN_NAME);
    int fd;

    if (index == 0 || tun_up(TUN_NAME) == -1) {
        netns_fail(
            a, errno, TUN_NAME " cannot be brought up: %s", strerror(errno));
        return;
    }
    fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd == -1) {
        netns_fail(a, errno, "netlink: %s", strerror(errno));
        return;
    }
    apply(fd, index, c, a);
    close(fd);
}

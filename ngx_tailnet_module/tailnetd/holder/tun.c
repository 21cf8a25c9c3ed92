#include "tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../log.h"
#include "netconf.h"

/* One ioctl() on an interface through a socket of this namespace. */
static int
ifioctl(unsigned long request, struct ifreq *ifr)
{
    int rc, err, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd == -1)
        return -1;
    rc = ioctl(fd, request, ifr);
    err = errno;
    close(fd);
    errno = err;
    return rc;
}

static void
set_name(struct ifreq *ifr, const char *name)
{
    memset(ifr, 0, sizeof(*ifr));
    snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", name);
}

int
tun_up(const char *name)
{
    struct ifreq ifr;

    set_name(&ifr, name);
    if (ifioctl(SIOCGIFFLAGS, &ifr) == -1)
        return -1;
    ifr.ifr_flags |= IFF_UP;
    return ifioctl(SIOCSIFFLAGS, &ifr);
}

static int
set_mtu(unsigned mtu)
{
    struct ifreq ifr;

    set_name(&ifr, TUN_NAME);
    ifr.ifr_mtu = (int)mtu;
    return ifioctl(SIOCSIFMTU, &ifr);
}

void
tun_set_mtu(void *arg, struct netns_answer *a)
{
    const struct tun_spec *spec = arg;

    if (set_mtu(spec->mtu) == -1)
        netns_fail(a, errno, "mtu %u cannot be set on " TUN_NAME ": %s",
            spec->mtu, strerror(errno));
}

static int
set_sysctl(const char *name, const char *value)
{
    char path[128];
    int fd, err;
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/sys/%s", name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd == -1)
        return -1;
    n = write(fd, value, strlen(value));
    err = errno;
    close(fd);
    errno = err;
    return n == -1 ? -1 : 0;
}

/* Each is worth a line in the log when it fails, none is worth ending. */
static void
set_sysctls(const char *node)
{
    static const struct {
        const char *name, *value, *loss;
    } table[] = {
        {"net/ipv4/tcp_migrate_req", "1",
            "a reload that changes worker_processes can lose connections of "
            "reuseport listeners"},
        {"net/core/somaxconn", "16384", "the backlog of listeners is short"},
    };
    size_t i;

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (set_sysctl(table[i].name, table[i].value) == -1)
            log_warn("node %s: /proc/sys/%s cannot be set to %s in its "
                     "namespace: %s: %s; make /proc/sys writable",
                node, table[i].name, table[i].value, strerror(errno),
                table[i].loss);
    }
    if (access("/proc/sys/net/ipv6", F_OK) == -1) {
        log_notice("node %s: IPv6 is off in this kernel: the node has IPv4 "
                   "only",
            node);
        return;
    }
    /* Nobody on the mesh speaks for link-local addresses or routers.  These
     * are niceties: IPv6 works without them. */
    (void)set_sysctl("net/ipv6/conf/" TUN_NAME "/disable_ipv6", "0");
    (void)set_sysctl("net/ipv6/conf/" TUN_NAME "/addr_gen_mode", "1");
    (void)set_sysctl("net/ipv6/conf/" TUN_NAME "/accept_ra", "0");
}

static void
explain_open(struct netns_answer *a, int err)
{
    if (err == ENOENT || err == ENODEV || err == ENXIO)
        netns_fail(a, err,
            "/dev/net/tun is missing: grant the container the device "
            "(--device /dev/net/tun), or load the tun module");
    else
        netns_fail(a, err,
            "/dev/net/tun cannot be opened: %s: let this user read and write "
            "it (a container needs --device /dev/net/tun)",
            strerror(err));
}

static void
explain_attach(struct netns_answer *a, int err)
{
    const char *fix = "";

    if (err == EPERM)
        fix = netns_rootless()
                  ? ": the user namespace has no rights: set "
                    "kernel.apparmor_restrict_unprivileged_userns=0"
                  : ": grant CAP_NET_ADMIN (--cap-add NET_ADMIN)";
    else if (err == EBUSY)
        fix = ": an engine of an earlier tailnetd still has it";
    netns_fail(a, err, TUN_NAME " cannot be made: %s%s", strerror(err), fix);
}

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20 /* Linux 6.2; Debian 12's headers lack them */
#define TUN_F_USO6 0x40
#endif

/* What the engine can split, and of that what this kernel can leave to it. */
static int
set_offloads(int fd)
{
    static const unsigned long wanted[] = {
        TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
        TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
        TUN_F_CSUM,
        0,
    };
    size_t i;

    for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        if (ioctl(fd, TUNSETOFFLOAD, wanted[i]) != -1)
            return 0;
    return -1;
}

void
tun_make(void *arg, struct netns_answer *a)
{
    const struct tun_spec *spec = arg;
    struct ifreq ifr;
    int fd;

    if (tun_up("lo") == -1) {
        netns_fail(a, errno, "lo cannot be brought up: %s", strerror(errno));
        return;
    }
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd == -1) {
        explain_open(a, errno);
        return;
    }
    set_name(&ifr, TUN_NAME);
    ifr.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(fd, TUNSETIFF, &ifr) == -1) {
        explain_attach(a, errno);
        close(fd);
        return;
    }
    if (set_offloads(fd) == -1 || set_mtu(spec->mtu) == -1 ||
        netconf_set_queue(TUN_QUEUE) == -1) {
        netns_fail(a, errno, TUN_NAME " cannot be set up: %s", strerror(errno));
        close(fd);
        return;
    }
    set_sysctls(spec->node);
    a->fds[a->nfds++] = fd;
}

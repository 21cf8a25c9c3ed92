/*
 * Theory of operation.  Both directions are driven by readiness: a readable
 * UDP socket gives up to RX_BATCH datagrams a system call, mesh0 gives one
 * packet a read, up to MESH_BATCH a turn, so that neither side starves the
 * other.  Every packet on mesh0 has a virtio-net header in front of it; without
 * offloads it only says whether the kernel left a checksum to us.
 */
#include "pump.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/virtio_net.h>

#include "../loop.h"

#define MESH_BATCH 64
#define RX_BATCH   32
#define RX_ROUNDS  4    /* batches of one socket a turn */
#define RX_SIZE    2048 /* longest datagram taken; more is not WireGuard's */
#define RX_SLACK   16
#define MESH_SIZE  (9000 + 64)
#define VNET_HDR   ((size_t)10) /* struct virtio_net_hdr */

_Static_assert(sizeof(struct virtio_net_hdr) == 10, "legacy header");

struct socket {
    struct pump *pump;
    int fd;
    struct loop_watch *watch;
};

struct pump {
    struct pump_ops ops;
    void *ctx;
    struct pump_counters count;
    int mesh;
    struct loop_watch *mesh_watch;
    struct socket udp4, udp6;
    struct mmsghdr msgs[RX_BATCH];
    struct iovec iovs[RX_BATCH];
    struct sockaddr_storage names[RX_BATCH];
    uint8_t rx[RX_BATCH][RX_SIZE + RX_SLACK];
    uint8_t tx[PUMP_HEADROOM + VNET_HDR + MESH_SIZE + PUMP_TAILROOM];
};

/*
 * The kernel leaves the checksum of a packet it sends to the "hardware":
 * the field holds the pseudo header's sum (virtio 1.1 section 5.1.6.2).
 * Returns -1 where the header does not fit the packet.
 */
static int
finish_checksum(const struct virtio_net_hdr *h, uint8_t *packet, size_t len)
{
    size_t start = h->csum_start, field = start + h->csum_offset;
    uint64_t sum = 0;
    size_t i;
    uint16_t be;

    if (start >= len || field + 2 > len)
        return -1;
    for (i = start; i + 1 < len; i += 2)
        sum += (uint64_t)packet[i] << 8 | packet[i + 1];
    if (i < len)
        sum += (uint64_t)packet[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    be = (uint16_t)~sum;
    if (be == 0)
        be = 0xffff; /* UDP: 0 would say "none" */
    packet[field] = (uint8_t)(be >> 8);
    packet[field + 1] = (uint8_t)be;
    return 0;
}

static void
mesh_readable(void *arg)
{
    struct pump *p = arg;
    uint8_t *buf = p->tx + PUMP_HEADROOM, *packet = buf + VNET_HDR;
    struct virtio_net_hdr h;
    uint64_t now = loop_now();
    ssize_t n;
    size_t len;
    int i;

    for (i = 0; i < MESH_BATCH; i++) {
        n = read(p->mesh, buf, VNET_HDR + MESH_SIZE);
        if (n < 0)
            break;
        p->count.mesh_read++;
        if ((size_t)n <= VNET_HDR) {
            p->count.drop_mesh_header++;
            continue;
        }
        len = (size_t)n - VNET_HDR;
        memcpy(&h, buf, VNET_HDR);
        if (h.gso_type != VIRTIO_NET_HDR_GSO_NONE ||
            (h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM &&
                finish_checksum(&h, packet, len) != 0)) {
            p->count.drop_mesh_header++;
            continue;
        }
        p->ops.from_mesh(p->ctx, packet, len, now);
    }
    p->ops.after(p->ctx, now);
}

static void
net_readable(void *arg)
{
    struct socket *s = arg;
    struct pump *p = s->pump;
    uint64_t now = loop_now();
    struct tn_endpoint src;
    int round, i, n;

    for (round = 0; round < RX_ROUNDS; round++) {
        for (i = 0; i < RX_BATCH; i++)
            p->msgs[i].msg_hdr.msg_namelen = sizeof(p->names[i]);
        n = recvmmsg(s->fd, p->msgs, RX_BATCH, MSG_DONTWAIT, NULL);
        if (n <= 0) {
            /* An ICMP error that an earlier send provoked: it is consumed,
             * what waits behind it is still there. */
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                continue;
            break;
        }
        for (i = 0; i < n; i++) {
            p->count.net_read++;
            if (tn_addr_from_sockaddr(
                    (struct sockaddr *)&p->names[i], &src.addr, &src.port) != 0)
                continue;
            p->ops.from_net(p->ctx, p->rx[i], p->msgs[i].msg_len, &src, now);
        }
        if (n < RX_BATCH)
            break;
    }
    p->ops.after(p->ctx, now);
}

static int
watch_socket(struct pump *p, struct socket *s, int fd)
{
    s->pump = p;
    s->fd = fd;
    if (fd == -1)
        return 0;
    s->watch = loop_watch_new(fd, net_readable, s);
    return s->watch == NULL ? -1 : 0;
}

struct pump *
pump_new(const struct pump_fds *fds, const struct pump_ops *ops, void *ctx)
{
    struct pump *p = calloc(1, sizeof(*p));
    int i;

    if (p == NULL)
        return NULL;
    p->ops = *ops;
    p->ctx = ctx;
    p->mesh = fds->mesh;
    for (i = 0; i < RX_BATCH; i++) {
        p->iovs[i].iov_base = p->rx[i];
        p->iovs[i].iov_len = RX_SIZE;
        p->msgs[i].msg_hdr.msg_iov = &p->iovs[i];
        p->msgs[i].msg_hdr.msg_iovlen = 1;
        p->msgs[i].msg_hdr.msg_name = &p->names[i];
    }
    p->mesh_watch = loop_watch_new(p->mesh, mesh_readable, p);
    if (p->mesh_watch == NULL || watch_socket(p, &p->udp4, fds->udp4) != 0 ||
        watch_socket(p, &p->udp6, fds->udp6) != 0) {
        pump_free(p);
        return NULL;
    }
    return p;
}

void
pump_free(struct pump *p)
{
    if (p == NULL)
        return;
    loop_watch_free(p->mesh_watch);
    loop_watch_free(p->udp4.watch);
    loop_watch_free(p->udp6.watch);
    /* Inner packets passed through here in the clear. */
    explicit_bzero(p->rx, sizeof(p->rx));
    explicit_bzero(p->tx, sizeof(p->tx));
    free(p);
}

const struct pump_counters *
pump_counters(const struct pump *p)
{
    return &p->count;
}

static socklen_t
to_sockaddr(const struct tn_endpoint *e, struct sockaddr_storage *ss)
{
    struct sockaddr_in *sin = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)ss;

    memset(ss, 0, sizeof(*ss));
    if (tn_addr_is4(&e->addr)) {
        sin->sin_family = AF_INET;
        sin->sin_port = htons(e->port);
        memcpy(&sin->sin_addr, e->addr.b + 12, 4);
        return sizeof(*sin);
    }
    sin6->sin6_family = AF_INET6;
    sin6->sin6_port = htons(e->port);
    memcpy(&sin6->sin6_addr, e->addr.b, 16);
    return sizeof(*sin6);
}

void
pump_send(struct pump *p, const struct tn_endpoint *dst, const uint8_t *msg,
    size_t len)
{
    struct sockaddr_storage ss;
    socklen_t sslen = to_sockaddr(dst, &ss);
    int fd = ss.ss_family == AF_INET ? p->udp4.fd : p->udp6.fd;

    if (fd == -1) {
        p->count.drop_net_family++;
        return;
    }
    if (sendto(fd, msg, len, MSG_DONTWAIT, (struct sockaddr *)&ss, sslen) >= 0)
        p->count.net_written++;
    else if (errno == EAGAIN || errno == ENOBUFS)
        p->count.drop_net_full++;
    else
        p->count.drop_net_error++;
}

void
pump_write(struct pump *p, const uint8_t *packet, size_t len)
{
    struct virtio_net_hdr h = {0};
    struct iovec v[2] = {{&h, VNET_HDR}, {(void *)(uintptr_t)packet, len}};

    if (writev(p->mesh, v, 2) >= 0)
        p->count.mesh_written++;
    else
        p->count.drop_mesh_write++;
}

/*
 * Theory of operation.  Both directions are driven by readiness, and each turn
 * is bounded, so that neither side starves the other.
 *
 *   mesh0 ─ read ─► segment ─► from_mesh ... pump_send ─► lanes ─► sendmsg
 *   UDP ─ recvmmsg ─► datagrams ─► from_net ... pump_write ─► coalesce ─►
 * writev
 *
 * mesh0 gives super-packets (TSO, USO), which are split here; the kernel's UDP
 * gives and takes runs of datagrams (UDP_GRO, UDP_SEGMENT).  What goes out is
 * held until the turn ends or something else has to go first.  No turn is
 * inside another, so all pumps share one set of large buffers.
 */
#include "pump.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/virtio_net.h>

#include "../loop.h"
#include "coalesce.h"
#include "lanes.h"
#include "outbox.h"
#include "segment.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define MESH_TURN  32 /* reads of mesh0 a turn */
#define RX_BATCH   8  /* runs of datagrams a call */
#define RX_TURN    4  /* calls of one socket a turn */
#define RX_SIZE    65536
#define RX_SLACK   16
#define MESH_SIZE  65536
#define VNET_HDR   ((size_t)10) /* struct virtio_net_hdr */
#define SPLIT_SIZE 9216
#define MESH_ROOM  (PUMP_HEADROOM + VNET_HDR + MESH_SIZE + PUMP_TAILROOM)
#define SPLIT_ROOM (PUMP_HEADROOM + SPLIT_SIZE + PUMP_TAILROOM)

_Static_assert(sizeof(struct virtio_net_hdr) == 10, "legacy header");

struct socket {
    struct pump *pump;
    int fd;
    struct loop_watch *watch;
    bool no_gso;
};

struct pump {
    struct pump_ops ops;
    void *ctx;
    struct pump_counters count;
    int mesh;
    uint16_t mtu;
    struct loop_watch *mesh_watch;
    struct socket udp4, udp6;
    uint64_t now;  /* of the turn */
    uint16_t flow; /* of the packet that from_mesh() has */
};

/* Empty between turns; whose they are within one is plain from who reads. */
static struct {
    unsigned pumps; /* that share it */
    struct mmsghdr msgs[RX_BATCH];
    struct iovec iovs[RX_BATCH];
    struct sockaddr_storage names[RX_BATCH];
    union {
        struct cmsghdr h;
        char buf[CMSG_SPACE(sizeof(int))];
    } controls[RX_BATCH];
    uint8_t (*rx)[RX_SIZE + RX_SLACK];
    uint8_t *mesh;  /* headroom, virtio-net header, packet, tailroom */
    uint8_t *split; /* headroom, packet, tailroom */
    struct lanes *lanes;
    struct coalesce *coalesce;
} area;

static bool
write_mesh(void *ctx, const struct iovec *iov, int n)
{
    struct pump *p = ctx;
    unsigned packets = n > 2 ? (unsigned)n - 2 : 1;

    p->count.mesh_writes++;
    if (writev(p->mesh, iov, n) >= 0) {
        p->count.mesh_written += packets;
        return true;
    }
    /* A refused super-packet comes again in parts. */
    if (n == 2 || errno != EINVAL)
        p->count.drop_mesh_write += packets;
    return errno != EINVAL;
}

static void
send_lanes(struct pump *p)
{
    struct outbox *o;
    struct socket *s;
    struct outbox_result r;

    while ((o = lanes_next(area.lanes)) != NULL) {
        s = tn_addr_is4(&o->dst.addr) ? &p->udp4 : &p->udp6;
        r = outbox_send(o, s->fd, &s->no_gso);
        p->count.net_writes += r.calls;
        p->count.net_written += r.sent;
        p->count.drop_net_full += r.full;
        p->count.drop_net_error += r.failed;
    }
}

void
pump_flush(struct pump *p)
{
    area.coalesce->ctx = p;
    coalesce_flush(area.coalesce);
    send_lanes(p);
    p->count.not_merged_checksum += area.coalesce->bad_checksum;
    area.coalesce->bad_checksum = 0;
}

void
pump_send(struct pump *p, const struct tn_endpoint *dst, const uint8_t *msg,
    size_t len)
{
    if ((tn_addr_is4(&dst->addr) ? p->udp4.fd : p->udp6.fd) == -1) {
        p->count.drop_net_family++;
        return;
    }
    if (lanes_add(area.lanes, p->flow, dst, msg, len))
        return;
    send_lanes(p);
    if (!lanes_add(area.lanes, p->flow, dst, msg, len))
        p->count.drop_net_error++;
}

void
pump_write(struct pump *p, const uint8_t *packet, size_t len)
{
    area.coalesce->ctx = p;
    coalesce_add(area.coalesce, packet, len);
}

static void
emit(void *ctx, uint8_t *packet, size_t len)
{
    struct pump *p = ctx;

    p->count.mesh_read++;
    p->flow = lanes_flow(packet, len);
    p->ops.from_mesh(p->ctx, packet, len, p->now);
    p->flow = LANES_NO_FLOW;
}

static void
mesh_readable(void *arg)
{
    struct pump *p = arg;
    uint8_t *buf = area.mesh + PUMP_HEADROOM, *packet = buf + VNET_HDR;
    struct virtio_net_hdr h;
    ssize_t n;
    size_t len;
    int i, rc;

    p->now = loop_now();
    for (i = 0; i < MESH_TURN; i++) {
        n = read(p->mesh, buf, VNET_HDR + MESH_SIZE);
        if (n < 0)
            break;
        p->count.mesh_reads++;
        len = (size_t)n > VNET_HDR ? (size_t)n - VNET_HDR : 0;
        memcpy(&h, buf, VNET_HDR);
        rc = len == 0 ? -1 : 0;
        if (rc == 0 && h.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
            rc = segment_split(&h, packet, len, area.split + PUMP_HEADROOM,
                p->mtu < SPLIT_SIZE ? p->mtu : SPLIT_SIZE, emit, p);
        } else if (rc == 0) {
            if (h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
                rc = segment_finish(&h, packet, len);
            if (rc == 0)
                emit(p, packet, len);
        }
        if (rc < 0)
            p->count.drop_mesh_header++;
    }
    pump_flush(p);
    p->ops.after(p->ctx, p->now);
}

/* The size of the datagrams of a run; 0: it is one. */
static size_t
run_size(struct msghdr *m)
{
    struct cmsghdr *c;
    int size = 0;

    for (c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO)
            memcpy(&size, CMSG_DATA(c), sizeof(size));
    return size > 0 ? (size_t)size : 0;
}

static void
take_run(struct pump *p, int i)
{
    struct msghdr *m = &area.msgs[i].msg_hdr;
    size_t len = area.msgs[i].msg_len, size = run_size(m), at, n;
    struct tn_endpoint src;

    if (m->msg_flags & MSG_TRUNC) {
        p->count.drop_net_truncated++;
        return;
    }
    if (tn_addr_from_sockaddr(
            (struct sockaddr *)&area.names[i], &src.addr, &src.port) != 0)
        return;
    if (size == 0)
        size = len;
    at = 0;
    do { /* an empty one counts as well */
        n = len - at < size ? len - at : size;
        p->count.net_read++;
        p->ops.from_net(p->ctx, area.rx[i] + at, n, &src, p->now);
        at += n;
    } while (at < len);
}

static void
net_readable(void *arg)
{
    struct socket *s = arg;
    struct pump *p = s->pump;
    int turn, i, n;

    p->now = loop_now();
    for (turn = 0; turn < RX_TURN; turn++) {
        for (i = 0; i < RX_BATCH; i++) {
            area.msgs[i].msg_hdr.msg_namelen = sizeof(area.names[i]);
            area.msgs[i].msg_hdr.msg_controllen = sizeof(area.controls[i]);
        }
        n = recvmmsg(s->fd, area.msgs, RX_BATCH, MSG_DONTWAIT, NULL);
        if (n <= 0) {
            /* An ICMP error that an earlier send provoked: it is consumed,
             * what waits behind it is still there. */
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                continue;
            break;
        }
        p->count.net_reads++;
        for (i = 0; i < n; i++)
            take_run(p, i);
        /* What is held lies in buffers that the next call fills. */
        pump_flush(p);
        if (n < RX_BATCH)
            break;
    }
    p->ops.after(p->ctx, p->now);
}

static void
release_area(void)
{
    if (--area.pumps != 0)
        return;
    /* Inner packets passed through here in the clear. */
    if (area.rx != NULL)
        explicit_bzero(area.rx, RX_BATCH * sizeof(*area.rx));
    if (area.mesh != NULL)
        explicit_bzero(area.mesh, MESH_ROOM);
    if (area.split != NULL)
        explicit_bzero(area.split, SPLIT_ROOM);
    if (area.coalesce != NULL)
        explicit_bzero(area.coalesce, sizeof(*area.coalesce));
    free(area.rx);
    free(area.mesh);
    free(area.split);
    free(area.lanes);
    free(area.coalesce);
    memset(&area, 0, sizeof(area));
}

static int
share_area(void)
{
    int i;

    if (area.pumps++ != 0)
        return 0;
    area.rx = calloc(RX_BATCH, sizeof(*area.rx));
    area.mesh = calloc(1, MESH_ROOM);
    area.split = calloc(1, SPLIT_ROOM);
    area.lanes = calloc(1, sizeof(*area.lanes));
    area.coalesce = calloc(1, sizeof(*area.coalesce));
    if (area.rx == NULL || area.mesh == NULL || area.split == NULL ||
        area.lanes == NULL || area.coalesce == NULL) {
        release_area();
        return -1;
    }
    area.coalesce->write = write_mesh;
    for (i = 0; i < RX_BATCH; i++) {
        area.iovs[i].iov_base = area.rx[i];
        area.iovs[i].iov_len = RX_SIZE;
        area.msgs[i].msg_hdr.msg_iov = &area.iovs[i];
        area.msgs[i].msg_hdr.msg_iovlen = 1;
        area.msgs[i].msg_hdr.msg_name = &area.names[i];
        area.msgs[i].msg_hdr.msg_control = &area.controls[i];
    }
    return 0;
}

static int
watch_socket(struct pump *p, struct socket *s, int fd)
{
    int one = 1;

    s->pump = p;
    s->fd = fd;
    if (fd == -1)
        return 0;
    /* Kernels before 5.0 give one datagram a time: slower, not wrong. */
    (void)setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
    s->watch = loop_watch_new(fd, net_readable, s);
    return s->watch == NULL ? -1 : 0;
}

struct pump *
pump_new(const struct pump_fds *fds, uint16_t mtu, const struct pump_ops *ops,
    void *ctx)
{
    struct pump *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->ops = *ops;
    p->ctx = ctx;
    p->mesh = fds->mesh;
    p->mtu = mtu;
    p->flow = LANES_NO_FLOW;
    if (share_area() != 0) {
        free(p);
        return NULL;
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
    release_area();
    free(p);
}

const struct pump_counters *
pump_counters(const struct pump *p)
{
    return &p->count;
}

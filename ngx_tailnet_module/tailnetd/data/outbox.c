#include "outbox.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

socklen_t
outbox_sockaddr(const struct tn_endpoint *e, struct sockaddr_storage *ss)
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

bool
outbox_goes(const struct outbox *o, const struct tn_endpoint *dst)
{
    return o->dst.port == dst->port && tn_addr_equal(&o->dst.addr, &dst->addr);
}

bool
outbox_add(struct outbox *o, const struct tn_endpoint *dst, const uint8_t *msg,
    size_t len)
{
    if (len == 0 || len > OUTBOX_SIZE)
        return false;
    if (o->count == 0) {
        o->dst = *dst;
        o->segment = len;
        o->used = 0;
        o->closed = false;
    } else if (o->closed || o->count == OUTBOX_SEGMENTS || len > o->segment ||
               len > OUTBOX_SIZE - o->used || !outbox_goes(o, dst)) {
        return false;
    }
    memcpy(o->buf + o->used, msg, len);
    o->used += len;
    o->count++;
    o->closed = len < o->segment;
    return true;
}

static ssize_t
send_all(const struct outbox *o, int fd, struct sockaddr_storage *ss,
    socklen_t sslen)
{
    union {
        struct cmsghdr h;
        char buf[CMSG_SPACE(sizeof(uint16_t))];
    } control;
    struct iovec iov = {(void *)(uintptr_t)o->buf, o->used};
    struct msghdr m = {
        .msg_name = ss, .msg_namelen = sslen, .msg_iov = &iov, .msg_iovlen = 1};
    uint16_t segment = (uint16_t)o->segment;

    if (o->count > 1) {
        memset(&control, 0, sizeof(control));
        control.h.cmsg_level = SOL_UDP;
        control.h.cmsg_type = UDP_SEGMENT;
        control.h.cmsg_len = CMSG_LEN(sizeof(segment));
        memcpy(CMSG_DATA(&control.h), &segment, sizeof(segment));
        m.msg_control = &control;
        m.msg_controllen = sizeof(control);
    }
    return sendmsg(fd, &m, MSG_DONTWAIT);
}

static void
count_error(struct outbox_result *r, unsigned n)
{
    if (errno == EAGAIN || errno == ENOBUFS)
        r->full += n;
    else
        r->failed += n;
}

static void
send_each(const struct outbox *o, int fd, struct sockaddr_storage *ss,
    socklen_t sslen, struct outbox_result *r)
{
    size_t at, len;

    for (at = 0; at < o->used; at += len) {
        len = o->used - at < o->segment ? o->used - at : o->segment;
        r->calls++;
        if (sendto(fd, o->buf + at, len, MSG_DONTWAIT, (struct sockaddr *)ss,
                sslen) >= 0)
            r->sent++;
        else
            count_error(r, 1);
    }
}

struct outbox_result
outbox_send(struct outbox *o, int fd, bool *no_gso)
{
    struct outbox_result r = {0};
    struct sockaddr_storage ss;
    socklen_t sslen = outbox_sockaddr(&o->dst, &ss);

    if (o->count == 0)
        return r;
    if (*no_gso && o->count > 1) {
        send_each(o, fd, &ss, sslen, &r);
    } else {
        r.calls++;
        if (send_all(o, fd, &ss, sslen) >= 0) {
            r.sent = o->count;
        } else if (o->count > 1 &&
                   (errno == EIO || errno == EINVAL || errno == EMSGSIZE ||
                       errno == EOPNOTSUPP)) {
            /* A device without checksums (EIO); or a path whose MTU a segment
             * passes (older kernels: EINVAL), or a bad address, which concern
             * this destination only. */
            *no_gso = *no_gso || errno == EIO || errno == EOPNOTSUPP;
            send_each(o, fd, &ss, sslen, &r);
        } else {
            count_error(&r, o->count);
        }
    }
    o->count = 0;
    return r;
}

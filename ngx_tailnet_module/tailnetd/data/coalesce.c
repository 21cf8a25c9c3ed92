#include "coalesce.h"

#include <arpa/inet.h>
#include <string.h>

#include "checksum.h"

/* Linux 6.2; Debian 12's headers lack it. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define VNET_HDR  10
#define IP4_HDR   20
#define IP6_HDR   40
#define TCP_HDR   20
#define UDP_HDR   8
#define PROTO_TCP 6
#define PROTO_UDP 17
#define TCP_PSH   0x08
#define TCP_ACK   0x10
#define IP_MAX    65535

_Static_assert(sizeof(struct virtio_net_hdr) == VNET_HDR, "legacy header");

/* A packet that could be merged. */
struct candidate {
    const uint8_t *p;
    size_t len, l4, hlen, payload;
    bool is6, udp;
    uint32_t seq;
};

/* Plain TCP segments with data and UDP datagrams; never fragments, options or
 * flags that mean more than data. */
static bool
parse(const uint8_t *p, size_t len, struct candidate *k)
{
    uint8_t proto;

    k->p = p;
    k->len = len;
    k->is6 = len > 0 && p[0] >> 4 == 6;
    k->l4 = k->is6 ? IP6_HDR : IP4_HDR;
    if (len < k->l4 + UDP_HDR)
        return false;
    if (k->is6) {
        proto = p[6];
        if ((size_t)(p[4] << 8 | p[5]) + IP6_HDR != len)
            return false;
    } else {
        proto = p[9];
        /* No options, no fragment; "don't fragment" is welcome. */
        if (p[0] != 0x45 || (p[6] & 0xbf) != 0 || p[7] != 0 ||
            (size_t)(p[2] << 8 | p[3]) != len)
            return false;
    }
    k->udp = proto == PROTO_UDP;
    if (k->udp) {
        k->hlen = k->l4 + UDP_HDR;
        /* A checksum of 0 says that there is none. */
        if ((size_t)(p[k->l4 + 4] << 8 | p[k->l4 + 5]) != len - k->l4 ||
            (p[k->l4 + 6] | p[k->l4 + 7]) == 0)
            return false;
    } else {
        if (proto != PROTO_TCP || len < k->l4 + TCP_HDR ||
            (p[k->l4 + 13] & ~TCP_PSH) != TCP_ACK)
            return false;
        k->hlen = k->l4 + (size_t)(p[k->l4 + 12] >> 4) * 4;
        if (k->hlen < k->l4 + TCP_HDR || k->hlen > len)
            return false;
        memcpy(&k->seq, p + k->l4 + 4, 4);
        k->seq = ntohl(k->seq);
    }
    k->payload = len - k->hlen;
    return k->payload > 0 && k->hlen <= COALESCE_HEADERS;
}

static bool
verify(const struct candidate *k)
{
    /* The kernel would look at the IPv4 header's too; a super-packet has a new
     * one. */
    if (!k->is6 && checksum_fold(checksum_add(0, k->p, IP4_HDR)) != 0xffff)
        return false;
    return checksum_fold(
               checksum_add(checksum_pseudo(k->p, k->is6,
                                k->udp ? PROTO_UDP : PROTO_TCP, k->len - k->l4),
                   k->p + k->l4, k->len - k->l4)) == 0xffff;
}

/* Addresses and ports. */
static bool
same_flow(const struct coalesce_flow *f, const struct candidate *k)
{
    size_t addrs = k->is6 ? 8 : 12;

    return f->segments != 0 && f->is6 == k->is6 && f->udp == k->udp &&
           memcmp(f->headers + addrs, k->p + addrs, k->l4 - addrs) == 0 &&
           memcmp(f->headers + f->l4, k->p + k->l4, 4) == 0;
}

/* All that the kernel will write into every segment's headers is equal: class,
 * hop limit, don't-fragment; for TCP acknowledgement, window, urgent pointer
 * and options. */
static bool
fits(const struct coalesce_flow *f, const struct candidate *k)
{
    const uint8_t *a = f->headers, *b = k->p;
    size_t o = k->l4;

    if (f->closed || f->segments == COALESCE_SEGMENTS || k->payload > f->size ||
        f->hlen != k->hlen || f->hlen + f->payload + k->payload > IP_MAX)
        return false;
    if (k->is6 ? memcmp(a, b, 4) != 0 || a[7] != b[7]
               : a[1] != b[1] || a[8] != b[8] || a[6] != b[6])
        return false;
    if (k->udp)
        return true;
    return k->seq == f->next_seq && memcmp(a + o + 8, b + o + 8, 5) == 0 &&
           memcmp(a + o + 14, b + o + 14, 2) == 0 &&
           memcmp(a + o + 18, b + o + 18, k->hlen - o - 18) == 0;
}

static void
append(struct coalesce_flow *f, const struct candidate *k)
{
    struct iovec *v = &f->iov[2 + f->segments++];

    v->iov_base = (void *)(uintptr_t)(k->p + k->hlen);
    v->iov_len = k->payload;
    f->payload += k->payload;
    f->next_seq = k->seq + (uint32_t)k->payload;
    if (!k->udp)
        f->headers[f->l4 + 13] |= k->p[k->l4 + 13];
    if (k->payload < f->size || (!k->udp && k->p[k->l4 + 13] & TCP_PSH))
        f->closed = true;
}

static void
begin(struct coalesce *c, struct coalesce_flow *f, const struct candidate *k)
{
    f->segments = 0;
    f->is6 = k->is6;
    f->udp = k->udp;
    f->closed = false;
    f->l4 = k->l4;
    f->hlen = k->hlen;
    f->size = k->payload;
    f->payload = 0;
    f->used = ++c->clock;
    memcpy(f->headers, k->p, k->hlen);
    append(f, k);
}

/* The kernel finishes the checksum: the field gets the pseudo header's sum
 * (virtio 1.1 section 5.1.6.2). */
static void
complete(struct coalesce_flow *f)
{
    size_t total = f->hlen + f->payload;
    size_t field = f->udp ? 6 : 16;
    uint16_t be;

    if (f->is6) {
        be = htons((uint16_t)(total - IP6_HDR));
        memcpy(f->headers + 4, &be, 2);
    } else {
        be = htons((uint16_t)total);
        memcpy(f->headers + 2, &be, 2);
        memset(f->headers + 10, 0, 2);
        be = (uint16_t)~checksum_fold(checksum_add(0, f->headers, IP4_HDR));
        memcpy(f->headers + 10, &be, 2);
    }
    if (f->udp) {
        be = htons((uint16_t)(total - f->l4));
        memcpy(f->headers + f->l4 + 4, &be, 2);
    }
    be = checksum_fold(checksum_pseudo(
        f->headers, f->is6, f->udp ? PROTO_UDP : PROTO_TCP, total - f->l4));
    memcpy(f->headers + f->l4 + field, &be, 2);

    f->vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    f->vnet.gso_type = f->udp   ? VIRTIO_NET_HDR_GSO_UDP_L4
                       : f->is6 ? VIRTIO_NET_HDR_GSO_TCPV6
                                : VIRTIO_NET_HDR_GSO_TCPV4;
    f->vnet.hdr_len = (uint16_t)f->hlen;
    f->vnet.gso_size = (uint16_t)f->size;
    f->vnet.csum_start = (uint16_t)f->l4;
    f->vnet.csum_offset = (uint16_t)field;
}

/* A packet by itself; ${verified}: the kernel need not sum it up again. */
static void
write_one(struct coalesce *c, const uint8_t *packet, size_t len, bool verified)
{
    struct virtio_net_hdr vnet = {
        .flags = verified ? VIRTIO_NET_HDR_F_DATA_VALID : 0};
    struct iovec iov[2] = {{&vnet, VNET_HDR}, {(void *)(uintptr_t)packet, len}};

    (void)c->write(c->ctx, iov, 2);
}

static void
flush_flow(struct coalesce *c, struct coalesce_flow *f)
{
    unsigned i, n = f->segments;

    f->segments = 0;
    if (n == 0)
        return;
    if (n == 1) {
        /* Its headers lie before its payload, untouched. */
        write_one(c, (uint8_t *)f->iov[2].iov_base - f->hlen,
            f->hlen + f->iov[2].iov_len, true);
        return;
    }
    c->merged += n - 1;
    complete(f);
    f->iov[0] = (struct iovec){&f->vnet, VNET_HDR};
    f->iov[1] = (struct iovec){f->headers, f->hlen};
    if (c->write(c->ctx, f->iov, (int)n + 2))
        return;
    /* Before Linux 6.2 there are no UDP super-packets. */
    c->no_udp = c->no_udp || f->udp;
    c->merged -= n - 1;
    for (i = 0; i < n; i++)
        write_one(c, (uint8_t *)f->iov[2 + i].iov_base - f->hlen,
            f->hlen + f->iov[2 + i].iov_len, true);
}

void
coalesce_add(struct coalesce *c, const uint8_t *packet, size_t len)
{
    struct coalesce_flow *f, *room = NULL;
    struct candidate k;
    bool good;

    if (!parse(packet, len, &k) || (k.udp && c->no_udp)) {
        /* It may belong to a flow that is held: keep the order. */
        coalesce_flush(c);
        write_one(c, packet, len, false);
        return;
    }
    good = verify(&k);
    for (f = c->flows; f < c->flows + COALESCE_FLOWS; f++) {
        if (same_flow(f, &k)) {
            if (good && fits(f, &k)) {
                append(f, &k);
                return;
            }
            flush_flow(c, f);
            room = f;
            break;
        }
        if (room == NULL ||
            (room->segments != 0 && (f->segments == 0 || f->used < room->used)))
            room = f;
    }
    if (!good) {
        c->bad_checksum++;
        write_one(c, packet, len, false);
        return;
    }
    flush_flow(c, room);
    begin(c, room, &k);
}

void
coalesce_flush(struct coalesce *c)
{
    struct coalesce_flow *f;

    for (f = c->flows; f < c->flows + COALESCE_FLOWS; f++)
        flush_flow(c, f);
}

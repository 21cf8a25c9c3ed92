#include "segment.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <string.h>

#include <linux/virtio_net.h>

#include "checksum.h"

/* Linux 6.2; Debian 12's headers lack it. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define IP4_HDR   20
#define IP6_HDR   40
#define TCP_HDR   20
#define UDP_HDR   8
#define TCP_SUM   16 /* where the checksum is */
#define UDP_SUM   6
#define PROTO_TCP 6
#define PROTO_UDP 17
#define TCP_FIN   0x01
#define TCP_PSH   0x08
#define TCP_CWR   0x80

/* Where the parts of a super-packet are. */
struct shape {
    bool is6, udp;
    size_t l4;      /* offset of the TCP or UDP header */
    size_t headers; /* length of all headers */
};

int
segment_finish(const struct virtio_net_hdr *h, uint8_t *packet, size_t len)
{
    size_t start = h->csum_start, field = start + h->csum_offset;
    uint16_t sum;

    if (start >= len || field + 2 > len)
        return -1;
    /* The field holds the pseudo header's sum already. */
    sum = (uint16_t)~checksum_fold(
        checksum_add(0, packet + start, len - start));
    if (sum == 0)
        sum = 0xffff; /* UDP: 0 would say "none" (RFC 768) */
    memcpy(packet + field, &sum, 2);
    return 0;
}

/* The kernel's hdr_len is not to be relied on: lengths come from the headers.
 */
static int
shape_of(const struct virtio_net_hdr *h, const uint8_t *p, size_t len,
    struct shape *s)
{
    unsigned type = h->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
    size_t min;
    uint8_t proto;

    s->is6 = type == VIRTIO_NET_HDR_GSO_TCPV6;
    s->udp = type == VIRTIO_NET_HDR_GSO_UDP_L4;
    if (s->udp && len > 0)
        s->is6 = p[0] >> 4 == 6;
    else if (type != VIRTIO_NET_HDR_GSO_TCPV4 &&
             type != VIRTIO_NET_HDR_GSO_TCPV6)
        return -1;

    min = s->is6 ? IP6_HDR : IP4_HDR;
    s->l4 = h->csum_start;
    if (s->l4 < min || len < s->l4 + (s->udp ? UDP_HDR : TCP_HDR) ||
        p[0] >> 4 != (s->is6 ? 6 : 4) ||
        (!s->is6 && (size_t)(p[0] & 15) * 4 != s->l4))
        return -1;
    /* An IPv6 extension header would hide the protocol: the kernel puts none
     * before TCP or UDP that it segments. */
    proto = s->is6 ? p[6] : p[9];
    if ((s->is6 && s->l4 != IP6_HDR) ||
        proto != (s->udp ? PROTO_UDP : PROTO_TCP))
        return -1;
    s->headers = s->l4 + (s->udp ? UDP_HDR : (size_t)(p[s->l4 + 12] >> 4) * 4);
    if (s->headers < s->l4 + (s->udp ? UDP_HDR : TCP_HDR) ||
        s->headers >= len || h->gso_size == 0 ||
        h->csum_offset != (s->udp ? UDP_SUM : TCP_SUM))
        return -1;
    return 0;
}

static void
put16(uint8_t *p, size_t v)
{
    uint16_t be = htons((uint16_t)v);

    memcpy(p, &be, 2);
}

/* Lengths, identification and checksum of the IP header of segment ${i}. */
static void
finish_ip(const struct shape *s, uint8_t *p, size_t len, unsigned i)
{
    uint16_t id, sum;

    if (s->is6) {
        put16(p + 4, len - IP6_HDR);
        return;
    }
    memcpy(&id, p + 4, 2);
    put16(p + 2, len);
    put16(p + 4, (size_t)ntohs(id) + i);
    memset(p + 10, 0, 2);
    sum = (uint16_t)~checksum_fold(checksum_add(0, p, s->l4));
    memcpy(p + 10, &sum, 2);
}

static void
finish_l4(const struct shape *s, uint8_t *p, size_t len, size_t offset,
    bool first, bool last)
{
    uint8_t *l4 = p + s->l4, *field = l4 + (s->udp ? UDP_SUM : TCP_SUM);
    uint32_t seq;
    uint16_t sum;

    if (s->udp) {
        put16(l4 + 4, len - s->l4);
    } else {
        memcpy(&seq, l4 + 4, 4);
        seq = htonl(ntohl(seq) + (uint32_t)offset);
        memcpy(l4 + 4, &seq, 4);
        if (!last)
            l4[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
        if (!first)
            l4[13] &= (uint8_t)~TCP_CWR;
    }
    memset(field, 0, 2);
    sum = (uint16_t)~checksum_fold(checksum_add(
        checksum_pseudo(p, s->is6, s->udp ? PROTO_UDP : PROTO_TCP, len - s->l4),
        l4, len - s->l4));
    if (s->udp && sum == 0)
        sum = 0xffff;
    memcpy(field, &sum, 2);
}

int
segment_split(const struct virtio_net_hdr *h, const uint8_t *packet, size_t len,
    uint8_t *buf, size_t size,
    void (*emit)(void *ctx, uint8_t *packet, size_t len), void *ctx)
{
    struct shape s;
    size_t offset, n, payload;
    unsigned i = 0;

    if (shape_of(h, packet, len, &s) != 0 || s.headers + h->gso_size > size)
        return -1;
    payload = len - s.headers;
    for (offset = 0; offset < payload; offset += n, i++) {
        n = payload - offset < h->gso_size ? payload - offset : h->gso_size;
        memcpy(buf, packet, s.headers);
        memcpy(buf + s.headers, packet + s.headers + offset, n);
        finish_ip(&s, buf, s.headers + n, i);
        finish_l4(
            &s, buf, s.headers + n, offset, offset == 0, offset + n == payload);
        emit(ctx, buf, s.headers + n);
    }
    return (int)i;
}

/*
 * filter_packet.c: reading IP headers (RFC 791, RFC 8200) for the filter.
 */
#include <string.h>

#include "filter_packet.h"

#define IP4_HEADER  20
#define IP6_HEADER  40
#define TCP_HEADER  20
#define UDP_HEADER  8
#define SCTP_HEADER 12
#define ICMP_HEADER 4

#define MORE_FRAGMENTS  0x2000
#define FRAGMENT_OFFSET 0x1fff

/* RFC 1858: a first fragment holds the longest IPv4 header and a TCP header,
 * so no later one may start before that. */
#define MIN_FIRST_FRAGMENT  80
#define MIN_FRAGMENT_OFFSET (MIN_FIRST_FRAGMENT / 8)

static uint16_t
load16(const uint8_t *b)
{
    return (uint16_t)(b[0] << 8 | b[1]);
}

static enum filter_packet_kind
read_ports(
    struct filter_packet *p, const uint8_t *sub, size_t len, size_t header)
{
    if (len < header) {
        return FILTER_PACKET_BAD_LENGTH;
    }
    p->sport = load16(sub);
    p->dport = load16(sub + 2);
    return FILTER_PACKET_WHOLE;
}

static enum filter_packet_kind
read_proto(struct filter_packet *p, const uint8_t *sub, size_t len)
{
    switch (p->proto) {
    case 0:
    case 255:
        return FILTER_PACKET_BAD_PROTO;
    case FILTER_PACKET_TCP:
        if (len >= TCP_HEADER) {
            p->tcp_flags = sub[13];
        }
        return read_ports(p, sub, len, TCP_HEADER);
    case FILTER_PACKET_UDP:
        return read_ports(p, sub, len, UDP_HEADER);
    case FILTER_PACKET_SCTP:
        return read_ports(p, sub, len, SCTP_HEADER);
    case FILTER_PACKET_ICMP:
    case FILTER_PACKET_ICMPV6:
        if (p->is4 != (p->proto == FILTER_PACKET_ICMP)) {
            break; /* the other family's: a protocol like any other */
        }
        if (len < ICMP_HEADER) {
            return FILTER_PACKET_BAD_LENGTH;
        }
        p->icmp_type = sub[0];
        p->icmp_code = sub[1];
        break;
    }
    return FILTER_PACKET_WHOLE;
}

static enum filter_packet_kind
read4(struct filter_packet *p, const uint8_t *b, size_t len)
{
    size_t header = (size_t)(b[0] & 0x0f) * 4, total = load16(b + 2);
    unsigned fragment = load16(b + 6);

    if (header < IP4_HEADER) {
        return FILTER_PACKET_BAD_HEADER;
    }
    if (total > len || header > total) {
        return FILTER_PACKET_BAD_LENGTH;
    }
    p->is4 = true;
    p->proto = b[9];
    p->src = tn_addr_from4(b + 12);
    p->dst = tn_addr_from4(b + 16);
    if ((fragment & FRAGMENT_OFFSET) != 0) {
        return (fragment & FRAGMENT_OFFSET) < MIN_FRAGMENT_OFFSET
                   ? FILTER_PACKET_BAD_FRAGMENT
                   : FILTER_PACKET_LATER_FRAGMENT;
    }
    if ((fragment & MORE_FRAGMENTS) != 0 &&
        total - header < MIN_FIRST_FRAGMENT) {
        return FILTER_PACKET_BAD_FRAGMENT;
    }
    return read_proto(p, b + header, total - header);
}

static enum filter_packet_kind
read6(struct filter_packet *p, const uint8_t *b, size_t len)
{
    size_t payload;

    if (len < IP6_HEADER) {
        return FILTER_PACKET_BAD_LENGTH;
    }
    payload = load16(b + 4);
    if (payload > len - IP6_HEADER) {
        return FILTER_PACKET_BAD_LENGTH;
    }
    p->proto = b[6];
    p->src = tn_addr_from6(b + 8);
    p->dst = tn_addr_from6(b + 24);
    /* An IPv4-mapped address has no place on the wire, and would be taken for
     * the IPv4 address everywhere else. */
    if (tn_addr_is4(&p->src) || tn_addr_is4(&p->dst)) {
        return FILTER_PACKET_BAD_HEADER;
    }
    return read_proto(p, b + IP6_HEADER, payload);
}

enum filter_packet_kind
filter_packet_read(struct filter_packet *p, const uint8_t *b, size_t len)
{
    memset(p, 0, sizeof(*p));
    if (len < IP4_HEADER) {
        return FILTER_PACKET_BAD_LENGTH;
    }
    switch (b[0] >> 4) {
    case 4:
        return read4(p, b, len);
    case 6:
        return read6(p, b, len);
    default:
        return FILTER_PACKET_BAD_HEADER;
    }
}

/*
 * filter_packet.h: what the packet filter reads of an IP packet.
 *
 * Addresses, protocol and ports, as the control protocol's filter defines them:
 * an IPv6 packet's protocol is its first Next Header, extension headers are not
 * skipped, and so pass only by a rule that names their number.
 */
#ifndef FILTER_PACKET_H
#define FILTER_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

/* Protocol numbers (IANA); TSMP is the mesh's own use of 99. */
enum filter_packet_proto {
    FILTER_PACKET_ICMP = 1,
    FILTER_PACKET_TCP = 6,
    FILTER_PACKET_UDP = 17,
    FILTER_PACKET_ICMPV6 = 58,
    FILTER_PACKET_TSMP = 99,
    FILTER_PACKET_SCTP = 132,
};

enum filter_packet_kind {
    FILTER_PACKET_WHOLE,          /* or a first fragment */
    FILTER_PACKET_LATER_FRAGMENT, /* no ports: only addresses are set */
    FILTER_PACKET_BAD_LENGTH,
    FILTER_PACKET_BAD_HEADER,
    FILTER_PACKET_BAD_PROTO,    /* 0 or 255: no protocol */
    FILTER_PACKET_BAD_FRAGMENT, /* RFC 1858: tiny or overlapping */
};

struct filter_packet {
    bool is4;
    uint8_t proto;
    struct tn_addr src;
    struct tn_addr dst;
    uint16_t sport; /* TCP, UDP, SCTP; else 0 */
    uint16_t dport;
    uint8_t tcp_flags;
    uint8_t icmp_type; /* ICMP of the packet's own family */
    uint8_t icmp_code;
};

/* Read ${len} bytes at ${b}; ${p} is set when a whole packet or a later
 * fragment is returned. */
enum filter_packet_kind filter_packet_read(
    struct filter_packet *p, const uint8_t *b, size_t len);

#endif

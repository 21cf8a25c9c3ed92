#include "tsmp.h"

#include <string.h>

#define IP4_HDR 20
#define IP6_HDR 40
#define TCP     6

#define REJECT_LEN 7

static unsigned
get16(const uint8_t *p)
{
    return (unsigned)(p[0] << 8 | p[1]);
}

static void
decode(struct tsmp *t, const uint8_t *p, size_t len)
{
    if (len == 0)
        return;
    if (p[0] == 'p' && len >= 1 + TSMP_PING_LEN) {
        t->type = TSMP_PING;
        memcpy(t->data, p + 1, TSMP_PING_LEN);
    } else if (p[0] == 'o' && len >= 1 + TSMP_PING_LEN) {
        t->type = TSMP_PONG;
        memcpy(t->data, p + 1, TSMP_PING_LEN);
        if (len >= 1 + TSMP_PING_LEN + 2)
            t->port = (uint16_t)get16(p + 1 + TSMP_PING_LEN);
    } else if (p[0] == '!' && len >= REJECT_LEN) {
        t->type = TSMP_REJECT;
        t->proto = p[1];
        t->reason = p[2];
        t->sport = (uint16_t)get16(p + 3);
        t->dport = (uint16_t)get16(p + 5);
        t->maybe_broken = len > REJECT_LEN && (p[REJECT_LEN] & 1);
    } else if (p[0] == 'a' && len >= 33) {
        t->type = TSMP_DISCO;
        t->disco = p + 1;
    }
}

bool
tsmp_read(struct tsmp *t, const uint8_t *packet, size_t len)
{
    size_t hdr;

    if (len >= IP4_HDR && packet[0] >> 4 == 4) {
        hdr = (size_t)(packet[0] & 15) * 4;
        if (packet[9] != TSMP_PROTO || hdr < IP4_HDR || hdr > len)
            return false;
        memset(t, 0, sizeof(*t));
        t->src = tn_addr_from4(packet + 12);
        t->dst = tn_addr_from4(packet + 16);
        if (get16(packet + 6) & 0x3fff) /* a fragment says nothing */
            return true;
    } else if (len >= IP6_HDR && packet[0] >> 4 == 6) {
        hdr = IP6_HDR;
        if (packet[6] != TSMP_PROTO)
            return false;
        memset(t, 0, sizeof(*t));
        t->src = tn_addr_from6(packet + 8);
        t->dst = tn_addr_from6(packet + 24);
    } else {
        return false;
    }
    decode(t, packet + hdr, len - hdr);
    return true;
}

static void
put_checksum(uint8_t *ip)
{
    uint32_t s = 0;
    size_t i;

    for (i = 0; i < IP4_HDR; i += 2)
        s += get16(ip + i);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    s = ~s;
    ip[10] = (uint8_t)(s >> 8);
    ip[11] = (uint8_t)s;
}

/* The IP header of a message of ${body} bytes; returns where they begin. */
static size_t
put_header(uint8_t out[TSMP_MAX_LEN], const struct tn_addr *src,
    const struct tn_addr *dst, size_t body)
{
    memset(out, 0, TSMP_MAX_LEN);
    if (tn_addr_is4(dst)) {
        out[0] = 0x45;
        out[3] = (uint8_t)(IP4_HDR + body);
        out[8] = 64;
        out[9] = TSMP_PROTO;
        memcpy(out + 12, src->b + 12, 4);
        memcpy(out + 16, dst->b + 12, 4);
        put_checksum(out);
        return IP4_HDR;
    }
    out[0] = 0x60;
    out[5] = (uint8_t)body;
    out[6] = TSMP_PROTO;
    out[7] = 64;
    memcpy(out + 8, src->b, 16);
    memcpy(out + 24, dst->b, 16);
    return IP6_HDR;
}

size_t
tsmp_ping(uint8_t out[TSMP_MAX_LEN], const struct tn_addr *src,
    const struct tn_addr *dst, const uint8_t data[TSMP_PING_LEN], bool pong)
{
    size_t body = 1 + TSMP_PING_LEN + (pong ? 2 : 0);
    size_t hdr = put_header(out, src, dst, body);

    out[hdr] = pong ? 'o' : 'p';
    memcpy(out + hdr + 1, data, TSMP_PING_LEN);
    return hdr + body;
}

size_t
tsmp_refuse(uint8_t out[TSMP_MAX_LEN], const uint8_t *packet, size_t len)
{
    struct tn_addr src, dst;
    size_t hdr;

    if (len < IP4_HDR || packet[0] >> 4 != 4 || packet[9] != TCP)
        return 0;
    hdr = (size_t)(packet[0] & 15) * 4;
    if (hdr < IP4_HDR || len < hdr + 4) /* the ports */
        return 0;
    src = tn_addr_from4(packet + 12);
    dst = tn_addr_from4(packet + 16);
    put_header(out, &dst, &src, REJECT_LEN);
    out[IP4_HDR] = '!';
    out[IP4_HDR + 1] = TCP;
    out[IP4_HDR + 2] = 'A';
    memcpy(out + IP4_HDR + 3, packet + hdr, 4);
    return IP4_HDR + REJECT_LEN;
}

const char *
tsmp_reason(uint8_t reason)
{
    switch (reason) {
    case 'A':
        return "its tailnet's policy does not allow it";
    case 'S':
        return "it takes no connections (shields up)";
    case 'F':
        return "it does not forward";
    case 'W':
        return "its own firewall refuses";
    case 'T':
        return "the address is not one it serves";
    default:
        return "for an unknown reason";
    }
}

#include "masq.h"

#include <string.h>

#define IP4_HDR     20
#define IP6_HDR     40
#define PROTO_TCP   6
#define PROTO_UDP   17
#define PROTO_ICMP6 58

static uint32_t
get16(const uint8_t *p)
{
    return (uint32_t)(p[0] << 8 | p[1]);
}

/* The checksum at ${sum} after ${n} bytes it covers changed (RFC 1624, eqn. 3).
 */
static void
adjust(uint8_t *sum, const uint8_t *from, const uint8_t *to, size_t n)
{
    uint32_t s = ~get16(sum) & 0xffff;
    size_t i;

    for (i = 0; i < n; i += 2)
        s += (~get16(from + i) & 0xffff) + get16(to + i);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    s = ~s;
    sum[0] = (uint8_t)(s >> 8);
    sum[1] = (uint8_t)s;
}

/* The transport's checksum at ${p}, where there is one. */
static void
adjust_transport(uint8_t *p, size_t len, uint8_t proto, const uint8_t *from,
    const uint8_t *to, size_t n)
{
    size_t at;

    if (proto == PROTO_TCP)
        at = 16;
    else if (proto == PROTO_UDP)
        at = 6;
    else if (proto == PROTO_ICMP6)
        at = 2;
    else
        return;
    if (len < at + 2 || (proto == PROTO_ICMP6 && n == 4))
        return;
    if (proto == PROTO_UDP && get16(p + at) == 0 && n == 4)
        return; /* without one */
    adjust(p + at, from, to, n);
    if (proto == PROTO_UDP && get16(p + at) == 0)
        p[at] = p[at + 1] = 0xff;
}

static bool
replace(uint8_t *p, size_t len, bool source, const struct tn_addr *from,
    const struct tn_addr *to)
{
    bool four = tn_addr_is4(from);
    size_t n = four ? 4 : 16, hdr = four ? IP4_HDR : IP6_HDR;
    size_t at = (four ? 12 : 8) + (source ? 0 : n);
    const uint8_t *a = from->b + 16 - n, *b = to->b + 16 - n;

    if (len < hdr || p[0] >> 4 != (four ? 4 : 6) || tn_addr_is4(to) != four ||
        memcmp(p + at, a, n) != 0)
        return false;
    if (four) {
        hdr = (size_t)(p[0] & 15) * 4;
        if (hdr < IP4_HDR || hdr > len)
            return false;
        adjust(p + 10, a, b, n);
    }
    memcpy(p + at, b, n);
    if (four && (get16(p + 6) & 0x1fff) != 0)
        return true;
    adjust_transport(p + hdr, len - hdr, p[four ? 9 : 6], a, b, n);
    return true;
}

bool
masq_source(uint8_t *p, size_t len, const struct tn_addr *from,
    const struct tn_addr *to)
{
    return replace(p, len, true, from, to);
}

bool
masq_destination(uint8_t *p, size_t len, const struct tn_addr *from,
    const struct tn_addr *to)
{
    return replace(p, len, false, from, to);
}

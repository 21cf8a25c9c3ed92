#include "lanes.h"

#include <netinet/in.h>
#include <string.h>

#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define PORTS       4 /* bytes: both, where TCP and UDP begin */

static uint16_t
number(const uint8_t *addresses, size_t len, const uint8_t *ports)
{
    uint64_t h = 0, w;
    uint32_t p = 0;
    size_t i;

    for (i = 0; i < len; i += sizeof(w)) {
        memcpy(&w, addresses + i, sizeof(w));
        h = (h ^ w) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    if (ports != NULL)
        memcpy(&p, ports, PORTS);
    h = (h ^ p) * 0x9e3779b97f4a7c15u;
    return (uint16_t)(h >> 32) % LANES_FLOWS;
}

static bool
has_ports(uint8_t proto)
{
    return proto == IPPROTO_TCP || proto == IPPROTO_UDP;
}

uint16_t
lanes_flow(const uint8_t *b, size_t len)
{
    size_t header;
    bool fragment;

    if (len >= IPV4_HEADER && b[0] >> 4 == 4) {
        header = (size_t)(b[0] & 15) * 4;
        fragment = (b[6] & 0x3f) != 0 || b[7] != 0;
        return number(b + 12, 8,
            !fragment && has_ports(b[9]) && len >= header + PORTS ? b + header
                                                                  : NULL);
    }
    if (len >= IPV6_HEADER && b[0] >> 4 == 6)
        return number(b + 8, 32,
            has_ports(b[6]) && len >= IPV6_HEADER + PORTS ? b + IPV6_HEADER
                                                          : NULL);
    return LANES_NO_FLOW;
}

static bool
holds(const struct lanes *l, unsigned i, uint16_t flow)
{
    return flow == LANES_NO_FLOW ||
           (l->flows[i][flow / 64] >> flow % 64 & 1) != 0;
}

static void
enter(struct lanes *l, unsigned i, uint16_t flow)
{
    /* What has no flow keeps all others behind it. */
    if (flow == LANES_NO_FLOW)
        memset(l->flows[i], 0xff, sizeof(l->flows[i]));
    else
        l->flows[i][flow / 64] |= (uint64_t)1 << flow % 64;
}

/* The first lane that has nothing of ${flow} behind it. */
static unsigned
first_for(const struct lanes *l, uint16_t flow)
{
    unsigned i = l->open;

    while (i > 0 && !holds(l, i - 1, flow))
        i--;
    return i == 0 ? 0 : i - 1;
}

bool
lanes_add(struct lanes *l, uint16_t flow, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len)
{
    struct outbox *o;
    unsigned i;

    for (i = first_for(l, flow); i < LANES_MAX; i++) {
        o = &l->lane[i];
        if (i == l->open) {
            if (!outbox_add(o, dst, msg, len))
                return false;
            memset(l->flows[i], 0, sizeof(l->flows[i]));
            l->open++;
        } else if (len != o->segment || !outbox_goes(o, dst)) {
            continue; /* a shorter one would close the lane */
        } else if (!outbox_add(o, dst, msg, len)) {
            return false; /* it is full */
        }
        enter(l, i, flow);
        return true;
    }
    return false;
}

struct outbox *
lanes_next(struct lanes *l)
{
    struct outbox *o, *behind;

    if (l->sent == l->open) {
        l->open = l->sent = 0;
        return NULL;
    }
    o = &l->lane[l->sent++];
    behind = &l->lane[l->sent];
    if (l->sent < l->open && behind->count == 1 &&
        outbox_add(o, &behind->dst, behind->buf, behind->used)) {
        behind->count = 0;
        l->sent++;
    }
    return o;
}

#include "ping.h"

#include <string.h>

#define IP4_HDR     20
#define IP6_HDR     40
#define ICMP_LEN    16 /* header and 8 bytes of payload */
#define PROTO_ICMP  1
#define PROTO_ICMP6 58
#define ECHO4       8
#define REPLY4      0
#define ECHO6       128
#define REPLY6      129

static uint32_t
sum(const uint8_t *p, size_t n, uint32_t s)
{
    size_t i;

    for (i = 0; i + 1 < n; i += 2)
        s += (uint32_t)p[i] << 8 | p[i + 1];
    return s;
}

static void
put_checksum(uint8_t *field, uint32_t s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    s = ~s;
    field[0] = (uint8_t)(s >> 8);
    field[1] = (uint8_t)s;
}

static void
put_echo(uint8_t *icmp, uint8_t type, uint16_t id, uint16_t row, uint32_t seed)
{
    memset(icmp, 0, ICMP_LEN);
    icmp[0] = type;
    icmp[4] = (uint8_t)(id >> 8);
    icmp[5] = (uint8_t)id;
    icmp[6] = (uint8_t)(row >> 8);
    icmp[7] = (uint8_t)row;
    put_checksum(icmp + 2, sum(icmp, ICMP_LEN, seed));
}

/* The row's number, or PING_PENDING_MAX: all are pending. */
static uint16_t
add(struct ping_list *l, const struct ping *p)
{
    uint16_t row;

    for (row = 0; row < PING_PENDING_MAX; row++)
        if (l->pending[row].query == 0)
            break;
    if (row < PING_PENDING_MAX) {
        l->pending[row] = *p;
        l->pending[row].serial = l->serial++;
    }
    return row;
}

/* List, row and serial number: a late answer is not the next one's. */
static void
put_token(const struct ping_list *l, uint16_t row, uint8_t token[TSMP_PING_LEN])
{
    memcpy(token, &l->id, 2);
    memcpy(token + 2, &row, 2);
    memcpy(token + 4, &l->pending[row].serial, 4);
}

static size_t
make_echo(const struct ping_list *l, uint16_t row, const struct tn_addr *from,
    const struct tn_addr *to, uint8_t packet[PING_PACKET_MAX])
{
    memset(packet, 0, PING_PACKET_MAX);
    if (tn_addr_is4(to)) {
        packet[0] = 0x45;
        packet[3] = IP4_HDR + ICMP_LEN;
        packet[8] = 64;
        packet[9] = PROTO_ICMP;
        memcpy(packet + 12, from->b + 12, 4);
        memcpy(packet + 16, to->b + 12, 4);
        put_checksum(packet + 10, sum(packet, IP4_HDR, 0));
        put_echo(packet + IP4_HDR, ECHO4, l->id, row, 0);
        return IP4_HDR + ICMP_LEN;
    }
    packet[0] = 0x60;
    packet[5] = ICMP_LEN;
    packet[6] = PROTO_ICMP6;
    packet[7] = 64;
    memcpy(packet + 8, from->b, 16);
    memcpy(packet + 24, to->b, 16);
    put_echo(packet + IP6_HDR, ECHO6, l->id, row,
        sum(packet + 8, 32, ICMP_LEN + PROTO_ICMP6));
    return IP6_HDR + ICMP_LEN;
}

size_t
ping_make(struct ping_list *l, const struct tn_addr *from, const struct ping *p,
    uint8_t packet[PING_PACKET_MAX])
{
    uint8_t data[TSMP_PING_LEN];
    uint16_t row;

    _Static_assert(TSMP_MAX_LEN <= PING_PACKET_MAX, "one buffer for both");
    if (tn_addr_is4(from) != tn_addr_is4(&p->to))
        return 0;
    row = add(l, p);
    if (row == PING_PENDING_MAX)
        return 0;
    if (p->kind == PING_ICMP)
        return make_echo(l, row, from, &p->to, packet);
    put_token(l, row, data);
    return tsmp_ping(packet, from, &p->to, data, false);
}

bool
ping_token(
    struct ping_list *l, const struct ping *p, uint8_t token[PING_TOKEN_LEN])
{
    uint16_t row = add(l, p);

    if (row == PING_PENDING_MAX)
        return false;
    memset(token, 0, PING_TOKEN_LEN);
    put_token(l, row, token);
    return true;
}

struct ping *
ping_find(struct ping_list *l, enum ping_kind kind, const uint8_t *token)
{
    uint8_t own[TSMP_PING_LEN];
    uint16_t row;

    memcpy(&row, token + 2, 2);
    if (row >= PING_PENDING_MAX || l->pending[row].query == 0 ||
        l->pending[row].kind != kind)
        return NULL;
    put_token(l, row, own);
    return memcmp(own, token, sizeof(own)) == 0 ? &l->pending[row] : NULL;
}

void
ping_end(struct ping *p)
{
    p->query = 0;
}

bool
ping_match(
    struct ping_list *l, const uint8_t *packet, size_t len, struct ping *p)
{
    const uint8_t *icmp;
    struct tn_addr src;
    uint16_t row;

    if (len >= IP4_HDR + ICMP_LEN && packet[0] == 0x45 &&
        packet[9] == PROTO_ICMP) {
        icmp = packet + IP4_HDR;
        src = tn_addr_from4(packet + 12);
    } else if (len >= IP6_HDR + ICMP_LEN && packet[0] >> 4 == 6 &&
               packet[6] == PROTO_ICMP6) {
        icmp = packet + IP6_HDR;
        src = tn_addr_from6(packet + 8);
    } else {
        return false;
    }
    if (icmp[0] != (packet[0] >> 4 == 4 ? REPLY4 : REPLY6) ||
        (icmp[4] << 8 | icmp[5]) != l->id)
        return false;
    row = (uint16_t)(icmp[6] << 8 | icmp[7]);
    if (row >= PING_PENDING_MAX || l->pending[row].query == 0 ||
        l->pending[row].kind != PING_ICMP ||
        !tn_addr_equal(&l->pending[row].to, &src))
        return false;
    *p = l->pending[row];
    l->pending[row].query = 0;
    return true;
}

bool
ping_expire(struct ping_list *l, uint64_t now, struct ping *p)
{
    size_t i;

    for (i = 0; i < PING_PENDING_MAX; i++) {
        if (l->pending[i].query != 0 && l->pending[i].deadline <= now) {
            *p = l->pending[i];
            l->pending[i].query = 0;
            return true;
        }
    }
    return false;
}

uint64_t
ping_deadline(const struct ping_list *l)
{
    uint64_t at = UINT64_MAX;
    size_t i;

    for (i = 0; i < PING_PENDING_MAX; i++)
        if (l->pending[i].query != 0 && l->pending[i].deadline < at)
            at = l->pending[i].deadline;
    return at;
}

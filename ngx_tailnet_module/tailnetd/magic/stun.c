#include "stun.h"

#include <string.h>

#define HEADER_LEN         20
#define ATTR_LEN           4
#define BINDING_REQUEST    0x0001
#define BINDING_SUCCESS    0x0101
#define MAPPED_ADDRESS     0x0001
#define XOR_MAPPED_ADDRESS 0x0020
#define XOR_MAPPED_ALT     0x8020 /* of servers before RFC 5389 */
#define SOFTWARE           0x8022
#define FINGERPRINT        0x8028
#define FINGERPRINT_XOR    0x5354554eu
#define FAMILY_IPV4        1
#define FAMILY_IPV6        2
#define FINGERPRINT_AT     (STUN_REQUEST_LEN - 8)

static const uint8_t cookie[4] = {0x21, 0x12, 0xa4, 0x42};

bool
stun_looks(const uint8_t *p, size_t len)
{
    return len >= HEADER_LEN && (p[0] & 0xc0) == 0 &&
           memcmp(p + 4, cookie, sizeof(cookie)) == 0;
}

static unsigned
get16(const uint8_t *p)
{
    return (unsigned)(p[0] << 8 | p[1]);
}

static void
put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* CRC-32 of ITU V.42, bit by bit: a request is 32 bytes. */
static uint32_t
crc32(const uint8_t *p, size_t len)
{
    uint32_t crc = 0xffffffffu;
    size_t i;
    int bit;

    for (i = 0; i < len; i++) {
        crc ^= p[i];
        for (bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

void
stun_request(uint8_t out[STUN_REQUEST_LEN], const uint8_t txid[STUN_TXID_LEN])
{
    uint32_t crc;

    put16(out, BINDING_REQUEST);
    put16(out + 2, STUN_REQUEST_LEN - HEADER_LEN);
    memcpy(out + 4, cookie, sizeof(cookie));
    memcpy(out + 8, txid, STUN_TXID_LEN);
    put16(out + 20, SOFTWARE);
    put16(out + 22, 8);
    memcpy(out + 24, "tailnode", 8);
    put16(out + FINGERPRINT_AT, FINGERPRINT);
    put16(out + FINGERPRINT_AT + 2, 4);
    crc = crc32(out, FINGERPRINT_AT) ^ FINGERPRINT_XOR;
    put16(out + FINGERPRINT_AT + 4, crc >> 16);
    put16(out + FINGERPRINT_AT + 6, crc & 0xffff);
}

/* The value of an address attribute; ${mask}: cookie and transaction, or NULL.
 */
static int
address(
    const uint8_t *v, size_t len, const uint8_t *mask, struct tn_endpoint *e)
{
    static const uint8_t none[16];
    uint8_t b[16];
    size_t i, n;

    if (len < 4)
        return -1;
    n = v[1] == FAMILY_IPV4 ? 4 : v[1] == FAMILY_IPV6 ? 16 : 0;
    if (n == 0 || len < 4 + n)
        return -1;
    if (mask == NULL)
        mask = none;
    for (i = 0; i < n; i++)
        b[i] = v[4 + i] ^ mask[i];
    e->port = (uint16_t)(get16(v + 2) ^ get16(mask));
    e->addr = n == 4 ? tn_addr_from4(b) : tn_addr_from6(b);
    return e->port == 0 ? -1 : 0;
}

int
stun_response(const uint8_t *p, size_t len, uint8_t txid[STUN_TXID_LEN],
    struct tn_endpoint *e)
{
    struct tn_endpoint plain = {0}, found = {0};
    size_t at = HEADER_LEN, n;
    unsigned type;

    if (!stun_looks(p, len) || get16(p) != BINDING_SUCCESS ||
        get16(p + 2) > len - HEADER_LEN)
        return -1;
    len = HEADER_LEN + get16(p + 2);
    while (len - at >= ATTR_LEN) {
        type = get16(p + at);
        n = get16(p + at + 2);
        at += ATTR_LEN;
        if (n > len - at)
            return -1;
        if (type == MAPPED_ADDRESS && plain.port == 0)
            (void)address(p + at, n, NULL, &plain);
        else if ((type == XOR_MAPPED_ADDRESS || type == XOR_MAPPED_ALT) &&
                 found.port == 0)
            (void)address(p + at, n, p + 4, &found);
        n = (n + 3) & ~(size_t)3;
        at += n < len - at ? n : len - at;
    }
    if (found.port == 0)
        found = plain;
    if (found.port == 0)
        return -1;
    memcpy(txid, p + 8, STUN_TXID_LEN);
    *e = found;
    return 0;
}

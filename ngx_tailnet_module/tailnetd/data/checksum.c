#include "checksum.h"

#include <arpa/inet.h>
#include <string.h>

uint64_t
checksum_add(uint64_t sum, const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t s0 = 0, s1 = 0;
    uint32_t w[8];
    uint16_t h;

    for (; n >= sizeof(w); n -= sizeof(w), b += sizeof(w)) {
        memcpy(w, b, sizeof(w));
        s0 += (uint64_t)w[0] + w[1] + w[2] + w[3];
        s1 += (uint64_t)w[4] + w[5] + w[6] + w[7];
    }
    for (; n >= 4; n -= 4, b += 4) {
        memcpy(w, b, 4);
        s0 += w[0];
    }
    if (n >= 2) {
        memcpy(&h, b, 2);
        s0 += h;
        n -= 2;
        b += 2;
    }
    if (n != 0) {
        h = 0;
        memcpy(&h, b, 1);
        s0 += h;
    }
    /* Neither overflows: a packet is 64 KB. */
    return sum + s0 + s1;
}

uint16_t
checksum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint64_t
checksum_pseudo(const uint8_t *packet, bool is6, uint8_t proto, size_t len)
{
    uint64_t sum = is6 ? checksum_add(0, packet + 8, 32)
                       : checksum_add(0, packet + 12, 8);

    return sum + htons(proto) + htonl((uint32_t)len);
}

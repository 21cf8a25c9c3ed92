/*
 * data_kit.h: TCP and UDP packets made and judged by the letter of the RFCs,
 * for tests of the data path.  Nothing here shares code with the product.
 */
#ifndef DATA_KIT_H
#define DATA_KIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KIT_PACKET_MAX 65600

struct kit_packet {
    bool is6, udp;
    uint8_t tos, ttl;
    bool df;
    uint16_t id;
    uint8_t host; /* last byte of the source address */
    uint16_t sport, dport;
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t window, urgent;
    size_t options; /* bytes of TCP options, a multiple of 4 */
    uint8_t option; /* what they are filled with */
    const uint8_t *payload;
    size_t len; /* of the payload */
};

/* A number below ${below}, the same in every run. */
static inline uint32_t
kit_draw(uint64_t *seed, uint32_t below)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % below;
}

static inline void
kit_put16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void
kit_put32(uint8_t *p, uint32_t v)
{
    kit_put16(p, v >> 16);
    kit_put16(p + 2, v & 0xffff);
}

static inline size_t
kit_get16(const uint8_t *p)
{
    return (size_t)(p[0] << 8 | p[1]);
}

/* RFC 1071 in one line each: 16-bit words of network order, ${sum} so far. */
static inline uint32_t
kit_sum(uint32_t sum, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

/* The pseudo header, drawn out. */
static inline uint32_t
kit_pseudo(const uint8_t *p, bool is6, uint8_t proto, size_t len)
{
    uint8_t b[40] = {0};

    if (is6) {
        memcpy(b, p + 8, 32);
        kit_put32(b + 32, (uint32_t)len);
        b[39] = proto;
        return kit_sum(0, b, 40);
    }
    memcpy(b, p + 12, 8);
    b[9] = proto;
    kit_put16(b + 10, len);
    return kit_sum(0, b, 12);
}

/* Where the TCP or UDP header is, and its checksum. */
static inline size_t
kit_l4(bool is6)
{
    return is6 ? 40 : 20;
}

static inline size_t
kit_field(bool is6, bool udp)
{
    return kit_l4(is6) + (udp ? 6 : 16);
}

/* Both checksums of ${p}, whose IPv4 header has no options. */
static inline void
kit_finish(uint8_t *p, size_t len, bool is6, bool udp)
{
    size_t l4 = kit_l4(is6), field = kit_field(is6, udp);
    uint32_t sum;

    if (!is6) {
        kit_put16(p + 10, 0);
        kit_put16(p + 10, ~kit_sum(0, p, 20) & 0xffff);
    }
    kit_put16(p + field, 0);
    sum = ~kit_sum(
              kit_pseudo(p, is6, udp ? 17 : 6, len - l4), p + l4, len - l4) &
          0xffff;
    kit_put16(p + field, udp && sum == 0 ? 0xffff : sum);
}

/* Whether every length and checksum of ${p} is right. */
static inline bool
kit_valid(const uint8_t *p, size_t len)
{
    bool is6 = p[0] >> 4 == 6;
    size_t l4 = is6 ? 40 : (size_t)(p[0] & 15) * 4;
    uint8_t proto = is6 ? p[6] : p[9];

    if (is6 ? kit_get16(p + 4) + 40 != len : kit_get16(p + 2) != len)
        return false;
    if (!is6 && kit_sum(0, p, l4) != 0xffff)
        return false;
    if (proto == 17 &&
        (kit_get16(p + l4 + 4) != len - l4 || kit_get16(p + l4 + 6) == 0))
        return false;
    return kit_sum(kit_pseudo(p, is6, proto, len - l4), p + l4, len - l4) ==
           0xffff;
}

/* ${k} as bytes; returns their number. */
static inline size_t
kit_build(const struct kit_packet *k, uint8_t *p)
{
    size_t l4 = kit_l4(k->is6), header = l4 + (k->udp ? 8 : 20 + k->options);
    size_t len = header + k->len;

    memset(p, 0, header);
    if (k->is6) {
        kit_put32(p, 6u << 28 | (uint32_t)k->tos << 20 | 0x12345);
        kit_put16(p + 4, len - 40);
        p[6] = k->udp ? 17 : 6;
        p[7] = k->ttl;
        memset(p + 8, 0xfd, 32);
        p[23] = k->host;
    } else {
        p[0] = 0x45;
        p[1] = k->tos;
        kit_put16(p + 2, len);
        kit_put16(p + 4, k->id);
        p[6] = k->df ? 0x40 : 0;
        p[8] = k->ttl;
        p[9] = k->udp ? 17 : 6;
        kit_put32(p + 12, 0x64400000u | k->host);
        kit_put32(p + 16, 0x64400001);
    }
    kit_put16(p + l4, k->sport);
    kit_put16(p + l4 + 2, k->dport);
    if (k->udp) {
        kit_put16(p + l4 + 4, len - l4);
    } else {
        kit_put32(p + l4 + 4, k->seq);
        kit_put32(p + l4 + 8, k->ack);
        p[l4 + 12] = (uint8_t)((20 + k->options) / 4 << 4);
        p[l4 + 13] = k->flags;
        kit_put16(p + l4 + 14, k->window);
        kit_put16(p + l4 + 18, k->urgent);
        memset(p + l4 + 20, k->option, k->options);
    }
    if (k->len > 0)
        memcpy(p + header, k->payload, k->len);
    kit_finish(p, len, k->is6, k->udp);
    return len;
}

#endif

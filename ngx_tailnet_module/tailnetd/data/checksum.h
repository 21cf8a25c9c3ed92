/*
 * checksum.h: the Internet checksum (RFC 1071), as running sums.
 *
 * A sum is unfolded and in memory order, so that parts of even length may be
 * added in any order and no byte is swapped until the end.
 */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* checksum_add(sum, p, n): ${sum} and ${n} bytes; only the last part of a
 * whole may have an odd length. */
uint64_t checksum_add(uint64_t sum, const void *p, size_t n);

/* checksum_fold(sum): 16 bits, in memory order, not complemented. */
uint16_t checksum_fold(uint64_t sum);

/*
 * checksum_pseudo(packet, is6, proto, len): the sum of the pseudo header of an
 * IPv4 or IPv6 packet whose upper layer, ${proto}, is ${len} bytes (RFC 9293
 * section 3.1, RFC 8200 section 8.1).
 */
uint64_t checksum_pseudo(
    const uint8_t *packet, bool is6, uint8_t proto, size_t len);

#endif

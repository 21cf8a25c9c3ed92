/*
 * base64.h: RFC 4648 section 4, padded.
 *
 * Time and memory accesses of the encoder depend on the data, so it is for
 * what travels in clear or over TLS, not for private keys.
 */
#ifndef BASE64_H
#define BASE64_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of text for ${n} bytes, with the NUL. */
#define BASE64_LEN(n) (((size_t)(n) + 2) / 3 * 4 + 1)

/* base64_encode(out, data, len): BASE64_LEN(len) bytes into ${out}. */
void base64_encode(char *out, const void *data, size_t len);

/* base64_decode(out, size, s, len, n): strictly; at most ${size} bytes into
 * ${out}, their number into ${*n}.  Returns 0, or -1. */
int base64_decode(
    uint8_t *out, size_t size, const char *s, size_t len, size_t *n);

#endif

/*
 * keytext.c: branch-free decoding of hexadecimal and base64 keys.
 *
 * A character's value is the sum over the alphabet's ranges of (value if the
 * character is in the range, else 0): no table, so no address depends on a
 * secret.  A bad character is remembered and refused at the end.
 */
#include <stdio.h>
#include <string.h>

#include "keytext.h"

/* All ones when ${lo} <= ${c} <= ${hi}, else 0. */
static unsigned
within(unsigned c, unsigned lo, unsigned hi)
{
    return 0u - (1u ^ (((c - lo) | (hi - c)) >> (sizeof(unsigned) * 8 - 1)));
}

static unsigned
hex_value(unsigned c, unsigned *bad)
{
    unsigned digit = within(c, '0', '9'), upper = within(c, 'A', 'F'),
             lower = within(c, 'a', 'f');

    *bad |= ~(digit | upper | lower);
    return (digit & (c - '0')) | (upper & (c - 'A' + 10)) |
           (lower & (c - 'a' + 10));
}

static unsigned
base64_value(unsigned c, unsigned *bad)
{
    unsigned upper = within(c, 'A', 'Z'), lower = within(c, 'a', 'z'),
             digit = within(c, '0', '9'), plus = within(c, '+', '+'),
             slash = within(c, '/', '/');

    *bad |= ~(upper | lower | digit | plus | slash);
    return (upper & (c - 'A')) | (lower & (c - 'a' + 26)) |
           (digit & (c - '0' + 52)) | (plus & 62) | (slash & 63);
}

static int
finish(uint8_t *key, unsigned bad)
{
    if (bad != 0) {
        explicit_bzero(key, KEYTEXT_BYTES);
        return -1;
    }
    return 0;
}

int
keytext_hex(uint8_t key[static KEYTEXT_BYTES], const char *s, size_t len)
{
    unsigned bad = 0, hi, lo;
    size_t i;

    if (len != KEYTEXT_HEX_LEN) {
        return finish(key, 1);
    }
    for (i = 0; i < KEYTEXT_BYTES; i++) {
        hi = hex_value((unsigned char)s[2 * i], &bad);
        lo = hex_value((unsigned char)s[2 * i + 1], &bad);
        key[i] = (uint8_t)(hi << 4 | lo);
    }
    return finish(key, bad);
}

int
keytext_base64(uint8_t key[static KEYTEXT_BYTES], const char *s, size_t len)
{
    unsigned bad = 0, bits = 0, have = 0;
    size_t i, out = 0;

    if (len != KEYTEXT_BASE64_LEN || s[len - 1] != '=') {
        return finish(key, 1);
    }
    for (i = 0; i < KEYTEXT_BASE64_LEN - 1; i++) {
        bits = bits << 6 | base64_value((unsigned char)s[i], &bad);
        have += 6;
        if (have >= 8) {
            have -= 8;
            key[out++] = (uint8_t)(bits >> have);
            bits &= (1u << have) - 1;
        }
    }
    /* 43 characters carry 258 bits: two are left over. */
    return finish(key, bad | bits);
}

int
keytext_prefixed(uint8_t key[static KEYTEXT_BYTES], const char *prefix,
    const char *s, size_t len)
{
    size_t n = strlen(prefix);

    if (len < n || memcmp(s, prefix, n) != 0) {
        return finish(key, 1);
    }
    return keytext_hex(key, s + n, len - n);
}

void
keytext_node(char out[static KEYTEXT_NODE_LEN + 1],
    const uint8_t key[static KEYTEXT_BYTES])
{
    size_t n = (size_t)sprintf(out, "nodekey:"), i;

    for (i = 0; i < KEYTEXT_BYTES; i++)
        n += (size_t)sprintf(out + n, "%02x", key[i]);
}

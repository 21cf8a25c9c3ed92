#include "base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                             "abcdefghijklmnopqrstuvwxyz0123456789+/";

void
base64_encode(char *out, const void *data, size_t len)
{
    const uint8_t *b = data;
    uint32_t v;

    for (; len > 0; len -= len < 3 ? len : 3, b += 3) {
        v = (uint32_t)b[0] << 16 | (len > 1 ? (uint32_t)b[1] << 8 : 0) |
            (len > 2 ? b[2] : 0);
        *out++ = digits[v >> 18];
        *out++ = digits[v >> 12 & 63];
        *out++ = len > 1 ? digits[v >> 6 & 63] : '=';
        *out++ = len > 2 ? digits[v & 63] : '=';
    }
    *out = '\0';
}

static int
value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

int
base64_decode(uint8_t *out, size_t size, const char *s, size_t len, size_t *n)
{
    uint32_t v = 0;
    size_t i, pad = 0;

    *n = 0;
    if (len % 4 != 0)
        return -1;
    if (len > 0)
        pad = (size_t)(s[len - 1] == '=') +
              (size_t)(s[len - 1] == '=' && s[len - 2] == '=');
    if (len / 4 * 3 - pad > size)
        return -1;
    for (i = 0; i < len - pad; i++) {
        int d = value(s[i]);

        if (d < 0)
            return -1;
        v = v << 6 | (uint32_t)d;
        if (i % 4 == 3) {
            out[(*n)++] = (uint8_t)(v >> 16);
            out[(*n)++] = (uint8_t)(v >> 8);
            out[(*n)++] = (uint8_t)v;
            v = 0;
        }
    }
    if (pad == 1) {
        if ((v & 3) != 0)
            return -1;
        out[(*n)++] = (uint8_t)(v >> 10);
        out[(*n)++] = (uint8_t)(v >> 2);
    } else if (pad == 2) {
        if ((v & 15) != 0)
            return -1;
        out[(*n)++] = (uint8_t)(v >> 4);
    }
    return 0;
}

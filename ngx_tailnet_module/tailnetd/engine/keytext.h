/*
 * keytext.h: keys of 32 bytes as text.
 *
 * A prefix and 64 hexadecimal digits ("nodekey:...", as control servers write
 * keys), bare hexadecimal, and the 44 characters of base64 that wg(8) prints.
 * Some of these keys are secret: the decoders' time and memory accesses depend
 * on the length of the text only.
 */
#ifndef KEYTEXT_H
#define KEYTEXT_H

#include <stddef.h>
#include <stdint.h>

#define KEYTEXT_BYTES      32
#define KEYTEXT_HEX_LEN    64
#define KEYTEXT_BASE64_LEN 44
#define KEYTEXT_NODE_LEN   (8 + KEYTEXT_HEX_LEN)

/*
 * keytext_hex(key, s, len): ${key} from exactly 64 hexadecimal digits of either
 * case.  keytext_base64(): from 43 base64 characters and "=", the unused bits
 * zero.  keytext_prefixed(): from ${prefix} and 64 hexadecimal digits.
 * Each returns 0, or -1 and leaves ${key} zeroed.
 */
int keytext_hex(uint8_t key[static KEYTEXT_BYTES], const char *s, size_t len);
int keytext_base64(
    uint8_t key[static KEYTEXT_BYTES], const char *s, size_t len);
int keytext_prefixed(uint8_t key[static KEYTEXT_BYTES], const char *prefix,
    const char *s, size_t len);

/* keytext_node(out, key): "nodekey:..." of the public ${key}, for people. */
void keytext_node(char out[static KEYTEXT_NODE_LEN + 1],
    const uint8_t key[static KEYTEXT_BYTES]);

#endif

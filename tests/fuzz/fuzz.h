/*
 * fuzz.h: what every target shares.
 *
 * A target is a libFuzzer entry point.  It is deterministic: no clock, no
 * randomness, no file but memory files, and nothing stays from one input to the
 * next.  It does not only survive its input but says, with FUZZ_MUST(), what
 * has to be true of the answer.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_MUST(x)                                                        \
    do {                                                                    \
        if (!(x)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x); \
            abort();                                                        \
        }                                                                   \
    } while (0)

/* An input that is eaten from its start; at its end there are only zeros. */
struct fuzz_input {
    const uint8_t *p;
    size_t len;
};

static inline uint8_t
fuzz_u8(struct fuzz_input *in)
{
    if (in->len == 0)
        return 0;
    in->len--;
    return *in->p++;
}

static inline uint16_t
fuzz_u16(struct fuzz_input *in)
{
    uint8_t low = fuzz_u8(in);

    return (uint16_t)(low | fuzz_u8(in) << 8);
}

static inline uint32_t
fuzz_u32(struct fuzz_input *in)
{
    uint32_t low = fuzz_u16(in);

    return low | (uint32_t)fuzz_u16(in) << 16;
}

/* Up to ${n} bytes: borrowed, and how many there are. */
static inline struct fuzz_input
fuzz_bytes(struct fuzz_input *in, size_t n)
{
    struct fuzz_input part = {in->p, n < in->len ? n : in->len};

    if (part.len > 0)
        in->p += part.len;
    in->len -= part.len;
    return part;
}

/* A copy that ends where its memory ends, for free(3), so that one byte too
 * many is seen. */
static inline void *
fuzz_copy(const void *p, size_t len)
{
    void *copy = calloc(1, len > 0 ? len : 1);

    FUZZ_MUST(copy != NULL);
    if (len > 0)
        memcpy(copy, p, len);
    return copy;
}

/* Reads every byte: a view that points nowhere is found out. */
static inline void
fuzz_touch(const void *p, size_t len)
{
    static volatile uint8_t sink;
    const uint8_t *b = p;
    size_t i;

    for (i = 0; i < len; i++)
        sink = (uint8_t)(sink ^ b[i]);
}

#endif

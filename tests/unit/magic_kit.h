/*
 * magic_kit.h: what tests of tailnetd/magic/ share: addresses from text, and
 * values of tests/vectors/magic/, made by another implementation.  One value a
 * line: its name, blanks, hex as the last word.
 */
#ifndef MAGIC_KIT_H
#define MAGIC_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../ngx_tailnet_module/core/tn_addr.h"

static inline struct tn_endpoint
kit_endpoint(const char *text)
{
    struct tn_endpoint e;

    if (tn_endpoint_parse(&e, text, strlen(text)) != 0)
        fail_msg("\"%s\" is no endpoint", text);
    return e;
}

static inline struct tn_addr
kit_addr(const char *text)
{
    struct tn_addr a;

    if (tn_addr_parse(&a, text, strlen(text)) != 0)
        fail_msg("\"%s\" is no address", text);
    return a;
}

static inline void
kit_is(const struct tn_endpoint *e, const char *text)
{
    char have[TN_ENDPOINT_STRLEN];

    tn_endpoint_format(e, have);
    assert_string_equal(have, text);
}

/* Bytes that look random and are the same each time. */
static inline uint32_t
kit_random(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

static inline void
kit_fill(uint32_t *seed, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)kit_random(seed);
}

/* A copy that ends where its memory ends, for free(3). */
static inline uint8_t *
kit_copy(const uint8_t *p, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);

    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, p, len);
    return copy;
}

/* The value ${name} of ${file}: at most ${size} bytes; returns how many. */
static inline size_t
kit_vector(const char *file, const char *name, uint8_t *out, size_t size)
{
    static const char *const dirs[] = {"tests/", "../", "", "../tests/"};
    char line[1024], path[128];
    size_t len = 0, n = strlen(name), i;
    unsigned byte;
    FILE *f = NULL;
    char *hex;

    for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]) && f == NULL; i++) {
        snprintf(path, sizeof(path), "%svectors/magic/%s", dirs[i], file);
        f = fopen(path, "r");
    }
    if (f == NULL)
        fail_msg("%s: not found; run from the top of the tree", file);
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, name, n) != 0 || line[n] != ' ')
            continue;
        line[strcspn(line, "\n")] = '\0';
        hex = strrchr(line, ' ') + 1;
        for (len = 0; hex[2 * len] != '\0'; len++) {
            assert_true(len < size);
            assert_int_equal(sscanf(hex + 2 * len, "%2x", &byte), 1);
            out[len] = (uint8_t)byte;
        }
        break;
    }
    if (f != NULL)
        fclose(f);
    if (len == 0)
        fail_msg("%s: no value \"%s\"", file, name);
    return len;
}

#endif

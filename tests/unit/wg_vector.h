/*
 * wg_vector.h: values of tests/vectors/wireguard/handshake.txt, a full
 * WireGuard handshake with every intermediate, made by another implementation.
 * One value a line: its name, two or more blanks, hex.
 */
#ifndef WG_VECTOR_H
#define WG_VECTOR_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VECTOR_PATH "vectors/wireguard/handshake.txt"

/* From wherever below the tree the test was started. */
static inline FILE *
vector_open(void)
{
    static const char *const dirs[] = {"tests/", "../", "", "../tests/"};

    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        char path[64];
        FILE *f;

        snprintf(path, sizeof(path), "%s%s", dirs[i], VECTOR_PATH);
        f = fopen(path, "r");
        if (f != NULL)
            return f;
    }
    fail_msg("%s: not found; run from the top of the tree", VECTOR_PATH);
    return NULL;
}

/* The value ${name}, which has ${len} bytes, into ${out}. */
static inline void
vector_get(const char *name, uint8_t *out, size_t len)
{
    char line[512], end[2] = {0};
    size_t n = strlen(name);
    FILE *f = vector_open();

    while (fgets(line, sizeof(line), f) != NULL) {
        char *hex = line + n;

        if (strncmp(line, name, n) != 0 || *hex != ' ')
            continue;
        hex += strspn(hex, " ");
        assert_int_equal(strcspn(hex, "\n"), 2 * len);
        for (size_t i = 0; i < len; i++) {
            unsigned byte;

            assert_int_equal(sscanf(hex + 2 * i, "%2x%1s", &byte, end) >= 1, 1);
            out[i] = (uint8_t)byte;
        }
        fclose(f);
        return;
    }
    fclose(f);
    fail_msg("%s: no value \"%s\"", VECTOR_PATH, name);
}

/* ${value} is the vector's ${name}. */
static inline void
vector_check(const char *name, const uint8_t *value, size_t len)
{
    uint8_t want[256];

    assert_true(len <= sizeof(want));
    vector_get(name, want, len);
    if (memcmp(want, value, len) != 0)
        fail_msg("\"%s\" differs", name);
}

#endif

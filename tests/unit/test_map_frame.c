/* links: tailnetd/control/map_frame.c */
/* libs: -lzstd */
/*
 * test_map_frame.c: messages of a map stream: splits, lengths, bombs.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_frame.h"

/* A message of ${n} bytes at ${p} behind its length. */
static size_t
frame(uint8_t *out, const void *p, size_t n)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(n >> 8 * i);
    memcpy(out + 4, p, n);
    return n + 4;
}

static size_t
frame_zstd(uint8_t *out, size_t size, const void *p, size_t n)
{
    size_t len = ZSTD_compress(out + 4, size - 4, p, n, 3);

    assert_false(ZSTD_isError(len));
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(len >> 8 * i);
    return len + 4;
}

/* Feeds all in pieces of ${step}; how many messages there were, or -1. */
static int
feed(struct map_frame *f, const uint8_t *p, size_t len, size_t step,
    const char *const want[])
{
    size_t used, n, tlen;
    const char *text;
    int rc, count = 0;

    while (len > 0) {
        n = len < step ? len : step;
        while (n > 0) {
            rc = map_frame_feed(f, p, n, &used);
            if (rc < 0)
                return -1;
            p += used;
            n -= used;
            len -= used;
            if (rc == 0)
                continue;
            text = map_frame_text(f, &tlen);
            assert_int_equal(tlen, strlen(want[count]));
            assert_memory_equal(text, want[count], tlen);
            count++;
        }
    }
    return count;
}

static void
splits(void **state)
{
    static const char *const want[] = {"{\"a\":1}", "{}", "[1,2,3]"};
    uint8_t plain[256], packed[1024];
    size_t np = 0, nz = 0;
    struct map_frame *f;

    (void)state;
    for (int i = 0; i < 3; i++) {
        np += frame(plain + np, want[i], strlen(want[i]));
        nz += frame_zstd(
            packed + nz, sizeof(packed) - nz, want[i], strlen(want[i]));
    }
    for (size_t step = 1; step <= nz; step++) {
        f = map_frame_new(false);
        assert_int_equal(feed(f, plain, np, step, want), 3);
        map_frame_free(f);
        f = map_frame_new(true);
        assert_int_equal(feed(f, packed, nz, step, want), 3);
        map_frame_free(f);
    }
}

static void
large(void **state)
{
    size_t n = 5u << 20, len, used, at = 0, tlen;
    char *text = malloc(n);
    uint8_t *out = malloc(n + 1024);
    struct map_frame *f = map_frame_new(true);
    int rc = 0;

    (void)state;
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + (i * 2654435761u >> 16) % 26);
    len = frame_zstd(out, n + 1024, text, n);
    while (at < len) {
        rc = map_frame_feed(
            f, out + at, len - at < 16384 ? len - at : 16384, &used);
        assert_true(rc >= 0);
        at += used;
    }
    assert_int_equal(rc, 1);
    assert_memory_equal(map_frame_text(f, &tlen), text, n);
    assert_int_equal(tlen, n);
    map_frame_free(f);
    free(text);
    free(out);
}

/* A few kilobytes that would be more than the limit. */
static void
bomb(void **state)
{
    size_t size = 1u << 20, len = 0, used, n = (size_t)MAP_FRAME_PLAIN_MAX + 1;
    uint8_t *out = malloc(size), *zeros = calloc(1, 1u << 20);
    ZSTD_CCtx *c = ZSTD_createCCtx();
    struct map_frame *f = map_frame_new(true);
    ZSTD_outBuffer o = {out + 4, size - 4, 0};
    int rc = 0;

    (void)state;
    while (n > 0) {
        size_t some = n < (1u << 20) ? n : 1u << 20;
        ZSTD_inBuffer in = {zeros, some, 0};

        n -= some;
        assert_false(ZSTD_isError(ZSTD_compressStream2(
            c, &o, &in, n == 0 ? ZSTD_e_end : ZSTD_e_continue)));
    }
    len = o.pos;
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(len >> 8 * i);
    for (size_t at = 0; at < len + 4 && rc == 0; at += used)
        rc = map_frame_feed(f, out + at, len + 4 - at, &used);
    assert_int_equal(rc, -1);
    assert_non_null(strstr(map_frame_error(f), "MAP_FRAME_PLAIN_MAX"));
    assert_int_equal(map_frame_feed(f, out, 1, &used), -1); /* for good */
    map_frame_free(f);
    ZSTD_freeCCtx(c);
    free(out);
    free(zeros);
}

static void
broken(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        bool zstd;
        const char *says;
    } table[] = {
        {"\0\0\0\0", 4, false, "length 0"},
        {"\0\0\0\0", 4, true, "length 0"},
        {"\1\0\0\4", 4, false, "more than MAP_FRAME_MAX"},
        {"\377\377\377\377", 4, true, "more than MAP_FRAME_MAX"},
        {"\4\0\0\0abcd", 8, true, "no zstd frame"},
        {"\4\0\0\0\050\265\057\375", 8, true, "within its zstd frame"},
        /* zstd 0.5, and a frame to be skipped */
        {"\10\0\0\0\045\265\057\375\0\0\0\0", 12, true, "no zstd frame"},
        {"\10\0\0\0\120\052\115\030\0\0\0\0", 12, true, "no zstd frame"},
        {"\40\0\0\0\050\265\057\374", 8, true, "no zstd frame"},
        /* a window of 2 GB is claimed */
        {"\12\0\0\0\050\265\057\375\000\250\1\0\0\0", 14, true,
            "no zstd frame"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct map_frame *f = map_frame_new(table[i].zstd);

        if (feed(f, (const uint8_t *)table[i].bytes, table[i].len, 3, NULL) !=
                -1 ||
            strstr(map_frame_error(f), table[i].says) == NULL)
            fail_msg("case %zu: %s", i, map_frame_error(f));
        map_frame_free(f);
    }
}

/* Two zstd frames in one message, and bytes behind one. */
static void
behind(void **state)
{
    uint8_t out[256];
    size_t n = frame_zstd(out, sizeof(out), "{}", 2) - 4, used;
    struct map_frame *f = map_frame_new(true);

    (void)state;
    memcpy(out + 4 + n, out + 4, n);
    out[0] = (uint8_t)(2 * n);
    assert_int_equal(map_frame_feed(f, out, 4 + 2 * n, &used), -1);
    assert_non_null(strstr(map_frame_error(f), "behind"));
    map_frame_free(f);
}

static void
any_bytes(void **state)
{
    uint8_t good[512], bytes[512];
    size_t n = frame_zstd(good, sizeof(good), "{\"Node\":{\"ID\":1}}", 17),
           used;
    uint32_t seed = 3;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct map_frame *f = map_frame_new(true);
        size_t at = 0;

        memcpy(bytes, good, n);
        for (int j = 0; j < 2; j++) {
            seed = seed * 1664525 + 1013904223;
            bytes[(seed >> 16) % n] = (uint8_t)(seed >> 8);
        }
        while (at < n && map_frame_feed(f, bytes + at, n - at, &used) >= 0)
            at += used;
        map_frame_free(f);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits),
        cmocka_unit_test(large),
        cmocka_unit_test(bomb),
        cmocka_unit_test(broken),
        cmocka_unit_test(behind),
        cmocka_unit_test(any_bytes),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/crypto/aead.c tailnetd/crypto/ipsecmb.c */
/* libs: -lsodium -lcrypto */

/* Every backend seals what every other opens, and none opens what was changed:
 * lengths around the vector units of all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../ngx_tailnet_module/tailnetd/crypto/aead.h"

static const enum aead_backend backends[] = {
    AEAD_BACKEND_OPENSSL, AEAD_BACKEND_IPSECMB};
#define NBACKENDS (sizeof(backends) / sizeof(backends[0]))

static const size_t lengths[] = {0, 1, 15, 16, 17, 63, 64, 65, 81, 127, 128,
    255, 256, 257, 511, 512, 1023, 1024, 1280, 1281, 1420, 9000, 65519};

static void
fill(uint8_t *p, size_t n, unsigned seed)
{
    size_t i;

    for (i = 0; i < n; i++)
        p[i] = (uint8_t)(seed = seed * 1103515245 + 12345) ^ (uint8_t)(i >> 3);
}

/* An exact buffer, so that a sanitizer sees what is read behind the slack. */
static uint8_t *
buffer(size_t len)
{
    uint8_t *b = malloc(len + AEAD_TAG_LEN + AEAD_SLACK);

    assert_non_null(b);
    memset(b, 0xee, len + AEAD_TAG_LEN + AEAD_SLACK);
    return b;
}

static void
crosswise(enum aead_backend sealer, enum aead_backend opener)
{
    uint8_t key[AEAD_KEY_LEN], *plain, *work;
    struct aead *s, *o;
    size_t i, len;

    fill(key, sizeof(key), 7);
    assert_true(aead_use(sealer));
    s = aead_new(key, AEAD_SEAL);
    assert_true(aead_use(opener));
    o = aead_new(key, AEAD_OPEN);
    assert_non_null(s);
    assert_non_null(o);
    for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        len = lengths[i];
        plain = buffer(len);
        work = buffer(len);
        fill(plain, len, (unsigned)len);
        memcpy(work, plain, len);
        aead_seal(s, 0x0102030405060708 + i, work, len);
        assert_true(
            aead_open(o, 0x0102030405060708 + i, work, len + AEAD_TAG_LEN));
        assert_memory_equal(work, plain, len);

        /* Another counter, a changed tag, a changed byte, a cut. */
        aead_seal(s, 5, work, len);
        assert_false(aead_open(o, 6, work, len + AEAD_TAG_LEN));
        memcpy(work, plain, len);
        aead_seal(s, 5, work, len);
        work[len + 15] ^= 1;
        assert_false(aead_open(o, 5, work, len + AEAD_TAG_LEN));
        if (len > 0) {
            memcpy(work, plain, len);
            aead_seal(s, 5, work, len);
            work[len - 1] ^= 0x80;
            assert_false(aead_open(o, 5, work, len + AEAD_TAG_LEN));
            memcpy(work, plain, len);
            aead_seal(s, 5, work, len);
            assert_false(aead_open(o, 5, work, len - 1 + AEAD_TAG_LEN));
        }
        free(plain);
        free(work);
    }
    assert_false(aead_open(o, 0, key, AEAD_TAG_LEN - 1));
    aead_free(s);
    aead_free(o);
}

static void
all_pairs(void **state)
{
    size_t i, j;

    (void)state;
    for (i = 0; i < NBACKENDS; i++)
        for (j = 0; j < NBACKENDS; j++)
            if (aead_use(backends[i]) && aead_use(backends[j]))
                crosswise(backends[i], backends[j]);
    if (!aead_use(AEAD_BACKEND_IPSECMB))
        print_message("# libipsec-mb: not on this CPU or not built in\n");
}

/* Where it costs nothing to know: what a full packet takes. */
static void
speed(void **state)
{
    struct timespec a, b;
    uint8_t key[AEAD_KEY_LEN] = {1}, *work = buffer(1280);
    struct aead *s;
    size_t i;
    int k;

    (void)state;
    memset(work, 0, 1280);
    for (i = 0; i < NBACKENDS; i++) {
        if (!aead_use(backends[i]))
            continue;
        s = aead_new(key, AEAD_SEAL);
        assert_non_null(s);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        for (k = 0; k < 20000; k++)
            aead_seal(s, (uint64_t)k, work, 1280);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        print_message("# %s: %.0f ns for 1280 bytes\n", aead_backend_name(),
            ((double)(b.tv_sec - a.tv_sec) * 1e9 +
                (double)(b.tv_nsec - a.tv_nsec)) /
                20000);
        aead_free(s);
    }
    free(work);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_pairs),
        cmocka_unit_test(speed),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/control/ts2021.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/aead.c tailnetd/crypto/ipsecmb.c */
/* libs: -lsodium -lcrypto */
/*
 * test_ts2021.c: the channel to a control server, against recorded vectors and
 * against every way a server can be wrong.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/control/ts2021.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/aead.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"

static struct ts2021 t;
static uint8_t init[TS2021_INIT_LEN];
static uint8_t got[65536];
static size_t ngot;

static void
plain(void *arg, const uint8_t *p, size_t len)
{
    (void)arg;
    assert_true(ngot + len <= sizeof(got));
    memcpy(got + ngot, p, len);
    ngot += len;
}

/* The value of a line of a vector file, as bytes. */
static size_t
vector(const char *file, const char *name, uint8_t *out, size_t size)
{
    char path[128], line[1024], *hex;
    size_t n = 0, len = strlen(name);
    FILE *f;

    snprintf(path, sizeof(path), "tests/vectors/noise/%s", file);
    f = fopen(path, "r");
    assert_non_null(f);
    while (n == 0 && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, name, len) != 0)
            continue;
        for (hex = line + len; *hex == ' '; hex++)
            ;
        for (; n < size && sscanf(hex, "%2hhx", &out[n]) == 1; n++)
            hex += 2;
    }
    fclose(f);
    assert_true(n > 0);
    return n;
}

static void
start(const char *file, uint16_t version)
{
    uint8_t machine[32], server[32], ephemeral[32];

    vector(file, "machine priv", machine, 32);
    vector(file, "control pub", server, 32);
    vector(file, "client eph priv", ephemeral, 32);
    ngot = 0;
    assert_int_equal(
        ts2021_start(&t, version, machine, server, ephemeral, init), 0);
}

static const struct {
    const char *file;
    uint16_t version;
} versions[] = {{"v119.txt", 119}, {"v131.txt", 131}};

static void
vectors(void **state)
{
    uint8_t want[256], frame[TS2021_FRAME_MAX];
    size_t n;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const char *file = versions[i].file;

        start(file, versions[i].version);
        assert_int_equal(
            vector(file, "msg1 (init)", want, sizeof(want)), TS2021_INIT_LEN);
        assert_memory_equal(init, want, TS2021_INIT_LEN);
        n = vector(file, "msg2 (resp)", want, sizeof(want));
        assert_int_equal(n, TS2021_RESP_LEN);
        assert_int_equal(ts2021_feed(&t, want, n, plain, NULL), 0);
        assert_int_equal(t.state, TS2021_OPEN);
        vector(file, "k1 (client->server)", want, 32);
        assert_memory_equal(t.tx, want, 32);
        vector(file, "k2 (server->client)", want, 32);
        assert_memory_equal(t.rx, want, 32);

        n = vector(file, "c2s rec0 'client>server'", want, sizeof(want));
        assert_int_equal(ts2021_seal(&t, frame, "client>server", 13), n);
        assert_memory_equal(frame, want, n);
        n = vector(file, "c2s rec1 'again'", want, sizeof(want));
        assert_int_equal(ts2021_seal(&t, frame, "again", 5), n);
        assert_memory_equal(frame, want, n);
        n = vector(file, "s2c rec0 'server>client'", want, sizeof(want));
        assert_int_equal(ts2021_feed(&t, want, n, plain, NULL), 0);
        assert_int_equal(ngot, 13);
        assert_memory_equal(got, "server>client", 13);
        ts2021_wipe(&t);
    }
}

/* Handshake and record in every split. */
static void
splits(void **state)
{
    uint8_t bytes[256];
    size_t n, cut;

    (void)state;
    n = vector("v131.txt", "msg2 (resp)", bytes, sizeof(bytes));
    n += vector(
        "v131.txt", "s2c rec0 'server>client'", bytes + n, sizeof(bytes) - n);
    for (cut = 1; cut < n; cut++) {
        start("v131.txt", 131);
        assert_int_equal(ts2021_feed(&t, bytes, cut, plain, NULL), 0);
        assert_int_equal(ts2021_feed(&t, bytes + cut, n - cut, plain, NULL), 0);
        assert_int_equal(ngot, 13);
    }
    start("v131.txt", 131);
    for (cut = 0; cut < n; cut++)
        assert_int_equal(ts2021_feed(&t, bytes + cut, 1, plain, NULL), 0);
    assert_int_equal(ngot, 13);
}

/* Wrong in one bit of the answer: never open. */
static void
tampered(void **state)
{
    uint8_t bytes[TS2021_RESP_LEN], bad[TS2021_RESP_LEN];

    (void)state;
    vector("v131.txt", "msg2 (resp)", bytes, sizeof(bytes));
    for (size_t i = 0; i < 8 * sizeof(bytes); i++) {
        /* The top bit of an X25519 key counts for the hash alone. */
        memcpy(bad, bytes, sizeof(bad));
        bad[i / 8] ^= (uint8_t)(1u << i % 8);
        start("v131.txt", 131);
        (void)ts2021_feed(&t, bad, sizeof(bad), plain, NULL);
        assert_int_not_equal(t.state, TS2021_OPEN);
    }
    /* A version that the server did not mix in. */
    start("v131.txt", 130);
    assert_int_equal(ts2021_feed(&t, bytes, sizeof(bytes), plain, NULL), -1);
    assert_non_null(strstr(t.error, "not authentic"));
}

static void
refusals(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } table[] = {
        {"\3\0\5no\nok", 8, "refuses the handshake: \"no?ok\""},
        {"\3\xff\xff", 3, "refuses the handshake"},
        {"\2\0\57", 3, "handshake has 47 bytes"},
        {"\4\0\60", 3, "handshake is of type 4"},
        {"HTTP", 4, "handshake is of type 72"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        start("v131.txt", 131);
        assert_int_equal(ts2021_feed(&t, (const uint8_t *)table[i].bytes,
                             table[i].len, plain, NULL),
            -1);
        assert_non_null(strstr(t.error, table[i].says));
        assert_int_equal(t.state, TS2021_FAILED);
        /* and so it stays, without a key */
        assert_int_equal(ts2021_seal(&t, got, "x", 1), 0);
        assert_int_equal(
            ts2021_feed(&t, (const uint8_t *)"\2", 1, plain, NULL), -1);
    }
}

/* ---- records of our own making ---- */

static uint64_t sent;

static size_t
seal(uint8_t *out, const void *data, size_t len)
{
    uint8_t nonce[12] = {0};

    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(sent >> (56 - 8 * i));
    sent++;
    out[0] = 4;
    out[1] = (uint8_t)((len + 16) >> 8);
    out[2] = (uint8_t)(len + 16);
    aead_field_seal(out + 3, t.rx, nonce, NULL, 0, data, len);
    return len + 19;
}

static void
opened(void)
{
    uint8_t bytes[TS2021_RESP_LEN];

    start("v131.txt", 131);
    vector("v131.txt", "msg2 (resp)", bytes, sizeof(bytes));
    assert_int_equal(ts2021_feed(&t, bytes, sizeof(bytes), plain, NULL), 0);
    sent = 0;
}

static int
send_plain(const void *data, size_t len)
{
    uint8_t frame[TS2021_FRAME_MAX];
    size_t n = seal(frame, data, len);

    return ts2021_feed(&t, frame, n, plain, NULL);
}

/* An early payload, in every split over records, is not seen. */
static void
early(void **state)
{
    static const char text[] = "\xff\xff\xffTS\0\0\0\5{\"a\"}HTTP/2 frames";
    size_t len = sizeof(text) - 1, skip = 9 + 5;

    (void)state;
    for (size_t cut = 0; cut < len; cut++) {
        opened();
        assert_int_equal(send_plain(text, cut), 0);
        assert_int_equal(send_plain(text + cut, len - cut), 0);
        assert_int_equal(ngot, len - skip);
        assert_memory_equal(got, text + skip, len - skip);
    }
    opened();
    for (size_t i = 0; i < len; i++)
        assert_int_equal(send_plain(text + i, 1), 0);
    assert_int_equal(ngot, len - skip);
    /* none: the first 9 bytes are HTTP/2's */
    opened();
    assert_int_equal(send_plain("\xff\xff\xffTX\0\0\0\5more", 13), 0);
    assert_int_equal(ngot, 13);
    opened();
    assert_int_equal(send_plain("\xff\xff\xffTS\0\xa0\0\1", 9), -1);
    assert_non_null(strstr(t.error, "TS2021_EARLY_MAX"));
}

static void
records(void **state)
{
    static uint8_t big[TS2021_PLAIN_MAX + 1];
    uint8_t frame[TS2021_FRAME_MAX];
    size_t n;

    (void)state;
    opened();
    assert_int_equal(send_plain(big, TS2021_PLAIN_MAX), 0);
    assert_int_equal(ngot, TS2021_PLAIN_MAX);
    assert_int_equal(send_plain("", 0), 0);
    assert_int_equal(ts2021_seal(&t, frame, big, sizeof(big)), 0);
    assert_int_equal(
        ts2021_seal(&t, frame, big, TS2021_PLAIN_MAX), TS2021_FRAME_MAX);
    n = seal(frame, "abc", 3);
    frame[n - 1] ^= 1;
    assert_int_equal(ts2021_feed(&t, frame, n, plain, NULL), -1);
    assert_non_null(strstr(t.error, "not authentic"));

    opened(); /* out of order */
    sent = 1;
    assert_int_equal(send_plain("abc", 3), -1);
    opened();
    assert_int_equal(
        ts2021_feed(&t, (const uint8_t *)"\4\0\17", 3, plain, NULL), -1);
    assert_non_null(strstr(t.error, "a record of 15 bytes"));
    opened();
    assert_int_equal(
        ts2021_feed(&t, (const uint8_t *)"\4\17\376", 3, plain, NULL), -1);
    opened();
    assert_int_equal(
        ts2021_feed(&t, (const uint8_t *)"\5\0\40", 3, plain, NULL), -1);
    assert_non_null(strstr(t.error, "type 5"));
    opened();
    t.ntx = UINT64_MAX;
    assert_int_equal(ts2021_seal(&t, frame, "x", 1), 0);
    t.nrx = UINT64_MAX;
    assert_int_equal(send_plain("abc", 3), -1);
}

/* A key of low order is no server's. */
static void
bad_server(void **state)
{
    static const uint8_t zero[32];
    uint8_t key[32] = {8};

    (void)state;
    noise_clamp(key);
    assert_int_equal(ts2021_start(&t, 131, key, zero, key, init), -1);
}

static int
setup(void **state)
{
    (void)state;
    return noise_init();
}

static int
teardown(void **state)
{
    (void)state;
    noise_exit();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),
        cmocka_unit_test(splits),
        cmocka_unit_test(tampered),
        cmocka_unit_test(refusals),
        cmocka_unit_test(early),
        cmocka_unit_test(records),
        cmocka_unit_test(bad_server),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, setup, teardown);
}

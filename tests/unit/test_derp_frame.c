/* links: tailnetd/magic/derp_frame.c tailnetd/crypto/box.c core/tn_addr.c */
/* libs: -lsodium */
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/derp_frame.h"

#define VECTORS "derp.txt"

struct bytes {
    uint8_t b[200000];
    size_t len;
};
static struct bytes in;

static void
frame(uint8_t type, const uint8_t *p, size_t len)
{
    in.len += derp_header(in.b + in.len, (enum derp_type)type, len);
    memcpy(in.b + in.len, p, len);
    in.len += len;
}

static void
fill(uint8_t *p, size_t len, uint8_t from)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(from + i);
}

static void
client_info(void **state)
{
    uint8_t priv[32], server[32], pub[32], want[256], shared[32], nonce[24];
    uint8_t out[DERP_INFO_LEN];
    size_t len = kit_vector(VECTORS, "client info frame", want, sizeof(want));

    (void)state;
    fill(priv, 32, 0x10);
    priv[0] &= 248;
    priv[31] = (uint8_t)((priv[31] & 127) | 64);
    kit_vector(VECTORS, "client pub", pub, 32);
    kit_vector(VECTORS, "server pub", server, 32);
    assert_int_equal(box_shared(shared, server, priv), 0);
    fill(nonce, 24, 0xa0);
    assert_int_equal(derp_client_info(out, pub, shared, nonce), len);
    assert_int_equal(len, DERP_INFO_LEN);
    assert_memory_equal(out, want, len);
}

/* The server's key, its info, a packet, what is not known, and so on: whole,
 * and in pieces of every size. */
static void
a_connection(void **state)
{
    uint8_t p[256], shared[32] = {3}, nonce[24] = {4}, info[64];
    const uint8_t *at;
    struct derp_reader r = {0};
    struct derp_frame f;
    size_t n, piece, left, len, got;
    static const enum derp_type want[] = {DERP_SERVER_KEY, DERP_SERVER_INFO,
        DERP_RECV_PACKET, DERP_KEEP_ALIVE, DERP_PING, DERP_PEER_GONE,
        DERP_PEER_GONE, DERP_HEALTH, DERP_RESTARTING};

    (void)state;
    in.len = 0;
    n = kit_vector(VECTORS, "server key frame type 01", p, sizeof(p));
    frame(1, p, n);
    memcpy(info, nonce, 24);
    box_seal(info + 24, shared, nonce, (const uint8_t *)"{\"version\":2}", 13);
    frame(3, info, 24 + 16 + 13);
    n = kit_vector(VECTORS, "recv frame type 05", p, sizeof(p));
    frame(5, p, n);
    frame(0x77, p, 256);
    frame(0x77, p, 0);
    frame(6, p, 0);
    frame(0x12, p, 8);
    n = kit_vector(VECTORS, "unknown dst gives 08", p, sizeof(p));
    frame(8, p, n);
    frame(8, p, 32);
    frame(0x14, (const uint8_t *)"too\nmany", 8);
    frame(0x15, (const uint8_t[]){0, 0, 0x27, 0x10, 0, 0, 0, 5}, 8);

    for (piece = 1; piece <= in.len; piece = piece < 70 ? piece + 1 : in.len) {
        got = 0;
        r.skipped = 0;
        for (left = in.len; left > 0; left -= n) {
            n = left < piece ? left : piece;
            at = in.b + in.len - left;
            len = n;
            while (derp_read(&r, &at, &len, &f) == 1) {
                assert_int_equal(f.type, want[got]);
                if (got == 1) {
                    assert_true(derp_server_info(&f, shared));
                    f.data[30] ^= 1;
                    assert_false(derp_server_info(&f, shared));
                } else if (got == 2) {
                    assert_int_equal(f.len, 4);
                    assert_memory_equal(f.data, "back", 4);
                    assert_int_equal(f.key[0], 0xdc);
                } else if (got == 5 || got == 6) {
                    assert_int_equal(f.key[0], 0x70);
                    assert_int_equal(f.reason,
                        got == 5 ? DERP_GONE_NOT_HERE : DERP_GONE_LEFT);
                } else if (got == 7) {
                    assert_string_equal(f.text, "too?many");
                } else if (got == 8) {
                    assert_int_equal(f.reconnect_in, 10000);
                    assert_int_equal(f.try_for, 5);
                }
                got++;
            }
            assert_int_equal(len, 0);
            assert_null(r.error);
        }
        assert_int_equal(got, 9);
        assert_int_equal(r.skipped, 2);
        if (piece == in.len)
            break;
    }
    derp_reader_free(&r);
}

static void
bounds(void **state)
{
    static const struct {
        uint8_t type;
        size_t len;
        int rc;
    } table[] = {
        {1, 39, -1},
        {1, 4097, -1},
        {3, 39, -1},
        {3, 40, 1},
        {5, 31, -1},
        {5, 32, 1},
        {5, 32 + 65536, 1},
        {5, 32 + 65537, -1},
        {8, 31, -1},
        {0x12, 7, -1},
        {0x12, 8, 1},
        {0x14, 0, 1},
        {0x14, 4096, 1},
        {0x14, 4097, -1},
        {0x15, 7, -1},
        {0x15, 8, 1},
        {0x99, 100000, 0},
    };
    static uint8_t zero[70000];
    struct derp_reader r;
    struct derp_frame f;
    const uint8_t *at;
    size_t i, len;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        memset(&r, 0, sizeof(r));
        in.len = 0;
        frame(table[i].type, zero,
            table[i].len < sizeof(zero) ? table[i].len : sizeof(zero));
        derp_header(in.b, (enum derp_type)table[i].type, table[i].len);
        at = in.b;
        len = in.len;
        assert_int_equal(derp_read(&r, &at, &len, &f), table[i].rc);
        assert_int_equal(r.error != NULL, table[i].rc == -1);
        derp_reader_free(&r);
    }
    /* 1 MiB and a byte, of a type that would be skipped. */
    memset(&r, 0, sizeof(r));
    derp_header(in.b, (enum derp_type)0x99, (1u << 20) + 1);
    at = in.b;
    len = 5;
    assert_int_equal(derp_read(&r, &at, &len, &f), -1);
    derp_reader_free(&r);
    /* A server's key without the magic. */
    memset(&r, 0, sizeof(r));
    in.len = 0;
    frame(1, zero, 40);
    at = in.b;
    len = in.len;
    assert_int_equal(derp_read(&r, &at, &len, &f), -1);
    derp_reader_free(&r);
}

static void
large_frames_leave_no_memory(void **state)
{
    static uint8_t zero[65568];
    struct derp_reader r = {0};
    struct derp_frame f;
    const uint8_t *at = in.b;
    size_t len;

    (void)state;
    in.len = 0;
    frame(5, zero, sizeof(zero));
    frame(5, zero, 100);
    len = in.len;
    assert_int_equal(derp_read(&r, &at, &len, &f), 1);
    assert_true(r.size > 65536);
    assert_int_equal(derp_read(&r, &at, &len, &f), 1);
    assert_true(r.size < 8192);
    derp_reader_free(&r);
}

static void
garbage(void **state)
{
    struct derp_reader r = {0};
    struct derp_frame f;
    uint32_t seed = 3;
    const uint8_t *at;
    uint8_t buf[512], *copy;
    size_t len, i;
    int rc;

    (void)state;
    for (i = 0; i < 20000; i++) {
        len = kit_random(&seed) % sizeof(buf);
        kit_fill(&seed, buf, len);
        if (len > 5 && i % 2 == 0) { /* a length that could be true */
            buf[0] = (uint8_t)(kit_random(&seed) % 0x18);
            buf[1] = buf[2] = 0;
            buf[3] &= 1;
        }
        copy = kit_copy(buf, len);
        at = copy;
        while ((rc = derp_read(&r, &at, &len, &f)) == 1)
            assert_true(strlen(f.text) <= DERP_HEALTH_MAX);
        free(copy);
        if (rc == -1 || i % 16 == 0)
            derp_reader_free(&r);
    }
    derp_reader_free(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(client_info),
        cmocka_unit_test(a_connection),
        cmocka_unit_test(bounds),
        cmocka_unit_test(large_frames_leave_no_memory),
        cmocka_unit_test(garbage),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

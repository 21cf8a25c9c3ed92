/* links: tailnetd/engine/ping.c tailnetd/magic/tsmp.c core/tn_addr.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/engine/ping.h"

static struct tn_addr
addr(const char *text)
{
    struct tn_addr a;

    assert_int_equal(tn_addr_parse(&a, text, strlen(text)), 0);
    return a;
}

static uint16_t
checksum(const uint8_t *p, size_t n, uint32_t s)
{
    size_t i;

    for (i = 0; i + 1 < n; i += 2)
        s += (uint32_t)p[i] << 8 | p[i + 1];
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)s;
}

/* What the other end would answer. */
static void
turn(uint8_t *packet)
{
    uint8_t swap[16];

    if (packet[0] >> 4 == 4) {
        memcpy(swap, packet + 12, 4);
        memcpy(packet + 12, packet + 16, 4);
        memcpy(packet + 16, swap, 4);
        packet[20] = 0;
    } else {
        memcpy(swap, packet + 8, 16);
        memcpy(packet + 8, packet + 24, 16);
        memcpy(packet + 24, swap, 16);
        packet[40] = 129;
    }
}

static void
asks_and_hears(const char *from, const char *to)
{
    struct ping_list l = {.id = 0x1234};
    struct tn_addr a = addr(from), b = addr(to);
    uint8_t packet[PING_PACKET_MAX], other[PING_PACKET_MAX];
    struct ping p;
    size_t len;

    len = ping_make(&l, &a,
        &(struct ping){.query = 7, .to = b, .sent = 1000, .deadline = 3000},
        packet);
    assert_true(len == 36 || len == 56);
    if (len == 36) {
        assert_int_equal(checksum(packet, 20, 0), 0xffff);
        assert_int_equal(checksum(packet + 20, 16, 0), 0xffff);
    } else {
        assert_int_equal(checksum(packet + 8, len - 8, 16 + 58), 0xffff);
    }
    assert_int_equal(ping_deadline(&l), 3000);
    assert_false(ping_match(&l, packet, len, &p)); /* our own request */
    turn(packet);
    memcpy(other, packet, len);
    other[len == 36 ? 12 : 8] ^= 1; /* somebody else's */
    assert_false(ping_match(&l, other, len, &p));
    assert_false(ping_match(&l, packet, len - 1, &p));
    assert_true(ping_match(&l, packet, len, &p));
    assert_int_equal(p.query, 7);
    assert_int_equal(p.sent, 1000);
    assert_false(ping_match(&l, packet, len, &p)); /* once */
    assert_true(ping_deadline(&l) == UINT64_MAX);
}

static void
both_families(void **state)
{
    (void)state;
    asks_and_hears("100.64.0.1", "100.64.0.2");
    asks_and_hears("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2");
}

static void
families_differ(void **state)
{
    struct ping_list l = {.id = 1};
    struct tn_addr a = addr("100.64.0.1"), b = addr("fd7a::2");
    uint8_t packet[PING_PACKET_MAX];

    (void)state;
    assert_int_equal(
        ping_make(&l, &a, &(struct ping){.query = 1, .to = b}, packet), 0);
}

static void
bounded_and_expires(void **state)
{
    struct ping_list l = {.id = 1};
    struct tn_addr a = addr("100.64.0.1"), b = addr("100.64.0.2");
    uint8_t packet[PING_PACKET_MAX];
    struct ping p;
    uint32_t i;

    (void)state;
    for (i = 0; i < PING_PENDING_MAX; i++)
        assert_int_not_equal(
            ping_make(&l, &a,
                &(struct ping){.query = i + 1, .to = b, .deadline = 100 + i},
                packet),
            0);
    assert_int_equal(
        ping_make(&l, &a, &(struct ping){.query = 99, .to = b, .deadline = 500},
            packet),
        0);
    assert_false(ping_expire(&l, 99, &p));
    assert_true(ping_expire(&l, 100, &p));
    assert_int_equal(p.query, 1);
    assert_false(ping_expire(&l, 100, &p));
    assert_int_equal(ping_deadline(&l), 101);
    assert_int_not_equal(
        ping_make(&l, &a, &(struct ping){.query = 99, .to = b, .deadline = 500},
            packet),
        0);
}

/* An answer is known by all of its token, and of its kind alone. */
static void
tokens(void **state)
{
    struct ping_list l = {.id = 0x1234};
    struct ping disco = {.query = 7, .kind = PING_DISCO},
                tsmp = {.query = 8, .kind = PING_TSMP};
    struct tn_addr a = addr("100.64.0.1");
    uint8_t token[PING_TOKEN_LEN], packet[PING_PACKET_MAX];
    struct tsmp t;
    struct ping *p;

    (void)state;
    assert_true(ping_token(&l, &disco, token));
    assert_null(ping_find(&l, PING_TSMP, token));
    for (unsigned i = 0; i < 8; i++) {
        token[i] ^= 1;
        assert_null(ping_find(&l, PING_DISCO, token));
        token[i] ^= 1;
    }
    p = ping_find(&l, PING_DISCO, token);
    assert_non_null(p);
    assert_int_equal(p->query, 7);
    ping_end(p);
    assert_null(ping_find(&l, PING_DISCO, token));

    tsmp.to = addr("100.64.0.2");
    assert_true(tsmp_read(&t, packet, ping_make(&l, &a, &tsmp, packet)));
    assert_int_equal(t.type, TSMP_PING);
    assert_null(ping_find(&l, PING_DISCO, t.data));
    p = ping_find(&l, PING_TSMP, t.data);
    assert_non_null(p);
    assert_int_equal(p->query, 8);
    assert_null(ping_find(&l, PING_DISCO, token)); /* a row used again */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_families),
        cmocka_unit_test(families_differ),
        cmocka_unit_test(bounded_and_expires),
        cmocka_unit_test(tokens),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/data/segment.c tailnetd/data/checksum.c */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include <linux/virtio_net.h>

#include "../../ngx_tailnet_module/tailnetd/data/segment.h"
#include "data_kit.h"

#define GSO_UDP_L4 5
#define OUT_MAX    9000

enum { FIN = 0x01, PSH = 0x08, ACK = 0x10, URG = 0x20, ECE = 0x40, CWR = 0x80 };

static uint8_t payload[KIT_PACKET_MAX];
static uint8_t super[KIT_PACKET_MAX], want[KIT_PACKET_MAX];

static int
setup(void **state)
{
    uint64_t seed = 1;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)kit_draw(&seed, 256);
    return 0;
}

static struct kit_packet
plain(bool is6, bool udp, size_t len)
{
    return (struct kit_packet){.is6 = is6,
        .udp = udp,
        .tos = 0x2e,
        .ttl = 63,
        .df = true,
        .id = 0xfffe,
        .host = 7,
        .sport = 443,
        .dport = 50000,
        .seq = 0xfffffb00,
        .ack = 0x01020304,
        .flags = ACK,
        .window = 511,
        .payload = payload,
        .len = len};
}

/* ${k} as the kernel hands it over: the checksum field has the sum of the
 * pseudo header. */
static size_t
make_super(const struct kit_packet *k, size_t gso, struct virtio_net_hdr *h)
{
    size_t len = kit_build(k, super), l4 = kit_l4(k->is6);

    kit_put16(super + kit_field(k->is6, k->udp),
        kit_pseudo(super, k->is6, k->udp ? 17 : 6, len - l4));
    memset(h, 0, sizeof(*h));
    h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    h->gso_type = k->udp   ? GSO_UDP_L4
                  : k->is6 ? VIRTIO_NET_HDR_GSO_TCPV6
                           : VIRTIO_NET_HDR_GSO_TCPV4;
    h->gso_size = (uint16_t)gso;
    h->csum_start = (uint16_t)l4;
    h->csum_offset = k->udp ? 6 : 16;
    return len;
}

/* What segments have to look like, one after the other. */
struct expected {
    struct kit_packet whole;
    size_t gso;
    unsigned n;
    size_t offset;
    const uint8_t *buf; /* where they are made */
};

static void
check_segment(void *ctx, uint8_t *packet, size_t len)
{
    struct expected *e = ctx;
    struct kit_packet k = e->whole;
    size_t rest = k.len - e->offset;

    k.len = rest < e->gso ? rest : e->gso;
    k.payload += e->offset;
    k.seq += (uint32_t)e->offset;
    k.id = (uint16_t)(k.id + e->n);
    if (e->offset != 0)
        k.flags &= (uint8_t)~CWR;
    if (k.len != rest)
        k.flags &= (uint8_t) ~(FIN | PSH);
    assert_ptr_equal(packet, e->buf);
    assert_int_equal(len, kit_build(&k, want));
    assert_true(kit_valid(packet, len));
    assert_memory_equal(packet, want, len);
    e->offset += k.len;
    e->n++;
}

static void
check_split(const struct kit_packet *k, size_t gso, bool ecn)
{
    size_t header = kit_l4(k->is6) + (k->udp ? 8 : 20 + k->options);
    struct expected e = {.whole = *k, .gso = gso};
    struct virtio_net_hdr h;
    size_t len = make_super(k, gso, &h);
    uint8_t *packet = malloc(len), *buf = malloc(header + gso);
    int n;

    memcpy(packet, super, len);
    if (ecn)
        h.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
    e.buf = buf;
    n = segment_split(&h, packet, len, buf, header + gso, check_segment, &e);
    assert_int_equal(n, (k->len + gso - 1) / gso);
    assert_int_equal(n, e.n);
    assert_int_equal(e.offset, k->len);
    assert_memory_equal(packet, super, len); /* untouched */
    free(packet);
    free(buf);
}

static void
test_split(void **state)
{
    static const struct {
        size_t len, gso;
    } sizes[] = {
        {1, 1},
        {2, 1},
        {1000, 1000},
        {1001, 1000},
        {1999, 1000},
        {2000, 1000},
        {999, 1000}, /* fewer than one: a single packet */
        {64000, 1228},
        {60001, 8948},
    };
    static const size_t options[] = {0, 12, 40};
    static const uint8_t flags[] = {ACK, ACK | PSH, ACK | PSH | FIN,
        ACK | CWR | PSH, ACK | CWR | ECE | FIN, ACK | URG};
    struct kit_packet k;
    size_t i, f, o;
    int kind;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            k = plain(kind & 1, kind & 2, sizes[i].len);
            if (k.udp) {
                check_split(&k, sizes[i].gso, false);
                continue;
            }
            for (f = 0; f < sizeof(flags); f++) {
                for (o = 0; o < 3; o++) {
                    k.flags = flags[f];
                    k.options = options[o];
                    k.option = 1;
                    check_split(&k, sizes[i].gso, k.flags & CWR);
                }
            }
        }
    }
}

/* As long as IP can be. */
static void
test_longest(void **state)
{
    struct kit_packet k;
    int kind;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        k = plain(kind & 1, kind & 2, 0);
        k.len = 65535 - (k.is6 ? 0 : 20) - (k.udp ? 8 : 20);
        check_split(&k, 1220, false);
        check_split(&k, 8900, false);
    }
}

/* IPv4 options come with every segment. */
static void
count_with_options(void *ctx, uint8_t *packet, size_t len)
{
    unsigned *n = ctx;

    assert_true(kit_valid(packet, len));
    assert_int_equal(packet[0], 0x47);
    assert_memory_equal(packet + 20, "\1\1\1\1\1\1\1\1", 8);
    assert_memory_equal(packet + 48, payload + *n * 100, len - 48);
    ++*n;
}

static void
test_ip_options(void **state)
{
    struct kit_packet k = plain(false, false, 250);
    uint8_t p[400], buf[400];
    struct virtio_net_hdr h;
    unsigned n = 0;
    size_t len;

    (void)state;
    len = make_super(&k, 100, &h);
    memcpy(p, super, 20);
    memset(p + 20, 1, 8);
    memcpy(p + 28, super + 20, len - 20);
    p[0] = 0x47;
    h.csum_start = 28;
    assert_int_equal(
        segment_split(&h, p, len + 8, buf, sizeof(buf), count_with_options, &n),
        3);
    assert_int_equal(n, 3);
}

static void
never(void *ctx, uint8_t *packet, size_t len)
{
    (void)ctx;
    (void)packet;
    fail_msg("a segment of %zu bytes was emitted", len);
}

enum { T4 = 1, T6 = 2, U4 = 4, U6 = 8, ALL = 15 };

static void
test_bad_headers(void **state)
{
    /* One byte of the packet, or one field of the virtio-net header. */
    static const struct {
        const char *what;
        unsigned kinds;
        int at, byte;
        int type, gso, start, offset;
    } table[] = {
        {"no gso", ALL, -1, 0, 0, -1, -1, -1},
        {"UFO", ALL, -1, 0, 3, -1, -1, -1},
        {"unknown type", ALL, -1, 0, 9, -1, -1, -1},
        {"ECN alone", ALL, -1, 0, 0x80, -1, -1, -1},
        {"TCPv4 for another", T6 | U4 | U6, -1, 0, 1, -1, -1, -1},
        {"TCPv6 for another", T4 | U4 | U6, -1, 0, 4, -1, -1, -1},
        {"UDP for TCP", T4 | T6, -1, 0, 5, -1, -1, -1},
        {"gso_size 0", ALL, -1, 0, -1, 0, -1, -1},
        {"gso_size past the buffer", ALL, -1, 0, -1, OUT_MAX, -1, -1},
        {"gso_size 65535", ALL, -1, 0, -1, 65535, -1, -1},
        {"csum_start 0", ALL, -1, 0, -1, -1, 0, -1},
        {"csum_start inside IP", T4 | U4, -1, 0, -1, -1, 16, -1},
        {"csum_start inside IP, as IHL says", T4 | U4, 0, 0x44, -1, -1, 16, -1},
        {"csum_start 0, as IHL says", T4 | U4, 0, 0x40, -1, -1, 0, -1},
        {"csum_start inside IPv6", T6 | U6, -1, 0, -1, -1, 20, -1},
        {"csum_start behind", ALL, -1, 0, -1, -1, 44, -1},
        {"csum_start at the end", ALL, -1, 0, -1, -1, 1024, -1},
        {"csum_start 65535", ALL, -1, 0, -1, -1, 65535, -1},
        {"csum_offset of UDP", T4 | T6, -1, 0, -1, -1, -1, 6},
        {"csum_offset of TCP", U4 | U6, -1, 0, -1, -1, -1, 16},
        {"csum_offset 65535", ALL, -1, 0, -1, -1, -1, 65535},
        {"version 0", ALL, 0, 0x05, -1, -1, -1, -1},
        {"version 5", ALL, 0, 0x55, -1, -1, -1, -1},
        {"version of the other", T4 | U4, 0, 0x65, -1, -1, -1, -1},
        {"version of the other", T6 | U6, 0, 0x40, -1, -1, -1, -1},
        {"IHL 4", T4 | U4, 0, 0x44, -1, -1, -1, -1},
        {"IHL 6", T4 | U4, 0, 0x46, -1, -1, -1, -1},
        {"IHL 15", T4 | U4, 0, 0x4f, -1, -1, -1, -1},
        {"protocol", T4 | U4, 9, 1, -1, -1, -1, -1},
        {"UDP in TCP's place", T4, 9, 17, -1, -1, -1, -1},
        {"TCP in UDP's place", U4, 9, 6, -1, -1, -1, -1},
        {"extension header", T6 | U6, 6, 0, -1, -1, -1, -1},
        {"fragment header", T6 | U6, 6, 44, -1, -1, -1, -1},
        {"data offset 0", T4, 32, 0x00, -1, -1, -1, -1},
        {"data offset 4", T4, 32, 0x40, -1, -1, -1, -1},
        {"data offset 4", T6, 52, 0x40, -1, -1, -1, -1},
    };
    static uint8_t buf[OUT_MAX];
    struct virtio_net_hdr h;
    struct kit_packet k;
    size_t i, len;
    int kind, n;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (kind = 0; kind < 4; kind++) {
            if (!(table[i].kinds & 1u << kind))
                continue;
            k = plain(kind & 1, kind & 2, 900);
            len = make_super(&k, 100, &h);
            if (table[i].at >= 0)
                super[table[i].at] = (uint8_t)table[i].byte;
            if (table[i].type >= 0)
                h.gso_type = (uint8_t)table[i].type;
            if (table[i].gso >= 0)
                h.gso_size = (uint16_t)table[i].gso;
            if (table[i].start >= 0)
                h.csum_start = (uint16_t)table[i].start;
            if (table[i].offset >= 0)
                h.csum_offset = (uint16_t)table[i].offset;
            n = segment_split(&h, super, len, buf, sizeof(buf), never, NULL);
            if (n != -1)
                fail_msg("%s (kind %d): %d", table[i].what, kind, n);
        }
    }
}

/* Cut off anywhere in the headers, or right behind them; nothing behind the
 * end is read. */
static void
test_truncated(void **state)
{
    static uint8_t buf[OUT_MAX];
    struct virtio_net_hdr h;
    struct kit_packet k;
    size_t header, len;
    uint8_t *p;
    int kind;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        k = plain(kind & 1, kind & 2, 900);
        k.options = k.udp ? 0 : 20;
        make_super(&k, 100, &h);
        header = kit_l4(k.is6) + (k.udp ? 8 : 40);
        for (len = 0; len <= header; len++) {
            p = malloc(len + (len == 0));
            memcpy(p, super, len);
            assert_int_equal(
                segment_split(&h, p, len, buf, sizeof(buf), never, NULL), -1);
            free(p);
        }
    }
}

/* A buffer one byte too small for the longest segment. */
static void
test_too_small(void **state)
{
    static uint8_t buf[OUT_MAX];
    struct virtio_net_hdr h;
    struct kit_packet k;
    size_t header, len;
    int kind;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        k = plain(kind & 1, kind & 2, 900);
        len = make_super(&k, 100, &h);
        header = kit_l4(k.is6) + (k.udp ? 8 : 20);
        assert_int_equal(
            segment_split(&h, super, len, buf, header + 99, never, NULL), -1);
    }
}

static void
test_finish(void **state)
{
    static const size_t lens[] = {0, 1, 2, 33, 1200, 1201, 64000};
    struct virtio_net_hdr h;
    struct kit_packet k;
    size_t i, len;
    int kind;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
            k = plain(kind & 1, kind & 2, lens[i]);
            kit_build(&k, want);
            len = make_super(&k, 0, &h);
            h.gso_type = VIRTIO_NET_HDR_GSO_NONE;
            assert_int_equal(segment_finish(&h, super, len), 0);
            assert_memory_equal(super, want, len);
        }
    }
}

/* The one UDP payload of two bytes whose checksum is 0, which has to be written
 * as ffff. */
static void
test_finish_udp_zero(void **state)
{
    uint8_t last[2] = {0, 0};
    struct kit_packet k = plain(false, true, 2);
    struct virtio_net_hdr h;
    struct expected e = {.gso = 100};
    uint8_t buf[128];
    size_t len;

    (void)state;
    k.payload = last;
    kit_build(&k, want);
    memcpy(last, want + 26, 2); /* the checksum as data cancels itself out */
    len = make_super(&k, 100, &h);
    assert_int_equal(segment_finish(&h, super, len), 0);
    assert_int_equal(kit_get16(super + 26), 0xffff);
    assert_true(kit_valid(super, len));

    len = make_super(&k, 100, &h);
    e.whole = k;
    e.buf = buf;
    assert_int_equal(
        segment_split(&h, super, len, buf, sizeof(buf), check_segment, &e), 1);
    assert_int_equal(kit_get16(buf + 26), 0xffff);
}

static void
test_finish_bad(void **state)
{
    static const struct {
        uint16_t start, offset;
        int rc;
    } table[] = {
        {99, 0, -1},
        {98, 0, 0},
        {100, 0, -1},
        {101, 0, -1},
        {65535, 0, -1},
        {65535, 65535, -1},
        {0, 99, -1},
        {0, 98, 0},
        {0, 65535, -1},
        {50, 49, -1},
        {50, 48, 0},
    };
    uint8_t *p = malloc(100), old[100];
    struct virtio_net_hdr h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM};
    size_t i;

    (void)state;
    memset(old, 0xa5, sizeof(old));
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        memcpy(p, old, 100);
        h.csum_start = table[i].start;
        h.csum_offset = table[i].offset;
        assert_int_equal(segment_finish(&h, p, 100), table[i].rc);
        if (table[i].rc != 0)
            assert_memory_equal(p, old, 100);
    }
    h.csum_start = h.csum_offset = 0;
    assert_int_equal(segment_finish(&h, p, 0), -1);
    assert_int_equal(segment_finish(&h, p, 1), -1);
    free(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_ip_options),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_finish),
        cmocka_unit_test(test_finish_udp_zero),
        cmocka_unit_test(test_finish_bad),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, setup, NULL);
}

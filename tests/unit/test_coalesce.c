/* links: tailnetd/data/coalesce.c tailnetd/data/segment.c */
/* links: tailnetd/data/checksum.c */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "../../ngx_tailnet_module/tailnetd/data/coalesce.h"
#include "../../ngx_tailnet_module/tailnetd/data/segment.h"
#include "data_kit.h"

#define GSO_UDP_L4 5
#define OUT_MAX    2048 /* packets of one test */

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64 };

/* What came out of coalesce, as the kernel would hand it to a socket. */
static struct {
    unsigned writes, supers; /* of the latter: with more than one packet */
    bool refuse_udp, refuse_all;
    struct out {
        uint8_t *p;
        size_t len;
        uint8_t flags; /* of the virtio-net header */
    } out[OUT_MAX];
    size_t n;
} net;

static struct coalesce *c;
static uint8_t payload[KIT_PACKET_MAX];

static void
take(void *ctx, uint8_t *packet, size_t len)
{
    const struct virtio_net_hdr *h = ctx;
    struct out *o = &net.out[net.n++];

    assert_true(net.n < OUT_MAX);
    o->flags = h->flags;
    o->len = len;
    o->p = malloc(len + 1);
    memcpy(o->p, packet, len);
}

/* One write: the packet as it is, or a super-packet cut again. */
static bool
write_out(void *ctx, const struct iovec *iov, int n)
{
    static uint8_t whole[KIT_PACKET_MAX], buf[KIT_PACKET_MAX];
    struct virtio_net_hdr h;
    size_t len = 0;
    int i, packets;

    assert_ptr_equal(ctx, &net);
    assert_true(n >= 2);
    assert_int_equal(iov[0].iov_len, sizeof(h));
    memcpy(&h, iov[0].iov_base, sizeof(h));
    for (i = 1; i < n; len += iov[i++].iov_len) {
        assert_true(len + iov[i].iov_len <= 65535 + 40);
        memcpy(whole + len, iov[i].iov_base, iov[i].iov_len);
    }
    net.writes++;
    if (h.gso_type == VIRTIO_NET_HDR_GSO_NONE) {
        assert_int_equal(n, 2);
        assert_int_equal(h.gso_size, 0);
        take(&h, whole, len);
        return true;
    }
    assert_true(n >= 4);
    assert_true(n - 2 <= COALESCE_SEGMENTS);
    if (net.refuse_all || (net.refuse_udp && h.gso_type == GSO_UDP_L4))
        return false;
    net.supers++;
    assert_int_equal(h.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    assert_int_equal(h.hdr_len, iov[1].iov_len);
    /* The kernel believes the IP header. */
    if (whole[0] >> 4 == 4) {
        assert_int_equal(kit_get16(whole + 2), len);
        assert_int_equal(kit_sum(0, whole, 20), 0xffff);
    } else {
        assert_int_equal(kit_get16(whole + 4) + 40, len);
    }
    /* ... and the field to hold the pseudo header's sum. */
    assert_int_equal(kit_get16(whole + h.csum_start + h.csum_offset),
        kit_pseudo(whole, whole[0] >> 4 == 6, h.gso_type == GSO_UDP_L4 ? 17 : 6,
            len - h.csum_start));
    packets = segment_split(&h, whole, len, buf, sizeof(buf), take, &h);
    assert_int_equal(packets, n - 2);
    return true;
}

/* Packets that stay where they are until the flush. */
static struct {
    uint8_t *p[OUT_MAX];
    size_t len[OUT_MAX];
    size_t n;
} in;

static int
setup(void **state)
{
    uint64_t seed = 1;
    size_t i;

    (void)state;
    memset(&net, 0, sizeof(net));
    c = calloc(1, sizeof(*c));
    c->write = write_out;
    c->ctx = &net;
    for (i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)kit_draw(&seed, 256);
    return 0;
}

static void
forget(void)
{
    while (net.n > 0)
        free(net.out[--net.n].p);
    net.writes = net.supers = 0;
    c->merged = c->bad_checksum = 0;
}

static int
teardown(void **state)
{
    (void)state;
    forget();
    while (in.n > 0)
        free(in.p[--in.n]);
    free(c);
    return 0;
}

static struct kit_packet
plain(bool is6, bool udp)
{
    return (struct kit_packet){.is6 = is6,
        .udp = udp,
        .tos = 2,
        .ttl = 64,
        .df = true,
        .id = 0xfffd,
        .host = 9,
        .sport = 443,
        .dport = 50001,
        .seq = 0xffffff00,
        .ack = 77,
        .flags = ACK,
        .window = 500,
        .payload = payload,
        .len = 1000};
}

/* The packet that follows ${k} in its flow. */
static struct kit_packet
next(const struct kit_packet *k)
{
    struct kit_packet b = *k;

    b.seq += (uint32_t)k->len;
    b.id++;
    b.payload += 17;
    return b;
}

static uint8_t *
add_bytes(const uint8_t *p, size_t len)
{
    uint8_t *copy = malloc(len + 1);

    assert_true(in.n < OUT_MAX);
    memcpy(copy, p, len);
    in.p[in.n] = copy;
    in.len[in.n++] = len;
    coalesce_add(c, copy, len);
    return copy;
}

static void
add(const struct kit_packet *k)
{
    static uint8_t p[KIT_PACKET_MAX];

    add_bytes(p, kit_build(k, p));
}

/* Flush; what came out is what went in, in order. */
static void
flush_same(void)
{
    size_t i;

    coalesce_flush(c);
    assert_int_equal(net.n, in.n);
    for (i = 0; i < in.n; i++) {
        assert_int_equal(net.out[i].len, in.len[i]);
        assert_memory_equal(net.out[i].p, in.p[i], in.len[i]);
        free(in.p[i]);
    }
    in.n = 0;
}

/* ---- what is merged ---- */

static void
test_merge(void **state)
{
    static const size_t lens[] = {1, 2, 7, 1000, 1460};
    struct kit_packet k;
    unsigned count, i;
    size_t l;
    int kind;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        for (l = 0; l < sizeof(lens) / sizeof(lens[0]); l++) {
            for (count = 1; count <= 44; count++) {
                k = plain(kind & 1, kind & 2);
                k.options = k.udp ? 0 : 12;
                k.len = lens[l];
                for (i = 0; i < count; i++) {
                    add(&k);
                    k = next(&k);
                }
                flush_same();
                assert_int_equal(net.writes, 1);
                assert_int_equal(net.supers, count > 1);
                assert_int_equal(c->merged, count - 1);
                forget();
            }
        }
    }
}

/* A shorter one, or PSH, is the last; both come out again. */
static void
test_ends(void **state)
{
    struct kit_packet k;
    int kind, ending;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        for (ending = 0; ending < 3; ending++) {
            k = plain(kind & 1, kind & 2);
            if (ending == 1 && k.udp)
                continue;
            add(&k);
            k = next(&k);
            add(&k);
            k = next(&k);
            k.len = ending == 0 ? 999 : ending == 2 ? 1001 : k.len;
            k.flags |= ending == 1 ? PSH : 0;
            add(&k);
            k = next(&k);
            k.flags = ACK;
            k.len = ending == 2 ? 1001 : 500;
            add(&k);
            flush_same();
            assert_int_equal(net.writes, 2);
            assert_int_equal(c->merged, 2);
            forget();
        }
    }
    /* PSH in the first one. */
    k = plain(false, false);
    k.flags |= PSH;
    add(&k);
    k = next(&k);
    k.flags = ACK;
    add(&k);
    flush_same();
    assert_int_equal(net.writes, 2);
}

/* A single packet is not summed up again by the kernel; one that was not
 * looked at is. */
static void
test_verified_flag(void **state)
{
    struct kit_packet k = plain(false, false);

    (void)state;
    add(&k);
    k.flags = SYN;
    add(&k);
    flush_same();
    assert_int_equal(net.out[0].flags, VIRTIO_NET_HDR_F_DATA_VALID);
    assert_int_equal(net.out[1].flags, 0);
}

/* ---- limits ---- */

static void
test_64_segments(void **state)
{
    struct kit_packet k;
    int kind, i;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        k = plain(kind & 1, kind & 2);
        k.len = 100;
        for (i = 0; i < 128; i++) {
            add(&k);
            k = next(&k);
        }
        flush_same();
        assert_int_equal(net.writes, 2);
        assert_int_equal(c->merged, 63 + 63);
        forget();
    }
}

/* The length field of the IP header ends what is merged. */
static void
test_64_kilobytes(void **state)
{
    static const struct {
        size_t len;
        int fit; /* of that many bytes into one, TCP over IPv4 */
    } table[] = {
        {65535 - 40, 1},
        {32747, 2},
        {32748, 1},
        {1365, 47},
        {1364, 48},
        {1092, 59},
    };
    struct kit_packet k = plain(false, false);
    size_t t;
    int i;

    (void)state;
    for (t = 0; t < sizeof(table) / sizeof(table[0]); t++) {
        k = plain(false, false);
        k.len = table[t].len;
        for (i = 0; i <= table[t].fit; i++) {
            add(&k);
            k = next(&k);
            k.payload = payload;
        }
        flush_same();
        assert_int_equal(net.writes, 2);
        assert_int_equal(c->merged, table[t].fit - 1);
        forget();
    }
    /* To the last byte. */
    for (i = 0; i < 2; i++) {
        k = plain(false, false);
        k.len = 32748;
        add(&k);
        k = next(&k);
        k.len = 32747 + (size_t)i;
        add(&k);
        flush_same();
        assert_int_equal(net.writes, 1 + i);
        forget();
    }
}

/* More flows than there are places: the oldest makes room. */
static void
test_flows(void **state)
{
    struct kit_packet k[COALESCE_FLOWS + 1];
    int i, round;

    (void)state;
    for (i = 0; i <= COALESCE_FLOWS; i++) {
        k[i] = plain(i & 1, i & 2);
        k[i].sport = (uint16_t)(1000 + i);
    }
    for (round = 0; round < 3; round++) {
        for (i = 0; i < COALESCE_FLOWS; i++) {
            add(&k[i]);
            k[i] = next(&k[i]);
        }
    }
    assert_int_equal(net.writes, 0);
    add(&k[COALESCE_FLOWS]);
    assert_int_equal(net.writes, 1);
    assert_int_equal(net.n, 3);
    assert_memory_equal(net.out[0].p, in.p[0], in.len[0]);
    coalesce_flush(c);
    assert_int_equal(net.writes, COALESCE_FLOWS + 1);
    assert_int_equal(net.n, 3 * COALESCE_FLOWS + 1);
    while (in.n > 0)
        free(in.p[--in.n]);
}

/* ---- what is not merged ---- */

enum { T4 = 1, T6 = 2, U4 = 4, U6 = 8, TCP = 3, UDP = 12, V4 = 5, ALL = 15 };

static void
tos(struct kit_packet *k)
{
    k->tos ^= 4;
}
static void
ce(struct kit_packet *k)
{
    k->tos ^= 1;
}
static void
ttl(struct kit_packet *k)
{
    k->ttl--;
}
static void
df(struct kit_packet *k)
{
    k->df = false;
}
static void
ack(struct kit_packet *k)
{
    k->ack++;
}
static void
window(struct kit_packet *k)
{
    k->window++;
}
static void
urgent(struct kit_packet *k)
{
    k->urgent++;
}
static void
option(struct kit_packet *k)
{
    k->option++;
}
static void
less_options(struct kit_packet *k)
{
    k->options -= 4;
}
static void
no_options(struct kit_packet *k)
{
    k->options = 0;
}
static void
gap(struct kit_packet *k)
{
    k->seq++;
}
static void
overlap(struct kit_packet *k)
{
    k->seq--;
}
static void
again(struct kit_packet *k)
{
    k->seq -= (uint32_t)k->len;
}
static void
far(struct kit_packet *k)
{
    k->seq ^= 1u << 31;
}
static void
empty(struct kit_packet *k)
{
    k->len = 0;
}
static void
longer(struct kit_packet *k)
{
    k->len++;
}
static void
sport(struct kit_packet *k)
{
    k->sport++;
}
static void
dport(struct kit_packet *k)
{
    k->dport++;
}
static void
host(struct kit_packet *k)
{
    k->host++;
}
static void
fin(struct kit_packet *k)
{
    k->flags |= FIN;
}
static void
syn(struct kit_packet *k)
{
    k->flags |= SYN;
}
static void
rst(struct kit_packet *k)
{
    k->flags |= RST;
}
static void
urg(struct kit_packet *k)
{
    k->flags |= URG;
}
static void
ece(struct kit_packet *k)
{
    k->flags |= ECE;
}
static void
cwr(struct kit_packet *k)
{
    k->flags |= 128;
}
static void
no_ack(struct kit_packet *k)
{
    k->flags = PSH;
}

static void
test_differs(void **state)
{
    static const struct {
        const char *what;
        unsigned kinds;
        void (*change)(struct kit_packet *k);
    } table[] = {
        {"TOS", ALL, tos},
        {"congestion experienced", ALL, ce},
        {"TTL", ALL, ttl},
        {"don't fragment", V4, df},
        {"acknowledgement", TCP, ack},
        {"window", TCP, window},
        {"urgent pointer", TCP, urgent},
        {"option bytes", TCP, option},
        {"fewer options", TCP, less_options},
        {"no options", TCP, no_options},
        {"a gap", TCP, gap},
        {"an overlap", TCP, overlap},
        {"a repetition", TCP, again},
        {"far away", TCP, far},
        {"no payload", ALL, empty},
        {"longer", ALL, longer},
        {"source port", ALL, sport},
        {"destination port", ALL, dport},
        {"source address", ALL, host},
        {"FIN", TCP, fin},
        {"SYN", TCP, syn},
        {"RST", TCP, rst},
        {"URG", TCP, urg},
        {"ECE", TCP, ece},
        {"CWR", TCP, cwr},
        {"no ACK", TCP, no_ack},
    };
    struct kit_packet a, b;
    size_t i;
    int kind, first;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (kind = 0; kind < 8; kind++) {
            first = kind & 4; /* the odd one comes first */
            if (!(table[i].kinds & 1u << (kind & 3)))
                continue;
            a = plain(kind & 1, kind & 2);
            a.options = a.udp ? 0 : 12;
            a.option = 1;
            b = next(&a);
            table[i].change(first ? &a : &b);
            if (first && a.len > b.len)
                continue; /* a shorter one may follow */
            add(&a);
            add(&b);
            flush_same();
            if (net.writes != 2 || c->merged != 0)
                fail_msg("%s (kind %d): merged", table[i].what, kind);
            forget();
        }
    }
}

/* Bytes that no kit_packet has: each is changed in the second of two, or in
 * both when it rules out a merge by itself. */
static void
test_odd_bytes(void **state)
{
    static const struct {
        const char *what;
        unsigned kinds;
        size_t at;
        uint8_t flip;
        bool finish; /* the checksums are right for what is there */
        bool bad;    /* it counts as a bad checksum */
        bool both;
    } table[] = {
        {"more fragments", V4, 6, 0x20, true, false, true},
        {"fragment offset", V4, 7, 1, true, false, true},
        {"high fragment offset", V4, 6, 1, true, false, true},
        {"reserved IP flag", V4, 6, 0x80, true, false, true},
        {"IHL", V4, 0, 3, false, false, true},
        {"version", ALL, 0, 0x10, false, false, true},
        {"total length, less", V4, 3, 1, true, false, true},
        {"total length, more", V4, 2, 1, true, false, true},
        {"payload length", T6 | U6, 5, 1, true, false, true},
        {"protocol", V4, 9, 0x80, true, false, true},
        {"next header", T6 | U6, 6, 0x80, true, false, true},
        {"flow label", T6 | U6, 3, 1, true, false, false},
        {"traffic class", T6 | U6, 1, 0x10, true, false, false},
        {"UDP length", U4, 25, 1, false, false, true},
        {"UDP length", U6, 45, 1, false, false, true},
        {"data offset 4", T4, 32, 0x10, true, false, true},
        {"data offset 4", T6, 52, 0x10, true, false, true},
        {"data offset 13", T4, 32, 0x80, true, false, false},
        {"reserved TCP bit", T4, 32, 1, true, false, false},
        {"reserved TCP bit", T6, 52, 8, true, false, false},
        {"damaged TCP payload", T4, 100, 1, false, true, true},
        {"damaged TCP payload", T6, 100, 1, false, true, true},
        {"damaged UDP payload", U4, 100, 1, false, true, true},
        {"damaged UDP payload", U6, 100, 1, false, true, true},
        {"damaged TCP checksum", T4, 36, 1, false, true, true},
        {"damaged UDP checksum", U6, 46, 1, false, true, true},
        {"damaged IP checksum", V4, 10, 1, false, true, true},
        {"damaged identification", V4, 4, 1, false, true, true},
    };
    static uint8_t p[KIT_PACKET_MAX];
    struct kit_packet k;
    size_t i, len;
    int kind, which;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (kind = 0; kind < 8; kind++) {
            if (!(table[i].kinds & 1u << (kind & 3)) ||
                (kind & 4 && !table[i].both))
                continue;
            k = plain(kind & 1, kind & 2);
            for (which = 0; which < 2; which++) {
                len = kit_build(&k, p);
                if (which == 1 || kind & 4)
                    p[table[i].at] ^= table[i].flip;
                if (table[i].finish)
                    kit_finish(p, len, k.is6, k.udp);
                add_bytes(p, len);
                k = next(&k);
            }
            flush_same();
            if (net.writes != 2 || c->merged != 0)
                fail_msg("%s (kind %d): merged", table[i].what, kind);
            assert_int_equal(
                c->bad_checksum, table[i].bad * (kind & 4 ? 2 : 1));
            /* The kernel judges what is odd by itself. */
            if (table[i].both)
                assert_int_equal(net.out[1].flags, 0);
            forget();
        }
    }
}

/* A damaged one in the middle stays in its place. */
static void
test_damage_keeps_order(void **state)
{
    struct kit_packet k;
    static uint8_t p[KIT_PACKET_MAX];
    size_t len;
    int kind, i;

    (void)state;
    for (kind = 0; kind < 4; kind++) {
        k = plain(kind & 1, kind & 2);
        for (i = 0; i < 6; i++) {
            len = kit_build(&k, p);
            p[len - 1] ^= i == 3;
            add_bytes(p, len);
            k = next(&k);
        }
        flush_same();
        assert_int_equal(net.writes, 3);
        assert_int_equal(c->merged, 3);
        assert_int_equal(c->bad_checksum, 1);
        forget();
    }
}

/* UDP without a checksum, and what is no TCP or UDP at all, passes as it is,
 * behind what was held. */
static void
test_strangers(void **state)
{
    static const struct {
        char bytes[10];
        size_t len;
    } table[] = {
        {"", 0},
        {"\x45", 1},
        {"\x60", 1},
        {"\x45\0\0\x13", 19},
        {"\x45\0\0\x14\0\0\0\0\x40\6", 20},
        {"\x45\0\0\x1c\0\0\0\0\x40\1", 28},
        {"\x60\0\0\0\0\0\6\x40", 40},
        {"\x60\0\0\0\0\10\x3a\x40", 48},
        {"\x60\0\0\0\0\10\6\x40", 48},
        {"\xff\xff\xff\xff", 200},
    };
    struct kit_packet k = plain(false, true);
    static uint8_t p[KIT_PACKET_MAX];
    size_t i, len;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        add(&k);
        memset(p, 0, sizeof(p));
        memcpy(p, table[i].bytes, sizeof(table[i].bytes));
        add_bytes(p, table[i].len);
        flush_same();
        assert_int_equal(net.writes, 2);
        forget();
    }
    /* TCP options that end behind the packet. */
    k = plain(false, false);
    k.len = 3;
    add(&k);
    k = next(&k);
    len = kit_build(&k, p);
    p[32] = 0xf0;
    kit_finish(p, len, false, false);
    add_bytes(p, len);
    flush_same();
    assert_int_equal(net.writes, 2);
    forget();
    for (i = 0; i < 2; i++) {
        k = plain(i != 0, true);
        add(&k);
        k = next(&k);
        len = kit_build(&k, p);
        kit_put16(p + kit_field(k.is6, true), 0);
        add_bytes(p, len);
        flush_same();
        assert_int_equal(net.writes, 2);
        assert_int_equal(c->bad_checksum, 0);
        forget();
    }
}

/* ---- a kernel that does not take super-packets ---- */

static void
test_refused_udp(void **state)
{
    struct kit_packet u = plain(true, true), t = plain(false, false);
    int i;

    (void)state;
    net.refuse_udp = true;
    for (i = 0; i < 5; i++) {
        add(&u);
        u = next(&u);
    }
    flush_same();
    assert_int_equal(net.writes, 6); /* tried once */
    assert_true(c->no_udp);
    assert_int_equal(c->merged, 0);
    forget();
    for (i = 0; i < 5; i++) {
        add(&u);
        u = next(&u);
    }
    flush_same();
    assert_int_equal(net.writes, 5);
    forget();
    for (i = 0; i < 5; i++) {
        add(&t);
        t = next(&t);
    }
    flush_same();
    assert_int_equal(net.writes, 1); /* TCP as before */
    assert_int_equal(c->merged, 4);
}

static void
test_refused_tcp(void **state)
{
    struct kit_packet t = plain(false, false);
    int i;

    (void)state;
    net.refuse_all = true;
    for (i = 0; i < 5; i++) {
        add(&t);
        t = next(&t);
    }
    flush_same();
    assert_int_equal(net.writes, 6);
    assert_false(c->no_udp);
    net.refuse_all = false;
    forget();
    for (i = 0; i < 5; i++) {
        add(&t);
        t = next(&t);
    }
    flush_same();
    assert_int_equal(net.writes, 1);
}

/* ---- anything ---- */

#define FLOWS 12

/* What was sent in a flow and has not come out. */
static struct {
    struct kit_packet k;
    size_t queue[OUT_MAX];
    size_t head, tail;
} flows[FLOWS];

static void
send_one(uint64_t *seed, unsigned f)
{
    static uint8_t p[KIT_PACKET_MAX];
    struct kit_packet k = flows[f].k;
    size_t len;

    k.payload = payload + kit_draw(seed, 1000);
    if (kit_draw(seed, 6) == 0)
        k.len = 1 + kit_draw(seed, (uint32_t)k.len);
    if (!k.udp) {
        switch (kit_draw(seed, 24)) {
        case 0:
            k.flags |= PSH;
            break;
        case 1:
            k.flags |= (uint8_t)(1u << kit_draw(seed, 8));
            break;
        case 2:
            k.ack++;
            break;
        case 3:
            k.len = 0;
            break;
        case 4:
            k.seq -= kit_draw(seed, 2000);
            break;
        case 5:
            k.options = 4 * kit_draw(seed, 11);
            break;
        }
    }
    if (kit_draw(seed, 40) == 0)
        k.tos = (uint8_t)kit_draw(seed, 256);
    len = kit_build(&k, p);
    if (kit_draw(seed, 40) == 0)
        p[len - 1] ^= 0x5a; /* damage */
    flows[f].queue[flows[f].tail++] = in.n;
    add_bytes(p, len);
    flows[f].k.seq = k.seq + (uint32_t)k.len;
    flows[f].k.ack = k.ack;
    flows[f].k.id++;
}

/* Every packet that came out is the next of its flow, byte for byte. */
static void
check_out(void)
{
    const struct out *o;
    size_t i, at;
    unsigned f;

    coalesce_flush(c);
    assert_int_equal(net.n, in.n);
    for (i = 0; i < net.n; i++) {
        o = &net.out[i];
        f = (unsigned)kit_get16(o->p + (o->p[0] >> 4 == 6 ? 40 : 20)) - 1000;
        assert_true(f < FLOWS && flows[f].head < flows[f].tail);
        at = flows[f].queue[flows[f].head++];
        assert_int_equal(o->len, in.len[at]);
        assert_memory_equal(o->p, in.p[at], o->len);
    }
    while (in.n > 0)
        free(in.p[--in.n]);
    for (f = 0; f < FLOWS; f++)
        flows[f].head = flows[f].tail = 0;
}

static void
test_random(void **state)
{
    uint64_t seed = 42, merged = 0, packets = 0;
    unsigned f, nflows, round, burst;

    (void)state;
    for (round = 0; round < 300; round++) {
        nflows = 1 + kit_draw(&seed, FLOWS);
        c->no_udp = false;
        net.refuse_udp = kit_draw(&seed, 4) == 0;
        for (f = 0; f < FLOWS; f++) {
            flows[f].k = plain(kit_draw(&seed, 2), kit_draw(&seed, 3) == 0);
            flows[f].k.sport = (uint16_t)(1000 + f);
            flows[f].k.seq = kit_draw(&seed, UINT32_MAX);
            flows[f].k.id = (uint16_t)kit_draw(&seed, 65536);
            flows[f].k.len = 1 + kit_draw(&seed, 1400);
        }
        while (in.n < 300) {
            f = kit_draw(&seed, nflows);
            for (burst = kit_draw(&seed, 20); burst > 0; burst--)
                send_one(&seed, f);
            if (kit_draw(&seed, 30) == 0)
                coalesce_flush(c);
        }
        packets += in.n;
        merged += c->merged;
        check_out();
        forget();
    }
    assert_true(merged * 3 > packets); /* it was worth it */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_merge, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verified_flag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_64_segments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_64_kilobytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_differs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_damage_keeps_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strangers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_udp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

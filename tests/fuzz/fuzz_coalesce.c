/* links: tailnetd/data/coalesce.c tailnetd/data/segment.c */
/* links: tailnetd/data/checksum.c */
/* max_len: 512 */
/*
 * A story of packets of a few flows, damaged here and there.  What is written,
 * cut by segment_split() as the kernel would, is what was added: byte for byte
 * (but for the identification of merged IPv4 packets, which is counted up), in
 * order within each flow.
 */
#include "../../ngx_tailnet_module/tailnetd/data/coalesce.h"
#include "../../ngx_tailnet_module/tailnetd/data/segment.h"
#include "../unit/data_kit.h"
#include "fuzz.h"

#define PACKETS 80
#define PAYLOAD 4096

static struct {
    uint8_t *p;
    size_t len;
    bool out;
} packets[PACKETS];
static size_t npackets;
static uint8_t payload[PAYLOAD + 16];
static bool refuse;

/* What makes a flow, if it is one: addresses, protocol and ports. */
static size_t
flow_of(const uint8_t *p, size_t len, uint8_t key[40])
{
    bool is6 = len > 0 && p[0] >> 4 == 6;
    size_t addrs = is6 ? 8 : 12, n = is6 ? 36 : 12;

    if (len < addrs + n) {
        memset(key, 0, 40);
        memcpy(key, p, len < 40 ? len : 40);
        return 0;
    }
    memcpy(key, p + addrs, n);
    key[n] = p[is6 ? 6 : 9];
    return n + 1;
}

/* Without what the kernel counts up in a merged packet. */
static bool
same(const uint8_t *a, const uint8_t *b, size_t len, bool merged)
{
    if (!merged || a[0] >> 4 != 4)
        return memcmp(a, b, len) == 0;
    return memcmp(a, b, 4) == 0 && memcmp(a + 6, b + 6, 4) == 0 &&
           memcmp(a + 12, b + 12, len - 12) == 0;
}

struct cut {
    bool merged;
};

static void
take(void *ctx, uint8_t *packet, size_t len)
{
    const struct cut *c = ctx;
    uint8_t key[40], other[40];
    size_t i, n = flow_of(packet, len, key);

    FUZZ_MUST(!c->merged || kit_valid(packet, len));
    for (i = 0; i < npackets; i++) {
        if (packets[i].out ||
            flow_of(packets[i].p, packets[i].len, other) != n ||
            memcmp(key, other, n) != 0)
            continue;
        FUZZ_MUST(packets[i].len == len);
        FUZZ_MUST(same(packets[i].p, packet, len, c->merged));
        packets[i].out = true;
        return;
    }
    FUZZ_MUST(!"a packet that was never added");
}

static bool
write_out(void *ctx, const struct iovec *iov, int n)
{
    static uint8_t whole[KIT_PACKET_MAX], buf[KIT_PACKET_MAX];
    struct cut c = {.merged = n > 2};
    struct virtio_net_hdr h;
    size_t len = 0;
    int i;

    (void)ctx;
    FUZZ_MUST(n >= 2 && n <= COALESCE_SEGMENTS + 2);
    FUZZ_MUST(iov[0].iov_len == sizeof(h));
    memcpy(&h, iov[0].iov_base, sizeof(h));
    for (i = 1; i < n; len += iov[i++].iov_len) {
        FUZZ_MUST(len + iov[i].iov_len <= 65535 + 40);
        memcpy(whole + len, iov[i].iov_base, iov[i].iov_len);
    }
    if (n == 2) {
        FUZZ_MUST(h.gso_type == VIRTIO_NET_HDR_GSO_NONE);
        FUZZ_MUST(
            !(h.flags & VIRTIO_NET_HDR_F_DATA_VALID) || kit_valid(whole, len));
        take(&c, whole, len);
        return true;
    }
    if (refuse)
        return false;
    FUZZ_MUST(h.hdr_len == iov[1].iov_len);
    FUZZ_MUST(
        segment_split(&h, whole, len, buf, sizeof(buf), take, &c) == n - 2);
    return true;
}

/* One more packet, of a flow that goes on. */
static void
add(struct coalesce *c, struct kit_packet *flow, struct fuzz_input *in)
{
    static uint8_t p[KIT_PACKET_MAX];
    struct kit_packet k = *flow;
    uint8_t what = fuzz_u8(in), finish;
    size_t len, at;

    switch (what & 15) {
    case 1:
        k.len = fuzz_u16(in) % PAYLOAD;
        break;
    case 2:
        k.flags = fuzz_u8(in);
        break;
    case 3:
        k.seq = fuzz_u32(in);
        break;
    case 4:
        k.ack = fuzz_u8(in);
        break;
    case 5:
        k.options = (fuzz_u8(in) & 15) % 11 * 4;
        break;
    case 6:
        k.tos = fuzz_u8(in);
        break;
    case 7:
        k.id = fuzz_u16(in);
        break;
    case 8:
        k.df = !k.df;
        break;
    case 9:
        k.window = fuzz_u8(in);
        break;
    }
    len = kit_build(&k, p);
    flow->seq = k.seq + (uint32_t)k.len;
    flow->id++;
    for (what >>= 6; what > 0; what--) {
        finish = fuzz_u8(in);
        at = fuzz_u16(in) % len;
        p[finish & 2 ? at : at % 60 % len] ^= fuzz_u8(in);
        if ((finish & 1) && len >= 60)
            kit_finish(p, len, k.is6, k.udp);
        if (finish & 4)
            len = 1 + fuzz_u16(in) % len;
    }
    if (npackets == PACKETS)
        return;
    packets[npackets].p = fuzz_copy(p, len);
    packets[npackets].len = len;
    packets[npackets].out = false;
    npackets++;
    coalesce_add(c, packets[npackets - 1].p, len);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static struct coalesce c;
    struct kit_packet flows[10];
    unsigned i, n;

    memset(&c, 0, sizeof(c));
    c.write = write_out;
    npackets = 0;
    refuse = fuzz_u8(&in) & 1;
    for (i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)(i * 131 >> 3);
    for (i = 0; i < 10; i++) {
        flows[i] = (struct kit_packet){.is6 = i & 1,
            .udp = i & 2,
            .ttl = 64,
            .df = true,
            .host = (uint8_t)i,
            .sport = 1,
            .dport = 2,
            .seq = UINT32_MAX - 3000,
            .flags = 0x10,
            .payload = payload + i,
            .len = 20 + 60 * i};
    }
    while (in.len > 0 && npackets < PACKETS) {
        n = fuzz_u8(&in);
        if (n == 255)
            coalesce_flush(&c);
        for (i = 0; i <= n / 10 % 8; i++)
            add(&c, &flows[n % 10], &in);
    }
    coalesce_flush(&c);
    for (i = 0; i < npackets; i++) {
        FUZZ_MUST(packets[i].out);
        free(packets[i].p);
    }
    return 0;
}

/* links: tailnetd/data/segment.c tailnetd/data/checksum.c */
/* max_len: 8192 */
/*
 * A virtio-net header and a packet of any bytes, or one whose headers are made
 * to fit.  Whatever is emitted is a valid packet, and all segments together
 * are the payload.
 */
#include <linux/virtio_net.h>

#include "../../ngx_tailnet_module/tailnetd/data/segment.h"
#include "../unit/data_kit.h"
#include "fuzz.h"

#define ROOM_MAX 9216

struct seen {
    const uint8_t *payload;
    size_t len, header, gso;
    bool last;
};

static void
check(void *ctx, uint8_t *packet, size_t len)
{
    struct seen *s = ctx;
    size_t n = len - s->header;

    FUZZ_MUST(!s->last && len > s->header && n <= s->gso && n <= s->len);
    FUZZ_MUST(kit_valid(packet, len));
    FUZZ_MUST(memcmp(packet + s->header, s->payload, n) == 0);
    s->payload += n;
    s->len -= n;
    s->last = n < s->gso;
}

/* Length of all headers, as far as the bytes say. */
static size_t
header_len(const struct virtio_net_hdr *h, const uint8_t *p, size_t len)
{
    if (h->csum_offset == 6)
        return h->csum_start + 8u;
    if (h->csum_start + 12u >= len)
        return len;
    return h->csum_start + (size_t)(p[h->csum_start + 12] >> 4) * 4;
}

/* Makes it likely that the headers fit: otherwise few inputs come far. */
static void
mend(struct virtio_net_hdr *h, uint8_t *p, size_t len, unsigned how)
{
    bool is6 = how & 2, udp = how & 4;

    if (len < 60)
        return;
    p[0] = is6 ? 0x60 : 0x45;
    p[is6 ? 6 : 9] = udp ? 17 : 6;
    h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    h->gso_type = udp ? 5 : is6 ? 4 : 1;
    h->csum_start = is6 ? 40 : 20;
    h->csum_offset = udp ? 6 : 16;
    if (how & 8)
        h->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct virtio_net_hdr h;
    struct seen s;
    uint8_t *packet, *whole, *buf, how = fuzz_u8(&in);
    size_t room = 1u + fuzz_u16(&in) % ROOM_MAX, len, wanted;
    int n;

    memset(&h, 0, sizeof(h));
    h.flags = fuzz_u8(&in);
    h.gso_type = fuzz_u8(&in);
    h.hdr_len = fuzz_u16(&in);
    h.gso_size = fuzz_u16(&in);
    h.csum_start = fuzz_u16(&in);
    h.csum_offset = fuzz_u16(&in);
    buf = malloc(room); /* no byte behind it */
    FUZZ_MUST(buf != NULL);
    len = in.len;
    packet = fuzz_copy(in.p, len);
    if (how & 1)
        mend(&h, packet, len, how);
    whole = fuzz_copy(packet, len);

    s.header = header_len(&h, whole, len);
    s.payload = whole + s.header;
    s.len = s.header < len ? len - s.header : 0;
    s.gso = h.gso_size;
    s.last = false;
    wanted = s.gso > 0 ? (s.len + s.gso - 1) / s.gso : 0;
    n = segment_split(&h, packet, len, buf, room, check, &s);
    FUZZ_MUST(memcmp(packet, whole, len) == 0);
    if (n >= 0)
        FUZZ_MUST(n > 0 && (size_t)n == wanted && s.len == 0);
    else
        FUZZ_MUST(s.payload == whole + s.header); /* nothing was emitted */

    if (segment_finish(&h, packet, len) == 0) {
        memset(packet + h.csum_start + h.csum_offset, 0, 2);
        memset(whole + h.csum_start + h.csum_offset, 0, 2);
    }
    FUZZ_MUST(memcmp(packet, whole, len) == 0);
    free(packet);
    free(whole);
    free(buf);
    return 0;
}

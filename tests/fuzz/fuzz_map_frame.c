/* links: tailnetd/control/map_frame.c */
/* libs: -lzstd */
/* max_len: 768 */
/*
 * The framing of a map stream, in pieces, by the first byte: any bytes, plain
 * or where zstd is expected; any plaintext in good messages, compressed or not;
 * good messages with changed bytes.
 */
#include <zstd.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_frame.h"
#include "fuzz.h"

#define WIRE_MAX  65536
#define PLAIN_MAX (64u << 20) /* seven hundred bytes cannot be more */

/* All messages of a stream, one after another with their lengths. */
struct heard {
    uint64_t hash;
    size_t messages, text;
    bool broken;
};

static void
hear(struct heard *h, const char *text, size_t len)
{
    size_t i;

    FUZZ_MUST(len <= PLAIN_MAX);
    for (i = 0; i < len; i++)
        h->hash = (h->hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    h->hash = (h->hash ^ len) * 0x100000001b3u;
    h->messages++;
    h->text += len;
}

static struct heard
listen_to(const uint8_t *p, size_t len, bool zstd, size_t piece)
{
    struct map_frame *f = map_frame_new(zstd);
    struct fuzz_input in = {p, len}, part;
    struct heard h = {0};
    uint8_t *copy;
    size_t at, used, n;
    int rc = 0;

    FUZZ_MUST(f != NULL);
    while (in.len > 0 && rc >= 0) {
        part = fuzz_bytes(&in, piece);
        copy = fuzz_copy(part.p, part.len);
        for (at = 0; at < part.len && rc >= 0; at += used) {
            rc = map_frame_feed(f, copy + at, part.len - at, &used);
            FUZZ_MUST(rc < 0 || used > 0);
            FUZZ_MUST(used <= part.len - at);
            if (rc == 1) {
                const char *text = map_frame_text(f, &n);

                FUZZ_MUST(n == 0 || text != NULL);
                FUZZ_MUST(zstd || n == map_frame_wire(f));
                hear(&h, text, n);
            }
        }
        free(copy);
    }
    h.broken = rc < 0;
    if (h.broken) {
        FUZZ_MUST(map_frame_error(f)[0] != '\0');
        FUZZ_MUST(strlen(map_frame_error(f)) < MAP_FRAME_ERROR_MAX);
        FUZZ_MUST(map_frame_feed(f, p, len, &used) == -1 && used == 0);
    }
    map_frame_free(f);
    return h;
}

/* The pieces do not matter. */
static struct heard
both_ways(const uint8_t *p, size_t len, bool zstd, size_t piece)
{
    struct heard a = listen_to(p, len, zstd, piece),
                 b = listen_to(p, len, zstd, len > 0 ? len : 1);

    FUZZ_MUST(a.broken == b.broken && a.messages == b.messages);
    FUZZ_MUST(a.hash == b.hash);
    return a;
}

/* One message behind the others; returns their length. */
static size_t
put(uint8_t *wire, size_t at, const struct fuzz_input *text, bool zstd)
{
    size_t n = text->len;

    if (zstd) {
        n = ZSTD_compress(
            wire + at + 4, WIRE_MAX - at - 4, text->p, text->len, 1);
        FUZZ_MUST(!ZSTD_isError(n));
    } else if (n > 0) {
        memcpy(wire + at + 4, text->p, n);
    }
    wire[at] = (uint8_t)n;
    wire[at + 1] = (uint8_t)(n >> 8);
    wire[at + 2] = wire[at + 3] = 0;
    return at + 4 + n;
}

static void
good(struct fuzz_input *in, bool zstd, bool change, size_t piece)
{
    uint8_t *wire = calloc(1, WIRE_MAX), flip = change ? fuzz_u8(in) : 0;
    size_t where = change ? fuzz_u16(in) : 0, len = 0;
    struct heard want = {0}, got;
    struct fuzz_input part;

    FUZZ_MUST(wire != NULL);
    while (in->len > 0) {
        part = fuzz_bytes(in, 1u + fuzz_u8(in));
        if (part.len == 0)
            break;
        len = put(wire, len, &part, zstd);
        hear(&want, (const char *)part.p, part.len);
    }
    if (len > 0)
        wire[where % len] ^= flip;
    got = both_ways(wire, len, zstd, piece);
    if (flip == 0)
        FUZZ_MUST(!got.broken && got.messages == want.messages &&
                  got.hash == want.hash);
    free(wire);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint8_t kind = fuzz_u8(&in);
    size_t piece = 1 + fuzz_u8(&in);

    if (kind & 2)
        good(&in, (kind & 1) != 0, (kind & 4) != 0, piece);
    else
        both_ways(in.p, in.len, (kind & 1) != 0, piece);
    return 0;
}

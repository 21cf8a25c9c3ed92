#include "map_frame.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#define KEEP   (64u << 10) /* bytes of the buffer that stay between messages */
#define HEADER 18          /* of a zstd frame, at most: RFC 8878, 3.1.1.1 */

struct map_frame {
    bool zstd;
    bool whole; /* the last call ended a message */
    bool broken;
    ZSTD_DCtx *ctx; /* NULL between messages: its window is large */
    uint8_t head[4];
    size_t headlen;
    uint32_t len;  /* of the message, as it comes */
    uint32_t left; /* of it */
    bool ended;    /* its zstd frame */
    uint8_t start[HEADER];
    char *text;
    size_t textlen, size;
    char error[MAP_FRAME_ERROR_MAX];
};

struct map_frame *
map_frame_new(bool zstd)
{
    struct map_frame *f = calloc(1, sizeof(*f));

    if (f != NULL)
        f->zstd = zstd;
    return f;
}

void
map_frame_free(struct map_frame *f)
{
    if (f == NULL)
        return;
    ZSTD_freeDCtx(f->ctx);
    free(f->text);
    free(f);
}

__attribute__((format(printf, 2, 3))) static int
broken(struct map_frame *f, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(f->error, sizeof(f->error), fmt, ap);
    va_end(ap);
    f->broken = true;
    return -1;
}

static int
room(struct map_frame *f, size_t need)
{
    size_t size = f->size < 4096 ? 4096 : f->size;
    char *text;

    if (need > MAP_FRAME_PLAIN_MAX)
        return broken(f,
            "a message is longer than MAP_FRAME_PLAIN_MAX (%u bytes)",
            MAP_FRAME_PLAIN_MAX);
    while (size < need)
        size += size / 2;
    if (size > MAP_FRAME_PLAIN_MAX)
        size = MAP_FRAME_PLAIN_MAX;
    if (size <= f->size)
        return 0;
    text = realloc(f->text, size);
    if (text == NULL)
        return broken(f, "out of memory for a message");
    f->text = text;
    f->size = size;
    return 0;
}

static int
copy(struct map_frame *f, const uint8_t *data, size_t len)
{
    if (room(f, f->textlen + len) != 0)
        return -1;
    memcpy(f->text + f->textlen, data, len);
    f->textlen += len;
    return 0;
}

/* The library knows formats of its past too, and frames to be skipped. */
static bool
has_magic(const struct map_frame *f, const uint8_t *data, size_t len)
{
    static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    size_t at = f->len - f->left - len;

    return at >= sizeof(magic) ||
           memcmp(data, magic + at,
               len < sizeof(magic) - at ? len : sizeof(magic) - at) == 0;
}

/* Whether a frame that is over has the size that it says.  The library looks
 * at that when it has all of it at once, but not always in pieces. */
static bool
has_its_size(const struct map_frame *f)
{
    size_t n = f->len - f->left;
    unsigned long long says = ZSTD_getFrameContentSize(
        f->start, n < HEADER ? n : HEADER);

    return says == ZSTD_CONTENTSIZE_UNKNOWN || says == f->textlen;
}

static int
decompress(struct map_frame *f, const uint8_t *data, size_t len)
{
    ZSTD_inBuffer in = {data, len, 0};
    ZSTD_outBuffer out;
    size_t rc, at = f->len - f->left - len;

    if (!has_magic(f, data, len))
        return broken(f, "a message is no zstd frame");
    if (at < HEADER)
        memcpy(f->start + at, data, len < HEADER - at ? len : HEADER - at);
    while (!f->broken) {
        if (f->ended) /* the frame is over */
            return in.pos == in.size
                       ? 0
                       : broken(f, "bytes behind a message's zstd frame");
        /* Room for one byte more than allowed shows what is too long. */
        if (f->textlen == f->size && room(f, f->size + 1) != 0)
            return -1;
        out = (ZSTD_outBuffer){f->text, f->size, f->textlen};
        rc = ZSTD_decompressStream(f->ctx, &out, &in);
        f->textlen = out.pos;
        if (ZSTD_isError(rc))
            return broken(
                f, "a message is no zstd frame: %s", ZSTD_getErrorName(rc));
        f->ended = rc == 0;
        if (f->ended && !has_its_size(f))
            return broken(f, "a message's zstd frame is not of its size");
        if (in.pos == in.size && out.pos < out.size)
            return 0;
    }
    return -1;
}

static int
begin(struct map_frame *f)
{
    const uint8_t *b = f->head;

    f->headlen = 0;
    f->len = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
             (uint32_t)b[3] << 24;
    f->left = f->len;
    f->textlen = 0;
    f->ended = false;
    if (f->len == 0)
        return broken(f, "a message of length 0");
    if (f->len > MAP_FRAME_MAX)
        return broken(f, "a message of %u bytes, more than MAP_FRAME_MAX (%u)",
            f->len, MAP_FRAME_MAX);
    if (!f->zstd)
        return 0;
    f->ctx = ZSTD_createDCtx();
    if (f->ctx == NULL || ZSTD_isError(ZSTD_DCtx_setParameter(
                              f->ctx, ZSTD_d_windowLogMax, MAP_FRAME_WINDOW)))
        return broken(f, "out of memory for a message");
    return 0;
}

static int
end(struct map_frame *f)
{
    ZSTD_freeDCtx(f->ctx);
    f->ctx = NULL;
    if (f->zstd && !f->ended)
        return broken(f, "a message ends within its zstd frame");
    f->whole = true;
    return 1;
}

int
map_frame_feed(
    struct map_frame *f, const uint8_t *data, size_t len, size_t *used)
{
    size_t n;

    *used = 0;
    if (f->broken)
        return -1;
    if (f->whole && f->size > KEEP) {
        free(f->text);
        f->text = NULL;
        f->size = 0;
    }
    f->whole = false;
    while (*used < len && f->left == 0) {
        f->head[f->headlen++] = data[(*used)++];
        if (f->headlen == sizeof(f->head) && begin(f) != 0)
            return -1;
    }
    n = len - *used < f->left ? len - *used : f->left;
    if (n == 0)
        return 0;
    *used += n;
    f->left -= (uint32_t)n;
    if ((f->zstd ? decompress : copy)(f, data + *used - n, n) != 0)
        return -1;
    return f->left == 0 ? end(f) : 0;
}

const char *
map_frame_text(const struct map_frame *f, size_t *len)
{
    *len = f->textlen;
    return f->text;
}

const char *
map_frame_error(const struct map_frame *f)
{
    return f->error;
}

size_t
map_frame_wire(const struct map_frame *f)
{
    return f->len;
}

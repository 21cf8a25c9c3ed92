/*
 * map_frame.h: messages of a map stream.
 *
 * Each is a length (u32, little endian) and as many bytes: JSON, or one zstd
 * frame of it.  What a length or a zstd header claims is never believed: memory
 * grows with what really came, up to the limits.
 */
#ifndef MAP_FRAME_H
#define MAP_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAP_FRAME_MAX       (64u << 20)  /* bytes of a message as it comes */
#define MAP_FRAME_PLAIN_MAX (256u << 20) /* ... and decompressed */
#define MAP_FRAME_WINDOW    27           /* log2 of zstd's window, at most */
#define MAP_FRAME_ERROR_MAX 160

struct map_frame;

/* map_frame_new(zstd): a stream of compressed messages, or of plain ones.
 * NULL: no memory. */
struct map_frame *map_frame_new(bool zstd);
void map_frame_free(struct map_frame *f);

/*
 * map_frame_feed(f, data, len, used): takes ${*used} bytes, at most up to the
 * end of one message.  Returns 1: a message is whole, see map_frame_text(); 0:
 * more is needed; -1: the stream is broken for good, map_frame_error() says
 * why.
 */
int map_frame_feed(
    struct map_frame *f, const uint8_t *data, size_t len, size_t *used);

/* The message, borrowed until the next map_frame_feed(). */
const char *map_frame_text(const struct map_frame *f, size_t *len);
const char *map_frame_error(const struct map_frame *f);

/* Bytes that the last message had on the way. */
size_t map_frame_wire(const struct map_frame *f);

#endif

#include "derp_frame.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t magic[8] = {
    0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91};
static const char info[] = "{\"version\":2,\"CanAckPings\":true}";

_Static_assert(DERP_INFO_LEN == DERP_HEADER_LEN + 32 + BOX_NONCE_LEN +
                                    BOX_TAG_LEN + sizeof(info) - 1,
    "the length of our ClientInfo");

static uint32_t
get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
           p[3];
}

void
derp_reader_free(struct derp_reader *r)
{
    free(r->buf);
    memset(r, 0, sizeof(*r));
}

/* What a frame must at least have, and at most; false: we do not read it. */
static bool
limits(uint8_t type, size_t *least, size_t *most)
{
    static const struct {
        uint8_t type;
        size_t least, most;
    } table[] = {
        {DERP_SERVER_KEY, 8 + 32, DERP_SMALL_MAX},
        {DERP_SERVER_INFO, BOX_NONCE_LEN + BOX_TAG_LEN, DERP_SMALL_MAX},
        {DERP_RECV_PACKET, 32, 32 + DERP_PACKET_MAX},
        {DERP_KEEP_ALIVE, 0, DERP_SMALL_MAX},
        {DERP_PEER_GONE, 32, DERP_SMALL_MAX},
        {DERP_PING, 8, DERP_SMALL_MAX},
        {DERP_PONG, 8, DERP_SMALL_MAX},
        {DERP_HEALTH, 0, DERP_SMALL_MAX},
        {DERP_RESTARTING, 8, DERP_SMALL_MAX},
    };
    size_t i;

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (table[i].type != type)
            continue;
        *least = table[i].least;
        *most = table[i].most;
        return true;
    }
    return false;
}

static int
fail(struct derp_reader *r, const char *error)
{
    r->error = error;
    return -1;
}

/* The header is complete: makes room for the payload. */
static int
begin(struct derp_reader *r)
{
    size_t least = 0, most = 0, size;
    uint8_t *buf;

    r->length = get32(r->head + 1);
    if (r->length > DERP_LENGTH_MAX)
        return fail(r, "a frame of more than 1 MiB");
    r->skip = !limits(r->head[0], &least, &most);
    if (r->skip) {
        r->skipped++;
        return 0;
    }
    if (r->length < least || r->length > most)
        return fail(r, "a frame of a wrong length");
    size = r->length + DERP_SLACK;
    /* A large frame's memory is given back at the next small one. */
    if (size <= r->size &&
        (r->size <= DERP_SMALL_MAX + DERP_SLACK || size > r->size / 4))
        return 0;
    if (size < DERP_SMALL_MAX + DERP_SLACK)
        size = DERP_SMALL_MAX + DERP_SLACK;
    buf = realloc(r->buf, size);
    if (buf == NULL)
        return fail(r, "out of memory");
    r->buf = buf;
    r->size = size;
    return 0;
}

static void
copy_text(char out[DERP_HEALTH_MAX + 1], const uint8_t *p, size_t len)
{
    size_t i;

    for (i = 0; i < len && i < DERP_HEALTH_MAX; i++)
        out[i] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
    out[i] = '\0';
}

static int
decode(struct derp_reader *r, struct derp_frame *f)
{
    size_t key_at = r->head[0] == DERP_SERVER_KEY ? sizeof(magic) : 0;

    memset(f, 0, sizeof(*f));
    memset(r->buf + r->length, 0, DERP_SLACK);
    f->type = (enum derp_type)r->head[0];
    f->data = r->buf;
    f->len = r->length;
    switch (f->type) {
    case DERP_SERVER_KEY:
        if (memcmp(r->buf, magic, sizeof(magic)) != 0)
            return fail(r, "a server key without DERP's magic");
        /* fall through */
    case DERP_RECV_PACKET:
    case DERP_PEER_GONE:
        memcpy(f->key, r->buf + key_at, DERP_KEY_LEN);
        f->data += key_at + DERP_KEY_LEN;
        f->len -= key_at + DERP_KEY_LEN;
        if (f->type == DERP_PEER_GONE)
            f->reason = f->len > 0 ? f->data[0] : DERP_GONE_LEFT;
        break;
    case DERP_HEALTH:
        copy_text(f->text, f->data, f->len);
        break;
    case DERP_RESTARTING:
        f->reconnect_in = get32(f->data);
        f->try_for = get32(f->data + 4);
        break;
    default:
        break;
    }
    return 1;
}

int
derp_read(
    struct derp_reader *r, const uint8_t **p, size_t *len, struct derp_frame *f)
{
    size_t n, at;

    for (;;) {
        while (r->have < DERP_HEADER_LEN) {
            if (*len == 0)
                return 0;
            r->head[r->have++] = *(*p)++;
            --*len;
            if (r->have == DERP_HEADER_LEN && begin(r) != 0)
                return -1;
        }
        at = r->have - DERP_HEADER_LEN;
        n = r->length - at < *len ? r->length - at : *len;
        if (!r->skip && n > 0)
            memcpy(r->buf + at, *p, n);
        *p += n;
        *len -= n;
        r->have += n;
        if (at + n < r->length)
            return 0;
        r->have = 0;
        if (!r->skip)
            return decode(r, f);
    }
}

size_t
derp_header(uint8_t out[DERP_HEADER_LEN], enum derp_type type, size_t length)
{
    out[0] = (uint8_t)type;
    out[1] = (uint8_t)(length >> 24);
    out[2] = (uint8_t)(length >> 16);
    out[3] = (uint8_t)(length >> 8);
    out[4] = (uint8_t)length;
    return DERP_HEADER_LEN;
}

size_t
derp_client_info(uint8_t out[DERP_INFO_LEN], const uint8_t pub[DERP_KEY_LEN],
    const uint8_t shared[BOX_KEY_LEN], const uint8_t nonce[BOX_NONCE_LEN])
{
    uint8_t *p = out;

    p += derp_header(p, DERP_CLIENT_INFO, DERP_INFO_LEN - DERP_HEADER_LEN);
    memcpy(p, pub, DERP_KEY_LEN);
    memcpy(p + DERP_KEY_LEN, nonce, BOX_NONCE_LEN);
    box_seal(p + DERP_KEY_LEN + BOX_NONCE_LEN, shared, nonce,
        (const uint8_t *)info, sizeof(info) - 1);
    return DERP_INFO_LEN;
}

bool
derp_server_info(const struct derp_frame *f, const uint8_t shared[BOX_KEY_LEN])
{
    uint8_t plain[DERP_SMALL_MAX];

    return f->len <= DERP_SMALL_MAX &&
           box_open(plain, shared, f->data, f->data + BOX_NONCE_LEN,
               f->len - BOX_NONCE_LEN) == 0;
}

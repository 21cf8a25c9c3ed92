#include "disco.h"

#include <string.h>

#define BODY_AT      2
#define ENDPOINT_LEN 18
#define PLAIN_MAX    (BODY_AT + ENDPOINT_LEN * DISCO_CALL_MAX)
#define SENDER_AT    6
#define NONCE_AT     38

static const uint8_t magic[6] = {0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};

bool
disco_looks(const uint8_t *p, size_t len)
{
    return len >= DISCO_HEADER_LEN && memcmp(p, magic, sizeof(magic)) == 0;
}

const uint8_t *
disco_sender(const uint8_t *p)
{
    return p + SENDER_AT;
}

static struct tn_endpoint
get_endpoint(const uint8_t *p)
{
    struct tn_endpoint e = {.addr = tn_addr_from6(p)};

    e.port = (uint16_t)(p[16] << 8 | p[17]);
    return e;
}

static void
put_endpoint(uint8_t *p, const struct tn_endpoint *e)
{
    memcpy(p, e->addr.b, 16);
    p[16] = (uint8_t)(e->port >> 8);
    p[17] = (uint8_t)e->port;
}

/* A unicast address that means the same to both ends. */
static bool
usable(const struct tn_endpoint *e)
{
    const uint8_t *b = e->addr.b;

    if (e->port == 0)
        return false;
    if (tn_addr_is4(&e->addr))
        return b[12] != 0 && b[12] < 224;
    if (b[0] == 0xff || (b[0] == 0xfe && (b[1] & 0xc0) == 0x80))
        return false;
    return memcmp(b, (const uint8_t[16]){0}, 16) != 0;
}

static int
decode_ping(struct disco_msg *m, const uint8_t *body, size_t len)
{
    static const uint8_t zero[32];

    if (len < DISCO_TXID_LEN)
        return -2;
    memcpy(m->txid, body, DISCO_TXID_LEN);
    if (len >= DISCO_TXID_LEN + 32) {
        memcpy(m->node_key, body + DISCO_TXID_LEN, 32);
        m->has_node_key = memcmp(m->node_key, zero, 32) != 0;
    }
    return 0;
}

static int
decode_pong(struct disco_msg *m, const uint8_t *body, size_t len)
{
    if (len < DISCO_TXID_LEN + ENDPOINT_LEN)
        return -2;
    memcpy(m->txid, body, DISCO_TXID_LEN);
    m->src = get_endpoint(body + DISCO_TXID_LEN);
    return 0;
}

static int
decode_call(struct disco_msg *m, const uint8_t *body, size_t len)
{
    struct tn_endpoint e;
    size_t at;

    if (len % ENDPOINT_LEN != 0)
        return -2;
    for (at = 0; at < len && m->nendpoints < DISCO_CALL_MAX;
         at += ENDPOINT_LEN) {
        e = get_endpoint(body + at);
        if (usable(&e))
            m->endpoints[m->nendpoints++] = e;
    }
    return 0;
}

static int
decode(struct disco_msg *m, const uint8_t *plain, size_t len)
{
    const uint8_t *body = plain + BODY_AT;

    if (len < BODY_AT)
        return -2;
    if (plain[1] != 0) /* a version that is not known */
        return 0;
    len -= BODY_AT;
    switch (plain[0]) {
    case DISCO_PING:
        m->type = DISCO_PING;
        return decode_ping(m, body, len);
    case DISCO_PONG:
        m->type = DISCO_PONG;
        return decode_pong(m, body, len);
    case DISCO_CALL_ME_MAYBE:
        m->type = DISCO_CALL_ME_MAYBE;
        return decode_call(m, body, len);
    default:
        return 0;
    }
}

int
disco_open(struct disco_msg *m, const uint8_t shared[BOX_KEY_LEN],
    const uint8_t *p, size_t len)
{
    uint8_t plain[DISCO_OPEN_MAX];

    memset(m, 0, sizeof(*m));
    if (len < DISCO_HEADER_LEN + BOX_TAG_LEN || len > DISCO_OPEN_MAX ||
        box_open(plain, shared, p + NONCE_AT, p + DISCO_HEADER_LEN,
            len - DISCO_HEADER_LEN) != 0)
        return -1;
    return decode(m, plain, len - DISCO_HEADER_LEN - BOX_TAG_LEN);
}

size_t
disco_seal(uint8_t out[DISCO_MAX_LEN], const struct disco_msg *m,
    const uint8_t shared[BOX_KEY_LEN], const uint8_t sender[DISCO_KEY_LEN],
    const uint8_t nonce[BOX_NONCE_LEN])
{
    uint8_t plain[PLAIN_MAX], *p = plain;
    unsigned i;

    *p++ = (uint8_t)m->type;
    *p++ = 0;
    if (m->type != DISCO_CALL_ME_MAYBE) {
        memcpy(p, m->txid, DISCO_TXID_LEN);
        p += DISCO_TXID_LEN;
    }
    if (m->type == DISCO_PING) {
        memcpy(p, m->node_key, 32);
        p += 32;
    } else if (m->type == DISCO_PONG) {
        put_endpoint(p, &m->src);
        p += ENDPOINT_LEN;
    } else {
        for (i = 0; i < m->nendpoints && i < DISCO_CALL_MAX; i++) {
            put_endpoint(p, &m->endpoints[i]);
            p += ENDPOINT_LEN;
        }
    }
    memcpy(out, magic, sizeof(magic));
    memcpy(out + SENDER_AT, sender, DISCO_KEY_LEN);
    memcpy(out + NONCE_AT, nonce, BOX_NONCE_LEN);
    box_seal(out + DISCO_HEADER_LEN, shared, nonce, plain, (size_t)(p - plain));
    return DISCO_HEADER_LEN + BOX_TAG_LEN + (size_t)(p - plain);
}

/*
 * msg.h: WireGuard's messages and constants (whitepaper sections 5.4 and 6.1).
 *
 * Integers on the wire are little endian; every field is drawn as bytes, so
 * the structs have no alignment and may lie over any buffer.
 *
 *   initiation   type 4 | sender 4 | ephemeral 32 | static 32+16 |
 *                timestamp 12+16 | mac1 16 | mac2 16
 *   response     type 4 | sender 4 | receiver 4 | ephemeral 32 | empty 0+16 |
 *                mac1 16 | mac2 16
 *   cookie       type 4 | receiver 4 | nonce 24 | cookie 16+16
 *   transport    type 4 | receiver 4 | counter 8 | packet n+16
 */
#ifndef MSG_H
#define MSG_H

#include <stddef.h>
#include <stdint.h>

enum msg_type {
    MSG_INITIATION = 1,
    MSG_RESPONSE = 2,
    MSG_COOKIE = 3,
    MSG_TRANSPORT = 4,
};

#define MSG_KEY_LEN      32
#define MSG_TAG_LEN      16
#define MSG_MAC_LEN      16
#define MSG_COOKIE_LEN   16
#define MSG_XNONCE_LEN   24
#define MSG_TAI64N_LEN   12
#define MSG_SEALED(n)    ((n) + MSG_TAG_LEN)
#define MSG_PADDING_UNIT 16

struct msg_initiation {
    uint8_t type[4];
    uint8_t sender[4];
    uint8_t ephemeral[MSG_KEY_LEN];
    uint8_t sealed_static[MSG_SEALED(MSG_KEY_LEN)];
    uint8_t sealed_timestamp[MSG_SEALED(MSG_TAI64N_LEN)];
    uint8_t mac1[MSG_MAC_LEN];
    uint8_t mac2[MSG_MAC_LEN];
};

struct msg_response {
    uint8_t type[4];
    uint8_t sender[4];
    uint8_t receiver[4];
    uint8_t ephemeral[MSG_KEY_LEN];
    uint8_t sealed_empty[MSG_SEALED(0)];
    uint8_t mac1[MSG_MAC_LEN];
    uint8_t mac2[MSG_MAC_LEN];
};

struct msg_cookie {
    uint8_t type[4];
    uint8_t receiver[4];
    uint8_t nonce[MSG_XNONCE_LEN];
    uint8_t sealed_cookie[MSG_SEALED(MSG_COOKIE_LEN)];
};

struct msg_transport {
    uint8_t type[4];
    uint8_t receiver[4];
    uint8_t counter[8];
};

#define MSG_TRANSPORT_MIN (sizeof(struct msg_transport) + MSG_TAG_LEN)

_Static_assert(sizeof(struct msg_initiation) == 148, "initiation");
_Static_assert(offsetof(struct msg_initiation, mac1) == 116, "initiation");
_Static_assert(sizeof(struct msg_response) == 92, "response");
_Static_assert(offsetof(struct msg_response, mac1) == 60, "response");
_Static_assert(sizeof(struct msg_cookie) == 64, "cookie");
_Static_assert(sizeof(struct msg_transport) == 16, "transport");

/* Messages under one key (section 6.1). */
#define MSG_REKEY_AFTER_MESSAGES  (UINT64_C(1) << 60)
#define MSG_REJECT_AFTER_MESSAGES (UINT64_MAX - (UINT64_C(1) << 13))

static inline uint32_t
msg_get32(const uint8_t p[4])
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static inline uint64_t
msg_get64(const uint8_t p[8])
{
    return (uint64_t)msg_get32(p) | (uint64_t)msg_get32(p + 4) << 32;
}

static inline void
msg_put32(uint8_t p[4], uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline void
msg_put64(uint8_t p[8], uint64_t v)
{
    msg_put32(p, (uint32_t)v);
    msg_put32(p + 4, (uint32_t)(v >> 32));
}

#endif

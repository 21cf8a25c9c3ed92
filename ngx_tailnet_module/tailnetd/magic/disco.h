/*
 * disco.h: messages by which two nodes find a path to each other.
 *
 *   magic 6 │ sender's disco public key 32 │ nonce 24 │ box
 *   in the box: type 1 │ version 1 │ body
 *
 *   ping           txid 12 │ sender's node key 32 │ padding
 *   pong           txid 12 │ where the ping came from: IP 16 │ port 2
 *   call-me-maybe  n × (IP 16 │ port 2)
 *
 * Sans-I/O.  Disco keys are X25519; integers are big-endian; IPv4 addresses are
 * v4-mapped.  Types and versions that are not known are no error: they are of a
 * later time.
 */
#ifndef DISCO_H
#define DISCO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "../crypto/box.h"

#define DISCO_KEY_LEN    32
#define DISCO_TXID_LEN   12
#define DISCO_HEADER_LEN 62
#define DISCO_MIN_LEN    (DISCO_HEADER_LEN + BOX_TAG_LEN + 2)
#define DISCO_OPEN_MAX   9216 /* of a datagram: padded pings measure the MTU */
#define DISCO_CALL_MAX   48   /* endpoints of one call-me-maybe */
#define DISCO_MAX_LEN    (DISCO_HEADER_LEN + BOX_TAG_LEN + 2 + 18 * DISCO_CALL_MAX)

enum disco_type {
    DISCO_OTHER = 0, /* authentic, and nothing to us */
    DISCO_PING = 1,
    DISCO_PONG = 2,
    DISCO_CALL_ME_MAYBE = 3,
};

struct disco_msg {
    enum disco_type type;
    uint8_t txid[DISCO_TXID_LEN];
    bool has_node_key; /* of a ping: old senders do not say it */
    uint8_t node_key[32];
    struct tn_endpoint src; /* of a pong: what the other saw */
    struct tn_endpoint endpoints[DISCO_CALL_MAX];
    unsigned nendpoints;
};

/* disco_looks(p, len): whether a datagram claims to be disco.  A WireGuard
 * message never begins so. */
bool disco_looks(const uint8_t *p, size_t len);

/* The sender's disco key, as it claims, in ${p} for which disco_looks(). */
const uint8_t *disco_sender(const uint8_t *p);

/*
 * disco_open(m, shared, p, len): opens the datagram ${p}, for which
 * disco_looks(), with the key shared with its sender.  More than DISCO_CALL_MAX
 * endpoints, and those that are no place to send to, are left out.  Returns 0,
 * or -1: not authentic.  -2: authentic, but its body is too short.
 */
int disco_open(struct disco_msg *m, const uint8_t shared[BOX_KEY_LEN],
    const uint8_t *p, size_t len);

/*
 * disco_seal(out, m, shared, sender, nonce): the datagram of ${m}, whose type
 * is one of the three.  Returns its length.
 */
size_t disco_seal(uint8_t out[DISCO_MAX_LEN], const struct disco_msg *m,
    const uint8_t shared[BOX_KEY_LEN], const uint8_t sender[DISCO_KEY_LEN],
    const uint8_t nonce[BOX_NONCE_LEN]);

#endif

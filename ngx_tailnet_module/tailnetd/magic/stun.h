/*
 * stun.h: asking a server which address it sees (RFC 8489: Binding).
 *
 * Sans-I/O.  A request carries SOFTWARE "tailnode" and FINGERPRINT: servers
 * beside DERP relays drop any without.
 */
#ifndef STUN_H
#define STUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

#define STUN_TXID_LEN    12
#define STUN_REQUEST_LEN 40
#define STUN_PORT        3478

/* stun_looks(p, len): whether a datagram is STUN.  WireGuard and disco never
 * look so. */
bool stun_looks(const uint8_t *p, size_t len);

void stun_request(
    uint8_t out[STUN_REQUEST_LEN], const uint8_t txid[STUN_TXID_LEN]);

/*
 * stun_response(p, len, txid, e): a success response: its transaction and the
 * address that the server saw.  Returns 0, or -1: anything else, or malformed.
 */
int stun_response(const uint8_t *p, size_t len, uint8_t txid[STUN_TXID_LEN],
    struct tn_endpoint *e);

#endif

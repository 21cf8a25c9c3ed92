/*
 * send.h: what a device puts on the network by itself.
 */
#ifndef SEND_H
#define SEND_H

#include "state.h"

/* send_initiation(d, p, now): begins a handshake, in place of a pending one. */
void send_initiation(struct wg_device *d, struct wg_peer *p, uint64_t now);

/* send_response(d, p, hs, sender, now): answers the initiation in ${hs}, which
 * is wiped, and installs the session.  Returns 0, or -1: nothing was sent. */
int send_response(struct wg_device *d, struct wg_peer *p, struct handshake *hs,
    uint32_t sender, uint64_t now);

/* send_cookie(d, msg, len, src, now): answers the handshake message ${msg}. */
void send_cookie(struct wg_device *d, const uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now);

/* send_staged(d, p, now): sends what waits as far as the session allows. */
void send_staged(struct wg_device *d, struct wg_peer *p, uint64_t now);

/* send_keepalive(d, p, now): an empty message, if there is a session. */
void send_keepalive(struct wg_device *d, struct wg_peer *p, uint64_t now);

#endif

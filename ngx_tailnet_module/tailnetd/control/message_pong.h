/*
 * message_pong.h: what came of a ping that the control server asked for
 * (tailcfg.PingResponse).
 */
#ifndef MESSAGE_PONG_H
#define MESSAGE_PONG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

struct message_pong {
    const char *type;  /* as it was asked for */
    struct tn_addr to; /* ... and whom */
    const char *error; /* NULL: an answer came */
    double seconds;    /* after this time */
    bool has_node;
    struct tn_addr node;   /* first address of the peer that serves ${to} */
    const char *name;      /* its FQDN, NULL: not known */
    struct tn_endpoint at; /* where the answer came from; port 0: not said */
    uint16_t region;       /* ... by this relay; 0: none */
    const char *region_code;
    uint16_t peerapi; /* port of its PeerAPI; 0: none */
    bool local;       /* ${to} is the asked node's own */
};

/* Text for message_free() and its length, or NULL: no memory. */
char *message_pong(const struct message_pong *m, size_t *len);

#endif

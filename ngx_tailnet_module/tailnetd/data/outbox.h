/*
 * outbox.h: datagrams that leave together.
 *
 * Datagrams for one destination and of one size go out in one system call
 * (UDP_SEGMENT, Linux 4.18); the last may be shorter.  Order is kept.
 */
#ifndef OUTBOX_H
#define OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "../../core/tn_addr.h"

#define OUTBOX_SEGMENTS 64    /* of one call; kernels before 6.9 take no more */
#define OUTBOX_SIZE     65000 /* bytes of one call, below what UDP can carry */

struct outbox {
    uint8_t buf[OUTBOX_SIZE];
    size_t used;
    size_t segment; /* size of each but the last */
    unsigned count; /* 0: empty */
    bool closed;    /* the last was shorter */
    struct tn_endpoint dst;
};

/* What became of the datagrams. */
struct outbox_result {
    unsigned calls, sent, full, failed;
};

/*
 * outbox_add(o, dst, msg, len): false: it does not go with what is held (or is
 * longer than OUTBOX_SIZE): send that first.
 */
bool outbox_add(struct outbox *o, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len);

/* outbox_goes(o, dst): whether what is held goes to ${dst}. */
bool outbox_goes(const struct outbox *o, const struct tn_endpoint *dst);

/*
 * outbox_send(o, fd, no_gso): sends and empties it.  Where the path does not
 * take segments they go out one by one; where the device does not, ${*no_gso}
 * becomes true as well and later ones are not tried.
 */
struct outbox_result outbox_send(struct outbox *o, int fd, bool *no_gso);

/* The socket address of ${e}; returns its length. */
socklen_t outbox_sockaddr(
    const struct tn_endpoint *e, struct sockaddr_storage *ss);

#endif

/*
 * pump.h: packets between the mesh interface and the network.
 *
 * A pump reads mesh0's queue and the node's UDP sockets in batches and hands
 * each packet on; it writes what comes back.  It knows neither keys nor peers.
 * Descriptors are borrowed: the caller keeps them open while the pump lives.
 */
#ifndef PUMP_H
#define PUMP_H

#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

/* Room around a packet from the mesh, for sealing it in place. */
#define PUMP_HEADROOM 16
#define PUMP_TAILROOM 48

struct pump;

struct pump_ops {
    /* An inner packet that the namespace sends: PUMP_HEADROOM before and
     * PUMP_TAILROOM behind it may be overwritten. */
    void (*from_mesh)(void *ctx, uint8_t *packet, size_t len, uint64_t now);
    /* A datagram from ${src}, changeable, 16 bytes of slack behind it. */
    void (*from_net)(void *ctx, uint8_t *msg, size_t len,
        const struct tn_endpoint *src, uint64_t now);
    /* A batch was handled: timers may have moved. */
    void (*after)(void *ctx, uint64_t now);
};

struct pump_counters {
    uint64_t mesh_read, mesh_written;
    uint64_t net_read, net_written;
    uint64_t drop_mesh_write;  /* mesh0 refused a packet */
    uint64_t drop_mesh_header; /* a read packet had a bad virtio-net header */
    uint64_t drop_net_full;    /* socket buffer full */
    uint64_t drop_net_error;   /* unreachable, refused by the kernel */
    uint64_t drop_net_family;  /* no socket of the address' family */
};

struct pump_fds {
    int mesh;       /* TUN with virtio-net headers, non-blocking */
    int udp4, udp6; /* bound, non-blocking; -1: family not there */
};

/* NULL: no memory, or a descriptor cannot be polled. */
struct pump *pump_new(
    const struct pump_fds *fds, const struct pump_ops *ops, void *ctx);
void pump_free(struct pump *p);
const struct pump_counters *pump_counters(const struct pump *p);

/* One datagram to ${dst}; a drop is counted, never retried. */
void pump_send(struct pump *p, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len);

/* One inner packet into the namespace. */
void pump_write(struct pump *p, const uint8_t *packet, size_t len);

#endif

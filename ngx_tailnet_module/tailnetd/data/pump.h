/*
 * pump.h: packets between the mesh interface and the network.
 *
 * A pump reads mesh0's queue and the node's UDP sockets in batches and hands
 * each packet on by itself; what comes back it writes in as few system calls
 * as the kernel allows.  It knows neither keys nor peers.  Descriptors are
 * borrowed: the caller keeps them open while the pump lives.
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
    uint64_t mesh_read, mesh_written; /* packets, after splitting and before
                                         merging */
    uint64_t mesh_reads, mesh_writes; /* system calls */
    uint64_t net_read, net_written;   /* datagrams */
    uint64_t net_reads, net_writes;   /* system calls */
    uint64_t drop_mesh_write;         /* mesh0 refused a packet */
    uint64_t drop_mesh_header;   /* a read packet had a bad virtio-net header */
    uint64_t drop_net_full;      /* socket buffer full */
    uint64_t drop_net_error;     /* unreachable, refused by the kernel */
    uint64_t drop_net_family;    /* no socket of the address' family */
    uint64_t drop_net_truncated; /* longer than any datagram can be */
    uint64_t not_merged_checksum; /* passed on alone: the kernel judges */
};

struct pump_fds {
    int mesh;       /* TUN with virtio-net headers, non-blocking */
    int udp4, udp6; /* bound, non-blocking; -1: family not there */
};

/*
 * pump_new(fds, mtu, ops, ctx): ${mtu} of mesh0, which no split packet passes.
 * NULL: no memory, or a descriptor cannot be polled.
 */
struct pump *pump_new(const struct pump_fds *fds, uint16_t mtu,
    const struct pump_ops *ops, void *ctx);
void pump_free(struct pump *p);
const struct pump_counters *pump_counters(const struct pump *p);

/*
 * pump_send(p, dst, msg, len): one datagram, copied.  pump_write(p, packet,
 * len): one inner packet into the namespace, which from inside from_net() may
 * be a part of its datagram.  Both are held until the batch that is under way
 * ends; outside of one, the caller ends it with pump_flush().  A drop is
 * counted, never retried.
 */
void pump_send(struct pump *p, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len);
void pump_write(struct pump *p, const uint8_t *packet, size_t len);
void pump_flush(struct pump *p);

#endif

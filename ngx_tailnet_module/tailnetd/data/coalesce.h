/*
 * coalesce.h: packets of one flow into one write.
 *
 * Consecutive TCP segments, or UDP datagrams of one size, of the same flow go
 * into the namespace as one super-packet with a virtio-net header.  What is
 * merged has had its checksum verified, so that merging never hides damage.
 * Packets are not copied: they stay where they are until coalesce_flush().
 * Sans-I/O; order within a flow is kept.
 */
#ifndef COALESCE_H
#define COALESCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <linux/virtio_net.h>

#define COALESCE_FLOWS    8
#define COALESCE_SEGMENTS 64  /* of one super-packet */
#define COALESCE_HEADERS  128 /* longest headers of what is merged */

/* A super-packet that grows. */
struct coalesce_flow {
    struct virtio_net_hdr vnet;
    uint8_t headers[COALESCE_HEADERS]; /* of the first, to be completed */
    /* vnet, headers, payloads; or vnet and the only packet */
    struct iovec iov[COALESCE_SEGMENTS + 2];
    unsigned segments; /* 0: free */
    bool is6, udp;
    bool closed; /* takes no more */
    size_t l4, hlen;
    size_t size;    /* payload of each segment but the last */
    size_t payload; /* of all */
    uint32_t next_seq;
    uint32_t used; /* age, for making room */
};

struct coalesce {
    /* One write into the namespace; false: the kernel does not take such a
     * super-packet, whose parts are then written one by one. */
    bool (*write)(void *ctx, const struct iovec *iov, int n);
    void *ctx;
    bool no_udp; /* this kernel refuses UDP super-packets */
    uint32_t clock;
    uint64_t merged;       /* packets that went in behind another */
    uint64_t bad_checksum; /* not merged, passed on as they are */
    struct coalesce_flow flows[COALESCE_FLOWS];
};

/* coalesce_add(c, packet, len): ${packet} stays valid until coalesce_flush().
 * It may be written at once. */
void coalesce_add(struct coalesce *c, const uint8_t *packet, size_t len);

/* Writes all that is held. */
void coalesce_flush(struct coalesce *c);

#endif

/*
 * segment.h: what the kernel leaves to "hardware" on a packet from the mesh.
 *
 * With offloads on, mesh0 hands over TCP and UDP packets of up to 64 KB and
 * unfinished checksums, described by a virtio-net header (virtio 1.1 section
 * 5.1.6).  Sans-I/O: packet in, finished packets out.
 */
#ifndef SEGMENT_H
#define SEGMENT_H

#include <stddef.h>
#include <stdint.h>

struct virtio_net_hdr;

/*
 * segment_finish(h, packet, len): writes the checksum that ${h} asks for.
 * Returns 0, or -1: the header does not fit the packet.
 */
int segment_finish(const struct virtio_net_hdr *h, uint8_t *packet, size_t len);

/*
 * segment_split(h, packet, len, buf, size, emit, ctx): cuts a super-packet into
 * packets of h->gso_size bytes of payload.  Each is made at ${buf}, of ${size}
 * bytes, and given to ${emit}, in order, its checksums right.  Returns their
 * number, or -1: the header does not fit the packet, or a segment does not fit
 * ${size}; nothing was emitted then.
 */
int segment_split(const struct virtio_net_hdr *h, const uint8_t *packet,
    size_t len, uint8_t *buf, size_t size,
    void (*emit)(void *ctx, uint8_t *packet, size_t len), void *ctx);

#endif

/*
 * probe.h: how far the relays are where UDP does not pass: the time of a GET
 * /derp/latency-check over TLS, from request to answer.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "../crypto/tls.h"
#include "../engine/netmap.h"

#define PROBE_MS          5000 /* for all of it */
#define PROBE_MORE_MS     1000 /* for the others, once one has answered */
#define PROBE_REGIONS_MAX 64   /* asked at a time */

struct probe;

struct probe_ops {
    /* A region answered after ${us} microseconds. */
    void (*answered)(void *ctx, uint16_t region, uint32_t us);
    /* All have answered, or the time is up; probe_free() is allowed. */
    void (*over)(void *ctx);
};

/*
 * probe_new(map, trust, insecure, ops, ctx): asks the first relay of each
 * region; ${map} is not needed afterwards.  NULL: nobody to ask, or no memory.
 */
struct probe *probe_new(const struct netmap_derp *map, struct tls_trust *trust,
    bool insecure, const struct probe_ops *ops, void *ctx);

/* Without a callback.  NULL is harmless. */
void probe_free(struct probe *p);

#endif

/*
 * resolve.h: addresses of the few host names that a node's relays have.
 *
 * Answers are kept for RESOLVE_KEEP_MS; one that failed is asked again after
 * RESOLVE_RETRY_MS.
 */
#ifndef RESOLVE_H
#define RESOLVE_H

#include <stdbool.h>

#include "../../core/tn_addr.h"

#define RESOLVE_KEEP_MS  300000
#define RESOLVE_RETRY_MS 20000
#define RESOLVE_MAX      64 /* names; the longest unused one makes room */

struct resolve;

/* resolve_new(cb, arg): ${cb} is called when an answer came. */
struct resolve *resolve_new(void (*cb)(void *arg), void *arg);
void resolve_free(struct resolve *r);

/*
 * resolve_get(r, host, addrs): the first IPv4 and IPv6 address of ${host}, as
 * far as known; all zeros: none.  Asks where it is not known or too old.
 */
void resolve_get(struct resolve *r, const char *host, struct tn_addr addrs[2]);

#endif

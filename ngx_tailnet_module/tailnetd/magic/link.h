/*
 * link.h: this machine's addresses, and when they change.
 */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>

#include "../../core/tn_addr.h"

#define LINK_ADDRS_MAX 64  /* of one machine; more are left out, and counted */
#define LINK_SETTLE_MS 200 /* changes come in bursts */

/*
 * link_addrs(addrs, more): addresses by which others might reach this machine,
 * sorted; returns how many.  Left out are loopback (unless there is nothing
 * else), link-local IPv6, and the ranges of tailnets: a packet to another
 * tailscaled's address on this machine would go through its tunnel.
 */
size_t link_addrs(struct tn_addr addrs[LINK_ADDRS_MAX], size_t *more);

/* Whether ${a} is in a range that tailnets use. */
bool link_is_tailnet(const struct tn_addr *a);

struct link;

/* link_new(cb, arg): calls ${cb} some time after addresses or interfaces
 * changed.  NULL: the kernel does not tell (errno). */
struct link *link_new(void (*cb)(void *arg), void *arg);
void link_free(struct link *l);

#endif

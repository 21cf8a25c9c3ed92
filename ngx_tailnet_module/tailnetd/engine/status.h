/*
 * status.h: what tailnetctl and tailnet_status show, as JSON documents.
 */
#ifndef STATUS_H
#define STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "node.h"

/*
 * status_node(n): all but its peers.  status_peer(n, row): one of them.
 * status_pong(): the answer to a ping.  status_join(): how a node (NULL: there
 * is none) is joined, with the login URL, for who administers it.  Each returns
 * text for free(), or NULL: no memory.
 */
char *status_node(const struct node *n);
char *status_peer(const struct node *n, const struct netmap_node *row);
char *status_pong(const struct tn_addr *to, const struct tn_endpoint *e,
    uint64_t ns, const char *error);
char *status_join(const struct node *n);

#endif

/*
 * netconf.h: addresses and routes of mesh0, by rtnetlink.  A job of netns.h.
 */
#ifndef NETCONF_H
#define NETCONF_H

#include "../ipc.h"
#include "netns.h"

struct netconf {
    const char *node; /* for log lines */
    struct tn_addr addrs[IPC_ADDRS_MAX];
    size_t naddrs;
};

/*
 * netconf_apply(conf, a): mesh0 has exactly these addresses afterwards, each
 * alone (/32, /128): the tailnet is behind the default route, not on the link.
 * The first of a family is the source of what the namespace sends.  Without
 * IPv6 in the kernel: one log line, IPv4 goes on.
 */
netns_job netconf_apply;

/* netconf_set_queue(packets): the queue of mesh0, from within its namespace.
 * (The ioctl for it wants rights over the whole host.)  Returns 0, or -1 and
 * errno. */
int netconf_set_queue(unsigned packets);

#endif

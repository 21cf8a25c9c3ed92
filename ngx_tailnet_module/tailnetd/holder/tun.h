/*
 * tun.h: mesh0, the network interface of a node's namespace.  Jobs of netns.h.
 */
#ifndef TUN_H
#define TUN_H

#include "netns.h"

#define TUN_NAME "mesh0"
/* Packets that wait for the engine.  What does not fit is dropped, so it has
 * to take those of all connections while the engine restarts or a download
 * fills it. */
#define TUN_QUEUE 4096

struct tun_spec {
    const char *node; /* for log lines */
    unsigned mtu;
};

/* tun_make(spec, a): a namespace's start: lo up, mesh0 with a virtio-net
 * header, a queue of TUN_QUEUE packets and the offloads that kernel and engine
 * know, sysctls.  Its descriptor is the answer's one. */
netns_job tun_make;

/* tun_set_mtu(spec, a): another MTU for mesh0. */
netns_job tun_set_mtu;

/* tun_up(name): bring an interface up.  Returns 0, or -1 and errno. */
int tun_up(const char *name);

#endif

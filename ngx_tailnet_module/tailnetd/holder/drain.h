/*
 * drain.h: what the kernel has yet to deliver from a namespace.  When the last
 * process with a connection is gone, the end of its answer may still wait in a
 * send buffer.
 */
#ifndef DRAIN_H
#define DRAIN_H

#include "netns.h"

#define DRAIN_NODE_MS  30000 /* for a node that nobody uses any more */
#define DRAIN_STOP_MS  1500  /* when nginx ends; it waits 2 s for us */
#define DRAIN_EVERY_MS 100

/* drain_pending(ns): is there a TCP connection in ${ns} with data that its
 * peer has not acknowledged?  No where that cannot be told. */
bool drain_pending(const struct netns *ns);

#endif

/*
 * store.h: descriptors that must outlive the engine, by name.
 *
 * "tun/NODE" is put by the holder when it makes a namespace, everything else
 * ("udp4/NODE", "hot") by the engine, which gets all of it back as ENTRYs
 * when it is started again.
 */
#ifndef STORE_H
#define STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "../ipc.h"

#define STORE_MAX 512 /* names */

struct store_entry {
    char name[IPC_NAME_MAX + 1];
    int fds[IPC_FDS_MAX];
    size_t nfds;
};

/*
 * store_put(name, fds, nfds): keep ${fds} (taken over, also on failure) as
 * ${name} in place of what was there; none: forget the name.  Returns 0, or
 * -1: the store is full or the name is not one.
 */
int store_put(const char *name, const int *fds, size_t nfds);

/* The first descriptor (borrowed) of "${kind}/${node}", or -1. */
int store_fd(const char *kind, const char *node);

/* Forget "${kind}" and all "${kind}/...". */
void store_drop_kind(const char *kind);

/* Forget all ".../${node}". */
void store_drop_node(const char *node);

void store_drop_all(void);

/* Entry number ${i}, in no order, or NULL: behind the last. */
const struct store_entry *store_at(size_t i);

#endif

/*
 * cache.h: the netmap that a control saves, for its next life.
 *
 * It is written in slices, between which the loop goes on, so what is saved may
 * be of several moments; what changes meanwhile is for the next one.
 */
#ifndef CACHE_H
#define CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control;
struct loop_idle;
struct loop_timer;
struct map_json_writer;
struct netmap;

struct cache {
    struct loop_timer *timer;
    struct loop_idle *slices;
    bool due;     /* there is something new ... */
    uint64_t at;  /* ... that is to be saved then, loop_now() */
    size_t bytes; /* of the last one */
    /* the one being written */
    struct map_json_writer *writer; /* NULL: none is */
    struct netmap *outline;
    uint32_t peer; /* number of the next */
    int fd;
    size_t written;
};

/* cache_init(c): the timers of c->cache.  0, or -1: no memory; cache_free() is
 * due also then. */
int cache_init(struct control *c);
void cache_free(struct control *c);

/* cache_soon(c): who is there, or may do what, is another one now.
 * cache_later(c): only where peers are, which is soon found out without it. */
void cache_soon(struct control *c);
void cache_later(struct control *c);

/* All of it again, from the loop: who keeps it is another one. */
void cache_again(struct control *c);

/* Nothing is saved, also not what was begun. */
void cache_drop(struct control *c);

#endif

/*
 * loop.h: the engine's event loop: readable descriptors and timers.
 *
 * The only place that knows libuv, so that tests can put another loop under
 * the same names.  One loop a process; callbacks run on its thread.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stdint.h>

struct loop_watch;
struct loop_timer;

/* Returns 0, or -1: no loop to be had (errno). */
int loop_init(void);

/* Runs until loop_stop(); then loop_free() releases what is left. */
void loop_run(void);
void loop_stop(void);
void loop_free(void);

/* Monotonic milliseconds, read anew at each call. */
uint64_t loop_now(void);

/*
 * loop_watch_new(fd, cb, arg): call ${cb} while ${fd} is readable or at its
 * end.  The descriptor stays the caller's and must outlive the watch.
 * NULL: no memory, or ${fd} cannot be polled.  loop_watch_free(NULL) is
 * harmless, also from inside the callback.
 */
struct loop_watch *loop_watch_new(int fd, void (*cb)(void *arg), void *arg);
void loop_watch_free(struct loop_watch *w);

/*
 * loop_timer_new(cb, arg): a timer that is not set.  loop_timer_set(t, at)
 * makes it fire once, at loop_now() >= ${at}; UINT64_MAX: not at all.
 */
struct loop_timer *loop_timer_new(void (*cb)(void *arg), void *arg);
void loop_timer_set(struct loop_timer *t, uint64_t at);
void loop_timer_free(struct loop_timer *t);

#endif

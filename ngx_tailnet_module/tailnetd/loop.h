/*
 * loop.h: the engine's event loop: descriptors, timers, host names.
 *
 * The only place that knows libuv, so that tests can put another loop under
 * the same names.  One loop a process; callbacks run on its thread.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/tn_addr.h"

#define LOOP_ADDRS_MAX 32 /* of one host name; what is beyond is left out */

struct loop_watch;
struct loop_timer;
struct loop_idle;
struct loop_lookup;

/* Returns 0, or -1: no loop to be had (errno). */
int loop_init(void);

/* Runs until loop_stop(); then loop_free() releases what is left. */
void loop_run(void);
void loop_stop(void);
void loop_free(void);

/* Monotonic milliseconds, and the same in microseconds; read anew at each call.
 */
uint64_t loop_now(void);
uint64_t loop_now_us(void);

/*
 * loop_watch_new(fd, cb, arg): call ${cb} while ${fd} is readable or at its
 * end.  The descriptor stays the caller's and must outlive the watch.
 * NULL: no memory, or ${fd} cannot be polled.  loop_watch_free(NULL) is
 * harmless, also from inside the callback.
 */
struct loop_watch *loop_watch_new(int fd, void (*cb)(void *arg), void *arg);
void loop_watch_free(struct loop_watch *w);

/*
 * loop_watch_want(w, readable, writable): when the callback is called from now
 * on; a new watch wants readable.  The callback is not told which it was: it
 * tries what it has to do, and its own system calls see errors.  Returns 0, or
 * -1: the descriptor cannot be polled any more (it failed).
 */
int loop_watch_want(struct loop_watch *w, bool readable, bool writable);

/*
 * loop_timer_new(cb, arg): a timer that is not set.  loop_timer_set(t, at)
 * makes it fire once, at loop_now() >= ${at}; UINT64_MAX: not at all.
 */
struct loop_timer *loop_timer_new(void (*cb)(void *arg), void *arg);
void loop_timer_set(struct loop_timer *t, uint64_t at);
void loop_timer_free(struct loop_timer *t);

/*
 * loop_idle_new(cb, arg): long work in pieces.  While it is wanted, ${cb} is
 * called once in each turn of the loop, which does not sleep meanwhile and
 * serves descriptors and timers in between.  A new one is not wanted.
 */
struct loop_idle *loop_idle_new(void (*cb)(void *arg), void *arg);
void loop_idle_want(struct loop_idle *i, bool wanted);
void loop_idle_free(struct loop_idle *i);

/*
 * loop_lookup_new(host, cb, arg): the addresses of ${host}, as the system's
 * resolver knows them, in its order.  ${cb} is called once from the loop: with
 * ${n} addresses, or with 0 and a reason.  Both are borrowed for the call; the
 * lookup is over then and may be freed there or later.  loop_lookup_free()
 * before that cancels: ${cb} is not called any more.  NULL: no memory, or
 * ${host} cannot be a name.
 */
struct loop_lookup *loop_lookup_new(const char *host,
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why),
    void *arg);
void loop_lookup_free(struct loop_lookup *l);

#endif

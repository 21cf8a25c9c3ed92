/*
 * renewal.h: when a node key that has an end is renewed.
 *
 * Before its end where that takes an auth key only, else at its end; a try that
 * leads to nothing is repeated after a delay that grows, until the key's end
 * moves.  Nothing else moves it: clocks may be set, and netmaps come often.
 */
#ifndef RENEWAL_H
#define RENEWAL_H

#include <stdbool.h>
#include <stdint.h>

#define RENEWAL_AHEAD_S   60    /* before the key's end */
#define RENEWAL_RETRY_MS  10000 /* doubled up to ... */
#define RENEWAL_RETRY_MAX 600000
#define RENEWAL_LOOK_MS   3600000 /* the clock is looked at so often */

struct renewal {
    int64_t due;    /* seconds since 1970, 0: never */
    unsigned tries; /* since it is due */
    uint64_t after; /* loop_now() before which it is not tried again */
};

/* The key's ${end} in seconds since 1970, 0: none.  ${alone}: nobody has to
 * come for a renewal.  ${wall}: seconds since 1970, as the server has it. */
void renewal_set(struct renewal *r, int64_t end, bool alone, int64_t wall);

/* Is it to be tried now?  ${now}: loop_now(). */
bool renewal_due(const struct renewal *r, int64_t wall, uint64_t now);

/* It is tried. */
void renewal_tried(struct renewal *r, uint64_t now);

/* When to ask renewal_due() again, a loop_now(); UINT64_MAX: not before the
 * next renewal_set(). */
uint64_t renewal_wake(const struct renewal *r, int64_t wall, uint64_t now);

#endif

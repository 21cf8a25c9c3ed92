/*
 * replay.h: the window of transport counters (RFC 6479; whitepaper 5.4.6).
 */
#ifndef REPLAY_H
#define REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#define REPLAY_WORDS  128
#define REPLAY_WINDOW ((REPLAY_WORDS - 1) * 64)

_Static_assert(REPLAY_WINDOW == 8128, "window of the specification");
_Static_assert((REPLAY_WORDS & (REPLAY_WORDS - 1)) == 0, "ring");

/* All zero: nothing received yet. */
struct replay {
    uint64_t next; /* greatest counter accepted, plus one */
    uint64_t ring[REPLAY_WORDS];
};

/*
 * replay_accept(r, counter): takes ${counter} of a message whose tag was good.
 * False: seen already, older than the window, or past the message limit.
 */
bool replay_accept(struct replay *r, uint64_t counter);

#endif

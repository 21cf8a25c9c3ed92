/*
 * replay.c: a ring of bits, one per counter, moved a word at a time.
 *
 * The word that holds the greatest counter may be partly in the future, so the
 * window is one word shorter than the ring; moving forward clears whole words
 * and never shifts.
 */
#include "replay.h"

#include "msg.h"

bool
replay_accept(struct replay *r, uint64_t counter)
{
    uint64_t word = counter / 64, bit = UINT64_C(1) << (counter % 64);
    uint64_t *slot = &r->ring[word % REPLAY_WORDS];

    if (counter >= MSG_REJECT_AFTER_MESSAGES)
        return false; /* so that no sum below wraps */
    if (counter + 1 + REPLAY_WINDOW < r->next)
        return false;
    if (counter >= r->next) {
        uint64_t last = r->next > 0 ? (r->next - 1) / 64 : 0;
        uint64_t move = word - last;

        if (move > REPLAY_WORDS)
            move = REPLAY_WORDS;
        for (uint64_t i = 1; i <= move; i++)
            r->ring[(last + i) % REPLAY_WORDS] = 0;
        r->next = counter + 1;
    }
    if (*slot & bit)
        return false;
    *slot |= bit;
    return true;
}

/* renewal.c: when a node key is renewed; see renewal.h. */
#include "renewal.h"

void
renewal_set(struct renewal *r, int64_t end, bool alone, int64_t wall)
{
    r->due = end;
    if (end > RENEWAL_AHEAD_S && alone)
        r->due = end - RENEWAL_AHEAD_S;
    if (r->due != 0 && r->due <= wall)
        return;
    r->tries = 0;
    r->after = 0;
}

bool
renewal_due(const struct renewal *r, int64_t wall, uint64_t now)
{
    return r->due != 0 && r->due <= wall && r->after <= now;
}

void
renewal_tried(struct renewal *r, uint64_t now)
{
    uint64_t ms = RENEWAL_RETRY_MS;

    for (unsigned i = 0; i < r->tries && ms < RENEWAL_RETRY_MAX; i++)
        ms *= 2;
    r->after = now + (ms < RENEWAL_RETRY_MAX ? ms : RENEWAL_RETRY_MAX);
    r->tries++;
}

uint64_t
renewal_wake(const struct renewal *r, int64_t wall, uint64_t now)
{
    uint64_t ms = 0;

    if (r->due == 0)
        return UINT64_MAX;
    if (r->due > wall) {
        ms = RENEWAL_LOOK_MS;
        if (r->due - wall < RENEWAL_LOOK_MS / 1000)
            ms = 1000 * (uint64_t)(r->due - wall);
    }
    return now + ms > r->after ? now + ms : r->after;
}

/*
 * Theory of operation.  A run is a list of questions made at its start, each
 * with the time at which it is due.  A question whose region has answered in
 * its family meanwhile is not asked.  A transaction's first two bytes are the
 * question's number, the other ten are random, so that an answer finds its
 * question and nobody else can give it.
 *
 * A run is over when all have answered, or after NETCHECK_RUN; or earlier, when
 * three regions have and the others had twice the time of the slowest of these.
 */
#include "netcheck.h"

#include <stdlib.h>
#include <string.h>

#include "stun.h"

#define FULL_TRIES  3
#define NEAR        3 /* regions of a run that is not full */
#define NEAR_TRIES  2
#define HOME_TRIES  4
#define ENOUGH      3 /* regions that answered */
#define EXTRA       (20 * NETCHECK_MS)
#define RANDOM_FROM 2

struct sample {
    uint64_t at;
    uint32_t us;
};

struct region {
    struct netcheck_region is;
    struct sample samples[2][NETCHECK_HISTORY];
    unsigned next[2];
    bool asked, answered[2]; /* in this run */
    bool silent;             /* in the last one that asked it */
};

struct question {
    unsigned region; /* index */
    struct tn_endpoint to;
    uint64_t due, sent; /* sent 0: not yet */
    bool six, over;
    uint8_t txid[STUN_TXID_LEN];
};

struct netcheck {
    const struct netcheck_ops *ops;
    void *ctx;
    struct region *regions;
    size_t nregions;
    struct question *questions; /* NULL: no run */
    size_t nquestions;
    uint64_t end;
    struct netcheck_report now, last;
};

struct netcheck *
netcheck_new(const struct netcheck_ops *ops, void *ctx)
{
    struct netcheck *n = calloc(1, sizeof(*n));

    if (n == NULL)
        return NULL;
    n->ops = ops;
    n->ctx = ctx;
    return n;
}

static void
drop_run(struct netcheck *n)
{
    free(n->questions);
    n->questions = NULL;
    n->nquestions = 0;
}

void
netcheck_free(struct netcheck *n)
{
    if (n == NULL)
        return;
    drop_run(n);
    free(n->regions);
    free(n);
}

static struct region *
find(const struct netcheck *n, uint16_t id)
{
    size_t i;

    for (i = 0; i < n->nregions; i++)
        if (n->regions[i].is.id == id)
            return &n->regions[i];
    return NULL;
}

int
netcheck_regions(
    struct netcheck *n, const struct netcheck_region *list, size_t count)
{
    struct region *regions = calloc(count + 1, sizeof(*regions)), *had;
    size_t i;

    if (regions == NULL)
        return -1;
    for (i = 0; i < count; i++) {
        had = find(n, list[i].id);
        if (had != NULL)
            regions[i] = *had;
        regions[i].is = list[i];
    }
    drop_run(n);
    free(n->regions);
    n->regions = regions;
    n->nregions = count;
    return 0;
}

/* ---- what is known ---- */

static uint32_t
best_of(const struct region *r, bool six, uint64_t now)
{
    uint32_t best = 0;
    unsigned i;

    for (i = 0; i < NETCHECK_HISTORY; i++) {
        const struct sample *s = &r->samples[six][i];

        if (s->us != 0 && now - s->at <= NETCHECK_RECENT &&
            (best == 0 || s->us < best))
            best = s->us;
    }
    return best;
}

static uint32_t
nearest(const struct region *r, uint64_t now)
{
    uint32_t four = best_of(r, false, now), six = best_of(r, true, now);

    return four == 0 || (six != 0 && six < four) ? six : four;
}

uint32_t
netcheck_latency(
    const struct netcheck *n, uint16_t region, bool six, uint64_t now)
{
    const struct region *r = find(n, region);

    return r == NULL ? 0 : best_of(r, six, now);
}

static double
weighed(const struct region *r, uint64_t now)
{
    return (double)nearest(r, now) * (r->is.score > 0 ? r->is.score : 1.0);
}

/* The regions may be measured while nothing gets through: always the same. */
static uint16_t
pick_any(const struct netcheck *n, uint32_t pick)
{
    size_t i, k = 0;

    for (i = 0; i < n->nregions; i++)
        k += !n->regions[i].is.no_home;
    if (k == 0)
        return 0;
    pick %= (uint32_t)k;
    for (i = 0; n->regions[i].is.no_home || pick-- > 0; i++)
        ;
    return n->regions[i].is.id;
}

uint16_t
netcheck_home(const struct netcheck *n, uint16_t home, bool alive,
    uint32_t pick, uint64_t now)
{
    const struct region *had = find(n, home), *best = NULL;
    double had_us, best_us = 0;
    size_t i;

    for (i = 0; i < n->nregions; i++) {
        const struct region *r = &n->regions[i];

        if (r->is.no_home || r->silent || nearest(r, now) == 0)
            continue;
        if (best == NULL || weighed(r, now) < best_us) {
            best = r;
            best_us = weighed(r, now);
        }
    }
    if (had != NULL && had->is.no_home)
        had = NULL;
    if (best == NULL)
        return had != NULL ? home : pick_any(n, pick);
    if (had == NULL || had == best)
        return best->is.id;
    had_us = weighed(had, now);
    if (had_us == 0 || had->silent)
        return alive ? home : best->is.id;
    if (had_us - best_us < (double)NETCHECK_NEARER ||
        best_us > had_us * 2.0 / 3.0)
        return home;
    return best->is.id;
}

/* ---- a run ---- */

static unsigned
tries_of(const struct netcheck *n, const struct region *r, uint16_t home,
    bool full, uint64_t now)
{
    uint32_t us = nearest(r, now), other;
    unsigned nearer = 0;
    size_t i;

    if (r->is.nservers == 0)
        return 0;
    if (full)
        return FULL_TRIES;
    if (r->is.id == home)
        return HOME_TRIES;
    if (us == 0)
        return 0;
    for (i = 0; i < n->nregions; i++) {
        other = nearest(&n->regions[i], now);
        nearer += other != 0 && other < us;
    }
    return nearer < NEAR ? NEAR_TRIES : 0;
}

static void
ask(struct netcheck *n, unsigned index, unsigned tries, bool six, uint64_t now)
{
    struct region *r = &n->regions[index];
    const struct tn_endpoint *to;
    unsigned i;

    for (i = 0; i < tries; i++) {
        to = &r->is.servers[i % r->is.nservers][six];
        if (to->port == 0)
            continue;
        n->questions[n->nquestions++] = (struct question){.region = index,
            .to = *to,
            .six = six,
            .due = now + i * NETCHECK_SPACING};
        r->asked = true;
    }
}

bool
netcheck_start(
    struct netcheck *n, uint16_t home, bool full, bool six, uint64_t now)
{
    size_t room = n->nregions * HOME_TRIES * 2;
    unsigned i, tries;

    if (n->questions != NULL || room == 0 || room > UINT16_MAX)
        return false;
    n->questions = calloc(room, sizeof(*n->questions));
    if (n->questions == NULL)
        return false;
    for (i = 0; i < n->nregions; i++) {
        struct region *r = &n->regions[i];

        r->asked = r->answered[0] = r->answered[1] = false;
        tries = tries_of(n, r, home, full, now);
        ask(n, i, tries, false, now);
        if (six)
            ask(n, i, tries, true, now);
    }
    if (n->nquestions == 0) {
        drop_run(n);
        return false;
    }
    memset(&n->now, 0, sizeof(n->now));
    n->end = now + NETCHECK_RUN;
    (void)netcheck_tick(n, now);
    return true;
}

bool
netcheck_running(const struct netcheck *n)
{
    return n->questions != NULL;
}

static void
saw(struct netcheck *n, const struct tn_endpoint *at)
{
    struct netcheck_report *r = &n->now;
    bool four = tn_addr_is4(&at->addr);
    unsigned i, at4 = 0;

    for (i = 0; i < r->nseen; i++) {
        if (r->seen[i].at.port == at->port &&
            tn_addr_equal(&r->seen[i].at.addr, &at->addr)) {
            r->seen[i].servers++;
            return;
        }
        at4 += tn_addr_is4(&r->seen[i].at.addr);
    }
    r->varies = r->varies || (four && at4 > 0);
    if (r->nseen == NETCHECK_SEEN)
        return;
    i = four ? at4 : r->nseen;
    memmove(r->seen + i + 1, r->seen + i, (r->nseen - i) * sizeof(*r->seen));
    r->seen[i] = (struct netcheck_seen){*at, 1};
    r->nseen++;
}

/* How many regions answered, and whether there is one more to wait for. */
static unsigned
count(const struct netcheck *n, bool *all)
{
    unsigned answered = 0;
    size_t i;

    *all = true;
    for (i = 0; i < n->nregions; i++) {
        const struct region *r = &n->regions[i];

        if (r->answered[0] || r->answered[1])
            answered++;
    }
    for (i = 0; i < n->nquestions; i++)
        if (!n->regions[n->questions[i].region].answered[n->questions[i].six])
            *all = false;
    return answered;
}

static unsigned
asked(const struct netcheck *n)
{
    unsigned k = 0;
    size_t i;

    for (i = 0; i < n->nregions; i++)
        k += n->regions[i].asked;
    return k;
}

/* What the answers and their absence mean. */
static void
judge(struct netcheck *n)
{
    unsigned four = 0;
    size_t i;

    for (i = 0; i < n->nregions; i++) {
        struct region *r = &n->regions[i];

        if (!r->asked)
            continue;
        four += r->answered[0];
        /* Where nobody answers it is not the region's fault. */
        if (n->now.udp)
            r->silent = !r->answered[0] && !r->answered[1];
    }
    /* Mapped alike by servers at different addresses, or not. */
    n->now.varies_known = n->now.varies || four > 1;
}

static void
add_sample(struct region *r, bool six, uint64_t us, uint64_t now)
{
    struct sample *s = &r->samples[six][r->next[six]++ % NETCHECK_HISTORY];

    us = us > 0 ? us : 1;
    *s = (struct sample){now, us < UINT32_MAX ? (uint32_t)us : UINT32_MAX};
}

void
netcheck_hush(struct netcheck *n)
{
    size_t i;

    for (i = 0; i < n->nregions; i++)
        n->regions[i].silent = true;
}

void
netcheck_sample(struct netcheck *n, uint16_t region, uint32_t us, uint64_t now)
{
    struct region *r = find(n, region);

    if (r == NULL)
        return;
    add_sample(r, false, us, now);
    r->silent = false;
}

bool
netcheck_receive(
    struct netcheck *n, const uint8_t *msg, size_t len, uint64_t now)
{
    uint8_t txid[STUN_TXID_LEN];
    struct tn_endpoint at;
    struct question *q;
    struct region *r;
    uint64_t us, end;
    bool all;
    size_t i;

    if (n->questions == NULL || stun_response(msg, len, txid, &at) != 0)
        return false;
    i = (size_t)(txid[0] << 8 | txid[1]);
    if (i >= n->nquestions)
        return false;
    q = &n->questions[i];
    if (q->sent == 0 || q->over || memcmp(q->txid, txid, STUN_TXID_LEN) != 0 ||
        tn_addr_is4(&at.addr) == q->six)
        return false;
    q->over = true;
    r = &n->regions[q->region];
    us = now - q->sent;
    add_sample(r, q->six, us, now);
    r->answered[q->six] = true;
    n->now.udp = true;
    if (q->six)
        n->now.six = true;
    else
        n->now.four = true;
    saw(n, &at);
    i = count(n, &all);
    end = now + 2 * us + EXTRA;
    if (all)
        n->end = now;
    else if (i >= (asked(n) < ENOUGH ? asked(n) : ENOUGH) && end < n->end)
        n->end = end;
    return true;
}

bool
netcheck_tick(struct netcheck *n, uint64_t now)
{
    uint8_t msg[STUN_REQUEST_LEN];
    size_t i;

    if (n->questions == NULL)
        return false;
    if (now >= n->end) {
        judge(n);
        n->last = n->now;
        drop_run(n);
        return true;
    }
    for (i = 0; i < n->nquestions; i++) {
        struct question *q = &n->questions[i];

        if (q->sent != 0 || q->due > now ||
            n->regions[q->region].answered[q->six])
            continue;
        q->txid[0] = (uint8_t)(i >> 8);
        q->txid[1] = (uint8_t)i;
        n->ops->random(
            n->ctx, q->txid + RANDOM_FROM, STUN_TXID_LEN - RANDOM_FROM);
        q->sent = now;
        stun_request(msg, q->txid);
        n->ops->send(n->ctx, &q->to, msg, sizeof(msg));
    }
    return false;
}

uint64_t
netcheck_deadline(const struct netcheck *n)
{
    uint64_t at = n->end;
    size_t i;

    if (n->questions == NULL)
        return UINT64_MAX;
    for (i = 0; i < n->nquestions; i++) {
        const struct question *q = &n->questions[i];

        if (q->sent == 0 && q->due < at &&
            !n->regions[q->region].answered[q->six])
            at = q->due;
    }
    return at;
}

const struct netcheck_report *
netcheck_report(const struct netcheck *n)
{
    return &n->last;
}

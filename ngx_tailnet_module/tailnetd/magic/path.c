#include "path.h"

#include <stdlib.h>
#include <string.h>

#define SCAN_EVERY (PATH_S / 10) /* candidates are looked at, not pinged */
#define MARGIN     10            /* percent of latency that is worth a move */

struct candidate {
    struct tn_endpoint at;
    unsigned from;      /* enum path_from */
    uint64_t last_ping; /* ours; 0: none since it may be pinged at once */
    uint64_t heard;     /* ping or pong from there */
    bool answered_ping; /* we pinged back since last_ping's round */
    bool proven;        /* a pong came from there */
    bool owed;          /* a ping came from there since our last one */
    bool has_txid;
    uint8_t txid[12]; /* of its last ping */
};

struct pending {
    uint8_t txid[12];
    struct tn_endpoint to;
    uint64_t sent;
};

struct path {
    const struct path_ops *ops;
    void *ctx;
    enum path_state state;
    struct tn_endpoint best; /* port 0: none */
    uint32_t best_us;        /* 0: not measured */
    uint64_t trust_until;
    uint64_t quiet;      /* first packet since it was heard; 0: none */
    uint64_t asked;      /* first ping since it was heard; 0: none ... */
    uint64_t asked_last; /* ... and the last one */
    uint64_t last_send;  /* 0: never */
    uint64_t last_heard; /* ping, pong or call */
    uint64_t last_probe;
    uint64_t last_scan;
    uint64_t last_call; /* made */
    uint64_t followed;  /* call that we followed */
    uint64_t heartbeat; /* next; 0: none */
    struct candidate *candidates;
    size_t ncandidates, candidates_size;
    struct pending *pings; /* in the order they were sent */
    size_t npings, pings_size;
};

static bool
same(const struct tn_endpoint *a, const struct tn_endpoint *b)
{
    return a->port == b->port && tn_addr_equal(&a->addr, &b->addr);
}

static bool
trusted(const struct path *p, uint64_t now)
{
    return p->best.port != 0 && now < p->trust_until;
}

bool
path_active(const struct path *p, uint64_t now)
{
    return p->last_send != 0 && now - p->last_send <= PATH_ACTIVE;
}

/* ---- whether the best address still answers ---- */

static void
set_best(struct path *p, const struct tn_endpoint *to)
{
    p->best = *to;
    p->quiet = p->asked = 0;
}

void
path_heard(struct path *p, const struct tn_endpoint *src)
{
    if ((p->quiet != 0 || p->asked != 0) && same(src, &p->best))
        p->quiet = p->asked = 0;
}

/* When it has owed an answer for too long; a slow one has more time. */
static uint64_t
late(const struct path *p)
{
    uint64_t slow = 3 * (uint64_t)p->best_us;

    return p->asked + (slow > PATH_LATE ? slow : PATH_LATE);
}

/* ---- the state ---- */

static void
set_state(struct path *p, uint64_t now, const struct tn_endpoint *before)
{
    enum path_state next;

    if (trusted(p, now))
        next = PATH_DIRECT;
    else if (!path_active(p, now))
        next = PATH_IDLE;
    else
        next = p->best.port != 0 ? PATH_DOUBT : PATH_RELAY;
    if (next == p->state && same(&p->best, before))
        return;
    p->state = next;
    p->ops->changed(p->ctx);
}

/* ---- which address is better ---- */

static unsigned
bonus(const struct tn_addr *a)
{
    const uint8_t *b = a->b, *v4 = b + 12;
    unsigned points = tn_addr_is4(a) ? 0 : 10;
    static const struct tn_addr loopback6 = {{[15] = 1}};

    if (tn_addr_is4(a)) {
        if (v4[0] == 127)
            return points + 50;
        if (v4[0] == 169 && v4[1] == 254)
            return points + 30;
        if (v4[0] == 10 || (v4[0] == 172 && (v4[1] & 0xf0) == 16) ||
            (v4[0] == 192 && v4[1] == 168))
            return points + 20;
        return points;
    }
    if (tn_addr_equal(a, &loopback6))
        return points + 50;
    if (b[0] == 0xfe && (b[1] & 0xc0) == 0x80)
        return points + 30;
    return (b[0] & 0xfe) == 0xfc ? points + 20 : points;
}

bool
path_better(const struct tn_endpoint *a, uint32_t a_us,
    const struct tn_endpoint *b, uint32_t b_us)
{
    unsigned pa, pb, gain;
    uint64_t fast, slow;

    if (a->port == 0 || same(a, b))
        return false;
    if (b->port == 0)
        return true;
    pa = bonus(&a->addr);
    pb = bonus(&b->addr);
    fast = a_us < b_us ? a_us : b_us;
    slow = a_us < b_us ? b_us : a_us;
    gain = slow == 0 ? 0 : 100 - (unsigned)(fast * 100 / slow);
    if (a_us < b_us)
        pa += gain;
    else
        pb += gain;
    return pa > pb + (pa - gain == pb && a_us < b_us ? MARGIN : 0);
}

/* ---- pings ---- */

static struct candidate *
find(const struct path *p, const struct tn_endpoint *e)
{
    size_t i;

    for (i = 0; i < p->ncandidates; i++)
        if (same(&p->candidates[i].at, e))
            return &p->candidates[i];
    return NULL;
}

bool
path_proven(const struct path *p, const struct tn_endpoint *e)
{
    const struct candidate *c = find(p, e);

    return c != NULL && c->proven;
}

static bool
room_for_ping(struct path *p)
{
    size_t size;
    struct pending *pings;

    if (p->npings == PATH_PINGS_MAX) {
        memmove(p->pings, p->pings + 1, (p->npings - 1) * sizeof(*p->pings));
        p->npings--;
    }
    if (p->npings < p->pings_size)
        return true;
    size = p->pings_size == 0 ? 8 : 2 * p->pings_size;
    pings = realloc(p->pings, size * sizeof(*pings));
    if (pings == NULL)
        return false;
    p->pings = pings;
    p->pings_size = size;
    return true;
}

/*
 * Anybody who recorded a ping may send it again, from any address.  An address
 * that nothing but pings speak for, and that has never answered, gets one of
 * ours for each that came from there: nobody is sent more than he was before.
 */
static bool
may_ping(const struct candidate *c)
{
    return c->proven || c->owed || c->from != PATH_FROM_PING;
}

static bool
ping(struct path *p, const struct tn_endpoint *to, uint64_t now)
{
    struct candidate *c = find(p, to);
    struct pending *w;

    if (c != NULL) {
        c->last_ping = now;
        c->owed = false;
    }
    if (same(to, &p->best)) {
        p->asked = p->asked == 0 ? now : p->asked;
        p->asked_last = now;
    }
    if (!room_for_ping(p))
        return false;
    w = &p->pings[p->npings];
    p->ops->random(p->ctx, w->txid, sizeof(w->txid));
    w->to = *to;
    w->sent = now;
    if (!p->ops->ping(p->ctx, to, w->txid))
        return false;
    p->npings++;
    return true;
}

static void
call(struct path *p, uint64_t now)
{
    if (p->last_call != 0 && now - p->last_call < PATH_PING_EVERY)
        return;
    p->last_call = now;
    p->ops->call(p->ctx);
}

/* Pings every candidate that may be pinged, and calls the peer if that is
 * wanted and some ping went out, or if there is nothing to ping. */
static void
probe(struct path *p, uint64_t now, bool calls)
{
    bool sent = false, none = true;
    size_t i;

    if (p->last_scan != 0 && now - p->last_scan < SCAN_EVERY)
        return;
    p->last_scan = p->last_probe = now;
    for (i = 0; i < p->ncandidates; i++) {
        struct candidate *c = &p->candidates[i];

        if (!may_ping(c))
            continue;
        none = false;
        if (c->last_ping == 0 || now - c->last_ping >= PATH_PING_EVERY) {
            c->answered_ping = false;
            sent = ping(p, &c->at, now) || sent;
        }
    }
    if (calls && (sent || none))
        call(p, now);
}

static bool
wants_probe(const struct path *p, uint64_t now)
{
    if (!trusted(p, now) || p->last_probe == 0)
        return true;
    return p->best_us > PATH_GOOD_US && now - p->last_probe >= PATH_PROBE;
}

/* ---- packets ---- */

struct path *
path_new(const struct path_ops *ops, void *ctx)
{
    struct path *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->ops = ops;
    p->ctx = ctx;
    return p;
}

void
path_free(struct path *p)
{
    if (p == NULL)
        return;
    free(p->candidates);
    free(p->pings);
    free(p);
}

struct path_route
path_send(struct path *p, uint64_t now)
{
    struct path_route r = {.udp = p->best, .relay = !trusted(p, now)};

    p->last_send = now;
    if (p->heartbeat == 0)
        p->heartbeat = now + PATH_HEARTBEAT;
    if (p->quiet == 0)
        p->quiet = now;
    if (r.relay || p->last_probe == 0)
        probe(p, now, true);
    else if (now - p->quiet >= PATH_QUIET && p->asked == 0)
        (void)ping(p, &p->best, now);
    if (r.relay || p->state != PATH_DIRECT)
        set_state(p, now, &p->best);
    return r;
}

/* ---- candidates ---- */

/* The one that was silent for longest, the control server's last. */
static struct candidate *
worst(struct path *p)
{
    struct candidate *w = NULL, *c;
    bool said, w_said = true;
    size_t i;

    for (i = 0; i < p->ncandidates; i++) {
        c = &p->candidates[i];
        said = (c->from & (PATH_FROM_NETMAP | PATH_FROM_CALL)) != 0;
        if (same(&c->at, &p->best))
            continue;
        if (w == NULL || (w_said && !said) ||
            (w_said == said && c->heard < w->heard)) {
            w = c;
            w_said = said;
        }
    }
    return w;
}

static struct candidate *
add(struct path *p, const struct tn_endpoint *e, unsigned from)
{
    struct candidate *c = find(p, e), *list;
    size_t size;

    if (c != NULL) {
        c->from |= from;
        return c;
    }
    if (p->ncandidates == PATH_CANDIDATES_MAX) {
        c = worst(p);
    } else {
        if (p->ncandidates == p->candidates_size) {
            size = p->candidates_size == 0 ? 4 : 2 * p->candidates_size;
            list = realloc(p->candidates, size * sizeof(*list));
            if (list == NULL)
                return NULL;
            p->candidates = list;
            p->candidates_size = size;
        }
        c = &p->candidates[p->ncandidates++];
    }
    *c = (struct candidate){.at = *e, .from = from};
    p->last_scan = 0; /* it may be pinged at once */
    return c;
}

static void
replace(struct path *p, const struct tn_endpoint *list, size_t n, unsigned from)
{
    size_t i, kept = 0;

    for (i = 0; i < p->ncandidates; i++)
        p->candidates[i].from &= ~from;
    for (i = 0; i < n && i < PATH_CANDIDATES_MAX; i++)
        if (list[i].port != 0)
            (void)add(p, &list[i], from);
    for (i = 0; i < p->ncandidates; i++)
        if (p->candidates[i].from != 0 || same(&p->candidates[i].at, &p->best))
            p->candidates[kept++] = p->candidates[i];
    p->ncandidates = kept;
}

void
path_netmap(
    struct path *p, const struct tn_endpoint *list, size_t n, uint64_t now)
{
    replace(p, list, n, PATH_FROM_NETMAP);
    if (path_active(p, now) && !trusted(p, now))
        probe(p, now, false);
}

void
path_call(
    struct path *p, const struct tn_endpoint *list, size_t n, uint64_t now)
{
    size_t i;

    if (p->followed != 0 && now - p->followed < PATH_CALL_MIN)
        return;
    p->followed = p->last_heard = now;
    replace(p, list, n, PATH_FROM_CALL);
    for (i = 0; i < p->ncandidates; i++)
        p->candidates[i].last_ping = 0;
    p->last_scan = 0;
    probe(p, now, false);
}

void
path_resume(struct path *p, const struct tn_endpoint *e)
{
    if (add(p, e, PATH_FROM_HOT) == NULL)
        return;
    set_best(p, e);
    p->best_us = 0;
    p->trust_until = 0;
}

/* ---- what comes ---- */

bool
path_pinged(struct path *p, const struct tn_endpoint *src,
    const uint8_t txid[12], uint64_t now)
{
    struct candidate *c = find(p, src);

    p->last_heard = now;
    if (c == NULL)
        c = add(p, src, PATH_FROM_PING);
    if (c == NULL)
        return true;
    c->heard = now;
    /* It may be an old ping, and its source forged: that puts off the question
     * whether the best address answers, but not the end of its trust. */
    path_heard(p, src);
    if (c->has_txid && memcmp(c->txid, txid, sizeof(c->txid)) == 0)
        return false;
    memcpy(c->txid, txid, sizeof(c->txid));
    c->has_txid = c->owed = true;
    /* The way is open from there, so ours may have been lost a moment ago at a
     * NAT that did not know of us yet. */
    if (!c->answered_ping && path_active(p, now) && !trusted(p, now)) {
        c->answered_ping = true;
        (void)ping(p, src, now);
    }
    return true;
}

bool
path_pong(struct path *p, const uint8_t txid[12], uint64_t now)
{
    struct tn_endpoint before = p->best;
    struct candidate *c;
    struct pending w;
    uint32_t us;
    size_t i;

    for (i = 0; i < p->npings; i++)
        if (memcmp(p->pings[i].txid, txid, sizeof(w.txid)) == 0)
            break;
    if (i == p->npings)
        return false;
    w = p->pings[i];
    p->npings--;
    memmove(
        p->pings + i, p->pings + i + 1, (p->npings - i) * sizeof(*p->pings));
    c = find(p, &w.to);
    if (c == NULL) /* meanwhile it is not an address of the peer any more */
        return true;
    p->last_heard = c->heard = now;
    c->proven = true;
    us = now - w.sent < UINT32_MAX ? (uint32_t)(now - w.sent) : UINT32_MAX;
    if (!trusted(p, now) || path_better(&w.to, us, &p->best, p->best_us))
        set_best(p, &w.to);
    if (same(&p->best, &w.to)) {
        p->quiet = p->asked = 0;
        p->best_us = us;
        p->trust_until = now + PATH_TRUST;
    }
    set_state(p, now, &before);
    return true;
}

void
path_distrust(struct path *p, uint64_t now)
{
    size_t i;

    p->trust_until = p->asked = 0;
    for (i = 0; i < p->ncandidates; i++)
        p->candidates[i].last_ping = 0;
    p->last_scan = p->last_call = 0;
    if (path_active(p, now))
        probe(p, now, true);
    set_state(p, now, &p->best);
}

void
path_forget(struct path *p)
{
    struct tn_endpoint before = p->best;

    memset(&p->best, 0, sizeof(p->best));
    p->best_us = 0;
    p->trust_until = 0;
    p->npings = 0;
    p->last_probe = p->last_scan = p->last_call = p->followed = 0;
    replace(p, NULL, 0, PATH_FROM_CALL | PATH_FROM_PING | PATH_FROM_HOT);
    for (size_t i = 0; i < p->ncandidates; i++) {
        p->candidates[i].last_ping = 0;
        p->candidates[i].has_txid = false;
    }
    set_state(p, p->last_send, &before);
}

/* ---- time ---- */

uint64_t
path_deadline(const struct path *p)
{
    uint64_t at = UINT64_MAX;

    if (p->heartbeat != 0)
        at = p->heartbeat;
    if (p->npings > 0 && p->pings[0].sent + PATH_TIMEOUT < at)
        at = p->pings[0].sent + PATH_TIMEOUT;
    if (p->state != PATH_DIRECT)
        return at;
    if (p->trust_until < at)
        at = p->trust_until;
    if (p->asked != 0 && late(p) < at)
        at = late(p);
    if (p->asked != 0 && p->asked_last + PATH_AGAIN < at)
        at = p->asked_last + PATH_AGAIN;
    return at;
}

/* Pings without an answer; the last chance of an address in doubt. */
static void
expire(struct path *p, uint64_t now)
{
    size_t n = 0;

    while (n < p->npings && now - p->pings[n].sent >= PATH_TIMEOUT) {
        if (same(&p->pings[n].to, &p->best) && !trusted(p, now)) {
            memset(&p->best, 0, sizeof(p->best));
            p->best_us = 0;
        }
        n++;
    }
    p->npings -= n;
    memmove(p->pings, p->pings + n, p->npings * sizeof(*p->pings));
}

/* An answer that is owed: asked for again, or not waited for any more. */
static void
dun(struct path *p, uint64_t now)
{
    if (now >= late(p))
        path_distrust(p, now);
    else if (now - p->asked_last >= PATH_AGAIN)
        (void)ping(p, &p->best, now);
}

void
path_tick(struct path *p, uint64_t now)
{
    struct tn_endpoint before = p->best;

    if (p->npings > 0)
        expire(p, now);
    if (p->asked != 0 && trusted(p, now))
        dun(p, now);
    if (p->heartbeat != 0 && now >= p->heartbeat) {
        p->heartbeat = 0;
        if (path_active(p, now)) {
            p->heartbeat = now + PATH_HEARTBEAT;
            if (p->best.port != 0)
                (void)ping(p, &p->best, now);
            if (wants_probe(p, now))
                probe(p, now, true);
        }
    }
    set_state(p, now, &before);
}

/* ---- for others to see ---- */

enum path_state
path_state(const struct path *p)
{
    return p->state;
}

struct tn_endpoint
path_best(const struct path *p)
{
    return p->best;
}

uint32_t
path_latency(const struct path *p)
{
    return p->best_us;
}

bool
path_stale(const struct path *p, uint64_t now)
{
    return now - p->last_send > PATH_FORGET &&
           now - p->last_heard > PATH_FORGET;
}

size_t
path_candidates(const struct path *p)
{
    return p->ncandidates;
}

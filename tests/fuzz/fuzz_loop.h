/*
 * fuzz_loop.h: the timers of tailnetd/loop.h with a clock that the input turns,
 * and the engine's log lines, for targets that are a whole machine.
 */
#ifndef FUZZ_LOOP_H
#define FUZZ_LOOP_H

#include <stdarg.h>

#include "../../ngx_tailnet_module/tailnetd/engine/say.h"
#include "../../ngx_tailnet_module/tailnetd/loop.h"
#include "fuzz.h"

#define LOOP_ROUNDS 2000 /* timers that fire in one fuzz_sleep() */

struct loop_timer {
    struct loop_timer *next, **prev;
    uint64_t at;
    void (*cb)(void *arg);
    void *arg;
};

static struct {
    uint64_t now;
    struct loop_timer *timers;
} loop;

uint64_t
loop_now(void)
{
    return loop.now;
}

uint64_t
loop_now_us(void)
{
    return loop.now * 1000;
}

struct loop_timer *
loop_timer_new(void (*cb)(void *arg), void *arg)
{
    struct loop_timer *t = calloc(1, sizeof(*t));

    FUZZ_MUST(t != NULL);
    t->cb = cb;
    t->arg = arg;
    t->at = UINT64_MAX;
    t->next = loop.timers;
    t->prev = &loop.timers;
    if (t->next != NULL)
        t->next->prev = &t->next;
    loop.timers = t;
    return t;
}

void
loop_timer_set(struct loop_timer *t, uint64_t at)
{
    t->at = at;
}

void
loop_timer_free(struct loop_timer *t)
{
    if (t == NULL)
        return;
    *t->prev = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    free(t);
}

/* Work in pieces: a timer that is due at once, again and again. */
struct loop_idle {
    struct loop_timer *turn;
    bool wanted;
    void (*cb)(void *arg);
    void *arg;
};

static inline void
loop_idle_turn(void *arg)
{
    struct loop_idle *i = arg;

    if (!i->wanted)
        return;
    loop_timer_set(i->turn, loop.now);
    i->cb(i->arg);
}

struct loop_idle *
loop_idle_new(void (*cb)(void *arg), void *arg)
{
    struct loop_idle *i = calloc(1, sizeof(*i));

    FUZZ_MUST(i != NULL);
    i->turn = loop_timer_new(loop_idle_turn, i);
    i->cb = cb;
    i->arg = arg;
    return i;
}

void
loop_idle_want(struct loop_idle *i, bool wanted)
{
    i->wanted = wanted;
    loop_timer_set(i->turn, wanted ? loop.now : UINT64_MAX);
}

void
loop_idle_free(struct loop_idle *i)
{
    if (i == NULL)
        return;
    loop_timer_free(i->turn);
    free(i);
}

/* Runs what is due meanwhile, each at its time; a machine that never comes to
 * rest is found out. */
static inline void
fuzz_sleep(uint64_t ms)
{
    uint64_t end = loop.now + ms;
    struct loop_timer *t, *first;
    unsigned rounds;

    for (rounds = 0; rounds < LOOP_ROUNDS; rounds++) {
        first = NULL;
        for (t = loop.timers; t != NULL; t = t->next)
            if (t->at <= end && (first == NULL || t->at < first->at))
                first = t;
        if (first == NULL)
            break;
        loop.now = first->at > loop.now ? first->at : loop.now;
        first->at = UINT64_MAX;
        first->cb(first->arg);
    }
    FUZZ_MUST(rounds < LOOP_ROUNDS || ms > 0);
    loop.now = end;
}

/* What is said fits into a line. */
void
say(int level, const char *fmt, ...)
{
    char line[SAY_MAX];
    va_list ap;
    int n;

    FUZZ_MUST(level >= 3 && level <= 6);
    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    FUZZ_MUST(n > 0);
}

#endif

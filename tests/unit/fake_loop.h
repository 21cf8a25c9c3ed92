/*
 * fake_loop.h: the timers of tailnetd/loop.h with a clock that the test turns,
 * and its work in pieces. For one test program, instead of loop.c.
 */
#ifndef FAKE_LOOP_H
#define FAKE_LOOP_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/loop.h"

struct loop_timer {
    struct loop_timer *next;
    uint64_t at;
    void (*cb)(void *arg);
    void *arg;
};

struct loop_idle {
    struct loop_idle *next;
    bool wanted;
    void (*cb)(void *arg);
    void *arg;
};

static struct {
    uint64_t now, us; /* ms, and microseconds beyond */
    struct loop_timer *timers;
    unsigned ntimers;
    struct loop_idle *idles;
} loop;

uint64_t
loop_now(void)
{
    return loop.now;
}

uint64_t
loop_now_us(void)
{
    return loop.now * 1000 + loop.us;
}

struct loop_timer *
loop_timer_new(void (*cb)(void *arg), void *arg)
{
    struct loop_timer *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    t->cb = cb;
    t->arg = arg;
    t->at = UINT64_MAX;
    t->next = loop.timers;
    loop.timers = t;
    loop.ntimers++;
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
    struct loop_timer **at = &loop.timers;

    if (t == NULL)
        return;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    loop.ntimers--;
    free(t);
}

/* Runs what is due meanwhile, each at its time. */
static inline void
sleep_ms(uint64_t ms)
{
    uint64_t end = loop.now + ms;
    struct loop_timer *t, *first;

    for (;;) {
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
    loop.now = end;
}

struct loop_idle *
loop_idle_new(void (*cb)(void *arg), void *arg)
{
    struct loop_idle *i = calloc(1, sizeof(*i));

    assert_non_null(i);
    i->cb = cb;
    i->arg = arg;
    i->next = loop.idles;
    loop.idles = i;
    return i;
}

void
loop_idle_want(struct loop_idle *i, bool wanted)
{
    i->wanted = wanted;
}

void
loop_idle_free(struct loop_idle *i)
{
    struct loop_idle **at = &loop.idles;

    if (i == NULL)
        return;
    while (*at != i)
        at = &(*at)->next;
    *at = i->next;
    free(i);
}

/* One turn of the loop; whether there is work for another one. */
static inline bool
turn(void)
{
    struct loop_idle *i;

    for (i = loop.idles; i != NULL && !i->wanted; i = i->next)
        ;
    if (i != NULL)
        i->cb(i->arg); /* may free it */
    for (i = loop.idles; i != NULL && !i->wanted; i = i->next)
        ;
    return i != NULL;
}

/* Every timer was freed. */
static inline void
fake_loop_end(void)
{
    assert_int_equal(loop.ntimers, 0);
    assert_null(loop.idles);
}

#endif

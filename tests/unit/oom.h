/*
 * oom.h: let the n-th allocation of the code under test fail.
 *
 * Link with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc; libraries are
 * reached by their own hooks, see json_set_alloc_funcs().
 */
#ifndef OOM_H
#define OOM_H

#include <stdbool.h>
#include <stdlib.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static long oom_left = -1; /* allocations until one fails; -1: none does */
static bool oom_fired;

static inline void
oom_arm(long n)
{
    oom_left = n;
    oom_fired = false;
}

static inline void
oom_disarm(void)
{
    oom_left = -1;
}

static inline bool
oom_now(void)
{
    if (oom_left < 0) {
        return false;
    }
    if (oom_left-- > 0) {
        return false;
    }
    oom_fired = true;
    return true;
}

void *
__wrap_malloc(size_t size)
{
    return oom_now() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
    return oom_now() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t size)
{
    return oom_now() ? NULL : __real_realloc(p, size);
}

#endif

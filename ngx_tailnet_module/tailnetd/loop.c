#include "loop.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <uv.h>

struct loop_watch {
    uv_poll_t poll; /* first: the handle is the struct */
    void (*cb)(void *arg);
    void *arg;
    int events; /* that it waits, or would wait, for */
};

/* Its thread cannot be stopped, so a freed one is owned by libuv until the
 * answer comes. */
struct loop_lookup {
    uv_getaddrinfo_t req; /* first: the request is the struct */
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why);
    void *arg;
    bool over;
    bool dropped;
};

struct loop_timer {
    uv_timer_t timer; /* first: the handle is the struct */
    uint64_t at;
    void (*cb)(void *arg);
    void *arg;
};

struct loop_idle {
    uv_idle_t idle; /* first: the handle is the struct */
    void (*cb)(void *arg);
    void *arg;
};

static uv_loop_t uv;

int
loop_init(void)
{
    int rc = uv_loop_init(&uv);

    if (rc != 0) {
        errno = -rc;
        return -1;
    }
    return 0;
}

void
loop_run(void)
{
    (void)uv_run(&uv, UV_RUN_DEFAULT);
}

void
loop_stop(void)
{
    uv_stop(&uv);
}

static void
freed(uv_handle_t *h)
{
    free(h);
}

static void
close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, freed);
}

void
loop_free(void)
{
    uv_walk(&uv, close_handle, NULL);
    (void)uv_run(&uv, UV_RUN_DEFAULT);
    (void)uv_loop_close(&uv);
}

uint64_t
loop_now(void)
{
    return uv_hrtime() / 1000000;
}

uint64_t
loop_now_us(void)
{
    return uv_hrtime() / 1000;
}

static void
ready(uv_poll_t *poll, int status, int events)
{
    struct loop_watch *w = (struct loop_watch *)poll;

    /* An error is seen by the callback's own read. */
    (void)status;
    (void)events;
    w->cb(w->arg);
}

struct loop_watch *
loop_watch_new(int fd, void (*cb)(void *arg), void *arg)
{
    struct loop_watch *w = calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    w->cb = cb;
    w->arg = arg;
    w->events = UV_READABLE;
    if (uv_poll_init(&uv, &w->poll, fd) != 0) {
        free(w);
        return NULL;
    }
    if (uv_poll_start(&w->poll, UV_READABLE, ready) != 0) {
        uv_close((uv_handle_t *)&w->poll, freed);
        return NULL;
    }
    return w;
}

void
loop_watch_free(struct loop_watch *w)
{
    if (w == NULL)
        return;
    (void)uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *)&w->poll, freed);
}

int
loop_watch_want(struct loop_watch *w, bool reading, bool writing)
{
    int events = (reading ? UV_READABLE : 0) | (writing ? UV_WRITABLE : 0);

    if (events == 0)
        return uv_poll_stop(&w->poll) == 0 ? 0 : -1;
    /* It costs system calls, and libuv stops a watch that met an error. */
    if (events == w->events && uv_is_active((uv_handle_t *)&w->poll))
        return 0;
    w->events = events;
    return uv_poll_start(&w->poll, events, ready) == 0 ? 0 : -1;
}

static void
fired(uv_timer_t *timer)
{
    struct loop_timer *t = (struct loop_timer *)timer;

    t->at = UINT64_MAX;
    t->cb(t->arg);
}

struct loop_timer *
loop_timer_new(void (*cb)(void *arg), void *arg)
{
    struct loop_timer *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return NULL;
    t->at = UINT64_MAX;
    t->cb = cb;
    t->arg = arg;
    (void)uv_timer_init(&uv, &t->timer); /* cannot fail */
    return t;
}

void
loop_timer_set(struct loop_timer *t, uint64_t at)
{
    uint64_t now;

    if (at == t->at)
        return;
    t->at = at;
    if (at == UINT64_MAX) {
        (void)uv_timer_stop(&t->timer);
        return;
    }
    /* libuv counts from the time it cached before this callback. */
    uv_update_time(&uv);
    now = loop_now();
    (void)uv_timer_start(&t->timer, fired, at > now ? at - now : 0, 0);
}

void
loop_timer_free(struct loop_timer *t)
{
    if (t == NULL)
        return;
    (void)uv_timer_stop(&t->timer);
    uv_close((uv_handle_t *)&t->timer, freed);
}

static void
turned(uv_idle_t *idle)
{
    struct loop_idle *i = (struct loop_idle *)idle;

    i->cb(i->arg);
}

struct loop_idle *
loop_idle_new(void (*cb)(void *arg), void *arg)
{
    struct loop_idle *i = calloc(1, sizeof(*i));

    if (i == NULL)
        return NULL;
    i->cb = cb;
    i->arg = arg;
    (void)uv_idle_init(&uv, &i->idle); /* cannot fail */
    return i;
}

void
loop_idle_want(struct loop_idle *i, bool wanted)
{
    if (wanted)
        (void)uv_idle_start(&i->idle, turned);
    else
        (void)uv_idle_stop(&i->idle);
}

void
loop_idle_free(struct loop_idle *i)
{
    if (i == NULL)
        return;
    (void)uv_idle_stop(&i->idle);
    uv_close((uv_handle_t *)&i->idle, freed);
}

/* ---- host names ---- */

static void
resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct loop_lookup *l = (struct loop_lookup *)req;
    struct tn_addr addrs[LOOP_ADDRS_MAX];
    struct addrinfo *ai;
    size_t n = 0;

    for (ai = status == 0 ? list : NULL; ai != NULL && n < LOOP_ADDRS_MAX;
         ai = ai->ai_next)
        if (tn_addr_from_sockaddr(ai->ai_addr, &addrs[n], NULL) == 0)
            n++;
    uv_freeaddrinfo(list);
    l->over = true;
    if (l->dropped)
        free(l);
    else
        l->cb(l->arg, addrs, n,
            status != 0 ? uv_strerror(status)
            : n == 0    ? "it has no address"
                        : NULL);
}

struct loop_lookup *
loop_lookup_new(const char *host,
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why),
    void *arg)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct loop_lookup *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    l->cb = cb;
    l->arg = arg;
    if (uv_getaddrinfo(&uv, &l->req, resolved, host, NULL, &hints) != 0) {
        free(l);
        return NULL;
    }
    return l;
}

void
loop_lookup_free(struct loop_lookup *l)
{
    if (l == NULL)
        return;
    if (l->over) {
        free(l);
        return;
    }
    l->dropped = true;
    (void)uv_cancel((uv_req_t *)&l->req);
}

#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../loop.h"
#include "../stream.h"
#include "derp.h"

/* The time is taken without that of connecting, which is several times as
 * long. */
struct question {
    struct probe *probe;
    struct stream *stream;
    char host[STREAM_HOST_MAX + 1];
    uint64_t sent; /* microseconds; 0: not yet */
    uint16_t region;
    bool over;
};

struct probe {
    const struct probe_ops *ops;
    void *ctx;
    struct loop_timer *timer;
    unsigned n, left;
    struct question questions[];
};

static void
due(void *arg)
{
    struct probe *p = arg;

    p->ops->over(p->ctx);
}

static void
end(struct question *q)
{
    struct probe *p = q->probe;

    if (q->over)
        return;
    q->over = true;
    if (--p->left == 0) /* from the loop: a stream's callback is under way */
        loop_timer_set(p->timer, 0);
}

static void
connected(void *arg)
{
    struct question *q = arg;
    char text[STREAM_HOST_MAX + 128];
    int n = snprintf(text, sizeof(text),
        "GET /derp/latency-check HTTP/1.1\r\nHost: %s\r\n"
        "User-Agent: nginx-tailnet\r\nConnection: close\r\n\r\n",
        q->host);

    q->sent = loop_now_us();
    if (stream_send(q->stream, text, (size_t)n) != 0)
        end(q);
}

/* The first bytes are enough to know it from an error. */
static void
data(void *arg, const uint8_t *bytes, size_t len)
{
    static const char well[] = "HTTP/1.1 2";
    struct question *q = arg;
    struct probe *p = q->probe;
    uint64_t us = loop_now_us() - q->sent;

    if (q->over || q->sent == 0)
        return;
    if (len >= sizeof(well) - 1 && memcmp(bytes, well, sizeof(well) - 1) == 0) {
        if (us == 0)
            us = 1;
        p->ops->answered(p->ctx, q->region, (uint32_t)us);
        loop_timer_set(p->timer, loop_now() + PROBE_MORE_MS);
    }
    end(q);
}

static void
closed(void *arg, const char *why)
{
    (void)why;
    end(arg);
}

static const struct stream_ops stream_ops = {
    .connected = connected, .data = data, .closed = closed};

static void
ask(struct probe *p, const struct netmap_region *r, struct tls_trust *trust,
    bool insecure)
{
    struct question *q = &p->questions[p->n];
    unsigned i;

    for (i = 0; i < r->nrelays && r->relays[i].stun_only; i++)
        ;
    if (i == r->nrelays || strlen(r->relays[i].host) > STREAM_HOST_MAX)
        return;
    q->probe = p;
    q->region = r->id;
    strcpy(q->host, r->relays[i].host);
    q->stream = derp_dial(
        &r->relays[i], trust, insecure, PROBE_MS, &stream_ops, q);
    if (q->stream != NULL)
        p->left = ++p->n;
}

struct probe *
probe_new(const struct netmap_derp *map, struct tls_trust *trust, bool insecure,
    const struct probe_ops *ops, void *ctx)
{
    unsigned i, n = map == NULL ? 0 : map->nregions;
    struct probe *p;

    n = n < PROBE_REGIONS_MAX ? n : PROBE_REGIONS_MAX;
    p = calloc(1, sizeof(*p) + n * sizeof(p->questions[0]));
    if (p == NULL)
        return NULL;
    p->ops = ops;
    p->ctx = ctx;
    p->timer = loop_timer_new(due, p);
    for (i = 0; p->timer != NULL && i < n; i++)
        if (!map->regions[i].no_measure_home)
            ask(p, &map->regions[i], trust, insecure);
    if (p->n == 0) {
        probe_free(p);
        return NULL;
    }
    loop_timer_set(p->timer, loop_now() + PROBE_MS);
    return p;
}

void
probe_free(struct probe *p)
{
    unsigned i;

    if (p == NULL)
        return;
    for (i = 0; i < p->n; i++)
        stream_free(p->questions[i].stream);
    loop_timer_free(p->timer);
    free(p);
}

#include "endpoints.h"

#include <string.h>

static bool
same(const struct tn_endpoint *a, const struct tn_endpoint *b)
{
    return a->port == b->port && tn_addr_equal(&a->addr, &b->addr);
}

static void
learn(struct endpoints *e, const struct tn_endpoint *at,
    enum message_endpoint_type type, uint64_t now)
{
    unsigned i, oldest = 0;

    for (i = 0; i < e->nlearned; i++) {
        if (same(&e->learned[i].at, at))
            break;
        if (e->learned[i].seen < e->learned[oldest].seen)
            oldest = i;
    }
    if (i == ENDPOINTS_LEARNED)
        i = oldest;
    else if (i == e->nlearned)
        e->nlearned++;
    e->learned[i].at = *at;
    e->learned[i].type = type;
    e->learned[i].seen = now;
}

static void
learn_report(struct endpoints *e, const struct netcheck_report *r,
    const uint16_t port[2], uint64_t now)
{
    struct tn_endpoint fixed;
    bool had[2] = {false, false};
    unsigned i;

    for (i = 0; i < r->nseen; i++) {
        const struct netcheck_seen *s = &r->seen[i];
        bool six = !tn_addr_is4(&s->at.addr);

        /* Of a mapping that varies only what more than one server sees. */
        if (had[six] && s->servers < 2)
            continue;
        had[six] = true;
        learn(e, &s->at, MESSAGE_STUN, now);
        if (six || !r->varies || port[0] == 0)
            continue;
        /* Perhaps somebody forwards our port at the router. */
        fixed = s->at;
        fixed.port = port[0];
        learn(e, &fixed, MESSAGE_STUN4_LOCAL, now);
    }
}

static void
expire(struct endpoints *e, uint64_t now)
{
    unsigned i, kept = 0;

    for (i = 0; i < e->nlearned; i++)
        if (now - e->learned[i].seen <= ENDPOINTS_LINGER)
            e->learned[kept++] = e->learned[i];
    e->nlearned = kept;
}

static void
put(struct message_endpoint *list, size_t *n, const struct tn_endpoint *at,
    enum message_endpoint_type type)
{
    size_t i;

    for (i = 0; i < *n; i++)
        if (same(&list[i].at, at))
            return;
    if (*n == ENDPOINTS_MAX || at->port == 0)
        return;
    list[*n].at = *at;
    list[(*n)++].type = type;
}

void
endpoints_explicit(
    struct endpoints *e, const struct tn_endpoint *list, size_t n)
{
    e->nexplicit = n < ENDPOINTS_EXPLICIT ? n : ENDPOINTS_EXPLICIT;
    if (e->nexplicit > 0)
        memcpy(e->explicit, list, e->nexplicit * sizeof(*list));
}

void
endpoints_forget(struct endpoints *e)
{
    e->nlearned = 0;
}

bool
endpoints_update(struct endpoints *e, const struct netcheck_report *r,
    const struct tn_addr *addrs, size_t n, const uint16_t port[2], uint64_t now)
{
    struct message_endpoint list[ENDPOINTS_MAX];
    struct tn_endpoint at;
    size_t count = 0, i;
    bool changed;

    if (r != NULL)
        learn_report(e, r, port, now);
    expire(e, now);
    for (i = 0; i < e->nexplicit; i++)
        put(list, &count, &e->explicit[i], MESSAGE_EXPLICIT);
    for (i = 0; i < e->nlearned; i++)
        if (e->learned[i].type == MESSAGE_STUN)
            put(list, &count, &e->learned[i].at, MESSAGE_STUN);
    for (i = 0; i < e->nlearned; i++)
        if (e->learned[i].type != MESSAGE_STUN)
            put(list, &count, &e->learned[i].at, e->learned[i].type);
    for (i = 0; i < n; i++) {
        at.addr = addrs[i];
        at.port = port[!tn_addr_is4(&addrs[i])];
        put(list, &count, &at, MESSAGE_LOCAL);
    }
    changed = count != e->n;
    for (i = 0; i < count && !changed; i++)
        changed = list[i].type != e->list[i].type ||
                  !same(&list[i].at, &e->list[i].at);
    memcpy(e->list, list, count * sizeof(*list));
    e->n = count;
    return changed;
}

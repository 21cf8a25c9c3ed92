#include "resolve.h"

#include <stdlib.h>
#include <string.h>

#include "../loop.h"

struct name {
    struct resolve *owner;
    char *host; /* NULL: free */
    struct loop_lookup *lookup;
    struct tn_addr addrs[2];
    uint64_t next; /* loop_now() from which it may be asked again */
    uint64_t used;
};

struct resolve {
    void (*cb)(void *arg);
    void *arg;
    struct name names[RESOLVE_MAX];
};

struct resolve *
resolve_new(void (*cb)(void *arg), void *arg)
{
    struct resolve *r = calloc(1, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->cb = cb;
    r->arg = arg;
    return r;
}

static void
drop(struct name *n)
{
    loop_lookup_free(n->lookup);
    free(n->host);
    memset(n, 0, sizeof(*n));
}

void
resolve_free(struct resolve *r)
{
    size_t i;

    if (r == NULL)
        return;
    for (i = 0; i < RESOLVE_MAX; i++)
        drop(&r->names[i]);
    free(r);
}

static void
answered(void *arg, const struct tn_addr *addrs, size_t n, const char *why)
{
    struct name *name = arg;
    static const struct tn_addr none;
    struct tn_addr found[2] = {none, none};
    bool had[2] = {false, false};
    size_t i;

    (void)why; /* the relay's connection, to the same name, says it */
    loop_lookup_free(name->lookup);
    name->lookup = NULL;
    name->next = loop_now() + (n > 0 ? RESOLVE_KEEP_MS : RESOLVE_RETRY_MS);
    if (n == 0)
        return; /* what was known before is better than nothing */
    for (i = 0; i < n; i++) {
        bool six = !tn_addr_is4(&addrs[i]);

        if (!had[six])
            found[six] = addrs[i];
        had[six] = true;
    }
    memcpy(name->addrs, found, sizeof(found));
    name->owner->cb(name->owner->arg);
}

static struct name *
find(struct resolve *r, const char *host)
{
    struct name *n = &r->names[0];
    size_t i;

    for (i = 0; i < RESOLVE_MAX; i++)
        if (r->names[i].host != NULL && strcmp(r->names[i].host, host) == 0)
            return &r->names[i];
    for (i = 0; i < RESOLVE_MAX; i++)
        if (r->names[i].used < n->used)
            n = &r->names[i];
    drop(n);
    n->owner = r;
    n->host = strdup(host);
    return n->host == NULL ? NULL : n;
}

void
resolve_get(struct resolve *r, const char *host, struct tn_addr addrs[2])
{
    struct name *n = find(r, host);
    uint64_t now = loop_now();

    memset(addrs, 0, 2 * sizeof(*addrs));
    if (n == NULL)
        return;
    n->used = now;
    memcpy(addrs, n->addrs, sizeof(n->addrs));
    if (n->lookup != NULL || now < n->next)
        return;
    n->lookup = loop_lookup_new(host, answered, n);
    if (n->lookup == NULL)
        n->next = now + RESOLVE_RETRY_MS;
}

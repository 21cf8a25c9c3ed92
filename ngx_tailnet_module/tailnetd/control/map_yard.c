#include "map_yard.h"

#include <stdlib.h>
#include <string.h>

#define KEPT 64 /* graves: a list that is longer is freed when it is empty */

static void
exhume(struct map_grave *g)
{
    netmap_node_clear(&g->node);
    netmap_user_clear(&g->user);
    netmap_rules_free(g->rules, g->nrules);
    netmap_derp_free(g->derp);
    free(g->bytes);
}

void
map_yard_sweep(struct map_yard *y)
{
    bool current = y->follower != NULL && !y->behind;
    uint64_t first = UINT64_MAX;
    size_t kept = 0;

    for (size_t i = 0; i < y->nlive; i++)
        if (!current || y->live[i] != y->follower->generation)
            first = y->live[i] < first ? y->live[i] : first;
    for (size_t i = 0; i < y->ngraves; i++) {
        if (y->graves[i].generation <= first)
            exhume(&y->graves[i]);
        else
            y->graves[kept++] = y->graves[i];
    }
    y->ngraves = kept;
    if (y->ngraves == 0 && y->size > KEPT) {
        free(y->graves);
        y->graves = NULL;
        y->size = 0;
    }
    if (y->left != NULL && y->nlive == 0)
        y->end(y->left);
}

static void
release(struct netmap_owner *o, uint64_t generation)
{
    struct map_yard *y = (struct map_yard *)o;

    if (y->follower != NULL && y->follower->generation == generation)
        y->follower = NULL;
    for (size_t i = 0; i < y->nlive; i++) {
        if (y->live[i] != generation)
            continue;
        y->live[i] = y->live[--y->nlive];
        break;
    }
    map_yard_sweep(y);
}

int
map_yard_reserve(struct map_yard *y, size_t n)
{
    size_t size = y->size < 16 ? 16 : y->size;
    struct map_grave *graves;

    if (y->ngraves + n <= y->size)
        return 0;
    while (size < y->ngraves + n)
        size += size / 2;
    graves = realloc(y->graves, size * sizeof(*graves));
    if (graves == NULL)
        return -1;
    y->graves = graves;
    y->size = size;
    return 0;
}

struct map_grave *
map_yard_bury(struct map_yard *y, uint64_t generation)
{
    struct map_grave *g = &y->graves[y->ngraves++];

    memset(g, 0, sizeof(*g));
    g->generation = generation;
    return g;
}

int
map_yard_show(struct map_yard *y, struct netmap *nm)
{
    size_t size = y->live_size == 0 ? 16 : 2 * y->live_size;
    uint64_t *live;

    if (y->nlive == y->live_size) {
        live = realloc(y->live, size * sizeof(*live));
        if (live == NULL)
            return -1;
        y->live = live;
        y->live_size = size;
    }
    nm->owner = &y->owner;
    y->live[y->nlive++] = nm->generation;
    return 0;
}

struct map_yard *
map_yard_new(void (*end)(struct map_state *left))
{
    struct map_yard *y = calloc(1, sizeof(*y));

    if (y == NULL)
        return NULL;
    y->owner.release = release;
    y->end = end;
    return y;
}

void
map_yard_free(struct map_yard *y)
{
    if (y == NULL)
        return;
    for (size_t i = 0; i < y->ngraves; i++)
        exhume(&y->graves[i]);
    free(y->graves);
    free(y->live);
    free(y);
}

/*
 * index.c: a hash table with chains.  Indices are random already, so their low
 * bits are the hash.
 */
#include "index.h"

#include <stdlib.h>

#define INDEX_SIZE_MIN 64

int
index_table_init(struct index_table *t)
{
    t->count = 0;
    t->size = INDEX_SIZE_MIN;
    t->buckets = calloc(t->size, sizeof(struct index_entry *));
    return t->buckets != NULL ? 0 : -1;
}

void
index_table_free(struct index_table *t)
{
    free(t->buckets);
    t->buckets = NULL;
}

static void
push(struct index_table *t, struct index_entry *e)
{
    struct index_entry **bucket = &t->buckets[e->index & (t->size - 1)];

    e->next = *bucket;
    *bucket = e;
}

static void
grow(struct index_table *t)
{
    struct index_entry **old = t->buckets;
    size_t n = t->size;

    t->buckets = calloc(2 * n, sizeof(struct index_entry *));
    if (t->buckets == NULL) {
        t->buckets = old;
        return;
    }
    t->size = 2 * n;
    for (size_t i = 0; i < n; i++) {
        while (old[i] != NULL) {
            struct index_entry *e = old[i];

            old[i] = e->next;
            push(t, e);
        }
    }
    free(old);
}

void
index_add(struct index_table *t, struct index_entry *e, uint32_t index)
{
    if (t->count >= t->size)
        grow(t);
    e->index = index;
    e->linked = true;
    push(t, e);
    t->count++;
}

void
index_remove(struct index_table *t, struct index_entry *e)
{
    struct index_entry **at = &t->buckets[e->index & (t->size - 1)];

    if (!e->linked)
        return;
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    e->next = NULL;
    e->linked = false;
    t->count--;
}

struct index_entry *
index_find(const struct index_table *t, uint32_t index)
{
    struct index_entry *e = t->buckets[index & (t->size - 1)];

    while (e != NULL && e->index != index)
        e = e->next;
    return e;
}

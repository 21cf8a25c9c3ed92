/*
 * filter_flow.c: a hash table and a list by age over one array.
 */
#include "filter_flow.h"

static uint16_t *
bucket(struct filter_flow_table *t, const struct filter_flow *f)
{
    uint64_t h = tn_addr_hash(&f->src);

    h = h * 0x9e3779b97f4a7c15u + tn_addr_hash(&f->dst);
    h = h * 0x9e3779b97f4a7c15u +
        ((uint64_t)f->sport << 24 | (uint64_t)f->dport << 8 | f->proto);
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return &t->buckets[(h >> 40) & (FILTER_FLOW_BUCKETS - 1)];
}

static bool
same(const struct filter_flow *a, const struct filter_flow *b)
{
    return a->sport == b->sport && a->dport == b->dport &&
           a->proto == b->proto && tn_addr_equal(&a->src, &b->src) &&
           tn_addr_equal(&a->dst, &b->dst);
}

static struct filter_flow_entry *
entry(struct filter_flow_table *t, uint16_t index)
{
    return &t->entries[index - 1];
}

/* Take ${index} out of the list by age. */
static void
detach(struct filter_flow_table *t, uint16_t index)
{
    struct filter_flow_entry *e = entry(t, index);

    if (e->newer != 0) {
        entry(t, e->newer)->older = e->older;
    } else {
        t->newest = e->older;
    }
    if (e->older != 0) {
        entry(t, e->older)->newer = e->newer;
    } else {
        t->oldest = e->newer;
    }
}

static void
attach_newest(struct filter_flow_table *t, uint16_t index)
{
    struct filter_flow_entry *e = entry(t, index);

    e->newer = 0;
    e->older = t->newest;
    if (t->newest != 0) {
        entry(t, t->newest)->newer = index;
    } else {
        t->oldest = index;
    }
    t->newest = index;
}

bool
filter_flow_touch(struct filter_flow_table *t, const struct filter_flow *f)
{
    uint16_t index;

    for (index = *bucket(t, f); index != 0; index = entry(t, index)->chain) {
        if (same(&entry(t, index)->flow, f)) {
            detach(t, index);
            attach_newest(t, index);
            return true;
        }
    }
    return false;
}

/* Take an entry out of list and bucket; returns its index. */
static uint16_t
evict(struct filter_flow_table *t, uint16_t index)
{
    uint16_t *link = bucket(t, &entry(t, index)->flow);

    while (*link != index) {
        link = &entry(t, *link)->chain;
    }
    *link = entry(t, index)->chain;
    detach(t, index);
    return index;
}

static uint16_t
make_room(struct filter_flow_table *t)
{
    uint16_t index = t->free;

    if (index != 0) {
        t->free = entry(t, index)->chain;
        return index;
    }
    return t->used == FILTER_FLOW_MAX ? evict(t, t->oldest) : ++t->used;
}

bool
filter_flow_add(struct filter_flow_table *t, const struct filter_flow *f)
{
    bool full = t->used == FILTER_FLOW_MAX && t->free == 0;
    uint16_t index = make_room(t), *head = bucket(t, f);

    entry(t, index)->flow = *f;
    entry(t, index)->chain = *head;
    *head = index;
    attach_newest(t, index);
    return full;
}

void
filter_flow_forget(struct filter_flow_table *t, const struct tn_addr *src)
{
    uint16_t index, next;

    for (index = t->newest; index != 0; index = next) {
        next = entry(t, index)->older;
        if (!tn_addr_equal(&entry(t, index)->flow.src, src)) {
            continue;
        }
        evict(t, index);
        entry(t, index)->chain = t->free;
        t->free = index;
    }
}

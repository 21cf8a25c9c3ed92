/*
 * publish_edit.c: a snapshot out of the one before it.
 *
 * Theory of operation.  The file is a copy of the last snapshot.  It is mapped
 * while it may still be written, and only what is different is touched: slots
 * of nodes that are gone are taken out of the tables, lists and header are
 * corrected in place; records of new nodes, and lists that have become too long
 * for their room, are written behind the end.  What they replace stays where it
 * is, as garbage, until there is so much of it that all is built anew.
 *
 * The tables have linear probing, so a slot that becomes empty must not end the
 * search for another one.  A slot of the name table says whose it is, so those
 * behind move up.  One of the address table does not say which of a peer's
 * addresses it stands for; there, what stands between two empty slots is taken
 * out whole, and the addresses of the same peers that belong there are put in
 * again.
 *
 * A name that two nodes share has no slot, and nothing says how many claim it:
 * whoever comes or goes under such a name takes a new build, and so does what
 * publish_build() refuses, which then says why.
 */
#include "publish_edit.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../core/tn_snap_read.h"

#define STALE 1u /* of a row's record, whose offset is a multiple of 8 */

/* More garbage than this part of the file, and some, or a file that is more
 * than so many times as large as it was built: it is built anew. */
#define GARBAGE_PART 4
#define GROWTH       2
#define SPARE        65536

/* Slots of a table that are used at most, eighths. */
#define LOAD_EIGHTHS 5

#define CLUSTER_MAX 1024 /* slots between two empty ones */

struct edit {
    struct record_out out;
    struct publish_index *ix;
    struct tn_snap_head *h;
    struct record_marks gone; /* offsets of records */
    bool *shrunk;             /* tags that peers lose */
    char err[TN_ERR_MAX];     /* of record_put(): the build says it again */
};

/* ---- the index ---- */

void
publish_edit_free(struct publish_index *ix)
{
    free(ix->records);
    free(ix->gone);
    free(ix->texts.slots);
    free(ix->known.slots);
    free(ix->users);
    free(ix->disputed.slots);
    free(ix->tag_room);
    memset(ix, 0, sizeof *ix);
}

/* Room for ${n} more items in ${*list}; returns 0, or -1: no memory. */
static int
make_room(void **list, size_t *room, size_t used, size_t n, size_t item)
{
    size_t more = *room;
    void *p;

    if (n <= *room - used) {
        return 0;
    }
    while (more - used < n) {
        more += more / 8 + 8;
    }
    p = realloc(*list, more * item);
    if (p == NULL) {
        return -1;
    }
    *list = p;
    *room = more;
    return 0;
}

uint32_t
publish_edit_record(const struct publish_index *ix, uint32_t row)
{
    return ix->records[row + 1] & ~STALE;
}

/* The record at ${off} goes. */
static int
bury(struct publish_index *ix, uint32_t off)
{
    ix->changed = true;
    if (off == 0) {
        return 0; /* it was never written */
    }
    if (make_room((void **)&ix->gone, &ix->gone_room, ix->ngone, 1,
            sizeof *ix->gone) != 0) {
        return -1;
    }
    ix->gone[ix->ngone++] = off;
    return 0;
}

int
publish_edit_gone(struct publish_index *ix, uint32_t row)
{
    if (bury(ix, publish_edit_record(ix, row)) != 0) {
        return -1;
    }
    ix->records[row + 1] = ix->records[--ix->nrecords];
    return 0;
}

int
publish_edit_self(struct publish_index *ix)
{
    if (bury(ix, ix->records[0]) != 0) {
        return -1;
    }
    ix->records[0] = 0;
    return 0;
}

int
publish_edit_users(struct publish_index *ix, const int64_t *ids, size_t n)
{
    if (make_room((void **)&ix->users, &ix->users_room, ix->nusers, n,
            sizeof *ix->users) != 0) {
        return -1;
    }
    if (n > 0) {
        memcpy(ix->users + ix->nusers, ids, n * sizeof *ids);
    }
    ix->nusers += n;
    ix->changed |= n != 0;
    return 0;
}

int
publish_edit_added(struct publish_index *ix, size_t n)
{
    if (make_room((void **)&ix->records, &ix->records_room, ix->nrecords, n,
            sizeof *ix->records) != 0) {
        return -1;
    }
    memset(ix->records + ix->nrecords, 0, n * sizeof *ix->records);
    ix->nrecords += n;
    ix->changed |= n != 0;
    return 0;
}

void
publish_edit_stale(struct publish_index *ix, uint32_t row)
{
    if (ix->records[row + 1] != 0) {
        ix->records[row + 1] |= STALE;
    }
    ix->changed = true;
}

void
publish_edit_regrant(struct publish_index *ix)
{
    ix->regrant = ix->changed = true;
}

/* ---- the address table ---- */

static bool
has_room(size_t used, uint32_t slots)
{
    return (used + 1) * 8 <= (size_t)slots * LOAD_EIGHTHS;
}

static struct tn_addr *
addrs_of(const struct edit *e, uint32_t off)
{
    return record_at(&e->out, off + (uint32_t)sizeof(struct tn_snap_peer));
}

static void
put_addr_slot(struct edit *e, uint32_t off, uint64_t hash)
{
    uint32_t *table = record_at(&e->out, e->h->addr_off);
    size_t mask = e->h->addr_slots - 1, at = (size_t)hash & mask;

    while (table[at] != 0) {
        at = (at + 1) & mask;
    }
    table[at] = tn_snap_slot(off, hash);
    e->ix->naddrs++;
}

/* All addresses of the record at ${off} whose search begins in those ${len}
 * slots from ${first} on. */
static void
put_back(struct edit *e, uint32_t off, size_t first, size_t len)
{
    const struct tn_snap_peer *rec = record_at(&e->out, off);
    const struct tn_addr *a = addrs_of(e, off);
    size_t mask = e->h->addr_slots - 1;

    for (unsigned i = 0; i < rec->naddrs; i++) {
        uint64_t hash = tn_addr_hash(&a[i]);

        if ((((size_t)hash - first) & mask) < len) {
            put_addr_slot(e, off, hash);
        }
    }
}

/* No slot from ${hash}'s on, up to the next empty one, is the record's. */
static int
drop_addr(struct edit *e, uint32_t off, uint64_t hash)
{
    uint32_t *table = record_at(&e->out, e->h->addr_off);
    uint32_t others[CLUSTER_MAX];
    size_t mask = e->h->addr_slots - 1, first = (size_t)hash & mask;
    size_t len = 0, n = 0, mine = 0, before = e->ix->naddrs, i;

    if (table[first] == 0) {
        return 0; /* it went with another of its addresses */
    }
    while (table[(first - 1) & mask] != 0) {
        first = (first - 1) & mask;
    }
    for (; table[(first + len) & mask] != 0; len++) {
        uint32_t *slot = &table[(first + len) & mask];
        uint32_t whose = tn_snap_slot_off(*slot);

        if (len == CLUSTER_MAX) {
            return -1;
        }
        *slot = 0;
        if (whose == off) {
            mine++;
            continue;
        }
        for (i = 0; i < n && others[i] != whose; i++) {
        }
        others[i] = whose;
        n += i == n;
    }
    e->ix->naddrs -= len;
    for (i = 0; i < n; i++) {
        put_back(e, others[i], first, len);
    }
    return e->ix->naddrs + mine == before ? 0 : -1;
}

static int
add_addrs(struct edit *e, uint32_t off)
{
    const struct tn_snap_peer *rec = record_at(&e->out, off);
    const struct tn_addr *a = addrs_of(e, off);
    const uint32_t *table = record_at(&e->out, e->h->addr_off);
    size_t mask = e->h->addr_slots - 1;

    for (unsigned i = 0; i < rec->naddrs; i++) {
        uint64_t hash = tn_addr_hash(&a[i]);

        if (!has_room(e->ix->naddrs, e->h->addr_slots)) {
            return -1;
        }
        for (size_t at = (size_t)hash & mask; table[at] != 0;
             at = (at + 1) & mask) {
            uint32_t whose = tn_snap_slot_off(table[at]);

            if (whose != off && table[at] == tn_snap_slot(whose, hash) &&
                record_owns(&e->out, whose, &a[i])) {
                return -1; /* an address of two nodes */
            }
        }
        put_addr_slot(e, off, hash);
    }
    return 0;
}

/* ---- the name table ---- */

/* Where a search for the name ends: at its slot or at an empty one. */
static size_t
find_name(const struct edit *e, const char *name, size_t len, uint64_t hash)
{
    const struct tn_snap_name *table = record_at(&e->out, e->h->name_off);
    size_t mask = e->h->name_slots - 1, at = (size_t)hash & mask;

    while (table[at].peer != 0 &&
           (table[at].name.len != len ||
               strncasecmp(record_at(&e->out, table[at].name.off), name, len) !=
                   0)) {
        at = (at + 1) & mask;
    }
    return at;
}

static int
drop_name(struct edit *e, uint32_t off, struct tn_snap_str str)
{
    struct tn_snap_name *table = record_at(&e->out, e->h->name_off);
    const char *name = record_at(&e->out, str.off);
    size_t mask = e->h->name_slots - 1, hole, at, home;

    hole = find_name(e, name, str.len, tn_name_hash(name, str.len));
    if (table[hole].peer != off) {
        return -1; /* others claim it too */
    }
    for (at = (hole + 1) & mask; table[at].peer != 0; at = (at + 1) & mask) {
        name = record_at(&e->out, table[at].name.off);
        home = (size_t)tn_name_hash(name, table[at].name.len) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table[hole] = table[at];
            hole = at;
        }
    }
    memset(&table[hole], 0, sizeof table[hole]);
    e->ix->nnames--;
    return 0;
}

static int
add_name(struct edit *e, uint32_t off, struct tn_snap_str str)
{
    struct tn_snap_name *table = record_at(&e->out, e->h->name_off);
    const char *name = record_at(&e->out, str.off);
    uint64_t hash = tn_name_hash(name, str.len);
    size_t at = find_name(e, name, str.len, hash);

    if (table[at].peer != 0 || record_marked(&e->ix->disputed, hash) ||
        !has_room(e->ix->nnames, e->h->name_slots)) {
        return -1;
    }
    table[at].name = str;
    table[at].peer = off;
    e->ix->nnames++;
    return 0;
}

/* ${change} for the names by which the record at ${off} may be found. */
static int
each_name(struct edit *e, uint32_t off,
    int (*change)(struct edit *e, uint32_t off, struct tn_snap_str str))
{
    const struct tn_snap_peer *rec = record_at(&e->out, off);
    struct tn_snap_str name = rec->name, host = rec->host;

    if (name.len == 0) {
        return 0; /* ${host} is the start of its key */
    }
    if (change(e, off, name) != 0) {
        return -1;
    }
    return host.len == name.len ? 0 : change(e, off, host);
}

/* ---- the lists of tags ---- */

static int
order(const char *a, size_t alen, const char *b, size_t blen)
{
    int rc = strncasecmp(a, b, alen < blen ? alen : blen);

    return rc != 0 ? rc : (alen > blen) - (alen < blen);
}

/* The tag of that name, or the one before which it belongs. */
static size_t
find_tag(const struct edit *e, const char *name, size_t len, bool *found)
{
    const struct tn_snap_tag *table = record_at(&e->out, e->h->tag_off);
    size_t low = 0, high = e->ix->ntags;
    int rc;

    *found = false;
    while (low < high && !*found) {
        size_t mid = low + (high - low) / 2;
        struct tn_snap_str str = table[mid].name;

        rc = order(name, len, record_at(&e->out, str.off), str.len);
        *found = rc == 0;
        if (rc == 0) {
            low = mid;
        } else if (rc < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return low;
}

static struct tn_snap_str *
tags_of(const struct edit *e, uint32_t off)
{
    const struct tn_snap_peer *rec = record_at(&e->out, off);

    return record_at(
        &e->out, off + (uint32_t)sizeof *rec +
                     rec->naddrs * (uint32_t)sizeof(struct tn_addr));
}

static bool
is_listed(const struct tn_snap_peer *rec)
{
    return (rec->flags & (TN_PEER_TAGGED | TN_PEER_SHARED | TN_PEER_SELF)) ==
           TN_PEER_TAGGED;
}

/* A tag that no peer had when the table was written: a longer table. */
static int
new_tag(struct edit *e, size_t at, const char *name, size_t len)
{
    struct publish_index *ix = e->ix;
    size_t n = ix->ntags, size = sizeof(struct tn_snap_tag);
    struct tn_snap_tag *table, *old, tag = {0};
    uint32_t *room, off;

    room = realloc(ix->tag_room, (n + 1) * sizeof *room);
    if (room == NULL) {
        return -1;
    }
    ix->tag_room = room;
    if (record_string(&e->out, name, len, &tag.name) != 0 ||
        record_reserve(&e->out, (n + 1) * size, &off) != 0) {
        return -1;
    }
    tag.list_off = off; /* anywhere: it is empty */
    table = record_at(&e->out, off);
    old = record_at(&e->out, e->h->tag_off);
    memcpy(table, old, at * size);
    table[at] = tag;
    memcpy(table + at + 1, old + at, (n - at) * size);
    memmove(room + at + 1, room + at, (n - at) * sizeof *room);
    room[at] = 0;
    ix->garbage += n * size;
    e->h->tag_off = off;
    e->h->ntags = (uint32_t)++ix->ntags;
    return 0;
}

/* The record at ${off} is the last of the tag's list. */
static int
list(struct edit *e, size_t number, uint32_t off)
{
    struct tn_snap_tag *tag = (struct tn_snap_tag *)record_at(
                                  &e->out, e->h->tag_off) +
                              number;
    uint32_t *room = &e->ix->tag_room[number], n = tag->n, more, place;
    uint32_t *entries = record_at(&e->out, tag->list_off);

    if (n != 0 && entries[n - 1] == off) {
        return 0; /* two of its tags differ in case only */
    }
    if (n == *room) {
        more = n + n / PUBLISH_TAG_SPARE + PUBLISH_TAG_SPARE_MIN;
        if (record_reserve(&e->out, more * sizeof *entries, &place) != 0) {
            return -1;
        }
        tag = (struct tn_snap_tag *)record_at(&e->out, e->h->tag_off) + number;
        memcpy(record_at(&e->out, place), record_at(&e->out, tag->list_off),
            n * sizeof *entries);
        e->ix->garbage += *room * sizeof *entries;
        tag->list_off = place;
        *room = more;
        entries = record_at(&e->out, place);
    }
    entries[tag->n++] = off;
    return 0;
}

static int
add_tags(struct edit *e, uint32_t off, const struct netmap_node *row)
{
    for (unsigned i = 0; i < row->ntags; i++) {
        size_t len = strlen(row->tags[i]);
        bool found;
        size_t at = find_tag(e, row->tags[i], len, &found);

        if ((!found && new_tag(e, at, row->tags[i], len) != 0) ||
            list(e, at, off) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The lists that shrink, without who is gone. */
static void
sweep(struct edit *e)
{
    struct tn_snap_tag *table = record_at(&e->out, e->h->tag_off);

    for (size_t i = 0; i < e->ix->ntags; i++) {
        uint32_t *entries = record_at(&e->out, table[i].list_off);
        uint32_t n = 0, j = 0;

        if (!e->shrunk[i]) {
            continue;
        }
        while (j < table[i].n && !record_marked(&e->gone, entries[j])) {
            j++;
        }
        for (n = j; j < table[i].n; j++) {
            if (!record_marked(&e->gone, entries[j])) {
                entries[n++] = entries[j];
            }
        }
        table[i].n = n;
    }
}

/* ---- nodes ---- */

static int
drop_node(struct edit *e, uint32_t off)
{
    const struct tn_snap_peer *rec = record_at(&e->out, off);
    const struct tn_snap_str *tags = tags_of(e, off);
    const struct tn_addr *a = addrs_of(e, off);
    bool found;

    for (unsigned i = 0; i < rec->naddrs; i++) {
        if (drop_addr(e, off, tn_addr_hash(&a[i])) != 0) {
            return -1;
        }
    }
    for (unsigned i = 0; is_listed(rec) && i < rec->ntags; i++) {
        e->shrunk[find_tag(
            e, record_at(&e->out, tags[i].off), tags[i].len, &found)] = true;
    }
    record_mark(&e->gone, off);
    /* Its other texts may be those of others too. */
    e->ix->garbage += record_padded(rec->size) +
                      record_padded(rec->stable_id.len) +
                      record_padded(
                          rec->name.len != 0 ? rec->name.len : rec->host.len);
    return each_name(e, off, drop_name);
}

/* All who are gone, before anybody else may have what was theirs. */
static int
drop_gone(struct edit *e)
{
    struct publish_index *ix = e->ix;

    if (ix->ngone == 0) {
        return 0;
    }
    e->shrunk = calloc(ix->ntags + 1, sizeof *e->shrunk);
    if (e->shrunk == NULL || record_marks_room(&e->gone, ix->ngone) != 0) {
        return -1;
    }
    for (size_t i = 0; i < ix->ngone; i++) {
        if (drop_node(e, ix->gone[i]) != 0) {
            return -1;
        }
    }
    ix->ngone = 0;
    sweep(e);
    return 0;
}

static int
add_node(struct edit *e, const struct netmap_node *row, uint32_t *off)
{
    if (record_put(&e->out, row, off) != 0 || add_addrs(e, *off) != 0 ||
        each_name(e, *off, add_name) != 0) {
        return -1;
    }
    return record_is_listed(&e->out, row) ? add_tags(e, *off, row) : 0;
}

/* The self node, and what the header says of it. */
static int
edit_self(struct edit *e)
{
    const struct netmap *nm = e->out.nm;
    uint32_t *off = &e->ix->records[0];

    if (*off != 0) {
        return 0;
    }
    e->ix->garbage += record_padded(e->h->tailnet.len);
    if (add_node(e, &nm->self, off) != 0 ||
        record_string(
            &e->out, nm->domain, strlen(nm->domain), &e->h->tailnet) != 0) {
        return -1;
    }
    e->h->self = *off;
    e->h->self_expiry = nm->self.key_expiry;
    return 0;
}

static int
edit_users(struct edit *e)
{
    struct publish_index *ix = e->ix;

    for (size_t i = 0; i < ix->nusers; i++) {
        if (record_user(&e->out, ix->users[i], &ix->garbage) != 0) {
            return -1;
        }
    }
    ix->nusers = 0;
    return 0;
}

static int
edit_rows(struct edit *e)
{
    const struct netmap *nm = e->out.nm;
    uint32_t *records = e->ix->records;

    for (size_t i = 0; i < nm->npeers; i++) {
        const struct netmap_node *row = &nm->peers[i];
        uint32_t *off = &records[i + 1];

        if (*off == 0) {
            if (add_node(e, row, off) != 0) {
                return -1;
            }
        } else if (e->ix->regrant || (*off & STALE) != 0) {
            *off &= ~STALE;
            if (record_again(&e->out, row, *off, e->ix->regrant) != 0) {
                return -1;
            }
        }
    }
    e->ix->regrant = false;
    return 0;
}

/* What is new goes behind the rest. */
static int
finish(struct edit *e, int fd)
{
    struct publish_index *ix = e->ix;
    size_t len = e->out.len;

    ix->size += len;
    if (ix->garbage > ix->size / GARBAGE_PART + SPARE ||
        ix->size > ix->built * GROWTH + SPARE) {
        return -1;
    }
    while (len > 0) {
        ssize_t n = pwrite(
            fd, e->out.bytes + e->out.len - len, len, (off_t)(ix->size - len));

        if (n <= 0) {
            return -1;
        }
        len -= (size_t)n;
    }
    e->h->size = (uint32_t)ix->size;
    e->h->npeers = e->out.nm->npeers;
    ix->changed = false;
    return 0;
}

int
publish_edit(struct publish_index *ix, int fd, const struct netmap *nm,
    const struct publish_opts *o)
{
    struct edit e = {
        .out = {.nm = nm,
            .o = o,
            .suffix = netmap_suffix(nm),
            .base = ix->size,
            .texts = &ix->texts,
            .users = &ix->known},
        .ix = ix,
    };
    size_t size = ix->size;
    int rc;

    if (ix->nrecords != (size_t)nm->npeers + 1) {
        return -1;
    }
    e.h = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if ((void *)e.h == MAP_FAILED) {
        return -1;
    }
    e.out.image = (uint8_t *)e.h;
    e.out.err = e.err;
    rc = drop_gone(&e) == 0 && edit_users(&e) == 0 && edit_self(&e) == 0 &&
                 edit_rows(&e) == 0
             ? finish(&e, fd)
             : -1;
    munmap(e.h, size);
    free(e.out.bytes);
    free(e.gone.slots);
    free(e.shrunk);
    return rc;
}

/*
 * publish.c: from a netmap to the snapshot that nginx reads.
 *
 * Theory of operation.  The file is written front to back into one growing
 * buffer: the header and the three tables are reserved first (their sizes
 * follow from counts alone), then come the nodes with their strings, and last
 * the tables are filled, now that every offset is known.  Everything is
 * addressed by offset, since the buffer moves when it grows.  Scratch tables
 * (names, users, tags, texts) are open-addressed with at most half of their
 * slots used, like those of the snapshot, which makes the whole linear in the
 * number of nodes.
 *
 * What an edit of the file needs to know beyond the file (publish_edit.c) is
 * left behind in the index, and the lists of tags have room for more.
 */
#include "publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "../../core/tn_snap_read.h"
#include "publish_edit.h"
#include "record.h"

/* A name and the node that claims it; it is the first ${len} bytes of that
 * node's name. */
struct claim {
    uint32_t node; /* index + 1; 0: empty slot */
    uint32_t len;
    bool disputed;
};

struct tag {
    const char *name;
    uint32_t n;    /* nodes */
    uint32_t last; /* index + 1 of the node that was counted last */
    uint32_t list_off;
};

struct build {
    struct record_out out;
    size_t nnodes;  /* self is number 0, then the peers */
    uint32_t *offs; /* of each node's record */
    struct claim *claims;
    size_t claim_slots;
    struct tag *tags;
    struct tag **sorted;
    size_t ntags;
    uint32_t *tag_index; /* number of a tag + 1; 0: empty slot */
    size_t tag_slots;
    struct publish_index *index;
};

static const struct netmap_node *
node(const struct build *b, size_t i)
{
    const struct netmap *nm = b->out.nm;

    return i == 0 ? &nm->self : &nm->peers[i - 1];
}

static bool
is_listed(const struct build *b, size_t i)
{
    return record_is_listed(&b->out, node(b, i));
}

/* ${name} is ${node}'s, unless another node says the same of itself. */
static void
claim(struct build *b, size_t i, size_t len)
{
    const char *name = node(b, i)->name;
    size_t mask = b->claim_slots - 1;
    size_t at = (size_t)tn_name_hash(name, len) & mask;
    struct claim *c;

    if (len == 0) {
        return;
    }
    for (c = &b->claims[at]; c->node != 0; c = &b->claims[at]) {
        if (c->len == len &&
            strncasecmp(node(b, c->node - 1)->name, name, len) == 0) {
            c->disputed |= c->node != i + 1;
            return;
        }
        at = (at + 1) & mask;
    }
    c->node = (uint32_t)i + 1;
    c->len = (uint32_t)len;
}

static void
claim_all(struct build *b)
{
    for (size_t i = 0; i < b->nnodes; i++) {
        claim(b, i, strlen(node(b, i)->name));
        claim(b, i, record_host_len(&b->out, node(b, i)->name));
    }
}

/* The entry of ${name}, a new one when there was none. */
static struct tag *
find_tag(struct build *b, const char *name)
{
    size_t mask = b->tag_slots - 1;
    size_t at = (size_t)tn_name_hash(name, strlen(name)) & mask;

    for (; b->tag_index[at] != 0; at = (at + 1) & mask) {
        struct tag *t = &b->tags[b->tag_index[at] - 1];

        if (strcasecmp(t->name, name) == 0) {
            return t;
        }
    }
    b->tags[b->ntags].name = name;
    b->tag_index[at] = (uint32_t)++b->ntags;
    return &b->tags[b->ntags - 1];
}

static int
order(const void *x, const void *y)
{
    const struct tag *const *a = x, *const *b = y;

    return strcasecmp((*a)->name, (*b)->name);
}

static void
count_tags(struct build *b)
{
    for (size_t i = 0; i < b->nnodes; i++) {
        for (unsigned j = 0; is_listed(b, i) && j < node(b, i)->ntags; j++) {
            struct tag *t = find_tag(b, node(b, i)->tags[j]);

            t->n += t->last != i + 1;
            t->last = (uint32_t)i + 1;
        }
    }
    for (size_t i = 0; i < b->ntags; i++) {
        b->sorted[i] = &b->tags[i];
    }
    qsort(b->sorted, b->ntags, sizeof b->sorted[0], order);
}

/* ${h}'s address table. */
static int
fill_addrs(struct build *b, const struct tn_snap_head *h)
{
    uint32_t *table = record_at(&b->out, h->addr_off);
    struct tn_addr addrs[TN_SNAP_MAX_ADDRS];
    size_t mask = h->addr_slots - 1;
    char text[TN_ADDR_STRLEN];

    for (size_t i = 0; i < b->nnodes; i++) {
        unsigned n = record_addrs(node(b, i), addrs);

        for (unsigned j = 0; j < n; j++) {
            uint64_t hash = tn_addr_hash(&addrs[j]);
            uint32_t slot = tn_snap_slot(b->offs[i], hash);
            size_t at = (size_t)hash & mask;

            for (; table[at] != 0; at = (at + 1) & mask) {
                uint32_t off = tn_snap_slot_off(table[at]);

                if (off != b->offs[i] && table[at] == tn_snap_slot(off, hash) &&
                    record_owns(&b->out, off, &addrs[j])) {
                    tn_addr_format(&addrs[j], text);
                    errno = EINVAL;
                    snprintf(b->out.err, TN_ERR_MAX,
                        "address %s of node \"%.256s\" is another node's too",
                        text, node(b, i)->name);
                    return -1;
                }
            }
            table[at] = slot;
        }
    }
    return 0;
}

static void
fill_names(struct build *b, const struct tn_snap_head *h)
{
    struct tn_snap_name *table = record_at(&b->out, h->name_off);
    size_t mask = h->name_slots - 1;

    for (size_t i = 0; i < b->claim_slots; i++) {
        const struct claim *c = &b->claims[i];
        struct tn_snap_peer rec;
        const char *name;
        size_t at;

        if (c->node == 0 || c->disputed) {
            continue;
        }
        name = node(b, c->node - 1)->name;
        at = (size_t)tn_name_hash(name, c->len) & mask;
        while (table[at].peer != 0) {
            at = (at + 1) & mask;
        }
        memcpy(&rec, record_at(&b->out, b->offs[c->node - 1]), sizeof rec);
        table[at].name.off = rec.name.off;
        table[at].name.len = c->len;
        table[at].peer = b->offs[c->node - 1];
    }
}

/* The tag table and its lists, in the order of the nodes. */
static int
fill_tags(struct build *b, const struct tn_snap_head *h)
{
    struct tn_snap_tag *table;
    uint32_t *list;

    for (size_t i = 0; i < b->ntags; i++) {
        struct tag *t = b->sorted[i];
        struct tn_snap_tag rec = {.n = t->n};

        b->index->tag_room[i] = t->n + t->n / PUBLISH_TAG_SPARE +
                                PUBLISH_TAG_SPARE_MIN;
        if (record_string(&b->out, t->name, strlen(t->name), &rec.name) != 0 ||
            record_reserve(&b->out, b->index->tag_room[i] * sizeof(uint32_t),
                &rec.list_off) != 0) {
            return -1;
        }
        table = record_at(&b->out, h->tag_off);
        table[i] = rec;
        t->list_off = rec.list_off;
        t->n = 0;
        t->last = 0;
    }
    for (size_t i = 0; i < b->nnodes; i++) {
        unsigned n = is_listed(b, i) ? node(b, i)->ntags : 0;

        for (unsigned j = 0; j < n; j++) {
            struct tag *t = find_tag(b, node(b, i)->tags[j]);

            if (t->last == i + 1) {
                continue;
            }
            list = record_at(&b->out, t->list_off);
            list[t->n++] = b->offs[i];
            t->last = (uint32_t)i + 1;
        }
    }
    return 0;
}

/* The scratch tables. */
static int
prepare(struct build *b)
{
    size_t tags = 0;

    for (size_t i = 0; i < b->nnodes; i++) {
        tags += node(b, i)->ntags;
    }
    b->claim_slots = record_slots(2 * b->nnodes);
    b->tag_slots = record_slots(tags);
    b->offs = calloc(b->nnodes, sizeof b->offs[0]);
    b->claims = calloc(b->claim_slots, sizeof b->claims[0]);
    b->tags = calloc(tags + 1, sizeof b->tags[0]);
    b->sorted = calloc(tags + 1, sizeof b->sorted[0]);
    b->tag_index = calloc(b->tag_slots, sizeof b->tag_index[0]);
    if (b->offs == NULL || b->claims == NULL || b->tags == NULL ||
        b->sorted == NULL || b->tag_index == NULL) {
        return record_nomem(&b->out);
    }
    claim_all(b);
    count_tags(b);
    return 0;
}

/* What is left behind for publish_edit(), as far as it is known by now. */
static int
begin_index(struct build *b, size_t naddrs, size_t nnames)
{
    struct publish_index *ix = b->index;
    size_t disputed = 0;

    ix->naddrs = naddrs;
    ix->nnames = nnames;
    ix->ntags = b->ntags;
    ix->tag_room = calloc(b->ntags + 1, sizeof ix->tag_room[0]);
    for (size_t i = 0; i < b->claim_slots; i++) {
        disputed += b->claims[i].disputed;
    }
    if (ix->tag_room == NULL ||
        record_marks_room(&ix->disputed, disputed) != 0 ||
        record_texts_room(&b->out, &ix->texts, 1) != 0 ||
        record_users_room(&ix->known, b->out.nm->nusers) != 0) {
        return record_nomem(&b->out);
    }
    for (size_t i = 0; i < b->claim_slots; i++) {
        const struct claim *c = &b->claims[i];

        if (c->disputed) {
            record_mark(&ix->disputed,
                tn_name_hash(node(b, c->node - 1)->name, c->len));
        }
    }
    return 0;
}

/* Header and tables, empty. */
static int
lay_out(struct build *b, struct tn_snap_head *h)
{
    struct record_out *out = &b->out;
    struct tn_addr addrs[TN_SNAP_MAX_ADDRS];
    size_t naddrs = 0, nnames = 0;
    uint32_t zero;

    for (size_t i = 0; i < b->nnodes; i++) {
        naddrs += record_addrs(node(b, i), addrs);
    }
    for (size_t i = 0; i < b->claim_slots; i++) {
        nnames += b->claims[i].node != 0 && !b->claims[i].disputed;
    }
    h->addr_slots = (uint32_t)record_slots(naddrs);
    h->name_slots = (uint32_t)record_slots(nnames);
    h->ntags = (uint32_t)b->ntags;
    if (record_reserve(out, sizeof *h, &zero) != 0 ||
        record_reserve(out, h->addr_slots * sizeof(uint32_t), &h->addr_off) !=
            0 ||
        record_reserve(out, h->name_slots * sizeof(struct tn_snap_name),
            &h->name_off) != 0 ||
        record_reserve(
            out, h->ntags * sizeof(struct tn_snap_tag), &h->tag_off) != 0) {
        return -1;
    }
    return begin_index(b, naddrs, nnames);
}

static int
write_all(struct build *b)
{
    struct record_out *out = &b->out;
    const struct netmap *nm = out->nm;
    struct tn_snap_head h = {0};

    if (prepare(b) != 0 || lay_out(b, &h) != 0) {
        return -1;
    }
    for (size_t i = 0; i < b->nnodes; i++) {
        if (record_put(out, node(b, i), &b->offs[i]) != 0) {
            return -1;
        }
    }
    if (fill_addrs(b, &h) != 0) {
        return -1;
    }
    fill_names(b, &h);
    if (fill_tags(b, &h) != 0 ||
        record_string(out, out->suffix, strlen(out->suffix), &h.domain) != 0 ||
        record_string(out, nm->domain, strlen(nm->domain), &h.tailnet) != 0) {
        return -1;
    }
    memcpy(h.magic, TN_SNAP_MAGIC, sizeof h.magic);
    h.version = TN_SNAP_VERSION;
    h.size = (uint32_t)out->len;
    h.generation = out->o->generation;
    h.self = b->offs[0];
    h.npeers = nm->npeers;
    h.self_expiry = nm->self.key_expiry;
    memcpy(record_at(out, 0), &h, sizeof h);
    return 0;
}

static void
end_index(struct build *b)
{
    struct publish_index *ix = b->index;

    ix->size = ix->built = b->out.len;
    ix->records = b->offs;
    ix->nrecords = ix->records_room = b->nnodes;
    b->offs = NULL;
}

int
publish_build(const struct netmap *nm, const struct publish_opts *o,
    void **bytes, size_t *size, char err[TN_ERR_MAX])
{
    struct publish_index index = {0};
    struct build b = {
        .out = {.nm = nm,
            .o = o,
            .suffix = netmap_suffix(nm),
            .texts = &index.texts,
            .users = &index.known,
            .err = err},
        .nnodes = (size_t)nm->npeers + 1,
        .index = &index,
    };
    int rc = write_all(&b);

    if (rc == 0) {
        end_index(&b);
        *bytes = b.out.bytes;
        *size = b.out.len;
    } else {
        free(b.out.bytes);
    }
    free(b.offs);
    free(b.claims);
    free(b.tags);
    free(b.sorted);
    free(b.tag_index);
    if (rc == 0 && o->index != NULL) {
        *o->index = index;
    } else {
        publish_edit_free(&index);
    }
    return rc;
}

int
publish_memfd(void)
{
    return memfd_create("tailnet-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int
publish_write(int to, const void *bytes, size_t *at, size_t end)
{
    const uint8_t *p = bytes;
    ssize_t n;

    while (*at < end) {
        n = write(to, p + *at, end - *at);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == -1) {
            return -1;
        }
        *at += (size_t)n;
    }
    return 0;
}

int
publish_copy(int to, int fd, size_t *at, size_t end)
{
    off_t from;
    ssize_t n;

    while (*at < end) {
        from = (off_t)*at;
        n = sendfile(to, fd, &from, end - *at);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == 0) { /* it is shorter: not one of ours */
            errno = EIO;
        }
        if (n <= 0) {
            return -1;
        }
        *at += (size_t)n;
    }
    return 0;
}

int
publish_stamp(int fd, uint64_t generation)
{
    return pwrite(fd, &generation, sizeof generation,
               offsetof(struct tn_snap_head, generation)) == sizeof generation
               ? 0
               : -1;
}

int
publish_seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS,
        F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

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
 * Strings that many nodes have in common (capabilities, joined tags) are
 * stored once: they are appended, looked up, and cut off again when they were
 * there already.
 *
 * Who is who follows whois of the coordination protocol: a node is found by
 * the single-address prefixes of its Addresses and by nothing else; a tagged
 * node is its tags and never its user.
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

#define OUT_FIRST 65536 /* bytes of the buffer to begin with */

/* A name and the node that claims it; it is the first ${len} bytes of that
 * node's name. */
struct claim {
    uint32_t node; /* index + 1; 0: empty slot */
    uint32_t len;
    bool disputed;
};

struct profile {
    const struct netmap_user *user; /* NULL: empty slot */
    uint32_t off; /* of its tn_snap_user, 0: not written yet */
};

struct tag {
    const char *name;
    uint32_t n;    /* nodes */
    uint32_t last; /* index + 1 of the node that was counted last */
    uint32_t list_off;
};

struct build {
    const struct netmap *nm;
    const struct publish_opts *o;
    const char *suffix;
    size_t nnodes; /* self is number 0, then the peers */

    uint8_t *out;
    size_t len, cap;

    uint32_t *offs; /* of each node's record */
    struct claim *claims;
    size_t claim_slots;
    struct profile *profiles;
    size_t profile_slots;
    struct tn_snap_str *texts;
    size_t text_slots;
    struct tag *tags;
    struct tag **sorted;
    size_t ntags;
    uint32_t *tag_index; /* number of a tag + 1; 0: empty slot */
    size_t tag_slots;

    char *err; /* TN_ERR_MAX bytes */
};

static int
nomem(struct build *b)
{
    snprintf(b->err, TN_ERR_MAX, "out of memory for a snapshot of %zu nodes",
        b->nnodes);
    return -1;
}

/* Zero bytes at the buffer's end; their offset, a multiple of 8, in ${*off}. */
static int
reserve(struct build *b, size_t len, uint32_t *off)
{
    size_t cap = b->cap == 0 ? OUT_FIRST : b->cap;
    uint8_t *p;

    if (len > TN_SNAP_MAX_SIZE ||
        b->len + ((len + 7) & ~(size_t)7) > TN_SNAP_MAX_SIZE) {
        snprintf(b->err, TN_ERR_MAX,
            "the snapshot of %zu nodes is larger than TN_SNAP_MAX_SIZE "
            "(%u bytes)",
            b->nnodes, TN_SNAP_MAX_SIZE);
        return -1;
    }
    len = (len + 7) & ~(size_t)7;
    while (cap - b->len < len) {
        cap *= 2;
    }
    if (cap != b->cap) {
        p = realloc(b->out, cap);
        if (p == NULL) {
            return nomem(b);
        }
        b->out = p;
        b->cap = cap;
    }
    memset(b->out + b->len, 0, len);
    *off = (uint32_t)b->len;
    b->len += len;
    return 0;
}

static int
put_string(struct build *b, const char *s, size_t len, struct tn_snap_str *str)
{
    str->off = 0;
    str->len = (uint32_t)len;
    if (len == 0) {
        return 0;
    }
    if (reserve(b, len, &str->off) != 0) {
        return -1;
    }
    memcpy(b->out + str->off, s, len);
    return 0;
}

/* ${str}, which ends the buffer, or the same text that was there before. */
static void
share(struct build *b, struct tn_snap_str *str)
{
    const char *s = (const char *)b->out + str->off;
    size_t mask = b->text_slots - 1;
    size_t at = (size_t)tn_name_hash(s, str->len) & mask;

    for (; b->texts[at].len != 0; at = (at + 1) & mask) {
        if (b->texts[at].len == str->len &&
            memcmp(b->out + b->texts[at].off, s, str->len) == 0) {
            b->len = str->off;
            *str = b->texts[at];
            return;
        }
    }
    b->texts[at] = *str;
}

static const struct netmap_node *
node(const struct build *b, size_t i)
{
    return i == 0 ? &b->nm->self : &b->nm->peers[i - 1];
}

/* What follows the first dot of ${name}, or "". */
static const char *
suffix_of(const char *name)
{
    const char *dot = strchr(name, '.');

    return dot == NULL ? "" : dot + 1;
}

/* Length of the short name at the start of ${name}: without our own suffix,
 * or all of it. */
static size_t
host_len(const struct build *b, const char *name)
{
    size_t label = strcspn(name, ".");

    if (label != 0 && b->suffix[0] != '\0' &&
        strcasecmp(suffix_of(name), b->suffix) == 0) {
        return label;
    }
    return strlen(name);
}

static bool
is_shared(const struct build *b, size_t i)
{
    const struct netmap_node *n = node(b, i);
    const char *theirs = suffix_of(n->name);

    if (i == 0) {
        return false;
    }
    return n->sharer != 0 || (theirs[0] != '\0' && b->suffix[0] != '\0' &&
                                 strcasecmp(theirs, b->suffix) != 0);
}

static bool
is_expired(const struct netmap_node *n, int64_t now)
{
    return n->expired || (n->key_expiry != 0 && n->key_expiry <= now);
}

static uint32_t
flags_of(const struct build *b, size_t i)
{
    const struct netmap_node *n = node(b, i);
    uint32_t flags = i == 0 ? TN_PEER_SELF : 0;

    if (n->ntags > 0) {
        flags |= TN_PEER_TAGGED;
    }
    if (is_shared(b, i)) {
        flags |= TN_PEER_SHARED;
    }
    if (is_expired(n, b->o->now)) {
        flags |= TN_PEER_EXPIRED;
    }
    if (n->online) {
        flags |= TN_PEER_ONLINE;
    }
    return flags;
}

/* The addresses that identify ${n}, each once; returns how many. */
static unsigned
identities(const struct netmap_node *n, struct tn_addr a[TN_SNAP_MAX_ADDRS])
{
    unsigned count = 0, j;

    for (unsigned i = 0; i < n->naddresses && count < TN_SNAP_MAX_ADDRS; i++) {
        if (n->addresses[i].bits != 128) {
            continue;
        }
        for (j = 0; j < count; j++) {
            if (tn_addr_equal(&a[j], &n->addresses[i].addr)) {
                break;
            }
        }
        if (j == count) {
            a[count++] = n->addresses[i].addr;
        }
    }
    return count;
}

/* Slots of a table that is at most half full, at least one of them empty. */
static size_t
slots_for(size_t n)
{
    size_t slots = 2;

    while (slots < 2 * n) {
        slots *= 2;
    }
    return slots;
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
        claim(b, i, host_len(b, node(b, i)->name));
    }
}

static struct profile *
profile(const struct build *b, int64_t id)
{
    struct tn_addr key = {{0}};
    size_t mask = b->profile_slots - 1;
    size_t at;

    memcpy(key.b, &id, sizeof id);
    at = (size_t)tn_addr_hash(&key) & mask;
    while (b->profiles[at].user != NULL && b->profiles[at].user->id != id) {
        at = (at + 1) & mask;
    }
    return &b->profiles[at];
}

static void
index_profiles(struct build *b)
{
    for (size_t i = 0; i < b->nm->nusers; i++) {
        struct profile *p = profile(b, b->nm->users[i].id);

        if (p->user == NULL) {
            p->user = &b->nm->users[i];
        }
    }
}

/* The user record of ${n}, written at the first node that needs it. */
static int
put_user(struct build *b, const struct netmap_node *n, uint32_t *off)
{
    struct tn_snap_user rec = {0};
    struct profile *p;

    *off = 0;
    if (n->ntags > 0 || n->user == 0) {
        return 0;
    }
    p = profile(b, n->user);
    if (p->user == NULL) {
        return 0;
    }
    if (p->off == 0) {
        const struct netmap_user *u = p->user;

        rec.id = (uint64_t)u->id;
        if (put_string(b, u->login, strlen(u->login), &rec.login) != 0 ||
            put_string(b, u->name, strlen(u->name), &rec.name) != 0 ||
            put_string(b, u->pic, strlen(u->pic), &rec.pic) != 0 ||
            reserve(b, sizeof rec, &p->off) != 0) {
            return -1;
        }
        memcpy(b->out + p->off, &rec, sizeof rec);
    }
    *off = p->off;
    return 0;
}

/* Only tagged peers of this tailnet answer to their tags. */
static bool
is_listed(const struct build *b, size_t i)
{
    return i != 0 && node(b, i)->ntags > 0 && !is_shared(b, i);
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

/* The tags of ${n}, joined, and the place of each in that text. */
static int
put_tags(struct build *b, const struct netmap_node *n,
    struct tn_snap_str *joined, struct tn_snap_str each[TN_SNAP_MAX_TAGS])
{
    size_t len = 0;
    uint32_t at;

    if (n->ntags > TN_SNAP_MAX_TAGS) {
        snprintf(b->err, TN_ERR_MAX,
            "node \"%.256s\" has %u tags, more than TN_SNAP_MAX_TAGS (%u)",
            n->name, n->ntags, TN_SNAP_MAX_TAGS);
        return -1;
    }
    for (unsigned i = 0; i < n->ntags; i++) {
        if (n->tags[i][0] == '\0' || strchr(n->tags[i], ',') != NULL) {
            snprintf(b->err, TN_ERR_MAX,
                "node \"%.200s\" has a tag that is empty or has a comma: "
                "\"%.200s\"",
                n->name, n->tags[i]);
            return -1;
        }
        len += strlen(n->tags[i]) + (i > 0);
    }
    if (len == 0) {
        return 0;
    }
    if (reserve(b, len, &at) != 0) {
        return -1;
    }
    joined->off = at;
    joined->len = (uint32_t)len;
    for (unsigned i = 0; i < n->ntags; i++) {
        if (i > 0) {
            b->out[at++] = ',';
        }
        each[i].len = (uint32_t)strlen(n->tags[i]);
        each[i].off = at - joined->off;
        memcpy(b->out + at, n->tags[i], each[i].len);
        at += each[i].len;
    }
    share(b, joined);
    for (unsigned i = 0; i < n->ntags; i++) {
        each[i].off += joined->off;
    }
    return 0;
}

static int
put_caps(struct build *b, size_t i, uint32_t flags, struct tn_snap_str *str)
{
    const char *caps;

    if (i == 0 || b->o->caps == NULL || (flags & TN_PEER_EXPIRED) != 0) {
        return 0;
    }
    caps = b->o->caps(b->o->arg, node(b, i));
    if (caps == NULL) {
        return nomem(b);
    }
    if (put_string(b, caps, strlen(caps), str) != 0) {
        return -1;
    }
    if (str->len != 0) {
        share(b, str);
    }
    return 0;
}

/*
 * Name and short name.  A node without a name is shown by the start of its
 * key; in brackets, so that no selector and no lookup can mean it.
 */
static int
put_names(
    struct build *b, const struct netmap_node *n, struct tn_snap_peer *rec)
{
    char text[11];

    if (n->name[0] == '\0') {
        if (!n->has_key) {
            return 0;
        }
        snprintf(text, sizeof text, "[%02x%02x%02x%02x]", n->key[0], n->key[1],
            n->key[2], n->key[3]);
        return put_string(b, text, strlen(text), &rec->host);
    }
    if (put_string(b, n->name, strlen(n->name), &rec->name) != 0) {
        return -1;
    }
    rec->host.off = rec->name.off;
    rec->host.len = (uint32_t)host_len(b, n->name);
    return 0;
}

static int
put_node(struct build *b, size_t i)
{
    const struct netmap_node *n = node(b, i);
    struct tn_snap_peer rec = {0};
    struct tn_addr addrs[TN_SNAP_MAX_ADDRS];
    struct tn_snap_str tags[TN_SNAP_MAX_TAGS];
    size_t alen, tlen;
    uint8_t *p;

    rec.flags = flags_of(b, i);
    rec.id = (uint64_t)n->id;
    rec.key_expiry = n->key_expiry;
    rec.naddrs = (uint16_t)identities(n, addrs);
    rec.ntags = (uint16_t)n->ntags;
    memcpy(rec.key, n->key, sizeof rec.key);
    if (put_names(b, n, &rec) != 0 ||
        put_string(b, n->stable_id, strlen(n->stable_id), &rec.stable_id) !=
            0 ||
        put_user(b, n, &rec.user) != 0 ||
        put_tags(b, n, &rec.tags, tags) != 0 ||
        put_caps(b, i, rec.flags, &rec.caps) != 0) {
        return -1;
    }
    alen = rec.naddrs * sizeof addrs[0];
    tlen = rec.ntags * sizeof tags[0];
    rec.size = (uint32_t)(sizeof rec + alen + tlen);
    if (reserve(b, rec.size, &b->offs[i]) != 0) {
        return -1;
    }
    p = b->out + b->offs[i];
    memcpy(p, &rec, sizeof rec);
    memcpy(p + sizeof rec, addrs, alen);
    memcpy(p + sizeof rec + alen, tags, tlen);
    return 0;
}

/* True when the record at ${off} has the address ${a}. */
static bool
owns(const struct build *b, uint32_t off, const struct tn_addr *a)
{
    const uint8_t *p = b->out + off;
    struct tn_snap_peer rec;

    memcpy(&rec, p, sizeof rec);
    for (unsigned i = 0; i < rec.naddrs; i++) {
        if (memcmp(p + sizeof rec + i * sizeof *a, a, sizeof *a) == 0) {
            return true;
        }
    }
    return false;
}

/* ${h}'s address table. */
static int
fill_addrs(struct build *b, const struct tn_snap_head *h)
{
    uint32_t *table = (uint32_t *)(void *)(b->out + h->addr_off);
    struct tn_addr addrs[TN_SNAP_MAX_ADDRS];
    size_t mask = h->addr_slots - 1;
    char text[TN_ADDR_STRLEN];

    for (size_t i = 0; i < b->nnodes; i++) {
        unsigned n = identities(node(b, i), addrs);

        for (unsigned j = 0; j < n; j++) {
            uint64_t hash = tn_addr_hash(&addrs[j]);
            uint32_t slot = tn_snap_slot(b->offs[i], hash);
            size_t at = (size_t)hash & mask;

            for (; table[at] != 0; at = (at + 1) & mask) {
                uint32_t off = tn_snap_slot_off(table[at]);

                if (off != b->offs[i] && table[at] == tn_snap_slot(off, hash) &&
                    owns(b, off, &addrs[j])) {
                    tn_addr_format(&addrs[j], text);
                    snprintf(b->err, TN_ERR_MAX,
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
    struct tn_snap_name *table = (void *)(b->out + h->name_off);
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
        memcpy(&rec, b->out + b->offs[c->node - 1], sizeof rec);
        table[at].name.off = rec.name.off;
        table[at].name.len = c->len;
        table[at].peer = b->offs[c->node - 1];
    }
}

/* The tag table and its lists, in the order of the nodes. */
static int
fill_tags(struct build *b, const struct tn_snap_head *h)
{
    for (size_t i = 0; i < b->ntags; i++) {
        struct tag *t = b->sorted[i];
        struct tn_snap_tag rec = {.n = t->n};

        if (put_string(b, t->name, strlen(t->name), &rec.name) != 0 ||
            reserve(b, t->n * sizeof(uint32_t), &rec.list_off) != 0) {
            return -1;
        }
        memcpy(b->out + h->tag_off + i * sizeof rec, &rec, sizeof rec);
        t->list_off = rec.list_off;
        t->n = 0;
        t->last = 0;
    }
    for (size_t i = 0; i < b->nnodes; i++) {
        for (unsigned j = 0; is_listed(b, i) && j < node(b, i)->ntags; j++) {
            struct tag *t = find_tag(b, node(b, i)->tags[j]);

            if (t->last == i + 1) {
                continue;
            }
            memcpy(b->out + t->list_off + t->n * sizeof(uint32_t), &b->offs[i],
                sizeof(uint32_t));
            t->last = (uint32_t)i + 1;
            t->n++;
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
    b->claim_slots = slots_for(2 * b->nnodes);
    b->profile_slots = slots_for(b->nm->nusers);
    b->text_slots = slots_for(2 * b->nnodes);
    b->tag_slots = slots_for(tags);
    b->offs = calloc(b->nnodes, sizeof b->offs[0]);
    b->claims = calloc(b->claim_slots, sizeof b->claims[0]);
    b->profiles = calloc(b->profile_slots, sizeof b->profiles[0]);
    b->texts = calloc(b->text_slots, sizeof b->texts[0]);
    b->tags = calloc(tags + 1, sizeof b->tags[0]);
    b->sorted = calloc(tags + 1, sizeof b->sorted[0]);
    b->tag_index = calloc(b->tag_slots, sizeof b->tag_index[0]);
    if (b->offs == NULL || b->claims == NULL || b->profiles == NULL ||
        b->texts == NULL || b->tags == NULL || b->sorted == NULL ||
        b->tag_index == NULL) {
        return nomem(b);
    }
    claim_all(b);
    index_profiles(b);
    count_tags(b);
    return 0;
}

/* Header and tables, empty. */
static int
lay_out(struct build *b, struct tn_snap_head *h)
{
    struct tn_addr addrs[TN_SNAP_MAX_ADDRS];
    size_t naddrs = 0, nnames = 0;
    uint32_t zero;

    for (size_t i = 0; i < b->nnodes; i++) {
        naddrs += identities(node(b, i), addrs);
    }
    for (size_t i = 0; i < b->claim_slots; i++) {
        nnames += b->claims[i].node != 0 && !b->claims[i].disputed;
    }
    h->addr_slots = (uint32_t)slots_for(naddrs);
    h->name_slots = (uint32_t)slots_for(nnames);
    h->ntags = (uint32_t)b->ntags;
    if (reserve(b, sizeof *h, &zero) != 0 ||
        reserve(b, h->addr_slots * sizeof(uint32_t), &h->addr_off) != 0 ||
        reserve(b, h->name_slots * sizeof(struct tn_snap_name), &h->name_off) !=
            0 ||
        reserve(b, h->ntags * sizeof(struct tn_snap_tag), &h->tag_off) != 0) {
        return -1;
    }
    return 0;
}

static int
write_all(struct build *b)
{
    struct tn_snap_head h = {0};
    const char *domain = b->nm->domain;

    if (prepare(b) != 0 || lay_out(b, &h) != 0) {
        return -1;
    }
    for (size_t i = 0; i < b->nnodes; i++) {
        if (put_node(b, i) != 0) {
            return -1;
        }
    }
    if (fill_addrs(b, &h) != 0) {
        return -1;
    }
    fill_names(b, &h);
    if (fill_tags(b, &h) != 0 ||
        put_string(b, b->suffix, strlen(b->suffix), &h.domain) != 0 ||
        put_string(b, domain, strlen(domain), &h.tailnet) != 0) {
        return -1;
    }
    memcpy(h.magic, TN_SNAP_MAGIC, sizeof h.magic);
    h.version = TN_SNAP_VERSION;
    h.size = (uint32_t)b->len;
    h.generation = b->o->generation;
    h.self = b->offs[0];
    h.npeers = b->nm->npeers;
    h.self_expiry = b->nm->self.key_expiry;
    memcpy(b->out, &h, sizeof h);
    return 0;
}

int
publish_build(const struct netmap *nm, const struct publish_opts *o,
    void **bytes, size_t *size, char err[TN_ERR_MAX])
{
    struct build b = {
        .nm = nm,
        .o = o,
        .suffix = netmap_suffix(nm),
        .nnodes = (size_t)nm->npeers + 1,
        .err = err,
    };
    int rc = write_all(&b);

    if (rc == 0 && o->records != NULL) {
        *o->records = b.offs;
        b.offs = NULL;
    }
    free(b.offs);
    free(b.claims);
    free(b.profiles);
    free(b.texts);
    free(b.tags);
    free(b.sorted);
    free(b.tag_index);
    if (rc != 0) {
        free(b.out);
        return -1;
    }
    *bytes = b.out;
    *size = b.len;
    return 0;
}

enum publish_news
publish_row(
    struct tn_snap_peer *rec, const struct netmap_node *row, int64_t now)
{
    uint32_t flags = rec->flags & ~(uint32_t)TN_PEER_ONLINE;

    /* Who has expired has no capabilities. */
    if (is_expired(row, now) != ((flags & TN_PEER_EXPIRED) != 0)) {
        return PUBLISH_WHOLE;
    }
    flags |= row->online ? TN_PEER_ONLINE : 0;
    if (flags == rec->flags && row->key_expiry == rec->key_expiry) {
        return PUBLISH_SAME;
    }
    rec->flags = flags;
    rec->key_expiry = row->key_expiry;
    return PUBLISH_RECORD;
}

static int
new_memfd(void)
{
    return memfd_create("tailnet-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

static int
close_failed(int fd)
{
    int saved = errno;

    close(fd);
    errno = saved;
    return -1;
}

int
publish_memfd(const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    int fd = new_memfd();
    ssize_t n;

    while (fd != -1 && size > 0) {
        n = write(fd, p, size);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == -1) {
            return close_failed(fd);
        }
        p += n;
        size -= (size_t)n;
    }
    return fd;
}

int
publish_copy(int fd, size_t size)
{
    int to = new_memfd();
    off_t at = 0;
    ssize_t n;

    while (to != -1 && (size_t)at < size) {
        n = sendfile(to, fd, &at, size - (size_t)at);
        if (n == -1 && errno == EINTR) {
            continue;
        }
        if (n == 0) { /* it is shorter: not one of ours */
            errno = EIO;
        }
        if (n <= 0) {
            return close_failed(to);
        }
    }
    return to;
}

int
publish_seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS,
        F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

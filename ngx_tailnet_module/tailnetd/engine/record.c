/*
 * record.c: one node's record in a snapshot.
 *
 * Strings that many nodes have in common (capabilities, joined tags) are
 * stored once: they are appended, looked up, and cut off again when they were
 * there already.  So is the user of many nodes: written at the first that needs
 * it.
 *
 * Who is who follows whois of the coordination protocol: a node is found by
 * the single-address prefixes of its Addresses and by nothing else; a tagged
 * node is its tags and never its user.
 */
#include "record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../../core/tn_snap_read.h"
#include "publish.h"

#define OUT_FIRST 65536 /* bytes of the buffer to begin with */

int
record_nomem(const struct record_out *out)
{
    errno = ENOMEM;
    snprintf(out->err, TN_ERR_MAX, "out of memory for a snapshot of %zu nodes",
        (size_t)out->nm->npeers + 1);
    return -1;
}

size_t
record_padded(size_t len)
{
    return (len + 7) & ~(size_t)7;
}

int
record_reserve(struct record_out *out, size_t len, uint32_t *off)
{
    size_t cap = out->cap == 0 ? OUT_FIRST : out->cap;
    uint8_t *p;

    if (len > TN_SNAP_MAX_SIZE ||
        out->base + out->len + record_padded(len) > TN_SNAP_MAX_SIZE) {
        errno = EINVAL;
        snprintf(out->err, TN_ERR_MAX,
            "the snapshot of %zu nodes is larger than TN_SNAP_MAX_SIZE "
            "(%u bytes)",
            (size_t)out->nm->npeers + 1, TN_SNAP_MAX_SIZE);
        return -1;
    }
    len = record_padded(len);
    while (cap - out->len < len) {
        cap *= 2;
    }
    if (cap != out->cap) {
        p = realloc(out->bytes, cap);
        if (p == NULL) {
            return record_nomem(out);
        }
        out->bytes = p;
        out->cap = cap;
    }
    memset(out->bytes + out->len, 0, len);
    *off = (uint32_t)(out->base + out->len);
    out->len += len;
    return 0;
}

void *
record_at(const struct record_out *out, uint32_t off)
{
    return off < out->base ? out->image + off : out->bytes + (off - out->base);
}

int
record_string(
    struct record_out *out, const char *s, size_t len, struct tn_snap_str *str)
{
    str->off = 0;
    str->len = (uint32_t)len;
    if (len == 0) {
        return 0;
    }
    if (record_reserve(out, len, &str->off) != 0) {
        return -1;
    }
    memcpy(record_at(out, str->off), s, len);
    return 0;
}

/* ---- tables ---- */

size_t
record_slots(size_t n)
{
    size_t slots = 2;

    while (slots < 2 * n) {
        slots *= 2;
    }
    return slots;
}

/* The slot of ${str}'s text, or the empty one where it belongs. */
static struct tn_snap_str *
find_text(const struct record_out *out, const struct record_texts *t,
    const struct tn_snap_str *str)
{
    const char *s = record_at(out, str->off);
    size_t mask = t->nslots - 1;
    size_t at = (size_t)tn_name_hash(s, str->len) & mask;

    for (; t->slots[at].len != 0; at = (at + 1) & mask) {
        if (t->slots[at].len == str->len &&
            memcmp(record_at(out, t->slots[at].off), s, str->len) == 0) {
            break;
        }
    }
    return &t->slots[at];
}

int
record_texts_room(
    const struct record_out *out, struct record_texts *t, size_t n)
{
    struct record_texts more = {.nslots = record_slots(t->n + n), .n = t->n};

    if (more.nslots <= t->nslots) {
        return 0;
    }
    more.slots = calloc(more.nslots, sizeof more.slots[0]);
    if (more.slots == NULL) {
        return record_nomem(out);
    }
    for (size_t i = 0; i < t->nslots; i++) {
        if (t->slots[i].len != 0) {
            *find_text(out, &more, &t->slots[i]) = t->slots[i];
        }
    }
    free(t->slots);
    *t = more;
    return 0;
}

/* ${str}, which ends the buffer, or the same text that was there before. */
static int
share(struct record_out *out, struct tn_snap_str *str)
{
    struct tn_snap_str *slot;

    if (record_texts_room(out, out->texts, 1) != 0) {
        return -1;
    }
    slot = find_text(out, out->texts, str);
    if (slot->len != 0) {
        out->len = str->off - out->base;
        *str = *slot;
        return 0;
    }
    *slot = *str;
    out->texts->n++;
    return 0;
}

static size_t
hash_number(uint64_t n)
{
    struct tn_addr key = {{0}};

    memcpy(key.b, &n, sizeof n);
    return (size_t)tn_addr_hash(&key);
}

static struct record_user *
find_user(const struct record_users *u, int64_t id)
{
    size_t mask = u->nslots - 1;
    size_t at = hash_number((uint64_t)id) & mask;

    while (u->slots[at].off != 0 && u->slots[at].id != id) {
        at = (at + 1) & mask;
    }
    return &u->slots[at];
}

int
record_users_room(struct record_users *u, size_t n)
{
    struct record_users more = {.nslots = record_slots(u->n + n), .n = u->n};

    if (more.nslots <= u->nslots) {
        return 0;
    }
    more.slots = calloc(more.nslots, sizeof more.slots[0]);
    if (more.slots == NULL) {
        return -1;
    }
    for (size_t i = 0; i < u->nslots; i++) {
        if (u->slots[i].off != 0) {
            *find_user(&more, u->slots[i].id) = u->slots[i];
        }
    }
    free(u->slots);
    *u = more;
    return 0;
}

static uint64_t *
find_mark(const struct record_marks *m, uint64_t value)
{
    size_t mask = m->nslots - 1;
    size_t at = hash_number(value) & mask;

    while (m->slots[at] != 0 && m->slots[at] != value) {
        at = (at + 1) & mask;
    }
    return &m->slots[at];
}

int
record_marks_room(struct record_marks *m, size_t n)
{
    struct record_marks more = {.nslots = record_slots(m->n + n), .n = m->n};

    if (more.nslots <= m->nslots) {
        return 0;
    }
    more.slots = calloc(more.nslots, sizeof more.slots[0]);
    if (more.slots == NULL) {
        return -1;
    }
    for (size_t i = 0; i < m->nslots; i++) {
        if (m->slots[i] != 0) {
            *find_mark(&more, m->slots[i]) = m->slots[i];
        }
    }
    free(m->slots);
    *m = more;
    return 0;
}

void
record_mark(struct record_marks *m, uint64_t value)
{
    uint64_t *slot;

    value = value == 0 ? 1 : value;
    slot = find_mark(m, value);
    m->n += *slot == 0;
    *slot = value;
}

bool
record_marked(const struct record_marks *m, uint64_t value)
{
    return m->n != 0 && *find_mark(m, value == 0 ? 1 : value) != 0;
}

/* ---- what a node is ---- */

static bool
is_self(const struct record_out *out, const struct netmap_node *n)
{
    return n == &out->nm->self;
}

/* What follows the first dot of ${name}, or "". */
static const char *
suffix_of(const char *name)
{
    const char *dot = strchr(name, '.');

    return dot == NULL ? "" : dot + 1;
}

size_t
record_host_len(const struct record_out *out, const char *name)
{
    size_t label = strcspn(name, ".");

    if (label != 0 && out->suffix[0] != '\0' &&
        strcasecmp(suffix_of(name), out->suffix) == 0) {
        return label;
    }
    return strlen(name);
}

static bool
is_shared(const struct record_out *out, const struct netmap_node *n)
{
    const char *theirs = suffix_of(n->name);

    if (is_self(out, n)) {
        return false;
    }
    return n->sharer != 0 || (theirs[0] != '\0' && out->suffix[0] != '\0' &&
                                 strcasecmp(theirs, out->suffix) != 0);
}

bool
record_is_listed(const struct record_out *out, const struct netmap_node *n)
{
    return n->ntags > 0 && !is_self(out, n) && !is_shared(out, n);
}

static bool
is_expired(const struct netmap_node *n, int64_t now)
{
    return n->expired || (n->key_expiry != 0 && n->key_expiry <= now);
}

static uint32_t
changing_flags(const struct netmap_node *n, int64_t now)
{
    return (is_expired(n, now) ? TN_PEER_EXPIRED : 0) |
           (n->online ? TN_PEER_ONLINE : 0);
}

static uint32_t
flags_of(const struct record_out *out, const struct netmap_node *n)
{
    uint32_t flags = is_self(out, n) ? TN_PEER_SELF : 0;

    if (n->ntags > 0) {
        flags |= TN_PEER_TAGGED;
    }
    if (is_shared(out, n)) {
        flags |= TN_PEER_SHARED;
    }
    return flags | changing_flags(n, out->o->now);
}

unsigned
record_addrs(const struct netmap_node *n, struct tn_addr a[TN_SNAP_MAX_ADDRS])
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

bool
record_owns(const struct record_out *out, uint32_t off, const struct tn_addr *a)
{
    const uint8_t *p = record_at(out, off);
    struct tn_snap_peer rec;

    memcpy(&rec, p, sizeof rec);
    for (unsigned i = 0; i < rec.naddrs; i++) {
        if (memcmp(p + sizeof rec + i * sizeof *a, a, sizeof *a) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- writing it ---- */

static int
put_profile(struct record_out *out, const struct netmap_user *u,
    struct tn_snap_user *rec)
{
    rec->id = (uint64_t)u->id;
    return record_string(out, u->login, strlen(u->login), &rec->login) != 0 ||
                   record_string(out, u->name, strlen(u->name), &rec->name) !=
                       0 ||
                   record_string(out, u->pic, strlen(u->pic), &rec->pic) != 0
               ? -1
               : 0;
}

int
record_user(struct record_out *out, int64_t id, size_t *garbage)
{
    const struct netmap_user *u = netmap_user(out->nm, id);
    const struct record_user *slot;
    struct tn_snap_user rec;

    if (u == NULL || out->users->n == 0) {
        return 0;
    }
    slot = find_user(out->users, id);
    if (slot->off == 0) {
        return 0;
    }
    memcpy(&rec, record_at(out, slot->off), sizeof rec);
    *garbage += record_padded(rec.login.len) + record_padded(rec.name.len) +
                record_padded(rec.pic.len);
    if (put_profile(out, u, &rec) != 0) {
        return -1;
    }
    memcpy(record_at(out, slot->off), &rec, sizeof rec);
    return 0;
}

/* The user record of ${n}, written at the first node that needs it. */
static int
put_user(struct record_out *out, const struct netmap_node *n, uint32_t *off)
{
    struct tn_snap_user rec = {0};
    const struct netmap_user *u;
    struct record_user *slot;

    *off = 0;
    if (n->ntags > 0 || n->user == 0) {
        return 0;
    }
    if (record_users_room(out->users, 1) != 0) {
        return record_nomem(out);
    }
    slot = find_user(out->users, n->user);
    if (slot->off != 0) {
        *off = slot->off;
        return 0;
    }
    u = netmap_user(out->nm, n->user);
    if (u == NULL) {
        return 0;
    }
    if (put_profile(out, u, &rec) != 0 ||
        record_reserve(out, sizeof rec, off) != 0) {
        return -1;
    }
    memcpy(record_at(out, *off), &rec, sizeof rec);
    out->users->n++;
    slot->id = u->id;
    slot->off = *off;
    return 0;
}

/* What ${n} is tagged cannot be told from a list if a tag is none. */
static int
check_tags(const struct record_out *out, const struct netmap_node *n)
{
    errno = EINVAL;
    if (n->ntags > TN_SNAP_MAX_TAGS) {
        snprintf(out->err, TN_ERR_MAX,
            "node \"%.256s\" has %u tags, more than TN_SNAP_MAX_TAGS (%u)",
            n->name, n->ntags, TN_SNAP_MAX_TAGS);
        return -1;
    }
    for (unsigned i = 0; i < n->ntags; i++) {
        if (n->tags[i][0] == '\0' || strchr(n->tags[i], ',') != NULL) {
            snprintf(out->err, TN_ERR_MAX,
                "node \"%.200s\" has a tag that is empty or has a comma: "
                "\"%.200s\"",
                n->name, n->tags[i]);
            return -1;
        }
    }
    return 0;
}

/* The tags of ${n}, joined, and the place of each in that text. */
static int
put_tags(struct record_out *out, const struct netmap_node *n,
    struct tn_snap_str *joined, struct tn_snap_str each[TN_SNAP_MAX_TAGS])
{
    uint32_t at = 0;
    char *text;

    if (n->ntags == 0) {
        return 0;
    }
    if (check_tags(out, n) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < n->ntags; i++) {
        each[i].off = at;
        each[i].len = (uint32_t)strlen(n->tags[i]);
        at += each[i].len + 1;
    }
    joined->len = at - 1;
    if (record_reserve(out, joined->len, &joined->off) != 0) {
        return -1;
    }
    text = record_at(out, joined->off);
    for (unsigned i = 0; i < n->ntags; i++) {
        if (i > 0) {
            text[each[i].off - 1] = ',';
        }
        memcpy(text + each[i].off, n->tags[i], each[i].len);
    }
    if (share(out, joined) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < n->ntags; i++) {
        each[i].off += joined->off;
    }
    return 0;
}

static int
put_caps(struct record_out *out, const struct netmap_node *n, uint32_t flags,
    struct tn_snap_str *str)
{
    const char *caps;

    if (is_self(out, n) || out->o->caps == NULL ||
        (flags & TN_PEER_EXPIRED) != 0) {
        return 0;
    }
    caps = out->o->caps(out->o->arg, n);
    if (caps == NULL) {
        return record_nomem(out);
    }
    if (record_string(out, caps, strlen(caps), str) != 0) {
        return -1;
    }
    return str->len != 0 ? share(out, str) : 0;
}

/*
 * Name and short name.  A node without a name is shown by the start of its
 * key; in brackets, so that no selector and no lookup can mean it.
 */
static int
put_names(struct record_out *out, const struct netmap_node *n,
    struct tn_snap_peer *rec)
{
    char text[11];

    if (n->name[0] == '\0') {
        if (!n->has_key) {
            return 0;
        }
        snprintf(text, sizeof text, "[%02x%02x%02x%02x]", n->key[0], n->key[1],
            n->key[2], n->key[3]);
        return record_string(out, text, strlen(text), &rec->host);
    }
    if (record_string(out, n->name, strlen(n->name), &rec->name) != 0) {
        return -1;
    }
    rec->host.off = rec->name.off;
    rec->host.len = (uint32_t)record_host_len(out, n->name);
    return 0;
}

int
record_put(struct record_out *out, const struct netmap_node *n, uint32_t *off)
{
    struct tn_snap_peer rec = {0};
    struct tn_addr addrs[TN_SNAP_MAX_ADDRS];
    struct tn_snap_str tags[TN_SNAP_MAX_TAGS];
    size_t alen, tlen;
    uint8_t *p;

    rec.flags = flags_of(out, n);
    rec.id = (uint64_t)n->id;
    rec.key_expiry = n->key_expiry;
    rec.naddrs = (uint16_t)record_addrs(n, addrs);
    rec.ntags = (uint16_t)n->ntags;
    memcpy(rec.key, n->key, sizeof rec.key);
    if (put_names(out, n, &rec) != 0 ||
        record_string(
            out, n->stable_id, strlen(n->stable_id), &rec.stable_id) != 0 ||
        put_user(out, n, &rec.user) != 0 ||
        put_tags(out, n, &rec.tags, tags) != 0 ||
        put_caps(out, n, rec.flags, &rec.caps) != 0) {
        return -1;
    }
    alen = rec.naddrs * sizeof addrs[0];
    tlen = rec.ntags * sizeof tags[0];
    rec.size = (uint32_t)(sizeof rec + alen + tlen);
    if (record_reserve(out, rec.size, off) != 0) {
        return -1;
    }
    p = record_at(out, *off);
    memcpy(p, &rec, sizeof rec);
    memcpy(p + sizeof rec, addrs, alen);
    memcpy(p + sizeof rec + alen, tags, tlen);
    return 0;
}

bool
record_state(struct tn_snap_peer *rec, const struct netmap_node *n, int64_t now)
{
    const uint32_t kept = ~(uint32_t)(TN_PEER_EXPIRED | TN_PEER_ONLINE);
    uint32_t flags = (rec->flags & kept) | changing_flags(n, now);

    if (flags == rec->flags && n->key_expiry == rec->key_expiry) {
        return false;
    }
    rec->flags = flags;
    rec->key_expiry = n->key_expiry;
    return true;
}

int
record_again(struct record_out *out, const struct netmap_node *n, uint32_t off,
    bool caps)
{
    struct tn_snap_peer *rec = record_at(out, off);
    uint32_t before = rec->flags;
    struct tn_snap_str str = {0};

    record_state(rec, n, out->o->now);
    if (!caps && ((before ^ rec->flags) & TN_PEER_EXPIRED) == 0) {
        return 0;
    }
    if (put_caps(out, n, rec->flags, &str) != 0) {
        return -1;
    }
    rec = record_at(out, off);
    rec->caps = str;
    return 0;
}

/*
 * tn_snap_read.c: reading a snapshot that may be anything.
 *
 * A snapshot comes from another process and holds what a control server said,
 * so a worker believes none of it.  Every record is reached through region(),
 * which checks place and length against the mapping before a byte is read,
 * and is copied out, so that neither alignment of the mapping nor a second
 * read matters.  What the header says of the tables is checked once, by
 * tn_snap_open(); what the records say, at each use.  Loops over a table stop
 * after its number of slots, so that a table without an empty slot ends too.
 */
#include "tn_snap_read.h"

#include <string.h>

/* Longest name worth looking up: RFC 1035 section 2.3.4, with a final dot. */
#define NAME_MAX_LEN 256

/*
 * Where ${n} things of ${each} bytes are at ${off}: NULL when they are not
 * wholly inside the mapping and behind the header, or not at a multiple of 8.
 */
static const uint8_t *
region(const struct tn_snap *s, uint32_t off, uint64_t n, size_t each)
{
    if (off < sizeof(struct tn_snap_head) || off % 8 != 0 || off > s->size) {
        return NULL;
    }
    if (n > (s->size - off) / each) {
        return NULL;
    }
    return s->base + off;
}

/* True when ${str} is empty or inside the mapping. */
static inline bool
inside(const struct tn_snap *s, struct tn_snap_str str)
{
    return str.len == 0 || (str.off >= sizeof(struct tn_snap_head) &&
                               (uint64_t)str.off + str.len <= s->size);
}

/* A view of ${str}, which is inside(). */
static inline struct tn_str
text(const struct tn_snap *s, struct tn_snap_str str)
{
    struct tn_str view = {"", 0};

    if (str.len != 0) {
        view.p = (const char *)s->base + str.off;
        view.len = str.len;
    }
    return view;
}

static bool
power_of_two(uint32_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

const char *
tn_snap_open(struct tn_snap *s, const void *base, size_t size)
{
    struct tn_snap n;
    const struct tn_snap_head *h = &n.head;

    if (size < sizeof n.head) {
        return "snapshot is shorter than its header";
    }
    if (size > TN_SNAP_MAX_SIZE) {
        return "snapshot is larger than TN_SNAP_MAX_SIZE";
    }
    n.base = base;
    n.size = size;
    memcpy(&n.head, base, sizeof n.head);
    if (memcmp(h->magic, TN_SNAP_MAGIC, sizeof h->magic) != 0) {
        return "not a snapshot";
    }
    if (h->version != TN_SNAP_VERSION) {
        return "snapshot is of another version";
    }
    if (h->size != size) {
        return "snapshot is not of the size it says";
    }
    if (!power_of_two(h->addr_slots) ||
        region(&n, h->addr_off, h->addr_slots, sizeof(uint32_t)) == NULL) {
        return "snapshot has a bad address table";
    }
    if (!power_of_two(h->name_slots) ||
        region(&n, h->name_off, h->name_slots, sizeof(struct tn_snap_name)) ==
            NULL) {
        return "snapshot has a bad name table";
    }
    if (region(&n, h->tag_off, h->ntags, sizeof(struct tn_snap_tag)) == NULL) {
        return "snapshot has a bad tag table";
    }
    if (region(&n, h->self, 1, sizeof(struct tn_snap_peer)) == NULL ||
        h->npeers > size / sizeof(struct tn_snap_peer)) {
        return "snapshot has a bad peer count or self node";
    }
    if (!inside(&n, h->domain) || !inside(&n, h->tailnet)) {
        return "snapshot has a bad domain or tailnet name";
    }
    *s = n;
    return NULL;
}

/* tn_snap_open() has checked both. */
struct tn_str
tn_snap_domain(const struct tn_snap *s)
{
    return text(s, s->head.domain);
}

struct tn_str
tn_snap_tailnet(const struct tn_snap *s)
{
    return text(s, s->head.tailnet);
}

/*
 * The peer record at ${off}, copied to ${rec}; returns where its addresses
 * are, or NULL: record or arrays are not inside the mapping, or break a limit.
 */
static const uint8_t *
record(const struct tn_snap *s, uint32_t off, struct tn_snap_peer *rec)
{
    const uint8_t *p = region(s, off, 1, sizeof *rec);
    size_t need;

    if (p == NULL) {
        return NULL;
    }
    memcpy(rec, p, sizeof *rec);
    if (rec->naddrs > TN_SNAP_MAX_ADDRS || rec->ntags > TN_SNAP_MAX_TAGS) {
        return NULL;
    }
    need = sizeof *rec + rec->naddrs * sizeof(struct tn_addr) +
           rec->ntags * sizeof(struct tn_snap_str);
    if (rec->size < need || rec->size > s->size - off) {
        return NULL;
    }
    return p + sizeof *rec;
}

/* Compares them all: which one it is cannot be guessed, and a processor that
 * guesses wrong has waited for memory in vain. */
static bool
has_addr(const uint8_t *addrs, unsigned n, const struct tn_addr *a)
{
    uint64_t want[2], is[2];
    bool has = false;

    memcpy(want, a->b, sizeof want);
    for (unsigned i = 0; i < n; i++) {
        memcpy(is, addrs + i * sizeof is, sizeof is);
        has |= ((is[0] ^ want[0]) | (is[1] ^ want[1])) == 0;
    }
    return has;
}

/* The user record at ${off}, copied to ${u}; returns false when any of it is
 * bad. */
static bool
user(const struct tn_snap *s, uint32_t off, struct tn_snap_user *u)
{
    const uint8_t *at = region(s, off, 1, sizeof *u);

    if (at == NULL) {
        return false;
    }
    memcpy(u, at, sizeof *u);
    return inside(s, u->login) && inside(s, u->name) && inside(s, u->pic);
}

/* False when the strings of ${rec} are not inside the mapping, or when it is
 * both a person's and tagged: that gives neither identity. */
static bool
sound(const struct tn_snap *s, const struct tn_snap_peer *rec)
{
    bool tagged = (rec->flags & TN_PEER_TAGGED) != 0;

    if (tagged != (rec->ntags != 0) || tagged != (rec->tags.len != 0) ||
        (tagged && rec->user != 0)) {
        return false;
    }
    return inside(s, rec->name) && inside(s, rec->host) &&
           inside(s, rec->stable_id) && inside(s, rec->tags) &&
           inside(s, rec->caps);
}

/*
 * All of the peer whose record is ${rec} and at ${off}, its addresses at
 * ${addrs}, into ${p}; returns false, and leaves ${p} as it was, when any of it
 * is bad.  So all is checked first, and then written where it belongs.
 */
static bool
fill(const struct tn_snap *s, uint32_t off, const struct tn_snap_peer *rec,
    const uint8_t *addrs, struct tn_peer *p)
{
    struct tn_snap_user u = {0};

    if (!sound(s, rec) || (rec->user != 0 && !user(s, rec->user, &u))) {
        return false;
    }
    p->flags = rec->flags;
    p->id = rec->id;
    p->key_expiry = rec->key_expiry;
    p->key = s->base + off + offsetof(struct tn_snap_peer, key);
    p->name = text(s, rec->name);
    p->host = text(s, rec->host);
    p->stable_id = text(s, rec->stable_id);
    p->tags = text(s, rec->tags);
    p->caps = text(s, rec->caps);
    p->login = text(s, u.login);
    p->user_name = text(s, u.name);
    p->user_pic = text(s, u.pic);
    p->user_id = u.id;
    p->naddrs = rec->naddrs;
    for (unsigned i = 0; i < rec->naddrs; i++) {
        memcpy(
            &p->addrs[i], addrs + i * sizeof p->addrs[i], sizeof p->addrs[i]);
    }
    return true;
}

static bool
load(const struct tn_snap *s, uint32_t off, struct tn_peer *p)
{
    struct tn_snap_peer rec;
    const uint8_t *addrs = record(s, off, &rec);

    return addrs != NULL && fill(s, off, &rec, addrs, p);
}

/* What the public functions return for ${good}, and say of the bytes. */
static int
answer(bool good, bool *bad)
{
    if (good) {
        return 0;
    }
    if (bad != NULL) {
        *bad = true;
    }
    return -1;
}

int
tn_snap_self(const struct tn_snap *s, struct tn_peer *p, bool *bad)
{
    return answer(load(s, s->head.self, p), bad);
}

static uint32_t
addr_slot(const struct tn_snap *s, uint32_t i)
{
    uint32_t slot;

    memcpy(&slot, s->base + s->head.addr_off + i * sizeof slot, sizeof slot);
    return slot;
}

int
tn_snap_whois(const struct tn_snap *s, const struct tn_addr *a,
    struct tn_peer *p, bool *bad)
{
    uint32_t mask = s->head.addr_slots - 1;
    uint64_t hash = tn_addr_hash(a);
    uint32_t at = (uint32_t)hash & mask;
    struct tn_snap_peer rec;
    const uint8_t *addrs;
    uint32_t slot, off;

    for (uint32_t i = 0; i <= mask; i++, at = (at + 1) & mask) {
        slot = addr_slot(s, at);
        if (slot == 0) {
            return -1;
        }
        off = tn_snap_slot_off(slot);
        if (slot != tn_snap_slot(off, hash)) {
            continue;
        }
        addrs = record(s, off, &rec);
        if (addrs == NULL) {
            return answer(false, bad);
        }
        if (has_addr(addrs, rec.naddrs, a)) {
            return answer(fill(s, off, &rec, addrs, p), bad);
        }
    }
    return -1;
}

static char
fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* Order of two texts without case, the shorter first. */
static int
compare(const char *a, size_t alen, const char *b, size_t blen)
{
    size_t len = alen < blen ? alen : blen;

    for (size_t i = 0; i < len; i++) {
        unsigned char x = (unsigned char)fold(a[i]);
        unsigned char y = (unsigned char)fold(b[i]);

        if (x != y) {
            return x < y ? -1 : 1;
        }
    }
    return alen == blen ? 0 : alen < blen ? -1 : 1;
}

/* FNV-1a, whose low bits are good enough as they are. */
uint64_t
tn_name_hash(const char *name, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    if (len > 0 && name[len - 1] == '.') {
        len--;
    }
    for (size_t i = 0; i < len; i++) {
        h ^= (unsigned char)fold(name[i]);
        h *= UINT64_C(0x100000001b3);
    }
    return h ^ (h >> 32);
}

int
tn_snap_by_name(const struct tn_snap *s, const char *name, size_t len,
    struct tn_peer *p, bool *bad)
{
    uint32_t mask = s->head.name_slots - 1;
    struct tn_snap_name rec;
    struct tn_str str;
    uint32_t at;

    if (len > NAME_MAX_LEN) {
        return -1;
    }
    if (len > 0 && name[len - 1] == '.') {
        len--;
    }
    if (len == 0) {
        return -1;
    }
    at = (uint32_t)tn_name_hash(name, len) & mask;
    for (uint32_t i = 0; i <= mask; i++, at = (at + 1) & mask) {
        memcpy(&rec, s->base + s->head.name_off + at * sizeof rec, sizeof rec);
        if (rec.peer == 0) {
            return -1;
        }
        if (!inside(s, rec.name)) {
            if (bad != NULL) {
                *bad = true;
            }
            return -1;
        }
        str = text(s, rec.name);
        if (compare(name, len, str.p, str.len) == 0) {
            return answer(load(s, rec.peer, p), bad);
        }
    }
    return -1;
}

uint32_t
tn_snap_tag_count(const struct tn_snap *s, const char *tag, size_t len,
    struct tn_snap_tag_iter *it)
{
    uint32_t low = 0, high = s->head.ntags;

    it->list_off = 0;
    it->n = 0;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        struct tn_snap_tag rec;
        struct tn_str str;
        int order;

        memcpy(&rec, s->base + s->head.tag_off + mid * sizeof rec, sizeof rec);
        if (!inside(s, rec.name)) {
            return 0;
        }
        str = text(s, rec.name);
        order = compare(tag, len, str.p, str.len);
        if (order == 0) {
            if (region(s, rec.list_off, rec.n, sizeof(uint32_t)) == NULL) {
                return 0;
            }
            it->list_off = rec.list_off;
            it->n = rec.n;
            return rec.n;
        }
        if (order < 0) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return 0;
}

/* ${it} may be of another snapshot, so it is checked again. */
int
tn_snap_tag_peer(const struct tn_snap *s, const struct tn_snap_tag_iter *it,
    uint32_t i, struct tn_peer *p, bool *bad)
{
    const uint8_t *list;
    uint32_t off;

    if (i >= it->n) {
        return -1;
    }
    list = region(s, it->list_off, it->n, sizeof off);
    if (list == NULL) {
        if (bad != NULL) {
            *bad = true;
        }
        return -1;
    }
    memcpy(&off, list + i * sizeof off, sizeof off);
    return answer(load(s, off, p), bad);
}

/*
 * True when slot number ${n} is the one that speaks for the peer at ${off}: the
 * first that a search for its first address meets.
 */
static bool
speaks(const struct tn_snap *s, uint32_t n, uint32_t off,
    const struct tn_addr *first)
{
    uint32_t mask = s->head.addr_slots - 1;
    uint64_t hash = tn_addr_hash(first);
    uint32_t at = (uint32_t)hash & mask;
    uint32_t slot;

    for (uint32_t i = 0; i <= mask; i++, at = (at + 1) & mask) {
        slot = addr_slot(s, at);
        if (slot == tn_snap_slot(off, hash)) {
            return at == n;
        }
        if (slot == 0) {
            return false;
        }
    }
    return false;
}

int
tn_snap_next(const struct tn_snap *s, uint32_t *cursor, struct tn_peer *p)
{
    struct tn_snap_peer rec;
    struct tn_addr first;
    const uint8_t *addrs;
    uint32_t off, n, slot;

    while (*cursor < s->head.addr_slots) {
        n = (*cursor)++;
        slot = addr_slot(s, n);
        if (slot == 0) {
            continue;
        }
        off = tn_snap_slot_off(slot);
        addrs = record(s, off, &rec);
        if (addrs == NULL || rec.naddrs == 0) {
            continue;
        }
        memcpy(&first, addrs, sizeof first);
        if (speaks(s, n, off, &first) && load(s, off, p)) {
            return 0;
        }
    }
    return -1;
}

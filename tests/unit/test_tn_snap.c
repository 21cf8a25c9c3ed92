/* links: core/tn_addr.c core/tn_snap_read.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/publish.c */
/* links: tailnetd/engine/publish_edit.c tailnetd/engine/record.c */
/*
 * test_tn_snap.c: reading snapshots after every kind of damage.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tailnet.h"

static volatile uint8_t sink;

static void
touch(struct tn_str s)
{
    assert_non_null(s.p);
    for (size_t i = 0; i < s.len; i++) {
        sink = (uint8_t)(sink ^ (uint8_t)s.p[i]);
    }
}

static void
touch_peer(const struct tn_peer *p)
{
    const struct tn_str all[] = {p->name, p->host, p->stable_id, p->tags,
        p->caps, p->login, p->user_name, p->user_pic};

    for (size_t i = 0; i < COUNT(all); i++) {
        touch(all[i]);
    }
    for (size_t i = 0; i < 32; i++) {
        sink = (uint8_t)(sink ^ p->key[i]);
    }
    assert_true(p->naddrs <= TN_SNAP_MAX_ADDRS);
    if ((p->flags & TN_PEER_TAGGED) != 0) {
        assert_int_equal(p->user_id, 0);
        assert_int_equal(p->login.len, 0);
        assert_true(p->tags.len > 0);
    } else {
        assert_int_equal(p->tags.len, 0);
    }
}

/* Opens ${b}, which may be anything, and reads all there is by every way. */
static void
read_all(const void *b, size_t len)
{
    static const char *const names[] = {
        "laptop.our.ts.net", "desk", "web", "nobody", "robot.our.ts.net"};
    static const char *const tags[] = {"tag:gpu", "tag:ci", "tag:zzz"};
    struct tn_snap s;
    struct tn_peer p;
    struct tn_snap_tag_iter it;
    uint32_t cursor = 0, n;

    if (tn_snap_open(&s, b, len) != NULL) {
        return;
    }
    touch(tn_snap_domain(&s));
    touch(tn_snap_tailnet(&s));
    if (tn_snap_self(&s, &p, NULL) == 0) {
        touch_peer(&p);
    }
    for (unsigned i = 0; i < NPEERS; i++) {
        for (unsigned j = 0; j < peers[i].naddresses; j++) {
            if (tn_snap_whois(&s, &peers[i].addresses[j].addr, &p, NULL) == 0) {
                touch_peer(&p);
            }
        }
    }
    for (size_t i = 0; i < COUNT(names); i++) {
        if (tn_snap_by_name(&s, names[i], strlen(names[i]), &p, NULL) == 0) {
            touch_peer(&p);
        }
    }
    for (size_t i = 0; i < COUNT(tags); i++) {
        n = tn_snap_tag_count(&s, tags[i], strlen(tags[i]), &it);
        for (uint32_t j = 0; j <= n; j++) {
            if (tn_snap_tag_peer(&s, &it, j, &p, NULL) == 0) {
                touch_peer(&p);
            }
        }
    }
    while (tn_snap_next(&s, &cursor, &p) == 0) {
        touch_peer(&p);
    }
}

static void
every_byte(void **state)
{
    uint8_t *b;

    (void)state;
    build();
    b = bytes;
    for (size_t i = 0; i < size; i++) {
        const uint8_t was = b[i];
        const uint8_t to[] = {0, 0xff, was ^ 1, was ^ 0x80, (uint8_t)(was + 8),
            (uint8_t)(was - 8)};

        for (size_t j = 0; j < COUNT(to); j++) {
            b[i] = to[j];
            read_all(b, size);
        }
        b[i] = was;
    }
    free(bytes);
}

/* As it is, and with a header that agrees with the new length. */
static void
every_truncation(void **state)
{
    (void)state;
    build();
    for (size_t len = 0; len < size; len++) {
        uint8_t *b = malloc(len == 0 ? 1 : len);
        uint32_t said = (uint32_t)len;
        struct tn_snap s;

        assert_non_null(b);
        memcpy(b, bytes, len);
        assert_non_null(tn_snap_open(&s, b, len));
        if (len >= sizeof(struct tn_snap_head)) {
            memcpy(b + offsetof(struct tn_snap_head, size), &said, sizeof said);
            read_all(b, len);
        }
        free(b);
    }
    free(bytes);
}

static void
random_flips(void **state)
{
    uint64_t seed = 20261120;
    uint8_t *b;

    (void)state;
    build();
    b = malloc(size);
    assert_non_null(b);
    for (int round = 0; round < 20000; round++) {
        int flips = 1 + round % 8;

        memcpy(b, bytes, size);
        while (flips-- > 0) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
            size_t at = (size_t)(seed >> 33) % size;

            b[at] ^= (uint8_t)(1u << ((seed >> 30) & 7));
        }
        read_all(b, size);
    }
    free(b);
    free(bytes);
}

/* A mapping need not be aligned for the reader. */
static void
unaligned(void **state)
{
    char *b;

    (void)state;
    build();
    for (size_t shift = 1; shift < 8; shift++) {
        b = malloc(size + shift);
        assert_non_null(b);
        memcpy(b + shift, bytes, size);
        read_all(b + shift, size);
        free(b);
    }
    free(bytes);
}

static void
bad_headers(void **state)
{
#define FIELD(f) offsetof(struct tn_snap_head, f)
    static const struct {
        size_t at;
        uint32_t value;
        const char *says;
    } table[] = {
        {FIELD(magic), 0, "not a snapshot"},
        {FIELD(version), TN_SNAP_VERSION - 1, "version"},
        {FIELD(version), TN_SNAP_VERSION + 1, "version"},
        {FIELD(size), 0, "size"},
        {FIELD(self), 0, "self"},
        {FIELD(self), 1, "self"},
        {FIELD(self), 116, "self"},
        {FIELD(self), 0xfffffff8, "self"},
        {FIELD(npeers), 0xffffffff, "peer count"},
        {FIELD(addr_off), 0, "address table"},
        {FIELD(addr_off), 114, "address table"},
        {FIELD(addr_off), 0xfffffff8, "address table"},
        {FIELD(addr_slots), 0, "address table"},
        {FIELD(addr_slots), 3, "address table"},
        {FIELD(addr_slots), 0x40000000, "address table"},
        {FIELD(addr_slots), 0x80000000, "address table"},
        {FIELD(name_off), 8, "name table"},
        {FIELD(name_off), 0x80000000, "name table"},
        {FIELD(name_slots), 0, "name table"},
        {FIELD(name_slots), 24, "name table"},
        {FIELD(name_slots), 0x10000000, "name table"},
        {FIELD(tag_off), 0, "tag table"},
        {FIELD(tag_off), 0xfffffff0, "tag table"},
        {FIELD(ntags), 0x10000000, "tag table"},
        {FIELD(domain.off), 0, "domain"},
        {FIELD(domain.off), 0xffffffff, "domain"},
        {FIELD(domain.len), 0xffffffff, "domain"},
        {FIELD(tailnet.off), 0x7fffffff, "tailnet"},
    };
    struct tn_snap s, before = build();
    uint32_t was;

    (void)state;
    s = before;
    for (size_t i = 0; i < COUNT(table); i++) {
        uint8_t *at = (uint8_t *)bytes + table[i].at;
        const char *said;

        memcpy(&was, at, sizeof was);
        memcpy(at, &table[i].value, sizeof was);
        said = tn_snap_open(&s, bytes, size);
        if (said == NULL || strstr(said, table[i].says) == NULL) {
            fail_msg("case %zu says %s", i, said == NULL ? "well" : said);
        }
        memcpy(at, &was, sizeof was);
    }
    assert_memory_equal(&s, &before, sizeof s);
    assert_non_null(tn_snap_open(&s, bytes, size - 8));
    assert_null(tn_snap_open(&s, bytes, size));
    free(bytes);
}

/* Records that contradict themselves are bad, and said to be. */
static void
bad_records(void **state)
{
#define PEER(f) offsetof(struct tn_snap_peer, f)
    static const struct {
        const char *addr;
        size_t at;
        uint32_t value;
    } table[] = {
        {"100.64.0.1", PEER(size), 0},
        {"100.64.0.1", PEER(size), sizeof(struct tn_snap_peer) + 16},
        {"100.64.0.1", PEER(size), 0xffffffff},
        {"100.64.0.1", PEER(flags), TN_PEER_TAGGED},
        {"100.64.0.3", PEER(flags), 0},
        {"100.64.0.3", PEER(tags.len), 0},
        {"100.64.0.1", PEER(user), 4},
        {"100.64.0.1", PEER(user), 0xfffffff8},
        {"100.64.0.1", PEER(naddrs), TN_SNAP_MAX_ADDRS + 1},
        {"100.64.0.1", PEER(naddrs), 2 | 65u << 16},
        {"100.64.0.1", PEER(name.off), 8},
        {"100.64.0.1", PEER(host.len), 0x7fffffff},
        {"100.64.0.1", PEER(stable_id.off), 0xffffffff},
    };
    struct tn_snap s = build();
    struct tn_snap_peer rec;
    uint32_t was, user;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct tn_peer good = whois(&s, table[i].addr), p;
        struct tn_addr a = ip(table[i].addr);
        uint8_t *at = (uint8_t *)bytes + (good.key - s.base) - PEER(key) +
                      table[i].at;
        bool bad = false;

        memcpy(&was, at, sizeof was);
        memcpy(at, &table[i].value, sizeof was);
        memset(&p, 0xa5, sizeof p);
        if (tn_snap_whois(&s, &a, &p, &bad) != -1 || !bad) {
            fail_msg("case %zu is taken", i);
        }
        assert_int_equal(p.id, UINT64_C(0xa5a5a5a5a5a5a5a5));
        memcpy(at, &was, sizeof was);
    }
    /* a tagged node never has a person's identity */
    memcpy(&rec, whois(&s, "100.64.0.1").key - PEER(key), sizeof rec);
    user = rec.user;
    memcpy((uint8_t *)bytes + (whois(&s, "100.64.0.3").key - s.base) -
               PEER(key) + PEER(user),
        &user, sizeof user);
    for (int i = 0; i < 2; i++) {
        struct tn_addr a = ip("100.64.0.3");
        struct tn_peer p;
        bool bad = false;

        assert_int_equal(tn_snap_whois(&s, &a, &p, i == 0 ? NULL : &bad), -1);
        assert_int_equal(bad, i == 1);
    }
    free(bytes);
}

/* One address more than the limit, in a record that has room for it. */
static void
too_many_addresses(void **state)
{
    struct tn_snap s = build();
    uint8_t *at = (uint8_t *)bytes + (whois(&s, "100.65.0.0").key - s.base) -
                  PEER(key);
    struct tn_addr a = ip("100.65.0.0");
    struct tn_snap_peer rec;
    struct tn_peer p;
    bool bad = false;

    (void)state;
    memcpy(&rec, at, sizeof rec);
    assert_int_equal(rec.naddrs, TN_SNAP_MAX_ADDRS);
    rec.naddrs = TN_SNAP_MAX_ADDRS + 1;
    rec.size += sizeof a;
    memcpy(at, &rec, sizeof rec);
    assert_int_equal(tn_snap_whois(&s, &a, &p, &bad), -1);
    assert_true(bad);
    free(bytes);
}

static void
fill_slots(const struct tn_snap *s, uint32_t slot)
{
    for (uint32_t i = 0; i < s->head.addr_slots; i++) {
        memcpy((uint8_t *)bytes + s->head.addr_off + i * sizeof slot, &slot,
            sizeof slot);
    }
}

/* Tables without an empty slot end every search all the same. */
static void
full_tables(void **state)
{
    struct tn_snap s = build();
    uint8_t *b = bytes;
    struct tn_snap_tag_iter it = {s.head.tag_off, 0xffffffff};
    struct tn_snap_name name = {.peer = s.head.self};
    struct tn_addr self = ip("100.64.0.100"), other = ip("100.64.0.1");
    uint32_t slot = tn_snap_slot(s.head.self, tn_addr_hash(&self));
    struct tn_peer p;
    uint32_t cursor = 0;
    bool bad = false;

    (void)state;
    fill_slots(&s, slot);
    for (uint32_t i = 0; i < s.head.name_slots; i++) {
        memcpy(b + s.head.name_off + i * sizeof name, &name, sizeof name);
    }
    no_one(&s, "100.64.0.1");
    assert_int_equal(whois(&s, "100.64.0.100").id, 100);
    assert_int_equal(tn_snap_by_name(&s, "desk", 4, &p, &bad), -1);
    assert_int_equal(tn_snap_next(&s, &cursor, &p), 0);
    assert_int_equal(tn_snap_next(&s, &cursor, &p), -1);
    assert_false(bad);
    assert_int_equal(tn_snap_tag_peer(&s, &it, 7, &p, &bad), -1);
    assert_true(bad);
    /* a slot with the hash of an address whose peer is another */
    fill_slots(&s, tn_snap_slot(s.head.self, tn_addr_hash(&other)));
    no_one(&s, "100.64.0.1");
    free(bytes);
}

/* What a slot has of the hash keeps a search from the records of others, and
 * nothing else: a record that it leads to is checked like any. */
static void
slots(void **state)
{
    struct tn_snap s = build();
    struct tn_addr a = ip("100.64.0.1");
    uint64_t hash = tn_addr_hash(&a), inverse = ~hash;
    struct tn_peer p;
    bool bad = false;

    (void)state;
    assert_int_equal(tn_snap_slot(8, 0), 1u << TN_SNAP_SLOT_BITS);
    assert_int_equal(
        tn_snap_slot(TN_SNAP_MAX_SIZE - 8, UINT64_MAX), UINT32_MAX);
    assert_int_equal(tn_snap_slot_off(UINT32_MAX), TN_SNAP_MAX_SIZE - 8);
    fill_slots(&s, tn_snap_slot(TN_SNAP_MAX_SIZE - 8, inverse));
    assert_int_equal(tn_snap_whois(&s, &a, &p, &bad), -1);
    assert_false(bad);
    fill_slots(&s, tn_snap_slot(TN_SNAP_MAX_SIZE - 8, hash));
    assert_int_equal(tn_snap_whois(&s, &a, &p, &bad), -1);
    assert_true(bad);
    free(bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(random_flips),
        cmocka_unit_test(unaligned),
        cmocka_unit_test(bad_headers),
        cmocka_unit_test(bad_records),
        cmocka_unit_test(too_many_addresses),
        cmocka_unit_test(full_tables),
        cmocka_unit_test(slots),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, make_map, NULL);
}

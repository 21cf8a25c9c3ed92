/* links: core/tn_addr.c core/tn_snap_read.c */
/* links: tailnetd/engine/grants.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/publish.c tailnetd/engine/publish_edit.c */
/* links: tailnetd/engine/record.c tailnetd/engine/snapshot.c */
/* links: tailnetd/engine/span.c */
/* libs: -Wl,--wrap=publish_build,--wrap=malloc,--wrap=calloc,--wrap=realloc */
/*
 * test_snapshot.c: what the workers are told when peers come, go and change:
 * after each of thousands of random changes the snapshot that was made from the
 * last one answers every question like one that is built anew.
 */
#include "fake_loop.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/core/tn_snap_read.h"
#include "../../ngx_tailnet_module/tailnetd/engine/hot.h"
#include "../../ngx_tailnet_module/tailnetd/engine/node.h"
#include "../../ngx_tailnet_module/tailnetd/engine/publish_edit.h"
#include "../../ngx_tailnet_module/tailnetd/engine/say.h"
#include "../../ngx_tailnet_module/tailnetd/engine/snapshot.h"
#include "oom.h"

#define PEERS_MAX 3000
#define ADDRS_MAX 18 /* of one peer; more than are indexed */
#define USERS_MAX 20
#define ROUNDS    1000

/* ---- a tailnet that changes ---- */

static unsigned npeers_usual = 250;
static bool quarrels; /* some names are those of two */

/* What a row points to. */
struct host {
    unsigned number;
    char name[64], stable_id[16];
    struct tn_prefix addrs[ADDRS_MAX];
    char *tags[4];
};

static struct netmap_node peers[PEERS_MAX];
static struct host *hosts[PEERS_MAX]; /* in the same order */
static bool taken[2 * PEERS_MAX];     /* numbers of hosts that are there */
static struct netmap_user users[USERS_MAX];
static char user_texts[USERS_MAX][2][32];
static char none[] = "", self_name[] = "web.our.ts.net";
static char domain[] = "our.example";
static struct netmap map;

static char *all_tags[] = {(char[]){"tag:a"}, (char[]){"tag:b"},
    (char[]){"TAG:B"}, (char[]){"tag:db"}, (char[]){"tag:gpu"},
    (char[]){"tag:x"}, (char[]){"tag:y"}, (char[]){"tag:zebra"}};
#define NTAGS (sizeof(all_tags) / sizeof(all_tags[0]))

/* Changes of one message. */
static struct netmap_gone gone[64];
static uint32_t rows[64];
static struct netmap_changes changes;

static uint32_t seed = 1;

static unsigned
roll(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static struct tn_addr
address(unsigned host, unsigned i)
{
    uint8_t b4[4] = {
        100, (uint8_t)(64 + i), (uint8_t)(host >> 8), (uint8_t)host};
    uint8_t b6[16] = {0xfd, 0x7a, 0, (uint8_t)i};

    memcpy(b6 + 12, b4, 4);
    return i % 2 == 0 ? tn_addr_from4(b4) : tn_addr_from6(b6);
}

static void
name_of(unsigned number, char name[64])
{
    static const char *const forms[] = {
        "h%u.our.ts.net", "h%u.their.ts.net", "h%u"};
    unsigned which = quarrels ? roll(20) : number % 7 == 0;

    if (which == 3)
        name[0] = '\0';
    else
        snprintf(name, 64,
            which == 0   ? forms[1]
            : which == 1 ? forms[2]
                         : forms[0],
            quarrels && which == 2 ? roll(2 * npeers_usual) : number);
    if (!quarrels && number % 31 == 0)
        name[0] = '\0';
}

/* Any standing at all, but for addresses: those are the host's. */
static void
make_row(struct netmap_node *row, struct host *h)
{
    unsigned n = roll(20) == 0 ? roll(ADDRS_MAX + 1) : 1 + roll(2);

    memset(row, 0, sizeof(*row));
    name_of(h->number, h->name);
    snprintf(h->stable_id, sizeof(h->stable_id), "n%u", h->number);
    row->id = h->number + 1;
    row->name = h->name;
    row->stable_id = h->stable_id;
    row->user = roll(USERS_MAX + 2);
    row->sharer = roll(15) == 0 ? 1 : 0;
    row->has_key = true;
    memset(row->key, (int)(h->number % 251) + 1, sizeof(row->key));
    row->expired = roll(30) == 0;
    row->online = roll(2) == 0;
    row->unsigned_peerapi_only = quarrels && roll(40) == 0;
    row->addresses = h->addrs;
    for (unsigned i = 0; i < n; i++) {
        h->addrs[i].addr = address(h->number, i);
        h->addrs[i].bits = roll(30) == 0 && !row->unsigned_peerapi_only ? 120
                                                                        : 128;
    }
    row->naddresses = n;
    row->tags = h->tags;
    if (roll(3) == 0) {
        unsigned at = roll(NTAGS);

        for (row->ntags = 1 + roll(2); at + row->ntags > NTAGS; row->ntags--) {
        }
        for (unsigned i = 0; i < row->ntags; i++)
            h->tags[i] = all_tags[at + i];
    }
}

static void
add_peer(unsigned number)
{
    struct host *h = calloc(1, sizeof(*h));

    assert_non_null(h);
    assert_true(map.npeers < 2 * npeers_usual);
    while (taken[number])
        number = roll(2 * npeers_usual);
    taken[number] = true;
    h->number = number;
    hosts[map.npeers] = h;
    make_row(&peers[map.npeers++], h);
    changes.nadded++;
}

static void
remove_peer(uint32_t row)
{
    uint32_t last = map.npeers - 1;

    memcpy(gone[changes.ngone].key, peers[row].key, 32);
    gone[changes.ngone++].row = row;
    taken[hosts[row]->number] = false;
    free(hosts[row]);
    peers[row] = peers[last];
    hosts[row] = hosts[last];
    map.npeers--;
}

static void
touch_peer(uint32_t row)
{
    struct netmap_node *n = &peers[row];

    if (roll(2) == 0)
        n->online = !n->online;
    if (roll(4) == 0)
        n->key_expiry = time(NULL) + 100000 + (int64_t)roll(1000);
    if (quarrels && roll(40) == 0)
        n->key_expiry = time(NULL) - 1000;
    rows[changes.nrows++] = row;
}

/* Who gets another name, other tags or another user, goes and comes again. */
static void
change_something(unsigned most)
{
    unsigned n = 1 + roll(most), back[16], nback = 0, row, old;

    changes = (struct netmap_changes){.gone = gone, .rows = rows};
    for (unsigned i = 0; i < n && map.npeers > 0; i++) {
        row = roll(map.npeers);
        if (roll(2) == 0) {
            back[nback++] = hosts[row]->number;
            remove_peer(row);
        } else if (map.npeers > npeers_usual / 2 && roll(2) == 0) {
            remove_peer(row);
        }
    }
    old = map.npeers;
    for (unsigned i = 0; i < nback; i++)
        add_peer(back[i]);
    for (unsigned i = 0; i < n && map.npeers < npeers_usual * 3 / 2; i++)
        if (roll(3) == 0)
            add_peer(roll(2 * npeers_usual));
    for (unsigned i = 0; i < n && old > 0 && roll(2) == 0; i++)
        touch_peer(roll(old));
}

static void
make_map(unsigned n)
{
    static struct tn_prefix self_addr;

    memset(taken, 0, sizeof(taken));
    npeers_usual = n;
    map = (struct netmap){.peers = peers, .users = users, .domain = domain};
    for (unsigned i = 0; i < USERS_MAX; i++) {
        snprintf(user_texts[i][0], 32, "user%u@example.com", i);
        snprintf(user_texts[i][1], 32, "User %u", i);
        users[i] = (struct netmap_user){.id = i + 1,
            .login = user_texts[i][0],
            .name = user_texts[i][1],
            .pic = none};
    }
    map.nusers = USERS_MAX;
    self_addr.addr = address(5 * PEERS_MAX, 0);
    self_addr.bits = 128;
    map.self = (struct netmap_node){.id = 1000000,
        .name = self_name,
        .stable_id = none,
        .user = 1,
        .has_key = true,
        .online = true,
        .addresses = &self_addr,
        .naddresses = 1};
    changes = (struct netmap_changes){0};
    while (map.npeers < n)
        add_peer(roll(2 * n));
}

static void
free_map(void)
{
    while (map.npeers > 0)
        free(hosts[--map.npeers]);
}

/* Some have capabilities at us, by their addresses. */
static void
make_rules(struct netmap_rule rules[2])
{
    static struct netmap_ip_range srcs[2];
    static struct netmap_cap_grant grants[2];
    static struct tn_prefix dst;
    static char cap[] = "example.com/cap", one[] = "[1]", two[] = "[{\"a\":2}]";
    static char *names[] = {cap}, *values[] = {one, two};

    dst.addr = map.self.addresses[0].addr;
    dst.bits = 128;
    memset(rules, 0, 2 * sizeof(*rules));
    for (unsigned i = 0; i < 2; i++) {
        srcs[i].first = address(i * 64, 0);
        srcs[i].last = address(i * 64 + 99, 0);
        grants[i] = (struct netmap_cap_grant){.dsts = &dst,
            .ndsts = 1,
            .names = names,
            .values = &values[i],
            .ncaps = 1};
        rules[i].srcs = &srcs[i];
        rules[i].nsrcs = 1;
        rules[i].grants = &grants[i];
        rules[i].ngrants = 1;
    }
    map.rules = rules;
    map.nrules = 2;
}

/* ---- nodes that publish ---- */

struct file {
    void *bytes;
    size_t size;
    struct tn_snap snap;
    unsigned published;
};

static struct hot_node hot_rows[2];
static struct file files[2];
static unsigned builds;
static char said[SAY_MAX];

void
say(int level, const char *fmt, ...)
{
    va_list ap;

    (void)level;
    va_start(ap, fmt);
    vsnprintf(said, sizeof(said), fmt, ap);
    va_end(ap);
}

int __real_publish_build(const struct netmap *nm, const struct publish_opts *o,
    void **bytes, size_t *size, char err[TN_ERR_MAX]);
int __wrap_publish_build(const struct netmap *nm, const struct publish_opts *o,
    void **bytes, size_t *size, char err[TN_ERR_MAX]);

int
__wrap_publish_build(const struct netmap *nm, const struct publish_opts *o,
    void **bytes, size_t *size, char err[TN_ERR_MAX])
{
    builds++;
    return __real_publish_build(nm, o, bytes, size, err);
}

static void
unmap(struct file *f)
{
    if (f->bytes != NULL)
        munmap(f->bytes, f->size);
    f->bytes = NULL;
}

static void
take(const char *node, uint64_t generation, int fd)
{
    struct file *f = &files[strcmp(node, "web") == 0 ? 0 : 1];
    const char *why;

    unmap(f);
    f->size = (size_t)lseek(fd, 0, SEEK_END);
    f->bytes = mmap(NULL, f->size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(f->bytes != MAP_FAILED);
    why = tn_snap_open(&f->snap, f->bytes, f->size);
    if (why != NULL)
        fail_msg("%s", why);
    assert_int_equal(f->snap.head.generation, generation);
    f->published++;
}

static const struct node_ops ops = {.publish = take};

static void
publish(void *arg)
{
    snapshot_publish(arg);
}

static void
begin_node(struct node *n, const char *name, struct hot_node *row)
{
    memset(n, 0, sizeof(*n));
    snprintf(n->name, sizeof(n->name), "%s", name);
    n->ops = &ops;
    n->hot_row = row;
    n->netmap = &map;
    n->publish_timer = loop_timer_new(publish, n);
}

static void
end_node(struct node *n, struct file *f)
{
    snapshot_free(n);
    loop_timer_free(n->publish_timer);
    unmap(f);
    f->published = 0;
}

/* ---- comparing ---- */

static void
same_str(struct tn_str a, struct tn_str b)
{
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.p, b.p, a.len);
}

static void
same_peer(const struct tn_peer *a, const struct tn_peer *b)
{
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->key_expiry, b->key_expiry);
    assert_int_equal(a->user_id, b->user_id);
    assert_memory_equal(a->key, b->key, 32);
    assert_int_equal(a->naddrs, b->naddrs);
    assert_memory_equal(a->addrs, b->addrs, a->naddrs * sizeof(a->addrs[0]));
    same_str(a->name, b->name);
    same_str(a->host, b->host);
    same_str(a->stable_id, b->stable_id);
    same_str(a->tags, b->tags);
    same_str(a->caps, b->caps);
    same_str(a->login, b->login);
    same_str(a->user_name, b->user_name);
    same_str(a->user_pic, b->user_pic);
}

static unsigned found; /* questions that had an answer */

static void
same_answer(int ra, int rb, const struct tn_peer *a, const struct tn_peer *b)
{
    assert_int_equal(ra, rb);
    if (ra == 0) {
        same_peer(a, b);
        found++;
    }
}

static void
same_name(const struct tn_snap *s, const struct tn_snap *t, const char *name)
{
    struct tn_peer x, y;
    bool bad = false;
    int ra = tn_snap_by_name(s, name, strlen(name), &x, &bad);
    int rb = tn_snap_by_name(t, name, strlen(name), &y, &bad);

    if (ra != rb)
        fail_msg("\"%s\": %d, built anew %d", name, ra, rb);
    same_answer(ra, rb, &x, &y);
    assert_false(bad);
}

static int
by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static uint32_t
ids_of(const struct tn_snap *s, const char *tag, uint64_t ids[PEERS_MAX])
{
    struct tn_snap_tag_iter it;
    struct tn_peer p;
    uint32_t n = tn_snap_tag_count(s, tag, strlen(tag), &it);

    assert_true(n <= PEERS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(tn_snap_tag_peer(s, &it, i, &p, NULL), 0);
        ids[i] = p.id;
    }
    qsort(ids, n, sizeof(ids[0]), by_number);
    return n;
}

static uint32_t
ids_of_all(const struct tn_snap *s, uint64_t ids[PEERS_MAX + 1])
{
    uint32_t cursor = 0, n = 0;
    struct tn_peer p;

    while (tn_snap_next(s, &cursor, &p) == 0)
        ids[n++] = p.id;
    qsort(ids, n, sizeof(ids[0]), by_number);
    return n;
}

/* Two snapshots, as their readers see them. */
static void
same_meaning(const struct tn_snap *s, const struct tn_snap *t)
{
    static uint64_t a[PEERS_MAX + 1], b[PEERS_MAX + 1];
    struct tn_peer x, y;
    bool bad = false;
    uint32_t n;
    char name[64];

    assert_int_equal(s->head.npeers, t->head.npeers);
    assert_int_equal(s->head.self_expiry, t->head.self_expiry);
    same_str(tn_snap_domain(s), tn_snap_domain(t));
    same_str(tn_snap_tailnet(s), tn_snap_tailnet(t));
    same_answer(tn_snap_self(s, &x, &bad), tn_snap_self(t, &y, &bad), &x, &y);
    for (unsigned i = 0; i < 2 * npeers_usual; i++) {
        for (unsigned j = 0; j < ADDRS_MAX; j++) {
            struct tn_addr who = address(i, j);

            same_answer(tn_snap_whois(s, &who, &x, &bad),
                tn_snap_whois(t, &who, &y, &bad), &x, &y);
        }
        snprintf(name, sizeof(name), "h%u", i);
        same_name(s, t, name);
        snprintf(name, sizeof(name), "h%u.our.ts.net", i);
        same_name(s, t, name);
        snprintf(name, sizeof(name), "h%u.their.ts.net", i);
        same_name(s, t, name);
    }
    assert_false(bad);
    same_name(s, t, "web");
    same_name(s, t, self_name);
    for (unsigned i = 0; i < NTAGS; i++) {
        n = ids_of(s, all_tags[i], a);
        assert_int_equal(n, ids_of(t, all_tags[i], b));
        assert_memory_equal(a, b, n * sizeof(a[0]));
    }
    n = ids_of_all(s, a);
    assert_int_equal(n, ids_of_all(t, b));
    assert_memory_equal(a, b, n * sizeof(a[0]));
    assert_true(s->head.addr_slots > 1 && s->head.name_slots > 1);
}

/* What was published last means what is built anew. */
static void
compare(void)
{
    struct node fresh;
    unsigned before = builds;

    begin_node(&fresh, "fresh", &hot_rows[1]);
    snapshot_publish(&fresh);
    while (turn())
        ;
    assert_int_equal(files[1].published, 1);
    assert_int_equal(builds, before + 1);
    builds = before;
    found = 0;
    same_meaning(&files[0].snap, &files[1].snap);
    assert_true(found > map.npeers);
    end_node(&fresh, &files[1]);
}

/* ---- tests ---- */

/* Several messages may make one snapshot. */
static void
churn(struct node *n, unsigned rounds, unsigned most)
{
    for (unsigned i = 0; i < rounds; i++) {
        unsigned before = files[0].published;

        for (unsigned j = roll(8) == 0 ? 20 : 1; j > 0; j--) {
            change_something(most);
            snapshot_publish_changes(n, &changes);
        }
        sleep_ms(2000);
        while (turn())
            ;
        if (files[0].published == before)
            continue; /* nothing for the workers */
        compare();
    }
}

static void
random_changes(void **state)
{
    struct netmap_rule rules[2];
    struct node n;
    unsigned published;

    quarrels = *state != NULL;
    seed = 42;
    make_map(120);
    make_rules(rules);
    begin_node(&n, "web", &hot_rows[0]);
    builds = 0;
    snapshot_publish(&n);
    compare();
    churn(&n, ROUNDS, 4);
    published = files[0].published;
    print_message("# %u published, %u of them built\n", published, builds);
    assert_true(published > ROUNDS / 2);
    assert_true(builds < (quarrels ? published / 2 : published / 20));
    end_node(&n, &files[0]);
    free_map();
    fake_loop_end();
}

/* Nobody is left, and then others come. */
static void
to_nothing_and_back(void **state)
{
    struct node n;

    (void)state;
    quarrels = false;
    seed = 7;
    make_map(40);
    begin_node(&n, "web", &hot_rows[0]);
    snapshot_publish(&n);
    while (map.npeers > 0) {
        changes = (struct netmap_changes){.gone = gone};
        for (unsigned i = 0; i < 7 && map.npeers > 0; i++)
            remove_peer(roll(map.npeers));
        snapshot_publish_changes(&n, &changes);
        sleep_ms(2000);
        compare();
    }
    while (map.npeers < 60) {
        changes = (struct netmap_changes){0};
        add_peer(roll(80));
        snapshot_publish_changes(&n, &changes);
        sleep_ms(2000);
        compare();
    }
    end_node(&n, &files[0]);
    free_map();
    fake_loop_end();
}

/* Back and forth, and nothing else. */
static void
touch_one(uint32_t row)
{
    changes = (struct netmap_changes){.rows = rows, .nrows = 1};
    rows[0] = row;
    peers[row].online = !peers[row].online;
}

/* So that there is something to publish. */
static void
change_surely(void)
{
    change_something(3);
    if (map.npeers < 2 * npeers_usual)
        add_peer(roll(2 * npeers_usual));
}

static void
tell(struct node *n)
{
    change_surely();
    snapshot_publish_changes(n, &changes);
}

static unsigned
turns(void)
{
    unsigned n = 1;

    while (turn())
        n++;
    return n;
}

/* The lowest descriptor that is free. */
static int
free_fd(void)
{
    int fd = dup(STDERR_FILENO);

    assert_true(fd != -1);
    close(fd);
    return fd;
}

static void
in_slices(void **state)
{
    unsigned *published = &files[0].published;
    int fd = free_fd();
    struct node n;

    (void)state;
    quarrels = false;
    seed = 3;
    make_map(2000);
    begin_node(&n, "web", &hot_rows[0]);
    builds = 0;

    /* The first one is there at once.  A copy of it is made, and has what
     * changed meanwhile. */
    snapshot_publish(&n);
    assert_int_equal(*published, 1);
    assert_true(turn());
    tell(&n);
    assert_true(turn());
    tell(&n);
    assert_int_equal(*published, 1);
    assert_true(turns() > 4);
    assert_int_equal(*published, 2);
    compare();
    assert_int_equal(builds, 1);

    /* When there is a copy, it takes two turns; what changes between them
     * is in the next one. */
    for (unsigned i = 0, last; i < 20; i++) {
        sleep_ms(2000);
        turns();
        last = *published;
        if (i % 2 == 0)
            change_surely();
        else
            touch_one(0);
        snapshot_publish_changes(&n, &changes);
        assert_true(turn());
        assert_int_equal(*published, last);
        if (i % 2 == 0)
            change_surely();
        else
            touch_one(0);
        snapshot_publish_changes(&n, &changes);
        assert_int_equal(*published, last);
        assert_true(turn());
        assert_int_equal(*published, last + 1);
        turns();
        assert_int_equal(*published, last + 2);
        compare();
    }
    assert_int_equal(builds, 1);

    /* Another netmap: the copy is dropped. */
    *published = 0;
    tell(&n);
    change_surely();
    snapshot_publish_soon(&n);
    assert_int_equal(*published, 1);
    assert_int_equal(builds, 2);
    assert_true(turn());
    change_surely();
    snapshot_publish_soon(&n);
    assert_int_equal(*published, 2);
    assert_int_equal(builds, 3);
    compare();

    /* A new holder wants it again, once. */
    snapshot_publish(&n);
    snapshot_publish(&n);
    turns();
    assert_int_equal(*published, 3);
    compare();

    /* Its end. */
    snapshot_publish(&n);
    turns();
    tell(&n);
    assert_true(turn());
    end_node(&n, &files[0]);
    assert_int_equal(free_fd(), fd);
    free_map();
    fake_loop_end();
}

/* Many changes in a short time are put together. */
static void
put_together(void **state)
{
    struct node n;
    unsigned i;

    (void)state;
    quarrels = false;
    seed = 5;
    make_map(100);
    begin_node(&n, "web", &hot_rows[0]);
    builds = 0;
    snapshot_publish(&n);
    for (i = 0; i < 100; i++) {
        changes = (struct netmap_changes){.gone = gone};
        remove_peer(roll(map.npeers));
        add_peer(roll(200));
        snapshot_publish_changes(&n, &changes);
    }
    assert_int_equal(files[0].published, 10);
    sleep_ms(99);
    assert_int_equal(files[0].published, 10);
    sleep_ms(1);
    assert_int_equal(files[0].published, 11);
    compare();
    sleep_ms(10000);
    assert_int_equal(files[0].published, 11);
    assert_int_equal(builds, 1);
    end_node(&n, &files[0]);
    free_map();
}

/* What the workers do not know of is no snapshot. */
static void
nothing_new(void **state)
{
    struct node n;

    (void)state;
    quarrels = false;
    make_map(20);
    begin_node(&n, "web", &hot_rows[0]);
    snapshot_publish(&n);
    for (unsigned i = 0; i < 50; i++) {
        changes = (struct netmap_changes){.rows = rows, .nrows = 2};
        rows[0] = roll(20);
        rows[1] = roll(20);
        peers[rows[0]].home_derp++;
        snapshot_publish_changes(&n, &changes);
        sleep_ms(2000);
    }
    assert_int_equal(files[0].published, 1);
    end_node(&n, &files[0]);
    free_map();
}

/* A user that nobody was for a while may have got another name meanwhile, and
 * one without a profile may get one. */
static void
other_users(void **state)
{
    struct node n;

    (void)state;
    quarrels = false;
    seed = 11;
    make_map(30);
    begin_node(&n, "web", &hot_rows[0]);
    snapshot_publish(&n);
    for (unsigned i = 0; i < 60; i++) {
        unsigned user = 1 + roll(USERS_MAX - 1), left = map.npeers;

        changes = (struct netmap_changes){.gone = gone};
        for (uint32_t row = 0; row < map.npeers;)
            if (peers[row].user == user + 1)
                remove_peer(row);
            else
                row++;
        snprintf(user_texts[user][1], 32, "User %u of %u", user, i);
        while (map.npeers < left) {
            add_peer(roll(60));
            peers[map.npeers - 1].user = user + 1;
        }
        snapshot_publish_changes(&n, &changes);
        sleep_ms(2000);
        compare();
    }
    end_node(&n, &files[0]);
    free_map();
}

/* Nothing is published of a netmap in which two have one address, and why not
 * is said; what comes then is published. */
static void
an_address_of_two(void **state)
{
    struct node n;
    char name[64];

    (void)state;
    quarrels = false;
    seed = 13;
    make_map(30);
    begin_node(&n, "web", &hot_rows[0]);
    snapshot_publish(&n);
    changes = (struct netmap_changes){0};
    add_peer(roll(60));
    hosts[30]->addrs[0] = peers[3].addresses[0];
    hosts[30]->addrs[0].bits = peers[3].addresses[0].bits = 128;
    peers[30].naddresses = 1;
    said[0] = '\0';
    snapshot_publish_changes(&n, &changes);
    assert_int_equal(files[0].published, 1);
    tn_addr_format(&peers[3].addresses[0].addr, name);
    assert_non_null(strstr(said, name));
    assert_non_null(strstr(said, "is another node's too"));

    changes = (struct netmap_changes){.gone = gone};
    remove_peer(30);
    snapshot_publish_changes(&n, &changes);
    assert_int_equal(files[0].published, 2);
    compare();
    end_node(&n, &files[0]);
    free_map();
}

/* Nobody is taken for who had the address before, however many changes there
 * were and whatever is being written. */
static void
an_address_of_another(void **state)
{
    struct netmap_node *row;
    struct tn_peer p;
    struct tn_addr a;
    struct node n;

    (void)state;
    quarrels = false;
    seed = 19;
    make_map(2000);
    begin_node(&n, "web", &hot_rows[0]);
    snapshot_publish(&n);
    for (unsigned i = 0; i < 60; i++) {
        for (unsigned k = roll(4); k > 0 && turn(); k--)
            tell(&n);
        changes = (struct netmap_changes){.gone = gone};
        for (row = peers; row->naddresses == 0; row++)
            ;
        a = row->addresses[0].addr;
        remove_peer((uint32_t)(row - peers));
        if (i % 3 == 0) { /* in two messages */
            snapshot_publish_changes(&n, &changes);
            changes = (struct netmap_changes){0};
        }
        add_peer(roll(4000));
        row = &peers[map.npeers - 1];
        hosts[map.npeers - 1]->addrs[0] = (struct tn_prefix){a, 128};
        row->naddresses = 1;
        if (i % 4 == 1)
            snapshot_publish_soon(&n);
        else
            snapshot_publish_changes(&n, &changes);
        if (tn_snap_whois(&files[0].snap, &a, &p, NULL) == 0)
            assert_int_equal(p.id, row->id);
        changes = (struct netmap_changes){.gone = gone};
        remove_peer(map.npeers - 1);
        snapshot_publish_changes(&n, &changes);
        sleep_ms(i < 20 ? 0 : 2000);
    }
    end_node(&n, &files[0]);
    free_map();
    fake_loop_end();
}

/* When there is no memory for an edit, all is built anew. */
static void
out_of_memory(void **state)
{
    struct netmap_rule rules[2];
    struct node n;
    unsigned failed = 0;

    (void)state;
    quarrels = false;
    seed = 17;
    make_map(60);
    make_rules(rules);
    begin_node(&n, "web", &hot_rows[0]);
    snapshot_publish(&n);
    for (unsigned at = 1, round = 0; round < 100; round++, at = at % 40 + 1) {
        change_surely();
        builds = 0;
        oom_arm(at - 1);
        snapshot_publish_changes(&n, &changes);
        oom_disarm();
        failed += builds != 0;
        sleep_ms(2000);
        if (n.image == NULL) /* it failed in a build */
            snapshot_publish(&n);
        compare();
    }
    assert_in_range(failed, 10, 90);
    end_node(&n, &files[0]);
    free_map();
}

static char again[] = "again";

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes),
        cmocka_unit_test_prestate(random_changes, again),
        cmocka_unit_test(to_nothing_and_back),
        cmocka_unit_test(in_slices),
        cmocka_unit_test(put_together),
        cmocka_unit_test(nothing_new),
        cmocka_unit_test(other_users),
        cmocka_unit_test(an_address_of_two),
        cmocka_unit_test(an_address_of_another),
        cmocka_unit_test(out_of_memory),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

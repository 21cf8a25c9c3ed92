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
#include "snapshot_kit.h"

#define ROUNDS 1000

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

/* A user that nobody was for a while may have got another name meanwhile. */
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
        rename_user(user);
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
    said[0] = '\0';
    sleep_ms(5000);
    assert_string_equal(said, ""); /* it would be no other */

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

/* When there is no memory for an edit, all is built anew, at once or later. */
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
        sleep_ms(2000); /* if that failed too, it is tried again */
        compare();
    }
    assert_in_range(failed, 10, 90);
    end_node(&n, &files[0]);
    free_map();
}

/* Nor for a build: that is tried again, until there is some. */
static void
out_of_memory_for_all(void **state)
{
    struct node n;

    (void)state;
    quarrels = false;
    seed = 23;
    make_map(60);
    oom_fired = true;
    for (unsigned at = 2; oom_fired; at++) {
        begin_node(&n, "web", &hot_rows[0]);
        oom_arm(at); /* 0, 1: the image, and what the fake loop needs */
        snapshot_publish(&n);
        oom_disarm();
        assert_int_equal(files[0].published, oom_fired ? 0 : 1);
        sleep_ms(1000);
        assert_int_equal(files[0].published, 1);
        compare();
        end_node(&n, &files[0]);
        assert_in_range(at, 2, 100);
    }
    free_map();
    fake_loop_end();
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
        cmocka_unit_test(out_of_memory_for_all),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/engine/report.c tailnetd/crypto/noise.c */
/* libs: -lsodium -lcrypto -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=write,--wrap=memfd_create */
/*
 * test_report.c: a status document that is written over many turns has every
 * peer once, whatever becomes of the netmap meanwhile, and is answered to all
 * who asked; or they all hear why not.
 */
#include "fake_loop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/engine/node.h"
#include "../../ngx_tailnet_module/tailnetd/engine/report.h"
#include "../../ngx_tailnet_module/tailnetd/engine/say.h"
#include "../../ngx_tailnet_module/tailnetd/engine/status.h"
#include "oom.h"

#define PEERS_MAX 4000
#define IDS       20000
#define ROUNDS    200
#define TEXT_MAX  (1 << 22)

/* ---- memory files ---- */

static int fail_write; /* of so many, the last one; 0: none */
static bool short_writes, no_memfd;
static size_t longest; /* a single write() */

ssize_t __real_write(int fd, const void *p, size_t len);
ssize_t __wrap_write(int fd, const void *p, size_t len);
int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);

ssize_t
__wrap_write(int fd, const void *p, size_t len)
{
    if (fail_write > 0 && --fail_write == 0) {
        errno = ENOSPC;
        return -1;
    }
    longest = len > longest ? len : longest;
    return __real_write(fd, p, short_writes && len > 1 ? len / 2 : len);
}

int
__wrap_memfd_create(const char *name, unsigned flags)
{
    if (no_memfd) {
        errno = EMFILE;
        return -1;
    }
    return __real_memfd_create(name, flags);
}

/* ---- nodes ---- */

static struct netmap_node rows[3][PEERS_MAX];
static struct netmap maps[3];
static struct node web = {.name = "web"}, db = {.name = "db"};
static struct node *nodes;
static unsigned last_id, written; /* rows, by all documents */

/* A peer's name and key are its ID. */
static void
set_row(struct netmap_node *row, unsigned id)
{
    memset(row, 0, sizeof(*row));
    row->id = id;
    memcpy(row->key, &id, sizeof(id));
}

static void
fill(unsigned which, unsigned npeers)
{
    unsigned i;

    maps[which] = (struct netmap){.peers = rows[which], .npeers = npeers};
    for (i = 0; i < npeers; i++)
        set_row(&rows[which][i], ++last_id);
}

char *
status_node(const struct node *n)
{
    char *text = malloc(100);

    if (text != NULL)
        snprintf(text, 100, "{\"name\":\"%s\"}", n->name);
    return text;
}

char *
status_peer(const struct node *n, const struct netmap_node *row)
{
    char *text = malloc(100);

    assert_non_null(n->netmap);
    if (text != NULL)
        snprintf(text, 100, "%u", (unsigned)row->id);
    written++;
    return text;
}

void
say(int level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
}

/* ---- who asks ---- */

static struct {
    unsigned n, failed;
    uint32_t query; /* the last one */
    char why[TN_ERR_MAX];
    char text[TEXT_MAX + 1];
} answers;

static void
answered(uint32_t query, int fd, const char *why)
{
    ssize_t len;

    answers.n++;
    answers.query = query;
    snprintf(answers.why, sizeof(answers.why), "%s", why);
    if (fd == -1) {
        answers.failed++;
        return;
    }
    len = pread(fd, answers.text, TEXT_MAX, 0);
    assert_true(len >= 0);
    answers.text[len] = '\0';
}

static int
begin(void **state)
{
    (void)state;
    memset(&answers, 0, sizeof(answers));
    last_id = written = 0;
    web.next = &db;
    db.next = NULL;
    web.netmap = &maps[0];
    db.netmap = NULL;
    nodes = &web;
    fill(0, 3);
    return report_init(&nodes, answered);
}

static int
end(void **state)
{
    (void)state;
    report_free();
    fake_loop_end();
    return 0;
}

static unsigned
turns(void)
{
    unsigned n = 1;

    while (turn())
        n++;
    return n;
}

/* How often the last document has each ID; the text is JSON up to there. */
static uint8_t times[IDS];

static unsigned
count(const char *node)
{
    char head[100];
    unsigned n = 0;
    char *p;

    memset(times, 0, sizeof(times));
    snprintf(head, sizeof(head), "{\"name\":\"%s\",\"peers\":[", node);
    p = strstr(answers.text, head);
    assert_non_null(p);
    for (p += strlen(head); *p != ']'; n++) {
        unsigned long id = strtoul(p, &p, 10);

        assert_in_range(id, 1, IDS - 1);
        times[id]++;
        assert_true(*p == ']' || (*p == ',' && p[1] != ']'));
        p += *p == ',';
    }
    assert_int_equal(p[1], '}');
    return n;
}

/* ---- tests ---- */

static void
small_at_once(void **state)
{
    (void)state;
    report_ask(7, "");
    assert_int_equal(answers.n, 1);
    assert_int_equal(answers.query, 7);
    assert_string_equal(answers.text,
        "{\"nodes\":[{\"name\":\"web\",\"peers\":[1,2,3]},"
        "{\"name\":\"db\",\"peers\":[]}]}");
    report_ask(8, "db");
    assert_string_equal(
        answers.text, "{\"nodes\":[{\"name\":\"db\",\"peers\":[]}]}");
    report_ask(9, "nobody");
    assert_string_equal(answers.text, "{\"nodes\":[]}");
    nodes = NULL;
    report_ask(10, "");
    assert_string_equal(answers.text, "{\"nodes\":[]}");
    assert_int_equal(answers.n, 4);
    assert_false(turn());
}

static void
in_slices(void **state)
{
    unsigned most = 0, before, n = 1;

    (void)state;
    fill(0, 2000);
    longest = 0;
    report_ask(1, "web");
    assert_int_equal(answers.n, 0);
    do {
        before = written;
        n++;
        if (!turn())
            break;
        most = written - before > most ? written - before : most;
    } while (true);
    assert_int_equal(answers.n, 1);
    assert_in_range(most, 10, 100);
    assert_in_range(n, 20, 200);
    assert_in_range(longest, 1, 100 * 100);
    assert_int_equal(count("web"), 2000);
    for (n = 0; n < 2000; n++) /* in their order */
        assert_int_equal(times[rows[0][n].id], 1);
    assert_non_null(strstr(answers.text, "[4,5,6,7,"));
}

/* Like map_state_update(): one goes, the last takes its place; one comes. */
static bool there[IDS], ever[IDS];

static void
edit(struct netmap *nm)
{
    unsigned gone;

    if (nm->npeers > 0 && rand() % 2 == 0) {
        gone = (unsigned)rand() % nm->npeers;
        there[nm->peers[gone].id] = false;
        nm->peers[gone] = nm->peers[--nm->npeers];
    }
    if (nm->npeers < PEERS_MAX && last_id < IDS - 1 && rand() % 2 == 0) {
        set_row(&nm->peers[nm->npeers++], ++last_id);
        ever[last_id] = true;
    }
}

/* Another whole netmap: the same peers in any order. */
static void
replace(struct node *n)
{
    unsigned to = n->netmap == &maps[0] ? 1 : 0, i, j;
    struct netmap_node row;

    maps[to] = *n->netmap;
    maps[to].peers = rows[to];
    maps[to].generation++;
    memcpy(rows[to], n->netmap->peers, maps[to].npeers * sizeof(row));
    for (i = maps[to].npeers; i > 1; i--) {
        j = (unsigned)rand() % i;
        row = rows[to][j];
        rows[to][j] = rows[to][i - 1];
        rows[to][i - 1] = row;
    }
    memset(n->netmap->peers, 0xff, sizeof(rows[0]));
    n->netmap = &maps[to];
}

static void
changing(void **state)
{
    unsigned round, i, n, replaced, npeers;

    (void)state;
    srand(1);
    for (round = 0; round < ROUNDS; round++) {
        last_id = 0;
        answers.n = 0;
        web.netmap = &maps[0];
        npeers = 500 + (unsigned)rand() % 2000;
        fill(0, npeers);
        memset(there, 0, sizeof(there));
        memset(ever, 0, sizeof(ever));
        memset(there + 1, 1, npeers);
        memset(ever + 1, 1, npeers);
        replaced = 0;
        report_ask(round, "");
        while (answers.n == 0) {
            for (n = (unsigned)rand() % 200; n > 0; n--)
                edit(web.netmap);
            if (replaced < REPORT_ANEW && rand() % 20 == 0) {
                replace(&web);
                replaced++;
            }
            turn();
        }
        count("web");
        for (i = 1; i < IDS; i++) {
            assert_in_range(times[i], there[i] ? 1 : 0, ever[i] ? 1 : 0);
        }
    }
}

/* It comes to an end also where netmaps never stop to replace each other. */
static void
never_still(void **state)
{
    unsigned n;

    (void)state;
    fill(0, 3000);
    report_ask(1, "web");
    for (n = 0; answers.n == 0; n++) {
        assert_in_range(n, 0, 1000);
        replace(&web);
        turn();
    }
    assert_int_equal(answers.failed, 0);
}

static void
node_goes(void **state)
{
    (void)state;
    fill(0, 500);
    fill(1, 500);
    db.netmap = &maps[1];
    report_ask(1, "");
    turn();
    nodes = &db; /* in the middle of web */
    turns();
    assert_in_range(count("web"), 1, 499);
    assert_int_equal(count("db"), 500);

    nodes = &web;
    report_ask(2, "");
    turn();
    web.next = NULL; /* before its turn */
    turns();
    assert_int_equal(count("web"), 500);
    assert_null(strstr(answers.text, "db"));

    report_ask(3, "");
    turn();
    web.netmap = NULL; /* it has none any more */
    turns();
    assert_int_equal(answers.n, 3);
    assert_int_equal(answers.failed, 0);
    assert_in_range(count("web"), 1, 499);
}

static void
together(void **state)
{
    uint32_t i;

    (void)state;
    fill(0, 1000);
    report_ask(1, "web");
    for (i = 2; i < 2 + REPORT_ASKERS_MAX; i++)
        report_ask(i, "web");
    assert_int_equal(answers.n, 0);
    report_ask(i, "web");
    assert_int_equal(answers.n, 1);
    assert_int_equal(answers.query, i);
    assert_string_equal(
        answers.why, "more than 64 wait for this status (1 refused so far)");
    report_ask(99, "db"); /* small: at once all the same */
    assert_int_equal(answers.query, 99);
    answers.n = answers.failed = written = 0;
    turns();
    assert_int_equal(answers.n, REPORT_ASKERS_MAX + 1);
    assert_int_equal(answers.failed, 0);
    assert_in_range(written, 1000, 2000); /* two documents */
}

static void
too_many(void **state)
{
    char name[16];
    uint32_t i;

    (void)state;
    fill(0, 1000);
    report_ask(1, "");
    report_ask(1, "web");
    for (i = 2; i < REPORT_MAX; i++) {
        snprintf(web.name, sizeof(web.name), "web%u", i);
        snprintf(name, sizeof(name), "web%u", i);
        report_ask(i, name);
    }
    assert_int_equal(answers.n, 0);
    report_ask(i, "more");
    assert_int_equal(answers.n, 1);
    assert_int_equal(answers.failed, 1);
    assert_string_equal(answers.why, "more than 8 status documents are being "
                                     "written (2 refused so far)");
    strcpy(web.name, "web");
    turns();
    assert_int_equal(answers.n, 1 + REPORT_MAX);
    assert_int_equal(answers.failed, 1);
}

static void
dropped(void **state)
{
    (void)state;
    fill(0, 1000);
    report_ask(1, "web");
    report_ask(2, "web");
    turn();
    report_drop();
    assert_false(turn());
    assert_int_equal(answers.n, 0);
    report_ask(3, "db");
    assert_int_equal(answers.query, 3);
    report_ask(4, "web"); /* the end frees it */
}

static void
no_memory(void **state)
{
    long i;
    int n;

    (void)state;
    fill(0, 100);
    for (i = 0;; i++) {
        answers.n = answers.failed = 0;
        oom_arm(i);
        report_ask(1, "");
        report_ask(2, "");
        while (turn())
            ;
        oom_disarm();
        assert_int_equal(answers.n, 2);
        if (!oom_fired)
            break;
        assert_in_range(answers.failed, 1, 2);
        assert_string_equal(answers.failed == 2 ? answers.why : "", "");
    }
    assert_in_range(i, 100, 1000);
    for (n = 1;; n++) {
        answers.n = answers.failed = 0;
        fail_write = n;
        report_ask(1, "");
        while (turn())
            ;
        assert_int_equal(answers.n, 1);
        if (fail_write != 0)
            break;
        assert_int_equal(answers.failed, 1);
        assert_string_equal(answers.why, "");
    }
    fail_write = 0;
    assert_in_range(n, 3, 20);
    no_memfd = true;
    report_ask(1, "");
    no_memfd = false;
    assert_int_equal(answers.failed, 1);
    short_writes = true;
    report_ask(1, "");
    turns();
    short_writes = false;
    assert_int_equal(count("web"), 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_at_once, begin, end),
        cmocka_unit_test_setup_teardown(in_slices, begin, end),
        cmocka_unit_test_setup_teardown(changing, begin, end),
        cmocka_unit_test_setup_teardown(never_still, begin, end),
        cmocka_unit_test_setup_teardown(node_goes, begin, end),
        cmocka_unit_test_setup_teardown(together, begin, end),
        cmocka_unit_test_setup_teardown(too_many, begin, end),
        cmocka_unit_test_setup_teardown(dropped, begin, end),
        cmocka_unit_test_setup_teardown(no_memory, begin, end),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * report.c: answers that show whole tailnets, written a slice each turn of the
 * loop.
 *
 * Theory of operation.  A report keeps names and numbers only: node and row are
 * looked up in each turn.  A netmap that rules is edited in place: the last row
 * takes the place of one that goes, new ones follow at the end.  So the rows
 * are written from the first to the last, and then all are looked at again from
 * the last to the first: who moved, moved into the part that is still to come.
 * The keys of those that are written make the second look cheap.
 */
#include "report.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "../crypto/noise.h"
#include "../loop.h"
#include "node.h"
#include "say.h"
#include "status.h"

/* What a turn may do, in looks at a row: some 150 us in all. */
#define SLICE       1024
#define COST_PEER   32 /* to write one */
#define COST_NODE   256
#define SLICE_PEERS (SLICE / COST_PEER + 1)
#define BUF_SIZE    65536
#define SEEN_LEAST  64

enum phase { HEAD, FORTH, BACK };

struct report {
    struct report *next;
    uint32_t askers[REPORT_ASKERS_MAX];
    unsigned naskers;
    char only[TN_NODE_NAME_MAX + 1];
    int fd; /* -1: not begun */
    char names[TN_NODES_MAX][TN_NODE_NAME_MAX + 1];
    unsigned nnames, at;
    bool comma; /* before the next node */
    /* of the node being written */
    enum phase phase;
    uint32_t row;    /* next; BACK: the one after it */
    unsigned npeers; /* written */
    unsigned anew;
    const struct netmap *netmap; /* only to see that it is another one */
    uint64_t generation;
    uint64_t *seen; /* hashes of keys, open addressing; 0: free */
    size_t room, nseen;
    uint8_t sip[NOISE_SIP_KEY_LEN];
    /* not in the file yet */
    size_t len;
    char buf[BUF_SIZE];
};

static struct {
    struct node *const *nodes;
    report_answer *answer;
    struct report *list; /* the first is being written */
    struct loop_idle *slices;
    unsigned refused;
} reports;

/* ---- text ---- */

static int
write_all(int fd, const char *p, size_t len)
{
    ssize_t n;

    for (; len > 0; p += n, len -= (size_t)n) {
        n = write(fd, p, len);
        if (n == -1 && errno == EINTR)
            n = 0;
        else if (n <= 0)
            return -1;
    }
    return 0;
}

static int
flush(struct report *r)
{
    size_t len = r->len;

    r->len = 0;
    return write_all(r->fd, r->buf, len);
}

static int
put(struct report *r, const char *text, size_t len)
{
    if (len > sizeof(r->buf) - r->len && flush(r) != 0)
        return -1;
    if (len > sizeof(r->buf))
        return write_all(r->fd, text, len);
    memcpy(r->buf + r->len, text, len);
    r->len += len;
    return 0;
}

static int
put_text(struct report *r, const char *text)
{
    return put(r, text, strlen(text));
}

/* ---- who is written already ---- */

static uint64_t *
place(uint64_t *seen, size_t room, uint64_t h)
{
    size_t i = (size_t)h & (room - 1);

    while (seen[i] != 0 && seen[i] != h)
        i = (i + 1) & (room - 1);
    return &seen[i];
}

/* There is place for all of a netmap, and for what this turn may add. */
static int
make_room(struct report *r, size_t npeers)
{
    size_t most = (npeers > r->nseen ? npeers : r->nseen) + SLICE_PEERS;
    size_t room = SEEN_LEAST, i;
    uint64_t *seen;

    while (room < 2 * most)
        room *= 2;
    if (room <= r->room)
        return 0;
    seen = calloc(room, sizeof(*seen));
    if (seen == NULL)
        return -1;
    for (i = 0; i < r->room; i++)
        if (r->seen[i] != 0)
            *place(seen, room, r->seen[i]) = r->seen[i];
    free(r->seen);
    r->seen = seen;
    r->room = room;
    return 0;
}

/* Whether it was not there yet; it is now. */
static bool
add(struct report *r, const struct netmap_node *row)
{
    uint64_t h = noise_siphash(r->sip, row->key, sizeof(row->key)), *at;

    h += h == 0;
    at = place(r->seen, r->room, h);
    if (*at == h)
        return false;
    *at = h;
    r->nseen++;
    return true;
}

static void
forget_seen(struct report *r)
{
    free(r->seen);
    r->seen = NULL;
    r->room = r->nseen = 0;
}

/* ---- nodes ---- */

static const struct node *
find(const char *name)
{
    const struct node *n;

    for (n = *reports.nodes; n != NULL; n = n->next)
        if (strcmp(n->name, name) == 0)
            return n;
    return NULL;
}

/* Takes note of the netmap that rules; -1: no memory. */
static int
see_netmap(struct report *r, const struct netmap *nm)
{
    r->netmap = nm;
    r->generation = nm == NULL ? 0 : nm->generation;
    return make_room(r, nm == NULL ? 0 : nm->npeers);
}

static bool
is_other(const struct report *r, const struct netmap *nm)
{
    return nm != r->netmap || (nm != NULL && nm->generation != r->generation);
}

static int
write_head(struct report *r, const struct node *n)
{
    char *text = status_node(n);
    int rc = -1;

    /* The peers are its last member. */
    if (text != NULL && (!r->comma || put_text(r, ",") == 0) &&
        put(r, text, strlen(text) - 1) == 0 && put_text(r, ",\"peers\":[") == 0)
        rc = see_netmap(r, n->netmap);
    free(text);
    r->comma = true;
    r->phase = FORTH;
    r->row = 0;
    r->npeers = r->anew = 0;
    return rc;
}

static int
write_peer(struct report *r, const struct node *n, uint32_t row)
{
    char *text = status_peer(n, &n->netmap->peers[row]);
    int rc = -1;

    if (text != NULL && (r->npeers == 0 || put_text(r, ",") == 0))
        rc = put_text(r, text);
    free(text);
    r->npeers++;
    return rc;
}

static int
write_end(struct report *r)
{
    r->phase = HEAD;
    r->at++;
    forget_seen(r);
    return put_text(r, "]}");
}

/* One row; what it cost, 0: there is none any more; -1. */
static int
step_row(struct report *r, const struct node *n)
{
    uint32_t npeers = n->netmap == NULL ? 0 : n->netmap->npeers, row;

    if (r->phase == FORTH && r->row >= npeers) {
        r->phase = BACK;
        r->row = npeers;
    }
    if (r->row > npeers)
        r->row = npeers;
    if (r->phase == BACK && r->row == 0)
        return 0;
    row = r->phase == FORTH ? r->row++ : --r->row;
    if (!add(r, &n->netmap->peers[row]))
        return 1;
    return write_peer(r, n, row) == 0 ? COST_PEER : -1;
}

/* The netmap may be another one, or have more rows. */
static int
catch_up(struct report *r, const struct node *n)
{
    if (is_other(r, n->netmap) && r->phase == BACK && r->anew < REPORT_ANEW) {
        r->anew++;
        r->row = n->netmap == NULL ? 0 : n->netmap->npeers;
    }
    return see_netmap(r, n->netmap);
}

/* ---- a report ---- */

static int
begin(struct report *r)
{
    const struct node *n;

    r->fd = memfd_create("tailnet-answer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (r->fd == -1 ||
        getrandom(r->sip, sizeof(r->sip), 0) != (ssize_t)sizeof(r->sip))
        return -1;
    for (n = *reports.nodes; n != NULL && r->nnames < TN_NODES_MAX; n = n->next)
        if (r->only[0] == '\0' || strcmp(r->only, n->name) == 0)
            memcpy(r->names[r->nnames++], n->name, sizeof(n->name));
    return put_text(r, "{\"nodes\":[");
}

/* Some of the node whose turn it is; what it cost, or -1. */
static int
step_node(struct report *r, int budget)
{
    const struct node *n = find(r->names[r->at]);
    int cost, spent = 0;

    if (r->phase == HEAD) {
        if (n != NULL)
            return write_head(r, n) == 0 ? COST_NODE : -1;
        r->at++;
        return 0;
    }
    if (n != NULL && catch_up(r, n) != 0)
        return -1;
    while (spent < budget) {
        cost = n == NULL ? 0 : step_row(r, n);
        if (cost == -1 || (cost == 0 && write_end(r) != 0))
            return -1;
        if (cost == 0)
            break;
        spent += cost;
    }
    return spent;
}

/* A slice; 1: all is written, 0: there is more, -1: it fails. */
static int
step(struct report *r)
{
    int spent = 0, cost;

    if (r->fd == -1 && begin(r) != 0)
        return -1;
    while (spent < SLICE && r->at < r->nnames) {
        cost = step_node(r, SLICE - spent);
        if (cost == -1)
            return -1;
        spent += cost;
    }
    if (r->at < r->nnames)
        return flush(r);
    return put_text(r, "]}") != 0 || flush(r) != 0 ? -1 : 1;
}

static void
remove_report(struct report *r)
{
    struct report **at = &reports.list;

    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    if (r->fd != -1)
        close(r->fd);
    free(r->seen);
    free(r);
}

/* The next slice, and the answer after the last one. */
static void
go_on(struct report *r)
{
    int rc = step(r);
    unsigned i;

    if (rc == -1)
        say_err("no memory for an answer");
    for (i = 0; rc != 0 && i < r->naskers; i++)
        reports.answer(r->askers[i], rc == 1 ? r->fd : -1, "");
    if (rc != 0)
        remove_report(r);
    loop_idle_want(reports.slices, reports.list != NULL);
}

static void
turn_of_first(void *arg)
{
    (void)arg;
    go_on(reports.list);
}

/* ---- who asks ---- */

static struct report *
add_report(const char *only)
{
    struct report *r = calloc(1, sizeof(*r)), **at = &reports.list;

    if (r == NULL)
        return NULL;
    r->fd = -1;
    snprintf(r->only, sizeof(r->only), "%s", only);
    while (*at != NULL)
        at = &(*at)->next;
    return *at = r;
}

static void
refuse(uint32_t query, const char *what, int limit)
{
    char why[TN_ERR_MAX];

    snprintf(why, sizeof(why), "more than %d %s (%u refused so far)", limit,
        what, ++reports.refused);
    reports.answer(query, -1, why);
}

void
report_ask(uint32_t query, const char *only)
{
    struct report *r, *waits = NULL;
    bool begun = false;
    unsigned n = 0;

    for (r = reports.list; r != NULL; r = r->next, n++) {
        if (strcmp(r->only, only) != 0)
            continue;
        begun = begun || r->fd != -1;
        waits = r->fd == -1 ? r : waits;
    }
    if (waits == NULL && n == REPORT_MAX) {
        refuse(query, "status documents are being written", REPORT_MAX);
        return;
    }
    if (waits == NULL)
        waits = add_report(only);
    if (waits == NULL) {
        say_err("no memory for an answer");
        reports.answer(query, -1, "");
    } else if (waits->naskers == REPORT_ASKERS_MAX) {
        refuse(query, "wait for this status", REPORT_ASKERS_MAX);
    } else {
        waits->askers[waits->naskers++] = query;
        if (!begun && waits->naskers == 1)
            go_on(waits);
    }
}

/* ---- life ---- */

int
report_init(struct node *const *nodes, report_answer *answer)
{
    reports.nodes = nodes;
    reports.answer = answer;
    reports.slices = loop_idle_new(turn_of_first, NULL);
    return reports.slices == NULL ? -1 : 0;
}

void
report_drop(void)
{
    while (reports.list != NULL)
        remove_report(reports.list);
    if (reports.slices != NULL)
        loop_idle_want(reports.slices, false);
}

void
report_free(void)
{
    report_drop();
    loop_idle_free(reports.slices);
    reports.slices = NULL;
}

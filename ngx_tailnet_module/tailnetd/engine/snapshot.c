/*
 * snapshot.c: telling the workers what a node knows.
 *
 * Theory of operation.  What is published is sealed and stays as it is; the
 * next generation is another file: a copy of the last, made inside the kernel,
 * in which what differs is edited at the end (publish_edit.c); or, when another
 * netmap rules, it is built anew.
 *
 * No packet moves while the engine copies, and 100,000 peers are 28 MB.  So the
 * copy of a file of more than SNAPSHOT_SLICE bytes is made in slices, one each
 * turn of the loop, and it is begun before it is needed: when the one before is
 * published.  A change then takes one turn for the edit and one for the
 * sealing, for which the kernel looks at every page; a peer is let in by the
 * engine when the workers will know it at once.  Changes that come while there
 * is no whole copy wait in the index, and the edit has them all.
 */
#include "snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../core/tn_snap_read.h"
#include "../loop.h"
#include "grants.h"
#include "node.h"
#include "publish.h"
#include "publish_edit.h"
#include "say.h"

/*
 * One every SNAPSHOT_EVERY_MS on average, SNAPSHOT_BURST of them at once: a
 * peer that the engine lets in and the workers do not know yet is refused, so
 * a single change must not wait for its turn.
 */
#define SNAPSHOT_EVERY_MS 100
#define SNAPSHOT_BURST    10
#define SNAPSHOT_AHEAD_MS ((uint64_t)SNAPSHOT_BURST * SNAPSHOT_EVERY_MS)
#define SNAPSHOT_RETRY_MS 1000 /* after one that could not be made */

#define SNAPSHOT_SLICE (64u << 10) /* bytes; about 40 us */

/* What was published last, and the next one that is being written. */
struct snapshot_image {
    struct publish_index index;
    struct grants *grants; /* of the netmap, or NULL */
    int fd;                /* sealed */
    int to;                /* the next one; -1: there is none */
    size_t at;             /* so much of it is copied */
    bool due;              /* it is to be published */
    bool edited;           /* it has the changes, and the index is of it */
    bool outdated;         /* all is to be built anew */
    struct loop_idle *slices;
};

struct caps {
    struct node *n;
    char *text; /* of the last answer */
};

static void step(void *arg);

static bool
has_grants(const struct netmap *nm)
{
    unsigned i;

    for (i = 0; i < nm->nrules; i++)
        if (nm->rules[i].ngrants != 0)
            return true;
    return false;
}

/* From the peer's first address to ours of the same family. */
static const char *
caps_of(void *arg, const struct netmap_node *peer)
{
    struct caps *c = arg;
    struct snapshot_image *image = c->n->image;
    const struct netmap_node *self = &c->n->netmap->self;
    const struct tn_addr *src = netmap_first_address(peer, true), *dst;

    if (src == NULL)
        src = netmap_first_address(peer, false);
    dst = src == NULL ? NULL : netmap_first_address(self, tn_addr_is4(src));
    if (dst == NULL)
        return "";
    if (image->grants == NULL)
        image->grants = grants_new(c->n->netmap);
    free(c->text);
    c->text = NULL;
    if (image->grants == NULL ||
        grants_query(image->grants, src, dst, &c->text) != 0)
        return NULL;
    return strcmp(c->text, "{}") == 0 ? "" : c->text;
}

static void
forget_grants(struct snapshot_image *image)
{
    grants_free(image->grants);
    image->grants = NULL;
}

void
snapshot_free(struct node *n)
{
    struct snapshot_image *image = n->image;

    if (image == NULL)
        return;
    n->image = NULL;
    if (image->fd != -1)
        close(image->fd);
    if (image->to != -1)
        close(image->to);
    publish_edit_free(&image->index);
    forget_grants(image);
    loop_idle_free(image->slices);
    free(image);
}

/* Workers go on with the rights of before, not longer than need be. */
static void
give_up(struct node *n)
{
    snapshot_free(n);
    loop_timer_set(n->publish_timer, loop_now() + SNAPSHOT_RETRY_MS);
}

static void
fail(struct node *n, const char *what)
{
    say_err("node \"%s\": no snapshot: %s (%d: %s)", n->name, what, errno,
        strerror(errno));
    give_up(n);
}

/* The next file is what it has to be. */
static void
hand_over(struct node *n)
{
    struct snapshot_image *image = n->image;
    uint64_t generation = ++n->hot_row->generation;

    if (publish_stamp(image->to, generation) != 0 ||
        publish_seal(image->to) != 0) {
        fail(n, "its file cannot be sealed");
        return;
    }
    if (image->fd != -1)
        close(image->fd);
    image->fd = image->to;
    image->to = -1;
    image->due = image->edited = false;
    n->ops->publish(n->name, generation, image->fd);
}

/* A file for the next copy; -1: errno. */
static int
begin(struct snapshot_image *image)
{
    image->at = 0;
    image->to = publish_memfd();
    return image->to == -1 ? -1 : 0;
}

/* The copy of a large file is begun before it is needed; if that fails it is
 * begun again when it is. */
static void
begin_early(struct snapshot_image *image)
{
    bool large = image->index.size > SNAPSHOT_SLICE;

    loop_idle_want(image->slices, large && begin(image) == 0);
}

/* The bytes are the file. */
static void
write_built(struct node *n, const void *bytes)
{
    struct snapshot_image *image = n->image;

    if (begin(image) != 0 ||
        publish_write(image->to, bytes, &image->at, image->index.size) != 0) {
        fail(n, "no memory file");
        return;
    }
    hand_over(n);
    if (n->image != NULL)
        begin_early(n->image);
}

/* All of the netmap. */
static void
build(struct node *n)
{
    struct caps caps = {.n = n};
    struct publish_opts opts = {.now = (int64_t)time(NULL),
        .caps = has_grants(n->netmap) ? caps_of : NULL,
        .arg = &caps};
    struct snapshot_image *image = calloc(1, sizeof(*image));
    char err[TN_ERR_MAX] = "out of memory";
    void *bytes = NULL;
    size_t size;
    bool starved = true;
    int rc = -1;

    if (image != NULL) {
        n->image = image;
        image->fd = image->to = -1;
        image->slices = loop_idle_new(step, n);
        opts.index = &image->index;
    }
    if (image != NULL && image->slices != NULL) {
        rc = publish_build(n->netmap, &opts, &bytes, &size, err);
        starved = errno == ENOMEM;
    }
    free(caps.text);
    if (rc != 0) {
        say_err("node \"%s\": no snapshot: %s", n->name, err);
        if (starved)
            give_up(n);
        else
            snapshot_free(n);
        return;
    }
    write_built(n, bytes);
    free(bytes);
}

/* The copy becomes what the netmap says now; -1: it has to be built. */
static int
edit(struct node *n)
{
    struct caps caps = {.n = n};
    const struct publish_opts opts = {.now = (int64_t)time(NULL),
        .caps = has_grants(n->netmap) ? caps_of : NULL,
        .arg = &caps};
    int rc = publish_edit(&n->image->index, n->image->to, n->netmap, &opts);

    free(caps.text);
    return rc;
}

/* There are not to be too many of them. */
static bool
has_to_wait(const struct node *n)
{
    return n->publish_at + SNAPSHOT_EVERY_MS > loop_now() + SNAPSHOT_AHEAD_MS;
}

static void
soon(struct node *n)
{
    if (!has_to_wait(n))
        snapshot_publish(n);
    else
        loop_timer_set(n->publish_timer,
            n->publish_at + SNAPSHOT_EVERY_MS - SNAPSHOT_AHEAD_MS);
}

static void
copy_slice(struct node *n)
{
    struct snapshot_image *image = n->image;
    size_t left = image->index.size - image->at;

    if (publish_copy(image->to, image->fd, &image->at,
            image->at + (left < SNAPSHOT_SLICE ? left : SNAPSHOT_SLICE)) == 0)
        return;
    if (image->due) {
        fail(n, "its file cannot be written");
        return;
    }
    close(image->to);
    image->to = -1;
    loop_idle_want(image->slices, false);
}

/* The next step to the next file: a slice of the copy, the edit, its end. */
static void
step(void *arg)
{
    struct node *n = arg;
    struct snapshot_image *image = n->image;

    if (image->at < image->index.size && !image->edited) {
        copy_slice(n);
    } else if (!image->due) {
        loop_idle_want(image->slices, false);
    } else if (!image->edited) {
        image->edited = edit(n) == 0;
        if (!image->edited) {
            snapshot_free(n);
            build(n);
        }
    } else {
        hand_over(n);
        if (n->image == NULL)
            return;
        begin_early(image);
        if (image->index.changed)
            soon(n);
    }
}

void
snapshot_publish(struct node *n)
{
    struct snapshot_image *image = n->image;
    uint64_t now = loop_now();

    if (image != NULL && image->due)
        return; /* it will have all there is */
    if (image != NULL && image->outdated) {
        snapshot_free(n);
        image = NULL;
    }
    n->publish_at = (n->publish_at > now ? n->publish_at : now) +
                    SNAPSHOT_EVERY_MS;
    if (image == NULL) {
        build(n);
        return;
    }
    image->due = true;
    if (image->to == -1 && begin(image) != 0)
        fail(n, "no memory file");
    else if (image->index.size > SNAPSHOT_SLICE)
        loop_idle_want(image->slices, true);
    else
        while (n->image == image && image->due)
            step(n);
}

/* Whether one of the last ${nadded} peers has an address that, to the workers,
 * is another node's. */
static bool
takes_over(const struct node *n, size_t nadded)
{
    const struct netmap *nm = n->netmap;
    struct tn_snap snap;
    struct tn_peer was;
    struct stat st;
    bool does = false;
    void *bytes;

    if (nadded == 0)
        return false;
    if (fstat(n->image->fd, &st) != 0)
        return true;
    bytes = mmap(
        NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, n->image->fd, 0);
    if (bytes == MAP_FAILED)
        return true;
    does = tn_snap_open(&snap, bytes, (size_t)st.st_size) != NULL;
    for (unsigned i = nm->npeers - (unsigned)nadded; i < nm->npeers; i++) {
        const struct netmap_node *row = &nm->peers[i];

        for (unsigned k = 0; !does && k < row->naddresses; k++)
            does = tn_snap_whois(&snap, &row->addresses[k].addr, &was, NULL) ==
                       0 &&
                   was.id != (uint64_t)row->id;
    }
    munmap(bytes, (size_t)st.st_size);
    return does;
}

/* All is another netmap's, whose last ${nadded} peers may be new.  What was
 * published stays, to be asked whose an address was. */
static void
outdate(struct node *n, size_t nadded)
{
    struct snapshot_image *image = n->image;
    bool now = image != NULL && has_to_wait(n) && takes_over(n, nadded);

    if (image != NULL) {
        loop_idle_want(image->slices, false);
        if (image->to != -1)
            close(image->to);
        image->to = -1;
        image->due = image->edited = false;
        image->outdated = true;
        publish_edit_free(&image->index);
        forget_grants(image);
    }
    if (now)
        snapshot_publish(n);
    else
        soon(n);
}

void
snapshot_publish_soon(struct node *n)
{
    outdate(n, n->netmap->npeers);
}

/* Whether the workers have another idea of that row; -1: errno. */
static int
is_news(const struct node *n, uint32_t row, int64_t now)
{
    const struct snapshot_image *image = n->image;
    uint32_t off = publish_edit_record(&image->index, row);
    struct tn_snap_peer rec;

    if (off == 0)
        return 0; /* it is to be written anyway */
    if (pread(image->edited ? image->to : image->fd, &rec, sizeof(rec),
            (off_t)off) != sizeof(rec))
        return -1;
    return record_state(&rec, &n->netmap->peers[row], now);
}

/* What is not about single peers; -1: no memory. */
static int
note_rest(struct snapshot_image *image, const struct netmap_changes *c)
{
    /* They know the rules by their numbers. */
    if (c->rules)
        forget_grants(image);
    if (c->grants)
        publish_edit_regrant(&image->index);
    if (c->self != NULL && publish_edit_self(&image->index) != 0)
        return -1;
    return publish_edit_users(&image->index, c->users, c->nusers);
}

/* Puts them down in the index; -1: they take a whole build. */
static int
note(struct node *n, const struct netmap_changes *c)
{
    struct publish_index *ix = &n->image->index;
    const struct netmap *nm = n->netmap;
    int64_t now = (int64_t)time(NULL);
    size_t i;
    int news;

    for (i = 0; i < c->ngone; i++)
        if (publish_edit_gone(ix, c->gone[i].row) != 0)
            return -1;
    if (publish_edit_added(ix, c->nadded) != 0 || note_rest(n->image, c) != 0)
        return -1;
    /* The grants know whose signature lacks. */
    if (n->image->grants != NULL && c->ngone + c->nadded != 0 &&
        !grants_outlive_peers(n->image->grants))
        forget_grants(n->image);
    for (i = nm->npeers - c->nadded; i < nm->npeers; i++)
        if (nm->peers[i].unsigned_peerapi_only)
            forget_grants(n->image);
    for (i = 0; i < c->nrows; i++) {
        news = is_news(n, c->rows[i], now);
        if (news == -1)
            return -1;
        if (news == 1)
            publish_edit_stale(ix, c->rows[i]);
    }
    return 0;
}

/* No packet moves before the workers hear of all there is. */
static void
publish_now(struct node *n)
{
    struct snapshot_image *image;

    while (n->image != NULL && n->image->index.changed) {
        snapshot_publish(n);
        image = n->image;
        while (image != NULL && n->image == image && image->due)
            step(n);
    }
}

void
snapshot_publish_changes(struct node *n, const struct netmap_changes *changes)
{
    if (n->image == NULL || n->image->outdated || note(n, changes) != 0)
        outdate(n, changes->nadded);
    else if (takes_over(n, changes->nadded))
        publish_now(n);
    else if (n->image->index.changed)
        soon(n);
}

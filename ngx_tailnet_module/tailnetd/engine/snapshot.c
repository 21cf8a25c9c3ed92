#include "snapshot.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../loop.h"
#include "grants.h"
#include "node.h"
#include "publish.h"
#include "say.h"

/*
 * One every SNAPSHOT_EVERY_MS on average, SNAPSHOT_BURST of them at once: a
 * peer that the engine lets in and the workers do not know yet is refused, so
 * a single change must not wait for its turn.
 */
#define SNAPSHOT_EVERY_MS 100
#define SNAPSHOT_BURST    10
#define SNAPSHOT_AHEAD_MS ((uint64_t)SNAPSHOT_BURST * SNAPSHOT_EVERY_MS)

#define SNAPSHOT_STALE_MAX 4096 /* rows; more of them: all is built anew */

/* What was published last, and what is to be changed in it. */
struct snapshot_image {
    int fd;
    size_t size;
    uint32_t *records; /* offsets, the self node's first */
    uint32_t stale[SNAPSHOT_STALE_MAX];
    size_t nstale;
};

struct caps {
    struct grants *grants;
    const struct netmap_node *self;
    char *text; /* of the last answer */
};

/* From the peer's first address to ours of the same family. */
static const char *
caps_of(void *arg, const struct netmap_node *peer)
{
    struct caps *c = arg;
    const struct tn_addr *src = netmap_first_address(peer, true), *dst;

    if (src == NULL)
        src = netmap_first_address(peer, false);
    dst = src == NULL ? NULL : netmap_first_address(c->self, tn_addr_is4(src));
    if (dst == NULL)
        return "";
    free(c->text);
    c->text = NULL;
    if (grants_query(c->grants, src, dst, &c->text) != 0)
        return NULL;
    return strcmp(c->text, "{}") == 0 ? "" : c->text;
}

static bool
has_grants(const struct netmap *nm)
{
    unsigned i;

    for (i = 0; i < nm->nrules; i++)
        if (nm->rules[i].ngrants != 0)
            return true;
    return false;
}

static int
build(const struct node *n, struct publish_opts *opts, void **bytes,
    size_t *size, char err[TN_ERR_MAX])
{
    struct caps caps = {.self = &n->netmap->self};
    int rc;

    if (has_grants(n->netmap)) {
        caps.grants = grants_new(n->netmap);
        if (caps.grants == NULL) {
            snprintf(err, TN_ERR_MAX, "out of memory");
            return -1;
        }
        opts->caps = caps_of;
        opts->arg = &caps;
    }
    rc = publish_build(n->netmap, opts, bytes, size, err);
    grants_free(caps.grants);
    free(caps.text);
    return rc;
}

void
snapshot_free(struct node *n)
{
    if (n->image == NULL)
        return;
    close(n->image->fd);
    free(n->image->records);
    free(n->image);
    n->image = NULL;
}

/* The whole netmap as a new image; -1: said. */
static int
make(struct node *n, uint64_t generation)
{
    uint32_t *records = NULL;
    struct publish_opts opts = {.generation = generation,
        .now = (int64_t)time(NULL),
        .records = &records};
    struct snapshot_image *image;
    char err[TN_ERR_MAX];
    void *bytes;
    size_t size;
    int fd;

    if (build(n, &opts, &bytes, &size, err) != 0) {
        say_err("node \"%s\": no snapshot: %s", n->name, err);
        return -1;
    }
    fd = publish_memfd(bytes, size);
    free(bytes);
    image = fd == -1 ? NULL : malloc(sizeof(*image));
    if (image == NULL) {
        say_err("node \"%s\": no snapshot: no memory file (%d: %s)", n->name,
            errno, strerror(errno));
        if (fd != -1)
            close(fd);
        free(records);
        return -1;
    }
    image->fd = fd;
    image->size = size;
    image->records = records;
    image->nstale = 0;
    n->image = image;
    return 0;
}

static int
read_record(const struct node *n, uint32_t row, struct tn_snap_peer *rec)
{
    return pread(n->image->fd, rec, sizeof(*rec),
               (off_t)n->image->records[row + 1]) == sizeof(*rec)
               ? 0
               : -1;
}

/* The stale records in the file ${fd}, which is ${generation}. */
static int
write_news(const struct node *n, int fd, uint64_t generation)
{
    const struct snapshot_image *image = n->image;
    int64_t now = (int64_t)time(NULL);
    struct tn_snap_peer rec;
    size_t i;

    for (i = 0; i < image->nstale; i++) {
        if (read_record(n, image->stale[i], &rec) != 0 ||
            publish_row(&rec, &n->netmap->peers[image->stale[i]], now) ==
                PUBLISH_WHOLE ||
            pwrite(fd, &rec, sizeof(rec),
                (off_t)image->records[image->stale[i] + 1]) != sizeof(rec))
            return -1;
    }
    return pwrite(fd, &generation, sizeof(generation),
               offsetof(struct tn_snap_head, generation)) == sizeof(generation)
               ? 0
               : -1;
}

/* A copy of the image with the news, in its place; -1: build it anew. */
static int
renew(struct node *n, uint64_t generation)
{
    int fd = publish_copy(n->image->fd, n->image->size);

    if (fd == -1)
        return -1;
    if (write_news(n, fd, generation) != 0) {
        close(fd);
        return -1;
    }
    close(n->image->fd);
    n->image->fd = fd;
    n->image->nstale = 0;
    return 0;
}

void
snapshot_publish(struct node *n)
{
    uint64_t generation = ++n->hot_row->generation, now = loop_now();

    n->publish_at = (n->publish_at > now ? n->publish_at : now) +
                    SNAPSHOT_EVERY_MS;
    if (n->image == NULL || renew(n, generation) != 0) {
        snapshot_free(n);
        if (make(n, generation) != 0)
            return;
    }
    if (publish_seal(n->image->fd) != 0) {
        say_err("node \"%s\": no snapshot: its file cannot be sealed (%d: %s)",
            n->name, errno, strerror(errno));
        snapshot_free(n);
        return;
    }
    n->ops->publish(n->name, generation, n->image->fd);
}

static void
soon(struct node *n)
{
    uint64_t now = loop_now();

    if (n->publish_at + SNAPSHOT_EVERY_MS <= now + SNAPSHOT_AHEAD_MS)
        snapshot_publish(n);
    else
        loop_timer_set(n->publish_timer,
            n->publish_at + SNAPSHOT_EVERY_MS - SNAPSHOT_AHEAD_MS);
}

void
snapshot_publish_soon(struct node *n)
{
    snapshot_free(n);
    soon(n);
}

void
snapshot_publish_rows(struct node *n, const uint32_t *rows, size_t count)
{
    int64_t now = (int64_t)time(NULL);
    enum publish_news news;
    struct tn_snap_peer rec;
    bool any = false;
    size_t i;

    for (i = 0; n->image != NULL && i < count; i++) {
        if (read_record(n, rows[i], &rec) != 0)
            break;
        news = publish_row(&rec, &n->netmap->peers[rows[i]], now);
        if (news == PUBLISH_SAME)
            continue;
        if (news == PUBLISH_WHOLE || n->image->nstale == SNAPSHOT_STALE_MAX)
            break;
        n->image->stale[n->image->nstale++] = rows[i];
        any = true;
    }
    if (i < count)
        snapshot_publish_soon(n);
    else if (any)
        soon(n);
}

#include "snapshot.h"

#include <errno.h>
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
#define SNAPSHOT_BURST 10
#define SNAPSHOT_AHEAD_MS ((uint64_t)SNAPSHOT_BURST * SNAPSHOT_EVERY_MS)

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
snapshot_publish(struct node *n)
{
    struct publish_opts opts = {
        .generation = ++n->hot_row->generation, .now = (int64_t)time(NULL)};
    uint64_t now = loop_now();
    char err[TN_ERR_MAX];
    void *bytes;
    size_t size;
    int fd;

    n->publish_at = (n->publish_at > now ? n->publish_at : now)
        + SNAPSHOT_EVERY_MS;
    if (build(n, &opts, &bytes, &size, err) != 0) {
        say_err("node \"%s\": no snapshot: %s", n->name, err);
        return;
    }
    fd = publish_memfd(bytes, size);
    free(bytes);
    if (fd == -1) {
        say_err("node \"%s\": no snapshot: memfd_create() failed (%d: %s)",
            n->name, errno, strerror(errno));
        return;
    }
    n->ops->publish(n->name, opts.generation, fd);
    close(fd);
}

void
snapshot_publish_soon(struct node *n)
{
    uint64_t now = loop_now();

    if (n->publish_at + SNAPSHOT_EVERY_MS <= now + SNAPSHOT_AHEAD_MS)
        snapshot_publish(n);
    else
        loop_timer_set(n->publish_timer,
            n->publish_at + SNAPSHOT_EVERY_MS - SNAPSHOT_AHEAD_MS);
}

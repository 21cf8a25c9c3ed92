/*
 * publish.h: from a netmap to the snapshot that nginx reads (tn_snap.h).
 */
#ifndef PUBLISH_H
#define PUBLISH_H

#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_node.h"
#include "../../core/tn_snap.h"
#include "netmap.h"

struct publish_opts {
    uint64_t generation;
    int64_t now; /* Unix seconds */
    /*
     * The capabilities that ${peer} has at this node, as JSON object text:
     * borrowed until the next call, "" none, NULL out of memory.  Not asked
     * for expired peers.  No callback: nobody has any.
     */
    const char *(*caps)(void *arg, const struct netmap_node *peer);
    void *arg;
    /* NULL, or where the offsets of all records go, for free(3): the self
     * node's first, then the peers' in their order. */
    uint32_t **records;
};

/*
 * publish_build(nm, o, bytes, size, err): the snapshot of ${nm}, new in
 * ${*bytes} for free(3).  The time is linear in the netmap's size (but for the
 * sorting of the distinct tags).  Returns 0, or -1 and a sentence in ${err},
 * then ${*bytes} is untouched.  Refused: an address of two nodes, a tag with a
 * comma or more of them than TN_SNAP_MAX_TAGS, a snapshot larger than
 * TN_SNAP_MAX_SIZE.
 *
 * Tag lists hold the tagged peers of this tailnet, so neither the self node
 * nor peers that were shared in; the name table holds them all.
 */
int publish_build(const struct netmap *nm, const struct publish_opts *o,
    void **bytes, size_t *size, char err[TN_ERR_MAX]);

/* What a changed row means for the record that it had. */
enum publish_news {
    PUBLISH_SAME,   /* nothing */
    PUBLISH_RECORD, /* the record is another one */
    PUBLISH_WHOLE,  /* more than the record: publish_build() */
};

/*
 * publish_row(rec, row, now): ${rec} becomes the record of ${row}, of which at
 * most those fields changed that map_state_update() names.
 */
enum publish_news publish_row(
    struct tn_snap_peer *rec, const struct netmap_node *row, int64_t now);

/*
 * publish_memfd(bytes, size): a close-on-exec memory file of these bytes.
 * publish_copy(fd, size): one of the bytes of another one.  publish_seal(fd):
 * its size, content and seals are sealed.  They return the descriptor (0), or
 * -1 and errno.
 */
int publish_memfd(const void *bytes, size_t size);
int publish_copy(int fd, size_t size);
int publish_seal(int fd);

#endif

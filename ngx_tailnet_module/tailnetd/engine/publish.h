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

struct publish_index;

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
    /* NULL, or what publish_edit() needs, new, for publish_edit_free(). */
    struct publish_index *index;
};

/*
 * publish_build(nm, o, bytes, size, err): the snapshot of ${nm}, new in
 * ${*bytes} for free(3).  The time is linear in the netmap's size (but for the
 * sorting of the distinct tags).  Returns 0, or -1 and a sentence in ${err},
 * then ${*bytes} is untouched and errno is ENOMEM, or EINVAL if it is refused:
 * an address of two nodes, a tag with a comma or more of them than
 * TN_SNAP_MAX_TAGS, a snapshot larger than TN_SNAP_MAX_SIZE.
 *
 * Tag lists hold the tagged peers of this tailnet, so neither the self node
 * nor peers that were shared in; the name table holds them all.
 */
int publish_build(const struct netmap *nm, const struct publish_opts *o,
    void **bytes, size_t *size, char err[TN_ERR_MAX]);

/*
 * publish_memfd(): an empty close-on-exec memory file.  publish_write(to,
 * bytes, at, end) writes bytes from ${*at} to ${end} there, and publish_copy()
 * those of another file; ${*at} is ${end} then.  A file is written front to
 * back. publish_stamp() makes a snapshot a generation.  publish_seal(fd): its
 * size, content and seals are sealed.  They return the descriptor (0), or -1
 * and errno.
 */
int publish_memfd(void);
int publish_write(int to, const void *bytes, size_t *at, size_t end);
int publish_copy(int to, int fd, size_t *at, size_t end);
int publish_stamp(int fd, uint64_t generation);
int publish_seal(int fd);

#endif

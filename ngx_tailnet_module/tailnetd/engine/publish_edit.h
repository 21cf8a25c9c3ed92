/*
 * publish_edit.h: a snapshot out of the one before it.
 */
#ifndef PUBLISH_EDIT_H
#define PUBLISH_EDIT_H

#include "publish.h"
#include "record.h"

/* A list of tagged nodes has room for a part more than it holds, and some. */
#define PUBLISH_TAG_SPARE     8
#define PUBLISH_TAG_SPARE_MIN 4

/*
 * What is known of a snapshot's file that the file does not say itself, and
 * what is to become different in it; publish_build() makes it.
 */
struct publish_index {
    size_t size;    /* of the file */
    size_t built;   /* what it was when it was built */
    size_t garbage; /* bytes that nothing refers to any more */
    uint32_t *records;
    size_t nrecords, records_room;
    uint32_t *gone; /* records of nodes that are no more */
    size_t ngone, gone_room;
    int64_t *users; /* whose profiles are others */
    size_t nusers, users_room;
    bool regrant; /* what peers may do at this node may be something else */
    bool changed; /* there is something to do for publish_edit() */
    struct record_texts texts;
    struct record_users known;    /* users */
    struct record_marks disputed; /* hashes of names that have no slot */
    uint32_t *tag_room;           /* entries of each tag's list */
    size_t naddrs, nnames, ntags; /* used slots; tags */
};

/* What it holds; it may be used for another build. */
void publish_edit_free(struct publish_index *ix);

/*
 * publish_edit_gone(ix, row): the peer is no more; the last one took its place.
 * publish_edit_added(ix, n): that many new rows at the end.
 * publish_edit_self(): the self node, but for its suffix and addresses, or the
 * tailnet's name is another one.  publish_edit_users(ix, ids, n): so are their
 * profiles.  They return 0, or -1: no memory.
 *
 * publish_edit_stale(): the row's record is another one.
 * publish_edit_regrant(): the capabilities of peers are.
 */
int publish_edit_gone(struct publish_index *ix, uint32_t row);
int publish_edit_added(struct publish_index *ix, size_t n);
int publish_edit_self(struct publish_index *ix);
int publish_edit_users(struct publish_index *ix, const int64_t *ids, size_t n);
void publish_edit_stale(struct publish_index *ix, uint32_t row);
void publish_edit_regrant(struct publish_index *ix);

/* Where the record of ${row} is in the file, 0: nowhere yet. */
uint32_t publish_edit_record(const struct publish_index *ix, uint32_t row);

/*
 * publish_edit(ix, fd, nm, o): ${fd}, a writable copy of the file that ${ix} is
 * of, becomes the snapshot of ${nm}; its generation is left as it is.  The time
 * is linear in what is changed, and in the length of the lists of the tags that
 * peers lose, but for one look at each row's place, and after
 * publish_edit_regrant() one question for each row.  Returns 0, or -1: ${fd}
 * and ${ix} are of no use any more, and publish_build() makes the snapshot, or
 * says why there is none.
 */
int publish_edit(struct publish_index *ix, int fd, const struct netmap *nm,
    const struct publish_opts *o);

#endif

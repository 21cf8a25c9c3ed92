/*
 * record.h: one node's record in a snapshot (tn_snap.h), with its strings and
 * its user, for publish.c and publish_edit.c.
 */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_node.h"
#include "../../core/tn_snap.h"
#include "netmap.h"

struct publish_opts;

/* Texts that nodes have in common, by their place; open addressing. */
struct record_texts {
    struct tn_snap_str *slots; /* length 0: empty */
    size_t nslots, n;
};

struct record_user {
    int64_t id;
    uint32_t off; /* of the tn_snap_user, 0: empty slot */
};

/* The users that are written, by id; open addressing. */
struct record_users {
    struct record_user *slots;
    size_t nslots, n;
};

/* A set of numbers; open addressing.  0 is taken for 1. */
struct record_marks {
    uint64_t *slots;
    size_t nslots, n;
};

/*
 * A snapshot being written: ${base} bytes that are there, at ${image} (NULL:
 * none), and what follows them, which moves as it grows.
 */
struct record_out {
    const struct netmap *nm;
    const struct publish_opts *o;
    const char *suffix; /* MagicDNS suffix of ${nm} */
    uint8_t *image;
    size_t base;
    uint8_t *bytes;
    size_t len, cap;
    struct record_texts *texts;
    struct record_users *users;
    char *err; /* TN_ERR_MAX bytes */
};

/* What ${len} bytes take in a snapshot. */
size_t record_padded(size_t len);

/* Slots of a table that is at most half full of ${n}, and never full. */
size_t record_slots(size_t n);

/*
 * record_reserve(out, len, off): zero bytes at the end; their offset, a
 * multiple of 8, in ${*off}.  record_at(): where an offset is, until the next
 * call that writes.  record_string(): a text at the end.  These and those
 * below return 0, or -1 and a sentence in out->err.
 */
int record_reserve(struct record_out *out, size_t len, uint32_t *off);
void *record_at(const struct record_out *out, uint32_t off);
int record_string(
    struct record_out *out, const char *s, size_t len, struct tn_snap_str *str);
int record_nomem(const struct record_out *out);

/* record_put(out, n, off): all of ${n}, a row of out->nm or its self; its
 * record's place in ${*off}. */
int record_put(
    struct record_out *out, const struct netmap_node *n, uint32_t *off);

/* record_user(out, id): the profile of ${id}, which is another one, if it is
 * written already; what its texts take is added to ${*garbage}. */
int record_user(struct record_out *out, int64_t id, size_t *garbage);

/*
 * record_state(rec, n, now): ${rec} becomes the record of ${n}, of which at
 * most those fields changed that map_state_update() names; returns whether it
 * is another one.  record_again(out, n, off): the same to the record at ${off};
 * and what ${n} may do at this node, which comes and goes with its key, or,
 * ${caps}, may be something else.
 */
bool record_state(
    struct tn_snap_peer *rec, const struct netmap_node *n, int64_t now);
int record_again(struct record_out *out, const struct netmap_node *n,
    uint32_t off, bool caps);

/* The addresses that identify ${n}, each once; returns how many. */
unsigned record_addrs(
    const struct netmap_node *n, struct tn_addr a[TN_SNAP_MAX_ADDRS]);

/* Length of the short name at the start of ${name}: without our own suffix,
 * or all of it. */
size_t record_host_len(const struct record_out *out, const char *name);

/* Whether ${n} answers to its tags: only tagged peers of this tailnet do. */
bool record_is_listed(
    const struct record_out *out, const struct netmap_node *n);

/* True when the record at ${off} has the address ${a}. */
bool record_owns(
    const struct record_out *out, uint32_t off, const struct tn_addr *a);

/* Room for ${n} without growing; returns 0, or -1: no memory. */
int record_texts_room(
    const struct record_out *out, struct record_texts *t, size_t n);
int record_users_room(struct record_users *u, size_t n);
int record_marks_room(struct record_marks *m, size_t n);

/* There has to be room. */
void record_mark(struct record_marks *m, uint64_t value);
bool record_marked(const struct record_marks *m, uint64_t value);

#endif

/*
 * tn_snap_read.h: reading a snapshot that may be anything.
 *
 * Every function survives any bytes in the mapping (it must not shrink while
 * mapped: the caller checks the seals), returns views into it, and never
 * allocates.  A view is valid while the mapping is.
 */
#ifndef TN_SNAP_READ_H
#define TN_SNAP_READ_H

#include "tn_snap.h"

struct tn_str {
    const char *p;
    size_t len;
};

struct tn_snap {
    const uint8_t *base;
    size_t size;
    struct tn_snap_head head; /* a checked copy */
};

/* A peer as its readers want it; strings are views, never NULL. */
struct tn_peer {
    uint32_t flags; /* enum tn_snap_peer_flag */
    uint64_t id;
    int64_t key_expiry;
    const uint8_t *key; /* 32 bytes */
    struct tn_str name; /* FQDN without final dot */
    struct tn_str host;
    struct tn_str stable_id;
    struct tn_str tags; /* joined by "," */
    struct tn_str caps;
    struct tn_str login; /* empty for tagged nodes */
    struct tn_str user_name;
    struct tn_str user_pic;
    uint64_t user_id; /* 0: none */
    uint16_t naddrs;
    struct tn_addr addrs[TN_SNAP_MAX_ADDRS];
};

/*
 * tn_snap_open(s, base, size): check the header of a mapping.  O(1).
 * Returns NULL, or a constant sentence that says what is wrong.
 */
const char *tn_snap_open(struct tn_snap *s, const void *base, size_t size);

struct tn_str tn_snap_domain(const struct tn_snap *s);
struct tn_str tn_snap_tailnet(const struct tn_snap *s);

/* Each fills ${p} and returns 0, or -1: not there (or its bytes are bad, when
 * ${*bad} becomes true; ${bad} may be NULL). */
int tn_snap_self(const struct tn_snap *s, struct tn_peer *p, bool *bad);
int tn_snap_whois(const struct tn_snap *s, const struct tn_addr *a,
    struct tn_peer *p, bool *bad);
/* FQDN (with or without final dot) or short name, any case. */
int tn_snap_by_name(const struct tn_snap *s, const char *name, size_t len,
    struct tn_peer *p, bool *bad);

/*
 * The peers of a tag ("tag:gpu"): tn_snap_tag_count() says how many (0: no
 * such tag) and sets ${*it}; tn_snap_tag_peer() gives number ${i}.
 */
struct tn_snap_tag_iter {
    uint32_t list_off;
    uint32_t n;
};
uint32_t tn_snap_tag_count(const struct tn_snap *s, const char *tag, size_t len,
    struct tn_snap_tag_iter *it);
int tn_snap_tag_peer(const struct tn_snap *s, const struct tn_snap_tag_iter *it,
    uint32_t i, struct tn_peer *p, bool *bad);

/* All peers in the order of the address table, for status and tests: start
 * with ${*cursor} 0; returns 0 and a peer, or -1 at the end.  Peers with
 * several addresses come once.  */
int tn_snap_next(const struct tn_snap *s, uint32_t *cursor, struct tn_peer *p);

/* Hash of a name as the name table uses it: lower-cased, one final dot cut. */
uint64_t tn_name_hash(const char *name, size_t len);

#endif

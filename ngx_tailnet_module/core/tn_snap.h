/*
 * tn_snap.h: the snapshot of one node's tailnet, drawn as bytes.
 *
 * tailnetd's engine writes it into a memory file (all of it, or a copy of the
 * one before and then what is different), seals that (write, shrink, grow) and
 * publishes it; nginx's workers and tailnetctl map and read it.  Bytes that
 * nothing refers to may be anywhere behind the header.  Host byte order,
 * offsets only, every offset from the start of the file and a multiple of 8
 * (but for strings inside other strings).  A reader trusts nothing:
 * tn_snap_read.h checks the header once per mapping and every record at use.
 *
 *   0 ┌──────────────────────────────────────┐
 *     │ tn_snap_head                         │
 *     ├──────────────────────────────────────┤ addr_off
 *     │ addr_slots × u32: peer, hash, or 0   │ open addressing, linear
 *     ├──────────────────────────────────────┤ name_off   probing, load ≤ 5/8
 *     │ name_slots × tn_snap_name            │
 *     ├──────────────────────────────────────┤ tag_off
 *     │ ntags × tn_snap_tag, sorted by name  │
 *     ├──────────────────────────────────────┤
 *     │ peers, users, strings, tag lists     │
 *     └──────────────────────────────────────┘ size
 *
 * The address hash is tn_addr_hash() & (addr_slots - 1); one slot per address
 * of a peer (single-address prefixes of Node.Addresses, the self node too).
 * A slot is tn_snap_slot(): what an offset leaves free of its 32 bits holds the
 * highest bits of the hash, so that a search passes the slots of others without
 * a look at their records.
 * The name hash is tn_name_hash() & (name_slots - 1), over FQDN without its
 * final dot and over the short host name, both lower case.  A short name that
 * two peers share, or that equals another's FQDN, has no slot: ambiguous names
 * do not resolve.  Tags are sorted and compared without case (ASCII) and list
 * the tagged peers of this tailnet: neither self nor what was shared in.
 */
#ifndef TN_SNAP_H
#define TN_SNAP_H

#include <stdint.h>

#include "tn_addr.h"

#define TN_SNAP_MAGIC   "TNSNAP\r\n"
#define TN_SNAP_VERSION 2u /* 1: no hash in the address table */

/* Limits of one snapshot. */
#define TN_SNAP_MAX_SIZE  (1u << 30)
#define TN_SNAP_MAX_ADDRS 16 /* addresses of one peer; more are not indexed */
#define TN_SNAP_MAX_TAGS  64 /* tags of one peer */

/* Bits of the hash in a slot of the address table: the slot's lowest. */
#define TN_SNAP_SLOT_BITS 5

/* Bytes at ${off} of the file; not NUL-terminated. */
struct tn_snap_str {
    uint32_t off;
    uint32_t len;
};

struct tn_snap_head {
    uint8_t magic[8];
    uint32_t version;
    uint32_t size; /* of the whole file */
    uint64_t generation;
    uint32_t self;   /* offset of the self node's tn_snap_peer */
    uint32_t npeers; /* self not counted */
    uint32_t addr_off;
    uint32_t addr_slots; /* power of two */
    uint32_t name_off;
    uint32_t name_slots; /* power of two */
    uint32_t tag_off;
    uint32_t ntags;
    int64_t self_expiry;        /* Unix seconds; 0: never */
    struct tn_snap_str domain;  /* MagicDNS suffix, no final dot */
    struct tn_snap_str tailnet; /* display name: MapResponse.Domain */
    uint32_t reserved[8];       /* zero */
};

enum tn_snap_peer_flag {
    TN_PEER_SELF = 1u << 0,
    TN_PEER_TAGGED = 1u << 1,  /* identity is the tags, never the user */
    TN_PEER_SHARED = 1u << 2,  /* shared in from another tailnet */
    TN_PEER_EXPIRED = 1u << 3, /* keeps its row, has no rights */
    TN_PEER_ONLINE = 1u << 4,  /* Online true, or not said */
};

struct tn_snap_peer {
    uint32_t size; /* of this struct and its arrays */
    uint32_t flags;
    uint64_t id;
    int64_t key_expiry; /* Unix seconds; 0: never */
    uint32_t user;      /* offset of tn_snap_user; 0: none or tagged */
    uint16_t naddrs;
    uint16_t ntags;
    uint8_t key[32];         /* node public key */
    struct tn_snap_str name; /* FQDN, lower case, no final dot */
    struct tn_snap_str host; /* short name */
    struct tn_snap_str stable_id;
    struct tn_snap_str tags; /* "tag:a,tag:b", sorted */
    struct tn_snap_str caps; /* JSON object text, or empty */
    /* struct tn_addr addrs[naddrs]; */
    /* struct tn_snap_str tag[ntags]; each into ${tags} */
};

struct tn_snap_user {
    uint64_t id;
    struct tn_snap_str login;
    struct tn_snap_str name;
    struct tn_snap_str pic;
};

struct tn_snap_name {
    struct tn_snap_str name;
    uint32_t peer; /* 0: empty slot */
    uint32_t pad;
};

struct tn_snap_tag {
    struct tn_snap_str name; /* "tag:gpu" */
    uint32_t list_off;       /* n × u32 peer offsets */
    uint32_t n;
};

/* The slot of an address with this hash, whose peer is at ${off}. */
static inline uint32_t
tn_snap_slot(uint32_t off, uint64_t hash)
{
    return off / 8 << TN_SNAP_SLOT_BITS |
           (uint32_t)(hash >> (64 - TN_SNAP_SLOT_BITS));
}

/* The offset that tn_snap_slot() put into ${slot}. */
static inline uint32_t
tn_snap_slot_off(uint32_t slot)
{
    return (slot >> TN_SNAP_SLOT_BITS) * 8;
}

_Static_assert(TN_SNAP_MAX_SIZE / 8 - 1 <= UINT32_MAX >> TN_SNAP_SLOT_BITS,
    "a slot holds every offset");
_Static_assert(sizeof(struct tn_snap_head) == 112, "drawn as bytes");
_Static_assert(sizeof(struct tn_snap_peer) == 104, "drawn as bytes");
_Static_assert(sizeof(struct tn_snap_user) == 32, "drawn as bytes");
_Static_assert(sizeof(struct tn_snap_name) == 16, "drawn as bytes");
_Static_assert(sizeof(struct tn_snap_tag) == 16, "drawn as bytes");

#endif

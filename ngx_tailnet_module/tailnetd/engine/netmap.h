/*
 * netmap.h: what a node knows of its tailnet, whoever said so.
 *
 * control/map_json.h makes one from MapResponse JSON; source/file.h from a
 * file.  A netmap owns all its memory and is immutable once published; a new
 * one replaces it whole.
 */
#ifndef NETMAP_H
#define NETMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

/* Limits; a netmap that passes one is refused with the limit's name. */
#define NETMAP_MAX_PEERS     200000
#define NETMAP_MAX_ADDRS     64 /* of one node, each of the four lists */
#define NETMAP_MAX_TAGS      64
#define NETMAP_MAX_RULES     8192
#define NETMAP_MAX_RULE_LIST 65536 /* entries of one list in one rule */
#define NETMAP_MAX_STRING    1024
#define NETMAP_MAX_USERS     200000
#define NETMAP_MAX_CAPS      4096  /* of one node; of one grant */
#define NETMAP_MAX_CAP_VALUE 65536 /* bytes of one capability's JSON list */

struct netmap_user {
    int64_t id;
    char *login;
    char *name;
    char *pic; /* URL or "" */
};

struct netmap_node {
    int64_t id;
    char *stable_id; /* "" when not said */
    char *name;      /* FQDN as given, final dot cut, lower case */
    int64_t user;    /* 0: none */
    int64_t sharer;  /* 0: not shared in */
    uint8_t key[32];
    bool has_key;       /* false: self node of a file without Key */
    int64_t key_expiry; /* Unix seconds; 0: never */
    bool expired;
    bool online; /* Online true or absent */
    bool jailed;
    bool unsigned_peerapi_only;
    struct tn_prefix *addresses;
    unsigned naddresses;
    struct tn_prefix *allowed_ips;
    unsigned nallowed_ips;
    struct tn_endpoint *endpoints;
    unsigned nendpoints;
    char **tags; /* sorted, unique, each "tag:..." */
    unsigned ntags;
    char **caps; /* names of the node's CapMap, sorted, unique */
    unsigned ncaps;
};

/* An address pattern of the packet filter: single, CIDR, range or "*". */
struct netmap_ip_range {
    struct tn_addr first;
    struct tn_addr last; /* inclusive; one family, v4 as mapped */
    bool any;            /* "*": both families */
};

struct netmap_dst {
    struct netmap_ip_range ip;
    uint16_t first;
    uint16_t last;
};

struct netmap_cap_grant {
    struct tn_prefix *dsts;
    unsigned ndsts;
    char **names;  /* capability */
    char **values; /* JSON list text, parallel; "" for a bare Caps name */
    unsigned ncaps;
};

struct netmap_rule {
    struct netmap_ip_range *srcs;
    unsigned nsrcs;
    char **src_caps; /* "cap:NAME" sources, without "cap:" */
    unsigned nsrc_caps;
    struct netmap_dst *dsts;
    unsigned ndsts;
    bool proto_default; /* no IPProto: TCP, UDP, ICMP, ICMPv6 */
    uint8_t protos[32]; /* bitmap of 256 */
    struct netmap_cap_grant *grants;
    unsigned ngrants;
};

struct netmap {
    struct netmap_node self;
    struct netmap_node *peers;
    unsigned npeers;
    struct netmap_user *users; /* sorted by id, unique */
    unsigned nusers;
    char *domain;              /* MapResponse.Domain, "" when not said */
    bool has_rules;            /* PacketFilter or PacketFilters was given */
    struct netmap_rule *rules; /* effective: chunks in key order */
    unsigned nrules;
};

/* NULL is harmless, and so is a netmap that was not finished. */
void netmap_free(struct netmap *nm);

/* No rules are left; has_rules stays, so a filter drops all. */
void netmap_drop_rules(struct netmap *nm);

/* The user of ${id}, borrowed, or NULL. */
const struct netmap_user *netmap_user(const struct netmap *nm, int64_t id);

/* The MagicDNS suffix: self's name after its first dot, or "". Borrowed. */
const char *netmap_suffix(const struct netmap *nm);

#endif

/*
 * netmap.h: what a node knows of its tailnet, whoever said so.
 *
 * control/map_json.h makes one from MapResponse JSON; source/file.h from a
 * file; control/map_state.h from messages.  A new one replaces it whole, or its
 * owner changes the one that rules and says so: struct netmap_changes.
 */
#ifndef NETMAP_H
#define NETMAP_H

#include <stdbool.h>
#include <stddef.h>
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
#define NETMAP_MAX_REGIONS   1024  /* of the DERP map */
#define NETMAP_MAX_RELAYS    64    /* of one region */
#define NETMAP_MAX_REGION    65535 /* greatest number of one */

struct netmap_user {
    int64_t id;
    char *login;
    char *name;
    char *pic; /* URL or "" */
};

struct netmap_node {
    int64_t id;
    char *stable_id; /* "" when not said */
    char *name;      /* FQDN as given, final dots cut, lower case */
    int64_t user;    /* 0: none */
    int64_t sharer;  /* 0: not shared in */
    uint8_t key[32];
    bool has_key;       /* false: self node of a file without Key */
    int64_t key_expiry; /* Unix seconds; 0: never */
    bool expired;
    bool online; /* Online true or absent */
    bool jailed;
    bool unsigned_peerapi_only;
    bool authorized;     /* MachineAuthorized; true when not said */
    bool wireguard_only; /* no disco, no DERP: plain WireGuard */
    bool has_disco;
    uint8_t disco[32];      /* disco public key */
    uint16_t home_derp;     /* DERP region; 0: not known */
    uint32_t cap_version;   /* 0: not said */
    struct tn_addr masq[2]; /* by which this peer knows us: IPv4, IPv6 */
    bool has_masq[2];
    struct tn_prefix *addresses;
    unsigned naddresses;
    struct tn_prefix *allowed_ips;
    unsigned nallowed_ips;
    bool own_routes; /* allowed_ips is the row's, not the netmap's owner's */
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

/* A relay server (DERPNode). */
struct netmap_relay {
    char *name;
    char *host;
    char *cert_name; /* "": ${host}'s; "sha256-raw:HEX": pinned */
    char *ipv4;      /* address, "none", or "": look ${host} up */
    char *ipv6;
    char *stun_test_ip; /* "" or an address to use for STUN */
    uint16_t derp_port; /* 443 when not said */
    uint16_t stun_port; /* 3478 when not said; 0: no STUN */
    bool stun_only;
    bool insecure_for_tests;
    bool can_port80;
};

struct netmap_region {
    uint16_t id; /* from 1 */
    char *code;
    char *name;
    bool avoid;           /* not for home */
    bool no_measure_home; /* neither measured for home nor chosen */
    double score;         /* HomeParams.RegionScore; 1 when not said */
    struct netmap_relay *relays;
    unsigned nrelays;
};

/* Sorted by id, unique. */
struct netmap_derp {
    struct netmap_region *regions;
    unsigned nregions;
};

/*
 * Whoever owns what the rows of a netmap point to, when that is not the netmap
 * itself: netmap_free() frees the lists only, with routes that are a row's own,
 * and tells it.
 */
struct netmap_owner {
    void (*release)(struct netmap_owner *o, uint64_t generation);
};

struct netmap {
    struct netmap_owner *owner; /* NULL: the netmap itself */
    uint64_t generation;        /* for ${owner} */
    struct netmap_node self;
    struct netmap_node *peers;
    unsigned npeers;
    struct netmap_user *users; /* sorted by id, unique */
    unsigned nusers;
    char *domain;              /* MapResponse.Domain, "" when not said */
    bool has_rules;            /* PacketFilter or PacketFilters was given */
    struct netmap_rule *rules; /* effective: chunks in key order */
    unsigned nrules;
    const struct netmap_derp *derp; /* NULL: no DERP map */
};

/* A peer that is in the list no more. */
struct netmap_gone {
    uint32_t row; /* where it stood; the last row took its place */
    uint8_t key[32];
    const struct tn_prefix *addresses;
    unsigned naddresses;
};

/* What was done to a netmap that rules; to its peers in this order. */
struct netmap_changes {
    const struct netmap_gone *gone; /* one after the other */
    size_t ngone;
    size_t nadded;        /* the last rows are new */
    const uint32_t *rows; /* others, whose whereabouts changed */
    size_t nrows;
    struct netmap_node *self; /* the netmap's, if that or its domain is other */
    const int64_t *users;     /* known before, whose profiles changed */
    size_t nusers;
    bool derp, rules;
    bool grants; /* of the rules those that grant something */
};

/* NULL is harmless, and so is a netmap that was not finished. */
void netmap_free(struct netmap *nm);

/* What one row or list holds; the row itself stays, without meaning. */
void netmap_node_clear(struct netmap_node *node);
void netmap_user_clear(struct netmap_user *user);
void netmap_rules_free(struct netmap_rule *rules, unsigned n);
void netmap_derp_free(struct netmap_derp *derp);

/*
 * Two rows of one node.  Its standing is what it may be found by or let in for;
 * its whereabouts are the rest: whether it is online, its endpoints, disco key
 * and home, when its key expires, its capability version.
 */
bool netmap_same_standing(
    const struct netmap_node *a, const struct netmap_node *b);
bool netmap_same_whereabouts(
    const struct netmap_node *a, const struct netmap_node *b);
bool netmap_same_user(const struct netmap_user *a, const struct netmap_user *b);
bool netmap_same_rules(const struct netmap_rule *a, unsigned na,
    const struct netmap_rule *b, unsigned nb);

/* Of two lists of rules: whether they grant the same in the same order. */
bool netmap_same_grants(const struct netmap_rule *a, unsigned na,
    const struct netmap_rule *b, unsigned nb);

/* Of two rows of the node itself: whether all peers are the same to it. */
bool netmap_same_place(
    const struct netmap_node *a, const struct netmap_node *b);
bool netmap_same_texts(
    char *const *a, unsigned na, char *const *b, unsigned nb);

/* The region of ${id}, borrowed, or NULL; ${derp} may be NULL. */
const struct netmap_region *netmap_region(
    const struct netmap_derp *derp, unsigned id);

/* No peers are left. */
void netmap_drop_peers(struct netmap *nm);

/* No rules are left; has_rules stays, so a filter drops all. */
void netmap_drop_rules(struct netmap *nm);

/* The user of ${id}, borrowed, or NULL. */
const struct netmap_user *netmap_user(const struct netmap *nm, int64_t id);

/* The MagicDNS suffix: self's name after its first dot, or "". Borrowed. */
const char *netmap_suffix(const struct netmap *nm);

/* The first single address of ${row} in a family, borrowed, or NULL. */
const struct tn_addr *netmap_first_address(
    const struct netmap_node *row, bool is4);

/* Whether the netmap says that ${row} can be reached at ${e}. */
bool netmap_has_endpoint(
    const struct netmap_node *row, const struct tn_endpoint *e);

#endif

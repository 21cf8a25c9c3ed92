/*
 * tailnet.h: a small tailnet with one of each kind of peer, and its snapshot,
 * for the tests of both ends of a snapshot.  Included once per program, after
 * cmocka.h.
 */
#ifndef TAILNET_H
#define TAILNET_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/core/tn_snap_read.h"
#include "../../ngx_tailnet_module/tailnetd/engine/publish.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define NOW      1800000000

/* Text that is not const, as a netmap has it. */
#define T(s) ((char[]){s})

enum {
    LAPTOP,  /* alice's, with routes that are no identity */
    DESK,    /* alice's too */
    GPU,     /* tagged */
    CI,      /* tagged, also with gpu's tag; its user is a placeholder */
    GUEST,   /* shared: another suffix */
    ROBOT,   /* shared: has a sharer; tagged */
    OLD,     /* expired by its flag, offline */
    LATE,    /* expired by date */
    UNKNOWN, /* of a user without a profile */
    UNNAMED,
    TWIN,   /* a bare name that is the laptop's short name */
    MANY,   /* more addresses than are indexed */
    SILENT, /* no address */
    NPEERS,
};

static char *tags_gpu[] = {T("tag:gpu")};
static char *tags_ci[] = {T("tag:CI"), T("tag:ci"), T("tag:gpu")};

static struct netmap_user users[] = {
    {.id = 10,
        .login = T("alice@example.com"),
        .name = T("Alice \xc3\x84"),
        .pic = T("https://example.com/a.png")},
    {.id = 11, .login = T("carol@example.com"), .name = T(""), .pic = T("")},
    {.id = 12, .login = T("tagged-devices"), .name = T("Tagged"), .pic = T("")},
};

static struct netmap_node peers[NPEERS] = {
    [LAPTOP] = {.id = 1,
        .stable_id = T("n1"),
        .name = T("laptop.our.ts.net"),
        .user = 10,
        .online = true,
        .key_expiry = NOW + 1},
    [DESK] = {.id = 2,
        .stable_id = T("n2"),
        .name = T("desk.our.ts.net"),
        .user = 10,
        .online = true},
    [GPU] = {.id = 3,
        .stable_id = T("n3"),
        .name = T("gpu.our.ts.net"),
        .tags = tags_gpu,
        .ntags = 1,
        .online = true},
    [CI] = {.id = 4,
        .stable_id = T(""),
        .name = T("ci.our.ts.net"),
        .user = 12,
        .tags = tags_ci,
        .ntags = 3,
        .online = true},
    [GUEST] = {.id = 5,
        .stable_id = T("n5"),
        .name = T("laptop.their.ts.net"),
        .user = 11,
        .online = true},
    [ROBOT] = {.id = 6,
        .stable_id = T("n6"),
        .name = T("robot.our.ts.net"),
        .sharer = 11,
        .tags = tags_gpu,
        .ntags = 1,
        .online = true},
    [OLD] = {.id = 7,
        .stable_id = T("n7"),
        .name = T("old.our.ts.net"),
        .user = 11,
        .expired = true},
    [LATE] = {.id = 8,
        .stable_id = T("n8"),
        .name = T("late.our.ts.net"),
        .user = 11,
        .key_expiry = NOW,
        .online = true},
    [UNKNOWN] = {.id = 9,
        .stable_id = T("n9"),
        .name = T("unknown.our.ts.net"),
        .user = 99,
        .online = true},
    [UNNAMED] = {.id = 10,
        .stable_id = T("n10"),
        .name = T(""),
        .user = 10,
        .has_key = true,
        .key = {0xde, 0xad, 0xbe, 0xef},
        .online = true},
    [TWIN] = {.id = 11,
        .stable_id = T("n11"),
        .name = T("laptop"),
        .user = 11,
        .online = true},
    [MANY] = {.id = 12,
        .stable_id = T("n12"),
        .name = T("many.our.ts.net"),
        .user = 11,
        .online = true},
    [SILENT] = {.id = 13,
        .stable_id = T("n13"),
        .name = T("silent.our.ts.net"),
        .online = true},
};

static struct netmap map = {
    .self = {.id = 100,
        .stable_id = T("self"),
        .name = T("web.our.ts.net"),
        .user = 10,
        .key_expiry = NOW + 1000,
        .online = true},
    .peers = peers,
    .npeers = NPEERS,
    .users = users,
    .nusers = COUNT(users),
    .domain = T("our.example"),
};

static struct tn_prefix addresses[NPEERS][24], self_addresses[1];

static struct tn_addr
ip(const char *s)
{
    struct tn_addr a;

    assert_int_equal(tn_addr_parse(&a, s, strlen(s)), 0);
    return a;
}

static void
give(struct netmap_node *n, const char *s)
{
    assert_int_equal(
        tn_prefix_parse(&n->addresses[n->naddresses++], s, strlen(s)), 0);
}

static int
make_map(void **state)
{
    char text[TN_ADDR_STRLEN];

    (void)state;
    for (unsigned i = 0; i < NPEERS; i++) {
        peers[i].addresses = addresses[i];
        peers[i].naddresses = 0;
        if (i != SILENT && i != MANY) {
            snprintf(text, sizeof text, "100.64.0.%u", i + 1);
            give(&peers[i], text);
        }
    }
    give(&peers[LAPTOP], "192.168.1.0/24");
    give(&peers[LAPTOP], "fd7a::/64");
    give(&peers[LAPTOP], "fd7a:115c:a1e0::1");
    give(&peers[LAPTOP], "100.64.0.1");
    for (unsigned i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "100.65.0.%u", i);
        give(&peers[MANY], text);
    }
    map.self.addresses = self_addresses;
    map.self.naddresses = 0;
    give(&map.self, "100.64.0.100");
    return 0;
}

/* Peers with an even id have a capability in common. */
static const char *
caps(void *arg, const struct netmap_node *peer)
{
    (*(unsigned *)arg)++;
    return peer->id % 2 == 0 ? "{\"example.com/cap\":[{\"a\":1}]}" : "";
}

static unsigned asked;
static const struct publish_opts opts = {
    .generation = 42, .now = NOW, .caps = caps, .arg = &asked};

static void *bytes;
static size_t size;
static char err[TN_ERR_MAX];

static struct tn_snap
build(void)
{
    struct tn_snap s;

    bytes = NULL;
    asked = 0;
    if (publish_build(&map, &opts, &bytes, &size, err) != 0) {
        fail_msg("%s", err);
    }
    assert_null(tn_snap_open(&s, bytes, size));
    return s;
}

static struct tn_peer
whois(const struct tn_snap *s, const char *addr)
{
    struct tn_addr a = ip(addr);
    struct tn_peer p;
    bool bad = false;

    if (tn_snap_whois(s, &a, &p, &bad) != 0) {
        fail_msg("%s is not there", addr);
    }
    assert_false(bad);
    return p;
}

static void
no_one(const struct tn_snap *s, const char *addr)
{
    struct tn_addr a = ip(addr);
    struct tn_peer p;
    bool bad = false;

    assert_int_equal(tn_snap_whois(s, &a, &p, &bad), -1);
    assert_int_equal(tn_snap_whois(s, &a, &p, NULL), -1);
    assert_false(bad);
}

#endif

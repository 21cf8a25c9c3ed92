/*
 * snapshot_kit.h: a tailnet that changes at random, as netmap.h says.  For one
 * test program.
 */
#ifndef SNAPSHOT_KIT_H
#define SNAPSHOT_KIT_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../ngx_tailnet_module/tailnetd/engine/netmap.h"

#define PEERS_MAX 3000
#define ADDRS_MAX 18 /* of one peer; more than are indexed */
#define USERS_MAX 20

static unsigned npeers_usual = 250;
static bool quarrels; /* some names are those of two */

/* What a row points to. */
struct host {
    unsigned number;
    char name[64], stable_id[16];
    struct tn_prefix addrs[ADDRS_MAX];
    char *tags[4];
};

static struct netmap_node peers[PEERS_MAX];
static struct host *hosts[PEERS_MAX]; /* in the same order */
static bool taken[2 * PEERS_MAX];     /* numbers of hosts that are there */
static struct netmap_user users[USERS_MAX];
static char user_texts[USERS_MAX][2][32];
static char none[] = "", self_name[32], domain[32];
static struct netmap map;

static char *all_tags[] = {(char[]){"tag:a"}, (char[]){"tag:b"},
    (char[]){"TAG:B"}, (char[]){"tag:db"}, (char[]){"tag:gpu"},
    (char[]){"tag:x"}, (char[]){"tag:y"}, (char[]){"tag:zebra"}};
#define NTAGS (sizeof(all_tags) / sizeof(all_tags[0]))

/* Changes of one message. */
static struct netmap_gone gone[64];
static uint32_t rows[64];
static int64_t renamed;
static struct netmap_changes changes;

static uint32_t seed = 1;

static unsigned
roll(unsigned n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static struct tn_addr
address(unsigned host, unsigned i)
{
    uint8_t b4[4] = {
        100, (uint8_t)(64 + i), (uint8_t)(host >> 8), (uint8_t)host};
    uint8_t b6[16] = {0xfd, 0x7a, 0, (uint8_t)i};

    memcpy(b6 + 12, b4, 4);
    return i % 2 == 0 ? tn_addr_from4(b4) : tn_addr_from6(b6);
}

static void
name_of(unsigned number, char name[64])
{
    static const char *const forms[] = {
        "h%u.our.ts.net", "h%u.their.ts.net", "h%u"};
    unsigned which = quarrels ? roll(20) : number % 7 == 0;

    if (which == 3)
        name[0] = '\0';
    else
        snprintf(name, 64,
            which == 0   ? forms[1]
            : which == 1 ? forms[2]
                         : forms[0],
            quarrels && which == 2 ? roll(2 * npeers_usual) : number);
    if (!quarrels && number % 31 == 0)
        name[0] = '\0';
}

/* Any standing at all, but for addresses: those are the host's. */
static void
make_row(struct netmap_node *row, struct host *h)
{
    unsigned n = roll(20) == 0 ? roll(ADDRS_MAX + 1) : 1 + roll(2);

    memset(row, 0, sizeof(*row));
    name_of(h->number, h->name);
    snprintf(h->stable_id, sizeof(h->stable_id), "n%u", h->number);
    row->id = h->number + 1;
    row->name = h->name;
    row->stable_id = h->stable_id;
    row->user = roll(USERS_MAX + 2);
    row->sharer = roll(15) == 0 ? 1 : 0;
    row->has_key = true;
    memset(row->key, (int)(h->number % 251) + 1, sizeof(row->key));
    row->expired = roll(30) == 0;
    row->online = roll(2) == 0;
    row->unsigned_peerapi_only = quarrels && roll(40) == 0;
    row->addresses = h->addrs;
    for (unsigned i = 0; i < n; i++) {
        h->addrs[i].addr = address(h->number, i);
        h->addrs[i].bits = roll(30) == 0 && !row->unsigned_peerapi_only ? 120
                                                                        : 128;
    }
    row->naddresses = n;
    row->tags = h->tags;
    if (roll(3) == 0) {
        unsigned at = roll(NTAGS);

        for (row->ntags = 1 + roll(2); at + row->ntags > NTAGS; row->ntags--) {
        }
        for (unsigned i = 0; i < row->ntags; i++)
            h->tags[i] = all_tags[at + i];
    }
}

static void
add_peer(unsigned number)
{
    struct host *h = calloc(1, sizeof(*h));

    assert_non_null(h);
    assert_true(map.npeers < 2 * npeers_usual);
    while (taken[number])
        number = roll(2 * npeers_usual);
    taken[number] = true;
    h->number = number;
    hosts[map.npeers] = h;
    make_row(&peers[map.npeers++], h);
    changes.nadded++;
}

static void
remove_peer(uint32_t row)
{
    uint32_t last = map.npeers - 1;

    memcpy(gone[changes.ngone].key, peers[row].key, 32);
    gone[changes.ngone++].row = row;
    taken[hosts[row]->number] = false;
    free(hosts[row]);
    peers[row] = peers[last];
    hosts[row] = hosts[last];
    map.npeers--;
}

static void
touch_peer(uint32_t row)
{
    struct netmap_node *n = &peers[row];

    if (roll(2) == 0)
        n->online = !n->online;
    if (roll(4) == 0)
        n->key_expiry = time(NULL) + 100000 + (int64_t)roll(1000);
    if (roll(4) == 0)
        n->key_expiry = time(NULL) - 1000;
    rows[changes.nrows++] = row;
}

static void
rename_user(unsigned i)
{
    snprintf(user_texts[i][0], 32, "user%u-%u@example.com", i, roll(100));
    renamed = i + 1;
    changes.users = &renamed;
    changes.nusers = 1;
}

static void
change_self(void)
{
    static char tag[] = "tag:web", *tags[] = {tag};

    snprintf(self_name, sizeof(self_name), "web%u.our.ts.net", roll(2));
    snprintf(domain, sizeof(domain), "our%u.example", roll(3));
    map.self.tags = tags;
    map.self.ntags = roll(2);
    map.self.online = roll(2) == 0;
    map.self.key_expiry = time(NULL) - 1000 + (int64_t)roll(2000);
    changes.self = &map.self;
}

/* What some may do at us. */
static void
change_grants(void)
{
    static char value[16];
    struct netmap_rule first;

    snprintf(value, sizeof(value), "[%u]", roll(5));
    if (map.nrules == 0)
        return;
    first = map.rules[0];
    map.rules[0] = map.rules[1];
    map.rules[1] = first;
    map.rules[0].grants[0].values[0] = value;
    changes.rules = changes.grants = true;
}

/* Who gets another name, other tags or another user, goes and comes again. */
static void
change_something(unsigned most)
{
    unsigned n = 1 + roll(most), back[16], nback = 0, row, old;

    changes = (struct netmap_changes){.gone = gone, .rows = rows};
    for (unsigned i = 0; i < n && map.npeers > 0; i++) {
        row = roll(map.npeers);
        if (roll(2) == 0) {
            back[nback++] = hosts[row]->number;
            remove_peer(row);
        } else if (map.npeers > npeers_usual / 2 && roll(2) == 0) {
            remove_peer(row);
        }
    }
    old = map.npeers;
    for (unsigned i = 0; i < nback; i++)
        add_peer(back[i]);
    for (unsigned i = 0; i < n && map.npeers < npeers_usual * 3 / 2; i++)
        if (roll(3) == 0)
            add_peer(roll(2 * npeers_usual));
    for (unsigned i = 0; i < n && old > 0 && roll(2) == 0; i++)
        touch_peer(roll(old));
    if (roll(8) == 0)
        rename_user(roll(USERS_MAX));
    if (roll(8) == 0)
        change_self();
    if (roll(8) == 0)
        change_grants();
}

static void
make_map(unsigned n)
{
    static struct tn_prefix self_addr;

    memset(taken, 0, sizeof(taken));
    strcpy(self_name, "web.our.ts.net");
    strcpy(domain, "our.example");
    npeers_usual = n;
    map = (struct netmap){.peers = peers, .users = users, .domain = domain};
    for (unsigned i = 0; i < USERS_MAX; i++) {
        snprintf(user_texts[i][0], 32, "user%u@example.com", i);
        snprintf(user_texts[i][1], 32, "User %u", i);
        users[i] = (struct netmap_user){.id = i + 1,
            .login = user_texts[i][0],
            .name = user_texts[i][1],
            .pic = none};
    }
    map.nusers = USERS_MAX;
    self_addr.addr = address(5 * PEERS_MAX, 0);
    self_addr.bits = 128;
    map.self = (struct netmap_node){.id = 1000000,
        .name = self_name,
        .stable_id = none,
        .user = 1,
        .has_key = true,
        .online = true,
        .addresses = &self_addr,
        .naddresses = 1};
    changes = (struct netmap_changes){0};
    while (map.npeers < n)
        add_peer(roll(2 * n));
}

static void
free_map(void)
{
    while (map.npeers > 0)
        free(hosts[--map.npeers]);
}

/* Some have capabilities at us, by their addresses. */
static void
make_rules(struct netmap_rule rules[2])
{
    static struct netmap_ip_range srcs[2];
    static struct netmap_cap_grant grants[2];
    static struct tn_prefix dst;
    static char cap[] = "example.com/cap", one[] = "[1]", two[] = "[{\"a\":2}]";
    static char *names[] = {cap}, *values[] = {one, two};

    dst.addr = map.self.addresses[0].addr;
    dst.bits = 128;
    memset(rules, 0, 2 * sizeof(*rules));
    for (unsigned i = 0; i < 2; i++) {
        srcs[i].first = address(i * 64, 0);
        srcs[i].last = address(i * 64 + 99, 0);
        grants[i] = (struct netmap_cap_grant){.dsts = &dst,
            .ndsts = 1,
            .names = names,
            .values = &values[i],
            .ncaps = 1};
        rules[i].srcs = &srcs[i];
        rules[i].nsrcs = 1;
        rules[i].grants = &grants[i];
        rules[i].ngrants = 1;
    }
    map.rules = rules;
    map.nrules = 2;
}

#endif

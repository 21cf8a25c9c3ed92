#include "peers.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../loop.h"
#include "../source/file.h"
#include "node.h"
#include "reach.h"

static bool
may_talk(const struct netmap_node *p, int64_t now)
{
    return !p->expired && (p->key_expiry == 0 || p->key_expiry > now);
}

/* A node's own addresses are always its own, whatever it routes besides. */
static int
route(struct node *n, struct wg_peer *peer, const struct netmap_node *row)
{
    struct tn_prefix prefixes[2 * NETMAP_MAX_ADDRS];
    size_t na = row->naddresses, ni = row->nallowed_ips;

    if (na > 0)
        memcpy(prefixes, row->addresses, na * sizeof(*prefixes));
    if (ni > 0)
        memcpy(prefixes + na, row->allowed_ips, ni * sizeof(*prefixes));
    return wg_peer_set_allowed_ips(n->wg, peer, prefixes, na + ni);
}

/* Is ${peer} where the netmap before said that it is, and the new one not? */
static bool
has_moved(const struct wg_peer *peer, const struct netmap_node *before,
    const struct netmap_node *row)
{
    struct tn_endpoint e = wg_peer_endpoint(peer);

    return row->nendpoints > 0 && netmap_has_endpoint(before, &e) &&
           !netmap_has_endpoint(row, &e);
}

/* Where ${np} is, and what it is besides its routes. */
static void
settle(struct node *n, struct node_peer *np, const struct netmap_node *row,
    uint64_t now)
{
    struct wg_peer *peer = np->peer;
    const struct hot_peer *hot = NULL;
    struct tn_endpoint e = {0};

    np->self = row;
    n->masked = n->masked || row->has_masq[0] || row->has_masq[1];
    np->endpoint = 0;
    wg_peer_set_psk(
        peer, n->psks == NULL ? NULL : source_file_psk(n->psks, row->key));
    if (!n->resumed && wg_peer_endpoint(peer).port == 0)
        hot = hot_peer(n->hot, n->name, row->key, (int64_t)time(NULL));
    if (n->magic != NULL)
        reach_set(n, np, row, hot);
    if (wg_peer_endpoint(peer).port == 0 &&
        (n->magic == NULL || row->wireguard_only)) {
        if (hot != NULL)
            e = (struct tn_endpoint){hot->addr, hot->port};
        else if (row->nendpoints > 0)
            e = row->endpoints[0];
        wg_peer_set_endpoint(peer, &e);
    }
    /* Who talked to the engine before this one is waiting for us. */
    if (hot != NULL)
        wg_initiate(n->wg, peer, now);
}

static void
link_peer(struct node *n, struct node_peer *np)
{
    np->next = n->peers;
    if (np->next != NULL)
        np->next->at = &np->next;
    np->at = &n->peers;
    n->peers = np;
}

static int
add_peer(struct node *n, const struct netmap_node *row, uint64_t now)
{
    struct wg_peer *peer = wg_peer_by_key(n->wg, row->key);
    struct node_peer *np = peer == NULL ? NULL : wg_peer_data(peer);

    if (np == NULL) {
        np = calloc(1, sizeof(*np));
        if (np == NULL)
            return -1;
        peer = wg_peer_add(n->wg, row->key, np, now);
        if (peer == NULL) {
            free(np);
            return -1;
        }
        np->self = row;
        np->peer = peer;
        link_peer(n, np);
    }
    if (route(n, peer, row) != 0)
        return -1;
    if (n->magic == NULL && has_moved(peer, np->self, row))
        wg_peer_set_endpoint(peer, &row->endpoints[0]);
    np->kept = true;
    settle(n, np, row, now);
    return 0;
}

static void
drop(struct node *n, struct node_peer *np)
{
    *np->at = np->next;
    if (np->next != NULL)
        np->next->at = np->at;
    if (n->magic != NULL)
        magic_peer_clear(n->magic, &np->way);
    wg_peer_remove(n->wg, np->peer);
    free(np);
}

static bool
has_address(const struct netmap_node *row, const struct tn_prefix *address)
{
    for (unsigned i = 0; i < row->naddresses; i++)
        if (row->addresses[i].bits == address->bits &&
            tn_addr_equal(&row->addresses[i].addr, &address->addr))
            return true;
    return false;
}

/* Who has them next did not get what was sent to this one, which now is
 * ${row}; NULL: no more. */
static void
forget_flows(struct node *n, const struct tn_prefix *addresses, size_t count,
    const struct netmap_node *row)
{
    for (size_t i = 0; n->filter != NULL && i < count; i++)
        if (addresses[i].bits == 128 &&
            (row == NULL || !has_address(row, &addresses[i])))
            filter_forget(n->filter, &addresses[i].addr);
}

void
peers_drop(struct node *n, bool all)
{
    struct node_peer *np, *next;

    for (np = n->peers; np != NULL; np = next) {
        next = np->next;
        if (np->kept && !all)
            continue;
        if (!all)
            forget_flows(n, np->self->addresses, np->self->naddresses, NULL);
        drop(n, np);
    }
}

/*
 * This node's addresses and those of expired peers belong to nobody, so that
 * no peer that routes a range around them can speak as them.  Nobody is a peer
 * whose key, zero, no handshake can have.
 */
static const struct netmap_node nobody;

static int
add_nobody(struct node *n, const struct netmap *nm, int64_t t, uint64_t now)
{
    struct tn_prefix *prefixes;
    size_t count = nm->self.naddresses, used = 0;
    unsigned i;
    int rc;

    for (i = 0; i < nm->npeers; i++)
        if (!may_talk(&nm->peers[i], t))
            count += nm->peers[i].naddresses;
    prefixes = calloc(count + 1, sizeof(*prefixes));
    if (prefixes == NULL || add_peer(n, &nobody, now) != 0) {
        free(prefixes);
        return -1;
    }
    for (i = 0; i < nm->self.naddresses; i++)
        prefixes[used++] = nm->self.addresses[i];
    for (i = 0; i < nm->npeers; i++) {
        const struct netmap_node *p = &nm->peers[i];

        if (may_talk(p, t))
            continue;
        memcpy(
            prefixes + used, p->addresses, p->naddresses * sizeof(*prefixes));
        used += p->naddresses;
    }
    rc = wg_peer_set_allowed_ips(
        n->wg, wg_peer_by_key(n->wg, nobody.key), prefixes, used);
    free(prefixes);
    return rc;
}

/* ---- some of them ---- */

static struct node_peer *
find(const struct node *n, const uint8_t key[32])
{
    struct wg_peer *peer = wg_peer_by_key(n->wg, key);

    return peer == NULL ? NULL : wg_peer_data(peer);
}

/* They go, unless they come again as others.  Addresses of one whose key had
 * expired are nobody's no more. */
static void
forget(struct node *n, const struct netmap_changes *c)
{
    struct node_peer *np;
    size_t i;

    for (i = 0; i < c->ngone; i++) {
        np = find(n, c->gone[i].key);
        if (np != NULL)
            np->kept = false;
        else
            wg_peer_drop_allowed_ips(n->wg, wg_peer_by_key(n->wg, nobody.key),
                c->gone[i].addresses, c->gone[i].naddresses);
    }
}

/* The rows that took the place of others are those of whom they were. */
static void
follow_rows(struct node *n, const struct netmap_changes *c)
{
    size_t count = n->netmap->npeers - c->nadded, i;
    const struct netmap_node *row;
    struct node_peer *np;

    for (i = 0; i < c->ngone; i++) {
        if (c->gone[i].row >= count)
            continue;
        row = &n->netmap->peers[c->gone[i].row];
        np = find(n, row->key);
        if (np == NULL)
            continue; /* expired */
        np->self = row;
        if (n->magic != NULL)
            reach_set(n, np, row, NULL);
    }
}

static int
expire(struct node *n, const struct netmap_node *row)
{
    struct node_peer *np = find(n, row->key);

    if (wg_peer_add_allowed_ips(n->wg, wg_peer_by_key(n->wg, nobody.key),
            row->addresses, row->naddresses) != 0)
        return -1;
    if (np == NULL)
        return 0;
    forget_flows(n, row->addresses, row->naddresses, NULL);
    drop(n, np);
    return 0;
}

/* ${whole}: more than its whereabouts may be new. */
static int
update(struct node *n, const struct netmap_node *row, bool whole, int64_t t,
    uint64_t now)
{
    struct node_peer *np = find(n, row->key);

    if (!may_talk(row, t))
        return expire(n, row);
    if (np == NULL || whole)
        return add_peer(n, row, now);
    settle(n, np, row, now);
    return 0;
}

int
peers_update(struct node *n, const struct netmap_changes *c)
{
    const struct netmap *nm = n->netmap;
    int64_t t = (int64_t)time(NULL);
    uint64_t now = loop_now();
    struct node_peer *np;
    size_t i;

    forget(n, c);
    follow_rows(n, c);
    for (i = 0; i < c->nrows; i++)
        if (update(n, &nm->peers[c->rows[i]], false, t, now) != 0)
            return -1;
    for (i = nm->npeers - c->nadded; i < nm->npeers; i++)
        if (update(n, &nm->peers[i], true, t, now) != 0)
            return -1;
    for (i = 0; i < c->ngone; i++) {
        np = find(n, c->gone[i].key);
        forget_flows(n, c->gone[i].addresses, c->gone[i].naddresses,
            np != NULL && np->kept ? np->self : NULL);
        if (np != NULL && !np->kept)
            drop(n, np);
    }
    return 0;
}

static bool
has_routes(const struct netmap_node *row)
{
    for (unsigned i = 0; i < row->nallowed_ips; i++)
        if (!has_address(row, &row->allowed_ips[i]))
            return true;
    return false;
}

bool
peers_ended(const struct node *n, int64_t since, int64_t now,
    uint32_t rows[PEERS_ENDED_MAX], struct netmap_changes *c)
{
    const struct netmap_node *row = n->netmap->peers;

    *c = (struct netmap_changes){.rows = rows};
    for (uint32_t i = 0; i < n->netmap->npeers; i++, row++) {
        if (row->key_expiry <= since || row->key_expiry > now)
            continue;
        if (c->nrows == PEERS_ENDED_MAX || has_routes(row))
            return false;
        rows[c->nrows++] = i;
    }
    return true;
}

/* ---- all of them ---- */

int
peers_apply(struct node *n, const struct netmap *nm)
{
    const struct netmap_node *row;
    struct node_peer *np;
    uint64_t now = loop_now();
    int64_t t = (int64_t)time(NULL);

    n->masked = false;
    for (np = n->peers; np != NULL; np = np->next)
        np->kept = false;
    for (row = nm->peers; row < nm->peers + nm->npeers; row++) {
        if (!may_talk(row, t))
            continue;
        np = find(n, row->key);
        if (np != NULL)
            forget_flows(n, np->self->addresses, np->self->naddresses, row);
        if (add_peer(n, row, now) != 0)
            return -1;
    }
    if (add_nobody(n, nm, t, now) != 0)
        return -1;
    peers_drop(n, false);
    return 0;
}

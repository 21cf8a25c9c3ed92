/*
 * Theory of operation.
 *
 *   pump ──► magic_receive ─ STUN ──► netcheck
 *                          ├ disco ─► talk ──► path
 *                          └ else ──► the caller's WireGuard
 *   derp ──► packet ─ disco ─► talk      └ else ──► ops->wireguard
 *   WireGuard ──► magic_output ──► path ──► ops->send and derp_send
 *
 * One timer runs for everything but the relays' connections: the paths of those
 * who talk, the netcheck, and when the next one is due.  It runs at most every
 * TICK, so that what it costs does not grow with the packets.
 */
#include "magic.h"

#include <stdlib.h>
#include <string.h>

#include "../engine/say.h"
#include "stun.h"
#include "talk.h"

#define TICK    (50 * NETCHECK_MS)
#define SECONDS PATH_S

static void update(struct magic *m, const struct netcheck_report *r);

/* ---- the table of disco keys ---- */

static struct magic_peer **
bucket(const struct magic *m, uint32_t h)
{
    return &m->buckets[h & (m->nbuckets - 1)];
}

/* Twice as large, if that can be had: a full table is only slower. */
static void
grow(struct magic *m)
{
    size_t size = m->nbuckets * 2, had = m->nbuckets, i;
    struct magic_peer **old = m->buckets, **new, *p, *next;

    new = calloc(size, sizeof(struct magic_peer *));
    if (new == NULL)
        return;
    m->buckets = new;
    m->nbuckets = size;
    for (i = 0; i < had; i++) {
        for (p = old[i]; p != NULL; p = next) {
            next = p->next;
            p->next = *bucket(m, p->bucket);
            *bucket(m, p->bucket) = p;
        }
    }
    free(old);
}

static void
unlink_peer(struct magic *m, struct magic_peer *p)
{
    struct magic_peer **at;

    if (p->disco == NULL)
        return;
    for (at = bucket(m, p->bucket); *at != p;)
        at = &(*at)->next;
    *at = p->next;
    p->disco = NULL;
    m->npeers--;
}

/* Public keys are uniform already. */
static void
link_peer(struct magic *m, struct magic_peer *p, const uint8_t *disco)
{
    if (m->npeers >= m->nbuckets)
        grow(m);
    memcpy(&p->bucket, disco, sizeof(p->bucket));
    p->disco = disco;
    p->next = *bucket(m, p->bucket);
    *bucket(m, p->bucket) = p;
    m->npeers++;
}

/* The peer's own word holds until the control server has another one. */
static const uint8_t *
disco_of(const struct magic_peer *p)
{
    const struct talk *t = p->talk;

    if (p->row->wireguard_only)
        return NULL;
    if (t != NULL && t->has_advert &&
        memcmp(t->instead, p->row->disco, sizeof(t->instead)) == 0)
        return t->advert;
    return p->row->has_disco ? p->row->disco : NULL;
}

void
magic_peer_set(
    struct magic *m, struct magic_peer *p, const struct netmap_node *row)
{
    const uint8_t *disco;

    unlink_peer(m, p);
    p->row = row;
    disco = disco_of(p);
    if (disco != NULL)
        link_peer(m, p, disco);
    if (p->talk != NULL)
        talk_rekey(p->talk);
}

void
magic_peer_clear(struct magic *m, struct magic_peer *p)
{
    unlink_peer(m, p);
    talk_free(p->talk);
    p->row = NULL;
}

void
magic_peer_resume(struct magic *m, struct magic_peer *p,
    const struct tn_endpoint *e, uint16_t region)
{
    struct talk *t = talk_get(m, p);

    if (t == NULL)
        return;
    t->region = region;
    t->region_at = loop_now_us();
    if (t->path != NULL && e->port != 0 && derp_region(e) == 0)
        path_resume(t->path, e);
}

void
magic_peer_disco(struct magic *m, struct magic_peer *p, const uint8_t key[32])
{
    struct talk *t = talk_get(m, p);

    if (t == NULL || p->row->wireguard_only ||
        (p->disco != NULL && memcmp(p->disco, key, 32) == 0))
        return;
    unlink_peer(m, p);
    memcpy(t->advert, key, sizeof(t->advert));
    memcpy(t->instead, p->row->disco, sizeof(t->instead));
    t->has_advert = true;
    link_peer(m, p, t->advert);
    talk_rekey(t);
}

/* ---- packets ---- */

/* Geneve, as peer relays wrap disco and WireGuard. */
static bool
looks_geneve(const uint8_t *p, size_t len)
{
    return len >= 8 && (p[0] & 0xc0) == 0 && p[2] == 0x7a &&
           (p[3] == 0x11 || p[3] == 0x12);
}

bool
magic_receive(struct magic *m, const uint8_t *msg, size_t len,
    const struct tn_endpoint *src)
{
    uint64_t now;

    if (derp_region(src) != 0 || src->port == 0) {
        m->count.drop_spoofed++;
        return true;
    }
    if (stun_looks(msg, len)) {
        now = loop_now_us();
        m->count.stun++;
        if (!netcheck_receive(m->netcheck, msg, len, now))
            m->count.drop_stun++;
        else
            magic_wake(m, netcheck_deadline(m->netcheck));
        return true;
    }
    if (looks_geneve(msg, len)) {
        m->count.drop_geneve++;
        return true;
    }
    if (!disco_looks(msg, len))
        return false;
    talk_disco(m, msg, len, src, NULL);
    return true;
}

const uint8_t *
magic_relay_sender(const struct magic *m)
{
    return m->relay_src;
}

void
magic_heard(
    struct magic *m, struct magic_peer *p, const struct tn_endpoint *src)
{
    uint16_t region = derp_region(src);
    struct talk *t = talk_get(m, p);

    if (t == NULL)
        return;
    if (region == 0) {
        if (t->path != NULL)
            path_heard(t->path, src);
        return;
    }
    t->region = region;
    t->region_at = loop_now_us();
}

/* An answer to whom no peer is known (a cookie): the way it came. */
static bool
output_back(struct magic *m, const struct tn_endpoint *dst, const uint8_t *msg,
    size_t len)
{
    uint16_t region = derp_region(dst);

    if (region == 0) {
        if (dst->port != 0)
            m->ops->send(m->ctx, dst, msg, len);
        return dst->port != 0;
    }
    if (m->relay_src == NULL || m->relay_region != region)
        return false;
    derp_send(m->derp, region, m->relay_src, msg, len);
    return true;
}

static bool
output_relay(struct talk *t, const uint8_t *msg, size_t len, uint64_t now)
{
    struct magic *m = t->magic;
    uint16_t region = talk_region(t, now);

    if (region == 0)
        return false;
    derp_send(m->derp, region, t->peer->row->key, msg, len);
    m->count.sent_relay++;
    if (t->path == NULL || path_best(t->path).port == 0)
        talk_moved(t);
    return true;
}

bool
magic_output(struct magic *m, struct magic_peer *p,
    const struct tn_endpoint *dst, const uint8_t *msg, size_t len)
{
    struct path_route r;
    uint64_t now, at;
    struct talk *t;
    bool sent;

    if (p == NULL)
        return output_back(m, dst, msg, len);
    if (p->row->wireguard_only) {
        sent = dst->port != 0 && derp_region(dst) == 0;
        if (sent)
            m->ops->send(m->ctx, dst, msg, len);
        m->count.drop_no_path += !sent;
        return sent;
    }
    t = talk_get(m, p);
    if (t == NULL)
        return false;
    now = loop_now_us();
    if (t->path == NULL) {
        sent = output_relay(t, msg, len, now);
    } else {
        r = path_send(t->path, now);
        at = path_deadline(t->path);
        if (at < m->timer_at)
            magic_wake(m, at);
        sent = r.udp.port != 0;
        if (sent) {
            m->ops->send(m->ctx, &r.udp, msg, len);
            m->count.sent_direct++;
        }
        if (r.relay)
            sent = output_relay(t, msg, len, now) || sent;
    }
    m->count.drop_no_path += !sent;
    return sent;
}

bool
magic_ping(struct magic *m, struct magic_peer *p, const uint8_t txid[12])
{
    struct talk *t = p->row->wireguard_only ? NULL : talk_get(m, p);

    return t != NULL && talk_ping(t, txid, loop_now_us());
}

void
magic_flush(struct magic *m)
{
    derp_flush(m->derp);
}

/* ---- the relays' callbacks ---- */

static void
relay_packet(
    void *ctx, uint16_t region, const uint8_t src[32], uint8_t *p, size_t len)
{
    struct magic *m = ctx;
    struct tn_endpoint e = derp_endpoint(region);

    if (disco_looks(p, len)) {
        talk_disco(m, p, len, &e, src);
        return;
    }
    m->relay_src = src;
    m->relay_region = region;
    m->ops->wireguard(m->ctx, p, len, &e);
    m->relay_src = NULL;
}

static void
relay_after(void *ctx)
{
    struct magic *m = ctx;

    derp_flush(m->derp);
    m->ops->flush(m->ctx);
}

static void
relay_gone(void *ctx, uint16_t region, const uint8_t key[32])
{
    struct magic *m = ctx;
    struct talk *t;

    for (t = m->talks; t != NULL; t = t->next)
        if (t->region == region && memcmp(t->peer->row->key, key, 32) == 0)
            t->region = 0;
}

/* Without a home nobody can call us: perhaps another one is there. */
static void
home_lost(struct magic *m)
{
    uint64_t at = m->full_from + MAGIC_CHECK_LOST_S * SECONDS;

    if (at >= m->full_at)
        return;
    m->full_at = at;
    m->probe_at = at < m->probe_at ? at : m->probe_at;
    magic_wake(m, at);
}

static void
relay_changed(void *ctx, uint16_t region, bool up)
{
    struct magic *m = ctx;
    struct talk *t;

    if (up && region == m->home && m->rekeyed) {
        m->rekeyed = false;
        m->ops->rekeyed(m->ctx);
    }
    if (up)
        return;
    for (t = m->talks; t != NULL; t = t->next)
        if (t->region == region)
            t->region = 0;
    if (region == m->home)
        home_lost(m);
}

static const struct derp_ops derp_ops = {
    relay_packet, relay_after, relay_gone, relay_changed, talk_random};

/* ---- what the network is like ---- */

static void
netcheck_send(
    void *ctx, const struct tn_endpoint *to, const uint8_t *msg, size_t len)
{
    struct magic *m = ctx;

    m->ops->send(m->ctx, to, msg, len);
}

static const struct netcheck_ops netcheck_ops = {netcheck_send, talk_random};

/* The server's addresses as the map has them, or as the resolver does. */
static void
server_of(struct magic *m, const struct netmap_relay *relay,
    struct tn_endpoint server[2])
{
    const char *const text[2] = {relay->ipv4, relay->ipv6};
    static const struct tn_addr none;
    struct tn_addr found[2] = {none, none}, a;
    const char *test = relay->stun_test_ip;
    int i;

    memset(server, 0, 2 * sizeof(*server));
    if (relay->stun_port == 0)
        return;
    if (test[0] != '\0') {
        if (tn_addr_parse(&a, test, strlen(test)) == 0)
            server[!tn_addr_is4(&a)] = (struct tn_endpoint){
                a, relay->stun_port};
        return;
    }
    if (text[0][0] == '\0' || text[1][0] == '\0')
        resolve_get(m->resolve, relay->host, found);
    for (i = 0; i < 2; i++) {
        if (text[i][0] != '\0' &&
            tn_addr_parse(&found[i], text[i], strlen(text[i])) != 0)
            continue; /* "none" */
        if (memcmp(&found[i], &none, sizeof(none)) != 0 &&
            tn_addr_is4(&found[i]) == (i == 0) && m->is.port[i] != 0)
            server[i] = (struct tn_endpoint){found[i], relay->stun_port};
    }
}

static bool
set_regions(struct magic *m)
{
    size_t n = m->map == NULL ? 0 : m->map->nregions, i;
    struct netcheck_region *list = calloc(n + 1, sizeof(*list));
    unsigned k;
    int rc;

    if (list == NULL)
        return false;
    for (i = 0; i < n; i++) {
        const struct netmap_region *r = &m->map->regions[i];

        list[i].id = r->id;
        list[i].no_home = r->avoid || r->no_measure_home;
        list[i].score = r->score;
        for (k = 0; k < r->nrelays && k < NETCHECK_SERVERS; k++)
            server_of(m, &r->relays[k], list[i].servers[list[i].nservers++]);
    }
    rc = netcheck_regions(m->netcheck, list, n);
    free(list);
    return rc == 0;
}

static bool
has_global6(const struct magic *m)
{
    size_t i;

    for (i = 0; i < m->naddrs; i++)
        if (!tn_addr_is4(&m->addrs[i]))
            return m->is.port[1] != 0;
    return false;
}

static void
set_next_check(struct magic *m, uint64_t now, bool full)
{
    uint16_t r;

    talk_random(NULL, (uint8_t *)&r, sizeof(r));
    m->check_at = now + MAGIC_CHECK_S * SECONDS +
                  MAGIC_CHECK_MORE_S * SECONDS * r / UINT16_MAX;
    if (!full)
        return;
    m->full_from = now;
    m->full_at = now + MAGIC_CHECK_FULL_S * SECONDS;
}

static void
check(struct magic *m, uint64_t now)
{
    bool full = now >= m->full_at || !m->checked;

    if (netcheck_running(m->netcheck))
        return;
    set_next_check(m, now, full);
    if (!set_regions(m) ||
        !netcheck_start(m->netcheck, m->home, full, has_global6(m), now)) {
        update(m, NULL); /* nobody to ask */
        return;
    }
    m->ops->flush(m->ctx);
    magic_wake(m, netcheck_deadline(m->netcheck));
}

void
magic_check_soon(struct magic *m)
{
    m->check_at = 0;
    magic_wake(m, 0);
}

/* ---- what we tell others ---- */

static void
set_home(struct magic *m, uint16_t home)
{
    const struct netmap_region *r = netmap_region(m->map, home);

    if (home == m->home)
        return;
    m->home = *m->is.home = home;
    derp_home(m->derp, home);
    if (r != NULL)
        say_info("node \"%s\": its home is relay region %u (%s)", m->is.node,
            home, r->code);
}

static void
choose_home(struct magic *m, uint64_t now)
{
    uint64_t heard = derp_heard(m->derp, m->home);
    bool alive = heard != 0 && loop_now() - heard < MAGIC_HOME_ALIVE_MS;
    uint32_t pick;

    /* Nobody could be told. */
    if (m->home != 0 && !m->joined && netmap_region(m->map, m->home) != NULL)
        return;
    memcpy(&pick, m->node_public, sizeof(pick));
    set_home(m, netcheck_home(m->netcheck, m->home, alive, pick, now));
}

static void
add_latencies(struct magic *m, struct message_netinfo *n, uint64_t now)
{
    size_t i, count = m->map == NULL ? 0 : m->map->nregions;
    uint32_t us;
    int six;

    for (i = 0; i < count; i++) {
        for (six = 0; six < 2; six++) {
            us = netcheck_latency(m->netcheck, m->map->regions[i].id, six, now);
            if (us == 0 || n->nlatency == MESSAGE_LATENCIES)
                continue;
            n->latency[n->nlatency].region = m->map->regions[i].id;
            n->latency[n->nlatency].six = six;
            n->latency[n->nlatency++].seconds = (double)us / 1e6;
        }
    }
}

/* Whether more than latencies changed. */
static bool
set_netinfo(struct magic *m, const struct netcheck_report *r, uint64_t now)
{
    struct message_netinfo n = m->netinfo, *had = &m->netinfo;
    bool changed;

    n.os_ipv6 = m->is.port[1] != 0;
    n.preferred_derp = m->home;
    if (r != NULL) {
        n.varies = r->varies_known ? r->varies : -1;
        n.working_udp = r->udp;
        n.working_ipv6 = r->six;
    }
    n.nlatency = 0;
    add_latencies(m, &n, now);
    changed = n.varies != had->varies || n.os_ipv6 != had->os_ipv6 ||
              n.working_udp != had->working_udp ||
              n.working_ipv6 != had->working_ipv6 ||
              n.preferred_derp != had->preferred_derp;
    if (r != NULL && n.working_udp != had->working_udp) {
        if (!r->udp)
            say_warn("node \"%s\": no STUN server answers: where UDP is "
                     "blocked, peers are reached by relay only",
                m->is.node);
        else if (had->working_udp == 0)
            say_notice("node \"%s\": UDP works again", m->is.node);
    }
    *had = n;
    return changed;
}

static void
probe_answered(void *ctx, uint16_t region, uint32_t us)
{
    struct magic *m = ctx;

    netcheck_sample(m->netcheck, region, us, loop_now_us());
}

static void
probe_over(void *ctx)
{
    struct magic *m = ctx;
    uint64_t now = loop_now_us();

    probe_free(m->probe);
    m->probe = NULL;
    choose_home(m, now);
    if (set_netinfo(m, NULL, now))
        m->ops->announce(m->ctx);
}

static const struct probe_ops probe_ops = {probe_answered, probe_over};

/* Where UDP does not pass: which relay is near?  True: it will be known. */
static bool
measure(struct magic *m, uint64_t now)
{
    if (m->probe == NULL && now >= m->probe_at) {
        m->probe_at = now + MAGIC_CHECK_FULL_S * SECONDS;
        m->probe = probe_new(
            m->map, m->is.trust, m->is.insecure, &probe_ops, m);
        if (m->probe != NULL)
            netcheck_hush(m->netcheck);
    }
    return m->probe != NULL;
}

static void
forget_probe(struct magic *m)
{
    probe_free(m->probe);
    m->probe = NULL;
    m->probe_at = 0;
}

static void
update(struct magic *m, const struct netcheck_report *r)
{
    uint64_t now = loop_now_us();
    struct talk *t;
    bool news;

    if (r != NULL) {
        m->checked = true;
        m->stun_at = r->udp ? now : m->stun_at;
    }
    news = endpoints_update(
        &m->endpoints, r, m->addrs, m->naddrs, m->is.port, now);
    if (r != NULL && (r->udp || !measure(m, now)))
        choose_home(m, now);
    news = set_netinfo(m, r, now) || news;
    for (t = m->talks; t != NULL; t = t->next)
        if (t->wants_call)
            talk_call(t);
    derp_flush(m->derp);
    if (news)
        m->ops->announce(m->ctx);
}

/* ---- changes around us ---- */

static void
addresses_changed(void *arg)
{
    struct magic *m = arg;
    struct tn_addr addrs[LINK_ADDRS_MAX];
    uint64_t now = loop_now_us();
    struct talk *t;
    size_t n, more;

    n = link_addrs(addrs, &more);
    if (n == m->naddrs && memcmp(addrs, m->addrs, n * sizeof(*addrs)) == 0)
        return;
    say_info("node \"%s\": this machine's addresses changed", m->is.node);
    memcpy(m->addrs, addrs, n * sizeof(*addrs));
    m->naddrs = n;
    endpoints_forget(&m->endpoints);
    m->stun_at = m->full_at = 0;
    forget_probe(m);
    derp_check(m->derp, m->addrs, m->naddrs);
    for (t = m->talks; t != NULL; t = t->next)
        if (t->path != NULL)
            path_distrust(t->path, now);
    m->ops->flush(m->ctx); /* other nodes hear of it just now as well */
    m->ops->network(m->ctx);
    magic_check_soon(m);
}

static void
resolved(void *arg)
{
    struct magic *m = arg;

    m->full_at = 0;
    magic_check_soon(m);
}

/* ---- time ---- */

void
magic_wake(struct magic *m, uint64_t at)
{
    uint64_t least = loop_now_us() + TICK;

    /* The first answers of a netcheck decide how soon a node is there. */
    if (at < least && !netcheck_running(m->netcheck))
        at = at == 0 ? 0 : least;
    /* Compared last: packets that ask for what is overdue must not put it off,
     * each by another TICK. */
    if (at >= m->timer_at)
        return;
    m->timer_at = at;
    loop_timer_set(m->timer, (at + 999) / 1000);
}

static void
tick(void *arg)
{
    struct magic *m = arg;
    uint64_t now = loop_now_us(), next, at;
    struct talk *t, *after;
    bool called = false;
    /* Without a relay of its home nobody can call us. */
    bool active = m->map != NULL &&
                  (m->home == 0 || !derp_up(m->derp, m->home));

    m->timer_at = UINT64_MAX;
    if (netcheck_tick(m->netcheck, now))
        update(m, netcheck_report(m->netcheck));
    next = netcheck_deadline(m->netcheck);
    for (t = m->talks; t != NULL; t = after) {
        after = t->next;
        called = called || t->wants_call;
        if (t->path == NULL)
            continue;
        if (path_deadline(t->path) <= now)
            path_tick(t->path, now);
        if (path_stale(t->path, now) && !t->has_advert) {
            talk_free(t);
            continue;
        }
        active = active || path_active(t->path, now);
        at = path_deadline(t->path);
        next = at < next ? at : next;
    }
    if (now >= m->full_at || ((active || called) && now >= m->check_at))
        check(m, now);
    at = active && m->check_at < m->full_at ? m->check_at : m->full_at;
    if (netcheck_running(m->netcheck))
        at = netcheck_deadline(m->netcheck);
    next = at < next ? at : next;
    m->ops->flush(m->ctx);
    derp_flush(m->derp);
    magic_wake(m, next);
}

/* ---- for the node ---- */

struct magic *
magic_new(const struct magic_config *c, const struct magic_ops *ops, void *ctx)
{
    struct magic *m = calloc(1, sizeof(*m));
    struct derp_config derp = {.node = c->node,
        .private_key = c->private_key,
        .trust = c->trust,
        .insecure = c->insecure,
        .ops = &derp_ops,
        .ctx = m};
    static const uint8_t zero[32];
    size_t more;

    if (m == NULL)
        return NULL;
    m->is = *c;
    m->ops = ops;
    m->ctx = ctx;
    m->timer_at = UINT64_MAX;
    m->joined = true;
    m->netinfo = (struct message_netinfo){.varies = -1,
        .working_ipv6 = -1,
        .os_ipv6 = -1,
        .working_udp = -1,
        .working_icmp4 = -1};
    if (memcmp(c->disco, zero, sizeof(zero)) == 0)
        talk_random(NULL, c->disco, 32);
    (void)box_public(m->disco_public, c->disco);
    (void)box_public(m->node_public, c->private_key);
    m->is.private_key = NULL;
    m->nbuckets = TALK_BUCKETS_MIN;
    m->buckets = calloc(m->nbuckets, sizeof(struct magic_peer *));
    m->derp = derp_new(&derp);
    m->netcheck = netcheck_new(&netcheck_ops, m);
    m->resolve = resolve_new(resolved, m);
    m->timer = loop_timer_new(tick, m);
    if (m->buckets == NULL || m->derp == NULL || m->netcheck == NULL ||
        m->resolve == NULL || m->timer == NULL) {
        magic_free(m);
        return NULL;
    }
    m->link = link_new(addresses_changed, m);
    if (m->link == NULL)
        say_warn("node \"%s\": changes of this machine's addresses will be "
                 "seen late: no netlink socket",
            c->node);
    m->naddrs = link_addrs(m->addrs, &more);
    if (more > 0)
        say_warn("node \"%s\": %zu of this machine's addresses are left out",
            c->node, more);
    return m;
}

void
magic_free(struct magic *m)
{
    if (m == NULL)
        return;
    while (m->talks != NULL)
        talk_free(m->talks);
    link_free(m->link);
    resolve_free(m->resolve);
    probe_free(m->probe);
    derp_free(m->derp);
    netcheck_free(m->netcheck);
    loop_timer_free(m->timer);
    free(m->buckets);
    free(m);
}

void
magic_key(struct magic *m, const uint8_t private_key[32])
{
    (void)box_public(m->node_public, private_key);
    m->rekeyed = true;
    derp_key(m->derp, private_key);
}

void
magic_map(struct magic *m, const struct netmap_derp *map)
{
    if (m->mapped && m->map == map)
        return;
    m->mapped = true;
    m->map = map;
    forget_probe(m);
    derp_map(m->derp, map);
    if (m->home == 0 && netmap_region(map, *m->is.home) != NULL)
        set_home(m, *m->is.home);
    if (!set_regions(m))
        return;
    /* Where there is no choice, nothing needs to be measured for it; and what
     * is known already is told at once. */
    if (m->home != 0 || (map != NULL && map->nregions == 1))
        choose_home(m, loop_now_us());
    update(m, NULL);
    m->full_at = 0;
    magic_check_soon(m);
}

void
magic_explicit(struct magic *m, const struct tn_endpoint *list, size_t n)
{
    endpoints_explicit(&m->endpoints, list, n);
    update(m, NULL);
}

void
magic_joined(struct magic *m, bool joined)
{
    m->joined = joined;
}

const uint8_t *
magic_disco(const struct magic *m)
{
    return m->disco_public;
}

const struct message_endpoint *
magic_endpoints(const struct magic *m, size_t *n)
{
    *n = m->endpoints.n;
    return m->endpoints.list;
}

const struct message_netinfo *
magic_netinfo(const struct magic *m)
{
    return &m->netinfo;
}

struct magic_way
magic_way(const struct magic *m, const struct magic_peer *p)
{
    struct magic_way w = {.state = PATH_IDLE};

    (void)m;
    if (p->talk == NULL)
        return w;
    w.region = talk_region(p->talk, loop_now_us());
    if (p->talk->path == NULL) {
        w.state = PATH_RELAY;
        return w;
    }
    w.state = path_state(p->talk->path);
    w.at = path_best(p->talk->path);
    w.latency_us = path_latency(p->talk->path);
    return w;
}

const struct magic_counters *
magic_counters(const struct magic *m)
{
    return &m->count;
}

size_t
magic_talks(const struct magic *m)
{
    return m->ntalks;
}

struct derp *
magic_derp(const struct magic *m)
{
    return m->derp;
}

#include "talk.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "../engine/say.h"

void
talk_random(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    /* Below 256 bytes getrandom() is never cut short once it is seeded. */
    while (getrandom(buf, len, 0) != (ssize_t)len)
        ;
}

bool
talk_take(struct talk_bucket *b, unsigned rate, uint64_t now)
{
    uint64_t second = now / PATH_S;

    if (b->second != second) {
        b->second = second;
        b->left = rate;
    }
    if (b->left == 0)
        return false;
    b->left--;
    return true;
}

/* ---- the relay ---- */

uint16_t
talk_region(const struct talk *t, uint64_t now)
{
    const struct magic *m = t->magic;
    uint16_t home = t->peer->row->home_derp, heard = t->region;

    if (heard != 0 && now - t->region_at > MAGIC_REGION_S * PATH_S)
        heard = 0;
    if (netmap_region(m->map, home) == NULL)
        home = 0;
    if (home == 0 || (heard != 0 && heard != home && derp_up(m->derp, heard) &&
                         !derp_up(m->derp, home)))
        return heard;
    return home;
}

/* ---- messages to the peer ---- */

static size_t
seal(const struct talk *t, uint8_t out[DISCO_MAX_LEN],
    const struct disco_msg *msg)
{
    uint8_t nonce[BOX_NONCE_LEN];

    talk_random(NULL, nonce, sizeof(nonce));
    return disco_seal(out, msg, t->shared, t->magic->disco_public, nonce);
}

static size_t
seal_ping(
    const struct talk *t, uint8_t out[DISCO_MAX_LEN], const uint8_t txid[12])
{
    struct disco_msg msg = {.type = DISCO_PING};

    memcpy(msg.txid, txid, sizeof(msg.txid));
    memcpy(msg.node_key, t->magic->node_public, sizeof(msg.node_key));
    return seal(t, out, &msg);
}

static bool
op_ping(void *ctx, const struct tn_endpoint *to, const uint8_t txid[12])
{
    struct talk *t = ctx;
    struct magic *m = t->magic;
    uint8_t out[DISCO_MAX_LEN];

    /* A relay's pseudo-address is nobody's candidate, whoever says so. */
    if (m->is.port[!tn_addr_is4(&to->addr)] == 0 || derp_region(to) != 0)
        return false;
    m->ops->send(m->ctx, to, out, seal_ping(t, out, txid));
    m->count.pings_sent++;
    return true;
}

bool
talk_ping(struct talk *t, const uint8_t txid[12], uint64_t now)
{
    struct magic *m = t->magic;
    struct path_route r;
    uint8_t out[DISCO_MAX_LEN];
    uint16_t region = talk_region(t, now);
    bool sent;

    if (t->path == NULL)
        return false;
    r = path_send(t->path, now);
    magic_wake(m, path_deadline(t->path));
    sent = r.udp.port != 0 && op_ping(t, &r.udp, txid);
    if (r.relay && region != 0) {
        derp_send(
            m->derp, region, t->peer->row->key, out, seal_ping(t, out, txid));
        m->count.pings_sent++;
        sent = true;
    }
    return sent;
}

void
talk_call(struct talk *t)
{
    struct magic *m = t->magic;
    struct disco_msg msg = {.type = DISCO_CALL_ME_MAYBE};
    uint16_t region = talk_region(t, loop_now_us());
    uint8_t out[DISCO_MAX_LEN];
    size_t i;

    t->wants_call = false;
    for (i = 0; i < m->endpoints.n && msg.nendpoints < DISCO_CALL_MAX; i++)
        msg.endpoints[msg.nendpoints++] = m->endpoints.list[i].at;
    if (region == 0 || msg.nendpoints == 0)
        return;
    derp_send(m->derp, region, t->peer->row->key, out, seal(t, out, &msg));
    m->count.calls_sent++;
}

static void
op_call(void *ctx)
{
    struct talk *t = ctx;
    struct magic *m = t->magic;

    /* Whoever is called to an address that is ours no more calls in vain. */
    if (m->stun_at != 0 &&
        loop_now_us() - m->stun_at < MAGIC_FRESH_S * PATH_S) {
        talk_call(t);
        return;
    }
    t->wants_call = true;
    magic_check_soon(m);
}

static const char *
name_of(const struct magic_peer *p)
{
    return p->row->name[0] != '\0' ? p->row->name : "without a name";
}

void
talk_moved(struct talk *t)
{
    struct magic *m = t->magic;
    struct tn_endpoint e = {0};
    char text[TN_ENDPOINT_STRLEN];
    uint16_t region;

    if (t->path != NULL)
        e = path_best(t->path);
    if (e.port == 0) {
        region = talk_region(t, loop_now_us());
        e = derp_endpoint(region);
    }
    if (e.port == 0 ||
        (e.port == t->moved.port && tn_addr_equal(&e.addr, &t->moved.addr)))
        return;
    t->moved = e;
    m->ops->moved(m->ctx, t->peer, &e);
    region = derp_region(&e);
    if (region != 0) {
        say_info("node \"%s\": peer %s is reached by the relay of region %u",
            m->is.node, name_of(t->peer), region);
        return;
    }
    tn_endpoint_format(&e, text);
    say_info("node \"%s\": peer %s is reached directly at %s", m->is.node,
        name_of(t->peer), text);
}

static void
op_changed(void *ctx)
{
    struct talk *t = ctx;

    if (path_state(t->path) != PATH_IDLE)
        talk_moved(t);
}

static const struct path_ops path_ops = {
    op_ping, op_call, talk_random, op_changed};

/* ---- its life ---- */

void
talk_free(struct talk *t)
{
    if (t == NULL)
        return;
    *t->at = t->next;
    if (t->next != NULL)
        t->next->at = t->at;
    t->magic->ntalks--;
    t->peer->talk = NULL;
    path_free(t->path);
    explicit_bzero(t->shared, sizeof(t->shared));
    free(t);
}

/* A key that makes no box (of low order) is as good as none. */
static bool
share(struct talk *t)
{
    memcpy(t->disco, t->peer->disco, sizeof(t->disco));
    return box_shared(t->shared, t->disco, t->magic->is.disco) == 0;
}

struct talk *
talk_get(struct magic *m, struct magic_peer *p)
{
    struct talk *t = p->talk;

    if (t != NULL)
        return t;
    t = calloc(1, sizeof(*t));
    if (t == NULL) {
        m->count.drop_memory++;
        return NULL;
    }
    t->magic = m;
    t->peer = p;
    if (p->disco != NULL && share(t)) {
        t->path = path_new(&path_ops, t);
        if (t->path == NULL) {
            m->count.drop_memory++;
            free(t);
            return NULL;
        }
        path_netmap(
            t->path, p->row->endpoints, p->row->nendpoints, loop_now_us());
    }
    t->at = &m->talks;
    t->next = m->talks;
    if (t->next != NULL)
        t->next->at = &t->next;
    m->talks = t;
    m->ntalks++;
    p->talk = t;
    return t;
}

void
talk_rekey(struct talk *t)
{
    const struct netmap_node *row = t->peer->row;
    bool has = t->peer->disco != NULL;

    if (!has || t->path == NULL || memcmp(t->peer->disco, t->disco, 32) != 0) {
        if (!has || !share(t)) {
            path_free(t->path);
            t->path = NULL;
        } else if (t->path != NULL) {
            path_forget(t->path);
        } else {
            t->path = path_new(&path_ops, t);
        }
    }
    if (t->path == NULL)
        return;
    path_netmap(t->path, row->endpoints, row->nendpoints, loop_now_us());
    magic_wake(t->magic, path_deadline(t->path));
}

/* ---- messages from peers ---- */

static struct magic_peer *
chain(const struct magic *m, const uint8_t disco[32])
{
    uint32_t h;

    if (m->nbuckets == 0)
        return NULL;
    memcpy(&h, disco, sizeof(h));
    return m->buckets[h & (m->nbuckets - 1)];
}

static bool
has_disco(const struct magic_peer *p, const uint8_t disco[32])
{
    return memcmp(p->disco, disco, 32) == 0;
}

/* The peer of disco key ${disco} that is ${node_key}; NULL for that: the only
 * one there is. */
static struct magic_peer *
find(const struct magic *m, const uint8_t disco[32], const uint8_t *node_key)
{
    struct magic_peer *p, *found = NULL;

    for (p = chain(m, disco); p != NULL; p = p->next) {
        if (!has_disco(p, disco))
            continue;
        if (node_key != NULL && memcmp(p->row->key, node_key, 32) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = p;
    }
    return found;
}

/* The shared key with ${disco}: of a talk, or made anew, not too often. */
static bool
shared_with(struct magic *m, const uint8_t disco[32], uint8_t shared[32])
{
    struct magic_peer *p;
    bool known = false;

    for (p = chain(m, disco); p != NULL; p = p->next) {
        if (!has_disco(p, disco))
            continue;
        known = true;
        if (p->talk == NULL || p->talk->path == NULL)
            continue;
        memcpy(shared, p->talk->shared, BOX_KEY_LEN);
        return true;
    }
    if (!known)
        m->count.drop_disco_unknown++;
    else if (!talk_take(&m->strangers, MAGIC_STRANGERS_S, loop_now_us()))
        m->count.drop_disco_flood++;
    else if (box_shared(shared, disco, m->is.disco) != 0)
        m->count.drop_disco_auth++;
    else
        return true;
    return false;
}

struct received {
    const uint8_t *disco;   /* sender's */
    const uint8_t *src_key; /* NULL: by UDP */
    struct tn_endpoint src;
    uint64_t now;
};

/* Who replays pings of old from forged sources does not use up the answers to
 * where the peer is. */
static void
answer(struct talk *t, const struct disco_msg *ping, const struct received *r)
{
    struct magic *m = t->magic;
    struct disco_msg pong = {.type = DISCO_PONG, .src = r->src};
    bool other = r->src_key != NULL || !path_proven(t->path, &r->src);
    uint8_t out[DISCO_MAX_LEN];
    size_t len;

    if (!talk_take(&t->pongs[other], MAGIC_PONGS_S, r->now)) {
        m->count.drop_pong_flood++;
        return;
    }
    memcpy(pong.txid, ping->txid, sizeof(pong.txid));
    len = seal(t, out, &pong);
    if (r->src_key != NULL)
        derp_send(m->derp, r->src.port, r->src_key, out, len);
    else
        m->ops->send(m->ctx, &r->src, out, len);
}

static void
take_ping(
    struct magic *m, const struct disco_msg *msg, const struct received *r)
{
    const uint8_t *key = msg->has_node_key ? msg->node_key : r->src_key;
    struct magic_peer *p = find(m, r->disco, key);
    struct talk *t;

    if (p == NULL ||
        (r->src_key != NULL && memcmp(p->row->key, r->src_key, 32) != 0)) {
        m->count.drop_disco_node++;
        return;
    }
    t = talk_get(m, p);
    if (t == NULL || t->path == NULL)
        return;
    m->count.disco_pings++;
    if (r->src_key != NULL) {
        t->region = r->src.port;
        t->region_at = r->now;
        answer(t, msg, r);
    } else if (path_pinged(t->path, &r->src, msg->txid, r->now)) {
        answer(t, msg, r);
    }
    magic_wake(m, path_deadline(t->path));
}

static void
take_pong(
    struct magic *m, const struct disco_msg *msg, const struct received *r)
{
    struct magic_peer *p;

    m->count.disco_pongs++;
    for (p = chain(m, r->disco); p != NULL; p = p->next) {
        if (!has_disco(p, r->disco) || p->talk == NULL || p->talk->path == NULL)
            continue;
        if (m->ops->pong(m->ctx, p, msg->txid, &r->src))
            return;
        if (r->src_key == NULL && path_pong(p->talk->path, msg->txid, r->now)) {
            magic_wake(m, path_deadline(p->talk->path));
            return;
        }
    }
    m->count.drop_pong_late++;
}

static void
take_call(
    struct magic *m, const struct disco_msg *msg, const struct received *r)
{
    struct magic_peer *p;
    struct talk *t;

    if (r->src_key == NULL) {
        m->count.drop_disco_flow++;
        return;
    }
    p = find(m, r->disco, r->src_key);
    if (p == NULL) {
        m->count.drop_disco_node++;
        return;
    }
    t = talk_get(m, p);
    if (t == NULL || t->path == NULL)
        return;
    m->count.disco_calls++;
    t->region = r->src.port;
    t->region_at = r->now;
    path_call(t->path, msg->endpoints, msg->nendpoints, r->now);
    magic_wake(m, path_deadline(t->path));
}

void
talk_disco(struct magic *m, const uint8_t *msg, size_t len,
    const struct tn_endpoint *src, const uint8_t *src_key)
{
    struct received r = {disco_sender(msg), src_key, *src, loop_now_us()};
    uint8_t shared[BOX_KEY_LEN];
    struct disco_msg in;
    int rc;

    if (!shared_with(m, r.disco, shared))
        return;
    rc = disco_open(&in, shared, msg, len);
    explicit_bzero(shared, sizeof(shared));
    if (rc != 0) {
        m->count.drop_disco_auth += rc == -1;
        m->count.drop_disco_malformed += rc == -2;
        return;
    }
    switch (in.type) {
    case DISCO_PING:
        take_ping(m, &in, &r);
        break;
    case DISCO_PONG:
        take_pong(m, &in, &r);
        break;
    case DISCO_CALL_ME_MAYBE:
        take_call(m, &in, &r);
        break;
    case DISCO_OTHER:
        break;
    }
}

/*
 * peer.c: see peer.h and the part "Peers" of device.h.
 */
#include "peer.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "../crypto/noise.h"
#include "state.h"

#define PEER_TABLE_MIN 64

int
peer_table_init(struct peer_table *t)
{
    t->count = 0;
    t->size = PEER_TABLE_MIN;
    t->buckets = calloc(t->size, sizeof(struct wg_peer *));
    return t->buckets != NULL ? 0 : -1;
}

void
peer_table_free(struct peer_table *t)
{
    free(t->buckets);
    t->buckets = NULL;
}

static struct wg_peer **
bucket_of(const struct peer_table *t, const uint8_t key[MSG_KEY_LEN])
{
    uint64_t h = noise_siphash(t->key, key, MSG_KEY_LEN);

    return &t->buckets[h & (t->size - 1)];
}

struct wg_peer *
peer_table_find(const struct peer_table *t, const uint8_t key[MSG_KEY_LEN])
{
    struct wg_peer *p = *bucket_of(t, key);

    while (p != NULL && memcmp(p->key, key, MSG_KEY_LEN) != 0)
        p = p->next_of_hash;
    return p;
}

/* Without memory for a larger table chains get longer. */
static void
grow_table(struct peer_table *t)
{
    struct wg_peer **old = t->buckets;
    size_t n = t->size;

    t->buckets = calloc(2 * n, sizeof(struct wg_peer *));
    if (t->buckets == NULL) {
        t->buckets = old;
        return;
    }
    t->size = 2 * n;
    for (size_t i = 0; i < n; i++) {
        while (old[i] != NULL) {
            struct wg_peer *p = old[i], **bucket = bucket_of(t, p->key);

            old[i] = p->next_of_hash;
            p->next_of_hash = *bucket;
            *bucket = p;
        }
    }
    free(old);
}

static void
table_add(struct peer_table *t, struct wg_peer *p)
{
    struct wg_peer **bucket;

    if (t->count >= t->size)
        grow_table(t);
    bucket = bucket_of(t, p->key);
    p->next_of_hash = *bucket;
    *bucket = p;
    t->count++;
}

static void
table_remove(struct peer_table *t, struct wg_peer *p)
{
    struct wg_peer **at = bucket_of(t, p->key);

    while (*at != p)
        at = &(*at)->next_of_hash;
    *at = p->next_of_hash;
    t->count--;
}

struct peer_session *
peer_session(struct wg_peer *p)
{
    struct peer_session *s = p->session;

    if (s == NULL) {
        s = calloc(1, sizeof(*s));
        if (s == NULL)
            return NULL;
        s->local.peer = p;
        s->local.kind = INDEX_HANDSHAKE;
        s->staged_end = &s->staged;
        p->session = s;
    }
    return s;
}

bool
peer_can_send(const struct wg_peer *p, uint64_t now)
{
    const struct peer_keypair *k = p->session != NULL ? p->session->current
                                                      : NULL;

    return k != NULL && now - k->since < p->device->timing.reject_after &&
           k->counter < MSG_REJECT_AFTER_MESSAGES;
}

void
peer_forget_handshake(struct wg_peer *p)
{
    if (p->session == NULL)
        return;
    index_remove(&p->device->indices, &p->session->local);
    noise_wipe(&p->session->handshake, sizeof(p->session->handshake));
}

void
peer_forget_keys(struct wg_peer *p)
{
    struct peer_session *s = p->session;

    if (s == NULL)
        return;
    peer_keypair_free(p, s->current);
    peer_keypair_free(p, s->previous);
    peer_keypair_free(p, s->next);
    s->current = s->previous = s->next = NULL;
}

void
peer_relax(struct wg_peer *p)
{
    struct peer_session *s = p->session;

    if (s == NULL || s->local.linked || s->current != NULL ||
        s->previous != NULL || s->next != NULL || s->staged != NULL)
        return;
    p->session = NULL;
    noise_wipe(s, sizeof(*s));
    free(s);
}

struct peer_keypair *
peer_keypair_new(struct wg_peer *p, const struct handshake_keys *keys,
    bool initiator, uint32_t remote, uint64_t now)
{
    struct peer_keypair *k = calloc(1, sizeof(*k));

    if (k == NULL)
        return NULL;
    k->local.peer = p;
    k->local.kind = INDEX_KEYPAIR;
    k->remote = remote;
    k->initiator = initiator;
    k->since = now;
    k->send = aead_new(keys->send, AEAD_SEAL);
    k->receive = aead_new(keys->receive, AEAD_OPEN);
    if (k->send == NULL || k->receive == NULL) {
        peer_keypair_free(p, k);
        return NULL;
    }
    return k;
}

void
peer_keypair_free(struct wg_peer *p, struct peer_keypair *k)
{
    if (k == NULL)
        return;
    index_remove(&p->device->indices, &k->local);
    aead_free(k->send);
    aead_free(k->receive);
    free(k);
}

void
peer_keypair_install(struct wg_peer *p, struct peer_keypair *k, uint32_t index)
{
    struct peer_session *s = p->session;

    index_add(&p->device->indices, &k->local, index);
    if (!k->initiator) {
        peer_keypair_free(p, s->next);
        peer_keypair_free(p, s->previous);
        s->previous = NULL;
        s->next = k;
        return;
    }
    /* The response confirmed it.  An unconfirmed pair of the other direction
     * may still be taken into use by the remote: it is the one to keep. */
    peer_keypair_free(p, s->previous);
    s->previous = s->current;
    if (s->next != NULL) {
        peer_keypair_free(p, s->current);
        s->previous = s->next;
        s->next = NULL;
    }
    s->current = k;
}

bool
peer_keypair_used(struct wg_peer *p, struct peer_keypair *k)
{
    struct peer_session *s = p->session;

    if (k != s->next)
        return false;
    peer_keypair_free(p, s->previous);
    s->previous = s->current;
    s->current = k;
    s->next = NULL;
    return true;
}

static void
drop(struct wg_peer *p, struct peer_staged *packet)
{
    free(packet);
    p->device->counters.drop_staged++;
}

struct peer_staged *
peer_unstage(struct wg_peer *p)
{
    struct peer_session *s = p->session;
    struct peer_staged *first = s != NULL ? s->staged : NULL;

    if (first == NULL)
        return NULL;
    s->staged = first->next;
    if (s->staged == NULL)
        s->staged_end = &s->staged;
    s->staged_count--;
    p->device->staged--;
    return first;
}

void
peer_stage(struct wg_peer *p, const uint8_t *packet, size_t len)
{
    struct peer_session *s = peer_session(p);
    struct peer_staged *one = NULL;

    if (s != NULL && s->staged_count == PEER_STAGED_MAX)
        drop(p, peer_unstage(p));
    if (s != NULL && p->device->staged < STATE_STAGED_MAX)
        one = malloc(sizeof(*one) + WG_HEADROOM + len + WG_TAILROOM);
    if (one == NULL) {
        p->device->counters.drop_staged++;
        return;
    }
    one->next = NULL;
    one->len = len;
    memcpy(one->room + WG_HEADROOM, packet, len);
    *s->staged_end = one;
    s->staged_end = &one->next;
    s->staged_count++;
    p->device->staged++;
}

void
peer_drop_staged(struct wg_peer *p)
{
    struct peer_staged *one;

    while ((one = peer_unstage(p)) != NULL)
        drop(p, one);
}

static void
end_sessions(struct wg_peer *p)
{
    peer_forget_handshake(p);
    peer_forget_keys(p);
}

struct wg_peer *
wg_peer_add(
    struct wg_device *d, const uint8_t key[32], void *data, uint64_t now)
{
    struct wg_peer *p = peer_table_find(&d->peers, key);
    static const uint8_t none[MSG_KEY_LEN];

    (void)now; /* a new peer has nothing to wait for */
    if (p != NULL)
        return p;
    if (memcmp(key, d->identity.public_key, MSG_KEY_LEN) == 0)
        return NULL;
    if (timers_queue_reserve(&d->timers, d->peers.count + 1) == -1)
        return NULL;
    p = calloc(1, sizeof(*p));
    if (p == NULL)
        return NULL;
    p->device = d;
    p->data = data;
    memcpy(p->key, key, sizeof(p->key));
    p->nobody = memcmp(key, none, sizeof(none)) == 0;
    timers_init(&p->timers);
    table_add(&d->peers, p);
    return p;
}

void
wg_peer_remove(struct wg_device *d, struct wg_peer *p)
{
    end_sessions(p);
    peer_drop_staged(p);
    peer_relax(p);
    timers_stop(&d->timers, &p->timers);
    allowedips_remove(&d->routes, &p->allowed);
    table_remove(&d->peers, p);
    /* Should it come back, the remote still knows our last timestamp. */
    if (memcmp(p->tai64n_sent, d->tai64n_floor, MSG_TAI64N_LEN) > 0)
        memcpy(d->tai64n_floor, p->tai64n_sent, MSG_TAI64N_LEN);
    noise_wipe(p, sizeof(*p));
    free(p);
}

struct wg_peer *
wg_peer_by_key(struct wg_device *d, const uint8_t key[32])
{
    return peer_table_find(&d->peers, key);
}

void *
wg_peer_data(const struct wg_peer *p)
{
    return p->data;
}

void
wg_peer_set_data(struct wg_peer *p, void *data)
{
    p->data = data;
}

const uint8_t *
wg_peer_key(const struct wg_peer *p)
{
    return p->key;
}

void
wg_peer_set_psk(struct wg_peer *p, const uint8_t psk[32])
{
    static const uint8_t none[MSG_KEY_LEN];

    if (psk == NULL)
        psk = none;
    if (noise_equal(p->psk, psk, sizeof(p->psk)))
        return;
    memcpy(p->psk, psk, sizeof(p->psk));
    end_sessions(p);
    peer_relax(p);
}

void
wg_peer_set_endpoint(struct wg_peer *p, const struct tn_endpoint *e)
{
    p->endpoint = *e;
}

struct tn_endpoint
wg_peer_endpoint(const struct wg_peer *p)
{
    return p->endpoint;
}

void
wg_peer_stats(const struct wg_peer *p, struct wg_peer_stats *s)
{
    *s = p->stats;
}

int
wg_peer_set_allowed_ips(struct wg_device *d, struct wg_peer *p,
    const struct tn_prefix *prefixes, size_t n)
{
    return allowedips_replace(&d->routes, &p->allowed, prefixes, n);
}

int
wg_peer_add_allowed_ips(struct wg_device *d, struct wg_peer *p,
    const struct tn_prefix *prefixes, size_t n)
{
    return allowedips_add(&d->routes, &p->allowed, prefixes, n);
}

void
wg_peer_drop_allowed_ips(struct wg_device *d, struct wg_peer *p,
    const struct tn_prefix *prefixes, size_t n)
{
    allowedips_drop(&d->routes, &p->allowed, prefixes, n);
}

struct wg_peer *
wg_route(const struct wg_device *d, const struct tn_addr *a)
{
    struct allowedips_owner *o = allowedips_lookup(&d->routes, a);

    return o == NULL ? NULL
                     : (struct wg_peer *)((char *)o -
                                          offsetof(struct wg_peer, allowed));
}


/*
 * Who is at the other end of a connection.
 *
 * At accept, before anything is read, a connection of a mesh listener is bound
 * to the listener's node and to the source address as the kernel tells it:
 * what nginx makes of c->sockaddr later (realip, PROXY protocol) changes
 * nothing.  The peer behind the address is looked up in the current snapshot
 * when somebody asks, and copied: an old snapshot is unmapped at once, however
 * long a request lasts.  A connection keeps the copy for its next requests, as
 * long as the snapshot is the same and no key expires.
 *
 * When a snapshot changes, the verdicts that let live traffic through are
 * asked again, a batch in each iteration of the event loop, and connections
 * whose rights are gone are ended by shutting their sockets down, which nginx
 * sees through its own handlers.  The same happens at the second in which a key
 * expires, whether or not tailnetd is there to say so.
 */


#include "ngx_tailnet.h"

#if (NGX_QUIC)
#include <ngx_event_quic.h>
#endif


#define NGX_TAILNET_RECHECK_BATCH  256      /* connections per iteration */
#define NGX_TAILNET_REASON_MAX     512
#define NGX_TAILNET_EXPIRY_MAX     3600     /* s: wall time may be set */
#define NGX_TAILNET_WHO_POOL       2048     /* bytes, for most of them */


static void ngx_tailnet_identity_cleanup(void *data);
static ngx_tailnet_identity_t *ngx_tailnet_identity_find(
    ngx_connection_t *c);
static ngx_tailnet_noinline ngx_tailnet_who_t *ngx_tailnet_identity_renew(
    ngx_tailnet_identity_t *id);
static ngx_tailnet_noinline ngx_tailnet_who_t *ngx_tailnet_identity_without(
    ngx_connection_t *c, ngx_pool_t *pool);
static void ngx_tailnet_identity_forget(ngx_tailnet_identity_t *id);
static void ngx_tailnet_identity_lookup(ngx_uint_t node,
    const struct tn_addr *addr, ngx_tailnet_look_t *look);
static ngx_int_t ngx_tailnet_identity_copy(ngx_tailnet_look_t *look,
    ngx_tailnet_who_t *who);
static time_t ngx_tailnet_identity_until(ngx_tailnet_look_t *look);
static void ngx_tailnet_identity_arm(time_t until);
static void ngx_tailnet_identity_expiry_handler(ngx_event_t *ev);
static ngx_int_t ngx_tailnet_identity_copy_peer(ngx_tailnet_look_t *look,
    ngx_tailnet_who_t *who);
static ngx_int_t ngx_tailnet_identity_copy_self(ngx_tailnet_look_t *look,
    ngx_tailnet_who_t *who);
static ngx_int_t ngx_tailnet_identity_string(ngx_pool_t *pool,
    ngx_str_t *dst, struct tn_str *src);
static ngx_int_t ngx_tailnet_identity_address(ngx_pool_t *pool,
    ngx_str_t *dst, const struct tn_addr *addr);
static ngx_int_t ngx_tailnet_identity_key(ngx_tailnet_look_t *look,
    ngx_tailnet_who_t *who);
static struct tn_str ngx_tailnet_identity_name(const struct tn_peer *peer);
static void ngx_tailnet_identity_recheck_handler(ngx_event_t *ev);
static void ngx_tailnet_identity_recheck_one(ngx_tailnet_identity_t *id);
static ngx_int_t ngx_tailnet_identity_recheck_verdict(
    ngx_tailnet_identity_t *id, ngx_tailnet_verdict_t *v,
    ngx_tailnet_look_t *look);
static void ngx_tailnet_identity_close(ngx_tailnet_identity_t *id);


static ngx_queue_t          ngx_tailnet_identities;
static ngx_event_t          ngx_tailnet_recheck;
static ngx_event_t          ngx_tailnet_expiry;
static time_t               ngx_tailnet_expiry_at;
static ngx_tailnet_node_t  *ngx_tailnet_identity_nodes;

ngx_uint_t                  ngx_tailnet_round;


void
ngx_tailnet_identity_init(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    ngx_queue_init(&ngx_tailnet_identities);

    ngx_tailnet_identity_nodes = tcf->nodes.elts;

    ngx_tailnet_recheck.handler = ngx_tailnet_identity_recheck_handler;
    ngx_tailnet_recheck.data = &ngx_tailnet_recheck;
    ngx_tailnet_recheck.log = cycle->log;

    ngx_tailnet_expiry.handler = ngx_tailnet_identity_expiry_handler;
    ngx_tailnet_expiry.data = &ngx_tailnet_expiry;
    ngx_tailnet_expiry.log = cycle->log;
    ngx_tailnet_expiry.cancelable = 1;
}


/*
 * A connection that could not be bound is served, but nobody: it is of a mesh
 * listener and has no identity, which is what an unknown peer has.
 */

void
ngx_tailnet_identity_bind(ngx_connection_t *c, ngx_tailnet_listen_t *l)
{
    uint64_t                 cookie;
    ngx_socket_t             fd;
    struct tn_addr           addr;
    ngx_pool_cleanup_t      *cln;
    ngx_tailnet_identity_t  *id;

    /* a datagram has no socket of its own */

    fd = (l->type == SOCK_STREAM) ? c->fd : l->fd;

    if (ngx_tailnet_listen_cookie(fd, &cookie) != NGX_OK
        || cookie != ngx_tailnet_identity_nodes[l->node].cookie)
    {
        ngx_log_error(NGX_LOG_ALERT, c->log, 0,
                      "tailnet: a connection of a foreign network namespace, "
                      "it gets no identity");
        return;
    }

    if (tn_addr_from_sockaddr(c->sockaddr, &addr, NULL) == -1) {
        return;
    }

    cln = ngx_pool_cleanup_add(c->pool, sizeof(ngx_tailnet_identity_t));
    if (cln == NULL) {
        return;
    }

    id = cln->data;

    id->connection = c;
    id->node = l->node;
    id->addr = addr;
    id->round = ngx_tailnet_round;
    id->who = NULL;
    id->kept = NULL;
    id->data = NULL;
    id->closed = 0;

    ngx_queue_init(&id->verdicts);
    ngx_queue_insert_tail(&ngx_tailnet_identities, &id->queue);

    cln->handler = ngx_tailnet_identity_cleanup;
}


static void
ngx_tailnet_identity_cleanup(void *data)
{
    ngx_tailnet_identity_t *id = data;

    ngx_queue_t  *q;

    while (!ngx_queue_empty(&id->verdicts)) {
        q = ngx_queue_head(&id->verdicts);
        ngx_tailnet_verdict_remove(ngx_queue_data(q, ngx_tailnet_verdict_t,
                                                  queue));
    }

    ngx_queue_remove(&id->queue);
    ngx_tailnet_identity_forget(id);
}


ngx_tailnet_identity_t *
ngx_tailnet_identity_get(ngx_connection_t *c)
{
    ngx_tailnet_identity_t  *id;

    id = ngx_tailnet_identity_find(c);

#if (NGX_QUIC)

    if (id == NULL && c->quic) {
        id = ngx_tailnet_identity_find(c->quic->parent);
    }

#endif

    return id;
}


static ngx_tailnet_identity_t *
ngx_tailnet_identity_find(ngx_connection_t *c)
{
    ngx_pool_cleanup_t  *cln;

    /* streams of HTTP/2 have connections of their own, but the same pool */

    for (cln = c->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_tailnet_identity_cleanup) {
            return cln->data;
        }
    }

    return NULL;
}


void
ngx_tailnet_identity_look(ngx_connection_t *c, ngx_tailnet_look_t *look)
{
    ngx_tailnet_listen_t    *l;
    ngx_tailnet_identity_t  *id;

    id = ngx_tailnet_identity_get(c);

    if (id) {
        ngx_tailnet_identity_lookup(id->node, &id->addr, look);
        return;
    }

    ngx_memzero(look, sizeof(ngx_tailnet_look_t));

    l = ngx_tailnet_listen_find(c->listening);

    if (l) {
        look->state = NGX_TAILNET_WHO_UNKNOWN;
        look->who.node.p =
                     (char *) ngx_tailnet_identity_nodes[l->node].name.data;
        look->who.node.len = ngx_tailnet_identity_nodes[l->node].name.len;
        return;
    }

    look->state = NGX_TAILNET_WHO_LOCAL;
    look->who.local = true;
    (void) tn_addr_from_sockaddr(c->sockaddr, &look->who.addr, NULL);
}


static void
ngx_tailnet_identity_lookup(ngx_uint_t node, const struct tn_addr *addr,
    ngx_tailnet_look_t *look)
{
    bool             bad;
    int64_t          now;
    ngx_str_t       *name;
    struct tn_snap  *snap;

    ngx_memzero(look, sizeof(ngx_tailnet_look_t));

    name = &ngx_tailnet_identity_nodes[node].name;

    look->who.addr = *addr;
    look->who.node.p = (char *) name->data;
    look->who.node.len = name->len;

    snap = ngx_tailnet_worker_snap(node);

    if (snap == NULL) {
        look->state = NGX_TAILNET_WHO_NO_SNAPSHOT;
        return;
    }

    look->snap = snap;
    now = (int64_t) ngx_time();
    bad = false;

    if (tn_snap_self(snap, &look->self, &bad) == 0) {
        look->has_self = 1;
        look->who.self_user = look->self.user_id;
    }

    if (tn_snap_whois(snap, addr, &look->peer, &bad) == 0) {
        look->known = 1;
    }

    if (bad) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "tailnet: snapshot %uL of node \"%V\" has a bad record",
                      snap->head.generation, name);
        look->known = 0;
    }

    if ((snap->head.self_expiry && snap->head.self_expiry <= now)
        || (look->has_self && (look->self.flags & TN_PEER_EXPIRED)))
    {
        look->state = NGX_TAILNET_WHO_SELF_EXPIRED;
        return;
    }

    if (!look->known) {
        look->state = NGX_TAILNET_WHO_UNKNOWN;
        return;
    }

    if ((look->peer.flags & TN_PEER_EXPIRED)
        || (look->peer.key_expiry && look->peer.key_expiry <= now))
    {
        look->state = NGX_TAILNET_WHO_EXPIRED;
        return;
    }

    look->state = NGX_TAILNET_WHO_PEER;
    look->who.peer = &look->peer;
}


ngx_tailnet_who_t *
ngx_tailnet_identity_who(ngx_connection_t *c, ngx_tailnet_identity_t *id,
    ngx_pool_t *pool)
{
    ngx_tailnet_who_t  *who;

    if (id == NULL) {
        return ngx_tailnet_identity_without(c, pool);
    }

    who = id->who;

    if (who == NULL || !ngx_tailnet_who_current(who)) {
        who = ngx_tailnet_identity_renew(id);
        if (who == NULL) {
            return NULL;
        }
    }

    who->refs++;

    return who;
}


static ngx_tailnet_who_t *
ngx_tailnet_identity_without(ngx_connection_t *c, ngx_pool_t *pool)
{
    ngx_tailnet_who_t   *who;
    ngx_tailnet_look_t   look;

    who = ngx_pcalloc(pool, sizeof(ngx_tailnet_who_t));
    if (who == NULL) {
        return NULL;
    }

    who->pool = pool;

    ngx_tailnet_identity_look(c, &look);

    return (ngx_tailnet_identity_copy(&look, who) == NGX_OK) ? who : NULL;
}


static ngx_tailnet_who_t *
ngx_tailnet_identity_renew(ngx_tailnet_identity_t *id)
{
    ngx_pool_t          *pool;
    ngx_tailnet_who_t   *who;
    ngx_tailnet_look_t   look;

    ngx_tailnet_identity_forget(id);

    pool = ngx_create_pool(NGX_TAILNET_WHO_POOL, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    who = ngx_pcalloc(pool, sizeof(ngx_tailnet_who_t));
    if (who == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    who->pool = pool;
    who->refs = 1;

    ngx_tailnet_identity_lookup(id->node, &id->addr, &look);

    if (ngx_tailnet_identity_copy(&look, who) != NGX_OK) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    id->who = who;

    return who;
}


static void
ngx_tailnet_identity_forget(ngx_tailnet_identity_t *id)
{
    if (id->who) {
        ngx_tailnet_who_release(id->who);
        id->who = NULL;
    }
}


/* where there is no room the oldest note goes */

ngx_tailnet_note_t *
ngx_tailnet_who_remember(ngx_tailnet_who_t *who, void *key, uintptr_t value)
{
    ngx_tailnet_note_t  *note;

    note = &who->notes[who->nnotes++ % NGX_TAILNET_NOTES];

    note->key = key;
    note->value = value;
    note->stamp = 0;

    return note;
}


static ngx_int_t
ngx_tailnet_identity_copy(ngx_tailnet_look_t *look, ngx_tailnet_who_t *who)
{
    struct tn_str  domain;

    who->state = look->state;
    who->round = ngx_tailnet_round;
    who->until = ngx_tailnet_identity_until(look);
    ngx_tailnet_identity_arm(who->until);
    who->who = look->who;
    who->who.peer = NULL;
    who->known = look->known;

    if (look->snap) {
        domain = tn_snap_domain(look->snap);

        if (ngx_tailnet_identity_string(who->pool, &who->domain, &domain)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (look->has_self
        && ngx_tailnet_identity_copy_self(look, who) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (look->known) {
        return ngx_tailnet_identity_copy_peer(look, who);
    }

    return NGX_OK;
}


/* when the same snapshot says something else */

static time_t
ngx_tailnet_identity_until(ngx_tailnet_look_t *look)
{
    time_t   now, until;
    int64_t  expiry[2];

    expiry[0] = look->snap ? look->snap->head.self_expiry : 0;
    expiry[1] = look->known ? look->peer.key_expiry : 0;

    now = ngx_time();
    until = 0;

    if (expiry[0] > (int64_t) now) {
        until = (time_t) expiry[0];
    }

    if (expiry[1] > (int64_t) now
        && (until == 0 || (time_t) expiry[1] < until))
    {
        until = (time_t) expiry[1];
    }

    return until;
}


/* for the first key that expires; one that was renewed costs a round */

static void
ngx_tailnet_identity_arm(time_t until)
{
    time_t       left;
    ngx_time_t  *tp;

    if (until == 0
        || (ngx_tailnet_expiry.timer_set && ngx_tailnet_expiry_at <= until))
    {
        return;
    }

    if (ngx_tailnet_expiry.timer_set) {
        ngx_del_timer(&ngx_tailnet_expiry);
    }

    tp = ngx_timeofday();
    left = ngx_min(until - tp->sec, NGX_TAILNET_EXPIRY_MAX);

    ngx_tailnet_expiry_at = until;
    ngx_add_timer(&ngx_tailnet_expiry, (ngx_msec_t) left * 1000 - tp->msec);
}


static void
ngx_tailnet_identity_expiry_handler(ngx_event_t *ev)
{
    ngx_tailnet_identity_recheck();
}


static ngx_int_t
ngx_tailnet_identity_copy_peer(ngx_tailnet_look_t *look,
    ngx_tailnet_who_t *who)
{
    u_char          *key;
    ngx_pool_t      *pool;
    struct tn_peer  *peer;

    pool = who->pool;
    who->peer = look->peer;
    peer = &who->peer;

    key = ngx_pnalloc(pool, 32);
    if (key == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(key, peer->key, 32);
    peer->key = key;

    if (ngx_tailnet_identity_string(pool, &who->node_name, &peer->name)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->host, &peer->host)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->node_id, &peer->stable_id)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->tags, &peer->tags)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->caps, &peer->caps)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->user, &peer->login)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->user_name,
                                       &peer->user_name)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->user_pic, &peer->user_pic)
           != NGX_OK
        || ngx_tailnet_identity_address(pool, &who->ip, &look->who.addr)
           != NGX_OK
        || ngx_tailnet_identity_key(look, who) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (look->who.peer) {
        who->who.peer = peer;
    }

    return NGX_OK;
}


/* the node's own address is the one of the family that the client uses */

static ngx_int_t
ngx_tailnet_identity_copy_self(ngx_tailnet_look_t *look,
    ngx_tailnet_who_t *who)
{
    uint16_t         i;
    ngx_pool_t      *pool;
    struct tn_peer  *self;

    pool = who->pool;
    self = &look->self;

    if (ngx_tailnet_identity_string(pool, &who->self_name, &self->name)
           != NGX_OK
        || ngx_tailnet_identity_string(pool, &who->self_host, &self->host)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < self->naddrs; i++) {
        if (tn_addr_is4(&self->addrs[i]) == tn_addr_is4(&look->who.addr)) {
            return ngx_tailnet_identity_address(pool, &who->self_ip,
                                                &self->addrs[i]);
        }
    }

    if (self->naddrs) {
        return ngx_tailnet_identity_address(pool, &who->self_ip,
                                            &self->addrs[0]);
    }

    return NGX_OK;
}


/* a copy for both, the string of nginx and the view of the selectors */

static ngx_int_t
ngx_tailnet_identity_string(ngx_pool_t *pool, ngx_str_t *dst,
    struct tn_str *src)
{
    dst->len = src->len;

    if (src->len) {
        dst->data = ngx_pnalloc(pool, src->len);
        if (dst->data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(dst->data, src->p, src->len);

    } else {
        dst->data = (u_char *) "";
    }

    src->p = (char *) dst->data;

    return NGX_OK;
}


static ngx_int_t
ngx_tailnet_identity_address(ngx_pool_t *pool, ngx_str_t *dst,
    const struct tn_addr *addr)
{
    dst->data = ngx_pnalloc(pool, TN_ADDR_STRLEN);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    dst->len = tn_addr_format(addr, (char *) dst->data);

    return NGX_OK;
}


/*
 * $tailnet_identity, one line that says who and of which tailnet, the same
 * for all devices of a person and over restarts:
 *
 *     WHO "/" TAILNET "/" DOMAIN
 *
 * WHO is the login, the tags of a tagged node joined by ",", or the name of a
 * node that has neither.  TAILNET is the display name; two tailnets may have
 * the same, so DOMAIN, the MagicDNS suffix, follows.  Where the netmap says
 * nothing the name of the tailnet_node stands in.
 */

static ngx_int_t
ngx_tailnet_identity_key(ngx_tailnet_look_t *look, ngx_tailnet_who_t *who)
{
    u_char         *p;
    size_t          len;
    struct tn_str   name, tailnet, domain;

    name = ngx_tailnet_identity_name(&who->peer);
    tailnet = tn_snap_tailnet(look->snap);
    domain = tn_snap_domain(look->snap);

    if (tailnet.len == 0) {
        tailnet = look->who.node;
    }

    if (domain.len == 0) {
        domain = look->who.node;
    }

    len = name.len + 1 + tailnet.len + 1 + domain.len;

    p = ngx_pnalloc(who->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    who->identity.len = len;
    who->identity.data = p;

    p = ngx_cpymem(p, name.p, name.len);
    *p++ = '/';
    p = ngx_cpymem(p, tailnet.p, tailnet.len);
    *p++ = '/';
    (void) ngx_cpymem(p, domain.p, domain.len);

    return NGX_OK;
}


static struct tn_str
ngx_tailnet_identity_name(const struct tn_peer *peer)
{
    if ((peer->flags & TN_PEER_TAGGED) && peer->tags.len) {
        return peer->tags;
    }

    if (peer->login.len) {
        return peer->login;
    }

    return peer->name.len ? peer->name : peer->stable_id;
}


/* for logs: "alice@example.com" (laptop.example.ts.net, 100.64.0.3) */

u_char *
ngx_tailnet_identity_text(u_char *buf, u_char *last, ngx_tailnet_who_e state,
    const struct tn_who *who, const struct tn_peer *peer)
{
    char           addr[TN_ADDR_STRLEN];
    u_char        *p, *start;
    struct tn_str  name;

    (void) tn_addr_format(&who->addr, addr);

    if (peer == NULL) {
        return ngx_slprintf(buf, last, "%s %s",
                            state == NGX_TAILNET_WHO_LOCAL
                                ? "client outside of any tailnet,"
                                : "unknown peer", addr);
    }

    name = ngx_tailnet_identity_name(peer);

    start = buf;
    buf = ngx_slprintf(buf, last, "\"%*s\" (%*s, %s)", name.len, name.p,
                       peer->name.len, peer->name.p, addr);

    /* names are somebody's choice and must not make lines of their own */

    for (p = start; p < buf; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }

    return buf;
}


void
ngx_tailnet_identity_recheck(void)
{
    ngx_tailnet_round++;

    if (!ngx_tailnet_recheck.posted) {
        ngx_post_event(&ngx_tailnet_recheck, &ngx_posted_next_events);
    }
}


/* the queue has what this round has not seen in front */

static void
ngx_tailnet_identity_recheck_handler(ngx_event_t *ev)
{
    ngx_uint_t               n;
    ngx_queue_t             *q;
    ngx_tailnet_identity_t  *id;

    for (n = 0; n < NGX_TAILNET_RECHECK_BATCH; n++) {

        if (ngx_queue_empty(&ngx_tailnet_identities)) {
            return;
        }

        q = ngx_queue_head(&ngx_tailnet_identities);
        id = ngx_queue_data(q, ngx_tailnet_identity_t, queue);

        if (id->round == ngx_tailnet_round) {
            return;
        }

        id->round = ngx_tailnet_round;

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&ngx_tailnet_identities, q);

        ngx_tailnet_identity_forget(id);

        if (!id->closed && (id->kept || !ngx_queue_empty(&id->verdicts))) {
            ngx_tailnet_identity_recheck_one(id);
        }
    }

    ngx_post_event(ev, &ngx_posted_next_events);
}


static void
ngx_tailnet_identity_recheck_one(ngx_tailnet_identity_t *id)
{
    ngx_queue_t            *q;
    ngx_tailnet_look_t      look;
    ngx_tailnet_verdict_t  *v;

    ngx_tailnet_identity_lookup(id->node, &id->addr, &look);
    ngx_tailnet_identity_arm(ngx_tailnet_identity_until(&look));

    for (q = ngx_queue_head(&id->verdicts);
         q != ngx_queue_sentinel(&id->verdicts);
         q = ngx_queue_next(q))
    {
        v = ngx_queue_data(q, ngx_tailnet_verdict_t, queue);

        if (ngx_tailnet_identity_recheck_verdict(id, v, &look) != NGX_OK) {
            return;
        }
    }

    if (id->kept && id->connection->reusable) {
        (void) ngx_tailnet_identity_recheck_verdict(id, id->kept, &look);
    }
}


static ngx_int_t
ngx_tailnet_identity_recheck_verdict(ngx_tailnet_identity_t *id,
    ngx_tailnet_verdict_t *v, ngx_tailnet_look_t *look)
{
    u_char     buf[NGX_TAILNET_REASON_MAX];
    ngx_str_t  reason;

    reason.data = buf;
    reason.len = sizeof(buf);

    if (v->handler(v, look, &reason) == NGX_OK) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ERR, id->connection->log, 0,
                  "tailnet: closed the connection of %V", &reason);

    ngx_tailnet_identity_close(id);

    return NGX_DECLINED;
}


static void
ngx_tailnet_identity_close(ngx_tailnet_identity_t *id)
{
    struct linger      linger;
    ngx_connection_t  *c;

    id->closed = 1;
    c = id->connection;

#if (NGX_QUIC)

    /* streams are bound each, since the address can migrate; they end with
       the connection that is their parent and has no socket of its own */

    if (c->listening->quic) {
        ngx_quic_finalize_connection(c->quic ? c->quic->parent : c, 0,
                                     "access is gone");
        return;
    }

#endif

    if (c->fd == (ngx_socket_t) -1 || c->shared) {
        return;
    }

    /* what is queued already must not go out any more */

    linger.l_onoff = 1;
    linger.l_linger = 0;

    (void) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));

    if (shutdown(c->fd, SHUT_RDWR) == -1) {
        ngx_log_error(NGX_LOG_INFO, c->log, ngx_socket_errno,
                      "tailnet: shutdown() failed");
    }
}

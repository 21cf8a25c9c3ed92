
/*
 * The peers that the servers of an upstream stand for.
 *
 * Each worker keeps a set for each upstream that has a tailnet_server and
 * makes it anew when a snapshot has changed; failures, connections under way
 * and sessions move to the next set.  A name with variables is looked up for
 * each request, in a set of the request's own.
 *
 * Mesh addresses carry the number of their node (see ngx_tailnet.h): it tells
 * the outermost get handler that the connection is to be made in that node's
 * namespace, and keeps "keepalive" from giving a connection of one tailnet to
 * a request for another.
 */


#include "ngx_http_tailnet_upstream.h"


#define NGX_HTTP_TAILNET_PEERS_MAX  1024    /* of one line; the rest is left
                                               out with a line in the log */


/* where the peers of one set are made */

typedef struct {
    ngx_pool_t                      *pool;
    ngx_http_request_t              *request;
    ngx_http_tailnet_upstream_conf_t  *ucf;
    ngx_http_upstream_srv_conf_t    *uscf;
    ngx_http_upstream_rr_peers_t    *group[2];  /* primary, backup */
    ngx_http_upstream_rr_peer_t    **tail[2];
    ngx_uint_t                       offline;   /* nodes are used, too */
} ngx_http_tailnet_build_t;


static ngx_http_tailnet_set_t *ngx_http_tailnet_upstream_build(
    ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us,
    ngx_http_tailnet_upstream_conf_t *ucf, ngx_pool_t *pool);
static ngx_int_t ngx_http_tailnet_upstream_build_servers(
    ngx_http_tailnet_build_t *b);
static ngx_int_t ngx_http_tailnet_upstream_build_server(
    ngx_http_tailnet_build_t *b, ngx_http_upstream_server_t *server);
static ngx_int_t ngx_http_tailnet_upstream_build_mesh(
    ngx_http_tailnet_build_t *b, ngx_http_tailnet_server_t *ts,
    ngx_http_upstream_server_t *server);
static ngx_int_t ngx_http_tailnet_upstream_build_name(
    ngx_http_tailnet_build_t *b, ngx_http_tailnet_server_t *ts,
    ngx_http_upstream_server_t *server, struct tn_snap *snap,
    ngx_str_t *name, const char **why);
static ngx_int_t ngx_http_tailnet_upstream_via(struct tn_snap *snap,
    ngx_str_t *name, struct tn_addr *addr);
static ngx_int_t ngx_http_tailnet_upstream_build_tag(
    ngx_http_tailnet_build_t *b, ngx_http_tailnet_server_t *ts,
    ngx_http_upstream_server_t *server, struct tn_snap *snap,
    const char **why);
static ngx_int_t ngx_http_tailnet_upstream_build_node(
    ngx_http_tailnet_build_t *b, ngx_http_tailnet_server_t *ts,
    ngx_http_upstream_server_t *server, struct tn_snap *snap,
    struct tn_peer *node, ngx_uint_t beyond, const char **why);
static struct tn_addr *ngx_http_tailnet_upstream_address(
    struct tn_snap *snap, struct tn_peer *node);
static void ngx_http_tailnet_upstream_say(ngx_http_tailnet_build_t *b,
    ngx_http_tailnet_server_t *ts, ngx_str_t *name, const char *why);
static ngx_http_upstream_rr_peer_t *ngx_http_tailnet_upstream_add(
    ngx_http_tailnet_build_t *b, ngx_http_upstream_server_t *server);
static ngx_int_t ngx_http_tailnet_upstream_sid(ngx_http_tailnet_build_t *b,
    ngx_http_upstream_server_t *server, ngx_http_upstream_rr_peer_t *peer);
static void ngx_http_tailnet_upstream_inherit(ngx_http_tailnet_set_t *set,
    ngx_http_tailnet_set_t *old);
static ngx_http_upstream_rr_peer_t *ngx_http_tailnet_upstream_same(
    ngx_http_upstream_rr_peer_t *peer, ngx_http_upstream_rr_peers_t *old,
    ngx_http_upstream_rr_peer_t *from);
static uint64_t ngx_http_tailnet_upstream_stamp(ngx_uint_t node);


ngx_http_tailnet_set_t *
ngx_http_tailnet_upstream_set(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_tailnet_upstream_conf_t *ucf)
{
    uint64_t                   *stamp;
    ngx_uint_t                  i;
    ngx_pool_t                 *pool;
    ngx_http_tailnet_set_t     *set;
    ngx_http_tailnet_server_t  *ts;

    if (ucf->variables) {
        return ngx_http_tailnet_upstream_build(r, us, ucf, r->pool);
    }

    ts = ucf->servers->elts;

    if (ucf->set) {
        stamp = ucf->set->stamps.elts;

        for (i = 0; i < ucf->servers->nelts; i++) {
            if (stamp[i] != ngx_http_tailnet_upstream_stamp(ts[i].node)) {
                break;
            }
        }

        if (i == ucf->servers->nelts) {
            return ucf->set;
        }
    }

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    set = ngx_http_tailnet_upstream_build(r, us, ucf, pool);
    if (set == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    set->pool = pool;
    set->refs = 1;

    if (ucf->set) {
        ngx_http_tailnet_upstream_inherit(set, ucf->set);
        ngx_http_tailnet_upstream_release(ucf->set);
    }

    ucf->set = set;

    return set;
}


/*
 * Nodes that are offline are left out, unless nobody is left then: a control
 * server that has just restarted calls nodes offline that are not.
 */

static ngx_http_tailnet_set_t *
ngx_http_tailnet_upstream_build(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_tailnet_upstream_conf_t *ucf,
    ngx_pool_t *pool)
{
    uint64_t                      *stamp;
    ngx_uint_t                     i;
    ngx_http_tailnet_set_t        *set;
    ngx_http_tailnet_build_t       b;
    ngx_http_tailnet_server_t     *ts;
    ngx_http_upstream_rr_peers_t  *peers;

    set = ngx_pcalloc(pool, sizeof(ngx_http_tailnet_set_t));
    if (set == NULL
        || ngx_array_init(&set->stamps, pool, ucf->servers->nelts,
                          sizeof(uint64_t))
           != NGX_OK)
    {
        return NULL;
    }

    ts = ucf->servers->elts;
    stamp = ngx_array_push_n(&set->stamps, ucf->servers->nelts);

    for (i = 0; i < ucf->servers->nelts; i++) {
        stamp[i] = ngx_http_tailnet_upstream_stamp(ts[i].node);
    }

    ngx_memzero(&b, sizeof(b));

    b.pool = pool;
    b.request = r;
    b.ucf = ucf;
    b.uscf = us;

    for (i = 0; i < 2; i++) {
        peers = ngx_pcalloc(pool, sizeof(ngx_http_upstream_rr_peers_t));
        if (peers == NULL) {
            return NULL;
        }

        peers->name = &us->host;
        b.group[i] = peers;
        b.tail[i] = &peers->peer;
    }

    if (ngx_http_tailnet_upstream_build_servers(&b) != NGX_OK) {
        return NULL;
    }

    if (b.group[0]->tries == 0 && b.group[1]->tries == 0) {
        b.offline = 1;

        if (ngx_http_tailnet_upstream_build_servers(&b) != NGX_OK) {
            return NULL;
        }
    }

    for (i = 0; i < 2; i++) {
        peers = b.group[i];
        peers->weighted = (peers->total_weight != peers->number);
        peers->single = (peers->number == 1 && b.group[1]->number == 0);
    }

    if (b.group[1]->number) {
        b.group[0]->next = b.group[1];
    }

    set->peers = b.group[0];

    return set;
}


static ngx_int_t
ngx_http_tailnet_upstream_build_servers(ngx_http_tailnet_build_t *b)
{
    ngx_int_t                    rc;
    ngx_uint_t                   i, k;
    ngx_http_tailnet_server_t   *ts;
    ngx_http_upstream_server_t  *server;

    server = b->uscf->servers->elts;
    ts = b->ucf->servers->elts;

    for (i = 0, k = 0; i < b->uscf->servers->nelts; i++) {

        if (k < b->ucf->servers->nelts && ts[k].index == i) {
            rc = ngx_http_tailnet_upstream_build_mesh(b, &ts[k], &server[i]);
            k++;

        } else {
            rc = ngx_http_tailnet_upstream_build_server(b, &server[i]);
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tailnet_upstream_build_server(ngx_http_tailnet_build_t *b,
    ngx_http_upstream_server_t *server)
{
    ngx_uint_t                    i;
    ngx_http_upstream_rr_peer_t  *peer;

    for (i = 0; i < server->naddrs; i++) {

        peer = ngx_http_tailnet_upstream_add(b, server);
        if (peer == NULL) {
            return NGX_ERROR;
        }

        peer->sockaddr = server->addrs[i].sockaddr;
        peer->socklen = server->addrs[i].socklen;
        peer->name = server->addrs[i].name;

        if (ngx_http_tailnet_upstream_sid(b, server, peer) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tailnet_upstream_build_mesh(ngx_http_tailnet_build_t *b,
    ngx_http_tailnet_server_t *ts, ngx_http_upstream_server_t *server)
{
    ngx_int_t        rc;
    ngx_str_t        name;
    const char      *why;
    struct tn_snap  *snap;

    if (server->down) {
        return NGX_OK;
    }

    name = ts->name;

    if (ts->value
        && ngx_http_complex_value(b->request, ts->value, &name) != NGX_OK)
    {
        return NGX_ERROR;
    }

    why = NULL;
    snap = ngx_tailnet_worker_snap(ts->node);

    if (snap == NULL) {
        why = "is not known before the first netmap";
        rc = NGX_OK;

    } else if (ts->tag) {
        rc = ngx_http_tailnet_upstream_build_tag(b, ts, server, snap, &why);

    } else {
        rc = ngx_http_tailnet_upstream_build_name(b, ts, server, snap, &name,
                                                  &why);
    }

    if (rc == NGX_OK && !b->offline) {
        ngx_http_tailnet_upstream_say(b, ts, &name, why);
    }

    return rc;
}


static ngx_int_t
ngx_http_tailnet_upstream_build_name(ngx_http_tailnet_build_t *b,
    ngx_http_tailnet_server_t *ts, ngx_http_upstream_server_t *server,
    struct tn_snap *snap, ngx_str_t *name, const char **why)
{
    ngx_uint_t      beyond;
    struct tn_addr  addr;
    struct tn_peer  peer;

    beyond = 0;

    /* what a client may have had a say in is never an address */

    if (ts->value == NULL
        && (tn_addr_parse(&addr, (char *) name->data, name->len) == 0
            || ngx_http_tailnet_upstream_via(snap, name, &addr) == NGX_OK))
    {
        if (tn_snap_whois(snap, &addr, &peer, NULL) != 0) {
            *why = ngx_tailnet_connect_beyond(ts->node, &addr);

            if (*why) {
                return NGX_OK;
            }

            ngx_memzero(&peer, sizeof(struct tn_peer));
            peer.flags = TN_PEER_ONLINE;
            beyond = 1;
        }

        peer.naddrs = 1;
        peer.addrs[0] = addr;

    } else if (tn_snap_by_name(snap, (char *) name->data, name->len, &peer,
                               NULL)
               != 0)
    {
        *why = "is not the name of a node in the netmap";
        return NGX_OK;
    }

    return ngx_http_tailnet_upstream_build_node(b, ts, server, snap, &peer,
                                                beyond, why);
}


/* "10-1-1-16-via-7", alone or with the suffix of the node's own tailnet */

static ngx_int_t
ngx_http_tailnet_upstream_via(struct tn_snap *snap, ngx_str_t *name,
    struct tn_addr *addr)
{
    size_t         rest;
    u_char        *dot;
    struct tn_str  domain;

    dot = ngx_strlchr(name->data, name->data + name->len, '.');

    if (dot == NULL) {
        dot = name->data + name->len;
    }

    rest = name->data + name->len - dot;

    if (rest && dot[rest - 1] == '.') {
        rest--;
    }

    domain = tn_snap_domain(snap);

    if (rest
        && (rest - 1 != domain.len
            || ngx_strncasecmp(dot + 1, (u_char *) domain.p, domain.len) != 0))
    {
        return NGX_DECLINED;
    }

    return tn_addr_via_parse(addr, (char *) name->data, dot - name->data) == 0
           ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_http_tailnet_upstream_build_tag(ngx_http_tailnet_build_t *b,
    ngx_http_tailnet_server_t *ts, ngx_http_upstream_server_t *server,
    struct tn_snap *snap, const char **why)
{
    uint32_t                 i, n;
    ngx_uint_t               used;
    const char              *left_out;
    struct tn_peer           peer;
    struct tn_snap_tag_iter  it;

    used = 0;
    *why = "is the tag of no node in the netmap";

    n = tn_snap_tag_count(snap, (char *) ts->name.data, ts->name.len, &it);

    for (i = 0; i < n; i++) {

        if (tn_snap_tag_peer(snap, &it, i, &peer, NULL) != 0) {
            continue;
        }

        if (used == NGX_HTTP_TAILNET_PEERS_MAX) {

            if (!ts->overflow) {
                ts->overflow = 1;
                ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                              "\"tailnet_server %V\" stands for %uD nodes, "
                              "only %d of them are used", &ts->text, n,
                              NGX_HTTP_TAILNET_PEERS_MAX);
            }

            break;
        }

        left_out = NULL;

        if (ngx_http_tailnet_upstream_build_node(b, ts, server, snap, &peer,
                                                 0, &left_out)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (left_out == NULL) {
            used++;

        } else {
            *why = "is the tag of no node that is online";
        }
    }

    if (used) {
        *why = NULL;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tailnet_upstream_build_node(ngx_http_tailnet_build_t *b,
    ngx_http_tailnet_server_t *ts, ngx_http_upstream_server_t *server,
    struct tn_snap *snap, struct tn_peer *node, ngx_uint_t beyond,
    const char **why)
{
    struct tn_addr               *addr;
    struct sockaddr_in           *sin;
    struct sockaddr_in6          *sin6;
    ngx_http_upstream_rr_peer_t  *peer;

    if (node->flags & TN_PEER_SELF) {
        *why = "is the node of this nginx itself";
        return NGX_OK;
    }

    if (node->flags & TN_PEER_EXPIRED) {
        *why = "is a node whose key has expired";
        return NGX_OK;
    }

    if (node->naddrs == 0) {
        *why = "is a node without an address";
        return NGX_OK;
    }

    if (!b->offline && !(node->flags & TN_PEER_ONLINE)) {
        *why = "is offline, it is asked only if there is no other server";
        return NGX_OK;
    }

    addr = ngx_http_tailnet_upstream_address(snap, node);

    peer = ngx_http_tailnet_upstream_add(b, server);
    if (peer == NULL) {
        return NGX_ERROR;
    }

    peer->server = ts->text;

    if (tn_addr_is4(addr)) {
        sin = ngx_pcalloc(b->pool, sizeof(struct sockaddr_in));
        if (sin == NULL) {
            return NGX_ERROR;
        }

        sin->sin_family = AF_INET;
        sin->sin_port = htons(ts->port);
        ngx_memcpy(&sin->sin_addr, addr->b + 12, 4);

        peer->sockaddr = (struct sockaddr *) sin;
        peer->socklen = sizeof(struct sockaddr_in);

    } else {
        sin6 = ngx_pcalloc(b->pool, sizeof(struct sockaddr_in6));
        if (sin6 == NULL) {
            return NGX_ERROR;
        }

        sin6->sin6_family = AF_INET6;
        sin6->sin6_port = htons(ts->port);
        ngx_memcpy(&sin6->sin6_addr, addr->b, 16);

        peer->sockaddr = (struct sockaddr *) sin6;
        peer->socklen = sizeof(struct sockaddr_in6);
    }

    ngx_tailnet_connect_mark(peer->sockaddr, ts->node, beyond);

    peer->name.data = ngx_pnalloc(b->pool, NGX_SOCKADDR_STRLEN);
    if (peer->name.data == NULL) {
        return NGX_ERROR;
    }

    peer->name.len = ngx_sock_ntop(peer->sockaddr, peer->socklen,
                                   peer->name.data, NGX_SOCKADDR_STRLEN, 1);

    return ngx_http_tailnet_upstream_sid(b, server, peer);
}


/* IPv4 where both ends have it */

static struct tn_addr *
ngx_http_tailnet_upstream_address(struct tn_snap *snap, struct tn_peer *node)
{
    uint16_t        i, k;
    ngx_uint_t      four;
    struct tn_peer  self;

    if (tn_snap_self(snap, &self, NULL) != 0) {
        return &node->addrs[0];
    }

    for (four = 2; four-- > 0; /* void */ ) {
        for (i = 0; i < node->naddrs; i++) {

            if (tn_addr_is4(&node->addrs[i]) != four) {
                continue;
            }

            for (k = 0; k < self.naddrs; k++) {
                if (tn_addr_is4(&self.addrs[k]) == four) {
                    return &node->addrs[i];
                }
            }
        }
    }

    return &node->addrs[0];
}


/* a name that stands in the configuration is said once, when it changes */

static void
ngx_http_tailnet_upstream_say(ngx_http_tailnet_build_t *b,
    ngx_http_tailnet_server_t *ts, ngx_str_t *name, const char *why)
{
    if (ts->value) {

        if (why) {
            ngx_log_error(NGX_LOG_ERR, b->request->connection->log, 0,
                          "no peer for \"tailnet_server %V\" in upstream "
                          "\"%V\": \"%V\" %s",
                          &ts->text, &b->uscf->host, name, why);
        }

        return;
    }

    if (ts->why == why) {
        return;
    }

    if (why) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "no peer for \"tailnet_server %V\" in upstream "
                      "\"%V\": \"%V\" %s",
                      &ts->text, &b->uscf->host, name, why);

    } else {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "\"tailnet_server %V\" in upstream \"%V\" has peers "
                      "again", &ts->text, &b->uscf->host);
    }

    ts->why = why;
}


static ngx_http_upstream_rr_peer_t *
ngx_http_tailnet_upstream_add(ngx_http_tailnet_build_t *b,
    ngx_http_upstream_server_t *server)
{
    ngx_uint_t                     g;
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;

    peer = ngx_pcalloc(b->pool, sizeof(ngx_http_upstream_rr_peer_t));
    if (peer == NULL) {
        return NULL;
    }

    g = server->backup ? 1 : 0;
    peers = b->group[g];

    *b->tail[g] = peer;
    b->tail[g] = &peer->next;

    peers->number++;
    peers->total_weight += server->weight;

    if (!server->down) {
        peers->tries++;
    }

    peer->server = server->name;
    peer->weight = server->weight;
    peer->effective_weight = server->weight;
    peer->max_conns = server->max_conns;
    peer->max_fails = server->max_fails;
    peer->fail_timeout = server->fail_timeout;
    peer->down = server->down;

    return peer;
}


/* what "sticky" of nginx 1.29.6 and later knows a peer by */

static ngx_int_t
ngx_http_tailnet_upstream_sid(ngx_http_tailnet_build_t *b,
    ngx_http_upstream_server_t *server, ngx_http_upstream_rr_peer_t *peer)
{
#if (NGX_HTTP_UPSTREAM_SID)

    peer->sid.data = ngx_pnalloc(b->pool, server->sid.len
                                          + NGX_HTTP_UPSTREAM_SID_LEN);
    if (peer->sid.data == NULL) {
        return NGX_ERROR;
    }

    ngx_http_upstream_init_round_robin_sid(peer, &server->sid);

#endif

    return NGX_OK;
}


/* requests under way count down in both: ngx_http_tailnet_upstream_uncount() */

static void
ngx_http_tailnet_upstream_inherit(ngx_http_tailnet_set_t *set,
    ngx_http_tailnet_set_t *old)
{
    ngx_uint_t                     backup;
    ngx_http_upstream_rr_peer_t   *n, *o, *from;
    ngx_http_upstream_rr_peers_t  *ng, *og;

    for (backup = 0; backup < 2; backup++) {

        ng = backup ? set->peers->next : set->peers;
        og = backup ? old->peers->next : old->peers;

        if (ng == NULL || og == NULL) {
            return;
        }

        from = og->peer;

        for (n = ng->peer; n; n = n->next) {

            o = ngx_http_tailnet_upstream_same(n, og, from);

            if (o == NULL) {
                continue;
            }

            from = o->next;

            n->conns = o->conns;
            n->fails = o->fails;
            n->accessed = o->accessed;
            n->checked = o->checked;
            n->current_weight = o->current_weight;
            n->effective_weight = o->effective_weight;

#if (NGX_HTTP_SSL)
            n->ssl_session = o->ssl_session;
            o->ssl_session = NULL;
#endif
        }
    }
}


/* both sets have the same order: the search goes on where the last one ended */

static ngx_http_upstream_rr_peer_t *
ngx_http_tailnet_upstream_same(ngx_http_upstream_rr_peer_t *peer,
    ngx_http_upstream_rr_peers_t *old, ngx_http_upstream_rr_peer_t *from)
{
    ngx_uint_t                    i;
    ngx_http_upstream_rr_peer_t  *o;

    o = from;

    for (i = 0; i < old->number; i++) {

        if (o == NULL) {
            o = old->peer;
        }

        if (o->socklen == peer->socklen
            && ngx_memcmp(o->sockaddr, peer->sockaddr, o->socklen) == 0
            && o->server.len == peer->server.len
            && ngx_memcmp(o->server.data, peer->server.data, o->server.len)
               == 0)
        {
            return o;
        }

        o = o->next;
    }

    return NULL;
}


void
ngx_http_tailnet_upstream_uncount(ngx_http_tailnet_set_t *set,
    ngx_http_tailnet_set_t *current, ngx_str_t *name)
{
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers, *group;

    for (peers = set->peers, group = current->peers;
         peers && group;
         peers = peers->next, group = group->next)
    {
        for (peer = peers->peer; peer; peer = peer->next) {

            if (&peer->name != name) {
                continue;
            }

            peer = ngx_http_tailnet_upstream_same(peer, group, group->peer);

            if (peer && peer->conns) {
                peer->conns--;
            }

            return;
        }
    }
}


void
ngx_http_tailnet_upstream_release(void *data)
{
    ngx_http_tailnet_set_t *set = data;

#if (NGX_HTTP_SSL)
    ngx_http_upstream_rr_peer_t   *peer;
    ngx_http_upstream_rr_peers_t  *peers;
#endif

    if (--set->refs) {
        return;
    }

#if (NGX_HTTP_SSL)
    for (peers = set->peers; peers; peers = peers->next) {
        for (peer = peers->peer; peer; peer = peer->next) {
            if (peer->ssl_session) {
                ngx_ssl_free_session(peer->ssl_session);
                peer->ssl_session = NULL;
            }
        }
    }
#endif

    if (set->pool) {
        ngx_destroy_pool(set->pool);
    }
}


/* 0: no snapshot */

static uint64_t
ngx_http_tailnet_upstream_stamp(ngx_uint_t node)
{
    struct tn_snap  *snap;

    snap = ngx_tailnet_worker_snap(node);

    return snap ? snap->head.generation : 0;
}


/*
 * tailnet_server: upstream servers by MagicDNS name or tag, over the mesh.
 *
 * nginx's own round robin does the balancing.  Each worker keeps, for each
 * upstream that has a tailnet_server, the set of peers that its lines stand
 * for at the current snapshot, and puts it in the place of the configured one
 * before a request's balancer begins; failures and sessions move to the next
 * set.  A name with variables is looked up for each request.
 *
 * Mesh addresses carry the number of their node in sin_zero or sin6_flowinfo,
 * which the kernel ignores: it tells the outermost get handler that the
 * connection is to be made in that node's namespace, and keeps "keepalive"
 * from giving a connection of one tailnet to a request for another.
 */


#include "ngx_http_tailnet_module.h"


#define NGX_HTTP_TAILNET_PEERS_MAX  1024    /* of one line; the rest is left
                                               out with a line in the log */

typedef struct {
    ngx_http_upstream_rr_peers_t    *peers;     /* NULL: free */
    ngx_pool_t                      *pool;
    ngx_uint_t                       refs;      /* requests, and the worker */
    ngx_array_t                      stamps;    /* uint64_t, of each line */
} ngx_http_tailnet_set_t;


typedef struct {
    ngx_uint_t                       index;     /* in uscf->servers */
    ngx_uint_t                       node;
    ngx_str_t                        name;      /* host, FQDN, tag, address */
    ngx_http_complex_value_t        *value;     /* or this */
    in_port_t                        port;
    ngx_str_t                        text;      /* as written */
    const char                      *why;       /* it is out, as last logged */
    unsigned                         tag:1;
    unsigned                         overflow:1;  /* logged once a worker */
} ngx_http_tailnet_server_t;


typedef struct {
    ngx_array_t                     *servers;   /* ngx_http_tailnet_server_t */
    ngx_http_upstream_init_peer_pt   init;
    ngx_http_tailnet_set_t          *set;       /* of this worker */
    ngx_tailnet_place_t              place;
    ngx_uint_t                       variables;
} ngx_http_tailnet_upstream_conf_t;


typedef struct {
    ngx_tailnet_wait_t               wait;
    ngx_http_tailnet_set_t          *set;
    void                            *data;
    ngx_event_get_peer_pt            get;
    ngx_event_free_peer_pt           free;
    ngx_event_notify_peer_pt         notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt    set_session;
    ngx_event_save_peer_session_pt   save_session;
#endif
} ngx_http_tailnet_peer_t;


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


static ngx_int_t ngx_http_tailnet_upstream_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_tailnet_upstream_get_peer(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_tailnet_upstream_free_peer(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t state);
static void ngx_http_tailnet_upstream_notify_peer(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t type);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_tailnet_upstream_set_session(
    ngx_peer_connection_t *pc, void *data);
static void ngx_http_tailnet_upstream_save_session(ngx_peer_connection_t *pc,
    void *data);
#endif

static ngx_http_tailnet_set_t *ngx_http_tailnet_upstream_set(
    ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us,
    ngx_http_tailnet_upstream_conf_t *ucf);
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
static ngx_int_t ngx_http_tailnet_upstream_build_tag(
    ngx_http_tailnet_build_t *b, ngx_http_tailnet_server_t *ts,
    ngx_http_upstream_server_t *server, struct tn_snap *snap,
    const char **why);
static ngx_int_t ngx_http_tailnet_upstream_build_node(
    ngx_http_tailnet_build_t *b, ngx_http_tailnet_server_t *ts,
    ngx_http_upstream_server_t *server, struct tn_snap *snap,
    struct tn_peer *node, const char **why);
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
static void ngx_http_tailnet_upstream_release(void *data);
static void ngx_http_tailnet_upstream_cleanup(void *data);
static uint64_t ngx_http_tailnet_upstream_stamp(ngx_uint_t node);
static ngx_uint_t ngx_http_tailnet_upstream_mark(struct sockaddr *sa);

static char *ngx_http_tailnet_server(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tailnet_server_name(ngx_conf_t *cf,
    ngx_http_tailnet_server_t *ts, ngx_str_t *value);
static void *ngx_http_tailnet_upstream_create_conf(ngx_conf_t *cf);
static ngx_int_t ngx_http_tailnet_upstream_init(ngx_conf_t *cf);


static ngx_command_t  ngx_http_tailnet_upstream_commands[] = {

    { ngx_string("tailnet_server"),
      NGX_HTTP_UPS_CONF|NGX_CONF_1MORE,
      ngx_http_tailnet_server,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tailnet_upstream_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tailnet_upstream_init,        /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_http_tailnet_upstream_create_conf, /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_tailnet_upstream_module = {
    NGX_MODULE_V1,
    &ngx_http_tailnet_upstream_module_ctx, /* module context */
    ngx_http_tailnet_upstream_commands,    /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_tailnet_upstream_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    void                              *configured;
    ngx_int_t                          rc;
    ngx_pool_cleanup_t                *cln;
    ngx_peer_connection_t             *pc;
    ngx_http_tailnet_peer_t           *p;
    ngx_http_tailnet_upstream_conf_t  *ucf;

    ucf = ngx_http_conf_upstream_srv_conf(us, ngx_http_tailnet_upstream_module);

    p = ngx_pcalloc(r->pool, sizeof(ngx_http_tailnet_peer_t));
    if (p == NULL) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    p->set = ngx_http_tailnet_upstream_set(r, us, ucf);
    if (p->set == NULL) {
        return NGX_ERROR;
    }

    p->set->refs++;
    cln->handler = ngx_http_tailnet_upstream_release;
    cln->data = p->set;

    configured = us->peer.data;
    us->peer.data = p->set->peers;

    rc = ucf->init(r, us);

    us->peer.data = configured;

    if (rc != NGX_OK) {
        return rc;
    }

    pc = &r->upstream->peer;

    p->data = pc->data;
    p->get = pc->get;
    p->free = pc->free;
    p->notify = pc->notify;

    pc->data = p;
    pc->get = ngx_http_tailnet_upstream_get_peer;
    pc->free = ngx_http_tailnet_upstream_free_peer;

    if (p->notify) {
        pc->notify = ngx_http_tailnet_upstream_notify_peer;
    }

#if (NGX_HTTP_SSL)
    p->set_session = pc->set_session;
    p->save_session = pc->save_session;

    if (p->set_session) {
        pc->set_session = ngx_http_tailnet_upstream_set_session;
    }

    if (p->save_session) {
        pc->save_session = ngx_http_tailnet_upstream_save_session;
    }
#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_tailnet_upstream_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_tailnet_peer_t *p = data;

    ngx_int_t   rc;
    ngx_uint_t  mark;

    rc = p->get(pc, p->data);

    if (rc != NGX_OK && rc != NGX_DONE) {
        return rc;
    }

    mark = ngx_http_tailnet_upstream_mark(pc->sockaddr);

    if (mark == 0) {
        return rc;
    }

    if (rc == NGX_DONE) {
        /* a connection that keepalive has kept */
        ngx_tailnet_connect_watch(pc, mark - 1, &p->wait);
        return NGX_DONE;
    }

    return ngx_tailnet_connect(pc, mark - 1, &p->wait);
}


static void
ngx_http_tailnet_upstream_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_tailnet_peer_t *p = data;

    ngx_tailnet_connect_cancel(&p->wait);

    p->free(pc, p->data, state);
}


static void
ngx_http_tailnet_upstream_notify_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type)
{
    ngx_http_tailnet_peer_t *p = data;

    p->notify(pc, p->data, type);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_tailnet_upstream_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_tailnet_peer_t *p = data;

    return p->set_session(pc, p->data);
}


static void
ngx_http_tailnet_upstream_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_tailnet_peer_t *p = data;

    p->save_session(pc, p->data);
}

#endif


/* the worker's set, made anew when a snapshot has changed; or the request's */

static ngx_http_tailnet_set_t *
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

    if (b.group[0]->number == 0 && b.group[1]->number == 0) {
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
    struct tn_addr  addr;
    struct tn_peer  peer;

    /* what a client may have had a say in is never an address */

    if (ts->value == NULL
        && tn_addr_parse(&addr, (char *) name->data, name->len) == 0)
    {
        if (tn_snap_whois(snap, &addr, &peer, NULL) != 0) {
            *why = "is the address of no node in the netmap";
            return NGX_OK;
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
                                                why);
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
                                                 &left_out)
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
    struct tn_snap *snap, struct tn_peer *node, const char **why)
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
        sin->sin_zero[0] = (u_char) (ts->node + 1);

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
        sin6->sin6_flowinfo = htonl((uint32_t) ts->node + 1);

        peer->sockaddr = (struct sockaddr *) sin6;
        peer->socklen = sizeof(struct sockaddr_in6);
    }

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


/* "conns" stays: requests under way count down where they counted up */

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


static void
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


static void
ngx_http_tailnet_upstream_cleanup(void *data)
{
    ngx_http_tailnet_upstream_conf_t *ucf = data;

    if (ucf->set) {
        ngx_http_tailnet_upstream_release(ucf->set);
        ucf->set = NULL;
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


/* number of the node and 1; 0: not a mesh address */

static ngx_uint_t
ngx_http_tailnet_upstream_mark(struct sockaddr *sa)
{
    switch (sa->sa_family) {

    case AF_INET:
        return (u_char) ((struct sockaddr_in *) sa)->sin_zero[0];

    case AF_INET6:
        return ntohl(((struct sockaddr_in6 *) sa)->sin6_flowinfo);

    default:
        return 0;
    }
}


static char *
ngx_http_tailnet_server(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tailnet_upstream_conf_t *ucf = conf;

    time_t                         fail_timeout;
    ngx_int_t                      weight, max_fails, max_conns;
    ngx_str_t                     *value, s;
    ngx_addr_t                    *addr;
    ngx_uint_t                     i;
    struct sockaddr_in            *sin;
    ngx_http_tailnet_server_t     *ts;
    ngx_http_upstream_server_t    *us;
    ngx_http_upstream_srv_conf_t  *uscf;

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
    value = cf->args->elts;

    if (ucf->servers == NULL) {
        ngx_tailnet_place(cf, &ucf->place);

        ucf->servers = ngx_array_create(cf->pool, 4,
                                        sizeof(ngx_http_tailnet_server_t));
        if (ucf->servers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    ts = ngx_array_push(ucf->servers);
    us = ngx_array_push(uscf->servers);

    if (ts == NULL || us == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(ts, sizeof(ngx_http_tailnet_server_t));
    ngx_memzero(us, sizeof(ngx_http_upstream_server_t));

    ts->index = uscf->servers->nelts - 1;
    ts->text = value[1];

    if (ngx_http_tailnet_server_name(cf, ts, &value[1]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ts->value) {
        ucf->variables = 1;
    }

    weight = 1;
    max_conns = 0;
    max_fails = 1;
    fail_timeout = 10;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "weight=", 7) == 0) {
            weight = ngx_atoi(&value[i].data[7], value[i].len - 7);

            if (weight == NGX_ERROR || weight == 0) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "max_conns=", 10) == 0) {
            max_conns = ngx_atoi(&value[i].data[10], value[i].len - 10);

            if (max_conns == NGX_ERROR) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "max_fails=", 10) == 0) {
            max_fails = ngx_atoi(&value[i].data[10], value[i].len - 10);

            if (max_fails == NGX_ERROR) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "fail_timeout=", 13) == 0) {
            s.data = &value[i].data[13];
            s.len = value[i].len - 13;

            fail_timeout = ngx_parse_time(&s, 1);

            if (fail_timeout == (time_t) NGX_ERROR) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strcmp(value[i].data, "backup") == 0) {
            us->backup = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "down") == 0) {
            us->down = 1;
            continue;
        }

        goto invalid;
    }

    /* nginx wants an address; it is never connected to */

    addr = ngx_pcalloc(cf->pool, sizeof(ngx_addr_t));
    sin = ngx_pcalloc(cf->pool, sizeof(struct sockaddr_in));

    if (addr == NULL || sin == NULL) {
        return NGX_CONF_ERROR;
    }

    sin->sin_family = AF_INET;
    sin->sin_port = htons(ts->port);

    addr->sockaddr = (struct sockaddr *) sin;
    addr->socklen = sizeof(struct sockaddr_in);
    addr->name = value[1];

    us->name = value[1];
    us->addrs = addr;
    us->naddrs = 1;
    us->weight = weight;
    us->max_conns = max_conns;
    us->max_fails = max_fails;
    us->fail_timeout = fail_timeout;

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of \"tailnet_server\"",
                       &value[i]);
    return NGX_CONF_ERROR;
}


/* [NODE/]NAME:PORT */

static ngx_int_t
ngx_http_tailnet_server_name(ngx_conf_t *cf, ngx_http_tailnet_server_t *ts,
    ngx_str_t *value)
{
    u_char                            *p, *colon, *last;
    ngx_int_t                          port;
    ngx_str_t                          node;
    struct tn_selector                 selector;
    ngx_http_compile_complex_value_t   ccv;

    last = value->data + value->len;

    for (colon = last; colon > value->data && *colon != ':'; colon--) {
        /* void */
    }

    port = (*colon == ':') ? ngx_atoi(colon + 1, last - colon - 1)
                           : NGX_ERROR;

    if (port < 1 || port > 65535) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid port in \"tailnet_server %V\": "
                           "NAME:PORT is expected, with a port from 1 to "
                           "65535", value);
        return NGX_ERROR;
    }

    ts->port = (in_port_t) port;
    ts->name.data = value->data;

    ngx_str_null(&node);

    p = ngx_strlchr(value->data, colon, '/');

    if (p) {
        node.data = value->data;
        node.len = p - value->data;
        ts->name.data = p + 1;
    }

    ts->name.len = colon - ts->name.data;

    if (ngx_tailnet_node_ref(cf, &node, "tailnet_server", &ts->node)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ts->name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no name in \"tailnet_server %V\"", value);
        return NGX_ERROR;
    }

    if (ngx_strlchr(ts->name.data, colon, '$')) {

        ts->value = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
        if (ts->value == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = cf;
        ccv.value = &ts->name;
        ccv.complex_value = ts->value;

        return ngx_http_compile_complex_value(&ccv);
    }

    if (ts->name.data[0] == '[' && ts->name.data[ts->name.len - 1] == ']') {
        ts->name.data++;
        ts->name.len -= 2;
    }

    /* the grammar of names is that of selectors, less what means many */

    if (tn_selector_parse(&selector, (char *) ts->name.data, ts->name.len)
        == NULL)
    {
        switch (selector.kind) {

        case TN_SEL_TAG:
            ts->tag = 1;
            return NGX_OK;

        case TN_SEL_HOST:
        case TN_SEL_FQDN:
            return NGX_OK;

        case TN_SEL_PREFIX:
            if (selector.prefix.bits == 128
                && !ngx_strlchr(ts->name.data, colon, '/'))
            {
                return NGX_OK;
            }

            break;

        default:
            break;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" in \"tailnet_server %V\" is neither the name "
                       "of a node, nor \"tag:NAME\", nor a mesh address",
                       &ts->name, value);
    return NGX_ERROR;
}


static void *
ngx_http_tailnet_upstream_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tailnet_upstream_conf_t));
}


/* peers are initialised by now: we end up outermost, above keepalive */

static ngx_int_t
ngx_http_tailnet_upstream_init(ngx_conf_t *cf)
{
    ngx_uint_t                          i;
    ngx_pool_cleanup_t                 *cln;
    ngx_http_upstream_srv_conf_t      **uscfp, *uscf;
    ngx_http_upstream_main_conf_t      *umcf;
    ngx_http_tailnet_upstream_conf_t   *ucf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        uscf = uscfp[i];

        if (uscf->srv_conf == NULL) {
            continue;
        }

        ucf = ngx_http_conf_upstream_srv_conf(uscf,
                                             ngx_http_tailnet_upstream_module);

        if (ucf->servers == NULL) {
            continue;
        }

#if (NGX_HTTP_UPSTREAM_ZONE)
        if (uscf->shm_zone) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"zone\" in upstream \"%V\" cannot be used beside "
                          "\"tailnet_server\": its nodes change with the "
                          "netmap, in %V:%ui",
                          &uscf->host, &ucf->place.file, ucf->place.line);
            return NGX_ERROR;
        }
#endif

        /* those that fix their servers at start don't know "backup" either */

        if (!(uscf->flags & NGX_HTTP_UPSTREAM_BACKUP)) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "the balancing method of upstream \"%V\" cannot be "
                          "used beside \"tailnet_server\", only round robin "
                          "and \"least_conn\" can, in %V:%ui",
                          &uscf->host, &ucf->place.file, ucf->place.line);
            return NGX_ERROR;
        }

        cln = ngx_pool_cleanup_add(cf->pool, 0);
        if (cln == NULL) {
            return NGX_ERROR;
        }

        cln->handler = ngx_http_tailnet_upstream_cleanup;
        cln->data = ucf;

        ucf->init = uscf->peer.init;
        uscf->peer.init = ngx_http_tailnet_upstream_init_peer;
    }

    return NGX_OK;
}

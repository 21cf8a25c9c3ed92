
/*
 * Connections to peers, on sockets of the node's namespace.
 *
 * Only tailnetd can make such a socket, so a worker has a few in stock for
 * each node, family and type, and asks for more before they run out.  If they
 * do, the connection gets the descriptor of an idle socket and waits; the new
 * one takes its number when it comes, and the caller's connect timeout runs
 * meanwhile.
 *
 * Nothing answers for an address that has left the netmap, not even with a
 * refusal.  So connections in use are looked through when a snapshot comes,
 * and those to nowhere are ended; the caller goes on as with any lost one.
 */


#include "ngx_tailnet.h"


#define NGX_TAILNET_POOL_LOW    8
#define NGX_TAILNET_POOL_HIGH   32
#define NGX_TAILNET_POOL_KINDS  4           /* of one node */

#define NGX_TAILNET_BEYOND      0x10000     /* in sin6_flowinfo */


typedef struct {
    ngx_socket_t         fds[NGX_TAILNET_POOL_HIGH];
    ngx_uint_t           n;
    ngx_uint_t           node;
    ngx_uint_t           kind;
    ngx_queue_t          waiting;           /* ngx_tailnet_wait_t */
    ngx_tailnet_ask_t    ask;
} ngx_tailnet_pool_t;


static ngx_tailnet_pool_t *ngx_tailnet_connect_pool(ngx_uint_t node,
    int family, int type);
static void ngx_tailnet_connect_fill(ngx_tailnet_pool_t *p);
static void ngx_tailnet_connect_fill_handler(void *data,
    ngx_tailnet_msg_t *m);
static void ngx_tailnet_connect_serve(ngx_tailnet_pool_t *p);
static void ngx_tailnet_connect_fail(ngx_tailnet_pool_t *p);
static ngx_uint_t ngx_tailnet_connect_known(struct sockaddr *sockaddr,
    ngx_uint_t node);
static ngx_uint_t ngx_tailnet_connect_is_beyond(struct sockaddr *sockaddr);
static struct tn_node *ngx_tailnet_connect_node(ngx_tailnet_conf_t *tcf,
    ngx_uint_t node);
static ngx_connection_t *ngx_tailnet_connect_connection(
    ngx_peer_connection_t *pc, ngx_socket_t s, int type);
static ngx_int_t ngx_tailnet_connect_start(ngx_peer_connection_t *pc,
    ngx_connection_t *c);
static ngx_int_t ngx_tailnet_connect_options(ngx_peer_connection_t *pc,
    ngx_socket_t s);
static void ngx_tailnet_connect_end(ngx_connection_t *c);
static void ngx_tailnet_connect_broken(ngx_connection_t *c);


static ngx_tailnet_pool_t  *ngx_tailnet_pools;
static ngx_uint_t           ngx_tailnet_npools;
static ngx_queue_t          ngx_tailnet_live;       /* ngx_tailnet_wait_t */
static ngx_socket_t         ngx_tailnet_idle;   /* never connected */


ngx_int_t
ngx_tailnet_connect_init(ngx_cycle_t *cycle, ngx_uint_t nodes)
{
    ngx_uint_t           i, n;
    ngx_tailnet_pool_t  *p;

    n = nodes * NGX_TAILNET_POOL_KINDS;

    p = ngx_pcalloc(cycle->pool, n * sizeof(ngx_tailnet_pool_t));
    if (p == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        p[i].node = i / NGX_TAILNET_POOL_KINDS;
        p[i].kind = i % NGX_TAILNET_POOL_KINDS;
        p[i].ask.handler = ngx_tailnet_connect_fill_handler;
        p[i].ask.data = &p[i];
        ngx_queue_init(&p[i].waiting);
    }

    ngx_tailnet_idle = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC,
                              0);

    if (ngx_tailnet_idle == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_socket_errno,
                      ngx_socket_n " failed");
        return NGX_ERROR;
    }

    ngx_queue_init(&ngx_tailnet_live);

    ngx_tailnet_pools = p;
    ngx_tailnet_npools = n;

    return NGX_OK;
}


static ngx_tailnet_pool_t *
ngx_tailnet_connect_pool(ngx_uint_t node, int family, int type)
{
    ngx_uint_t  i;

    i = node * NGX_TAILNET_POOL_KINDS;

    if (family == AF_INET6) {
        i += 1;
    }

    if (type == SOCK_DGRAM) {
        i += 2;
    }

    return i < ngx_tailnet_npools ? &ngx_tailnet_pools[i] : NULL;
}


static void
ngx_tailnet_connect_fill(ngx_tailnet_pool_t *p)
{
    ngx_str_t                *name;
    struct tn_admin_sockets   ask;

    if (p->n >= NGX_TAILNET_POOL_LOW || p->ask.pending) {
        return;
    }

    name = ngx_tailnet_worker_name(p->node);

    ngx_memzero(&ask, sizeof(struct tn_admin_sockets));
    ask.h.type = TN_ADMIN_SOCKETS;
    ngx_memcpy(ask.node, name->data, name->len);
    ask.family = (p->kind & 1) ? 6 : 4;
    ask.type = (p->kind & 2) ? 2 : 1;
    ask.count = (uint16_t) (NGX_TAILNET_POOL_HIGH - p->n);

    if (ngx_tailnet_worker_ask(&p->ask, &ask, sizeof(ask)) != NGX_OK) {
        ngx_tailnet_connect_fail(p);
    }
}


static void
ngx_tailnet_connect_fill_handler(void *data, ngx_tailnet_msg_t *m)
{
    ngx_tailnet_pool_t *p = data;

    ngx_str_t   text;
    ngx_uint_t  i;

    if (m == NULL) {
        return;
    }

    if (m->u.head.type != TN_ADMIN_FDS || m->nfds == 0) {
        text = ngx_tailnet_admin_text(m);

        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "tailnet: no sockets of node \"%V\": tailnetd says: %V",
                      ngx_tailnet_worker_name(p->node), &text);

        ngx_tailnet_connect_fail(p);
        return;
    }

    for (i = 0; i < m->nfds && p->n < NGX_TAILNET_POOL_HIGH; i++) {
        p->fds[p->n++] = m->fds[i];
        m->fds[i] = -1;
    }

    ngx_tailnet_connect_serve(p);
}


static void
ngx_tailnet_connect_serve(ngx_tailnet_pool_t *p)
{
    ngx_int_t            rc;
    ngx_queue_t         *q;
    ngx_socket_t         s;
    ngx_connection_t    *c;
    ngx_tailnet_wait_t  *w;

    while (p->n && !ngx_queue_empty(&p->waiting)) {
        q = ngx_queue_head(&p->waiting);
        w = ngx_queue_data(q, ngx_tailnet_wait_t, queue);
        w->waiting = 0;
        ngx_queue_remove(q);

        c = w->connection;
        s = p->fds[--p->n];

        if (dup3(s, c->fd, O_CLOEXEC) == -1) {
            ngx_log_error(NGX_LOG_ALERT, c->log, ngx_errno,
                          "tailnet: dup3() failed");
            rc = NGX_ERROR;

        } else {
            rc = ngx_tailnet_connect_start(w->pc, c);
        }

        (void) close(s);

        if (rc == NGX_ERROR || rc == NGX_DECLINED) {
            ngx_tailnet_connect_broken(c);

        } else if (rc == NGX_DONE) {
            c->write->ready = 1;
            ngx_post_event(c->write, &ngx_posted_events);
        }
    }

    ngx_tailnet_connect_fill(p);
}


/* nobody shall wait for what will not come: the next upstream is tried */

static void
ngx_tailnet_connect_fail(ngx_tailnet_pool_t *p)
{
    ngx_queue_t         *q;
    ngx_connection_t    *c;
    ngx_tailnet_wait_t  *w;

    while (!ngx_queue_empty(&p->waiting)) {
        q = ngx_queue_head(&p->waiting);
        w = ngx_queue_data(q, ngx_tailnet_wait_t, queue);
        w->waiting = 0;
        ngx_queue_remove(q);

        c = w->connection;

        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "tailnet: no socket to connect to %V: tailnetd gave "
                      "none", w->pc->name);

        ngx_tailnet_connect_broken(c);
    }
}


/*
 * The caller waits for a connect() and asks SO_ERROR how it went, before it
 * has sent anything; so the descriptor becomes a socket with an error.  An end
 * of a pair has one, ECONNRESET, when the other end is closed with something
 * unread.  Should that not be had, the caller's first send() fails.
 */

static void
ngx_tailnet_connect_broken(ngx_connection_t *c)
{
    int  sv[2];

    if (socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0, sv)
        == 0)
    {
        (void) send(sv[0], "", 1, MSG_NOSIGNAL);
        (void) close(sv[1]);

        if (dup3(sv[0], c->fd, O_CLOEXEC) == -1) {
            ngx_log_error(NGX_LOG_ALERT, c->log, ngx_errno,
                          "tailnet: dup3() failed");
        }

        (void) close(sv[0]);

    } else {
        ngx_log_error(NGX_LOG_ALERT, c->log, ngx_errno,
                      "tailnet: socketpair() failed");
    }

    c->write->ready = 1;
    ngx_post_event(c->write, &ngx_posted_events);
}


void
ngx_tailnet_connect_up(void)
{
    ngx_uint_t           i;
    ngx_tailnet_pool_t  *p;

    for (i = 0; i < ngx_tailnet_npools; i++) {
        p = &ngx_tailnet_pools[i];

        if (!ngx_queue_empty(&p->waiting)) {
            ngx_tailnet_connect_fill(p);
        }
    }
}


void
ngx_tailnet_connect_lost(void)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_tailnet_npools; i++) {
        ngx_tailnet_connect_fail(&ngx_tailnet_pools[i]);
    }
}


ngx_int_t
ngx_tailnet_connect(ngx_peer_connection_t *pc, ngx_uint_t node,
    ngx_tailnet_wait_t *w)
{
    int                  type;
    ngx_int_t            rc;
    ngx_socket_t         s;
    ngx_connection_t    *c;
    ngx_tailnet_pool_t  *p;

    type = pc->type ? pc->type : SOCK_STREAM;

    if (!ngx_tailnet_connect_known(pc->sockaddr, node)) {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "tailnet: %V is the address of no node any more",
                      pc->name);
        return NGX_DECLINED;
    }

    p = ngx_tailnet_connect_pool(node, pc->sockaddr->sa_family, type);

    if (p == NULL || (p->n == 0 && !ngx_tailnet_worker_ready())) {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "tailnet: no socket to connect to %V: tailnetd is not "
                      "there", pc->name);
        return NGX_DECLINED;
    }

    if (p->n) {
        s = p->fds[--p->n];

    } else {
        s = fcntl(ngx_tailnet_idle, F_DUPFD_CLOEXEC, 0);

        if (s == (ngx_socket_t) -1) {
            ngx_log_error(NGX_LOG_ALERT, pc->log, ngx_errno,
                          "tailnet: fcntl(F_DUPFD_CLOEXEC) failed");
            return NGX_ERROR;
        }

        w->waiting = 1;
    }

    c = ngx_tailnet_connect_connection(pc, s, type);

    if (c == NULL) {
        w->waiting = 0;
        (void) close(s);
        return NGX_ERROR;
    }

    ngx_tailnet_connect_watch(pc, node, w);

    if (w->waiting) {
        ngx_log_debug1(NGX_LOG_DEBUG_EVENT, pc->log, 0,
                       "tailnet: waiting for a socket to %V", pc->name);

        ngx_queue_insert_tail(&p->waiting, &w->queue);

        ngx_tailnet_connect_fill(p);

        return NGX_AGAIN;
    }

    ngx_tailnet_connect_fill(p);

    rc = ngx_tailnet_connect_start(pc, c);

    if (rc == NGX_ERROR || rc == NGX_DECLINED) {
        ngx_tailnet_connect_cancel(w);
        ngx_close_connection(c);
        pc->connection = NULL;
    }

    return rc;
}


void
ngx_tailnet_connect_watch(ngx_peer_connection_t *pc, ngx_uint_t node,
    ngx_tailnet_wait_t *w)
{
    w->pc = pc;
    w->connection = pc->connection;
    w->node = node;
    w->watched = 1;

    ngx_queue_insert_tail(&ngx_tailnet_live, &w->live);
}


void
ngx_tailnet_connect_cancel(ngx_tailnet_wait_t *w)
{
    if (w->waiting) {
        w->waiting = 0;
        ngx_queue_remove(&w->queue);
    }

    if (w->watched) {
        w->watched = 0;
        ngx_queue_remove(&w->live);
    }
}


void
ngx_tailnet_connect_recheck(void)
{
    ngx_queue_t         *q, *next;
    ngx_tailnet_wait_t  *w;

    if (ngx_tailnet_npools == 0) {
        return;
    }

    for (q = ngx_queue_head(&ngx_tailnet_live);
         q != ngx_queue_sentinel(&ngx_tailnet_live);
         q = next)
    {
        next = ngx_queue_next(q);
        w = ngx_queue_data(q, ngx_tailnet_wait_t, live);

        if (ngx_tailnet_connect_known(w->pc->sockaddr, w->node)) {
            continue;
        }

        ngx_log_error(NGX_LOG_ERR, w->connection->log, 0,
                      "tailnet: closed the connection to %V, which is the "
                      "address of no node any more", w->pc->name);

        ngx_tailnet_connect_cancel(w);
        ngx_tailnet_connect_end(w->connection);
    }
}


void
ngx_tailnet_connect_mark(struct sockaddr *sockaddr, ngx_uint_t node,
    ngx_uint_t beyond)
{
    struct sockaddr_in   *sin;
    struct sockaddr_in6  *sin6;

    if (sockaddr->sa_family == AF_INET) {
        sin = (struct sockaddr_in *) sockaddr;
        sin->sin_zero[0] = (u_char) (node + 1);
        sin->sin_zero[1] = (u_char) beyond;

    } else {
        sin6 = (struct sockaddr_in6 *) sockaddr;
        sin6->sin6_flowinfo = htonl((uint32_t) (node + 1)
                                    | (beyond ? NGX_TAILNET_BEYOND : 0));
    }
}


ngx_uint_t
ngx_tailnet_connect_marked(struct sockaddr *sockaddr)
{
    switch (sockaddr->sa_family) {

    case AF_INET:
        return (u_char) ((struct sockaddr_in *) sockaddr)->sin_zero[0];

    case AF_INET6:
        return ntohl(((struct sockaddr_in6 *) sockaddr)->sin6_flowinfo)
               & ~NGX_TAILNET_BEYOND;

    default:
        return 0;
    }
}


static ngx_uint_t
ngx_tailnet_connect_is_beyond(struct sockaddr *sockaddr)
{
    if (sockaddr->sa_family == AF_INET) {
        return ((struct sockaddr_in *) sockaddr)->sin_zero[1];
    }

    return ntohl(((struct sockaddr_in6 *) sockaddr)->sin6_flowinfo)
           & NGX_TAILNET_BEYOND;
}


/* NULL: it is a service's, which alone knows its options */

static struct tn_node *
ngx_tailnet_connect_node(ngx_tailnet_conf_t *tcf, ngx_uint_t node)
{
    ngx_str_t           *name;
    ngx_uint_t           i;
    struct tn_node      *table;
    ngx_tailnet_node_t  *nodes;

    nodes = tcf->nodes.elts;
    name = &nodes[node].name;
    table = tcf->table.elts;

    for (i = 0; i < tcf->table.nelts; i++) {
        if (ngx_strlen(table[i].name) == name->len
            && ngx_strncmp(table[i].name, name->data, name->len) == 0)
        {
            return &table[i];
        }
    }

    return NULL;
}


/* addresses that tailnets give to nodes lead nowhere when no node has them */

const char *
ngx_tailnet_connect_beyond(ngx_uint_t node, struct tn_addr *addr)
{
    ngx_uint_t           i;
    struct tn_node      *options;
    struct tn_prefix     prefix;
    ngx_tailnet_conf_t  *tcf;

    static const char   *mesh[] = { "100.64.0.0/10", "fd7a:115c:a1e0::/48",
                                    "127.0.0.0/8", "::1" };

    tcf = (ngx_tailnet_conf_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                              ngx_tailnet_module);
    options = ngx_tailnet_connect_node(tcf, node);

    if (tn_addr_is_via(addr)) {
        return options == NULL || options->accept_routes
               ? NULL : "is behind a subnet router and needs \"accept_routes\"";
    }

    if (options && !options->accept_routes && options->exit_node[0] == '\0') {
        return "is the address of no node in the netmap";
    }

    for (i = 0; i < sizeof(mesh) / sizeof(mesh[0]); i++) {

        if (tn_prefix_parse(&prefix, mesh[i], ngx_strlen(mesh[i])) == 0
            && tn_prefix_contains(&prefix, addr))
        {
            return "is the address of no node in the netmap";
        }
    }

    return NULL;
}


/* a node of the snapshot; what a key that has expired means, too */

static ngx_uint_t
ngx_tailnet_connect_known(struct sockaddr *sockaddr, ngx_uint_t node)
{
    struct tn_addr   addr;
    struct tn_peer   peer;
    struct tn_snap  *snap;

    snap = ngx_tailnet_worker_snap(node);

    if (snap == NULL || tn_addr_from_sockaddr(sockaddr, &addr, NULL) != 0) {
        return 0;
    }

    if (tn_snap_whois(snap, &addr, &peer, NULL) == 0) {
        return !(peer.flags & TN_PEER_EXPIRED);
    }

    return ngx_tailnet_connect_is_beyond(sockaddr)
           && ngx_tailnet_connect_beyond(node, &addr) == NULL;
}


/* one that is not connected yet has nothing that shutdown() could end */

static void
ngx_tailnet_connect_end(ngx_connection_t *c)
{
    socklen_t       len;
    ngx_sockaddr_t  sa;

    len = sizeof(ngx_sockaddr_t);

    if (getpeername(c->fd, &sa.sockaddr, &len) == -1) {
        ngx_tailnet_connect_broken(c);

    } else if (shutdown(c->fd, SHUT_RDWR) == -1) {
        ngx_log_error(NGX_LOG_INFO, c->log, ngx_socket_errno,
                      "tailnet: shutdown() failed");
    }
}


/* what ngx_event_connect_peer() makes of a socket */

static ngx_connection_t *
ngx_tailnet_connect_connection(ngx_peer_connection_t *pc, ngx_socket_t s,
    int type)
{
    ngx_connection_t  *c;

    c = ngx_get_connection(s, pc->log);
    if (c == NULL) {
        return NULL;
    }

    c->type = type;

    if (type == SOCK_STREAM) {
        c->recv = ngx_recv;
        c->send = ngx_send;
        c->recv_chain = ngx_recv_chain;
        c->send_chain = ngx_send_chain;

        c->sendfile = 1;

    } else {
        c->recv = ngx_udp_recv;
        c->send = ngx_send;
        c->send_chain = ngx_udp_send_chain;

#if (nginx_version >= 1023000)
        c->need_flush_buf = 1;
#endif
    }

    c->log_error = pc->log_error;

    c->read->log = pc->log;
    c->write->log = pc->log;

    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

    pc->connection = c;

    return c;
}


static ngx_int_t
ngx_tailnet_connect_start(ngx_peer_connection_t *pc, ngx_connection_t *c)
{
    int         rc;
    ngx_err_t   err;
    ngx_int_t   event;
    ngx_uint_t  level;

    if (ngx_tailnet_connect_options(pc, c->fd) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_add_conn && ngx_add_conn(c) == NGX_ERROR) {
        return NGX_ERROR;
    }

    ngx_log_debug3(NGX_LOG_DEBUG_EVENT, pc->log, 0,
                   "tailnet: connect to %V, fd:%d #%uA",
                   pc->name, c->fd, c->number);

    rc = connect(c->fd, pc->sockaddr, pc->socklen);

    if (rc == -1) {
        err = ngx_socket_errno;

        if (err != NGX_EINPROGRESS) {

            if (err == NGX_ECONNREFUSED
                || err == NGX_EAGAIN
                || err == NGX_ECONNRESET
                || err == NGX_ENETDOWN
                || err == NGX_ENETUNREACH
                || err == NGX_EHOSTDOWN
                || err == NGX_EHOSTUNREACH)
            {
                level = NGX_LOG_ERR;

            } else {
                level = NGX_LOG_CRIT;
            }

            ngx_log_error(level, c->log, err,
                          "connect() to %V over the tailnet failed",
                          pc->name);

            return NGX_DECLINED;
        }
    }

    if (ngx_add_conn == NULL) {
        event = (ngx_event_flags & NGX_USE_CLEAR_EVENT) ? NGX_CLEAR_EVENT
                                                        : NGX_LEVEL_EVENT;

        if (ngx_add_event(c->read, NGX_READ_EVENT, event) != NGX_OK) {
            return NGX_ERROR;
        }

        if (rc == -1
            && ngx_add_event(c->write, NGX_WRITE_EVENT, event) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (rc == -1) {
        return NGX_AGAIN;
    }

    c->write->ready = 1;

    /* after NGX_OK ngx_event_connect_peer() would make a socket of the host */

    return NGX_DONE;
}


static ngx_int_t
ngx_tailnet_connect_options(ngx_peer_connection_t *pc, ngx_socket_t s)
{
    int  value;

    if (pc->rcvbuf
        && setsockopt(s, SOL_SOCKET, SO_RCVBUF, (const void *) &pc->rcvbuf,
                      sizeof(int))
           == -1)
    {
        ngx_log_error(NGX_LOG_ALERT, pc->log, ngx_socket_errno,
                      "setsockopt(SO_RCVBUF) failed");
        return NGX_ERROR;
    }

#if (nginx_version >= 1031003)

    if (pc->sndbuf
        && setsockopt(s, SOL_SOCKET, SO_SNDBUF, (const void *) &pc->sndbuf,
                      sizeof(int))
           == -1)
    {
        ngx_log_error(NGX_LOG_ALERT, pc->log, ngx_socket_errno,
                      "setsockopt(SO_SNDBUF) failed");
        return NGX_ERROR;
    }

#endif

    if (pc->so_keepalive) {
        value = 1;

        if (setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, (const void *) &value,
                       sizeof(int))
            == -1)
        {
            ngx_log_error(NGX_LOG_ALERT, pc->log, ngx_socket_errno,
                          "setsockopt(SO_KEEPALIVE) failed, ignored");
        }
    }

    if (pc->local
        && bind(s, pc->local->sockaddr, pc->local->socklen) == -1)
    {
        ngx_log_error(NGX_LOG_CRIT, pc->log, ngx_socket_errno,
                      "bind(%V) over the tailnet failed", &pc->local->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}

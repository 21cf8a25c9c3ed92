
/*
 * Listening on sockets that somebody else made.
 *
 * While nginx reads its configuration a listener of the mesh has a placeholder
 * address, 240.84.0.N or fd7a:115c:a1e0:ffff::N, N - 1 being the node.  In
 * init_conf, when all listeners are known, tailnetd's socket is put in its
 * place and the listener is marked to be ignored by nginx's own binding and
 * inheriting.  Only in init_module, after nginx compared the listeners of the
 * old and the new cycle by their addresses, the placeholder gives way to the
 * wildcard address: had it done so before, a listener of the mesh and one of
 * the host on the same port would have been taken for each other.
 */


#include "ngx_tailnet.h"


#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE  71
#endif


static ngx_int_t ngx_tailnet_listen_node(struct sockaddr *sa,
    ngx_tailnet_conf_t *tcf, ngx_uint_t *node);
static ngx_tailnet_conf_t *ngx_tailnet_listen_old(ngx_cycle_t *cycle);
static ngx_socket_t ngx_tailnet_listen_fd(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf, ngx_tailnet_conf_t *old, ngx_listening_t *ls,
    ngx_uint_t node);
static ngx_socket_t ngx_tailnet_listen_dup(ngx_tailnet_conf_t *tcf,
    ngx_tailnet_conf_t *old, ngx_listening_t *ls, ngx_uint_t node);
static ngx_int_t ngx_tailnet_listen_take(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf, ngx_listening_t *ls, ngx_uint_t node,
    ngx_socket_t fd, ngx_uint_t index);
static void ngx_tailnet_listen_skip_inherited(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
static void ngx_tailnet_listen_handler(ngx_connection_t *c);


static u_char  ngx_tailnet_prefix4[] = { 240, 84, 0 };

static u_char  ngx_tailnet_prefix6[] = {
    0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0xff, 0xff,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00
};


/* of the last cycle; workers inherit them */

static ngx_cycle_t         *ngx_tailnet_listen_cycle;
static ngx_tailnet_conf_t  *ngx_tailnet_listen_conf;


ngx_int_t
ngx_tailnet_listen_placeholder(ngx_conf_t *cf, ngx_uint_t node, int family,
    in_port_t port, struct sockaddr **sockaddr, socklen_t *socklen)
{
    u_char               *p;
    struct sockaddr_in   *sin;
    struct sockaddr_in6  *sin6;

    if (family == AF_INET6) {
        sin6 = ngx_pcalloc(cf->pool, sizeof(struct sockaddr_in6));
        if (sin6 == NULL) {
            return NGX_ERROR;
        }

        p = ngx_cpymem(&sin6->sin6_addr, ngx_tailnet_prefix6,
                       sizeof(ngx_tailnet_prefix6));

        *sockaddr = (struct sockaddr *) sin6;
        *socklen = sizeof(struct sockaddr_in6);

    } else {
        sin = ngx_pcalloc(cf->pool, sizeof(struct sockaddr_in));
        if (sin == NULL) {
            return NGX_ERROR;
        }

        p = ngx_cpymem(&sin->sin_addr, ngx_tailnet_prefix4,
                       sizeof(ngx_tailnet_prefix4));

        *sockaddr = (struct sockaddr *) sin;
        *socklen = sizeof(struct sockaddr_in);
    }

    *p = (u_char) (node + 1);

    (*sockaddr)->sa_family = family;
    ngx_inet_set_port(*sockaddr, port);

    return NGX_OK;
}


static ngx_int_t
ngx_tailnet_listen_node(struct sockaddr *sa, ngx_tailnet_conf_t *tcf,
    ngx_uint_t *node)
{
    size_t   len;
    u_char  *addr, *prefix;

    switch (sa->sa_family) {

    case AF_INET:
        addr = (u_char *) &((struct sockaddr_in *) sa)->sin_addr;
        prefix = ngx_tailnet_prefix4;
        len = sizeof(ngx_tailnet_prefix4);
        break;

    case AF_INET6:
        addr = (u_char *) &((struct sockaddr_in6 *) sa)->sin6_addr;
        prefix = ngx_tailnet_prefix6;
        len = sizeof(ngx_tailnet_prefix6);
        break;

    default:
        return NGX_DECLINED;
    }

    if (ngx_memcmp(addr, prefix, len) != 0
        || addr[len] == 0 || addr[len] > tcf->nodes.nelts)
    {
        return NGX_DECLINED;
    }

    *node = addr[len] - 1;

    return NGX_OK;
}


ngx_int_t
ngx_tailnet_listen_init_conf(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    ngx_int_t                rc;
    ngx_uint_t               i, n, node, kept, left;
    ngx_socket_t             fd;
    ngx_listening_t         *ls;
    ngx_tailnet_conf_t      *old;
    ngx_rbtree_insert_pt     insert;

    ls = cycle->listening.elts;

    if (ngx_test_config) {

        for (i = 0; i < cycle->listening.nelts; i++) {
            if (ngx_tailnet_listen_node(ls[i].sockaddr, tcf, &node)
                == NGX_OK)
            {
                ls[i].ignore = 1;
            }
        }

        return NGX_OK;
    }

    old = ngx_tailnet_listen_old(cycle);
    rc = ngx_tailnet_cycle_open(cycle, tcf, old);

    if (rc == NGX_DECLINED && (old || ngx_inherited)) {

        /* the cycle or binary before has what this one could not get */

        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "tailnet: %s", tcf->why);
        return NGX_ERROR;
    }

    kept = 0;
    left = 0;
    n = 0;

    for (i = 0; i < cycle->listening.nelts; i++) {

        if (ngx_tailnet_listen_node(ls[i].sockaddr, tcf, &node) == NGX_OK) {

            fd = (rc == NGX_OK)
                     ? ngx_tailnet_listen_fd(cycle, tcf, old, &ls[i], node)
                     : ngx_tailnet_listen_dup(tcf, old, &ls[i], node);

            if (fd == (ngx_socket_t) -1) {

                /* a listener without a socket would kill the workers */

                left++;
                continue;
            }

            kept++;

            if (ngx_tailnet_listen_take(cycle, tcf, &ls[i], node, fd, n)
                != NGX_OK)
            {
                (void) close(fd);
                return NGX_ERROR;
            }
        }

        if (n != i) {
            insert = ls[i].rbtree.insert;
            ls[n] = ls[i];
            ngx_rbtree_init(&ls[n].rbtree, &ls[n].sentinel, insert);
        }

        n++;
    }

    cycle->listening.nelts = n;

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "tailnet: %s; %ui mesh listeners are left out, %ui keep "
                      "the sockets they have", tcf->why, left, kept);
    }

    ngx_tailnet_listen_skip_inherited(cycle, tcf);

    return NGX_OK;
}


/* the configuration that ruled before, if it had this module */

static ngx_tailnet_conf_t *
ngx_tailnet_listen_old(ngx_cycle_t *cycle)
{
    ngx_uint_t    i;
    ngx_cycle_t  *old;

    old = cycle->old_cycle;

    if (old == NULL || old->conf_ctx == NULL || ngx_is_init_cycle(old)) {
        return NULL;
    }

    for (i = 0; old->modules[i]; i++) {
        if (old->modules[i] == &ngx_tailnet_module) {
            return ngx_tailnet_get_conf(old);
        }
    }

    return NULL;
}


static ngx_socket_t
ngx_tailnet_listen_fd(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf,
    ngx_tailnet_conf_t *old, ngx_listening_t *ls, ngx_uint_t node)
{
    ngx_socket_t         fd;
    ngx_tailnet_node_t  *nodes;

    fd = ngx_tailnet_cycle_listen(tcf, ls, node);

    if (fd != (ngx_socket_t) -1) {
        return fd;
    }

    nodes = tcf->nodes.elts;
    fd = ngx_tailnet_listen_dup(tcf, old, ls, node);

    ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                  "tailnet: no %s socket for port %d of node \"%V\": %s; %s",
                  ls->sockaddr->sa_family == AF_INET6 ? "IPv6" : "IPv4",
                  (int) ngx_inet_get_port(ls->sockaddr), &nodes[node].name,
                  tcf->why,
                  fd == (ngx_socket_t) -1 ? "the listener is left out"
                                          : "the old one stays");
    return fd;
}


/* tailnetd is away, but nginx has the sockets of the cycle before */

static ngx_socket_t
ngx_tailnet_listen_dup(ngx_tailnet_conf_t *tcf, ngx_tailnet_conf_t *old,
    ngx_listening_t *ls, ngx_uint_t node)
{
    ngx_str_t             *name, *name_old;
    ngx_uint_t             i;
    ngx_tailnet_node_t    *nodes;
    ngx_tailnet_listen_t  *l;

    if (old == NULL) {
        return (ngx_socket_t) -1;
    }

    nodes = tcf->nodes.elts;
    name = &nodes[node].name;

    nodes = old->nodes.elts;
    l = old->listens.elts;

    for (i = 0; i < old->listens.nelts; i++) {
        name_old = &nodes[l[i].node].name;

        if (l[i].family == ls->sockaddr->sa_family
            && l[i].type == ls->type
            && l[i].port == ngx_inet_get_port(ls->sockaddr)
            && l[i].worker == ls->worker
            && name_old->len == name->len
            && ngx_strncmp(name_old->data, name->data, name->len) == 0)
        {
            return fcntl(l[i].fd, F_DUPFD_CLOEXEC, 0);
        }
    }

    return (ngx_socket_t) -1;
}


static ngx_int_t
ngx_tailnet_listen_take(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf,
    ngx_listening_t *ls, ngx_uint_t node, ngx_socket_t fd, ngx_uint_t index)
{
    ngx_tailnet_node_t    *nodes;
    ngx_tailnet_listen_t  *l;

    nodes = tcf->nodes.elts;

    if (ngx_tailnet_listen_cookie(fd, &nodes[node].cookie) != NGX_OK) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_socket_errno,
                      "tailnet: getsockopt(SO_NETNS_COOKIE) failed, "
                      "mesh listeners need Linux 5.14");
        return NGX_ERROR;
    }

    if (ngx_nonblocking(fd) == -1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_socket_errno,
                      ngx_nonblocking_n " failed");
        return NGX_ERROR;
    }

#if (nginx_version < 1025000)

    /*
     * These versions name ignored sockets in NGINX= as well, and a new binary
     * would take whatever has that number then.
     */

    if (fcntl(fd, F_SETFD, 0) == -1) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "fcntl(F_SETFD) failed");
        return NGX_ERROR;
    }

#endif

    l = ngx_array_push(&tcf->listens);
    if (l == NULL) {
        return NGX_ERROR;
    }

    l->node = node;
    l->family = ls->sockaddr->sa_family;
    l->type = ls->type;
    l->port = ngx_inet_get_port(ls->sockaddr);
    l->worker = ls->worker;
    l->fd = fd;
    l->index = index;
    l->handler = NULL;

    ls->fd = fd;
    ls->ignore = 1;
    ls->open = 1;               /* closed if this cycle fails later */
    ls->wildcard = 1;           /* the address of each packet is asked for */

    if (ls->type == SOCK_STREAM) {
        ls->listen = 1;         /* listen() again with our backlog */
    }

#if (NGX_HAVE_DEFERRED_ACCEPT && defined TCP_DEFER_ACCEPT)

    /* the cycle before may have had it otherwise */

    if (ls->deferred_accept) {
        ls->add_deferred = 1;

    } else if (ls->type == SOCK_STREAM) {
        ls->delete_deferred = 1;
    }

#endif

    return NGX_OK;
}


/*
 * A binary upgrade from nginx before 1.25.0: the old master passed the sockets
 * of the mesh too, with wildcard addresses, and they would be taken for a
 * "listen *:PORT" of the host.  What is ignored here nginx closes.
 */

static void
ngx_tailnet_listen_skip_inherited(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    uint64_t              cookie;
    ngx_uint_t            i, n;
    ngx_cycle_t          *old;
    ngx_listening_t      *ls;
    ngx_tailnet_node_t   *nodes;

    old = cycle->old_cycle;

    if (old == NULL || !ngx_is_init_cycle(old)) {
        return;
    }

    ls = old->listening.elts;
    nodes = tcf->nodes.elts;

    for (i = 0; i < old->listening.nelts; i++) {

        if (ngx_tailnet_listen_cookie(ls[i].fd, &cookie) != NGX_OK) {
            continue;
        }

        for (n = 0; n < tcf->nodes.nelts; n++) {
            if (nodes[n].cookie && nodes[n].cookie == cookie) {
                ls[i].ignore = 1;
                break;
            }
        }
    }
}


ngx_int_t
ngx_tailnet_listen_cookie(ngx_socket_t fd, uint64_t *cookie)
{
    socklen_t  len;

    len = sizeof(uint64_t);

    if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &len) == -1
        || len != sizeof(uint64_t))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_tailnet_listen_init_module(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    u_char                *p;
    size_t                 len;
    ngx_uint_t             i;
    struct sockaddr       *sa;
    ngx_listening_t       *ls;
    ngx_tailnet_node_t    *nodes;
    ngx_tailnet_listen_t  *l;

    nodes = tcf->nodes.elts;
    l = tcf->listens.elts;

    for (i = 0; i < tcf->listens.nelts; i++) {
        ls = (ngx_listening_t *) cycle->listening.elts + l[i].index;

        /* another one: ngx_quic_bpf keeps pointers to what it saw */

        sa = ngx_pcalloc(cycle->pool, ls->socklen);
        if (sa == NULL) {
            return NGX_ERROR;
        }

        sa->sa_family = l[i].family;
        ngx_inet_set_port(sa, l[i].port);
        ls->sockaddr = sa;

        len = sizeof("tailnet::65535") + nodes[l[i].node].name.len;

        p = ngx_pnalloc(cycle->pool, len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ls->addr_text.data = p;
        ls->addr_text.len = ngx_sprintf(p, "tailnet:%V:%d%Z",
                                        &nodes[l[i].node].name,
                                        (int) l[i].port)
                            - p - 1;

        /* who it is must be known before nginx's handler may read a byte */

        l[i].handler = ls->handler;
        ls->handler = ngx_tailnet_listen_handler;
    }

    ngx_tailnet_listen_cycle = cycle;
    ngx_tailnet_listen_conf = tcf;

    return NGX_OK;
}


ngx_tailnet_listen_t *
ngx_tailnet_listen_find(ngx_listening_t *ls)
{
    ngx_uint_t             low, high, middle, index;
    ngx_listening_t       *first;
    ngx_tailnet_listen_t  *l;

    if (ls == NULL || ls->handler != ngx_tailnet_listen_handler) {
        return NULL;
    }

    first = ngx_tailnet_listen_cycle->listening.elts;
    index = ls - first;

    /* in the order of cycle->listening */

    l = ngx_tailnet_listen_conf->listens.elts;
    low = 0;
    high = ngx_tailnet_listen_conf->listens.nelts;

    while (low < high) {
        middle = (low + high) / 2;

        if (l[middle].index == index) {
            return &l[middle];
        }

        if (l[middle].index < index) {
            low = middle + 1;

        } else {
            high = middle;
        }
    }

    return NULL;
}


static void
ngx_tailnet_listen_handler(ngx_connection_t *c)
{
    ngx_pool_t            *pool;
    ngx_tailnet_listen_t  *l;

    l = ngx_tailnet_listen_find(c->listening);

    if (l) {
        ngx_tailnet_identity_bind(c, l);
        l->handler(c);
        return;
    }

    /* with "master_process off" the listener may be of a former cycle */

    ngx_log_error(NGX_LOG_ALERT, c->log, 0,
                  "tailnet: a connection to a listener that is gone");

    pool = c->pool;
    ngx_close_connection(c);
    ngx_destroy_pool(pool);

#if (NGX_STAT_STUB)
    (void) ngx_atomic_fetch_add(ngx_stat_active, -1);
#endif
}


/*
 * A worker's channel to tailnetd, and the snapshots that come over it.
 *
 * The worker has no right to tailnetd's socket.  It makes a socketpair and
 * hands one end over the hello-only connection that it inherited.  When the
 * channel is lost everything that was received stays in use, and a new one is
 * tried each second.
 */


#include "ngx_tailnet.h"
#include <poll.h>


#define NGX_TAILNET_WORKER_WAIT   1000      /* ms, for the first snapshots */
#define NGX_TAILNET_WORKER_RETRY  1000      /* ms */
#define NGX_TAILNET_WORKER_TIMER  86400000  /* ms, the longest one */

/* what all workers see alike only the first one says aloud */

#define ngx_tailnet_worker_level(level)  (ngx_worker ? NGX_LOG_INFO : (level))


typedef struct {
    ngx_str_t           *name;
    struct tn_snap       snap;          /* base NULL: none yet */
    ngx_tailnet_ask_t    subscribe;
    ngx_event_t          expiry;        /* of the key of the node itself */
    unsigned             answered:1;    /* nothing more to wait for */
} ngx_tailnet_worker_node_t;


static void ngx_tailnet_worker_open(ngx_cycle_t *cycle);
static ngx_int_t ngx_tailnet_worker_attach(ngx_cycle_t *cycle);
static ngx_int_t ngx_tailnet_worker_hello(void);
static void ngx_tailnet_worker_hello_handler(void *data,
    ngx_tailnet_msg_t *m);
static void ngx_tailnet_worker_subscribe(ngx_tailnet_worker_node_t *node);
static void ngx_tailnet_worker_subscribe_handler(void *data,
    ngx_tailnet_msg_t *m);
static void ngx_tailnet_worker_wait(ngx_cycle_t *cycle);
static void ngx_tailnet_worker_read_handler(ngx_event_t *ev);
static void ngx_tailnet_worker_write_handler(ngx_event_t *ev);
static void ngx_tailnet_worker_message(ngx_tailnet_msg_t *m);
static void ngx_tailnet_worker_snapshot(ngx_tailnet_msg_t *m);
static const char *ngx_tailnet_worker_map(ngx_tailnet_worker_node_t *node,
    int fd, uint64_t generation);
static void ngx_tailnet_worker_arm(ngx_tailnet_worker_node_t *node);
static void ngx_tailnet_worker_expiry_handler(ngx_event_t *ev);
static void ngx_tailnet_worker_lost(const char *why);
static void ngx_tailnet_worker_close(void);
static void ngx_tailnet_worker_retry_handler(ngx_event_t *ev);


static ngx_socket_t                ngx_tailnet_worker_inherited =
                                                            (ngx_socket_t) -1;
static ngx_connection_t           *ngx_tailnet_worker_channel;
static ngx_tailnet_worker_node_t  *ngx_tailnet_worker_node;
static ngx_uint_t                  ngx_tailnet_worker_nnodes;
static ngx_queue_t                 ngx_tailnet_worker_asks;
static ngx_tailnet_ask_t           ngx_tailnet_worker_hello_ask;
static uint32_t                    ngx_tailnet_worker_seq;
static ngx_event_t                 ngx_tailnet_worker_retry;
static ngx_uint_t                  ngx_tailnet_worker_up;   /* HELLO done */
static ngx_uint_t                  ngx_tailnet_worker_quiet;


ngx_int_t
ngx_tailnet_worker_init(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    ngx_uint_t                  i;
    ngx_tailnet_node_t         *nodes;
    ngx_tailnet_worker_node_t  *node;

    ngx_queue_init(&ngx_tailnet_worker_asks);

    node = ngx_pcalloc(cycle->pool, tcf->nodes.nelts
                                    * sizeof(ngx_tailnet_worker_node_t));
    if (node == NULL) {
        return NGX_ERROR;
    }

    nodes = tcf->nodes.elts;

    for (i = 0; i < tcf->nodes.nelts; i++) {
        node[i].name = &nodes[i].name;
        node[i].subscribe.handler = ngx_tailnet_worker_subscribe_handler;
        node[i].subscribe.data = &node[i];
        node[i].expiry.handler = ngx_tailnet_worker_expiry_handler;
        node[i].expiry.data = &node[i];
        node[i].expiry.log = cycle->log;
        node[i].expiry.cancelable = 1;
    }

    ngx_tailnet_worker_node = node;
    ngx_tailnet_worker_nnodes = tcf->nodes.nelts;
    ngx_tailnet_worker_inherited = tcf->hello;

    ngx_tailnet_worker_hello_ask.handler = ngx_tailnet_worker_hello_handler;

    ngx_tailnet_worker_retry.handler = ngx_tailnet_worker_retry_handler;
    ngx_tailnet_worker_retry.data = &ngx_tailnet_worker_retry;
    ngx_tailnet_worker_retry.log = cycle->log;
    ngx_tailnet_worker_retry.cancelable = 1;

    if (ngx_tailnet_worker_inherited == (ngx_socket_t) -1) {

        /* the master said why */

        return NGX_OK;
    }

    ngx_tailnet_worker_open(cycle);
    ngx_tailnet_worker_wait(cycle);

    return NGX_OK;
}


void
ngx_tailnet_worker_exit(void)
{
    if (ngx_tailnet_worker_channel) {
        ngx_tailnet_worker_close();
    }
}


ngx_str_t *
ngx_tailnet_worker_name(ngx_uint_t node)
{
    return ngx_tailnet_worker_node[node].name;
}


ngx_uint_t
ngx_tailnet_worker_ready(void)
{
    return ngx_tailnet_worker_up;
}


struct tn_snap *
ngx_tailnet_worker_snap(ngx_uint_t node)
{
    if (node >= ngx_tailnet_worker_nnodes
        || ngx_tailnet_worker_node[node].snap.base == NULL)
    {
        return NULL;
    }

    return &ngx_tailnet_worker_node[node].snap;
}


static void
ngx_tailnet_worker_open(ngx_cycle_t *cycle)
{
    if (ngx_tailnet_worker_attach(cycle) == NGX_OK
        && ngx_tailnet_worker_hello() == NGX_OK)
    {
        return;
    }

    if (ngx_tailnet_worker_channel) {
        ngx_tailnet_worker_lost("it takes no hello");
        return;
    }

    if (!ngx_exiting) {
        ngx_add_timer(&ngx_tailnet_worker_retry, NGX_TAILNET_WORKER_RETRY);
    }
}


static ngx_int_t
ngx_tailnet_worker_attach(ngx_cycle_t *cycle)
{
    int                    sv[2];
    ngx_int_t              event;
    ngx_uint_t             level;
    ngx_connection_t      *c;
    struct tn_admin_head   h;

    level = ngx_tailnet_worker_quiet ? NGX_LOG_DEBUG : NGX_LOG_ERR;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC|SOCK_NONBLOCK, 0, sv)
        == -1)
    {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, ngx_errno,
                      "tailnet: socketpair() failed");
        return NGX_ERROR;
    }

    ngx_memzero(&h, sizeof(struct tn_admin_head));
    h.type = TN_ADMIN_ATTACH;
    h.seq = 1;

    if (ngx_tailnet_admin_send(ngx_tailnet_worker_inherited, &h, sizeof(h),
                               &sv[1], 1)
        != NGX_OK)
    {
        ngx_log_error(level, cycle->log, ngx_errno,
                      "tailnet: no channel to tailnetd, trying again");

        ngx_tailnet_worker_quiet = 1;
        (void) close(sv[0]);
        (void) close(sv[1]);
        return NGX_ERROR;
    }

    (void) close(sv[1]);

    c = ngx_get_connection(sv[0], cycle->log);
    if (c == NULL) {
        (void) close(sv[0]);
        return NGX_ERROR;
    }

    c->read->handler = ngx_tailnet_worker_read_handler;
    c->write->handler = ngx_tailnet_worker_write_handler;
    c->read->log = cycle->log;
    c->write->log = cycle->log;

    event = (ngx_event_flags & NGX_USE_CLEAR_EVENT) ? NGX_CLEAR_EVENT
                                                    : NGX_LEVEL_EVENT;

    if (ngx_add_event(c->read, NGX_READ_EVENT, event) == NGX_ERROR) {
        ngx_close_connection(c);
        return NGX_ERROR;
    }

    ngx_tailnet_worker_channel = c;

    return NGX_OK;
}


static ngx_int_t
ngx_tailnet_worker_hello(void)
{
    struct tn_admin_hello  hello;

    ngx_memzero(&hello, sizeof(struct tn_admin_hello));
    hello.h.type = TN_ADMIN_HELLO;
    hello.version = TN_ADMIN_VERSION;
    hello.role = TN_ROLE_WORKER;

    return ngx_tailnet_worker_ask(&ngx_tailnet_worker_hello_ask, &hello,
                                  sizeof(hello));
}


static void
ngx_tailnet_worker_hello_handler(void *data, ngx_tailnet_msg_t *m)
{
    ngx_uint_t  i;

    if (m == NULL) {
        return;
    }

    if (m->u.head.type != TN_ADMIN_HELLO_OK
        || m->len < sizeof(struct tn_admin_hello_ok)
        || m->u.hello_ok.version != TN_ADMIN_VERSION)
    {
        ngx_tailnet_worker_lost("it refused the hello");
        return;
    }

    if (ngx_tailnet_worker_quiet) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "tailnet: the channel to tailnetd is back");
        ngx_tailnet_worker_quiet = 0;
    }

    ngx_tailnet_worker_up = 1;

    for (i = 0; i < ngx_tailnet_worker_nnodes; i++) {
        ngx_tailnet_worker_subscribe(&ngx_tailnet_worker_node[i]);
    }

    ngx_tailnet_connect_up();
}


static void
ngx_tailnet_worker_subscribe(ngx_tailnet_worker_node_t *node)
{
    struct tn_admin_node  ask;

    ngx_memzero(&ask, sizeof(struct tn_admin_node));
    ask.h.type = TN_ADMIN_SUBSCRIBE;
    ngx_memcpy(ask.node, node->name->data, node->name->len);

    if (ngx_tailnet_worker_ask(&node->subscribe, &ask, sizeof(ask))
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "tailnet: could not ask for the peers of node \"%V\"",
                      node->name);
    }
}


static void
ngx_tailnet_worker_subscribe_handler(void *data, ngx_tailnet_msg_t *m)
{
    ngx_tailnet_worker_node_t *node = data;

    ngx_str_t  text;

    if (m == NULL || m->u.head.type == TN_ADMIN_OK) {
        return;
    }

    node->answered = 1;

    text = ngx_tailnet_admin_text(m);

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "tailnet: no peers of node \"%V\": tailnetd says: %V",
                  node->name, &text);
}


/*
 * Before the worker accepts: without a snapshot it would refuse everybody.
 * Events do not run yet, so this reads the channel itself.
 */

static void
ngx_tailnet_worker_wait(ngx_cycle_t *cycle)
{
    int              n, left;
    ngx_uint_t       i, level;
    struct pollfd    pfd;
    struct timespec  ts;
    int64_t          now, end;

    end = 0;

    for ( ;; ) {

        if (ngx_tailnet_worker_channel == NULL) {
            return;
        }

        for (i = 0; i < ngx_tailnet_worker_nnodes; i++) {
            if (ngx_tailnet_worker_node[i].snap.base == NULL
                && !ngx_tailnet_worker_node[i].answered)
            {
                break;
            }
        }

        if (i == ngx_tailnet_worker_nnodes) {
            return;
        }

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        now = (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;

        if (end == 0) {
            end = now + NGX_TAILNET_WORKER_WAIT;
        }

        left = (int) (end - now);

        if (left <= 0) {
            break;
        }

        pfd.fd = ngx_tailnet_worker_channel->fd;
        pfd.events = POLLIN;

        n = poll(&pfd, 1, left);

        if (n == -1 && ngx_errno != NGX_EINTR) {
            break;
        }

        if (n > 0) {
            ngx_tailnet_worker_read_handler(ngx_tailnet_worker_channel->read);
        }
    }

    for (i = 0; i < ngx_tailnet_worker_nnodes; i++) {
        if (ngx_tailnet_worker_node[i].snap.base == NULL
            && !ngx_tailnet_worker_node[i].answered)
        {
            level = ngx_tailnet_worker_level(NGX_LOG_WARN);

            ngx_log_error(level, cycle->log, 0,
                          "tailnet: no snapshot of node \"%V\" yet, "
                          "its peers are unknown until it comes",
                          ngx_tailnet_worker_node[i].name);
        }
    }
}


static void
ngx_tailnet_worker_read_handler(ngx_event_t *ev)
{
    ssize_t            n;
    ngx_connection_t  *c;
    ngx_tailnet_msg_t  m;

    c = ev->data;

    /* a handler may close the channel */

    while (c == ngx_tailnet_worker_channel) {

        n = ngx_tailnet_admin_recv(c->fd, &m, MSG_DONTWAIT);

        if (n == -1 && ngx_errno == NGX_EAGAIN) {
            ev->ready = 0;
            return;
        }

        if (n <= 0) {
            ngx_tailnet_worker_lost(n == 0 ? "closed by tailnetd"
                                           : strerror(ngx_errno));
            return;
        }

        ngx_tailnet_worker_message(&m);
        ngx_tailnet_admin_discard(&m);
    }
}


static void
ngx_tailnet_worker_write_handler(ngx_event_t *ev)
{
    /* messages are sent when they are made or not at all */
}


static void
ngx_tailnet_worker_message(ngx_tailnet_msg_t *m)
{
    ngx_queue_t        *q;
    ngx_tailnet_ask_t  *ask;

    if (m->u.head.seq == 0) {

        if (m->u.head.type == TN_ADMIN_SNAPSHOT) {
            ngx_tailnet_worker_snapshot(m);
        }

        return;
    }

    for (q = ngx_queue_head(&ngx_tailnet_worker_asks);
         q != ngx_queue_sentinel(&ngx_tailnet_worker_asks);
         q = ngx_queue_next(q))
    {
        ask = ngx_queue_data(q, ngx_tailnet_ask_t, queue);

        if (ask->seq == m->u.head.seq) {
            ngx_tailnet_worker_cancel(ask);
            ask->handler(ask->data, m);
            return;
        }
    }
}


static void
ngx_tailnet_worker_snapshot(ngx_tailnet_msg_t *m)
{
    size_t                      len;
    uint64_t                    generation;
    ngx_uint_t                  i;
    const char                 *wrong;
    ngx_tailnet_worker_node_t  *node;

    if (m->len != sizeof(struct tn_admin_snapshot) || m->nfds != 1) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "tailnet: a malformed message about a snapshot");
        return;
    }

    len = ngx_strnlen((u_char *) m->u.snapshot.node,
                      sizeof(m->u.snapshot.node));

    node = NULL;

    for (i = 0; i < ngx_tailnet_worker_nnodes; i++) {
        node = &ngx_tailnet_worker_node[i];

        if (node->name->len == len
            && ngx_memcmp(node->name->data, m->u.snapshot.node, len) == 0)
        {
            break;
        }
    }

    if (node == NULL || i == ngx_tailnet_worker_nnodes) {
        return;
    }

    node->answered = 1;
    generation = m->u.snapshot.generation;

    if (node->snap.base && generation == node->snap.head.generation) {

        /* subscribed anew, nothing changed */

        return;
    }

    wrong = ngx_tailnet_worker_map(node, m->fds[0], generation);

    if (wrong) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "tailnet: refused snapshot %uL of node \"%V\": %s; %s",
                      generation, node->name, wrong,
                      node->snap.base ? "the one before stays"
                                      : "no peer is known");
        return;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_CORE, ngx_cycle->log, 0,
                   "tailnet: snapshot %uL of node \"%V\"",
                   generation, node->name);

    ngx_tailnet_worker_arm(node);
    ngx_tailnet_identity_recheck();
    ngx_tailnet_connect_recheck();
}


/*
 * The seals make the pages as constant as memory of our own: what the header
 * was checked for stays true, and no access can end in SIGBUS.
 */

static const char *
ngx_tailnet_worker_map(ngx_tailnet_worker_node_t *node, int fd,
    uint64_t generation)
{
    int               seals;
    void             *map;
    const char       *wrong;
    struct stat       st;
    struct tn_snap    snap;

    seals = fcntl(fd, F_GET_SEALS);

    if (seals == -1
        || (seals & (F_SEAL_WRITE|F_SEAL_SHRINK|F_SEAL_GROW))
           != (F_SEAL_WRITE|F_SEAL_SHRINK|F_SEAL_GROW))
    {
        return "it is not sealed";
    }

    if (fstat(fd, &st) == -1) {
        return "its size can't be known";
    }

    if (st.st_size < (off_t) sizeof(struct tn_snap_head)
        || st.st_size > (off_t) TN_SNAP_MAX_SIZE)
    {
        return "it is too small or too large";
    }

    map = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

    if (map == MAP_FAILED) {
        return "mmap() failed";
    }

    wrong = tn_snap_open(&snap, map, st.st_size);

    if (wrong == NULL) {

        if (snap.head.generation != generation) {
            wrong = "it is of another generation than it was said to be";

        } else if (node->snap.base
                   && generation < node->snap.head.generation)
        {
            wrong = "it is older than the one before";
        }
    }

    if (wrong) {
        (void) munmap(map, st.st_size);
        return wrong;
    }

    if (node->snap.base) {
        (void) munmap((void *) node->snap.base, node->snap.size);
    }

    node->snap = snap;

    return NULL;
}


/*
 * when the key of the node itself expires, no snapshot need come to say so; its
 * connections end by their own timer
 */

static void
ngx_tailnet_worker_arm(ngx_tailnet_worker_node_t *node)
{
    int64_t  left;

    if (node->expiry.timer_set) {
        ngx_del_timer(&node->expiry);
    }

    if (node->snap.head.self_expiry == 0) {
        return;
    }

    left = node->snap.head.self_expiry - (int64_t) ngx_time();

    if (left <= 0) {
        return;
    }

    if (left >= NGX_TAILNET_WORKER_TIMER / 1000) {
        left = NGX_TAILNET_WORKER_TIMER;

    } else {
        left *= 1000;
    }

    ngx_add_timer(&node->expiry, (ngx_msec_t) left);
}


static void
ngx_tailnet_worker_expiry_handler(ngx_event_t *ev)
{
    ngx_tailnet_worker_node_t *node = ev->data;

    ngx_uint_t  level;

    if (node->snap.head.self_expiry <= (int64_t) ngx_time()) {
        level = ngx_tailnet_worker_level(NGX_LOG_ERR);

        ngx_log_error(level, ev->log, 0,
                      "tailnet: the key of node \"%V\" has expired, "
                      "no peer is known any more", node->name);
    }

    ngx_tailnet_worker_arm(node);
}


static void
ngx_tailnet_worker_lost(const char *why)
{
    ngx_uint_t           level;
    ngx_queue_t         *q;
    ngx_tailnet_ask_t   *ask;
    ngx_tailnet_conf_t  *tcf;

    tcf = ngx_tailnet_get_conf(ngx_cycle);

    level = ngx_tailnet_worker_quiet ? NGX_LOG_INFO : NGX_LOG_ERR;
    ngx_tailnet_worker_quiet = 1;

    ngx_log_error(level, ngx_cycle->log, 0,
                  "tailnet: lost the channel to tailnetd: %s; what is known "
                  "stays in use, %s", why,
                  tcf->table.nelts ? "a reload starts tailnetd if it died"
                                   : "reload nginx when the service is back");

    ngx_tailnet_worker_close();

    while (!ngx_queue_empty(&ngx_tailnet_worker_asks)) {
        q = ngx_queue_head(&ngx_tailnet_worker_asks);
        ask = ngx_queue_data(q, ngx_tailnet_ask_t, queue);

        ngx_tailnet_worker_cancel(ask);
        ask->handler(ask->data, NULL);
    }

    ngx_tailnet_connect_lost();

    if (!ngx_exiting && !ngx_tailnet_worker_retry.timer_set) {
        ngx_add_timer(&ngx_tailnet_worker_retry, NGX_TAILNET_WORKER_RETRY);
    }
}


static void
ngx_tailnet_worker_close(void)
{
    ngx_connection_t  *c;

    c = ngx_tailnet_worker_channel;

    ngx_tailnet_worker_channel = NULL;
    ngx_tailnet_worker_up = 0;

    ngx_close_connection(c);
}


static void
ngx_tailnet_worker_retry_handler(ngx_event_t *ev)
{
    if (!ngx_exiting) {
        ngx_tailnet_worker_open((ngx_cycle_t *) ngx_cycle);
    }
}


ngx_int_t
ngx_tailnet_worker_ask(ngx_tailnet_ask_t *ask, void *msg, size_t len)
{
    struct tn_admin_head  *h = msg;

    if (ngx_tailnet_worker_channel == NULL
        || (!ngx_tailnet_worker_up && ask != &ngx_tailnet_worker_hello_ask))
    {
        return NGX_DECLINED;
    }

    if (++ngx_tailnet_worker_seq == 0) {
        ngx_tailnet_worker_seq = 1;         /* 0: not asked for */
    }

    h->seq = ngx_tailnet_worker_seq;

    if (ngx_tailnet_admin_send(ngx_tailnet_worker_channel->fd, msg, len,
                               NULL, 0)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, ngx_errno,
                      "tailnet: sendmsg() to tailnetd failed");
        return NGX_DECLINED;
    }

    ask->seq = h->seq;
    ask->pending = 1;
    ngx_queue_insert_tail(&ngx_tailnet_worker_asks, &ask->queue);

    return NGX_OK;
}


void
ngx_tailnet_worker_cancel(ngx_tailnet_ask_t *ask)
{
    if (ask->pending) {
        ask->pending = 0;
        ngx_queue_remove(&ask->queue);
    }
}

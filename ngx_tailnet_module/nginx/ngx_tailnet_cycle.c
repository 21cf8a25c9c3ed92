
/*
 * The master's side of the admin channel: one control connection per cycle.
 *
 * tailnetd keeps the sockets and nodes of a connection while it is open, so a
 * cycle that fails or is replaced needs no words: a cleanup of its pool closes
 * the connection.  Whoever defines nodes owns tailnetd: it is started here if
 * the configuration has tailnet_node blocks, and never if it has none.
 */


#include "ngx_tailnet.h"
#include <sys/mman.h>


#define NGX_TAILNET_TIMEOUT        2    /* s, for an answer */
#define NGX_TAILNET_START_TIMEOUT  5    /* s, for the first one of a new one */
#define NGX_TAILNET_STOP_TIMEOUT   2    /* s, to log ephemeral nodes out */


static ngx_int_t ngx_tailnet_cycle_hello(ngx_tailnet_conf_t *tcf,
    ngx_socket_t *s, uint64_t *cycle_id);
static void ngx_tailnet_cycle_adopt(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf, ngx_tailnet_conf_t *old);
static ngx_int_t ngx_tailnet_cycle_table(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
static ngx_int_t ngx_tailnet_cycle_secrets(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
static int ngx_tailnet_cycle_secret(const char *value);
static ngx_socket_t ngx_tailnet_cycle_socket(ngx_tailnet_conf_t *tcf,
    const char *name);
static void ngx_tailnet_cycle_anchor(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
static void ngx_tailnet_cycle_bequest(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
static ngx_int_t ngx_tailnet_cycle_inherit(ngx_tailnet_conf_t *tcf);
static ngx_socket_t ngx_tailnet_cycle_dial(ngx_tailnet_conf_t *tcf);
static void ngx_tailnet_cycle_timeout(ngx_socket_t s, time_t sec);
static void ngx_tailnet_cycle_cleanup(void *data);
static void ngx_tailnet_cycle_close(ngx_socket_t *s);


/* the default: beside the pid file, in a folder that tailnetd makes */

ngx_int_t
ngx_tailnet_cycle_path(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    u_char              *p;
    size_t               len;
    ngx_str_t           *pid;
    ngx_uint_t           named;
    ngx_core_conf_t     *ccf;
    struct sockaddr_un  *un;

    named = (tcf->path.len != 0);

    if (!named) {
        ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx,
                                               ngx_core_module);
        pid = &ccf->pid;
        len = pid->len;

        if (len > 4 && ngx_strncmp(pid->data + len - 4, ".pid", 4) == 0) {
            len -= 4;
        }

        p = ngx_pnalloc(cycle->pool, len + sizeof("-tailnet/admin.sock"));
        if (p == NULL) {
            return NGX_ERROR;
        }

        tcf->path.data = p;
        p = ngx_cpymem(p, pid->data, len);
        p = ngx_cpymem(p, "-tailnet/admin.sock",
                       sizeof("-tailnet/admin.sock"));
        tcf->path.len = p - 1 - tcf->path.data;
    }

    if (tcf->path.len >= sizeof(un->sun_path)) {

        if (named) {
            ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                          "the name of the socket \"%V\" is longer than %uz "
                          "bytes in %V:%ui", &tcf->path,
                          sizeof(un->sun_path) - 1, &tcf->place.file,
                          tcf->place.line);
            return NGX_ERROR;
        }

        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "the name of the socket \"%V\" is longer than %uz "
                      "bytes, choose another with \"tailnet_engine "
                      "unix:PATH\"", &tcf->path, sizeof(un->sun_path) - 1);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_tailnet_cycle_open(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf,
    ngx_tailnet_conf_t *old)
{
    ngx_err_t            err;
    ngx_uint_t           spawned;
    ngx_pool_cleanup_t  *cln;

    spawned = 0;

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        ngx_tailnet_why(tcf, "no memory");
        return NGX_ERROR;
    }

    /* runs before load_module's cleanup unloads this code */

    cln->handler = ngx_tailnet_cycle_cleanup;
    cln->data = tcf;

    tcf->ctl = ngx_tailnet_cycle_dial(tcf);

    if (tcf->ctl == (ngx_socket_t) -1) {
        err = ngx_errno;

        if (err == NGX_EAGAIN) {
            return NGX_DECLINED;
        }

        if (tcf->table.nelts == 0
            || (err != NGX_ENOENT && err != NGX_ECONNREFUSED))
        {
            return NGX_ERROR;
        }

        tcf->ctl = ngx_tailnet_spawn(cycle, tcf);
        if (tcf->ctl == (ngx_socket_t) -1) {
            return NGX_ERROR;
        }

        spawned = 1;
        ngx_tailnet_cycle_timeout(tcf->ctl, NGX_TAILNET_START_TIMEOUT);
    }

    if (ngx_tailnet_cycle_hello(tcf, &tcf->ctl, &tcf->cycle_id) != NGX_OK) {
        ngx_tailnet_cycle_close(&tcf->ctl);
        return spawned ? NGX_ERROR : NGX_DECLINED;
    }

    ngx_tailnet_cycle_timeout(tcf->ctl, NGX_TAILNET_TIMEOUT);

    if (spawned && old) {
        ngx_tailnet_cycle_adopt(cycle, tcf, old);
    }

    if (ngx_tailnet_cycle_table(cycle, tcf) != NGX_OK
        || ngx_tailnet_cycle_secrets(cycle, tcf) != NGX_OK)
    {
        ngx_tailnet_cycle_close(&tcf->ctl);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_tailnet_cycle_hello(ngx_tailnet_conf_t *tcf, ngx_socket_t *s,
    uint64_t *cycle_id)
{
    ngx_int_t               rc;
    ngx_tailnet_msg_t       m;
    struct tn_admin_hello   hello;

    ngx_memzero(&hello, sizeof(struct tn_admin_hello));
    hello.h.type = TN_ADMIN_HELLO;
    hello.version = TN_ADMIN_VERSION;
    hello.role = TN_ROLE_MASTER;

    rc = ngx_tailnet_admin_call(tcf, s, &hello, sizeof(hello), NULL, 0,
                                TN_ADMIN_HELLO_OK, &m);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_tailnet_admin_discard(&m);

    /* other versions may have another length, but not before the cycle */

    if (m.len < offsetof(struct tn_admin_hello_ok, cycle)) {
        ngx_tailnet_why(tcf, "the hello of tailnetd at \"%V\" makes no sense",
                        &tcf->path);
        return NGX_ERROR;
    }

    if (m.u.hello_ok.version != TN_ADMIN_VERSION
        || m.len < sizeof(struct tn_admin_hello_ok))
    {
        ngx_tailnet_why(tcf, "tailnetd at \"%V\" (process %uD) is of another "
                        "version than this module, end it and reload nginx",
                        &tcf->path, m.u.hello_ok.pid);
        return NGX_ERROR;
    }

    *cycle_id = m.u.hello_ok.cycle;

    return NGX_OK;
}


/*
 * The last tailnetd died.  Its namespaces live in the sockets that nginx still
 * has, and its engine may be alive at the other end of the bequest.
 */

static void
ngx_tailnet_cycle_adopt(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf,
    ngx_tailnet_conf_t *old)
{
    int                       fds[2];
    ngx_uint_t                i, nfds;
    struct tn_node           *table;
    ngx_tailnet_msg_t         m;
    struct tn_admin_adopt     adopt;

    table = tcf->table.elts;

    fds[1] = old->bequest;
    nfds = (old->bequest == (ngx_socket_t) -1) ? 1 : 2;

    for (i = 0; i < tcf->table.nelts; i++) {

        fds[0] = ngx_tailnet_cycle_socket(old, table[i].name);

        if (fds[0] == (ngx_socket_t) -1) {
            continue;
        }

        ngx_memzero(&adopt, sizeof(struct tn_admin_adopt));
        adopt.h.type = TN_ADMIN_ADOPT;
        ngx_memcpy(adopt.node, table[i].name, sizeof(adopt.node));

        if (ngx_tailnet_admin_call(tcf, &tcf->ctl, &adopt, sizeof(adopt),
                                   fds, nfds, TN_ADMIN_OK, &m)
            != NGX_OK)
        {
            ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                          "tailnet: node \"%s\" starts anew, its connections "
                          "are lost: %s", table[i].name, tcf->why);
            continue;
        }

        ngx_tailnet_admin_discard(&m);

        /* one engine had all nodes */

        nfds = 1;
    }
}


/* any socket of the node's namespace, or -1 */

static ngx_socket_t
ngx_tailnet_cycle_socket(ngx_tailnet_conf_t *tcf, const char *name)
{
    ngx_uint_t             i;
    struct tn_node        *table;
    ngx_tailnet_node_t    *nodes;
    ngx_tailnet_listen_t  *l;

    nodes = tcf->nodes.elts;
    l = tcf->listens.elts;

    for (i = 0; i < tcf->listens.nelts; i++) {
        if (ngx_strlen(name) == nodes[l[i].node].name.len
            && ngx_strncmp(name, nodes[l[i].node].name.data,
                           nodes[l[i].node].name.len)
               == 0)
        {
            return l[i].fd;
        }
    }

    if (tcf->anchors) {
        table = tcf->table.elts;

        for (i = 0; i < tcf->table.nelts; i++) {
            if (ngx_strcmp(table[i].name, name) == 0) {
                return tcf->anchors[i];
            }
        }
    }

    return (ngx_socket_t) -1;
}


/* without blocks an empty table: the nodes of the service, which it lends */

static ngx_int_t
ngx_tailnet_cycle_table(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    size_t                  len;
    ngx_int_t               rc;
    ngx_tailnet_msg_t       m;
    struct tn_admin_text   *text;

    text = ngx_alloc(sizeof(struct tn_admin_text) + TN_TABLE_MAX, cycle->log);
    if (text == NULL) {
        ngx_tailnet_why(tcf, "no memory");
        return NGX_ERROR;
    }

    ngx_memzero(text, sizeof(struct tn_admin_text));
    text->h.type = TN_ADMIN_TABLE;

    len = tn_node_write(tcf->table.elts, tcf->table.nelts, text->text,
                        TN_TABLE_MAX);

    if (len == 0) {
        ngx_tailnet_why(tcf, "the text of all \"tailnet_node\" blocks is "
                        "longer than %d bytes", TN_TABLE_MAX);
        rc = NGX_ERROR;

    } else {
        rc = ngx_tailnet_admin_call(tcf, &tcf->ctl, text,
                                    sizeof(struct tn_admin_text) + len,
                                    NULL, 0, TN_ADMIN_OK, &m);
    }

    if (rc == NGX_OK) {
        ngx_tailnet_admin_discard(&m);
    }

    ngx_free(text);

    return rc;
}


/*
 * A tailnetd that was there before has another environment than this master.
 * A node whose variable is not set may need no auth key any more; when it does,
 * it says what is missing.
 */

static ngx_int_t
ngx_tailnet_cycle_secrets(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    int                     fd;
    char                   *value;
    ngx_int_t               rc;
    ngx_uint_t              i;
    struct tn_node         *table;
    ngx_tailnet_msg_t       m;
    struct tn_admin_node    secret;

    table = tcf->table.elts;

    for (i = 0; i < tcf->table.nelts; i++) {

        if (ngx_strncmp(table[i].auth_key, "env:", 4) != 0) {
            continue;
        }

        value = getenv(table[i].auth_key + 4);

        if (value == NULL || *value == '\0') {
            continue;
        }

        ngx_memzero(&secret, sizeof(struct tn_admin_node));
        secret.h.type = TN_ADMIN_SECRET;
        ngx_memcpy(secret.node, table[i].name, sizeof(secret.node));

        fd = ngx_tailnet_cycle_secret(value);

        if (fd == -1) {
            ngx_tailnet_why(tcf, "no memory file (%d: %s)", ngx_errno,
                            strerror(ngx_errno));
            rc = NGX_DECLINED;

        } else {
            rc = ngx_tailnet_admin_call(tcf, &tcf->ctl, &secret,
                                        sizeof(secret), &fd, 1, TN_ADMIN_OK,
                                        &m);
            (void) close(fd);
        }

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_OK) {
            ngx_tailnet_admin_discard(&m);
            continue;
        }

        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "tailnet: node \"%s\" goes without the \"auth_key %s\" "
                      "of this nginx: %s", table[i].name, table[i].auth_key,
                      tcf->why);
    }

    return NGX_OK;
}


/* never in memory of nginx's or tailnetd's own: no copy has to be wiped */

static int
ngx_tailnet_cycle_secret(const char *value)
{
    int        fd;
    size_t     len;
    ngx_err_t  err;

    fd = memfd_create("tailnet-secret", MFD_CLOEXEC|MFD_ALLOW_SEALING);

    if (fd == -1) {
        return -1;
    }

    len = ngx_strlen(value);

    if (write(fd, value, len) == (ssize_t) len
        && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE|F_SEAL_GROW|F_SEAL_SHRINK) == 0)
    {
        return fd;
    }

    err = ngx_errno;
    (void) close(fd);
    ngx_set_errno(err);

    return -1;
}


ngx_socket_t
ngx_tailnet_cycle_listen(ngx_tailnet_conf_t *tcf, ngx_listening_t *ls,
    ngx_uint_t node)
{
    ngx_str_t                *name;
    ngx_tailnet_msg_t         m;
    ngx_tailnet_node_t       *nodes;
    struct tn_admin_listen    ask;

    nodes = tcf->nodes.elts;
    name = &nodes[node].name;

    ngx_memzero(&ask, sizeof(struct tn_admin_listen));
    ask.h.type = TN_ADMIN_LISTEN;
    ngx_memcpy(ask.node, name->data, name->len);
    ask.family = (ls->sockaddr->sa_family == AF_INET6) ? 6 : 4;
    ask.type = (ls->type == SOCK_DGRAM) ? 2 : 1;
    ask.port = ngx_inet_get_port(ls->sockaddr);
#if (NGX_HAVE_REUSEPORT)
    ask.reuseport = ls->reuseport;
#endif
    ask.worker = (uint16_t) ls->worker;

    if (ngx_tailnet_admin_call(tcf, &tcf->ctl, &ask, sizeof(ask), NULL, 0,
                               TN_ADMIN_FD, &m)
        != NGX_OK)
    {
        return (ngx_socket_t) -1;
    }

    if (m.nfds != 1) {
        ngx_tailnet_admin_discard(&m);
        ngx_tailnet_why(tcf, "tailnetd sent no socket");
        return (ngx_socket_t) -1;
    }

    return m.fds[0];
}


/*
 * From init_module: nothing may fail here, since nginx ends where init_module
 * does.  What isn't committed leaves the nodes as they were.
 */

void
ngx_tailnet_cycle_commit(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    ngx_tailnet_msg_t     m;
    struct tn_admin_head  h;

    if (tcf->ctl == (ngx_socket_t) -1) {
        return;
    }

    ngx_memzero(&h, sizeof(struct tn_admin_head));
    h.type = TN_ADMIN_COMMIT;

    if (ngx_tailnet_admin_call(tcf, &tcf->ctl, &h, sizeof(h), NULL, 0,
                               TN_ADMIN_OK, &m)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "tailnet: the nodes stay as they were: %s", tcf->why);

    } else {
        ngx_tailnet_admin_discard(&m);
    }

    ngx_tailnet_cycle_anchor(cycle, tcf);
    ngx_tailnet_cycle_bequest(cycle, tcf);

    if (ngx_tailnet_cycle_inherit(tcf) != NGX_OK) {
        ngx_tailnet_cycle_close(&tcf->hello);
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "tailnet: workers will know no peer until the next "
                      "reload: %s", tcf->why);
    }
}


/*
 * Listening sockets lead to the namespace of their node when tailnetd has
 * died.  A node without any gets a socket that does nothing else.
 */

static void
ngx_tailnet_cycle_anchor(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    ngx_uint_t                i;
    struct tn_node           *table;
    ngx_tailnet_msg_t         m;
    struct tn_admin_sockets   ask;

    tcf->anchors = ngx_palloc(cycle->pool,
                              (tcf->table.nelts + 1) * sizeof(ngx_socket_t));
    if (tcf->anchors == NULL) {
        return;
    }

    ngx_memset(tcf->anchors, 0xff, tcf->table.nelts * sizeof(ngx_socket_t));

    table = tcf->table.elts;

    for (i = 0; i < tcf->table.nelts; i++) {

        if (ngx_tailnet_cycle_socket(tcf, table[i].name)
            != (ngx_socket_t) -1)
        {
            continue;
        }

        ngx_memzero(&ask, sizeof(struct tn_admin_sockets));
        ask.h.type = TN_ADMIN_SOCKETS;
        ngx_memcpy(ask.node, table[i].name, sizeof(ask.node));
        ask.family = 4;
        ask.type = 1;
        ask.count = 1;

        if (ngx_tailnet_admin_call(tcf, &tcf->ctl, &ask, sizeof(ask), NULL, 0,
                                   TN_ADMIN_FDS, &m)
            != NGX_OK)
        {
            ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                          "tailnet: after a crash of tailnetd node \"%s\" "
                          "will start anew: %s", table[i].name, tcf->why);
            continue;
        }

        if (m.nfds == 1) {
            tcf->anchors[i] = m.fds[0];
            m.fds[0] = -1;
        }

        ngx_tailnet_admin_discard(&m);
    }
}


static void
ngx_tailnet_cycle_bequest(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    ngx_tailnet_msg_t     m;
    struct tn_admin_head  h;

    if (tcf->table.nelts == 0) {
        return;
    }

    ngx_memzero(&h, sizeof(struct tn_admin_head));
    h.type = TN_ADMIN_BEQUEST;

    if (ngx_tailnet_admin_call(tcf, &tcf->ctl, &h, sizeof(h), NULL, 0,
                               TN_ADMIN_FD, &m)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                      "tailnet: after a crash of tailnetd its engine will "
                      "start anew: %s", tcf->why);
        return;
    }

    if (m.nfds == 1) {
        tcf->bequest = m.fds[0];
        return;
    }

    ngx_tailnet_admin_discard(&m);
}


/* a second connection on which nothing but the hello of workers is allowed */

static ngx_int_t
ngx_tailnet_cycle_inherit(ngx_tailnet_conf_t *tcf)
{
    uint64_t                 ignored;
    ngx_tailnet_msg_t        m;
    struct tn_admin_inherit  inherit;

    tcf->hello = ngx_tailnet_cycle_dial(tcf);

    if (tcf->hello == (ngx_socket_t) -1
        || ngx_tailnet_cycle_hello(tcf, &tcf->hello, &ignored) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memzero(&inherit, sizeof(struct tn_admin_inherit));
    inherit.h.type = TN_ADMIN_INHERIT;
    inherit.cycle = tcf->cycle_id;

    if (ngx_tailnet_admin_call(tcf, &tcf->hello, &inherit, sizeof(inherit),
                               NULL, 0, TN_ADMIN_OK, &m)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_tailnet_admin_discard(&m);

    /* all workers share this socket: none may wait in it */

    if (ngx_nonblocking(tcf->hello) == -1) {
        ngx_tailnet_why(tcf, ngx_nonblocking_n " failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* in workers and helpers: they hold no reference to sockets and nodes */

void
ngx_tailnet_cycle_leave(ngx_tailnet_conf_t *tcf, ngx_uint_t hello)
{
    ngx_uint_t  i;

    ngx_tailnet_cycle_close(&tcf->ctl);
    ngx_tailnet_cycle_close(&tcf->bequest);

    if (tcf->anchors) {
        for (i = 0; i < tcf->table.nelts; i++) {
            ngx_tailnet_cycle_close(&tcf->anchors[i]);
        }
    }

    if (hello) {
        ngx_tailnet_cycle_close(&tcf->hello);
    }
}


/* tailnetd stays if another master, of a binary upgrade, uses it */

void
ngx_tailnet_cycle_stop(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    ngx_tailnet_msg_t     m;
    struct tn_admin_head  h;

    if (tcf->ctl == (ngx_socket_t) -1 || tcf->table.nelts == 0) {
        return;
    }

    ngx_memzero(&h, sizeof(struct tn_admin_head));
    h.type = TN_ADMIN_STOP;

    ngx_tailnet_cycle_timeout(tcf->ctl, NGX_TAILNET_STOP_TIMEOUT);

    if (ngx_tailnet_admin_call(tcf, &tcf->ctl, &h, sizeof(h), NULL, 0,
                               TN_ADMIN_OK, &m)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                      "tailnet: tailnetd will end by itself: %s", tcf->why);
        return;
    }

    ngx_tailnet_admin_discard(&m);
}


/* -1: errno and a sentence */

static ngx_socket_t
ngx_tailnet_cycle_dial(ngx_tailnet_conf_t *tcf)
{
    ngx_err_t           err;
    ngx_socket_t        s;
    struct sockaddr_un  un;

    ngx_memzero(&un, sizeof(struct sockaddr_un));
    un.sun_family = AF_UNIX;
    (void) ngx_cpystrn((u_char *) un.sun_path, tcf->path.data,
                       sizeof(un.sun_path));

    s = socket(AF_UNIX, SOCK_SEQPACKET|SOCK_CLOEXEC, 0);

    if (s != (ngx_socket_t) -1) {

        ngx_tailnet_cycle_timeout(s, NGX_TAILNET_TIMEOUT);

        if (connect(s, (struct sockaddr *) &un, sizeof(un)) == 0) {
            return s;
        }
    }

    err = ngx_errno;

    ngx_tailnet_why(tcf, "cannot connect to tailnetd at \"%V\" (%d: %s)%s",
                    &tcf->path, err, strerror(err),
                    tcf->table.nelts ? "" : ", its service does not run");

    if (s != (ngx_socket_t) -1) {
        (void) close(s);
    }

    ngx_set_errno(err);

    return (ngx_socket_t) -1;
}


static void
ngx_tailnet_cycle_timeout(ngx_socket_t s, time_t sec)
{
    struct timeval  tv;

    tv.tv_sec = sec;
    tv.tv_usec = 0;

    (void) setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void) setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}


static void
ngx_tailnet_cycle_cleanup(void *data)
{
    ngx_tailnet_conf_t *tcf = data;

    ngx_tailnet_cycle_leave(tcf, 1);
}


static void
ngx_tailnet_cycle_close(ngx_socket_t *s)
{
    if (*s != (ngx_socket_t) -1) {
        (void) close(*s);
        *s = (ngx_socket_t) -1;
    }
}

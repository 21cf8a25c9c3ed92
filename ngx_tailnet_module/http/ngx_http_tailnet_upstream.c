
/*
 * tailnet_server: upstream servers by MagicDNS name or tag, over the mesh.
 *
 * nginx's own round robin does the balancing.  Before a request's balancer
 * begins, the set of peers that the upstream stands for at the current
 * snapshot takes the place of the configured one.  The handlers below are
 * outermost, above "keepalive": they see whether the peer that was chosen is
 * on a mesh, and have the connection made in the namespace of its node.
 */


#include "ngx_http_tailnet_upstream.h"


typedef struct {
    ngx_tailnet_wait_t               wait;
    ngx_http_tailnet_upstream_conf_t  *ucf;
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

static char *ngx_http_tailnet_server(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tailnet_server_name(ngx_conf_t *cf,
    ngx_http_tailnet_server_t *ts, ngx_str_t *value);
static void *ngx_http_tailnet_upstream_create_conf(ngx_conf_t *cf);
static ngx_int_t ngx_http_tailnet_upstream_init(ngx_conf_t *cf);
static void ngx_http_tailnet_upstream_cleanup(void *data);


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
    ngx_http_tailnet_set_t            *set;
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

    set = ngx_http_tailnet_upstream_set(r, us, ucf);
    if (set == NULL) {
        return NGX_ERROR;
    }

    set->refs++;
    cln->handler = ngx_http_tailnet_upstream_release;
    cln->data = set;

    configured = us->peer.data;
    us->peer.data = set->peers;

    rc = ucf->init(r, us);

    us->peer.data = configured;

    if (rc != NGX_OK) {
        return rc;
    }

    pc = &r->upstream->peer;

    p->ucf = ucf;
    p->set = set;
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

    mark = ngx_tailnet_connect_marked(pc->sockaddr);

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

    if (p->ucf->set && p->ucf->set != p->set) {
        ngx_http_tailnet_upstream_uncount(p->set, p->ucf->set, pc->name);
    }

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


static void
ngx_http_tailnet_upstream_cleanup(void *data)
{
    ngx_http_tailnet_upstream_conf_t *ucf = data;

    if (ucf->set) {
        ngx_http_tailnet_upstream_release(ucf->set);
        ucf->set = NULL;
    }
}

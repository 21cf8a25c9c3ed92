
/*
 * tailnet_listen: "listen" on all addresses of a node, with the parameters of
 * "listen" that have a sense there.
 */


#include "ngx_http_tailnet_module.h"


static char *ngx_http_tailnet_listen_address(ngx_conf_t *cf, ngx_str_t *value,
    ngx_uint_t *node, in_port_t *port);
static char *ngx_http_tailnet_listen_option(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_listen_opt_t *opt);
static char *ngx_http_tailnet_listen_protocol(ngx_conf_t *cf,
    ngx_str_t *value, ngx_http_listen_opt_t *opt);
static char *ngx_http_tailnet_listen_refuse(ngx_conf_t *cf, ngx_str_t *value);
static ngx_int_t ngx_http_tailnet_listen_number(ngx_conf_t *cf,
    ngx_str_t *value, size_t skip, ngx_uint_t size, int *n);
static char *ngx_http_tailnet_listen_keepalive(ngx_conf_t *cf,
    ngx_str_t *value, ngx_http_listen_opt_t *opt);
#if (NGX_HTTP_V3 && nginx_version >= 1025000)
static char *ngx_http_tailnet_listen_quic(ngx_http_listen_opt_t *opt);
#endif


char *
ngx_http_tailnet_listen(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tailnet_srv_conf_t *tscf = conf;

    char                      *rv;
    in_port_t                  port;
    ngx_str_t                 *value;
    ngx_uint_t                 i, node;
    ngx_http_listen_opt_t      opt;
    ngx_http_core_srv_conf_t  *cscf;

    static int  families[] = { AF_INET, AF_INET6 };

    value = cf->args->elts;

    rv = ngx_http_tailnet_listen_address(cf, &value[1], &node, &port);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    ngx_memzero(&opt, sizeof(ngx_http_listen_opt_t));

    opt.backlog = NGX_LISTEN_BACKLOG;
    opt.rcvbuf = -1;
    opt.sndbuf = -1;
#if (nginx_version >= 1025000)
    opt.type = SOCK_STREAM;
#endif
#if (NGX_HAVE_SETFIB)
    opt.setfib = -1;
#endif
#if (NGX_HAVE_TCP_FASTOPEN)
    opt.fastopen = -1;
#endif
#if (NGX_HAVE_INET6)
    opt.ipv6only = 1;
#endif

    /* a socket of its own, never folded into "listen *:PORT" */

    opt.bind = 1;

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_http_tailnet_listen_option(cf, &value[i], &opt);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

#if (NGX_HTTP_V3 && nginx_version >= 1025000)

    rv = ngx_http_tailnet_listen_quic(&opt);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

#endif

    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);

    /* otherwise http adds "listen *:80" */

    cscf->listen = 1;

    tscf->nodes |= (uint64_t) 1 << node;

    for (i = 0; i < sizeof(families) / sizeof(families[0]); i++) {

        if (ngx_tailnet_listen_placeholder(cf, node, families[i], port,
                                           &opt.sockaddr, &opt.socklen)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        opt.addr_text = value[1];

        if (ngx_http_add_listen(cf, cscf, &opt) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tailnet_listen_address(ngx_conf_t *cf, ngx_str_t *value,
    ngx_uint_t *node, in_port_t *port)
{
    u_char     *p, *last;
    ngx_int_t   n;
    ngx_str_t   name;

    last = value->data + value->len;
    p = ngx_strlchr(value->data, last, ':');

    name.data = value->data;
    name.len = p ? (size_t) (p - value->data) : 0;

    if (p && name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no node name in \"%V\"", value);
        return NGX_CONF_ERROR;
    }

    if (name.len && !tn_node_name_valid((char *) name.data, name.len)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", [NODE:]PORT is needed: it is "
                           "on all addresses of the node", value);
        return NGX_CONF_ERROR;
    }

    p = p ? p + 1 : value->data;
    n = ngx_atoi(p, last - p);

    if (n < 1 || n > 65535) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid port in \"%V\", [NODE:]PORT with a port "
                           "from 1 to 65535 is needed", value);
        return NGX_CONF_ERROR;
    }

    *port = (in_port_t) n;

    if (ngx_tailnet_node_ref(cf, &name, "tailnet_listen", node) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_tailnet_listen_option(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_listen_opt_t *opt)
{
    if (ngx_strcmp(value->data, "default_server") == 0) {
        opt->default_server = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "proxy_protocol") == 0) {
        opt->proxy_protocol = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "backlog=", 8) == 0) {
        opt->set = 1;

        if (ngx_http_tailnet_listen_number(cf, value, 8, 0, &opt->backlog)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "rcvbuf=", 7) == 0) {
        opt->set = 1;

        if (ngx_http_tailnet_listen_number(cf, value, 7, 1, &opt->rcvbuf)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "sndbuf=", 7) == 0) {
        opt->set = 1;

        if (ngx_http_tailnet_listen_number(cf, value, 7, 1, &opt->sndbuf)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "so_keepalive=", 13) == 0) {
        return ngx_http_tailnet_listen_keepalive(cf, value, opt);
    }

#if (NGX_HAVE_DEFERRED_ACCEPT && defined TCP_DEFER_ACCEPT)

    if (ngx_strcmp(value->data, "deferred") == 0) {
        opt->deferred_accept = 1;
        opt->set = 1;
        return NGX_CONF_OK;
    }

#endif

#if (NGX_HAVE_REUSEPORT)

    if (ngx_strcmp(value->data, "reuseport") == 0) {
        opt->reuseport = 1;
        opt->set = 1;
        return NGX_CONF_OK;
    }

#endif

    return ngx_http_tailnet_listen_protocol(cf, value, opt);
}


static char *
ngx_http_tailnet_listen_protocol(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_listen_opt_t *opt)
{
#if !(NGX_HTTP_SSL && NGX_HTTP_V2 && NGX_HTTP_V3 && nginx_version >= 1025000)
    const char  *module;
#endif

    if (ngx_strcmp(value->data, "ssl") == 0) {
#if (NGX_HTTP_SSL)
        opt->ssl = 1;
        return NGX_CONF_OK;
#else
        module = "ngx_http_ssl_module";
        goto missing;
#endif
    }

    if (ngx_strcmp(value->data, "http2") == 0) {
#if (NGX_HTTP_V2)

#if (nginx_version >= 1025001)
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the \"http2\" parameter is deprecated, use the "
                           "\"http2\" directive instead");
#endif

        opt->http2 = 1;
        return NGX_CONF_OK;
#else
        module = "ngx_http_v2_module";
        goto missing;
#endif
    }

    if (ngx_strcmp(value->data, "quic") == 0) {
#if (NGX_HTTP_V3 && nginx_version >= 1025000)
        opt->quic = 1;
        opt->type = SOCK_DGRAM;
        return NGX_CONF_OK;
#else
        module = "ngx_http_v3_module of nginx 1.25.0 or later";
        goto missing;
#endif
    }

    return ngx_http_tailnet_listen_refuse(cf, value);

#if !(NGX_HTTP_SSL && NGX_HTTP_V2 && NGX_HTTP_V3 && nginx_version >= 1025000)

missing:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "the \"%V\" parameter requires %s", value, module);

    return NGX_CONF_ERROR;

#endif
}


/* parameters of "listen" that have no sense here are told from mistakes */

static char *
ngx_http_tailnet_listen_refuse(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_uint_t  i;

    static struct {
        ngx_str_t    name;
        const char  *why;
    } refused[] = {
        { ngx_string("ipv6only="),
          "it listens on all addresses of the node, IPv4 and IPv6" },
        { ngx_string("bind"), "it always has a socket of its own" },
        { ngx_string("setfib="), "the node has a network of its own" },
        { ngx_string("fastopen="),
          "it is not supported over a mesh" },
        { ngx_string("accept_filter="), "it is for FreeBSD and NetBSD" },
        { ngx_string("multipath"), "a mesh is one path" },
        { ngx_null_string, NULL }
    };

    for (i = 0; refused[i].why; i++) {

        if (ngx_strncmp(value->data, refused[i].name.data,
                        refused[i].name.len)
            == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" is not for \"tailnet_listen\": %s",
                               value, refused[i].why);
            return NGX_CONF_ERROR;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\"", value);

    return NGX_CONF_ERROR;
}


static ngx_int_t
ngx_http_tailnet_listen_number(ngx_conf_t *cf, ngx_str_t *value, size_t skip,
    ngx_uint_t size, int *n)
{
    ssize_t    rv;
    ngx_str_t  s;

    s.data = value->data + skip;
    s.len = value->len - skip;

    rv = size ? ngx_parse_size(&s) : ngx_atoi(s.data, s.len);

    if (rv == NGX_ERROR || rv == 0 || rv > NGX_MAX_INT32_VALUE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid value \"%V\"",
                           value);
        return NGX_ERROR;
    }

    *n = (int) rv;

    return NGX_OK;
}


/* so_keepalive=on|off|[IDLE]:[INTERVAL]:[COUNT] */

static char *
ngx_http_tailnet_listen_keepalive(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_listen_opt_t *opt)
{
    u_char      *p, *end;
    ngx_int_t    n[3];
    ngx_str_t    s;
    ngx_uint_t   i;

    opt->set = 1;

    p = value->data + 13;
    end = value->data + value->len;

    if (ngx_strcmp(p, "on") == 0) {
        opt->so_keepalive = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(p, "off") == 0) {
        opt->so_keepalive = 2;
        return NGX_CONF_OK;
    }

    for (i = 0; i < 3; i++) {

        s.data = p;
        p = ngx_strlchr(p, end, ':');

        if (p == NULL || i == 2) {
            p = end;
        }

        s.len = p - s.data;
        n[i] = 0;

        if (s.len) {
            n[i] = (i < 2) ? ngx_parse_time(&s, 1) : ngx_atoi(s.data, s.len);
        }

        if (n[i] < 0 || n[i] > NGX_MAX_INT32_VALUE) {
            goto invalid;
        }

        if (p < end) {
            p++;
        }
    }

    if (n[0] == 0 && n[1] == 0 && n[2] == 0) {
        goto invalid;
    }

    opt->so_keepalive = 1;

#if (NGX_HAVE_KEEPALIVE_TUNABLE)
    opt->tcp_keepidle = (int) n[0];
    opt->tcp_keepintvl = (int) n[1];
    opt->tcp_keepcnt = (int) n[2];
#endif

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid value \"%V\"", value);

    return NGX_CONF_ERROR;
}


#if (NGX_HTTP_V3 && nginx_version >= 1025000)

static char *
ngx_http_tailnet_listen_quic(ngx_http_listen_opt_t *opt)
{
    if (!opt->quic) {
        return NGX_CONF_OK;
    }

    if (opt->ssl) {
        return "\"ssl\" parameter is incompatible with \"quic\"";
    }

    if (opt->http2) {
        return "\"http2\" parameter is incompatible with \"quic\"";
    }

    if (opt->proxy_protocol) {
        return "\"proxy_protocol\" parameter is incompatible with \"quic\"";
    }

    if (opt->so_keepalive) {
        return "\"so_keepalive\" parameter is incompatible with \"quic\"";
    }

    if (opt->backlog != NGX_LISTEN_BACKLOG) {
        return "\"backlog\" parameter is incompatible with \"quic\"";
    }

#if (NGX_HAVE_DEFERRED_ACCEPT && defined TCP_DEFER_ACCEPT)

    if (opt->deferred_accept) {
        return "\"deferred\" parameter is incompatible with \"quic\"";
    }

#endif

    return NGX_CONF_OK;
}

#endif

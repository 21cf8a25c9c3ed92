
#include "ngx_http_tailnet_module.h"


typedef struct {
    ngx_str_t                   name;
    ngx_http_get_variable_pt    handler;
    uintptr_t                   data;
    ngx_uint_t                  flags;
} ngx_http_tailnet_variable_t;


static ngx_int_t ngx_http_tailnet_variable_peer(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tailnet_variable_self(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tailnet_variable_acl(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_tailnet_variable_subdomain(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static size_t ngx_http_tailnet_subdomain(ngx_str_t *host, ngx_str_t *name,
    ngx_str_t *label);
static ngx_int_t ngx_http_tailnet_variable_text(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_str_t *s);
static void ngx_http_tailnet_variable_set(ngx_http_variable_value_t *v,
    ngx_str_t *s);


#define NGX_HTTP_TAILNET_PEER(name, field)                                    \
    { ngx_string(name), ngx_http_tailnet_variable_peer,                       \
      offsetof(ngx_tailnet_who_t, field), 0 }

#define NGX_HTTP_TAILNET_SELF(name, field)                                    \
    { ngx_string(name), ngx_http_tailnet_variable_self,                       \
      offsetof(ngx_tailnet_who_t, field), 0 }


static ngx_http_tailnet_variable_t  ngx_http_tailnet_variables[] = {

    NGX_HTTP_TAILNET_PEER("tailnet_user", user),
    NGX_HTTP_TAILNET_PEER("tailnet_user_name", user_name),
    NGX_HTTP_TAILNET_PEER("tailnet_user_pic", user_pic),
    NGX_HTTP_TAILNET_PEER("tailnet_node", node_name),
    NGX_HTTP_TAILNET_PEER("tailnet_node_id", node_id),
    NGX_HTTP_TAILNET_PEER("tailnet_host", host),
    NGX_HTTP_TAILNET_PEER("tailnet_tags", tags),
    NGX_HTTP_TAILNET_PEER("tailnet_ip", ip),
    NGX_HTTP_TAILNET_PEER("tailnet_domain", domain),
    NGX_HTTP_TAILNET_PEER("tailnet_caps", caps),
    NGX_HTTP_TAILNET_PEER("tailnet_identity", identity),

    NGX_HTTP_TAILNET_SELF("tailnet_self_name", self_name),
    NGX_HTTP_TAILNET_SELF("tailnet_self_ip", self_ip),

    { ngx_string("tailnet_subdomain"), ngx_http_tailnet_variable_subdomain,
      0, 0 },

    /* asked before the access phase it has no value yet */

    { ngx_string("tailnet_acl"), ngx_http_tailnet_variable_acl,
      0, NGX_HTTP_VAR_NOCACHEABLE },

    { ngx_null_string, NULL, 0, 0 }
};


ngx_int_t
ngx_http_tailnet_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t          *var;
    ngx_http_tailnet_variable_t  *tv;

    for (tv = ngx_http_tailnet_variables; tv->name.len; tv++) {

        var = ngx_http_add_variable(cf, &tv->name, tv->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = tv->handler;
        var->data = tv->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tailnet_variable_peer(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_tailnet_who_t  *who;

    who = ngx_http_tailnet_who(r);
    if (who == NULL) {
        return NGX_ERROR;
    }

    if (who->state != NGX_TAILNET_WHO_PEER) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_tailnet_variable_text(r, v,
                                          (ngx_str_t *) ((u_char *) who
                                                         + data));
}


static ngx_int_t
ngx_http_tailnet_variable_self(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_tailnet_who_t  *who;

    who = ngx_http_tailnet_who(r);
    if (who == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_tailnet_variable_text(r, v,
                                          (ngx_str_t *) ((u_char *) who
                                                         + data));
}


static ngx_int_t
ngx_http_tailnet_variable_acl(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_tailnet_ctx_t  *ctx;

    ctx = ngx_http_tailnet_get_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_http_tailnet_variable_set(v, &ctx->acl);

    return NGX_OK;
}


/*
 * What stands left of this node's name in Host: "ollama" for
 * "ollama.web.example.ts.net" and "ollama.web" on a node "web".  The short
 * name may be followed by any other domain that leads here.
 */

static ngx_int_t
ngx_http_tailnet_variable_subdomain(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t           sub;
    ngx_tailnet_who_t  *who;

    who = ngx_http_tailnet_who(r);
    if (who == NULL) {
        return NGX_ERROR;
    }

    sub.data = r->headers_in.server.data;
    sub.len = ngx_http_tailnet_subdomain(&r->headers_in.server,
                                         &who->self_name, &who->self_host);

    ngx_http_tailnet_variable_set(v, &sub);

    return NGX_OK;
}


static size_t
ngx_http_tailnet_subdomain(ngx_str_t *host, ngx_str_t *name, ngx_str_t *label)
{
    size_t   i;
    u_char  *p;

    /* without the final dot */

    p = host->data + host->len;

    if (name->len && host->len > name->len + 1
        && p[-(ssize_t) name->len - 1] == '.'
        && ngx_strncasecmp(p - name->len, name->data, name->len) == 0)
    {
        return host->len - name->len - 1;
    }

    if (label->len == 0) {
        return 0;
    }

    for (i = 1; i + 1 + label->len <= host->len; i++) {
        p = host->data + i;

        if (*p == '.'
            && ngx_strncasecmp(p + 1, label->data, label->len) == 0
            && (i + 1 + label->len == host->len
                || p[1 + label->len] == '.'))
        {
            return i;
        }
    }

    return 0;
}


/*
 * Names are somebody's choice, and variables go into header fields: a line
 * break would make another field of the rest.
 */

static ngx_int_t
ngx_http_tailnet_variable_text(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_str_t *s)
{
    size_t     i;
    ngx_str_t  text;

    text = *s;

    for (i = 0; i < text.len; i++) {

        if (text.data[i] >= 0x20 && text.data[i] != 0x7f) {
            continue;
        }

        if (text.data == s->data) {
            text.data = ngx_pstrdup(r->pool, s);
            if (text.data == NULL) {
                return NGX_ERROR;
            }
        }

        text.data[i] = '?';
    }

    ngx_http_tailnet_variable_set(v, &text);

    return NGX_OK;
}


static void
ngx_http_tailnet_variable_set(ngx_http_variable_value_t *v, ngx_str_t *s)
{
    if (s->len == 0) {
        v->not_found = 1;
        return;
    }

    v->len = s->len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = s->data;
}

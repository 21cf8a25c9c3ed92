
#include "ngx_http_tailnet_module.h"


static void *ngx_http_tailnet_create_srv_conf(ngx_conf_t *cf);
static void *ngx_http_tailnet_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tailnet_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_tailnet_init(ngx_conf_t *cf);
static void ngx_http_tailnet_cleanup(void *data);


static ngx_command_t  ngx_http_tailnet_commands[] = {

    { ngx_string("tailnet_listen"),
      NGX_HTTP_SRV_CONF|NGX_CONF_1MORE,
      ngx_http_tailnet_listen,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tailnet_acl"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF
                        |NGX_HTTP_LMT_CONF|NGX_CONF_2MORE,
      ngx_http_tailnet_access,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tailnet_module_ctx = {
    ngx_http_tailnet_add_variables,        /* preconfiguration */
    ngx_http_tailnet_init,                 /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_http_tailnet_create_srv_conf,      /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tailnet_create_loc_conf,      /* create location configuration */
    ngx_http_tailnet_merge_loc_conf        /* merge location configuration */
};


ngx_module_t  ngx_http_tailnet_module = {
    NGX_MODULE_V1,
    &ngx_http_tailnet_module_ctx,          /* module context */
    ngx_http_tailnet_commands,             /* module directives */
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


/*
 * The context lives in the pool of the main request as a cleanup, too: an
 * internal redirect clears the contexts of modules, and who asks and what let
 * them in must not change with it.
 */

ngx_http_tailnet_ctx_t *
ngx_http_tailnet_get_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_tailnet_ctx_t  *ctx;

    r = r->main;

    ctx = ngx_http_get_module_ctx(r, ngx_http_tailnet_module);

    if (ctx) {
        return ctx;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_tailnet_cleanup) {
            ctx = cln->data;
            ngx_http_set_ctx(r, ctx, ngx_http_tailnet_module);
            return ctx;
        }
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_tailnet_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_http_tailnet_ctx_t));
    ctx->request = r;

    cln->handler = ngx_http_tailnet_cleanup;

    ngx_http_set_ctx(r, ctx, ngx_http_tailnet_module);

    return ctx;
}


static void
ngx_http_tailnet_cleanup(void *data)
{
    ngx_http_tailnet_ctx_t *ctx = data;

    ngx_tailnet_verdict_remove(&ctx->verdict);
}


ngx_tailnet_who_t *
ngx_http_tailnet_who(ngx_http_request_t *r)
{
    ngx_http_tailnet_ctx_t  *ctx;

    ctx = ngx_http_tailnet_get_ctx(r);
    if (ctx == NULL) {
        return NULL;
    }

    if (ctx->who == NULL) {
        ctx->who = ngx_tailnet_identity_who(r->connection, r->pool);
    }

    return ctx->who;
}


static void *
ngx_http_tailnet_create_srv_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tailnet_srv_conf_t));
}


static void *
ngx_http_tailnet_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tailnet_loc_conf_t));
}


static char *
ngx_http_tailnet_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tailnet_loc_conf_t *prev = parent;
    ngx_http_tailnet_loc_conf_t *conf = child;

    ngx_http_tailnet_srv_conf_t  *tscf;

    if (conf->rules == NULL) {
        conf->rules = prev->rules;
    }

    tscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_tailnet_module);

    return ngx_tailnet_rules_check(cf, conf->rules, tscf->nodes);
}


static ngx_int_t
ngx_http_tailnet_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_ACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tailnet_access_handler;

    return NGX_OK;
}

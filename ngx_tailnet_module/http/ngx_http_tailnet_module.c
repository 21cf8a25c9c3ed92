
#include "ngx_http_tailnet_module.h"


static void *ngx_http_tailnet_create_srv_conf(ngx_conf_t *cf);
static void *ngx_http_tailnet_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_tailnet_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static void ngx_http_tailnet_check_return(ngx_conf_t *cf,
    ngx_http_tailnet_loc_conf_t *conf, ngx_uint_t own);
static ngx_http_script_return_code_t *ngx_http_tailnet_find_return(
    ngx_conf_t *cf);
static ngx_int_t ngx_http_tailnet_init(ngx_conf_t *cf);
static ngx_http_tailnet_ctx_t *ngx_http_tailnet_new_ctx(
    ngx_http_request_t *r);
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
      ngx_http_tailnet_access_rule,
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
 * The context is a cleanup of the main request's pool, too: an internal
 * redirect clears the contexts of modules, and who asks and what let them in
 * must not change with it.
 */

ngx_http_tailnet_ctx_t *
ngx_http_tailnet_find_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_tailnet_ctx_t  *ctx;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_tailnet_cleanup) {
            ngx_http_set_ctx(r, cln->data, ngx_http_tailnet_module);
            return cln->data;
        }
    }

    ctx = ngx_http_tailnet_new_ctx(r);
    if (ctx == NULL) {
        return NULL;
    }

    ctx->who = ngx_tailnet_identity_who(r->connection, ctx->id, r->pool);
    if (ctx->who == NULL) {
        return NULL;
    }

    ctx->used = 1;
    ctx->limited = 0;
    ctx->rules = NULL;
    ngx_str_null(&ctx->acl);
    ctx->verdict.active = 0;

    /* as ngx_pool_cleanup_add() does, but in the same piece of memory */

    ctx->cleanup.handler = ngx_http_tailnet_cleanup;
    ctx->cleanup.data = ctx;
    ctx->cleanup.next = r->pool->cleanup;
    r->pool->cleanup = &ctx->cleanup;

    ngx_http_set_ctx(r, ctx, ngx_http_tailnet_module);

    return ctx;
}


/* HTTP/2 has several requests at a time: all but one need one of their own */

static ngx_http_tailnet_ctx_t *
ngx_http_tailnet_new_ctx(ngx_http_request_t *r)
{
    ngx_http_tailnet_ctx_t   *ctx;
    ngx_tailnet_identity_t   *id;
    ngx_http_tailnet_kept_t  *kept;

    id = ngx_tailnet_identity_get(r->connection);

    if (id) {
        kept = id->data;

        if (kept == NULL) {
            kept = ngx_pcalloc(id->connection->pool,
                               sizeof(ngx_http_tailnet_kept_t));
            if (kept == NULL) {
                return NULL;
            }

            kept->ctx.id = id;
            id->data = kept;
        }

        if (!kept->ctx.used) {
            return &kept->ctx;
        }
    }

    ctx = ngx_palloc(r->pool, sizeof(ngx_http_tailnet_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    ctx->id = id;

    return ctx;
}


static void
ngx_http_tailnet_cleanup(void *data)
{
    ngx_http_tailnet_ctx_t *ctx = data;

    ngx_tailnet_verdict_remove(&ctx->verdict);
    ngx_tailnet_who_release(ctx->who);

    ctx->who = NULL;
    ctx->used = 0;
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

    ngx_uint_t                    own;
    ngx_http_tailnet_srv_conf_t  *tscf;

    own = (conf->rules != NULL);

    if (conf->rules == NULL) {
        conf->rules = prev->rules;
    }

    ngx_http_tailnet_check_return(cf, conf, own);

    tscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_tailnet_module);

    return ngx_tailnet_rules_check(cf, conf->rules, tscf->nodes);
}


/*
 * "return" answers in the rewrite phase, before any access rule.  Who writes
 * both into one place believes something else; where the rules are those of a
 * level above, redirects and refusals are as they should be, contents are not.
 */

static void
ngx_http_tailnet_check_return(ngx_conf_t *cf,
    ngx_http_tailnet_loc_conf_t *conf, ngx_uint_t own)
{
    ngx_str_t                      *name;
    ngx_tailnet_rule_t             *rule;
    ngx_http_core_loc_conf_t       *clcf;
    ngx_http_core_srv_conf_t       *cscf;
    ngx_http_script_return_code_t  *code;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->rules == NULL || clcf->noname) {
        return;
    }

    code = ngx_http_tailnet_find_return(cf);

    if (code == NULL || !(own || code->status / 100 == 2)) {
        return;
    }

    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
    name = clcf->name.len ? &clcf->name : &cscf->server_name;
    rule = conf->rules->elts;

    ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                  "\"return\" in %s \"%V\" answers before access rules are "
                  "looked at: \"tailnet_acl %V\" does not protect it in "
                  "%V:%ui",
                  clcf->name.len ? "location" : "server", name, &rule->text,
                  &rule->place.file, rule->place.line);
}


/*
 * The code that runs first, if it is that of "return".  The configuration of
 * the rewrite module is its own business, but begins with its codes in all
 * versions of nginx.
 */

static ngx_http_script_return_code_t *
ngx_http_tailnet_find_return(ngx_conf_t *cf)
{
    ngx_uint_t                      i;
    ngx_array_t                    *codes;
    ngx_module_t                   *rewrite;
    ngx_http_conf_ctx_t            *ctx;
    ngx_http_script_return_code_t  *code;

    rewrite = NULL;

    for (i = 0; cf->cycle->modules[i]; i++) {
        if (ngx_strcmp(cf->cycle->modules[i]->name, "ngx_http_rewrite_module")
            == 0)
        {
            rewrite = cf->cycle->modules[i];
            break;
        }
    }

    if (rewrite == NULL) {
        return NULL;
    }

    ctx = cf->ctx;
    codes = *(ngx_array_t **) ctx->loc_conf[rewrite->ctx_index];

    if (codes == NULL
        || codes->nelts < sizeof(ngx_http_script_return_code_t))
    {
        return NULL;
    }

    code = codes->elts;

    return (code->code == ngx_http_script_return_code) ? code : NULL;
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

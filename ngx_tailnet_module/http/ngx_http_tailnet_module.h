
#ifndef _NGX_HTTP_TAILNET_MODULE_H_INCLUDED_
#define _NGX_HTTP_TAILNET_MODULE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_tailnet.h"


extern ngx_module_t  ngx_http_tailnet_module;


typedef struct {
    uint64_t                 nodes;     /* a bit for each it listens on */
} ngx_http_tailnet_srv_conf_t;


typedef struct {
    ngx_array_t             *rules;     /* ngx_tailnet_rule_t, NULL: none */
} ngx_http_tailnet_loc_conf_t;


/* of the main request, from the first question to the log phase */

typedef struct {
    ngx_pool_cleanup_t       cleanup;
    ngx_tailnet_identity_t  *id;        /* of the connection, or NULL */
    ngx_tailnet_who_t       *who;       /* frozen when it was first asked */
    ngx_array_t             *rules;     /* that let the request through */
    ngx_str_t                acl;       /* what decided */
    ngx_tailnet_verdict_t    verdict;
    unsigned                 used:1;
    unsigned                 limited:1; /* counted by tailnet_limit_req */
} ngx_http_tailnet_ctx_t;


#define NGX_HTTP_TAILNET_WHO_TEXT  512


/*
 * Of a connection, as long as it lives: the context that its requests use one
 * after the other, and what let the last one through, for the time that it is
 * kept alive, when that request's own verdict is gone.
 */

typedef struct {
    ngx_http_tailnet_ctx_t   ctx;
    ngx_tailnet_verdict_t    verdict;
    ngx_array_t             *rules;
    uint64_t                 peer;
    ngx_str_t                text;
    ngx_uint_t               round;     /* when the text was made */
    u_char                   buf[NGX_HTTP_TAILNET_WHO_TEXT];
} ngx_http_tailnet_kept_t;


/*
 * ngx_http_tailnet_get_ctx() returns NULL only if there is no memory; who
 * nobody knows has a state that says so.
 *
 * ngx_http_tailnet_acl() is what the access phase will decide for the location
 * of the request: NGX_DECLINED without rules, NGX_OK or NGX_HTTP_FORBIDDEN.
 * *rule is the rule that decided or NULL.
 */

ngx_http_tailnet_ctx_t *ngx_http_tailnet_find_ctx(ngx_http_request_t *r);


static ngx_inline ngx_http_tailnet_ctx_t *
ngx_http_tailnet_get_ctx(ngx_http_request_t *r)
{
    ngx_http_tailnet_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r->main, ngx_http_tailnet_module);

    return ctx ? ctx : ngx_http_tailnet_find_ctx(r->main);
}


static ngx_inline ngx_tailnet_who_t *
ngx_http_tailnet_who(ngx_http_request_t *r)
{
    ngx_http_tailnet_ctx_t  *ctx;

    ctx = ngx_http_tailnet_get_ctx(r);

    return ctx ? ctx->who : NULL;
}


static ngx_inline ngx_int_t
ngx_http_tailnet_acl(ngx_http_request_t *r, ngx_http_tailnet_ctx_t *ctx,
    ngx_tailnet_rule_t **rule)
{
    ngx_http_tailnet_loc_conf_t  *tlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tailnet_module);

    if (tlcf->rules == NULL) {
        *rule = NULL;
        return NGX_DECLINED;
    }

    *rule = ngx_tailnet_rules_ask(tlcf->rules, ctx->who);

    return (*rule && (*rule)->accept) ? NGX_OK : NGX_HTTP_FORBIDDEN;
}


ngx_int_t ngx_http_tailnet_access_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_tailnet_add_variables(ngx_conf_t *cf);
char *ngx_http_tailnet_listen(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_tailnet_access_rule(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


#endif /* _NGX_HTTP_TAILNET_MODULE_H_INCLUDED_ */

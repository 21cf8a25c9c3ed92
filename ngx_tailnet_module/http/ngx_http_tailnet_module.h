
#ifndef _NGX_HTTP_TAILNET_MODULE_H_INCLUDED_
#define _NGX_HTTP_TAILNET_MODULE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_tailnet.h"


typedef struct {
    uint64_t                 nodes;     /* a bit for each it listens on */
} ngx_http_tailnet_srv_conf_t;


typedef struct {
    ngx_array_t             *rules;     /* ngx_tailnet_rule_t, NULL: none */
} ngx_http_tailnet_loc_conf_t;


/* of the main request, from the first question to the log phase */

typedef struct {
    ngx_tailnet_who_t       *who;       /* frozen when it was first asked */
    ngx_array_t             *rules;     /* that let the request through */
    ngx_str_t                acl;       /* what decided */
    ngx_tailnet_verdict_t    verdict;
    unsigned                 limited:1; /* counted by tailnet_limit_req */
} ngx_http_tailnet_ctx_t;


/*
 * ngx_http_tailnet_who() returns NULL only if there is no memory; who nobody
 * knows has a state that says so.
 *
 * ngx_http_tailnet_acl() is what the access phase will decide for the location
 * of the request: NGX_DECLINED without rules, NGX_OK or NGX_HTTP_FORBIDDEN, or
 * NGX_ERROR.  *rule is the rule that decided or NULL.
 */

ngx_http_tailnet_ctx_t *ngx_http_tailnet_get_ctx(ngx_http_request_t *r);
ngx_tailnet_who_t *ngx_http_tailnet_who(ngx_http_request_t *r);
ngx_int_t ngx_http_tailnet_acl(ngx_http_request_t *r,
    ngx_tailnet_rule_t **rule);

ngx_int_t ngx_http_tailnet_access_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_tailnet_add_variables(ngx_conf_t *cf);
char *ngx_http_tailnet_listen(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_tailnet_access_rule(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


extern ngx_module_t  ngx_http_tailnet_module;


#endif /* _NGX_HTTP_TAILNET_MODULE_H_INCLUDED_ */


/*
 * tailnet_acl in the access phase, and what becomes of a decision later.
 *
 * What let a request in is asked again with each snapshot until the request
 * ends, and after that, as "kept", while its connection waits for another one.
 */


#include "ngx_http_tailnet_module.h"


#define NGX_HTTP_TAILNET_ACL_TEXT  128      /* bytes besides the rule's own */


static ngx_int_t ngx_http_tailnet_access_set(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx, ngx_tailnet_rule_t *rule);
static void ngx_http_tailnet_access_log(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx);
static ngx_int_t ngx_http_tailnet_access_again(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx, ngx_array_t *rules);
static void ngx_http_tailnet_access_keep(ngx_http_tailnet_ctx_t *ctx);
static ngx_int_t ngx_http_tailnet_access_verdict(ngx_tailnet_verdict_t *v,
    ngx_tailnet_look_t *look, ngx_str_t *reason);
static ngx_int_t ngx_http_tailnet_access_kept(ngx_tailnet_verdict_t *v,
    ngx_tailnet_look_t *look, ngx_str_t *reason);
static ngx_int_t ngx_http_tailnet_access_ask(ngx_array_t *rules,
    uint64_t peer, ngx_tailnet_look_t *look, ngx_tailnet_rule_t **rule);
static u_char *ngx_http_tailnet_access_reason(u_char *p, u_char *last,
    ngx_tailnet_look_t *look, ngx_tailnet_rule_t *rule);


ngx_int_t
ngx_http_tailnet_access_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_tailnet_rule_t           *rule;
    ngx_http_tailnet_ctx_t       *ctx;
    ngx_http_tailnet_loc_conf_t  *tlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tailnet_module);

    if (tlcf->rules == NULL) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_tailnet_get_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_tailnet_acl(r, ctx, &rule);

    if (ngx_http_tailnet_access_set(r, ctx, rule) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc == NGX_OK && !ngx_tailnet_who_current(ctx->who)) {
        rc = ngx_http_tailnet_access_again(r, ctx, tlcf->rules);

        if (rc == NGX_ERROR) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (rc == NGX_HTTP_FORBIDDEN) {
        ngx_tailnet_verdict_remove(&ctx->verdict);
        ngx_http_tailnet_access_log(r, ctx);

        return NGX_HTTP_FORBIDDEN;
    }

    if (ctx->id) {
        ctx->rules = tlcf->rules;

        ngx_http_tailnet_access_keep(ctx);

        ctx->verdict.handler = ngx_http_tailnet_access_verdict;
        ctx->verdict.data = ctx;

        ngx_tailnet_verdict_add(ctx->id, &ctx->verdict);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_tailnet_access_set(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx, ngx_tailnet_rule_t *rule)
{
    u_char  *p;

    if (rule) {
        ctx->acl = rule->text;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_HTTP_TAILNET_ACL_TEXT);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->acl.data = p;
    ctx->acl.len = ngx_tailnet_rules_text(p, p + NGX_HTTP_TAILNET_ACL_TEXT,
                                          ctx->who->state, NULL)
                   - p;

    return NGX_OK;
}


static void
ngx_http_tailnet_access_log(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx)
{
    u_char                     buf[NGX_HTTP_TAILNET_WHO_TEXT];
    ngx_str_t                  text;
    ngx_uint_t                 level;
    ngx_tailnet_who_t         *who;
    ngx_http_core_loc_conf_t  *clcf;

    who = ctx->who;
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    /* with "satisfy any" another module may still let the request in */

    level = (clcf->satisfy == NGX_HTTP_SATISFY_ALL) ? NGX_LOG_ERR
                                                    : NGX_LOG_INFO;

    text.data = buf;
    text.len = ngx_tailnet_identity_text(buf, buf + sizeof(buf), who->state,
                                         &who->who,
                                         who->known ? &who->peer : NULL)
               - buf;

    ngx_log_error(level, r->connection->log, 0,
                  "access forbidden by tailnet_acl: %V, %V",
                  &text, &ctx->acl);
}


/*
 * A snapshot came, or a key expired, between the first question who it is and
 * this decision: the variables stay as they are, but rights that are gone let
 * nobody in.
 */

static ngx_int_t
ngx_http_tailnet_access_again(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx, ngx_array_t *rules)
{
    u_char              *p, *last;
    size_t               len;
    ngx_tailnet_rule_t  *rule;
    ngx_tailnet_look_t   look;

    ngx_tailnet_identity_look(r->connection, &look);

    if (ngx_http_tailnet_access_ask(rules, ctx->who->peer.id, &look, &rule)
        == NGX_OK)
    {
        return NGX_OK;
    }

    len = NGX_HTTP_TAILNET_ACL_TEXT + (rule ? rule->text.len : 0);

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_http_tailnet_access_reason(p, p + len, &look, rule);

    ctx->acl.data = p;
    ctx->acl.len = last - p;

    return NGX_HTTP_FORBIDDEN;
}


static void
ngx_http_tailnet_access_keep(ngx_http_tailnet_ctx_t *ctx)
{
    ngx_tailnet_who_t        *who;
    ngx_http_tailnet_kept_t  *kept;

    who = ctx->who;
    kept = ctx->id->data;

    if (ctx->id->kept == NULL) {
        kept->verdict.handler = ngx_http_tailnet_access_kept;
        kept->verdict.data = kept;
        kept->text.data = kept->buf;

        ctx->id->kept = &kept->verdict;
    }

    if (kept->text.len == 0 || kept->round != who->round) {
        kept->text.len = ngx_tailnet_identity_text(kept->buf,
                             kept->buf + NGX_HTTP_TAILNET_WHO_TEXT,
                             who->state, &who->who, &who->peer)
                         - kept->buf;
        kept->round = who->round;
    }

    kept->rules = ctx->rules;
    kept->peer = who->peer.id;
}


/* the rules that let a request in, asked again while it is under way */

static ngx_int_t
ngx_http_tailnet_access_verdict(ngx_tailnet_verdict_t *v,
    ngx_tailnet_look_t *look, ngx_str_t *reason)
{
    u_char                  *p, *last;
    ngx_tailnet_who_t       *who;
    ngx_tailnet_rule_t      *rule;
    ngx_http_tailnet_ctx_t  *ctx;

    ctx = v->data;
    who = ctx->who;

    if (ngx_http_tailnet_access_ask(ctx->rules, who->peer.id, look, &rule)
        == NGX_OK)
    {
        return NGX_OK;
    }

    p = reason->data;
    last = p + reason->len;

    p = ngx_tailnet_identity_text(p, last, who->state, &who->who, &who->peer);
    p = ngx_slprintf(p, last, ", ");
    p = ngx_http_tailnet_access_reason(p, last, look, rule);

    reason->len = p - reason->data;

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_tailnet_access_kept(ngx_tailnet_verdict_t *v,
    ngx_tailnet_look_t *look, ngx_str_t *reason)
{
    ngx_http_tailnet_kept_t *kept = v->data;

    u_char              *p, *last;
    ngx_tailnet_rule_t  *rule;

    if (ngx_http_tailnet_access_ask(kept->rules, kept->peer, look, &rule)
        == NGX_OK)
    {
        return NGX_OK;
    }

    p = reason->data;
    last = p + reason->len;

    p = ngx_slprintf(p, last, "%V, ", &kept->text);
    p = ngx_http_tailnet_access_reason(p, last, look, rule);

    reason->len = p - reason->data;

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_tailnet_access_ask(ngx_array_t *rules, uint64_t peer,
    ngx_tailnet_look_t *look, ngx_tailnet_rule_t **rule)
{
    ngx_int_t  rc;

    rc = ngx_tailnet_rules_decide(rules, look->state, &look->who, rule);

    return (rc == NGX_OK && look->peer.id == peer) ? NGX_OK : NGX_DECLINED;
}


static u_char *
ngx_http_tailnet_access_reason(u_char *p, u_char *last,
    ngx_tailnet_look_t *look, ngx_tailnet_rule_t *rule)
{
    if (rule && rule->accept) {
        return ngx_slprintf(p, last,
                            "reject (the address is another node's now)");
    }

    return ngx_tailnet_rules_text(p, last, look->state, rule);
}


char *
ngx_http_tailnet_access_rule(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tailnet_loc_conf_t *tlcf = conf;

    return ngx_tailnet_rules_add(cf, &tlcf->rules);
}

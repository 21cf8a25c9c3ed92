
/*
 * tailnet_acl: rules in the order they are written, one for each selector, the
 * first that matches decides, and where none matches the answer is no.
 */


#include "ngx_tailnet.h"


static char *ngx_tailnet_rules_push(ngx_conf_t *cf, ngx_array_t *rules,
    ngx_str_t *verb, ngx_str_t *text, ngx_uint_t accept);
static ngx_uint_t ngx_tailnet_rules_everybody(ngx_tailnet_rule_t *rule);


char *
ngx_tailnet_rules_add(ngx_conf_t *cf, ngx_array_t **rules)
{
    char        *rv;
    ngx_str_t   *value;
    ngx_uint_t   i, accept;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "accept") == 0) {
        accept = 1;

    } else if (ngx_strcmp(value[1].data, "reject") == 0) {
        accept = 0;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\", \"accept\" or \"reject\" "
                           "is needed", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (*rules == NULL) {
        *rules = ngx_array_create(cf->pool, 4, sizeof(ngx_tailnet_rule_t));
        if (*rules == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_tailnet_rules_push(cf, *rules, &value[1], &value[i], accept);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_tailnet_rules_push(ngx_conf_t *cf, ngx_array_t *rules, ngx_str_t *verb,
    ngx_str_t *text, ngx_uint_t accept)
{
    u_char              *p;
    ngx_str_t            node;
    const char          *wrong;
    struct tn_selector   selector;
    ngx_tailnet_rule_t  *rule;

    wrong = tn_selector_parse(&selector, (char *) text->data, text->len);

    if (wrong) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid selector \"%V\": %s", text, wrong);
        return NGX_CONF_ERROR;
    }

    if (selector.node.len) {
        node.data = (u_char *) selector.node.p;
        node.len = selector.node.len;

        if (ngx_tailnet_node_mention(cf, &node, "tailnet_acl") != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    rule = ngx_array_push(rules);
    if (rule == NULL) {
        return NGX_CONF_ERROR;
    }

    p = ngx_pnalloc(cf->pool, verb->len + 1 + text->len);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    rule->text.len = verb->len + 1 + text->len;
    rule->text.data = p;

    p = ngx_cpymem(p, verb->data, verb->len);
    *p++ = ' ';
    (void) ngx_cpymem(p, text->data, text->len);

    rule->selector = selector;
    rule->accept = accept;
    ngx_tailnet_place(cf, &rule->place);

    return NGX_CONF_OK;
}


char *
ngx_tailnet_rules_check(ngx_conf_t *cf, ngx_array_t *rules, uint64_t nodes)
{
    ngx_uint_t           i;
    ngx_tailnet_rule_t  *rule;

    if (rules == NULL || (nodes & (nodes - 1)) == 0) {
        return NGX_CONF_OK;
    }

    rule = rules->elts;

    for (i = 0; i < rules->nelts; i++) {

        if (rule[i].selector.node.len
            || rule[i].selector.kind == TN_SEL_LOCAL
            || ngx_tailnet_rules_everybody(&rule[i]))
        {
            continue;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"tailnet_acl %V\" must say of which node's tailnet, "
                      "as NODE/SELECTOR: its server listens on several nodes "
                      "in %V:%ui", &rule[i].text, &rule[i].place.file,
                      rule[i].place.line);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_tailnet_rules_decide(ngx_array_t *rules, ngx_tailnet_who_e state,
    const struct tn_who *who, ngx_tailnet_rule_t **rule)
{
    ngx_uint_t           i;
    ngx_tailnet_rule_t  *r;

    *rule = NULL;

    /* of the mesh, but nobody we know: no rule can be for them */

    if (state != NGX_TAILNET_WHO_PEER && state != NGX_TAILNET_WHO_LOCAL) {
        return NGX_DECLINED;
    }

    r = rules->elts;

    for (i = 0; i < rules->nelts; i++) {
        if (ngx_tailnet_rules_everybody(&r[i])
            || tn_selector_match(&r[i].selector, who))
        {
            *rule = &r[i];
            return r[i].accept ? NGX_OK : NGX_DECLINED;
        }
    }

    return NGX_DECLINED;
}


ngx_tailnet_rule_t *
ngx_tailnet_rules_note(ngx_array_t *rules, ngx_tailnet_who_t *who)
{
    ngx_tailnet_rule_t  *rule;

    (void) ngx_tailnet_rules_decide(rules, who->state, &who->who, &rule);
    (void) ngx_tailnet_who_remember(who, rules, (uintptr_t) rule);

    return rule;
}


/* "reject *" is meant for those without an identity, too */

static ngx_uint_t
ngx_tailnet_rules_everybody(ngx_tailnet_rule_t *rule)
{
    return !rule->accept
           && rule->selector.kind == TN_SEL_ANY
           && rule->selector.node.len == 0;
}


u_char *
ngx_tailnet_rules_text(u_char *buf, u_char *last, ngx_tailnet_who_e state,
    ngx_tailnet_rule_t *rule)
{
    if (rule) {
        return ngx_slprintf(buf, last, "%V", &rule->text);
    }

    switch (state) {

    case NGX_TAILNET_WHO_UNKNOWN:
        return ngx_slprintf(buf, last, "reject (unknown peer)");

    case NGX_TAILNET_WHO_EXPIRED:
        return ngx_slprintf(buf, last, "reject (the peer's key has expired)");

    case NGX_TAILNET_WHO_SELF_EXPIRED:
        return ngx_slprintf(buf, last, "reject (this node's key has expired)");

    case NGX_TAILNET_WHO_NO_SNAPSHOT:
        return ngx_slprintf(buf, last, "reject (no snapshot of the tailnet)");

    default:
        return ngx_slprintf(buf, last, "reject (no rule matched)");
    }
}

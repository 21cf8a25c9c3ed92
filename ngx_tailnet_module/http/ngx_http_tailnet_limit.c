
/*
 * tailnet_limit_req: requests per identity, who is limited by what.
 *
 * Limits with "for=" are for whom they select; limits without are for everyone
 * whom no "for=" of the same level selects.  The counting is done in
 * ngx_http_tailnet_limit_zone.c.
 */


#include "ngx_http_tailnet_module.h"
#include "ngx_http_tailnet_limit.h"


#define NGX_HTTP_TAILNET_LIMIT_SIZE  (1024 * 1024)  /* of the zone */


typedef struct {
    ngx_shm_zone_t              *zone;
    size_t                       size;
    ngx_array_t                  ids;       /* uint32_t, to keep them apart */
} ngx_http_tailnet_limit_main_conf_t;


typedef struct {
    ngx_array_t                 *limits;    /* ngx_http_tailnet_limit_t */
} ngx_http_tailnet_limit_conf_t;


static ngx_int_t ngx_http_tailnet_limit_handler(ngx_http_request_t *r);
static void ngx_http_tailnet_limit_delay(ngx_http_request_t *r);
static ngx_tailnet_noinline ngx_int_t ngx_http_tailnet_limit_several(
    ngx_http_request_t *r, ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, uintptr_t match, ngx_tailnet_who_t *who);
static ngx_tailnet_noinline uintptr_t ngx_http_tailnet_limit_match(
    ngx_array_t *limits, ngx_tailnet_who_t *who);
static ngx_tailnet_noinline ngx_int_t ngx_http_tailnet_limit_key(
    ngx_http_request_t *r, ngx_tailnet_who_t *who);
static ngx_int_t ngx_http_tailnet_limit_address(ngx_tailnet_who_t *who);
static ngx_tailnet_noinline ngx_int_t ngx_http_tailnet_limit_wait(
    ngx_http_request_t *r, ngx_str_t *key, uint64_t delay);
static ngx_tailnet_noinline ngx_int_t ngx_http_tailnet_limit_refuse(
    ngx_http_request_t *r, ngx_http_tailnet_limit_t *limit, ngx_str_t *key,
    uint64_t wait);
static ngx_uint_t ngx_http_tailnet_limit_forbidden(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx);
static char *ngx_http_tailnet_limit_req(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_tailnet_limit_set_zone(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static uint32_t ngx_http_tailnet_limit_id(ngx_conf_t *cf,
    ngx_http_tailnet_limit_main_conf_t *lmcf);
static void *ngx_http_tailnet_limit_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_tailnet_limit_init_main_conf(ngx_conf_t *cf,
    void *conf);
static void *ngx_http_tailnet_limit_create_conf(ngx_conf_t *cf);
static char *ngx_http_tailnet_limit_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_tailnet_limit_init(ngx_conf_t *cf);


static ngx_command_t  ngx_http_tailnet_limit_commands[] = {

    { ngx_string("tailnet_limit_req"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_tailnet_limit_req,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tailnet_limit_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_tailnet_limit_set_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tailnet_limit_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tailnet_limit_init,           /* postconfiguration */

    ngx_http_tailnet_limit_create_main_conf,  /* create main configuration */
    ngx_http_tailnet_limit_init_main_conf, /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tailnet_limit_create_conf,    /* create location configuration */
    ngx_http_tailnet_limit_merge_conf      /* merge location configuration */
};


ngx_module_t  ngx_http_tailnet_limit_module = {
    NGX_MODULE_V1,
    &ngx_http_tailnet_limit_module_ctx,    /* module context */
    ngx_http_tailnet_limit_commands,       /* module directives */
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
ngx_http_tailnet_limit_handler(ngx_http_request_t *r)
{
    uint64_t                             delay;
    uintptr_t                            match;
    ngx_tailnet_who_t                   *who;
    ngx_tailnet_note_t                  *note;
    ngx_http_tailnet_ctx_t              *ctx;
    ngx_http_tailnet_limit_t            *limit;
    ngx_http_tailnet_limit_conf_t       *lcf;
    ngx_http_tailnet_limit_main_conf_t  *lmcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_tailnet_limit_module);

    if (lcf->limits == NULL || r != r->main) {
        return NGX_DECLINED;
    }

    /* once per main request, over internal redirects too */

    ctx = ngx_http_tailnet_get_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ctx->limited || ngx_http_tailnet_limit_forbidden(r, ctx)) {
        return NGX_DECLINED;
    }

    who = ctx->who;

    note = ngx_tailnet_who_note(who, lcf->limits);
    match = note ? note->value
                 : ngx_http_tailnet_limit_match(lcf->limits, who);

    if (match == 0) {
        return NGX_DECLINED;
    }

    if (who->counted.len == 0
        && ngx_http_tailnet_limit_key(r, who) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->limited = 1;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_tailnet_limit_module);
    limit = lcf->limits->elts;

    if (match & (match - 1)) {
        return ngx_http_tailnet_limit_several(r, lmcf->zone->data, limit,
                                              match, who);
    }

    for ( /* void */ ; match > 1; match >>= 1) {
        limit++;
    }

    if (ngx_http_tailnet_limit_one(lmcf->zone->data, limit, who, &delay,
                                   r->connection->log)
        == NGX_BUSY)
    {
        return ngx_http_tailnet_limit_refuse(r, limit, &who->counted, delay);
    }

    if (delay < 1000) {
        return NGX_DECLINED;
    }

    return ngx_http_tailnet_limit_wait(r, &who->counted, delay);
}


static ngx_int_t
ngx_http_tailnet_limit_several(ngx_http_request_t *r,
    ngx_http_tailnet_limit_zone_t *zone, ngx_http_tailnet_limit_t *limit,
    uintptr_t match, ngx_tailnet_who_t *who)
{
    uint64_t                   delay;
    ngx_uint_t                 n;
    ngx_http_tailnet_limit_t  *limits[NGX_HTTP_TAILNET_LIMIT_MAX];
    ngx_http_tailnet_limit_t  *exceeded;

    for (n = 0; match; match >>= 1, limit++) {
        if (match & 1) {
            limits[n++] = limit;
        }
    }

    if (ngx_http_tailnet_limit_account(zone, limits, n, who, &delay, &exceeded,
                                       r->connection->log)
        == NGX_BUSY)
    {
        return ngx_http_tailnet_limit_refuse(r, exceeded, &who->counted,
                                             delay);
    }

    if (delay < 1000) {
        return NGX_DECLINED;
    }

    return ngx_http_tailnet_limit_wait(r, &who->counted, delay);
}


static ngx_int_t
ngx_http_tailnet_limit_wait(ngx_http_request_t *r, ngx_str_t *key,
    uint64_t delay)
{
    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "delaying request of \"%V\" for %uLms by tailnet_limit_req",
                  key, delay / 1000);

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_tailnet_limit_delay;

    r->connection->write->delayed = 1;
    ngx_add_timer(r->connection->write, (ngx_msec_t) (delay / 1000));

    return NGX_AGAIN;
}


static void
ngx_http_tailnet_limit_delay(ngx_http_request_t *r)
{
    ngx_event_t  *wev;

    wev = r->connection->write;

    if (wev->delayed) {

        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        }

        return;
    }

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);
}


/* a bit for each limit that counts "who" */

static uintptr_t
ngx_http_tailnet_limit_match(ngx_array_t *limits, ngx_tailnet_who_t *who)
{
    uintptr_t                  match, all;
    ngx_uint_t                 i;
    ngx_http_tailnet_limit_t  *limit;

    limit = limits->elts;
    match = 0;
    all = 0;

    for (i = 0; i < limits->nelts; i++) {

        if (!limit[i].selective) {
            all |= (uintptr_t) 1 << i;

        } else if (tn_selector_match(&limit[i].selector, &who->who)) {
            match |= (uintptr_t) 1 << i;
        }
    }

    match = match ? match : all;

    (void) ngx_tailnet_who_remember(who, limits, match);

    return match;
}


/* with "satisfy any" who is refused by tailnet_acl may still come in */

static ngx_uint_t
ngx_http_tailnet_limit_forbidden(ngx_http_request_t *r,
    ngx_http_tailnet_ctx_t *ctx)
{
    ngx_tailnet_rule_t        *rule;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    return clcf->satisfy == NGX_HTTP_SATISFY_ALL
           && ngx_http_tailnet_acl(r, ctx, &rule) == NGX_HTTP_FORBIDDEN;
}


static ngx_int_t
ngx_http_tailnet_limit_key(ngx_http_request_t *r, ngx_tailnet_who_t *who)
{
    if (who->identity.len) {
        who->counted = who->identity;

    } else if (who->state == NGX_TAILNET_WHO_LOCAL) {
        who->counted = r->connection->addr_text;

    } else if (ngx_http_tailnet_limit_address(who) != NGX_OK) {
        return NGX_ERROR;
    }

    /* a row's length field */

    if (who->counted.len == 0 || who->counted.len > 65535) {
        ngx_str_null(&who->counted);
        return NGX_ERROR;
    }

    who->hash = ngx_crc32_long(who->counted.data, who->counted.len);

    return NGX_OK;
}


/*
 * Unknown peers, by the address of the tailnet: what realip makes of their
 * headers would give them as many limits as they like.
 */

static ngx_int_t
ngx_http_tailnet_limit_address(ngx_tailnet_who_t *who)
{
    char     addr[TN_ADDR_STRLEN];
    size_t   len;
    u_char  *p;

    len = tn_addr_format(&who->who.addr, addr);

    p = ngx_pnalloc(who->pool, len + 1 + who->who.node.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    who->counted.data = p;
    who->counted.len = len + 1 + who->who.node.len;

    p = ngx_cpymem(p, addr, len);
    *p++ = '/';
    (void) ngx_cpymem(p, who->who.node.p, who->who.node.len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_tailnet_limit_refuse(ngx_http_request_t *r,
    ngx_http_tailnet_limit_t *limit, ngx_str_t *key, uint64_t wait)
{
    ngx_table_elt_t  *h;

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "limiting requests of \"%V\" by \"tailnet_limit_req %V\"",
                  key, &limit->text);

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->value.data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (h->value.data == NULL) {
        h->hash = 0;
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    h->hash = 1;
    ngx_str_set(&h->key, "Retry-After");
    h->value.len = ngx_sprintf(h->value.data, "%uL",
                               wait / 1000000 + (wait % 1000000 != 0))
                   - h->value.data;

    return NGX_HTTP_TOO_MANY_REQUESTS;
}


static char *
ngx_http_tailnet_limit_req(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tailnet_limit_conf_t *lcf = conf;

    u_char                              *p;
    size_t                               len;
    ngx_int_t                            rate, scale, burst;
    ngx_str_t                           *value, s;
    ngx_uint_t                           i;
    const char                          *why;
    ngx_shm_zone_t                      *zone;
    ngx_http_tailnet_limit_t            *limit;
    ngx_http_tailnet_limit_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_tailnet_limit_module);

    if (lcf->limits == NULL) {
        lcf->limits = ngx_array_create(cf->pool, 2,
                                       sizeof(ngx_http_tailnet_limit_t));
        if (lcf->limits == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    if (lcf->limits->nelts == NGX_HTTP_TAILNET_LIMIT_MAX) {
        return "is given too often in one place: at most "
               ngx_value(NGX_HTTP_TAILNET_LIMIT_MAX) " limits";
    }

    limit = ngx_array_push(lcf->limits);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(limit, sizeof(ngx_http_tailnet_limit_t));

    rate = -1;
    scale = 1;
    burst = 0;
    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "rate=", 5) == 0) {

            len = value[i].len;
            p = value[i].data + len - 3;

            if (len > 8 && ngx_strncmp(p, "r/s", 3) == 0) {
                len -= 3;

            } else if (len > 8 && ngx_strncmp(p, "r/m", 3) == 0) {
                scale = 60;
                len -= 3;

            } else {
                goto invalid;
            }

            rate = ngx_atoi(value[i].data + 5, len - 5);
            if (rate <= 0 || rate > 1000000) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "burst=", 6) == 0) {

            burst = ngx_atoi(value[i].data + 6, value[i].len - 6);
            if (burst < 0 || burst > 1000000) {
                goto invalid;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "for=", 4) == 0) {

            s.data = value[i].data + 4;
            s.len = value[i].len - 4;

            if (limit->selective) {
                return "has more than one \"for=\"";
            }

            why = tn_selector_parse(&limit->selector, (char *) s.data, s.len);

            if (why) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"%V\" in \"tailnet_limit_req\": %s",
                                   &value[i], why);
                return NGX_CONF_ERROR;
            }

            if (limit->selector.node.len) {
                s.data = (u_char *) limit->selector.node.p;
                s.len = limit->selector.node.len;

                if (ngx_tailnet_node_mention(cf, &s, "tailnet_limit_req")
                    != NGX_OK)
                {
                    return NGX_CONF_ERROR;
                }
            }

            limit->selective = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "nodelay") == 0) {
            limit->nodelay = 1;
            continue;
        }

        goto invalid;
    }

    if (rate == -1) {
        return "needs a \"rate=\", as in \"rate=20r/s\"";
    }

    limit->interval = (uint64_t) scale * 1000000 / rate;
    limit->tolerance = (uint64_t) burst * limit->interval;
    limit->id = ngx_http_tailnet_limit_id(cf, lmcf);
    ngx_tailnet_place(cf, &limit->place);

    for (len = 0, i = 1; i < cf->args->nelts; i++) {
        len += value[i].len + 1;
    }

    p = ngx_pnalloc(cf->pool, len);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    limit->text.data = p;

    for (i = 1; i < cf->args->nelts; i++) {
        p = ngx_cpymem(p, value[i].data, value[i].len);
        *p++ = ' ';
    }

    limit->text.len = p - limit->text.data - 1;

    if (lmcf->zone == NULL) {
        ngx_str_set(&s, "tailnet_limit");

        zone = ngx_shared_memory_add(cf, &s, NGX_HTTP_TAILNET_LIMIT_SIZE,
                                     &ngx_http_tailnet_limit_module);
        if (zone == NULL) {
            return NGX_CONF_ERROR;
        }

        zone->data = ngx_pcalloc(cf->pool,
                                 sizeof(ngx_http_tailnet_limit_zone_t));
        if (zone->data == NULL) {
            return NGX_CONF_ERROR;
        }

        zone->init = ngx_http_tailnet_limit_init_zone;
        lmcf->zone = zone;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of \"tailnet_limit_req\"",
                       &value[i]);
    return NGX_CONF_ERROR;
}


/*
 * A limit keeps its rows over a reload, also when lines around it move: its
 * number comes from its words and its place, not from the line.
 */

static uint32_t
ngx_http_tailnet_limit_id(ngx_conf_t *cf,
    ngx_http_tailnet_limit_main_conf_t *lmcf)
{
    uint32_t                  hash, *id;
    ngx_str_t                *value;
    ngx_uint_t                i;
    ngx_http_core_loc_conf_t *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    value = cf->args->elts;

    ngx_crc32_init(hash);
    ngx_crc32_update(&hash, cf->conf_file->file.name.data,
                     cf->conf_file->file.name.len);
    ngx_crc32_update(&hash, clcf->name.data, clcf->name.len);

    for (i = 1; i < cf->args->nelts; i++) {
        ngx_crc32_update(&hash, value[i].data, value[i].len + 1);
    }

    ngx_crc32_final(hash);

    id = lmcf->ids.elts;

    for (i = 0; i < lmcf->ids.nelts; i++) {
        if (id[i] == hash) {
            hash++;
            i = (ngx_uint_t) -1;
        }
    }

    id = ngx_array_push(&lmcf->ids);
    if (id) {
        *id = hash;
    }

    return hash;
}


static char *
ngx_http_tailnet_limit_set_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_tailnet_limit_main_conf_t *lmcf = conf;

    ssize_t     size;
    ngx_str_t  *value;

    if (lmcf->size) {
        return "is duplicate";
    }

    value = cf->args->elts;
    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR || size < (ssize_t) (8 * ngx_pagesize)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size \"%V\" of \"tailnet_limit_zone\": "
                           "at least %uz bytes are needed",
                           &value[1], 8 * ngx_pagesize);
        return NGX_CONF_ERROR;
    }

    lmcf->size = size;

    return NGX_CONF_OK;
}


static void *
ngx_http_tailnet_limit_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_tailnet_limit_main_conf_t  *lmcf;

    lmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_tailnet_limit_main_conf_t));
    if (lmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&lmcf->ids, cf->pool, 8, sizeof(uint32_t)) != NGX_OK) {
        return NULL;
    }

    return lmcf;
}


static char *
ngx_http_tailnet_limit_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_tailnet_limit_main_conf_t *lmcf = conf;

    if (lmcf->zone && lmcf->size) {
        lmcf->zone->shm.size = lmcf->size;
    }

    return NGX_CONF_OK;
}


static void *
ngx_http_tailnet_limit_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tailnet_limit_conf_t));
}


static char *
ngx_http_tailnet_limit_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tailnet_limit_conf_t *prev = parent;
    ngx_http_tailnet_limit_conf_t *conf = child;

    uint64_t                      nodes;
    ngx_uint_t                    i;
    ngx_http_tailnet_limit_t     *limit;
    ngx_http_tailnet_srv_conf_t  *tscf;

    if (conf->limits == NULL) {
        conf->limits = prev->limits;
    }

    tscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_tailnet_module);
    nodes = tscf->nodes;

    if (conf->limits == NULL || (nodes & (nodes - 1)) == 0) {
        return NGX_CONF_OK;
    }

    limit = conf->limits->elts;

    for (i = 0; i < conf->limits->nelts; i++) {

        if (!limit[i].selective
            || limit[i].selector.node.len
            || limit[i].selector.kind == TN_SEL_LOCAL)
        {
            continue;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"tailnet_limit_req %V\" must say of which node's "
                      "tailnet, as for=NODE/SELECTOR: its server listens on "
                      "several nodes in %V:%ui", &limit[i].text,
                      &limit[i].place.file, limit[i].place.line);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tailnet_limit_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tailnet_limit_handler;

    return NGX_OK;
}

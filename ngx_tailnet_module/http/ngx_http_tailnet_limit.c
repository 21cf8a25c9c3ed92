
/*
 * tailnet_limit_req: requests per identity.
 *
 * The generic cell rate algorithm (ITU-T I.371) over one shared zone: a row
 * for each limit and identity holds the theoretical arrival time of the next
 * request.  With T = 1/rate, a request that comes more than burst*T before
 * that time is refused; one that comes before it waits, unless "nodelay".
 *
 * Limits with "for=" are for whom they select; limits without are for everyone
 * whom no "for=" of the same level selects.
 */


#include "ngx_http_tailnet_module.h"


#define NGX_HTTP_TAILNET_LIMIT_ZONE   (1024 * 1024)
#define NGX_HTTP_TAILNET_LIMIT_MAX    8         /* limits of one request */
#define NGX_HTTP_TAILNET_LIMIT_IDLE   60000000  /* microseconds; may go */
#define NGX_HTTP_TAILNET_LIMIT_EVICT  8         /* rows, to make room for one */


typedef struct {
    ngx_rbtree_node_t            node;      /* key: hash */
    ngx_queue_t                  queue;     /* least recently used last */
    uint64_t                     arrival;   /* microseconds, monotonic */
    uint32_t                     limit;     /* which tailnet_limit_req */
    u_short                      len;
    u_char                       data[1];   /* the identity */
} ngx_http_tailnet_limit_row_t;


typedef struct {
    ngx_rbtree_t                 rbtree;
    ngx_rbtree_node_t            sentinel;
    ngx_queue_t                  queue;
    ngx_atomic_t                 evicted;   /* rows that were still in use */
    ngx_atomic_t                 full;      /* requests refused for want of
                                               room */
} ngx_http_tailnet_limit_sh_t;


typedef struct {
    ngx_http_tailnet_limit_sh_t *sh;
    ngx_slab_pool_t             *shpool;
} ngx_http_tailnet_limit_zone_t;


typedef struct {
    uint32_t                     id;
    uint64_t                     interval;  /* T, microseconds */
    uint64_t                     tolerance; /* burst * T */
    ngx_uint_t                   nodelay;
    ngx_uint_t                   selective;
    struct tn_selector           selector;
    ngx_str_t                    text;
} ngx_http_tailnet_limit_t;


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
static ngx_uint_t ngx_http_tailnet_limit_select(
    ngx_http_tailnet_limit_conf_t *lcf, ngx_tailnet_who_t *who,
    ngx_http_tailnet_limit_t **limits);
static ngx_int_t ngx_http_tailnet_limit_account(ngx_http_request_t *r,
    ngx_http_tailnet_limit_t **limits, ngx_uint_t n, ngx_str_t *key,
    uint64_t *delay, ngx_http_tailnet_limit_t **exceeded);
static ngx_http_tailnet_limit_row_t *ngx_http_tailnet_limit_row(
    ngx_http_tailnet_limit_zone_t *zone, ngx_http_tailnet_limit_t *limit,
    ngx_str_t *key, uint64_t now);
static void ngx_http_tailnet_limit_expire(ngx_http_tailnet_limit_zone_t *zone,
    uint64_t now, ngx_uint_t force);
static void ngx_http_tailnet_limit_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);
static ngx_int_t ngx_http_tailnet_limit_key(ngx_http_request_t *r,
    ngx_tailnet_who_t *who, ngx_str_t *key);
static ngx_int_t ngx_http_tailnet_limit_refuse(ngx_http_request_t *r,
    ngx_http_tailnet_limit_t *limit, ngx_str_t *key, uint64_t wait);
static ngx_uint_t ngx_http_tailnet_limit_seen(ngx_http_request_t *r);
static void ngx_http_tailnet_limit_cleanup(void *data);
static ngx_int_t ngx_http_tailnet_limit_init_zone(ngx_shm_zone_t *zone,
    void *data);
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
    uint64_t                        delay;
    ngx_int_t                       rc;
    ngx_str_t                       key;
    ngx_uint_t                      n;
    ngx_tailnet_who_t              *who;
    ngx_tailnet_rule_t             *rule;
    ngx_http_tailnet_limit_t       *limits[NGX_HTTP_TAILNET_LIMIT_MAX];
    ngx_http_tailnet_limit_t       *exceeded;
    ngx_http_tailnet_limit_conf_t  *lcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_tailnet_limit_module);

    if (lcf->limits == NULL || r != r->main
        || ngx_http_tailnet_acl(r, &rule) == NGX_HTTP_FORBIDDEN
        || ngx_http_tailnet_limit_seen(r))
    {
        return NGX_DECLINED;
    }

    who = ngx_http_tailnet_who(r);
    if (who == NULL || ngx_http_tailnet_limit_key(r, who, &key) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    n = ngx_http_tailnet_limit_select(lcf, who, limits);
    if (n == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_http_tailnet_limit_account(r, limits, n, &key, &delay, &exceeded);

    if (rc == NGX_BUSY) {
        return ngx_http_tailnet_limit_refuse(r, exceeded, &key, delay);
    }

    if (delay < 1000) {
        return NGX_DECLINED;
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "delaying request of \"%V\" for %uLms by tailnet_limit_req",
                  &key, delay / 1000);

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


static ngx_uint_t
ngx_http_tailnet_limit_select(ngx_http_tailnet_limit_conf_t *lcf,
    ngx_tailnet_who_t *who, ngx_http_tailnet_limit_t **limits)
{
    ngx_uint_t                 i, n, selective;
    ngx_http_tailnet_limit_t  *limit;

    limit = lcf->limits->elts;
    selective = 1;

    for ( ;; ) {

        for (n = 0, i = 0; i < lcf->limits->nelts; i++) {

            if (limit[i].selective == selective
                && (!selective
                    || tn_selector_match(&limit[i].selector, &who->who)))
            {
                limits[n++] = &limit[i];
            }
        }

        if (n || !selective) {
            return n;
        }

        selective = 0;
    }
}


/* all limits or none: what one refuses, the others don't count */

static ngx_int_t
ngx_http_tailnet_limit_account(ngx_http_request_t *r,
    ngx_http_tailnet_limit_t **limits, ngx_uint_t n, ngx_str_t *key,
    uint64_t *delay, ngx_http_tailnet_limit_t **exceeded)
{
    uint64_t                             now, wait;
    ngx_int_t                            rc;
    ngx_uint_t                           i;
    struct timespec                      ts;
    ngx_http_tailnet_limit_row_t        *rows[NGX_HTTP_TAILNET_LIMIT_MAX];
    ngx_http_tailnet_limit_zone_t       *zone;
    ngx_http_tailnet_limit_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_tailnet_limit_module);
    zone = lmcf->zone->data;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    now = (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;

    rc = NGX_OK;
    *delay = 0;

    ngx_shmtx_lock(&zone->shpool->mutex);

    for (i = 0; i < n; i++) {

        rows[i] = ngx_http_tailnet_limit_row(zone, limits[i], key, now);

        if (rows[i] == NULL) {
            (void) ngx_atomic_fetch_add(&zone->sh->full, 1);
            *exceeded = limits[i];
            *delay = 1000000;
            rc = NGX_BUSY;
            break;
        }

        wait = rows[i]->arrival > now ? rows[i]->arrival - now : 0;

        if (wait > limits[i]->tolerance) {
            *exceeded = limits[i];
            *delay = wait - limits[i]->tolerance;
            rc = NGX_BUSY;
            break;
        }
    }

    for (i = 0; rc == NGX_OK && i < n; i++) {

        wait = rows[i]->arrival > now ? rows[i]->arrival - now : 0;
        rows[i]->arrival = now + wait + limits[i]->interval;

        if (!limits[i]->nodelay && wait > *delay) {
            *delay = wait;
        }
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);

    return rc;
}


/* the row, moved to the queue's head; a new one where there is none */

static ngx_http_tailnet_limit_row_t *
ngx_http_tailnet_limit_row(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, ngx_str_t *key, uint64_t now)
{
    size_t                         size;
    uint32_t                       hash;
    ngx_int_t                      rc;
    ngx_uint_t                     i;
    ngx_rbtree_node_t             *node, *sentinel;
    ngx_http_tailnet_limit_row_t  *row;

    ngx_crc32_init(hash);
    ngx_crc32_update(&hash, (u_char *) &limit->id, sizeof(limit->id));
    ngx_crc32_update(&hash, key->data, key->len);
    ngx_crc32_final(hash);

    node = zone->sh->rbtree.root;
    sentinel = zone->sh->rbtree.sentinel;

    while (node != sentinel) {

        if (hash != node->key) {
            node = (hash < node->key) ? node->left : node->right;
            continue;
        }

        row = (ngx_http_tailnet_limit_row_t *) node;

        rc = (row->limit < limit->id) ? 1 : (row->limit > limit->id) ? -1 : 0;

        if (rc == 0) {
            rc = ngx_memn2cmp(key->data, row->data, key->len,
                              (size_t) row->len);
        }

        if (rc == 0) {
            ngx_queue_remove(&row->queue);
            ngx_queue_insert_head(&zone->sh->queue, &row->queue);
            return row;
        }

        node = (rc < 0) ? node->left : node->right;
    }

    size = offsetof(ngx_http_tailnet_limit_row_t, data) + key->len;

    /* two idle rows go for each that comes, more only to make room */

    for (i = 0; i < 2; i++) {
        ngx_http_tailnet_limit_expire(zone, now, 0);
    }

    row = ngx_slab_alloc_locked(zone->shpool, size);

    for (i = 0; row == NULL && i < NGX_HTTP_TAILNET_LIMIT_EVICT; i++) {
        ngx_http_tailnet_limit_expire(zone, now, 1);
        row = ngx_slab_alloc_locked(zone->shpool, size);
    }

    if (row == NULL) {
        return NULL;
    }

    row->node.key = hash;
    row->arrival = 0;
    row->limit = limit->id;
    row->len = (u_short) key->len;
    ngx_memcpy(row->data, key->data, key->len);

    ngx_rbtree_insert(&zone->sh->rbtree, &row->node);
    ngx_queue_insert_head(&zone->sh->queue, &row->queue);

    return row;
}


static void
ngx_http_tailnet_limit_expire(ngx_http_tailnet_limit_zone_t *zone,
    uint64_t now, ngx_uint_t force)
{
    ngx_queue_t                   *q;
    ngx_http_tailnet_limit_row_t  *row;

    if (ngx_queue_empty(&zone->sh->queue)) {
        return;
    }

    q = ngx_queue_last(&zone->sh->queue);
    row = ngx_queue_data(q, ngx_http_tailnet_limit_row_t, queue);

    if (!force && row->arrival + NGX_HTTP_TAILNET_LIMIT_IDLE > now) {
        return;
    }

    if (row->arrival > now) {
        (void) ngx_atomic_fetch_add(&zone->sh->evicted, 1);
    }

    ngx_queue_remove(q);
    ngx_rbtree_delete(&zone->sh->rbtree, &row->node);
    ngx_slab_free_locked(zone->shpool, row);
}


static void
ngx_http_tailnet_limit_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel)
{
    ngx_int_t                      rc;
    ngx_rbtree_node_t            **p;
    ngx_http_tailnet_limit_row_t  *row, *t;

    row = (ngx_http_tailnet_limit_row_t *) node;

    for ( ;; ) {

        if (node->key != temp->key) {
            p = (node->key < temp->key) ? &temp->left : &temp->right;

        } else {
            t = (ngx_http_tailnet_limit_row_t *) temp;

            rc = (t->limit < row->limit) ? 1 : (t->limit > row->limit) ? -1 : 0;

            if (rc == 0) {
                rc = ngx_memn2cmp(row->data, t->data, (size_t) row->len,
                                  (size_t) t->len);
            }

            p = (rc < 0) ? &temp->left : &temp->right;
        }

        if (*p == sentinel) {
            break;
        }

        temp = *p;
    }

    *p = node;
    node->parent = temp;
    node->left = sentinel;
    node->right = sentinel;
    ngx_rbt_red(node);
}


static ngx_int_t
ngx_http_tailnet_limit_key(ngx_http_request_t *r, ngx_tailnet_who_t *who,
    ngx_str_t *key)
{
    if (who->identity.len) {
        *key = who->identity;

    } else if (who->ip.len) {
        *key = who->ip;

    } else {
        *key = r->connection->addr_text;
    }

    /* a row's length field */
    return key->len && key->len < 65536 ? NGX_OK : NGX_ERROR;
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


/* once per main request, over internal redirects too */

static ngx_uint_t
ngx_http_tailnet_limit_seen(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t  *cln;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_tailnet_limit_cleanup) {
            return 1;
        }
    }

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln) {
        cln->handler = ngx_http_tailnet_limit_cleanup;
    }

    return 0;
}


/* marks the request in its pool's list; there is nothing to clean */

static void
ngx_http_tailnet_limit_cleanup(void *data)
{
}


static ngx_int_t
ngx_http_tailnet_limit_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_tailnet_limit_zone_t *ozone = data;

    ngx_http_tailnet_limit_zone_t  *zone;

    zone = shm_zone->data;

    if (ozone) {
        zone->sh = ozone->sh;
        zone->shpool = ozone->shpool;
        return NGX_OK;
    }

    zone->shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        zone->sh = zone->shpool->data;
        return NGX_OK;
    }

    zone->sh = ngx_slab_calloc(zone->shpool,
                               sizeof(ngx_http_tailnet_limit_sh_t));
    if (zone->sh == NULL) {
        return NGX_ERROR;
    }

    zone->shpool->data = zone->sh;
    zone->shpool->log_nomem = 0;

    ngx_rbtree_init(&zone->sh->rbtree, &zone->sh->sentinel,
                    ngx_http_tailnet_limit_insert);
    ngx_queue_init(&zone->sh->queue);

    return NGX_OK;
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
        return "is given too often in one place: at most 8 limits";
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

        zone = ngx_shared_memory_add(cf, &s, NGX_HTTP_TAILNET_LIMIT_ZONE,
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

    if (conf->limits == NULL) {
        conf->limits = prev->limits;
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


/*
 * The counters of tailnet_limit_req.
 *
 * The generic cell rate algorithm (ITU-T I.371) over one shared zone: a row
 * for each limit and identity holds the theoretical arrival time of the next
 * request.  With T = 1/rate, a request that comes more than burst*T before
 * that time is refused; one that comes before it waits, unless "nodelay".
 */


#include "ngx_http_tailnet_limit.h"


#define NGX_HTTP_TAILNET_LIMIT_IDLE   60000000  /* microseconds; may go */
#define NGX_HTTP_TAILNET_LIMIT_EVICT  8         /* rows, to make room for one */
#define NGX_HTTP_TAILNET_LIMIT_WARN   60        /* seconds between warnings */


typedef struct {
    ngx_rbtree_node_t            node;      /* key: hash */
    ngx_queue_t                  queue;     /* least recently used last */
    uint64_t                     arrival;   /* microseconds, monotonic */
    uint32_t                     limit;     /* which tailnet_limit_req */
    u_short                      len;
    u_char                       data[1];   /* the identity */
} ngx_http_tailnet_limit_row_t;


struct ngx_http_tailnet_limit_sh_s {
    ngx_rbtree_t                 rbtree;
    ngx_rbtree_node_t            sentinel;
    ngx_queue_t                  queue;
    ngx_atomic_t                 evicted;   /* rows that were still in use */
    ngx_atomic_t                 full;      /* requests refused for want of
                                               room */
    ngx_atomic_uint_t            gone;      /* rows, ever; and 1 */
};


static ngx_inline uint64_t ngx_http_tailnet_limit_now(void);
static ngx_inline uint64_t ngx_http_tailnet_limit_early(
    ngx_http_tailnet_limit_row_t *row, uint64_t now);
static ngx_inline void ngx_http_tailnet_limit_look(
    ngx_http_tailnet_limit_sh_t *sh, ngx_log_t *log);
static ngx_inline ngx_http_tailnet_limit_row_t *ngx_http_tailnet_limit_row(
    ngx_http_tailnet_limit_zone_t *zone, ngx_http_tailnet_limit_t *limit,
    ngx_tailnet_who_t *who, uint64_t now);
static ngx_tailnet_noinline ngx_http_tailnet_limit_row_t *
    ngx_http_tailnet_limit_find_row(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, ngx_tailnet_who_t *who, uint64_t now);
static ngx_http_tailnet_limit_row_t *ngx_http_tailnet_limit_new_row(
    ngx_http_tailnet_limit_zone_t *zone, ngx_http_tailnet_limit_t *limit,
    ngx_str_t *key, uint32_t hash, uint64_t now);
static ngx_int_t ngx_http_tailnet_limit_expire(
    ngx_http_tailnet_limit_zone_t *zone, ngx_str_t *key, uint64_t now,
    ngx_uint_t force);
static ngx_tailnet_noinline void ngx_http_tailnet_limit_warn(
    ngx_http_tailnet_limit_sh_t *sh, ngx_log_t *log);
static void ngx_http_tailnet_limit_insert(ngx_rbtree_node_t *temp,
    ngx_rbtree_node_t *node, ngx_rbtree_node_t *sentinel);


/* as they were last warned of */

static ngx_atomic_uint_t  ngx_http_tailnet_limit_evicted;
static ngx_atomic_uint_t  ngx_http_tailnet_limit_full;


ngx_int_t
ngx_http_tailnet_limit_one(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, ngx_tailnet_who_t *who, uint64_t *delay,
    ngx_log_t *log)
{
    uint64_t                       now, wait;
    ngx_int_t                      rc;
    ngx_http_tailnet_limit_row_t  *row;

    now = ngx_http_tailnet_limit_now();

    ngx_shmtx_lock(&zone->shpool->mutex);

    row = ngx_http_tailnet_limit_row(zone, limit, who, now);

    if (row == NULL) {
        *delay = 1000000;
        rc = NGX_BUSY;

    } else {
        wait = ngx_http_tailnet_limit_early(row, now);

        if (wait > limit->tolerance) {
            *delay = wait - limit->tolerance;
            rc = NGX_BUSY;

        } else {
            row->arrival = now + wait + limit->interval;
            *delay = limit->nodelay ? 0 : wait;
            rc = NGX_OK;
        }
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);

    ngx_http_tailnet_limit_look(zone->sh, log);

    return rc;
}


/* all limits or none: what one refuses, the others don't count */

ngx_int_t
ngx_http_tailnet_limit_account(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t **limits, ngx_uint_t n, ngx_tailnet_who_t *who,
    uint64_t *delay, ngx_http_tailnet_limit_t **exceeded, ngx_log_t *log)
{
    uint64_t                       now, wait;
    ngx_int_t                      rc;
    ngx_uint_t                     i;
    ngx_http_tailnet_limit_row_t  *rows[NGX_HTTP_TAILNET_LIMIT_MAX];

    now = ngx_http_tailnet_limit_now();

    rc = NGX_OK;
    *delay = 0;

    ngx_shmtx_lock(&zone->shpool->mutex);

    for (i = 0; i < n; i++) {

        rows[i] = ngx_http_tailnet_limit_row(zone, limits[i], who, now);

        if (rows[i] == NULL) {
            *exceeded = limits[i];
            *delay = 1000000;
            rc = NGX_BUSY;
            break;
        }

        wait = ngx_http_tailnet_limit_early(rows[i], now);

        if (wait > limits[i]->tolerance) {
            *exceeded = limits[i];
            *delay = wait - limits[i]->tolerance;
            rc = NGX_BUSY;
            break;
        }
    }

    for (i = 0; rc == NGX_OK && i < n; i++) {

        wait = ngx_http_tailnet_limit_early(rows[i], now);
        rows[i]->arrival = now + wait + limits[i]->interval;

        if (!limits[i]->nodelay && wait > *delay) {
            *delay = wait;
        }
    }

    ngx_shmtx_unlock(&zone->shpool->mutex);

    ngx_http_tailnet_limit_look(zone->sh, log);

    return rc;
}


static ngx_inline uint64_t
ngx_http_tailnet_limit_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}


/* how much before its theoretical time a request comes */

static ngx_inline uint64_t
ngx_http_tailnet_limit_early(ngx_http_tailnet_limit_row_t *row, uint64_t now)
{
    return row->arrival > now ? row->arrival - now : 0;
}


static ngx_inline void
ngx_http_tailnet_limit_look(ngx_http_tailnet_limit_sh_t *sh, ngx_log_t *log)
{
    if (sh->evicted != ngx_http_tailnet_limit_evicted
        || sh->full != ngx_http_tailnet_limit_full)
    {
        ngx_http_tailnet_limit_warn(sh, log);
    }
}


/* to be seen before limits that are forgotten let too much through */

static void
ngx_http_tailnet_limit_warn(ngx_http_tailnet_limit_sh_t *sh, ngx_log_t *log)
{
    static time_t  next;

    if (ngx_time() < next) {
        return;
    }

    next = ngx_time() + NGX_HTTP_TAILNET_LIMIT_WARN;
    ngx_http_tailnet_limit_evicted = sh->evicted;
    ngx_http_tailnet_limit_full = sh->full;

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "\"tailnet_limit_zone\" is too small: counters forgotten "
                  "while in use: %uA, requests refused for want of room: %uA",
                  ngx_http_tailnet_limit_evicted,
                  ngx_http_tailnet_limit_full);
}


/*
 * The row, moved to the queue's head; a new one where there is none.  A row
 * that was found once is where it was, as long as none has gone since.
 */

static ngx_inline ngx_http_tailnet_limit_row_t *
ngx_http_tailnet_limit_row(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, ngx_tailnet_who_t *who,
    uint64_t now)
{
    ngx_tailnet_note_t            *note;
    ngx_http_tailnet_limit_row_t  *row;

    note = ngx_tailnet_who_note(who, limit);

    if (note && note->stamp == zone->sh->gone) {
        row = (ngx_http_tailnet_limit_row_t *) note->value;

    } else {
        row = ngx_http_tailnet_limit_find_row(zone, limit, who, now);

        if (row == NULL) {
            (void) ngx_atomic_fetch_add(&zone->sh->full, 1);
            return NULL;
        }

        if (note == NULL) {
            note = ngx_tailnet_who_remember(who, limit, 0);
        }

        note->value = (uintptr_t) row;
        note->stamp = zone->sh->gone;
    }

    if (ngx_queue_head(&zone->sh->queue) != &row->queue) {
        ngx_queue_remove(&row->queue);
        ngx_queue_insert_head(&zone->sh->queue, &row->queue);
    }

    return row;
}


static ngx_http_tailnet_limit_row_t *
ngx_http_tailnet_limit_find_row(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, ngx_tailnet_who_t *who,
    uint64_t now)
{
    uint32_t                       hash;
    ngx_int_t                      rc;
    ngx_str_t                     *key;
    ngx_rbtree_node_t             *node, *sentinel;
    ngx_http_tailnet_limit_row_t  *row;

    /* the numbers of limits are CRCs themselves */

    key = &who->counted;
    hash = who->hash ^ limit->id;

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
            return row;
        }

        node = (rc < 0) ? node->left : node->right;
    }

    return ngx_http_tailnet_limit_new_row(zone, limit, key, hash, now);
}


static ngx_http_tailnet_limit_row_t *
ngx_http_tailnet_limit_new_row(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, ngx_str_t *key, uint32_t hash,
    uint64_t now)
{
    size_t                         size;
    ngx_uint_t                     i;
    ngx_http_tailnet_limit_row_t  *row;

    size = offsetof(ngx_http_tailnet_limit_row_t, data) + key->len;

    /* two idle rows go for each that comes, more only to make room */

    for (i = 0; i < 2; i++) {
        (void) ngx_http_tailnet_limit_expire(zone, key, now, 0);
    }

    row = ngx_slab_alloc_locked(zone->shpool, size);

    for (i = 0; row == NULL && i < NGX_HTTP_TAILNET_LIMIT_EVICT; i++) {

        if (ngx_http_tailnet_limit_expire(zone, key, now, 1) != NGX_OK) {
            break;
        }

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


/* NGX_DECLINED: none may go; rows of the one who asks are in use just now */

static ngx_int_t
ngx_http_tailnet_limit_expire(ngx_http_tailnet_limit_zone_t *zone,
    ngx_str_t *key, uint64_t now, ngx_uint_t force)
{
    ngx_queue_t                   *q;
    ngx_http_tailnet_limit_row_t  *row;

    if (ngx_queue_empty(&zone->sh->queue)) {
        return NGX_DECLINED;
    }

    q = ngx_queue_last(&zone->sh->queue);
    row = ngx_queue_data(q, ngx_http_tailnet_limit_row_t, queue);

    if (!force && row->arrival + NGX_HTTP_TAILNET_LIMIT_IDLE > now) {
        return NGX_DECLINED;
    }

    if (ngx_memn2cmp(key->data, row->data, key->len, (size_t) row->len) == 0) {
        return NGX_DECLINED;
    }

    if (row->arrival > now) {
        (void) ngx_atomic_fetch_add(&zone->sh->evicted, 1);
    }

    zone->sh->gone++;

    ngx_queue_remove(q);
    ngx_rbtree_delete(&zone->sh->rbtree, &row->node);
    ngx_slab_free_locked(zone->shpool, row);

    return NGX_OK;
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


ngx_int_t
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
    zone->sh->gone = 1;

    return NGX_OK;
}


#ifndef _NGX_HTTP_TAILNET_LIMIT_H_INCLUDED_
#define _NGX_HTTP_TAILNET_LIMIT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_tailnet.h"


#define NGX_HTTP_TAILNET_LIMIT_MAX    8         /* limits of one request */


typedef struct {
    uint32_t                     id;
    uint64_t                     interval;  /* T, microseconds */
    uint64_t                     tolerance; /* burst * T */
    ngx_uint_t                   nodelay;
    ngx_uint_t                   selective;
    struct tn_selector           selector;
    ngx_str_t                    text;
    ngx_tailnet_place_t          place;
} ngx_http_tailnet_limit_t;


typedef struct ngx_http_tailnet_limit_sh_s  ngx_http_tailnet_limit_sh_t;

typedef struct {
    ngx_http_tailnet_limit_sh_t *sh;
    ngx_slab_pool_t             *shpool;
} ngx_http_tailnet_limit_zone_t;


/*
 * ngx_http_tailnet_limit_account() counts a request of "who" at all limits or
 * at none: NGX_OK and how long it has to wait; NGX_BUSY, the limit that refuses
 * it and after how long it would not.  Microseconds.
 * ngx_http_tailnet_limit_one() is the same for a single limit, which is what
 * most places have.
 *
 * ngx_http_tailnet_limit_init_zone() is for ngx_shm_zone_t.init.
 */

ngx_int_t ngx_http_tailnet_limit_account(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t **limits, ngx_uint_t n, ngx_tailnet_who_t *who,
    uint64_t *delay, ngx_http_tailnet_limit_t **exceeded, ngx_log_t *log);
ngx_int_t ngx_http_tailnet_limit_one(ngx_http_tailnet_limit_zone_t *zone,
    ngx_http_tailnet_limit_t *limit, ngx_tailnet_who_t *who, uint64_t *delay,
    ngx_log_t *log);
ngx_int_t ngx_http_tailnet_limit_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);


#endif /* _NGX_HTTP_TAILNET_LIMIT_H_INCLUDED_ */

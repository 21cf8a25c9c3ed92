
#ifndef _NGX_HTTP_TAILNET_UPSTREAM_H_INCLUDED_
#define _NGX_HTTP_TAILNET_UPSTREAM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_tailnet.h"


typedef struct {
    ngx_http_upstream_rr_peers_t    *peers;
    ngx_pool_t                      *pool;      /* NULL: the request's */
    ngx_uint_t                       refs;      /* requests, and the worker */
    ngx_array_t                      stamps;    /* uint64_t, of each line */
} ngx_http_tailnet_set_t;


typedef struct {
    ngx_uint_t                       index;     /* in uscf->servers */
    ngx_uint_t                       node;
    ngx_str_t                        name;      /* host, FQDN, tag, address */
    ngx_http_complex_value_t        *value;     /* or this */
    in_port_t                        port;
    ngx_str_t                        text;      /* as written */
    const char                      *why;       /* it is out, as last logged */
    unsigned                         tag:1;
    unsigned                         overflow:1;  /* logged once a worker */
} ngx_http_tailnet_server_t;


typedef struct {
    ngx_array_t                     *servers;   /* ngx_http_tailnet_server_t */
    ngx_http_upstream_init_peer_pt   init;
    ngx_http_tailnet_set_t          *set;       /* of this worker */
    ngx_tailnet_place_t              place;
    ngx_uint_t                       variables;
} ngx_http_tailnet_upstream_conf_t;


/*
 * ngx_http_tailnet_upstream_set(): the worker's set, or one of the request's
 * own if a name has variables; NULL only if there is no memory or a variable
 * fails.  Who keeps it counts itself in set->refs.
 *
 * ngx_http_tailnet_upstream_uncount(): a request of "set" is done with the peer
 * whose name this is; "current" has its connection in "conns", too.
 *
 * ngx_http_tailnet_upstream_release() is for ngx_pool_cleanup_t.handler, too.
 */

ngx_http_tailnet_set_t *ngx_http_tailnet_upstream_set(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us, ngx_http_tailnet_upstream_conf_t *ucf);
void ngx_http_tailnet_upstream_uncount(ngx_http_tailnet_set_t *set,
    ngx_http_tailnet_set_t *current, ngx_str_t *name);
void ngx_http_tailnet_upstream_release(void *data);


#endif /* _NGX_HTTP_TAILNET_UPSTREAM_H_INCLUDED_ */

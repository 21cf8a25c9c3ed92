
/*
 * tailnet_headers: identity for applications, as request headers.
 *
 * Whatever a client sends under "Tailscale-" is taken away on every listener,
 * in the first phase there is, with any other sign for "-" too: CGI and WSGI
 * make "_" equal to it, PHP "." as well.  What the module sets comes from the
 * identity alone.  Names and encoding follow "tailscale serve" (RFC 2047 "Q"
 * for what isn't ASCII); Tailscale-Node and Tailscale-Tags are ours.
 *
 * Each location decides, that of a subrequest or after an internal redirect
 * too: it takes away what the one before has set, and sets its own.
 */


#include "ngx_http_tailnet_module.h"


#define NGX_HTTP_TAILNET_WORD  75       /* RFC 2047, section 2 */


typedef struct {
    ngx_flag_t                   headers;
} ngx_http_tailnet_headers_conf_t;


typedef struct {
    ngx_str_t                    name;
    u_char                      *lowcase;
    size_t                       offset;    /* in ngx_tailnet_who_t */
} ngx_http_tailnet_header_t;


#define NGX_HTTP_TAILNET_HEADERS  6


/* what all requests of somebody get */

typedef struct {
    ngx_uint_t                   nelts;
    ngx_table_elt_t              elts[NGX_HTTP_TAILNET_HEADERS];
} ngx_http_tailnet_header_set_t;


static ngx_int_t ngx_http_tailnet_headers_strip_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tailnet_headers_set_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_tailnet_headers_family(ngx_str_t *name);
static ngx_int_t ngx_http_tailnet_headers_strip(ngx_http_request_t *r,
    ngx_uint_t renew);
static ngx_http_tailnet_header_set_t *ngx_http_tailnet_headers_make(
    ngx_tailnet_who_t *who);
static ngx_int_t ngx_http_tailnet_headers_put(ngx_http_request_t *r,
    ngx_http_tailnet_header_set_t *set);
static ngx_int_t ngx_http_tailnet_headers_encode(ngx_pool_t *pool,
    ngx_str_t *in, ngx_str_t *out);
static ngx_uint_t ngx_http_tailnet_headers_literal(u_char c);
static void *ngx_http_tailnet_headers_create_conf(ngx_conf_t *cf);
static char *ngx_http_tailnet_headers_merge_conf(ngx_conf_t *cf,
    void *parent, void *child);
static ngx_int_t ngx_http_tailnet_headers_init(ngx_conf_t *cf);


static ngx_http_tailnet_header_t  ngx_http_tailnet_headers[] = {

    { ngx_string("Tailscale-User-Login"),
      (u_char *) "tailscale-user-login",
      offsetof(ngx_tailnet_who_t, user) },

    { ngx_string("Tailscale-User-Name"),
      (u_char *) "tailscale-user-name",
      offsetof(ngx_tailnet_who_t, user_name) },

    { ngx_string("Tailscale-User-Profile-Pic"),
      (u_char *) "tailscale-user-profile-pic",
      offsetof(ngx_tailnet_who_t, user_pic) },

    { ngx_string("Tailscale-App-Capabilities"),
      (u_char *) "tailscale-app-capabilities",
      offsetof(ngx_tailnet_who_t, caps) },

    { ngx_string("Tailscale-Node"),
      (u_char *) "tailscale-node",
      offsetof(ngx_tailnet_who_t, node_name) },

    { ngx_string("Tailscale-Tags"),
      (u_char *) "tailscale-tags",
      offsetof(ngx_tailnet_who_t, tags) },

    { ngx_null_string, NULL, 0 }
};


static ngx_command_t  ngx_http_tailnet_headers_commands[] = {

    { ngx_string("tailnet_headers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_tailnet_headers_conf_t, headers),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tailnet_headers_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_tailnet_headers_init,         /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tailnet_headers_create_conf,  /* create location configuration */
    ngx_http_tailnet_headers_merge_conf    /* merge location configuration */
};


ngx_module_t  ngx_http_tailnet_headers_module = {
    NGX_MODULE_V1,
    &ngx_http_tailnet_headers_module_ctx,  /* module context */
    ngx_http_tailnet_headers_commands,     /* module directives */
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
ngx_http_tailnet_headers_strip_handler(ngx_http_request_t *r)
{
    if (ngx_http_tailnet_headers_strip(r, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_tailnet_headers_set_handler(ngx_http_request_t *r)
{
    ngx_tailnet_who_t                *who;
    ngx_http_tailnet_headers_conf_t  *hcf;

    hcf = ngx_http_get_module_loc_conf(r, ngx_http_tailnet_headers_module);

    if (!hcf->headers) {
        return ngx_http_tailnet_headers_strip_handler(r);
    }

    who = ngx_http_tailnet_who(r);

    if (who == NULL
        || ngx_http_tailnet_headers_strip(r, r != r->main) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (who->state != NGX_TAILNET_WHO_PEER) {
        return NGX_DECLINED;
    }

    if (who->headers == NULL) {
        who->headers = ngx_http_tailnet_headers_make(who);

        if (who->headers == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ngx_http_tailnet_headers_put(r, who->headers) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_DECLINED;
}


static ngx_uint_t
ngx_http_tailnet_headers_family(ngx_str_t *name)
{
    u_char  c;

    static u_char  prefix[] = "tailscale";

    if (name->len < sizeof(prefix)
        || ngx_tolower(name->data[0]) != prefix[0]
        || ngx_strncasecmp(name->data, prefix, sizeof(prefix) - 1) != 0)
    {
        return 0;
    }

    c = ngx_tolower(name->data[sizeof(prefix) - 1]);

    return (c < 'a' || c > 'z') && (c < '0' || c > '9');
}


/*
 * The list is built anew rather than shifted: r->headers_in has pointers to
 * its elements, which stay valid in the old one.  A subrequest shares the list
 * of its parent until it is renewed, so nothing may be added before that.
 */

static ngx_int_t
ngx_http_tailnet_headers_strip(ngx_http_request_t *r, ngx_uint_t renew)
{
    ngx_uint_t        i, found;
    ngx_list_t        list;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *header, *copy;

    found = renew;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {
            found |= ngx_http_tailnet_headers_family(&header[i].key);
        }
    }

    if (!found) {
        return NGX_OK;
    }

    if (ngx_list_init(&list, r->pool, 20, sizeof(ngx_table_elt_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        header = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (ngx_http_tailnet_headers_family(&header[i].key)) {
                continue;
            }

            copy = ngx_list_push(&list);
            if (copy == NULL) {
                return NGX_ERROR;
            }

            *copy = header[i];
        }
    }

    r->headers_in.headers = list;

    if (list.last == &list.part) {
        r->headers_in.headers.last = &r->headers_in.headers.part;
    }

    return NGX_OK;
}


static ngx_http_tailnet_header_set_t *
ngx_http_tailnet_headers_make(ngx_tailnet_who_t *who)
{
    ngx_str_t                      *value;
    ngx_table_elt_t                *e;
    ngx_http_tailnet_header_t      *h;
    ngx_http_tailnet_header_set_t  *set;

    set = ngx_pcalloc(who->pool, sizeof(ngx_http_tailnet_header_set_t));
    if (set == NULL) {
        return NULL;
    }

    for (h = ngx_http_tailnet_headers; h->name.len; h++) {
        value = (ngx_str_t *) ((u_char *) who + h->offset);

        if (value->len == 0) {
            continue;
        }

        e = &set->elts[set->nelts++];

        e->hash = ngx_hash_key(h->lowcase, h->name.len);
        e->key = h->name;
        e->lowcase_key = h->lowcase;

        if (ngx_http_tailnet_headers_encode(who->pool, value, &e->value)
            != NGX_OK)
        {
            return NULL;
        }
    }

    return set;
}


/*
 * A part in front of the list, which alone is this request's own: what is
 * behind it may be shared with subrequests and stays as it is.  The elements
 * are copied, since modules may change them in place, and have the room of a
 * whole part, since a subrequest may still take this one for its last.  A part
 * without elements is replaced: nginx reads the first element of all but the
 * first part unasked.
 */

static ngx_int_t
ngx_http_tailnet_headers_put(ngx_http_request_t *r,
    ngx_http_tailnet_header_set_t *set)
{
    ngx_list_t       *list;
    ngx_list_part_t  *rest;

    if (set->nelts == 0) {
        return NGX_OK;
    }

    list = &r->headers_in.headers;

    rest = ngx_palloc(r->pool, sizeof(ngx_list_part_t)
                               + ngx_max(list->nalloc, set->nelts)
                                 * sizeof(ngx_table_elt_t));
    if (rest == NULL) {
        return NGX_ERROR;
    }

    if (list->part.nelts) {
        *rest = list->part;
        list->part.next = rest;

        if (list->last == &list->part) {
            list->last = rest;
        }
    }

    list->part.elts = rest + 1;
    list->part.nelts = set->nelts;

    ngx_memcpy(list->part.elts, set->elts,
               set->nelts * sizeof(ngx_table_elt_t));

    return NGX_OK;
}


/* "=?utf-8?q?...?=" words of at most 75 bytes; UTF-8 sequences stay whole */

static ngx_int_t
ngx_http_tailnet_headers_encode(ngx_pool_t *pool, ngx_str_t *in,
    ngx_str_t *out)
{
    u_char      *p, *q, *end, *last;
    size_t       n, need, word;
    ngx_uint_t   plain;

    static u_char  hex[] = "0123456789ABCDEF";
    static u_char  open[] = "=?utf-8?q?";

    plain = 1;
    end = in->data + in->len;

    for (p = in->data; p < end; p++) {
        if ((*p < 0x20 && *p != '\t') || *p > 0x7e) {
            plain = 0;
            break;
        }
    }

    if (plain) {
        *out = *in;
        return NGX_OK;
    }

    /* at worst each byte is three, and each word holds four sequences */

    q = ngx_pnalloc(pool, in->len * 3
                          + (in->len / 4 + 1) * (sizeof(open) + 3));
    if (q == NULL) {
        return NGX_ERROR;
    }

    out->data = q;
    q = ngx_cpymem(q, open, sizeof(open) - 1);
    word = sizeof(open) - 1;

    for (p = in->data; p < end; p = last) {

        last = p + 1;

        while (last < end && (*last & 0xc0) == 0x80 && last - p < 4) {
            last++;
        }

        need = 0;

        for (n = 0; n < (size_t) (last - p); n++) {
            need += (p[n] == ' ' || ngx_http_tailnet_headers_literal(p[n]))
                    ? 1 : 3;
        }

        if (word + need + 2 > NGX_HTTP_TAILNET_WORD) {
            q = ngx_cpymem(q, "?= ", 3);
            q = ngx_cpymem(q, open, sizeof(open) - 1);
            word = sizeof(open) - 1;
        }

        word += need;

        for ( /* void */ ; p < last; p++) {

            if (*p == ' ') {
                *q++ = '_';

            } else if (ngx_http_tailnet_headers_literal(*p)) {
                *q++ = *p;

            } else {
                *q++ = '=';
                *q++ = hex[*p >> 4];
                *q++ = hex[*p & 0xf];
            }
        }
    }

    q = ngx_cpymem(q, "?=", 2);
    out->len = q - out->data;

    return NGX_OK;
}


/* RFC 2047, section 4.2 */

static ngx_uint_t
ngx_http_tailnet_headers_literal(u_char c)
{
    return c > ' ' && c < 0x7f && c != '=' && c != '?' && c != '_';
}


static void *
ngx_http_tailnet_headers_create_conf(ngx_conf_t *cf)
{
    ngx_http_tailnet_headers_conf_t  *hcf;

    hcf = ngx_palloc(cf->pool, sizeof(ngx_http_tailnet_headers_conf_t));
    if (hcf == NULL) {
        return NULL;
    }

    hcf->headers = NGX_CONF_UNSET;

    return hcf;
}


static char *
ngx_http_tailnet_headers_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tailnet_headers_conf_t  *prev = parent;
    ngx_http_tailnet_headers_conf_t  *conf = child;

    ngx_conf_merge_value(conf->headers, prev->headers, 0);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tailnet_headers_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_POST_READ_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tailnet_headers_strip_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_tailnet_headers_set_handler;

    return NGX_OK;
}

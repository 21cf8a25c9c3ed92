
/*
 * tailnet_status: what tailnetd says of itself, as JSON.  The worker asks over
 * its channel and answers when the document comes; it never waits.
 */


#include "ngx_http_tailnet_module.h"

#include <sys/stat.h>


typedef struct {
    ngx_uint_t                   on;        /* unsigned  on:1; */
    ngx_tailnet_place_t          place;
} ngx_http_tailnet_status_conf_t;


typedef struct {
    ngx_tailnet_ask_t            ask;
    ngx_http_request_t          *request;
} ngx_http_tailnet_status_ctx_t;


static char *ngx_http_tailnet_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tailnet_status_handler(ngx_http_request_t *r);
static void ngx_http_tailnet_status_answer(void *data, ngx_tailnet_msg_t *m);
static ngx_int_t ngx_http_tailnet_status_send(ngx_http_request_t *r, int fd);
static void ngx_http_tailnet_status_cleanup(void *data);
static void *ngx_http_tailnet_status_create_conf(ngx_conf_t *cf);
static char *ngx_http_tailnet_status_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);


static ngx_command_t  ngx_http_tailnet_status_commands[] = {

    { ngx_string("tailnet_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_tailnet_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tailnet_status_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tailnet_status_create_conf,   /* create location configuration */
    ngx_http_tailnet_status_merge_conf     /* merge location configuration */
};


ngx_module_t  ngx_http_tailnet_status_module = {
    NGX_MODULE_V1,
    &ngx_http_tailnet_status_module_ctx,   /* module context */
    ngx_http_tailnet_status_commands,      /* module directives */
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
ngx_http_tailnet_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                       rc;
    ngx_pool_cleanup_t             *cln;
    struct tn_admin_text            msg;
    ngx_http_tailnet_loc_conf_t    *tlcf;
    ngx_http_tailnet_status_ctx_t  *ctx;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_tailnet_module);

    if (tlcf->rules == NULL) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tailnet_status shows users and addresses: it answers "
                      "only where \"tailnet_acl\" says who may look");
        return NGX_HTTP_FORBIDDEN;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    cln = ngx_pool_cleanup_add(r->pool,
                               sizeof(ngx_http_tailnet_status_ctx_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_http_tailnet_status_ctx_t));
    cln->handler = ngx_http_tailnet_status_cleanup;

    ctx->request = r;
    ctx->ask.handler = ngx_http_tailnet_status_answer;
    ctx->ask.data = ctx;

    ngx_memzero(&msg, sizeof(msg));
    msg.h.type = TN_ADMIN_STATUS;

    if (ngx_tailnet_worker_ask(&ctx->ask, &msg, sizeof(msg)) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tailnet_status: tailnetd is not there");
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    /* one who does not wait for the answer ends the request */

    if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    r->main->count++;

    return NGX_DONE;
}


static void
ngx_http_tailnet_status_answer(void *data, ngx_tailnet_msg_t *m)
{
    ngx_http_tailnet_status_ctx_t *ctx = data;

    ngx_int_t            rc;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = ctx->request;
    c = r->connection;

    if (m == NULL || m->u.head.type != TN_ADMIN_TEXT || m->nfds != 1) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "tailnet_status: tailnetd gave no status");
        rc = NGX_HTTP_SERVICE_UNAVAILABLE;

    } else {
        rc = ngx_http_tailnet_status_send(r, m->fds[0]);
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static ngx_int_t
ngx_http_tailnet_status_send(ngx_http_request_t *r, int fd)
{
    ngx_int_t                 rc;
    ngx_buf_t                *b;
    struct stat               st;
    ngx_chain_t               out;
    ngx_pool_cleanup_t       *cln;
    ngx_pool_cleanup_file_t  *clnf;

    if (fstat(fd, &st) == -1) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, ngx_errno,
                      "tailnet_status: fstat() failed");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (st.st_size < 1) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "tailnet_status: tailnetd gave an empty status");
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->file = ngx_pcalloc(r->pool, sizeof(ngx_file_t));
    if (b->file == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_pool_cleanup_file_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* it may be large: it is sent as it is, and read in pieces if at all */

    b->file->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (b->file->fd == -1) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, ngx_errno,
                      "tailnet_status: fcntl(F_DUPFD_CLOEXEC) failed");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&b->file->name, "tailnet_status");
    b->file->log = r->connection->log;

    cln->handler = ngx_pool_cleanup_file;
    clnf = cln->data;
    clnf->fd = b->file->fd;
    clnf->name = b->file->name.data;
    clnf->log = r->pool->log;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = st.st_size;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    b->file_last = st.st_size;
    b->in_file = 1;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static void
ngx_http_tailnet_status_cleanup(void *data)
{
    ngx_http_tailnet_status_ctx_t *ctx = data;

    ngx_tailnet_worker_cancel(&ctx->ask);
}


static char *
ngx_http_tailnet_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tailnet_status_conf_t *scf = conf;

    ngx_http_core_loc_conf_t  *clcf;

    if (scf->on) {
        return "is duplicate";
    }

    scf->on = 1;
    ngx_tailnet_place(cf, &scf->place);

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_tailnet_status_handler;

    return NGX_CONF_OK;
}


static void *
ngx_http_tailnet_status_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tailnet_status_conf_t));
}


/* the rules are merged by now: their module comes before this one */

static char *
ngx_http_tailnet_status_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_tailnet_status_conf_t *conf = child;

    ngx_http_tailnet_loc_conf_t  *tlcf;

    tlcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_tailnet_module);

    if (conf->on && tlcf->rules == NULL) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"tailnet_status\" without \"tailnet_acl\" refuses "
                      "everybody, in %V:%ui",
                      &conf->place.file, conf->place.line);
    }

    return NGX_CONF_OK;
}

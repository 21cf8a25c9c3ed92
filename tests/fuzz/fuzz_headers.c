/* links: http/ngx_http_tailnet_headers.c */
/* max_len: 1024 */
/*
 * A client's request headers and a peer's identity, of any bytes.  Nothing that
 * the client sent looks like ours afterwards, all else is as it was; what is
 * set says what is known and nothing else; neither a subrequest nor a redirect
 * changes the headers of another request.  What nginx has to do is below.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "../../ngx_tailnet_module/http/ngx_http_tailnet_module.h"
#include "fuzz.h"

#define BLOCKS  4096
#define HEADERS 64
#define VALUES  6
#define WORD    75 /* RFC 2047, section 2 */
#define STEPS   48

extern ngx_module_t ngx_http_tailnet_headers_module;

ngx_module_t ngx_http_core_module, ngx_http_tailnet_module;

/* ---- nginx ---- */

static void *blocks[BLOCKS];
static size_t nblocks;
static ngx_http_core_main_conf_t core;
static ngx_http_handler_pt handlers[NGX_HTTP_LOG_PHASE + 1];

void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    (void)pool;
    FUZZ_MUST(nblocks < BLOCKS);
    blocks[nblocks] = malloc(size > 0 ? size : 1);
    FUZZ_MUST(blocks[nblocks] != NULL);
    return blocks[nblocks++];
}

void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    return ngx_palloc(pool, size);
}

void *
ngx_pcalloc(ngx_pool_t *pool, size_t size)
{
    return memset(ngx_palloc(pool, size), 0, size);
}

void *
ngx_list_push(ngx_list_t *l)
{
    ngx_list_part_t *last = l->last;

    if (last->nelts == l->nalloc) {
        last = ngx_palloc(l->pool, sizeof(*last));
        last->elts = ngx_palloc(l->pool, l->nalloc * l->size);
        last->nelts = 0;
        last->next = NULL;
        l->last->next = last;
        l->last = last;
    }
    return (char *)last->elts + l->size * last->nelts++;
}

void *
ngx_array_push(ngx_array_t *a)
{
    size_t i;

    for (i = 0; a != &core.phases[i].handlers; i++)
        FUZZ_MUST(i < NGX_HTTP_LOG_PHASE);
    FUZZ_MUST(handlers[i] == NULL);
    return &handlers[i];
}

ngx_uint_t
ngx_hash_key(u_char *p, size_t len)
{
    ngx_uint_t key = 0;

    while (len-- > 0)
        key = ngx_hash(key, *p++);
    return key;
}

ngx_int_t
ngx_strncasecmp(u_char *a, u_char *b, size_t n)
{
    return strncasecmp((char *)a, (char *)b, n);
}

char *
ngx_conf_set_flag_slot(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    (void)cf;
    *(ngx_flag_t *)(void *)((char *)conf + cmd->offset) = 1;
    return NULL;
}

ngx_http_tailnet_ctx_t *
ngx_http_tailnet_find_ctx(ngx_http_request_t *r)
{
    return r->ctx[1];
}

/* ---- a location without, and one with ---- */

static void *off_conf[3], *on_conf[3];

static void
set_up(void)
{
    ngx_http_module_t *m = ngx_http_tailnet_headers_module.ctx;
    ngx_command_t *cmd = ngx_http_tailnet_headers_module.commands;
    void *main_conf[3] = {&core, NULL, NULL}, *top;
    ngx_http_conf_ctx_t ctx = {main_conf, NULL, NULL};
    ngx_conf_t cf;

    memset(&cf, 0, sizeof(cf));
    cf.ctx = &ctx;
    memset(handlers, 0, sizeof(handlers));
    ngx_http_tailnet_module.ctx_index = 1;
    ngx_http_tailnet_headers_module.ctx_index = 2;
    FUZZ_MUST(m->postconfiguration(&cf) == NGX_OK);
    top = m->create_loc_conf(&cf);
    off_conf[2] = m->create_loc_conf(&cf);
    on_conf[2] = m->create_loc_conf(&cf);
    FUZZ_MUST(cmd->set(&cf, cmd, on_conf[2]) == NULL);
    FUZZ_MUST(m->merge_loc_conf(&cf, top, off_conf[2]) == NULL);
    FUZZ_MUST(m->merge_loc_conf(&cf, top, on_conf[2]) == NULL);
}

static void
tear_down(void)
{
    while (nblocks > 0)
        free(blocks[--nblocks]);
}

/* ---- headers ---- */

struct headers {
    ngx_table_elt_t h[HEADERS];
    size_t n;
};

static ngx_http_tailnet_ctx_t ctx;
static ngx_tailnet_who_t who;
static const struct {
    const char *name;
    const ngx_str_t *value;
} ours[VALUES] = {{"Tailscale-User-Login", &who.user},
    {"Tailscale-User-Name", &who.user_name},
    {"Tailscale-User-Profile-Pic", &who.user_pic},
    {"Tailscale-App-Capabilities", &who.caps},
    {"Tailscale-Node", &who.node_name}, {"Tailscale-Tags", &who.tags}};

static ngx_str_t
string(struct fuzz_input *in)
{
    struct fuzz_input part = fuzz_bytes(in, fuzz_u8(in));
    ngx_str_t s = {part.len, ngx_palloc(NULL, part.len)};

    if (part.len > 0)
        memcpy(s.data, part.p, part.len);
    return s;
}

/* As nginx walks: in all parts but the first there is an element. */
static void
list_headers(const ngx_http_request_t *r, struct headers *out)
{
    const ngx_list_part_t *part = &r->headers_in.headers.part;
    ngx_table_elt_t *h = part->elts;
    ngx_uint_t i = 0;

    for (out->n = 0;; i++) {
        if (i >= part->nelts) {
            if (part->next == NULL)
                break;
            part = part->next;
            FUZZ_MUST(part->nelts > 0);
            h = part->elts;
            i = 0;
        }
        FUZZ_MUST(out->n < HEADERS);
        out->h[out->n++] = h[i];
    }
    FUZZ_MUST(r->headers_in.headers.last == part ||
              (r != r->main && part == &r->main->headers_in.headers.part) ||
              part == &r->headers_in.headers.part);
}

static bool
same(const ngx_str_t *a, const ngx_str_t *b)
{
    return a->len == b->len &&
           (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static bool
same_headers(const struct headers *a, const struct headers *b)
{
    size_t i;

    for (i = 0; i < a->n && i < b->n; i++)
        if (!same(&a->h[i].key, &b->h[i].key) ||
            !same(&a->h[i].value, &b->h[i].value))
            return false;
    return a->n == b->n;
}

/* What CGI, WSGI or PHP could take for one of ours: letters and digits alone
 * make another name. */
static bool
looks_ours(const ngx_str_t *name)
{
    return name->len > 9 &&
           strncasecmp((char *)name->data, "tailscale", 9) == 0 &&
           !isalnum(name->data[9]);
}

static void
add_headers(struct fuzz_input *in, ngx_http_request_t *r)
{
    unsigned n = fuzz_u8(in) % 32;
    ngx_table_elt_t *h;

    while (n-- > 0) {
        h = ngx_list_push(&r->headers_in.headers);
        memset(h, 0, sizeof(*h));
        h->key = string(in);
        h->value = string(in);
        h->lowcase_key = h->key.data;
    }
}

/* ---- values ---- */

static int
hex(u_char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 55 : -1;
}

/* One encoded word: its bytes are those of ${p}.  Returns how many. */
static size_t
check_word(const u_char *w, size_t len, const u_char *p, size_t left)
{
    size_t n = 0, i;
    int c;

    FUZZ_MUST(len > 12 && len <= WORD && memcmp(w, "=?utf-8?q?", 10) == 0 &&
              memcmp(w + len - 2, "?=", 2) == 0);
    for (i = 10; i < len - 2; i++, n++) {
        c = w[i] == '_' ? ' ' : w[i];
        FUZZ_MUST(w[i] > ' ' && w[i] < 0x7f && w[i] != '?');
        if (w[i] == '=') {
            FUZZ_MUST(i + 2 < len - 2);
            c = hex(w[i + 1]) << 4 | hex(w[i + 2]);
            i += 2;
        }
        FUZZ_MUST(n < left && c == p[n]);
    }
    /* A letter of UTF-8 is not cut: none has more than three such bytes. */
    FUZZ_MUST(n == left || (p[n] & 0xc0) != 0x80 ||
              (n > 3 && (p[n - 1] & p[n - 2] & p[n - 3] & 0xc0) == 0x80));
    return n;
}

static void
check_value(const ngx_str_t *v, const ngx_str_t *from)
{
    const u_char *w = v->data, *end = w + v->len, *p = from->data, *space;
    size_t left = from->len, n, i;

    for (i = 0; i < left; i++)
        if ((p[i] < 0x20 && p[i] != '\t') || p[i] > 0x7e)
            break;
    if (i == left) {
        FUZZ_MUST(same(v, from));
        return;
    }
    while (w < end) {
        space = memchr(w, ' ', (size_t)(end - w));
        space = space == NULL ? end : space;
        n = check_word(w, (size_t)(space - w), p, left);
        p += n;
        left -= n;
        w = space < end ? space + 1 : end;
    }
    FUZZ_MUST(left == 0);
}

/* ---- requests ---- */

static void
run(ngx_http_request_t *r, ngx_uint_t phase)
{
    FUZZ_MUST(handlers[phase](r) == NGX_DECLINED);
}

/* What is there is ours, where it is to be, and then what was kept. */
static void
check(const ngx_http_request_t *r, const struct headers *kept)
{
    struct headers now, rest = {.n = 0};
    size_t i, at = 0;

    list_headers(r, &now);
    if (r->loc_conf == on_conf && who.state == NGX_TAILNET_WHO_PEER) {
        for (i = 0; i < VALUES; i++) {
            if (ours[i].value->len == 0)
                continue;
            FUZZ_MUST(at < now.n);
            FUZZ_MUST(now.h[at].key.len == strlen(ours[i].name) &&
                      memcmp(now.h[at].key.data, ours[i].name,
                          now.h[at].key.len) == 0);
            FUZZ_MUST(now.h[at].hash ==
                      ngx_hash_key(now.h[at].lowcase_key, now.h[at].key.len));
            check_value(&now.h[at].value, ours[i].value);
            at++;
        }
    }
    for (; at < now.n; at++) {
        FUZZ_MUST(!looks_ours(&now.h[at].key));
        rest.h[rest.n++] = now.h[at];
    }
    FUZZ_MUST(same_headers(&rest, kept));
}

/* Another module adds one, behind all others; it is in ${kept}, too. */
static void
push(ngx_http_request_t *r, struct headers *kept)
{
    static u_char name[] = "X-Other";
    ngx_table_elt_t *h = ngx_list_push(&r->headers_in.headers);

    memset(h, 0, sizeof(*h));
    h->key = (ngx_str_t){7, name};
    FUZZ_MUST(kept->n < HEADERS);
    kept->h[kept->n++] = *h;
}

static void
story(struct fuzz_input *in, ngx_http_request_t *r, struct headers *kept)
{
    static ngx_http_request_t sub;
    struct headers before, after, sub_kept;
    unsigned steps;
    uint8_t what;

    for (steps = 0; in->len > 0 && steps < STEPS; steps++) {
        if (kept->n >= HEADERS - VALUES - 2)
            break;
        what = fuzz_u8(in);
        r->loc_conf = (what & 1) != 0 ? on_conf : off_conf;
        run(r, NGX_HTTP_PREACCESS_PHASE);
        check(r, kept);
        if ((what & 2) != 0) {
            push(r, kept);
            check(r, kept);
        }
        if ((what & 4) == 0)
            continue;
        /* As ngx_http_subrequest() does. */
        list_headers(r, &before);
        memset(&sub, 0, sizeof(sub));
        sub.main = r;
        sub.headers_in = r->headers_in;
        sub.loc_conf = (what & 8) != 0 ? on_conf : off_conf;
        sub_kept = *kept;
        run(&sub, NGX_HTTP_PREACCESS_PHASE);
        check(&sub, &sub_kept);
        if ((what & 16) != 0 && sub.loc_conf == on_conf) {
            push(&sub, &sub_kept);
            check(&sub, &sub_kept);
        }
        list_headers(r, &after);
        FUZZ_MUST(same_headers(&before, &after));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static ngx_http_request_t r;
    struct headers all, kept = {.n = 0};
    void *contexts[3] = {NULL, &ctx, NULL};
    size_t i;

    set_up();
    memset(&r, 0, sizeof(r));
    memset(&who, 0, sizeof(who));
    ctx.who = &who;
    r.main = &r;
    r.ctx = contexts;
    r.loc_conf = off_conf;
    /* nginx makes room for twenty in a part. */
    FUZZ_MUST(
        ngx_list_init(&r.headers_in.headers, NULL, VALUES + fuzz_u8(&in) % 15,
            sizeof(ngx_table_elt_t)) == NGX_OK);
    who.state = fuzz_u8(&in) % 4 == 3 ? NGX_TAILNET_WHO_UNKNOWN
                                      : NGX_TAILNET_WHO_PEER;
    for (i = 0; i < VALUES; i++)
        *(ngx_str_t *)(uintptr_t)ours[i].value = string(&in);
    add_headers(&in, &r);
    list_headers(&r, &all);
    for (i = 0; i < all.n; i++)
        if (!looks_ours(&all.h[i].key))
            kept.h[kept.n++] = all.h[i];
    run(&r, NGX_HTTP_POST_READ_PHASE);
    check(&r, &kept);
    story(&in, &r, &kept);
    tear_down();
    return 0;
}

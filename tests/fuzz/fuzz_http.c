/* links: tailnetd/control/http1.c tailnetd/control/h2.c */
/* libs: -lnghttp2 */
/* max_len: 4096 */
/*
 * HTTP as a control server answers, by the first byte: one answer of HTTP/1.1,
 * which means the same in whatever pieces it comes, and a story of requests
 * over HTTP/2 with frames of any kind and content.
 */
#include "../../ngx_tailnet_module/tailnetd/control/h2.h"
#include "../../ngx_tailnet_module/tailnetd/control/http1.h"
#include "fuzz.h"

/* ---- HTTP/1.1 ---- */

static enum http1_verdict
feed(struct http1 *h, struct fuzz_input in, size_t piece, size_t *used)
{
    enum http1_verdict v = HTTP1_MORE;
    struct fuzz_input part;
    uint8_t *copy;
    size_t n;

    *used = 0;
    while (in.len > 0 && v == HTTP1_MORE) {
        part = fuzz_bytes(&in, piece);
        copy = fuzz_copy(part.p, part.len);
        v = http1_feed(h, copy, part.len, &n);
        free(copy);
        FUZZ_MUST(n <= part.len && (v != HTTP1_MORE || n == part.len));
        *used += n;
    }
    if (v == HTTP1_MORE)
        v = http1_eof(h);
    return v;
}

static void
check_answer(const struct http1 *h, enum http1_verdict v, size_t max)
{
    FUZZ_MUST(v == HTTP1_COMPLETE || v == HTTP1_BAD);
    FUZZ_MUST((v == HTTP1_BAD) == (h->error != NULL));
    FUZZ_MUST(h->bodylen <= max);
    FUZZ_MUST(strnlen(h->upgrade, HTTP1_VALUE_MAX + 1) <= HTTP1_VALUE_MAX);
    FUZZ_MUST(strnlen(h->retry_after, HTTP1_VALUE_MAX + 1) <= HTTP1_VALUE_MAX);
    if (v == HTTP1_COMPLETE)
        FUZZ_MUST(h->status >= 100 && h->status <= 599);
    fuzz_touch(h->body, h->bodylen);
}

static void
answer(struct fuzz_input *in, bool head)
{
    size_t max = fuzz_u8(in) * 4u, piece = 1 + fuzz_u8(in), used[2];
    enum http1_verdict v[2];
    struct http1 h[2];

    http1_init(&h[0], max, head);
    http1_init(&h[1], max, head);
    v[0] = feed(&h[0], *in, in->len, &used[0]);
    v[1] = feed(&h[1], *in, piece, &used[1]);
    check_answer(&h[0], v[0], max);
    check_answer(&h[1], v[1], max);
    FUZZ_MUST(v[0] == v[1]);
    if (v[0] == HTTP1_COMPLETE) {
        FUZZ_MUST(used[0] == used[1] && h[0].status == h[1].status);
        FUZZ_MUST(strcmp(h[0].upgrade, h[1].upgrade) == 0);
        FUZZ_MUST(strcmp(h[0].retry_after, h[1].retry_after) == 0);
        FUZZ_MUST(h[0].bodylen == h[1].bodylen);
        FUZZ_MUST(h[0].bodylen == 0 ||
                  memcmp(h[0].body, h[1].body, h[0].bodylen) == 0);
        FUZZ_MUST(http1_feed(&h[0], in->p, 1, &used[0]) == HTTP1_COMPLETE &&
                  used[0] == 0);
    }
    http1_free(&h[0]);
    http1_free(&h[1]);
}

/* ---- HTTP/2 ---- */

#define REQUESTS 8

/* A request as its owner sees it. */
struct request {
    int32_t id; /* 0: not made, or over */
    unsigned heads, dones;
    bool hasty; /* is cancelled at its head */
};

static struct request requests[REQUESTS];
static struct h2 *h2;
static bool inside;

static void
on_head(void *arg, const struct h2_answer *a)
{
    struct request *r = arg;

    FUZZ_MUST(inside && r->id > 0 && r->heads == 0 && r->dones == 0);
    FUZZ_MUST(a->status >= 200 && a->status <= 999);
    FUZZ_MUST(strnlen(a->retry_after, H2_RETRY_MAX) < H2_RETRY_MAX);
    r->heads++;
    if (r->hasty) {
        h2_cancel(h2, r->id);
        r->id = 0;
    }
}

static void
on_data(void *arg, const uint8_t *p, size_t len)
{
    struct request *r = arg;

    FUZZ_MUST(inside && r->id > 0 && r->heads == 1 && r->dones == 0);
    fuzz_touch(p, len);
}

static void
on_done(void *arg, const char *why)
{
    struct request *r = arg;

    FUZZ_MUST(inside && r->id > 0 && r->dones == 0);
    FUZZ_MUST(why == NULL ? r->heads == 1 : why[0] != '\0');
    r->dones++;
    r->id = 0;
}

static const struct h2_ops ops = {
    .head = on_head, .data = on_data, .done = on_done};

static void
ask(uint8_t how)
{
    static const uint8_t body[300];
    struct request *r = &requests[how % REQUESTS];

    if (r->id > 0)
        return;
    *r = (struct request){.hasty = (how & 8) != 0};
    r->id = h2_request(h2, (how & 16) != 0 ? "HEAD" : "POST", "/machine/map",
        (how & 32) != 0 ? "nodekey:0" : NULL, body,
        (how & 64) != 0 ? sizeof(body) : 0, &ops, r);
    if (r->id < 0)
        r->id = 0;
}

/* What is to be sent, taken in full or not at all. */
static void
pull(void)
{
    const uint8_t *p;
    size_t n, rounds = 0;

    inside = true;
    while ((n = h2_pull(h2, &p)) > 0) {
        fuzz_touch(p, n);
        FUZZ_MUST(++rounds < 10000);
    }
    inside = false;
    FUZZ_MUST(!h2_over(h2) || h2_error(h2)[0] != '\0');
}

static void
receive(const uint8_t *p, size_t len)
{
    uint8_t *copy = fuzz_copy(p, len);

    inside = true;
    if (h2_feed(h2, copy, len) != 0)
        FUZZ_MUST(h2_over(h2) && h2_error(h2)[0] != '\0');
    inside = false;
    free(copy);
}

static void
frame(uint8_t type, uint8_t flags, uint32_t stream, struct fuzz_input payload)
{
    uint8_t b[9 + 256];

    FUZZ_MUST(payload.len <= 256);
    b[0] = 0;
    b[1] = (uint8_t)(payload.len >> 8);
    b[2] = (uint8_t)payload.len;
    b[3] = type;
    b[4] = flags;
    b[5] = (uint8_t)(stream >> 24);
    b[6] = (uint8_t)(stream >> 16);
    b[7] = (uint8_t)(stream >> 8);
    b[8] = (uint8_t)stream;
    if (payload.len > 0)
        memcpy(b + 9, payload.p, payload.len);
    receive(b, 9 + payload.len);
}

/* A head that HPACK understands: ":status" of the input's digits and a
 * Retry-After of its bytes, neither indexed. */
static void
head(struct fuzz_input *in, uint8_t flags, uint32_t stream)
{
    static const uint8_t before[] = {0x08, 3}, retry[] = "\x00\x0bretry-after";
    struct fuzz_input value;
    uint8_t b[128], code = fuzz_u8(in);
    size_t n = 0;

    memcpy(b, before, sizeof(before));
    n += sizeof(before);
    b[n++] = (uint8_t)('1' + code % 5);
    b[n++] = '0';
    b[n++] = (uint8_t)('0' + (code >> 3) % 10);
    if ((code & 128) != 0) {
        value = fuzz_bytes(in, fuzz_u8(in) % 80);
        memcpy(b + n, retry, sizeof(retry) - 1);
        n += sizeof(retry) - 1;
        b[n++] = (uint8_t)value.len;
        if (value.len > 0)
            memcpy(b + n, value.p, value.len);
        n += value.len;
    }
    frame(1, flags, stream, (struct fuzz_input){b, n});
}

static void
step(struct fuzz_input *in)
{
    uint8_t what = fuzz_u8(in), flags = fuzz_u8(in);
    struct fuzz_input raw;
    uint32_t stream = (what >> 4) % 8 == 7 ? 0 : 1 + (what >> 4) % 8u * 2;

    switch (what & 15) {
    case 0:
    case 1:
        ask(flags);
        break;
    case 2:
        h2_cancel(h2, requests[flags % REQUESTS].id);
        requests[flags % REQUESTS].id = 0;
        break;
    case 3:
    case 4:
        pull();
        break;
    case 5:
    case 6:
        head(in, (uint8_t)(4 | (flags & 1)), stream);
        break;
    case 7:
        frame(0, flags & 9, stream, fuzz_bytes(in, fuzz_u8(in)));
        break;
    case 8:
        frame(3, 0, stream, fuzz_bytes(in, 4));
        break;
    case 9:
        frame(4, flags & 1, 0, fuzz_bytes(in, fuzz_u8(in) % 4 * 6u));
        break;
    case 10:
        frame(7, 0, 0, fuzz_bytes(in, fuzz_u8(in)));
        break;
    case 11:
        raw = fuzz_bytes(in, flags);
        receive(raw.p, raw.len);
        break;
    default:
        frame(what & 15, flags, stream, fuzz_bytes(in, fuzz_u8(in)));
    }
}

static void
story(struct fuzz_input *in)
{
    memset(requests, 0, sizeof(requests));
    h2 = h2_new("control.example.com");
    FUZZ_MUST(h2 != NULL);
    ask(0);
    pull();
    frame(4, 0, 0, (struct fuzz_input){NULL, 0});
    while (in->len > 0)
        step(in);
    pull();
    h2_free(h2);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint8_t kind = fuzz_u8(&in);

    if (kind & 1)
        story(&in);
    else
        answer(&in, (kind & 2) != 0);
    return 0;
}

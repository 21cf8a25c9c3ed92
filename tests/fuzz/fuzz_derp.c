/* links: tailnetd/magic/derp.c tailnetd/magic/derp_frame.c core/tn_addr.c */
/* links: tailnetd/crypto/box.c tailnetd/engine/netmap.c */
/* libs: -lsodium */
/* max_len: 2048 */
/*
 * A node's connections to relays: streams that open, bring the HTTP upgrade,
 * frames, right ones and any bytes, in pieces, and end; the map and the home
 * change, packets are sent, time passes.
 */
#include "../../ngx_tailnet_module/tailnetd/magic/derp.h"
#include "../../ngx_tailnet_module/tailnetd/stream.h"
#include "fuzz.h"
#include "fuzz_loop.h"

#define REGIONS   3
#define STEPS_MAX 200

/* ---- streams ---- */

struct stream {
    struct stream *next, **prev;
    const struct stream_ops *ops;
    void *arg;
    bool open, stuck;
};

static struct stream *streams;
static const struct tn_endpoint here = {{{[10] = 0xff, 0xff, 10, 0, 0, 1}}, 9};

struct stream *
stream_new(const struct stream_to *to, const struct stream_ops *ops, void *arg)
{
    struct stream *s = calloc(1, sizeof(*s));

    FUZZ_MUST(s != NULL && to->host[0] != '\0' && to->port != 0);
    s->ops = ops;
    s->arg = arg;
    s->next = streams;
    s->prev = &streams;
    if (s->next != NULL)
        s->next->prev = &s->next;
    streams = s;
    return s;
}

void
stream_free(struct stream *s)
{
    if (s == NULL)
        return;
    *s->prev = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    free(s);
}

int
stream_send(struct stream *s, const void *data, size_t len)
{
    FUZZ_MUST(len > 0);
    fuzz_touch(data, len);
    return s->open ? 0 : -1;
}

size_t
stream_queued(const struct stream *s)
{
    return s->stuck ? DERP_WRITE_MAX : 0;
}

bool
stream_local(const struct stream *s, struct tn_endpoint *e)
{
    *e = here;
    return s->open;
}

int
tls_pin(uint8_t pin[TLS_PIN_LEN], const char *text)
{
    memset(pin, 7, TLS_PIN_LEN);
    return strncmp(text, "sha256-raw:", 11) == 0 ? 0 : -1;
}

/* ---- the node ---- */

static struct derp *derp;
static struct netmap_derp maps[2];
static bool inside; /* of a callback of a stream */

static void
on_packet(
    void *ctx, uint16_t region, const uint8_t src[32], uint8_t *p, size_t len)
{
    (void)ctx;
    FUZZ_MUST(inside && region >= 1 && region <= REGIONS);
    FUZZ_MUST(len <= DERP_PACKET_MAX && derp_up(derp, region));
    fuzz_touch(src, 32);
    fuzz_touch(p, len + DERP_SLACK);
    if (len > 0 && (p[0] & 1) != 0) /* an answer */
        derp_send(derp, region, src, p, len);
}

static void
on_after(void *ctx)
{
    (void)ctx;
    FUZZ_MUST(inside);
    derp_flush(derp);
}

static void
on_gone(void *ctx, uint16_t region, const uint8_t key[32])
{
    (void)ctx;
    FUZZ_MUST(inside && derp_up(derp, region));
    fuzz_touch(key, 32);
}

static void
on_changed(void *ctx, uint16_t region, bool up)
{
    (void)ctx;
    FUZZ_MUST(region >= 1 && region <= REGIONS);
    if (derp != NULL) /* not any more: it is being freed */
        FUZZ_MUST(derp_up(derp, region) == up);
}

static void
on_random(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    memset(buf, 0x5a, len);
}

static const struct derp_ops ops = {.packet = on_packet,
    .after = on_after,
    .gone = on_gone,
    .changed = on_changed,
    .random = on_random};

/* Both maps once and for all: three regions, or but two with other relays. */
static void
make_maps(void)
{
    static char text[][24] = {"r", "derp.example", "", "sha256-raw:00", "none",
        "192.0.2.1", "192.0.2.2:7"};
    static struct netmap_relay relays[3];
    static struct netmap_region regions[2][REGIONS];
    unsigned i, m;

    for (i = 0; i < 3; i++)
        relays[i] = (struct netmap_relay){.name = text[0],
            .host = text[1],
            .cert_name = text[2 + i % 2],
            .ipv4 = text[4 + i],
            .ipv6 = text[2],
            .stun_test_ip = text[2],
            .derp_port = 443,
            .stun_only = i == 1};
    for (m = 0; m < 2; m++) {
        for (i = 0; i < REGIONS; i++)
            regions[m][i] = (struct netmap_region){.id = (uint16_t)(i + 1),
                .code = text[0],
                .name = text[0],
                .score = 1,
                .relays = relays,
                .nrelays = m == 0 ? i + 1 : REGIONS - 1 - i};
        maps[m].regions = regions[m];
        maps[m].nregions = REGIONS - m;
    }
}

/* ---- the relays ---- */

static struct stream *
pick(uint8_t which)
{
    struct stream *s = streams;

    for (; s != NULL && which > 0; which--)
        s = s->next;
    return s;
}

/* Bytes of a relay, if its stream is (still) there. */
static void
bring(uint8_t which, const uint8_t *p, size_t len)
{
    struct stream *s = pick(which);
    uint8_t *copy = fuzz_copy(p, len);

    inside = true;
    if (s != NULL && s->open && len > 0)
        s->ops->data(s->arg, copy, len);
    inside = false;
    free(copy);
}

/* A frame whose payload the input has, or its beginning; in two pieces. */
static void
frame(struct fuzz_input *in, uint8_t which, enum derp_type type,
    const uint8_t *begin, size_t len)
{
    struct fuzz_input part = fuzz_bytes(in, fuzz_u8(in));
    uint8_t b[DERP_HEADER_LEN + 64 + 256];
    size_t n = derp_header(b, type, len + part.len), cut;

    if (len > 0)
        memcpy(b + n, begin, len);
    n += len;
    if (part.len > 0)
        memcpy(b + n, part.p, part.len);
    n += part.len;
    cut = fuzz_u8(in) % (n + 1);
    bring(which, b, cut);
    bring(which, b + cut, n - cut);
}

/* The way in, up to where ${how} says. */
static void
let_in(uint8_t which, uint8_t how)
{
    static const char yes[] = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    static const uint8_t magic[8] = {
        0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91};
    static const uint8_t private_key[32] = {77}, node[32] = {42};
    uint8_t b[DERP_HEADER_LEN + 8 + 32], shared[32], public[32];
    uint8_t info[DERP_HEADER_LEN + BOX_NONCE_LEN + BOX_TAG_LEN + 2] = {0};

    FUZZ_MUST(box_public(public, private_key) == 0);
    derp_header(b, DERP_SERVER_KEY, sizeof(b) - DERP_HEADER_LEN);
    memcpy(b + DERP_HEADER_LEN, magic, sizeof(magic));
    memcpy(b + DERP_HEADER_LEN + 8, public, 32);
    if ((how & 1) == 0)
        bring(which, (const uint8_t *)yes, sizeof(yes) - 1);
    bring(which, b, sizeof(b));
    if (how & 2)
        return;
    FUZZ_MUST(box_public(public, node) == 0);
    FUZZ_MUST(box_shared(shared, public, private_key) == 0);
    derp_header(info, DERP_SERVER_INFO, sizeof(info) - DERP_HEADER_LEN);
    box_seal(info + DERP_HEADER_LEN + BOX_NONCE_LEN, shared,
        info + DERP_HEADER_LEN, (const uint8_t *)"{}", 2);
    bring(which, info, sizeof(info));
}

static void
stream_step(struct fuzz_input *in, uint8_t what)
{
    static const enum derp_type types[] = {DERP_SERVER_KEY, DERP_SERVER_INFO,
        DERP_RECV_PACKET, DERP_KEEP_ALIVE, DERP_PEER_GONE, DERP_PING, DERP_PONG,
        DERP_HEALTH, DERP_RESTARTING, (enum derp_type)0x99};
    static const uint8_t key[32] = {9};
    struct stream *s = pick(what >> 6);
    struct fuzz_input raw;

    if (s == NULL)
        return;
    switch (what >> 3 & 7) {
    case 0:
    case 1:
        if (s->open)
            break;
        s->open = true;
        s->ops->connected(s->arg);
        break;
    case 2:
        let_in(what >> 6, fuzz_u8(in));
        break;
    case 3:
        raw = fuzz_bytes(in, fuzz_u8(in));
        bring(what >> 6, raw.p, raw.len);
        break;
    case 4:
        frame(in, what >> 6, types[fuzz_u8(in) % 10], NULL, 0);
        break;
    case 5:
        frame(in, what >> 6, DERP_RECV_PACKET, key, sizeof(key));
        break;
    case 6:
        s->stuck = !s->stuck;
        if (s->open && !s->stuck)
            s->ops->drained(s->arg);
        break;
    default:
        s->open = false;
        s->ops->closed(s->arg, "the connection was closed");
    }
}

static void
step(struct fuzz_input *in)
{
    uint8_t what = fuzz_u8(in), to[32] = {7}, msg[256] = {1};
    struct derp_status status[DERP_CONNS_MAX];
    size_t n, i;

    switch (what & 7) {
    case 0:
        derp_send(derp, 1 + (what >> 3) % (REGIONS + 1), to, msg, what);
        break;
    case 1:
        derp_flush(derp);
        break;
    case 2:
        fuzz_sleep((what & 128) != 0 ? (what >> 3 & 15) * 7000u : what >> 3);
        break;
    case 3:
        if ((what >> 3) % 4 == 0)
            derp_map(derp, (what & 32) != 0 ? NULL : &maps[what >> 6 & 1]);
        else if ((what >> 3) % 4 == 1)
            derp_home(derp, (what >> 5) % (REGIONS + 1));
        else if ((what >> 3) % 4 == 2)
            derp_check(derp, &here.addr, what >> 6 & 1);
        else if (what >> 5 == 7)
            derp_key(derp, to);
        break;
    default:
        stream_step(in, what);
    }
    n = derp_status(derp, status);
    for (i = 0; i < n; i++) {
        FUZZ_MUST(status[i].region != 0 && status[i].state[0] != '\0');
        FUZZ_MUST(strlen(status[i].health) <= DERP_HEALTH_MAX);
        FUZZ_MUST(strlen(status[i].error) < STREAM_WHY_MAX);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t node[32] = {42};
    struct derp_config config = {
        .node = "n", .private_key = node, .insecure = true, .ops = &ops};
    struct fuzz_input in = {data, size};
    struct derp *d;
    unsigned steps;

    if (maps[0].nregions == 0)
        make_maps();
    loop.now = 1000000;
    derp = derp_new(&config);
    FUZZ_MUST(derp != NULL);
    derp_map(derp, &maps[0]);
    derp_home(derp, 3);
    fuzz_sleep(1);
    for (steps = 0; in.len > 0 && steps < STEPS_MAX; steps++)
        step(&in);
    d = derp;
    derp = NULL;
    derp_free(d);
    FUZZ_MUST(streams == NULL && loop.timers == NULL);
    return 0;
}

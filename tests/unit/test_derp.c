/* links: tailnetd/magic/derp.c tailnetd/magic/derp_frame.c core/tn_addr.c */
/* links: tailnetd/crypto/box.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/say.c */
/* libs: -lsodium */
/*
 * A DERP client against a server that is played by hand, byte by byte; stream
 * and loop are the test's own, so is the time.
 */
#include "fake_loop.h"
#include "magic_kit.h"

#include <sys/mman.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/magic/derp.h"
#include "../../ngx_tailnet_module/tailnetd/stream.h"

#define STREAMS 512

/* ---- streams ---- */

struct stream {
    const struct stream_ops *ops;
    void *arg;
    char host[64];
    uint16_t port;
    struct tls_opts tls;
    char name[64];
    size_t naddrs;
    bool proxy, freed, open;
    uint8_t sent[1000000];
    size_t len, read; /* sent, and looked at */
    size_t stuck;     /* queued */
};

static struct stream *streams[STREAMS];
static unsigned nstreams;

struct stream *
stream_new(const struct stream_to *to, const struct stream_ops *ops, void *arg)
{
    struct stream *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    assert_true(nstreams < STREAMS);
    streams[nstreams++] = s;
    s->ops = ops;
    s->arg = arg;
    snprintf(s->host, sizeof(s->host), "%s", to->host);
    s->port = to->port;
    s->tls = *to->tls;
    snprintf(s->name, sizeof(s->name), "%s",
        to->tls->name == NULL ? "" : to->tls->name);
    s->naddrs = to->naddrs;
    s->proxy = to->proxy;
    return s;
}

void
stream_free(struct stream *s)
{
    if (s != NULL) {
        assert_false(s->freed);
        s->freed = true;
    }
}

int
stream_send(struct stream *s, const void *data, size_t len)
{
    if (!s->open)
        return -1;
    assert_true(s->len + len <= sizeof(s->sent));
    memcpy(s->sent + s->len, data, len);
    s->len += len;
    return 0;
}

size_t
stream_queued(const struct stream *s)
{
    return s->stuck;
}

bool
stream_local(const struct stream *s, struct tn_endpoint *e)
{
    *e = kit_endpoint("10.0.0.1:999");
    return s->open;
}

int
tls_pin(uint8_t pin[TLS_PIN_LEN], const char *text)
{
    memset(pin, 7, TLS_PIN_LEN);
    return strncmp(text, "sha256-raw:", 11) == 0 ? 0 : -1;
}

/* ---- the client's callbacks ---- */

static struct {
    unsigned packets, after, gone, up, down;
    uint16_t region;
    uint8_t src[32], gone_key[32];
    uint8_t packet[70000];
    size_t len;
} got;

static void
op_packet(
    void *ctx, uint16_t region, const uint8_t src[32], uint8_t *p, size_t len)
{
    (void)ctx;
    got.packets++;
    got.region = region;
    memcpy(got.src, src, 32);
    memcpy(got.packet, p, len);
    got.len = len;
    p[len + DERP_SLACK - 1] = 0;
}

static void
op_after(void *ctx)
{
    (void)ctx;
    got.after++;
}

static void
op_gone(void *ctx, uint16_t region, const uint8_t key[32])
{
    (void)ctx;
    got.gone++;
    got.region = region;
    memcpy(got.gone_key, key, 32);
}

static void
op_changed(void *ctx, uint16_t region, bool up)
{
    (void)ctx;
    got.up += up;
    got.down += !up;
    got.region = region;
}

static void
op_random(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    memset(buf, 0x80, len);
}

static const struct derp_ops ops = {
    op_packet, op_after, op_gone, op_changed, op_random};

/* ---- the map ---- */

static char s_empty[] = "", s_a[] = "a.example", s_b[] = "b.example",
            s_c[] = "c.example", s_pin[] = "sha256-raw:00", s_none[] = "none",
            s_ip[] = "192.0.2.1", s_cert[] = "cert.example", s_code[] = "tst";

static struct netmap_relay relays1[3] = {
    {.name = s_a,
        .host = s_a,
        .cert_name = s_empty,
        .ipv4 = s_ip,
        .ipv6 = s_none,
        .stun_test_ip = s_empty,
        .derp_port = 443,
        .stun_only = false},
    {.name = s_b,
        .host = s_b,
        .cert_name = s_empty,
        .ipv4 = s_empty,
        .ipv6 = s_empty,
        .stun_test_ip = s_empty,
        .derp_port = 1,
        .stun_only = true},
    {.name = s_c,
        .host = s_c,
        .cert_name = s_cert,
        .ipv4 = s_empty,
        .ipv6 = s_empty,
        .stun_test_ip = s_empty,
        .derp_port = 8443},
};
static struct netmap_relay relays2[1] = {{.name = s_a,
    .host = s_a,
    .cert_name = s_pin,
    .ipv4 = s_ip,
    .ipv6 = s_ip,
    .stun_test_ip = s_empty,
    .derp_port = 443,
    .insecure_for_tests = true}};
#define REGIONS (DERP_CONNS_MAX + 20)

static struct netmap_region regions[REGIONS] = {
    {.id = 1, .code = s_code, .name = s_code, .relays = relays1, .nrelays = 3},
    {.id = 2, .code = s_code, .name = s_code, .relays = relays2, .nrelays = 1},
};
static struct netmap_derp map = {.regions = regions, .nregions = 2};

static struct derp *d;
static uint8_t node_key[32], server_priv[32], server_pub[32], shared[32];
static const uint8_t peer[32] = {0xbb};

static int
setup(void **state)
{
    static const uint8_t priv[32] = {8, 1, [31] = 64};
    struct derp_config c = {
        .node = "web", .private_key = priv, .insecure = false, .ops = &ops};

    (void)state;
    memset(&loop, 0, sizeof(loop));
    memset(&got, 0, sizeof(got));
    nstreams = 0;
    loop.now = 100000;
    loop.us = 0;
    server_priv[0] = 16;
    server_priv[31] = 65;
    assert_int_equal(box_public(server_pub, server_priv), 0);
    assert_int_equal(box_public(node_key, priv), 0);
    assert_int_equal(box_shared(shared, node_key, server_priv), 0);
    d = derp_new(&c);
    assert_non_null(d);
    derp_map(d, &map);
    return 0;
}

static int
teardown(void **state)
{
    unsigned i;

    (void)state;
    derp_free(d);
    fake_loop_end();
    for (i = 0; i < nstreams; i++) {
        assert_true(streams[i]->freed);
        free(streams[i]);
    }
    return 0;
}

/* ---- the server ---- */

static struct stream *
last(void)
{
    assert_true(nstreams > 0);
    return streams[nstreams - 1];
}

static void
give(struct stream *s, const void *p, size_t len)
{
    uint8_t *copy = kit_copy(p, len);

    s->ops->data(s->arg, copy, len);
    free(copy);
}

static void
give_frame(struct stream *s, uint8_t type, const void *p, size_t len)
{
    uint8_t *frame = malloc(5 + len);

    assert_non_null(frame);
    derp_header(frame, (enum derp_type)type, len);
    if (len > 0)
        memcpy(frame + 5, p, len);
    give(s, frame, 5 + len);
    free(frame);
}

static void
open_stream(struct stream *s)
{
    s->open = true;
    s->ops->connected(s->arg);
}

static void
close_stream(struct stream *s)
{
    s->open = false;
    s->ops->closed(s->arg, "the other end closed the connection");
}

/* The next frame that the client sent; its length, -1: none. */
static long
sent_frame(struct stream *s, uint8_t *type, const uint8_t **p)
{
    size_t len;

    if (s->len - s->read < 5)
        return -1;
    *type = s->sent[s->read];
    len = (size_t)s->sent[s->read + 2] << 16 |
          (size_t)s->sent[s->read + 3] << 8 | s->sent[s->read + 4];
    assert_true(s->len - s->read >= 5 + len);
    *p = s->sent + s->read + 5;
    s->read += 5 + len;
    return (long)len;
}

static void
sends(struct stream *s, uint8_t type, const void *want, size_t len)
{
    const uint8_t *p = NULL;
    uint8_t have = 0;

    assert_int_equal(sent_frame(s, &have, &p), len);
    assert_int_equal(have, type);
    if (want != NULL)
        assert_memory_equal(p, want, len);
}

static void
sends_nothing(struct stream *s)
{
    assert_int_equal(s->len - s->read, 0);
}

static void
server_key(uint8_t out[40])
{
    static const uint8_t magic[8] = {
        0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91};

    memcpy(out, magic, 8);
    memcpy(out + 8, server_pub, 32);
}

static void
server_info(struct stream *s)
{
    uint8_t info[24 + 16 + 13] = {5};

    box_seal(info + 24, shared, info, (const uint8_t *)"{\"version\":2}", 13);
    give_frame(s, DERP_SERVER_INFO, info, sizeof(info));
}

static void
keying(struct stream *s)
{
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                 "Upgrade: DERP\r\n\r\n";
    uint8_t key[40], plain[64], *sent;
    const uint8_t *p = NULL;
    uint8_t type = 0;
    long len;

    open_stream(s);
    sent = s->sent;
    assert_true(s->len > 4 && s->len < 1000);
    assert_memory_equal(sent, "GET /derp HTTP/1.1\r\n", 20);
    assert_memory_equal(sent + s->len - 4, "\r\n\r\n", 4);
    s->read = s->len;
    give(s, answer, 10);
    give(s, answer + 10, sizeof(answer) - 11);
    server_key(key);
    give_frame(s, DERP_SERVER_KEY, key, 40);
    len = sent_frame(s, &type, &p);
    assert_int_equal(type, DERP_CLIENT_INFO);
    assert_int_equal(len, DERP_INFO_LEN - 5);
    assert_memory_equal(p, node_key, 32);
    assert_int_equal(
        box_open(plain, shared, p + 32, p + 56, (size_t)len - 56), 0);
    assert_memory_equal(plain, "{\"version\":2,\"CanAckPings\":true}", 32);
}

static void
bring_up(struct stream *s)
{
    keying(s);
    server_info(s);
}

static void
home(void **state)
{
    static const uint8_t yes = 1, no = 0;
    struct stream *s;

    (void)state;
    sleep_ms(1000);
    assert_int_equal(nstreams, 0);
    derp_home(d, 1);
    sleep_ms(1);
    s = last();
    assert_string_equal(s->host, "a.example");
    assert_int_equal(s->port, 443);
    assert_int_equal(s->naddrs, 1);
    assert_int_equal(s->tls.verify, TLS_VERIFY_CA);
    assert_true(s->proxy);
    keying(s);
    assert_false(derp_up(d, 1));
    server_info(s);
    assert_true(derp_up(d, 1));
    assert_int_equal(got.up, 1);
    sends(s, DERP_NOTE_PREFERRED, &yes, 1);
    assert_true(derp_heard(d, 1) == loop.now);

    /* It stays, though nothing is sent, as long as it speaks. */
    for (int i = 0; i < 20; i++) {
        sleep_ms(60000);
        give_frame(s, DERP_KEEP_ALIVE, NULL, 0);
        assert_true(derp_up(d, 1));
    }
    /* Another home: both are told, the old one goes, but not at once. */
    sleep_ms(30000);
    derp_home(d, 2);
    sends(s, DERP_NOTE_PREFERRED, &no, 1);
    sleep_ms(1);
    assert_int_equal(nstreams, 2);
    assert_int_equal(last()->tls.verify, TLS_VERIFY_PIN);
    assert_int_equal(last()->tls.pin[0], 7);
    bring_up(last());
    sends(last(), DERP_NOTE_PREFERRED, &yes, 1);
    sleep_ms(DERP_IDLE_MS - 1);
    assert_true(derp_up(d, 1)); /* for those who do not know of it yet */
    give_frame(s, DERP_KEEP_ALIVE, NULL, 0);
    give_frame(last(), DERP_KEEP_ALIVE, NULL, 0);
    sleep_ms(DERP_IDLE_MS);
    assert_true(s->freed);
    assert_true(derp_up(d, 2) && !derp_up(d, 1));
}

static void
packets(void **state)
{
    static const uint8_t ping[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint8_t want[32 + 5], in[32 + 4];
    struct stream *s;

    (void)state;
    derp_home(d, 1);
    derp_send(d, 1, peer, (const uint8_t *)"early", 5);
    sleep_ms(1);
    s = last();
    bring_up(s);
    sends(s, DERP_NOTE_PREFERRED, NULL, 1);
    memcpy(want, peer, 32);
    memcpy(want + 32, "early", 5);
    sends(s, DERP_SEND_PACKET, want, 37);
    derp_send(d, 1, peer, (const uint8_t *)"later", 5);
    sends_nothing(s);
    derp_flush(d);
    memcpy(want + 32, "later", 5);
    sends(s, DERP_SEND_PACKET, want, 37);

    memset(in, 0xcc, 32);
    memcpy(in + 32, "data", 4);
    give_frame(s, DERP_RECV_PACKET, in, 36);
    assert_int_equal(got.packets, 1);
    assert_int_equal(got.region, 1);
    assert_int_equal(got.len, 4);
    assert_memory_equal(got.packet, "data", 4);
    assert_int_equal(got.src[0], 0xcc);
    give_frame(s, DERP_PING, ping, 8);
    sends(s, DERP_PONG, ping, 8);
    give_frame(s, DERP_PEER_GONE, in, 33);
    assert_int_equal(got.gone, 1);
    assert_int_equal(got.gone_key[0], 0xcc);
    give_frame(s, 0x55, in, 33);
    assert_int_equal(derp_counters(d)->skipped, 1);
    assert_int_equal(derp_counters(d)->sent, 2);
    assert_int_equal(derp_counters(d)->received, 1);
}

/* Other regions: opened by a packet, closed when idle, bounded. */
static void
lazy_regions(void **state)
{
    unsigned i;

    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    bring_up(last());
    derp_send(d, 2, peer, (const uint8_t *)"x", 1);
    sleep_ms(1);
    assert_int_equal(nstreams, 2);
    bring_up(last());
    sends(last(), DERP_SEND_PACKET, NULL, 33); /* not preferred */
    for (i = 0; i < 5; i++) {
        sleep_ms(40000);
        derp_send(d, 2, peer, (const uint8_t *)"x", 1);
        derp_flush(d);
        give_frame(streams[0], DERP_KEEP_ALIVE, NULL, 0);
        give_frame(streams[1], DERP_KEEP_ALIVE, NULL, 0);
    }
    assert_true(derp_up(d, 2));
    sleep_ms(60000);
    give_frame(streams[0], DERP_KEEP_ALIVE, NULL, 0);
    sleep_ms(60000);
    assert_true(streams[1]->freed);
    assert_true(derp_up(d, 1));

    derp_send(d, 99, peer, (const uint8_t *)"x", 1);
    assert_int_equal(derp_counters(d)->drop_region, 1);
    for (i = 2; i < REGIONS; i++) {
        regions[i] = regions[1];
        regions[i].id = (uint16_t)(i + 1);
    }
    map.nregions = REGIONS;
    derp_map(d, &map);
    for (i = 2; i <= REGIONS; i++)
        derp_send(d, (uint16_t)i, peer, (const uint8_t *)"x", 1);
    assert_int_equal(derp_counters(d)->drop_region,
        1 + (REGIONS - 1) - (DERP_CONNS_MAX - 1));
    map.nregions = 2;
    derp_map(d, &map);
}

static void
queues_are_bounded(void **state)
{
    static uint8_t msg[1400], big[DERP_PACKET_MAX + 1];
    const uint8_t *p = NULL;
    struct stream *s;
    uint8_t type = 0;
    unsigned i;

    (void)state;
    derp_home(d, 1);
    for (i = 0; i < 1000; i++) {
        msg[0] = (uint8_t)(i >> 8);
        msg[1] = (uint8_t)i;
        derp_send(d, 1, peer, msg, sizeof(msg));
    }
    assert_int_equal(derp_counters(d)->drop_queue, 1000 - DERP_QUEUE_MAX);
    derp_send(d, 1, peer, big, sizeof(big));
    assert_int_equal(derp_counters(d)->drop_size, 1);
    sleep_ms(1);
    s = last();
    bring_up(s);
    sends(s, DERP_NOTE_PREFERRED, NULL, 1);
    for (i = 0; i < DERP_QUEUE_MAX; i++) {      /* the newest, in order */
        if (i > 0 && i % DERP_BURST_MAX == 0) { /* and not all at once */
            sends_nothing(s);
            sleep_ms(1);
        }
        assert_int_equal(sent_frame(s, &type, &p), 32 + 1400);
        assert_int_equal(p[32] << 8 | p[33], 1000 - DERP_QUEUE_MAX + i);
    }
    sends_nothing(s);
    sleep_ms(1);
    /* TCP does not take more: they wait here, and go when it does. */
    s->stuck = DERP_WRITE_MAX;
    for (i = 0; i < 300; i++)
        derp_send(d, 1, peer, msg, sizeof(msg));
    derp_flush(d);
    sends_nothing(s);
    s->stuck = 0;
    s->ops->drained(s->arg);
    for (i = 0; i < DERP_QUEUE_MAX; i++) {
        if (i > 0 && i % DERP_BURST_MAX == 0)
            sleep_ms(1);
        assert_int_equal(sent_frame(s, &type, &p), 32 + 1400);
    }
    sends_nothing(s);
    /* A packet as long as they may be goes in one piece. */
    derp_send(d, 1, peer, big, DERP_PACKET_MAX);
    derp_flush(d);
    assert_int_equal(sent_frame(s, &type, &p), 32 + DERP_PACKET_MAX);
}

/* How many packets leave when it is ${us} within this millisecond. */
static unsigned
leave_at(struct stream *s, uint64_t us)
{
    size_t before = s->len;

    loop.us = us;
    derp_flush(d);
    return (unsigned)(s->len - before) / (DERP_HEADER_LEN + 32 + 64);
}

/* No clock's tick lets two bursts go one behind the other. */
static void
packets_have_gaps(void **state)
{
    static const uint8_t msg[64];
    struct stream *s;
    unsigned i;

    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    s = last();
    bring_up(s);
    for (i = 0; i < DERP_BURST_MAX * 4; i++)
        derp_send(d, 1, peer, msg, sizeof(msg));
    assert_int_equal(leave_at(s, 0), DERP_BURST_MAX);
    assert_int_equal(leave_at(s, DERP_GAP_US - 1), 0);
    assert_int_equal(leave_at(s, DERP_GAP_US), 1);
    assert_int_equal(leave_at(s, DERP_GAP_US * 5 - 1), 3);
    loop.now++;
    assert_int_equal(leave_at(s, 0), 1000 / DERP_GAP_US - 4);
    loop.now += 60; /* idle: no more than that is saved */
    assert_int_equal(leave_at(s, 0), DERP_BURST_MAX);
}

static void
reconnects(void **state)
{
    struct derp_status st[DERP_CONNS_MAX];
    uint64_t at;
    unsigned i, n;

    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    bring_up(last());
    close_stream(last());
    assert_int_equal(got.down, 1);
    assert_false(derp_up(d, 1));
    assert_int_equal(derp_status(d, st), 1);
    assert_string_equal(st[0].state, "waiting");
    assert_non_null(strstr(st[0].error, "closed"));
    /* The region's next relay, not the one for STUN only. */
    sleep_ms(DERP_BACKOFF_MIN);
    assert_int_equal(nstreams, 2);
    assert_string_equal(last()->host, "c.example");
    assert_string_equal(last()->name, "cert.example");
    assert_int_equal(last()->naddrs, 0);
    bring_up(last());
    assert_non_null(
        strstr((char *)last()->sent, "\r\nIdeal-Node: a.example\r\n"));
    assert_true(derp_up(d, 1));
    assert_string_equal((derp_status(d, st), st[0].error), "");
    close_stream(last());
    /* Down for long: tried again and again, never less often than that. */
    for (i = 0; i < 40; i++) {
        at = loop.now;
        n = nstreams;
        sleep_ms(DERP_BACKOFF_MS);
        assert_true(nstreams > n);
        close_stream(last());
    }
    assert_true(loop.now - at <= DERP_BACKOFF_MS);
    sleep_ms(DERP_BACKOFF_MS);
    bring_up(last());
    assert_true(derp_up(d, 1));
    assert_int_equal(derp_counters(d)->connects, 3);
}

static void
silence_ends_it(void **state)
{
    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    bring_up(last());
    sleep_ms(10000);
    give_frame(last(), DERP_KEEP_ALIVE, NULL, 0);
    sleep_ms(DERP_SILENCE_MS - 1);
    assert_true(derp_up(d, 1));
    sleep_ms(1);
    assert_true(streams[0]->freed);
    sleep_ms(DERP_BACKOFF_MS);
    assert_true(nstreams >= 2);
    /* One that never lets us in. */
    open_stream(last());
    sleep_ms(DERP_ENTER_MS + DERP_BACKOFF_MS);
    assert_true(nstreams >= 3);
}

static void
server_restarts(void **state)
{
    static const uint8_t restart[8] = {0, 0, 0x27, 0x10, 0, 0, 0, 1};
    struct stream *s;

    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    s = last();
    bring_up(s);
    give_frame(s, DERP_RESTARTING, restart, 8);
    assert_true(derp_up(d, 1));
    close_stream(s);
    sleep_ms(2000); /* a random part of ten seconds */
    assert_int_equal(nstreams, 1);
    sleep_ms(8000);
    assert_int_equal(nstreams, 2);
}

static void
health(void **state)
{
    struct derp_status st[DERP_CONNS_MAX];

    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    bring_up(last());
    give_frame(last(), DERP_HEALTH, "two of you", 10);
    derp_status(d, st);
    assert_string_equal(st[0].health, "two of you");
    assert_string_equal(st[0].state, "up");
    give_frame(last(), DERP_HEALTH, "", 0);
    derp_status(d, st);
    assert_string_equal(st[0].health, "");
}

/* How many lines the log got while ${fn} ran. */
static unsigned
lines_of(void (*fn)(void))
{
    int fd = memfd_create("log", MFD_CLOEXEC), err = dup(STDERR_FILENO);
    unsigned n = 0;
    ssize_t len, i;
    char buf[4096];

    assert_true(fd != -1 && err != -1);
    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    fn();
    assert_int_equal(dup2(err, STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    while ((len = read(fd, buf, sizeof(buf))) > 0)
        for (i = 0; i < len; i++)
            n += buf[i] == '\n';
    close(fd);
    close(err);
    return n;
}

static void
talks_much(void)
{
    static const uint8_t restart[8] = {0};
    unsigned i;

    for (i = 0; i < 1000; i++) {
        give_frame(last(), DERP_HEALTH, i & 1 ? "dizzy" : "tired", 5);
        give_frame(last(), DERP_RESTARTING, restart, 8);
    }
}

static void
cuts_off(void)
{
    unsigned i;

    for (i = 0; i < 100; i++) {
        sleep_ms(100);
        if (last()->freed)
            continue;
        bring_up(last());
        close_stream(last());
    }
}

/* Neither the words of a relay nor its deeds fill the log. */
static void
logs_are_bounded(void **state)
{
    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    bring_up(last());
    assert_int_equal(lines_of(talks_much), DERP_LINES_MAX);
    sleep_ms(DERP_IDLE_MS);
    assert_int_equal(lines_of(talks_much), DERP_LINES_MAX);
    close_stream(last());
    assert_in_range(lines_of(cuts_off), 2, 30);
}

/* What a server may say instead: each ends the try, and another follows. */
static void
wrong_servers(void **state)
{
    static const char *const answers[] = {
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 101 x\r\n\r\n\x05\x00\x00\x00\x20"
        "................................",
        "HTTP/1.1 101 x\r\n\r\n\x01\x7f\xff\xff\xff",
        "HTTP/1.1 101 x\r\n\r\n\x01\x00\x00\x00\x28"
        "........................................",
    };
    /* The zeros of the lengths end a C string. */
    static const size_t lens[] = {0, 0, 0, 0, 18 + 5 + 32, 18 + 5, 18 + 5 + 40};
    uint8_t key[40];
    char head[DERP_ANSWER_MAX];
    unsigned i, n;

    (void)state;
    derp_home(d, 2);
    sleep_ms(1);
    for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        n = nstreams;
        open_stream(last());
        give(last(), answers[i], lens[i] != 0 ? lens[i] : strlen(answers[i]));
        assert_true(last()->freed);
        sleep_ms(DERP_BACKOFF_MS);
        assert_int_equal(nstreams, n + 1);
    }
    /* Headers without end. */
    open_stream(last());
    memset(head, 'a', sizeof(head));
    give(last(), head, sizeof(head));
    assert_true(last()->freed);
    sleep_ms(DERP_BACKOFF_MS);
    /* A key of low order; and one that it has not. */
    open_stream(last());
    server_key(key);
    memset(key + 8, 0, 32);
    give(last(), "HTTP/1.1 101 x\r\n\r\n", 18);
    give_frame(last(), DERP_SERVER_KEY, key, 40);
    assert_true(last()->freed);
    sleep_ms(DERP_BACKOFF_MS);
    shared[0] ^= 1;
    open_stream(last());
    server_key(key);
    give(last(), "HTTP/1.1 101 x\r\n\r\n", 18);
    give_frame(last(), DERP_SERVER_KEY, key, 40);
    server_info(last());
    assert_true(last()->freed);
    assert_false(derp_up(d, 2));
    assert_int_equal(got.up, 0);
    /* One that starts fast, without any HTTP. */
    shared[0] ^= 1;
    sleep_ms(DERP_BACKOFF_MS);
    open_stream(last());
    give_frame(last(), DERP_SERVER_KEY, key, 40);
    server_info(last());
    assert_true(derp_up(d, 2));
}

static void
another_key_or_map(void **state)
{
    static const uint8_t priv[32] = {24, [31] = 66};
    struct tn_addr here = kit_addr("10.0.0.1"), there = kit_addr("10.0.0.2");
    struct netmap_derp none = {0};

    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    bring_up(last());
    /* Our address is still there; and then it is not. */
    derp_check(d, &here, 1);
    assert_true(derp_up(d, 1));
    derp_check(d, &there, 1);
    assert_false(derp_up(d, 1));
    sleep_ms(DERP_BACKOFF_MS);
    bring_up(last());
    derp_key(d, priv);
    assert_false(derp_up(d, 1));
    assert_int_equal(box_public(node_key, priv), 0);
    assert_int_equal(box_shared(shared, node_key, server_priv), 0);
    sleep_ms(1);
    bring_up(last());
    assert_true(derp_up(d, 1));
    derp_map(d, &none);
    assert_true(last()->freed);
    derp_map(d, &map);
    sleep_ms(1);
    assert_false(last()->freed);
    derp_map(d, NULL);
}

/* The home's region moves to another machine: whoever looks for us does so
 * there, though the old relay does not end the connection. */
static void
region_moves(void **state)
{
    struct netmap_relay moved[2] = {relays1[1], relays1[0]};
    struct netmap_region region = regions[0];
    struct netmap_derp other = {.regions = &region, .nregions = 1};
    struct stream *s;

    (void)state;
    region.relays = moved;
    region.nrelays = 2;
    derp_home(d, 1);
    sleep_ms(1);
    s = last();
    bring_up(s);
    /* The same relay, though at another place and beside others. */
    derp_map(d, &other);
    sleep_ms(1000);
    assert_true(derp_up(d, 1));
    derp_map(d, &map);
    sleep_ms(1000);
    assert_true(derp_up(d, 1));
    assert_ptr_equal(last(), s);
    /* Another machine under the same name. */
    moved[1].ipv4 = s_none;
    derp_map(d, &other);
    assert_true(s->freed);
    assert_int_equal(got.down, 1);
    sleep_ms(1);
    assert_string_equal(last()->host, "a.example");
    assert_int_equal(last()->naddrs, 0);
    bring_up(last());
    /* Another name; on the way there already. */
    derp_map(d, &map);
    sleep_ms(1);
    s = last();
    moved[1] = relays1[2];
    derp_map(d, &other);
    assert_true(s->freed);
    sleep_ms(1);
    assert_string_equal(last()->host, "c.example");
    bring_up(last());
    assert_true(derp_up(d, 1));
    derp_map(d, NULL);
}

static void
garbage(void **state)
{
    uint8_t buf[600];
    uint32_t seed = 11;
    unsigned i;
    size_t len;

    (void)state;
    derp_home(d, 1);
    sleep_ms(1);
    bring_up(last());
    for (i = 0; i < 3000 && nstreams < STREAMS - 2; i++) {
        len = kit_random(&seed) % sizeof(buf);
        kit_fill(&seed, buf, len);
        if (len > 4) {
            buf[0] %= 0x18;
            buf[1] = buf[2] = buf[3] = 0;
        }
        if (last()->freed) {
            sleep_ms(DERP_RESTART_MS);
            bring_up(last());
        }
        last()->len = last()->read = 0;
        give(last(), buf, len);
    }
}

static void
addresses(void **state)
{
    struct tn_endpoint e = derp_endpoint(17), other;

    (void)state;
    kit_is(&e, "127.3.3.40:17");
    assert_int_equal(derp_region(&e), 17);
    other = kit_endpoint("127.3.3.41:17");
    assert_int_equal(derp_region(&other), 0);
}

int
main(void)
{
#define ROW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(home),
        ROW(packets),
        ROW(lazy_regions),
        ROW(queues_are_bounded),
        ROW(packets_have_gaps),
        ROW(reconnects),
        ROW(silence_ends_it),
        ROW(server_restarts),
        ROW(health),
        ROW(logs_are_bounded),
        ROW(wrong_servers),
        ROW(another_key_or_map),
        ROW(region_moves),
        ROW(garbage),
        cmocka_unit_test(addresses),
    };

    /* Log lines are not part of TAP. */
    if (freopen("/dev/null", "w", stderr) == NULL)
        return 1;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

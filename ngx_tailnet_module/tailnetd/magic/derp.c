/*
 * Theory of operation.  One struct conn per region that is in use.  A try takes
 * the region's relays in turn; whatever fails, in whatever state, comes to
 * fail(), which waits and tries the next one, for as long as the region is home
 * or packets for it were sent within DERP_IDLE_MS.
 *
 * Packets are queued and leave in writes of many, at derp_flush() or when a
 * write's worth is there, unless TCP holds DERP_WRITE_MAX already: then they
 * wait, and the oldest is dropped where there are too many.
 *
 * They also wait when they would leave faster than one each DERP_GAP_US, after
 * DERP_BURST_MAX at once.  A relay keeps 32 packets for each of its clients and
 * drops the oldest of what is more, as it does when its writer has no CPU while
 * 32 come; of a short answer, TCP repeats such a packet only after 200 ms.
 * What the other end asks when it has a burst of answers is a burst too, and is
 * lost the same way.
 */
#include "derp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/say.h"
#include "../loop.h"
#include "../stream.h"

#define WRITE_SIZE 16384
#define TIMES_MAX  16 /* of doubling the delay */

enum state { WAITING, OPENING, UPGRADING, KEYING, ENTERING, UP };

struct conn {
    struct conn *next;
    struct derp *derp;
    uint16_t region;
    enum state state;
    unsigned relay;    /* of the region, tried next or in use */
    unsigned failures; /* in a row */
    struct stream *stream;
    struct loop_timer *timer, *pace;
    uint64_t paid;    /* loop_now_us() up to which time is spent */
    uint64_t at;      /* of the next try, or the deadline of this one */
    uint64_t heard;   /* any frame */
    uint64_t written; /* a packet of ours */
    uint64_t since;   /* it was up */
    uint32_t restart; /* ms to wait when it ends */
    unsigned lines;   /* logged of its words since the timer ran */
    bool preferred;   /* as the server was told */
    struct derp_reader reader;
    char *head; /* of the HTTP answer */
    size_t headlen;
    uint8_t server[DERP_KEY_LEN], shared[BOX_KEY_LEN];
    uint8_t *queue[DERP_QUEUE_MAX]; /* whole frames */
    size_t first, count, bytes;
    char health[DERP_HEALTH_MAX + 1];
    char error[STREAM_WHY_MAX];
};

struct derp {
    struct derp_config is;
    uint8_t private_key[32], public_key[32];
    const struct netmap_derp *map;
    uint16_t home;
    struct conn *conns;
    size_t nconns;
    struct derp_counters count;
};

static const char *const state_names[] = {
    "waiting", "opening", "upgrading", "keying", "entering", "up"};

static void try(struct conn *c);

struct tn_endpoint
derp_endpoint(uint16_t region)
{
    static const uint8_t ip[4] = {127, 3, 3, 40};

    return (struct tn_endpoint){tn_addr_from4(ip), region};
}

uint16_t
derp_region(const struct tn_endpoint *e)
{
    struct tn_endpoint want = derp_endpoint(e->port);

    return tn_addr_equal(&e->addr, &want.addr) ? e->port : 0;
}

static struct conn *
find(const struct derp *d, uint16_t region)
{
    struct conn *c;

    for (c = d->conns; c != NULL; c = c->next)
        if (c->region == region)
            return c;
    return NULL;
}

static bool
wanted(const struct conn *c)
{
    return netmap_region(c->derp->map, c->region) != NULL &&
           (c->region == c->derp->home ||
               loop_now() - c->written < DERP_IDLE_MS);
}

/* ---- states ---- */

static void
set_state(struct conn *c, enum state state)
{
    bool was = c->state == UP, is = state == UP;

    c->state = state;
    if (was != is)
        c->derp->is.ops->changed(c->derp->is.ctx, c->region, is);
}

static void
set_timer(struct conn *c, uint64_t at)
{
    c->at = at;
    loop_timer_set(c->timer, at);
}

static void
empty_queue(struct conn *c)
{
    for (; c->count > 0; c->count--) {
        free(c->queue[c->first]);
        c->first = (c->first + 1) % DERP_QUEUE_MAX;
    }
    c->bytes = 0;
}

/* Everything of a connection but the wish for one. */
static void
hang_up(struct conn *c)
{
    stream_free(c->stream);
    c->stream = NULL;
    derp_reader_free(&c->reader);
    free(c->head);
    c->head = NULL;
    c->headlen = 0;
    c->preferred = false;
    c->heard = 0;
    explicit_bzero(c->shared, sizeof(c->shared));
    set_state(c, WAITING);
}

static void
drop(struct conn *c)
{
    struct conn **at = &c->derp->conns;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    c->derp->nconns--;
    hang_up(c);
    empty_queue(c);
    loop_timer_free(c->timer);
    loop_timer_free(c->pace);
    free(c);
}

/* From half to all of ${ms}, so that clients of one relay do not come as one.
 */
static uint64_t
jitter(struct conn *c, uint64_t ms)
{
    uint8_t r[2];

    c->derp->is.ops->random(c->derp->is.ctx, r, sizeof(r));
    return ms / 2 + ms / 2 * (unsigned)(r[0] << 8 | r[1]) / 65535;
}

static uint64_t
delay(struct conn *c)
{
    unsigned times = c->failures - 1 < TIMES_MAX ? c->failures - 1 : TIMES_MAX;
    uint64_t ms = (uint64_t)DERP_BACKOFF_MIN << times;

    if (c->restart != 0)
        ms = c->restart;
    else if (ms > DERP_BACKOFF_MS)
        ms = DERP_BACKOFF_MS;
    c->restart = 0;
    return jitter(c, ms);
}

static const struct netmap_relay *
relay_of(const struct conn *c)
{
    const struct netmap_region *r = netmap_region(c->derp->map, c->region);

    return r == NULL || c->relay >= r->nrelays ? NULL : &r->relays[c->relay];
}

/* The first of a series is news; what follows is for those who look closely. */
static void
complain(const struct conn *c, const char *why)
{
    const struct netmap_region *r = netmap_region(c->derp->map, c->region);
    const struct netmap_relay *relay = relay_of(c);
    const char *node = c->derp->is.node, *host;

    host = relay == NULL ? "?" : relay->host;
    if (c->failures == 1 && c->region == c->derp->home)
        say_warn("node \"%s\": relay %s of region %u (%s), its home: %s; it is "
                 "tried again",
            node, host, c->region, r == NULL ? "?" : r->code, why);
    else
        say_info("node \"%s\": relay %s of region %u (%s): %s", node, host,
            c->region, r == NULL ? "?" : r->code, why);
}

static void
fail(struct conn *c, const char *why)
{
    /* One that lets us in only to cut us off is not asked ever so often. */
    if (c->state == UP && loop_now() - c->since >= DERP_BACKOFF_MS)
        c->failures = 0;
    snprintf(c->error, sizeof(c->error), "%s", why);
    c->failures++;
    c->derp->count.failures++;
    complain(c, why);
    c->relay++;
    hang_up(c);
    set_timer(c, loop_now() + delay(c));
}

/* ---- bytes out ---- */

static int
write_bytes(struct conn *c, const void *p, size_t len)
{
    return c->stream == NULL ? -1 : stream_send(c->stream, p, len);
}

/* Whether one more packet may leave now; if not, flush() runs again.  Time is
 * credit: a packet costs DERP_GAP_US, and DERP_BURST_MAX of them are saved. */
static bool
may_leave(struct conn *c)
{
    const uint64_t saved = (uint64_t)DERP_BURST_MAX * DERP_GAP_US;
    uint64_t now = loop_now_us();

    if (now - c->paid > saved)
        c->paid = now - saved;
    if (now - c->paid < DERP_GAP_US) {
        loop_timer_set(c->pace, loop_now() + 1);
        return false;
    }
    c->paid += DERP_GAP_US;
    return true;
}

static void
flush(struct conn *c)
{
    uint8_t buf[WRITE_SIZE];
    size_t used = 0, len;
    uint8_t *frame;

    while (c->state == UP && c->count > 0 &&
           stream_queued(c->stream) < DERP_WRITE_MAX) {
        frame = c->queue[c->first];
        len = DERP_HEADER_LEN + ((size_t)frame[1] << 24 |
                                    (size_t)frame[2] << 16 |
                                    (size_t)frame[3] << 8 | frame[4]);
        if (used > 0 && (used + len > WRITE_SIZE)) {
            if (write_bytes(c, buf, used) != 0)
                return; /* its end follows by closed() */
            used = 0;
            continue;
        }
        if (!may_leave(c))
            break;
        c->first = (c->first + 1) % DERP_QUEUE_MAX;
        c->count--;
        c->bytes -= len;
        c->derp->count.sent++;
        if (len > WRITE_SIZE) {
            (void)write_bytes(c, frame, len);
        } else {
            memcpy(buf + used, frame, len);
            used += len;
        }
        free(frame);
    }
    if (used > 0)
        (void)write_bytes(c, buf, used);
}

static void
prefer(struct conn *c)
{
    bool home = c->region == c->derp->home;
    uint8_t frame[DERP_HEADER_LEN + 1];

    if (c->state != UP || c->preferred == home)
        return;
    derp_header(frame, DERP_NOTE_PREFERRED, 1);
    frame[DERP_HEADER_LEN] = home;
    if (write_bytes(c, frame, sizeof(frame)) == 0)
        c->preferred = home;
}

/* ---- frames in ---- */

static void
enter(struct conn *c, const struct derp_frame *f)
{
    uint8_t frame[DERP_INFO_LEN], nonce[BOX_NONCE_LEN];
    size_t len;

    memcpy(c->server, f->key, sizeof(c->server));
    if (box_shared(c->shared, c->server, c->derp->private_key) != 0) {
        fail(c, "its key is no key");
        return;
    }
    c->derp->is.ops->random(c->derp->is.ctx, nonce, sizeof(nonce));
    len = derp_client_info(frame, c->derp->public_key, c->shared, nonce);
    if (write_bytes(c, frame, len) != 0)
        return;
    set_state(c, ENTERING);
}

static void
entered(struct conn *c)
{
    const struct netmap_region *r = netmap_region(c->derp->map, c->region);

    say_info("node \"%s\": connected to region %u (%s)%s", c->derp->is.node,
        c->region, r == NULL ? "?" : r->code,
        c->region == c->derp->home ? ", its home" : "");
    c->since = loop_now();
    c->error[0] = c->health[0] = '\0';
    c->derp->count.connects++;
    set_timer(c, loop_now() + DERP_IDLE_MS);
    set_state(c, UP);
    prefer(c);
    flush(c);
}

/* A relay's words do not fill the log; its health is in the status, too. */
static bool
may_log(struct conn *c)
{
    if (c->lines == DERP_LINES_MAX)
        return false;
    c->lines++;
    return true;
}

static void
health(struct conn *c, const char *text)
{
    if (strcmp(text, c->health) == 0)
        return;
    snprintf(c->health, sizeof(c->health), "%s", text);
    if (!may_log(c))
        return;
    if (text[0] != '\0')
        say_warn("node \"%s\": the relay of region %u says: %s",
            c->derp->is.node, c->region, text);
    else
        say_info("node \"%s\": the relay of region %u is well again",
            c->derp->is.node, c->region);
}

static void
take_up(struct conn *c, const struct derp_frame *f)
{
    struct derp *d = c->derp;
    uint8_t frame[DERP_HEADER_LEN + 8];
    uint16_t r;

    switch (f->type) {
    case DERP_RECV_PACKET:
        d->count.received++;
        d->is.ops->packet(d->is.ctx, c->region, f->key, f->data, f->len);
        break;
    case DERP_PING:
        derp_header(frame, DERP_PONG, 8);
        memcpy(frame + DERP_HEADER_LEN, f->data, 8);
        (void)write_bytes(c, frame, sizeof(frame));
        break;
    case DERP_PEER_GONE:
        d->count.gone++;
        d->is.ops->gone(d->is.ctx, c->region, f->key);
        break;
    case DERP_HEALTH:
        health(c, f->text);
        break;
    case DERP_RESTARTING:
        d->is.ops->random(d->is.ctx, (uint8_t *)&r, sizeof(r));
        c->restart = f->reconnect_in < DERP_RESTART_MS ? f->reconnect_in
                                                       : DERP_RESTART_MS;
        c->restart = c->restart * (r / 64 + 1) / 1024 + 1;
        if (may_log(c))
            say_info("node \"%s\": the relay of region %u restarts", d->is.node,
                c->region);
        break;
    default:
        break;
    }
}

/* false: the connection is over. */
static bool
take(struct conn *c, const struct derp_frame *f)
{
    c->heard = loop_now();
    if (c->state == UP) {
        take_up(c, f);
        return c->stream != NULL;
    }
    if (c->state == KEYING && f->type == DERP_SERVER_KEY) {
        enter(c, f);
        return c->stream != NULL;
    }
    if (c->state == ENTERING && f->type == DERP_SERVER_INFO) {
        if (!derp_server_info(f, c->shared)) {
            fail(c, "it does not have the key that it showed");
            return false;
        }
        entered(c);
        return c->stream != NULL;
    }
    if (f->type == DERP_KEEP_ALIVE || f->type == DERP_HEALTH)
        return true;
    fail(c, "it sends something else than a DERP server should");
    return false;
}

/* ---- the upgrade ---- */

static void
ask(struct conn *c)
{
    const struct netmap_region *r = netmap_region(c->derp->map, c->region);
    const struct netmap_relay *relay = relay_of(c);
    char text[1024];
    bool ideal;
    int n;

    if (relay == NULL) {
        fail(c, "it is not in the DERP map any more");
        return;
    }
    ideal = c->relay == 0;
    n = snprintf(text, sizeof(text),
        "GET /derp HTTP/1.1\r\nHost: %s\r\nUpgrade: DERP\r\n"
        "Connection: Upgrade\r\n%s%s%s\r\n",
        relay->host,
        ideal ? "" : "Ideal-Node: ", ideal ? "" : r->relays[0].name,
        ideal ? "" : "\r\n");
    c->head = malloc(DERP_ANSWER_MAX);
    if (n < 0 || (size_t)n >= sizeof(text) || c->head == NULL) {
        fail(c, "its name is too long, or out of memory");
        return;
    }
    if (write_bytes(c, text, (size_t)n) == 0)
        set_state(c, UPGRADING);
}

static void
refused(struct conn *c)
{
    char why[128];
    size_t n = strcspn(c->head, "\r\n"), i;

    for (i = 0; i < n; i++)
        if (c->head[i] < 0x20 || c->head[i] > 0x7e)
            c->head[i] = '?';
    snprintf(why, sizeof(why), "it does not speak DERP: \"%.*s\"",
        (int)(n < 60 ? n : 60), c->head);
    fail(c, why);
}

/* The HTTP answer's head; ${*p} is behind it when that is over.  A server that
 * skips it (Derp-Fast-Start) begins with its key's frame. */
static bool
read_head(struct conn *c, const uint8_t **p, size_t *len)
{
    if (c->headlen == 0 && *len > 0 && **p == DERP_SERVER_KEY) {
        set_state(c, KEYING);
        return true;
    }
    while (*len > 0) {
        if (c->headlen == DERP_ANSWER_MAX - 1) {
            fail(c, "its HTTP answer has no end");
            return false;
        }
        c->head[c->headlen++] = (char)*(*p)++;
        --*len;
        if (c->headlen < 4 ||
            memcmp(c->head + c->headlen - 4, "\r\n\r\n", 4) != 0)
            continue;
        c->head[c->headlen] = '\0';
        if (strncmp(c->head, "HTTP/1.1 101", 12) != 0) {
            refused(c);
            return false;
        }
        free(c->head);
        c->head = NULL;
        set_state(c, KEYING);
        return true;
    }
    return true;
}

/* ---- the stream's callbacks ---- */

static void
connected(void *arg)
{
    struct conn *c = arg;

    set_timer(c, loop_now() + DERP_ENTER_MS);
    ask(c);
}

static void
data(void *arg, const uint8_t *p, size_t len)
{
    struct conn *c = arg;
    struct derp *d = c->derp;
    struct derp_frame f;
    uint64_t skipped = c->reader.skipped;
    int rc;

    if (c->state == UPGRADING && !read_head(c, &p, &len))
        return;
    if (c->state < KEYING)
        return;
    while ((rc = derp_read(&c->reader, &p, &len, &f)) == 1)
        if (!take(c, &f))
            break;
    if (rc != 1)
        d->count.skipped += c->reader.skipped - skipped;
    if (rc == -1)
        fail(c, c->reader.error);
    d->is.ops->after(d->is.ctx);
}

static void
drained(void *arg)
{
    flush(arg);
}

static void
closed(void *arg, const char *why)
{
    fail(arg, why);
}

static const struct stream_ops stream_ops = {
    .connected = connected, .data = data, .drained = drained, .closed = closed};

/* ---- tries ---- */

/* The addresses that the map gives; 0: the name is to be looked up. */
static size_t
literals(const struct netmap_relay *relay, struct tn_addr addrs[2])
{
    const char *const text[2] = {relay->ipv4, relay->ipv6};
    size_t n = 0, i;

    for (i = 0; i < 2; i++)
        if (tn_addr_parse(&addrs[n], text[i], strlen(text[i])) == 0)
            n++;
    return n;
}

struct stream *
derp_dial(const struct netmap_relay *relay, struct tls_trust *trust,
    bool insecure, uint32_t ms, const struct stream_ops *ops, void *arg)
{
    struct tls_opts tls = {.verify = TLS_VERIFY_CA, .sni = relay->host};
    struct tn_addr addrs[2];
    struct stream_to to = {.host = relay->host,
        .port = relay->derp_port,
        .addrs = addrs,
        .naddrs = literals(relay, addrs),
        .trust = trust,
        .tls = &tls,
        .proxy = true,
        .connect_ms = ms};

    if (relay->insecure_for_tests && insecure)
        tls.verify = TLS_VERIFY_NONE;
    else if (tls_pin(tls.pin, relay->cert_name) == 0)
        tls.verify = TLS_VERIFY_PIN;
    else if (relay->cert_name[0] != '\0')
        tls.name = relay->cert_name;
    return stream_new(&to, ops, arg);
}

static void
try(struct conn *c)
{
    const struct netmap_region *r = netmap_region(c->derp->map, c->region);
    const struct netmap_relay *relay = NULL;
    unsigned i;

    for (i = 0; r != NULL && i < r->nrelays && relay == NULL; i++) {
        c->relay = (c->relay + (i > 0)) % r->nrelays;
        if (!r->relays[c->relay].stun_only)
            relay = &r->relays[c->relay];
    }
    set_timer(c, UINT64_MAX); /* the stream has a deadline of its own */
    if (relay == NULL) {
        fail(c, "the region has no relay");
        return;
    }
    set_state(c, OPENING);
    c->stream = derp_dial(relay, c->derp->is.trust, c->derp->is.insecure,
        DERP_CONNECT_MS, &stream_ops, c);
    if (c->stream == NULL)
        fail(c, "out of memory");
}

static void
timer(void *arg)
{
    struct conn *c = arg;
    uint64_t now = loop_now(), silent = c->heard + DERP_SILENCE_MS;

    if (!wanted(c)) {
        if (c->state == UP)
            say_info("node \"%s\": region %u is not needed any more",
                c->derp->is.node, c->region);
        drop(c);
        return;
    }
    switch (c->state) {
    case WAITING:
        try(c);
        break;
    case UP:
        c->lines = 0;
        if (now >= silent)
            fail(c, "it has been silent for too long");
        else
            set_timer(
                c, silent < now + DERP_IDLE_MS ? silent : now + DERP_IDLE_MS);
        break;
    default:
        fail(c, "it takes too long to let us in");
    }
}

static void
pace(void *arg)
{
    flush(arg);
}

static struct conn *
need(struct derp *d, uint16_t region)
{
    struct conn *c = find(d, region);

    if (c != NULL)
        return c;
    if (netmap_region(d->map, region) == NULL ||
        (d->nconns >= DERP_CONNS_MAX && region != d->home))
        return NULL;
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->derp = d;
    c->region = region;
    c->written = loop_now();
    c->timer = loop_timer_new(timer, c);
    c->pace = loop_timer_new(pace, c);
    if (c->timer == NULL || c->pace == NULL) {
        loop_timer_free(c->timer);
        loop_timer_free(c->pace);
        free(c);
        return NULL;
    }
    c->next = d->conns;
    d->conns = c;
    d->nconns++;
    set_timer(c, 0);
    return c;
}

/* ---- for the node ---- */

struct derp *
derp_new(const struct derp_config *c)
{
    struct derp *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->is = *c;
    d->is.private_key = NULL;
    derp_key(d, c->private_key);
    return d;
}

void
derp_free(struct derp *d)
{
    if (d == NULL)
        return;
    while (d->conns != NULL)
        drop(d->conns);
    explicit_bzero(d->private_key, sizeof(d->private_key));
    free(d);
}

static bool
same_relay(const struct netmap_relay *a, const struct netmap_relay *b)
{
    return a->derp_port == b->derp_port && a->stun_only == b->stun_only &&
           a->insecure_for_tests == b->insecure_for_tests &&
           strcmp(a->host, b->host) == 0 &&
           strcmp(a->cert_name, b->cert_name) == 0 &&
           strcmp(a->ipv4, b->ipv4) == 0 && strcmp(a->ipv6, b->ipv6) == 0;
}

/* ${c}'s relay, which the map before names, is not of ${r} any more: who comes
 * to this region comes to another one.  It may still let us stay. */
static void
follow(struct conn *c, const struct netmap_region *r)
{
    const struct netmap_relay *had = relay_of(c);
    unsigned i;

    for (i = 0; had != NULL && i < r->nrelays; i++)
        if (same_relay(had, &r->relays[i])) {
            c->relay = i;
            return;
        }
    say_info("node \"%s\": region %u (%s) has other relays now",
        c->derp->is.node, c->region, r->code);
    c->relay = 0;
    hang_up(c);
    set_timer(c, 0);
}

void
derp_map(struct derp *d, const struct netmap_derp *map)
{
    const struct netmap_region *r;
    struct conn *c, *next;

    for (c = d->conns; c != NULL; c = next) {
        next = c->next;
        r = netmap_region(map, c->region);
        if (r == NULL)
            drop(c);
        else if (c->stream != NULL)
            follow(c, r);
    }
    d->map = map;
    if (d->home != 0)
        (void)need(d, d->home);
}

void
derp_key(struct derp *d, const uint8_t private_key[32])
{
    struct conn *c;

    if (memcmp(d->private_key, private_key, 32) == 0)
        return;
    memcpy(d->private_key, private_key, 32);
    (void)box_public(d->public_key, d->private_key);
    for (c = d->conns; c != NULL; c = c->next) {
        hang_up(c);
        set_timer(c, 0);
    }
}

void
derp_home(struct derp *d, uint16_t region)
{
    struct conn *c;

    if (d->home == region)
        return;
    /* Who was not told yet looks for us where it was. */
    c = find(d, d->home);
    if (c != NULL)
        c->written = loop_now();
    d->home = region;
    for (c = d->conns; c != NULL; c = c->next)
        prefer(c);
    if (region != 0)
        (void)need(d, region);
}

void
derp_send(struct derp *d, uint16_t region, const uint8_t to[32],
    const uint8_t *msg, size_t len)
{
    struct conn *c = need(d, region);
    uint8_t *frame, *old;

    if (c == NULL || len > DERP_PACKET_MAX) {
        d->count.drop_region += c == NULL;
        d->count.drop_size += c != NULL;
        return;
    }
    frame = malloc(DERP_HEADER_LEN + DERP_KEY_LEN + len);
    if (frame == NULL) {
        d->count.drop_memory++;
        return;
    }
    derp_header(frame, DERP_SEND_PACKET, DERP_KEY_LEN + len);
    memcpy(frame + DERP_HEADER_LEN, to, DERP_KEY_LEN);
    memcpy(frame + DERP_HEADER_LEN + DERP_KEY_LEN, msg, len);
    if (c->bytes >= WRITE_SIZE || c->count == DERP_QUEUE_MAX)
        flush(c);
    if (c->count == DERP_QUEUE_MAX) {
        old = c->queue[c->first];
        c->first = (c->first + 1) % DERP_QUEUE_MAX;
        c->count--;
        c->bytes -= DERP_HEADER_LEN + ((size_t)old[1] << 24 |
                                          (size_t)old[2] << 16 |
                                          (size_t)old[3] << 8 | old[4]);
        free(old);
        d->count.drop_queue++;
    }
    c->queue[(c->first + c->count++) % DERP_QUEUE_MAX] = frame;
    c->bytes += DERP_HEADER_LEN + DERP_KEY_LEN + len;
    c->written = loop_now();
}

void
derp_flush(struct derp *d)
{
    struct conn *c;

    for (c = d->conns; c != NULL; c = c->next)
        if (c->count > 0)
            flush(c);
}

bool
derp_up(const struct derp *d, uint16_t region)
{
    const struct conn *c = find(d, region);

    return c != NULL && c->state == UP;
}

uint64_t
derp_heard(const struct derp *d, uint16_t region)
{
    const struct conn *c = find(d, region);

    return c == NULL || c->state != UP ? 0 : c->heard;
}

void
derp_check(struct derp *d, const struct tn_addr *addrs, size_t n)
{
    struct tn_endpoint e;
    struct conn *c;
    size_t i;

    for (c = d->conns; c != NULL; c = c->next) {
        if (c->state == WAITING) {
            set_timer(c, 0); /* another network: worth a try */
            continue;
        }
        if (c->stream == NULL || !stream_local(c->stream, &e) ||
            e.addr.b[12] == 127)
            continue;
        for (i = 0; i < n && !tn_addr_equal(&addrs[i], &e.addr); i++)
            ;
        if (i == n)
            fail(c, "this machine does not have the connection's address any "
                    "more");
    }
}

const struct derp_counters *
derp_counters(const struct derp *d)
{
    return &d->count;
}

size_t
derp_status(const struct derp *d, struct derp_status out[DERP_CONNS_MAX])
{
    const struct conn *c;
    size_t n = 0;

    for (c = d->conns; c != NULL && n < DERP_CONNS_MAX; c = c->next)
        out[n++] = (struct derp_status){
            c->region, state_names[c->state], c->health, c->error};
    return n;
}

/* links: tailnetd/magic/path.c core/tn_addr.c */
/*
 * Two paths, one at each end of a simulated network, with a virtual clock:
 * hosts with and without NAT, a relay, links that can be cut.
 */
#include "magic_kit.h"

#include "../../ngx_tailnet_module/tailnetd/magic/path.h"

#define MS      1000ull
#define HOSTS   2
#define EVENTS  4096
#define FLOWS   64
#define RELAY_1 (20 * MS) /* one way, by relay */

enum nat { NAT_NONE, NAT_EASY, NAT_HARD };
enum kind { PING, PONG, CALL, DATA };

/* A mapping of a NAT: what we sent to ${dst} leaves as ${outside}. */
struct flow {
    struct tn_endpoint dst, outside;
};

struct host {
    struct path *path;
    struct tn_endpoint inside; /* own socket */
    struct tn_addr outside;    /* of its NAT */
    enum nat nat;
    uint16_t next_port;
    struct flow flows[FLOWS];
    unsigned nflows;
    struct tn_endpoint said[4]; /* what its calls carry */
    unsigned nsaid;
    bool talks;   /* sends a packet each 100 ms */
    bool replies; /* to each that comes */
    uint64_t next_send;
    unsigned sent_udp, sent_relay;
    unsigned got_udp, got_relay;
    unsigned calls, pings, changes;
    uint64_t last_got;
};

struct event {
    uint64_t at;
    enum kind kind;
    unsigned to;
    bool relay;
    bool reply;
    struct tn_endpoint src;
    uint8_t txid[12];
    struct tn_endpoint list[4];
    unsigned n;
};

static struct {
    uint64_t now;
    struct host hosts[HOSTS];
    struct event events[EVENTS];
    unsigned nevents;
    uint64_t one_way;
    bool no_udp, no_relay;
    uint32_t seed;
    struct tn_endpoint watched; /* pings there are counted */
    unsigned watched_pings;
} net;

static bool
same(const struct tn_endpoint *a, const struct tn_endpoint *b)
{
    return a->port == b->port && tn_addr_equal(&a->addr, &b->addr);
}

/* The outside of ${h} towards ${dst}, with a mapping made for it. */
static struct tn_endpoint
leave(struct host *h, const struct tn_endpoint *dst)
{
    struct flow *f;
    unsigned i;

    if (h->nat == NAT_NONE)
        return h->inside;
    for (i = 0; i < h->nflows; i++)
        if (same(&h->flows[i].dst, dst))
            return h->flows[i].outside;
    assert_true(h->nflows < FLOWS);
    f = &h->flows[h->nflows++];
    f->dst = *dst;
    f->outside.addr = h->outside;
    f->outside.port = h->nat == NAT_HARD ? h->next_port++ : h->inside.port;
    return f->outside;
}

static bool
arrives(const struct host *h, const struct tn_endpoint *dst,
    const struct tn_endpoint *src)
{
    unsigned i;

    if (h->nat == NAT_NONE)
        return same(dst, &h->inside);
    for (i = 0; i < h->nflows; i++)
        if (same(&h->flows[i].outside, dst) && same(&h->flows[i].dst, src))
            return true;
    return false;
}

static struct event *
queue(enum kind kind, unsigned to, uint64_t delay)
{
    struct event *e = &net.events[net.nevents++];

    assert_true(net.nevents < EVENTS);
    *e = (struct event){.at = net.now + delay, .kind = kind, .to = to};
    return e;
}

/* NULL: it is lost. */
static struct event *
udp(unsigned from, const struct tn_endpoint *dst, enum kind kind,
    const uint8_t *txid)
{
    struct tn_endpoint src = leave(&net.hosts[from], dst);
    unsigned to = 1 - from;
    struct event *e;

    if (net.no_udp || !arrives(&net.hosts[to], dst, &src))
        return NULL;
    e = queue(kind, to, net.one_way);
    e->src = src;
    if (txid != NULL)
        memcpy(e->txid, txid, 12);
    return e;
}

static unsigned
who(void *ctx)
{
    return (unsigned)((struct host *)ctx - net.hosts);
}

static bool
op_ping(void *ctx, const struct tn_endpoint *to, const uint8_t txid[12])
{
    net.hosts[who(ctx)].pings++;
    if (same(to, &net.watched))
        net.watched_pings++;
    (void)udp(who(ctx), to, PING, txid);
    return true;
}

static void
op_call(void *ctx)
{
    struct host *h = ctx;
    struct event *e;

    h->calls++;
    if (net.no_relay)
        return;
    e = queue(CALL, 1 - who(ctx), 2 * RELAY_1);
    e->n = h->nsaid;
    memcpy(e->list, h->said, sizeof(e->list));
}

static void
op_random(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    kit_fill(&net.seed, buf, len);
}

static void
op_changed(void *ctx)
{
    ((struct host *)ctx)->changes++;
}

static const struct path_ops ops = {op_ping, op_call, op_random, op_changed};

static void send_data(unsigned from, bool reply);

static void
deliver(const struct event *e)
{
    struct host *h = &net.hosts[e->to];

    switch (e->kind) {
    case PING:
        if (path_pinged(h->path, &e->src, e->txid, net.now))
            (void)udp(e->to, &e->src, PONG, e->txid);
        break;
    case PONG:
        (void)path_pong(h->path, e->txid, net.now);
        break;
    case CALL:
        path_call(h->path, e->list, e->n, net.now);
        break;
    case DATA:
        if (e->relay)
            h->got_relay++;
        else
            h->got_udp++;
        h->last_got = net.now;
        if (!e->relay)
            path_heard(h->path, &e->src);
        if (h->replies && !e->reply)
            send_data(e->to, true);
        break;
    }
}

static void
send_data(unsigned from, bool reply)
{
    struct host *h = &net.hosts[from];
    struct path_route r = path_send(h->path, net.now);
    struct event *e;

    if (r.udp.port != 0) {
        h->sent_udp++;
        e = udp(from, &r.udp, DATA, NULL);
        if (e != NULL)
            e->reply = reply;
    }
    if (r.relay) {
        h->sent_relay++;
        if (net.no_relay)
            return;
        e = queue(DATA, 1 - from, 2 * RELAY_1);
        e->relay = true;
        e->reply = reply;
    }
}

static void
run(uint64_t duration)
{
    uint64_t end = net.now + duration, at;
    unsigned i, k;

    for (;;) {
        struct event e;

        at = end;
        for (k = 0; k < HOSTS; k++) {
            uint64_t d = path_deadline(net.hosts[k].path);

            at = d < at ? d : at;
            if (net.hosts[k].talks && net.hosts[k].next_send < at)
                at = net.hosts[k].next_send;
        }
        for (i = 0; i < net.nevents; i++)
            at = net.events[i].at < at ? net.events[i].at : at;
        if (at > net.now)
            net.now = at;
        if (net.now >= end)
            return;
        for (i = 0; i < net.nevents;) {
            if (net.events[i].at > net.now) {
                i++;
                continue;
            }
            e = net.events[i];
            net.events[i] = net.events[--net.nevents];
            deliver(&e);
        }
        for (k = 0; k < HOSTS; k++) {
            if (path_deadline(net.hosts[k].path) <= net.now)
                path_tick(net.hosts[k].path, net.now);
            if (net.hosts[k].talks && net.hosts[k].next_send <= net.now) {
                net.hosts[k].next_send = net.now + 100 * MS;
                send_data(k, false);
            }
        }
    }
}

static void
talk(unsigned who_talks, bool on)
{
    net.hosts[who_talks].talks = on;
    net.hosts[who_talks].next_send = net.now;
}

/* Each host's own address is ${inside}; a NAT has ${outside}. */
static void
host(unsigned k, enum nat nat, const char *inside, const char *outside)
{
    struct host *h = &net.hosts[k];

    h->nat = nat;
    h->inside = kit_endpoint(inside);
    h->next_port = 40000;
    h->path = path_new(&ops, h);
    assert_non_null(h->path);
    h->said[h->nsaid++] = h->inside;
    if (outside != NULL) {
        struct tn_endpoint stun = kit_endpoint("203.0.113.99:3478");

        h->outside = kit_addr(outside);
        h->said[h->nsaid++] = leave(h, &stun);
    }
}

/* What the control server tells each of the other. */
static void
introduce(void)
{
    unsigned k;

    for (k = 0; k < HOSTS; k++)
        path_netmap(net.hosts[k].path, net.hosts[1 - k].said,
            net.hosts[1 - k].nsaid, net.now);
}

static int
setup(void **state)
{
    (void)state;
    memset(&net, 0, sizeof(net));
    net.now = 1000 * PATH_S;
    net.one_way = 5 * MS;
    net.seed = 1;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    path_free(net.hosts[0].path);
    path_free(net.hosts[1].path);
    return 0;
}

static enum path_state
state_of(unsigned k)
{
    return path_state(net.hosts[k].path);
}

static void
best_is(unsigned k, const char *text)
{
    struct tn_endpoint e = path_best(net.hosts[k].path);

    kit_is(&e, text);
}

static void
one_lan(void **state)
{
    (void)state;
    host(0, NAT_NONE, "192.168.1.1:41641", NULL);
    host(1, NAT_NONE, "192.168.1.2:41641", NULL);
    net.hosts[1].replies = true;
    introduce();
    assert_int_equal(state_of(0), PATH_IDLE);
    run(60 * PATH_S);
    assert_int_equal(net.hosts[0].pings, 0); /* nobody talks */
    talk(0, true);
    run(1 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    best_is(0, "192.168.1.2:41641");
    /* Only what was sent before the pong went by relay. */
    assert_in_range(net.hosts[0].sent_relay, 1, 2);
    assert_int_equal(path_latency(net.hosts[0].path), 10 * MS);
    run(300 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    assert_in_range(net.hosts[0].sent_relay, 1, 2);
    /* A heartbeat each 3 s, and one look for better each minute. */
    assert_in_range(net.hosts[0].pings, 95, 112);
    assert_int_equal(net.hosts[0].changes, 2); /* relay, direct */

    talk(0, false);
    run(120 * PATH_S);
    assert_int_equal(state_of(0), PATH_IDLE);
    net.hosts[0].pings = 0;
    run(600 * PATH_S);
    assert_int_equal(net.hosts[0].pings, 0);
    assert_true(path_stale(net.hosts[0].path, net.now));
    assert_int_equal(path_deadline(net.hosts[0].path), UINT64_MAX);
}

/* Both behind a NAT that uses one outside port: direct by punching. */
static void
two_easy_nats(void **state)
{
    (void)state;
    host(0, NAT_EASY, "192.168.1.2:41641", "198.51.100.1");
    host(1, NAT_EASY, "10.0.0.2:41641", "198.51.100.2");
    introduce();
    talk(0, true);
    run(1 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    best_is(0, "198.51.100.2:41641");
    assert_int_equal(net.hosts[0].calls, 1);
    talk(1, true);
    run(1 * PATH_S);
    assert_int_equal(state_of(1), PATH_DIRECT);
    best_is(1, "198.51.100.1:41641");
}

/* A port for each destination on one side: the other learns it from a ping. */
static void
hard_and_none(void **state)
{
    (void)state;
    host(0, NAT_HARD, "192.168.1.2:41641", "198.51.100.1");
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    introduce();
    talk(1, true);
    run(2 * PATH_S);
    assert_int_equal(state_of(1), PATH_DIRECT);
    best_is(1, "198.51.100.1:40001");
    talk(0, true);
    run(1 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
}

/* On both sides: by relay, and it stays usable. */
static void
two_hard_nats(void **state)
{
    struct host *h = net.hosts;

    (void)state;
    host(0, NAT_HARD, "192.168.1.2:41641", "198.51.100.1");
    host(1, NAT_HARD, "10.0.0.2:41641", "198.51.100.2");
    introduce();
    talk(0, true);
    talk(1, true);
    run(120 * PATH_S);
    assert_int_equal(state_of(0), PATH_RELAY);
    assert_int_equal(state_of(1), PATH_RELAY);
    assert_in_range(h[1].got_relay, 1190, 1201);
    /* Pings and calls go on, but not at each packet. */
    assert_in_range(h[0].calls, 10, 30);
    assert_in_range(h[0].pings, 40, 400);
}

static void
udp_blocked_then_not(void **state)
{
    struct host *h = net.hosts;

    (void)state;
    host(0, NAT_EASY, "192.168.1.2:41641", "198.51.100.1");
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    introduce();
    net.no_udp = true;
    talk(0, true);
    run(60 * PATH_S);
    assert_int_equal(state_of(0), PATH_RELAY);
    assert_in_range(h[1].got_relay, 590, 601);
    net.no_udp = false;
    run(10 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    /* And back: no longer than doubt takes without a packet. */
    net.no_udp = true;
    run(PATH_QUIET + PATH_LATE + 200 * MS);
    assert_int_equal(state_of(0), PATH_DOUBT);
    assert_true(net.now - h[1].last_got < 200 * MS);
    run(10 * PATH_S);
    assert_int_equal(state_of(0), PATH_RELAY);
    net.no_udp = false;
    run(10 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
}

/* What has no echo is asked about, and what is asked and not answered is
 * doubted; neither is, when both are lost for a moment. */
static void
silence(void **state)
{
    static const struct {
        uint64_t lost_for, one_way;
        bool replies, doubts;
        unsigned pings[2]; /* in 30 s */
    } table[] = {
        {0, 5 * MS, true, false, {8, 12}},   /* the heartbeat */
        {0, 5 * MS, false, false, {25, 32}}, /* and one a second */
        {0, PATH_S, true, false, {8, 30}},   /* far away */
        {PATH_S, 5 * MS, true, false, {9, 15}},
        {PATH_QUIET + PATH_LATE + 50 * MS, 5 * MS, true, true, {9, 20}},
    };
    struct host *h = net.hosts;
    unsigned relayed;
    size_t i;

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        teardown(state);
        setup(state);
        net.one_way = table[i].one_way;
        host(0, NAT_NONE, "198.51.100.1:41641", NULL);
        host(1, NAT_NONE, "198.51.100.2:41641", NULL);
        h[1].replies = table[i].replies;
        introduce();
        talk(0, true);
        run(10 * PATH_S);
        assert_int_equal(state_of(0), PATH_DIRECT);
        relayed = h[0].sent_relay;
        h[0].pings = 0;
        net.no_udp = table[i].lost_for != 0;
        run(table[i].lost_for);
        net.no_udp = false;
        run(30 * PATH_S - table[i].lost_for);
        assert_int_equal(state_of(0), PATH_DIRECT);
        if ((h[0].sent_relay > relayed) != table[i].doubts ||
            h[0].pings < table[i].pings[0] || h[0].pings > table[i].pings[1])
            fail_msg("row %zu: %u by relay, %u pings", i,
                h[0].sent_relay - relayed, h[0].pings);
    }
}

static void
relay_down_and_back(void **state)
{
    (void)state;
    host(0, NAT_EASY, "192.168.1.2:41641", "198.51.100.1");
    host(1, NAT_EASY, "10.0.0.2:41641", "198.51.100.2");
    introduce();
    net.no_relay = true;
    talk(0, true);
    run(30 * PATH_S);
    /* Nobody tells the other to send: its NAT lets nothing in. */
    assert_int_equal(state_of(0), PATH_RELAY);
    net.no_relay = false;
    run(10 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    /* Direct does not need the relay. */
    net.no_relay = true;
    run(60 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
}

static void
address_changes(void **state)
{
    struct host *h = net.hosts;

    (void)state;
    host(0, NAT_NONE, "198.51.100.1:41641", NULL);
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    introduce();
    talk(0, true);
    talk(1, true);
    run(5 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    /* The other end has a new address, and sees that: its pings come from
     * there, and its call makes us ask the old one, which is doubted soon. */
    h[1].inside = h[1].said[0] = kit_endpoint("198.51.100.77:41641");
    path_distrust(h[1].path, net.now);
    run(2 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    best_is(0, "198.51.100.77:41641");
    assert_true(net.now - h[1].last_got < 200 * MS);
    /* The control server tells, and what was before is dropped. */
    introduce();
    assert_int_equal(path_candidates(h[0].path), 1);
}

static void
nearer_address_wins(void **state)
{
    struct tn_endpoint list[2] = {
        kit_endpoint("198.51.100.2:41641"), kit_endpoint("192.168.1.2:41641")};
    uint8_t txid[12];
    uint32_t seed;

    (void)state;
    host(0, NAT_NONE, "192.168.1.1:41641", NULL);
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    path_netmap(net.hosts[0].path, list, 2, net.now);
    seed = net.seed;
    send_data(0, false);
    /* The public one answers first, the private one a little later: a private
     * address is worth 20 percent. */
    net.no_udp = true;
    run(3 * MS);
    kit_fill(&seed, txid, 12);
    assert_true(path_pong(net.hosts[0].path, txid, net.now));
    best_is(0, "198.51.100.2:41641");
    kit_fill(&seed, txid, 12);
    assert_true(path_pong(net.hosts[0].path, txid, net.now + 100));
    best_is(0, "192.168.1.2:41641");
    /* No pong counts twice. */
    assert_false(path_pong(net.hosts[0].path, txid, net.now + 100));
}

static void
better(void **state)
{
    static const struct {
        const char *a;
        uint32_t a_us;
        const char *b;
        uint32_t b_us;
        bool want;
    } table[] = {
        {"1.2.3.4:1", 10000, "1.2.3.4:1", 20000, false}, /* the same */
        {"1.2.3.4:1", 10000, "1.2.3.5:1", 20000, true},
        {"1.2.3.4:1", 20000, "1.2.3.5:1", 10000, false},
        {"1.2.3.4:1", 9500, "1.2.3.5:1", 10000, false}, /* hardly */
        {"1.2.3.4:1", 10000, "1.2.3.5:1", 9500, false},
        {"1.2.3.4:1", 8500, "1.2.3.5:1", 10000, true},
        {"1.2.3.4:1", 0, "1.2.3.5:1", 0, false},
        {"10.2.3.4:1", 10000, "1.2.3.5:1", 10000, true},
        {"10.2.3.4:1", 11000, "1.2.3.5:1", 10000, true},
        {"10.2.3.4:1", 20000, "1.2.3.5:1", 10000, false},
        {"1.2.3.5:1", 10000, "10.2.3.4:1", 11000, false},
        {"127.0.0.1:1", 10000, "10.2.3.4:1", 10000, true},
        {"[2001:db8::1]:1", 10000, "1.2.3.4:1", 10000, true},
        {"1.2.3.4:1", 10000, "[2001:db8::1]:1", 10500, false},
        {"[fd00::1]:1", 10000, "10.0.0.1:1", 10000, true},
        {"169.254.1.1:1", 10000, "10.0.0.1:1", 10000, true},
        {"[::1]:1", 10000, "127.0.0.1:1", 10000, true},
    };
    struct tn_endpoint a, b, none = {0};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        a = kit_endpoint(table[i].a);
        b = kit_endpoint(table[i].b);
        if (path_better(&a, table[i].a_us, &b, table[i].b_us) != table[i].want)
            fail_msg("row %zu", i);
    }
    a = kit_endpoint("1.2.3.4:1");
    assert_true(path_better(&a, 1000000, &none, 0));
    assert_false(path_better(&none, 0, &a, 1000000));
}

/* The same ping again at a known address gets no second pong. */
static void
pings_are_answered_once(void **state)
{
    struct tn_endpoint src = kit_endpoint("198.51.100.2:1"),
                       other = kit_endpoint("198.51.100.3:1");
    uint8_t txid[12] = {1};

    (void)state;
    host(0, NAT_NONE, "198.51.100.1:41641", NULL);
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    assert_true(path_pinged(net.hosts[0].path, &src, txid, net.now));
    assert_false(path_pinged(net.hosts[0].path, &src, txid, net.now));
    assert_true(path_pinged(net.hosts[0].path, &other, txid, net.now));
    txid[0] = 2;
    assert_true(path_pinged(net.hosts[0].path, &src, txid, net.now));
    /* By itself it makes us send nothing. */
    assert_int_equal(net.hosts[0].pings, 0);
    assert_int_equal(path_candidates(net.hosts[0].path), 2);
}

/* A recorded ping, again and again from where its sender never was: whoever is
 * there gets a pong and a ping for each, however long the path is without a
 * direct way; and an address that fell silent is given up all the same. */
static void
replayed_pings(void **state)
{
    struct tn_endpoint victim = kit_endpoint("203.0.113.9:53"), at;
    struct host *h = net.hosts;
    uint8_t txid[12] = {1};
    unsigned i, n;

    (void)state;
    net.watched = victim;
    host(0, NAT_HARD, "10.0.0.1:41641", "198.51.100.1");
    host(1, NAT_HARD, "10.0.1.1:41641", "198.51.100.2");
    introduce();
    talk(0, true);
    talk(1, true);
    run(10 * PATH_S);
    assert_int_equal(state_of(0), PATH_RELAY);
    for (n = 1; n <= 3; n++) {
        txid[0] = (uint8_t)n;
        assert_true(path_pinged(h[0].path, &victim, txid, net.now));
        for (i = 0; i < 10; i++)
            assert_false(path_pinged(h[0].path, &victim, txid, net.now));
        run(60 * PATH_S);
        assert_int_equal(net.watched_pings, n);
    }
    assert_true(h[0].calls > 30 && h[1].calls > 30); /* nor by calls */

    teardown(state);
    setup(state);
    host(0, NAT_NONE, "198.51.100.1:41641", NULL);
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    introduce();
    talk(0, true);
    run(10 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    at = path_best(h[0].path);
    net.no_udp = true;
    for (i = 0; i < 70; i++) {
        txid[0]++;
        (void)path_pinged(h[0].path, &at, txid, net.now);
        run(PATH_TRUST / 70 + 1);
    }
    assert_int_not_equal(state_of(0), PATH_DIRECT);
}

static void
candidates_are_bounded(void **state)
{
    struct tn_endpoint src = kit_endpoint("198.51.100.2:1"), said, best;
    struct path *p;
    uint8_t txid[12] = {0};
    unsigned i;

    (void)state;
    host(0, NAT_NONE, "198.51.100.1:41641", NULL);
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    introduce();
    talk(0, true);
    run(1 * PATH_S);
    p = net.hosts[0].path;
    said = net.hosts[1].inside;
    for (i = 1; i <= 1000; i++) {
        src.port = (uint16_t)i;
        txid[0] = (uint8_t)i;
        txid[1] = (uint8_t)(i >> 8);
        net.now++;
        (void)path_pinged(p, &src, txid, net.now);
        assert_true(path_candidates(p) <= PATH_CANDIDATES_MAX);
    }
    assert_int_equal(path_candidates(p), PATH_CANDIDATES_MAX);
    /* What the control server said, and what works, is not pushed out. */
    best = path_best(p);
    assert_true(same(&best, &said));
    path_netmap(p, &said, 1, net.now);
    run(60 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    /* Nor do calls without end cost more than they may. */
    net.hosts[0].pings = 0;
    for (i = 0; i < 1000; i++) {
        net.now += 1 * MS;
        path_call(p, &said, 1, net.now);
    }
    assert_in_range(net.hosts[0].pings, 4, 5 * PATH_CANDIDATES_MAX);
}

static void
resumes(void **state)
{
    struct tn_endpoint at = kit_endpoint("198.51.100.2:41641");
    struct path_route r;

    (void)state;
    host(0, NAT_NONE, "198.51.100.1:41641", NULL);
    host(1, NAT_NONE, "198.51.100.2:41641", NULL);
    path_resume(net.hosts[0].path, &at);
    r = path_send(net.hosts[0].path, net.now);
    assert_true(same(&r.udp, &at));
    assert_true(r.relay);
    assert_int_equal(state_of(0), PATH_DOUBT);
    run(1 * PATH_S);
    assert_int_equal(state_of(0), PATH_DIRECT);
    path_forget(net.hosts[0].path);
    assert_int_equal(path_best(net.hosts[0].path).port, 0);
    assert_int_equal(path_candidates(net.hosts[0].path), 0);
    assert_int_equal(state_of(0), PATH_RELAY);
}

int
main(void)
{
#define ROW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(one_lan),
        ROW(two_easy_nats),
        ROW(hard_and_none),
        ROW(two_hard_nats),
        ROW(udp_blocked_then_not),
        ROW(silence),
        ROW(relay_down_and_back),
        ROW(address_changes),
        ROW(nearer_address_wins),
        ROW(pings_are_answered_once),
        ROW(replayed_pings),
        ROW(candidates_are_bounded),
        ROW(resumes),
        cmocka_unit_test(better),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

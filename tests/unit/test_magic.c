/* links: tailnetd/magic/magic.c tailnetd/magic/talk.c tailnetd/magic/path.c */
/* links: tailnetd/magic/disco.c tailnetd/magic/stun.c core/tn_addr.c */
/* links: tailnetd/magic/netcheck.c tailnetd/magic/endpoints.c */
/* links: tailnetd/magic/resolve.c tailnetd/crypto/box.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/say.c */
/* libs: -lsodium */
/* Two nodes in a network of the test's own; see magic_net.h. */
#include "magic_net.h"

static void
learns_its_network(void **state)
{
    const struct message_netinfo *n;
    const struct message_endpoint *list;
    size_t count;

    (void)state;
    magic_map(net.a.magic, &one_region);
    /* Home without measuring, told at once. */
    assert_int_equal(net.a.home, 1);
    assert_int_equal(magic_derp(net.a.magic)->home, 1);
    assert_int_equal(net.a.announced, 1);
    sleep_ms(100);
    assert_int_equal(net.a.announced, 2);
    n = magic_netinfo(net.a.magic);
    assert_int_equal(n->preferred_derp, 1);
    assert_int_equal(n->working_udp, 1);
    assert_int_equal(n->working_ipv6, 0);
    assert_int_equal(n->os_ipv6, 1);
    assert_int_equal(n->nlatency, 1);
    list = magic_endpoints(net.a.magic, &count);
    assert_int_equal(count, 2);
    kit_is(&list[0].at, "192.0.2.1:50000");
    assert_int_equal(list[0].type, MESSAGE_STUN);
    kit_is(&list[1].at, "192.168.1.2:41641");
    assert_int_equal(list[1].type, MESSAGE_LOCAL);
    /* Nothing changes: nothing is told.  Nobody talks: hardly anybody asked. */
    sleep_ms(1000000);
    assert_int_equal(net.a.announced, 2);
    assert_in_range(magic_counters(net.a.magic)->stun, 2, 12);
    assert_int_equal(magic_talks(net.a.magic), 0);
}

static void
names_are_resolved(void **state)
{
    (void)state;
    magic_map(net.a.magic, &named_region);
    sleep_ms(1000);
    assert_true(net.lookups >= 1);
    assert_int_equal(magic_netinfo(net.a.magic)->working_udp, 1);
}

/* A machine that starts with a netmap it has kept, before names resolve. */
static void
names_are_late(void **state)
{
    struct netmap_region list[2] = {regions[1], regions[1]};
    struct netmap_derp named = {.regions = list, .nregions = 2};

    (void)state;
    list[0].id = 1;
    net.no_dns = true;
    magic_map(net.a.magic, &named);
    sleep_ms(12000);
    assert_int_equal(net.a.home, 0);
    net.no_dns = false;
    sleep_ms(50000);
    assert_int_not_equal(net.a.home, 0);
    assert_int_equal(magic_netinfo(net.a.magic)->working_udp, 1);
    magic_map(net.a.magic, NULL);
}

static void
blocked_from_the_start(void **state)
{
    (void)state;
    net.no_udp = true;
    magic_map(net.a.magic, &two_regions);
    sleep_ms(5000);
    assert_int_equal(magic_netinfo(net.a.magic)->working_udp, 0);
    assert_true(net.a.home == 1 || net.a.home == 2); /* some home it has */
    assert_int_equal(magic_netinfo(net.a.magic)->preferred_derp, net.a.home);
}

/* Where UDP does not pass, home is what HTTPS says is near. */
static void
measured_by_https(void **state)
{
    const struct message_netinfo *n;
    struct derp *d = magic_derp(net.a.magic);

    (void)state;
    net.no_udp = net.https = true;
    magic_map(net.a.magic, &two_regions);
    sleep_ms(3100);
    assert_int_equal(net.probes, 1);
    assert_int_equal(net.a.home, 0); /* it will be known */
    sleep_ms(900);
    assert_int_equal(net.a.home, 2);
    n = magic_netinfo(net.a.magic);
    assert_int_equal(n->preferred_derp, 2);
    assert_int_equal(n->working_udp, 0);
    assert_int_equal(n->nlatency, 2);
    assert_true(n->latency[1].region == 2 && n->latency[1].seconds == 0.009);
    /* Its relay dies. */
    sleep_ms(60000);
    net.relay_down = true;
    d->is.ops->changed(d->is.ctx, 2, false);
    sleep_ms(5000);
    assert_int_equal(net.a.home, 1);
    sleep_ms(60000);
    assert_int_equal(net.a.home, 1);
    net.relay_down = false;
    net.probes = 1;
    /* Seldom again; and not when UDP passes. */
    sleep_ms(1000000);
    assert_in_range(net.probes, 3, 5);
    net.no_udp = false;
    sleep_ms(400000);
    net.probes = 0;
    sleep_ms(1000000);
    assert_int_equal(net.probes, 0);
}

static void
finds_the_peer(void **state)
{
    struct magic_way way;

    (void)state;
    maps(&one_region);
    sleep_ms(100);
    assert_true(send_wg(&net.a));
    sleep_ms(15);
    assert_int_equal(net.b.wireguard, 1);
    kit_is(&net.b.from, "127.3.3.40:1");
    sleep_ms(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    kit_is(&net.a.moved, "192.0.2.2:41641");
    way = magic_way(net.a.magic, &net.a.peer);
    kit_is(&way.at, "192.0.2.2:41641");
    assert_int_equal(way.region, 1);
    assert_int_equal(way.latency_us, 2 * UDP_MS * 1000);
    assert_true(send_wg(&net.a));
    sleep_ms(5);
    assert_int_equal(net.b.wireguard, 2);
    kit_is(&net.b.from, "192.0.2.1:41641");
    /* It was called, so it looked as well. */
    kit_is(&net.b.moved, "192.0.2.1:41641");
    talk(1000);
    assert_int_equal(state_of(&net.b), PATH_DIRECT);
}

/* A ping of the caller's goes where packets go, and its answer to him. */
static void
pings(void **state)
{
    uint64_t late;

    (void)state;
    maps(&one_region);
    sleep_ms(100);
    memset(net.a.txid, 0x70, sizeof(net.a.txid));
    net.a.pinged = true;
    assert_true(magic_ping(net.a.magic, &net.a.peer, net.a.txid));
    sleep_ms(50);
    assert_false(net.a.pinged);
    kit_is(&net.a.pong, "127.3.3.40:1");
    sleep_ms(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    net.a.txid[0]++;
    net.a.pinged = true;
    assert_true(magic_ping(net.a.magic, &net.a.peer, net.a.txid));
    sleep_ms(50);
    assert_false(net.a.pinged);
    kit_is(&net.a.pong, "192.0.2.2:41641");
    late = magic_counters(net.a.magic)->drop_pong_late;
    assert_int_equal(late, 0);
}

/* Once after a new key, when its home's relay is there again. */
static void
tells_of_its_new_key(void **state)
{
    struct derp *d = magic_derp(net.a.magic);
    uint8_t key[32] = {1};

    (void)state;
    maps(&two_regions);
    sleep_ms(5000);
    assert_int_not_equal(net.a.home, 0);
    d->is.ops->changed(d->is.ctx, net.a.home, true);
    assert_int_equal(net.a.rekeyed, 0);
    magic_key(net.a.magic, key);
    d->is.ops->changed(d->is.ctx, net.a.home, false);
    d->is.ops->changed(d->is.ctx, 3 - net.a.home, true);
    assert_int_equal(net.a.rekeyed, 0);
    d->is.ops->changed(d->is.ctx, net.a.home, true);
    assert_int_equal(net.a.rekeyed, 1);
    d->is.ops->changed(d->is.ctx, net.a.home, false);
    d->is.ops->changed(d->is.ctx, net.a.home, true);
    assert_int_equal(net.a.rekeyed, 1);
}

static void
blocked_and_back(void **state)
{
    unsigned before;

    (void)state;
    maps(&one_region);
    net.no_udp = true;
    talk(20000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    kit_is(&net.a.moved, "127.3.3.40:1");
    assert_in_range(net.b.wireguard, 195, 200);
    net.no_udp = false;
    talk(10000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    assert_int_equal(state_of(&net.b), PATH_DIRECT);
    kit_is(&net.a.moved, "192.0.2.2:41641");
    net.no_udp = true;
    talk(20000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    /* The relay goes as well; and comes back. */
    net.relay_down = true;
    before = net.b.wireguard;
    talk(5000);
    assert_int_equal(net.b.wireguard, before);
    net.relay_down = false;
    talk(1000);
    assert_in_range(net.b.wireguard - before, 9, 11);
}

/* However many packets go, what is to be done in time is done. */
static void
timers_under_traffic(void **state)
{
    static const unsigned every[] = {1, 2, 5, 10};
    unsigned k, ms, stun;
    uint64_t pings;

    for (k = 0; k < sizeof(every) / sizeof(every[0]); k++) {
        (void)teardown(state);
        (void)setup(state);
        maps(&one_region);
        for (ms = 0; ms < 90000; ms += every[k]) {
            net.no_udp = ms >= 30000 && ms < 60000;
            (void)send_wg(&net.a);
            (void)send_wg(&net.b);
            sleep_ms(every[k]);
            if (ms % 30000 < 15000)
                continue;
            assert_int_equal(
                state_of(&net.a), net.no_udp ? PATH_RELAY : PATH_DIRECT);
            assert_int_equal(
                state_of(&net.b), net.no_udp ? PATH_RELAY : PATH_DIRECT);
        }
        pings = magic_counters(net.a.magic)->pings_sent;
        stun = (unsigned)magic_counters(net.a.magic)->stun;
        if (pings < 25 || pings > 80 || stun < 3)
            fail_msg("each %u ms: %u pings, %u STUN", every[k], (unsigned)pings,
                stun);
    }
}

/* Whose relay is gone looks for another home at once, also when nobody talks,
 * and stays where its servers still answer. */
static void
home_is_lost(void **state)
{
    static struct netmap_relay there;
    static struct netmap_region both[2];
    struct netmap_derp map = {.regions = both, .nregions = 2};
    struct derp *d = magic_derp(net.a.magic);
    uint64_t stun;

    (void)state;
    memcpy(both, regions, sizeof(both));
    there = relays[0];
    there.ipv4 = s_stun2;
    both[1].relays = &there;
    net.stun_dead = 2;
    magic_map(net.a.magic, &map);
    sleep_ms(60000);
    assert_int_equal(net.a.home, 1);
    net.stun_dead = 0;
    d->is.ops->changed(d->is.ctx, 1, false);
    sleep_ms(6000);
    assert_int_equal(net.a.home, 1);
    sleep_ms(10000);
    net.stun_dead = 1;
    net.relay_down = true;
    d->is.ops->changed(d->is.ctx, 1, false);
    sleep_ms(5000);
    assert_int_equal(net.a.home, 2);
    assert_int_equal(magic_netinfo(net.a.magic)->preferred_derp, 2);
    /* One that comes and goes is no reason to ask all the time. */
    stun = magic_counters(net.a.magic)->stun;
    for (unsigned i = 0; i < 1000; i++) {
        d->is.ops->changed(d->is.ctx, 2, false);
        sleep_ms(20);
    }
    assert_in_range(magic_counters(net.a.magic)->stun - stun, 3, 12);
    magic_map(net.a.magic, NULL);
}

static void
silence_frees(void **state)
{
    (void)state;
    maps(&one_region);
    sleep_ms(100);
    (void)send_wg(&net.a);
    sleep_ms(1000);
    assert_int_equal(magic_talks(net.a.magic), 1);
    assert_int_equal(magic_talks(net.b.magic), 1);
    sleep_ms(1200000);
    assert_int_equal(magic_talks(net.a.magic), 0);
    assert_int_equal(magic_talks(net.b.magic), 0);
    assert_null(net.a.peer.talk);
    talk(2000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
}

static void
resumes(void **state)
{
    struct tn_endpoint at = net.b.at, none = {0}, odd = derp_endpoint(2);

    (void)state;
    magic_peer_resume(net.a.magic, &net.a.peer, &odd, 0);
    assert_int_equal(magic_way(net.a.magic, &net.a.peer).at.port, 0);
    net.a.home = 2; /* of the engine before */
    magic_map(net.a.magic, &two_regions);
    assert_int_equal(magic_derp(net.a.magic)->home, 2);
    magic_map(net.b.magic, &two_regions);
    magic_peer_resume(net.a.magic, &net.a.peer, &at, 0);
    assert_true(send_wg(&net.a));
    sleep_ms(5);
    assert_int_equal(net.b.wireguard, 1);
    kit_is(&net.b.from, "192.0.2.1:41641");
    sleep_ms(100);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* By relay, at a region that the netmap does not say. */
    net.b.row.home_derp = 0;
    magic_peer_set(net.b.magic, &net.b.peer, &net.b.row);
    magic_peer_resume(net.b.magic, &net.b.peer, &none, 2);
    assert_int_equal(magic_way(net.b.magic, &net.b.peer).region, 2);
}

static void
peer_changes(void **state)
{
    uint8_t fresh[32];

    (void)state;
    maps(&one_region);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* Another disco key: b began anew.  Until a is told it knows nobody. */
    magic_free(net.b.magic);
    memset(net.b.disco, 0, 32);
    memset(&net.b.peer, 0, sizeof(net.b.peer));
    make_side(&net.b, 16, "192.0.2.2:41641");
    know(&net.b, &net.a);
    magic_map(net.b.magic, &one_region);
    talk(20000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    assert_true(magic_counters(net.a.magic)->drop_disco_unknown > 0);
    memcpy(fresh, magic_disco(net.b.magic), 32);
    /* Its own word, through the tunnel; a netmap without news changes that
     * not. */
    magic_peer_disco(net.a.magic, &net.a.peer, fresh);
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    talk(10000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* The control server has news. */
    memcpy(net.a.row.disco, fresh, 32);
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    /* It is gone. */
    magic_peer_clear(net.a.magic, &net.a.peer);
    assert_int_equal(magic_talks(net.a.magic), 0);
    know(&net.a, &net.b);
}

static void
peers_without_disco(void **state)
{
    static const uint8_t msg[32] = {4};
    struct tn_endpoint odd;
    uint64_t dropped;

    (void)state;
    maps(&one_region);
    net.a.row.has_disco = false;
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    talk(3000);
    assert_int_equal(state_of(&net.a), PATH_RELAY);
    kit_is(&net.a.moved, "127.3.3.40:1");
    assert_int_equal(magic_counters(net.a.magic)->pings_sent, 0);
    /* Neither disco nor home: nowhere to send. */
    net.a.row.home_derp = 0;
    sleep_ms(100000);
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    assert_false(send_wg(&net.a));
    /* Plain WireGuard: to its address. */
    net.a.row.wireguard_only = true;
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    assert_true(
        magic_output(net.a.magic, &net.a.peer, &net.b.at, msg, sizeof(msg)));
    kit_is(&net.a.last_to, "192.0.2.2:41641");
    /* A relay has no such peers. */
    odd = derp_endpoint(1);
    dropped = magic_counters(net.a.magic)->drop_no_path;
    assert_false(
        magic_output(net.a.magic, &net.a.peer, &odd, msg, sizeof(msg)));
    assert_int_equal(magic_counters(net.a.magic)->drop_no_path, dropped + 1);
    kit_is(&net.a.last_to, "192.0.2.2:41641");
}

/* A cookie goes back the way its cause came. */
static void
answers_to_strangers(void **state)
{
    static const uint8_t msg[64] = {3};
    struct tn_endpoint relay = derp_endpoint(1);

    (void)state;
    maps(&one_region);
    assert_true(magic_output(net.a.magic, NULL, &net.b.at, msg, sizeof(msg)));
    kit_is(&net.a.last_to, "192.0.2.2:41641");
    /* By relay only while the message is handled. */
    assert_false(magic_output(net.a.magic, NULL, &relay, msg, sizeof(msg)));
}

static void
network_changes(void **state)
{
    (void)state;
    maps(&one_region);
    talk(2000);
    assert_int_equal(state_of(&net.b), PATH_DIRECT);
    net.link_cb(net.link_arg); /* nothing changed, really */
    assert_int_equal(net.b.networks, 0);
    net.addrs[0] = kit_addr("192.168.7.7");
    net.b.at = kit_endpoint("192.0.2.77:41641");
    net.link_cb(net.link_arg);
    assert_int_equal(net.b.networks, 1);
    assert_int_equal(magic_derp(net.b.magic)->checks, 1);
    /* Pings of another node that hears the same now have other sockets. */
    assert_false(net.b.held);
    talk(8000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    kit_is(&net.a.moved, "192.0.2.77:41641");
}

/* ---- what others may try ---- */

static struct disco_msg
ping_of(const struct side *s)
{
    struct disco_msg m = {.type = DISCO_PING};

    memcpy(m.node_key, s->pub, 32);
    return m;
}

static bool
push(struct side *to, const struct disco_msg *m, const uint8_t disco_priv[32],
    const char *src)
{
    uint8_t shared[32], pub[32], nonce[24] = {1}, out[DISCO_MAX_LEN];
    struct tn_endpoint e = kit_endpoint(src);
    size_t len;

    assert_int_equal(box_shared(shared, magic_disco(to->magic), disco_priv), 0);
    assert_int_equal(box_public(pub, disco_priv), 0);
    len = disco_seal(out, m, shared, pub, nonce);
    return magic_receive(to->magic, out, len, &e);
}

static void
intruders(void **state)
{
    const struct magic_counters *c = magic_counters(net.a.magic);
    uint8_t stranger[32] = {24, [31] = 65}, msg[64] = {0};
    struct tn_endpoint e = kit_endpoint("203.0.113.1:9");
    struct disco_msg m = ping_of(&net.b);
    struct disco_msg call = {.type = DISCO_CALL_ME_MAYBE, .nendpoints = 1};
    uint8_t buf[DISCO_MAX_LEN];
    unsigned i;

    (void)state;
    maps(&one_region);
    sleep_ms(100);
    /* A disco key that is nobody's. */
    assert_true(push(&net.a, &m, stranger, "203.0.113.1:9"));
    assert_int_equal(c->drop_disco_unknown, 1);
    /* b's disco key with another node's. */
    memset(m.node_key, 9, 32);
    assert_true(push(&net.a, &m, net.b.disco, "203.0.113.1:9"));
    assert_int_equal(c->drop_disco_node, 1);
    assert_int_equal(magic_talks(net.a.magic), 0);
    /* A call that did not come by relay. */
    call.endpoints[0] = e;
    assert_true(push(&net.a, &call, net.b.disco, "203.0.113.1:9"));
    assert_int_equal(c->drop_disco_flow, 1);
    /* A pong to no ping. */
    m.type = DISCO_PONG;
    assert_true(push(&net.a, &m, net.b.disco, "203.0.113.1:9"));
    assert_int_equal(c->drop_pong_late, 1);
    /* Whoever sends from a relay's address is not one. */
    m = ping_of(&net.b);
    assert_true(push(&net.a, &m, net.b.disco, "127.3.3.40:1"));
    assert_int_equal(c->drop_spoofed, 1);
    /* No answer goes to port 0. */
    e.port = 0;
    assert_true(magic_receive(net.a.magic, msg, 40, &e));
    assert_int_equal(c->drop_spoofed, 2);
    e.port = 41641;
    /* STUN that nobody asked for, and Geneve. */
    stun_request(msg, stranger);
    msg[0] = 1;
    assert_true(magic_receive(net.a.magic, msg, 40, &e));
    assert_int_equal(c->drop_stun, 1);
    memcpy(msg, "\x00\x80\x7a\x11\x01\x02\x03\x00", 8);
    assert_true(magic_receive(net.a.magic, msg, 40, &e));
    assert_int_equal(c->drop_geneve, 1);
    /* Not authentic. */
    memcpy(buf, net.a.last, net.a.last_len);
    assert_int_equal(c->drop_disco_auth, 0);
    memcpy(buf, "TS\xf0\x9f\x92\xac", 6);
    memcpy(buf + 6, magic_disco(net.b.magic), 32);
    for (i = 0; i < 100; i++)
        assert_true(magic_receive(net.a.magic, buf, 122, &e));
    assert_true(c->drop_disco_auth > 0 && c->drop_disco_flood > 0);
    assert_int_equal(c->drop_disco_auth + c->drop_disco_flood, 100);
    assert_int_equal(magic_talks(net.a.magic), 0);
    /* WireGuard is not kept. */
    memset(msg, 0, sizeof(msg));
    for (i = 1; i < 5; i++) {
        msg[0] = (uint8_t)i;
        assert_false(magic_receive(net.a.magic, msg, 64, &e));
    }
    assert_false(magic_receive(net.a.magic, msg, 0, &e));
}

static void
pongs_are_bounded(void **state)
{
    const struct magic_counters *c = magic_counters(net.a.magic);
    struct disco_msg m = ping_of(&net.b);
    unsigned i;

    (void)state;
    maps(&one_region);
    sleep_ms(1000);
    for (i = 0; i < 100; i++) {
        m.txid[0] = (uint8_t)i;
        assert_true(push(&net.a, &m, net.b.disco, "192.0.2.2:41641"));
    }
    assert_int_equal(c->disco_pings, 100);
    assert_int_equal(c->drop_pong_flood, 100 - MAGIC_PONGS_S);
}

/* Somebody has a ping of the peer, and sends it again and again, each time as
 * if from elsewhere: the path holds. */
static void
replays_do_not_end_it(void **state)
{
    const struct magic_counters *c = magic_counters(net.a.magic);
    struct disco_msg m = ping_of(&net.b);
    char src[32];
    unsigned i, k;

    (void)state;
    maps(&one_region);
    talk(3000);
    assert_int_equal(state_of(&net.b), PATH_DIRECT);
    for (i = 0; i < 100; i++) {
        for (k = 0; k < 30; k++) {
            snprintf(src, sizeof(src), "203.0.113.%u:%u", k, 1000 + i);
            assert_true(push(&net.a, &m, net.b.disco, src));
        }
        talk(100);
        assert_int_equal(state_of(&net.b), PATH_DIRECT);
        assert_int_equal(state_of(&net.a), PATH_DIRECT);
    }
    assert_true(c->drop_pong_flood > 1000);
}

/* Peers name the places where we look for them, but not a relay's. */
static void
calls_to_nowhere(void **state)
{
    const struct derp_config *relay = &magic_derp(net.a.magic)->is;
    const struct magic_counters *c = magic_counters(net.a.magic);
    struct disco_msg call = {.type = DISCO_CALL_ME_MAYBE, .nendpoints = 1};
    uint8_t shared[32], pub[32], nonce[24] = {1};
    uint8_t out[DISCO_MAX_LEN + DERP_SLACK];
    size_t len;

    (void)state;
    maps(&one_region);
    sleep_ms(100);
    call.endpoints[0] = kit_endpoint("127.3.3.40:1");
    assert_int_equal(
        box_shared(shared, magic_disco(net.a.magic), net.b.disco), 0);
    assert_int_equal(box_public(pub, net.b.disco), 0);
    len = disco_seal(out, &call, shared, pub, nonce);
    net.a.row.nendpoints = 0;
    magic_peer_set(net.a.magic, &net.a.peer, &net.a.row);
    relay->ops->packet(relay->ctx, 1, net.b.pub, out, len);
    assert_int_equal(c->disco_calls, 1);
    assert_int_equal(c->pings_sent, 0);
    call.endpoints[0] = kit_endpoint("203.0.113.77:1");
    sleep_ms(1000);
    len = disco_seal(out, &call, shared, pub, nonce);
    relay->ops->packet(relay->ctx, 1, net.b.pub, out, len);
    assert_int_equal(c->disco_calls, 2);
    assert_int_equal(c->pings_sent, 1);
    kit_is(&net.a.last_to, "203.0.113.77:1");
}

static void
many_peers(void **state)
{
    enum { N = 20000 };
    struct magic_peer *peers = calloc(N, sizeof(*peers));
    struct netmap_node *rows = calloc(N, sizeof(*rows));
    uint32_t seed = 5, i, k;

    (void)state;
    assert_non_null(peers);
    assert_non_null(rows);
    for (i = 0; i < N; i++) {
        rows[i].has_disco = true;
        kit_fill(&seed, rows[i].key, 32);
        /* Some share one disco key. */
        if (i % 10 == 1)
            memcpy(rows[i].disco, rows[i - 1].disco, 32);
        else
            kit_fill(&seed, rows[i].disco, 32);
        magic_peer_set(net.a.magic, &peers[i], &rows[i]);
    }
    maps(&one_region);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    assert_int_equal(magic_talks(net.a.magic), 1);
    for (k = 0; k < 3; k++)
        for (i = k; i < N; i += 2)
            magic_peer_set(net.a.magic, &peers[i], &rows[i]);
    for (i = 0; i < N; i++)
        magic_peer_clear(net.a.magic, &peers[i]);
    talk(1000);
    assert_int_equal(state_of(&net.a), PATH_DIRECT);
    free(peers);
    free(rows);
}

int
main(void)
{
#define ROW(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(learns_its_network),
        ROW(names_are_resolved),
        ROW(names_are_late),
        ROW(blocked_from_the_start),
        ROW(measured_by_https),
        ROW(finds_the_peer),
        ROW(pings),
        ROW(tells_of_its_new_key),
        ROW(blocked_and_back),
        ROW(timers_under_traffic),
        ROW(home_is_lost),
        ROW(silence_frees),
        ROW(resumes),
        ROW(peer_changes),
        ROW(peers_without_disco),
        ROW(answers_to_strangers),
        ROW(network_changes),
        ROW(intruders),
        ROW(pongs_are_bounded),
        ROW(replays_do_not_end_it),
        ROW(calls_to_nowhere),
        ROW(many_peers),
    };

    /* Log lines are not part of TAP. */
    if (freopen("/dev/null", "w", stderr) == NULL)
        return 1;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

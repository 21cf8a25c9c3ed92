/*
 * Theory of operation.
 *
 *   mesh0 ──► pump ──► filter_out ──► wg_send ──► output ──► pump ──► UDP
 *   UDP   ──► pump ──► wg_receive ──► deliver ──► filter_in ──► pump ──► mesh0
 *
 * A new netmap is parsed whole first; then apply() makes everything that
 * can fail for want of memory (filter, peers), and only then lets it rule:
 * device, filter, addresses, snapshot in that order, so that a peer whose
 * rights are gone loses the data path before the workers hear of it.
 */
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../loop.h"
#include "../source/file.h"
#include "../wg/msg.h"
#include "echo.h"
#include "engine.h"
#include "peers.h"
#include "reach.h"
#include "say.h"
#include "snapshot.h"

#define EXPIRY_SLACK_MS   20 /* time() is behind the clock by up to a tick */
#define EXPIRY_LOOK_S     3600
#define STRANGER_EVERY_MS 50
#define UDP_BUFFER        (7 << 20)

static const struct filter_local filter_local = {.open_listeners = true};

_Static_assert(PUMP_HEADROOM >= WG_HEADROOM && PUMP_TAILROOM >= WG_TAILROOM,
    "packets from the mesh are sealed in place");

static void apply(struct node *n, struct netmap *nm);

static int64_t
wall(void)
{
    return (int64_t)time(NULL);
}

/* ---- the device's callbacks ---- */

static void
output(void *ctx, struct wg_peer *peer, const struct tn_endpoint *dst,
    const uint8_t *msg, size_t len)
{
    struct node *n = ctx;
    struct node_peer *np = peer == NULL ? NULL : wg_peer_data(peer);
    struct wg_peer_stats stats;
    struct tn_endpoint e = *dst;

    if (np != NULL && msg[0] == MSG_INITIATION)
        wg_tai64n(n->wg, n->hot_row->tai64n);
    if (n->magic != NULL) {
        if (!magic_output(
                n->magic, np == NULL ? NULL : &np->way, dst, msg, len))
            wg_drop_no_endpoint(n->wg);
        return;
    }
    if (np != NULL && msg[0] == MSG_INITIATION) {
        wg_peer_stats(peer, &stats);
        /* An endpoint that does not answer gives way to the next one. */
        if (stats.handshake_attempts > 1 && np->self->nendpoints > 0) {
            np->endpoint = (np->endpoint + 1) % np->self->nendpoints;
            e = np->self->endpoints[np->endpoint];
            wg_peer_set_endpoint(peer, &e);
        }
    }
    if (e.port != 0)
        pump_send(n->pump, &e, msg, len);
    else
        wg_drop_no_endpoint(n->wg);
}

static bool
roam(void *ctx, struct wg_peer *peer, const struct tn_endpoint *src)
{
    struct node *n = ctx;
    struct node_peer *np = wg_peer_data(peer);
    int64_t now = wall();

    if (n->magic != NULL) {
        magic_heard(n->magic, &np->way, src);
        if (np->seen != now)
            reach_heard(n, np, now);
        np->seen = now;
        return np->self->wireguard_only;
    }
    if (np->seen != now) {
        np->seen = now;
        hot_saw(n->hot, n->name, wg_peer_key(peer), src, now);
    }
    return true;
}

/*
 * A peer with a session of the time before a restart would go on with it for
 * 15 seconds.  Where the netmap says who lives at ${src}, a handshake of ours
 * ends that; the source may be forged, so they are few.
 */
static void
stranger(void *ctx, const struct tn_endpoint *src, uint64_t now)
{
    struct node *n = ctx;
    struct node_peer *np;
    struct tn_endpoint e;

    if (now - n->stranger < STRANGER_EVERY_MS)
        return;
    n->stranger = now;
    if (n->magic != NULL) {
        np = reach_stranger(n, src);
        if (np != NULL)
            wg_initiate(n->wg, np->peer, now);
        return;
    }
    for (np = n->peers; np != NULL; np = np->next) {
        e = wg_peer_endpoint(np->peer);
        if (e.port == src->port && tn_addr_equal(&e.addr, &src->addr)) {
            wg_initiate(n->wg, np->peer, now);
            return;
        }
    }
}

static void
deliver(void *ctx, struct wg_peer *peer, uint8_t *packet, size_t len)
{
    struct node *n = ctx;
    struct node_peer *np = wg_peer_data(peer);
    enum filter_verdict verdict;

    if (n->magic != NULL) {
        reach_unmask(n, np, packet, len);
        if (reach_message(n, np, packet, len))
            return;
    }
    verdict = filter_in(n->filter, packet, len, np->self->jailed);
    if (verdict == FILTER_REJECT && n->magic != NULL)
        reach_refuse(n, packet, len);
    if (verdict != FILTER_ACCEPT)
        return;
    if (echo_packet(n, packet, len))
        return;
    pump_write(n->pump, packet, len);
}

static void
unpredictable(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    /* Below 256 bytes getrandom() is never cut short once it is seeded. */
    while (getrandom(buf, len, 0) != (ssize_t)len)
        ;
}

static void
realtime(void *ctx, uint64_t *sec, uint32_t *nsec)
{
    struct timespec ts;

    (void)ctx;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    *sec = (uint64_t)ts.tv_sec;
    *nsec = (uint32_t)ts.tv_nsec;
}

/* ---- the pump's callbacks ---- */

static void
set_timer(struct node *n)
{
    uint64_t at = n->wg == NULL ? UINT64_MAX : wg_next_deadline(n->wg);
    uint64_t ping = ping_deadline(&n->pings);

    loop_timer_set(n->wg_timer, at < ping ? at : ping);
}

bool
node_expired(const struct node *n)
{
    const struct netmap_node *self = &n->netmap->self;

    return self->expired ||
           (self->key_expiry != 0 && self->key_expiry <= wall());
}

static void
from_mesh(void *ctx, uint8_t *packet, size_t len, uint64_t now)
{
    struct node *n = ctx;

    if (n->filter == NULL || node_expired(n)) {
        n->drop_expired++;
        return;
    }
    if (n->magic != NULL && reach_forged(packet, len)) {
        n->drop_forged++;
        return;
    }
    filter_out(n->filter, packet, len);
    if (n->masked)
        reach_mask(n, packet, len);
    wg_send(n->wg, packet, len, now);
}

void
node_receive(struct node *n, uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now)
{
    if (n->filter == NULL || node_expired(n)) {
        n->drop_expired++;
        return;
    }
    wg_receive(n->wg, msg, len, src, now);
}

static void
from_net(void *ctx, uint8_t *msg, size_t len, const struct tn_endpoint *src,
    uint64_t now)
{
    struct node *n = ctx;

    if (n->magic == NULL || !magic_receive(n->magic, msg, len, src))
        node_receive(n, msg, len, src, now);
}

static void
after(void *ctx, uint64_t now)
{
    struct node *n = ctx;

    (void)now;
    if (n->magic != NULL)
        magic_flush(n->magic);
    set_timer(n);
}

void
node_flush(struct node *n)
{
    pump_flush(n->pump);
    after(n, 0);
}

/* ---- timers ---- */

static void
tick(void *arg)
{
    struct node *n = arg;
    uint64_t now = loop_now();

    if (n->wg != NULL)
        wg_tick(n->wg, now);
    echo_tick(n, now);
    node_flush(n);
}

/* ${next}, or ${at}, should that come before. */
static int64_t
sooner(int64_t next, int64_t at, int64_t now)
{
    return at > now && at < next ? at : next;
}

static int64_t
next_expiry(const struct netmap *nm, int64_t now)
{
    int64_t next = sooner(INT64_MAX, nm->self.key_expiry, now);
    unsigned i;

    for (i = 0; i < nm->npeers; i++)
        next = sooner(next, nm->peers[i].key_expiry, now);
    return next;
}

static void
set_expiry_timer(struct node *n, int64_t at)
{
    uint64_t sec, left = 0;
    uint32_t nsec;

    n->expires = at;
    if (at == INT64_MAX) {
        loop_timer_set(n->expiry_timer, UINT64_MAX);
        return;
    }
    realtime(NULL, &sec, &nsec);
    /* Wall time may be set: look again at least once an hour. */
    if (at > (int64_t)sec + EXPIRY_LOOK_S)
        left = EXPIRY_LOOK_S * 1000;
    else if (at > (int64_t)sec)
        left = ((uint64_t)at - sec) * 1000 - nsec / 1000000;
    loop_timer_set(n->expiry_timer, loop_now() + left + EXPIRY_SLACK_MS);
}

static void
publish(void *arg)
{
    snapshot_publish(arg);
}

/* ---- applying a netmap ---- */

/* The netmap that rules, all of it. */
static void
apply_again(struct node *n)
{
    struct netmap *nm = n->netmap;

    apply(n, nm);
    if (n->netmap == nm)
        snapshot_publish_soon(n);
}

/* Whose key has expired is cut off. */
static void
expire(void *arg)
{
    struct node *n = arg;
    struct netmap_node *self = &n->netmap->self;
    int64_t now = wall(), since = n->looked;
    uint32_t rows[PEERS_ENDED_MAX];
    struct netmap_changes c;

    /* With the clock set back, some have not, after all. */
    if (now < since || !peers_ended(n, since, now, rows, &c)) {
        apply_again(n);
        return;
    }
    if (self->key_expiry > since && self->key_expiry <= now)
        c.self = self;
    n->looked = now;
    set_expiry_timer(n, next_expiry(n->netmap, now));
    node_take_changes(n, &c);
}

static void
netconf(struct node *n, const struct netmap *nm)
{
    size_t naddrs = nm->self.naddresses;

    if (naddrs > IPC_ADDRS_MAX) {
        say_warn("node \"%s\": %zu of its %u addresses are left out", n->name,
            naddrs - IPC_ADDRS_MAX, nm->self.naddresses);
        naddrs = IPC_ADDRS_MAX;
    }
    n->ops->netconf(n->name, nm->self.addresses, naddrs);
}

/*
 * Some peers may already be of a netmap that cannot be applied whole: forward
 * nothing until the next one rather than mix the rights of two.
 */
static void
stop(struct node *n, const char *why)
{
    say_err("node \"%s\": %s; nothing is forwarded", n->name, why);
    snprintf(n->error, sizeof(n->error), "%s", why);
    peers_drop(n, true);
    filter_free(n->filter);
    n->filter = NULL;
    if (n->magic != NULL)
        magic_map(n->magic, NULL);
    snapshot_free(n);
    netmap_free(n->netmap);
    n->netmap = NULL;
    loop_timer_set(n->expiry_timer, UINT64_MAX);
    loop_timer_set(n->publish_timer, UINT64_MAX);
}

/* ${f} in place of the one before; flows go on. */
static void
take_filter(struct node *n, struct filter *f)
{
    filter_set_listeners(f, n->listeners, n->nlisteners);
    if (n->filter != NULL)
        filter_inherit(f, n->filter);
    filter_free(n->filter);
    n->filter = f;
}

/* ${nm} is taken over; it may be the one that rules (a key expired). */
static void
apply(struct node *n, struct netmap *nm)
{
    struct filter *f = filter_new(nm, &filter_local);
    struct netmap *old = n->netmap;
    int64_t now = wall(); /* first: a key may expire before this ends */

    /* Handshakes with peers that are waited for go by relay perhaps. */
    if (n->magic != NULL)
        magic_map(n->magic, nm->derp);
    if (f == NULL || peers_apply(n, nm) != 0) {
        filter_free(f);
        if (nm != old)
            netmap_free(nm);
        stop(n, "out of memory: the netmap cannot be applied");
        return;
    }
    take_filter(n, f);
    n->netmap = nm;
    if (!n->resumed)
        reach_resumed(n);
    n->resumed = true;
    if (!n->lacks_psks && n->join == NULL)
        n->error[0] = '\0';
    if (nm != old) {
        netconf(n, nm);
        netmap_free(old);
        /* Keys alone change nothing that the workers know. */
        snapshot_publish_soon(n);
    }
    n->looked = now;
    set_expiry_timer(n, next_expiry(nm, now));
    failure_self(n);
    node_flush(n); /* handshakes of peers that are waited for */
}

/* ---- what the holder hands over ---- */

static void
close_fd(int fd)
{
    if (fd != -1)
        close(fd);
}

static int
bind_udp(int family, uint16_t port)
{
    struct sockaddr_in6 sin6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr *sa = (struct sockaddr *)&sin;
    socklen_t len = sizeof(sin);
    int one = 1, size = UDP_BUFFER;
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd == -1)
        return -1;
    if (family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
        sa = (struct sockaddr *)&sin6;
        len = sizeof(sin6);
    }
    /* As much as net.core.[rw]mem_max lets us have. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    if (bind(fd, sa, len) != 0) {
        one = errno;
        close(fd);
        errno = one;
        return -1;
    }
    return fd;
}

/* With one family only, peers may be out of reach; a machine without IPv6 is
 * nothing to speak of. */
static void
one_family(const struct node *n, const char *family, int err)
{
    if (err != EAFNOSUPPORT)
        say_warn("node \"%s\": no %s UDP socket on port %u: %s: peers are not "
                 "reached that way",
            n->name, family, n->port,
            err == EADDRINUSE ? "another program has it" : strerror(err));
}

uint16_t
node_udp_port(int fd)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof(sin);

    if (fd == -1 || getsockname(fd, (struct sockaddr *)&sin, &len) != 0)
        return 0;
    return ntohs(sin.sin_port); /* in the same place in both families */
}

static void
put_fd(struct node *n, const char *kind, int fd)
{
    char name[IPC_NAME_MAX + 1];

    snprintf(name, sizeof(name), "%s/%s", kind, n->name);
    n->ops->put(name, &fd, fd == -1 ? 0 : 1);
}

/* The sockets of an earlier engine keep the port; datagrams wait in them. */
static int
open_sockets(struct node *n, const int udp[2])
{
    uint16_t had = node_udp_port(udp[0] != -1 ? udp[0] : udp[1]);
    int err[2];

    if (had != 0 && (n->port == 0 || n->port == had)) {
        n->fds.udp4 = udp[0];
        n->fds.udp6 = udp[1];
        return 0;
    }
    close_fd(udp[0]);
    close_fd(udp[1]);
    n->fds.udp4 = bind_udp(AF_INET, n->port);
    err[0] = errno;
    had = node_udp_port(n->fds.udp4);
    n->fds.udp6 = bind_udp(AF_INET6, had != 0 ? had : n->port);
    err[1] = errno;
    if (n->fds.udp4 == -1 && n->fds.udp6 == -1) {
        if (err[0] == EADDRINUSE || err[1] == EADDRINUSE)
            say_err("node \"%s\" cannot run: UDP port %u is in use by another "
                    "program: free it, or give the node another \"port\"; it "
                    "is tried again",
                n->name, n->port);
        else
            say_err("node \"%s\" cannot run: no UDP socket on port %u: %s",
                n->name, n->port, strerror(err[0]));
        return -1;
    }
    if (n->fds.udp4 == -1)
        one_family(n, "IPv4", err[0]);
    if (n->fds.udp6 == -1)
        one_family(n, "IPv6", err[1]);
    put_fd(n, "udp4", n->fds.udp4);
    put_fd(n, "udp6", n->fds.udp6);
    return 0;
}

static const struct pump_ops pump_ops = {
    .from_mesh = from_mesh, .from_net = from_net, .after = after};

struct node *
node_new(const struct ipc_msg *m, int mesh, const int udp[2], struct hot *hot,
    const struct node_ops *ops)
{
    struct node *n = calloc(1, sizeof(*n));

    if (n == NULL) {
        close_fd(mesh);
        close_fd(udp[0]);
        close_fd(udp[1]);
        return NULL;
    }
    snprintf(n->name, sizeof(n->name), "%s", m->node);
    n->port = m->port;
    n->mtu = m->mtu;
    n->ops = ops;
    n->hot = hot;
    n->fds = (struct pump_fds){mesh, -1, -1};
    unpredictable(NULL, (uint8_t *)&n->pings.id, sizeof(n->pings.id));
    n->hot_row = hot_node(hot, n->name);
    n->wg_timer = loop_timer_new(tick, n);
    n->publish_timer = loop_timer_new(publish, n);
    n->expiry_timer = loop_timer_new(expire, n);
    if (open_sockets(n, udp) != 0) {
        node_free(n);
        return NULL;
    }
    if (n->hot_row != NULL && n->wg_timer != NULL && n->publish_timer != NULL &&
        n->expiry_timer != NULL)
        n->pump = pump_new(&n->fds, n->mtu, &pump_ops, n);
    if (n->pump == NULL) {
        say_err(
            "node \"%s\" cannot run: out of memory or descriptors", m->node);
        node_free(n);
        return NULL;
    }
    put_fd(n, "tun", mesh);
    if (n->hot_row->generation == 0)
        n->hot_row->generation = (uint64_t)wall() << 16;
    snprintf(n->error, sizeof(n->error), "waiting for key and netmap");
    return n;
}

static void
drop_device(struct node *n)
{
    peers_drop(n, true);
    wg_device_free(n->wg);
    n->wg = NULL;
}

void
node_free(struct node *n)
{
    if (n == NULL)
        return;
    drop_device(n);
    reach_end(n);
    join_free(n->join);
    pump_free(n->pump);
    filter_free(n->filter);
    snapshot_free(n);
    netmap_free(n->netmap);
    source_file_psks_free(n->psks);
    loop_timer_free(n->wg_timer);
    loop_timer_free(n->publish_timer);
    loop_timer_free(n->expiry_timer);
    close_fd(n->fds.mesh);
    close_fd(n->fds.udp4);
    close_fd(n->fds.udp6);
    explicit_bzero(n->private_key, sizeof(n->private_key));
    free(n);
}

void
node_set_error(struct node *n, const char *text)
{
    snprintf(n->error, sizeof(n->error), "%s", text);
    say_err("node \"%s\": %s%s", n->name, text,
        n->netmap != NULL ? "; the netmap before it stays in use" : "");
}

/* A descriptor's path, for messages. */
static const char *
path_of(int fd, char buf[TN_NODE_PATH_MAX + 1])
{
    char link[32];
    ssize_t len;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, buf, TN_NODE_PATH_MAX);
    if (len <= 0)
        return "the file";
    buf[len] = '\0';
    return buf;
}

static void
warn_readable(const struct node *n, const char *path)
{
    say_warn("node \"%s\": %s can be read by everybody on this machine",
        n->name, path);
}

/* A device of this key, in place of one of another. */
static void
set_key(struct node *n, const uint8_t key[32])
{
    struct wg_config c = {
        .timing = *engine_timing(),
        .mtu = n->mtu,
        .ops = {.output = output,
            .deliver = deliver,
            .roam = roam,
            .stranger = stranger,
            .failed = failure_handshake,
            .random = unpredictable,
            .realtime = realtime},
        .ctx = n,
    };
    static const uint8_t zero[MSG_TAI64N_LEN];

    if (n->wg != NULL && memcmp(key, n->private_key, 32) == 0)
        return;
    drop_device(n);
    memcpy(c.private_key, key, sizeof(c.private_key));
    n->wg = wg_device_new(&c, loop_now());
    explicit_bzero(&c, sizeof(c));
    if (n->wg == NULL) {
        stop(n, "out of memory");
        return;
    }
    memcpy(n->private_key, key, 32);
    if (n->magic != NULL)
        magic_key(n->magic, key);
    if (memcmp(n->hot_row->tai64n, zero, sizeof(zero)) != 0)
        wg_set_tai64n(n->wg, n->hot_row->tai64n);
    if (n->netmap != NULL)
        apply(n, n->netmap);
}

void
node_set_key(struct node *n, int fd)
{
    struct source_file_error err;
    char path[TN_NODE_PATH_MAX + 1];
    const char *name = path_of(fd, path);
    bool readable = false;
    uint8_t key[32];

    if (source_file_private_key(fd, name, key, &readable, &err) != 0) {
        node_set_error(n, err.text);
    } else {
        if (readable)
            warn_readable(n, name);
        set_key(n, key);
    }
    explicit_bzero(key, sizeof(key));
    close(fd);
}

void
node_take_key(struct node *n, const uint8_t key[32])
{
    /* Peers that talked under the old key are initiated to under the new. */
    n->resumed = false;
    set_key(n, key);
    if (n->wg == NULL)
        return; /* out of memory, as was said */
    if (n->magic != NULL)
        reach_announce(n);
    else if (reach_begin(n) != 0)
        stop(n, "out of memory: its peers cannot be found");
}

void
node_take_netmap(struct node *n, struct netmap *nm, bool cached)
{
    bool first = n->netmap == NULL;

    if (n->wg == NULL) { /* out of memory, as was said */
        netmap_free(nm);
        return;
    }
    apply(n, nm);
    if (n->netmap == nm && first)
        say_notice("node \"%s\": netmap applied: %u peer%s%s", n->name,
            nm->npeers, nm->npeers == 1 ? "" : "s",
            cached ? " (saved earlier)" : "");
}

/* What n->expires is of may be gone: then the timer comes in vain, once. */
static void
advance_expiry(struct node *n, const struct netmap_changes *c, int64_t now)
{
    const struct netmap_node *peers = n->netmap->peers;
    size_t i, count = n->netmap->npeers;
    int64_t next = sooner(n->expires, n->netmap->self.key_expiry, now);

    for (i = 0; i < c->nrows; i++)
        next = sooner(next, peers[c->rows[i]].key_expiry, now);
    for (i = count - c->nadded; i < count; i++)
        next = sooner(next, peers[i].key_expiry, now);
    if (next <= now) /* or the clock was set: expire() sees when it is again */
        loop_timer_set(n->expiry_timer, 0);
    else if (next != n->expires)
        set_expiry_timer(n, next);
}

/* Its rules are others, or it knows peers; -1: no memory. */
static int
renew_filter(struct node *n, const struct netmap_changes *c)
{
    struct filter *f;

    if (!c->rules && (c->ngone + c->nadded == 0 || !filter_by_peer(n->filter)))
        return 0;
    f = filter_new(n->netmap, &filter_local);
    if (f == NULL)
        return -1;
    take_filter(n, f);
    return 0;
}

void
node_take_changes(struct node *n, const struct netmap_changes *c)
{
    int64_t now = wall();

    if (c->derp && n->magic != NULL)
        magic_map(n->magic, n->netmap->derp);
    if (renew_filter(n, c) != 0 || peers_update(n, c) != 0) {
        apply_again(n);
        return;
    }
    advance_expiry(n, c, now);
    snapshot_publish_changes(n, c);
    failure_self(n);
    node_flush(n);
}

void
node_set_words(struct node *n, const char *words)
{
    snprintf(n->error, sizeof(n->error), "%s", words);
}

void
node_expect_psks(struct node *n, bool expected)
{
    n->lacks_psks = expected;
    if (expected || n->psks == NULL)
        return;
    source_file_psks_free(n->psks);
    n->psks = NULL;
    if (n->netmap != NULL)
        apply(n, n->netmap);
}

void
node_set_psks(struct node *n, int fd)
{
    struct source_file_error err;
    char path[TN_NODE_PATH_MAX + 1];
    const char *name = path_of(fd, path);
    bool readable = false;
    struct source_file_psks *psks = source_file_psks(fd, name, &readable, &err);

    if (psks == NULL) {
        node_set_error(n, err.text);
        close(fd);
        return;
    }
    if (readable)
        warn_readable(n, name);
    close(fd);
    source_file_psks_free(n->psks);
    n->psks = psks;
    n->lacks_psks = false;
    if (n->netmap != NULL)
        apply(n, n->netmap);
}

void
node_set_netmap(struct node *n, int fd)
{
    struct map_json_error err;
    struct source_file_error self_err;
    char path[TN_NODE_PATH_MAX + 1];
    const char *name = path_of(fd, path);
    struct netmap *nm;
    uint8_t key[32];
    unsigned i;

    if (n->wg == NULL || (n->lacks_psks && n->psks == NULL)) {
        close(fd); /* the keys' own error is already shown */
        return;
    }
    nm = source_file_netmap(fd, name, geteuid(), &err);
    close(fd);
    if (nm == NULL) {
        node_set_error(n, err.text);
        return;
    }
    for (i = 0; i < err.nwarnings && i < MAP_JSON_MAX_WARNINGS; i++)
        say_warn("node \"%s\": %s", n->name, err.warnings[i]);
    if (err.nwarnings > MAP_JSON_MAX_WARNINGS)
        say_warn("node \"%s\": more warnings: %u", n->name,
            err.nwarnings - MAP_JSON_MAX_WARNINGS);
    wg_device_public_key(n->wg, key);
    if (source_file_check_self(nm, name, key, &self_err) != 0) {
        node_set_error(n, self_err.text);
        netmap_free(nm);
        return;
    }
    apply(n, nm);
    if (n->netmap == nm)
        say_notice("node \"%s\": netmap applied: %u peer%s", n->name,
            nm->npeers, nm->npeers == 1 ? "" : "s");
}

void
node_set_listeners(struct node *n, const struct ipc_msg *m)
{
    n->nlisteners = m->nlisteners;
    memcpy(n->listeners, m->listeners, m->nlisteners * sizeof(*m->listeners));
    if (n->filter != NULL)
        filter_set_listeners(n->filter, n->listeners, n->nlisteners);
}

void
node_reintroduce(struct node *n)
{
    put_fd(n, "tun", n->fds.mesh);
    put_fd(n, "udp4", n->fds.udp4);
    put_fd(n, "udp6", n->fds.udp6);
    if (n->netmap == NULL)
        return;
    netconf(n, n->netmap);
    snapshot_publish(n);
}

const char *
node_state(const struct node *n)
{
    if (n->filter == NULL)
        return "waiting";
    return node_expired(n) ? "expired" : "running";
}

#include "echo.h"

#include <string.h>
#include <time.h>

#include "../loop.h"
#include "node.h"
#include "reach.h"

static uint64_t
nanoseconds(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static struct node_peer *
owner(const struct node *n, const struct tn_addr *to)
{
    struct wg_peer *peer = n->wg == NULL ? NULL : wg_route(n->wg, to);

    return peer == NULL ? NULL : wg_peer_data(peer);
}

static bool
is_own(const struct node *n, const struct tn_addr *a)
{
    unsigned i;

    for (i = 0; n->netmap != NULL && i < n->netmap->self.naddresses; i++)
        if (n->netmap->self.addresses[i].bits == 128 &&
            tn_addr_equal(&n->netmap->self.addresses[i].addr, a))
            return true;
    return false;
}

/* ---- who asked is told ---- */

static void
tell_server(struct node *n, const struct ping *p, const struct message_pong *is)
{
    struct message_pong pong = *is;
    const struct node_peer *np = owner(n, &p->to);
    const struct netmap_region *region = NULL;
    const struct tn_addr *a;

    if (n->join == NULL)
        return;
    if (np != NULL) {
        pong.name = np->self->name;
        a = netmap_first_address(np->self, tn_addr_is4(&p->to));
        if (a != NULL)
            pong.node = *a;
        pong.has_node = a != NULL;
    }
    pong.region = derp_region(&pong.at);
    if (pong.region != 0)
        region = netmap_region(n->netmap->derp, pong.region);
    pong.region_code = region == NULL ? "" : region->code;
    control_pong(join_control(n->join), p->query, &pong);
}

/* ${src} NULL: where the peer is. */
static void
tell(struct node *n, const struct ping *p, const struct tn_endpoint *src,
    uint16_t peerapi, const char *error)
{
    struct wg_peer *peer = n->wg == NULL ? NULL : wg_route(n->wg, &p->to);
    uint64_t ns = nanoseconds() - p->sent;
    struct message_pong pong = {0};
    struct tn_endpoint e = {0};

    if (src != NULL)
        e = *src;
    else if (peer != NULL)
        e = wg_peer_endpoint(peer);
    if (error != NULL && e.port == 0)
        error = "no answer, and no endpoint to ask at";
    if (!p->server) {
        n->ops->pong(p->query, &p->to, &e, ns, error);
        return;
    }
    pong.error = error;
    pong.seconds = (double)ns / 1e9;
    pong.peerapi = peerapi;
    if (p->kind == PING_DISCO && error == NULL)
        pong.at = e;
    tell_server(n, p, &pong);
}

bool
echo_packet(struct node *n, const uint8_t *packet, size_t len)
{
    struct ping p;

    if (!ping_match(&n->pings, packet, len, &p))
        return false;
    tell(n, &p, NULL, 0, NULL);
    return true;
}

void
echo_tsmp(struct node *n, const struct tsmp *t)
{
    struct ping *row = ping_find(&n->pings, PING_TSMP, t->data), p;

    if (row == NULL || !tn_addr_equal(&row->to, &t->src))
        return;
    p = *row;
    ping_end(row);
    tell(n, &p, NULL, t->port, NULL);
}

bool
echo_disco(struct node *n, const struct node_peer *np,
    const uint8_t token[PING_TOKEN_LEN], const struct tn_endpoint *src)
{
    struct ping *row = ping_find(&n->pings, PING_DISCO, token), p;

    if (row == NULL || owner(n, &row->to) != np)
        return false;
    p = *row;
    ping_end(row);
    tell(n, &p, src, 0, NULL);
    return true;
}

void
echo_tick(struct node *n, uint64_t now)
{
    struct ping p;

    while (ping_expire(&n->pings, now, &p))
        tell(n, &p, NULL, 0, "no answer");
}

/* ---- pings go out ---- */

static const char too_many[] = "too many pings are pending";

static const char *
send_disco(struct node *n, const struct ping *p)
{
    struct node_peer *np = owner(n, &p->to);
    uint8_t token[PING_TOKEN_LEN];

    if (n->magic == NULL || !np->self->has_disco)
        return "the peer has no disco key";
    if (!ping_token(&n->pings, p, token))
        return too_many;
    if (!magic_ping(n->magic, &np->way, token)) {
        ping_end(ping_find(&n->pings, PING_DISCO, token));
        return "no path to the peer is known";
    }
    return NULL;
}

static const char *
send_packet(struct node *n, const struct ping *p)
{
    uint8_t buf[WG_HEADROOM + PING_PACKET_MAX + WG_TAILROOM];
    const struct tn_addr *from = netmap_first_address(
        &n->netmap->self, tn_addr_is4(&p->to));
    size_t len;

    if (from == NULL)
        return "this node has no address of that family";
    len = ping_make(&n->pings, from, p, buf + WG_HEADROOM);
    if (len == 0)
        return too_many;
    if (n->masked)
        reach_mask(n, buf + WG_HEADROOM, len);
    wg_send(n->wg, buf + WG_HEADROOM, len, loop_now());
    return NULL;
}

const char *
echo_begin(struct node *n, struct ping *p)
{
    const struct node_peer *np = owner(n, &p->to);
    const char *why;

    if (n->filter == NULL)
        return "this node has no netmap yet";
    if (node_expired(n))
        return "the key of this node has expired";
    if (np == NULL)
        return "no peer has this address";
    if (np->self->naddresses == 0) /* peers.c: nobody's */
        return is_own(n, &p->to) ? "the address is this node's own"
                                 : "the peer's key has expired";
    p->sent = nanoseconds();
    why = p->kind == PING_DISCO ? send_disco(n, p) : send_packet(n, p);
    node_flush(n);
    return why;
}

void
echo_asked(
    struct node *n, uint32_t id, enum ping_kind kind, const struct tn_addr *to)
{
    struct ping p = {.query = id,
        .server = true,
        .kind = kind,
        .to = *to,
        .deadline = loop_now() + ECHO_SERVER_MS};
    struct message_pong pong = {.local = is_own(n, to)};

    pong.error = pong.local ? "the address is this node's own"
                            : echo_begin(n, &p);
    if (pong.error != NULL)
        tell_server(n, &p, &pong);
}

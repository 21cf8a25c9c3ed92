/*
 * magic.h: how packets find the peers of a tailnet: directly, through NATs, or
 * by relay.
 *
 * A magic stands between WireGuard and the sockets of one node.  Datagrams from
 * the network go through magic_receive(), which keeps STUN and disco for
 * itself; WireGuard's output goes through magic_output(), which sends it by the
 * best path.  WireGuard sees a relay as the address 127.3.3.40:REGION.
 *
 * A peer is a struct magic_peer in its owner's row, and nothing more until it
 * talks.  Callbacks may send; they may not add, remove or free peers or the
 * magic.  Only ops->announce() may also come from inside magic_map().
 */
#ifndef MAGIC_H
#define MAGIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../control/message.h"
#include "../crypto/tls.h"
#include "../engine/netmap.h"
#include "derp.h"
#include "path.h"

#define MAGIC_STRANGERS_S   50  /* disco keys tried a second, of silent peers */
#define MAGIC_PONGS_S       20  /* to a peer a second, and as many elsewhere */
#define MAGIC_FRESH_S       27  /* an outside address is believed for */
#define MAGIC_CHECK_S       20  /* netcheck, while peers are active, ... */
#define MAGIC_CHECK_MORE_S  6   /* ... and a random part of this */
#define MAGIC_CHECK_FULL_S  300 /* of all regions, and while nobody is */
#define MAGIC_CHECK_LOST_S  5   /* at least, when the home's relay is lost */
#define MAGIC_REGION_S      60  /* a peer is still where it was heard */
#define MAGIC_HOME_ALIVE_MS 8000

struct magic;
struct talk;

/* All zeros at first; its content is magic's. */
struct magic_peer {
    struct magic_peer *next; /* of the disco keys' hash chain */
    const struct netmap_node *row;
    const uint8_t *disco; /* of the row or the talk; NULL: in no chain */
    struct talk *talk;    /* NULL: it is silent */
    uint32_t bucket;
};

struct magic_ops {
    /* A datagram, copied. */
    void (*send)(void *ctx, const struct tn_endpoint *to, const uint8_t *msg,
        size_t len);
    /* What was sent since may go out. */
    void (*flush)(void *ctx);
    /* A WireGuard message that came by relay, changeable, with DERP_SLACK. */
    void (*wireguard)(
        void *ctx, uint8_t *msg, size_t len, const struct tn_endpoint *src);
    /* Packets for ${p} go to ${e} now: an address, or 127.3.3.40:REGION. */
    void (*moved)(void *ctx, struct magic_peer *p, const struct tn_endpoint *e);
    /* magic_endpoints() or magic_netinfo() is another one. */
    void (*announce)(void *ctx);
    /* This machine's addresses changed. */
    void (*network)(void *ctx);
    /* The home's relay knows the node by its new key: peers' answers pass. */
    void (*rekeyed)(void *ctx);
    /* ${p} answered a ping from ${src}, by relay 127.3.3.40:REGION; false: it
     * was none of magic_ping(). */
    bool (*pong)(void *ctx, struct magic_peer *p, const uint8_t txid[12],
        const struct tn_endpoint *src);
};

struct magic_config {
    const char *node;           /* for log lines; outlives it */
    const uint8_t *private_key; /* of the node; copied */
    uint8_t *disco;             /* private disco key; all zeros: a new one is
                                   put there */
    uint16_t *home;             /* region of an earlier life, kept up to date */
    uint16_t port[2];           /* of the IPv4 and IPv6 socket; 0: none */
    struct tls_trust *trust;    /* outlives it */
    bool insecure;              /* tests: see derp.h */
};

struct magic_counters {
    uint64_t stun, disco_pings, disco_pongs, disco_calls; /* received */
    uint64_t pings_sent, calls_sent;
    uint64_t sent_direct, sent_relay; /* WireGuard messages */
    uint64_t drop_stun;               /* an answer to no question */
    uint64_t drop_geneve;             /* peer relays are not supported */
    uint64_t drop_disco_unknown;      /* key not in the netmap */
    uint64_t drop_disco_flood;        /* MAGIC_STRANGERS_S */
    uint64_t drop_disco_auth, drop_disco_malformed;
    uint64_t drop_disco_node; /* node and disco key do not belong together */
    uint64_t drop_disco_flow; /* a call that did not come by relay */
    uint64_t drop_pong_late, drop_pong_flood;
    uint64_t drop_spoofed; /* a datagram from a relay's pseudo-address, or
                              from port 0, where no answer goes */
    uint64_t drop_no_path, drop_memory;
};

/* For status: how a peer is reached. */
struct magic_way {
    enum path_state state;
    struct tn_endpoint at; /* port 0: not directly */
    uint16_t region;       /* of the relay that would be used; 0: none */
    uint32_t latency_us;   /* of ${at}; 0: not known */
};

/* NULL: no memory. */
struct magic *magic_new(
    const struct magic_config *c, const struct magic_ops *ops, void *ctx);
/* Its peers need not be cleared first.  NULL is harmless. */
void magic_free(struct magic *m);

/* The node has another key; its peers stay. */
void magic_key(struct magic *m, const uint8_t private_key[32]);

/* magic_map(m, map): relays; borrowed until the next call has returned.  NULL:
 * none. */
void magic_map(struct magic *m, const struct netmap_derp *map);

/* Whether the control server is there to be told of a new home. */
void magic_joined(struct magic *m, bool joined);

/*
 * magic_peer_set(m, p, row): ${p} is the peer of ${row}, borrowed until the
 * next call or magic_peer_clear().  The row before is not looked at.
 */
void magic_peer_set(
    struct magic *m, struct magic_peer *p, const struct netmap_node *row);
void magic_peer_clear(struct magic *m, struct magic_peer *p);

/* magic_peer_resume(m, p, e, region): seconds ago ${p} was at ${e} (port 0:
 * not known) or by ${region} (0: not known). */
void magic_peer_resume(struct magic *m, struct magic_peer *p,
    const struct tn_endpoint *e, uint16_t region);

/* magic_peer_disco(m, p, key): ${p} says that its disco key is another one. */
void magic_peer_disco(
    struct magic *m, struct magic_peer *p, const uint8_t key[32]);

/* magic_receive(m, msg, len, src): false: the datagram is WireGuard's. */
bool magic_receive(struct magic *m, const uint8_t *msg, size_t len,
    const struct tn_endpoint *src);

/* Inside ops->wireguard(): the node key of the sender, as the relay says; else
 * NULL. */
const uint8_t *magic_relay_sender(const struct magic *m);

/* magic_heard(m, p, src): WireGuard got something authentic. */
void magic_heard(
    struct magic *m, struct magic_peer *p, const struct tn_endpoint *src);

/*
 * magic_output(m, p, dst, msg, len): sends a WireGuard message.  ${p} NULL: to
 * ${dst}, where a message came from just now.  false: there is no path.
 */
bool magic_output(struct magic *m, struct magic_peer *p,
    const struct tn_endpoint *dst, const uint8_t *msg, size_t len);

/* magic_ping(m, p, txid): a disco ping to where a packet would go now.  false:
 * there is no path, or ${p} has no disco key. */
bool magic_ping(struct magic *m, struct magic_peer *p, const uint8_t txid[12]);

/* What was sent by relay since may go out. */
void magic_flush(struct magic *m);

/* magic_explicit(m, list, n): addresses that peers are told first, as somebody
 * knows that they lead here; copied, at most ENDPOINTS_EXPLICIT. */
void magic_explicit(struct magic *m, const struct tn_endpoint *list, size_t n);

/* Our public disco key. */
const uint8_t *magic_disco(const struct magic *m);
const struct message_endpoint *magic_endpoints(
    const struct magic *m, size_t *n);
const struct message_netinfo *magic_netinfo(const struct magic *m);

struct magic_way magic_way(const struct magic *m, const struct magic_peer *p);
const struct magic_counters *magic_counters(const struct magic *m);
/* Peers that talk. */
size_t magic_talks(const struct magic *m);
struct derp *magic_derp(const struct magic *m);

#endif

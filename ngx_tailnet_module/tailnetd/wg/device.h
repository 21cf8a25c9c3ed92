/*
 * device.h: WireGuard as a machine without sockets.
 *
 * Bytes, addresses and the time go in; datagrams and inner packets come out
 * through struct wg_ops, called from inside the function that caused them.
 * A callback may send; it may not add, remove or free peers or the device.
 * A device belongs to one thread.  Times are milliseconds of a monotonic
 * clock.  Source: WireGuard whitepaper (2020-06-01), sections 5 and 6.
 */
#ifndef WG_DEVICE_H
#define WG_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

/* Room around a packet for sealing it in place. */
#define WG_HEADROOM 16 /* transport header */
#define WG_TAILROOM 48 /* padding up to 15, tag 16, slack 16 */

struct wg_device;
struct wg_peer;

/* Durations of section 6.1, milliseconds; tests shorten them. */
struct wg_timing {
    uint32_t rekey_after;        /* 120000 */
    uint32_t reject_after;       /* 180000 */
    uint32_t rekey_attempt;      /* 90000 */
    uint32_t rekey_timeout;      /* 5000 */
    uint32_t rekey_jitter;       /* 334: 0..333 is added */
    uint32_t keepalive;          /* 10000 */
    uint32_t cookie_life;        /* 120000 */
    uint32_t initiation_spacing; /* 20: inbound, per peer */
};
extern const struct wg_timing wg_timing_default;

/* Why no session comes about, where somebody may have set something up wrong.
 */
enum wg_failure {
    WG_FAILURE_MAC1,    /* an initiation made for another public key */
    WG_FAILURE_UNKNOWN, /* one under a public key that no peer has */
    WG_FAILURE_ANSWER,  /* a response that does not open: preshared keys */
    WG_FAILURE_UNUSED,  /* WG_UNUSED_RESPONSES of ours came to nothing */
    WG_FAILURE_SILENCE, /* WG_SILENT_INITIATIONS of ours, or more, went so far
                         * without an answer */
};
#define WG_UNUSED_RESPONSES   3 /* in a row */
#define WG_SILENT_INITIATIONS 3

struct wg_ops {
    /* A datagram for ${peer} (NULL: a cookie reply) to ${dst}; ${dst} port 0:
     * the peer has no known endpoint.  ${msg} is valid during the call. */
    void (*output)(void *ctx, struct wg_peer *peer,
        const struct tn_endpoint *dst, const uint8_t *msg, size_t len);
    /* A decrypted packet whose source is in ${peer}'s allowed IPs, trimmed to
     * its IP length, in place in the caller's receive buffer. */
    void (*deliver)(
        void *ctx, struct wg_peer *peer, uint8_t *packet, size_t len);
    /* Any authenticated data or handshake arrived from ${src}: whether it
     * becomes the peer's endpoint (roaming).  NULL: always. */
    bool (*roam)(
        void *ctx, struct wg_peer *peer, const struct tn_endpoint *src);
    /* A packet of a session nobody knows came from ${src}: whoever is there
     * may have one with this device's predecessor.  NULL: nobody cares. */
    void (*stranger)(void *ctx, const struct tn_endpoint *src, uint64_t now);
    /*
     * A handshake fails.  ${key}: of the peer, known or not, as it says itself;
     * NULL with WG_FAILURE_MAC1.  ${at}: where its message came from or, with
     * WG_FAILURE_SILENCE, ours went to.  Whoever knows the device's public key
     * can have the first two called, as often as admitted.  NULL: nobody cares.
     */
    void (*failed)(void *ctx, enum wg_failure why, const uint8_t *key,
        const struct tn_endpoint *at, uint64_t now);
    /* ${len} unpredictable bytes. */
    void (*random)(void *ctx, uint8_t *buf, size_t len);
    /* Wall clock for TAI64N. */
    void (*realtime)(void *ctx, uint64_t *sec, uint32_t *nsec);
};

struct wg_config {
    uint8_t private_key[32]; /* copied; wipe yours */
    struct wg_timing timing;
    uint16_t mtu; /* padding does not pass it */
    struct wg_ops ops;
    void *ctx;
};

/* Counters, by cause.  Every dropped packet is in exactly one; a handshake
 * message that is answered by a cookie is in cookies_sent. */
struct wg_counters {
    uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes; /* transport */
    uint64_t handshakes_sent, handshakes_received, handshakes_completed;
    uint64_t cookies_sent, cookies_received;
    uint64_t drop_malformed; /* length or type */
    uint64_t drop_mac1, drop_ratelimited, drop_unknown_peer, drop_handshake,
        drop_handshake_replay, drop_handshake_flood;
    uint64_t drop_index, drop_auth, drop_replay, drop_expired;
    uint64_t drop_source;   /* inner source not in allowed IPs */
    uint64_t drop_inner;    /* inner packet malformed */
    uint64_t drop_no_route; /* outbound: no peer for the address */
    uint64_t drop_staged;   /* outbound: queue overflowed or gave up */
    uint64_t drop_no_endpoint;
};

struct wg_peer_stats {
    uint64_t rx_bytes, tx_bytes;
    uint64_t last_handshake;     /* monotonic ms; 0: never */
    uint64_t last_receive;       /* authenticated; 0: never */
    uint32_t handshake_attempts; /* of the one now pending */
};

/* NULL: no memory.  wg_device_free() wipes every key; NULL is harmless. */
struct wg_device *wg_device_new(const struct wg_config *c, uint64_t now);
void wg_device_free(struct wg_device *d);
void wg_device_public_key(const struct wg_device *d, uint8_t key[32]);
const struct wg_counters *wg_device_counters(const struct wg_device *d);

/*
 * Peers.  wg_peer_add() returns the peer of ${key}, new or known already, or
 * NULL: no memory, or the device's own key.  The peer of a key of zeros, which
 * no handshake can have, is nobody: nothing comes from its allowed IPs, and no
 * route leads there.  wg_peer_remove() ends its sessions at once and wipes
 * them; no callback sees the peer afterwards.
 */
struct wg_peer *wg_peer_add(
    struct wg_device *d, const uint8_t key[32], void *data, uint64_t now);
void wg_peer_remove(struct wg_device *d, struct wg_peer *p);
struct wg_peer *wg_peer_by_key(struct wg_device *d, const uint8_t key[32]);
void *wg_peer_data(const struct wg_peer *p);
void wg_peer_set_data(struct wg_peer *p, void *data);
const uint8_t *wg_peer_key(const struct wg_peer *p);
/* A changed preshared key ends sessions; NULL: none (32 zero bytes). */
void wg_peer_set_psk(struct wg_peer *p, const uint8_t psk[32]);
void wg_peer_set_endpoint(struct wg_peer *p, const struct tn_endpoint *e);
struct tn_endpoint wg_peer_endpoint(const struct wg_peer *p);
void wg_peer_stats(const struct wg_peer *p, struct wg_peer_stats *s);
/* Replaces the peer's allowed IPs; a prefix of another peer moves to this one.
 * Returns 0, or -1: no memory, nothing changed. */
int wg_peer_set_allowed_ips(struct wg_device *d, struct wg_peer *p,
    const struct tn_prefix *prefixes, size_t n);

/* The peer gets, or loses, these besides those it has; one that is another
 * peer's moves, or stays there. */
int wg_peer_add_allowed_ips(struct wg_device *d, struct wg_peer *p,
    const struct tn_prefix *prefixes, size_t n);
void wg_peer_drop_allowed_ips(struct wg_device *d, struct wg_peer *p,
    const struct tn_prefix *prefixes, size_t n);

/* The peer that ${a} is routed to, or NULL. */
struct wg_peer *wg_route(const struct wg_device *d, const struct tn_addr *a);

/*
 * wg_receive(d, msg, len, src, now): one datagram from the network, changed in
 * place; ${msg} has 16 readable bytes of slack behind it.
 */
void wg_receive(struct wg_device *d, uint8_t *msg, size_t len,
    const struct tn_endpoint *src, uint64_t now);

/*
 * wg_send(d, packet, len, now): one inner IP packet, with WG_HEADROOM before
 * and WG_TAILROOM behind it that are overwritten.  Routes it, seals it in
 * place and outputs it, or stages a copy and starts a handshake.
 */
void wg_send(struct wg_device *d, uint8_t *packet, size_t len, uint64_t now);

/* For output(): the message it was just given is lost because ${dst} has no
 * endpoint and nobody else knows a path. */
void wg_drop_no_endpoint(struct wg_device *d);

/* Start a handshake with ${p} now, unless one was sent within rekey_timeout. */
void wg_initiate(struct wg_device *d, struct wg_peer *p, uint64_t now);

/* An initiation to ${p} that waits for its answer is made anew and sent now:
 * what the last one led to may be lost. */
void wg_retry(struct wg_device *d, struct wg_peer *p, uint64_t now);

/* Last TAI64N sent, of the whole device, for a successor: its own are later. */
void wg_tai64n(const struct wg_device *d, uint8_t t[12]);
void wg_set_tai64n(struct wg_device *d, const uint8_t t[12]);

/*
 * wg_next_deadline(d): when wg_tick() has to be called next, UINT64_MAX:
 * nothing is pending.  wg_tick() runs every timer that is due.
 */
uint64_t wg_next_deadline(const struct wg_device *d);
void wg_tick(struct wg_device *d, uint64_t now);

/* Tests and load: treat the device as under load (cookies) while true. */
void wg_force_load(struct wg_device *d, bool on);

#endif

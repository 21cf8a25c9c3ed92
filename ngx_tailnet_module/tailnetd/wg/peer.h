/*
 * peer.h: a peer, its sessions and the packets that wait for one.
 *
 * What every peer has is small; what only a peer that talks has is in struct
 * peer_session, made on first use and given back when its keys are erased.
 */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../crypto/aead.h"
#include "allowedips.h"
#include "cookie.h"
#include "device.h"
#include "handshake.h"
#include "index.h"
#include "replay.h"
#include "timers.h"

#define PEER_STAGED_MAX 128 /* packets of one peer that wait for a session */

/* The keys of one session. */
struct peer_keypair {
    struct index_entry local; /* our index: the remote's receiver field */
    uint32_t remote;          /* its index */
    bool initiator;           /* we began it, so it is for us to renew it */
    uint64_t since;
    uint64_t counter; /* of the next message sent */
    struct aead *send, *receive;
    struct replay replay;
};

/* A packet that waits. */
struct peer_staged {
    struct peer_staged *next;
    size_t len;
    uint8_t room[]; /* WG_HEADROOM, packet, WG_TAILROOM */
};

struct peer_session {
    /* An initiation of ours without its response; local.linked tells. */
    struct index_entry local;
    struct handshake handshake;
    struct cookie_maker cookie;

    /*
     * ->current is the one to send with.  A responder's new pair waits in
     * ->next until the initiator used it.  The last pair stays in ->previous
     * for messages still under way.  Messages are accepted under all three.
     */
    struct peer_keypair *current, *previous, *next;

    struct peer_staged *staged, **staged_end;
    size_t staged_count;
};

struct wg_peer {
    struct wg_device *device;
    struct wg_peer *next_of_hash;
    void *data;
    uint8_t key[MSG_KEY_LEN];
    uint8_t psk[MSG_KEY_LEN];
    struct tn_endpoint endpoint;
    struct allowedips_owner allowed;
    struct timers timers;
    struct peer_session *session; /* NULL: idle */

    uint8_t tai64n_sent[MSG_TAI64N_LEN];
    uint8_t tai64n_seen[MSG_TAI64N_LEN];
    uint64_t initiation_seen; /* when; initiation_spacing */
    uint64_t initiation_sent; /* when; rekey_timeout */
    uint64_t attempt_since;   /* rekey_attempt */
    bool has_seen, has_sent;  /* whether the above are set */
    bool nobody;              /* its key is zeros */
    bool rekeyed_on_receive;  /* once per session */
    bool bad_answer;          /* came since this handshake was begun */
    uint8_t unused_responses; /* since a session was last completed */
    struct wg_peer_stats stats;
};

_Static_assert(sizeof(struct wg_peer) <= 448, "an idle peer is cheap");

/* All peers of a device by public key. */
struct peer_table {
    struct wg_peer **buckets;
    size_t size; /* a power of two */
    size_t count;
    uint8_t key[16]; /* of the hash */
};

/* peer_table_init(t): ->key is set already.  Returns 0, or -1: no memory. */
int peer_table_init(struct peer_table *t);
void peer_table_free(struct peer_table *t);
struct wg_peer *peer_table_find(
    const struct peer_table *t, const uint8_t key[MSG_KEY_LEN]);

/* peer_session(p): the session of ${p}, made if needed, or NULL: no memory. */
struct peer_session *peer_session(struct wg_peer *p);

/* peer_can_send(p, now): whether ->current may seal another message. */
bool peer_can_send(const struct wg_peer *p, uint64_t now);

/* peer_forget_handshake(p): ends and wipes a pending initiation. */
void peer_forget_handshake(struct wg_peer *p);

/* peer_forget_keys(p): ends and wipes all sessions. */
void peer_forget_keys(struct wg_peer *p);

/* peer_relax(p): gives memory back that nothing uses any more. */
void peer_relax(struct wg_peer *p);

/*
 * peer_keypair_new(p, keys, initiator, remote, now): a session, not yet in
 * use, or NULL: no memory.  ${keys} stays the caller's to wipe.
 */
struct peer_keypair *peer_keypair_new(struct wg_peer *p,
    const struct handshake_keys *keys, bool initiator, uint32_t remote,
    uint64_t now);
void peer_keypair_free(struct wg_peer *p, struct peer_keypair *k);

/* peer_keypair_install(p, k, index): ${p}, which has a session, owns ${k} and
 * accepts messages to the free ${index} under it. */
void peer_keypair_install(
    struct wg_peer *p, struct peer_keypair *k, uint32_t index);

/* peer_keypair_used(p, k): a valid message came under ${k}.  True: it was the
 * first of ->next, which is ->current now. */
bool peer_keypair_used(struct wg_peer *p, struct peer_keypair *k);

/*
 * peer_stage(p, packet, len): keeps a copy, at the cost of the oldest one when
 * there are PEER_STAGED_MAX.  Packets that are lost are counted.
 */
void peer_stage(struct wg_peer *p, const uint8_t *packet, size_t len);

/* peer_unstage(p): takes the oldest packet out, new, or NULL.  To be freed. */
struct peer_staged *peer_unstage(struct wg_peer *p);

/* peer_drop_staged(p): drops and counts all. */
void peer_drop_staged(struct wg_peer *p);

#endif

/*
 * control.h: a node's membership in a tailnet, through its control server.
 *
 * One control keeps a node joined: it dials, logs in, holds the map stream and
 * gives a netmap for every change; it tries again for as long as it lives.
 * States and what is allowed in each:
 *
 *   STOPPED      logged out; control_login() begins anew
 *   CONNECTING   dials, or a request is on its way
 *   WANTS_KEY    asked for the auth key: control_auth_key() (or _failed)
 *   WANTS_LOGIN  a person has to open the URL
 *   WANTS_APPROVAL  an administrator has to approve this node
 *   REFUSED      the server does not let us in; tried again slowly, or at once
 *                by control_login()
 *   RUNNING      the map stream is there
 *   EXPIRED      the node key has expired and is not renewed yet
 *   WAITING      the connection failed; tried again soon
 *
 * Every setter is allowed in every state.  No callback comes from inside a call
 * but control_free(), which makes none.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "../../core/tn_node.h"
#include "../crypto/tls.h"
#include "../engine/netmap.h"
#include "../engine/ping.h"
#include "message.h"
#include "message_pong.h"

#define CONTROL_WORDS_MAX    512
#define CONTROL_AUTH_KEY_MAX 4096 /* bytes of an auth key's source */
#define CONTROL_STATE_MAX    4096 /* bytes of the key state */

enum control_state {
    CONTROL_STOPPED,
    CONTROL_CONNECTING,
    CONTROL_WANTS_KEY,
    CONTROL_WANTS_LOGIN,
    CONTROL_WANTS_APPROVAL,
    CONTROL_REFUSED,
    CONTROL_RUNNING,
    CONTROL_EXPIRED,
    CONTROL_WAITING,
};

struct control_ops {
    /* The node key (private, borrowed) that the netmaps to come belong to. */
    void (*key)(void *arg, const uint8_t key[32]);
    /* A new netmap, taken over; ${cached}: of an earlier life. */
    void (*netmap)(void *arg, struct netmap *nm, bool cached);
    /* The one that was given last, and is still there, is another now, as
     * map_state_update() says. */
    void (*changes)(void *arg, const struct netmap_changes *c);
    /* The state or its words changed. */
    void (*state)(void *arg);
    /* For the state directory, to be there after a power loss: the keys, and
     * the netmap, a borrowed memory file. */
    void (*save_keys)(void *arg, const void *bytes, size_t len);
    void (*save_netmap)(void *arg, int fd);
    /* The auth key is needed; it is forgotten after one use. */
    void (*auth_key_wanted)(void *arg);
    /* The server wants ping number ${id}: control_pong() says what came of it,
     * from in here or later. */
    void (*ping)(
        void *arg, uint32_t id, enum ping_kind kind, const struct tn_addr *to);
};

/* Times in milliseconds that tests shorten. */
struct control_timing {
    uint32_t watchdog; /* without a message of the server */
    uint32_t backoff;  /* at most, between two tries */
};

extern const struct control_timing control_timing_default;

struct control_config {
    const struct tn_node *node; /* its options; copied */
    struct tls_trust *trust;    /* outlives the control */
    struct control_timing timing;
    const char *keys; /* what was saved, or NULL */
    size_t keys_len;
    const char *netmap; /* what was saved, or NULL */
    size_t netmap_len;
};

struct notices;

/* For status; the strings live until the next call for the control. */
struct control_status {
    enum control_state state;
    const char *state_name;
    const char *words;    /* for people, may be "" */
    const char *auth_url; /* "": none.  Only for the log and tailnetctl. */
    const char *login;    /* login name that the server told, "" */
    const char *url;
    uint64_t heard;      /* loop_now() of the last message, 0: never */
    uint64_t reconnects; /* map streams begun */
    uint64_t messages;   /* of the map stream */
    uint64_t wire, text; /* their bytes on the way, and decompressed */
    uint64_t deltas;     /* netmaps given */
    size_t contested;    /* peers that are not shown */
    const struct notices *notices;
};

struct control;

/*
 * control_new(c, ops, arg, err): begins at once.  A cached netmap and the key
 * come by callbacks soon, from the loop.  NULL and a sentence: the saved keys
 * are damaged, or no memory.
 */
struct control *control_new(const struct control_config *c,
    const struct control_ops *ops, void *arg, char err[CONTROL_WORDS_MAX]);

/* Wipes its keys; NULL is harmless.  Not from inside a callback. */
void control_free(struct control *c);

/* New options.  Returns false: it has to be made anew for them (another
 * control_url). */
bool control_set_node(struct control *c, const struct tn_node *node);

/* What peers are told of our paths; copied, at most MESSAGE_ENDPOINTS. */
void control_set_endpoints(
    struct control *c, const struct message_endpoint *e, size_t n);
void control_set_netinfo(struct control *c, const struct message_netinfo *n);
void control_set_disco(struct control *c, const uint8_t disco[32]);

/* Saves keys and netmap (again): who keeps them is another one now. */
void control_save(struct control *c);

/* The answer to auth_key_wanted(); white space around the key is cut.  Or why
 * there is none. */
void control_auth_key(struct control *c, const char *bytes, size_t len);
void control_auth_key_failed(struct control *c, const char *why);

/* What came of ops->ping() number ${id}; ${type} and ${to} of it are known. */
void control_pong(
    struct control *c, uint32_t id, const struct message_pong *pong);

/* The node leaves its tailnet: STOPPED when the server knows. */
void control_logout(struct control *c);
/* Tries at once what was waiting; after a logout, which is finished first:
 * joins anew. */
void control_login(struct control *c);
/* Gives the node a new key, sessions go on. */
void control_rotate(struct control *c);
/* The way to the server may be another one. */
void control_network_changed(struct control *c);

struct control_status control_status(struct control *c);

#endif

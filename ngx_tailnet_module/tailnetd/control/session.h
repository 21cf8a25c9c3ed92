/*
 * session.h: what control.c, login.c, poll.c and pong.c share of a control.
 *
 * session.c has the connection: dialling, delays, the state's words.  login.c
 * (register), poll.c (map stream and lite updates) and pong.c (ping requests)
 * make requests over it.
 */
#ifndef SESSION_H
#define SESSION_H

#include "../loop.h"
#include "cache.h"
#include "channel.h"
#include "control.h"
#include "fetch.h"
#include "map_frame.h"
#include "map_state.h"
#include "notice.h"
#include "renewal.h"

#define SESSION_REQUEST_MS  60000 /* for register and lite updates */
#define SESSION_BACKOFF_MS  10    /* times the failures squared */
#define SESSION_STEADY_MS   10000 /* a stream that lasted it had no failure */
#define SESSION_WAIT_S      5 /* for who asks for it without a usable time */
#define SESSION_REFUSED_MS  60000 /* doubled up to ... */
#define SESSION_REFUSED_MAX 600000
#define OAUTH_RETRY_S       10 /* after an API server's failure */
#define SESSION_PINGS       8  /* URLs that are remembered */
#define SESSION_PONGS       16 /* answers under way; the oldest gives way */

_Static_assert(H2_CALLS_MAX >= SESSION_PONGS + 4,
    "unanswered pongs leave room for the stream, a lite update and a login");

/* How the next register request is made. */
enum login_way {
    LOGIN_PLAIN,    /* the node key alone */
    LOGIN_KEY,      /* with the auth key */
    LOGIN_FOLLOWUP, /* waits for a person at ${url} */
};

struct oauth;

struct login {
    bool active;  /* a login is needed or under way */
    bool renewal; /* the stream goes on meanwhile */
    bool wanted;  /* a renewal that was asked for, whatever the key's end */
    bool renewed; /* a new key was made because the server asked */
    bool asked;   /* the auth key was asked for */
    enum login_way way;
    uint8_t key[32]; /* private node key to register */
    uint8_t old[32]; /* public key it replaces */
    bool has_old;
    char *auth_key;      /* NULL: not there.  A secret. */
    struct oauth *oauth; /* makes one */
    char *url;           /* AuthURL, or NULL ... */
    uint64_t until;      /* ... which is open so long: loop_now() */
    int32_t request;
    unsigned status; /* of the answer, 0: not there yet */
    unsigned retry;
    char *body;
    size_t bodylen;
};

/* An answer to a ping request; pong.c. */
struct session_pong {
    struct control *control;
    char *url; /* NULL: not in use */
    bool noise;
    uint32_t id; /* of the ping that is waited for, 0: none */
    const char *type;
    struct tn_addr to;
    struct fetch *fetch;
    int32_t request;
};

struct control {
    const struct control_ops *ops;
    void *arg;
    struct tn_node node;
    struct url url;
    struct tls_trust *trust;
    struct control_timing timing;

    uint8_t machine[32];
    uint8_t key[32];                     /* private node key */
    bool has_key, has_server, announced; /* announced: ops->key() was called */
    uint8_t server[32];
    uint8_t disco[32];

    enum control_state state;
    char words[CONTROL_WORDS_MAX];
    char login_name[MESSAGE_SHOWN_MAX];
    bool stopped; /* logged out */
    bool leaving; /* a logout is under way ... */
    bool rejoin;  /* ... and a login comes after it */
    int32_t leave_request;

    struct channel *channel;
    bool up;
    uint64_t dialled; /* loop_now() of the last one that succeeded, 0 */
    unsigned failures, refusals;
    struct loop_timer *retry; /* when to go on */
    struct loop_timer *begin; /* what control_new() left to the loop */

    struct login login;
    struct loop_timer *login_timer;

    struct map_state *map;
    struct netmap *cached; /* to be given, from the loop */
    struct map_frame *frames;
    int32_t poll;
    unsigned poll_status, poll_retry;
    char poll_words[MESSAGE_SHOWN_MAX]; /* of a server that gives none, "" */
    uint64_t since; /* loop_now() of the stream's first netmap, 0 */
    size_t users; /* that the stream's first message left; SIZE_MAX: to come */
    struct renewal renewal;
    struct loop_timer *watchdog, *yield, *expiry;
    struct cache cache;
    int64_t skew;      /* of the server's clock against ours, seconds */
    int64_t ahead;     /* of our clock against loop_now(), seconds */
    bool whole;        /* the next netmap is a new one */
    int64_t told_skew; /* that the last one went with */

    int32_t lite;
    bool lite_wanted;
    unsigned lite_status, lite_retry;
    bool lite_failed; /* the last one did, as the log says */
    struct loop_timer *lite_timer;
    struct message_endpoint endpoints[MESSAGE_ENDPOINTS];
    size_t nendpoints;
    struct message_netinfo net;
    bool has_net;

    uint64_t pings[SESSION_PINGS];
    unsigned nping;
    struct session_pong pongs[SESSION_PONGS];
    unsigned oldest_pong;
    uint32_t last_pong;
    char *pop_url;
    struct notices notices;
    bool locked;
    struct map_plan plan; /* where the server wants to be found */
    bool by_name;         /* it is not heeded next time */

    uint64_t heard, reconnects, messages, wire, text, deltas;
};

/* ---- session.c ---- */

/* The state, and its words; ops->state() when that is news. */
void session_set_state(struct control *c, enum control_state s, const char *fmt,
    ...) __attribute__((format(printf, 3, 4)));

/* Goes on from here: dials, logs in or polls, whatever is next. */
void session_next(struct control *c);

/* The connection or a request failed: everything under way is dropped, next
 * try after a delay that grows, or ${retry} seconds. */
void session_failed(struct control *c, unsigned retry, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The server refuses us: next try after a longer delay. */
void session_refused(struct control *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* One request over the channel; -1: it could not be made, and the session has
 * failed. */
int32_t session_request(struct control *c, const char *method, const char *path,
    const char *body, size_t len, const struct h2_ops *ops);

/* The same, with another argument for its callbacks. */
int32_t session_request_as(struct control *c, const char *method,
    const char *path, const char *body, size_t len, const struct h2_ops *ops,
    void *arg);

/* Ends a request without its callbacks; 0 is harmless. */
void session_cancel(struct control *c, int32_t *id);

void session_random(void *buf, size_t len);
int64_t session_wall(const struct control *c); /* corrected by the skew */

/* What this node says of itself; lives until the next call. */
struct message_self session_self(
    struct control *c, const uint8_t key[32], uint8_t public[32]);

/* The keys, to the state directory. */
void session_save_keys(struct control *c);

/* ---- login.c ---- */

void login_begin(struct control *c); /* makes c->login active */
void login_renew(struct control *c); /* ... with a new node key */
void login_next(struct control *c);  /* the connection is up */
void login_key(struct control *c, const char *bytes, size_t len);
void login_key_failed(struct control *c, const char *why);
void login_cancel(struct control *c); /* the connection is gone */
void login_end(struct control *c);    /* nothing is needed any more */
void login_late(void *arg);           /* login_timer: what was waited for */
void login_leave(struct control *c);  /* logout; the connection is up */

/* ---- poll.c ---- */

void poll_begin(struct control *c); /* the connection is up */
void poll_cancel(struct control *c);
void poll_renew_later(struct control *c); /* when it is to be tried */
void poll_lite(struct control *c); /* something to be announced changed */
int poll_init(struct control *c);  /* its timers; -1: no memory */
void poll_free(struct control *c);
void poll_yield(struct control *c); /* a netmap soon */
int poll_restore(struct control *c, const char *text, size_t len);

/* ---- pong.c ---- */

void pong_answer(struct control *c, const struct map_ping *p);
void pong_cancel(struct control *c);

#endif

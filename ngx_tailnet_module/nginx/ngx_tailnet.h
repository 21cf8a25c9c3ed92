
/*
 * ngx_tailnet.h: what the http and stream modules share.
 *
 * Nothing here knows http or stream.  "Node" in this file is a number: the
 * index in ngx_tailnet_conf_t.nodes of a tailnet_node that a listener or an
 * upstream names.
 */


#ifndef _NGX_TAILNET_H_INCLUDED_
#define _NGX_TAILNET_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include "tn_acl.h"
#include "tn_addr.h"
#include "tn_admin.h"
#include "tn_node.h"
#include "tn_snap.h"
#include "tn_snap_read.h"


/* keeps what is seldom needed out of the frame of what runs each time */

#define ngx_tailnet_noinline  __attribute__((noinline))


/* in messages: which words, where */

typedef struct {
    ngx_str_t                    file;
    ngx_uint_t                   line;
} ngx_tailnet_place_t;


/* a node that is named somewhere; its block may come later or elsewhere */

typedef struct {
    ngx_str_t                    name;      /* empty: "the only node" */
    uint64_t                     cookie;    /* of its network namespace */
} ngx_tailnet_node_t;


/* a listening socket that tailnetd made */

typedef struct {
    ngx_uint_t                   node;
    int                          family;
    int                          type;
    in_port_t                    port;      /* host order */
    ngx_uint_t                   worker;
    ngx_socket_t                 fd;
    ngx_uint_t                   index;     /* in cycle->listening */
    ngx_connection_handler_pt    handler;   /* of http or stream */
} ngx_tailnet_listen_t;


typedef struct {
    ngx_str_t                    path;      /* of the admin socket */
    ngx_str_t                    log;
    ngx_str_t                    level;
    ngx_str_t                    binary;
    ngx_str_t                    user;
    ngx_str_t                    timing;
    ngx_tailnet_place_t          place;     /* of tailnet_engine */

    ngx_array_t                  table;     /* struct tn_node: the blocks */
    ngx_array_t                  blocks;    /* ngx_tailnet_place_t of each */

    ngx_array_t                  nodes;     /* ngx_tailnet_node_t */
    ngx_array_t                  mentions;  /* of nodes, to be checked */
    ngx_array_t                  listens;   /* ngx_tailnet_listen_t */

    /* the control connection of this cycle; -1: none */
    ngx_socket_t                 ctl;
    ngx_socket_t                 hello;     /* hello-only, for the workers */
    ngx_socket_t                 bequest;   /* what a next holder may adopt */
    ngx_socket_t                *anchors;   /* of blocks without listeners, to
                                               find them again; or -1 */
    uint64_t                     cycle_id;
    uint32_t                     seq;
    u_char                       why[TN_ERR_MAX + 256];
} ngx_tailnet_conf_t;


#define ngx_tailnet_get_conf(cycle)                                           \
    ((ngx_tailnet_conf_t *) ngx_get_conf((cycle)->conf_ctx,                   \
                                         ngx_tailnet_module))


/*
 * ngx_tailnet_module.c
 *
 * ngx_tailnet_node_ref(): the number of the node that a directive names; an
 * empty name means "the only node".  Whether there is such a node is checked
 * when the whole configuration is known.  "what" is the directive and must
 * live as long as the cycle.
 *
 * ngx_tailnet_node_mention(): only that check.
 */

ngx_int_t ngx_tailnet_node_ref(ngx_conf_t *cf, ngx_str_t *name,
    const char *what, ngx_uint_t *node);
ngx_int_t ngx_tailnet_node_mention(ngx_conf_t *cf, ngx_str_t *name,
    const char *what);
void ngx_tailnet_place(ngx_conf_t *cf, ngx_tailnet_place_t *place);


/*
 * ngx_tailnet_admin.c: messages of tn_admin.h
 *
 * ngx_tailnet_admin_recv() returns the length; 0: the channel ended; -1 and
 * errno, EBADMSG for what can't be a message.  Descriptors become the
 * caller's.
 *
 * ngx_tailnet_admin_call() asks and waits, for the master only.  "msg" gets
 * its seq here.  NGX_OK; NGX_DECLINED: tailnetd refused; NGX_ERROR: the channel
 * is of no use any more.  The last two leave a sentence in tcf->why.
 *
 * ngx_tailnet_admin_text(): what an answer that isn't the one that was hoped
 * for says, for a log; in the message's own memory.
 */

typedef struct {
    size_t                       len;
    int                          fds[TN_ADMIN_FDS_MAX];
    ngx_uint_t                   nfds;

    union {
        struct tn_admin_head     head;
        struct tn_admin_error    error;
        struct tn_admin_hello_ok hello_ok;
        struct tn_admin_snapshot snapshot;
        u_char                   bytes[4096];
    } u;
} ngx_tailnet_msg_t;

ngx_int_t ngx_tailnet_admin_send(ngx_socket_t s, const void *msg, size_t len,
    const int *fds, ngx_uint_t nfds);
ssize_t ngx_tailnet_admin_recv(ngx_socket_t s, ngx_tailnet_msg_t *m,
    int flags);
void ngx_tailnet_admin_discard(ngx_tailnet_msg_t *m);
ngx_str_t ngx_tailnet_admin_text(ngx_tailnet_msg_t *m);
ngx_int_t ngx_tailnet_admin_call(ngx_tailnet_conf_t *tcf, ngx_socket_t *s,
    void *msg, size_t len, const int *fds, ngx_uint_t nfds, uint16_t answer,
    ngx_tailnet_msg_t *m);
void ngx_cdecl ngx_tailnet_why(ngx_tailnet_conf_t *tcf, const char *fmt, ...);


/*
 * ngx_tailnet_cycle.c: the master's side of the admin channel
 *
 * ngx_tailnet_cycle_open() leaves a sentence in tcf->why if there is no
 * tailnetd to be had; NGX_DECLINED: there is one, but it does not take these
 * nodes.  "old" is the configuration that ruled before or NULL.
 * ngx_tailnet_cycle_listen() returns a socket or -1 and a sentence.
 */

ngx_int_t ngx_tailnet_cycle_path(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf);
ngx_int_t ngx_tailnet_cycle_open(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf,
    ngx_tailnet_conf_t *old);
ngx_socket_t ngx_tailnet_cycle_listen(ngx_tailnet_conf_t *tcf,
    ngx_listening_t *ls, ngx_uint_t node);
void ngx_tailnet_cycle_commit(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf);
void ngx_tailnet_cycle_leave(ngx_tailnet_conf_t *tcf, ngx_uint_t hello);
void ngx_tailnet_cycle_stop(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf);


/* ngx_tailnet_spawn.c: returns our end of the first connection, or -1 */

ngx_socket_t ngx_tailnet_spawn(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf);


/*
 * ngx_tailnet_listen.c
 *
 * ngx_tailnet_listen_placeholder(): the address that stands for a node and
 * port until tailnetd's socket takes its place.
 *
 * ngx_tailnet_listen_find(): NULL if the listener isn't on a mesh.
 */

ngx_int_t ngx_tailnet_listen_placeholder(ngx_conf_t *cf, ngx_uint_t node,
    int family, in_port_t port, struct sockaddr **sockaddr,
    socklen_t *socklen);
ngx_int_t ngx_tailnet_listen_init_conf(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
ngx_int_t ngx_tailnet_listen_init_module(ngx_cycle_t *cycle,
    ngx_tailnet_conf_t *tcf);
ngx_tailnet_listen_t *ngx_tailnet_listen_find(ngx_listening_t *ls);
ngx_int_t ngx_tailnet_listen_cookie(ngx_socket_t fd, uint64_t *cookie);


/*
 * ngx_tailnet_worker.c: a worker's channel to tailnetd, and its snapshots
 *
 * A question that is under way is an ngx_tailnet_ask_t in the asker's memory,
 * which cancels it before that memory goes.  The handler gets the answer, or
 * NULL if the channel was lost; descriptors it doesn't take (by writing -1
 * over them) are closed.
 */

typedef void (*ngx_tailnet_answer_pt)(void *data, ngx_tailnet_msg_t *m);

typedef struct {
    ngx_queue_t                  queue;
    ngx_tailnet_answer_pt        handler;
    void                        *data;
    uint32_t                     seq;
    unsigned                     pending:1;
} ngx_tailnet_ask_t;

ngx_int_t ngx_tailnet_worker_init(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf);
void ngx_tailnet_worker_exit(void);
ngx_str_t *ngx_tailnet_worker_name(ngx_uint_t node);
ngx_uint_t ngx_tailnet_worker_ready(void);

/* NULL: no snapshot yet; valid until the caller returns to the event loop */
struct tn_snap *ngx_tailnet_worker_snap(ngx_uint_t node);

/* NGX_OK; NGX_DECLINED: no channel now */
ngx_int_t ngx_tailnet_worker_ask(ngx_tailnet_ask_t *ask, void *msg,
    size_t len);
void ngx_tailnet_worker_cancel(ngx_tailnet_ask_t *ask);


/*
 * ngx_tailnet_connect.c: connections to peers
 *
 * ngx_tailnet_connect() is for a peer.get handler and returns what such a
 * handler may: NGX_AGAIN, NGX_DONE, NGX_DECLINED or NGX_ERROR, never NGX_OK.
 * The peer.free handler calls ngx_tailnet_connect_cancel().
 *
 * ngx_tailnet_connect_watch(): for a kept connection that is used again.
 * Connections in use end when no node has their address any more.
 *
 * Addresses carry the number of the node they are reached by, from 1, in
 * sin_zero or sin6_flowinfo, which the kernel ignores;
 * ngx_tailnet_connect_marked() is that number, 0: not a mesh address.
 */

typedef struct {
    ngx_queue_t                  queue;     /* of a pool */
    ngx_queue_t                  live;      /* of the worker */
    ngx_peer_connection_t       *pc;
    ngx_connection_t            *connection;
    ngx_uint_t                   node;
    unsigned                     waiting:1;
    unsigned                     watched:1;
} ngx_tailnet_wait_t;

ngx_int_t ngx_tailnet_connect_init(ngx_cycle_t *cycle, ngx_uint_t nodes);
ngx_int_t ngx_tailnet_connect(ngx_peer_connection_t *pc, ngx_uint_t node,
    ngx_tailnet_wait_t *w);
void ngx_tailnet_connect_watch(ngx_peer_connection_t *pc, ngx_uint_t node,
    ngx_tailnet_wait_t *w);
void ngx_tailnet_connect_cancel(ngx_tailnet_wait_t *w);
void ngx_tailnet_connect_recheck(void);

/*
 * An address that is no node's can be reached where routes or an exit node are
 * used; then its sockaddr is marked.  NULL: it can, or why it cannot.
 */
const char *ngx_tailnet_connect_beyond(ngx_uint_t node, struct tn_addr *addr);
void ngx_tailnet_connect_mark(struct sockaddr *sockaddr, ngx_uint_t node,
    ngx_uint_t beyond);
ngx_uint_t ngx_tailnet_connect_marked(struct sockaddr *sockaddr);
void ngx_tailnet_connect_up(void);
void ngx_tailnet_connect_lost(void);


/*
 * ngx_tailnet_identity.c: who is at the other end of a connection
 *
 * Bound at accept: the node of the listener and the real source address.  Who
 * that is is looked up when asked, in the current snapshot, and kept until the
 * snapshot changes or a key expires.
 */

typedef enum {
    NGX_TAILNET_WHO_PEER = 0,
    NGX_TAILNET_WHO_LOCAL,          /* listener isn't on a mesh */
    NGX_TAILNET_WHO_UNKNOWN,        /* on a mesh, but no peer of ours */
    NGX_TAILNET_WHO_EXPIRED,        /* the peer's key */
    NGX_TAILNET_WHO_SELF_EXPIRED,
    NGX_TAILNET_WHO_NO_SNAPSHOT
} ngx_tailnet_who_e;


typedef struct ngx_tailnet_verdict_s  ngx_tailnet_verdict_t;
typedef struct ngx_tailnet_who_s  ngx_tailnet_who_t;

typedef struct {
    ngx_queue_t                  queue;     /* live connections of a worker */
    ngx_queue_t                  verdicts;
    ngx_tailnet_who_t           *who;       /* as last asked; or NULL */
    ngx_tailnet_verdict_t       *kept;      /* asked while it is idle */
    void                        *data;      /* of who serves it */
    ngx_connection_t            *connection;
    ngx_uint_t                   node;
    struct tn_addr               addr;
    ngx_uint_t                   round;     /* of the last recheck */
    unsigned                     closed:1;
} ngx_tailnet_identity_t;


/* a look into the snapshot; valid until the return to the event loop */

typedef struct {
    ngx_tailnet_who_e            state;
    struct tn_who                who;       /* who.peer: &peer or NULL */
    struct tn_peer               peer;
    struct tn_peer               self;
    struct tn_snap              *snap;
    unsigned                     known:1;   /* peer, though perhaps expired */
    unsigned                     has_self:1;
} ngx_tailnet_look_t;


/* what was found out for "key", which is compared only */

#define NGX_TAILNET_NOTES  8

typedef struct {
    void                        *key;
    uintptr_t                    value;
    uintptr_t                    stamp;     /* for who makes the note */
} ngx_tailnet_note_t;


/*
 * The same with copies of everything, in memory of its own: the connection and
 * each request that asks hold it, and the last one to let go frees it.  Nothing
 * in it points into a snapshot.  It does not change, so that what follows from
 * it alone is noted in it, for the requests to come.  Empty strings: not known.
 * Of a connection without identity it is in a request's pool.
 */

struct ngx_tailnet_who_s {
    ngx_pool_t                  *pool;
    ngx_uint_t                   refs;      /* 0: the pool is the request's */
    ngx_tailnet_who_e            state;
    ngx_uint_t                   round;     /* of snapshots, when looked up */
    time_t                       until;     /* a key expires; 0: none */
    struct tn_who                who;
    struct tn_peer               peer;
    unsigned                     known:1;

    ngx_tailnet_note_t           notes[NGX_TAILNET_NOTES];
    ngx_uint_t                   nnotes;
    void                        *headers;   /* of ngx_http_tailnet_headers.c */

    ngx_str_t                    counted;   /* as whom; and its hash: of */
    uint32_t                     hash;      /* ngx_http_tailnet_limit.c */

    ngx_str_t                    user;
    ngx_str_t                    user_name;
    ngx_str_t                    user_pic;
    ngx_str_t                    node_name;
    ngx_str_t                    node_id;
    ngx_str_t                    host;
    ngx_str_t                    tags;
    ngx_str_t                    ip;
    ngx_str_t                    caps;
    ngx_str_t                    identity;
    ngx_str_t                    domain;
    ngx_str_t                    self_name;
    ngx_str_t                    self_host;
    ngx_str_t                    self_ip;
};


/*
 * What let a live connection's traffic through, to be asked again when the
 * snapshot changes.  The handler returns NGX_OK, or NGX_DECLINED and a reason
 * that names the peer, at most reason->len bytes.
 *
 * ngx_tailnet_round changes with each snapshot: what was looked up in an
 * earlier round has to be asked again before it lets anything through.
 */

extern ngx_uint_t  ngx_tailnet_round;

typedef ngx_int_t (*ngx_tailnet_verdict_pt)(ngx_tailnet_verdict_t *v,
    ngx_tailnet_look_t *look, ngx_str_t *reason);

struct ngx_tailnet_verdict_s {
    ngx_queue_t                  queue;
    ngx_tailnet_verdict_pt       handler;
    void                        *data;
    unsigned                     active:1;
};

void ngx_tailnet_identity_init(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf);
void ngx_tailnet_identity_bind(ngx_connection_t *c, ngx_tailnet_listen_t *l);
ngx_tailnet_identity_t *ngx_tailnet_identity_get(ngx_connection_t *c);
void ngx_tailnet_identity_look(ngx_connection_t *c, ngx_tailnet_look_t *look);
u_char *ngx_tailnet_identity_text(u_char *buf, u_char *last,
    ngx_tailnet_who_e state, const struct tn_who *who,
    const struct tn_peer *peer);
void ngx_tailnet_identity_recheck(void);

/*
 * ngx_tailnet_identity_who(): NULL only if there is no memory; "id" is that of
 * the connection or NULL, and "pool" the request's.  The caller lets go with
 * ngx_tailnet_who_release().
 *
 * ngx_tailnet_who_current(): true until a snapshot comes or a key expires.
 *
 * ngx_tailnet_who_note(): what ngx_tailnet_who_remember() was told, or NULL;
 * valid until the next one.
 */

ngx_tailnet_who_t *ngx_tailnet_identity_who(ngx_connection_t *c,
    ngx_tailnet_identity_t *id, ngx_pool_t *pool);
ngx_tailnet_note_t *ngx_tailnet_who_remember(ngx_tailnet_who_t *who,
    void *key, uintptr_t value);


static ngx_inline ngx_uint_t
ngx_tailnet_who_current(ngx_tailnet_who_t *who)
{
    return who->round == ngx_tailnet_round
           && (who->until == 0 || who->until > ngx_time());
}


static ngx_inline void
ngx_tailnet_who_release(ngx_tailnet_who_t *who)
{
    if (who->refs && --who->refs == 0) {
        ngx_destroy_pool(who->pool);
    }
}


static ngx_inline ngx_tailnet_note_t *
ngx_tailnet_who_note(ngx_tailnet_who_t *who, void *key)
{
    ngx_tailnet_note_t  *note;

    for (note = who->notes; note < who->notes + NGX_TAILNET_NOTES; note++) {
        if (note->key == key) {
            return note;
        }
    }

    return NULL;
}


static ngx_inline void
ngx_tailnet_verdict_add(ngx_tailnet_identity_t *id, ngx_tailnet_verdict_t *v)
{
    if (!v->active) {
        v->active = 1;
        ngx_queue_insert_tail(&id->verdicts, &v->queue);
    }
}


static ngx_inline void
ngx_tailnet_verdict_remove(ngx_tailnet_verdict_t *v)
{
    if (v->active) {
        v->active = 0;
        ngx_queue_remove(&v->queue);
    }
}


/*
 * ngx_tailnet_rules.c: tailnet_acl, for http and stream
 *
 * ngx_tailnet_rules_check() refuses selectors that don't say which tailnet
 * they mean where "nodes" (a bit for each) has several.
 *
 * ngx_tailnet_rules_decide(): NGX_OK or NGX_DECLINED; *rule is the rule that
 * decided or NULL.
 *
 * ngx_tailnet_rules_ask(): that rule, decided once for each "who".
 */

typedef struct {
    struct tn_selector           selector;
    ngx_str_t                    text;      /* "accept tag:dev" */
    ngx_tailnet_place_t          place;
    unsigned                     accept:1;
} ngx_tailnet_rule_t;

char *ngx_tailnet_rules_add(ngx_conf_t *cf, ngx_array_t **rules);
char *ngx_tailnet_rules_check(ngx_conf_t *cf, ngx_array_t *rules,
    uint64_t nodes);
ngx_int_t ngx_tailnet_rules_decide(ngx_array_t *rules,
    ngx_tailnet_who_e state, const struct tn_who *who,
    ngx_tailnet_rule_t **rule);
ngx_tailnet_rule_t *ngx_tailnet_rules_note(ngx_array_t *rules,
    ngx_tailnet_who_t *who);
u_char *ngx_tailnet_rules_text(u_char *buf, u_char *last,
    ngx_tailnet_who_e state, ngx_tailnet_rule_t *rule);


static ngx_inline ngx_tailnet_rule_t *
ngx_tailnet_rules_ask(ngx_array_t *rules, ngx_tailnet_who_t *who)
{
    ngx_tailnet_note_t  *note;

    note = ngx_tailnet_who_note(who, rules);

    return note ? (ngx_tailnet_rule_t *) note->value
                : ngx_tailnet_rules_note(rules, who);
}


extern ngx_module_t  ngx_tailnet_module;


#endif /* _NGX_TAILNET_H_INCLUDED_ */

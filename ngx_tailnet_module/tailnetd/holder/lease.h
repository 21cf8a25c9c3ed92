/*
 * lease.h: a node as the holder has it: a namespace with mesh0, the files, the
 * last snapshot.
 *
 * A node is there from the moment a node table (or ADOPT) names it until
 * nobody does any more.  The engine learns of it when a committed table rules
 * it.
 */
#ifndef LEASE_H
#define LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "../ipc.h"
#include "keysrc.h"
#include "netns.h"

#define LEASE_MAX      (2 * TN_NODES_MAX) /* with those of older cycles */
#define LEASE_RETRY_MS 1000  /* for a mesh0 that could not be made */
#define LEASE_AGAIN_MS 10000 /* for what the engine could not make */

struct lease {
    char name[TN_NODE_NAME_MAX + 1]; /* "": free place */
    uint64_t serial;                 /* of all nodes there ever were, from 1 */
    struct netns ns;
    unsigned mtu;      /* of mesh0 */
    uint64_t adopter;  /* cycle that adopted it and has no table yet, or 0 */
    bool ruled;        /* ${conf} is there */
    bool told;         /* the engine has it as it is */
    int64_t again;     /* it could not make it: told again then; 0: at once */
    bool retired;      /* nobody names it: it goes when all is delivered */
    int64_t retire_at; /* ... or at this time; 0: to be set */
    struct tn_node conf;
    struct keysrc_id key, psk, netmap, ca;
    bool keyed; /* the engine has a private key, perhaps an older one */
    /* Why each cannot be used, as the engine was told; "": it can. */
    char bad[TN_ERR_MAX]; /* the netmap */
    char key_bad[TN_ERR_MAX], psk_bad[TN_ERR_MAX], ca_bad[TN_ERR_MAX];
    int watch;
    int secret; /* a memory file with the auth key that nginx's environment
                   has; or -1 */
    int saved[IPC_SAVES]; /* of a joining node without a state directory; -1:
                             nothing */
    int snapshot;         /* the last one, or -1 */
    int before;           /* the one before, or -1 */
    uint64_t generation;
    bool relisten;            /* the set of listeners may have changed */
    struct ipc_msg listeners; /* as the engine knows them */
};

struct lease *lease_find(const char *name);

/* Place number ${i} below LEASE_MAX: a node, or NULL. */
struct lease *lease_at(unsigned i);
unsigned lease_index(const struct lease *n);

/* lease_make(conf, err): the node of that name, with a namespace; made when
 * it is not there.  Returns NULL and a sentence in ${err}. */
struct lease *lease_make(const struct tn_node *conf, char err[TN_ERR_MAX]);

/* lease_adopt(name, ns, adopter, err): a node whose namespace was found again;
 * ${ns} is taken over. */
struct lease *lease_adopt(
    const char *name, struct netns *ns, uint64_t adopter, char err[TN_ERR_MAX]);

/* lease_drop(n): its end: engine, sockets, descriptors and namespace. */
void lease_drop(struct lease *n);

/* lease_retire(n): nobody names it any more: drop it as soon as its
 * connections have nothing to deliver, DRAIN_NODE_MS from now at the latest. */
void lease_retire(struct lease *n);

/* lease_pending(): has any node data to deliver? */
bool lease_pending(void);

/* For the loop: those that are retired, and when to look again (or -1). */
void lease_drain(int64_t now);
int64_t lease_drain_deadline(void);

/* lease_rule(n, conf, secret): ${conf} is what it has to be; the engine is told
 * when that or a file is new.  ${secret} stays the caller's; -1: what was said
 * before holds while it is for the same variable. */
void lease_rule(struct lease *n, const struct tn_node *conf, int secret);

/* lease_tell_all(again): to an engine: the nodes it does not have; ${again}:
 * it has none. */
void lease_tell_all(bool again);

/* lease_purge(): an adopted engine brought nodes that nobody names: end them.
 */
void lease_purge(void);

/* An engine is gone: none of them is told. */
void lease_untell_all(void);

/* lease_snapshot(n, fd, generation): ${fd} is taken over. */
void lease_snapshot(struct lease *n, int fd, uint64_t generation);

/* lease_save(n, kind, fd): SAVE of the engine; ${fd} is taken over. */
void lease_save(struct lease *n, enum ipc_save kind, int fd);

/* lease_unmade(n, now): UNMADE of the engine: it is told again after
 * LEASE_AGAIN_MS, or when a node table is committed. */
void lease_unmade(struct lease *n, int64_t now);

/* lease_want_key(n): WANTKEY of the engine, which is answered. */
void lease_want_key(const struct lease *n);

/* lease_netconf(m): NETCONF of the engine. */
void lease_netconf(const struct ipc_msg *m);

/* For the loop: a directory changed; the next time to call lease_tick(). */
void lease_stir(int64_t now);
int64_t lease_deadline(void);
void lease_tick(int64_t now);

/* lease_flush(): tell the engine of changed listeners. */
void lease_flush(void);

#endif

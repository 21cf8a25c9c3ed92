/*
 * conn.h: connections of the admin channel.
 *
 * Nobody waits for a client: a message that does not fit into a client's
 * socket buffer ends its connection.
 */
#ifndef CONN_H
#define CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_admin.h"
#include "cycle.h"
#include "lease.h"

enum conn_state {
    CONN_FREE,
    CONN_HELLO, /* nothing was said yet */
    CONN_MASTER,
    CONN_HELLO_ONLY, /* only ATTACH */
    CONN_WORKER,
    CONN_CTL,
    CONN_CLOSING, /* to be closed by conn_sweep() */
};

struct conn {
    enum conn_state state;
    bool attached; /* came over ATTACH: only a worker can be there */
    int fd;
    uint64_t serial;          /* of all connections there ever were */
    struct cycle *cycle;      /* a reference, or NULL */
    bool owns;                /* the cycle is open while this connection is */
    uint64_t subs[LEASE_MAX]; /* serials of leases; 0: not subscribed */
};

#define CONN_FDS_MAX 2 /* of a client's message */

/* A message as it came in, head first. */
struct conn_msg {
    _Alignas(uint64_t) unsigned char bytes[TN_ADMIN_MSG_MAX];
    size_t len;
    int fds[CONN_FDS_MAX];
    size_t nfds;
    bool malformed; /* too long, or too many descriptors */
};

/* conn_add(fd, attached): ${fd} is taken over.  NULL: there are
 * TN_ADMIN_CONN_MAX, ${fd} is closed. */
struct conn *conn_add(int fd, bool attached);
struct conn *conn_at(unsigned i);
unsigned conn_slot(const struct conn *c);
struct conn *conn_find(unsigned slot, uint64_t serial);

/* conn_recv(c, m): returns 1: a message; 0: none now; -1: the end. */
int conn_recv(struct conn *c, struct conn_msg *m);

/* conn_close(c): close it at the end of the loop's turn. */
void conn_close(struct conn *c);

/* conn_sweep(): close what is closing.  Returns how many cycles that touched:
 * cycle_sync() is due. */
unsigned conn_sweep(void);

/* conn_heirs_end(): a new cycle rules: workers whose master was killed keep no
 * listening socket open any more. */
void conn_heirs_end(void);

/* conn_users(): connections that need this tailnetd: masters and workers. */
unsigned conn_users(void);

/* Sending; ${fds} stay the caller's. */
void conn_send(
    struct conn *c, const void *msg, size_t len, const int *fds, size_t nfds);
void conn_reply(
    struct conn *c, uint16_t type, uint32_t seq, const int *fds, size_t nfds);
void conn_error(struct conn *c, uint32_t seq, int err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif

/*
 * Theory of operation.  Every request is a row of a table: who may send it,
 * how long it is, how many descriptors it brings, who handles it.  Length,
 * role and count are checked before any byte of the body is believed.
 * Handlers answer at once; only STATUS and PING wait for the engine (query.h),
 * STOP for the end, and TABLE for keys that another tailnetd still has.
 */
#include "admin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../log.h"
#include "child.h"
#include "query.h"
#include "sock.h"

#define REFUSE_MS 1000 /* for the HELLO of whom we refuse */

struct request {
    struct conn *c;
    uint32_t seq;
    const unsigned char *bytes; /* head first, as long as its type says */
    size_t len;
    int *fds; /* a handler that keeps one puts -1 in its place */
    size_t nfds;
    int64_t now;
};

/* A node table whose keys another tailnetd has, which may be ending. */
struct waiting {
    unsigned slot;   /* of who said it ... */
    uint64_t serial; /* ... 0: free */
    uint32_t seq;
    int64_t next, until;
    size_t len;
    char *text;
};

static struct {
    struct waiting waiting[ADMIN_WAITING_MAX];
    bool service;
    bool stop;
    unsigned slot; /* of who said STOP */
    uint64_t serial;
    uint32_t seq;
    int bequest; /* of a dead holder, until the table comes; or -1 */
} admin = {.bequest = -1};

void
admin_service(void)
{
    admin.service = true;
}

bool
admin_stop_wanted(void)
{
    return admin.stop;
}

void
admin_stopped(void)
{
    struct conn *c = conn_find(admin.slot, admin.serial);
    unsigned i;

    for (i = 0; i < ADMIN_WAITING_MAX; i++)
        free(admin.waiting[i].text);
    memset(admin.waiting, 0, sizeof(admin.waiting));
    if (admin.stop && c != NULL)
        conn_reply(c, TN_ADMIN_OK, admin.seq, NULL, 0);
}

static void
ok(const struct request *r)
{
    conn_reply(r->c, TN_ADMIN_OK, r->seq, NULL, 0);
}

/* The node of a request, or NULL and an ERROR was sent. */
static struct lease *
node_of(const struct request *r, const char name[TN_NODE_NAME_MAX + 1])
{
    struct lease *n;

    if (memchr(name, '\0', TN_NODE_NAME_MAX + 1) == NULL) {
        conn_error(r->c, r->seq, EINVAL, "a node's name has no end");
        return NULL;
    }
    n = lease_find(name);
    if (n == NULL || n->ns.net == -1 ||
        (r->c->state != CONN_CTL && !cycle_has(r->c->cycle, name))) {
        conn_error(r->c, r->seq, ENOENT, "there is no node \"%s\"%s", name,
            r->c->state == CONN_CTL ? "" : " in this nginx's configuration");
        return NULL;
    }
    return n;
}

static bool
valid_kind(const struct request *r, unsigned family, unsigned type)
{
    if ((family == 4 || family == 6) && (type == 1 || type == 2))
        return true;
    conn_error(r->c, r->seq, EINVAL, "family %u, type %u: no such socket",
        family, type);
    return false;
}

/* ---- HELLO ---- */

static void
version_error(struct conn *c, uint32_t seq, uint32_t theirs)
{
    if (theirs > TN_ADMIN_VERSION)
        conn_error(c, seq, EPROTO,
            "this tailnetd (process %d) is older than the nginx module or "
            "tailnetctl (admin version %u, not %u): restart tailnetd; where "
            "nginx starts it, stop and start nginx",
            (int)getpid(), TN_ADMIN_VERSION, theirs);
    else
        conn_error(c, seq, EPROTO,
            "this tailnetd (process %d) is newer than the nginx module or "
            "tailnetctl (admin version %u, not %u): restart nginx with the "
            "new module, and use the new tailnetctl",
            (int)getpid(), TN_ADMIN_VERSION, theirs);
    conn_close(c);
}

static bool
take_role(struct conn *c, uint32_t role)
{
    if (c->attached) {
        if (role != TN_ROLE_WORKER)
            return false;
        c->state = CONN_WORKER;
        return true;
    }
    if (role == TN_ROLE_CTL) {
        c->state = CONN_CTL;
        return true;
    }
    if (role != TN_ROLE_MASTER)
        return false;
    c->cycle = cycle_new(false);
    if (c->cycle == NULL)
        return false;
    c->owns = true;
    c->state = CONN_MASTER;
    return true;
}

static void
hello(struct conn *c, const struct conn_msg *m)
{
    struct tn_admin_hello_ok answer = {.h = {.type = TN_ADMIN_HELLO_OK}};
    struct tn_admin_hello h;

    memset(&h, 0, sizeof(h));
    memcpy(&h, m->bytes, m->len < sizeof(h) ? m->len : sizeof(h));
    /* The first 12 bytes never change; the length may. */
    if (m->malformed || m->nfds > 0 ||
        m->len < sizeof(h.h) + sizeof(h.version) ||
        h.h.type != TN_ADMIN_HELLO) {
        conn_error(c, m->len >= sizeof(h.h) ? h.h.seq : 0, EPROTO,
            "the first message has to be HELLO");
        conn_close(c);
        return;
    }
    if (h.version != TN_ADMIN_VERSION) {
        version_error(c, h.h.seq, h.version);
        return;
    }
    if (m->len != sizeof(h) || h.h.seq == 0 || !take_role(c, h.role)) {
        conn_error(c, h.h.seq, EPERM,
            "HELLO: role %u cannot be had on this "
            "connection",
            h.role);
        conn_close(c);
        return;
    }
    answer.h.seq = h.h.seq;
    answer.version = TN_ADMIN_VERSION;
    answer.pid = (uint32_t)getpid();
    answer.cycle = c->cycle == NULL ? 0 : cycle_id(c->cycle);
    conn_send(c, &answer, sizeof(answer), NULL, 0);
}

/* ---- masters ---- */

/* Tries a table and answers; false: its keys may be there soon, and ${last} did
 * not say that there is no time left. */
static bool
try_table(struct conn *c, uint32_t seq, const char *text, size_t len,
    int64_t now, bool last)
{
    char err[TN_ERR_MAX];
    unsigned line;
    int rc = cycle_table(c->cycle, text, len, "/", err, &line);

    if (rc == EAGAIN && !last)
        return false;
    if (rc != 0) {
        if (line != 0)
            conn_error(c, seq, rc, "node table, line %u: %s", line, err);
        else
            conn_error(c, seq, rc == EAGAIN ? EBUSY : rc, "%s", err);
        log_info("node table refused: %s", err);
        return true;
    }
    cycle_sync();
    child_need(now);
    conn_reply(c, TN_ADMIN_OK, seq, NULL, 0);
    return true;
}

/* false: there is no place, or no memory. */
static bool
wait_table(const struct request *r, const char *text, size_t len)
{
    struct waiting *w = NULL;
    unsigned i;

    for (i = 0; i < ADMIN_WAITING_MAX && w == NULL; i++)
        if (admin.waiting[i].serial == 0)
            w = &admin.waiting[i];
    if (w == NULL || (w->text = malloc(len + 1)) == NULL)
        return false;
    memcpy(w->text, text, len);
    w->len = len;
    w->slot = conn_slot(r->c);
    w->serial = r->c->serial;
    w->seq = r->seq;
    w->next = r->now + KEYSRC_PAUSE_MS;
    w->until = r->now + KEYSRC_WAIT_MS;
    return true;
}

static void
end_wait(struct waiting *w)
{
    free(w->text);
    memset(w, 0, sizeof(*w));
}

void
admin_tick(int64_t now)
{
    struct waiting *w;
    struct conn *c;
    unsigned i;

    for (i = 0; i < ADMIN_WAITING_MAX; i++) {
        w = &admin.waiting[i];
        if (w->serial == 0 || now < w->next)
            continue;
        w->next = now + KEYSRC_PAUSE_MS;
        c = conn_find(w->slot, w->serial);
        if (c == NULL ||
            try_table(c, w->seq, w->text, w->len, now, now >= w->until))
            end_wait(w);
    }
}

int64_t
admin_deadline(void)
{
    int64_t first = -1;
    unsigned i;

    for (i = 0; i < ADMIN_WAITING_MAX; i++) {
        const struct waiting *w = &admin.waiting[i];

        if (w->serial != 0 && (first == -1 || w->next < first))
            first = w->next;
    }
    return first;
}

static void
on_table(struct request *r)
{
    const struct tn_admin_text *t = (const void *)r->bytes;
    size_t len = r->len - sizeof(*t);

    /* ADOPTs have been said: an engine that goes on knows its descriptors. */
    if (admin.bequest != -1)
        child_adopt(admin.bequest, r->now);
    admin.bequest = -1;
    if (!try_table(r->c, r->seq, t->text, len, r->now, false) &&
        !wait_table(r, t->text, len))
        (void)try_table(r->c, r->seq, t->text, len, r->now, true);
}

static void
on_adopt(struct request *r)
{
    const struct tn_admin_adopt *m = (const void *)r->bytes;
    struct netns ns;
    struct lease *n;
    char err[TN_ERR_MAX];
    bool same;

    if (memchr(m->node, '\0', sizeof(m->node)) == NULL || m->node[0] == '\0' ||
        strchr(m->node, '/') != NULL) {
        conn_error(r->c, r->seq, EINVAL, "ADOPT: no node is named");
        return;
    }
    if (netns_of_socket(r->fds[0], &ns, err) == -1) {
        conn_error(r->c, r->seq, EINVAL, "node %s: %s", m->node, err);
        return;
    }
    n = lease_find(m->node);
    if (n != NULL) {
        same = netns_same(&n->ns, &ns);
        netns_close(&ns);
        if (!same) {
            conn_error(r->c, r->seq, EEXIST,
                "node %s has another namespace by now", m->node);
            return;
        }
    } else {
        n = lease_adopt(m->node, &ns, cycle_id(r->c->cycle), err);
        if (n == NULL) {
            conn_error(r->c, r->seq, ENOSPC, "%s", err);
            return;
        }
        log_notice("node %s: its namespace was found again", m->node);
    }
    if (sock_adopt(m->node, r->fds[0], conn_slot(r->c)) == 0)
        r->fds[0] = -1;
    if (r->nfds == 2 && admin.bequest == -1) {
        admin.bequest = r->fds[1];
        r->fds[1] = -1;
    }
    ok(r);
}

/* What can neither change any more nor be waited for. */
static bool
is_secret(int fd)
{
    const int want = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    return seals != -1 && (seals & want) == want && fstat(fd, &st) == 0 &&
           st.st_size > 0 && st.st_size <= TN_ADMIN_SECRET_MAX;
}

static void
on_secret(struct request *r)
{
    const struct tn_admin_node *m = (const void *)r->bytes;

    if (cycle_committed(r->c->cycle)) {
        conn_error(r->c, r->seq, EPERM, "SECRET after COMMIT");
        return;
    }
    if (node_of(r, m->node) == NULL)
        return;
    if (!is_secret(r->fds[0])) {
        conn_error(r->c, r->seq, EINVAL,
            "node %s: an auth key has at most %d bytes, in a sealed memory "
            "file",
            m->node, TN_ADMIN_SECRET_MAX);
        return;
    }
    cycle_secret(r->c->cycle, m->node, r->fds[0]);
    r->fds[0] = -1;
    ok(r);
}

static void
on_listen(struct request *r)
{
    struct tn_admin_listen m;
    char text[TN_ERR_MAX];
    struct lease *n;
    int fd, err = 0;

    memcpy(&m, r->bytes, sizeof(m));
    n = node_of(r, m.node);
    if (n == NULL || !valid_kind(r, m.family, m.type))
        return;
    if (m.port == 0) {
        conn_error(r->c, r->seq, EINVAL, "LISTEN: port 0");
        return;
    }
    memset(&m.h, 0, sizeof(m.h));
    m.reuseport = m.reuseport != 0;
    fd = sock_listen(&n->ns, &m, conn_slot(r->c), &err, text);
    if (fd == -1) {
        conn_error(r->c, r->seq, err, "%s", text);
        return;
    }
    n->relisten = true;
    conn_reply(r->c, TN_ADMIN_FD, r->seq, &fd, 1);
}

static void
on_commit(struct request *r)
{
    if (!cycle_commit(r->c->cycle)) {
        conn_error(r->c, r->seq, EINVAL, "COMMIT without a node table");
        return;
    }
    conn_heirs_end();
    ok(r);
}

static void
on_bequest(struct request *r)
{
    int fd = child_bequest();

    if (fd == -1)
        conn_error(r->c, r->seq, EHOSTDOWN, "there is no engine now");
    else
        conn_reply(r->c, TN_ADMIN_FD, r->seq, &fd, 1);
}

static void
on_inherit(struct request *r)
{
    const struct tn_admin_inherit *m = (const void *)r->bytes;
    struct cycle *c = cycle_find(m->cycle);

    if (c == NULL) {
        conn_error(r->c, r->seq, ENOENT, "INHERIT: there is no such cycle");
        return;
    }
    cycle_ref(c);
    cycle_close(r->c->cycle); /* its own, empty one */
    r->c->cycle = c;
    r->c->owns = false;
    r->c->state = CONN_HELLO_ONLY;
    ok(r);
}

static void
on_stop(struct request *r)
{
    if (admin.service || admin.stop || cycle_others(r->c->cycle)) {
        ok(r); /* others go on */
        return;
    }
    admin.stop = true;
    admin.slot = conn_slot(r->c);
    admin.serial = r->c->serial;
    admin.seq = r->seq;
}

/* ---- workers and tailnetctl ---- */

static void
on_attach(struct request *r)
{
    int type = 0, domain = 0;
    socklen_t len = sizeof(int);
    struct conn *c;

    if (getsockopt(r->fds[0], SOL_SOCKET, SO_DOMAIN, &domain, &len) == -1 ||
        getsockopt(r->fds[0], SOL_SOCKET, SO_TYPE, &type, &len) == -1 ||
        domain != AF_UNIX || type != SOCK_SEQPACKET) {
        log_err("ATTACH: not a SEQPACKET socket");
        return;
    }
    c = conn_add(r->fds[0], true);
    r->fds[0] = -1;
    if (c != NULL)
        c->cycle = cycle_ref(r->c->cycle);
}

static void
send_snapshot(struct conn *c, const struct lease *n)
{
    struct tn_admin_snapshot m = {.h = {.type = TN_ADMIN_SNAPSHOT}};

    memcpy(m.node, n->name, sizeof(m.node));
    m.generation = n->generation;
    conn_send(c, &m, sizeof(m), &n->snapshot, 1);
}

void
admin_publish(const struct lease *n)
{
    struct conn *c;
    unsigned i;

    for (i = 0; i < TN_ADMIN_CONN_MAX; i++) {
        c = conn_at(i);
        if (c != NULL && c->subs[lease_index(n)] == n->serial)
            send_snapshot(c, n);
    }
}

static void
on_subscribe(struct request *r)
{
    const struct tn_admin_node *m = (const void *)r->bytes;
    struct lease *n = node_of(r, m->node);

    if (n == NULL)
        return;
    r->c->subs[lease_index(n)] = n->serial;
    ok(r);
    if (n->snapshot != -1)
        send_snapshot(r->c, n);
}

static void
on_sockets(struct request *r)
{
    const struct tn_admin_sockets *m = (const void *)r->bytes;
    struct lease *n = node_of(r, m->node);
    struct netns_answer a;

    if (n == NULL || !valid_kind(r, m->family, m->type))
        return;
    if (m->count < 1 || m->count > TN_ADMIN_FDS_MAX) {
        conn_error(r->c, r->seq, EINVAL, "SOCKETS: %u at once, not 1 to %d",
            m->count, TN_ADMIN_FDS_MAX);
        return;
    }
    if (sock_make(&n->ns, m->family, m->type, m->count, &a) == -1) {
        conn_error(r->c, r->seq, a.err, "node %s: %s", m->node, a.text);
        return;
    }
    conn_reply(r->c, TN_ADMIN_FDS, r->seq, a.fds, a.nfds);
    while (a.nfds > 0)
        close(a.fds[--a.nfds]);
}

static void
on_status(struct request *r)
{
    struct ipc_msg q = {.type = IPC_QUERY, .kind = IPC_QUERY_STATUS};
    const struct tn_admin_text *m = (const void *)r->bytes;
    size_t len = r->len - sizeof(*m);
    char name[TN_NODE_NAME_MAX + 1] = "";

    if (len >= sizeof(name)) {
        conn_error(r->c, r->seq, EINVAL, "STATUS: the node's name is too long");
        return;
    }
    memcpy(name, m->text, len);
    if (name[0] != '\0' && node_of(r, name) == NULL)
        return;
    memcpy(q.node, name, sizeof(name));
    query_ask(r->c, r->seq, &q, r->now);
}

static void
on_ping(struct request *r)
{
    struct ipc_msg q = {.type = IPC_QUERY, .kind = IPC_QUERY_PING};
    const struct tn_admin_ping *m = (const void *)r->bytes;

    if (node_of(r, m->node) == NULL)
        return;
    memcpy(q.node, m->node, sizeof(m->node));
    q.addr = m->addr;
    q.timeout_ms = m->timeout_ms;
    query_ask(r->c, r->seq, &q, r->now);
}

static void
on_control(struct request *r)
{
    static const uint16_t kinds[] = {[TN_CONTROL_LOGIN] = IPC_QUERY_LOGIN,
        [TN_CONTROL_LOGOUT] = IPC_QUERY_LOGOUT,
        [TN_CONTROL_ROTATE] = IPC_QUERY_ROTATE,
        [TN_CONTROL_SHOW] = IPC_QUERY_SHOW};
    const struct tn_admin_control *m = (const void *)r->bytes;
    struct ipc_msg q = {.type = IPC_QUERY};

    if (m->what < TN_CONTROL_LOGIN || m->what > TN_CONTROL_SHOW) {
        conn_error(
            r->c, r->seq, EINVAL, "CONTROL: unknown command %u", m->what);
        return;
    }
    if (node_of(r, m->node) == NULL)
        return;
    q.kind = kinds[m->what];
    memcpy(q.node, m->node, sizeof(m->node));
    query_ask(r->c, r->seq, &q, r->now);
}

static void
on_netns(struct request *r)
{
    const struct tn_admin_node *m = (const void *)r->bytes;
    struct lease *n = node_of(r, m->node);
    int fds[2];

    if (n == NULL)
        return;
    fds[0] = n->ns.net;
    fds[1] = n->ns.user;
    conn_reply(r->c, TN_ADMIN_FDS, r->seq, fds, fds[1] == -1 ? 1 : 2);
}

static void
on_only(struct request *r)
{
    struct tn_admin_node m = {.h = {.type = TN_ADMIN_NODE}};
    const struct lease *n;
    unsigned i, count = 0;

    for (i = 0; i < LEASE_MAX; i++) {
        n = lease_at(i);
        if (n == NULL || n->ns.net == -1 || n->retired)
            continue;
        memcpy(m.node, n->name, sizeof(m.node));
        count++;
    }
    if (count != 1) {
        conn_error(r->c, r->seq, ENOENT,
            count == 0 ? "there is no node" : "there are %u nodes: name one",
            count);
        return;
    }
    m.h.seq = r->seq;
    conn_send(r->c, &m, sizeof(m), NULL, 0);
}

/* ---- dispatch ---- */

#define MASTER  (1u << CONN_MASTER)
#define INHERIT (1u << CONN_HELLO_ONLY)
#define WORKER  (1u << CONN_WORKER)
#define CTL     (1u << CONN_CTL)

/* Besides: nothing for the clients of a service.  Its engine, its namespaces
 * and its auth keys are its own; a client may have less rights than it. */
#define OWNER (1u << 31)

static const struct row {
    uint16_t type;
    const char *name;
    unsigned who;    /* conn_state bits */
    size_t min, max; /* bytes with the head */
    size_t min_fds, max_fds;
    void (*handle)(struct request *r);
} rows[] = {
    {TN_ADMIN_TABLE, "TABLE", MASTER, sizeof(struct tn_admin_text),
        sizeof(struct tn_admin_text) + TN_TABLE_MAX, 0, 0, on_table},
    {TN_ADMIN_ADOPT, "ADOPT", MASTER | OWNER, sizeof(struct tn_admin_adopt),
        sizeof(struct tn_admin_adopt), 1, 2, on_adopt},
    {TN_ADMIN_SECRET, "SECRET", MASTER | OWNER, sizeof(struct tn_admin_node),
        sizeof(struct tn_admin_node), 1, 1, on_secret},
    {TN_ADMIN_LISTEN, "LISTEN", MASTER, sizeof(struct tn_admin_listen),
        sizeof(struct tn_admin_listen), 0, 0, on_listen},
    {TN_ADMIN_COMMIT, "COMMIT", MASTER, sizeof(struct tn_admin_head),
        sizeof(struct tn_admin_head), 0, 0, on_commit},
    {TN_ADMIN_BEQUEST, "BEQUEST", MASTER | OWNER, sizeof(struct tn_admin_head),
        sizeof(struct tn_admin_head), 0, 0, on_bequest},
    {TN_ADMIN_INHERIT, "INHERIT", MASTER, sizeof(struct tn_admin_inherit),
        sizeof(struct tn_admin_inherit), 0, 0, on_inherit},
    {TN_ADMIN_STOP, "STOP", MASTER, sizeof(struct tn_admin_head),
        sizeof(struct tn_admin_head), 0, 0, on_stop},
    {TN_ADMIN_ATTACH, "ATTACH", INHERIT, sizeof(struct tn_admin_head),
        sizeof(struct tn_admin_head), 1, 1, on_attach},
    {TN_ADMIN_SUBSCRIBE, "SUBSCRIBE", WORKER | CTL,
        sizeof(struct tn_admin_node), sizeof(struct tn_admin_node), 0, 0,
        on_subscribe},
    {TN_ADMIN_SOCKETS, "SOCKETS", MASTER | WORKER,
        sizeof(struct tn_admin_sockets), sizeof(struct tn_admin_sockets), 0, 0,
        on_sockets},
    {TN_ADMIN_STATUS, "STATUS", WORKER | CTL, sizeof(struct tn_admin_text),
        TN_ADMIN_MSG_MAX, 0, 0, on_status},
    {TN_ADMIN_PING, "PING", CTL, sizeof(struct tn_admin_ping),
        sizeof(struct tn_admin_ping), 0, 0, on_ping},
    {TN_ADMIN_CONTROL, "CONTROL", CTL, sizeof(struct tn_admin_control),
        sizeof(struct tn_admin_control), 0, 0, on_control},
    {TN_ADMIN_NETNS, "NETNS", CTL, sizeof(struct tn_admin_node),
        sizeof(struct tn_admin_node), 0, 0, on_netns},
    {TN_ADMIN_ONLY, "ONLY", CTL, sizeof(struct tn_admin_head),
        sizeof(struct tn_admin_head), 0, 0, on_only},
};

static const struct row *
row_of(uint16_t type)
{
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].type == type)
            return &rows[i];
    }
    return NULL;
}

static void
dispatch(struct conn *c, struct conn_msg *m, int64_t now)
{
    struct tn_admin_head h;
    const struct row *row;
    struct request r = {.c = c,
        .bytes = m->bytes,
        .len = m->len,
        .fds = m->fds,
        .nfds = m->nfds,
        .now = now};

    if (m->len < sizeof(h)) {
        conn_error(c, 0, EBADMSG, "a message of %zu bytes has no head", m->len);
        conn_close(c);
        return;
    }
    memcpy(&h, m->bytes, sizeof(h));
    r.seq = h.seq;
    row = row_of(h.type);
    if (m->malformed)
        conn_error(c, h.seq, EMSGSIZE,
            "the message is too long or brings too "
            "many descriptors");
    else if (h.seq == 0 || h.flags != 0)
        conn_error(c, h.seq, EBADMSG, "a request has a number and no flags");
    else if (row == NULL)
        conn_error(c, h.seq, EOPNOTSUPP, "unknown request %u", h.type);
    else if (!(row->who & 1u << c->state))
        conn_error(
            c, h.seq, EPERM, "%s is not allowed on this connection", row->name);
    else if ((row->who & OWNER) && admin.service)
        conn_error(c, h.seq, EPERM,
            "%s: this tailnetd is a service (tailnetd -c), its nodes are its "
            "own",
            row->name);
    else if (m->len < row->min || m->len > row->max || m->nfds < row->min_fds ||
             m->nfds > row->max_fds)
        conn_error(c, h.seq, EBADMSG,
            "%s: %zu bytes and %zu descriptors: "
            "malformed",
            row->name, m->len, m->nfds);
    else
        row->handle(&r);
}

void
admin_read(struct conn *c, int64_t now)
{
    static struct conn_msg m; /* too big for a stack */
    int rc = conn_recv(c, &m);
    size_t i;

    if (rc == 0)
        return;
    if (rc == -1)
        conn_close(c);
    else if (c->state == CONN_HELLO)
        hello(c, &m);
    else
        dispatch(c, &m, now);
    for (i = 0; rc == 1 && i < m.nfds; i++) {
        if (m.fds[i] != -1)
            close(m.fds[i]);
    }
}

void
admin_refuse(int fd, int err, const char *text)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    static struct conn_msg m;
    struct tn_admin_head h = {.seq = 0};
    struct conn *c = conn_add(fd, false);

    if (c == NULL)
        return;
    if (poll(&p, 1, REFUSE_MS) == 1 && conn_recv(c, &m) == 1 &&
        m.len >= sizeof(h))
        memcpy(&h, m.bytes, sizeof(h));
    conn_error(c, h.seq, err, "%s", text);
    conn_close(c);
    conn_sweep();
}

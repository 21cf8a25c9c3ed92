/* links: tailnetd/holder/admin.c tailnetd/holder/conn.c */
/* links: tailnetd/holder/cycle.c tailnetd/holder/lease.c */
/* links: tailnetd/holder/query.c tailnetd/holder/sock.c */
/* links: tailnetd/holder/store.c core/tn_addr.c core/tn_node.c */
/* links: tailnetd/rights.c */
/* libs: -Wl,--wrap=socket,--wrap=bind,--wrap=listen,--wrap=setsockopt */
/* max_len: 768 */
/*
 * The admin channel's dispatcher and what lies behind it, without privileges:
 * namespaces, files and the engine are stand-ins below that succeed or fail as
 * the input says.  A story of connections and messages, right ones and any
 * bytes.  Every request has one answer at most; in the end every descriptor is
 * closed and every key's lock is given back.
 *
 * One thing stays in the program: that somebody said STOP.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/holder/admin.h"
#include "../../ngx_tailnet_module/tailnetd/holder/authkey.h"
#include "../../ngx_tailnet_module/tailnetd/holder/child.h"
#include "../../ngx_tailnet_module/tailnetd/holder/cycle.h"
#include "../../ngx_tailnet_module/tailnetd/holder/drain.h"
#include "../../ngx_tailnet_module/tailnetd/holder/netconf.h"
#include "../../ngx_tailnet_module/tailnetd/holder/query.h"
#include "../../ngx_tailnet_module/tailnetd/holder/state.h"
#include "../../ngx_tailnet_module/tailnetd/holder/store.h"
#include "../../ngx_tailnet_module/tailnetd/holder/tun.h"
#include "../../ngx_tailnet_module/tailnetd/log.h"
#include "fuzz.h"

#define CLIENTS 12

static struct {
    unsigned fail; /* what goes wrong, as bits */
    bool engine;
    int locks;
    uint32_t query; /* the last one that the engine was asked */
    int64_t now;
    uint32_t seq;
    uint64_t cycles[CLIENTS];
    int clients[CLIENTS]; /* our ends, or -1 */
} s;

enum {
    FAIL_NETNS = 1,
    FAIL_RUN = 2,
    FAIL_LOCK = 4,
    FAIL_FILE = 8,
    FAIL_SOCKET = 16,
    FAIL_BIND = 32,
    FAIL_ADOPT = 64,
    OTHER_NETNS = 128,
};

static int udp, tcp; /* real sockets, to be adopted */

static int
some_fd(void)
{
    int fd = fcntl(0, F_DUPFD_CLOEXEC, 3);

    FUZZ_MUST(fd != -1);
    return fd;
}

/* ---- system calls of the jobs ---- */

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __real_bind(int fd, const struct sockaddr *sa, socklen_t len);
int __wrap_bind(int fd, const struct sockaddr *sa, socklen_t len);
int __real_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog);
int __wrap_setsockopt(
    int fd, int level, int name, const void *value, socklen_t len);

int
__wrap_socket(int domain, int type, int protocol)
{
    (void)type;
    (void)protocol;
    FUZZ_MUST(domain == AF_INET || domain == AF_INET6);
    errno = EAFNOSUPPORT;
    return s.fail & FAIL_SOCKET ? -1 : some_fd();
}

int
__wrap_bind(int fd, const struct sockaddr *sa, socklen_t len)
{
    (void)fd;
    fuzz_touch(sa, len);
    errno = EADDRINUSE;
    return s.fail & FAIL_BIND ? -1 : 0;
}

int
__wrap_listen(int fd, int backlog)
{
    (void)fd;
    (void)backlog;
    return 0;
}

int
__wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    (void)fd;
    (void)level;
    (void)name;
    fuzz_touch(value, len);
    return 0;
}

/* ---- stand-ins ---- */

void
log_write(enum log_level level, const char *fmt, ...)
{
    char line[LOG_LINE_MAX];
    va_list ap;

    FUZZ_MUST(level <= LOG_LEVEL_DEBUG);
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
}

void
netns_fail(struct netns_answer *a, int err, const char *fmt, ...)
{
    va_list ap;

    a->err = err;
    va_start(ap, fmt);
    vsnprintf(a->text, sizeof(a->text), fmt, ap);
    va_end(ap);
}

int
netns_run(
    const struct netns *ns, netns_job *job, void *arg, struct netns_answer *a)
{
    FUZZ_MUST(ns->net != -1);
    memset(a, 0, sizeof(*a));
    if (s.fail & FAIL_RUN)
        netns_fail(a, EIO, "no");
    else
        job(arg, a);
    FUZZ_MUST(a->nfds <= NETNS_FDS_MAX);
    return a->err == 0 ? 0 : -1;
}

int
netns_make(struct netns *ns, netns_job *job, void *arg, struct netns_answer *a)
{
    memset(a, 0, sizeof(*a));
    *ns = NETNS_NONE;
    if (s.fail & FAIL_NETNS) {
        netns_fail(a, EPERM, "no");
        return -1;
    }
    ns->net = some_fd();
    job(arg, a);
    return 0;
}

int
netns_of_socket(int sock, struct netns *ns, char err[TN_ERR_MAX])
{
    FUZZ_MUST(fcntl(sock, F_GETFD) != -1);
    if (s.fail & FAIL_ADOPT) {
        snprintf(err, TN_ERR_MAX, "no");
        return -1;
    }
    *ns = (struct netns){some_fd(), some_fd()};
    return 0;
}

bool
netns_same(const struct netns *a, const struct netns *b)
{
    FUZZ_MUST(a->net != -1 && b->net != -1);
    return !(s.fail & OTHER_NETNS);
}

void
netns_close(struct netns *ns)
{
    if (ns->net != -1)
        FUZZ_MUST(close(ns->net) == 0);
    if (ns->user != -1)
        FUZZ_MUST(close(ns->user) == 0);
    *ns = NETNS_NONE;
}

bool
drain_pending(const struct netns *ns)
{
    FUZZ_MUST(ns->net != -1);
    return s.fail & OTHER_NETNS;
}

void
tun_make(void *arg, struct netns_answer *a)
{
    const struct tun_spec *spec = arg;

    FUZZ_MUST(spec->node[0] != '\0');
    a->fds[a->nfds++] = some_fd();
}

void
tun_set_mtu(void *arg, struct netns_answer *a)
{
    (void)arg;
    (void)a;
}

void
netconf_apply(void *arg, struct netns_answer *a)
{
    const struct netconf *c = arg;

    (void)a;
    FUZZ_MUST(c->naddrs <= IPC_ADDRS_MAX);
    fuzz_touch(c->addrs, c->naddrs * sizeof(c->addrs[0]));
}

int
keysrc_open(const char *path, enum keysrc_kind kind, struct keysrc_id *id,
    char err[TN_ERR_MAX])
{
    (void)kind;
    FUZZ_MUST(path[0] == '/');
    memset(id, 0, sizeof(*id));
    if (s.fail & FAIL_FILE) {
        snprintf(err, TN_ERR_MAX, "%.200s: no", path);
        return -1;
    }
    id->ino = 1;
    return some_fd();
}

void
keysrc_id(const char *path, struct keysrc_id *id)
{
    FUZZ_MUST(path[0] == '/');
    memset(id, 0, sizeof(*id));
    id->ino = !(s.fail & FAIL_FILE);
}

bool
keysrc_same(const struct keysrc_id *a, const struct keysrc_id *b)
{
    return a->ino == b->ino;
}

int
keysrc_lock(const char *path, char err[TN_ERR_MAX])
{
    if (s.fail & FAIL_LOCK) {
        snprintf(err, TN_ERR_MAX, "%.200s: no", path);
        return -1;
    }
    s.locks++;
    return 0;
}

void
keysrc_unlock(const char *path)
{
    (void)path;
    FUZZ_MUST(--s.locks >= 0);
}

int
keysrc_relock(const char *path, char err[TN_ERR_MAX])
{
    snprintf(err, TN_ERR_MAX, "%.200s: no", path);
    return s.fail & FAIL_LOCK ? -1 : 0;
}

int
keysrc_watch(const char *path, int wd)
{
    FUZZ_MUST(path[0] == '/');
    return wd;
}

void
keysrc_unwatch(int wd)
{
    (void)wd;
}

void
keysrc_drain(void)
{
}

int
state_make(const char *path, char err[TN_ERR_MAX])
{
    snprintf(err, TN_ERR_MAX, "%.200s: no", path);
    return s.fail & FAIL_FILE ? -1 : 0;
}

int
state_open(const char *path, enum ipc_save kind, char err[TN_ERR_MAX])
{
    FUZZ_MUST(path[0] == '/' && kind < IPC_SAVES);
    err[0] = '\0';
    if (!(s.fail & FAIL_FILE))
        return some_fd();
    if (s.fail & FAIL_LOCK)
        snprintf(err, TN_ERR_MAX, "%.200s: no", path);
    return -1;
}

int
state_save(const char *path, enum ipc_save kind, int fd, char err[TN_ERR_MAX])
{
    FUZZ_MUST(path[0] == '/' && kind < IPC_SAVES);
    FUZZ_MUST(fcntl(fd, F_GETFD) != -1);
    snprintf(err, TN_ERR_MAX, "%.200s: no", path);
    return s.fail & FAIL_FILE ? -1 : 0;
}

int
authkey_open(const char *source, int secret, char err[TN_ERR_MAX])
{
    FUZZ_MUST(secret == -1 || fcntl(secret, F_GET_SEALS) > 0);
    snprintf(err, TN_ERR_MAX, "%.200s: no", source);
    return s.fail & FAIL_FILE ? -1 : some_fd();
}

bool
child_running(void)
{
    return s.engine;
}

bool
child_send(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    size_t i;

    for (i = 0; i < nfds; i++)
        FUZZ_MUST(fcntl(fds[i], F_GETFD) != -1);
    FUZZ_MUST(nfds <= IPC_FDS_MAX);
    if (m->type != IPC_PUT && m->type != IPC_ENTRY)
        FUZZ_MUST(memchr(m->node, '\0', sizeof(m->node)) != NULL);
    if (m->type == IPC_LISTENERS)
        FUZZ_MUST(m->nlisteners <= IPC_LISTENERS_MAX);
    if (m->type == IPC_QUERY && s.engine)
        s.query = m->id;
    return s.engine;
}

void
child_need(int64_t now)
{
    (void)now;
}

void
child_adopt(int bequest, int64_t now)
{
    (void)now;
    FUZZ_MUST(close(bequest) == 0);
}

int
child_bequest(void)
{
    return s.engine ? 0 : -1;
}

/* ---- clients ---- */

/* All that a client is told.  Returns how many answers have number ${seq}. */
static unsigned
drain(int fd, uint32_t seq, uint64_t *cycle)
{
    static union {
        unsigned char b[4096];
        struct tn_admin_head h;
        struct tn_admin_hello_ok ok;
    } m;
    union {
        struct cmsghdr h;
        char b[CMSG_SPACE(sizeof(int) * TN_ADMIN_FDS_MAX)];
    } control;
    struct iovec iov = {&m, sizeof(m)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *c;
    unsigned found = 0;
    ssize_t n;
    size_t i;
    int got;

    for (;;) {
        h.msg_control = control.b;
        h.msg_controllen = sizeof(control.b);
        n = recvmsg(fd, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n <= 0)
            return found;
        FUZZ_MUST((size_t)n >= sizeof(m.h) && !(h.msg_flags & MSG_CTRUNC));
        for (c = CMSG_FIRSTHDR(&h); c != NULL; c = CMSG_NXTHDR(&h, c)) {
            for (i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                close(got);
            }
        }
        FUZZ_MUST(m.h.type <= TN_ADMIN_SNAPSHOT);
        if (m.h.type == TN_ADMIN_SNAPSHOT)
            FUZZ_MUST(m.h.seq == 0);
        else
            found += m.h.seq == seq;
        if (m.h.type == TN_ADMIN_HELLO_OK)
            *cycle = m.ok.cycle;
    }
}

static void
send_fds(int to, const void *p, size_t len, const int *fds, size_t nfds)
{
    union {
        struct cmsghdr h;
        char b[CMSG_SPACE(sizeof(int) * 4)];
    } c;
    struct iovec iov = {(void *)(uintptr_t)p, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nfds > 0) {
        memset(&c, 0, sizeof(c));
        m.msg_control = c.b;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        c.h.cmsg_level = SOL_SOCKET;
        c.h.cmsg_type = SCM_RIGHTS;
        c.h.cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(&c.h), fds, sizeof(int) * nfds);
    }
    (void)sendmsg(to, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A turn of the holder's loop. */
static void
turn(void)
{
    struct conn *c;
    unsigned i;

    for (i = 0; i < TN_ADMIN_CONN_MAX; i++) {
        c = conn_at(i);
        if (c != NULL && c->state != CONN_CLOSING)
            admin_read(c, s.now);
    }
    lease_tick(s.now);
    query_tick(s.now);
    if (conn_sweep() > 0)
        cycle_sync();
    lease_flush();
}

static void
say(unsigned k, const void *p, size_t len, const int *fds, size_t nfds)
{
    struct tn_admin_head h = {.seq = 0};
    unsigned answers;

    if (s.clients[k] == -1)
        return;
    if (len >= sizeof(h))
        memcpy(&h, p, sizeof(h));
    send_fds(s.clients[k], p, len, fds, nfds);
    turn();
    answers = drain(s.clients[k], h.seq, &s.cycles[k]);
    FUZZ_MUST(h.seq == 0 || answers <= 1);
}

static void
hang_up(unsigned k)
{
    if (s.clients[k] != -1)
        close(s.clients[k]);
    s.clients[k] = -1;
    turn();
}

/* The other end of a new client ${k}. */
static int
new_client(unsigned k)
{
    int sv[2];

    hang_up(k);
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    s.clients[k] = sv[0];
    return sv[1];
}

static void
say_hello(unsigned k, uint32_t role)
{
    struct tn_admin_hello h = {.h = {.type = TN_ADMIN_HELLO, .seq = ++s.seq},
        .version = TN_ADMIN_VERSION,
        .role = role};

    say(k, &h, sizeof(h), NULL, 0);
}

static void
say_head(unsigned k, uint16_t type)
{
    struct tn_admin_head h = {.type = type, .seq = ++s.seq};

    say(k, &h, sizeof(h), NULL, 0);
}

/* ---- right messages ---- */

static const char *const tables[] = {
    "\n",
    "tailnet_node web { netmap /m; private_key /k; }\n",
    "tailnet_node web { netmap /m; private_key /k2; port 7; mtu 1400; }\n"
    "tailnet_node db { netmap /n; private_key /k3; preshared_keys /p; }\n",
    "tailnet_node db { netmap /n; private_key /k; }\n",
    "tailnet_node a { netmap /n; private_key /k; }\n"
    "tailnet_node a { netmap /n; private_key /k; }\n",
    "tailnet_node web { auth_key file:/a; state /s; tags tag:a; }\n"
    "tailnet_node db { auth_key env:K; ephemeral on; }\n",
};
#define TABLES (sizeof(tables) / sizeof(tables[0]))

static void
say_table(unsigned k, struct fuzz_input *in)
{
    static struct {
        struct tn_admin_head h;
        char text[1024];
    } m;
    uint8_t n = fuzz_u8(in);
    struct fuzz_input part;
    size_t len;

    m.h = (struct tn_admin_head){.type = TN_ADMIN_TABLE, .seq = ++s.seq};
    if (n < TABLES) {
        len = strlen(tables[n]);
        memcpy(m.text, tables[n], len);
    } else {
        part = fuzz_bytes(in, fuzz_u8(in));
        len = part.len;
        memcpy(m.text, part.p, len);
    }
    say(k, &m, sizeof(m.h) + len, NULL, 0);
}

/* A node's request of a fixed size, its last bytes from the input. */
static void
say_node(unsigned k, struct fuzz_input *in)
{
    static const struct {
        uint16_t type;
        size_t len;
    } kinds[] = {
        {TN_ADMIN_LISTEN, sizeof(struct tn_admin_listen)},
        {TN_ADMIN_SUBSCRIBE, sizeof(struct tn_admin_node)},
        {TN_ADMIN_SOCKETS, sizeof(struct tn_admin_sockets)},
        {TN_ADMIN_PING, sizeof(struct tn_admin_ping)},
        {TN_ADMIN_NETNS, sizeof(struct tn_admin_node)},
        {TN_ADMIN_ADOPT, sizeof(struct tn_admin_adopt)},
    };
    static const char *const names[] = {"web", "db", "a", "", "Web/x"};
    struct {
        struct tn_admin_head h;
        char node[TN_NODE_NAME_MAX + 1];
        uint8_t rest[64];
    } m;
    uint8_t what = fuzz_u8(in);
    struct fuzz_input part;
    size_t kind = what % 6;
    int fds[2];

    memset(&m, 0, sizeof(m));
    m.h.type = kinds[kind].type;
    m.h.seq = ++s.seq;
    strcpy(m.node, names[what / 6 % 5]);
    if (what >= 240)
        memset(m.node, 'x', sizeof(m.node));
    part = fuzz_bytes(in, kinds[kind].len -
                              offsetof(struct tn_admin_node, node) -
                              sizeof(m.node));
    memcpy(m.rest, part.p, part.len);
    fds[0] = what & 64 ? udp : tcp;
    fds[1] = 0;
    say(k, &m, kinds[kind].len, fds,
        m.h.type == TN_ADMIN_ADOPT ? 1 + (what >> 7) : 0);
}

static void
say_secret(unsigned k, uint8_t what)
{
    struct tn_admin_node m = {.h = {.type = TN_ADMIN_SECRET, .seq = ++s.seq}};
    int fd = memfd_create("secret", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    strcpy(m.node, what & 2 ? "db" : "web");
    FUZZ_MUST(fd != -1 && ftruncate(fd, what & 4 ? 4097 : 8) == 0);
    fcntl(fd, F_ADD_SEALS,
        F_SEAL_WRITE | F_SEAL_GROW | (what & 8 ? 0 : F_SEAL_SHRINK));
    say(k, &m, sizeof(m), what & 16 ? &udp : &fd, 1);
    close(fd);
}

static void
say_inherit(unsigned k, struct fuzz_input *in)
{
    struct tn_admin_inherit m = {
        .h = {.type = TN_ADMIN_INHERIT, .seq = ++s.seq}};
    uint8_t of = fuzz_u8(in);

    m.cycle = of < CLIENTS ? s.cycles[of] : of;
    say(k, &m, sizeof(m), NULL, 0);
}

static void
say_attach(unsigned k, struct fuzz_input *in)
{
    struct tn_admin_head h = {.type = TN_ADMIN_ATTACH, .seq = ++s.seq};
    unsigned other = fuzz_u8(in) % CLIENTS;
    int end;

    if (other == k || s.clients[k] == -1) {
        say(k, &h, sizeof(h), &udp, 1);
        return;
    }
    end = new_client(other);
    say(k, &h, sizeof(h), &end, 1);
    close(end);
    say_hello(other, TN_ROLE_WORKER);
}

static void
say_anything(unsigned k, struct fuzz_input *in)
{
    static unsigned char b[TN_ADMIN_MSG_MAX + 100];
    int fds[4] = {0, udp, tcp, 0};
    uint8_t nfds = fuzz_u8(in);
    size_t len = fuzz_u8(in);
    struct fuzz_input part;

    if (nfds & 128)
        len = sizeof(b) - len;
    part = fuzz_bytes(in, len);
    memset(b, 0, sizeof(b));
    memcpy(b, part.p, part.len);
    say(k, b, nfds & 64 ? len : part.len, fds, nfds % 5);
}

/* ---- the engine's side ---- */

static void
engine(struct fuzz_input *in)
{
    struct ipc_msg m = {.type = IPC_NETCONF, .node = "web"};
    uint8_t what = fuzz_u8(in);
    struct lease *n = lease_find(what & 128 ? "web" : "db");
    struct tn_addr a;

    switch (what & 7) {
    case 0:
        s.engine = true;
        lease_tell_all(what & 8);
        break;
    case 1:
        s.engine = false;
        lease_untell_all();
        query_fail_all();
        break;
    case 2:
        query_answer(s.query, 0, "");
        break;
    case 3:
        query_answer(fuzz_u8(in), -1, what & 8 ? "busy" : "");
        break;
    case 4:
        if (n != NULL && what & 64) {
            lease_save(n, (enum ipc_save)(what / 16u % IPC_SAVES), some_fd());
            lease_want_key(n);
        } else if (n != NULL) {
            lease_snapshot(n, some_fd(), fuzz_u8(in));
            admin_publish(n);
        }
        break;
    case 5:
        m.naddrs = what / 8u % (IPC_ADDRS_MAX + 1);
        a = tn_addr_from4((const uint8_t[4]){100, 64, 0, what});
        m.addrs[0] = (struct tn_prefix){a, 128};
        lease_netconf(&m);
        break;
    case 6:
        lease_stir(s.now);
        break;
    case 7:
        s.now += what * 100;
        break;
    }
}

static void
step(struct fuzz_input *in)
{
    uint8_t what = fuzz_u8(in), k = (what >> 4) % CLIENTS;
    static const uint16_t heads[] = {
        TN_ADMIN_COMMIT, TN_ADMIN_BEQUEST, TN_ADMIN_STOP, TN_ADMIN_STATUS};
    struct conn *c;

    switch (what & 15) {
    case 0:
        c = conn_add(new_client(k), false);
        FUZZ_MUST(c != NULL);
        break;
    case 1:
    case 2:
    case 3:
        c = conn_add(new_client(k), false);
        FUZZ_MUST(c != NULL);
        say_hello(k, (uint32_t)(what & 15));
        break;
    case 4:
        say_hello(k, fuzz_u8(in));
        break;
    case 5:
        say_table(k, in);
        break;
    case 6:
        say_head(k, TN_ADMIN_COMMIT);
        break;
    case 7:
    case 8:
        say_node(k, in);
        break;
    case 9:
        what = fuzz_u8(in);
        if (what < 192)
            say_head(k, heads[what % 4]);
        else
            say_secret(k, what);
        break;
    case 10:
        say_inherit(k, in);
        break;
    case 11:
        say_attach(k, in);
        break;
    case 12:
        say_anything(k, in);
        break;
    case 13:
        engine(in);
        break;
    case 14:
        s.fail = fuzz_u8(in);
        break;
    case 15:
        hang_up(k);
        break;
    }
}

static void
begin(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    unsigned i;

    memset(&s, 0, sizeof(s));
    for (i = 0; i < CLIENTS; i++)
        s.clients[i] = -1;
    s.engine = true;
    s.now = 1000000;
    if (tcp != 0)
        return;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    udp = __real_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    tcp = __real_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FUZZ_MUST(__real_bind(udp, (struct sockaddr *)&a, sizeof(a)) == 0);
    FUZZ_MUST(__real_bind(tcp, (struct sockaddr *)&a, sizeof(a)) == 0);
    FUZZ_MUST(__real_listen(tcp, 1) == 0);
}

/* Everybody hangs up; a dead holder's bequest waits for a table at most. */
static void
end(void)
{
    static const char empty[sizeof(struct tn_admin_head) + 1];
    char table[sizeof(empty)];
    struct tn_admin_head h = {.type = TN_ADMIN_TABLE, .seq = 1};
    unsigned i;

    for (i = 0; i < CLIENTS; i++)
        hang_up(i);
    s.fail = 0;
    FUZZ_MUST(conn_add(new_client(0), false) != NULL);
    say_hello(0, TN_ROLE_MASTER);
    memcpy(table, empty, sizeof(empty));
    memcpy(table, &h, sizeof(h));
    table[sizeof(h)] = '\n';
    say(0, table, sizeof(table), NULL, 0);
    hang_up(0);
    cycle_drop_all();
    query_fail_all();
    store_drop_all();
    for (i = 0; i < TN_ADMIN_CONN_MAX; i++)
        FUZZ_MUST(conn_at(i) == NULL);
    for (i = 0; i < LEASE_MAX; i++)
        FUZZ_MUST(lease_at(i) == NULL);
    FUZZ_MUST(s.locks == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    int lowest, fd;

    begin();
    lowest = some_fd();
    close(lowest);
    while (in.len > 0)
        step(&in);
    end();
    fd = some_fd();
    FUZZ_MUST(fd == lowest);
    close(fd);
    return 0;
}

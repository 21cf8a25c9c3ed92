/* links: nginx/ngx_tailnet_worker.c nginx/ngx_tailnet_admin.c */
/* links: core/tn_snap_read.c core/tn_addr.c */
/* libs: -Wl,--wrap=poll */
/* max_len: 1024 */
/*
 * An nginx worker's channel to tailnetd as a story: right answers, snapshots
 * that are good or not, any bytes with any descriptors, channels that end.  A
 * question has one answer, a snapshot counts whole or not at all, and no
 * descriptor is lost.  What nginx has to do is below.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/mman.h>

#include "../../ngx_tailnet_module/nginx/ngx_tailnet.h"
#include "fuzz.h"

#define NODES 2
#define STEPS 96
#define FDS   (TN_ADMIN_FDS_MAX + 1)

ngx_module_t ngx_tailnet_module;
volatile ngx_cycle_t *ngx_cycle;
volatile ngx_msec_t ngx_current_msec;
volatile ngx_time_t *ngx_cached_time;
ngx_event_actions_t ngx_event_actions;
ngx_uint_t ngx_event_flags;
ngx_rbtree_t ngx_event_timer_rbtree;
ngx_uint_t ngx_exiting;
ngx_uint_t ngx_worker;

static struct {
    int hello, peer; /* tailnetd's: the hello-only one, and the channel */
    ngx_connection_t c;
    ngx_event_t read, write;
    bool connected;
    ngx_event_t *timers[NODES + 4];
    ngx_tailnet_ask_t ask;
    bool asked, answered, take;
    int taken;
    uint64_t generation[NODES]; /* that is to be in use; 0: none */
    uint32_t seqs[STEPS * 4];   /* of questions that wait for answers */
    unsigned nseqs, seq_at, ups, losts;
    void *memory;
} w;

/* ---- nginx ---- */

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);

/* Nothing comes before a worker begins to accept. */
int
__wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    FUZZ_MUST(n == 1 && fds->fd == w.c.fd && timeout > 0);
    errno = EINVAL;
    return -1;
}

void *
ngx_pcalloc(ngx_pool_t *pool, size_t size)
{
    (void)pool;
    FUZZ_MUST(w.memory == NULL);
    return w.memory = calloc(1, size);
}

size_t
ngx_strnlen(u_char *p, size_t n)
{
    return strnlen((char *)p, n);
}

u_char *
ngx_vslprintf(u_char *buf, u_char *last, const char *fmt, va_list args)
{
    (void)fmt;
    (void)args;
    FUZZ_MUST(buf < last);
    return buf;
}

void
ngx_log_error_core(
    ngx_uint_t level, ngx_log_t *log, ngx_err_t err, const char *fmt, ...)
{
    (void)log;
    (void)err;
    FUZZ_MUST(level > NGX_LOG_ALERT && strncmp(fmt, "tailnet: ", 9) == 0);
}

ngx_connection_t *
ngx_get_connection(ngx_socket_t s, ngx_log_t *log)
{
    FUZZ_MUST(!w.connected);
    w.connected = true;
    memset(&w.read, 0, sizeof(w.read));
    memset(&w.write, 0, sizeof(w.write));
    memset(&w.c, 0, sizeof(w.c));
    w.c.fd = s;
    w.c.log = log;
    w.c.read = &w.read;
    w.c.write = &w.write;
    w.read.data = w.write.data = &w.c;
    return &w.c;
}

void
ngx_close_connection(ngx_connection_t *c)
{
    FUZZ_MUST(c == &w.c && w.connected && close(c->fd) == 0);
    w.connected = false;
}

static ngx_int_t
add_event(ngx_event_t *ev, ngx_int_t event, ngx_uint_t flags)
{
    (void)event;
    (void)flags;
    FUZZ_MUST(ev == &w.read && ev->handler != NULL);
    return NGX_OK;
}

void
ngx_rbtree_insert(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    size_t i = 0;

    (void)tree;
    while (w.timers[i] != NULL)
        FUZZ_MUST(++i < sizeof(w.timers) / sizeof(*w.timers));
    w.timers[i] = ngx_rbtree_data(node, ngx_event_t, timer);
}

void
ngx_rbtree_delete(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    size_t i = 0;

    (void)tree;
    while (w.timers[i] != ngx_rbtree_data(node, ngx_event_t, timer))
        FUZZ_MUST(++i < sizeof(w.timers) / sizeof(*w.timers));
    w.timers[i] = NULL;
}

void
ngx_tailnet_connect_up(void)
{
    w.ups++;
}

void
ngx_tailnet_connect_lost(void)
{
    w.losts++;
}

void
ngx_tailnet_connect_recheck(void)
{
}

void
ngx_tailnet_identity_recheck(void)
{
}

/* ---- tailnetd ---- */

/* Takes what the worker has sent; ATTACH brings a new channel. */
static void
hear(void)
{
    static ngx_tailnet_msg_t m;
    ssize_t n;

    while (ngx_tailnet_admin_recv(w.hello, &m, MSG_DONTWAIT) > 0) {
        FUZZ_MUST(m.u.head.type == TN_ADMIN_ATTACH && m.nfds == 1);
        if (w.peer != -1)
            close(w.peer);
        w.peer = m.fds[0];
        w.nseqs = w.seq_at = 0;
    }
    while (w.peer != -1) {
        n = ngx_tailnet_admin_recv(w.peer, &m, MSG_DONTWAIT);
        if (n <= 0)
            return;
        FUZZ_MUST(m.nfds == 0 && m.u.head.seq != 0);
        FUZZ_MUST(w.nseqs < sizeof(w.seqs) / sizeof(*w.seqs));
        w.seqs[w.nseqs++] = m.u.head.seq;
    }
}

static void
say_with(const void *p, size_t len, const int *fds, size_t n)
{
    union {
        struct cmsghdr h;
        char b[CMSG_SPACE(sizeof(int) * FDS)];
    } c;
    struct iovec iov = {(void *)(uintptr_t)p, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n > 0) {
        memset(&c, 0, sizeof(c));
        m.msg_control = c.b;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        c.h.cmsg_level = SOL_SOCKET;
        c.h.cmsg_type = SCM_RIGHTS;
        c.h.cmsg_len = CMSG_LEN(sizeof(int) * n);
        memcpy(CMSG_DATA(&c.h), fds, sizeof(int) * n);
    }
    if (w.peer != -1)
        (void)!sendmsg(w.peer, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A memory file with a snapshot that is right but for what ${how} says;
 * returns whether it is. */
static bool
snapshot_file(struct fuzz_input *in, uint8_t how, uint64_t gen, int *fd)
{
    union {
        struct tn_snap_head h;
        uint8_t b[sizeof(struct tn_snap_head) + 160];
    } s;
    struct tn_snap open;
    uint16_t at, size = sizeof(s);

    memset(&s, 0, sizeof(s));
    memcpy(s.h.magic, TN_SNAP_MAGIC, sizeof(s.h.magic));
    s.h.version = TN_SNAP_VERSION;
    s.h.size = sizeof(s);
    s.h.generation = (how & 1) != 0 ? fuzz_u8(in) : gen;
    s.h.self = sizeof(s.h);
    s.h.addr_off = s.h.name_off = s.h.tag_off = sizeof(s.h) + 104;
    s.h.addr_slots = s.h.name_slots = 1;
    s.h.self_expiry = (how & 2) != 0 ? 100 : 0;
    if ((how & 4) != 0) {
        at = fuzz_u16(in) % sizeof(s);
        s.b[at] = fuzz_u8(in);
    }
    *fd = memfd_create("snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    FUZZ_MUST(*fd != -1);
    FUZZ_MUST(write(*fd, &s, sizeof(s)) == sizeof(s));
    if ((how & 8) != 0)
        size = fuzz_u16(in);
    FUZZ_MUST(ftruncate(*fd, size) == 0);
    if ((how & 16) == 0)
        FUZZ_MUST(fcntl(*fd, F_ADD_SEALS,
                      F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    return (how & 16) == 0 && size == sizeof(s) && s.h.generation == gen &&
           tn_snap_open(&open, &s, sizeof(s)) == NULL;
}

static void
say_snapshot(struct fuzz_input *in)
{
    static const char *const names[] = {"web", "db", "none", ""};
    uint8_t what = fuzz_u8(in), how = fuzz_u8(in);
    struct tn_admin_snapshot m = {.h.type = TN_ADMIN_SNAPSHOT};
    size_t node = what & 3, n = (what & 4) != 0 ? fuzz_u8(in) % FDS : 1, i;
    int fds[FDS];
    bool good;

    m.generation = 1 + fuzz_u8(in);
    strcpy(m.node, names[node]);
    if ((what & 8) != 0)
        memset(m.node, 'w', sizeof(m.node));
    good = snapshot_file(in, how, m.generation, &fds[0]);
    for (i = 1; i < n; i++)
        fds[i] = fds[0];
    say_with(&m, sizeof(m) - ((what & 16) != 0), fds, n);
    close(fds[0]);
    if (good && n == 1 && (what & (8 | 16)) == 0 && node < NODES &&
        w.connected && w.peer != -1 && m.generation > w.generation[node])
        w.generation[node] = m.generation;
}

static void
say_answer(struct fuzz_input *in)
{
    static const uint16_t types[] = {TN_ADMIN_HELLO_OK, TN_ADMIN_OK,
        TN_ADMIN_ERROR, TN_ADMIN_FDS, TN_ADMIN_TEXT, 0};
    uint8_t what = fuzz_u8(in);
    union {
        struct tn_admin_head h;
        struct tn_admin_hello_ok ok;
        uint8_t b[64];
    } m;
    size_t len = (what & 8) != 0 ? fuzz_u8(in) % sizeof(m) : sizeof(m.ok);
    size_t n = (what & 16) != 0 ? fuzz_u8(in) % FDS : 0, i;
    int fds[FDS];

    if (w.seq_at >= w.nseqs)
        return;
    memset(&m, 'x', sizeof(m));
    m.h.type = types[(what & 7) % 6];
    m.h.seq = w.seqs[w.seq_at++];
    m.ok.version = (what & 32) != 0 ? 0 : TN_ADMIN_VERSION;
    for (i = 0; i < n; i++)
        fds[i] = w.peer;
    say_with(&m, len, fds, n);
}

static void
say_bytes(struct fuzz_input *in)
{
    static uint8_t text[5000];
    size_t n = fuzz_u8(in) % (FDS + 1), i;
    struct fuzz_input part = fuzz_bytes(in, fuzz_u8(in));
    int fds[FDS];

    if (n == FDS || w.peer == -1) {
        say_with(text, sizeof(text), NULL, 0);
        return;
    }
    for (i = 0; i < n; i++)
        fds[i] = w.hello;
    say_with(part.p, part.len, fds, n);
}

/* ---- the worker ---- */

static void
on_answer(void *data, ngx_tailnet_msg_t *m)
{
    FUZZ_MUST(data == &w && w.asked && !w.answered && !w.ask.pending);
    w.answered = true;
    if (m != NULL && w.take && m->nfds > 0 && w.taken == -1) {
        w.taken = m->fds[0];
        m->fds[0] = -1;
    }
    if (m != NULL)
        (void)ngx_tailnet_admin_text(m);
}

static void
ask(uint8_t what)
{
    struct tn_admin_head h = {.type = TN_ADMIN_SOCKETS};

    w.take = (what & 16) != 0;
    if (w.ask.pending) {
        ngx_tailnet_worker_cancel(&w.ask);
        w.asked = false;
        return;
    }
    w.ask.handler = on_answer;
    w.ask.data = &w;
    w.answered = false;
    w.asked = ngx_tailnet_worker_ask(&w.ask, &h, sizeof(h)) == NGX_OK;
    FUZZ_MUST(!w.asked || ngx_tailnet_worker_ready());
}

static void
fire(uint8_t which)
{
    ngx_event_t *ev = w.timers[which % (sizeof(w.timers) / sizeof(*w.timers))];
    static ngx_time_t time;

    time.sec += 60;
    ngx_cached_time = &time;
    if ((which & 16) != 0)
        time.sec = 0;
    if (ev == NULL)
        return;
    ngx_event_del_timer(ev);
    ev->handler(ev);
}

static void
check(void)
{
    struct tn_snap *s;
    size_t i;

    for (i = 0; i < NODES; i++) {
        s = ngx_tailnet_worker_snap(i);
        FUZZ_MUST((s == NULL) == (w.generation[i] == 0));
        if (s == NULL)
            continue;
        FUZZ_MUST(s->head.generation == w.generation[i]);
        fuzz_touch(s->base, s->size);
    }
    FUZZ_MUST(ngx_tailnet_worker_snap(NODES) == NULL);
    FUZZ_MUST(w.connected || !ngx_tailnet_worker_ready());
    FUZZ_MUST(w.ask.pending == (w.asked && !w.answered));
}

static void
step(struct fuzz_input *in)
{
    uint8_t what = fuzz_u8(in);

    switch (what & 7) {
    case 0:
    case 1:
        say_answer(in);
        break;
    case 2:
    case 3:
        say_snapshot(in);
        break;
    case 4:
        say_bytes(in);
        break;
    case 5:
        if (w.peer != -1)
            close(w.peer);
        w.peer = -1;
        break;
    case 6:
        ask(what);
        break;
    default:
        fire(what >> 3);
    }
}

static unsigned
open_fds(void)
{
    unsigned n = 0;
    int fd;

    for (fd = 0; fd < 512; fd++)
        n += fcntl(fd, F_GETFD) != -1;
    return n;
}

static void
tear_down(void)
{
    struct tn_snap *s;
    size_t i;

    if (w.ask.pending)
        ngx_tailnet_worker_cancel(&w.ask);
    ngx_tailnet_worker_exit();
    for (i = 0; i < NODES; i++)
        if ((s = ngx_tailnet_worker_snap(i)) != NULL)
            munmap((void *)(uintptr_t)s->base, s->size);
    for (i = 0; i < sizeof(w.timers) / sizeof(*w.timers); i++)
        if (w.timers[i] != NULL)
            ngx_event_del_timer(w.timers[i]);
    FUZZ_MUST(w.losts >= w.ups || w.ups - w.losts == 1);
    if (w.taken != -1)
        close(w.taken);
    if (w.peer != -1)
        close(w.peer);
    close(w.hello);
    free(w.memory);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ngx_tailnet_node_t nodes[NODES] = {
        {.name = ngx_string("web")}, {.name = ngx_string("db")}};
    static ngx_time_t time;
    static ngx_log_t log;
    static ngx_tailnet_conf_t conf;
    void *conf_ctx[1] = {&conf};
    ngx_cycle_t cycle = {.log = &log, .conf_ctx = (void ****)conf_ctx};
    struct fuzz_input in = {data, size};
    unsigned before = open_fds(), steps;
    int sv[2];

    memset(&w, 0, sizeof(w));
    w.peer = w.taken = -1;
    log.log_level = NGX_LOG_INFO;
    ngx_cached_time = &time;
    ngx_cycle = &cycle;
    ngx_event_actions.add = add_event;
    conf.nodes.elts = nodes;
    conf.nodes.nelts = NODES;
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    w.hello = sv[1];
    conf.hello = sv[0];
    FUZZ_MUST(ngx_tailnet_worker_init(&cycle, &conf) == NGX_OK);
    hear();
    for (steps = 0; in.len > 0 && steps < STEPS; steps++) {
        step(&in);
        if (w.connected)
            w.read.handler(&w.read);
        hear();
        check();
    }
    tear_down();
    close(sv[0]);
    FUZZ_MUST(open_fds() == before);
    return 0;
}

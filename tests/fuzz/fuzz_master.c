/* links: nginx/ngx_tailnet_cycle.c nginx/ngx_tailnet_admin.c */
/* links: core/tn_node.c core/tn_addr.c */
/* libs: -Wl,--wrap=connect,--wrap=recvmsg */
/* max_len: 512 */
/*
 * nginx's master and what a tailnetd says to it: right answers, refusals, late
 * ones, any bytes with any descriptors, silence, an end.  Each question gets
 * what its answer says and nothing else, a failure has words, and no descriptor
 * is lost.  Zeros are a tailnetd that does all it should.
 */
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <fcntl.h>
#include <stdarg.h>

#include "../../ngx_tailnet_module/nginx/ngx_tailnet.h"
#include "fuzz.h"

#define NODES   2
#define LISTENS 3
#define LATE    4 /* answers at once: the queue of a socket is short */
#define FDS     (TN_ADMIN_FDS_MAX + 1)

ngx_module_t ngx_tailnet_module, ngx_core_module;

enum verdict { GOOD, REFUSED, LOST };

static struct {
    struct fuzz_input in;
    int mine[2], peer[2]; /* a channel's ends: the first, that of workers */
    unsigned dialled;
    uint32_t seq;
    uint16_t type;     /* of the last question */
    enum verdict said; /* in answer to it */
    bool fits;         /* and with what the type has */
    size_t text;       /* bytes of its sentence, if it has one */
    bool bad;          /* a step failed that ngx_tailnet_cycle_open() needs */
    bool why;
    void *memory[4];
    unsigned nmemory;
} m;

int __real_connect(int s, const struct sockaddr *to, socklen_t len);
int __wrap_connect(int s, const struct sockaddr *to, socklen_t len);
ssize_t __real_recvmsg(int s, struct msghdr *msg, int flags);
ssize_t __wrap_recvmsg(int s, struct msghdr *msg, int flags);

/* ---- nginx ---- */

void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    (void)pool;
    FUZZ_MUST(m.nmemory < sizeof(m.memory) / sizeof(*m.memory));
    return m.memory[m.nmemory++] = malloc(size);
}

void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    return ngx_palloc(pool, size);
}

void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    (void)log;
    return malloc(size);
}

ngx_pool_cleanup_t *
ngx_pool_cleanup_add(ngx_pool_t *pool, size_t size)
{
    FUZZ_MUST(size == 0);
    return ngx_palloc(pool, sizeof(ngx_pool_cleanup_t));
}

u_char *
ngx_cpystrn(u_char *to, u_char *from, size_t n)
{
    return (u_char *)stpncpy((char *)to, (char *)from, n);
}

in_port_t
ngx_inet_get_port(struct sockaddr *sa)
{
    return ntohs(((struct sockaddr_in *)sa)->sin_port);
}

int
ngx_nonblocking(ngx_socket_t s)
{
    return fcntl(s, F_SETFL, O_NONBLOCK);
}

/* The words are for people; what tailnetd said is among them. */
u_char *
ngx_vslprintf(u_char *buf, u_char *last, const char *fmt, va_list args)
{
    ngx_str_t *text;

    FUZZ_MUST(buf < last);
    if (strcmp(fmt, "tailnetd says: %V") == 0) {
        text = va_arg(args, ngx_str_t *);
        FUZZ_MUST(m.text == 0 || text->len == m.text);
        fuzz_touch(text->data, text->len);
    }
    m.why = true;
    return buf;
}

void
ngx_log_error_core(
    ngx_uint_t level, ngx_log_t *log, ngx_err_t err, const char *fmt, ...)
{
    (void)log;
    (void)err;
    FUZZ_MUST(level > NGX_LOG_ALERT && strncmp(fmt, "tailnet: ", 9) == 0);
    FUZZ_MUST(m.why);
}

/* ---- tailnetd ---- */

/* The other end of ${s} is ours from here. */
static void
join(int s)
{
    int sv[2];

    FUZZ_MUST(m.dialled < 2);
    FUZZ_MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    FUZZ_MUST(dup3(sv[0], s, O_CLOEXEC) == s && close(sv[0]) == 0);
    m.mine[m.dialled] = s;
    m.peer[m.dialled++] = sv[1];
}

int
__wrap_connect(int s, const struct sockaddr *to, socklen_t len)
{
    static const int errors[] = {
        0, ENOENT, ECONNREFUSED, EAGAIN, EACCES, 0, 0, 0};

    FUZZ_MUST(to->sa_family == AF_UNIX && len == sizeof(struct sockaddr_un));
    errno = errors[fuzz_u8(&m.in) % (sizeof(errors) / sizeof(*errors))];
    m.bad = errno != 0;
    if (m.bad)
        return -1;
    join(s);
    return 0;
}

ngx_socket_t
ngx_tailnet_spawn(ngx_cycle_t *cycle, ngx_tailnet_conf_t *tcf)
{
    int s;

    (void)cycle;
    m.bad = fuzz_u8(&m.in) % 8 == 7;
    if (m.bad) {
        ngx_tailnet_why(tcf, "it does not start");
        return -1;
    }
    s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    FUZZ_MUST(s != -1);
    join(s);
    return s;
}

static void
say(int s, const void *p, size_t len, size_t n)
{
    union {
        struct cmsghdr h;
        char b[CMSG_SPACE(sizeof(int) * FDS)];
    } c;
    struct iovec iov = {(void *)(uintptr_t)p, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    int fds[FDS];
    size_t i;

    for (i = 0; i < n; i++)
        fds[i] = s;
    if (n > 0) {
        memset(&c, 0, sizeof(c));
        msg.msg_control = c.b;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        c.h.cmsg_level = SOL_SOCKET;
        c.h.cmsg_type = SCM_RIGHTS;
        c.h.cmsg_len = CMSG_LEN(sizeof(int) * n);
        memcpy(CMSG_DATA(&c.h), fds, sizeof(int) * n);
    }
    FUZZ_MUST(sendmsg(s, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len);
}

/* What the table of tn_admin.h says of a question: how long it is (0: longer
 * than a head), how many descriptors, and its answer's type. */
static const struct {
    uint16_t type, answer;
    uint8_t len, fds, more;
} asked[] = {
    {TN_ADMIN_HELLO, TN_ADMIN_HELLO_OK, 16, 0, 0},
    {TN_ADMIN_ADOPT, TN_ADMIN_OK, 72, 1, 2},
    {TN_ADMIN_TABLE, TN_ADMIN_OK, 0, 0, 0},
    {TN_ADMIN_SECRET, TN_ADMIN_OK, 72, 1, 1},
    {TN_ADMIN_LISTEN, TN_ADMIN_FD, 80, 0, 0},
    {TN_ADMIN_COMMIT, TN_ADMIN_OK, 8, 0, 0},
    {TN_ADMIN_SOCKETS, TN_ADMIN_FDS, 76, 0, 0},
    {TN_ADMIN_BEQUEST, TN_ADMIN_FD, 8, 0, 0},
    {TN_ADMIN_INHERIT, TN_ADMIN_OK, 16, 0, 0},
    {TN_ADMIN_STOP, TN_ADMIN_OK, 8, 0, 0},
};

/* One message; returns false: there is another before the answer. */
static bool
answer(int s, uint32_t seq, uint16_t right)
{
    static uint8_t bytes[5000];
    union {
        struct tn_admin_head h;
        struct tn_admin_hello_ok ok;
        uint8_t b[300];
    } a;
    uint8_t what = fuzz_u8(&m.in);
    size_t len = right == TN_ADMIN_HELLO_OK ? sizeof(a.ok) : sizeof(a.h);
    size_t n = right == TN_ADMIN_FD || right == TN_ADMIN_FDS;
    struct fuzz_input part;

    memset(&a, 'x', sizeof(a));
    a.h.type = right;
    a.h.seq = seq;
    a.ok.version = (what & 16) != 0 ? 2 : TN_ADMIN_VERSION;
    switch (what & 7) {
    case 1:
        n = fuzz_u8(&m.in) % (FDS + 1);
        break;
    case 2:
        len = fuzz_u8(&m.in);
        break;
    case 3:
        a.h.type = TN_ADMIN_ERROR;
        len = sizeof(struct tn_admin_error) + fuzz_u8(&m.in);
        break;
    case 4:
        a.h.type = fuzz_u8(&m.in);
        n = fuzz_u8(&m.in) % (FDS + 1);
        len = sizeof(a.h) + fuzz_u8(&m.in) % 8;
        break;
    case 5:
        a.h.seq = seq - 1 - fuzz_u8(&m.in);
        say(s, &a, len, (what >> 4) % 4);
        return false;
    case 6:
        part = fuzz_bytes(&m.in, fuzz_u8(&m.in));
        say(s, (what & 16) != 0 ? bytes : part.p,
            (what & 16) != 0 ? sizeof(bytes) : part.len, (what & 32) != 0);
        m.said = LOST;
        if ((what & 16) != 0 || part.len < sizeof(a.h))
            return true;
        memcpy(&a.h, part.p, sizeof(a.h));
        if (a.h.seq != seq)
            return false;
        len = part.len;
        memcpy(&a, part.p, len < sizeof(a) ? len : sizeof(a));
        n = (what & 32) != 0;
        goto judge;
    case 7:
        m.said = LOST;
        if ((what & 8) != 0)
            shutdown(s, SHUT_RDWR);
        return true;
    default:
        break;
    }
    say(s, &a, len, n);
    if ((what & 15) == 8) /* once more, which is late for the next */
        say(s, &a, len, n);
judge:
    m.text = a.h.type == TN_ADMIN_ERROR ? len - sizeof(struct tn_admin_error)
                                        : 0;
    m.said = len < sizeof(a.h) || n > TN_ADMIN_FDS_MAX ? LOST
             : a.h.type == right                       ? GOOD
             : a.h.type == TN_ADMIN_ERROR &&
                     len >= sizeof(struct tn_admin_error)
                 ? REFUSED
                 : LOST;
    m.fits = right == TN_ADMIN_HELLO_OK
                 ? len >= sizeof(a.ok) && a.ok.version == TN_ADMIN_VERSION
                 : n == 1;
    return true;
}

/* Takes a question, if there is one, and answers. */
static void
serve(int s)
{
    static ngx_tailnet_msg_t q;
    ssize_t n = ngx_tailnet_admin_recv(s, &q, MSG_DONTWAIT);
    size_t i = 0, late;

    if (n <= 0)
        return;
    while (asked[i].type != q.u.head.type)
        FUZZ_MUST(++i < sizeof(asked) / sizeof(*asked));
    FUZZ_MUST(asked[i].len == 0 ? n > 8 : n == asked[i].len);
    FUZZ_MUST(q.u.head.flags == 0 && q.u.head.seq > m.seq);
    FUZZ_MUST(q.nfds == asked[i].fds || q.nfds == asked[i].more);
    m.seq = q.u.head.seq;
    m.type = q.u.head.type;
    ngx_tailnet_admin_discard(&q);
    m.said = LOST; /* of silence */
    m.why = false;
    for (late = 0; late < LATE; late++)
        if (answer(s, m.seq, asked[i].answer))
            break;
    if (asked[i].type == TN_ADMIN_HELLO && (m.said != GOOD || !m.fits))
        m.bad = true;
    else if (asked[i].type == TN_ADMIN_TABLE)
        m.bad |= m.said != GOOD;
    else
        m.bad |= m.said == LOST;
}

ssize_t
__wrap_recvmsg(int s, struct msghdr *msg, int flags)
{
    unsigned i;

    for (i = 0; i < m.dialled; i++)
        if (s == m.mine[i])
            serve(m.peer[i]);
    return __real_recvmsg(s, msg, flags | MSG_DONTWAIT);
}

/* ---- the master ---- */

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

static void
listen_all(ngx_tailnet_conf_t *conf, size_t n)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(80)};
    ngx_listening_t ls = {.sockaddr = (void *)&sin, .type = SOCK_STREAM};
    ngx_tailnet_listen_t *l = conf->listens.elts;
    bool up;
    int fd;

    for (; n > 0; n--) {
        up = conf->ctl != -1;
        m.why = false;
        fd = ngx_tailnet_cycle_listen(conf, &ls, n % NODES);
        FUZZ_MUST((fd != -1) == (up && m.said == GOOD && m.fits));
        FUZZ_MUST(fd != -1 ? is_open(fd) : m.why);
        FUZZ_MUST((conf->ctl == -1) == (!up || m.said == LOST));
        if (fd == -1)
            continue;
        l[conf->listens.nelts].node = n % NODES;
        l[conf->listens.nelts++].fd = fd;
    }
}

static void
run(ngx_cycle_t *cycle, ngx_tailnet_conf_t *conf, ngx_tailnet_conf_t *old)
{
    uint8_t how = fuzz_u8(&m.in);
    ngx_tailnet_listen_t *l = conf->listens.elts;
    ngx_int_t rc;
    size_t i;

    rc = ngx_tailnet_cycle_open(cycle, conf, (how & 1) != 0 ? old : NULL);
    FUZZ_MUST((rc == NGX_OK) == !m.bad);
    FUZZ_MUST((conf->ctl != -1) == (rc == NGX_OK));
    FUZZ_MUST(rc == NGX_OK || m.why);
    if (rc == NGX_OK) {
        listen_all(conf, (how >> 1) % (LISTENS + 1));
        i = m.dialled;
        ngx_tailnet_cycle_commit(cycle, conf);
        FUZZ_MUST(
            (conf->hello != -1) ==
            (m.dialled > i && m.type == TN_ADMIN_INHERIT && m.said == GOOD));
        if ((how & 8) != 0)
            ngx_tailnet_cycle_stop(cycle, conf);
    }
    ngx_tailnet_cycle_leave(conf, 1);
    FUZZ_MUST(conf->ctl == -1 && conf->hello == -1 && conf->bequest == -1);
    for (i = 0; i < conf->listens.nelts; i++)
        FUZZ_MUST(close(l[i].fd) == 0);
}

static unsigned
open_fds(void)
{
    unsigned n = 0;
    int fd;

    for (fd = 0; fd < 256; fd++)
        n += is_open(fd);
    return n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tn_node table[NODES];
    ngx_tailnet_node_t nodes[NODES] = {
        {.name = ngx_string("web")}, {.name = ngx_string("db")}};
    ngx_tailnet_listen_t listens[LISTENS];
    static ngx_log_t log;
    ngx_cycle_t cycle = {.log = &log};
    ngx_tailnet_conf_t conf = {.ctl = -1, .hello = -1, .bequest = -1}, old;
    ngx_socket_t anchors[NODES] = {0, -1};
    unsigned before = open_fds(), i;

    memset(&m, 0, sizeof(m));
    m.in = (struct fuzz_input){data, size};
    log.log_level = NGX_LOG_INFO;
    setenv("FUZZ_AUTH_KEY", "tskey-auth-x", 1);
    for (i = 0; i < NODES; i++) {
        strcpy(table[i].name, (char *)nodes[i].name.data);
        strcpy(table[i].auth_key, "env:FUZZ_AUTH_KEY");
    }
    ngx_str_set(&conf.path, "/run/admin.sock");
    conf.table.elts = table;
    conf.nodes.elts = nodes;
    conf.nodes.nelts = NODES;
    conf.listens.elts = listens;
    conf.table.nelts = size % 4 == 3 ? 0 : NODES; /* 0: a service has them */
    old = conf;
    old.anchors = anchors;
    old.bequest = 0;
    run(&cycle, &conf, &old);
    for (i = 0; i < m.dialled; i++)
        close(m.peer[i]);
    while (m.nmemory > 0)
        free(m.memory[--m.nmemory]);
    FUZZ_MUST(open_fds() == before);
    return 0;
}

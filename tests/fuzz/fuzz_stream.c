/* links: tailnetd/stream.c tailnetd/proxy.c tailnetd/base64.c core/tn_addr.c */
/* libs: -Wl,--wrap=socket,--wrap=connect,--wrap=send,--wrap=recv,--wrap=close,--wrap=getsockopt,--wrap=setsockopt,--wrap=getsockname */
/* max_len: 2048 */
/*
 * One connection as a story: addresses that answer, fail or are silent, a
 * proxy that says anything in any pieces, TLS that fails or not, a reader that
 * frees when it likes.  The user gets exactly the target's bytes,
 * the other end what was sent, and the end comes once.
 *
 * Sockets, TLS and lookups are stand-ins: a byte of TLS is one of plaintext.
 */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "../../ngx_tailnet_module/tailnetd/crypto/tls.h"
#include "../../ngx_tailnet_module/tailnetd/proxy.h"
#include "../../ngx_tailnet_module/tailnetd/stream.h"
#include "fuzz.h"
#include "fuzz_loop.h"

#define FD_FIRST   1000
#define SOCKS      64
#define ROUNDS     64
#define WIRE_MAX   131072
#define QUEUE_MAX  3000
#define CONNECT_MS 5000

struct loop_watch {
    int fd; /* 0: free */
    void (*cb)(void *arg);
    void *arg;
    bool readable, writable;
};

struct loop_lookup {
    void (*cb)(void *, const struct tn_addr *, size_t, const char *);
    void *arg;
    bool over;
};

struct sock {
    bool open, waits; /* to be connected */
    int error;
    size_t at, end; /* of the wire, of what came to it */
    bool eof;
    int reset;
};

/* The whole of a story; bytes come to one socket at a time. */
static struct {
    struct sock socks[SOCKS];
    struct loop_watch watches[SOCKS];
    unsigned nsocks;
    struct loop_lookup *lookup;
    uint8_t wire[WIRE_MAX]; /* all that came from the other end ... */
    size_t len;
    uint8_t sent[WIRE_MAX]; /* ... and went there ... */
    size_t nsent;
    uint8_t said[WIRE_MAX]; /* ... and what was given to stream_send() */
    size_t nsaid;
    size_t nread;          /* given to the user */
    size_t room;           /* for send() before it has to wait */
    unsigned fail, failed; /* now, and ever */
    struct stream *stream;
    bool inside, connected, closed, freed, tls, proxy;
    unsigned act; /* what the user does inside callbacks */
    struct stream_to to;
} w;

enum { /* fail */
    NO_SOCKET = 1,
    NO_CONNECT = 2,
    NO_WATCH = 4,
    NO_WANT = 8,
    AT_ONCE = 16 /* connect() does not wait */
};

/* ---- sockets ---- */

int __wrap_socket(int family, int type, int proto);
int __wrap_connect(int fd, const struct sockaddr *sa, socklen_t len);
ssize_t __wrap_send(int fd, const void *p, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *p, size_t len, int flags);
int __wrap_close(int fd);
int __real_close(int fd);
int __wrap_getsockopt(int fd, int level, int name, void *p, socklen_t *len);
int __wrap_setsockopt(
    int fd, int level, int name, const void *p, socklen_t len);
int __wrap_getsockname(int fd, struct sockaddr *sa, socklen_t *len);

static struct sock *
sock(int fd)
{
    FUZZ_MUST(fd >= FD_FIRST && fd < FD_FIRST + (int)w.nsocks);
    FUZZ_MUST(w.socks[fd - FD_FIRST].open);
    return &w.socks[fd - FD_FIRST];
}

int
__wrap_socket(int family, int type, int proto)
{
    (void)proto;
    FUZZ_MUST(family == AF_INET || family == AF_INET6);
    FUZZ_MUST(type == (SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC));
    FUZZ_MUST(w.nsocks < SOCKS);
    if ((w.fail & NO_SOCKET) != 0) {
        errno = EMFILE;
        return -1;
    }
    w.socks[w.nsocks] = (struct sock){.open = true, .waits = true};
    return FD_FIRST + (int)w.nsocks++;
}

int
__wrap_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
    struct tn_addr a;
    uint16_t port;

    FUZZ_MUST(len >= sizeof(struct sockaddr_in));
    FUZZ_MUST(tn_addr_from_sockaddr(sa, &a, &port) == 0);
    FUZZ_MUST(port == (w.proxy ? 3128 : w.to.port));
    if ((w.fail & NO_CONNECT) != 0) {
        errno = ENETUNREACH;
        return -1;
    }
    sock(fd)->waits = (w.fail & AT_ONCE) == 0;
    if (!sock(fd)->waits)
        return 0;
    errno = EINPROGRESS;
    return -1;
}

ssize_t
__wrap_send(int fd, const void *p, size_t len, int flags)
{
    FUZZ_MUST((flags & MSG_NOSIGNAL) != 0);
    FUZZ_MUST(!sock(fd)->waits && len > 0);
    fuzz_touch(p, len);
    if (sock(fd)->reset != 0) {
        errno = EPIPE;
        return -1;
    }
    if (w.room == 0) {
        errno = EAGAIN;
        return -1;
    }
    len = len < w.room ? len : w.room;
    len = len < WIRE_MAX - w.nsent ? len : WIRE_MAX - w.nsent;
    FUZZ_MUST(len > 0);
    w.room -= len;
    memcpy(w.sent + w.nsent, p, len);
    w.nsent += len;
    return (ssize_t)len;
}

ssize_t
__wrap_recv(int fd, void *p, size_t len, int flags)
{
    struct sock *s = sock(fd);
    size_t n = s->end - s->at;

    (void)flags;
    FUZZ_MUST(!s->waits);
    if (n == 0 && s->reset != 0) {
        errno = s->reset;
        return -1;
    }
    if (n == 0 && !s->eof) {
        errno = EAGAIN;
        return -1;
    }
    n = n < len ? n : len;
    memcpy(p, w.wire + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

/* What came to an address that another one overtook is nobody's. */
int
__wrap_close(int fd)
{
    struct sock *s;
    size_t i;

    if (fd < FD_FIRST || fd >= FD_FIRST + (int)w.nsocks)
        return __real_close(fd);
    s = sock(fd);
    for (i = 0; i < SOCKS; i++)
        FUZZ_MUST(w.watches[i].fd != fd);
    s->open = false;
    for (i = 0; i < w.nsocks; i++)
        if (w.socks[i].open && s->end > 0)
            w.len = 0;
    return 0;
}

int
__wrap_getsockopt(int fd, int level, int name, void *p, socklen_t *len)
{
    FUZZ_MUST(level == SOL_SOCKET && name == SO_ERROR && *len == sizeof(int));
    memcpy(p, &sock(fd)->error, sizeof(int));
    return 0;
}

int
__wrap_setsockopt(int fd, int level, int name, const void *p, socklen_t len)
{
    (void)level;
    (void)name;
    fuzz_touch(p, len);
    (void)sock(fd);
    return 0;
}

int
__wrap_getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(5)};

    (void)sock(fd);
    FUZZ_MUST(*len >= sizeof(in));
    memcpy(sa, &in, sizeof(in));
    *len = sizeof(in);
    return 0;
}

/* ---- the loop ---- */

struct loop_watch *
loop_watch_new(int fd, void (*cb)(void *arg), void *arg)
{
    size_t i = 0;

    (void)sock(fd);
    if ((w.fail & NO_WATCH) != 0)
        return NULL;
    while (w.watches[i].fd != 0)
        FUZZ_MUST(++i < SOCKS);
    w.watches[i] = (struct loop_watch){fd, cb, arg, true, false};
    return &w.watches[i];
}

void
loop_watch_free(struct loop_watch *watch)
{
    if (watch != NULL)
        memset(watch, 0, sizeof(*watch));
}

int
loop_watch_want(struct loop_watch *watch, bool readable, bool writable)
{
    (void)sock(watch->fd);
    if ((w.fail & NO_WANT) != 0)
        return -1;
    watch->readable = readable;
    watch->writable = writable;
    return 0;
}

struct loop_lookup *
loop_lookup_new(const char *host,
    void (*cb)(
        void *arg, const struct tn_addr *addrs, size_t n, const char *why),
    void *arg)
{
    FUZZ_MUST(w.lookup == NULL);
    if (host[0] == '\0' || (w.fail & NO_SOCKET) != 0)
        return NULL;
    w.lookup = fuzz_copy(
        &(struct loop_lookup){cb, arg, false}, sizeof(*w.lookup));
    return w.lookup;
}

void
loop_lookup_free(struct loop_lookup *l)
{
    FUZZ_MUST(l == NULL || l == w.lookup);
    if (l != NULL)
        w.lookup = NULL;
    free(l);
}

/* ---- TLS ---- */

struct tls_trust {
    int unused;
};

/* 'T' of the server opens it, '!' breaks it, '.' ends it; afterwards a byte is
 * a byte but for the last two. */
struct tls {
    enum tls_state state;
    uint8_t in[WIRE_MAX], out[WIRE_MAX];
    size_t from, to, out_from, out_to;
};

struct tls *
tls_new(struct tls_trust *trust, const struct tls_opts *opts)
{
    struct tls *t = malloc(sizeof(*t));

    (void)trust;
    (void)opts;
    FUZZ_MUST(t != NULL);
    t->state = TLS_HANDSHAKE;
    t->from = t->to = t->out_from = 0;
    t->out[0] = 'C';
    t->out_to = 1;
    return t;
}

void
tls_free(struct tls *t)
{
    free(t);
}

enum tls_state
tls_state(const struct tls *t)
{
    return t->state;
}

const char *
tls_error(const struct tls *t)
{
    FUZZ_MUST(t->state == TLS_FAILED);
    return "broken";
}

void
tls_feed(struct tls *t, const void *data, size_t len)
{
    FUZZ_MUST(len <= TLS_FEED_MAX && len <= sizeof(t->in) - t->to);
    if (len > 0)
        memcpy(t->in + t->to, data, len);
    t->to += len;
}

size_t
tls_read(struct tls *t, void *buf, size_t size)
{
    size_t n = 0;

    while (t->from < t->to &&
           (t->state == TLS_HANDSHAKE || (t->state == TLS_OPEN && n < size))) {
        if (t->in[t->from] == '!')
            t->state = TLS_FAILED;
        else if (t->in[t->from] == '.')
            t->state = TLS_ENDED;
        else if (t->state == TLS_OPEN)
            ((uint8_t *)buf)[n++] = t->in[t->from];
        else if (t->in[t->from] == 'T')
            t->state = TLS_OPEN;
        t->from++;
    }
    return n;
}

int
tls_write(struct tls *t, const void *data, size_t len)
{
    if (t->state != TLS_OPEN)
        return -1;
    FUZZ_MUST(len <= sizeof(t->out) - t->out_to);
    memcpy(t->out + t->out_to, data, len);
    t->out_to += len;
    return 0;
}

size_t
tls_take(struct tls *t, void *buf, size_t size)
{
    size_t n = t->out_to - t->out_from;

    n = n < size ? n : size;
    if (n > 0)
        memcpy(buf, t->out + t->out_from, n);
    t->out_from += n;
    return n;
}

void
tls_close(struct tls *t)
{
    FUZZ_MUST(t->out_to < sizeof(t->out));
    t->out[t->out_to++] = 'X';
}

/* ---- the user ---- */

/* Where the target's own bytes begin: behind the head of the proxy's answer and
 * the handshake; false: they have not. */
static bool
begin_of(size_t *at)
{
    const uint8_t *end;

    *at = 0;
    if (w.proxy) {
        end = memmem(w.wire, w.len, "\r\n\r\n", 4);
        if (end == NULL || end + 4 - w.wire > STREAM_PROXY_ANSWER ||
            end - w.wire < 12 || memcmp(w.wire, "HTTP/1.", 7) != 0 ||
            w.wire[8] != ' ' || w.wire[9] != '2')
            return false;
        *at = (size_t)(end + 4 - w.wire);
    }
    if (!w.tls)
        return true;
    while (*at < w.len && memchr("T!.", w.wire[*at], 3) == NULL)
        ++*at;
    return *at < w.len && w.wire[(*at)++] == 'T';
}

static void
act(unsigned what)
{
    static const uint8_t text[16] = "sent from inside";
    struct stream *s = w.stream;

    if ((w.act & what & 3) != 0 && w.connected && !w.closed &&
        stream_send(s, text, sizeof(text)) == 0) {
        FUZZ_MUST(w.nsaid + sizeof(text) <= WIRE_MAX);
        memcpy(w.said + w.nsaid, text, sizeof(text));
        w.nsaid += sizeof(text);
    }
    if ((w.act & what & 12) != 0) {
        w.freed = true;
        stream_free(s);
    }
}

static void
on_connected(void *arg)
{
    size_t at;

    FUZZ_MUST(arg == &w && !w.inside && !w.freed && !w.closed);
    FUZZ_MUST(!w.connected && begin_of(&at));
    w.connected = true;
    act(1 | 4);
}

static void
on_data(void *arg, const uint8_t *p, size_t len)
{
    size_t at;

    FUZZ_MUST(arg == &w && !w.inside && !w.freed && !w.closed);
    FUZZ_MUST(w.connected && len > 0);
    FUZZ_MUST(begin_of(&at) && len <= w.len - at - w.nread);
    FUZZ_MUST(memcmp(w.wire + at + w.nread, p, len) == 0);
    w.nread += len;
    act(2 | 8);
}

static void
on_drained(void *arg)
{
    FUZZ_MUST(arg == &w && !w.inside && !w.freed && !w.closed);
    FUZZ_MUST(w.connected && stream_queued(w.stream) == 0);
}

static void
on_closed(void *arg, const char *why)
{
    FUZZ_MUST(arg == &w && !w.inside && !w.freed && !w.closed);
    FUZZ_MUST(why[0] != '\0' && strlen(why) < STREAM_WHY_MAX);
    FUZZ_MUST(strstr(why, "pass") == NULL ||
              memmem(w.wire, w.len, "pass", 4) != NULL);
    w.closed = true;
    act(8);
}

static const struct stream_ops ops = {
    on_connected, on_data, on_drained, on_closed};

/* What went to the other end is what was said, as far as it went. */
static void
check_sent(void)
{
    const uint8_t *p = w.sent, *end;
    size_t n = w.nsent;

    if (w.proxy && n > 0) {
        FUZZ_MUST(memcmp(p, "CONNECT ", n < 8 ? n : 8) == 0);
        end = memmem(p, n, "\r\n\r\n", 4);
        if (end == NULL)
            return;
        n -= (size_t)(end + 4 - p);
        p = end + 4;
    }
    if (w.tls && n > 0) {
        FUZZ_MUST(*p == 'C');
        p++;
        n--;
        if (w.freed && n > 0 && p[n - 1] == 'X')
            n--;
    }
    FUZZ_MUST(n <= w.nsaid && memcmp(p, w.said, n) == 0);
}

/* ---- the story ---- */

static bool
ready(const struct loop_watch *watch)
{
    const struct sock *s = sock(watch->fd);

    if (s->waits)
        return false;
    return (watch->writable && (w.room > 0 || s->reset != 0)) ||
           (watch->readable && (s->at < s->end || s->eof || s->reset != 0));
}

/* Nothing that came or can go is left behind. */
static void
check_quiet(void)
{
    size_t at;

    if (!w.connected || w.closed || w.freed || (w.failed & NO_WANT) != 0)
        return;
    FUZZ_MUST(begin_of(&at));
    FUZZ_MUST(w.nread == w.len - at);
    FUZZ_MUST(w.room == 0 || stream_queued(w.stream) == 0);
}

/* Until all is quiet: what spins is found out. */
static void
pump(void)
{
    unsigned round = 0;
    size_t i;
    bool more;

    if (w.freed)
        return;

    do {
        fuzz_sleep(0);
        more = false;
        for (i = 0; i < SOCKS; i++) {
            if (w.watches[i].fd != 0 && ready(&w.watches[i])) {
                w.watches[i].cb(w.watches[i].arg);
                more = true;
            }
        }
        FUZZ_MUST(++round < ROUNDS);
    } while (more);
    check_quiet();
}

/* An address answers, or not. */
static void
settle(struct fuzz_input *in)
{
    static const int errors[] = {0, ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH};
    uint8_t what = fuzz_u8(in);
    size_t i;

    for (i = 0; i < w.nsocks; i++) {
        if (w.socks[i].open && w.socks[i].waits && (what >> 2) % 4 == i % 4) {
            w.socks[i].error = errors[what & 3];
            w.socks[i].waits = false;
            for (size_t k = 0; k < SOCKS; k++)
                if (w.watches[k].fd == FD_FIRST + (int)i) {
                    w.watches[k].cb(w.watches[k].arg);
                    break;
                }
            return;
        }
    }
}

static struct sock *
settled(void)
{
    for (size_t i = 0; i < w.nsocks; i++)
        if (w.socks[i].open && !w.socks[i].waits && w.socks[i].error == 0)
            return &w.socks[i];
    return NULL;
}

static void
arrive(const void *p, size_t len)
{
    struct sock *s = settled();

    if (s == NULL || s->eof || s->reset != 0 || len > WIRE_MAX - w.len)
        return;
    if (len > 0)
        memcpy(w.wire + w.len, p, len);
    if (s->end == 0)
        s->at = w.len;
    w.len += len;
    s->end = w.len;
}

static void
arrive_words(struct fuzz_input *in)
{
    static const char *const words[] = {"HTTP/1.1 200 OK\r\n", "\r\n",
        "HTTP/1.0 299\r\n", "HTTP/1.1 407 Who\r\n", "X: y\r\n", "T", ".", "!",
        "HTTP/1.1 200 Connection established\r\n\r\n", "200", "\n\n"};
    static const char many[8000];
    uint8_t what = fuzz_u8(in);

    if (what % 16 < sizeof(words) / sizeof(*words))
        arrive(words[what % 16], strlen(words[what % 16]));
    else
        arrive(many, (what >> 4) * 500u);
}

static void
look_up(struct fuzz_input *in)
{
    struct tn_addr addrs[LOOP_ADDRS_MAX];
    uint8_t n = fuzz_u8(in);
    unsigned i;

    if (w.lookup == NULL || w.lookup->over)
        return;
    w.lookup->over = true;
    for (i = 0; i < LOOP_ADDRS_MAX; i++) {
        addrs[i] = tn_addr_from4((const uint8_t[4]){10, 0, 0, (uint8_t)i});
        if ((i & 1) != 0)
            addrs[i].b[0] = 0xfd;
    }
    w.lookup->cb(
        w.lookup->arg, addrs, n % (LOOP_ADDRS_MAX + 1), "no such name");
}

static void
send_some(struct fuzz_input *in)
{
    static uint8_t text[2 * QUEUE_MAX];
    size_t len = fuzz_u16(in) % sizeof(text), i;
    size_t before = stream_queued(w.stream);
    int rc;

    if (w.nsaid + len > WIRE_MAX / 2)
        return;
    for (i = 0; i < len; i++)
        text[i] = (uint8_t)(w.nsaid + i);
    w.inside = true;
    rc = stream_send(w.stream, text, len);
    w.inside = false;
    FUZZ_MUST(stream_queued(w.stream) <= QUEUE_MAX + (w.tls ? 1 : 0));
    if (rc != 0) {
        FUZZ_MUST(!w.connected || w.closed || before + len > QUEUE_MAX);
        return;
    }
    FUZZ_MUST(w.connected && !w.closed && before + len <= QUEUE_MAX);
    if (len > 0)
        memcpy(w.said + w.nsaid, text, len);
    w.nsaid += len;
}

static void
step(struct fuzz_input *in)
{
    uint8_t what = fuzz_u8(in);
    struct fuzz_input part;
    struct tn_endpoint e;

    switch (what & 15) {
    case 0:
        fuzz_sleep(fuzz_u8(in) * 10u);
        break;
    case 1:
        look_up(in);
        break;
    case 2:
        settle(in);
        break;
    case 3:
        part = fuzz_bytes(in, fuzz_u8(in));
        arrive(part.p, part.len);
        break;
    case 4:
        arrive_words(in);
        break;
    case 5:
        if (settled() != NULL)
            settled()->eof = true;
        break;
    case 6:
        if (settled() != NULL)
            settled()->reset = ECONNRESET;
        break;
    case 7:
        send_some(in);
        break;
    case 9:
        w.room = fuzz_u16(in);
        break;
    case 10:
        w.act = fuzz_u8(in);
        break;
    case 11:
        w.fail = fuzz_u8(in);
        w.failed |= w.fail;
        break;
    case 12:
        FUZZ_MUST(stream_local(w.stream, &e) == (w.connected && !w.closed));
        break;
    default: /* several come in one reading */
        return;
    }
    if ((what & 16) == 0)
        pump();
}

/* A target as others may name it: a control server's URL or a relay. */
static void
begin(struct fuzz_input *in)
{
    static const char *const hosts[] = {
        "target.example", "10.0.0.1", "fd7a::1", "a:b", "", "127.0.0.1"};
    static const char *const proxies[] = {"http://user:pass@proxy:3128",
        "http://10.9.9.9:3128/", "socks://pass", ""};
    static struct tn_addr addrs[STREAM_ADDRS_MAX + 2];
    static char long_name[STREAM_HOST_MAX + 2];
    static struct tls_trust trust;
    uint8_t how = fuzz_u8(in), host = fuzz_u8(in);
    struct proxy p;
    char err[PROXY_ERROR_MAX];

    memset(long_name, 'h', sizeof(long_name) - 1);
    long_name[STREAM_HOST_MAX + (host & 1)] = '\0';
    w.tls = (how & 1) != 0;
    w.act = 0;
    w.room = (how & 2) != 0 ? 0 : WIRE_MAX;
    w.to.host = host % 7 == 6 ? long_name : hosts[host % 7];
    w.to.port = (uint16_t)(host + 1);
    w.to.trust = w.tls ? &trust : NULL;
    w.to.proxy = (how & 4) != 0;
    w.to.connect_ms = CONNECT_MS;
    w.to.queue_max = QUEUE_MAX;
    if ((how & 8) != 0) {
        w.to.addrs = addrs;
        w.to.naddrs = host % (STREAM_ADDRS_MAX + 3);
    }
    FUZZ_MUST(setenv(w.tls ? "https_proxy" : "http_proxy",
                  proxies[(how >> 4) & 3], 1) == 0);
    w.proxy = w.to.proxy &&
              proxy_for(w.to.host, w.to.port, w.tls, &p, err) == PROXY_USE;
    w.inside = true;
    w.stream = stream_new(&w.to, &ops, &w);
    w.inside = false;
    FUZZ_MUST(w.stream != NULL);
    pump();
}

static void
check_end(void)
{
    size_t i;

    FUZZ_MUST(loop.timers == NULL && w.lookup == NULL);
    for (i = 0; i < SOCKS; i++)
        FUZZ_MUST(!w.socks[i].open && w.watches[i].fd == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t start;

    memset(&w, 0, sizeof(w));
    loop.now = start = 1000;
    unsetenv("http_proxy");
    unsetenv("https_proxy");
    begin(&in);
    while (in.len > 0 && !w.freed && !w.closed) {
        step(&in);
        check_sent();
        if (!w.freed && loop.now >= start + CONNECT_MS && (w.fail & 15) == 0)
            FUZZ_MUST(w.connected || w.closed);
    }
    if (!w.freed) {
        w.freed = w.inside = true;
        stream_free(w.stream);
        check_sent();
    }
    check_end();
    return 0;
}

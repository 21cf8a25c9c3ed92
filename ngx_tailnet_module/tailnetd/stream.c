/*
 * Theory of operation.  A stream goes through the phases below; one timer has
 * the whole deadline and the next address' start.  Addresses are tried
 * STREAM_STAGGER_MS apart, or at once when one fails, until the first is there
 * (RFC 8305, without its sorting: the resolver's order holds).
 *
 *   LOOKUP ─► CONNECT ─► [PROXY] ─► [TLS] ─► OPEN ─► CLOSED
 *
 * Callbacks run with ${depth} > 0; a stream that is freed inside one is only
 * marked, and released when the outermost one returns.
 */
#include "stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"
#include "proxy.h"

#define READ_MAX   16384
#define READS_MAX  16 /* in a row, before others on the loop have their turn */
#define SEND_CHUNK 16384

#define KEEPALIVE_S 30

enum phase { LOOKUP, CONNECT, PROXY, TLS, OPEN, CLOSED };

struct attempt {
    struct stream *stream;
    struct loop_watch *watch;
    int fd; /* -1: not begun, or over */
};

/* Bytes that wait: from ${from} to ${to} of ${b}. */
struct queue {
    uint8_t *b;
    size_t from, to, size, max;
};

struct stream {
    const struct stream_ops *ops;
    void *arg;
    enum phase phase;
    unsigned depth;
    bool freed, broken;
    char host[STREAM_HOST_MAX + 1];
    uint16_t port;
    struct proxy *proxy; /* NULL: none is used */
    struct tls *tls;
    struct loop_lookup *lookup;
    struct loop_timer *timer;
    uint64_t deadline, next_at;
    struct tn_addr addrs[STREAM_ADDRS_MAX];
    size_t naddrs, ntried;
    struct attempt attempts[STREAM_ADDRS_MAX];
    int fd;
    struct loop_watch *watch;
    struct queue out;
    char *head; /* of the proxy's answer */
    size_t headlen;
    char why[STREAM_WHY_MAX]; /* of the latest failed address, or the end */
};

/* ---- the queue ---- */

static int
queue_add(struct queue *q, const void *data, size_t len)
{
    size_t waits = q->to - q->from, size = q->size;
    uint8_t *b;

    if (len > q->size - q->to && q->from > 0) {
        memmove(q->b, q->b + q->from, waits);
        q->from = 0;
        q->to = waits;
    }
    if (len > q->size - q->to) {
        for (size = size == 0 ? 4096 : size; size < waits + len;)
            size *= 2;
        b = realloc(q->b, size);
        if (b == NULL)
            return -1;
        q->b = b;
        q->size = size;
    }
    if (len > 0)
        memcpy(q->b + q->to, data, len);
    q->to += len;
    return 0;
}

/* ---- the end ---- */

static void
drop_attempts(struct stream *s)
{
    for (size_t i = 0; i < STREAM_ADDRS_MAX; i++) {
        loop_watch_free(s->attempts[i].watch);
        s->attempts[i].watch = NULL;
        if (s->attempts[i].fd != -1)
            close(s->attempts[i].fd);
        s->attempts[i].fd = -1;
    }
}

/* Everything but the memory that callers may still look at. */
static void
shut(struct stream *s)
{
    s->phase = CLOSED;
    drop_attempts(s);
    loop_lookup_free(s->lookup);
    s->lookup = NULL;
    loop_watch_free(s->watch);
    s->watch = NULL;
    if (s->fd != -1)
        close(s->fd);
    s->fd = -1;
    loop_timer_free(s->timer);
    s->timer = NULL;
    tls_free(s->tls);
    s->tls = NULL;
    if (s->out.b != NULL)
        explicit_bzero(s->out.b, s->out.size);
    free(s->out.b);
    s->out = (struct queue){0};
    if (s->proxy != NULL)
        explicit_bzero(s->proxy, sizeof(*s->proxy));
    free(s->proxy);
    s->proxy = NULL;
    free(s->head);
    s->head = NULL;
}

static void
release(struct stream *s)
{
    shut(s);
    free(s);
}

/* Around every entry from the loop. */
static void
enter(struct stream *s)
{
    s->depth++;
}

static void
leave(struct stream *s)
{
    if (--s->depth == 0 && s->freed)
        release(s);
}

void
stream_free(struct stream *s)
{
    if (s == NULL)
        return;
    if (s->tls != NULL && s->phase == OPEN) {
        uint8_t buf[512];
        size_t n;

        /* The other end is told, if that goes without waiting. */
        tls_close(s->tls);
        n = s->out.to == s->out.from ? tls_take(s->tls, buf, sizeof(buf)) : 0;
        if (n > 0 && s->fd != -1)
            (void)!send(s->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    s->freed = true;
    shut(s);
    if (s->depth == 0)
        release(s);
}

__attribute__((format(printf, 2, 3))) static void
end(struct stream *s, const char *fmt, ...)
{
    char why[STREAM_WHY_MAX];
    va_list ap;

    if (s->phase == CLOSED)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    shut(s);
    s->ops->closed(s->arg, why);
}

/* ---- bytes out ---- */

static void
want(struct stream *s)
{
    bool writing = s->out.to > s->out.from;

    if (s->watch == NULL || loop_watch_want(s->watch, true, writing) == 0)
        return;
    s->broken = true;
    loop_timer_set(s->timer, 0);
}

/* Sends what waits; false: the connection failed, ${errno}. */
static bool
push(struct stream *s)
{
    struct queue *q = &s->out;
    ssize_t n;

    while (q->from < q->to) {
        n = send(s->fd, q->b + q->from, q->to - q->from, MSG_NOSIGNAL);
        if (n == -1 && errno == EINTR)
            continue;
        if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return true;
        if (n == -1)
            return false;
        q->from += (size_t)n;
    }
    if (q->size > 65536) { /* a burst's memory is given back */
        free(q->b);
        q->b = NULL;
        q->size = 0;
    }
    q->from = q->to = 0;
    return true;
}

/* What TLS wants to say goes into the queue. */
static int
drain_tls(struct stream *s)
{
    uint8_t buf[SEND_CHUNK];
    size_t n;

    while ((n = tls_take(s->tls, buf, sizeof(buf))) > 0)
        if (queue_add(&s->out, buf, n) != 0)
            return -1;
    return 0;
}

/* Errors are left to the next callback from the loop, which reads them. */
static int
queue_plain(struct stream *s, const void *data, size_t len)
{
    if (queue_add(&s->out, data, len) != 0)
        return -1;
    (void)push(s);
    want(s);
    return 0;
}

int
stream_send(struct stream *s, const void *data, size_t len)
{
    if (s->phase != OPEN || len > s->out.max ||
        s->out.to - s->out.from > s->out.max - len)
        return -1;
    if (s->tls == NULL)
        return queue_plain(s, data, len);
    if (tls_write(s->tls, data, len) != 0 || drain_tls(s) != 0) {
        /* Bytes of a sealed stream are missing: it cannot go on. */
        s->broken = true;
        loop_timer_set(s->timer, 0);
        return -1;
    }
    (void)push(s);
    want(s);
    return 0;
}

size_t
stream_queued(const struct stream *s)
{
    return s->out.to - s->out.from;
}

/* ---- phases ---- */

static void begin_attempt(struct stream *s);
static void begin_tls(struct stream *s);

static void
opened(struct stream *s)
{
    s->phase = OPEN;
    loop_timer_set(s->timer, UINT64_MAX);
    want(s);
    s->ops->connected(s->arg);
}

static const char *
why_ended(int error)
{
    return error == 0 ? "the other end closed the connection" : strerror(error);
}

/* Gives plaintext of TLS to the user, and goes from phase TLS to OPEN. */
static void
read_tls(struct stream *s)
{
    uint8_t buf[READ_MAX];
    size_t n;

    while (s->phase == TLS || s->phase == OPEN) {
        n = tls_read(s->tls, buf, s->phase == TLS ? 0 : sizeof(buf));
        if (drain_tls(s) != 0) {
            end(s, "out of memory");
            return;
        }
        (void)push(s);
        if (s->phase == TLS && tls_state(s->tls) == TLS_OPEN) {
            opened(s);
            continue;
        }
        if (n == 0)
            break;
        s->ops->data(s->arg, buf, n);
        explicit_bzero(buf, n); /* it may be a secret */
    }
    if (s->phase == CLOSED)
        return;
    if (tls_state(s->tls) == TLS_FAILED)
        end(s, "%s", tls_error(s->tls));
    else if (tls_state(s->tls) == TLS_ENDED)
        end(s, "%s", why_ended(0));
    else
        want(s);
}

static bool
digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A status of 2xx (RFC 9112, section 4). */
static bool
accepts(const char *head, size_t len)
{
    return len > 12 && memcmp(head, "HTTP/1.", 7) == 0 && digit(head[7]) &&
           head[8] == ' ' && head[9] == '2' && digit(head[10]) &&
           digit(head[11]) && (head[12] == ' ' || head[12] == '\r');
}

/* The head of the proxy's answer ends at an empty line; what is behind it
 * belongs to the target. */
static void
read_proxy(struct stream *s, const uint8_t *p, size_t len)
{
    size_t i, body = 0;
    char line[81];

    for (i = 0; i < len && body == 0; i++) {
        if (s->headlen == STREAM_PROXY_ANSWER) {
            end(s, "the proxy's answer is longer than %d bytes",
                STREAM_PROXY_ANSWER);
            return;
        }
        s->head[s->headlen++] = (char)p[i];
        if (s->headlen >= 4 &&
            memcmp(s->head + s->headlen - 4, "\r\n\r\n", 4) == 0)
            body = i + 1;
    }
    if (body == 0)
        return;
    if (!accepts(s->head, s->headlen)) {
        for (i = 0; i < sizeof(line) - 1 && i < s->headlen &&
                    (unsigned char)s->head[i] >= 0x20 &&
                    (unsigned char)s->head[i] < 0x7f;
             i++)
            line[i] = s->head[i];
        line[i] = '\0';
        end(s, "the proxy %s:%u refuses: %s", s->proxy->host, s->proxy->port,
            line);
        return;
    }
    free(s->head);
    s->head = NULL;
    if (s->tls != NULL) {
        tls_feed(s->tls, p + body, len - body);
        begin_tls(s);
        return;
    }
    opened(s);
    if (s->phase == OPEN && body < len)
        s->ops->data(s->arg, p + body, len - body);
}

static void
received(struct stream *s, const uint8_t *p, size_t len)
{
    if (s->phase == PROXY) {
        read_proxy(s, p, len);
    } else if (s->tls != NULL) {
        tls_feed(s->tls, p, len);
        read_tls(s);
    } else {
        s->ops->data(s->arg, p, len);
    }
}

static void
ready(void *arg)
{
    struct stream *s = arg;
    uint8_t buf[READ_MAX];
    bool waited = s->out.to > s->out.from;
    ssize_t n = 0;
    int i;

    enter(s);
    /* A reset is seen by reading too, and what came before it counts. */
    (void)push(s);
    for (i = 0; i < READS_MAX && s->phase != CLOSED; i++) {
        n = recv(s->fd, buf, sizeof(buf), 0);
        if (n > 0) {
            received(s, buf, (size_t)n);
            continue;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            end(s, "%s", why_ended(n == 0 ? 0 : errno));
        break;
    }
    if (s->phase != CLOSED)
        want(s);
    if (s->phase == OPEN && waited && s->out.to == s->out.from &&
        s->ops->drained != NULL)
        s->ops->drained(s->arg);
    if (s->phase != CLOSED && s->broken)
        end(s, "out of memory, or the connection failed");
    leave(s);
}

static void
begin_tls(struct stream *s)
{
    s->phase = TLS;
    read_tls(s);
}

static void
begin_proxy(struct stream *s)
{
    char text[STREAM_HOST_MAX * 2 + PROXY_AUTH_MAX + 128];
    bool six = strchr(s->host, ':') != NULL;
    const char *left = six ? "[" : "", *right = six ? "]" : "";
    int n;

    s->phase = PROXY;
    s->head = malloc(STREAM_PROXY_ANSWER);
    n = snprintf(text, sizeof(text),
        "CONNECT %s%s%s:%u HTTP/1.1\r\nHost: %s%s%s:%u\r\n%s%s%s\r\n", left,
        s->host, right, s->port, left, s->host, right, s->port,
        s->proxy->auth[0] != '\0' ? "Proxy-Authorization: Basic " : "",
        s->proxy->auth, s->proxy->auth[0] != '\0' ? "\r\n" : "");
    if (s->head == NULL || queue_plain(s, text, (size_t)n) != 0)
        end(s, "out of memory");
    explicit_bzero(text, sizeof(text));
}

/* ${a} is the one: its socket becomes the stream's. */
static void
settle(struct stream *s, struct attempt *a)
{
    int one = 1, idle = KEEPALIVE_S;

    s->fd = a->fd;
    a->fd = -1;
    drop_attempts(s);
    (void)setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    /* A silent connection whose other end is gone is noticed. */
    (void)setsockopt(s->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(s->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    s->watch = loop_watch_new(s->fd, ready, s);
    if (s->watch == NULL) {
        end(s, "out of memory");
        return;
    }
    loop_timer_set(s->timer, s->deadline);
    if (s->proxy != NULL)
        begin_proxy(s);
    else if (s->tls != NULL)
        begin_tls(s);
    else
        opened(s);
}

static bool
none_left(const struct stream *s)
{
    for (size_t i = 0; i < s->ntried; i++)
        if (s->attempts[i].fd != -1)
            return false;
    return s->ntried == s->naddrs;
}

static void
attempt_failed(struct stream *s, struct attempt *a, int error)
{
    char text[TN_ADDR_STRLEN];

    loop_watch_free(a->watch);
    a->watch = NULL;
    if (a->fd != -1)
        close(a->fd);
    a->fd = -1;
    tn_addr_format(&s->addrs[a - s->attempts], text);
    snprintf(s->why, sizeof(s->why), "%s: %s", text, strerror(error));
    if (none_left(s))
        end(s, "%s", s->why);
    else if (s->ntried < s->naddrs)
        begin_attempt(s);
}

static void
attempt_ready(void *arg)
{
    struct attempt *a = arg;
    struct stream *s = a->stream;
    socklen_t len = sizeof(int);
    int error = 0;

    enter(s);
    if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error == 0)
        settle(s, a);
    else
        attempt_failed(s, a, error);
    leave(s);
}

static socklen_t
sockaddr_of(struct sockaddr_storage *ss, const struct tn_addr *a, uint16_t port)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ss;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ss;

    memset(ss, 0, sizeof(*ss));
    if (tn_addr_is4(a)) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, a->b + 12, 4);
        return sizeof(*v4);
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    memcpy(&v6->sin6_addr, a->b, 16);
    return sizeof(*v6);
}

static void
begin_attempt(struct stream *s)
{
    struct attempt *a = &s->attempts[s->ntried];
    uint16_t port = s->proxy != NULL ? s->proxy->port : s->port;
    struct sockaddr_storage ss;
    socklen_t len = sockaddr_of(&ss, &s->addrs[s->ntried], port);
    uint64_t now = loop_now();

    s->ntried++;
    s->next_at = s->ntried < s->naddrs ? now + STREAM_STAGGER_MS : UINT64_MAX;
    loop_timer_set(
        s->timer, s->next_at < s->deadline ? s->next_at : s->deadline);
    a->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->fd == -1 || (connect(a->fd, (struct sockaddr *)&ss, len) == -1 &&
                           errno != EINPROGRESS)) {
        attempt_failed(s, a, errno);
        return;
    }
    a->watch = loop_watch_new(a->fd, attempt_ready, a);
    if (a->watch == NULL || loop_watch_want(a->watch, false, true) != 0)
        attempt_failed(s, a, ENOMEM);
}

static void
begin_connect(struct stream *s)
{
    s->phase = CONNECT;
    begin_attempt(s);
}

static void
looked_up(void *arg, const struct tn_addr *addrs, size_t n, const char *why)
{
    struct stream *s = arg;

    enter(s);
    if (n == 0) {
        end(s, "the name %s cannot be looked up: %s",
            s->proxy != NULL ? s->proxy->host : s->host, why);
    } else {
        s->naddrs = n < STREAM_ADDRS_MAX ? n : STREAM_ADDRS_MAX;
        memcpy(s->addrs, addrs, s->naddrs * sizeof(*addrs));
        begin_connect(s);
    }
    leave(s);
}

static void
begin(struct stream *s)
{
    const char *name = s->proxy != NULL ? s->proxy->host : s->host;

    if (s->proxy == NULL && s->naddrs > 0) {
        begin_connect(s);
        return;
    }
    if (tn_addr_parse(&s->addrs[0], name, strlen(name)) == 0) {
        s->naddrs = 1;
        begin_connect(s);
        return;
    }
    loop_timer_set(s->timer, s->deadline);
    s->lookup = loop_lookup_new(name, looked_up, s);
    if (s->lookup == NULL)
        end(s, "the name %s cannot be looked up", name);
}

static const char *
phase_name(const struct stream *s)
{
    switch (s->phase) {
    case LOOKUP:
        return "looking the name up";
    case PROXY:
        return "waiting for the proxy";
    case TLS:
        return "the TLS handshake";
    default:
        return "connecting";
    }
}

static void
tick(void *arg)
{
    struct stream *s = arg;
    uint64_t now = loop_now();

    enter(s);
    if (s->why[0] != '\0' && s->phase == LOOKUP && s->naddrs == 0 &&
        s->lookup == NULL)
        end(s, "%s", s->why);
    else if (s->broken)
        end(s, "out of memory, or the connection failed");
    else if (now >= s->deadline)
        end(s, "no success within the time limit, while %s%s%s", phase_name(s),
            s->why[0] == '\0' ? "" : "; last failure: ", s->why);
    else if (s->phase == LOOKUP && s->lookup == NULL)
        begin(s);
    else if (s->phase == CONNECT && s->ntried < s->naddrs)
        begin_attempt(s);
    leave(s);
}

/* ---- life ---- */

static int
set_up(struct stream *s, const struct stream_to *to)
{
    struct proxy proxy;
    char err[PROXY_ERROR_MAX];
    int rc = 0;

    if (to->trust != NULL) {
        s->tls = tls_new(to->trust, to->tls);
        if (s->tls == NULL)
            return -1;
    }
    if (!to->proxy)
        return 0;
    switch (proxy_for(to->host, to->port, to->trust != NULL, &proxy, err)) {
    case PROXY_DIRECT:
        break;
    case PROXY_UNUSABLE:
        snprintf(s->why, sizeof(s->why), "%s", err);
        break;
    case PROXY_USE:
        s->proxy = malloc(sizeof(proxy));
        if (s->proxy == NULL)
            rc = -1;
        else
            *s->proxy = proxy;
    }
    explicit_bzero(&proxy, sizeof(proxy));
    return rc;
}

struct stream *
stream_new(const struct stream_to *to, const struct stream_ops *ops, void *arg)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->ops = ops;
    s->arg = arg;
    s->fd = -1;
    s->phase = LOOKUP;
    s->port = to->port;
    s->out.max = to->queue_max != 0 ? to->queue_max : STREAM_QUEUE_MAX;
    for (size_t i = 0; i < STREAM_ADDRS_MAX; i++)
        s->attempts[i] = (struct attempt){.stream = s, .fd = -1};
    s->timer = loop_timer_new(tick, s);
    if (s->timer == NULL || set_up(s, to) != 0) {
        release(s);
        return NULL;
    }
    if (strlen(to->host) > STREAM_HOST_MAX)
        snprintf(s->why, sizeof(s->why), "its name is too long");
    else
        strcpy(s->host, to->host);
    if (s->why[0] == '\0' && to->naddrs > 0) {
        s->naddrs = to->naddrs < STREAM_ADDRS_MAX ? to->naddrs
                                                  : STREAM_ADDRS_MAX;
        memcpy(s->addrs, to->addrs, s->naddrs * sizeof(*to->addrs));
    }
    s->deadline = loop_now() + to->connect_ms;
    loop_timer_set(s->timer, 0); /* the rest from the loop */
    return s;
}

bool
stream_local(const struct stream *s, struct tn_endpoint *e)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    return s->phase == OPEN &&
           getsockname(s->fd, (struct sockaddr *)&ss, &len) == 0 &&
           tn_addr_from_sockaddr((struct sockaddr *)&ss, &e->addr, &e->port) ==
               0;
}

/*
 * reqloop.c: keep N requests in flight, a fresh connection for each, and
 * tell about every one that was not answered as it should be.
 *
 *   reqloop --url http://IP:PORT/PATH [--parallel N] [--count N]
 *           [--interval-ms MS] [--timeout-ms MS] [--status CODE]
 *           [--size BYTES] [--expect-file FILE] [--host NAME]
 *           [--header "NAME: VALUE"]...
 *
 * It asks in HTTP/1.0, so an answer is never chunked and ends with the
 * connection; a Content-Length must be kept to.  --expect-file compares the
 * body byte for byte.  It runs for --count requests or until SIGTERM, SIGINT
 * or the end of standard input; requests in flight are finished then, not cut
 * off, so that stopping adds no failures.  "ready" is printed after the first
 * request that succeeded, and at the end a summary in one line of JSON.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "endpoint.h"
#include "prog.h"

#define PARALLEL_MAX 256
#define REQUEST_MAX  4096
#define HEAD_MAX     8192
#define REASONS_MAX  10 /* first failures that are told in full */
#define REASON_LEN   120
#define EXPECT_MAX   (64 << 20)

enum state { WAITING, CONNECTING, SENDING, HEAD, BODY };

struct loop {
    enum state state;
    int fd;            /* -1 while WAITING */
    uint64_t start_us; /* of this request; while WAITING: of the next */
    size_t sent;
    size_t head_len;
    char head[HEAD_MAX + 1];
    int64_t length; /* Content-Length; -1: until the connection ends */
    int64_t body;
};

struct reason {
    uint64_t at_ms; /* since the start of the program */
    char text[REASON_LEN];
};

struct run {
    struct endpoint server;
    char request[REQUEST_MAX];
    size_t request_len;
    long parallel;
    long count; /* 0: until told */
    long interval_ms;
    long timeout_ms;
    long status;
    long size;    /* -1: any */
    char *expect; /* NULL: any body */

    uint64_t began_us;
    uint64_t last_ok_us;
    uint64_t max_gap_us; /* between two successes in a row */
    uint64_t max_us;
    uint64_t total_us;
    uint64_t started;
    uint64_t ok;
    uint64_t failures;
    struct reason reasons[REASONS_MAX];
    bool stop;
    struct loop loops[PARALLEL_MAX];
};

/* finish(r, l): the request is over, the next may start after the interval. */
static void
finish(struct run *r, struct loop *l)
{
    close(l->fd);
    l->fd = -1;
    l->state = WAITING;
    l->start_us = prog_now_us() + (uint64_t)r->interval_ms * 1000;
}

static void __attribute__((format(printf, 3, 4)))
fail(struct run *r, struct loop *l, const char *fmt, ...)
{
    if (r->failures < REASONS_MAX) {
        struct reason *reason = &r->reasons[r->failures];
        va_list ap;

        reason->at_ms = (prog_now_us() - r->began_us) / 1000;
        va_start(ap, fmt);
        vsnprintf(reason->text, sizeof(reason->text), fmt, ap);
        va_end(ap);
    }
    r->failures++;
    finish(r, l);
}

static void
succeed(struct run *r, struct loop *l)
{
    uint64_t now = prog_now_us();
    uint64_t took = now - l->start_us;

    if (r->ok == 0) {
        puts("ready");
        fflush(stdout);
    } else if (now - r->last_ok_us > r->max_gap_us) {
        r->max_gap_us = now - r->last_ok_us;
    }
    r->last_ok_us = now;
    r->max_us = took > r->max_us ? took : r->max_us;
    r->total_us += took;
    r->ok++;
    finish(r, l);
}

static void
start(struct run *r, struct loop *l)
{
    int one = 1;

    r->started++;
    l->start_us = prog_now_us();
    l->sent = 0;
    l->head_len = 0;
    l->body = 0;
    l->state = CONNECTING;
    l->fd = socket(
        r->server.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd == -1) {
        prog_die("socket: %s", strerror(errno));
    }
    (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(l->fd, &r->server.sa, r->server.len) == -1 &&
        errno != EINPROGRESS) {
        fail(r, l, "connect: %s", strerror(errno));
    }
}

/* connected(r, l): look at how connect() ended.  Returns false: it failed. */
static bool
connected(struct run *r, struct loop *l)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1) {
        error = errno;
    }
    if (error) {
        fail(r, l, "connect: %s", strerror(error));
        return false;
    }
    l->state = SENDING;
    return true;
}

static void
send_request(struct run *r, struct loop *l)
{
    ssize_t n = send(
        l->fd, r->request + l->sent, r->request_len - l->sent, MSG_NOSIGNAL);

    if (n == -1) {
        if (errno != EAGAIN) {
            fail(r, l, "send: %s", strerror(errno));
        }
        return;
    }
    l->sent += (size_t)n;
    if (l->sent == r->request_len) {
        l->state = HEAD;
    }
}

/* take_body(r, l, data, len): count and compare.  Returns false: it failed. */
static bool
take_body(struct run *r, struct loop *l, const char *data, size_t len)
{
    if (l->length >= 0 && l->body + (int64_t)len > l->length) {
        fail(r, l, "body longer than its Content-Length of %jd",
            (intmax_t)l->length);
        return false;
    }
    if (r->expect) {
        size_t left = (size_t)(r->size - l->body);

        if (len > left || memcmp(r->expect + l->body, data, len) != 0) {
            fail(r, l, "body differs after %jd bytes", (intmax_t)l->body);
            return false;
        }
    }
    l->body += (int64_t)len;
    return true;
}

static int64_t
content_length(const char *head)
{
    const char *line;

    for (line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0) {
            return strtoll(line + 15, NULL, 10);
        }
    }
    return -1;
}

/* take_head(r, l): the head may be complete now; what follows it is body. */
static void
take_head(struct run *r, struct loop *l)
{
    char *end;
    size_t rest;
    long status = 0;

    l->head[l->head_len] = '\0';
    end = strstr(l->head, "\r\n\r\n");
    if (!end) {
        if (l->head_len == HEAD_MAX) {
            fail(r, l, "header longer than %d bytes", HEAD_MAX);
        }
        return;
    }
    rest = l->head_len - (size_t)(end + 4 - l->head);
    *end = '\0';
    if (strncmp(l->head, "HTTP/1.", 7) == 0 && l->head_len > 9) {
        status = strtol(l->head + 9, NULL, 10);
    }
    if (status != r->status) {
        fail(r, l, "status %ld, not %ld: %.40s", status, r->status, end + 4);
        return;
    }
    l->length = content_length(l->head);
    l->state = BODY;
    take_body(r, l, end + 4, rest);
}

/* at_end(r, l): the server closed the connection. */
static void
at_end(struct run *r, struct loop *l)
{
    if (l->state != BODY) {
        fail(r, l, "closed after %zu bytes of header", l->head_len);
        return;
    }
    if (l->length >= 0 && l->body != l->length) {
        fail(r, l, "closed after %jd of %jd bytes", (intmax_t)l->body,
            (intmax_t)l->length);
        return;
    }
    if (r->size >= 0 && l->body != r->size) {
        fail(r, l, "body of %jd bytes, not %ld", (intmax_t)l->body, r->size);
        return;
    }
    succeed(r, l);
}

static void
receive(struct run *r, struct loop *l)
{
    static char buf[65536];
    ssize_t n;

    if (l->state == HEAD) {
        n = recv(l->fd, l->head + l->head_len, HEAD_MAX - l->head_len, 0);
    } else {
        n = recv(l->fd, buf, sizeof(buf), 0);
    }
    if (n == -1) {
        if (errno != EAGAIN) {
            fail(r, l, "receive: %s after %zu + %jd bytes", strerror(errno),
                l->head_len, (intmax_t)l->body);
        }
        return;
    }
    if (n == 0) {
        at_end(r, l);
    } else if (l->state == HEAD) {
        l->head_len += (size_t)n;
        take_head(r, l);
    } else {
        take_body(r, l, buf, (size_t)n);
    }
}

static void
advance(struct run *r, struct loop *l)
{
    if (l->state == CONNECTING && !connected(r, l)) {
        return;
    }
    if (l->state == SENDING) {
        send_request(r, l);
        return;
    }
    receive(r, l);
}

/* plan(r, l, now, fd): start or time out what is due, and say what to poll
 * for.  Returns microseconds until the loop needs care again. */
static uint64_t
plan(struct run *r, struct loop *l, uint64_t now, struct pollfd *fd)
{
    uint64_t limit = (uint64_t)r->timeout_ms * 1000;
    bool more = !r->stop && (r->count == 0 || r->started < (uint64_t)r->count);

    if (l->state != WAITING && now >= l->start_us + limit) {
        static const char *const names[] = {
            "waiting", "connecting", "sending", "header", "body"};

        fail(r, l, "timeout: %s, %jd bytes of body", names[l->state],
            (intmax_t)l->body);
    }
    if (l->state == WAITING && more && now >= l->start_us) {
        start(r, l);
    }
    fd->fd = l->fd;
    fd->events = l->state == HEAD || l->state == BODY ? POLLIN : POLLOUT;
    fd->revents = 0;
    if (l->state == WAITING) {
        if (!more) {
            return UINT64_MAX;
        }
        return l->start_us > now ? l->start_us - now : 0;
    }
    return l->start_us + limit > now ? l->start_us + limit - now : 0;
}

static bool
idle(const struct run *r)
{
    long i;

    for (i = 0; i < r->parallel; i++) {
        if (r->loops[i].state != WAITING) {
            return false;
        }
    }
    return r->stop || (r->count && r->started >= (uint64_t)r->count);
}

static void
run_loops(struct run *r, int signal_fd)
{
    enum { STDIN, SIGNALS, FIRST };
    struct pollfd fds[FIRST + PARALLEL_MAX];
    nfds_t n = FIRST + (nfds_t)r->parallel;
    struct timespec ts;
    char buf[256];
    long i;

    fds[SIGNALS] = (struct pollfd){signal_fd, POLLIN, 0};
    for (;;) {
        uint64_t now = prog_now_us();
        uint64_t wait = 3600u * 1000000u;

        /* Once stopping, a closed input would only wake us for nothing. */
        fds[STDIN] = (struct pollfd){r->stop ? -1 : STDIN_FILENO, POLLIN, 0};
        for (i = 0; i < r->parallel; i++) {
            uint64_t left = plan(r, &r->loops[i], now, &fds[FIRST + i]);

            wait = left < wait ? left : wait;
        }
        if (idle(r)) {
            return;
        }
        ts.tv_sec = (time_t)(wait / 1000000);
        ts.tv_nsec = (long)(wait % 1000000) * 1000;
        if (ppoll(fds, n, &ts, NULL) == -1) {
            prog_die("poll: %s", strerror(errno));
        }
        for (i = 0; i < r->parallel; i++) {
            if (fds[FIRST + i].fd != -1 && fds[FIRST + i].revents) {
                advance(r, &r->loops[i]);
            }
        }
        if (fds[SIGNALS].revents) {
            r->stop = true;
            fds[SIGNALS].fd = -1;
        }
        if (fds[STDIN].revents && read(STDIN_FILENO, buf, sizeof(buf)) <= 0) {
            r->stop = true;
        }
    }
}

static void
print_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\') {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

static void
print_summary(const struct run *r)
{
    uint64_t told = r->failures < REASONS_MAX ? r->failures : REASONS_MAX;
    uint64_t i;

    printf("{\"requests\":%ju,\"ok\":%ju,\"failures\":%ju,"
           "\"max_ms\":%.3f,\"mean_ms\":%.3f,\"max_gap_ms\":%.3f,"
           "\"elapsed_ms\":%.3f,\"reasons\":[",
        (uintmax_t)r->started, (uintmax_t)r->ok, (uintmax_t)r->failures,
        (double)r->max_us / 1000,
        r->ok ? (double)r->total_us / (double)r->ok / 1000 : 0.0,
        (double)r->max_gap_us / 1000,
        (double)(prog_now_us() - r->began_us) / 1000);
    for (i = 0; i < told; i++) {
        printf("%s{\"at_ms\":%ju,\"reason\":", i ? "," : "",
            (uintmax_t)r->reasons[i].at_ms);
        print_string(r->reasons[i].text);
        putchar('}');
    }
    puts("]}");
}

static long
number(const char *name, const char *text, long min, long max)
{
    char *end;
    long n;

    errno = 0;
    n = strtol(text, &end, 10);
    if (errno || end == text || *end || n < min || n > max) {
        prog_die("--%s %s: not a number from %ld to %ld", name, text, min, max);
    }
    return n;
}

static char *
read_file(const char *path, long *size)
{
    FILE *f = fopen(path, "rb");
    char *data = malloc(EXPECT_MAX);
    size_t n;

    if (!f || !data) {
        prog_die("--expect-file %s: %s", path, strerror(errno));
    }
    n = fread(data, 1, EXPECT_MAX, f);
    if (ferror(f) || fgetc(f) != EOF) {
        prog_die(
            "--expect-file %s: not readable up to %d bytes", path, EXPECT_MAX);
    }
    fclose(f);
    *size = (long)n;
    return data;
}

/* build_request(r, url, host, headers): split the URL, write the request. */
static void
build_request(
    struct run *r, const char *url, const char *host, const char *headers)
{
    const char *authority;
    char name[128];
    size_t len;
    int n;

    if (strncmp(url, "http://", 7) != 0) {
        prog_die("--url http://IP:PORT/PATH is needed");
    }
    authority = url + 7;
    len = strcspn(authority, "/");
    if (len >= sizeof(name) || authority[len] != '/') {
        prog_die("--url %s: not http://IP:PORT/PATH", url);
    }
    memcpy(name, authority, len);
    name[len] = '\0';
    if (!endpoint_parse(&r->server, name)) {
        prog_die("--url %s: %s is not IP:PORT", url, name);
    }
    n = snprintf(r->request, sizeof(r->request),
        "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: reqloop\r\n%s\r\n",
        authority + len, host ? host : name, headers);
    if (n < 0 || (size_t)n >= sizeof(r->request)) {
        prog_die("request longer than %zu bytes", sizeof(r->request));
    }
    r->request_len = (size_t)n;
}

static void
parse_options(struct run *r, int argc, char **argv)
{
    static const struct option names[] = {
        {"url", required_argument, NULL, 'u'},
        {"host", required_argument, NULL, 'H'},
        {"header", required_argument, NULL, 'h'},
        {"expect-file", required_argument, NULL, 'e'},
        {"parallel", required_argument, NULL, 'p'},
        {"count", required_argument, NULL, 'c'},
        {"interval-ms", required_argument, NULL, 'i'},
        {"timeout-ms", required_argument, NULL, 't'},
        {"status", required_argument, NULL, 's'},
        {"size", required_argument, NULL, 'z'},
        {0},
    };
    struct {
        char opt;
        long *value;
        long min, max;
    } numbers[] = {
        {'p', &r->parallel, 1, PARALLEL_MAX},
        {'c', &r->count, 0, INT32_MAX},
        {'i', &r->interval_ms, 0, 3600000},
        {'t', &r->timeout_ms, 1, 3600000},
        {'s', &r->status, 100, 599},
        {'z', &r->size, 0, INT32_MAX},
    };
    const char *url = "", *host = NULL;
    char headers[REQUEST_MAX] = "";
    int opt, index;
    size_t i;

    while ((opt = getopt_long(argc, argv, "", names, &index)) != -1) {
        size_t used = strlen(headers);

        for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
            if (opt == numbers[i].opt) {
                *numbers[i].value = number(
                    names[index].name, optarg, numbers[i].min, numbers[i].max);
            }
        }
        if (opt == 'u') {
            url = optarg;
        } else if (opt == 'H') {
            host = optarg;
        } else if (opt == 'e') {
            r->expect = read_file(optarg, &r->size);
        } else if (opt == 'h') {
            snprintf(headers + used, sizeof(headers) - used, "%s\r\n", optarg);
        } else if (opt == '?') {
            exit(2);
        }
    }
    if (optind != argc) {
        prog_die("%s: not an option", argv[optind]);
    }
    build_request(r, url, host, headers);
}

int
main(int argc, char **argv)
{
    static struct run run = {
        .parallel = 1, .timeout_ms = 5000, .status = 200, .size = -1};
    int signal_fd;
    long i;

    parse_options(&run, argc, argv);
    signal_fd = prog_signals();
    run.began_us = prog_now_us();
    for (i = 0; i < run.parallel; i++) {
        run.loops[i].fd = -1;
        run.loops[i].start_us = run.began_us;
    }
    run_loops(&run, signal_fd);
    print_summary(&run);
    close(signal_fd);
    free(run.expect);
    return run.failures ? 1 : 0;
}

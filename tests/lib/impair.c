/*
 * impair.c: a UDP relay that loses, doubles, delays and reorders datagrams,
 * the same way for the same seed.
 *
 *   impair --listen IP:PORT --to IP:PORT [--loss PERCENT] [--dup PERCENT]
 *          [--reorder PERCENT] [--delay-ms MS] [--jitter-ms MS] [--seed N]
 *          [--control SOCKET]
 *
 * Every client (source address) of the listening socket gets an upstream
 * socket of its own, so the target tells clients apart by port, and answers
 * find their way back.  When the table is full, the client that has been
 * silent for longest makes room.
 *
 * The fate of a datagram is four draws of its direction's generator, made for
 * each datagram whatever the settings: the nth datagram of a direction meets
 * the same luck in every run.  Delay and jitter keep the order; only
 * --reorder lets later datagrams overtake, by holding one back for
 * REORDER_HOLD_US more.
 *
 * The control socket (stream) takes lines: "set loss 100", "stats".  Each
 * answer is one line.  The counters are one line of JSON, printed on SIGUSR1
 * and at the end: on SIGTERM, SIGINT or when standard input ends.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "delay.h"
#include "endpoint.h"
#include "prog.h"

#define CLIENTS_MAX     64
#define DATAGRAM_MAX    65535
#define BURST           64 /* datagrams read from one socket in a row */
#define REORDER_HOLD_US 8000
#define DELAY_MS_MAX    10000
#define CONTROLS_MAX    4
#define LINE_MAX_LEN    128
#define SOCKET_BUFFER   (4 << 20)

enum direction { UP, DOWN, DIRECTIONS };

struct counters {
    uint64_t received;
    uint64_t sent;
    uint64_t lost;
    uint64_t duplicated;
    uint64_t reordered;
    uint64_t overflow; /* DELAY_MAX or DELAY_BYTES_MAX */
    uint64_t orphaned; /* its client was evicted while it waited */
    uint64_t send_errors;
};

struct settings {
    double loss; /* percent, as the next two */
    double dup;
    double reorder;
    double delay_ms;
    double jitter_ms;
};

struct client {
    int fd;      /* connected to the target; -1: free */
    uint64_t id; /* never used twice */
    uint64_t last_us;
    struct endpoint addr;
};

struct control {
    int fd; /* -1: free */
    size_t len;
    char line[LINE_MAX_LEN];
};

struct relay {
    struct settings set;
    struct endpoint target;
    int listen_fd;
    int control_fd;
    int signal_fd;
    struct client clients[CLIENTS_MAX];
    struct control controls[CONTROLS_MAX];
    uint64_t next_client;
    uint64_t evicted;
    uint64_t rng[DIRECTIONS];
    uint64_t last_due_us[DIRECTIONS];
    struct delay queue;
    uint64_t order;
    struct counters count[DIRECTIONS];
    bool stop;
};

/* draw(state): the next number in [0, 1) (splitmix64, Steele et al. 2014). */
static double
draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) / (double)(UINT64_C(1) << 53);
}

/* apply(set, name, text): change one setting.  Returns false: no such name,
 * or not a number in its range. */
static bool
apply(struct settings *set, const char *name, const char *text)
{
    struct {
        const char *name;
        double *value;
        double max;
    } known[] = {
        {"loss", &set->loss, 100},
        {"dup", &set->dup, 100},
        {"reorder", &set->reorder, 100},
        {"delay-ms", &set->delay_ms, DELAY_MS_MAX},
        {"jitter-ms", &set->jitter_ms, DELAY_MS_MAX},
    };
    size_t i;

    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char *end;
        double value;

        if (strcmp(name, known[i].name) != 0) {
            continue;
        }
        errno = 0;
        value = strtod(text, &end);
        if (errno || end == text || *end || !(value >= 0) ||
            value > known[i].max) {
            return false;
        }
        *known[i].value = value;
        return true;
    }
    return false;
}

/* udp_socket(ep, connect_to): a non-blocking UDP socket, bound to ${ep} or
 * connected to it.  Returns -1 and errno. */
static int
udp_socket(const struct endpoint *ep, bool connect_to)
{
    int size = SOCKET_BUFFER;
    int fd, rc;

    fd = socket(ep->sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return -1;
    }
    /* Smaller buffers would lose datagrams that no counter knows of. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) == -1) {
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    }
    rc = connect_to ? connect(fd, &ep->sa, ep->len)
                    : bind(fd, &ep->sa, ep->len);
    if (rc == -1) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static void
enqueue(struct relay *r, enum direction dir, uint64_t client,
    const uint8_t *data, size_t len, uint64_t due_us)
{
    struct datagram *d;

    if (!delay_has_room(&r->queue, len)) {
        r->count[dir].overflow++;
        return;
    }
    d = malloc(sizeof(*d) + len);
    if (!d) {
        prog_die("out of memory");
    }
    d->due_us = due_us;
    d->order = r->order++;
    d->client = client;
    d->dir = dir;
    d->len = len;
    memcpy(d->data, data, len);
    delay_push(&r->queue, d);
}

/* impair(r, dir, client, data, len, now): decide what becomes of a datagram
 * that has just arrived. */
static void
impair(struct relay *r, enum direction dir, uint64_t client,
    const uint8_t *data, size_t len, uint64_t now)
{
    struct counters *count = &r->count[dir];
    double lose = 100 * draw(&r->rng[dir]);
    double twice = 100 * draw(&r->rng[dir]);
    double hold = 100 * draw(&r->rng[dir]);
    double jitter = r->set.jitter_ms * draw(&r->rng[dir]);
    uint64_t due = now + (uint64_t)(1000 * (r->set.delay_ms + jitter));

    count->received++;
    if (lose < r->set.loss) {
        count->lost++;
        return;
    }
    if (due < r->last_due_us[dir]) {
        due = r->last_due_us[dir];
    }
    r->last_due_us[dir] = due;
    if (hold < r->set.reorder) {
        count->reordered++;
        due += REORDER_HOLD_US;
    }
    enqueue(r, dir, client, data, len, due);
    if (twice < r->set.dup) {
        count->duplicated++;
        enqueue(r, dir, client, data, len, due);
    }
}

static struct client *
client_by_id(struct relay *r, uint64_t id)
{
    size_t i;

    for (i = 0; i < CLIENTS_MAX; i++) {
        if (r->clients[i].fd != -1 && r->clients[i].id == id) {
            return &r->clients[i];
        }
    }
    return NULL;
}

/* client_by_addr(r, addr): the client behind ${addr}, a new one if need be.
 * Returns NULL: no socket to be had. */
static struct client *
client_by_addr(struct relay *r, const struct endpoint *addr)
{
    struct client *spare = NULL;
    size_t i;
    int fd;

    for (i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &r->clients[i];

        if (c->fd != -1 && endpoint_equal(&c->addr, addr)) {
            return c;
        }
        if (!spare ||
            (spare->fd != -1 && (c->fd == -1 || c->last_us < spare->last_us))) {
            spare = c;
        }
    }
    fd = udp_socket(&r->target, true);
    if (fd == -1) {
        return NULL;
    }
    if (spare->fd != -1) {
        close(spare->fd);
        r->evicted++;
    }
    spare->fd = fd;
    spare->id = r->next_client++;
    spare->addr = *addr;
    return spare;
}

static void
receive_up(struct relay *r)
{
    static uint8_t buf[DATAGRAM_MAX];
    int i;

    for (i = 0; i < BURST; i++) {
        struct endpoint from = {.len = sizeof(from.storage)};
        struct client *c;
        ssize_t n;

        n = recvfrom(r->listen_fd, buf, sizeof(buf), 0, &from.sa, &from.len);
        if (n == -1) {
            return;
        }
        c = client_by_addr(r, &from);
        if (!c) {
            r->count[UP].received++;
            r->count[UP].send_errors++;
            continue;
        }
        c->last_us = prog_now_us();
        impair(r, UP, c->id, buf, (size_t)n, c->last_us);
    }
}

static void
receive_down(struct relay *r, struct client *c)
{
    static uint8_t buf[DATAGRAM_MAX];
    int i;

    for (i = 0; i < BURST; i++) {
        ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

        if (n == -1) {
            /* A port unreachable is told once and then forgotten. */
            return;
        }
        c->last_us = prog_now_us();
        impair(r, DOWN, c->id, buf, (size_t)n, c->last_us);
    }
}

static void
deliver(struct relay *r, const struct datagram *d)
{
    struct client *c = client_by_id(r, d->client);
    ssize_t n;

    if (!c) {
        r->count[d->dir].orphaned++;
        return;
    }
    if (d->dir == UP) {
        n = send(c->fd, d->data, d->len, 0);
    } else {
        n = sendto(r->listen_fd, d->data, d->len, 0, &c->addr.sa, c->addr.len);
    }
    if (n == -1) {
        r->count[d->dir].send_errors++;
        return;
    }
    r->count[d->dir].sent++;
}

static void
deliver_due(struct relay *r)
{
    uint64_t now = prog_now_us();

    while (r->queue.n > 0 && r->queue.heap[0]->due_us <= now) {
        struct datagram *d = delay_pop(&r->queue);

        deliver(r, d);
        free(d);
    }
}

static size_t
print_counters(
    char *buf, size_t size, const char *name, const struct counters *c)
{
    int n = snprintf(buf, size,
        "\"%s\":{\"received\":%ju,\"sent\":%ju,\"lost\":%ju,"
        "\"duplicated\":%ju,\"reordered\":%ju,\"overflow\":%ju,"
        "\"orphaned\":%ju,\"send_errors\":%ju}",
        name, (uintmax_t)c->received, (uintmax_t)c->sent, (uintmax_t)c->lost,
        (uintmax_t)c->duplicated, (uintmax_t)c->reordered,
        (uintmax_t)c->overflow, (uintmax_t)c->orphaned,
        (uintmax_t)c->send_errors);

    return (size_t)n;
}

/* print_stats(r, buf, size): all counters as a line of JSON. */
static void
print_stats(const struct relay *r, char *buf, size_t size)
{
    size_t n;

    n = (size_t)snprintf(buf, size,
        "{\"clients\":%ju,\"evicted\":%ju,\"queued\":%zu,",
        (uintmax_t)r->next_client, (uintmax_t)r->evicted, r->queue.n);
    n += print_counters(buf + n, size - n, "up", &r->count[UP]);
    buf[n++] = ',';
    n += print_counters(buf + n, size - n, "down", &r->count[DOWN]);
    snprintf(buf + n, size - n, "}\n");
}

static void
command(struct relay *r, struct control *c, char *line)
{
    char answer[1024] = "ok\n";
    char name[LINE_MAX_LEN], value[LINE_MAX_LEN];

    if (strcmp(line, "stats") == 0) {
        print_stats(r, answer, sizeof(answer));
    } else if (sscanf(line, "set %127s %127s", name, value) != 2 ||
               !apply(&r->set, name, value)) {
        snprintf(answer, sizeof(answer), "error: \"%s\"\n", line);
    }
    /* A reader that is gone or full loses its answer, nothing else. */
    (void)send(c->fd, answer, strlen(answer), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void
read_control(struct relay *r, struct control *c)
{
    ssize_t n = recv(c->fd, c->line + c->len, sizeof(c->line) - 1 - c->len, 0);
    char *end;

    if (n <= 0 || c->len + (size_t)n == sizeof(c->line) - 1) {
        close(c->fd);
        c->fd = -1;
        return;
    }
    c->len += (size_t)n;
    c->line[c->len] = '\0';
    while ((end = strchr(c->line, '\n'))) {
        *end = '\0';
        command(r, c, c->line);
        c->len -= (size_t)(end + 1 - c->line);
        memmove(c->line, end + 1, c->len + 1);
    }
}

static void
accept_control(struct relay *r)
{
    int fd = accept4(r->control_fd, NULL, NULL, SOCK_CLOEXEC);
    size_t i;

    if (fd == -1) {
        return;
    }
    for (i = 0; i < CONTROLS_MAX; i++) {
        if (r->controls[i].fd == -1) {
            r->controls[i].fd = fd;
            r->controls[i].len = 0;
            return;
        }
    }
    close(fd);
}

static void
read_signal(struct relay *r)
{
    struct signalfd_siginfo info;
    char line[1024];

    if (read(r->signal_fd, &info, sizeof(info)) != sizeof(info)) {
        return;
    }
    if (info.ssi_signo != SIGUSR1) {
        r->stop = true;
        return;
    }
    print_stats(r, line, sizeof(line));
    fputs(line, stdout);
    fflush(stdout);
}

static void
read_stdin(struct relay *r)
{
    char buf[256];

    if (read(STDIN_FILENO, buf, sizeof(buf)) <= 0) {
        r->stop = true;
    }
}

/* wait_time(r, ts): until the next datagram is due; NULL: no datagram. */
static const struct timespec *
wait_time(const struct relay *r, struct timespec *ts)
{
    uint64_t now, left;

    if (r->queue.n == 0) {
        return NULL;
    }
    now = prog_now_us();
    left = r->queue.heap[0]->due_us > now ? r->queue.heap[0]->due_us - now : 0;
    ts->tv_sec = (time_t)(left / 1000000);
    ts->tv_nsec = (long)(left % 1000000) * 1000;
    return ts;
}

static void
loop(struct relay *r)
{
    enum { STDIN, SIGNALS, LISTEN, CONTROL, FIRST };
    struct pollfd fds[FIRST + CLIENTS_MAX + CONTROLS_MAX];
    struct pollfd *clients = fds + FIRST;
    struct pollfd *controls = clients + CLIENTS_MAX;
    size_t i;

    while (!r->stop) {
        struct timespec ts;

        fds[STDIN] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
        fds[SIGNALS] = (struct pollfd){r->signal_fd, POLLIN, 0};
        fds[LISTEN] = (struct pollfd){r->listen_fd, POLLIN, 0};
        fds[CONTROL] = (struct pollfd){r->control_fd, POLLIN, 0};
        for (i = 0; i < CLIENTS_MAX; i++) {
            clients[i] = (struct pollfd){r->clients[i].fd, POLLIN, 0};
        }
        for (i = 0; i < CONTROLS_MAX; i++) {
            controls[i] = (struct pollfd){r->controls[i].fd, POLLIN, 0};
        }
        if (ppoll(fds, sizeof(fds) / sizeof(fds[0]), wait_time(r, &ts), NULL) ==
            -1) {
            prog_die("poll: %s", strerror(errno));
        }
        deliver_due(r);
        /* Sockets that were polled come before those that may change. */
        for (i = 0; i < CLIENTS_MAX; i++) {
            if (clients[i].revents) {
                receive_down(r, &r->clients[i]);
            }
        }
        for (i = 0; i < CONTROLS_MAX; i++) {
            if (controls[i].revents) {
                read_control(r, &r->controls[i]);
            }
        }
        if (fds[LISTEN].revents) {
            receive_up(r);
        }
        if (fds[CONTROL].revents) {
            accept_control(r);
        }
        if (fds[SIGNALS].revents) {
            read_signal(r);
        }
        if (fds[STDIN].revents) {
            read_stdin(r);
        }
    }
}

static int
listen_control(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(sun.sun_path)) {
        prog_die("--control %s: path too long", path);
    }
    memcpy(sun.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) == -1 ||
        listen(fd, CONTROLS_MAX) == -1) {
        prog_die("--control %s: %s", path, strerror(errno));
    }
    return fd;
}

static void
seed(struct relay *r, const char *text)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno || end == text || *end) {
        prog_die("--seed %s: not a number", text);
    }
    r->rng[UP] = n;
    r->rng[DOWN] = ~(uint64_t)n;
}

static void
parse_options(struct relay *r, int argc, char **argv)
{
    static const struct option names[] = {
        {"listen", required_argument, NULL, 'l'},
        {"to", required_argument, NULL, 't'},
        {"control", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 's'},
        {"loss", required_argument, NULL, 'x'},
        {"dup", required_argument, NULL, 'x'},
        {"reorder", required_argument, NULL, 'x'},
        {"delay-ms", required_argument, NULL, 'x'},
        {"jitter-ms", required_argument, NULL, 'x'},
        {0},
    };
    struct endpoint listen_on = {0};
    int opt, index;

    seed(r, "1");
    while ((opt = getopt_long(argc, argv, "", names, &index)) != -1) {
        if (opt == 'l' && endpoint_parse(&listen_on, optarg)) {
            continue;
        }
        if (opt == 't' && endpoint_parse(&r->target, optarg)) {
            continue;
        }
        if (opt == 'c') {
            r->control_fd = listen_control(optarg);
            continue;
        }
        if (opt == 's') {
            seed(r, optarg);
            continue;
        }
        if (opt == 'x' && apply(&r->set, names[index].name, optarg)) {
            continue;
        }
        if (opt == '?') {
            exit(2);
        }
        prog_die("--%s %s: not a usable value", names[index].name, optarg);
    }
    if (optind != argc || !listen_on.len || !r->target.len) {
        prog_die("--listen IP:PORT and --to IP:PORT are needed, and no words");
    }
    r->listen_fd = udp_socket(&listen_on, false);
    if (r->listen_fd == -1) {
        prog_die("--listen: %s", strerror(errno));
    }
}

int
main(int argc, char **argv)
{
    static struct relay relay;
    struct relay *r = &relay;
    char line[1024];
    size_t i;

    r->control_fd = -1;
    for (i = 0; i < CLIENTS_MAX; i++) {
        r->clients[i].fd = -1;
    }
    for (i = 0; i < CONTROLS_MAX; i++) {
        r->controls[i].fd = -1;
    }
    parse_options(r, argc, argv);
    r->signal_fd = prog_signals();
    puts("ready");
    fflush(stdout);

    loop(r);

    print_stats(r, line, sizeof(line));
    fputs(line, stdout);
    while (r->queue.n > 0) {
        free(delay_pop(&r->queue));
    }
    return 0;
}

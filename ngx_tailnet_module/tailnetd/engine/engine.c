/*
 * Theory of operation.  The holder says what is to run (ipc.h); the engine
 * runs it and gives the holder everything that must outlive it.  When the
 * holder's end of the channel closes, the engine is an orphan: packets go on,
 * nothing can be configured, and the bequest is watched.  A new holder sends
 * MAIN there with its own channel; when the bequest closes too, nobody holds a
 * socket of ours any more, and the engine ends ORPHAN_MS later.
 */
#include "engine.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "../ipc.h"
#include "../crypto/aead.h"
#include "../crypto/noise.h"
#include "../isolate.h"
#include "../wg/device.h"
#include "../loop.h"
#include "echo.h"
#include "node.h"
#include "report.h"
#include "say.h"
#include "status.h"

#define LARGE         (1 << 20) /* bytes that are given back at once */
#define ORPHAN_MS     10000
#define LEAVE_LOOK_MS 20
#define STORE_ENTRIES (TN_NODES_MAX * 2)
#define PARCELS_MAX   1024 /* a holder that reads needs far less */

/* Sockets that an earlier engine PUT, until their node comes. */
struct entry {
    char name[IPC_NAME_MAX + 1]; /* "": free */
    int fd;
};

/* A message that the holder, who may be busy with nginx, has no room for. */
struct parcel {
    struct parcel *next;
    struct ipc_msg m;
    int fds[IPC_FDS_MAX];
    size_t nfds;
};

static struct {
    int main_fd; /* -1: orphan */
    struct loop_watch *main;
    struct parcel *parcels; /* in their order */
    size_t nparcels;
    struct loop_watch *bequest;
    struct loop_timer *orphan;
    int signals; /* SIGTERM */
    struct loop_watch *term;
    struct loop_timer *leave; /* while ephemeral nodes are logged out */
    struct node *nodes;
    struct hot *hot;
    int hot_fd; /* owned by ${hot} */
    struct entry entries[STORE_ENTRIES];
    struct wg_timing timing;
    struct control_timing control_timing;
} engine;

const struct wg_timing *
engine_timing(void)
{
    return &engine.timing;
}

const struct control_timing *
engine_control_timing(void)
{
    return &engine.control_timing;
}

/* ---- to the holder ---- */

static void
lost(const struct ipc_msg *m, int why)
{
    say_err("message %u to the holder is lost (%d: %s)", m->type, why,
        strerror(why));
}

static void
free_parcel(struct parcel *p)
{
    while (p->nfds > 0)
        close(p->fds[--p->nfds]);
    free(p);
}

static void
drop_parcels(void)
{
    struct parcel *p;

    while ((p = engine.parcels) != NULL) {
        engine.parcels = p->next;
        free_parcel(p);
    }
    engine.nparcels = 0;
}

/* Returns 0 or an errno. */
static int
keep(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    struct parcel **at, *p;
    int why;

    if (engine.nparcels == PARCELS_MAX)
        return ENOBUFS;
    p = calloc(1, sizeof(*p));
    if (p == NULL)
        return ENOMEM;
    p->m = *m;
    for (; p->nfds < nfds; p->nfds++) {
        p->fds[p->nfds] = fcntl(fds[p->nfds], F_DUPFD_CLOEXEC, 0);
        if (p->fds[p->nfds] == -1) {
            why = errno;
            free_parcel(p);
            return why;
        }
    }
    for (at = &engine.parcels; *at != NULL; at = &(*at)->next)
        ;
    *at = p;
    engine.nparcels++;
    return loop_watch_want(engine.main, true, true) == 0 ? 0 : EPIPE;
}

static void
deliver(void)
{
    struct parcel *p;

    while ((p = engine.parcels) != NULL) {
        if (ipc_send(engine.main_fd, &p->m, p->fds, p->nfds) != 0) {
            if (errno == EAGAIN)
                return;
            lost(&p->m, errno);
        }
        engine.parcels = p->next;
        engine.nparcels--;
        free_parcel(p);
    }
    (void)loop_watch_want(engine.main, true, false);
}

static void
tell(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    int why = EAGAIN;

    if (engine.main_fd == -1)
        return; /* an orphan says it all again at MAIN */
    if (engine.parcels == NULL)
        why = ipc_send(engine.main_fd, m, fds, nfds) == 0 ? 0 : errno;
    if (why == EAGAIN)
        why = keep(m, fds, nfds);
    if (why != 0)
        lost(m, why);
}

static void
put(const char *name, const int *fds, size_t nfds)
{
    struct ipc_msg m = {.type = IPC_PUT};

    snprintf(m.name, sizeof(m.name), "%s", name);
    tell(&m, fds, nfds);
}

static void
netconf(const char *node, const struct tn_prefix *addrs, size_t naddrs)
{
    struct ipc_msg m = {.type = IPC_NETCONF};

    snprintf(m.node, sizeof(m.node), "%s", node);
    m.naddrs = (uint32_t)naddrs;
    memcpy(m.addrs, addrs, naddrs * sizeof(*addrs));
    tell(&m, NULL, 0);
}

static void
publish(const char *node, uint64_t generation, int fd)
{
    struct ipc_msg m = {.type = IPC_SNAPSHOT};

    snprintf(m.node, sizeof(m.node), "%s", node);
    m.generation = generation;
    tell(&m, &fd, 1);
}

static void
answer_file(uint32_t query, int fd, const char *why)
{
    struct ipc_msg m = {.type = IPC_ANSWER, .id = query};

    snprintf(m.text, sizeof(m.text), "%s", why);
    tell(&m, &fd, fd != -1);
}

/* A memory file of these bytes, or -1. */
static int
memory_file(const char *name, const void *bytes, size_t len)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd != -1 && write(fd, bytes, len) != (ssize_t)len) { /* never in part */
        close(fd);
        fd = -1;
    }
    return fd;
}

static void
answer(uint32_t query, char *text)
{
    int fd = text == NULL ? -1
                          : memory_file("tailnet-answer", text, strlen(text));

    if (fd == -1)
        say_err("no memory for an answer");
    answer_file(query, fd, "");
    free(text);
    if (fd != -1)
        close(fd);
}

static void
pong(uint32_t query, const struct tn_addr *to, const struct tn_endpoint *e,
    uint64_t ns, const char *error)
{
    answer(query, status_pong(to, e, ns, error));
}

static void
save(const char *node, enum ipc_save what, int fd)
{
    struct ipc_msg m = {.type = IPC_SAVE, .kind = what};

    snprintf(m.node, sizeof(m.node), "%s", node);
    tell(&m, &fd, 1);
}

static void
save_netmap(const char *node, int fd)
{
    save(node, IPC_SAVE_NETMAP, fd);
}

static void
save_keys(const char *node, const void *bytes, size_t len)
{
    int fd = memory_file("tailnet-save", bytes, len);

    if (fd == -1)
        say_err("node \"%s\": no memory: its keys cannot be saved", node);
    else
        save(node, IPC_SAVE_KEYS, fd);
    if (fd != -1)
        close(fd);
}

static void
unmade(const char *node)
{
    struct ipc_msg m = {.type = IPC_UNMADE};

    snprintf(m.node, sizeof(m.node), "%s", node);
    tell(&m, NULL, 0);
}

static void
want_key(const char *node)
{
    struct ipc_msg m = {.type = IPC_WANTKEY};

    snprintf(m.node, sizeof(m.node), "%s", node);
    tell(&m, NULL, 0);
}

static const struct node_ops node_ops = {.put = put,
    .netconf = netconf,
    .publish = publish,
    .pong = pong,
    .save_keys = save_keys,
    .save_netmap = save_netmap,
    .want_key = want_key};

/* ---- from the holder ---- */

static void
keep_entry(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    struct hot *hot;
    size_t i;

    if (nfds != 1)
        goto close_all;
    if (strcmp(m->name, "hot") == 0) {
        hot = engine.nodes == NULL ? hot_open(fds[0]) : NULL;
        if (hot == NULL) {
            say_warn("hot state of the engine before is no use: peers "
                     "without an endpoint have to come by themselves");
            return;
        }
        hot_free(engine.hot);
        engine.hot = hot;
        engine.hot_fd = fds[0];
        return;
    }
    for (i = 0; i < STORE_ENTRIES; i++) {
        if (engine.entries[i].name[0] != '\0')
            continue;
        snprintf(engine.entries[i].name, sizeof(engine.entries[i].name), "%s",
            m->name);
        engine.entries[i].fd = fds[0];
        return;
    }
close_all:
    for (i = 0; i < nfds; i++)
        close(fds[i]);
}

static int
take_entry(const char *kind, const char *node)
{
    char name[IPC_NAME_MAX + 1];
    size_t i;

    snprintf(name, sizeof(name), "%s/%s", kind, node);
    for (i = 0; i < STORE_ENTRIES; i++) {
        if (strcmp(engine.entries[i].name, name) != 0)
            continue;
        engine.entries[i].name[0] = '\0';
        return engine.entries[i].fd;
    }
    return -1;
}

static struct node *
find(const char *name)
{
    struct node *n;

    for (n = engine.nodes; n != NULL; n = n->next)
        if (strcmp(n->name, name) == 0)
            return n;
    return NULL;
}

static void
remove_node(const char *name, bool forget)
{
    struct node **at, *n;

    for (at = &engine.nodes; (n = *at) != NULL; at = &n->next) {
        if (strcmp(n->name, name) != 0)
            continue;
        *at = n->next;
        if (forget) {
            join_leave(n->join);
            n->join = NULL;
        }
        node_free(n);
        if (forget)
            hot_forget(engine.hot, name);
        return;
    }
}

/* A node that joins: begin, or go on with other options. */
static void
set_join(
    struct node *n, const struct ipc_msg *m, const int file[IPC_NODE_FILES])
{
    int options = file[3], keys = file[4], netmap = file[5];

    if (n->join != NULL && join_set(n->join, options))
        return;
    join_free(n->join);
    n->join = join_new(n, options, keys, netmap, m->has_ca, file[6]);
}

/* Its files, in the order of enum ipc_node_fds; -1: not there. */
static void
set_files(struct node *n, const struct ipc_msg *m, int file[IPC_NODE_FILES])
{
    if (file[0] != -1)
        node_set_key(n, file[0]);
    node_expect_psks(n, m->has_psks);
    if (file[1] != -1)
        node_set_psks(n, file[1]);
    if (file[2] != -1)
        node_set_netmap(n, file[2]);
    file[0] = file[1] = file[2] = -1; /* taken over */
    if (file[3] != -1)
        set_join(n, m, file);
}

/* fds: TUN, then what m->kind names. */
static void
set_node(const struct ipc_msg *m, const int *fds)
{
    int file[IPC_NODE_FILES], udp[2];
    struct node *n = find(m->node);
    size_t k = 1, bit;

    for (bit = 0; bit < IPC_NODE_FILES; bit++)
        file[bit] = m->kind & 1u << bit ? fds[k++] : -1;
    /* Another source of its netmap makes it another node. */
    if (n != NULL &&
        (n->port != m->port || n->mtu != m->mtu ||
            (n->join != NULL) != (file[3] != -1) ||
            (n->join != NULL && join_other_ca(n->join, m->has_ca, file[6])))) {
        remove_node(m->node, false);
        n = NULL;
    }
    if (n == NULL) {
        udp[0] = take_entry("udp4", m->node);
        udp[1] = take_entry("udp6", m->node);
        n = node_new(m, fds[0], udp, engine.hot, &node_ops);
        if (n != NULL) {
            n->next = engine.nodes;
            engine.nodes = n;
        } else {
            unmade(m->node);
        }
    } else {
        close(fds[0]); /* the same queue again */
    }
    if (n != NULL)
        set_files(n, m, file);
    for (bit = 0; bit < IPC_NODE_FILES; bit++)
        if (file[bit] != -1)
            close(file[bit]);
}

static void
query(const struct ipc_msg *m)
{
    struct tn_endpoint none = {0};
    const char *why;
    struct node *n;
    struct ping p;

    if (m->kind == IPC_QUERY_STATUS) {
        report_ask(m->id, m->node);
        return;
    }
    n = find(m->node);
    if (m->kind != IPC_QUERY_PING) {
        if (n != NULL && n->join != NULL)
            join_do(n->join, m->kind);
        answer(m->id, status_join(n));
        return;
    }
    p = (struct ping){
        .query = m->id, .to = m->addr, .deadline = loop_now() + m->timeout_ms};
    why = n == NULL ? "no such node" : echo_begin(n, &p);
    if (why != NULL)
        pong(m->id, &m->addr, &none, 0, why);
}

static void
dispatch(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    struct node *n;
    size_t i;

    switch (m->type) {
    case IPC_ENTRY:
        keep_entry(m, fds, nfds);
        return;
    case IPC_NODE:
        set_node(m, fds);
        return;
    case IPC_GONE:
        remove_node(m->node, true);
        break;
    case IPC_QUERY:
        query(m);
        break;
    case IPC_LOG:
        if (nfds != 1 || dup2(fds[0], STDERR_FILENO) == -1)
            break;
        say_notice("a new holder took over");
        break;
    case IPC_READY:
        put("hot", &engine.hot_fd, 1);
        break;
    case IPC_NETMAP:
    case IPC_NOFILE:
    case IPC_AUTHKEY:
    case IPC_LISTENERS:
        n = find(m->node);
        if (n == NULL)
            break;
        if (m->type == IPC_NOFILE)
            node_set_error(n, m->text);
        else if (m->type == IPC_LISTENERS)
            node_set_listeners(n, m);
        else if (m->type == IPC_AUTHKEY && n->join != NULL) {
            join_auth_key(n->join, nfds == 1 ? fds[0] : -1, m->text);
            return;
        } else if (m->type == IPC_NETMAP && nfds == 1) {
            node_set_netmap(n, fds[0]);
            return;
        }
        break;
    default:
        say_err("unknown message %u from the holder", m->type);
    }
    for (i = 0; i < nfds; i++)
        close(fds[i]);
}

static void orphaned(void);

static void
main_ready(void *arg)
{
    int fds[IPC_FDS_MAX], rc;
    struct ipc_msg m;
    size_t nfds;

    (void)arg;
    if (engine.parcels != NULL)
        deliver();
    while (engine.main_fd != -1) {
        rc = ipc_recv(engine.main_fd, &m, fds, &nfds);
        if (rc == 1) {
            dispatch(&m, fds, nfds);
        } else if (rc == 0) {
            orphaned();
        } else if (errno == EBADMSG) {
            say_err("malformed message from the holder");
        } else {
            if (errno != EAGAIN && errno != EINTR)
                orphaned();
            return;
        }
    }
}

/* ---- without a holder ---- */

static void
orphaned(void)
{
    say_warn("the holder is gone; packets go on, the next reload brings a "
             "new one");
    loop_watch_free(engine.main);
    engine.main = NULL;
    close(engine.main_fd);
    engine.main_fd = -1;
    drop_parcels();
    report_drop();
    if (engine.bequest == NULL)
        loop_timer_set(engine.orphan, loop_now() + ORPHAN_MS);
}

static void
orphan_ends(void *arg)
{
    (void)arg;
    if (engine.main_fd == -1)
        loop_stop();
}

/* A new holder: everything it could have had from the old one, again. */
static void
introduce(void)
{
    struct node *n;

    put("hot", &engine.hot_fd, 1);
    for (n = engine.nodes; n != NULL; n = n->next) {
        node_reintroduce(n);
        if (n->join != NULL)
            control_save(join_control(n->join));
    }
}

static void
bequest_readable(void *arg)
{
    int fds[IPC_FDS_MAX], rc;
    struct ipc_msg m;
    size_t nfds, i;

    (void)arg;
    rc = ipc_recv(IPC_BEQUEST_FD, &m, fds, &nfds);
    if (rc < 0)
        return;
    if (rc == 0) {
        loop_watch_free(engine.bequest);
        engine.bequest = NULL;
        if (engine.main_fd == -1)
            loop_timer_set(engine.orphan, loop_now() + ORPHAN_MS);
        return;
    }
    /* The end of the old channel may be waiting to be read as well. */
    if (engine.main_fd != -1)
        main_ready(NULL);
    if (m.type != IPC_MAIN || nfds != 1 || engine.main_fd != -1) {
        say_err("unexpected message %u at the bequest", m.type);
        for (i = 0; i < nfds; i++)
            close(fds[i]);
        return;
    }
    engine.main_fd = fds[0];
    engine.main = loop_watch_new(fds[0], main_ready, NULL);
    if (engine.main == NULL) {
        orphaned();
        return;
    }
    loop_timer_set(engine.orphan, UINT64_MAX);
    introduce();
}

/* ---- start and end ---- */

static void
leave(void *arg)
{
    (void)arg;
    if (join_leaving() == 0)
        loop_stop();
    else
        loop_timer_set(engine.leave, loop_now() + LEAVE_LOOK_MS);
}

/* The holder ends us: ephemeral nodes leave their tailnets first. */
static void
term(void *arg)
{
    struct signalfd_siginfo si;
    struct node *n;

    (void)arg;
    if (read(engine.signals, &si, sizeof(si)) != (ssize_t)sizeof(si))
        return;
    for (n = engine.nodes; n != NULL; n = n->next) {
        join_leave(n->join);
        n->join = NULL;
    }
    leave(NULL);
}

static int
watch_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return -1;
    engine.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (engine.signals == -1)
        return -1;
    engine.term = loop_watch_new(engine.signals, term, NULL);
    engine.leave = loop_timer_new(leave, NULL);
    return engine.term == NULL || engine.leave == NULL ? -1 : 0;
}

static int
read_timing(const char *text)
{
    static const struct {
        const char *name;
        uint32_t *value;
    } table[] = {
        {"rekey_after", &engine.timing.rekey_after},
        {"reject_after", &engine.timing.reject_after},
        {"rekey_attempt", &engine.timing.rekey_attempt},
        {"rekey_timeout", &engine.timing.rekey_timeout},
        {"rekey_jitter", &engine.timing.rekey_jitter},
        {"keepalive", &engine.timing.keepalive},
        {"watchdog", &engine.control_timing.watchdog},
        {"backoff", &engine.control_timing.backoff},
    };
    const char *p = text;
    char *end;
    size_t i, n;

    engine.timing = wg_timing_default;
    engine.control_timing = control_timing_default;
    while (p != NULL && *p != '\0') {
        n = strcspn(p, "=");
        for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
            if (strlen(table[i].name) == n && strncmp(table[i].name, p, n) == 0)
                break;
        if (i == sizeof(table) / sizeof(table[0]) || p[n] != '=') {
            say_err("bad timing \"%s\"", text);
            return -1;
        }
        *table[i].value = (uint32_t)strtoul(p + n + 1, &end, 10);
        p = *end == ',' ? end + 1 : end;
        if (p == end && *end != '\0') {
            say_err("bad timing \"%s\"", text);
            return -1;
        }
    }
    return 0;
}

static int
start(void)
{
    engine.main_fd = IPC_FD;
    engine.hot = hot_new(&engine.hot_fd);
    engine.orphan = loop_timer_new(orphan_ends, NULL);
    engine.main = loop_watch_new(IPC_FD, main_ready, NULL);
    engine.bequest = loop_watch_new(IPC_BEQUEST_FD, bequest_readable, NULL);
    if (engine.hot == NULL || engine.orphan == NULL || engine.main == NULL ||
        engine.bequest == NULL || report_init(&engine.nodes, answer_file) != 0)
        return -1;
    return watch_signals();
}

/*
 * An engine that runs whenever a packet is there takes the processor away from
 * who makes the next one, and wakes the peer for each.  As a batch process it
 * waits where another runs, and finds several: a seventh more small answers a
 * second.  A policy that somebody chose for us stays.
 */
static void
batch(void)
{
    struct sched_param none = {0};

    if (sched_getscheduler(0) == SCHED_OTHER &&
        sched_setscheduler(0, SCHED_BATCH, &none) != 0)
        say_warn("engine is scheduled like any other process (%d: %s): small "
                 "packets cost more",
            errno, strerror(errno));
}

int
engine_main(const char *timing)
{
    struct node *n;

    if (read_timing(timing) != 0)
        return 2;
    batch();
    /* What a new netmap needs for a moment is not kept for the next one. */
    (void)mallopt(M_MMAP_THRESHOLD, LARGE);
    (void)mallopt(M_TRIM_THRESHOLD, LARGE);
    if (loop_init() != 0 || noise_init() != 0 || start() != 0) {
        say_err("engine cannot start (%d: %s)", errno, strerror(errno));
        return 1;
    }
    (void)aead_backend(); /* chosen while every system call is allowed */
    if (isolate_engine() != 0) {
        say_err("engine cannot give up its rights (%d: %s)", errno,
            strerror(errno));
        return 1;
    }
    say_info("packets are sealed by %s", aead_backend_name());
    loop_run();
    report_free();
    while ((n = engine.nodes) != NULL) {
        engine.nodes = n->next;
        node_free(n);
    }
    drop_parcels();
    loop_watch_free(engine.main);
    loop_watch_free(engine.bequest);
    loop_timer_free(engine.orphan);
    loop_watch_free(engine.term);
    loop_timer_free(engine.leave);
    close(engine.signals);
    hot_free(engine.hot);
    loop_free();
    return 0;
}

/*
 * Theory of operation.  One loop over poll(): the door, the admin connections,
 * the engine's channel and log, the watched files, the signals.  Whatever comes
 * in is handled at once, by admin.h and the callbacks below; whatever that
 * changed is put in order at the end of the turn (connections, cycles,
 * listeners). Nothing here parses anything that came from a network.
 *
 * Started by nginx the holder ends HOLDER_LINGER_MS after its last user, or at
 * STOP; as a service only at SIGTERM or SIGINT.  At the end the engine gets
 * SIGTERM and time to log out.
 */
#include "holder.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../isolate.h"
#include "../log.h"
#include "admin.h"
#include "child.h"
#include "door.h"
#include "drain.h"
#include "keysrc.h"
#include "notify.h"
#include "query.h"
#include "store.h"

#define ACCEPT_PAUSE_MS 1000 /* when there is no descriptor left */

enum { POLL_SIGNALS, POLL_DOOR, POLL_FILES, POLL_CHILD, POLL_CONNS = 5 };

_Static_assert(POLL_CHILD + CHILD_POLLS == POLL_CONNS, "places of poll()");

static struct {
    const struct holder_config *conf;
    int signals;
    struct cycle *service; /* the file's cycle, or NULL */
    int64_t accept_at;     /* when the door is looked at again */
    int64_t linger;        /* when to end, or -1 */
    int64_t stop;          /* nginx waits for our end until then, or -1 */
    int64_t stop_look;     /* when data to deliver is looked for again */
    int64_t reload;        /* when the file is tried again, or -1 ... */
    int64_t reload_end;    /* ... and until when */
    bool ending;
    unsigned dropped; /* descriptors the store had no place for */
    struct pollfd polls[POLL_CONNS + TN_ADMIN_CONN_MAX];
    unsigned slots[TN_ADMIN_CONN_MAX]; /* of the connections in polls */
    size_t nslots;
} holder = {
    .signals = -1, .linger = -1, .stop = -1, .stop_look = -1, .reload = -1};

static int64_t
clock_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the engine's messages ---- */

static void
close_all(const int *fds, size_t n)
{
    while (n > 0)
        close(fds[--n]);
}

/* A node's descriptors may still be under way when it is gone.  Before the
 * first commit an adopted engine may bring nodes whose table is to come. */
static bool
unwanted(const char *name)
{
    const char *slash = strchr(name, '/');
    struct ipc_msg m = {.type = IPC_GONE};

    if (slash == NULL || !cycle_ruled() || lease_find(slash + 1) != NULL)
        return false;
    if (strncmp(name, "tun/", 4) == 0) {
        snprintf(m.node, sizeof(m.node), "%.*s", TN_NODE_NAME_MAX, slash + 1);
        child_send(&m, NULL, 0);
    }
    return true;
}

static void
put(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    /* A TUN is the holder's own, but for what an adopted engine brings. */
    if (unwanted(m->name) || (strncmp(m->name, "tun/", 4) == 0 &&
                                 store_fd("tun", m->name + 4) != -1)) {
        close_all(fds, nfds);
        return;
    }
    if (store_put(m->name, fds, nfds) == 0)
        return;
    holder.dropped++;
    log_err("descriptors of the engine are not kept: more than %d names, or "
            "a bad one (%u so far)",
        STORE_MAX, holder.dropped);
}

static void
message(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    struct lease *n;

    switch (m->type) {
    case IPC_PUT:
        put(m, fds, nfds);
        return;
    case IPC_NETCONF:
        lease_netconf(m);
        return;
    case IPC_SNAPSHOT:
        n = lease_find(m->node);
        if (n == NULL)
            break;
        lease_snapshot(n, fds[0], m->generation);
        admin_publish(n);
        return;
    case IPC_SAVE:
        n = lease_find(m->node);
        if (n == NULL)
            break;
        lease_save(n, m->kind, fds[0]);
        return;
    case IPC_WANTKEY:
        n = lease_find(m->node);
        if (n != NULL)
            lease_want_key(n);
        break;
    case IPC_UNMADE:
        n = lease_find(m->node);
        if (n != NULL)
            lease_unmade(n, clock_ms());
        break;
    case IPC_ANSWER:
        query_answer(m->id, nfds == 1 ? fds[0] : -1, m->text);
        break;
    default:
        log_err(
            "the engine sent message %u, which is not its to send", m->type);
    }
    close_all(fds, nfds);
}

static void
started(bool adopted)
{
    lease_tell_all(!adopted);
}

static void
died(void)
{
    lease_untell_all();
    query_fail_all();
}

/* ---- a service's file ---- */

void
holder_prefix(const char *path, char prefix[TN_NODE_PATH_MAX + 1])
{
    char *slash;

    snprintf(prefix, TN_NODE_PATH_MAX + 1, "%s", path);
    slash = strrchr(prefix, '/');
    if (slash != NULL)
        slash[1] = '\0';
    else
        prefix[0] = '\0';
}

int
holder_read_file(
    const char *path, char **text, size_t *len, char err[TN_ERR_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = 0;

    *len = 0;
    *text = malloc(TN_TABLE_MAX + 1);
    if (fd == -1 || *text == NULL)
        goto failed;
    while (*len <= TN_TABLE_MAX &&
           (n = read(fd, *text + *len, TN_TABLE_MAX + 1 - *len)) > 0)
        *len += (size_t)n;
    if (n == -1)
        goto failed;
    close(fd);
    if (*len <= TN_TABLE_MAX)
        return 0;
    free(*text);
    snprintf(
        err, TN_ERR_MAX, "%.400s: longer than %d bytes", path, TN_TABLE_MAX);
    return -1;
failed:
    snprintf(err, TN_ERR_MAX, "%.400s: %s", path, strerror(errno));
    free(*text);
    if (fd != -1)
        close(fd);
    return -1;
}

/* Makes the file's nodes rule.  Returns 0, or an errno and the old ones go on;
 * EAGAIN: as of cycle_table(). */
static int
load_service(int64_t now, char err[TN_ERR_MAX])
{
    const char *path = holder.conf->file;
    char prefix[TN_NODE_PATH_MAX + 1], why[TN_ERR_MAX], *text;
    struct cycle *c;
    unsigned line;
    size_t len;
    int rc;

    if (holder_read_file(path, &text, &len, err) == -1)
        return EINVAL;
    c = cycle_new(true);
    if (c == NULL) {
        free(text);
        snprintf(err, TN_ERR_MAX, "no memory for a node table");
        return ENOMEM;
    }
    holder_prefix(path, prefix);
    rc = cycle_table(c, text, len, prefix, why, &line);
    free(text);
    if (rc != 0) {
        cycle_close(c);
        if (line != 0)
            snprintf(err, TN_ERR_MAX, "%.200s:%u: %.280s", path, line, why);
        else
            memcpy(err, why, TN_ERR_MAX);
        return rc;
    }
    cycle_commit(c);
    if (holder.service != NULL)
        cycle_close(holder.service);
    holder.service = c;
    cycle_sync();
    child_need(now);
    return 0;
}

/* ---- start ---- */

static int
block_signals(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT); /* nginx's way to end gently: not for us */
    if (sigprocmask(SIG_SETMASK, &set, NULL) == -1)
        return -1;
    holder.signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return holder.signals == -1 ? -1 : 0;
}

static int
start(const struct holder_config *conf, char err[TN_ERR_MAX])
{
    struct child_config child = {
        .ops = {.started = started, .message = message, .died = died},
        .timing = conf->timing,
        .delay_ms = conf->delay_ms};
    int rc;

    netns_init();
    if (isolate_pick_user(&child.user, conf->engine_user, conf->socket, err) ==
        -1)
        return EINVAL;
    rc = door_open(conf->socket, conf->client, err);
    if (rc != 0)
        return rc;
    if (isolate_holder(err) == -1) {
        rc = EPERM;
    } else if (block_signals() == -1 || child_init(&child) == -1) {
        rc = errno;
        snprintf(err, TN_ERR_MAX, "start: %s", strerror(rc));
    }
    if (rc != 0) {
        door_close();
        door_leave();
        return rc;
    }
    if (child.user.change)
        log_info("engines run as user %u", (unsigned)child.user.uid);
    return 0;
}

/* ---- end ---- */

static void
end(int64_t now, const char *why)
{
    if (holder.ending)
        return;
    log_notice("ends: %s", why);
    holder.ending = true;
    holder.linger = -1;
    holder.stop_look = -1;
    door_close();
    child_stop(now, !cycle_ruled());
}

/* STOP: the end of nginx's last answers may still have to be delivered.
 * Another nginx that starts meanwhile starts its own tailnetd. */
static void
stop(int64_t now)
{
    if (holder.stop == -1) {
        door_close();
        holder.stop = now + DRAIN_STOP_MS;
        holder.stop_look = now;
    }
    if (now < holder.stop_look)
        return;
    holder.stop_look = now + DRAIN_EVERY_MS;
    if (now >= holder.stop || !lease_pending())
        end(now, "nginx ends");
}

/* A start that failed leaves nothing worth waiting for. */
static unsigned
linger_ms(void)
{
    unsigned ms = holder.conf->linger_ms;

    return cycle_ruled() || ms < HOLDER_UNUSED_MS ? ms : HOLDER_UNUSED_MS;
}

/* A tailnetd that nginx started ends some time after its last user. */
static void
check_users(int64_t now)
{
    if (holder.ending)
        return;
    if (admin_stop_wanted()) {
        stop(now);
        return;
    }
    if (holder.conf->file != NULL)
        return;
    if (conn_users() > 0)
        holder.linger = -1;
    else if (holder.linger == -1)
        holder.linger = now + linger_ms();
    else if (now >= holder.linger)
        end(now, "no nginx is connected any more");
}

/* ---- the loop ---- */

static void
reload(int64_t now)
{
    char err[TN_ERR_MAX];
    int rc;

    if (holder.reload == -1 || now < holder.reload)
        return;
    holder.reload = -1;
    if (holder.ending)
        return;
    rc = load_service(now, err);
    if (rc == EAGAIN && now < holder.reload_end)
        holder.reload = now + KEYSRC_PAUSE_MS;
    else if (rc != 0)
        log_err("%s: the nodes stay as they are", err);
    else
        log_notice("%s was read again", holder.conf->file);
}

static void
on_signals(int64_t now)
{
    struct signalfd_siginfo si;

    while (read(holder.signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
            end(now, strsignal((int)si.ssi_signo));
        if (si.ssi_signo != SIGHUP || holder.conf->file == NULL ||
            holder.ending)
            continue;
        holder.reload = now;
        holder.reload_end = now + KEYSRC_WAIT_MS;
    }
}

static void
on_door(int64_t now)
{
    int fd = door_accept(child_pid());

    if (fd != -1) {
        conn_add(fd, false);
        return;
    }
    if (errno == EPERM)
        log_err("an admin connection of another user, or of the engine, is "
                "refused");
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM)
        return;
    log_err("an admin connection has to wait: %s", strerror(errno));
    holder.accept_at = now + ACCEPT_PAUSE_MS;
}

static void
earlier(int64_t *first, int64_t t)
{
    if (t != -1 && (*first == -1 || t < *first))
        *first = t;
}

static int
wait_ms(int64_t now)
{
    int64_t first = -1;

    earlier(&first, child_deadline());
    earlier(&first, query_deadline());
    earlier(&first, holder.linger);
    earlier(&first, holder.stop_look);
    earlier(&first, holder.reload);
    if (!holder.ending) /* else nobody answers them */
        earlier(&first, admin_deadline());
    earlier(&first, lease_drain_deadline());
    if (child_running())
        earlier(&first, lease_deadline());
    if (holder.accept_at > now)
        earlier(&first, holder.accept_at);
    if (first == -1)
        return -1;
    return first <= now ? 0 : (int)(first - now);
}

static size_t
fill_polls(int64_t now)
{
    struct pollfd *p = holder.polls;
    struct conn *c;
    unsigned i;

    p[POLL_SIGNALS] = (struct pollfd){.fd = holder.signals, .events = POLLIN};
    p[POLL_DOOR] = (struct pollfd){
        .fd = holder.accept_at > now ? -1 : door_fd(), .events = POLLIN};
    p[POLL_FILES] = (struct pollfd){.fd = keysrc_fd(), .events = POLLIN};
    child_poll(p + POLL_CHILD);
    holder.nslots = 0;
    for (i = 0; i < TN_ADMIN_CONN_MAX && !holder.ending; i++) {
        c = conn_at(i);
        if (c == NULL)
            continue;
        holder.slots[holder.nslots] = i;
        p[POLL_CONNS + holder.nslots++] = (struct pollfd){
            .fd = c->fd, .events = POLLIN};
    }
    return POLL_CONNS + holder.nslots;
}

static void
turn(void)
{
    struct pollfd *p = holder.polls;
    int64_t now = clock_ms();
    size_t i, n = fill_polls(now);

    if (poll(p, n, wait_ms(now)) == -1 && errno != EINTR)
        log_alert("poll: %s", strerror(errno));
    now = clock_ms();
    if (p[POLL_SIGNALS].revents != 0)
        on_signals(now);
    if (p[POLL_FILES].revents != 0)
        lease_stir(now);
    child_polled(p + POLL_CHILD, now);
    for (i = 0; i < holder.nslots; i++) {
        if (p[POLL_CONNS + i].revents != 0 &&
            conn_at(holder.slots[i])->state != CONN_CLOSING)
            admin_read(conn_at(holder.slots[i]), now);
    }
    if (p[POLL_DOOR].revents != 0)
        on_door(now);
    child_tick(now);
    lease_tick(now);
    query_tick(now);
    if (!holder.ending)
        admin_tick(now);
    reload(now);
    if (conn_sweep() > 0 && !holder.ending)
        cycle_sync();
    lease_drain(now);
    lease_flush();
    check_users(now);
}

/* Nobody is served yet: the keys of a service that is being restarted can be
 * waited for. */
static int
first_load(char err[TN_ERR_MAX])
{
    static const struct timespec pause = {0, KEYSRC_PAUSE_MS * 1000000};
    int64_t until = clock_ms() + KEYSRC_WAIT_MS;
    int rc;

    while ((rc = load_service(clock_ms(), err)) == EAGAIN && clock_ms() < until)
        (void)nanosleep(&pause, NULL);
    return rc;
}

static void
loop(void)
{
    while (!(holder.ending && child_ended()))
        turn();
    cycle_drop_all();
    store_drop_all();
    door_leave();
    admin_stopped();
    log_notice("ended");
}

/* Everything but the standard ones and ${keep}: nginx's listening sockets must
 * not live on in here. */
static void
close_others(int keep)
{
    if (keep > 3)
        close_range(3, (unsigned)keep - 1, 0);
    close_range(keep >= 3 ? (unsigned)keep + 1 : 3, ~0u, 0);
}

int
holder_main(const struct holder_config *conf)
{
    char err[TN_ERR_MAX];
    int rc;

    holder.conf = conf;
    close_others(conf->admin_fd);
    umask(022);
    if (log_open(conf->log) == -1) {
        rc = errno;
        snprintf(err, sizeof(err), "%.400s: %s", conf->log, strerror(rc));
    } else {
        rc = start(conf, err);
    }
    if (rc == 0 && conf->file != NULL) {
        cycle_service();
        admin_service();
        if (first_load(err) != 0) {
            rc = EINVAL;
            end(clock_ms(), "there is nothing to serve");
            cycle_drop_all();
            door_leave();
        }
    }
    notify_clear(rc == 0 && conf->file != NULL ? "READY=1" : NULL);
    if (rc != 0) {
        log_alert("%s", err);
        if (conf->admin_fd != -1)
            admin_refuse(conf->admin_fd, rc, err);
        else if (conf->log != NULL)
            fprintf(stderr, "tailnetd: %s\n", err);
        return 1;
    }
    if (chdir("/") == -1)
        log_warn("chdir: %s", strerror(errno));
    if (conf->admin_fd != -1) {
        fcntl(conf->admin_fd, F_SETFD, FD_CLOEXEC);
        conn_add(conf->admin_fd, false);
    }
    loop();
    return 0;
}

#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../log.h"
#include "lines.h"
#include "store.h"

#define MESSAGES_MAX 64 /* of the engine, before others have their turn */

enum state { NONE, ADOPTING, RUNNING, WAITING, ENDING, ENDED };

static struct {
    struct child_config conf;
    enum state state;
    int exe;        /* this program, whatever its name is now */
    int channel;    /* our end, or -1 */
    int bequest[2]; /* ours, the engine's; -1: an adopted engine has it */
    pid_t pid;      /* 0: not known */
    bool ours;      /* a child of this process */
    bool broken;    /* a message was lost or malformed: to be killed */
    int64_t due;    /* of the state's next step; -1: none */
    int64_t deaths[CHILD_DEATHS]; /* times, newest first; 0: none */
    int64_t delay;
    struct lines lines;
} child = {.exe = -1, .channel = -1, .bequest = {-1, -1}, .due = -1};

/* What an engine may see of our environment: nginx's can hold auth keys. */
static const char *const passed[] = {"ASAN_OPTIONS", "LSAN_OPTIONS",
    "UBSAN_OPTIONS", "LLVM_PROFILE_FILE", "GCOV_PREFIX", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "TZ", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY",
    "HTTPS_PROXY", "NO_PROXY"};
#define PASSED (sizeof(passed) / sizeof(passed[0]))

static int
make_pair(int sv[2])
{
    struct timeval tv = {CHILD_SEND_MS / 1000, CHILD_SEND_MS % 1000 * 1000};
    int i;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == -1)
        return -1;
    for (i = 0; i < 2; i++)
        setsockopt(sv[i], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    return 0;
}

static void
close_fd(int *fd)
{
    if (*fd != -1)
        close(*fd);
    *fd = -1;
}

int
child_init(const struct child_config *c)
{
    child.conf = *c;
    child.delay = c->delay_ms;
    lines_init(&child.lines);
    child.exe = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (child.exe == -1)
        return -1;
    return make_pair(child.bequest);
}

bool
child_running(void)
{
    return child.state == RUNNING;
}

pid_t
child_pid(void)
{
    return child.pid;
}

bool
child_ended(void)
{
    return child.state == ENDED;
}

int
child_bequest(void)
{
    return child.bequest[0];
}

bool
child_send(const struct ipc_msg *m, const int *fds, size_t nfds)
{
    if (child.state != RUNNING || child.broken)
        return false;
    if (ipc_send(child.channel, m, fds, nfds) == 0)
        return true;
    if (errno != EPIPE && errno != ECONNRESET)
        log_err("engine %d does not read: %s: it is ended", (int)child.pid,
            strerror(errno));
    child.broken = true;
    return false;
}

/* ---- start ---- */

/* After fork: says on the engine's log why there is no engine. */
static _Noreturn void
give_up(const char *step)
{
    dprintf(STDERR_FILENO, "<3>the engine cannot be started: %s: %s\n", step,
        strerror(errno));
    _exit(127);
}

/* Puts the five descriptors of ipc.h in place.  None of them may be closed
 * by the place of another, so all move out of the way first. */
static void
place_fds(int channel, int err)
{
    int in = open("/dev/null", O_RDWR | O_CLOEXEC);
    int from[] = {in, in, err, channel, child.bequest[1]};
    size_t i;

    for (i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
        from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 16);
        if (from[i] == -1)
            give_up("descriptors");
    }
    for (i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
        if (dup2(from[i], (int)i) == -1)
            give_up("dup2");
    }
}

static _Noreturn void
exec_engine(int channel, int err)
{
    static char env[PASSED][1024];
    char name[] = "tailnetd", mode[] = "--engine", option[] = "--timing";
    char *argv[] = {name, mode, NULL, NULL, NULL}, *envp[PASSED + 1];
    size_t i, n = 0;
    const char *step, *value;
    sigset_t none;
    int exe;

    /* Lines to a dead holder must not end an engine that goes on without. */
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (child.conf.timing != NULL) {
        argv[2] = option;
        argv[3] = (char *)(uintptr_t)child.conf.timing;
    }
    for (i = 0; i < PASSED; i++) {
        value = getenv(passed[i]);
        if (value == NULL || snprintf(env[n], sizeof(env[n]), "%s=%s",
                                 passed[i], value) >= (int)sizeof(env[n]))
            continue;
        envp[n] = env[n];
        n++;
    }
    envp[n] = NULL;
    exe = fcntl(child.exe, F_DUPFD_CLOEXEC, 32);
    place_fds(channel, err);
    step = isolate_child(&child.conf.user);
    if (step != NULL)
        give_up(step);
    syscall(SYS_execveat, exe, "", argv, envp, AT_EMPTY_PATH);
    give_up("exec");
}

/* Everything of the store but the TUNs, which come with their NODEs. */
static void
send_entries(void)
{
    const struct store_entry *e;
    struct ipc_msg m;
    size_t i;

    for (i = 0; (e = store_at(i)) != NULL; i++) {
        if (strncmp(e->name, "tun/", 4) == 0)
            continue;
        memset(&m, 0, sizeof(m));
        m.type = IPC_ENTRY;
        memcpy(m.name, e->name, sizeof(m.name));
        child_send(&m, e->fds, e->nfds);
    }
}

static void died(int64_t now, const char *how);

static void
start(int64_t now)
{
    struct ipc_msg ready = {.type = IPC_READY};
    int sv[2] = {-1, -1}, log[2] = {-1, -1};

    if ((child.bequest[1] == -1 && make_pair(child.bequest) == -1) ||
        make_pair(sv) == -1 || pipe2(log, O_CLOEXEC) == -1)
        goto failed;
    fcntl(log[0], F_SETFL, O_NONBLOCK);
    child.pid = fork();
    if (child.pid == -1)
        goto failed;
    if (child.pid == 0)
        exec_engine(sv[1], log[1]);
    close(sv[1]);
    close(log[1]);
    child.channel = sv[0];
    lines_open(&child.lines, log[0]);
    child.ours = true;
    child.broken = false;
    child.state = RUNNING;
    child.due = -1;
    log_notice("engine %d starts", (int)child.pid);
    send_entries();
    child.conf.ops.started(false);
    child_send(&ready, NULL, 0);
    return;
failed:
    log_err("the engine cannot be started: %s", strerror(errno));
    close_fd(&sv[0]);
    close_fd(&sv[1]);
    close_fd(&log[0]);
    close_fd(&log[1]);
    child.pid = 0;
    died(now, NULL);
}

void
child_need(int64_t now)
{
    if (child.state == NONE)
        start(now);
}

void
child_adopt(int bequest, int64_t now)
{
    struct ipc_msg m = {.type = IPC_MAIN};
    int sv[2], on = 1;

    if (child.state != NONE || make_pair(sv) == -1) {
        close(bequest);
        return;
    }
    /* The engine's first message says who it is. */
    setsockopt(sv[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    if (ipc_send(bequest, &m, &sv[1], 1) == -1) {
        log_notice("the engine of the tailnetd before is gone too");
        close(bequest);
        close(sv[0]);
        close(sv[1]);
        return;
    }
    close(sv[1]);
    close_fd(&child.bequest[0]);
    close_fd(&child.bequest[1]);
    child.bequest[0] = bequest;
    child.channel = sv[0];
    child.ours = false;
    child.pid = 0;
    child.broken = false;
    child.state = ADOPTING;
    child.due = now + CHILD_ADOPT_MS;
}

/* ---- end ---- */

static void
describe(int status, char *buf, size_t size)
{
    if (WIFSIGNALED(status))
        snprintf(buf, size, "was killed by signal %d (%s)", WTERMSIG(status),
            strsignal(WTERMSIG(status)));
    else
        snprintf(buf, size, "exited with code %d", WEXITSTATUS(status));
}

/* Collects the process whose channel is closed, and makes sure it is gone. */
static void
reap(char *how, size_t size)
{
    int status = 0;

    snprintf(how, size, "is gone");
    if (child.pid != 0)
        kill(child.pid, SIGKILL);
    if (child.ours && child.pid != 0) {
        while (waitpid(child.pid, &status, 0) == -1 && errno == EINTR)
            ;
        describe(status, how, size);
    }
    lines_drain(&child.lines);
    lines_close(&child.lines);
    close_fd(&child.channel);
}

/* A bequest that only an adopted engine had the other end of is of no use. */
static void
forget_bequest(void)
{
    if (child.bequest[1] == -1)
        close_fd(&child.bequest[0]);
}

/* Decides when the next engine starts; ${how} NULL: there was none. */
static void
died(int64_t now, const char *how)
{
    bool often;
    size_t i;

    if (how != NULL)
        log_alert("engine %d %s", (int)child.pid, how);
    forget_bequest();
    child.pid = 0;
    for (i = CHILD_DEATHS - 1; i > 0; i--)
        child.deaths[i] = child.deaths[i - 1];
    child.deaths[0] = now;
    often = child.deaths[CHILD_DEATHS - 1] != 0 &&
            now - child.deaths[CHILD_DEATHS - 1] < CHILD_DEATHS_MS;
    if (!often && child.deaths[1] != 0 &&
        now - child.deaths[1] >= CHILD_DEATHS_MS)
        child.delay = child.conf.delay_ms;
    child.state = WAITING;
    child.due = now;
    if (!often && how != NULL)
        return;
    child.due = now + child.delay;
    if (often) {
        /* What it left behind may be what kills it. */
        store_drop_kind("hot");
        log_err("the engine died %d times within %d s: its hot state is "
                "thrown away; peers without an endpoint in the netmap have to "
                "come by themselves",
            CHILD_DEATHS, CHILD_DEATHS_MS / 1000);
    }
    log_err("the next engine starts in %lld ms", (long long)child.delay);
    child.delay *= 2;
    if (child.delay > CHILD_DELAY_MAX_MS)
        child.delay = CHILD_DELAY_MAX_MS;
}

/* The channel is closed, or has to be. */
static void
lost(int64_t now)
{
    bool ending = child.state == ENDING, adopting = child.state == ADOPTING;
    char how[96];

    reap(how, sizeof(how));
    if (ending) {
        log_notice("engine %d %s", (int)child.pid, how);
        child.state = ENDED;
        child.due = -1;
    } else if (adopting) {
        log_notice("the engine of the tailnetd before did not answer: a new "
                   "one starts");
        forget_bequest();
        child.state = WAITING;
        child.due = now;
    } else {
        died(now, how);
    }
    child.conf.ops.died();
}

void
child_stop(int64_t now, bool spare)
{
    if (child.state == ENDING || child.state == ENDED)
        return;
    if (child.channel == -1 || (spare && !child.ours)) {
        close_fd(&child.channel);
        child.state = ENDED;
        child.due = -1;
        return;
    }
    if (child.pid != 0)
        kill(child.pid, SIGTERM);
    else
        child.broken = true; /* adopted, unknown: it follows its channel */
    child.state = ENDING;
    child.due = now + CHILD_STOP_MS;
}

/* ---- messages ---- */

/* The process behind the channel of an adopted engine, from the credentials
 * that the kernel puts on its messages. */
static pid_t
peek_pid(void)
{
    union {
        struct cmsghdr align;
        char b[CMSG_SPACE(sizeof(struct ucred)) +
               CMSG_SPACE(sizeof(int) * IPC_FDS_MAX)];
    } c;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr h = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = c.b,
        .msg_controllen = sizeof(c.b)};
    struct cmsghdr *cm;
    struct ucred who = {.pid = 0};
    size_t i;
    int fd;

    if (recvmsg(child.channel, &h,
            MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC) == -1)
        return 0;
    for (cm = CMSG_FIRSTHDR(&h); cm != NULL; cm = CMSG_NXTHDR(&h, cm)) {
        if (cm->cmsg_type == SCM_CREDENTIALS)
            memcpy(&who, CMSG_DATA(cm), sizeof(who));
        /* Peeking installs descriptors: these are copies. */
        for (i = 0; cm->cmsg_type == SCM_RIGHTS &&
                    i < (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);
             i++) {
            memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
            close(fd);
        }
    }
    return who.pid;
}

/* The pipe that an adopted engine logs to went with its holder. */
static void
give_log(void)
{
    struct ipc_msg m = {.type = IPC_LOG};
    int log[2];

    if (pipe2(log, O_CLOEXEC) == -1) {
        log_err(
            "engine %d cannot be heard: %s", (int)child.pid, strerror(errno));
        return;
    }
    fcntl(log[0], F_SETFL, O_NONBLOCK);
    lines_open(&child.lines, log[0]);
    child_send(&m, &log[1], 1);
    close(log[1]);
}

static void
adopted(void)
{
    int off = 0;

    child.pid = peek_pid();
    setsockopt(child.channel, SOL_SOCKET, SO_PASSCRED, &off, sizeof(off));
    child.state = RUNNING;
    child.due = -1;
    log_notice("engine %d of the tailnetd before goes on", (int)child.pid);
    give_log();
    child.conf.ops.started(true);
}

static void
read_messages(int64_t now)
{
    int fds[IPC_FDS_MAX], rc, i;
    struct ipc_msg m;
    size_t nfds;

    for (i = 0; i < MESSAGES_MAX && child.channel != -1; i++) {
        if (child.state == ADOPTING) {
            struct pollfd p = {.fd = child.channel, .events = POLLIN};

            if (poll(&p, 1, 0) == 1 && !(p.revents & POLLHUP))
                adopted();
        }
        rc = ipc_recv(child.channel, &m, fds, &nfds);
        if (rc == 1) {
            child.conf.ops.message(&m, fds, nfds);
            continue;
        }
        if (rc == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (rc == -1 && errno == EBADMSG)
            log_alert("engine %d sent a malformed message: it is ended",
                (int)child.pid);
        lost(now);
        return;
    }
}

/* ---- loop ---- */

void
child_poll(struct pollfd p[CHILD_POLLS])
{
    p[0] = (struct pollfd){.fd = child.channel, .events = POLLIN};
    p[1] = (struct pollfd){.fd = lines_fd(&child.lines), .events = POLLIN};
}

void
child_polled(const struct pollfd p[CHILD_POLLS], int64_t now)
{
    if (p[1].revents != 0 && p[1].fd == lines_fd(&child.lines))
        lines_read(&child.lines, now);
    if (p[0].revents != 0 && p[0].fd == child.channel)
        read_messages(now);
}

int64_t
child_deadline(void)
{
    int64_t lines = lines_deadline(&child.lines);

    if (child.broken && child.channel != -1)
        return 0;
    if (child.due == -1)
        return lines;
    return lines != -1 && lines < child.due ? lines : child.due;
}

void
child_tick(int64_t now)
{
    lines_tick(&child.lines, now);
    if (child.broken && child.channel != -1) {
        child.broken = false;
        lost(now);
        return;
    }
    if (child.due == -1 || now < child.due)
        return;
    switch (child.state) {
    case ADOPTING:
        lost(now);
        return;
    case WAITING:
        start(now);
        return;
    case ENDING:
        lost(now); /* kills it */
        return;
    default:
        child.due = -1;
    }
}

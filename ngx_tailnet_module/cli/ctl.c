#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#define ANSWER_S  10
#define STATUS_S  40   /* of a large tailnet; tailnetd ends it before */
#define NETMAP_MS 2000 /* a snapshot that is there comes at once */

const char *ctl_socket;
bool ctl_json;

/*
 * Control characters of ${len} bytes of UTF-8 as "?", but for those in ${but}:
 * what somebody chose is to move no cursor and to make no line of its own.
 */
static void
tame(char *s, size_t len, const char *but)
{
    size_t i;

    for (i = 0; i < len; i++) {
        if (((unsigned char)s[i] < 0x20 && strchr(but, s[i]) == NULL) ||
            s[i] == 0x7f)
            s[i] = '?';
        /* U+0080 to U+009F */
        if (i > 0 && s[i - 1] == '\xc2' && (unsigned char)s[i] < 0xa0)
            s[i - 1] = s[i] = '?';
    }
}

static void
say(const char *fmt, va_list ap)
{
    char line[2 * PATH_MAX];

    vsnprintf(line, sizeof(line), fmt, ap);
    tame(line, strlen(line), "");
    fprintf(stderr, "tailnetctl: %s\n", line);
}

void
ctl_warn(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

void
ctl_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    exit(1);
}

void
ctl_put(struct tn_str s)
{
    char *text = strndup(s.p, s.len);

    if (text == NULL)
        ctl_die("out of memory");
    tame(text, strlen(text), "");
    fputs(text, stdout);
    free(text);
}

/* Where nginx's own tailnetd and the service listen when not told otherwise.
 * What is behind a directory that is not for us is better than nothing:
 * connect() says so then. */
static const char *
find_socket(void)
{
    static char user[sizeof(((struct sockaddr_un *)0)->sun_path)];
    const char *const places[] = {
        "/run/tailnetd/admin.sock", "/run/nginx-tailnet/admin.sock", user};
    const char *dir = getenv("XDG_RUNTIME_DIR"), *denied = NULL;
    size_t i;

    if (ctl_socket != NULL)
        return ctl_socket;
    if (dir == NULL || snprintf(user, sizeof(user), "%s/tailnetd/admin.sock",
                           dir) >= (int)sizeof(user))
        user[0] = '\0';
    for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (access(places[i], F_OK) == 0)
            return places[i];
        if (errno == EACCES && denied == NULL)
            denied = places[i];
    }
    if (denied != NULL)
        return denied;
    ctl_die("no tailnetd is running in the usual places; name its socket with "
            "--socket PATH");
}

static void
wait_at_most(int fd, time_t seconds)
{
    struct timeval tv = {seconds, 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
}

int
ctl_connect(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct tn_admin_hello hello = {.h = {.type = TN_ADMIN_HELLO},
        .version = TN_ADMIN_VERSION,
        .role = TN_ROLE_CTL};
    struct tn_admin_hello_ok ok;
    const char *path = find_socket();
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(un.sun_path))
        ctl_die("%s: longer than a socket's path can be", path);
    strcpy(un.sun_path, path);
    if (fd == -1 || connect(fd, (struct sockaddr *)&un, sizeof(un)) != 0)
        ctl_die("%s: %s", path, strerror(errno));
    wait_at_most(fd, ANSWER_S);
    if (ctl_ask(fd, &hello, sizeof(hello), TN_ADMIN_HELLO_OK, &ok, sizeof(ok),
            NULL, NULL) < sizeof(ok))
        ctl_die("%s: not a tailnetd", path);
    return fd;
}

/* One message and its descriptors; those that nobody asked for are closed. */
static size_t
receive(int fd, void *buf, size_t size, int *fds, size_t *nfds)
{
    union {
        struct cmsghdr h;
        char buf[CMSG_SPACE(sizeof(int) * TN_ADMIN_FDS_MAX)];
    } control;
    struct iovec iov = {buf, size};
    struct msghdr m = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control)};
    struct cmsghdr *c;
    int got[TN_ADMIN_FDS_MAX];
    size_t n = 0, i;
    ssize_t len;

    do
        len = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    while (len == -1 && errno == EINTR);
    if (len == -1)
        ctl_die("no answer from tailnetd: %s",
            errno == EAGAIN ? "it took too long" : strerror(errno));
    if (len == 0)
        ctl_die("tailnetd closed the connection");
    c = CMSG_FIRSTHDR(&m);
    if (c != NULL && c->cmsg_level == SOL_SOCKET &&
        c->cmsg_type == SCM_RIGHTS) {
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(got, CMSG_DATA(c), n * sizeof(int));
    }
    if (fds != NULL) {
        memcpy(fds, got, n * sizeof(int));
        *nfds = n;
    } else {
        for (i = 0; i < n; i++)
            close(got[i]);
    }
    return (size_t)len;
}

size_t
ctl_ask(int fd, void *msg, size_t len, unsigned want, void *buf, size_t size,
    int *fds, size_t *nfds)
{
    static uint32_t seq;
    struct tn_admin_head *head = msg, got;
    union {
        struct tn_admin_error e;
        char room[sizeof(struct tn_admin_error) + TN_ERR_MAX];
    } * error;
    char *answer = malloc(size < sizeof(*error) ? sizeof(*error) : size);
    size_t room = size < sizeof(*error) ? sizeof(*error) : size, n;

    if (answer == NULL)
        ctl_die("out of memory");
    head->seq = ++seq;
    if (send(fd, msg, len, MSG_NOSIGNAL) != (ssize_t)len)
        ctl_die("tailnetd does not take the request: %s", strerror(errno));
    for (;;) {
        n = receive(fd, answer, room, fds, nfds);
        if (n < sizeof(got))
            ctl_die("malformed answer from tailnetd");
        memcpy(&got, answer, sizeof(got));
        if (got.seq == seq)
            break;
    }
    if (got.type == TN_ADMIN_ERROR && n >= sizeof(error->e)) {
        error = (void *)answer;
        ctl_die("%.*s", (int)(n - sizeof(error->e)), error->e.text);
    }
    if (got.type != want || n > size)
        ctl_die("unexpected answer %u from tailnetd", got.type);
    memcpy(buf, answer, n);
    free(answer);
    return n;
}

/* The document of a TEXT answer. */
static char *
ask_text(int fd, void *msg, size_t len)
{
    struct tn_admin_head head;
    int fds[TN_ADMIN_FDS_MAX];
    struct stat st;
    size_t nfds = 0, size, got = 0;
    ssize_t n;
    char *text;

    (void)ctl_ask(fd, msg, len, TN_ADMIN_TEXT, &head, sizeof(head), fds, &nfds);
    if (nfds != 1 || fstat(fds[0], &st) != 0)
        ctl_die("malformed answer from tailnetd");
    size = (size_t)st.st_size;
    text = malloc(size + 1);
    if (text == NULL)
        ctl_die("out of memory");
    while (got < size &&
           (n = pread(fds[0], text + got, size - got, (off_t)got)) > 0)
        got += (size_t)n;
    text[got] = '\0';
    close(fds[0]);
    tame(text, got, "\n\t");
    return text;
}

/* All strings of ${v}; its keys are tailnetd's. */
static void
tame_all(json_t *v)
{
    const char *key, *s = json_string_value(v);
    json_t *e;
    size_t i;

    if (s != NULL)
        tame((char *)(uintptr_t)s, json_string_length(v), "");
    json_array_foreach(v, i, e) tame_all(e);
    json_object_foreach(v, key, e) tame_all(e);
}

json_t *
ctl_document(int fd, void *msg, size_t len, char **text)
{
    json_t *doc;

    *text = ask_text(fd, msg, len);
    doc = json_loads(*text, 0, NULL);
    tame_all(doc);
    return doc;
}

json_t *
ctl_status(int argc, char **argv, char **text)
{
    struct tn_admin_node ask = {.h = {.type = TN_ADMIN_STATUS}};
    size_t len = sizeof(ask.h);
    json_t *doc, *nodes;
    int fd;

    if (argc > 2) {
        ctl_warn("%s takes at most one argument: NODE", argv[0]);
        return NULL;
    }
    if (argc == 2) {
        if (strlen(argv[1]) > TN_NODE_NAME_MAX)
            ctl_die("no node \"%s\"", argv[1]);
        strcpy(ask.node, argv[1]);
        len += strlen(argv[1]);
    }
    fd = ctl_connect();
    wait_at_most(fd, STATUS_S);
    doc = ctl_document(fd, &ask, len, text);
    nodes = json_object_get(doc, "nodes");
    if (!json_is_array(nodes))
        ctl_die("malformed status from tailnetd");
    if (argc == 2 && json_array_size(nodes) == 0)
        ctl_die("no node \"%s\"", argv[1]);
    return doc;
}

void
ctl_snapshot(int fd, const char *node, struct tn_snap *s)
{
    struct tn_admin_node ask = {.h = {.type = TN_ADMIN_SUBSCRIBE}};
    const int want = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct tn_admin_snapshot got;
    struct tn_admin_head ok;
    int fds[TN_ADMIN_FDS_MAX], seals;
    struct stat st;
    const char *why;
    size_t nfds = 0;
    void *map;

    if (strlen(node) > TN_NODE_NAME_MAX)
        ctl_die("no node \"%s\"", node);
    strcpy(ask.node, node);
    (void)ctl_ask(
        fd, &ask, sizeof(ask), TN_ADMIN_OK, &ok, sizeof(ok), NULL, NULL);
    if (poll(&p, 1, NETMAP_MS) == 0)
        ctl_die("node \"%s\" has no netmap yet: \"tailnetctl status %s\" says "
                "why",
            node, node);
    if (receive(fd, &got, sizeof(got), fds, &nfds) < sizeof(got) ||
        got.h.type != TN_ADMIN_SNAPSHOT || nfds != 1)
        ctl_die("malformed answer from tailnetd");
    seals = fcntl(fds[0], F_GET_SEALS);
    if (seals == -1 || (seals & want) != want || fstat(fds[0], &st) != 0)
        ctl_die("the snapshot of \"%s\" is not sealed", node);
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fds[0], 0);
    if (map == MAP_FAILED)
        ctl_die("the snapshot of \"%s\" cannot be mapped: %s", node,
            strerror(errno));
    why = tn_snap_open(s, map, (size_t)st.st_size);
    if (why != NULL)
        ctl_die("the snapshot of \"%s\" is bad: %s", node, why);
    close(fds[0]);
}

void
ctl_node(int fd, const char *name, char node[static TN_NODE_NAME_MAX + 1])
{
    struct tn_admin_head ask = {.type = TN_ADMIN_ONLY};
    struct tn_admin_node only;

    if (name == NULL) {
        if (ctl_ask(fd, &ask, sizeof(ask), TN_ADMIN_NODE, &only, sizeof(only),
                NULL, NULL) < sizeof(only))
            ctl_die("malformed answer from tailnetd");
        name = only.node;
    }
    if (strnlen(name, TN_NODE_NAME_MAX + 1) > TN_NODE_NAME_MAX)
        ctl_die("no node \"%s\"", name);
    strcpy(node, name);
}

const char *
ctl_of_node(int fd, const char *arg, char node[static TN_NODE_NAME_MAX + 1])
{
    const char *slash = strchr(arg, '/');
    char name[TN_NODE_NAME_MAX + 2]; /* what is cut is still too long */

    if (slash != NULL)
        snprintf(name, sizeof(name), "%.*s", (int)(slash - arg), arg);
    ctl_node(fd, slash == NULL ? NULL : name, node);
    return slash == NULL ? arg : slash + 1;
}

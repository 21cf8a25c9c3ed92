/*
 * fake_tailnetd.c: the admin channel of tailnetd without a tailnet, to hand
 * nginx snapshots that no tailnetd would make.
 *
 *   fake_tailnetd save SOCKET NODE FILE
 *       asks a real tailnetd for NODE's snapshot and writes it to FILE.
 *   fake_tailnetd serve SOCKET NODE
 *       is tailnetd for an nginx.  Listening sockets are of this network
 *       namespace.  Prints "ready", then reads commands:
 *         snapshot GENERATION FILE [HOW]        publish FILE as it is, all its
 *                                               seals on; HOW: "unsealed", or
 *                                               "writable", of one length
 *         nofd GENERATION                       a message without a file
 *         short                                 a message that is cut off
 *       and answers each with "sent N", the number of subscribers.  It ends
 *       with its standard input.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/core/tn_admin.h"

#define CONNS_MAX 64

static struct {
    int fd;
    bool subscribed;
} conns[CONNS_MAX];
static size_t nconns;
static const char *node;
static int current = -1; /* memory file of the last snapshot */
static uint64_t generation;

static void
die(const char *what)
{
    fprintf(stderr, "fake_tailnetd: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_un
address(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof un.sun_path) {
        errno = ENAMETOOLONG;
        die(path);
    }
    memcpy(un.sun_path, path, strlen(path));
    return un;
}

/* Sends ${len} bytes and, unless it is -1, ${fd}; false when nobody reads. */
static bool
send_fd(int s, const void *msg, size_t len, int fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {(void *)(uintptr_t)msg, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd != -1) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        control.head.cmsg_level = SOL_SOCKET;
        control.head.cmsg_type = SCM_RIGHTS;
        control.head.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    }
    return sendmsg(s, &m, MSG_NOSIGNAL) == (ssize_t)len;
}

/* Length of the message, 0 at the end; its last descriptor or -1. */
static ssize_t
recv_fd(int s, void *buf, size_t size, int *fd)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {buf, size};
    struct msghdr m = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    ssize_t n = recvmsg(s, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    size_t k = 0;

    *fd = -1;
    if (c != NULL && c->cmsg_type == SCM_RIGHTS) {
        k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    }
    for (size_t i = 0; i < k; i++) {
        if (*fd != -1) {
            close(*fd);
        }
        memcpy(fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    return n;
}

static void
add_conn(int fd)
{
    if (fd == -1 || nconns == CONNS_MAX) {
        errno = EMFILE;
        die("connection");
    }
    conns[nconns].fd = fd;
    conns[nconns].subscribed = false;
    nconns++;
}

static void
answer(int s, uint16_t type, uint32_t seq, int fd)
{
    struct tn_admin_head h = {.type = type, .seq = seq};

    send_fd(s, &h, sizeof h, fd);
}

static void
publish(int s)
{
    struct tn_admin_snapshot m = {
        .h = {.type = TN_ADMIN_SNAPSHOT},
        .generation = generation,
    };

    snprintf(m.node, sizeof m.node, "%s", node);
    send_fd(s, &m, sizeof m, current);
}

static int
listener(const struct tn_admin_listen *l)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET,
        .sin_port = htons(l->port),
    };
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6,
        .sin6_port = htons(l->port),
    };
    bool four = l->family == 4;
    int one = 1, s = socket(four ? AF_INET : AF_INET6, SOCK_STREAM, 0);

    if (s == -1 ||
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        (!four &&
            setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) != 0) ||
        bind(s, four ? (void *)&in : (void *)&in6,
            four ? sizeof in : sizeof in6) != 0 ||
        listen(s, 16) != 0) {
        die("listening socket");
    }
    return s;
}

static void
refuse(int s, uint32_t seq)
{
    static const char text[] = "there is no tailnet here";
    union {
        struct tn_admin_error head;
        char bytes[sizeof(struct tn_admin_error) + sizeof text];
    } m = {.head = {.h = {.type = TN_ADMIN_ERROR, .seq = seq}, .err = EINVAL}};

    memcpy(m.bytes + sizeof m.head, text, sizeof text - 1);
    send_fd(s, &m, sizeof m.head + sizeof text - 1, -1);
}

/* One message of connection ${i}; false at its end. */
static bool
serve_conn(size_t i)
{
    static union {
        struct tn_admin_head head;
        struct tn_admin_listen listen;
        char bytes[TN_ADMIN_MSG_MAX];
    } m;
    struct tn_admin_hello_ok ok = {
        .h = {.type = TN_ADMIN_HELLO_OK},
        .version = TN_ADMIN_VERSION,
        .pid = (uint32_t)getpid(),
        .cycle = 1,
    };
    int s = conns[i].fd, fd, pair[2];

    if (recv_fd(s, &m, sizeof m, &fd) < (ssize_t)sizeof m.head) {
        return false;
    }
    switch (m.head.type) {
    case TN_ADMIN_HELLO:
        ok.h.seq = m.head.seq;
        send_fd(s, &ok, sizeof ok, -1);
        break;
    case TN_ADMIN_LISTEN:
        pair[0] = listener(&m.listen);
        answer(s, TN_ADMIN_FD, m.head.seq, pair[0]);
        close(pair[0]);
        break;
    case TN_ADMIN_BEQUEST:
        if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) {
            die("socketpair");
        }
        answer(s, TN_ADMIN_FD, m.head.seq, pair[0]);
        close(pair[0]);
        close(pair[1]);
        break;
    case TN_ADMIN_ATTACH:
        add_conn(fd);
        break;
    case TN_ADMIN_SUBSCRIBE:
        answer(s, TN_ADMIN_OK, m.head.seq, -1);
        conns[i].subscribed = true;
        if (current != -1) {
            publish(s);
        }
        break;
    case TN_ADMIN_TABLE:
    case TN_ADMIN_COMMIT:
    case TN_ADMIN_INHERIT:
        answer(s, TN_ADMIN_OK, m.head.seq, -1);
        break;
    case TN_ADMIN_STOP:
        answer(s, TN_ADMIN_OK, m.head.seq, -1);
        exit(0);
    default:
        refuse(s, m.head.seq);
        break;
    }
    return true;
}

static int
memory_file(const char *path, int seals)
{
    static char buf[1 << 20];
    int fd = memfd_create("snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    FILE *f = fopen(path, "rb");
    size_t n;

    if (fd == -1 || f == NULL) {
        die(path);
    }
    n = fread(buf, 1, sizeof buf, f);
    fclose(f);
    if (write(fd, buf, n) != (ssize_t)n) {
        die("write");
    }
    if (fcntl(fd, F_ADD_SEALS, seals) != 0) {
        die("seal");
    }
    return fd;
}

static void
command(const char *line)
{
    static const uint8_t cut[12] = {TN_ADMIN_SNAPSHOT};
    char path[4096], how[16] = "";
    bool is_short = strcmp(line, "short\n") == 0;
    int keep = current;
    size_t sent = 0;

    if (sscanf(line, "snapshot %" SCNu64 " %4095s %15s", &generation, path,
            how) >= 2) {
        current = memory_file(path,
            strcmp(how, "unsealed") == 0 ? 0
            : strcmp(how, "writable") == 0
                ? F_SEAL_SHRINK | F_SEAL_GROW
                : F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        if (keep != -1) {
            close(keep);
        }
        keep = current;
    } else if (sscanf(line, "nofd %" SCNu64, &generation) == 1) {
        current = -1;
    } else if (!is_short) {
        fprintf(stderr, "fake_tailnetd: unknown command: %s", line);
        exit(1);
    }
    for (size_t i = 0; i < nconns; i++) {
        if (conns[i].subscribed && is_short) {
            send_fd(conns[i].fd, cut, sizeof cut, -1);
        } else if (conns[i].subscribed) {
            publish(conns[i].fd);
        }
        sent += conns[i].subscribed;
    }
    current = keep;
    printf("sent %zu\n", sent);
}

static void
serve(const char *path)
{
    struct sockaddr_un un = address(path);
    int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    char line[8192];

    if (s == -1 || bind(s, (void *)&un, sizeof un) != 0 || listen(s, 16) != 0) {
        die(path);
    }
    setvbuf(stdin, NULL, _IONBF, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (;;) {
        struct pollfd p[CONNS_MAX + 2] = {
            {.fd = 0, .events = POLLIN},
            {.fd = s, .events = POLLIN},
        };
        size_t n = nconns;

        for (size_t i = 0; i < n; i++) {
            p[i + 2].fd = conns[i].fd;
            p[i + 2].events = POLLIN;
        }
        if (poll(p, n + 2, -1) == -1) {
            die("poll");
        }
        /* From the last, so that one that ends moves none still to come. */
        for (size_t i = n; i > 0; i--) {
            if (p[i + 1].revents != 0 && !serve_conn(i - 1)) {
                close(conns[i - 1].fd);
                conns[i - 1] = conns[--nconns];
            }
        }
        if (p[1].revents != 0) {
            add_conn(accept4(s, NULL, NULL, SOCK_CLOEXEC));
        }
        if (p[0].revents != 0) {
            if (fgets(line, sizeof line, stdin) == NULL) {
                return;
            }
            command(line);
        }
    }
}

static void
save(const char *path, const char *file)
{
    struct sockaddr_un un = address(path);
    struct tn_admin_hello hello = {
        .h = {.type = TN_ADMIN_HELLO, .seq = 1},
        .version = TN_ADMIN_VERSION,
        .role = TN_ROLE_CTL,
    };
    struct tn_admin_node ask = {.h = {.type = TN_ADMIN_SUBSCRIBE, .seq = 2}};
    int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fd = -1;
    union {
        struct tn_admin_head head;
        char bytes[4096];
    } m;
    static char buf[1 << 20];
    FILE *f = fopen(file, "wb");
    ssize_t n;

    snprintf(ask.node, sizeof ask.node, "%s", node);
    if (s == -1 || f == NULL || connect(s, (void *)&un, sizeof un) != 0 ||
        !send_fd(s, &hello, sizeof hello, -1) ||
        recv_fd(s, &m, sizeof m, &fd) <= 0 ||
        !send_fd(s, &ask, sizeof ask, -1)) {
        die(path);
    }
    while (fd == -1) {
        if (recv_fd(s, &m, sizeof m, &fd) <= 0 ||
            m.head.type == TN_ADMIN_ERROR) {
            die("no snapshot");
        }
    }
    n = pread(fd, buf, sizeof buf, 0);
    if (n <= 0 || fwrite(buf, 1, (size_t)n, f) != (size_t)n || fclose(f) != 0) {
        die(file);
    }
}

int
main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "save") == 0) {
        node = argv[3];
        save(argv[2], argv[4]);
        return 0;
    }
    if (argc == 4 && strcmp(argv[1], "serve") == 0) {
        node = argv[3];
        serve(argv[2]);
        return 0;
    }
    fputs("usage: fake_tailnetd save SOCKET NODE FILE | serve SOCKET NODE\n",
        stderr);
    return 2;
}

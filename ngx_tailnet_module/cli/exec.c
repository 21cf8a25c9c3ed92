/*
 * exec: a program inside a node's network namespace.  It sees mesh0 and its
 * peers' names, in a hosts file that only it sees (a mount namespace of its
 * own), and nothing else of the network.
 */
#include "ctl.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* Anything else could be a line of its own, or another name in it. */
static bool
is_hostname(struct tn_str s)
{
    static const char chars[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
    size_t i;

    for (i = 0; i < s.len && memchr(chars, s.p[i], sizeof(chars) - 1); i++)
        ;
    return i == s.len && s.len > 0;
}

static void
print_hosts(FILE *f, const struct tn_snap *s)
{
    char addr[TN_ADDR_STRLEN];
    struct tn_peer p;
    uint32_t cursor = 0;
    unsigned i;

    fputs("127.0.0.1 localhost\n::1 localhost\n", f);
    while (tn_snap_next(s, &cursor, &p) == 0) {
        if (!is_hostname(p.host))
            continue;
        if (!is_hostname(p.name))
            p.name.len = 0;
        for (i = 0; i < p.naddrs; i++) {
            tn_addr_format(&p.addrs[i], addr);
            fprintf(f, "%s %.*s %.*s\n", addr, (int)p.name.len, p.name.p,
                (int)p.host.len, p.host.p);
        }
    }
}

/* The file is gone from its folder once it is mounted. */
static void
mount_hosts(const struct tn_snap *s)
{
    char path[] = "/tmp/tailnetctl-hosts.XXXXXX";
    int fd = mkstemp(path);
    FILE *f = fd == -1 ? NULL : fdopen(fd, "w");

    if (f == NULL)
        ctl_die("no hosts file: %s", strerror(errno));
    print_hosts(f, s);
    if (fchmod(fd, 0644) != 0 || fclose(f) != 0)
        ctl_die("no hosts file: %s", strerror(errno));
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(path, "/etc/hosts", NULL, MS_BIND, NULL) != 0)
        ctl_warn("peers' names are not in /etc/hosts: %s", strerror(errno));
    unlink(path);
}

int
exec_main(int argc, char **argv)
{
    struct tn_admin_node ask = {.h = {.type = TN_ADMIN_NETNS}};
    int fds[TN_ADMIN_FDS_MAX], fd;
    struct tn_admin_head got;
    struct tn_snap snap;
    size_t nfds = 0, i;

    if (argc < 4 || strcmp(argv[2], "--") != 0) {
        ctl_warn("exec takes NODE -- COMMAND [ARGUMENT ...]");
        return 2;
    }
    if (strlen(argv[1]) > TN_NODE_NAME_MAX)
        ctl_die("no node \"%s\"", argv[1]);
    strcpy(ask.node, argv[1]);
    fd = ctl_connect();
    (void)ctl_ask(
        fd, &ask, sizeof(ask), TN_ADMIN_FDS, &got, sizeof(got), fds, &nfds);
    if (nfds < 1 || nfds > 2)
        ctl_die("malformed answer from tailnetd");
    ctl_snapshot(fd, argv[1], &snap);
    /* A user namespace comes first, with the rights to enter the other. */
    for (i = nfds; i-- > 0;)
        if (setns(fds[i], i == 1 ? CLONE_NEWUSER : CLONE_NEWNET) != 0)
            ctl_die("the namespace of node \"%s\" cannot be entered: %s",
                argv[1], strerror(errno));
    mount_hosts(&snap);
    execvp(argv[3], argv + 3);
    /* What a shell says of a command that cannot be run (POSIX 2.8.2). */
    i = errno == ENOENT ? 127 : 126;
    ctl_warn("%s: %s", argv[3], strerror(errno));
    return (int)i;
}

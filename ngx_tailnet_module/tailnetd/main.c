/*
 * tailnetd: nodes of a tailnet for nginx, or without it.
 *
 *   tailnetd --admin-fd N --socket PATH --log PATH   started by nginx
 *   tailnetd -c FILE                                 a service
 *   tailnetd -t -c FILE                              is FILE well?
 *   tailnetd --engine                                started by tailnetd
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "../core/tn_admin.h"
#include "engine/engine.h"
#include "holder/child.h"
#include "holder/holder.h"
#include "isolate.h"
#include "log.h"

#ifndef TAILNETD_VERSION
#define TAILNETD_VERSION "0.1.0"
#endif

#define TIMING_MAX 512

struct options {
    bool engine, test;
    const char *file, *socket, *log, *engine_user, *client;
    int admin_fd;
    char timing[TIMING_MAX]; /* what is the engine's */
    unsigned linger_ms, delay_ms;
};

static void
usage(FILE *out)
{
    fputs("usage: tailnetd -c FILE [--socket PATH] [--log PATH]\n"
          "                [--level LEVEL] [--engine-user NAME]\n"
          "                [--client NAME]          run the nodes of FILE;\n"
          "                                         NAME may use them, too\n"
          "       tailnetd -t -c FILE               check FILE\n"
          "       tailnetd -v                       show the version\n"
          "       tailnetd --admin-fd N --socket PATH --log PATH\n"
          "                [--level LEVEL] [--engine-user NAME]\n"
          "                                         as nginx starts it\n",
        out);
}

static int
fail(const char *what, const char *why)
{
    fprintf(stderr, "tailnetd: %s: %s\n", what, why);
    return -1;
}

static int
number(const char *option, const char *text, unsigned max, unsigned *value)
{
    unsigned long n;
    char *end;

    errno = 0;
    n = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *text == '-' || n > max)
        return fail(option, "not a number, or too big");
    *value = (unsigned)n;
    return 0;
}

/* Takes the holder's own times out of "name=ms,..."; the rest is for the
 * engine. */
static int
split_timing(struct options *o, const char *text)
{
    char word[64];
    size_t len, used = strlen(o->timing);
    int n;

    for (; *text != '\0'; text += len + (text[len] == ',')) {
        len = strcspn(text, ",");
        if (len >= sizeof(word))
            return fail("--timing", "too long");
        memcpy(word, text, len);
        word[len] = '\0';
        if (strncmp(word, "linger=", 7) == 0) {
            if (number("--timing linger", word + 7, INT_MAX, &o->linger_ms))
                return -1;
            continue;
        }
        if (strncmp(word, "delay=", 6) == 0) {
            if (number("--timing delay", word + 6, INT_MAX, &o->delay_ms))
                return -1;
            continue;
        }
        n = snprintf(o->timing + used, sizeof(o->timing) - used, "%s%s",
            used > 0 ? "," : "", word);
        used += (size_t)n;
        if (used >= sizeof(o->timing))
            return fail("--timing", "too long");
    }
    return 0;
}

static int
parse(struct options *o, int argc, char **argv)
{
    static const struct option longs[] = {
        {"admin-fd", required_argument, NULL, 'a'},
        {"socket", required_argument, NULL, 's'},
        {"log", required_argument, NULL, 'l'},
        {"level", required_argument, NULL, 'L'},
        {"engine-user", required_argument, NULL, 'u'},
        {"client", required_argument, NULL, 'C'},
        {"timing", required_argument, NULL, 'T'},
        {"engine", no_argument, NULL, 'e'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    unsigned fd;
    int c;

    while ((c = getopt_long(argc, argv, "c:tvh", longs, NULL)) != -1) {
        switch (c) {
        case 'a':
            if (number("--admin-fd", optarg, INT_MAX, &fd) == -1)
                return -1;
            if (fcntl((int)fd, F_GETFD) == -1)
                return fail("--admin-fd", strerror(errno));
            o->admin_fd = (int)fd;
            break;
        case 's':
            o->socket = optarg;
            break;
        case 'l':
            o->log = optarg;
            break;
        case 'L':
            if (log_limit(optarg) == -1)
                return fail(optarg, "no such level of the log");
            break;
        case 'u':
            o->engine_user = optarg;
            break;
        case 'C':
            o->client = optarg;
            break;
        case 'T':
            if (split_timing(o, optarg) == -1)
                return -1;
            break;
        case 'e':
            o->engine = true;
            break;
        case 'c':
            o->file = optarg;
            break;
        case 't':
            o->test = true;
            break;
        case 'v':
            printf("tailnetd %s, admin channel version %u\n", TAILNETD_VERSION,
                TN_ADMIN_VERSION);
            exit(0);
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            return -1;
        }
    }
    if (optind < argc) {
        usage(stderr);
        return fail(argv[optind], "no such argument");
    }
    return 0;
}

/* Checks the nodes of a file before anything is started. */
static int
check_file(const char *path)
{
    static struct tn_node nodes[TN_NODES_MAX];
    char prefix[TN_NODE_PATH_MAX + 1], err[TN_ERR_MAX], *text;
    unsigned line = 0;
    size_t len;
    int n;

    if (holder_read_file(path, &text, &len, err) == -1) {
        fprintf(stderr, "tailnetd: %s\n", err);
        return -1;
    }
    holder_prefix(path, prefix);
    n = tn_node_parse(text, len, prefix, nodes, TN_NODES_MAX, err, &line);
    free(text);
    if (n < 0) {
        fprintf(stderr, "tailnetd: %s:%u: %s\n", path, line, err);
        return -1;
    }
    if (n == 0) {
        fprintf(stderr, "tailnetd: %s: there is no tailnet_node\n", path);
        return -1;
    }
    return n;
}

/* ${path} from the root on, in ${buf}. */
static const char *
absolute(const char *path, char buf[PATH_MAX])
{
    size_t len;

    if (path == NULL || path[0] == '/')
        return path;
    if (getcwd(buf, PATH_MAX) == NULL) {
        fail(path, strerror(errno));
        return NULL;
    }
    len = strlen(buf);
    if ((size_t)snprintf(buf + len, PATH_MAX - len, "/%s", path) >=
        PATH_MAX - len) {
        fail(path, "too long");
        return NULL;
    }
    return buf;
}

static const char *
default_socket(char buf[PATH_MAX])
{
    const char *dir = getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0)
        return "/run/tailnetd/admin.sock";
    if (dir == NULL || dir[0] != '/') {
        fail("XDG_RUNTIME_DIR", "not set: give --socket PATH");
        return NULL;
    }
    snprintf(buf, PATH_MAX, "%s/tailnetd/admin.sock", dir);
    return buf;
}

static int
run_holder(const struct options *o)
{
    static char socket[PATH_MAX], log[PATH_MAX];
    struct holder_config conf = {.file = o->file,
        .admin_fd = o->admin_fd,
        .engine_user = o->engine_user,
        .client = o->client,
        .timing = o->timing[0] != '\0' ? o->timing : NULL,
        .linger_ms = o->linger_ms,
        .delay_ms = o->delay_ms};

    conf.socket = o->socket != NULL ? absolute(o->socket, socket)
                                    : default_socket(socket);
    conf.log = absolute(o->log, log);
    if (conf.socket == NULL || (o->log != NULL && conf.log == NULL))
        return 1;
    return holder_main(&conf);
}

int
main(int argc, char **argv)
{
    static char file[PATH_MAX];
    struct options o = {.admin_fd = -1,
        .linger_ms = HOLDER_LINGER_MS,
        .delay_ms = CHILD_DELAY_MS};
    int n;

    if (parse(&o, argc, argv) == -1)
        return 1;
    if (o.engine) {
        prctl(PR_SET_NAME, "tailnetd-engine");
        isolate_undump(); /* exec made it dumpable again */
        return engine_main(o.timing[0] != '\0' ? o.timing : NULL);
    }
    if (o.admin_fd != -1) {
        if (o.file != NULL || o.client != NULL || o.socket == NULL ||
            o.log == NULL) {
            fail("--admin-fd",
                "goes with --socket and --log, without -c and --client");
            return 1;
        }
        return run_holder(&o);
    }
    if (o.file == NULL) {
        usage(stderr);
        return 1;
    }
    o.file = absolute(o.file, file);
    if (o.file == NULL)
        return 1;
    n = check_file(o.file);
    if (n < 0)
        return 1;
    if (!o.test)
        return run_holder(&o);
    printf("tailnetd: %s is well: %d node%s\n", o.file, n, n == 1 ? "" : "s");
    return 0;
}

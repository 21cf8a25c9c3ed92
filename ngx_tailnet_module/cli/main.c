/*
 * tailnetctl: look into a running tailnetd, make keys, run programs on a
 * node's mesh.
 */
#include "ctl.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *use;
} commands[] = {
    {"status", status_main, "status [NODE]           nodes and peers"},
    {"whois", whois_main, "whois [NODE/]ADDRESS    who has an address"},
    {"ping", ping_main, "ping [NODE/]PEER        is a peer there (-c N)"},
    {"netcheck", netcheck_main,
        "netcheck [NODE]         its network and relays"},
    {"exec", exec_main, "exec NODE -- COMMAND    run a program on the mesh"},
    {"login", login_main, "login [NODE]            join its tailnet (again)"},
    {"logout", logout_main, "logout [NODE]           leave its tailnet"},
    {"rotate", rotate_main, "rotate [NODE]           give it a new node key"},
    {"genkey", genkey_main, "genkey                  a new private key"},
    {"pubkey", pubkey_main,
        "pubkey < PRIVATE        its public key (--base64)"},
};

static int
usage(FILE *to)
{
    size_t i;

    fputs("usage: tailnetctl [--socket PATH] [--json] COMMAND\n", to);
    for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(to, "  %s\n", commands[i].use);
    return to == stdout ? 0 : 2;
}

static bool
is_help(const char *arg)
{
    return arg != NULL &&
           (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0);
}

/* "--json" may follow the command as well, but what "exec" runs is not ours. */
static int
take_json(int argc, char **argv)
{
    int n = 1;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            ctl_json = true;
        else
            argv[n++] = argv[i];
    }
    argv[n] = NULL;
    return n;
}

int
main(int argc, char **argv)
{
    size_t i;
    int at;

    for (at = 1; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--json") == 0)
            ctl_json = true;
        else if (strcmp(argv[at], "--socket") == 0 && at + 1 < argc)
            ctl_socket = argv[++at];
        else
            return usage(is_help(argv[at]) ? stdout : stderr);
    }
    if (at == argc)
        return usage(stderr);
    if (strcmp(argv[at], "help") == 0 || is_help(argv[at + 1]))
        return usage(stdout);
    for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[at], commands[i].name) == 0) {
            argc -= at;
            argv += at;
            if (commands[i].run != exec_main)
                argc = take_json(argc, argv);
            return commands[i].run(argc, argv);
        }
    }
    ctl_warn("unknown command \"%s\"", argv[at]);
    return usage(stderr);
}

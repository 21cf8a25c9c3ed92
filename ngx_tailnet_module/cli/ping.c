#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#define TIMEOUT_MS 3000
#define COUNT_MAX  1000

/* True when the peer answered. */
static bool
ping_once(int fd, struct tn_admin_ping *ask)
{
    char *text;
    json_t *doc = ctl_document(fd, ask, sizeof(*ask), &text);
    const json_t *ms = json_object_get(doc, "ms");
    const char *endpoint = json_string_value(json_object_get(doc, "endpoint"));
    const char *error = json_string_value(json_object_get(doc, "error"));
    const char *addr = json_string_value(json_object_get(doc, "address"));
    bool answered = json_is_number(ms);

    if (ctl_json)
        puts(text);
    else if (answered)
        printf("pong from %s via %s in %.2f ms\n", addr == NULL ? "?" : addr,
            endpoint == NULL ? "?" : endpoint, json_number_value(ms));
    else
        printf("%s: %s\n", addr == NULL ? "?" : addr,
            error == NULL ? "malformed answer" : error);
    fflush(stdout);
    json_decref(doc);
    free(text);
    return answered;
}

int
ping_main(int argc, char **argv)
{
    struct tn_admin_ping ask = {
        .h = {.type = TN_ADMIN_PING}, .timeout_ms = TIMEOUT_MS};
    struct timespec second = {1, 0};
    const char *who;
    char *end = NULL;
    struct tn_snap snap;
    struct tn_peer peer;
    long count = 1, i;
    int fd, at = 1, answers = 0;

    if (argc > 3 && strcmp(argv[1], "-c") == 0) {
        count = strtol(argv[2], &end, 10);
        at = 3;
    }
    if (argc != at + 1 || (end != NULL && *end != '\0') || count < 1 ||
        count > COUNT_MAX) {
        ctl_warn("ping takes [-c N] and [NODE/]PEER, a name or address");
        return 2;
    }
    fd = ctl_connect();
    who = ctl_of_node(fd, argv[at], ask.node);
    if (tn_addr_parse(&ask.addr, who, strlen(who)) != 0) {
        ctl_snapshot(fd, ask.node, &snap);
        if (tn_snap_by_name(&snap, who, strlen(who), &peer, NULL) != 0 ||
            peer.naddrs == 0)
            ctl_die(
                "no peer \"%s\" in the tailnet of node \"%s\"", who, ask.node);
        ask.addr = peer.addrs[0];
    }
    for (i = 0; i < count; i++) {
        if (i > 0)
            nanosleep(&second, NULL);
        answers += ping_once(fd, &ask);
    }
    return answers > 0 ? 0 : 1;
}

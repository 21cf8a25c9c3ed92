#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

static json_t *
string_of(struct tn_str s)
{
    return json_stringn(s.p, s.len);
}

static json_t *
tags_of(const struct tn_peer *p)
{
    const char *at = p->tags.p, *end = at + p->tags.len, *comma;
    json_t *list = json_array();

    for (; at < end; at = comma + 1) {
        comma = memchr(at, ',', (size_t)(end - at));
        if (comma == NULL)
            comma = end;
        json_array_append_new(list, json_stringn(at, (size_t)(comma - at)));
    }
    return list;
}

static json_t *
addresses_of(const struct tn_peer *p)
{
    json_t *list = json_array();
    char buf[TN_ADDR_STRLEN];
    unsigned i;

    for (i = 0; i < p->naddrs; i++) {
        tn_addr_format(&p->addrs[i], buf);
        json_array_append_new(list, json_string(buf));
    }
    return list;
}

static void
print_json(const struct tn_peer *p)
{
    json_t *o = json_object();

    json_object_set_new(o, "node", string_of(p->name));
    json_object_set_new(o, "host", string_of(p->host));
    json_object_set_new(o, "node_id", string_of(p->stable_id));
    json_object_set_new(o, "addresses", addresses_of(p));
    json_object_set_new(o, "user", string_of(p->login));
    json_object_set_new(o, "user_name", string_of(p->user_name));
    json_object_set_new(o, "user_pic", string_of(p->user_pic));
    json_object_set_new(o, "tags", tags_of(p));
    json_object_set_new(
        o, "shared", json_boolean((p->flags & TN_PEER_SHARED) != 0));
    json_object_set_new(
        o, "expired", json_boolean((p->flags & TN_PEER_EXPIRED) != 0));
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

static void
print_row(const char *name, struct tn_str s)
{
    printf("%-11s", name);
    ctl_put(s);
}

static void
print_table(const struct tn_peer *p)
{
    char buf[TN_ADDR_STRLEN];
    unsigned i;

    print_row("node", p->name);
    fputs("\naddresses ", stdout);
    for (i = 0; i < p->naddrs; i++) {
        tn_addr_format(&p->addrs[i], buf);
        printf(" %s", buf);
    }
    putchar('\n');
    if (p->flags & TN_PEER_TAGGED) {
        print_row("tags", p->tags);
        putchar('\n');
    } else if (p->login.len > 0) {
        print_row("user", p->login);
        fputs(" (", stdout);
        ctl_put(p->user_name);
        puts(")");
    }
    if (p->flags & TN_PEER_SHARED)
        printf("shared     from another tailnet\n");
    if (p->flags & TN_PEER_EXPIRED)
        printf("expired    its key has no rights any more\n");
}

int
whois_main(int argc, char **argv)
{
    struct tn_snap snap;
    struct tn_peer peer;
    struct tn_addr addr;
    char node[TN_NODE_NAME_MAX + 1];
    const char *text;
    int fd;

    if (argc != 2) {
        ctl_warn("whois takes one argument: [NODE/]ADDRESS");
        return 2;
    }
    fd = ctl_connect();
    text = ctl_of_node(fd, argv[1], node);
    if (tn_addr_parse(&addr, text, strlen(text)) != 0)
        ctl_die("\"%s\" is no address", text);
    ctl_snapshot(fd, node, &snap);
    if (tn_snap_whois(&snap, &addr, &peer, NULL) != 0)
        ctl_die("nobody has this address in the tailnet of node \"%s\"", node);
    if (ctl_json)
        print_json(&peer);
    else
        print_table(&peer);
    return 0;
}

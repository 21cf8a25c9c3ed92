/*
 * netcheck.c: what the network around a node is like, as its last measurement
 * found it.
 */
#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

static const char *
text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s == NULL ? "" : s;
}

static const char *
yes(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "not known";
}

/* The addresses that servers see of us in one family. */
static void
print_seen(const json_t *network, bool six)
{
    const json_t *e;
    unsigned n = 0;
    size_t i;

    json_array_foreach(json_object_get(network, "endpoints"), i, e)
    {
        const char *at = text_of(e, "at");

        if (strcmp(text_of(e, "type"), "stun") != 0 || (at[0] == '[') != six)
            continue;
        printf("%s%s", n++ == 0 ? "yes, " : ", ", at);
    }
    if (n == 0)
        fputs(six ? yes(network, "ipv6") : "not seen", stdout);
    putchar('\n');
}

static int
by_latency(const void *a, const void *b)
{
    double x = json_number_value(json_object_get(*(json_t *const *)a, "ms"));
    double y = json_number_value(json_object_get(*(json_t *const *)b, "ms"));

    return (x > y) - (x < y);
}

static void
print_latencies(const json_t *network)
{
    json_int_t home = json_integer_value(json_object_get(network, "home"));
    const json_t *list = json_object_get(network, "latencies");
    size_t n = json_array_size(list), i;
    json_t **rows = calloc(n + 1, sizeof(*rows));
    bool there = false;

    if (rows == NULL)
        ctl_die("out of memory");
    for (i = 0; i < n; i++)
        rows[i] = json_array_get(list, i);
    qsort(rows, n, sizeof(*rows), by_latency);
    for (i = 0; i < n; i++) {
        json_int_t region = json_integer_value(
            json_object_get(rows[i], "region"));
        bool six = json_is_true(json_object_get(rows[i], "ipv6"));

        there = there || region == home;
        printf("    %4lld  %-8s %-24s %9.1f ms%s%s\n", (long long)region,
            text_of(rows[i], "code"), text_of(rows[i], "name"),
            json_number_value(json_object_get(rows[i], "ms")),
            six ? "  IPv6" : "", region == home ? "  home" : "");
    }
    if (home != 0 && !there)
        printf("    %4lld  home, no answer\n", (long long)home);
    else if (n == 0)
        puts("    no answers");
    free(rows);
}

static void
print_node(const json_t *node)
{
    const json_t *network = json_object_get(node, "network"), *o;
    size_t i;

    printf("%s:\n", text_of(node, "name"));
    if (network == NULL) {
        puts("  nothing is measured: it has no relays");
        return;
    }
    printf("  UDP:             %s\n", yes(network, "udp"));
    fputs("  IPv4:            ", stdout);
    print_seen(network, false);
    fputs("  IPv6:            ", stdout);
    print_seen(network, true);
    printf("  mapping varies:  %s\n", yes(network, "mapping_varies"));
    printf("  relay latency%s:\n",
        json_is_false(json_object_get(network, "udp")) ? " (HTTPS)" : "");
    print_latencies(network);
    json_array_foreach(json_object_get(network, "relays"), i, o)
    {
        const char *why = text_of(o, "error"), *health = text_of(o, "health");

        printf("  relay %lld:         %s%s%s%s%s\n",
            (long long)json_integer_value(json_object_get(o, "region")),
            text_of(o, "state"), why[0] == '\0' ? "" : ": ", why,
            health[0] == '\0' ? "" : ": ", health);
    }
}

/* Of the whole status only what this command is about. */
static void
print_json(const json_t *nodes)
{
    json_t *doc = json_object(), *list = json_array(), *node, *o, *network;
    char *text;
    size_t i;

    json_array_foreach(nodes, i, node)
    {
        network = json_object_get(node, "network");
        o = json_object();
        json_object_set(o, "name", json_object_get(node, "name"));
        json_object_set(o, "network", network);
        if (network == NULL)
            json_object_set_new(o, "network", json_null());
        json_array_append_new(list, o);
    }
    json_object_set_new(doc, "nodes", list);
    text = json_dumps(doc, JSON_COMPACT);
    json_decref(doc);
    if (text == NULL)
        ctl_die("out of memory");
    puts(text);
    free(text);
}

int
netcheck_main(int argc, char **argv)
{
    json_t *doc, *nodes, *node;
    char *text;
    size_t i;

    doc = ctl_status(argc, argv, &text);
    if (doc == NULL)
        return 2;
    free(text);
    nodes = json_object_get(doc, "nodes");
    if (ctl_json)
        print_json(nodes);
    else
        json_array_foreach(nodes, i, node) print_node(node);
    json_decref(doc);
    return 0;
}

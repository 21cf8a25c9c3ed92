#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

static const char *
text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s == NULL ? "" : s;
}

/* "user" or "tag:a,tag:b" */
static void
identity_of(const json_t *peer, char *buf, size_t size)
{
    const json_t *tags = json_object_get(peer, "tags");
    size_t i, n = 0;

    snprintf(buf, size, "%s", text_of(peer, "user"));
    for (i = 0; i < json_array_size(tags) && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%s", i == 0 ? "" : ",",
            json_string_value(json_array_get(tags, i)));
}

static const char *
first_address(const json_t *peer)
{
    const char *s = json_string_value(
        json_array_get(json_object_get(peer, "addresses"), 0));

    return s == NULL ? "-" : s;
}

static void
bytes_of(const json_t *peer, const char *key, char buf[16])
{
    static const char units[] = "BKMGTP";
    double n = (double)json_integer_value(json_object_get(peer, key));
    size_t u = 0;

    while (n >= 1000 && u < sizeof(units) - 2) {
        n /= 1000;
        u++;
    }
    snprintf(buf, 16, u == 0 ? "%.0f%c" : "%.1f%c", n, units[u]);
}

/* The last handshake, and what the next one waits for. */
static void
handshake_of(const json_t *peer, char *buf, size_t size)
{
    const json_t *ago = json_object_get(peer, "handshake_ms_ago");
    json_int_t tries = json_integer_value(
        json_object_get(peer, "handshake_tries"));
    int n;

    if (json_is_true(json_object_get(peer, "key_expired"))) {
        snprintf(buf, size, "its key has expired");
        return;
    }
    if (json_is_integer(ago))
        n = snprintf(
            buf, size, "%.0f s ago", (double)json_integer_value(ago) / 1000);
    else
        n = snprintf(buf, size, "never");
    if (tries > 1) /* the first one may still be answered */
        snprintf(buf + n, size - (size_t)n,
            ", %" JSON_INTEGER_FORMAT " tries without an answer", tries);
}

static void
print_peer(const json_t *peer)
{
    char who[256], rx[16], tx[16], seen[80];
    const char *endpoint = text_of(peer, "endpoint");

    identity_of(peer, who, sizeof(who));
    bytes_of(peer, "rx_bytes", rx);
    bytes_of(peer, "tx_bytes", tx);
    handshake_of(peer, seen, sizeof(seen));
    printf("  %-16s %-28s %-26s %-22s %8s %8s  %s\n", first_address(peer),
        text_of(peer, "name"), who, endpoint[0] == '\0' ? "-" : endpoint, rx,
        tx, seen);
}

static void
print_notice(const json_t *notice)
{
    const char *severity = text_of(notice, "severity");

    printf("  the control server says%s%s%s: %s\n",
        severity[0] == '\0' ? "" : " (", severity,
        severity[0] == '\0' ? "" : ")", text_of(notice, "words"));
}

static void
print_node(const json_t *node)
{
    const json_t *self = json_object_get(node, "self"), *peer, *notice;
    const char *error = text_of(node, "error");
    size_t i;

    printf("%s: %s%s%s\n", text_of(node, "name"), text_of(node, "state"),
        error[0] == '\0' ? "" : ": ", error);
    if (self != NULL)
        printf("  %-16s %s (this node)\n", first_address(self),
            text_of(self, "name"));
    json_array_foreach(
        json_object_get(json_object_get(node, "control"), "notices"), i, notice)
        print_notice(notice);
    json_array_foreach(json_object_get(node, "peers"), i, peer)
        print_peer(peer);
}

int
status_main(int argc, char **argv)
{
    json_t *doc, *node;
    char *text;
    size_t i;

    doc = ctl_status(argc, argv, &text);
    if (doc == NULL)
        return 2;
    if (ctl_json)
        puts(text);
    else
        json_array_foreach(json_object_get(doc, "nodes"), i, node)
            print_node(node);
    json_decref(doc);
    free(text);
    return 0;
}

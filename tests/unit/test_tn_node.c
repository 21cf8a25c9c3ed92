/* links: core/tn_node.c core/tn_addr.c */
/*
 * test_tn_node.c: the node table's options, checks, reader and writer.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/core/tn_node.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct tn_node nodes[TN_NODES_MAX];
static char err[TN_ERR_MAX];
static unsigned line;

/* Parses text without a NUL behind it. */
static int
parse(const char *text, size_t len, const char *prefix)
{
    char *copy = malloc(len == 0 ? 1 : len);
    int n;

    assert_non_null(copy);
    memcpy(copy, text, len);
    err[0] = '\0';
    line = 0;
    n = tn_node_parse(copy, len, prefix, nodes, COUNT(nodes), err, &line);
    free(copy);
    return n;
}

static void
names(void **state)
{
    static const struct {
        const char *name;
        bool ok;
    } table[] = {
        {"web", true},
        {"0", true},
        {"a-b--c", true},
        {"a23456789012345678901234567890123456789012345678901234567890123",
            true},
        {"a234567890123456789012345678901234567890123456789012345678901234",
            false},
        {"", false},
        {"-a", false},
        {"a-", false},
        {"-", false},
        {"Web", false},
        {"a_b", false},
        {"a.b", false},
        {"a b", false},
        {"\xc3\xa4", false},
    };
    struct tn_node n;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        size_t len = strlen(table[i].name);

        assert_int_equal(
            tn_node_init(&n, table[i].name, len, err), table[i].ok ? 0 : -1);
        assert_int_equal(tn_node_name_valid(table[i].name, len), table[i].ok);
        if (table[i].ok) {
            assert_string_equal(n.name, table[i].name);
            assert_int_equal(n.mtu, TN_MTU_DEFAULT);
            assert_int_equal(n.port, 0);
        } else {
            assert_non_null(strstr(err, "bad node name"));
        }
    }
}

static void
options(void **state)
{
    static const struct {
        const char *argv[4];
        size_t argc;
        const char *says; /* NULL: good */
    } table[] = {
        {{"netmap", "/a b/\"c\""}, 2, NULL},
        {{"netmap", "rel"}, 2, NULL},
        {{"netmap", "file:/x"}, 2, NULL},
        {{"private_key", "/k"}, 2, NULL},
        {{"private_key", "file:/k"}, 2, NULL},
        {{"private_key", "file:k"}, 2, NULL},
        {{"private_key", "./a:b"}, 2, NULL},
        {{"preshared_keys", "/p"}, 2, NULL},
        {{"port", "0"}, 2, NULL},
        {{"port", "65535"}, 2, NULL},
        {{"mtu", "1280"}, 2, NULL},
        {{"mtu", "9000"}, 2, NULL},
        {{"foo", "x"}, 2, "unknown option \"foo\" in tailnet_node \"web\""},
        {{"Netmap", "x"}, 2, "unknown option \"Netmap\""},
        {{"", "x"}, 2, "unknown option \"\""},
        {{NULL}, 0, "unknown option \"\""},
        {{"netmap"}, 1, "\"netmap\": one value expected, got 0"},
        {{"port", "1", "2"}, 3, "\"port\": one value expected, got 2"},
        {{"netmap", ""}, 2, "\"netmap\": a path expected, got \"\""},
        {{"private_key", "file:"}, 2,
            "\"private_key\": a path expected, got \"\""},
        {{"private_key", "exec:pass"}, 2,
            "\"private_key\": \"file:PATH\" or a path expected, "
            "got \"exec:...\""},
        {{"private_key", "privkey:secret"}, 2,
            "\"private_key\": a path "
            "expected, got a key: put it into a file that only its owner can "
            "read"},
        {{"private_key", "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="}, 2,
            "got a key"},
        {{"preshared_keys", "file:yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3f"}, 2,
            NULL},
        {{"preshared_keys", "00112233445566778899aabbccddeeff001122334455667788"
                            "99AABBCCDDEEFF"},
            2, "\"preshared_keys\": a path expected, got a key"},
        {{"netmap", "/a\nb"}, 2, "\"netmap\": a control character in \"/a?b\""},
        {{"netmap", "/a\x7f"}, 2, "\"netmap\": a control character"},
        {{"port", "x"}, 2,
            "\"port\": a number from 0 to 65535 expected, got \"x\""},
        {{"port", ""}, 2, "a number from 0 to 65535 expected, got \"\""},
        {{"port", "-1"}, 2, "a number from 0 to 65535 expected"},
        {{"port", "+1"}, 2, "a number from 0 to 65535 expected"},
        {{"port", " 1"}, 2, "a number from 0 to 65535 expected"},
        {{"port", "1 "}, 2, "a number from 0 to 65535 expected"},
        {{"port", "0x1"}, 2, "a number from 0 to 65535 expected"},
        {{"port", "65536"}, 2, "a number from 0 to 65535 expected"},
        {{"port", "18446744073709551617"}, 2, "a number from 0 to 65535"},
        {{"mtu", "1279"}, 2,
            "\"mtu\": a number from 1280 to 9000 expected, got \"1279\""},
        {{"mtu", "9001"}, 2, "a number from 1280 to 9000 expected"},
    };
    struct tn_node n, before;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        int want = table[i].says == NULL ? 0 : -1;

        assert_int_equal(tn_node_init(&n, "web", 3, err), 0);
        before = n;
        err[0] = '\0';
        if (tn_node_set(&n, table[i].argv, table[i].argc, "/pre/", err) !=
            want) {
            fail_msg("case %zu says \"%s\"", i, err);
        }
        if (want == -1) {
            assert_memory_equal(&n, &before, sizeof n);
            if (strstr(err, table[i].says) == NULL) {
                fail_msg("case %zu says \"%s\"", i, err);
            }
            continue;
        }
        assert_int_equal(
            tn_node_set(&n, table[i].argv, table[i].argc, "/pre/", err), -1);
        assert_non_null(strstr(err, "\" is given twice"));
    }
}

/* A second value is refused even when the first was the default. */
static void
twice(void **state)
{
    const char *const port[] = {"port", "0"}, *const mtu[] = {"mtu", "1280"};
    struct tn_node n;

    (void)state;
    assert_int_equal(tn_node_init(&n, "web", 3, err), 0);
    assert_int_equal(tn_node_set(&n, port, 2, "", err), 0);
    assert_int_equal(tn_node_set(&n, mtu, 2, "", err), 0);
    assert_int_equal(tn_node_set(&n, port, 2, "", err), -1);
    assert_string_equal(err, "\"port\" is given twice");
    assert_int_equal(tn_node_set(&n, mtu, 2, "", err), -1);
    assert_string_equal(err, "\"mtu\" is given twice");
}

static void
paths(void **state)
{
    char longest[TN_NODE_PATH_MAX + 2];
    const char *argv[] = {"private_key", "file:dir/k"};
    const char *too_long[] = {"netmap", longest};
    struct tn_node n;

    (void)state;
    assert_int_equal(tn_node_init(&n, "web", 3, err), 0);
    assert_int_equal(tn_node_set(&n, argv, 2, "", err), -1);
    assert_string_equal(
        err, "\"private_key\": an absolute path expected, got \"dir/k\"");
    assert_int_equal(tn_node_set(&n, argv, 2, "rel/", err), -1);
    assert_int_equal(tn_node_set(&n, argv, 2, "/etc/", err), 0);
    assert_string_equal(n.private_key, "/etc/dir/k");

    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[TN_NODE_PATH_MAX + 1] = '\0';
    assert_int_equal(tn_node_set(&n, too_long, 2, "/", err), -1);
    assert_non_null(strstr(err, "\"netmap\": path is longer than 1023 bytes"));
    longest[TN_NODE_PATH_MAX] = '\0';
    assert_int_equal(tn_node_set(&n, too_long, 2, "/", err), 0);
    assert_string_equal(n.netmap, longest);

    assert_int_equal(tn_node_init(&n, "web", 3, err), 0);
    longest[0] = 'x';
    assert_int_equal(tn_node_set(&n, too_long, 2, "/", err), -1);
    too_long[1] = longest + 1;
    assert_int_equal(tn_node_set(&n, too_long, 2, "/", err), 0);
    assert_int_equal(strlen(n.netmap), TN_NODE_PATH_MAX);
    assert_int_equal(n.netmap[0], '/');
}

#define KEYS " netmap /n; private_key /k; "

static void
text_good(void **state)
{
    static const struct {
        const char *text;
        int n;
        const char *netmap, *key; /* of the last node */
    } table[] = {
        {"", 0, NULL, NULL},
        {" \t\r\n# only a comment", 0, NULL, NULL},
        {"tailnet_node web {" KEYS "}", 1, "/n", "/k"},
        {"tailnet_node web{netmap /n;private_key /k;}", 1, "/n", "/k"},
        {"tailnet_node \"web\" {\n  # c { ; }\n" KEYS "# \"\n}\n", 1, "/n",
            "/k"},
        {"tailnet_node a {" KEYS "} tailnet_node b { netmap n; private_key "
         "file:k2; }",
            2, "/p/n", "/p/k2"},
        {"tailnet_node web { netmap \"/a b;{}#\"; private_key '/\"k\"'; }", 1,
            "/a b;{}#", "/\"k\""},
        {"tailnet_node web { netmap \"/a\\\"b\\\\c\\d\"; private_key /k\\ x; }",
            1, "/a\"b\\c\\d", "/k\\ x"},
        {"tailnet_node web { netmap /a#b}c\"d'; private_key /${x}/$y; }", 1,
            "/a#b}c\"d'", "/${x}/$y"},
        {"tailnet_node web { netmap /n\n;\nprivate_key\n\n/k; port 7; }", 1,
            "/n", "/k"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        if (parse(table[i].text, strlen(table[i].text), "/p/") != table[i].n) {
            fail_msg("case %zu: line %u: %s", i, line, err);
        }
        if (table[i].n > 0) {
            assert_string_equal(nodes[table[i].n - 1].netmap, table[i].netmap);
            assert_string_equal(
                nodes[table[i].n - 1].private_key, table[i].key);
        }
    }
}

static void
text_bad(void **state)
{
    static const struct {
        const char *text;
        unsigned line;
        const char *says;
    } table[] = {
        {";", 1, "unexpected \";\""},
        {"\n{", 2, "unexpected \"{\""},
        {"\n\n}", 3, "unexpected \"}\""},
        {"server {", 1, "\"tailnet_node\" expected, got \"server\""},
        {"x", 1, "unexpected end of the text"},
        {"tailnet_node web;", 1, "one name and a block expected"},
        {"tailnet_node {", 1, "one name and a block expected"},
        {"\ntailnet_node\na\nb\n{", 2, "one name and a block expected"},
        {"tailnet_node Web {}", 1, "bad node name \"Web\""},
        {"tailnet_node \"a\nb\" {}", 1, "bad node name \"a?b\""},
        {"tailnet_node web {\n", 2, "\"}\" of tailnet_node \"web\" expected"},
        {"tailnet_node web {\nnetmap /n\n}", 3, "unexpected \"}\""},
        {"tailnet_node web {\nnetmap /n", 2, "unexpected end of the text"},
        {"tailnet_node web {\nnetmap {\n}}", 2,
            "\"netmap\" in tailnet_node \"web\" has no block"},
        {"tailnet_node web {" KEYS "\n\nfoo x;\n}", 3,
            "unknown option \"foo\" in tailnet_node \"web\""},
        {"tailnet_node web {\nport\n\n\"x\"\n;\n}", 2,
            "\"port\": a number from 0 to 65535 expected, got \"x\""},
        {"tailnet_node web {\nnetmap /n;\nnetmap /n;\n}", 3,
            "\"netmap\" is given twice"},
        {"tailnet_node web {\nnetmap \"/n\n\n", 2, "a quote is not closed"},
        {"tailnet_node web {\nnetmap '/n\\';\n", 2, "a quote is not closed"},
        {"tailnet_node web {\nnetmap \"/n\"x;", 2,
            "unexpected \"x\" behind a quote"},
        {"tailnet_node web {\nnetmap \"/a\\nb\";", 2, "a control character"},
        {"tailnet_node web {\ntags 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 "
         "3"
         " 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 "
         "8"
         " 9 0 1 2 3 4 5 6;",
            2, "more than 66 words"},
        {"tailnet_node a {\ncontrol_url http://c;\n}", 1,
            "tailnet_node \"a\" has no \"state\", which only an \"ephemeral\" "
            "node can do without"},
        {"tailnet_node a {\nstate /s;\npreshared_keys /p;\n}", 1,
            "tailnet_node \"a\" has \"preshared_keys\", which is for nodes "
            "with a \"netmap\""},
        {"tailnet_node a {" KEYS "hostname h;}", 1,
            "tailnet_node \"a\" has \"hostname\", which is for nodes without "
            "a \"netmap\""},
        {"tailnet_node a {" KEYS "accept_routes on;}", 1,
            "tailnet_node \"a\" has \"accept_routes\", which is for nodes "
            "without a \"netmap\""},
        {"tailnet_node a {state /s;}\ntailnet_node b {state /s;}", 2,
            "tailnet_node \"b\" has the \"state\" of tailnet_node \"a\""},
        {"tailnet_node a {\n}\ntailnet_node b {" KEYS "}", 1,
            "tailnet_node \"a\" has neither a \"netmap\" nor the \"state\" of "
            "a node that joins a tailnet"},
        {"tailnet_node a {" KEYS "}\ntailnet_node b {\nnetmap /n;\n}", 2,
            "tailnet_node \"b\" has no \"private_key\""},
        {"tailnet_node a {" KEYS "}\n\ntailnet_node a {" KEYS "}", 3,
            "tailnet_node \"a\" is there twice"},
        {"tailnet_node a {" KEYS "}\ntailnet_node b {" KEYS "}", 2,
            "tailnet_node \"b\" has the \"private_key\" of "
            "tailnet_node \"a\""},
        {"tailnet_node a {" KEYS "port 7;}\n"
         "tailnet_node b {netmap /n; private_key /2; port 7;}",
            2, "tailnet_node \"b\" has the \"port\" 7 of tailnet_node \"a\""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        assert_int_equal(parse(table[i].text, strlen(table[i].text), ""), -1);
        if (strstr(err, table[i].says) == NULL || line != table[i].line) {
            fail_msg("case %zu: line %u: %s", i, line, err);
        }
    }
}

/* Options of nodes that join by a control server. */
static void
joining(void **state)
{
    static const struct {
        const char *argv[4];
        size_t argc;
        const char *says; /* NULL: good */
    } table[] = {
        {{"control_url", "https://c.example.com"}, 2, NULL},
        {{"control_url", "http://[::1]:8080/x"}, 2, NULL},
        {{"control_url", "c.example.com"}, 2, "a URL of http or https"},
        {{"control_url", "https://"}, 2, "a URL of http or https"},
        {{"control_url", "https://a b"}, 2, "a character that no URL has"},
        {{"auth_key", "file:/k"}, 2, NULL},
        {{"auth_key", "file:k"}, 2, NULL},
        {{"auth_key", "env:TS_AUTHKEY"}, 2, NULL},
        {{"auth_key", "credential:ts"}, 2, NULL},
        {{"auth_key", "exec:pass ts/web"}, 2, NULL},
        {{"auth_key", "env:"}, 2, "\"env:\" and a variable's name expected"},
        {{"auth_key", "env:a=b"}, 2, "a variable's name expected"},
        {{"auth_key", "credential:a/b"}, 2, "\"credential:\" and its name"},
        {{"auth_key", "exec:"}, 2, "\"exec:\" and a command"},
        {{"auth_key", "tskey-auth-secret"}, 2, "a key itself does not belong"},
        {{"state", "/s"}, 2, NULL},
        {{"state", ""}, 2, "a path expected"},
        {{"hostname", "web-1"}, 2, NULL},
        {{"hostname", "Web"}, 2, "inner \"-\" expected, got \"Web\""},
        {{"tags", "tag:a", "tag:B-2"}, 3, NULL},
        {{"tags"}, 1, "\"tags\": at least one value expected, got 0"},
        {{"tags", "web"}, 2, "\"tag:\" and a name"},
        {{"tags", "tag:1a"}, 2, "\"tag:\" and a name"},
        {{"tags", "tag:"}, 2, "\"tag:\" and a name"},
        {{"ephemeral", "on"}, 2, NULL},
        {{"ephemeral", "yes"}, 2, "\"on\" or \"off\" expected"},
        {{"accept_routes", "off"}, 2, NULL},
        {{"advertise_routes", "10.0.0.0/8", "fd00::/64"}, 3, NULL},
        {{"advertise_routes", "10.0.0.1/8"}, 2, "a prefix without host bits"},
        {{"exit_node", "vps-1"}, 2, NULL},
        {{"exit_node", ""}, 2, "a peer's name or address expected"},
        {{"control_ca", "ca.pem"}, 2, NULL},
        {{"control_ca", ""}, 2, "a path expected"},
        {{"endpoints", "192.0.2.1:41641", "[2001:db8::1]:5"}, 3, NULL},
        {{"endpoints", "192.0.2.1"}, 2, "ADDRESS:PORT expected"},
        {{"endpoints", "host:5"}, 2, "ADDRESS:PORT expected"},
        {{"capability_version", "131"}, 2, NULL},
        {{"capability_version", "67"}, 2, "a number from 68 to 65535"},
    };
    struct tn_node n;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        int rc;

        assert_int_equal(tn_node_init(&n, "web", 3, err), 0);
        err[0] = '\0';
        rc = tn_node_set(&n, table[i].argv, table[i].argc, "/p/", err);
        if (rc != (table[i].says == NULL ? 0 : -1) ||
            (rc != 0 && strstr(err, table[i].says) == NULL)) {
            fail_msg("case %zu: %s", i, err);
        }
        assert_null(strstr(err, "secret"));
    }
}

static void
joining_round_trip(void **state)
{
    static const char text[] =
        "tailnet_node web { control_url https://c; auth_key file:k; state st;"
        " hostname h; tags tag:a tag:b; ephemeral on; accept_routes on;"
        " advertise_routes 10.0.0.0/8 fd00::/64; exit_node vps;"
        " control_ca ca; endpoints 192.0.2.1:5 [2001:db8::1]:6;"
        " capability_version 140; port 5; }\n"
        "tailnet_node lab { ephemeral on; }";
    char buf[4096];
    struct tn_node first;
    size_t len;

    (void)state;
    assert_int_equal(parse(text, sizeof text - 1, "/p/"), 2);
    assert_true(tn_node_joins(&nodes[0]));
    assert_string_equal(nodes[0].auth_key, "file:/p/k");
    assert_string_equal(nodes[0].state, "/p/st");
    assert_string_equal(nodes[0].tags, "tag:a tag:b");
    assert_string_equal(nodes[0].routes, "10.0.0.0/8 fd00::/64");
    assert_string_equal(nodes[0].control_ca, "/p/ca");
    assert_string_equal(nodes[0].endpoints, "192.0.2.1:5 [2001:db8::1]:6");
    assert_string_equal(tn_node_hostname(&nodes[0]), "h");
    assert_int_equal(nodes[0].capability, 140);
    assert_string_equal(tn_node_hostname(&nodes[1]), "lab");
    assert_string_equal(tn_node_control_url(&nodes[1]), TN_CONTROL_URL);
    first = nodes[0];
    len = tn_node_write(nodes, 2, buf, sizeof buf);
    assert_int_not_equal(len, 0);
    assert_int_equal(parse(buf, len, ""), 2);
    /* What was said is the same, whatever was said about the defaults. */
    first.given = nodes[0].given;
    assert_memory_equal(&first, &nodes[0], sizeof first);
}

/* Two nodes may share port 0 and a netmap. */
static void
port_zero(void **state)
{
    static const char text[] =
        "tailnet_node a {" KEYS "port 0;}\n"
        "tailnet_node b {netmap /n; private_key /2; port 0;}";

    (void)state;
    assert_int_equal(parse(text, sizeof text - 1, ""), 2);
}

static void
limits(void **state)
{
    static char text[TN_TABLE_MAX + 1];
    static const char nul[] = "tailnet_node a {\n\0}";
    size_t len = 0;

    (void)state;
    for (int i = 0; i <= TN_NODES_MAX; i++) {
        if (i == TN_NODES_MAX) {
            assert_int_equal(parse(text, len, ""), TN_NODES_MAX);
        }
        len += (size_t)snprintf(text + len, sizeof text - len,
            "tailnet_node n%d { netmap /n; private_key /k%d; }\n", i, i);
    }
    assert_int_equal(parse(text, len, ""), -1);
    assert_string_equal(err, "more than 64 nodes");
    assert_int_equal(line, TN_NODES_MAX + 1);

    len = (size_t)snprintf(text, sizeof text, "tailnet_node a {" KEYS "}");
    memset(text + len, ' ', sizeof text - len);
    assert_int_equal(parse(text, sizeof text, ""), -1);
    assert_string_equal(err, "the table is longer than 65536 bytes");
    assert_int_equal(parse(text, sizeof text - 1, ""), 1);

    len = (size_t)snprintf(text, sizeof text, "\ntailnet_node a { netmap ");
    memset(text + len, 'x', 5000);
    assert_int_equal(parse(text, len + 5000, ""), -1);
    assert_string_equal(err, "a statement is longer than 4096 bytes");
    assert_int_equal(line, 2);

    assert_int_equal(parse(nul, sizeof nul - 1, ""), -1);
    assert_non_null(strstr(err, "NUL"));
}

/* Any bytes end in an answer; what parses is written and parses again. */
static void
round_trip(void **state)
{
    static char text[TN_TABLE_MAX];
    static struct tn_node first[4];
    uint32_t seed = 20261120;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        size_t len;

        memset(first, 0, sizeof first);
        for (size_t i = 0; i < COUNT(first); i++) {
            struct tn_node *n = &first[i];
            char *path[] = {n->netmap, n->private_key, n->preshared_keys};

            snprintf(n->name, sizeof n->name, "n%zu", i);
            n->mtu = (uint16_t)(TN_MTU_MIN + round % 100);
            n->port = (uint16_t)(i * 100 + 1);
            for (size_t j = 0; j < COUNT(path); j++) {
                size_t plen = 2 + (seed >> 8) % 40;

                path[j][0] = '/';
                path[j][1] = (char)('a' + i);
                for (size_t k = 2; k < plen; k++) {
                    static const char odd[] = "\"'\\{};# $n\xff\x80\xc3";

                    seed = seed * 1664525 + 1013904223;
                    path[j][k] = (seed >> 9) % 3 == 0
                                     ? (char)(' ' + (seed >> 16) % 95)
                                     : odd[(seed >> 16) % (sizeof odd - 1)];
                }
            }
        }
        len = tn_node_write(first, COUNT(first), text, sizeof text);
        assert_true(len > 0);
        if (parse(text, len, "") != (int)COUNT(first)) {
            fail_msg("line %u: %s in:\n%.*s", line, err, (int)len, text);
        }
        for (size_t i = 0; i < COUNT(first); i++) {
            assert_string_equal(nodes[i].name, first[i].name);
            assert_string_equal(nodes[i].netmap, first[i].netmap);
            assert_string_equal(nodes[i].private_key, first[i].private_key);
            assert_string_equal(
                nodes[i].preshared_keys, first[i].preshared_keys);
            assert_int_equal(nodes[i].port, first[i].port);
            assert_int_equal(nodes[i].mtu, first[i].mtu);
        }
    }
}

static void
write_bounds(void **state)
{
    static const char text[] = "tailnet_node web {" KEYS "port 41641; }";
    static const char want[] =
        "tailnet_node web {\n    netmap \"/n\";\n    private_key \"/k\";\n"
        "    port \"41641\";\n    mtu \"1280\";\n}\n";
    char out[256];
    size_t len;

    (void)state;
    assert_int_equal(parse(text, sizeof text - 1, ""), 1);
    len = tn_node_write(nodes, 1, out, sizeof out);
    assert_int_equal(len, sizeof want - 1);
    assert_memory_equal(out, want, len);
    for (size_t size = 0; size < len; size++) {
        char *small = malloc(size == 0 ? 1 : size);

        assert_non_null(small);
        assert_int_equal(tn_node_write(nodes, 1, small, size), 0);
        free(small);
    }
    assert_int_equal(tn_node_write(nodes, 1, out, len), len);

    assert_int_equal(tn_node_write(nodes, 0, out, sizeof out), 1);
    assert_int_equal(parse(out, 1, ""), 0);
    assert_int_equal(tn_node_write(nodes, 0, out, 0), 0);
}

/* Every prefix of a table and random changes of it end in an answer. */
static void
any_bytes(void **state)
{
    static const char good[] =
        "# c\ntailnet_node web {\n netmap \"/a\\\"b\"; private_key 'x';\n"
        " port 1; mtu 1400; preshared_keys file;\n}\n"
        "tailnet_node b { netmap ${y}; private_key \\k; }\n";
    char text[sizeof good];
    uint32_t seed = 1;

    (void)state;
    assert_int_equal(parse(good, sizeof good - 1, "/p/"), 2);
    for (size_t len = 0; len < sizeof good; len++) {
        parse(good, len, "/p/");
    }
    for (int i = 0; i < 50000; i++) {
        memcpy(text, good, sizeof good);
        for (int j = 0; j < 3; j++) {
            seed = seed * 1664525 + 1013904223;
            text[(seed >> 16) % (sizeof good - 1)] = (char)(seed >> 8);
        }
        if (parse(text, sizeof good - 1, "/p/") < 0) {
            assert_true(err[0] != '\0');
            assert_in_range(line, 1, 200);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(options),
        cmocka_unit_test(twice),
        cmocka_unit_test(paths),
        cmocka_unit_test(text_good),
        cmocka_unit_test(text_bad),
        cmocka_unit_test(joining),
        cmocka_unit_test(joining_round_trip),
        cmocka_unit_test(port_zero),
        cmocka_unit_test(limits),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(write_bounds),
        cmocka_unit_test(any_bytes),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

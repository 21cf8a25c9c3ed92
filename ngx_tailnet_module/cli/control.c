/*
 * control.c: login, logout and rotate, for nodes that join by a control server.
 */
#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#define LOOK_MS  200
#define WAIT_MS  20000 /* for the server, where no person is waited for */
#define STATE(s) (strcmp(state, (s)) == 0)

/* How a node is joined, after ${what} was asked for. */
struct answer {
    char state[32], words[512], url[2048];
};

static void
copy(char *to, size_t size, const json_t *doc, const char *key)
{
    const char *s = json_string_value(json_object_get(doc, key));

    snprintf(to, size, "%s", s == NULL ? "" : s);
}

static void
ask(int fd, const char node[static TN_NODE_NAME_MAX + 1],
    enum tn_admin_what what, struct answer *a)
{
    struct tn_admin_control m = {.h = {.type = TN_ADMIN_CONTROL}, .what = what};
    const char *error;
    char *text;
    json_t *doc;

    strcpy(m.node, node);
    doc = ctl_document(fd, &m, sizeof(m), &text);
    error = json_string_value(json_object_get(doc, "error"));
    if (doc == NULL || error != NULL)
        ctl_die("node \"%s\": %s", node,
            error == NULL ? "malformed answer" : error);
    copy(a->state, sizeof(a->state), doc, "state");
    copy(a->words, sizeof(a->words), doc, "words");
    copy(a->url, sizeof(a->url), doc, "auth_url");
    json_decref(doc);
    free(text);
}

static void
show_json(const char *node, const struct answer *a)
{
    json_t *o = json_object();
    char *text;

    json_object_set_new(o, "node", json_string(node));
    json_object_set_new(o, "state", json_string(a->state));
    json_object_set_new(o, "words", json_string(a->words));
    if (a->url[0] != '\0')
        json_object_set_new(o, "login_url", json_string(a->url));
    text = json_dumps(o, JSON_COMPACT);
    if (text != NULL)
        puts(text);
    free(text);
    json_decref(o);
}

static void
show(const char *node, const struct answer *a)
{
    if (ctl_json)
        show_json(node, a);
    else
        printf("%s: %s%s%s\n", node, a->state, a->words[0] == '\0' ? "" : ": ",
            a->words);
}

static void
show_url(const char *node, const struct answer *a)
{
    if (ctl_json)
        show_json(node, a);
    else
        printf("to log node \"%s\" in, open\n\n    %s\n\n", node, a->url);
    fflush(stdout);
}

/* Is the command's end reached?  1: well, -1: not, 0: not yet. */
static int
over(enum tn_admin_what what, const char *state)
{
    if (what == TN_CONTROL_LOGOUT)
        return STATE("stopped");
    if (STATE("running"))
        return 1;
    return STATE("refused") || STATE("wants-approval") ? -1 : 0;
}

static int
command(int argc, char **argv, enum tn_admin_what what)
{
    struct timespec look = {0, LOOK_MS * 1000000};
    struct answer a = {.url = ""};
    char shown[sizeof(a.url)] = "", node[TN_NODE_NAME_MAX + 1];
    int fd, end, waited = 0;

    if (argc > 2) {
        ctl_warn("%s takes at most one argument: NODE", argv[0]);
        return 2;
    }
    fd = ctl_connect();
    ctl_node(fd, argc == 2 ? argv[1] : NULL, node);
    ask(fd, node, what, &a);
    for (;;) {
        nanosleep(&look, NULL);
        ask(fd, node, TN_CONTROL_SHOW, &a);
        end = over(what, a.state);
        if (end != 0)
            break;
        if (a.url[0] != '\0' && strcmp(a.url, shown) != 0) {
            show_url(node, &a);
            memcpy(shown, a.url, sizeof(shown));
        }
        waited = a.url[0] != '\0' ? 0 : waited + LOOK_MS;
        if (waited >= WAIT_MS)
            break;
    }
    show(node, &a);
    return end == 1 ? 0 : 1;
}

int
login_main(int argc, char **argv)
{
    return command(argc, argv, TN_CONTROL_LOGIN);
}

int
logout_main(int argc, char **argv)
{
    return command(argc, argv, TN_CONTROL_LOGOUT);
}

int
rotate_main(int argc, char **argv)
{
    return command(argc, argv, TN_CONTROL_ROTATE);
}

/*
 * tn_node.c: the node table, one grammar for nginx.conf and "tailnetd -c".
 *
 * Three layers, one after the other below: the options (a static table says
 * for each its name and the setter that knows its values), the whole table's
 * checks, and its text.  The reader of the text has nginx's rules for words:
 *
 *   - words end at white space, ";" or "{"; "}" and "#" are special only where
 *     a word could begin; a comment reaches to the line's end;
 *   - a word that begins with a quote ends at the next one of its kind, and
 *     white space, ";" or "{" must follow;
 *   - a backslash keeps the next character from being special; \" \' \\ stand
 *     for the second character, \t \r \n for that control character, and
 *     before anything else the backslash stays;
 *   - the "{" of "${" belongs to its word.
 */
#include "tn_node.h"

#include "tn_addr.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORDS_MAX     66   /* of one statement */
#define STATEMENT_MAX 4096 /* bytes of its words, each with a NUL */
#define SHOWN_MAX     80   /* bytes of a word that a message repeats */

/* A word of the user's as a message may show it: cut, controls as "?". */
struct shown {
    char text[SHOWN_MAX + 4];
};

static bool
is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

static struct shown
show(const char *s)
{
    struct shown out;
    size_t n;

    for (n = 0; s[n] != '\0' && n < SHOWN_MAX; n++) {
        out.text[n] = is_control(s[n]) ? '?' : s[n];
    }
    memcpy(out.text + n, s[n] == '\0' ? "\0\0\0" : "...", 4);
    return out;
}

/* The sentence ${fmt} into ${err}; always -1, for "return fail(…)". */
__attribute__((format(printf, 2, 3))) static int
fail(char err[TN_ERR_MAX], const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, TN_ERR_MAX, fmt, ap);
    va_end(ap);
    return -1;
}

bool
tn_node_name_valid(const char *name, size_t len)
{
    if (len == 0 || len > TN_NODE_NAME_MAX || name[0] == '-' ||
        name[len - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!(name[i] >= 'a' && name[i] <= 'z') &&
            !(name[i] >= '0' && name[i] <= '9') && name[i] != '-') {
            return false;
        }
    }
    return true;
}

int
tn_node_init(
    struct tn_node *n, const char *name, size_t len, char err[TN_ERR_MAX])
{
    if (!tn_node_name_valid(name, len)) {
        char text[SHOWN_MAX + 2];
        size_t some = len < sizeof text - 1 ? len : sizeof text - 1;

        memcpy(text, name, some);
        text[some] = '\0';
        return fail(err,
            "bad node name \"%s\": up to %d of a-z, 0-9 and inner \"-\" "
            "expected",
            show(text).text, TN_NODE_NAME_MAX);
    }
    memset(n, 0, sizeof *n);
    memcpy(n->name, name, len);
    n->mtu = TN_MTU_DEFAULT;
    return 0;
}

/* Options. */

struct option {
    const char *name;
    int (*set)(const struct option *o, void *field, const char *value,
        const char *prefix, char err[TN_ERR_MAX]);
    size_t offset;     /* of the field in struct tn_node */
    unsigned min, max; /* of a number */
};

/* ${value} as an absolute path of at most TN_NODE_PATH_MAX bytes. */
static int
set_path(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    size_t len = strlen(value), plen = 0;
    char *path = field;

    if (len == 0) {
        return fail(err, "\"%s\": a path expected, got \"\"", o->name);
    }
    for (size_t i = 0; i < len; i++) {
        if (is_control(value[i])) {
            return fail(err, "\"%s\": a control character in \"%s\"", o->name,
                show(value).text);
        }
    }
    if (value[0] != '/') {
        if (prefix[0] != '/') {
            return fail(err, "\"%s\": an absolute path expected, got \"%s\"",
                o->name, show(value).text);
        }
        plen = strlen(prefix);
    }
    if (plen > TN_NODE_PATH_MAX || len > TN_NODE_PATH_MAX - plen) {
        return fail(err, "\"%s\": path is longer than %d bytes: \"%s\"",
            o->name, TN_NODE_PATH_MAX, show(value).text);
    }
    memcpy(path, prefix, plen);
    memcpy(path + plen, value, len + 1);
    return 0;
}

/* True for what can only be a key: with its prefix, in base64, or in hex. */
static bool
is_key(const char *value)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklm"
                                 "nopqrstuvwxyz0123456789+/";
    size_t len = strlen(value);

    return strncmp(value, "privkey:", 8) == 0 ||
           strncmp(value, "nodekey:", 8) == 0 ||
           (len == 64 && strspn(value, hex) == len) ||
           (len == 44 && strspn(value, base64) == 43 && value[43] == '=');
}

/* The path of a file with keys; what may be a secret is in no message. */
static int
set_secret(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    if (is_key(value)) {
        return fail(err,
            "\"%s\": a path expected, got a key: put it into a file that "
            "only its owner can read",
            o->name);
    }
    return set_path(o, field, value, prefix, err);
}

/* The same, or a scheme of lower-case letters with a ":" before it. */
static int
set_source(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    size_t scheme = strspn(value, "abcdefghijklmnopqrstuvwxyz");

    if (scheme != 0 && value[scheme] == ':' && !is_key(value)) {
        if (strncmp(value, "file:", 5) != 0) {
            return fail(err,
                "\"%s\": \"file:PATH\" or a path expected, got "
                "\"%.*s:...\"",
                o->name, (int)(scheme < SHOWN_MAX ? scheme : SHOWN_MAX), value);
        }
        value += scheme + 1;
    }
    return set_secret(o, field, value, prefix, err);
}

static int
set_number(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    size_t digits = strspn(value, "0123456789");
    unsigned v = 0;
    uint16_t out;

    (void)prefix;
    for (size_t i = 0; i < digits && v <= o->max; i++) {
        v = v * 10 + (unsigned)(value[i] - '0');
    }
    if (digits == 0 || value[digits] != '\0' || v < o->min || v > o->max) {
        return fail(err, "\"%s\": a number from %u to %u expected, got \"%s\"",
            o->name, o->min, o->max, show(value).text);
    }
    out = (uint16_t)v;
    memcpy(field, &out, sizeof out);
    return 0;
}

/* A URL; its host is the control client's to understand. */
static int
set_url(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    const char *host = NULL;

    (void)prefix;
    if (strncmp(value, "https://", 8) == 0) {
        host = value + 8;
    } else if (strncmp(value, "http://", 7) == 0) {
        host = value + 7;
    }
    if (host == NULL || host[strcspn(host, "/@?#")] == '@' || *host == '\0' ||
        *host == '/') {
        return fail(err, "\"%s\": a URL of http or https expected, got \"%s\"",
            o->name, show(value).text);
    }
    for (size_t i = 0; value[i] != '\0'; i++) {
        if (value[i] <= ' ' || (unsigned char)value[i] >= 0x7f) {
            return fail(err, "\"%s\": a character that no URL has in \"%s\"",
                o->name, show(value).text);
        }
    }
    if (strlen(value) > TN_NODE_URL_MAX) {
        return fail(
            err, "\"%s\": longer than %d bytes", o->name, TN_NODE_URL_MAX);
    }
    strcpy(field, value);
    return 0;
}

/* Where an auth key comes from; never the key, which no message shows. */
static int
set_auth_key(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    static const char *const schemes[] = {
        "file:", "env:", "credential:", "exec:"};
    char *text = field;
    size_t i, n;

    for (i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        n = strlen(schemes[i]);
        if (strncmp(value, schemes[i], n) != 0) {
            continue;
        }
        if (i == 0) {
            char path[TN_NODE_PATH_MAX + 1];

            if (set_path(o, path, value + n, prefix, err) != 0) {
                return -1;
            }
            if (strlen(path) + n > TN_NODE_PATH_MAX) {
                return fail(err, "\"%s\": path is longer than %zu bytes",
                    o->name, TN_NODE_PATH_MAX - n);
            }
            memcpy(text, schemes[i], n);
            strcpy(text + n, path);
            return 0;
        }
        if (value[n] == '\0' || strlen(value) > TN_NODE_PATH_MAX ||
            (i < 3 && (strpbrk(value + n, "/= \t") != NULL))) {
            return fail(err, "\"%s\": %s", o->name,
                i == 1   ? "\"env:\" and a variable's name expected"
                : i == 2 ? "\"credential:\" and its name expected"
                         : "\"exec:\" and a command of at most 1000 bytes "
                           "expected");
        }
        strcpy(text, value);
        return 0;
    }
    return fail(err,
        "\"%s\": \"file:PATH\", \"env:NAME\", \"credential:NAME\" or "
        "\"exec:COMMAND\" expected; a key itself does not belong here",
        o->name);
}

static int
set_hostname(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    (void)prefix;
    if (!tn_node_name_valid(value, strlen(value))) {
        return fail(err,
            "\"%s\": up to %d of a-z, 0-9 and inner \"-\" expected, got "
            "\"%s\"",
            o->name, TN_NODE_NAME_MAX, show(value).text);
    }
    strcpy(field, value);
    return 0;
}

static int
set_flag(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    bool on = strcmp(value, "on") == 0;

    (void)prefix;
    if (!on && strcmp(value, "off") != 0) {
        return fail(err, "\"%s\": \"on\" or \"off\" expected, got \"%s\"",
            o->name, show(value).text);
    }
    memcpy(field, &on, sizeof on);
    return 0;
}

/* One more of a list whose members have spaces between them. */
static int
add_item(
    const struct option *o, char *list, const char *value, char err[TN_ERR_MAX])
{
    size_t len = strlen(list), more = strlen(value);

    if (len + more + 1 > TN_NODE_TAGS_MAX) {
        return fail(
            err, "\"%s\": longer than %d bytes", o->name, TN_NODE_TAGS_MAX);
    }
    if (len > 0) {
        list[len++] = ' ';
    }
    memcpy(list + len, value, more + 1);
    return 0;
}

/* "tag:", a letter, then letters, digits and "-". */
static int
add_tag(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    static const char inner[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
    const char *name = value + 4;

    (void)prefix;
    if (strncmp(value, "tag:", 4) != 0 || *name == '\0' || *name == '-' ||
        (*name >= '0' && *name <= '9') || name[strspn(name, inner)] != '\0') {
        return fail(err,
            "\"%s\": \"tag:\" and a name of letters, digits and \"-\" "
            "expected, got \"%s\"",
            o->name, show(value).text);
    }
    return add_item(o, field, value, err);
}

static int
add_route(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    struct tn_prefix p;

    (void)prefix;
    if (tn_prefix_parse(&p, value, strlen(value)) != 0) {
        return fail(err,
            "\"%s\": a prefix without host bits expected, got \"%s\"", o->name,
            show(value).text);
    }
    return add_item(o, field, value, err);
}

static int
add_endpoint(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    unsigned n = *(const char *)field != '\0';
    struct tn_endpoint e;

    (void)prefix;
    if (tn_endpoint_parse(&e, value, strlen(value)) != 0) {
        return fail(err,
            "\"%s\": ADDRESS:PORT expected, as in 192.0.2.1:41641 or "
            "[2001:db8::1]:41641, got \"%s\"",
            o->name, show(value).text);
    }
    for (const char *s = field; *s != '\0'; s++) {
        n += *s == ' ';
    }
    if (n == TN_NODE_ENDPOINTS_MAX) {
        return fail(
            err, "\"%s\": more than %d", o->name, TN_NODE_ENDPOINTS_MAX);
    }
    return add_item(o, field, value, err);
}

static int
set_peer(const struct option *o, void *field, const char *value,
    const char *prefix, char err[TN_ERR_MAX])
{
    size_t len = strlen(value);

    (void)prefix;
    for (size_t i = 0; i < len; i++) {
        if (value[i] <= ' ' || (unsigned char)value[i] >= 0x7f) {
            len = 0;
        }
    }
    if (len == 0 || len > TN_NODE_URL_MAX) {
        return fail(err,
            "\"%s\": a peer's name or address expected, got "
            "\"%s\"",
            o->name, show(value).text);
    }
    strcpy(field, value);
    return 0;
}

static const struct option options[] = {
    {"netmap", set_path, offsetof(struct tn_node, netmap), 0, 0},
    {"private_key", set_source, offsetof(struct tn_node, private_key), 0, 0},
    {"preshared_keys", set_secret, offsetof(struct tn_node, preshared_keys), 0,
        0},
    {"port", set_number, offsetof(struct tn_node, port), 0, 65535},
    {"mtu", set_number, offsetof(struct tn_node, mtu), TN_MTU_MIN, TN_MTU_MAX},
    {"control_url", set_url, offsetof(struct tn_node, control_url), 0, 0},
    {"auth_key", set_auth_key, offsetof(struct tn_node, auth_key), 0, 0},
    {"state", set_path, offsetof(struct tn_node, state), 0, 0},
    {"hostname", set_hostname, offsetof(struct tn_node, hostname), 0, 0},
    {"tags", add_tag, offsetof(struct tn_node, tags), 0, 0},
    {"ephemeral", set_flag, offsetof(struct tn_node, ephemeral), 0, 0},
    {"accept_routes", set_flag, offsetof(struct tn_node, accept_routes), 0, 0},
    {"advertise_routes", add_route, offsetof(struct tn_node, routes), 0, 0},
    {"exit_node", set_peer, offsetof(struct tn_node, exit_node), 0, 0},
    {"control_ca", set_path, offsetof(struct tn_node, control_ca), 0, 0},
    {"endpoints", add_endpoint, offsetof(struct tn_node, endpoints), 0, 0},
    {"capability_version", set_number, offsetof(struct tn_node, capability),
        TN_CAPABILITY_MIN, UINT16_MAX},
};

#define NOPTIONS (sizeof options / sizeof options[0])

_Static_assert(NOPTIONS <= 32, "tn_node.given has a bit for each");

/* May it have more values than one? */
static bool
is_list(const struct option *o)
{
    return o->set == add_tag || o->set == add_route || o->set == add_endpoint;
}

int
tn_node_set(struct tn_node *n, const char *const argv[], size_t argc,
    const char *prefix, char err[TN_ERR_MAX])
{
    const struct option *o = NULL;
    uint32_t bit = 0;

    for (size_t i = 0; argc > 0 && i < NOPTIONS; i++) {
        if (strcmp(argv[0], options[i].name) == 0) {
            o = &options[i];
            bit = UINT32_C(1) << i;
        }
    }
    if (o == NULL) {
        return fail(err, "unknown option \"%s\" in tailnet_node \"%s\"",
            argc > 0 ? show(argv[0]).text : "", n->name);
    }
    if (argc != 2 && (argc < 2 || !is_list(o))) {
        return fail(err, "\"%s\": %s value expected, got %zu", o->name,
            is_list(o) ? "at least one" : "one", argc - 1);
    }
    if ((n->given & bit) != 0) {
        return fail(err, "\"%s\" is given twice", o->name);
    }
    for (size_t i = 1; i < argc; i++) {
        if (o->set(o, (char *)n + o->offset, argv[i], prefix, err) != 0) {
            return -1;
        }
    }
    n->given |= bit;
    return 0;
}

/* The whole table. */

bool
tn_node_joins(const struct tn_node *n)
{
    return n->netmap[0] == '\0' && n->private_key[0] == '\0' &&
           (n->control_url[0] != '\0' || n->auth_key[0] != '\0' ||
               n->state[0] != '\0' || n->ephemeral);
}

const char *
tn_node_control_url(const struct tn_node *n)
{
    return n->control_url[0] != '\0' ? n->control_url : TN_CONTROL_URL;
}

const char *
tn_node_hostname(const struct tn_node *n)
{
    return n->hostname[0] != '\0' ? n->hostname : n->name;
}

/* The first option of the other kind than ${a} is, or NULL. */
static const char *
stray(const struct tn_node *a)
{
    static const size_t joining[] = {offsetof(struct tn_node, control_url),
        offsetof(struct tn_node, auth_key), offsetof(struct tn_node, state),
        offsetof(struct tn_node, hostname), offsetof(struct tn_node, tags),
        offsetof(struct tn_node, routes), offsetof(struct tn_node, exit_node),
        offsetof(struct tn_node, control_ca),
        offsetof(struct tn_node, endpoints)};

    if (tn_node_joins(a)) {
        return a->preshared_keys[0] != '\0' ? "preshared_keys" : NULL;
    }
    for (size_t i = 0; i < sizeof joining / sizeof joining[0]; i++) {
        for (size_t j = 0; j < NOPTIONS; j++) {
            if (options[j].offset == joining[i] &&
                ((const char *)a)[joining[i]] != '\0') {
                return options[j].name;
            }
        }
    }
    return a->ephemeral       ? "ephemeral"
           : a->accept_routes ? "accept_routes"
                              : NULL;
}

/* What one node lacks, or has too much. */
static int
check_one(const struct tn_node *a, char err[TN_ERR_MAX])
{
    const char *other = stray(a);

    if (tn_node_joins(a)) {
        if (a->state[0] == '\0' && !a->ephemeral) {
            return fail(err,
                "tailnet_node \"%s\" has no \"state\", which only an "
                "\"ephemeral\" node can do without",
                a->name);
        }
        return other == NULL
                   ? 0
                   : fail(err,
                         "tailnet_node \"%s\" has \"%s\", which is for nodes "
                         "with a \"netmap\"",
                         a->name, other);
    }
    if (a->netmap[0] == '\0' && a->private_key[0] == '\0') {
        return fail(err,
            "tailnet_node \"%s\" has neither a \"netmap\" nor the \"state\" of "
            "a node that joins a tailnet",
            a->name);
    }
    if (a->netmap[0] == '\0' || a->private_key[0] == '\0') {
        return fail(err, "tailnet_node \"%s\" has no \"%s\"", a->name,
            a->netmap[0] == '\0' ? "netmap" : "private_key");
    }
    return other == NULL
               ? 0
               : fail(err,
                     "tailnet_node \"%s\" has \"%s\", which is for nodes "
                     "without a \"netmap\"",
                     a->name, other);
}

/* What ${a} may not share with ${b}, which was there before. */
static int
check_two(
    const struct tn_node *a, const struct tn_node *b, char err[TN_ERR_MAX])
{
    if (strcmp(a->name, b->name) == 0) {
        return fail(err, "tailnet_node \"%s\" is there twice", a->name);
    }
    if (a->private_key[0] != '\0' &&
        strcmp(a->private_key, b->private_key) == 0) {
        return fail(err,
            "tailnet_node \"%s\" has the \"private_key\" of "
            "tailnet_node \"%s\"",
            a->name, b->name);
    }
    if (a->state[0] != '\0' && strcmp(a->state, b->state) == 0) {
        return fail(err,
            "tailnet_node \"%s\" has the \"state\" of tailnet_node \"%s\"",
            a->name, b->name);
    }
    if (a->port != 0 && a->port == b->port) {
        return fail(err,
            "tailnet_node \"%s\" has the \"port\" %u of "
            "tailnet_node \"%s\"",
            a->name, a->port, b->name);
    }
    return 0;
}

int
tn_node_check(const struct tn_node *nodes, size_t n, char err[TN_ERR_MAX])
{
    for (size_t i = 0; i < n; i++) {
        if (check_one(&nodes[i], err) != 0) {
            return (int)i;
        }
        for (size_t j = 0; j < i; j++) {
            if (check_two(&nodes[i], &nodes[j], err) != 0) {
                return (int)i;
            }
        }
    }
    return -1;
}

/* Its text. */

enum ending {
    END_ERROR,
    END_SEMICOLON,
    END_OPEN,
    END_CLOSE,
    END_TEXT,
};

/* One reader of one text, and the statement it read last. */
struct reader {
    const char *p, *end;
    unsigned line;
    char *err;

    const char *word[WORDS_MAX];
    size_t nwords;
    unsigned first_line; /* of the statement */
    char buf[STATEMENT_MAX];
    size_t used;
};

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The next byte, taken, with the lines counted; the caller saw that there is
 * one. */
static char
take(struct reader *r)
{
    if (*r->p == '\n') {
        r->line++;
    }
    return *r->p++;
}

static void
skip_blanks(struct reader *r)
{
    while (r->p < r->end) {
        if (*r->p == '#') {
            while (r->p < r->end && *r->p != '\n') {
                r->p++;
            }
        } else if (is_space(*r->p)) {
            take(r);
        } else {
            return;
        }
    }
}

static int
append(struct reader *r, char c)
{
    if (r->used == sizeof r->buf) {
        return fail(
            r->err, "a statement is longer than %d bytes", STATEMENT_MAX);
    }
    r->buf[r->used++] = c;
    return 0;
}

/* What stands behind a backslash, which was taken. */
static int
escape(struct reader *r)
{
    static const char from[] = "\"'\\trn", to[] = "\"'\\\t\r\n";
    const char *at;
    char c;

    if (r->p == r->end) {
        return append(r, '\\');
    }
    c = take(r);
    at = c == '\0' ? NULL : strchr(from, c);
    if (at != NULL) {
        return append(r, to[at - from]);
    }
    if (append(r, '\\') != 0) {
        return -1;
    }
    return append(r, c);
}

/* A word in ${quote}s, the first of which was taken. */
static int
read_quoted(struct reader *r, char quote)
{
    unsigned opened = r->line;
    char c;

    while (r->p < r->end) {
        c = take(r);
        if (c == quote) {
            if (r->p < r->end && !is_space(*r->p) && *r->p != ';' &&
                *r->p != '{') {
                char what[2] = {*r->p, '\0'};

                return fail(r->err, "unexpected \"%s\" behind a quote",
                    show(what).text);
            }
            return 0;
        }
        if ((c == '\\' ? escape(r) : append(r, c)) != 0) {
            return -1;
        }
    }
    r->line = opened;
    return fail(r->err, "a quote is not closed");
}

static int
read_plain(struct reader *r)
{
    bool dollar = false;
    char c;

    while (r->p < r->end) {
        c = *r->p;
        if (is_space(c) || c == ';' || (c == '{' && !dollar)) {
            return 0;
        }
        dollar = c == '$';
        take(r);
        if ((c == '\\' ? escape(r) : append(r, c)) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
read_word(struct reader *r)
{
    char c = *r->p;
    int rc;

    if (r->nwords == WORDS_MAX) {
        return fail(r->err, "a statement has more than %d words", WORDS_MAX);
    }
    if (r->nwords == 0) {
        r->first_line = r->line;
    }
    r->word[r->nwords++] = r->buf + r->used;
    if (c == '"' || c == '\'') {
        take(r);
        rc = read_quoted(r, c);
    } else {
        rc = read_plain(r);
    }
    return rc == 0 ? append(r, '\0') : -1;
}

/* The words up to the next ";", "{", "}" or the end of the text. */
static enum ending
read_statement(struct reader *r)
{
    r->nwords = 0;
    r->used = 0;
    for (;;) {
        skip_blanks(r);
        if (r->nwords == 0) {
            r->first_line = r->line;
        }
        if (r->p == r->end) {
            if (r->nwords > 0) {
                fail(r->err, "unexpected end of the text, \";\" or \"{\" "
                             "expected");
                return END_ERROR;
            }
            return END_TEXT;
        }
        if (*r->p == ';' || *r->p == '{' || *r->p == '}') {
            char c = take(r);

            if ((c == '}') != (r->nwords == 0)) {
                fail(r->err, "unexpected \"%c\"", c);
                return END_ERROR;
            }
            return c == ';' ? END_SEMICOLON : c == '{' ? END_OPEN : END_CLOSE;
        }
        if (read_word(r) != 0) {
            return END_ERROR;
        }
    }
}

/* The options of ${n}, up to the block's end. */
static int
read_block(struct reader *r, struct tn_node *n, const char *prefix)
{
    for (;;) {
        switch (read_statement(r)) {
        case END_ERROR:
            return -1;
        case END_CLOSE:
            return 0;
        case END_TEXT:
            return fail(r->err,
                "unexpected end of the text, \"}\" of tailnet_node \"%s\" "
                "expected",
                n->name);
        case END_OPEN:
            return fail(r->err, "\"%s\" in tailnet_node \"%s\" has no block",
                show(r->word[0]).text, n->name);
        case END_SEMICOLON:
            if (tn_node_set(n, r->word, r->nwords, prefix, r->err) != 0) {
                r->line = r->first_line;
                return -1;
            }
        }
    }
}

/* The statement that was read must be the head of a node's block. */
static int
read_head(struct reader *r, enum ending how, struct tn_node *n)
{
    r->line = r->first_line;
    if (how == END_CLOSE) {
        return fail(r->err, "unexpected \"}\"");
    }
    if (strcmp(r->word[0], "tailnet_node") != 0) {
        return fail(r->err, "\"tailnet_node\" expected, got \"%s\"",
            show(r->word[0]).text);
    }
    if (r->nwords != 2 || how != END_OPEN) {
        return fail(r->err, "\"tailnet_node\": one name and a block expected");
    }
    return tn_node_init(n, r->word[1], strlen(r->word[1]), r->err);
}

int
tn_node_parse(const char *text, size_t len, const char *prefix,
    struct tn_node *nodes, size_t max, char err[TN_ERR_MAX], unsigned *line)
{
    struct reader r = {.p = text, .end = text + len, .line = 1, .err = err};
    unsigned lines[TN_NODES_MAX];
    enum ending how;
    size_t n = 0;
    int bad;

    *line = 1;
    if (len > TN_TABLE_MAX) {
        return fail(err, "the table is longer than %d bytes", TN_TABLE_MAX);
    }
    if (max > TN_NODES_MAX) {
        max = TN_NODES_MAX;
    }
    if (len > 0 && memchr(text, '\0', len) != NULL) {
        return fail(err, "the table is no text: it has a NUL byte");
    }
    while ((how = read_statement(&r)) != END_TEXT) {
        if (how == END_ERROR) {
            goto fail;
        }
        if (n == max) {
            r.line = r.first_line;
            fail(err, "more than %zu nodes", max);
            goto fail;
        }
        lines[n] = r.first_line;
        if (read_head(&r, how, &nodes[n]) != 0 ||
            read_block(&r, &nodes[n], prefix) != 0) {
            goto fail;
        }
        n++;
    }
    bad = tn_node_check(nodes, n, err);
    if (bad >= 0) {
        *line = lines[bad];
        return -1;
    }
    return (int)n;

fail:
    *line = r.line;
    return -1;
}

/* Where the writer is; a text that does not fit is counted no further. */
struct writer {
    char *buf;
    size_t size, used;
    bool full;
};

static void
put(struct writer *w, const char *s, size_t len)
{
    if (w->full || len > w->size - w->used) {
        w->full = true;
        return;
    }
    memcpy(w->buf + w->used, s, len);
    w->used += len;
}

static void
put_text(struct writer *w, const char *s)
{
    put(w, s, strlen(s));
}

/* ${value} in quotes, in which only the quote itself and the backslash are
 * special. */
static void
put_quoted(struct writer *w, const char *value, size_t len)
{
    put_text(w, " \"");
    for (; len > 0; len--, value++) {
        if (*value == '"' || *value == '\\') {
            put_text(w, "\\");
        }
        put(w, value, 1);
    }
    put_text(w, "\"");
}

/* An option with its value, or values. */
static void
put_option(struct writer *w, const struct option *o, const char *value)
{
    size_t n;

    put_text(w, "    ");
    put_text(w, o->name);
    do {
        n = is_list(o) ? strcspn(value, " ") : strlen(value);
        put_quoted(w, value, n);
        value += n;
        value += strspn(value, " ");
    } while (*value != '\0');
    put_text(w, ";\n");
}

size_t
tn_node_write(const struct tn_node *nodes, size_t n, char *buf, size_t size)
{
    struct writer w = {.buf = buf, .size = size};

    if (n == 0) {
        put_text(&w, "\n");
    }
    for (size_t i = 0; i < n; i++) {
        put_text(&w, "tailnet_node ");
        put_text(&w, nodes[i].name);
        put_text(&w, " {\n");
        for (size_t j = 0; j < NOPTIONS; j++) {
            const void *field = (const char *)&nodes[i] + options[j].offset;
            const char *value = field;
            uint16_t v;
            char number[8];

            if (options[j].set == set_number) {
                memcpy(&v, field, sizeof v);
                snprintf(number, sizeof number, "%u", v);
                value = v < options[j].min ? "" : number; /* not given */
            } else if (options[j].set == set_flag) {
                value = *(const bool *)field ? "on" : "";
            }
            if (value[0] != '\0') {
                put_option(&w, &options[j], value);
            }
        }
        put_text(&w, "}\n");
    }
    return w.full ? 0 : w.used;
}

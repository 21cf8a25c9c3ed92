#include "message_oauth.h"

#include <ctype.h>
#include <jansson.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../hex.h"

#define OPTION_MAX 2048
#define WORDS_MAX  160 /* bytes of a server's words */

bool
message_oauth_is(const char *text, size_t len)
{
    size_t n = strlen(MESSAGE_OAUTH_PREFIX);

    return len > n && memcmp(text, MESSAGE_OAUTH_PREFIX, n) == 0;
}

/* ---- the secret's options ---- */

/* A piece of a query, decoded; -1: malformed, or too long. */
static int
decode(char out[OPTION_MAX], const char *s, size_t len)
{
    size_t i, n = 0;

    for (i = 0; i < len && n < OPTION_MAX - 1; i++) {
        char c = s[i] == '+' ? ' ' : s[i];

        if (c == ';')
            return -1;
        if (c == '%') {
            if (len - i < 3 || hex_digit(s[i + 1]) < 0 ||
                hex_digit(s[i + 2]) < 0)
                return -1;
            c = (char)(hex_digit(s[i + 1]) << 4 | hex_digit(s[i + 2]));
            i += 2;
        }
        if (c == '\0')
            return -1;
        out[n++] = c;
    }
    out[n] = '\0';
    return i == len ? 0 : -1;
}

static int
take_flag(bool *flag, const char *name, const char *value,
    char err[MESSAGE_ERROR_MAX])
{
    static const char *const words[] = {"0", "f", "F", "FALSE", "false",
        "False", "1", "t", "T", "TRUE", "true", "True"};
    size_t i;

    if (*value == '\0')
        return 0;
    for (i = 0; i < 12; i++)
        if (strcmp(value, words[i]) == 0) {
            *flag = i >= 6;
            return 0;
        }
    snprintf(err, MESSAGE_ERROR_MAX,
        "its option \"%s\" is neither \"true\" nor \"false\"", name);
    return -1;
}

static int
take_base(
    struct message_oauth *o, const char *value, char err[MESSAGE_ERROR_MAX])
{
    size_t len = strlen(value);
    struct url u;

    if (len == 0)
        return 0;
    while (len > 0 && value[len - 1] == '/')
        len--;
    if (len > URL_PATH_MAX - 64 || strpbrk(value, "?#") != NULL ||
        url_parse(&u, value) != 0) {
        snprintf(err, MESSAGE_ERROR_MAX,
            "its option \"baseURL\" is not a URL of http or https");
        return -1;
    }
    if (!u.tls && !url_is_private(&u)) {
        snprintf(err, MESSAGE_ERROR_MAX,
            "its option \"baseURL\" would send the secret unencrypted to "
            "%.100s: https expected",
            u.host);
        return -1;
    }
    memcpy(o->base, value, len);
    o->base[len] = '\0';
    return 0;
}

static int
take_option(struct message_oauth *o, const char *s, size_t len, unsigned *given,
    char err[MESSAGE_ERROR_MAX])
{
    static const char *const names[] = {
        "ephemeral", "preauthorized", "baseURL"};
    const char *equal = memchr(s, '=', len);
    size_t n = equal == NULL ? len : (size_t)(equal - s);
    char name[OPTION_MAX], value[OPTION_MAX];
    unsigned i;

    value[0] = '\0';
    if (decode(name, s, n) != 0 ||
        (equal != NULL && decode(value, equal + 1, len - n - 1) != 0)) {
        snprintf(err, MESSAGE_ERROR_MAX,
            "what follows its \"?\" is not a list of options");
        return -1;
    }
    for (i = 0; i < 3 && strcmp(name, names[i]) != 0; i++)
        ;
    if (i == 3) {
        char shown[MESSAGE_SHOWN_MAX];

        message_show(shown, name, strlen(name));
        snprintf(err, MESSAGE_ERROR_MAX,
            "unknown option \"%.40s\": \"ephemeral\", \"preauthorized\" or "
            "\"baseURL\" expected",
            shown);
        return -1;
    }
    if (*given & 1u << i) /* of two, the first counts */
        return 0;
    *given |= 1u << i;
    return i == 2   ? take_base(o, value, err)
           : i == 1 ? take_flag(&o->preauthorized, name, value, err)
                    : take_flag(&o->ephemeral, name, value, err);
}

int
message_oauth_parse(
    struct message_oauth *o, const char *text, char err[MESSAGE_ERROR_MAX])
{
    size_t len = strcspn(text, "?"), n;
    unsigned given = 0;

    memset(o, 0, sizeof(*o));
    o->ephemeral = true;
    strcpy(o->base, MESSAGE_OAUTH_URL);
    if (len > MESSAGE_OAUTH_SECRET_MAX) {
        snprintf(err, MESSAGE_ERROR_MAX, "it is longer than %d bytes",
            MESSAGE_OAUTH_SECRET_MAX);
        return -1;
    }
    memcpy(o->secret, text, len);
    for (text += len + (text[len] == '?'); *text != '\0';
         text += n + (text[n] == '&')) {
        n = strcspn(text, "&");
        if (n > 0 && take_option(o, text, n, &given, err) != 0)
            return -1;
    }
    return 0;
}

/* ---- requests ---- */

/* As a form has it; ${out} has room for three times ${len}. */
static size_t
encode(char *out, const char *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];

        if (isalnum(c) || strchr("-._~", c) != NULL)
            out[n++] = (char)c;
        else
            n += (size_t)sprintf(out + n, "%%%02X", c);
    }
    return n;
}

char *
message_oauth_token(const struct message_oauth *o, size_t *len)
{
    static const char head[] = "grant_type=client_credentials&client_id=",
                      middle[] = "&client_secret=";
    const char *id = o->secret + strlen(MESSAGE_OAUTH_PREFIX);
    size_t secret = strlen(o->secret), n = sizeof(head) - 1;
    char *text = malloc(sizeof(head) + sizeof(middle) + 6 * secret);

    if (text == NULL)
        return NULL;
    memcpy(text, head, n);
    n += encode(text + n, id, strcspn(id, "-"));
    memcpy(text + n, middle, sizeof(middle) - 1);
    n += sizeof(middle) - 1;
    n += encode(text + n, o->secret, secret);
    text[n] = '\0';
    *len = n;
    return text;
}

char *
message_oauth_key(const struct message_oauth *o, const char *const *tags,
    size_t ntags, size_t *len)
{
    json_t *list = json_array(), *root;
    char *text;

    for (size_t i = 0; i < ntags; i++)
        if (json_array_append_new(list, json_string(tags[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    root = json_pack("{s:{s:{s:{s:b,s:b,s:b,s:o}}},s:i}", "capabilities",
        "devices", "create", "reusable", 0, "ephemeral", o->ephemeral,
        "preauthorized", o->preauthorized, "tags", list, "expirySeconds",
        MESSAGE_OAUTH_EXPIRY_S);
    text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text != NULL)
        *len = strlen(text);
    return text;
}

/* ---- answers ---- */

static void
wipe_free(void *p)
{
    if (p != NULL)
        explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

/* An answer's object whose bytes are wiped when drop() is called; NULL: it is
 * none. */
static json_t *
load(const char *text, size_t len, json_malloc_t *m, json_free_t *f)
{
    json_t *root;

    json_get_alloc_funcs(m, f);
    json_set_alloc_funcs(malloc, wipe_free);
    root = json_loadb(text == NULL ? "" : text, len, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

static void
drop(json_t *root, json_malloc_t m, json_free_t f)
{
    json_decref(root);
    json_set_alloc_funcs(m, f);
}

int
message_oauth_answer(const char *text, size_t len, const char *name,
    char out[MESSAGE_OAUTH_SECRET_MAX + 1], char err[MESSAGE_ERROR_MAX])
{
    json_malloc_t m;
    json_free_t f;
    json_t *root = load(text, len, &m, &f), *v = json_object_get(root, name);
    const char *s = json_string_value(v);
    size_t n = json_string_length(v), i = 0;

    if (s != NULL && n <= MESSAGE_OAUTH_SECRET_MAX)
        for (; i < n && s[i] > ' ' && s[i] < 0x7f; i++)
            out[i] = s[i];
    if (i == 0 || i < n) {
        snprintf(err, MESSAGE_ERROR_MAX,
            root == NULL ? "the answer is no JSON object"
                         : "the answer has no usable \"%s\"",
            name);
        i = 0;
    }
    out[i] = '\0';
    drop(root, m, f);
    return i > 0 ? 0 : -1;
}

void
message_oauth_words(const char *text, size_t len, char out[MESSAGE_ERROR_MAX])
{
    static const char *const names[] = {
        "message", "error_description", "error"};
    char shown[MESSAGE_SHOWN_MAX] = "";
    json_malloc_t m;
    json_free_t f;
    json_t *root = load(text, len, &m, &f), *v;

    for (size_t i = 0; i < 3 && shown[0] == '\0'; i++) {
        v = json_object_get(root, names[i]);
        if (json_is_string(v))
            message_show(shown, json_string_value(v), json_string_length(v));
    }
    if (root == NULL)
        message_show(shown, text == NULL ? "" : text, len);
    drop(root, m, f);
    snprintf(out, MESSAGE_ERROR_MAX, "%.*s", WORDS_MAX, shown);
}

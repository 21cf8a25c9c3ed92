/*
 * Requests are written by hand: they hold auth keys, and what jansson frees is
 * not wiped.
 */
#include "message.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "../engine/keytext.h"

#define RETRY_MAX   3600
#define IPN_VERSION "1.92.0-nginx-tailnet"

/* ---- writing ---- */

struct text {
    char *b;
    size_t len, size;
    bool failed;
};

static void
put(struct text *t, const char *s, size_t len)
{
    size_t size = t->size < 1024 ? 1024 : t->size;
    char *b;

    while (size < t->len + len + 1)
        size *= 2;
    if (!t->failed && size > t->size) {
        b = malloc(size); /* not realloc(): the old bytes are wiped */
        if (b == NULL) {
            t->failed = true;
        } else {
            if (t->len > 0)
                memcpy(b, t->b, t->len);
            message_free(t->b, t->len);
            t->b = b;
            t->size = size;
        }
    }
    if (t->failed)
        return;
    memcpy(t->b + t->len, s, len);
    t->len += len;
    t->b[t->len] = '\0';
}

__attribute__((format(printf, 2, 3))) static void
putf(struct text *t, const char *fmt, ...)
{
    char buf[512];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    put(t, buf, (size_t)n);
}

static void
put_string(struct text *t, const char *s)
{
    put(t, "\"", 1);
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            putf(t, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            putf(t, "\\u%04x", (unsigned)*s);
        else
            put(t, s, 1);
    }
    put(t, "\"", 1);
}

static void
put_key(
    struct text *t, const char *name, const char *prefix, const uint8_t *key)
{
    putf(t, ",\"%s\":\"%s", name, prefix);
    for (int i = 0; i < 32; i++)
        putf(t, "%02x", key[i]);
    put(t, "\"", 1);
}

static void
put_flag(struct text *t, const char *name, int8_t v)
{
    if (v >= 0)
        putf(t, "\"%s\":%s,", name, v != 0 ? "true" : "false");
}

static void
put_net(struct text *t, const struct message_netinfo *n)
{
    putf(t, ",\"NetInfo\":{");
    put_flag(t, "MappingVariesByDestIP", n->varies);
    put_flag(t, "WorkingIPv6", n->working_ipv6);
    put_flag(t, "OSHasIPv6", n->os_ipv6);
    put_flag(t, "WorkingUDP", n->working_udp);
    put_flag(t, "WorkingICMPv4", n->working_icmp4);
    if (n->nlatency > 0) {
        putf(t, "\"DERPLatency\":{");
        for (unsigned i = 0; i < n->nlatency; i++)
            putf(t, "%s\"%u-v%d\":%.6f", i == 0 ? "" : ",",
                n->latency[i].region, n->latency[i].six ? 6 : 4,
                n->latency[i].seconds);
        putf(t, "},");
    }
    putf(t, "\"PreferredDERP\":%u}", n->preferred_derp);
}

static const char *
go_arch(const char *machine)
{
    return strcmp(machine, "x86_64") == 0    ? "amd64"
           : strcmp(machine, "aarch64") == 0 ? "arm64"
                                             : machine;
}

static void
put_hostinfo(struct text *t, const struct message_self *m)
{
    char prefix[TN_PREFIX_STRLEN];
    struct utsname un;

    putf(t, ",\"Hostinfo\":{\"IPNVersion\":\"" IPN_VERSION
            "\",\"OS\":\"linux\",\"App\":\"nginx-tailnet\",\"Hostname\":");
    put_string(t, m->hostname);
    if (uname(&un) == 0) {
        putf(t, ",\"OSVersion\":");
        put_string(t, un.release);
        putf(t, ",\"GoArch\":");
        put_string(t, go_arch(un.machine));
    }
    for (size_t i = 0; i < m->ntags; i++) {
        putf(t, "%s", i == 0 ? ",\"RequestTags\":[" : ",");
        put_string(t, m->tags[i]);
    }
    putf(t, "%s", m->ntags > 0 ? "]" : "");
    for (size_t i = 0; i < m->nroutes; i++) {
        tn_prefix_format(&m->routes[i], prefix);
        putf(t, "%s\"%s\"", i == 0 ? ",\"RoutableIPs\":[" : ",", prefix);
    }
    putf(t, "%s", m->nroutes > 0 ? "]" : "");
    if (m->net != NULL)
        put_net(t, m->net);
    put(t, "}", 1);
}

static char *
finish(struct text *t, size_t *len)
{
    put(t, "}", 1);
    *len = t->len;
    if (!t->failed)
        return t->b;
    message_free(t->b, t->len);
    return NULL;
}

char *
message_register(const struct message_self *m, const char *auth_key,
    const char *followup, bool logout, size_t *len)
{
    static const uint8_t zero[32];
    struct text t = {0};

    putf(&t, "{\"Version\":%u", m->version);
    put_key(&t, "NodeKey", "nodekey:", m->node_key);
    put_key(&t, "OldNodeKey", "nodekey:", m->old_key ? m->old_key : zero);
    put_key(&t, "NLKey", "nlpub:", zero);
    if (auth_key != NULL) {
        putf(&t, ",\"Auth\":{\"AuthKey\":");
        put_string(&t, auth_key);
        put(&t, "}", 1);
    }
    if (followup != NULL) {
        putf(&t, ",\"Followup\":");
        put_string(&t, followup);
    }
    if (logout)
        putf(&t, ",\"Expiry\":\"1970-01-01T00:02:03Z\"");
    if (m->ephemeral)
        putf(&t, ",\"Ephemeral\":true");
    put_hostinfo(&t, m);
    return finish(&t, len);
}

char *
message_map(const struct message_self *m, bool stream, size_t *len)
{
    char at[TN_ENDPOINT_STRLEN];
    struct text t = {0};

    putf(&t, "{\"Version\":%u,\"Compress\":\"zstd\",\"KeepAlive\":true",
        m->version);
    put_key(&t, "NodeKey", "nodekey:", m->node_key);
    put_key(&t, "DiscoKey", "discokey:", m->disco);
    putf(&t, stream ? ",\"Stream\":true" : ",\"OmitPeers\":true");
    for (size_t i = 0; i < m->nendpoints; i++) {
        tn_endpoint_format(&m->endpoints[i].at, at);
        putf(&t, "%s\"%s\"", i == 0 ? ",\"Endpoints\":[" : ",", at);
    }
    for (size_t i = 0; i < m->nendpoints; i++)
        putf(&t, "%s%d", i == 0 ? "],\"EndpointTypes\":[" : ",",
            (int)m->endpoints[i].type);
    putf(&t, "%s", m->nendpoints > 0 ? "]" : "");
    put_hostinfo(&t, m);
    return finish(&t, len);
}

void
message_free(char *text, size_t len)
{
    if (text != NULL)
        explicit_bzero(text, len);
    free(text);
}

/* ---- reading ---- */

/* A server may repeat what it was sent, and other servers' secrets than
 * Tailscale's may have any printable character. */
static void
hide(char *s)
{
    while ((s = strstr(s, "skey-")) != NULL) /* tskey-, hskey- */
        for (s += 5; *s != '\0' && strchr(" \"'`,;<>", *s) == NULL; s++)
            *s = '*';
}

void
message_show(char out[MESSAGE_SHOWN_MAX], const char *text, size_t len)
{
    size_t i;

    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    for (i = 0; i < len && i < MESSAGE_SHOWN_MAX - 1; i++)
        out[i] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?';
    out[i] = '\0';
    hide(out);
}

static json_t *
load(const char *text, size_t len, char err[MESSAGE_ERROR_MAX])
{
    json_error_t e;
    json_t *root = json_loadb(text == NULL ? "" : text, len, 0, &e);

    if (root == NULL) {
        snprintf(
            err, MESSAGE_ERROR_MAX, "the answer is no JSON: %.100s", e.text);
    } else if (!json_is_object(root)) {
        snprintf(err, MESSAGE_ERROR_MAX, "the answer is no JSON object");
        json_decref(root);
        root = NULL;
    }
    return root;
}

static void
take_string(const json_t *o, const char *name, char out[MESSAGE_SHOWN_MAX])
{
    const json_t *v = json_object_get(o, name);

    message_show(out, json_is_string(v) ? json_string_value(v) : "",
        json_string_length(v));
}

int
message_registered(const char *text, size_t len, struct message_registered *r,
    char err[MESSAGE_ERROR_MAX])
{
    json_t *root = load(text, len, err), *signature;
    struct url u;
    const char *s;

    memset(r, 0, sizeof(*r));
    if (root == NULL)
        return -1;
    r->expired = json_is_true(json_object_get(root, "NodeKeyExpired"));
    r->authorized = json_is_true(json_object_get(root, "MachineAuthorized"));
    signature = json_object_get(root, "NodeKeySignature");
    r->locked = json_string_length(signature) > 0;
    take_string(root, "Error", r->error);
    take_string(json_object_get(root, "Login"), "LoginName", r->login);
    s = json_string_value(json_object_get(root, "AuthURL"));
    if (s != NULL && s[0] != '\0') {
        if (strlen(s) >= sizeof(r->url) || url_parse(&u, s) != 0) {
            snprintf(err, MESSAGE_ERROR_MAX, "its AuthURL is no URL");
            json_decref(root);
            return -1;
        }
        snprintf(r->url, sizeof(r->url), "%s", s);
    }
    json_decref(root);
    return 0;
}

int
message_server_key(
    const char *text, size_t len, uint8_t key[32], char err[MESSAGE_ERROR_MAX])
{
    static const uint8_t zero[32];
    json_t *root = load(text, len, err), *v;
    int rc;

    if (root == NULL)
        return -1;
    v = json_object_get(root, "publicKey");
    rc = json_is_string(v)
             ? keytext_prefixed(
                   key, "mkey:", json_string_value(v), json_string_length(v))
             : -1;
    if (rc == 0 && memcmp(key, zero, sizeof(zero)) == 0)
        rc = -1;
    if (rc != 0)
        snprintf(err, MESSAGE_ERROR_MAX, "the answer has no publicKey");
    json_decref(root);
    return rc;
}

unsigned
message_retry_after(const char *value, int64_t now)
{
    struct tm tm = {0};
    const char *end;
    int64_t t;
    char *rest;
    long n;

    if (value[0] >= '0' && value[0] <= '9') {
        n = strtol(value, &rest, 10);
        return *rest == '\0' && n <= RETRY_MAX ? (unsigned)n : 0;
    }
    end = strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (end == NULL || *end != '\0')
        return 0;
    t = (int64_t)timegm(&tm) - now;
    return t > 0 && t <= RETRY_MAX ? (unsigned)t : 0;
}

/*
 * proxy.c: reading the environment; see proxy.h.
 */
#include "proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../core/tn_addr.h"
#include "base64.h"
#include "hex.h"

#define DEFAULT_PORT 80

/* A variable's value, ${*name} being how it is spelled; NULL: unset or "". */
static const char *
variable(const char *lower, const char *upper, const char **name)
{
    const char *v = getenv(lower);

    *name = lower;
    if (v == NULL || *v == '\0') {
        *name = upper;
        v = getenv(upper);
    }
    return v == NULL || *v == '\0' ? NULL : v;
}

static bool
is_loopback(const char *host, const struct tn_addr *a, bool is_addr)
{
    static const uint8_t one[16] = {[15] = 1};

    if (!is_addr)
        return strcasecmp(host, "localhost") == 0;
    return tn_addr_is4(a) ? a->b[12] == 127 : memcmp(a->b, one, 16) == 0;
}

/* Digits from ${s} to ${end}, and nothing else: a port, or 0. */
static uint16_t
parse_port(const char *s, const char *end)
{
    unsigned v = 0;

    for (; s < end && *s >= '0' && *s <= '9' && v <= 65535; s++)
        v = v * 10 + (unsigned)(*s - '0');
    return s == end && v <= 65535 ? (uint16_t)v : 0;
}

/* ${len} bytes of ${item}: a name, ".suffix" or "*.suffix", address, prefix, or
 * "*"; with ":port" it speaks of that port only. */
static bool
item_matches(const char *item, size_t len, const char *host, uint16_t port,
    const struct tn_addr *a, bool is_addr)
{
    const char *colon = memrchr(item, ':', len);
    size_t hlen = strlen(host);
    struct tn_prefix p;

    if (len == 1 && *item == '*')
        return true;
    if (tn_prefix_parse(&p, item, len) == 0)
        return is_addr && tn_prefix_contains(&p, a);
    if (colon != NULL && item[len - 1] != ']') {
        if (port == 0 || parse_port(colon + 1, item + len) != port)
            return false;
        len = (size_t)(colon - item);
    }
    if (len > 2 && item[0] == '[' && item[len - 1] == ']') {
        item++;
        len -= 2;
    }
    if (tn_prefix_parse(&p, item, len) == 0)
        return is_addr && tn_prefix_contains(&p, a);
    if (len > 2 && item[0] == '*' && item[1] == '.') {
        item++;
        len--;
    }
    if (len > 0 && *item == '.') {
        item++;
        len--;
    }
    if (len == 0 || len > hlen || is_addr)
        return false;
    return strncasecmp(host + hlen - len, item, len) == 0 &&
           (len == hlen || host[hlen - len - 1] == '.');
}

static bool
excluded(const char *host, uint16_t port)
{
    const char *name, *list = variable("no_proxy", "NO_PROXY", &name);
    struct tn_addr a;
    bool is_addr = tn_addr_parse(&a, host, strlen(host)) == 0;
    size_t n;

    if (is_loopback(host, &a, is_addr))
        return true;
    for (; list != NULL && *list != '\0'; list += n) {
        list += strspn(list, ", \t");
        n = strcspn(list, ", \t");
        if (n > 0 && item_matches(list, n, host, port, &a, is_addr))
            return true;
    }
    return false;
}

/* "%41" in ${s} becomes "A"; returns its length, or 0: too long. */
static size_t
unescape(char *out, size_t size, const char *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (n == size)
            return 0;
        if (s[i] == '%' && i + 2 < len && hex_digit(s[i + 1]) >= 0 &&
            hex_digit(s[i + 2]) >= 0) {
            out[n++] = (char)(hex_digit(s[i + 1]) << 4 | hex_digit(s[i + 2]));
            i += 2;
        } else {
            out[n++] = s[i];
        }
    }
    return n;
}

/* A user without a password has an empty one (RFC 7617, section 2). */
static bool
set_auth(struct proxy *p, const char *userinfo, size_t len)
{
    char plain[PROXY_AUTH_MAX / 4 * 3 - 3];
    _Static_assert(BASE64_LEN(sizeof(plain)) <= PROXY_AUTH_MAX, "it fits");
    bool alone = memchr(userinfo, ':', len) == NULL;
    size_t n = unescape(plain, sizeof(plain) - alone, userinfo, len);

    if (n > 0) {
        if (alone)
            plain[n++] = ':';
        base64_encode(p->auth, plain, n);
    }
    explicit_bzero(plain, sizeof(plain));
    return n > 0;
}

/* An IPv6 address is in brackets, and nothing else. */
static bool
set_host(struct proxy *p, const char *host, size_t len, bool brackets)
{
    struct tn_addr a;
    size_t i;

    if (len == 0 || len > PROXY_HOST_MAX ||
        (brackets && tn_addr_parse(&a, host, len) != 0))
        return false;
    for (i = 0; i < len; i++)
        if (host[i] <= ' ' || host[i] >= 0x7f ||
            strchr("[]@?#", host[i]) != NULL)
            return false;
    memcpy(p->host, host, len);
    return true;
}

/* "[http://][user:password@]HOST[:PORT][/]" */
static bool
parse(struct proxy *p, const char *url)
{
    const char *at, *host, *end, *colon;
    bool brackets;
    size_t len;

    memset(p, 0, sizeof(*p));
    p->port = DEFAULT_PORT;
    if (strncasecmp(url, "http://", 7) == 0)
        url += 7;
    else if (strstr(url, "://") != NULL)
        return false;
    len = strcspn(url, "/");
    at = memrchr(url, '@', len);
    if (at != NULL && !set_auth(p, url, (size_t)(at - url)))
        return false;
    host = at == NULL ? url : at + 1;
    end = url + len;
    brackets = *host == '[';
    host += brackets;
    colon = memchr(host, brackets ? ']' : ':', (size_t)(end - host));
    if (colon == NULL && brackets)
        return false;
    if (colon == NULL)
        colon = end;
    if (!set_host(p, host, (size_t)(colon - host), brackets))
        return false;
    colon += brackets;
    if (colon < end)
        p->port = *colon == ':' ? parse_port(colon + 1, end) : 0;
    return p->port != 0;
}

enum proxy_verdict
proxy_for(const char *host, uint16_t port, bool tls, struct proxy *p,
    char err[PROXY_ERROR_MAX])
{
    const char *name;
    const char *url = tls ? variable("https_proxy", "HTTPS_PROXY", &name)
                          : variable("http_proxy", "HTTP_PROXY", &name);

    if (url == NULL || excluded(host, port))
        return PROXY_DIRECT;
    if (parse(p, url))
        return PROXY_USE;
    explicit_bzero(p, sizeof(*p));
    snprintf(err, PROXY_ERROR_MAX,
        "the environment's %s is not of the form "
        "http://[USER:PASSWORD@]HOST[:PORT]",
        name);
    return PROXY_UNUSABLE;
}

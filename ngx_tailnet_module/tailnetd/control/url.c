#include "url.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../../core/tn_addr.h"

static bool
parse_port(struct url *u, const char *s, size_t len)
{
    unsigned long v = 0;
    size_t i;

    for (i = 0; i < len && s[i] >= '0' && s[i] <= '9' && v < 65536; i++)
        v = v * 10 + (unsigned long)(s[i] - '0');
    if (len == 0 || i < len || v == 0 || v > 65535)
        return false;
    u->port = (uint16_t)v;
    u->has_port = true;
    return true;
}

static bool
parse_host(struct url *u, const char *s, size_t len)
{
    if (len == 0 || len > URL_HOST_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)s[i]) && strchr("-._:", s[i]) == NULL)
            return false;
        u->host[i] = (char)tolower((unsigned char)s[i]);
    }
    u->host[len] = '\0';
    return true;
}

/* "HOST", "HOST:PORT", "[v6]", "[v6]:PORT" */
static bool
parse_authority(struct url *u, const char *s, size_t len)
{
    const char *end = s + len, *host = s, *host_end, *colon;

    if (len > 0 && *s == '[') {
        struct tn_addr a;

        host++;
        host_end = memchr(s, ']', len);
        if (host_end == NULL ||
            tn_addr_parse(&a, host, (size_t)(host_end - host)) != 0)
            return false;
        colon = host_end + 1;
    } else {
        host_end = memchr(s, ':', len);
        if (host_end == NULL)
            host_end = end;
        colon = host_end;
    }
    if (!parse_host(u, host, (size_t)(host_end - host)))
        return false;
    if (colon == end)
        return true;
    return *colon == ':' && parse_port(u, colon + 1, (size_t)(end - colon - 1));
}

int
url_parse(struct url *u, const char *s)
{
    size_t len, n;

    memset(u, 0, sizeof(*u));
    if (strncasecmp(s, "https://", 8) == 0) {
        u->tls = true;
        s += 8;
    } else if (strncasecmp(s, "http://", 7) == 0) {
        s += 7;
    } else {
        return -1;
    }
    u->port = u->tls ? 443 : 80;
    for (n = 0; s[n] != '\0'; n++)
        if (s[n] <= ' ' || s[n] >= 0x7f)
            return -1;
    len = strcspn(s, "/?#");
    if (!parse_authority(u, s, len))
        return -1;
    s += len;
    n = strcspn(s, "#");
    if (n >= URL_PATH_MAX)
        return -1;
    snprintf(
        u->path, sizeof(u->path), "%s%.*s", *s == '/' ? "" : "/", (int)n, s);
    return 0;
}

void
url_authority(const struct url *u, char out[URL_AUTHORITY_MAX])
{
    bool six = strchr(u->host, ':') != NULL;
    int n = snprintf(out, URL_AUTHORITY_MAX, "%s%s%s", six ? "[" : "", u->host,
        six ? "]" : "");

    if (u->port != (u->tls ? 443 : 80))
        snprintf(out + n, URL_AUTHORITY_MAX - (size_t)n, ":%u", u->port);
}

bool
url_is_private(const struct url *u)
{
    static const char *const ranges[] = {"127.0.0.0/8", "10.0.0.0/8",
        "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7"};
    struct tn_prefix p;
    struct tn_addr a;

    if (strcmp(u->host, "localhost") == 0)
        return true;
    if (tn_addr_parse(&a, u->host, strlen(u->host)) != 0)
        return false;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(*ranges); i++)
        if (tn_prefix_parse(&p, ranges[i], strlen(ranges[i])) == 0 &&
            tn_prefix_contains(&p, &a))
            return true;
    return false;
}

/* links: tailnetd/proxy.c tailnetd/base64.c core/tn_addr.c */
/* max_len: 1024 */
/*
 * The environment's HTTP proxy, of any text: which one is used for a target,
 * said again, is the same one; which targets it is not for agrees with a plain
 * reading of the list.
 */
#include <ctype.h>
#include <strings.h>

#include "../../ngx_tailnet_module/core/tn_addr.h"
#include "../../ngx_tailnet_module/tailnetd/base64.h"
#include "../../ngx_tailnet_module/tailnetd/proxy.h"
#include "fuzz.h"

#define TEXT_MAX 1024

/* A string with a length before it; in the environment there is no NUL. */
static void
text(struct fuzz_input *in, char out[TEXT_MAX + 1])
{
    struct fuzz_input part = fuzz_bytes(in, fuzz_u16(in) % (TEXT_MAX + 1));

    if (part.len > 0)
        memcpy(out, part.p, part.len);
    out[part.len] = '\0';
}

/* ---- no_proxy ---- */

/* Behind the last colon of ${item} is a port: -1 when not. */
static long
port_of(const char *item)
{
    const char *colon = strrchr(item, ':'), *s;

    if (colon == NULL || colon[1] == '\0' || strlen(colon + 1) > 9)
        return -1;
    for (s = colon + 1; *s != '\0'; s++)
        if (!isdigit((unsigned char)*s))
            return -1;
    return atol(colon + 1);
}

static bool
names(const char *item, const char *host)
{
    size_t len, hlen = strlen(host);

    item += strncmp(item, "*.", 2) == 0 && item[2] != '\0';
    item += *item == '.';
    len = strlen(item);
    if (len == 0 || len > hlen || strcasecmp(host + hlen - len, item) != 0)
        return false;
    return len == hlen || host[hlen - len - 1] == '.';
}

/* One item as a string of its own, which is cut. */
static bool
lists(char *item, const char *host, uint16_t port)
{
    bool is_addr, is_prefix;
    struct tn_prefix p;
    struct tn_addr a;

    if (strcmp(item, "*") == 0)
        return true;
    is_addr = tn_addr_parse(&a, host, strlen(host)) == 0;
    is_prefix = tn_prefix_parse(&p, item, strlen(item)) == 0;
    if (!is_prefix) {
        if (strchr(item, ':') != NULL && item[strlen(item) - 1] != ']') {
            if (port == 0 || port_of(item) != port)
                return false;
            *strrchr(item, ':') = '\0';
        }
        if (strlen(item) > 2 && item[0] == '[' &&
            item[strlen(item) - 1] == ']') {
            item[strlen(item) - 1] = '\0';
            item++;
        }
        is_prefix = tn_prefix_parse(&p, item, strlen(item)) == 0;
    }
    if (is_prefix || is_addr)
        return is_prefix && is_addr && tn_prefix_contains(&p, &a);
    return names(item, host);
}

static bool
listed(const char *list, const char *host, uint16_t port)
{
    char copy[TEXT_MAX + 1], *item, *rest = copy;

    strcpy(copy, list);
    while ((item = strsep(&rest, ", \t")) != NULL)
        if (*item != '\0' && lists(item, host, port))
            return true;
    return false;
}

static bool
loops(const char *host)
{
    struct tn_prefix p;
    struct tn_addr a;

    if (tn_addr_parse(&a, host, strlen(host)) != 0)
        return strcasecmp(host, "localhost") == 0;
    return tn_prefix_parse(&p, tn_addr_is4(&a) ? "127.0.0.0/8" : "::1",
               tn_addr_is4(&a) ? 11 : 3) == 0 &&
           tn_prefix_contains(&p, &a);
}

/* ---- the proxy ---- */

static struct proxy first, second;
static char err[PROXY_ERROR_MAX];

/* The same in its longest form: every byte escaped but the colons between
 * user and password. */
static void
say_again(const struct proxy *p, char *out, size_t size)
{
    bool six = strchr(p->host, ':') != NULL;
    uint8_t plain[PROXY_AUTH_MAX];
    size_t n = 0, i, len = 0;

    FUZZ_MUST(strnlen(p->auth, sizeof(p->auth)) < sizeof(p->auth));
    FUZZ_MUST(
        base64_decode(plain, sizeof(plain), p->auth, strlen(p->auth), &n) == 0);
    /* RFC 7617: "user:password", though one of them be empty. */
    FUZZ_MUST(n == 0 || memchr(plain, ':', n) != NULL);
    len = (size_t)snprintf(out, size, "HTTP://");
    for (i = 0; i < n; i++)
        len += (size_t)snprintf(
            out + len, size - len, plain[i] == ':' ? "%c" : "%%%02X", plain[i]);
    snprintf(out + len, size - len, "%s%s%s%s:%u/", n > 0 ? "@" : "",
        six ? "[" : "", p->host, six ? "]" : "", p->port);
}

/* Digits only, or none at all: what is behind the host in ${url}. */
static bool
port_is(const char *url, uint16_t port)
{
    size_t len = strcspn(url, "/");
    const char *at, *colon;

    at = memrchr(url, '@', len);
    len -= at == NULL ? 0 : (size_t)(at + 1 - url);
    url = at == NULL ? url : at + 1;
    colon = memrchr(url, ':', len);
    if (colon == NULL || memchr(colon, ']', len - (size_t)(colon - url)))
        return port == 80;
    len -= (size_t)(colon + 1 - url);
    for (size_t i = 1; i <= len; i++)
        if (!isdigit((unsigned char)colon[i]))
            return false;
    return len > 0 && atol(colon + 1) == port;
}

static void
check_use(const char *name, const char *url, const char *host, uint16_t port,
    bool tls)
{
    char again[4 * PROXY_AUTH_MAX + PROXY_HOST_MAX + 32];

    FUZZ_MUST(strnlen(first.host, sizeof(first.host)) < sizeof(first.host));
    FUZZ_MUST(first.host[0] != '\0' && first.port != 0);
    FUZZ_MUST(strstr(url, first.host) != NULL);
    FUZZ_MUST(strpbrk(first.host, "/@[]?# \t\r\n") == NULL);
    FUZZ_MUST(port_is(
        strncasecmp(url, "http://", 7) == 0 ? url + 7 : url, first.port));
    say_again(&first, again, sizeof(again));
    FUZZ_MUST(setenv(name, again, 1) == 0);
    memset(&second, 0x5a, sizeof(second));
    FUZZ_MUST(proxy_for(host, port, tls, &second, err) == PROXY_USE);
    FUZZ_MUST(strcmp(first.host, second.host) == 0);
    FUZZ_MUST(first.port == second.port);
    FUZZ_MUST(strcmp(first.auth, second.auth) == 0);
}

/* Its value may be a password. */
static void
check_unusable(const char *name, const char *url)
{
    FUZZ_MUST(strnlen(err, sizeof(err)) < sizeof(err));
    FUZZ_MUST(strstr(err, name) != NULL);
    FUZZ_MUST(strlen(url) < 40 || strstr(err, url) == NULL);
    FUZZ_MUST(first.auth[0] == '\0' && first.host[0] == '\0');
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const all[] = {"http_proxy", "HTTP_PROXY", "https_proxy",
        "HTTPS_PROXY", "no_proxy", "NO_PROXY"};
    char host[TEXT_MAX + 1], url[TEXT_MAX + 1], list[TEXT_MAX + 1];
    struct fuzz_input in = {data, size};
    uint8_t how = fuzz_u8(&in);
    uint16_t port = fuzz_u16(&in);
    bool tls = (how & 1) != 0, direct;
    const char *name = all[(tls ? 2 : 0) + ((how & 2) != 0)];
    size_t i;

    text(&in, host);
    text(&in, url);
    text(&in, list);
    for (i = 0; i < sizeof(all) / sizeof(*all); i++)
        unsetenv(all[i]);
    /* Not for this target, or less than the other spelling. */
    FUZZ_MUST(setenv(all[tls ? 0 : 2], "http://other.example", 1) == 0);
    if ((how & 4) != 0)
        FUZZ_MUST(setenv(all[tls ? 3 : 1], "http://other.example", 1) == 0 &&
                  setenv("NO_PROXY", "*", 1) == 0);
    FUZZ_MUST(setenv(name, url, 1) == 0);
    FUZZ_MUST(setenv((how & 8) != 0 ? "NO_PROXY" : "no_proxy", list, 1) == 0);
    if ((how & 4) != 0 && ((how & 2) != 0 || (how & 8) != 0 || !*url || !*list))
        return 0;
    memset(&first, 0, sizeof(first));
    memset(err, 0, sizeof(err));
    direct = *url == '\0' || loops(host) || listed(list, host, port);
    switch (proxy_for(host, port, tls, &first, err)) {
    case PROXY_DIRECT:
        FUZZ_MUST(direct);
        break;
    case PROXY_USE:
        FUZZ_MUST(!direct);
        check_use(name, url, host, port, tls);
        break;
    default:
        FUZZ_MUST(!direct);
        check_unusable(name, url);
    }
    return 0;
}

/*
 * proxy.h: which HTTP proxy the environment asks for.
 *
 * http_proxy (plain targets), https_proxy (TLS targets) and no_proxy, in lower
 * or upper case; HTTP_PROXY in capitals is read too.  A loopback target never
 * goes through a proxy.
 */
#ifndef PROXY_H
#define PROXY_H

#include <stdbool.h>
#include <stdint.h>

#define PROXY_HOST_MAX  255
#define PROXY_AUTH_MAX  512 /* "user:password", base64 */
#define PROXY_ERROR_MAX 256

struct proxy {
    char host[PROXY_HOST_MAX + 1];
    uint16_t port;
    char auth[PROXY_AUTH_MAX]; /* for "Basic", "": none.  A secret. */
};

enum proxy_verdict { PROXY_DIRECT, PROXY_USE, PROXY_UNUSABLE };

/*
 * proxy_for(host, port, tls, p, err): how to reach a target.  PROXY_USE fills
 * ${p}; PROXY_UNUSABLE: the variable is set, but not to "http://HOST[:PORT]",
 * and ${err} is a sentence that names it without its value.
 */
enum proxy_verdict proxy_for(const char *host, uint16_t port, bool tls,
    struct proxy *p, char err[PROXY_ERROR_MAX]);

#endif

/*
 * endpoint.h: "IP:PORT" and "[IP6]:PORT" for the test programs.
 */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct endpoint {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_storage storage;
    };
    socklen_t len;
};

/* endpoint_parse(ep, text): fill ${ep} from numbers; names are not looked
 * up.  Returns false: not an address with a port. */
static inline bool
endpoint_parse(struct endpoint *ep, const char *text)
{
    char host[INET6_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    bool v6 = text[0] == '[';
    size_t len;
    char *end;
    long port;

    memset(ep, 0, sizeof(*ep));
    if (!colon || (v6 && (colon == text || colon[-1] != ']'))) {
        return false;
    }
    port = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || *end || port < 0 || port > 65535) {
        return false;
    }
    len = (size_t)(colon - text) - (v6 ? 2 : 0);
    if (len >= sizeof(host)) {
        return false;
    }
    memcpy(host, text + (v6 ? 1 : 0), len);
    host[len] = '\0';
    if (v6) {
        ep->in6.sin6_family = AF_INET6;
        ep->in6.sin6_port = htons((uint16_t)port);
        ep->len = sizeof(ep->in6);
        return inet_pton(AF_INET6, host, &ep->in6.sin6_addr) == 1;
    }
    ep->in.sin_family = AF_INET;
    ep->in.sin_port = htons((uint16_t)port);
    ep->len = sizeof(ep->in);
    return inet_pton(AF_INET, host, &ep->in.sin_addr) == 1;
}

static inline bool
endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
    if (a->sa.sa_family != b->sa.sa_family) {
        return false;
    }
    if (a->sa.sa_family == AF_INET6) {
        return a->in6.sin6_port == b->in6.sin6_port &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0;
    }
    return a->in.sin_port == b->in.sin_port &&
           a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

#endif

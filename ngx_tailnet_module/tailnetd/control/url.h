/*
 * url.h: http and https URLs of control servers.
 */
#ifndef URL_H
#define URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define URL_HOST_MAX 255
#define URL_PATH_MAX 2047

struct url {
    bool tls;
    bool has_port;               /* it was said */
    uint16_t port;               /* 80 or 443 when not said */
    char host[URL_HOST_MAX + 1]; /* lower case; IPv6 without brackets */
    char path[URL_PATH_MAX + 1]; /* with query, "/" at least, no fragment */
};

/* url_parse(u, s): "http[s]://HOST[:PORT][/PATH]", printable ASCII, no user.
 * Returns 0, or -1: it is not one. */
int url_parse(struct url *u, const char *s);

/* HOST[:PORT] for a Host header: brackets and port where they are needed. */
#define URL_AUTHORITY_MAX (URL_HOST_MAX + 9)
void url_authority(const struct url *u, char out[URL_AUTHORITY_MAX]);

/* localhost, a loopback or private address: nobody has a certificate there. */
bool url_is_private(const struct url *u);

#endif

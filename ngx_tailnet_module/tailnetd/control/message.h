/*
 * message.h: the JSON of requests to a control server and of its short answers.
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"
#include "url.h"

#define MESSAGE_ERROR_MAX 256
#define MESSAGE_SHOWN_MAX 512 /* bytes of a server's words that are kept */
#define MESSAGE_LATENCIES 64
#define MESSAGE_ENDPOINTS 64

/* EndpointTypes. */
enum message_endpoint_type {
    MESSAGE_LOCAL = 1,
    MESSAGE_STUN = 2,
    MESSAGE_PORTMAPPED = 3,
    MESSAGE_STUN4_LOCAL = 4,
    MESSAGE_EXPLICIT = 5,
};

struct message_endpoint {
    struct tn_endpoint at;
    enum message_endpoint_type type;
};

/* NetInfo; of a flag: -1 not known, 0, 1. */
struct message_netinfo {
    int8_t varies; /* MappingVariesByDestIP */
    int8_t working_ipv6, os_ipv6, working_udp, working_icmp4;
    uint16_t preferred_derp;
    struct {
        uint16_t region;
        bool six;
        double seconds;
    } latency[MESSAGE_LATENCIES];
    unsigned nlatency;
};

/* What a node says of itself. */
struct message_self {
    uint16_t version; /* capability version */
    const char *hostname;
    const char *const *tags; /* wanted: "tag:…" */
    size_t ntags;
    const struct tn_prefix *routes; /* advertised */
    size_t nroutes;
    const uint8_t *node_key; /* public */
    const uint8_t *old_key;  /* public, or NULL */
    const uint8_t *disco;    /* public */
    bool ephemeral;
    const struct message_endpoint *endpoints;
    size_t nendpoints;
    const struct message_netinfo *net;
};

/*
 * Each returns text for message_free() (which wipes it) and its length, or
 * NULL: no memory.  message_register(): ${auth_key} and ${followup} may be
 * NULL; ${logout}: the key is to be expired.
 */
char *message_register(const struct message_self *m, const char *auth_key,
    const char *followup, bool logout, size_t *len);
char *message_map(const struct message_self *m, bool stream, size_t *len);
void message_free(char *text, size_t len);

/* RegisterResponse. */
struct message_registered {
    bool expired;                  /* NodeKeyExpired */
    bool authorized;               /* MachineAuthorized */
    bool locked;                   /* the tailnet's lock wants a signature */
    char url[URL_PATH_MAX + 1];    /* AuthURL or "" */
    char error[MESSAGE_SHOWN_MAX]; /* printable, or "" */
    char login[MESSAGE_SHOWN_MAX]; /* LoginName or "" */
};

/* Each returns 0, or -1 and why in ${err}. */
int message_registered(const char *text, size_t len,
    struct message_registered *r, char err[MESSAGE_ERROR_MAX]);
int message_server_key(
    const char *text, size_t len, uint8_t key[32], char err[MESSAGE_ERROR_MAX]);

/* message_show(out, text, len): a server's words for a log: printable, cut,
 * without anything that looks like an auth key. */
void message_show(char out[MESSAGE_SHOWN_MAX], const char *text, size_t len);

/* message_retry_after(value, now): seconds to wait: a number or an HTTP date;
 * 0: unusable, or more than an hour. */
unsigned message_retry_after(const char *value, int64_t now);

#endif

/*
 * endpoints.h: the addresses that we tell others to reach us at.
 *
 * Sans-I/O.  What was configured comes first, then what STUN servers saw, then
 * the machine's own addresses.  What was seen lingers: a run that got no answer
 * does not make us unreachable.  Times are microseconds of a monotonic clock.
 */
#ifndef ENDPOINTS_H
#define ENDPOINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../control/message.h"
#include "netcheck.h"

#define ENDPOINTS_MAX      MESSAGE_ENDPOINTS
#define ENDPOINTS_LEARNED  16
#define ENDPOINTS_EXPLICIT 16
#define ENDPOINTS_LINGER   (310 * 1000000ull)

struct endpoints {
    struct {
        struct tn_endpoint at;
        enum message_endpoint_type type;
        uint64_t seen;
    } learned[ENDPOINTS_LEARNED];
    unsigned nlearned;
    struct tn_endpoint explicit[ENDPOINTS_EXPLICIT];
    size_t nexplicit;
    struct message_endpoint list[ENDPOINTS_MAX];
    size_t n;
};

/* endpoints_explicit(e, list, n): those that were configured. */
void endpoints_explicit(
    struct endpoints *e, const struct tn_endpoint *list, size_t n);

/* endpoints_forget(e): the network is another one. */
void endpoints_forget(struct endpoints *e);

/*
 * endpoints_update(e, r, addrs, n, port, now): the list anew from a netcheck
 * (NULL: none was made), the machine's ${n} addresses, and the ${port}s of our
 * sockets (IPv4, IPv6; 0: none).  Whether it changed.
 */
bool endpoints_update(struct endpoints *e, const struct netcheck_report *r,
    const struct tn_addr *addrs, size_t n, const uint16_t port[2],
    uint64_t now);

#endif

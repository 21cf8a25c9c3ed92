/*
 * echo.h: pings that a node sends and whom their answers are told: tailnetctl
 * by the holder, or the control server.
 */
#ifndef ECHO_H
#define ECHO_H

#include <stdbool.h>
#include <stdint.h>

#include "ping.h"

#define ECHO_SERVER_MS 10000 /* until a control server is told of no answer */

struct node;
struct node_peer;
struct tn_endpoint;

/*
 * echo_begin(n, p): sends the ping ${p}, of which all but ${sent} is said.
 * NULL, and its asker is told; or why not, in a few words.
 */
const char *echo_begin(struct node *n, struct ping *p);

/* echo_asked(n, id, kind, to): the control server asks for ping number ${id};
 * control_pong() tells it, at once where there is nobody to ping. */
void echo_asked(
    struct node *n, uint32_t id, enum ping_kind kind, const struct tn_addr *to);

/* echo_packet(n, packet, len): true: the packet from a peer was an answer.
 * echo_tsmp(), echo_disco(): ${np} answered by a message of these kinds. */
bool echo_packet(struct node *n, const uint8_t *packet, size_t len);
void echo_tsmp(struct node *n, const struct tsmp *t);
bool echo_disco(struct node *n, const struct node_peer *np,
    const uint8_t token[PING_TOKEN_LEN], const struct tn_endpoint *src);

/* echo_tick(n, now): who has waited for too long is told. */
void echo_tick(struct node *n, uint64_t now);

#endif

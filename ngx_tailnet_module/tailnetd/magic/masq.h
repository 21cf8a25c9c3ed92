/*
 * masq.h: peers that know this node by another address than its own.
 *
 * Sans-I/O: an IP packet's source or destination is replaced in place, with the
 * checksums that cover it (RFC 1624): IPv4's own, and those of TCP, UDP and
 * ICMPv6.  Fragments behind the first carry none.
 */
#ifndef MASQ_H
#define MASQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_addr.h"

/* masq_source(p, len, from, to), masq_destination(...): where that address is
 * ${from}, it becomes ${to}, of the same family.  Whether it did. */
bool masq_source(uint8_t *p, size_t len, const struct tn_addr *from,
    const struct tn_addr *to);
bool masq_destination(uint8_t *p, size_t len, const struct tn_addr *from,
    const struct tn_addr *to);

#endif

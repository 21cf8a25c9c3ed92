/*
 * filter_kit.h: filters from JSON and packets from words, for the tests of the
 * packet filter.  Included once per program, after cmocka.h.
 */
#ifndef FILTER_KIT_H
#define FILTER_KIT_H

#include <stdio.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_json.h"
#include "../../ngx_tailnet_module/tailnetd/engine/filter.h"

/* A node key of one digit. */
#define K(c)   "nodekey:" K16(c) K16(c) K16(c) K16(c)
#define K16(c) c c c c c c c c c c c c c c c c

enum { SYN = 0x02, ACK = 0x10 };

/* No rules, and that is the rule. */
#define NOTHING_OPEN                                          \
    "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]}," \
    "\"PacketFilters\":{\"base\":null}}"

static inline struct netmap *
map_of(const char *json)
{
    struct map_json_error err;
    struct netmap *nm = map_json_parse(json, strlen(json), &err);

    if (nm == NULL) {
        fail_msg("%s", err.text);
    }
    return nm;
}

static inline struct filter *
filter_of(const char *json, const struct filter_local *local)
{
    struct netmap *nm = map_of(json);
    struct filter *f = filter_new(nm, local);

    assert_non_null(f);
    netmap_free(nm); /* a filter borrows nothing */
    return f;
}

static inline struct tn_addr
addr(const char *s)
{
    struct tn_addr a;

    if (tn_addr_parse(&a, s, strlen(s)) != 0) {
        fail_msg("no address: %s", s);
    }
    return a;
}

static inline void
put16(uint8_t *b, unsigned v)
{
    b[0] = (uint8_t)(v >> 8);
    b[1] = (uint8_t)v;
}

/* A packet with 20 bytes behind its IP header: ports, and ${extra} as TCP
 * flags or ICMP type. */
static inline size_t
packet(uint8_t b[static 128], unsigned proto, const char *src, const char *dst,
    unsigned sport, unsigned dport, unsigned extra)
{
    struct tn_addr s = addr(src), d = addr(dst);
    size_t header = tn_addr_is4(&s) ? 20 : 40;
    uint8_t *sub = b + header;

    memset(b, 0, 128);
    if (header == 20) {
        b[0] = 0x45;
        put16(b + 2, 40);
        b[8] = 64;
        b[9] = (uint8_t)proto;
        memcpy(b + 12, s.b + 12, 4);
        memcpy(b + 16, d.b + 12, 4);
    } else {
        b[0] = 0x60;
        put16(b + 4, 20);
        b[6] = (uint8_t)proto;
        b[7] = 64;
        memcpy(b + 8, s.b, 16);
        memcpy(b + 24, d.b, 16);
    }
    if (proto == 1 || proto == 58) {
        sub[0] = (uint8_t)extra;
        return header + 20;
    }
    put16(sub, sport);
    put16(sub + 2, dport);
    if (proto == 6) {
        sub[12] = 0x50;
        sub[13] = (uint8_t)extra;
    }
    return header + 20;
}

/* A number below ${below}, the same in every run. */
static inline uint32_t
draw(uint64_t *seed, uint32_t below)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % below;
}

#endif

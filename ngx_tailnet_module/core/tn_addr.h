/*
 * tn_addr.h: addresses, prefixes and endpoints.
 *
 * One type for both families: 16 bytes, an IPv4 address as ::ffff:a.b.c.d
 * (RFC 4291 section 2.5.5.2), so that tables and comparisons have one path.
 * Nothing here allocates, logs or resolves names.
 */
#ifndef TN_ADDR_H
#define TN_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr;

#define TN_ADDR_STRLEN     46 /* longest text with its NUL */
#define TN_PREFIX_STRLEN   50
#define TN_ENDPOINT_STRLEN 56

struct tn_addr {
    uint8_t b[16];
};

/* bits counts in the mapped space: an IPv4 /24 has 120, a /32 has 128. */
struct tn_prefix {
    struct tn_addr addr;
    uint8_t bits;
};

/* port in host order; port 0 means "no endpoint". */
struct tn_endpoint {
    struct tn_addr addr;
    uint16_t port;
};

_Static_assert(sizeof(struct tn_addr) == 16, "tn_addr is drawn as bytes");

bool tn_addr_is4(const struct tn_addr *a);
bool tn_addr_equal(const struct tn_addr *a, const struct tn_addr *b);

/* From 4 or 16 network-order bytes; 16 bytes are taken as they are. */
struct tn_addr tn_addr_from4(const uint8_t b[static 4]);
struct tn_addr tn_addr_from6(const uint8_t b[static 16]);

/*
 * tn_addr_from_sockaddr(sa, a, port): the address of an AF_INET or AF_INET6
 * socket address, a v4-mapped one unmapped to IPv4.  ${port} (host order) may
 * be NULL.  Returns 0, or -1 for another family.
 */
int tn_addr_from_sockaddr(
    const struct sockaddr *sa, struct tn_addr *a, uint16_t *port);

/*
 * Text of exactly ${len} bytes, no NUL needed.  tn_prefix_parse() takes a bare
 * address as a single-address prefix and refuses host bits that are set.
 * tn_endpoint_parse() takes 1.2.3.4:5 and [::1]:5, port 1..65535.
 * Each returns 0, or -1 and leaves its result untouched.
 */
int tn_addr_parse(struct tn_addr *a, const char *s, size_t len);
int tn_prefix_parse(struct tn_prefix *p, const char *s, size_t len);
int tn_endpoint_parse(struct tn_endpoint *e, const char *s, size_t len);

/* NUL-terminated text into ${buf} of the size above; returns its length. */
size_t tn_addr_format(const struct tn_addr *a, char buf[static TN_ADDR_STRLEN]);
size_t tn_prefix_format(
    const struct tn_prefix *p, char buf[static TN_PREFIX_STRLEN]);
size_t tn_endpoint_format(
    const struct tn_endpoint *e, char buf[static TN_ENDPOINT_STRLEN]);

/*
 * 4via6: an IPv4 address at one of many sites that use the same ones, as an
 * IPv6 address that a subnet router leads to.  tn_addr_via_parse() takes a
 * name's first label, 10-1-1-16-via-7 (the site decimal or 0x and hexadecimal);
 * 0, or -1 and its result untouched.
 */
bool tn_addr_is_via(const struct tn_addr *a);
int tn_addr_via_parse(struct tn_addr *a, const char *s, size_t len);

bool tn_prefix_contains(const struct tn_prefix *p, const struct tn_addr *a);

/* A well-mixed 64-bit hash of the 16 bytes (for tables that hold addresses
 * chosen by a trusted writer; not keyed). */
uint64_t tn_addr_hash(const struct tn_addr *a);

#endif

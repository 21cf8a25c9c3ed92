/*
 * tn_addr.c: addresses, prefixes and endpoints.
 *
 * The text forms are those of RFC 4291 section 2.2 and RFC 5952 (IPv6) and
 * dotted decimal without leading zeros (IPv4).  Zones ("%eth0") are no part of
 * an address here: nothing in a mesh is link-local.
 */
#include "tn_addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* RFC 4291 section 2.5.5.2: ::ffff:0:0/96 */
#define MAPPED_BITS 96

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool
tn_addr_is4(const struct tn_addr *a)
{
    return memcmp(a->b, mapped, sizeof mapped) == 0;
}

bool
tn_addr_equal(const struct tn_addr *a, const struct tn_addr *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

struct tn_addr
tn_addr_from4(const uint8_t b[static 4])
{
    struct tn_addr a;

    memcpy(a.b, mapped, sizeof mapped);
    memcpy(a.b + sizeof mapped, b, 4);
    return a;
}

struct tn_addr
tn_addr_from6(const uint8_t b[static 16])
{
    struct tn_addr a;

    memcpy(a.b, b, sizeof a.b);
    return a;
}

int
tn_addr_from_sockaddr(
    const struct sockaddr *sa, struct tn_addr *a, uint16_t *port)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    uint16_t be;

    switch (sa->sa_family) {
    case AF_INET:
        memcpy(&in, sa, sizeof in);
        *a = tn_addr_from4((const uint8_t *)&in.sin_addr);
        be = in.sin_port;
        break;
    case AF_INET6:
        memcpy(&in6, sa, sizeof in6);
        *a = tn_addr_from6(in6.sin6_addr.s6_addr);
        be = in6.sin6_port;
        break;
    default:
        return -1;
    }
    if (port != NULL) {
        *port = ntohs(be);
    }
    return 0;
}

/* A decimal number 0..${max} without sign or leading zeros. */
static int
number(unsigned *out, unsigned max, const char *s, size_t len)
{
    unsigned v = 0;

    if (len == 0 || len > 5 || (len > 1 && s[0] == '0')) {
        return -1;
    }
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return -1;
        }
        v = v * 10 + (unsigned)(s[i] - '0');
    }
    if (v > max) {
        return -1;
    }
    *out = v;
    return 0;
}

int
tn_addr_parse(struct tn_addr *a, const char *s, size_t len)
{
    char buf[TN_ADDR_STRLEN];
    uint8_t b[16];

    if (len == 0 || len >= sizeof buf || memchr(s, '\0', len) != NULL) {
        return -1;
    }
    memcpy(buf, s, len);
    buf[len] = '\0';
    if (inet_pton(AF_INET, buf, b) == 1) {
        *a = tn_addr_from4(b);
        return 0;
    }
    if (inet_pton(AF_INET6, buf, b) == 1) {
        *a = tn_addr_from6(b);
        return 0;
    }
    return -1;
}

/* True when a bit of ${a} behind the first ${bits} is set. */
static bool
hostbits(const struct tn_addr *a, unsigned bits)
{
    size_t i = bits / 8;

    if (bits % 8 != 0) {
        if ((a->b[i] & (0xffu >> (bits % 8))) != 0) {
            return true;
        }
        i++;
    }
    for (; i < sizeof a->b; i++) {
        if (a->b[i] != 0) {
            return true;
        }
    }
    return false;
}

int
tn_prefix_parse(struct tn_prefix *p, const char *s, size_t len)
{
    const char *slash;
    struct tn_addr a;
    unsigned bits = 128;
    size_t alen;
    bool dotted;

    if (len == 0) {
        return -1;
    }
    slash = memchr(s, '/', len);
    alen = slash == NULL ? len : (size_t)(slash - s);
    if (tn_addr_parse(&a, s, alen) != 0) {
        return -1;
    }
    if (slash != NULL) {
        dotted = memchr(s, ':', alen) == NULL;
        if (number(&bits, dotted ? 32 : 128, slash + 1, len - alen - 1) != 0) {
            return -1;
        }
        if (dotted) {
            bits += MAPPED_BITS;
        }
    }
    if (hostbits(&a, bits)) {
        return -1;
    }
    p->addr = a;
    p->bits = (uint8_t)bits;
    return 0;
}

int
tn_endpoint_parse(struct tn_endpoint *e, const char *s, size_t len)
{
    struct tn_addr a;
    unsigned port;
    size_t colon, first, alen;

    for (colon = len; colon > 0 && s[colon - 1] != ':'; colon--) {
    }
    if (colon < 2) {
        return -1;
    }
    colon--;
    first = 0;
    alen = colon;
    if (s[0] == '[') {
        if (colon < 3 || s[colon - 1] != ']') {
            return -1;
        }
        first = 1;
        alen = colon - 2;
    }
    /* brackets belong to IPv6 text and only to it (RFC 3986 3.2.2) */
    if ((memchr(s + first, ':', alen) != NULL) != (first == 1)) {
        return -1;
    }
    if (tn_addr_parse(&a, s + first, alen) != 0 ||
        number(&port, 65535, s + colon + 1, len - colon - 1) != 0 ||
        port == 0) {
        return -1;
    }
    e->addr = a;
    e->port = (uint16_t)port;
    return 0;
}

/* fd7a:115c:a1e0:b1a::/64; then the site, 32 bits, and its IPv4 address */
static const uint8_t via[8] = {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0x0b, 0x1a};

bool
tn_addr_is_via(const struct tn_addr *a)
{
    return memcmp(a->b, via, sizeof via) == 0;
}

/* All of ${s}, decimal or 0x and hexadecimal. */
static int
site(uint32_t *v, const char *s, size_t len)
{
    unsigned base = 10, digit;
    uint64_t sum = 0;

    if (len > 2 && s[0] == '0' && (s[1] | 0x20) == 'x') {
        base = 16;
        s += 2;
        len -= 2;
    }
    if (len == 0) {
        return -1;
    }
    for (size_t i = 0; i < len; i++) {
        char c = s[i];

        digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                       : 16;
        sum = sum * base + digit;
        if (digit >= base || sum > UINT32_MAX) {
            return -1;
        }
    }
    *v = (uint32_t)sum;
    return 0;
}

int
tn_addr_via_parse(struct tn_addr *a, const char *s, size_t len)
{
    static const char word[] = "-via-";
    char four[sizeof "255.255.255.255"];
    struct tn_addr v4;
    uint32_t id;
    size_t n = 0;

    while (n < len && ((s[n] >= '0' && s[n] <= '9') || s[n] == '-')) {
        n++;
    }
    if (n == 0 || n > sizeof four || len - (n - 1) <= sizeof word - 1) {
        return -1;
    }
    n--; /* the hyphen of ${word} */
    for (size_t i = 0; i < n; i++) {
        four[i] = s[i] == '-' ? '.' : s[i];
    }
    for (size_t i = 0; i < sizeof word - 1; i++) {
        if ((s[n + i] | (word[i] == '-' ? 0 : 0x20)) != word[i]) {
            return -1;
        }
    }
    if (tn_addr_parse(&v4, four, n) != 0 ||
        site(&id, s + n + sizeof word - 1, len - n - (sizeof word - 1)) != 0) {
        return -1;
    }
    memcpy(a->b, via, sizeof via);
    for (size_t i = 0; i < 4; i++) {
        a->b[8 + i] = (uint8_t)(id >> (24 - 8 * i));
        a->b[12 + i] = v4.b[12 + i];
    }
    return 0;
}

/* ${v} in decimal at ${buf}, no NUL; returns its length, at most 5. */
static size_t
decimal(unsigned v, char *buf)
{
    char rev[5];
    size_t n = 0;

    do {
        rev[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0 && n < sizeof rev);
    for (size_t i = 0; i < n; i++) {
        buf[i] = rev[n - 1 - i];
    }
    return n;
}

size_t
tn_addr_format(const struct tn_addr *a, char buf[static TN_ADDR_STRLEN])
{
    size_t n = 0;

    if (!tn_addr_is4(a)) {
        inet_ntop(AF_INET6, a->b, buf, TN_ADDR_STRLEN);
        return strlen(buf);
    }
    for (size_t i = sizeof mapped; i < sizeof a->b; i++) {
        if (i > sizeof mapped) {
            buf[n++] = '.';
        }
        n += decimal(a->b[i], buf + n);
    }
    buf[n] = '\0';
    return n;
}

/* An IPv6 prefix that is wider than the mapped block is not IPv4. */
static bool
prefix_is4(const struct tn_prefix *p)
{
    return p->bits >= MAPPED_BITS && tn_addr_is4(&p->addr);
}

size_t
tn_prefix_format(const struct tn_prefix *p, char buf[static TN_PREFIX_STRLEN])
{
    size_t n = tn_addr_format(&p->addr, buf);
    unsigned bits = p->bits;

    if (prefix_is4(p)) {
        bits -= MAPPED_BITS;
    }
    buf[n++] = '/';
    n += decimal(bits, buf + n);
    buf[n] = '\0';
    return n;
}

size_t
tn_endpoint_format(
    const struct tn_endpoint *e, char buf[static TN_ENDPOINT_STRLEN])
{
    size_t n = 0;

    if (tn_addr_is4(&e->addr)) {
        n = tn_addr_format(&e->addr, buf);
    } else {
        buf[n++] = '[';
        n += tn_addr_format(&e->addr, buf + n);
        buf[n++] = ']';
    }
    buf[n++] = ':';
    n += decimal(e->port, buf + n);
    buf[n] = '\0';
    return n;
}

bool
tn_prefix_contains(const struct tn_prefix *p, const struct tn_addr *a)
{
    size_t whole = p->bits / 8;
    unsigned rest = p->bits % 8;

    /* ::/0 is all of IPv6, and nothing of IPv4 */
    if (p->bits > 128 || prefix_is4(p) != tn_addr_is4(a)) {
        return false;
    }
    if (memcmp(p->addr.b, a->b, whole) != 0) {
        return false;
    }
    return rest == 0 || ((p->addr.b[whole] ^ a->b[whole]) >> (8 - rest)) == 0;
}

/* The 64-bit finalizer of MurmurHash3: every input bit moves every output bit
 * with probability close to one half. */
static uint64_t
mix(uint64_t v)
{
    v ^= v >> 33;
    v *= UINT64_C(0xff51afd7ed558ccd);
    v ^= v >> 33;
    v *= UINT64_C(0xc4ceb9fe1a85ec53);
    v ^= v >> 33;
    return v;
}

uint64_t
tn_addr_hash(const struct tn_addr *a)
{
    uint64_t hi, lo;

    memcpy(&hi, a->b, sizeof hi);
    memcpy(&lo, a->b + sizeof hi, sizeof lo);
    return mix(mix(hi) ^ lo);
}

/* links: core/tn_addr.c */
/* max_len: 128 */
/*
 * Addresses, prefixes and endpoints as text: what is accepted comes back from
 * its canonical text; what is refused leaves its result alone.
 */
#include <arpa/inet.h>

#include "../../ngx_tailnet_module/core/tn_addr.h"
#include "fuzz.h"

static void
check_addr(const char *text, size_t len)
{
    struct tn_addr a, b;
    char out[TN_ADDR_STRLEN], plain[64];
    struct in6_addr six;
    struct in_addr four;

    memset(&a, 0x5a, sizeof(a));
    b = a;
    if (tn_addr_parse(&a, text, len) != 0) {
        FUZZ_MUST(tn_addr_equal(&a, &b));
        return;
    }
    FUZZ_MUST(tn_addr_parse(&b, out, tn_addr_format(&a, out)) == 0);
    FUZZ_MUST(tn_addr_equal(&a, &b));
    /* libc agrees. */
    FUZZ_MUST(len < sizeof(plain));
    memcpy(plain, text, len);
    plain[len] = '\0';
    if (inet_pton(AF_INET, plain, &four) == 1)
        FUZZ_MUST(tn_addr_is4(&a) && memcmp(&four, a.b + 12, 4) == 0);
    else
        FUZZ_MUST(inet_pton(AF_INET6, plain, &six) == 1 &&
                  memcmp(&six, a.b, 16) == 0);
}

static void
check_prefix(const char *text, size_t len)
{
    struct tn_prefix p, q;
    char out[TN_PREFIX_STRLEN];

    memset(&p, 0x5a, sizeof(p));
    q = p;
    if (tn_prefix_parse(&p, text, len) != 0) {
        FUZZ_MUST(memcmp(&p, &q, sizeof(p)) == 0);
        return;
    }
    FUZZ_MUST(p.bits <= 128 && (!tn_addr_is4(&p.addr) || p.bits >= 96));
    FUZZ_MUST(tn_prefix_contains(&p, &p.addr));
    FUZZ_MUST(tn_prefix_parse(&q, out, tn_prefix_format(&p, out)) == 0);
    FUZZ_MUST(q.bits == p.bits && tn_addr_equal(&q.addr, &p.addr));
}

static void
check_endpoint(const char *text, size_t len)
{
    struct tn_endpoint e, f;
    char out[TN_ENDPOINT_STRLEN];

    memset(&e, 0x5a, sizeof(e));
    f = e;
    if (tn_endpoint_parse(&e, text, len) != 0) {
        FUZZ_MUST(e.port == f.port && tn_addr_equal(&e.addr, &f.addr));
        return;
    }
    FUZZ_MUST(e.port != 0);
    FUZZ_MUST(tn_endpoint_parse(&f, out, tn_endpoint_format(&e, out)) == 0);
    FUZZ_MUST(e.port == f.port && tn_addr_equal(&e.addr, &f.addr));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy(data, size);

    check_addr(text, size);
    check_prefix(text, size);
    check_endpoint(text, size);
    free(text);
    return 0;
}

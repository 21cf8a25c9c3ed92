/* links: tailnetd/wg/allowedips.c core/tn_addr.c */
/* libs: -Wl,--wrap=calloc */
/*
 * test_allowedips.c: longest prefix, moving, removing, and a random comparison
 * with a plain list.  calloc is wrapped: it fails on demand.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/wg/allowedips.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int fail_after = -1; /* calls that still succeed; -1: all */

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *
__wrap_calloc(size_t n, size_t size)
{
    if (fail_after == 0)
        return NULL;
    if (fail_after > 0)
        fail_after--;
    return __real_calloc(n, size);
}

static struct tn_prefix
prefix(const char *text)
{
    struct tn_prefix p;

    assert_int_equal(tn_prefix_parse(&p, text, strlen(text)), 0);
    return p;
}

static struct tn_addr
addr(const char *text)
{
    struct tn_addr a;

    assert_int_equal(tn_addr_parse(&a, text, strlen(text)), 0);
    return a;
}

/* ${list}: prefixes separated by blanks. */
static int
replace(struct allowedips *t, struct allowedips_owner *o, const char *list)
{
    struct tn_prefix p[32];
    size_t n = 0;

    while (*list != '\0') {
        size_t len = strcspn(list, " ");

        assert_int_equal(tn_prefix_parse(&p[n++], list, len), 0);
        list += len + strspn(list + len, " ");
    }
    return allowedips_replace(t, o, p, n);
}

/* Owner of ${text} as an index into ${o}; -1: none. */
static int
owner(const struct allowedips *t, const struct allowedips_owner *o,
    const char *text)
{
    struct tn_addr a = addr(text);
    struct allowedips_owner *found = allowedips_lookup(t, &a);

    return found == NULL ? -1 : (int)(found - o);
}

static void
test_longest(void **state)
{
    static const char *const owned[] = {
        "172.20.0.0/14 172.21.8.0/21 100.64.7.7/32",
        "172.21.8.128/25 172.21.8.130/31 203.0.113.64/26",
        "0.0.0.0/0 2001:db8:a::/48",
        "172.21.8.130/32 172.21.8.0/24 2001:db8::/32 128.0.0.0/1",
        "::/0 2001:db8:a:1::9/128 fd7a:115c:a1e0::/64",
    };
    static const struct {
        const char *addr;
        int owner;
    } table[] = {
        {"172.20.0.0", 0},
        {"172.23.255.255", 0},
        {"172.24.0.0", 3},
        {"172.21.8.1", 3},
        {"172.21.9.1", 0},
        {"172.21.8.127", 3},
        {"172.21.8.129", 1},
        {"172.21.8.130", 3},
        {"172.21.8.131", 1},
        {"172.21.8.132", 1},
        {"203.0.113.63", 3},
        {"203.0.113.64", 1},
        {"203.0.113.127", 1},
        {"203.0.113.128", 3},
        {"100.64.7.7", 0},
        {"100.64.7.6", 2},
        {"0.0.0.0", 2},
        {"127.255.255.255", 2},
        {"128.0.0.0", 3},
        {"255.255.255.255", 3},
        {"::1", 4},
        {"2001:db8::", 3},
        {"2001:db8:a::1", 2},
        {"2001:db8:a:1::8", 2},
        {"2001:db8:a:1::9", 4},
        {"2001:db8:b::", 3},
        {"2001:db9::", 4},
        {"fd7a:115c:a1e0:0:ffff::", 4},
        {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 4},
    };
    struct allowedips t = {NULL};
    struct allowedips_owner o[COUNT(owned)] = {{NULL}};

    (void)state;
    assert_int_equal(owner(&t, o, "1.2.3.4"), -1);
    for (size_t i = 0; i < COUNT(owned); i++)
        assert_int_equal(replace(&t, &o[i], owned[i]), 0);
    for (size_t i = 0; i < COUNT(table); i++)
        if (owner(&t, o, table[i].addr) != table[i].owner)
            fail_msg("%s", table[i].addr);

    /* Without 0.0.0.0/0 nothing of IPv6 stands in for it. */
    allowedips_remove(&t, &o[2]);
    assert_int_equal(owner(&t, o, "1.2.3.4"), -1);
    assert_int_equal(owner(&t, o, "2001:db8:a::1"), 3);
    for (size_t i = 0; i < COUNT(owned); i++)
        allowedips_remove(&t, &o[i]);
    assert_null(t.root);
}

static void
test_move_and_replace(void **state)
{
    struct allowedips t = {NULL};
    struct allowedips_owner o[3] = {{NULL}};

    (void)state;
    assert_int_equal(replace(&t, &o[0], "10.0.0.0/8 10.0.0.1/32 fd::/64"), 0);
    assert_int_equal(replace(&t, &o[1], "10.0.0.1/32 10.0.0.2/32"), 0);
    assert_int_equal(owner(&t, o, "10.0.0.1"), 1); /* moved */
    assert_int_equal(owner(&t, o, "10.0.0.3"), 0);

    assert_int_equal(replace(&t, &o[1], "10.0.0.2/32"), 0);
    assert_int_equal(owner(&t, o, "10.0.0.1"), 0); /* given up, not back */
    assert_int_equal(owner(&t, o, "10.0.0.2"), 1);

    assert_int_equal(replace(&t, &o[0], ""), 0);
    assert_int_equal(owner(&t, o, "10.0.0.3"), -1);
    assert_int_equal(owner(&t, o, "fd::1"), -1);
    assert_int_equal(owner(&t, o, "10.0.0.2"), 1);

    /* Twice the same, and host bits. */
    struct tn_prefix p[2] = {prefix("10.9.0.0/16"), prefix("10.9.0.0/16")};

    p[1].addr.b[15] = 77;
    assert_int_equal(allowedips_replace(&t, &o[2], p, 2), 0);
    assert_int_equal(owner(&t, o, "10.9.1.1"), 2);
    allowedips_remove(&t, &o[2]);
    allowedips_remove(&t, &o[2]);
    assert_int_equal(owner(&t, o, "10.9.1.1"), -1);
    allowedips_remove(&t, &o[1]);
    assert_null(t.root);
}

/* Whatever allocation fails, the trie is as it was. */
static void
test_no_memory(void **state)
{
    struct allowedips t = {NULL};
    struct allowedips_owner o[2] = {{NULL}};
    struct tn_prefix bad = {{{0}}, 129};
    int n;

    (void)state;
    assert_int_equal(replace(&t, &o[0], "10.0.0.0/8 10.0.0.1/32"), 0);
    assert_int_equal(replace(&t, &o[1], "10.1.0.0/16"), 0);
    assert_int_equal(allowedips_replace(&t, &o[1], &bad, 1), -1);
    for (n = 0; n < 100; n++) {
        int rv;

        fail_after = n;
        rv = replace(&t, &o[1], "10.0.0.1/32 10.2.0.0/16 fd::1/128");
        fail_after = -1;
        if (rv == 0)
            break;
        assert_int_equal(owner(&t, o, "10.0.0.1"), 0);
        assert_int_equal(owner(&t, o, "10.1.0.1"), 1);
        assert_int_equal(owner(&t, o, "fd::1"), -1);
    }
    assert_in_range(n, 1, 99);
    assert_int_equal(owner(&t, o, "10.0.0.1"), 1);
    assert_int_equal(owner(&t, o, "10.1.0.1"), 0);
    allowedips_remove(&t, &o[0]);
    allowedips_remove(&t, &o[1]);
    assert_null(t.root);
}

/* The plain list. */
#define OWNERS  20
#define ENTRIES 4000

static struct {
    struct tn_prefix p;
    int owner;
} model[ENTRIES];
static size_t model_count;
static uint64_t rng = 42;

static uint64_t
random_bits(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static bool
same(const struct tn_prefix *a, const struct tn_prefix *b)
{
    return a->bits == b->bits && tn_addr_equal(&a->addr, &b->addr);
}

static void
model_remove_owner(int o)
{
    for (size_t i = 0; i < model_count;)
        if (model[i].owner == o)
            model[i] = model[--model_count];
        else
            i++;
}

static void
model_add(const struct tn_prefix *p, int o)
{
    for (size_t i = 0; i < model_count; i++) {
        if (same(&model[i].p, p)) {
            model[i].owner = o;
            return;
        }
    }
    model[model_count].p = *p;
    model[model_count++].owner = o;
}

static int
model_find(const struct tn_addr *a)
{
    int best = -1, bits = tn_addr_is4(a) ? 95 : -1;

    for (size_t i = 0; i < model_count; i++) {
        if (model[i].p.bits > bits && tn_prefix_contains(&model[i].p, a)) {
            bits = model[i].p.bits;
            best = model[i].owner;
        }
    }
    return best;
}

/* Few distinct bits, so that prefixes nest, touch and coincide. */
static struct tn_addr
random_addr(void)
{
    struct tn_addr a = {{0}};

    if (random_bits() % 2)
        a = tn_addr_from4((const uint8_t[]){10, 0, 0, 0});
    for (int i = tn_addr_is4(&a) ? 12 : 0; i < 16; i++)
        if (random_bits() % 3 == 0)
            a.b[i] ^= (uint8_t)(1 << random_bits() % 8);
    return a;
}

static struct tn_prefix
random_prefix(void)
{
    struct tn_prefix p = {random_addr(), 0};

    p.bits = (uint8_t)(random_bits() % 129);
    if (tn_addr_is4(&p.addr))
        p.bits = (uint8_t)(96 + random_bits() % 33);
    for (unsigned i = p.bits; i < 128; i++)
        p.addr.b[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
    return p;
}

static void
model_drop(const struct tn_prefix *p, int o)
{
    for (size_t i = 0; i < model_count; i++)
        if (model[i].owner == o && same(&model[i].p, p)) {
            model[i] = model[--model_count];
            return;
        }
}

/* Some prefixes more, and some less, of which not all were there. */
static void
add_and_drop(struct allowedips *t, struct allowedips_owner *o, int who)
{
    struct tn_prefix p[4];
    size_t n = random_bits() % 3;

    for (size_t i = 0; i < n; i++) {
        p[i] = random_prefix();
        model_add(&p[i], who);
    }
    assert_int_equal(allowedips_add(t, &o[who], p, n), 0);
    for (size_t i = 0; i < 4; i++) {
        p[i] = i < 2 || model_count == 0 ? random_prefix()
                                         : model[random_bits() % model_count].p;
        model_drop(&p[i], who);
    }
    allowedips_drop(t, &o[who], p, 4);
}

static void
test_model(void **state)
{
    struct allowedips t = {NULL};
    struct allowedips_owner o[OWNERS] = {{NULL}};

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct tn_prefix p[16];
        size_t n = random_bits() % 17;
        int who = (int)(random_bits() % OWNERS);

        model_remove_owner(who);
        for (size_t i = 0; i < n; i++) {
            p[i] = random_prefix();
            model_add(&p[i], who);
        }
        if (n == 0)
            allowedips_remove(&t, &o[who]);
        else
            assert_int_equal(allowedips_replace(&t, &o[who], p, n), 0);
        add_and_drop(&t, o, (int)(random_bits() % OWNERS));
        for (int i = 0; i < 30; i++) {
            struct tn_addr a = random_addr();
            struct allowedips_owner *found;

            if (model_count > 0 && i % 2)
                a = model[random_bits() % model_count].p.addr;
            found = allowedips_lookup(&t, &a);
            assert_int_equal(found != NULL ? found - o : -1, model_find(&a));
        }
    }
    for (int i = 0; i < OWNERS; i++)
        allowedips_remove(&t, &o[i]);
    assert_null(t.root);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_move_and_replace),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_model),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

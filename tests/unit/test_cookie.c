/* links: tailnetd/wg/cookie.c core/tn_addr.c */
/* links: tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* libs: -lsodium -lcrypto */
/*
 * test_cookie.c: both MACs, cookie replies, the secret's life and the rate
 * limit.
 */
#include "wg_vector.h"

#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "../../ngx_tailnet_module/tailnetd/wg/cookie.h"

#define LIFE 120000

static struct tn_endpoint
endpoint(const char *text)
{
    struct tn_endpoint e;

    assert_int_equal(tn_endpoint_parse(&e, text, strlen(text)), 0);
    return e;
}

static void
test_vector(void **state)
{
    struct cookie_maker m = {.awaits = false};
    struct cookie_checker c;
    struct msg_cookie reply;
    uint8_t pub[32], msg[148], want[16];

    (void)state;
    vector_get("responder static pub", pub, 32);
    vector_get("MSG1 (148)", msg, sizeof(msg));
    vector_get("cookie reply (64)", (uint8_t *)&reply, sizeof(reply));
    cookie_checker_init(&c, pub);
    assert_true(cookie_check_mac1(&c, msg, sizeof(msg)));

    memset(msg + 116, 0xee, 32);
    cookie_add_macs(&m, msg, sizeof(msg), pub, LIFE, 1000);
    vector_check("MSG1 (148)", msg, sizeof(msg));
    assert_true(cookie_take_reply(&m, &reply, pub, 1000));
    vector_check("cookie (16)", m.cookie, 16);
    cookie_add_macs(&m, msg, sizeof(msg), pub, LIFE, 1001);
    vector_get("mac2 of MSG1 w/ cookie", want, 16);
    assert_memory_equal(msg + 132, want, 16);
}

static void
test_mac1(void **state)
{
    struct cookie_maker m = {.awaits = false};
    struct cookie_checker c, other;
    uint8_t pub[32] = {1}, msg[92] = {2};

    (void)state;
    cookie_checker_init(&c, pub);
    cookie_add_macs(&m, msg, sizeof(msg), pub, LIFE, 0);
    for (size_t i = 0; i < sizeof(msg); i++) {
        msg[i] ^= 4;
        assert_int_equal(cookie_check_mac1(&c, msg, sizeof(msg)), i >= 76);
        msg[i] ^= 4;
    }
    pub[0] = 9;
    cookie_checker_init(&other, pub);
    assert_false(cookie_check_mac1(&other, msg, sizeof(msg)));
}

struct pair {
    struct cookie_checker c;
    struct cookie_maker m;
    uint8_t pub[32];
    uint8_t msg[148];
    struct msg_cookie reply;
    struct tn_endpoint src;
};

static void
start(struct pair *p)
{
    uint8_t secret[COOKIE_SECRET_LEN] = {5};

    memset(p, 0, sizeof(*p));
    p->pub[0] = 1;
    p->src = endpoint("192.0.2.1:4000");
    cookie_checker_init(&p->c, p->pub);
    cookie_set_secret(&p->c, secret, 0);
    msg_put32(p->msg + 4, 0x11223344);
    cookie_add_macs(&p->m, p->msg, sizeof(p->msg), p->pub, LIFE, 0);
}

static void
answer(struct pair *p)
{
    uint8_t nonce[24] = {6};

    cookie_make_reply(&p->c, &p->reply, p->msg, sizeof(p->msg), &p->src, nonce);
}

/* A reply serves the one message it answers, once. */
static void
test_reply(void **state)
{
    struct pair p;

    (void)state;
    start(&p);
    answer(&p);
    assert_int_equal(msg_get32(p.reply.type), MSG_COOKIE);
    assert_int_equal(msg_get32(p.reply.receiver), 0x11223344);
    for (size_t i = 8; i < sizeof(p.reply); i++) {
        ((uint8_t *)&p.reply)[i] ^= 1;
        assert_false(cookie_take_reply(&p.m, &p.reply, p.pub, 0));
        ((uint8_t *)&p.reply)[i] ^= 1;
    }
    assert_true(cookie_take_reply(&p.m, &p.reply, p.pub, 0));
    assert_false(cookie_take_reply(&p.m, &p.reply, p.pub, 0));

    p.msg[20] ^= 1; /* the next message has another mac1 */
    cookie_add_macs(&p.m, p.msg, sizeof(p.msg), p.pub, LIFE, 0);
    assert_false(cookie_take_reply(&p.m, &p.reply, p.pub, 0));

    start(&p);
    memset(&p.m, 0, sizeof(p.m)); /* never asked */
    answer(&p);
    assert_false(cookie_take_reply(&p.m, &p.reply, p.pub, 0));
}

/* mac2 proves address and port, under the present secret, for its life. */
static void
test_mac2(void **state)
{
    struct tn_endpoint addr = endpoint("192.0.2.2:4000");
    struct tn_endpoint port = endpoint("192.0.2.1:4001");
    uint8_t secret[COOKIE_SECRET_LEN] = {7};
    struct pair p;

    (void)state;
    start(&p);
    assert_false(cookie_check_mac2(&p.c, p.msg, sizeof(p.msg), &p.src));
    answer(&p);
    assert_true(cookie_take_reply(&p.m, &p.reply, p.pub, 10));
    cookie_add_macs(&p.m, p.msg, sizeof(p.msg), p.pub, LIFE, 10 + LIFE);
    assert_true(cookie_check_mac2(&p.c, p.msg, sizeof(p.msg), &p.src));
    assert_false(cookie_check_mac2(&p.c, p.msg, sizeof(p.msg), &addr));
    assert_false(cookie_check_mac2(&p.c, p.msg, sizeof(p.msg), &port));
    for (size_t i = 0; i < sizeof(p.msg); i++) {
        p.msg[i] ^= 1;
        assert_false(cookie_check_mac2(&p.c, p.msg, sizeof(p.msg), &p.src));
        p.msg[i] ^= 1;
    }

    assert_false(cookie_secret_stale(&p.c, LIFE, LIFE - 1));
    assert_true(cookie_secret_stale(&p.c, LIFE, LIFE));
    cookie_set_secret(&p.c, secret, LIFE);
    assert_false(cookie_secret_stale(&p.c, LIFE, LIFE));
    assert_false(cookie_check_mac2(&p.c, p.msg, sizeof(p.msg), &p.src));

    /* An old cookie is not used any more. */
    cookie_add_macs(&p.m, p.msg, sizeof(p.msg), p.pub, LIFE, 11 + LIFE);
    for (int i = 132; i < 148; i++)
        assert_int_equal(p.msg[i], 0);
}

/* Before its first secret a checker takes no mac2 at all. */
static void
test_no_secret(void **state)
{
    struct pair p;

    (void)state;
    start(&p);
    cookie_checker_init(&p.c, p.pub);
    assert_true(cookie_secret_stale(&p.c, LIFE, 0));
    answer(&p);
    assert_true(cookie_take_reply(&p.m, &p.reply, p.pub, 0));
    cookie_add_macs(&p.m, p.msg, sizeof(p.msg), p.pub, LIFE, 0);
    assert_false(cookie_check_mac2(&p.c, p.msg, sizeof(p.msg), &p.src));
}

/* ${n} tries at ${now}; how many are allowed. */
static int
tries(struct cookie_limiter *l, const struct tn_addr *a, int n, uint64_t now)
{
    int allowed = 0;

    while (n-- > 0)
        allowed += cookie_limiter_allow(l, a, now);
    return allowed;
}

static void
test_rate(void **state)
{
    uint8_t key[16] = {1};
    struct cookie_limiter *l = cookie_limiter_new(key);
    struct tn_addr a = endpoint("192.0.2.1:1").addr;
    struct tn_addr b = endpoint("192.0.2.2:1").addr;
    struct tn_addr six = endpoint("[2001:db8:0:1::1]:1").addr;
    struct tn_addr near = endpoint("[2001:db8:0:1:ffff::2]:1").addr;
    struct tn_addr far = endpoint("[2001:db8:0:2::1]:1").addr;
    int allowed = 0;

    (void)state;
    assert_non_null(l);
    assert_int_equal(tries(l, &a, 20, 1000), 5);
    assert_int_equal(tries(l, &b, 20, 1000), 5);
    assert_int_equal(tries(l, &a, 20, 1049), 0);
    assert_int_equal(tries(l, &a, 20, 1050), 1);
    assert_int_equal(tries(l, &a, 20, 1150), 2);
    assert_int_equal(tries(l, &a, 20, 9000), 5);
    for (uint64_t t = 10000; t < 20000; t++)
        allowed += cookie_limiter_allow(l, &a, t);
    assert_in_range(allowed, 10 * COOKIE_RATE, 10 * COOKIE_RATE + 5);

    assert_int_equal(tries(l, &six, 3, 1000), 3);
    assert_int_equal(tries(l, &near, 20, 1000), 2);
    assert_int_equal(tries(l, &far, 20, 1000), 5);
    cookie_limiter_free(l);
    cookie_limiter_free(NULL);
}

/* The table is finite: more busy sources than it holds are refused, and one
 * that was busy gets its place again once others are quiet. */
static void
test_bounded(void **state)
{
    enum { ALL = 4 * COOKIE_LIMIT_SETS * COOKIE_LIMIT_WAYS };
    uint8_t key[16] = {1};
    struct cookie_limiter *l = cookie_limiter_new(key);
    int allowed = 0;

    (void)state;
    for (int i = 0; i < ALL; i++) {
        struct tn_addr a = tn_addr_from4((const uint8_t[]){
            11, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i});

        allowed += cookie_limiter_allow(l, &a, 1000);
    }
    assert_in_range(allowed, ALL / 8, ALL / 4);
    for (int i = 0; i < ALL; i += 1024) {
        struct tn_addr a = tn_addr_from4((const uint8_t[]){
            12, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i});

        assert_int_equal(tries(l, &a, 20, 2000), 5);
    }
    cookie_limiter_free(l);
}

static int
set_up(void **state)
{
    (void)state;
    return noise_init();
}

static int
tear_down(void **state)
{
    (void)state;
    noise_exit();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector),
        cmocka_unit_test(test_mac1),
        cmocka_unit_test(test_reply),
        cmocka_unit_test(test_mac2),
        cmocka_unit_test(test_no_secret),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_bounded),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

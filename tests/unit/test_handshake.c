/* links: tailnetd/crypto/aead.c tailnetd/crypto/noise.c */
/* links: tailnetd/crypto/ipsecmb.c */
/* links: tailnetd/wg/handshake.c tailnetd/wg/cookie.c core/tn_addr.c */
/* libs: -lsodium -lcrypto */
/*
 * test_handshake.c: both roles of the Noise handshake, byte for byte with the
 * recorded messages, and every field's refusal.
 */
#include "wg_vector.h"

#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "../../ngx_tailnet_module/tailnetd/wg/cookie.h"
#include "../../ngx_tailnet_module/tailnetd/wg/handshake.h"

static const uint8_t zero[512];

struct fixture {
    struct handshake_identity initiator, responder;
    uint8_t initiator_eph[32], responder_eph[32], tai64n[12], psk[32];
    struct handshake pending; /* the initiator's */
    struct msg_initiation m1;
    struct msg_response m2;
    struct handshake_keys responder_keys;
};

/* Responder's half on ${m1}; 0, or the step that failed. */
static int
respond(struct fixture *f, const struct msg_initiation *m1)
{
    struct handshake hs;
    uint8_t tai64n[12];

    if (handshake_read_static(&hs, &f->responder, m1) == -1) {
        assert_memory_equal(&hs, zero, sizeof(hs));
        return 1;
    }
    assert_memory_equal(hs.remote_static, f->initiator.public_key, 32);
    if (handshake_read_timestamp(&hs, &f->responder, m1, tai64n) == -1) {
        assert_memory_equal(&hs, zero, sizeof(hs));
        return 2;
    }
    assert_memory_equal(tai64n, f->tai64n, 12);
    assert_int_equal(handshake_create_response(&hs, f->psk, f->responder_eph,
                         &f->m2, &f->responder_keys),
        0);
    assert_memory_equal(&hs, zero, sizeof(hs));
    return 0;
}

static int
set_up(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    if (noise_init() == -1)
        return -1;
    vector_get("initiator static priv", f.initiator.private_key, 32);
    vector_get("initiator static pub", f.initiator.public_key, 32);
    vector_get("responder static priv", f.responder.private_key, 32);
    vector_get("responder static pub", f.responder.public_key, 32);
    vector_get("initiator eph priv", f.initiator_eph, 32);
    vector_get("responder eph priv", f.responder_eph, 32);
    vector_get("tai64n 1700000000.305419896", f.tai64n, 12);
    msg_put32(f.m1.type, MSG_INITIATION);
    msg_put32(f.m1.sender, 0x01020304);
    msg_put32(f.m2.type, MSG_RESPONSE);
    msg_put32(f.m2.sender, 0x0a0b0c0d);
    msg_put32(f.m2.receiver, 0x01020304);
    if (handshake_create_initiation(&f.pending, &f.initiator,
            f.responder.public_key, f.initiator_eph, f.tai64n, &f.m1) == -1)
        return -1;
    *state = &f;
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    noise_exit();
    return 0;
}

static void
test_vector(void **state)
{
    struct fixture *f = *state;
    struct cookie_maker a = {.awaits = false}, b = {.awaits = false};
    struct handshake_keys keys;

    vector_check("ck after init", f->pending.ck, 32);
    vector_check("hash after init", f->pending.h, 32);
    cookie_add_macs(&a, (uint8_t *)&f->m1, sizeof(f->m1),
        f->responder.public_key, 120000, 0);
    vector_check("MSG1 (148)", (uint8_t *)&f->m1, sizeof(f->m1));

    assert_int_equal(respond(f, &f->m1), 0);
    cookie_add_macs(&b, (uint8_t *)&f->m2, sizeof(f->m2),
        f->initiator.public_key, 120000, 0);
    vector_check("MSG2 (92)", (uint8_t *)&f->m2, sizeof(f->m2));
    vector_check("initiator recv key", f->responder_keys.send, 32);
    vector_check("initiator send key", f->responder_keys.receive, 32);

    assert_int_equal(handshake_read_response(
                         &f->pending, &f->initiator, f->psk, &f->m2, &keys),
        0);
    vector_check("initiator send key", keys.send, 32);
    vector_check("initiator recv key", keys.receive, 32);
}

/* Any bit of a Noise field that changes is found, in the step that reads it;
 * the header is no part of the transcript. */
static void
test_initiation_bits(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < offsetof(struct msg_initiation, mac1); i++) {
        struct msg_initiation m = f->m1;
        int want = i < 8 ? 0 : i < 88 ? 1 : 2;

        ((uint8_t *)&m)[i] ^= 0x10;
        assert_int_equal(respond(f, &m), want);
    }
}

static void
test_response_bits(void **state)
{
    struct fixture *f = *state;
    struct handshake before = f->pending;
    struct handshake_keys keys;

    assert_int_equal(respond(f, &f->m1), 0);
    for (size_t i = 12; i < offsetof(struct msg_response, mac1); i++) {
        struct msg_response m = f->m2;

        ((uint8_t *)&m)[i] ^= 0x10;
        assert_int_equal(handshake_read_response(
                             &f->pending, &f->initiator, f->psk, &m, &keys),
            -1);
    }
    /* None of that harmed the pending handshake. */
    assert_memory_equal(&f->pending, &before, sizeof(before));
    assert_int_equal(handshake_read_response(
                         &f->pending, &f->initiator, f->psk, &f->m2, &keys),
        0);
}

/* A preshared key is part of the session and must be the same. */
static void
test_psk(void **state)
{
    struct fixture *f = *state;
    struct handshake_keys keys;

    memset(f->psk, 3, sizeof(f->psk));
    assert_int_equal(respond(f, &f->m1), 0);
    assert_int_equal(handshake_read_response(
                         &f->pending, &f->initiator, zero, &f->m2, &keys),
        -1);
    assert_int_equal(handshake_read_response(
                         &f->pending, &f->initiator, f->psk, &f->m2, &keys),
        0);
    assert_memory_equal(keys.send, f->responder_keys.receive, 32);
    assert_memory_equal(keys.receive, f->responder_keys.send, 32);
}

/* Keys of low order make no handshake, in any place. */
static void
test_low_order(void **state)
{
    struct fixture *f = *state;
    struct msg_initiation m1 = f->m1;
    struct handshake_keys keys;
    struct handshake hs;
    struct msg_response m2;

    assert_int_equal(handshake_create_initiation(&hs, &f->initiator, zero,
                         f->initiator_eph, f->tai64n, &m1),
        -1);
    assert_memory_equal(&hs, zero, sizeof(hs));

    memset(m1.ephemeral, 0, 32);
    assert_int_equal(respond(f, &m1), 1);

    assert_int_equal(handshake_read_static(&hs, &f->responder, &f->m1), 0);
    memset(hs.remote_ephemeral, 0, 32);
    assert_int_equal(
        handshake_create_response(&hs, f->psk, f->responder_eph, &m2, &keys),
        -1);
    assert_memory_equal(&hs, zero, sizeof(hs));

    assert_int_equal(respond(f, &f->m1), 0);
    m2 = f->m2;
    memset(m2.ephemeral, 0, 32);
    assert_int_equal(
        handshake_read_response(&f->pending, &f->initiator, f->psk, &m2, &keys),
        -1);
}

/* A response belongs to one initiation. */
static void
test_other_handshake(void **state)
{
    struct fixture *f = *state;
    struct handshake other;
    struct handshake_keys keys;
    struct msg_initiation m1;

    assert_int_equal(respond(f, &f->m1), 0);
    f->initiator_eph[1] ^= 1;
    assert_int_equal(
        handshake_create_initiation(&other, &f->initiator,
            f->responder.public_key, f->initiator_eph, f->tai64n, &m1),
        0);
    assert_int_equal(
        handshake_read_response(&other, &f->initiator, f->psk, &f->m2, &keys),
        -1);
}

int
main(void)
{
#define HANDSHAKE(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        HANDSHAKE(test_vector),
        HANDSHAKE(test_initiation_bits),
        HANDSHAKE(test_response_bits),
        HANDSHAKE(test_psk),
        HANDSHAKE(test_low_order),
        HANDSHAKE(test_other_handshake),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/control/channel.c tailnetd/control/h2.c */
/* links: tailnetd/control/http1.c tailnetd/control/ts2021.c */
/* links: tailnetd/control/url.c tailnetd/control/message.c */
/* links: tailnetd/crypto/noise.c tailnetd/crypto/aead.c */
/* links: tailnetd/crypto/ipsecmb.c tailnetd/engine/keytext.c */
/* links: tailnetd/base64.c core/tn_addr.c */
/* libs: -lnghttp2 -ljansson -lsodium -lcrypto */
/*
 * test_channel.c: a channel whose owner ends it at the worst moments, and the
 * order in which ports are dialled, against a control server that is played by
 * hand; stream and loop are the test's own.
 */
#include "fake_loop.h"

#include <stdio.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/base64.h"
#include "../../ngx_tailnet_module/tailnetd/control/channel.h"
#include "../../ngx_tailnet_module/tailnetd/control/fetch.h"
#include "../../ngx_tailnet_module/tailnetd/control/ts2021.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/aead.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "../../ngx_tailnet_module/tailnetd/stream.h"

#define VERSION 131

/* ---- streams ---- */

struct stream {
    const struct stream_ops *ops;
    void *arg;
    uint16_t port;
    bool tls;
    char sent[65536];
    size_t len;
};

static struct stream *stream; /* the last that is open, or NULL */
static struct stream *other;  /* the one before it, while both are dialled */
static const char *host;      /* where all of them go to */

struct stream *
stream_new(const struct stream_to *to, const struct stream_ops *ops, void *arg)
{
    assert_string_equal(to->host, host);
    assert_null(other);
    other = stream;
    stream = calloc(1, sizeof(*stream));
    assert_non_null(stream);
    stream->ops = ops;
    stream->arg = arg;
    stream->port = to->port;
    stream->tls = to->trust != NULL;
    return stream;
}

void
stream_free(struct stream *s)
{
    if (s == NULL)
        return;
    if (s != other) {
        assert_ptr_equal(s, stream);
        stream = other;
    }
    other = NULL;
    free(s);
}

int
stream_send(struct stream *s, const void *data, size_t len)
{
    assert_non_null(s);
    assert_true(s == stream || s == other);
    assert_true(s->len + len < sizeof(s->sent));
    memcpy(s->sent + s->len, data, len);
    s->len += len;
    return 0;
}

/* The server's key is known. */
struct fetch *
fetch_new(const struct fetch_request *r,
    void (*done)(void *arg, const struct http1 *answer, const char *why),
    void *arg)
{
    (void)r;
    (void)done;
    (void)arg;
    fail();
    return NULL;
}

void
fetch_free(struct fetch *f)
{
    assert_null(f);
}

/* ---- the server ---- */

static uint8_t server[32] = {2}, machine[32] = {1};
static uint8_t h[32], ck[32], key[32], to_client[32];
static uint64_t count;

static void
mix_dh(const uint8_t priv[32], const uint8_t pub[32])
{
    uint8_t dh[32];

    assert_int_equal(noise_dh(dh, priv, pub), 0);
    noise_kdf2(ck, key, ck, dh, sizeof(dh));
}

/* The responder's part of the handshake, after ${init}. */
static void
respond(const uint8_t init[TS2021_INIT_LEN], uint8_t out[TS2021_RESP_LEN])
{
    static const char name[] = "Noise_IK_25519_ChaChaPoly_BLAKE2s",
                      prologue[] = "Tailscale Control Protocol v131";
    static const uint8_t nonce[AEAD_NONCE_LEN];
    uint8_t public[32], peer[32], none[1], re[32] = {9}, to_server[32];

    noise_public_key(public, server);
    noise_hash(h, name, sizeof(name) - 1, NULL, 0);
    memcpy(ck, h, sizeof(ck));
    noise_mix_hash(h, prologue, sizeof(prologue) - 1);
    noise_mix_hash(h, public, 32);
    noise_mix_hash(h, init + 5, 32);
    mix_dh(server, init + 5);
    assert_true(aead_field_open(peer, key, nonce, h, 32, init + 37, 48));
    noise_mix_hash(h, init + 37, 48);
    mix_dh(server, peer);
    assert_true(aead_field_open(none, key, nonce, h, 32, init + 85, 16));
    noise_mix_hash(h, init + 85, 16);

    noise_clamp(re);
    out[0] = 2;
    out[1] = 0;
    out[2] = TS2021_RESP_LEN - TS2021_HEADER_LEN;
    noise_public_key(out + 3, re);
    noise_mix_hash(h, out + 3, 32);
    mix_dh(re, init + 5);
    mix_dh(re, peer);
    aead_field_seal(out + 35, key, nonce, h, 32, NULL, 0);
    noise_kdf2(to_server, to_client, ck, NULL, 0);
    count = 0;
}

static void
say_bytes(const void *p, size_t len)
{
    if (stream != NULL)
        stream->ops->data(stream->arg, p, len);
}

/* One record. */
static void
say_plain(const void *p, size_t len)
{
    uint8_t out[TS2021_FRAME_MAX], nonce[AEAD_NONCE_LEN] = {0};

    nonce[11] = (uint8_t)count++;
    out[0] = 4;
    out[1] = (uint8_t)((len + TS2021_TAG_LEN) >> 8);
    out[2] = (uint8_t)(len + TS2021_TAG_LEN);
    aead_field_seal(out + 3, to_client, nonce, NULL, 0, p, len);
    say_bytes(out, 3 + len + TS2021_TAG_LEN);
}

#define YES                                \
    "HTTP/1.1 101 Switching Protocols\r\n" \
    "Upgrade: tailscale-control-protocol\r\n\r\n"

/* Up to the end of the handshake, by the stream. */
static void
shake_hands(void)
{
    static const char yes[] = YES, header[] = "X-Tailscale-Handshake: ";
    uint8_t init[TS2021_INIT_LEN + 2], answer[TS2021_RESP_LEN];
    const char *text, *end;
    size_t n;

    assert_non_null(stream);
    stream->ops->connected(stream->arg);
    text = memmem(stream->sent, stream->len, header, sizeof(header) - 1);
    assert_non_null(text);
    text += sizeof(header) - 1;
    end = strstr(text, "\r\n");
    assert_non_null(end);
    assert_int_equal(
        base64_decode(init, sizeof(init), text, (size_t)(end - text), &n), 0);
    assert_int_equal(n, TS2021_INIT_LEN);
    respond(init, answer);
    say_bytes(yes, sizeof(yes) - 1);
    say_bytes(answer, sizeof(answer));
}

/* ---- the owner ---- */

static struct channel *channel;
static int ups, downs, dones;
static bool free_when_done, down_dialling;
static char why_done[128], why_down[256];

static void
head(void *arg, const struct h2_answer *a)
{
    (void)arg;
    (void)a;
}

static void
data(void *arg, const uint8_t *p, size_t len)
{
    (void)arg;
    (void)p;
    (void)len;
}

static void
done(void *arg, const char *why)
{
    (void)arg;
    dones++;
    snprintf(why_done, sizeof(why_done), "%s", why == NULL ? "" : why);
    if (free_when_done) {
        channel_free(channel);
        channel = NULL;
    }
}

static const struct h2_ops requests = {
    .head = head, .data = data, .done = done};

static void
on_key(void *arg, const uint8_t k[32])
{
    (void)arg;
    (void)k;
    fail();
}

static void
on_up(void *arg)
{
    (void)arg;
    ups++;
    assert_true(h2_request(channel_h2(channel), "POST", "/machine/map", NULL,
                    "{}", 2, &requests, NULL) > 0);
}

static void
on_down(void *arg, const char *why, bool dialling)
{
    (void)arg;
    downs++;
    down_dialling = dialling;
    snprintf(why_down, sizeof(why_down), "%s", why);
}

static const struct channel_ops ops = {
    .key = on_key, .up = on_up, .down = on_down};

/* Before its first leg. */
static void
dial(const char *text, bool recent)
{
    static struct url url; /* ${host} is in it */
    uint8_t public[32];
    struct channel_config config = {.url = &url,
        .trust = (struct tls_trust *)&url, /* not looked into */
        .version = VERSION,
        .machine = machine,
        .server = public,
        .recent = recent};

    assert_int_equal(noise_init(), 0);
    noise_clamp(server);
    noise_clamp(machine);
    noise_public_key(public, server);
    assert_int_equal(url_parse(&url, text), 0);
    host = url.host;
    ups = downs = dones = 0;
    channel = channel_new(&config, &ops, NULL);
    assert_non_null(channel);
    assert_null(stream);
}

static void
bring_up(bool free_then)
{
    static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};

    free_when_done = free_then;
    dial("http://127.0.0.1:8080", false);
    sleep_ms(0);
    shake_hands();
    assert_int_equal(ups, 1);
    say_plain(settings, sizeof(settings));
    assert_int_equal(dones, 0);
}

/* An answer without a status: HTTP/2 ends the request while it has something
 * to send, and the owner has enough of it all. */
static const uint8_t no_status[] = {
    0, 0, 5, 1, 4, 0, 0, 0, 1, 0x00, 1, 'a', 1, 'b'};

static void
freed_while_sending(void **state)
{
    (void)state;
    bring_up(true);
    say_plain(no_status, sizeof(no_status));
    assert_int_equal(dones, 1);
    assert_non_null(strstr(why_done, "PROTOCOL_ERROR"));
    assert_null(stream);
    assert_int_equal(downs, 0);
    fake_loop_end();
}

/* ... and one who goes on. */
static void
request_ends_alone(void **state)
{
    (void)state;
    bring_up(false);
    say_plain(no_status, sizeof(no_status));
    assert_int_equal(dones, 1);
    assert_int_equal(downs, 0);
    assert_non_null(stream);
    assert_true(h2_request(channel_h2(channel), "HEAD", "/", NULL, NULL, 0,
                    &requests, NULL) > 0);
    channel_flush(channel);
    channel_free(channel);
    assert_null(stream);
    fake_loop_end();
}

/* A connection error is told once, and everything is gone. */
static void
down_by_garbage(void **state)
{
    static const uint8_t garbage[64] = {0xff, 0xff, 0xff, 0xff};

    (void)state;
    bring_up(false);
    say_plain(garbage, sizeof(garbage));
    assert_int_equal(downs, 1);
    assert_false(down_dialling);
    assert_non_null(strstr(why_down, "HTTP/2"));
    assert_null(channel_h2(channel));
    assert_null(stream);
    channel_free(channel);
    fake_loop_end();
}

/* ---- which ports, in which order ---- */

static const struct {
    const char *url;
    bool recent;
    unsigned port[2]; /* 0: there is no second one */
    bool tls[2];
} legs[] = {
    {"http://control.test", false, {80, 443}, {false, true}},
    {"http://control.test", true, {80, 443}, {false, true}},
    {"http://control.test:8080", false, {8080, 443}, {false, true}},
    {"https://control.test", false, {80, 443}, {false, true}},
    {"https://control.test", true, {443, 0}, {true, false}},
    {"https://control.test:8443", false, {8443, 0}, {true, false}},
    {"https://control.test:8443", true, {8443, 0}, {true, false}},
    {"http://localhost", false, {80, 0}, {false, false}},
    {"http://10.1.2.3", false, {80, 0}, {false, false}},
    {"http://127.0.0.1:8080", false, {8080, 0}, {false, false}},
    {"http://[fd00::1]:8080", false, {8080, 0}, {false, false}},
};

#define LEGS (sizeof(legs) / sizeof(legs[0]))

/* The last that was dialled is the ${n}th of a row. */
static void
is_leg(size_t row, unsigned n)
{
    assert_non_null(stream);
    if (stream->port != legs[row].port[n] || stream->tls != legs[row].tls[n])
        fail_msg("%s: %s port %u", legs[row].url, stream->tls ? "TLS" : "plain",
            stream->port);
}

/* The second leg half a second after the first, if nothing comes of that; and
 * in the end there is no success. */
static void
legs_in_turn(void **state)
{
    (void)state;
    for (size_t i = 0; i < LEGS; i++) {
        bool two = legs[i].port[1] != 0;

        dial(legs[i].url, legs[i].recent);
        sleep_ms(0);
        is_leg(i, 0);
        sleep_ms(CHANNEL_STAGGER_MS - 1);
        assert_null(other);
        sleep_ms(1);
        assert_int_equal(other != NULL, two);
        is_leg(i, two);
        sleep_ms(CHANNEL_DIAL_MS - CHANNEL_STAGGER_MS - 1);
        assert_int_equal(downs, 0);
        sleep_ms(1);
        assert_int_equal(downs, 1);
        assert_true(down_dialling);
        assert_non_null(strstr(why_down, "no success within 10 s"));
        assert_null(stream);
        channel_free(channel);
        fake_loop_end();
    }
}

/* ... at once where the first fails; where both do, that is the end. */
static void
legs_that_fail(void **state)
{
    (void)state;
    for (size_t i = 0; i < LEGS; i++) {
        dial(legs[i].url, legs[i].recent);
        sleep_ms(0);
        stream->ops->closed(stream->arg, "Connection refused");
        if (legs[i].port[1] != 0) {
            assert_int_equal(downs, 0);
            assert_null(other);
            is_leg(i, 1);
            stream->ops->closed(stream->arg, "Network is unreachable");
            assert_non_null(
                strstr(why_down, "HTTPS port 443: Network is unreachable"));
        } else {
            assert_non_null(strstr(why_down, "Connection refused"));
        }
        assert_int_equal(downs, 1);
        assert_true(down_dialling);
        assert_null(stream);
        channel_free(channel);
        fake_loop_end();
    }
}

/* Who has shaken hands first is it, and the other one is given up. */
static void
legs_race(void **state)
{
    static const uint8_t settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0};

    (void)state;
    for (unsigned second = 0; second < 2; second++) {
        dial("https://control.test", false);
        sleep_ms(CHANNEL_STAGGER_MS);
        assert_non_null(other);
        if (!second) {
            struct stream *s = stream;

            s->ops->connected(s->arg); /* and no answer comes */
            stream = other;
            other = s;
        }
        shake_hands();
        assert_int_equal(ups, 1);
        assert_null(other);
        assert_non_null(stream);
        assert_int_equal(stream->tls, second);
        say_plain(settings, sizeof(settings));
        sleep_ms(2 * CHANNEL_DIAL_MS);
        assert_int_equal(downs, 0);
        channel_free(channel);
        assert_null(stream);
        fake_loop_end();
    }
}

/* ---- servers that refuse ---- */

#define WORDS \
    "handshake of a machine that this control server does not serve any more"

/* Its words come at once or in pieces, and are longer than a handshake. */
static void
handshake_refused(void **state)
{
    static const char words[] = YES "\3\0" WORDS;
    char text[sizeof(words)];
    size_t len = sizeof(words) - 1, head = sizeof(YES) + 1;

    (void)state;
    memcpy(text, words, sizeof(words));
    memmove(text + head + 1, text + head, len - head);
    text[head] = (char)(len++ - head);
    for (size_t piece = 1; piece <= len; piece++) {
        dial("http://127.0.0.1:8080", false);
        sleep_ms(0);
        stream->ops->connected(stream->arg);
        for (size_t i = 0; i < len; i += piece)
            say_bytes(text + i, len - i < piece ? len - i : piece);
        assert_int_equal(downs, 1);
        assert_true(down_dialling);
        assert_non_null(strstr(why_down, WORDS));
        channel_free(channel);
        fake_loop_end();
    }
}

/* The status is told, however long the page is that comes with it. */
static void
upgrade_refused(void **state)
{
    static const char no[] = "HTTP/1.1 404 Not Found\r\n"
                             "Content-Length: 65536\r\n\r\n<html>";

    (void)state;
    dial("http://127.0.0.1:8080", false);
    sleep_ms(0);
    stream->ops->connected(stream->arg);
    say_bytes(no, sizeof(no) - 1);
    assert_int_equal(downs, 1);
    assert_non_null(strstr(why_down, "refuses the upgrade (HTTP status 404)"));
    channel_free(channel);
    fake_loop_end();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freed_while_sending),
        cmocka_unit_test(request_ends_alone),
        cmocka_unit_test(down_by_garbage),
        cmocka_unit_test(legs_in_turn),
        cmocka_unit_test(legs_that_fail),
        cmocka_unit_test(legs_race),
        cmocka_unit_test(handshake_refused),
        cmocka_unit_test(upgrade_refused),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/control/http1.c */
/*
 * test_http1.c: answers of HTTP/1.1 servers, good and bad, in every split.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/control/http1.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct sample {
    const char *text;
    enum http1_verdict verdict; /* after text and the connection's end */
    unsigned status;
    const char *body;
    const char *left; /* what belongs to somebody else */
};

static const struct sample samples[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", HTTP1_COMPLETE, 200,
        "hi", ""},
    {"HTTP/1.1 200\r\ncontent-length:2\r\n\r\nhimore", HTTP1_COMPLETE, 200,
        "hi", "more"},
    {"HTTP/1.0 404 Not Found\n\nuntil the end", HTTP1_COMPLETE, 404,
        "until the end", ""},
    {"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n\2\3", HTTP1_COMPLETE, 101,
        "", "\2\3"},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", HTTP1_COMPLETE,
        204, "", ""},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
     "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\nX",
        HTTP1_COMPLETE, 200, "abcde", "X"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", HTTP1_COMPLETE, 200, "",
        ""},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", HTTP1_BAD, 200, NULL,
        NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n", HTTP1_BAD, 200, NULL,
        NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", HTTP1_BAD, 200, NULL,
        NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        HTTP1_BAD, 200, NULL, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HTTP1_BAD, 200, NULL,
        NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", HTTP1_BAD,
        200, NULL, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        HTTP1_BAD, 200, NULL, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
        HTTP1_BAD, 200, NULL, NULL},
    {"HTTP/1.1 200 OK\r\n folded\r\n\r\n", HTTP1_BAD, 200, NULL, NULL},
    {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", HTTP1_BAD, 200, NULL, NULL},
    {"HTTP/2 200 OK\r\n\r\n", HTTP1_BAD, 0, NULL, NULL},
    {"HTTP/1.1 2000 OK\r\n\r\n", HTTP1_BAD, 0, NULL, NULL},
    {"HTTP/1.1 abc\r\n\r\n", HTTP1_BAD, 0, NULL, NULL},
    {"SSH-2.0-OpenSSH\r\n", HTTP1_BAD, 0, NULL, NULL},
    {"", HTTP1_BAD, 0, NULL, NULL},
};

static void
check(const struct sample *s, size_t cut)
{
    size_t len = strlen(s->text), used, total = 0;
    enum http1_verdict v;
    struct http1 h;

    http1_init(&h, 64, false);
    v = http1_feed(&h, (const uint8_t *)s->text, cut, &used);
    total += used;
    if (v == HTTP1_MORE) {
        v = http1_feed(&h, (const uint8_t *)s->text + cut, len - cut, &used);
        total += used;
    }
    if (v == HTTP1_MORE)
        v = http1_eof(&h);
    assert_int_equal(v, s->verdict);
    assert_int_equal(h.status, s->status);
    if (v == HTTP1_BAD) {
        assert_non_null(h.error);
    } else {
        assert_int_equal(h.bodylen, strlen(s->body));
        if (h.bodylen > 0)
            assert_memory_equal(h.body, s->body, h.bodylen);
        assert_string_equal(s->text + total, s->left);
    }
    http1_free(&h);
}

static void
answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(samples); i++)
        for (size_t cut = 0; cut <= strlen(samples[i].text); cut++)
            check(&samples[i], cut);
}

static void
headers(void **state)
{
    static const char text[] = "HTTP/1.1 101 S\r\nUPGRADE:  proto \t\r\n"
                               "Retry-After:120\r\n\r\n";
    struct http1 h;
    size_t used;

    (void)state;
    http1_init(&h, 0, false);
    assert_int_equal(
        http1_feed(&h, (const uint8_t *)text, sizeof(text) - 1, &used),
        HTTP1_COMPLETE);
    assert_string_equal(h.upgrade, "proto");
    assert_string_equal(h.retry_after, "120");
    http1_free(&h);
}

static void
head_request(void **state)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    struct http1 h;
    size_t used;

    (void)state;
    http1_init(&h, 0, true);
    assert_int_equal(
        http1_feed(&h, (const uint8_t *)text, sizeof(text) - 1, &used),
        HTTP1_COMPLETE);
    http1_free(&h);
}

static void
long_head(void **state)
{
    static uint8_t text[HTTP1_HEAD_MAX + 64];
    struct http1 h;
    size_t used;

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "HTTP/1.1 200 OK\r\nX: ", 20);
    http1_init(&h, 64, false);
    assert_int_equal(http1_feed(&h, text, sizeof(text), &used), HTTP1_BAD);
    assert_string_equal(h.error, "the head is too long");
    assert_true(used <= HTTP1_HEAD_MAX + 1);
    http1_free(&h);
}

static void
any_bytes(void **state)
{
    static const char good[] =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n\r\n"
        "5\r\nabcde\r\n0\r\n\r\n";
    char text[sizeof(good)];
    uint32_t seed = 7;
    struct http1 h;
    size_t used;

    (void)state;
    for (int i = 0; i < 50000; i++) {
        memcpy(text, good, sizeof(good));
        for (int j = 0; j < 3; j++) {
            seed = seed * 1664525 + 1013904223;
            text[(seed >> 16) % (sizeof(good) - 1)] = (char)(seed >> 8);
        }
        http1_init(&h, 64, false);
        (void)http1_feed(&h, (const uint8_t *)text, sizeof(good) - 1, &used);
        (void)http1_eof(&h);
        assert_true(h.bodylen <= 64);
        http1_free(&h);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),
        cmocka_unit_test(headers),
        cmocka_unit_test(head_request),
        cmocka_unit_test(long_head),
        cmocka_unit_test(any_bytes),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

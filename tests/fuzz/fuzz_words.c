/* links: tailnetd/control/url.c tailnetd/control/message.c */
/* links: tailnetd/control/message_oauth.c tailnetd/engine/keytext.c */
/* links: tailnetd/base64.c core/tn_addr.c */
/* libs: -ljansson */
/* max_len: 4096 */
/*
 * Short texts of a control server and an API server, by the first byte: URLs,
 * keys, base64, answers to requests; and an OAuth client secret with options.
 */
#include <ctype.h>
#include <strings.h>

#include "../../ngx_tailnet_module/tailnetd/base64.h"
#include "../../ngx_tailnet_module/tailnetd/control/message.h"
#include "../../ngx_tailnet_module/tailnetd/control/message_oauth.h"
#include "../../ngx_tailnet_module/tailnetd/engine/keytext.h"
#include "fuzz.h"

#define NOW 1800000000

/* A copy with its NUL, for free(3). */
static char *
string(const struct fuzz_input *in)
{
    char *s = malloc(in->len + 1);

    FUZZ_MUST(s != NULL);
    if (in->len > 0)
        memcpy(s, in->p, in->len);
    s[in->len] = '\0';
    return s;
}

static void
check_printable(const char *s, size_t size)
{
    size_t n = strnlen(s, size), i;

    FUZZ_MUST(n < size);
    for (i = 0; i < n; i++)
        FUZZ_MUST(s[i] >= ' ' && s[i] < 0x7f);
}

/* What is accepted can be said again, and asks for the same. */
static void
url(struct fuzz_input *in)
{
    char *s = string(in), authority[URL_AUTHORITY_MAX];
    char again[URL_AUTHORITY_MAX + URL_PATH_MAX + 16];
    struct url u, v;

    if (url_parse(&u, s) == 0) {
        check_printable(u.host, sizeof(u.host));
        check_printable(u.path, sizeof(u.path));
        FUZZ_MUST(u.host[0] != '\0' && u.path[0] == '/' && u.port != 0);
        FUZZ_MUST(strpbrk(u.host, "/?#@[] ") == NULL);
        FUZZ_MUST(strpbrk(u.path, "# ") == NULL);
        url_authority(&u, authority);
        FUZZ_MUST(strlen(authority) < sizeof(authority));
        snprintf(again, sizeof(again), "%s://%s%s", u.tls ? "https" : "http",
            authority, u.path);
        FUZZ_MUST(url_parse(&v, again) == 0);
        FUZZ_MUST(v.tls == u.tls && v.port == u.port);
        FUZZ_MUST(strcmp(v.host, u.host) == 0 && strcmp(v.path, u.path) == 0);
        FUZZ_MUST(url_is_private(&u) == url_is_private(&v));
    }
    free(s);
}

static void
check_key(int rc, const uint8_t key[KEYTEXT_BYTES])
{
    static const uint8_t none[KEYTEXT_BYTES];

    FUZZ_MUST(rc == 0 || (rc == -1 && memcmp(key, none, sizeof(none)) == 0));
}

/* The decoders agree with the plain ones. */
static void
keys(struct fuzz_input *in)
{
    char *s = fuzz_copy(in->p, in->len), back[BASE64_LEN(KEYTEXT_BYTES)];
    uint8_t key[KEYTEXT_BYTES], other[KEYTEXT_BYTES + 1];
    char hex[KEYTEXT_HEX_LEN + 1];
    size_t n, i;
    int rc;

    memset(key, 0x5a, sizeof(key));
    rc = keytext_hex(key, s, in->len);
    check_key(rc, key);
    if (rc == 0) {
        for (i = 0; i < KEYTEXT_BYTES; i++)
            snprintf(hex + 2 * i, 3, "%02x", key[i]);
        FUZZ_MUST(strncasecmp(hex, s, KEYTEXT_HEX_LEN) == 0);
    }
    memset(key, 0x5a, sizeof(key));
    rc = keytext_base64(key, s, in->len);
    check_key(rc, key);
    FUZZ_MUST((rc == 0) ==
              (base64_decode(other, sizeof(other), s, in->len, &n) == 0 &&
                  n == KEYTEXT_BYTES));
    if (rc == 0) {
        base64_encode(back, key, sizeof(key));
        FUZZ_MUST(memcmp(back, s, in->len) == 0);
    }
    memset(key, 0x5a, sizeof(key));
    rc = keytext_prefixed(key, "nodekey:", s, in->len);
    check_key(rc, key);
    FUZZ_MUST(rc != 0 || in->len == 8 + KEYTEXT_HEX_LEN);
    free(s);
}

/* Exactly what base64_encode() writes is decoded; no byte is written beyond
 * the room. */
static void
base64(struct fuzz_input *in)
{
    size_t room = fuzz_u8(in), n;
    char *s = fuzz_copy(in->p, in->len), *back;
    uint8_t *exact = malloc(room + 1);

    FUZZ_MUST(exact != NULL);
    exact[room] = 0x5a;
    if (base64_decode(exact, room, s, in->len, &n) == 0) {
        FUZZ_MUST(n <= room && in->len == (n + 2) / 3 * 4);
        back = malloc(BASE64_LEN(n));
        FUZZ_MUST(back != NULL);
        base64_encode(back, exact, n);
        FUZZ_MUST(memcmp(back, s, in->len) == 0);
        free(back);
    }
    FUZZ_MUST(exact[room] == 0x5a);
    free(exact);
    free(s);
}

static void
answers(struct fuzz_input *in)
{
    char *s = fuzz_copy(in->p, in->len), err[MESSAGE_ERROR_MAX] = "";
    struct message_registered r;
    uint8_t key[32] = {0};
    struct url u;

    if (message_registered(s, in->len, &r, err) == 0) {
        check_printable(r.url, sizeof(r.url));
        check_printable(r.error, sizeof(r.error));
        check_printable(r.login, sizeof(r.login));
        FUZZ_MUST(r.url[0] == '\0' || url_parse(&u, r.url) == 0);
    } else {
        FUZZ_MUST(err[0] != '\0' && strnlen(err, sizeof(err)) < sizeof(err));
    }
    err[0] = '\0';
    if (message_server_key(s, in->len, key, err) != 0)
        FUZZ_MUST(err[0] != '\0' && strnlen(err, sizeof(err)) < sizeof(err));
    free(s);
}

static void
show(struct fuzz_input *in)
{
    char *s = string(in), shown[MESSAGE_SHOWN_MAX];

    FUZZ_MUST(message_retry_after(s, NOW) <= 3600);
    message_show(shown, s, in->len);
    check_printable(shown, sizeof(shown));
    free(s);
}

/* What is accepted is asked for at a URL, with a form of its own characters. */
static void
oauth_secret(struct fuzz_input *in)
{
    char *s = string(in), err[MESSAGE_ERROR_MAX] = "", *form;
    const char *const tags[] = {"tag:a", "tag:\"b\""};
    struct message_oauth o;
    struct url u;
    size_t len;

    if (message_oauth_parse(&o, s, err) == 0) {
        FUZZ_MUST(strnlen(o.secret, sizeof(o.secret)) < sizeof(o.secret));
        FUZZ_MUST(url_parse(&u, o.base) == 0);
        FUZZ_MUST(u.tls || url_is_private(&u));
        if (message_oauth_is(o.secret, strlen(o.secret))) {
            form = message_oauth_token(&o, &len);
            FUZZ_MUST(form != NULL && strlen(form) == len);
            FUZZ_MUST(strpbrk(form, " ;#\r\n") == NULL);
            check_printable(form, len + 1);
            message_free(form, len);
        }
        form = message_oauth_key(&o, tags, 2, &len);
        FUZZ_MUST(form != NULL && strlen(form) == len);
        message_free(form, len);
    } else {
        check_printable(err, sizeof(err));
        FUZZ_MUST(err[0] != '\0');
    }
    free(s);
}

static void
oauth_answer(struct fuzz_input *in)
{
    char *s = fuzz_copy(in->p, in->len), err[MESSAGE_ERROR_MAX] = "";
    char out[MESSAGE_OAUTH_SECRET_MAX + 1], *at;

    if (message_oauth_answer(s, in->len, "key", out, err) == 0)
        FUZZ_MUST(out[0] != '\0' && strpbrk(out, " \r\n") == NULL);
    else
        FUZZ_MUST(out[0] == '\0' && err[0] != '\0');
    check_printable(out, sizeof(out));
    check_printable(err, sizeof(err));
    message_oauth_words(s, in->len, err);
    check_printable(err, sizeof(err));
    for (at = err; (at = strstr(at, "tskey-")) != NULL; at += 6)
        FUZZ_MUST(!isalnum((unsigned char)at[6]) && at[6] != '-');
    free(s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};

    switch (fuzz_u8(&in) % 7) {
    case 0:
        url(&in);
        break;
    case 1:
        keys(&in);
        break;
    case 2:
        base64(&in);
        break;
    case 3:
        answers(&in);
        break;
    case 4:
        oauth_secret(&in);
        break;
    case 5:
        oauth_answer(&in);
        break;
    default:
        show(&in);
    }
    return 0;
}

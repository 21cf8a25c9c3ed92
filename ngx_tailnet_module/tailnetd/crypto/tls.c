/*
 * tls.c: OpenSSL over two memory BIOs; see tls.h.
 */
#include "tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "../hex.h"

struct tls {
    SSL *ssl;
    BIO *in, *out; /* owned by ${ssl} */
    enum tls_state state;
    enum tls_verify verify;
    uint8_t pin[TLS_PIN_LEN];
    char error[TLS_ERROR_MAX];
};

/* A trust is its context: OpenSSL counts the references. */
static SSL_CTX *
context(struct tls_trust *t)
{
    return (SSL_CTX *)(void *)t;
}

static int
add_authorities(SSL_CTX *ctx, const void *pem, size_t len)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *bio = len > INT32_MAX ? NULL : BIO_new_mem_buf(pem, (int)len);
    int n = 0;
    X509 *cert;

    if (bio == NULL)
        return -1;
    while ((cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        n += X509_STORE_add_cert(store, cert) == 1;
        X509_free(cert);
    }
    ERR_clear_error(); /* the end of the text is one */
    BIO_free(bio);
    return n > 0 ? 0 : -1;
}

struct tls_trust *
tls_trust_new(const void *pem, size_t len, char err[TLS_ERROR_MAX])
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (ctx == NULL ||
        SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        snprintf(err, TLS_ERROR_MAX, "TLS is not available");
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(ctx, SSL_OP_CLEANSE_PLAINTEXT); /* keys come by it */
    if (pem == NULL ? SSL_CTX_set_default_verify_paths(ctx) != 1
                    : add_authorities(ctx, pem, len) != 0) {
        snprintf(err, TLS_ERROR_MAX, "%s",
            pem == NULL ? "the system's certificate authorities cannot be read"
                        : "no certificate in PEM form");
        SSL_CTX_free(ctx);
        return NULL;
    }
    return (struct tls_trust *)(void *)ctx;
}

int
tls_trust_add(struct tls_trust *t, const void *pem, size_t len)
{
    return add_authorities(context(t), pem, len);
}

struct tls_trust *
tls_trust_ref(struct tls_trust *t)
{
    return SSL_CTX_up_ref(context(t)) == 1 ? t : NULL;
}

void
tls_trust_free(struct tls_trust *t)
{
    SSL_CTX_free(context(t));
}

int
tls_pin(uint8_t pin[TLS_PIN_LEN], const char *text)
{
    static const char prefix[] = "sha256-raw:";
    const char *s = text + sizeof(prefix) - 1;
    int hi, lo;

    if (strncmp(text, prefix, sizeof(prefix) - 1) != 0 ||
        strlen(s) != 2 * TLS_PIN_LEN)
        return -1;
    for (size_t i = 0; i < TLS_PIN_LEN; i++) {
        hi = hex_digit(s[2 * i]);
        lo = hex_digit(s[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return -1;
        pin[i] = (uint8_t)(hi << 4 | lo);
    }
    return 0;
}

static bool
is_address(const char *s)
{
    unsigned char b[16];

    return inet_pton(AF_INET, s, b) == 1 || inet_pton(AF_INET6, s, b) == 1;
}

/* Whom the certificate has to name. */
static int
expect(SSL *ssl, const char *name)
{
    if (is_address(name))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name);
}

static int
offer(SSL *ssl, const char *protocol)
{
    unsigned char list[256];
    size_t len = strlen(protocol);

    if (len > 255)
        return 0;
    list[0] = (unsigned char)len;
    memcpy(list + 1, protocol, len);
    return SSL_set_alpn_protos(ssl, list, (unsigned)len + 1) == 0;
}

static int
set_up(struct tls *t, const struct tls_opts *o)
{
    if (!is_address(o->sni) && SSL_set_tlsext_host_name(t->ssl, o->sni) != 1)
        return -1;
    if (o->alpn != NULL && !offer(t->ssl, o->alpn))
        return -1;
    if (o->verify != TLS_VERIFY_CA) {
        SSL_set_verify(t->ssl, SSL_VERIFY_NONE, NULL);
        return 0;
    }
    SSL_set_verify(t->ssl, SSL_VERIFY_PEER, NULL);
    return expect(t->ssl, o->name != NULL ? o->name : o->sni) == 1 ? 0 : -1;
}

/* What to do about it, for what happens to people. */
static const char *
advice(long v)
{
    switch (v) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return " (\"control_ca\" can name its authority)";
    case X509_V_ERR_CERT_NOT_YET_VALID:
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return " (is this machine's clock right?)";
    default:
        return "";
    }
}

static void
fail(struct tls *t, const char *what)
{
    unsigned long e = ERR_peek_error();
    long v = SSL_get_verify_result(t->ssl);
    const char *reason = e == 0 ? NULL : ERR_reason_error_string(e);

    t->state = TLS_FAILED;
    if (t->verify == TLS_VERIFY_CA && v != X509_V_OK)
        snprintf(t->error, sizeof(t->error),
            "the server's certificate is not accepted: %s%s",
            X509_verify_cert_error_string(v), advice(v));
    else if (ERR_GET_REASON(e) == SSL_R_WRONG_VERSION_NUMBER)
        snprintf(t->error, sizeof(t->error),
            "%s: what answers at this port does not speak TLS", what);
    else
        snprintf(t->error, sizeof(t->error), "%s%s%s", what,
            reason == NULL ? "" : ": ", reason == NULL ? "" : reason);
    ERR_clear_error();
}

static void
check_pin(struct tls *t)
{
    X509 *cert = SSL_get1_peer_certificate(t->ssl);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (cert == NULL || X509_digest(cert, EVP_sha256(), digest, &len) != 1 ||
        len != TLS_PIN_LEN || memcmp(digest, t->pin, TLS_PIN_LEN) != 0)
        fail(t, "the server's certificate is not the pinned one");
    X509_free(cert);
}

static void
handshake(struct tls *t)
{
    int rc;

    ERR_clear_error();
    rc = SSL_do_handshake(t->ssl);
    if (rc == 1) {
        t->state = TLS_OPEN;
        if (t->verify == TLS_VERIFY_PIN)
            check_pin(t);
    } else if (SSL_get_error(t->ssl, rc) != SSL_ERROR_WANT_READ) {
        fail(t, "TLS handshake failed");
    }
}

struct tls *
tls_new(struct tls_trust *trust, const struct tls_opts *opts)
{
    struct tls *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return NULL;
    t->verify = opts->verify;
    memcpy(t->pin, opts->pin, sizeof(t->pin));
    t->ssl = SSL_new(context(trust));
    t->in = BIO_new(BIO_s_mem());
    t->out = BIO_new(BIO_s_mem());
    if (t->ssl == NULL || t->in == NULL || t->out == NULL) {
        BIO_free(t->in);
        BIO_free(t->out);
        SSL_free(t->ssl);
        free(t);
        return NULL;
    }
    BIO_set_mem_eof_return(t->in, -1);
    BIO_set_mem_eof_return(t->out, -1);
    SSL_set_bio(t->ssl, t->in, t->out);
    SSL_set_connect_state(t->ssl);
    if (set_up(t, opts) != 0) {
        ERR_clear_error();
        tls_free(t);
        return NULL;
    }
    handshake(t);
    return t;
}

void
tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    SSL_free(t->ssl);
    free(t);
}

enum tls_state
tls_state(const struct tls *t)
{
    return t->state;
}

const char *
tls_error(const struct tls *t)
{
    return t->error;
}

void
tls_feed(struct tls *t, const void *data, size_t len)
{
    if (t->state == TLS_FAILED || t->state == TLS_ENDED || len == 0)
        return;
    if (len > TLS_FEED_MAX || BIO_write(t->in, data, (int)len) != (int)len)
        fail(t, "no memory for what the server sent");
}

size_t
tls_read(struct tls *t, void *buf, size_t size)
{
    int rc;

    if (t->state == TLS_HANDSHAKE)
        handshake(t);
    if (t->state != TLS_OPEN || size == 0)
        return 0;
    ERR_clear_error();
    rc = SSL_read(t->ssl, buf, size > INT32_MAX ? INT32_MAX : (int)size);
    if (rc > 0)
        return (size_t)rc;
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        break;
    case SSL_ERROR_ZERO_RETURN:
        t->state = TLS_ENDED;
        break;
    default:
        fail(t, "TLS failed");
    }
    return 0;
}

int
tls_write(struct tls *t, const void *data, size_t len)
{
    const uint8_t *p = data;
    int rc, some;

    if (t->state != TLS_OPEN)
        return -1;
    while (len > 0) {
        some = len > 16384 ? 16384 : (int)len;
        ERR_clear_error();
        rc = SSL_write(t->ssl, p, some); /* a memory BIO takes all of it */
        if (rc <= 0) {
            fail(t, "TLS failed");
            return -1;
        }
        p += rc;
        len -= (size_t)rc;
    }
    return 0;
}

size_t
tls_take(struct tls *t, void *buf, size_t size)
{
    int n = BIO_read(t->out, buf, size > INT32_MAX ? INT32_MAX : (int)size);

    return n > 0 ? (size_t)n : 0;
}

void
tls_close(struct tls *t)
{
    if (t->state == TLS_OPEN || t->state == TLS_ENDED) {
        ERR_clear_error();
        (void)SSL_shutdown(t->ssl);
        ERR_clear_error();
    }
}

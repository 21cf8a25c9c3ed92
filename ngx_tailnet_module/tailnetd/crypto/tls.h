/*
 * tls.h: the client side of TLS 1.2 and 1.3, on buffers.
 *
 * Bytes from the network go in with tls_feed(), bytes for the network come out
 * with tls_take(); whoever has the socket moves them.  Nothing is given to the
 * application before the server's certificate was accepted.
 */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_ERROR_MAX 256
#define TLS_PIN_LEN   32
#define TLS_FEED_MAX  65536 /* bytes of one tls_feed() */

/* What accepts a certificate. */
enum tls_verify {
    TLS_VERIFY_CA,   /* it is for ${name}, signed by a trusted authority */
    TLS_VERIFY_PIN,  /* SHA-256 of the whole certificate (DER) is ${pin} */
    TLS_VERIFY_NONE, /* tests: every certificate */
};

struct tls_opts {
    enum tls_verify verify;
    const char *sni;  /* server name sent; an address is not sent */
    const char *name; /* expected in the certificate; NULL: ${sni} */
    uint8_t pin[TLS_PIN_LEN];
    const char *alpn; /* one protocol, or NULL: none is offered */
};

struct tls_trust;
struct tls;

/*
 * tls_trust_new(pem, len, err): the authorities of a PEM text, or the system's
 * (and SSL_CERT_FILE, SSL_CERT_DIR) for NULL.  NULL and a sentence in ${err}:
 * no memory, or not a certificate in it.  A trust is shared by any number of
 * connections and outlives its owner until the last of them is freed.
 */
struct tls_trust *tls_trust_new(
    const void *pem, size_t len, char err[TLS_ERROR_MAX]);
void tls_trust_free(struct tls_trust *t);

/* tls_trust_add(t, pem, len): authorities besides.  -1: no certificate. */
int tls_trust_add(struct tls_trust *t, const void *pem, size_t len);

/* One more owner, who frees it as well. */
struct tls_trust *tls_trust_ref(struct tls_trust *t);

/* tls_new(trust, opts): a connection that has its first bytes to send; the
 * strings are copied.  NULL: no memory, or ${sni} cannot be a name. */
struct tls *tls_new(struct tls_trust *trust, const struct tls_opts *opts);
void tls_free(struct tls *t);

/*
 * tls_pin(pin, text): DERP's CertName form "sha256-raw:" and 64 hexadecimal
 * digits.  Returns 0, or -1: another form.
 */
int tls_pin(uint8_t pin[TLS_PIN_LEN], const char *text);

enum tls_state {
    TLS_HANDSHAKE,
    TLS_OPEN,
    TLS_ENDED,  /* the server said so */
    TLS_FAILED, /* tls_error() says why */
};
enum tls_state tls_state(const struct tls *t);
const char *tls_error(const struct tls *t);

/* tls_feed(t, data, len): bytes that came, at most TLS_FEED_MAX. */
void tls_feed(struct tls *t, const void *data, size_t len);

/* tls_read(t, buf, size): the plaintext of what was fed; 0: no more now.  Call
 * it until 0 after each feed: it also runs the handshake. */
size_t tls_read(struct tls *t, void *buf, size_t size);

/* tls_write(t, data, len): seals all of it.  Returns 0, or -1: not open. */
int tls_write(struct tls *t, const void *data, size_t len);

/* tls_take(t, buf, size): bytes for the network; 0: none now. */
size_t tls_take(struct tls *t, void *buf, size_t size);

/* tls_close(t): says the end to the server. */
void tls_close(struct tls *t);

#endif

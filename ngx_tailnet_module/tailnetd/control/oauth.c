#include "oauth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../crypto/noise.h"
#include "fetch.h"

struct oauth {
    struct message_oauth is;
    struct tls_trust *trust;
    struct fetch *fetch;
    char *body; /* of the request for a key */
    size_t len;
    void (*done)(void *arg, const struct oauth_result *r);
    void *arg;
};

static void token_came(void *arg, const struct http1 *a, const char *why);
static void key_came(void *arg, const struct http1 *a, const char *why);

/* One step; ${token} is NULL in the first. */
static int
ask(struct oauth *o, const char *path, const char *token, const char *body,
    size_t len)
{
    char text[URL_PATH_MAX + 1], bearer[MESSAGE_OAUTH_SECRET_MAX + 16];
    struct url u;
    struct fetch_request r = {.url = &u,
        .method = "POST",
        .type = token == NULL ? "application/x-www-form-urlencoded"
                              : "application/json",
        .body = body,
        .len = len,
        .max = OAUTH_BODY_MAX,
        .timeout_ms = OAUTH_REQUEST_MS,
        .trust = o->trust};

    snprintf(text, sizeof(text), "%.*s%s", URL_PATH_MAX - 64, o->is.base, path);
    if (url_parse(&u, text) != 0)
        return -1;
    r.direct = !u.tls; /* a proxy would read the secret */
    if (token != NULL) {
        snprintf(bearer, sizeof(bearer), "Bearer %s", token);
        r.authorization = bearer;
    }
    o->fetch = fetch_new(&r, token == NULL ? token_came : key_came, o);
    noise_wipe(bearer, sizeof(bearer));
    return o->fetch == NULL ? -1 : 0;
}

/* Of the last request, and its answer, nothing is kept. */
static void
end(struct oauth *o)
{
    fetch_free(o->fetch);
    o->fetch = NULL;
}

static void
fail(struct oauth *o, const char *what, const char *why, bool soon,
    unsigned retry)
{
    char words[OAUTH_WORDS_MAX];
    struct oauth_result r = {.why = words, .soon = soon, .retry = retry};

    snprintf(words, sizeof(words), "the OAuth client secret: %.100s%s: %.300s",
        o->is.base, what, why);
    end(o);
    o->done(o->arg, &r); /* nothing after it: it may have freed us */
}

#define TOKEN_PATH "/api/v2/oauth/token"
#define KEYS_PATH  "/api/v2/tailnet/-/keys"

/* The secret ${name} of an answer; -1: failed, and told so. */
static int
take(struct oauth *o, const char *path, const char *name, const struct http1 *a,
    const char *why, char out[MESSAGE_OAUTH_SECRET_MAX + 1])
{
    char words[MESSAGE_ERROR_MAX], said[MESSAGE_ERROR_MAX + 64];

    if (a == NULL) {
        fail(o, path, why, true, 0);
        return -1;
    }
    if (a->status != 200) {
        message_oauth_words((const char *)a->body, a->bodylen, words);
        snprintf(said, sizeof(said), "HTTP status %u%s%s", a->status,
            words[0] == '\0' ? "" : ": ", words);
        fail(o, path, said, a->status >= 500 || a->status == 429,
            message_retry_after(a->retry_after, (int64_t)time(NULL)));
        return -1;
    }
    if (message_oauth_answer(
            (const char *)a->body, a->bodylen, name, out, words) != 0) {
        fail(o, path, words, false, 0);
        return -1;
    }
    return 0;
}

static void
token_came(void *arg, const struct http1 *a, const char *why)
{
    char token[MESSAGE_OAUTH_SECRET_MAX + 1] = "";
    struct oauth *o = arg;
    int rc;

    if (take(o, TOKEN_PATH, "access_token", a, why, token) == 0) {
        end(o);
        rc = ask(o, KEYS_PATH, token, o->body, o->len);
        if (rc != 0)
            fail(o, KEYS_PATH, "out of memory", true, 0);
    }
    noise_wipe(token, sizeof(token));
}

static void
key_came(void *arg, const struct http1 *a, const char *why)
{
    char key[MESSAGE_OAUTH_SECRET_MAX + 1] = "";
    struct oauth_result r = {.key = key};
    struct oauth *o = arg;

    if (take(o, KEYS_PATH, "key", a, why, key) == 0) {
        end(o);
        o->done(o->arg, &r);
    }
    noise_wipe(key, sizeof(key));
}

struct oauth *
oauth_new(const char *secret, const char *const *tags, size_t ntags,
    struct tls_trust *trust,
    void (*done)(void *arg, const struct oauth_result *r), void *arg,
    char err[OAUTH_WORDS_MAX])
{
    struct oauth *o = calloc(1, sizeof(*o));
    char why[MESSAGE_ERROR_MAX], *form;
    size_t len;
    int rc;

    snprintf(err, OAUTH_WORDS_MAX, "out of memory");
    if (o == NULL)
        return NULL;
    o->done = done;
    o->arg = arg;
    o->trust = trust;
    if (ntags == 0) {
        snprintf(err, OAUTH_WORDS_MAX,
            "an OAuth client secret makes keys for tagged nodes only: the node "
            "needs the option \"tags\"");
        goto failed;
    }
    if (message_oauth_parse(&o->is, secret, why) != 0) {
        snprintf(err, OAUTH_WORDS_MAX, "the OAuth client secret: %s", why);
        goto failed;
    }
    o->body = message_oauth_key(&o->is, tags, ntags, &o->len);
    form = o->body == NULL ? NULL : message_oauth_token(&o->is, &len);
    if (form == NULL)
        goto failed;
    rc = ask(o, TOKEN_PATH, NULL, form, len);
    message_free(form, len);
    noise_wipe(o->is.secret, sizeof(o->is.secret));
    if (rc == 0)
        return o;
failed:
    oauth_free(o);
    return NULL;
}

void
oauth_free(struct oauth *o)
{
    if (o == NULL)
        return;
    end(o);
    if (o->body != NULL)
        message_free(o->body, o->len);
    noise_wipe(o, sizeof(*o));
    free(o);
}

const char *
oauth_kind(const struct oauth *o)
{
    return o->is.ephemeral
               ? o->is.preauthorized ? "ephemeral, preauthorized" : "ephemeral"
           : o->is.preauthorized ? "preauthorized"
                                 : "neither ephemeral nor preauthorized";
}

#include "failure.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../magic/tsmp.h"
#include "node.h"
#include "say.h"

#define TAIL_MAX 80 /* " (not logged since ...: N)" */

/* ---- when to speak ---- */

/* The oldest goes, but not while it is seen whether it comes again: NULL, if
 * that is so of each. */
static struct failure_known *
room(struct failure_log *l, uint64_t patience, uint64_t now)
{
    struct failure_known *k;

    for (unsigned i = 0; i < FAILURE_KEPT; i++) {
        k = &l->known[l->next++ % FAILURE_KEPT];
        if (patience == 0 || k->since == 0 || k->told ||
            now - k->since >= FAILURE_WAIT_MS)
            return k;
    }
    return NULL;
}

static struct failure_known *
known(struct failure_log *l, const struct failure_what *what, uint64_t patience,
    uint64_t now)
{
    struct failure_known *k;

    for (k = l->known; k < l->known + FAILURE_KEPT; k++)
        if (k->since != 0 && now - k->since < FAILURE_AGAIN_MS &&
            memcmp(&k->what, what, sizeof(*what)) == 0)
            return k;
    k = room(l, patience, now);
    if (k != NULL)
        *k = (struct failure_known){.what = *what, .since = now};
    return k;
}

/* Whether ${what} is worth a line, which then ends in ${tail}. */
static bool
due(struct failure_log *l, const struct failure_what *what, uint64_t patience,
    uint64_t now, char tail[TAIL_MAX])
{
    struct failure_known *k = known(l, what, patience, now);

    if (k == NULL || k->told || now - k->since < patience ||
        (l->said != 0 && now - l->said < FAILURE_EVERY_MS)) {
        l->left_out++;
        l->unsaid++;
        return false;
    }
    k->told = true;
    l->said = now;
    tail[0] = '\0';
    if (l->left_out > 0)
        snprintf(tail, TAIL_MAX,
            " (not logged since the last such line: %" PRIu64 ")", l->left_out);
    l->left_out = 0;
    return true;
}

uint64_t
failure_unsaid(const struct failure *f)
{
    return f->strangers.unsaid + f->peers.unsaid + f->refusals.unsaid;
}

/* ---- handshakes ---- */

static const char *
place(const struct tn_endpoint *e, char buf[TN_ENDPOINT_STRLEN])
{
    if (derp_region(e) != 0)
        snprintf(buf, TN_ENDPOINT_STRLEN, "relay region %u", derp_region(e));
    else if (e->port != 0)
        tn_endpoint_format(e, buf);
    else
        snprintf(buf, TN_ENDPOINT_STRLEN, "an unknown address");
    return buf;
}

static void
tell_stranger(
    const struct node *n, const uint8_t *key, const char *at, const char *tail)
{
    const struct netmap *nm = n->netmap;
    char text[KEYTEXT_NODE_LEN + 1];
    unsigned i;

    for (i = 0; nm != NULL && i < nm->npeers; i++)
        if (memcmp(nm->peers[i].key, key, KEYTEXT_BYTES) == 0) {
            say_notice("node \"%s\": a handshake of peer %s, at %s, is "
                       "refused: its key has expired: %s%s",
                n->name, nm->peers[i].name, at,
                n->join != NULL
                    ? "log it in again"
                    : "see its \"KeyExpiry\" and \"Expired\" in the netmap",
                tail);
            return;
        }
    keytext_node(text, key);
    say_notice("node \"%s\": a handshake from %s is refused: no peer in its "
               "netmap has the key %s: %s%s",
        n->name, at, text,
        n->join != NULL
            ? "it is not in this tailnet, or the policy keeps the two apart"
            : "if it is yours, put it there",
        tail);
}

static void
tell_mac1(const struct node *n, const char *at, const char *tail)
{
    char text[KEYTEXT_NODE_LEN + 1];
    uint8_t key[KEYTEXT_BYTES];

    wg_device_public_key(n->wg, key);
    keytext_node(text, key);
    say_notice("node \"%s\": a handshake from %s is refused: it is for another "
               "public key than this node's, which is %s: give the peer this "
               "one, if it is yours%s",
        n->name, at, text, tail);
}

static void
tell_peer(const struct node *n, enum wg_failure why, const char *name,
    const struct tn_endpoint *e, const char *at, const char *tail)
{
    if (why == WG_FAILURE_ANSWER)
        say_notice("node \"%s\": an answer of peer %s, at %s, cannot be "
                   "opened: its preshared key and that in \"preshared_keys\" "
                   "are not the same%s",
            n->name, name, at, tail);
    else if (why == WG_FAILURE_UNUSED)
        say_notice("node \"%s\": peer %s, at %s, does not use this node's "
                   "answers: the preshared keys differ, or packets do not get "
                   "back to it%s",
            n->name, name, at, tail);
    else if (e->port == 0 && n->magic == NULL)
        say_notice("node \"%s\": peer %s cannot be reached: it did not call "
                   "yet, and has no \"Endpoints\" in the netmap%s",
            n->name, name, tail);
    else
        say_notice("node \"%s\": peer %s does not answer at %s: is it there, "
                   "and do packets get through?%s",
            n->name, name, at, tail);
}

void
failure_handshake(void *ctx, enum wg_failure why, const uint8_t *key,
    const struct tn_endpoint *e, uint64_t now)
{
    struct node *n = ctx;
    struct wg_peer *peer = key == NULL ? NULL : wg_peer_by_key(n->wg, key);
    const struct node_peer *np = peer == NULL ? NULL : wg_peer_data(peer);
    struct failure_log *l = np == NULL ? &n->failure.strangers
                                       : &n->failure.peers;
    struct failure_what what = {.kind = (uint8_t)why};
    char at[TN_ENDPOINT_STRLEN], tail[TAIL_MAX];
    bool joined = n->magic != NULL;

    /* Keys come from the server, and paths are tried that lead nowhere. */
    if (joined && why != WG_FAILURE_UNKNOWN && why != WG_FAILURE_SILENCE)
        return;
    if (key != NULL)
        memcpy(what.b, key, KEYTEXT_BYTES);
    else
        memcpy(what.b, e->addr.b, sizeof(e->addr.b));
    if (!due(l, &what, joined ? FAILURE_PATIENCE_MS : 0, now, tail))
        return;
    place(e, at);
    if (why == WG_FAILURE_MAC1)
        tell_mac1(n, at, tail);
    else if (np == NULL)
        tell_stranger(n, key, at, tail);
    else
        tell_peer(n, why, np->self->name, e, at, tail);
}

/* ---- connections of ours ---- */

void
failure_refusal(struct node *n, const struct node_peer *np,
    const struct tsmp *t, uint64_t now)
{
    struct failure_what what = {.kind = t->reason};
    char to[TN_ADDR_STRLEN], tail[TAIL_MAX];

    memcpy(what.b, t->src.b, sizeof(t->src.b));
    what.b[16] = t->proto;
    what.b[17] = (uint8_t)(t->dport >> 8);
    what.b[18] = (uint8_t)t->dport;
    if (!due(&n->failure.refusals, &what, 0, now, tail))
        return;
    tn_addr_format(&t->src, to);
    say_notice("node \"%s\": peer %s (%s) refuses a connection to its %s port "
               "%u: %s%s",
        n->name, np->self->name, to,
        t->proto == 6    ? "TCP"
        : t->proto == 17 ? "UDP"
                         : "IP",
        t->dport, tsmp_reason(t->reason), tail);
}

/* ---- the node itself ---- */

void
failure_self(struct node *n)
{
    bool before = n->failure.expired;

    if (n->join != NULL)
        return;
    n->failure.expired = node_expired(n);
    if (!n->failure.expired)
        return;
    snprintf(n->error, sizeof(n->error),
        "its own key has expired: nothing is forwarded until the netmap's "
        "\"Node\" has a later \"KeyExpiry\", or none");
    if (!before)
        say_err("node \"%s\": %s", n->name, n->error);
}

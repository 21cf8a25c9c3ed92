/* links: core/tn_addr.c core/tn_snap_read.c */
/* links: tailnetd/control/map_state.c tailnetd/control/map_json_delta.c */
/* links: tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_grant.c */
/* links: tailnetd/control/map_json_value.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_derp.c tailnetd/control/map_json_write.c */
/* links: tailnetd/engine/keytext.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/publish.c tailnetd/engine/span.c */
/* links: tailnetd/engine/publish_edit.c tailnetd/engine/record.c */
/* libs: -ljansson */
/* max_len: 8192 */
/*
 * A map stream of any text, a message a line.  A message counts whole or not at
 * all; every netmap has what its users rely on, old ones stay as they were, one
 * that follows is like a new one, and what is saved of one brings it back.  The
 * first byte: settings; a line of "!" begins the stream anew.
 */
#include "../../ngx_tailnet_module/core/tn_snap_read.h"
#include "../../ngx_tailnet_module/tailnetd/control/map_state.h"
#include "../../ngx_tailnet_module/tailnetd/engine/publish.h"
#include "../unit/map_text.h"
#include "fuzz.h"

#define NOW          1800000000
#define MESSAGES_MAX 12
#define HELD         3

static const struct map_settings all = {.accept_routes = true, .exit_node = ""};

/* ---- what a netmap's users rely on ---- */

static void
check_row(const struct netmap_node *n)
{
    unsigned i;

    FUZZ_MUST(n->naddresses <= NETMAP_MAX_ADDRS);
    FUZZ_MUST(n->nallowed_ips <= NETMAP_MAX_ADDRS);
    FUZZ_MUST(n->nendpoints <= NETMAP_MAX_ADDRS);
    FUZZ_MUST(n->ntags <= NETMAP_MAX_TAGS && n->ncaps <= NETMAP_MAX_CAPS);
    FUZZ_MUST(strlen(n->name) <= NETMAP_MAX_STRING);
    FUZZ_MUST(strlen(n->stable_id) <= NETMAP_MAX_STRING);
    for (i = 0; i < n->nendpoints; i++)
        FUZZ_MUST(n->endpoints[i].port != 0);
    for (i = 1; i < n->ntags; i++)
        FUZZ_MUST(strcmp(n->tags[i - 1], n->tags[i]) < 0);
    for (i = 1; i < n->ncaps; i++)
        FUZZ_MUST(strcmp(n->caps[i - 1], n->caps[i]) < 0);
}

static bool
share(const struct netmap_node *a, const struct netmap_node *b)
{
    unsigned i, j;

    if (a->has_key && b->has_key && memcmp(a->key, b->key, 32) == 0)
        return true;
    for (i = 0; i < a->naddresses; i++)
        for (j = 0; j < b->naddresses; j++)
            if (a->addresses[i].bits == 128 && b->addresses[j].bits == 128 &&
                tn_addr_equal(&a->addresses[i].addr, &b->addresses[j].addr))
                return true;
    return false;
}

/* Goes into a request's head. */
static bool
is_word(const char *s)
{
    while (*s > ' ' && *s < 0x7f)
        s++;
    return *s == '\0';
}

static void
check_derp(const struct netmap_derp *d)
{
    unsigned i, k;

    if (d == NULL)
        return;
    FUZZ_MUST(d->nregions <= NETMAP_MAX_REGIONS);
    for (i = 0; i < d->nregions; i++) {
        const struct netmap_region *r = &d->regions[i];

        FUZZ_MUST(r->id != 0 && (i == 0 || d->regions[i - 1].id < r->id));
        FUZZ_MUST(r->nrelays <= NETMAP_MAX_RELAYS && r->code && r->name);
        for (k = 0; k < r->nrelays; k++)
            FUZZ_MUST(is_word(r->relays[k].host) &&
                      is_word(r->relays[k].name) &&
                      r->relays[k].cert_name != NULL &&
                      r->relays[k].ipv4 != NULL && r->relays[k].ipv6 != NULL);
    }
}

static void
check(const struct map_state *s, const struct netmap *nm)
{
    struct map_counts c = map_state_counts(s);
    unsigned i, k;

    FUZZ_MUST(nm->npeers + c.contested == c.peers);
    check_row(&nm->self);
    for (i = 0; i < nm->npeers; i++) {
        check_row(&nm->peers[i]);
        FUZZ_MUST(nm->peers[i].naddresses > 0 && nm->peers[i].has_key);
        FUZZ_MUST(!share(&nm->peers[i], &nm->self));
        for (k = 0; k < i; k++) {
            FUZZ_MUST(nm->peers[i].id != nm->peers[k].id);
            FUZZ_MUST(!share(&nm->peers[i], &nm->peers[k]));
        }
    }
    for (i = 1; i < nm->nusers; i++)
        FUZZ_MUST(nm->users[i - 1].id < nm->users[i].id);
    for (i = 0; i < nm->nusers; i++)
        FUZZ_MUST(nm->users[i].login != NULL && nm->users[i].name != NULL);
    FUZZ_MUST(nm->has_rules && nm->domain != NULL);
    check_derp(nm->derp);
}

static void
publish(const struct netmap *nm)
{
    struct publish_opts o = {.generation = 1, .now = NOW};
    char err[TN_ERR_MAX];
    uint32_t cursor = 0;
    struct tn_snap snap;
    struct tn_peer p;
    void *bytes;
    size_t size;

    if (publish_build(nm, &o, &bytes, &size, err) != 0) {
        FUZZ_MUST(err[0] != '\0');
        return;
    }
    FUZZ_MUST(tn_snap_open(&snap, bytes, size) == NULL);
    while (tn_snap_next(&snap, &cursor, &p) == 0)
        ;
    free(bytes);
}

/* ---- messages ---- */

static int
apply(struct map_state *s, const void *text, size_t len)
{
    char why[MAP_STATE_ERROR_MAX] = "";
    static struct map_json_error err;
    char *copy = fuzz_copy(text, len);
    struct map_delta d;
    int rc = map_json_delta(copy, len, map_state_derp(s), &d, &err);

    free(copy);
    if (rc != 0) {
        FUZZ_MUST(err.text[0] != '\0');
        FUZZ_MUST(strnlen(err.text, sizeof(err.text)) < sizeof(err.text));
        return -1;
    }
    rc = map_state_apply(s, &d, why);
    FUZZ_MUST(rc == 0 || (rc == -1 && why[0] != '\0'));
    if (d.ping.url != NULL)
        FUZZ_MUST(d.ping.types != NULL && d.ping.payload != NULL);
    FUZZ_MUST(d.sleep <= 300 && d.nnotices <= MAP_DELTA_MAX_NOTICES);
    for (size_t i = 0; i < d.nnotices; i++) {
        FUZZ_MUST(strlen(d.notices[i].title) <= NETMAP_MAX_STRING);
        FUZZ_MUST(strlen(d.notices[i].text) <= NETMAP_MAX_STRING);
        FUZZ_MUST(strlen(d.notices[i].url) <= NETMAP_MAX_STRING);
        FUZZ_MUST(d.notices[i].id != NULL || d.notices[i].text[0] != '\0');
    }
    FUZZ_MUST(d.keepalive || rc != 0 || map_state_ready(s));
    map_delta_clear(&d);
    return rc;
}

/* All of it as text, or NULL: there is nothing yet. */
static char *
written(struct map_state *s, size_t *len)
{
    struct netmap *nm = map_state_netmap(s, &all);
    char *text;

    FUZZ_MUST((nm == NULL) == !map_state_ready(s));
    if (nm == NULL)
        return NULL;
    text = map_text(nm, len);
    FUZZ_MUST(text != NULL);
    netmap_free(nm);
    return text;
}

/* What a node writes into its state directory is a start for the next one. */
static void
restore(const char *text, size_t len)
{
    struct map_state *s = map_state_new();
    char *again;
    size_t n;

    FUZZ_MUST(s != NULL);
    FUZZ_MUST(apply(s, text, len) == 0);
    again = written(s, &n);
    FUZZ_MUST(again != NULL && n == len && memcmp(again, text, len) == 0);
    free(again);
    map_state_free(s);
}

/* One message: ${*text} is what was known, and is then. */
static void
message(struct map_state *s, const struct fuzz_input *line, char **text,
    size_t *len)
{
    int rc = apply(s, line->p, line->len);
    size_t n = 0;
    char *now = written(s, &n);

    if (rc != 0) {
        FUZZ_MUST((now == NULL) == (*text == NULL));
        FUZZ_MUST(now == NULL || (n == *len && memcmp(now, *text, n) == 0));
    } else if (now != NULL) {
        restore(now, n);
    }
    free(*text);
    *text = now;
    *len = n;
}

/* A netmap that somebody still has, and what it said when it was new. */
struct held {
    struct netmap *nm;
    char *text;
    size_t len;
};

static void
hold(struct held *h, struct netmap *nm)
{
    size_t len;
    char *text;

    if (h->nm != NULL) {
        text = map_text(h->nm, &len);
        FUZZ_MUST(text != NULL && len == h->len);
        FUZZ_MUST(memcmp(text, h->text, len) == 0);
        free(text);
        netmap_free(h->nm);
        free(h->text);
    }
    h->nm = nm;
    h->text = nm == NULL ? NULL : map_text(nm, &h->len);
    FUZZ_MUST((nm == NULL) == (h->text == NULL));
}

/* The netmap that follows, and the keys that its changes lead to. */
struct follower {
    struct netmap *nm;
    uint8_t (*keys)[32];
    size_t n;
};

static void
look(struct follower *f)
{
    free(f->keys);
    f->n = f->nm->npeers;
    f->keys = calloc(f->n + 1, sizeof(*f->keys));
    FUZZ_MUST(f->keys != NULL);
    for (size_t i = 0; i < f->n; i++)
        memcpy(f->keys[i], f->nm->peers[i].key, 32);
}

static void
hear(struct follower *f, const struct netmap_changes *c)
{
    size_t i, row;

    for (i = 0; i < c->ngone; i++) {
        row = c->gone[i].row;
        FUZZ_MUST(row < f->n);
        FUZZ_MUST(memcmp(f->keys[row], c->gone[i].key, 32) == 0);
        f->n--;
        memmove(f->keys[row], f->keys[f->n], 32);
    }
    FUZZ_MUST(f->n + c->nadded == f->nm->npeers);
    for (i = 0; i < f->n; i++)
        FUZZ_MUST(memcmp(f->keys[i], f->nm->peers[i].key, 32) == 0);
    for (i = 0; i < c->nrows; i++)
        FUZZ_MUST(c->rows[i] < f->n);
}

/* What is not said to be another is as it was; what ${was} points to is there
 * until the next message. */
static void
hear_rest(const struct netmap *was, const struct netmap *nm,
    const struct netmap_changes *c)
{
    unsigned i;
    size_t k;

    FUZZ_MUST(c->self == NULL || c->self == &nm->self);
    FUZZ_MUST(
        c->self != NULL ||
        (was->domain == nm->domain && was->self.online == nm->self.online &&
            was->self.key_expiry == nm->self.key_expiry &&
            netmap_same_standing(&was->self, &nm->self)));
    FUZZ_MUST(c->derp == (was->derp != nm->derp));
    FUZZ_MUST(c->rules || (was->rules == nm->rules && !c->grants));
    for (i = 0; i < was->nusers; i++) {
        const struct netmap_user *u = netmap_user(nm, was->users[i].id);

        for (k = 0; k < c->nusers && c->users[k] != u->id; k++)
            ;
        FUZZ_MUST(k < c->nusers || netmap_same_user(u, &was->users[i]));
    }
}

static int
by_id(const void *a, const void *b)
{
    const struct netmap_node *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

/* As text, whatever the order of its peers; it stays as it is. */
static char *
ordered(const struct netmap *nm, size_t *len)
{
    struct netmap copy = *nm;
    char *text;

    copy.peers = calloc(nm->npeers + 1, sizeof(*copy.peers));
    FUZZ_MUST(copy.peers != NULL);
    memcpy(copy.peers, nm->peers, nm->npeers * sizeof(*copy.peers));
    qsort(copy.peers, copy.npeers, sizeof(*copy.peers), by_id);
    text = map_text(&copy, len);
    FUZZ_MUST(text != NULL);
    free(copy.peers);
    return text;
}

/* It is brought up to date, or replaced by a new one; in either case it says
 * what ${nm}, of now, does. */
static void
follow(struct map_state *s, struct follower *f, const struct netmap *nm,
    const struct map_settings *settings)
{
    struct netmap was = f->nm == NULL ? (struct netmap){0} : *f->nm;
    struct netmap_changes c;
    size_t len, len_now;
    char *text, *now;

    was.users = calloc(was.nusers + 1, sizeof(*was.users));
    FUZZ_MUST(was.users != NULL);
    if (was.nusers > 0)
        memcpy(was.users, f->nm->users, was.nusers * sizeof(*was.users));
    if (map_state_update(s, settings, &c)) {
        FUZZ_MUST(f->nm != NULL);
        hear(f, &c);
        hear_rest(&was, f->nm, &c);
    } else {
        netmap_free(f->nm);
        f->nm = map_state_netmap(s, settings);
        FUZZ_MUST(f->nm != NULL);
        map_state_follow(s, f->nm);
    }
    free(was.users);
    look(f);
    check(s, f->nm);
    text = ordered(f->nm, &len);
    now = ordered(nm, &len_now);
    FUZZ_MUST(len == len_now && memcmp(text, now, len) == 0);
    free(text);
    free(now);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size}, line;
    struct map_state *s = map_state_new();
    struct held held[HELD] = {{NULL, NULL, 0}};
    struct follower follower = {NULL, NULL, 0};
    struct netmap *nm;
    char *text = NULL;
    uint8_t how = fuzz_u8(&in);
    struct map_settings settings = {.accept_routes = (how & 1) != 0,
        .exit_node = (how & 2) != 0 ? "100.64.0.2" : ""};
    const uint8_t *end;
    size_t len = 0;
    unsigned i;

    FUZZ_MUST(s != NULL);
    for (i = 0; in.len > 0 && i < MESSAGES_MAX; i++) {
        end = memchr(in.p, '\n', in.len);
        line = fuzz_bytes(&in, end == NULL ? in.len : (size_t)(end - in.p));
        (void)fuzz_u8(&in);
        if (line.len == 1 && line.p[0] == '!') {
            map_state_begin(s);
            continue;
        }
        message(s, &line, &text, &len);
        nm = map_state_netmap(s, &settings);
        if (nm == NULL)
            continue;
        check(s, nm);
        publish(nm);
        if (how & 8)
            follow(s, &follower, nm, &settings);
        hold(&held[i % HELD], nm);
    }
    free(text);
    if (how & 4)
        map_state_free(s);
    netmap_free(follower.nm);
    free(follower.keys);
    for (i = 0; i < HELD; i++)
        hold(&held[i], NULL);
    if (!(how & 4))
        map_state_free(s);
    return 0;
}

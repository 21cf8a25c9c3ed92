#include "cycle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../log.h"
#include "keysrc.h"
#include "state.h"
#include "lease.h"

struct cycle {
    struct cycle *next;
    uint64_t id;
    unsigned refs;
    bool open; /* its master's connection */
    bool service;
    bool table;      /* was said */
    uint64_t commit; /* order of commits; 0: not committed */
    size_t n;
    struct tn_node *nodes;
    int secrets[TN_NODES_MAX]; /* of the nodes: cycle_secret(); or -1 */
};

static struct cycle *cycles;
static struct cycle *ruling; /* a reference, or NULL */
static uint64_t ids, commits;
static bool service;

void
cycle_service(void)
{
    service = true;
}

struct cycle *
cycle_new(bool of_service)
{
    struct cycle *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    memset(c->secrets, 0xff, sizeof(c->secrets));
    c->id = ++ids;
    c->refs = 1;
    c->open = true;
    c->service = of_service;
    c->next = cycles;
    cycles = c;
    return c;
}

uint64_t
cycle_id(const struct cycle *c)
{
    return c->id;
}

struct cycle *
cycle_find(uint64_t id)
{
    struct cycle *c;

    for (c = cycles; c != NULL && c->id != id; c = c->next)
        ;
    return c;
}

struct cycle *
cycle_ref(struct cycle *c)
{
    c->refs++;
    return c;
}

/* What two tailnetds may not use at a time; "": nothing. */
static const char *
lock_of(const struct tn_node *n)
{
    return tn_node_joins(n) ? n->state : n->private_key;
}

static int
lock(const struct tn_node *n, char err[TN_ERR_MAX])
{
    const char *path = lock_of(n);

    if (path[0] == '\0')
        return 0;
    if (tn_node_joins(n) && state_make(path, err) == -1) {
        errno = EACCES;
        return -1;
    }
    return keysrc_lock(path, err);
}

static void
clear_table(struct cycle *c)
{
    size_t i;

    for (i = 0; i < c->n; i++) {
        if (lock_of(&c->nodes[i])[0] != '\0')
            keysrc_unlock(lock_of(&c->nodes[i]));
        if (c->secrets[i] != -1)
            close(c->secrets[i]);
        c->secrets[i] = -1;
    }
    free(c->nodes);
    c->nodes = NULL;
    c->n = 0;
}

void
cycle_unref(struct cycle *c)
{
    struct cycle **at;

    if (c == NULL || --c->refs > 0)
        return;
    for (at = &cycles; *at != c; at = &(*at)->next)
        ;
    *at = c->next;
    clear_table(c);
    free(c);
}

void
cycle_close(struct cycle *c)
{
    c->open = false;
    cycle_unref(c);
}

static const struct tn_node *
find(const struct cycle *c, const char *name)
{
    size_t i;

    for (i = 0; i < c->n; i++) {
        if (strcmp(c->nodes[i].name, name) == 0)
            return &c->nodes[i];
    }
    return NULL;
}

/* Drops the nodes that nobody names any more. */
static void
sweep(void)
{
    struct cycle *c;
    struct lease *n;
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++) {
        n = lease_at(i);
        if (n == NULL)
            continue;
        for (c = cycles; c != NULL && find(c, n->name) == NULL; c = c->next)
            ;
        if (c == NULL && n->adopter != 0) {
            c = cycle_find(n->adopter);
            if (c != NULL && c->table)
                c = NULL; /* its table came and is without this node */
        }
        if (c == NULL) {
            lease_retire(n);
            continue;
        }
        n->retired = false;
    }
}

/* Locks keys and makes namespaces, or undoes both. */
static int
realize(struct cycle *c, char err[TN_ERR_MAX])
{
    size_t i, all = c->n;
    int rc = 0;

    for (c->n = 0; c->n < all; c->n++) {
        if (lock(&c->nodes[c->n], err) == -1) {
            rc = errno == EWOULDBLOCK ? EAGAIN : EBUSY;
            break;
        }
    }
    for (i = 0; rc == 0 && i < all; i++) {
        if (lease_make(&c->nodes[i], err) == NULL)
            rc = EIO;
    }
    if (rc != 0) {
        clear_table(c);
        sweep();
    }
    return rc;
}

/* A service's nodes, for the masters that use them. */
static int
borrow(struct cycle *c, char err[TN_ERR_MAX])
{
    if (ruling == NULL || ruling->n == 0)
        return 0;
    c->nodes = malloc(ruling->n * sizeof(*c->nodes));
    if (c->nodes == NULL) {
        snprintf(err, TN_ERR_MAX, "no memory for a node table");
        return ENOMEM;
    }
    memcpy(c->nodes, ruling->nodes, ruling->n * sizeof(*c->nodes));
    c->n = ruling->n;
    return realize(c, err);
}

int
cycle_table(struct cycle *c, const char *text, size_t len, const char *prefix,
    char err[TN_ERR_MAX], unsigned *line)
{
    struct tn_node *nodes;
    int n, rc;

    *line = 0;
    if (c->table) {
        snprintf(err, TN_ERR_MAX, "a second node table on one connection");
        return EALREADY;
    }
    nodes = calloc(TN_NODES_MAX, sizeof(*nodes));
    if (nodes == NULL) {
        snprintf(err, TN_ERR_MAX, "no memory for a node table");
        return ENOMEM;
    }
    n = tn_node_parse(text, len, prefix, nodes, TN_NODES_MAX, err, line);
    if (n < 0) {
        free(nodes);
        return EINVAL;
    }
    *line = 0;
    if (service && !c->service) {
        free(nodes);
        if (n > 0) {
            snprintf(err, TN_ERR_MAX,
                "this tailnetd is a service with nodes of its own "
                "(tailnetd -c): define them there, not in nginx");
            return EPERM;
        }
        rc = borrow(c, err);
    } else {
        c->nodes = nodes;
        c->n = (size_t)n;
        rc = realize(c, err);
    }
    c->table = rc == 0;
    return rc;
}

void
cycle_secret(struct cycle *c, const char *node, int fd)
{
    int *secret = &c->secrets[find(c, node) - c->nodes];

    if (*secret != -1)
        close(*secret);
    *secret = fd;
}

bool
cycle_commit(struct cycle *c)
{
    if (!c->table)
        return false;
    if (c->commit == 0)
        c->commit = ++commits;
    cycle_sync();
    return true;
}

bool
cycle_committed(const struct cycle *c)
{
    return c->commit != 0;
}

bool
cycle_has(struct cycle *c, const char *node)
{
    return find(c, node) != NULL;
}

bool
cycle_others(const struct cycle *c)
{
    const struct cycle *o;

    for (o = cycles; o != NULL; o = o->next) {
        if (o != c && o->open && o->commit != 0)
            return true;
    }
    return false;
}

static void
elect(void)
{
    struct cycle *c, *best = NULL;

    for (c = cycles; c != NULL; c = c->next) {
        if (c->open && c->commit != 0 && c->service == service &&
            (best == NULL || c->commit > best->commit))
            best = c;
    }
    if (best == NULL || best == ruling)
        return;
    cycle_ref(best);
    cycle_unref(ruling);
    ruling = best;
}

/* Who says what a node has to be: the ruling cycle, else the newest committed
 * one that still has a user; or NULL. */
static const struct cycle *
ruler_of(const char *name)
{
    const struct cycle *c, *best = NULL;
    uint64_t newest = 0;

    if (ruling != NULL && find(ruling, name) != NULL)
        return ruling;
    for (c = cycles; c != NULL; c = c->next) {
        if (c->commit <= newest || find(c, name) == NULL)
            continue;
        newest = c->commit;
        best = c;
    }
    return best;
}

void
cycle_sync(void)
{
    const struct tn_node *conf;
    const struct cycle *c;
    struct lease *n;
    unsigned i;

    elect();
    sweep();
    for (i = 0; i < LEASE_MAX; i++) {
        n = lease_at(i);
        c = n == NULL ? NULL : ruler_of(n->name);
        if (c == NULL)
            continue;
        conf = find(c, n->name);
        lease_rule(n, conf, c->secrets[conf - c->nodes]);
    }
    if (ruling != NULL)
        lease_purge();
}

bool
cycle_ruled(void)
{
    return ruling != NULL;
}

void
cycle_drop_all(void)
{
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++) {
        if (lease_at(i) != NULL)
            lease_drop(lease_at(i));
    }
    cycle_unref(ruling);
    ruling = NULL;
}

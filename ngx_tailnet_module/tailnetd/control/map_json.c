/*
 * map_json.c: a whole MapResponse.
 *
 * Theory of operation: jansson checks the syntax and builds a tree; the parts
 * (map_json_node.c, map_json_rule.c) fill a netmap from it, front to back, and
 * stop at the first mistake; map_json_claim.c then compares the nodes with each
 * other.  A netmap is handed out only when all of that went well.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "map_json_claim.h"
#include "map_json_node.h"
#include "map_json_rule.h"

static int
parse_self(const struct map_json_cursor *doc, struct netmap *nm)
{
    struct map_json_cursor m = map_json_member(doc, "Node");

    if (m.json == NULL) {
        nm->self.online = true;
        nm->self.stable_id = map_json_copy("", 0);
        nm->self.name = map_json_copy("", 0);
        return nm->self.stable_id == NULL || nm->self.name == NULL
                   ? map_json_no_memory(doc->err)
                   : 0;
    }
    return map_json_node(&m, false, &nm->self);
}

static int
parse_peers(const struct map_json_cursor *doc, struct netmap *nm)
{
    struct map_json_cursor m = map_json_member(doc, "Peers"), e;
    size_t i, n;

    if (map_json_list(&m, NETMAP_MAX_PEERS, "NETMAP_MAX_PEERS", &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    nm->peers = calloc(n, sizeof(nm->peers[0]));
    if (nm->peers == NULL) {
        return map_json_no_memory(doc->err);
    }
    for (i = 0; i < n; i++) {
        nm->npeers++;
        e = map_json_element(&m, i);
        if (map_json_node(&e, true, &nm->peers[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

static int
parse_document(const struct map_json_cursor *doc, struct netmap *nm)
{
    struct map_json_cursor domain = map_json_member(doc, "Domain"),
                           users = map_json_member(doc, "UserProfiles");

    return map_json_object(doc) != 0 || parse_self(doc, nm) != 0 ||
                   parse_peers(doc, nm) != 0 ||
                   map_json_users(&users, NULL, &nm->users, &nm->nusers) != 0 ||
                   map_json_string(&domain, &nm->domain) != 0 ||
                   map_json_rules(doc, nm) != 0 || map_json_claims(doc, nm) != 0
               ? -1
               : 0;
}

/*
 * jansson calls it a mistake of syntax when memory runs out in the middle of a
 * token: its allocator is watched while it reads.  It has one for all threads,
 * so only one thread may parse at a time.
 */
static json_malloc_t watched_malloc;
static bool watched_failed;
static size_t watched_left; /* of MAP_JSON_MAX_TREE */

static void *
watch_malloc(size_t size)
{
    void *p;

    if (size > watched_left) {
        watched_left = 0;
        return NULL;
    }
    watched_left -= size;
    p = watched_malloc(size);
    watched_failed = watched_failed || p == NULL;
    return p;
}

json_t *
map_json_load(const char *text, size_t len, struct map_json_error *err)
{
    json_free_t old_free;
    struct map_json_cursor doc = {.err = err};
    json_error_t e = {0};
    json_t *root;

    memset(err, 0, sizeof(*err));
    if (len > MAP_JSON_MAX_TEXT) {
        map_json_fail(&doc, "%zu bytes, more than MAP_JSON_MAX_TEXT (%u)", len,
            MAP_JSON_MAX_TEXT);
        return NULL;
    }
    json_get_alloc_funcs(&watched_malloc, &old_free);
    watched_failed = false;
    watched_left = MAP_JSON_MAX_TREE(len);
    json_set_alloc_funcs(watch_malloc, old_free);
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    json_set_alloc_funcs(watched_malloc, old_free);
    if (watched_failed) {
        json_decref(root);
        root = NULL;
        map_json_no_memory(err);
    } else if (watched_left == 0) {
        json_decref(root);
        root = NULL;
        map_json_fail(&doc,
            "needs more memory than MAP_JSON_MAX_TREE (%zu bytes)",
            MAP_JSON_MAX_TREE(len));
    } else if (root == NULL) {
        err->line = e.line < 1 ? 1 : e.line;
        err->column = e.column;
        snprintf(err->text, sizeof(err->text), "line %d, column %d: %s",
            err->line, err->column, e.text);
    }
    return root;
}

struct netmap *
map_json_parse(const char *text, size_t len, struct map_json_error *err)
{
    struct map_json_cursor doc = {.err = err};
    struct netmap *nm;
    json_t *root;

    root = map_json_load(text, len, err);
    if (root == NULL) {
        return NULL;
    }
    doc.json = root;
    nm = calloc(1, sizeof(*nm));
    if (nm == NULL) {
        map_json_no_memory(err);
    } else if (parse_document(&doc, nm) != 0) {
        netmap_free(nm);
        nm = NULL;
    }
    json_decref(root);
    return nm;
}

/*
 * map_json_grant.c: capability grants, their values kept as JSON text.
 */
#include <stdlib.h>
#include <string.h>

#include "map_json_grant.h"

static int
parse_dsts(const struct map_json_cursor *c, struct netmap_cap_grant *grant)
{
    struct map_json_cursor m = map_json_member(c, "Dsts"), e;
    char shown[MAP_JSON_SHOWN];
    const char *s;
    size_t i, n, len;

    if (map_json_list(&m, NETMAP_MAX_RULE_LIST, "NETMAP_MAX_RULE_LIST", &n) !=
        0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    grant->dsts = calloc(n, sizeof(grant->dsts[0]));
    if (grant->dsts == NULL) {
        return map_json_no_memory(c->err);
    }
    for (i = 0; i < n; i++) {
        e = map_json_element(&m, i);
        s = "";
        len = 0;
        if (map_json_text(&e, &s, &len) != 0) {
            return -1;
        }
        if (tn_prefix_parse(&grant->dsts[grant->ndsts], s, len) == 0) {
            grant->ndsts++;
        } else {
            map_json_warn(&e, "%s is no destination: left out",
                map_json_show(shown, s, len));
        }
    }
    return 0;
}

/* The JSON text of a capability's list; "" for null. */
static int
copy_value(const struct map_json_cursor *e, char **out)
{
    size_t len = 0;
    char *text;

    if (e->json != NULL) {
        if (!json_is_array(e->json)) {
            return map_json_fail(e, "a list expected");
        }
        len = json_dumpb(e->json, NULL, 0, JSON_COMPACT);
        if (len == 0) {
            return map_json_no_memory(e->err);
        }
        if (len > NETMAP_MAX_CAP_VALUE) {
            return map_json_fail(e,
                "longer than NETMAP_MAX_CAP_VALUE (%d bytes)",
                NETMAP_MAX_CAP_VALUE);
        }
    }
    text = calloc(1, len + 1);
    if (text == NULL) {
        return map_json_no_memory(e->err);
    }
    if (len > 0 && json_dumpb(e->json, text, len, JSON_COMPACT) != len) {
        free(text);
        return map_json_no_memory(e->err);
    }
    *out = text;
    return 0;
}

static int
add_cap(void *arg, const struct map_json_cursor *value, const char *name)
{
    struct netmap_cap_grant *grant = arg;

    if (name[0] == '\0') {
        return 0; /* grants nothing that one could ask for */
    }
    if (copy_value(value, &grant->values[grant->ncaps]) != 0) {
        return -1;
    }
    grant->names[grant->ncaps] = map_json_copy(name, strlen(name));
    grant->ncaps++;
    return grant->names[grant->ncaps - 1] == NULL
               ? map_json_no_memory(value->err)
               : 0;
}

static int
parse_caps(const struct map_json_cursor *c, struct netmap_cap_grant *grant)
{
    size_t n;

    if (map_json_cap_count(c, "Caps", &n) != 0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    grant->names = calloc(n, sizeof(grant->names[0]));
    grant->values = calloc(n, sizeof(grant->values[0]));
    if (grant->names == NULL || grant->values == NULL) {
        return map_json_no_memory(c->err);
    }
    return map_json_cap_each(c, "Caps", add_cap, grant);
}

int
map_json_grants(const struct map_json_cursor *c, struct netmap_rule *rule)
{
    struct map_json_cursor m = map_json_member(c, "CapGrant"), e;
    size_t i, n;

    if (map_json_list(&m, NETMAP_MAX_RULE_LIST, "NETMAP_MAX_RULE_LIST", &n) !=
        0) {
        return -1;
    }
    if (n == 0) {
        return 0;
    }
    rule->grants = calloc(n, sizeof(rule->grants[0]));
    if (rule->grants == NULL) {
        return map_json_no_memory(c->err);
    }
    for (i = 0; i < n; i++) {
        rule->ngrants++;
        e = map_json_element(&m, i);
        if (e.json == NULL || map_json_object(&e) != 0) {
            return map_json_fail(&e, "an object expected");
        }
        if (parse_dsts(&e, &rule->grants[i]) != 0 ||
            parse_caps(&e, &rule->grants[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

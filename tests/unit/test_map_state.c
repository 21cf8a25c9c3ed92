/* links: tailnetd/control/map_state.c tailnetd/control/map_json_delta.c */
/* links: tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_grant.c */
/* links: tailnetd/control/map_json_value.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_derp.c tailnetd/control/map_json_write.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/span.c core/tn_addr.c */
/* libs: -ljansson -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
/*
 * test_map_state.c: messages of a control server in order, and what a node
 * knows afterwards.
 *
 * Each file of tests/vectors/map_delta/ has messages and what is expected of
 * the netmap after the last one, written as a MapResponse again: every value
 * that is there has to be as said, lists as long as said, peers sorted by ID;
 * null has to be absent.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_state.h"
#include "map_text.h"
#include "oom.h"

#define DIR_NAME "tests/vectors/map_delta"

static char why[1024];

/* One message; -1 and ${why}. */
static int
apply(struct map_state *s, const char *text, size_t len, unsigned *warnings)
{
    char err[MAP_STATE_ERROR_MAX];
    struct map_json_error e;
    struct map_delta d;
    int rc;

    if (map_json_delta(text, len, map_state_derp(s), &d, &e) != 0) {
        snprintf(why, sizeof(why), "%s", e.text);
        return -1;
    }
    *warnings += e.nwarnings;
    rc = map_state_apply(s, &d, err);
    map_delta_clear(&d);
    if (rc != 0)
        snprintf(why, sizeof(why), "%s", err);
    return rc;
}

static int
by_id(const void *a, const void *b)
{
    json_t *const *x = a, *const *y = b;
    json_int_t i = json_integer_value(json_object_get(*x, "ID")),
               j = json_integer_value(json_object_get(*y, "ID"));

    return (i > j) - (i < j);
}

/* The netmap as JSON, its peers sorted. */
static json_t *
written(struct map_state *s, const struct map_settings *settings)
{
    struct netmap *nm = map_state_netmap(s, settings);
    json_t *doc, *peers, *list[64];
    size_t len, n;
    char *text;

    assert_non_null(nm);
    text = map_text(nm, &len);
    assert_non_null(text);
    doc = json_loadb(text, len, 0, NULL);
    assert_non_null(doc);
    free(text);
    netmap_free(nm);
    peers = json_object_get(doc, "Peers");
    n = json_array_size(peers);
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++)
        list[i] = json_incref(json_array_get(peers, i));
    qsort(list, n, sizeof(list[0]), by_id);
    json_array_clear(peers);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(peers, list[i]);
    return doc;
}

static void
match(const char *file, const char *path, const json_t *want, const json_t *got)
{
    char below[512];
    const char *name;
    json_t *v;
    size_t i;

    if (json_is_object(want) && json_is_object(got)) {
        json_object_foreach((json_t *)(uintptr_t)want, name, v)
        {
            snprintf(below, sizeof(below), "%s.%s", path, name);
            match(file, below, v, json_object_get(got, name));
        }
        return;
    }
    if (json_is_array(want) && json_is_array(got) &&
        json_array_size(want) == json_array_size(got)) {
        json_array_foreach(want, i, v)
        {
            snprintf(below, sizeof(below), "%s.%zu", path, i);
            match(file, below, v, json_array_get(got, i));
        }
        return;
    }
    if (json_equal(want, got) || (json_is_null(want) && got == NULL) ||
        (json_is_number(want) && json_is_number(got) &&
            json_number_value(want) == json_number_value(got)))
        return;
    fail_msg("%s: %s is %s, not %s", file, path,
        got == NULL ? "absent" : json_dumps(got, JSON_ENCODE_ANY),
        json_dumps(want, JSON_ENCODE_ANY));
}

static const json_t *
at_path(const json_t *o, const char *path)
{
    char part[64];
    size_t n;

    while (*path != '\0') {
        n = strcspn(path, ".");
        snprintf(part, sizeof(part), "%.*s", (int)n, path);
        o = json_is_array(o) ? json_array_get(o, strtoul(part, NULL, 10))
                             : json_object_get(o, part);
        path += n + (path[n] == '.');
    }
    return o;
}

static void
check(const char *file, struct map_state *s, const json_t *f)
{
    struct map_settings settings = {
        .accept_routes = json_is_true(json_object_get(f, "accept_routes")),
        .exit_node = json_string_value(json_object_get(f, "exit_node"))};
    const json_t *expect = json_object_get(f, "expect");
    json_t *doc, *v;
    size_t i;

    if (settings.exit_node == NULL)
        settings.exit_node = "";
    if (expect == NULL)
        return;
    doc = written(s, &settings);
    match(file, "", expect, doc);
    json_array_foreach(json_object_get(f, "absent"), i,
        v) if (at_path(doc, json_string_value(v)) != NULL)
        fail_msg("%s: %s is there", file, json_string_value(v));
    json_decref(doc);
}

/* Runs one file; ${cut}: allocation that fails, or -1.  Returns false when it
 * failed indeed. */
static bool
run(const char *file, const json_t *f)
{
    const char *error = json_string_value(json_object_get(f, "error"));
    struct map_state *s = map_state_new();
    unsigned warnings = 0;
    json_t *m, *v;
    bool failed = false;
    char *text;
    size_t i;

    assert_non_null(s);
    json_array_foreach(json_object_get(f, "messages"), i, m)
    {
        if (json_is_string(m)) {
            map_state_begin(s);
            continue;
        }
        text = json_dumps(m, 0);
        if (apply(s, text, strlen(text), &warnings) != 0) {
            failed = true;
            if (error == NULL || strstr(why, error) == NULL)
                fail_msg("%s: message %zu: %s", file, i, why);
        }
        free(text);
    }
    if (failed != (error != NULL))
        fail_msg("%s: no error", file);
    v = json_object_get(f, "warnings");
    if (warnings != (unsigned)json_integer_value(v))
        fail_msg("%s: %u warnings", file, warnings);
    v = json_object_get(f, "contested");
    assert_int_equal(map_state_counts(s).contested, json_integer_value(v));
    check(file, s, f);
    map_state_free(s);
    return !failed;
}

/* For each file of the folder. */
static void
each(void (*cb)(const char *file, const json_t *f))
{
    struct dirent **list;
    int n = scandir(DIR_NAME, &list, NULL, alphasort), seen = 0;

    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        char path[512];
        json_t *f;

        if (strstr(list[i]->d_name, ".json") != NULL) {
            snprintf(path, sizeof(path), DIR_NAME "/%s", list[i]->d_name);
            f = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
            assert_non_null(f);
            cb(list[i]->d_name, f);
            json_decref(f);
            seen++;
        }
        free(list[i]);
    }
    free(list);
    assert_true(seen >= 40);
}

static void
run_one(const char *file, const json_t *f)
{
    (void)run(file, f);
}

static void
deltas(void **state)
{
    (void)state;
    each(run_one);
}

/* What is written is read back the same. */
static void
write_one(const char *file, const json_t *f)
{
    const struct map_settings all = {.accept_routes = true, .exit_node = ""};
    struct map_state *s = map_state_new(), *again = map_state_new();
    json_t *m = json_array_get(json_object_get(f, "messages"), 0), *one, *two;
    unsigned warnings = 0;
    char *text = json_dumps(m, 0);

    if (json_object_get(m, "Node") != NULL) {
        assert_int_equal(apply(s, text, strlen(text), &warnings), 0);
        free(text);
        one = written(s, &all);
        text = json_dumps(one, 0);
        if (apply(again, text, strlen(text), &warnings) != 0)
            fail_msg("%s: %s", file, why);
        two = written(again, &all);
        if (!json_equal(one, two))
            fail_msg("%s: %s\n%s", file, text, json_dumps(two, 0));
        json_decref(one);
        json_decref(two);
    }
    free(text);
    map_state_free(s);
    map_state_free(again);
}

static void
round_trip(void **state)
{
    (void)state;
    each(write_one);
}

/* ---- a longer life ---- */

static char *
peer(char *buf, int id, const char *more)
{
    sprintf(buf,
        "{\"ID\":%d,\"StableID\":\"s%d\",\"Name\":\"p%d.t.\",\"User\":%d,"
        "\"Key\":"
        "\"nodekey:%064x\",\"DiscoKey\":\"discokey:%064x\",\"Addresses\":"
        "[\"100.%d.%d.%d/32\",\"fd7a::%x/128\"],\"Endpoints\":[\"10.0.0.1:5\"],"
        "\"Online\":true,\"Tags\":[\"tag:a\",\"tag:b%d\"]%s}",
        id, id, id, 100 + id % 7, id, id, 64 + (id >> 16), id >> 8 & 255,
        id & 255, id, id % 10, more);
    return buf;
}

/* The first message, with ${n} peers. */
static char *
first(int n, size_t *len)
{
    char *text = malloc((size_t)n * 512 + 1024), *p = text;

    p += sprintf(p,
        "{\"Node\":{\"ID\":1000000,\"Name\":\"me.t.\",\"Addresses\":"
        "[\"100.127.0.1/32\"]},\"PacketFilter\":[],\"Peers\":[");
    for (int i = 1; i <= n; i++) {
        peer(p, i, "");
        p += strlen(p);
        *p++ = i < n ? ',' : ']';
    }
    *p++ = '}';
    *len = (size_t)(p - text);
    return text;
}

static const struct map_settings none = {.exit_node = ""};

/* A netmap shows what it showed, whatever came later and when it is freed. */
static void
immutable(void **state)
{
    struct map_state *s = map_state_new();
    struct netmap *nm[40];
    unsigned warnings = 0;
    char text[4096], one[1024];
    size_t len;
    char *m = first(50, &len);

    (void)state;
    assert_int_equal(apply(s, m, len, &warnings), 0);
    free(m);
    nm[0] = map_state_netmap(s, &none);
    for (int i = 1; i < 40; i++) {
        snprintf(text, sizeof(text),
            "{\"PeersRemoved\":[%d],\"PeersChanged\":[%s],"
            "\"PeersChangedPatch\":"
            "[{\"NodeID\":%d,\"Endpoints\":[\"1.1.1.1:%d\"],\"Online\":false}],"
            "\"PacketFilters\":{\"c%d\":[]},\"Domain\":\"d%d\","
            "\"UserProfiles\":"
            "[{\"ID\":%d,\"LoginName\":\"u%d\"}]}",
            i, peer(one, 100 + i, ""), 49, i, i, i, i % 5 + 1, i);
        assert_int_equal(apply(s, text, strlen(text), &warnings), 0);
        nm[i] = map_state_netmap(s, &none);
        assert_non_null(nm[i]);
    }
    for (int i = 1; i < 40; i++) {
        char domain[16];

        sprintf(domain, "d%d", i);
        assert_string_equal(nm[i]->domain, domain);
        assert_int_equal(nm[i]->npeers, 50);
    }
    /* in an order that is neither theirs nor its reverse */
    for (int i = 0; i < 40; i++) {
        int k = i * 17 % 40;

        assert_string_equal(
            nm[k]->peers[0].stable_id[0] == 's' ? "s" : "", "s");
        netmap_free(nm[k]);
        nm[k] = NULL;
        if (i == 20) {
            map_state_free(s); /* netmaps outlive it */
            s = NULL;
        }
    }
}

/* Every allocation fails once: nothing is half applied, nothing leaks. */
static void
no_memory(void **state)
{
    static const char delta[] =
        "{\"PeersRemoved\":[3],\"PeersChangedPatch\":[{\"NodeID\":4,"
        "\"Endpoints\":"
        "[\"1.1.1.1:1\"],\"CapMap\":{\"a\":null}}],\"PacketFilters\":{\"x\":[{"
        "\"SrcIPs\":[\"*\"],\"DstPorts\":[{\"IP\":\"*\",\"Ports\":{\"First\":1,"
        "\"Last\":2}}]}]},\"UserProfiles\":[{\"ID\":1,\"LoginName\":\"u\"}],"
        "\"DERPMap\":{\"Regions\":{\"1\":{\"RegionID\":1,\"Nodes\":[{}]}}},"
        "\"Health\":[\"h\"],\"DisplayMessages\":{\"m\":{\"Text\":\"t\"}},"
        "\"Domain\":\"d\",\"Node\":{\"ID\":7,\"Addresses\":[\"100.127.0.2\"]}}";
    size_t len, n = 0;
    char *m = first(20, &len);
    bool again = true;

    (void)state;
    while (again) {
        struct map_state *s = map_state_new();
        struct netmap *nm;
        unsigned warnings = 0;

        assert_int_equal(apply(s, m, len, &warnings), 0);
        oom_arm((long)n++);
        if (apply(s, delta, sizeof(delta) - 1, &warnings) != 0) {
            oom_disarm();
            assert_true(oom_fired);
            assert_int_equal(map_state_counts(s).peers, 20);
        } else {
            oom_arm((long)n);
            nm = map_state_netmap(s, &none);
            again = oom_fired || nm == NULL;
            oom_disarm();
            if (nm != NULL)
                assert_int_equal(nm->npeers, 19);
            netmap_free(nm);
            again = again || n < 200;
        }
        oom_disarm();
        map_state_free(s);
    }
    free(m);
}

/* Random peers that come, go, and take each other's keys and addresses: the
 * netmap never has a key or address twice, and hides no more than it must. */
static void
contests(void **state)
{
    struct map_state *s = map_state_new();
    unsigned warnings = 0;
    uint32_t seed = 11;
    char text[1024];
    size_t len;
    char *m = first(1, &len);

    (void)state;
    assert_int_equal(apply(s, m, len, &warnings), 0);
    free(m);
    for (int round = 0; round < 4000; round++) {
        struct netmap *nm;
        unsigned id, key, addr;

        seed = seed * 1664525 + 1013904223;
        id = (seed >> 8) % 12 + 1;
        key = (seed >> 12) % 6 + 1;
        addr = (seed >> 16) % 6 + 1;
        if (seed >> 30 == 0)
            sprintf(text, "{\"PeersRemoved\":[%u]}", id);
        else if (seed >> 30 == 1)
            sprintf(text,
                "{\"PeersChangedPatch\":[{\"NodeID\":%u,\"Key\":\"nodekey:%064x"
                "\"}]}",
                id, key);
        else
            sprintf(text,
                "{\"PeersChanged\":[{\"ID\":%u,\"Key\":\"nodekey:%064x\","
                "\"Addresses\":[\"100.64.0.%u/32\",\"100.64.1.%u/32\"]}]}",
                id, key, addr, (addr + key) % 5);
        assert_int_equal(apply(s, text, strlen(text), &warnings), 0);
        nm = map_state_netmap(s, &none);
        for (unsigned i = 0; i < nm->npeers; i++)
            for (unsigned j = 0; j < i; j++) {
                assert_memory_not_equal(nm->peers[i].key, nm->peers[j].key, 32);
                for (unsigned k = 0; k < 4; k++)
                    assert_false(tn_addr_equal(
                        &nm->peers[i]
                             .addresses[k / 2 % nm->peers[i].naddresses]
                             .addr,
                        &nm->peers[j]
                             .addresses[k % 2 % nm->peers[j].naddresses]
                             .addr));
            }
        assert_int_equal(nm->npeers + map_state_counts(s).contested,
            map_state_counts(s).peers);
        netmap_free(nm);
    }
    /* the smallest ID is never hidden by a greater one */
    map_state_free(s);
}

/* Patches of everything that is buried, of many peers at once. */
static void
patched(void **state)
{
    struct map_state *s = map_state_new();
    unsigned warnings = 0;
    char *text = malloc(65536);
    struct netmap *nm;
    size_t len, n;
    char *m = first(200, &len);

    (void)state;
    assert_int_equal(apply(s, m, len, &warnings), 0);
    free(m);
    for (int round = 0; round < 3; round++) {
        n = (size_t)sprintf(text, "{\"PeersChangedPatch\":[");
        for (int id = 1; id <= 200; id++)
            n += (size_t)sprintf(text + n,
                "%s{\"NodeID\":%d,\"Endpoints\":[\"192.0.2.1:%d\"],"
                "\"CapMap\":{\"cap-%d\":null}}",
                id == 1 ? "" : ",", id, round + 1, round);
        n += (size_t)sprintf(text + n, "]}");
        assert_int_equal(apply(s, text, n, &warnings), 0);
    }
    nm = map_state_netmap(s, &none);
    assert_int_equal(nm->npeers, 200);
    for (unsigned i = 0; i < nm->npeers; i++) {
        assert_int_equal(nm->peers[i].nendpoints, 1);
        assert_int_equal(nm->peers[i].endpoints[0].port, 3);
        assert_int_equal(nm->peers[i].ncaps, 1);
        assert_string_equal(nm->peers[i].caps[0], "cap-2");
    }
    netmap_free(nm);
    map_state_free(s);
    free(text);
}

static double
ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* What a delta costs in a large tailnet; a bound that a slow machine keeps. */
static void
cost(void **state)
{
    struct map_state *s = map_state_new();
    struct netmap *old, *nm;
    unsigned warnings = 0;
    char text[256];
    size_t len;
    char *m = first(20000, &len);
    double begin = ms(), whole, delta;

    (void)state;
    assert_int_equal(apply(s, m, len, &warnings), 0);
    free(m);
    old = map_state_netmap(s, &none);
    whole = ms() - begin;
    begin = ms();
    for (int i = 0; i < 20; i++) {
        sprintf(text,
            "{\"PeersChangedPatch\":[{\"NodeID\":%d,\"Online\":false}]}",
            i + 1);
        assert_int_equal(apply(s, text, strlen(text), &warnings), 0);
        nm = map_state_netmap(s, &none);
        netmap_free(old);
        old = nm;
    }
    delta = (ms() - begin) / 20;
    print_message(
        "20000 peers: %.0f ms at once, a delta %.2f ms\n", whole, delta);
    assert_true(delta < whole / 5);
    netmap_free(old);
    map_state_free(s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deltas),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(immutable),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(contests),
        cmocka_unit_test(patched),
        cmocka_unit_test(cost),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

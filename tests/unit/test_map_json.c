/* links: core/tn_addr.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* links: tailnetd/engine/keytext.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/span.c */
/* libs: -ljansson -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
/*
 * MapResponse JSON to netmap.
 *
 * tests/vectors/netmap/valid/CASE has input.json and output, the netmap as
 * dump() writes it, warnings last; invalid/CASE has input.json and error, the
 * sentence.  A new folder is a new test.  With VECTORS_WRITE=1 in the
 * environment outputs and errors are written instead of compared: read them.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_json.h"
#include "oom.h"

#define VECTORS "tests/vectors/netmap"

/* ---- a netmap as text ---- */

static void
dump_prefixes(
    FILE *out, const char *name, const struct tn_prefix *p, unsigned n)
{
    char text[TN_PREFIX_STRLEN];
    unsigned i;

    for (i = 0; i < n; i++) {
        tn_prefix_format(&p[i], text);
        fprintf(out, "  %s %s\n", name, text);
    }
}

static void
dump_node(FILE *out, const char *kind, const struct netmap_node *n)
{
    char text[TN_ENDPOINT_STRLEN];
    unsigned i;

    fprintf(out, "%s %lld \"%s\" stable=%s user=%lld sharer=%lld expiry=%lld",
        kind, (long long)n->id, n->name, n->stable_id, (long long)n->user,
        (long long)n->sharer, (long long)n->key_expiry);
    fprintf(out, "%s%s%s%s\n", n->expired ? " expired" : "",
        n->online ? " online" : "", n->jailed ? " jailed" : "",
        n->unsigned_peerapi_only ? " unsigned" : "");
    fprintf(out, "  key ");
    for (i = 0; i < 32 && n->has_key; i++) {
        fprintf(out, "%02x", n->key[i]);
    }
    fprintf(out, "%s\n", n->has_key ? "" : "none");
    dump_prefixes(out, "address", n->addresses, n->naddresses);
    dump_prefixes(out, "allowed", n->allowed_ips, n->nallowed_ips);
    for (i = 0; i < n->nendpoints; i++) {
        tn_endpoint_format(&n->endpoints[i], text);
        fprintf(out, "  endpoint %s\n", text);
    }
    for (i = 0; i < n->ntags; i++) {
        fprintf(out, "  %s\n", n->tags[i]);
    }
    for (i = 0; i < n->ncaps; i++) {
        fprintf(out, "  cap %s\n", n->caps[i]);
    }
}

static void
dump_range(FILE *out, const char *name, const struct netmap_ip_range *r)
{
    char text[TN_ADDR_STRLEN];

    fprintf(out, "  %s ", name);
    if (r->any) {
        fprintf(out, "*");
        return;
    }
    tn_addr_format(&r->first, text);
    fprintf(out, "%s", text);
    if (!tn_addr_equal(&r->first, &r->last)) {
        tn_addr_format(&r->last, text);
        fprintf(out, "-%s", text);
    }
}

static void
dump_rule(FILE *out, const struct netmap_rule *r)
{
    const struct netmap_cap_grant *g;
    unsigned i, j;

    fprintf(out, "rule proto");
    for (i = 0; i < 256; i++) {
        if (r->protos[i / 8] >> i % 8 & 1) {
            fprintf(out, " %u", i);
        }
    }
    fprintf(out, "%s\n", r->proto_default ? " default" : "");
    for (i = 0; i < r->nsrcs; i++) {
        dump_range(out, "from", &r->srcs[i]);
        fprintf(out, "\n");
    }
    for (i = 0; i < r->nsrc_caps; i++) {
        fprintf(out, "  from cap %s\n", r->src_caps[i]);
    }
    for (i = 0; i < r->ndsts; i++) {
        dump_range(out, "to", &r->dsts[i].ip);
        fprintf(out, " %u-%u\n", r->dsts[i].first, r->dsts[i].last);
    }
    for (i = 0; i < r->ngrants; i++) {
        g = &r->grants[i];
        dump_prefixes(out, "grant at", g->dsts, g->ndsts);
        for (j = 0; j < g->ncaps; j++) {
            fprintf(out, "  grant %s %s\n", g->names[j],
                g->values[j][0] == '\0' ? "bare" : g->values[j]);
        }
    }
}

static char *
dump(const struct netmap *nm, const struct map_json_error *err)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    unsigned i;

    fprintf(
        out, "domain \"%s\" suffix \"%s\"\n", nm->domain, netmap_suffix(nm));
    dump_node(out, "self", &nm->self);
    for (i = 0; i < nm->npeers; i++) {
        dump_node(out, "peer", &nm->peers[i]);
    }
    for (i = 0; i < nm->nusers; i++) {
        fprintf(out, "user %lld \"%s\" \"%s\" \"%s\"\n",
            (long long)nm->users[i].id, nm->users[i].login, nm->users[i].name,
            nm->users[i].pic);
    }
    fprintf(out, "rules %s\n", nm->has_rules ? "given" : "not given");
    for (i = 0; i < nm->nrules; i++) {
        dump_rule(out, &nm->rules[i]);
    }
    for (i = 0; i < err->nwarnings && i < MAP_JSON_MAX_WARNINGS; i++) {
        fprintf(out, "warning: %s\n", err->warnings[i]);
    }
    fclose(out);
    return text;
}

/* ---- folders ---- */

static char *
slurp(const char *path, size_t *len)
{
    FILE *fp = fopen(path, "rb");
    char *text;
    long size;

    if (fp == NULL) {
        fail_msg("%s: %s", path, strerror(errno));
    }
    fseek(fp, 0, SEEK_END);
    size = ftell(fp);
    rewind(fp);
    text = malloc((size_t)size + 1);
    assert_int_equal(fread(text, 1, (size_t)size, fp), size);
    text[size] = '\0';
    *len = (size_t)size;
    fclose(fp);
    return text;
}

/* Compare with a file of the case, or write it. */
static unsigned
settle(const char *folder, const char *file, const char *got)
{
    const char *write = getenv("VECTORS_WRITE");
    char path[512], *want;
    unsigned bad = 0;
    size_t len;
    FILE *fp;

    snprintf(path, sizeof(path), "%s/%s", folder, file);
    if (write != NULL && strcmp(write, "1") == 0) {
        fp = fopen(path, "w");
        assert_non_null(fp);
        fputs(got, fp);
        fclose(fp);
        return 0;
    }
    want = slurp(path, &len);
    if (strcmp(want, got) != 0) {
        print_error("%s: want\n%sgot\n%s", path, want, got);
        bad = 1;
    }
    free(want);
    return bad;
}

static unsigned
check_valid(const char *folder)
{
    struct map_json_error err;
    struct netmap *nm;
    char path[512], *text, *got;
    size_t len;
    unsigned bad;

    snprintf(path, sizeof(path), "%s/input.json", folder);
    text = slurp(path, &len);
    nm = map_json_parse(text, len, &err);
    free(text);
    if (nm == NULL) {
        print_error("%s: %s\n", folder, err.text);
        return 1;
    }
    assert_string_equal(err.text, "");
    got = dump(nm, &err);
    bad = settle(folder, "output", got);
    free(got);
    netmap_free(nm);
    return bad;
}

static unsigned
check_invalid(const char *folder)
{
    struct map_json_error err;
    struct netmap *nm;
    char path[512], line[MAP_JSON_TEXT_LEN + 2], *text;
    size_t len;

    snprintf(path, sizeof(path), "%s/input.json", folder);
    text = slurp(path, &len);
    nm = map_json_parse(text, len, &err);
    free(text);
    if (nm != NULL) {
        print_error("%s: not refused\n", folder);
        netmap_free(nm);
        return 1;
    }
    /* the place is there on its own as well */
    assert_true(
        err.line > 0 || strncmp(err.text, err.path, strlen(err.path)) == 0);
    snprintf(line, sizeof(line), "%s\n", err.text);
    return settle(folder, "error", line);
}

static void
each_case(const char *kind, unsigned (*check)(const char *folder), unsigned min)
{
    char folder[512];
    struct dirent *entry;
    unsigned n = 0, bad = 0;
    DIR *dir;

    snprintf(folder, sizeof(folder), VECTORS "/%s", kind);
    dir = opendir(folder);
    if (dir == NULL) {
        fail_msg("cannot open %s: run from the project's root", folder);
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(folder, sizeof(folder), VECTORS "/%s/%s", kind, entry->d_name);
        bad += check(folder);
        n++;
    }
    closedir(dir);
    print_message("# %u %s documents\n", n, kind);
    assert_int_equal(bad, 0);
    assert_true(n >= min);
}

static void
test_valid(void **state)
{
    (void)state;
    each_case("valid", check_valid, 20);
}

static void
test_invalid(void **state)
{
    (void)state;
    each_case("invalid", check_invalid, 40);
}

/* Every document cut short is refused, and nothing is leaked or overrun. */
static void
test_truncated(void **state)
{
    static const char path[] = VECTORS "/valid/headscale-capgrant/input.json";
    struct map_json_error err;
    size_t len, cut;
    char *text, *tight;

    (void)state;
    text = slurp(path, &len);
    while (len > 0 && text[len - 1] != '}') {
        len--;
    }
    for (cut = 0; cut < len; cut += 7) {
        tight = malloc(cut + 1);
        memcpy(tight, text, cut);
        assert_null(map_json_parse(tight, cut, &err));
        assert_true(err.line > 0);
        free(tight);
    }
    free(text);
}

/* ---- limits ---- */

/* ${head}, then ${n} times ${item} with commas between, then ${tail}. */
static char *
repeat(const char *head, size_t n, const char *item, const char *tail)
{
    size_t each = strlen(item), i;
    char *text = malloc(strlen(head) + n * (each + 1) + strlen(tail) + 1), *p;

    p = stpcpy(text, head);
    for (i = 0; i < n; i++) {
        if (i > 0) {
            *p++ = ',';
        }
        memcpy(p, item, each);
        p += each;
    }
    strcpy(p, tail);
    return text;
}

static void
test_limits(void **state)
{
    static const struct {
        const char *head;
        const char *item;
        const char *tail;
        size_t max;
        const char *path;
        const char *limit;
    } list[] = {
        {"{\"Peers\":[", "1", "]}", NETMAP_MAX_PEERS, "Peers",
            "NETMAP_MAX_PEERS"},
        {"{\"UserProfiles\":[", "1", "]}", NETMAP_MAX_USERS, "UserProfiles",
            "NETMAP_MAX_USERS"},
        {"{\"PacketFilter\":[", "{}", "]}", NETMAP_MAX_RULES, "PacketFilter",
            "NETMAP_MAX_RULES"},
        {"{\"PacketFilters\":{\"a\":[{}],\"b\":[", "{}", "]}}",
            NETMAP_MAX_RULES - 1, "PacketFilters.b", "NETMAP_MAX_RULES"},
        {"{\"PacketFilter\":[{\"SrcIPs\":[", "\"*\"", "]}]}",
            NETMAP_MAX_RULE_LIST, "PacketFilter[0].SrcIPs",
            "NETMAP_MAX_RULE_LIST"},
        {"{\"PacketFilter\":[{\"DstPorts\":[", "{}", "]}]}",
            NETMAP_MAX_RULE_LIST, "PacketFilter[0].DstPorts",
            "NETMAP_MAX_RULE_LIST"},
        {"{\"PacketFilter\":[{\"IPProto\":[", "1", "]}]}", NETMAP_MAX_RULE_LIST,
            "PacketFilter[0].IPProto", "NETMAP_MAX_RULE_LIST"},
        {"{\"PacketFilter\":[{\"CapGrant\":[", "{}", "]}]}",
            NETMAP_MAX_RULE_LIST, "PacketFilter[0].CapGrant",
            "NETMAP_MAX_RULE_LIST"},
        {"{\"PacketFilter\":[{\"CapGrant\":[{\"Dsts\":[", "\"1.2.3.4\"",
            "]}]}]}", NETMAP_MAX_RULE_LIST, "PacketFilter[0].CapGrant[0].Dsts",
            "NETMAP_MAX_RULE_LIST"},
        {"{\"PacketFilter\":[{\"CapGrant\":[{\"Caps\":[", "\"c\"", "]}]}]}",
            NETMAP_MAX_CAPS, "PacketFilter[0].CapGrant[0].Caps",
            "NETMAP_MAX_CAPS"},
        {"{\"PacketFilter\":[{\"CapGrant\":[{\"CapMap\":{\"c\":[", "1",
            "]}}]}]}", NETMAP_MAX_CAP_VALUE / 2 - 1,
            "PacketFilter[0].CapGrant[0].CapMap.c", "NETMAP_MAX_CAP_VALUE"},
        {"{\"Node\":{\"Capabilities\":[", "\"c\"", "]}}", NETMAP_MAX_CAPS,
            "Node.Capabilities", "NETMAP_MAX_CAPS"},
        {"{\"Node\":{\"Tags\":[", "\"tag:a\"", "]}}", NETMAP_MAX_TAGS,
            "Node.Tags", "NETMAP_MAX_TAGS"},
        {"{\"Node\":{\"Addresses\":[", "\"1.2.3.4\"", "]}}", NETMAP_MAX_ADDRS,
            "Node.Addresses", "NETMAP_MAX_ADDRS"},
        {"{\"Node\":{\"AllowedIPs\":[", "\"1.2.3.4\"", "]}}", NETMAP_MAX_ADDRS,
            "Node.AllowedIPs", "NETMAP_MAX_ADDRS"},
        {"{\"Node\":{\"Endpoints\":[", "\"1.2.3.4:5\"", "]}}", NETMAP_MAX_ADDRS,
            "Node.Endpoints", "NETMAP_MAX_ADDRS"},
        {"{\"Domain\":\"", "", "\"}", NETMAP_MAX_STRING + 1, "Domain",
            "NETMAP_MAX_STRING"},
        {"{\"Node\":{\"CapMap\":{\"", "", "\":null}}}", NETMAP_MAX_STRING + 1,
            NULL, "NETMAP_MAX_STRING"},
    };
    struct map_json_error err;
    struct netmap *nm;
    char *text;
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        text = repeat(
            list[i].head, list[i].max + 1, list[i].item, list[i].tail);
        nm = map_json_parse(text, strlen(text), &err);
        free(text);
        if (nm != NULL || strstr(err.text, list[i].limit) == NULL ||
            (list[i].path != NULL && strcmp(err.path, list[i].path) != 0)) {
            fail_msg("limit %zu: %s", i, err.text);
        }
        /* the limit itself is allowed; peers and users of this kind are not */
        text = repeat(list[i].head, list[i].max, list[i].item, list[i].tail);
        nm = map_json_parse(text, strlen(text), &err);
        free(text);
        if (i > 1 && nm == NULL) {
            fail_msg("limit %zu, not passed: %s", i, err.text);
        }
        netmap_free(nm);
    }
    assert_null(map_json_parse("", MAP_JSON_MAX_TEXT + 1u, &err));
    assert_non_null(strstr(err.text, "MAP_JSON_MAX_TEXT"));
    text = repeat("{\"x\":[", 400000, "{}", "]}");
    assert_null(map_json_parse(text, strlen(text), &err));
    assert_non_null(strstr(err.text, "MAP_JSON_MAX_TREE"));
    free(text);
}

/* More warnings than are kept are counted. */
static void
test_warnings(void **state)
{
    char *text = repeat("{\"PacketFilter\":[{\"SrcIPs\":[", 100, "\"?\"",
        "],\"DstPorts\":[{\"IP\":\"*\"}]}]}");
    struct map_json_error err;
    struct netmap *nm = map_json_parse(text, strlen(text), &err);

    (void)state;
    assert_non_null(nm);
    assert_int_equal(err.nwarnings, 100);
    assert_string_equal(err.warnings[MAP_JSON_MAX_WARNINGS - 1],
        "PacketFilter[0].SrcIPs[15]: \"?\" is no source: left out");
    assert_int_equal(nm->nrules, 1);
    assert_int_equal(nm->rules[0].nsrcs, 0);
    netmap_free(nm);
    free(text);
}

/* A message shows neither control characters nor endless values. */
static void
test_shown(void **state)
{
    char text[2048], *p = text;
    struct map_json_error err;
    int i;

    (void)state;
    p = stpcpy(p, "{\"Node\":{\"Tags\":[\"a\\u001b[31m\\n\\u007f");
    for (i = 0; i < 200; i++) {
        p = stpcpy(p, "\xc3\xa9");
    }
    strcpy(p, "\"]}}");
    assert_null(map_json_parse(text, strlen(text), &err));
    for (i = 0; err.text[i] != '\0'; i++) {
        assert_true((unsigned char)err.text[i] >= 0x20 && err.text[i] != 0x7f);
    }
    assert_true(i < 160);
    assert_non_null(strstr(err.text, "\xc3\xa9...\" is not \"tag:\""));

    strcpy(text, "{\"PacketFilters\":{\"a\\nb\":7}}");
    assert_null(map_json_parse(text, strlen(text), &err));
    assert_string_equal(err.text, "PacketFilters.a?b: a list expected");

    p = stpcpy(text, "{\"PacketFilters\":{\"");
    memset(p, 'a', 63);
    strcpy(p + 63, "\xc3\xa9\":7}}");
    assert_null(map_json_parse(text, strlen(text), &err));
    assert_non_null(strstr(err.text, "aa?: a list expected"));
}

/* ---- users ---- */

static void
test_users(void **state)
{
    static const char text[] =
        "{\"UserProfiles\":[{\"ID\":9007199254740993,\"LoginName\":\"big\"},"
        "{\"ID\":-5,\"LoginName\":\"minus\"},{\"ID\":7,\"LoginName\":\"x\"}]}";
    struct map_json_error err;
    struct netmap *nm = map_json_parse(text, sizeof(text) - 1, &err);

    (void)state;
    assert_non_null(nm);
    assert_string_equal(netmap_user(nm, 9007199254740993)->login, "big");
    assert_string_equal(netmap_user(nm, -5)->login, "minus");
    assert_string_equal(netmap_user(nm, 7)->login, "x");
    assert_null(netmap_user(nm, 9007199254740992));
    assert_null(netmap_user(nm, 0));
    netmap_free(nm);
    nm = map_json_parse("{}", 2, &err);
    assert_null(netmap_user(nm, 7));
    netmap_free(nm);
    netmap_free(NULL);
}

/* ---- size ---- */

/* 100,000 peers: time grows with them, not with their square. */
static void
test_many_peers(void **state)
{
    enum { N = 100000 };
    char *text = malloc((size_t)N * 260), *p = text;
    struct map_json_error err;
    struct timespec t0, t1;
    struct netmap *nm;
    double seconds;
    unsigned i;

    (void)state;
    p = stpcpy(p, "{\"Node\":{\"Addresses\":[\"10.255.255.1\"]},\"Peers\":[");
    for (i = 1; i <= N; i++) {
        p += sprintf(p,
            "%s{\"ID\":%u,\"Key\":\"nodekey:%064x\",\"Name\":\"n%u.t.\","
            "\"Addresses\":[\"10.%u.%u.%u\",\"fd7a::%x:%x\"],\"User\":%u}",
            i > 1 ? "," : "", i, i, i, i >> 16, i >> 8 & 255, i & 255, i >> 16,
            i & 0xffff, i % 100);
    }
    strcpy(p, "]}");
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
    nm = map_json_parse(text, strlen(text), &err);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
    free(text);
    if (nm == NULL) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(nm->npeers, N);
    netmap_free(nm);
    seconds = (double)(t1.tv_sec - t0.tv_sec) +
              (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    print_message("# %u peers in %.2f s\n", (unsigned)N, seconds);
    assert_true(seconds < 20);
}

/* ---- memory ---- */

/* Each allocation of the parser and of the JSON library fails in turn. */
static void
test_no_memory(void **state)
{
    static const char *const cases[] = {"headscale-capgrant", "filter-chunks",
        "unsigned-overlap", "users-merged"};
    struct map_json_error err;
    struct netmap *nm;
    char path[256], *text;
    size_t i, len;
    long n;

    (void)state;
    json_set_alloc_funcs(malloc, free); /* ours, by --wrap */
    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(path, sizeof(path), VECTORS "/valid/%s/input.json", cases[i]);
        text = slurp(path, &len);
        for (n = 0;; n++) {
            oom_arm(n);
            nm = map_json_parse(text, len, &err);
            oom_disarm();
            if (!oom_fired) {
                break;
            }
            if (nm != NULL || strcmp(err.text, "out of memory") != 0) {
                fail_msg("%s: allocation %ld: %s", cases[i], n, err.text);
            }
        }
        assert_non_null(nm);
        assert_true(n > 50);
        netmap_free(nm);
        free(text);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_shown),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_many_peers),
        cmocka_unit_test(test_no_memory),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

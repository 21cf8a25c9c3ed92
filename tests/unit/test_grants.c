/* links: core/tn_addr.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* links: tailnetd/engine/filter.c tailnetd/engine/filter_flow.c */
/* links: tailnetd/engine/filter_packet.c tailnetd/engine/filter_rules.c */
/* links: tailnetd/engine/grants.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/span.c */
/* libs: -ljansson -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
/*
 * Capability grants, and memory that runs out under them and the filter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/engine/grants.h"
#include "filter_kit.h"
#include "oom.h"

static void
test_grants(void **state)
{
    static const char json[] =
        "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]},\"Peers\":["
        "{\"ID\":4,\"Key\":\"" K(
            "4") "\",\"Addresses\":[\"100.64.0.4\"],"
                 "\"UnsignedPeerAPIOnly\":true,\"CapMap\":{\"holder\":null}},"
                 "{\"ID\":5,\"Key\":\"" K(
                     "5") "\",\"Addresses\":[\"100.64.0.5\"],"
                          "\"CapMap\":{\"holder\":null}}],\"PacketFilter\":["
                          "{\"SrcIPs\":[\"100.64.0.2-100.64.0.4\",\"100.64.0."
                          "3\"],\"CapGrant\":["
                          "{\"Dsts\":[\"100.64.0.0/"
                          "10\",\"100.64.0.1\"],\"CapMap\":{"
                          "\"b\":[1,{\"x\":[\"\\u00e9\\n\\\"\"]}],\"a\":[]},"
                          "\"Caps\":[\"bare\",\"a\"]},"
                          "{\"Dsts\":[\"::/0\"],\"Caps\":[\"six\"]}]},"
                          "{\"SrcIPs\":[\"cap:holder\"],\"CapGrant\":[{"
                          "\"Dsts\":[\"0.0.0.0/0\"],"
                          "\"Caps\":[\"never\"]}]},"
                          "{\"SrcIPs\":[\"*\"],\"CapGrant\":[{\"Dsts\":[\"100."
                          "64.0.1\","
                          "\"fd7a::1\"],\"CapMap\":{\"b\":[null,\"t\"],"
                          "\"bare\":null,"
                          "\"q\\\"\\\\\\u0001\":[2],"
                          "\"" GRANTS_INGRESS "\":null}}]}]}";
    static const struct {
        const char *src;
        const char *dst;
        const char *want;
    } list[] = {
        {"100.64.0.2", "100.64.0.1",
            "{\"a\":[],\"b\":[1,{\"x\":[\"\xc3\xa9\\n\\\"\"]},null,\"t\"],"
            "\"bare\":null,\"" GRANTS_INGRESS "\":null,"
            "\"q\\\"\\\\\\u0001\":[2]}"},
        {"100.64.0.2", "100.64.0.9",
            "{\"a\":[],\"b\":[1,{\"x\":[\"\xc3\xa9\\n\\\"\"]}],"
            "\"bare\":null}"},
        {"100.64.0.5", "100.64.0.1",
            "{\"b\":[null,\"t\"],\"bare\":null,\"" GRANTS_INGRESS
            "\":null,\"q\\\"\\\\\\u0001\":[2]}"},
        {"100.64.0.4", "100.64.0.1", "{\"" GRANTS_INGRESS "\":null}"},
        {"100.64.0.5", "100.64.0.9", "{}"},
        {"fd7a::2", "100.64.0.9", "{}"},
        {"fd7a::2", "fd7a::1",
            "{\"b\":[null,\"t\"],\"bare\":null,\"" GRANTS_INGRESS
            "\":null,\"q\\\"\\\\\\u0001\":[2]}"},
    };
    struct netmap *nm = map_of(json);
    struct grants *g = grants_new(nm);
    struct tn_addr src, dst;
    char *text, *once;
    size_t i;

    (void)state;
    assert_non_null(g);
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        src = addr(list[i].src);
        dst = addr(list[i].dst);
        assert_int_equal(grants_query(g, &src, &dst, &text), 0);
        assert_string_equal(text, list[i].want);
        assert_int_equal(filter_caps(nm, &src, &dst, &once), 0);
        assert_string_equal(once, text);
        free(once);
        free(text);
    }
    grants_free(g);
    netmap_free(nm);
}

/* ---- memory ---- */

static void
test_no_memory(void **state)
{
    static const char json[] =
        "{\"Node\":{\"Addresses\":[\"100.64.0.1\",\"fd7a::1\"]},\"Peers\":["
        "{\"ID\":4,\"Key\":\"" K(
            "4") "\",\"Addresses\":[\"100.64.0.4\"],"
                 "\"UnsignedPeerAPIOnly\":true},"
                 "{\"ID\":5,\"Key\":\"" K(
                     "5") "\",\"Addresses\":[\"100.64.0.5\"],"
                          "\"CapMap\":{\"holder\":null}}],\"PacketFilter\":["
                          "{\"SrcIPs\":[\"cap:holder\",\"100.64.0.7\"],"
                          "\"DstPorts\":[{\"IP\":"
                          "\"*\",\"Ports\":{\"First\":22,\"Last\":22}}],"
                          "\"CapGrant\":[{\"Dsts\":"
                          "[\"100.64.0.1\"],\"Caps\":[\"c\"]}]},"
                          "{\"SrcIPs\":[\"*\"],\"CapGrant\":[{\"Dsts\":[\"100."
                          "64.0.1\"],"
                          "\"CapMap\":{\"c\":["
                          "\"0123456789012345678901234567890123456789\"]}}]}"
                          "]}";
    struct netmap *nm = map_of(json);
    struct tn_addr src = addr("100.64.0.7"), dst = addr("100.64.0.1");
    struct filter *f;
    char *text;
    long n;

    (void)state;
    for (n = 0;; n++) {
        oom_arm(n);
        f = filter_new(nm, NULL);
        oom_disarm();
        if (!oom_fired) {
            break;
        }
        assert_null(f);
    }
    assert_non_null(f);
    assert_true(n > 10);
    filter_free(f);
    for (n = 0;; n++) {
        text = NULL;
        oom_arm(n);
        if (filter_caps(nm, &src, &dst, &text) == 0) {
            break;
        }
        oom_disarm();
        assert_true(oom_fired);
        assert_null(text);
    }
    oom_disarm();
    assert_false(oom_fired);
    assert_non_null(text);
    assert_true(n > 5);
    free(text);
    netmap_free(nm);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grants),
        cmocka_unit_test(test_no_memory),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

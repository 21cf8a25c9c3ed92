/* links: tailnetd/control/message.c tailnetd/control/url.c */
/* links: tailnetd/engine/keytext.c core/tn_addr.c */
/* libs: -ljansson */
/*
 * test_message.c: requests to a control server, its short answers, its URLs.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/control/message.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const uint8_t key[32] = {0xab, [31] = 1}, old[32] = {0xcd};

static struct message_self
self(void)
{
    static const char *const tags[] = {"tag:a", "tag:b"};
    static struct tn_prefix routes[1];
    static struct message_endpoint endpoints[2];
    static const struct message_netinfo net = {.varies = -1,
        .working_ipv6 = 0,
        .os_ipv6 = 1,
        .working_udp = 1,
        .working_icmp4 = -1,
        .preferred_derp = 7,
        .latency = {{7, false, 0.25}, {9, true, 1.5}},
        .nlatency = 2};

    tn_prefix_parse(&routes[0], "10.0.0.0/8", 10);
    tn_endpoint_parse(&endpoints[0].at, "1.2.3.4:5", 9);
    tn_endpoint_parse(&endpoints[1].at, "[fd00::1]:6", 11);
    endpoints[0].type = MESSAGE_STUN;
    endpoints[1].type = MESSAGE_LOCAL;
    return (struct message_self){.version = 131,
        .hostname = "web",
        .tags = tags,
        .ntags = 2,
        .routes = routes,
        .nroutes = 1,
        .node_key = key,
        .disco = old,
        .endpoints = endpoints,
        .nendpoints = 2,
        .net = &net};
}

static json_t *
load(char *text, size_t len)
{
    json_t *o;

    assert_non_null(text);
    o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    message_free(text, len);
    return o;
}

static const char *
string(const json_t *o, const char *name)
{
    return json_string_value(json_object_get(o, name));
}

static void
requests(void **state)
{
    struct message_self m = self();
    json_t *o, *info;
    size_t len;
    char *text;

    (void)state;
    text = message_register(&m, "k\"\\\n", "http://x/auth/1", false, &len);
    o = load(text, len);
    assert_int_equal(json_integer_value(json_object_get(o, "Version")), 131);
    assert_string_equal(string(o, "NodeKey"),
        "nodekey:ab00000000000000000000000000000000000000000000000000000000000"
        "001");
    assert_string_equal(
        string(json_object_get(o, "Auth"), "AuthKey"), "k\"\\\n");
    assert_string_equal(string(o, "Followup"), "http://x/auth/1");
    assert_null(json_object_get(o, "Expiry"));
    assert_null(json_object_get(o, "Ephemeral"));
    info = json_object_get(o, "Hostinfo");
    assert_string_equal(string(info, "Hostname"), "web");
    assert_string_equal(string(info, "OS"), "linux");
    assert_int_equal(json_array_size(json_object_get(info, "RequestTags")), 2);
    assert_string_equal(json_string_value(json_array_get(
                            json_object_get(info, "RoutableIPs"), 0)),
        "10.0.0.0/8");
    json_decref(o);

    m.old_key = old;
    m.ephemeral = true;
    text = message_register(&m, NULL, NULL, true, &len);
    o = load(text, len);
    assert_memory_equal(string(o, "OldNodeKey"), "nodekey:cd00", 12);
    assert_string_equal(string(o, "Expiry"), "1970-01-01T00:02:03Z");
    assert_true(json_is_true(json_object_get(o, "Ephemeral")));
    assert_null(json_object_get(o, "Auth"));
    json_decref(o);

    text = message_map(&m, true, &len);
    o = load(text, len);
    assert_true(json_is_true(json_object_get(o, "Stream")));
    assert_null(json_object_get(o, "OmitPeers"));
    assert_string_equal(string(o, "Compress"), "zstd");
    json_decref(o);
    text = message_map(&m, false, &len);
    o = load(text, len);
    assert_null(json_object_get(o, "Stream"));
    assert_true(json_is_true(json_object_get(o, "OmitPeers")));
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(o, "Endpoints"), 1)),
        "[fd00::1]:6");
    assert_int_equal(json_integer_value(json_array_get(
                         json_object_get(o, "EndpointTypes"), 0)),
        2);
    info = json_object_get(json_object_get(o, "Hostinfo"), "NetInfo");
    assert_int_equal(
        json_integer_value(json_object_get(info, "PreferredDERP")), 7);
    assert_null(json_object_get(info, "MappingVariesByDestIP"));
    assert_true(json_is_false(json_object_get(info, "WorkingIPv6")));
    assert_true(json_number_value(json_object_get(
                    json_object_get(info, "DERPLatency"), "9-v6")) == 1.5);
    json_decref(o);
}

static void
registered(void **state)
{
    static const struct {
        const char *text;
        int rc;
        const char *error, *url;
        bool authorized, expired, locked;
    } table[] = {
        {"{\"MachineAuthorized\":true,\"Error\":\"\"}", 0, "", "", true, false,
            false},
        {"{\"Error\":\"no tskey-auth-k1-x, hskey-auth-a-b\"}", 0,
            "no tskey-*********, hskey-********", "", false, false, false},
        {"{\"Error\":\"invalid\\nauthkey\"}", 0, "invalid?authkey", "", false,
            false, false},
        {"{\"AuthURL\":\"https://c/a/1\",\"NodeKeyExpired\":true}", 0, "",
            "https://c/a/1", false, true, false},
        {"{\"NodeKeySignature\":\"AAAA\"}", 0, "", "", false, false, true},
        {"{\"NodeKeySignature\":null,\"Login\":null}", 0, "", "", false, false,
            false},
        {"{\"AuthURL\":\"javascript:x\"}", -1, NULL, NULL, false, false, false},
        {"{\"AuthURL\":\"http://a b\"}", -1, NULL, NULL, false, false, false},
        {"[]", -1, NULL, NULL, false, false, false},
        {"", -1, NULL, NULL, false, false, false},
        {"{", -1, NULL, NULL, false, false, false},
    };
    struct message_registered r;
    char err[MESSAGE_ERROR_MAX];

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        assert_int_equal(
            message_registered(table[i].text, strlen(table[i].text), &r, err),
            table[i].rc);
        if (table[i].rc != 0)
            continue;
        assert_string_equal(r.error, table[i].error);
        assert_string_equal(r.url, table[i].url);
        assert_int_equal(r.authorized, table[i].authorized);
        assert_int_equal(r.expired, table[i].expired);
        assert_int_equal(r.locked, table[i].locked);
    }
}

static void
server_key(void **state)
{
    static const char *const bad[] = {"mkey:00", "{}", "{\"publicKey\":1}",
        "{\"publicKey\":\"mkey:00\"}",
        ("{\"publicKey\":\"mkey:"
         "000000000000000000000000000000000000000000000000"
         "0000000000000000\"}")};
    static const char good[] =
        "{\"legacyPublicKey\":\"mkey:000000000000000000000000000000000000000000"
        "0000000000000000000000\",\"publicKey\":\"mkey:"
        "0500000000000000000000000"
        "000000000000000000000000000000000000000\"}";
    char err[MESSAGE_ERROR_MAX];
    uint8_t k[32];

    (void)state;
    assert_int_equal(message_server_key(good, sizeof(good) - 1, k, err), 0);
    assert_int_equal(k[0], 5);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(
            message_server_key(bad[i], strlen(bad[i]), k, err), -1);
}

static void
retry_after(void **state)
{
    static const struct {
        const char *value;
        unsigned seconds;
    } table[] = {
        {"120", 120},
        {"3600", 3600},
        {"3601", 0},
        {"0", 0},
        {"12x", 0},
        {"-5", 0},
        {"", 0},
        {"99999999999999999999", 0},
        {"Thu, 01 Jan 1970 00:20:00 GMT", 200},
        {"Thu, 01 Jan 1970 00:10:00 GMT", 0},
        {"Fri, 02 Jan 1970 00:10:00 GMT", 0},
        {"tomorrow", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++)
        assert_int_equal(
            message_retry_after(table[i].value, 1000), table[i].seconds);
}

static void
urls(void **state)
{
    static const struct {
        const char *text;
        bool tls, has_port, private;
        uint16_t port;
        const char *host, *path, *authority; /* host NULL: refused */
    } table[] = {
        {"https://C.example.com", true, false, false, 443, "c.example.com", "/",
            "c.example.com"},
        {"http://10.0.0.1:8080/a?b#c", false, true, true, 8080, "10.0.0.1",
            "/a?b", "10.0.0.1:8080"},
        {"HTTPS://[fd00::1]:443?x", true, true, true, 443, "fd00::1", "/?x",
            "[fd00::1]"},
        {"http://localhost", false, false, true, 80, "localhost", "/",
            "localhost"},
        {"http://172.15.0.1", false, false, false, 80, "172.15.0.1", "/",
            "172.15.0.1"},
        {"ftp://x", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://u@x", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://x:0", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://x:65536", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://x:", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://[x]", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://[::1", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://a b", 0, 0, 0, 0, NULL, NULL, NULL},
        {"http://x/\r\nHost: y", 0, 0, 0, 0, NULL, NULL, NULL},
    };
    char authority[URL_AUTHORITY_MAX];
    struct url u;

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        int rc = url_parse(&u, table[i].text);

        if (rc != (table[i].host == NULL ? -1 : 0))
            fail_msg("%s: %d", table[i].text, rc);
        if (rc != 0)
            continue;
        assert_int_equal(u.tls, table[i].tls);
        assert_int_equal(u.has_port, table[i].has_port);
        assert_int_equal(u.port, table[i].port);
        assert_string_equal(u.host, table[i].host);
        assert_string_equal(u.path, table[i].path);
        assert_int_equal(url_is_private(&u), table[i].private);
        url_authority(&u, authority);
        assert_string_equal(authority, table[i].authority);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),
        cmocka_unit_test(registered),
        cmocka_unit_test(server_key),
        cmocka_unit_test(retry_after),
        cmocka_unit_test(urls),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/proxy.c tailnetd/base64.c core/tn_addr.c */
/*
 * test_proxy.c: which proxy the environment asks for.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/proxy.h"

static char err[PROXY_ERROR_MAX];

static void
values(void **state)
{
    static const struct {
        const char *value, *host;
        uint16_t port; /* 0: unusable */
        const char *auth;
    } rows[] = {
        {"http://proxy.example:3128", "proxy.example", 3128, ""},
        {"proxy.example", "proxy.example", 80, ""},
        {"HTTP://[fd7a::1]:8080/", "fd7a::1", 8080, ""},
        {"http://u:p%40ss@proxy/", "proxy", 80, "dTpwQHNz"}, /* u:p@ss */
        {"http://u@proxy:1", "proxy", 1, "dTo="},            /* u: */
        {"http://u:@proxy:1", "proxy", 1, "dTo="},
        {"http://:@proxy:1", "proxy", 1, "Og=="},
        {"https://proxy:1", "", 0, ""},
        {"http://proxy:", "", 0, ""},
        {"http://proxy:0", "", 0, ""},
        {"http://proxy:+80", "", 0, ""},
        {"http://proxy:-1", "", 0, ""},
        {"http://proxy: 80", "", 0, ""},
        {"http://proxy:65536", "", 0, ""},
        {"http://proxy:18446744073709551696", "", 0, ""},
        {"http://proxy:80x", "", 0, ""},
        {"http://proxy?x", "", 0, ""},
        {"http://a proxy", "", 0, ""},
        {"http://[proxy]:80", "", 0, ""},
        {"http://[fd7a::1]80", "", 0, ""},
        {"http://[fd7a::1", "", 0, ""},
        {"http://fd7a::1", "", 0, ""},
        {"http://", "", 0, ""},
        {"http://@proxy", "", 0, ""},
    };
    struct proxy p;
    enum proxy_verdict v;

    (void)state;
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    unsetenv("https_proxy");
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        setenv("HTTPS_PROXY", rows[i].value, 1);
        v = proxy_for("target", 443, true, &p, err);
        if (v != (rows[i].port != 0 ? PROXY_USE : PROXY_UNUSABLE))
            fail_msg("%s: verdict %d", rows[i].value, v);
        if (v != PROXY_USE) {
            assert_non_null(strstr(err, "HTTPS_PROXY"));
            continue;
        }
        assert_string_equal(p.host, rows[i].host);
        assert_int_equal(p.port, rows[i].port);
        assert_string_equal(p.auth, rows[i].auth);
    }
}

static void
exceptions(void **state)
{
    static const struct {
        const char *list, *host;
        uint16_t port;
        bool direct;
    } rows[] = {
        {"", "a.example", 443, false},
        {"*", "a.example", 443, true},
        {"b.example a.example", "A.Example", 443, true},
        {"example", "a.example", 443, true},
        {".example", "a.example", 443, true},
        {"*.example", "a.example", 443, true},
        {"*.example", "a.examples", 443, false},
        {"a.example", "ba.example", 443, false},
        {"a.example:443", "a.example", 443, true},
        {"a.example:80", "a.example", 443, false},
        {"a.example:443x", "a.example", 443, false},
        {"a.example:+443", "a.example", 443, false},
        {"a.example: 443", "a.example", 443, false},
        {"a.example:", "a.example", 443, false},
        {"10.0.0.0/8,fd7a::/16", "10.1.2.3", 443, true},
        {"10.0.0.0/8\tfd7a::/16", "fd7a::5", 443, true},
        {"10.0.0.0/8", "11.1.2.3", 443, false},
        {"10.1.2.3:443", "10.1.2.3", 443, true},
        {"[fd7a::5]", "fd7a::5", 443, true},
        {"[fd7a::5]:443", "fd7a::5", 443, true},
        {"[fd7a::5]:80", "fd7a::5", 443, false},
        {"2.3", "10.1.2.3", 443, false},
        {"", "localhost", 443, true},
        {"", "127.9.9.9", 443, true},
        {"", "::1", 443, true},
    };
    struct proxy p;
    enum proxy_verdict v;

    (void)state;
    unsetenv("no_proxy");
    setenv("https_proxy", "http://proxy", 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        setenv("NO_PROXY", rows[i].list, 1);
        v = proxy_for(rows[i].host, rows[i].port, true, &p, err);
        if (v != (rows[i].direct ? PROXY_DIRECT : PROXY_USE))
            fail_msg("%s for %s: verdict %d", rows[i].list, rows[i].host, v);
    }
    unsetenv("https_proxy");
    unsetenv("NO_PROXY");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(exceptions),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* links: tailnetd/engine/say.c */
/*
 * test_say.c: one call, one line, whatever is in it.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/engine/say.h"

static char got[4 * SAY_MAX];

/* What say_info("%s") writes to standard error. */
static size_t
said(const char *text)
{
    int p[2], err = dup(STDERR_FILENO);
    ssize_t n;

    assert_int_equal(pipe(p), 0);
    assert_int_equal(dup2(p[1], STDERR_FILENO), STDERR_FILENO);
    say_info("%s", text);
    assert_int_equal(dup2(err, STDERR_FILENO), STDERR_FILENO);
    close(err);
    close(p[1]);
    n = read(p[0], got, sizeof(got) - 1);
    close(p[0]);
    assert_true(n > 0);
    got[n] = '\0';
    return (size_t)n;
}

static void
lines(void **state)
{
    static const struct {
        const char *text, *line;
    } table[] = {
        {"plain", "<6>plain\n"},
        {"", "<6>\n"},
        {"a\n<1>forged", "<6>a?<1>forged\n"},
        {"\x1b[31m\t\x7f\r\n", "<6>?[31m????\n"},
        {"\xc3\xa4", "<6>\xc3\xa4\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        said(table[i].text);
        assert_string_equal(got, table[i].line);
    }
}

static void
long_ones_are_cut(void **state)
{
    static char text[3 * SAY_MAX];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(said(text), SAY_MAX);
    assert_int_equal(got[SAY_MAX - 1], '\n');
    assert_null(memchr(got, '\n', SAY_MAX - 1));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(long_ones_are_cut),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

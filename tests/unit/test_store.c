/* links: tailnetd/holder/store.c */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/holder/store.h"

static int
new_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd != -1);
    return fd;
}

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

static size_t
count(void)
{
    size_t n = 0;

    while (store_at(n) != NULL)
        n++;
    return n;
}

static int
put(const char *name)
{
    int fd = new_fd();

    assert_int_equal(store_put(name, &fd, 1), 0);
    return fd;
}

static int
teardown(void **state)
{
    (void)state;
    store_drop_all();
    return 0;
}

static void
test_put(void **state)
{
    int fd = put("tun/web"), other, two[2];

    (void)state;
    assert_int_equal(store_fd("tun", "web"), fd);
    assert_int_equal(store_fd("tun", "we"), -1);
    assert_int_equal(store_fd("tu", "web"), -1);
    assert_int_equal(store_fd("tun", "web2"), -1);
    two[0] = new_fd();
    two[1] = new_fd();
    assert_int_equal(store_put("tun/web", two, 2), 0);
    assert_false(is_open(fd));
    assert_int_equal(store_at(0)->nfds, 2);
    assert_int_equal(store_fd("tun", "web"), two[0]);
    other = put("hot");
    assert_int_equal(store_put("tun/web", NULL, 0), 0);
    assert_false(is_open(two[0]) || is_open(two[1]));
    assert_true(is_open(other));
    assert_int_equal(store_put("never/there", NULL, 0), 0);
    assert_int_equal(count(), 1);
}

static void
test_names(void **state)
{
    char longest[IPC_NAME_MAX + 2];
    const char *bad[] = {"", "a b", "a\nb", "a\177", "\303\244", longest};
    size_t i;
    int fd;

    (void)state;
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        fd = new_fd();
        assert_int_equal(store_put(bad[i], &fd, 1), -1);
        assert_false(is_open(fd));
    }
    assert_int_equal(count(), 0);
    longest[IPC_NAME_MAX] = '\0';
    put(longest);
    assert_string_equal(store_at(0)->name, longest);
}

static void
test_drop(void **state)
{
    static const struct {
        const char *kind, *node; /* one of them */
        size_t left;
        const char *stays;
    } table[] = {
        {"hot", NULL, 4, "hotter"},
        {NULL, "web", 4, "udp4/webs"},
        {NULL, "we", 6, "tun/web"},
    };
    size_t i, j;

    (void)state;
    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        put("hot");
        put("hot/web2");
        put("hotter");
        put("tun/web");
        put("udp4/web");
        put("udp4/webs");
        if (table[i].kind != NULL)
            store_drop_kind(table[i].kind);
        else
            store_drop_node(table[i].node);
        assert_int_equal(count(), table[i].left);
        for (j = 0; j < count(); j++) {
            if (strcmp(store_at(j)->name, table[i].stays) == 0)
                break;
        }
        assert_true(j < count());
        store_drop_all();
        assert_int_equal(count(), 0);
    }
}

static void
test_full(void **state)
{
    char name[32];
    int fd, i;

    (void)state;
    for (i = 0; i < STORE_MAX; i++) {
        snprintf(name, sizeof(name), "fill/%d", i);
        put(name);
    }
    fd = new_fd();
    assert_int_equal(store_put("one/more", &fd, 1), -1);
    assert_false(is_open(fd));
    put("fill/7"); /* replacing needs no place */
    assert_int_equal(count(), STORE_MAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_put, teardown),
        cmocka_unit_test_teardown(test_names, teardown),
        cmocka_unit_test_teardown(test_drop, teardown),
        cmocka_unit_test_teardown(test_full, teardown),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

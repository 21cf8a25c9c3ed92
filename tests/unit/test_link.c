/* links: tailnetd/magic/link.c tailnetd/loop.c core/tn_addr.c */
/* libs: -luv -Wl,--wrap=getifaddrs,--wrap=freeifaddrs */
/*
 * test_link.c: which of a machine's addresses are told to peers, and when they
 * change.  Those of a tailnet, of this module's or of a tailscaled's on the
 * same machine, never are told: a packet to them would go through a tunnel.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/loop.h"
#include "../../ngx_tailnet_module/tailnetd/magic/link.h"

#define ROWS (LINK_ADDRS_MAX + 16)

/* ---- the machine ---- */

static struct ifaddrs rows[ROWS];
static struct sockaddr_storage addrs[ROWS];
static unsigned nrows;
static int broken;

int __wrap_getifaddrs(struct ifaddrs **list);
void __wrap_freeifaddrs(struct ifaddrs *list);

int
__wrap_getifaddrs(struct ifaddrs **list)
{
    if (broken) {
        errno = ENOMEM;
        return -1;
    }
    *list = nrows > 0 ? rows : NULL;
    return 0;
}

void
__wrap_freeifaddrs(struct ifaddrs *list)
{
    assert_ptr_equal(list, nrows > 0 ? rows : NULL);
}

/* One more address; ${text} NULL: an interface without. */
static void
has(const char *name, const char *text, unsigned flags)
{
    static char names[ROWS][IFNAMSIZ];
    struct sockaddr_in *sin = (struct sockaddr_in *)&addrs[nrows];
    struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&addrs[nrows];
    struct ifaddrs *row = &rows[nrows];
    struct tn_addr a;

    assert_true(nrows < ROWS);
    snprintf(names[nrows], IFNAMSIZ, "%s", name);
    *row = (struct ifaddrs){.ifa_name = names[nrows], .ifa_flags = flags};
    if (nrows > 0)
        rows[nrows - 1].ifa_next = row;
    nrows++;
    if (text == NULL)
        return;
    row->ifa_addr = (struct sockaddr *)sin;
    assert_int_equal(tn_addr_parse(&a, text, strlen(text)), 0);
    if (tn_addr_is4(&a)) {
        sin->sin_family = AF_INET;
        memcpy(&sin->sin_addr, a.b + 12, 4);
    } else {
        sin6->sin6_family = AF_INET6;
        memcpy(&sin6->sin6_addr, a.b, 16);
    }
}

/* What is told, in order, is ${want}, NULL at its end; returns what is left
 * out. */
static size_t
are(const char *const *want)
{
    struct tn_addr got[LINK_ADDRS_MAX];
    char buf[TN_ADDR_STRLEN];
    size_t n, i, more;

    n = link_addrs(got, &more);
    for (i = 0; i < n && want[i] != NULL; i++) {
        tn_addr_format(&got[i], buf);
        assert_string_equal(buf, want[i]);
    }
    assert_int_equal(i, n);
    assert_null(want[i]);
    return more;
}

static int
setup(void **state)
{
    (void)state;
    nrows = 0;
    broken = 0;
    memset(addrs, 0, sizeof(addrs));
    return 0;
}

/* ---- tests ---- */

static void
others_are_left_out(void **state)
{
    static const char *const want[] = {"10.0.0.7", "100.63.255.255",
        "100.128.0.0", "192.0.2.8", "2001:db8::8", "fd7a:115c:a1e1::1", NULL};

    (void)state;
    has("lo", "127.0.0.1", IFF_UP | IFF_LOOPBACK);
    has("lo", "::1", IFF_UP | IFF_LOOPBACK);
    has("eth0", NULL, IFF_UP);
    has("eth0", "2001:db8::8", IFF_UP);
    has("eth0", "192.0.2.8", IFF_UP);
    has("eth0", "fe80::1", IFF_UP);
    has("eth1", "198.51.100.1", 0); /* down */
    has("eth2", "10.0.0.7", IFF_UP);
    /* a tailnet's, whatever the interface is called, and from end to end */
    has("mesh0", "100.64.0.0", IFF_UP);
    has("mesh0", "100.127.255.255", IFF_UP);
    has("mesh0", "fd7a:115c:a1e0::", IFF_UP);
    has("utun3", "fd7a:115c:a1e0:ffff:ffff:ffff:ffff:ffff", IFF_UP);
    has("eth3", "100.63.255.255", IFF_UP);
    has("eth3", "100.128.0.0", IFF_UP);
    has("eth3", "fd7a:115c:a1e1::1", IFF_UP);
    /* tailscaled's, whatever range its server takes addresses from */
    has("tailscale0", "10.99.0.1", IFF_UP);
    has("tailscale1", "fd00::1", IFF_UP);
    assert_int_equal(are(want), 0);
}

/* A machine with a tailnet's addresses alone has only itself to offer. */
static void
loopback_if_alone(void **state)
{
    static const char *const want[] = {"::1", "127.0.0.1", NULL};
    static const char *const none[] = {NULL};

    (void)state;
    has("lo", "127.0.0.1", IFF_UP | IFF_LOOPBACK);
    has("lo", "::1", IFF_UP | IFF_LOOPBACK);
    has("tailscale0", "100.101.102.103", IFF_UP);
    has("eth0", "fe80::1", IFF_UP);
    assert_int_equal(are(want), 0);
    rows[0].ifa_flags = rows[1].ifa_flags = IFF_LOOPBACK;
    assert_int_equal(are(none), 0);
    nrows = 0;
    assert_int_equal(are(none), 0);
    broken = 1;
    assert_int_equal(are(none), 0);
}

static void
bounded(void **state)
{
    struct tn_addr got[LINK_ADDRS_MAX];
    char text[TN_ADDR_STRLEN];
    size_t more;

    (void)state;
    for (unsigned i = 0; i < LINK_ADDRS_MAX + 3; i++) {
        snprintf(text, sizeof(text), "10.0.0.%u", 200 - i);
        has("eth0", text, IFF_UP);
    }
    has("tailscale0", "100.64.0.1", IFF_UP);
    assert_int_equal(link_addrs(got, &more), LINK_ADDRS_MAX);
    assert_int_equal(more, 3);
    for (unsigned i = 1; i < LINK_ADDRS_MAX; i++)
        assert_true(got[i - 1].b[15] < got[i].b[15]);
}

static void
ranges(void **state)
{
    static const struct {
        const char *text;
        bool tailnet;
    } table[] = {
        {"100.64.0.0", true},
        {"100.100.100.100", true},
        {"100.127.255.255", true},
        {"100.63.255.255", false},
        {"100.128.0.0", false},
        {"101.64.0.1", false},
        {"fd7a:115c:a1e0::53", true},
        {"fd7a:115c:a1e0:b1a:0:7:a01:1", true},
        {"fd7a:115c:a1e1::", false},
        {"fd7a:115c:a1df:ffff:ffff:ffff:ffff:ffff", false},
        {"::6440:1", false},
    };
    struct tn_addr a;

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_int_equal(
            tn_addr_parse(&a, table[i].text, strlen(table[i].text)), 0);
        if (link_is_tailnet(&a) != table[i].tailnet)
            fail_msg("%s", table[i].text);
    }
}

/* ---- changes ---- */

static bool
loopback_is(int up)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = up ? IFF_UP : 0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool done = ioctl(fd, SIOCSIFFLAGS, &r) == 0;

    close(fd);
    return done;
}

/* A network namespace with loopback, which has an IPv4 address alone. */
static bool
own_network(void)
{
    int fd;
    bool done;

    if (unshare(CLONE_NEWNET) != 0 &&
        unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return false;
    fd = open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_WRONLY);
    done = fd == -1 ? errno == ENOENT : write(fd, "1", 1) == 1;
    if (fd != -1)
        close(fd);
    return done && loopback_is(1);
}

static unsigned told;

static void
changed(void *arg)
{
    (void)arg;
    told++;
    loop_stop();
}

static void
too_late(void *arg)
{
    (void)arg;
    loop_stop();
}

static struct loop_timer *flap_timer;

static void
flap(void *arg)
{
    static int up;

    (void)arg;
    assert_true(loopback_is(up));
    up = !up;
    loop_timer_set(flap_timer, loop_now() + LINK_SETTLE_MS / 4);
}

/* Runs last: the process stays in its new namespace. */
static void
interface_goes_down(void **state)
{
    struct loop_timer *end;
    struct link *l;

    (void)state;
    if (!own_network()) {
        print_message("no network namespace: %s\n", strerror(errno));
        skip();
    }
    assert_int_equal(loop_init(), 0);
    end = loop_timer_new(too_late, NULL);
    l = link_new(changed, NULL);
    assert_non_null(end);
    assert_non_null(l);
    for (int up = 0; up < 2; up++) {
        assert_true(loopback_is(up));
        loop_timer_set(end, loop_now() + 10000);
        loop_run();
        assert_int_equal(told, up + 1);
    }
    /* One that never settles is seen as well. */
    flap_timer = loop_timer_new(flap, NULL);
    assert_non_null(flap_timer);
    loop_timer_set(flap_timer, 0);
    loop_timer_set(end, loop_now() + 10000);
    loop_run();
    assert_int_equal(told, 3);
    loop_timer_free(flap_timer);
    link_free(l);
    loop_timer_free(end);
    loop_free();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(others_are_left_out, setup),
        cmocka_unit_test_setup(loopback_if_alone, setup),
        cmocka_unit_test_setup(bounded, setup),
        cmocka_unit_test(ranges),
        cmocka_unit_test(interface_goes_down),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

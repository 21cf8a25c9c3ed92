/* links: core/tn_addr.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* links: tailnetd/engine/keytext.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/span.c tailnetd/source/file.c */
/* libs: -ljansson -Wl,--wrap=malloc,--wrap=calloc */
/* libs: -Wl,--wrap=realloc,--wrap=pread */
/*
 * Netmap, private key and preshared keys from files: modes, owners, sizes,
 * forms.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../ngx_tailnet_module/tailnetd/source/file.h"
#include "oom.h"

#define HEX    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff"
#define BASE64 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8="
#define PEER_A "nodekey:" HEX
#define PEER_B "/wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define ZEROS  "0000000000000000000000000000000000000000000000000000000000000000"
#define OWN                                                              \
    "{\"Node\":{\"Addresses\":[\"100.64.0.1\"]%s},\"Peers\":[{\"ID\":2," \
    "\"Key\":\"nodekey:" HEX "\",\"Addresses\":[\"100.64.0.2\"]}]}"

/* ---- pread(2) with a mind of its own ---- */

ssize_t __real_pread(int fd, void *buf, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t at);

static enum { HONEST, INTERRUPTED, SHORT, FAILING, GROWING, SHRINKING } mood;
static unsigned reads;

ssize_t
__wrap_pread(int fd, void *buf, size_t n, off_t at)
{
    reads++;
    switch (mood) {
    case INTERRUPTED:
        if (reads == 1) {
            errno = EINTR;
            return -1;
        }
        break;
    case SHORT:
        n = n > 3 ? 3 : n;
        break;
    case FAILING:
        errno = EIO;
        return -1;
    case GROWING:
        assert_int_equal(ftruncate(fd, at + (off_t)n + 1), 0);
        break;
    case SHRINKING:
        assert_int_equal(ftruncate(fd, at + (off_t)n / 2), 0);
        break;
    case HONEST:
        break;
    }
    return __real_pread(fd, buf, n, at);
}

/* ---- files ---- */

static int
file_of(const char *text, size_t len, mode_t mode)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    return fd;
}

static int
file(const char *text)
{
    return file_of(text, strlen(text), 0600);
}

static struct netmap *
netmap_of(int fd, struct map_json_error *err)
{
    struct netmap *nm = source_file_netmap(fd, "net.json", geteuid(), err);

    close(fd);
    return nm;
}

static void
refuse_netmap(int fd, const char *want)
{
    struct map_json_error err;

    assert_null(netmap_of(fd, &err));
    assert_string_equal(err.text, want);
}

/* ---- netmap ---- */

static void
own(char *text, size_t size, const char *more)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, size, OWN, more);
#pragma GCC diagnostic pop
}

static void
test_netmap(void **state)
{
    struct map_json_error err;
    struct netmap *nm;
    char text[1024];
    int fd;

    (void)state;
    own(text, sizeof(text), "");
    fd = file(text); /* its offset is at the end, and does not matter */
    nm = netmap_of(fd, &err);
    assert_non_null(nm);
    assert_string_equal(err.text, "");
    assert_int_equal(nm->npeers, 1);
    netmap_free(nm);

    refuse_netmap(file("{}"),
        "net.json: Node.Addresses: a netmap file has to say which addresses "
        "this node has");
    refuse_netmap(file("{\"Node\":{\"Addresses\":[]}}"),
        "net.json: Node.Addresses: a netmap file has to say which addresses "
        "this node has");
    refuse_netmap(file("{\n \"Node\": }"),
        "net.json: line 2, column 10: unexpected token near '}'");
    refuse_netmap(file("{\"Peers\":[{\"ID\":1}]}"),
        "net.json: Peers[0].Key: \"nodekey:\" and 64 hexadecimal digits, or "
        "a WireGuard key of 44 base64 characters expected");
    refuse_netmap(file(""),
        "net.json: line 1, column 0: '[' or '{' expected near end of file");
}

static void
test_modes(void **state)
{
    static const struct {
        mode_t mode;
        const char *why; /* NULL: good */
    } list[] = {
        {0600, NULL},
        {0400, NULL},
        {0644, NULL},
        {0755, NULL},
        {0620, "0620"},
        {0602, "0602"},
        {0666, "0666"},
        {04622, "4622"},
    };
    char text[1024], want[256];
    struct map_json_error err;
    struct source_file_psks *psks;
    struct source_file_error error;
    struct netmap *nm;
    uint8_t key[32];
    bool readable;
    size_t i;
    int fd;

    (void)state;
    own(text, sizeof(text), "");
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        nm = netmap_of(file_of(text, strlen(text), list[i].mode), &err);
        assert_int_equal(nm != NULL, list[i].why == NULL);
        netmap_free(nm);

        fd = file_of(BASE64, strlen(BASE64), list[i].mode);
        assert_int_equal(
            source_file_private_key(fd, "key", key, &readable, &error) == 0,
            list[i].why == NULL);
        assert_int_equal(
            readable, list[i].why == NULL && (list[i].mode & 0004) != 0);
        close(fd);

        fd = file_of("", 0, list[i].mode);
        psks = source_file_psks(fd, "psks", &readable, &error);
        assert_int_equal(psks != NULL, list[i].why == NULL);
        assert_int_equal(
            readable, list[i].why == NULL && (list[i].mode & 0004) != 0);
        source_file_psks_free(psks);
        close(fd);
        if (list[i].why == NULL) {
            continue;
        }
        snprintf(want, sizeof(want),
            "net.json is writable by others (mode %s): anybody could make "
            "identities",
            list[i].why);
        assert_string_equal(err.text, want);
        snprintf(want, sizeof(want),
            "psks is writable by others (mode %s): anybody could take the "
            "peers' secrets away",
            list[i].why);
        assert_string_equal(error.text, want);
    }
}

static void
test_owner(void **state)
{
    struct map_json_error err;
    char text[1024], want[256];
    struct netmap *nm;
    uid_t uid = geteuid();
    int fd;

    (void)state;
    own(text, sizeof(text), "");
    fd = file(text);
    if (uid == 0) {
        uid = 1000;
        assert_int_equal(fchown(fd, uid, (gid_t)-1), 0);
    }
    nm = source_file_netmap(fd, "net.json", uid, &err);
    assert_non_null(nm);
    netmap_free(nm);
    assert_null(source_file_netmap(fd, "net.json", uid + 1, &err));
    snprintf(want, sizeof(want),
        "net.json belongs to uid %u: neither root nor uid %u", (unsigned)uid,
        (unsigned)uid + 1);
    assert_string_equal(err.text, want);
    if (geteuid() == 0) {
        assert_int_equal(fchown(fd, 0, (gid_t)-1), 0);
        nm = source_file_netmap(fd, "net.json", uid, &err);
        assert_non_null(nm);
        netmap_free(nm);
    }
    close(fd);
}

static void
test_other_files(void **state)
{
    struct source_file_error error;
    struct map_json_error err;
    uint8_t key[32];
    bool readable;
    int fds[2], fd;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_null(source_file_netmap(fds[0], "net.json", geteuid(), &err));
    assert_string_equal(err.text, "net.json is not a regular file");
    assert_int_equal(
        source_file_private_key(fds[0], "key", key, &readable, &error), -1);
    assert_string_equal(error.text, "key is not a regular file");
    close(fds[0]);
    close(fds[1]);
    assert_null(source_file_netmap(fds[0], "net.json", geteuid(), &err));
    assert_string_equal(err.text, "net.json: fstat: Bad file descriptor");
    fd = open("/", O_RDONLY | O_DIRECTORY);
    assert_null(source_file_netmap(fd, "/", geteuid(), &err));
    assert_string_equal(err.text, "/ is not a regular file");
    close(fd);
}

static void
test_sizes(void **state)
{
    struct source_file_error error;
    uint8_t key[32];
    bool readable;
    int fd = file("");

    (void)state;
    assert_int_equal(ftruncate(fd, (off_t)SOURCE_FILE_MAX_NETMAP + 1), 0);
    refuse_netmap(dup(fd),
        "net.json has 268435457 bytes, more than SOURCE_FILE_MAX_NETMAP "
        "(268435456)");
    assert_null(source_file_psks(fd, "psks", &readable, &error));
    assert_string_equal(error.text,
        "psks has 268435457 bytes, more than SOURCE_FILE_MAX_PSK_TEXT "
        "(67108864)");
    assert_int_equal(ftruncate(fd, SOURCE_FILE_MAX_KEY + 1), 0);
    assert_int_equal(
        source_file_private_key(fd, "key", key, &readable, &error), -1);
    assert_string_equal(
        error.text, "key has 4097 bytes, more than SOURCE_FILE_MAX_KEY (4096)");
    close(fd);
}

static void
test_reading(void **state)
{
    static const struct {
        int mood;
        const char *want; /* NULL: good */
    } list[] = {
        {HONEST, NULL},
        {INTERRUPTED, NULL},
        {SHORT, NULL},
        {FAILING, "net.json: read: Input/output error"},
        {GROWING, "net.json changed while it was read"},
        {SHRINKING, "net.json changed while it was read"},
    };
    struct map_json_error err;
    struct netmap *nm;
    char text[1024];
    size_t i;

    (void)state;
    own(text, sizeof(text), "");
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        mood = list[i].mood;
        reads = 0;
        nm = netmap_of(file(text), &err);
        mood = HONEST;
        assert_int_equal(nm != NULL, list[i].want == NULL);
        if (list[i].want != NULL) {
            assert_string_equal(err.text, list[i].want);
        }
        netmap_free(nm);
    }
}

static void
test_self(void **state)
{
    static const uint8_t self[32] = {9}, other[32] = {8};
    struct source_file_error error;
    struct map_json_error err;
    uint8_t peer[32];
    char text[1024], more[128];
    struct netmap *nm;
    unsigned i;

    (void)state;
    for (i = 0; i < 31; i++) {
        peer[i] = (uint8_t)i;
    }
    peer[31] = 0xff;
    own(text, sizeof(text), "");
    nm = netmap_of(file(text), &err);
    assert_int_equal(source_file_check_self(nm, "net.json", self, &error), 0);
    assert_int_equal(source_file_check_self(nm, "net.json", peer, &error), -1);
    assert_string_equal(
        error.text, "net.json: Peers[0].Key: this node's own key");
    netmap_free(nm);

    snprintf(more, sizeof(more), ",\"Key\":\"nodekey:09%.62s\"", ZEROS);
    own(text, sizeof(text), more);
    nm = netmap_of(file(text), &err);
    assert_int_equal(source_file_check_self(nm, "net.json", self, &error), 0);
    assert_int_equal(source_file_check_self(nm, "net.json", other, &error), -1);
    assert_string_equal(error.text,
        "net.json: Node.Key: not the public key of this node's private key");
    netmap_free(nm);
}

/* ---- private key ---- */

static void
test_private_key(void **state)
{
    static const char expected[] =
        "line %u: \"privkey:\" and 64 hexadecimal digits, or a key of 44 "
        "characters of base64 expected";
    static const struct {
        const char *text;
        unsigned line;    /* where a key was expected; 0: see below */
        const char *want; /* NULL: good */
    } list[] = {
        {BASE64, 0, NULL},
        {BASE64 "\n", 0, NULL},
        {"privkey:" HEX "\n", 0, NULL},
        {"\n# web's\n\n \t" BASE64 " \r\n# end", 0, NULL},
        {"privkey:000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D"
         "1EFF",
            0, NULL},
        {"", 0, "no key in it"},
        {"# only\n\n", 0, "no key in it"},
        {BASE64 "\n" BASE64 "\n", 0, "line 2: more than one key"},
        {BASE64 "\n# x\nrest", 0, "line 3: more than one key"},
        {"privkey:" ZEROS, 0, "line 1: the key is zero"},
        {HEX, 1, ""},
        {"nodekey:" HEX, 1, ""},
        {"\nprivkey:" HEX "0", 2, ""},
        {"privkey:" HEX " x", 1, ""},
        {"privkey: " HEX, 1, ""},
        {"PRIVKEY:" HEX, 1, ""},
        {"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8", 1, ""},
        {"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv9=", 1, ""}, /* bit left */
        {"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv/=", 1, ""},
        {"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH-8=", 1, ""},
        {"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8==", 1, ""},
        {"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBka=xwdHv8=", 1, ""},
    };
    static const uint8_t none[32];
    struct source_file_error error;
    uint8_t key[32];
    char want[512];
    bool readable;
    size_t i;
    int fd, rc, n;

    (void)state;
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        fd = file(list[i].text);
        memset(key, 0x55, sizeof(key));
        rc = source_file_private_key(fd, "key", key, &readable, &error);
        close(fd);
        if (list[i].want == NULL) {
            if (rc != 0) {
                fail_msg("text %zu: %s", i, error.text);
            }
            assert_int_equal(key[0], 0);
            assert_int_equal(key[1], 1);
            assert_int_equal(key[30], 30);
            assert_int_equal(key[31], 0x7f); /* clamped */
            continue;
        }
        assert_int_equal(rc, -1);
        assert_memory_equal(key, none, sizeof(key));
        n = snprintf(want, sizeof(want), "key: ");
        if (list[i].line == 0) {
            snprintf(want + n, sizeof(want) - (size_t)n, "%s", list[i].want);
        } else {
            snprintf(
                want + n, sizeof(want) - (size_t)n, expected, list[i].line);
        }
        assert_string_equal(error.text, want);
        /* nothing of the file is ever shown */
        assert_null(strstr(error.text, "AAEC"));
        assert_null(strstr(error.text, "0001"));
    }
    fd = file("privkey:07" /* clamping of the first byte, and of the last */
              "000000000000000000000000000000000000000000000000000000000000"
              "01");
    assert_int_equal(
        source_file_private_key(fd, "key", key, &readable, &error), 0);
    assert_int_equal(key[0], 0);
    assert_int_equal(key[31], 0x41);
    close(fd);
}

/* ---- preshared keys ---- */

static void
test_psks(void **state)
{
    static const char text[] = "# peers\n" PEER_A " " BASE64 "\n\n"
                               "\t" PEER_B "\t  " HEX "\r\n";
    uint8_t a[32], b[32], none[32] = {0};
    struct source_file_error error;
    struct source_file_psks *psks;
    const uint8_t *psk;
    bool readable;
    unsigned i;
    int fd = file(text);

    (void)state;
    psks = source_file_psks(fd, "psks", &readable, &error);
    close(fd);
    if (psks == NULL) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(source_file_psk_count(psks), 2);
    for (i = 0; i < 32; i++) {
        a[i] = b[i] = (uint8_t)i;
    }
    a[31] = b[0] = 0xff;
    psk = source_file_psk(psks, a);
    assert_non_null(psk);
    assert_memory_equal(psk, a, 32); /* secret of the same bytes, unclamped */
    psk = source_file_psk(psks, b);
    assert_non_null(psk);
    assert_memory_equal(psk, a, 32);
    assert_null(source_file_psk(psks, none));
    source_file_psks_free(psks);
    source_file_psks_free(NULL);

    fd = file("# none yet\n");
    psks = source_file_psks(fd, "psks", &readable, &error);
    close(fd);
    assert_non_null(psks);
    assert_int_equal(source_file_psk_count(psks), 0);
    assert_null(source_file_psk(psks, a));
    source_file_psks_free(psks);
}

static void
test_bad_psks(void **state)
{
    static const char first[] = "first a public key expected, \"nodekey:\" "
                                "and 64 hexadecimal digits or 44 characters "
                                "of base64",
                      then[] = "then a preshared key expected, 44 characters "
                               "of base64 or 64 hexadecimal digits";
    static const struct {
        const char *text;
        unsigned line;
        const char *want;
    } list[] = {
        {"x " BASE64, 1, first},
        {PEER_A " " BASE64 "\n\nprivkey:" HEX " " BASE64, 3, first},
        {HEX " " BASE64, 1, first},
        {PEER_A, 1, then},
        {PEER_A "\n" BASE64, 1, then},
        {PEER_A " short", 1, then},
        {PEER_A " " BASE64 " more", 1, then},
        {PEER_A " privkey:" HEX, 1, then},
        {PEER_A "," BASE64, 1, first},
        {PEER_A " " BASE64 "\n" PEER_B " " BASE64 "\n#\n" PEER_A " " HEX, 4,
            "the peer of line 1 again"},
    };
    struct source_file_error error;
    bool readable;
    char want[512];
    size_t i;
    int fd;

    (void)state;
    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        fd = file(list[i].text);
        assert_null(source_file_psks(fd, "psks", &readable, &error));
        close(fd);
        snprintf(want, sizeof(want), "psks: line %u: %s", list[i].line,
            list[i].want);
        assert_string_equal(error.text, want);
    }
}

/* The limit is on keys, not on lines. */
static void
test_many_psks(void **state)
{
    enum { LINE = 8 + 64 + 1 + 44 + 1 };
    size_t n = SOURCE_FILE_MAX_PSKS + 1, i;
    char *text = malloc(n * LINE + 1), want[128];
    struct source_file_error error;
    struct source_file_psks *psks;
    uint8_t key[32] = {0};
    bool readable;
    int fd;

    (void)state;
    for (i = 0; i < n; i++) {
        sprintf(text + i * LINE, "nodekey:%064zx " BASE64 "\n", i + 1);
    }
    fd = file_of(text, n * LINE, 0600);
    assert_null(source_file_psks(fd, "psks", &readable, &error));
    snprintf(want, sizeof(want),
        "psks: line %zu: more keys than SOURCE_FILE_MAX_PSKS (%d)", n,
        SOURCE_FILE_MAX_PSKS);
    assert_string_equal(error.text, want);
    text[0] = '#';
    assert_int_equal(pwrite(fd, text, 1, 0), 1);
    psks = source_file_psks(fd, "psks", &readable, &error);
    assert_non_null(psks);
    assert_int_equal(source_file_psk_count(psks), SOURCE_FILE_MAX_PSKS);
    key[31] = 1;
    assert_null(source_file_psk(psks, key));
    key[31] = 2;
    assert_non_null(source_file_psk(psks, key));
    source_file_psks_free(psks);
    close(fd);
    free(text);
}

/* ---- memory ---- */

static void
test_no_memory(void **state)
{
    struct source_file_error error;
    struct source_file_psks *psks;
    struct map_json_error err;
    struct netmap *nm;
    uint8_t key[32];
    char text[1024];
    bool readable;
    int fd, rc;
    long n;

    (void)state;
    own(text, sizeof(text), "");
    for (n = 0;; n++) {
        fd = file(text);
        oom_arm(n);
        nm = netmap_of(fd, &err);
        oom_disarm();
        if (!oom_fired) {
            break;
        }
        assert_null(nm);
        assert_string_equal(err.text, "net.json: out of memory");
    }
    assert_non_null(nm);
    netmap_free(nm);

    fd = file(BASE64);
    oom_arm(0);
    rc = source_file_private_key(fd, "key", key, &readable, &error);
    oom_disarm();
    close(fd);
    assert_int_equal(rc, -1);
    assert_string_equal(error.text, "key: out of memory");

    fd = file(PEER_A " " BASE64);
    for (n = 0;; n++) {
        oom_arm(n);
        psks = source_file_psks(fd, "psks", &readable, &error);
        oom_disarm();
        if (!oom_fired) {
            break;
        }
        assert_null(psks);
        assert_string_equal(error.text, "psks: out of memory");
    }
    assert_non_null(psks);
    assert_int_equal(n, 4);
    source_file_psks_free(psks);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_netmap),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_owner),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_private_key),
        cmocka_unit_test(test_psks),
        cmocka_unit_test(test_bad_psks),
        cmocka_unit_test(test_many_psks),
        cmocka_unit_test(test_no_memory),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

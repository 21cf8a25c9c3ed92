/* links: tailnetd/control/notice.c tailnetd/control/message.c */
/* links: tailnetd/control/url.c tailnetd/control/map_json_delta.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_grant.c */
/* links: tailnetd/control/map_json_value.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_derp.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/keytext.c tailnetd/engine/span.c core/tn_addr.c */
/* libs: -ljansson */
/*
 * test_notice.c: what a control server says to people, message by message.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/control/notice.h"
#include "../../ngx_tailnet_module/tailnetd/engine/say.h"

static char said[16384]; /* lines, without what they have in common */

void
say(int level, const char *fmt, ...)
{
    size_t n = strlen(said);
    char line[SAY_MAX];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    assert_memory_equal(line, "node \"n\": the control server ", 29);
    snprintf(said + n, sizeof(said) - n, "%s%d %s", n == 0 ? "" : "\n", level,
        line + 29);
}

static void
bring(struct notices *s, const char *text, bool first)
{
    struct map_json_error err;
    struct map_delta d;

    said[0] = '\0';
    assert_int_equal(map_json_delta(text, strlen(text), NULL, &d, &err), 0);
    notice_take(s, &d, first, "n");
    map_delta_clear(&d);
}

/* "ID SEVERITY! WORDS", a line each. */
static void
show(const struct notices *s, char *out, size_t size)
{
    char words[MESSAGE_SHOWN_MAX];
    size_t at = 0;

    out[0] = '\0';
    for (size_t i = 0; i < s->n; i++) {
        const struct map_notice *n = &s->list[i];

        notice_words(n, words);
        at += (size_t)snprintf(out + at, size - at, "%s%s %s%s %s",
            i == 0 ? "" : "\n", n->id == NULL ? "-" : n->id, n->severity,
            n->connectivity ? "!" : "", words);
    }
}

#define A      "\"a\":{\"Title\":\"T\",\"Text\":\"x\",\"Severity\":\"low\"}"
#define B      "\"b\":{\"Text\":\"y\",\"Severity\":\"high\"}"
#define SAY(m) "{\"DisplayMessages\":{" m "}}"

static const struct {
    bool first;
    const char *text, *now, *log;
} rows[] = {
    {true,
        SAY("\"a\":{\"Title\":\"T\",\"Text\":\"x\",\"Severity\":\"medium\"}"),
        "a medium T: x", "6 says: T: x"},
    {false, SAY(A), "a low T: x", "6 says: T: x"},
    {false, SAY(A), "a low T: x", ""},
    {false, SAY(B), "a low T: x\nb high y", "4 says: y"},
    {false, "{}", "a low T: x\nb high y", ""},
    {false, SAY(""), "a low T: x\nb high y", ""},
    {false, "{\"DisplayMessages\":null,\"Health\":null}",
        "a low T: x\nb high y", ""},
    /* one that changes; its severity is none */
    {false, SAY("\"a\":{\"Title\":\"T\",\"Severity\":\"dire\"}"),
        "a  T\nb high y", "6 says: T"},
    {false, SAY("\"a\":{\"Title\":\"T\",\"ImpactsConnectivity\":true}"),
        "a ! T\nb high y", "4 says: T"},
    {false, SAY("\"a\":null,\"c\":null"), "b high y",
        "6 does not say any more: T"},
    /* "*" is before the rest, wherever it stands; what is said again stays */
    {false, SAY(A ",\"*\":null," B), "b high y\na low T: x", "6 says: T: x"},
    {false, SAY("\"*\":null"), "",
        "6 does not say any more: y\n6 does not say any more: T: x"},
    {false, SAY("\"*\":null," A), "a low T: x", "6 says: T: x"},
    /* a new stream has it all */
    {true, SAY(A "," B), "a low T: x\nb high y", "4 says: y"},
    {true, SAY(B), "b high y", "6 does not say any more: T: x"},
    {true, "{}", "", "6 does not say any more: y"},
    /* the older form is a list; neither has a say in the other */
    {false, "{\"Health\":[\"p\",\"q\",\"p\"]}", "-  p\n-  q",
        "4 says: p\n4 says: q"},
    {false, "{\"Health\":[\"q\",\"r\"]}", "-  q\n-  r",
        "4 says: r\n6 does not say any more: p"},
    {false, SAY("\"*\":null,\"q\":null," A), "-  q\n-  r\na low T: x",
        "6 says: T: x"},
    {false, "{\"Health\":[]}", "a low T: x",
        "6 does not say any more: q\n6 does not say any more: r"},
    {true, "{\"Health\":[\"q\"]}", "-  q",
        "4 says: q\n6 does not say any more: T: x"},
    {true, "{}", "", "6 does not say any more: q"},
    /* what is of no use is left out, or shown as far as it is */
    {false,
        "{\"Health\":[1,\"\",null,{},\"\\u0000\",\"p\"],\"DisplayMessages\":3}",
        "-  p", "4 says: p"},
    {false, "{\"Health\":{\"a\":1}}", "-  p", ""},
    {true, SAY("\"a\":7,\"b\":{\"Title\":1,\"Text\":[]},\"*\":{}"),
        "a  a\nb  b", "6 says: a\n6 says: b\n6 does not say any more: p"},
    /* nothing of it breaks a line, or is a key */
    {true,
        SAY("\"*\":null,\"a\":{\"Text\":\"1\\n2\\u001b tskey-auth-s, "
            "\xc3\xa9\"}"),
        "a  1?2? tskey-******, \?\?",
        "6 says: 1?2? tskey-******, \?\?\n6 does not say any more: b"},
    /* where to go, but for what is no such place */
    {true,
        SAY("\"a\":{\"Text\":\"u\",\"PrimaryAction\":{\"URL\":\"https://c/"
            "d\"}}"),
        "a  u", "6 says: u (https://c/d)"},
    {true,
        SAY("\"a\":{\"Text\":\"u\",\"PrimaryAction\":{\"URL\":\"https://c/"
            "e\"}}"),
        "a  u", "6 says: u (https://c/e)"},
    {true,
        SAY("\"a\":{\"Text\":\"u\",\"PrimaryAction\":{\"URL\":\"ftp://c\"}}"),
        "a  u", "6 says: u"},
};

static void
patches(void **state)
{
    struct notices s = {.n = 0};
    char now[4096];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bring(&s, rows[i].text, rows[i].first);
        show(&s, now, sizeof(now));
        if (strcmp(now, rows[i].now) != 0 || strcmp(said, rows[i].log) != 0)
            fail_msg("%s: have \"%s\", said \"%s\"", rows[i].text, now, said);
    }
    notice_clear(&s);
    bring(&s, SAY(A), false);
    assert_string_equal(said, "6 says: T: x");
    notice_clear(&s);
}

/* ${n} of them, from number ${from}. */
static char *
many(bool health, unsigned from, unsigned n)
{
    char *text = malloc(64 + n * 64), *p = text;

    assert_non_null(text);
    p += sprintf(p, health ? "{\"Health\":[" : "{\"DisplayMessages\":{");
    for (unsigned i = from; i < from + n; i++) {
        p += sprintf(p, "%s", i == from ? "" : ",");
        p += health ? sprintf(p, "\"h%u\"", i)
                    : sprintf(p, "\"d%u\":{\"Text\":\"%u\"}", i, i);
    }
    sprintf(p, health ? "]}" : "}}");
    return text;
}

/* More than there is room for is said once, also over streams. */
static void
crowded(void **state)
{
    static const struct {
        bool health, first;
        unsigned from, n, kept;
        bool warned;
    } steps[] = {
        {false, true, 0, NOTICE_MAX, NOTICE_MAX, false},
        {false, false, 1, NOTICE_MAX, NOTICE_MAX, true},
        {false, false, 0, 0, NOTICE_MAX, false},
        {false, true, 1, NOTICE_MAX + 1, NOTICE_MAX, false},
        {true, false, 0, 1, NOTICE_MAX, false},
        {true, true, 0, 2000, NOTICE_MAX, false},
        {true, true, 1000, 2000, NOTICE_MAX, false},
        {true, false, 1, 1, 1, false},
        {true, false, 1, NOTICE_MAX, NOTICE_MAX, false},
        {true, false, 0, NOTICE_MAX + 1, NOTICE_MAX, true},
        {true, false, 1, 1, 1, false},
        {true, false, 0, NOTICE_MAX, NOTICE_MAX, false},
        {false, false, 0, 2000, NOTICE_MAX, true},
    };
    struct notices s = {.n = 0};

    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        char *text = many(steps[i].health, steps[i].from, steps[i].n);

        bring(&s, text, steps[i].first);
        assert_int_equal(s.n, steps[i].kept);
        assert_true(
            (strstr(said, "NOTICE_MAX (64)") != NULL) == steps[i].warned);
        free(text);
    }
    notice_clear(&s);
}

/* A long one is cut. */
static void
long_words(void **state)
{
    char text[4096], words[MESSAGE_SHOWN_MAX];
    struct notices s = {.n = 0};

    (void)state;
    sprintf(text, SAY("\"%0*d\":{\"Title\":\"%0*d\",\"Text\":\"%0*d\"}"), 1200,
        1, 1100, 2, 1100, 3);
    bring(&s, text, false);
    assert_int_equal(s.n, 1);
    assert_int_equal(strlen(s.list[0].id), NETMAP_MAX_STRING);
    assert_int_equal(strlen(s.list[0].text), NETMAP_MAX_STRING);
    notice_words(&s.list[0], words);
    assert_int_equal(strlen(words), MESSAGE_SHOWN_MAX - 1);
    notice_clear(&s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches),
        cmocka_unit_test(crowded),
        cmocka_unit_test(long_words),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

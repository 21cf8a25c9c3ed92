/*
 * map_json_value.c: getters that check type, size and meaning.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "map_json_value.h"

#define MAX_DEPTH 16 /* of a path; documents deeper than that are not read */

/* ---- reporting ---- */

size_t
map_json_path(const struct map_json_at *at, char *buf, size_t size)
{
    const struct map_json_at *chain[MAX_DEPTH];
    size_t depth = 0, used = 0;
    int n;

    buf[0] = '\0';
    for (; at != NULL && depth < MAX_DEPTH; at = at->up) {
        if (at->up != NULL) { /* the document itself has no name */
            chain[depth++] = at;
        }
    }
    while (depth-- > 0 && used < size) {
        at = chain[depth];
        if (at->name == NULL) {
            n = snprintf(buf + used, size - used, "[%zu]", at->index);
        } else {
            n = snprintf(buf + used, size - used, "%s%.64s",
                used == 0 ? "" : ".", at->name);
        }
        used += n < 0 ? 0 : (size_t)n;
    }
    return used < size ? used : size - 1;
}

/* How many bytes of UTF-8 are at ${s}; 0: a part of a character. */
static size_t
whole(const char *s)
{
    unsigned char c = (unsigned char)*s;
    size_t i, n = c < 0x80 ? 1 : c < 0xc0 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

    for (i = 1; i < n; i++) {
        if (((unsigned char)s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n;
}

/* Names of objects are the sender's: nothing of a path may break a log line,
 * nor a character that was cut the status. */
static void
tame(char *s)
{
    size_t n;

    for (; *s != '\0'; s += n) {
        n = whole(s);
        if (n == 0 || (unsigned char)*s < 0x20 || *s == 0x7f) {
            *s = '?';
            n = 1;
        }
    }
}

static void
say(char *buf, size_t size, const char *path, const char *fmt, va_list ap)
{
    int n = snprintf(
        buf, size, "%s: ", path[0] == '\0' ? "the document" : path);

    if (n > 0 && (size_t)n < size) {
        vsnprintf(buf + n, size - (size_t)n, fmt, ap);
    }
}

int
map_json_fail(const struct map_json_cursor *c, const char *fmt, ...)
{
    va_list ap;

    map_json_path(&c->at, c->err->path, sizeof(c->err->path));
    tame(c->err->path);
    va_start(ap, fmt);
    say(c->err->text, sizeof(c->err->text), c->err->path, fmt, ap);
    va_end(ap);
    return -1;
}

void
map_json_warn(const struct map_json_cursor *c, const char *fmt, ...)
{
    char path[MAP_JSON_PATH_LEN];
    va_list ap;
    unsigned n = c->err->nwarnings++;

    if (n >= MAP_JSON_MAX_WARNINGS) {
        return;
    }
    map_json_path(&c->at, path, sizeof(path));
    tame(path);
    va_start(ap, fmt);
    say(c->err->warnings[n], sizeof(c->err->warnings[n]), path, fmt, ap);
    va_end(ap);
}

int
map_json_no_memory(struct map_json_error *err)
{
    err->path[0] = '\0';
    snprintf(err->text, sizeof(err->text), "out of memory");
    return -1;
}

const char *
map_json_show(char buf[static MAP_JSON_SHOWN], const char *s, size_t len)
{
    size_t room = MAP_JSON_SHOWN - sizeof("\"\"...");
    bool cut = len > room;

    if (cut) {
        /* not in the middle of a UTF-8 character */
        for (len = room; len > 0 && ((unsigned char)s[len] & 0xc0) == 0x80;
             len--) {
        }
    }
    snprintf(buf, MAP_JSON_SHOWN, "\"%.*s%s\"", (int)len, s, cut ? "..." : "");
    tame(buf);
    return buf;
}

/* ---- walking ---- */

struct map_json_cursor
map_json_member(const struct map_json_cursor *c, const char *name)
{
    struct map_json_cursor m = {
        json_object_get(c->json, name), {&c->at, name, 0}, c->err};

    if (json_is_null(m.json)) {
        m.json = NULL;
    }
    return m;
}

struct map_json_cursor
map_json_element(const struct map_json_cursor *c, size_t i)
{
    struct map_json_cursor m = {
        json_array_get(c->json, i), {&c->at, NULL, i}, c->err};

    if (json_is_null(m.json)) {
        m.json = NULL;
    }
    return m;
}

/* ---- values ---- */

int
map_json_object(const struct map_json_cursor *c)
{
    if (c->json != NULL && !json_is_object(c->json)) {
        return map_json_fail(c, "an object expected");
    }
    return 0;
}

int
map_json_bool(const struct map_json_cursor *c, bool *out)
{
    if (c->json == NULL) {
        return 0;
    }
    if (!json_is_boolean(c->json)) {
        return map_json_fail(c, "true or false expected");
    }
    *out = json_is_true(c->json);
    return 0;
}

int
map_json_int(const struct map_json_cursor *c, int64_t *out)
{
    if (c->json == NULL) {
        return 0;
    }
    if (!json_is_integer(c->json)) {
        return map_json_fail(c, "an integer expected");
    }
    *out = json_integer_value(c->json);
    return 0;
}

int
map_json_text(const struct map_json_cursor *c, const char **s, size_t *len)
{
    if (c->json == NULL) {
        return 0;
    }
    if (!json_is_string(c->json)) {
        return map_json_fail(c, "a string expected");
    }
    if (json_string_length(c->json) > NETMAP_MAX_STRING) {
        return map_json_fail(
            c, "longer than NETMAP_MAX_STRING (%d bytes)", NETMAP_MAX_STRING);
    }
    *s = json_string_value(c->json);
    *len = json_string_length(c->json);
    if (memchr(*s, '\0', *len) != NULL) {
        return map_json_fail(c, "a string without NUL expected");
    }
    return 0;
}

char *
map_json_copy(const char *s, size_t len)
{
    char *copy = malloc(len + 1);

    if (copy != NULL) {
        memcpy(copy, s, len);
        copy[len] = '\0';
    }
    return copy;
}

int
map_json_string(const struct map_json_cursor *c, char **out)
{
    const char *s = "";
    size_t len = 0;

    if (map_json_text(c, &s, &len) != 0) {
        return -1;
    }
    *out = map_json_copy(s, len);
    return *out == NULL ? map_json_no_memory(c->err) : 0;
}

int
map_json_list(
    const struct map_json_cursor *c, size_t max, const char *limit, size_t *n)
{
    *n = 0;
    if (c->json == NULL) {
        return 0;
    }
    if (!json_is_array(c->json)) {
        return map_json_fail(c, "a list expected");
    }
    *n = json_array_size(c->json);
    if (*n > max) {
        return map_json_fail(
            c, "%zu entries, more than %s (%zu)", *n, limit, max);
    }
    return 0;
}

/* ---- capabilities ---- */

int
map_json_cap_count(const struct map_json_cursor *c, const char *list, size_t *n)
{
    struct map_json_cursor map = map_json_member(c, "CapMap"),
                           old = map_json_member(c, list);

    if (map_json_object(&map) != 0 ||
        map_json_list(&old, NETMAP_MAX_CAPS, "NETMAP_MAX_CAPS", n) != 0) {
        return -1;
    }
    *n += json_object_size(map.json);
    if (*n > NETMAP_MAX_CAPS) {
        return map_json_fail(&map,
            "%zu capabilities, more than NETMAP_MAX_CAPS (%d)", *n,
            NETMAP_MAX_CAPS);
    }
    return 0;
}

/* A name of CapMap is a key, which nothing else has checked. */
static int
check_name(const struct map_json_cursor *value, const char *name)
{
    if (strlen(name) > NETMAP_MAX_STRING) {
        return map_json_fail(value, "longer than NETMAP_MAX_STRING (%d bytes)",
            NETMAP_MAX_STRING);
    }
    return 0;
}

int
map_json_cap_each(const struct map_json_cursor *c, const char *list,
    map_json_cap *add, void *arg)
{
    struct map_json_cursor map = map_json_member(c, "CapMap"),
                           old = map_json_member(c, list), e;
    const char *name;
    size_t i, len;
    json_t *value;

    for (i = 0; i < json_array_size(old.json); i++) {
        e = map_json_element(&old, i);
        name = "";
        len = 0;
        if (map_json_text(&e, &name, &len) != 0) {
            return -1;
        }
        e.json = NULL;
        if (add(arg, &e, name) != 0) {
            return -1;
        }
    }
    json_object_foreach((json_t *)map.json, name, value)
    {
        e = map_json_member(&map, name);
        if (check_name(&e, name) != 0 || add(arg, &e, name) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- time ---- */

/* ${n} digits at ${s} as a number from ${lo} to ${hi}, or -1. */
static int
digits(const char *s, int n, int lo, int hi)
{
    int v = 0;

    while (n-- > 0) {
        if (*s < '0' || *s > '9') {
            return -1;
        }
        v = v * 10 + (*s++ - '0');
    }
    return v < lo || v > hi ? -1 : v;
}

static int
days_of(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

    if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) {
        return 29;
    }
    return days[month - 1];
}

/* "2006-01-02T15:04:05" of RFC 3339 section 5.6. */
static int
parse_date_time(const char *s, struct tm *tm)
{
    int year = digits(s, 4, 0, 9999), month = digits(s + 5, 2, 1, 12);

    if (year < 0 || month < 0 || s[4] != '-' || s[7] != '-' ||
        (s[10] != 'T' && s[10] != 't') || s[13] != ':' || s[16] != ':') {
        return -1;
    }
    tm->tm_year = year - 1900;
    tm->tm_mon = month - 1;
    tm->tm_mday = digits(s + 8, 2, 1, days_of(year, month));
    tm->tm_hour = digits(s + 11, 2, 0, 23);
    tm->tm_min = digits(s + 14, 2, 0, 59);
    tm->tm_sec = digits(s + 17, 2, 0, 59);
    return tm->tm_mday < 0 || tm->tm_hour < 0 || tm->tm_min < 0 ||
                   tm->tm_sec < 0
               ? -1
               : 0;
}

/* "Z" or "+01:00", to the end of the text; seconds east of UTC. */
static int
parse_zone(const char *s, size_t len, int *east)
{
    int hour, minute;

    if (len == 1 && (s[0] == 'Z' || s[0] == 'z')) {
        *east = 0;
        return 0;
    }
    if (len != 6 || (s[0] != '+' && s[0] != '-') || s[3] != ':') {
        return -1;
    }
    hour = digits(s + 1, 2, 0, 23);
    minute = digits(s + 4, 2, 0, 59);
    if (hour < 0 || minute < 0) {
        return -1;
    }
    *east = (hour * 60 + minute) * (s[0] == '-' ? -60 : 60);
    return 0;
}

int
map_json_time(const struct map_json_cursor *c, int64_t *out)
{
    const char *s = NULL;
    struct tm tm = {0};
    size_t len = 0, at = 19;
    int east = 0;

    if (map_json_text(c, &s, &len) != 0) {
        return -1;
    }
    if (s == NULL) {
        return 0;
    }
    if (len < 20 || parse_date_time(s, &tm) != 0) {
        return map_json_fail(c, "a time such as 2026-01-31T12:00:00Z expected");
    }
    if (s[at] == '.') {
        for (at++; at < len && s[at] >= '0' && s[at] <= '9'; at++) {
        }
    }
    if (at == 20 || parse_zone(s + at, len - at, &east) != 0) {
        return map_json_fail(c, "a time such as 2026-01-31T12:00:00Z expected");
    }
    if (tm.tm_year == 1 - 1900) {
        *out = 0;
        return 0;
    }
    *out = (int64_t)timegm(&tm) - east;
    if (*out < 1) {
        *out = 1; /* long ago, and not never */
    }
    return 0;
}

/* ---- lists of strings ---- */

static int
by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

size_t
map_json_unique(char **list, size_t n)
{
    size_t i, out = 0;

    if (n == 0) {
        return 0;
    }
    qsort(list, n, sizeof(list[0]), by_text);
    for (i = 1; i < n; i++) {
        if (strcmp(list[i], list[out]) == 0) {
            free(list[i]);
        } else {
            list[++out] = list[i];
        }
    }
    return out + 1;
}

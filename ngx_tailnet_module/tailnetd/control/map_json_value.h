/*
 * map_json_value.h: typed values of a JSON object, with their place.
 *
 * Every getter takes a cursor: an object, where it stands in the document, and
 * where to report.  A path costs nothing until something is wrong: it is a
 * chain of names and indices on the stack.
 */
#ifndef MAP_JSON_VALUE_H
#define MAP_JSON_VALUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "map_json.h"

/* A place: a name in an object, or without name an index of a list.  The one
 * without ${up} is the document. */
struct map_json_at {
    const struct map_json_at *up;
    const char *name;
    size_t index;
};

struct map_json_cursor {
    const json_t *json;
    struct map_json_at at;
    struct map_json_error *err;
};

/*
 * map_json_fail(c, fmt, ...): report a mistake at the cursor's place; returns
 * -1.  map_json_warn(): report something that is left out.
 * map_json_no_memory(): report that; returns -1.
 */
int map_json_fail(const struct map_json_cursor *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void map_json_warn(const struct map_json_cursor *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
int map_json_no_memory(struct map_json_error *err);

/* Text of ${at}, cut to fit; returns its length. */
size_t map_json_path(const struct map_json_at *at, char *buf, size_t size);

/* The member ${name}, or element ${i}: json is NULL when absent or null. */
struct map_json_cursor map_json_member(
    const struct map_json_cursor *c, const char *name);
struct map_json_cursor map_json_element(
    const struct map_json_cursor *c, size_t i);

/*
 * What the cursor points to, checked.  An absent value leaves ${*out} as it
 * is, but for the two last.  Each returns 0, or -1 and has reported why.
 */
int map_json_object(const struct map_json_cursor *c);
int map_json_bool(const struct map_json_cursor *c, bool *out);
int map_json_int(const struct map_json_cursor *c, int64_t *out);
/* RFC 3339 as Unix seconds; year 1, which means never, as 0. */
int map_json_time(const struct map_json_cursor *c, int64_t *out);
/* Borrowed; at most NETMAP_MAX_STRING bytes, no NUL among them. */
int map_json_text(const struct map_json_cursor *c, const char **s, size_t *len);
/* A copy; "" when absent. */
int map_json_string(const struct map_json_cursor *c, char **out);
/*
 * The length of the list, 0 when absent; refused over ${max}, the limit called
 * ${limit}.
 */
int map_json_list(
    const struct map_json_cursor *c, size_t max, const char *limit, size_t *n);

/*
 * Capabilities as CapMap, an object, and as the list that was there before it
 * and is called ${list}.  map_json_cap_count(): how many there are, refused
 * over NETMAP_MAX_CAPS.  map_json_cap_each(): calls ${add} with each value
 * (json is NULL in the list) and name, the list's first, and ends when it
 * fails.
 */
typedef int map_json_cap(
    void *arg, const struct map_json_cursor *value, const char *name);
int map_json_cap_count(
    const struct map_json_cursor *c, const char *list, size_t *n);
int map_json_cap_each(const struct map_json_cursor *c, const char *list,
    map_json_cap *add, void *arg);

/* A copy of ${len} bytes with a NUL, or NULL: no memory. */
char *map_json_copy(const char *s, size_t len);

/*
 * Room for what a message shows of a value: quoted, its control characters
 * replaced, cut.
 */
#define MAP_JSON_SHOWN 72
const char *map_json_show(
    char buf[static MAP_JSON_SHOWN], const char *s, size_t len);

/* qsort(3) and uniq of strings; what is dropped is freed.  Returns how many
 * are left. */
size_t map_json_unique(char **list, size_t n);

#endif

#include "notice.h"

#include <stdio.h>
#include <string.h>

#include "../engine/say.h"

#define ROOM (sizeof(((struct notices *)0)->list) / sizeof(struct map_notice))

static bool
same_id(const struct map_notice *a, const struct map_notice *b)
{
    if (a->id == NULL || b->id == NULL)
        return a->id == b->id && strcmp(a->text, b->text) == 0;
    return strcmp(a->id, b->id) == 0;
}

static bool
says_same(const struct map_notice *a, const struct map_notice *b)
{
    return a->severity == b->severity && a->connectivity == b->connectivity &&
           strcmp(a->title, b->title) == 0 && strcmp(a->text, b->text) == 0 &&
           strcmp(a->url, b->url) == 0;
}

void
notice_words(const struct map_notice *n, char out[MESSAGE_SHOWN_MAX])
{
    const char *between = n->title[0] != '\0' && n->text[0] != '\0' ? ": " : "";
    char all[2 * NETMAP_MAX_STRING + 3];

    snprintf(all, sizeof(all), "%s%s%s", n->title, between, n->text);
    if (all[0] == '\0')
        snprintf(all, sizeof(all), "%s", n->id);
    message_show(out, all, strlen(all));
}

/* A list of Health is of what does not work. */
static void
tell(const struct map_notice *n, const char *node)
{
    char words[MESSAGE_SHOWN_MAX], url[MESSAGE_SHOWN_MAX],
        where[MESSAGE_SHOWN_MAX + 3] = "";
    struct url u;

    notice_words(n, words);
    message_show(url, n->url, strlen(n->url));
    if (url_parse(&u, url) == 0)
        snprintf(where, sizeof(where), " (%s)", url);
    if (n->id == NULL || n->connectivity || strcmp(n->severity, "high") == 0)
        say_warn(
            "node \"%s\": the control server says: %s%s", node, words, where);
    else
        say_info(
            "node \"%s\": the control server says: %s%s", node, words, where);
}

static size_t
holding(const struct notices *s)
{
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++)
        n += !s->list[i].drop;
    return n;
}

/* Returns false: there is no room for it. */
static bool
put(struct notices *s, struct map_notice *from, const char *node)
{
    struct map_notice *n = s->list, was;
    bool is;

    while (n < s->list + s->n && !same_id(n, from))
        n++;
    is = n < s->list + s->n;
    if (from->drop) {
        if (is)
            n->drop = true;
        return true;
    }
    if ((!is || n->drop) && (holding(s) == NOTICE_MAX || s->n == ROOM))
        return false;
    if (is && says_same(n, from)) {
        n->drop = false;
        return true;
    }
    s->n += !is;
    was = *n;
    *n = *from;
    *from = was;
    tell(n, node);
    return true;
}

/* Those that do not hold any more go. */
static void
drop(struct notices *s, const char *node)
{
    char words[MESSAGE_SHOWN_MAX];
    struct map_notice n;
    size_t kept = 0;

    for (size_t i = 0; i < s->n; i++) {
        n = s->list[i];
        memset(&s->list[i], 0, sizeof(n));
        if (!n.drop) {
            s->list[kept++] = n;
            continue;
        }
        notice_words(&n, words);
        say_info("node \"%s\": the control server does not say any more: %s",
            node, words);
        map_delta_clear_notice(&n);
    }
    s->n = kept;
}

void
notice_take(
    struct notices *s, struct map_delta *d, bool first, const char *node)
{
    bool more = d->nnotices == MAP_DELTA_MAX_NOTICES;

    for (size_t i = 0; i < s->n; i++)
        s->list[i].drop = first || (s->list[i].id == NULL ? d->has_health
                                                          : d->clear_notices);
    for (size_t i = 0; i < d->nnotices; i++)
        more = !put(s, &d->notices[i], node) || more;
    drop(s, node);
    if (more && !s->crowded)
        say_warn("node \"%s\": the control server has more to say than "
                 "NOTICE_MAX (%d) messages: the rest is left out",
            node, NOTICE_MAX);
    s->crowded = more || (s->crowded && s->n == NOTICE_MAX);
}

void
notice_clear(struct notices *s)
{
    for (size_t i = 0; i < s->n; i++)
        map_delta_clear_notice(&s->list[i]);
    s->n = 0;
    s->crowded = false;
}

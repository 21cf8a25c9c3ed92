/*
 * notice.h: what a control server has to say to a node's people (Health and
 * DisplayMessages of a MapResponse), for as long as it holds.
 *
 * They outlive the stream that brought them: the first message of the next one
 * has all that still holds.  So each is in the log once.
 */
#ifndef NOTICE_H
#define NOTICE_H

#include "map_json_delta.h"
#include "message.h"

#define NOTICE_MAX 64 /* kept of a node; more are left out */

struct notices {
    struct map_notice list[2 * NOTICE_MAX]; /* with what goes with a message */
    size_t n;
    bool crowded; /* some are left out, as the log says */
};

/* notice_take(s, d, first, node): ${d}'s are applied, and partly taken out of
 * it; ${first}: it is a stream's first message.  The log is told what is new
 * and what is gone. */
void notice_take(
    struct notices *s, struct map_delta *d, bool first, const char *node);

/* For people, as message_show() does it. */
void notice_words(const struct map_notice *n, char out[MESSAGE_SHOWN_MAX]);

/* As if nothing had been said. */
void notice_clear(struct notices *s);

#endif

/*
 * lines.h: the engine's standard error, line by line, into the log.
 *
 * Lines longer than CHILD_LINE_MAX are cut, those past CHILD_LINES_MAX in a
 * second are counted instead.  "<N>" in front is the syslog level; without it
 * a line comes from a library that complains: an error.
 */
#ifndef LINES_H
#define LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINES_BYTES 1024 /* CHILD_LINE_MAX */

struct lines {
    int fd; /* or -1 */
    char buf[LINES_BYTES];
    size_t len;
    bool cut;       /* the rest of a long line is skipped */
    int64_t second; /* start of the second that is counted */
    unsigned count; /* lines in it */
    unsigned suppressed;
};

void lines_init(struct lines *l);

/* lines_open(l, fd): read from ${fd} (taken over, not blocking). */
void lines_open(struct lines *l, int fd);
void lines_close(struct lines *l);
int lines_fd(const struct lines *l);

/* lines_read(l, now): what is there now, a bounded part of it. */
void lines_read(struct lines *l, int64_t now);

/* lines_drain(l): the last words of a dead engine. */
void lines_drain(struct lines *l);

/* The time of the next lines_tick(), which reports suppressed lines; -1. */
int64_t lines_deadline(const struct lines *l);
void lines_tick(struct lines *l, int64_t now);

#endif

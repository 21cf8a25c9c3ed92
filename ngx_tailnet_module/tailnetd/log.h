/*
 * log.h: the holder's log, in the format of nginx's error log:
 *
 *   2026/11/20 12:00:00 [notice] 123#0: tailnetd: text
 *
 * A line is one write() to a file opened for appending, so that it may be
 * nginx's own error log; the file is opened again when it was moved.
 */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>

#define LOG_LINE_MAX 2048 /* bytes of a whole line; longer ones are cut */

/* nginx's levels, and its numbers. */
enum log_level {
    LOG_LEVEL_ALERT = 2,
    LOG_LEVEL_ERR = 4,
    LOG_LEVEL_WARN = 5,
    LOG_LEVEL_NOTICE = 6,
    LOG_LEVEL_INFO = 7,
    LOG_LEVEL_DEBUG = 8,
};

/* log_open(path): write to ${path}, or to standard error when it is NULL or
 * "/dev/stderr".  ${path} is borrowed for good.  Returns 0, or -1 and errno. */
int log_open(const char *path);

/* log_limit(name): leave out what is less urgent than nginx's level ${name}
 * (notice, if this is never called).  Returns 0, or -1: there is no such
 * level. */
int log_limit(const char *name);

/* log_bytes(level, text, len): a line of somebody else's bytes; control
 * characters become "?". */
void log_bytes(enum log_level level, const char *text, size_t len);

void log_write(enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define log_alert(...)  log_write(LOG_LEVEL_ALERT, __VA_ARGS__)
#define log_err(...)    log_write(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warn(...)   log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_notice(...) log_write(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)   log_write(LOG_LEVEL_INFO, __VA_ARGS__)

#endif

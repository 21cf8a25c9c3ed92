#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static const char *file; /* NULL: standard error */
static int out = STDERR_FILENO;
static dev_t dev;
static ino_t ino;
static time_t checked; /* monotonic seconds of the last stat() */
static enum log_level limit = LOG_LEVEL_NOTICE;
static pid_t pid; /* children of the holder log in its name */

static int
open_file(void)
{
    struct stat st;
    int fd;

    fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd == -1)
        return -1;
    if (fstat(fd, &st) == -1) {
        close(fd);
        return -1;
    }
    dev = st.st_dev;
    ino = st.st_ino;
    return fd;
}

int
log_open(const char *path)
{
    int fd;

    pid = getpid();
    file = path;
    if (path == NULL || strcmp(path, "/dev/stderr") == 0) {
        file = NULL;
        return 0;
    }
    fd = open_file();
    if (fd == -1) {
        file = NULL;
        return -1;
    }
    out = fd;
    return 0;
}

static const char *const names[] = {"stderr", "emerg", "alert", "crit", "error",
    "warn", "notice", "info", "debug"};

int
log_limit(const char *name)
{
    size_t i;

    for (i = 1; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], name) == 0) {
            limit = (enum log_level)i;
            return 0;
        }
    }
    return -1;
}

/* Log rotation moves the file away: follow the name, at most once a second. */
static void
follow(void)
{
    struct timespec now;
    struct stat st;
    int fd;

    if (file == NULL || clock_gettime(CLOCK_MONOTONIC, &now) == -1 ||
        now.tv_sec == checked)
        return;
    checked = now.tv_sec;
    if (stat(file, &st) == 0 && st.st_dev == dev && st.st_ino == ino)
        return;
    fd = open_file();
    if (fd == -1)
        return; /* the moved file is better than none */
    close(out);
    out = fd;
}

void
log_bytes(enum log_level level, const char *text, size_t len)
{
    char line[LOG_LINE_MAX];
    struct tm tm;
    time_t now = time(NULL);
    size_t n, i;

    if (level > limit)
        return;
    follow();
    if (pid == 0)
        pid = getpid();
    localtime_r(&now, &tm);
    n = strftime(line, sizeof(line), "%Y/%m/%d %H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof(line) - n,
        " [%s] %d#0: tailnetd: ", names[level], (int)pid);
    if (len > sizeof(line) - n - 1)
        len = sizeof(line) - n - 1;
    for (i = 0; i < len; i++)
        line[n++] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?'
                                                                     : text[i];
    line[n++] = '\n';
    /* A log that cannot be written has nowhere to say so. */
    if (write(out, line, n) == -1)
        return;
}

void
log_write(enum log_level level, const char *fmt, ...)
{
    char text[LOG_LINE_MAX];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    log_bytes(
        level, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

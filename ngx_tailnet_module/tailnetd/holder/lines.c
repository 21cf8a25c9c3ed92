#include "lines.h"

#include <string.h>
#include <unistd.h>

#include "../log.h"
#include "child.h"

#define READS_MAX 16 /* before others have their turn */
#define SECOND_MS 1000

_Static_assert(LINES_BYTES == CHILD_LINE_MAX, "one limit");

void
lines_init(struct lines *l)
{
    memset(l, 0, sizeof(*l));
    l->fd = -1;
}

void
lines_open(struct lines *l, int fd)
{
    lines_close(l);
    l->fd = fd;
    l->len = 0;
    l->cut = false;
}

void
lines_close(struct lines *l)
{
    if (l->fd != -1)
        close(l->fd);
    l->fd = -1;
}

int
lines_fd(const struct lines *l)
{
    return l->fd;
}

static enum log_level
level(char digit)
{
    static const enum log_level table[] = {LOG_LEVEL_ALERT, LOG_LEVEL_ALERT,
        LOG_LEVEL_ALERT, LOG_LEVEL_ERR, LOG_LEVEL_WARN, LOG_LEVEL_NOTICE,
        LOG_LEVEL_INFO, LOG_LEVEL_DEBUG};

    return table[digit - '0'];
}

static void
emit(struct lines *l, const char *text, size_t len)
{
    enum log_level lv = LOG_LEVEL_ERR;

    if (len == 0)
        return;
    if (l->count >= CHILD_LINES_MAX) {
        l->suppressed++;
        return;
    }
    l->count++;
    if (len >= 3 && text[0] == '<' && text[1] >= '0' && text[1] <= '7' &&
        text[2] == '>') {
        lv = level(text[1]);
        text += 3;
        len -= 3;
    }
    log_bytes(lv, text, len);
}

static void
take(struct lines *l, const char *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (p[i] == '\n') {
            if (!l->cut)
                emit(l, l->buf, l->len);
            l->len = 0;
            l->cut = false;
        } else if (l->len < sizeof(l->buf)) {
            l->buf[l->len++] = p[i];
        } else if (!l->cut) {
            emit(l, l->buf, l->len);
            l->cut = true;
        }
    }
}

/* Starts the next second when this one is over. */
static void
roll(struct lines *l, int64_t now)
{
    if (now - l->second < SECOND_MS)
        return;
    if (l->suppressed > 0)
        log_warn("%u log lines of the engine were suppressed: more than %d "
                 "in a second",
            l->suppressed, CHILD_LINES_MAX);
    l->suppressed = 0;
    l->count = 0;
    l->second = now;
}

void
lines_read(struct lines *l, int64_t now)
{
    char buf[4096];
    ssize_t n;
    int i;

    roll(l, now);
    for (i = 0; i < READS_MAX && l->fd != -1; i++) {
        n = read(l->fd, buf, sizeof(buf));
        if (n == 0)
            lines_close(l);
        if (n <= 0)
            return;
        take(l, buf, (size_t)n);
    }
}

void
lines_drain(struct lines *l)
{
    lines_read(l, l->second);
    if (l->len > 0 && !l->cut)
        emit(l, l->buf, l->len);
    l->len = 0;
}

int64_t
lines_deadline(const struct lines *l)
{
    return l->suppressed > 0 ? l->second + SECOND_MS : -1;
}

void
lines_tick(struct lines *l, int64_t now)
{
    roll(l, now);
}

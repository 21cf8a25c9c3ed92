#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void
say(int level, const char *fmt, ...)
{
    char line[SAY_MAX + 2];
    va_list ap;
    int n, m, i;

    n = snprintf(line, SAY_MAX, "<%d>", level);
    va_start(ap, fmt);
    m = vsnprintf(line + n, SAY_MAX - (size_t)n, fmt, ap);
    va_end(ap);
    if (m < 0)
        return;
    n = n + m < SAY_MAX ? n + m : SAY_MAX - 1;
    /* Names are a control server's words: they make no lines of their own. */
    for (i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    /* One write, so that lines stay whole; a lost line is not worth more. */
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return;
}

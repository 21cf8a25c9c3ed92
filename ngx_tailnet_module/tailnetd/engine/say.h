/*
 * say.h: the engine's log lines.  One line a call, at most SAY_MAX bytes, to
 * standard error, from where the holder takes them to the log; "<N>" in front
 * is the syslog level.  Control characters become "?".  Never a secret key,
 * never a packet.
 */
#ifndef SAY_H
#define SAY_H

#define SAY_MAX 1000

#define say_err(...)    say(3, __VA_ARGS__)
#define say_warn(...)   say(4, __VA_ARGS__)
#define say_notice(...) say(5, __VA_ARGS__)
#define say_info(...)   say(6, __VA_ARGS__)

void say(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif

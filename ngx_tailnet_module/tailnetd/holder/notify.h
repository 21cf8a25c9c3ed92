/*
 * notify.h: a word to the service manager that started us (sd_notify(3)).
 */
#ifndef NOTIFY_H
#define NOTIFY_H

/* notify_clear(state): says ${state}, if it is not NULL and somebody wants to
 * hear it, and forgets the manager: its socket is none of our children's
 * business. */
void notify_clear(const char *state);

#endif

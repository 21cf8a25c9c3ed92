/*
 * admin.h: what masters, workers and tailnetctl ask for (tn_admin.h).
 */
#ifndef ADMIN_H
#define ADMIN_H

#include <stdbool.h>
#include <stdint.h>

#include "conn.h"

/* admin_read(c, now): one message of ${c}, if there is one. */
void admin_read(struct conn *c, int64_t now);

/* A node table whose keys another tailnetd has is tried again for a time;
 * others are answered meanwhile.  When admin_tick() is due; -1: never. */
#define ADMIN_WAITING_MAX 8
int64_t admin_deadline(void);
void admin_tick(int64_t now);

/* admin_publish(n): the snapshot of ${n} to all that subscribed. */
void admin_publish(const struct lease *n);

/* admin_stop_wanted(): a master said STOP and no other needs us. */
bool admin_stop_wanted(void);

/* admin_stopped(): everything has ended: answer those who said STOP. */
void admin_stopped(void);

/* admin_service(): this tailnetd does not end by itself. */
void admin_service(void);

/*
 * admin_refuse(fd, err, text): ERROR as the answer to the HELLO of the nginx
 * that started us, for which it waits a second at most.
 */
void admin_refuse(int fd, int err, const char *text);

#endif

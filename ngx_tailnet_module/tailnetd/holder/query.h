/*
 * query.h: questions of admin connections that only the engine can answer.
 */
#ifndef QUERY_H
#define QUERY_H

#include "conn.h"

#define QUERY_MAX    64    /* open at a time */
#define QUERY_MS     5000  /* for an answer, and ... */
#define QUERY_MAX_MS 60000 /* ... what a ping may take besides */
/* For a status, which the engine writes beside its packets. */
#define QUERY_STATUS_MS 30000

/*
 * query_ask(c, seq, m, now): send ${m} (a QUERY; its id is chosen here); its
 * answer, or an ERROR, goes to ${c} with ${seq}, sooner or later.
 */
void query_ask(struct conn *c, uint32_t seq, struct ipc_msg *m, int64_t now);

/* query_answer(id, fd, why): ${fd} is the caller's, or -1 and why the engine
 * gives none, "": no memory. */
void query_answer(uint32_t id, int fd, const char *why);

/* query_fail_all(): the engine died. */
void query_fail_all(void);

int64_t query_deadline(void); /* -1: none */
void query_tick(int64_t now);

#endif

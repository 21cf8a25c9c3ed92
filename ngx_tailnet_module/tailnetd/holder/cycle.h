/*
 * cycle.h: node tables and who rules.
 *
 * Every master's connection is a cycle of nginx with a node table.  The newest
 * committed cycle whose connection is open rules, so that a failed reload or an
 * aborted upgrade falls back by itself; when none is open, the last one goes
 * on ruling.  Workers hold their cycle, so that a removed node lives until the
 * last of them is gone.  In a service ("tailnetd -c") only its own file rules.
 */
#ifndef CYCLE_H
#define CYCLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../core/tn_node.h"

struct cycle;

/* cycle_service(): this tailnetd's nodes come from its own file. */
void cycle_service(void);

/* cycle_new(service): a new cycle, open, with one reference: the caller's.
 * NULL: no memory. */
struct cycle *cycle_new(bool service);
uint64_t cycle_id(const struct cycle *c);
struct cycle *cycle_find(uint64_t id);

struct cycle *cycle_ref(struct cycle *c);
void cycle_unref(struct cycle *c); /* NULL is harmless */

/* cycle_close(c): its master's connection is gone, with a reference. */
void cycle_close(struct cycle *c);

/*
 * cycle_table(c, text, len, prefix, err): its node table.  Every node has a
 * namespace and a locked key afterwards.  Returns 0, or an errno, a sentence
 * and nothing changed; ${*line}: of ${text}, or 0.  EAGAIN: another tailnetd
 * has a key, which may be ending: see KEYSRC_WAIT_MS.
 */
int cycle_table(struct cycle *c, const char *text, size_t len,
    const char *prefix, char err[TN_ERR_MAX], unsigned *line);

/* cycle_secret(c, node, fd): a memory file with the auth key that its master's
 * environment has for ${node}, which is in its table; ${fd} is taken over. */
void cycle_secret(struct cycle *c, const char *node, int fd);

/* cycle_commit(c): ${c} rules.  Returns false: it has no table. */
bool cycle_commit(struct cycle *c);
bool cycle_committed(const struct cycle *c);

/* cycle_has(c, node): ${node} is in the table of ${c}. */
bool cycle_has(struct cycle *c, const char *node);

/* Another committed cycle than ${c} whose connection is open. */
bool cycle_others(const struct cycle *c);

/* cycle_sync(): make nodes and engine follow what rules now. */
void cycle_sync(void);

/* cycle_ruled(): something was ever committed. */
bool cycle_ruled(void);

/* The end of everything. */
void cycle_drop_all(void);

#endif

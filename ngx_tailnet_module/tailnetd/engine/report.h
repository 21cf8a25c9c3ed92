/*
 * report.h: answers that show whole tailnets, written a slice each turn of the
 * loop.
 *
 * An answer shows nodes as they are when their turn comes; one that comes
 * meanwhile is not in it, and one that goes is there with the peers that were
 * written until then.  A peer is shown once, as it is when its turn comes.
 * Who comes or goes meanwhile may be there or not; nobody else is left out,
 * but for a tailnet that gets more than REPORT_ANEW whole netmaps meanwhile.
 *
 * What fits one slice is answered at once.  Who asks for the same while one is
 * being written gets the next one, together with all others who do.
 */
#ifndef REPORT_H
#define REPORT_H

#include <stdint.h>

struct node;

#define REPORT_MAX        8  /* not finished, at a time */
#define REPORT_ASKERS_MAX 64 /* of one */
#define REPORT_ANEW       4

/* The end of report_ask() number ${query}: a memory file, borrowed, or -1 and
 * why, "": no memory. */
typedef void report_answer(uint32_t query, int fd, const char *why);

/*
 * report_init(nodes, answer): the list that ${*nodes} leads to is looked at
 * anew in each turn.  Returns 0, or -1: no memory.
 */
int report_init(struct node *const *nodes, report_answer *answer);

/* report_ask(query, only): all nodes, or the one named ${only}; answered from
 * in here or later. */
void report_ask(uint32_t query, const char *only);

/* Whoever asked is gone: nothing is answered any more. */
void report_drop(void);

/* The end; also without a report_init(). */
void report_free(void);

#endif

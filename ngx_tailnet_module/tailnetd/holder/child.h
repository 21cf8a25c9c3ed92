/*
 * child.h: the engine process as the holder sees it.
 *
 * States:
 *   none      not needed yet
 *   adopting  a dead holder's engine was asked (MAIN) to go on with us
 *   running   messages go both ways
 *   waiting   died too often: the next one starts later
 *   ending    SIGTERM was sent, SIGKILL follows
 *   ended
 */
#ifndef CHILD_H
#define CHILD_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../ipc.h"
#include "../isolate.h"

#define CHILD_ADOPT_MS     1000  /* for an answer to MAIN */
#define CHILD_SEND_MS      2000  /* for an engine that does not read */
#define CHILD_STOP_MS      2000  /* from SIGTERM to SIGKILL */
#define CHILD_DEATHS       3     /* in ... */
#define CHILD_DEATHS_MS    60000 /* ... and it is delayed */
#define CHILD_DELAY_MS     1000  /* doubled up to ... */
#define CHILD_DELAY_MAX_MS 30000
#define CHILD_LINE_MAX     1024 /* bytes of a log line */
#define CHILD_LINES_MAX    200  /* log lines of a second */
#define CHILD_POLLS        2

struct child_ops {
    /* A new engine has its ENTRYs; an adopted one (true) has all it needs. */
    void (*started)(bool adopted);
    /* Descriptors become the callee's. */
    void (*message)(const struct ipc_msg *m, const int *fds, size_t nfds);
    void (*died)(void);
};

struct child_config {
    struct child_ops ops;
    struct isolate_user user;
    const char *timing; /* for the engine, or NULL */
    unsigned delay_ms;  /* CHILD_DELAY_MS, less in tests */
};

/* child_init(c): before anything else.  Returns 0, or -1 and errno. */
int child_init(const struct child_config *c);

/* child_need(now): there is to be an engine from now on. */
void child_need(int64_t now);

/* child_adopt(bequest, now): ask the engine of a dead holder; ${bequest} is
 * taken over.  Without an answer a new one is started. */
void child_adopt(int bequest, int64_t now);

/*
 * child_stop(now, spare): end it; child_ended() tells when.  ${spare}: an
 * adopted one goes on without us, as it did before: those who use it still hold
 * its bequest.
 */
void child_stop(int64_t now, bool spare);
bool child_ended(void);

bool child_running(void);

/* The process, or 0: none, or not known. */
pid_t child_pid(void);

/* child_send(m, fds, nfds): returns false when there is no engine (anymore). */
bool child_send(const struct ipc_msg *m, const int *fds, size_t nfds);

/* The holder's end of the bequest (borrowed), or -1. */
int child_bequest(void);

/* For the loop: what to poll (CHILD_POLLS places), what came of it, and the
 * time of the next child_tick(). */
void child_poll(struct pollfd p[CHILD_POLLS]);
void child_polled(const struct pollfd p[CHILD_POLLS], int64_t now);
int64_t child_deadline(void);
void child_tick(int64_t now);

#endif

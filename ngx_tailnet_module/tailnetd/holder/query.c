#include "query.h"

#include <errno.h>

#include "child.h"

struct query {
    uint32_t id; /* 0: free */
    uint32_t seq;
    unsigned slot;
    uint64_t serial; /* of the connection */
    int64_t due;
};

static struct query queries[QUERY_MAX];
static uint32_t ids;
static unsigned refused;

static struct conn *
asker(const struct query *q)
{
    return conn_find(q->slot, q->serial);
}

static void
fail(struct query *q, int err, const char *why)
{
    struct conn *c = asker(q);

    if (c != NULL)
        conn_error(c, q->seq, err, "%s", why);
    q->id = 0;
}

void
query_ask(struct conn *c, uint32_t seq, struct ipc_msg *m, int64_t now)
{
    struct query *q = NULL;
    int64_t limit = QUERY_MS;
    unsigned i;

    for (i = 0; i < QUERY_MAX && q == NULL; i++) {
        /* One whose asker has gone makes place. */
        if (queries[i].id == 0 || asker(&queries[i]) == NULL)
            q = &queries[i];
    }
    if (q == NULL) {
        refused++;
        conn_error(c, seq, EBUSY,
            "more than %d questions are open (%u "
            "refused so far)",
            QUERY_MAX, refused);
        return;
    }
    if (++ids == 0)
        ids = 1;
    if (m->kind == IPC_QUERY_PING) {
        if (m->timeout_ms > QUERY_MAX_MS)
            m->timeout_ms = QUERY_MAX_MS;
        limit += m->timeout_ms;
    } else if (m->kind == IPC_QUERY_STATUS) {
        limit = QUERY_STATUS_MS;
    }
    *q = (struct query){.id = ids,
        .seq = seq,
        .slot = conn_slot(c),
        .serial = c->serial,
        .due = now + limit};
    m->id = ids;
    if (!child_send(m, NULL, 0))
        fail(q, EHOSTDOWN, "the engine is not running: see the log");
}

void
query_answer(uint32_t id, int fd, const char *why)
{
    struct conn *c;
    unsigned i;

    for (i = 0; i < QUERY_MAX; i++) {
        if (id == 0 || queries[i].id != id)
            continue;
        c = asker(&queries[i]);
        if (c != NULL && fd != -1)
            conn_reply(c, TN_ADMIN_TEXT, queries[i].seq, &fd, 1);
        else if (why[0] != '\0')
            fail(&queries[i], EBUSY, why);
        else
            fail(&queries[i], ENOMEM, "the engine has no memory to answer");
        queries[i].id = 0;
    }
}

void
query_fail_all(void)
{
    unsigned i;

    for (i = 0; i < QUERY_MAX; i++) {
        if (queries[i].id != 0)
            fail(&queries[i], EHOSTDOWN, "the engine died: ask again");
    }
}

int64_t
query_deadline(void)
{
    int64_t first = -1;
    unsigned i;

    for (i = 0; i < QUERY_MAX; i++) {
        if (queries[i].id != 0 && (first == -1 || queries[i].due < first))
            first = queries[i].due;
    }
    return first;
}

void
query_tick(int64_t now)
{
    unsigned i;

    for (i = 0; i < QUERY_MAX; i++) {
        if (queries[i].id != 0 && now >= queries[i].due)
            fail(&queries[i], ETIMEDOUT, "the engine did not answer in time");
    }
}

/*
 * holder.h: the holder process.
 */
#ifndef HOLDER_H
#define HOLDER_H

#include "../../core/tn_node.h"

#define HOLDER_LINGER_MS 10000 /* after the last user is gone */
#define HOLDER_UNUSED_MS 1000  /* ... if no node ever ruled */

struct holder_config {
    int admin_fd;            /* of the nginx that started us, or -1 */
    const char *socket;      /* absolute */
    const char *log;         /* absolute, or NULL: standard error */
    const char *engine_user; /* or NULL */
    const char *client;      /* a user who may come in, or NULL */
    const char *file;        /* a service's nodes (absolute), or NULL */
    const char *timing;      /* for the engine, or NULL */
    unsigned linger_ms;      /* HOLDER_LINGER_MS, less in tests */
    unsigned delay_ms;       /* of child_config */
};

/* holder_main(conf): runs to the end; the process' exit code. */
int holder_main(const struct holder_config *conf);

/* holder_read_file(path, text, len, err): the bytes (new, TN_TABLE_MAX at
 * most) of a node file.  Returns 0, or -1 and a sentence. */
int holder_read_file(
    const char *path, char **text, size_t *len, char err[TN_ERR_MAX]);

/* holder_prefix(path, prefix): the directory of ${path}, "/" behind it. */
void holder_prefix(const char *path, char prefix[TN_NODE_PATH_MAX + 1]);

#endif

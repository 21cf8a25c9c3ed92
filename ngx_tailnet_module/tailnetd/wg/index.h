/*
 * index.h: the indices by which a remote names our handshakes and sessions.
 */
#ifndef INDEX_H
#define INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wg_peer;

enum index_kind { INDEX_HANDSHAKE, INDEX_KEYPAIR };

/* Part of the thing that is named; ${linked} while it is in a table. */
struct index_entry {
    struct index_entry *next;
    struct wg_peer *peer;
    uint32_t index;
    enum index_kind kind;
    bool linked;
};

struct index_table {
    struct index_entry **buckets;
    size_t size; /* a power of two */
    size_t count;
};

/* index_table_init(t): returns 0, or -1: no memory. */
int index_table_init(struct index_table *t);
void index_table_free(struct index_table *t);

/* index_add(t, e, index): names ${e}, whose peer and kind are set; ${index} is
 * free.  Never fails: without memory for a larger table chains get longer. */
void index_add(struct index_table *t, struct index_entry *e, uint32_t index);

/* index_remove(t, e): harmless when ${e} is in no table. */
void index_remove(struct index_table *t, struct index_entry *e);

/* index_find(t, index): borrowed, or NULL. */
struct index_entry *index_find(const struct index_table *t, uint32_t index);

#endif

/*
 * map_json_write.h: a netmap as the MapResponse that would make it, in parts.
 */
#ifndef MAP_JSON_WRITE_H
#define MAP_JSON_WRITE_H

#include <stdbool.h>
#include <stddef.h>

#include "../engine/netmap.h"

struct map_json_writer;

/* The next peer, borrowed until the next call of any function; NULL: none. */
typedef const struct netmap_node *map_json_peer(void *arg);

/*
 * map_json_writer_new(nm, peer, arg): ${nm} stays the caller's and outlives the
 * writer.  Its peers are what ${peer} gives, if that is not NULL, when their
 * turn comes.  NULL: no memory.
 */
struct map_json_writer *map_json_writer_new(
    const struct netmap *nm, map_json_peer *peer, void *arg);
void map_json_writer_free(struct map_json_writer *w);

/*
 * map_json_writer_next(w, least, len): the next ${*len} bytes of the text,
 * borrowed until the next call: ${least} and what belongs to the last of them,
 * or what is left; 0 at its end.  What belongs together is one node, user,
 * region, grant or entry of a rule's lists.  NULL: no memory, for good.
 */
const char *map_json_writer_next(
    struct map_json_writer *w, size_t least, size_t *len);

/* Nothing is left. */
bool map_json_writer_done(const struct map_json_writer *w);

#endif

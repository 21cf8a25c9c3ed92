/*
 * map_json_write.h: a netmap as the MapResponse that would make it.
 */
#ifndef MAP_JSON_WRITE_H
#define MAP_JSON_WRITE_H

#include <stddef.h>

#include "../engine/netmap.h"

/* map_json_write(nm, len): text for free(3), ${*len} bytes; NULL: no memory. */
char *map_json_write(const struct netmap *nm, size_t *len);

#endif

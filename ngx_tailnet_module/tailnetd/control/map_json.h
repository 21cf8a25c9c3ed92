/*
 * map_json.h: from MapResponse JSON to a netmap.
 *
 * The document that a control server sends first, and that a netmap file
 * holds.  Unknown fields are ignored; null is the same as absent, but for
 * PacketFilters, where it deletes a chunk.
 */
#ifndef MAP_JSON_H
#define MAP_JSON_H

#include <stddef.h>

#include "../engine/netmap.h"

#define MAP_JSON_MAX_TEXT (256u << 20) /* bytes of one document */
/* Bytes of memory for the tree of ${len} bytes of text: real ones take 7 times
 * their text, empty objects 75 times. */
#define MAP_JSON_MAX_TREE(len) ((64u << 20) + 8 * (size_t)(len))
#define MAP_JSON_MAX_WARNINGS  16 /* kept; all are counted */
#define MAP_JSON_PATH_LEN      256
#define MAP_JSON_TEXT_LEN      512

/* What map_json_parse() has to say; set whatever it returns. */
struct map_json_error {
    int line; /* of a mistake in the syntax, from 1; else 0 */
    int column;
    char path[MAP_JSON_PATH_LEN]; /* of a mistake in meaning: "Peers[2].Key" */
    char text[MAP_JSON_TEXT_LEN]; /* the whole sentence, with its place */
    unsigned nwarnings;           /* entries that were left out */
    char warnings[MAP_JSON_MAX_WARNINGS][MAP_JSON_TEXT_LEN];
};

/*
 * map_json_load(text, len, err): the JSON tree of a document, for
 * json_decref(); or NULL and why.  One thread at a time.
 */
struct json_t *map_json_load(
    const char *text, size_t len, struct map_json_error *err);

/*
 * map_json_parse(text, len, err): the netmap of ${len} bytes of JSON, for
 * netmap_free(); or NULL and why in ${err}, "out of memory" included.  Entries
 * of the packet filter that cannot be understood are left out with a warning.
 * A document without Node gives a self node without key and addresses.
 *
 * Refused: what is over a limit of netmap.h, two nodes of one ID, key or
 * address, and a peer without Key or Addresses.  For one thread at a time.
 */
struct netmap *map_json_parse(
    const char *text, size_t len, struct map_json_error *err);

#endif

/*
 * map_text.h: a netmap as the MapResponse that would make it, all of it.
 */
#ifndef MAP_TEXT_H
#define MAP_TEXT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../ngx_tailnet_module/tailnetd/control/map_json_write.h"

/* For free(3); NULL: no memory.  Parts of ${least} bytes. */
static inline char *
map_text_parts(const struct netmap *nm, size_t least, size_t *len)
{
    struct map_json_writer *w = map_json_writer_new(nm, NULL, NULL);
    char *all = NULL, *more;
    const char *part;
    size_t n = 0;

    for (*len = 0; w != NULL; *len += n) {
        part = map_json_writer_next(w, least, &n);
        if (part != NULL && n == 0)
            break;
        more = part == NULL ? NULL : realloc(all, *len + n);
        if (more == NULL) {
            free(all);
            all = NULL;
            break;
        }
        all = more;
        memcpy(all + *len, part, n);
    }
    map_json_writer_free(w);
    return all;
}

static inline char *
map_text(const struct netmap *nm, size_t *len)
{
    return map_text_parts(nm, SIZE_MAX, len);
}

#endif

#include "cache.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../engine/say.h"
#include "map_json_write.h"
#include "session.h"

#define SAVE_MS       1000  /* from a new netmap to the saved one ... */
#define SAVE_NOTED_MS 60000 /* ... or from changes in the one there is, ... */
#define SAVE_BYTES_MS 1000  /* ... and a millisecond for so many bytes of it */
#define SLICE         (16 << 10) /* bytes; about 150 us */

/* ---- a slice ---- */

static const struct netmap_node *
next_peer(void *arg)
{
    struct control *c = arg;

    return map_state_peer(c->map, &c->cache.peer);
}

static void
end(struct cache *s)
{
    if (s->writer == NULL)
        return;
    map_json_writer_free(s->writer);
    s->writer = NULL;
    netmap_free(s->outline);
    if (s->fd != -1)
        close(s->fd);
    loop_idle_want(s->slices, false);
}

static void
fail(struct control *c)
{
    say_err("node \"%s\": no memory: its netmap is not saved (%d: %s)",
        c->node.name, errno, strerror(errno));
    end(&c->cache);
}

static void
slice(void *arg)
{
    struct control *c = arg;
    struct cache *s = &c->cache;
    const char *text;
    size_t len;

    text = map_json_writer_next(s->writer, SLICE, &len);
    if (text == NULL || write(s->fd, text, len) != (ssize_t)len) {
        fail(c);
        return;
    }
    s->written += len;
    if (!map_json_writer_done(s->writer))
        return;
    s->bytes = s->written;
    c->ops->save_netmap(c->arg, s->fd);
    end(s);
}

/* ---- when ---- */

static void
begin(void *arg)
{
    struct control *c = arg;
    struct cache *s = &c->cache;

    if (s->writer != NULL) {
        loop_timer_set(s->timer, loop_now() + SAVE_MS);
        return;
    }
    s->due = false;
    s->outline = map_state_outline(c->map);
    if (s->outline != NULL)
        s->writer = map_json_writer_new(s->outline, next_peer, c);
    if (s->writer == NULL) {
        netmap_free(s->outline);
        fail(c);
        return;
    }
    s->peer = 0;
    s->written = 0;
    s->fd = memfd_create("tailnet-save", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->fd == -1) {
        fail(c);
        return;
    }
    loop_idle_want(s->slices, true);
}

static void
save_in(struct cache *s, uint64_t ms)
{
    uint64_t at = loop_now() + ms;

    if (s->due && s->at <= at)
        return;
    s->due = true;
    s->at = at;
    loop_timer_set(s->timer, at);
}

void
cache_soon(struct control *c)
{
    save_in(&c->cache, SAVE_MS + c->cache.bytes / SAVE_BYTES_MS);
}

void
cache_later(struct control *c)
{
    save_in(&c->cache, SAVE_NOTED_MS + 10 * c->cache.bytes / SAVE_BYTES_MS);
}

void
cache_again(struct control *c)
{
    end(&c->cache);
    loop_timer_set(c->cache.timer, 0);
}

void
cache_drop(struct control *c)
{
    end(&c->cache);
    loop_timer_set(c->cache.timer, UINT64_MAX);
    c->cache.due = false;
}

/* ---- life ---- */

int
cache_init(struct control *c)
{
    c->cache.timer = loop_timer_new(begin, c);
    c->cache.slices = loop_idle_new(slice, c);
    return c->cache.timer == NULL || c->cache.slices == NULL ? -1 : 0;
}

void
cache_free(struct control *c)
{
    end(&c->cache);
    loop_timer_free(c->cache.timer);
    loop_idle_free(c->cache.slices);
}

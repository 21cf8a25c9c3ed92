#include "store.h"

#include <string.h>
#include <unistd.h>

static struct store_entry entries[STORE_MAX];
static size_t nentries;

static void
close_all(const int *fds, size_t n)
{
    while (n > 0)
        close(fds[--n]);
}

static bool
valid(const char *name)
{
    size_t len = strlen(name), i;

    if (len == 0 || len > IPC_NAME_MAX)
        return false;
    for (i = 0; i < len; i++) {
        if (name[i] <= ' ' || name[i] >= 0x7f)
            return false;
    }
    return true;
}

static void
drop(size_t i)
{
    close_all(entries[i].fds, entries[i].nfds);
    entries[i] = entries[--nentries];
}

static size_t
find(const char *name)
{
    size_t i;

    for (i = 0; i < nentries; i++) {
        if (strcmp(entries[i].name, name) == 0)
            break;
    }
    return i;
}

int
store_put(const char *name, const int *fds, size_t nfds)
{
    struct store_entry *e;
    size_t i;

    if (!valid(name) || nfds > IPC_FDS_MAX) {
        close_all(fds, nfds);
        return -1;
    }
    i = find(name);
    if (nfds == 0) {
        if (i < nentries)
            drop(i);
        return 0;
    }
    if (i == STORE_MAX) {
        close_all(fds, nfds);
        return -1;
    }
    e = &entries[i];
    if (i == nentries) {
        memset(e, 0, sizeof(*e));
        memcpy(e->name, name, strlen(name) + 1);
        nentries++;
    } else {
        close_all(e->fds, e->nfds);
    }
    memcpy(e->fds, fds, nfds * sizeof(*fds));
    e->nfds = nfds;
    return 0;
}

/* Is ${name} "${kind}/${node}"? */
static bool
is_of(const char *name, const char *kind, const char *node)
{
    size_t len = strlen(kind);

    return strncmp(name, kind, len) == 0 && name[len] == '/' &&
           strcmp(name + len + 1, node) == 0;
}

int
store_fd(const char *kind, const char *node)
{
    size_t i;

    for (i = 0; i < nentries; i++) {
        if (is_of(entries[i].name, kind, node))
            return entries[i].fds[0];
    }
    return -1;
}

void
store_drop_kind(const char *kind)
{
    size_t i = 0, len = strlen(kind);
    const char *name;

    while (i < nentries) {
        name = entries[i].name;
        if (strncmp(name, kind, len) == 0 &&
            (name[len] == '\0' || name[len] == '/'))
            drop(i);
        else
            i++;
    }
}

void
store_drop_node(const char *node)
{
    size_t i = 0;
    const char *slash;

    while (i < nentries) {
        slash = strchr(entries[i].name, '/');
        if (slash != NULL && strcmp(slash + 1, node) == 0)
            drop(i);
        else
            i++;
    }
}

void
store_drop_all(void)
{
    while (nentries > 0)
        drop(nentries - 1);
}

const struct store_entry *
store_at(size_t i)
{
    return i < nentries ? &entries[i] : NULL;
}

#include "hot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOT_MAGIC   0x3230544f484e54ull /* "TNHOT02" */
#define HOT_BUCKETS (HOT_PEERS_MAX / HOT_WAYS)
#define HOT_WAYS    8

/* The file: peers are a set-associative table, so that a lookup and an
 * eviction touch HOT_WAYS rows. */
struct file {
    uint64_t magic;
    uint64_t size;
    uint64_t evicted;
    struct hot_node nodes[TN_NODES_MAX];
    struct hot_peer peers[HOT_BUCKETS][HOT_WAYS];
};

struct hot {
    int fd;
    struct file *file;
};

static struct file *
map(int fd)
{
    void *p = mmap(
        NULL, sizeof(struct file), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

struct hot *
hot_new(int *fd)
{
    struct hot *h = calloc(1, sizeof(*h));
    int err;

    if (h == NULL)
        return NULL;
    h->fd = memfd_create("tailnet-hot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (h->fd == -1 || ftruncate(h->fd, sizeof(struct file)) != 0 ||
        fcntl(h->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0 ||
        (h->file = map(h->fd)) == NULL) {
        err = errno;
        hot_free(h);
        errno = err;
        return NULL;
    }
    /* Peers' addresses stay out of swap; without the limit for it they are
     * still only in memory files. */
    (void)mlock(h->file, sizeof(struct file));
    h->file->magic = HOT_MAGIC;
    h->file->size = sizeof(struct file);
    *fd = h->fd;
    return h;
}

struct hot *
hot_open(int fd)
{
    struct hot *h = calloc(1, sizeof(*h));
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (h == NULL) {
        close(fd);
        return NULL;
    }
    h->fd = fd;
    /* Sealed against shrinking, or reading it could end in SIGBUS. */
    if (seals == -1 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) != 0 ||
        (uint64_t)st.st_size != sizeof(struct file) ||
        (h->file = map(fd)) == NULL || h->file->magic != HOT_MAGIC ||
        h->file->size != sizeof(struct file)) {
        hot_free(h);
        return NULL;
    }
    (void)mlock(h->file, sizeof(struct file));
    return h;
}

void
hot_free(struct hot *h)
{
    if (h == NULL)
        return;
    if (h->file != NULL)
        (void)munmap(h->file, sizeof(struct file));
    if (h->fd != -1)
        close(h->fd);
    free(h);
}

/* A row's text is compared as a whole, padding included: it may lack a NUL. */
static bool
named(const char row[TN_NODE_NAME_MAX + 1], const char *name)
{
    return strncmp(row, name, TN_NODE_NAME_MAX + 1) == 0;
}

static void
set_name(char row[TN_NODE_NAME_MAX + 1], const char *name)
{
    size_t n = strnlen(name, TN_NODE_NAME_MAX);

    memset(row, 0, TN_NODE_NAME_MAX + 1);
    memcpy(row, name, n);
}

struct hot_node *
hot_node(struct hot *h, const char *name)
{
    struct hot_node *n, *empty = NULL;
    size_t i;

    for (i = 0; i < TN_NODES_MAX; i++) {
        n = &h->file->nodes[i];
        if (named(n->name, name))
            return n;
        if (n->name[0] == '\0' && empty == NULL)
            empty = n;
    }
    if (empty != NULL) {
        memset(empty, 0, sizeof(*empty));
        set_name(empty->name, name);
    }
    return empty;
}

void
hot_forget(struct hot *h, const char *name)
{
    size_t i, k;

    for (i = 0; i < TN_NODES_MAX; i++)
        if (named(h->file->nodes[i].name, name))
            memset(&h->file->nodes[i], 0, sizeof(h->file->nodes[i]));
    for (i = 0; i < HOT_BUCKETS; i++)
        for (k = 0; k < HOT_WAYS; k++)
            if (named(h->file->peers[i][k].node, name))
                memset(&h->file->peers[i][k], 0, sizeof(struct hot_peer));
}

/* Public keys are uniform already. */
static struct hot_peer *
bucket(const struct hot *h, const uint8_t key[32])
{
    uint32_t k;

    memcpy(&k, key, sizeof(k));
    return h->file->peers[k % HOT_BUCKETS];
}

/* The row of (node, key), made at the cost of the longest silent one. */
static struct hot_peer *
row_of(struct hot *h, const char *node, const uint8_t key[32])
{
    struct hot_peer *b = bucket(h, key), *p = NULL;
    size_t i;

    for (i = 0; i < HOT_WAYS && p == NULL; i++)
        if (memcmp(b[i].key, key, 32) == 0 && named(b[i].node, node))
            p = &b[i];
    for (i = 0; i < HOT_WAYS && p == NULL; i++)
        if (b[i].node[0] == '\0')
            p = &b[i];
    if (p == NULL) {
        for (p = b, i = 1; i < HOT_WAYS; i++)
            if (b[i].seen < p->seen)
                p = &b[i];
        h->file->evicted++;
    }
    set_name(p->node, node);
    memcpy(p->key, key, 32);
    return p;
}

void
hot_saw(struct hot *h, const char *node, const uint8_t key[32],
    const struct tn_endpoint *e, int64_t now)
{
    struct hot_peer *p = row_of(h, node, key);

    p->addr = e->addr;
    p->port = e->port;
    p->region = 0;
    p->seen = now;
}

void
hot_saw_relay(struct hot *h, const char *node, const uint8_t key[32],
    uint16_t region, int64_t now)
{
    struct hot_peer *p = row_of(h, node, key);

    memset(&p->addr, 0, sizeof(p->addr));
    p->port = 0;
    p->region = region;
    p->seen = now;
}

const struct hot_peer *
hot_peer(
    const struct hot *h, const char *node, const uint8_t key[32], int64_t now)
{
    const struct hot_peer *b = bucket(h, key);
    size_t i;

    for (i = 0; i < HOT_WAYS; i++) {
        if (memcmp(b[i].key, key, 32) != 0 || !named(b[i].node, node))
            continue;
        if ((b[i].port == 0 && b[i].region == 0) || b[i].seen > now ||
            b[i].seen < now - HOT_ACTIVE_S)
            return NULL;
        return &b[i];
    }
    return NULL;
}

uint64_t
hot_evicted(const struct hot *h)
{
    return h->file->evicted;
}

/*
 * file.c: reading files that make identity.
 *
 * Theory of operation: look at the descriptor (type, owner, mode, size), read
 * all of it with pread(2) into one buffer, look again: a file that changed
 * meanwhile could be half of one text and half of another.  Buffers that held
 * keys are wiped before they are freed.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../engine/keytext.h"
#include "file.h"

#define LIMIT(name) name, #name

/* The bytes of a file, and where messages about it go. */
struct file {
    int fd;
    const char *name;
    char *err;
    size_t errlen;
    struct stat st;
    char *text;
    size_t len;
};

static int refuse(const struct file *f, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The file's name and the rest of the sentence; returns -1. */
static int
refuse(const struct file *f, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(f->err, f->errlen, "%.200s", f->name);

    va_start(ap, fmt);
    if (n > 0 && (size_t)n < f->errlen) {
        vsnprintf(f->err + n, f->errlen - (size_t)n, fmt, ap);
    }
    va_end(ap);
    return -1;
}

/* ${harm}: what somebody else's writing could do. */
static int
look(struct file *f, size_t max, const char *limit, const char *harm)
{
    if (fstat(f->fd, &f->st) != 0) {
        return refuse(f, ": fstat: %s", strerror(errno));
    }
    if (!S_ISREG(f->st.st_mode)) {
        return refuse(f, " is not a regular file");
    }
    if ((f->st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return refuse(f, " is writable by others (mode %04o): %s",
            (unsigned)f->st.st_mode & 07777, harm);
    }
    if ((uintmax_t)f->st.st_size > max) {
        return refuse(f, " has %jd bytes, more than %s (%zu)",
            (intmax_t)f->st.st_size, limit, max);
    }
    return 0;
}

static bool
is_same(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void
drop(struct file *f)
{
    if (f->text != NULL) {
        explicit_bzero(f->text, (size_t)f->st.st_size + 1);
        free(f->text);
        f->text = NULL;
    }
}

/* The whole text with a NUL behind it; drop() it afterwards, in any case. */
static int
slurp(struct file *f)
{
    size_t size = (size_t)f->st.st_size;
    struct stat after;
    ssize_t n;

    f->text = malloc(size + 1);
    if (f->text == NULL) {
        return refuse(f, ": out of memory");
    }
    for (f->len = 0; f->len < size; f->len += (size_t)n) {
        n = pread(f->fd, f->text + f->len, size - f->len, (off_t)f->len);
        if (n < 0 && errno == EINTR) {
            n = 0;
        } else if (n < 0) {
            return refuse(f, ": read: %s", strerror(errno));
        } else if (n == 0) {
            break;
        }
    }
    f->text[f->len] = '\0';
    if (fstat(f->fd, &after) != 0 || f->len != size ||
        !is_same(&f->st, &after)) {
        return refuse(f, " changed while it was read");
    }
    return 0;
}

/* ---- netmap ---- */

/* Put the file's name before what the parser said. */
static void
prefix_name(const struct file *f, struct map_json_error *err)
{
    char text[MAP_JSON_TEXT_LEN];

    memcpy(text, err->text, sizeof(text));
    refuse(f, ": %s", text);
}

struct netmap *
source_file_netmap(
    int fd, const char *name, uid_t owner, struct map_json_error *err)
{
    struct file f = {
        .fd = fd, .name = name, .err = err->text, .errlen = sizeof(err->text)};
    struct netmap *nm = NULL;

    memset(err, 0, sizeof(*err));
    if (look(&f, LIMIT(SOURCE_FILE_MAX_NETMAP),
            "anybody could make identities") != 0) {
        return NULL;
    }
    if (f.st.st_uid != 0 && f.st.st_uid != owner) {
        refuse(&f, " belongs to uid %ju: neither root nor uid %ju",
            (uintmax_t)f.st.st_uid, (uintmax_t)owner);
        return NULL;
    }
    if (slurp(&f) == 0) {
        nm = map_json_parse(f.text, f.len, err);
        if (nm == NULL) {
            prefix_name(&f, err);
        } else if (nm->self.naddresses == 0) {
            refuse(&f, ": Node.Addresses: a netmap file has to say which "
                       "addresses this node has");
            netmap_free(nm);
            nm = NULL;
        }
    }
    drop(&f);
    return nm;
}

int
source_file_check_self(const struct netmap *nm, const char *name,
    const uint8_t public[static SOURCE_FILE_KEY_LEN],
    struct source_file_error *err)
{
    struct file f = {
        .name = name, .err = err->text, .errlen = sizeof(err->text)};
    unsigned i;

    if (nm->self.has_key &&
        memcmp(nm->self.key, public, SOURCE_FILE_KEY_LEN) != 0) {
        return refuse(
            &f, ": Node.Key: not the public key of this node's private key");
    }
    for (i = 0; i < nm->npeers; i++) {
        if (memcmp(nm->peers[i].key, public, SOURCE_FILE_KEY_LEN) == 0) {
            return refuse(&f, ": Peers[%u].Key: this node's own key", i);
        }
    }
    return 0;
}

/* ---- lines ---- */

struct line {
    const char *next;
    const char *end;
    unsigned number;
    const char *s; /* without surrounding space */
    size_t len;
};

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next line that says something; false: none. */
static bool
next_line(struct line *l)
{
    const char *stop;

    while (l->next < l->end) {
        l->number++;
        l->s = l->next;
        stop = memchr(l->s, '\n', (size_t)(l->end - l->s));
        if (stop == NULL) {
            stop = l->end;
        }
        l->next = stop == l->end ? stop : stop + 1;
        while (l->s < stop && is_space(*l->s)) {
            l->s++;
        }
        while (l->s < stop && is_space(stop[-1])) {
            stop--;
        }
        l->len = (size_t)(stop - l->s);
        if (l->len > 0 && l->s[0] != '#') {
            return true;
        }
    }
    return false;
}

/* ---- private key ---- */

static int
parse_private(const struct file *f, uint8_t *key)
{
    static const uint8_t none[SOURCE_FILE_KEY_LEN];
    struct line l = {.next = f->text, .end = f->text + f->len};

    if (!next_line(&l)) {
        return refuse(f, ": no key in it");
    }
    if (keytext_prefixed(key, "privkey:", l.s, l.len) != 0 &&
        keytext_base64(key, l.s, l.len) != 0) {
        return refuse(f,
            ": line %u: \"privkey:\" and 64 hexadecimal digits, or a key of 44 "
            "characters of base64 expected",
            l.number);
    }
    if (memcmp(key, none, sizeof(none)) == 0) {
        return refuse(f, ": line %u: the key is zero", l.number);
    }
    if (next_line(&l)) {
        return refuse(f, ": line %u: more than one key", l.number);
    }
    key[0] &= 248;
    key[31] = (uint8_t)((key[31] & 127) | 64);
    return 0;
}

int
source_file_private_key(int fd, const char *name,
    uint8_t key[static SOURCE_FILE_KEY_LEN], bool *readable,
    struct source_file_error *err)
{
    struct file f = {
        .fd = fd, .name = name, .err = err->text, .errlen = sizeof(err->text)};
    int rc;

    explicit_bzero(key, SOURCE_FILE_KEY_LEN);
    *readable = false;
    if (look(&f, LIMIT(SOURCE_FILE_MAX_KEY),
            "anybody could take this node's place") != 0) {
        return -1;
    }
    rc = slurp(&f);
    if (rc == 0) {
        rc = parse_private(&f, key);
    }
    drop(&f);
    if (rc != 0) {
        explicit_bzero(key, SOURCE_FILE_KEY_LEN);
        return -1;
    }
    *readable = (f.st.st_mode & S_IROTH) != 0;
    return 0;
}

/* ---- preshared keys ---- */

struct psk {
    uint8_t public[SOURCE_FILE_KEY_LEN];
    uint8_t secret[SOURCE_FILE_KEY_LEN];
    unsigned line;
};

/* Sorting moves no secret through memory that is not ours: ${order} does. */
struct source_file_psks {
    size_t n;
    struct psk *list;         /* as in the file */
    const struct psk **order; /* by public key */
};

void
source_file_psks_free(struct source_file_psks *psks)
{
    if (psks == NULL) {
        return;
    }
    if (psks->list != NULL) {
        explicit_bzero(psks->list, psks->n * sizeof(psks->list[0]));
    }
    free(psks->list);
    free(psks->order);
    free(psks);
}

static int
parse_psk(const struct file *f, const struct line *l, struct psk *psk)
{
    const char *gap = l->s, *end = l->s + l->len, *secret;
    size_t len;

    while (gap < end && !is_space(*gap)) {
        gap++;
    }
    for (secret = gap; secret < end && is_space(*secret); secret++) {
    }
    len = (size_t)(gap - l->s);
    if (keytext_prefixed(psk->public, "nodekey:", l->s, len) != 0 &&
        keytext_base64(psk->public, l->s, len) != 0) {
        return refuse(f,
            ": line %u: first a public key expected, \"nodekey:\" and 64 "
            "hexadecimal digits or 44 characters of base64",
            l->number);
    }
    len = (size_t)(end - secret);
    if (keytext_base64(psk->secret, secret, len) != 0 &&
        keytext_hex(psk->secret, secret, len) != 0) {
        return refuse(f,
            ": line %u: then a preshared key expected, 44 characters of base64 "
            "or 64 hexadecimal digits",
            l->number);
    }
    psk->line = l->number;
    return 0;
}

static int
by_public(const void *a, const void *b)
{
    const struct psk *x = *(const struct psk *const *)a,
                     *y = *(const struct psk *const *)b;
    int order = memcmp(x->public, y->public, sizeof(x->public));

    return order != 0 ? order : (x->line > y->line) - (x->line < y->line);
}

static int
sort_psks(const struct file *f, struct source_file_psks *psks)
{
    const struct psk *a, *b;
    size_t i;

    for (i = 0; i < psks->n; i++) {
        psks->order[i] = &psks->list[i];
    }
    if (psks->n > 1) {
        qsort(psks->order, psks->n, sizeof(psks->order[0]), by_public);
    }
    for (i = 1; i < psks->n; i++) {
        a = psks->order[i - 1];
        b = psks->order[i];
        if (memcmp(a->public, b->public, sizeof(a->public)) == 0) {
            return refuse(
                f, ": line %u: the peer of line %u again", b->line, a->line);
        }
    }
    return 0;
}

static int
parse_psks(const struct file *f, struct source_file_psks *psks)
{
    struct line l = {.next = f->text, .end = f->text + f->len};
    size_t n = 0;

    while (next_line(&l)) {
        if (++n > SOURCE_FILE_MAX_PSKS) {
            return refuse(f,
                ": line %u: more keys than SOURCE_FILE_MAX_PSKS (%d)", l.number,
                SOURCE_FILE_MAX_PSKS);
        }
    }
    psks->list = calloc(n + 1, sizeof(psks->list[0]));
    psks->order = calloc(n + 1, sizeof(psks->order[0]));
    if (psks->list == NULL || psks->order == NULL) {
        return refuse(f, ": out of memory");
    }
    l = (struct line){.next = f->text, .end = f->text + f->len};
    while (next_line(&l)) {
        psks->n++;
        if (parse_psk(f, &l, &psks->list[psks->n - 1]) != 0) {
            return -1;
        }
    }
    return sort_psks(f, psks);
}

struct source_file_psks *
source_file_psks(
    int fd, const char *name, bool *readable, struct source_file_error *err)
{
    struct file f = {
        .fd = fd, .name = name, .err = err->text, .errlen = sizeof(err->text)};
    struct source_file_psks *psks = NULL;

    *readable = false;
    if (look(&f, LIMIT(SOURCE_FILE_MAX_PSK_TEXT),
            "anybody could take the peers' secrets away") != 0) {
        return NULL;
    }
    if (slurp(&f) == 0) {
        psks = calloc(1, sizeof(*psks));
        if (psks == NULL) {
            refuse(&f, ": out of memory");
        } else if (parse_psks(&f, psks) != 0) {
            source_file_psks_free(psks);
            psks = NULL;
        }
    }
    drop(&f);
    if (psks != NULL) {
        *readable = (f.st.st_mode & S_IROTH) != 0;
    }
    return psks;
}

const uint8_t *
source_file_psk(const struct source_file_psks *psks,
    const uint8_t public[static SOURCE_FILE_KEY_LEN])
{
    size_t lo = 0, hi = psks->n, mid;
    int order;

    while (lo < hi) {
        mid = lo + (hi - lo) / 2;
        order = memcmp(psks->order[mid]->public, public, SOURCE_FILE_KEY_LEN);
        if (order == 0) {
            return psks->order[mid]->secret;
        }
        if (order < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return NULL;
}

size_t
source_file_psk_count(const struct source_file_psks *psks)
{
    return psks->n;
}

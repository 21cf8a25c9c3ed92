#include "join.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../loop.h"
#include "echo.h"
#include "engine.h"
#include "node.h"
#include "say.h"

#define SAVED_MAX      (128u << 20) /* bytes of a saved netmap */
#define JOIN_GIVEN_MAX 255

struct join {
    struct node *node; /* NULL: gone, this is leaving */
    char name[TN_NODE_NAME_MAX + 1];
    bool ephemeral;
    char hostname[TN_NODE_NAME_MAX + 1]; /* as it is asked for */
    char given[JOIN_GIVEN_MAX + 1];      /* another one, as it was logged */
    struct tls_trust *trust;             /* a reference */
    char *ca;                            /* text of "control_ca", or NULL */
    size_t ca_len;
    struct tn_endpoint endpoints[TN_NODE_ENDPOINTS_MAX];
    size_t nendpoints;
    struct control *control;
    enum control_state told; /* last state that was logged */
    struct loop_timer *timer;
    int key_fd; /* a pipe that the auth key comes through, or -1 */
    struct loop_watch *key_watch;
    char *key; /* CONTROL_AUTH_KEY_MAX bytes, wiped; NULL: none is read */
    size_t key_len;
};

static unsigned leaving;

/* ---- the state directory's files ---- */

/* All of a file or memory file, for free(3); NULL: errno. */
static char *
read_all(int fd, size_t max, size_t *len)
{
    struct stat st;
    char *text;
    ssize_t n;

    if (fstat(fd, &st) != 0)
        return NULL;
    if (st.st_size < 0 || (size_t)st.st_size > max) {
        errno = EFBIG;
        return NULL;
    }
    text = malloc((size_t)st.st_size + 1);
    if (text == NULL)
        return NULL;
    for (*len = 0; *len < (size_t)st.st_size; *len += (size_t)n) {
        n = pread(fd, text + *len, (size_t)st.st_size - *len, (off_t)*len);
        if (n == -1 && errno == EINTR)
            n = 0;
        else if (n <= 0)
            break;
    }
    text[*len] = '\0';
    return text;
}

static void
forget(char *text, size_t len)
{
    if (text != NULL)
        explicit_bzero(text, len);
    free(text);
}

/* ---- what the control says ---- */

static void
take_key(void *arg, const uint8_t key[32])
{
    struct join *j = arg;

    if (j->node != NULL)
        node_take_key(j->node, key);
}

/* A name that somebody else has already leads to him. */
static void
tell_name(struct join *j, const char *name)
{
    size_t len = strcspn(name, ".");

    if (name[0] == '\0' || (strlen(j->hostname) == len &&
                               strncasecmp(name, j->hostname, len) == 0)) {
        j->given[0] = '\0';
        return;
    }
    if (strncmp(j->given, name, JOIN_GIVEN_MAX) == 0)
        return;
    snprintf(j->given, sizeof(j->given), "%.*s", JOIN_GIVEN_MAX, name);
    say_notice("node \"%s\": its name in the tailnet is \"%s\", not \"%s\" as "
               "it asked for",
        j->name, name, j->hostname);
}

static void
take_netmap(void *arg, struct netmap *nm, bool cached)
{
    struct join *j = arg;

    if (!cached)
        tell_name(j, nm->self.name);
    if (j->node == NULL)
        netmap_free(nm);
    else
        node_take_netmap(j->node, nm, cached);
}

static void
take_changes(void *arg, const struct netmap_changes *c)
{
    struct join *j = arg;

    if (c->self != NULL)
        tell_name(j, c->self->name);
    if (j->node != NULL)
        node_take_changes(j->node, c);
}

/* Trouble is logged when it is news, not at every try: control calls for what
 * is new alone. */
static void
tell(void *arg)
{
    struct join *j = arg;
    struct control_status s = control_status(j->control);
    bool news = s.state != j->told;

    if (j->node != NULL)
        node_set_words(j->node, s.state == CONTROL_RUNNING ? "" : s.words);
    if (j->node != NULL && j->node->magic != NULL)
        magic_joined(j->node->magic, s.state == CONTROL_RUNNING);
    j->told = s.state;
    switch (s.state) {
    case CONTROL_RUNNING:
        if (news)
            say_notice("node \"%s\": joined its tailnet at %s", j->name, s.url);
        break;
    case CONTROL_REFUSED:
        say_err("node \"%s\": %s; it tries again in a while, and at once on "
                "\"tailnetctl login %s\"",
            j->name, s.words, j->name);
        break;
    case CONTROL_EXPIRED:
        say_err("node \"%s\": %s", j->name, s.words);
        break;
    case CONTROL_WAITING:
        say_warn("node \"%s\": %s; it tries again", j->name, s.words);
        break;
    case CONTROL_WANTS_APPROVAL:
        say_warn("node \"%s\": %s", j->name, s.words);
        break;
    case CONTROL_STOPPED:
        say_notice("node \"%s\": %s", j->name, s.words);
        if (j->node == NULL)
            loop_timer_set(j->timer, 0);
        break;
    default:
        break;
    }
}

static void
save_keys(void *arg, const void *bytes, size_t len)
{
    struct join *j = arg;

    if (j->node != NULL)
        j->node->ops->save_keys(j->name, bytes, len);
}

static void
save_netmap(void *arg, int fd)
{
    struct join *j = arg;

    if (j->node != NULL)
        j->node->ops->save_netmap(j->name, fd);
}

static void
want_key(void *arg)
{
    struct join *j = arg;

    if (j->node != NULL)
        j->node->ops->want_key(j->name);
}

static void
ping(void *arg, uint32_t id, enum ping_kind kind, const struct tn_addr *to)
{
    struct join *j = arg;

    if (j->node != NULL)
        echo_asked(j->node, id, kind, to);
}

static const struct control_ops ops = {.key = take_key,
    .netmap = take_netmap,
    .changes = take_changes,
    .state = tell,
    .save_keys = save_keys,
    .save_netmap = save_netmap,
    .auth_key_wanted = want_key,
    .ping = ping};

/* ---- the auth key ---- */

static void
close_key(struct join *j)
{
    loop_watch_free(j->key_watch);
    j->key_watch = NULL;
    if (j->key_fd != -1)
        close(j->key_fd);
    j->key_fd = -1;
    forget(j->key, CONTROL_AUTH_KEY_MAX + 1);
    j->key = NULL;
    j->key_len = 0;
    loop_timer_set(j->timer, UINT64_MAX);
}

static void
key_failed(struct join *j, const char *why)
{
    close_key(j);
    control_auth_key_failed(j->control, why);
}

static void
key_readable(void *arg)
{
    struct join *j = arg;
    ssize_t n;

    n = read(
        j->key_fd, j->key + j->key_len, CONTROL_AUTH_KEY_MAX + 1 - j->key_len);
    if (n == -1 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == -1) {
        key_failed(j, strerror(errno));
        return;
    }
    j->key_len += (size_t)n;
    if (j->key_len > CONTROL_AUTH_KEY_MAX) {
        key_failed(j, "its source is longer than CONTROL_AUTH_KEY_MAX (4096 "
                      "bytes)");
        return;
    }
    if (n > 0)
        return;
    if (j->key_len == 0) {
        key_failed(j, "its source is empty, or its command failed");
        return;
    }
    control_auth_key(j->control, j->key, j->key_len);
    close_key(j);
}

/* A command that takes too long; or a logout that is over, or takes too long
 * too. */
static void
due(void *arg)
{
    struct join *j = arg;

    if (j->node == NULL)
        join_free(j);
    else if (j->key_fd != -1)
        key_failed(j, "its command did not end within 30 s");
}

void
join_auth_key(struct join *j, int fd, const char *why)
{
    struct stat st;

    close_key(j);
    if (fd == -1) {
        control_auth_key_failed(j->control, why);
        return;
    }
    j->key_fd = fd;
    j->key = malloc(CONTROL_AUTH_KEY_MAX + 1);
    if (j->key == NULL || fstat(fd, &st) != 0) {
        key_failed(j, strerror(errno));
        return;
    }
    if (S_ISREG(st.st_mode)) { /* always readable: no need to watch it */
        while (j->key_fd != -1)
            key_readable(j);
        return;
    }
    j->key_watch = loop_watch_new(fd, key_readable, j);
    if (j->key_watch == NULL)
        key_failed(j, "out of memory");
    else
        loop_timer_set(j->timer, loop_now() + JOIN_AUTH_KEY_MS);
}

/* ---- life ---- */

/* The system's authorities, shared by all nodes for good. */
static struct tls_trust *
system_trust(char err[TLS_ERROR_MAX])
{
    static struct tls_trust *shared;

    if (shared == NULL)
        shared = tls_trust_new(NULL, 0, err);
    return shared == NULL ? NULL : tls_trust_ref(shared);
}

/* Never without the authorities that were asked for. */
static int
make_trust(struct join *j, bool has_ca, int ca, char err[CONTROL_WORDS_MAX])
{
    if (!has_ca) {
        j->trust = system_trust(err);
        return j->trust == NULL ? -1 : 0;
    }
    if (ca == -1) {
        snprintf(err, CONTROL_WORDS_MAX,
            "it waits for the file of \"control_ca\", which cannot be used");
        return -1;
    }
    j->ca = read_all(ca, JOIN_CA_MAX, &j->ca_len);
    if (j->ca == NULL) {
        snprintf(err, CONTROL_WORDS_MAX, "\"control_ca\": %s",
            errno == EFBIG ? "longer than JOIN_CA_MAX (1 MiB)"
                           : strerror(errno));
        return -1;
    }
    j->trust = tls_trust_new(NULL, 0, err);
    if (j->trust == NULL)
        return -1;
    if (tls_trust_add(j->trust, j->ca, j->ca_len) != 0) {
        snprintf(err, CONTROL_WORDS_MAX,
            "\"control_ca\": no certificate in PEM form is in the file");
        return -1;
    }
    return 0;
}

bool
join_other_ca(const struct join *j, bool has_ca, int ca)
{
    size_t len = 0;
    char *text;
    bool other;

    if (!has_ca || j->ca == NULL)
        return has_ca != (j->ca != NULL);
    text = ca == -1 ? NULL : read_all(ca, JOIN_CA_MAX, &len);
    other = text != NULL && (len != j->ca_len || memcmp(text, j->ca, len) != 0);
    free(text);
    return other;
}

struct tls_trust *
join_trust(const struct join *j)
{
    return j->trust;
}

static void
set_endpoints(struct join *j, const char *list)
{
    size_t len;

    for (j->nendpoints = 0; *list != '\0'; list += len + (list[len] == ' ')) {
        len = strcspn(list, " ");
        if (j->nendpoints < TN_NODE_ENDPOINTS_MAX &&
            tn_endpoint_parse(&j->endpoints[j->nendpoints], list, len) == 0)
            j->nendpoints++;
    }
}

static void
set_options(struct join *j, const struct tn_node *node)
{
    j->ephemeral = node->ephemeral;
    snprintf(j->hostname, sizeof(j->hostname), "%s", tn_node_hostname(node));
    set_endpoints(j, node->endpoints);
}

const struct tn_endpoint *
join_endpoints(const struct join *j, size_t *n)
{
    *n = j->nendpoints;
    return j->endpoints;
}

static int
read_options(int fd, struct tn_node *node, char err[TN_ERR_MAX])
{
    unsigned line;
    size_t len = 0;
    char *text = read_all(fd, TN_TABLE_MAX, &len);
    int n = text == NULL ? -1
                         : tn_node_parse(text, len, "", node, 1, err, &line);

    if (text == NULL)
        snprintf(err, TN_ERR_MAX, "its options: %s", strerror(errno));
    free(text);
    return n == 1 ? 0 : -1;
}

static struct control *
make_control(struct join *j, const struct tn_node *node, int keys, int netmap,
    char err[CONTROL_WORDS_MAX])
{
    struct control_config c = {
        .node = node, .trust = j->trust, .timing = *engine_control_timing()};
    char *saved = NULL, *map = NULL;

    if (keys != -1) {
        saved = read_all(keys, CONTROL_STATE_MAX, &c.keys_len);
        if (saved == NULL) {
            snprintf(err, CONTROL_WORDS_MAX,
                "its saved keys cannot be read: %s", strerror(errno));
            return NULL;
        }
        c.keys = saved;
    }
    if (netmap != -1)
        c.netmap = map = read_all(netmap, SAVED_MAX, &c.netmap_len);
    j->control = control_new(&c, &ops, j, err);
    forget(saved, c.keys_len);
    free(map);
    return j->control;
}

struct join *
join_new(struct node *n, int options, int keys, int netmap, bool has_ca, int ca)
{
    struct join *j = calloc(1, sizeof(*j));
    char err[CONTROL_WORDS_MAX] = "out of memory";
    struct tn_node node;

    _Static_assert(
        CONTROL_WORDS_MAX >= TLS_ERROR_MAX && CONTROL_WORDS_MAX >= TN_ERR_MAX,
        "one buffer for all sentences");
    if (j == NULL)
        goto failed;
    j->node = n;
    j->key_fd = -1;
    j->told = CONTROL_CONNECTING;
    snprintf(j->name, sizeof(j->name), "%s", n->name);
    j->timer = loop_timer_new(due, j);
    if (j->timer == NULL || read_options(options, &node, err) != 0 ||
        make_trust(j, has_ca, ca, err) != 0 ||
        make_control(j, &node, keys, netmap, err) == NULL)
        goto failed;
    set_options(j, &node);
    node_set_words(n, "joining its tailnet");
    return j;
failed:
    node_set_error(n, err);
    join_free(j);
    return NULL;
}

bool
join_set(struct join *j, int options)
{
    char err[TN_ERR_MAX];
    struct tn_node node;

    if (read_options(options, &node, err) != 0) {
        node_set_error(j->node, err);
        return true;
    }
    set_options(j, &node);
    if (j->node->magic != NULL)
        magic_explicit(j->node->magic, j->endpoints, j->nendpoints);
    return control_set_node(j->control, &node);
}

void
join_free(struct join *j)
{
    if (j == NULL)
        return;
    if (j->timer != NULL) {
        if (j->node == NULL)
            leaving--;
        close_key(j);
    }
    control_free(j->control);
    tls_trust_free(j->trust);
    free(j->ca);
    loop_timer_free(j->timer);
    free(j);
}

void
join_leave(struct join *j)
{
    if (j == NULL)
        return;
    if (!j->ephemeral || control_status(j->control).state == CONTROL_STOPPED) {
        join_free(j);
        return;
    }
    close_key(j);
    j->node = NULL;
    leaving++;
    loop_timer_set(j->timer, loop_now() + JOIN_LEAVE_MS);
    control_logout(j->control);
}

unsigned
join_leaving(void)
{
    return leaving;
}

void
join_do(struct join *j, enum ipc_query what)
{
    if (what == IPC_QUERY_LOGIN)
        control_login(j->control);
    else if (what == IPC_QUERY_LOGOUT)
        control_logout(j->control);
    else if (what == IPC_QUERY_ROTATE)
        control_rotate(j->control);
}

struct control *
join_control(struct join *j)
{
    return j->control;
}

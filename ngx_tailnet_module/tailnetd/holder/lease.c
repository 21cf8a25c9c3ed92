#include "lease.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../log.h"
#include "authkey.h"
#include "child.h"
#include "drain.h"
#include "netconf.h"
#include "sock.h"
#include "state.h"
#include "store.h"
#include "tun.h"

static struct lease leases[LEASE_MAX];
static uint64_t serials;
static int64_t settle = -1; /* when changed files are looked at */
static int64_t look;        /* ... anyway */
static int64_t drained;     /* when retired nodes are looked at; 0: now */

struct lease *
lease_find(const char *name)
{
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++) {
        if (leases[i].name[0] != '\0' && strcmp(leases[i].name, name) == 0)
            return &leases[i];
    }
    return NULL;
}

struct lease *
lease_at(unsigned i)
{
    return leases[i].name[0] != '\0' ? &leases[i] : NULL;
}

unsigned
lease_index(const struct lease *n)
{
    return (unsigned)(n - leases);
}

static struct lease *
add(const char *name, char err[TN_ERR_MAX])
{
    struct lease *n;
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++) {
        n = &leases[i];
        if (n->name[0] != '\0')
            continue;
        memset(n, 0, sizeof(*n));
        snprintf(n->name, sizeof(n->name), "%s", name);
        n->serial = ++serials;
        n->ns = NETNS_NONE;
        n->watch = -1;
        n->secret = n->snapshot = n->before = -1;
        for (int k = 0; k < IPC_SAVES; k++)
            n->saved[k] = -1;
        return n;
    }
    snprintf(err, TN_ERR_MAX,
        "node %s: more than %d nodes, with those that old workers still use",
        name, LEASE_MAX);
    return NULL;
}

/* mesh0 lives as long as its descriptor in the store. */
static int
keep_tun(struct lease *n, int fd)
{
    char name[IPC_NAME_MAX + 1];

    snprintf(name, sizeof(name), "tun/%s", n->name);
    return store_put(name, &fd, 1);
}

struct lease *
lease_make(const struct tn_node *conf, char err[TN_ERR_MAX])
{
    struct tun_spec spec = {conf->name, conf->mtu};
    struct lease *n = lease_find(conf->name);
    struct netns_answer a;

    if (n != NULL)
        return n;
    n = add(conf->name, err);
    if (n == NULL)
        return NULL;
    if (netns_make(&n->ns, tun_make, &spec, &a) == -1) {
        snprintf(err, TN_ERR_MAX, "node %s: %.400s", conf->name, a.text);
        n->name[0] = '\0';
        return NULL;
    }
    if (keep_tun(n, a.fds[0]) == -1) {
        snprintf(err, TN_ERR_MAX, "node %s: more than %d descriptors kept",
            conf->name, STORE_MAX);
        lease_drop(n);
        return NULL;
    }
    n->mtu = conf->mtu;
    return n;
}

struct lease *
lease_adopt(
    const char *name, struct netns *ns, uint64_t adopter, char err[TN_ERR_MAX])
{
    struct lease *n = add(name, err);

    if (n == NULL) {
        netns_close(ns);
        return NULL;
    }
    n->ns = *ns;
    n->adopter = adopter;
    *ns = NETNS_NONE;
    return n;
}

void
lease_drop(struct lease *n)
{
    struct ipc_msg m = {.type = IPC_GONE};

    memcpy(m.node, n->name, sizeof(n->name));
    if (n->told)
        child_send(&m, NULL, 0);
    sock_drop_node(n->name);
    store_drop_node(n->name);
    keysrc_unwatch(n->watch);
    if (n->before != -1)
        close(n->before);
    if (n->snapshot != -1)
        close(n->snapshot);
    if (n->secret != -1)
        close(n->secret);
    for (int k = 0; k < IPC_SAVES; k++)
        if (n->saved[k] != -1)
            close(n->saved[k]);
    netns_close(&n->ns);
    memset(n, 0, sizeof(*n));
}

/* ---- the end of a node ---- */

static void
give_up(struct lease *n)
{
    log_notice("node %s: nobody uses it any more", n->name);
    lease_drop(n);
}

void
lease_retire(struct lease *n)
{
    if (n->retired)
        return;
    if (!drain_pending(&n->ns)) {
        give_up(n);
        return;
    }
    log_info("node %s: nobody uses it any more, it ends when the last data is "
             "delivered",
        n->name);
    n->retired = true;
    n->retire_at = 0;
    drained = 0;
}

bool
lease_pending(void)
{
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++) {
        if (lease_at(i) != NULL && drain_pending(&leases[i].ns))
            return true;
    }
    return false;
}

void
lease_drain(int64_t now)
{
    struct lease *n;
    unsigned i;

    if (now < drained)
        return;
    drained = now + DRAIN_EVERY_MS;
    for (i = 0; i < LEASE_MAX; i++) {
        n = lease_at(i);
        if (n == NULL || !n->retired)
            continue;
        if (n->retire_at == 0)
            n->retire_at = now + DRAIN_NODE_MS;
        if (now >= n->retire_at || !drain_pending(&n->ns))
            give_up(n);
    }
}

int64_t
lease_drain_deadline(void)
{
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++) {
        if (lease_at(i) != NULL && leases[i].retired)
            return drained;
    }
    return -1;
}

/* ---- to the engine ---- */

/* The node's TUN; an adopted namespace may be without. */
static int
need_tun(struct lease *n)
{
    struct tun_spec spec = {n->name, n->conf.mtu};
    struct netns_answer a;
    int fd = store_fd("tun", n->name);

    if (fd != -1 && n->mtu != spec.mtu) {
        if (netns_run(&n->ns, tun_set_mtu, &spec, &a) == -1)
            log_err("node %s: %s", n->name, a.text);
        n->mtu = spec.mtu;
    }
    if (fd != -1)
        return fd;
    if (netns_run(&n->ns, tun_make, &spec, &a) == -1) {
        log_err("node %s: %s", n->name, a.text);
        return -1;
    }
    if (keep_tun(n, a.fds[0]) == -1) {
        log_err("node %s: more than %d descriptors kept", n->name, STORE_MAX);
        return -1;
    }
    n->mtu = n->conf.mtu;
    return a.fds[0];
}

/* The engine says it in the log and keeps it for the status. */
static void
send_nofile(const struct lease *n, const char *why)
{
    struct ipc_msg m = {.type = IPC_NOFILE};

    memcpy(m.node, n->name, sizeof(n->name));
    snprintf(m.text, sizeof(m.text), "%s", why);
    child_send(&m, NULL, 0);
}

static int
open_key(struct lease *n, char err[TN_ERR_MAX])
{
    memset(&n->key, 0, sizeof(n->key));
    if (keysrc_relock(n->conf.private_key, err) == -1)
        return -1;
    return keysrc_open(n->conf.private_key, KEYSRC_SECRET, &n->key, err);
}

/* Opens the node's files behind ${fds}[0] and names them in ${kind}.  Returns
 * how many there are; ${why} says what is missing. */
static size_t
open_files(struct lease *n, int fds[5], uint16_t *kind, char why[TN_ERR_MAX])
{
    size_t used = 1;
    int fd;

    why[0] = n->key_bad[0] = n->psk_bad[0] = '\0';
    fd = keysrc_open(n->conf.netmap, KEYSRC_NETMAP, &n->netmap, n->bad);
    if (fd == -1)
        memcpy(why, n->bad, TN_ERR_MAX);
    else
        n->bad[0] = '\0';
    /* In the order of enum ipc_node_fds: the netmap is last. */
    fds[3] = fd;
    memset(&n->psk, 0, sizeof(n->psk));
    fd = open_key(n, n->key_bad);
    n->keyed = fd != -1 || (n->told && n->keyed);
    if (fd != -1) {
        fds[used++] = fd;
        *kind |= IPC_NODE_KEY;
    } else {
        memcpy(why, n->key_bad, TN_ERR_MAX);
    }
    if (n->conf.preshared_keys[0] != '\0') {
        fd = keysrc_open(
            n->conf.preshared_keys, KEYSRC_SECRET, &n->psk, n->psk_bad);
        if (fd != -1) {
            fds[used++] = fd;
            *kind |= IPC_NODE_PSK;
        } else if (why[0] == '\0') {
            memcpy(why, n->psk_bad, TN_ERR_MAX);
        }
    }
    if (fds[3] != -1) {
        fds[used++] = fds[3];
        *kind |= IPC_NODE_NETMAP;
    }
    return used;
}

/* The node's block, as text in a memory file; -1: no memory. */
static int
write_options(const struct lease *n)
{
    static char text[TN_TABLE_MAX];
    size_t len = tn_node_write(&n->conf, 1, text, sizeof(text));
    int fd = memfd_create("tailnet-node", MFD_CLOEXEC);

    if (fd != -1 && (len == 0 || write(fd, text, len) != (ssize_t)len)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* The same for a node that joins: its options, and what it saved. */
static size_t
open_saved(struct lease *n, int fds[5], uint16_t *kind, char why[TN_ERR_MAX])
{
    static const uint16_t bits[IPC_SAVES] = {
        IPC_NODE_SAVED_KEYS, IPC_NODE_SAVED_NETMAP};
    char err[TN_ERR_MAX] = "";
    size_t used = 1;
    int k, fd;

    why[0] = n->ca_bad[0] = '\0';
    for (k = 0; k < IPC_SAVES; k++) {
        if (n->conf.state[0] != '\0')
            fd = state_open(n->conf.state, k, err);
        else
            fd = n->saved[k] == -1 ? -1
                                   : fcntl(n->saved[k], F_DUPFD_CLOEXEC, 0);
        /* Never a new key because the old one could not be read. */
        if (fd == -1 && err[0] != '\0')
            goto failed;
        if (fd == -1)
            continue;
        *kind |= bits[k];
        fds[1 + used++] = fd; /* behind the options */
    }
    fds[1] = write_options(n);
    if (fds[1] != -1) {
        *kind |= IPC_NODE_OPTIONS;
        used++;
        memset(&n->ca, 0, sizeof(n->ca));
        if (n->conf.control_ca[0] == '\0')
            return used;
        fds[used] = keysrc_open(
            n->conf.control_ca, KEYSRC_NETMAP, &n->ca, n->ca_bad);
        if (fds[used] != -1) {
            *kind |= IPC_NODE_CA;
            used++;
        } else {
            memcpy(why, n->ca_bad, TN_ERR_MAX);
        }
        return used;
    }
    snprintf(err, sizeof(err), "no memory for its options");
failed:
    memcpy(why, err, TN_ERR_MAX);
    for (; used > 1; used--)
        close(fds[used]);
    *kind = 0;
    return 1;
}

static void
tell(struct lease *n)
{
    struct ipc_msg m = {.type = IPC_NODE};
    char why[TN_ERR_MAX];
    int fds[5];
    size_t i, nfds;
    bool joins = tn_node_joins(&n->conf);

    if (!child_running())
        return;
    fds[0] = need_tun(n);
    if (fds[0] == -1)
        return;
    memcpy(m.node, n->name, sizeof(n->name));
    m.port = n->conf.port;
    m.mtu = n->conf.mtu;
    m.has_psks = n->conf.preshared_keys[0] != '\0';
    m.has_ca = n->conf.control_ca[0] != '\0';
    nfds = (joins ? open_saved : open_files)(n, fds, &m.kind, why);
    n->again = 0;
    n->told = child_send(&m, fds, nfds);
    for (i = 1; i < nfds; i++)
        close(fds[i]);
    if (why[0] != '\0')
        send_nofile(n, why);
    if (!joins)
        n->watch = keysrc_watch(n->conf.netmap, n->watch);
    n->relisten = true;
    memset(&n->listeners, 0, sizeof(n->listeners));
}

static bool
same_conf(const struct tn_node *a, const struct tn_node *b)
{
    return strcmp(a->netmap, b->netmap) == 0 &&
           strcmp(a->private_key, b->private_key) == 0 &&
           strcmp(a->preshared_keys, b->preshared_keys) == 0 &&
           strcmp(a->control_url, b->control_url) == 0 &&
           strcmp(a->auth_key, b->auth_key) == 0 &&
           strcmp(a->state, b->state) == 0 &&
           strcmp(a->hostname, b->hostname) == 0 &&
           strcmp(a->tags, b->tags) == 0 && strcmp(a->routes, b->routes) == 0 &&
           strcmp(a->exit_node, b->exit_node) == 0 &&
           strcmp(a->control_ca, b->control_ca) == 0 &&
           strcmp(a->endpoints, b->endpoints) == 0 &&
           a->ephemeral == b->ephemeral &&
           a->accept_routes == b->accept_routes &&
           a->capability == b->capability && a->port == b->port &&
           a->mtu == b->mtu;
}

/* Has one of the key files another content than the engine got? */
static bool
keys_changed(const struct lease *n)
{
    struct keysrc_id id;

    if (tn_node_joins(&n->conf)) {
        if (n->conf.control_ca[0] == '\0')
            return false;
        keysrc_id(n->conf.control_ca, &id);
        return !keysrc_same(&id, &n->ca);
    }
    keysrc_id(n->conf.private_key, &id);
    if (!keysrc_same(&id, &n->key))
        return true;
    if (n->conf.preshared_keys[0] == '\0')
        return false;
    keysrc_id(n->conf.preshared_keys, &id);
    return !keysrc_same(&id, &n->psk);
}

/* The netmap's file alone: NETMAP or NOFILE when it is news. */
static void
check_netmap(struct lease *n)
{
    struct ipc_msg m = {.type = IPC_NETMAP};
    char why[TN_ERR_MAX];
    struct keysrc_id id;
    int fd;

    if (tn_node_joins(&n->conf))
        return;
    n->watch = keysrc_watch(n->conf.netmap, n->watch);
    keysrc_id(n->conf.netmap, &id);
    if (n->bad[0] == '\0' && keysrc_same(&id, &n->netmap))
        return;
    fd = keysrc_open(n->conf.netmap, KEYSRC_NETMAP, &n->netmap, why);
    if (fd == -1) {
        if (strcmp(why, n->bad) != 0)
            send_nofile(n, why);
        memcpy(n->bad, why, sizeof(n->bad));
        return;
    }
    n->bad[0] = '\0';
    memcpy(m.node, n->name, sizeof(n->name));
    child_send(&m, &fd, 1);
    close(fd);
    /* Of a node that runs with an older key the status has to go on. */
    if (n->keyed && n->key_bad[0] != '\0')
        send_nofile(n, n->key_bad);
}

/* The master of an upgraded binary has of the environment only what nginx's
 * "env" directives let through. */
static void
take_secret(struct lease *n, const struct tn_node *conf, int secret)
{
    if (secret == -1 && strcmp(n->conf.auth_key, conf->auth_key) == 0)
        return;
    if (n->secret != -1)
        close(n->secret);
    n->secret = secret == -1 ? -1 : fcntl(secret, F_DUPFD_CLOEXEC, 0);
    if (secret != -1 && n->secret == -1)
        log_err("node %s: auth_key %s of nginx is not kept: %s", n->name,
            conf->auth_key, strerror(errno));
}

void
lease_rule(struct lease *n, const struct tn_node *conf, int secret)
{
    bool same = n->ruled && same_conf(&n->conf, conf);

    take_secret(n, conf, secret);
    n->conf = *conf;
    n->ruled = true;
    n->adopter = 0;
    if (!n->told || !same || keys_changed(n))
        tell(n);
    else
        check_netmap(n);
}

void
lease_tell_all(bool again)
{
    unsigned i;

    if (again)
        lease_untell_all();
    for (i = 0; i < LEASE_MAX; i++) {
        if (lease_at(i) != NULL && leases[i].ruled && !leases[i].told)
            tell(&leases[i]);
    }
}

void
lease_purge(void)
{
    struct ipc_msg m = {.type = IPC_GONE};
    const struct store_entry *e;
    size_t i = 0;

    while ((e = store_at(i)) != NULL) {
        i++;
        if (strncmp(e->name, "tun/", 4) != 0 || lease_find(e->name + 4) != NULL)
            continue;
        snprintf(m.node, sizeof(m.node), "%s", e->name + 4);
        child_send(&m, NULL, 0);
        store_drop_node(m.node);
        i = 0;
    }
}

void
lease_untell_all(void)
{
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++)
        leases[i].told = false;
}

void
lease_flush(void)
{
    struct ipc_msg m;
    struct lease *n;
    unsigned i;

    for (i = 0; i < LEASE_MAX; i++) {
        n = lease_at(i);
        if (n == NULL || !n->relisten || !n->told)
            continue;
        n->relisten = false;
        memset(&m, 0, sizeof(m));
        m.type = IPC_LISTENERS;
        memcpy(m.node, n->name, sizeof(n->name));
        sock_listeners(n->name, &m);
        if (memcmp(&m, &n->listeners, sizeof(m)) != 0)
            child_send(&m, NULL, 0);
        n->listeners = m;
    }
}

/* ---- from the engine ---- */

void
lease_snapshot(struct lease *n, int fd, uint64_t generation)
{
    /*
     * Whoever lets go of a file last spends the time that it takes the kernel
     * to free it: we, when no worker has it any more.
     */
    if (n->before != -1)
        close(n->before);
    n->before = n->snapshot;
    n->snapshot = fd;
    n->generation = generation;
}

void
lease_save(struct lease *n, enum ipc_save kind, int fd)
{
    char err[TN_ERR_MAX];

    if (!n->ruled || !tn_node_joins(&n->conf)) {
        close(fd);
        return;
    }
    if (n->conf.state[0] != '\0') {
        if (state_save(n->conf.state, kind, fd, err) == -1)
            log_err("node %s: %s: after a restart it may have to join anew",
                n->name, err);
        close(fd);
        return;
    }
    if (n->saved[kind] != -1)
        close(n->saved[kind]);
    n->saved[kind] = fd;
}

void
lease_unmade(struct lease *n, int64_t now)
{
    n->told = false;
    n->again = now + LEASE_AGAIN_MS;
}

void
lease_want_key(const struct lease *n)
{
    struct ipc_msg m = {.type = IPC_AUTHKEY};
    int fd = -1;

    memcpy(m.node, n->name, sizeof(n->name));
    if (n->ruled)
        fd = authkey_open(n->conf.auth_key, n->secret, m.text);
    else
        snprintf(m.text, sizeof(m.text), "its options are not known yet");
    child_send(&m, &fd, fd == -1 ? 0 : 1);
    if (fd != -1)
        close(fd);
}

void
lease_netconf(const struct ipc_msg *m)
{
    struct lease *n = lease_find(m->node);
    struct netns_answer a;
    struct netconf c = {.node = m->node};

    if (n == NULL || n->ns.net == -1)
        return;
    for (; c.naddrs < m->naddrs; c.naddrs++)
        c.addrs[c.naddrs] = m->addrs[c.naddrs].addr;
    if (netns_run(&n->ns, netconf_apply, &c, &a) == -1)
        log_err("node %s: %s", n->name, a.text);
}

/* ---- loop ---- */

void
lease_stir(int64_t now)
{
    keysrc_drain();
    if (settle == -1)
        settle = now + KEYSRC_SETTLE_MS;
}

int64_t
lease_deadline(void)
{
    return settle != -1 && settle < look ? settle : look;
}

/* Can the file at ${path} be used, which could not be for the reason ${bad}, or
 * is there another reason now?  tell() says the rest. */
static bool
other(const char *path, const char *bad)
{
    char why[TN_ERR_MAX];
    struct keysrc_id id;
    int fd;

    if (bad[0] == '\0')
        return false;
    fd = keysrc_open(path, KEYSRC_NETMAP, &id, why); /* without a warning */
    if (fd == -1)
        return strcmp(why, bad) != 0;
    close(fd);
    return true;
}

/* The same of a private key, which is locked first. */
static bool
other_key(const char *path, const char *bad)
{
    char why[TN_ERR_MAX];

    if (bad[0] != '\0' && keysrc_relock(path, why) == -1)
        return strcmp(why, bad) != 0;
    return other(path, bad);
}

/* Is it news with what a node has to wait for? */
static bool
key_came(const struct lease *n)
{
    if (tn_node_joins(&n->conf))
        return other(n->conf.control_ca, n->ca_bad);
    return other_key(n->conf.private_key, n->key_bad) ||
           other(n->conf.preshared_keys, n->psk_bad);
}

void
lease_tick(int64_t now)
{
    bool retry = false;
    struct lease *n;
    unsigned i;

    if (now < lease_deadline())
        return;
    settle = -1;
    for (i = 0; i < LEASE_MAX; i++) {
        n = lease_at(i);
        if (n == NULL || !n->ruled || !child_running())
            continue;
        if (!n->told && now < n->again)
            continue;
        if (!n->told || key_came(n))
            tell(n);
        else
            check_netmap(n);
        retry |= !n->told;
    }
    look = now + (retry ? LEASE_RETRY_MS : KEYSRC_POLL_MS);
}

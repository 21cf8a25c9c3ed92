/*
 * whois [PEERS [ROUNDS]]: nanoseconds of CPU that a worker needs to find the
 * peer of an address.
 *
 * A snapshot of PEERS peers with an IPv4 and an IPv6 address each, a tenth of
 * them tagged, of 1,000 users; in a sealed memory file, mapped as a worker maps
 * it.  Each round asks for all addresses in a random order, then for as many
 * that nobody has, and each result is checked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../ngx_tailnet_module/core/tn_snap_read.h"
#include "../ngx_tailnet_module/tailnetd/engine/publish.h"

#define USERS      1000
#define MAX_ROUNDS 10000

static char *tags[] = {(char[]){"tag:a"}, (char[]){"tag:b"}};

static void
die(const char *what)
{
    fprintf(stderr, "whois: %s\n", what);
    exit(1);
}

static void *
some(size_t n, size_t each)
{
    void *p = calloc(n, each);

    if (p == NULL) {
        die("out of memory");
    }
    return p;
}

static uint64_t
nanoseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Address ${n}: of peer ${n} / 2, odd ones IPv6. */
static struct tn_addr
address(uint32_t n)
{
    uint32_t host = n / 2 + 1;
    uint8_t b4[4] = {
        100, (uint8_t)(64 + (host >> 16)), (uint8_t)(host >> 8), (uint8_t)host};
    uint8_t b6[16] = {0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0};

    memcpy(b6 + 12, b4, sizeof b4);
    return n % 2 == 1 ? tn_addr_from6(b6) : tn_addr_from4(b4);
}

/* Ours for the life of the process. */
static void
make_peer(struct netmap_node *p, uint32_t i)
{
    char *text = some(64, 1);

    snprintf(text, 32, "host-%u.our.ts.net", i);
    snprintf(text + 32, 32, "n%uCNTRL", i);
    p->id = i + 1;
    p->name = text;
    p->stable_id = text + 32;
    p->user = 1 + i % USERS;
    p->online = true;
    p->addresses = some(2, sizeof p->addresses[0]);
    p->naddresses = 2;
    for (unsigned j = 0; j < 2; j++) {
        p->addresses[j].addr = address(2 * i + j);
        p->addresses[j].bits = 128;
    }
    if (i % 10 == 0) {
        p->tags = tags;
        p->ntags = 2;
    }
}

static void
make_snapshot(struct tn_snap *s, uint32_t npeers)
{
    char domain[] = "example.com", name[] = "web.our.ts.net", none[] = "";
    struct netmap nm = {.domain = domain, .npeers = npeers, .nusers = USERS};
    struct publish_opts opts = {.generation = 1, .now = 1};
    char err[TN_ERR_MAX];
    void *bytes, *map;
    size_t size, at = 0;
    int fd;

    nm.self.name = name;
    nm.self.stable_id = none;
    nm.peers = some(npeers, sizeof nm.peers[0]);
    nm.users = some(USERS, sizeof nm.users[0]);
    for (uint32_t i = 0; i < USERS; i++) {
        char *login = some(32, 1);

        snprintf(login, 32, "user%u@example.com", i);
        nm.users[i] = (struct netmap_user){
            .id = i + 1, .login = login, .name = login, .pic = none};
    }
    for (uint32_t i = 0; i < npeers; i++) {
        make_peer(&nm.peers[i], i);
    }
    if (publish_build(&nm, &opts, &bytes, &size, err) != 0) {
        die(err);
    }
    fd = publish_memfd();
    if (fd == -1 || publish_write(fd, bytes, &at, size) != 0 ||
        publish_seal(fd) != 0) {
        die("no memory file");
    }
    map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED || tn_snap_open(s, map, size) != NULL) {
        die("no snapshot");
    }
    free(bytes);
}

static void
shuffle(uint32_t *list, uint32_t n)
{
    uint64_t seed = 20261121;

    for (uint32_t i = 0; i < n; i++) {
        list[i] = i;
    }
    for (uint32_t i = n - 1; i > 0; i--) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint32_t j = (uint32_t)((seed >> 33) % (i + 1)), was = list[i];

        list[i] = list[j];
        list[j] = was;
    }
}

/* Nanoseconds per question; ${known} says whether somebody has the ${n}. */
static double
ask(const struct tn_snap *s, const struct tn_addr *addrs, const uint32_t *order,
    uint32_t n, bool known)
{
    uint64_t start = nanoseconds();
    struct tn_peer peer;

    for (uint32_t i = 0; i < n; i++) {
        int rc = tn_snap_whois(s, &addrs[i], &peer, NULL);

        if (known ? rc != 0 || peer.id != order[i] / 2 + 1 : rc == 0) {
            die("not the peer of the address");
        }
    }
    return (double)(nanoseconds() - start) / n;
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void
report(const char *what, uint32_t npeers, double *ns, uint32_t rounds)
{
    qsort(ns, rounds, sizeof ns[0], compare);
    printf("%7u peers, %s: %.1f ns (%.1f–%.1f)\n", npeers, what, ns[rounds / 2],
        ns[0], ns[rounds - 1]);
}

static void
run(uint32_t npeers, uint32_t rounds)
{
    uint32_t n = 2 * npeers, *order = some(n, sizeof order[0]);
    struct tn_addr *here = some(n, sizeof here[0]),
                   *away = some(n, sizeof away[0]);
    double *found = some(rounds, sizeof found[0]),
           *missed = some(rounds, sizeof missed[0]);
    struct tn_snap s;

    make_snapshot(&s, npeers);
    shuffle(order, n);
    for (uint32_t i = 0; i < n; i++) {
        here[i] = address(order[i]);
        away[i] = address(n + order[i]);
    }
    for (uint32_t i = 0; i < rounds; i++) {
        found[i] = ask(&s, here, order, n, true);
        missed[i] = ask(&s, away, order, n, false);
    }
    report("a peer", npeers, found, rounds);
    report("nobody", npeers, missed, rounds);
}

static uint32_t
number(const char *text, uint32_t most)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (end == text || *end != '\0' || v == 0 || v > most) {
        die("usage: whois [PEERS [ROUNDS]]");
    }
    return (uint32_t)v;
}

int
main(int argc, char **argv)
{
    uint32_t npeers = argc > 1 ? number(argv[1], NETMAP_MAX_PEERS) : 100000;
    uint32_t rounds = argc > 2 ? number(argv[2], MAX_ROUNDS) : 50;

    run(npeers, rounds);
    return 0;
}

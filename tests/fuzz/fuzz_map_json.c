/* links: core/tn_addr.c core/tn_snap_read.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* links: tailnetd/engine/filter.c tailnetd/engine/filter_flow.c */
/* links: tailnetd/engine/filter_packet.c tailnetd/engine/filter_rules.c */
/* links: tailnetd/engine/grants.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/publish.c */
/* links: tailnetd/engine/publish_edit.c tailnetd/engine/record.c */
/* links: tailnetd/engine/span.c */
/* libs: -ljansson */
/* max_len: 8192 */
/*
 * A netmap of any bytes.  What is accepted goes the whole way: a packet filter
 * is compiled of it, grants are asked for, and its snapshot is read back.
 */
#include "../../ngx_tailnet_module/core/tn_snap_read.h"
#include "../../ngx_tailnet_module/tailnetd/control/map_json.h"
#include "../../ngx_tailnet_module/tailnetd/engine/filter.h"
#include "../../ngx_tailnet_module/tailnetd/engine/grants.h"
#include "../../ngx_tailnet_module/tailnetd/engine/publish.h"
#include "fuzz.h"

#define NOW 1800000000

static void
check_node(const struct netmap_node *n)
{
    unsigned i;

    FUZZ_MUST(n->naddresses <= NETMAP_MAX_ADDRS);
    FUZZ_MUST(n->nallowed_ips <= NETMAP_MAX_ADDRS);
    FUZZ_MUST(n->nendpoints <= NETMAP_MAX_ADDRS);
    FUZZ_MUST(n->ntags <= NETMAP_MAX_TAGS && n->ncaps <= NETMAP_MAX_CAPS);
    FUZZ_MUST(strlen(n->name) <= NETMAP_MAX_STRING);
    FUZZ_MUST(strlen(n->stable_id) <= NETMAP_MAX_STRING);
    for (i = 0; i < n->naddresses; i++)
        FUZZ_MUST(tn_prefix_contains(&n->addresses[i], &n->addresses[i].addr));
    for (i = 0; i < n->nendpoints; i++)
        FUZZ_MUST(n->endpoints[i].port != 0);
    for (i = 1; i < n->ntags; i++)
        FUZZ_MUST(strcmp(n->tags[i - 1], n->tags[i]) < 0);
    for (i = 1; i < n->ncaps; i++)
        FUZZ_MUST(strcmp(n->caps[i - 1], n->caps[i]) < 0);
}

/* A SYN to port 80 of the node from ${src}, whatever becomes of it. */
static void
try_filter(const struct netmap *nm, const struct tn_addr *src)
{
    struct filter *f = filter_new(nm, NULL);
    uint8_t p[60] = {0};

    FUZZ_MUST(f != NULL);
    if (tn_addr_is4(src)) {
        p[0] = 0x45;
        p[3] = 40;
        p[9] = 6;
        memcpy(p + 12, src->b + 12, 4);
        memcpy(p + 16, nm->self.addresses[0].addr.b + 12, 4);
        p[23] = 80;
        p[33] = 2;
        filter_in(f, p, 40, false);
    } else {
        p[0] = 0x60;
        p[5] = 20;
        p[6] = 6;
        memcpy(p + 8, src, 16);
        memcpy(p + 24, &nm->self.addresses[0].addr, 16);
        p[43] = 80;
        p[53] = 2;
        filter_in(f, p, 60, false);
    }
    filter_free(f);
}

struct asked {
    struct grants *g;
    const struct netmap *nm;
    char *json;
};

static const char *
caps_of(void *arg, const struct netmap_node *peer)
{
    struct asked *a = arg;

    free(a->json);
    a->json = NULL;
    if (a->nm->self.naddresses == 0 || peer->naddresses == 0)
        return "";
    FUZZ_MUST(grants_query(a->g, &peer->addresses[0].addr,
                  &a->nm->self.addresses[0].addr, &a->json) == 0);
    FUZZ_MUST(a->json[0] == '{');
    return a->json;
}

static void
publish(const struct netmap *nm)
{
    struct asked a = {.g = grants_new(nm), .nm = nm};
    struct publish_opts o = {
        .generation = 1, .now = NOW, .caps = caps_of, .arg = &a};
    char err[TN_ERR_MAX];
    uint32_t cursor = 0, n = 0;
    struct tn_snap s;
    struct tn_peer p;
    void *bytes;
    size_t size;
    bool bad = false;

    FUZZ_MUST(a.g != NULL);
    if (publish_build(nm, &o, &bytes, &size, err) == 0) {
        FUZZ_MUST(tn_snap_open(&s, bytes, size) == NULL);
        FUZZ_MUST(tn_snap_self(&s, &p, &bad) == 0 && !bad);
        while (tn_snap_next(&s, &cursor, &p) == 0)
            n++;
        FUZZ_MUST(n <= nm->npeers + 1);
        free(bytes);
    } else {
        FUZZ_MUST(memchr(err, '\0', sizeof(err)) != NULL && err[0] != '\0');
    }
    free(a.json);
    grants_free(a.g);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct map_json_error err;
    char *text = fuzz_copy(data, size);
    struct netmap *nm = map_json_parse(text, size, &err);
    unsigned i;

    free(text); /* a netmap owns its memory */
    if (nm == NULL) {
        FUZZ_MUST(memchr(err.text, '\0', sizeof(err.text)) != NULL);
        FUZZ_MUST(err.text[0] != '\0');
        return 0;
    }
    check_node(&nm->self);
    for (i = 0; i < nm->npeers; i++) {
        check_node(&nm->peers[i]);
        FUZZ_MUST(nm->peers[i].naddresses > 0 && nm->peers[i].has_key);
        if (nm->self.naddresses > 0)
            try_filter(nm, &nm->peers[i].addresses[0].addr);
    }
    publish(nm);
    netmap_free(nm);
    return 0;
}

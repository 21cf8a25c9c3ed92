/* links: core/tn_addr.c core/tn_snap_read.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* links: tailnetd/engine/keytext.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/publish.c tailnetd/engine/span.c */
/* links: tailnetd/engine/publish_edit.c tailnetd/engine/record.c */
/* libs: -ljansson */
/* max_len: 4096 */
/*
 * A snapshot of any bytes: a good one with changes (the first byte of the input
 * is even: then offset, operation, value...), or the input itself.  Every
 * accessor survives it and stays inside it.
 */
#include "../../ngx_tailnet_module/core/tn_snap_read.h"
#include "../../ngx_tailnet_module/tailnetd/control/map_json.h"
#include "../../ngx_tailnet_module/tailnetd/engine/publish.h"
#include "fuzz.h"

#define PAD "00000000000000000000000000000000000000000000000000000000000000"

static const char tailnet[] =
    "{\"Domain\":\"example.com\",\"Node\":{\"Name\":\"web.ex.ts.net.\","
    "\"ID\":1,\"User\":1,\"Addresses\":[\"100.64.0.1/32\",\"fd7a::1/128\"]},"
    "\"UserProfiles\":[{\"ID\":1,\"LoginName\":\"a@example.com\",\"DisplayName"
    "\":\"A\",\"ProfilePicURL\":\"https://x/a.png\"}],"
    "\"Peers\":["
    "{\"ID\":2,\"StableID\":\"n2\",\"Name\":\"laptop.ex.ts.net.\",\"User\":1,"
    "\"Key\":\"nodekey:02" PAD "\",\"Addresses\":[\"100.64.0.2/32\","
    "\"fd7a::2/128\"]},"
    "{\"ID\":3,\"Name\":\"gpu.ex.ts.net.\",\"Tags\":[\"tag:gpu\",\"tag:ci\"],"
    "\"Key\":\"nodekey:03" PAD "\",\"Addresses\":[\"100.64.0.3/32\"]},"
    "{\"ID\":4,\"Name\":\"ci.ex.ts.net.\",\"Tags\":[\"tag:ci\"],"
    "\"Key\":\"nodekey:04" PAD "\",\"Addresses\":[\"100.64.0.4/32\"]},"
    "{\"ID\":5,\"Name\":\"gast.their.ts.net.\",\"User\":9,\"Sharer\":9,"
    "\"Key\":\"nodekey:05" PAD "\",\"Addresses\":[\"100.64.0.5/32\"]}]}";

static uint8_t *good;
static size_t good_size;

static const char *
some_caps(void *arg, const struct netmap_node *peer)
{
    (void)arg;
    return peer->id == 2 ? "{\"example.com/cap\":[1]}" : "";
}

static void
make_good(void)
{
    static struct map_json_error err;
    struct publish_opts o = {
        .generation = 9, .now = 1800000000, .caps = some_caps};
    struct netmap *nm = map_json_parse(tailnet, sizeof(tailnet) - 1, &err);
    char text[TN_ERR_MAX];
    void *bytes;

    if (nm == NULL)
        fprintf(stderr, "%s\n", err.text);
    FUZZ_MUST(nm != NULL);
    FUZZ_MUST(publish_build(nm, &o, &bytes, &good_size, text) == 0);
    good = bytes;
    netmap_free(nm);
}

/* ---- every accessor ---- */

static void
touch_peer(const struct tn_snap *s, const struct tn_peer *p)
{
    const struct tn_str all[] = {p->name, p->host, p->stable_id, p->tags,
        p->caps, p->login, p->user_name, p->user_pic};
    size_t i;

    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        FUZZ_MUST(all[i].p != NULL);
        FUZZ_MUST(
            all[i].len == 0 ||
            ((const uint8_t *)all[i].p >= s->base &&
                (const uint8_t *)all[i].p + all[i].len <= s->base + s->size));
        fuzz_touch(all[i].p, all[i].len);
    }
    fuzz_touch(p->key, 32);
    FUZZ_MUST(p->naddrs <= TN_SNAP_MAX_ADDRS);
    fuzz_touch(p->addrs, p->naddrs * sizeof(p->addrs[0]));
    /* A tagged node has no user, whatever the bytes say. */
    if (p->flags & TN_PEER_TAGGED)
        FUZZ_MUST(p->user_id == 0 && p->login.len == 0);
}

static bool
owns(const struct tn_peer *p, const struct tn_addr *a)
{
    unsigned i;

    for (i = 0; i < p->naddrs; i++) {
        if (tn_addr_equal(&p->addrs[i], a))
            return true;
    }
    return false;
}

static void
ask_addr(const struct tn_snap *s, const struct tn_addr *a)
{
    struct tn_peer p;
    bool bad;

    if (tn_snap_whois(s, a, &p, &bad) != 0)
        return;
    touch_peer(s, &p);
    FUZZ_MUST(owns(&p, a)); /* nobody is taken for somebody else */
}

static void
ask_text(const struct tn_snap *s, const char *text, size_t len)
{
    struct tn_snap_tag_iter it;
    struct tn_peer p;
    uint32_t i, n;
    bool bad;

    if (tn_snap_by_name(s, text, len, &p, &bad) == 0)
        touch_peer(s, &p);
    n = tn_snap_tag_count(s, text, len, &it);
    for (i = 0; i <= n && i < 100; i++) {
        if (tn_snap_tag_peer(s, &it, i, &p, &bad) == 0) {
            FUZZ_MUST(i < n);
            touch_peer(s, &p);
        }
    }
}

static void
read_all(const uint8_t *b, size_t size)
{
    static const char *const texts[] = {"web.ex.ts.net", "LAPTOP",
        "gpu.ex.ts.net.", "ci", "gast", "tag:ci", "tag:gpu", "TAG:x", "", "."};
    struct tn_addr a;
    uint32_t cursor = 0, count = 0;
    struct tn_snap s;
    struct tn_peer p;
    bool bad;
    size_t i;

    if (tn_snap_open(&s, b, size) != NULL)
        return;
    fuzz_touch(tn_snap_domain(&s).p, tn_snap_domain(&s).len);
    fuzz_touch(tn_snap_tailnet(&s).p, tn_snap_tailnet(&s).len);
    if (tn_snap_self(&s, &p, &bad) == 0)
        touch_peer(&s, &p);
    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        ask_text(&s, texts[i], strlen(texts[i]));
    for (i = 0; i < 7; i++) {
        a = tn_addr_from4((const uint8_t[]){100, 64, 0, (uint8_t)i});
        ask_addr(&s, &a);
        a = tn_addr_from6((const uint8_t[16]){0xfd, 0x7a, [15] = (uint8_t)i});
        ask_addr(&s, &a);
    }
    while (tn_snap_next(&s, &cursor, &p) == 0) {
        touch_peer(&s, &p);
        FUZZ_MUST(++count <= size);
        for (i = 0; i < p.naddrs; i++)
            ask_addr(&s, &p.addrs[i]);
        ask_text(&s, p.name.p, p.name.len);
    }
}

/* ---- a good one, changed ---- */

static void
change(uint8_t *b, size_t size, struct fuzz_input *in)
{
    size_t at = fuzz_u16(in) % size;
    uint8_t what = fuzz_u8(in);
    uint32_t word;

    if (what & 1) {
        b[at] = what & 2 ? b[at] ^ fuzz_u8(in) : fuzz_u8(in);
        return;
    }
    at &= ~(size_t)3;
    if (at + 4 > size)
        return;
    memcpy(&word, b + at, 4);
    word = what & 2   ? fuzz_u32(in)
           : what & 4 ? word + fuzz_u8(in)
           : what & 8 ? word - fuzz_u8(in)
                      : (uint32_t)(fuzz_u16(in) % size);
    memcpy(b + at, &word, 4);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint32_t said;
    uint8_t *b;
    size_t len;

    if (good == NULL)
        make_good();
    if (fuzz_u8(&in) & 1) {
        b = fuzz_copy(in.p, in.len);
        read_all(b, in.len);
        free(b);
        return 0;
    }
    /* Possibly shorter, with a header that knows. */
    len = fuzz_u16(&in);
    if (len < sizeof(struct tn_snap_head) || len > good_size)
        len = good_size;
    b = fuzz_copy(good, len);
    said = (uint32_t)len;
    memcpy(b + offsetof(struct tn_snap_head, size), &said, sizeof(said));
    while (in.len > 0)
        change(b, len, &in);
    read_all(b, len);
    free(b);
    return 0;
}

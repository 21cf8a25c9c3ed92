/* links: core/tn_acl.c core/tn_addr.c core/tn_node.c */
/* max_len: 512 */
/*
 * A selector of any bytes, and whom it matches.
 */
#include "../../ngx_tailnet_module/core/tn_acl.h"
#include "fuzz.h"

#define STR(s) ((struct tn_str){s, sizeof(s) - 1})

static bool
inside(const struct tn_str *s, const char *text, size_t len)
{
    return s->len == 0 || (s->p >= text && s->p + s->len <= text + len);
}

static void
check_match(const struct tn_selector *sel)
{
    static const uint8_t v4[4] = {100, 64, 0, 2};
    struct tn_peer person = {.key = v4,
        .name = STR("laptop.example.ts.net"),
        .host = STR("laptop"),
        .stable_id = STR("n1"),
        .login = STR("alice@example.com"),
        .user_id = 7,
        .naddrs = 1};
    struct tn_peer server = person, guest = person;
    struct tn_who nobody = {.node = STR("web")};
    struct tn_who who = {.node = STR("web"), .self_user = 7};

    nobody.addr = who.addr = person.addrs[0] = tn_addr_from4(v4);
    server.flags = TN_PEER_TAGGED;
    server.tags = STR("tag:ci,tag:gpu");
    server.login = STR("");
    server.user_id = 0;
    guest.flags = TN_PEER_SHARED;

    /* Whom nobody knows is nobody; who is local is that only. */
    FUZZ_MUST(!tn_selector_match(sel, &nobody));
    nobody.local = true;
    FUZZ_MUST(tn_selector_match(sel, &nobody) ==
                  (sel->kind == TN_SEL_LOCAL && sel->node.len == 0) ||
              sel->kind == TN_SEL_LOCAL);

    who.peer = &server;
    if (tn_selector_match(sel, &who))
        FUZZ_MUST(sel->kind != TN_SEL_USER && sel->kind != TN_SEL_MEMBER &&
                  sel->kind != TN_SEL_SELF && sel->kind != TN_SEL_LOCAL);
    who.peer = &guest;
    if (tn_selector_match(sel, &who))
        FUZZ_MUST(sel->kind == TN_SEL_ANY || sel->kind == TN_SEL_SHARED ||
                  sel->kind == TN_SEL_USER || sel->kind == TN_SEL_PREFIX ||
                  sel->kind == TN_SEL_FQDN);
    who.peer = &person;
    if (tn_selector_match(sel, &who))
        FUZZ_MUST(sel->kind != TN_SEL_TAG && sel->kind != TN_SEL_TAGGED &&
                  sel->kind != TN_SEL_LOCAL);
    if (sel->kind == TN_SEL_ANY && sel->node.len == 0)
        FUZZ_MUST(tn_selector_match(sel, &who));
    /* Of another tailnet: never. */
    who.node = STR("other-node");
    if (sel->node.len != 0 &&
        (sel->node.len != who.node.len ||
            memcmp(sel->node.p, who.node.p, who.node.len) != 0))
        FUZZ_MUST(!tn_selector_match(sel, &who));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_copy(data, size);
    struct tn_selector sel, before;
    const char *why;

    memset(&sel, 0x5a, sizeof(sel));
    before = sel;
    why = tn_selector_parse(&sel, text, size);
    if (why != NULL) {
        FUZZ_MUST(why[0] != '\0');
        FUZZ_MUST(memcmp(&sel, &before, sizeof(sel)) == 0);
    } else {
        FUZZ_MUST(size > 0);
        FUZZ_MUST(inside(&sel.node, text, size));
        FUZZ_MUST(inside(&sel.name, text, size));
        fuzz_touch(sel.node.p, sel.node.len);
        fuzz_touch(sel.name.p, sel.name.len);
        check_match(&sel);
    }
    free(text);
    return 0;
}

/*
 * tn_acl.c: selectors, the one grammar that says who.
 *
 * Parsing goes from the outside in: the qualifier, then the forms that a
 * prefix or an "@" makes plain, then addresses, then names.  A text that looks
 * like an address and is none (1.2.3, 10.0.0.0/33) is refused, never taken as
 * a name.  Matching is one switch over what a peer may be matched by; it fails
 * closed: what a selector does not know of a peer, it does not match.
 */
#include "tn_acl.h"

#include <string.h>

#include "tn_node.h"

#define LABEL_MAX 63  /* RFC 1035 section 2.3.4 */
#define NAME_MAX  253 /* in text, without the final dot */

static char
fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool
same(struct tn_str a, const char *s, size_t len)
{
    if (a.len != len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (fold(a.p[i]) != fold(s[i])) {
            return false;
        }
    }
    return true;
}

/* When ${s} begins with ${word}, cuts that off and returns true. */
static bool
cut(struct tn_str *s, const char *word)
{
    size_t len = strlen(word);

    if (s->len < len || memcmp(s->p, word, len) != 0) {
        return false;
    }
    s->p += len;
    s->len -= len;
    return true;
}

static bool
is(struct tn_str s, const char *word)
{
    return s.len == strlen(word) && memcmp(s.p, word, s.len) == 0;
}

/* True when all of ${s} can stand in a login or tag: no white space, no
 * control character, no comma (tags are joined with commas). */
static bool
is_word(struct tn_str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c <= ' ' || c == 0x7f || c == ',') {
            return false;
        }
    }
    return s.len > 0;
}

static bool
is_alnum(char c)
{
    c = fold(c);
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/*
 * True when ${s} is labels with dots between them (no final one); their number
 * in ${*labels}.  The last of several is never all digits (RFC 3696 section
 * 2): such a text was meant to be an address.
 */
static bool
is_name(struct tn_str s, size_t *labels)
{
    size_t start = 0;
    bool digits = true;

    *labels = 1;
    if (s.len == 0 || s.len > NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i <= s.len; i++) {
        if (i < s.len && s.p[i] != '.') {
            if (!is_alnum(s.p[i]) && s.p[i] != '-') {
                return false;
            }
            digits = digits && s.p[i] >= '0' && s.p[i] <= '9';
            continue;
        }
        if (i == start || i - start > LABEL_MAX || s.p[start] == '-' ||
            s.p[i - 1] == '-') {
            return false;
        }
        if (i < s.len) {
            (*labels)++;
            start = i + 1;
            digits = true;
        }
    }
    return *labels == 1 || !digits;
}

static const char *
parse_autogroup(struct tn_selector *sel, struct tn_str what)
{
    static const struct {
        const char *name;
        enum tn_sel_kind kind;
    } groups[] = {
        {"member", TN_SEL_MEMBER},
        {"tagged", TN_SEL_TAGGED},
        {"self", TN_SEL_SELF},
        {"shared", TN_SEL_SHARED},
    };

    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        if (is(what, groups[i].name)) {
            sel->kind = groups[i].kind;
            return NULL;
        }
    }
    return "unknown autogroup: member, tagged, self or shared expected";
}

static const char *
parse_user(struct tn_selector *sel, struct tn_str login)
{
    if (!is_word(login)) {
        return "login is empty or has a space, comma or control character";
    }
    sel->kind = TN_SEL_USER;
    sel->name = login;
    return NULL;
}

/* user@domain */
static const char *
parse_login(struct tn_selector *sel, struct tn_str what, const char *at)
{
    if (at == what.p || at == what.p + what.len - 1 ||
        memchr(at + 1, '@', what.len - (size_t)(at + 1 - what.p)) != NULL) {
        return "one user and one domain expected around \"@\"; a login name "
               "without a domain is \"user:NAME\"";
    }
    return parse_user(sel, what);
}

static const char *
parse_name(struct tn_selector *sel, struct tn_str what)
{
    bool final = what.len > 1 && what.p[what.len - 1] == '.';
    size_t labels;

    what.len -= final;
    if (!is_name(what, &labels)) {
        return "neither a known form nor an address nor a node name";
    }
    sel->kind = labels > 1 || final ? TN_SEL_FQDN : TN_SEL_HOST;
    sel->name = what;
    return NULL;
}

static const char *
parse_what(struct tn_selector *sel, struct tn_str what)
{
    struct tn_str rest = what;
    const char *at;

    if (what.len == 0) {
        return "empty selector";
    }
    if (is(what, "*")) {
        sel->kind = TN_SEL_ANY;
        return NULL;
    }
    if (is(what, "all")) {
        return "everybody is \"*\", and a node of the name \"all\" its FQDN";
    }
    if (is(what, "local")) {
        sel->kind = TN_SEL_LOCAL;
        return sel->node.len == 0
                   ? NULL
                   : "\"local\" is nobody of a tailnet: no node before it";
    }
    if (cut(&rest, "tag:")) {
        sel->kind = TN_SEL_TAG;
        sel->name = what;
        return is_word(rest)
                   ? NULL
                   : "tag is empty or has a space, comma or control character";
    }
    if (cut(&rest, "user:")) {
        return parse_user(sel, rest);
    }
    if (cut(&rest, "autogroup:")) {
        return parse_autogroup(sel, rest);
    }
    if (cut(&rest, "group:")) {
        return "no control server tells a node who is in a group: name users "
               "or tags";
    }
    if (cut(&rest, "cap:")) {
        return "capabilities are no selector: see $tailnet_caps";
    }
    at = memchr(what.p, '@', what.len);
    if (at != NULL) {
        return parse_login(sel, what, at);
    }
    if (tn_prefix_parse(&sel->prefix, what.p, what.len) == 0) {
        sel->kind = TN_SEL_PREFIX;
        return NULL;
    }
    at = memchr(what.p, '/', what.len);
    if (at != NULL &&
        tn_addr_parse(&sel->prefix.addr, what.p, (size_t)(at - what.p)) == 0) {
        return "bad prefix length, or address bits are set behind it";
    }
    if (at != NULL) {
        return "what is before \"/\" is neither an address nor the name of a "
               "tailnet_node";
    }
    return parse_name(sel, what);
}

const char *
tn_selector_parse(struct tn_selector *sel, const char *text, size_t len)
{
    struct tn_selector n = {.node = {"", 0}, .name = {"", 0}};
    struct tn_str what = {text, len};
    const char *slash = len == 0 ? NULL : memchr(text, '/', len);
    const char *wrong;

    if (slash != NULL && tn_node_name_valid(text, (size_t)(slash - text))) {
        n.node.p = text;
        n.node.len = (size_t)(slash - text);
        what.p = slash + 1;
        what.len = len - n.node.len - 1;
    }
    wrong = parse_what(&n, what);
    if (wrong == NULL) {
        *sel = n;
    }
    return wrong;
}

/* True when ${tag} is one of the comma-joined ${tags}. */
static bool
has_tag(struct tn_str tags, struct tn_str tag)
{
    size_t start = 0;

    for (size_t i = 0; i <= tags.len; i++) {
        if (i == tags.len || tags.p[i] == ',') {
            if (same(tag, tags.p + start, i - start)) {
                return true;
            }
            start = i + 1;
        }
    }
    return false;
}

bool
tn_selector_match(const struct tn_selector *sel, const struct tn_who *who)
{
    const struct tn_peer *p = who->peer;
    bool tagged, ours;

    if (sel->kind == TN_SEL_LOCAL) {
        return p == NULL && who->local;
    }
    if (p == NULL || (p->flags & TN_PEER_EXPIRED) != 0) {
        return false;
    }
    if (sel->node.len != 0 && !same(sel->node, who->node.p, who->node.len)) {
        return false;
    }
    tagged = (p->flags & TN_PEER_TAGGED) != 0;
    ours = (p->flags & TN_PEER_SHARED) == 0;
    switch (sel->kind) {
    case TN_SEL_ANY:
        return true;
    case TN_SEL_TAG:
        return tagged && ours && has_tag(p->tags, sel->name);
    case TN_SEL_USER:
        return !tagged && p->login.len != 0 &&
               same(sel->name, p->login.p, p->login.len);
    case TN_SEL_MEMBER:
        return !tagged && ours;
    case TN_SEL_TAGGED:
        return tagged && ours;
    case TN_SEL_SELF:
        return !tagged && ours && p->user_id != 0 &&
               p->user_id == who->self_user;
    case TN_SEL_SHARED:
        return !ours;
    case TN_SEL_PREFIX:
        return tn_prefix_contains(&sel->prefix, &who->addr);
    case TN_SEL_HOST:
        return ours && same(sel->name, p->host.p, p->host.len);
    case TN_SEL_FQDN:
        return same(sel->name, p->name.p, p->name.len);
    case TN_SEL_LOCAL:
        break;
    }
    return false;
}

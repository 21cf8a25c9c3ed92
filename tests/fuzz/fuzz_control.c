/* links: tailnetd/control/control.c tailnetd/control/session.c */
/* links: tailnetd/control/login.c tailnetd/control/poll.c tailnetd/control/renewal.c */
/* links: tailnetd/control/pong.c tailnetd/control/message_pong.c tailnetd/control/oauth.c */
/* links: tailnetd/control/cache.c tailnetd/control/notice.c */
/* links: tailnetd/control/message.c tailnetd/control/message_oauth.c */
/* links: tailnetd/control/url.c tailnetd/control/map_frame.c */
/* links: tailnetd/control/map_state.c tailnetd/control/map_yard.c */
/* links: tailnetd/control/map_claim.c tailnetd/control/map_follow.c */
/* links: tailnetd/control/map_json_delta.c tailnetd/control/map_json.c */
/* links: tailnetd/control/map_json_node.c tailnetd/control/map_json_rule.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_value.c */
/* links: tailnetd/control/map_json_claim.c tailnetd/control/map_json_derp.c */
/* links: tailnetd/control/map_json_write.c tailnetd/engine/netmap.c */
/* links: tailnetd/engine/keytext.c tailnetd/engine/span.c */
/* links: tailnetd/crypto/noise.c tailnetd/base64.c */
/* links: core/tn_addr.c core/tn_node.c */
/* libs: -ljansson -lzstd -lsodium -lcrypto -Wl,--wrap=getrandom,--wrap=time */
/* max_len: 4096 */
/*
 * A node's membership in a tailnet as a story: what was saved is read, the
 * channel goes up and down, requests are answered with heads, right texts and
 * any bytes, people log in and out, time passes.  Channel, HTTP and sockets are
 * stand-ins below.  In the end what was saved is a start for another life.
 */
#include <jansson.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "../../ngx_tailnet_module/tailnetd/control/channel.h"
#include "../../ngx_tailnet_module/tailnetd/control/control.h"
#include "../../ngx_tailnet_module/tailnetd/control/fetch.h"
#include "../../ngx_tailnet_module/tailnetd/crypto/noise.h"
#include "fuzz.h"
#include "fuzz_loop.h"

#define NOW       1800000000
#define STEPS_MAX 120
#define TEXT_MAX  2048
#define FETCHES   24 /* more than a session has pings to answer */

/* ---- clock and dice ---- */

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
time_t __wrap_time(time_t *t);

static uint32_t dice;

ssize_t
__wrap_getrandom(void *buf, size_t len, unsigned flags)
{
    uint8_t *b = buf;
    size_t i;

    (void)flags;
    for (i = 0; i < len; i++) {
        dice = dice * 1103515245u + 12345u;
        b[i] = (uint8_t)(dice >> 16);
    }
    return (ssize_t)len;
}

time_t
__wrap_time(time_t *t)
{
    FUZZ_MUST(t == NULL);
    return NOW + (time_t)(loop.now / 1000);
}

/* ---- the channel and its requests ---- */

struct call {
    int32_t id; /* 0: free */
    const struct h2_ops *ops;
    void *arg;
    bool told, map;
};

struct h2 {
    struct call calls[H2_CALLS_MAX];
};

struct channel {
    const struct channel_ops *ops;
    void *arg;
    bool up;
    struct h2 h2;
};

static struct channel *channel;
static struct control *control;
static int32_t last_id;
static bool refuse; /* no request can be made */

struct channel *
channel_new(
    const struct channel_config *c, const struct channel_ops *ops, void *arg)
{
    FUZZ_MUST(channel == NULL && c->url->host[0] != '\0');
    fuzz_touch(c->machine, 32);
    channel = calloc(1, sizeof(*channel));
    FUZZ_MUST(channel != NULL);
    channel->ops = ops;
    channel->arg = arg;
    return channel;
}

void
channel_free(struct channel *c)
{
    FUZZ_MUST(c == NULL || c == channel);
    if (c != NULL)
        channel = NULL;
    free(c);
}

struct h2 *
channel_h2(struct channel *c)
{
    FUZZ_MUST(c != NULL && c == channel);
    return c->up ? &c->h2 : NULL;
}

void
channel_flush(struct channel *c)
{
    FUZZ_MUST(c != NULL && c == channel);
}

int32_t
h2_request(struct h2 *h, const char *method, const char *path, const char *lb,
    const void *body, size_t len, const struct h2_ops *ops, void *arg)
{
    json_t *root;
    size_t i;

    FUZZ_MUST(method[0] != '\0' && path[0] == '/' && lb != NULL);
    if (strncmp(path, "/machine/", 9) == 0) { /* what we say is JSON */
        root = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
        FUZZ_MUST(json_is_object(root));
        json_decref(root);
    }
    for (i = 0; i < H2_CALLS_MAX && h->calls[i].id != 0; i++)
        ;
    if (refuse || i == H2_CALLS_MAX)
        return -1;
    h->calls[i] = (struct call){.id = ++last_id,
        .ops = ops,
        .arg = arg,
        .map = strcmp(path, "/machine/map") == 0};
    return last_id;
}

void
h2_cancel(struct h2 *h, int32_t id)
{
    size_t i;

    for (i = 0; i < H2_CALLS_MAX && id > 0; i++)
        if (h->calls[i].id == id)
            h->calls[i].id = 0;
}

bool
h2_going_away(const struct h2 *h)
{
    (void)h;
    return refuse;
}

/* ---- connections of their own ---- */

struct fetch {
    void (*done)(void *arg, const struct http1 *answer, const char *why);
    void *arg;
    bool over;
};

static struct fetch *fetches[FETCHES];

struct fetch *
fetch_new(const struct fetch_request *r,
    void (*done)(void *arg, const struct http1 *answer, const char *why),
    void *arg)
{
    struct fetch *f = calloc(1, sizeof(*f));
    size_t i;

    FUZZ_MUST(f != NULL && r->url->host[0] != '\0' && r->method != NULL);
    fuzz_touch(r->body, r->body == NULL ? 0 : r->len);
    for (i = 0; i < FETCHES && fetches[i] != NULL; i++)
        ;
    FUZZ_MUST(i < FETCHES);
    f->done = done;
    f->arg = arg;
    fetches[i] = f;
    return f;
}

void
fetch_free(struct fetch *f)
{
    size_t i;

    for (i = 0; i < FETCHES; i++)
        if (fetches[i] == f)
            fetches[i] = NULL;
    free(f);
}

/* ---- the node ---- */

static struct {
    uint8_t key[32];
    bool has_key, wants_key;
    struct netmap *nm;
    char *text[2]; /* saved: keys, netmap */
    size_t len[2];
} node;

static void
on_key(void *arg, const uint8_t key[32])
{
    (void)arg;
    memcpy(node.key, key, 32);
    node.has_key = true;
}

static void
on_netmap(void *arg, struct netmap *nm, bool cached)
{
    unsigned i;

    (void)arg;
    (void)cached;
    FUZZ_MUST(nm != NULL && node.has_key);
    for (i = 0; i < nm->npeers; i++)
        FUZZ_MUST(nm->peers[i].has_key && nm->peers[i].naddresses > 0);
    netmap_free(node.nm);
    node.nm = nm;
}

static void
on_changes(void *arg, const struct netmap_changes *c)
{
    const struct netmap *nm = node.nm;
    size_t i;

    (void)arg;
    FUZZ_MUST(nm != NULL);
    FUZZ_MUST(c->self == NULL || c->self == &nm->self);
    FUZZ_MUST(c->nadded <= nm->npeers);
    for (i = 0; i < c->nrows; i++) {
        FUZZ_MUST(c->rows[i] < nm->npeers - c->nadded);
        fuzz_touch(nm->peers[c->rows[i]].endpoints,
            nm->peers[c->rows[i]].nendpoints * sizeof(struct tn_endpoint));
    }
    for (i = nm->npeers - c->nadded; i < nm->npeers; i++)
        fuzz_touch(nm->peers[i].allowed_ips,
            nm->peers[i].nallowed_ips * sizeof(struct tn_prefix));
}

static void
on_state(void *arg)
{
    struct control_status s;

    (void)arg;
    FUZZ_MUST(control != NULL);
    s = control_status(control);
    FUZZ_MUST(s.state_name[0] != '\0' && s.url[0] != '\0');
    FUZZ_MUST(strlen(s.words) < CONTROL_WORDS_MAX);
    FUZZ_MUST((s.state == CONTROL_RUNNING) == (s.words[0] == '\0'));
}

static void
on_save_keys(void *arg, const void *bytes, size_t len)
{
    (void)arg;
    FUZZ_MUST(len > 0 && len <= CONTROL_STATE_MAX);
    free(node.text[0]);
    node.text[0] = fuzz_copy(bytes, len);
    node.len[0] = len;
}

static void
on_save_netmap(void *arg, int fd)
{
    off_t len = lseek(fd, 0, SEEK_END);

    (void)arg;
    FUZZ_MUST(len > 0);
    free(node.text[1]);
    node.text[1] = malloc((size_t)len);
    FUZZ_MUST(pread(fd, node.text[1], (size_t)len, 0) == len);
    node.len[1] = (size_t)len;
}

static void
on_auth_key_wanted(void *arg)
{
    (void)arg;
    node.wants_key = true;
}

static void
on_ping(void *arg, uint32_t id, enum ping_kind kind, const struct tn_addr *to)
{
    (void)kind;
    (void)to;
    (void)arg;
    control_pong(
        control, id, &(struct message_pong){.name = "peer.tailnet.test"});
}

static const struct control_ops ops = {.key = on_key,
    .netmap = on_netmap,
    .changes = on_changes,
    .state = on_state,
    .save_keys = on_save_keys,
    .save_netmap = on_save_netmap,
    .auth_key_wanted = on_auth_key_wanted,
    .ping = on_ping};

/* ---- what the server says ---- */

static const char *const registered[] = {
    "{\"MachineAuthorized\":true,\"Login\":{\"LoginName\":\"a@b\"}}",
    "{\"MachineAuthorized\":false}",
    "{\"AuthURL\":\"https://control.example.com/a/1\"}",
    "{\"NodeKeyExpired\":true}",
    "{\"Error\":\"no\\nsuch key\"}",
    "{\"NodeKeySignature\":\"AA==\"}",
};

/* Messages of a map stream; "%s" is our key. */
static const char *const maps[] = {
    "{\"Node\":{\"ID\":1,\"Key\":\"nodekey:%s\",\"Addresses\":[\"100.64.0.1/"
    "32\""
    "],\"MachineAuthorized\":true},\"Peers\":[{\"ID\":2,\"Key\":\"nodekey:"
    "0202020202020202020202020202020202020202020202020202020202020202\","
    "\"Addresses\":[\"100.64.0.2/32\"]},{\"ID\":3,\"Key\":\"nodekey:"
    "0303030303030303030303030303030303030303030303030303030303030303\","
    "\"Addresses\":[\"100.64.0.3/32\"]}]}",
    "{\"Node\":{\"ID\":1,\"Key\":\"nodekey:%s\",\"Addresses\":[\"100.64.0.1/"
    "32\""
    "],\"KeyExpiry\":\"2027-01-15T08:10:00Z\",\"MachineAuthorized\":true}}",
    "{\"Node\":{\"ID\":1,\"Key\":\"nodekey:%s\",\"Addresses\":[\"100.64.0.1/"
    "32\""
    "]}}",
    "{\"PeersChangedPatch\":[{\"NodeID\":2,\"Endpoints\":[\"1.2.3.4:5\"]}]}",
    "{\"OnlineChange\":{\"2\":false,\"3\":true}}",
    "{\"KeepAlive\":true}",
    "{\"PeersRemoved\":[3],\"Health\":[\"bad\"],\"TKAInfo\":{\"Head\":\"x\"}}",
    "{\"PingRequest\":{\"URL\":\"http://127.0.0.1:8080/p\",\"Types\":\"\"}}",
    "{\"PingRequest\":{\"URL\":\"https://a/q\",\"URLIsNoise\":true,"
    "\"Types\":\"c2n\",\"Payload\":\"R0VUIC9lY2hvIEhUVFAvMS4xDQoNCg==\"}}",
    "{\"Debug\":{\"SleepSeconds\":3}}",
    "{\"PingRequest\":{\"URL\":\"http://127.0.0.1/r\",\"IP\":\"100.64.0.2\","
    "\"Types\":\"disco,TSMP,ICMP,peerapi,x\"}}",
    "{\"ControlTime\":\"2027-01-16T08:00:00Z\",\"PopBrowserURL\":\"https://"
    "b\",\"DisplayMessages\":{\"*\":null,\"m\":{\"Text\":\"t\"}}}",
    "{}",
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* One of a list or, beyond it, the input's own bytes; returns its length. */
static size_t
pick_text(struct fuzz_input *in, const char *const *list, size_t n,
    char out[TEXT_MAX])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t which = fuzz_u8(in), public[32];
    char hex[65] = "", *at;
    struct fuzz_input part;
    size_t len, i;

    if (which % (n + 1) == n) {
        part = fuzz_bytes(in, fuzz_u16(in) % TEXT_MAX);
        if (part.len > 0)
            memcpy(out, part.p, part.len);
        return part.len;
    }
    len = strlen(list[which % (n + 1)]);
    memcpy(out, list[which % (n + 1)], len + 1);
    at = strstr(out, "%s");
    if (at == NULL)
        return len;
    noise_public_key(public, node.key);
    for (i = 0; i < 32; i++) {
        hex[2 * i] = digits[public[i] >> 4];
        hex[2 * i + 1] = digits[public[i] & 15];
    }
    memmove(at + 64, at + 2, strlen(at + 2) + 1);
    memcpy(at, hex, 64);
    return len + 62;
}

static struct call *
pick_call(uint8_t which)
{
    unsigned i, n = 0;

    for (i = 0; channel != NULL && i < H2_CALLS_MAX; i++)
        if (channel->h2.calls[i].id != 0 && n++ == which % 3u)
            return &channel->h2.calls[i];
    return NULL;
}

static void
head(struct fuzz_input *in, struct call *c)
{
    static const unsigned status[] = {
        200, 200, 200, 200, 404, 400, 401, 429, 503, 500, 302};
    struct h2_answer a = {.status = status[fuzz_u8(in) % COUNT(status)]};

    if (c->told)
        return;
    if (a.status == 429)
        strcpy(a.retry_after, "7");
    c->told = true;
    c->ops->head(c->arg, &a);
}

static void
bring(struct call *c, const void *p, size_t len)
{
    uint8_t *copy = fuzz_copy(p, len);

    if (len > 0)
        c->ops->data(c->arg, copy, len);
    free(copy);
}

/* A message as it is on the way, whole or its first part. */
static void
bring_map(struct fuzz_input *in, struct call *c)
{
    char text[TEXT_MAX + 64], wire[4 + 2 * TEXT_MAX];
    size_t len = pick_text(in, maps, COUNT(maps), text), n;

    n = ZSTD_compress(wire + 4, sizeof(wire) - 4, text, len, 1);
    FUZZ_MUST(!ZSTD_isError(n));
    wire[0] = (char)n;
    wire[1] = (char)(n >> 8);
    wire[2] = wire[3] = 0;
    bring(c, wire, 4 + n);
}

static void
answer(struct fuzz_input *in, uint8_t what)
{
    struct call *c = pick_call(what >> 6), was;
    char text[TEXT_MAX + 64];
    struct fuzz_input raw;
    size_t len;

    if (c == NULL)
        return;
    switch (what >> 3 & 7) {
    case 0:
    case 1:
        head(in, c);
        break;
    case 2:
        raw = fuzz_bytes(in, fuzz_u8(in));
        if (c->told)
            bring(c, raw.p, raw.len);
        break;
    case 3:
    case 4:
    case 5:
        len = c->map ? 0 : pick_text(in, registered, COUNT(registered), text);
        if (c->told && c->map)
            bring_map(in, c);
        else if (c->told)
            bring(c, text, len);
        break;
    default:
        was = *c;
        c->id = 0;
        was.ops->done(was.arg, was.told && (what & 8) == 0 ? NULL : "reset");
    }
}

/* ---- the rest of the world ---- */

static void
fetched(struct fuzz_input *in, uint8_t what)
{
    static const char *const texts[] = {
        "{\"access_token\":\"t\"}", "{\"key\":\"tskey-auth-1\"}"};
    char text[TEXT_MAX];
    struct fetch *f = fetches[what >> 6 & 1];
    struct http1 a = {.status = (what & 32) != 0 ? 500 : 200};

    if (f == NULL || f->over)
        return;
    f->over = true;
    a.bodylen = pick_text(in, texts, 2, text);
    a.body = fuzz_copy(text, a.bodylen);
    f->done(f->arg, (what & 16) != 0 ? NULL : &a,
        (what & 16) != 0 ? "no answer" : NULL);
    free(a.body);
}

static void
auth_key(struct fuzz_input *in)
{
    static const char *const keys[] = {"tskey-auth-1\n", "tskey-client-a-b",
        "tskey-client-a-b?ephemeral=false"};
    char text[TEXT_MAX];
    size_t len = pick_text(in, keys, 3, text);

    if (!node.wants_key)
        return;
    node.wants_key = false;
    if (len > 0 && text[0] == '-')
        control_auth_key_failed(control, "it is not there");
    else
        control_auth_key(control, text, len < CONTROL_AUTH_KEY_MAX ? len : 1);
}

static void
people(struct fuzz_input *in, struct tn_node *options)
{
    struct message_endpoint e = {.at = {.port = 7}, .type = MESSAGE_LOCAL};
    uint8_t what = fuzz_u8(in), key[32] = {what};

    e.at.addr.b[15] = what;
    switch (what & 15) {
    case 0:
    case 1:
        control_login(control);
        break;
    case 2:
        control_logout(control);
        break;
    case 3:
        control_rotate(control);
        break;
    case 4:
        control_network_changed(control);
        break;
    case 5:
        control_save(control);
        break;
    case 6:
        control_set_endpoints(control, &e, what >> 7);
        break;
    case 7:
        control_set_disco(control, key);
        break;
    case 8:
        control_set_netinfo(
            control, &(struct message_netinfo){.preferred_derp = what});
        break;
    case 9:
        netmap_free(node.nm); /* its owner has no use for it */
        node.nm = NULL;
        break;
    case 10:
        refuse = !refuse;
        break;
    default:
        options->accept_routes = (what & 16) != 0;
        strcpy(options->exit_node, (what & 32) != 0 ? "100.64.0.2" : "");
        FUZZ_MUST(control_set_node(control, options));
    }
}

static void
line(struct fuzz_input *in, uint8_t what)
{
    static const uint8_t server[32] = {7};

    if (channel == NULL)
        return;
    if (!channel->up && (what & 8) == 0) {
        if (what & 16)
            channel->ops->key(channel->arg, server);
        channel->up = true;
        channel->ops->up(channel->arg);
    } else if (fuzz_u8(in) % 4 == 0) {
        channel->ops->down(channel->arg, "it broke", !channel->up);
    }
}

static void
step(struct fuzz_input *in, struct tn_node *options)
{
    uint8_t what = fuzz_u8(in);

    switch (what & 7) {
    case 0:
        line(in, what);
        break;
    case 1:
        fuzz_sleep((what >> 3) * ((what & 128) != 0 ? 20000u : 100u));
        break;
    case 2:
        people(in, options);
        break;
    case 3:
        fetched(in, what);
        break;
    case 4:
        auth_key(in);
        break;
    default:
        answer(in, what);
        fuzz_sleep(0);
    }
}

/* ---- lives ---- */

static struct control *
begin(const struct tn_node *options, const char *keys, size_t keys_len,
    const char *netmap, size_t netmap_len)
{
    struct control_config config = {.node = options,
        .keys = keys,
        .keys_len = keys_len,
        .netmap = netmap,
        .netmap_len = netmap_len,
        .timing = control_timing_default};
    char err[CONTROL_WORDS_MAX] = "";

    dice = 1;
    last_id = 0;
    refuse = false;
    control = control_new(&config, &ops, NULL, err);
    if (control == NULL)
        FUZZ_MUST(err[0] != '\0' && keys != NULL);
    return control;
}

static void
end(void)
{
    control_free(control);
    control = NULL;
    netmap_free(node.nm);
    node.nm = NULL;
    node.has_key = node.wants_key = false;
    FUZZ_MUST(channel == NULL && loop.timers == NULL);
}

static struct fuzz_input
saved(struct fuzz_input *in)
{
    return fuzz_bytes(in, fuzz_u16(in) % TEXT_MAX);
}

/* Another life with what this one saved: it is of use. */
static void
again(const struct tn_node *options)
{
    char *keys = node.text[0], *netmap = node.text[1];
    bool has_key = keys != NULL &&
                   memmem(keys, node.len[0], "\nnode ", 6) != NULL;

    node.text[0] = node.text[1] = NULL;
    if (keys != NULL) {
        FUZZ_MUST(begin(options, keys, node.len[0], netmap, node.len[1]));
        fuzz_sleep(1);
        FUZZ_MUST(has_key || node.nm == NULL);
        end();
    }
    free(keys);
    free(netmap);
    free(node.text[0]);
    free(node.text[1]);
    node.text[0] = node.text[1] = NULL;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    struct fuzz_input in = {data, size}, keys = {NULL, 0}, netmap = {NULL, 0};
    struct tn_node options = {.name = "n", .mtu = TN_MTU_DEFAULT};
    uint8_t how = fuzz_u8(&in);
    char *text[2];
    unsigned steps;

    FUZZ_MUST(ready || noise_init() == 0);
    ready = true;
    loop.now = 1000;
    strcpy(options.control_url, "http://127.0.0.1:8080");
    strcpy(options.auth_key, (how & 1) != 0 ? "file:/k" : "");
    strcpy(options.tags, (how & 2) != 0 ? "tag:a tag:b" : "");
    strcpy(options.routes, (how & 4) != 0 ? "10.0.0.0/8 fd00::/8" : "");
    options.ephemeral = (how & 8) != 0;
    if (how & 16)
        keys = saved(&in);
    if (how & 32)
        netmap = saved(&in);
    text[0] = fuzz_copy(keys.p, keys.len);
    text[1] = fuzz_copy(netmap.p, netmap.len);
    begin(&options, (how & 16) != 0 ? text[0] : NULL, keys.len,
        (how & 32) != 0 ? text[1] : NULL, netmap.len);
    free(text[0]);
    free(text[1]);
    if (control != NULL)
        fuzz_sleep(0);
    for (steps = 0; control != NULL && in.len > 0 && steps < STEPS_MAX; steps++)
        step(&in, &options);
    end();
    again(&options);
    return 0;
}

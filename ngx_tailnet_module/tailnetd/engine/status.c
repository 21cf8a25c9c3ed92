#include "status.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

#include "../control/notice.h"
#include "../loop.h"
#include "status_reach.h"

/* jansson takes NULL values as failure and drops them, so a document lacks
 * memory exactly when the last step returns NULL. */

static json_t *
addrs_of(const struct netmap_node *row)
{
    char buf[TN_PREFIX_STRLEN];
    json_t *list = json_array();
    unsigned i;

    for (i = 0; i < row->naddresses; i++) {
        if (row->addresses[i].bits == 128)
            tn_addr_format(&row->addresses[i].addr, buf);
        else
            tn_prefix_format(&row->addresses[i], buf);
        json_array_append_new(list, json_string(buf));
    }
    return list;
}

static bool
has_expired(const struct netmap_node *row)
{
    return row->expired ||
           (row->key_expiry != 0 && row->key_expiry <= (int64_t)time(NULL));
}

static json_t *
identity_of(const struct node *n, const struct netmap_node *row)
{
    const struct netmap_user *u = netmap_user(n->netmap, row->user);
    json_t *o = json_object(), *tags = json_array();
    unsigned i;

    for (i = 0; i < row->ntags; i++)
        json_array_append_new(tags, json_string(row->tags[i]));
    json_object_set_new(o, "name", json_string(row->name));
    json_object_set_new(o, "addresses", addrs_of(row));
    json_object_set_new(
        o, "user", json_string(row->ntags == 0 && u != NULL ? u->login : ""));
    json_object_set_new(o, "tags", tags);
    json_object_set_new(o, "online", json_boolean(row->online));
    json_object_set_new(
        o, "key_expiry", json_integer((json_int_t)row->key_expiry));
    json_object_set_new(o, "key_expired", json_boolean(has_expired(row)));
    return o;
}

static json_t *
ago(uint64_t then, uint64_t now)
{
    return then == 0 ? json_null() : json_integer((json_int_t)(now - then));
}

static json_t *
peer_of(const struct node *n, const struct netmap_node *row)
{
    struct wg_peer *peer = wg_peer_by_key(n->wg, row->key);
    json_t *o = identity_of(n, row);
    uint64_t now = loop_now();
    struct wg_peer_stats s;
    struct tn_endpoint e;

    if (peer == NULL)
        return o; /* expired: has no place in the device */
    wg_peer_stats(peer, &s);
    e = wg_peer_endpoint(peer);
    json_object_set_new(o, "endpoint", status_endpoint(&e));
    if (n->magic != NULL)
        status_way(o, n, wg_peer_data(peer));
    json_object_set_new(o, "rx_bytes", json_integer((json_int_t)s.rx_bytes));
    json_object_set_new(o, "tx_bytes", json_integer((json_int_t)s.tx_bytes));
    json_object_set_new(
        o, "handshake_tries", json_integer(s.handshake_attempts));
    json_object_set_new(o, "handshake_ms_ago", ago(s.last_handshake, now));
    json_object_set_new(o, "receive_ms_ago", ago(s.last_receive, now));
    return o;
}

static json_t *
wg_counters_of(const struct wg_counters *c)
{
    json_t *o = json_object();

    STATUS_COUNT(o, c, rx_packets);
    STATUS_COUNT(o, c, rx_bytes);
    STATUS_COUNT(o, c, tx_packets);
    STATUS_COUNT(o, c, tx_bytes);
    STATUS_COUNT(o, c, handshakes_sent);
    STATUS_COUNT(o, c, handshakes_received);
    STATUS_COUNT(o, c, handshakes_completed);
    STATUS_COUNT(o, c, cookies_sent);
    STATUS_COUNT(o, c, cookies_received);
    STATUS_COUNT(o, c, drop_malformed);
    STATUS_COUNT(o, c, drop_mac1);
    STATUS_COUNT(o, c, drop_ratelimited);
    STATUS_COUNT(o, c, drop_unknown_peer);
    STATUS_COUNT(o, c, drop_handshake);
    STATUS_COUNT(o, c, drop_handshake_replay);
    STATUS_COUNT(o, c, drop_handshake_flood);
    STATUS_COUNT(o, c, drop_index);
    STATUS_COUNT(o, c, drop_auth);
    STATUS_COUNT(o, c, drop_replay);
    STATUS_COUNT(o, c, drop_expired);
    STATUS_COUNT(o, c, drop_source);
    STATUS_COUNT(o, c, drop_inner);
    STATUS_COUNT(o, c, drop_no_route);
    STATUS_COUNT(o, c, drop_staged);
    STATUS_COUNT(o, c, drop_no_endpoint);
    return o;
}

static json_t *
pump_counters_of(const struct pump_counters *c)
{
    json_t *o = json_object();

    STATUS_COUNT(o, c, mesh_read);
    STATUS_COUNT(o, c, mesh_written);
    STATUS_COUNT(o, c, mesh_reads);
    STATUS_COUNT(o, c, mesh_writes);
    STATUS_COUNT(o, c, net_read);
    STATUS_COUNT(o, c, net_written);
    STATUS_COUNT(o, c, net_reads);
    STATUS_COUNT(o, c, net_writes);
    STATUS_COUNT(o, c, drop_mesh_write);
    STATUS_COUNT(o, c, drop_mesh_header);
    STATUS_COUNT(o, c, drop_net_full);
    STATUS_COUNT(o, c, drop_net_error);
    STATUS_COUNT(o, c, drop_net_family);
    STATUS_COUNT(o, c, drop_net_truncated);
    STATUS_COUNT(o, c, not_merged_checksum);
    return o;
}

static json_t *
filter_counters_of(const struct filter *f)
{
    json_t *o = json_object();
    enum filter_reason r;

    for (r = 0; r < FILTER_REASONS; r++)
        json_object_set_new(o, filter_reason_name(r),
            json_integer((json_int_t)filter_count(f, r)));
    return o;
}

/* Without their URLs, one may be for a login. */
static json_t *
notices_of(const struct notices *s)
{
    char id[MESSAGE_SHOWN_MAX], words[MESSAGE_SHOWN_MAX];
    json_t *list = json_array(), *o;

    for (size_t i = 0; i < s->n; i++) {
        const struct map_notice *n = &s->list[i];

        message_show(id, n->id, n->id == NULL ? 0 : strlen(n->id));
        notice_words(n, words);
        o = json_object();
        json_object_set_new(o, "id", json_string(id));
        json_object_set_new(o, "severity", json_string(n->severity));
        json_object_set_new(
            o, "impacts_connectivity", json_boolean(n->connectivity));
        json_object_set_new(o, "words", json_string(words));
        json_array_append_new(list, o);
    }
    return list;
}

/* Without the login URL: whoever may look is not who may log in. */
static json_t *
control_of(const struct node *n, uint64_t now)
{
    struct control_status s = control_status(join_control(n->join));
    json_t *o = json_object();

    json_object_set_new(o, "state", json_string(s.state_name));
    json_object_set_new(o, "words", json_string(s.words));
    json_object_set_new(o, "url", json_string(s.url));
    json_object_set_new(o, "login", json_string(s.login));
    json_object_set_new(o, "heard_ms_ago", ago(s.heard, now));
    json_object_set_new(o, "streams", json_integer((json_int_t)s.reconnects));
    json_object_set_new(o, "messages", json_integer((json_int_t)s.messages));
    json_object_set_new(o, "wire_bytes", json_integer((json_int_t)s.wire));
    json_object_set_new(o, "text_bytes", json_integer((json_int_t)s.text));
    json_object_set_new(o, "netmaps", json_integer((json_int_t)s.deltas));
    json_object_set_new(
        o, "contested_peers", json_integer((json_int_t)s.contested));
    json_object_set_new(o, "notices", notices_of(s.notices));
    return o;
}

static json_t *
node_of(const struct node *n)
{
    json_t *o = json_object();
    uint64_t now = loop_now();

    json_object_set_new(o, "name", json_string(n->name));
    json_object_set_new(o, "state", json_string(node_state(n)));
    json_object_set_new(o, "error", json_string(n->error));
    json_object_set_new(
        o, "generation", json_integer((json_int_t)n->hot_row->generation));
    json_object_set_new(
        o, "hot_evicted", json_integer((json_int_t)hot_evicted(n->hot)));
    if (n->join != NULL)
        json_object_set_new(o, "control", control_of(n, now));
    if (n->magic != NULL)
        json_object_set_new(o, "network", status_reach(n));
    json_object_set_new(
        o, "drop_expired", json_integer((json_int_t)n->drop_expired));
    json_object_set_new(o, "log_left_out",
        json_integer((json_int_t)failure_unsaid(&n->failure)));
    json_object_set_new(o, "pump", pump_counters_of(pump_counters(n->pump)));
    if (n->wg != NULL)
        json_object_set_new(
            o, "wireguard", wg_counters_of(wg_device_counters(n->wg)));
    if (n->filter != NULL)
        json_object_set_new(o, "filter", filter_counters_of(n->filter));
    if (n->netmap != NULL) {
        json_object_set_new(o, "domain", json_string(n->netmap->domain));
        json_object_set_new(o, "self", identity_of(n, &n->netmap->self));
    }
    return o;
}

static char *
dump(json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);

    json_decref(o);
    return text;
}

char *
status_node(const struct node *n)
{
    return dump(node_of(n));
}

char *
status_peer(const struct node *n, const struct netmap_node *row)
{
    return dump(peer_of(n, row));
}

char *
status_pong(const struct tn_addr *to, const struct tn_endpoint *e, uint64_t ns,
    const char *error)
{
    json_t *o = json_object();
    char buf[TN_ADDR_STRLEN];

    tn_addr_format(to, buf);
    json_object_set_new(o, "address", json_string(buf));
    json_object_set_new(o, "endpoint", status_endpoint(e));
    if (error == NULL)
        json_object_set_new(o, "ms", json_real((double)ns / 1e6));
    else
        json_object_set_new(o, "error", json_string(error));
    return dump(o);
}

char *
status_join(const struct node *n)
{
    json_t *o = json_object();
    struct control_status s;

    if (n == NULL || n->join == NULL) {
        json_object_set_new(o, "error",
            json_string(n == NULL ? "no such node"
                                  : "this node has a netmap file: there is no "
                                    "server to log in at"));
        return dump(o);
    }
    s = control_status(join_control(n->join));
    json_object_set_new(o, "state", json_string(s.state_name));
    json_object_set_new(o, "words", json_string(s.words));
    json_object_set_new(o, "auth_url", json_string(s.auth_url));
    return dump(o);
}

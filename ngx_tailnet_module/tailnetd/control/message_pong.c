#include "message_pong.h"

#include <string.h>

#include <jansson.h>

static void
put_address(json_t *o, const char *name, const struct tn_addr *a)
{
    char text[TN_ADDR_STRLEN];

    tn_addr_format(a, text);
    json_object_set_new(o, name, json_string(text));
}

/* The name without its domain, as who asks shows nodes. */
static void
put_name(json_t *o, const char *fqdn)
{
    if (fqdn != NULL && fqdn[0] != '\0')
        json_object_set_new(
            o, "NodeName", json_stringn(fqdn, strcspn(fqdn, ".")));
}

static void
put_place(json_t *o, const struct message_pong *m)
{
    char text[TN_ENDPOINT_STRLEN];

    if (m->region != 0) {
        json_object_set_new(o, "DERPRegionID", json_integer(m->region));
        json_object_set_new(o, "DERPRegionCode", json_string(m->region_code));
    } else if (m->at.port != 0) {
        tn_endpoint_format(&m->at, text);
        json_object_set_new(o, "Endpoint", json_string(text));
    }
}

char *
message_pong(const struct message_pong *m, size_t *len)
{
    json_t *o = json_object();
    char *text;

    json_object_set_new(o, "Type", json_string(m->type));
    put_address(o, "IP", &m->to);
    if (m->has_node)
        put_address(o, "NodeIP", &m->node);
    put_name(o, m->name);
    if (m->error != NULL) {
        json_object_set_new(o, "Err", json_string(m->error));
    } else {
        json_object_set_new(o, "LatencySeconds", json_real(m->seconds));
        put_place(o, m);
    }
    if (m->peerapi != 0)
        json_object_set_new(o, "PeerAPIPort", json_integer(m->peerapi));
    if (m->local)
        json_object_set_new(o, "IsLocalIP", json_true());
    text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    *len = text == NULL ? 0 : strlen(text);
    return text;
}

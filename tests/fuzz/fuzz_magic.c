/* links: tailnetd/magic/disco.c tailnetd/magic/stun.c tailnetd/magic/tsmp.c */
/* links: tailnetd/magic/derp_frame.c tailnetd/magic/masq.c core/tn_addr.c */
/* links: tailnetd/crypto/box.c */
/* libs: -lsodium */
/* max_len: 4096 */
/*
 * What peers, relays and STUN servers send, by the first byte: the inside of a
 * disco box, a disco datagram, STUN, a stream of DERP frames in pieces, an IP
 * packet of the tunnel.
 */
#include "../../ngx_tailnet_module/tailnetd/magic/derp_frame.h"
#include "../../ngx_tailnet_module/tailnetd/magic/disco.h"
#include "../../ngx_tailnet_module/tailnetd/magic/masq.h"
#include "../../ngx_tailnet_module/tailnetd/magic/stun.h"
#include "../../ngx_tailnet_module/tailnetd/magic/tsmp.h"
#include "fuzz.h"

static const uint8_t shared[32] = {1, 2, 3}, nonce[24] = {4};

static void
check_disco(const struct disco_msg *m, int rc)
{
    unsigned i;

    FUZZ_MUST(rc == 0 || rc == -2);
    FUZZ_MUST(m->nendpoints <= DISCO_CALL_MAX);
    for (i = 0; i < m->nendpoints; i++)
        FUZZ_MUST(m->endpoints[i].port != 0);
}

/* What was understood says the same after it was said again. */
static void
disco_inside(struct fuzz_input *in)
{
    uint8_t pub[32] = {5}, again[DISCO_MAX_LEN];
    size_t len = DISCO_HEADER_LEN + BOX_TAG_LEN + in->len, n;
    uint8_t *p = malloc(len);
    struct disco_msg m, other;
    int rc;

    FUZZ_MUST(p != NULL);
    n = disco_seal(again, &(struct disco_msg){.type = DISCO_CALL_ME_MAYBE},
        shared, pub, nonce);
    FUZZ_MUST(n == DISCO_MIN_LEN);
    memcpy(p, again, DISCO_HEADER_LEN);
    box_seal(p + DISCO_HEADER_LEN, shared, nonce, in->p, in->len);
    FUZZ_MUST(disco_looks(p, len));
    rc = disco_open(&m, shared, p, len);
    check_disco(&m, rc);
    if (rc == 0 && m.type != DISCO_OTHER) {
        n = disco_seal(again, &m, shared, pub, nonce);
        FUZZ_MUST(disco_open(&other, shared, again, n) == 0);
        FUZZ_MUST(other.type == m.type && other.nendpoints == m.nendpoints);
        FUZZ_MUST(memcmp(other.txid, m.txid, sizeof(m.txid)) == 0);
    }
    free(p);
}

static void
disco_outside(struct fuzz_input *in)
{
    uint8_t *p = fuzz_copy(in->p, in->len);
    struct disco_msg m;

    if (disco_looks(p, in->len)) {
        fuzz_touch(disco_sender(p), DISCO_KEY_LEN);
        FUZZ_MUST(disco_open(&m, shared, p, in->len) == -1);
    }
    free(p);
}

static void
stun(struct fuzz_input *in)
{
    uint8_t *p = fuzz_copy(in->p, in->len), txid[STUN_TXID_LEN];
    struct tn_endpoint e;

    if (stun_response(p, in->len, txid, &e) == 0) {
        FUZZ_MUST(stun_looks(p, in->len));
        FUZZ_MUST(e.port != 0 && memcmp(txid, p + 8, sizeof(txid)) == 0);
    }
    free(p);
}

static void
derp(struct fuzz_input *in)
{
    struct derp_reader r = {0};
    size_t piece = 1 + fuzz_u8(in) * 4u;
    struct fuzz_input part;
    struct derp_frame f;
    int rc = 0;

    while (in->len > 0 && rc != -1) {
        part = fuzz_bytes(in, piece);
        while ((rc = derp_read(&r, &part.p, &part.len, &f)) == 1) {
            fuzz_touch(f.data, f.len + DERP_SLACK);
            FUZZ_MUST(f.len <= DERP_PACKET_MAX);
            FUZZ_MUST(strlen(f.text) <= DERP_HEALTH_MAX);
            if (f.type == DERP_SERVER_INFO)
                FUZZ_MUST(!derp_server_info(&f, shared));
        }
        FUZZ_MUST(rc == -1 || part.len == 0);
        FUZZ_MUST((rc == -1) == (r.error != NULL));
    }
    derp_reader_free(&r);
}

static void
packet(struct fuzz_input *in)
{
    struct tn_addr a = tn_addr_from4((const uint8_t[4]){100, 64, 0, 1}),
                   b = tn_addr_from4((const uint8_t[4]){100, 64, 9, 9});
    uint8_t *p = fuzz_copy(in->p, in->len);
    struct tsmp t;

    if (tsmp_read(&t, p, in->len)) {
        FUZZ_MUST(tn_addr_is4(&t.src) == tn_addr_is4(&t.dst) || p[0] >> 4 == 6);
        if (t.type == TSMP_DISCO)
            fuzz_touch(t.disco, 32);
        if (t.type == TSMP_REJECT)
            FUZZ_MUST(tsmp_reason(t.reason)[0] != '\0');
    }
    if (masq_source(p, in->len, &a, &b))
        FUZZ_MUST(masq_source(p, in->len, &b, &a));
    if (masq_destination(p, in->len, &a, &b))
        FUZZ_MUST(masq_destination(p, in->len, &b, &a));
    free(p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};

    switch (fuzz_u8(&in) % 5) {
    case 0:
        disco_inside(&in);
        break;
    case 1:
        disco_outside(&in);
        break;
    case 2:
        stun(&in);
        break;
    case 3:
        derp(&in);
        break;
    default:
        packet(&in);
    }
    return 0;
}

#include "ipsecmb.h"

#ifdef TN_IPSECMB

#include <stdlib.h>

#include <intel-ipsec-mb.h>

/* One manager a thread, and no other algorithm in it: a job that waits for
 * company would hold ours. */
static IMB_MGR *manager;
static bool tried;

bool
ipsecmb_ready(void)
{
    IMB_ARCH arch = IMB_ARCH_NONE;

    if (tried)
        return manager != NULL;
    tried = true;
    manager = alloc_mb_mgr(0);
    if (manager == NULL)
        return false;
    init_mb_mgr_auto(manager, &arch);
    if (arch != IMB_ARCH_AVX512 || imb_get_errno(manager) != 0) {
        free_mb_mgr(manager);
        manager = NULL;
    }
    return manager != NULL;
}

void
ipsecmb_crypt(bool seal, const uint8_t key[32], const uint8_t nonce[12],
    uint8_t *buf, size_t len, uint8_t tag[16])
{
    IMB_JOB *job = IMB_GET_NEXT_JOB(manager);

    job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
    job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
    job->cipher_direction = seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
    job->chain_order = seal ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
    job->enc_keys = key;
    job->dec_keys = key;
    job->key_len_in_bytes = 32;
    job->iv = nonce;
    job->iv_len_in_bytes = 12;
    job->src = buf;
    job->dst = buf;
    job->cipher_start_src_offset_in_bytes = 0;
    job->msg_len_to_cipher_in_bytes = len;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = len;
    job->u.CHACHA20_POLY1305.aad = NULL;
    job->u.CHACHA20_POLY1305.aad_len_in_bytes = 0;
    job->auth_tag_output = tag;
    job->auth_tag_output_len_in_bytes = 16;

    /* This algorithm completes inside the call; if it ever did not, the packet
     * would go out half done. */
    job = IMB_SUBMIT_JOB(manager);
    if (job == NULL || job->status != IMB_STATUS_COMPLETED)
        abort();
}

#else

#include <stdlib.h>

bool
ipsecmb_ready(void)
{
    return false;
}

void
ipsecmb_crypt(bool seal, const uint8_t key[32], const uint8_t nonce[12],
    uint8_t *buf, size_t len, uint8_t tag[16])
{
    (void)seal;
    (void)key;
    (void)nonce;
    (void)buf;
    (void)len;
    (void)tag;
    abort(); /* never asked when it is not ready */
}

#endif

/*
 * ipsecmb.h: ChaCha20-Poly1305 by libipsec-mb, for CPUs with AVX-512.
 *
 * Its job interface takes about 0.6 of OpenSSL's time for a full packet there;
 * with AVX2 they are equal, below that it is slower.  aead.c decides.
 */
#ifndef IPSECMB_H
#define IPSECMB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ipsecmb_ready(): whether it can be used here and is worth it.  The first call
 * makes the manager, which belongs to the calling thread. */
bool ipsecmb_ready(void);

/*
 * ipsecmb_crypt(seal, key, nonce, buf, len, tag): ${len} bytes in place; their
 * tag goes to ${tag}.  Opening compares nothing: the caller does.  Up to 16
 * bytes behind ${len} are read.
 */
void ipsecmb_crypt(bool seal, const uint8_t key[32], const uint8_t nonce[12],
    uint8_t *buf, size_t len, uint8_t tag[16]);

#endif

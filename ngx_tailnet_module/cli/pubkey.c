#include "ctl.h"

#include <stdio.h>
#include <string.h>

#include "../tailnetd/base64.h"
#include "../tailnetd/crypto/noise.h"
#include "../tailnetd/engine/keytext.h"

int
pubkey_main(int argc, char **argv)
{
    uint8_t key[NOISE_KEY_LEN], pub[NOISE_KEY_LEN];
    char text[256], out[KEYTEXT_NODE_LEN + 1];
    bool base64;
    size_t n;

    base64 = argc == 2 && strcmp(argv[1], "--base64") == 0;
    if (argc != 1 && !base64) {
        ctl_warn(
            "pubkey takes no arguments but --base64: the private key comes "
            "from standard input");
        return 2;
    }
    n = fread(text, 1, sizeof(text), stdin);
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL)
        n--;
    if (keytext_prefixed(key, "privkey:", text, n) != 0 &&
        keytext_base64(key, text, n) != 0) {
        noise_wipe(text, sizeof(text));
        ctl_die("\"privkey:\" and 64 hexadecimal digits, or a WireGuard key "
                "of 44 base64 characters expected");
    }
    noise_public_key(pub, key);
    noise_wipe(key, sizeof(key));
    noise_wipe(text, sizeof(text));
    if (base64)
        base64_encode(out, pub, sizeof(pub));
    else
        keytext_node(out, pub);
    puts(out);
    return 0;
}

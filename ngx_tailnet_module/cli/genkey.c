#include "ctl.h"

#include <stdio.h>
#include <sys/random.h>

#include "../tailnetd/crypto/noise.h"

int
genkey_main(int argc, char **argv)
{
    uint8_t key[NOISE_KEY_LEN];
    size_t i;

    (void)argv;
    if (argc != 1) {
        ctl_warn("genkey takes no arguments");
        return 2;
    }
    if (getrandom(key, sizeof(key), 0) != sizeof(key))
        ctl_die("no randomness to be had");
    noise_clamp(key);
    fputs("privkey:", stdout);
    for (i = 0; i < sizeof(key); i++)
        printf("%02x", key[i]);
    putchar('\n');
    noise_wipe(key, sizeof(key));
    return 0;
}

/* links: tailnetd/source/file.c tailnetd/engine/keytext.c */
/* links: tailnetd/engine/netmap.c tailnetd/engine/span.c core/tn_addr.c */
/* links: tailnetd/control/map_json.c tailnetd/control/map_json_claim.c */
/* links: tailnetd/control/map_json_grant.c tailnetd/control/map_json_node.c */
/* links: tailnetd/control/map_json_rule.c tailnetd/control/map_json_value.c */
/* libs: -ljansson */
/* max_len: 4200 */
/*
 * Files of a private key and of preshared keys, in a memory file.
 */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../ngx_tailnet_module/tailnetd/source/file.h"
#include "fuzz.h"

static void
check_error(const struct source_file_error *err)
{
    FUZZ_MUST(memchr(err->text, '\0', sizeof(err->text)) != NULL);
    FUZZ_MUST(strncmp(err->text, "the-file", 8) == 0 && err->text[8] != '\0');
}

static void
private_key(int fd)
{
    static const uint8_t none[SOURCE_FILE_KEY_LEN];
    uint8_t key[SOURCE_FILE_KEY_LEN];
    struct source_file_error err;
    bool readable;

    memset(key, 0x5a, sizeof(key));
    if (source_file_private_key(fd, "the-file", key, &readable, &err) != 0) {
        check_error(&err);
        FUZZ_MUST(memcmp(key, none, sizeof(key)) == 0);
        return;
    }
    FUZZ_MUST((key[0] & 7) == 0 && (key[31] & 0xc0) == 0x40);
}

static void
preshared_keys(int fd, const uint8_t *data, size_t len)
{
    uint8_t public[SOURCE_FILE_KEY_LEN] = {1};
    struct source_file_psks *psks;
    struct source_file_error err;
    size_t lines = 1, i;
    bool readable;

    psks = source_file_psks(fd, "the-file", &readable, &err);
    if (psks == NULL) {
        check_error(&err);
        return;
    }
    for (i = 0; i < len; i++)
        lines += data[i] == '\n';
    FUZZ_MUST(source_file_psk_count(psks) <= lines);
    if (source_file_psk(psks, public) != NULL)
        fuzz_touch(source_file_psk(psks, public), SOURCE_FILE_KEY_LEN);
    source_file_psks_free(psks);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint8_t kind = fuzz_u8(&in);
    int fd = memfd_create("key", MFD_CLOEXEC);

    FUZZ_MUST(fd != -1 && fchmod(fd, 0600) == 0);
    FUZZ_MUST(write(fd, in.p, in.len) == (ssize_t)in.len);
    if (kind & 1)
        private_key(fd);
    else
        preshared_keys(fd, in.p, in.len);
    close(fd);
    return 0;
}

/*
 * file.h: a netmap and its keys from files.
 *
 * The holder opens the files, this reads the descriptors; all checks are made
 * on the open descriptor, so that what was checked is what is read.  A file
 * that makes identity has to belong to somebody trusted and must not be
 * writable by others.  Descriptors stay the caller's; their offset is neither
 * used nor moved.
 */
#ifndef SOURCE_FILE_H
#define SOURCE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../control/map_json.h"
#include "../engine/netmap.h"

#define SOURCE_FILE_MAX_NETMAP   MAP_JSON_MAX_TEXT /* bytes */
#define SOURCE_FILE_MAX_KEY      4096        /* bytes of a private key's file */
#define SOURCE_FILE_MAX_PSK_TEXT (64u << 20) /* bytes of a file of them */
#define SOURCE_FILE_MAX_PSKS     NETMAP_MAX_PEERS

#define SOURCE_FILE_KEY_LEN   32
#define SOURCE_FILE_ERROR_LEN 512

/* A sentence that names the file, and the line where there is one. */
struct source_file_error {
    char text[SOURCE_FILE_ERROR_LEN];
};

/*
 * source_file_netmap(fd, name, owner, err): the netmap of a file, called
 * ${name} in messages.  It has to be a regular file of root's or ${owner}'s
 * that nobody else may write, and to hold a Node with Addresses.  For
 * netmap_free(); or NULL and why in ${err->text}.
 */
struct netmap *source_file_netmap(
    int fd, const char *name, uid_t owner, struct map_json_error *err);

/*
 * source_file_check_self(nm, name, public, err): whether Node.Key, if the file
 * has one, is the key this node really has.  Returns 0, or -1 and why.
 */
int source_file_check_self(const struct netmap *nm, const char *name,
    const uint8_t public[static SOURCE_FILE_KEY_LEN],
    struct source_file_error *err);

/*
 * source_file_private_key(fd, name, key, readable, err): one WireGuard private
 * key, "privkey:" and 64 hexadecimal digits or 44 characters of base64,
 * clamped; blank lines and those that start with "#" are skipped. ${*readable}:
 * everybody may read the file, which deserves a warning.  Returns 0, or -1, why
 * in ${err} and ${key} zeroed.
 */
int source_file_private_key(int fd, const char *name,
    uint8_t key[static SOURCE_FILE_KEY_LEN], bool *readable,
    struct source_file_error *err);

/* Preshared keys by peer. */
struct source_file_psks;

/*
 * source_file_psks(fd, name, readable, err): a file of lines of a public key
 * ("nodekey:" and hexadecimal, or base64) and a preshared key (hexadecimal or
 * base64).  Returns them, for source_file_psks_free(), or NULL and why.
 */
struct source_file_psks *source_file_psks(
    int fd, const char *name, bool *readable, struct source_file_error *err);

/* Wipes them; NULL is harmless. */
void source_file_psks_free(struct source_file_psks *psks);

/* The preshared key of the peer with this public key, borrowed, or NULL. */
const uint8_t *source_file_psk(const struct source_file_psks *psks,
    const uint8_t public[static SOURCE_FILE_KEY_LEN]);

size_t source_file_psk_count(const struct source_file_psks *psks);

#endif

/*
 * derp_frame.h: the frames of a DERP connection, behind its HTTP upgrade.
 *
 *   type 1 │ length 4, big-endian │ payload
 *
 *   ServerKey      s→c  magic 8 │ key 32 │ more
 *   ClientInfo     c→s  node key 32 │ nonce 24 │ box of JSON
 *   ServerInfo     s→c  nonce 24 │ box of JSON
 *   SendPacket     c→s  to 32 │ packet
 *   RecvPacket     s→c  from 32 │ packet
 *   NotePreferred  c→s  1 or 0
 *   PeerGone       s→c  key 32 │ reason
 *   Ping, Pong     both 8
 *   Health         s→c  text
 *   Restarting     s→c  ms until one may reconnect 4 │ ms to try for 4
 *
 * Sans-I/O.  A type that is not known is skipped, whatever its length.
 */
#ifndef DERP_FRAME_H
#define DERP_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../crypto/box.h"

#define DERP_KEY_LEN    32
#define DERP_HEADER_LEN 5
#define DERP_PACKET_MAX 65536      /* of one peer's data */
#define DERP_LENGTH_MAX (1u << 20) /* a frame says more: not DERP */
#define DERP_SMALL_MAX  4096       /* of any other frame that we read */
#define DERP_HEALTH_MAX 255        /* kept of a text */
#define DERP_SLACK      16         /* readable behind a packet */
#define DERP_INFO_LEN   (DERP_HEADER_LEN + 32 + BOX_NONCE_LEN + BOX_TAG_LEN + 32)

enum derp_type {
    DERP_SERVER_KEY = 0x01,
    DERP_CLIENT_INFO = 0x02,
    DERP_SERVER_INFO = 0x03,
    DERP_SEND_PACKET = 0x04,
    DERP_RECV_PACKET = 0x05,
    DERP_KEEP_ALIVE = 0x06,
    DERP_NOTE_PREFERRED = 0x07,
    DERP_PEER_GONE = 0x08,
    DERP_PING = 0x12,
    DERP_PONG = 0x13,
    DERP_HEALTH = 0x14,
    DERP_RESTARTING = 0x15,
};

enum derp_gone { DERP_GONE_LEFT = 0, DERP_GONE_NOT_HERE = 1 };

/* One frame that came; pointers are into the reader, until its next call. */
struct derp_frame {
    enum derp_type type;
    uint8_t key[DERP_KEY_LEN]; /* server's, sender's or of who is gone */
    uint8_t *data;             /* packet, changeable; nonce and box; ping */
    size_t len;
    unsigned reason;                /* PeerGone */
    char text[DERP_HEALTH_MAX + 1]; /* Health; printable */
    uint32_t reconnect_in, try_for; /* Restarting, ms */
};

/* Frames out of a stream of bytes. */
struct derp_reader {
    uint8_t head[DERP_HEADER_LEN];
    size_t have;   /* of head and payload */
    size_t length; /* of the payload */
    uint8_t *buf;  /* owned; payload and slack */
    size_t size;   /* of buf */
    bool skip;     /* a type that is not known */
    uint64_t skipped;
    const char *error; /* of -1 */
};

/*
 * derp_read(r, p, len, f): takes bytes from ${*p}, moving both on.  Returns 1:
 * ${f} is a frame; 0: all bytes are taken, more are needed; -1: not DERP or out
 * of memory, ${r}->error says what.  ${r} begins as zeros and ends with
 * derp_reader_free().
 */
int derp_read(struct derp_reader *r, const uint8_t **p, size_t *len,
    struct derp_frame *f);
void derp_reader_free(struct derp_reader *r);

/* A frame's header; returns DERP_HEADER_LEN. */
size_t derp_header(
    uint8_t out[DERP_HEADER_LEN], enum derp_type type, size_t length);

/* derp_client_info(out, pub, shared, nonce): who we are, in a box between our
 * node key ${pub} and the server's.  Returns its length. */
size_t derp_client_info(uint8_t out[DERP_INFO_LEN],
    const uint8_t pub[DERP_KEY_LEN], const uint8_t shared[BOX_KEY_LEN],
    const uint8_t nonce[BOX_NONCE_LEN]);

/* derp_server_info(f, shared): whether the ServerInfo ${f} comes from who has
 * the server's private key. */
bool derp_server_info(
    const struct derp_frame *f, const uint8_t shared[BOX_KEY_LEN]);

#endif

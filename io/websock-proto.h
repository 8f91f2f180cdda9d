/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The WebSocket protocol's bytes (RFC 6455), as a server has them: the client's opening request and
 * its answer, and the heads of frames. Nothing here moves bytes or keeps state.
 */
#ifndef FERRY_IO_WEBSOCK_PROTO_H
#define FERRY_IO_WEBSOCK_PROTO_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- the opening (RFC 6455, section 4) --- */

/* A client whose request is not complete within so many bytes is refused. */
#define WEBSOCK_REQUEST_MAX 8192
/* The only subprotocol: a stream of bytes, where frames mean nothing. */
#define WEBSOCK_SUBPROTOCOL "binary"

typedef enum WebsockVerdict {
    WEBSOCK_REQUEST_PARTIAL, /* more of it has to come */
    WEBSOCK_REQUEST_ACCEPTED,
    WEBSOCK_REQUEST_REFUSED,
} WebsockVerdict;

/*
 * Judges what a client has sent so far. Accepted and refused: *reply is the answer, for the caller
 * to g_free(). Accepted: the request was *used bytes, frames follow. Refused: errp says why.
 */
WebsockVerdict websock_request_parse(const uint8_t *bytes, size_t len, size_t *used, char **reply,
                                     GError **errp);

/* --- frames (section 5) --- */

typedef enum WebsockOpcode {
    WEBSOCK_OP_CONTINUATION = 0x0,
    WEBSOCK_OP_TEXT = 0x1,
    WEBSOCK_OP_BINARY = 0x2,
    WEBSOCK_OP_CLOSE = 0x8, /* from here on: control frames */
    WEBSOCK_OP_PING = 0x9,
    WEBSOCK_OP_PONG = 0xa,
} WebsockOpcode;

/* Status codes of a close frame (section 7.4). */
typedef enum WebsockStatus {
    WEBSOCK_STATUS_NORMAL = 1000,
    WEBSOCK_STATUS_PROTOCOL_ERROR = 1002,
    WEBSOCK_STATUS_UNSUPPORTED_DATA = 1003,
} WebsockStatus;

#define WEBSOCK_HEAD_MAX    14  /* bytes of a frame's head */
#define WEBSOCK_CONTROL_MAX 125 /* bytes that a control frame carries */
#define WEBSOCK_MASK_BYTES  4

typedef struct WebsockFrame {
    WebsockOpcode opcode;
    bool fin;       /* the last frame of its message */
    uint64_t bytes; /* of payload, up to INT64_MAX */
    uint8_t mask[WEBSOCK_MASK_BYTES];
} WebsockFrame;

/*
 * A client's frame, whose head begins at `bytes`. The head's length; 0 when more of it has to come;
 * -EPROTO and errp when no client may send that.
 */
int websock_frame_decode(const uint8_t *bytes, size_t len, WebsockFrame *frame, GError **errp);
/* The head of a server's frame, not masked and the only one of its message. Its length. */
size_t websock_frame_encode(uint8_t head[WEBSOCK_HEAD_MAX], WebsockOpcode opcode, size_t bytes);
/* Takes the mask off, or puts it on; `pos`: where in the frame's payload buf begins. */
void websock_frame_mask(const WebsockFrame *frame, uint64_t pos, uint8_t *buf, size_t len);
/* Whether a close frame may carry this: nothing, or a status that may be sent and text. */
bool websock_close_valid(const uint8_t *payload, size_t len);

#endif

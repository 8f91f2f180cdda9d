/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD protocol as both sides here speak it. Specification: "The NBD protocol", doc/proto.md of
 * the nbd project. All integers are big-endian. Offsets below are bytes from the start of a
 * message.
 *
 * Handshake (fixed newstyle):
 *   server greeting   0 u64 NBD_INIT_MAGIC, 8 u64 NBD_OPTS_MAGIC, 16 u16 handshake flags
 *   client flags      0 u32
 *   option            0 u64 NBD_OPTS_MAGIC, 8 u32 option, 12 u32 length, payload
 *   option reply      0 u64 NBD_REP_MAGIC, 8 u32 option, 12 u32 reply type, 16 u32 length, payload
 *   after EXPORT_NAME 0 u64 size, 8 u16 transmission flags, 124 zero bytes unless NO_ZEROES was
 *   agreed
 *
 * Transmission:
 *   request           0 u32 magic, 4 u16 flags, 6 u16 command, 8 u64 cookie, 16 u64 offset, 24 u32 length, payload of WRITE
 *   simple reply      0 u32 magic, 4 u32 error, 8 u64 cookie, payload of READ
 *   reply chunk       0 u32 magic, 4 u16 flags, 6 u16 type, 8 u64 cookie, 16 u32 length, payload
 */
#ifndef FERRY_BLOCK_NBD_PROTO_H
#define FERRY_BLOCK_NBD_PROTO_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include "util/bswap.h"

/* --- sizes and limits --- */

#define NBD_GREETING_BYTES     18
#define NBD_OPTION_BYTES       16
#define NBD_OPTION_REPLY_BYTES 20
#define NBD_EXPORT_NAME_BYTES  10 /* answer to EXPORT_NAME, without the zeroes */
#define NBD_EXPORT_NAME_ZEROES 124
#define NBD_REQUEST_BYTES      28
#define NBD_SIMPLE_REPLY_BYTES 16
#define NBD_CHUNK_BYTES        20
#define NBD_CHUNK_DATA_BYTES   8  /* OFFSET_DATA payload before the data */
#define NBD_CHUNK_HOLE_BYTES   12 /* OFFSET_HOLE payload */
#define NBD_CHUNK_ERROR_BYTES  6  /* ERROR payload before the message */
#define NBD_ERROR_OFFSET_BYTES 8  /* ERROR_OFFSET payload behind the message */

/* Longest string in the handshake (names, descriptions, contexts, queries, error texts). */
#define NBD_MAX_STRING 4096
/* Largest READ, WRITE payload either side sends or takes. */
#define NBD_MAX_TRANSFER (32u << 20)
/* Largest payload of an option or an option reply that is looked at. */
#define NBD_MAX_OPTION_PAYLOAD (64u << 10)

/* --- handshake --- */

#define NBD_INIT_MAGIC UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OLD_MAGIC  UINT64_C(0x00420281861253)   /* oldstyle: not spoken here */
#define NBD_REP_MAGIC  UINT64_C(0x0003e889045565a9)

/* handshake flags (server) and client flags share their values */
#define NBD_FLAG_FIXED_NEWSTYLE 0x1
#define NBD_FLAG_NO_ZEROES      0x2

/* transmission flags */
#define NBD_FLAG_HAS_FLAGS         0x0001
#define NBD_FLAG_READ_ONLY         0x0002
#define NBD_FLAG_SEND_FLUSH        0x0004
#define NBD_FLAG_SEND_FUA          0x0008
#define NBD_FLAG_SEND_TRIM         0x0020
#define NBD_FLAG_SEND_WRITE_ZEROES 0x0040
#define NBD_FLAG_SEND_DF           0x0080
#define NBD_FLAG_CAN_MULTI_CONN    0x0100
#define NBD_FLAG_SEND_CACHE        0x0400
#define NBD_FLAG_SEND_FAST_ZERO    0x0800

typedef enum NbdOption {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
} NbdOption;

#define NBD_REP_ERROR_BIT (UINT32_C(1) << 31)
enum {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,       /* u32 name length, name, description */
    NBD_REP_INFO = 3,         /* u16 NBD_INFO_*, details */
    NBD_REP_META_CONTEXT = 4, /* u32 id, name */
};
#define NBD_REP_ERR_UNSUP           (NBD_REP_ERROR_BIT | 1)
#define NBD_REP_ERR_POLICY          (NBD_REP_ERROR_BIT | 2)
#define NBD_REP_ERR_INVALID         (NBD_REP_ERROR_BIT | 3)
#define NBD_REP_ERR_PLATFORM        (NBD_REP_ERROR_BIT | 4)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_ERROR_BIT | 5)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_ERROR_BIT | 6)
#define NBD_REP_ERR_SHUTDOWN        (NBD_REP_ERROR_BIT | 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_ERROR_BIT | 8)
#define NBD_REP_ERR_TOO_BIG         (NBD_REP_ERROR_BIT | 9)

enum {
    NBD_INFO_EXPORT = 0,      /* u64 size, u16 transmission flags */
    NBD_INFO_NAME = 1,        /* canonical name */
    NBD_INFO_DESCRIPTION = 2, /* text */
    NBD_INFO_BLOCK_SIZE = 3,  /* u32 minimum, preferred, maximum */
};

/* --- transmission --- */

#define NBD_REQUEST_MAGIC      UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_CHUNK_MAGIC        UINT32_C(0x668e33ef)

typedef enum NbdCommand {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
} NbdCommand;

#define NBD_CMD_FLAG_FUA       0x01
#define NBD_CMD_FLAG_NO_HOLE   0x02
#define NBD_CMD_FLAG_DF        0x04
#define NBD_CMD_FLAG_REQ_ONE   0x08
#define NBD_CMD_FLAG_FAST_ZERO 0x10

#define NBD_REPLY_FLAG_DONE 0x1

#define NBD_REPLY_ERROR_BIT (1u << 15)
enum {
    NBD_REPLY_NONE = 0,
    NBD_REPLY_OFFSET_DATA = 1,  /* u64 offset, data */
    NBD_REPLY_OFFSET_HOLE = 2,  /* u64 offset, u32 bytes */
    NBD_REPLY_BLOCK_STATUS = 5, /* u32 context id, then u32 bytes, u32 flags for each extent */
    NBD_REPLY_ERROR = NBD_REPLY_ERROR_BIT | 1,        /* u32 error, u16 message length, message */
    NBD_REPLY_ERROR_OFFSET = NBD_REPLY_ERROR_BIT | 2, /* the same, then u64 offset */
};

/* flags of extents in base:allocation */
#define NBD_STATE_HOLE 0x1
#define NBD_STATE_ZERO 0x2
/* and in qemu:dirty-bitmap:NAME */
#define NBD_STATE_DIRTY 0x1

#define NBD_CONTEXT_ALLOCATION       "base:allocation"
#define NBD_CONTEXT_ALLOCATION_DEPTH "qemu:allocation-depth"
#define NBD_CONTEXT_DIRTY_BITMAP     "qemu:dirty-bitmap:"

/* errors on the wire */
enum {
    NBD_SUCCESS = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

/* A positive errno to its error on the wire, and back. Unknown ones are EIO. */
static inline uint32_t nbd_errno_to_wire(int err)
{
    switch (err) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

static inline int nbd_errno_from_wire(uint32_t err)
{
    switch (err) {
    case NBD_SUCCESS:
        return 0;
    case NBD_EPERM:
        return EPERM;
    case NBD_ENOMEM:
        return ENOMEM;
    case NBD_EINVAL:
        return EINVAL;
    case NBD_ENOSPC:
        return ENOSPC;
    case NBD_EOVERFLOW:
        return EOVERFLOW;
    case NBD_ENOTSUP:
        return ENOTSUP;
    case NBD_ESHUTDOWN:
        return ESHUTDOWN;
    default:
        return EIO;
    }
}

/* --- messages taken apart and put together --- */

typedef struct NbdRequest {
    uint16_t flags;
    uint16_t command;
    uint64_t cookie;
    uint64_t offset;
    uint32_t length;
} NbdRequest;

/* Fills buf (NBD_REQUEST_BYTES). */
static inline void nbd_request_encode(uint8_t *buf, const NbdRequest *req)
{
    stl_be_p(buf, NBD_REQUEST_MAGIC);
    stw_be_p(buf + 4, req->flags);
    stw_be_p(buf + 6, req->command);
    stq_be_p(buf + 8, req->cookie);
    stq_be_p(buf + 16, req->offset);
    stl_be_p(buf + 24, req->length);
}

/* False when buf (NBD_REQUEST_BYTES) does not start with the magic. */
static inline int nbd_request_decode(NbdRequest *req, const uint8_t *buf)
{
    req->flags = lduw_be_p(buf + 4);
    req->command = lduw_be_p(buf + 6);
    req->cookie = ldq_be_p(buf + 8);
    req->offset = ldq_be_p(buf + 16);
    req->length = ldul_be_p(buf + 24);
    return ldul_be_p(buf) == NBD_REQUEST_MAGIC;
}

static inline void nbd_simple_reply_encode(uint8_t *buf, uint64_t cookie, uint32_t error)
{
    stl_be_p(buf, NBD_SIMPLE_REPLY_MAGIC);
    stl_be_p(buf + 4, error);
    stq_be_p(buf + 8, cookie);
}

static inline void nbd_chunk_encode(uint8_t *buf, uint16_t flags, uint16_t type, uint64_t cookie,
                                    uint32_t length)
{
    stl_be_p(buf, NBD_CHUNK_MAGIC);
    stw_be_p(buf + 4, flags);
    stw_be_p(buf + 6, type);
    stq_be_p(buf + 8, cookie);
    stl_be_p(buf + 16, length);
}

static inline void nbd_option_encode(uint8_t *buf, uint32_t option, uint32_t length)
{
    stq_be_p(buf, NBD_OPTS_MAGIC);
    stl_be_p(buf + 8, option);
    stl_be_p(buf + 12, length);
}

static inline void nbd_option_reply_encode(uint8_t *buf, uint32_t option, uint32_t type,
                                           uint32_t length)
{
    stq_be_p(buf, NBD_REP_MAGIC);
    stl_be_p(buf + 8, option);
    stl_be_p(buf + 12, type);
    stl_be_p(buf + 16, length);
}

#endif

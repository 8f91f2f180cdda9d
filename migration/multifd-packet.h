/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The wire format of multifd channels: encoding and decoding, and the checks that need nothing but
 * the bytes. Numbers are big endian.
 *
 *   handshake (64 bytes, source to destination, once a channel)
 *        0 be32 magic   4 be32 version   8 uuid[16]   24 u8 channel   25 zero to the end
 *   packet (1344 bytes, then the payload)
 *        0 be32 magic   4 be32 version   8 be32 flags   12 be32 room for pages: 128
 *       16 be32 n       20 be32 bytes of the payload    24 be64 number of the packet
 *       32 be32 z       36 28 zero bytes                64 name of the block[256]
 *      320 be64 offset in the block[128]: n pages whose bytes are in the payload, then z zero pages
 */
#ifndef FERRY_MIGRATION_MULTIFD_PACKET_H
#define FERRY_MIGRATION_MULTIFD_PACKET_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "memory/ram-block.h"
#include "migration/multifd.h"

#define MULTIFD_HANDSHAKE_BYTES 64
/* Of these, the magic number, by which a channel is told from the main one. */
#define MULTIFD_FIRST_BYTES  4
#define MULTIFD_HEADER_BYTES 1344
/* Most bytes of a payload: those of a compressed one; a plain one has half as many at most. */
#define MULTIFD_PAYLOAD_MAX (1024 * 1024)

/* MultiFDPacket.flags */
enum {
    MULTIFD_FLAG_SYNC = 0x01,
    MULTIFD_FLAG_NONE = 0x00,
    MULTIFD_FLAG_ZLIB = 0x02,
    MULTIFD_FLAG_ZSTD = 0x04,
    MULTIFD_FLAG_CODEC_MASK = 0x3e,
    MULTIFD_FLAG_DEVICE_STATE = 0x40, /* another kind of packet; never accepted */
};

typedef struct MultiFDHandshake {
    uint8_t uuid[16]; /* of the guest; zeros: it has none */
    uint8_t channel;  /* from 0 */
} MultiFDHandshake;

void multifd_handshake_encode(const MultiFDHandshake *hs, uint8_t buf[MULTIFD_HANDSHAKE_BYTES]);
/* Checks magic and version. False with an error. */
/* Whether bytes begin as a handshake does. */
bool multifd_is_handshake(const uint8_t first[MULTIFD_FIRST_BYTES]);
bool multifd_handshake_decode(const uint8_t buf[MULTIFD_HANDSHAKE_BYTES], MultiFDHandshake *hs,
                              GError **errp) G_GNUC_WARN_UNUSED_RESULT;

typedef struct MultiFDPacket {
    uint32_t flags;
    uint32_t normal, zero; /* pages; together at most MULTIFD_PACKET_PAGES */
    uint32_t payload;      /* bytes, at most MULTIFD_PAYLOAD_MAX; 0 when normal is */
    uint64_t number;
    char block[RAM_BLOCK_NAME_MAX + 1]; /* "" in a packet without pages */
    uint64_t offsets[MULTIFD_PACKET_PAGES];
} MultiFDPacket;

/* A packet without pages says that it has room for none. */
void multifd_packet_encode(const MultiFDPacket *packet, uint8_t buf[MULTIFD_HEADER_BYTES]);
/*
 * Checks everything but the block and the offsets. What means nothing in a packet without pages is
 * not looked at: older sources send leftovers there. False with an error.
 */
bool multifd_packet_decode(const uint8_t buf[MULTIFD_HEADER_BYTES], MultiFDPacket *packet,
                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif

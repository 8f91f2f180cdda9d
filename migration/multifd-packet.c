/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The wire format of multifd channels. */
#include "migration/multifd-packet.h"

#include <string.h>
#include "util/bswap.h"
#include "util/error.h"

enum {
    HANDSHAKE_UUID = 8,
    HANDSHAKE_CHANNEL = 24,

    PACKET_FLAGS = 8,
    PACKET_ROOM = 12,
    PACKET_NORMAL = 16,
    PACKET_PAYLOAD = 20,
    PACKET_NUMBER = 24,
    PACKET_ZERO = 32,
    PACKET_BLOCK = 64,
    PACKET_OFFSETS = 320,
};

G_STATIC_ASSERT(PACKET_BLOCK + RAM_BLOCK_NAME_MAX + 1 == PACKET_OFFSETS);
G_STATIC_ASSERT(PACKET_OFFSETS + MULTIFD_PACKET_PAGES * 8 == MULTIFD_HEADER_BYTES);

static void put_preamble(uint8_t *buf)
{
    stl_be_p(buf, MULTIFD_MAGIC);
    stl_be_p(buf + 4, MULTIFD_VERSION);
}

static bool check_preamble(const uint8_t *buf, GError **errp)
{
    uint32_t magic = ldul_be_p(buf);
    uint32_t version = ldul_be_p(buf + 4);

    if (magic != MULTIFD_MAGIC) {
        error_setg(errp, "received packet magic %x, expected %x", magic, MULTIFD_MAGIC);
        return false;
    }
    if (version != MULTIFD_VERSION) {
        error_setg(errp, "received packet version %u, expected %u", version, MULTIFD_VERSION);
        return false;
    }
    return true;
}

void multifd_handshake_encode(const MultiFDHandshake *hs, uint8_t buf[MULTIFD_HANDSHAKE_BYTES])
{
    memset(buf, 0, MULTIFD_HANDSHAKE_BYTES);
    put_preamble(buf);
    memcpy(buf + HANDSHAKE_UUID, hs->uuid, sizeof(hs->uuid));
    buf[HANDSHAKE_CHANNEL] = hs->channel;
}

bool multifd_is_handshake(const uint8_t first[MULTIFD_FIRST_BYTES])
{
    return ldl_be_p(first) == MULTIFD_MAGIC;
}

bool multifd_handshake_decode(const uint8_t buf[MULTIFD_HANDSHAKE_BYTES], MultiFDHandshake *hs,
                              GError **errp)
{
    if (!check_preamble(buf, errp)) {
        return false;
    }
    memcpy(hs->uuid, buf + HANDSHAKE_UUID, sizeof(hs->uuid));
    hs->channel = buf[HANDSHAKE_CHANNEL];
    return true;
}

void multifd_packet_encode(const MultiFDPacket *packet, uint8_t buf[MULTIFD_HEADER_BYTES])
{
    uint32_t pages = packet->normal + packet->zero;

    memset(buf, 0, MULTIFD_HEADER_BYTES);
    put_preamble(buf);
    stl_be_p(buf + PACKET_FLAGS, packet->flags);
    stl_be_p(buf + PACKET_ROOM, pages ? MULTIFD_PACKET_PAGES : 0);
    stl_be_p(buf + PACKET_NORMAL, packet->normal);
    stl_be_p(buf + PACKET_PAYLOAD, packet->payload);
    stq_be_p(buf + PACKET_NUMBER, packet->number);
    stl_be_p(buf + PACKET_ZERO, packet->zero);
    memcpy(buf + PACKET_BLOCK, packet->block, strlen(packet->block));
    for (uint32_t i = 0; i < pages; i++) {
        stq_be_p(buf + PACKET_OFFSETS + i * 8, packet->offsets[i]);
    }
}

/* Packets with pages. */
static bool decode_pages(const uint8_t *buf, MultiFDPacket *packet, GError **errp)
{
    const uint8_t *name = buf + PACKET_BLOCK;

    packet->payload = packet->normal ? ldul_be_p(buf + PACKET_PAYLOAD) : 0;
    if (packet->payload > MULTIFD_PAYLOAD_MAX) {
        error_setg(errp, "packet of %u bytes, at most %u are possible", packet->payload,
                   MULTIFD_PAYLOAD_MAX);
        return false;
    }
    if (!memchr(name, 0, sizeof(packet->block))) {
        error_setg(errp, "the name of the RAM block has no end");
        return false;
    }
    memcpy(packet->block, name, sizeof(packet->block));
    for (uint32_t i = 0; i < packet->normal + packet->zero; i++) {
        packet->offsets[i] = ldq_be_p(buf + PACKET_OFFSETS + i * 8);
    }
    return true;
}

bool multifd_packet_decode(const uint8_t buf[MULTIFD_HEADER_BYTES], MultiFDPacket *packet,
                           GError **errp)
{
    uint32_t room = ldul_be_p(buf + PACKET_ROOM);

    if (!check_preamble(buf, errp)) {
        return false;
    }
    packet->flags = ldul_be_p(buf + PACKET_FLAGS);
    packet->normal = ldul_be_p(buf + PACKET_NORMAL);
    packet->zero = ldul_be_p(buf + PACKET_ZERO);
    packet->number = ldq_be_p(buf + PACKET_NUMBER);
    packet->payload = 0;
    packet->block[0] = '\0';

    if (packet->flags & ~(uint32_t)(MULTIFD_FLAG_SYNC | MULTIFD_FLAG_CODEC_MASK)) {
        error_setg(errp, "packet with unknown flags %x", packet->flags);
        return false;
    }
    if (room > MULTIFD_PACKET_PAGES) {
        error_setg(errp, "packet with room for %u pages, at most %u are possible", room,
                   MULTIFD_PACKET_PAGES);
        return false;
    }
    if (packet->normal > room || packet->zero > room - packet->normal) {
        error_setg(errp, "packet with %u normal and %u zero pages and room for %u", packet->normal,
                   packet->zero, room);
        return false;
    }
    return !(packet->normal || packet->zero) || decode_pages(buf, packet, errp);
}

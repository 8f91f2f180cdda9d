/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packed virtqueues (OASIS VIRTIO 1.2, "Packed Virtqueues").
 *
 *   descriptor ring          16 bytes each: le64 addr, le32 len, le16 id, le16 flags
 *   event suppression (two)  le16 offset and wrap counter (bit 15), le16 flags (bits 0 and 1)
 */
#include <string.h>
#include "hw/virtio/virtqueue-int.h"

#define DESC_F_AVAIL  0x0080u
#define DESC_F_USED   0x8000u
#define LEN_AT        8u
#define ID_AT         12u
#define DESC_FLAGS_AT 14u

#define EVENT_BYTES    4u
#define EVENT_DESC_AT  0u
#define EVENT_FLAGS_AT 2u
#define EVENT_WRAP     0x8000u
#define EVENT_ENABLE   0u
#define EVENT_DISABLE  1u
#define EVENT_DESC     2u

static void packed_areas(const VirtQueue *vq, uint64_t bytes[3])
{
    bytes[0] = (uint64_t)vq->size * VIRTQ_DESC_BYTES;
    bytes[1] = bytes[2] = EVENT_BYTES;
}

static bool packed_size_fits(unsigned size)
{
    return true;
}

static uint64_t slot_at(unsigned slot)
{
    return (uint64_t)slot * VIRTQ_DESC_BYTES;
}

static bool packed_available(VirtQueue *vq)
{
    uint16_t flags =
        address_space_lduw_le_cached(&vq->desc_ring, slot_at(vq->next_avail) + DESC_FLAGS_AT);

    return !!(flags & DESC_F_AVAIL) == vq->avail_wrap && !!(flags & DESC_F_USED) != vq->avail_wrap;
}

static void advance(const VirtQueue *vq, uint16_t *place, bool *wrap, unsigned n)
{
    unsigned next = *place + n;

    if (next >= vq->size) {
        next -= vq->size;
        *wrap = !*wrap;
    }
    *place = (uint16_t)next;
}

/* --- taking --- */

static VirtQueueDesc decode(const uint8_t raw[VIRTQ_DESC_BYTES])
{
    VirtQueueDesc desc;

    memcpy(&desc.addr, raw, 8);
    memcpy(&desc.len, raw + LEN_AT, 4);
    memcpy(&desc.extra, raw + ID_AT, 2);
    memcpy(&desc.flags, raw + DESC_FLAGS_AT, 2);
    return (VirtQueueDesc){.addr = le64_to_cpu(desc.addr),
                           .len = le32_to_cpu(desc.len),
                           .flags = le16_to_cpu(desc.flags),
                           .extra = le16_to_cpu(desc.extra)};
}

/* "Indirect Flag: Scatter-Gather Support": all descriptors of the table, in order; only WRITE counts. */
static bool add_table(VirtQueue *vq, VirtQueueElement *elem, const VirtQueueDesc *desc)
{
    VirtQueueTable table;
    bool ok = true;

    if (!virtqueue_table_open(vq, &table, desc)) {
        return false;
    }
    for (unsigned i = 0; ok && i < table.n; i++) {
        uint8_t raw[VIRTQ_DESC_BYTES];
        VirtQueueDesc inner;

        ok = virtqueue_table_read(vq, &table, i, raw);
        if (ok) {
            inner = decode(raw);
            ok = virtqueue_add(vq, elem, &inner);
        }
    }
    virtqueue_table_close(&table);
    return ok;
}

static bool packed_take(VirtQueue *vq, VirtQueueElement *elem)
{
    uint16_t place = vq->next_avail;
    bool wrap = vq->avail_wrap;
    VirtQueueDesc desc;
    unsigned n = 0;

    do {
        uint8_t raw[VIRTQ_DESC_BYTES];

        if (vq->in_flight + n >= vq->size) {
            return virtqueue_break(vq, "more than %u descriptors are in flight", vq->size);
        }
        (void)address_space_read_cached(&vq->desc_ring, slot_at(place), raw, sizeof(raw));
        desc = decode(raw);
        if (desc.flags & VIRTQ_DESC_F_INDIRECT) {
            if (n || (desc.flags & VIRTQ_DESC_F_NEXT)) {
                return virtqueue_break(vq, "a chain has an indirect table");
            }
            if (!add_table(vq, elem, &desc)) {
                return false;
            }
        } else if (!virtqueue_add(vq, elem, &desc)) {
            return false;
        }
        advance(vq, &place, &wrap, 1);
        n++;
    } while (desc.flags & VIRTQ_DESC_F_NEXT);
    if (desc.extra >= vq->size) {
        return virtqueue_break(vq, "buffer id %u in a queue of %u", desc.extra, vq->size);
    }
    elem->id = desc.extra; /* of the last one in the list */
    elem->descriptors = (uint16_t)n;
    vq->next_avail = place;
    vq->avail_wrap = wrap;
    return true;
}

static void packed_untake(VirtQueue *vq, const VirtQueueElement *elem)
{
    unsigned place = vq->next_avail;

    if (place < elem->descriptors) {
        place += vq->size;
        vq->avail_wrap = !vq->avail_wrap;
    }
    vq->next_avail = (uint16_t)(place - elem->descriptors);
}

/* --- using --- */

typedef struct UsedFlags {
    uint64_t at;
    uint16_t flags;
} UsedFlags;

/* Writes all of an entry but its flags, which make it used. */
static UsedFlags put_entry(VirtQueue *vq, const VirtQueueElement *elem, uint64_t written)
{
    uint64_t at = slot_at(vq->next_used);
    uint32_t len = (uint32_t)MIN(MIN(written, elem->in_bytes), UINT32_MAX);
    UsedFlags used = {.at = at + DESC_FLAGS_AT};

    address_space_stl_le_cached(&vq->desc_ring, at + LEN_AT, len);
    address_space_stw_le_cached(&vq->desc_ring, at + ID_AT, elem->id);
    used.flags = (vq->used_wrap ? DESC_F_AVAIL | DESC_F_USED : 0) | (len ? VIRTQ_DESC_F_WRITE : 0);
    advance(vq, &vq->next_used, &vq->used_wrap, elem->descriptors);
    return used;
}

/* "Multi-buffer requests": the first one becomes used last. */
static void packed_put(VirtQueue *vq, VirtQueueElement *const *elems, const uint64_t *written,
                       unsigned n)
{
    UsedFlags first = {0};

    for (unsigned i = 0; i < n; i++) {
        UsedFlags used = put_entry(vq, elems[i], written[i]);

        if (i) {
            address_space_stw_le_cached(&vq->desc_ring, used.at, used.flags);
        } else {
            first = used;
        }
    }
    address_space_stw_le_cached(&vq->desc_ring, first.at, first.flags);
}

/* --- notifications --- */

static void packed_ask(VirtQueue *vq, bool wanted)
{
    uint16_t flags = wanted ? EVENT_ENABLE : EVENT_DISABLE;

    if (wanted && virtqueue_has(vq, VIRTIO_F_EVENT_IDX)) {
        address_space_stw_le_cached(&vq->device_ring, EVENT_DESC_AT,
                                    (uint16_t)(vq->next_avail | (vq->avail_wrap ? EVENT_WRAP : 0)));
        flags = EVENT_DESC;
    }
    address_space_stw_le_cached(&vq->device_ring, EVENT_FLAGS_AT, flags);
}

static bool packed_asked(VirtQueue *vq, unsigned moved)
{
    uint16_t flags = address_space_lduw_le_cached(&vq->driver_ring, EVENT_FLAGS_AT) & 3;
    uint16_t event = address_space_lduw_le_cached(&vq->driver_ring, EVENT_DESC_AT);
    unsigned place = event & ~EVENT_WRAP;
    int behind;

    if (flags != EVENT_DESC || !virtqueue_has(vq, VIRTIO_F_EVENT_IDX)) {
        return flags != EVENT_DISABLE;
    }
    /* An entry of the other lap was passed before the ring turned. */
    behind = (int)vq->next_used - (int)place;
    behind += !!(event & EVENT_WRAP) == vq->used_wrap ? 0 : vq->size;
    return behind > 0 && (unsigned)behind <= moved;
}

const VirtQueueFormat virtqueue_packed = {
    .areas = packed_areas,
    .size_fits = packed_size_fits,
    .available = packed_available,
    .take = packed_take,
    .untake = packed_untake,
    .put = packed_put,
    .ask = packed_ask,
    .asked = packed_asked,
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Split virtqueues (OASIS VIRTIO 1.2, "Split Virtqueues"). Fields are little endian; the legacy interface has the order
 * of the guest, which is the same on x86.
 *
 *   descriptor table   16 bytes each: le64 addr, le32 len, le16 flags, le16 next
 *   available ring     le16 flags, le16 idx, le16 ring[size], le16 used_event
 *   used ring          le16 flags, le16 idx, {le32 id, le32 len} ring[size], le16 avail_event
 */
#include <string.h>
#include "hw/virtio/virtqueue-int.h"
#include "util/int-math.h"

#define FLAGS_AT     0u
#define IDX_AT       2u
#define RING_AT      4u
#define AVAIL_BYTES  2u
#define USED_BYTES   8u
#define NO_INTERRUPT 1u /* VIRTQ_AVAIL_F_NO_INTERRUPT */
#define NO_NOTIFY    1u /* VIRTQ_USED_F_NO_NOTIFY */

static void split_areas(const VirtQueue *vq, uint64_t bytes[3])
{
    unsigned event = virtqueue_has(vq, VIRTIO_F_EVENT_IDX) ? 2 : 0;

    bytes[0] = (uint64_t)vq->size * VIRTQ_DESC_BYTES;
    bytes[1] = RING_AT + (uint64_t)vq->size * AVAIL_BYTES + event;
    bytes[2] = RING_AT + (uint64_t)vq->size * USED_BYTES + event;
}

static bool split_size_fits(unsigned size)
{
    return is_power_of_2(size);
}

static bool split_available(VirtQueue *vq)
{
    if (vq->seen_avail == vq->next_avail) {
        uint16_t idx = address_space_lduw_le_cached(&vq->driver_ring, IDX_AT);
        uint16_t ahead = (uint16_t)(idx - vq->next_avail);

        if (ahead > vq->size) {
            return virtqueue_break(vq, "the available index went from %u to %u in a queue of %u",
                                   vq->next_avail, idx, vq->size);
        }
        vq->seen_avail = idx;
    }
    return vq->seen_avail != vq->next_avail;
}

/* --- chains --- */

static VirtQueueDesc decode(const uint8_t raw[VIRTQ_DESC_BYTES])
{
    VirtQueueDesc desc;

    memcpy(&desc.addr, raw, 8);
    memcpy(&desc.len, raw + 8, 4);
    memcpy(&desc.flags, raw + 12, 2);
    memcpy(&desc.extra, raw + 14, 2);
    return (VirtQueueDesc){.addr = le64_to_cpu(desc.addr),
                           .len = le32_to_cpu(desc.len),
                           .flags = le16_to_cpu(desc.flags),
                           .extra = le16_to_cpu(desc.extra)};
}

static bool read_desc(VirtQueue *vq, VirtQueueTable *table, unsigned i, VirtQueueDesc *desc)
{
    uint8_t raw[VIRTQ_DESC_BYTES];

    if (i >= (table ? table->n : vq->size)) {
        return virtqueue_break(vq, "descriptor %u is not in the table", i);
    }
    if (table) {
        if (!virtqueue_table_read(vq, table, i, raw)) {
            return false;
        }
    } else {
        (void)address_space_read_cached(&vq->desc_ring, (uint64_t)i * VIRTQ_DESC_BYTES, raw,
                                        sizeof(raw));
    }
    *desc = decode(raw);
    return true;
}

/*
 * Follows a chain in one table. *indirect receives a descriptor that refers to another table, which ends a chain of the
 * queue's own table. A chain has at most as many descriptors as its table, so a loop ends too.
 */
static bool walk(VirtQueue *vq, VirtQueueElement *elem, VirtQueueTable *table, unsigned i,
                 VirtQueueDesc *indirect)
{
    unsigned limit = table ? table->n : vq->size;

    for (unsigned n = 0; n < limit; n++) {
        VirtQueueDesc desc;

        if (!read_desc(vq, table, i, &desc)) {
            return false;
        }
        if (desc.flags & VIRTQ_DESC_F_INDIRECT) {
            if (table) {
                return virtqueue_break(vq, "an indirect table refers to another");
            }
            if (desc.flags & VIRTQ_DESC_F_NEXT) {
                return virtqueue_break(vq, "a chain goes on behind an indirect table");
            }
            *indirect = desc;
            return true;
        }
        if (!virtqueue_add(vq, elem, &desc)) {
            return false;
        }
        if (!(desc.flags & VIRTQ_DESC_F_NEXT)) {
            return true;
        }
        i = desc.extra;
    }
    return virtqueue_break(vq, "a chain is longer than its table");
}

static bool split_take(VirtQueue *vq, VirtQueueElement *elem)
{
    unsigned slot = vq->next_avail % vq->size;
    uint16_t head =
        address_space_lduw_le_cached(&vq->driver_ring, RING_AT + (uint64_t)slot * AVAIL_BYTES);
    VirtQueueDesc indirect = {0};
    VirtQueueTable table;

    if (vq->in_flight >= vq->size) {
        return virtqueue_break(vq, "more than %u requests are in flight", vq->size);
    }
    if (!walk(vq, elem, NULL, head, &indirect)) {
        return false;
    }
    if (indirect.flags) {
        bool ok;

        if (!virtqueue_table_open(vq, &table, &indirect)) {
            return false;
        }
        ok = walk(vq, elem, &table, 0, NULL);
        virtqueue_table_close(&table);
        if (!ok) {
            return false;
        }
    }
    elem->id = head;
    elem->descriptors = 1;
    vq->next_avail++;
    return true;
}

static void split_untake(VirtQueue *vq, const VirtQueueElement *elem)
{
    vq->next_avail--;
}

/* "The Virtqueue Used Ring": entries are whole before the index says so. */
static void split_put(VirtQueue *vq, VirtQueueElement *const *elems, const uint64_t *written,
                      unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned slot = (uint16_t)(vq->next_used + i) % vq->size;
        uint64_t at = RING_AT + (uint64_t)slot * USED_BYTES;
        uint64_t len = MIN(written[i], elems[i]->in_bytes);

        address_space_stl_le_cached(&vq->device_ring, at, elems[i]->id);
        address_space_stl_le_cached(&vq->device_ring, at + 4, (uint32_t)MIN(len, UINT32_MAX));
    }
    vq->next_used = (uint16_t)(vq->next_used + n);
    address_space_stw_le_cached(&vq->device_ring, IDX_AT, vq->next_used);
}

/* "Available Buffer Notification Suppression": with the event index, flags stay 0. */
static void split_ask(VirtQueue *vq, bool wanted)
{
    if (!virtqueue_has(vq, VIRTIO_F_EVENT_IDX)) {
        address_space_stw_le_cached(&vq->device_ring, FLAGS_AT, wanted ? 0 : NO_NOTIFY);
    } else if (wanted) {
        address_space_stw_le_cached(&vq->device_ring, RING_AT + (uint64_t)vq->size * USED_BYTES,
                                    vq->next_avail);
    }
}

static bool split_asked(VirtQueue *vq, unsigned moved)
{
    if (virtqueue_has(vq, VIRTIO_F_NOTIFY_ON_EMPTY) && !vq->in_flight && !split_available(vq)) {
        return true;
    }
    if (virtqueue_has(vq, VIRTIO_F_EVENT_IDX)) {
        uint16_t event = address_space_lduw_le_cached(&vq->driver_ring,
                                                      RING_AT + (uint64_t)vq->size * AVAIL_BYTES);
        uint16_t behind = (uint16_t)(vq->next_used - event);

        return behind && behind <= moved;
    }
    return !(address_space_lduw_le_cached(&vq->driver_ring, FLAGS_AT) & NO_INTERRUPT);
}

const VirtQueueFormat virtqueue_split = {
    .areas = split_areas,
    .size_fits = split_size_fits,
    .available = split_available,
    .take = split_take,
    .untake = split_untake,
    .put = split_put,
    .ask = split_ask,
    .asked = split_asked,
};

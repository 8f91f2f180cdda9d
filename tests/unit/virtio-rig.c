/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's side of one virtqueue. */
#include "tests/unit/virtio-rig.h"

#include <string.h>

#define TABLE_ENTRIES 64u

/* --- memory --- */

static uint64_t regs_read(void *opaque, hwaddr addr, unsigned size)
{
    ((VirtIORig *)opaque)->regs_accesses++;
    return 0;
}

static void regs_write(void *opaque, hwaddr addr, uint64_t data, unsigned size)
{
    ((VirtIORig *)opaque)->regs_accesses++;
}

static const MemoryRegionOps regs_ops = {.read = regs_read, .write = regs_write};

static void note_reason(void *opaque, VirtQueue *vq, const char *reason)
{
    VirtIORig *rig = opaque;

    rig->breaks++;
    g_free(rig->reason);
    rig->reason = g_strdup(reason);
}

void rig_store16(VirtIORig *rig, hwaddr addr, uint16_t value)
{
    value = cpu_to_le16(value);
    memcpy(rig->mem + addr, &value, 2);
}

uint16_t rig_load16(const VirtIORig *rig, hwaddr addr)
{
    uint16_t value;

    memcpy(&value, rig->mem + addr, 2);
    return le16_to_cpu(value);
}

uint32_t rig_load32(const VirtIORig *rig, hwaddr addr)
{
    return rig_load16(rig, addr) | (uint32_t)rig_load16(rig, addr + 2) << 16;
}

void rig_set_desc(VirtIORig *rig, hwaddr table, unsigned i, VirtQueueDesc desc)
{
    hwaddr at = table + (hwaddr)i * VIRTQ_DESC_BYTES;

    for (unsigned k = 0; k < 4; k++) {
        rig_store16(rig, at + 2 * (hwaddr)k, (uint16_t)(desc.addr >> (16 * k)));
    }
    rig_store16(rig, at + 8, (uint16_t)desc.len);
    rig_store16(rig, at + 10, (uint16_t)(desc.len >> 16));
    rig_store16(rig, at + 12, rig->packed ? desc.extra : desc.flags);
    rig_store16(rig, at + 14, rig->packed ? desc.flags : desc.extra);
}

/* --- life --- */

static void start(VirtIORig *rig)
{
    memset(rig->mem, 0, RIG_BUFFERS);
    rig->place = rig->used_place = 0;
    rig->wrap = rig->used_wrap = true;
    rig->n_free = rig->size;
    memset(rig->busy, 0, sizeof(rig->busy));
    rig->vq.size = rig->size;
    rig->vq.desc = RIG_DESC;
    rig->vq.driver = RIG_DRIVER;
    rig->vq.device = RIG_DEVICE;
    g_assert_true(virtqueue_start(&rig->vq, rig->features));
}

VirtIORig *rig_new(bool packed, uint16_t size, uint64_t features)
{
    VirtIORig *rig = g_new0(VirtIORig, 1);
    g_autoptr(GError) err = NULL;

    rig->packed = packed;
    rig->size = size;
    rig->features = features | (packed ? RIG_BIT(VIRTIO_F_RING_PACKED) : 0);
    memory_region_init(&rig->root, NULL, "root", MEMORY_REGION_WHOLE);
    g_assert_true(memory_region_init_ram(&rig->ram, NULL, "rig.ram", RIG_RAM, &err));
    g_assert_true(memory_region_init_rom(&rig->rom, NULL, "rig.rom", 0x1000, &err));
    memory_region_init_io(&rig->regs, NULL, &regs_ops, rig, "regs", 0x1000);
    memory_region_add_subregion(&rig->root, 0, &rig->ram);
    memory_region_add_subregion(&rig->root, RIG_REGS, &rig->regs);
    memory_region_add_subregion(&rig->root, RIG_ROM, &rig->rom);
    address_space_init(&rig->as, &rig->root, "rig");
    rig->mem = memory_region_get_ram_ptr(&rig->ram);
    rig->host = (VirtQueueHost){.as = &rig->as, .on_broken = note_reason, .opaque = rig};
    virtqueue_init(&rig->vq, &rig->host, VIRTQUEUE_SIZE_MAX, sizeof(VirtQueueElement));
    start(rig);
    return rig;
}

static void stop(VirtIORig *rig)
{
    virtqueue_stop(&rig->vq);
    virtqueue_reset(&rig->vq);
    g_clear_pointer(&rig->reason, g_free);
}

void rig_restart(VirtIORig *rig)
{
    stop(rig);
    rig->host.broken = false;
    start(rig);
}

void rig_free(VirtIORig *rig)
{
    stop(rig);
    virtqueue_destroy(&rig->vq);
    address_space_destroy(&rig->as);
    memory_region_del_subregion(&rig->root, &rig->ram);
    memory_region_del_subregion(&rig->root, &rig->regs);
    memory_region_del_subregion(&rig->root, &rig->rom);
    memory_region_destroy(&rig->ram);
    memory_region_destroy(&rig->regs);
    memory_region_destroy(&rig->rom);
    memory_region_destroy(&rig->root);
    g_free(rig);
}

/* --- the driver --- */

uint16_t rig_avail_flags(const VirtIORig *rig)
{
    return rig->wrap ? 0x0080 : 0x8000;
}

static int take_id(VirtIORig *rig)
{
    for (int i = 0; i < rig->size; i++) {
        if (!rig->busy[i]) {
            rig->busy[i] = true;
            return i;
        }
    }
    g_assert_not_reached();
}

static VirtQueueDesc desc_of(const RigPiece *piece, bool more)
{
    return (VirtQueueDesc){.addr = piece->addr,
                           .len = piece->len,
                           .flags = (piece->writable ? VIRTQ_DESC_F_WRITE : 0) |
                                    (more ? VIRTQ_DESC_F_NEXT : 0)};
}

static VirtQueueDesc write_table(VirtIORig *rig, unsigned id, const RigPiece *pieces, unsigned n)
{
    hwaddr table = RIG_TABLES + (hwaddr)id * TABLE_ENTRIES * VIRTQ_DESC_BYTES;

    g_assert_cmpuint(n, <=, TABLE_ENTRIES);
    g_assert_cmpuint(table + TABLE_ENTRIES * VIRTQ_DESC_BYTES, <=, RIG_BUFFERS);
    for (unsigned i = 0; i < n; i++) {
        VirtQueueDesc desc = desc_of(&pieces[i], !rig->packed && i + 1 < n);

        desc.extra = rig->packed ? 0 : (uint16_t)(i + 1);
        rig_set_desc(rig, table, i, desc);
    }
    return (VirtQueueDesc){
        .addr = table, .len = n * VIRTQ_DESC_BYTES, .flags = VIRTQ_DESC_F_INDIRECT};
}

static void split_add(VirtIORig *rig, unsigned head, const RigPiece *pieces, unsigned n,
                      bool indirect)
{
    unsigned at = head;

    for (unsigned i = 0; i < n; i++) {
        bool more = i + 1 < n;
        VirtQueueDesc desc =
            indirect ? write_table(rig, head, pieces, n) : desc_of(&pieces[i], more);

        if (!indirect && more) {
            desc.extra = rig->next_of[at] = (uint16_t)take_id(rig);
        }
        rig_set_desc(rig, RIG_DESC, at, desc);
        if (indirect) {
            break;
        }
        at = desc.extra;
    }
    rig_store16(rig, RIG_DRIVER + 4 + 2 * (hwaddr)(rig->place % rig->size), (uint16_t)head);
    rig_store16(rig, RIG_DRIVER + 2, ++rig->place);
}

static void packed_add(VirtIORig *rig, unsigned id, const RigPiece *pieces, unsigned n,
                       bool indirect)
{
    unsigned entries = indirect ? 1 : n;

    for (unsigned i = 0; i < entries; i++) {
        VirtQueueDesc desc =
            indirect ? write_table(rig, id, pieces, n) : desc_of(&pieces[i], i + 1 < n);

        desc.extra = (uint16_t)id;
        desc.flags |= rig_avail_flags(rig);
        rig_set_desc(rig, RIG_DESC, rig->place, desc);
        if (++rig->place == rig->size) {
            rig->place = 0;
            rig->wrap = !rig->wrap;
        }
    }
}

int rig_add(VirtIORig *rig, const RigPiece *pieces, unsigned n, bool indirect)
{
    unsigned entries = indirect ? 1 : n;
    int id;

    if (rig->n_free < entries) {
        return -1;
    }
    id = take_id(rig);
    rig->n_free -= entries;
    rig->taken[id] = (uint16_t)entries;
    (rig->packed ? packed_add : split_add)(rig, (unsigned)id, pieces, n, indirect);
    return id;
}

static void give_back(VirtIORig *rig, unsigned id)
{
    unsigned n = rig->taken[id];

    rig->n_free += n;
    rig->busy[id] = false;
    for (unsigned i = 1; !rig->packed && i < n; i++) {
        id = rig->next_of[id];
        rig->busy[id] = false;
    }
}

static bool packed_collect(VirtIORig *rig, uint16_t *id, uint32_t *len)
{
    hwaddr at = RIG_DESC + (hwaddr)rig->used_place * VIRTQ_DESC_BYTES;
    uint16_t flags = rig_load16(rig, at + 14);
    unsigned next;

    if (!!(flags & 0x80) != rig->used_wrap || !!(flags & 0x8000) != rig->used_wrap) {
        return false;
    }
    *id = rig_load16(rig, at + 12);
    *len = rig_load32(rig, at + 8);
    g_assert_cmpint(!!(flags & VIRTQ_DESC_F_WRITE), ==, *len != 0);
    g_assert_cmpuint(*id, <, rig->size);
    next = (unsigned)rig->used_place + rig->taken[*id];
    rig->used_wrap ^= next >= rig->size;
    rig->used_place = (uint16_t)(next % rig->size);
    return true;
}

static bool split_collect(VirtIORig *rig, uint16_t *id, uint32_t *len)
{
    hwaddr at = RIG_DEVICE + 4 + 8 * (hwaddr)(rig->used_place % rig->size);

    if (rig_load16(rig, RIG_DEVICE + 2) == rig->used_place) {
        return false;
    }
    rig->used_place++;
    *id = (uint16_t)rig_load32(rig, at);
    *len = rig_load32(rig, at + 4);
    g_assert_cmpuint(*id, <, rig->size);
    return true;
}

bool rig_collect(VirtIORig *rig, uint16_t *id, uint32_t *len)
{
    if (!(rig->packed ? packed_collect : split_collect)(rig, id, len)) {
        return false;
    }
    g_assert_true(rig->busy[*id]);
    give_back(rig, *id);
    return true;
}

bool rig_would_kick(const VirtIORig *rig)
{
    bool event = rig->features >> VIRTIO_F_EVENT_IDX & 1;
    uint16_t flags = rig_load16(rig, RIG_DEVICE);

    if (rig->packed) {
        uint16_t last = (uint16_t)((rig->place + rig->size - 1) % rig->size);

        flags = rig_load16(rig, RIG_DEVICE + 2);
        if (flags == 2) {
            return (rig_load16(rig, RIG_DEVICE) & 0x7fff) == last;
        }
        return !flags;
    }
    if (event) {
        return rig_load16(rig, RIG_DEVICE + 4 + 8 * (hwaddr)rig->size) ==
               (uint16_t)(rig->place - 1);
    }
    return !flags;
}

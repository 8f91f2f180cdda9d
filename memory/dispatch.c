/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device does at an address.
 *
 * The guest makes an access of one size; the device's functions take accesses of other sizes. A
 * wide access becomes several narrow ones in ascending order of addresses. A narrow access becomes
 * one wide access that contains it, of which one part counts; the rest of a widened write is 0.
 */
#include "memory/memory.h"

#include "memory/memory-int.h"

/* The sizes with their defaults filled in. */
static MemoryAccessSizes effective(const MemoryAccessSizes *sizes)
{
    return (MemoryAccessSizes){
        .min = sizes->min ? sizes->min : 1,
        .max = sizes->max ? sizes->max : 4,
        .unaligned = sizes->unaligned,
    };
}

static uint64_t low_bytes(uint64_t value, unsigned size)
{
    return value & UINT64_MAX >> (64 - 8 * size);
}

static bool is_permitted(const MemoryRegion *mr, const MemoryTransaction *t)
{
    MemoryAccessSizes guest = effective(&mr->ops->guest);
    bool is_size = t->size && t->size <= 8 && !(t->size & (t->size - 1));

    if (!is_size || t->size < guest.min || t->size > guest.max) {
        return false;
    }
    if (t->addr >= mr->size || mr->size - t->addr < t->size) {
        return false;
    }
    if (!guest.unaligned && t->addr % t->size) {
        return false;
    }
    return !mr->ops->accepts || mr->ops->accepts(mr->opaque, t);
}

unsigned memory_region_step(const MemoryRegion *mr, hwaddr addr, uint64_t len)
{
    MemoryAccessSizes guest = effective(&mr->ops->guest);
    unsigned step = guest.max;

    while (step > 1 && (step > len || (!guest.unaligned && addr % step))) {
        step /= 2;
    }
    return step;
}

/* One call of a function. */
static MemTxResult call(const MemoryRegion *mr, MemoryTransaction *t)
{
    const MemoryRegionOps *ops = mr->ops;
    MemTxResult result = MEMTX_OK;

    t->data = low_bytes(t->data, t->size);
    if (ops->transact) {
        result = ops->transact(mr->opaque, t);
    } else if (t->is_write && ops->write) {
        ops->write(mr->opaque, t->addr, t->data, t->size);
    } else if (!t->is_write) {
        t->data = ops->read ? ops->read(mr->opaque, t->addr, t->size) : 0;
    }
    t->data = low_bytes(t->data, t->size);
    return result;
}

/* How far up in the value of a `whole` bytes wide access the `part` bytes at `skip` stand. */
static unsigned part_shift(const MemoryRegion *mr, unsigned whole, unsigned part, unsigned skip)
{
    return 8 * (mr->ops->big_endian ? whole - part - MIN(skip, whole - part) : skip);
}

/* The device takes no access as narrow as *t. */
static MemTxResult call_widened(const MemoryRegion *mr, MemoryTransaction *t, unsigned width,
                                bool unaligned)
{
    MemoryTransaction wide = *t;
    unsigned shift;
    MemTxResult result;

    wide.size = width;
    wide.addr -= unaligned ? 0 : t->addr % width;
    shift = part_shift(mr, width, t->size, (unsigned)(t->addr - wide.addr));
    wide.data = t->is_write ? low_bytes(t->data, t->size) << shift : 0;
    result = call(mr, &wide);
    if (!t->is_write) {
        t->data = low_bytes(wide.data >> shift, t->size);
    }
    return result;
}

static MemTxResult call_in_parts(const MemoryRegion *mr, MemoryTransaction *t, unsigned width)
{
    MemTxResult result = MEMTX_OK;
    uint64_t answer = 0;

    for (unsigned done = 0; done < t->size; done += width) {
        unsigned shift = part_shift(mr, t->size, width, done);
        MemoryTransaction part = {
            .addr = t->addr + done,
            .size = width,
            .data = t->is_write ? t->data >> shift : 0,
            .is_write = t->is_write,
            .attrs = t->attrs,
        };

        result |= call(mr, &part);
        answer |= part.data << shift;
    }
    if (!t->is_write) {
        t->data = answer;
    }
    return result;
}

/* The value of an access to a big-endian device, seen by a little-endian guest, and back. */
static uint64_t turn_round(const MemoryRegion *mr, uint64_t data, unsigned size)
{
    return mr->ops->big_endian ? __builtin_bswap64(data) >> (64 - 8 * size) : data;
}

MemTxResult memory_region_dispatch(MemoryRegion *mr, MemoryTransaction *t)
{
    MemoryAccessSizes device;
    MemTxResult result;

    if (!mr->ops || !is_permitted(mr, t)) {
        t->data = 0;
        return MEMTX_DECODE_ERROR;
    }
    device = effective(&mr->ops->device);
    t->data = turn_round(mr, t->data, t->size);
    result = t->size < device.min ? call_widened(mr, t, device.min, device.unaligned)
                                  : call_in_parts(mr, t, MIN(t->size, device.max));
    t->data = turn_round(mr, t->data, t->size);
    return result;
}

MemTxResult memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr, uint64_t *data,
                                        unsigned size, MemTxAttrs attrs)
{
    MemoryTransaction t = {.addr = addr, .size = size, .attrs = attrs};
    MemTxResult result = memory_region_dispatch(mr, &t);

    *data = t.data;
    return result;
}

MemTxResult memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr, uint64_t data,
                                         unsigned size, MemTxAttrs attrs)
{
    MemoryTransaction t = {
        .addr = addr, .data = data, .size = size, .is_write = true, .attrs = attrs};

    return memory_region_dispatch(mr, &t);
}

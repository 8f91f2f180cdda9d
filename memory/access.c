/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and writing address spaces. */
#include <string.h>
#include "memory/address-space.h"
#include "util/bql.h"
#include "util/bswap.h"

/* Bytes from addr that range answers for, at most len. addr lies in it. */
static uint64_t range_bytes(const FlatRange *range, hwaddr addr, uint64_t len)
{
    uint64_t left = range->last - addr;

    return len - 1 > left ? left + 1 : len;
}

/* Bytes from addr, at most len, at which there is nothing: up to the range that follows. */
static uint64_t hole_bytes(const FlatView *view, hwaddr addr, uint64_t len)
{
    const FlatRange *next = flatview_find_from(view, addr);

    return next ? MIN(next->first - addr, len) : len;
}

static uint8_t *range_host(const FlatRange *range, hwaddr addr)
{
    return range->block->host + range->offset + (addr - range->first);
}

/* Widest single access at addr that the region takes; 1..8, a power of two, at most len. */
static unsigned mmio_step(const MemoryRegion *mr, hwaddr addr, uint64_t len)
{
    unsigned max = mr->ops->valid.max_access_size ? mr->ops->valid.max_access_size : 4;

    while (max > 1 && (max > len || (!mr->ops->valid.unaligned && (addr & (max - 1))))) {
        max /= 2;
    }
    return max;
}

static MemTxResult mmio_rw(const FlatRange *range, hwaddr addr, MemTxAttrs attrs, uint8_t *buf,
                           uint64_t len, bool is_write)
{
    MemTxResult result = MEMTX_OK;
    hwaddr at = range->offset + (addr - range->first);

    while (len) {
        unsigned step = mmio_step(range->mr, at, len);
        uint64_t value = 0;

        if (is_write) {
            memcpy(&value, buf, step);
            result |= memory_region_dispatch_write(range->mr, at, le64_to_cpu(value), step, attrs);
        } else {
            result |= memory_region_dispatch_read(range->mr, at, &value, step, attrs);
            value = cpu_to_le64(value);
            memcpy(buf, &value, step);
        }
        at += step;
        buf += step;
        len -= step;
    }
    return result;
}

typedef struct Access {
    enum { ACCESS_READ, ACCESS_WRITE, ACCESS_WRITE_ROM, ACCESS_SET } kind;
    MemTxAttrs attrs;
    uint8_t value; /* SET */
} Access;

static MemTxResult mmio_set(const FlatRange *range, hwaddr addr, const Access *access, uint64_t len)
{
    uint8_t chunk[512];
    MemTxResult result = MEMTX_OK;

    memset(chunk, access->value, sizeof(chunk));
    while (len) {
        uint64_t n = MIN(len, sizeof(chunk));

        result |= mmio_rw(range, addr, access->attrs, chunk, n, true);
        addr += n;
        len -= n;
    }
    return result;
}

/* `len` bytes that all lie in `range`. */
static MemTxResult range_access(const FlatRange *range, hwaddr addr, const Access *access,
                                uint8_t *buf, uint64_t len)
{
    bool writable = range->block && !(ram_block_flags(range->block) & RAM_READONLY) &&
                    (!range->readonly || access->kind == ACCESS_WRITE_ROM);

    if (!range->block) {
        switch (access->kind) {
        case ACCESS_WRITE_ROM:
            return MEMTX_OK;
        case ACCESS_SET:
            return mmio_set(range, addr, access, len);
        default:
            return mmio_rw(range, addr, access->attrs, buf, len, access->kind == ACCESS_WRITE);
        }
    }
    if (access->kind == ACCESS_READ) {
        memcpy(buf, range_host(range, addr), len);
        return MEMTX_OK;
    }
    if (writable) {
        if (access->kind == ACCESS_SET) {
            memset(range_host(range, addr), access->value, len);
        } else {
            memcpy(range_host(range, addr), buf, len);
        }
        ram_block_set_dirty(range->block, range->offset + (addr - range->first), len);
    }
    return MEMTX_OK;
}

/*
 * One piece of an access, as far as one range or one hole goes; *bytes receives how many that were.
 * `view` is the current one, or only RAM is met.
 */
static MemTxResult piece_access(const FlatView *view, hwaddr addr, const Access *access,
                                uint8_t *buf, uint64_t len, uint64_t *bytes)
{
    const FlatRange *range = flatview_find(view, addr);

    if (range) {
        *bytes = range_bytes(range, addr, len);
        return range_access(range, addr, access, buf, *bytes);
    }
    *bytes = hole_bytes(view, addr, len);
    if (access->kind == ACCESS_READ) {
        memset(buf, 0, *bytes);
    }
    return MEMTX_DECODE_ERROR;
}

static bool is_mmio(const FlatView *view, hwaddr addr)
{
    const FlatRange *range = flatview_find(view, addr);

    return range && !range->block;
}

/*
 * A device runs under the big lock, and only as long as it is there: the view is looked at again.
 */
static MemTxResult locked_access(AddressSpace *as, hwaddr addr, const Access *access, uint8_t *buf,
                                 uint64_t len, uint64_t *bytes)
{
    bool lock = !bql_locked();
    MemTxResult result;
    FlatView *view;

    if (lock) {
        bql_lock();
    }
    view = address_space_get_flatview(as);
    result = piece_access(view, addr, access, buf, len, bytes);
    flatview_unref(view);
    if (lock) {
        bql_unlock();
    }
    return result;
}

static MemTxResult as_access(AddressSpace *as, hwaddr addr, const Access *access, void *buf,
                             uint64_t len)
{
    g_autoptr(FlatView) view = address_space_get_flatview(as);
    MemTxResult result = MEMTX_OK;
    uint8_t *p = buf;

    while (len) {
        uint64_t n;

        result |= is_mmio(view, addr) ? locked_access(as, addr, access, p, len, &n)
                                      : piece_access(view, addr, access, p, len, &n);
        p = p ? p + n : NULL;
        len -= n;
        if (len && addr > UINT64_MAX - n) {
            /* Nothing lies behind the last address. */
            if (access->kind == ACCESS_READ) {
                memset(p, 0, len);
            }
            return result | MEMTX_DECODE_ERROR;
        }
        addr += n;
    }
    return result;
}

MemTxResult address_space_read(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, void *buf,
                               uint64_t len)
{
    const Access access = {.kind = ACCESS_READ, .attrs = attrs};

    return as_access(as, addr, &access, buf, len);
}

MemTxResult address_space_write(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, const void *buf,
                                uint64_t len)
{
    const Access access = {.kind = ACCESS_WRITE, .attrs = attrs};

    return as_access(as, addr, &access, (void *)buf, len);
}

MemTxResult address_space_rw(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, void *buf,
                             uint64_t len, bool is_write)
{
    return is_write ? address_space_write(as, addr, attrs, buf, len)
                    : address_space_read(as, addr, attrs, buf, len);
}

MemTxResult address_space_set(AddressSpace *as, hwaddr addr, uint8_t value, uint64_t len,
                              MemTxAttrs attrs)
{
    const Access access = {.kind = ACCESS_SET, .attrs = attrs, .value = value};

    return as_access(as, addr, &access, NULL, len);
}

MemTxResult address_space_write_rom(AddressSpace *as, hwaddr addr, MemTxAttrs attrs,
                                    const void *buf, uint64_t len)
{
    const Access access = {.kind = ACCESS_WRITE_ROM, .attrs = attrs};

    return as_access(as, addr, &access, (void *)buf, len);
}

bool address_space_access_valid(AddressSpace *as, hwaddr addr, uint64_t len, bool is_write)
{
    g_autoptr(FlatView) view = address_space_get_flatview(as);

    while (len) {
        const FlatRange *range = flatview_find(view, addr);
        uint64_t n;

        if (!range || !range->block || (is_write && range->readonly)) {
            return false;
        }
        n = range_bytes(range, addr, len);
        len -= n;
        if (len && addr > UINT64_MAX - n) {
            return false;
        }
        addr += n;
    }
    return true;
}

/* --- direct access --- */

void *address_space_map(AddressSpace *as, hwaddr addr, uint64_t *len, bool is_write,
                        MemTxAttrs attrs)
{
    g_autoptr(FlatView) view = address_space_get_flatview(as);
    const FlatRange *range = flatview_find(view, addr);

    if (!*len || !range || !range->block || (is_write && range->readonly)) {
        *len = 0;
        return NULL;
    }
    *len = range_bytes(range, addr, *len);
    ram_block_ref(range->block);
    return range_host(range, addr);
}

void address_space_unmap(AddressSpace *as, void *host, uint64_t len, bool is_write,
                         uint64_t accessed)
{
    uint64_t offset;
    RAMBlock *block = ram_block_from_mapping(host, &offset);

    g_assert(block);
    if (is_write) {
        ram_block_set_dirty(block, offset, MIN(accessed, len));
    }
    ram_block_unref(block);
    ram_block_unref(block);
}

/* --- single values --- */

#define ADDRESS_SPACE_VALUE(bits, suffix, to_cpu, from_cpu)                                  \
    uint##bits##_t address_space_ld##suffix(AddressSpace *as, hwaddr addr, MemTxAttrs attrs, \
                                            MemTxResult *result)                             \
    {                                                                                        \
        uint##bits##_t value = 0;                                                            \
        MemTxResult ret = address_space_read(as, addr, attrs, &value, sizeof(value));        \
                                                                                             \
        if (result) {                                                                        \
            *result = ret;                                                                   \
        }                                                                                    \
        return to_cpu(value);                                                                \
    }                                                                                        \
    void address_space_st##suffix(AddressSpace *as, hwaddr addr, uint##bits##_t value,       \
                                  MemTxAttrs attrs, MemTxResult *result)                     \
    {                                                                                        \
        MemTxResult ret;                                                                     \
                                                                                             \
        value = from_cpu(value);                                                             \
        ret = address_space_write(as, addr, attrs, &value, sizeof(value));                   \
        if (result) {                                                                        \
            *result = ret;                                                                   \
        }                                                                                    \
    }

ADDRESS_SPACE_VALUE(8, b, , )
ADDRESS_SPACE_VALUE(16, w_le, le16_to_cpu, cpu_to_le16)
ADDRESS_SPACE_VALUE(32, l_le, le32_to_cpu, cpu_to_le32)
ADDRESS_SPACE_VALUE(64, q_le, le64_to_cpu, cpu_to_le64)
ADDRESS_SPACE_VALUE(16, w_be, be16_to_cpu, cpu_to_be16)
ADDRESS_SPACE_VALUE(32, l_be, be32_to_cpu, cpu_to_be32)
ADDRESS_SPACE_VALUE(64, q_be, be64_to_cpu, cpu_to_be64)

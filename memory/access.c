/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and writing address spaces. */
#include <string.h>
#include "memory/address-space.h"
#include "memory/memory-int.h"
#include "memory/view-pin.h"
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

static MemTxResult mmio_rw(const FlatRange *range, hwaddr addr, MemTxAttrs attrs, uint8_t *buf,
                           uint64_t len, bool is_write)
{
    MemTxResult result = MEMTX_OK;
    MemoryTransaction t = {.is_write = is_write, .attrs = attrs};

    for (t.addr = range->offset + (addr - range->first); len; t.addr += t.size, buf += t.size) {
        uint64_t value = 0;

        t.size = memory_region_step(range->mr, t.addr, len);
        if (is_write) {
            memcpy(&value, buf, t.size);
            t.data = le64_to_cpu(value);
            result |= memory_region_dispatch(range->mr, &t);
        } else {
            result |= memory_region_dispatch(range->mr, &t);
            value = cpu_to_le64(t.data);
            memcpy(buf, &value, t.size);
        }
        len -= t.size;
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

/* The access runs operations of the range's region. */
static bool needs_device(const FlatRange *range, const Access *access)
{
    bool writes = access->kind == ACCESS_WRITE || access->kind == ACCESS_SET;

    return range && (!range->block ? access->kind != ACCESS_WRITE_ROM : range->romd && writes);
}

/* `len` bytes that all lie in `range`, which has memory, or is MMIO that firmware skips. */
static void memory_access(const FlatRange *range, hwaddr addr, const Access *access, uint8_t *buf,
                          uint64_t len)
{
    if (!range->block) {
        return;
    }
    if (access->kind == ACCESS_READ) {
        memcpy(buf, range_host(range, addr), len);
        return;
    }
    if ((ram_block_flags(range->block) & RAM_READONLY) ||
        (range->readonly && access->kind != ACCESS_WRITE_ROM)) {
        return;
    }
    if (access->kind == ACCESS_SET) {
        memset(range_host(range, addr), access->value, len);
    } else {
        memcpy(range_host(range, addr), buf, len);
    }
    ram_block_set_dirty(range->block, range->offset + (addr - range->first), len);
}

static MemTxResult run_device(const FlatRange *range, hwaddr addr, const Access *access,
                              uint8_t *buf, uint64_t len)
{
    if (access->kind == ACCESS_SET) {
        return mmio_set(range, addr, access, len);
    }
    return mmio_rw(range, addr, access->attrs, buf, len, access->kind == ACCESS_WRITE);
}

/* A write that signals an eventfd is over with that. */
static bool signals(const FlatView *view, hwaddr addr, const Access *access, const uint8_t *buf,
                    uint64_t len)
{
    const MemoryEventFd *event;
    uint64_t value = 0;

    if (!view->n_eventfds || access->kind != ACCESS_WRITE || len > sizeof(value)) {
        return false;
    }
    memcpy(&value, buf, len);
    event = flatview_find_eventfd(view, addr, le64_to_cpu(value), len);
    if (event) {
        memory_eventfd_signal(event);
    }
    return event;
}

/* How far one step of an access got. */
typedef struct Step {
    uint64_t bytes; /* done; 0: the view has changed, look again */
    MemTxResult result;
} Step;

/* A lockless region was found in the pinned view; unpins. */
static Step run_lockless(ViewReader *reader, AddressSpace *as, FlatRange range, hwaddr addr,
                         const Access *access, uint8_t *buf, uint64_t len)
{
    bool full, entered = view_enter_region(reader, range.mr, &as->current, &full);
    Step step = {0};

    view_unpin(reader);
    if (entered) {
        step.bytes = range_bytes(&range, addr, len);
        step.result = run_device(&range, addr, access, buf, step.bytes);
        view_leave_region(reader);
    } else if (full) {
        /* Devices that access each other in a circle. */
        step = (Step){range_bytes(&range, addr, len), MEMTX_ACCESS_ERROR};
        if (access->kind == ACCESS_READ) {
            memset(buf, 0, step.bytes);
        }
    }
    return step;
}

/* Under the big lock, which keeps the region alive: the view is looked at again. */
static Step run_locked(ViewReader *reader, AddressSpace *as, hwaddr addr, const Access *access,
                       uint8_t *buf, uint64_t len)
{
    bool lock = !bql_locked();
    const FlatRange *found;
    FlatRange range = {0};
    Step step = {0};

    if (lock) {
        bql_lock();
    }
    found = view_find(reader, view_pin(reader, &as->current), addr);
    if (needs_device(found, access)) {
        range = *found;
    }
    view_unpin(reader);
    if (range.mr) {
        if (range.mr->coalesced) {
            memory_flush_coalesced();
        }
        step.bytes = range_bytes(&range, addr, len);
        step.result = run_device(&range, addr, access, buf, step.bytes);
    }
    if (lock) {
        bql_unlock();
    }
    return step;
}

/* As far as one range or one hole goes. */
static Step access_step(ViewReader *reader, AddressSpace *as, hwaddr addr, const Access *access,
                        uint8_t *buf, uint64_t len)
{
    const FlatView *view = view_pin(reader, &as->current);
    const FlatRange *range = view_find(reader, view, addr);
    Step step = {0};

    if (!range) {
        step = (Step){hole_bytes(view, addr, len), MEMTX_DECODE_ERROR};
        if (access->kind == ACCESS_READ) {
            memset(buf, 0, step.bytes);
        }
    } else if (!needs_device(range, access)) {
        step.bytes = range_bytes(range, addr, len);
        memory_access(range, addr, access, buf, step.bytes);
    } else if (signals(view, addr, access, buf, len)) {
        step.bytes = len;
    } else if (range->lockless) {
        return run_lockless(reader, as, *range, addr, access, buf, len);
    } else {
        view_unpin(reader);
        return run_locked(reader, as, addr, access, buf, len);
    }
    view_unpin(reader);
    return step;
}

static MemTxResult as_access(AddressSpace *as, hwaddr addr, const Access *access, void *buf,
                             uint64_t len)
{
    ViewReader *reader = view_reader();
    MemTxResult result = MEMTX_OK;
    uint8_t *p = buf;

    while (len) {
        Step step = access_step(reader, as, addr, access, p, len);

        result |= step.result;
        p = p ? p + step.bytes : NULL;
        len -= step.bytes;
        if (len && addr > UINT64_MAX - step.bytes) {
            /* Nothing lies behind the last address. */
            if (access->kind == ACCESS_READ) {
                memset(p, 0, len);
            }
            return result | MEMTX_DECODE_ERROR;
        }
        addr += step.bytes;
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

/* Pins the view. RAM in which an aligned value of `size` bytes lies; NULL: the long way. */
static const FlatRange *value_range(ViewReader *reader, AddressSpace *as, hwaddr addr,
                                    unsigned size, const Access *access)
{
    const FlatRange *range = view_find(reader, view_pin(reader, &as->current), addr);
    bool whole = range && range->block && !(addr % size) && range->last - addr >= size - 1 &&
                 !((range->offset + (addr - range->first)) % size);

    if (!whole || (access->kind == ACCESS_WRITE && range->readonly)) {
        return NULL;
    }
    return range;
}

#define ADDRESS_SPACE_VALUE(bits, suffix, to_cpu, from_cpu)                                       \
    uint##bits##_t address_space_ld##suffix(AddressSpace *as, hwaddr addr, MemTxAttrs attrs,      \
                                            MemTxResult *result)                                  \
    {                                                                                             \
        const Access access = {.kind = ACCESS_READ, .attrs = attrs};                              \
        ViewReader *reader = view_reader();                                                       \
        const FlatRange *range = value_range(reader, as, addr, bits / 8, &access);                \
        MemTxResult ret = MEMTX_OK;                                                               \
        uint##bits##_t value = 0;                                                                 \
                                                                                                  \
        if (G_LIKELY(range)) {                                                                    \
            value = __atomic_load_n((uint##bits##_t *)range_host(range, addr), __ATOMIC_RELAXED); \
        }                                                                                         \
        view_unpin(reader);                                                                       \
        if (G_UNLIKELY(!range)) {                                                                 \
            ret = as_access(as, addr, &access, &value, sizeof(value));                            \
        }                                                                                         \
        if (result) {                                                                             \
            *result = ret;                                                                        \
        }                                                                                         \
        return to_cpu(value);                                                                     \
    }                                                                                             \
    void address_space_st##suffix(AddressSpace *as, hwaddr addr, uint##bits##_t value,            \
                                  MemTxAttrs attrs, MemTxResult *result)                          \
    {                                                                                             \
        const Access access = {.kind = ACCESS_WRITE, .attrs = attrs};                             \
        ViewReader *reader = view_reader();                                                       \
        const FlatRange *range = value_range(reader, as, addr, bits / 8, &access);                \
        MemTxResult ret = MEMTX_OK;                                                               \
                                                                                                  \
        value = from_cpu(value);                                                                  \
        if (G_LIKELY(range)) {                                                                    \
            __atomic_store_n((uint##bits##_t *)range_host(range, addr), value, __ATOMIC_RELAXED); \
            ram_block_set_dirty(range->block, range->offset + (addr - range->first),              \
                                sizeof(value));                                                   \
        }                                                                                         \
        view_unpin(reader);                                                                       \
        if (G_UNLIKELY(!range)) {                                                                 \
            ret = as_access(as, addr, &access, &value, sizeof(value));                            \
        }                                                                                         \
        if (result) {                                                                             \
            *result = ret;                                                                        \
        }                                                                                         \
    }

ADDRESS_SPACE_VALUE(8, b, , )
ADDRESS_SPACE_VALUE(16, w_le, le16_to_cpu, cpu_to_le16)
ADDRESS_SPACE_VALUE(32, l_le, le32_to_cpu, cpu_to_le32)
ADDRESS_SPACE_VALUE(64, q_le, le64_to_cpu, cpu_to_le64)
ADDRESS_SPACE_VALUE(16, w_be, be16_to_cpu, cpu_to_be16)
ADDRESS_SPACE_VALUE(32, l_be, be32_to_cpu, cpu_to_be32)
ADDRESS_SPACE_VALUE(64, q_be, be64_to_cpu, cpu_to_be64)

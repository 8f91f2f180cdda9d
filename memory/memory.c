/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory regions: making, placing, changing; transactions; what devices do at an address. */
#include "memory/memory.h"

#include <string.h>
#include "memory/memory-int.h"
#include "util/error.h"

static struct {
    unsigned depth;
    bool changed; /* something a view could show */
} transaction;

void memory_region_transaction_begin(void)
{
    transaction.depth++;
}

void memory_region_transaction_commit(void)
{
    g_assert(transaction.depth);
    if (--transaction.depth == 0 && transaction.changed) {
        transaction.changed = false;
        address_spaces_update();
    }
}

static void change_begin(void)
{
    memory_region_transaction_begin();
}

/* `visible`: the change can be seen in some view. */
static void change_end(bool visible)
{
    transaction.changed |= visible;
    memory_region_transaction_commit();
}

/* --- constructors --- */

static unsigned __int128 whole_size(uint64_t size)
{
    return size == MEMORY_REGION_WHOLE ? (unsigned __int128)1 << 64 : size;
}

void memory_region_init(MemoryRegion *mr, const char *owner, const char *name, uint64_t size)
{
    *mr = (MemoryRegion){
        .name = g_strdup(name),
        .owner = g_strdup(owner),
        .size = whole_size(size),
        .enabled = true,
        .initialized = true,
    };
    TAILQ_INIT(&mr->subregions);
}

void memory_region_init_io(MemoryRegion *mr, const char *owner, const MemoryRegionOps *ops,
                           void *opaque, const char *name, uint64_t size)
{
    memory_region_init(mr, owner, name, size);
    mr->ops = ops;
    mr->opaque = opaque;
}

void memory_region_init_ram_from_block(MemoryRegion *mr, const char *owner, const char *name,
                                       RAMBlock *block)
{
    memory_region_init(mr, owner, name, ram_block_used_length(block));
    mr->ram_block = block;
    mr->ram_borrowed = true;
    mr->readonly = ram_block_flags(block) & RAM_READONLY;
}

static bool init_ram(MemoryRegion *mr, const char *owner, const char *name,
                     const RAMBlockOptions *options, GError **errp)
{
    RAMBlock *block = ram_block_new(options, errp);

    if (!block) {
        return false;
    }
    memory_region_init_ram_from_block(mr, owner, name, block);
    mr->ram_borrowed = false;
    return true;
}

bool memory_region_init_ram_nomigrate(MemoryRegion *mr, const char *owner, const char *name,
                                      uint64_t size, uint32_t ram_flags, GError **errp)
{
    const RAMBlockOptions options = {
        .what = name, .size = size, .flags = ram_flags, .fd = -1, .merge = true};

    return init_ram(mr, owner, name, &options, errp);
}

/* A region that was just made migrates under its own name, or is not made. */
static bool migrate_or_destroy(MemoryRegion *mr, GError **errp)
{
    if (!ram_block_set_idstr(mr->ram_block, mr->name, errp)) {
        memory_region_destroy(mr);
        return false;
    }
    ram_block_set_migratable(mr->ram_block, true);
    return true;
}

bool memory_region_init_ram(MemoryRegion *mr, const char *owner, const char *name, uint64_t size,
                            GError **errp)
{
    return memory_region_init_ram_nomigrate(mr, owner, name, size, 0, errp) &&
           migrate_or_destroy(mr, errp);
}

bool memory_region_init_rom(MemoryRegion *mr, const char *owner, const char *name, uint64_t size,
                            GError **errp)
{
    if (!memory_region_init_ram(mr, owner, name, size, errp)) {
        return false;
    }
    mr->readonly = true;
    return true;
}

/* A resizable block has another length: the region has it too, before its owner hears of it. */
static void block_resized(void *opaque, RAMBlock *block, uint64_t old_length)
{
    MemoryRegion *mr = opaque;

    change_begin();
    mr->size = ram_block_used_length(block);
    change_end(true);
    if (mr->resized) {
        mr->resized(mr->opaque, ram_block_used_length(block), block->host);
    }
}

bool memory_region_init_resizeable_ram(MemoryRegion *mr, const char *owner, const char *name,
                                       uint64_t size, uint64_t max_size,
                                       void (*resized)(void *opaque, uint64_t length, void *host),
                                       void *opaque, GError **errp)
{
    const RAMBlockOptions options = {.what = name,
                                     .size = size,
                                     .max_size = max_size,
                                     .flags = RAM_RESIZEABLE,
                                     .fd = -1,
                                     .merge = true};

    if (!init_ram(mr, owner, name, &options, errp)) {
        return false;
    }
    mr->resized = resized;
    mr->opaque = opaque;
    ram_block_set_resized(mr->ram_block, block_resized, mr);
    return migrate_or_destroy(mr, errp);
}

void memory_region_init_alias(MemoryRegion *mr, const char *owner, const char *name,
                              MemoryRegion *orig, hwaddr offset, uint64_t size)
{
    memory_region_init(mr, owner, name, size);
    mr->alias = orig;
    mr->alias_offset = offset;
}

void memory_region_destroy(MemoryRegion *mr)
{
    g_assert(!mr->container && TAILQ_EMPTY(&mr->subregions) && !transaction.depth);
    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        if (mr->log_mask & (1u << client)) {
            ram_block_log_stop(mr->ram_block, client);
        }
    }
    if (mr->ram_block && !mr->ram_borrowed) {
        ram_block_free(mr->ram_block);
    }
    g_free(mr->name);
    g_free(mr->owner);
    *mr = (MemoryRegion){0};
}

/* --- placing --- */

static void list_insert(MemoryRegion *mr, MemoryRegion *subregion)
{
    MemoryRegion *other;

    TAILQ_FOREACH(other, &mr->subregions, link) {
        if (subregion->priority >= other->priority) {
            TAILQ_INSERT_BEFORE(other, subregion, link);
            return;
        }
    }
    TAILQ_INSERT_TAIL(&mr->subregions, subregion, link);
}

void memory_region_add_subregion_overlap(MemoryRegion *mr, hwaddr offset, MemoryRegion *subregion,
                                         int priority)
{
    g_assert(!subregion->container && subregion->initialized);
    change_begin();
    subregion->container = mr;
    subregion->addr = offset;
    subregion->priority = priority;
    list_insert(mr, subregion);
    change_end(mr->enabled && subregion->enabled);
}

void memory_region_add_subregion(MemoryRegion *mr, hwaddr offset, MemoryRegion *subregion)
{
    memory_region_add_subregion_overlap(mr, offset, subregion, 0);
}

void memory_region_del_subregion(MemoryRegion *mr, MemoryRegion *subregion)
{
    g_assert(subregion->container == mr);
    change_begin();
    TAILQ_REMOVE(&mr->subregions, subregion, link);
    subregion->container = NULL;
    change_end(mr->enabled && subregion->enabled);
}

/* --- changing --- */

void memory_region_set_enabled(MemoryRegion *mr, bool enabled)
{
    if (mr->enabled != enabled) {
        change_begin();
        mr->enabled = enabled;
        change_end(true);
    }
}

void memory_region_set_address(MemoryRegion *mr, hwaddr addr)
{
    MemoryRegion *container = mr->container;

    if (mr->addr == addr) {
        return;
    }
    change_begin();
    mr->addr = addr;
    if (container) {
        /* The one that moved last is the youngest. */
        TAILQ_REMOVE(&container->subregions, mr, link);
        list_insert(container, mr);
    }
    change_end(mr->enabled);
}

void memory_region_set_alias_offset(MemoryRegion *mr, hwaddr offset)
{
    g_assert(mr->alias);
    if (mr->alias_offset != offset) {
        change_begin();
        mr->alias_offset = offset;
        change_end(mr->enabled);
    }
}

void memory_region_set_size(MemoryRegion *mr, uint64_t size)
{
    g_assert(!mr->ram_block);
    if (mr->size != whole_size(size)) {
        change_begin();
        mr->size = whole_size(size);
        change_end(mr->enabled);
    }
}

void memory_region_set_readonly(MemoryRegion *mr, bool readonly)
{
    g_assert(readonly || !mr->ram_block || !(ram_block_flags(mr->ram_block) & RAM_READONLY));
    if (mr->readonly != readonly) {
        change_begin();
        mr->readonly = readonly;
        change_end(mr->enabled);
    }
}

void memory_region_set_log(MemoryRegion *mr, bool log, unsigned client)
{
    unsigned mask = log ? mr->log_mask | (1u << client) : mr->log_mask & ~(1u << client);

    g_assert(mr->ram_block);
    if (mask == mr->log_mask) {
        return;
    }
    if (log) {
        ram_block_log_start(mr->ram_block, client);
    }
    change_begin();
    mr->log_mask = mask;
    change_end(mr->enabled);
    if (!log) {
        ram_block_log_stop(mr->ram_block, client);
    }
}

/* --- looking --- */

const char *memory_region_name(const MemoryRegion *mr)
{
    return mr->name;
}

uint64_t memory_region_size(const MemoryRegion *mr)
{
    return mr->size > UINT64_MAX ? UINT64_MAX : (uint64_t)mr->size;
}

bool memory_region_is_ram(const MemoryRegion *mr)
{
    return mr->ram_block;
}

bool memory_region_is_rom(const MemoryRegion *mr)
{
    return mr->ram_block && mr->readonly;
}

void *memory_region_get_ram_ptr(const MemoryRegion *mr)
{
    g_assert(mr->ram_block);
    return mr->ram_block->host;
}

RAMBlock *memory_region_get_ram_block(const MemoryRegion *mr)
{
    return mr->ram_block;
}

const char *memory_region_kind(const MemoryRegion *mr)
{
    if (mr->ram_block) {
        return mr->readonly ? "rom" : "ram";
    }
    return "i/o";
}

bool memory_region_present(MemoryRegion *container, hwaddr addr)
{
    MemoryRegion *mr;

    TAILQ_FOREACH(mr, &container->subregions, link) {
        if (mr->enabled && addr >= mr->addr && addr - mr->addr < mr->size) {
            return true;
        }
    }
    return false;
}

/* --- accesses to MMIO --- */

static bool size_is_power_of_two(unsigned size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

static bool access_permitted(MemoryRegion *mr, hwaddr addr, unsigned size, bool is_write,
                             MemTxAttrs attrs)
{
    const MemoryRegionOps *ops = mr->ops;
    unsigned min = ops->valid.min_access_size ? ops->valid.min_access_size : 1;
    unsigned max = ops->valid.max_access_size ? ops->valid.max_access_size : 4;

    if (!size_is_power_of_two(size) || size > mr->size || addr > mr->size - size || size < min ||
        size > max || (!ops->valid.unaligned && (addr & (size - 1)))) {
        return false;
    }
    return !ops->valid.accepts || ops->valid.accepts(mr->opaque, addr, size, is_write, attrs);
}

static uint64_t size_mask(unsigned size)
{
    return size == 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

static uint64_t swap_bytes(uint64_t value, unsigned size)
{
    return __builtin_bswap64(value) >> (64 - 8 * size);
}

/* One call of the device. */
static MemTxResult call_device(MemoryRegion *mr, hwaddr addr, uint64_t *data, unsigned size,
                               bool is_write, MemTxAttrs attrs)
{
    const MemoryRegionOps *ops = mr->ops;

    if (is_write && ops->write_with_attrs) {
        return ops->write_with_attrs(mr->opaque, addr, *data & size_mask(size), size, attrs);
    }
    if (!is_write && ops->read_with_attrs) {
        MemTxResult result = ops->read_with_attrs(mr->opaque, addr, data, size, attrs);

        *data &= size_mask(size);
        return result;
    }
    if (is_write && ops->write) {
        ops->write(mr->opaque, addr, *data & size_mask(size), size);
    } else if (!is_write && ops->read) {
        *data = ops->read(mr->opaque, addr, size) & size_mask(size);
    }
    return MEMTX_OK;
}

/* Splits an access into ones the device can do, or takes a part out of a wider one. */
static MemTxResult access_device(MemoryRegion *mr, hwaddr addr, uint64_t *data, unsigned size,
                                 bool is_write, MemTxAttrs attrs)
{
    const MemoryRegionOps *ops = mr->ops;
    bool big = ops->endianness == DEVICE_BIG_ENDIAN;
    unsigned min = ops->impl.min_access_size ? ops->impl.min_access_size : 1;
    unsigned max = ops->impl.max_access_size ? ops->impl.max_access_size : 4;
    unsigned step = MAX(MIN(size, max), min);
    MemTxResult result = MEMTX_OK;
    uint64_t value = 0;

    if (step > size) {
        hwaddr base = ops->impl.unaligned ? addr : addr & ~(hwaddr)(step - 1);
        unsigned skip = (unsigned)(addr - base);
        unsigned shift = 8 * (big ? step - size - MIN(skip, step - size) : skip);

        value = is_write ? (*data & size_mask(size)) << shift : 0;
        result = call_device(mr, base, &value, step, is_write, attrs);
        *data = is_write ? *data : (value >> shift) & size_mask(size);
        return result;
    }
    for (unsigned i = 0; i < size; i += step) {
        unsigned shift = 8 * (big ? size - step - i : i);
        uint64_t part = is_write ? *data >> shift : 0;

        result |= call_device(mr, addr + i, &part, step, is_write, attrs);
        value |= (part & size_mask(step)) << shift;
    }
    if (!is_write) {
        *data = value;
    }
    return result;
}

MemTxResult memory_region_dispatch_read(MemoryRegion *mr, hwaddr addr, uint64_t *data,
                                        unsigned size, MemTxAttrs attrs)
{
    MemTxResult result;

    *data = 0;
    if (!mr->ops || !access_permitted(mr, addr, size, false, attrs)) {
        return MEMTX_DECODE_ERROR;
    }
    result = access_device(mr, addr, data, size, false, attrs);
    if (mr->ops->endianness == DEVICE_BIG_ENDIAN) {
        *data = swap_bytes(*data, size);
    }
    return result;
}

MemTxResult memory_region_dispatch_write(MemoryRegion *mr, hwaddr addr, uint64_t data,
                                         unsigned size, MemTxAttrs attrs)
{
    if (!mr->ops || !access_permitted(mr, addr, size, true, attrs)) {
        return MEMTX_DECODE_ERROR;
    }
    if (mr->ops->endianness == DEVICE_BIG_ENDIAN) {
        data = swap_bytes(data, size);
    }
    return access_device(mr, addr, &data, size, true, attrs);
}

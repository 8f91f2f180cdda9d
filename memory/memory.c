/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory regions: making, placing, changing; transactions. */
#include "memory/memory.h"

#include "memory/memory-int.h"
#include "memory/view-pin.h"
#include "util/error.h"

static struct {
    unsigned depth;
    bool changed;    /* something a view could show */
    uint64_t number; /* of the transaction that is open, or comes next */
} transaction = {.number = 1};

void memory_region_transaction_begin(void)
{
    if (!transaction.depth) {
        /* Writes that were collected are meant for regions where they are now. */
        memory_flush_coalesced();
    }
    transaction.depth++;
}

void memory_region_transaction_commit(void)
{
    g_assert(transaction.depth);
    if (--transaction.depth == 0 && transaction.changed) {
        transaction.changed = false;
        address_spaces_update(transaction.number++);
    }
}

bool memory_transaction_is_pending(void)
{
    return transaction.changed;
}

/*
 * Stamps the region and every region through which it can be seen. A stamp of this transaction on a
 * region says that all above it have it, too: placing a region stamps what it is placed in.
 */
static void stamp(MemoryRegion *mr)
{
    MemoryRegion *alias;

    for (; mr && mr->changed_in != transaction.number; mr = mr->container) {
        mr->changed_in = transaction.number;
        TAILQ_FOREACH(alias, &mr->aliases, alias_link) {
            stamp(alias);
        }
    }
}

static void change_begin(void)
{
    memory_region_transaction_begin();
}

/* `mr` is what changed; `visible`: the change can be seen in some view. */
static void change_end(MemoryRegion *mr, bool visible)
{
    stamp(mr);
    transaction.changed |= visible;
    memory_region_transaction_commit();
}

/* --- constructors --- */

static unsigned __int128 whole_size(uint64_t size)
{
    return size == MEMORY_REGION_WHOLE ? (unsigned __int128)1 << 64 : size;
}

/* Gives mr what each kind of region has; `kind` says what is particular. */
static void make(MemoryRegion *mr, const char *owner, const char *name, unsigned __int128 size,
                 MemoryRegion kind)
{
    kind.name = g_strdup(name);
    kind.owner = g_strdup(owner);
    kind.size = size;
    kind.enabled = kind.initialized = true;
    *mr = kind;
    TAILQ_INIT(&mr->subregions);
    TAILQ_INIT(&mr->aliases);
    if (mr->alias) {
        mr->changed_in = mr->alias->changed_in;
        TAILQ_INSERT_TAIL(&mr->alias->aliases, mr, alias_link);
    }
}

void memory_region_init(MemoryRegion *mr, const char *owner, const char *name, uint64_t size)
{
    make(mr, owner, name, whole_size(size), (MemoryRegion){0});
}

void memory_region_init_io(MemoryRegion *mr, const char *owner, const MemoryRegionOps *ops,
                           void *opaque, const char *name, uint64_t size)
{
    make(mr, owner, name, whole_size(size), (MemoryRegion){.ops = ops, .opaque = opaque});
}

void memory_region_init_alias(MemoryRegion *mr, const char *owner, const char *name,
                              MemoryRegion *orig, hwaddr offset, uint64_t size)
{
    make(mr, owner, name, whole_size(size), (MemoryRegion){.alias = orig, .alias_offset = offset});
}

void memory_region_init_ram_from_block(MemoryRegion *mr, const char *owner, const char *name,
                                       RAMBlock *block)
{
    make(mr, owner, name, ram_block_used_length(block),
         (MemoryRegion){.ram_block = block,
                        .ram_borrowed = true,
                        .readonly = ram_block_flags(block) & RAM_READONLY});
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

/* A resizable block has another length: the region has it too, before its owner is told. */
static void block_resized(void *opaque, RAMBlock *block, uint64_t old_length)
{
    MemoryRegion *mr = opaque;

    change_begin();
    mr->size = ram_block_used_length(block);
    change_end(mr, true);
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

bool memory_region_init_rom_device(MemoryRegion *mr, const char *owner, const MemoryRegionOps *ops,
                                   void *opaque, const char *name, uint64_t size, GError **errp)
{
    if (!memory_region_init_ram(mr, owner, name, size, errp)) {
        return false;
    }
    mr->ops = ops;
    mr->opaque = opaque;
    mr->romd = true;
    return true;
}

void memory_region_destroy(MemoryRegion *mr)
{
    g_assert(!mr->container && TAILQ_EMPTY(&mr->subregions) && TAILQ_EMPTY(&mr->aliases));
    g_assert(!transaction.depth);
    if (mr->lockless) {
        view_wait_region(mr);
    }
    if (mr->alias) {
        TAILQ_REMOVE(&mr->alias->aliases, mr, alias_link);
    }
    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        if (mr->log_mask & (1u << client)) {
            ram_block_log_stop(mr->ram_block, client);
        }
    }
    if (mr->ram_block && !mr->ram_borrowed) {
        ram_block_free(mr->ram_block);
    }
    memory_region_drop_events(mr);
    g_free(mr->name);
    g_free(mr->owner);
    *mr = (MemoryRegion){0};
}

/* --- placing --- */

static void insert_by_priority(MemoryRegion *mr, MemoryRegion *subregion)
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
    insert_by_priority(mr, subregion);
    stamp(subregion); /* a space whose root it is shows it at its address */
    change_end(mr, subregion->enabled);
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
    change_end(mr, mr->enabled && subregion->enabled);
}

/* --- changing --- */

void memory_region_set_enabled(MemoryRegion *mr, bool enabled)
{
    if (mr->enabled != enabled) {
        change_begin();
        mr->enabled = enabled;
        change_end(mr, true);
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
        insert_by_priority(container, mr);
    }
    change_end(mr, mr->enabled);
}

void memory_region_set_alias_offset(MemoryRegion *mr, hwaddr offset)
{
    g_assert(mr->alias);
    if (mr->alias_offset != offset) {
        change_begin();
        mr->alias_offset = offset;
        change_end(mr, mr->enabled);
    }
}

void memory_region_set_size(MemoryRegion *mr, uint64_t size)
{
    g_assert(!mr->ram_block);
    if (mr->size != whole_size(size)) {
        change_begin();
        mr->size = whole_size(size);
        change_end(mr, mr->enabled);
    }
}

void memory_region_set_readonly(MemoryRegion *mr, bool readonly)
{
    g_assert(readonly || !mr->ram_block || !(ram_block_flags(mr->ram_block) & RAM_READONLY));
    if (mr->readonly != readonly) {
        change_begin();
        mr->readonly = readonly;
        change_end(mr, mr->enabled);
    }
}

void memory_region_rom_device_set_romd(MemoryRegion *mr, bool romd)
{
    g_assert(mr->ram_block && mr->ops);
    if (mr->romd != romd) {
        change_begin();
        mr->romd = romd;
        change_end(mr, mr->enabled);
    }
}

void memory_region_set_lockless(MemoryRegion *mr)
{
    g_assert(mr->ops && !mr->container);
    mr->lockless = true;
}

void memory_region_events_changed(MemoryRegion *mr)
{
    change_begin();
    change_end(mr, mr->enabled);
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
    change_end(mr, mr->enabled);
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
    return mr->ram_block && !mr->ops;
}

bool memory_region_is_rom(const MemoryRegion *mr)
{
    return memory_region_is_ram(mr) && mr->readonly;
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
    if (mr->ram_block && mr->ops) {
        return mr->romd ? "romd" : "i/o";
    }
    return !mr->ram_block ? "i/o" : mr->readonly ? "rom" : "ram";
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

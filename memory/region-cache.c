/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory that is looked at again and again: the lookup, and what is no RAM. */
#include "memory/region-cache.h"

#include <string.h>
#include "memory/view-pin.h"

void address_space_cache_init(MemoryRegionCache *cache, AddressSpace *as, hwaddr addr, uint64_t len,
                              bool is_write)
{
    g_assert(len);
    *cache = (MemoryRegionCache){.as = as, .addr = addr, .len = len, .is_write = is_write};
    address_space_cache_refresh(cache);
}

void address_space_cache_destroy(MemoryRegionCache *cache)
{
    ram_block_unref(cache->block);
    *cache = (MemoryRegionCache){0};
}

void address_space_cache_refresh(MemoryRegionCache *cache)
{
    /* First the generation: a view that changes in between has another one. */
    uint64_t generation = __atomic_load_n(&cache->as->generation, __ATOMIC_ACQUIRE);
    ViewReader *reader = view_reader();
    const FlatRange *range;
    RAMBlock *old = cache->block;

    cache->block = NULL;
    cache->host = NULL;
    range = flatview_find(view_pin(reader, &cache->as->current), cache->addr);
    if (range && range->block && range->last - cache->addr >= cache->len - 1 &&
        !(cache->is_write && range->readonly)) {
        cache->block = range->block;
        cache->offset = range->offset + (cache->addr - range->first);
        cache->host = range->block->host + cache->offset;
        ram_block_ref(cache->block);
    }
    view_unpin(reader);
    cache->generation = generation;
    ram_block_unref(old);
}

MemTxResult address_space_read_cached(MemoryRegionCache *cache, uint64_t offset, void *buf,
                                      uint64_t size)
{
    const void *host = address_space_cache_host(cache, offset, size);

    if (!host) {
        return address_space_read(cache->as, cache->addr + offset, MEMTXATTRS_UNSPECIFIED, buf,
                                  size);
    }
    memcpy(buf, host, size);
    return MEMTX_OK;
}

MemTxResult address_space_write_cached(MemoryRegionCache *cache, uint64_t offset, const void *buf,
                                       uint64_t size)
{
    void *host = cache->is_write ? address_space_cache_host(cache, offset, size) : NULL;

    if (!host) {
        return address_space_write(cache->as, cache->addr + offset, MEMTXATTRS_UNSPECIFIED, buf,
                                   size);
    }
    memcpy(host, buf, size);
    ram_block_set_dirty(cache->block, cache->offset + offset, size);
    return MEMTX_OK;
}

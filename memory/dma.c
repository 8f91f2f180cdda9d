/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mappings for devices, and their bounce buffers. */
#include "memory/dma.h"

#include <pthread.h>
#include "memory/view-pin.h"

/* Covers AddressSpace.bounce_bytes and bounce_waiting of all spaces: they are rarely used. */
static pthread_mutex_t bounce_lock = PTHREAD_MUTEX_INITIALIZER;

static bool has_room(const AddressSpace *as)
{
    return as->bounce_bytes + DMA_BOUNCE_PIECE_MAX <= DMA_BOUNCE_BYTES_MAX;
}

/* RAM at map->addr, if the device may access it in place: referenced, with host and len set. */
static bool map_ram(DMAMapping *map, uint64_t len)
{
    ViewReader *reader = view_reader();
    const FlatRange *range = view_find(reader, view_pin(reader, &map->as->current), map->addr);

    if (range && range->block && (map->direction == DMA_DIRECTION_TO_DEVICE || !range->readonly)) {
        uint64_t skip = map->addr - range->first;

        map->block = range->block;
        map->offset = range->offset + skip;
        map->host = range->block->host + map->offset;
        map->len = MIN(len - 1, range->last - map->addr) + 1;
        ram_block_ref(map->block);
    }
    view_unpin(reader);
    return map->block;
}

static bool map_bounce(DMAMapping *map, uint64_t len)
{
    bool room;

    pthread_mutex_lock(&bounce_lock);
    room = has_room(map->as);
    map->as->bounce_bytes += room ? DMA_BOUNCE_PIECE_MAX : 0;
    pthread_mutex_unlock(&bounce_lock);
    if (!room) {
        return false;
    }
    map->len = MIN(len, DMA_BOUNCE_PIECE_MAX);
    map->host = g_malloc0(map->len);
    if (map->direction == DMA_DIRECTION_TO_DEVICE) {
        map->result = address_space_read(map->as, map->addr, map->attrs, map->host, map->len);
    }
    return true;
}

bool dma_map(DMAMapping *map, AddressSpace *as, hwaddr addr, uint64_t len, DMADirection direction,
             MemTxAttrs attrs)
{
    g_assert(len);
    *map = (DMAMapping){.as = as, .addr = addr, .attrs = attrs, .direction = direction};
    return map_ram(map, len) || map_bounce(map, len);
}

bool dma_map_ram(DMAMapping *map, AddressSpace *as, hwaddr addr, uint64_t len,
                 DMADirection direction, MemTxAttrs attrs)
{
    g_assert(len);
    *map = (DMAMapping){.as = as, .addr = addr, .attrs = attrs, .direction = direction};
    return map_ram(map, len);
}

static void free_bounce(DMAMapping *map)
{
    DMARetry *retry;

    g_free(map->host);
    pthread_mutex_lock(&bounce_lock);
    map->as->bounce_bytes -= DMA_BOUNCE_PIECE_MAX;
    while ((retry = g_queue_pop_head(&map->as->bounce_waiting))) {
        retry->fn(retry->opaque);
    }
    pthread_mutex_unlock(&bounce_lock);
}

MemTxResult dma_unmap(DMAMapping *map, uint64_t accessed)
{
    bool writes = map->direction == DMA_DIRECTION_FROM_DEVICE;
    MemTxResult result = MEMTX_OK;

    accessed = writes ? MIN(accessed, map->len) : 0;
    if (map->block) {
        if (accessed) {
            ram_block_set_dirty(map->block, map->offset, accessed);
        }
        ram_block_unref(map->block);
    } else {
        result = address_space_write(map->as, map->addr, map->attrs, map->host, accessed);
        free_bounce(map);
    }
    *map = (DMAMapping){0};
    return result;
}

void dma_retry_later(AddressSpace *as, DMARetry *retry)
{
    pthread_mutex_lock(&bounce_lock);
    if (has_room(as)) {
        retry->fn(retry->opaque);
    } else {
        g_queue_push_tail(&as->bounce_waiting, retry);
    }
    pthread_mutex_unlock(&bounce_lock);
}

void dma_retry_cancel(AddressSpace *as, DMARetry *retry)
{
    pthread_mutex_lock(&bounce_lock);
    g_queue_remove(&as->bounce_waiting, retry);
    pthread_mutex_unlock(&bounce_lock);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty bitmaps of RAM blocks.
 *
 * A writer stores bytes, then loads log_mask; a client sets its bit in log_mask, then reads bytes.
 * Either the writer sees the bit, or the client sees the bytes. The bytes are stored by plain
 * accesses (memcpy), which a compiler may move behind a relaxed load, and a processor may let the
 * load overtake them. Writers are many and frequent, starts of logging are rare: the writer has
 * the light half of util/barrier.h between its store and its load, the client has the heavy half.
 */
#include "memory/dirty.h"

#include <glib.h>
#include <pthread.h>
#include "memory/ram-block.h"
#include "util/barrier.h"
#include "util/page-bitmap.h"

#define BITS 64

static uint64_t block_pages(const RAMBlock *block)
{
    return block->max_length >> TARGET_PAGE_BITS;
}

static uint64_t *bitmap_of(const RAMBlock *block, unsigned client)
{
    return __atomic_load_n(&block->dirty[client], __ATOMIC_ACQUIRE);
}

static unsigned log_mask(const RAMBlock *block)
{
    return __atomic_load_n(&block->log_mask, __ATOMIC_RELAXED);
}

/* --- on and off --- */

/* Counts of users; never held while a bitmap is looked at. */
static struct {
    pthread_mutex_t lock;
    unsigned all_users[DIRTY_MEMORY_NUM]; /* of the log of all blocks */
} dirty = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* True: logging is on from now; a barrier is due. */
static bool log_start_locked(RAMBlock *block, unsigned client)
{
    size_t words = (block_pages(block) + BITS - 1) / BITS;

    if (block->log_users[client]++) {
        return false;
    }
    if (!block->dirty[client]) {
        __atomic_store_n(&block->dirty[client], g_new0(uint64_t, words), __ATOMIC_RELEASE);
    } else {
        for (size_t i = 0; i < words; i++) {
            __atomic_store_n(&block->dirty[client][i], 0, __ATOMIC_RELAXED);
        }
    }
    __atomic_fetch_or(&block->log_mask, 1u << client, __ATOMIC_SEQ_CST);
    return true;
}

static void log_stop_locked(RAMBlock *block, unsigned client)
{
    g_assert(block->log_users[client]);
    if (--block->log_users[client] == 0) {
        /* The bitmap stays until the block goes: a writer may be about to use it. */
        __atomic_fetch_and(&block->log_mask, ~(1u << client), __ATOMIC_SEQ_CST);
    }
}

void ram_block_log_start(RAMBlock *block, unsigned client)
{
    pthread_mutex_lock(&dirty.lock);
    if (log_start_locked(block, client)) {
        barrier_heavy();
    }
    pthread_mutex_unlock(&dirty.lock);
}

void ram_block_log_stop(RAMBlock *block, unsigned client)
{
    pthread_mutex_lock(&dirty.lock);
    log_stop_locked(block, client);
    pthread_mutex_unlock(&dirty.lock);
}

/* Clients whose number of users of all blocks goes from 0 to 1 (by 1) or back (by -1). */
static unsigned count_all_users(unsigned clients, int by)
{
    unsigned changed = 0;

    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        if (clients & (1u << client)) {
            g_assert(by > 0 || dirty.all_users[client]);
            dirty.all_users[client] += (unsigned)by;
            changed |= dirty.all_users[client] == (by > 0) ? 1u << client : 0;
        }
    }
    return changed;
}

/* A block's part in what logs all blocks; once for each client, however often it is said. */
static void log_all_locked(RAMBlock *block, unsigned client, bool on)
{
    unsigned bit = 1u << client;

    if (on && !(block->log_all & bit)) {
        block->log_all |= bit;
        (void)log_start_locked(block, client);
    } else if (!on && (block->log_all & bit)) {
        block->log_all &= ~bit;
        log_stop_locked(block, client);
    }
}

static void for_all_blocks(unsigned clients, bool on)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();

    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        for (unsigned i = 0; i < list->n && (clients & (1u << client)); i++) {
            log_all_locked(list->blocks[i], client, on);
        }
    }
}

void ram_dirty_log_start_all(unsigned clients)
{
    pthread_mutex_lock(&dirty.lock);
    for_all_blocks(count_all_users(clients, 1), true);
    barrier_heavy();
    pthread_mutex_unlock(&dirty.lock);
}

void ram_dirty_log_stop_all(unsigned clients)
{
    pthread_mutex_lock(&dirty.lock);
    for_all_blocks(count_all_users(clients, -1), false);
    pthread_mutex_unlock(&dirty.lock);
}

void ram_block_dirty_init(RAMBlock *block)
{
    pthread_mutex_lock(&dirty.lock);
    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        if (dirty.all_users[client]) {
            log_all_locked(block, client, true);
        }
    }
    pthread_mutex_unlock(&dirty.lock);
}

void ram_block_dirty_free(RAMBlock *block)
{
    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        g_free(block->dirty[client]);
    }
}

bool ram_block_is_logged(const RAMBlock *block, unsigned client)
{
    return log_mask(block) & (1u << client);
}

/* --- setting --- */

/*
 * Atomic, also where the bits are set already, and sequentially consistent. A client clears a bit
 * before it reads the page: it must find the bit set again, or read the new bytes.
 */
static void mark(uint64_t *map, uint64_t first, uint64_t end)
{
    for (; first < end; first = page_bitmap_next_word(first)) {
        __atomic_fetch_or(&map[first / BITS], page_bitmap_mask(first, end), __ATOMIC_SEQ_CST);
    }
}

/* The pages [first, end) that [offset, offset + bytes) touches within the block; false: none. */
static bool touched_pages(const RAMBlock *block, uint64_t offset, uint64_t bytes, uint64_t *first,
                          uint64_t *end)
{
    if (!bytes || offset >= block->max_length) {
        return false;
    }
    bytes = MIN(bytes, block->max_length - offset);
    *first = offset >> TARGET_PAGE_BITS;
    *end = ((offset + bytes - 1) >> TARGET_PAGE_BITS) + 1;
    return true;
}

void ram_block_set_dirty_client(RAMBlock *block, unsigned client, uint64_t offset, uint64_t bytes)
{
    uint64_t *map = bitmap_of(block, client), first, end;

    if (map && touched_pages(block, offset, bytes, &first, &end)) {
        mark(map, first, end);
    }
}

void ram_block_set_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    unsigned mask;

    /* Between the caller's stores and the look at log_mask; see the top of the file. */
    barrier_light();
    mask = log_mask(block);
    if (G_LIKELY(!mask)) {
        return;
    }
    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        if (mask & (1u << client)) {
            ram_block_set_dirty_client(block, client, offset, bytes);
        }
    }
}

/* ORs a foreign bitmap into ours. Bit 0 of src is page `page`. */
static void merge_bits(uint64_t *map, uint64_t page, const uint64_t *src, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i += BITS) {
        uint64_t word = src[i / BITS] & page_bitmap_mask(0, MIN(pages - i, BITS));
        unsigned shift = (page + i) % BITS;
        uint64_t *at = &map[(page + i) / BITS];

        if (!word) {
            continue;
        }
        __atomic_fetch_or(at, word << shift, __ATOMIC_SEQ_CST);
        if (shift && word >> (BITS - shift)) {
            __atomic_fetch_or(at + 1, word >> (BITS - shift), __ATOMIC_SEQ_CST);
        }
    }
}

void ram_block_set_dirty_bitmap(RAMBlock *block, uint64_t offset, const uint64_t *map,
                                uint64_t pages)
{
    unsigned mask = log_mask(block);
    uint64_t page = offset >> TARGET_PAGE_BITS;

    if (page >= block_pages(block)) {
        return;
    }
    pages = MIN(pages, block_pages(block) - page);
    for (unsigned client = 0; client < DIRTY_MEMORY_NUM; client++) {
        if (mask & (1u << client)) {
            merge_bits(bitmap_of(block, client), page, map, pages);
        }
    }
}

/* --- taking --- */

uint64_t ram_block_dirty_sync_and_clear(RAMBlock *block, unsigned client, uint64_t *dest,
                                        uint64_t start, uint64_t pages)
{
    uint64_t *map = bitmap_of(block, client), fresh = 0, end;

    if (!map || start >= block_pages(block)) {
        return 0;
    }
    end = start + MIN(pages, block_pages(block) - start);
    for (; start < end; start = page_bitmap_next_word(start)) {
        uint64_t mask = page_bitmap_mask(start, end), *at = &map[start / BITS];
        uint64_t got = __atomic_load_n(at, __ATOMIC_RELAXED) & mask;

        if (got) {
            got = __atomic_fetch_and(at, ~mask, __ATOMIC_SEQ_CST) & mask;
            fresh += (uint64_t)__builtin_popcountll(got & ~dest[start / BITS]);
            dest[start / BITS] |= got;
        }
    }
    return fresh;
}

bool ram_block_test_and_clear_dirty(RAMBlock *block, unsigned client, uint64_t offset,
                                    uint64_t bytes)
{
    uint64_t *map = bitmap_of(block, client), first, end;
    bool any = false;

    if (!map || !touched_pages(block, offset, bytes, &first, &end)) {
        return false;
    }
    for (; first < end; first = page_bitmap_next_word(first)) {
        uint64_t mask = page_bitmap_mask(first, end);

        any |= (__atomic_fetch_and(&map[first / BITS], ~mask, __ATOMIC_SEQ_CST) & mask) != 0;
    }
    return any;
}

bool ram_block_get_dirty(const RAMBlock *block, unsigned client, uint64_t offset, uint64_t bytes)
{
    uint64_t *map = bitmap_of(block, client), first, end;
    bool any = false;

    if (!map || !touched_pages(block, offset, bytes, &first, &end)) {
        return false;
    }
    for (; first < end && !any; first = page_bitmap_next_word(first)) {
        any = __atomic_load_n(&map[first / BITS], __ATOMIC_ACQUIRE) & page_bitmap_mask(first, end);
    }
    return any;
}

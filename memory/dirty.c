/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty bitmaps of RAM blocks.
 *
 * A writer stores bytes, then looks whether somebody logs; a client switches logging on, then reads
 * bytes. On its own neither order keeps a processor from letting the look overtake the store.
 * Writers are many and frequent, so the client pays for both: a barrier in every thread of the
 * process (membarrier(2)) when logging starts.
 */
#include "memory/dirty.h"

#include <glib.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "memory/ram-block.h"

#define BITS 64

/*
 * Where the kernel refuses membarrier(): changing a mapping interrupts all processors that use it.
 */
static void barrier_by_unmapping(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    volatile char *page =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert(page != MAP_FAILED);
    page[0] = 1;
    mprotect((void *)page, size, PROT_READ);
    munmap((void *)page, size);
}

static void barrier_in_all_threads(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0 &&
        (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0 ||
         syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0)) {
        barrier_by_unmapping();
    }
}

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

/* Bits [from, from + n) of a word; n is 1..64 - from. */
static inline uint64_t word_mask(unsigned from, uint64_t n)
{
    return (n < BITS ? (UINT64_C(1) << n) - 1 : UINT64_MAX) << from;
}

/* --- on and off --- */

/* Counts of users; never held while a bitmap is looked at. */
static struct {
    pthread_mutex_t lock;
    unsigned all_users[DIRTY_MEMORY_NUM]; /* who logs all blocks */
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
        barrier_in_all_threads();
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
    barrier_in_all_threads();
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

static void set_bits(uint64_t *map, uint64_t page, uint64_t pages)
{
    while (pages) {
        unsigned from = page % BITS;
        uint64_t n = MIN(pages, BITS - from);

        /* Not even where the bit is set already: the barrier is what orders it behind the write. */
        __atomic_fetch_or(&map[page / BITS], word_mask(from, n), __ATOMIC_SEQ_CST);
        page += n;
        pages -= n;
    }
}

/* Page numbers that [offset, offset + bytes) touches, within the block; false: none. */
static bool page_range(const RAMBlock *block, uint64_t offset, uint64_t bytes, uint64_t *page,
                       uint64_t *pages)
{
    uint64_t last;

    if (!bytes || offset >= block->max_length) {
        return false;
    }
    last = MIN(bytes, block->max_length - offset) - 1 + offset;
    *page = offset >> TARGET_PAGE_BITS;
    *pages = (last >> TARGET_PAGE_BITS) - *page + 1;
    return true;
}

void ram_block_set_dirty_client(RAMBlock *block, unsigned client, uint64_t offset, uint64_t bytes)
{
    uint64_t *map = bitmap_of(block, client), page, pages;

    if (map && page_range(block, offset, bytes, &page, &pages)) {
        set_bits(map, page, pages);
    }
}

void ram_block_set_dirty(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    unsigned mask = log_mask(block);

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
        uint64_t word = src[i / BITS] & word_mask(0, MIN(pages - i, BITS));
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
    uint64_t *map = bitmap_of(block, client), fresh = 0;

    if (!map || start >= block_pages(block)) {
        return 0;
    }
    pages = MIN(pages, block_pages(block) - start);
    while (pages) {
        unsigned from = start % BITS;
        uint64_t n = MIN(pages, BITS - from), mask = word_mask(from, n), *at = &map[start / BITS];
        uint64_t got = __atomic_load_n(at, __ATOMIC_RELAXED) & mask;

        if (got) {
            got = __atomic_fetch_and(at, ~mask, __ATOMIC_SEQ_CST) & mask;
            fresh += (uint64_t)__builtin_popcountll(got & ~dest[start / BITS]);
            dest[start / BITS] |= got;
        }
        start += n;
        pages -= n;
    }
    return fresh;
}

bool ram_block_test_and_clear_dirty(RAMBlock *block, unsigned client, uint64_t offset,
                                    uint64_t bytes)
{
    uint64_t *map = bitmap_of(block, client), page, pages;
    bool any = false;

    if (!map || !page_range(block, offset, bytes, &page, &pages)) {
        return false;
    }
    while (pages) {
        unsigned from = page % BITS;
        uint64_t n = MIN(pages, BITS - from), mask = word_mask(from, n);

        any |= (__atomic_fetch_and(&map[page / BITS], ~mask, __ATOMIC_SEQ_CST) & mask) != 0;
        page += n;
        pages -= n;
    }
    return any;
}

bool ram_block_get_dirty(const RAMBlock *block, unsigned client, uint64_t offset, uint64_t bytes)
{
    uint64_t *map = bitmap_of(block, client), page, pages;
    bool any = false;

    if (!map || !page_range(block, offset, bytes, &page, &pages)) {
        return false;
    }
    while (pages && !any) {
        unsigned from = page % BITS;
        uint64_t n = MIN(pages, BITS - from);

        any = __atomic_load_n(&map[page / BITS], __ATOMIC_ACQUIRE) & word_mask(from, n);
        page += n;
        pages -= n;
    }
    return any;
}

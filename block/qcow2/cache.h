/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A cache of equally sized pieces of the image file: slices of L2 tables, or refcount blocks.
 *
 * An entry's data is as on disk (big-endian). An entry that is pinned stays in memory. Data pointers
 * are valid until the next yield unless the entry is pinned. A yield may let a writer make a pointer
 * for reading outdated. The size is a goal: when every entry is pinned or being written, the cache
 * grows beyond it rather than wait. Buffers are allocated as entries come into use.
 *
 * One thread. Loading is atomic to other users: they wait for it. Writing out works on a snapshot:
 * qcow2_cache_freeze() marks all dirty entries, and a change of one of them before it is on disk is
 * made in a copy.
 */
#ifndef FERRY_BLOCK_QCOW2_CACHE_H
#define FERRY_BLOCK_QCOW2_CACHE_H

#include "block/block_int.h"

typedef struct Qcow2Cache Qcow2Cache;

typedef struct Qcow2CacheEntry {
    uint64_t offset; /* in the file, key */
    uint8_t *data;
    uint8_t *frozen_data; /* what is being written, when `data` is newer */
    unsigned pins;
    bool dirty, frozen, loading;
    bool dropped; /* no longer in the table; freed by the last user */
    int load_error;
    unsigned used; /* clock of the last use, for cleaning by age */
    CoQueue loaded;
    TAILQ_ENTRY(Qcow2CacheEntry) lru;
} Qcow2CacheEntry;

/* Called to make clean entries when all are dirty. 0/-errno. */
typedef int coroutine_fn Qcow2CacheCleaner(BlockDriverState *bs);

Qcow2Cache *qcow2_cache_new(BlockDriverState *bs, size_t entry_bytes, size_t max_entries,
                            BlkdebugEvent load_event, Qcow2CacheCleaner *cleaner);
/* Nothing pinned or frozen. Dirty entries are lost. NULL is allowed. */
void qcow2_cache_free(Qcow2Cache *cache);

/* The entry at offset if it is in memory, not pinned; NULL otherwise. */
Qcow2CacheEntry *qcow2_cache_peek(Qcow2Cache *cache, uint64_t offset);
/* The entry at offset, read from the file when need be; pinned. */
int coroutine_fn qcow2_cache_co_get(Qcow2Cache *cache, uint64_t offset,
                                    Qcow2CacheEntry **entry) G_GNUC_WARN_UNUSED_RESULT;
/* An entry of zeroes at offset without reading the file; pinned. */
int coroutine_fn qcow2_cache_co_get_empty(Qcow2Cache *cache, uint64_t offset,
                                          Qcow2CacheEntry **entry) G_GNUC_WARN_UNUSED_RESULT;
/* Unpins; NULL is allowed. */
void qcow2_cache_put(Qcow2Cache *cache, Qcow2CacheEntry *entry);
/*
 * The data for changing; the entry is dirty from now on. The pointer is valid until the next yield.
 */
uint8_t *qcow2_cache_writable(Qcow2Cache *cache, Qcow2CacheEntry *entry);
/*
 * Forgets what is cached of [offset, offset + bytes), dirty or not: it is not metadata any longer.
 */
void qcow2_cache_drop(Qcow2Cache *cache, uint64_t offset, uint64_t bytes);
bool qcow2_cache_is_dirty(const Qcow2Cache *cache);

/*
 * Starts a snapshot of all dirty entries, which then count as clean. Returns them sorted by offset;
 * the caller owns the array.
 */
GPtrArray *qcow2_cache_freeze(Qcow2Cache *cache);
/*
 * Writes a snapshot. On failure everything not written is dirty again. Ends the snapshot and frees
 * the array in any case.
 */
int coroutine_fn qcow2_cache_co_write_frozen(Qcow2Cache *cache, GPtrArray *frozen,
                                             BlkdebugEvent event,
                                             int ignore_overlap) G_GNUC_WARN_UNUSED_RESULT;
/* Gives a snapshot up: the entries are dirty again. */
void qcow2_cache_unfreeze(Qcow2Cache *cache, GPtrArray *frozen);

/* Frees entries that were not used since the last call. */
void qcow2_cache_age(Qcow2Cache *cache);

#endif

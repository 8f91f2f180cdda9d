/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Metadata cache of the qcow2 driver. */
#include "block/qcow2/cache.h"

#include <errno.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "block/qcow2/overlap.h"

/* Adjacent entries are written together up to this many. */
#define MAX_WRITE_ENTRIES 64

struct Qcow2Cache {
    BlockDriverState *bs;
    size_t entry_bytes, max_entries;
    BlkdebugEvent load_event;
    Qcow2CacheCleaner *cleaner;
    GHashTable *table;                 /* &entry->offset -> entry */
    TAILQ_HEAD(, Qcow2CacheEntry) lru; /* least recently used first */
    size_t nb_dirty;
    unsigned clock;
    Qcow2CacheEntry *last; /* of the last lookup: sequential access finds it here */
};

Qcow2Cache *qcow2_cache_new(BlockDriverState *bs, size_t entry_bytes, size_t max_entries,
                            BlkdebugEvent load_event, Qcow2CacheCleaner *cleaner)
{
    Qcow2Cache *cache = g_new0(Qcow2Cache, 1);

    cache->bs = bs;
    cache->entry_bytes = entry_bytes;
    cache->max_entries = max_entries;
    cache->load_event = load_event;
    cache->cleaner = cleaner;
    cache->table = g_hash_table_new(g_int64_hash, g_int64_equal);
    TAILQ_INIT(&cache->lru);
    return cache;
}

static void entry_free(Qcow2CacheEntry *entry)
{
    qemu_vfree(entry->data);
    qemu_vfree(entry->frozen_data);
    g_free(entry);
}

/* Takes the entry out of the table; memory goes when the last user is gone. */
static void entry_remove(Qcow2Cache *cache, Qcow2CacheEntry *entry)
{
    g_hash_table_remove(cache->table, &entry->offset);
    TAILQ_REMOVE(&cache->lru, entry, lru);
    if (entry->dirty) {
        entry->dirty = false;
        cache->nb_dirty--;
    }
    if (cache->last == entry) {
        cache->last = NULL;
    }
    entry->dropped = true;
    if (entry->pins == 0 && !entry->frozen) {
        entry_free(entry);
    }
}

void qcow2_cache_free(Qcow2Cache *cache)
{
    if (!cache) {
        return;
    }
    while (!TAILQ_EMPTY(&cache->lru)) {
        entry_remove(cache, TAILQ_FIRST(&cache->lru));
    }
    g_hash_table_destroy(cache->table);
    g_free(cache);
}

static Qcow2CacheEntry *lookup(Qcow2Cache *cache, uint64_t offset)
{
    Qcow2CacheEntry *entry = cache->last;

    if (!entry || entry->offset != offset) {
        entry = g_hash_table_lookup(cache->table, &offset);
        if (!entry) {
            return NULL;
        }
        cache->last = entry;
        TAILQ_REMOVE(&cache->lru, entry, lru);
        TAILQ_INSERT_TAIL(&cache->lru, entry, lru);
    }
    entry->used = cache->clock;
    return entry;
}

Qcow2CacheEntry *qcow2_cache_peek(Qcow2Cache *cache, uint64_t offset)
{
    Qcow2CacheEntry *entry = lookup(cache, offset);

    return entry && !entry->loading ? entry : NULL;
}

static Qcow2CacheEntry *find_victim(Qcow2Cache *cache)
{
    Qcow2CacheEntry *entry;

    TAILQ_FOREACH(entry, &cache->lru, lru) {
        if (entry->pins == 0 && !entry->dirty && !entry->frozen && !entry->loading) {
            return entry;
        }
    }
    return NULL;
}

/* Makes room for one more entry if that can be had. */
static int coroutine_fn co_make_room(Qcow2Cache *cache)
{
    Qcow2CacheEntry *victim;

    if (g_hash_table_size(cache->table) < cache->max_entries) {
        return 0;
    }
    victim = cache->nb_dirty < g_hash_table_size(cache->table) ? find_victim(cache) : NULL;
    if (!victim && cache->nb_dirty) {
        int ret = cache->cleaner(cache->bs);
        if (ret < 0) {
            return ret;
        }
        victim = find_victim(cache);
    }
    if (victim && g_hash_table_size(cache->table) >= cache->max_entries) {
        entry_remove(cache, victim);
    }
    return 0;
}

/* Inserts a new entry in state loading, pinned. NULL when memory is short. */
static Qcow2CacheEntry *entry_insert(Qcow2Cache *cache, uint64_t offset)
{
    uint8_t *data = qemu_try_blockalign(cache->bs->file->bs, cache->entry_bytes);
    Qcow2CacheEntry *entry;

    if (!data) {
        return NULL;
    }
    entry = g_new0(Qcow2CacheEntry, 1);
    entry->offset = offset;
    entry->data = data;
    entry->pins = 1;
    entry->loading = true;
    entry->used = cache->clock;
    qemu_co_queue_init(&entry->loaded);
    g_hash_table_insert(cache->table, &entry->offset, entry);
    TAILQ_INSERT_TAIL(&cache->lru, entry, lru);
    return entry;
}

/* Waits until a pinned entry is loaded; drops the pin on failure. */
static int coroutine_fn co_wait_loaded(Qcow2Cache *cache, Qcow2CacheEntry *entry)
{
    int ret;

    while (entry->loading) {
        qemu_co_queue_wait(&entry->loaded, NULL);
    }
    ret = entry->load_error;
    if (ret < 0) {
        qcow2_cache_put(cache, entry);
    }
    return ret;
}

static int coroutine_fn co_get(Qcow2Cache *cache, uint64_t offset, bool read, Qcow2CacheEntry **out)
{
    Qcow2CacheEntry *entry = lookup(cache, offset);
    int ret;

    *out = NULL;
    if (!entry) {
        ret = co_make_room(cache);
        if (ret < 0) {
            return ret;
        }
        entry = lookup(cache, offset); /* another coroutine may have been faster */
    }
    if (entry) {
        entry->pins++;
        ret = co_wait_loaded(cache, entry);
        *out = ret < 0 ? NULL : entry;
        return ret;
    }
    entry = entry_insert(cache, offset);
    if (!entry) {
        return -ENOMEM;
    }
    if (read) {
        BLKDBG_CO_EVENT(cache->bs->file, cache->load_event);
        ret = bdrv_co_pread(cache->bs->file, offset, cache->entry_bytes, entry->data, 0);
    } else {
        memset(entry->data, 0, cache->entry_bytes);
        ret = 0;
    }
    entry->loading = false;
    entry->load_error = MIN(ret, 0);
    qemu_co_queue_restart_all(&entry->loaded);
    if (ret < 0) {
        if (!entry->dropped) {
            entry_remove(cache, entry);
        }
        qcow2_cache_put(cache, entry);
        return ret;
    }
    *out = entry;
    return 0;
}

int coroutine_fn qcow2_cache_co_get(Qcow2Cache *cache, uint64_t offset, Qcow2CacheEntry **entry)
{
    return co_get(cache, offset, true, entry);
}

int coroutine_fn qcow2_cache_co_get_empty(Qcow2Cache *cache, uint64_t offset,
                                          Qcow2CacheEntry **entry)
{
    qcow2_cache_drop(cache, offset, 1);
    return co_get(cache, offset, false, entry);
}

void qcow2_cache_put(Qcow2Cache *cache, Qcow2CacheEntry *entry)
{
    if (!entry) {
        return;
    }
    g_assert(entry->pins > 0);
    if (--entry->pins == 0 && entry->dropped && !entry->frozen) {
        entry_free(entry);
    }
}

uint8_t *qcow2_cache_writable(Qcow2Cache *cache, Qcow2CacheEntry *entry)
{
    if (entry->frozen && !entry->frozen_data) {
        uint8_t *copy = qemu_try_blockalign(cache->bs->file->bs, cache->entry_bytes);
        if (!copy) {
            g_error("out of memory for qcow2 metadata");
        }
        memcpy(copy, entry->data, cache->entry_bytes);
        entry->frozen_data = entry->data;
        entry->data = copy;
    }
    if (!entry->dirty && !entry->dropped) {
        entry->dirty = true;
        cache->nb_dirty++;
    }
    return entry->data;
}

void qcow2_cache_drop(Qcow2Cache *cache, uint64_t offset, uint64_t bytes)
{
    for (uint64_t pos = offset; pos < offset + bytes; pos += cache->entry_bytes) {
        Qcow2CacheEntry *entry = g_hash_table_lookup(cache->table, &pos);
        if (entry) {
            entry_remove(cache, entry);
        }
    }
}

bool qcow2_cache_is_dirty(const Qcow2Cache *cache)
{
    return cache->nb_dirty > 0;
}

static int compare_offsets(gconstpointer a, gconstpointer b)
{
    const Qcow2CacheEntry *x = *(Qcow2CacheEntry *const *)a, *y = *(Qcow2CacheEntry *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

GPtrArray *qcow2_cache_freeze(Qcow2Cache *cache)
{
    GPtrArray *frozen = g_ptr_array_sized_new(cache->nb_dirty);
    Qcow2CacheEntry *entry;

    if (cache->nb_dirty) {
        TAILQ_FOREACH(entry, &cache->lru, lru) {
            if (entry->dirty) {
                g_assert(!entry->frozen);
                entry->dirty = false;
                entry->frozen = true;
                g_ptr_array_add(frozen, entry);
            }
        }
    }
    cache->nb_dirty = 0;
    g_ptr_array_sort(frozen, compare_offsets);
    return frozen;
}

static void entry_thaw(Qcow2Cache *cache, Qcow2CacheEntry *entry, bool written)
{
    entry->frozen = false;
    g_clear_pointer(&entry->frozen_data, qemu_vfree);
    if (entry->dropped) {
        if (entry->pins == 0) {
            entry_free(entry);
        }
        return;
    }
    if (!written && !entry->dirty) {
        entry->dirty = true;
        cache->nb_dirty++;
    }
}

void qcow2_cache_unfreeze(Qcow2Cache *cache, GPtrArray *frozen)
{
    for (guint i = 0; i < frozen->len; i++) {
        entry_thaw(cache, g_ptr_array_index(frozen, i), false);
    }
    g_ptr_array_free(frozen, TRUE);
}

/* Writes entries [first, first + n), which are adjacent in the file. */
static int coroutine_fn co_write_run(Qcow2Cache *cache, GPtrArray *frozen, guint first, guint n,
                                     int ignore_overlap)
{
    Qcow2CacheEntry *head = g_ptr_array_index(frozen, first);
    struct iovec iov[MAX_WRITE_ENTRIES];
    QEMUIOVector qiov;
    int ret;

    for (guint i = 0; i < n; i++) {
        Qcow2CacheEntry *entry = g_ptr_array_index(frozen, first + i);
        iov[i].iov_base = entry->frozen_data ? entry->frozen_data : entry->data;
        iov[i].iov_len = cache->entry_bytes;
    }
    qemu_iovec_init_external(&qiov, iov, n);
    ret = qcow2_co_check_overlap(cache->bs, ignore_overlap, head->offset, n * cache->entry_bytes);
    if (ret < 0) {
        return ret;
    }
    return bdrv_co_pwritev(cache->bs->file, head->offset, n * cache->entry_bytes, &qiov, 0);
}

int coroutine_fn qcow2_cache_co_write_frozen(Qcow2Cache *cache, GPtrArray *frozen,
                                             BlkdebugEvent event, int ignore_overlap)
{
    int ret = 0;
    guint n;

    for (guint i = 0; i < frozen->len; i += n) {
        Qcow2CacheEntry *head = g_ptr_array_index(frozen, i);
        for (n = 1; n < MAX_WRITE_ENTRIES && i + n < frozen->len; n++) {
            Qcow2CacheEntry *next = g_ptr_array_index(frozen, i + n);
            if (next->offset != head->offset + n * cache->entry_bytes) {
                break;
            }
        }
        if (ret == 0) {
            BLKDBG_CO_EVENT(cache->bs->file, event);
            ret = co_write_run(cache, frozen, i, n, ignore_overlap);
        }
        for (guint j = i; j < i + n; j++) {
            entry_thaw(cache, g_ptr_array_index(frozen, j), ret == 0);
        }
    }
    g_ptr_array_free(frozen, TRUE);
    return ret;
}

void qcow2_cache_age(Qcow2Cache *cache)
{
    Qcow2CacheEntry *entry, *next;

    TAILQ_FOREACH_SAFE(entry, &cache->lru, lru, next) {
        if (entry->used != cache->clock && entry->pins == 0 && !entry->dirty && !entry->frozen &&
            !entry->loading) {
            entry_remove(cache, entry);
        }
    }
    cache->clock++;
}

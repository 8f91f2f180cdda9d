/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reference counts of host clusters: reading and changing them in cached refcount blocks, and
 * finding free clusters.
 *
 * A new refcount block is put into the first cluster that it covers: nothing there is in use, or
 * the block would exist. So making one never needs another.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/writeback.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include "util/error.h"

uint64_t qcow2_refcount_load(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned bits = 1u << order, per_byte = 8 / bits;
        return (block[index / per_byte] >> (index % per_byte * bits)) & ((1u << bits) - 1);
    }
    case 3:
        return block[index];
    case 4:
        return lduw_be_p(block + index * 2);
    case 5:
        return ldul_be_p(block + index * 4);
    default:
        return ldq_be_p(block + index * 8);
    }
}

void qcow2_refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    switch (order) {
    case 0:
    case 1:
    case 2: {
        unsigned bits = 1u << order, per_byte = 8 / bits, shift = index % per_byte * bits;
        uint8_t mask = ((1u << bits) - 1) << shift;
        block[index / per_byte] = (block[index / per_byte] & ~mask) | (value << shift & mask);
        break;
    }
    case 3:
        block[index] = value;
        break;
    case 4:
        stw_be_p(block + index * 2, value);
        break;
    case 5:
        stl_be_p(block + index * 4, value);
        break;
    default:
        stq_be_p(block + index * 8, value);
    }
}

int coroutine_fn qcow2_co_refcount_init(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t bytes = (uint64_t)s->header.refcount_table_clusters << s->cluster_bits;
    int ret;

    s->reftable_size = bytes / 8;
    s->reftable = g_try_malloc0(MAX(bytes, 8));
    if (!s->reftable) {
        return -ENOMEM;
    }
    if (bytes) {
        BLKDBG_CO_EVENT(bs->file, BLKDBG_REFTABLE_LOAD);
        ret = bdrv_co_pread(bs->file, s->header.refcount_table_offset, bytes, s->reftable, 0);
        if (ret < 0) {
            return ret;
        }
    }
    s->refblock_clusters = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    for (uint64_t i = 0; i < s->reftable_size; i++) {
        uint64_t offset = s->reftable[i] = be64toh(s->reftable[i]);
        if (offset) {
            g_hash_table_add(s->refblock_clusters, g_memdup2(&offset, sizeof(offset)));
        }
    }
    return 0;
}

void qcow2_refcount_close(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    g_clear_pointer(&s->reftable, g_free);
    g_clear_pointer(&s->refblock_clusters, g_hash_table_destroy);
}

/* The refcount block for table entry ti, pinned; *entry NULL when there is none. */
static int coroutine_fn co_get_block(BlockDriverState *bs, uint64_t ti, Qcow2CacheEntry **entry)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t offset = ti < s->reftable_size ? s->reftable[ti] : 0;

    *entry = NULL;
    if (!offset) {
        return 0;
    }
    if (qcow2_in_cluster(s, offset) || offset >= INT64_MAX - s->cluster_size) {
        qcow2_co_signal_corruption(bs, true, -1, -1,
                                   "Refblock offset %#" G_GINT64_MODIFIER
                                   "x unaligned (reftable index: %#" G_GINT64_MODIFIER "x)",
                                   offset, ti);
        return -EIO;
    }
    return qcow2_cache_co_get(s->refblock_cache, offset, entry);
}

/* Counts may differ from what is on disk from now on. */
static int coroutine_fn co_before_change(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    return s->lazy_refcounts && !s->dirty_bit_set ? qcow2_co_mark_dirty(bs) : 0;
}

static void note_used(BDRVQcow2State *s, uint64_t host, uint64_t bytes)
{
    if (s->fresh_offset != UINT64_MAX && host + bytes > s->fresh_offset) {
        s->fresh_offset = host + bytes;
    }
}

void qcow2_reftable_set(BDRVQcow2State *s, uint64_t ti, uint64_t offset)
{
    if (s->reftable[ti]) {
        g_hash_table_remove(s->refblock_clusters, &s->reftable[ti]);
    }
    s->reftable[ti] = offset;
    if (s->reftable_dirty_start == s->reftable_dirty_end) {
        s->reftable_dirty_start = ti;
        s->reftable_dirty_end = ti + 1;
    } else {
        s->reftable_dirty_start = MIN(s->reftable_dirty_start, ti);
        s->reftable_dirty_end = MAX(s->reftable_dirty_end, ti + 1);
    }
    if (offset) {
        g_hash_table_add(s->refblock_clusters, g_memdup2(&offset, sizeof(offset)));
    }
}

/* Makes an empty refcount block at `host` for table entry ti. */
static int coroutine_fn co_make_block(BlockDriverState *bs, uint64_t ti, uint64_t host)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *entry;
    int ret;

    BLKDBG_CO_EVENT(bs->file, BLKDBG_REFBLOCK_ALLOC);
    if (host >= QCOW2_HOST_LIMIT) {
        return -EFBIG;
    }
    ret = qcow2_co_check_overlap(bs, 0, host, s->cluster_size);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_cache_co_get_empty(s->refblock_cache, host, &entry);
    if (ret < 0) {
        return ret;
    }
    qcow2_cache_writable(s->refblock_cache, entry);
    qcow2_cache_put(s->refblock_cache, entry);
    qcow2_reftable_set(s, ti, host);
    note_used(s, host, s->cluster_size);
    return 0;
}

/* The block for ti has its home in the first cluster it covers. */
static int coroutine_fn co_make_own_block(BlockDriverState *bs, uint64_t ti)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t cluster = ti << s->refblock_bits;
    int ret = qcow2_co_reserve_cluster(bs, cluster << s->cluster_bits);

    if (ret == 0) {
        ret = co_make_block(bs, ti, cluster << s->cluster_bits);
    }
    return ret < 0 ? ret : qcow2_co_update_refcount(bs, cluster, 1, 1);
}

/*
 * Entries of the next refcount table so that it covers min_entries and what it needs itself; 0: not
 * possible.
 */
static uint64_t next_reftable_size(const BDRVQcow2State *s, uint64_t min_entries,
                                   uint64_t *table_clusters, uint64_t *blocks)
{
    uint64_t per_cluster = s->cluster_size / 8;
    uint64_t size = MAX(min_entries, s->reftable_size + s->reftable_size / 2 + 1);

    for (;;) {
        size = (size + per_cluster - 1) / per_cluster * per_cluster;
        if (size > QCOW2_MAX_REFTABLE_BYTES / 8) {
            size = QCOW2_MAX_REFTABLE_BYTES / 8;
        }
        *table_clusters = size / per_cluster;
        *blocks = 1;
        while (*table_clusters + *blocks > *blocks << s->refblock_bits) {
            ++*blocks;
        }
        if (size >= MAX(min_entries, s->reftable_size + *blocks)) {
            return size;
        }
        if (size == QCOW2_MAX_REFTABLE_BYTES / 8) {
            return 0;
        }
        size = MAX(min_entries, s->reftable_size + *blocks);
    }
}

/*
 * Moves the refcount table to a larger place behind everything it covers now. New refcount blocks
 * for that place and the table are written at once, and the header makes them valid.
 */
static int coroutine_fn co_grow_reftable(BlockDriverState *bs, uint64_t min_entries)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t table_clusters, blocks, old_size = s->reftable_size;
    uint64_t first = old_size << s->refblock_bits, start = first << s->cluster_bits;
    uint64_t new_size = next_reftable_size(s, min_entries, &table_clusters, &blocks);
    uint64_t old_offset = s->header.refcount_table_offset,
             old_clusters = s->header.refcount_table_clusters;
    g_autofree uint64_t *table = NULL;
    uint8_t *buf;
    int ret;

    if (!new_size || first + blocks + table_clusters > QCOW2_HOST_LIMIT >> s->cluster_bits) {
        return -EFBIG;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_REFTABLE_GROW);
    ret = qcow2_co_writeback(bs, true); /* every block the table refers to is on disk then */
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_co_check_overlap(bs, 0, start, (blocks + table_clusters) << s->cluster_bits);
    if (ret < 0) {
        return ret;
    }
    table = g_try_new0(uint64_t, new_size);
    buf = qemu_try_blockalign(bs->file->bs, (blocks + table_clusters) << s->cluster_bits);
    if (!table || !buf) {
        qemu_vfree(buf);
        return -ENOMEM;
    }
    memset(buf, 0, (blocks + table_clusters) << s->cluster_bits);
    memcpy(table, s->reftable, old_size * 8);
    for (uint64_t i = 0; i < blocks; i++) {
        table[old_size + i] = start + (i << s->cluster_bits);
    }
    for (uint64_t i = 0; i < blocks + table_clusters; i++) {
        qcow2_refcount_store(buf, s->header.refcount_order, i, 1);
    }
    for (uint64_t i = 0; i < new_size; i++) {
        stq_be_p(buf + (blocks << s->cluster_bits) + i * 8, table[i]);
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_REFBLOCK_ALLOC_WRITE_TABLE);
    ret =
        bdrv_co_pwrite_sync(bs->file, start, (blocks + table_clusters) << s->cluster_bits, buf, 0);
    qemu_vfree(buf);
    if (ret < 0) {
        return ret;
    }
    s->header.refcount_table_offset = start + (blocks << s->cluster_bits);
    s->header.refcount_table_clusters = table_clusters;
    BLKDBG_CO_EVENT(bs->file, BLKDBG_REFBLOCK_ALLOC_SWITCH_TABLE);
    ret = qcow2_co_update_header(bs);
    if (ret < 0) {
        s->header.refcount_table_offset = old_offset;
        s->header.refcount_table_clusters = old_clusters;
        return ret;
    }
    g_free(s->reftable);
    s->reftable = g_steal_pointer(&table);
    s->reftable_size = new_size;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t offset = s->reftable[old_size + i];
        g_hash_table_add(s->refblock_clusters, g_memdup2(&offset, sizeof(offset)));
    }
    note_used(s, start, (blocks + table_clusters) << s->cluster_bits);
    qcow2_free_later(bs, old_offset, old_clusters << s->cluster_bits, QCOW2_DISCARD_OTHER);
    return 0;
}

int coroutine_fn qcow2_co_get_refcount(BlockDriverState *bs, uint64_t cluster, uint64_t *refcount)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *entry;
    int ret = co_get_block(bs, cluster >> s->refblock_bits, &entry);

    *refcount = 0;
    if (ret < 0 || !entry) {
        return ret;
    }
    *refcount = qcow2_refcount_load(entry->data, s->header.refcount_order,
                                    cluster & ((1ULL << s->refblock_bits) - 1));
    qcow2_cache_put(s->refblock_cache, entry);
    return 0;
}

/* The cluster has no user any more. */
static void cluster_became_free(BDRVQcow2State *s, uint64_t cluster)
{
    uint64_t host = cluster << s->cluster_bits;

    s->free_hint = MIN(s->free_hint, cluster);
    if (s->compressed_pos && qcow2_cluster_start(s, s->compressed_pos) == host) {
        s->compressed_pos = 0;
    }
    qcow2_cache_drop(s->l2_cache, host, s->cluster_size);
}

static int coroutine_fn co_change_one(BlockDriverState *bs, uint64_t cluster, int delta)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t ti = cluster >> s->refblock_bits, index = cluster & ((1ULL << s->refblock_bits) - 1),
             count;
    Qcow2CacheEntry *entry;
    int ret;

    while (delta > 0 && ti >= s->reftable_size) {
        ret = co_grow_reftable(bs, ti + 1);
        if (ret < 0) {
            return ret;
        }
    }
    if (delta > 0 && !s->reftable[ti]) {
        ret = co_make_own_block(bs, ti);
        if (ret < 0) {
            return ret;
        }
    }
    ret = co_get_block(bs, ti, &entry);
    if (ret < 0) {
        return ret;
    }
    count = entry ? qcow2_refcount_load(entry->data, s->header.refcount_order, index) : 0;
    if ((delta > 0 && count == s->refcount_max) || (delta < 0 && count == 0)) {
        qcow2_cache_put(s->refblock_cache, entry);
        return -EINVAL;
    }
    qcow2_refcount_store(qcow2_cache_writable(s->refblock_cache, entry), s->header.refcount_order,
                         index, count + delta);
    qcow2_cache_put(s->refblock_cache, entry);
    if (count + delta == 0) {
        cluster_became_free(s, cluster);
    }
    return 0;
}

int coroutine_fn qcow2_co_update_refcount(BlockDriverState *bs, uint64_t first, uint64_t count,
                                          int delta)
{
    int result = co_before_change(bs);

    if (result < 0) {
        return result;
    }
    for (uint64_t i = 0; i < count; i++) {
        int ret = co_change_one(bs, first + i, delta);
        if (ret < 0 && delta > 0) {
            while (i-- > 0) {
                if (co_change_one(bs, first + i, -delta) < 0) {
                    break; /* leaks, which a check finds */
                }
            }
            return ret;
        }
        if (ret < 0 && result == 0) {
            result = ret;
        }
    }
    return result;
}

/*
 * Takes up to `want` free clusters from index *pos of a block on; 0 when there is none, *pos is
 * then past the block.
 */
static uint32_t take_from_block(BDRVQcow2State *s, Qcow2CacheEntry *entry, uint64_t *pos,
                                uint32_t want)
{
    unsigned order = s->header.refcount_order;
    uint64_t entries = 1ULL << s->refblock_bits, base = *pos & ~(entries - 1), i = *pos - base, n;
    uint8_t *block;

    while (i < entries && qcow2_refcount_load(entry->data, order, i) != 0) {
        i++;
    }
    *pos = base + i;
    if (i == entries) {
        return 0;
    }
    for (n = 1; n < want && i + n < entries && qcow2_refcount_load(entry->data, order, i + n) == 0;
         n++) {
    }
    block = qcow2_cache_writable(s->refblock_cache, entry);
    for (uint64_t j = i; j < i + n; j++) {
        qcow2_refcount_store(block, order, j, 1);
    }
    return n;
}

/* Makes sure that cluster `pos` has a refcount block. */
static int coroutine_fn co_ensure_block(BlockDriverState *bs, uint64_t pos)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t ti = pos >> s->refblock_bits;
    int ret = 0;

    if (pos >= QCOW2_HOST_LIMIT >> s->cluster_bits) {
        return -EFBIG;
    }
    while (ret == 0 && ti >= s->reftable_size) {
        ret = co_grow_reftable(bs, ti + 1);
    }
    if (ret == 0 && !s->reftable[ti]) {
        ret = co_make_own_block(bs, ti);
    }
    return ret;
}

/* The refcount block of cluster pos, pinned, made if there was none. */
static int coroutine_fn co_need_block(BlockDriverState *bs, uint64_t pos, Qcow2CacheEntry **entry)
{
    int ret = co_ensure_block(bs, pos);

    if (ret < 0) {
        return ret;
    }
    ret = co_get_block(bs, pos >> ((BDRVQcow2State *)bs->opaque)->refblock_bits, entry);
    return ret == 0 && !*entry ? -EIO : ret;
}

int coroutine_fn qcow2_co_alloc_run(BlockDriverState *bs, uint32_t want, uint64_t *host,
                                    uint32_t *got, bool *fresh)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t pos = s->free_hint;
    Qcow2CacheEntry *entry;
    uint32_t n;
    int ret = co_before_change(bs);

    BLKDBG_CO_EVENT(bs->file, BLKDBG_CLUSTER_ALLOC);
    while (ret == 0) {
        ret = co_need_block(bs, pos, &entry);
        if (ret < 0) {
            break;
        }
        n = take_from_block(s, entry, &pos, want);
        qcow2_cache_put(s->refblock_cache, entry);
        if (n == 0) {
            continue;
        }
        if (pos == 0) {
            qcow2_co_signal_corruption(bs, true, -1, -1,
                                       "Preventing invalid allocation of data cluster at offset 0");
            return -EIO;
        }
        s->free_hint = pos + n;
        *host = pos << s->cluster_bits;
        *got = n;
        *fresh = *host >= s->fresh_offset;
        note_used(s, *host, (uint64_t)n << s->cluster_bits);
        return 0;
    }
    return ret;
}

/*
 * Contiguous clusters behind everything that has a refcount block, with their refcount blocks in
 * front of them.
 */
static int coroutine_fn co_alloc_region(BlockDriverState *bs, uint64_t count, uint64_t *host)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t blocks = 1, ti;
    int ret;

    while (count + blocks > blocks << s->refblock_bits) {
        blocks++;
    }
    for (;;) {
        for (ti = s->reftable_size; ti > 0 && !s->reftable[ti - 1]; ti--) {
        }
        if (ti + blocks <= s->reftable_size) {
            break;
        }
        ret = co_grow_reftable(bs, ti + blocks + 1);
        if (ret < 0) {
            return ret;
        }
    }
    uint64_t first = ti << s->refblock_bits;
    for (uint64_t i = 0; i < blocks; i++) {
        ret = co_make_block(bs, ti + i, (first + i) << s->cluster_bits);
        if (ret < 0) {
            return ret;
        }
    }
    *host = (first + blocks) << s->cluster_bits;
    note_used(s, *host, count << s->cluster_bits);
    return qcow2_co_update_refcount(bs, first, blocks + count, 1);
}

int coroutine_fn qcow2_co_alloc_contiguous(BlockDriverState *bs, uint64_t count, uint64_t *host)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t pos = s->free_hint, run = 0, refcount;
    int ret;

    if (count == 0 || count > QCOW2_HOST_LIMIT >> s->cluster_bits) {
        return -EFBIG;
    }
    if (count > (1ULL << s->refblock_bits) / 2) {
        return co_alloc_region(bs, count, host);
    }
    while (run < count) {
        ret = co_ensure_block(bs, pos);
        if (ret < 0) {
            return ret;
        }
        ret = qcow2_co_get_refcount(bs, pos, &refcount);
        if (ret < 0) {
            return ret;
        }
        run = refcount == 0 ? run + 1 : 0;
        pos++;
    }
    pos -= count;
    if (pos == 0) {
        qcow2_co_signal_corruption(bs, true, -1, -1,
                                   "Preventing invalid allocation of metadata at offset 0");
        return -EIO;
    }
    *host = pos << s->cluster_bits;
    ret = qcow2_co_update_refcount(bs, pos, count, 1);
    if (ret == 0) {
        note_used(s, *host, count << s->cluster_bits);
        if (pos == s->free_hint) {
            s->free_hint = pos + count;
        }
    }
    return ret;
}

/*
 * Whether `bytes` more fit behind the last compressed cluster; counts the clusters they touch. 1:
 * yes, 0: no.
 */
static int coroutine_fn co_extend_compressed(BlockDriverState *bs, uint32_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t pos = s->compressed_pos, cluster = pos >> s->cluster_bits, refcount;
    uint64_t room = s->cluster_size - qcow2_in_cluster(s, pos);
    int ret;

    if (!pos) {
        return 0;
    }
    ret = qcow2_co_get_refcount(bs, cluster, &refcount);
    if (ret < 0 || refcount == 0 || refcount == s->refcount_max) {
        return ret;
    }
    if (bytes > room) {
        ret = qcow2_co_get_refcount(bs, cluster + 1, &refcount);
        if (ret < 0 || refcount != 0 || (cluster + 1) >= QCOW2_HOST_LIMIT >> s->cluster_bits) {
            return ret;
        }
        /* Making a refcount block may take the very cluster. */
        ret = co_ensure_block(bs, cluster + 1);
        if (ret == 0) {
            ret = qcow2_co_get_refcount(bs, cluster + 1, &refcount);
        }
        if (ret < 0 || refcount != 0) {
            return ret;
        }
    }
    ret = qcow2_co_update_refcount(bs, cluster, bytes > room ? 2 : 1, 1);
    return ret < 0 ? ret : 1;
}

int coroutine_fn qcow2_co_alloc_bytes(BlockDriverState *bs, uint32_t bytes, uint64_t *host)
{
    BDRVQcow2State *s = bs->opaque;
    uint32_t got;
    bool fresh;
    int ret;

    BLKDBG_CO_EVENT(bs->file, BLKDBG_CLUSTER_ALLOC_BYTES);
    g_assert(bytes > 0 && bytes <= s->cluster_size);
    ret = co_extend_compressed(bs, bytes);
    if (ret < 0) {
        return ret;
    }
    if (ret > 0) {
        *host = s->compressed_pos;
    } else {
        ret = qcow2_co_alloc_run(bs, 1, host, &got, &fresh);
        if (ret < 0) {
            return ret;
        }
    }
    s->compressed_pos = *host + bytes;
    note_used(s, *host, bytes);
    if (qcow2_in_cluster(s, s->compressed_pos) == 0) {
        s->compressed_pos = 0;
    }
    if (*host + bytes > s->compressed_offset_mask) {
        qcow2_co_unalloc(bs, *host, bytes);
        s->compressed_pos = 0;
        return -EFBIG;
    }
    return 0;
}

void coroutine_fn qcow2_co_unalloc(BlockDriverState *bs, uint64_t host, uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = host >> s->cluster_bits,
             end = (host + bytes + s->cluster_size - 1) >> s->cluster_bits;

    if (qcow2_co_update_refcount(bs, first, end - first, -1) < 0) {
        /* A leak, which a check finds. */
    }
}

int coroutine_fn qcow2_co_reserve_cluster(BlockDriverState *bs, uint64_t host)
{
    BDRVQcow2State *s = bs->opaque;

    if ((int64_t)(host + s->cluster_size) <= bs->file->bs->total_bytes) {
        return 0;
    }
    return bdrv_co_pwrite_zeroes(bs->file, (int64_t)host, (int64_t)s->cluster_size, 0);
}

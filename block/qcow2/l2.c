/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From guest offsets to L2 entries and what they mean; making L2 tables. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/overlap.h"

#include <errno.h>

/* --- one entry --- */

bool qcow2_has_host_cluster(const BDRVQcow2State *s, uint64_t entry)
{
    return (entry & QCOW2_OFFSET_MASK) || (qcow2_has_data_file(s) && (entry & QCOW2_OFLAG_COPIED));
}

Qcow2Kind qcow2_entry_kind(const BDRVQcow2State *s, uint64_t entry, uint64_t bitmap, unsigned sc)
{
    bool allocated, zero;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        return qcow2_has_data_file(s) ? QCOW2_INVALID : QCOW2_COMPRESSED;
    }
    if (!s->has_subclusters) {
        if (entry & QCOW2_OFLAG_ZERO) {
            return s->header.version >= 3 ? QCOW2_ZERO : QCOW2_INVALID;
        }
        return qcow2_has_host_cluster(s, entry) ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
    }
    allocated = bitmap >> sc & 1;
    zero = bitmap >> (sc + 32) & 1;
    if (allocated) {
        return zero || !qcow2_has_host_cluster(s, entry) ? QCOW2_INVALID : QCOW2_NORMAL;
    }
    return zero ? QCOW2_ZERO : QCOW2_UNALLOCATED;
}

unsigned qcow2_entry_run(const BDRVQcow2State *s, uint64_t entry, uint64_t bitmap, unsigned sc,
                         Qcow2Kind kind)
{
    uint32_t allocated = bitmap, zero = bitmap >> 32, same;

    if (!s->has_subclusters || kind == QCOW2_COMPRESSED || kind == QCOW2_INVALID) {
        return s->subclusters - sc;
    }
    same = kind == QCOW2_NORMAL ? allocated & ~zero
           : kind == QCOW2_ZERO ? zero & ~allocated
                                : ~(allocated | zero);
    same >>= sc;
    return MIN(same == UINT32_MAX ? 32u : (unsigned)__builtin_ctz(~same), s->subclusters - sc);
}

bool coroutine_fn qcow2_co_entry_check(BlockDriverState *bs, uint64_t offset, uint64_t entry,
                                       uint64_t bitmap)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t host = entry & QCOW2_OFFSET_MASK;
    const char *fault = NULL;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        fault = qcow2_has_data_file(s)
                    ? "Compressed cluster entry found in image with external data file"
                    : NULL;
    } else if (qcow2_in_cluster(s, host)) {
        fault = "Cluster allocation offset unaligned";
    } else if (qcow2_has_data_file(s) && qcow2_has_host_cluster(s, entry) &&
               host != qcow2_cluster_start(s, offset)) {
        fault = "External data file host cluster offset does not match the guest offset";
    } else if (!s->has_subclusters && (entry & QCOW2_OFLAG_ZERO) && s->header.version < 3) {
        fault = "Preallocated zero cluster found in pre-v3 image";
    } else if (s->has_subclusters && (((bitmap >> 32) & (uint32_t)bitmap) ||
                                      ((uint32_t)bitmap && !qcow2_has_host_cluster(s, entry)))) {
        fault = "Invalid subcluster bitmap found";
    }
    if (fault) {
        qcow2_co_signal_corruption(bs, true, -1, -1,
                                   "%s (L2 entry %#" G_GINT64_MODIFIER
                                   "x, guest offset %#" G_GINT64_MODIFIER "x)",
                                   fault, entry, offset);
    }
    return !fault;
}

void qcow2_parse_compressed(const BDRVQcow2State *s, uint64_t entry, uint64_t *offset,
                            uint64_t *bytes)
{
    uint64_t sectors =
        (entry & ~(QCOW2_OFLAG_COMPRESSED | QCOW2_OFLAG_COPIED)) >> s->compressed_shift;

    *offset = entry & s->compressed_offset_mask;
    *bytes = (sectors + 1) * 512 - (*offset & 511);
}

/* --- tables --- */

/* Where the slice with the entry for offset is, from L1; 0 in *slice: no L2 table. */
static int coroutine_fn co_slice_offset(BlockDriverState *bs, uint64_t offset, uint64_t *slice)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t l1_index = offset >> (s->cluster_bits + s->l2_bits);
    uint64_t table = l1_index < s->header.l1_size ? s->l1_table[l1_index] & QCOW2_OFFSET_MASK : 0;
    unsigned index = (offset >> s->cluster_bits) & ((1u << s->l2_bits) - 1);

    *slice = 0;
    if (!table) {
        return 0;
    }
    if (qcow2_in_cluster(s, table)) {
        qcow2_co_signal_corruption(bs, true, -1, -1,
                                   "L2 table offset %#" G_GINT64_MODIFIER
                                   "x unaligned (L1 index: %#" G_GINT64_MODIFIER "x)",
                                   table, l1_index);
        return -EIO;
    }
    *slice = table + (uint64_t)(index >> s->slice_bits) * s->slice_bytes;
    return 0;
}

int coroutine_fn qcow2_co_l2_get(BlockDriverState *bs, uint64_t offset, Qcow2CacheEntry **entry)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t slice;
    int ret = co_slice_offset(bs, offset, &slice);

    *entry = NULL;
    if (ret < 0 || !slice) {
        return ret;
    }
    return qcow2_cache_co_get(s->l2_cache, slice, entry);
}

void qcow2_l1_set(BDRVQcow2State *s, uint32_t i, uint64_t value)
{
    uint64_t before = (s->l1_table[i] & QCOW2_OFFSET_MASK);
    uint64_t after = (value & QCOW2_OFFSET_MASK);

    s->l1_table[i] = value;
    if (s->l1_dirty_start == s->l1_dirty_end) {
        s->l1_dirty_start = i;
        s->l1_dirty_end = i + 1;
    } else {
        s->l1_dirty_start = MIN(s->l1_dirty_start, i);
        s->l1_dirty_end = MAX(s->l1_dirty_end, i + 1);
    }
    if (before == after) {
        return;
    }
    if (before) {
        g_hash_table_remove(s->l2_clusters, &before);
    }
    if (after) {
        g_hash_table_add(s->l2_clusters, g_memdup2(&after, sizeof(after)));
    }
}

/*
 * Fills the slices of a new L2 table at `host` in the cache: from the table at `old`, or with
 * zeroes when that is 0.
 */
static int coroutine_fn co_fill_l2(BlockDriverState *bs, uint64_t host, uint64_t old)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    for (uint64_t pos = 0; pos < s->cluster_size; pos += s->slice_bytes) {
        Qcow2CacheEntry *from = NULL, *to;
        if (old) {
            ret = qcow2_cache_co_get(s->l2_cache, old + pos, &from);
            if (ret < 0) {
                return ret;
            }
        }
        ret = qcow2_cache_co_get_empty(s->l2_cache, host + pos, &to);
        if (ret < 0) {
            qcow2_cache_put(s->l2_cache, from);
            return ret;
        }
        uint8_t *data = qcow2_cache_writable(s->l2_cache, to);
        if (from) {
            memcpy(data, from->data, s->slice_bytes);
        }
        qcow2_cache_put(s->l2_cache, from);
        qcow2_cache_put(s->l2_cache, to);
    }
    return 0;
}

/* A table of our own for L1 entry i: new, or a copy of one that snapshots share. */
static int coroutine_fn co_make_l2(BlockDriverState *bs, uint32_t i)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t old = s->l1_table[i] & QCOW2_OFFSET_MASK, host;
    uint32_t got;
    bool fresh;
    int ret;

    if (qcow2_in_cluster(s, old)) {
        qcow2_co_signal_corruption(
            bs, true, -1, -1, "L2 table offset %#" G_GINT64_MODIFIER "x unaligned (L1 index: %#x)",
            old, i);
        return -EIO;
    }
    ret = qcow2_co_alloc_run(bs, 1, &host, &got, &fresh);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_L2_ALLOC_WRITE);
    ret = qcow2_co_check_overlap(bs, 0, host, s->cluster_size);
    if (ret == 0) {
        ret = qcow2_co_reserve_cluster(bs, host);
    }
    if (ret == 0) {
        ret = co_fill_l2(bs, host, old);
    }
    if (ret < 0) {
        qcow2_cache_drop(s->l2_cache, host, s->cluster_size);
        qcow2_free_later(bs, host, s->cluster_size, QCOW2_DISCARD_NEVER);
        return ret;
    }
    qcow2_l1_set(s, i, host | QCOW2_OFLAG_COPIED);
    if (old) {
        qcow2_free_later(bs, old, s->cluster_size, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

int coroutine_fn qcow2_co_l2_get_writable(BlockDriverState *bs, uint64_t offset,
                                          Qcow2CacheEntry **entry)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t l1_index = offset >> (s->cluster_bits + s->l2_bits);

    *entry = NULL;
    if (l1_index >= s->header.l1_size) {
        return -EFBIG;
    }
    if (!(s->l1_table[l1_index] & QCOW2_OFLAG_COPIED) ||
        !(s->l1_table[l1_index] & QCOW2_OFFSET_MASK)) {
        int ret = co_make_l2(bs, l1_index);
        if (ret < 0) {
            return ret;
        }
    }
    return qcow2_co_l2_get(bs, offset, entry);
}

/* --- runs --- */

/*
 * Collects the run that starts at offset from a loaded slice. False: the first entry contradicts
 * the format.
 */
static bool scan_run(const BDRVQcow2State *s, const uint8_t *slice, uint64_t offset, uint64_t bytes,
                     Qcow2Extent *x)
{
    unsigned index = qcow2_slice_index(s, offset), end = 1u << s->slice_bits;
    unsigned sc = qcow2_in_cluster(s, offset) >> s->subcluster_bits;
    uint64_t covered = 0, skip = offset & (s->subcluster_size - 1);

    do {
        uint64_t entry = qcow2_l2_entry(s, slice, index), bitmap = qcow2_l2_bitmap(s, slice, index);
        uint64_t host = (entry & QCOW2_OFFSET_MASK) + ((uint64_t)sc << s->subcluster_bits);
        Qcow2Kind kind = qcow2_entry_kind(s, entry, bitmap, sc);
        unsigned n = qcow2_entry_run(s, entry, bitmap, sc, kind);

        if (covered == 0) {
            x->kind = kind;
            x->entry = entry;
            x->host_offset = host + skip;
            if (kind == QCOW2_INVALID ||
                (kind == QCOW2_NORMAL && qcow2_in_cluster(s, entry & QCOW2_OFFSET_MASK))) {
                return false;
            }
        } else if (kind != x->kind ||
                   (kind == QCOW2_NORMAL && host != x->host_offset - skip + covered)) {
            break;
        }
        covered += (uint64_t)n << s->subcluster_bits;
        if (kind == QCOW2_COMPRESSED || sc + n < s->subclusters) {
            break;
        }
        sc = 0;
    } while (++index < end && covered < bytes + skip);
    x->bytes = MIN(covered - skip, bytes);
    return true;
}

int coroutine_fn qcow2_co_lookup(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                 Qcow2Extent *x)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned slice_shift = s->cluster_bits + s->slice_bits,
             table_shift = s->cluster_bits + s->l2_bits;
    uint64_t to_slice_end = (((offset >> slice_shift) + 1) << slice_shift) - offset;
    Qcow2CacheEntry *entry;
    bool valid;
    int ret;

    ret = qcow2_co_l2_get(bs, offset, &entry);
    if (ret < 0) {
        return ret;
    }
    if (!entry) {
        x->kind = QCOW2_UNALLOCATED;
        x->bytes = MIN(bytes, (((offset >> table_shift) + 1) << table_shift) - offset);
        return 0;
    }
    valid = scan_run(s, entry->data, offset, MIN(bytes, to_slice_end), x);
    if (!valid) {
        unsigned index = qcow2_slice_index(s, offset);
        uint64_t value = qcow2_l2_entry(s, entry->data, index),
                 bitmap = qcow2_l2_bitmap(s, entry->data, index);
        qcow2_cache_put(s->l2_cache, entry);
        qcow2_co_entry_check(bs, offset, value, bitmap);
        return -EIO;
    }
    qcow2_cache_put(s->l2_cache, entry);
    if (x->kind == QCOW2_NORMAL && qcow2_has_data_file(s) && x->host_offset != offset) {
        qcow2_co_entry_check(bs, offset, x->entry, 0);
        return -EIO;
    }
    return 0;
}

bool qcow2_lookup_fast(BlockDriverState *bs, uint64_t offset, uint64_t bytes, bool for_write,
                       uint64_t *host_offset)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t l1_index = offset >> (s->cluster_bits + s->l2_bits), table;
    unsigned index = (offset >> s->cluster_bits) & ((1u << s->l2_bits) - 1);
    Qcow2CacheEntry *entry;
    Qcow2Extent x;

    if (l1_index >= s->header.l1_size) {
        return false;
    }
    table = s->l1_table[l1_index] & QCOW2_OFFSET_MASK;
    if (!table || (for_write && !(s->l1_table[l1_index] & QCOW2_OFLAG_COPIED))) {
        return false;
    }
    entry =
        qcow2_cache_peek(s->l2_cache, table + (uint64_t)(index >> s->slice_bits) * s->slice_bytes);
    if (!entry) {
        return false;
    }
    index = qcow2_slice_index(s, offset);
    uint64_t last = qcow2_slice_index(s, offset) +
                    ((qcow2_in_cluster(s, offset) + bytes - 1) >> s->cluster_bits);
    if (last >= 1u << s->slice_bits || !scan_run(s, entry->data, offset, bytes, &x) ||
        x.kind != QCOW2_NORMAL || x.bytes != bytes ||
        (qcow2_has_data_file(s) && x.host_offset != offset)) {
        return false;
    }
    for (; for_write && index <= last; index++) {
        if (!(qcow2_l2_entry(s, entry->data, index) & QCOW2_OFLAG_COPIED)) {
            return false;
        }
    }
    *host_offset = x.host_offset;
    return true;
}

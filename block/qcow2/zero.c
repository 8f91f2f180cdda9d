/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Zeroes and discards: changes of L2 entries that move no data. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/alloc.h"
#include "block/qcow2/free.h"
#include "block/qcow2/data.h"
#include "block/qcow2/image.h"

#include <errno.h>

typedef enum ZeroMode {
    ZERO_KEEP,  /* reads as zeroes; the host cluster stays reserved */
    ZERO_UNMAP, /* reads as zeroes; the host cluster is freed */
    UNMAP_FULL, /* the entry becomes empty: the backing file shows */
    DISCARD,    /* what is allocated is freed and reads as zeroes; the rest is left alone */
} ZeroMode;

/*
 * The new entry and bitmap of a cluster that is zeroed or discarded as a whole. True when they
 * differ from the old.
 */
static bool zeroed_entry(const BDRVQcow2State *s, ZeroMode mode, uint64_t old, uint64_t old_bitmap,
                         uint64_t *new, uint64_t *bitmap)
{
    bool reserved = (old & QCOW2_OFLAG_COPIED) && !(old & QCOW2_OFLAG_COMPRESSED) &&
                    qcow2_has_host_cluster(s, old);
    bool empty = old == 0 && (!s->has_subclusters || old_bitmap == 0);
    bool keep = mode == ZERO_KEEP || s->discard_no_unref;

    if (mode == UNMAP_FULL || (mode == DISCARD && empty)) {
        *new = 0;
        *bitmap = 0;
        return !empty;
    }
    *new = (keep && reserved) ? old & ~QCOW2_OFLAG_ZERO : 0;
    *bitmap = 0;
    if (s->header.version < 3) {
        *new = 0; /* no zero flag: callers see to it that there is no backing file */
    } else if (s->has_subclusters) {
        *bitmap = 0xffffffffULL << 32;
    } else {
        *new |= QCOW2_OFLAG_ZERO;
    }
    return *new != old || (s->has_subclusters && *bitmap != old_bitmap);
}

static bool in_slice(const BDRVQcow2State *s, uint64_t a, uint64_t b)
{
    unsigned shift = s->cluster_bits + s->slice_bits;

    return a >> shift == b >> shift;
}

/*
 * Clusters that keep their place but whose contents are not needed: the file may drop them. s->lock
 * is held meanwhile, so that no request writes to them.
 */
static void coroutine_fn co_discard_kept(BlockDriverState *bs, const GArray *kept)
{
    BDRVQcow2State *s = bs->opaque;

    for (guint i = 0; kept && i < kept->len; i++) {
        const Qcow2PendingFree *run = &g_array_index(kept, Qcow2PendingFree, i);
        (void)bdrv_co_pdiscard(bs->file, run->first << s->cluster_bits,
                               (int64_t)run->count << s->cluster_bits);
    }
}

/*
 * Changes the clusters of [offset, end) that lie in one slice; *offset is moved behind them.
 * s->lock held.
 */
static int coroutine_fn co_zero_slice(BlockDriverState *bs, uint64_t *offset, uint64_t end,
                                      ZeroMode mode, Qcow2DiscardReason reason)
{
    BDRVQcow2State *s = bs->opaque;
    bool pass_kept = s->discard_no_unref && mode != ZERO_KEEP && mode != UNMAP_FULL &&
                     s->discard_pass[reason] && !qcow2_has_data_file(s);
    g_autoptr(GArray) kept = pass_kept ? g_array_new(FALSE, FALSE, sizeof(Qcow2PendingFree)) : NULL;
    uint64_t start = *offset, shift = s->cluster_bits + s->slice_bits;
    Qcow2CacheEntry *l2;
    int ret;

    if (mode == UNMAP_FULL || mode == DISCARD) {
        ret = qcow2_co_l2_get(bs, start, &l2);
        if (ret < 0) {
            return ret;
        }
        if (!l2) {
            *offset = MIN(end, ((start >> shift) + 1) << shift);
            return 0;
        }
        qcow2_cache_put(s->l2_cache, l2);
    }
    ret = qcow2_co_l2_get_writable(bs, start, &l2);
    if (ret < 0) {
        return ret;
    }
    for (; *offset < end && in_slice(s, start, *offset); *offset += s->cluster_size) {
        unsigned index = qcow2_slice_index(s, *offset);
        uint64_t old = qcow2_l2_entry(s, l2->data, index),
                 old_bitmap = qcow2_l2_bitmap(s, l2->data, index);
        uint64_t new, bitmap;
        uint8_t *p;

        if (!zeroed_entry(s, mode, old, old_bitmap, &new, &bitmap)) {
            continue;
        }
        p = qcow2_cache_writable(s->l2_cache, l2) + (size_t)index * s->l2_entry_bytes;
        stq_be_p(p, new);
        if (s->has_subclusters) {
            stq_be_p(p + 8, bitmap);
        }
        if ((old & QCOW2_OFLAG_COMPRESSED) || ((old ^ new) & QCOW2_OFFSET_MASK)) {
            qcow2_free_entry(bs, old, reason);
        } else if (kept && (old & QCOW2_OFFSET_MASK)) {
            qcow2_run_append(kept, (old & QCOW2_OFFSET_MASK) >> s->cluster_bits, reason);
        }
    }
    qcow2_cache_put(s->l2_cache, l2);
    co_discard_kept(bs, kept);
    return 0;
}

/* A request to zero: what was asked for, and that rounded out to whole subclusters. */
typedef struct ZeroRange {
    uint64_t start, end;
    uint64_t asked_start, asked_end;
} ZeroRange;

/*
 * Checks that what [start, end) has outside of the asked range reads as zeroes, so that it may be
 * zeroed along. Called with s->lock held and nothing in flight there. So the result stays true
 * until the lock is released. 0, -ENOTSUP, -errno.
 */
static int coroutine_fn co_check_edges(BlockDriverState *bs, const ZeroRange *r, uint64_t start,
                                       uint64_t end)
{
    uint64_t size = bs->total_bytes;
    int ret = 1;

    if (start < r->asked_start) {
        ret = qcow2_co_reads_zero(bs, start, MIN(end, r->asked_start) - start);
    }
    if (ret > 0 && r->asked_end < MIN(end, size)) {
        ret = qcow2_co_reads_zero(bs, r->asked_end, MIN(end, size) - r->asked_end);
    }
    return ret > 0 ? 0 : ret < 0 ? ret : -ENOTSUP;
}

/* [offset, end): whole clusters. Takes s->lock for a slice at a time. */
static int coroutine_fn co_zero_clusters(BlockDriverState *bs, const ZeroRange *r, uint64_t offset,
                                         uint64_t end, ZeroMode mode, Qcow2DiscardReason reason)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned shift = s->cluster_bits + s->slice_bits;
    int ret = 0;

    while (ret == 0 && offset < end) {
        uint64_t slice_end = MIN(end, ((offset >> shift) + 1) << shift);
        qemu_co_mutex_lock(&s->lock);
        qcow2_co_wait_allocs(s, offset, slice_end - offset);
        ret = r ? co_check_edges(bs, r, offset, slice_end) : 0;
        if (ret == 0) {
            ret = co_zero_slice(bs, &offset, slice_end, mode, reason);
        }
        qemu_co_mutex_unlock(&s->lock);
        if (ret == 0) {
            ret = qcow2_co_throttle_frees(bs);
        }
    }
    return ret;
}

/*
 * Some subclusters of one cluster, [from, to) bytes in it. -ENOTSUP when the cluster is compressed.
 */
static int coroutine_fn co_zero_subclusters(BlockDriverState *bs, const ZeroRange *r,
                                            uint64_t cluster, uint64_t from, uint64_t to)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = from >> s->subcluster_bits, end = to >> s->subcluster_bits;
    uint64_t mask = (1ULL << end) - (1ULL << first), bitmap;
    Qcow2CacheEntry *l2;
    unsigned index = qcow2_slice_index(s, cluster);
    int ret;

    qemu_co_mutex_lock(&s->lock);
    qcow2_co_wait_allocs(s, cluster, s->cluster_size);
    ret = co_check_edges(bs, r, cluster + from, cluster + to);
    if (ret == 0) {
        ret = qcow2_co_l2_get_writable(bs, cluster, &l2);
    }
    if (ret == 0) {
        bitmap = qcow2_l2_bitmap(s, l2->data, index);
        if (qcow2_l2_entry(s, l2->data, index) & QCOW2_OFLAG_COMPRESSED) {
            ret = -ENOTSUP;
        } else if ((bitmap & mask) || (~bitmap & mask << 32)) {
            stq_be_p(qcow2_cache_writable(s->l2_cache, l2) + (size_t)index * 16 + 8,
                     (bitmap & ~mask) | mask << 32);
        }
        qcow2_cache_put(s->l2_cache, l2);
    }
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

static int coroutine_fn co_zero_range(BlockDriverState *bs, const ZeroRange *r, ZeroMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t start = r->start, end = r->end, first = qcow2_cluster_start(s, start);
    uint64_t aligned_start = qcow2_cluster_end(s, start), aligned_end = qcow2_cluster_start(s, end);
    int ret;

    if (start < aligned_start) {
        ret = co_zero_subclusters(bs, r, first, start - first, MIN(end - first, s->cluster_size));
        if (ret < 0 || end <= aligned_start) {
            return ret;
        }
    }
    if (aligned_end > aligned_start) {
        ret = co_zero_clusters(bs, r, aligned_start, aligned_end, mode, QCOW2_DISCARD_REQUEST);
        if (ret < 0) {
            return ret;
        }
    }
    return end > aligned_end ? co_zero_subclusters(bs, r, aligned_end, 0, end - aligned_end) : 0;
}

int coroutine_fn qcow2_co_zero(BlockDriverState *bs, int64_t offset, int64_t bytes,
                               BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t mask = s->subcluster_size - 1;
    ZeroRange r = {
        .start = offset & ~mask,
        .end = (offset + bytes + mask) & ~mask,
        .asked_start = offset,
        .asked_end = offset + bytes,
    };
    bool unmap = flags & BDRV_REQ_MAY_UNMAP;
    int ret;

    if (s->header.version < 3 && bs->backing) {
        return -ENOTSUP;
    }
    if (r.asked_end >= (uint64_t)bs->total_bytes) {
        r.end = qcow2_cluster_end(s, r.end);
    }
    ret = qcow2_co_prepare_write(bs);
    if (ret == 0 && s->data_file != bs->file && (unmap || qcow2_data_file_is_raw(s))) {
        ret = bdrv_co_pwrite_zeroes(s->data_file, offset, bytes, flags & BDRV_REQ_MAY_UNMAP);
        unmap = unmap && !qcow2_data_file_is_raw(s);
    }
    if (ret == 0) {
        ret = co_zero_range(bs, &r, unmap ? ZERO_UNMAP : ZERO_KEEP);
    }
    if (ret == -ENOSPC && qcow2_co_reclaim(bs)) {
        ret = co_zero_range(bs, &r, unmap ? ZERO_UNMAP : ZERO_KEEP);
    }
    return ret;
}

int coroutine_fn qcow2_co_discard_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                           Qcow2DiscardReason reason, bool full)
{
    return co_zero_clusters(bs, NULL, offset, offset + bytes, full ? UNMAP_FULL : DISCARD, reason);
}

int coroutine_fn qcow2_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t end = offset + bytes;
    int ret;

    if (s->header.version < 3 && bs->backing) {
        return -ENOTSUP; /* without a zero flag the backing file would show again */
    }
    if (end == (uint64_t)bs->total_bytes) {
        end = qcow2_cluster_end(s, end);
    }
    if (qcow2_in_cluster(s, offset) || qcow2_in_cluster(s, end)) {
        return -ENOTSUP;
    }
    ret = qcow2_co_prepare_write(bs);
    if (ret < 0) {
        return ret;
    }
    if (!qcow2_data_file_is_raw(s) || !qcow2_has_data_file(s)) {
        ret = qcow2_co_discard_clusters(bs, offset, end - offset, QCOW2_DISCARD_REQUEST, false);
    }
    if (ret == 0 && s->data_file != bs->file && s->discard_pass[QCOW2_DISCARD_REQUEST]) {
        ret = bdrv_co_pdiscard(s->data_file, offset, bytes);
    }
    return ret;
}

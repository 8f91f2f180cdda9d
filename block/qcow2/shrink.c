/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making an image smaller: what lies behind the new end is freed, and the file is cut behind the
 * last cluster in use.
 *
 * The clusters are free on disk before the file is cut, so a crash in between leaves a file that is
 * longer than it need be. A cut that fails does the image no harm and is no error.
 */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/cache.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/writeback.h"
#include "block/qcow2/data.h"
#include "block/qcow2/size.h"

#include <errno.h>
#include "util/error.h"

#define NOT_USED UINT64_MAX

/* Frees guest clusters and L2 tables behind the new end, and sets it. */
static int coroutine_fn co_free_tail(BlockDriverState *bs, uint64_t size, uint64_t l1_entries)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t start = qcow2_cluster_end(s, size), end = qcow2_cluster_end(s, s->header.size);
    int ret = start < end
                  ? qcow2_co_discard_clusters(bs, start, end - start, QCOW2_DISCARD_REQUEST, true)
                  : 0;

    if (ret < 0) {
        return ret;
    }
    qemu_co_mutex_lock(&s->lock);
    for (uint64_t i = l1_entries; i < s->header.l1_size; i++) {
        uint64_t table = s->l1_table[i] & QCOW2_OFFSET_MASK;

        if (table) {
            qcow2_l1_set(s, i, 0);
            qcow2_cache_drop(s->l2_cache, table, s->cluster_size);
            qcow2_free_later(bs, table, s->cluster_size, QCOW2_DISCARD_OTHER);
        }
    }
    ret = qcow2_co_set_size(bs, size);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/* The last cluster besides `home` with a reference that block ti counts, NOT_USED without. */
static int coroutine_fn co_last_used_in(BlockDriverState *bs, uint64_t ti, uint64_t home,
                                        uint64_t *last)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *entry;
    int ret = qcow2_cache_co_get(s->refblock_cache, s->reftable[ti], &entry);

    if (ret < 0) {
        return ret;
    }
    *last = NOT_USED;
    for (uint64_t i = 1ULL << s->refblock_bits; i-- > 0 && *last == NOT_USED;) {
        uint64_t cluster = (ti << s->refblock_bits) + i;

        if (cluster != home && qcow2_refcount_load(entry->data, s->header.refcount_order, i)) {
            *last = cluster;
        }
    }
    qcow2_cache_put(s->refblock_cache, entry);
    return 0;
}

/*
 * The last cluster in use. On the way down, refcount blocks that count nothing but themselves are
 * taken out of the table: `homeless` gets the clusters of those that another block counts. s->lock
 * held.
 */
static int coroutine_fn co_drop_blocks(BlockDriverState *bs, GArray *homeless, uint64_t *last)
{
    BDRVQcow2State *s = bs->opaque;

    for (uint64_t ti = s->reftable_size; ti-- > 0;) {
        uint64_t offset = s->reftable[ti], home = offset >> s->cluster_bits;
        bool at_home = home >> s->refblock_bits == ti;
        int ret;

        if (!offset) {
            continue;
        }
        if (qcow2_in_cluster(s, offset) || offset >= QCOW2_HOST_LIMIT) {
            return -EIO; /* reported by the caller that needs the block */
        }
        ret = co_last_used_in(bs, ti, home, last);
        if (ret < 0) {
            return ret;
        }
        if (*last != NOT_USED) {
            *last = at_home ? MAX(*last, home) : *last;
            return 0;
        }
        qcow2_reftable_set(s, ti, 0);
        qcow2_cache_drop(s->refblock_cache, offset, s->cluster_size);
        if (!at_home) {
            g_array_append_val(homeless, home);
        }
    }
    return -EIO; /* not even the header is counted */
}

/* Everything that was freed is free on disk, as far as requests in flight let it. */
static int coroutine_fn co_settle(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    do {
        ret = qcow2_co_flush_metadata(bs);
    } while (ret == 0 && (s->frees->len || s->grace->len) && !s->grace_busy &&
             (s->grace->len == 0 || s->in_flight[s->grace_epoch] == 0));
    return ret;
}

/* s->lock held: nothing is allocated meanwhile. */
static int coroutine_fn co_cut_locked(BlockDriverState *bs, GArray *homeless)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t len = bdrv_co_getlength(bs->file->bs);
    g_autoptr(GError) err = NULL;
    uint64_t last, end;
    int ret = len < 0 ? len : co_drop_blocks(bs, homeless, &last);

    if (ret == 0) {
        ret = qcow2_co_writeback(bs, true);
    }
    for (guint i = 0; ret == 0 && i < homeless->len; i++) {
        ret = qcow2_co_update_refcount(bs, g_array_index(homeless, uint64_t, i), 1, -1);
    }
    if (ret == 0 && homeless->len) {
        homeless->len = 0;
        ret = co_drop_blocks(bs, homeless, &last);
        ret = ret == 0 ? qcow2_co_writeback(bs, true) : ret;
    }
    if (ret == 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    end = ret == 0 ? (last + 1) << s->cluster_bits : 0;
    if (ret < 0 || end >= (uint64_t)len) {
        return ret;
    }
    if (!bdrv_co_truncate(bs->file, end, false, PREALLOC_MODE_OFF, 0, &err)) {
        warn_report("Could not cut the file of node '%s': %s", bs->node_name, err->message);
        return 0;
    }
    if (s->fresh_offset != UINT64_MAX) {
        s->fresh_offset = end;
    }
    return 0;
}

static int coroutine_fn co_cut_file(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GArray) homeless = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    int ret = co_settle(bs);

    if (ret < 0) {
        return ret;
    }
    qemu_co_mutex_lock(&s->lock);
    ret = co_cut_locked(bs, homeless);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

int coroutine_fn qcow2_co_shrink(BlockDriverState *bs, uint64_t size, uint64_t l1_entries)
{
    int ret = co_free_tail(bs, size, l1_entries);

    return ret < 0 ? ret : co_cut_file(bs);
}

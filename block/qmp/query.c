/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-block, query-named-block-nodes, query-blockstats. */
#include <errno.h>
#include <string.h>

#include "block/block-backend.h"
#include "block/dirty-bitmap.h"
#include "block/graph/graph.h"
#include "block/io/limits.h"
#include "block/qmp/snapshot-internal.h"
#include "qapi/qapi-commands.h"
#include "util/error.h"

/* --- images and nodes --- */

/* What the driver knows; in the graph's thread. */
static bool coroutine_fn ask_driver(BlockDriverState *bs, ImageInfo *info, GError **errp)
{
    int64_t cluster_size = 0;
    bool dirty = false;
    int64_t actual = bdrv_co_get_allocated_file_size(bs);
    GError *err = NULL;

    info->virtual_size = bs->total_bytes;
    info->has_actual_size = actual >= 0;
    info->actual_size = MAX(actual, 0);
    if (bs->drv->bdrv_co_get_info && bs->drv->bdrv_co_get_info(bs, &cluster_size, &dirty)) {
        info->has_cluster_size = cluster_size > 0;
        info->cluster_size = cluster_size;
        info->has_dirty_flag = true;
        info->dirty_flag = dirty;
    }
    if (bs->drv->bdrv_co_get_specific_info) {
        info->format_specific = bs->drv->bdrv_co_get_specific_info(bs, &err);
    }
    if (err) {
        g_propagate_error(errp, err);
        return false;
    }
    return true;
}

/* The caller holds a reference. */
static ImageInfo *coroutine_fn image_info(BlockDriverState *bs, bool with_chain, GError **errp)
{
    g_autoptr(ImageInfo) info = g_new0(ImageInfo, 1);
    BlockDriverState *backing;
    AioContext *from;
    bool ok;

    info->filename = g_strdup(bdrv_get_filename(bs));
    info->format = g_strdup(bdrv_get_format_name(bs));
    from = bdrv_co_enter_graph(bs);
    ok = ask_driver(bs, info, errp);
    bdrv_co_leave_graph(bs, from);
    if (!ok) {
        return NULL;
    }
    if (bs->backing_file && bs->backing_file[0]) {
        info->backing_filename = g_strdup(bs->backing_file);
        info->full_backing_filename = bdrv_backing_path(bs, NULL);
        if (bs->backing_format && bs->backing_format[0]) {
            info->backing_filename_format = g_strdup(bs->backing_format);
        }
    }
    info->snapshots = bdrv_co_snapshot_list(bs);
    info->has_snapshots = info->snapshots != NULL;
    backing = bdrv_cow_bs(bs);
    if (with_chain && backing) {
        bdrv_ref(backing);
        info->backing_image = image_info(backing, true, errp);
        bdrv_unref_later(backing);
        if (!info->backing_image) {
            return NULL;
        }
    }
    return g_steal_pointer(&info);
}

static BlockdevChildList *children_info(BlockDriverState *bs)
{
    BlockdevChildList *list = NULL;
    BdrvChild *child;

    LIST_FOREACH(child, &bs->children, next) {
        BlockdevChild *info;

        if (!child->bs) {
            continue;
        }
        info = g_new0(BlockdevChild, 1);
        info->child = g_strdup(child->name);
        info->node_name = g_strdup(child->bs->node_name);
        QAPI_LIST_PREPEND(list, info);
    }
    return list;
}

static int backing_depth(BlockDriverState *bs)
{
    int depth = 0;

    while ((bs = bdrv_cow_bs(bs))) {
        depth++;
    }
    return depth;
}

static BlockDeviceInfo *coroutine_fn node_info(BlockDriverState *bs, BlockBackend *blk, bool flat,
                                               GError **errp)
{
    g_autoptr(BlockDeviceInfo) info = g_new0(BlockDeviceInfo, 1);
    BlockDriverState *cow = bdrv_cow_bs(bs);
    AioContext *from;

    info->file = g_strdup(bdrv_get_filename(bs));
    info->node_name = g_strdup(bs->node_name);
    info->ro = bdrv_is_read_only(bs);
    info->drv = g_strdup(bdrv_get_format_name(bs));
    info->backing_file = cow ? g_strdup(bdrv_get_filename(cow)) : NULL;
    info->backing_file_depth = backing_depth(bs);
    info->children = children_info(bs);
    info->active = !(bs->open_flags & BDRV_O_INACTIVE);
    info->detect_zeroes = bs->detect_zeroes;
    info->cache = g_new0(BlockdevCacheInfo, 1);
    info->cache->writeback = !blk || blk_enable_write_cache(blk);
    info->cache->direct = bs->open_flags & BDRV_O_NOCACHE;
    info->cache->no_flush = bs->open_flags & BDRV_O_NO_FLUSH;
    info->write_threshold = __atomic_load_n(&bs->write_threshold_offset, __ATOMIC_RELAXED);
    if (blk) {
        io_limits_fill_info(info, blk);
    }
    from = bdrv_co_enter_graph(bs); /* where writes mark them */
    info->dirty_bitmaps = bdrv_query_dirty_bitmaps(bs);
    bdrv_co_leave_graph(bs, from);
    info->has_dirty_bitmaps = info->dirty_bitmaps != NULL;
    info->image = image_info(bs, !flat, errp);
    return info->image ? g_steal_pointer(&info) : NULL;
}

bool coroutine_fn qmp_query_named_block_nodes(const QueryNamedBlockNodesArg *arg,
                                              BlockDeviceInfoList **ret, GError **errp)
{
    g_autoptr(BlockDeviceInfoList) list = NULL;
    BlockDeviceInfoList **tail = &list;
    BlockDriverState *bs;

    for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        BlockDeviceInfo *info;

        if (!bs->is_open || !bs->drv || bs->closing) {
            continue; /* being opened or closed */
        }
        bdrv_ref(bs);
        info = node_info(bs, NULL, arg->has_flat && arg->flat, errp);
        if (!info) {
            bdrv_unref_later(bs);
            return false;
        }
        QAPI_LIST_APPEND(tail, info);
        bdrv_unref_later(bs);
    }
    *ret = g_steal_pointer(&list);
    return true;
}

static BlockInfo *coroutine_fn device_info(BlockBackend *blk, bool flat, GError **errp)
{
    g_autoptr(BlockInfo) info = g_new0(BlockInfo, 1);
    BlockDriverState *bs = blk_bs(blk);

    info->device = g_strdup(blk_name(blk));
    info->type = g_strdup("unknown");
    info->locked = false;
    info->removable = true;
    if (blk_iostatus_is_enabled(blk)) {
        info->has_io_status = true;
        info->io_status = blk_iostatus(blk);
    }
    if (bs && bs->drv) {
        /* Users ask for the node they know, not for a filter that a job has put above it. */
        while (bs->implicit && bdrv_filter_bs(bs)) {
            bs = bdrv_filter_bs(bs);
        }
        bdrv_ref(bs);
        info->inserted = node_info(bs, blk, flat, errp);
        bdrv_unref_later(bs);
        if (!info->inserted) {
            return NULL;
        }
    }
    return g_steal_pointer(&info);
}

bool coroutine_fn qmp_query_block(const QueryBlockArg *arg, BlockInfoList **ret, GError **errp)
{
    g_autoptr(BlockInfoList) list = NULL;
    BlockInfoList **tail = &list;

    for (BlockBackend *blk = blk_next(NULL), *next; blk; blk = next) {
        BlockInfo *info;

        blk_ref(blk);
        info = device_info(blk, arg->has_flat && arg->flat, errp);
        next = blk_next(blk);
        blk_unref(blk);
        if (!info) {
            return false;
        }
        QAPI_LIST_APPEND(tail, info);
    }
    *ret = g_steal_pointer(&list);
    return true;
}

/* --- statistics --- */

static uint64List *numbers_list(const uint64_t *numbers, size_t n)
{
    uint64List *list = NULL, **tail = &list;

    for (size_t i = 0; i < n; i++) {
        QAPI_LIST_APPEND(tail, numbers[i]);
    }
    return list;
}

/* NULL while no histogram was asked for. */
static BlockLatencyHistogramInfo *histogram_info(const BlockLatencyHistogram *h)
{
    BlockLatencyHistogramInfo *info = h->bins ? g_new(BlockLatencyHistogramInfo, 1) : NULL;

    if (info) {
        *info = (BlockLatencyHistogramInfo){
            .bins = numbers_list(h->bins, h->nbins),
            .boundaries = numbers_list(h->boundaries, h->nbins - 1),
        };
    }
    return info;
}

static void fill_stats(BlockDeviceStats *d, BlockAcctStats *s)
{
    const BlockAcctTally *reads = &s->of[BLOCK_ACCT_READ], *writes = &s->of[BLOCK_ACCT_WRITE];
    const BlockAcctTally *flushes = &s->of[BLOCK_ACCT_FLUSH], *unmaps = &s->of[BLOCK_ACCT_UNMAP];

    block_acct_lock(s);
    d->rd_operations = reads->ops;
    d->rd_bytes = reads->bytes;
    d->rd_total_time_ns = reads->time_ns;
    d->failed_rd_operations = reads->failed;
    d->invalid_rd_operations = reads->invalid;
    d->rd_latency_histogram = histogram_info(&reads->latencies);

    d->wr_operations = writes->ops;
    d->wr_bytes = writes->bytes;
    d->wr_total_time_ns = writes->time_ns;
    d->failed_wr_operations = writes->failed;
    d->invalid_wr_operations = writes->invalid;
    d->wr_latency_histogram = histogram_info(&writes->latencies);

    d->flush_operations = flushes->ops;
    d->flush_total_time_ns = flushes->time_ns;
    d->failed_flush_operations = flushes->failed;
    d->invalid_flush_operations = flushes->invalid;
    d->flush_latency_histogram = histogram_info(&flushes->latencies);

    d->unmap_operations = unmaps->ops;
    d->unmap_bytes = unmaps->bytes;
    d->unmap_total_time_ns = unmaps->time_ns;
    d->failed_unmap_operations = unmaps->failed;
    d->invalid_unmap_operations = unmaps->invalid;

    d->account_failed = s->account_failed;
    d->account_invalid = s->account_invalid;
    d->has_idle_time_ns = s->idle_since_ns != 0;
    if (d->has_idle_time_ns) {
        d->idle_time_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - s->idle_since_ns;
    }
    block_acct_unlock(s);
}

/* Statistics of a node, of the file it lies in and of its backing files. */
static BlockStats *node_stats(BlockDriverState *bs, BlockBackend *blk, bool with_chain)
{
    BlockStats *stats = g_new0(BlockStats, 1);
    BlockDriverState *cow = bdrv_cow_bs(bs);

    stats->node_name = g_strdup(bs->node_name);
    stats->stats = g_new0(BlockDeviceStats, 1);
    stats->stats->account_invalid = stats->stats->account_failed = true;
    if (blk) {
        fill_stats(stats->stats, blk_get_stats(blk));
    }
    stats->stats->wr_highest_offset = __atomic_load_n(&bs->wr_highest_offset, __ATOMIC_RELAXED);
    if (bs->drv && bs->drv->bdrv_get_specific_stats) {
        stats->driver_specific = bs->drv->bdrv_get_specific_stats(bs);
    }
    if (bs->file) {
        stats->parent = node_stats(bs->file->bs, NULL, with_chain);
    }
    if (with_chain && cow) {
        stats->backing = node_stats(cow, NULL, with_chain);
    }
    return stats;
}

bool coroutine_fn qmp_query_blockstats(const QueryBlockstatsArg *arg, BlockStatsList **ret,
                                       GError **errp)
{
    BlockStatsList **tail = ret;

    if (arg->has_query_nodes && arg->query_nodes) {
        for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
            if (bs->is_open && bs->drv && !bs->closing) {
                QAPI_LIST_APPEND(tail, node_stats(bs, NULL, false));
            }
        }
        return true;
    }
    for (BlockBackend *blk = blk_next(NULL); blk; blk = blk_next(blk)) {
        BlockDriverState *bs = blk_bs(blk);
        BlockStats *stats;

        if (bs) {
            stats = node_stats(bs, blk, true);
        } else {
            stats = g_new0(BlockStats, 1);
            stats->stats = g_new0(BlockDeviceStats, 1);
            fill_stats(stats->stats, blk_get_stats(blk));
        }
        stats->device = g_strdup(blk_name(blk));
        QAPI_LIST_APPEND(tail, stats);
    }
    return true;
}

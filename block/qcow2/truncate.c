/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changing the size of an image, and allocating it ahead of use. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/alloc.h"
#include "block/qcow2/refcount.h"
#include "block/qcow2/free.h"
#include "block/qcow2/overlap.h"
#include "block/qcow2/writeback.h"
#include "block/qcow2/data.h"
#include "block/qcow2/size.h"
#include "block/qcow2/image.h"

#include <errno.h>
#include "util/error.h"

#define ZERO_BUFFER_BYTES (1u << 20)

static uint64_t l1_entries_for(const BDRVQcow2State *s, uint64_t size)
{
    unsigned shift = s->cluster_bits + s->l2_bits;

    return (size >> shift) + !!(size & ((1ULL << shift) - 1));
}

/* Moves the L1 table to a place with room for min_entries. s->lock held. */
static int coroutine_fn co_grow_l1(BlockDriverState *bs, uint64_t min_entries)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t bytes, host, old_offset = s->header.l1_table_offset, old_size = s->header.l1_size;
    uint64_t *table, *disk;
    int ret;

    bytes = qcow2_cluster_end(s, min_entries * 8);
    if (min_entries * 8 > QCOW2_MAX_L1_BYTES) {
        return -EFBIG;
    }
    ret = qcow2_co_writeback(bs, true); /* the new table may then be copied from memory */
    if (ret < 0) {
        return ret;
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_L1_GROW_ALLOC_TABLE);
    ret = qcow2_co_alloc_contiguous(bs, bytes >> s->cluster_bits, &host);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_co_writeback(bs, true); /* counted on disk before the header refers to it */
    table = g_try_malloc0(bytes);
    disk = g_try_malloc0(bytes);
    if (ret == 0 && (!table || !disk)) {
        ret = -ENOMEM;
    }
    if (ret == 0) {
        ret = qcow2_co_check_overlap(bs, 0, host, bytes);
    }
    if (ret == 0) {
        memcpy(table, s->l1_table, old_size * 8);
        for (uint64_t i = 0; i < old_size; i++) {
            disk[i] = htobe64(table[i]);
        }
        BLKDBG_CO_EVENT(bs->file, BLKDBG_L1_GROW_WRITE_TABLE);
        ret = bdrv_co_pwrite_sync(bs->file, host, bytes, disk, 0);
    }
    g_free(disk);
    if (ret == 0) {
        BLKDBG_CO_EVENT(bs->file, BLKDBG_L1_GROW_ACTIVATE_TABLE);
        s->header.l1_table_offset = host;
        s->header.l1_size = min_entries;
        ret = qcow2_co_update_header(bs);
    }
    if (ret < 0) {
        s->header.l1_table_offset = old_offset;
        s->header.l1_size = old_size;
        g_free(table);
        qcow2_co_unalloc(bs, host, bytes);
        return ret;
    }
    g_free(s->l1_table);
    s->l1_table = table;
    qcow2_free_later(bs, old_offset, old_size * 8, QCOW2_DISCARD_OTHER);
    return 0;
}

int coroutine_fn qcow2_co_set_size(BlockDriverState *bs, uint64_t size)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t old = s->header.size;
    int ret;

    s->header.size = size;
    ret = qcow2_co_update_header(bs);
    if (ret < 0) {
        s->header.size = old;
    }
    return ret;
}

/* Zeroes in memory instead of in metadata: images without a zero flag. */
static int coroutine_fn co_write_zeroes(BlockDriverState *bs, uint64_t offset, uint64_t end)
{
    uint64_t max = MIN(end - offset, ZERO_BUFFER_BYTES);
    g_autofree uint8_t *zeroes = g_malloc0(max);
    int ret = 0;

    for (uint64_t n; ret == 0 && offset < end; offset += n) {
        QEMUIOVector qiov;
        n = MIN(end - offset, max);
        qemu_iovec_init_buf(&qiov, zeroes, n);
        ret = qcow2_co_write(bs, offset, n, &qiov, 0, 0);
    }
    return ret;
}

/*
 * Old data may lie behind the old end in its last cluster, and a backing file may be longer: both
 * must not appear.
 */
static int coroutine_fn co_zero_grown(BlockDriverState *bs, uint64_t old, uint64_t size)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t backing = bs->backing ? bdrv_getlength(bs->backing->bs) : 0;
    uint64_t tail = MIN(qcow2_cluster_end(s, old), size), end;
    int ret;

    if (backing < 0) {
        return backing;
    }
    if (tail > old) {
        ret = qcow2_co_reads_zero(bs, old, tail - old);
        if (ret == 0) {
            ret = co_write_zeroes(bs, old, tail);
        }
        if (ret < 0) {
            return ret;
        }
    }
    end = MIN(size, (uint64_t)backing);
    if (end > tail && end > old) {
        /*
         * Also ends the zeroes in the middle of a cluster that lies behind the backing file or the
         * image.
         */
        ret = qcow2_co_zero(bs, MAX(tail, old), qcow2_cluster_end(s, end) - MAX(tail, old), 0);
        return ret == -ENOTSUP ? co_write_zeroes(bs, MAX(tail, old), end) : ret;
    }
    return 0;
}

/* Host clusters for the run that starts at offset; *done bytes. */
static int coroutine_fn co_preallocate_run(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                           uint64_t *done, uint64_t *host_end)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2WritePlan plan;
    uint64_t host_bytes;
    int ret = qcow2_co_start_write(bs, offset, bytes, &plan);

    if (ret < 0) {
        return ret;
    }
    *done = plan.bytes;
    *host_end = MAX(*host_end, plan.host_offset + plan.bytes);
    if (!plan.allocating) {
        return 0;
    }
    host_bytes = (uint64_t)plan.alloc.nb_clusters << s->cluster_bits;
    if (s->has_subclusters) {
        plan.alloc.fill_end =
            plan.alloc.fill_start; /* reserved, and nothing in them allocated yet */
    } else if (!plan.alloc.fresh) {
        ret = bdrv_co_pwrite_zeroes(s->data_file, plan.alloc.host_offset, host_bytes, 0);
    }
    return qcow2_co_finish_write(bs, &plan, ret);
}

bool coroutine_fn qcow2_co_preallocate(BlockDriverState *bs, uint64_t offset, uint64_t end,
                                       PreallocMode mode, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t host_end = 0;
    int64_t len;
    int ret = 0;

    offset = qcow2_cluster_start(s, offset);
    end = qcow2_cluster_end(s, end);
    while (ret == 0 && offset < end) {
        uint64_t done = 0;
        ret = co_preallocate_run(bs, offset, end - offset, &done, &host_end);
        offset += done;
    }
    if (ret == 0) {
        ret = qcow2_co_flush_metadata(bs);
    }
    len = ret < 0 ? ret : bdrv_co_getlength(s->data_file->bs);
    if (len < 0) {
        error_setg_errno(errp, -len, "Could not preallocate the image");
        return false;
    }
    if ((int64_t)host_end <= len) {
        return true;
    }
    return bdrv_co_truncate(s->data_file, host_end, false,
                            mode == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF : mode, 0, errp);
}

static int coroutine_fn co_grow(BlockDriverState *bs, uint64_t size)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t old = s->header.size, entries = l1_entries_for(s, size);
    int ret = 0;

    if (entries > s->header.l1_size) {
        qemu_co_mutex_lock(&s->lock);
        ret = co_grow_l1(bs, entries);
        qemu_co_mutex_unlock(&s->lock);
    }
    if (ret == 0) {
        ret = co_zero_grown(bs, old, size);
    }
    if (ret == 0) {
        qemu_co_mutex_lock(&s->lock);
        ret = qcow2_co_writeback(bs, false);
        if (ret == 0) {
            ret = qcow2_co_set_size(bs, size);
        }
        qemu_co_mutex_unlock(&s->lock);
    }
    return ret;
}

static bool check_resize(const BDRVQcow2State *s, int64_t size, PreallocMode prealloc,
                         GError **errp)
{
    if (size & (BDRV_SECTOR_SIZE - 1)) {
        error_setg(errp, "The new size must be a multiple of %d", BDRV_SECTOR_SIZE);
        return false;
    }
    if (s->header.nb_snapshots && (s->header.version < 3 || (uint64_t)size < s->header.size)) {
        error_setg(errp, "Can't resize an image which has snapshots");
        return false;
    }
    if (s->header.has_bitmaps_ext && !s->bitmaps_kept) {
        error_setg(errp, "Can't resize an image which has bitmaps that are not in use here");
        return false;
    }
    if ((uint64_t)size < s->header.size && prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation can't be used for shrinking an image");
        return false;
    }
    if (l1_entries_for(s, size) * 8 > QCOW2_MAX_L1_BYTES) {
        error_setg(errp, "Image size too big for a cluster size of %" G_GUINT64_FORMAT " bytes",
                   s->cluster_size);
        return false;
    }
    return true;
}

bool coroutine_fn qcow2_co_resize(BlockDriverState *bs, int64_t size, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags, GError **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t old = s->header.size;
    int ret;

    if (!check_resize(s, size, prealloc, errp)) {
        return false;
    }
    if ((uint64_t)size == old) {
        return true;
    }
    ret = qcow2_co_prepare_write(bs);
    if (ret == 0) {
        ret = (uint64_t)size < old ? qcow2_co_shrink(bs, size, l1_entries_for(s, size))
                                   : co_grow(bs, size);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not resize the image");
        return false;
    }
    if (s->data_file != bs->file && qcow2_data_file_is_raw(s) &&
        !bdrv_co_truncate(s->data_file, size, exact, PREALLOC_MODE_OFF, 0, errp)) {
        return false;
    }
    return prealloc == PREALLOC_MODE_OFF || qcow2_co_preallocate(bs, old, size, prealloc, errp);
}

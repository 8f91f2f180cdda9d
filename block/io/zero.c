/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Write-zeroes, discard, flush and truncate on an edge. */
#include "block/io/request.h"

#include <errno.h>
#include <string.h>
#include "block/graph/graph.h"
#include "util/error.h"
#include "util/int-math.h"

/*
 * Buffer of zeroes for drivers that cannot zero: large enough to be quick, small enough to keep
 * around for one request.
 */
#define ZERO_BOUNCE_BYTES (256 * 1024)

static int coroutine_fn write_zero_buffer(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags)
{
    size_t len = MIN(bytes, MAX((int64_t)ZERO_BOUNCE_BYTES, (int64_t)bs->bl.request_alignment));
    void *buf = qemu_try_blockalign(bs, len);
    int ret = 0;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, len);
    while (bytes > 0 && ret == 0) {
        int64_t n = MIN(bytes, (int64_t)len);
        QEMUIOVector qiov;

        qemu_iovec_init_buf(&qiov, buf, n);
        ret = bdrv_write_by_driver(bs, offset, n, &qiov, 0, flags & BDRV_REQ_WRITE_UNCHANGED);
        offset += n;
        bytes -= n;
    }
    qemu_vfree(buf);
    return ret;
}

/*
 * The next piece that obeys the driver's alignment and limit: up to the first boundary, then whole
 * multiples, then the rest.
 */
static int64_t zero_piece(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t align = MAX(bs->bl.pwrite_zeroes_alignment, (int64_t)bs->bl.request_alignment);
    int64_t max = bs->bl.max_pwrite_zeroes ? bs->bl.max_pwrite_zeroes : BDRV_REQUEST_MAX_BYTES;
    int64_t head = offset % align;

    max = MAX(ROUND_DOWN(max, align), align);
    if (head) {
        return MIN(bytes, align - head);
    }
    if (bytes > align && bytes % align) {
        bytes -= bytes % align;
    }
    return MIN(bytes, max);
}

int coroutine_fn bdrv_zero_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   BdrvRequestFlags flags)
{
    bool flush = (flags & BDRV_REQ_FUA) && !(bs->supported_zero_flags & BDRV_REQ_FUA);
    BdrvRequestFlags drv_flags = flags & bs->supported_zero_flags;

    if ((flags & BDRV_REQ_NO_FALLBACK) && !(bs->supported_zero_flags & BDRV_REQ_NO_FALLBACK)) {
        /* The driver makes no promise that zeroing is quick. */
        return -ENOTSUP;
    }
    while (bytes > 0) {
        int64_t n = zero_piece(bs, offset, bytes);
        int ret = -ENOTSUP;

        if (bs->drv->bdrv_co_pwrite_zeroes) {
            ret = bs->drv->bdrv_co_pwrite_zeroes(bs, offset, n, drv_flags);
        }
        if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
            ret = write_zero_buffer(bs, offset, n, flags);
            flush |= flags & BDRV_REQ_FUA;
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return flush ? bdrv_co_flush_fua(bs) : 0;
}

/* --- discard --- */

static int coroutine_fn discard_pieces(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t align = MAX(bs->bl.pdiscard_alignment, (int64_t)bs->bl.request_alignment);
    int64_t max = bs->bl.max_pdiscard ? bs->bl.max_pdiscard : BDRV_REQUEST_MAX_BYTES;

    max = MAX(ROUND_DOWN(max, align), align);
    while (bytes > 0) {
        int64_t head = offset % align;
        int64_t n = head ? MIN(bytes, align - head) : MIN(bytes, max);
        int ret;

        if (n > align && n % align) {
            n -= n % align;
        }
        ret = bs->drv->bdrv_co_pdiscard(bs, offset, n);
        if (ret < 0 && ret != -ENOTSUP) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}

int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;
    int64_t align, start, end;
    int ret = bdrv_check_request(offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    /* Partly covered blocks stay: discarding is a hint. */
    align = bs->bl.request_alignment;
    start = ROUND_UP(offset, align);
    end = ROUND_DOWN(offset + bytes, align);
    if (offset + bytes == bdrv_size(bs)) {
        end = offset + bytes;
    }
    if (start >= end || !(bs->open_flags & BDRV_O_UNMAP) || !bs->drv->bdrv_co_pdiscard) {
        return bdrv_is_read_only(bs) ? -EPERM : 0;
    }
    bdrv_request_begin(&req, bs, start, end - start, BDRV_TRACKED_DISCARD);
    ret = bdrv_request_prepare_write(child, &req, start, end - start, 0);
    if (ret == 0) {
        ret = discard_pieces(bs, start, end - start);
        bdrv_request_finish_write(&req, start, end - start, ret);
    }
    bdrv_request_end(&req);
    return ret;
}

/* --- flush --- */

/* What the driver keeps in memory goes into its files. */
static int coroutine_fn empty_driver_caches(BlockDriverState *bs)
{
    BLKDBG_CO_EVENT(bs->file, BLKDBG_FLUSH_TO_OS);
    return BDRV_OP(bs->drv, format, bdrv_co_flush_to_os) ? bs->drv->format->bdrv_co_flush_to_os(bs)
                                                         : 0;
}

/* What the driver has put in place becomes durable. */
static int coroutine_fn sync_driver(BlockDriverState *bs)
{
    BLKDBG_CO_EVENT(bs->file, BLKDBG_FLUSH_TO_DISK);
    return bs->drv->bdrv_co_flush_to_disk ? bs->drv->bdrv_co_flush_to_disk(bs) : 0;
}

/* All nodes that bs may have written to, also after one of them has failed: its first error. */
static int coroutine_fn flush_written_children(BlockDriverState *bs)
{
    int first = 0;
    BdrvChild *child;

    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs && (bdrv_child_perm(child) & (BLK_PERM_WRITE_UNCHANGED | BLK_PERM_WRITE))) {
            int ret = bdrv_co_flush(child->bs);

            first = first < 0 ? first : ret;
        }
    }
    return first;
}

static uint64_t changes_so_far(BlockDriverState *bs)
{
    bool locked = bdrv_lock(bs);
    uint64_t changes = bs->changes;

    bdrv_unlock(bs, locked);
    return changes;
}

static int coroutine_fn flush_node(BlockDriverState *bs)
{
    /* Changes that are made from here on may or may not be covered: they count as not. */
    const uint64_t covered = changes_so_far(bs);
    int ret = empty_driver_caches(bs);

    if (bs->open_flags & BDRV_O_NO_FLUSH) {
        return ret;
    }
    if (ret == 0 && covered != bs->durable_changes) {
        ret = sync_driver(bs);
    }
    if (ret == 0) {
        ret = flush_written_children(bs);
    }
    if (ret == 0) {
        bs->durable_changes = covered;
    }
    return ret;
}

int coroutine_fn bdrv_co_flush(BlockDriverState *bs)
{
    int ret = 0;

    assert_graph_thread(bs);
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    bdrv_inc_in_flight(bs);
    /* Read-only and inactive nodes have written nothing since they became so. */
    if (!bdrv_is_read_only(bs) && !(bs->open_flags & BDRV_O_INACTIVE)) {
        /* In turn: what a flush covers is settled when the one before it has ended. */
        qemu_co_mutex_lock(&bs->flushing);
        ret = flush_node(bs);
        qemu_co_mutex_unlock(&bs->flushing);
    }
    bdrv_dec_in_flight(bs);
    return ret;
}

int coroutine_fn bdrv_co_flush_fua(BlockDriverState *bs)
{
    bool locked = bdrv_lock(bs);

    /* The write counts from now on: otherwise the flush would find nothing to do. */
    bs->changes++;
    bdrv_unlock(bs, locked);
    return bdrv_co_flush(bs);
}

/* --- size --- */

int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs)
{
    int64_t len;

    assert_home_thread(bs);
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    if (bs->drv->bdrv_co_getlength) {
        len = bs->drv->bdrv_co_getlength(bs);
    } else if (bs->drv->is_filter && bs->file) {
        len = bdrv_co_getlength(bs->file->bs);
    } else {
        return bs->total_bytes;
    }
    if (len > BDRV_MAX_LENGTH) {
        return -EFBIG;
    }
    if (len >= 0) {
        bdrv_set_total_bytes(bs, len);
    }
    return len;
}

/*
 * The children that hold data of bs, each with a reference. A query visits a node in a drained
 * section as well, while the main thread changes edges.
 */
static GPtrArray *ref_data_children(BlockDriverState *bs)
{
    GPtrArray *nodes = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_unref_later);
    BdrvChild *child;

    bdrv_edges_lock();
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs &&
            (child->role & (BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_FILTERED))) {
            bdrv_ref(child->bs);
            g_ptr_array_add(nodes, child->bs);
        }
    }
    bdrv_edges_unlock();
    return nodes;
}

int64_t coroutine_fn bdrv_co_get_allocated_file_size(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) nodes = NULL;
    int64_t sum = 0;

    assert_graph_thread(bs);
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    if (bs->drv->bdrv_co_get_allocated_file_size) {
        return bs->drv->bdrv_co_get_allocated_file_size(bs);
    }
    if (bs->drv->protocol) {
        return -ENOTSUP;
    }
    nodes = ref_data_children(bs);
    for (guint i = 0; i < nodes->len; i++) {
        int64_t size = bdrv_co_get_allocated_file_size(g_ptr_array_index(nodes, i));

        if (size < 0) {
            return size;
        }
        sum += size;
    }
    return sum;
}

bool coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t size, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags, GError **errp)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;
    int64_t old, grown;
    bool ok = false, locked;

    if (!bs->drv) {
        error_setg(errp, "No medium inserted");
        return false;
    }
    if (size < 0 || size > BDRV_MAX_LENGTH) {
        error_setg(errp, "Image size %" PRId64 " is out of range: 0 to %" PRId64 " bytes", size,
                   BDRV_MAX_LENGTH);
        return false;
    }
    if (bdrv_is_read_only(bs)) {
        error_setg(errp, "Image '%s' is read-only", bs->node_name);
        return false;
    }
    old = bdrv_co_getlength(bs);
    if (old < 0) {
        error_setg_errno(errp, -old, "Failed to get the size of node '%s'", bs->node_name);
        return false;
    }
    grown = MAX(size - old, 0);
    bdrv_request_begin(&req, bs, size - grown, grown, BDRV_TRACKED_TRUNCATE);
    /* Writes into the area that appears wait until it reads as zeroes. */
    bdrv_request_make_exclusive(&req, 1);
    if (bs->drv->bdrv_co_truncate) {
        ok = bs->drv->bdrv_co_truncate(bs, size, exact, prealloc,
                                       flags & bs->supported_truncate_flags, errp);
    } else if (bs->drv->is_filter && bs->file) {
        ok = bdrv_co_truncate(bs->file, size, exact, prealloc, flags, errp);
    } else {
        error_setg(errp, "Image format driver '%s' does not support resize", bs->drv->format_name);
    }
    if (ok) {
        int64_t now = bdrv_co_getlength(bs);

        bdrv_set_total_bytes(bs, now < 0 ? size : now);
        locked = bdrv_lock(bs);
        bs->changes++;
        bdrv_unlock(bs, locked);
        if (grown) {
            bdrv_set_dirty(bs, old, grown);
        }
    }
    bdrv_request_end(&req);
    return ok;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads and writes on an edge.
 *
 * Any byte range is accepted. What does not fit the node's request alignment is widened. A read
 * fetches the surrounding blocks and shows the caller the middle. A write reads the first and last
 * block, merges, and writes them back while no other request may touch them.
 */
#include "block/io/request.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "util/int-math.h"

/* --- buffers --- */

size_t bdrv_opt_mem_align(BlockDriverState *bs)
{
    return MAX(bs ? bs->bl.min_mem_alignment : 0, (size_t)4096);
}

void *qemu_try_blockalign(BlockDriverState *bs, size_t bytes)
{
    void *buf = NULL;

    if (posix_memalign(&buf, bdrv_opt_mem_align(bs), MAX(bytes, (size_t)1))) {
        return NULL;
    }
    return buf;
}

void qemu_vfree(void *buf)
{
    free(buf);
}

/* --- one layer above the driver: split at its limits --- */

static int64_t max_transfer(BlockDriverState *bs)
{
    int64_t align = bs->bl.request_alignment;
    int64_t max = bs->bl.max_transfer ? bs->bl.max_transfer : BDRV_REQUEST_MAX_BYTES;

    return MAX(ROUND_DOWN(max, align), align);
}

/* Calls the driver with at most max_iov elements: longer vectors go through a contiguous buffer. */
static int coroutine_fn read_by_driver(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags)
{
    int max_iov = bs->bl.max_iov ? bs->bl.max_iov : IOV_MAX;
    QEMUIOVector flat;
    void *buf;
    int ret;

    if (qiov->niov <= max_iov) {
        return bs->drv->bdrv_co_preadv(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    buf = qemu_try_blockalign(bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    qemu_iovec_init_buf(&flat, buf, bytes);
    ret = bs->drv->bdrv_co_preadv(bs, offset, bytes, &flat, 0, flags);
    if (ret >= 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, buf, bytes);
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn write_piece(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int max_iov = bs->bl.max_iov ? bs->bl.max_iov : IOV_MAX;
    QEMUIOVector flat;
    void *buf;
    int ret;

    if (flags & BDRV_REQ_WRITE_COMPRESSED) {
        if (!BDRV_OP(bs->drv, format, bdrv_co_pwritev_compressed)) {
            return -ENOTSUP;
        }
        return bs->drv->format->bdrv_co_pwritev_compressed(bs, offset, bytes, qiov, qiov_offset);
    }
    if (qiov->niov <= max_iov) {
        return bs->drv->bdrv_co_pwritev(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    buf = qemu_try_blockalign(bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    qemu_iovec_to_buf(qiov, qiov_offset, buf, bytes);
    qemu_iovec_init_buf(&flat, buf, bytes);
    ret = bs->drv->bdrv_co_pwritev(bs, offset, bytes, &flat, 0, flags);
    qemu_vfree(buf);
    return ret;
}

int coroutine_fn bdrv_write_by_driver(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    BdrvRequestFlags drv_flags = flags & (bs->supported_write_flags | BDRV_REQ_WRITE_COMPRESSED);
    bool flush = (flags & BDRV_REQ_FUA) && !(bs->supported_write_flags & BDRV_REQ_FUA);
    int64_t max = max_transfer(bs);

    if (!bs->drv->bdrv_co_pwritev) {
        return -ENOTSUP;
    }
    while (bytes > 0) {
        int64_t n = MIN(bytes, max);
        int ret = write_piece(bs, offset, n, qiov, qiov_offset, drv_flags);

        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return flush ? bdrv_co_flush_fua(bs) : 0;
}

/* Aligned read; what lies past the end of the image reads as zeroes. */
static int coroutine_fn read_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    int64_t align = bs->bl.request_alignment;
    int64_t max = max_transfer(bs);
    int64_t end;

    flags &= bs->supported_read_flags;
    end = ROUND_UP(bdrv_size(bs), align);
    while (bytes > 0) {
        int64_t n = MIN(bytes, max);
        int ret;

        if (offset >= end) {
            qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
            return 0;
        }
        n = MIN(n, end - offset);
        ret = read_by_driver(bs, offset, n, qiov, qiov_offset, flags);
        if (ret < 0) {
            return ret;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return 0;
}

/* --- widening to the request alignment --- */

/*
 * The widened range [offset, offset + bytes): head and tail blocks in `buf`, the caller's vector
 * between them.
 */
typedef struct Padding {
    int64_t offset, bytes;
    size_t head, tail; /* bytes added before and after */
    uint8_t *buf;      /* head block, then tail block; one block when they are the same */
    bool one_block;
    QEMUIOVector qiov;
} Padding;

static bool needs_padding(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return ((offset | bytes) & (bs->bl.request_alignment - 1)) != 0;
}

static int padding_init(Padding *pad, BlockDriverState *bs, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset)
{
    int64_t align = bs->bl.request_alignment;

    *pad = (Padding){
        .head = offset & (align - 1),
        .tail = (align - ((offset + bytes) & (align - 1))) & (align - 1),
    };
    pad->offset = offset - pad->head;
    pad->bytes = pad->head + bytes + pad->tail;
    pad->one_block = pad->bytes == align;
    pad->buf = qemu_try_blockalign(bs, pad->one_block ? align : 2 * align);
    if (!pad->buf) {
        return -ENOMEM;
    }
    qemu_iovec_init(&pad->qiov, (qiov ? qiov->niov : 0) + 2);
    if (!qiov) {
        return 0;
    }
    if (pad->head) {
        qemu_iovec_add(&pad->qiov, pad->buf, pad->head);
    }
    qemu_iovec_concat(&pad->qiov, qiov, qiov_offset, bytes);
    if (pad->tail) {
        uint8_t *block = pad->one_block ? pad->buf : pad->buf + align;

        qemu_iovec_add(&pad->qiov, block + align - pad->tail, pad->tail);
    }
    return 0;
}

static void padding_destroy(Padding *pad)
{
    if (pad->buf) {
        qemu_vfree(pad->buf);
        qemu_iovec_destroy(&pad->qiov);
    }
}

/* The node that widens a request may be blkdebug itself, when it asks for the alignment. */
static void coroutine_fn rmw_event(BlockDriverState *bs, BlkdebugEvent event)
{
    if (BDRV_OP(bs->drv, debug, bdrv_co_debug_event)) {
        bs->drv->debug->bdrv_co_debug_event(bs, event);
    } else {
        BLKDBG_CO_EVENT(bs->file, event);
    }
}

/* Reads the blocks that the write covers in part. */
static int coroutine_fn padding_read(Padding *pad, BlockDriverState *bs)
{
    int64_t align = bs->bl.request_alignment;
    QEMUIOVector qiov;
    int ret;

    if (pad->head || pad->one_block) {
        qemu_iovec_init_buf(&qiov, pad->buf, align);
        rmw_event(bs, BLKDBG_PWRITEV_RMW_HEAD);
        ret = read_aligned(bs, pad->offset, align, &qiov, 0, 0);
        if (ret < 0) {
            return ret;
        }
        rmw_event(bs, BLKDBG_PWRITEV_RMW_AFTER_HEAD);
    }
    if (pad->tail && !pad->one_block) {
        qemu_iovec_init_buf(&qiov, pad->buf + align, align);
        rmw_event(bs, BLKDBG_PWRITEV_RMW_TAIL);
        ret = read_aligned(bs, pad->offset + pad->bytes - align, align, &qiov, 0, 0);
        if (ret < 0) {
            return ret;
        }
        rmw_event(bs, BLKDBG_PWRITEV_RMW_AFTER_TAIL);
    }
    return 0;
}

/* --- reads --- */

int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;
    Padding pad = {.buf = NULL};
    int ret = bdrv_check_request(offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!bs->drv || !bs->drv->bdrv_co_preadv) {
        return bs->drv ? -ENOTSUP : -ENOMEDIUM;
    }
    if (bytes == 0 || (!qiov && !(bs->supported_read_flags & BDRV_REQ_PREFETCH))) {
        return 0; /* a prefetch that would fetch nothing */
    }
    bdrv_request_begin(&req, bs, offset, bytes, BDRV_TRACKED_READ);
    if (flags & BDRV_REQ_SERIALISING) {
        bdrv_request_make_exclusive(&req, bs->bl.request_alignment);
    } else {
        (void)bdrv_request_admit(&req, false); /* it waits, so it cannot fail */
    }
    if (!qiov || !needs_padding(bs, offset, bytes)) {
        ret = qiov ? read_aligned(bs, offset, bytes, qiov, qiov_offset, flags)
                   : bs->drv->bdrv_co_preadv(bs, offset, bytes, NULL, 0, flags);
    } else {
        ret = padding_init(&pad, bs, offset, bytes, qiov, qiov_offset);
        if (ret == 0) {
            ret = read_aligned(bs, pad.offset, pad.bytes, &pad.qiov, 0, flags);
        }
        padding_destroy(&pad);
    }
    bdrv_request_end(&req);
    return ret;
}

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                                BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(child, offset, bytes, qiov, 0, flags);
}

int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_co_preadv_part(child, offset, bytes, &qiov, 0, flags);
}

/* --- writes --- */

static bool detect_zero_write(BlockDriverState *bs, int64_t bytes, QEMUIOVector *qiov,
                              size_t qiov_offset, BdrvRequestFlags *flags)
{
    if (bs->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF ||
        !bs->drv->bdrv_co_pwrite_zeroes ||
        (*flags & (BDRV_REQ_WRITE_COMPRESSED | BDRV_REQ_ZERO_WRITE)) ||
        !qemu_iovec_is_zero(qiov, qiov_offset, bytes)) {
        return false;
    }
    if (bs->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP) {
        *flags |= BDRV_REQ_MAY_UNMAP;
    }
    return true;
}

static int coroutine_fn write_aligned(BdrvChild *child, BdrvTrackedRequest *req, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret;

    if (!qiov || (flags & BDRV_REQ_ZERO_WRITE)) {
        BLKDBG_CO_EVENT(bs->file, BLKDBG_PWRITEV_ZERO);
        ret = bdrv_zero_aligned(bs, offset, bytes, flags);
    } else if (detect_zero_write(bs, bytes, qiov, qiov_offset, &flags)) {
        ret = bdrv_zero_aligned(bs, offset, bytes, flags);
    } else {
        BLKDBG_CO_EVENT(bs->file, BLKDBG_PWRITEV);
        ret = bdrv_write_by_driver(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    BLKDBG_CO_EVENT(bs->file, BLKDBG_PWRITEV_DONE);
    /* A range that ends inside the last block must not make the image larger than was asked. */
    bdrv_request_finish_write(req, req->offset, req->bytes, ret);
    return ret;
}

/* Zeroes of any range: the partly covered blocks are rewritten, the rest is zeroed as a whole. */
static int coroutine_fn unaligned_zero_write(BdrvChild *child, BdrvTrackedRequest *req,
                                             int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int64_t align = bs->bl.request_alignment;
    int64_t end = offset + bytes;
    Padding pad;
    QEMUIOVector block;
    int ret;

    bdrv_request_make_exclusive(req, align);
    ret = padding_init(&pad, bs, offset, bytes, NULL, 0);
    if (ret == 0) {
        ret = padding_read(&pad, bs);
    }
    if (ret < 0) {
        goto out;
    }
    flags &= ~BDRV_REQ_ZERO_WRITE;
    if (pad.one_block) {
        memset(pad.buf + pad.head, 0, bytes);
        qemu_iovec_init_buf(&block, pad.buf, align);
        ret = bdrv_write_by_driver(bs, pad.offset, align, &block, 0, flags & ~BDRV_REQ_MAY_UNMAP);
        goto out;
    }
    if (pad.head) {
        memset(pad.buf + pad.head, 0, align - pad.head);
        qemu_iovec_init_buf(&block, pad.buf, align);
        ret = bdrv_write_by_driver(bs, pad.offset, align, &block, 0, flags & ~BDRV_REQ_MAY_UNMAP);
        offset = pad.offset + align;
    }
    if (ret == 0 && pad.tail) {
        int64_t last = end + (int64_t)pad.tail - align;

        memset(pad.buf + align, 0, align - pad.tail);
        qemu_iovec_init_buf(&block, pad.buf + align, align);
        ret = bdrv_write_by_driver(bs, last, align, &block, 0, flags & ~BDRV_REQ_MAY_UNMAP);
        end = last;
    }
    if (ret == 0 && end > offset) {
        ret = bdrv_zero_aligned(bs, offset, end - offset, flags);
    }
out:
    bdrv_request_finish_write(req, req->offset, req->bytes, ret);
    padding_destroy(&pad);
    return ret;
}

static int coroutine_fn unaligned_write(BdrvChild *child, BdrvTrackedRequest *req, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    Padding pad;
    int ret;

    bdrv_request_make_exclusive(req, bs->bl.request_alignment);
    ret = padding_init(&pad, bs, offset, bytes, qiov, qiov_offset);
    if (ret == 0) {
        ret = padding_read(&pad, bs);
    }
    if (ret == 0) {
        ret = write_aligned(child, req, pad.offset, pad.bytes, &pad.qiov, 0, flags);
    }
    padding_destroy(&pad);
    return ret;
}

int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;
    int ret = bdrv_check_request(offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    if (bytes == 0) {
        return 0;
    }
    bdrv_request_begin(&req, bs, offset, bytes, BDRV_TRACKED_WRITE);
    ret = bdrv_request_prepare_write(child, &req, offset, bytes, flags);
    if (ret < 0) {
        /* Nothing was started. */
    } else if (!needs_padding(bs, offset, bytes)) {
        ret = write_aligned(child, &req, offset, bytes, qiov, qiov_offset, flags);
    } else if (flags & BDRV_REQ_ZERO_WRITE) {
        ret = unaligned_zero_write(child, &req, offset, bytes, flags);
    } else if (flags & BDRV_REQ_WRITE_COMPRESSED) {
        ret = -ENOTSUP;
    } else {
        ret = unaligned_write(child, &req, offset, bytes, qiov, qiov_offset, flags);
    }
    bdrv_request_end(&req);
    return ret;
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_pwritev_part(child, offset, bytes, qiov, 0, flags);
}

int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, bytes);
    return bdrv_co_pwritev_part(child, offset, bytes, &qiov, 0, flags);
}

int coroutine_fn bdrv_co_pwrite_sync(BdrvChild *child, int64_t offset, int64_t bytes,
                                     const void *buf, BdrvRequestFlags flags)
{
    int ret = bdrv_co_pwrite(child, offset, bytes, buf, flags);

    return ret < 0 ? ret : bdrv_co_flush(child->bs);
}

int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags)
{
    if (!(child->bs->open_flags & BDRV_O_UNMAP)) {
        flags &= ~BDRV_REQ_MAY_UNMAP;
    }
    return bdrv_co_pwritev_part(child, offset, bytes, NULL, 0, flags | BDRV_REQ_ZERO_WRITE);
}

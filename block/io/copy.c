/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying between two edges without passing through the caller's memory.
 *
 * A copy first goes down the source's graph ("from"): formats and filters translate the offset and
 * pass it on. The source's protocol node then starts down the target's graph ("to"), whose protocol
 * node, given both files, does the work.
 */
#include "block/io/request.h"

#include <errno.h>

static int check_copy(BdrvChild *src, int64_t src_offset, BdrvChild *dst, int64_t dst_offset,
                      int64_t bytes)
{
    int ret;

    if (!src->bs || !src->bs->drv || !dst->bs || !dst->bs->drv) {
        return -ENOMEDIUM;
    }
    ret = bdrv_check_request(src_offset, bytes);
    return ret < 0 ? ret : bdrv_check_request(dst_offset, bytes);
}

int coroutine_fn bdrv_co_copy_range_from(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags write_flags)
{
    BlockDriverState *bs = src->bs;
    BdrvTrackedRequest req;
    int ret = check_copy(src, src_offset, dst, dst_offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!bs->drv->bdrv_co_copy_range_from ||
        ((src_offset | bytes) & (bs->bl.request_alignment - 1))) {
        return -ENOTSUP;
    }
    bdrv_request_begin(&req, bs, src_offset, bytes, BDRV_TRACKED_READ);
    ret = bdrv_request_admit(&req, false);
    if (ret == 0) {
        ret = bs->drv->bdrv_co_copy_range_from(bs, src_offset, dst, dst_offset, bytes, write_flags);
    }
    bdrv_request_end(&req);
    return ret;
}

int coroutine_fn bdrv_co_copy_range_to(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes,
                                       BdrvRequestFlags write_flags)
{
    BlockDriverState *bs = dst->bs;
    BdrvTrackedRequest req;
    bool flush;
    int ret = check_copy(src, src_offset, dst, dst_offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!bs->drv->bdrv_co_copy_range_to || (write_flags & BDRV_REQ_WRITE_COMPRESSED) ||
        ((dst_offset | bytes) & (bs->bl.request_alignment - 1))) {
        return -ENOTSUP;
    }
    flush = (write_flags & BDRV_REQ_FUA) && !(bs->supported_write_flags & BDRV_REQ_FUA);
    bdrv_request_begin(&req, bs, dst_offset, bytes, BDRV_TRACKED_WRITE);
    ret = bdrv_request_prepare_write(dst, &req, dst_offset, bytes, write_flags);
    if (ret == 0) {
        ret = bs->drv->bdrv_co_copy_range_to(
            bs, src, src_offset, dst_offset, bytes,
            write_flags & (bs->supported_write_flags | BDRV_REQ_MAY_MAP | BDRV_REQ_SKIP_ZEROES));
        if (ret == -ENOTSUP) {
            /* The driver promises that nothing was written. */
            bdrv_request_end(&req);
            return ret;
        }
        bdrv_request_finish_write(&req, dst_offset, bytes, ret);
    }
    bdrv_request_end(&req);
    if (ret == 0 && flush) {
        ret = bdrv_co_flush(bs);
    }
    return ret;
}

int coroutine_fn bdrv_co_copy_range(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                    int64_t dst_offset, int64_t bytes, BdrvRequestFlags write_flags)
{
    return bdrv_co_copy_range_from(src, src_offset, dst, dst_offset, bytes, write_flags);
}

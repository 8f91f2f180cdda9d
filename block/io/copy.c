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
#include "util/int-math.h"

typedef struct RangeCopy {
    BdrvChild *src, *dst;
    int64_t src_offset, dst_offset, bytes;
    BdrvRequestFlags write_flags;
} RangeCopy;

/* How a copy goes through a node: the steps are the same whichever end of it the node is. */
typedef struct CopySide {
    BdrvTrackedRequestType type;
    bool (*is_possible)(const RangeCopy *copy, const BlockDriver *drv);
    int coroutine_fn (*pass)(const RangeCopy *copy, BdrvTrackedRequest *req);
} CopySide;

static int coroutine_fn copy_co_through(const CopySide *side, BdrvChild *edge, int64_t offset,
                                        const RangeCopy *copy)
{
    BdrvTrackedRequest req;
    int ret = MIN(bdrv_check_request(copy->src_offset, copy->bytes),
                  bdrv_check_request(copy->dst_offset, copy->bytes));

    if (!copy->src->bs || !copy->src->bs->drv || !copy->dst->bs || !copy->dst->bs->drv) {
        return -ENOMEDIUM;
    }
    if (ret < 0) {
        return ret;
    }
    if (!IS_ALIGNED(offset | copy->bytes, (int64_t)edge->bs->bl.request_alignment) ||
        !side->is_possible(copy, edge->bs->drv)) {
        return -ENOTSUP;
    }
    bdrv_request_begin(&req, edge->bs, offset, copy->bytes, side->type);
    ret = side->pass(copy, &req);
    bdrv_request_end(&req);
    return ret;
}

/* --- from: a read of the source --- */

static bool can_copy_from(const RangeCopy *copy, const BlockDriver *drv)
{
    return drv->bdrv_co_copy_range_from;
}

static int coroutine_fn pass_from(const RangeCopy *copy, BdrvTrackedRequest *req)
{
    int ret = bdrv_request_admit(req, false);

    return ret < 0 ? ret
                   : req->bs->drv->bdrv_co_copy_range_from(req->bs, copy->src_offset, copy->dst,
                                                           copy->dst_offset, copy->bytes,
                                                           copy->write_flags);
}

int coroutine_fn bdrv_co_copy_range_from(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags write_flags)
{
    static const CopySide from = {BDRV_TRACKED_READ, can_copy_from, pass_from};
    RangeCopy copy = {src, dst, src_offset, dst_offset, bytes, write_flags};

    return copy_co_through(&from, src, src_offset, &copy);
}

/* --- to: a write of the target --- */

static bool can_copy_to(const RangeCopy *copy, const BlockDriver *drv)
{
    return drv->bdrv_co_copy_range_to && !(copy->write_flags & BDRV_REQ_WRITE_COMPRESSED);
}

static int coroutine_fn pass_to(const RangeCopy *copy, BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->bs;
    BdrvRequestFlags known = bs->supported_write_flags | BDRV_REQ_SKIP_ZEROES | BDRV_REQ_MAY_MAP;
    int ret = bdrv_request_prepare_write(copy->dst, req, copy->dst_offset, copy->bytes,
                                         copy->write_flags);

    if (ret < 0) {
        return ret;
    }
    ret = bs->drv->bdrv_co_copy_range_to(bs, copy->src, copy->src_offset, copy->dst_offset,
                                         copy->bytes, copy->write_flags & known);
    if (ret != -ENOTSUP) { /* with it the driver promises that nothing was written */
        bdrv_request_finish_write(req, copy->dst_offset, copy->bytes, ret);
    }
    return ret;
}

int coroutine_fn bdrv_co_copy_range_to(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes,
                                       BdrvRequestFlags write_flags)
{
    static const CopySide to = {BDRV_TRACKED_WRITE, can_copy_to, pass_to};
    RangeCopy copy = {src, dst, src_offset, dst_offset, bytes, write_flags};
    int ret = copy_co_through(&to, dst, dst_offset, &copy);

    if (ret == 0 && (write_flags & ~dst->bs->supported_write_flags & BDRV_REQ_FUA)) {
        ret = bdrv_co_flush(dst->bs);
    }
    return ret;
}

int coroutine_fn bdrv_co_copy_range(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                    int64_t dst_offset, int64_t bytes, BdrvRequestFlags write_flags)
{
    return bdrv_co_copy_range_from(src, src_offset, dst, dst_offset, bytes, write_flags);
}

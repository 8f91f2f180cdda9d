/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where guest data is: block status, and copies that leave the data to the nodes below. */
#include "block/qcow2/qcow2.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/alloc.h"
#include "block/qcow2/free.h"
#include "block/qcow2/data.h"
#include "block/qcow2/image.h"

#include <errno.h>

/*
 * True when the data file takes less room than it is long. Then clusters may be mapped to holes
 * (preallocation), and asking it about zeroes in what is data here is worth while.
 */
static bool coroutine_fn co_file_is_sparse(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->sparse_file < 0) {
        int64_t allocated = bdrv_co_get_allocated_file_size(s->data_file->bs);
        int64_t len = bdrv_co_getlength(s->data_file->bs);
        s->sparse_file = allocated >= 0 && len >= 0 && allocated < len - (int64_t)s->cluster_size;
    }
    return s->sparse_file;
}

int coroutine_fn qcow2_co_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 BdrvBlockStatus *status)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Extent x;
    uint64_t done = 0;
    int ret;

    if (s->fatal) {
        return -EIO;
    }
    memset(status, 0, sizeof(*status));
    ret = qcow2_co_lookup(bs, offset, bytes, &x);
    if (ret < 0) {
        return ret;
    }
    switch (x.kind) {
    case QCOW2_ZERO:
        status->flags = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
        break;
    case QCOW2_NORMAL:
        status->flags = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_OFFSET_VALID;
        status->map = x.host_offset;
        status->file = s->data_file->bs;
        if (co_file_is_sparse(bs)) {
            status->flags |= BDRV_BLOCK_RECURSE;
        }
        break;
    case QCOW2_COMPRESSED:
        status->flags = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_COMPRESSED;
        break;
    default:
        break;
    }
    /* A run may go on in the next slice. */
    for (done = x.bytes; done < (uint64_t)bytes; done += x.bytes) {
        Qcow2Kind kind = x.kind;
        if (qcow2_co_lookup(bs, offset + done, bytes - done, &x) < 0 || x.kind != kind ||
            (kind == QCOW2_NORMAL && x.host_offset != (uint64_t)status->map + done)) {
            break;
        }
    }
    status->pnum = done;
    return 0;
}

/* -ENOTSUP when some of the range is compressed. */
static int coroutine_fn co_check_copyable(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        Qcow2Extent x;
        int ret = qcow2_co_lookup(bs, offset, bytes, &x);
        if (ret < 0 || x.kind == QCOW2_COMPRESSED) {
            return ret < 0 ? ret : -ENOTSUP;
        }
        offset += x.bytes;
        bytes -= x.bytes;
    }
    return 0;
}

static int coroutine_fn co_copy_extent(BlockDriverState *bs, const Qcow2Extent *x, uint64_t offset,
                                       BdrvChild *dst, uint64_t dst_offset, BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t backing_len = bs->backing ? bdrv_getlength(bs->backing->bs) : 0;
    uint64_t inside = 0;
    int ret = 0;

    switch (x->kind) {
    case QCOW2_NORMAL:
        return bdrv_co_copy_range_from(s->data_file, x->host_offset, dst, dst_offset, x->bytes,
                                       flags);
    case QCOW2_UNALLOCATED:
        if (backing_len < 0) {
            return backing_len;
        }
        inside = offset < (uint64_t)backing_len ? MIN(x->bytes, backing_len - offset) : 0;
        if (inside) {
            ret = bdrv_co_copy_range_from(bs->backing, offset, dst, dst_offset, inside, flags);
        }
        break;
    case QCOW2_ZERO:
        break;
    default:
        return -ENOTSUP;
    }
    if (ret == 0 && inside < x->bytes && !(flags & BDRV_REQ_SKIP_ZEROES)) {
        ret = bdrv_co_pwrite_zeroes(dst, dst_offset + inside, x->bytes - inside, flags);
    }
    return ret;
}

int coroutine_fn qcow2_co_copy_out(BlockDriverState *bs, int64_t offset, BdrvChild *dst,
                                   int64_t dst_offset, int64_t bytes, BdrvRequestFlags write_flags)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned epoch;
    int ret;

    if (s->fatal) {
        return -EIO;
    }
    epoch = qcow2_request_begin(s);
    ret = co_check_copyable(bs, offset, bytes);
    while (ret == 0 && bytes > 0) {
        Qcow2Extent x;
        ret = qcow2_co_lookup(bs, offset, bytes, &x);
        if (ret == 0) {
            ret = co_copy_extent(bs, &x, offset, dst, dst_offset, write_flags);
            offset += x.bytes;
            dst_offset += x.bytes;
            bytes -= x.bytes;
        }
    }
    qcow2_request_end(s, epoch);
    return ret;
}

/*
 * One plan of a copy into this image. Allocations that need more than the copied bytes are left to
 * ordinary writes.
 */
static int coroutine_fn co_copy_into(BlockDriverState *bs, BdrvChild *src, uint64_t src_offset,
                                     uint64_t offset, uint64_t bytes, BdrvRequestFlags flags,
                                     uint64_t *done)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2WritePlan plan;
    int ret = qcow2_co_start_write(bs, offset, bytes, &plan);

    if (ret < 0) {
        return ret;
    }
    *done = plan.bytes;
    if (plan.allocating &&
        (plan.alloc.fill_start != offset ||
         MIN(plan.alloc.fill_end, (uint64_t)bs->total_bytes) != offset + plan.bytes)) {
        ret = -ENOTSUP;
    } else {
        ret = bdrv_co_copy_range_to(src, src_offset, s->data_file, plan.host_offset, plan.bytes,
                                    flags & ~BDRV_REQ_SKIP_ZEROES); /* clusters may be reused */
    }
    return qcow2_co_finish_write(bs, &plan, ret);
}

int coroutine_fn qcow2_co_copy_in(BlockDriverState *bs, BdrvChild *src, int64_t src_offset,
                                  int64_t offset, int64_t bytes, BdrvRequestFlags write_flags)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned epoch;
    int ret;

    /* Partial clusters would need copying on write; those come as ordinary writes. */
    if (qcow2_in_cluster(s, offset) ||
        (qcow2_in_cluster(s, bytes) && offset + bytes != bs->total_bytes)) {
        return -ENOTSUP;
    }
    ret = qcow2_co_prepare_write(bs);
    if (ret < 0) {
        return ret;
    }
    epoch = qcow2_request_begin(s);
    while (ret == 0 && bytes > 0) {
        uint64_t done = 0;
        ret = co_copy_into(bs, src, src_offset, offset, bytes, write_flags, &done);
        src_offset += done;
        offset += done;
        bytes -= done;
    }
    qcow2_request_end(s, epoch);
    return ret < 0 ? ret : qcow2_co_throttle_frees(bs);
}

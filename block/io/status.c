/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block status: which parts of a node, or of a backing chain, are data, zero or not there. */
#include "block/io/request.h"

#include <errno.h>
#include "util/int-math.h"

static int coroutine_fn status_of_driver(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         BdrvBlockStatus *st)
{
    int64_t align = bs->bl.request_alignment;
    int64_t start = ROUND_DOWN(offset, align);
    int64_t end = ROUND_UP(offset + bytes, align);
    int64_t skip = offset - start;
    int ret;

    if (!bs->drv->bdrv_co_block_status) {
        st->flags = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
        st->pnum = bytes;
        if (bs->drv->is_protocol) {
            st->flags |= BDRV_BLOCK_OFFSET_VALID;
            st->map = offset;
            st->file = bs;
        }
        return 0;
    }
    ret = bs->drv->bdrv_co_block_status(bs, start, end - start, st);
    if (ret < 0) {
        return ret;
    }
    if (st->pnum <= skip) {
        return -EIO; /* a driver that makes no progress would hang its caller */
    }
    st->pnum = MIN(st->pnum - skip, bytes);
    if (st->flags & (BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RAW)) {
        st->map += skip;
    }
    return 0;
}

/*
 * What the driver did not say but follows: allocation, zeroes past a short backing file, zeroes the
 * file below knows of.
 */
static int coroutine_fn complete_status(BlockDriverState *bs, int64_t offset, BdrvBlockStatus *st)
{
    if (st->flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        st->flags |= BDRV_BLOCK_ALLOCATED;
    } else if (bs->drv->supports_backing) {
        BlockDriverState *cow = bdrv_cow_bs(bs);

        if (!cow) {
            st->flags |= BDRV_BLOCK_ZERO;
        } else {
            int64_t size = bdrv_co_getlength(cow);

            if (size >= 0 && offset >= size) {
                st->flags |= BDRV_BLOCK_ZERO;
            }
        }
    }
    if ((st->flags & BDRV_BLOCK_RECURSE) && (st->flags & BDRV_BLOCK_DATA) &&
        (st->flags & BDRV_BLOCK_OFFSET_VALID) && st->file && st->file != bs) {
        BdrvBlockStatus below = {0};

        if (bdrv_co_block_status(st->file, st->map, st->pnum, &below) == 0 && below.pnum > 0) {
            if (below.flags & BDRV_BLOCK_ZERO) {
                st->flags |= BDRV_BLOCK_ZERO;
            }
            st->pnum = MIN(st->pnum, below.pnum);
        }
    }
    st->flags &= ~(BDRV_BLOCK_RECURSE | BDRV_BLOCK_RAW);
    return 0;
}

int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      BdrvBlockStatus *status)
{
    BlockDriverState *filtered;
    int64_t total;
    int ret;

    assert_graph_thread(bs);
    *status = (BdrvBlockStatus){0};
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    filtered = bdrv_filter_bs(bs);
    if (filtered && !bs->drv->bdrv_co_block_status) {
        return bdrv_co_block_status(filtered, offset, bytes, status);
    }
    total = bs->drv->has_variable_length ? bdrv_co_getlength(bs) : bs->total_bytes;
    if (total < 0) {
        return total;
    }
    if (offset < 0 || bytes < 0) {
        return -EINVAL;
    }
    if (offset >= total) {
        status->flags = BDRV_BLOCK_EOF;
        return 0;
    }
    bytes = MIN(bytes, total - offset);
    if (bytes == 0) {
        return 0;
    }
    bdrv_inc_in_flight(bs);
    ret = status_of_driver(bs, offset, bytes, status);
    if (ret == 0 && (status->flags & BDRV_BLOCK_RAW)) {
        ret = bdrv_co_block_status(status->file, status->map, status->pnum, status);
        if (ret == 0 && status->pnum == 0) {
            /* The file below ends early: what lies behind its end reads as zeroes. */
            *status =
                (BdrvBlockStatus){.flags = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED, .pnum = bytes};
        }
    } else if (ret == 0) {
        ret = complete_status(bs, offset, status);
    }
    if (ret == 0 && offset + status->pnum >= total) {
        status->flags |= BDRV_BLOCK_EOF;
    } else {
        status->flags &= ~BDRV_BLOCK_EOF;
    }
    bdrv_dec_in_flight(bs);
    return ret;
}

/* The next layer down from bs that may decide contents. */
static BlockDriverState *layer_below(BlockDriverState *bs)
{
    BlockDriverState *filtered = bdrv_filter_bs(bs);

    return filtered ? filtered : bdrv_cow_bs(bs);
}

int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs, BlockDriverState *base,
                                            int64_t offset, int64_t bytes, BdrvBlockStatus *status)
{
    *status = (BdrvBlockStatus){.pnum = bytes};
    for (BlockDriverState *p = bs; p && p != base; p = layer_below(p)) {
        BdrvBlockStatus st;
        int ret;

        if (bdrv_filter_bs(p)) {
            continue;
        }
        ret = bdrv_co_block_status(p, offset, bytes, &st);
        if (ret < 0) {
            return ret;
        }
        if (st.pnum == 0) {
            if (p == bs) {
                *status = st;
            } else {
                /* A backing file that ends before its overlay reads as zeroes from there on. */
                status->flags |= BDRV_BLOCK_ZERO;
            }
            return 0;
        }
        if (st.flags & BDRV_BLOCK_ALLOCATED) {
            *status = st;
            return 0;
        }
        /* Unallocated here: the layer below decides, for as far as this layer says so. */
        bytes = MIN(bytes, st.pnum);
        *status = st;
    }
    return 0;
}

int coroutine_fn bdrv_co_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum)
{
    BdrvBlockStatus st;
    int ret = bdrv_co_block_status(bs, offset, bytes, &st);

    if (ret < 0) {
        return ret;
    }
    *pnum = st.pnum;
    return !!(st.flags & BDRV_BLOCK_ALLOCATED);
}

bool bdrv_has_zero_init(BlockDriverState *bs)
{
    BlockDriverState *filtered;

    if (!bs->drv) {
        return false;
    }
    /* An image with a backing file shows that file's contents. */
    if (bs->backing && !bs->drv->is_filter) {
        return false;
    }
    if (bs->drv->bdrv_has_zero_init) {
        return bs->drv->bdrv_has_zero_init(bs);
    }
    filtered = bdrv_filter_bs(bs);
    return filtered && bdrv_has_zero_init(filtered);
}

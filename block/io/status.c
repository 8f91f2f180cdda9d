/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block status: which parts of a node, or of a backing chain, are data, zero or not there. */
#include "block/io/request.h"

#include <errno.h>
#include "util/int-math.h"

/* The answer for a driver that has none: everything was written; a protocol holds it itself. */
static void assume_data(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvBlockStatus *st)
{
    *st = (BdrvBlockStatus){.flags = BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_DATA, .pnum = bytes};
    if (bs->drv->protocol) {
        st->file = bs;
        st->map = offset;
        st->flags |= BDRV_BLOCK_OFFSET_VALID;
    }
}

/* Asks in the driver's units, and cuts its answer to the bytes that were meant. */
static int coroutine_fn ask_driver(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   BdrvBlockStatus *st)
{
    const int64_t unit = bs->bl.request_alignment;
    const int64_t before = offset & (unit - 1);
    int ret =
        bs->drv->bdrv_co_block_status(bs, offset - before, ROUND_UP(before + bytes, unit), st);

    st->pnum = MIN(st->pnum - before, bytes);
    if (ret == 0 && st->pnum <= 0) {
        ret = -EIO; /* a driver that makes no progress would hang its caller */
    }
    if (st->flags & (BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID)) {
        st->map += before;
    }
    return ret;
}

/* What a node shows that has no contents of its own here: zeroes, unless a backing file goes on. */
static bool coroutine_fn shows_zeroes_by_default(BlockDriverState *bs, int64_t offset)
{
    BlockDriverState *cow = bdrv_cow_bs(bs);
    int64_t end = cow ? bdrv_co_getlength(cow) : 0;

    return bdrv_driver_has_backing(bs->drv) && end >= 0 && offset >= end;
}

/* Data may be zeroes that the file below knows of; the answer reaches as far as the file's. */
static void coroutine_fn look_into_file(const BlockDriverState *bs, BdrvBlockStatus *st)
{
    const int sure = BDRV_BLOCK_RECURSE | BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    BdrvBlockStatus below;

    if ((st->flags & sure) != sure || !st->file || st->file == bs ||
        bdrv_co_block_status(st->file, st->map, st->pnum, &below) < 0 || below.pnum == 0) {
        return;
    }
    st->flags |= below.flags & BDRV_BLOCK_ZERO;
    st->pnum = MIN(below.pnum, st->pnum);
}

/* Adds to the driver's answer what follows from it. */
static int coroutine_fn complete_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvBlockStatus *st)
{
    if (st->flags & BDRV_BLOCK_RAW) {
        int ret = bdrv_co_block_status(st->file, st->map, st->pnum, st);

        if (ret == 0 && st->pnum == 0) {
            /* The file below ends early: what lies behind its end reads as zeroes. */
            *st = (BdrvBlockStatus){.flags = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED, .pnum = bytes};
        }
        return ret;
    }
    if (st->flags & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        st->flags |= BDRV_BLOCK_ALLOCATED;
        look_into_file(bs, st);
    } else if (shows_zeroes_by_default(bs, offset)) {
        st->flags |= BDRV_BLOCK_ZERO;
    }
    st->flags &= ~BDRV_BLOCK_RECURSE;
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
    total = bs->total_bytes;
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
    if (bs->drv->bdrv_co_block_status) {
        ret = ask_driver(bs, offset, bytes, status);
    } else {
        assume_data(bs, offset, bytes, status);
        ret = 0;
    }
    if (ret == 0) {
        ret = complete_status(bs, offset, bytes, status);
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
    /* A filter that has no answer of its own has that of the node it shows. */
    for (; bs && bs->drv; bs = bdrv_filter_bs(bs)) {
        bool shows_backing = bs->backing && !bs->drv->is_filter; /* what it holds is not known */

        if (shows_backing || bs->drv->bdrv_has_zero_init) {
            return !shows_backing && bs->drv->bdrv_has_zero_init(bs);
        }
    }
    return false;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the request path: tracking and serialisation, shared by io.c, io-zero.c, io-copy.c.
 * Graph thread.
 */
#ifndef FERRY_BLOCK_REQUEST_H
#define FERRY_BLOCK_REQUEST_H

#include "block/block_int.h"

/* 0 when [offset, offset + bytes) is a range that requests may have at all, else -EIO. */
int bdrv_check_request(int64_t offset, int64_t bytes);

/*
 * Enters req, which lives on the caller's stack, in bs's list and counts bs busy; end undoes it and
 * wakes those that waited for it.
 */
void tracked_request_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                           int64_t bytes, BdrvTrackedRequestType type);
void coroutine_fn tracked_request_end(BdrvTrackedRequest *req);
/*
 * From now on nothing may overlap req, widened to align (bytes, power of two). Waits for what does
 * already.
 */
void coroutine_fn bdrv_make_request_serialising(BdrvTrackedRequest *req, uint64_t align);
/*
 * Waits until no serialising request overlaps req. With no_wait: -EBUSY instead of waiting; else 0.
 */
int coroutine_fn bdrv_wait_serialising(BdrvTrackedRequest *req, bool no_wait);

/*
 * Before and after anything that changes contents: serialisation, permissions; dirty bitmaps,
 * generation, size.
 */
int coroutine_fn bdrv_write_req_prepare(BdrvChild *child, BdrvTrackedRequest *req, int64_t offset,
                                        int64_t bytes, BdrvRequestFlags flags);
void coroutine_fn bdrv_write_req_finish(BdrvTrackedRequest *req, int64_t offset, int64_t bytes,
                                        int ret);

/* The flush behind a write of a driver that does not know FUA, before bdrv_write_req_finish(). */
int coroutine_fn bdrv_co_flush_fua(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/* Zeroes in whatever way works; offset and bytes aligned to request_alignment. */
int coroutine_fn bdrv_do_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags);
/* One driver-sized write after another; aligned. */
int coroutine_fn bdrv_driver_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags);

#endif

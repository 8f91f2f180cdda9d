/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the request path: tracking and exclusion, shared by io.c, zero.c and copy.c.
 * Graph thread.
 */
#ifndef FERRY_BLOCK_REQUEST_H
#define FERRY_BLOCK_REQUEST_H

#include "block/block_int.h"

/* 0 when [offset, offset + bytes) is a range that requests may have at all, else -EIO. */
int bdrv_check_request(int64_t offset, int64_t bytes);

/*
 * Enters req, which lives on the caller's stack, in bs's list and counts bs busy; end undoes it and
 * wakes the requests that waited for it.
 */
void bdrv_request_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                        int64_t bytes, BdrvTrackedRequestType type);
void coroutine_fn bdrv_request_end(BdrvTrackedRequest *req);
/*
 * Waits until req may touch its range of the node. With no_wait: -EBUSY instead of waiting; else 0.
 */
int coroutine_fn bdrv_request_admit(BdrvTrackedRequest *req, bool no_wait);
/*
 * From now on nothing else touches req's range, widened to align (bytes, power of two). Waits for
 * what does already; includes bdrv_request_admit().
 */
void coroutine_fn bdrv_request_make_exclusive(BdrvTrackedRequest *req, uint64_t align);

/*
 * Before and after anything that changes contents: exclusion, permissions; dirty bitmaps,
 * generation, size.
 */
int coroutine_fn bdrv_request_prepare_write(BdrvChild *child, BdrvTrackedRequest *req,
                                            int64_t offset, int64_t bytes, BdrvRequestFlags flags);
void coroutine_fn bdrv_request_finish_write(BdrvTrackedRequest *req, int64_t offset, int64_t bytes,
                                            int ret);

/* The flush behind a write of a driver that does not know FUA, before bdrv_request_finish_write(). */
int coroutine_fn bdrv_co_flush_fua(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/* Zeroes in whatever way works; offset and bytes aligned to request_alignment. */
int coroutine_fn bdrv_zero_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   BdrvRequestFlags flags);
/* One driver-sized write after another; aligned. */
int coroutine_fn bdrv_write_by_driver(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);

#endif

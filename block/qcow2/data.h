/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests of guests: reads, writes, zeroes, discards, status, copies. */
#ifndef FERRY_BLOCK_QCOW2_DATA_H
#define FERRY_BLOCK_QCOW2_DATA_H

#include "block/qcow2/alloc.h"
#include "block/qcow2/qcow2.h"

int coroutine_fn qcow2_co_read(BlockDriverState *bs, int64_t offset, int64_t bytes,
                               QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn qcow2_co_write(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
/* 1 when the range reads as zeroes for sure, 0 when not, -errno. */
int coroutine_fn qcow2_co_reads_zero(BlockDriverState *bs, uint64_t offset,
                                     uint64_t bytes) G_GNUC_WARN_UNUSED_RESULT;
/* Plans a write and checks that it hits no metadata. */
int coroutine_fn qcow2_co_start_write(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                      Qcow2WritePlan *plan) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Links or aborts what was planned, by the result of the write; returns that result, or the failure
 * to link.
 */
int coroutine_fn qcow2_co_finish_write(BlockDriverState *bs, Qcow2WritePlan *plan,
                                       int ret) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qcow2_co_zero(BlockDriverState *bs, int64_t offset, int64_t bytes,
                               BdrvRequestFlags flags);
int coroutine_fn qcow2_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes);
/*
 * Drops the clusters in [offset, offset + bytes) (cluster-aligned) from the active L2 tables; full:
 * the backing file shows.
 */
int coroutine_fn qcow2_co_discard_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                           Qcow2DiscardReason reason,
                                           bool full) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qcow2_co_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov, size_t qiov_offset);
/* Reads [in_cluster, in_cluster + bytes) of a compressed cluster. */
int coroutine_fn qcow2_co_read_compressed(BlockDriverState *bs, uint64_t entry, uint64_t in_cluster,
                                          uint64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset) G_GNUC_WARN_UNUSED_RESULT;
int coroutine_fn qcow2_co_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 BdrvBlockStatus *status);
int coroutine_fn qcow2_co_copy_out(BlockDriverState *bs, int64_t offset, BdrvChild *dst,
                                   int64_t dst_offset, int64_t bytes, BdrvRequestFlags write_flags);
int coroutine_fn qcow2_co_copy_in(BlockDriverState *bs, BdrvChild *src, int64_t src_offset,
                                  int64_t offset, int64_t bytes, BdrvRequestFlags write_flags);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Refcounts of host clusters: taking clusters, counting them. s->lock held. */
#ifndef FERRY_BLOCK_QCOW2_REFCOUNT_H
#define FERRY_BLOCK_QCOW2_REFCOUNT_H

#include "block/qcow2/qcow2.h"

uint64_t qcow2_refcount_load(const uint8_t *block, unsigned order, uint64_t index);
void qcow2_refcount_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
int coroutine_fn qcow2_co_refcount_init(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
void qcow2_refcount_close(BlockDriverState *bs);
int coroutine_fn qcow2_co_get_refcount(BlockDriverState *bs, uint64_t cluster,
                                       uint64_t *refcount) G_GNUC_WARN_UNUSED_RESULT;
/* Makes `offset` the refcount block for table entry ti, 0: none; written with the next writeback. */
void qcow2_reftable_set(BDRVQcow2State *s, uint64_t ti, uint64_t offset);
/*
 * Adds delta (1 or -1) to the counts of `count` clusters. When it fails, increments are taken back;
 * decrements may be done in part (a leak).
 */
int coroutine_fn qcow2_co_update_refcount(BlockDriverState *bs, uint64_t first, uint64_t count,
                                          int delta) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Takes 1..want free clusters in one run and counts them; *got of them from host offset *host on.
 * *fresh: they were never written and read as zeroes.
 */
int coroutine_fn qcow2_co_alloc_run(BlockDriverState *bs, uint32_t want, uint64_t *host,
                                    uint32_t *got, bool *fresh) G_GNUC_WARN_UNUSED_RESULT;
/* Takes exactly `count` contiguous clusters. */
int coroutine_fn qcow2_co_alloc_contiguous(BlockDriverState *bs, uint64_t count,
                                           uint64_t *host) G_GNUC_WARN_UNUSED_RESULT;
/* Takes room for a compressed cluster; may share host clusters with others. */
int coroutine_fn qcow2_co_alloc_bytes(BlockDriverState *bs, uint32_t bytes,
                                      uint64_t *host) G_GNUC_WARN_UNUSED_RESULT;
/* Gives back clusters that nothing on disk or in memory has referred to. */
void coroutine_fn qcow2_co_unalloc(BlockDriverState *bs, uint64_t host, uint64_t bytes);
/*
 * Has the file allocate room for the cluster at host, which is to be metadata and stays in a cache
 * at first. So the write that finds no room fails, and later write-backs do not. 0 or -errno.
 */
int coroutine_fn qcow2_co_reserve_cluster(BlockDriverState *bs,
                                          uint64_t host) G_GNUC_WARN_UNUSED_RESULT;

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty metadata goes to the disk, in an order that a crash may interrupt anywhere. */
#ifndef FERRY_BLOCK_QCOW2_WRITEBACK_H
#define FERRY_BLOCK_QCOW2_WRITEBACK_H

#include "block/qcow2/qcow2.h"

/*
 * Writes all dirty metadata in order; with lazy refcounts and not `final`, refcounts stay in
 * memory.
 */
int coroutine_fn qcow2_co_writeback(BlockDriverState *bs, bool final) G_GNUC_WARN_UNUSED_RESULT;
/*
 * A write that later metadata relies on has completed. Not before: a barrier that passes it in
 * flight does not make it durable.
 */
static inline void qcow2_note_ordered(BDRVQcow2State *s)
{
    s->ordered_writes++;
}
/* Makes durable what was noted before. Several may run at once. */
int coroutine_fn qcow2_co_barrier(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;

#endif

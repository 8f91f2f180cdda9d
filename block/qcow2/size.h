/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The size of the disk. */
#ifndef FERRY_BLOCK_QCOW2_SIZE_H
#define FERRY_BLOCK_QCOW2_SIZE_H

#include "block/qcow2/qcow2.h"

/* Writes the size into the header. s->lock held. */
int coroutine_fn qcow2_co_set_size(BlockDriverState *bs, uint64_t size) G_GNUC_WARN_UNUSED_RESULT;
/* Makes the image smaller, and its file; l1_entries are those that the new size needs. */
int coroutine_fn qcow2_co_shrink(BlockDriverState *bs, uint64_t size,
                                 uint64_t l1_entries) G_GNUC_WARN_UNUSED_RESULT;
bool coroutine_fn qcow2_co_resize(BlockDriverState *bs, int64_t size, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags, GError **errp);
/* Host clusters for all of [offset, end), which must not be in use. */
bool coroutine_fn qcow2_co_preallocate(BlockDriverState *bs, uint64_t offset, uint64_t end,
                                       PreallocMode mode, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif

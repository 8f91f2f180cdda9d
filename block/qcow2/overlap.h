/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Corruption: metadata that contradicts itself, and data that would overwrite metadata. */
#ifndef FERRY_BLOCK_QCOW2_OVERLAP_H
#define FERRY_BLOCK_QCOW2_OVERLAP_H

#include "block/qcow2/qcow2.h"

/* Metadata that data must not overwrite: bits of overlap_check. */
enum {
    QCOW2_OL_MAIN_HEADER = 1 << 0,
    QCOW2_OL_ACTIVE_L1 = 1 << 1,
    QCOW2_OL_ACTIVE_L2 = 1 << 2,
    QCOW2_OL_REFCOUNT_BLOCK = 1 << 3,
    QCOW2_OL_REFCOUNT_TABLE = 1 << 4,
    QCOW2_OL_SNAPSHOT_TABLE = 1 << 5,
    QCOW2_OL_INACTIVE_L1 = 1 << 6,
    QCOW2_OL_INACTIVE_L2 = 1 << 7,
    QCOW2_OL_BITMAP_DIRECTORY = 1 << 8,

    QCOW2_OL_NONE = 0,
    QCOW2_OL_CONSTANT = QCOW2_OL_MAIN_HEADER | QCOW2_OL_REFCOUNT_TABLE | QCOW2_OL_SNAPSHOT_TABLE |
                        QCOW2_OL_BITMAP_DIRECTORY,
    QCOW2_OL_CACHED = QCOW2_OL_CONSTANT | QCOW2_OL_ACTIVE_L1 | QCOW2_OL_ACTIVE_L2 |
                      QCOW2_OL_REFCOUNT_BLOCK | QCOW2_OL_INACTIVE_L1,
    QCOW2_OL_ALL = QCOW2_OL_CACHED | QCOW2_OL_INACTIVE_L2,
};

/*
 * Reports that metadata contradicts itself: event BLOCK_IMAGE_CORRUPTED and a message. With @fatal
 * the image is marked corrupt on disk and every later request fails. A negative offset or size, in
 * host bytes, is left out of the event.
 */
void coroutine_fn qcow2_co_signal_corruption(BlockDriverState *bs, bool fatal, int64_t offset,
                                             int64_t size, const char *fmt, ...)
    G_GNUC_PRINTF(5, 6);
/*
 * 0 when [offset, offset + bytes) of the file may be written, -EIO after signalling corruption when
 * it holds metadata. ignore: kinds that are about to be written.
 */
int coroutine_fn qcow2_co_check_overlap(BlockDriverState *bs, int ignore, uint64_t offset,
                                        uint64_t bytes) G_GNUC_WARN_UNUSED_RESULT;

#endif

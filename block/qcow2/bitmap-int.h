/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What reading and storing persistent bitmaps share. */
#ifndef FERRY_BLOCK_QCOW2_BITMAP_INT_H
#define FERRY_BLOCK_QCOW2_BITMAP_INT_H

#include "block/qcow2/bitmap.h"

#define QCOW2_BITMAP_ENTRY_BYTES          24
#define QCOW2_MIN_BITMAP_GRANULARITY_BITS 9
#define QCOW2_MAX_BITMAP_GRANULARITY_BITS 31
/* Data of one bitmap. */
#define QCOW2_MAX_BITMAP_BYTES (512u << 20)

/* What its entry takes in the directory. */
uint64_t qcow2_bitmap_entry_bytes(const Qcow2Bitmap *b);
/* The directory as on disk; the caller frees. */
uint8_t *qcow2_bitmaps_serialize(const GArray *bitmaps, uint64_t *bytes);
/* The table, host-endian; the caller frees. NULL with errp. */
uint64_t *coroutine_fn qcow2_co_bitmap_read_table(BlockDriverState *bs, const Qcow2Bitmap *b,
                                                  GError **errp);

#endif

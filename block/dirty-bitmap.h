/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty bitmaps of a node: which granules were written since the bitmap was last cleared. The
 * request path marks them when a write, zero-write, discard or copy ends (also when it failed:
 * contents are unknown then), before the request is acknowledged.
 *
 * Created and removed in the main thread while the node is drained; set, reset and iterated in the
 * graph's thread.
 */
#ifndef FERRY_BLOCK_DIRTY_BITMAP_H
#define FERRY_BLOCK_DIRTY_BITMAP_H

#include "block/block.h"
#include "util/hbitmap.h"

typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;

#define BDRV_BITMAP_NAME_MAX 1023

/*
 * granularity in bytes (power of two, 512..2 GiB; 0: default, 64 KiB). name NULL: internal,
 * invisible to users.
 */
BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs, uint32_t granularity,
                                          const char *name, GError **errp);
void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap);
BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs, const char *name);
/* The next bitmap of bs; NULL starts and ends. */
BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BlockDriverState *bs, BdrvDirtyBitmap *bitmap);

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap);
BlockDriverState *bdrv_dirty_bitmap_bs(const BdrvDirtyBitmap *bitmap);
HBitmap *bdrv_dirty_bitmap_hbitmap(BdrvDirtyBitmap *bitmap);
uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap);
/* Dirty bytes. */
int64_t bdrv_get_dirty_count(const BdrvDirtyBitmap *bitmap);

void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap);
void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_enabled(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy);
bool bdrv_dirty_bitmap_busy(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap, bool persistent);
bool bdrv_dirty_bitmap_get_persistence(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_inconsistent(const BdrvDirtyBitmap *bitmap);

/* Refuses, in one sentence, bitmaps that are busy, inconsistent or read-only. */
#define BDRV_BITMAP_BUSY         0x1
#define BDRV_BITMAP_RO           0x2
#define BDRV_BITMAP_INCONSISTENT 0x4
#define BDRV_BITMAP_DEFAULT      (BDRV_BITMAP_BUSY | BDRV_BITMAP_RO | BDRV_BITMAP_INCONSISTENT)
bool bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, uint32_t flags, GError **errp);

/*
 * Calls fn(opaque) in the graph's thread whenever a request of the node makes the clean bitmap
 * dirty. One listener a bitmap; fn NULL ends it.
 */
void bdrv_dirty_bitmap_set_notify(BdrvDirtyBitmap *bitmap, void (*fn)(void *opaque), void *opaque);
/*
 * For a user that sees to a request itself: the next mark of exactly [offset, offset + bytes) by
 * the request path is left out. Each call is good for one mark, and must be undone by
 * bdrv_dirty_bitmap_unexpect() when the request has ended, which is true if the mark had come.
 * Graph thread.
 */
void bdrv_dirty_bitmap_expect(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
bool bdrv_dirty_bitmap_unexpect(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);

void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/*
 * Gives the bitmap other contents, of the same size and granularity, which it owns from now on;
 * returns the old ones to the caller.
 */
HBitmap *bdrv_dirty_bitmap_swap(BdrvDirtyBitmap *bitmap, HBitmap *contents);
/* query-block's list of the named bitmaps of bs. The caller frees. Graph thread. */
BlockDirtyInfoList *bdrv_query_dirty_bitmaps(BlockDriverState *bs);
/* The node is being closed: frees every bitmap it still has. */
void bdrv_release_all_dirty_bitmaps(BlockDriverState *bs);
/* The node's size changed. */
void bdrv_dirty_bitmap_truncate(BlockDriverState *bs, int64_t bytes);

#endif

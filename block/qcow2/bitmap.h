/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Persistent dirty bitmaps: the bitmaps extension of the header, its directory, tables and data.
 *
 * When a writable image is opened, its bitmaps become dirty bitmaps of the node, and are marked as
 * in use on disk. A crash leaves them marked, and their contents are not trusted again. Closing
 * writes them to new clusters and switches the header over.
 */
#ifndef FERRY_BLOCK_QCOW2_BITMAP_H
#define FERRY_BLOCK_QCOW2_BITMAP_H

#include "block/qcow2/qcow2.h"

enum {
    QCOW2_BITMAP_IN_USE = 1u << 0,
    QCOW2_BITMAP_AUTO = 1u << 1,
    QCOW2_BITMAP_EXTRA_COMPATIBLE = 1u << 2,
    QCOW2_BITMAP_FLAGS_KNOWN = (1u << 3) - 1,
};

/* A directory entry. */
typedef struct Qcow2Bitmap {
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;
    uint8_t granularity_bits;
    char *name;
    GBytes *extra; /* NULL without */
    bool loaded;   /* the node has (or had) a dirty bitmap made from it */
} Qcow2Bitmap;

typedef bool Qcow2VisitClusters(void *opaque, uint64_t host, uint64_t bytes);

/* Reads and checks the directory into s->bitmaps. */
bool coroutine_fn qcow2_co_bitmaps_read_directory(BlockDriverState *bs,
                                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Makes dirty bitmaps of the node from the directory. */
bool coroutine_fn qcow2_co_bitmaps_load(BlockDriverState *bs,
                                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Marks them on disk, durably, as not to be trusted until they are stored again. */
int coroutine_fn qcow2_co_bitmaps_mark_in_use(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/* Writes the node's persistent bitmaps and frees what they replace. Nothing else is in flight. */
int coroutine_fn qcow2_co_bitmaps_store(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/*
 * bdrv_co_can_store_new_dirty_bitmap: whether the image's limits leave room for one more besides
 * those that the node has.
 */
bool coroutine_fn qcow2_co_can_store_new_bitmap(BlockDriverState *bs, const char *name,
                                                uint32_t granularity,
                                                GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * bdrv_co_remove_persistent_dirty_bitmap: takes it out of the directory, durably, and frees its
 * clusters. The node is drained.
 */
bool coroutine_fn qcow2_co_remove_stored_bitmap(BlockDriverState *bs, const char *name,
                                                GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Calls visit for every run of host clusters that bitmaps occupy, with the directory; ends when it
 * is false.
 */
bool coroutine_fn qcow2_co_bitmaps_visit(BlockDriverState *bs, Qcow2VisitClusters *visit,
                                         void *opaque, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void qcow2_bitmaps_free(GArray *bitmaps);
/* For query-*: NULL when there are none. The caller owns it. */
Qcow2BitmapInfoList *qcow2_bitmaps_info(BlockDriverState *bs);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots inside images: which disks have which. */
#include "block/qmp/snapshot-internal.h"

#include "block/block-backend.h"
#include "block/block_int.h"

SnapshotInfoList *coroutine_fn bdrv_co_snapshot_list(BlockDriverState *bs)
{
    SnapshotInfoList *list = NULL;
    AioContext *from;

    if (!bs->drv || !BDRV_OP(bs->drv, format, bdrv_snapshot_list) || !bs->is_open) {
        return NULL;
    }
    /* The list changes when another process has had the image. */
    bdrv_ref(bs);
    from = bdrv_co_enter_graph(bs);
    if (bs->drv) {
        list = bs->drv->format->bdrv_snapshot_list(bs);
    }
    bdrv_co_leave_graph(bs, from);
    bdrv_unref_later(bs);
    return list;
}

static void disk_free(gpointer data)
{
    SnapshotDisk *disk = data;

    g_free(disk->name);
    qapi_free_SnapshotInfoList(disk->snapshots);
    g_free(disk);
}

/* An image that is not in the list yet, with a reference. */
static void add_image(GPtrArray *images, GPtrArray *disks, BlockDriverState *top, const char *name)
{
    BlockDriverState *bs = bdrv_skip_filters(top);
    SnapshotDisk *disk;

    if (!bs->drv || !bs->is_open || bs->closing || bdrv_is_read_only(bs) ||
        g_ptr_array_find(images, bs, NULL)) {
        return;
    }
    bdrv_ref(bs);
    g_ptr_array_add(images, bs);
    disk = g_new0(SnapshotDisk, 1);
    disk->name = g_strdup(name);
    disk->can_snapshot = BDRV_OP(bs->drv, format, bdrv_snapshot_list);
    g_ptr_array_add(disks, disk);
}

GPtrArray *coroutine_fn bdrv_co_snapshot_disks(void)
{
    GPtrArray *disks = g_ptr_array_new_with_free_func(disk_free);
    g_autoptr(GPtrArray) images = g_ptr_array_new();
    BlockDriverState *bs;

    for (BlockBackend *blk = blk_next(NULL); blk; blk = blk_next(blk)) {
        if (blk_bs(blk)) {
            add_image(images, disks, blk_bs(blk), blk_name(blk));
        }
    }
    for (bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (bs->monitor_owned) {
            add_image(images, disks, bs, bdrv_get_node_name(bs));
        }
    }
    for (guint i = 0; i < images->len; i++) {
        SnapshotDisk *disk = g_ptr_array_index(disks, i);

        bs = g_ptr_array_index(images, i);
        disk->snapshots = bdrv_co_snapshot_list(bs);
        bdrv_unref_later(bs);
    }
    return disks;
}

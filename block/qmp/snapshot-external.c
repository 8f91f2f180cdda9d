/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External snapshots: a new overlay takes the place of a node, which becomes its backing file.
 *
 * blockdev-snapshot puts an existing node on top; blockdev-snapshot-sync also creates the image.
 * The node stays drained from prepare to clean, so that all snapshots of a transaction show one
 * point in time.
 */
#include <string.h>

#include "block/block-backend.h"
#include "block/create.h"
#include "block/graph/graph.h"
#include "block/qmp/transaction.h"
#include "qapi/qapi-commands.h"
#include "util/error.h"

typedef struct ExternalSnapshot {
    BlockDriverState *old_bs;  /* referenced */
    BlockDriverState *overlay; /* referenced */
    bool drained;
    bool appended;
} ExternalSnapshot;

/* What every snapshot needs of the node below, before anything is created. */
static bool check_old_node(BlockDriverState *bs, GError **errp)
{
    if (!bdrv_is_inserted(bs)) {
        error_setg(errp, "Device '%s' has no medium", bdrv_get_device_or_node_name(bs));
        return false;
    }
    if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_EXTERNAL_SNAPSHOT, errp)) {
        return false;
    }
    return true;
}

static bool coroutine_fn drain_and_flush(ExternalSnapshot *s, GError **errp)
{
    AioContext *from;
    int ret;

    if (!bdrv_co_drained_begin_within(s->old_bs, BDRV_DRAIN_COMMAND_NS, errp)) {
        return false;
    }
    s->drained = true;
    from = bdrv_co_enter_graph(s->old_bs);
    ret = bdrv_co_flush(s->old_bs);
    bdrv_co_leave_graph(s->old_bs, from);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush node '%s'",
                         bdrv_get_device_or_node_name(s->old_bs));
        return false;
    }
    return true;
}

static bool has_users(BlockDriverState *bs)
{
    return !LIST_EMPTY(&bs->parents);
}

/* What is asked of an overlay that the client has opened. */
static bool check_overlay(BlockDriverState *overlay, GError **errp)
{
    if (has_users(overlay)) {
        error_setg(errp, "The overlay '%s' is already in use", overlay->node_name);
        return false;
    }
    if (overlay->backing) {
        error_setg(errp, "The overlay '%s' already has a backing image", overlay->node_name);
        return false;
    }
    return true;
}

/* Makes old_bs the backing file of the overlay and moves old_bs's users to the overlay. */
static bool coroutine_fn put_on_top(ExternalSnapshot *s, GError **errp)
{
    bool ok;

    /* Drained before it moves, so that it stays where it has been moved to. */
    if (!bdrv_co_drained_begin_within(s->overlay, BDRV_DRAIN_COMMAND_NS, errp)) {
        return false;
    }
    /*
     * Looked at again after the last wait: a job of another monitor that has begun meanwhile would
     * copy the old node, and miss what is written to the overlay.
     */
    ok = bdrv_co_join_contexts(s->old_bs, s->overlay, errp) && check_old_node(s->old_bs, errp) &&
         check_overlay(s->overlay, errp) && bdrv_set_backing_hd(s->overlay, s->old_bs, errp);
    if (ok) {
        ok = bdrv_replace_node(s->old_bs, s->overlay, errp);
        if (!ok) {
            (void)bdrv_set_backing_hd(s->overlay, NULL, NULL);
        }
    } else {
        bdrv_settle_context_later(s->overlay);
    }
    bdrv_co_drained_end(s->overlay);
    s->appended = ok;
    return ok;
}

static void coroutine_fn snapshot_abort(TransactionStep *step)
{
    ExternalSnapshot *s = step->opaque;

    if (s && s->appended) {
        bdrv_co_drained_begin(s->overlay);
        /* The users were at old_bs before; their permissions fit there. */
        (void)bdrv_replace_node_if(s->overlay, s->old_bs, NULL, NULL, NULL);
        (void)bdrv_set_backing_hd(s->overlay, NULL, NULL);
        bdrv_co_drained_end(s->overlay);
    }
}

static void coroutine_fn snapshot_clean(TransactionStep *step)
{
    ExternalSnapshot *s = step->opaque;

    if (!s) {
        return;
    }
    if (s->drained) {
        bdrv_co_drained_end(s->old_bs);
    }
    bdrv_co_unref(s->overlay);
    bdrv_co_unref(s->old_bs);
    g_free(s);
}

static bool coroutine_fn blockdev_snapshot_prepare(TransactionStep *step, GError **errp)
{
    const BlockdevSnapshot *arg = step->action->u.blockdev_snapshot.data;
    ExternalSnapshot *s = step->opaque = g_new0(ExternalSnapshot, 1);

    s->old_bs = bdrv_lookup_bs(arg->node, arg->node, errp);
    if (!s->old_bs) {
        return false;
    }
    bdrv_ref(s->old_bs);
    s->overlay = bdrv_lookup_bs(arg->overlay, arg->overlay, errp);
    if (!s->overlay) {
        return false;
    }
    bdrv_ref(s->overlay);
    if (!check_old_node(s->old_bs, errp)) {
        return false;
    }
    if (!check_overlay(s->overlay, errp)) {
        return false;
    }
    if (!bdrv_driver_has_backing(s->overlay->drv)) {
        error_setg(errp, "The overlay '%s' does not support backing images", arg->overlay);
        return false;
    }
    return drain_and_flush(s, errp) && put_on_top(s, errp);
}

static bool coroutine_fn create_overlay(ExternalSnapshot *s, const BlockdevSnapshotSync *arg,
                                        const char *format, GError **errp)
{
    int flags = BDRV_O_RDWR | BDRV_O_NO_BACKING |
                (s->old_bs->open_flags & (BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_UNMAP));

    if (!arg->has_mode || arg->mode != NEW_IMAGE_MODE_EXISTING) {
        g_autofree char *name = NULL;

        if (s->old_bs->exact_filename == NULL || !s->old_bs->exact_filename[0]) {
            error_setg(
                errp,
                "Node '%s' has no file name that an overlay could record; create the overlay "
                "yourself and use mode=existing",
                s->old_bs->node_name);
            return false;
        }
        name = bdrv_name_for_overlay(s->old_bs, arg->snapshot_file, errp);
        if (!name || !bdrv_co_img_create(arg->snapshot_file, format, s->old_bs->total_bytes, name,
                                         s->old_bs->drv->format_name, errp)) {
            return false;
        }
    }
    s->overlay =
        bdrv_co_open_filename(arg->snapshot_file, format, arg->snapshot_node_name, flags, errp);
    if (!s->overlay) {
        return false;
    }
    if (!bdrv_driver_has_backing(s->overlay->drv)) {
        error_setg(errp, "The overlay '%s' does not support backing images", arg->snapshot_file);
        return false;
    }
    return true;
}

static bool coroutine_fn blockdev_snapshot_sync_prepare(TransactionStep *step, GError **errp)
{
    const BlockdevSnapshotSync *arg = step->action->u.blockdev_snapshot_sync.data;
    const char *format = arg->format ? arg->format : "qcow2";
    ExternalSnapshot *s = step->opaque = g_new0(ExternalSnapshot, 1);

    s->old_bs = bdrv_lookup_bs(arg->device, arg->node_name, errp);
    if (!s->old_bs) {
        return false;
    }
    bdrv_ref(s->old_bs);
    if (!check_old_node(s->old_bs, errp)) {
        return false;
    }
    if (arg->node_name && !arg->snapshot_node_name) {
        error_setg(errp, "New overlay node-name missing");
        return false;
    }
    if (arg->snapshot_node_name && bdrv_node_name_in_use(arg->snapshot_node_name)) {
        error_setg(errp, "New overlay node-name already in use");
        return false;
    }
    return drain_and_flush(s, errp) && create_overlay(s, arg, format, errp) && put_on_top(s, errp);
}

const TransactionActionOps transaction_blockdev_snapshot = {
    .prepare = blockdev_snapshot_prepare,
    .abort = snapshot_abort,
    .clean = snapshot_clean,
};

const TransactionActionOps transaction_blockdev_snapshot_sync = {
    .prepare = blockdev_snapshot_sync_prepare,
    .abort = snapshot_abort,
    .clean = snapshot_clean,
};

TRANSACTION_COMMAND(BLOCKDEV_SNAPSHOT, blockdev_snapshot, BlockdevSnapshot)
TRANSACTION_COMMAND(BLOCKDEV_SNAPSHOT_SYNC, blockdev_snapshot_sync, BlockdevSnapshotSync)

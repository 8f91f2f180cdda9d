/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands that make, change and remove nodes. Handlers run in coroutines of the main thread.
 */
#include "block/blockdev.h"

#include <errno.h>
#include "block/graph/activate.h"
#include "block/block-backend.h"
#include "block/graph/graph.h"
#include "qapi/qapi-commands.h"
#include "util/error.h"

bool coroutine_fn qmp_blockdev_add(const BlockdevOptions *arg, GError **errp)
{
    BlockDriverState *bs;

    if (!arg->node_name) {
        error_setg(errp, "'node-name' must be specified for the root node");
        return false;
    }
    bs = bdrv_co_open(arg, BDRV_O_RDWR | bdrv_default_open_flags(), errp);
    if (!bs) {
        return false;
    }
    bs->monitor_owned = true;
    return true;
}

/* "export 'e0'", or NULL when no user but other nodes is above bs. The caller frees. */
static char *describe_root_user(BlockDriverState *bs)
{
    BdrvChild *edge;

    LIST_FOREACH(edge, &bs->parents, next_parent) {
        if (!edge->klass->parent_is_bds) {
            return edge->klass->get_parent_desc ? edge->klass->get_parent_desc(edge)
                                                : g_strdup("another user");
        }
    }
    return NULL;
}

/* The monitor holds the one reference, and no job forbids it. */
static bool check_deletable(BlockDriverState *bs, GError **errp)
{
    g_autofree char *user = describe_root_user(bs);

    if (user) {
        error_setg(errp, "Node %s is in use by %s", bs->node_name, user);
    } else if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_DRIVE_DEL, errp)) {
        return false;
    } else if (!bs->monitor_owned) {
        error_setg(errp, "Node %s is not owned by the monitor", bs->node_name);
    } else if (bdrv_has_other_refs(bs)) {
        error_setg(errp, "Block device %s is in use", bs->node_name);
    } else {
        return true;
    }
    return false;
}

/*
 * Held by nothing but what is on its way out, as far as one can see: a filter that a look at its context
 * holds is closed after that.
 */
static bool will_be_free(BlockDriverState *bs)
{
    g_autofree char *user = describe_root_user(bs);
    BlockGraph *graph = block_graph();

    return !user && bdrv_has_other_refs(bs) &&
           (bdrv_closing_parent(bs) || graph->settling ||
            __atomic_load_n(&graph->closing, __ATOMIC_ACQUIRE));
}

static BlockDriverState *coroutine_fn co_find_to_delete(const char *node_name)
{
    BdrvClosingWait wait = {0};
    BlockDriverState *bs;

    do {
        bdrv_co_wait_settled(node_name);
        bs = bdrv_find_node(node_name);
    } while (bs && will_be_free(bs) && bdrv_co_closing_wait(&wait));
    bdrv_closing_wait_end(&wait);
    return bs;
}

bool coroutine_fn qmp_blockdev_del(const BlockdevDelArg *arg, GError **errp)
{
    BlockDriverState *bs = co_find_to_delete(arg->node_name);

    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", arg->node_name);
        return false;
    }
    if (!check_deletable(bs, errp)) {
        return false;
    }
    bs->monitor_owned = false; /* its reference goes with it */
    bdrv_co_unref(bs);
    return true;
}

void coroutine_fn bdrv_co_unref_monitor_nodes(void)
{
    BlockDriverState *bs;

    do {
        TAILQ_FOREACH(bs, &block_graph()->nodes, all_nodes) {
            if (bs->monitor_owned) {
                bs->monitor_owned = false;
                bdrv_co_unref(bs);
                break; /* the list has changed */
            }
        }
    } while (bs);
}

static char *resize_get_desc(void *opaque)
{
    return g_strdup("block_resize");
}

#define RESIZING "its size is being changed"

/* Jobs and snapshots take the size of what they begin with: none begins while it changes. */
static const BlockOpType not_while_resizing[] = {
    BLOCK_OP_TYPE_MIRROR_SOURCE,
    BLOCK_OP_TYPE_MIRROR_TARGET,
    BLOCK_OP_TYPE_EXTERNAL_SNAPSHOT,
    BLOCK_OP_TYPE_REPLACE,
};

static bool coroutine_fn resize_drained(BlockDriverState *bs, BlockBackend *blk, int64_t size,
                                        GError **errp)
{
    AioContext *from;
    bool ok;

    /* A job may have begun while requests ended. */
    if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_RESIZE, errp)) {
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(not_while_resizing); i++) {
        bdrv_op_block(bs, not_while_resizing[i], RESIZING);
    }
    from = bdrv_co_enter_graph(bs);
    ok = blk_co_truncate(blk, size, false, PREALLOC_MODE_OFF, errp);
    bdrv_co_leave_graph(bs, from);
    for (size_t i = 0; i < G_N_ELEMENTS(not_while_resizing); i++) {
        bdrv_op_unblock(bs, not_while_resizing[i], RESIZING);
    }
    return ok;
}

static const BlockDevOps resize_ops = {.get_desc = resize_get_desc};

bool coroutine_fn qmp_block_resize(const BlockResizeArg *arg, GError **errp)
{
    BlockDriverState *bs = bdrv_lookup_bs(arg->device, arg->node_name, errp);
    BlockBackend *blk;
    bool ok;

    if (!bs) {
        return false;
    }
    if (arg->size < 0) {
        error_setg(errp, "Parameter 'size' expects a size of at least 0 bytes");
        return false;
    }
    if (bdrv_op_is_blocked(bs, BLOCK_OP_TYPE_RESIZE, errp)) {
        return false;
    }
    blk = blk_new(BLK_PERM_RESIZE, BLK_PERM_ALL);
    blk_set_dev_ops(blk, &resize_ops, NULL);
    if (!blk_insert_bs(blk, bs, errp)) {
        blk_unref(blk);
        return false;
    }
    bdrv_ref(bs);
    ok = bdrv_co_drained_begin_within(bs, BDRV_DRAIN_COMMAND_NS, errp);
    if (ok) {
        ok = resize_drained(bs, blk, arg->size, errp);
        bdrv_co_drained_end(bs);
    }
    blk_unref(blk);
    bdrv_co_unref(bs);
    return ok;
}

static int coroutine_fn co_change_backing_file(BlockDriverState *image, const char *name)
{
    AioContext *from = bdrv_co_enter_graph(image);
    int ret = -ENOENT;

    if (image->backing) { /* other monitors may have taken it away meanwhile */
        ret = image->drv->format->bdrv_co_change_backing_file(image, name,
                                                              image->backing->bs->drv->format_name);
    }
    bdrv_co_leave_graph(image, from);
    return ret;
}

bool coroutine_fn qmp_change_backing_file(const ChangeBackingFileArg *arg, GError **errp)
{
    BlockDriverState *bs = bdrv_lookup_bs(arg->device, NULL, NULL);
    BlockDriverState *image;
    int ret;

    if (!bs) {
        bs = bdrv_lookup_bs(NULL, arg->device, errp);
    }
    if (!bs) {
        return false;
    }
    image = bdrv_lookup_bs(NULL, arg->image_node_name, errp);
    if (!image) {
        return false;
    }
    if (!bdrv_chain_contains(bs, image)) {
        error_setg(errp, "'%s' and image file are not in the same chain", arg->device);
        return false;
    }
    if (!image->backing) {
        error_setg(errp, "not allowing backing file change on an image without a backing file");
        return false;
    }
    if (!BDRV_OP(image->drv, format, bdrv_co_change_backing_file)) {
        error_setg(errp, "Driver '%s' of node '%s' cannot record a backing file",
                   image->drv->format_name, arg->image_node_name);
        return false;
    }
    if (bdrv_is_read_only(image)) {
        error_setg(errp, "Node '%s' is read-only: reopen it for writing first",
                   arg->image_node_name);
        return false;
    }
    if (!bdrv_check_active(image, errp)) {
        return false;
    }
    bdrv_ref(image);
    if (!bdrv_co_drained_begin_within(image, BDRV_DRAIN_COMMAND_NS, errp)) {
        bdrv_co_unref(image);
        return false;
    }
    ret = co_change_backing_file(image, arg->backing_file);
    bdrv_co_drained_end(image);
    bdrv_co_unref(image);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not change backing file to '%s'", arg->backing_file);
        return false;
    }
    return true;
}

bool coroutine_fn qmp_block_set_write_threshold(const BlockSetWriteThresholdArg *arg, GError **errp)
{
    BlockDriverState *bs = bdrv_find_node(arg->node_name);

    if (!bs) {
        error_setg(errp, "Device '%s' not found", arg->node_name);
        return false;
    }
    __atomic_store_n(&bs->write_threshold_offset, arg->write_threshold, __ATOMIC_RELAXED);
    return true;
}

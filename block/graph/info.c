/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Looking around in the graph: names, properties, chains; and operations that jobs forbid. */
#include "block/graph/graph.h"

#include <errno.h>
#include <string.h>
#include "block/block-backend.h"
#include "util/error.h"

BlockDriverState *bdrv_find_node(const char *node_name)
{
    BlockDriverState *bs = g_hash_table_lookup(block_graph()->by_name, node_name);

    return bs && bs->is_open ? bs : NULL;
}

bool bdrv_node_name_in_use(const char *node_name)
{
    return g_hash_table_contains(block_graph()->by_name, node_name);
}

BlockDriverState *bdrv_lookup_bs(const char *device, const char *node_name, GError **errp)
{
    BlockDriverState *found = node_name ? bdrv_find_node(node_name) : NULL;
    BlockBackend *drive = device ? blk_by_name(device) : NULL;

    /* Names of drives and nodes are one space; a drive that was asked for by name goes first. */
    if (drive) {
        found = blk_bs(drive);
    }
    if (drive && !found) {
        error_setg(errp, "Device '%s' has no medium", device);
    } else if (!found && node_name && bdrv_node_name_in_use(node_name)) {
        error_setg(errp, "Node '%s' is still being opened", node_name);
    } else if (!found) {
        error_setg(errp, "Cannot find device='%s' nor node-name='%s'", device ? device : "",
                   node_name ? node_name : "");
    }
    return found;
}

BlockDriverState *bdrv_next_node(BlockDriverState *bs)
{
    return bs ? TAILQ_NEXT(bs, all_nodes) : TAILQ_FIRST(&block_graph()->nodes);
}

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_get_device_name(const BlockDriverState *bs)
{
    BdrvChild *child;

    LIST_FOREACH(child, &bs->parents, next_parent) {
        const char *name = child->klass->get_name ? child->klass->get_name(child) : NULL;

        if (name && name[0]) {
            return name;
        }
    }
    /* A job's filter stands between the device and its node. */
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->parent_is_bds) {
            BlockDriverState *parent = child->opaque;

            if (parent->drv && parent->drv->is_filter && parent->implicit) {
                return bdrv_get_device_name(parent);
            }
        }
    }
    return "";
}

const char *bdrv_get_device_or_node_name(const BlockDriverState *bs)
{
    const char *device = bdrv_get_device_name(bs);

    return device[0] ? device : bs->node_name;
}

const char *bdrv_get_format_name(const BlockDriverState *bs)
{
    return bs->drv ? bs->drv->format_name : "";
}

void bdrv_refresh_filename(BlockDriverState *bs)
{
    g_free(bs->filename);
    bs->filename = NULL;
    if (bs->drv && bs->drv->bdrv_refresh_filename) {
        bs->drv->bdrv_refresh_filename(bs);
    } else if (bs->file && bs->file->bs->exact_filename) {
        g_free(bs->exact_filename);
        bs->exact_filename = g_strdup(bs->file->bs->exact_filename);
    }
}

const char *bdrv_get_filename(const BlockDriverState *bs)
{
    BlockDriverState *mutable_bs = (BlockDriverState *)bs;

    if (bs->exact_filename && bs->exact_filename[0]) {
        return bs->exact_filename;
    }
    if (!bs->filename) {
        if (bs->options) {
            json_object *obj = BlockdevOptions_to_json(bs->options);

            mutable_bs->filename = g_strdup_printf(
                "json:%s", json_object_to_json_string_ext(obj, JSON_C_TO_STRING_NOSLASHESCAPE));
            json_object_put(obj);
        } else {
            mutable_bs->filename = g_strdup("");
        }
    }
    return bs->filename;
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return !(__atomic_load_n(&bs->open_flags, __ATOMIC_RELAXED) & BDRV_O_RDWR);
}

bool bdrv_is_inserted(BlockDriverState *bs)
{
    return bs->drv != NULL;
}

AioContext *bdrv_get_aio_context(const BlockDriverState *bs)
{
    return bs->aio_context;
}

int64_t bdrv_getlength(const BlockDriverState *bs)
{
    return bs->drv ? bs->total_bytes : -ENOMEDIUM;
}

/* --- chains --- */

BlockDriverState *bdrv_filter_bs(BlockDriverState *bs)
{
    BdrvChild *child;

    if (!bs->drv || !bs->drv->is_filter) {
        return NULL;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->role & BDRV_CHILD_FILTERED) {
            return child->bs;
        }
    }
    return NULL;
}

BlockDriverState *bdrv_skip_filters(BlockDriverState *bs)
{
    BlockDriverState *below;

    while (bs && (below = bdrv_filter_bs(bs))) {
        bs = below;
    }
    return bs;
}

BlockDriverState *bdrv_cow_bs(BlockDriverState *bs)
{
    bs = bdrv_skip_filters(bs);
    return bs && bs->backing ? bs->backing->bs : NULL;
}

bool bdrv_chain_contains(BlockDriverState *top, BlockDriverState *base)
{
    while (top && top != base) {
        BlockDriverState *below = bdrv_filter_bs(top);

        top = below ? below : (top->backing ? top->backing->bs : NULL);
    }
    return top != NULL;
}

/* Nodes may be reached in many ways: each is looked at once. */
static bool contains(BlockDriverState *bs, const BlockDriverState *needle, GHashTable *seen)
{
    BdrvChild *child;

    if (bs == needle) {
        return true;
    }
    if (!g_hash_table_add(seen, bs)) {
        return false;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs && contains(child->bs, needle, seen)) {
            return true;
        }
    }
    return false;
}

bool bdrv_graph_contains(BlockDriverState *bs, BlockDriverState *needle)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    return contains(bs, needle, seen);
}

/* --- operation blockers --- */

void bdrv_op_block(BlockDriverState *bs, BlockOpType op, const char *reason)
{
    BdrvOpBlocker *blocker = g_new0(BdrvOpBlocker, 1);

    blocker->reason = g_strdup(reason);
    LIST_INSERT_HEAD(&bs->op_blockers[op], blocker, list);
}

void bdrv_op_block_all(BlockDriverState *bs, const char *reason)
{
    for (int op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
        bdrv_op_block(bs, op, reason);
    }
}

void bdrv_op_unblock(BlockDriverState *bs, BlockOpType op, const char *reason)
{
    BdrvOpBlocker *blocker, *next;

    LIST_FOREACH_SAFE(blocker, &bs->op_blockers[op], list, next) {
        if (!strcmp(blocker->reason, reason)) {
            LIST_REMOVE(blocker, list);
            g_free(blocker->reason);
            g_free(blocker);
            return;
        }
    }
}

void bdrv_op_unblock_all(BlockDriverState *bs, const char *reason)
{
    for (int op = 0; op < BLOCK_OP_TYPE_MAX; op++) {
        bdrv_op_unblock(bs, op, reason);
    }
}

bool bdrv_op_is_blocked(BlockDriverState *bs, BlockOpType op, GError **errp)
{
    BdrvOpBlocker *blocker = LIST_FIRST(&bs->op_blockers[op]);

    if (!blocker) {
        return false;
    }
    error_setg(errp, "Node '%s' is busy: %s", bdrv_get_device_or_node_name(bs), blocker->reason);
    return true;
}

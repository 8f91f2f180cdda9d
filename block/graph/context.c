/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Moving a graph between event loops (iothreads). Main thread; the whole connected graph moves at
 * once.
 */
#include "block/graph/graph.h"

#include "util/error.h"

/* Everything connected to bs, by edges in either direction. */
static void collect_graph(BlockDriverState *bs, GHashTable *seen)
{
    BdrvChild *child;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs) {
            collect_graph(child->bs, seen);
        }
    }
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->parent_is_bds) {
            collect_graph(child->opaque, seen);
        }
    }
}

static bool parents_can_move(BlockDriverState *bs, AioContext *ctx, GError **errp)
{
    BdrvChild *child;

    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->can_set_aio_context &&
            !child->klass->can_set_aio_context(child, ctx, errp)) {
            return false;
        }
    }
    return true;
}

static void move_node(BlockDriverState *bs, AioContext *ctx)
{
    BdrvChild *child;

    if (bs->drv && bs->drv->bdrv_detach_aio_context) {
        bs->drv->bdrv_detach_aio_context(bs);
    }
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->set_aio_context) {
            child->klass->set_aio_context(child, ctx);
        }
    }
    bs->aio_context = ctx;
    if (bs->drv && bs->drv->bdrv_attach_aio_context) {
        bs->drv->bdrv_attach_aio_context(bs, ctx);
    }
}

bool coroutine_fn bdrv_co_set_aio_context(BlockDriverState *bs, AioContext *ctx, GError **errp)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    GHashTableIter iter;
    gpointer node;
    bool ok = true;

    if (bs->aio_context == ctx) {
        return true;
    }
    collect_graph(bs, seen);
    g_hash_table_iter_init(&iter, seen);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        bdrv_ref(node);
        g_ptr_array_add(nodes, node);
    }
    for (guint i = 0; i < nodes->len && ok; i++) {
        ok = parents_can_move(g_ptr_array_index(nodes, i), ctx, errp);
    }
    if (ok) {
        for (guint i = 0; i < nodes->len; i++) {
            bdrv_co_drained_begin(g_ptr_array_index(nodes, i));
        }
        for (guint i = 0; i < nodes->len; i++) {
            move_node(g_ptr_array_index(nodes, i), ctx);
        }
        for (guint i = 0; i < nodes->len; i++) {
            bdrv_co_drained_end(g_ptr_array_index(nodes, i));
        }
    }
    for (guint i = 0; i < nodes->len; i++) {
        bdrv_co_unref(g_ptr_array_index(nodes, i));
    }
    return ok;
}

AioContext *coroutine_fn bdrv_co_enter_graph(BlockDriverState *bs)
{
    AioContext *ctx = bdrv_get_aio_context(bs);

    if (ctx != qemu_get_aio_context()) {
        aio_co_reschedule_self(ctx);
    }
    return ctx;
}

void coroutine_fn bdrv_co_leave_graph(AioContext *ctx)
{
    if (ctx != qemu_get_aio_context()) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes to a live graph: inserting filters, replacing nodes, repointing edges. All are atomic: on
 * failure nothing has changed. What is connected must be in one context and drained.
 */
#include "block/graph/graph.h"

#include "util/error.h"

/* One edge that was repointed, to be able to point it back. */
typedef struct MovedEdge {
    BdrvChild *child;
    BlockDriverState *from;
} MovedEdge;

static void move_edge(GArray *moved, BdrvChild *child, BlockDriverState *to)
{
    MovedEdge edge = {.child = child, .from = child->bs};

    if (to) {
        bdrv_ref(to);
    }
    bdrv_replace_child_noperm(child, to);
    g_array_append_val(moved, edge);
}

/*
 * Settles the references of moved edges: the old target's on success, the new one's after moving
 * back.
 */
static bool finish_move(GArray *moved, BdrvPermTxn *txn, GError **errp)
{
    bool ok = bdrv_perm_txn_run(txn, errp);

    for (guint i = moved->len; i-- > 0;) {
        MovedEdge *edge = &g_array_index(moved, MovedEdge, i);
        BlockDriverState *drop = ok ? edge->from : edge->child->bs;

        if (!ok) {
            bdrv_replace_child_noperm(edge->child, edge->from);
        }
        if (drop && bdrv_has_other_refs(drop)) {
            bdrv_settle_context_later(drop); /* it may have lost the user that kept it there */
        }
        bdrv_unref_later(drop);
    }
    g_array_free(moved, true);
    return ok;
}

static bool check_same_context(BlockDriverState *from, BlockDriverState *to, GError **errp)
{
    if (from->aio_context != to->aio_context) {
        error_setg(errp, "Cannot replace node '%s' by node '%s', which is used by another iothread",
                   from->node_name, to->node_name);
        return false;
    }
    return true;
}

/* Points the parents of `from` that do not stay at `to`. False: a job relies on one of the edges. */
static bool move_parents(GArray *moved, BlockDriverState *from, BlockDriverState *to,
                         const BdrvReplace *how, GError **errp)
{
    BdrvChild *child, *next;

    LIST_FOREACH_SAFE(child, &from->parents, next_parent, next) {
        if (child->stay_at_node || (how->stays && how->stays(child, how->opaque))) {
            continue;
        }
        if (child->frozen) {
            error_setg(errp, "Cannot change '%s' link to '%s': a job relies on it", child->name,
                       from->node_name);
            return false;
        }
        move_edge(moved, child, to);
    }
    return true;
}

static void move_back(GArray *moved, BlockDriverState *to)
{
    for (guint i = moved->len; i-- > 0;) {
        MovedEdge *edge = &g_array_index(moved, MovedEdge, i);

        bdrv_replace_child_noperm(edge->child, edge->from);
        bdrv_unref_later(to);
    }
    g_array_free(moved, true);
}

bool bdrv_replace_nodes(BlockDriverState *const *from, unsigned n, BlockDriverState *to,
                        const BdrvReplace *how, GError **errp)
{
    GArray *moved = g_array_new(false, false, sizeof(MovedEdge));
    BdrvPermTxn *txn = bdrv_perm_txn_new();
    bool ok = true;

    for (unsigned i = 0; i < n; i++) {
        g_assert(bdrv_is_quiesced(from[i]) && bdrv_is_quiesced(to));
        bdrv_ref(from[i]);
    }
    for (unsigned i = 0; ok && i < n; i++) {
        ok = check_same_context(from[i], to, errp) && move_parents(moved, from[i], to, how, errp);
    }
    if (ok) {
        bdrv_perm_txn_add(txn, to);
        for (unsigned i = 0; i < n; i++) {
            bdrv_perm_txn_add(txn, from[i]);
        }
        ok = finish_move(moved, txn, errp);
    } else {
        bdrv_perm_txn_free(txn);
        move_back(moved, to);
    }
    for (unsigned i = 0; i < n; i++) {
        bdrv_unref_later(from[i]);
    }
    return ok;
}

bool bdrv_replace_node_if(BlockDriverState *from, BlockDriverState *to,
                          bool (*skip)(BdrvChild *child, void *opaque), void *opaque, GError **errp)
{
    BdrvReplace how = {.stays = skip, .opaque = opaque};

    return bdrv_replace_nodes(&from, 1, to, &how, errp);
}

/*
 * A parent that lies below (or is) the new node must keep its edge, or the graph would have a
 * cycle.
 */
static bool skip_own_edges(BdrvChild *child, void *opaque)
{
    return child->klass->parent_is_bds && bdrv_graph_contains(opaque, child->opaque);
}

bool bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, GError **errp)
{
    return bdrv_replace_node_if(from, to, skip_own_edges, to, errp);
}

bool bdrv_append_filter(BlockDriverState *filter, BlockDriverState *bs, GError **errp)
{
    BdrvChild *file;
    bool ok;

    g_assert(LIST_EMPTY(&filter->parents) && bdrv_is_quiesced(bs));
    bdrv_ref(bs);
    file = bdrv_attach_child(filter, bs, "file",
                             filter->drv->is_filter ? BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY
                                                    : BDRV_CHILD_COW | BDRV_CHILD_PRIMARY,
                             errp);
    if (!file) {
        return false;
    }
    filter->total_bytes = bs->total_bytes;
    bdrv_refresh_limits(filter);
    ok = bdrv_replace_node_if(bs, filter, skip_own_edges, filter, errp);
    if (!ok) {
        bdrv_unref_child(filter, file);
    }
    filter->is_open |= ok; /* only now: a query visits open nodes, in the graph's thread */
    return ok;
}

bool bdrv_replace_child(BdrvChild *child, BlockDriverState *to, GError **errp)
{
    BlockDriverState *from = child->bs;
    BdrvPermTxn *txn;
    GArray *moved;

    if (to && !bdrv_edge_context_fits(child, to, errp)) {
        return false;
    }
    moved = g_array_new(false, false, sizeof(MovedEdge));
    txn = bdrv_perm_txn_new();
    move_edge(moved, child, to);
    if (child->klass->parent_is_bds) {
        bdrv_perm_txn_add(txn, child->opaque);
    }
    if (to) {
        bdrv_perm_txn_add(txn, to);
    }
    if (from) {
        bdrv_perm_txn_add(txn, from);
    }
    return finish_move(moved, txn, errp);
}

bool bdrv_set_backing_hd(BlockDriverState *bs, BlockDriverState *backing, GError **errp)
{
    if (bs->backing && bs->backing->frozen) {
        error_setg(errp, "Cannot change 'backing' link of '%s': a job relies on it", bs->node_name);
        return false;
    }
    if (!backing) {
        if (bs->backing) {
            bdrv_unref_child(bs, bs->backing);
        }
        bdrv_refresh_limits(bs);
        return true;
    }
    if (!bdrv_driver_has_backing(bs->drv)) {
        error_setg(errp, "Driver '%s' of node '%s' does not support backing files",
                   bs->drv->format_name, bs->node_name);
        return false;
    }
    if (bdrv_graph_contains(backing, bs)) {
        error_setg(errp, "Making '%s' a backing child of '%s' would create a cycle",
                   backing->node_name, bs->node_name);
        return false;
    }
    if (bs->backing) {
        if (!bdrv_replace_child(bs->backing, backing, errp)) {
            return false;
        }
    } else {
        bdrv_ref(backing);
        if (!bdrv_attach_child(bs, backing, "backing", BDRV_CHILD_COW, errp)) {
            return false;
        }
    }
    bdrv_refresh_limits(bs);
    return true;
}

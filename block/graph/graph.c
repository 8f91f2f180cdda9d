/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block graph: life of nodes and edges.
 *
 * Invariants:
 *  - a node has a reference for each parent edge, and for each owner that holds it by pointer;
 *  - a registered node has a unique name; the name leaves the registry before the node is closed;
 *  - all nodes connected by edges have the same aio_context;
 *  - an edge to a quiesced node has delivered drained_begin to its parent exactly once
 *    (quiesced_parent).
 */
#include "block/graph/graph.h"

#include <string.h>
#include "block/dirty-bitmap.h"
#include "trace/trace-block.h"
#include "util/error.h"
#include "util/id.h"
#include "util/iothread.h"

BlockGraph *block_graph(void)
{
    static BlockGraph *graph;

    if (!graph) {
        graph = g_new0(BlockGraph, 1);
        TAILQ_INIT(&graph->nodes);
        graph->by_name = g_hash_table_new(g_str_hash, g_str_equal);
        qemu_co_queue_init(&graph->closing_queue);
        qemu_co_queue_init(&graph->settled_queue);
    }
    return graph;
}

static BlockDriverState *child_unlink(BdrvChild *child);

/* --- nodes --- */

BlockDriverState *bdrv_new(void)
{
    BlockDriverState *bs = g_new0(BlockDriverState, 1);

    bs->refcnt = 1;
    bs->aio_context = qemu_get_aio_context();
    LIST_INIT(&bs->children);
    LIST_INIT(&bs->parents);
    for (int i = 0; i < BLOCK_OP_TYPE_MAX; i++) {
        LIST_INIT(&bs->op_blockers[i]);
    }
    pthread_mutex_init(&bs->lock, NULL);
    LIST_INIT(&bs->tracked_requests);
    TAILQ_INIT(&bs->dirty_bitmaps);
    qemu_co_mutex_init(&bs->flushing);
    bs->cumulative_shared = BLK_PERM_ALL;
    TAILQ_INSERT_TAIL(&block_graph()->nodes, bs, all_nodes);
    return bs;
}

void bdrv_free(BlockDriverState *bs)
{
    g_assert(LIST_EMPTY(&bs->parents) && LIST_EMPTY(&bs->children));
    if (!bs->closing && bs->node_name[0]) {
        g_hash_table_remove(block_graph()->by_name, bs->node_name);
    }
    TAILQ_REMOVE(&block_graph()->nodes, bs, all_nodes);
    bdrv_release_context(bs);
    qemu_co_queue_restart_all(&block_graph()->settled_queue);
    for (int i = 0; i < BLOCK_OP_TYPE_MAX; i++) {
        g_assert(LIST_EMPTY(&bs->op_blockers[i]));
    }
    qemu_co_mutex_destroy(&bs->flushing);
    pthread_mutex_destroy(&bs->lock);
    g_free(bs->threads);
    qapi_free_BlockdevOptions(bs->options);
    g_free(bs->opaque);
    g_free(bs->filename);
    g_free(bs->exact_filename);
    g_free(bs->backing_file);
    g_free(bs->backing_format);
    g_free(bs);
}

bool bdrv_assign_node_name(BlockDriverState *bs, const char *node_name, GError **errp)
{
    BlockGraph *graph = block_graph();

    if (!node_name || !node_name[0]) {
        do {
            g_snprintf(bs->node_name, sizeof(bs->node_name), "#block%03u", graph->auto_names++);
        } while (g_hash_table_contains(graph->by_name, bs->node_name));
        g_hash_table_insert(graph->by_name, bs->node_name, bs);
        return true;
    }
    if (strlen(node_name) >= BDRV_NODE_NAME_MAX) {
        error_setg(errp, "Node name '%s' is too long: %d characters are allowed", node_name,
                   BDRV_NODE_NAME_MAX - 1);
        return false;
    }
    if (!id_wellformed(node_name)) {
        error_setg(errp, "Invalid node-name: '%s'", node_name);
        return false;
    }
    if (g_hash_table_contains(graph->by_name, node_name)) {
        error_setg(errp, "Duplicate nodes with node-name='%s'", node_name);
        return false;
    }
    if (blk_name_in_use(node_name)) {
        error_setg(errp, "node-name='%s' is conflicting with a device id", node_name);
        return false;
    }
    g_strlcpy(bs->node_name, node_name, sizeof(bs->node_name));
    g_hash_table_insert(graph->by_name, bs->node_name, bs);
    return true;
}

BlockDriverState *bdrv_new_filter(const BlockDriver *drv, const char *node_name, int flags,
                                  GError **errp)
{
    BlockDriverState *bs = bdrv_new();

    if (!bdrv_assign_node_name(bs, node_name, errp)) {
        bdrv_free(bs);
        return NULL;
    }
    bs->drv = drv;
    bs->open_flags = flags;
    bs->opaque = g_malloc0(MAX(drv->instance_size, 1));
    bs->bl.request_alignment = 1;
    return bs;
}

void bdrv_ref(BlockDriverState *bs)
{
    __atomic_fetch_add(&bs->refcnt, 1, __ATOMIC_RELAXED);
}

bool bdrv_has_other_refs(BlockDriverState *bs)
{
    return __atomic_load_n(&bs->refcnt, __ATOMIC_RELAXED) > 1;
}

/*
 * The last reference is gone, and no parent sends requests any more: what remains is to end in good
 * order.
 */
static void coroutine_fn bdrv_co_close(BlockDriverState *bs)
{
    BdrvChild *child, *next;

    g_assert(LIST_EMPTY(&bs->parents));
    trace_bdrv_close(bs->node_name);
    g_hash_table_remove(block_graph()->by_name, bs->node_name);
    bs->closing = true;

    if (bs->drv) {
        AioContext *from;

        bdrv_co_drained_begin(bs);
        from = bdrv_co_enter_graph(bs);
        if (!bs->drv->is_filter) {
            /* Errors were reported to those that asked for a flush; here none is left to tell. */
            (void)bdrv_co_flush(bs);
        }
        if (bs->drv->bdrv_co_close) {
            bs->drv->bdrv_co_close(bs);
        }
        bdrv_co_leave_graph(bs, from);
        /* its state is gone: the end of the drain is no business of the driver's any more */
        bs->drv = NULL;
        bdrv_co_drained_end(bs);
    }
    while (block_graph()->giving_up) {
        qemu_co_queue_wait(&block_graph()->closing_queue, NULL);
    }
    bdrv_release_all_dirty_bitmaps(bs);
    LIST_FOREACH_SAFE(child, &bs->children, next, next) {
        bdrv_co_unref(child_unlink(child));
    }
    bdrv_free(bs);
}

void coroutine_fn bdrv_co_unref(BlockDriverState *bs)
{
    if (!bs) {
        return;
    }
    if (__atomic_sub_fetch(&bs->refcnt, 1, __ATOMIC_ACQ_REL) == 0) {
        bdrv_co_close(bs);
    }
}

static void coroutine_fn unref_later_entry(void *opaque)
{
    BlockGraph *graph = block_graph();

    bdrv_co_unref(opaque);
    if (__atomic_sub_fetch(&graph->closing, 1, __ATOMIC_ACQ_REL) == 0) {
        qemu_co_queue_restart_all(&graph->closing_queue);
        qemu_co_queue_restart_all(&graph->settled_queue);
    }
}

static void unref_later_bh(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(unref_later_entry, opaque));
}

void bdrv_unref_later(BlockDriverState *bs)
{
    if (!bs) {
        return;
    }
    for (int n = __atomic_load_n(&bs->refcnt, __ATOMIC_RELAXED); n > 1;) {
        if (__atomic_compare_exchange_n(&bs->refcnt, &n, n - 1, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {
            return;
        }
    }
    __atomic_fetch_add(&block_graph()->closing, 1, __ATOMIC_RELAXED);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), unref_later_bh, bs);
}

static void coroutine_fn co_wait_closed(BlockGraph *graph)
{
    while (__atomic_load_n(&graph->closing, __ATOMIC_ACQUIRE) || graph->settling) {
        qemu_co_queue_wait(&graph->closing_queue, NULL);
    }
}

void coroutine_fn bdrv_co_close_all(void)
{
    co_wait_closed(block_graph());
    /* Nodes that the user made with blockdev-add hold their reference until now. */
    bdrv_co_unref_monitor_nodes();
    co_wait_closed(block_graph());
}

/* --- edges --- */

static char *bds_parent_desc(BdrvChild *child)
{
    BlockDriverState *parent = child->opaque;

    return g_strdup_printf("node '%s'", parent->node_name);
}

static void bds_drained_begin(BdrvChild *child)
{
    bdrv_quiesce_begin(child->opaque);
}

static bool bds_drained_poll(BdrvChild *child)
{
    return bdrv_drain_busy(child->opaque);
}

static void bds_drained_end(BdrvChild *child)
{
    bdrv_quiesce_end(child->opaque);
}

/*
 * Requests of the node follow its edges without a lock, so these change only while it is drained,
 * or while nothing can send it requests.
 */
static void assert_edges_may_change(BlockDriverState *bs)
{
    g_assert(bdrv_is_quiesced(bs) || !bs->is_open || bs->closing || LIST_EMPTY(&bs->parents));
}

/* No request is on its way along the edge. */
static void assert_parent_quiet(const BdrvChild *child)
{
    if (child->klass->parent_is_bds) {
        assert_edges_may_change(child->opaque);
    } else {
        g_assert(child->quiesced_parent);
    }
}

static void bds_attach(BdrvChild *child)
{
    BlockDriverState *parent = child->opaque;

    assert_edges_may_change(parent);
    bdrv_edges_lock();
    LIST_INSERT_HEAD(&parent->children, child, next);
    if (child->role & BDRV_CHILD_PRIMARY) {
        parent->file = child;
    }
    if (child->role & BDRV_CHILD_COW) {
        parent->backing = child;
    }
    bdrv_edges_unlock();
}

static void bds_detach(BdrvChild *child)
{
    BlockDriverState *parent = child->opaque;

    assert_edges_may_change(parent);
    bdrv_edges_lock();
    LIST_REMOVE(child, next);
    if (parent->file == child) {
        parent->file = NULL;
    }
    if (parent->backing == child) {
        parent->backing = NULL;
    }
    bdrv_edges_unlock();
}

static void bds_resize(BdrvChild *child)
{
    BlockDriverState *parent = child->opaque;

    if (parent->drv && parent->drv->is_filter && (child->role & BDRV_CHILD_FILTERED)) {
        bdrv_set_total_bytes(parent, child->bs->total_bytes);
    }
}

static AioContext *bds_aio_context(BdrvChild *child)
{
    BlockDriverState *parent = child->opaque;

    return parent->aio_context;
}

const BdrvChildClass child_of_bds = {
    .parent_is_bds = true,
    .get_parent_desc = bds_parent_desc,
    .drained_begin = bds_drained_begin,
    .drained_poll = bds_drained_poll,
    .drained_end = bds_drained_end,
    .resize = bds_resize,
    .attach = bds_attach,
    .detach = bds_detach,
    .get_parent_aio_context = bds_aio_context,
};

void bdrv_replace_child_noperm(BdrvChild *child, BlockDriverState *new_bs)
{
    BlockDriverState *old_bs = child->bs;
    bool quiesced;

    bdrv_assert_main_thread();
    if (old_bs == new_bs) {
        return;
    }
    if (old_bs && new_bs) {
        assert_parent_quiet(child);
        g_assert(old_bs->aio_context == new_bs->aio_context);
    }
    bdrv_edges_lock();
    quiesced = new_bs && bdrv_is_quiesced(new_bs);
    if (quiesced && !child->quiesced_parent) {
        child->quiesced_parent = true;
        if (child->klass->drained_begin) {
            child->klass->drained_begin(child);
        }
    }
    if (old_bs) {
        LIST_REMOVE(child, next_parent);
    }
    child->bs = new_bs;
    if (new_bs) {
        LIST_INSERT_HEAD(&new_bs->parents, child, next_parent);
    }
    if (child->quiesced_parent && !quiesced) {
        child->quiesced_parent = false;
        if (child->klass->drained_end) {
            child->klass->drained_end(child);
        }
    }
    bdrv_edges_unlock();
    bdrv_threads_edge_changed(child);
}

static BdrvChild *child_new(BlockDriverState *bs, const char *name, const BdrvChildClass *klass,
                            int role, void *opaque)
{
    BdrvChild *child = g_new0(BdrvChild, 1);

    child->name = g_strdup(name);
    child->klass = klass;
    child->stay_at_node = klass->stay_at_node;
    child->role = role;
    child->opaque = opaque;
    child->shared_perm = BLK_PERM_ALL;
    if (klass->attach) {
        klass->attach(child);
    }
    bdrv_replace_child_noperm(child, bs);
    return child;
}

void bdrv_detach_child_edge(BdrvChild *child)
{
    bdrv_replace_child_noperm(child, NULL);
    if (child->klass->detach) {
        child->klass->detach(child);
    }
    g_free(child->name);
    g_free(child);
}

/*
 * Removes an edge, tells the node below that it is less used now, and hands back the edge's
 * reference.
 */
static BlockDriverState *child_unlink(BdrvChild *child)
{
    BlockDriverState *parent = child->klass->parent_is_bds ? child->opaque : NULL;
    BlockDriverState *bs = child->bs;

    bdrv_detach_child_edge(child);
    if (bs) {
        /*
         * Fewer users never conflict; a driver that fails to drop a lock keeps it, which is safe.
         */
        (void)bdrv_refresh_perms(bs, NULL);
        /* The user may have been the only one that wished the graph to be where it is. */
        if (bdrv_has_other_refs(bs)) {
            bdrv_settle_context_later(bs);
        }
    }
    if (parent) {
        bdrv_settle_context_later(parent);
    }
    return bs;
}

bool bdrv_edge_context_fits(BdrvChild *child, BlockDriverState *bs, GError **errp)
{
    const BdrvChildClass *klass = child->klass;
    AioContext *ctx = klass->get_parent_aio_context ? klass->get_parent_aio_context(child) : NULL;
    g_autofree char *user = NULL, *here = NULL, *there = NULL;

    if (!ctx || ctx == bs->aio_context) {
        return true;
    }
    user = klass->get_parent_desc ? klass->get_parent_desc(child) : g_strdup("its new user");
    here = iothread_describe_context(bs->aio_context);
    there = iothread_describe_context(ctx);
    error_setg(errp, "Node '%s' is used by another iothread: it is in %s, and %s in %s",
               bs->node_name, here, user, there);
    return false;
}

BdrvChild *bdrv_root_attach_child(BlockDriverState *bs, const char *name,
                                  const BdrvChildClass *klass, int role, uint64_t perm,
                                  uint64_t shared, void *opaque, GError **errp)
{
    BdrvChild *child = child_new(bs, name, klass, role, opaque);
    BdrvPermTxn *txn;

    if (!bdrv_edge_context_fits(child, bs, errp)) {
        bdrv_unref_later(child_unlink(child));
        return NULL;
    }
    txn = bdrv_perm_txn_new();
    bdrv_perm_txn_set(txn, child, perm, shared);
    bdrv_perm_txn_add(txn, bs);
    if (!bdrv_perm_txn_run(txn, errp)) {
        bdrv_unref_later(child_unlink(child));
        return NULL;
    }
    return child;
}

void bdrv_root_unref_child(BdrvChild *child)
{
    bdrv_unref_later(child_unlink(child));
}

/*
 * Nodes on the longest way down from bs, itself included. `known` has the depths found so far, as
 * nodes may be reached in many ways. No deeper than BDRV_MAX_DEPTH, which holds for every graph.
 */
static int depth_below(const BlockDriverState *bs, GHashTable *known)
{
    int depth = GPOINTER_TO_INT(g_hash_table_lookup(known, bs));
    const BdrvChild *child;

    if (depth) {
        return depth;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs) {
            depth = MAX(depth, depth_below(child->bs, known));
        }
    }
    g_hash_table_insert(known, (void *)bs, GINT_TO_POINTER(depth + 1));
    return depth + 1;
}

/* The same upwards. */
static int depth_above(const BlockDriverState *bs, GHashTable *known)
{
    int depth = GPOINTER_TO_INT(g_hash_table_lookup(known, bs));
    const BdrvChild *edge;

    if (depth) {
        return depth;
    }
    LIST_FOREACH(edge, &bs->parents, next_parent) {
        if (edge->klass->parent_is_bds) {
            depth = MAX(depth, depth_above(edge->opaque, known));
        }
    }
    g_hash_table_insert(known, (void *)bs, GINT_TO_POINTER(depth + 1));
    return depth + 1;
}

/* Whether an edge from parent to child_bs would make a way through the graph too long. */
static bool too_deep(const BlockDriverState *parent, const BlockDriverState *child_bs)
{
    g_autoptr(GHashTable) above = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) below = g_hash_table_new(NULL, NULL);

    return depth_above(parent, above) + depth_below(child_bs, below) > BDRV_MAX_DEPTH;
}

BdrvChild *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *child_bs, const char *name,
                             int role, GError **errp)
{
    BdrvChild *child;

    if (too_deep(parent, child_bs)) {
        error_setg(
            errp,
            "Making '%s' a %s child of '%s' would put more than %d nodes on top of each other",
            child_bs->node_name, name, parent->node_name, BDRV_MAX_DEPTH);
        bdrv_unref_later(child_bs);
        return NULL;
    }
    if (bdrv_graph_contains(child_bs, parent)) {
        error_setg(errp, "Making '%s' a %s child of '%s' would create a cycle", child_bs->node_name,
                   name, parent->node_name);
        bdrv_unref_later(child_bs);
        return NULL;
    }
    child = child_new(child_bs, name, &child_of_bds, role, parent);
    if (!bdrv_edge_context_fits(child, child_bs, errp) || !bdrv_refresh_perms(parent, errp)) {
        bdrv_unref_later(child_unlink(child));
        return NULL;
    }
    return child;
}

void bdrv_unref_child(BlockDriverState *parent, BdrvChild *child)
{
    g_assert(child->opaque == parent);
    bdrv_unref_later(child_unlink(child));
}

bool bdrv_child_try_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared, GError **errp)
{
    BdrvPermTxn *txn = bdrv_perm_txn_new();

    bdrv_perm_txn_set(txn, child, perm, shared);
    if (child->bs) {
        bdrv_perm_txn_add(txn, child->bs);
    }
    return bdrv_perm_txn_run(txn, errp);
}

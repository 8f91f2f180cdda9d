/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which threads send requests to a node: that of its graph alone, or several (bs->threads).
 *
 * A root parent with several threads (a disk with a queue in each of some iothreads) is in one of
 * two states:
 *
 *   direct      its requests go down the graph in the thread they come from; all nodes below it can
 *               take them there: the driver states multi_thread, and there is no dirty bitmap, which
 *               wants one order of all writes
 *   forwarded   the parent takes its requests to the graph's thread and back
 *
 *   direct -> forwarded   at once, in the drained section in which an edge or a bitmap changes what
 *                         is below the parent: bdrv_threads_edge_changed(), bdrv_threads_check_above()
 *   forwarded -> direct   with all that is connected drained: bdrv_threads_arrange(). Each change
 *                         of an edge, and the end of a bitmap, asks for that soon.
 *
 * So a node that a direct parent reaches always has the parent's threads. It may have them longer than
 * needed, which costs a lock for each request.
 */
#include "block/graph/graph.h"

static bool can_have_several(const BlockDriverState *bs)
{
    return bs->is_open && bs->drv && bs->drv->multi_thread && TAILQ_EMPTY(&bs->dirty_bitmaps);
}

/* The nodes that requests to bs may reach. False: one of them must have one thread. */
static bool collect_below(BlockDriverState *bs, GHashTable *below)
{
    BdrvChild *child;

    if (!can_have_several(bs)) {
        return false;
    }
    if (!g_hash_table_add(below, bs)) {
        return true;
    }
    LIST_FOREACH(child, &bs->children, next) {
        if (child->bs && !collect_below(child->bs, below)) {
            return false;
        }
    }
    return true;
}

static GHashTable *reached_by(const BdrvChild *root)
{
    GHashTable *below = g_hash_table_new(NULL, NULL);

    if (root->bs && collect_below(root->bs, below)) {
        return below;
    }
    g_hash_table_unref(below);
    return NULL;
}

static void get_use(BdrvChild *root, BdrvThreadsUse *use)
{
    *use = (BdrvThreadsUse){.direct = false};
    if (root->klass->get_threads) {
        root->klass->get_threads(root, use);
    }
}

/* --- from direct to forwarded --- */

static bool has_all(const BdrvThreads *threads, const BdrvThreads *wanted)
{
    for (unsigned i = 0; i < wanted->n; i++) {
        if (!bdrv_threads_have(threads, wanted->ctx[i])) {
            return false;
        }
    }
    return true;
}

static bool may_stay_direct(BdrvChild *root, const BdrvThreads *threads)
{
    g_autoptr(GHashTable) below = reached_by(root);
    GHashTableIter iter;
    gpointer node;

    if (!below) {
        return false;
    }
    g_hash_table_iter_init(&iter, below);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        if (!has_all(((BlockDriverState *)node)->threads, threads)) {
            return false;
        }
    }
    return true;
}

static void check_root(BdrvChild *root)
{
    BdrvThreadsUse use;

    get_use(root, &use);
    if (use.direct && !may_stay_direct(root, use.in_force)) {
        g_assert(root->quiesced_parent || !root->bs);
        root->klass->set_threads(root, use.in_force, false);
    }
}

static void check_roots_above(BlockDriverState *bs, GHashTable *seen)
{
    BdrvChild *edge;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    LIST_FOREACH(edge, &bs->parents, next_parent) {
        if (edge->klass->parent_is_bds) {
            check_roots_above(edge->opaque, seen);
        } else {
            check_root(edge);
        }
    }
}

void bdrv_threads_check_above(BlockDriverState *bs)
{
    if (block_graph()->threads_wished) {
        g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

        check_roots_above(bs, seen);
    }
}

void bdrv_threads_edge_changed(BdrvChild *child)
{
    BlockDriverState *bs = child->bs;

    if (!block_graph()->threads_wished) {
        return;
    }
    if (child->klass->parent_is_bds) {
        bdrv_threads_check_above(child->opaque);
    } else {
        check_root(child);
    }
    if (bs && bs->is_open) {
        bdrv_settle_context_later(bs);
    }
}

void bdrv_threads_bitmap_gone(BlockDriverState *bs)
{
    /* In another thread a job has an edge to undo yet, which leads here too. */
    if (block_graph()->threads_wished && bs->is_open && TAILQ_EMPTY(&bs->dirty_bitmaps) &&
        bdrv_in_main_thread()) {
        bdrv_settle_context_later(bs);
    }
}

/* --- how it should be --- */

/* node -> GPtrArray of the contexts of all direct parents above it */
static void plan_add(GHashTable *plan, gpointer node, const BdrvThreads *threads)
{
    GPtrArray *contexts = g_hash_table_lookup(plan, node);

    if (!contexts) {
        contexts = g_ptr_array_new();
        g_hash_table_insert(plan, node, contexts);
    }
    for (unsigned i = 0; i < threads->n; i++) {
        if (!g_ptr_array_find(contexts, threads->ctx[i], NULL)) {
            g_ptr_array_add(contexts, threads->ctx[i]);
        }
    }
}

/* True: the parent may be direct, and plan says what that takes. */
static bool plan_root(GHashTable *plan, BdrvChild *root, const BdrvThreads *wished)
{
    g_autoptr(GHashTable) below = wished ? reached_by(root) : NULL;
    GHashTableIter iter;
    gpointer node;

    if (!below) {
        return false;
    }
    g_hash_table_iter_init(&iter, below);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        plan_add(plan, node, wished);
    }
    return true;
}

static GHashTable *plan_new(void)
{
    return g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_ptr_array_unref);
}

static bool as_planned(const BlockDriverState *bs, const GPtrArray *contexts)
{
    unsigned n = contexts ? contexts->len : 0;

    if ((bs->threads ? bs->threads->n : 0) != n) {
        return false;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!bdrv_threads_have(bs->threads, contexts->pdata[i])) {
            return false;
        }
    }
    return true;
}

static bool is_as_wished(BdrvChild *root)
{
    g_autoptr(GHashTable) below = NULL;
    BdrvThreadsUse use;

    get_use(root, &use);
    if (use.wished != use.in_force) {
        return false;
    }
    below = use.wished ? reached_by(root) : NULL;
    return use.direct == (below != NULL);
}

bool bdrv_threads_arranged(GHashTable *graph)
{
    GHashTableIter iter;
    gpointer node;
    BdrvChild *edge;

    if (!block_graph()->threads_wished) {
        return true;
    }
    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        LIST_FOREACH(edge, &((BlockDriverState *)node)->parents, next_parent) {
            if (!is_as_wished(edge)) {
                return false;
            }
        }
    }
    return true;
}

/* --- arranging it --- */

static void give_threads(BlockDriverState *bs, const GPtrArray *contexts)
{
    BdrvThreads *threads = NULL;
    BdrvThreads *old = bs->threads;

    if (as_planned(bs, contexts)) {
        return;
    }
    g_assert(bdrv_is_quiesced(bs) && !__atomic_load_n(&bs->in_flight, __ATOMIC_SEQ_CST));
    if (contexts) {
        threads = g_malloc(sizeof(*threads) + contexts->len * sizeof(threads->ctx[0]));
        threads->n = contexts->len;
        for (unsigned i = 0; i < threads->n; i++) {
            threads->ctx[i] = contexts->pdata[i];
        }
    }
    __atomic_store_n(&bs->threads, threads, __ATOMIC_RELEASE);
    g_free(old);
}

/* Adds the threads that may be on their way to the parent's gate. */
static void note_threads(GPtrArray *contexts, const BdrvThreads *threads)
{
    for (unsigned i = 0; threads && i < threads->n; i++) {
        if (!g_ptr_array_find(contexts, threads->ctx[i], NULL)) {
            g_ptr_array_add(contexts, threads->ctx[i]);
        }
    }
}

GPtrArray *bdrv_threads_arrange(GHashTable *graph)
{
    GPtrArray *before = g_ptr_array_new();
    g_autoptr(GHashTable) plan = plan_new();
    GHashTableIter iter;
    gpointer node;
    BdrvChild *edge;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        LIST_FOREACH(edge, &((BlockDriverState *)node)->parents, next_parent) {
            BdrvThreadsUse use;

            get_use(edge, &use);
            if (use.wished || use.in_force) {
                note_threads(before, use.in_force);
                edge->klass->set_threads(edge, use.wished, plan_root(plan, edge, use.wished));
            }
        }
    }
    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        give_threads(node, g_hash_table_lookup(plan, node));
    }
    return before;
}

void coroutine_fn bdrv_co_threads_pass(GPtrArray *contexts)
{
    AioContext *from = qemu_get_current_aio_context();

    for (guint i = 0; i < contexts->len; i++) {
        aio_co_reschedule_self(contexts->pdata[i]);
    }
    aio_co_reschedule_self(from);
}

void bdrv_threads_passed(GPtrArray *nodes)
{
    BdrvChild *edge;

    for (guint i = 0; i < nodes->len; i++) {
        LIST_FOREACH(edge, &((BlockDriverState *)nodes->pdata[i])->parents, next_parent) {
            if (edge->klass->settle_threads) {
                edge->klass->settle_threads(edge);
            }
        }
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which event loop a graph is in: moving graphs between iothreads, sending them home, and visits of
 * coroutines from the main thread.
 *
 * All nodes that edges connect are in one context. It changes for all of them at once: in the main
 * thread, without a yield, while all are drained and no visit is under way. Users say through their
 * BlockBackends where they wish the graph to be; a graph that no user wishes anywhere belongs to the
 * main context. A node keeps its iothread from being deleted.
 */
#include "block/graph/graph.h"

#include "util/error.h"
#include "util/iothread.h"

/* --- visits --- */

AioContext *coroutine_fn bdrv_co_enter_graph(BlockDriverState *bs)
{
    AioContext *from = qemu_get_current_aio_context();

    g_assert(bdrv_in_main_thread() || bdrv_in_graph_thread(bs));
    bdrv_inc_in_flight(bs);
    aio_co_reschedule_self(bs->aio_context);
    return from;
}

void coroutine_fn bdrv_co_leave_graph(BlockDriverState *bs, AioContext *from)
{
    aio_co_reschedule_self(from);
    bdrv_dec_in_flight(bs);
}

/* --- what belongs together --- */

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

static GHashTable *connected_to(BlockDriverState *bs)
{
    GHashTable *seen = g_hash_table_new(NULL, NULL);

    collect_graph(bs, seen);
    return seen;
}

/* --- moving --- */

static bool parents_can_move(GHashTable *graph, AioContext *ctx, GError **errp)
{
    GHashTableIter iter;
    gpointer node;
    BdrvChild *child;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        LIST_FOREACH(child, &((BlockDriverState *)node)->parents, next_parent) {
            if (child->klass->can_set_aio_context &&
                !child->klass->can_set_aio_context(child, ctx, errp)) {
                return false;
            }
        }
    }
    return true;
}

static void hold_context(BlockDriverState *bs, AioContext *ctx)
{
    g_autofree char *user = g_strdup_printf("node '%s'", bs->node_name);

    iothread_hold(ctx, user);
}

void bdrv_release_context(BlockDriverState *bs)
{
    g_autofree char *user = g_strdup_printf("node '%s'", bs->node_name);

    iothread_release(bs->aio_context, user);
}

void bdrv_adopt_context(BlockDriverState *bs, AioContext *ctx)
{
    g_assert(!bs->is_open && LIST_EMPTY(&bs->parents) && LIST_EMPTY(&bs->children));
    hold_context(bs, ctx);
    bdrv_release_context(bs);
    bs->aio_context = ctx;
}

static void move_node(BlockDriverState *bs, AioContext *ctx)
{
    BdrvChild *child;

    g_assert(bdrv_is_quiesced(bs));
    if (bs->drv && bs->drv->bdrv_detach_aio_context) {
        bs->drv->bdrv_detach_aio_context(bs);
    }
    LIST_FOREACH(child, &bs->parents, next_parent) {
        if (child->klass->set_aio_context) {
            child->klass->set_aio_context(child, ctx);
        }
    }
    hold_context(bs, ctx);
    bdrv_release_context(bs);
    bs->aio_context = ctx;
    if (bs->drv && bs->drv->bdrv_attach_aio_context) {
        bs->drv->bdrv_attach_aio_context(bs, ctx);
    }
}

/* A node in the graph that is not among the drained ones yet, or NULL. */
static BlockDriverState *find_new(GHashTable *graph, GPtrArray *drained)
{
    GHashTableIter iter;
    gpointer node;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        if (!g_ptr_array_find(drained, node, NULL)) {
            return node;
        }
    }
    return NULL;
}

/* A node that a coroutine of the main thread visits, or NULL. */
static BlockDriverState *find_busy(GPtrArray *drained)
{
    for (guint i = 0; i < drained->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(drained, i);

        if (__atomic_load_n(&bs->in_flight, __ATOMIC_SEQ_CST)) {
            return bs;
        }
    }
    return NULL;
}

static bool any_closing(GHashTable *graph)
{
    GHashTableIter iter;
    gpointer node;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        if (((BlockDriverState *)node)->closing) {
            return true;
        }
    }
    return false;
}

/* A drained section of `node`, which is added to `drained`; or a wait if it is in there. */
static bool coroutine_fn co_drain_one(BlockDriverState *node, bool is_new, GPtrArray *drained,
                                      GError **errp)
{
    bool quiet;

    bdrv_ref(node);
    if (is_new) {
        quiet = bdrv_co_drained_begin_within(node, BDRV_DRAIN_COMMAND_NS, errp);
    } else {
        quiet = bdrv_co_await_visits(node, BDRV_DRAIN_COMMAND_NS, errp);
    }
    if (quiet && is_new) {
        g_ptr_array_add(drained, node); /* with the reference */
        return true;
    }
    bdrv_co_unref(node);
    return quiet;
}

/*
 * Drains all that is connected to bs. Each drain yields, and other coroutines may change edges or
 * visit nodes meanwhile. So it looks again until nothing is left to do. *graph is what is connected
 * at the end, and stays so until the caller yields.
 */
static bool coroutine_fn co_drain_graph(BlockDriverState *bs, GPtrArray *drained,
                                        GHashTable **graph, GError **errp)
{
    for (;;) {
        g_autoptr(GHashTable) found = connected_to(bs);
        BlockDriverState *new_bs, *todo;

        if (any_closing(found)) {
            /* It does its last I/O in the thread where it is. */
            qemu_co_queue_wait(&block_graph()->settled_queue, NULL);
            continue;
        }
        new_bs = find_new(found, drained);
        todo = new_bs ? new_bs : find_busy(drained);
        if (!todo) {
            *graph = g_steal_pointer(&found);
            return true;
        }
        if (!co_drain_one(todo, new_bs != NULL, drained, errp)) {
            return false;
        }
    }
}

static bool graph_can_be_in(BlockDriverState *bs, GHashTable *graph, AioContext *ctx, GError **errp)
{
    return bs->aio_context == ctx || parents_can_move(graph, ctx, errp);
}

static void move_graph(GHashTable *graph, AioContext *ctx)
{
    GHashTableIter iter;
    gpointer node;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        move_node(node, ctx);
    }
}

/* True when there was something to wait for. */
static bool coroutine_fn co_wait_passed(void)
{
    bool waited = block_graph()->passing;

    while (block_graph()->passing) {
        qemu_co_queue_wait(&block_graph()->settled_queue, NULL);
    }
    return waited;
}

/* All of the graph is drained, and stays so until every thread from before has been passed. */
static void coroutine_fn co_arrange_threads(GHashTable *graph, GPtrArray *drained)
{
    g_autoptr(GPtrArray) before = bdrv_threads_arrange(graph);

    block_graph()->passing = true;
    bdrv_co_threads_pass(before);
    block_graph()->passing = false;
    bdrv_threads_passed(drained);
    qemu_co_queue_restart_all(&block_graph()->settled_queue);
}

bool coroutine_fn bdrv_co_arrange(BlockDriverState *bs, AioContext *ctx, GError **errp)
{
    g_autoptr(GPtrArray) drained = NULL;
    g_autoptr(GHashTable) graph = NULL;
    bool ok;

    bdrv_assert_main_thread();
    graph = connected_to(bs);
    if (!graph_can_be_in(bs, graph, ctx, errp)) {
        return false; /* before anything is held up for it */
    }
    drained = g_ptr_array_new();
    do {
        g_clear_pointer(&graph, g_hash_table_unref);
        ok = co_drain_graph(bs, drained, &graph, errp);
    } while (ok && co_wait_passed());
    ok = ok && graph_can_be_in(bs, graph, ctx, errp);
    if (ok && bs->aio_context != ctx) {
        move_graph(graph, ctx);
    }
    if (ok && block_graph()->threads_wished) {
        co_arrange_threads(graph, drained);
    }
    for (guint i = 0; i < drained->len; i++) {
        bdrv_co_drained_end(g_ptr_array_index(drained, i));
        bdrv_co_unref(g_ptr_array_index(drained, i));
    }
    return ok;
}

bool coroutine_fn bdrv_co_set_aio_context(BlockDriverState *bs, AioContext *ctx, GError **errp)
{
    bdrv_assert_main_thread();
    return bs->aio_context == ctx || bdrv_co_arrange(bs, ctx, errp);
}

bool coroutine_fn bdrv_co_join_contexts(BlockDriverState *bs, BlockDriverState *other,
                                        GError **errp)
{
    g_autoptr(GError) refusal = NULL;

    if (bdrv_co_set_aio_context(other, bs->aio_context, &refusal) ||
        bdrv_co_set_aio_context(bs, other->aio_context, NULL)) {
        return true;
    }
    g_propagate_error(errp, g_steal_pointer(&refusal));
    return false;
}

/* --- going home --- */

static AioContext *wished_context(GHashTable *graph, AioContext *now)
{
    AioContext *wish = NULL;
    GHashTableIter iter;
    gpointer node;
    BdrvChild *child;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        LIST_FOREACH(child, &((BlockDriverState *)node)->parents, next_parent) {
            AioContext *ctx =
                child->klass->get_wished_context ? child->klass->get_wished_context(child) : NULL;

            if (ctx == now) {
                return now;
            }
            wish = wish ? wish : ctx;
        }
    }
    return wish ? wish : qemu_get_aio_context();
}

/* A node of the graph in a drained section, or NULL. */
static BlockDriverState *find_quiesced(GHashTable *graph)
{
    GHashTableIter iter;
    gpointer node;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        if (bdrv_is_quiesced(node)) {
            return node;
        }
    }
    return NULL;
}

void coroutine_fn bdrv_co_settle_context(BlockDriverState *bs)
{
    g_autoptr(GHashTable) graph = NULL;
    BlockDriverState *quiesced;
    AioContext *ctx;

    bdrv_assert_main_thread();
    if (bs->closing) {
        return;
    }
    graph = connected_to(bs);
    ctx = wished_context(graph, bs->aio_context);
    if (ctx == bs->aio_context && bdrv_threads_arranged(graph)) {
        return;
    }
    quiesced = find_quiesced(graph);
    if (quiesced) {
        /* A command is at work there, and may be about to connect the graph to another one. */
        __atomic_store_n(&quiesced->context_unsettled, true, __ATOMIC_SEQ_CST);
        if (bdrv_is_quiesced(quiesced)) {
            return;
        }
        __atomic_store_n(&quiesced->context_unsettled, false, __ATOMIC_SEQ_CST);
    }
    /* Users that refuse, jobs for example, are looked at again when they leave. */
    (void)bdrv_co_arrange(bs, ctx, NULL);
}

static bool any_settling(BlockDriverState *bs)
{
    g_autoptr(GHashTable) graph = connected_to(bs);
    GHashTableIter iter;
    gpointer node;

    g_hash_table_iter_init(&iter, graph);
    while (g_hash_table_iter_next(&iter, &node, NULL)) {
        if (((BlockDriverState *)node)->settling) {
            return true;
        }
    }
    return false;
}

void coroutine_fn bdrv_co_settle_context_in_turn(BlockDriverState *bs)
{
    while (any_settling(bs)) {
        qemu_co_queue_wait(&block_graph()->settled_queue, NULL);
    }
    bdrv_co_settle_context(bs);
}

static void settled(BlockDriverState *bs)
{
    if (--bs->settling == 0) {
        qemu_co_queue_restart_all(&block_graph()->settled_queue);
    }
}

static void coroutine_fn settle_co_entry(void *opaque)
{
    BlockDriverState *bs = opaque;

    bdrv_co_settle_context(bs);
    settled(bs);
    bdrv_co_unref(bs);
    if (--block_graph()->settling == 0) {
        qemu_co_queue_restart_all(&block_graph()->closing_queue);
    }
}

static void settle_bh(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(settle_co_entry, opaque));
}

void bdrv_settle_context_later(BlockDriverState *bs)
{
    bdrv_assert_main_thread();
    if (bs->closing) {
        return;
    }
    if (bs->aio_context == qemu_get_aio_context()) {
        g_autoptr(GHashTable) graph = block_graph()->threads_wished ? connected_to(bs) : NULL;

        if (!graph || bdrv_threads_arranged(graph)) {
            return;
        }
    }
    bdrv_ref(bs);
    bs->settling++;
    block_graph()->settling++;
    aio_bh_schedule_oneshot(qemu_get_aio_context(), settle_bh, bs);
}

static void look_again_bh(void *opaque)
{
    BlockDriverState *bs;

    (void)opaque;
    TAILQ_FOREACH(bs, &block_graph()->nodes, all_nodes) {
        if (!bdrv_is_quiesced(bs) &&
            __atomic_exchange_n(&bs->context_unsettled, false, __ATOMIC_SEQ_CST)) {
            bdrv_settle_context_later(bs);
        }
    }
}

void bdrv_context_drained_end(BlockDriverState *bs)
{
    if (__atomic_load_n(&bs->context_unsettled, __ATOMIC_SEQ_CST)) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), look_again_bh, NULL);
    }
}

void coroutine_fn bdrv_co_wait_settled(const char *node_name)
{
    BlockDriverState *bs;

    while ((bs = bdrv_find_node(node_name)) && bs->settling) {
        qemu_co_queue_wait(&block_graph()->settled_queue, NULL);
    }
}

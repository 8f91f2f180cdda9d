/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The contexts of a BlockBackend: where its user wishes to be served, in which threads it sends
 * requests, and coroutines that start there.
 *
 * A wish changes at once, and then the graph follows (graph/context.c); changes of one backend's wish
 * come one after the other. What is in force (blk->threads) is the wish of an arranged graph. A wish
 * that was in force and is taken back goes to `past`, with its hold of the iothreads. There it stays
 * until all its threads have been passed through: then no coroutine is on its way to the gate in one
 * of them.
 */
#include "block/backend-int.h"

#include "util/error.h"
#include "util/iothread.h"

AioContext *blk_get_aio_context(const BlockBackend *blk)
{
    return __atomic_load_n(&blk->ctx, __ATOMIC_ACQUIRE);
}

void blk_set_context(BlockBackend *blk, AioContext *ctx)
{
    __atomic_store_n(&blk->ctx, ctx, __ATOMIC_RELEASE);
    if (blk->dev_ops && blk->dev_ops->set_aio_context) {
        blk->dev_ops->set_aio_context(blk->dev_opaque, ctx);
    }
}

/* --- wishes --- */

/* NULL for one context; each counts once. */
static BdrvThreads *threads_new(AioContext *const *ctxs, unsigned n)
{
    BdrvThreads *threads = g_malloc(sizeof(*threads) + n * sizeof(threads->ctx[0]));

    threads->n = 0;
    for (unsigned i = 0; i < n; i++) {
        if (!bdrv_threads_have(threads, ctxs[i])) {
            threads->ctx[threads->n++] = ctxs[i];
        }
    }
    if (threads->n == 1) {
        g_clear_pointer(&threads, g_free);
    }
    return threads;
}

static Wish wish_new(BlockBackend *blk, AioContext *const *ctxs, unsigned n, bool fixed)
{
    Wish wish = {
        .ctx = ctxs[0],
        .threads = threads_new(ctxs, n),
        .holder = blk_describe(blk),
        .fixed = fixed,
    };

    iothread_hold(wish.ctx, wish.holder);
    for (unsigned i = 1; wish.threads && i < wish.threads->n; i++) {
        iothread_hold(wish.threads->ctx[i], wish.holder);
    }
    block_graph()->threads_wished |= wish.threads != NULL;
    return wish;
}

static void wish_drop(Wish *wish)
{
    if (wish->ctx) {
        iothread_release(wish->ctx, wish->holder);
    }
    for (unsigned i = 1; wish->threads && i < wish->threads->n; i++) {
        iothread_release(wish->threads->ctx[i], wish->holder);
    }
    g_free(wish->threads);
    g_free(wish->holder);
    *wish = (Wish){.ctx = NULL};
}

static void wish_retire(BlockBackend *blk, Wish *wish)
{
    if (wish->was_in_force) {
        g_array_append_val(blk->past, *wish);
        *wish = (Wish){.ctx = NULL};
    } else {
        wish_drop(wish);
    }
}

/*
 * What the past wishes were is looked at no more, but for the one that still is in force. While
 * threads are passed through, that is not sure: the end of it comes here again.
 */
static void forget_past(BlockBackend *blk)
{
    if (block_graph()->passing) {
        return;
    }
    for (guint i = blk->past->len; i-- > 0;) {
        Wish *wish = &g_array_index(blk->past, Wish, i);

        if (wish->threads != blk->threads) {
            wish_drop(wish);
            g_array_remove_index_fast(blk->past, i);
        }
    }
}

void blk_binding_init(BlockBackend *blk)
{
    qemu_co_mutex_init(&blk->binding);
    blk->past = g_array_new(false, false, sizeof(Wish));
}

void blk_binding_destroy(BlockBackend *blk)
{
    /* The last reference is gone, and coroutines on their way had one. */
    for (guint i = 0; i < blk->past->len; i++) {
        wish_drop(&g_array_index(blk->past, Wish, i));
    }
    g_array_free(blk->past, true);
    wish_drop(&blk->wish);
    qemu_co_mutex_destroy(&blk->binding);
}

/* --- what is in force --- */

void blk_root_get_threads(BdrvChild *child, BdrvThreadsUse *use)
{
    BlockBackend *blk = child->opaque;

    *use = (BdrvThreadsUse){
        .wished = blk->wish.threads, .in_force = blk->threads, .direct = blk->direct};
}

static void put_in_force(BlockBackend *blk, const BdrvThreads *threads, bool direct)
{
    if (threads && threads == blk->wish.threads) {
        blk->wish.was_in_force = true;
    }
    __atomic_store_n(&blk->threads, (BdrvThreads *)threads, __ATOMIC_RELEASE);
    blk->direct = direct;
}

void blk_root_set_threads(BdrvChild *child, const BdrvThreads *in_force, bool direct)
{
    put_in_force(child->opaque, in_force, direct);
}

void blk_root_settle_threads(BdrvChild *child)
{
    forget_past(child->opaque);
}

/* Without a node there are no requests but those that find no medium. */
static void coroutine_fn co_follow_alone(BlockBackend *blk, AioContext *ctx)
{
    AioContext *from = qemu_get_current_aio_context();
    const BdrvThreads *before = blk->threads;

    blk_set_context(blk, ctx);
    put_in_force(blk, blk->wish.threads, false);
    /* No other coroutine frees it: that takes a node, or this backend's lock. */
    for (unsigned i = 0; before && i < before->n; i++) {
        aio_co_reschedule_self(before->ctx[i]);
    }
    aio_co_reschedule_self(from);
    forget_past(blk);
}

/* The graph goes to the wished context, and what the wish says of threads comes into force. */
static bool coroutine_fn co_follow(BlockBackend *blk, GError **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    AioContext *ctx = blk->wish.ctx;
    bool ok;

    if (!bs) {
        co_follow_alone(blk, ctx);
        return true;
    }
    if (bdrv_get_aio_context(bs) == ctx && !blk->wish.threads && !blk->threads) {
        return true;
    }
    bdrv_ref(bs);
    ok = bdrv_co_arrange(bs, ctx, errp);
    bdrv_co_unref(bs);
    if (ok && !blk_bs(blk)) {
        co_follow_alone(blk, ctx); /* the medium was taken out meanwhile */
    }
    return ok;
}

/* --- binding --- */

bool coroutine_fn blk_co_bind_contexts(BlockBackend *blk, AioContext *const *ctxs, unsigned n,
                                       bool fixed, GError **errp)
{
    Wish old;
    bool ok;

    bdrv_assert_main_thread();
    qemu_co_mutex_lock(&blk->binding);
    old = blk->wish;
    /* Before the move, which yields: the threads stay, and no other user moves the graph away. */
    blk->wish = wish_new(blk, ctxs, n, fixed);
    if (blk->wish.threads) {
        block_acct_share(&blk->stats);
    }
    ok = co_follow(blk, errp);
    if (!ok) {
        g_autofree char *there = iothread_describe_context(ctxs[0]);
        Wish refused = blk->wish;

        g_prefix_error(errp, "Cannot serve %s in %s: ", refused.holder, there);
        blk->wish = old;
        old = refused;
    }
    wish_retire(blk, &old);
    if (!ok && blk_bs(blk)) {
        bdrv_settle_context_later(blk_bs(blk)); /* another coroutine may have followed it */
    } else if (blk->threads == blk->wish.threads) {
        forget_past(blk);
    }
    qemu_co_mutex_unlock(&blk->binding);
    return ok;
}

bool coroutine_fn blk_co_bind_context(BlockBackend *blk, AioContext *ctx, bool fixed, GError **errp)
{
    return blk_co_bind_contexts(blk, &ctx, 1, fixed, errp);
}

void coroutine_fn blk_co_unbind_context(BlockBackend *blk)
{
    BlockDriverState *bs;

    bdrv_assert_main_thread();
    qemu_co_mutex_lock(&blk->binding);
    wish_retire(blk, &blk->wish);
    bs = blk_bs(blk);
    if (bs) {
        bdrv_ref(bs);
        bdrv_co_settle_context_in_turn(bs);
        bdrv_co_unref(bs);
    }
    if (!blk_bs(blk)) {
        co_follow_alone(blk, qemu_get_aio_context());
    }
    qemu_co_mutex_unlock(&blk->binding);
}

bool coroutine_fn blk_co_insert_bs(BlockBackend *blk, BlockDriverState *bs, GError **errp)
{
    bool ok;

    bdrv_ref(bs);
    qemu_co_mutex_lock(&blk->binding);
    ok = !blk->wish.ctx ||
         bdrv_co_set_aio_context(bs, blk->wish.ctx, blk->wish.fixed ? errp : NULL) ||
         !blk->wish.fixed;
    ok = ok && blk_insert_bs(blk, bs, errp);
    if (ok && blk->wish.threads) {
        bdrv_co_settle_context_in_turn(bs);
    }
    qemu_co_mutex_unlock(&blk->binding);
    if (!ok) {
        bdrv_settle_context_later(bs);
    }
    bdrv_co_unref(bs);
    return ok;
}

/* --- coroutines that start there --- */

typedef struct Spawned {
    BlockBackend *blk;  /* referenced */
    AioContext *wanted; /* NULL: the backend's context */
    CoroutineEntry *entry;
    void *opaque;
} Spawned;

static void coroutine_fn spawned_co_entry(void *opaque)
{
    Spawned s = *(Spawned *)opaque;
    AioContext *place;

    g_free(opaque);
    /*
     * The backend may have moved since. It cannot from here to the first request's gate: that needs
     * a drained section, which begins in this thread, or passes through it before it ends.
     */
    while ((place = blk_context_for(s.blk, s.wanted)) != qemu_get_current_aio_context()) {
        aio_co_reschedule_self(place);
    }
    s.entry(s.opaque);
    blk_unref(s.blk);
}

void blk_co_spawn_in(BlockBackend *blk, AioContext *ctx, CoroutineEntry *entry, void *opaque)
{
    Spawned *s = g_new(Spawned, 1);

    bdrv_assert_main_thread();
    *s = (Spawned){.blk = blk, .wanted = ctx, .entry = entry, .opaque = opaque};
    blk_ref(blk);
    aio_co_schedule(blk_context_for(blk, ctx), qemu_coroutine_create(spawned_co_entry, s));
}

void blk_co_spawn(BlockBackend *blk, CoroutineEntry *entry, void *opaque)
{
    blk_co_spawn_in(blk, NULL, entry, opaque);
}

bool blk_is_direct(const BlockBackend *blk)
{
    bdrv_assert_main_thread();
    return blk->direct;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The context of a BlockBackend: where its user wishes to be served, and coroutines that start there.
 */
#include "block/backend-int.h"

#include "block/graph/graph.h"
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

static void wish_drop(Wish *wish)
{
    if (wish->ctx) {
        iothread_release(wish->ctx, wish->holder);
    }
    g_free(wish->holder);
    *wish = (Wish){.ctx = NULL};
}

void blk_drop_wish(BlockBackend *blk)
{
    wish_drop(&blk->wish);
}

static void take_wish(BlockBackend *blk, const Wish *wish)
{
    blk->wish = *wish;
    if (wish->ctx) {
        iothread_hold(wish->ctx, wish->holder);
    }
}

bool coroutine_fn blk_co_bind_context(BlockBackend *blk, AioContext *ctx, bool fixed, GError **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    Wish old = blk->wish;

    bdrv_assert_main_thread();
    /* Before the move, which yields: from now on both threads stay. */
    take_wish(blk, &(Wish){.ctx = ctx, .holder = blk_describe(blk)});
    if (bs && !bdrv_co_set_aio_context(bs, ctx, errp)) {
        g_autofree char *there = iothread_describe_context(ctx);

        g_prefix_error(errp, "Cannot serve %s in %s: ", blk->wish.holder, there);
        wish_drop(&blk->wish);
        blk->wish = old;
        return false;
    }
    wish_drop(&old);
    if (!bs) {
        blk_set_context(blk, ctx);
    }
    blk->wish.fixed = fixed;
    return true;
}

void coroutine_fn blk_co_unbind_context(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    bdrv_assert_main_thread();
    wish_drop(&blk->wish);
    if (bs) {
        bdrv_ref(bs);
        bdrv_co_settle_context(bs);
        bdrv_co_unref(bs);
    } else {
        blk_set_context(blk, qemu_get_aio_context());
    }
}

typedef struct Spawned {
    BlockBackend *blk; /* referenced */
    CoroutineEntry *entry;
    void *opaque;
} Spawned;

static void coroutine_fn spawned_co_entry(void *opaque)
{
    Spawned s = *(Spawned *)opaque;

    g_free(opaque);
    /*
     * The backend may have moved since. It cannot from here to the first request's gate: that needs
     * a drained section, which begins in this thread.
     */
    while (blk_get_aio_context(s.blk) != qemu_get_current_aio_context()) {
        aio_co_reschedule_self(blk_get_aio_context(s.blk));
    }
    s.entry(s.opaque);
    blk_unref(s.blk);
}

void blk_co_spawn(BlockBackend *blk, CoroutineEntry *entry, void *opaque)
{
    Spawned *s = g_new(Spawned, 1);

    bdrv_assert_main_thread();
    *s = (Spawned){.blk = blk, .entry = entry, .opaque = opaque};
    blk_ref(blk);
    aio_co_schedule(blk_get_aio_context(blk), qemu_coroutine_create(spawned_co_entry, s));
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutines and event loops: scheduling, waking and moving between contexts. */
#include <glib.h>
#include "util/aio-int.h"
#include "util/coroutine-int.h"

static void co_run(AioPost *post)
{
    Coroutine *co = (Coroutine *)((char *)post - offsetof(Coroutine, post));

    if (G_UNLIKELY(coroutine_running(co))) {
        /* Still on its way to the yield in another thread: look again next turn. */
        aio_context_post(qemu_get_current_aio_context(), post);
        return;
    }
    __atomic_store_n(&co->scheduled, false, __ATOMIC_RELEASE);
    qemu_coroutine_enter(co);
}

void aio_co_schedule(AioContext *ctx, Coroutine *co)
{
    bool scheduled = __atomic_exchange_n(&co->scheduled, true, __ATOMIC_ACQ_REL);

    g_assert(!scheduled);
    co->post.run = co_run;
    aio_context_post(ctx, &co->post);
}

void aio_co_wake(Coroutine *co)
{
    AioContext *ctx = qemu_coroutine_get_aio_context(co);

    g_assert(ctx); /* it was entered in a thread that runs no event loop */
    aio_co_schedule(ctx, co);
    if (aio_context_in_own_thread(ctx)) {
        ctx->handed_over = true;
    }
}

void coroutine_fn aio_co_reschedule_self(AioContext *ctx)
{
    if (ctx != qemu_get_current_aio_context()) {
        /* Not scheduled from here: ctx's thread could only spin until this one has yielded. */
        qemu_coroutine_self()->move_to = ctx;
        qemu_coroutine_yield();
    }
}

AioContext *qemu_coroutine_get_aio_context(Coroutine *co)
{
    return __atomic_load_n(&co->ctx, __ATOMIC_RELAXED);
}

void coroutine_fn qemu_co_yield_to_loop(void)
{
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
}

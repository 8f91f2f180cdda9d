/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gate of a BlockBackend, which every request passes.
 *
 * While the backend's node is in a drained section (quiesce > 0) new requests wait in `queued`;
 * in_flight counts those that have passed. A request is counted before it looks at the gate and
 * uncounted while it waits; a section closes the gate before it looks at the count. So a drain never
 * misses one, in whichever thread it is. The end of the section counts each waiter before it wakes
 * it: another section, or a move to a further context, waits until it has run. A waiter holds a
 * reference to the backend.
 *
 * Threads. A waiter goes on in the thread that it came from if the backend is bound to that one, else
 * in the graph's, as it is by then. What has passed in another thread than the graph's goes down the
 * graph there (`direct`), or visits the graph's thread and comes back. All of that is constant while
 * the request is counted.
 */
#include "block/backend-int.h"

void blk_inc_in_flight(BlockBackend *blk)
{
    __atomic_fetch_add(&blk->in_flight, 1, __ATOMIC_SEQ_CST);
}

void blk_dec_in_flight(BlockBackend *blk)
{
    if (__atomic_sub_fetch(&blk->in_flight, 1, __ATOMIC_SEQ_CST) == 0) {
        bdrv_drain_kick();
    }
}

bool blk_in_drain(const BlockBackend *blk)
{
    return __atomic_load_n(&blk->quiesce, __ATOMIC_SEQ_CST) > 0;
}

AioContext *blk_context_for(const BlockBackend *blk, AioContext *wanted)
{
    const BdrvThreads *threads = __atomic_load_n(&blk->threads, __ATOMIC_ACQUIRE);

    return bdrv_threads_have(threads, wanted) ? wanted : blk_get_aio_context(blk);
}

void blk_gate_open(BlockBackend *blk)
{
    GateWaiter *waiter;

    pthread_mutex_lock(&blk->gate);
    while ((waiter = TAILQ_FIRST(&blk->queued))) {
        TAILQ_REMOVE(&blk->queued, waiter, next);
        blk_inc_in_flight(blk);
        aio_co_schedule(blk_context_for(blk, waiter->ctx), waiter->co);
    }
    pthread_mutex_unlock(&blk->gate);
}

/* Returns counted again, once the gate has been opened. */
static void coroutine_fn gate_co_wait(BlockBackend *blk, GatePass *pass)
{
    GateWaiter self = {.co = qemu_coroutine_self(), .ctx = qemu_get_current_aio_context()};

    if (!pass->held) {
        blk_ref(blk);
        pass->held = true;
    }
    pthread_mutex_lock(&blk->gate);
    if (!blk_in_drain(blk)) {
        pthread_mutex_unlock(&blk->gate);
        return;
    }
    TAILQ_INSERT_TAIL(&blk->queued, &self, next);
    pthread_mutex_unlock(&blk->gate);
    blk_dec_in_flight(blk);
    qemu_coroutine_yield(); /* until blk_gate_open(), which counts it again */
}

static void coroutine_fn gate_co_forward(BlockBackend *blk, GatePass *pass)
{
    AioContext *self = qemu_get_current_aio_context();

    g_assert(bdrv_threads_have(blk->threads, self));
    if (!blk->direct) {
        pass->from = self;
        aio_co_reschedule_self(blk_get_aio_context(blk));
    }
}

void coroutine_fn blk_co_gate_pass(BlockBackend *blk, GatePass *pass)
{
    *pass = (GatePass){.held = false};
    blk_inc_in_flight(blk);
    while (blk_in_drain(blk) && !blk->disable_request_queuing) {
        gate_co_wait(blk, pass);
    }
    if (!aio_context_in_own_thread(blk_get_aio_context(blk))) {
        gate_co_forward(blk, pass);
    }
}

void coroutine_fn blk_co_gate_leave(BlockBackend *blk, const GatePass *pass)
{
    if (pass->from) {
        aio_co_reschedule_self(pass->from); /* counted: it stays bound until it is there */
    }
    blk_dec_in_flight(blk);
    if (pass->held) {
        blk_unref(blk);
    }
}

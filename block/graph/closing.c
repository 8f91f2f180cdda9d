/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waits for nodes on their way out. Such a node may still write to what is below it and holds it, but has
 * no user that could let go of it. The filter of a job that has just ended is one.
 */
#include "block/graph/graph.h"

#include "util/timer.h"

BlockDriverState *bdrv_closing_parent(const BlockDriverState *bs)
{
    BdrvChild *edge;

    LIST_FOREACH(edge, &bs->parents, next_parent) {
        BlockDriverState *parent = edge->klass->parent_is_bds ? edge->opaque : NULL;

        if (parent && parent->closing) {
            return parent;
        }
    }
    return NULL;
}

static void closing_expired(void *opaque)
{
    BdrvClosingWait *wait = opaque;

    wait->expired = true;
    qemu_co_queue_restart_all(&block_graph()->settled_queue);
}

bool coroutine_fn bdrv_co_closing_wait(BdrvClosingWait *wait)
{
    bdrv_assert_main_thread();
    if (wait->expired) {
        return false;
    }
    if (!wait->timer) {
        wait->timer =
            aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, closing_expired, wait);
        timer_mod_ns(wait->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + BDRV_DRAIN_COMMAND_NS);
    }
    qemu_co_queue_wait(&block_graph()->settled_queue, NULL);
    return true;
}

void bdrv_closing_wait_end(BdrvClosingWait *wait)
{
    timer_free(wait->timer);
}

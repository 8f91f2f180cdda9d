/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Gives up the connections of nodes whose servers have fallen silent. */
#include "block/give-up.h"

#include "block/graph.h"
#include "util/error.h"

/* Looks within a limit: a node is given up at most one such part late. */
#define GIVE_UP_LOOKS 10

/* Main thread. */
static struct {
    QEMUTimer *timer;
    int64_t limit_ns;
} watch;

/*
 * In the graph's thread, where nothing but the end of the node's closing takes its driver away;
 * closing in turn waits until graph->giving_up is 0 before it frees the node.
 */
static void coroutine_fn give_up_co_entry(void *opaque)
{
    BlockDriverState *bs = opaque;
    BlockGraph *graph = block_graph();

    while (bs->aio_context != qemu_get_current_aio_context()) {
        aio_co_reschedule_self(bs->aio_context);
    }
    if (bs->drv) {
        g_autofree char *what = bdrv_describe_in_flight(bs);

        error_report("node '%s' is given up: its server has not answered for %" PRId64 " s; what "
                     "was not flushed may be lost. It waited for: %s",
                     bs->node_name, (int64_t)(bs->silence.limit_ns / NANOSECONDS_PER_SECOND),
                     what[0] ? what : "nothing known");
        if (bs->drv->bdrv_refuse_requests) {
            bs->drv->bdrv_refuse_requests(bs, true);
        }
        bs->drv->bdrv_cancel_in_flight(bs);
    }
    if (qemu_get_current_aio_context() != qemu_get_aio_context()) {
        aio_co_reschedule_self(qemu_get_aio_context());
    }
    if (--graph->giving_up == 0) {
        qemu_co_queue_restart_all(&graph->closing_queue);
    }
}

static void look_at(BlockDriverState *bs, int64_t now)
{
    uint64_t finished = __atomic_load_n(&bs->finished, __ATOMIC_RELAXED);

    if (!__atomic_load_n(&bs->in_flight, __ATOMIC_RELAXED) || !bs->silence.since_ns ||
        finished != bs->silence.finished) {
        bs->silence.since_ns = now;
        bs->silence.finished = finished;
    } else if (!bs->silence.given_up && now - bs->silence.since_ns >= watch.limit_ns) {
        bs->silence.given_up = true;
        bs->silence.limit_ns = watch.limit_ns;
        block_graph()->giving_up++;
        qemu_coroutine_enter(qemu_coroutine_create(give_up_co_entry, bs));
    }
}

static void look(void *opaque)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    BlockDriverState *bs;

    /* First the list, then the work: whoever was waiting may close nodes. */
    TAILQ_FOREACH(bs, &block_graph()->nodes, all_nodes) {
        const BlockDriver *drv = bs->drv;

        if (drv && bs->is_open && drv->bdrv_cancel_in_flight) {
            g_ptr_array_add(all, bs);
        }
    }
    block_graph()->giving_up++;
    for (guint i = 0; i < all->len; i++) {
        look_at(g_ptr_array_index(all, i), now);
    }
    if (--block_graph()->giving_up == 0) {
        qemu_co_queue_restart_all(&block_graph()->closing_queue);
    }
    timer_mod_ns(watch.timer, now + watch.limit_ns / GIVE_UP_LOOKS);
}

void bdrv_give_up_watch_begin(int64_t limit_ns)
{
    g_assert(!watch.timer);
    watch.limit_ns = limit_ns;
    watch.timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, look, NULL);
    look(NULL);
}

void bdrv_give_up_watch_end(void)
{
    g_clear_pointer(&watch.timer, timer_free);
}

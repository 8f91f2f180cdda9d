/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Gives up the connections of nodes whose servers have fallen silent, or that are being opened. */
#include "block/graph/give-up.h"

#include <errno.h>
#include "block/graph/graph.h"
#include "util/error.h"

/* Looks within a limit: a node is given up at most one such part late. */
#define GIVE_UP_LOOKS 10
/* Of the limit, after which a server is asked whether it lives: it has the rest to answer. */
#define GIVE_UP_PROBE_PART 2
/* Between two attempts to end what is being opened. */
#define ABANDON_RETRY_NS (50 * SCALE_MS)

/* Main thread. */
static struct {
    QEMUTimer *timer;
    int64_t limit_ns;
    bool on; /* atomic: nodes look at it in their threads */
} watch;

/*
 * In the graph's thread. Only the end of the node's closing takes its driver away there, and
 * closing waits until graph->giving_up is 0 before it frees the node.
 */
static void coroutine_fn give_up_co_entry(void *opaque)
{
    BlockDriverState *bs = opaque;
    BlockGraph *graph = block_graph();
    AioContext *from = bdrv_co_enter_graph(bs);

    if (bs->drv) {
        g_autofree char *what = bdrv_describe_in_flight(bs);

        error_report("node '%s' is given up: its server has not answered for %" PRId64 " s; what "
                     "was not flushed may be lost. It waited for: %s",
                     bs->node_name, (int64_t)(bs->silence.limit_ns / NANOSECONDS_PER_SECOND),
                     what[0] ? what : "nothing known");
        if (BDRV_OP(bs->drv, protocol, bdrv_refuse_requests)) {
            bs->drv->protocol->bdrv_refuse_requests(bs, true);
        }
        bs->drv->protocol->bdrv_cancel_in_flight(bs);
    }
    bdrv_co_leave_graph(bs, from);
    if (--graph->giving_up == 0) {
        qemu_co_queue_restart_all(&graph->closing_queue);
    }
}

/* One block, asked for beside whatever else the node waits for. */
static int coroutine_fn probe_co_read(BlockDriverState *bs)
{
    int64_t bytes = bs->bl.request_alignment;
    QEMUIOVector qiov;
    void *buf;
    int ret = -ENOTSUP;

    if (bs->total_bytes < bytes || !bs->drv->bdrv_co_preadv) {
        return ret;
    }
    buf = qemu_try_blockalign(bs, bytes);
    if (buf) {
        qemu_iovec_init_buf(&qiov, buf, bytes);
        bdrv_inc_in_flight(bs);
        ret = bs->drv->bdrv_co_preadv(bs, 0, bytes, &qiov, 0, 0);
        bdrv_dec_in_flight(bs);
    }
    qemu_vfree(buf);
    return ret;
}

/* As give_up_co_entry(). An answer counts as progress, so that the node is waited for. */
static void coroutine_fn probe_co_entry(void *opaque)
{
    BlockDriverState *bs = opaque;
    BlockGraph *graph = block_graph();
    AioContext *from = bdrv_co_enter_graph(bs);

    if (bs->drv && probe_co_read(bs) >= 0 && !bs->silence.told) {
        g_autofree char *what = bdrv_describe_in_flight(bs);

        bs->silence.told = true;
        if (what[0]) {
            warn_report("node '%s' is waited for: its server is alive, but has not finished: %s",
                        bs->node_name, what);
        }
    }
    bdrv_co_leave_graph(bs, from);
    bs->silence.probing = false;
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
    } else if (!bs->silence.given_up && !bs->silence.probing &&
               now - bs->silence.since_ns >= watch.limit_ns / GIVE_UP_PROBE_PART) {
        bs->silence.probing = true;
        block_graph()->giving_up++;
        qemu_coroutine_enter(qemu_coroutine_create(probe_co_entry, bs));
    }
}

static void look(void *opaque)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    BlockDriverState *bs;

    /* First the list, then the work: a coroutine that was waiting may close nodes. */
    TAILQ_FOREACH(bs, &block_graph()->nodes, all_nodes) {
        const BlockDriver *drv = bs->drv;

        if (drv && bs->is_open && BDRV_OP(drv, protocol, bdrv_cancel_in_flight)) {
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
    __atomic_store_n(&watch.on, true, __ATOMIC_RELAXED);
    watch.timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, look, NULL);
    look(NULL);
}

void bdrv_give_up_watch_end(void)
{
    __atomic_store_n(&watch.on, false, __ATOMIC_RELAXED);
    g_clear_pointer(&watch.timer, timer_free);
}

bool bdrv_give_up_is_watched(void)
{
    return __atomic_load_n(&watch.on, __ATOMIC_RELAXED);
}

/* --- what is being opened --- */

/* Only a node that is being opened uses it. */
static bool used_by_opening_only(BlockDriverState *bs)
{
    BdrvChild *parent;

    if (!bs->is_open) {
        return true;
    }
    if (bs->monitor_owned || LIST_EMPTY(&bs->parents)) {
        return false;
    }
    LIST_FOREACH(parent, &bs->parents, next_parent) {
        if (!parent->klass->parent_is_bds || !used_by_opening_only(parent->opaque)) {
            return false;
        }
    }
    return true;
}

static void abandon(BlockDriverState *bs)
{
    if (!bs->silence.given_up && BDRV_OP(bs->drv, protocol, bdrv_refuse_requests)) {
        bs->drv->protocol->bdrv_refuse_requests(bs, true);
    }
    bs->silence.given_up = true;
    bs->drv->protocol->bdrv_cancel_in_flight(bs);
}

void coroutine_fn bdrv_co_abandon_opening(int64_t limit_ns)
{
    BlockGraph *graph = block_graph();
    int64_t end = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + limit_ns;
    BlockDriverState *bs;

    graph->no_opening = true;
    while (graph->opening) {
        TAILQ_FOREACH(bs, &graph->nodes, all_nodes) {
            if (bs->drv && bs->opaque && BDRV_OP(bs->drv, protocol, bdrv_cancel_in_flight) &&
                !bs->closing && bs->aio_context == qemu_get_aio_context() &&
                used_by_opening_only(bs)) {
                abandon(bs);
            }
        }
        if (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) >= end) {
            error_report("not waiting any longer for nodes that are still being opened");
            return;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, ABANDON_RETRY_NS);
    }
}

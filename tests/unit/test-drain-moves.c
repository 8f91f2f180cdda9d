/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A node stays in its context, and open, while a drained section begins or ends or a query visits it.
 * It is inactivated or deleted when what is on its way out above it has gone. The node's thread is
 * held up, so that what is on its way there stays on its way for as long as a test wishes.
 */
#include <errno.h>
#include <glib.h>
#include <semaphore.h>

#include "tests/unit/block-fixture.h"
#include "block/graph/activate.h"
#include "block/graph/graph.h"
#include "qapi/qapi-commands.h"
#include "util/iothread.h"

/* Round trips to a thread: more than a move that waits for nothing takes to be over. */
#define PASSES 8

/* --- a thread that is held up --- */

typedef struct Hold {
    sem_t reached, go_on;
} Hold;

static void await_sem(sem_t *sem)
{
    int ret;

    do {
        ret = sem_wait(sem);
    } while (ret < 0 && errno == EINTR);
    g_assert_cmpint(ret, ==, 0);
}

static void hold_bh(void *opaque)
{
    Hold *hold = opaque;

    sem_post(&hold->reached);
    await_sem(&hold->go_on);
}

/* What is scheduled in ctx from now on waits. */
static void hold_begin(Hold *hold, AioContext *ctx)
{
    g_assert_cmpint(sem_init(&hold->reached, 0, 0), ==, 0);
    g_assert_cmpint(sem_init(&hold->go_on, 0, 0), ==, 0);
    aio_bh_schedule_oneshot(ctx, hold_bh, hold);
    await_sem(&hold->reached);
}

static void hold_end(Hold *hold)
{
    sem_post(&hold->go_on);
}

/* --- a node that watches its threads --- */

static unsigned in_other_threads; /* atomic: calls of the driver */
static bool closed;               /* atomic */

static void watch_thread(BlockDriverState *bs)
{
    __atomic_add_fetch(&in_other_threads, !aio_context_in_own_thread(bs->aio_context),
                       __ATOMIC_RELAXED);
}

static void coroutine_fn watcher_co_close(BlockDriverState *bs)
{
    watch_thread(bs);
    __atomic_store_n(&closed, true, __ATOMIC_RELEASE);
}

static const BlockDriver watcher = {
    .format_name = "watcher",
    .is_filter = true,
    .bdrv_drain_begin = watch_thread,
    .bdrv_drain_end = watch_thread,
    .bdrv_co_close = watcher_co_close,
};

typedef struct World {
    IOThread *one, *two;
    AioContext *ctx_one, *ctx_two;
    BlockDriverState *bs;    /* in `one` */
    BlockDriverState *above; /* a filter; of some tests */
    Coroutine *visitor;      /* of stay_until_woken(), in the node's thread */
} World;

static void coroutine_fn world_co_begin(World *w)
{
    in_other_threads = 0;
    closed = false;
    w->one = iothread_new("one", NULL);
    w->two = iothread_new("two", NULL);
    w->ctx_one = iothread_get_aio_context(w->one);
    w->ctx_two = iothread_get_aio_context(w->two);
    w->bs = bdrv_new_filter(&watcher, "node", BDRV_O_RDWR, NULL);
    g_assert_nonnull(w->bs);
    w->bs->is_open = true;
    g_assert_true(bdrv_co_set_aio_context(w->bs, w->ctx_one, NULL));
}

/* The node has been closed. */
static void world_end(World *w)
{
    g_assert_true(closed);
    g_assert_cmpuint(in_other_threads, ==, 0);
    iothread_free(w->one);
    iothread_free(w->two);
}

/* What was scheduled in ctx before has run until it waited. */
static void coroutine_fn co_pass_through(AioContext *ctx, unsigned times)
{
    AioContext *from = qemu_get_current_aio_context();

    while (times--) {
        aio_co_reschedule_self(ctx);
        aio_co_reschedule_self(from);
    }
}

/* --- what happens to the node at once; main thread --- */

typedef struct Task {
    World *w;
    void coroutine_fn (*run)(World *w);
    bool done;
    Coroutine *waiter;
} Task;

static void coroutine_fn task_entry(void *opaque)
{
    Task *task = opaque;

    task->run(task->w);
    task->done = true;
    if (task->waiter) {
        aio_co_wake(task->waiter);
    }
}

static void task_start(Task *task, World *w, void coroutine_fn (*run)(World *w))
{
    *task = (Task){.w = w, .run = run};
    qemu_coroutine_enter(qemu_coroutine_create(task_entry, task));
}

static void coroutine_fn task_co_wait(Task *task)
{
    if (!task->done) {
        task->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
}

static void coroutine_fn move_to_two(World *w)
{
    g_assert_true(bdrv_co_set_aio_context(w->bs, w->ctx_two, NULL));
}

static void coroutine_fn begin_section(World *w)
{
    bdrv_co_drained_begin(w->bs);
}

static void coroutine_fn begin_section_within(World *w)
{
    g_assert_true(bdrv_co_drained_begin_within(w->bs, BDRV_DRAIN_COMMAND_NS, NULL));
}

static void coroutine_fn end_section(World *w)
{
    bdrv_co_drained_end(w->bs);
}

static void coroutine_fn visit(World *w)
{
    AioContext *from = bdrv_co_enter_graph(w->bs);

    watch_thread(w->bs);
    bdrv_co_leave_graph(w->bs, from);
}

static void coroutine_fn stay_until_woken(World *w)
{
    AioContext *from = bdrv_co_enter_graph(w->bs);

    w->visitor = qemu_coroutine_self();
    qemu_coroutine_yield();
    watch_thread(w->bs);
    g_assert_false(closed);
    bdrv_co_leave_graph(w->bs, from);
}

static void coroutine_fn close_node(World *w)
{
    bdrv_co_unref(w->bs);
}

static void coroutine_fn close_filter(World *w)
{
    bdrv_co_unref(w->above);
}

/* --- the tests --- */

typedef struct Case {
    void coroutine_fn (*run)(World *w);
    int sections_before, sections_after; /* of the test's own */
} Case;

/* The moves have drained the node, and wait as if another graph had been on its way; then `run` begins. */
static void coroutine_fn move_co(void *opaque)
{
    const Case *c = opaque;
    Task moves[2], other;
    Hold hold;
    World w;

    world_co_begin(&w);
    for (int i = 0; i < c->sections_before; i++) {
        bdrv_co_drained_begin(w.bs);
    }
    block_graph()->passing = true;
    task_start(&moves[0], &w, move_to_two);
    task_start(&moves[1], &w, move_to_two);
    co_pass_through(w.ctx_one, PASSES);
    g_assert_true(bdrv_is_quiesced(w.bs));
    hold_begin(&hold, w.ctx_one);
    task_start(&other, &w, c->run);
    block_graph()->passing = false;
    qemu_co_queue_restart_all(&block_graph()->settled_queue);
    co_pass_through(w.ctx_two, PASSES);
    g_assert_true(bdrv_get_aio_context(w.bs) == w.ctx_one);
    g_assert_false(moves[0].done || moves[1].done || other.done);
    /* The moves wait in the main thread: they are no visits, for which each other would wait. */
    g_assert_cmpint(__atomic_load_n(&w.bs->in_flight, __ATOMIC_SEQ_CST), ==, 1);

    hold_end(&hold);
    task_co_wait(&other);
    task_co_wait(&moves[0]);
    task_co_wait(&moves[1]);
    g_assert_true(bdrv_get_aio_context(w.bs) == w.ctx_two);
    for (int i = 0; i < c->sections_after; i++) {
        bdrv_co_drained_end(w.bs);
    }
    g_assert_false(bdrv_is_quiesced(w.bs));
    bdrv_co_unref(w.bs);
    world_end(&w);
}

static void test_move(gconstpointer data)
{
    aio_run_coroutine(move_co, (void *)data);
}

/* The last reference goes while a query visits the node. */
static void coroutine_fn close_co(void *opaque)
{
    Task query, end;
    World w;

    world_co_begin(&w);
    task_start(&query, &w, stay_until_woken);
    co_pass_through(w.ctx_one, 1);
    task_start(&end, &w, close_node);
    co_pass_through(w.ctx_one, PASSES);
    g_assert_false(closed || end.done || query.done);

    aio_co_wake(w.visitor);
    task_co_wait(&query);
    task_co_wait(&end);
    world_end(&w);
}

static void test_close(void)
{
    aio_run_coroutine(close_co, NULL);
}

static void coroutine_fn inactivate_all(World *w)
{
    g_autoptr(GError) err = NULL;
    int ret = bdrv_co_inactivate_all(&err);

    g_assert_no_error(err);
    g_assert_cmpint(ret, ==, 0);
}

static void coroutine_fn delete_node(World *w)
{
    BlockdevDelArg arg = {.node_name = w->bs->node_name};
    g_autoptr(GError) err = NULL;
    bool ok = qmp_blockdev_del(&arg, &err);

    g_assert_no_error(err);
    g_assert_true(ok);
}

typedef struct LeavingCase {
    void coroutine_fn (*run)(World *w);
    bool settles; /* a look at the filter's context still holds it */
    bool keeps;   /* `run` leaves the node's reference */
} LeavingCase;

/* A filter, of a job that has ended for example, is on its way out when a command needs what is below. */
static void coroutine_fn leaving_co(void *opaque)
{
    const LeavingCase *c = opaque;
    Task other, end;
    Hold hold;
    World w;

    world_co_begin(&w);
    bdrv_ref(w.bs);
    w.bs->monitor_owned = true;
    g_assert_true(bdrv_co_set_aio_context(w.bs, qemu_get_aio_context(), NULL));
    w.above = open_filter(&watcher, "above", w.bs);
    g_assert_true(bdrv_co_set_aio_context(w.bs, w.ctx_one, NULL));
    hold_begin(&hold, w.ctx_one);
    if (c->settles) {
        bdrv_settle_context_later(w.above);
        co_pass_through(w.ctx_two, 1);
    }
    task_start(&end, &w, close_filter);
    g_assert_true(end.done == c->settles);
    task_start(&other, &w, c->run);
    co_pass_through(w.ctx_two, PASSES);
    g_assert_false(other.done || bdrv_is_inactive(w.bs));

    hold_end(&hold);
    task_co_wait(&end);
    task_co_wait(&other);
    if (c->keeps) {
        g_assert_true(bdrv_is_inactive(w.bs));
        bdrv_co_unref(w.bs);
    }
    world_end(&w);
}

static void test_leaving(gconstpointer data)
{
    aio_run_coroutine(leaving_co, (void *)data);
}

int main(int argc, char **argv)
{
    static const Case begin = {begin_section, 0, 1}, begin_within = {begin_section_within, 0, 1},
                      end = {end_section, 1, 0}, query = {visit, 0, 0};
    static const LeavingCase inactivate = {inactivate_all, false, true},
                             delete = {delete_node, false, false},
                             delete_settling = {delete_node, true, false};

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    g_test_add_data_func("/drain-moves/begin", &begin, test_move);
    g_test_add_data_func("/drain-moves/begin-within", &begin_within, test_move);
    g_test_add_data_func("/drain-moves/end", &end, test_move);
    g_test_add_data_func("/drain-moves/visit", &query, test_move);
    g_test_add_func("/drain-moves/close", test_close);
    g_test_add_data_func("/drain-moves/inactivate", &inactivate, test_leaving);
    g_test_add_data_func("/drain-moves/delete", &delete, test_leaving);
    g_test_add_data_func("/drain-moves/delete-settling", &delete_settling, test_leaving);
    return g_test_run();
}

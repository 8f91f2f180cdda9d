/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The context of a BlockBackend: requests that wait for a move, requests from other threads, wishes. */
#include <glib.h>

#include "tests/unit/block-fixture.h"
#include "block/block-backend.h"
#include "util/iothread.h"

#define NULL_NODE  "{'driver': 'null-co', 'node-name': 'disk', 'size': 65536}"
#define READ_WRITE (BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE)

typedef struct Request {
    BlockBackend *blk;
    AioContext *issued_in, *done_in;
    int ret;
    bool done;         /* main thread */
    Coroutine *waiter; /* main thread */
} Request;

static void request_done(void *opaque)
{
    Request *req = opaque;

    req->done = true;
    if (req->waiter) {
        aio_co_wake(req->waiter);
    }
}

static void coroutine_fn request_entry(void *opaque)
{
    Request *req = opaque;
    uint8_t buf[512] = {0};

    req->issued_in = qemu_get_current_aio_context();
    req->ret = blk_co_pwrite(req->blk, 0, sizeof(buf), buf, 0);
    req->done_in = qemu_get_current_aio_context();
    aio_bh_schedule_oneshot(qemu_get_aio_context(), request_done, req);
}

static void coroutine_fn co_wait(Request *req)
{
    if (!req->done) {
        req->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
}

/* What was scheduled in ctx before has run until it waited. */
static void coroutine_fn co_pass_through(AioContext *ctx)
{
    AioContext *from = qemu_get_current_aio_context();

    aio_co_reschedule_self(ctx);
    aio_co_reschedule_self(from);
}

static BlockBackend *coroutine_fn open_backend(IOThread *iothread)
{
    BlockDriverState *bs = open_node(NULL_NODE);
    BlockBackend *blk = blk_new(READ_WRITE, BLK_PERM_ALL);

    g_assert_true(blk_insert_bs(blk, bs, NULL));
    bdrv_co_unref(bs);
    g_assert_true(blk_co_bind_context(blk, iothread_get_aio_context(iothread), false, NULL));
    return blk;
}

static void end_iothread(IOThread *iothread)
{
    g_autofree char *users = iothread_users(iothread);

    g_assert_null(users);
    iothread_free(iothread);
}

static void coroutine_fn gate_co(void *opaque)
{
    IOThread *one = iothread_new("one", NULL), *two = iothread_new("two", NULL);
    AioContext *ctx_one = iothread_get_aio_context(one), *ctx_two = iothread_get_aio_context(two);
    BlockBackend *blk = open_backend(one);
    BlockDriverState *bs = blk_bs(blk);
    Request req = {.blk = blk};

    bdrv_ref(bs);
    bdrv_co_drained_begin(bs);
    aio_co_schedule(ctx_one, qemu_coroutine_create(request_entry, &req));
    co_pass_through(ctx_one);
    g_assert_true(req.issued_in == ctx_one && !req.done_in);
    g_assert_true(blk_co_bind_context(blk, ctx_two, false, NULL));
    blk_unref(blk); /* the request is its last user */
    co_pass_through(ctx_one);
    co_pass_through(ctx_two);
    g_assert_null(req.done_in);

    bdrv_co_drained_end(bs);
    co_wait(&req);
    g_assert_cmpint(req.ret, ==, 0);
    g_assert_true(req.done_in == ctx_two);
    bdrv_co_unref(bs);
    bdrv_co_close_all();
    end_iothread(one);
    end_iothread(two);
}

static void test_waiting_request_goes_on_in_the_new_context(void)
{
    aio_run_coroutine(gate_co, NULL);
}

static void coroutine_fn spawn_co(void *opaque)
{
    IOThread *one = iothread_new("one", NULL);
    BlockBackend *blk = open_backend(one);
    Request req = {.blk = blk}, after = {.blk = blk};

    blk_co_spawn(blk, request_entry, &req);
    co_wait(&req);
    g_assert_true(req.done_in == iothread_get_aio_context(one) && req.ret == 0);

    blk_co_spawn(blk, request_entry, &after);
    blk_co_unbind_context(blk);
    co_wait(&after);
    g_assert_cmpint(after.ret, ==, 0);
    blk_unref(blk);
    bdrv_co_close_all();
    end_iothread(one);
}

static void test_spawned_coroutine_runs_where_the_backend_is(void)
{
    aio_run_coroutine(spawn_co, NULL);
}

static void coroutine_fn wishes_co(void *opaque)
{
    IOThread *one = iothread_new("one", NULL), *two = iothread_new("two", NULL);
    AioContext *ctx_one = iothread_get_aio_context(one), *ctx_two = iothread_get_aio_context(two);
    BlockBackend *first = open_backend(one), *second = blk_new(0, BLK_PERM_ALL);
    BlockDriverState *bs = blk_bs(first);
    g_autoptr(GError) err = NULL;

    g_assert_true(blk_insert_bs(second, bs, NULL));
    g_assert_true(blk_get_aio_context(second) == ctx_one);
    g_assert_true(
        blk_co_bind_context(second, ctx_two, true, NULL)); /* the first one is not fixed */
    g_assert_true(blk_get_aio_context(first) == ctx_two);
    g_assert_false(blk_co_bind_context(first, ctx_one, true, &err));
    g_assert_nonnull(strstr(err->message, "keeps it in iothread 'two'"));
    g_assert_true(blk_get_aio_context(first) == ctx_two);
    g_assert_false(bdrv_co_set_aio_context(bs, qemu_get_aio_context(), NULL));

    blk_co_unbind_context(second);
    g_assert_true(bdrv_get_aio_context(bs) == ctx_one); /* the first one's wish stands */
    blk_co_unbind_context(first);
    g_assert_true(bdrv_get_aio_context(bs) == qemu_get_aio_context());
    blk_unref(second);
    blk_unref(first);
    bdrv_co_close_all();
    end_iothread(one);
    end_iothread(two);
}

static void test_graph_is_where_its_users_wish_it(void)
{
    aio_run_coroutine(wishes_co, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    g_test_add_func("/block-context/gate", test_waiting_request_goes_on_in_the_new_context);
    g_test_add_func("/block-context/spawn", test_spawned_coroutine_runs_where_the_backend_is);
    g_test_add_func("/block-context/wishes", test_graph_is_where_its_users_wish_it);
    return g_test_run();
}

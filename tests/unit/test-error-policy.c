/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Error policy, with a device that behaves as real ones will. It sends requests of a backend in an
 * iothread to a disk that fails. They are held while the guest is stopped, and `cont` starts them
 * again.
 */
#include "block/error-policy.h"

#include <errno.h>
#include <string.h>
#include "accel/held-requests.h"
#include "accel/runstate.h"
#include "accel/vm-stop.h"
#include "qapi/event.h"
#include "tests/unit/block-fixture.h"
#include "util/aio.h"
#include "util/iothread.h"

enum { SECTOR = 512 };

typedef struct TestDevice {
    BlockBackend *blk;
    HeldRequests *held;
    int done;   /* atomic: requests that have ended for the guest */
    int failed; /* atomic: of these, with an error */
    int dropped;
} TestDevice;

typedef struct TestRequest {
    HeldRequest held;
    TestDevice *dev;
    AioContext *ctx; /* of its queue; NULL: the backend's */
    bool is_read;
    int64_t offset;
    uint8_t data[SECTOR];
} TestRequest;

static GString *events; /* names, and what BLOCK_IO_ERROR says */

static void record_event(const char *name, json_object *data)
{
    g_string_append_printf(events, "%s ", name);
    if (data && !strcmp(name, "BLOCK_IO_ERROR")) {
        g_string_append_printf(events, "%s ", json_object_to_json_string_ext(data, 0));
    }
    json_object_put(data);
}

/* --- the device --- */

static void end_request(TestRequest *req, bool failed)
{
    __atomic_add_fetch(&req->dev->failed, failed, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&req->dev->done, 1, __ATOMIC_SEQ_CST);
    g_free(req);
}

static void coroutine_fn request_co(void *opaque)
{
    TestRequest *req = opaque;
    TestDevice *dev = req->dev;
    int ret = req->is_read ? blk_co_pread(dev->blk, req->offset, SECTOR, req->data, 0)
                           : blk_co_pwrite(dev->blk, req->offset, SECTOR, req->data, 0);
    BlockErrorAction action;

    if (ret == 0) {
        end_request(req, false);
        return;
    }
    action = held_requests_error(dev->held, &req->held, req->is_read, -ret);
    if (action != BLOCK_ERROR_ACTION_STOP) {
        end_request(req, action == BLOCK_ERROR_ACTION_REPORT);
    }
}

/* At once: a stop waits for what the backend counts, not for what is still to begin. */
static void restart(void *opaque, HeldRequest *held)
{
    TestRequest *req = (TestRequest *)held;

    g_assert_true(aio_context_in_own_thread(blk_context_for(req->dev->blk, req->ctx)));
    qemu_coroutine_enter(qemu_coroutine_create(request_co, req));
}

static void issue_in(TestDevice *dev, AioContext *ctx, bool is_read, int64_t offset)
{
    TestRequest *req = g_new0(TestRequest, 1);

    *req = (TestRequest){.dev = dev, .ctx = ctx, .is_read = is_read, .offset = offset};
    memset(req->data, 0x5a, SECTOR);
    blk_co_spawn_in(dev->blk, ctx, request_co, req);
}

static void drop(void *opaque, HeldRequest *held)
{
    TestDevice *dev = opaque;

    dev->dropped++;
    g_free(held);
}

static const HeldRequestOps held_ops = {.restart = restart, .drop = drop};

static void issue(TestDevice *dev, bool is_read, int64_t offset)
{
    issue_in(dev, NULL, is_read, offset);
}

/* --- the world --- */

typedef struct World {
    const char *disk; /* JSON; NULL: none is left to be made */
    IOThread *iothread;
    IOThread *second; /* NULL: the disk has one queue */
    BlockdevOnError policy;
    bool iostatus;
    TestDevice dev;
} World;

static void coroutine_fn setup_co(void *opaque)
{
    World *w = opaque;
    GError *err = NULL;
    BlockDriverState *bs = open_node(w->disk);
    BlockBackend *blk = blk_new(BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);

    g_assert_true(blk_insert_bs(blk, bs, &err));
    bdrv_co_unref(bs);
    if (w->iothread) {
        AioContext *ctxs[] = {iothread_get_aio_context(w->iothread),
                              w->second ? iothread_get_aio_context(w->second) : NULL};

        g_assert_true(blk_co_bind_contexts(blk, ctxs, w->second ? 2 : 1, true, &err));
    }
    blk_set_allow_inactive(blk, true);
    blk_set_on_error(blk, w->policy, w->policy);
    if (w->iostatus) {
        blk_iostatus_enable(blk);
    }
    w->dev = (TestDevice){.blk = blk};
    w->dev.held = held_requests_new(blk, "/machine/disk", &held_ops, &w->dev);
}

static void coroutine_fn stop_co(void *opaque)
{
    g_assert_cmpint(vm_co_stop(RUN_STATE_PAUSED), >=, -EIO);
}

static void coroutine_fn teardown_co(void *opaque)
{
    World *w = opaque;

    bdrv_co_drain_all();
    held_requests_free(w->dev.held);
    blk_unref(w->dev.blk);
    bdrv_co_close_all();
}

static void coroutine_fn cont_co(void *opaque)
{
    GError *err = NULL;

    g_assert_true(vm_co_cont(&err));
}

static void setup(World *w)
{
    aio_run_coroutine(setup_co, w);
    vm_start();
    g_string_set_size(events, 0);
}

static void teardown(World *w)
{
    aio_run_coroutine(stop_co, NULL);
    aio_run_coroutine(teardown_co, w);
    if (w->iothread) {
        iothread_free(w->iothread);
    }
    if (w->second) {
        iothread_free(w->second);
    }
}

static IOThread *iothread(void)
{
    GError *err = NULL;
    IOThread *iot = iothread_new("policy", &err);

    g_assert_no_error(err);
    return iot;
}

static void wait_stopped(RunState state)
{
    while (runstate_is_running()) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_true(runstate_check(state));
}

static void wait_done(TestDevice *dev, int n)
{
    while (__atomic_load_n(&dev->done, __ATOMIC_SEQ_CST) < n) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

/* The first write to sector 0 fails, the next one does not. */
#define FAILS_ONCE                                                                        \
    "{'driver':'blkdebug','node-name':'disk','image':{'driver':'null-co','size':1048576," \
    "'read-zeroes':true},'inject-error':[{'event':'none','iotype':'write','errno':%d,"    \
    "'sector':0,'once':true}]}"

static char *fails_once(int error)
{
    return g_strdup_printf(FAILS_ONCE, error);
}

/* --- tests --- */

static void held_and_restarted(IOThread *iot)
{
    g_autofree char *disk = fails_once(EIO);
    World w = {.disk = disk, .iothread = iot, .policy = BLOCKDEV_ON_ERROR_STOP, .iostatus = true};

    setup(&w);
    issue(&w.dev, false, 0);
    wait_stopped(RUN_STATE_IO_ERROR);
    g_assert_cmpint(w.dev.done, ==, 0);
    g_assert_nonnull(held_requests_next(w.dev.held, NULL));
    g_assert_true(blk_iostatus(w.dev.blk) == BLOCK_DEVICE_IO_STATUS_FAILED);
    g_assert_cmpstr(events->str, ==,
                    "BLOCK_IO_ERROR {\"qom-path\":\"\\/machine\\/disk\",\"device\":\"\","
                    "\"node-name\":\"disk\",\"operation\":\"write\",\"action\":\"stop\","
                    "\"nospace\":false,\"reason\":\"Input\\/output error\"} STOP ");
    aio_run_coroutine(cont_co, NULL);
    wait_done(&w.dev, 1);
    g_assert_cmpint(w.dev.failed, ==, 0);
    g_assert_true(runstate_is_running());
    g_assert_true(blk_iostatus(w.dev.blk) == BLOCK_DEVICE_IO_STATUS_OK);
    teardown(&w);
}

static void test_a_held_request_starts_again_with_cont(void)
{
    held_and_restarted(NULL);
}

static void test_a_held_request_of_an_iothread_starts_again_with_cont(void)
{
    held_and_restarted(iothread());
}

static void settle(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

static unsigned count_events(const char *name)
{
    unsigned n = 0;

    for (const char *at = events->str; (at = strstr(at, name)); at += strlen(name)) {
        n++;
    }
    return n;
}

static void test_held_requests_of_several_queues_start_again_each_in_its_thread(void)
{
    World w = {.disk = "{'driver':'blkdebug','node-name':'disk','image':{'driver':'null-co',"
                       "'size':1048576},'inject-error':["
                       "{'event':'none','iotype':'write','sector':0,'once':true},"
                       "{'event':'none','iotype':'write','sector':1,'once':true}]}",
               .iothread = iothread(),
               .second = iothread(),
               .policy = BLOCKDEV_ON_ERROR_STOP};

    setup(&w);
    issue_in(&w.dev, iothread_get_aio_context(w.iothread), false, 0);
    issue_in(&w.dev, iothread_get_aio_context(w.second), false, SECTOR);
    wait_stopped(RUN_STATE_IO_ERROR);
    /* The second one may fail, and stop the guest again, after the first one has gone on. */
    while (__atomic_load_n(&w.dev.done, __ATOMIC_SEQ_CST) < 2 ||
           count_events("BLOCK_IO_ERROR ") < 2) {
        if (!runstate_is_running()) {
            aio_run_coroutine(cont_co, NULL);
        }
        aio_poll(qemu_get_aio_context(), false);
    }
    settle(); /* a stop that was asked for late is this test's */
    g_assert_cmpint(w.dev.failed, ==, 0);
    teardown(&w);
}

/* One action, and how many requests ended, and failed, for the guest. */
static void one_error(BlockdevOnError policy, int error, const char *action, int failed)
{
    g_autofree char *disk = fails_once(error), *said = g_strdup_printf("\"action\":\"%s\"", action);
    World w = {.disk = disk, .iothread = iothread(), .policy = policy};

    setup(&w);
    issue(&w.dev, false, 0);
    if (!strcmp(action, "stop")) {
        wait_stopped(RUN_STATE_IO_ERROR);
        aio_run_coroutine(cont_co, NULL);
    }
    wait_done(&w.dev, 1);
    while (!strstr(events->str, said)) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_null(strstr(events->str, "nospace")); /* only with an I/O status */
    g_assert_cmpint(w.dev.failed, ==, failed);
    g_assert_true(runstate_is_running());
    teardown(&w);
}

static void test_policies(void)
{
    one_error(BLOCKDEV_ON_ERROR_REPORT, EIO, "report", 1);
    one_error(BLOCKDEV_ON_ERROR_IGNORE, EIO, "ignore", 0);
    one_error(BLOCKDEV_ON_ERROR_ENOSPC, EIO, "report", 1);
    one_error(BLOCKDEV_ON_ERROR_ENOSPC, ENOSPC, "stop", 0);
    one_error(BLOCKDEV_ON_ERROR_AUTO, EIO, "report", 1);
    one_error(BLOCKDEV_ON_ERROR_AUTO, ENOSPC, "stop", 0);
    one_error(BLOCKDEV_ON_ERROR_STOP, EIO, "stop", 0);
}

/* Every write fails: each `cont` tries again, and the guest stops again, until it is given up. */
static void test_a_request_that_fails_again_is_held_again(void)
{
    World w = {.disk = "{'driver':'blkdebug','node-name':'disk','image':{'driver':'null-co',"
                       "'size':1048576},'inject-error':[{'event':'none','iotype':'write'}]}",
               .iothread = iothread(),
               .policy = BLOCKDEV_ON_ERROR_STOP};

    setup(&w);
    for (int i = 0; i < 8; i++) {
        issue(&w.dev, false, i * SECTOR);
    }
    for (int i = 0; i < 5; i++) {
        wait_stopped(RUN_STATE_IO_ERROR);
        aio_run_coroutine(cont_co, NULL);
    }
    wait_stopped(RUN_STATE_IO_ERROR);
    aio_run_coroutine(stop_co, NULL); /* what still runs comes to its end: all eight are held */
    for (int i = 0; i < 8; i++) {
        HeldRequest *req = held_requests_take(w.dev.held);

        g_assert_nonnull(req);
        g_free(req);
    }
    g_assert_null(held_requests_take(w.dev.held));
    g_assert_cmpint(w.dev.done, ==, 0);
    teardown(&w);
}

/* As when a client quits while the guest is stopped by an error. */
static void test_a_device_that_ends_gets_its_held_requests_back(void)
{
    g_autofree char *disk = fails_once(EIO);
    World w = {.disk = disk, .policy = BLOCKDEV_ON_ERROR_STOP};

    setup(&w);
    issue(&w.dev, false, 0);
    wait_stopped(RUN_STATE_IO_ERROR);
    g_assert_nonnull(held_requests_next(w.dev.held, NULL));
    teardown(&w);
    g_assert_cmpint(w.dev.dropped, ==, 1);
    g_assert_cmpint(w.dev.done, ==, 0);
}

typedef struct Take {
    RunState before_quiesce, after_quiesce;
} Take;

static void coroutine_fn take_co(void *opaque)
{
    Take *t = opaque;
    GError *err = NULL;

    g_assert_true(vm_co_take(RUN_STATE_FINISH_MIGRATE, "moving", &err));
    t->before_quiesce = vm_wished_state();
    (void)vm_co_quiesce(0, NULL);
    t->after_quiesce = vm_wished_state();
}

/* A request that fails while its guest is taken travels, and the guest waits where it arrives. */
static void test_a_request_that_fails_on_the_way_out_is_held_for_the_journey(void)
{
    g_autofree char *disk = fails_once(EIO);
    World w = {.disk = disk, .iothread = iothread(), .policy = BLOCKDEV_ON_ERROR_STOP};
    HeldRequest *req;
    Take t;

    setup(&w);
    issue(&w.dev, false, 0);
    aio_run_coroutine(take_co, &t);
    req = held_requests_next(w.dev.held, NULL);
    g_assert_nonnull(req);
    g_assert_null(held_requests_next(w.dev.held, req));
    g_assert_true(t.after_quiesce == RUN_STATE_IO_ERROR);
    /* At the destination: the device is loaded with the request, and waits for `cont`. */
    g_assert_true(held_requests_take(w.dev.held) == req);
    held_requests_add(w.dev.held, req);
    vm_give_back();
    g_assert_true(runstate_check(RUN_STATE_IO_ERROR));
    aio_run_coroutine(cont_co, NULL);
    wait_done(&w.dev, 1);
    g_assert_cmpint(w.dev.failed, ==, 0);
    teardown(&w);
}

int main(int argc, char **argv)
{
    GError *err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    events = g_string_new(NULL);
    qapi_event_set_sink(record_event);
    blk_set_guest_stopper(vm_stop_request);
    g_test_add_func("/error-policy/held-in-queues",
                    test_held_requests_of_several_queues_start_again_each_in_its_thread);
    g_test_add_func("/error-policy/held", test_a_held_request_starts_again_with_cont);
    g_test_add_func("/error-policy/held-in-iothread",
                    test_a_held_request_of_an_iothread_starts_again_with_cont);
    g_test_add_func("/error-policy/policies", test_policies);
    g_test_add_func("/error-policy/held-again", test_a_request_that_fails_again_is_held_again);
    g_test_add_func("/error-policy/dropped", test_a_device_that_ends_gets_its_held_requests_back);
    g_test_add_func("/error-policy/journey",
                    test_a_request_that_fails_on_the_way_out_is_held_for_the_journey);
    return g_test_run();
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk with several queues: see disk-queues.h. */
#include "tests/unit/disk-queues.h"

#include "tests/devices/disk-load.h"
#include "tests/unit/block-fixture.h"
#include "util/iothread.h"

struct DiskQueues {
    BlockBackend *blk;
    DiskLoad *load;
    unsigned n;
    IOThread *iothreads[LOAD_QUEUES_MAX];
    bool stopping;     /* atomic */
    Coroutine *waiter; /* main thread: for the load to be gone */
};

static bool may_go_on(void *opaque)
{
    DiskQueues *d = opaque;

    return !__atomic_load_n(&d->stopping, __ATOMIC_ACQUIRE);
}

static void gone(void *opaque)
{
    DiskQueues *d = opaque;

    if (d->waiter) {
        aio_co_wake(g_steal_pointer(&d->waiter));
    }
}

static const DiskLoadOps ops = {.may_go_on = may_go_on, .gone = gone};

DiskQueues *coroutine_fn disk_queues_co_new(unsigned n, BlockDriverState *bs)
{
    DiskQueues *d = g_new0(DiskQueues, 1);
    AioContext *ctxs[LOAD_QUEUES_MAX];
    g_autoptr(GError) err = NULL;

    d->n = n;
    d->blk = blk_new(BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *id = g_strdup_printf("q%u", i);

        d->iothreads[i] = iothread_new(id, &err);
        g_assert_no_error(err);
        ctxs[i] = disk_queues_ctx(d, i);
    }
    if (bs) {
        g_assert_true(blk_co_insert_bs(d->blk, bs, &err));
        bdrv_co_unref(bs);
    }
    g_assert_true(blk_co_bind_contexts(d->blk, ctxs, n, true, &err));
    d->load = disk_load_new(d->blk, ctxs, n, &ops, d);
    return d;
}

BlockBackend *disk_queues_blk(DiskQueues *d)
{
    return d->blk;
}

AioContext *disk_queues_ctx(DiskQueues *d, unsigned queue)
{
    return iothread_get_aio_context(d->iothreads[queue]);
}

void disk_queues_start(DiskQueues *d)
{
    __atomic_store_n(&d->stopping, false, __ATOMIC_RELEASE);
    disk_load_start(d->load);
}

void coroutine_fn disk_queues_co_progress(DiskQueues *d, unsigned requests)
{
    for (unsigned i = 0; i < d->n; i++) {
        unsigned start = disk_load_ended(d->load, i);

        while (disk_load_ended(d->load, i) - start < requests) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS); /* the test's own deadline bounds it */
        }
    }
}

void coroutine_fn disk_queues_co_stop(DiskQueues *d)
{
    g_autofree uint8_t *buf = g_malloc0(LOAD_BYTES);
    AioContext *from;
    int ret;

    __atomic_store_n(&d->stopping, true, __ATOMIC_RELEASE);
    if (disk_load_is_running(d->load)) {
        d->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    from = bdrv_co_enter_graph(blk_bs(d->blk));
    ret = blk_co_pread(d->blk, 0, LOAD_BYTES, buf, 0);
    bdrv_co_leave_graph(blk_bs(d->blk), from);
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpmem(buf, LOAD_BYTES, disk_load_state(d->load)->contents, LOAD_BYTES);
    g_assert_cmpint(disk_load_bad(d->load), ==, 0);
}

void coroutine_fn disk_queues_co_free(DiskQueues *d)
{
    disk_load_free(d->load);
    blk_co_unbind_context(d->blk);
    for (unsigned i = 0; i < d->n; i++) {
        g_autofree char *users = iothread_users(d->iothreads[i]);

        g_assert_cmpstr(users, ==, NULL);
    }
    blk_unref(d->blk);
    bdrv_co_close_all();
    for (unsigned i = 0; i < d->n; i++) {
        iothread_free(d->iothreads[i]);
    }
    g_free(d);
}

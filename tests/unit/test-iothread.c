/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IOThreads: life, work from other threads, coroutines that move between contexts. */
#include <glib.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/iothread.h"

static IOThread *start(const char *id)
{
    g_autoptr(GError) err = NULL;
    IOThread *iothread = iothread_new(id, &err);

    g_assert_no_error(err);
    g_assert_nonnull(iothread);
    return iothread;
}

static void test_properties(void)
{
    IOThread *iothread = start("iothread-with-a-long-name");
    g_autofree char *comm_path = NULL, *comm = NULL;

    g_assert_cmpstr(iothread_get_id(iothread), ==, "iothread-with-a-long-name");
    g_assert_cmpint(iothread_get_thread_id(iothread), >, 0);
    g_assert_cmpint(iothread_get_thread_id(iothread), !=, getpid());
    g_assert_true(iothread_get_aio_context(iothread) != qemu_get_aio_context());
    g_assert_false(aio_context_in_own_thread(iothread_get_aio_context(iothread)));
    comm_path = g_strdup_printf("/proc/self/task/%d/comm", iothread_get_thread_id(iothread));
    g_assert_true(g_file_get_contents(comm_path, &comm, NULL, NULL));
    g_assert_cmpstr(comm, ==, "IO iothread-wit\n");
    iothread_free(iothread);
}

static void test_start_and_stop_often(void)
{
    for (int i = 0; i < 50; i++) {
        iothread_free(start("short"));
    }
}

typedef struct Ping {
    AioContext *ctx[2];
    int hops; /* passed between the threads by the bottom halves themselves */
    int limit;
    bool done; /* atomic */
} Ping;

static void ping_bh(void *opaque)
{
    Ping *p = opaque;

    g_assert_true(aio_context_in_own_thread(p->ctx[p->hops % 2]));
    if (++p->hops < p->limit) {
        aio_bh_schedule_oneshot(p->ctx[p->hops % 2], ping_bh, p);
    } else {
        __atomic_store_n(&p->done, true, __ATOMIC_RELEASE);
        aio_notify(qemu_get_aio_context());
    }
}

/* Every hop wakes the other thread, which has just gone to sleep or is about to. */
static void test_bottom_halves_between_threads(void)
{
    IOThread *a = start("a"), *b = start("b");
    Ping p = {.ctx = {iothread_get_aio_context(a), iothread_get_aio_context(b)}, .limit = 10000};

    aio_bh_schedule_oneshot(p.ctx[0], ping_bh, &p);
    while (!__atomic_load_n(&p.done, __ATOMIC_ACQUIRE)) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(p.hops, ==, p.limit);
    iothread_free(a);
    iothread_free(b);
}

typedef struct Traveller {
    AioContext *ctx[3];
    int trips;
    bool done; /* atomic */
} Traveller;

static void coroutine_fn travel_co_entry(void *opaque)
{
    Traveller *t = opaque;

    for (; t->trips < 3000; t->trips++) {
        AioContext *ctx = t->ctx[t->trips % 3];

        aio_co_reschedule_self(ctx);
        g_assert_true(qemu_get_current_aio_context() == ctx);
        g_assert_true(qemu_coroutine_get_aio_context(qemu_coroutine_self()) == ctx);
        g_assert_true(aio_context_in_own_thread(ctx));
        if (t->trips % 10 == 0) {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 1);
        }
    }
    __atomic_store_n(&t->done, true, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
}

static void test_coroutine_moves(void)
{
    IOThread *a = start("a"), *b = start("b");
    Traveller t[4];

    for (int i = 0; i < 4; i++) {
        t[i] = (Traveller){.ctx = {qemu_get_aio_context(), iothread_get_aio_context(a),
                                   iothread_get_aio_context(b)}};
        qemu_coroutine_enter(qemu_coroutine_create(travel_co_entry, &t[i]));
    }
    for (int i = 0; i < 4; i++) {
        while (!__atomic_load_n(&t[i].done, __ATOMIC_ACQUIRE)) {
            aio_poll(qemu_get_aio_context(), true);
        }
    }
    iothread_free(a);
    iothread_free(b);
}

typedef struct Delete {
    QEMUBH *bh;
    int n;          /* the iothread's */
    bool delivered; /* atomic */
} Delete;

static void delete_count_bh(void *opaque)
{
    ((Delete *)opaque)->n++;
}

static void delete_flush_bh(void *opaque)
{
    __atomic_store_n(&((Delete *)opaque)->delivered, true, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
}

/* Scheduled and deleted from this thread while the iothread runs it; freed once, by the loop. */
static void test_bottom_half_deleted_from_other_thread(void)
{
    IOThread *a = start("a");
    AioContext *ctx = iothread_get_aio_context(a);

    for (int i = 0; i < 500; i++) {
        Delete d = {0};

        d.bh = aio_bh_new(ctx, delete_count_bh, &d);
        qemu_bh_schedule(d.bh);
        qemu_bh_schedule(d.bh);
        if (i % 2) {
            aio_notify(ctx);
        }
        qemu_bh_delete(d.bh);
        aio_bh_schedule_oneshot(ctx, delete_flush_bh, &d);
        while (!__atomic_load_n(&d.delivered, __ATOMIC_ACQUIRE)) {
            aio_poll(qemu_get_aio_context(), true);
        }
        g_assert_cmpint(d.n, <=, 2);
    }
    iothread_free(a);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!qemu_init_main_loop(NULL)) {
        return 1;
    }
    g_test_add_func("/iothread/properties", test_properties);
    g_test_add_func("/iothread/start-and-stop-often", test_start_and_stop_often);
    g_test_add_func("/iothread/bottom-halves-between-threads", test_bottom_halves_between_threads);
    g_test_add_func("/iothread/coroutine-moves", test_coroutine_moves);
    g_test_add_func("/iothread/bottom-half-deleted-from-other-thread",
                    test_bottom_half_deleted_from_other_thread);
    return g_test_run();
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The big lock: exclusion, fairness beside a busy main loop, calls into the main loop. */
#include "util/bql.h"

#include <glib.h>
#include "util/aio.h"

enum { THREADS = 4, ROUNDS = 2000 };

static uint64_t guarded; /* under the big lock */
static int finished;     /* atomic */

static void *count_thread(void *opaque)
{
    g_assert_false(bql_locked());
    for (int i = 0; i < ROUNDS; i++) {
        bql_lock();
        g_assert_true(bql_locked());
        guarded++;
        bql_unlock();
    }
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
    return NULL;
}

static void run_threads(bool busy)
{
    GThread *threads[THREADS];

    guarded = 0;
    __atomic_store_n(&finished, 0, __ATOMIC_RELAXED);
    g_assert_true(bql_locked());
    for (int i = 0; i < THREADS; i++) {
        threads[i] = g_thread_new("count", count_thread, NULL);
    }
    while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) < THREADS) {
        guarded++;
        guarded--; /* a thread that came in between would be lost */
        aio_poll(qemu_get_aio_context(), !busy);
    }
    g_assert_cmpuint(guarded, ==, THREADS * ROUNDS);
    for (int i = 0; i < THREADS; i++) {
        g_thread_join(threads[i]);
    }
}

static void test_idle_loop(void)
{
    run_threads(false);
}

/* A loop that never sleeps must let the others in nevertheless. */
static void test_busy_loop(void)
{
    run_threads(true);
}

/*
 * Threads that run pass the lock on among themselves while a sleeper wakes up: sleeping for each
 * time that the lock is taken would be a convoy.
 */
static void test_no_convoy(void)
{
    unsigned before = bql_sleeps();

    run_threads(false);
    g_assert_cmpuint(bql_sleeps() - before, <, THREADS * ROUNDS / 4);
}

static BQLCond cond;
static int turn; /* under the big lock */

static void *cond_thread(void *opaque)
{
    int own = GPOINTER_TO_INT(opaque);

    bql_lock();
    for (int i = 0; i < ROUNDS; i++) {
        while (turn % THREADS != own) {
            bql_cond_wait(&cond);
            g_assert_true(bql_locked());
        }
        turn++;
        bql_cond_broadcast(&cond);
    }
    bql_unlock();
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
    return NULL;
}

/* Threads that take turns: a wake that got lost would hang. */
static void test_no_wake_is_lost(void)
{
    GThread *threads[THREADS];

    turn = 0;
    __atomic_store_n(&finished, 0, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = g_thread_new("cond", cond_thread, GINT_TO_POINTER(i));
    }
    while (__atomic_load_n(&finished, __ATOMIC_ACQUIRE) < THREADS) {
        aio_poll(qemu_get_aio_context(), true);
    }
    for (int i = 0; i < THREADS; i++) {
        g_thread_join(threads[i]);
    }
    g_assert_cmpint(turn, ==, THREADS * ROUNDS);
}

static void coroutine_fn add_co(void *opaque)
{
    int *sum = opaque;

    g_assert_true(bql_locked());
    g_assert_true(aio_context_in_own_thread(qemu_get_aio_context()));
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_US);
    *sum += 1;
}

static void *call_thread(void *opaque)
{
    int *sum = opaque;

    for (int i = 0; i < 100; i++) {
        main_loop_run_co(add_co, sum);
        g_assert_cmpint(*sum, ==, i + 1);
    }
    __atomic_add_fetch(&finished, 1, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
    return NULL;
}

static void test_run_co(void)
{
    int sum = 0;
    GThread *thread;

    __atomic_store_n(&finished, 0, __ATOMIC_RELAXED);
    thread = g_thread_new("call", call_thread, &sum);
    while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_thread_join(thread);
    g_assert_cmpint(sum, ==, 100);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    g_test_add_func("/bql/idle-loop", test_idle_loop);
    g_test_add_func("/bql/busy-loop", test_busy_loop);
    g_test_add_func("/bql/no-convoy", test_no_convoy);
    g_test_add_func("/bql/run-co", test_run_co);
    g_test_add_func("/bql/cond", test_no_wake_is_lost);
    return g_test_run();
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Worker threads: results, the limit, callers in several contexts. */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <sys/resource.h>
#include "tests/unit/sanitizer.h"
#include "util/aio.h"
#include "util/iothread.h"

/* A door that workers wait at, so that a test decides how many of them run together. */
typedef struct Door {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    int inside;
    int most_inside;
    int started;
} Door;

typedef struct Call {
    Door *door;
    int fd; /* the file that it is about; 0: none */
    AioContext *ctx;
    int index;
    int start_order; /* set by the worker */
    int *done;       /* atomic */
} Call;

static void door_init(Door *d)
{
    *d = (Door){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
}

static void door_open(Door *d)
{
    pthread_mutex_lock(&d->lock);
    d->open = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static int door_worker(void *opaque)
{
    Call *call = opaque;
    Door *d = call->door;

    pthread_mutex_lock(&d->lock);
    call->start_order = d->started++;
    d->inside++;
    d->most_inside = MAX(d->most_inside, d->inside);
    pthread_cond_broadcast(&d->changed);
    while (!d->open) {
        pthread_cond_wait(&d->changed, &d->lock);
    }
    d->inside--;
    pthread_mutex_unlock(&d->lock);
    return call->index;
}

static void coroutine_fn door_co_entry(void *opaque)
{
    Call *call = opaque;

    int ret = call->fd ? thread_pool_submit_file_co(call->fd, door_worker, call)
                       : thread_pool_submit_co(door_worker, call);

    g_assert_cmpint(ret, ==, call->index);
    g_assert_true(qemu_get_current_aio_context() == call->ctx);
    __atomic_fetch_add(call->done, 1, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
}

static int return_minus_eio(void *arg)
{
    *(GThread **)arg = g_thread_self();
    return -EIO;
}

static void coroutine_fn result_co_entry(void *opaque)
{
    GThread *worker = NULL;

    g_assert_cmpint(thread_pool_submit_co(return_minus_eio, &worker), ==, -EIO);
    g_assert_nonnull(worker);
    g_assert_true(worker != g_thread_self());
    *(bool *)opaque = true;
}

static void test_result_comes_back(void)
{
    bool done = false;

    aio_run_coroutine(result_co_entry, &done);
    g_assert_true(done);
}

/*
 * AIO_THREAD_POOL_MAX run together; none of those that came later starts before one of the first is
 * done.
 */
static void test_limit(void)
{
    enum {
        N = AIO_THREAD_POOL_MAX + 40,
    };
    AioContext *ctx = qemu_get_aio_context();
    Call calls[N];
    Door door;
    int done = 0;

    door_init(&door);
    for (int i = 0; i < N; i++) {
        calls[i] = (Call){.door = &door, .ctx = ctx, .index = i, .start_order = -1, .done = &done};
        qemu_coroutine_enter(qemu_coroutine_create(door_co_entry, &calls[i]));
    }
    pthread_mutex_lock(&door.lock);
    while (door.inside < AIO_THREAD_POOL_MAX) {
        pthread_cond_wait(&door.changed, &door.lock);
    }
    for (int i = AIO_THREAD_POOL_MAX; i < N; i++) {
        g_assert_cmpint(calls[i].start_order, ==, -1);
    }
    pthread_mutex_unlock(&door.lock);
    g_assert_cmpint(done, ==, 0);
    door_open(&door);
    while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < N) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(door.most_inside, ==, AIO_THREAD_POOL_MAX);
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(calls[i].start_order, >=, 0);
        if (i < AIO_THREAD_POOL_MAX) {
            g_assert_cmpint(calls[i].start_order, <, AIO_THREAD_POOL_MAX);
        }
    }
}

/* Calls about a file that hangs leave workers for another file; each file's calls start in order. */
static void test_a_file_that_hangs_leaves_workers(void)
{
    enum {
        N = AIO_THREAD_POOL_FILE_MAX + 40,
    };
    AioContext *ctx = qemu_get_aio_context();
    Call calls[N], other;
    Door hung, open;
    int done = 0, other_done = 0;

    door_init(&hung);
    door_init(&open);
    door_open(&open);
    for (int i = 0; i < N; i++) {
        calls[i] = (Call){&hung, 1, ctx, i, -1, &done};
        qemu_coroutine_enter(qemu_coroutine_create(door_co_entry, &calls[i]));
    }
    other = (Call){&open, 2, ctx, 0, -1, &other_done};
    qemu_coroutine_enter(qemu_coroutine_create(door_co_entry, &other));
    while (!__atomic_load_n(&other_done, __ATOMIC_ACQUIRE)) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(done, ==, 0);
    pthread_mutex_lock(&hung.lock);
    while (hung.inside < AIO_THREAD_POOL_FILE_MAX) {
        pthread_cond_wait(&hung.changed, &hung.lock);
    }
    pthread_mutex_unlock(&hung.lock);
    door_open(&hung);
    while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < N) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(hung.most_inside, ==, AIO_THREAD_POOL_FILE_MAX);
}

static int increment(void *arg)
{
    return ++*(int *)arg;
}

static void coroutine_fn increment_co_entry(void *opaque)
{
    Call *call = opaque;
    int n = 0;

    for (int i = 1; i <= 200; i++) {
        g_assert_cmpint(thread_pool_submit_co(increment, &n), ==, i);
        g_assert_true(qemu_get_current_aio_context() == call->ctx);
    }
    __atomic_fetch_add(call->done, 1, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
}

static void test_callers_in_several_threads(void)
{
    enum {
        N = 30,
    };
    IOThread *threads[2];
    AioContext *ctx[3] = {qemu_get_aio_context()};
    Call calls[N];
    int done = 0;

    for (int i = 0; i < 2; i++) {
        threads[i] = iothread_new("caller", NULL);
        g_assert_nonnull(threads[i]);
        ctx[i + 1] = iothread_get_aio_context(threads[i]);
    }
    for (int i = 0; i < N; i++) {
        calls[i] = (Call){.ctx = ctx[i % 3], .done = &done};
        aio_co_schedule(ctx[i % 3], qemu_coroutine_create(increment_co_entry, &calls[i]));
    }
    while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) < N) {
        aio_poll(qemu_get_aio_context(), true);
    }
    iothread_free(threads[0]);
    iothread_free(threads[1]);
}

static int count_in_caller(void *arg)
{
    ++*(int *)arg;
    return 7;
}

static void coroutine_fn no_threads_co_entry(void *opaque)
{
    const struct rlimit nothing = {.rlim_cur = 1, .rlim_max = RLIM_INFINITY};
    const struct rlimit everything = {RLIM_INFINITY, RLIM_INFINITY};

    g_assert_cmpint(setrlimit(RLIMIT_AS, &nothing), ==, 0); /* no stack of a thread can be mapped */
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(thread_pool_submit_co(count_in_caller, opaque), ==, 7);
    }
    g_assert_cmpint(setrlimit(RLIMIT_AS, &everything), ==, 0);
}

/* A system that grants no thread makes the calls slow, not stuck. */
static void test_works_without_threads(void)
{
    int n = 0;

#ifdef SANITIZER
    g_test_skip("a sanitizer needs address space");
    return;
#endif
    if (g_test_subprocess()) {
        aio_run_coroutine(no_threads_co_entry, &n);
        g_assert_cmpint(n, ==, 3);
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_passed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!qemu_init_main_loop(NULL)) {
        return 1;
    }
    g_test_add_func("/thread-pool/result-comes-back", test_result_comes_back);
    g_test_add_func("/thread-pool/limit", test_limit);
    g_test_add_func("/thread-pool/a-file-that-hangs-leaves-workers",
                    test_a_file_that_hangs_leaves_workers);
    g_test_add_func("/thread-pool/callers-in-several-threads", test_callers_in_several_threads);
    g_test_add_func("/thread-pool/works-without-threads", test_works_without_threads);
    return g_test_run();
}

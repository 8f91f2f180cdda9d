/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop, over each of its back ends: bottom halves, descriptors, timers, coroutines, disk
 * I/O.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/aio.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZER 1
#endif
#endif

typedef struct Fixture {
    AioContext *ctx;
} Fixture;

static void fixture_set_up(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) err = NULL;

    f->ctx = aio_context_new(GPOINTER_TO_INT(data), &err);
    g_assert_no_error(err);
    aio_context_attach_thread(f->ctx);
}

static void fixture_tear_down(Fixture *f, gconstpointer data)
{
    (void)data;
    while (aio_poll(f->ctx, false)) {
    }
    aio_context_unref(f->ctx);
}

static void count_cb(void *opaque)
{
    (*(int *)opaque)++;
}

/* --- bottom halves --- */

static void test_bh_runs_once_however_often_scheduled(Fixture *f, gconstpointer data)
{
    int n = 0;
    QEMUBH *bh = aio_bh_new(f->ctx, count_cb, &n);

    g_assert_false(aio_poll(f->ctx, false));
    qemu_bh_schedule(bh);
    qemu_bh_schedule(bh);
    g_assert_cmpint(n, ==, 0);
    g_assert_true(aio_poll(f->ctx, true));
    g_assert_cmpint(n, ==, 1);
    g_assert_false(aio_poll(f->ctx, false));
    g_assert_cmpint(n, ==, 1);
    qemu_bh_schedule(bh);
    g_assert_true(aio_poll(f->ctx, true));
    g_assert_cmpint(n, ==, 2);
    qemu_bh_delete(bh);
}

static void test_bh_cancelled_or_deleted_does_not_run(Fixture *f, gconstpointer data)
{
    int n = 0;
    QEMUBH *bh = aio_bh_new(f->ctx, count_cb, &n);

    qemu_bh_schedule(bh);
    qemu_bh_cancel(bh);
    aio_poll(f->ctx, false);
    g_assert_cmpint(n, ==, 0);
    qemu_bh_schedule(bh);
    aio_poll(f->ctx, false);
    g_assert_cmpint(n, ==, 1);
    qemu_bh_schedule(bh);
    qemu_bh_delete(bh);
    aio_poll(f->ctx, false);
    g_assert_cmpint(n, ==, 1);
}

typedef struct SelfBH {
    QEMUBH *bh;
    int n;
    int limit;
} SelfBH;

static void reschedule_then_delete_cb(void *opaque)
{
    SelfBH *s = opaque;

    if (++s->n < s->limit) {
        qemu_bh_schedule(s->bh);
    } else {
        qemu_bh_schedule(s->bh);
        qemu_bh_delete(s->bh);
    }
}

static void test_bh_schedules_and_deletes_itself(Fixture *f, gconstpointer data)
{
    SelfBH s = {.limit = 5};

    s.bh = aio_bh_new(f->ctx, reschedule_then_delete_cb, &s);
    qemu_bh_schedule(s.bh);
    for (int i = 1; i <= 5; i++) {
        aio_poll(f->ctx, true);
        g_assert_cmpint(s.n, ==, i); /* once a turn */
    }
    aio_poll(f->ctx, false);
    g_assert_cmpint(s.n, ==, 5);
}

static void append_a(void *opaque)
{
    g_string_append_c(opaque, 'a');
}

static void append_b(void *opaque)
{
    g_string_append_c(opaque, 'b');
}

static void test_bh_order(Fixture *f, gconstpointer data)
{
    g_autoptr(GString) log = g_string_new(NULL);

    aio_bh_schedule_oneshot(f->ctx, append_a, log);
    aio_bh_schedule_oneshot(f->ctx, append_b, log);
    aio_bh_schedule_oneshot(f->ctx, append_b, log);
    aio_bh_schedule_oneshot(f->ctx, append_a, log);
    aio_poll(f->ctx, true);
    g_assert_cmpstr(log->str, ==, "abba");
}

static void *oneshots_from_thread(void *opaque)
{
    void **args = opaque;

    for (int i = 0; i < 1000; i++) {
        aio_bh_schedule_oneshot(args[0], count_cb, args[1]);
    }
    return NULL;
}

static void test_bh_from_other_threads(Fixture *f, gconstpointer data)
{
    int n = 0;
    void *args[] = {f->ctx, &n};
    GThread *threads[3];

    for (int i = 0; i < 3; i++) {
        threads[i] = g_thread_new("oneshot", oneshots_from_thread, args);
    }
    while (n < 3000) {
        aio_poll(f->ctx, true);
    }
    for (int i = 0; i < 3; i++) {
        g_thread_join(threads[i]);
    }
    g_assert_cmpint(n, ==, 3000);
}

static void *notify_from_thread(void *opaque)
{
    aio_notify(opaque);
    return NULL;
}

static void test_notify_ends_wait(Fixture *f, gconstpointer data)
{
    GThread *thread;

    /* Before the wait: it must not be lost. */
    aio_notify(f->ctx);
    g_assert_false(aio_poll(f->ctx, true));
    for (int i = 0; i < 100; i++) {
        thread = g_thread_new("notify", notify_from_thread, f->ctx);
        g_assert_false(aio_poll(f->ctx, true));
        g_thread_join(thread);
    }
}

/* --- descriptors --- */

typedef struct Pair {
    AioContext *ctx;
    int fd[2];
    int n_read;
    int n_write;
    int other;
} Pair;

static void pair_open(Pair *p, AioContext *ctx)
{
    *p = (Pair){.ctx = ctx};
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fd), ==, 0);
}

static void pair_close(Pair *p)
{
    aio_set_fd_handler(p->ctx, p->fd[0], NULL, NULL, NULL);
    close(p->fd[0]);
    close(p->fd[1]);
}

static void pair_send(Pair *p)
{
    g_assert_cmpint(write(p->fd[1], "x", 1), ==, 1);
}

static void pair_count_read(void *opaque)
{
    ((Pair *)opaque)->n_read++;
}

static void pair_count_write(void *opaque)
{
    ((Pair *)opaque)->n_write++;
}

static void pair_take(void *opaque)
{
    Pair *p = opaque;
    char c;

    g_assert_cmpint(read(p->fd[0], &c, 1), ==, 1);
    p->n_read++;
}

/* Turns of the loop that end with nothing left to do. */
static void settle(AioContext *ctx)
{
    for (int i = 0; i < 4; i++) {
        aio_poll(ctx, false);
    }
}

static void test_fd_level_triggered(Fixture *f, gconstpointer data)
{
    Pair p;

    pair_open(&p, f->ctx);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_count_read, NULL, &p);
    settle(f->ctx);
    g_assert_cmpint(p.n_read, ==, 0);
    pair_send(&p);
    for (int i = 1; i <= 5; i++) {
        while (p.n_read < i) {
            g_assert_true(aio_poll(f->ctx, true)); /* unread data counts every turn */
        }
    }
    aio_set_fd_handler(f->ctx, p.fd[0], pair_take, NULL, &p);
    p.n_read = 0;
    while (!p.n_read) {
        aio_poll(f->ctx, true);
    }
    settle(f->ctx);
    g_assert_cmpint(p.n_read, ==, 1);
    pair_close(&p);
}

static void test_fd_sides_are_independent(Fixture *f, gconstpointer data)
{
    Pair p;

    pair_open(&p, f->ctx);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_take, pair_count_write, &p);
    while (!p.n_write) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpint(p.n_read, ==, 0);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_take, NULL, &p);
    p.n_write = 0;
    settle(f->ctx);
    g_assert_cmpint(p.n_write, ==, 0);
    pair_send(&p);
    while (!p.n_read) {
        aio_poll(f->ctx, true);
    }
    aio_set_fd_handler(f->ctx, p.fd[0], NULL, pair_count_write, &p);
    pair_send(&p);
    p.n_read = 0;
    while (p.n_write < 3) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpint(p.n_read, ==, 0);
    pair_close(&p);
}

static void pair_forget_other(void *opaque)
{
    Pair *p = opaque;

    p->n_read++;
    aio_set_fd_handler(p->ctx, p->other, NULL, NULL, NULL);
    aio_set_fd_handler(p->ctx, p->fd[0], NULL, NULL, NULL);
}

/* Two descriptors are ready in the same turn; whichever runs first forgets both. */
static void test_fd_forgotten_by_another_handler(Fixture *f, gconstpointer data)
{
    Pair a, b;

    pair_open(&a, f->ctx);
    pair_open(&b, f->ctx);
    a.other = b.fd[0];
    b.other = a.fd[0];
    pair_send(&a);
    pair_send(&b);
    aio_set_fd_handler(f->ctx, a.fd[0], pair_forget_other, NULL, &a);
    aio_set_fd_handler(f->ctx, b.fd[0], pair_forget_other, NULL, &b);
    while (!a.n_read && !b.n_read) {
        aio_poll(f->ctx, true);
    }
    settle(f->ctx);
    g_assert_cmpint(a.n_read + b.n_read, ==, 1);
    pair_close(&a);
    pair_close(&b);
}

static void pair_drop_write(void *opaque)
{
    Pair *p = opaque;

    p->n_read++;
    aio_set_fd_handler(p->ctx, p->fd[0], NULL, NULL, NULL);
}

static void test_fd_forgotten_by_own_read_handler(Fixture *f, gconstpointer data)
{
    Pair p;

    pair_open(&p, f->ctx);
    pair_send(&p);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_drop_write, NULL, &p);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_drop_write, pair_count_write, &p);
    while (!p.n_read) {
        aio_poll(f->ctx, true);
    }
    p.n_write = 0;
    settle(f->ctx);
    g_assert_cmpint(p.n_read, ==, 1);
    g_assert_cmpint(p.n_write, ==, 0);
    pair_close(&p);
}

/*
 * The same number may be another file at once; the old one is really closed: its peer sees the end.
 */
static void test_fd_number_reused(Fixture *f, gconstpointer data)
{
    Pair a, b;
    char c;

    pair_open(&a, f->ctx);
    pair_open(&b, f->ctx);
    aio_set_fd_handler(f->ctx, a.fd[0], pair_count_read, NULL, &a);
    settle(f->ctx);
    aio_set_fd_handler(f->ctx, a.fd[0], NULL, NULL, NULL);
    close(a.fd[0]);
    g_assert_cmpint(read(a.fd[1], &c, 1), ==, 0);
    g_assert_cmpint(dup2(b.fd[0], a.fd[0]), ==, a.fd[0]);
    aio_set_fd_handler(f->ctx, a.fd[0], pair_count_write, NULL, &a);
    settle(f->ctx);
    g_assert_cmpint(a.n_write, ==, 0);
    pair_send(&b);
    while (!a.n_write) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpint(a.n_read, ==, 0);
    pair_close(&a);
    pair_close(&b);
}

static void test_fd_hang_up_reaches_both_sides(Fixture *f, gconstpointer data)
{
    Pair p;
    int fd;

    pair_open(&p, f->ctx);
    /* A full socket: only the error makes it "writable". */
    while (write(p.fd[0], "xxxxxxxxxxxxxxxx", 16) > 0) {
    }
    aio_set_fd_handler(f->ctx, p.fd[0], pair_count_read, pair_count_write, &p);
    settle(f->ctx);
    g_assert_cmpint(p.n_read + p.n_write, ==, 0);
    fd = p.fd[1];
    p.fd[1] = dup(fd);
    close(fd);
    settle(f->ctx);
    g_assert_cmpint(p.n_read + p.n_write, ==, 0);
    close(p.fd[1]);
    p.fd[1] = -1;
    while (!p.n_read || !p.n_write) {
        aio_poll(f->ctx, true);
    }
    pair_close(&p);
}

static void test_fd_regular_file_is_always_ready(Fixture *f, gconstpointer data)
{
    Pair p = {.ctx = f->ctx, .fd = {-1, -1}};
    g_autofree char *name = NULL;

    p.fd[0] = g_file_open_tmp("ferry-aio-XXXXXX", &name, NULL);
    g_assert_cmpint(p.fd[0], >=, 0);
    aio_set_fd_handler(f->ctx, p.fd[0], pair_count_read, NULL, &p);
    while (p.n_read < 3) {
        g_assert_true(aio_poll(f->ctx, true));
    }
    pair_close(&p);
    g_unlink(name);
}

static void test_fd_many(Fixture *f, gconstpointer data)
{
    enum {
        N = 400, /* more than a batch of events or a submission queue holds */
    };
    g_autofree Pair *pairs = g_new(Pair, N);
    int total = 0;

    for (int i = 0; i < N; i++) {
        pair_open(&pairs[i], f->ctx);
        aio_set_fd_handler(f->ctx, pairs[i].fd[0], pair_take, NULL, &pairs[i]);
    }
    settle(f->ctx);
    for (int i = 0; i < N; i++) {
        pair_send(&pairs[i]);
    }
    while (total < N) {
        aio_poll(f->ctx, true);
        total = 0;
        for (int i = 0; i < N; i++) {
            g_assert_cmpint(pairs[i].n_read, <=, 1);
            total += pairs[i].n_read;
        }
    }
    for (int i = 0; i < N; i++) {
        pair_close(&pairs[i]);
    }
}

/* --- timers --- */

static void test_timer_order(Fixture *f, gconstpointer data)
{
    g_autoptr(GString) log = g_string_new(NULL);
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    QEMUTimer *t[4];

    for (int i = 0; i < 4; i++) {
        t[i] = aio_timer_new(f->ctx, QEMU_CLOCK_REALTIME, i % 2 ? append_b : append_a, log);
        g_assert_false(timer_pending(t[i]));
        g_assert_cmpint(timer_expire_ns(t[i]), ==, -1);
    }
    timer_mod_ns(t[0], now + 4 * SCALE_MS);
    timer_mod_ns(t[1], now + 2 * SCALE_MS);
    timer_mod_ns(t[3], now + 4 * SCALE_MS); /* same time as t[0]: after it */
    timer_mod_ns(t[2], now + 3 * SCALE_MS);
    g_assert_cmpint(timer_expire_ns(t[1]), ==, now + 2 * SCALE_MS);
    while (log->len < 4) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpstr(log->str, ==, "baab");
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_REALTIME), >=, now + 4 * SCALE_MS);
    for (int i = 0; i < 4; i++) {
        g_assert_false(timer_pending(t[i]));
        timer_free(t[i]);
    }
    timer_free(NULL);
}

typedef struct TimerPeers {
    QEMUTimer *t[3];
    int n;
} TimerPeers;

static void timer_free_others(void *opaque)
{
    TimerPeers *p = opaque;

    p->n++;
    timer_del(p->t[1]);
    timer_free(p->t[2]);
    timer_free(p->t[0]);
}

/* All expired in the same turn; the first to fire takes the others away. */
static void test_timer_deleted_while_firing(Fixture *f, gconstpointer data)
{
    TimerPeers p = {0};

    for (int i = 0; i < 3; i++) {
        p.t[i] = aio_timer_new(f->ctx, QEMU_CLOCK_REALTIME, timer_free_others, &p);
        timer_mod_ns(p.t[i], 1 + i);
    }
    aio_poll(f->ctx, true);
    settle(f->ctx);
    g_assert_cmpint(p.n, ==, 1);
    g_assert_false(timer_pending(p.t[1]));
    timer_free(p.t[1]);
}

static void timer_rearm_in_the_past(void *opaque)
{
    TimerPeers *p = opaque;

    p->n++;
    timer_mod_ns(p->t[0], 0);
}

static void test_timer_rearmed_in_the_past_fires_once_a_turn(Fixture *f, gconstpointer data)
{
    TimerPeers p = {0};

    p.t[0] = aio_timer_new(f->ctx, QEMU_CLOCK_VIRTUAL, timer_rearm_in_the_past, &p);
    timer_mod_ns(p.t[0], 0);
    for (int i = 1; i <= 3; i++) {
        g_assert_true(aio_poll(f->ctx, true));
        g_assert_cmpint(p.n, ==, i);
    }
    timer_free(p.t[0]);
}

typedef struct HeapTimer {
    QEMUTimer *timer;
    int64_t *last;
    int64_t when;
    int *fired;
} HeapTimer;

static void heap_timer_cb(void *opaque)
{
    HeapTimer *h = opaque;

    g_assert_cmpint(h->when, >=, *h->last);
    *h->last = h->when;
    (*h->fired)++;
}

static void test_timer_random(Fixture *f, gconstpointer data)
{
    enum {
        N = 500,
    };
    const guint32 seed = 20260101;
    g_autoptr(GRand) rng = g_rand_new_with_seed(seed);
    g_autofree HeapTimer *h = g_new0(HeapTimer, N);
    int64_t last = 0;
    int fired = 0, armed = 0;

    g_test_message("seed %u", seed);
    for (int i = 0; i < N; i++) {
        h[i].timer = aio_timer_new(f->ctx, QEMU_CLOCK_HOST, heap_timer_cb, &h[i]);
        h[i].last = &last;
        h[i].fired = &fired;
    }
    for (int i = 0; i < 5 * N; i++) {
        HeapTimer *one = &h[g_rand_int_range(rng, 0, N)];

        if (g_rand_int_range(rng, 0, 4) == 0) {
            timer_del(one->timer);
        } else {
            one->when = g_rand_int_range(rng, 0, 1000);
            timer_mod_ns(one->timer, one->when);
        }
    }
    for (int i = 0; i < N; i++) {
        armed += timer_pending(h[i].timer);
    }
    aio_poll(f->ctx, true);
    g_assert_cmpint(fired, ==, armed);
    for (int i = 0; i < N; i++) {
        timer_free(h[i].timer);
    }
}

static int64_t stopped_clock_ns;
static bool stopped_clock_running;

static int64_t stopped_clock_get(void)
{
    return stopped_clock_ns;
}

static bool stopped_clock_is_running(void)
{
    return stopped_clock_running;
}

static void test_timer_of_stopped_virtual_clock(Fixture *f, gconstpointer data)
{
    static const QEMUVirtualClock clock = {stopped_clock_get, stopped_clock_is_running};
    QEMUTimer *timer, *guard;
    int n = 0, guarded = 0;

    stopped_clock_ns = 100;
    qemu_clock_set_virtual(&clock);
    timer = aio_timer_new(f->ctx, QEMU_CLOCK_VIRTUAL, count_cb, &n);
    guard = aio_timer_new(f->ctx, QEMU_CLOCK_REALTIME, count_cb, &guarded);
    timer_mod_ns(timer, 200);
    timer_mod_ns(guard, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + SCALE_MS);
    while (!guarded) {
        aio_poll(f->ctx, true);
    }
    g_assert_cmpint(n, ==, 0);
    stopped_clock_ns = 200;
    qemu_clock_notify(f->ctx);
    aio_poll(f->ctx, true);
    g_assert_cmpint(n, ==, 1);
    timer_free(timer);
    timer_free(guard);
    qemu_clock_set_virtual(NULL);
}

/* --- coroutines --- */

typedef struct Sleeper {
    QemuCoSleep sleep;
    bool done;
} Sleeper;

static void coroutine_fn sleeper_co_entry(void *opaque)
{
    Sleeper *s = opaque;

    qemu_co_sleep_ns_wakeable(&s->sleep, QEMU_CLOCK_REALTIME, 3600 * NANOSECONDS_PER_SECOND);
    s->done = true;
}

static void test_co_sleep_cut_short(Fixture *f, gconstpointer data)
{
    Sleeper s = {0};

    qemu_co_sleep_wake(&s.sleep);
    qemu_coroutine_enter(qemu_coroutine_create(sleeper_co_entry, &s));
    g_assert_false(s.done);
    qemu_co_sleep_wake(&s.sleep);
    qemu_co_sleep_wake(&s.sleep);
    g_assert_false(s.done); /* never inside the call */
    aio_poll(f->ctx, true);
    g_assert_true(s.done);
}

static void coroutine_fn sleep_co_entry(void *opaque)
{
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 2 * SCALE_MS);
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_REALTIME), >=, start + 2 * SCALE_MS);
    qemu_co_sleep_ns(QEMU_CLOCK_VIRTUAL, 0);
    qemu_co_sleep_ns(QEMU_CLOCK_HOST, -1);
    *(bool *)opaque = true;
}

static void test_co_sleep(Fixture *f, gconstpointer data)
{
    bool done = false;

    aio_run_coroutine(sleep_co_entry, &done);
    g_assert_true(done);
}

static void coroutine_fn wait_co_entry(void *opaque)
{
    qemu_coroutine_yield();
    *(bool *)opaque = true;
}

static void test_co_schedule_twice_aborts(Fixture *f, gconstpointer data)
{
    if (g_test_subprocess()) {
        bool done = false;
        Coroutine *co = qemu_coroutine_create(wait_co_entry, &done);

        qemu_coroutine_enter(co);
        aio_co_wake(co);
        aio_co_wake(co);
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_failed();
}

static void coroutine_fn yield_to_loop_co_entry(void *opaque)
{
    int *n = opaque;

    for (int i = 0; i < 3; i++) {
        (*n)++;
        qemu_co_yield_to_loop();
    }
}

static void test_co_yield_to_loop(Fixture *f, gconstpointer data)
{
    int a = 0, b = 0;

    qemu_coroutine_enter(qemu_coroutine_create(yield_to_loop_co_entry, &a));
    aio_co_schedule(f->ctx, qemu_coroutine_create(yield_to_loop_co_entry, &b));
    for (int i = 2; i <= 3; i++) {
        aio_poll(f->ctx, true);
        g_assert_cmpint(a, ==, i);
        g_assert_cmpint(b, ==, i - 1);
    }
    aio_poll(f->ctx, true);
    g_assert_cmpint(b, ==, 3);
    aio_poll(f->ctx, true);
    g_assert_false(aio_poll(f->ctx, false)); /* both have ended */
}

static void *wake_from_thread(void *opaque)
{
    aio_co_wake(opaque);
    return NULL;
}

static void test_co_wake_from_other_thread(Fixture *f, gconstpointer data)
{
    for (int i = 0; i < 100; i++) {
        bool done = false;
        Coroutine *co = qemu_coroutine_create(wait_co_entry, &done);
        GThread *thread;

        qemu_coroutine_enter(co);
        g_assert_true(qemu_coroutine_get_aio_context(co) == f->ctx);
        thread = g_thread_new("wake", wake_from_thread, co);
        while (!done) {
            aio_poll(f->ctx, true);
        }
        g_thread_join(thread);
    }
}

/* Counts the mapped stacks by their guard pages: mappings without any access right. */
static int count_guard_pages(void)
{
    g_autofree char *maps = NULL;
    int n = 0;

    g_assert_true(g_file_get_contents("/proc/self/maps", &maps, NULL, NULL));
    for (const char *at = maps; (at = strstr(at, " ---p ")); at++) {
        n++;
    }
    return n;
}

static void test_idle_loop_gives_stacks_back(Fixture *f, gconstpointer data)
{
    enum {
        N = 100,
    };
    Coroutine *co[N];
    bool done;
    int before;

#ifdef SANITIZER
    g_test_skip("with a sanitizer there is no pool of stacks");
    return;
#endif
    for (int i = 0; i < N; i++) {
        co[i] = qemu_coroutine_create(wait_co_entry, &done);
        qemu_coroutine_enter(co[i]);
    }
    before = count_guard_pages();
    for (int i = 0; i < N; i++) {
        qemu_coroutine_enter(co[i]);
    }
    g_assert_false(aio_poll(f->ctx, true)); /* would be for ever, were there nothing to give back */
    g_assert_cmpint(count_guard_pages(), <=, before - N / 2);
}

/* --- disk I/O --- */

typedef struct Disk {
    AioDiskEngine engine;
    int fd;
    bool done;
} Disk;

static void coroutine_fn disk_co_entry(void *opaque)
{
    Disk *d = opaque;
    char a[1000], b[3000], c[8000];
    struct iovec out[] = {{a, sizeof(a)}, {b, sizeof(b)}};
    struct iovec in = {c, sizeof(c)};
    int bad_fd;

    memset(a, 1, sizeof(a));
    memset(b, 2, sizeof(b));
    g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, out, 2, 500, false), ==, 4000);
    g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, &out[1], 1, 4500, true), ==, 3000);
    g_assert_cmpint(aio_co_fdatasync(d->engine, d->fd), ==, 0);
    memset(c, 3, sizeof(c));
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &in, 1, 0), ==, 7500); /* short: end of file */
    g_assert_cmpint(c[0], ==, 0);
    g_assert_cmpint(c[499], ==, 0);
    g_assert_cmpint(c[500], ==, 1);
    g_assert_cmpint(c[1499], ==, 1);
    g_assert_cmpint(c[1500], ==, 2);
    g_assert_cmpint(c[7499], ==, 2);
    g_assert_cmpint(c[7500], ==, 3);
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, out, 2, 1499), ==, 4000);
    g_assert_cmpint(a[0], ==, 1);
    g_assert_cmpint(a[1], ==, 2);
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &in, 1, 7500), ==, 0);
    g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &in, 1, -1), ==, -EINVAL);
    g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, &in, 1, -1, false), ==, -EINVAL);

    bad_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(aio_co_pwritev(d->engine, bad_fd, &in, 1, 0, true), ==, -EBADF);
    close(bad_fd);
    g_assert_cmpint(aio_co_preadv(d->engine, bad_fd, &in, 1, 0), ==, -EBADF);
    g_assert_cmpint(aio_co_fdatasync(d->engine, bad_fd), ==, -EBADF);
    d->done = true;
}

static void test_disk(Fixture *f, gconstpointer data)
{
    for (AioDiskEngine engine = AIO_DISK_IO_URING; engine <= AIO_DISK_THREADS; engine++) {
        g_autofree char *name = NULL;
        Disk d = {.engine = engine, .fd = g_file_open_tmp("ferry-aio-XXXXXX", &name, NULL)};

        g_assert_cmpint(d.fd, >=, 0);
        aio_run_coroutine(disk_co_entry, &d);
        g_assert_true(d.done);
        close(d.fd);
        g_unlink(name);
    }
}

typedef struct DiskMany {
    AioDiskEngine engine;
    int fd;
    int index;
    int *done;
} DiskMany;

static void coroutine_fn disk_many_co_entry(void *opaque)
{
    DiskMany *d = opaque;
    char out[512], in[512];
    struct iovec iov = {out, sizeof(out)};

    for (int i = 0; i < 4; i++) {
        memset(out, d->index + i, sizeof(out));
        iov.iov_base = out;
        g_assert_cmpint(aio_co_pwritev(d->engine, d->fd, &iov, 1, d->index * 512, false), ==, 512);
        iov.iov_base = in;
        g_assert_cmpint(aio_co_preadv(d->engine, d->fd, &iov, 1, d->index * 512), ==, 512);
        g_assert_cmpmem(in, 512, out, 512);
    }
    (*d->done)++;
}

/*
 * More requests at once than the submission queue, the completion queue and the worker threads
 * hold.
 */
static void test_disk_many_at_once(Fixture *f, gconstpointer data)
{
    enum {
        N = 1500,
    };
    for (AioDiskEngine engine = AIO_DISK_IO_URING; engine <= AIO_DISK_THREADS; engine++) {
        g_autofree char *name = NULL;
        g_autofree DiskMany *d = g_new0(DiskMany, N);
        int fd = g_file_open_tmp("ferry-aio-XXXXXX", &name, NULL);
        int done = 0;

        g_assert_cmpint(fd, >=, 0);
        for (int i = 0; i < N; i++) {
            d[i] = (DiskMany){.engine = engine, .fd = fd, .index = i, .done = &done};
            qemu_coroutine_enter(qemu_coroutine_create(disk_many_co_entry, &d[i]));
        }
        while (done < N) {
            aio_poll(f->ctx, true);
        }
        close(fd);
        g_unlink(name);
    }
}

/* --- what does not depend on the back end --- */

static void test_backend_choice(void)
{
    g_autoptr(GError) err = NULL;
    AioContext *ctx;

    g_setenv("FERRY_AIO", "epoll", true);
    ctx = aio_context_new(AIO_BACKEND_AUTO, &err);
    g_assert_no_error(err);
    g_assert_cmpstr(aio_context_backend_name(ctx), ==, "epoll");
    aio_context_unref(ctx);
    g_setenv("FERRY_AIO", "nonsense", true);
    g_assert_null(aio_context_new(AIO_BACKEND_AUTO, &err));
    g_assert_nonnull(err);
    g_unsetenv("FERRY_AIO");
}

#define ADD(path, fn)                                                            \
    do {                                                                         \
        g_autofree char *full_ = g_strdup_printf("/aio/%s/%s", name, path);      \
        g_test_add(full_, Fixture, GINT_TO_POINTER(backend), fixture_set_up, fn, \
                   fixture_tear_down);                                           \
    } while (0)

static void add_tests(AioBackend backend, const char *name)
{
    ADD("bh/runs-once-however-often-scheduled", test_bh_runs_once_however_often_scheduled);
    ADD("bh/cancelled-or-deleted-does-not-run", test_bh_cancelled_or_deleted_does_not_run);
    ADD("bh/schedules-and-deletes-itself", test_bh_schedules_and_deletes_itself);
    ADD("bh/order", test_bh_order);
    ADD("bh/from-other-threads", test_bh_from_other_threads);
    ADD("notify-ends-wait", test_notify_ends_wait);
    ADD("fd/level-triggered", test_fd_level_triggered);
    ADD("fd/sides-are-independent", test_fd_sides_are_independent);
    ADD("fd/forgotten-by-another-handler", test_fd_forgotten_by_another_handler);
    ADD("fd/forgotten-by-own-read-handler", test_fd_forgotten_by_own_read_handler);
    ADD("fd/number-reused", test_fd_number_reused);
    ADD("fd/hang-up-reaches-both-sides", test_fd_hang_up_reaches_both_sides);
    ADD("fd/regular-file-is-always-ready", test_fd_regular_file_is_always_ready);
    ADD("fd/many", test_fd_many);
    ADD("timer/order", test_timer_order);
    ADD("timer/deleted-while-firing", test_timer_deleted_while_firing);
    ADD("timer/rearmed-in-the-past-fires-once-a-turn",
        test_timer_rearmed_in_the_past_fires_once_a_turn);
    ADD("timer/random", test_timer_random);
    ADD("timer/of-stopped-virtual-clock", test_timer_of_stopped_virtual_clock);
    ADD("co/sleep-cut-short", test_co_sleep_cut_short);
    ADD("co/sleep", test_co_sleep);
    ADD("co/schedule-twice-aborts", test_co_schedule_twice_aborts);
    ADD("co/yield-to-loop", test_co_yield_to_loop);
    ADD("co/wake-from-other-thread", test_co_wake_from_other_thread);
    ADD("co/idle-loop-gives-stacks-back", test_idle_loop_gives_stacks_back);
    ADD("disk/one", test_disk);
    ADD("disk/many-at-once", test_disk_many_at_once);
}

int main(int argc, char **argv)
{
    AioContext *probe;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aio/backend-choice", test_backend_choice);
    add_tests(AIO_BACKEND_EPOLL, "epoll");
    probe = aio_context_new(AIO_BACKEND_IO_URING, NULL);
    if (probe) {
        aio_context_unref(probe);
        add_tests(AIO_BACKEND_IO_URING, "io_uring");
    } else {
        g_test_message("this system offers no io_uring");
    }
    return g_test_run();
}

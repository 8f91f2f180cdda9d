/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Timers, over each back end of the event loop: order, changes while they fire, other threads. */
#include "tests/unit/aio-fixture.h"

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
static bool stopped_clock_fires;

static int64_t stopped_clock_get(void)
{
    return stopped_clock_ns;
}

static bool stopped_clock_is_running(void)
{
    return false;
}

static bool stopped_clock_may_fire(void)
{
    return stopped_clock_fires;
}

static const QEMUVirtualClock stopped_clock = {stopped_clock_get, stopped_clock_is_running,
                                               stopped_clock_may_fire};

/* Polls until a real timer that was armed just now has fired: all that was due had its turn. */
static void poll_for_a_while(AioContext *ctx)
{
    int guarded = 0;
    QEMUTimer *guard = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, count_cb, &guarded);

    timer_mod_ns(guard, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + SCALE_MS);
    while (!guarded) {
        aio_poll(ctx, true);
    }
    timer_free(guard);
}

static void test_timer_of_stopped_virtual_clock(Fixture *f, gconstpointer data)
{
    QEMUTimer *timer;
    int n = 0;

    stopped_clock_ns = 100;
    stopped_clock_fires = true;
    qemu_clock_set_virtual(&stopped_clock);
    timer = aio_timer_new(f->ctx, QEMU_CLOCK_VIRTUAL, count_cb, &n);
    timer_mod_ns(timer, 200);
    poll_for_a_while(f->ctx);
    g_assert_cmpint(n, ==, 0);
    stopped_clock_ns = 200;
    qemu_clock_notify_all();
    aio_poll(f->ctx, true);
    g_assert_cmpint(n, ==, 1);
    timer_free(timer);
    qemu_clock_set_virtual(NULL);
}

static void test_timer_that_is_due_waits_for_a_stopped_guest(Fixture *f, gconstpointer data)
{
    QEMUTimer *timer;
    int n = 0;

    stopped_clock_ns = 100;
    stopped_clock_fires = false;
    qemu_clock_set_virtual(&stopped_clock);
    timer = aio_timer_new(f->ctx, QEMU_CLOCK_VIRTUAL, count_cb, &n);
    timer_mod_ns(timer, 50);
    poll_for_a_while(f->ctx);
    g_assert_cmpint(n, ==, 0);
    g_assert_true(timer_pending(timer));
    stopped_clock_fires = true;
    qemu_clock_notify_all();
    aio_poll(f->ctx, true);
    g_assert_cmpint(n, ==, 1);
    timer_free(timer);
    qemu_clock_set_virtual(NULL);
}

static void stop_clock_cb(void *opaque)
{
    ++*(int *)opaque;
    stopped_clock_fires = false;
}

/* The first of three due timers stops the guest; the others keep their order and their time. */
static void test_timer_due_with_one_that_stops_the_guest_waits(Fixture *f, gconstpointer data)
{
    g_autoptr(GString) log = g_string_new(NULL);
    QEMUTimer *stop, *a, *b;
    int n = 0;

    stopped_clock_ns = 100;
    stopped_clock_fires = true;
    qemu_clock_set_virtual(&stopped_clock);
    stop = aio_timer_new(f->ctx, QEMU_CLOCK_VIRTUAL, stop_clock_cb, &n);
    a = aio_timer_new(f->ctx, QEMU_CLOCK_VIRTUAL, append_a, log);
    b = aio_timer_new(f->ctx, QEMU_CLOCK_VIRTUAL, append_b, log);
    timer_mod_ns(stop, 50);
    timer_mod_ns(b, 60);
    timer_mod_ns(a, 70);
    poll_for_a_while(f->ctx);
    g_assert_cmpint(n, ==, 1);
    g_assert_cmpuint(log->len, ==, 0);
    g_assert_cmpint(timer_expire_ns(b), ==, 60);
    stopped_clock_fires = true;
    qemu_clock_notify_all();
    poll_for_a_while(f->ctx);
    g_assert_cmpstr(log->str, ==, "ba");
    timer_free(stop);
    timer_free(a);
    timer_free(b);
    qemu_clock_set_virtual(NULL);
}

/* --- from other threads --- */

enum {
    STORM_TIMERS = 8,
    STORM_ROUNDS = 2000,
    STORM_THREADS = 3,
};

static void *arm_from_thread(void *opaque)
{
    timer_mod_ns(opaque, 0);
    return NULL;
}

/* The loop waits for ever, or for a time an hour away, when another thread arms a sooner timer. */
static void test_timer_armed_by_another_thread_ends_wait(Fixture *f, gconstpointer data)
{
    int late = 0, n = 0;
    QEMUTimer *timer = aio_timer_new(f->ctx, QEMU_CLOCK_REALTIME, count_cb, &n);
    QEMUTimer *later = aio_timer_new(f->ctx, QEMU_CLOCK_REALTIME, count_cb, &late);

    for (int i = 1; i <= 200; i++) {
        GThread *thread = g_thread_new("arm", arm_from_thread, timer);

        while (n < i) {
            aio_poll(f->ctx, true);
        }
        g_thread_join(thread);
        g_assert_cmpint(n, ==, i);
        g_assert_false(timer_pending(timer));
        if (i == 100) {
            timer_mod_ns(later,
                         qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + 3600 * NANOSECONDS_PER_SECOND);
        }
    }
    g_assert_cmpint(late, ==, 0);
    timer_free(later);
    timer_free(timer);
}

typedef struct Storm {
    QEMUTimer *timers[STORM_TIMERS];
    QEMUBH *bh;
    AioContext *ctx;
    int running; /* threads, atomic */
    uint64_t fired;
    int bh_runs;
} Storm;

static void storm_fired(void *opaque)
{
    Storm *s = opaque;

    s->fired++;
    /* Callbacks re-arm and disarm among the others. */
    if (s->fired % 3 == 0) {
        timer_mod_ns(s->timers[s->fired % STORM_TIMERS], 0);
    } else if (s->fired % 7 == 0) {
        timer_del(s->timers[s->fired % STORM_TIMERS]);
    }
}

static void storm_ended(void *opaque)
{
    Storm *s = opaque;

    s->running--;
}

static void *storm_thread(void *opaque)
{
    Storm *s = opaque;

    for (int i = 0; i < STORM_ROUNDS; i++) {
        QEMUTimer *timer = s->timers[(i * 5) % STORM_TIMERS];
        int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

        switch (i % 4) {
        case 0:
            timer_mod_ns(timer, now_ns + 3600 * NANOSECONDS_PER_SECOND);
            break;
        case 1:
            timer_del(timer);
            break;
        case 2:
            qemu_bh_schedule(s->bh);
            g_assert_cmpint(timer_expire_ns(timer), >=, -1);
            break;
        default:
            timer_mod_ns(timer, now_ns);
        }
        if (i % 16 == 0) {
            qemu_bh_cancel(s->bh);
        }
    }
    aio_bh_schedule_oneshot(s->ctx, storm_ended, s);
    return NULL;
}

/* Threads arm and disarm the same timers while the loop fires them: each is still whole after it. */
static void test_timer_storm_of_threads(Fixture *f, gconstpointer data)
{
    Storm s = {.ctx = f->ctx, .running = STORM_THREADS};
    GThread *threads[STORM_THREADS];
    uint64_t before;

    s.bh = aio_bh_new(f->ctx, count_cb, &s.bh_runs);
    for (int i = 0; i < STORM_TIMERS; i++) {
        s.timers[i] = aio_timer_new(f->ctx, QEMU_CLOCK_REALTIME, storm_fired, &s);
    }
    for (int i = 0; i < STORM_THREADS; i++) {
        threads[i] = g_thread_new("storm", storm_thread, &s);
    }
    while (s.running) {
        aio_poll(f->ctx, true);
    }
    for (int i = 0; i < STORM_THREADS; i++) {
        g_thread_join(threads[i]);
    }
    for (int i = 0; i < STORM_TIMERS; i++) {
        timer_del(s.timers[i]);
        g_assert_false(timer_pending(s.timers[i]));
    }
    before = s.fired;
    g_assert_cmpuint(before, >, 0);
    while (aio_poll(f->ctx, false)) {
    }
    g_assert_cmpuint(s.fired, ==, before);
    for (int i = 0; i < STORM_TIMERS; i++) {
        timer_free(s.timers[i]);
    }
    qemu_bh_delete(s.bh);
}

static void add_tests(AioBackend backend, const char *name)
{
    ADD("timer/order", test_timer_order);
    ADD("timer/deleted-while-firing", test_timer_deleted_while_firing);
    ADD("timer/rearmed-in-the-past-fires-once-a-turn",
        test_timer_rearmed_in_the_past_fires_once_a_turn);
    ADD("timer/random", test_timer_random);
    ADD("timer/of-stopped-virtual-clock", test_timer_of_stopped_virtual_clock);
    ADD("timer/due-waits-for-a-stopped-guest", test_timer_that_is_due_waits_for_a_stopped_guest);
    ADD("timer/due-with-one-that-stops-the-guest",
        test_timer_due_with_one_that_stops_the_guest_waits);
    ADD("timer/armed-by-another-thread-ends-wait", test_timer_armed_by_another_thread_ends_wait);
    ADD("timer/storm-of-threads", test_timer_storm_of_threads);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    return fixture_run(add_tests);
}

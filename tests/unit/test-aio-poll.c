/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Polling before a sleep, its time, and event descriptors, over each back end. */
#include <sys/eventfd.h>
#include <unistd.h>
#include "tests/unit/aio-fixture.h"
#include "util/aio-int.h"
#include "util/aio-event.h"

/* --- how long --- */

static const AioPollParams params = {.max_ns = 32768};

static void test_time_grows_with_short_waits_up_to_the_limit(void)
{
    PollTuner t = {.ns = 0};
    int64_t before = 0;

    for (int i = 0; i < 10; i++) {
        poll_tuner_slept(&t, &params, t.ns > 0, 30000);
        g_assert_cmpint(t.ns, >=, before);
        before = t.ns;
    }
    g_assert_cmpint(t.ns, >=, 30000);
    g_assert_cmpint(t.ns, <=, params.max_ns);
}

static void test_idle_loop_does_not_poll(void)
{
    PollTuner t = {.ns = 32768};

    poll_tuner_slept(&t, &params, true, 10 * SCALE_MS);
    g_assert_cmpint(t.ns, ==, 0);
    for (int i = 0; i < 1000; i++) {
        poll_tuner_slept(&t, &params, false, 10 * SCALE_MS);
        g_assert_cmpint(t.ns, ==, 0);
    }
}

static void test_grow_and_shrink_are_what_was_asked(void)
{
    static const AioPollParams asked = {.max_ns = 1000000, .grow = 4, .shrink = 5};
    PollTuner t = {.ns = 10000};

    poll_tuner_slept(&t, &asked, true, 20000);
    g_assert_cmpint(t.ns, ==, 40000);
    poll_tuner_slept(&t, &asked, true, 2000000);
    g_assert_cmpint(t.ns, ==, 8000);
}

/* Of the waits on a machine where polling never finds anything, few are polled. */
static void test_vain_polling_gets_rare(void)
{
    PollTuner t = {.ns = 0};
    int polled = 0;

    for (int i = 0; i < 10000; i++) {
        bool now = t.ns && !t.suspended;

        polled += now;
        poll_tuner_slept(&t, &params, now, now ? 100000 : 10000);
    }
    g_assert_cmpint(polled, <, 100);
    g_assert_cmpint(polled, >, 0);
}

static void test_lost_processor_suspends_polling(void)
{
    PollTuner t = {.ns = 32768};

    poll_tuner_lost_processor(&t);
    for (int i = 0; i < 32; i++) {
        poll_tuner_slept(&t, &params, false, 10000);
        g_assert_true(!t.ns || t.suspended);
    }
    for (int i = 0; i < 100; i++) {
        poll_tuner_slept(&t, &params, false, 10000);
    }
    g_assert_true(t.ns && !t.suspended);
}

static void test_huge_limits_do_not_overflow(void)
{
    static const AioPollParams huge = {.max_ns = INT64_MAX, .grow = INT64_MAX, .shrink = INT64_MAX};
    PollTuner t = {.ns = 0};

    for (int i = 0; i < 10; i++) {
        poll_tuner_slept(&t, &huge, false, INT64_MAX);
        g_assert_cmpint(t.ns, >, 0);
    }
}

/* --- event descriptors --- */

typedef struct Queue {
    AioContext *ctx;
    int fd;
    int work; /* in memory */
    int done;
    int calls;
} Queue;

static void queue_cb(void *opaque)
{
    Queue *q = opaque;

    q->calls++;
    q->done += q->work;
    q->work = 0;
}

static bool queue_ready(void *opaque)
{
    return ((Queue *)opaque)->work > 0;
}

static void queue_open(Queue *q, Fixture *f, int flags, AioReadyFunc *ready)
{
    *q = (Queue){.ctx = f->ctx, .fd = eventfd(0, EFD_CLOEXEC | flags)};
    g_assert_cmpint(q->fd, >=, 0);
    aio_set_event_handler(q->ctx, q->fd, queue_cb, ready, q);
}

static void queue_close(Queue *q)
{
    aio_set_event_handler(q->ctx, q->fd, NULL, NULL, NULL);
    close(q->fd);
    settle(q->ctx);
}

static void kick(Queue *q)
{
    uint64_t one = 1;

    q->work++;
    g_assert_cmpint(write(q->fd, &one, sizeof(one)), ==, sizeof(one));
}

static void event_rounds(Fixture *f, int flags)
{
    Queue q;

    queue_open(&q, f, flags, NULL);
    settle(f->ctx);
    g_assert_cmpint(q.calls, ==, 0);
    for (int i = 1; i <= 10; i++) {
        kick(&q);
        kick(&q);
        while (q.done < 2 * i) {
            aio_poll(f->ctx, true);
        }
    }
    settle(f->ctx);
    g_assert_cmpint(q.calls, >=, 10);
    g_assert_cmpint(q.calls, <=, 20); /* the count was taken: nothing is called again */
    queue_close(&q);
}

static void test_event_is_taken_by_the_loop(Fixture *f, gconstpointer data)
{
    event_rounds(f, 0);
}

static void test_event_that_does_not_block(Fixture *f, gconstpointer data)
{
    event_rounds(f, EFD_NONBLOCK);
}

static void test_event_forgotten_is_not_called(Fixture *f, gconstpointer data)
{
    Queue q;

    queue_open(&q, f, 0, queue_ready);
    settle(f->ctx);
    kick(&q);
    queue_close(&q);
    g_assert_cmpint(q.calls, ==, 0);
}

static void late_cb(void *opaque)
{
    *(bool *)opaque = true;
}

/* Work that a guest leaves in memory, without a notification, while the loop polls. */
static void test_work_in_memory_needs_no_write(Fixture *f, gconstpointer data)
{
    bool late = false;
    QEMUTimer *timer = aio_timer_new(f->ctx, QEMU_CLOCK_REALTIME, late_cb, &late);
    uint64_t sleeps;
    Queue q;

    if (!f->ctx->ops->pending) {
        g_test_skip("this back end does not poll");
        timer_free(timer);
        return;
    }
    aio_context_set_poll_params(f->ctx, &(AioPollParams){.max_ns = 10 * NANOSECONDS_PER_SECOND});
    f->ctx->poll_tuner = (PollTuner){.ns = 10 * NANOSECONDS_PER_SECOND};
    queue_open(&q, f, 0, queue_ready);
    settle(f->ctx);
    timer_mod_ns(timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + 20 * NANOSECONDS_PER_SECOND);
    sleeps = aio_context_sleeps(f->ctx);
    q.work = 1;
    g_assert_true(aio_poll(f->ctx, true));
    g_assert_cmpint(q.done, ==, 1);
    g_assert_false(late);
    g_assert_cmpuint(aio_context_sleeps(f->ctx), ==, sleeps);
    timer_free(timer);
    queue_close(&q);
}

static void add_tests(AioBackend backend, const char *name)
{
    ADD("event/taken-by-the-loop", test_event_is_taken_by_the_loop);
    ADD("event/does-not-block", test_event_that_does_not_block);
    ADD("event/forgotten-is-not-called", test_event_forgotten_is_not_called);
    ADD("event/work-in-memory-needs-no-write", test_work_in_memory_needs_no_write);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aio-poll/time-grows-with-short-waits-up-to-the-limit",
                    test_time_grows_with_short_waits_up_to_the_limit);
    g_test_add_func("/aio-poll/idle-loop-does-not-poll", test_idle_loop_does_not_poll);
    g_test_add_func("/aio-poll/grow-and-shrink-are-what-was-asked",
                    test_grow_and_shrink_are_what_was_asked);
    g_test_add_func("/aio-poll/vain-polling-gets-rare", test_vain_polling_gets_rare);
    g_test_add_func("/aio-poll/lost-processor-suspends-polling",
                    test_lost_processor_suspends_polling);
    g_test_add_func("/aio-poll/huge-limits-do-not-overflow", test_huge_limits_do_not_overflow);
    return fixture_run(add_tests);
}

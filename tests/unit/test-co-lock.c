/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Locks and queues between coroutines: exclusion, fairness, hand-over, several threads. */
#include <glib.h>
#include "util/aio.h"
#include "util/co-lock.h"
#include "util/iothread.h"

/* A cast of coroutines that write what they do to one log. */
typedef struct Stage {
    CoMutex mutex;
    CoQueue queue;
    CoRwlock rwlock;
    GString *log;
    int alive;
} Stage;

typedef struct Actor {
    Stage *stage;
    char name;
    Coroutine *co; /* while it waits for its cue */
} Actor;

static void stage_set_up(Stage *s)
{
    *s = (Stage){.log = g_string_new(NULL)};
    qemu_co_mutex_init(&s->mutex);
    qemu_co_queue_init(&s->queue);
    qemu_co_rwlock_init(&s->rwlock);
}

static void stage_tear_down(Stage *s)
{
    g_assert_cmpint(s->alive, ==, 0);
    qemu_co_mutex_destroy(&s->mutex);
    qemu_co_rwlock_destroy(&s->rwlock);
    g_assert_true(qemu_co_queue_empty(&s->queue));
    g_string_free(s->log, true);
}

static void settle(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

static void start(Actor *a, Stage *s, char name, CoroutineEntry *entry)
{
    *a = (Actor){.stage = s, .name = name};
    s->alive++;
    qemu_coroutine_enter(qemu_coroutine_create(entry, a));
}

static void coroutine_fn wait_for_cue_co(Actor *a)
{
    a->co = qemu_coroutine_self();
    qemu_coroutine_yield();
    a->co = NULL;
}

static void cue(Actor *a)
{
    g_assert_nonnull(a->co);
    qemu_coroutine_enter(a->co);
    settle();
}

static void say(Actor *a)
{
    g_string_append_c(a->stage->log, a->name);
}

static void coroutine_fn mutex_co_entry(void *opaque)
{
    Actor *a = opaque;

    qemu_co_mutex_lock(&a->stage->mutex);
    say(a);
    wait_for_cue_co(a);
    qemu_co_mutex_unlock(&a->stage->mutex);
    a->stage->alive--;
}

static void test_mutex_is_fair(void)
{
    Stage s;
    Actor a[3];

    stage_set_up(&s);
    start(&a[0], &s, 'a', mutex_co_entry);
    start(&a[1], &s, 'b', mutex_co_entry);
    start(&a[2], &s, 'c', mutex_co_entry);
    g_assert_cmpstr(s.log->str, ==, "a");
    cue(&a[0]);
    g_assert_cmpstr(s.log->str, ==, "ab");
    cue(&a[1]);
    g_assert_cmpstr(s.log->str, ==, "abc");
    cue(&a[2]);
    stage_tear_down(&s);
}

static void coroutine_fn mutex_greedy_co_entry(void *opaque)
{
    Actor *a = opaque;

    for (int i = 0; i < 3; i++) {
        qemu_co_mutex_lock(&a->stage->mutex);
        say(a);
        qemu_co_yield_to_loop();
        qemu_co_mutex_unlock(&a->stage->mutex);
    }
    a->stage->alive--;
}

/* A coroutine that unlocks and locks again at once stands behind those that waited. */
static void test_mutex_is_handed_over(void)
{
    Stage s;
    Actor a[3];

    stage_set_up(&s);
    start(&a[0], &s, 'a', mutex_greedy_co_entry);
    start(&a[1], &s, 'b', mutex_greedy_co_entry);
    start(&a[2], &s, 'c', mutex_greedy_co_entry);
    settle();
    g_assert_cmpstr(s.log->str, ==, "abcabcabc");
    stage_tear_down(&s);
}

static void coroutine_fn mutex_twice_co_entry(void *opaque)
{
    CoMutex mutex;

    qemu_co_mutex_init(&mutex);
    qemu_co_mutex_lock(&mutex);
    qemu_co_mutex_lock(&mutex);
}

static void test_mutex_locked_twice_aborts(void)
{
    if (g_test_subprocess()) {
        qemu_coroutine_enter(qemu_coroutine_create(mutex_twice_co_entry, NULL));
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_failed();
}

static void coroutine_fn queue_co_entry(void *opaque)
{
    Actor *a = opaque;

    qemu_co_queue_wait(&a->stage->queue, NULL);
    say(a);
    a->stage->alive--;
}

static void test_queue_wakes_in_order(void)
{
    Stage s;
    Actor a[4];

    stage_set_up(&s);
    g_assert_false(qemu_co_queue_next(&s.queue));
    for (int i = 0; i < 4; i++) {
        start(&a[i], &s, 'a' + i, queue_co_entry);
    }
    g_assert_false(qemu_co_queue_empty(&s.queue));
    g_assert_true(qemu_co_queue_next(&s.queue));
    g_assert_cmpstr(s.log->str, ==, ""); /* from the loop, not inside the call */
    settle();
    g_assert_cmpstr(s.log->str, ==, "a");
    qemu_co_queue_restart_all(&s.queue);
    g_assert_true(qemu_co_queue_empty(&s.queue));
    settle();
    g_assert_cmpstr(s.log->str, ==, "abcd");
    stage_tear_down(&s);
}

static void coroutine_fn queue_mutex_co_entry(void *opaque)
{
    Actor *a = opaque;

    qemu_co_mutex_lock(&a->stage->mutex);
    qemu_co_queue_wait(&a->stage->queue, &a->stage->mutex);
    say(a);
    qemu_co_yield_to_loop(); /* still locked: no other coroutine writes in between */
    say(a);
    qemu_co_mutex_unlock(&a->stage->mutex);
    a->stage->alive--;
}

static void test_queue_wait_takes_mutex_again(void)
{
    Stage s;
    Actor a[3];

    stage_set_up(&s);
    for (int i = 0; i < 3; i++) {
        start(&a[i], &s, 'a' + i, queue_mutex_co_entry);
    }
    qemu_co_queue_restart_all(&s.queue);
    settle();
    g_assert_cmpstr(s.log->str, ==, "aabbcc");
    stage_tear_down(&s);
}

static void coroutine_fn reader_co_entry(void *opaque)
{
    Actor *a = opaque;

    qemu_co_rwlock_rdlock(&a->stage->rwlock);
    say(a);
    wait_for_cue_co(a);
    qemu_co_rwlock_unlock(&a->stage->rwlock);
    a->stage->alive--;
}

static void coroutine_fn writer_co_entry(void *opaque)
{
    Actor *a = opaque;

    qemu_co_rwlock_wrlock(&a->stage->rwlock);
    say(a);
    wait_for_cue_co(a);
    qemu_co_rwlock_unlock(&a->stage->rwlock);
    a->stage->alive--;
}

static void test_rwlock_is_fair(void)
{
    Stage s;
    Actor a[7];

    stage_set_up(&s);
    start(&a[0], &s, 'r', reader_co_entry);
    start(&a[1], &s, 's', reader_co_entry);
    g_assert_cmpstr(s.log->str, ==, "rs"); /* together */
    start(&a[2], &s, 'W', writer_co_entry);
    start(&a[3], &s, 't', reader_co_entry); /* behind the writer */
    start(&a[4], &s, 'u', reader_co_entry);
    start(&a[5], &s, 'X', writer_co_entry);
    start(&a[6], &s, 'v', reader_co_entry);
    cue(&a[0]);
    g_assert_cmpstr(s.log->str, ==, "rs");
    cue(&a[1]);
    g_assert_cmpstr(s.log->str, ==, "rsW");
    cue(&a[2]);
    g_assert_cmpstr(s.log->str, ==, "rsWtu"); /* both readers, and no further than the writer */
    cue(&a[4]);
    g_assert_cmpstr(s.log->str, ==, "rsWtu");
    cue(&a[3]);
    g_assert_cmpstr(s.log->str, ==, "rsWtuX");
    cue(&a[5]);
    g_assert_cmpstr(s.log->str, ==, "rsWtuXv");
    cue(&a[6]);
    stage_tear_down(&s);
}

/* --- several threads --- */

enum {
    CROWD = 20,
    CROWD_ROUNDS = 500,
};

typedef struct Crowd {
    CoMutex mutex;
    CoRwlock rwlock;
    CoQueue queue;
    AioContext *home[2];
    int counter;  /* protected by mutex or by rwlock's writer; not atomic on purpose */
    int mirrored; /* always counter, seen from outside the lock's holder */
    int finished; /* atomic */
} Crowd;

static void crowd_finish(Crowd *c)
{
    __atomic_fetch_add(&c->finished, 1, __ATOMIC_RELEASE);
    aio_notify(qemu_get_aio_context());
}

static void coroutine_fn crowd_mutex_co_entry(void *opaque)
{
    Crowd *c = opaque;
    AioContext *home = qemu_get_current_aio_context();

    for (int i = 0; i < CROWD_ROUNDS; i++) {
        qemu_co_mutex_lock(&c->mutex);
        g_assert_true(qemu_get_current_aio_context() == home);
        g_assert_cmpint(c->counter, ==, c->mirrored);
        c->counter++;
        if (i % 8 == 0) {
            qemu_co_yield_to_loop();
        }
        c->mirrored++;
        qemu_co_mutex_unlock(&c->mutex);
    }
    crowd_finish(c);
}

static void coroutine_fn crowd_rwlock_co_entry(void *opaque)
{
    Crowd *c = opaque;

    for (int i = 0; i < CROWD_ROUNDS; i++) {
        if (i % 4 == 0) {
            qemu_co_rwlock_wrlock(&c->rwlock);
            c->counter++;
            qemu_co_yield_to_loop();
            c->mirrored++;
        } else {
            qemu_co_rwlock_rdlock(&c->rwlock);
            g_assert_cmpint(c->counter, ==, c->mirrored);
        }
        qemu_co_rwlock_unlock(&c->rwlock);
    }
    crowd_finish(c);
}

/* Pairs hand a token over and back through a queue guarded by the mutex. */
static void coroutine_fn crowd_queue_co_entry(void *opaque)
{
    Crowd *c = opaque;

    for (int i = 0; i < CROWD_ROUNDS; i++) {
        qemu_co_mutex_lock(&c->mutex);
        c->counter++;
        qemu_co_queue_next(&c->queue);
        if (c->counter % 2 && c->counter < CROWD * CROWD_ROUNDS / 2) {
            qemu_co_queue_wait(&c->queue, &c->mutex);
        }
        c->mirrored++;
        qemu_co_mutex_unlock(&c->mutex);
    }
    qemu_co_mutex_lock(&c->mutex);
    qemu_co_queue_restart_all(&c->queue);
    qemu_co_mutex_unlock(&c->mutex);
    crowd_finish(c);
}

static void run_crowd(Crowd *c, CoroutineEntry *entry)
{
    IOThread *threads[2];

    *c = (Crowd){0};
    qemu_co_mutex_init(&c->mutex);
    qemu_co_rwlock_init(&c->rwlock);
    qemu_co_queue_init(&c->queue);
    for (int i = 0; i < 2; i++) {
        threads[i] = iothread_new(i ? "one" : "zero", NULL);
        g_assert_nonnull(threads[i]);
    }
    for (int i = 0; i < CROWD; i++) {
        aio_co_schedule(iothread_get_aio_context(threads[i % 2]), qemu_coroutine_create(entry, c));
    }
    while (__atomic_load_n(&c->finished, __ATOMIC_ACQUIRE) < CROWD) {
        aio_poll(qemu_get_aio_context(), true);
    }
    for (int i = 0; i < 2; i++) {
        iothread_free(threads[i]);
    }
    g_assert_cmpint(c->mirrored, ==, c->counter);
    qemu_co_mutex_destroy(&c->mutex);
    qemu_co_rwlock_destroy(&c->rwlock);
}

static void test_mutex_between_threads(void)
{
    Crowd c;

    run_crowd(&c, crowd_mutex_co_entry);
    g_assert_cmpint(c.counter, ==, CROWD * CROWD_ROUNDS);
}

static void test_rwlock_between_threads(void)
{
    Crowd c;

    run_crowd(&c, crowd_rwlock_co_entry);
    g_assert_cmpint(c.counter, ==, CROWD * CROWD_ROUNDS / 4);
}

static void test_queue_between_threads(void)
{
    Crowd c;

    run_crowd(&c, crowd_queue_co_entry);
    g_assert_cmpint(c.counter, ==, CROWD * CROWD_ROUNDS);
}

enum { WAITERS = 31 };

static void coroutine_fn lock_once_co_entry(void *opaque)
{
    Actor *a = opaque;

    qemu_co_mutex_lock(&a->stage->mutex);
    qemu_co_mutex_unlock(&a->stage->mutex);
    a->stage->alive--;
}

static void coroutine_fn hold_until_cue_co_entry(void *opaque)
{
    Actor *a = opaque;

    qemu_co_mutex_lock(&a->stage->mutex);
    wait_for_cue_co(a);
    qemu_co_mutex_unlock(&a->stage->mutex);
    a->stage->alive--;
}

/* Each turn of the loop costs the waiters' requests a system call. */
static void test_waiters_follow_each_other_in_one_turn(void)
{
    Actor holder, waiters[WAITERS];
    Stage s;

    stage_set_up(&s);
    start(&holder, &s, 'h', hold_until_cue_co_entry);
    for (int i = 0; i < WAITERS; i++) {
        start(&waiters[i], &s, 'w', lock_once_co_entry);
    }
    settle();
    g_assert_cmpint(s.alive, ==, WAITERS + 1);
    qemu_coroutine_enter(holder.co);
    aio_poll(qemu_get_aio_context(), false);
    g_assert_cmpint(s.alive, ==, 0);
    stage_tear_down(&s);
}

static void coroutine_fn wake_itself_co_entry(void *opaque)
{
    while (!*(bool *)opaque) {
        aio_co_wake(qemu_coroutine_self());
        qemu_coroutine_yield();
    }
}

static void stop_cb(void *opaque)
{
    *(bool *)opaque = true;
}

static void test_endless_hand_over_leaves_room_for_timers(void)
{
    bool stop = false;
    AioContext *ctx = qemu_get_aio_context();
    QEMUTimer *timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, stop_cb, &stop);

    timer_mod_ns(timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + SCALE_MS);
    qemu_coroutine_enter(qemu_coroutine_create(wake_itself_co_entry, &stop));
    while (!stop) {
        aio_poll(ctx, true);
    }
    settle();
    timer_free(timer);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!qemu_init_main_loop(NULL)) {
        return 1;
    }
    g_test_add_func("/co-lock/mutex/is-fair", test_mutex_is_fair);
    g_test_add_func("/co-lock/mutex/is-handed-over", test_mutex_is_handed_over);
    g_test_add_func("/co-lock/mutex/locked-twice-aborts", test_mutex_locked_twice_aborts);
    g_test_add_func("/co-lock/mutex/between-threads", test_mutex_between_threads);
    g_test_add_func("/co-lock/mutex/waiters-follow-each-other-in-one-turn",
                    test_waiters_follow_each_other_in_one_turn);
    g_test_add_func("/co-lock/endless-hand-over-leaves-room-for-timers",
                    test_endless_hand_over_leaves_room_for_timers);
    g_test_add_func("/co-lock/queue/wakes-in-order", test_queue_wakes_in_order);
    g_test_add_func("/co-lock/queue/wait-takes-mutex-again", test_queue_wait_takes_mutex_again);
    g_test_add_func("/co-lock/queue/between-threads", test_queue_between_threads);
    g_test_add_func("/co-lock/rwlock/is-fair", test_rwlock_is_fair);
    g_test_add_func("/co-lock/rwlock/between-threads", test_rwlock_between_threads);
    return g_test_run();
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run states: the table, the handlers and their order, a guest that is taken, requests to stop. */
#include "accel/runstate.h"

#include <glib.h>
#include "accel/guest-clock.h"
#include "accel/vm-stop.h"
#include "util/aio.h"
#include "util/timer.h"

static GString *calls;

static void note(void *opaque, bool running, RunState state)
{
    g_assert_true(running == runstate_is_running());
    g_assert_true(state == runstate_get());
    g_string_append(calls, opaque);
}

/* The way of a guest that leaves, and that of one that comes back because its migration failed. */
static void test_table(void)
{
    static const RunState away[] = {
        RUN_STATE_RUNNING,  RUN_STATE_FINISH_MIGRATE, RUN_STATE_POSTMIGRATE, RUN_STATE_RUNNING,
        RUN_STATE_IO_ERROR, RUN_STATE_FINISH_MIGRATE, RUN_STATE_IO_ERROR,    RUN_STATE_PAUSED};

    g_assert_true(runstate_check(RUN_STATE_PRELAUNCH));
    g_assert_false(runstate_may_become(RUN_STATE_POSTMIGRATE));
    for (size_t i = 0; i < G_N_ELEMENTS(away); i++) {
        g_assert_true(runstate_may_become(away[i]));
        runstate_set(away[i]);
        g_assert_true(runstate_check(away[i]));
        g_assert_true(runstate_may_become(away[i]));
    }
    g_assert_false(runstate_may_become(RUN_STATE_INMIGRATE));
    g_assert_false(runstate_may_become(RUN_STATE_POSTMIGRATE));
}

/* --- steps that a test takes in a coroutine of the main loop --- */

#define REFUSAL "it is being moved"

static void coroutine_fn pause_co(void *opaque)
{
    RunState *state = opaque;

    vm_co_pause(*state);
}

static void pause_in(RunState state)
{
    aio_run_coroutine(pause_co, &state);
}

static void coroutine_fn cont_co(void *opaque)
{
    bool *ok = opaque;
    GError *err = NULL;

    *ok = vm_co_cont(&err);
    g_assert_true(*ok == !err);
    if (err) {
        g_assert_cmpstr(err->message, ==, REFUSAL);
        g_error_free(err);
    }
}

static bool cont(void)
{
    bool ok;

    aio_run_coroutine(cont_co, &ok);
    return ok;
}

static void coroutine_fn take_co(void *opaque)
{
    bool *ok = opaque;
    GError *err = NULL;

    *ok = vm_co_take(RUN_STATE_FINISH_MIGRATE, REFUSAL, &err);
    g_assert_true(*ok == !err);
    g_clear_error(&err);
}

static bool take(void)
{
    bool ok;

    aio_run_coroutine(take_co, &ok);
    return ok;
}

static void test_handlers(void)
{
    VMChangeStateEntry *entries[4];

    calls = g_string_new(NULL);
    entries[0] = qemu_add_vm_change_state_handler(note, (void *)"b");
    entries[1] = qemu_add_vm_change_state_handler_prio(note, (void *)"d", 7);
    entries[2] = qemu_add_vm_change_state_handler_prio(note, (void *)"a", -7);
    entries[3] = qemu_add_vm_change_state_handler(note, (void *)"c");
    vm_start();
    g_assert_cmpstr(calls->str, ==, "abcd");
    vm_start();
    g_assert_cmpstr(calls->str, ==, "abcd");
    pause_in(RUN_STATE_PAUSED);
    g_assert_cmpstr(calls->str, ==, "abcddcba");
    pause_in(RUN_STATE_PAUSED);
    g_assert_cmpstr(calls->str, ==, "abcddcba");
    qemu_del_vm_change_state_handler(entries[0]);
    vm_start();
    g_assert_cmpstr(calls->str, ==, "abcddcbaacd");
    for (int i = 1; i < 4; i++) {
        qemu_del_vm_change_state_handler(entries[i]);
    }
    pause_in(RUN_STATE_PAUSED);
    g_string_free(calls, TRUE);
}

typedef struct Deleter {
    VMChangeStateEntry *victims[5], *born;
} Deleter;

/* A device that is told of the change may end others, and itself. */
static void delete_others(void *opaque, bool running, RunState state)
{
    Deleter *deleter = opaque;

    g_string_append(calls, "x");
    for (int i = 0; i < 5 && deleter->victims[i]; i++) {
        qemu_del_vm_change_state_handler(deleter->victims[i]);
    }
    deleter->born = qemu_add_vm_change_state_handler(note, (void *)"n");
}

static void delete_handlers_from_a_handler(const bool victims[4], bool itself)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    g_autoptr(GString) expected = g_string_new("x");
    VMChangeStateEntry *entries[4], *own;
    Deleter deleter = {0};
    int n = 0;

    calls = g_string_new(NULL);
    for (int i = 0; i < 4; i++) {
        entries[i] = qemu_add_vm_change_state_handler_prio(note, (void *)names[i], i);
        g_string_append(expected, victims[i] ? "" : names[i]);
    }
    own = qemu_add_vm_change_state_handler_prio(delete_others, &deleter, -1);
    for (int i = 0; i < 4; i++) {
        if (victims[i]) {
            deleter.victims[n++] = entries[i];
        }
    }
    deleter.victims[n] = itself ? own : NULL;
    vm_start();
    g_assert_cmpstr(calls->str, ==, expected->str);
    for (int i = 0; i < 4; i++) {
        if (!victims[i]) {
            qemu_del_vm_change_state_handler(entries[i]);
        }
    }
    if (!itself) {
        qemu_del_vm_change_state_handler(own);
    }
    pause_in(RUN_STATE_PAUSED);
    g_string_append(expected, "n"); /* the one that was made meanwhile */
    g_assert_cmpstr(calls->str, ==, expected->str);
    qemu_del_vm_change_state_handler(deleter.born);
    g_string_free(calls, TRUE);
}

static void test_handlers_may_delete_and_register_handlers(void)
{
    pause_in(RUN_STATE_PAUSED); /* it may run from another test */
    for (unsigned mask = 0; mask < 32; mask++) {
        const bool victims[] = {mask & 1, mask & 2, mask & 4, mask & 8};

        delete_handlers_from_a_handler(victims, mask & 16);
    }
}

/* --- a guest that is taken --- */

static const RunState stops[] = {
    RUN_STATE_DEBUG,    RUN_STATE_INTERNAL_ERROR, RUN_STATE_IO_ERROR,       RUN_STATE_PAUSED,
    RUN_STATE_SHUTDOWN, RUN_STATE_WATCHDOG,       RUN_STATE_GUEST_PANICKED, RUN_STATE_SUSPENDED,
};

static void test_a_taken_guest_is_stopped_where_it_goes_on(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(stops); i++) {
        g_assert_true(cont());
        g_assert_true(take());
        g_assert_true(vm_wished_state() == RUN_STATE_RUNNING);
        pause_in(stops[i]);
        g_assert_true(runstate_check(RUN_STATE_FINISH_MIGRATE));
        g_assert_true(vm_wished_state() == stops[i]);
        g_assert_false(cont());
        g_assert_false(take());
        vm_give_back();
        g_assert_true(runstate_check(stops[i]));
    }
}

/* Whatever had stopped it before, and whatever is wished meanwhile, it can leave. */
static void test_a_stopped_guest_can_leave(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(stops); i++) {
        for (size_t j = 0; j < G_N_ELEMENTS(stops); j++) {
            g_assert_true(cont());
            pause_in(stops[i]);
            g_assert_true(take());
            pause_in(stops[j]);
            g_assert_true(vm_wished_state() == stops[i] || vm_wished_state() == stops[j]);
            vm_settle(RUN_STATE_POSTMIGRATE);
            g_assert_true(runstate_check(RUN_STATE_POSTMIGRATE));
        }
    }
}

static void test_a_taken_guest_runs_again_when_nothing_stopped_it(void)
{
    g_assert_true(cont());
    g_assert_true(take());
    g_assert_true(vm_is_taken());
    vm_give_back();
    g_assert_false(vm_is_taken());
    g_assert_true(runstate_is_running());
}

/* --- changes of the machine --- */

static void coroutine_fn change_later_co(void *opaque)
{
    bool *begun = opaque;

    *begun = vm_co_change_begin();
}

static void coroutine_fn late_take_co(void *opaque)
{
    bool *taken = opaque;

    *taken = vm_co_take(RUN_STATE_FINISH_MIGRATE, REFUSAL, NULL);
}

static void turn(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
}

static void test_a_take_waits_for_changes_and_keeps_others_out(void)
{
    g_autoptr(GError) err = NULL;
    bool taken = false, begun = false;

    g_assert_true(cont());
    g_assert_true(vm_change_begin(NULL));
    g_assert_true(vm_change_begin(NULL));
    qemu_coroutine_enter(qemu_coroutine_create(late_take_co, &taken));
    vm_change_end();
    turn();
    g_assert_false(vm_is_taken());
    g_assert_true(runstate_is_running());
    g_assert_true(cont()); /* it holds up nothing else */
    vm_change_end();
    turn();
    g_assert_true(taken);
    g_assert_false(vm_change_begin(&err));
    g_assert_cmpstr(err->message, ==, REFUSAL);
    qemu_coroutine_enter(qemu_coroutine_create(change_later_co, &begun));
    turn();
    g_assert_false(begun);
    vm_give_back();
    turn();
    g_assert_true(begun);
    vm_change_end();
}

static void test_a_take_gives_up_when_a_change_does_not_end(void)
{
    g_assert_true(cont());
    g_assert_true(vm_change_begin(NULL));
    g_assert_false(take());
    g_assert_true(runstate_is_running());
    vm_change_end();
    g_assert_true(take());
    vm_give_back();
}

/* --- requests --- */

static void *request_thread(void *opaque)
{
    RunState *state = opaque;

    vm_stop_request(*state);
    return NULL;
}

static void request(RunState state)
{
    g_thread_join(g_thread_new("request", request_thread, &state));
}

static void test_a_request_from_any_thread_stops_the_guest(void)
{
    g_assert_true(cont());
    request(RUN_STATE_IO_ERROR);
    request(RUN_STATE_WATCHDOG); /* the first one has stopped it */
    while (runstate_is_running()) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_true(runstate_check(RUN_STATE_IO_ERROR));
}

static void test_a_request_for_a_taken_guest_holds_where_it_goes_on(void)
{
    g_assert_true(cont());
    g_assert_true(take());
    request(RUN_STATE_IO_ERROR);
    vm_give_back(); /* before the main loop has seen it */
    g_assert_true(runstate_check(RUN_STATE_IO_ERROR));
    g_assert_true(cont());
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_true(runstate_is_running());
}

static void test_a_start_ends_a_stop_that_was_requested_before(void)
{
    VMChangeStateEntry *entry;

    g_assert_true(cont());
    calls = g_string_new(NULL);
    entry = qemu_add_vm_change_state_handler(note, (void *)"a");
    request(RUN_STATE_IO_ERROR);
    g_assert_true(cont()); /* before the main loop has seen it */
    while (aio_poll(qemu_get_aio_context(), false)) {
    }
    g_assert_true(runstate_is_running());
    g_assert_cmpstr(calls->str, ==, "aa"); /* what waits for the next run has been told of one */
    qemu_del_vm_change_state_handler(entry);
    g_string_free(calls, TRUE);
}

/* --- the guest's clock --- */

static void fired_cb(void *opaque)
{
    g_assert_true(runstate_is_running());
    ++*(int *)opaque;
}

/* As a device arms it when it is loaded, or just before the guest was stopped. */
static void test_a_timer_of_the_guest_fires_when_the_guest_runs(void)
{
    AioContext *ctx = qemu_get_aio_context();
    int fired = 0;
    QEMUTimer *timer = aio_timer_new(ctx, QEMU_CLOCK_VIRTUAL, fired_cb, &fired);

    for (int i = 1; i <= 20; i++) {
        int64_t stood;

        pause_in(RUN_STATE_PAUSED);
        stood = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
        timer_mod_ns(timer, stood - 1);
        while (aio_poll(ctx, false)) {
        }
        g_assert_cmpint(fired, ==, i - 1);
        g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL), ==, stood);
        vm_start();
        while (fired < i) {
            aio_poll(ctx, true);
        }
    }
    timer_free(timer);
}

int main(int argc, char **argv)
{
    GError *err = NULL;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(&err));
    guest_clock_init(false);
    g_test_add_func("/runstate/table", test_table);
    g_test_add_func("/runstate/handlers", test_handlers);
    g_test_add_func("/runstate/handlers/deleted-by-a-handler",
                    test_handlers_may_delete_and_register_handlers);
    g_test_add_func("/runstate/taken/stopped-where-it-goes-on",
                    test_a_taken_guest_is_stopped_where_it_goes_on);
    g_test_add_func("/runstate/taken/stopped-guest-can-leave", test_a_stopped_guest_can_leave);
    g_test_add_func("/runstate/taken/runs-again",
                    test_a_taken_guest_runs_again_when_nothing_stopped_it);
    g_test_add_func("/runstate/changes/excluded",
                    test_a_take_waits_for_changes_and_keeps_others_out);
    g_test_add_func("/runstate/changes/take-gives-up",
                    test_a_take_gives_up_when_a_change_does_not_end);
    g_test_add_func("/runstate/request/any-thread", test_a_request_from_any_thread_stops_the_guest);
    g_test_add_func("/runstate/request/taken",
                    test_a_request_for_a_taken_guest_holds_where_it_goes_on);
    g_test_add_func("/runstate/request/before-a-start",
                    test_a_start_ends_a_stop_that_was_requested_before);
    g_test_add_func("/runstate/clock", test_a_timer_of_the_guest_fires_when_the_guest_runs);
    return g_test_run();
}

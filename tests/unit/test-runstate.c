/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run states: the table, the handlers and their order. */
#include "accel/runstate.h"

#include <glib.h>
#include "util/aio.h"

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
    /* stop does not take a guest out of its migration */
    runstate_set(RUN_STATE_FINISH_MIGRATE);
    runstate_set(RUN_STATE_POSTMIGRATE);
    g_assert_false(runstate_may_become(RUN_STATE_IO_ERROR));
    g_assert_false(vm_stop(RUN_STATE_IO_ERROR));
    g_assert_true(runstate_check(RUN_STATE_POSTMIGRATE));
    runstate_set(RUN_STATE_PAUSED);
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
    g_assert_true(vm_stop(RUN_STATE_PAUSED));
    g_assert_cmpstr(calls->str, ==, "abcddcba");
    g_assert_false(vm_stop(RUN_STATE_PAUSED));
    g_assert_cmpstr(calls->str, ==, "abcddcba");
    qemu_del_vm_change_state_handler(entries[0]);
    vm_start();
    g_assert_cmpstr(calls->str, ==, "abcddcbaacd");
    for (int i = 1; i < 4; i++) {
        qemu_del_vm_change_state_handler(entries[i]);
    }
    vm_stop(RUN_STATE_PAUSED);
    g_string_free(calls, TRUE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/runstate/table", test_table);
    g_test_add_func("/runstate/handlers", test_handlers);
    return g_test_run();
}

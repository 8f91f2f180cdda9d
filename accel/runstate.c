/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run state: the table of its changes, and the one function that makes them. */
#include "accel/runstate.h"

#include "accel/cpus.h"

#include <glib.h>
#include "util/aio.h"

#define S(state) (1u << RUN_STATE_##state)

/* What stops a running guest, other than its migration. */
#define STOPS                                                                             \
    (S(DEBUG) | S(INTERNAL_ERROR) | S(IO_ERROR) | S(PAUSED) | S(SHUTDOWN) | S(WATCHDOG) | \
     S(GUEST_PANICKED) | S(SUSPENDED))
/* Where every stopped guest that is whole may go: on, to another host, into a snapshot. */
#define LEAVES (S(RUNNING) | S(FINISH_MIGRATE) | S(SAVE_VM) | S(RESTORE_VM) | S(SHUTDOWN))

/* from: the states that may follow. Every state may follow itself. */
static const unsigned transitions[RUN_STATE__MAX] = {
    /* not started yet; a guest may arrive here as well */
    [RUN_STATE_PRELAUNCH] = LEAVES | S(INMIGRATE) | S(PAUSED),
    [RUN_STATE_RUNNING] = STOPS | S(FINISH_MIGRATE) | S(SAVE_VM) | S(RESTORE_VM) | S(COLO),
    [RUN_STATE_PAUSED] = LEAVES | S(COLO),
    [RUN_STATE_IO_ERROR] = LEAVES | S(PAUSED),
    [RUN_STATE_DEBUG] = LEAVES | S(PAUSED),
    [RUN_STATE_WATCHDOG] = LEAVES | S(PAUSED) | S(PRELAUNCH),
    [RUN_STATE_INTERNAL_ERROR] = LEAVES | S(PAUSED) | S(PRELAUNCH),
    [RUN_STATE_GUEST_PANICKED] = LEAVES | S(PAUSED) | S(PRELAUNCH),
    [RUN_STATE_SUSPENDED] = LEAVES | S(PAUSED) | S(PRELAUNCH),
    [RUN_STATE_SHUTDOWN] = LEAVES | S(PAUSED) | S(PRELAUNCH),
    /* the stream says in which state the guest was; the guest waits if it may not run yet */
    [RUN_STATE_INMIGRATE] = LEAVES | STOPS | S(PRELAUNCH) | S(POSTMIGRATE) | S(COLO),
    /* the guest leaves, or goes back to the state that it had or that a stop asked for meanwhile */
    [RUN_STATE_FINISH_MIGRATE] = STOPS | S(RUNNING) | S(PRELAUNCH) | S(POSTMIGRATE) | S(COLO),
    /* a client takes back a guest that has left */
    [RUN_STATE_POSTMIGRATE] = LEAVES | S(PAUSED) | S(PRELAUNCH),
    [RUN_STATE_SAVE_VM] = LEAVES | STOPS | S(PRELAUNCH) | S(POSTMIGRATE),
    [RUN_STATE_RESTORE_VM] = LEAVES | STOPS | S(PRELAUNCH) | S(POSTMIGRATE),
    [RUN_STATE_COLO] = S(RUNNING) | S(PRELAUNCH) | S(SHUTDOWN),
};

struct VMChangeStateEntry {
    VMChangeStateHandler *call;
    void *opaque;
    int priority;
    GSequenceIter *place;
    unsigned since; /* registered by a handler: the change that it does not hear of */
    bool deleted;   /* by a handler: it stays in its place until the walk is over */
};

static struct {
    RunState state;
    bool no_autostart;
    GSequence *handlers; /* VMChangeStateEntry, ascending priority; NULL: there was none yet */
    unsigned changes;    /* of the state, so far */
    bool walks;          /* handlers are being called */
    int exit_status;
    int cause; /* atomic: the ShutdownCause that was asked for */
} vm = {
    .state = RUN_STATE_PRELAUNCH,
    .cause = SHUTDOWN_CAUSE_NONE,
};

RunState runstate_get(void)
{
    return __atomic_load_n(&vm.state, __ATOMIC_ACQUIRE);
}

bool runstate_check(RunState state)
{
    return vm.state == state;
}

bool runstate_is_running(void)
{
    return runstate_get() == RUN_STATE_RUNNING;
}

bool runstate_may_follow(RunState from, RunState to)
{
    return from == to || (transitions[from] & 1u << to);
}

bool runstate_may_become(RunState to)
{
    return runstate_may_follow(vm.state, to);
}

bool runstate_is_stop(RunState state)
{
    return STOPS & 1u << state;
}

/* The one after `last`, NULL: the first, in the order of the walk; NULL: there is none. */
static VMChangeStateEntry *next_handler(const VMChangeStateEntry *last, bool forwards)
{
    GSequenceIter *place;

    if (forwards) {
        place = last ? g_sequence_iter_next(last->place) : g_sequence_get_begin_iter(vm.handlers);
        return g_sequence_iter_is_end(place) ? NULL : g_sequence_get(place);
    }
    place = last ? last->place : g_sequence_get_end_iter(vm.handlers);
    return g_sequence_iter_is_begin(place) ? NULL : g_sequence_get(g_sequence_iter_prev(place));
}

static void remove_deleted(void)
{
    VMChangeStateEntry *entry = next_handler(NULL, true);

    while (entry) {
        VMChangeStateEntry *next = next_handler(entry, true);

        if (entry->deleted) {
            g_sequence_remove(entry->place);
        }
        entry = next;
    }
}

/*
 * Forwards when the guest starts to run, backwards otherwise. Handlers may register and delete handlers, so
 * entries keep their places meanwhile.
 */
static void call_handlers(void)
{
    bool running = runstate_is_running();
    VMChangeStateEntry *entry = NULL;

    if (!vm.handlers) {
        return;
    }
    vm.walks = true;
    while ((entry = next_handler(entry, running))) {
        if (!entry->deleted && entry->since != vm.changes) {
            entry->call(entry->opaque, running, vm.state);
        }
    }
    vm.walks = false;
    remove_deleted();
}

void runstate_set(RunState state)
{
    g_assert(!vm.walks && runstate_may_become(state));
    if (vm.state != state) {
        __atomic_store_n(&vm.state, state, __ATOMIC_RELEASE);
        vm.changes++;
        call_handlers();
    }
}

bool runstate_get_autostart(void)
{
    return !vm.no_autostart;
}

void runstate_set_autostart(bool autostart)
{
    vm.no_autostart = !autostart;
}

static int by_priority(gconstpointer a, gconstpointer b, gpointer unused)
{
    int left = ((const VMChangeStateEntry *)a)->priority;
    int right = ((const VMChangeStateEntry *)b)->priority;

    return (left > right) - (left < right);
}

VMChangeStateEntry *qemu_add_vm_change_state_handler_prio(VMChangeStateHandler *cb, void *opaque,
                                                          int priority)
{
    VMChangeStateEntry *entry = g_new0(VMChangeStateEntry, 1);

    entry->call = cb;
    entry->opaque = opaque;
    entry->priority = priority;
    entry->since = vm.walks ? vm.changes : vm.changes - 1;
    if (!vm.handlers) {
        vm.handlers = g_sequence_new(g_free);
    }
    entry->place = g_sequence_insert_sorted(vm.handlers, entry, by_priority, NULL);
    return entry;
}

VMChangeStateEntry *qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque)
{
    return qemu_add_vm_change_state_handler_prio(cb, opaque, VM_CHANGE_STATE_PRIORITY_DEFAULT);
}

void qemu_del_vm_change_state_handler(VMChangeStateEntry *entry)
{
    if (vm.walks) {
        entry->deleted = true;
    } else {
        g_sequence_remove(entry->place);
    }
}

void qemu_system_shutdown_request(ShutdownCause cause)
{
    int none = SHUTDOWN_CAUSE_NONE;

    cpu_leave_self();
    if (__atomic_compare_exchange_n(&vm.cause, &none, (int)cause, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        aio_notify(qemu_get_aio_context());
    }
}

ShutdownCause qemu_shutdown_cause(void)
{
    return (ShutdownCause)__atomic_load_n(&vm.cause, __ATOMIC_SEQ_CST);
}

void qemu_system_set_exit_status(int status)
{
    vm.exit_status = status;
}

int qemu_system_exit_status(void)
{
    return vm.exit_status;
}

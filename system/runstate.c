/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Run state.
 *
 *   from         to               who
 *   prelaunch    running          cont, or start-up without -S
 *   prelaunch    shutdown         quit or a signal before the guest ever ran
 *   running      paused           stop
 *   running      io-error         werror=stop, rerror=stop
 *   running      shutdown         quit, signal, power-off by the guest
 *   paused       running          cont
 *   io-error     running, paused  cont, stop
 *   any stopped  shutdown         quit, signal
 */
#include "system/runstate.h"

#include <glib.h>
#include "qapi/qapi-events-run-state.h"
#include "util/aio.h"

static const struct {
    RunState from, to;
} transitions[] = {
    {RUN_STATE_PRELAUNCH, RUN_STATE_RUNNING}, {RUN_STATE_PRELAUNCH, RUN_STATE_SHUTDOWN},
    {RUN_STATE_RUNNING, RUN_STATE_PAUSED},    {RUN_STATE_RUNNING, RUN_STATE_IO_ERROR},
    {RUN_STATE_RUNNING, RUN_STATE_SHUTDOWN},  {RUN_STATE_PAUSED, RUN_STATE_RUNNING},
    {RUN_STATE_PAUSED, RUN_STATE_SHUTDOWN},   {RUN_STATE_IO_ERROR, RUN_STATE_RUNNING},
    {RUN_STATE_IO_ERROR, RUN_STATE_PAUSED},   {RUN_STATE_IO_ERROR, RUN_STATE_SHUTDOWN},
};

typedef struct ChangeHandler {
    VMChangeStateHandler *cb;
    void *opaque;
} ChangeHandler;

static struct {
    RunState state;
    GArray *handlers; /* ChangeHandler; NULL: none */
    int cause;        /* atomic: the ShutdownCause that was asked for */
} vm = {.state = RUN_STATE_PRELAUNCH, .cause = SHUTDOWN_CAUSE_NONE};

RunState runstate_get(void)
{
    return vm.state;
}

bool runstate_check(RunState state)
{
    return vm.state == state;
}

bool runstate_is_running(void)
{
    return vm.state == RUN_STATE_RUNNING;
}

void runstate_set(RunState state)
{
    bool known = vm.state == state;

    for (size_t i = 0; i < G_N_ELEMENTS(transitions) && !known; i++) {
        known = transitions[i].from == vm.state && transitions[i].to == state;
    }
    g_assert(known);
    if (vm.state == state) {
        return;
    }
    vm.state = state;
    for (guint i = 0; vm.handlers && i < vm.handlers->len; i++) {
        const ChangeHandler *handler = &g_array_index(vm.handlers, ChangeHandler, i);

        handler->cb(handler->opaque, runstate_is_running(), state);
    }
}

void qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque)
{
    ChangeHandler handler = {.cb = cb, .opaque = opaque};

    if (!vm.handlers) {
        vm.handlers = g_array_new(FALSE, FALSE, sizeof(ChangeHandler));
    }
    g_array_append_val(vm.handlers, handler);
}

void vm_start(void)
{
    if (!runstate_is_running()) {
        runstate_set(RUN_STATE_RUNNING);
        qapi_event_send_resume();
    }
}

void vm_stop(RunState state)
{
    if (runstate_is_running()) {
        runstate_set(state);
        qapi_event_send_stop();
    } else if (state == RUN_STATE_SHUTDOWN) {
        runstate_set(state);
    }
}

void qemu_system_shutdown_request(ShutdownCause cause)
{
    int none = SHUTDOWN_CAUSE_NONE;

    if (__atomic_compare_exchange_n(&vm.cause, &none, (int)cause, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        aio_notify(qemu_get_aio_context());
    }
}

ShutdownCause qemu_shutdown_cause(void)
{
    return (ShutdownCause)__atomic_load_n(&vm.cause, __ATOMIC_SEQ_CST);
}

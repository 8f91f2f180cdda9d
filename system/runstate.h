/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Run state: whether the guest runs, and if not why; requests to end the process. Main thread only,
 * qemu_system_*_request() excepted.
 */
#ifndef FERRY_SYSTEM_RUNSTATE_H
#define FERRY_SYSTEM_RUNSTATE_H

#include <stdbool.h>
#include "qapi/qapi-types-run-state.h"

RunState runstate_get(void);
bool runstate_check(RunState state);
bool runstate_is_running(void);
/* The table in runstate.c says which changes there are; another one is a bug in the caller. */
void runstate_set(RunState state);

/* Starts the guest; RESUME. Nothing happens when it runs. */
void vm_start(void);
/* Stops it in `state`; STOP. Nothing but the change of state happens when it does not run. */
void vm_stop(RunState state);

/* Called after each change, in order of registration. `opaque` must outlive the process's loop. */
typedef void VMChangeStateHandler(void *opaque, bool running, RunState state);
void qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque);

/* Asks for the orderly end of the process; the first cause counts. Any thread. */
void qemu_system_shutdown_request(ShutdownCause cause);
/* What was asked for, SHUTDOWN_CAUSE_NONE before that. Any thread. */
ShutdownCause qemu_shutdown_cause(void);

#endif

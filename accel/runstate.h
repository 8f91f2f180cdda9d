/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Run state: whether the guest runs, and if not why; handlers that are called when that changes;
 * requests to end the process. Starting, stopping and taking the guest is in accel/vm-stop.h. With
 * the big lock (util/bql.h), unless said otherwise.
 */
#ifndef FERRY_ACCEL_RUNSTATE_H
#define FERRY_ACCEL_RUNSTATE_H

#include <limits.h>
#include <stdbool.h>
#include "qapi/qapi-types-run-state.h"

RunState runstate_get(void);
bool runstate_check(RunState state);
bool runstate_is_running(void);
/* Whether the table in runstate.c has the change from the present state to `to`. */
bool runstate_may_become(RunState to);
/* The same from a state that may be another one. Any thread. */
bool runstate_may_follow(RunState from, RunState to);
/*
 * Whether a running guest may be stopped in that state by another cause than a migration. Any
 * thread.
 */
bool runstate_is_stop(RunState state);
/* The table in runstate.c says which changes there are; another one is a bug in the caller. */
void runstate_set(RunState state);

/*
 * Whether the guest starts by itself once start-up, or an incoming migration, is over: false with
 * -S; stop and cont change it while the guest has not arrived.
 */
bool runstate_get_autostart(void);
void runstate_set_autostart(bool autostart);

/*
 * Called after each change of the state: by ascending priority when the guest starts to run, by
 * descending priority otherwise; by order of registration (its reverse) within one priority. A
 * handler may register and delete handlers, itself too: a new one hears of the next change, a deleted
 * one is not called any more. It may ask for a stop (accel/vm-stop.h), but not change the state.
 */
typedef void VMChangeStateHandler(void *opaque, bool running, RunState state);
typedef struct VMChangeStateEntry VMChangeStateEntry;
#define VM_CHANGE_STATE_PRIORITY_DEFAULT 0
/* The guest's clock: starts first and stops last. */
#define VM_CHANGE_STATE_PRIORITY_CLOCK INT_MIN
VMChangeStateEntry *qemu_add_vm_change_state_handler(VMChangeStateHandler *cb, void *opaque);
VMChangeStateEntry *qemu_add_vm_change_state_handler_prio(VMChangeStateHandler *cb, void *opaque,
                                                          int priority);
void qemu_del_vm_change_state_handler(VMChangeStateEntry *entry);

/*
 * Asks for the orderly end of the process; the first cause counts. In a vCPU's thread the guest does not
 * execute another instruction. Any thread.
 */
void qemu_system_shutdown_request(ShutdownCause cause);
/* The requested cause, SHUTDOWN_CAUSE_NONE before a request. Any thread. */
ShutdownCause qemu_shutdown_cause(void);

/* What the process returns at that end: 0 unless something failed. Main thread. */
void qemu_system_set_exit_status(int status);
int qemu_system_exit_status(void);

#endif

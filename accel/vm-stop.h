/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starting and stopping the guest, and taking it: the one place where vCPUs, the run state and its
 * handlers change together.
 *
 * The guest may be taken, by a migration or by a snapshot. From vm_co_take() to vm_settle() the run
 * state belongs to the taker. A stop meanwhile only records a wish: the state in which the guest
 * goes on, here or elsewhere, once it is settled. A start is refused. A stop that fails or that the
 * guest itself causes (I/O error, panic, watchdog) is a stop like any other.
 *
 * A change of the machine (a reset, a device that is plugged or unplugged) may yield half-way. It and a taken
 * guest exclude each other: what is saved is whole, and stays as it was saved.
 *
 * With the big lock, in the main loop, unless said otherwise.
 */
#ifndef FERRY_ACCEL_VM_STOP_H
#define FERRY_ACCEL_VM_STOP_H

#include <glib.h>
#include <stdbool.h>
#include "qapi/qapi-types-run-state.h"
#include "util/coroutine.h"
#include "util/timer.h"

/*
 * Starts the guest; RESUME. Nothing happens when it runs. It is not taken, and its disks are
 * active. Not while a stop is under way.
 */
void vm_start(void);
/*
 * What `cont` does: makes disks active, then starts the guest. While a guest arrives this only says
 * that it may run. False with an error: the guest is taken, was stopped again while disks were made
 * active, or the disks could not be made active.
 */
bool coroutine_fn vm_co_cont(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * What `stop` does: stops the guest in `state` (runstate_is_stop()); STOP. Returns when every vCPU
 * stands and the handlers have run; requests to disks go on. A guest that does not run changes its
 * state only, as far as the table lets it. A taken guest gets the state when it is settled. True:
 * the guest ran, and this call stopped it.
 */
bool coroutine_fn vm_co_pause(RunState state);
/*
 * Flushes all disks while the guest still runs, then as vm_co_pause(), then waits until its
 * requests are over, and flushes what is new. 0, or the -errno of the first flush that failed; the
 * guest is stopped either way.
 */
int coroutine_fn vm_co_stop(RunState state);
/*
 * Asks for vm_co_pause() and returns at once. The first reason counts until it is carried out. In a
 * vCPU's thread the guest does not execute another instruction. Any thread, with or without the big
 * lock.
 */
void vm_stop_request(RunState state);
/*
 * The guest stops for the end of the process: as vm_co_pause(), without STOP. It is not taken, and
 * nothing starts, takes or resets it any more: vm_check_not_taken() says that the process is ending.
 */
void coroutine_fn vm_co_halt(void);

/*
 * Stops all vCPUs until vm_release_cpus(), while the run state stays: for a reset, which is a change of
 * the machine that the caller has begun. Meanwhile the guest may be stopped and started; its vCPUs
 * go on afterwards, if it runs then.
 */
void coroutine_fn vm_co_hold_cpus(void);
void vm_release_cpus(void);

/* How long a take, or a step that follows it, may wait for the machine to be quiet. */
#define VM_QUIET_NS (10 * NANOSECONDS_PER_SECOND)

/* A change of the machine begins. False with an error: the guest is taken. */
bool vm_change_begin(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same, once the guest is not taken. False: the process is ending, nothing has begun. */
bool coroutine_fn vm_co_change_begin(void) G_GNUC_WARN_UNUSED_RESULT;
/* A change that has begun is over. */
void vm_change_end(void);
/* Yields until no change is under way, while the guest goes on. */
void coroutine_fn vm_co_await_changes(void);

/*
 * Takes the guest: stops it in `state`, one of those in which a guest moves or is saved. A change of
 * the machine that is under way is waited for, VM_QUIET_NS at most. `refusal` is constant: the error
 * of vm_check_not_taken() from now on. False with an error, and nothing has changed: the guest is
 * taken already, or its present state does not allow it, or the change has not ended.
 */
bool coroutine_fn vm_co_take(RunState state, const char *refusal,
                             GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Waits until the requests of a guest that stands are over, those of its devices first, and flushes its
 * disks, for limit_ns at most; 0 is no limit. 0, or the -errno of the first flush that failed, or
 * -ETIMEDOUT.
 */
int coroutine_fn vm_co_quiesce(int64_t limit_ns, GError **errp);
bool vm_is_taken(void);
/* True: the guest is not taken. False: the taker's refusal is in errp. */
bool vm_check_not_taken(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The state in which the guest goes on: its state before it was taken, or the one that a stop asked
 * for since. The present state when it is not taken.
 */
RunState vm_wished_state(void);
/* The taker's end: the guest is in `state` from now on, which is RUNNING, a stop, or POSTMIGRATE. */
void vm_settle(RunState state);
/* The same with the wished state; with SHUTDOWN while the process ends. */
void vm_give_back(void);

#endif

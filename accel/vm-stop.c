/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starting, stopping and taking the guest.
 *
 * Two locks order what yields, always in this order: `activating` is held from making disks active
 * to the start, and by a take, which gives disks away; `changing` is held while vCPUs are being
 * stopped. A stop takes the second only: it never waits for a disk.
 */
#include "accel/vm-stop.h"

#include <errno.h>
#include "accel/cpus.h"
#include "accel/runstate.h"
#include "block/block-backend.h"
#include "block/block.h"
#include "block/graph/activate.h"
#include "hw/core/reset.h"
#include "qapi/qapi-events-run-state.h"
#include "util/aio.h"
#include "util/bql.h"
#include "util/co-lock.h"
#include "util/error.h"
#include "util/timer.h"

static struct {
    gsize ready; /* the locks are made */
    CoMutex activating, changing;
    unsigned stops;          /* asked for so far */
    const char *refusal;     /* the taker's; NULL: the guest is not taken */
    RunState wished;         /* while it is taken */
    bool halted;             /* for the end of the process: `refusal` stays */
    unsigned changes;        /* of the machine, under way */
    unsigned holds;          /* of vCPUs, by those that change the machine */
    QemuCoSleepers sleepers; /* until no change is under way, or the guest is not taken */
    /* Any thread. */
    GMutex request_lock;
    bool requested; /* request_lock */
    RunState request;
} guest;

static void lock(CoMutex *mutex)
{
    if (g_once_init_enter(&guest.ready)) {
        qemu_co_mutex_init(&guest.activating);
        qemu_co_mutex_init(&guest.changing);
        g_once_init_leave(&guest.ready, 1);
    }
    qemu_co_mutex_lock(mutex);
}

/* --- changes of the machine --- */

bool vm_change_begin(GError **errp)
{
    if (!vm_check_not_taken(errp)) {
        return false;
    }
    guest.changes++;
    return true;
}

bool coroutine_fn vm_co_change_begin(void)
{
    while (!guest.halted && guest.refusal) {
        qemu_co_sleepers_wait(&guest.sleepers, QEMU_CLOCK_REALTIME, VM_QUIET_NS);
    }
    return vm_change_begin(NULL);
}

void vm_change_end(void)
{
    g_assert(guest.changes);
    if (!--guest.changes) {
        qemu_co_sleepers_wake(&guest.sleepers);
    }
}

void coroutine_fn vm_co_await_changes(void)
{
    while (guest.changes) {
        qemu_co_sleepers_wait(&guest.sleepers, QEMU_CLOCK_REALTIME, VM_QUIET_NS);
    }
}

/* --- start --- */

static void let_cpus_run(void)
{
    if (!guest.holds && runstate_is_running()) {
        cpus_start();
    }
}

void coroutine_fn vm_co_hold_cpus(void)
{
    g_assert(guest.changes);
    lock(&guest.changing);
    guest.holds++;
    cpus_co_stop();
    qemu_co_mutex_unlock(&guest.changing);
}

void vm_release_cpus(void)
{
    g_assert(guest.holds);
    guest.holds--;
    let_cpus_run();
}

void vm_start(void)
{
    g_assert(!guest.refusal);
    if (!runstate_is_running()) {
        runstate_set(RUN_STATE_RUNNING);
        let_cpus_run();
        qapi_event_send_resume();
    }
}

static bool take_request(RunState *state)
{
    bool requested;

    g_mutex_lock(&guest.request_lock);
    requested = guest.requested;
    *state = guest.request;
    guest.requested = false;
    g_mutex_unlock(&guest.request_lock);
    return requested;
}

/* With `changing` held: the guest runs, and stands afterwards. */
static void coroutine_fn stand(RunState state, bool event)
{
    cpus_co_stop();
    runstate_set(state);
    if (event) {
        qapi_event_send_stop();
    }
}

/*
 * With `changing` held. A stop that was requested before this start ends with it: the guest stands
 * for a moment, so that what waits for its next run begins again.
 */
static void coroutine_fn end_requested_stop(void)
{
    RunState state;

    if (take_request(&state) && runstate_is_running()) {
        stand(state, true);
    }
}

/* What stopped the guest is tried again: if it fails again, that is a new error. */
static void forget_io_errors(void)
{
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        blk_iostatus_reset(blk);
    }
}

/* With `activating` held. */
static bool coroutine_fn activate_and_start(GError **errp)
{
    unsigned stops = guest.stops;
    bool ok;

    if (!vm_check_not_taken(errp) || !bdrv_co_activate_all(errp)) {
        return false;
    }
    lock(&guest.changing);
    ok = guest.stops == stops;
    if (ok) {
        end_requested_stop();
        forget_io_errors();
        vm_start();
    } else {
        error_setg(errp, "The guest was stopped while its disks were being activated");
    }
    qemu_co_mutex_unlock(&guest.changing);
    return ok;
}

bool coroutine_fn vm_co_cont(GError **errp)
{
    bool ok;

    if (!vm_check_not_taken(errp)) {
        return false;
    }
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        runstate_set_autostart(true);
        return true;
    }
    lock(&guest.activating);
    ok = activate_and_start(errp);
    qemu_co_mutex_unlock(&guest.activating);
    return ok;
}

/* --- stop --- */

/* A guest that does not run, or that is taken. */
static void note_stop(RunState state)
{
    if (guest.refusal) {
        if (runstate_may_follow(guest.wished, state)) {
            guest.wished = state;
        }
    } else if (runstate_check(RUN_STATE_INMIGRATE)) {
        runstate_set_autostart(false);
    } else if (runstate_may_become(state)) {
        runstate_set(state);
    }
}

bool coroutine_fn vm_co_pause(RunState state)
{
    bool ran;

    g_assert(runstate_is_stop(state));
    guest.stops++;
    if (guest.refusal || !runstate_is_running()) {
        note_stop(state);
        return false;
    }
    lock(&guest.changing);
    ran = !guest.refusal && runstate_is_running();
    if (ran) {
        stand(state, true);
    } else {
        note_stop(state);
    }
    qemu_co_mutex_unlock(&guest.changing);
    return ran;
}

int coroutine_fn vm_co_quiesce(int64_t limit_ns, GError **errp)
{
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + limit_ns;

    if (!devices_co_settle(limit_ns, errp)) {
        return -ETIMEDOUT;
    }
    if (limit_ns) {
        limit_ns = MAX(1, end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    }
    return bdrv_co_quiesce_all(limit_ns, errp);
}

int coroutine_fn vm_co_stop(RunState state)
{
    int ahead = bdrv_co_flush_all(NULL), ret;

    vm_co_pause(state);
    ret = vm_co_quiesce(0, NULL);
    return ahead < 0 ? ahead : ret;
}

void coroutine_fn vm_co_halt(void)
{
    guest.stops++;
    lock(&guest.changing);
    g_assert(!guest.refusal);
    guest.refusal = "The process is ending";
    guest.halted = true;
    qemu_co_sleepers_wake(&guest.sleepers);
    if (runstate_is_running()) {
        stand(RUN_STATE_SHUTDOWN, false);
    } else if (runstate_may_become(RUN_STATE_SHUTDOWN)) {
        runstate_set(RUN_STATE_SHUTDOWN);
    }
    qemu_co_mutex_unlock(&guest.changing);
}

/* --- requests from any thread --- */

static void coroutine_fn request_co(void *opaque)
{
    RunState state;

    if (take_request(&state)) {
        vm_co_pause(state);
    }
}

void vm_stop_request(RunState state)
{
    bool first;

    g_assert(runstate_is_stop(state));
    cpu_leave_self();
    g_mutex_lock(&guest.request_lock);
    first = !guest.requested;
    if (first) {
        guest.requested = true;
        guest.request = state;
    }
    g_mutex_unlock(&guest.request_lock);
    if (first) {
        aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_create(request_co, NULL));
    }
}

/* --- taking the guest --- */

bool vm_is_taken(void)
{
    return guest.refusal;
}

bool vm_check_not_taken(GError **errp)
{
    if (guest.refusal) {
        error_setg(errp, "%s", guest.refusal);
    }
    return !guest.refusal;
}

/* With both locks held. */
static bool coroutine_fn take(RunState state, const char *refusal, GError **errp)
{
    if (!vm_check_not_taken(errp)) {
        return false;
    }
    if (!runstate_may_become(state)) {
        error_setg(errp, "The guest cannot be stopped for this in the state '%s'",
                   RunState_str(runstate_get()));
        return false;
    }
    if (guest.changes) {
        error_setg(errp,
                   "The guest cannot be stopped for this: a reset, or plugging or unplugging a "
                   "device, does not end");
        return false;
    }
    guest.wished = runstate_get();
    guest.refusal = refusal;
    if (runstate_is_running()) {
        stand(state, true);
    } else {
        runstate_set(state);
    }
    return true;
}

bool coroutine_fn vm_co_take(RunState state, const char *refusal, GError **errp)
{
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + VM_QUIET_NS;
    int64_t left_ns = VM_QUIET_NS;
    bool taken = false, over = false;

    while (!over) {
        lock(&guest.activating);
        lock(&guest.changing);
        over = !guest.changes || left_ns <= 0;
        if (over) {
            taken = take(state, refusal, errp);
        }
        qemu_co_mutex_unlock(&guest.changing);
        qemu_co_mutex_unlock(&guest.activating);
        if (!over) {
            qemu_co_sleepers_wait(&guest.sleepers, QEMU_CLOCK_REALTIME, left_ns);
            left_ns = end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        }
    }
    return taken;
}

RunState vm_wished_state(void)
{
    RunState state;

    if (!guest.refusal) {
        return runstate_get();
    }
    if (take_request(&state)) { /* its coroutine finds nothing left to do */
        note_stop(state);
    }
    return guest.wished;
}

void vm_settle(RunState state)
{
    g_assert(guest.refusal);
    guest.refusal = NULL;
    qemu_co_sleepers_wake(&guest.sleepers);
    if (state == RUN_STATE_RUNNING) {
        vm_start();
    } else {
        runstate_set(state);
    }
}

void vm_give_back(void)
{
    RunState state = vm_wished_state();

    vm_settle(qemu_shutdown_cause() == SHUTDOWN_CAUSE_NONE ? state : RUN_STATE_SHUTDOWN);
}

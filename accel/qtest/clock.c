/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtual clock of qtest. */
#include "accel/qtest/qtest.h"
#include "accel/runstate.h"
#include "util/aio.h"
#include "util/timer.h"

/* Times that timers may fire at one moment by arming themselves again, before the clock goes on. */
#define REPEATS_MAX 1000

static int64_t now_ns;  /* atomic */
static bool guest_runs; /* atomic */

static int64_t get_ns(void)
{
    return __atomic_load_n(&now_ns, __ATOMIC_ACQUIRE);
}

static bool running(void)
{
    return false;
}

static bool fires(void)
{
    return __atomic_load_n(&guest_runs, __ATOMIC_ACQUIRE);
}

static void run_state_changed(void *opaque, bool runs, RunState state)
{
    if (runs != fires()) {
        __atomic_store_n(&guest_runs, runs, __ATOMIC_RELEASE);
        qemu_clock_notify_all(); /* what became due meanwhile fires now */
    }
}

void qtest_clock_init(void)
{
    static const QEMUVirtualClock clock = {.get_ns = get_ns, .running = running, .fires = fires};

    qemu_clock_set_virtual(&clock);
    qemu_add_vm_change_state_handler_prio(run_state_changed, NULL, VM_CHANGE_STATE_PRIORITY_CLOCK);
}

bool qtest_clock_set_ns(int64_t ns)
{
    AioContext *ctx = qemu_get_aio_context();
    unsigned repeats = 0;

    if (ns < get_ns()) {
        return false;
    }
    for (;;) {
        int64_t deadline = aio_timer_deadline_ns(ctx, QEMU_CLOCK_VIRTUAL);

        if (deadline < 0 || deadline > ns || repeats > REPEATS_MAX) {
            break;
        }
        if (deadline > get_ns()) {
            __atomic_store_n(&now_ns, deadline, __ATOMIC_RELEASE);
            repeats = 0;
        }
        aio_timer_run(ctx, QEMU_CLOCK_VIRTUAL);
        repeats++;
    }
    __atomic_store_n(&now_ns, ns, __ATOMIC_RELEASE);
    return true;
}

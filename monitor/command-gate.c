/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which commands still run while the process ends. */
#include "monitor/command-gate.h"

#include "util/error.h"
#include "util/timer.h"

static struct {
    bool closed;
    unsigned inside;
    QemuCoSleepers sleepers; /* the shutdown */
} gate;

bool command_gate_enter(GError **errp)
{
    if (gate.closed) {
        error_setg(errp, "The process is ending");
        return false;
    }
    gate.inside++;
    return true;
}

void command_gate_leave(void)
{
    gate.inside--;
    if (!gate.inside) {
        qemu_co_sleepers_wake(&gate.sleepers);
    }
}

void command_gate_close(void)
{
    gate.closed = true;
}

bool coroutine_fn command_gate_co_wait(int64_t limit_ns)
{
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + limit_ns, left_ns = limit_ns;

    while (gate.inside && left_ns > 0) {
        qemu_co_sleepers_wait(&gate.sleepers, QEMU_CLOCK_REALTIME, left_ns);
        left_ns = end_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    }
    return !gate.inside;
}

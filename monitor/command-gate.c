/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which commands still run while the process ends. */
#include "monitor/command-gate.h"

#include "util/aio.h"
#include "util/error.h"

static struct {
    bool closed;
    unsigned inside;
    Coroutine *waiting; /* the shutdown; NULL: it does not wait */
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
    if (!gate.inside && gate.waiting) {
        aio_co_wake(g_steal_pointer(&gate.waiting));
    }
}

void command_gate_close(void)
{
    gate.closed = true;
}

void coroutine_fn command_gate_co_wait(void)
{
    if (gate.inside) {
        gate.waiting = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "accel/vm-reset.h"

#include "accel/cpus.h"
#include "util/aio.h"

static struct {
    VMResetHandler *co_handler;
    int cause; /* atomic: of the request that waits; SHUTDOWN_CAUSE_NONE: none does */
} reset;

void vm_set_reset_handler(VMResetHandler *co_handler)
{
    reset.co_handler = co_handler;
}

static void coroutine_fn request_co(void *opaque)
{
    reset.co_handler(__atomic_exchange_n(&reset.cause, SHUTDOWN_CAUSE_NONE, __ATOMIC_SEQ_CST));
}

void vm_reset_request(ShutdownCause cause)
{
    int none = SHUTDOWN_CAUSE_NONE;

    g_assert(cause != SHUTDOWN_CAUSE_NONE);
    cpu_leave_self();
    if (reset.co_handler && __atomic_compare_exchange_n(&reset.cause, &none, (int)cause, false,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_create(request_co, NULL));
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "system/reset.h"

#include "accel/cpus.h"
#include "accel/runstate.h"
#include "accel/vm-reset.h"
#include "accel/vm-stop.h"
#include "hw/core/reset.h"
#include "migration/migration.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qapi-commands-run-state.h"
#include "qapi/qapi-events-run-state.h"
#include "system/cmdline.h"
#include "util/error.h"

static bool runs;

static bool guest_asked(ShutdownCause cause)
{
    return cause == SHUTDOWN_CAUSE_GUEST_RESET || cause == SHUTDOWN_CAUSE_GUEST_SHUTDOWN ||
           cause == SHUTDOWN_CAUSE_GUEST_PANIC;
}

/* A change of the machine that has begun. Devices may take their time; RESET tells of the end. */
static void coroutine_fn co_reset_machine(ShutdownCause cause)
{
    g_autoptr(GError) err = NULL;

    vm_co_hold_cpus();
    devices_co_reset();
    cpus_reset();
    if (!cpus_push(&err)) {
        error_report("The reset of a vCPU failed: %s", err->message);
        vm_stop_request(RUN_STATE_INTERNAL_ERROR);
    }
    runs = false;
    qapi_event_send_reset(guest_asked(cause), cause);
    vm_release_cpus();
    vm_change_end();
}

/* The guest's wish. While the guest is taken it waits: what is saved is the guest before its reset. */
static void coroutine_fn co_carry_out(ShutdownCause cause)
{
    if (start_config.reboot_ends) {
        qemu_system_shutdown_request(cause);
    } else if (!runs && vm_co_change_begin()) {
        runs = true;
        co_reset_machine(cause);
    }
}

void system_reset_init(void)
{
    vm_set_reset_handler(co_carry_out);
}

static void coroutine_fn qmp_reset_co(void *opaque)
{
    co_reset_machine(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
}

bool coroutine_fn qmp_system_reset(GError **errp)
{
    if (start_config.reboot_ends) {
        qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
        return true;
    }
    if (runs) {
        return true;
    }
    /* What is being saved must not change, and a guest that has left is not here to be reset. */
    if (!migration_incoming_check_not_loading(errp) || !vm_change_begin(errp)) {
        return false;
    }
    runs = true;
    qemu_coroutine_enter(qemu_coroutine_create(qmp_reset_co, NULL));
    return true;
}

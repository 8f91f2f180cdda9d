/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to reset the machine. The machine's own part (system/reset.c) registers how it is done, as devices and
 * settings belong to floors above.
 */
#ifndef FERRY_ACCEL_VM_RESET_H
#define FERRY_ACCEL_VM_RESET_H

#include "qapi/qapi-types-run-state.h"
#include "util/coroutine.h"

/*
 * Asks for a reset; the first cause counts until it is carried out. In a vCPU's thread the guest does not execute
 * another instruction. Any thread, with or without the big lock.
 */
void vm_reset_request(ShutdownCause cause);

/* Carries a request out, in a coroutine of the main loop. Start-up. */
typedef void coroutine_fn VMResetHandler(ShutdownCause cause);
void vm_set_reset_handler(VMResetHandler *co_handler);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gate in front of the commands of all monitors. It closes when the process is told to end. A
 * command that could begin something is refused from then on, so what the steps of the
 * shutdown have ended stays ended. Commands that have passed are waited for. Main thread.
 */
#ifndef FERRY_MONITOR_COMMAND_GATE_H
#define FERRY_MONITOR_COMMAND_GATE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/coroutine.h"

/* True: the command runs until command_gate_leave(). False, with errp: the gate is closed. */
bool command_gate_enter(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void command_gate_leave(void);

void command_gate_close(void);
/* True: no command is inside any more. False: one still is, after limit_ns. */
bool coroutine_fn command_gate_co_wait(int64_t limit_ns) G_GNUC_WARN_UNUSED_RESULT;

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which accelerator runs the guest. Main thread. */
#ifndef FERRY_SYSTEM_ACCEL_H
#define FERRY_SYSTEM_ACCEL_H

#include <glib.h>
#include <stdbool.h>
#include "hw/core/machine.h"

/* Whether -accel takes the name. */
bool accel_is_known(const char *name);
/*
 * Opens the first accelerator of the command line that works, KVM when none was named. A machine without CPUs needs
 * none. False and errp: none works; of each the reason.
 */
bool accel_start(const MachineClass *machine, GError **errp);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine: its object, and what QMP asks about it. Main thread only. */
#ifndef FERRY_SYSTEM_MACHINE_H
#define FERRY_SYSTEM_MACHINE_H

#include <glib.h>
#include <stdbool.h>
#include "util/coroutine.h"

/*
 * Machines, buses and devices; before the command line is read. A second call does nothing.
 */
void machine_register_types(void);
/* Makes /machine, as the command line says. */
void machine_make(void);
/* Gives it memory and its own devices. */
bool coroutine_fn machine_co_init(GError **errp);

#endif

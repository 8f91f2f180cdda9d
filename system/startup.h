/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the command line to a process that serves: the steps of start-up. */
#ifndef FERRY_SYSTEM_STARTUP_H
#define FERRY_SYSTEM_STARTUP_H

#include <glib.h>
#include <stdbool.h>

/*
 * Everything up to the first turn of the main loop, as start_config asks. False and errp: the
 * process must end.
 */
bool startup_run(GError **errp);

#endif

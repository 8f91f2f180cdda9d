/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The orderly end of the process: the steps of start-up taken back. */
#ifndef FERRY_SYSTEM_SHUTDOWN_H
#define FERRY_SYSTEM_SHUTDOWN_H

#include "util/coroutine.h"

/* Runs all steps; when it returns nothing is left but to exit. */
void coroutine_fn shutdown_co_run(void);
/* The step that is being waited for, in words. */
const char *shutdown_waits_for(void);

#endif

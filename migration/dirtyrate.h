/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How fast the guest changes its memory: calc-dirty-rate. Main thread. */
#ifndef FERRY_MIGRATION_DIRTYRATE_H
#define FERRY_MIGRATION_DIRTYRATE_H

#include "util/coroutine.h"

/* Ends a measurement early, once, before the guest's memory goes; no other one begins. */
void coroutine_fn dirty_rate_co_shutdown(void);

#endif

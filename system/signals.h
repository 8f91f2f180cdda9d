/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SIGTERM, SIGINT and SIGHUP end the process in order. Main thread only. */
#ifndef FERRY_SYSTEM_SIGNALS_H
#define FERRY_SYSTEM_SIGNALS_H

#include <glib.h>
#include <stdbool.h>

/*
 * Takes over the signals, for threads made from now on as well. Until signals_set_loop_running()
 * one ends the process at once; then the first asks for shutdown, and one that comes
 * SIGNAL_IMPATIENT_NS or more after that gives up waiting for it.
 */
bool signals_init(GError **errp);
void signals_set_loop_running(void);
#define SIGNAL_IMPATIENT_NS NANOSECONDS_PER_SECOND

#endif

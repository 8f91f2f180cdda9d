/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The process as its parent sees it: -daemonize and -pidfile. */
#ifndef FERRY_SYSTEM_DAEMON_H
#define FERRY_SYSTEM_DAEMON_H

#include <glib.h>
#include <stdbool.h>

/*
 * Forks; returns in the child, which has a session of its own. The parent stays until the child
 * calls daemon_ready() and then exits with status 0, or with 1 when the child ends before that.
 * Before any thread or event loop exists.
 */
bool daemon_fork(GError **errp);
/*
 * Cuts the last ties (standard streams, working directory) and lets the parent go. No effect
 * without daemon_fork().
 */
bool daemon_ready(GError **errp);

/* Creates and locks the file, writes the process id, and removes the file at exit. */
bool pidfile_create(const char *path, GError **errp);

#endif

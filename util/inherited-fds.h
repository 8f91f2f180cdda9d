/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors that the process was started with. A user may name such a descriptor by its number; any
 * other number would reach a file or socket that belongs to the process itself. Any thread.
 */
#ifndef FERRY_UTIL_INHERITED_FDS_H
#define FERRY_UTIL_INHERITED_FDS_H

#include <glib.h>
#include <stdbool.h>

/*
 * Records what is open now, from 3 on (the standard streams are not to be given away), in place of what
 * was recorded before. main() calls it before anything else is opened.
 */
void inherited_fds_record(void);

/*
 * The inherited descriptor with that decimal number, close-on-exec from now on. It belongs to the caller: a second
 * call with the same number fails. On failure -1 and errp: text that is no number, or a descriptor
 * that was not inherited or has been taken.
 */
G_GNUC_WARN_UNUSED_RESULT int inherited_fd_take(const char *number, GError **errp);
/* The same without taking it: the descriptor stays inherited and unused. */
G_GNUC_WARN_UNUSED_RESULT int inherited_fd_look(const char *number, GError **errp);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Monitors: conversations that control the process, in QMP (JSON, for programs) or HMP (lines, for
 * people).
 *
 * Main thread only, monitor_emit_event() excepted. Commands run in coroutines, one in-band command
 * at a time for each conversation, so a command that waits keeps nobody else waiting.
 */
#ifndef FERRY_MONITOR_MONITOR_H
#define FERRY_MONITOR_MONITOR_H

#include <glib.h>
#include <stdbool.h>
#include "chardev/char.h"
#include "util/coroutine.h"

/* Starts serving events and fd sets; before any monitor or chardev exists. */
void monitor_init(void);
/* Makes a monitor on a chardev. False, with errp, when the chardev has a front end. */
bool monitor_new_qmp(Chardev *chr, bool pretty, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool monitor_new_hmp(Chardev *chr, bool readline, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Ends all conversations; nothing more is read, replies of commands that still run are dropped. */
void monitor_cleanup(void);

/*
 * A descriptor that the client of the running command sent with it (SCM_RIGHTS), now the caller's;
 * -1 without one. For handlers, before they yield.
 */
int monitor_take_fd(void);
/*
 * The descriptor that getfd stored under `name` in the monitor of the running command, or a number,
 * which names an inherited descriptor. It leaves the monitor and is the caller's. -1 and errp when
 * there is none.
 */
int monitor_get_fd(const char *name, GError **errp);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Monitors: conversations that control the process, in QMP (JSON, for programs) or HMP (lines, for
 * people).
 *
 * QMP sessions read, answer and send in the monitors' thread, those on a shared chardev (mux) in the
 * main thread. Commands run in coroutines, one in-band command at a time for each session, so that a
 * command that waits holds up no other session. A handler runs in the main thread, unless the
 * schema says that it needs neither that thread nor the big lock (qapi/dispatch.h). Such a command
 * is answered whatever the main thread waits for.
 *
 * HMP stays in the main thread: all its commands need it, and its chardev is often shared with a
 * device of the guest.
 */
#ifndef FERRY_MONITOR_MONITOR_H
#define FERRY_MONITOR_MONITOR_H

#include <glib.h>
#include <stdbool.h>
#include "chardev/char.h"
#include "util/coroutine.h"

/* Starts serving events and fd sets; before any monitor or chardev exists. */
void monitor_init(void);
/*
 * Makes a monitor on a chardev, which moves to the monitors' thread unless it is shared. False, with
 * errp, when the chardev has a front end.
 */
bool coroutine_fn monitor_co_new_qmp(Chardev *chr, bool pretty,
                                     GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same in the chardev's thread, where the chardev stays. */
bool monitor_new_qmp(Chardev *chr, bool pretty, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool monitor_new_hmp(Chardev *chr, bool readline, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Ends all conversations; nothing more is read, replies of commands that still run are dropped. */
void coroutine_fn monitor_co_cleanup(void);

/*
 * A descriptor that the client of the running command sent with it (SCM_RIGHTS), now the caller's;
 * -1 without one. For handlers, before they yield. Any thread.
 */
int monitor_take_fd(void);
/*
 * The descriptor that getfd stored under `name` in the monitor of the running command, or a number,
 * which names an inherited descriptor. It leaves the monitor and is the caller's. -1 and errp when
 * there is none. Any thread.
 */
int monitor_get_fd(const char *name, GError **errp);

#endif

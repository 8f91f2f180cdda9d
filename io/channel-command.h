/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannelCommand: a channel over the standard input and output of a program that it starts.
 *
 * The program gets no other descriptor of ours; its standard error is ours, and a stream that is not
 * used is /dev/null. qio_channel_close() closes the pipes and waits for the program; how it ended,
 * if not with status 0, is the error then. Shutdown ends both directions for this side. If a thread
 * waits in close, or calls it later, the program is ended too: SIGTERM, and SIGKILL a second after.
 * The same happens, without a wait, when the last reference is dropped before a close.
 */
#ifndef FERRY_IO_CHANNEL_COMMAND_H
#define FERRY_IO_CHANNEL_COMMAND_H

#include "io/channel.h"

typedef struct QIOChannelCommand QIOChannelCommand;

/*
 * argv: the program by path and its arguments, NULL-terminated. flags: O_RDONLY reads what it
 * prints, O_WRONLY writes what it reads, O_RDWR both. NULL and errp when it cannot be started.
 */
QIOChannelCommand *qio_channel_command_new_spawn(const char *const argv[], int flags,
                                                 GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same for `/bin/sh -c COMMAND`. */
QIOChannelCommand *qio_channel_command_new_shell(const char *command, int flags,
                                                 GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* The program's process id; valid until it was waited for. */
pid_t qio_channel_command_get_pid(const QIOChannelCommand *cioc);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A channel over a descriptor of any kind that a user passed. */
#ifndef FERRY_IO_CHANNEL_FD_H
#define FERRY_IO_CHANNEL_FD_H

#include "io/channel.h"

/*
 * A socket channel for a stream socket, a file channel for what else there is. Takes over fd; on
 * failure the caller keeps it.
 */
QIOChannel *qio_channel_new_fd(int fd, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif

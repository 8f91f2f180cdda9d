/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sending part of a file over a socket channel without copying it through the process. */
#ifndef FERRY_IO_CHANNEL_SENDFILE_H
#define FERRY_IO_CHANNEL_SENDFILE_H

#include "io/channel.h"

/*
 * Sends bytes [offset, offset + bytes) of fd, zeroes past its end, from a worker thread: reading
 * the file may wait for the disk. The caller is the channel's only writer meanwhile.
 * qio_channel_shutdown() ends it. 0 or -errno; after a failure part of the range may have been
 * sent. The pages may be sent as they are when the peer reads them: a later write to the file may
 * show.
 */
int coroutine_fn qio_channel_co_sendfile(QIOChannel *ioc, int fd, int64_t offset, size_t bytes,
                                         GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
